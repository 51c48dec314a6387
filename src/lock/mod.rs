//! The lock: a value in shared memory that one thread of one process owns at a time, and that
//! survives the death of its owner.
//!
//! - this file: [`Lock`] and how it is taken.
//! - `guard`: the lock while a thread has it.
//! - `error`: why it was not taken.

mod error;
mod guard;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::{LockError, LockTimeoutError, TryLockError};
pub use guard::{LockGuard, RecoveryGuard};

use crate::object::attempt::{self, Attempt, Blocked, Forever, Once, Stop, Until, Waiting};
use crate::object::block::MOST_ALIGN;
use crate::object::block::lock::LockBlock;
use crate::object::kind::Kind;
use crate::object::place::{Object, Place, Seat};
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::lock::{HeldLock, LockState, Locked, Owner, Refused};
use crate::sync::spin::Patience;
use crate::sys::clock::Deadline;
use crate::sys::thread;

/// A mutex between processes: a value in shared memory that one thread of one process owns at a
/// time.
///
/// Handles are cheap to clone. The lock lives as long as any process holds one.
///
/// # Blocking
/// Taking a free lock is one compare-and-swap, and unlocking is one store. Neither makes a system
/// call while nobody sleeps. The lock is not fair: once it is free, the first to try takes it.
///
/// # Memory ordering
/// Locking is an acquire, unlocking is a release.
///
/// # Peer death
/// If the owner is killed, or panics, the value may be half changed. From then on every attempt to
/// lock is refused with [`LockError::OwnerDied`] or [`LockError::Poisoned`], until somebody
/// [recovers](Lock::recover) the lock, repairs the value and [says
/// so](RecoveryGuard::mark_repaired). While somebody repairs, others wait as for any owner. Blocked
/// survivors go on within 100 ms, unless a sandbox refuses every way to find out who is dead: such
/// a process counts as alive.
///
/// A process that ends with a forgotten guard has died with the lock. A thread that does so keeps
/// it for as long as its process lives.
///
/// If a value is hard to repair, keep two copies of it and a word that says which copy is whole.
///
/// # Fork
/// A handle works in a forked child. A guard does not: the parent keeps the lock, and a child that
/// locks waits for the parent. The child's copy of the guard is inert, and dropping it does not
/// unlock.
///
/// # Examples
/// ```
/// use offspring::Lock;
///
/// fn pay((balance, amount): (Lock<i64>, i64)) {
///     *balance.lock().unwrap() -= amount;
/// }
///
/// let balance = Lock::new(100)?;
/// let child = offspring::spawn(pay, (balance.clone(), 30))?;
/// *balance.lock()? += 5;
/// child.join()?;
/// assert_eq!(*balance.lock()?, 75);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// The next owner repairs what a killed one left:
/// ```
/// use offspring::{Lock, LockError, LockGuard};
///
/// /// Two halves that are always equal.
/// fn lock(halves: &Lock<[u64; 2]>) -> Result<LockGuard<'_, [u64; 2]>, LockError> {
///     match halves.lock() {
///         Err(error) if error.needs_recovery() => {
///             let mut halves = halves.recover()?;
///             halves[1] = halves[0];
///             Ok(halves.mark_repaired())
///         }
///         other => other,
///     }
/// }
///
/// let halves = Lock::new([0; 2])?;
/// *lock(&halves)? = [7, 7];
/// assert_eq!(*lock(&halves)?, [7, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lock<T: Shm> {
    shared: Arc<Shared<T>>,
    wait: Wait,
}

/// What all handles of a lock in a process share.
struct Shared<T: Shm> {
    object: Object<LockBlock<T>>,
    waiting: Waiting,
}

impl<T: Shm> Lock<T> {
    /// Makes a lock in the commons, with `value` in it.
    ///
    /// # Errors
    /// [`CreateError`]. The caller still has the value, which was copied.
    pub fn new(value: T) -> Result<Lock<T>, CreateError> {
        Lock::new_in(&Segment::commons()?, value)
    }

