//! Nobody alive is called dead, and nobody waits for the dead, whatever the kernel refuses to those
//! who judge and are judged.
//!
//! Verdicts once rested on calls that sandboxes refuse, on `/proc`, on free descriptors and on the
//! address of a stack. A refused `fstatfs` made two identities incomparable, and a living owner was
//! called dead: two processes had one lock. A full descriptor table, a refused `pidfd_open`, an
//! `exec` without address randomization, or a pid that came back as a thread's made a dead owner
//! immortal. `src/peer/liveness.rs` says what is asked today. A living process that cannot be
//! judged counts as alive.

#![expect(unsafe_code, reason = "system calls of processes that are judged")]

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use offspring::{
    Child, Fault, ForkError, Lock, LockTimeoutError, Queue, Segment, SegmentError, TryLockError,
    TryRecvError, TrySendError,
};

use crate::common::raw::{Board, Ended, Errand, Raw};
use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apart, apply};
use crate::role::{self, role};

/// Far longer than it takes to find a dead owner, and far shorter than the watchdog's patience.
const LONG: Duration = Duration::from_secs(30);

/// A segment with the objects that two processes meet at.
struct Scene {
    segment: Segment,
    lock: Lock<[u64; 2]>,
    /// Of one slot.
    queue: Queue<[u64; 16]>,
    board: Board,
}

/// Words of the board.
const READY: usize = 0;
const GO_ON: usize = 1;

impl Scene {
    fn new() -> Scene {
        Scene::in_segment(Segment::create(1 << 18).expect("a segment"))
    }

    fn in_segment(segment: Segment) -> Scene {
        let lock = Lock::new_in(&segment, [0; 2]).expect("a lock");
        let queue = Queue::with_capacity_in(&segment, 1).expect("a queue");
        Scene { segment, lock, queue, board: Board::new() }
    }

    /// The life of an owner: has the lock and a reservation until it is told to go on, and finds
    /// that they were its own all the time.
    fn own(&self) {
        let mut guard = self.lock.lock().expect("free");
        guard[0] += 1;
        let mut reservation = self.queue.reserve().expect("room");
        reservation[..8].fill(7);
        self.board.set(READY, 1);
        self.board.wait(GO_ON, 1);
        reservation[8..].fill(7);
        reservation.commit();
        assert_eq!(*guard, [1, 0], "somebody else was here");
        guard[1] += 1;
    }

    /// An owner that ends when it has ended its turn.
    fn owner(&self, prepare: impl FnOnce()) -> Raw {
        let owner = raw::fork(|| {
            prepare();
            self.own();
        });
        self.board.wait(READY, 1);
        owner
    }

    /// Uses the segment for the first time, unless this process has done so.
    fn attach(&self) {
        let _ = self.queue.is_full();
    }

    /// Judges the living owner in every way there is.
    fn owner_is_alive(&self) {
        for _ in 0..2 {
            match self.lock.try_lock() {
                Err(TryLockError::WouldBlock) => {}
                other => {
                    panic!(
                        "the lock of a living process: {:?}",
                        other.map(|guard| *guard).map_err(|error| error.to_string())
                    )
                }
            }
            let sent = self.queue.try_send([9; 16]);
            assert!(
                matches!(sent, Err(TrySendError::Full(_))),
                "into the slot of a living process: {sent:?}"
            );
            let received = self.queue.try_recv();
            assert!(
                matches!(received, Err(TryRecvError::Empty)),
                "from the slot of a living process: {received:?}"
            );
            // Attempts that do not wait ask the kernel every so often.
            std::thread::sleep(Duration::from_millis(12));
            // Other judges may have come to their end meanwhile.
            self.segment.reap().expect("attached");
        }
        // The look at the end of a slice.
        let waited = self.lock.lock_timeout(Duration::from_millis(15)).map(|guard| *guard);
        assert!(
            matches!(waited, Err(LockTimeoutError::Timeout)),
            "{:?}",
            waited.map_err(|error| error.to_string())
        );
    }

    /// Has the owner go on, which must end well.
    #[track_caller]
    fn ends_well(&self, owner: Raw) {
        self.board.set(GO_ON, 1);
        owner.join();
        assert_eq!(self.queue.recv_timeout(LONG), Ok([7; 16]), "torn, or lost");
        assert_eq!(
            self.lock.lock().map(|guard| *guard).map_err(|error| error.to_string()),
            Ok([1, 1])
        );
    }

    /// The life of an owner that has what it has until its end.
    fn own_for_ever(&self) {
        std::mem::forget(self.lock.lock().expect("free"));
        std::mem::forget(self.queue.reserve().expect("room"));
        self.board.set(READY, 1);
    }

    /// Finds, long before any time-out, that the owner is dead.
    fn owner_is_dead(&self) {
        self.owner_is_dead_within(LONG);
    }

