//! The lock: a value in shared memory that one thread of one process has at a time, and that
//! outlives the death of its owner.
#![expect(unsafe_code, reason = "the value belongs to whoever has the lock")]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::object::clear::Kind;
use crate::object::holding::{Holding, Seat, kind_of};
use crate::object::lock_block::{self, LockBlock, MOST_ALIGN};
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::primitive::{AtomicU32, Ordering};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::lock::{Acquired, Owner, Refused};
use crate::sync::looks::Looks;
use crate::sync::spin::Patience;
use crate::sync::wait::{self, Obstacle};
use crate::sys::clock::Deadline;

#[cfg(test)]
mod tests;

/// A value in shared memory that one thread of one process has at a time.
///
/// Handles are cheap to clone; the lock lives as long as any process holds one.
///
/// # Blocking
/// Taking a free lock is one compare-and-swap, giving it up one store; no system call as long as
/// nobody sleeps. There is no queue: whoever comes first when the lock is free has it.
///
/// # Memory ordering
/// Taking the lock is an acquire, giving it up a release.
///
/// # Peer death
/// When the owner is killed, the next to lock is told so by [`LockError::OwnerDied`], with the
/// guard: the value may be half changed and is for that one to put right, with
/// [`LockGuard::recover`]. Blocked survivors go on within 100 ms. Until somebody recovers it,
/// everybody who locks is told [`LockError::Poisoned`]; nobody is ever locked out. A value that is
/// hard to put right is best kept twice, with a third word that says which of the two is whole.
///
/// A panic while holding poisons the lock in the same way.
///
/// # Fork
/// A handle works in a forked child. A guard belongs to the thread that has it: in the child it is
/// inert, the child's attempt to lock waits for the parent, and dropping the copy does not unlock.
///
/// # Examples
/// ```standalone_crate
/// use offspring::Lock;
///
/// let balance = Lock::new(100_i64)?;
/// let theirs = balance.clone();
/// let child = offspring::fork(move || *theirs.lock().unwrap() -= 30)?;
/// *balance.lock().unwrap() += 5;
/// child.join()?;
/// assert_eq!(*balance.lock().unwrap(), 75);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// The errors carry the guard and so borrow the lock: where `?` cannot take them, `unwrap` them, or
/// turn them into the guard by [`LockError::recover`].
///
/// A successor puts right what a killed owner left:
/// ```
/// # use offspring::{Lock, LockError};
/// # fn repair(_: &mut [u64; 2]) {}
/// # let lock = Lock::new([0_u64; 2])?;
/// let guard = match lock.lock() {
///     Err(LockError::OwnerDied(mut guard)) => {
///         repair(&mut guard);
///         guard.recover()
///     }
///     other => other.unwrap(),
/// };
/// assert_eq!(*guard, [0, 0]);
/// # drop(guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lock<T: Shm> {
    core: Arc<Core>,
    wait: Wait,
    value: PhantomData<T>,
}

/// The longest pace of a thread that waits for the lock, in rounds of spinning. Each look takes the
/// line from an owner that is about to unlock, and one that finds the lock free takes it away for
/// good: with looks in every round two processes that did nothing but lock came to 11 million turns
/// a second, to 34 with this pace (a Xeon, family 6 model 207). As the pace doubles up to it, a
/// waiter waits at most twice as long as it must.
const MOST_PACE: u32 = 256;

struct Core {
    holding: Holding,
    patience: Patience,
    /// When an attempt that does not wait last asked the kernel about the owner.
    looks: Looks,
}

// SAFETY: a handle gives access to the value only to one thread at a time, and `T: Shm` is `Send`.
unsafe impl<T: Shm> Sync for Lock<T> {}

impl<T: Shm> Lock<T> {
    /// Makes a lock in the commons, with `value` in it.
    ///
    /// # Errors
    /// [`CreateError`]; the value was a copy.
    pub fn new(value: T) -> Result<Lock<T>, CreateError> {
        Lock::new_in(&Segment::commons()?, value)
    }

