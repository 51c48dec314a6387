//! Producers and consumers in processes of their own, connected by one queue:
//! `cargo run --example producer_consumer`.

use offspring::{Child, Queue};
use std::error::Error;

const PRODUCERS: u64 = 3;
const CONSUMERS: u64 = 2;
const NUMBERS: u64 = 100_000;

fn produce((first, queue): (u64, Queue<u64>)) {
    for number in (first..NUMBERS).step_by(PRODUCERS as usize) {
        queue.send(number).expect("the queue is open until all producers are done");
    }
}

fn consume(queue: Queue<u64>) -> u64 {
    queue.iter().sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::<u64>::with_capacity(1024)?;

    let mut producers = Vec::new();
    for producer in 0..PRODUCERS {
        producers.push(offspring::spawn(produce, (producer, queue.clone()))?);
    }

    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        consumers.push(offspring::spawn(consume, queue.clone())?);
    }

    for producer in producers {
        producer.join()?;
    }
    // Consumers still get what is in the queue; then their iterators end.
    queue.close();
    let sum: u64 = consumers.into_iter().map(Child::join).sum::<Result<_, _>>()?;

    let expected = NUMBERS * (NUMBERS - 1) / 2;
    println!("{CONSUMERS} consumers summed up {NUMBERS} numbers to {sum}; expected {expected}");
    if sum == expected { Ok(()) } else { Err("numbers were lost or came twice".into()) }
}
