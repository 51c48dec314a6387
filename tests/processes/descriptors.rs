//! A number that stood for a descriptor of the crate's is not believed to stand for it still.
//!
//! A program may close every descriptor that it has, as daemons do, and open files of its own under
//! the same numbers. A raw-forked child that did so once lost twelve of its own files when it used
//! the crate, which closed numbers. So whatever is done afterwards, none of the program's files is
//! closed, written, made shorter or punched.

#![expect(unsafe_code, reason = "processes that close descriptors under their owners")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use offspring::{
    Child, Fault, ForkError, JoinError, Lock, LockError, Queue, Segment, TryRecvError, TrySendError,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::common::raw::Board;
use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apart, apply};

/// The program's own files, open under numbers that were free.
struct Own {
    files: Vec<(File, u64, u64)>,
}

const LEN: usize = 1 << 14;
const BYTE: u8 = 0x5a;

impl Own {
    fn open() -> Own {
        Own::with(|_| tempfile::tempfile().expect("a file"))
    }

    /// Files with names, which another process may look at.
    fn open_in(folder: &Path) -> Own {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        Own::with(|number| options.open(folder.join(number.to_string())).expect("a file"))
    }

    fn with(mut open: impl FnMut(usize) -> File) -> Own {
        let open = |number| {
            let file = open(number);
            file.write_all_at(&[BYTE; LEN], 0).expect("writable");
            let metadata = file.metadata().expect("open");
            (file, metadata.ino(), metadata.dev())
        };
        Own { files: (0..30).map(open).collect() }
    }

    /// Does something, after which all must be as they were.
    #[track_caller]
    fn stay_whole_while<T>(&self, what: &str, act: impl FnOnce() -> T) -> T {
        let result = act();
        for (file, inode, device) in &self.files {
            let fd = file.as_raw_fd();
            let metadata =
                file.metadata().unwrap_or_else(|error| panic!("{what}: descriptor {fd}: {error}"));
            assert_eq!(
                (metadata.ino(), metadata.dev()),
                (*inode, *device),
                "{what}: descriptor {fd} is another file"
            );
            assert_eq!(metadata.len(), LEN as u64, "{what}: the length of {fd}");
            let mut bytes = vec![0; LEN];
            file.read_exact_at(&mut bytes, 0).expect("readable");
            assert!(bytes.iter().all(|&byte| byte == BYTE), "{what}: the bytes of {fd}");
            assert_eq!(rustix::fs::tell(file).expect("open"), 0, "{what}: the position of {fd}");
            let flags = rustix::fs::fcntl_getfl(file).expect("open");
            assert!(
                !flags.intersects(rustix::fs::OFlags::from_bits_retain(libc::O_ASYNC as u32)),
                "{what}: the flags of {fd}"
            );
        }
        result
    }
}

fn sleeper() -> Child<()> {
    fork(|| -> () { common::sleep_for_ever() }).expect("fork")
}

/// Segments of both kinds, objects in them, and children: what a program may have when it closes
/// all its descriptors.
struct Estate {
    _folder: tempfile::TempDir,
    in_file: Segment,
    anonymous: Segment,
    large: Queue<[u8; 4096]>,
    small: Queue<u64>,
    lock: Lock<u64>,
    children: Vec<Child<()>>,
}

impl Estate {
    fn new() -> Estate {
        let folder = tempfile::tempdir().expect("a folder");
        let in_file =
            Segment::create_file(folder.path().join("segment"), 1 << 20).expect("a segment");
        let anonymous = Segment::create(1 << 22).expect("a segment");
        let large = Queue::with_capacity_in(&anonymous, 300).expect("a queue");
        while large.try_send([1; 4096]).is_ok() {}
        let small = Queue::with_capacity_in(&in_file, 4).expect("a queue");
        let lock = Lock::new(0).expect("a lock");
        let children = (0..4).map(|_| sleeper()).collect();
        Estate { _folder: folder, in_file, anonymous, large, small, lock, children }
    }
}

fn is_refused_fstat(fault: Fault) -> bool {
    matches!(fault, Fault::Os { call: "fstat", errno: libc::EBADF })
}

