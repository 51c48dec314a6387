//! The value: bytes in shared memory that are read without a lock and changed as a whole.
//!
//! - this file: [`Value`], how it is read and changed.
//! - `number`: what can be counted with.
//! - `nesting`: who changes a value while it is being changed.
//! - `error`: why it was not changed.

mod error;
mod nesting;
mod number;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::{TryUpdateError, UpdateError, UpdateTimeoutError};
pub use number::{Integer, Number};

use nesting::Changing;

use crate::object::attempt::{self, Attempt, Blocked, Forever, Never, Once, Stop, Until, Waiting};
use crate::object::block::value::{Copies, Parts, ValueBlock};
use crate::object::kind::Kind;
use crate::object::payload::{set_word, word_of, words, zeroed};
use crate::object::place::{Object, Place, Seat};
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::event::EventRef;
use crate::sync::lock::{HeldLock, LockState, Locked, Owner, RawLock, Refused};
use crate::sync::spin::Patience;
use crate::sys::clock::Deadline;
use crate::sys::thread;

/// A value in shared memory that is read without a lock and changed as a whole.
///
/// For what many read and some change: a counter, a price, a state, settings. Nobody ever sees half
/// of a change, and nobody who is killed leaves anything to repair. Handles are cheap to clone; the
/// value lives as long as any process holds one.
///
/// # Blocking
/// Reading never waits. A value of at most 8 bytes is one word: changing it never waits either. A
/// larger one is kept twice, and processes take turns at changing it; one that is stopped in the
/// closure of an [`update`](Value::update) keeps the others from changing the value, not from
/// reading it. A reader of a large value copies again if the value was changed while it copied.
///
/// # Memory ordering
/// Everything written before a change is visible to every process that reads what that change has
/// made (release to acquire).
///
/// # Peer death
/// A process killed in the middle of a change leaves the old value, or has made the new one. Those
/// that wait for it go on within 100 ms, unless a sandbox refuses every way to find out who is
/// dead: such a process counts as alive.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use offspring::{UpdateError, Value};
///
/// fn shift(range: Value<[u64; 2]>) -> Result<(), UpdateError> {
///     range.update(|range| {
///         range[0] = 20;
///         // Before it can make the other end fit.
///         std::process::abort()
///     })
/// }
///
/// let range = Value::new([1, 10])?;
/// let child = offspring::spawn(shift, range.clone())?;
/// assert!(child.join().is_err());
/// assert_eq!(range.get()?, [1, 10]);
/// range.update(|range| *range = [20, 200])?;
/// assert_eq!(range.get()?, [20, 200]);
/// # Ok(())
/// # }
/// ```
///
/// # Fork
/// A handle works in a forked child, which sees every change that others make. A child that is
/// forked by the closure of an update has no part in that update: when the closure returns there,
/// the child begins an update of its own.
///
/// # Examples
/// ```
/// use offspring::{UpdateError, Value};
///
/// fn work(done: Value<u64>) -> Result<(), UpdateError> {
///     (0..100).try_for_each(|_| done.fetch_add(1).map(drop))
/// }
///
/// let done = Value::new(0)?;
/// let children: Vec<_> =
///     (0..4).map(|_| offspring::spawn(work, done.clone())).collect::<Result<_, _>>()?;
/// for child in children {
///     child.join()??;
/// }
/// assert_eq!(done.get()?, 400);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Value<T: Shm> {
    shared: Arc<Shared<T>>,
    wait: Wait,
}

/// What all handles of a value in a process share.
struct Shared<T: Shm> {
    object: Object<ValueBlock<T>>,
    waiting: Waiting,
}

/// As for those who wait for a [`Lock`](crate::Lock).
const MOST_PACE: u32 = 256;

/// Whose code makes the new value out of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// It touches nothing else.
    Ours,
    /// It may do anything, with this very value, too.
    Callers,
}

impl<T: Shm> Value<T> {
    /// Makes a value in the commons.
    ///
    /// # Errors
    /// [`CreateError`]; the value was a copy.
    pub fn new(value: T) -> Result<Value<T>, CreateError> {
        Value::new_in(&Segment::commons()?, value)
    }

    /// Makes a value in `segment`.
    ///
    /// # Errors
    /// [`CreateError`]; the value was a copy.
    pub fn new_in(segment: &Segment, value: T) -> Result<Value<T>, CreateError> {
        let kind = Kind::Value.with::<T>();
        let build = |block: &ValueBlock<T>| block.build(&value);
        Ok(Value::from_object(Object::create(segment, kind, (), build)?))
    }