    fn owner_is_dead_within(&self, limit: Duration) {
        match self.lock.lock_timeout(limit) {
            Err(LockTimeoutError::OwnerDied) => {
                drop(self.lock.recover_timeout(limit).expect("nobody has it").mark_repaired());
            }
            other => panic!(
                "the lock of a dead process: {:?}",
                other.map(|guard| *guard).map_err(|error| error.to_string())
            ),
        }
        let sent = self.queue.send_timeout([9; 16], limit);
        assert!(sent.is_ok(), "into the slot of a dead process: {sent:?}");
        assert_eq!(self.queue.recv_timeout(LONG), Ok([9; 16]));
        assert!(self.lock.lock().is_ok(), "put right");
    }
}

/// Every call that a verdict may need, by what it is for.
fn calls() -> Vec<(&'static str, Vec<i64>)> {
    #[cfg(target_arch = "x86_64")]
    let old = |number: i64| vec![number];
    #[cfg(target_arch = "x86_64")]
    let (stat, open, readlink, poll) = (
        vec![libc::SYS_stat, libc::SYS_lstat],
        old(libc::SYS_open),
        old(libc::SYS_readlink),
        old(libc::SYS_poll),
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (stat, open, readlink, poll) = (vec![], vec![], vec![], vec![]);
    let with = |mut calls: Vec<i64>, more: &[i64]| {
        calls.extend(more);
        calls
    };
    vec![
        ("fstatfs", vec![libc::SYS_fstatfs, libc::SYS_statfs]),
        ("fstat", with(stat, &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx])),
        ("pidfd_open", vec![libc::SYS_pidfd_open]),
        ("poll", with(poll, &[libc::SYS_ppoll])),
        ("fcntl", vec![libc::SYS_fcntl]),
        ("open", with(open, &[libc::SYS_openat, libc::SYS_openat2])),
        ("readlink", with(readlink, &[libc::SYS_readlinkat])),
        (
            "kill",
            vec![libc::SYS_kill, libc::SYS_tgkill, libc::SYS_tkill, libc::SYS_pidfd_send_signal],
        ),
        ("ioctl", vec![libc::SYS_ioctl]),
        ("getsockopt", vec![libc::SYS_getsockopt, libc::SYS_socketpair]),
        ("waitid", vec![libc::SYS_waitid, libc::SYS_wait4]),
        ("membarrier", vec![libc::SYS_membarrier]),
    ]
}

const ERRORS: [i32; 5] = [libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::EACCES, libc::EMFILE];

/// Every sandbox: one of the calls refused, any two of the more telling ones, or all of them; each
/// by every error.
fn sandboxes() -> Vec<(String, Vec<i64>, i32)> {
    let calls = calls();
    let all: Vec<i64> = calls.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
    let mut sets: Vec<(String, Vec<i64>)> =
        calls.iter().map(|(name, numbers)| ((*name).to_owned(), numbers.clone())).collect();
    for (first, second) in [
        ("fcntl", "pidfd_open"),
        ("fcntl", "fstatfs"),
        ("fcntl", "fstat"),
        ("fcntl", "poll"),
        ("pidfd_open", "kill"),
    ] {
        let of =
            |name: &str| calls.iter().find(|(other, _)| *other == name).expect("a set").1.clone();
        sets.push((format!("{first} and {second}"), [of(first), of(second)].concat()));
    }
    sets.push(("everything".to_owned(), all));
    sets.iter()
        .flat_map(|(name, numbers)| ERRORS.map(|errno| (name.clone(), numbers.clone(), errno)))
        .collect()
}

/// The words of a refusal to begin, which is no verdict about anybody.
fn could_not_begin(error: &str) -> bool {
    error.contains("could not attach") || error.contains("pid namespace")
}

#[apply(apart)]
fn a_living_owner_is_never_dead_to_a_judge_in_a_sandbox() {
    let scene = Scene::new();
    let owner = scene.owner(|| ());
    let judge = |numbers: &[i64], errno: i32, before: bool| {
        Errand::send(|| {
            if before {
                sandbox::refuse(numbers, errno);
                match scene.lock.try_lock() {
                    Err(TryLockError::WouldBlock) => {}
                    // It never came to judge anybody.
                    Err(TryLockError::Broken(fault)) => return fault.to_string(),
                    other => {
                        panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string()))
                    }
                }
            } else {
                assert!(scene.lock.try_lock().is_err());
                sandbox::refuse(numbers, errno);
            }
            scene.owner_is_alive();
            String::new()
        })
    };
    let mut refused = 0;
    for before in [false, true] {
        for sandboxes in sandboxes().chunks(15) {
            let judges: Vec<_> = sandboxes
                .iter()
                .map(|(_, numbers, errno)| judge(numbers, *errno, before))
                .collect();
            for (judge, (name, _, errno)) in judges.into_iter().zip(sandboxes) {
                let answer = judge.answer();
                assert!(
                    answer.is_empty() || before && could_not_begin(&answer),
                    "{name}, error {errno}: {answer}"
                );
                refused += u32::from(!answer.is_empty());
            }
        }
    }
    assert!(refused < 40, "most can attach in their sandboxes: {refused} could not");
    scene.ends_well(owner);
}

