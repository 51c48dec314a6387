//! Channels of messages of any length, which are written and read in place.

use std::io::{self, Read};
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::ended::{self, Ended};
use crate::object::CreateError;
use crate::object::block::ends::Role;
use crate::object::kind::Kind;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::queue::{ByteQueue, Loan, Message, QueueOptions};
use crate::segment::Segment;

/// Makes a channel of `capacity` slots for messages of any length, in the commons.
///
/// In everything else it is a [`channel`](crate::channel()), and its messages are those of a
/// [`ByteQueue`].
///
/// # Errors
/// As [`channel`](crate::channel()).
///
/// # Examples
/// ```
/// use offspring::bytes::{self, Sender};
///
/// fn film(sender: Sender) {
///     let mut frame = sender.loan(1 << 20).unwrap();
///     frame.fill(7);
///     frame.send().unwrap();
/// }
///
/// let (sender, receiver) = bytes::channel(4)?;
/// let child = offspring::spawn(film, sender)?;
/// assert_eq!(receiver.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [1 << 20]);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel(capacity: usize) -> Result<(Sender, Receiver), CreateError> {
    QueueOptions::new().capacity(capacity).create_bytes_channel()
}

impl QueueOptions {
    /// Makes a channel of messages of any length in the commons; see [`bytes::channel`](channel).
    ///
    /// # Errors
    /// As [`bytes::channel`](channel).
    pub fn create_bytes_channel(&self) -> Result<(Sender, Receiver), CreateError> {
        self.create_bytes_channel_in(&Segment::commons()?)
    }

    /// Makes a channel of messages of any length in `segment`; see [`bytes::channel`](channel).
    ///
    /// # Errors
    /// As [`bytes::channel`](channel).
    pub fn create_bytes_channel_in(
        &self,
        segment: &Segment,
    ) -> Result<(Sender, Receiver), CreateError> {
        let queue = ByteQueue::make(segment, &self.of_channel())?;
        let sender = Sender { ended: Ended::first(queue.clone(), Role::Sender)? };
        Ok((sender, Receiver { ended: Ended::first(queue, Role::Receiver)? }))
    }
}

/// The sending end of a [`channel`].
///
/// Cloning it makes another end. The channel is disconnected when the last one in all processes is
/// gone.
///
/// # Peer death
/// As [`ByteQueue`]. If the last receiver's process is killed, blocked senders get `Disconnected`
/// within 100 ms.
///
/// # Examples
/// ```
/// let (sender, receiver) = offspring::bytes::channel(1)?;
/// drop(receiver);
/// assert!(sender.send(b"hello").unwrap_err().is_disconnected());
/// # Ok::<(), offspring::CreateError>(())
/// ```
pub struct Sender {
    ended: Ended<ByteQueue>,
}

impl Sender {
    /// Memory for a message of `len` bytes, to be filled in place and then sent; see
    /// [`ByteQueue::loan`].
    ///
    /// # Errors
    /// As [`ByteQueue::loan`].
    pub fn loan(&self, len: usize) -> Result<Loan, CreateError> {
        self.ended.queue().loan(len)
    }

    /// Reads a message of `len` bytes from `reader`, straight into shared memory, and sends it; see
    /// [`ByteQueue::send_from`].
    ///
    /// # Errors
    /// As [`ByteQueue::send_from`].
    pub fn send_from(&self, reader: impl Read, len: usize) -> io::Result<()> {
        self.ended.queue().send_from(reader, len)
    }

    /// Sends a copy of `bytes`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the message (release to
    /// acquire).
    ///
    /// # Errors
    /// [`SendError::Disconnected`] if every receiver is gone; [`SendError::Rejected`] if there is
    /// no memory; [`SendError::Broken`].
    pub fn send(&self, bytes: &[u8]) -> Result<(), SendError<(), CreateError>> {
        self.ended.queue().send(bytes)
    }

    /// Sends a copy of `bytes` if a slot is free right now.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`TrySendError::Full`].
    pub fn try_send(&self, bytes: &[u8]) -> Result<(), TrySendError<(), CreateError>> {
        self.ended.queue().try_send(bytes)
    }

    /// Sends a copy of `bytes`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`SendTimeoutError::Timeout`].
    pub fn send_timeout(
        &self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<(), CreateError>> {
        self.ended.queue().send_timeout(bytes, timeout)
    }

    /// Sends a copy of `bytes`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send_timeout`].
    pub fn send_deadline(
        &self,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<(), CreateError>> {
        self.ended.queue().send_deadline(bytes, deadline)
    }
}

ended::sender!([] Sender);

/// The receiving end of a [`channel`].
///
/// Cloning it makes another end, and each message goes to one of them. Iterating over a reference
/// receives until the channel is disconnected.
///
/// # Peer death
/// As [`ByteQueue`]. If the last sender's process is killed, blocked receivers get what is left
/// and then `Disconnected`, within 100 ms.
pub struct Receiver {
    ended: Ended<ByteQueue>,
}

impl Receiver {
    /// Receives a message in place, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once every sender is gone and everything was received;
    /// [`RecvError::Broken`].
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        self.ended.queue().recv()
    }

    /// Receives a message in place if there is one right now.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`TryRecvError::Empty`].
    pub fn try_recv(&self) -> Result<Message<'_>, TryRecvError> {
        self.ended.queue().try_recv()
    }

    /// Receives a message in place, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvTimeoutError> {
        self.ended.queue().recv_timeout(timeout)
    }

    /// Receives a message in place, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Message<'_>, RecvTimeoutError> {
        self.ended.queue().recv_deadline(deadline)
    }

    /// Receives a message into `buffer`, in place of what it contains, waiting as long as it takes.
    /// Returns its length.
    ///
    /// # Errors
    /// As [`Receiver::recv`]; `buffer` is unchanged.
    pub fn recv_into(&self, buffer: &mut Vec<u8>) -> Result<usize, RecvError> {
        self.ended.queue().recv_into(buffer)
    }

    /// Iterates over the messages: waits for each, and ends when the channel is disconnected or
    /// broken. [`Iter::end`] says why.
    pub fn iter(&self) -> Iter<'_> {
        Iter { receiver: self, end: None }
    }
}

ended::receiver!([] Receiver, for<'a> [] Message<'a>, by Iter<'a>);

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl Serialize for Sender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            ByteQueue::open_kind(segment, handle, Kind::BytesChannel.named::<()>())
        };
        let ended = Ended::deserialize(Role::Sender, deserializer, open)?;
        Ok(Sender { ended })
    }
}

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl Serialize for Receiver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de> Deserialize<'de> for Receiver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            ByteQueue::open_kind(segment, handle, Kind::BytesChannel.named::<()>())
        };
        let ended = Ended::deserialize(Role::Receiver, deserializer, open)?;
        Ok(Receiver { ended })
    }
}

/// Receives one value after the other, waiting for each. Made by [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Iter<'a> {
    receiver: &'a Receiver,
    end: Option<RecvError>,
}

impl Iter<'_> {
    /// Why the iteration ended; `None` before the end.
    pub fn end(&self) -> Option<RecvError> {
        self.end
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.end.is_some() {
            return None;
        }
        self.receiver.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

impl FusedIterator for Iter<'_> {}
