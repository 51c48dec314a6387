//! The queue: a ring and two events.
//!
//! - this file: [`Queue`] and its operations.
//! - `options`: the options of a new queue.
//! - `guard`: messages written and read in place.
//! - `batch`: several messages at a time.
//! - `bytes`: messages of any length. `objects`: values of any type.
//! - `iter`: messages as an iterator.
//! - `shared`: how an operation claims a slot, waits for one, and notifies the other side.

mod batch;
mod bytes;
mod codec;
mod guard;
mod iter;
mod objects;
mod options;
mod shared;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use bytes::{ByteQueue, Loan, Message, Messages};
pub use guard::{Received, Reservation};
pub use iter::Iter;
pub use objects::{DecodeError, EncodeError, ObjectQueue, Objects};
pub use options::{OnReceiverDeath, QueueOptions};

use shared::{End, QueueSeat, Shared, claim_at_hint};

use crate::heap::block::Carrier;
use crate::object::attempt::{Forever, Never, Once, Until};
use crate::object::block::MOST_ALIGN;
use crate::object::block::ends::Role;
use crate::object::block::queue::{QueueBlock, Shape};
use crate::object::carry::{self, Arrival, Departure, Transfer, Unsent};
use crate::object::ends::Channel;
use crate::object::place::{Object, Place};
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop, TryRecvError,
    TrySendError, is_large,
};
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::primitive::Ordering;
use crate::ring::mpmc::Claim;
use crate::ring::position::{MOST_SLOTS, Position, is_capacity};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sys::clock::Deadline;

/// A bounded first-in-first-out queue in shared memory, with any number of senders and receivers in
/// any processes and threads.
///
/// Values are copied into slots of the segment and out again; nothing is serialized. A
/// [`ShmBox`](crate::ShmBox), [`ShmVec`](crate::ShmVec) or [`ShmStr`](crate::ShmStr) moves to the
/// receiver and leaves its bytes where they are. For `String`, `Vec`, enums and the like there are
/// [`ObjectQueue`] and [`channel`](crate::channel()). Each message is received once, by one
/// receiver. All messages are in one order: the order in which their senders claimed slots.
///
/// Handles are cheap to clone and all equal: each can send and receive. The queue lives as long as
/// any process holds a handle.
///
/// # Blocking
/// A blocked operation waits as the handle's [`Wait`] says. Sending and receiving make no system
/// call while nobody sleeps.
///
/// # Peer death
/// A sender killed inside a call has sent the value or has not. What it has sent is received. If a
/// receiver is killed after it took a message, the queue's [`OnReceiverDeath`] says what happens to
/// the message. Nobody waits for a dead process: blocked survivors go on within 100 ms. A stopped
/// process is alive: if it was just writing a message, the messages behind that one wait.
///
/// # Fork
/// A handle works in a forked child as it does in the parent.
///
/// # Errors
/// `Full`, `Empty` and `Timeout` are transient: a later attempt may succeed. `Closed` and `Broken`
/// are final.
///
/// # Source
/// The ring's protocol, its proof and its relation to Vyukov's are described in `docs/queue.md`.
///
/// # Examples
/// ```
/// use offspring::Queue;
///
/// fn count(queue: Queue<u64>) {
///     (1..=10).for_each(|n| queue.send(n).unwrap());
/// }
///
/// let queue = Queue::with_capacity(16)?;
/// let child = offspring::spawn(count, queue.clone())?;
/// let sum: u64 = queue.iter().take(10).sum();
/// assert_eq!(sum, 55);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T: Transfer> {
    shared: Arc<Shared<T::Wire>>,
    wait: Wait,
}

impl<T: Transfer> Queue<T> {
    /// Makes a queue of `capacity` slots in the commons.
    ///
    /// Each slot takes the size of the value and 8 bytes, rounded up. The kernel provides all this
    /// memory at once, so that it cannot run out later.
    ///
    /// # Errors
    /// [`CreateError::Capacity`] for 0 and for more than 2^24 slots; [`CreateError::OutOfMemory`],
    /// with the sizes, if the segment has too little left; [`CreateError::NoPages`] if the kernel
    /// has no memory for it.
    ///
    /// # Examples
    /// ```
    /// use offspring::{CreateError, Queue};
    ///
    /// let queue = Queue::<u32>::with_capacity(3)?;
    /// assert_eq!(queue.capacity(), 3);
    /// let refused = Queue::<u32>::with_capacity(0);
    /// assert!(matches!(refused, Err(CreateError::Capacity { capacity: 0, .. })));
    /// # Ok::<(), CreateError>(())
    /// ```
    pub fn with_capacity(capacity: usize) -> Result<Queue<T>, CreateError> {
        QueueOptions::new().capacity(capacity).create()
    }

