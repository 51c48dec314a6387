//! A queue of values of any type that serde knows.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::heap::flight::Name;
use crate::object::attempt::{Forever, Once, Until};
use crate::object::kind::Kind;
use crate::object::parcel::{SHORT, SHORT_WITH_FLIGHT};
use crate::object::serial::Passenger;
use crate::object::transfer::{
    RecvError, RecvReject, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop,
    TryRecvError, TrySendError,
};
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::primitive::{AtomicU32, Ordering};
use crate::queue::bytes::{ByteQueue, Loan};
use crate::queue::{QueueOptions, codec};
use crate::segment::Segment;
use crate::sync::Wait;
use crate::sys::clock::Deadline;

/// A bounded first-in-first-out queue of values of any type that serde knows: `String`, `Vec`,
/// enums, maps, your own structs. Any number of senders and receivers in any processes and threads.
///
/// A value is encoded straight into shared memory, with [postcard](https://docs.rs/postcard), and
/// decoded from a copy of that. In everything else it is a [`ByteQueue`]. For numbers and plain
/// structs [`Queue`](crate::Queue) is faster, as it encodes nothing.
///
/// Text and a `Vec<u8>` are copied as a whole. A `Vec<u8>` within another value is encoded byte by
/// byte, unless the field says `#[serde(with = "serde_bytes")]`.
///
/// # Peer death
/// As [`ByteQueue`]. What a process has sent stays when it exits.
///
/// # Handles in messages
/// A [`Queue`](crate::Queue), [`Lock`](crate::Lock), [`Value`](crate::Value),
/// [`Event`](crate::Event), [`ShmArc`](crate::ShmArc), [`ByteQueue`], `ObjectQueue` or an end of a
/// channel can be part of a value. The message holds the object, so the receiver gets a handle that
/// works, even if the sender has dropped its own, has exited or was killed. The object must lie in
/// the same segment as this queue. Each such message takes one more block of the segment.
///
/// A queue in a message of its own holds itself, and stays until it is received or the segment
/// ends.
///
/// A [`Handle`] in a message is a name and holds nothing, and so is any of these objects in text
/// such as JSON.
///
/// # Errors
/// As [`ByteQueue`]; `Rejected` also for a value that cannot be encoded ([`EncodeError`]) and for a
/// message that cannot be decoded ([`DecodeError`]). Send errors give the value back.
///
/// # Examples
/// ```
/// use offspring::ObjectQueue;
///
/// fn list(names: ObjectQueue<String>) {
///     names.send("Ada".to_string()).unwrap();
///     names.send("Grace ".repeat(100_000)).unwrap();
/// }
///
/// let names = ObjectQueue::with_capacity(16)?;
/// let child = offspring::spawn(list, names.clone())?;
/// assert_eq!(names.recv()?, "Ada");
/// assert_eq!(names.recv()?.len(), 600_000);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// A request brings the queue for its answer, which did not exist when the worker was started:
/// ```
/// use offspring::{ObjectQueue, Queue};
///
/// fn square(requests: ObjectQueue<(u64, Queue<u64>)>) {
///     for request in &requests {
///         let (number, answer) = request.unwrap();
///         answer.send(number * number).unwrap();
///     }
/// }
///
/// let requests = ObjectQueue::with_capacity(16)?;
/// let worker = offspring::spawn(square, requests.clone())?;
///
/// let answer = Queue::with_capacity(1)?;
/// requests.send((7, answer.clone()))?;
/// assert_eq!(answer.recv()?, 49);
/// requests.close();
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ObjectQueue<T> {
    bytes: ByteQueue,
    /// 1 once what was encoded could be decoded.
    proven: Arc<AtomicU32>,
    values: PhantomData<fn(T) -> T>,
}

impl<T> ObjectQueue<T> {
    /// Makes a queue of `capacity` slots in the commons.
    ///
    /// Each slot takes 256 bytes. A value that takes more than 240 bytes when it is encoded takes
    /// memory of its own.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`](crate::Queue::with_capacity).
    pub fn with_capacity(capacity: usize) -> Result<ObjectQueue<T>, CreateError> {
        QueueOptions::new().capacity(capacity).create_objects()
    }

    /// Makes a queue of `capacity` slots in `segment`.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`](crate::Queue::with_capacity).
    pub fn with_capacity_in(
        segment: &Segment,
        capacity: usize,
    ) -> Result<ObjectQueue<T>, CreateError> {
        QueueOptions::new().capacity(capacity).create_objects_in(segment)
    }

    pub(crate) fn make(
        segment: &Segment,
        options: &QueueOptions,
    ) -> Result<ObjectQueue<T>, CreateError> {
        let kind = if options.is_channel { Kind::ObjectsChannel } else { Kind::Objects };
        let bytes = ByteQueue::make_kind(segment, options, kind.named::<T>())?;
        Ok(ObjectQueue::from_bytes(bytes))
    }

