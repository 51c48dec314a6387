//! Processes as the kernel tells of them: who is whose child, in what state each is, and how to be
//! rid of them.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What was killed, or dies with its parent, is gone within this time. No promise on time, a
/// watchdog.
pub const DYING: Duration = Duration::from_secs(30);

/// Has every process below this one whose parent ends become a child of this one.
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("prctl");
}

/// The children of this process, dead ones that were not waited for included, with their state.
pub fn children() -> Vec<(u32, char)> {
    children_of(std::process::id())
}

/// As [`children`], of another process.
pub fn children_of(process: u32) -> Vec<(u32, char)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc is mounted") {
        let Ok(pid) = entry.expect("an entry").file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // It may have ended since the folder was read.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let (state, parent) = state_and_parent(&stat).expect("a line of /proc/PID/stat");
        if parent == process {
            found.push((pid, state));
        }
    }
    found
}

/// State letter of a process; `None` if there is none with this pid.
pub fn state(pid: u32) -> Option<char> {
    state_and_parent(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        .map(|(state, _)| state)
}

fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Kills a child and waits until it is dead.
pub fn kill_and_wait(child: u32) {
    let child = Pid::from_raw(child.cast_signed());
    kill(child, Signal::SIGKILL).expect("a child");
    // One that was traced may tell of an earlier stop first.
    while matches!(
        waitpid(child, None),
        Ok(WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..)) | Err(Errno::EINTR)
    ) {}
}

/// Waits until this process has no child any more; those that live when the time is over are
/// killed, and named.
pub fn bury_all(patience: Duration) -> Vec<String> {
    let start = Instant::now();
    let mut survivors = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return survivors,
            Ok(WaitStatus::StillAlive) if start.elapsed() >= patience => {
                // What they leave behind becomes a child of this process in turn.
                for (pid, _) in children() {
                    survivors.push(describe(pid));
                    kill_and_wait(pid);
                }
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
}

/// A process, and what it is about.
pub fn describe(pid: u32) -> String {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    format!(
        "process {pid} {}, state {:?}, in {:?}",
        read("comm").trim(),
        state(pid),
        read("wchan").trim()
    )
}