    /// Opens the value that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is no value
    /// of type `T`.
    pub fn open(segment: &Segment, handle: Handle) -> Result<Value<T>, Fault> {
        let kind = Kind::Value.with::<T>();
        Ok(Value::from_object(Object::open(segment, handle, kind, |_, _, _| Ok(()))?))
    }

    fn from_object(object: Object<ValueBlock<T>>) -> Value<T> {
        let waiting = Waiting::new(Patience::with_pace(1, MOST_PACE));
        Value { shared: Arc::new(Shared { object, waiting }), wait: Wait::default() }
    }

    /// The value's name, which can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.shared.object.handle()
    }

    /// The same value, with operations of this handle waiting for their turn as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> Value<T> {
        Value { wait, ..self.clone() }
    }

    /// Gives a copy of the value.
    ///
    /// # Errors
    /// [`Fault`] if a forked child cannot attach to the segment. In the process that made or opened
    /// the value, never.
    #[inline]
    pub fn get(&self) -> Result<T, Fault> {
        match self.shared.object.known() {
            Some(place) => Ok(place.seat().block.get()),
            None => self.get_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_slowly(&self) -> Result<T, Fault> {
        Ok(self.shared.object.enter()?.seat().block.get())
    }

    /// Changes the value, whatever it was.
    ///
    /// # Errors
    /// [`UpdateError::WouldDeadlock`] in the closure of an update of this value;
    /// [`UpdateError::Broken`] if it cannot be used.
    #[inline]
    pub fn set(&self, value: T) -> Result<(), UpdateError> {
        if let Some(place) = self.shared.object.known()
            && let Parts::Word(word) = place.seat().block.parts()
            && !nesting::is_changing(word)
        {
            // Release pairs with the Acquire of its readers.
            word.store(word_of(&value, 0), Ordering::Release);
            return Ok(());
        }
        self.set_slowly(&value)
    }

    #[cold]
    #[inline(never)]
    fn set_slowly(&self, value: &T) -> Result<(), UpdateError> {
        self.fetch(|_| *value).map(drop)
    }

    /// Changes the value, and gives the one that was there before.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn swap(&self, value: T) -> Result<T, UpdateError> {
        self.fetch(|_| value)
    }

    /// Changes the value by `change`, which is given the old one, and gives what `change` returns.
    ///
    /// Nobody else changes the value in between. `change` may be called several times: a value of
    /// at most 8 bytes is not locked, so if somebody else has changed it meanwhile, `change` is
    /// called again with the new one. What it does besides is then done again, too.
    ///
    /// A panic in `change` leaves the old value.
    ///
    /// # Errors
    /// [`UpdateError::WouldDeadlock`] in the closure of another update of this value;
    /// [`UpdateError::Broken`] if it cannot be used.
    ///
    /// # Examples
    /// ```
    /// use offspring::{UpdateError, Value};
    ///
    /// let best = Value::new([0.0_f64, 7.0])?;
    /// let gap = best.update(|[bid, ask]| {
    ///     *bid += 6.5;
    ///     *ask - *bid
    /// })?;
    /// assert_eq!((gap, best.get()?), (0.5, [6.5, 7.0]));
    ///
    /// // Reading it is fine in there, changing it is not.
    /// best.update(|_| {
    ///     assert_eq!(best.get(), Ok([6.5, 7.0]));
    ///     assert_eq!(best.set([1.0, 2.0]), Err(UpdateError::WouldDeadlock));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<R>(&self, change: impl FnMut(&mut T) -> R) -> Result<R, UpdateError> {
        self.update_until(Forever, change)
    }

    /// Changes the value by `change`, if nobody else is changing it right now.
    ///
    /// As [`Value::update`]; a value of at most 8 bytes is never in the way.
    ///
    /// # Peer death
    /// An attempt that finds another process in the way asks the kernel whether that is alive, but
    /// at most once in 10 ms. Attempts in between return [`TryUpdateError::WouldBlock`] even if it
    /// is dead.
    ///
    /// # Errors
    /// As [`Value::update`], or [`TryUpdateError::WouldBlock`].
    pub fn try_update<R>(&self, change: impl FnMut(&mut T) -> R) -> Result<R, TryUpdateError> {
        self.update_until(Once, change)
    }

    /// Changes the value by `change`, waiting for its turn at most `timeout`.
    ///
    /// # Errors
    /// As [`Value::update`], or [`UpdateTimeoutError::Timeout`].
    pub fn update_timeout<R>(
        &self,
        change: impl FnMut(&mut T) -> R,
        timeout: Duration,
    ) -> Result<R, UpdateTimeoutError> {
        self.update_until(Deadline::after(timeout), change)
    }

    /// Changes the value by `change`, waiting for its turn until `deadline`.
    ///
    /// # Errors
    /// As [`Value::update`], or [`UpdateTimeoutError::Timeout`].
    pub fn update_deadline<R>(
        &self,
        change: impl FnMut(&mut T) -> R,
        deadline: Instant,
    ) -> Result<R, UpdateTimeoutError> {
        self.update_until(Deadline::at(deadline), change)
    }

    fn update_until<R, U: Until, E: From<Stop<U::Late, UpdateError>>>(
        &self,
        until: U,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R, E> {
        match self.change(until, Code::Callers, |value| Ok::<R, Never>(change(value)))? {
            Ok(result) => Ok(result),
            Err(never) => match never {},
        }
    }

    /// Changes the value to `new` if it is `current`, and gives the one that was there before: as
    /// `Ok` if it was changed, as `Err` if not.
    ///
    /// Values are the same if their bytes are: a float that is not a number is the same as itself,
    /// and 0.0 is not -0.0.
    ///
    /// # Errors
    /// As [`Value::set`].
    ///
    /// # Examples
    /// ```
    /// let turn = offspring::Value::new(1_u32)?;
    /// assert_eq!(turn.compare_exchange(1, 2)?, Ok(1));
    /// assert_eq!(turn.compare_exchange(1, 3)?, Err(2));
    /// assert_eq!(turn.get()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare_exchange(&self, current: T, new: T) -> Result<Result<T, T>, UpdateError> {
        let exchange = |value: &mut T| {
            let before = *value;
            if (0..words::<T>()).all(|word| word_of(&before, word) == word_of(&current, word)) {
                *value = new;
                Ok(before)
            } else {
                Err(before)
            }
        };
        Ok(self.change(Forever, Code::Ours, exchange)?)
    }

    /// Makes a new value out of the old one, which it gives.
    fn fetch(&self, change: impl Fn(T) -> T) -> Result<T, UpdateError> {
        let fetch = |value: &mut T| Ok::<T, Never>(std::mem::replace(value, change(*value)));
        match self.change(Forever, Code::Ours, fetch)? {
            Ok(before) => Ok(before),
            Err(never) => match never {},
        }
    }

    /// Changes the value by `change`, or leaves it if that says `Err`.
    fn change<A, B, U: Until>(
        &self,
        until: U,
        code: Code,
        mut change: impl FnMut(&mut T) -> Result<A, B>,
    ) -> Result<Result<A, B>, Stop<U::Late, UpdateError>> {
        let object = &self.shared.object;
        loop {
            let place = object.enter().map_err(|fault| Stop::Final(fault.into()))?;
            let seat = place.seat();
            let changed = match seat.block.parts() {
                Parts::Word(word) => change_word(place, word, code, &mut change)?,
                Parts::Copies(copies) => {
                    let locked = self.take_turn(&seat, &copies, until)?;
                    let mut turn = Turn { place, freed: seat.event(copies.freed), copies, locked };
                    turn.change(&mut change)
                }
            };
            // If not, `change` has forked, and this is the child, which has no part in what its
            // parent does.
            if let Some(result) = changed {
                return Ok(result);
            }
        }
    }

    fn take_turn<U: Until>(
        &self,
        seat: &Seat<ValueBlock<T>>,
        copies: &Copies<'_>,
        until: U,
    ) -> Result<Locked, Stop<U::Late, UpdateError>> {
        let me = Owner { peer: seat.me, thread: thread::number() };
        if let Some(locked) = copies.writer.lock_free(me) {
            return Ok(locked);
        }
        let Shared { object, waiting } = &*self.shared;
        let mut taking = Taking { writer: copies.writer, me };
        let taken = match taking.attempt(false) {
            Ok(taken) => taken,
            Err(blocked) => {
                let freed = [seat.event(copies.freed)];
                attempt::go_on(object, taking, blocked, until, &freed, self.wait, waiting)
                    .map_err(Stop::Late)?
            }
        };
        taken.map_err(Stop::Final)
    }
}