    /// Makes a lock in `segment`, with `value` in it.
    ///
    /// # Errors
    /// [`CreateError`]. The caller still has the value, which was copied.
    pub fn new_in(segment: &Segment, value: T) -> Result<Lock<T>, CreateError> {
        if align_of::<T>() > MOST_ALIGN {
            let (align, most) = (align_of::<T>(), MOST_ALIGN);
            return Err(CreateError::Alignment { align, most });
        }
        let kind = Kind::Lock.with::<T>();
        let object = Object::create(segment, kind, (), |block: &LockBlock<T>| block.build(&value))?;
        Ok(Lock::from_object(object))
    }

    /// Opens the lock that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is not a
    /// lock of a `T`.
    pub fn open(segment: &Segment, handle: Handle) -> Result<Lock<T>, Fault> {
        let object = Object::open(segment, handle, Kind::Lock.with::<T>(), |_, _, _| Ok(()))?;
        Ok(Lock::from_object(object))
    }

    fn from_object(object: Object<LockBlock<T>>) -> Lock<T> {
        let waiting = Waiting::new(Patience::for_lock());
        Lock { shared: Arc::new(Shared { object, waiting }), wait: Wait::default() }
    }

    /// The lock's name. It can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.shared.object.handle()
    }

    /// Another handle of the same lock, whose blocked operations wait as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> Lock<T> {
        Lock { wait, ..self.clone() }
    }

    /// Takes the lock, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] or [`LockError::Poisoned`] if the value must be repaired first;
    /// [`LockError::WouldDeadlock`] if this thread has the lock already; [`LockError::Broken`] if
    /// the lock cannot be used.
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_, T>, LockError> {
        self.take(Forever)
    }

    /// Takes the lock if it is free right now.
    ///
    /// # Peer death
    /// An attempt that finds the lock held asks the kernel whether the owner is alive, but at most
    /// once in 10 ms. Attempts in between return [`TryLockError::WouldBlock`] even if the owner is
    /// dead.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`TryLockError::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> Result<LockGuard<'_, T>, TryLockError> {
        self.take(Once)
    }

    /// Takes the lock, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`LockTimeoutError::Timeout`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_, T>, LockTimeoutError> {
        self.take(Deadline::after(timeout))
    }

    /// Takes the lock, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`LockTimeoutError::Timeout`].
    pub fn lock_deadline(&self, deadline: Instant) -> Result<LockGuard<'_, T>, LockTimeoutError> {
        self.take(Deadline::at(deadline))
    }

    /// Takes the lock to repair the value, waiting as long as it takes.
    ///
    /// Waits for a living owner as [`lock`](Lock::lock) does, and then takes the lock whatever
    /// [state](RecoveryGuard::state) the value is in. The state is clean if somebody else has
    /// repaired the value meanwhile.
    ///
    /// # Peer death
    /// If this process is killed during the repair, the state is [`LockState::OwnerDied`], and the
    /// next `recover` gets the lock.
    ///
    /// # Errors
    /// [`LockError::WouldDeadlock`] or [`LockError::Broken`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use offspring::{Lock, LockError, LockState};
    ///
    /// fn die_with_it(count: Lock<u64>) {
    ///     let _guard = count.lock();
    ///     std::process::abort()
    /// }
    ///
    /// let count = Lock::new(0)?;
    /// let child = offspring::spawn(die_with_it, count.clone())?;
    /// assert!(child.join().is_err());
    /// assert_eq!(count.lock().unwrap_err(), LockError::OwnerDied);
    ///
    /// let count_in_repair = count.recover()?;
    /// assert_eq!(count_in_repair.state(), LockState::OwnerDied);
    /// // Any number is a good count.
    /// *count_in_repair.mark_repaired() += 1;
    /// assert_eq!(*count.lock()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recover(&self) -> Result<RecoveryGuard<'_, T>, LockError> {
        self.take_to_repair(Forever)
    }

    /// Takes the lock to repair the value, if it is free right now.
    ///
    /// # Errors
    /// As [`Lock::recover`], or [`TryLockError::WouldBlock`].
    pub fn try_recover(&self) -> Result<RecoveryGuard<'_, T>, TryLockError> {
        self.take_to_repair(Once)
    }

    /// Takes the lock to repair the value, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Lock::recover`], or [`LockTimeoutError::Timeout`].
    pub fn recover_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RecoveryGuard<'_, T>, LockTimeoutError> {
        self.take_to_repair(Deadline::after(timeout))
    }

    /// Takes the lock to repair the value, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Lock::recover`], or [`LockTimeoutError::Timeout`].
    pub fn recover_deadline(
        &self,
        deadline: Instant,
    ) -> Result<RecoveryGuard<'_, T>, LockTimeoutError> {
        self.take_to_repair(Deadline::at(deadline))
    }

    /// The common case ends here; see `queue::shared`. The guard is made in one place and from
    /// registers: one that the slow path had written would be built in memory each time.
    #[inline(always)]
    fn take<U: Until, E: From<Stop<U::Late, LockError>>>(
        &self,
        until: U,
    ) -> Result<LockGuard<'_, T>, E> {
        let (place, locked) = if let Some(place) = self.shared.object.known()
            && let Some(locked) = lock_free(place.seat())
        {
            (place, locked)
        } else {
            match self.take_slowly(until) {
                Taken::Yes(place, locked) => (place, locked),
                Taken::Late(late) => return Err(E::from(Stop::Late(late))),
                Taken::Unclean(state) => return Err(E::from(Stop::Final(unclean(state)))),
                Taken::WouldDeadlock => {
                    return Err(E::from(Stop::Final(LockError::WouldDeadlock)));
                }
                Taken::Broken(fault) => {
                    return Err(E::from(Stop::Final(LockError::Broken(*fault))));
                }
            }
        };
        // INVARIANT: the word names us now.
        Ok(LockGuard::new(place, locked, LockState::Clean))
    }

    #[cold]
    #[inline(never)]
    fn take_slowly<U: Until>(&self, until: U) -> Taken<'_, T, U::Late> {
        match self.take_in_turn(until, false) {
            Ok((place, locked, _)) => Taken::Yes(place, locked),
            Err(Stop::Late(late)) => Taken::Late(late),
            Err(Stop::Final(LockError::OwnerDied)) => Taken::Unclean(LockState::OwnerDied),
            Err(Stop::Final(LockError::Poisoned)) => Taken::Unclean(LockState::Poisoned),
            Err(Stop::Final(LockError::WouldDeadlock)) => Taken::WouldDeadlock,
            Err(Stop::Final(LockError::Broken(fault))) => Taken::Broken(Box::new(fault)),
        }
    }

    fn take_to_repair<U: Until, E: From<Stop<U::Late, LockError>>>(
        &self,
        until: U,
    ) -> Result<RecoveryGuard<'_, T>, E> {
        let (place, locked, state) = self.take_in_turn(until, true)?;
        // INVARIANT: the word names us now.
        Ok(RecoveryGuard::new(LockGuard::new(place, locked, state)))
    }

    fn take_in_turn<U: Until>(
        &self,
        until: U,
        to_repair: bool,
    ) -> Result<Won<'_, T>, Stop<U::Late, LockError>> {
        let Shared { object, waiting } = &*self.shared;
        let broken = |fault| Stop::Final(LockError::Broken(fault));
        let place = object.enter().map_err(broken)?;
        let seat = place.seat();
        let uncounted = if waiting.patience.is_crowded() { 0 } else { UNCOUNTED_LOOKS };
        let mut taking = Taking { seat, to_repair, uncounted, counts: false };
        let taken = match taking.attempt(false) {
            Ok(taken) => taken,
            Err(blocked) => {
                let freed = [seat.event(seat.block.freed())];
                attempt::go_on(object, taking, blocked, until, &freed, self.wait, waiting)
                    .map_err(Stop::Late)?
            }
        };
        let (locked, state) = taken.map_err(Stop::Final)?;
        Ok((place, locked, state))
    }
}

