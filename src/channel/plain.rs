//! Channels of plain values, which are copied and not encoded, and of boxes, which move.

use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::ended::{self, Ended};
use crate::object::CreateError;
use crate::object::block::ends::Role;
use crate::object::carry::{self, Transfer};
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::queue::{Queue, QueueOptions};
use crate::segment::Segment;

/// Makes a channel of `capacity` slots for plain values, in the commons.
///
/// In everything else it is a [`channel`](crate::channel()). Sending and receiving cost what they
/// cost in a [`Queue`].
///
/// # Errors
/// As [`channel`](crate::channel()), and [`CreateError::Alignment`].
///
/// # Examples
/// ```
/// use offspring::plain::{self, Receiver};
///
/// let (sender, receiver) = plain::channel::<u64>(16)?;
/// let child = offspring::spawn(|numbers: Receiver<u64>| numbers.iter().sum::<u64>(), receiver)?;
/// (1..=10).try_for_each(|n| sender.send(n))?;
/// drop(sender);
/// assert_eq!(child.join()?, 55);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T: Transfer>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), CreateError> {
    QueueOptions::new().capacity(capacity).create_plain_channel()
}

impl QueueOptions {
    /// Makes a channel of plain values in the commons; see [`plain::channel`](channel).
    ///
    /// # Errors
    /// As [`plain::channel`](channel).
    pub fn create_plain_channel<T: Transfer>(
        &self,
    ) -> Result<(Sender<T>, Receiver<T>), CreateError> {
        self.create_plain_channel_in(&Segment::commons()?)
    }

    /// Makes a channel of plain values in `segment`; see [`plain::channel`](channel).
    ///
    /// # Errors
    /// As [`plain::channel`](channel).
    pub fn create_plain_channel_in<T: Transfer>(
        &self,
        segment: &Segment,
    ) -> Result<(Sender<T>, Receiver<T>), CreateError> {
        let queue = Queue::make(segment, &self.of_channel(), carry::channel_kind::<T>())?;
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
/// As [`Queue`]. If the last receiver's process is killed, blocked senders get `Disconnected`
/// within 100 ms.
///
/// # Examples
/// ```
/// let (sender, receiver) = offspring::plain::channel::<u8>(1)?;
/// drop(receiver);
/// assert_eq!(sender.send(7).unwrap_err().into_inner(), 7);
/// # Ok::<(), offspring::CreateError>(())
/// ```
pub struct Sender<T: Transfer> {
    ended: Ended<Queue<T>>,
}

impl<T: Transfer> Sender<T> {
    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before the send is visible to the receiver of the value (release to
    /// acquire).
    ///
    /// # Errors
    /// [`SendError::Disconnected`] if every receiver is gone; [`SendError::Broken`]. Both with the
    /// value.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.ended.queue().send(value)
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`TrySendError::Full`], with the value.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.ended.queue().try_send(value)
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send`], or [`SendTimeoutError::Timeout`], with the value.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.ended.queue().send_timeout(value, timeout)
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Sender::send_timeout`].
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.ended.queue().send_deadline(value, deadline)
    }
}

ended::sender!([T: Transfer] Sender<T>);

/// The receiving end of a [`channel`].
///
/// Cloning it makes another end, and each message goes to one of them. Iterating over a reference
/// receives until the channel is disconnected.
///
/// # Peer death
/// As [`Queue`]. If the last sender's process is killed, blocked receivers get what is left
/// and then `Disconnected`, within 100 ms.
pub struct Receiver<T: Transfer> {
    ended: Ended<Queue<T>>,
}

impl<T: Transfer> Receiver<T> {
    /// Receives a value, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the value is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once every sender is gone and everything was received;
    /// [`RecvError::Broken`].
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.ended.queue().recv()
    }

    /// Receives a value if there is one right now.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`TryRecvError::Empty`].
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.ended.queue().try_recv()
    }

    /// Receives a value, waiting at most `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.ended.queue().recv_timeout(timeout)
    }

    /// Receives a value, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.ended.queue().recv_deadline(deadline)
    }

    /// Iterates over the values: waits for each, and ends when the channel is disconnected or
    /// broken. [`Iter::end`] says why.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self, end: None }
    }
}

ended::receiver!([T: Transfer] Receiver<T>, for<'a> [T: Transfer] T, by Iter<'a, T>);

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl<T: Transfer> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de, T: Transfer> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            Queue::open_kind(segment, handle, carry::channel_kind::<T>())
        };
        let ended = Ended::deserialize(Role::Sender, deserializer, open)?;
        Ok(Sender { ended })
    }
}

/// In a message of this crate, and in what a child returns, an end that counts until the receiver
/// or the parent has it. Elsewhere the channel's [`Handle`](crate::Handle), which holds nothing.
impl<T: Transfer> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ended.serialize(serializer)
    }
}

/// Makes an end of the channel. An error says that the channel or this role is gone, that it is of
/// another type, or in a segment that this process does not have open.
impl<'de, T: Transfer> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let open = |segment: &Segment, handle| {
            Queue::open_kind(segment, handle, carry::channel_kind::<T>())
        };
        let ended = Ended::deserialize(Role::Receiver, deserializer, open)?;
        Ok(Receiver { ended })
    }
}

/// Receives one value after the other, waiting for each. Made by [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Iter<'a, T: Transfer> {
    receiver: &'a Receiver<T>,
    end: Option<RecvError>,
}

impl<T: Transfer> Iter<'_, T> {
    /// Why the iteration ended; `None` before the end.
    pub fn end(&self) -> Option<RecvError> {
        self.end
    }
}

impl<T: Transfer> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.end.is_some() {
            return None;
        }
        self.receiver.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

impl<T: Transfer> FusedIterator for Iter<'_, T> {}
