//! Spinning before the first sleep: for how long to spin, and how often to look.
//!
//! A handle learns two things from its earlier waits. The first is whether spinning helps: while it
//! does not, the handle spins less and less, and tries the full length now and then. The second is
//! how dense the stream of messages is. Each look takes a cache line from the process that is about
//! to write it. A receiver that finds a message at nearly every look slows its sender down to the
//! pace of two cache lines that bounce for each message. Such a receiver waits until several
//! messages have come before it looks.
//!
//! # Source
//! Karlin, Li, Manasse and Owicki, "Empirical Studies of Competitive Spinning for a Shared-Memory
//! Multiprocessor" (1991); the pace is the exponential backoff of Anderson, "The Performance of
//! Spin Lock Alternatives for Shared-Memory Multiprocessors" (1990).

use crate::primitive::{AtomicU32, Ordering, spin_hint};
use crate::sync::wait::{Obstacle, Wait};
use crate::sys::clock::Deadline;

/// Rounds of spinning before the first sleep: the first guess, and the bounds of its adaptation.
const SPIN_FIRST: u32 = 256;
const SPIN_LEAST: u32 = 16;
const SPIN_MOST: u32 = 2048;

/// Once in this many waits a handle spins for the longest time. Otherwise two processes that both
/// sleep would answer each other so slowly that spinning never helps either of them again.
const PROBE_EVERY: u32 = 16;

/// A wait is short if it is over in this many rounds. That is less time than a cache line takes
/// there and back, so the message was no answer to anything that this side has done.
const SHORT: u32 = 2;
/// After this many short waits in a row, messages come in a stream.
const SHORT_WAITS: u32 = 4;
/// Rounds of a pause in which messages of a stream come together: about two microseconds.
const STREAM_PAUSE: u32 = 64;
/// The most rounds between two looks of a sender that waits for space. On a Xeon, family 6 model
/// 207, a round took 22 to 31 ns, so this is about 1.5 to 2 microseconds, in which a receiver takes
/// some 150 messages. On other processors a round takes another time.
const MOST_PACE: u64 = 64;

/// Rounds between looks of a waiter at a crowded lock, at first and at most: 6 to 48 microseconds
/// on an EPYC, family 25 model 17, where a round took 24 ns. A lock is crowded if its owners take
/// it at least once in a round. That is less time than its cache line takes to another processor,
/// so all of them together are fastest while one of them keeps the line. A waiter then leaves an
/// owner alone for a while, and yields its processor, as the owner may need that one.
const CROWDED_PACE: (u32, u32) = (256, 1984);
/// What a look itself takes at most, in rounds: owners go on meanwhile.
const LOOK: u32 = 16;

/// Rounds of spinning between checks whether the owner is alive.
const SPIN_BLOCK: u32 = 1 << 14;

/// How a handle spins, and what it has learned. Private to the process.
#[derive(Debug)]
pub(crate) struct Patience {
    rounds: AtomicU32,
    waits: AtomicU32,
    /// Rounds between looks, at first and at most, unless a lock is crowded. They double in
    /// between.
    pace: (u32, u32),
    /// Number of short waits in a row, up to [`SHORT_WAITS`], which means a stream.
    short_waits: AtomicU32,
    /// Whether it pauses in a stream to let messages come together.
    pauses_in_stream: bool,
    /// 1 while the lock is crowded.
    crowded: AtomicU32,
}

impl Patience {
    /// Looks in every round, except in a stream. For receivers, which wait for messages.
    pub(crate) fn new() -> Patience {
        Patience { pauses_in_stream: true, ..Patience::with_pace(1, 1) }
    }

    /// Looks after `first` rounds and then less and less often, up to every `most` rounds. For
    /// waiters that slow down the process they wait for by each look.
    pub(crate) fn with_pace(first: u32, most: u32) -> Patience {
        let zero = || AtomicU32::new(0);
        let pace = (first, most);
        Patience {
            rounds: AtomicU32::new(SPIN_FIRST),
            waits: zero(),
            pace,
            short_waits: zero(),
            pauses_in_stream: false,
            crowded: zero(),
        }
    }

    /// For a waiter at a lock, which takes the cache line from the owner by each look, and the lock
    /// as well if it finds it free. The pause doubles, so a waiter waits at most twice as long as
    /// it must. Two processes that did nothing but lock came to 11 million turns a second with a
    /// look in every round, and to 34 million with this pace (a Xeon, family 6 model 207).
    ///
    /// See [`CROWDED_PACE`] for a lock that its owner takes again and again.
    pub(crate) fn for_lock() -> Patience {
        Patience::with_pace(1, 256)
    }

