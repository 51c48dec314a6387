//! What the tests that fork share: a runner that stays in one thread, and eyes for what is left behind.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod fd;

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

/// Runs the tests one after the other in the main thread of a process that has no other, whatever the command line says about threads.
///
/// After each test no child may be left, alive or dead, and no descriptor.
pub fn run(tests: &[(&'static str, fn())]) -> ! {
    // A program whose parent ignored SIGCHLD would lose the status of every child.
    let _ = offspring::fork(|| ()).expect("the first fork").join();
    let mut arguments = Arguments::from_args();
    // With one thread, libtest-mimic starts none and runs the tests in the one that called it.
    arguments.test_threads = Some(1);
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, move || leaves_nothing(test))).collect();
    libtest_mimic::run(&arguments, trials).exit()
}

fn leaves_nothing(test: fn()) -> Result<(), Failed> {
    let before = descriptors();
    let process = std::process::id();
    test();
    // A child that came back here would run the rest of the tests a second time.
    if std::process::id() != process {
        std::process::abort();
    }
    let children = children();
    if !children.is_empty() {
        return Err(format!("children left: {children:?}").into());
    }
    let after = descriptors();
    if before != after {
        return Err(format!("descriptors before: {before:?}\nafter: {after:?}").into());
    }
    Ok(())
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

/// The children of this process, dead ones that were not waited for included, with their state.
pub fn children() -> Vec<(u32, char)> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // It may have ended since the folder was read.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some((state, parent)) = state_and_parent(&stat)
            && parent == own
        {
            found.push((pid, state));
        }
    }
    found
}

/// State letter of a process; `None` if there is none with this pid.
pub fn state(pid: u32) -> Option<char> {
    state_and_parent(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(state, _)| state)
}

fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Waits until the condition holds; a test that waits in vain is ended by whoever runs it.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
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