#[apply(apart)]
fn a_living_owner_in_a_sandbox_is_never_dead() {
    for before in [false, true] {
        for sandboxes in sandboxes().chunks(15) {
            let scenes: Vec<(Scene, Raw)> = sandboxes
                .iter()
                .map(|(_, numbers, errno)| {
                    let scene = Scene::new();
                    let owner = raw::fork(|| {
                        if !before {
                            scene.attach();
                        }
                        sandbox::refuse(numbers, *errno);
                        match scene.lock.try_lock() {
                            Ok(guard) => drop(guard),
                            Err(TryLockError::Broken(fault)) if before => {
                                assert!(could_not_begin(&fault.to_string()), "{fault}");
                                // There will be no owner, and nothing to see.
                                scene.board.set(READY, 2);
                                return;
                            }
                            Err(other) => panic!("{other}"),
                        }
                        scene.own();
                    });
                    (scene, owner)
                })
                .collect();
            // To a judge as any other, and to one in the same sandbox.
            let judges: Vec<_> = scenes
                .iter()
                .zip(sandboxes)
                .filter(|((scene, _), _)| {
                    scene.board.wait(READY, 1);
                    scene.board.get(READY) == 1
                })
                .flat_map(|((scene, _), (name, numbers, errno))| {
                    [false, true].map(|sandboxed| {
                        let judge = raw::fork(|| {
                            scene.attach();
                            if sandboxed {
                                sandbox::refuse(numbers, *errno);
                            }
                            scene.owner_is_alive();
                        });
                        (judge, name, errno)
                    })
                })
                .collect();
            for (mut judge, name, errno) in judges {
                assert_eq!(judge.wait(), Ended::Exited(0), "{name}, error {errno}");
            }
            for (scene, mut owner) in scenes {
                if scene.board.get(READY) == 1 {
                    scene.ends_well(owner);
                } else {
                    assert_eq!(owner.wait(), Ended::Exited(0));
                }
            }
        }
    }
}

#[apply(apart)]
fn a_living_owner_that_closed_all_its_descriptors_is_never_dead() {
    let scene = Scene::new();
    let owner = raw::fork(|| {
        scene.attach();
        sandbox::close_all_from(0);
        scene.own();
    });
    scene.board.wait(READY, 1);
    scene.owner_is_alive();
    // Nor to a judge that did the same.
    raw::fork(|| {
        scene.attach();
        sandbox::close_all_from(0);
        scene.owner_is_alive();
    })
    .join();
    scene.ends_well(owner);
}

#[apply(apart)]
fn a_living_owner_whose_main_thread_has_ended_is_never_dead() {
    let scene = Scene::new();
    let mut owner = raw::fork(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let stat = format!("/proc/self/task/{}/stat", std::process::id());
                common::wait_until("the main thread ends", || {
                    std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
                });
                scene.own();
                std::process::exit(0);
            });
            // SAFETY: what lies on this thread's stack stays there.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
    });
    scene.board.wait(READY, 1);
    scene.owner_is_alive();
    let full = raw::fork(|| {
        scene.attach();
        no_descriptors();
        scene.owner_is_alive();
    });
    full.join();
    scene.board.set(GO_ON, 1);
    assert_eq!(owner.wait(), Ended::Exited(0));
}

#[apply(apart)]
fn a_stopped_or_traced_owner_is_never_dead() {
    let scene = Scene::new();
    let owner = scene.owner(|| ());
    raw::signal(owner.pid(), libc::SIGSTOP);
    common::wait_until("the owner stops", || common::state(owner.id()) == Some('T'));
    scene.owner_is_alive();
    raw::fork(|| {
        scene.attach();
        no_descriptors();
        scene.owner_is_alive();
    })
    .join();
    raw::signal(owner.pid(), libc::SIGCONT);
    scene.ends_well(owner);
}

/// Takes every descriptor that this process may have.
fn fill_descriptor_table() {
    let few = rustix::process::Rlimit { current: Some(256), maximum: Some(256) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("setrlimit");
    while let Ok(file) = std::fs::File::open("/dev/null") {
        std::mem::forget(file);
    }
}

/// Allows this process no descriptor but those that it has.
fn no_descriptors() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, none).expect("setrlimit");
}

