//! Children: a closure runs in a process of its own, and its value comes back.
//!
//! [`fork()`] starts one, [`Child`] stands for it, shaped like [`std::thread::JoinHandle`]. Start reading with the file `fork.rs`.
//!
//! - `fork.rs`: what a fork copies, why the function is safe, the parent's side.
//! - `exit.rs`: the child's side, from its first instruction to its last.
//! - `outcome.rs`: the record by which value or panic travel back.
//! - `child.rs`: the handle: waiting, signals, how it ended.
//! - `family.rs`: every living child of this process, so that none is left as a zombie and no descriptor goes astray.
//!
//! # Peer death
//! A child that is killed at any instruction has sent its outcome wholly or not at all. A parent that is killed takes its children with it, also
//! those that are stopped; how, and where that has limits, stands in `sys/process.rs`.

mod child;
mod exit;
mod family;
mod fork;
mod outcome;

pub use child::{Child, JoinError};
pub use fork::{ForkError, fork};
pub use outcome::{Location, PanicInfo};
