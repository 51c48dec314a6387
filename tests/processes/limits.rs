//! Where memory, address space or file sizes are limited, that is an error with the sizes in it, or
//! less is reserved; never a signal.

use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, setresuid};
use offspring::{CreateError, ForkError, JoinError, Queue, Segment, SegmentError, SegmentOptions};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::common::fork;
use crate::harness::{apart, apply, fresh, test};
use crate::role::{self, role};

/// A user who may do nothing special.
const NOBODY: u32 = 65534;

#[apply(fresh)]
fn a_limited_address_space_gives_smaller_commons() {
    let limit = Rlimit { current: Some(1 << 30), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, limit).expect("setrlimit");
    let commons = Segment::commons().expect("smaller commons");
    assert!(commons.len() < 1 << 30, "{}", commons.len());
    let error = Segment::create(1 << 30).expect_err("an explicit length is not made smaller");
    let SegmentError::NoRoom { size, call: "getrlimit", source } = error else {
        panic!("{error:?}");
    };
    assert!(size > 1 << 30, "{size}");
    assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
    works_in_children();
}

#[apply(fresh)]
fn where_not_even_small_commons_fit_that_is_an_error() {
    let limit = Rlimit { current: Some(1 << 14), maximum: getrlimit(Resource::Fsize).maximum };
    setrlimit(Resource::Fsize, limit).expect("setrlimit");
    let error = Segment::commons().expect_err("no room");
    let SegmentError::NoRoom { size, source, .. } = error else { panic!("{error:?}") };
    assert!(size > 1 << 20, "the size of the smallest that were tried: {size}");
    assert_eq!(source.raw_os_error(), Some(libc::EFBIG));
}

#[apply(fresh)]
fn a_limited_file_size_gives_smaller_commons() {
    let limit = Rlimit { current: Some(1 << 28), maximum: getrlimit(Resource::Fsize).maximum };
    setrlimit(Resource::Fsize, limit).expect("setrlimit");
    let commons = Segment::commons().expect("smaller commons");
    assert!(commons.len() < 1 << 28, "{}", commons.len());
    let error = Segment::create(1 << 28).expect_err("an explicit length is not made smaller");
    let SegmentError::NoRoom { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EFBIG));
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

#[apply(test)]
fn a_full_file_system_is_an_error_with_the_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("unshare");
    command.arg("-Urm").arg("sh").arg("-c");
    command.arg("mount -t tmpfs -o size=4m none \"$0\" && cd \"$0\" && exec \"$1\"");
    let full = role::command("limits::full_file_system");
    command.arg(folder.path()).arg(full.get_program());
    command.envs(full.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if !Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine does not let users have mount namespaces");
        return;
    }
    let status = command.status().expect("start");
    assert!(status.success(), "{status}");
}

#[apply(role)]
fn full_file_system(_: &str) {
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

#[apply(test)]
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

/// Everything that was prepared for the child is taken back: what the parent reserved in a peer
/// table would be lost for as long as it lives.
#[apply(apart)]
fn a_fork_that_the_kernel_refuses_takes_no_place() {
    let commons = Segment::commons().expect("the commons");
    let limit = Rlimit { current: Some(0), maximum: getrlimit(Resource::Nproc).maximum };
    setrlimit(Resource::Nproc, limit).expect("setrlimit");
    if geteuid().is_root() {
        // The limit is not for root.
        setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(0))
            .expect("setresuid");
    }
    // More often than the table has entries.
    for round in 0..1100 {
        match fork(|| ()) {
            Err(ForkError::Os { call: "fork", .. }) => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert_eq!(commons.reap(), Ok(0), "nobody has died");
}

/// The limit is on files, and nothing was written to one.
#[apply(test)]
fn a_value_beyond_the_file_size_limit_is_an_error_and_no_signal() {
    let child = fork(|| {
        let limit = Rlimit { current: Some(0), maximum: getrlimit(Resource::Fsize).maximum };
        setrlimit(Resource::Fsize, limit).expect("setrlimit");
        vec![7_u8; 10 << 20]
    });
    let refused = child.expect("fork").join();
    assert!(matches!(refused, Err(JoinError::Unsendable(_))), "{refused:?}");
}