#[apply(apart)]
fn a_living_owner_behind_a_foreign_proc_is_never_dead() {
    if !sandbox::is_root() {
        return sandbox::skip("only root may mount the /proc of another pid namespace");
    }
    let scene = Scene::new();
    let owner = scene.owner(|| ());
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("proc")).expect("a folder");
    let place = CString::new(folder.path().join("proc").to_str().expect("UTF-8")).expect("no NUL");
    let board = Board::new();
    // In that namespace the owner's number is another process.
    let jail = sandbox::fork_into_pid_namespace(|| {
        // SAFETY: constants, and a path that ends with a NUL.
        let mounted = unsafe {
            libc::mount(c"proc".as_ptr(), place.as_ptr(), c"proc".as_ptr(), 0, std::ptr::null())
        };
        if mounted != 0 {
            board.set(0, 1);
            return;
        }
        let last = folder.path().join("proc/sys/kernel/ns_last_pid");
        let other = std::fs::write(last, (owner.pid() - 1).to_string())
            .map(|()| raw::fork(|| common::sleep_for_ever()));
        board.set(1, other.as_ref().map_or(0, |other| other.id().into()));
        board.set(0, 2);
        board.wait(2, 1);
    });
    let Some(jail) = jail else { return };
    board.wait(0, 1);
    if board.get(0) == 1 {
        return sandbox::skip("this process may not mount");
    }
    assert_eq!(board.get(1), u64::from(owner.id()), "another process has the owner's number there");
    // One that attaches there does not find out where it lives, and is refused, where a pidfd does
    // not tell.
    let attach_before =
        if sandbox::namespace_is_known_without_proc() { vec![false, true] } else { vec![true] };
    let judges: Vec<Raw> = attach_before
        .into_iter()
        .map(|before| {
            raw::fork(|| {
                if before {
                    scene.attach();
                }
                assert!(sandbox::enter(folder.path()));
                scene.owner_is_alive();
            })
        })
        .collect();
    let ended: Vec<Ended> = judges.into_iter().map(|mut judge| judge.wait()).collect();
    // SAFETY: a path that ends with a NUL.
    unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
    board.set(2, 1);
    jail.kill();
    assert!(ended.iter().all(|&ended| ended == Ended::Exited(0)), "{ended:?}");
    scene.ends_well(owner);
}

/// In a process of another pid namespace than the owner's: is refused by every way to use what it
/// inherited, and to open it.
fn is_foreign(scene: &Scene, fd: i32) {
    for _ in 0..2 {
        match scene.lock.lock_timeout(Duration::from_millis(100)) {
            Err(LockTimeoutError::Broken(Fault::ForeignNamespace | Fault::Os { .. })) => {}
            other => panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string())),
        }
        assert!(matches!(scene.queue.try_send([9; 16]), Err(TrySendError::Broken(..))));
        assert!(scene.segment.reap().is_err());
    }
    // SAFETY: the segment has it open.
    let opened = Segment::open(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) });
    assert!(
        matches!(opened, Err(SegmentError::ForeignNamespace { .. } | SegmentError::Os { .. })),
        "{opened:?}"
    );
    assert!(fork(|| ()).is_err(), "it has no place in the commons of its parent");
}

#[apply(apart)]
fn a_process_of_another_pid_namespace_is_refused() {
    let scene = Scene::new();
    scene.attach();
    let owner = scene.owner(|| ());
    let fd = std::os::fd::AsRawFd::as_raw_fd(&scene.segment);
    if let Some(inside) = sandbox::fork_into_pid_namespace(|| is_foreign(&scene, fd)) {
        inside.join();
    }
    // A child of `fork` cannot be born there at all.
    let child = Errand::send(|| {
        if !sandbox::leave_pid_namespace() {
            return "left out".to_owned();
        }
        match fork(|| ()) {
            Err(ForkError::PidNamespace) => "refused".to_owned(),
            other => format!("{:?}", other.map(|child| child.join())),
        }
    });
    assert!(["left out", "refused"].contains(&child.answer().as_str()));
    scene.ends_well(owner);
}

#[apply(apart)]
fn a_process_of_another_pid_namespace_is_refused_without_proc() {
    if !sandbox::can_enter() || !sandbox::namespace_is_known_without_proc() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // With `/proc` when the segment was made, and without; the owner has none in either case.
    for before in [false, true] {
        let made = before.then(Scene::new);
        let answer = Errand::send(|| {
            assert!(sandbox::enter(folder.path()));
            let own = if before { None } else { Some(Scene::new()) };
            let scene = made.as_ref().or(own.as_ref()).expect("one of them");
            let owner = scene.owner(|| ());
            let fd = std::os::fd::AsRawFd::as_raw_fd(&scene.segment);
            let Some(inside) = sandbox::fork_into_pid_namespace(|| is_foreign(scene, fd)) else {
                return "left out".to_owned();
            };
            inside.join();
            // A child of `fork` that is born there cannot see its parent, and ends.
            let board = Board::new();
            raw::fork(|| {
                scene.attach();
                assert!(sandbox::leave_pid_namespace());
                let ending = fork(move || board.set(0, 1)).map(|child| child.join());
                assert!(!matches!(ending, Ok(Ok(()))), "{ending:?}");
            })
            .join();
            assert_eq!(board.get(0), 0, "the closure has run");
            scene.ends_well(owner);
            "done".to_owned()
        });
        assert!(["left out", "done"].contains(&answer.answer().as_str()));
    }
}

#[apply(apart)]
fn a_grandchild_of_a_raw_fork_keeps_what_it_has_when_the_child_ends() {
    // It may be the first of the family to use the segment, or come after the child; and the child
    // may be killed, or return.
    for (childs_use, killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let scene = std::sync::Arc::new(Scene::new());
        let theirs = std::sync::Arc::clone(&scene);
        let child = fork(move || {
            if childs_use {
                theirs.attach();
            }
            let grandchild = grandchild(|| theirs.own());
            theirs.board.set(2, grandchild.into());
            theirs.board.wait(READY, 1);
            if killed {
                raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
            }
        });
        assert_eq!(child.expect("fork").join().is_err(), killed);
        the_grandchild_is_alive(&scene);
    }
}

