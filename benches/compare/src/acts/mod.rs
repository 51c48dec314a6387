//! What the actors do, and their clocks.
//!
//! - `stream`: messages one way, between any number of senders and receivers.
//! - `echo`: a message there and back.
//! - `locking`: several that want the same lock.
//! - `single`: one actor repeats an operation.
//! - `window`: the clock for actors that share their cores with others.

pub(crate) mod echo;
pub(crate) mod locking;
pub(crate) mod single;
pub(crate) mod stream;
pub(crate) mod window;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::figures::Sample;
use crate::statistics::middle;

/// Times blocks of operations, so that the clock costs next to nothing and a block in which
/// something else ran does not count.
///
/// A slice begins with a warm-up, a quarter of its length, during which blocks grow until one takes
/// [`BlockClock::BLOCK`]. The next slice begins with blocks of that size.
#[derive(Debug)]
pub(crate) struct BlockClock {
    length: Duration,
    begin: Instant,
    lap: Instant,
    block: u64,
    next: u64,
    warm: bool,
    laps: Vec<f64>,
}

impl BlockClock {
    /// Long enough to hold the sleeps and wake-ups of a channel that has some, short enough that
    /// most have no interruption.
    const BLOCK: Duration = Duration::from_micros(300);

    pub(crate) fn new() -> BlockClock {
        let now = Instant::now();
        BlockClock {
            length: Duration::ZERO,
            begin: now,
            lap: now,
            block: 1,
            next: 1,
            warm: false,
            laps: Vec::with_capacity(1 << 12),
        }
    }

    /// Begins a slice, whose operations are counted from 1.
    pub(crate) fn begin(&mut self, length: Duration) {
        self.length = length;
        self.begin = Instant::now();
        self.lap = self.begin;
        self.next = self.block;
        self.warm = false;
        self.laps.clear();
    }

    /// To be told after operation `count`; says whether the time is up.
    #[inline]
    pub(crate) fn after(&mut self, count: u64) -> bool {
        count == self.next && self.lap(count)
    }

    #[cold]
    fn lap(&mut self, count: u64) -> bool {
        let now = Instant::now();
        let took = now - self.lap;
        self.lap = now;
        if self.warm {
            self.laps.push(took.as_secs_f64() / self.block as f64);
        } else if took < BlockClock::BLOCK {
            self.block *= 2;
        }
        if !self.warm && now - self.begin > self.length / 4 {
            self.warm = true;
            self.begin = now;
        }
        self.next = count + self.block;
        self.warm && now - self.begin > self.length
    }

    /// Seconds for an operation, in the middle half of the blocks.
    pub(crate) fn seconds(&self) -> f64 {
        middle(self.laps.clone())
    }
}

/// Times of single operations.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record((time.as_nanos() as u64).max(1));
    }

    pub(crate) fn merge(&mut self, counted: &[(u64, u64)]) {
        for &(nanoseconds, count) in counted {
            self.0.saturating_record_n(nanoseconds.max(1), count);
        }
    }

    /// What was seen, and how often.
    pub(crate) fn counted(&self) -> Vec<(u64, u64)> {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    /// In microseconds.
    pub(crate) fn percentiles(&self) -> [f64; 3] {
        [0.5, 0.99, 0.999].map(|share| self.0.value_at_quantile(share) as f64 / 1e3)
    }

    /// `value` first, then the percentiles.
    pub(crate) fn sample(&self, value: f64) -> Sample {
        let [middle, most, nearly_all] = self.percentiles();
        Sample { values: vec![value, middle, most, nearly_all], latencies: self.counted() }
    }
}
