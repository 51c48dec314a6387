//! Four processes pay into one account and draw from it, under a lock:
//! `cargo run --release --example bank_balance`.
//!
//! Without the lock, two processes would sometimes read the same balance, and one payment would be
//! lost.

use offspring::Lock;
use std::error::Error;

const PROCESSES: i64 = 4;
const PAYMENTS: i64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let balance = Lock::new(0_i64)?;

    let mut clerks = Vec::new();
    for clerk in 0..PROCESSES {
        let balance = balance.clone();
        clerks.push(offspring::fork(move || {
            for amount in 0..PAYMENTS {
                *balance.lock().expect("no clerk dies with the lock") += amount;
                *balance.lock().expect("no clerk dies with the lock") -= PAYMENTS - 1 - amount;
            }
            clerk
        })?);
    }
    for clerk in clerks {
        println!("clerk {} is done", clerk.join()?);
    }

    let balance = *balance.lock()?;
    println!("{} payments later the balance is {balance}", PROCESSES * PAYMENTS * 2);
    if balance == 0 { Ok(()) } else { Err("payments were lost".into()) }
}