    /// For a sender that waits for one of `capacity` slots. It lets receivers free many slots, but
    /// not so many that they find the ring empty. Looking at the cache line that a receiver is
    /// working on cost two thirds of the throughput (8 bytes, 1,024 slots). The pause does not
    /// delay its message, which comes after all others in the ring anyway.
    pub(crate) fn for_space(capacity: u64) -> Patience {
        let pace = (capacity / 16).clamp(1, MOST_PACE) as u32;
        Patience::with_pace(pace, pace)
    }

    // Relaxed throughout: these are guesses, and order nothing.
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

    /// Whether it pauses before a look, to let messages come together.
    pub(crate) fn is_in_stream(&self) -> bool {
        self.pauses_in_stream && self.short_waits.load(Ordering::Relaxed) >= SHORT_WAITS
    }

    /// For use before a look at the other side's index, which may find many messages. In a stream,
    /// pauses to let some come together.
    pub(crate) fn pause_in_stream(&self) {
        if self.is_in_stream() {
            for _ in 0..STREAM_PAUSE {
                spin_hint();
            }
        }
    }

    /// Takes note that a look or a wait has found `count` messages. A single message is an answer,
    /// and ends a stream.
    pub(crate) fn found(&self, count: u64) {
        if count < 2 && self.is_in_stream() {
            self.end_stream();
        }
    }

    /// Whether the lock goes round faster than its cache line.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed) != 0
    }

    /// Judges a lock that was taken so often between two looks, with this pause between them.
    fn judge_crowd(&self, pause: u32, turns: u32) -> bool {
        let was_crowded = self.is_crowded();
        let enough = if was_crowded { pause } else { pause + LOOK };
        let is_crowded = turns > enough;
        if is_crowded != was_crowded {
            self.crowded.store(u32::from(is_crowded), Ordering::Relaxed);
        }
        is_crowded
    }

    /// Rounds between looks: at first and at most.
    fn pace(&self, is_crowded: bool) -> (u32, u32) {
        if is_crowded { CROWDED_PACE } else { self.pace }
    }

    /// Rounds before the first look of a wait.
    fn first_pause(&self) -> u32 {
        let (first, _) = self.pace(self.is_crowded());
        if self.is_in_stream() { first.max(STREAM_PAUSE) } else { first }
    }

    /// Takes note that a wait was not short.
    fn end_stream(&self) {
        self.short_waits.store(0, Ordering::Relaxed);
    }

    /// Takes note that the wait was over in this round: at the first look, or later.
    fn ended(&self, round: u32) {
        let waits = self.short_waits.load(Ordering::Relaxed);
        if round > SHORT && round != self.first_pause() {
            self.end_stream();
        } else if waits < SHORT_WAITS {
            self.short_waits.store(waits + 1, Ordering::Relaxed);
        }
    }

    /// Takes note that spinning for this many rounds has spared a sleep.
    fn helped(&self, round: u32) {
        let enough = (round * 2).min(SPIN_MOST);
        if self.rounds.load(Ordering::Relaxed) < enough {
            self.rounds.store(enough, Ordering::Relaxed);
        }
    }

    fn did_not_help(&self) {
        let rounds = self.rounds.load(Ordering::Relaxed);
        if rounds > SPIN_LEAST {
            self.rounds.store((rounds / 2).max(SPIN_LEAST), Ordering::Relaxed);
        }
    }
}

/// Rounds that a crowded lock is worth: it is free again and again.
fn least_rounds(wait: Wait, is_crowded: bool) -> u32 {
    if is_crowded && wait != Wait::Sleep { SPIN_MOST } else { 0 }
}

