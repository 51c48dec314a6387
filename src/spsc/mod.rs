//! A ring with one sender and one receiver: the fastest way from one process to another.
//!
//! No read-modify-write and no claim: a single store publishes a message. Use it where one process
//! produces and one consumes. Where there may be more, use a [`Queue`](crate::Queue).
//!
//! # The end of a ring
//! When the sender is gone, because it was dropped or because its process ended or was killed, the
//! receiver gets what is left and then `Disconnected`. When the receiver is gone, the sender gets
//! its value back with `Disconnected`. Both are final, and reach sleepers within 100 ms of a kill.
//!
//! A side asks whether the other one is gone when the ring is empty or full, so a stream of
//! messages pays nothing for it. A sender notices when it has used up the slots that it knew to be
//! free: before that, up to `capacity` messages can be sent that nobody receives.
//!
//! # Successors
//! Another process can take the place of one that died. A role is gone when no process has an end
//! of it any more, so the successor, or a process that supervises both, must have another end
//! *before* that: [`Producer::standby`], [`Consumer::standby`]. Such an end waits until the one
//! that is used is dropped or its process is dead, and goes on where that one left off.
//!
//! # Ends in messages
//! As with a [`channel`](crate::channel()): an end can be sent in a message of a channel or an
//! [`ObjectQueue`](crate::ObjectQueue) of the same segment, and a child can return it. It counts
//! while the message carries it, and afterwards for the receiver. In text such as JSON, it is the
//! ring's name, and reading it makes an end that stands by.
//!
//! # Fork
//! An end that the closure of a child captured is the child's. Ends that merely lie in a child's
//! memory, because its parent had them, keep nothing open; see [`channel`](crate::channel()).
//!
//! # Examples
//! ```
//! use offspring::spsc::{self, Producer};
//!
//! fn count(mut sender: Producer<u64>) {
//!     (0..1000).for_each(|n| sender.send(n).unwrap());
//! }
//!
//! let (sender, mut receiver) = spsc::ring(64)?;
//! let child = offspring::spawn(count, sender)?;
//! // Ends when the child has ended, however it ends.
//! assert_eq!(receiver.iter().sum::<u64>(), 499_500);
//! child.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! The parent replaces a sender that crashes:
//! ```
//! use offspring::spsc::{self, Producer};
//!
//! fn crash(mut sender: Producer<u64>) {
//!     if sender.send(1).is_ok() {
//!         std::process::abort();
//!     }
//! }
//!
//! let (sender, mut receiver) = spsc::ring(64)?;
//! let mut spare = sender.standby()?;
//! let child = offspring::spawn(crash, sender)?;
//! assert!(child.join().is_err());
//! spare.send(2)?;
//! drop(spare);
//! assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod end;
#[cfg(test)]
mod tests;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use end::{End, Receiving, Role, Sending, Shared};

use crate::object::attempt::{Forever, Never, Once, Until};
use crate::object::block::MOST_ALIGN;
use crate::object::block::spsc::{Shape, SpscBlock};
use crate::object::place::Seat;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop, TryRecvError,
    TrySendError, is_large,
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
    let sender = End::first(Arc::clone(&shared))?;
    let receiver = End::first(shared)?;
    Ok((Producer { end: sender }, Consumer { end: receiver }))
}

/// The sending end of a ring.
///
/// # Peer death
/// A sender killed inside a call has sent the value or has not. If the receiver's process is
/// killed, and no other one has an end that stands by, a blocked sender gets `Disconnected` within
/// 100 ms.
///
/// # Fork
/// An end that is moved into a forked child belongs to the child once the parent has dropped its
/// copy, which [`fork`](crate::fork) does. Until then blocking calls of the child wait, and
/// [`try_send`](Producer::try_send) returns `Full`.
///
/// # Examples
/// ```
/// let (mut sender, receiver) = offspring::spsc::ring::<u8>(1)?;
/// drop(receiver);
/// assert_eq!(sender.send(7).unwrap_err().into_inner(), 7);
/// assert!(sender.is_disconnected());
/// # Ok::<(), offspring::CreateError>(())
/// ```
pub struct Producer<T: Shm> {
    end: End<T, Sending>,
}

/// The receiving end of a ring.
///
/// # Peer death
/// A receiver killed inside a call has received the message, or its successor receives it. If the
/// sender's process is killed, and no other one has an end that stands by, a blocked receiver gets
/// what is left and then `Disconnected`, within 100 ms.
///
/// # Fork
/// As [`Producer`]. Until the parent has dropped its copy, [`try_recv`](Consumer::try_recv) returns
/// `Empty`.
///
/// # Examples
/// ```
/// use offspring::TryRecvError;
///
/// let (mut sender, mut receiver) = offspring::spsc::ring::<u8>(4)?;
/// sender.send(7)?;
/// assert!(!receiver.is_disconnected());
/// drop(sender);
/// assert_eq!(receiver.try_recv(), Ok(7));
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Consumer<T: Shm> {
    end: End<T, Receiving>,
}

