//! A lock word that names its owner: process and thread.
//!
//! ```text
//! word = thread:30 | owner:31 | HELD | DIED | POISONED
//!
//! 0 --lock: CAS--> HELD|me --unlock: store--> 0
//! HELD|dead --a waiter finds the owner dead: CAS--> HELD|me, which is told "owner died"
//! HELD|dead --the reaper: CAS--> DIED; the next to lock is told "owner died"
//! ```
//! `thread` is a number that the process gives each of its threads, so that a thread that locks
//! twice is told so. `POISONED` stays with a free lock until a guard says that the data is good
//! again. A lock that nobody holds names nobody.
//!
//! While a living process has the lock nobody else writes the word, so a plain store gives it up:
//! one read-modify-write for locking and unlocking together. Who waits says so in an
//! [event](super::event) beside the word and not in the word itself. The price is the sleeper's:
//! its heavy fence stands in for the one that the unlocker leaves out between its store and its
//! look at the event.
//!
//! # Orderings
//! Taking the lock is an Acquire, giving it up a Release of the same word: what the last owner
//! wrote is seen. Taking it from the dead is an Acquire too: the kernel says that an owner is dead
//! only after all its stores have happened.
//!
//! # Peer death
//! Exactly one successor is told that the owner died: the compare-and-swap that takes the word away
//! decides which. An owner killed between its store and its wake costs a waiter the rest of a
//! slice.
//!
//! # Source
//! The owner in the word is from robust futexes; unlocking by a store is from Dice, Huang and Yang,
//! "Asymmetric Dekker Synchronization" (2001), as their biased locks do it.

use crate::claim::{OWNER_BITS, OWNER_MASK};
use crate::primitive::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;

const POISONED_BIT: u64 = 1 << 0;
const DIED_BIT: u64 = 1 << 1;
const HELD_BIT: u64 = 1 << 2;
const OWNER_SHIFT: u32 = 3;
const THREAD_SHIFT: u32 = OWNER_SHIFT + OWNER_BITS;
const THREAD_BITS: u32 = 64 - THREAD_SHIFT;
/// Threads are numbered modulo this: a process that has started a billion of them may be told of a
/// deadlock that is none.
const THREADS: u64 = 1 << THREAD_BITS;

/// A thread of an attached process, as lock words name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) peer: u32,
    pub(crate) thread: u32,
}

impl Owner {
    fn held(self) -> u64 {
        HELD_BIT
            | (u64::from(self.peer) & OWNER_MASK) << OWNER_SHIFT
            | (u64::from(self.thread) & (THREADS - 1)) << THREAD_SHIFT
    }
}

fn owner_of(word: u64) -> Owner {
    Owner { peer: (word >> OWNER_SHIFT & OWNER_MASK) as u32, thread: (word >> THREAD_SHIFT) as u32 }
}

fn is_held(word: u64) -> bool {
    word & HELD_BIT != 0
}

/// In what state the data is that the lock was taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The last owner unlocked in good order.
    Clean,
    /// Somebody panicked with the lock, or died with it and no successor has said since that the
    /// data is good.
    Poisoned,
    /// The last owner was killed with the lock, and this is its successor.
    OwnerDied,
}

/// Why the lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody else has it.
    Held(HeldLock),
    /// This very thread has it.
    WouldDeadlock,
    /// The word holds what nobody writes.
    Corrupt,
}

/// A held lock, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldLock {
    word: u64,
}

impl HeldLock {
    /// The peer that holds it, as claim words name it.
    pub(crate) fn owner(&self) -> u32 {
        owner_of(self.word).peer
    }
}

/// The lock word in the segment.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct RawLock {
    word: AtomicU64,
}

impl RawLock {
    #[cfg(loom)]
    pub(crate) fn new() -> RawLock {
        RawLock { word: AtomicU64::new(0) }
    }

    /// A free lock, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        // Relaxed: published with whatever the lock belongs to.
        self.word.store(0, Ordering::Relaxed);
    }

    /// Takes a lock that is free and clean: one compare-and-swap.
    #[inline]
    pub(crate) fn lock_free(&self, me: Owner) -> bool {
        // Acquire pairs with the Release store in `unlock`.
        self.word.compare_exchange(0, me.held(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock if nobody has it.
    #[cold]
    pub(crate) fn try_lock(&self, me: Owner) -> Result<Acquired, Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if !is_held(word) && word & !(POISONED_BIT | DIED_BIT) != 0 {
                return Err(Refused::Corrupt);
            }
            if is_held(word) {
                let deadlock = owner_of(word) == owner_of(me.held());
                return Err(if deadlock {
                    Refused::WouldDeadlock
                } else {
                    Refused::Held(HeldLock { word })
                });
            }
            let acquired = if word & DIED_BIT != 0 {
                Acquired::OwnerDied
            } else if word & POISONED_BIT != 0 {
                Acquired::Poisoned
            } else {
                Acquired::Clean
            };
            // Acquire pairs with the Release store in `unlock` and the Release in `release_dead`.
            match self.word.compare_exchange(word, me.held(), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Ok(acquired),
                Err(now) => word = now,
            }
        }
    }

    /// Takes the lock from an owner that was judged dead after `held` was seen.
    #[cold]
    pub(crate) fn succeed(&self, me: Owner, held: HeldLock) -> bool {
        // Acquire: what the dead owner stored has happened before the kernel called it dead.
        self.word
            .compare_exchange(held.word, me.held(), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Frees the lock of the dead `peer`, leaving the news to whoever locks next; true if it had
    /// the lock. For the reaper, which then wakes whoever sleeps.
    pub(crate) fn release_dead(&self, peer: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if !is_held(word) || owner_of(word).peer != peer {
            return false;
        }
        // AcqRel: hands on what the dead owner stored. Losing the race means that a successor has
        // it.
        self.word.compare_exchange(word, DIED_BIT, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives the lock up. Only for its owner, who then notifies those who sleep.
    #[inline]
    pub(crate) fn unlock(&self, poisoned: bool) {
        let free = if poisoned { POISONED_BIT } else { 0 };
        // A store is enough: by the protocol the word changes under a living owner's hands only by
        // its own. Release pairs with the Acquire of the next owner: it sees what we wrote.
        self.word.store(free, Ordering::Release);
    }
}