    /// Opens the queue that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is not a
    /// queue of objects of a type with this name.
    pub fn open(segment: &Segment, handle: Handle) -> Result<ObjectQueue<T>, Fault> {
        ObjectQueue::open_kind(segment, handle, Kind::Objects)
    }

    pub(crate) fn open_kind(
        segment: &Segment,
        handle: Handle,
        kind: Kind,
    ) -> Result<ObjectQueue<T>, Fault> {
        let bytes = ByteQueue::open_kind(segment, handle, kind.named::<T>())?;
        Ok(ObjectQueue::from_bytes(bytes))
    }

    /// The queue of messages below it.
    pub(crate) fn bytes(&self) -> &ByteQueue {
        &self.bytes
    }

    pub(super) fn from_bytes(bytes: ByteQueue) -> ObjectQueue<T> {
        ObjectQueue { bytes, proven: Arc::new(AtomicU32::new(0)), values: PhantomData }
    }

    /// The queue's name. It can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.bytes.handle()
    }

    /// Another handle of the same queue, whose blocked operations wait as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> ObjectQueue<T> {
        ObjectQueue { bytes: self.bytes.with_wait(wait), ..self.clone() }
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Number of messages; see [`Queue::len`](crate::Queue::len).
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no message can be received right now. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether no slot is free right now. A snapshot.
    pub fn is_full(&self) -> bool {
        self.bytes.is_full()
    }

    /// Number of messages that were lost because their receiver was killed; see
    /// [`Queue::lost`](crate::Queue::lost).
    pub fn lost(&self) -> u64 {
        self.bytes.lost()
    }

    /// Closes the queue for good; see [`Queue::close`](crate::Queue::close).
    pub fn close(&self) {
        self.bytes.close();
    }

    /// Whether the queue was closed. `true` is final; receivers may still find messages.
    pub fn is_closed(&self) -> bool {
        self.bytes.is_closed()
    }
}

impl<T: Serialize + DeserializeOwned> ObjectQueue<T> {
    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// The first value that a handle (or a clone of it) sends is also decoded again, so that a type
    /// which can be encoded and not decoded is the sender's error. Such are types with untagged
    /// enums or skipped fields.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the value (release to
    /// acquire).
    ///
    /// # Errors
    /// [`SendError::Rejected`], [`SendError::Closed`] or [`SendError::Broken`], with the value.
    ///
    /// # Examples
    /// ```
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// #[serde(untagged)]
    /// enum Either {
    ///     Number(u64),
    ///     Text(String),
    /// }
    ///
    /// let queue = offspring::ObjectQueue::with_capacity(1)?;
    /// let error = queue.send(Either::Number(7)).unwrap_err();
    /// assert!(error.to_string().contains("cannot be decoded"));
    /// assert!(matches!(error.into_inner(), Either::Number(7)));
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T, EncodeError>> {
        self.put(value, Forever)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// As [`ObjectQueue::send`], or [`TrySendError::Full`], with the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T, EncodeError>> {
        self.put(value, Once)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`ObjectQueue::send`], or [`SendTimeoutError::Timeout`], with the value.
    pub fn send_timeout(
        &self,
        value: T,
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<T, EncodeError>> {
        self.put(value, Deadline::after(timeout))
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`ObjectQueue::send_timeout`].
    pub fn send_deadline(
        &self,
        value: T,
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<T, EncodeError>> {
        self.put(value, Deadline::at(deadline))
    }

    /// Receives a value, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the value is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Rejected`] if the message cannot be decoded: it was taken out, and the next one
    /// is not affected. [`RecvError::Closed`] once the queue is closed and everything in it has
    /// been received; [`RecvError::Broken`].
    pub fn recv(&self) -> Result<T, RecvError<DecodeError>> {
        self.take(Forever)
    }

    /// Receives a value if there is one right now.
    ///
    /// # Errors
    /// As [`ObjectQueue::recv`], or [`TryRecvError::Empty`].
    pub fn try_recv(&self) -> Result<T, TryRecvError<DecodeError>> {
        self.take(Once)
    }

    /// Receives a value, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`ObjectQueue::recv`], or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError<DecodeError>> {
        self.take(Deadline::after(timeout))
    }

    /// Receives a value, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`ObjectQueue::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError<DecodeError>> {
        self.take(Deadline::at(deadline))
    }