/// Runs `life` in a raw fork of a child, which ends with the whole test.
fn grandchild(life: impl FnOnce()) -> u32 {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => panic!("fork"),
        0 => {
            let code = if std::panic::catch_unwind(std::panic::AssertUnwindSafe(life)).is_ok() {
                0
            } else {
                101
            };
            raw::exit(code)
        }
        pid => pid.cast_unsigned(),
    }
}

/// The child that the grandchild is one of has ended and was joined.
fn the_grandchild_is_alive(scene: &Scene) {
    scene.owner_is_alive();
    raw::fork(|| scene.owner_is_alive()).join();
    scene.board.set(GO_ON, 1);
    assert_eq!(scene.queue.recv_timeout(LONG), Ok([7; 16]), "torn, or lost");
    let grandchild = scene.board.get(2) as u32;
    common::wait_until("the grandchild ends", || {
        matches!(common::state(grandchild), None | Some('Z'))
    });
    assert_eq!(
        scene.lock.lock().map(|guard| *guard).map_err(|error| error.to_string()),
        Ok([1, 1])
    );
}

#[apply(apart)]
fn a_daemon_keeps_what_it_has_when_the_process_that_started_it_ends() {
    let scene = std::sync::Arc::new(Scene::new());
    let theirs = std::sync::Arc::clone(&scene);
    let child = fork(move || {
        // As daemon(3) does it, and then some.
        let first = grandchild(|| {
            let _ = rustix::process::setsid();
            let second = grandchild(|| {
                let _ = std::env::set_current_dir("/");
                theirs.own();
            });
            theirs.board.set(2, second.into());
            theirs.board.wait(READY, 1);
        });
        common::wait_until("the first child ends", || common::state(first) == Some('Z'));
    });
    child.expect("fork").join().expect("a value");
    the_grandchild_is_alive(&scene);
}

#[apply(apart)]
fn a_child_is_provided_for_although_a_grandchild_came_first() {
    for _ in 0..20 {
        let scene = std::sync::Arc::new(Scene::new());
        let theirs = std::sync::Arc::clone(&scene);
        let child = fork(move || {
            let first = grandchild(|| drop(theirs.lock.lock().expect("free")));
            common::wait_until("the first child ends", || common::state(first) == Some('Z'));
            // The place that was promised is still the child's own.
            let mut guard = theirs.lock.lock().expect("free");
            guard[0] += 1;
            theirs.queue.send([5; 16]).expect("room");
        });
        child.expect("fork").join().expect("a value");
        assert_eq!(scene.queue.recv(), Ok([5; 16]));
        assert_eq!(*scene.lock.lock().expect("free"), [1, 0]);
        // All of them are gone, and nothing is left to be cleared up but what the grandchild left.
        assert!(scene.segment.reap().expect("attached") <= 1);
        assert_eq!(scene.segment.reap(), Ok(0));
    }
}

/// A dead owner of everything in the scene; a zombie until it is dropped, unless it was waited for.
fn dead_owner(scene: &Scene, waited_for: bool, prepare: impl FnOnce()) -> Raw {
    let mut owner = raw::fork(|| {
        prepare();
        scene.own_for_ever();
        common::sleep_for_ever();
    });
    scene.board.wait(READY, 1);
    owner.kill_and_leave();
    if waited_for {
        owner.wait();
    }
    owner
}

#[apply(apart)]
fn a_zombie_is_dead_to_a_judge_without_descriptors() {
    let ways: [(&str, fn()); 3] = [
        ("a full table", fill_descriptor_table),
        ("none allowed", no_descriptors),
        ("a full table, and all closed", || {
            fill_descriptor_table();
            sandbox::close_all_from(0);
            no_descriptors();
        }),
    ];
    for (name, take) in ways {
        for waited_for in [false, true] {
            let scene = Scene::new();
            let board = Board::new();
            // The survivor is in its sandbox before the owner dies, and waits.
            let survivor = raw::fork(|| {
                scene.attach();
                if name.contains("closed") && !waited_for {
                    // Without the segment's descriptor there is only the number, which a zombie
                    // still has.
                    return board.set(0, 1);
                }
                take();
                board.set(0, 1);
                scene.board.wait(READY, 1);
                board.wait(1, 1);
                scene.owner_is_dead();
            });
            board.wait(0, 1);
            let _owner = dead_owner(&scene, waited_for, || ());
            board.set(1, 1);
            survivor.join();
        }
    }
}

