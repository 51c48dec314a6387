//! What the tests that fork share: a runner that stays in one thread, a limit for every wait, and
//! eyes for what is left behind.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod fd;
pub mod holders;
mod processes;
mod supervisor;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use processes::kill_and_wait;
pub use processes::{children, state};

/// What has not come to pass by then never will. No promise on time, a watchdog.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the tests one after the other in the main thread of a process that has no other, whatever
/// the command line says about threads.
///
/// After each test no child may be left, alive or dead, and no descriptor; a test that hangs is
/// ended and fails; and when all have run, no process may be left that any of them has started.
pub fn run(tests: &[(&'static str, fn())]) -> ExitCode {
    run_after(|| (), tests)
}

/// As [`run`], with something to be done first in the process that the tests run in.
pub fn run_after(prepare: fn(), tests: &[(&'static str, fn())]) -> ExitCode {
    let names: Vec<&str> = tests.iter().map(|&(name, _)| name).collect();
    supervisor::supervise(&names, |board| {
        prepare();
        // A program whose parent ignored SIGCHLD would lose the status of every child.
        offspring::fork(|| ()).expect("the first fork").join().expect("the first child");
        let mut arguments = Arguments::from_args();
        // With one thread, libtest-mimic starts none and runs the tests in the one that called it.
        arguments.test_threads = Some(1);
        let trial = |(index, &(name, test)): (usize, &(&'static str, fn()))| {
            Trial::test(name, move || {
                board.begin(index);
                let result = leaves_nothing(test);
                board.end();
                result
            })
        };
        libtest_mimic::run(&arguments, tests.iter().enumerate().map(trial).collect()).exit_code()
    })
}

fn leaves_nothing(test: fn()) -> Result<(), Failed> {
    let before = descriptors();
    let process = std::process::id();
    let result = catch_unwind(test);
    // A child that came back here would run the rest of the tests a second time.
    if std::process::id() != process {
        std::process::abort();
    }
    if let Err(panic) = result {
        clear_up();
        resume_unwind(panic);
    }
    let children = children();
    if !children.is_empty() {
        clear_up();
        return Err(format!("children left: {children:?}").into());
    }
    let after = descriptors();
    if before != after {
        return Err(format!("descriptors before: {before:?}\nafter: {after:?}").into());
    }
    Ok(())
}

/// Ends what a failed test has left, so that it does not count against the next one.
fn clear_up() {
    children().into_iter().for_each(|(pid, _)| kill_and_wait(pid));
    // At a fork the crate parts with those whose handles were dropped. Whether this one works is
    // not what failed.
    drop(catch_unwind(AssertUnwindSafe(|| offspring::fork(|| ()).map(offspring::Child::join))));
}

/// The named test functions, as [`run`] takes them: `run(&tests![first_test, second_test])`.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), $name as fn())),*]
    };
}

/// The open descriptors of this process, with what they are.
pub fn descriptors() -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc is mounted") {
        let entry = entry.expect("an entry");
        let fd = entry.file_name().to_string_lossy().parse().expect("a number");
        // The descriptor by which the folder is read is gone again.
        if let Ok(target) = std::fs::read_link(entry.path()) {
            let target = target.to_string_lossy().into_owned();
            if !target.starts_with("/proc/") {
                found.insert(fd, target);
            }
        }
    }
    found
}

/// Waits until the condition holds; panics, and says what it has waited for, if that takes longer
/// than anything may.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {} s in vain: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the process with this pid sleeps, as one does that waits for others.
#[track_caller]
pub fn wait_until_asleep(pid: u32) {
    wait_until("the process falls asleep", || state(pid) == Some('S'));
}

/// Waits until the process with this pid is stopped.
#[track_caller]
pub fn wait_until_stopped(pid: u32) {
    wait_until("the process stops", || state(pid) == Some('T'));
}

/// Waits until the process with this pid is dead, whether or not anybody has waited for it.
#[track_caller]
pub fn wait_until_dead(pid: u32) {
    wait_until("the process dies", || matches!(state(pid), Some('Z' | 'X') | None));
}

/// Sleeps until somebody ends this process.
pub fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// As [`sleep_for_ever`], for where a value is asked for.
pub fn sleep_for_ever_returning_nothing() {
    sleep_for_ever()
}
