//! The only module that makes system calls.
//!
//! - [`error`]: which call failed, and why.
//! - [`barrier`]: the asymmetric fence (`membarrier`).
//! - [`clock`]: deadlines on the monotonic clock.
//! - [`futex`]: words that a process can sleep on.
//! - [`descriptor`]: this crate's descriptors, and which files they stand for.
//! - [`memory`]: memory files, mappings, pages.
//! - [`at_fork`]: what is closed in a forked child.
//! - [`record_lock`]: locks that show whether a mapping still exists.
//! - [`pidfd`]: who a process is and whether it still runs.
//! - [`process`]: fork, wait, exit.
//! - [`program`]: where the program's code lies, and what runs before `main`.
//! - [`environment`]: what a process changes of itself before it runs code of the program.
//! - [`limits`]: limits that a process sets itself.
//! - [`sibling`]: a copy of a process that is its parent's child.
//! - [`socket`]: messages with descriptors.
//! - [`tree`]: the processes below a process.
//! - [`thread`]: numbers for threads.
//! - [`seat`]: small numbers for threads, which are used again.

#[cfg(not(loom))]
pub(crate) mod at_fork;
pub(crate) mod barrier;
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod descriptor;
#[cfg(not(loom))]
pub(crate) mod environment;
#[cfg(not(loom))]
pub(crate) mod error;
pub(crate) mod futex;
#[cfg(not(loom))]
pub(crate) mod limits;
#[cfg(not(loom))]
pub(crate) mod memory;
#[cfg(not(loom))]
pub(crate) mod pidfd;
#[cfg(not(loom))]
pub(crate) mod process;
#[cfg(not(loom))]
pub(crate) mod program;
#[cfg(not(loom))]
pub(crate) mod record_lock;
#[cfg(not(loom))]
pub(crate) mod seat;
#[cfg(not(loom))]
pub(crate) mod sibling;
#[cfg(not(loom))]
pub(crate) mod socket;
#[cfg(not(loom))]
pub(crate) mod thread;
#[cfg(not(loom))]
pub(crate) mod tree;
