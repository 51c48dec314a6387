//! A lock word that names its owner: process and thread.
//!
//! ```text
//! word = thread:30 | owner:31 | HELD | DIED | POISONED
//!
//! 0 --lock: CAS--> HELD|me --unlock: store--> 0
//! HELD|dead --a waiter or the reaper, once the owner is dead: CAS--> DIED
//! DIED or POISONED --recover: CAS--> HELD|me --unlock: store--> 0 if it was repaired, else as before
//! HELD|me --unlock after a panic: store--> POISONED
//! ```
//! `thread` is a number that the process gives each of its threads, so that a thread that locks
//! twice gets an error. It is kept modulo 2^30, so a process that has started a billion threads may
//! get that error without a deadlock. A lock that nobody holds names nobody. While it is `DIED` or
//! `POISONED`, only a thread that comes to repair the data gets it.
//!
//! While a living process has the lock, nobody else writes the word. So a plain store unlocks, and
//! locking and unlocking together take one read-modify-write. A waiter announces itself in an
//! [event](super::event) beside the word, and not in the word itself. The sleeper pays for this:
//! its heavy fence replaces the one that the unlocker leaves out between its store and its look at
//! the event.
//!
//! # Orderings
//! Locking is an Acquire of the word, unlocking a Release: the next owner sees what the last one
//! wrote. Taking the lock from a dead owner is an Acquire, too: the kernel says that an owner is
//! dead only after all its stores have happened.
//!
//! # Peer death
//! Only a process that comes to repair the data sees what a dead owner left: the word says `DIED`
//! until an owner says that the data is good. An owner that is killed during the repair leaves
//! `DIED` again. An owner killed between its store and its wake costs a waiter the rest of a slice.
//!
//! # Source
//! The owner in the word is from robust futexes; unlocking by a store is from Dice, Huang and Yang,
//! "Asymmetric Dekker Synchronization" (2001), as their biased locks do it.

use serde::{Deserialize, Serialize};

use crate::claim::{OWNER_BITS, OWNER_MASK};
use crate::primitive::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;

const POISONED_BIT: u64 = 1 << 0;
const DIED_BIT: u64 = 1 << 1;
const HELD_BIT: u64 = 1 << 2;
const OWNER_SHIFT: u32 = 3;
const THREAD_SHIFT: u32 = OWNER_SHIFT + OWNER_BITS;

/// A thread of an attached process, as lock words name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) peer: u32,
    pub(crate) thread: u32,
}

impl Owner {
    #[inline]
    fn held(self) -> u64 {
        debug_assert!(u64::from(self.peer) <= OWNER_MASK, "names have 31 bits");
        // The bits of a thread's number that have no room are shifted out.
        u64::from(self.thread) << THREAD_SHIFT | u64::from(self.peer) << OWNER_SHIFT | HELD_BIT
    }
}

fn owner_of(word: u64) -> Owner {
    Owner { peer: (word >> OWNER_SHIFT & OWNER_MASK) as u32, thread: (word >> THREAD_SHIFT) as u32 }
}

fn is_held(word: u64) -> bool {
    word & HELD_BIT != 0
}

/// What is known about the value in a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockState {
    /// The last owner unlocked normally.
    Clean,
    /// An owner panicked while it had the lock, and nobody has repaired the value since.
    Poisoned,
    /// An owner ended while it had the lock, killed or not, and nobody has repaired the value
    /// since.
    OwnerDied,
}

impl LockState {
    /// The state of a free lock with this word; `None` for a word that this crate never writes.
    fn of(word: u64) -> Option<LockState> {
        match word {
            0 => Some(LockState::Clean),
            POISONED_BIT => Some(LockState::Poisoned),
            DIED_BIT => Some(LockState::OwnerDied),
            _ => None,
        }
    }

    fn to_bits(self) -> u64 {
        match self {
            LockState::Clean => 0,
            LockState::Poisoned => POISONED_BIT,
            LockState::OwnerDied => DIED_BIT,
        }
    }
}

/// Proof that its owner has the lock. There is one for each time that the lock was taken.
#[derive(Debug)]
pub(crate) struct Locked(());

/// Why the lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody else has it.
    Held(HeldLock),
    /// Nobody has it, and the data must be repaired first.
    Unclean(LockState),
    /// This thread has it already.
    WouldDeadlock,
    /// The word contains a value that this crate never writes.
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
    pub(crate) fn lock_free(&self, me: Owner) -> Option<Locked> {
        self.take(LockState::Clean, me)
    }

    #[inline]
    fn take(&self, from: LockState, me: Owner) -> Option<Locked> {
        // Acquire pairs with the Release store in `unlock` and the Release in `declare_dead`.
        let taken = self.word.compare_exchange(
            from.to_bits(),
            me.held(),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        taken.is_ok().then_some(Locked(()))
    }

    /// Takes the lock if nobody has it and its data is clean.
    #[cold]
    pub(crate) fn try_lock(&self, me: Owner) -> Result<Locked, Refused> {
        loop {
            match self.look(me)? {
                LockState::Clean => {
                    if let Some(locked) = self.take(LockState::Clean, me) {
                        return Ok(locked);
                    }
                }
                unclean => return Err(Refused::Unclean(unclean)),
            }
        }
    }

    /// Takes the lock if nobody has it, in whatever state its data is.
    #[cold]
    pub(crate) fn try_recover(&self, me: Owner) -> Result<(Locked, LockState), Refused> {
        loop {
            let state = self.look(me)?;
            if let Some(locked) = self.take(state, me) {
                return Ok((locked, state));
            }
        }
    }

    /// The state of a lock that nobody has.
    fn look(&self, me: Owner) -> Result<LockState, Refused> {
        let word = self.word.load(Ordering::Relaxed);
        if is_held(word) {
            let deadlock = owner_of(word) == owner_of(me.held());
            return Err(if deadlock {
                Refused::WouldDeadlock
            } else {
                Refused::Held(HeldLock { word })
            });
        }
        LockState::of(word).ok_or(Refused::Corrupt)
    }

    /// Frees the lock of an owner that was judged dead after `held` was seen; false if it is not in
    /// that state any more. The caller then wakes all sleepers.
    #[cold]
    pub(crate) fn declare_dead(&self, held: HeldLock) -> bool {
        // AcqRel: passes on what the dead owner stored, which happened before the kernel called it
        // dead.
        self.word.compare_exchange(held.word, DIED_BIT, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Frees the lock if the dead `peer` has it; true if it had. For the reaper, which then wakes
    /// all sleepers.
    pub(crate) fn release_dead(&self, peer: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        is_held(word) && owner_of(word).peer == peer && self.declare_dead(HeldLock { word })
    }

    /// Gives the lock up. Only for its owner, which then notifies sleepers: one if the data is
    /// clean, otherwise all of them, as those that only want to lock are refused and would not wake
    /// the next.
    #[inline]
    pub(crate) fn unlock(&self, state: LockState) {
        // A store is enough: by the protocol nobody but a living owner changes its word. Release
        // pairs with the Acquire of the next owner: it sees what we wrote.
        self.word.store(state.to_bits(), Ordering::Release);
    }
}