    /// Makes a lock in `segment`, with `value` in it.
    ///
    /// # Errors
    /// [`CreateError`]; the value was a copy.
    pub fn new_in(segment: &Segment, value: T) -> Result<Lock<T>, CreateError> {
        let (size, align) = (size_of::<T>() as u64, align_of::<T>());
        if align > MOST_ALIGN {
            return Err(CreateError::Alignment { align, most: MOST_ALIGN });
        }
        let too_large = CreateError::OutOfMemory { requested: u64::MAX, available: segment.len() };
        let len = lock_block::len(size).ok_or(too_large)?;
        let holding = Holding::create(segment, kind_of::<T>(Kind::Lock), len, |region, offset| {
            let block = LockBlock::view(region, offset, size, align)?;
            block.lock().reset();
            block.freed().reset();
            // SAFETY: `view` checked range and alignment for a `T`, and nobody else has the block
            // yet.
            unsafe { block.value().cast::<T>().write(value) };
            Some(())
        })?;
        Ok(Lock::from_holding(holding))
    }

    /// Opens the lock that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is no lock
    /// of a `T`.
    pub fn open(segment: &Segment, handle: Handle) -> Result<Lock<T>, Fault> {
        let holding = Holding::open(segment, handle, kind_of::<T>(Kind::Lock))?;
        match lock_block::len(size_of::<T>() as u64) {
            Some(len) if len <= holding.len() => Ok(Lock::from_holding(holding)),
            _ => Err(Fault::Corrupt),
        }
    }

    fn from_holding(holding: Holding) -> Lock<T> {
        let core =
            Core { holding, patience: Patience::with_pace(1, MOST_PACE), looks: Looks::new() };
        Lock { core: Arc::new(core), wait: Wait::default(), value: PhantomData }
    }

