//! What every worker has: it records what it does, sometimes lingers, and may run into a limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::Wait;

use crate::arena::{Arena, Object};
use crate::fate::{Burden, Fate};
use crate::ledger::{Ledger, Row, Sample, Tally, now};
use crate::random::Random;

/// From this time on an operation counts as blocked.
const BLOCKED: u64 = 100_000;

/// What every worker has.
#[derive(Debug)]
pub struct Post {
    pub arena: Arc<Arena>,
    pub object: Object,
    pub random: Random,
    number: usize,
    burden: Burden,
}

impl Post {
    pub fn new(arena: Arc<Arena>, object: Object, number: usize, seed: u64, fate: Fate) -> Post {
        Post { arena, object, random: Random::new(seed), number, burden: Burden::new(fate) }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.arena.ledger
    }

    pub fn tally(&self) -> &Tally {
        self.arena.ledger.tally(self.object)
    }

    pub fn row(&self) -> &Row {
        &self.arena.ledger.rows[self.number]
    }

    /// The number by which this worker is known in the ledger; never 0.
    pub fn id(&self) -> u64 {
        self.number as u64 + 1
    }

    pub fn is_stopping(&self) -> bool {
        self.ledger().stop.load(Ordering::Acquire) > 0
    }

    /// Does one operation. If somebody was killed while it was blocked, the time from there on is
    /// noted, unless a process that was stopped may have been in the way.
    pub fn run<R>(&self, name: &str, operation: impl FnOnce() -> R) -> R {
        let (ledger, tally) = (self.ledger(), self.tally());
        self.row().doing.store(letters(name), Ordering::Relaxed);
        let (kills, start) = (tally.kills(), now());
        let result = operation();
        let end = now();
        if end - start > BLOCKED
            && tally.kills() > kills
            && ledger.stopped.load(Ordering::Relaxed) == 0
            && ledger.went_on_at.load(Ordering::Relaxed) < start
        {
            let nanoseconds = end.saturating_sub(tally.killed_at(kills)).max(1);
            ledger.note_sample(Sample {
                nanoseconds,
                object: self.object,
                operation: letters(name),
            });
        }
        self.row().progress.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Notes that up to `count` messages may be taken from now on and not be noted yet.
    pub fn take_in_hand(&self, count: u64) {
        // SeqCst, so that the compiler moves it neither before what comes before nor behind what
        // comes after.
        self.row().in_hand.store(count, Ordering::SeqCst);
    }

    /// With something in its hands: takes its time now and then, and bears its fate.
    pub fn linger(&mut self) {
        if self.random.once_in(16) && !self.is_stopping() {
            self.burden.bear();
        }
        match self.random.below(256) {
            0 => std::thread::sleep(Duration::from_micros(self.random.below(2000))),
            1..8 => std::thread::yield_now(),
            _ => {}
        }
    }

    /// With nothing in its hands: leaves the others alone now and then.
    pub fn rest(&mut self) {
        if self.random.once_in(512) {
            std::thread::sleep(Duration::from_micros(self.random.below(1000)));
        }
    }

    /// A time to wait: mostly short, sometimes longer than any slice of sleep.
    pub fn some_time(&mut self) -> Duration {
        Duration::from_micros(1 << self.random.below(18))
    }

    /// A way to wait.
    pub fn some_wait(&mut self) -> Wait {
        match self.random.below(16) {
            0 => Wait::Spin,
            1..8 => Wait::Sleep,
            _ => Wait::SpinThenSleep,
        }
    }
}

/// The first eight letters of a name as a number.
fn letters(name: &str) -> u64 {
    let mut bytes = [0; 8];
    let len = name.len().min(8);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    u64::from_le_bytes(bytes)
}

/// The name that [`letters`] made a number of.
pub fn name(letters: u64) -> String {
    String::from_utf8_lossy(&letters.to_le_bytes()).trim_end_matches('\0').to_owned()
}
