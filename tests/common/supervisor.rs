//! A process above the tests: it ends a test that hangs, and whatever process a test leaves behind.
//!
//! The tests run in a child of it, in one thread, as `offspring::fork` demands. No watchdog can
//! live beside them there: a thread would be in the way, and a signal would not come through where
//! all are blocked. From outside it needs neither.
//!
//! It is a *subreaper*: a process whose parent has ended becomes its child. So it knows every
//! process that the tests have started, by whatever way, and none can outlive them unseen.
#![expect(
    unsafe_code,
    reason = "fork, a page that two processes share, and waits that have no safe wrapper"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::processes::{DYING, adopt_orphans, bury_all, children_of, describe};

/// A test that takes longer hangs. No promise on time: the longest takes a twentieth of it.
/// `OFFSPRING_TEST_SECONDS` gives more to an emulated processor.
fn limit() -> Duration {
    Duration::from_secs(
        std::env::var("OFFSPRING_TEST_SECONDS")
            .map_or(120, |seconds| seconds.parse().expect("a number")),
    )
}

/// Exit code of a program whose tests failed, as that of the harness.
const FAILED: u8 = 101;

/// What the process of the tests tells: which one runs, counted from 1, and since when.
pub struct Board {
    test: AtomicU64,
    since: AtomicU64,
}

impl Board {
    fn new() -> &'static Board {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(core::ptr::null_mut(), size_of::<Board>(), protection, flags, -1, 0)
        };
        assert_ne!(address, libc::MAP_FAILED, "mmap");
        // SAFETY: mapped to the end of the process, aligned to pages, zeroed, and all atomics.
        unsafe { &*address.cast::<Board>() }
    }

    /// The test with this index begins.
    pub fn begin(&self, index: usize) {
        self.since.store(now(), Ordering::SeqCst);
        self.test.store(index as u64 + 1, Ordering::SeqCst);
    }

    /// It has ended.
    pub fn end(&self) {
        self.test.store(0, Ordering::SeqCst);
    }

    /// Index of the test that runs, and for how long it has.
    fn running(&self) -> Option<(usize, Duration)> {
        let test = self.test.load(Ordering::SeqCst).checked_sub(1)?;
        let since = self.since.load(Ordering::SeqCst);
        Some((test as usize, Duration::from_nanos(now().saturating_sub(since))))
    }
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs `tests` in a child of this process, which has one thread, and gives the exit code of the
/// program.
pub fn supervise(names: &[&str], tests: impl FnOnce(&'static Board) -> ExitCode) -> ExitCode {
    let board = Board::new();
    adopt_orphans();
    let own = nix::unistd::getpid();
    // SAFETY: this process has one thread.
    let worker = match unsafe { nix::unistd::fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
            assert_eq!(nix::unistd::getppid(), own, "the supervisor has ended");
            return tests(board);
        }
    };
    let name = || board.running().map_or("no test", |(index, _)| names[index]);
    let code = match watch(worker, board) {
        Some(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(FAILED),
        Some(other) => {
            eprintln!("\ntest {} FAILED: it ended the process of the tests: {other:?}", name());
            FAILED
        }
        None => {
            eprintln!(
                "\ntest {} FAILED: it hung, and was ended after {} s; then there were:",
                name(),
                limit().as_secs()
            );
            print_descendants(std::process::id(), 1);
            FAILED
        }
    };
    // Whoever is dying may take its time; only when the tests have failed nobody need be waited
    // for.
    let patience = if code == 0 { DYING } else { Duration::ZERO };
    let survivors = bury_all(patience);
    if survivors.is_empty() || code != 0 {
        return ExitCode::from(code);
    }
    eprintln!("\nFAILED: processes outlived the tests that started them: {survivors:?}");
    ExitCode::from(FAILED)
}

/// Waits for the worker to end; `None` if a test of it takes too long. Waits for orphans on the
/// way, so that none stays a zombie.
fn watch(worker: Pid, board: &Board) -> Option<WaitStatus> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().expect("sigprocmask");
    let limit = limit();
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(ended @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)))
                    if pid == worker =>
                {
                    return Some(ended);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(other) => panic!("waitpid: {other}"),
            }
        }
        if board.running().is_some_and(|(_, time)| time > limit) {
            return None;
        }
        let tick = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // A child that ends, or a tick: both are answered in the same way.
        // SAFETY: the set and the time outlive the call, and nothing is to be written.
        unsafe { libc::sigtimedwait(children.as_ref(), core::ptr::null_mut(), &raw const tick) };
    }
}

fn print_descendants(of: u32, depth: usize) {
    for (pid, _) in children_of(of) {
        eprintln!("{}{}", "  ".repeat(depth), describe(pid));
        print_descendants(pid, depth + 1);
    }
}
