//! The options of a new queue.

use crate::object::CreateError;
use crate::object::carry::{self, Transfer};
use crate::queue::{ByteQueue, ObjectQueue, Queue};
use crate::ring::mpmc::OnReaderDeath;
use crate::segment::Segment;
use crate::sync::Wait;

/// What happens to a message whose receiver is killed after it took the message and before it is
/// done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReceiverDeath {
    /// The message is lost, and [`Queue::lost`] counts it. No message is ever seen twice.
    #[default]
    Drop,
    /// Another receiver gets the message, out of order and flagged: see
    /// [`Received::redelivered`](crate::Received::redelivered). No message is lost. The dead
    /// receiver may have acted on it already.
    ///
    /// Only messages received in place show the flag: by [`Queue::recv_ref`] and its other forms.
    /// [`Queue::recv`], `recv_many` and `iter` give the value alone.
    ///
    /// With this policy a closed queue says `Closed` to a receiver only once no other receiver is
    /// still reading a message. A receiver that waits checks from time to time for messages that
    /// come back: it looks at those that are being read, and at those received since the oldest of
    /// them, whatever the capacity.
    Redeliver,
}

/// Options of a new queue; finish with one of the `create` methods.
///
/// # Examples
/// ```
/// use offspring::{OnReceiverDeath, QueueOptions, Wait};
///
/// let queue = QueueOptions::new()
///     .capacity(64)
///     .on_receiver_death(OnReceiverDeath::Redeliver)
///     .wait(Wait::Sleep)
///     .create()?;
/// queue.send(1.5_f64)?;
/// let message = queue.recv_ref()?;
/// assert_eq!((*message, message.redelivered()), (1.5, false));
/// # drop(message);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QueueOptions {
    pub(crate) capacity: usize,
    pub(crate) on_receiver_death: OnReceiverDeath,
    pub(crate) wait: Wait,
    /// Whether the queue knows who has its ends.
    pub(crate) is_channel: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions::new()
    }
}

impl QueueOptions {
    /// The defaults: 1,024 slots, [`OnReceiverDeath::Drop`], [`Wait::SpinThenSleep`].
    pub fn new() -> QueueOptions {
        QueueOptions {
            capacity: 1024,
            on_receiver_death: OnReceiverDeath::default(),
            wait: Wait::default(),
            is_channel: false,
        }
    }

    /// Number of slots, from 1 to 2^24.
    pub fn capacity(&mut self, slots: usize) -> &mut Self {
        self.capacity = slots;
        self
    }

    /// What happens to a message whose receiver is killed.
    pub fn on_receiver_death(&mut self, policy: OnReceiverDeath) -> &mut Self {
        self.on_receiver_death = policy;
        self
    }

    /// How blocked operations of this handle and its clones wait; other handles choose for
    /// themselves ([`Queue::with_wait`]).
    pub fn wait(&mut self, wait: Wait) -> &mut Self {
        self.wait = wait;
        self
    }

    /// Makes the queue in the commons.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`].
    pub fn create<T: Transfer>(&self) -> Result<Queue<T>, CreateError> {
        self.create_in(&Segment::commons()?)
    }

    /// Makes the queue in `segment`.
    ///
    /// # Errors
    /// As [`Queue::with_capacity`].
    pub fn create_in<T: Transfer>(&self, segment: &Segment) -> Result<Queue<T>, CreateError> {
        Queue::make(segment, self, carry::queue_kind::<T>())
    }

    /// Makes a queue of messages of any length, in the commons.
    ///
    /// # Errors
    /// As [`ByteQueue::with_capacity`].
    pub fn create_bytes(&self) -> Result<ByteQueue, CreateError> {
        self.create_bytes_in(&Segment::commons()?)
    }

    /// Makes a queue of messages of any length, in `segment`.
    ///
    /// # Errors
    /// As [`ByteQueue::with_capacity`].
    pub fn create_bytes_in(&self, segment: &Segment) -> Result<ByteQueue, CreateError> {
        ByteQueue::make(segment, self)
    }

    /// Makes a queue of values of any type, in the commons.
    ///
    /// # Errors
    /// As [`ObjectQueue::with_capacity`].
    pub fn create_objects<T>(&self) -> Result<ObjectQueue<T>, CreateError> {
        self.create_objects_in(&Segment::commons()?)
    }

    /// Makes a queue of values of any type, in `segment`.
    ///
    /// # Errors
    /// As [`ObjectQueue::with_capacity`].
    pub fn create_objects_in<T>(&self, segment: &Segment) -> Result<ObjectQueue<T>, CreateError> {
        ObjectQueue::make(segment, self)
    }
}

impl From<OnReceiverDeath> for OnReaderDeath {
    fn from(policy: OnReceiverDeath) -> OnReaderDeath {
        match policy {
            OnReceiverDeath::Drop => OnReaderDeath::Drop,
            OnReceiverDeath::Redeliver => OnReaderDeath::Redeliver,
        }
    }
}
