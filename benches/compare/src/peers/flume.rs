//! `flume`'s bounded channel.

use crate::Failure;
use crate::channel::{Receiver, Sender};
use crate::peers::{Ends, Way};
use crate::stage::Place;

/// `flume::bounded`.
#[derive(Debug)]
pub(crate) struct Channel;

impl Way for Channel {
    const NAME: &'static str = "flume, threads";
    const PLACE: Place = Place::Threads;
    type Sender<const N: usize> = ::flume::Sender<[u64; N]>;
    type Receiver<const N: usize> = ::flume::Receiver<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (sender, receiver) = ::flume::bounded(slots);
        Ok(Ends::cloned(&sender, &receiver, count))
    }
}

impl<const N: usize> Sender<N> for ::flume::Sender<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(::flume::Sender::send(self, *buffer).is_ok(), "the receivers are gone");
    }
}

impl<const N: usize> Receiver<N> for ::flume::Receiver<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&::flume::Receiver::recv(self).expect("the senders are there"))
    }
}
