//! Offspring: the queues, the channels, the ring for one sender and one receiver, and the lock.

use std::marker::PhantomData;

use offspring::{ByteQueue, Lock, ObjectQueue, Queue, QueueOptions, Wait, plain, spsc};

use crate::Failure;
use crate::acts::locking::{self, Protected};
use crate::channel::{Receiver, Sender};
use crate::peers::{Door, Ends, Waiting, Way};
use crate::stage::Place;

/// How a handle waits, as a type.
pub(crate) trait How: Send + 'static {
    const WAIT: Wait;
    const WAITING: Waiting;
    const QUEUE: &'static str;
    const BATCHES: &'static str;
    const IN_PLACE: &'static str;
    const RING: &'static str;
    const LOCK: &'static str;
}

macro_rules! how {
    ($name:ident, $wait:expr, $waiting:expr, $suffix:literal) => {
        #[derive(Debug)]
        pub(crate) struct $name;

        impl How for $name {
            const WAIT: Wait = $wait;
            const WAITING: Waiting = $waiting;
            const QUEUE: &'static str = concat!("Queue", $suffix);
            const BATCHES: &'static str = concat!("Queue, batches of 64", $suffix);
            const IN_PLACE: &'static str = concat!("Queue, in place", $suffix);
            const RING: &'static str = concat!("spsc", $suffix);
            const LOCK: &'static str = concat!("Lock", $suffix);
        }
    };
}

how!(ByDefault, Wait::SpinThenSleep, Waiting::Default, "");
how!(Spin, Wait::Spin, Waiting::Spins, ", spin");
how!(Sleep, Wait::Sleep, Waiting::Sleeps, ", sleep");

fn queue<const N: usize>(slots: usize, wait: Wait) -> Result<Queue<[u64; N]>, Failure> {
    Ok(QueueOptions::new().capacity(slots).wait(wait).create()?)
}

/// The queue, message by message, by copy.
#[derive(Debug)]
pub(crate) struct Copied<H = ByDefault>(PhantomData<H>);

impl<H: How> Way for Copied<H> {
    const NAME: &'static str = H::QUEUE;
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = H::WAITING;
    type Sender<const N: usize> = Queue<[u64; N]>;
    type Receiver<const N: usize> = Queue<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let queue = queue::<N>(slots, H::WAIT)?;
        Ok(Ends::cloned(&queue, &queue, count))
    }
}

impl<const N: usize> Sender<N> for Queue<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(Queue::send(self, *buffer).is_ok(), "the queue is closed or broken");
    }
}

impl<const N: usize> Receiver<N> for Queue<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&Queue::recv(self).expect("the queue is open"))
    }
}

/// The queue, with messages that are written and read in their slots.
#[derive(Debug)]
pub(crate) struct InPlace<H = ByDefault>(PhantomData<H>);

/// An end that works in place.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<const N: usize>(Queue<[u64; N]>);

impl<H: How> Way for InPlace<H> {
    const NAME: &'static str = H::IN_PLACE;
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = H::WAITING;
    type Sender<const N: usize> = Guarded<N>;
    type Receiver<const N: usize> = Guarded<N>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let queue = Guarded(queue::<N>(slots, H::WAIT)?);
        Ok(Ends::cloned(&queue, &queue, count))
    }
}

impl<const N: usize> Sender<N> for Guarded<N> {
    #[inline]
    fn send(&mut self, _: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        let mut slot = self.0.reserve().expect("the queue is open");
        fill(&mut slot);
        slot.commit();
    }
}

impl<const N: usize> Receiver<N> for Guarded<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&self.0.recv_ref().expect("the queue is open"))
    }
}

/// Messages that are sent or received together.
const BATCH: usize = 64;

/// The queue, in batches.
#[derive(Debug)]
pub(crate) struct Batches<H = ByDefault>(PhantomData<H>);

/// An end that collects messages and sends them together, or hands out those that it received
/// together.
#[derive(Debug)]
pub(crate) struct Batched<const N: usize> {
    queue: Queue<[u64; N]>,
    batch: Vec<[u64; N]>,
    next: usize,
}

impl<const N: usize> Batched<N> {
    fn new(queue: Queue<[u64; N]>) -> Batched<N> {
        Batched { queue, batch: Vec::with_capacity(BATCH), next: 0 }
    }
}

impl<const N: usize> Clone for Batched<N> {
    /// An empty one of the same queue.
    fn clone(&self) -> Batched<N> {
        Batched::new(self.queue.clone())
    }
}

impl<H: How> Way for Batches<H> {
    const NAME: &'static str = H::BATCHES;
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = H::WAITING;
    type Sender<const N: usize> = Batched<N>;
    type Receiver<const N: usize> = Batched<N>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let ends = Batched::new(queue::<N>(slots, H::WAIT)?);
        Ok(Ends::cloned(&ends, &ends, count))
    }
}

impl<const N: usize> Sender<N> for Batched<N> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        self.batch.push(*buffer);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.queue.send_many(&self.batch).expect("the queue is open");
        self.batch.clear();
    }
}

impl<const N: usize> Receiver<N> for Batched<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        if self.next == self.batch.len() {
            self.batch.clear();
            self.queue.recv_many(&mut self.batch, BATCH).expect("the queue is open");
            self.next = 0;
        }
        self.next += 1;
        read(&self.batch[self.next - 1])
    }
}

/// The channel of plain values.
#[derive(Debug)]
pub(crate) struct Channel;

