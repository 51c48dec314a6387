//! A queue of messages of any length, which are written and read in place.
#![expect(unsafe_code, reason = "a loan keeps what its memory lies in")]

use std::fmt;
use std::io::{self, Read};
use std::iter::FusedIterator;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::heap::AllocError;
use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::pool::Carried;
use crate::object::attempt::{Forever, Limit, Never, Once, Until};
use crate::object::block::queue::QueueBlock;
use crate::object::flight::{Arrived, Flight};
use crate::object::holding::{self, Holder};
use crate::object::kind::Kind;
use crate::object::parcel::{Contents, Envelope, Parcel, SHORT};
use crate::object::place::Object;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop, TryRecvError,
    TrySendError,
};
use crate::object::{CreateError, Handle, serial};
use crate::peer::{Fault, PeerId};
use crate::queue::shared::End;
use crate::queue::{Queue, QueueOptions, Received, Reservation, SendErrorOf};
use crate::segment::Segment;
use crate::sync::Wait;
use crate::sys::clock::Deadline;

/// A bounded first-in-first-out queue of messages of any length, with any number of senders and
/// receivers in any processes and threads.
///
/// A message of up to 240 bytes lies in a slot of the queue. A longer one lies in memory of its
/// own, and only its name goes through the queue: a megabyte [loaned](ByteQueue::loan) and sent
/// costs little more than a byte. Nobody copies it; the receiver reads where the sender wrote.
///
/// In everything else it is a [`Queue`]: each message is received once, by one receiver, in the
/// order of the sends; handles are cheap to clone and all equal; the queue lives as long as any
/// process holds a handle. What was sent stays when its sender exits.
///
/// # Memory
/// Messages take their memory from the segment, page by page. If there is none, sending is an error
/// at once, and never waits: a receiver may be slow, and the memory may be somebody else's.
///
/// # Blocking
/// As [`Queue`]: waits for a slot or a message as the handle's [`Wait`] says, and makes no system
/// call while nobody sleeps and the memory was used before.
///
/// # Peer death
/// A sender killed inside a call has sent the whole message or nothing. If a receiver is killed
/// while it has a [`Message`], the queue's [`OnReceiverDeath`](crate::OnReceiverDeath) says what
/// happens to it. The memory of messages that nobody can receive any more is given back when
/// somebody clears up after the dead process, at the latest when memory runs short.
///
/// # Fork
/// A handle works in a forked child as it does in the parent. A [`Loan`] or a [`Message`] belongs
/// to the process that made it.
///
/// # Errors
/// `Full`, `Empty` and `Timeout` are transient. `Rejected` means that the segment has no memory for
/// this message now; a shorter one may fit. `Closed` and `Broken` are final.
///
/// # Source
/// How a message is handed over is described in `docs/queue.md`.
///
/// # Examples
/// ```
/// use offspring::ByteQueue;
///
/// fn film(frames: ByteQueue) {
///     let mut frame = frames.loan(1 << 20).unwrap();
///     frame.fill(7);
///     frame.send().unwrap();
///     frames.send(b"the end").unwrap();
/// }
///
/// let frames = ByteQueue::with_capacity(4)?;
/// let child = offspring::spawn(film, frames.clone())?;
/// assert!(frames.recv()?.iter().all(|&byte| byte == 7));
/// assert_eq!(*frames.recv()?, *b"the end");
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ByteQueue {
    envelopes: Queue<Envelope>,
}

impl ByteQueue {
    /// Makes a queue of `capacity` slots in the commons.
    ///
    /// Each slot takes 256 bytes, which the kernel provides at once. Longer messages take memory
    /// when they are made.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`].
    pub fn with_capacity(capacity: usize) -> Result<ByteQueue, CreateError> {
        QueueOptions::new().capacity(capacity).create_bytes()
    }

    /// Makes a queue of `capacity` slots in `segment`.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`].
    pub fn with_capacity_in(segment: &Segment, capacity: usize) -> Result<ByteQueue, CreateError> {
        QueueOptions::new().capacity(capacity).create_bytes_in(segment)
    }

    pub(crate) fn make(
        segment: &Segment,
        options: &QueueOptions,
    ) -> Result<ByteQueue, CreateError> {
        let kind = if options.is_channel { Kind::BytesChannel } else { Kind::Bytes };
        ByteQueue::make_kind(segment, options, kind.named::<()>())
    }

