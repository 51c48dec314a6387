//! Several that want the same lock.

use std::time::Duration;

use crate::Failure;
use crate::acts::Latencies;
use crate::acts::stream::Window;
use crate::figures::Sample;
use crate::stage::{Actor, Place, Signals, Stage};

/// What a lock protects: a count, and when its holder gave it up after a pause.
pub(crate) type Protected = [u64; 2];
const COUNT: usize = 0;
const GIVEN_UP: usize = 1;

/// A lock to be measured.
pub(crate) trait Mutex: Send + 'static {
    /// Does something while holding the lock.
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R;
}

/// How long a holder that is not there keeps the lock, and how long it leaves it alone: about a
/// turn of the scheduler's.
const AWAY: Duration = Duration::from_millis(2);

fn want(mut mutex: impl Mutex, limit: Duration, signals: &Signals) -> (u64, u64, Sample) {
    signals.meet(1);
    let mut window = Window::new(signals.now(), limit);
    let mut latencies = Latencies::new();
    let mut count = 0;
    loop {
        let given_up = mutex.with(|protected| {
            protected[COUNT] += 1;
            std::mem::take(&mut protected[GIVEN_UP])
        });
        if given_up != 0 {
            latencies.record(signals.now().saturating_sub(Duration::from_nanos(given_up)));
        }
        count += 1;
        let is_over = window.is_due(count) && window.look(signals.now(), count);
        if is_over || signals.stopped() {
            break;
        }
    }
    signals.stop();
    let rate = window.rate();
    signals.meet(2);
    let total = mutex.with(|protected| protected[COUNT]);
    // Nobody gives the lock's memory up while another still looks at it.
    signals.meet(3);
    (count, total, latencies.sample(rate))
}

/// Takes the lock and is away, again and again, as one that loses its processor while it holds the
/// lock.
fn be_away(mut mutex: impl Mutex, signals: &Signals) -> (u64, u64, Sample) {
    signals.meet(1);
    while !signals.stopped() {
        mutex.with(|protected| {
            std::thread::sleep(AWAY);
            protected[GIVEN_UP] = signals.now().as_nanos() as u64;
        });
        std::thread::sleep(AWAY);
    }
    signals.meet(2);
    let total = mutex.with(|protected| protected[COUNT]);
    signals.meet(3);
    (0, total, Sample::default())
}

/// Millions of operations per second of `contenders` together; with `away`, beside one more that is
/// away while it holds the lock, and then p50, p99 and p99.9 of how long after it gave the lock up
/// another had it, in microseconds.
pub(crate) fn contend<M: Mutex + Clone>(
    stage: Stage,
    place: Place,
    limit: Duration,
    contenders: usize,
    away: bool,
    mutex: M,
) -> Result<Sample, Failure> {
    let results = stage.run(place, limit, {
        let mutex = mutex.clone();
        move || {
            let mut actors: Vec<Actor<(u64, u64, Sample)>> = Vec::new();
            for _ in 0..contenders {
                let mutex = mutex.clone();
                actors.push(Box::new(move |signals| want(mutex, limit, signals)));
            }
            if away {
                actors.push(Box::new(move |signals| be_away(mutex, signals)));
            }
            Ok(actors)
        }
    })?;
    // Until now, as one may be the owner of memory that the actors open.
    drop(mutex);
    let counted: u64 = results.iter().map(|(count, _, _)| count).sum();
    if let Some((_, total, _)) = results.iter().find(|(_, total, _)| *total != counted) {
        return Err(format!(
            "{counted} operations left a count of {total}: the lock does not exclude"
        )
        .into());
    }
    let rate =
        results.iter().take(contenders).map(|(_, _, sample)| sample.values[0]).sum::<f64>() / 1e6;
    if !away {
        return Ok(Sample::from(rate));
    }
    let mut latencies = Latencies::new();
    results.iter().for_each(|(_, _, sample)| latencies.merge(&sample.latencies));
    Ok(latencies.sample(rate))
}
