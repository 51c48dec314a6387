//! A first program: `cargo run --example hello_fork`.
//!
//! It starts three children: one computes a value, one panics, one is killed. `join` says which is
//! which.

use std::time::Duration;

use offspring::JoinError;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The closure runs in a process of its own, and has a copy of everything it captured.
    let numbers: Vec<u64> = (1..=1_000_000).collect();
    let adder = offspring::fork(move || numbers.iter().sum::<u64>())?;
    println!("process {} has started process {}", std::process::id(), adder.id());
    println!("the numbers from 1 to 1,000,000 add up to {}", adder.join()?);

    // A child that fails takes nothing with it. Its message appears on standard error, as in any
    // program, and travels back as well.
    let panics = offspring::fork(|| -> u64 { panic!("I cannot count that far") })?;
    let sleeps = offspring::fork(|| std::thread::sleep(Duration::from_secs(3600)))?;
    sleeps.kill()?;

    match panics.join() {
        Err(JoinError::Panicked(panic)) => println!("one panicked: {panic}"),
        other => println!("not expected: {other:?}"),
    }
    match sleeps.join() {
        Err(JoinError::Killed(signal)) => println!("one was killed by signal {signal}"),
        other => println!("not expected: {other:?}"),
    }
    Ok(())
}