    /// The queue of envelopes below it.
    pub(crate) fn envelopes(&self) -> &Queue<Envelope> {
        &self.envelopes
    }

    pub(super) fn make_kind(
        segment: &Segment,
        options: &QueueOptions,
        kind: u64,
    ) -> Result<ByteQueue, CreateError> {
        Ok(ByteQueue { envelopes: Queue::make(segment, options, kind)? })
    }

    /// Opens the queue that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is no queue
    /// of bytes.
    pub fn open(segment: &Segment, handle: Handle) -> Result<ByteQueue, Fault> {
        ByteQueue::open_kind(segment, handle, Kind::Bytes.named::<()>())
    }

    pub(crate) fn open_kind(
        segment: &Segment,
        handle: Handle,
        kind: u64,
    ) -> Result<ByteQueue, Fault> {
        Ok(ByteQueue { envelopes: Queue::open_kind(segment, handle, kind)? })
    }

    /// The queue's name. It can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.envelopes.handle()
    }

    /// Another handle of the same queue, whose blocked operations wait as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> ByteQueue {
        ByteQueue { envelopes: self.envelopes.with_wait(wait) }
    }

    /// Memory for a message of `len` bytes, to be filled in place and then sent.
    ///
    /// At first it contains whatever lies there: some earlier message, or zero. It takes no slot
    /// until it is sent, so a loan holds nobody up, and any number of them can be filled at a time.
    /// It keeps the queue like a handle, and may go to another thread.
    ///
    /// # Blocking
    /// Never waits.
    ///
    /// # Peer death
    /// If the process is killed with the loan, nothing was sent, and the memory is given back.
    ///
    /// # Errors
    /// [`CreateError::OutOfMemory`] or [`CreateError::NoPages`] if there is no memory;
    /// [`CreateError::Fault`] if the queue cannot be used.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::ByteQueue::with_capacity(2)?;
    /// let mut loan = queue.loan(5)?;
    /// loan.copy_from_slice(b"hello");
    /// loan.send()?;
    /// drop(queue.loan(1_000_000)?); // Sends nothing.
    /// assert_eq!(*queue.recv()?, *b"hello");
    /// assert!(queue.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Always: what is built elsewhere would be copied, and a copy of what was just written waits
    // for the writes.
    #[inline(always)]
    pub fn loan(&self, len: usize) -> Result<Loan, CreateError> {
        let object = &self.envelopes.shared.object;
        let maker = match object.known() {
            Some(place) => place.peer(),
            None => object.enter()?.peer(),
        };
        if len <= SHORT {
            let bytes = Bytes::Short { len, buffer: Box::new([0; SHORT]) };
            return Ok(Loan { queue: self.clone(), maker, bytes });
        }
        let holder = object.holder()?;
        // SAFETY: the loan has the queue, too, which keeps its mapping.
        let parcel = match unsafe { Parcel::at_hand(&holder, len) } {
            Some(parcel) => parcel,
            None => ByteQueue::another_parcel(&holder, len)?,
        };
        Ok(Loan { queue: self.clone(), maker, bytes: Bytes::Long(parcel) })
    }

    #[inline(never)]
    fn another_parcel(holder: &Holder<'_>, len: usize) -> Result<Parcel, AllocError> {
        // SAFETY: as in `loan`, the only caller.
        let parcel = || unsafe { Parcel::new(holder, len) };
        match parcel() {
            Err(error) if holder.make_room(&error) => parcel(),
            result => result,
        }
    }

    /// Sends a copy of `bytes`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the message (release to
    /// acquire).
    ///
    /// # Errors
    /// [`SendError::Rejected`] if there is no memory; [`SendError::Closed`] or
    /// [`SendError::Broken`].
    pub fn send(&self, bytes: &[u8]) -> Result<(), SendError<(), CreateError>> {
        self.put(bytes, Forever)
    }

    /// Sends a copy of `bytes` if a slot is free right now.
    ///
    /// # Errors
    /// As [`ByteQueue::send`], or [`TrySendError::Full`].
    pub fn try_send(&self, bytes: &[u8]) -> Result<(), TrySendError<(), CreateError>> {
        self.put(bytes, Once)
    }

    /// Sends a copy of `bytes`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`ByteQueue::send`], or [`SendTimeoutError::Timeout`].
    pub fn send_timeout(
        &self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<(), CreateError>> {
        self.put(bytes, Deadline::after(timeout))
    }

    /// Sends a copy of `bytes`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`ByteQueue::send_timeout`].
    pub fn send_deadline(
        &self,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<(), CreateError>> {
        self.put(bytes, Deadline::at(deadline))
    }

    /// Reads a message of `len` bytes from `reader`, straight into shared memory, and sends it.
    ///
    /// # Errors
    /// What the reader says, [`io::ErrorKind::UnexpectedEof`] if it has fewer bytes, or the error
    /// of the loan or of the send as an [`io::Error`]. Nothing was sent then.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::ByteQueue::with_capacity(2)?;
    /// let mut file = &b"hello, world"[..];
    /// queue.send_from(&mut file, 5)?;
    /// assert_eq!(*queue.recv()?, *b"hello");
    /// assert_eq!(file, b", world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_from(&self, mut reader: impl Read, len: usize) -> io::Result<()> {
        let mut loan = self.loan(len).map_err(io::Error::other)?;
        reader.read_exact(&mut loan)?;
        loan.send().map_err(|error| io::Error::other(error.to_string()))
    }

    /// Receives a message in place, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Closed`] once the queue is closed and everything in it has been received;
    /// [`RecvError::Broken`].
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        Ok(self.get(Forever)?)
    }

    /// Receives a message in place if there is one right now.
    ///
    /// # Errors
    /// As [`ByteQueue::recv`], or [`TryRecvError::Empty`].
    pub fn try_recv(&self) -> Result<Message<'_>, TryRecvError> {
        Ok(self.get(Once)?)
    }

    /// Receives a message in place, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::recv`], or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvTimeoutError> {
        Ok(self.get(Deadline::after(timeout))?)
    }

    /// Receives a message in place, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`ByteQueue::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Message<'_>, RecvTimeoutError> {
        Ok(self.get(Deadline::at(deadline))?)
    }

    /// Receives a message into `buffer`, in place of what it contains, waiting as long as it takes.
    /// Returns its length.
    ///
    /// # Errors
    /// As [`ByteQueue::recv`]; `buffer` is unchanged.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::ByteQueue::with_capacity(2)?;
    /// queue.send(b"hello")?;
    /// let mut buffer = vec![1, 2, 3];
    /// assert_eq!(queue.recv_into(&mut buffer)?, 5);
    /// assert_eq!(buffer, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_into(&self, buffer: &mut Vec<u8>) -> Result<usize, RecvError> {
        let message = self.recv()?;
        buffer.clear();
        buffer.extend_from_slice(&message);
        Ok(message.len())
    }

    /// Iterates over the messages: waits for each, and ends when the queue is closed and empty, or
    /// broken.
    pub fn iter(&self) -> Messages<'_> {
        Messages { queue: self, end: None }
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.envelopes.capacity()
    }

    /// Number of messages; see [`Queue::len`].
    pub fn len(&self) -> usize {
        self.envelopes.len()
    }

    /// Whether no message can be received right now. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }

    /// Whether no slot is free right now. A snapshot.
    pub fn is_full(&self) -> bool {
        self.envelopes.is_full()
    }

    /// Number of messages that were lost because their receiver was killed; see [`Queue::lost`].
    pub fn lost(&self) -> u64 {
        self.envelopes.lost()
    }

    /// Closes the queue for good; see [`Queue::close`].
    pub fn close(&self) {
        self.envelopes.close();
    }

    /// Whether the queue was closed. `true` is final; receivers may still find messages.
    pub fn is_closed(&self) -> bool {
        self.envelopes.is_closed()
    }

    fn put<U: Until>(&self, bytes: &[u8], until: U) -> Result<(), PutError<U>>
    where
        Stop<U::Late>: SendStop,
    {
        let stopped = |stop: Stop<U::Late>| stop.with(());
        if bytes.len() <= SHORT {
            return self.put_short(bytes, None, until).map_err(stopped);
        }
        self.look_for_space(until).map_err(stopped)?;
        let mut loan = match self.loan(bytes.len()) {
            Ok(loan) => loan,
            Err(CreateError::Fault(fault)) => return Err(stopped(Stop::Broken(fault))),
            Err(error) => {
                let rejected = || <Stop<U::Late> as SendStop>::rejected((), error);
                return Err(self.over().map_or_else(rejected, |stop| stopped(stop.widen())));
            }
        };
        loan.copy_from_slice(bytes);
        loan.put(None, until).map_err(stopped)
    }

    /// For use before memory is taken for a message that is not to wait: a full queue costs none.
    pub(super) fn look_for_space<U: Until>(&self, until: U) -> Result<(), Stop<U::Late>> {
        if matches!(until.limit(), Limit::None(_)) && self.is_full() {
            // A dead process may have a slot, which can be claimed all the same. It is given back,
            // as a slot that is claimed for long holds up the others.
            drop(self.envelopes.claim_for_writing(until)?);
        }
        Ok(())
    }

    /// Why nothing can be sent any more, for use where there is no memory: this is final, and no
    /// memory is not.
    pub(super) fn over(&self) -> Option<Stop<Never>> {
        self.envelopes.shared.over(End::Write)
    }

    /// Sends at most [`SHORT`] bytes, or
    /// [`SHORT_WITH_FLIGHT`](crate::object::parcel::SHORT_WITH_FLIGHT).
    pub(crate) fn put_short<U: Until>(
        &self,
        bytes: &[u8],
        flight: Option<Flight<'_>>,
        until: U,
    ) -> Result<(), Stop<U::Late>> {
        let mut slot = self.envelopes.claim_for_writing(until)?;
        let flight = self.carry(flight, &slot).map_err(Stop::Broken)?;
        slot.put(bytes, flight);
        slot.commit();
        Ok(())
    }

    /// Hands the flight over to a slot that was claimed for its message.
    fn carry(
        &self,
        flight: Option<Flight<'_>>,
        slot: &Reservation<'_, Envelope>,
    ) -> Result<Option<Carried>, Fault> {
        let carry = |flight: Flight<'_>| {
            flight.carry(self.envelopes.carrier(slot.position())).ok_or(Fault::Corrupt)
        };
        flight.map(carry).transpose()
    }

    /// The flight of these objects, all of which this process holds.
    pub(super) fn flight(&self, names: &[Name]) -> Result<Flight<'_>, CreateError> {
        let object = &self.envelopes.shared.object;
        object.enter()?;
        Ok(Flight::new(&object.holder()?, names)?)
    }

    pub(crate) fn object(&self) -> &Object<QueueBlock<Envelope>> {
        self.envelopes.object()
    }

    pub(crate) fn get<U: Until>(&self, until: U) -> Result<Message<'_>, Stop<U::Late>> {
        let received = self.envelopes.get(until)?;
        // A copy: a peer may write over the slot, and what is checked must be what is used.
        let envelope = *received;
        let contents = match envelope.short_len() {
            Some(len) => Place::Short { has_flight: envelope.has_flight(), len },
            None => {
                let (holder, carrier) = self.carried_by(&received).map_err(Stop::Broken)?;
                // Dropping `received` gives the slot back, so that the next message can be
                // received.
                let contents = Contents::find(&holder, &envelope, carrier);
                let not_there = || Stop::Broken(holding::not_there(holder.mapping()));
                Place::Long(contents.ok_or_else(not_there)?)
            }
        };
        let mut message = Message { queue: self, received: Some(received), contents, flight: None };
        if envelope.has_flight() {
            message.flight = Some(message.find_flight(&envelope).map_err(Stop::Broken)?);
        }
        Ok(message)
    }

    /// What is needed to find the blocks of a received message.
    fn carried_by(
        &self,
        received: &Received<'_, Envelope>,
    ) -> Result<(Holder<'_>, Carrier), Fault> {
        let holder = self.envelopes.shared.object.holder()?;
        Ok((holder, self.envelopes.carrier(received.claim().position())))
    }
}