#[apply(apart)]
fn a_raw_forked_child_that_closed_all_keeps_its_own_files() {
    for attached in [false, true] {
        let estate = Estate::new();
        raw::fork(|| {
            let Estate { in_file, anonymous, large, small, lock, mut children, .. } = estate;
            if attached {
                assert!(
                    lock.lock().is_ok() && small.try_send(1).is_ok() && large.try_recv().is_ok()
                );
            }
            sandbox::close_all_from(3);
            let own = Own::open();
            own.stay_whole_while("asking a child of its parent's", || {
                assert!(matches!(children[0].try_join(), Some(Err(JoinError::NotOurChild))));
                assert!(children[0].kill().is_err() && !children[0].is_alive());
            });
            own.stay_whole_while("dropping a handle", || drop(children.pop()));
            let forked =
                own.stay_whole_while("forking", || fork(|| 7).map(|child| child.join().ok()));
            match forked {
                Ok(value) => assert_eq!(value, Some(7)),
                Err(ForkError::Segment(fault)) => assert!(is_refused_fstat(fault), "{fault:?}"),
                Err(other) => panic!("{other:?}"),
            }
            own.stay_whole_while("locking", || match lock.lock() {
                Ok(mut guard) if attached => *guard += 1,
                Err(LockError::Broken(fault)) if !attached => {
                    assert!(is_refused_fstat(fault), "{fault:?}")
                }
                other => {
                    panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string()))
                }
            });
            own.stay_whole_while("sending and receiving", || {
                match (small.try_send(1), large.try_recv()) {
                    (Ok(()), Ok(_)) if attached => {}
                    (Err(TrySendError::Broken(_, fault)), Err(TryRecvError::Broken(other)))
                        if !attached =>
                    {
                        assert!(
                            is_refused_fstat(fault) && is_refused_fstat(other),
                            "{fault:?} {other:?}"
                        );
                    }
                    other => panic!("{other:?}"),
                }
            });
            for segment in [&in_file, &anonymous] {
                let made = own.stay_whole_while("making an object", || {
                    Queue::<u64>::with_capacity_in(segment, 4096).map(drop)
                });
                assert!(made.is_err(), "it would need pages that nobody can give it");
                let reaped = own.stay_whole_while("reaping", || segment.reap());
                assert_eq!(reaped.is_ok(), attached, "{reaped:?}");
            }
            own.stay_whole_while("dropping a large queue", || drop(large));
            own.stay_whole_while("dropping the other objects", || drop((small, lock)));
            own.stay_whole_while("dropping the other handles", || drop(children));
            own.stay_whole_while("dropping the segments", || drop((in_file, anonymous)));
            raw::exit(0);
        })
        .join();
    }
}

#[apply(apart)]
fn the_last_handle_of_a_segment_closes_nothing_but_the_segment() {
    for in_file in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        raw::fork(|| {
            let path = folder.path().join("segment");
            let segment = if in_file {
                Segment::create_file(path, 1 << 16)
            } else {
                Segment::create(1 << 16)
            };
            let segment = segment.expect("a segment");
            let lock = Lock::new_in(&segment, 7_u64).expect("a lock");
            sandbox::close_all_from(3);
            let own = Own::open();
            own.stay_whole_while("dropping the last handle", || drop((lock, segment)));
            raw::exit(0);
        })
        .join();
    }
}

