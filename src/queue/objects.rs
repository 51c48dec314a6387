//! A queue of values of any type that serde knows.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::object::attempt::{Forever, Once, Until};
use crate::object::kind::Kind;
use crate::object::parcel::SHORT;
use crate::object::transfer::{
    RecvError, RecvReject, RecvTimeoutError, SendError, SendStop, SendTimeoutError, Stop,
    TryRecvError, TrySendError,
};
use crate::object::{CreateError, Handle};
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
/// decoded from a copy of that. In everything else it is a [`ByteQueue`]. For numbers and plain structs
/// [`Queue`](crate::Queue) is faster, as it encodes nothing.
///
/// Text and a `Vec<u8>` are copied as a whole. A `Vec<u8>` within another value is encoded byte by
/// byte, unless the field says `#[serde(with = "serde_bytes")]`.
///
/// # Peer death
/// As [`ByteQueue`]. What a process has sent stays when it exits.
///
/// # Handles in messages
/// A [`Handle`] in a message is a name and holds nothing: the sender keeps its object until the
/// receiver has opened it.
///
/// # Errors
/// As [`ByteQueue`]; `Rejected` also for a value that cannot be encoded ([`EncodeError`]) and for a
/// message that cannot be decoded ([`DecodeError`]). Send errors give the value back.
///
/// # Examples
/// ```standalone_crate
/// use offspring::ObjectQueue;
///
/// let names = ObjectQueue::<String>::with_capacity(16)?;
/// let sender = names.clone();
/// let child = offspring::fork(move || {
///     sender.send("Ada".to_string()).unwrap();
///     sender.send("Grace ".repeat(100_000)).unwrap();
/// })?;
/// assert_eq!(names.recv()?, "Ada");
/// assert_eq!(names.recv()?.len(), 600_000);
/// child.join()?;
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
    /// Each slot takes 128 bytes. A value that takes more than 112 bytes when it is encoded takes
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
        let bytes = ByteQueue::open_kind(segment, handle, Kind::Objects.named::<T>())?;
        Ok(ObjectQueue::from_bytes(bytes))
    }

    /// The queue of messages below it.
    pub(crate) fn bytes(&self) -> &ByteQueue {
        &self.bytes
    }

    fn from_bytes(bytes: ByteQueue) -> ObjectQueue<T> {
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
    /// is not affected. [`RecvError::Closed`] once the queue is closed and everything in it has been
    /// received; [`RecvError::Broken`].
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
        let encoded = match codec::encode(&value, &mut buffer) {
            Ok(used) => self.prove(used).map(|()| Encoded::Short(used)),
            Err(postcard::Error::SerializeBufferFull) => match self.bytes.look_for_space(until) {
                Ok(()) => self.encode(&value).map(Encoded::Long),
                Err(stop) => return Err(stop.with(value)),
            },
            Err(error) => Err(EncodeError::encode(error)),
        };
        let sent = match encoded {
            Ok(Encoded::Short(bytes)) => self.bytes.put_short(bytes, until),
            Ok(Encoded::Long(mut loan)) => loan.put(until),
            Err(EncodeError::Memory(CreateError::Fault(fault))) => Err(Stop::Broken(fault)),
            Err(error) => {
                let no_memory = matches!(error, EncodeError::Memory(_));
                match no_memory.then(|| self.bytes.over()).flatten() {
                    Some(stop) => Err(stop.widen()),
                    None => return Err(<Stop<U::Late> as SendStop>::rejected(value, error)),
                }
            }
        };
        sent.map_err(|stop| stop.with(value))
    }

    /// Encodes a long value.
    fn encode(&self, value: &T) -> Result<Loan, EncodeError> {
        let len = codec::len(value).map_err(EncodeError::encode)?;
        let mut loan = self.bytes.loan(len)?;
        let used = codec::encode(value, &mut loan).map_err(EncodeError::encode)?;
        if used.len() != len {
            return Err(EncodeError::Encode("its length changes".to_owned()));
        }
        self.prove(&loan)?;
        Ok(loan)
    }

    /// Makes sure that what was encoded can be decoded, the first time.
    fn prove(&self, encoded: &[u8]) -> Result<(), EncodeError> {
        // Relaxed: to decode once more than needed does no harm.
        if self.proven.load(Ordering::Relaxed) == 0 {
            codec::decode::<T>(encoded).map_err(|error| EncodeError::Decode(error.to_string()))?;
            self.proven.store(1, Ordering::Relaxed);
        }
        Ok(())
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
        let reject = |bytes: &[u8], error: postcard::Error| {
            E::rejected(DecodeError { bytes: bytes.to_vec(), cause: error.to_string() })
        };
        if let Some(decoded) = codec::decode_whole(&message) {
            return decoded.map_err(|error| reject(&message, error));
        }
        // From a copy: a text is checked and then copied by whoever decodes it, and a peer that
        // writes over it in between would have made a `String` that is none.
        if message.len() <= SHORT {
            let mut copy = [0; SHORT];
            let copy = &mut copy[..message.len()];
            copy.copy_from_slice(&message);
            codec::decode(copy).map_err(|error| reject(copy, error))
        } else {
            let copy = message.to_vec();
            codec::decode(&copy).map_err(|error| reject(&copy, error))
        }
    }
}

/// A value as it is sent.
enum Encoded<'a> {
    /// In the sender's own memory.
    Short(&'a [u8]),
    Long(Loan),
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