    /// Makes a queue of `capacity` slots in `segment`.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`].
    pub fn with_capacity_in(segment: &Segment, capacity: usize) -> Result<Queue<T>, CreateError> {
        QueueOptions::new().capacity(capacity).create_in(segment)
    }

    /// The identity of this process, as [`Object::identity`] gives it.
    #[inline]
    pub(crate) fn identity(&self) -> u64 {
        self.shared.object.identity()
    }

    pub(crate) fn object(&self) -> &Object<QueueBlock<T::Wire>> {
        &self.shared.object
    }

    /// Whether nobody has the other end of this channel any more, as one knows who has an end of
    /// this role.
    pub(crate) fn is_disconnected(&self, role: Role) -> bool {
        let end = match role {
            Role::Sender => End::Write,
            Role::Receiver => End::Read,
        };
        // A channel that is gone has no ends: all holders have dropped it before a process that
        // other code made came to use its copy.
        matches!(self.shared.over(end), Some(Stop::Disconnected | Stop::Broken(Fault::Stale)))
    }

    /// The queue as its ends see it, if it is that of a channel.
    pub(crate) fn as_channel(&self) -> Arc<dyn Channel> {
        Arc::<Shared<T::Wire>>::clone(&self.shared)
    }

    pub(crate) fn make(
        segment: &Segment,
        options: &QueueOptions,
        kind: u64,
    ) -> Result<Queue<T>, CreateError> {
        if !is_capacity(options.capacity as u64) {
            let (capacity, most) = (options.capacity, MOST_SLOTS as usize);
            return Err(CreateError::Capacity { capacity, most });
        }
        if align_of::<T::Wire>() > MOST_ALIGN {
            let (align, most) = (align_of::<T::Wire>(), MOST_ALIGN);
            return Err(CreateError::Alignment { align, most });
        }
        let too_large = CreateError::OutOfMemory { requested: u64::MAX, available: segment.len() };
        let policy = options.on_receiver_death.into();
        let shape = Shape::of::<T::Wire>(options.capacity as u64, policy, options.is_channel);
        let shape = shape.ok_or(too_large)?;
        let object = Object::create(segment, kind, shape, QueueBlock::build)?;
        Ok(Queue::from_object(object, options.wait))
    }

    /// Opens the queue that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is not a
    /// queue of `T`.
    pub fn open(segment: &Segment, handle: Handle) -> Result<Queue<T>, Fault> {
        Queue::open_kind(segment, handle, carry::queue_kind::<T>())
    }

    pub(crate) fn open_kind(
        segment: &Segment,
        handle: Handle,
        kind: u64,
    ) -> Result<Queue<T>, Fault> {
        let object = Object::open(segment, handle, kind, Shape::read::<T::Wire>)?;
        Ok(Queue::from_object(object, Wait::default()))
    }

    fn from_object(object: Object<QueueBlock<T::Wire>>, wait: Wait) -> Queue<T> {
        Queue { shared: Arc::new(Shared::new(object)), wait }
    }

