//! Kills the parent, the zygote or the child at every step of a start and of an end, and has the
//! others go on.
//!
//! Each [scene](scenes) is a start of a child that is no copy of its parent, and its end, in a
//! process of its own: the parent. First it is played and [traced](tracer), and the stops of each
//! of the three processes are counted: there is one before and one after each system call that it
//! makes. Then it is played again for each of these stops, and one of the three is killed there;
//! and once more for each, with the kill some instructions later, a number between 1 and 4096 that
//! the stop decides. Of what the linker and libc do before this crate takes over in a program that
//! was started anew, each fourth stop is played. What comes of it is [judged](stage):
//! - a parent that lives has the value, or learns that its child was killed; then it starts another
//!   child in the same way, and has no zombie, no descriptor and no block more than before;
//! - of a parent that was killed, no process stays;
//! - a process that had the segment open all the while finds no peer and no block in it after
//!   [`Segment::reap`](offspring::Segment::reap);
//! - `main` has run in no child.
//!
//! ```text
//! cargo test --release --test spawn_kills -- --nocapture
//! ```
//! prints the table. Arguments select scenes: `spawn_kills panics`. Without optimization a third of
//! the stops is played, and at a quarter of these a kill some instructions later.
//!
//! x86-64 only.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "sets the handler of a signal"))]

#[cfg(target_arch = "x86_64")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod scenes;
#[cfg(target_arch = "x86_64")]
mod stage;
#[cfg(target_arch = "x86_64")]
mod table;
#[cfg(target_arch = "x86_64")]
mod tracer;

use std::process::ExitCode;

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("spawn_kills: x86-64 only");
    ExitCode::SUCCESS
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    if scenes::is_child() {
        return scenes::main_ran_in_a_child();
    }
    table::main()
}
