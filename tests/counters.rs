//! A word that somebody judged does not come back while that one is held up, however often the
//! others go round.
//!
//! Whoever acts on a word that it has judged does so by a compare-and-swap from that very word, so
//! a word must not return to a value that it had. Names in claim words once held ten bits of a
//! generation, and came back after 1,023 children, in half a second; a process that was held up
//! between its verdict and its swap then took a lock from its living owner. The version of a shared
//! block came back after 4,096 attachments, and the block was freed under a process that had 4,096
//! handles of it.
//!
//! Here a process is held up by ptrace right before the swap, and let go when the others have gone
//! round 4,096 times, which is a whole turn of every counter of up to twelve bits. x86-64 only, as
//! the swap is found by its instruction.

#[cfg(target_arch = "x86_64")]
mod common;
#[cfg(target_arch = "x86_64")]
#[path = "common/parent.rs"]
mod parent;
#[cfg(target_arch = "x86_64")]
#[path = "common/raw.rs"]
mod raw;
#[cfg(target_arch = "x86_64")]
#[path = "common/sandbox.rs"]
mod sandbox;
#[cfg(target_arch = "x86_64")]
#[path = "step_kill/trace.rs"]
mod trace;

#[cfg(target_arch = "x86_64")]
#[path = "counters/held_up.rs"]
mod held_up;

#[cfg(target_arch = "x86_64")]
use held_up::*;
use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    common::run(&tests_apart![
        a_lock_is_not_taken_from_a_later_owner,
        a_message_is_not_taken_from_a_later_reader,
        a_slot_is_not_taken_from_a_later_writer,
        an_entry_is_not_taken_from_a_later_process,
        a_block_is_not_freed_under_later_handles,
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    ExitCode::SUCCESS
}
