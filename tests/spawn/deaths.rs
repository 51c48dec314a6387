//! Parents and children that are killed at any moment of a start and an end.

use std::io::BufRead;
use std::process::Stdio;
use std::time::Duration;

use offspring::{Builder, JoinError, Lock, Segment, ShmBox, spawn};

use crate::common::processes::{DYING, adopt_orphans, bury_all};
use crate::scene::{METHODS, command, others, scene};

/// In this process the scene is the parent that is killed.
const VICTIM: &str = "OFFSPRING_TEST_VICTIM";

/// Marsaglia's xorshift.
fn random(state: &mut u64, bound: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % bound
}

fn start_for_ever() {
    println!("begins");
    std::thread::scope(|scope| {
        for method in METHODS {
            scope.spawn(move || {
                loop {
                    let lock = Lock::new(7_u64).expect("room");
                    let add = |lock: Lock<u64>| *lock.lock().expect("free") + 1;
                    let child = Builder::new().method(method).spawn(add, lock).expect("spawn");
                    assert_eq!(child.join().expect("a value"), 8);
                }
            });
        }
    });
}

scene! {
fn a_parent_that_is_killed_at_any_moment_leaves_no_process() {
    if std::env::var_os(VICTIM).is_some() {
        start_for_ever();
    }
    adopt_orphans();
    let name = concat!(module_path!(), "::a_parent_that_is_killed_at_any_moment_leaves_no_process");
    let mut state = 7;
    for round in 0..100 {
        let mut parent = command(name)
            .env(VICTIM, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the test program");
        let output = std::io::BufReader::new(parent.stdout.take().expect("a pipe"));
        output.lines().find(|line| line.as_ref().is_ok_and(|it| it.contains("begins")));
        std::thread::sleep(Duration::from_micros(random(&mut state, 30_000)));
        parent.kill().expect("it lives");
        parent.wait().expect("it is ours");
        assert_eq!(bury_all(DYING), [""; 0], "round {round}");
    }
}
}

scene! {
fn a_child_that_is_killed_at_any_moment_leaves_nothing() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (mut values, mut killed, mut state) = (0, 0, 7);
    for round in 0..600 {
        let method = METHODS[usize::from(round % 8 == 7)];
        let builder = || Builder::new().method(method);
        let wait = random(&mut state, 1000);
        let kill = |id: u32| {
            std::thread::sleep(Duration::from_micros(wait));
            crate::scene::signal(id, nix::sys::signal::Signal::SIGKILL);
        };
        let boxed = ShmBox::new_in(&segment, 7_u64).expect("room");
        let lock = Lock::new_in(&segment, 7_u64).expect("room");
        let first = builder().spawn(|boxed: ShmBox<u64>| boxed, boxed).expect("spawn");
        let second = builder().spawn(|lock: Lock<u64>| lock, lock).expect("spawn");
        kill(first.id());
        kill(second.id());
        let endings = [first.join().map(|it| *it), second.join().map(|it| *it.lock().expect("free"))];
        for ending in endings {
            match ending {
                Ok(7) => values += 1,
                Err(JoinError::Killed(9)) => killed += 1,
                other => panic!("{other:?}"),
            }
        }
        let left = segment.stats().expect("attached");
        assert_eq!((left.in_use.blocks, left.peers.len()), (0, 1), "round {round}");
    }
    println!("{values} values, {killed} killed");
    assert!(killed > 50, "{values} values, {killed} killed");
    assert_eq!(others(), []);
    spawn(|()| (), ()).expect("spawn").join().expect("a value");
}
}
