//! Channels: queues with two kinds of ends, which end when all senders or all receivers are gone.
//!
//! - this file: [`channel`], for values of any type.
//! - [`plain`]: for plain values. [`bytes`]: for messages of any length.
//! - `ended`: a queue and one of its ends.

pub mod bytes;
mod ended;
pub mod plain;
#[cfg(test)]
mod tests;

use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use ended::Ended;

use crate::object::CreateError;
use crate::object::block::ends::Role;
use crate::object::kind::Kind;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::queue::{DecodeError, EncodeError, ObjectQueue, QueueOptions};
use crate::segment::Segment;

/// Makes a channel of `capacity` slots for values of any type that serde knows, in the commons.
///
/// Both ends can be cloned, and captured by the closures of children. A message is received once,
/// by one receiver. When the last sender of all processes is gone, because it was dropped or
/// because its process ended or was killed, receivers get what is left and then `Disconnected`.
/// When the last receiver is gone, senders get their value back with `Disconnected`.
///
/// For plain numbers and structs [`plain::channel`] is faster; for bytes that are written and read
/// in place there is [`bytes::channel`]. A [`Queue`](crate::Queue) or an [`ObjectQueue`] has
/// handles that are all equal, and is closed when somebody calls `close`.
///
/// # Ends in messages
/// An end can be sent in a message of another channel, or of an [`ObjectQueue`]. It counts while
/// the message carries it, and afterwards for the receiver. If the message is lost, so is the end.
/// Both channels must lie in the same segment.
///
/// A child can return an end, too, alone or as part of a value. It counts until the parent has it.
///
/// An end in a message of its own channel counts, too. So receivers that have only such senders
/// left wait until one of them takes the end out.
///
/// In text such as JSON, an end is the channel's name. Reading it makes another end, as long as
/// there is one of this role.
///
/// # Fork
/// An end that the closure of a child captured is the child's, and no longer the parent's. Ends
/// that merely lie in a child's memory, because its parent had them, keep nothing open. If the
/// child uses such an end all the same (through a static, say), it counts from then on.
///
/// An end in an `Arc` or an `Rc` that the parent keeps is not dropped with the closure. The child's
/// copy counts from its first use. Capture a clone of the end instead.
///
/// The child begins when its parent has dropped the closure. So a captured value must not wait in
/// its `Drop` for what the child does: it would wait for ever.
///
/// A child that becomes another program has no ends any more. One that never used this crate's
/// shared memory before is an exception: its ends count until the other program ends.
///
/// # Errors
/// [`CreateError::Capacity`] for 0 and for more than 2^24 slots; [`CreateError::OutOfMemory`] or
/// [`CreateError::NoPages`] if there is no memory.
///
/// # Examples
/// ```
/// use offspring::Sender;
///
/// fn list(names: Sender<String>) {
///     for name in ["Ada", "Grace"] {
///         names.send(name.to_string()).unwrap();
///     }
/// }
///
/// let (sender, receiver) = offspring::channel(16)?;
/// let child = offspring::spawn(list, sender)?;
/// // Ends when the child has ended, however it ends.
/// assert_eq!(receiver.iter().collect::<Vec<_>>(), ["Ada", "Grace"]);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// Each request brings the sender for its answers. They end when the worker has dropped it, or
/// died:
/// ```
/// use offspring::{Receiver, Sender};
///
/// fn work(jobs: Receiver<(u64, Sender<u64>)>) {
///     for (number, answers) in &jobs {
///         (1..=number).for_each(|n| answers.send(n * n).unwrap());
///     }
/// }
///
/// let (requests, jobs) = offspring::channel(4)?;
/// let worker = offspring::spawn(work, jobs)?;
/// let (sender, answers) = offspring::channel(16)?;
/// requests.send((3, sender))?;
/// assert_eq!(answers.iter().collect::<Vec<u64>>(), [1, 4, 9]);
/// drop(requests);
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), CreateError> {
    QueueOptions::new().capacity(capacity).create_channel()
}

impl QueueOptions {
    /// Makes a [`channel`] in the commons.
    ///
    /// # Errors
    /// As [`channel`].
    pub fn create_channel<T>(&self) -> Result<(Sender<T>, Receiver<T>), CreateError> {
        self.create_channel_in(&Segment::commons()?)
    }

    /// Makes a [`channel`] in `segment`.
    ///
    /// # Errors
    /// As [`channel`].
    pub fn create_channel_in<T>(
        &self,
        segment: &Segment,
    ) -> Result<(Sender<T>, Receiver<T>), CreateError> {
        let queue = ObjectQueue::make(segment, &self.of_channel())?;
        let sender = Sender { ended: Ended::first(queue.clone(), Role::Sender)? };
        Ok((sender, Receiver { ended: Ended::first(queue, Role::Receiver)? }))
    }

