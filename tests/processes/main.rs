//! Tests that start processes: what happens between them, whatever becomes of each.
//!
//! A module for each behaviour, in which `#[apply(test)]` registers a test, see [`harness`]. Each
//! test runs in a process of its own and is watched by a [`supervisor`].
//!
//! ```text
//! cargo test --test processes                     all of them
//! cargo test --test processes fork_deaths::       those of one module
//! OFFSPRING_TEST_SECONDS=1500 cargo test ...      more time for each, before it counts as hanging
//! ```

#[path = "../common/mod.rs"]
mod common;
mod harness;
mod role;
mod supervisor;

mod aliasing;
mod alone;
mod boxes;
mod channel_captures;
mod channel_deaths;
mod channels;
#[cfg(target_arch = "x86_64")]
mod counters;
mod descriptors;
mod ends;
mod event;
mod flights;
mod fork;
// With musl, nix does not offer `PTRACE_GET_SYSCALL_INFO`: this one and `system_calls` need it.
#[cfg(not(target_env = "musl"))]
mod fork_deaths;
mod fork_handles;
mod fork_settings;
mod homes;
mod limits;
mod lock_owner_death;
mod magazines;
mod memory;
mod messages;
mod queue_peer_death;
mod queue_processes;
mod recovery_time;
#[cfg(target_arch = "x86_64")]
mod regressions_step_kill;
mod results;
mod ring_ends;
mod scribble;
mod stdio;
#[cfg(not(target_env = "musl"))]
mod system_calls;
mod thousand_processes;
mod value;
mod values;
mod verdicts;
mod victims;
#[cfg(target_arch = "x86_64")]
mod wake_ups;

use std::process::ExitCode;

fn main() -> ExitCode {
    if role::play_own() { ExitCode::SUCCESS } else { harness::run() }
}