/// Tries for as long as `wait` and `patience` say, or until the deadline.
pub(crate) fn spin<R>(
    wait: Wait,
    patience: &Patience,
    deadline: Deadline,
    attempt: &mut impl FnMut(bool) -> Result<R, Obstacle>,
) -> Option<R> {
    let mut is_crowded = patience.is_crowded();
    let mut rounds = patience.rounds(wait).max(least_rounds(wait, is_crowded));
    let (mut pace, mut most) = patience.pace(is_crowded);
    let mut pause = patience.first_pause();
    let mut round = 0;
    while round < rounds {
        for _ in 0..pause {
            spin_hint();
        }
        if is_crowded {
            // The owner may be waiting for this processor.
            std::thread::yield_now();
        }
        round += pause;
        let long = round % SPIN_BLOCK < pause;
        match attempt(long) {
            Ok(result) => {
                patience.ended(round);
                // Only a waiter that may sleep instead learns how long to spin.
                if wait == Wait::SpinThenSleep {
                    patience.helped(round);
                }
                return Some(result);
            }
            Err(Obstacle::Turns(turns)) => {
                let was_crowded = is_crowded;
                is_crowded = patience.judge_crowd(pause, turns);
                if is_crowded != was_crowded {
                    (pace, most) = patience.pace(is_crowded);
                    rounds = rounds.max(least_rounds(wait, is_crowded));
                }
            }
            Err(Obstacle::Nobody | Obstacle::Owner) => {}
        }
        // Here the spinning may take long: without end, or as others run.
        if (wait == Wait::Spin || is_crowded) && round % 64 < pause && deadline.passed() {
            return None;
        }
        if wait == Wait::Spin && long {
            std::thread::yield_now();
            patience.end_stream();
            round = 0;
        }
        pause = pace;
        pace = (pace * 2).min(most);
    }
    if wait == Wait::SpinThenSleep {
        patience.end_stream();
        if !is_crowded {
            patience.did_not_help();
        }
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::turns;

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
    fn only_a_waiter_that_may_sleep_learns_how_long_to_spin() {
        let patience = Patience::new();
        wait(&patience, Wait::Sleep, 1);
        assert_eq!(rounds(&patience), SPIN_FIRST, "one that sleeps at once has not spun");
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
        assert!(patience.is_in_stream(), "a pause after which there is more");
        patience.found(1);
        assert!(!patience.is_in_stream(), "an answer");
    }

    #[test]
    fn a_longer_wait_ends_a_stream_however_long_it_was() {
        for over_at in [SHORT + 1, SPIN_BLOCK - STREAM_PAUSE + 2] {
            let patience = Patience::new();
            (0..SHORT_WAITS).for_each(|_| wait(&patience, Wait::Spin, 1));
            wait(&patience, Wait::Spin, over_at);
            assert!(!patience.is_in_stream(), "over at look {over_at}");
        }
    }

    /// Looks in a wait at a lock that was taken so often between any two of them, and is never
    /// free.
    fn looks(patience: &Patience, wait: Wait, turns: u32) -> u32 {
        let mut looks = 0;
        let over = spin(wait, patience, Deadline::NEVER, &mut |_| {
            looks += 1;
            Err::<(), _>(Obstacle::Turns(turns))
        });
        assert_eq!(over, None);
        looks
    }

    #[test]
    fn a_waiter_at_a_crowded_lock_looks_seldom_and_does_not_learn_to_sleep() {
        let patience = Patience::for_lock();
        let (first, most) = CROWDED_PACE;
        assert!(most + LOOK < turns::MOST, "a count can tell");
        let calm = looks(&patience, Wait::SpinThenSleep, 1 + LOOK);
        assert!(calm > SPIN_FIRST.ilog2(), "early looks");
        assert_eq!(rounds(&patience), SPIN_FIRST / 2);
        assert!(!patience.is_crowded());

        looks(&patience, Wait::SpinThenSleep, turns::MOST);
        assert!(patience.is_crowded());
        let crowded = looks(&patience, Wait::SpinThenSleep, turns::MOST);
        assert!((SPIN_MOST / most..=SPIN_MOST / first).contains(&crowded), "{crowded} looks");
        assert_eq!(rounds(&patience), SPIN_FIRST / 2, "spinning is not given up");
        assert_eq!(looks(&patience, Wait::Sleep, turns::MOST), 0);

        looks(&patience, Wait::SpinThenSleep, 0);
        assert!(!patience.is_crowded(), "an owner that keeps it");
    }

    #[test]
    fn a_waiter_at_a_crowded_lock_sees_its_deadline_pass() {
        let patience = Patience::for_lock();
        let mut looks = 0;
        let over = spin(Wait::Spin, &patience, Deadline::after(Duration::ZERO), &mut |_| {
            looks += 1;
            Err::<(), _>(Obstacle::Turns(turns::MOST))
        });
        assert_eq!((over, looks), (None, 2), "the first look finds it crowded");
    }

    #[test]
    fn those_who_wait_for_space_or_a_lock_have_no_stream() {
        for patience in [Patience::for_space(1), Patience::for_lock()] {
            (0..2 * SHORT_WAITS).for_each(|_| wait(&patience, Wait::Spin, 1));
            assert!(!patience.is_in_stream());
        }
    }
}