    /// The same, for the queue of a channel.
    fn of_channel(&self) -> QueueOptions {
        QueueOptions { is_channel: true, ..self.clone() }
    }
}

/// The sending end of a [`channel`].
///
/// Cloning it makes another end. The channel is disconnected when the last one in all processes is
/// gone.
///
/// # Peer death
/// As [`ObjectQueue`]. If the last receiver's process is killed, blocked senders get `Disconnected`
/// within 100 ms.
///
/// # Examples
/// ```
/// let (sender, receiver) = offspring::channel::<u8>(1)?;
/// drop(receiver);
/// assert_eq!(sender.send(7).unwrap_err().into_inner(), 7);
/// # Ok::<(), offspring::CreateError>(())
/// ```
pub struct Sender<T> {
    ended: Ended<ObjectQueue<T>>,
}

impl<T: Serialize + DeserializeOwned> Sender<T> {
    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the value (release to
    /// acquire).
    ///
    /// # Errors
    /// [`SendError::Disconnected`] if every receiver is gone; [`SendError::Rejected`] if the value
    /// cannot be encoded or there is no memory for it; [`SendError::Broken`]. All with the value.
    pub fn send(&self, value: T) -> Result<(), SendError<T, EncodeError>> {
        self.ended.queue().send(value)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`TrySendError::Full`], with the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T, EncodeError>> {
        self.ended.queue().try_send(value)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`SendTimeoutError::Timeout`], with the value.
    pub fn send_timeout(
        &self,
        value: T,
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<T, EncodeError>> {
        self.ended.queue().send_timeout(value, timeout)
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send_timeout`].
    pub fn send_deadline(
        &self,
        value: T,
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<T, EncodeError>> {
        self.ended.queue().send_deadline(value, deadline)
    }
}

ended::sender!([T] Sender<T>);

/// The receiving end of a [`channel`].
///
/// Cloning it makes another end, and each message goes to one of them. Iterating over a reference
/// receives until the channel is disconnected.
///
/// # Peer death
/// As [`ObjectQueue`]. If the last sender's process is killed, blocked receivers get what is left
/// and then `Disconnected`, within 100 ms.
pub struct Receiver<T> {
    ended: Ended<ObjectQueue<T>>,
}

impl<T: Serialize + DeserializeOwned> Receiver<T> {
    /// Receives a value, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the value is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once every sender is gone and everything was received;
    /// [`RecvError::Rejected`] if a message cannot be decoded: it was taken out, and the next one
    /// is not affected; [`RecvError::Broken`].
    pub fn recv(&self) -> Result<T, RecvError<DecodeError>> {
        self.ended.queue().recv()
    }

    /// Receives a value if there is one right now.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`TryRecvError::Empty`].
    pub fn try_recv(&self) -> Result<T, TryRecvError<DecodeError>> {
        self.ended.queue().try_recv()
    }

    /// Receives a value, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError<DecodeError>> {
        self.ended.queue().recv_timeout(timeout)
    }

    /// Receives a value, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError<DecodeError>> {
        self.ended.queue().recv_deadline(deadline)
    }

    /// Iterates over the values: waits for each, and ends when the channel is disconnected, broken,
    /// or a message cannot be decoded. [`ReceiverIter::end`] says why.
    pub fn iter(&self) -> ReceiverIter<'_, T> {
        ReceiverIter { receiver: self, end: None }
    }
}

ended::receiver!([T] Receiver<T>, for<'a> [T: Serialize + DeserializeOwned] T, by ReceiverIter<'a, T>);

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            ObjectQueue::open_kind(segment, handle, Kind::ObjectsChannel)
        };
        let ended = Ended::deserialize(Role::Sender, deserializer, open)?;
        Ok(Sender { ended })
    }
}

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            ObjectQueue::open_kind(segment, handle, Kind::ObjectsChannel)
        };
        let ended = Ended::deserialize(Role::Receiver, deserializer, open)?;
        Ok(Receiver { ended })
    }
}

/// Receives one value after the other, waiting for each. Made by [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct ReceiverIter<'a, T> {
    receiver: &'a Receiver<T>,
    end: Option<RecvError<DecodeError>>,
}

impl<T> ReceiverIter<'_, T> {
    /// Why the iteration ended; `None` before the end.
    pub fn end(&self) -> Option<&RecvError<DecodeError>> {
        self.end.as_ref()
    }
}

impl<T: Serialize + DeserializeOwned> Iterator for ReceiverIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.end.is_some() {
            return None;
        }
        self.receiver.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

impl<T: Serialize + DeserializeOwned> FusedIterator for ReceiverIter<'_, T> {}