    /// Iterates over the values: waits for each, and ends when the queue is closed and empty, or
    /// broken. A message that cannot be decoded is an error in between.
    pub fn iter(&self) -> Objects<'_, T> {
        Objects { queue: self, ended: false }
    }

    fn put<U: Until>(&self, value: T, until: U) -> Result<(), PutError<U, T>>
    where
        Stop<U::Late>: SendStop,
    {
        // Most values are short, and need not be measured before.
        let mut buffer = [0; SHORT];
        let encoded = match self.encode_short(&value, &mut buffer) {
            Ok(Some(encoded)) => Ok(encoded),
            Ok(None) => match self.bytes.look_for_space(until) {
                Ok(()) => self.encode_long(&value),
                Err(stop) => return Err(stop.with(value)),
            },
            Err(error) => Err(error),
        };
        let encoded = encoded.and_then(|encoded| {
            self.prove(encoded.bytes(), &encoded.names)?;
            let is_needed = !encoded.names.is_empty();
            let flight = is_needed.then(|| self.bytes.flight(&encoded.names)).transpose()?;
            Ok((encoded, flight))
        });
        let (encoded, flight) = match encoded {
            Ok(both) => both,
            Err(EncodeError::Memory(CreateError::Fault(fault))) => {
                return Err(Stop::<U::Late>::Broken(fault).with(value));
            }
            Err(error) => {
                let no_memory = matches!(error, EncodeError::Memory(_));
                return Err(match no_memory.then(|| self.bytes.over()).flatten() {
                    Some(stop) => stop.widen::<U::Late>().with(value),
                    None => <Stop<U::Late> as SendStop>::rejected(value, error),
                });
            }
        };
        // What the message holds is held by this process until the flight does.
        let Encoded { place, names: _, _passengers } = encoded;
        let sent = match place {
            EncodedIn::Buffer(bytes) => self.bytes.put_short(bytes, flight, until),
            EncodedIn::Loan(mut loan) => loan.put(flight, until),
        };
        sent.map_err(|stop| stop.with(value))
    }

    /// Encodes a value for this queue, and finds the objects in it.
    fn pack<E>(
        &self,
        encode: impl FnOnce() -> postcard::Result<E>,
    ) -> Result<(postcard::Result<E>, Vec<Passenger>), EncodeError> {
        let (done, passengers, refused) = serial::pack(self.bytes.object(), encode);
        match (&done, refused) {
            (Err(_), Some(why)) => Err(EncodeError::Encode(why)),
            _ => Ok((done, passengers)),
        }
    }

    /// Encodes a short value; `None` if it is not.
    fn encode_short<'b>(
        &self,
        value: &T,
        buffer: &'b mut [u8],
    ) -> Result<Option<Encoded<'b>>, EncodeError> {
        let (used, passengers) = self.pack(|| codec::encode(value, buffer))?;
        match used {
            Ok(used) if passengers.is_empty() || used.len() <= SHORT_WITH_FLIGHT => {
                Ok(Some(Encoded::new(EncodedIn::Buffer(used), passengers)))
            }
            Ok(_) | Err(postcard::Error::SerializeBufferFull) => Ok(None),
            Err(error) => Err(EncodeError::encode(error)),
        }
    }

    /// Encodes a long value.
    fn encode_long(&self, value: &T) -> Result<Encoded<'_>, EncodeError> {
        let (len, _) = self.pack(|| codec::len(value))?;
        let len = len.map_err(EncodeError::encode)?;
        // Also what would fit into a slot, if there were no flight.
        let mut loan = self.bytes.loan(len.max(SHORT + 1))?;
        let (used, passengers) = self.pack(|| codec::encode(value, &mut loan))?;
        let most = if passengers.is_empty() { SHORT } else { SHORT_WITH_FLIGHT };
        if used.map_err(EncodeError::encode)?.len() != len || len <= most {
            return Err(EncodeError::Encode("its length changes".to_owned()));
        }
        loan.shorten(len);
        Ok(Encoded::new(EncodedIn::Loan(loan), passengers))
    }

    /// Makes sure that what was encoded can be decoded, the first time.
    fn prove(&self, encoded: &[u8], names: &[Name]) -> Result<(), EncodeError> {
        // Relaxed: to decode once more than needed does no harm.
        if self.proven.load(Ordering::Relaxed) == 0 {
            // It opens the objects in it, which this process holds, and lets go of them again.
            self.unpack(encoded, names).map_err(EncodeError::Decode)?;
            self.proven.store(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Decodes a value from a message that holds these objects.
    fn unpack(&self, encoded: &[u8], names: &[Name]) -> Result<T, String> {
        let (done, refused) =
            serial::unpack(self.bytes.object(), names, || codec::decode::<T>(encoded));
        done.map_err(|error| refused.unwrap_or_else(|| error.to_string()))
    }

    /// Sends these bytes as if they were a value.
    #[cfg(test)]
    pub(super) fn send_encoded(&self, bytes: &[u8]) -> Result<(), SendError<(), CreateError>> {
        self.bytes.send(bytes)
    }

    fn take<U: Until, E>(&self, until: U) -> Result<T, E>
    where
        E: From<Stop<U::Late>> + RecvReject<DecodeError>,
    {
        let message = self.bytes.get(until)?;
        let reject =
            |bytes: &[u8], cause| E::rejected(DecodeError { bytes: bytes.to_vec(), cause });
        // Its objects are opened while the slot is this process's, so that the message holds them.
        let unpack =
            |copy: &[u8]| self.unpack(copy, message.names()).map_err(|cause| reject(copy, cause));
        let bytes: &[u8] = &message;
        if let Some(decoded) = codec::decode_whole(bytes) {
            return decoded.map_err(|error| reject(bytes, error.to_string()));
        }
        // From a copy: a text is checked and then copied by whoever decodes it, and a peer that
        // writes over it in between would have made a `String` that is none.
        if bytes.len() <= SHORT {
            let mut copy = [0; SHORT];
            let copy = &mut copy[..bytes.len()];
            copy.copy_from_slice(bytes);
            unpack(copy)
        } else {
            let copy = bytes.to_vec();
            unpack(&copy)
        }
    }
}

/// A value as it is sent.
struct Encoded<'a> {
    place: EncodedIn<'a>,
    /// The objects in it.
    names: Vec<Name>,
    _passengers: Vec<Passenger>,
}

enum EncodedIn<'a> {
    /// The sender's own memory.
    Buffer(&'a [u8]),
    Loan(Loan),
}

impl<'a> Encoded<'a> {
    fn new(place: EncodedIn<'a>, passengers: Vec<Passenger>) -> Encoded<'a> {
        let names = passengers.iter().map(|passenger| passenger.name).collect();
        Encoded { place, names, _passengers: passengers }
    }

    fn bytes(&self) -> &[u8] {
        match &self.place {
            EncodedIn::Buffer(bytes) => bytes,
            EncodedIn::Loan(loan) => loan,
        }
    }
}

/// The error of sending a value.
type PutError<U, T> = <Stop<<U as Until>::Late> as SendStop>::Error<T, EncodeError>;

/// Why a value cannot be sent.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EncodeError {
    /// serde or postcard refuse it. The text is theirs.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),
    /// It can be encoded and not decoded again, so no receiver could read it. The text is
    /// postcard's.
    #[error(
        "the value cannot be decoded again ({0}): types with untagged enums, flattened or skipped fields need another form"
    )]
    Decode(String),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] CreateError),
}

