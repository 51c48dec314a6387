//! Offspring: the queue, the ring for one sender and one receiver, and the lock, each with the ways
//! to wait.

use std::marker::PhantomData;

use offspring::{Lock, Queue, QueueOptions, Wait, spsc};

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