    /// The queue's name. It can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.shared.object.handle()
    }

    /// Another handle of the same queue, whose blocked operations wait as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> Queue<T> {
        Queue { wait, ..self.clone() }
    }

    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the value (release to
    /// acquire).
    ///
    /// # Peer death
    /// A sender killed inside this call has sent the value or has not.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Broken`], with the value.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.put(value, Forever)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// [`TrySendError::Full`], [`TrySendError::Closed`] or [`TrySendError::Broken`], with the
    /// value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.put(value, Once)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`], [`SendTimeoutError::Closed`] or [`SendTimeoutError::Broken`],
    /// with the value.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.put(value, Deadline::after(timeout))
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Queue::send_timeout`].
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.put(value, Deadline::at(deadline))
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Peer death
    /// A receiver killed inside this call has taken the message or has not; see
    /// [`OnReceiverDeath`].
    ///
    /// # Errors
    /// [`RecvError::Closed`] once the queue is closed and everything in it has been received;
    /// [`RecvError::Broken`].
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.take(Forever)
    }

    /// Receives a message if there is one right now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`], [`TryRecvError::Closed`] or [`TryRecvError::Broken`].
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.take(Once)
    }

    /// Receives a message, waiting at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`], [`RecvTimeoutError::Closed`] or [`RecvTimeoutError::Broken`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.take(Deadline::after(timeout))
    }

    /// Receives a message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.take(Deadline::at(deadline))
    }

    /// Iterates over the messages: waits for each, and ends when the queue is closed and empty, or
    /// broken.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(self)
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.shared.object.shape().capacity() as usize
    }

    /// Number of messages that a sender has begun and no receiver has taken. A snapshot; 0 if the
    /// queue is broken.
    ///
    /// A dropped reservation is counted until a receiver has passed its place;
    /// [`is_empty`](Queue::is_empty) and [`is_full`](Queue::is_full) are exact even then.
    pub fn len(&self) -> usize {
        self.look(|block| block.ring().len() as usize).unwrap_or(0)
    }

    /// Whether no message can be received right now. A snapshot.
    pub fn is_empty(&self) -> bool {
        !self.look(|block| block.ring().has_message()).unwrap_or(false)
    }

    /// Whether no message can be sent right now. A snapshot.
    pub fn is_full(&self) -> bool {
        !self.look(|block| block.ring().has_space()).unwrap_or(false)
    }

    /// Number of messages that were lost because their receiver was killed; always 0 with
    /// [`OnReceiverDeath::Redeliver`].
    ///
    /// A message is counted when another process recovers its slot. If that process is killed just
    /// then, the count stays one short.
    pub fn lost(&self) -> u64 {
        self.look(|block| block.ring().lost.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Closes the queue for good: senders get their values back, receivers get what is left and
    /// then `Closed`. Sleepers are woken. Closing twice changes nothing.
    ///
    /// A send that is under way in another process may still succeed. Its message is then received
    /// before `Closed`. In a queue of one slot nobody can tell that while the last message is held
    /// ([`Queue::recv_ref`]), so `Closed` comes after it is dropped.
    ///
    /// # Peer death
    /// A process killed inside this call has closed the queue or has not.
    pub fn close(&self) {
        if let Ok(place) = self.shared.object.enter() {
            shared::close(place.seat());
        }
    }

    /// Whether the queue was closed. `true` is final; receivers may still find messages.
    pub fn is_closed(&self) -> bool {
        self.look(|block| block.ring().is_closed()).unwrap_or(false)
    }

    fn look<R>(&self, look: impl FnOnce(&QueueBlock<T::Wire>) -> R) -> Option<R> {
        self.shared.object.enter().ok().map(|place| look(&place.seat().block))
    }

    /// The slot of this position, as a block says what carries it.
    fn carrier(&self, position: Position) -> Carrier {
        let Handle { block, generation, .. } = self.handle();
        Carrier { block, generation: generation as u32, position: position.to_bits() }
    }

    #[inline(always)]
    fn put<U: Until>(&self, mut value: T, until: U) -> Result<(), SendErrorOf<U, T>>
    where
        Stop<U::Late>: SendStop,
    {
        // By reference, so that it is not copied on its way.
        let sent = match value.as_wire() {
            Some(wire) => self.put_wire(wire, until),
            None => self.put_owner(&mut value, until),
        };
        match sent {
            // What it owned is the receiver's now.
            Ok(()) => Ok(()),
            Err(stop) => Err(stop.with(value)),
        }
    }

    #[inline(always)]
    fn put_wire<U: Until>(&self, wire: &T::Wire, until: U) -> Result<(), Stop<U::Late>> {
        if let Some(place) = self.shared.object.known_unfenced() {
            let seat = place.unfenced_seat();
            if let Some(claim) = claim_at_hint(seat, End::Write) {
                self.put_into(seat, claim, wire);
                return Ok(());
            }
        }
        self.put_slowly(wire, until)
    }

    #[cold]
    #[inline(never)]
    fn put_slowly<U: Until>(&self, wire: &T::Wire, until: U) -> Result<(), Stop<U::Late>> {
        let (place, claim) = self.shared.claim(End::Write, until, self.wait)?;
        self.put_into(place.seat(), claim, wire);
        Ok(())
    }

    #[inline(always)]
    fn put_into(&self, seat: QueueSeat<T::Wire>, mut claim: Claim, wire: &T::Wire) {
        seat.block.write(&mut claim, wire);
        seat.block.ring().publish(claim);
        self.shared.notify(seat, End::Write);
    }

    /// Sends a value that may own blocks; see [`carry`].
    fn put_owner<U: Until>(&self, value: &mut T, until: U) -> Result<(), Stop<U::Late>> {
        let mut slot = self.claim_for_writing(until)?;
        let holder = self.shared.object.holder().map_err(Stop::Broken)?;
        let carrier = self.carrier(slot.position());
        let departure = Departure { mapping: holder.mapping(), carrier };
        // Dropped before the slot, which carries what is taken back.
        let unsent = Unsent(value);
        slot.write(unsent.0.pack(&departure).map_err(Stop::Broken)?);
        unsent.sent();
        slot.commit();
        Ok(())
    }

    #[inline(always)]
    fn take<U: Until, E: From<Stop<U::Late>>>(&self, until: U) -> Result<T, E> {
        if const { !T::OWNS && is_large::<T>() } {
            return self.take_large(until);
        }
        if !T::OWNS
            && let Some(place) = self.shared.object.known_unfenced()
        {
            let seat = place.unfenced_seat();
            if let Some(claim) = claim_at_hint(seat, End::Read) {
                let wire = self.take_from(seat, claim);
                return T::from_wire(wire).ok_or_else(|| E::from(Stop::Broken(Fault::Corrupt)));
            }
        }
        self.take_slowly(until)
    }

    /// As [`Queue::take`], for a large message: only the claim may come from another function, and
    /// the message is copied here. See [`is_large`].
    #[inline(always)]
    fn take_large<U: Until, E: From<Stop<U::Late>>>(&self, until: U) -> Result<T, E> {
        let known = self.shared.object.known_unfenced().map(Place::unfenced_seat);
        let at_hint = known.and_then(|seat| Some((seat, claim_at_hint(seat, End::Read)?)));
        let (seat, claim) = match at_hint {
            Some(claimed) => claimed,
            None => {
                let (place, claim) = self.shared.claim(End::Read, until, self.wait)?;
                (place.seat(), claim)
            }
        };
        let wire = self.take_from(seat, claim);
        T::from_wire(wire).ok_or_else(|| E::from(Stop::Broken(Fault::Corrupt)))
    }

    #[cold]
    #[inline(never)]
    fn take_slowly<U: Until, E: From<Stop<U::Late>>>(&self, until: U) -> Result<T, E> {
        let (place, claim) = self.shared.claim(End::Read, until, self.wait).map_err(E::from)?;
        let seat = place.seat();
        let value = if T::OWNS {
            self.take_owner(seat, claim)
        } else {
            T::from_wire(self.take_from(seat, claim)).ok_or(Fault::Corrupt)
        };
        value.map_err(|fault| E::from(Stop::Broken(fault)))
    }

    #[inline(always)]
    fn take_from(&self, seat: QueueSeat<T::Wire>, claim: Claim) -> T::Wire {
        let wire = seat.block.read(&claim);
        seat.block.ring().release(claim);
        self.shared.notify(seat, End::Read);
        wire
    }

    /// Receives a value that may own blocks; see [`carry`].
    fn take_owner(&self, seat: QueueSeat<T::Wire>, claim: Claim) -> Result<T, Fault> {
        let value = self.shared.object.holder().and_then(|holder| {
            let carrier = self.carrier(claim.position());
            let value = T::unpack(seat.block.read(&claim), &Arrival { holder, carrier });
            if value.is_err() {
                // What was not taken is stranded by the release.
                holder.pool().mark_everywhere(holder.me.owner());
            }
            value
        });
        // Only now: until then, a process that finds us dead gives the message to another.
        seat.block.ring().release(claim);
        self.shared.notify(seat, End::Read);
        value
    }

    #[inline]
    fn claim_for_writing<U: Until>(
        &self,
        until: U,
    ) -> Result<Reservation<'_, T::Wire>, Stop<U::Late>> {
        if let Some(place) = self.shared.object.known()
            && let Some(claim) = claim_at_hint(place.seat(), End::Write)
        {
            return Ok(Reservation::new(&self.shared, place, claim));
        }
        let (place, claim) = self.shared.claim(End::Write, until, self.wait)?;
        Ok(Reservation::new(&self.shared, place, claim))
    }
}

