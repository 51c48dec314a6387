//! Where memory, address space or file sizes are limited, that is an error with the sizes in it, or
//! less is reserved; never a signal.

mod common;

use std::path::Path;
use std::process::{Command, ExitCode};

use offspring::{CreateError, Queue, Segment, SegmentError, SegmentOptions, fork};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set when this binary is started by one of its own tests, to say what to do instead of testing.
const ROLE: &str = "OFFSPRING_TEST_ROLE";

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("address space") => limited_address_space(),
        Ok("file size") => limited_file_size(),
        Ok("full file system") => full_file_system(),
        Ok(role) => panic!("no such role: {role}"),
        Err(_) => {
            return common::run(&tests![
                a_limited_address_space_gives_smaller_commons,
                a_limited_file_size_gives_smaller_commons,
                a_full_file_system_is_an_error_with_the_sizes,
                the_commons_take_the_size_that_was_chosen_first,
            ]);
        }
    }
    ExitCode::SUCCESS
}

fn play(role: &str, mut command: Command) {
    let status = command.env(ROLE, role).status().expect("start");
    assert!(status.success(), "{role}: {status}");
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().expect("a path"))
}

fn a_limited_address_space_gives_smaller_commons() {
    play("address space", this_binary());
}

fn limited_address_space() {
    let limit = Rlimit { current: Some(1 << 30), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, limit).expect("setrlimit");
    let commons = Segment::commons().expect("smaller commons");
    assert!(commons.len() < 1 << 30, "{}", commons.len());
    let error = Segment::create(1 << 30).expect_err("an explicit length is not made smaller");
    assert!(matches!(error, SegmentError::NoRoom { size, .. } if size > 1 << 30), "{error}");
    works_in_children();
}

fn a_limited_file_size_gives_smaller_commons() {
    play("file size", this_binary());
}

fn limited_file_size() {
    let limit = Rlimit { current: Some(1 << 28), maximum: getrlimit(Resource::Fsize).maximum };
    setrlimit(Resource::Fsize, limit).expect("setrlimit");
    let commons = Segment::commons().expect("smaller commons");
    assert!(commons.len() < 1 << 28, "{}", commons.len());
    works_in_children();
}

/// Also three deep: every generation maps the segment anew.
fn works_in_children() {
    let queue = Queue::<u64>::with_capacity(16).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        let deeper = theirs.clone();
        fork(move || deeper.send(2).expect("open")).expect("fork").join().expect("no panic");
        theirs.send(1).expect("open");
    });
    child.expect("fork").join().expect("no panic");
    assert_eq!((queue.recv(), queue.recv()), (Ok(2), Ok(1)));
}

fn a_full_file_system_is_an_error_with_the_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("unshare");
    command.arg("-Urm").arg("sh").arg("-c");
    command.arg("mount -t tmpfs -o size=4m none \"$0\" && cd \"$0\" && exec \"$1\"");
    command.arg(folder.path()).arg(std::env::current_exe().expect("a path"));
    if !Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine does not let users have mount namespaces");
        return;
    }
    play("full file system", command);
}

fn full_file_system() {
    let segment = Segment::create_file(Path::new("segment"), 64 << 20).expect("a sparse segment");
    let mut queues = Vec::new();
    let error = loop {
        match Queue::<[u8; 4096]>::with_capacity_in(&segment, 200) {
            Ok(queue) => queues.push(queue),
            Err(error) => break error,
        }
        assert!(queues.len() < 10, "4 MiB hold fewer than 10 queues of 800 KiB");
    };
    let expected = |bytes: u64| (200 * 4096..201 * 4200).contains(&bytes);
    assert!(
        matches!(&error, CreateError::NoPages { requested, .. } if expected(*requested)),
        "{error}"
    );
    assert!(!queues.is_empty());
    // What there is works to the last byte, and what is given back can be had again.
    for queue in &queues {
        while queue.try_send([1; 4096]).is_ok() {}
        assert!(queue.is_full());
    }
    queues.pop();
    queues.push(Queue::with_capacity_in(&segment, 200).expect("room again"));
}

fn the_commons_take_the_size_that_was_chosen_first() {
    // The harness has forked already, so the commons are there.
    assert!(matches!(
        SegmentOptions::new().len(1 << 20).commons(),
        Err(SegmentError::CommonsExist)
    ));
    let child = fork(|| Segment::commons().expect("the parent's").id());
    assert_eq!(
        child.expect("fork").join().expect("no panic"),
        Segment::commons().expect("the commons").id()
    );
}