    /// The lock's name, which can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.core.holding.handle()
    }

    /// The same lock, with blocked operations of this handle waiting as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> Lock<T> {
        Lock { wait, ..self.clone() }
    }

    /// Takes the lock, waiting as long as it takes.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] and [`LockError::Poisoned`] carry the guard: the lock is taken.
    /// [`LockError::WouldDeadlock`] if this very thread has the lock; [`LockError::Broken`] if it
    /// cannot be used.
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_, T>, LockError<'_, T>> {
        self.take(Some(Deadline::NEVER)).map_err(|refusal| match refusal {
            Refusal::OwnerDied(guard) => LockError::OwnerDied(guard),
            Refusal::Poisoned(guard) => LockError::Poisoned(guard),
            Refusal::Stop(Stop::WouldDeadlock | Stop::NotNow) => LockError::WouldDeadlock,
            Refusal::Stop(Stop::Broken(fault)) => LockError::Broken(fault),
        })
    }

    /// Takes the lock if it is free right now.
    ///
    /// # Peer death
    /// A lock whose owner was killed counts as free, at the latest 10 ms after the last attempt
    /// that found it held: so often the kernel is asked about the owner.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`TryLockError::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> Result<LockGuard<'_, T>, TryLockError<'_, T>> {
        self.take(None).map_err(|refusal| match refusal {
            Refusal::OwnerDied(guard) => TryLockError::OwnerDied(guard),
            Refusal::Poisoned(guard) => TryLockError::Poisoned(guard),
            Refusal::Stop(Stop::NotNow) => TryLockError::WouldBlock,
            Refusal::Stop(Stop::WouldDeadlock) => TryLockError::WouldDeadlock,
            Refusal::Stop(Stop::Broken(fault)) => TryLockError::Broken(fault),
        })
    }

    /// Takes the lock, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`LockTimeoutError::Timeout`].
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<LockGuard<'_, T>, LockTimeoutError<'_, T>> {
        self.take_until(Deadline::after(timeout))
    }

    /// Takes the lock, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Lock::lock`], or [`LockTimeoutError::Timeout`].
    pub fn lock_deadline(
        &self,
        deadline: Instant,
    ) -> Result<LockGuard<'_, T>, LockTimeoutError<'_, T>> {
        self.take_until(Deadline::at(deadline))
    }

    fn take_until(&self, deadline: Deadline) -> Result<LockGuard<'_, T>, LockTimeoutError<'_, T>> {
        self.take(Some(deadline)).map_err(|refusal| match refusal {
            Refusal::OwnerDied(guard) => LockTimeoutError::OwnerDied(guard),
            Refusal::Poisoned(guard) => LockTimeoutError::Poisoned(guard),
            Refusal::Stop(Stop::NotNow) => LockTimeoutError::Timeout,
            Refusal::Stop(Stop::WouldDeadlock) => LockTimeoutError::WouldDeadlock,
            Refusal::Stop(Stop::Broken(fault)) => LockTimeoutError::Broken(fault),
        })
    }

    /// `None` for a deadline: do not wait.
    ///
    /// The guard is made here, from what lies in registers: one that came back from the rare path
    /// would be copied through memory in the common one, too, which took as long as the lock does.
    #[inline(always)]
    fn take(&self, deadline: Option<Deadline>) -> Result<LockGuard<'_, T>, Refusal<'_, T>> {
        let broken = |fault| Refusal::Stop(Stop::Broken(fault));
        let seat = self.core.holding.enter().map_err(broken)?;
        let block = self.block(&seat).ok_or_else(|| broken(Fault::Corrupt))?;
        let acquired = if block.lock().lock_free(owner(&seat)) {
            Acquired::Clean
        } else {
            self.take_slowly(deadline).map_err(Refusal::Stop)?
        };
        // INVARIANT: the word names us now.
        let guard = LockGuard {
            holding: &self.core.holding,
            me: seat.me,
            block,
            poisoned: acquired != Acquired::Clean,
            was_panicking: std::thread::panicking(),
            this_thread_only: PhantomData,
        };
        match acquired {
            Acquired::Clean => Ok(guard),
            Acquired::Poisoned => Err(Refusal::Poisoned(guard)),
            Acquired::OwnerDied => Err(Refusal::OwnerDied(guard)),
        }
    }

    #[inline]
    fn block<'a>(&self, seat: &Seat<'a>) -> Option<LockBlock<'a>> {
        LockBlock::view(
            seat.region,
            self.core.holding.offset(),
            size_of::<T>() as u64,
            align_of::<T>(),
        )
    }

    /// Looks everything up again, so that nothing of the common path must lie in memory.
    #[cold]
    #[inline(never)]
    fn take_slowly(&self, deadline: Option<Deadline>) -> Result<Acquired, Stop> {
        let seat = self.core.holding.enter().map_err(Stop::Broken)?;
        let block = self.block(&seat).ok_or(Stop::Broken(Fault::Corrupt))?;
        let me = owner(&seat);
        let attempt = |look: bool| loop {
            match block.lock().try_lock(me) {
                Err(Refused::Held(held)) if look && seat.is_dead(held.owner()) => {
                    if block.lock().succeed(me, held) {
                        return Ok(Ok(Acquired::OwnerDied));
                    }
                }
                Err(Refused::Held(_)) => return Err(Obstacle::Owner),
                Err(Refused::WouldDeadlock) => return Ok(Err(Stop::WouldDeadlock)),
                Err(Refused::Corrupt) => return Ok(Err(Stop::Broken(Fault::Corrupt))),
                Ok(acquired) => return Ok(Ok(acquired)),
            }
        };
        let Some(deadline) = deadline else {
            return match attempt(false) {
                Err(Obstacle::Owner) if self.core.looks.is_time() => attempt(true),
                result => result,
            }
            .unwrap_or(Err(Stop::NotNow));
        };
        let event = block.freed().with(seat.fences);
        wait::wait(event, self.wait, &self.core.patience, deadline, attempt)
            .unwrap_or(Err(Stop::NotNow))
    }
}