impl<T: Shm> Producer<T> {
    /// Takes the sending role of the ring that `handle` names. The role must be free, or the
    /// process that used it dead; and some process must still have an end of it, or nobody have
    /// noticed yet that none has. A process that is to succeed another for certain has an end that
    /// [stands by](Producer::standby).
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process uses it; [`Fault::Stale`] if the role is gone;
    /// otherwise as [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Producer<T>, Fault> {
        End::opened(Shared::open(segment, handle)?).map(|end| Producer { end })
    }

    /// Another end of the same role, which stands by: it takes the role at its first use after the
    /// end that uses it now is dropped, or its process is dead. Until then its blocking calls
    /// wait, and the others say that the ring is full.
    ///
    /// The role is not gone as long as there is such an end. Capture it in the closure of the
    /// successor, send it in a message, or keep it to replace a child that dies.
    ///
    /// # Peer death
    /// A call that waits for the role notices within 100 ms that its user is dead. What that one
    /// had published stands in the ring, and this end goes on from there.
    ///
    /// # Errors
    /// As [`Producer::open`], but for the role: if it is gone, the operations of the new end say
    /// so.
    ///
    /// # Examples
    /// ```
    /// let (mut sender, mut receiver) = offspring::spsc::ring::<u8>(2)?;
    /// let mut spare = sender.standby()?;
    /// sender.send(1)?;
    /// assert!(spare.try_send(2).unwrap_err().is_full(), "the other one uses the role");
    /// drop(sender);
    /// spare.send(2)?;
    /// drop(spare);
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn standby(&self) -> Result<Producer<T>, Fault> {
        self.end.another().map(|end| Producer { end })
    }

    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver (release to acquire).
    ///
    /// # Errors
    /// [`SendError::Disconnected`] if the receiver is gone, [`SendError::Closed`] if the ring was
    /// closed, [`SendError::Broken`]; all with the value. A sender asks when the slots are used up
    /// that it knows to be free.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.put(&value, Forever)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// As [`Producer::send`], or [`TrySendError::Full`], with the value.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.put(&value, Once)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`Producer::send`], or [`SendTimeoutError::Timeout`], with the value.
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

    /// Whether the receiver is gone for good, so that nothing can be sent any more. `true` is
    /// final.
    ///
    /// # Blocking
    /// Never waits. Asks the kernel at most once in 10 ms whether the receiver is alive, and
    /// `try_send` counts as well.
    ///
    /// # Peer death
    /// A receiver that was killed is gone, unless another process has an end that stands by. For 10
    /// ms after an earlier question the answer may still be `false`.
    pub fn is_disconnected(&self) -> bool {
        self.end.is_disconnected()
    }

    /// Closes the ring for good: the sender gets its values back, the receiver gets what is left
    /// and then `Closed`. Sleepers are woken. Closing twice changes nothing.
    ///
    /// From this end nothing can be sent any more. An end that stands by can close the ring, too.
    /// The one that uses the role then notices when it has used up the slots that it knows to be
    /// free. What it sends until then is received, unless the receiver was told `Closed` before.
    ///
    /// # Peer death
    /// A process killed inside this call has closed the ring or has not.
    ///
    /// # Examples
    /// ```
    /// use offspring::{SendError, TryRecvError};
    ///
    /// let (mut sender, mut receiver) = offspring::spsc::ring::<u8>(4)?;
    /// sender.send(1)?;
    /// sender.close();
    /// assert_eq!(sender.send(2), Err(SendError::Closed(2)));
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&mut self) {
        self.end.close();
    }

    /// Whether the ring was closed. `true` is final; the receiver may still find messages.
    pub fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// The ring's name. With it another process can take a role that is free.
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
    /// Takes the receiving role of the ring that `handle` names. The role must be free, or the
    /// process that used it dead; and some process must still have an end of it, or nobody have
    /// noticed yet that none has. A process that is to succeed another for certain has an end that
    /// [stands by](Consumer::standby).
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process uses it; [`Fault::Stale`] if the role is gone;
    /// otherwise as [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Consumer<T>, Fault> {
        End::opened(Shared::open(segment, handle)?).map(|end| Consumer { end })
    }

    /// Another end of the same role, which stands by: it takes the role at its first use after the
    /// end that uses it now is dropped, or its process is dead. Until then its blocking calls
    /// wait, and the others say that the ring is empty.
    ///
    /// The role is not gone as long as there is such an end. Capture it in the closure of the
    /// successor, send it in a message, or keep it to replace a child that dies.
    ///
    /// # Peer death
    /// A call that waits for the role notices within 100 ms that its user is dead. What that one
    /// had released stands in the ring, and this end goes on from there.
    ///
    /// # Errors
    /// As [`Consumer::open`], but for the role: if it is gone, the operations of the new end say
    /// so.
    ///
    /// # Examples
    /// ```
    /// let (mut sender, receiver) = offspring::spsc::ring::<u8>(2)?;
    /// let mut spare = receiver.standby()?;
    /// sender.send(1)?;
    /// assert!(spare.try_recv().unwrap_err().is_empty(), "the other one uses the role");
    /// drop(receiver);
    /// assert_eq!(spare.recv(), Ok(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn standby(&self) -> Result<Consumer<T>, Fault> {
        self.end.another().map(|end| Consumer { end })
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once the sender is gone and everything was received;
    /// [`RecvError::Closed`] once the ring is closed and everything was received;
    /// [`RecvError::Broken`].
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.get(Forever)
    }

    /// Receives a message if there is one right now.
    ///
    /// # Errors
    /// As [`Consumer::recv`], or [`TryRecvError::Empty`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.get(Once)
    }

    /// Receives a message, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Consumer::recv`], or [`RecvTimeoutError::Timeout`].
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
        if const { is_large::<T>() } {
            let (seat, turn) = match self.end.known_turn() {
                Some(known) => known,
                None => self.end.turn(until)?,
            };
            return Ok(take_from(seat, turn));
        }
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

    /// Whether the sender is gone for good, so that nothing new will come. Messages that were sent
    /// before may still be there. `true` is final.
    ///
    /// # Blocking
    /// Never waits. Asks the kernel at most once in 10 ms whether the sender is alive, and
    /// `try_recv` counts as well.
    ///
    /// # Peer death
    /// A sender that was killed is gone, unless another process has an end that stands by. For 10
    /// ms after an earlier question the answer may still be `false`.
    pub fn is_disconnected(&self) -> bool {
        self.end.is_disconnected()
    }

    /// Closes the ring for good: the sender gets its values back, the receiver gets what is left
    /// and then `Closed`. Sleepers are woken. Closing twice changes nothing.
    ///
    /// The sender notices when it has used up the slots that it knows to be free. What it sends
    /// until then is received, unless this end was told `Closed` before.
    ///
    /// # Peer death
    /// A process killed inside this call has closed the ring or has not.
    ///
    /// # Examples
    /// ```
    /// use offspring::TryRecvError;
    ///
    /// let (mut sender, mut receiver) = offspring::spsc::ring::<u8>(4)?;
    /// sender.send(1)?;
    /// receiver.close();
    /// assert!(sender.is_closed());
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&mut self) {
        self.end.close();
    }

    /// Whether the ring was closed. `true` is final; messages may still be there.
    pub fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// Iterates over the messages: waits for each, and ends when the sender is gone, or the ring
    /// closed or broken. [`Iter::end`] says why.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter { receiver: self, end: None }
    }

    /// The ring's name. With it another process can take a role that is free.
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

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the ring's [`Handle`], which holds nothing.
impl<T: Shm> Serialize for Producer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.end.serialize(serializer)
    }
}