/// The error of sending bytes.
type PutError<U> = <Stop<<U as Until>::Late> as SendStop>::Error<(), CreateError>;

/// Another handle of the same queue.
impl Clone for ByteQueue {
    fn clone(&self) -> Self {
        ByteQueue { envelopes: self.envelopes.clone() }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the queue.
/// Elsewhere the queue's [`Handle`].
impl Serialize for ByteQueue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.envelopes.serialize(serializer)
    }
}

/// Opens the queue. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de> Deserialize<'de> for ByteQueue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| ByteQueue::open(segment, handle))
    }
}

impl fmt::Debug for ByteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteQueue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a ByteQueue {
    type Item = Message<'a>;
    type IntoIter = Messages<'a>;

    fn into_iter(self) -> Messages<'a> {
        self.iter()
    }
}

/// Memory for a message, to be filled and sent. Made by [`ByteQueue::loan`].
///
/// Dereferences to the bytes. If it is dropped instead of sent, nothing is sent.
///
/// It keeps the queue, as any handle does. It is no end of a channel: once the last sender of all
/// processes is gone, sending it is [`SendError::Disconnected`].
///
/// # Fork
/// It belongs to the process that made it. In a forked child it is inert, and using it panics. A
/// loan that a child's closure captured is given back when the parent drops the closure.
#[must_use = "a loan that is dropped sends nothing"]
pub struct Loan {
    queue: ByteQueue,
    /// The process that made it.
    maker: PeerId,
    bytes: Bytes,
}