/// Changes a value in a word; `None` in a child that `change` has forked.
fn change_word<T: Shm, A, B, L>(
    place: &Place<ValueBlock<T>>,
    word: &AtomicU64,
    code: Code,
    mut change: impl FnMut(&mut T) -> Result<A, B>,
) -> Result<Option<Result<A, B>>, Stop<L, UpdateError>> {
    if nesting::is_changing(word) {
        return Err(Stop::Final(UpdateError::WouldDeadlock));
    }
    let _changing = (code == Code::Callers).then(|| Changing::begin(word));
    // Acquire, here and below, pairs with the Release of the process that has changed it.
    let mut seen = word.load(Ordering::Acquire);
    loop {
        let mut value = zeroed::<T>();
        set_word(&mut value, 0, seen);
        let result = change(&mut value);
        if code == Code::Callers && !place.is_ours() {
            return Ok(None);
        }
        if result.is_err() {
            return Ok(Some(result));
        }
        let next = word_of(&value, 0);
        match word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(Some(result)),
            // Somebody else has changed it.
            Err(now) => seen = now,
        }
    }
}

/// The turn of this thread to change a value that does not fit into a word.
///
/// # Invariants
/// In the process of `place`, the writer's word names this thread.
struct Turn<'a, T: Shm> {
    place: &'a Place<ValueBlock<T>>,
    freed: EventRef<'a>,
    copies: Copies<'a>,
    locked: Locked,
}

