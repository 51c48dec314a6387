//! The standard library: `mpsc::sync_channel` and `Mutex`.

use std::sync::{Arc, mpsc};

use crate::Failure;
use crate::acts::locking::{self, Protected};
use crate::channel::{Receiver, Sender};
use crate::peers::{Door, Ends, Way};
use crate::stage::Place;

/// `std::sync::mpsc::sync_channel`, which has one receiver.
#[derive(Debug)]
pub(crate) struct Mpsc;

impl Way for Mpsc {
    const NAME: &'static str = "std::sync::mpsc, threads";
    const PLACE: Place = Place::Threads;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = mpsc::SyncSender<[u64; N]>;
    type Receiver<const N: usize> = mpsc::Receiver<[u64; N]>;

    fn open<const N: usize>(
        slots: usize,
        _: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure> {
        let (sender, receiver) = mpsc::sync_channel(slots);
        Ok(Ends::pair(sender, receiver))
    }
}

impl<const N: usize> Sender<N> for mpsc::SyncSender<[u64; N]> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        assert!(mpsc::SyncSender::send(self, *buffer).is_ok(), "the receiver is gone");
    }
}

impl<const N: usize> Receiver<N> for mpsc::Receiver<[u64; N]> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        read(&mpsc::Receiver::recv(self).expect("the sender is there"))
    }
}

/// `std::sync::Mutex`.
#[derive(Debug)]
pub(crate) struct Mutex;

impl Door for Mutex {
    const NAME: &'static str = "std::sync::Mutex, threads";
    const PLACE: Place = Place::Threads;
    type Mutex = Arc<std::sync::Mutex<Protected>>;

    fn create() -> Result<Self::Mutex, Failure> {
        Ok(Arc::default())
    }
}

impl locking::Mutex for Arc<std::sync::Mutex<Protected>> {
    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R {
        act(&mut self.lock().expect("nobody has panicked"))
    }

    #[inline]
    fn is_held(&mut self) -> bool {
        self.try_lock().is_err()
    }
}
