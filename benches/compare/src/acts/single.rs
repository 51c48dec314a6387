//! One actor that repeats an operation: how long it takes.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::acts::{BlockClock, Latencies};
use crate::figures::Sample;
use crate::stage::{Place, Stage};
use crate::troupe::{Actor, Run, Troupe};

/// Nanoseconds for an operation, in the middle half of the blocks. `make` runs in the actor's
/// process.
pub(crate) fn repeat<F: FnMut() + 'static>(
    stage: Stage,
    place: Place,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Run<f64>, Failure> {
    let actor: Actor<f64> = Box::new(move || {
        let (mut operation, mut clock) = (make(), BlockClock::new());
        Box::new(move |slice| {
            clock.begin(slice.length());
            let mut count = 0;
            loop {
                operation();
                count += 1;
                if clock.after(count) {
                    return clock.seconds() * 1e9;
                }
            }
        })
    });
    lone(stage, place, actor)
}

/// Microseconds for an operation that is slow enough to be timed alone: the median, p50, p99 and
/// p99.9.
pub(crate) fn each<F: FnMut() + 'static>(
    stage: Stage,
    place: Place,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Run<Sample>, Failure> {
    let actor: Actor<Sample> = Box::new(move || {
        let mut operation = make();
        Box::new(move |slice| {
            let begin = Instant::now();
            while begin.elapsed() < slice.length() / 4 {
                operation();
            }
            let mut latencies = Latencies::new();
            let begin = Instant::now();
            let mut before = Duration::ZERO;
            while before < slice.length() {
                operation();
                let after = begin.elapsed();
                latencies.record(after - before);
                before = after;
            }
            let middle = latencies.percentiles()[0];
            latencies.sample(middle)
        })
    });
    lone(stage, place, actor)
}

fn lone<R>(stage: Stage, place: Place, actor: Actor<R>) -> Result<Run<R>, Failure>
where
    R: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let troupe = Troupe::set_up(stage, place, 1, || Ok(vec![actor]))?;
    Ok(troupe.run(|mut reports| reports.pop().ok_or_else(|| "the actor is gone".into())))
}
