//! One actor that repeats an operation: how long it takes.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::acts::{BlockClock, Latencies};
use crate::figures::Sample;
use crate::stage::{Actor, Place, Stage};

/// Nanoseconds for an operation, in the middle half of the blocks. `make` runs in the actor's
/// process.
pub(crate) fn repeat<F: FnMut()>(
    stage: Stage,
    place: Place,
    limit: Duration,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Sample, Failure> {
    let actor: Actor<f64> = Box::new(move |_| {
        let mut operation = make();
        let mut clock = BlockClock::new(limit);
        let mut count = 0;
        loop {
            operation();
            count += 1;
            if clock.after(count) {
                return clock.seconds();
            }
        }
    });
    Ok(Sample::from(stage.run(place, limit, || Ok(vec![actor]))?[0] * 1e9))
}

/// Microseconds for an operation that is slow enough to be timed alone: the median, p50, p99 and
/// p99.9.
pub(crate) fn each<F: FnMut()>(
    stage: Stage,
    place: Place,
    limit: Duration,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Sample, Failure> {
    let actor: Actor<Sample> = Box::new(move |_| {
        let mut operation = make();
        let begin = Instant::now();
        while begin.elapsed() < limit / 4 {
            operation();
        }
        let mut latencies = Latencies::new();
        let begin = Instant::now();
        let mut before = Duration::ZERO;
        while before < limit {
            operation();
            let after = begin.elapsed();
            latencies.record(after - before);
            before = after;
        }
        let middle = latencies.percentiles()[0];
        latencies.sample(middle)
    });
    stage.run(place, limit, || Ok(vec![actor]))?.pop().ok_or_else(|| "the actor is gone".into())
}
