//! `crossbeam`: `ArrayQueue`, whose users wait as they like, and the bounded channel.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::Failure;
use crate::channel::{Receiver, Sender, spin_until};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// `crossbeam_queue::ArrayQueue`.
#[derive(Debug)]
pub(crate) struct Array;

/// An end of an `ArrayQueue`.
#[derive(Clone, Debug)]
pub(crate) struct ArrayEnd<const N: usize>(Arc<ArrayQueue<[u64; N]>>);

impl Way for Array {
    const NAME: &'static str = "crossbeam ArrayQueue, threads";
    const PLACE: Place = Place::Threads;
    const WAITING: Waiting = Waiting::Spins;
    type Sender<const N: usize> = ArrayEnd<N>;
    type Receiver<const N: usize> = ArrayEnd<N>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let end = ArrayEnd(Arc::new(ArrayQueue::new(slots)));
        Ok(Ends::cloned(&end, &end, count))
    }
}

impl<const N: usize> Sender<N> for ArrayEnd<N> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        spin_until(|| self.0.push(*buffer).ok());
    }
}

impl<const N: usize> Receiver<N> for ArrayEnd<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&spin_until(|| self.0.pop()))
    }
}

/// `crossbeam_channel::bounded`.
#[derive(Debug)]
pub(crate) struct Channel;

impl Way for Channel {
    const NAME: &'static str = "crossbeam-channel, threads";
    const PLACE: Place = Place::Threads;
    type Sender<const N: usize> = crossbeam_channel::Sender<[u64; N]>;
    type Receiver<const N: usize> = crossbeam_channel::Receiver<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (sender, receiver) = crossbeam_channel::bounded(slots);
        Ok(Ends::cloned(&sender, &receiver, count))
    }
}

impl<const N: usize> Sender<N> for crossbeam_channel::Sender<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(crossbeam_channel::Sender::send(self, *buffer).is_ok(), "the receivers are gone");
    }
}

impl<const N: usize> Receiver<N> for crossbeam_channel::Receiver<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&crossbeam_channel::Receiver::recv(self).expect("the senders are there"))
    }
}
