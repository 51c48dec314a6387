//! The oracle over processes: exact, and asking it is a step.

use rustix::io::Errno;

use crate::world;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    pub(crate) image: u64,
}

/// Names a process for as long as it is held.
#[derive(Debug)]
pub(crate) struct Pidfd {
    process: usize,
}

/// Pid of the first process of a model.
const FIRST: u32 = 100;

fn start_of(process: usize) -> u64 {
    process as u64 + 1
}

impl Identity {
    /// The identity of a process of the model.
    pub(crate) fn of_process(process: usize) -> Identity {
        Identity { pid: FIRST + process as u32, start: start_of(process), image: 7 }
    }

    pub(crate) fn own() -> std::io::Result<Identity> {
        Ok(Identity::of_process(world::me()))
    }

    pub(crate) fn of(pidfd: &Pidfd, pid: u32) -> Option<Identity> {
        Some(Identity { pid, start: start_of(pidfd.process), image: 0 })
    }

    pub(crate) fn is_dead(self) -> bool {
        self.has_exited()
    }

    pub(crate) fn has_exited(self) -> bool {
        match open(self.pid) {
            Ok(Pidfd { process }) => world::is_dead(process) || start_of(process) != self.start,
            Err(_) => true,
        }
    }
}

/// Opens the process with this pid, which stays a zombie when it dies.
pub(crate) fn open(pid: u32) -> Result<Pidfd, Errno> {
    let process = pid.checked_sub(FIRST).ok_or(Errno::SRCH)? as usize;
    Ok(Pidfd { process })
}

pub(crate) fn has_exited(pidfd: &Pidfd) -> bool {
    world::is_dead(pidfd.process)
}

pub(crate) fn pid_namespace() -> u64 {
    1
}
