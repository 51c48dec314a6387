//! A process above each test: it ends a test that hangs, and whatever process a test leaves behind.
//!
//! The test runs in a child of it, in one thread, as `offspring::fork` demands. No watchdog can
//! live beside it there: a thread would be in the way, and a signal would not come through where
//! all are blocked. From outside it needs neither.
//!
//! It is a *subreaper*: a process whose parent has ended becomes its child. So it knows every
//! process that the test has started, by whatever way, and none can outlive the test unseen.
#![expect(unsafe_code, reason = "fork, and waits that have no safe wrapper")]

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::SIGCHLD;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::common::parent;
use crate::common::processes::{DYING, bury_all, children_of, describe};
use crate::common::raw::Board;

/// A test that takes longer hangs. No promise on time: the longest takes a twentieth of it.
/// `OFFSPRING_TEST_SECONDS` gives more to an emulated processor.
fn limit() -> Duration {
    Duration::from_secs(
        std::env::var("OFFSPRING_TEST_SECONDS")
            .map_or(120, |seconds| seconds.parse().expect("a number")),
    )
}

/// Exit code of a process whose test failed.
const FAILED: i32 = 101;

/// Runs `test` in a child of this process, which must have one thread. The error says how it
/// failed. Nothing that the test has started lives when this returns.
pub fn supervise(told: Board, test: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    // What is not written yet would be written by the child, too.
    std::io::stdout().flush().expect("standard output");
    told.say("");
    let own = nix::unistd::getpid();
    // SAFETY: this process has one thread.
    let worker = match unsafe { nix::unistd::fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            parent::end_with(own);
            work(told, test)
        }
    };
    let failure = match watch(worker) {
        Some(WaitStatus::Exited(_, 0)) => None,
        Some(WaitStatus::Exited(_, FAILED)) => Some(told.text()),
        Some(other) => Some(format!("it ended the process of the test: {other:?}")),
        None => Some(format!(
            "it hung, and was ended after {} s; then there were:{}",
            limit().as_secs(),
            descendants(std::process::id(), 1)
        )),
    };
    // Whoever is dying may take its time; only when the test has failed nobody need be waited for.
    let survivors = bury_all(if failure.is_none() { DYING } else { Duration::ZERO });
    match failure {
        Some(failure) => Err(failure),
        None if survivors.is_empty() => Ok(()),
        None => Err(format!("processes outlived the test that started them: {survivors:?}")),
    }
}

/// Runs the test and ends this process.
fn work(told: Board, test: impl FnOnce() -> Result<(), String>) -> ! {
    let process = std::process::id();
    let result = catch_unwind(AssertUnwindSafe(test));
    // A child that came back here would tell in the name of the test.
    if std::process::id() != process {
        std::process::abort();
    }
    let failure = match result {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(failure)) => failure,
        Err(panic) => message(&*panic),
    };
    told.say(&failure);
    std::process::exit(FAILED)
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic".to_owned(),
    }
}

/// Waits for the worker to end; `None` if it takes too long. Waits for orphans on the way, so that
/// none stays a zombie.
fn watch(worker: Pid) -> Option<WaitStatus> {
    let mut children = SigSet::empty();
    children.add(SIGCHLD);
    children.thread_block().expect("sigprocmask");
    let (start, limit) = (Instant::now(), limit());
    let ended = loop {
        if let Some(ended) = bury_dead(worker) {
            break Some(ended);
        }
        if start.elapsed() > limit {
            break None;
        }
        let tick = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // A child that ends, or a tick: both are answered in the same way.
        // SAFETY: the set and the time outlive the call, and nothing is to be written.
        unsafe { libc::sigtimedwait(children.as_ref(), core::ptr::null_mut(), &raw const tick) };
    };
    // The next test is to begin without it.
    children.thread_unblock().expect("sigprocmask");
    ended
}

/// Waits for all children that have ended; says how the worker did, if it is among them.
fn bury_dead(worker: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(ended @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)))
                if pid == worker =>
            {
                return Some(ended);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(other) => panic!("waitpid: {other}"),
        }
    }
}

/// The processes below one, a line for each.
fn descendants(of: u32, depth: usize) -> String {
    let line = |(pid, _)| {
        format!("\n{}{}{}", "  ".repeat(depth), describe(pid), descendants(pid, depth + 1))
    };
    children_of(of).into_iter().map(line).collect()
}
