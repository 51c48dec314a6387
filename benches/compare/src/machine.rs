//! The machine and the command, to stand beside every figure.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Failure;
use crate::rounds::Plan;
use crate::stage::Stage;

/// Processor, kernel and cores, in one line.
pub(crate) fn short(stage: Stage) -> Result<String, Failure> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (model, kernel) = (model.unwrap_or(std::env::consts::ARCH).trim(), kernel.trim());
    Ok(format!("{model}, Linux {kernel}, on {}", stage.describe()))
}

/// What stands above the table.
pub(crate) fn heading(stage: Stage, plan: Plan) -> Result<String, Failure> {
    let processors = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "machine: {}; {processors} processors, load {load} at the start\n\
         command: {}\n\
         {} rounds, in each of which everybody plays one slice of {} ms",
        short(stage)?,
        command(),
        plan.rounds,
        plan.slice.as_millis(),
    ))
}

/// How to measure this again.
pub(crate) fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "cargo run --release --manifest-path benches/compare/Cargo.toml -- {}",
        arguments.join(" ")
    )
}

/// Messages of a mebibyte are passed by value, some copies deep: more than the usual 8 MiB of
/// stack.
pub(crate) fn allow_large_messages() -> Result<(), Failure> {
    const STACK: u64 = 64 << 20;
    let (soft, hard) = getrlimit(Resource::RLIMIT_STACK)?;
    if soft < STACK {
        setrlimit(Resource::RLIMIT_STACK, STACK.min(hard), hard)?;
    }
    Ok(())
}