impl Way for Channel {
    const NAME: &'static str = "plain::channel";
    const PLACE: Place = Place::Processes;
    type Sender<const N: usize> = plain::Sender<[u64; N]>;
    type Receiver<const N: usize> = plain::Receiver<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (sender, receiver) = plain::channel(slots)?;
        Ok(Ends::cloned(&sender, &receiver, count))
    }
}

impl<const N: usize> Sender<N> for plain::Sender<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(plain::Sender::send(self, *buffer).is_ok(), "the receivers are gone");
    }
}

impl<const N: usize> Receiver<N> for plain::Receiver<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&plain::Receiver::recv(self).expect("the senders are there"))
    }
}

/// The queue of messages of any length, by copy.
#[derive(Debug)]
pub(crate) struct Bytes;

impl Way for Bytes {
    const NAME: &'static str = "ByteQueue";
    const PLACE: Place = Place::Processes;
    type Sender<const N: usize> = ByteQueue;
    type Receiver<const N: usize> = ByteQueue;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<ByteQueue, ByteQueue>, Failure> {
        let queue = ByteQueue::with_capacity(slots)?;
        Ok(Ends::cloned(&queue, &queue, count))
    }
}

impl<const N: usize> Sender<N> for ByteQueue {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        ByteQueue::send(self, bytemuck::bytes_of(buffer)).expect("the queue is open");
    }
}

impl<const N: usize> Receiver<N> for ByteQueue {
    #[inline]
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let message = ByteQueue::recv(self).expect("the queue is open");
        bytemuck::bytes_of_mut(buffer).copy_from_slice(&message);
        drop(message);
        read(buffer)
    }
}

/// The same queue, with messages that are written and read where they lie.
#[derive(Debug)]
pub(crate) struct Lent;

/// An end that lends.
#[derive(Clone, Debug)]
pub(crate) struct Lender(ByteQueue);

impl Way for Lent {
    const NAME: &'static str = "ByteQueue, lent";
    const PLACE: Place = Place::Processes;
    type Sender<const N: usize> = Lender;
    type Receiver<const N: usize> = Lender;

    fn open<const N: usize>(slots: usize, count: usize) -> Result<Ends<Lender, Lender>, Failure> {
        let queue = Lender(ByteQueue::with_capacity(slots)?);
        Ok(Ends::cloned(&queue, &queue, count))
    }
}

impl<const N: usize> Sender<N> for Lender {
    #[inline]
    fn send(&mut self, _: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        let mut loan = self.0.loan(size_of::<[u64; N]>()).expect("there is memory");
        fill(bytemuck::from_bytes_mut(&mut loan));
        assert!(loan.send().is_ok(), "the queue is closed or broken");
    }
}

impl<const N: usize> Receiver<N> for Lender {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(bytemuck::from_bytes(&self.0.recv().expect("the queue is open")))
    }
}

/// The queue of values that serde encodes; a value is a vector of bytes, made for each message.
#[derive(Debug)]
pub(crate) struct Objects;

impl Way for Objects {
    const NAME: &'static str = "ObjectQueue";
    const PLACE: Place = Place::Processes;
    type Sender<const N: usize> = ObjectQueue<Vec<u8>>;
    type Receiver<const N: usize> = ObjectQueue<Vec<u8>>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<ObjectQueue<Vec<u8>>, ObjectQueue<Vec<u8>>>, Failure> {
        let queue = ObjectQueue::with_capacity(slots)?;
        Ok(Ends::cloned(&queue, &queue, count))
    }
}

impl<const N: usize> Sender<N> for ObjectQueue<Vec<u8>> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        let object = bytemuck::bytes_of(buffer).to_vec();
        ObjectQueue::send(self, object).expect("the queue is open");
    }
}

impl<const N: usize> Receiver<N> for ObjectQueue<Vec<u8>> {
    #[inline]
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let object = ObjectQueue::recv(self).expect("the queue is open");
        bytemuck::bytes_of_mut(buffer).copy_from_slice(&object);
        read(buffer)
    }
}

/// The ring for one sender and one receiver.
#[derive(Debug)]
pub(crate) struct Ring<H = ByDefault>(PhantomData<H>);

impl<H: How> Way for Ring<H> {
    const NAME: &'static str = H::RING;
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = H::WAITING;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = spsc::Producer<[u64; N]>;
    type Receiver<const N: usize> = spsc::Consumer<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        _: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (mut producer, mut consumer) = spsc::ring(slots)?;
        producer.set_wait(H::WAIT);
        consumer.set_wait(H::WAIT);
        Ok(Ends::pair(producer, consumer))
    }
}

impl<const N: usize> Sender<N> for spsc::Producer<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(spsc::Producer::send(self, *buffer).is_ok(), "the ring is broken");
    }
}

impl<const N: usize> Receiver<N> for spsc::Consumer<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&spsc::Consumer::recv(self).expect("the ring is whole"))
    }
}

/// The lock.
#[derive(Debug)]
pub(crate) struct Locked<H = ByDefault>(PhantomData<H>);

impl<H: How> Door for Locked<H> {
    const NAME: &'static str = H::LOCK;
    const PLACE: Place = Place::Processes;
    type Mutex = Lock<Protected>;

    fn create() -> Result<Lock<Protected>, Failure> {
        Ok(Lock::new(Protected::default())?.with_wait(H::WAIT))
    }
}

impl locking::Mutex for Lock<Protected> {
    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R {
        act(&mut self.lock().expect("nobody has died"))
    }

    #[inline]
    fn is_held(&mut self) -> bool {
        self.try_lock().is_err()
    }
}
