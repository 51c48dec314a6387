//! Four processes pay into one account and draw from it, under a lock:
//! `cargo run --release --example bank_balance`.
//!
//! Without the lock, two processes would sometimes read the same balance, and one payment would be
//! lost.

use offspring::Lock;
use std::error::Error;

const PROCESSES: i64 = 4;
const PAYMENTS: i64 = 100_000;

/// Runs in a process of its own.
fn pay((clerk, balance): (i64, Lock<i64>)) -> i64 {
    for amount in 0..PAYMENTS {
        *balance.lock().expect("no clerk dies with the lock") += amount;
        *balance.lock().expect("no clerk dies with the lock") -= PAYMENTS - 1 - amount;
    }
    clerk
}

fn main() -> Result<(), Box<dyn Error>> {
    let balance = Lock::new(0_i64)?;

    let mut clerks = Vec::new();
    for clerk in 0..PROCESSES {
        clerks.push(offspring::spawn(pay, (clerk, balance.clone()))?);
    }
    for clerk in clerks {
        println!("clerk {} is done", clerk.join()?);
    }

    let balance = *balance.lock()?;
    println!("{} payments later the balance is {balance}", PROCESSES * PAYMENTS * 2);
    if balance == 0 { Ok(()) } else { Err("payments were lost".into()) }
}
