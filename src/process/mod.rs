//! Child processes that run a closure and return its value.
//!
//! [`fork()`] starts a child and returns a [`Child`], a handle like [`std::thread::JoinHandle`].
//! Start reading with `fork.rs`.
//!
//! - `fork.rs`: what a fork copies, why `fork` is a safe function, and the parent's side.
//! - `exit.rs`: the child's side, from its first instruction to its last.
//! - `outcome.rs`: the record in which the child sends its value or its panic.
//! - `returned.rs`: what a closure may return: encoded values, and boxes, which move.
//! - `plain.rs`: values that are sent as their bytes, without being encoded.
//! - `panic_info.rs`: what the parent learns of a panic.
//! - `child.rs`: the handle: waiting, signals, and how the child ended.
//! - `failure.rs`: any error as text that can be sent.
//! - `children.rs`: the list of this process's children, so that no zombie remains and no child
//!   keeps a sibling's descriptors.
//!
//! # Peer death
//! A child that is killed at any instruction has sent its whole outcome or nothing. When a parent
//! is killed its children are killed too, also stopped ones. `sys/process.rs` says how, and which
//! limits that has.

mod child;
mod children;
mod exit;
mod failure;
mod fork;
mod outcome;
mod panic_info;
mod plain;
mod returned;

use std::io;

pub use child::{Child, JoinError};
pub use failure::Failure;
pub use fork::{ForkError, fork};
pub use panic_info::{Location, PanicInfo};
pub use returned::{Moved, Return};

/// Makes this process, a child of [`fork()`], end with its parent again after it has changed its
/// user.
///
/// A child made by [`fork()`] ends with its parent. When it changes its user or group, with
/// `setuid` for example, the kernel cancels that unless its parent runs as the system's root. Call
/// this in the child right after such a change. At other times it does no harm.
///
/// # Peer death
/// If the parent is already dead, this call ends the process.
///
/// # Errors
/// `ESRCH` in a process that was not made by [`fork()`]; otherwise the error of a system call that
/// failed.
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
    Ok(children::end_with_parent()?)
}
