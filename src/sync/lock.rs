//! A lock word that names its owner: process and thread.
//!
//! ```text
//! word = thread:32 | owner:20 | reserved:8 | HELD | DIED | POISONED | WAITERS
//!
//! 0 --lock: CAS--> HELD|me --unlock: swap--> 0, then wake one if WAITERS was set
//! HELD|dead --a waiter finds the owner dead: CAS--> HELD|me, which is told "owner died"
//! HELD|dead --the reaper: CAS--> DIED, then wake one; the next to lock is told "owner died"
//! ```
//! `thread` is a number that the process gives each of its threads, so that a thread that locks twice is told so. `POISONED` stays
//! with a free lock until a guard says that the data is good again. A waiter that gets the lock keeps `WAITERS` set, as there may be
//! others; it costs at most one wake-up of nobody.
//!
//! # Orderings
//! Taking the lock is an Acquire, giving it up a Release of the same word: what the last owner wrote is seen. Taking it from the
//! dead is an Acquire too: the kernel says that an owner is dead only after all its stores have happened.
//!
//! # Peer death
//! Exactly one successor is told that the owner died: the compare-and-swap that takes the word away decides which. An owner killed
//! between its swap and its wake costs a waiter the rest of a slice.
//!
//! # Source
//! Drepper, "Futexes Are Tricky" (2004), mutex 2; the owner in the word is from robust futexes.

use std::time::Duration;

use crate::primitive::Ordering;
use crate::sync::wait::Parking;
use crate::sys::futex::Word64;

#[cfg(all(test, loom))]
mod loom_tests;

const WAITERS_BIT: u64 = 1 << 0;
const POISONED_BIT: u64 = 1 << 1;
const DIED_BIT: u64 = 1 << 2;
const HELD_BIT: u64 = 1 << 3;
const OWNER_SHIFT: u32 = 12;
const OWNER_MASK: u64 = (1 << 20) - 1;
const THREAD_SHIFT: u32 = 32;
const UNUSED_BITS: u64 = ((1 << OWNER_SHIFT) - 1) & !(WAITERS_BIT | POISONED_BIT | DIED_BIT | HELD_BIT);

/// A thread of an attached process, as lock words name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) peer: u32,
    pub(crate) thread: u32,
}

impl Owner {
    fn held(self) -> u64 {
        HELD_BIT | (u64::from(self.peer) & OWNER_MASK) << OWNER_SHIFT | u64::from(self.thread) << THREAD_SHIFT
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
    /// Somebody panicked with the lock, or died with it and no successor has said since that the data is good.
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
    word: Word64,
}

impl RawLock {
    #[cfg(loom)]
    pub(crate) fn new() -> RawLock {
        RawLock { word: Word64::new(0) }
    }

    /// A free lock, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        // Relaxed: published with whatever the lock belongs to.
        self.word.store(0, Ordering::Relaxed);
    }

    /// Takes a lock that is free and clean: one compare-and-swap.
    #[inline]
    pub(crate) fn lock_free(&self, me: Owner) -> bool {
        // Acquire pairs with the Release swap in `unlock`.
        self.word.compare_exchange(0, me.held(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock if nobody has it. `waited` says that the caller has slept on it, so that others may still sleep.
    #[cold]
    pub(crate) fn try_lock(&self, me: Owner, waited: bool) -> Result<Acquired, Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & UNUSED_BITS != 0 {
                return Err(Refused::Corrupt);
            }
            if is_held(word) {
                let deadlock = owner_of(word) == me;
                return Err(if deadlock { Refused::WouldDeadlock } else { Refused::Held(HeldLock { word }) });
            }
            let acquired = if word & DIED_BIT != 0 {
                Acquired::OwnerDied
            } else if word & POISONED_BIT != 0 {
                Acquired::Poisoned
            } else {
                Acquired::Clean
            };
            let waiters = if waited { WAITERS_BIT } else { word & WAITERS_BIT };
            // Acquire pairs with the Release swap in `unlock` and the Release in `release_dead`.
            match self.word.compare_exchange(word, me.held() | waiters, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(acquired),
                Err(now) => word = now,
            }
        }
    }

    /// Takes the lock from an owner that was judged dead after `held` was seen.
    #[cold]
    pub(crate) fn succeed(&self, me: Owner, held: HeldLock) -> bool {
        // Others may sleep behind the dead owner, whether they said so in this word or not.
        let mine = me.held() | WAITERS_BIT;
        // Acquire: what the dead owner stored has happened before the kernel called it dead.
        self.word.compare_exchange(held.word, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Frees the lock of the dead `peer`, leaving the news to whoever locks next. For the reaper.
    pub(crate) fn release_dead(&self, peer: u32) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if !is_held(word) || owner_of(word).peer != peer {
                return;
            }
            let died = DIED_BIT | word & WAITERS_BIT;
            // AcqRel: hands on what the dead owner stored.
            if self.word.compare_exchange(word, died, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.word.wake(1);
                return;
            }
        }
    }

    /// Gives the lock up. Only for its owner.
    #[inline]
    pub(crate) fn unlock(&self, poisoned: bool) {
        let free = if poisoned { POISONED_BIT } else { 0 };
        // Release pairs with the Acquire of the next owner: it sees what we wrote.
        if self.word.swap(free, Ordering::Release) & WAITERS_BIT != 0 {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        self.word.wake(1);
    }
}

/// A lock is slept on by setting `WAITERS` in its own word.
impl Parking for &RawLock {
    fn announce(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Relaxed);
        if !is_held(word) {
            return None;
        }
        let announced = word | WAITERS_BIT;
        // Relaxed: only the unlocker's swap of this very word needs to see it.
        if word == announced || self.word.compare_exchange(word, announced, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // The half that the kernel compares: flags and owner.
            return Some(announced as u32);
        }
        None
    }

    fn sleep(&self, expected: u32, slice: Duration) {
        self.word.wait(expected, slice);
    }
}
