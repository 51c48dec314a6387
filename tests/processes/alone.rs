//! `fork` works in a process that has one thread, and in no other, however the threads of the
//! others come and go.
//!
//! Who asks whether it is alone used to read the list of its threads. While such a list is read, a
//! thread that is not on it yet may be started by one that is on it no more, so with a chain of
//! threads, each of which starts the next and ends, `fork` succeeded beside a living thread dozens
//! of times in a second. Its child had a copy of whatever that thread was halfway through: a lock
//! that stays locked for ever. Now the kernel's own count decides.

#![expect(
    unsafe_code,
    reason = "a thread that ends alone, and a process that shares memory with another"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use offspring::ForkError;

use crate::common::raw::{Board, Ended};
use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apply, test};

/// The two ways in which a process can ask: by `unshare`, and by what `/proc` counts where a
/// sandbox refuses that, as Docker's does.
const WAYS: [(&str, fn()); 2] = [
    ("unshare allowed", || ()),
    ("unshare refused", || sandbox::refuse(&[libc::SYS_unshare], libc::EPERM)),
];

/// Refusals, and threads, of which fewer say little.
const ENOUGH: u64 = 100;

static STOP: AtomicBool = AtomicBool::new(false);
static LIVED: AtomicU64 = AtomicU64::new(0);

/// The life of a thread that starts the next one and ends.
fn chain() {
    LIVED.fetch_add(1, Ordering::Relaxed);
    if !STOP.load(Ordering::Relaxed) {
        std::thread::spawn(chain);
    }
}

/// Forks as often as it can beside so many chains; none may succeed.
fn fork_beside_chains(chains: u32, time: Duration) {
    for (way, prepare) in WAYS {
        raw::fork(|| {
            prepare();
            fork(|| ()).expect("alone so far").join().expect("a value");
            (0..chains).for_each(|_| _ = std::thread::spawn(chain));
            let end = Instant::now() + time;
            let mut refused = 0_u64;
            // An emulated processor takes longer.
            while Instant::now() < end || refused < ENOUGH || LIVED.load(Ordering::Relaxed) < ENOUGH
            {
                match fork(|| {
                    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) as u64
                }) {
                    Err(ForkError::Multithreaded { threads }) => {
                        assert!(threads > 1, "{way}");
                        refused += 1;
                    }
                    Err(other) => panic!("{way}: {other:?}"),
                    Ok(child) => panic!(
                        "{way}: forked beside a living thread, after {refused} refusals: {:?}",
                        child.join()
                    ),
                }
            }
            // And when the chains have ended it is alone again, without anybody's having been
            // joined.
            STOP.store(true, Ordering::Relaxed);
            common::wait_until("fork works again", || {
                fork(|| ()).is_ok_and(|child| child.join().is_ok())
            });
        })
        .join();
    }
}

#[apply(test)]
fn fork_beside_a_chain_of_threads_never_succeeds() {
    fork_beside_chains(1, Duration::from_secs(1));
}

#[apply(test)]
fn fork_beside_several_chains_of_threads_never_succeeds() {
    fork_beside_chains(3, Duration::from_millis(500));
}

#[apply(test)]
fn no_child_inherits_a_lock_that_another_thread_has() {
    static LOCK: Mutex<u64> = Mutex::new(0);
    /// As [`chain`], with the lock all its life.
    fn chain_with_lock() {
        let mut guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        *guard += 1;
        if !STOP.load(Ordering::Relaxed) {
            std::thread::spawn(chain_with_lock);
        }
    }
    raw::fork(|| {
        fork(|| ()).expect("alone so far").join().expect("a value");
        std::thread::spawn(chain_with_lock);
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            if let Ok(child) = fork(|| LOCK.lock().is_ok()) {
                // It would hang here, in a lock that is locked for ever.
                child.join().expect("a value");
                panic!("forked beside a living thread");
            }
        }
        STOP.store(true, Ordering::Relaxed);
        common::wait_until("fork works again", || {
            fork(|| LOCK.lock().is_ok()).is_ok_and(|child| child.join().is_ok_and(|locked| locked))
        });
    })
    .join();
}

#[apply(test)]
fn a_joined_thread_is_in_nobodys_way() {
    for (way, prepare) in WAYS {
        raw::fork(|| {
            prepare();
            for round in 0..500 {
                std::thread::spawn(|| ()).join().expect("no panic");
                match fork(move || round) {
                    Ok(child) => assert_eq!(child.join().expect("a value"), round),
                    Err(refused) => panic!("{way}, round {round}: {refused:?}"),
                }
            }
            for round in 0..50 {
                // The end of a scope waits for what its threads have to do, and not for their end:
                // each is joined.
                std::thread::scope(|scope| {
                    let threads = [(); 4].map(|()| scope.spawn(std::thread::yield_now));
                    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
                });
                assert!(
                    fork(|| ()).is_ok_and(|child| child.join().is_ok()),
                    "{way}, round {round}"
                );
            }
        })
        .join();
    }
}

#[apply(test)]
fn a_thread_that_ended_by_itself_is_soon_in_nobodys_way() {
    for (_, prepare) in WAYS {
        raw::fork(|| {
            prepare();
            for _ in 0..100 {
                let (stop, stopped) = std::sync::mpsc::channel::<()>();
                drop(std::thread::spawn(move || stopped.recv()));
                assert!(matches!(fork(|| ()), Err(ForkError::Multithreaded { threads: 2 })));
                drop(stop);
                common::wait_until("fork works again", || {
                    fork(|| ()).is_ok_and(|child| child.join().is_ok())
                });
            }
        })
        .join();
    }
}

