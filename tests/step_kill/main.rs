//! Kills a process after every single instruction of every operation, and has survivors go on.
//!
//! For each configuration (an operation, and the state in which it begins) a child runs the
//! operation under ptrace. Whatever the number k of instructions after which it is killed,
//! survivors must find the object in a state of the list that the configuration gives, in that
//! order for growing k, and be able to use all of it afterwards. See `step_kill/stage.rs` for how
//! this is done without running every operation once for every k, and for the check that it comes
//! to the same.
//!
//! A system call is one step, and so is a sleep; what the kernel does inside is its own business.
//! libc's code is stepped through.
//!
//! And the survivor who clears up is a victim in turn, and so is the one after that: see
//! `step_kill/line.rs`.
//!
//! Built with optimisation it visits everything; without, each operation has ten times the
//! instructions, so a part of the configurations is visited: one capacity at one offset, no victim
//! that walks the whole heap for others, real kills at some instructions only.
//! `OFFSPRING_STEP_KILL=all` or `=some` decides otherwise. Arguments select by object and
//! operation: `step_kill lock`.
//!
//! x86-64 only: elsewhere a processor's exclusive load and store pairs never succeed while each
//! instruction is a trap.

#[cfg(target_arch = "x86_64")]
mod boxes;
#[cfg(target_arch = "x86_64")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod ends;
#[cfg(target_arch = "x86_64")]
mod event;
#[cfg(target_arch = "x86_64")]
mod flights;
#[cfg(target_arch = "x86_64")]
mod heap;
#[cfg(target_arch = "x86_64")]
mod line;
#[cfg(target_arch = "x86_64")]
mod lock;
#[cfg(target_arch = "x86_64")]
mod messages;
#[cfg(target_arch = "x86_64")]
mod peers;
#[cfg(target_arch = "x86_64")]
mod post;
#[cfg(target_arch = "x86_64")]
mod queue;
#[cfg(target_arch = "x86_64")]
mod results;
#[cfg(target_arch = "x86_64")]
mod run;
#[cfg(target_arch = "x86_64")]
mod spsc;
#[cfg(target_arch = "x86_64")]
mod stage;
#[cfg(target_arch = "x86_64")]
mod value;

#[cfg(target_arch = "x86_64")]
use run::{Plan, at_every_instruction};

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    let full = match std::env::var("OFFSPRING_STEP_KILL").as_deref() {
        Ok("all") => true,
        Ok("some") => false,
        Ok(other) => panic!("OFFSPRING_STEP_KILL is \"all\" or \"some\", not {other:?}"),
        Err(_) => !cfg!(debug_assertions),
    };
    // The long ones first.
    let mut plans = peers::plans(full);
    plans.extend(queue::plans_with_real_kills());
    plans.extend(heap::plans(full));
    plans.extend(messages::plans(full));
    plans.extend(boxes::plans(full));
    plans.extend(flights::plans());
    plans.extend(ends::plans());
    plans.extend(results::plans(full));
    plans.extend(lock::plans());
    plans.extend(value::plans());
    plans.extend(event::plans());
    plans.extend(spsc::plans(full));
    plans.extend(queue::plans(full));
    plans.extend(peers::lines(full));
    plans.extend(heap::lines(full));
    plans.extend(messages::lines(full));
    plans.extend(boxes::lines(full));
    plans.extend(flights::lines(full));
    plans.extend(lock::lines(full));
    plans.extend(value::lines(full));
    plans.extend(event::lines(full));
    plans.extend(spsc::lines(full));
    plans.extend(queue::lines(full));
    run::run(plans)
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("step_kill: x86-64 only");
    ExitCode::SUCCESS
}