#[apply(apart)]
fn a_process_that_closed_all_keeps_its_own_files() {
    let Estate { in_file, anonymous, large, small, lock, mut children, .. } = Estate::new();
    let ended: Vec<Child<Vec<u8>>> =
        [0, 5, 10_000].map(|len| fork(move || vec![7; len]).expect("fork")).into_iter().collect();
    common::wait_until("the children end", || ended.iter().all(|child| !child.is_alive()));
    sandbox::close_all_from(3);
    let own = Own::open();
    for child in ended {
        let value = own.stay_whole_while("joining", || child.join());
        assert!(matches!(value, Err(JoinError::Os { .. })), "{value:?}");
    }
    let ending =
        own.stay_whole_while("asking whether a child has ended", || children[0].try_join());
    assert!(matches!(ending, Some(Err(JoinError::Os { .. }))), "{ending:?}");
    let ending = own.stay_whole_while("waiting for a child", || {
        children[0].join_timeout(Duration::from_millis(5))
    });
    assert!(matches!(ending, Some(Err(JoinError::Os { .. }))), "{ending:?}");
    let killed = own.stay_whole_while("killing a child", || children[0].kill());
    assert_eq!(killed.expect_err("nobody can be killed").raw_os_error(), Some(libc::EBADF));
    own.stay_whole_while("dropping a handle", || drop(children.pop()));
    own.stay_whole_while("forking", || fork(|| ()).map(|child| child.join().ok()).ok());
    own.stay_whole_while("using objects", || {
        assert!(lock.lock().is_ok() && small.try_send(1).is_ok() && large.try_recv().is_ok());
    });
    for segment in [&in_file, &anonymous] {
        let made = own.stay_whole_while("making an object", || {
            Queue::<u64>::with_capacity_in(segment, 4096).map(drop)
        });
        assert!(made.is_err(), "it would need pages that nobody can give it");
        own.stay_whole_while("reaping", || segment.reap()).expect("attached");
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(own.stay_whole_while("sending it", || segment.send(&ours)).is_err());
        let mut command = std::process::Command::new("true");
        assert!(
            own.stay_whole_while("passing it", || segment.pass_to(&mut command, "name")).is_err()
        );
    }
    own.stay_whole_while("dropping a large queue", || drop(large));
    own.stay_whole_while("dropping the other objects", || drop((small, lock)));
    own.stay_whole_while("dropping the other handles", || drop(children));
    own.stay_whole_while("dropping the segments", || drop((in_file, anonymous)));
    raw::exit(0);
}

#[apply(apart)]
fn what_is_mapped_still_works_in_a_process_that_closed_all() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (lock, queue) = (
        Lock::new_in(&segment, 0_u64).expect("a lock"),
        Queue::<u64>::with_capacity_in(&segment, 2).expect("a queue"),
    );
    let board = Board::new();
    let mut other = raw::fork(|| {
        let guard = lock.lock().expect("free");
        sandbox::close_all_from(3);
        let own = Own::open();
        queue.send(1).expect("room");
        board.set(0, 1);
        board.wait(0, 2);
        std::mem::forget((guard, own));
    });
    board.wait(0, 1);
    assert_eq!(queue.recv(), Ok(1));
    // Its mapping says that it lives, and it needs no descriptor for that.
    for _ in 0..3 {
        let refused = lock
            .lock_timeout(Duration::from_millis(15))
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert_eq!(refused, Err("somebody else had the lock all the time".to_owned()));
        assert_eq!(segment.reap(), Ok(0));
    }
    board.set(0, 2);
    other.wait();
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied)));
}

#[apply(apart)]
fn a_child_that_closed_all_keeps_its_own_files_and_its_value_is_lost() {
    for len in [0, 3, 100_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let child = fork(move || {
            sandbox::close_all_from(3);
            let own = Own::open_in(&path);
            let forked =
                own.stay_whole_while("forking", || fork(|| 7).map(|child| child.join().ok()));
            assert!(!matches!(forked, Ok(Some(_))), "it has no segment to be in: {forked:?}");
            let refused = own.stay_whole_while("arranging its end", offspring::end_with_parent);
            assert_eq!(
                refused.expect_err("there is nothing to do it with").raw_os_error(),
                Some(libc::EBADF)
            );
            // They are open when the value is sent.
            std::mem::forget(own);
            vec![7_u8; len]
        });
        let ending = child.expect("fork").join();
        assert!(matches!(ending, Err(JoinError::Exited(101))), "{len} bytes: {ending:?}");
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            assert_eq!(
                std::fs::read(entry.expect("an entry").path()).expect("a file"),
                [BYTE; LEN],
                "{len} bytes"
            );
        }
    }
}