/// Another handle of the same lock.
impl<T: Shm> Clone for Lock<T> {
    fn clone(&self) -> Self {
        Lock { core: Arc::clone(&self.core), wait: self.wait, value: PhantomData }
    }
}

impl<T: Shm> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("handle", &self.handle()).finish_non_exhaustive()
    }
}

/// This thread, as lock words name it.
#[inline]
fn owner(seat: &Seat<'_>) -> Owner {
    Owner { peer: seat.me.owner(), thread: thread_number() }
}

/// The number of this thread, unlike that of any other thread that the process ever had. A forked
/// child goes on counting from its parent's number; process and number together tell all threads
/// apart.
#[inline]
fn thread_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    match NUMBER.get() {
        0 => {
            // Relaxed: only the uniqueness matters.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

/// The lock in the hands of this thread; dereferences to the value, and unlocks when dropped.
///
/// # Invariants
/// From the making of the guard until its drop the lock's word names this process and thread, so
/// the value is this guard's alone.
///
/// # Fork
/// In a forked child it is inert: using it panics, dropping it does nothing.
///
/// # Examples
/// It belongs to the thread that locked:
/// ```compile_fail,E0277
/// fn travels<T: Send>() {}
/// travels::<offspring::LockGuard<'static, u64>>();
/// ```
#[must_use = "dropping the guard unlocks at once"]
pub struct LockGuard<'a, T: Shm> {
    holding: &'a Holding,
    /// Who this process was when it took the lock.
    me: PeerId,
    block: LockBlock<'a>,
    poisoned: bool,
    was_panicking: bool,
    /// Only the thread that the word names may unlock.
    this_thread_only: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives shared references to the value, which other threads may have if
// `T: Sync`.
unsafe impl<T: Shm + Sync> Sync for LockGuard<'_, T> {}

impl<T: Shm> LockGuard<'_, T> {
    /// Declares the value to be good again after [`LockError::OwnerDied`] or
    /// [`LockError::Poisoned`].
    ///
    /// A guard dropped without this leaves the lock poisoned. For any other guard it changes
    /// nothing.
    pub fn recover(mut self) -> Self {
        self.poisoned = false;
        self
    }

    #[inline]
    fn check(&self) {
        assert!(
            self.holding.is_still(self.me),
            "a guard of the parent's was used in a forked child: lock again in the child"
        );
    }
}

impl<T: Shm> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.check();
        // SAFETY: `LockBlock::view` checked range and alignment, any bits are a valid `T: Shm`, and
        // by the invariant nobody else touches the value.
        unsafe { self.block.value().cast().as_ref() }
    }
}

impl<T: Shm> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive within the process.
        unsafe { self.block.value().cast().as_mut() }
    }
}

impl<T: Shm> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.holding.is_still(self.me) {
            let panicked = !self.was_panicking && std::thread::panicking();
            self.block.lock().unlock(self.poisoned || panicked);
            self.block.freed().with(self.holding.fences()).notify_one();
        }
    }
}

