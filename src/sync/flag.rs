//! A flag that processes set, clear and wait for: the word of the user's [`Event`](crate::Event).
//!
//! It does not sleep. An [eventcount](super::event) beside it does that.
//!
//! # States
//! ```text
//! word = number of times that the flag was set or cleared:63 | is set:1
//!
//!            set: fetch_or(1)
//!     even ---------------------> odd
//!    (clear) <------------------ (set)
//!            clear, take: compare-and-swap, + 1
//! ```
//! To set a flag that is set already changes nothing, so several of these are one. A process may
//! stand anywhere: nobody owns the word, and each transition is one instruction. All bits of the
//! word are valid, so a word that was overwritten is a flag that is set or clear, and no error.
//!
//! A flag with *automatic reset* is taken: of all that wait, the one whose compare-and-swap clears
//! it goes on. One with *manual reset* is looked at. It stays set until it is cleared, and
//! everybody who began to wait before goes on even if it is cleared at once: the word is not the
//! one that they saw.
//!
//! # Orderings
//! - What was written before `set` is visible to everybody who finds the flag set, who takes it, or
//!   who finds that it was set meanwhile. `set` is a Release, the looks are Acquire.
//! - This holds for each of several `set`s that came to one. Every change is a read-modify-write,
//!   so all of them are in the release sequence of each. A plain store would hide the earlier ones.
//! - `clear` and `take` are Acquire, too: a process that clears the flag and then looks at what it
//!   stands for sees what was written before every `set` that it has cleared away.
//!
//! # Peer death
//! Killed before its instruction, a process has changed nothing; after it, everything. A flag that
//! was set stays set until a living process takes or clears it.
//!
//! # Source
//! Manual and automatic reset are those of Win32's event objects.

use crate::primitive::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;

const SET_BIT: u64 = 1;

/// The word in the segment.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Flag {
    word: AtomicU64,
}

/// How a flag is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// By [`Flag::clear`] only.
    Manual,
    /// By everyone who takes it, too.
    Auto,
}

/// What the word was at a look that found the flag clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

fn is_set(word: u64) -> bool {
    word & SET_BIT != 0
}

impl Flag {
    #[cfg(loom)]
    pub(crate) fn new() -> Flag {
        Flag { word: AtomicU64::new(0) }
    }

    /// A fresh flag, which is clear, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        // Relaxed: published with whatever the flag belongs to.
        self.word.store(0, Ordering::Relaxed);
    }

    /// Sets the flag.
    #[inline]
    pub(crate) fn set(&self) {
        // Release pairs with the Acquire of everybody who looks. Not a store, and not left out if
        // the flag is set: who finds it set then has seen what came before this call, too.
        self.word.fetch_or(SET_BIT, Ordering::Release);
    }

    /// Clears the flag.
    #[inline]
    pub(crate) fn clear(&self) {
        // Acquire, here and below, pairs with the Release of those that have set it.
        let seen = self.word.load(Ordering::Acquire);
        if is_set(seen) {
            // If this fails, somebody else has cleared the flag since, during this call.
            let next = seen.wrapping_add(1);
            let _ = self.word.compare_exchange(seen, next, Ordering::Acquire, Ordering::Acquire);
        }
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Acquire pairs with the Release in `set`.
        is_set(self.word.load(Ordering::Acquire))
    }

    /// Whether a waiter may go on that has seen the flag clear before, if it has. Takes the flag if
    /// it resets itself; else gives what the next look needs.
    #[inline]
    pub(crate) fn pass(&self, reset: Reset, before: Option<Seen>) -> Result<(), Seen> {
        // Acquire pairs with the Release in `set`. A word that was cleared since is in the same
        // release sequence.
        let seen = self.word.load(Ordering::Acquire);
        match reset {
            Reset::Manual if is_set(seen) => Ok(()),
            Reset::Manual => match before {
                Some(Seen(before)) if before != seen => Ok(()),
                _ => Err(Seen(seen)),
            },
            Reset::Auto if !is_set(seen) => Err(Seen(seen)),
            Reset::Auto => {
                let next = seen.wrapping_add(1);
                self.word
                    .compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed)
                    // Somebody else has taken it.
                    .map_or(Err(Seen(next)), |_| Ok(()))
            }
        }
    }
}
