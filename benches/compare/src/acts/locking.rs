//! Several that want the same lock.

use std::time::Duration;

use crate::Failure;
use crate::acts::window::Window;
use crate::acts::{BlockClock, Latencies};
use crate::figures::Sample;
use crate::slice::Slice;
use crate::stage::{Place, Stage};
use crate::troupe::{Actor, Run, Troupe};

/// What a lock protects: a count, and when its holder gave it up after a pause.
pub(crate) type Protected = [u64; 2];
const COUNT: usize = 0;
const GIVEN_UP: usize = 1;

/// A lock to be measured.
pub(crate) trait Mutex: Send + 'static {
    /// Does something while holding the lock.
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R;

    /// Tries to take the lock, gives it back at once if that succeeds, and says whether it was
    /// held.
    fn is_held(&mut self) -> bool;
}

/// How long a holder that is not there keeps the lock, and how long it leaves it alone: about a
/// turn of the scheduler's.
const AWAY: Duration = Duration::from_millis(2);

/// What an actor reports: how often it had the lock, the count in the lock's memory, its figures.
type Report = (u64, u64, Sample);

/// The count that the lock protects, once nobody adds to it any more.
fn total(mutex: &mut impl Mutex, slice: &mut Slice) -> u64 {
    slice.meet();
    mutex.with(|protected| protected[COUNT])
}

fn want(mutex: &mut impl Mutex, slice: &mut Slice) -> Report {
    slice.meet();
    let mut window = Window::new(slice.now(), slice.length());
    let mut latencies = Latencies::new();
    let mut count = 0;
    loop {
        let given_up = mutex.with(|protected| {
            protected[COUNT] += 1;
            std::mem::take(&mut protected[GIVEN_UP])
        });
        if given_up != 0 {
            latencies.record(slice.now().saturating_sub(Duration::from_nanos(given_up)));
        }
        count += 1;
        let is_over = window.is_due(count) && window.look(slice.now(), count);
        if is_over || slice.stopped() {
            break;
        }
    }
    slice.stop();
    let rate = window.rate(slice.now(), count);
    (count, total(mutex, slice), latencies.sample(rate))
}

/// Takes the lock and is away, again and again, as one that loses its processor while it holds the
/// lock.
fn be_away(mutex: &mut impl Mutex, slice: &mut Slice) -> Report {
    slice.meet();
    while !slice.stopped() {
        mutex.with(|protected| {
            std::thread::sleep(AWAY);
            protected[GIVEN_UP] = slice.now().as_nanos() as u64;
        });
        std::thread::sleep(AWAY);
    }
    (0, total(mutex, slice), Sample::default())
}

/// Holds the lock, asleep, until the slice is stopped.
fn hold(mutex: &mut impl Mutex, slice: &mut Slice) {
    mutex.with(|_| {
        slice.meet();
        while !slice.stopped() {
            std::thread::sleep(AWAY);
        }
    });
}

/// Millions of operations per second of `contenders` together; with `away`, beside one more that is
/// away while it holds the lock, and then p50, p99 and p99.9 of how long after it gave the lock up
/// another had it, in microseconds.
pub(crate) fn contend<M: Mutex + Clone>(
    stage: Stage,
    place: Place,
    contenders: usize,
    away: bool,
    mutex: M,
) -> Result<Run<Sample>, Failure> {
    let actors = contenders + usize::from(away);
    let troupe = Troupe::set_up(stage, place, actors, {
        let mutex = mutex.clone();
        move || {
            let actor = |index| -> Actor<Report> {
                let mut mutex = mutex.clone();
                Box::new(move || {
                    Box::new(move |slice| match index < contenders {
                        true => want(&mut mutex, slice),
                        false => be_away(&mut mutex, slice),
                    })
                })
            };
            Ok((0..actors).map(actor).collect())
        }
    })?;
    let mut before = 0;
    Ok(troupe.run(move |results| {
        // Kept as long as the actors, as one may be the owner of memory that they open.
        let _kept = &mutex;
        let counted: u64 = before + results.iter().map(|(count, _, _)| count).sum::<u64>();
        if let Some((_, total, _)) = results.iter().find(|(_, total, _)| *total != counted) {
            return Err(format!(
                "{counted} operations left a count of {total}: the lock does not exclude"
            )
            .into());
        }
        before = counted;
        let rates = results.iter().take(contenders).map(|(_, _, sample)| sample.values[0]);
        let rate = rates.sum::<f64>() / 1e6;
        if !away {
            return Ok(Sample::from(rate));
        }
        let mut latencies = Latencies::new();
        results.iter().for_each(|(_, _, sample)| latencies.merge(&sample.latencies));
        Ok(latencies.sample(rate))
    }))
}

/// Nanoseconds to find out that the lock is held, by another that sleeps on the other core.
pub(crate) fn refuse<M: Mutex + Clone>(
    stage: Stage,
    place: Place,
    mutex: M,
) -> Result<Run<f64>, Failure> {
    let troupe = Troupe::set_up(stage, place, 2, {
        let (mut held, mut wanted) = (mutex.clone(), mutex.clone());
        move || {
            let actors: Vec<Actor<f64>> = vec![
                Box::new(move || {
                    Box::new(move |slice| {
                        hold(&mut held, slice);
                        0.0
                    })
                }),
                Box::new(move || {
                    let mut clock = BlockClock::new();
                    Box::new(move |slice| {
                        slice.meet();
                        clock.begin(slice.length());
                        let mut count = 0;
                        while !clock.after(count) {
                            assert!(wanted.is_held(), "the other holds the lock");
                            count += 1;
                        }
                        slice.stop();
                        clock.seconds() * 1e9
                    })
                }),
            ];
            Ok(actors)
        }
    })?;
    Ok(troupe.run(move |mut results| {
        let _kept = &mutex;
        results.pop().ok_or_else(|| "nobody has tried".into())
    }))
}
