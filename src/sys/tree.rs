//! The processes below a process, whoever has made them.
//!
//! # Source
//! proc_pid_stat(5), field 4; pidfd_open(2).

use std::collections::BTreeMap;

use crate::sys::descriptor;
use crate::sys::error::OsError;
use crate::sys::pidfd;
use crate::sys::process as sys;

/// How often to look for processes that were made meanwhile.
const ROUNDS: u32 = 100;

/// Kills the process `root`, a child of this one that was not waited for, and all below it.
///
/// Each is stopped before it is looked whose parent it is, so that it makes no more. A process
/// whose parent ends meanwhile, as daemons do, is missed.
pub(crate) fn kill_all(root: u32) -> Result<(), OsError> {
    let mut stopped = BTreeMap::new();
    stop(root, None, &mut stopped);
    for _ in 0..ROUNDS {
        let parents = parents()?;
        let below: Vec<(u32, u32)> = parents
            .iter()
            .map(|(&pid, &parent)| (pid, parent))
            .filter(|(pid, parent)| stopped.contains_key(parent) && !stopped.contains_key(pid))
            .collect();
        if below.is_empty() {
            break;
        }
        for (pid, parent) in below {
            stop(pid, Some(parent), &mut stopped);
        }
    }
    for pidfd in stopped.values().flatten() {
        // One that has ended by itself is as good.
        let _ = sys::send_signal(std::os::fd::AsFd::as_fd(pidfd), libc::SIGKILL);
    }
    Ok(())
}

/// Stops a process that has this parent, and takes note of it.
fn stop(pid: u32, parent: Option<u32>, stopped: &mut BTreeMap<u32, Option<std::os::fd::OwnedFd>>) {
    let pidfd = pidfd::open(pid).ok().filter(|_| {
        // The pid may have become another process's before it was opened.
        parent.is_none() || parent_of(pid) == parent
    });
    if let Some(pidfd) = &pidfd {
        let _ = sys::send_signal(std::os::fd::AsFd::as_fd(pidfd), libc::SIGSTOP);
    }
    stopped.insert(pid, pidfd);
}

/// The parent of each process that `/proc` shows.
fn parents() -> Result<BTreeMap<u32, u32>, OsError> {
    let folder = std::fs::read_dir("/proc").map_err(OsError::in_call("open /proc"))?;
    let pids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    let mut text = [0; 1024];
    let path = format!("/proc/{pid}/stat");
    let stat = descriptor::read_proc(&path, ["open", "read"], &mut text).ok()?;
    // The second field is a name in parentheses and may contain anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_and_the_dead_have_none() {
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
        assert!(parents().expect("/proc is mounted").contains_key(&std::process::id()));
    }

    #[test]
    fn a_process_is_killed_with_all_below_it() {
        let script = "sleep 600 & (sleep 601 & wait) & wait";
        let mut root =
            std::process::Command::new("sh").args(["-c", script]).spawn().expect("sh is there");
        let below = |pid: u32| {
            let all = parents().expect("/proc is mounted");
            let mut found = vec![pid];
            let mut next = 0;
            while next < found.len() {
                let parent = found[next];
                found.extend(all.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
                next += 1;
            }
            found
        };
        // The shell has to start them first.
        while below(root.id()).len() < 4 {
            std::thread::yield_now();
        }
        let family = below(root.id());
        let pidfds: Vec<_> = family.iter().map(|&pid| pidfd::open(pid).expect("alive")).collect();
        kill_all(root.id()).expect("/proc is mounted");
        root.wait().expect("a child");
        for pidfd in pidfds {
            while !pidfd::has_exited(&pidfd) {
                std::thread::yield_now();
            }
        }
    }
}