impl EncodeError {
    fn encode(error: postcard::Error) -> EncodeError {
        EncodeError::Encode(error.to_string())
    }
}

/// A message that cannot be decoded, with its bytes: it was sent as another type, or was damaged.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("a message of {} bytes cannot be decoded: {cause}", bytes.len())]
#[non_exhaustive]
pub struct DecodeError {
    /// The message.
    pub bytes: Vec<u8>,
    /// What postcard said.
    pub cause: String,
}

/// One line, without the bytes.
impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Another handle of the same queue.
impl<T> Clone for ObjectQueue<T> {
    fn clone(&self) -> Self {
        let (bytes, proven) = (self.bytes.clone(), Arc::clone(&self.proven));
        ObjectQueue { bytes, proven, values: PhantomData }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the queue.
/// Elsewhere the queue's [`Handle`].
impl<T> Serialize for ObjectQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

/// Opens the queue. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de, T> Deserialize<'de> for ObjectQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| ObjectQueue::open(segment, handle))
    }
}

impl<T> fmt::Debug for ObjectQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectQueue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Serialize + DeserializeOwned> IntoIterator for &'a ObjectQueue<T> {
    type Item = Result<T, DecodeError>;
    type IntoIter = Objects<'a, T>;

    fn into_iter(self) -> Objects<'a, T> {
        self.iter()
    }
}

/// Receives one value after the other, waiting for each. Made by [`ObjectQueue::iter`].
///
/// # Examples
/// ```
/// let queue = offspring::ObjectQueue::<String>::with_capacity(4)?;
/// queue.send("one".to_string())?;
/// queue.send("two".to_string())?;
/// queue.close();
/// assert_eq!(queue.iter().collect::<Result<Vec<_>, _>>()?, ["one", "two"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Objects<'a, T> {
    queue: &'a ObjectQueue<T>,
    ended: bool,
}

impl<T: Serialize + DeserializeOwned> Iterator for Objects<'_, T> {
    type Item = Result<T, DecodeError>;

    fn next(&mut self) -> Option<Result<T, DecodeError>> {
        if self.ended {
            return None;
        }
        match self.queue.recv() {
            Ok(value) => Some(Ok(value)),
            Err(RecvError::Rejected(error)) => Some(Err(error)),
            Err(RecvError::Closed | RecvError::Disconnected | RecvError::Broken(_)) => {
                self.ended = true;
                None
            }
        }
    }
}

/// `Closed` and `Broken` are both final.
impl<T: Serialize + DeserializeOwned> FusedIterator for Objects<'_, T> {}
