//! `rtrb`: a ring for one sender and one receiver, whose users wait as they like; by copy, and in
//! place by its chunks.
#![expect(unsafe_code, reason = "its slots are uninitialised memory to its types")]

use ::rtrb::{Consumer, Producer, RingBuffer};

use crate::Failure;
use crate::channel::{Receiver, Sender, Spinner, buffer, spin_until};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// By copy.
#[derive(Debug)]
pub(crate) struct Ring;

impl Way for Ring {
    const NAME: &'static str = "rtrb, threads";
    const PLACE: Place = Place::Threads;
    const WAITING: Waiting = Waiting::Spins;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = Producer<[u64; N]>;
    type Receiver<const N: usize> = Consumer<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        _: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (producer, consumer) = RingBuffer::new(slots);
        Ok(Ends::pair(producer, consumer))
    }
}

impl<const N: usize> Sender<N> for Producer<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        // A failed push would copy the message for nothing.
        let mut spinner = Spinner::default();
        while self.is_full() {
            spinner.wait();
        }
        assert!(self.push(*buffer).is_ok(), "the only producer saw a free slot");
    }
}

impl<const N: usize> Receiver<N> for Consumer<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&spin_until(|| self.pop().ok()))
    }
}

/// In place.
#[derive(Debug)]
pub(crate) struct Chunks;

/// The sending end.
///
/// # Invariants
/// Every slot of the ring has held a message before.
#[derive(Debug)]
pub(crate) struct ChunkProducer<const N: usize>(Producer<[u64; N]>);

/// The receiving end.
#[derive(Debug)]
pub(crate) struct ChunkConsumer<const N: usize>(Consumer<[u64; N]>);

impl Way for Chunks {
    const NAME: &'static str = "rtrb chunks of 1, in place, threads";
    const PLACE: Place = Place::Threads;
    const WAITING: Waiting = Waiting::Spins;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = ChunkProducer<N>;
    type Receiver<const N: usize> = ChunkConsumer<N>;

    fn open<const N: usize>(
        slots: usize,
        _: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (mut producer, mut consumer) = RingBuffer::new(slots);
        // INVARIANT: each slot gets a message here.
        for _ in 0..slots {
            assert!(producer.push(*buffer()).is_ok(), "the ring has that many slots");
        }
        while consumer.pop().is_ok() {}
        Ok(Ends::pair(ChunkProducer(producer), ChunkConsumer(consumer)))
    }
}

impl<const N: usize> Sender<N> for ChunkProducer<N> {
    #[inline]
    fn send(&mut self, _: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        let mut spinner = Spinner::default();
        while self.0.is_full() {
            spinner.wait();
        }
        let mut chunk = self.0.write_chunk_uninit(1).expect("the only producer saw a free slot");
        let (slots, _) = chunk.as_mut_slices();
        // SAFETY: by the invariant the slot's bytes were written before, and any bytes are valid
        // words.
        fill(unsafe { slots[0].assume_init_mut() });
        // SAFETY: the slot is initialised, as above.
        unsafe { chunk.commit_all() };
    }
}

impl<const N: usize> Receiver<N> for ChunkConsumer<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let mut spinner = Spinner::default();
        while self.0.is_empty() {
            spinner.wait();
        }
        let chunk = self.0.read_chunk(1).expect("the only consumer saw a message");
        let result = read(&chunk.as_slices().0[0]);
        chunk.commit_all();
        result
    }
}