impl<T: Shm> Turn<'_, T> {
    /// Changes the value; `None` in a child that `change` has forked.
    fn change<A, B>(
        &mut self,
        mut change: impl FnMut(&mut T) -> Result<A, B>,
    ) -> Option<Result<A, B>> {
        let mut value = self.copies.get(&self.locked);
        let result = change(&mut value);
        if !self.place.is_ours() {
            return None;
        }
        if result.is_ok() {
            self.copies.set(&mut self.locked, &value);
        }
        Some(result)
    }
}

/// Also by a panic in the closure, which has changed nothing.
impl<T: Shm> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        // The turn of a forked child's parent is not the child's.
        if self.place.is_ours() {
            self.copies.writer.unlock(LockState::Clean);
            self.freed.notify_one();
        }
    }
}

/// The waiting for one's turn.
struct Taking<'a> {
    writer: &'a RawLock,
    me: Owner,
}

impl Attempt for Taking<'_> {
    type Done = Result<Locked, UpdateError>;
    type Held = HeldLock;

    fn attempt(&mut self, _look: bool) -> Result<Self::Done, Blocked<HeldLock>> {
        // Whatever became of the last writer, there is a whole value.
        match self.writer.try_recover(self.me) {
            Ok((locked, _)) => Ok(Ok(locked)),
            Err(Refused::Held(held)) => Err(Blocked::Behind(held)),
            Err(Refused::WouldDeadlock) => Ok(Err(UpdateError::WouldDeadlock)),
            Err(Refused::Unclean(_) | Refused::Corrupt) => {
                Ok(Err(UpdateError::Broken(Fault::Corrupt)))
            }
        }
    }

    fn owner(held: HeldLock) -> u32 {
        held.owner()
    }

    fn succeed(&mut self, held: HeldLock) -> Option<Self::Done> {
        // The next attempt takes it, and wakes the next when it gives it up.
        self.writer.declare_dead(held);
        None
    }
}

impl<T: Number> Value<T> {
    /// Adds to the value, and gives the old one. Integers wrap around.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_add(&self, by: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.plus(by))
    }

    /// Subtracts from the value, and gives the old one. Integers wrap around.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_sub(&self, by: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.minus(by))
    }

    /// Makes the value `other` if that is larger, and gives the old one. Of two floats of which one
    /// is not a number it is the other.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_max(&self, other: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.larger(other))
    }

    /// Makes the value `other` if that is smaller, and gives the old one. Of two floats of which
    /// one is not a number it is the other.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_min(&self, other: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.smaller(other))
    }
}

impl<T: Integer> Value<T> {
    /// Keeps the bits of the value that are also in `bits`, and gives the old value.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_and(&self, bits: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.and(bits))
    }

    /// Sets the bits that are in `bits`, and gives the old value.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_or(&self, bits: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.or(bits))
    }

    /// Flips the bits that are in `bits`, and gives the old value.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn fetch_xor(&self, bits: T) -> Result<T, UpdateError> {
        self.fetch(|value| value.xor(bits))
    }
}

/// Another handle of the same value.
impl<T: Shm> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value { shared: Arc::clone(&self.shared), wait: self.wait }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the value.
/// Elsewhere the value's [`Handle`].
impl<T: Shm> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serial::serialize(&self.shared.object, &self.shared, 0, serializer)
    }
}

/// Opens the value. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de, T: Shm> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| Value::open(segment, handle))
    }
}

impl<T: Shm> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("handle", &self.handle()).finish_non_exhaustive()
    }
}