impl<T: Shm + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Why the lock was not simply taken, before it is told in the terms of one operation.
enum Refusal<'a, T: Shm> {
    OwnerDied(LockGuard<'a, T>),
    Poisoned(LockGuard<'a, T>),
    Stop(Stop),
}

/// Why the lock was not taken at all.
enum Stop {
    NotNow,
    WouldDeadlock,
    Broken(Fault),
}

/// Error of [`Lock::lock`].
pub enum LockError<'a, T: Shm> {
    /// The lock is taken; the last owner was killed while it had the lock, and the value may be
    /// half changed.
    OwnerDied(LockGuard<'a, T>),
    /// The lock is taken; an owner before panicked or died, and nobody has called
    /// [`LockGuard::recover`] since.
    Poisoned(LockGuard<'a, T>),
    /// This thread has the lock already; waiting for it would never end.
    WouldDeadlock,
    /// The lock cannot be used.
    Broken(Fault),
}

/// Error of [`Lock::try_lock`].
pub enum TryLockError<'a, T: Shm> {
    /// Somebody else has the lock; a later attempt may succeed.
    WouldBlock,
    /// The lock is taken; the last owner was killed while it had the lock, and the value may be
    /// half changed.
    OwnerDied(LockGuard<'a, T>),
    /// The lock is taken; an owner before panicked or died, and nobody has called
    /// [`LockGuard::recover`] since.
    Poisoned(LockGuard<'a, T>),
    /// This thread has the lock already.
    WouldDeadlock,
    /// The lock cannot be used.
    Broken(Fault),
}

/// Error of [`Lock::lock_timeout`] and [`Lock::lock_deadline`].
pub enum LockTimeoutError<'a, T: Shm> {
    /// Somebody else had the lock all the time; a later attempt may succeed.
    Timeout,
    /// The lock is taken; the last owner was killed while it had the lock, and the value may be
    /// half changed.
    OwnerDied(LockGuard<'a, T>),
    /// The lock is taken; an owner before panicked or died, and nobody has called
    /// [`LockGuard::recover`] since.
    Poisoned(LockGuard<'a, T>),
    /// This thread has the lock already.
    WouldDeadlock,
    /// The lock cannot be used.
    Broken(Fault),
}

const OWNER_DIED: &str = "the lock's last owner was killed while it had the lock";
const POISONED: &str =
    "the lock is poisoned: an owner panicked or died and nobody has recovered the value";
const WOULD_DEADLOCK: &str = "this thread has the lock already";

/// What the three errors have in common.
macro_rules! lock_error {
    ($name:ident, { $($transient:ident => $text:literal)? }) => {
        impl<'a, T: Shm> $name<'a, T> {
            /// The guard, declared good ([`LockGuard::recover`]), if the lock was taken; the error
            /// if it was not.
            ///
            /// For values of which every state is good, such as a counter.
            ///
            /// # Errors
            /// The same, if it carries no guard.
            pub fn recover(self) -> Result<LockGuard<'a, T>, Self> {
                match self {
                    $name::OwnerDied(guard) | $name::Poisoned(guard) => Ok(guard.recover()),
                    other => Err(other),
                }
            }

            /// Whether the last owner was killed while it had the lock.
            pub fn is_owner_died(&self) -> bool {
                matches!(self, $name::OwnerDied(_))
            }

            /// Whether an owner before panicked or died and nobody has recovered the value.
            pub fn is_poisoned(&self) -> bool {
                matches!(self, $name::Poisoned(_))
            }
        }

        impl<T: Shm> fmt::Debug for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$transient => f.write_str(stringify!($transient)),)?
                    $name::OwnerDied(_) => f.write_str("OwnerDied(..)"),
                    $name::Poisoned(_) => f.write_str("Poisoned(..)"),
                    $name::WouldDeadlock => f.write_str("WouldDeadlock"),
                    $name::Broken(fault) => write!(f, "Broken({fault:?})"),
                }
            }
        }

        impl<T: Shm> fmt::Display for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$transient => f.write_str($text),)?
                    $name::OwnerDied(_) => f.write_str(OWNER_DIED),
                    $name::Poisoned(_) => f.write_str(POISONED),
                    $name::WouldDeadlock => f.write_str(WOULD_DEADLOCK),
                    $name::Broken(fault) => fault.fmt(f),
                }
            }
        }

        impl<T: Shm> Error for $name<'_, T> {}
    };
}

lock_error!(LockError, {});
lock_error!(TryLockError, { WouldBlock => "somebody else has the lock" });
lock_error!(LockTimeoutError, { Timeout => "somebody else had the lock all the time" });
