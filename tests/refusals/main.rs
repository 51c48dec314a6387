//! The kernel says no: every system call that the crate makes is refused, in every way, at every
//! operation.
//!
//! Each [scene](scenes) is an operation of the crate in a process of its own. First it is played
//! and its system calls are noted, by [tracing](tracer) and not from a list. Then it is played
//! again for each of these calls and each of ten errors, with that one call refused; and for each
//! kind of call and each error once more, with all calls of the kind refused, as a sandbox does.
//! Starts of children that are no copies make so many calls that two errors must do, and one call
//! from each place.
//! What comes of it must be one of:
//! - *works*: the operation did without the call;
//! - *error*: an `Err` that names the call;
//! - *alive*: a verdict about another process that could not be given.
//!
//! A child that is no copy of its parent may also end with code 101, if it is its own call that was
//! refused and it could write no outcome without it.
//!
//! Never a living process that is called dead, never a hang, a panic, a signal, a value that is
//! lost, or a `main` that runs in a child. Afterwards the scenes are played in [places](places)
//! where much is missing or different: with closed standard streams, without `/proc`, in other
//! namespaces, under limits.
//!
//! ```text
//! cargo test --release --test refusals -- --nocapture
//! ```
//! prints the table. Arguments select scenes and calls: `refusals fork fcntl`. Without optimization
//! a part of the errors is tried, and at the first call of each kind.
//!
//! Calls that only the standard library or libc make are out of scope, and are printed with the
//! reason. x86-64 only.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "raw forks, and what changes a process for good")
)]

#[cfg(target_arch = "x86_64")]
mod calls;
#[cfg(target_arch = "x86_64")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod places;
#[cfg(target_arch = "x86_64")]
mod play;
#[cfg(target_arch = "x86_64")]
mod raw;
#[cfg(target_arch = "x86_64")]
mod scenes;
#[cfg(target_arch = "x86_64")]
mod tracer;

use std::process::ExitCode;

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("refusals: x86-64 only");
    ExitCode::SUCCESS
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    play::main()
}