/// The bytes of a loan, until they are sent.
enum Bytes {
    /// In this process's own memory. Boxed, as errors contain the loan.
    Short {
        len: usize,
        buffer: Box<[u8; SHORT]>,
    },
    Long(Parcel),
    /// They have been sent.
    Gone,
}

impl Loan {
    /// Sends the message, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before is visible to the receiver of the message (release to acquire).
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::Disconnected`] or [`SendError::Broken`], with the loan;
    /// it is empty if its memory was written over.
    ///
    /// # Panics
    /// In a forked child of the process that made the loan.
    pub fn send(self) -> Result<(), SendError<Loan>> {
        self.put_or_return(Forever)
    }

    /// Sends the message if a slot is free right now.
    ///
    /// # Errors
    /// As [`Loan::send`], or [`TrySendError::Full`], with the loan.
    ///
    /// # Panics
    /// As [`Loan::send`].
    pub fn try_send(self) -> Result<(), TrySendError<Loan>> {
        self.put_or_return(Once)
    }

    /// Sends the message, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`Loan::send`], or [`SendTimeoutError::Timeout`], with the loan.
    ///
    /// # Panics
    /// As [`Loan::send`].
    pub fn send_timeout(self, timeout: Duration) -> Result<(), SendTimeoutError<Loan>> {
        self.put_or_return(Deadline::after(timeout))
    }

    /// Sends the message, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Loan::send_timeout`].
    ///
    /// # Panics
    /// As [`Loan::send`].
    pub fn send_deadline(self, deadline: Instant) -> Result<(), SendTimeoutError<Loan>> {
        self.put_or_return(Deadline::at(deadline))
    }

    fn put_or_return<U: Until>(mut self, until: U) -> Result<(), SendErrorOf<U, Loan>>
    where
        Stop<U::Late>: SendStop,
    {
        self.put(None, until).map_err(|stop| stop.with(self))
    }

    /// Sends the message, and `flight` with it. Afterwards the loan is empty.
    pub(super) fn put<U: Until>(
        &mut self,
        flight: Option<Flight<'_>>,
        until: U,
    ) -> Result<(), Stop<U::Late>> {
        self.check();
        let mut slot = self.queue.envelopes.claim_for_writing(until)?;
        let flight = self.queue.carry(flight, &slot).map_err(Stop::Broken)?;
        match std::mem::replace(&mut self.bytes, Bytes::Gone) {
            Bytes::Short { len, buffer } => slot.put(&buffer[..len], flight),
            Bytes::Gone => return Err(Stop::Broken(Fault::Corrupt)),
            Bytes::Long(parcel) => {
                let holder = self.queue.envelopes.shared.object.holder().map_err(Stop::Broken)?;
                let carrier = self.queue.envelopes.carrier(slot.position());
                if !parcel.carry(&holder, carrier, &mut slot, flight) {
                    return Err(Stop::Broken(Fault::Corrupt));
                }
            }
        }
        slot.commit();
        Ok(())
    }

    /// Makes a loan with memory of its own shorter.
    pub(super) fn shorten(&mut self, len: usize) {
        if let Bytes::Long(parcel) = &mut self.bytes {
            parcel.shorten(len);
        }
    }

    /// Whether this is the process that made it.
    fn is_ours(&self) -> bool {
        self.queue.envelopes.shared.object.is_me(self.maker)
    }

    #[track_caller]
    fn check(&self) {
        assert!(self.is_ours(), "a loan of the parent's was used in a forked child");
    }
}

