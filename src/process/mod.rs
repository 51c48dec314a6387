//! Child processes that run a function and return its value.
//!
//! [`spawn()`] starts a child and returns a [`Child`], a handle like [`std::thread::JoinHandle`].
//! The child is a new process of the same program. [`fork()`] runs a closure in a copy of this
//! process instead. Start reading with `start.rs` and `fork.rs`.
//!
//! - `start.rs`: how a new process of the program is started as a child; `builder.rs`: with which
//!   settings.
//! - `setting.rs`: what a child changes of itself first.
//! - `request.rs`: what the two say to each other.
//! - `zygote.rs`: the process that is copied to make children.
//! - `entry.rs`: the new process, from before `main` on.
//! - `scope.rs`: children that are joined at the end of a block; `family.rs`: the parent and the
//!   children of a process.
//! - `fork.rs`: what a fork copies, why `fork` is an unsafe function, and the parent's side.
//! - `exit.rs`: the forked child, from its first instruction to its last, and the end of each
//!   child.
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

mod builder;
mod child;
mod children;
mod entry;
mod exit;
mod failure;
mod family;
mod fork;
mod outcome;
mod panic_info;
mod plain;
mod request;
mod returned;
mod scope;
mod setting;
mod start;
mod zygote;

use std::io;

pub use builder::{Builder, StartMethod, Stream};
pub use child::{Child, JoinError};
pub use failure::Failure;
pub use family::{Process, children, current_name, parent};
pub use fork::{ForkError, fork};
pub use panic_info::{Location, PanicInfo};
pub use returned::{Argument, Moved, Return};
pub use scope::{Scope, scope};
pub use start::{SpawnError, preload, spawn};

/// Makes sure that this program can be started as a child; see [`spawn()`].
///
/// A program that calls [`spawn()`] anywhere needs no such call: what runs in a child before `main`
/// is part of it then. This only says so at the top of `main`, and costs nothing.
pub fn init() {
    entry::fixed_point();
}

/// Makes this process, a child of [`spawn()`] or [`fork()`], end with its parent again after it has
/// changed its user.
///
/// Such a child ends with its parent. When it changes its user or group, with
/// `setuid` for example, the kernel cancels that unless its parent runs as the system's root. Call
/// this in the child right after such a change. At other times it does no harm.
///
/// # Peer death
/// If the parent is already dead, this call ends the process.
///
/// # Errors
/// `ESRCH` in a process that is no such child; otherwise the error of a system call that
/// failed.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// fn parse(text: String) -> usize {
///     // Here the child would give up its rights.
///     offspring::end_with_parent().unwrap();
///     text.len()
/// }
///
/// let child = offspring::spawn(parse, "seven".to_owned())?;
/// assert_eq!(child.join()?, 5);
/// assert!(offspring::end_with_parent().is_err(), "no child");
/// # Ok(())
/// # }
/// ```
#[doc(alias = "PR_SET_PDEATHSIG")]
pub fn end_with_parent() -> io::Result<()> {
    Ok(children::end_with_parent()?)
}
