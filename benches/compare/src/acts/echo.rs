//! A message there and back: how long it takes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::acts::Latencies;
use crate::channel::{Receiver, Sender, buffer};
use crate::figures::Sample;
use crate::peers::Make;
use crate::slice::Slice;
use crate::stage::{Place, Stage};
use crate::statistics::middle;
use crate::troupe::{Actor, Run, Troupe};

/// The number of the last message of a slice. The bare futex has 32 bits and the bare line 63.
const LAST: u64 = u32::MAX as u64;
/// Round trips that are timed together, as the clock costs as much as a good part of a fast one;
/// after each block one is timed alone.
const BLOCK: u64 = 16;
/// From this on the clock does not matter, and every round trip is timed alone.
const SLOW: Duration = Duration::from_micros(4);

/// Sends back what comes, until the last message of the slice.
fn reflect<const N: usize>(
    channel: &mut (impl Sender<N> + Receiver<N>),
    message: &mut [u64; N],
    slice: &mut Slice,
) {
    slice.meet();
    loop {
        let number = channel.recv(message, |message| black_box(message)[0]);
        channel.send(message, |message| black_box(message).fill(number));
        if number == LAST {
            return;
        }
    }
}

fn measure<const N: usize>(
    channel: &mut (impl Sender<N> + Receiver<N>),
    message: &mut [u64; N],
    slice: &mut Slice,
    all_counts: bool,
) -> Sample {
    let length = slice.length();
    let mut round_trip = |number: u64| {
        channel.send(message, |message| black_box(message).fill(number));
        let same =
            channel.recv(message, |message| black_box(message).iter().all(|&word| word == number));
        assert!(same, "message {number} came back changed");
    };
    slice.meet();
    let mut number = 0;
    let mut round_trips = |count: u64| {
        for _ in 0..count {
            number += 1;
            round_trip(number);
        }
    };
    let begin = Instant::now();
    let mut trips = 0;
    while begin.elapsed() < length / 4 {
        round_trips(1);
        trips += 1;
    }
    let block = if begin.elapsed() > SLOW * trips { 0 } else { BLOCK };
    let mut latencies = Latencies::new();
    let mut blocks = Vec::with_capacity(1 << 16);
    let begin = Instant::now();
    let (mut now, mut trips) = (Duration::ZERO, 0);
    while now < length {
        trips += block + 1;
        round_trips(block);
        let after_block = begin.elapsed();
        round_trips(1);
        let after_single = begin.elapsed();
        let alone = after_single - after_block;
        latencies.record(alone);
        blocks.push(
            if block == 0 { alone } else { (after_block - now) / block as u32 }.as_secs_f64(),
        );
        now = after_single;
    }
    round_trip(LAST);
    let seconds = if all_counts { now.as_secs_f64() / trips as f64 } else { middle(blocks) };
    latencies.sample(seconds * 1e6)
}

/// Microseconds for a round trip in the middle half, or in the mean beside hogs, then p50, p99 and
/// p99.9 of single ones. The second of the two ends that `open` opens has the clock.
pub(crate) fn echo<const N: usize, C: Sender<N> + Receiver<N> + 'static>(
    stage: Stage,
    place: Place,
    open: impl FnOnce() -> Result<[Make<C>; 2], Failure> + Send + 'static,
) -> Result<Run<Sample>, Failure> {
    let troupe = Troupe::set_up(stage, place, 2, move || {
        let [left, right] = open()?;
        let actors: Vec<Actor<Sample>> = vec![
            Box::new(move || {
                let (mut channel, mut message) = (left(), buffer());
                Box::new(move |slice| {
                    reflect(&mut channel, &mut message, slice);
                    Sample::default()
                })
            }),
            Box::new(move || {
                let (mut channel, mut message) = (right(), buffer());
                Box::new(move |slice| measure(&mut channel, &mut message, slice, stage.hogs > 0))
            }),
        ];
        Ok(actors)
    })?;
    Ok(troupe
        .run(|samples| samples.into_iter().next_back().ok_or_else(|| "no end has measured".into())))
}