impl Deref for Loan {
    type Target = [u8];

    #[track_caller]
    fn deref(&self) -> &[u8] {
        self.check();
        match &self.bytes {
            Bytes::Short { len, buffer } => &buffer[..*len],
            Bytes::Long(parcel) => parcel.bytes(),
            Bytes::Gone => &[],
        }
    }
}

impl DerefMut for Loan {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.check();
        match &mut self.bytes {
            Bytes::Short { len, buffer } => &mut buffer[..*len],
            Bytes::Long(parcel) => parcel.bytes_mut(),
            Bytes::Gone => &mut [],
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Bytes::Long(parcel) = &self.bytes
            && self.is_ours()
            && let Ok(holder) = self.queue.envelopes.shared.object.holder()
        {
            // In its place: see `loan`.
            parcel.give_back(&holder);
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = match &self.bytes {
            Bytes::Short { len, .. } => *len,
            Bytes::Long(parcel) => parcel.len(),
            Bytes::Gone => 0,
        };
        f.debug_struct("Loan").field("len", &len).finish_non_exhaustive()
    }
}

/// A received message, read in place. Made by [`ByteQueue::recv`].
///
/// Dereferences to the bytes. The message is done when this is dropped, and then its slot and its
/// memory are given back; see [`Received`].
///
/// One that is forgotten ([`std::mem::forget`]) keeps its slot and its memory until the process has
/// dropped its last handle of the queue or has ended.
///
/// # Fork
/// It belongs to the process that received it. In a forked child it is inert, and using it panics.
#[must_use = "dropping the message gives it back"]
pub struct Message<'a> {
    queue: &'a ByteQueue,
    /// `None` once it was given back.
    received: Option<Received<'a, Envelope>>,
    contents: Place<'a>,
    flight: Option<Arrived>,
}

