//! A ring with one sender and one receiver: the fastest way from one process to another.
//!
//! No read-modify-write and no claim: a single store publishes a message. Use it where one process
//! produces and one consumes. Where there may be more, use a [`Queue`](crate::Queue).
//!
//! # Examples
//! ```standalone_crate
//! let (mut sender, mut receiver) = offspring::spsc::ring::<u64>(64)?;
//! let child = offspring::fork(move || (0..1000).for_each(|n| sender.send(n).unwrap()))?;
//! for n in 0..1000 {
//!     assert_eq!(receiver.recv()?, n);
//! }
//! child.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod end;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use end::{End, Receiving, Role, Sending, Shared};

use crate::object::attempt::{Forever, Never, Once, Until};
use crate::object::block::MOST_ALIGN;
use crate::object::block::spsc::{Shape, SpscBlock};
use crate::object::place::Seat;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop, TryRecvError,
    TrySendError,
};
use crate::object::{CreateError, Handle};
use crate::peer::Fault;
use crate::ring::position::{MOST_SLOTS, is_capacity};
use crate::ring::spsc::Turn;
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sys::clock::Deadline;

/// Makes a ring of `capacity` slots in the commons and returns its two ends.
///
/// # Errors
/// As [`Queue::with_capacity`](crate::Queue::with_capacity).
pub fn ring<T: Shm>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), CreateError> {
    ring_in(&Segment::commons()?, capacity)
}

/// Makes a ring of `capacity` slots in `segment` and returns its two ends.
///
/// # Errors
/// As [`Queue::with_capacity`](crate::Queue::with_capacity).
pub fn ring_in<T: Shm>(
    segment: &Segment,
    capacity: usize,
) -> Result<(Producer<T>, Consumer<T>), CreateError> {
    if !is_capacity(capacity as u64) {
        return Err(CreateError::Capacity { capacity, most: MOST_SLOTS as usize });
    }
    if align_of::<T>() > MOST_ALIGN {
        return Err(CreateError::Alignment { align: align_of::<T>(), most: MOST_ALIGN });
    }
    let too_large = CreateError::OutOfMemory { requested: u64::MAX, available: segment.len() };
    let shared = Shared::create(segment, Shape::of::<T>(capacity as u64).ok_or(too_large)?)?;
    // This process has both roles until an end is moved into a child.
    let sender = End::take(Arc::clone(&shared))?;
    let receiver = End::take(shared)?;
    Ok((Producer { end: sender }, Consumer { end: receiver }))
}

/// The sending end of a ring.
///
/// # Peer death
/// A sender killed inside a call has sent the value or has not. Another process can take its place:
/// [`Producer::open`].
///
/// # Fork
/// An end that is moved into a forked child belongs to the child once the parent has dropped its
/// copy, which [`fork`](crate::fork) does. Until then blocking calls of the child wait, and
/// [`try_send`](Producer::try_send) returns `Full`.
pub struct Producer<T: Shm> {
    end: End<T, Sending>,
}

/// The receiving end of a ring.
///
/// # Peer death
/// A receiver killed inside a call has received the message, or its successor receives it. Another
/// process can take its place: [`Consumer::open`].
///
/// # Fork
/// As [`Producer`]. Until the parent has dropped its copy, [`try_recv`](Consumer::try_recv) returns
/// `Empty`.
pub struct Consumer<T: Shm> {
    end: End<T, Receiving>,
}