#[apply(apart)]
fn a_zombie_is_dead_to_a_judge_in_a_sandbox() {
    for waited_for in [false, true] {
        for (name, numbers) in calls() {
            // What tells of a zombie: the lock of its mapping, or its pidfd; either suffices.
            let scene = Scene::new();
            let _owner = dead_owner(&scene, waited_for, || ());
            let before = ["fcntl", "fstat", "open", "readlink", "fstatfs"].contains(&name);
            raw::fork(|| {
                if before {
                    scene.attach();
                }
                sandbox::refuse(&numbers, libc::EPERM);
                scene.owner_is_dead();
            })
            .join();
        }
    }
}

#[apply(apart)]
fn a_dead_owner_is_found_without_proc() {
    if !sandbox::can_enter() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let enter = || assert!(sandbox::enter(folder.path()));
    let attach_before =
        if sandbox::namespace_is_known_without_proc() { vec![true, false] } else { vec![true] };
    for waited_for in [false, true] {
        for (owners, judges) in [(false, true), (true, false), (true, true)] {
            for attach_before in attach_before.clone() {
                let scene = Scene::new();
                let prepare = |without: bool| {
                    if attach_before {
                        scene.attach();
                    }
                    if without {
                        enter();
                    }
                };
                let _owner = dead_owner(&scene, waited_for, || prepare(owners));
                raw::fork(|| {
                    prepare(judges);
                    scene.owner_is_dead();
                })
                .join();
            }
        }
    }
}

/// Becomes another program.
fn become_program(program: &Path, arguments: &[&str]) -> ! {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let program = text(program.to_str().expect("UTF-8"));
    let arguments: Vec<CString> = arguments.iter().map(|argument| text(argument)).collect();
    let refused = rustix::io::Errno::from_io_error(&exec(&program, &arguments));
    panic!("exec: {refused:?}");
}

fn exec(program: &CString, arguments: &[CString]) -> std::io::Error {
    let mut pointers: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: texts that end with a NUL, and a list of them that ends with a null pointer.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    std::io::Error::last_os_error()
}

/// Waits until the process runs a program of this name.
fn wait_for_program(pid: u32, name: &str) {
    common::wait_until("the process becomes another program", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    });
}

#[apply(apart)]
fn an_owner_that_became_another_program_is_dead() {
    // From its main thread, or from another one, which the kernel then makes the main thread.
    for from_thread in [false, true] {
        let scene = Scene::new();
        let owner = raw::fork(|| {
            scene.own_for_ever();
            let sleep = || become_program(Path::new("/bin/sleep"), &["sleep", "3600"]);
            if from_thread {
                std::thread::scope(|scope| {
                    scope.spawn(sleep);
                });
            }
            sleep();
        });
        wait_for_program(owner.id(), "sleep");
        // Also where there is no descriptor to be had, and for a process that comes anew.
        raw::fork(|| {
            scene.attach();
            no_descriptors();
            scene.owner_is_dead();
        })
        .join();
        owner.kill();

        // A child of `fork` that becomes another program is as dead to others, while its parent has
        // it still.
        let scene = std::sync::Arc::new(Scene::new());
        let theirs = std::sync::Arc::clone(&scene);
        let child = fork(move || {
            theirs.own_for_ever();
            become_program(Path::new("/bin/sleep"), &["sleep", "3600"]);
        });
        let child: Child<()> = child.expect("fork");
        wait_for_program(child.id(), "sleep");
        scene.owner_is_dead();
        assert!(child.is_alive());
        child.kill().expect("it lives");
        assert!(child.join().is_err());
    }
}

#[apply(apart)]
fn an_owner_that_became_its_own_twin_is_dead() {
    role::play("verdicts::twin");
}

/// Without address randomization, a process that becomes the same program once more, with the same
/// arguments, has the same stack as before.
#[apply(role)]
fn twin(_: &str) {
    const REAL: libc::c_int = 200;
    // SAFETY: takes integers.
    if unsafe { libc::fcntl(REAL, libc::F_GETFD) } != -1 {
        common::sleep_for_ever();
    }
    // SAFETY: takes an integer that asks and changes nothing.
    let persona = unsafe { libc::personality(0xffff_ffff) };
    let own = CString::new("/proc/self/exe").expect("no NUL");
    let arguments: Vec<CString> =
        std::env::args().map(|argument| CString::new(argument).expect("no NUL")).collect();
    if persona & libc::ADDR_NO_RANDOMIZE == 0 {
        // SAFETY: takes an integer.
        if unsafe { libc::personality((persona | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong) } == -1
        {
            return sandbox::skip("this process may not do without address randomization");
        }
        panic!("exec: {}", exec(&own, &arguments));
    }
    let scene = Scene::new();
    let board = Board::new();
    let owner = raw::fork(|| {
        scene.own_for_ever();
        // SAFETY: takes integers; nobody has that number.
        assert_eq!(unsafe { libc::dup2(libc::STDIN_FILENO, REAL) }, REAL);
        board.set(0, 1);
        panic!("exec: {}", exec(&own, &arguments));
    });
    board.wait(0, 1);
    // The mark is there in both; what tells them apart is that the segment's descriptor is closed
    // by the exec.
    let segment =
        format!("/proc/{}/fd/{}", owner.id(), std::os::fd::AsRawFd::as_raw_fd(&scene.segment));
    common::wait_until("the descriptor is closed", || std::fs::read_link(&segment).is_err());
    raw::fork(|| scene.owner_is_dead()).join();
    assert!(
        common::state(owner.id()).is_some_and(|state| state != 'Z'),
        "the program that it became lives"
    );
    owner.kill();
}

#[apply(apart)]
fn an_owner_that_became_a_program_which_nobody_may_look_into_is_dead() {
    if !sandbox::is_root() {
        return sandbox::skip("only root may change its user");
    }
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("chmod");
    let secret = folder.path().join("secret");
    std::fs::copy("/bin/sleep", &secret).expect("a copy");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o711)).expect("chmod");
    raw::fork(|| {
        become_user(65534);
        let scene = Scene::new();
        let owner = raw::fork(|| {
            scene.own_for_ever();
            become_program(&secret, &["secret", "3600"]);
        });
        wait_for_program(owner.id(), "secret");
        raw::fork(|| scene.owner_is_dead()).join();
        // Another user's process cannot be looked into, but killed by an equal.
        owner.kill();
    })
    .join();
}