/// Makes an end that [stands by](Producer::standby). An error says that the ring or this role is
/// gone, that it is of another type, or in a segment that this process does not have open.
impl<'de, T: Shm> Deserialize<'de> for Producer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize(deserializer).map(|end| Producer { end })
    }
}

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the ring's [`Handle`], which holds nothing.
impl<T: Shm> Serialize for Consumer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.end.serialize(serializer)
    }
}

/// Makes an end that [stands by](Consumer::standby). An error says that the ring or this role is
/// gone, that it is of another type, or in a segment that this process does not have open.
impl<'de, T: Shm> Deserialize<'de> for Consumer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize(deserializer).map(|end| Consumer { end })
    }
}

impl<'a, T: Shm> IntoIterator for &'a mut Consumer<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Receives one message after the other, waiting for each. Made by [`Consumer::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Iter<'a, T: Shm> {
    receiver: &'a mut Consumer<T>,
    end: Option<RecvError>,
}

impl<T: Shm> Iter<'_, T> {
    /// Why the iteration ended; `None` before the end.
    pub fn end(&self) -> Option<RecvError> {
        self.end
    }
}

impl<T: Shm> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.end.is_some() {
            return None;
        }
        self.receiver.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

impl<T: Shm> FusedIterator for Iter<'_, T> {}

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
