//! The one blocking loop: try, spin a little, announce, try again, sleep for a slice, look whether the owner lives.
//!
//! Every sleep ends after at most [`LONGEST_SLICE`]. That is the one cure for all that a kill can do to a wake-up: a peer killed
//! between its store and its wake costs the sleeper the rest of a slice, and nothing else.

use std::time::Duration;

use crate::primitive::{AtomicU32, Ordering, spin_hint};
use crate::sync::event::EventRef;
use crate::sys::clock::Deadline;

/// No sleep is longer.
const LONGEST_SLICE: Duration = Duration::from_millis(50);
/// No sleep is longer while a living process is in the way: it may die at any time, and nobody wakes us then.
const LONGEST_SLICE_BEHIND_OWNER: Duration = Duration::from_millis(10);
/// The first is no shorter than the scheduler's tick (4 ms at 250 a second): an earlier end needs a timer of its own, with which a sleep and
/// its wake-up took 9 microseconds longer on a virtual machine, half as long again.
const FIRST_SLICE: Duration = Duration::from_millis(10);

/// Rounds of spinning before the first sleep: the first guess, and the bounds within which it adapts.
const SPIN_FIRST: u32 = 256;
const SPIN_LEAST: u32 = 16;
const SPIN_MOST: u32 = 2048;

/// How a blocked operation of a handle waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Never sleeps: the shortest reaction (well under a microsecond), and a processor kept busy. It gives way to other
    /// processes now and then.
    Spin,
    /// Spins a little, then sleeps. How long it spins adapts to whether spinning has helped lately.
    #[default]
    SpinThenSleep,
    /// Sleeps at once: reacts within tens of microseconds, and leaves the processor to others.
    Sleep,
}

/// What stands in the way of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nobody in particular: nothing is there, or no room.
    Nobody,
    /// A slot or lock that some process has claimed.
    Owner,
}

/// Every so many waits a handle spins for as long as it ever does. Two that both sleep answer each other so slowly that neither
/// would find spinning worth while again.
const PROBE_EVERY: u32 = 16;

/// How a handle spins: how long is adapted to whether that has helped lately. Private to the process.
#[derive(Debug)]
pub(crate) struct Patience {
    rounds: AtomicU32,
    waits: AtomicU32,
    /// Rounds between attempts: at first, and at the most. Doubled in between.
    pace: (u32, u32),
}

impl Patience {
    /// Tries in every round.
    pub(crate) fn new() -> Patience {
        Patience::with_pace(1, 1)
    }

    /// Tries after `first` rounds and ever less often, up to every `most` rounds: for those who slow down by each look whoever they
    /// wait for.
    pub(crate) fn with_pace(first: u32, most: u32) -> Patience {
        let pace = (first, most);
        Patience { rounds: AtomicU32::new(SPIN_FIRST), waits: AtomicU32::new(0), pace }
    }

    // Relaxed throughout: guesses that order nothing.
    fn rounds(&self, wait: Wait) -> u32 {
        match wait {
            Wait::Spin => u32::MAX,
            Wait::SpinThenSleep => {
                let waits = self.waits.load(Ordering::Relaxed).wrapping_add(1);
                self.waits.store(waits, Ordering::Relaxed);
                if waits.is_multiple_of(PROBE_EVERY) { SPIN_MOST } else { self.rounds.load(Ordering::Relaxed) }
            }
            Wait::Sleep => 0,
        }
    }

    /// Spinning has succeeded in this round.
    fn helped(&self, round: u32) {
        let enough = (round * 2).min(SPIN_MOST);
        if self.rounds.load(Ordering::Relaxed) < enough {
            self.rounds.store(enough, Ordering::Relaxed);
        }
    }

    fn was_in_vain(&self) {
        let rounds = self.rounds.load(Ordering::Relaxed);
        if rounds > SPIN_LEAST {
            self.rounds.store((rounds / 2).max(SPIN_LEAST), Ordering::Relaxed);
        }
    }
}

/// Tries until `attempt` succeeds or the deadline has passed (`None`).
///
/// `attempt` is told whether to look if the owner in its way still lives, which costs system calls, and does so at the end of
/// slices only. It was called at least once before, and is called a last time after the deadline.
pub(crate) fn wait<R>(
    event: EventRef<'_>,
    wait: Wait,
    patience: &Patience,
    deadline: Deadline,
    mut attempt: impl FnMut(bool) -> Result<R, Obstacle>,
) -> Option<R> {
    if let Some(result) = spin(wait, patience, deadline, &mut attempt) {
        return Some(result);
    }
    let mut slice = FIRST_SLICE;
    let mut check_owner = false;
    loop {
        let announced = event.announce();
        let obstacle = match attempt(check_owner) {
            Ok(result) => return Some(result),
            Err(obstacle) => obstacle,
        };
        let longest = match obstacle {
            Obstacle::Nobody => LONGEST_SLICE,
            Obstacle::Owner => LONGEST_SLICE_BEHIND_OWNER,
        };
        let Some(time) = deadline.clip(slice.min(longest)) else {
            return attempt(true).ok();
        };
        event.sleep(announced, time);
        check_owner = true;
        slice = (slice * 2).min(LONGEST_SLICE);
    }
}

/// Rounds of spinning between looks at the clock and at the owner.
const SPIN_BLOCK: u32 = 1 << 14;

fn spin<R>(
    wait: Wait,
    patience: &Patience,
    deadline: Deadline,
    attempt: &mut impl FnMut(bool) -> Result<R, Obstacle>,
) -> Option<R> {
    let rounds = patience.rounds(wait);
    let (mut pace, most_pace) = patience.pace;
    let mut round = 0;
    while round < rounds {
        for _ in 0..pace {
            spin_hint();
        }
        round += pace;
        let long = round % SPIN_BLOCK < pace;
        if let Ok(result) = attempt(long) {
            if wait == Wait::SpinThenSleep {
                patience.helped(round);
            }
            return Some(result);
        }
        if wait == Wait::Spin {
            // For ever, but not alone: now and then others may run, and the clock is looked at.
            if round % 64 < pace && deadline.passed() {
                return None;
            }
            if long {
                std::thread::yield_now();
                round = 0;
            }
        }
        pace = (pace * 2).min(most_pace);
    }
    if wait == Wait::SpinThenSleep {
        patience.was_in_vain();
    }
    None
}
