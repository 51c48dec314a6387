//! A thousand children at a time, with the usual limit of descriptors.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use offspring::Event;

fn wait_for((gate, number): (Event, u64)) -> Vec<u64> {
    gate.wait().expect("the parent lives");
    // Too long for the first page of its file.
    if number == 500 { vec![number; 10_000] } else { vec![number] }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

#[test]
fn a_thousand_children_take_one_descriptor_each() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most.min(1024), most).expect("lower than it was");
    let gate = Event::new().expect("an event");
    let before = open_descriptors();
    let children: Vec<_> = (0..1000)
        .map(|number| offspring::spawn(wait_for, (gate.clone(), number)).expect("room for it"))
        .collect();
    let held = open_descriptors() - before;
    assert!(held < 1000 + 16, "{held} descriptors");
    assert!(children.iter().all(|child| !child.wait_timeout(Duration::ZERO).expect("poll")));
    gate.set().expect("the event is ours");
    for (number, child) in (0..).zip(children) {
        let value = child.join().expect("it returns");
        assert_eq!(value.len(), if number == 500 { 10_000 } else { 1 });
        assert!(value.iter().all(|&word| word == number));
    }
    let left = open_descriptors() - before;
    assert!(left < 16, "{left} descriptors of the zygote and the children's lifeline");
}
