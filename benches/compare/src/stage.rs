//! Where everything is measured: two cores, and who else is there.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Failure;

/// Whether actors share an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Processes,
    Threads,
}

/// The two cores, by the number of a processor on each, and who else is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) processors: [usize; 2],
    /// Processes that use as much of the two cores as they get.
    pub(crate) hogs: usize,
    /// Processes that have the shared memory and sleep.
    pub(crate) idlers: usize,
}

impl Stage {
    /// The first processor that this process may use, and the first of another core; `None` if
    /// there is but one core.
    pub(crate) fn choose() -> Result<Option<Stage>, Failure> {
        let allowed = sched_getaffinity(None)?;
        let mut all = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let Some(first) = all.next() else { return Ok(None) };
        let second = all.find(|&other| core_of(other) != core_of(first));
        Ok(second.map(|second| Stage { processors: [first, second], hogs: 0, idlers: 0 }))
    }

    pub(crate) fn pin(self, index: usize) {
        let mut set = CpuSet::new();
        set.set(self.processors[index % 2]);
        sched_setaffinity(None, &set).expect("an allowed processor");
    }

    /// Package and core of both, for people.
    pub(crate) fn describe(self) -> String {
        self.processors.map(core_of).join(" and ")
    }
}

/// Package and core of a processor, as far as the kernel tells; else the processor itself.
fn core_of(processor: usize) -> String {
    let folder = format!("/sys/devices/system/cpu/cpu{processor}/topology");
    let read = |name| fs::read_to_string(format!("{folder}/{name}"));
    match (read("physical_package_id"), read("core_id")) {
        (Ok(package), Ok(core)) => format!("package {} core {}", package.trim(), core.trim()),
        _ => format!("processor {processor}"),
    }
}