/// Becomes another user, who may look at itself and at its equals.
fn become_user(user: u32) {
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::setresgid(user, user, user) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::setresuid(user, user, user) }, 0);
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    common::parent::end_with(nix::unistd::getppid());
}

#[apply(apart)]
fn many_waiters_behind_the_living_hide_no_dead_owner() {
    const WAITERS: usize = 64;
    // All share one process, and what it may ask. It used to be so little that each round took
    // seconds, and some did for ever.
    for _ in 0..5 {
        let scene = Scene::new();
        let busy: Vec<Lock<u64>> =
            (0..WAITERS).map(|_| Lock::new_in(&scene.segment, 0).expect("a lock")).collect();
        let holder = raw::fork(|| {
            busy.iter().for_each(|lock| std::mem::forget(lock.lock().expect("free")));
            scene.board.set(2, 1);
            common::sleep_for_ever();
        });
        scene.board.wait(2, 1);
        let owner = raw::fork(|| {
            scene.own_for_ever();
            scene.board.wait(3, 1);
            become_program(Path::new("/bin/sleep"), &["sleep", "3600"]);
        });
        scene.board.wait(READY, 1);
        let survivor = raw::fork(|| {
            std::thread::scope(|scope| {
                for lock in &busy {
                    scope.spawn(|| assert!(lock.lock_timeout(LONG).is_err(), "its owner lives"));
                }
                scope.spawn(|| {
                    scene.board.set(3, 1);
                    // It takes hundredths of a second.
                    scene.owner_is_dead_within(Duration::from_secs(5));
                    // The others wait on.
                    raw::exit(0);
                });
            });
        });
        survivor.join();
        owner.kill();
        holder.kill();
    }
}

/// Runs `act` where the next process id can be chosen; `false` if that is not possible here.
fn where_pids_can_be_chosen(act: impl FnOnce()) -> bool {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let board = Board::new();
    // In a namespace of its own, where nobody else takes numbers.
    let inside = sandbox::fork_into_pid_namespace(|| {
        if std::fs::write(LAST, "1000").is_err() {
            return board.set(0, 1);
        }
        act();
    });
    match inside {
        Some(inside) => inside.join(),
        None => return false,
    }
    if board.get(0) == 1 {
        sandbox::skip("this process may not choose process ids");
    }
    board.get(0) == 0
}

fn choose_next_pid(pid: i32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
        .expect("it could be written before");
}

#[apply(apart)]
fn a_pid_that_came_back_as_a_thread_is_a_dead_owners() {
    where_pids_can_be_chosen(|| {
        for sandboxed in [false, true] {
            let scene = Scene::new();
            let owner = dead_owner(&scene, true, || ());
            choose_next_pid(owner.pid());
            let (tell, told) = std::sync::mpsc::channel();
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                tell.send(nix::unistd::gettid().as_raw()).expect("somebody listens");
                let _ = stopped.recv();
            });
            assert_eq!(told.recv(), Ok(owner.pid()), "nobody else takes numbers here");
            let judge = raw::fork(|| {
                if sandboxed {
                    // Without the lock of the mapping the number alone must do.
                    scene.attach();
                    sandbox::refuse(&[libc::SYS_fcntl], libc::EPERM);
                }
                scene.owner_is_dead();
            });
            judge.join();
            drop(stop);
            thread.join().expect("no panic");
        }
    });
}

#[apply(apart)]
fn a_pid_that_came_back_as_a_process_is_a_dead_owners() {
    where_pids_can_be_chosen(|| {
        for sandboxed in [false, true] {
            let scene = Scene::new();
            let owner = dead_owner(&scene, true, || ());
            choose_next_pid(owner.pid());
            let board = Board::new();
            // The new one uses the segment, too, and is alive all the time.
            let next = raw::fork(|| {
                scene.attach();
                board.set(0, 1);
                common::sleep_for_ever();
            });
            board.wait(0, 1);
            assert_eq!(next.pid(), owner.pid(), "nobody else takes numbers here");
            raw::fork(|| {
                if sandboxed {
                    scene.attach();
                    sandbox::refuse(&[libc::SYS_fcntl], libc::EPERM);
                }
                scene.owner_is_dead();
            })
            .join();
            next.kill();
        }
    });
}

