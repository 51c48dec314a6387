//! The only room that makes system calls.
//!
//! - [`barrier`]: the asymmetric fence (`membarrier`).
//! - [`clock`]: deadlines on the monotonic clock.
//! - [`futex`]: words that a process can sleep on.
//! - [`memory`]: descriptors, mappings, pages.
//! - [`pidfd`]: who a process is and whether it still runs.
//! - [`process`]: fork, wait, exit.

pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod futex;
#[cfg(not(loom))]
pub(crate) mod memory;
#[cfg(not(loom))]
pub(crate) mod pidfd;
#[cfg(not(loom))]
pub(crate) mod process;
