//! Spinning before the first sleep: for how long, and how densely to look.
//!
//! Two things are learned from how earlier waits of the handle went. Whether spinning helps at all:
//! it is given up step by step while it does not, and tried in full now and then. And how dense the
//! stream is: each look takes a cache line from whoever is about to write it, so one who finds a
//! message at nearly every look slows its sender down to the pace of two lines that bounce for each
//! message. Such a waiter lets some come together before it looks.
//!
//! # Source
//! Karlin, Li, Manasse and Owicki, "Empirical Studies of Competitive Spinning for a Shared-Memory
//! Multiprocessor" (1991); the pace is the exponential backoff of Anderson, "The Performance of
//! Spin Lock Alternatives for Shared-Memory Multiprocessors" (1990).

use crate::primitive::{AtomicU32, Ordering, spin_hint};
use crate::sync::wait::{Obstacle, Wait};
use crate::sys::clock::Deadline;

/// Rounds of spinning before the first sleep: the first guess, and the bounds within which it
/// adapts.
const SPIN_FIRST: u32 = 256;
const SPIN_LEAST: u32 = 16;
const SPIN_MOST: u32 = 2048;

/// Every so many waits a handle spins for as long as it ever does. Two that both sleep answer each
/// other so slowly that neither would find spinning worth while again.
const PROBE_EVERY: u32 = 16;

/// A wait is short that is over in so many rounds: less than a cache line takes there and back, so
/// it was no answer to anything that this side has done.
const SHORT: u32 = 2;
/// After so many short waits in a row this is a stream.
const SHORT_WAITS: u32 = 4;
/// Rounds of a lull, about two microseconds.
const LULL: u32 = 64;
/// The longest pace of a sender that waits for space. On a Xeon, family 6 model 207, a pause took
/// 22 to 31 ns, so this is about 1.5 to 2 microseconds, in which a receiver takes some 150
/// messages; a pause is of another length elsewhere.
const MOST_PACE: u64 = 64;

/// Rounds of spinning between looks at the clock and at the owner.
const SPIN_BLOCK: u32 = 1 << 14;

/// How a handle spins, and what it has learned. Private to the process.
#[derive(Debug)]
pub(crate) struct Patience {
    rounds: AtomicU32,
    waits: AtomicU32,
    /// Rounds between looks: at first, and at the most. Doubled in between.
    pace: (u32, u32),
    /// Short waits in a row, up to [`SHORT_WAITS`]: then this is a stream.
    short_waits: AtomicU32,
    /// Whether it lets messages of a stream come together.
    lulls: bool,
}

impl Patience {
    /// Looks in every round, but in a stream: for those who wait for messages.
    pub(crate) fn new() -> Patience {
        Patience { lulls: true, ..Patience::with_pace(1, 1) }
    }

    /// Looks after `first` rounds and ever less often, up to every `most` rounds: for those who
    /// slow down by each look whoever they wait for.
    pub(crate) fn with_pace(first: u32, most: u32) -> Patience {
        let zero = || AtomicU32::new(0);
        let pace = (first, most);
        Patience {
            rounds: AtomicU32::new(SPIN_FIRST),
            waits: zero(),
            pace,
            short_waits: zero(),
            lulls: false,
        }
    }

    /// For a sender that waits for one of `capacity` slots. It lets receivers free many, but not so
    /// many that they find the ring empty: looking at the very line that a receiver is working on
    /// cost two thirds of the throughput (8 bytes, 1,024 slots). Its message has all others before
    /// it anyway.
    pub(crate) fn for_space(capacity: u64) -> Patience {
        let pace = (capacity / 16).clamp(1, MOST_PACE) as u32;
        Patience::with_pace(pace, pace)
    }

    // Relaxed throughout: guesses that order nothing.
    fn rounds(&self, wait: Wait) -> u32 {
        match wait {
            Wait::Spin => u32::MAX,
            Wait::SpinThenSleep => {
                let waits = self.waits.load(Ordering::Relaxed).wrapping_add(1);
                self.waits.store(waits, Ordering::Relaxed);
                if waits.is_multiple_of(PROBE_EVERY) {
                    SPIN_MOST
                } else {
                    self.rounds.load(Ordering::Relaxed)
                }
            }
            Wait::Sleep => 0,
        }
    }

    /// Whether it lets messages come together before it looks.
    pub(crate) fn is_in_stream(&self) -> bool {
        self.lulls && self.short_waits.load(Ordering::Relaxed) >= SHORT_WAITS
    }

    /// Before a look at the other side's index, which may find many: in a stream, lets some come
    /// together.
    pub(crate) fn rest(&self) {
        if self.is_in_stream() {
            for _ in 0..LULL {
                spin_hint();
            }
        }
    }