/// Puts what `with` stands for under the number, and gives what was there.
fn exchange(number: RawFd, with: &impl AsRawFd) -> OwnedFd {
    // SAFETY: whoever has the number finds out that it stands for another file.
    let before = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().expect("open");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::dup3(with.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
    before
}

#[apply(apart)]
fn a_value_whose_file_is_out_of_reach_can_be_asked_for_again() {
    for len in [0, 3, 100, 100_000] {
        let before = common::descriptors();
        let mut child = fork(move || vec![7_u8; len]).expect("fork");
        let outcome = common::descriptors()
            .into_iter()
            .find(|(fd, target)| !before.contains_key(fd) && target.contains("outcome"));
        let (outcome, _) = outcome.expect("the file of the value");
        common::wait_until("the child ends", || !child.is_alive());
        let other = tempfile::tempfile().expect("a file");
        let there = exchange(outcome, &other);
        for _ in 0..3 {
            let refused = child.try_join();
            assert!(
                matches!(refused, Some(Err(JoinError::Os { call: "fstat", .. }))),
                "{refused:?}"
            );
        }
        assert_eq!(common::state(child.id()), None, "it was waited for");
        drop(exchange(outcome, &there));
        assert_eq!(child.try_join().expect("it has ended").expect("the value"), [7].repeat(len));
        assert!(matches!(child.try_join(), Some(Err(JoinError::AlreadyJoined))));
    }
}

/// A child that sleeps, and a descriptor of it that is borrowed for ever.
fn lent() -> (&'static Child<()>, BorrowedFd<'static>) {
    let child: &Child<()> = Box::leak(Box::new(sleeper()));
    (child, child.as_fd())
}

/// Whether the descriptor stands for a process, and whether that has ended.
fn has_ended(fd: BorrowedFd<'_>) -> Result<bool, String> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|error| error.to_string())?;
    let target = target.to_string_lossy();
    if !target.contains("pidfd") {
        return Err(target.into_owned());
    }
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).map(|ready| ready == 1).map_err(|error| error.to_string())
}

#[apply(apart)]
fn a_descriptor_that_was_lent_is_open_in_later_children() {
    let (first, second) = (lent(), lent());
    for used in [false, true] {
        let child = fork(move || {
            if used {
                // Its own children have it, too.
                return fork(move || (has_ended(first.1), has_ended(second.1)))
                    .expect("fork")
                    .join()
                    .expect("a value");
            }
            (has_ended(first.1), has_ended(second.1))
        });
        assert_eq!(child.expect("fork").join().expect("a value"), (Ok(false), Ok(false)), "{used}");
    }
    first.0.kill().expect("it lives");
    common::wait_until("the child ends", || !first.0.is_alive());
    let child = fork(move || (has_ended(first.1), has_ended(second.1)));
    assert_eq!(child.expect("fork").join().expect("a value"), (Ok(true), Ok(false)));
    second.0.kill().expect("it lives");
}

#[apply(apart)]
fn a_descriptor_that_was_lent_is_open_in_raw_forked_children() {
    let (leaked, fd) = lent();
    let other = sleeper();
    raw::fork(|| {
        assert_eq!(has_ended(fd), Ok(false));
        // The first use of the list of children, in which those of the parent are.
        assert_eq!(fork(move || has_ended(fd)).expect("fork").join().expect("a value"), Ok(false));
        drop(other);
        assert_eq!(has_ended(fd), Ok(false));
    })
    .join();
    leaked.kill().expect("it lives");
}

#[apply(apart)]
fn children_have_nothing_of_their_siblings_but_what_was_lent() {
    let kinds = || {
        common::descriptors()
            .into_values()
            .filter(|target| target.contains("pidfd") || target.contains("outcome"))
    };
    let count = move || kinds().count() as u64;
    // Its own outcome, and no pidfd.
    assert_eq!(fork(count).expect("fork").join().expect("a value"), 1);
    let siblings: Vec<Child<()>> = (0..5).map(|_| sleeper()).collect();
    assert_eq!(fork(count).expect("fork").join().expect("a value"), 1);
    let (leaked, _) = lent();
    assert_eq!(fork(count).expect("fork").join().expect("a value"), 2);
    // In a grandchild, too, that of its parent is not.
    let grandchild = fork(move || fork(count).expect("fork").join().expect("a value"));
    assert_eq!(grandchild.expect("fork").join().expect("a value"), 2);
    let _ = siblings[0].as_fd();
    assert_eq!(fork(count).expect("fork").join().expect("a value"), 3, "lent for a moment is lent");
    siblings.iter().chain([leaked]).for_each(|child| child.kill().expect("it lives"));
}

#[apply(apart)]
fn a_sibling_that_is_waited_for_by_a_lent_descriptor_is_seen_to_end() {
    let (leaked, fd) = lent();
    let board = Board::new();
    let waiter = fork(move || {
        board.set(0, 1);
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, None).is_ok_and(|ready| ready == 1)
    })
    .expect("fork");
    board.wait(0, 1);
    leaked.kill().expect("it lives");
    assert!(waiter.join().expect("a value"));
}