/// Messages in place, for values that are wholly in their slots.
impl<T: Shm> Queue<T> {
    /// Claims a slot to write a message in place, waiting as long as it takes.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Broken`].
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::Queue::<[u8; 4096]>::with_capacity(2)?;
    /// let mut page = queue.reserve()?;
    /// page.fill(7);
    /// page.commit();
    /// drop(queue.reserve()?); // Sends nothing.
    /// assert_eq!(queue.recv_ref()?[4095], 7);
    /// assert!(queue.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&self) -> Result<Reservation<'_, T>, SendError<()>> {
        self.claim_slot(Forever)
    }

    /// Claims a slot to write a message in place, if one is free right now.
    ///
    /// # Errors
    /// As [`Queue::try_send`].
    pub fn try_reserve(&self) -> Result<Reservation<'_, T>, TrySendError<()>> {
        self.claim_slot(Once)
    }

    /// Claims a slot to write a message in place, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::send_timeout`].
    pub fn reserve_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Reservation<'_, T>, SendTimeoutError<()>> {
        self.claim_slot(Deadline::after(timeout))
    }

    /// Claims a slot to write a message in place, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Queue::send_timeout`].
    pub fn reserve_deadline(
        &self,
        deadline: Instant,
    ) -> Result<Reservation<'_, T>, SendTimeoutError<()>> {
        self.claim_slot(Deadline::at(deadline))
    }

    /// Receives a message in place, waiting as long as it takes.
    ///
    /// # Errors
    /// As [`Queue::recv`].
    pub fn recv_ref(&self) -> Result<Received<'_, T>, RecvError> {
        Ok(self.get(Forever)?)
    }

    /// Receives a message in place if there is one right now.
    ///
    /// # Errors
    /// As [`Queue::try_recv`].
    pub fn try_recv_ref(&self) -> Result<Received<'_, T>, TryRecvError> {
        Ok(self.get(Once)?)
    }

    /// Receives a message in place, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`].
    pub fn recv_ref_timeout(&self, timeout: Duration) -> Result<Received<'_, T>, RecvTimeoutError> {
        Ok(self.get(Deadline::after(timeout))?)
    }

    /// Receives a message in place, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`].
    pub fn recv_ref_deadline(
        &self,
        deadline: Instant,
    ) -> Result<Received<'_, T>, RecvTimeoutError> {
        Ok(self.get(Deadline::at(deadline))?)
    }

    #[inline]
    fn claim_slot<U: Until>(&self, until: U) -> Result<Reservation<'_, T>, SendErrorOf<U, ()>>
    where
        Stop<U::Late>: SendStop,
    {
        self.claim_for_writing(until).map_err(|stop| stop.with(()))
    }

    #[inline]
    fn get<U: Until>(&self, until: U) -> Result<Received<'_, T>, Stop<U::Late>> {
        if let Some(place) = self.shared.object.known()
            && let Some(claim) = claim_at_hint(place.seat(), End::Read)
        {
            return Ok(Received::new(&self.shared, place, claim));
        }
        let (place, claim) = self.shared.claim(End::Read, until, self.wait)?;
        Ok(Received::new(&self.shared, place, claim))
    }
}

/// The error of sending a `T`.
type SendErrorOf<U, T> = <Stop<<U as Until>::Late> as SendStop>::Error<T, Never>;

/// Another handle of the same queue.
impl<T: Transfer> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: Arc::clone(&self.shared), wait: self.wait }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the queue.
/// Elsewhere the queue's [`Handle`].
impl<T: Transfer> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serial::serialize(&self.shared.object, &self.shared, 0, serializer)
    }
}

/// Opens the queue. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de, T: Transfer> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| Queue::open(segment, handle))
    }
}

impl<T: Transfer> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Transfer> IntoIterator for &'a Queue<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}