    /// A look, or a wait, has found so many. One message is an answer, and no stream.
    pub(crate) fn found(&self, count: u64) {
        if count < 2 && self.is_in_stream() {
            self.dragged();
        }
    }

    /// Rounds before the first look of a wait.
    fn first_rest(&self) -> u32 {
        let (first, _) = self.pace;
        if self.is_in_stream() { first.max(LULL) } else { first }
    }

    /// The wait was not short.
    fn dragged(&self) {
        self.short_waits.store(0, Ordering::Relaxed);
    }

    /// The wait was over in this round: as soon as it could be, or later.
    fn ended(&self, round: u32) {
        let waits = self.short_waits.load(Ordering::Relaxed);
        if round > SHORT && round != self.first_rest() {
            self.dragged();
        } else if waits < SHORT_WAITS {
            self.short_waits.store(waits + 1, Ordering::Relaxed);
        }
    }

    /// Spinning for so many rounds has spared a sleep.
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

/// Tries for as long as `wait` and `patience` say, or until the deadline.
pub(crate) fn spin<R>(
    wait: Wait,
    patience: &Patience,
    deadline: Deadline,
    attempt: &mut impl FnMut(bool) -> Result<R, Obstacle>,
) -> Option<R> {
    let rounds = patience.rounds(wait);
    let (mut pace, most) = patience.pace;
    let mut rest = patience.first_rest();
    let mut round = 0;
    while round < rounds {
        for _ in 0..rest {
            spin_hint();
        }
        round += rest;
        let long = round % SPIN_BLOCK < rest;
        if let Ok(result) = attempt(long) {
            patience.ended(round);
            // How long to spin is a question only to those who may sleep instead.
            if wait == Wait::SpinThenSleep {
                patience.helped(round);
            }
            return Some(result);
        }
        if wait == Wait::Spin {
            // For ever, but not alone: now and then others may run, and the clock is looked at.
            if round % 64 < rest && deadline.passed() {
                return None;
            }
            if long {
                std::thread::yield_now();
                patience.dragged();
                round = 0;
            }
        }
        rest = pace;
        pace = (pace * 2).min(most);
    }
    if wait == Wait::SpinThenSleep {
        patience.dragged();
        patience.was_in_vain();
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A wait that is over at this look, counted from 1.
    fn wait(patience: &Patience, wait: Wait, over_at: u32) {
        let mut looks = 0;
        let over = spin(wait, patience, Deadline::NEVER, &mut |_| {
            looks += 1;
            if looks == over_at { Ok(()) } else { Err(Obstacle::Nobody) }
        });
        assert_eq!(over.is_some(), wait != Wait::Sleep);
    }

    fn rounds(patience: &Patience) -> u32 {
        patience.rounds.load(Ordering::Relaxed)
    }

    #[test]
    fn only_who_spins_before_it_sleeps_learns_for_how_long() {
        let patience = Patience::new();
        wait(&patience, Wait::Sleep, 1);
        assert_eq!(rounds(&patience), SPIN_FIRST, "one that sleeps at once has not spun in vain");
        wait(&patience, Wait::Spin, 2 * SPIN_MOST);
        assert_eq!(rounds(&patience), SPIN_FIRST, "one that never sleeps has no choice");
        wait(&patience, Wait::SpinThenSleep, SPIN_FIRST);
        assert_eq!(rounds(&patience), 2 * SPIN_FIRST);
    }

    #[test]
    fn short_waits_in_a_row_are_a_stream_until_one_message_is_all_there_is() {
        let patience = Patience::new();
        for _ in 0..SHORT_WAITS {
            assert!(!patience.is_in_stream());
            wait(&patience, Wait::Spin, SHORT);
        }
        assert!(patience.is_in_stream());
        wait(&patience, Wait::Spin, 1);
        patience.found(2);
        assert!(patience.is_in_stream(), "a lull after which there is more");
        patience.found(1);
        assert!(!patience.is_in_stream(), "an answer");
    }

    #[test]
    fn a_longer_wait_ends_a_stream_however_long_it_was() {
        for over_at in [SHORT + 1, SPIN_BLOCK - LULL + 2] {
            let patience = Patience::new();
            (0..SHORT_WAITS).for_each(|_| wait(&patience, Wait::Spin, 1));
            wait(&patience, Wait::Spin, over_at);
            assert!(!patience.is_in_stream(), "over at look {over_at}");
        }
    }

    #[test]
    fn those_who_wait_for_space_or_a_lock_have_no_stream() {
        for patience in [Patience::for_space(1), Patience::with_pace(1, 256)] {
            (0..2 * SHORT_WAITS).for_each(|_| wait(&patience, Wait::Spin, 1));
            assert!(!patience.is_in_stream());
        }
    }
}