/// Where the bytes of a message lie, as it was found when the message was received.
#[derive(Debug)]
enum Place<'a> {
    /// In its slot.
    Short {
        has_flight: bool,
        len: usize,
    },
    Long(Contents<'a>),
}

impl Place<'_> {
    const NONE: Place<'static> = Place::Short { has_flight: false, len: 0 };
}

impl Message<'_> {
    fn find_flight(&self, envelope: &Envelope) -> Result<Arrived, Fault> {
        let received = self.received.as_ref().ok_or(Fault::Corrupt)?;
        let (holder, carrier) = self.queue.carried_by(received)?;
        let arrived = Arrived::find(&holder, envelope, carrier);
        arrived.ok_or_else(|| holding::not_there(holder.mapping()))
    }

    /// The objects that the message holds, as long as this process has it.
    pub(crate) fn names(&self) -> &[Name] {
        self.flight.as_ref().map_or(&[], Arrived::names)
    }

    /// Whether an earlier receiver was killed with this message. That receiver may have acted on
    /// it, in part or wholly.
    pub fn redelivered(&self) -> bool {
        self.received.as_ref().is_some_and(Received::redelivered)
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    #[track_caller]
    fn deref(&self) -> &[u8] {
        let bytes = self.received.as_ref().and_then(|received| match &self.contents {
            Place::Short { has_flight, len } => Some(received.short(*has_flight, *len)),
            Place::Long(contents) => contents.bytes(received.claim()),
        });
        bytes.unwrap_or_default()
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        let Some(received) = self.received.take() else {
            return;
        };
        let is_ours = received.is_ours();
        // The slot first: until it is released, the blocks belong to the message.
        drop(received);
        let contents = std::mem::replace(&mut self.contents, Place::NONE);
        let flight = self.flight.take();
        if matches!((&contents, &flight), (Place::Short { .. }, None)) || !is_ours {
            return;
        }
        if let Ok(holder) = self.queue.envelopes.shared.object.holder() {
            if let Place::Long(contents) = contents {
                contents.discard(&holder);
            }
            if let Some(flight) = flight {
                flight.discard(&holder);
            }
        }
    }
}

/// Prints no byte of the message, and does not panic in a forked child.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = f.debug_struct("Message");
        if self.received.as_ref().is_some_and(Received::is_ours) {
            printed.field("len", &self.len());
        }
        printed.field("redelivered", &self.redelivered()).finish_non_exhaustive()
    }
}

/// Receives one message after the other, waiting for each. Made by [`ByteQueue::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Messages<'a> {
    queue: &'a ByteQueue,
    end: Option<RecvError>,
}

impl Messages<'_> {
    /// Why the iteration ended: `Closed` or `Broken`; `None` before the end.
    pub fn end(&self) -> Option<RecvError> {
        self.end
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.end.is_some() {
            return None;
        }
        self.queue.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

/// `Closed` and `Broken` are both final.
impl FusedIterator for Messages<'_> {}
