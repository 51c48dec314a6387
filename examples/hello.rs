//! A first program: `cargo run --example hello`.
//!
//! It starts three children: one computes a value, one panics, one is killed. `join` says which is
//! which.

use std::os::unix::process::parent_id;
use std::process;
use std::time::Duration;

use offspring::JoinError;

/// Runs in a process of its own. Its arguments come from the parent, and its value goes back.
fn add((name, numbers): (String, Vec<u64>)) -> u64 {
    println!("{name}: I am process {}, a child of process {}", process::id(), parent_id());
    numbers.iter().sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("main: I am process {}, a child of process {}", process::id(), parent_id());
    let numbers = (1..=1_000_000).collect();
    let adder = offspring::spawn(add, ("adder".to_owned(), numbers))?;
    println!("main: I have started process {}", adder.id());
    println!("the numbers from 1 to 1,000,000 add up to {}", adder.join()?);

    // A child that fails takes nothing with it. Its message appears on standard error, as in any
    // program, and travels back as well.
    let panics = offspring::spawn(|()| -> u64 { panic!("I cannot count that far") }, ())?;
    let sleeps = offspring::spawn(std::thread::sleep, Duration::from_secs(3600))?;
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
