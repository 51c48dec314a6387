//! What the tests share: processes made without the crate, surroundings in which less is allowed
//! than usual, a limit for every wait, and eyes for what is left behind.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub mod blocks;
pub mod fd;
mod fork;
pub mod holders;
pub mod parent;
pub mod processes;
pub mod raw;
pub mod room;
pub mod sandbox;
#[cfg(target_arch = "x86_64")]
pub mod trace;
#[cfg(target_arch = "x86_64")]
pub mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use fork::fork;
pub use processes::{children, state};

/// What has not come to pass by then never will. No promise on time, a watchdog.
pub const PATIENCE: Duration = Duration::from_secs(30);

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

/// Waits, in another thread, until the main thread of this process has ended. It stays a zombie
/// until the last one has.
#[track_caller]
pub fn wait_for_main_thread() {
    let stat = format!("/proc/self/task/{}/stat", std::process::id());
    wait_until("the main thread ends", || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
    });
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