/// A lock that was taken, and the state of its value.
type Won<'a, T> = (&'a Place<LockBlock<T>>, Locked, LockState);

/// How the slow path ended, in two registers.
enum Taken<'a, T: Shm, L> {
    Yes(&'a Place<LockBlock<T>>, Locked),
    Late(L),
    Unclean(LockState),
    WouldDeadlock,
    Broken(Box<Fault>),
}

/// Why a lock in this state is refused.
fn unclean(state: LockState) -> LockError {
    match state {
        LockState::OwnerDied => LockError::OwnerDied,
        LockState::Clean | LockState::Poisoned => LockError::Poisoned,
    }
}

/// So many looks of a wait leave the owners' turns uncounted, unless the lock is crowded already.
/// To begin a count is to write to the owner's cache line, which a short wait is not worth.
const UNCOUNTED_LOOKS: u32 = 2;

/// Takes a lock that was not both free and clean.
struct Taking<T: Shm> {
    seat: Seat<LockBlock<T>>,
    to_repair: bool,
    /// Looks before the owners' turns are counted.
    uncounted: u32,
    /// Whether the last look began a count.
    counts: bool,
}

impl<T: Shm> Taking<T> {
    /// The owners' turns since the last look, if they were counted. Has them counted from now on.
    fn turns(&mut self) -> Option<u32> {
        if self.uncounted > 0 {
            self.uncounted -= 1;
            return None;
        }
        let turns = self.seat.block.turns().take();
        std::mem::replace(&mut self.counts, true).then_some(turns)
    }
}