#[apply(apart)]
fn children_that_nobody_joined_make_room_for_others() {
    const CHILDREN: usize = 1100;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let needed = 3 * CHILDREN as u64 + 100;
    if limit.maximum.is_some_and(|most| most < needed) {
        return sandbox::skip("not so many descriptors are to be had");
    }
    let raised = rustix::process::Rlimit {
        current: Some(needed.max(limit.current.unwrap_or(needed))),
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("setrlimit");
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    let commons = Segment::commons().expect("the commons");
    // Other tests may have left their dead there.
    commons.reap().expect("attached");
    let mut children: Vec<Child<u64>> = Vec::new();
    let mut reaped = 0;
    for number in 0..CHILDREN as u64 {
        children
            .push(fork(move || number).unwrap_or_else(|error| panic!("child {number}: {error:?}")));
        if number % 300 == 299 {
            common::wait_until("the children end", || {
                children.iter().all(|child| !child.is_alive())
            });
            reaped += commons.reap().expect("attached");
        }
    }
    assert_eq!(reaped, 900, "each is cleared up after once");
    common::wait_until("the children end", || children.iter().all(|child| !child.is_alive()));
    // The table may be filled without anybody's reaping by hand, too.
    for number in 0..CHILDREN as u64 - 200 {
        children
            .push(fork(move || number).unwrap_or_else(|error| panic!("child {number}: {error:?}")));
        drop(children.remove(0));
    }
    queue.send(7).expect("room");
    let theirs = queue.clone();
    assert_eq!(fork(move || theirs.recv().ok()).expect("fork").join().expect("a value"), Some(7));
    let values: Vec<u64> =
        children.into_iter().map(|child| child.join().expect("a value")).collect();
    assert_eq!(values.len(), CHILDREN);
    assert_eq!(commons.reap(), Ok(0));
}

#[apply(apart)]
fn a_child_without_proc_works_at_its_first_use() {
    if !sandbox::can_enter() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    let raw =
        if sandbox::namespace_is_known_without_proc() { vec![false, true] } else { vec![false] };
    for raw in raw {
        let (theirs, path) = (queue.clone(), folder.path().to_owned());
        let life = move || {
            assert!(sandbox::enter(&path));
            theirs.send_timeout(7, LONG).map_err(|error| error.to_string())
        };
        if raw {
            let sent = Errand::send(|| format!("{:?}", life())).answer();
            assert!(sent == "Ok(())", "{sent}");
        } else {
            assert_eq!(fork(life).expect("fork").join().expect("a value"), Ok(()));
        }
        assert_eq!(queue.recv_timeout(LONG), Ok(7));
    }
}

#[apply(apart)]
fn what_a_raw_fork_opened_anew_is_given_back() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let room = |expected: Option<u64>| {
        let error = Queue::<[u8; 4096]>::with_capacity_in(&segment, 1 << 20)
            .map(drop)
            .expect_err("it is larger than the segment");
        let offspring::CreateError::OutOfMemory { available, .. } = error else {
            panic!("{error:?}")
        };
        if let Some(expected) = expected {
            assert_eq!(available, expected, "something is kept");
        }
        available
    };
    let other = Queue::<u64>::with_capacity_in(&segment, 1).expect("a queue");
    let first = Queue::<[u64; 16]>::with_capacity_in(&segment, 100).expect("a queue");
    let board = Board::new();
    let mut kept = Some(first);
    let child = raw::fork(|| {
        // It has a handle of what is about to be dropped by the others.
        let stale = kept.take().expect("a queue");
        board.set(0, 1);
        board.wait(1, 1);
        assert_eq!(other.len(), 0);
        let handle = bytemuck::cast([2, 3, 4].map(|word| board.get(word)));
        // What lies there now is another object, and is dropped as one.
        let opened = Queue::<[u64; 16]>::open(&segment, handle).expect("it is there");
        assert!(matches!(stale.try_recv(), Err(TryRecvError::Broken(Fault::Stale))));
        drop(opened);
        board.set(0, 2);
        board.wait(1, 2);
        std::mem::forget(stale);
    });
    board.wait(0, 1);
    let before = kept.take().expect("a queue").handle();
    let empty = room(None);
    let next = Queue::<[u64; 16]>::with_capacity_in(&segment, 100).expect("a queue");
    assert_ne!(before, next.handle());
    let words: [u64; 3] = bytemuck::cast(next.handle());
    [2, 3, 4].into_iter().zip(words).for_each(|(word, value)| board.set(word, value));
    board.set(1, 1);
    board.wait(0, 2);
    drop(next);
    room(Some(empty));
    board.set(1, 2);
    child.join();
    room(Some(empty));
}