impl<T: Shm> Producer<T> {
    /// Takes the sending role of the ring that `handle` names. The role must be free, or its holder
    /// dead.
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process has it; otherwise as
    /// [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Producer<T>, Fault> {
        End::take(Shared::open(segment, handle)?).map(|end| Producer { end })
    }

    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver (release to acquire).
    ///
    /// # Errors
    /// [`SendError::Broken`], with the value. The ring cannot be closed.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.put(&value, Forever)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] or [`TrySendError::Broken`], with the value.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.put(&value, Once)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] or [`SendTimeoutError::Broken`], with the value.
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.put(&value, Deadline::after(timeout))
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Producer::send_timeout`].
    pub fn send_deadline(
        &mut self,
        value: T,
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<T>> {
        self.put(&value, Deadline::at(deadline))
    }

    /// Takes the value by reference, so that it is not copied on its way here. The common case ends
    /// here; see `queue::shared`.
    #[inline(always)]
    fn put<U: Until>(&mut self, value: &T, until: U) -> Result<(), SendErrorOf<U, T>>
    where
        Stop<U::Late>: SendStop,
    {
        match self.end.known_turn() {
            Some((seat, turn)) => {
                put_into(seat, turn, value);
                Ok(())
            }
            None => self.put_slowly(value, until),
        }
    }

    #[cold]
    #[inline(never)]
    fn put_slowly<U: Until>(&mut self, value: &T, until: U) -> Result<(), SendErrorOf<U, T>>
    where
        Stop<U::Late>: SendStop,
    {
        match self.end.turn(until) {
            Ok((seat, turn)) => {
                put_into(seat, turn, value);
                Ok(())
            }
            Err(stop) => Err(stop.with(*value)),
        }
    }

    /// The ring's name. Another process can take over a role with it.
    pub fn handle(&self) -> Handle {
        self.end.handle()
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// Number of messages in the ring. A snapshot; 0 if the ring is broken.
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Whether no message is in the ring. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on, blocked operations of this end wait as `wait` says.
    pub fn set_wait(&mut self, wait: Wait) {
        self.end.set_wait(wait);
    }
}

impl<T: Shm> Consumer<T> {
    /// Takes the receiving role of the ring that `handle` names. The role must be free, or its
    /// holder dead.
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process has it; otherwise as
    /// [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Consumer<T>, Fault> {
        End::take(Shared::open(segment, handle)?).map(|end| Consumer { end })
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Broken`]. The ring cannot be closed.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.get(Forever)
    }

    /// Receives a message if there is one right now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] or [`TryRecvError::Broken`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.get(Once)
    }

    /// Receives a message, waiting at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] or [`RecvTimeoutError::Broken`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.get(Deadline::after(timeout))
    }

    /// Receives a message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Consumer::recv_timeout`].
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.get(Deadline::at(deadline))
    }

    #[inline(always)]
    fn get<U: Until, E: From<Stop<U::Late>>>(&mut self, until: U) -> Result<T, E> {
        match self.end.known_turn() {
            Some((seat, turn)) => Ok(take_from(seat, turn)),
            None => self.get_slowly(until),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_slowly<U: Until, E: From<Stop<U::Late>>>(&mut self, until: U) -> Result<T, E> {
        let (seat, turn) = self.end.turn(until)?;
        Ok(take_from(seat, turn))
    }

    /// The ring's name. Another process can take over a role with it.
    pub fn handle(&self) -> Handle {
        self.end.handle()
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// Number of messages in the ring. A snapshot; 0 if the ring is broken.
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// Whether no message is in the ring. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on, blocked operations of this end wait as `wait` says.
    pub fn set_wait(&mut self, wait: Wait) {
        self.end.set_wait(wait);
    }
}

#[inline(always)]
fn put_into<T: Shm>(seat: Seat<SpscBlock<T>>, mut turn: Turn<'_>, value: &T) {
    let block = seat.block;
    block.write(&mut turn, value);
    turn.publish(&block.sender().index);
    seat.event(block.items()).notify_one();
}

#[inline(always)]
fn take_from<T: Shm>(seat: Seat<SpscBlock<T>>, turn: Turn<'_>) -> T {
    let block = seat.block;
    let value = block.read(&turn);
    turn.release(&block.receiver().index);
    seat.event(block.space()).notify_one();
    value
}

/// The error of sending a `T`.
type SendErrorOf<U, T> = <Stop<<U as Until>::Late> as SendStop>::Error<T, Never>;

impl<T: Shm> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Producer", &self.end, f)
    }
}

impl<T: Shm> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe("Consumer", &self.end, f)
    }
}

fn describe<T: Shm, R: Role>(
    name: &str,
    end: &End<T, R>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.debug_struct(name)
        .field("len", &end.len())
        .field("capacity", &end.capacity())
        .finish_non_exhaustive()
}