impl<T: Shm> Attempt for Taking<T> {
    /// The lock, or why waiting does not help.
    type Done = Result<(Locked, LockState), LockError>;
    type Held = HeldLock;

    fn attempt(&mut self, _look: bool) -> Result<Self::Done, Blocked<HeldLock>> {
        let (lock, me) = (self.seat.block.lock(), owner(&self.seat));
        let taken = if self.to_repair {
            lock.try_recover(me)
        } else {
            lock.try_lock(me).map(|locked| (locked, LockState::Clean))
        };
        match taken {
            Ok(taken) => Ok(Ok(taken)),
            Err(Refused::Held(held)) => Err(match self.turns() {
                Some(turns) => Blocked::InTurn(held, turns),
                None => Blocked::Behind(held),
            }),
            Err(Refused::Unclean(LockState::OwnerDied)) => Ok(Err(LockError::OwnerDied)),
            Err(Refused::Unclean(_)) => Ok(Err(LockError::Poisoned)),
            Err(Refused::WouldDeadlock) => Ok(Err(LockError::WouldDeadlock)),
            Err(Refused::Corrupt) => Ok(Err(LockError::Broken(Fault::Corrupt))),
        }
    }

    fn owner(held: HeldLock) -> u32 {
        held.owner()
    }

    fn succeed(&mut self, held: HeldLock) -> Option<Self::Done> {
        let block = self.seat.block;
        if block.lock().declare_dead(held) {
            // Waiters that only want to lock are refused now, so none of them would wake the next.
            self.seat.event(block.freed()).notify_all();
        }
        None
    }
}

/// Another handle of the same lock.
impl<T: Shm> Clone for Lock<T> {
    fn clone(&self) -> Self {
        Lock { shared: Arc::clone(&self.shared), wait: self.wait }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the lock. Elsewhere
/// the lock's [`Handle`].
impl<T: Shm> Serialize for Lock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serial::serialize(&self.shared.object, &self.shared, 0, serializer)
    }
}

/// Opens the lock. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de, T: Shm> Deserialize<'de> for Lock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| Lock::open(segment, handle))
    }
}

impl<T: Shm> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("handle", &self.handle()).finish_non_exhaustive()
    }
}

/// This thread, as lock words name it.
#[inline]
fn owner<T: Shm>(seat: &Seat<LockBlock<T>>) -> Owner {
    Owner { peer: seat.me, thread: thread::number() }
}

#[inline]
fn lock_free<T: Shm>(seat: Seat<LockBlock<T>>) -> Option<Locked> {
    seat.block.lock().lock_free(owner(&seat))
}
