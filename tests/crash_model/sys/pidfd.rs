//! The oracle over processes: exact, and asking it is a step.

use rustix::io::Errno;

use crate::sys::error::OsError;
use crate::world;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Unknown,
    Inode(u64),
}

impl Start {
    pub(crate) fn to_words(self) -> [u64; 2] {
        match self {
            Start::Unknown => [0, 0],
            Start::Inode(inode) => [1 << 62 | inode, 0],
        }
    }

    pub(crate) fn from_words([word, _]: [u64; 2]) -> Start {
        if word == 0 { Start::Unknown } else { Start::Inode(word & ((1 << 62) - 1)) }
    }

    pub(crate) fn differs_from(self, other: Start) -> bool {
        self != Start::Unknown && other != Start::Unknown && self != other
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) start: Start,
}

/// Names a process for as long as it is held.
#[derive(Debug)]
pub(crate) struct Pidfd {
    process: usize,
}

/// Pid of the first process of a model.
pub(crate) const FIRST: u32 = 100;

fn start_of(process: usize) -> Start {
    Start::Inode(process as u64 + 1)
}

impl Identity {
    /// The identity of a process of the model.
    pub(crate) fn of_process(process: usize) -> Identity {
        Identity { pid: FIRST + process as u32, start: start_of(process) }
    }

    pub(crate) fn own() -> Result<Identity, OsError> {
        Ok(Identity::of_process(world::me()))
    }

    pub(crate) fn of(pidfd: &Pidfd, pid: u32) -> Identity {
        Identity { pid, start: start_of(pidfd.process) }
    }
}

pub(crate) fn has_ended(pid: u32, is_another: impl FnOnce(&Identity) -> bool) -> bool {
    match open(pid) {
        Ok(pidfd) => has_exited(&pidfd) || is_another(&Identity::of(&pidfd, pid)),
        Err(_) => true,
    }
}

/// Opens the process with this pid, which stays a zombie when it dies.
pub(crate) fn open(pid: u32) -> Result<Pidfd, OsError> {
    let process =
        pid.checked_sub(FIRST).ok_or(OsError { call: "pidfd_open", errno: Errno::SRCH })? as usize;
    Ok(Pidfd { process })
}

pub(crate) fn has_exited(pidfd: &Pidfd) -> bool {
    world::is_dead(pidfd.process)
}

pub(crate) fn pid_namespace() -> Result<u32, OsError> {
    Ok(1)
}
