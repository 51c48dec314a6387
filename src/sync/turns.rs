//! How often a lock changes hands, or is taken by the same owner again, counted while a waiter
//! wants to know.
//!
//! A waiter begins a count and looks at it later. Only owners count, one for each turn, and a count
//! ends by itself after [`MOST`]. So owners pay for it only while somebody waits, and a waiter that
//! is killed leaves nothing behind.
//!
//! The count is a guess: a waiter may begin anew while an owner adds one, and then either write may
//! be lost.

use crate::primitive::{AtomicU32, Ordering};

/// No count goes beyond this.
pub(crate) const MOST: u32 = 2048;

/// The word in the segment: below zero while it counts.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Turns {
    word: AtomicU32,
}

// Relaxed throughout: a guess, which orders nothing.
impl Turns {
    /// Not counting, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    /// One turn more. Only for the owner of the lock.
    #[inline]
    pub(crate) fn add(&self) {
        if (self.word.load(Ordering::Relaxed) as i32) < 0 {
            self.add_to_count();
        }
    }

    // Not a read-modify-write, as nearly always nobody else writes the word.
    #[cold]
    fn add_to_count(&self) {
        self.word.store(self.word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The turns since the last call, by whichever waiter, and begins a new count.
    pub(crate) fn take(&self) -> u32 {
        let count = self.word.load(Ordering::Relaxed).wrapping_add(MOST).min(MOST);
        self.word.store(MOST.wrapping_neg(), Ordering::Relaxed);
        count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_between_two_looks_and_stops_by_itself() {
        let turns = Turns { word: AtomicU32::new(0) };
        turns.add();
        assert_eq!(turns.word.load(Ordering::Relaxed), 0, "nobody wants to know");
        turns.take();
        (0..3).for_each(|_| turns.add());
        assert_eq!(turns.take(), 3);
        assert_eq!(turns.take(), 0);
        (0..2 * MOST).for_each(|_| turns.add());
        assert_eq!(turns.word.load(Ordering::Relaxed), 0);
        assert_eq!(turns.take(), MOST);
        turns.word.store(77, Ordering::Relaxed);
        assert_eq!(turns.take(), MOST, "a word that this crate never writes");
    }
}