#[apply(test)]
fn the_last_thread_may_fork_after_the_main_thread_has_ended() {
    for (way, prepare) in WAYS {
        let board = Board::new();
        let mut process = raw::fork(|| {
            prepare();
            std::thread::spawn(move || {
                common::wait_for_main_thread();
                for _ in 0..20 {
                    let child = fork(|| fork(|| 7).expect("fork").join().expect("a value"));
                    board.add(0, child.expect("there is one thread").join().expect("a value"));
                }
                // And not beside one that it has started.
                let (stop, stopped) = std::sync::mpsc::channel::<()>();
                let other = std::thread::spawn(move || stopped.recv().is_err());
                board.set(1, 1 + u64::from(fork(|| ()).is_ok()));
                drop(stop);
                other.join().expect("no panic");
                board.set(2, fork(|| ()).is_ok_and(|child| child.join().is_ok()).into());
                std::process::exit(7);
            });
            raw::end_this_thread()
        });
        assert_eq!(process.wait(), Ended::Exited(7), "{way}");
        assert_eq!([0, 1, 2].map(|word| board.get(word)), [20 * 7, 1, 1], "{way}");
    }
}

#[apply(test)]
fn one_of_two_threads_may_not_fork_after_the_main_thread_has_ended() {
    for (way, prepare) in WAYS {
        let board = Board::new();
        let mut process = raw::fork(|| {
            prepare();
            std::thread::spawn(chain);
            std::thread::spawn(move || {
                common::wait_for_main_thread();
                let end = Instant::now() + Duration::from_millis(300);
                while Instant::now() < end || board.get(1) < ENOUGH / 10 {
                    board.add(if fork(|| ()).is_ok() { 0 } else { 1 }, 1);
                }
                std::process::exit(7);
            });
            raw::end_this_thread()
        });
        assert_eq!(process.wait(), Ended::Exited(7), "{way}");
        assert_eq!(board.get(0), 0, "{way}: forked beside a living thread");
    }
}

/// Has one more thread for as long as `act` runs.
fn beside_a_thread<T>(act: impl FnOnce() -> T) -> T {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || stopped.recv().is_err());
    let result = act();
    drop(stop);
    other.join().expect("no panic");
    result
}

#[apply(test)]
fn without_proc_the_other_way_to_ask_does() {
    if !sandbox::can_enter() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    raw::fork(|| {
        fork(|| ()).expect("alone").join().expect("a value");
        assert!(sandbox::enter(folder.path()));
        for _ in 0..3 {
            assert_eq!(
                fork(|| fork(|| 7).expect("fork").join().expect("a value"))
                    .expect("alone")
                    .join()
                    .expect("a value"),
                7
            );
            let refused = beside_a_thread(|| fork(|| ()).map(|child| child.id()));
            assert!(
                matches!(
                    &refused,
                    Err(ForkError::Multithreaded { .. } | ForkError::ThreadsUnknown { .. })
                ),
                "{refused:?}"
            );
        }
    })
    .join();
}

#[apply(test)]
fn where_nothing_tells_fork_says_so() {
    let board = Board::new();
    // Whatever takes `/proc` away beside `unshare`, `fork` does not guess.
    #[cfg(target_arch = "x86_64")]
    const STATS: [i64; 4] =
        [libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_stat, libc::SYS_lstat];
    #[cfg(not(target_arch = "x86_64"))]
    const STATS: [i64; 2] = [libc::SYS_newfstatat, libc::SYS_statx];
    for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
        raw::fork(|| {
            fork(|| ()).expect("alone").join().expect("a value");
            sandbox::refuse(&[libc::SYS_unshare], errno);
            sandbox::refuse(&STATS, errno);
            for other in [false, true] {
                let attempt = || fork(move || board.set(0, 1)).map(|child| child.id());
                let refused = if other { beside_a_thread(attempt) } else { attempt() };
                match refused {
                    Err(ForkError::ThreadsUnknown { call, source }) => {
                        assert!(call.contains("/proc/self/task"), "{call}");
                        assert_eq!(source.raw_os_error(), Some(errno));
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
        .join();
    }
    if sandbox::can_enter() {
        let folder = tempfile::tempdir().expect("a folder");
        raw::fork(|| {
            fork(|| ()).expect("alone").join().expect("a value");
            assert!(sandbox::enter(folder.path()));
            sandbox::refuse(&[libc::SYS_unshare], libc::EPERM);
            let refused = fork(move || board.set(0, 1)).map(|child| child.id());
            assert!(matches!(&refused, Err(ForkError::ThreadsUnknown { call, .. }) if call.contains("/proc")), "{refused:?}");
        })
        .join();
    }
    assert_eq!(board.get(0), 0, "a closure has run");
}

#[apply(test)]
fn a_process_that_shares_its_memory_with_another_is_not_alone() {
    /// Lives in its parent's memory until it is killed.
    extern "C" fn sleep(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: takes no pointer.
            unsafe { libc::pause() };
        }
    }
    raw::fork(|| {
        fork(|| ()).expect("alone").join().expect("a value");
        let stack = Box::leak(vec![0_u64; 8192].into_boxed_slice()).as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: it has a stack of its own, and touches nothing.
        let other = unsafe { libc::clone(sleep, stack.cast(), flags, std::ptr::null_mut()) };
        assert!(other > 0, "{}", std::io::Error::last_os_error());
        let refused = fork(|| ()).map(|child| child.id());
        assert!(matches!(refused, Err(ForkError::Multithreaded { threads: 2 })), "{refused:?}");
        raw::signal(other, libc::SIGKILL);
        // SAFETY: a null status is allowed.
        assert_eq!(unsafe { libc::waitpid(other, std::ptr::null_mut(), 0) }, other);
        fork(|| ()).expect("alone again").join().expect("a value");
    })
    .join();
}
