//! Children: a closure runs in a process of its own, and its value comes back.
//!
//! [`fork()`] starts one, [`Child`] stands for it, shaped like [`std::thread::JoinHandle`]. Start
//! reading with the file `fork.rs`.
//!
//! - `fork.rs`: what a fork copies, why the function is safe, the parent's side.
//! - `exit.rs`: the child's side, from its first instruction to its last.
//! - `outcome.rs`: the record by which value or panic travel back.
//! - `plain.rs`: the values that travel as their bytes, without being encoded.
//! - `panic_info.rs`: what is told of a panic.
//! - `child.rs`: the handle: waiting, signals, how it ended.
//! - `failure.rs`: any error as text that travels.
//! - `family.rs`: every living child of this process, so that none is left as a zombie and no
//!   descriptor goes astray.
//!
//! # Peer death
//! A child that is killed at any instruction has sent its outcome wholly or not at all. A parent
//! that is killed takes its children with it, also those that are stopped; how, and where that has
//! limits, stands in `sys/process.rs`.

mod child;
mod exit;
mod failure;
mod family;
mod fork;
mod outcome;
mod panic_info;
mod plain;

use std::io;

pub use child::{Child, JoinError};
pub use failure::Failure;
pub use fork::{ForkError, fork};
pub use panic_info::{Location, PanicInfo};

/// Arranges anew that this process, a child of [`fork()`], ends with its parent: for a child that
/// has changed its user.
///
/// When a process changes its user or group, by `setuid` and the like, the kernel takes back what
/// was arranged at its birth, unless its parent is the system's root. Call this in the child right
/// after such a change. Elsewhere it does no harm.
///
/// # Peer death
/// If the parent is dead by now, this process ends here.
///
/// # Errors
/// `ESRCH` in a process that is no child of [`fork()`]; what the kernel refused.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let child = offspring::fork(|| {
///     // Here the child would give up its rights.
///     offspring::end_with_parent().is_ok()
/// })?;
/// assert!(child.join()?);
/// assert!(offspring::end_with_parent().is_err(), "no child");
/// # Ok(())
/// # }
/// ```
#[doc(alias = "PR_SET_PDEATHSIG")]
pub fn end_with_parent() -> io::Result<()> {
    Ok(family::end_with_parent()?)
}
