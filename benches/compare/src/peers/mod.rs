//! What is compared: one file for each, and here the lists.
//!
//! A peer for messages implements [`Way`] and has a line in [`visit_ways`]; a lock implements
//! [`Door`] and has a line in [`visit_doors`]; a program that is run as a whole has a line in
//! [`crate::external::PROGRAMS`].

pub(crate) mod crossbeam;
pub(crate) mod flume;
pub(crate) mod iceoryx;
pub(crate) mod ipc_channel;
pub(crate) mod kanal;
pub(crate) mod lamport;
pub(crate) mod message_queue;
pub(crate) mod ours;
pub(crate) mod parking_lot;
pub(crate) mod pipe;
pub(crate) mod pthread;
pub(crate) mod raw;
pub(crate) mod raw_sync;
pub(crate) mod rtrb;
pub(crate) mod socket;
pub(crate) mod standard;
pub(crate) mod vyukov;

use crate::Failure;
use crate::acts::locking::Mutex;
use crate::channel::{Receiver, Sender};
use crate::stage::Place;

/// Makes one end, in the process or thread that uses it.
pub(crate) type Make<T> = Box<dyn FnOnce() -> T + Send>;

/// An end that is there already.
pub(crate) fn made<T: Send + 'static>(end: T) -> Make<T> {
    Box::new(move || end)
}

/// All ends of one channel.
pub(crate) struct Ends<S, R> {
    pub(crate) senders: Vec<Make<S>>,
    pub(crate) receivers: Vec<Make<R>>,
}

impl<S: Send + 'static, R: Send + 'static> Ends<S, R> {
    /// The ends of a channel that has but one of each.
    pub(crate) fn pair(sender: S, receiver: R) -> Ends<S, R> {
        Ends { senders: vec![made(sender)], receivers: vec![made(receiver)] }
    }
}

impl<S: Clone + Send + 'static, R: Clone + Send + 'static> Ends<S, R> {
    /// So many clones of each.
    pub(crate) fn cloned(sender: &S, receiver: &R, count: usize) -> Ends<S, R> {
        let senders = (0..count).map(|_| made(sender.clone())).collect();
        let receivers = (0..count).map(|_| made(receiver.clone())).collect();
        Ends { senders, receivers }
    }
}

/// What an end does while it must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Looks again and again.
    Spins,
    /// Sleeps at once.
    Sleeps,
    /// What its makers found best.
    Default,
}

/// A way for messages.
pub(crate) trait Way: 'static {
    const NAME: &'static str;
    const PLACE: Place;
    const WAITING: Waiting = Waiting::Default;
    /// The most senders, and receivers, that it can have.
    const MOST_ENDS: usize = usize::MAX;
    /// Bytes of the largest message.
    const MOST_BYTES: usize = usize::MAX;
    type Sender<const N: usize>: Sender<N> + 'static;
    type Receiver<const N: usize>: Receiver<N> + 'static;

    /// A channel of `slots` messages, for `count` senders and as many receivers.
    fn open<const N: usize>(
        slots: usize,
        count: usize,
    ) -> Result<Ends<Self::Sender<N>, Self::Receiver<N>>, Failure>;
}

/// Does something with every way.
pub(crate) trait WayVisitor {
    fn visit<W: Way>(&mut self);
}

/// All peers for messages.
pub(crate) fn visit_ways(visitor: &mut impl WayVisitor) {
    visitor.visit::<vyukov::Vyukov>();
    visitor.visit::<lamport::Lamport>();
    visitor.visit::<pipe::Pipe>();
    visitor.visit::<socket::Socket>();
    visitor.visit::<message_queue::MessageQueue>();
    visitor.visit::<ipc_channel::Bytes>();
    visitor.visit::<iceoryx::Copied>();
    visitor.visit::<crossbeam::Array>();
    visitor.visit::<crossbeam::Channel>();
    visitor.visit::<rtrb::Ring>();
    visitor.visit::<kanal::Channel>();
    visitor.visit::<flume::Channel>();
    visitor.visit::<standard::Mpsc>();
}

/// A lock around [`crate::acts::locking::Protected`].
pub(crate) trait Door: 'static {
    const NAME: &'static str;
    const PLACE: Place;
    type Mutex: Mutex + Clone;

    fn create() -> Result<Self::Mutex, Failure>;
}

/// Does something with every lock.
pub(crate) trait DoorVisitor {
    fn visit<D: Door>(&mut self);
}

/// All peers of the lock.
pub(crate) fn visit_doors(visitor: &mut impl DoorVisitor) {
    visitor.visit::<pthread::Shared>();
    visitor.visit::<pthread::Robust>();
    visitor.visit::<raw_sync::Mutex>();
    visitor.visit::<standard::Mutex>();
    visitor.visit::<parking_lot::Mutex>();
}
