//! `iceoryx2`: publish and subscribe, nothing lost; by copy, and in place. Its users wait as they
//! like.
#![expect(unsafe_code, reason = "a loaned sample is uninitialised memory to its types")]

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::Failure;
use crate::channel::{Receiver, Sender, buffer, spin_until};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// A service with one publisher and one subscriber; messages are copied in and out, as the others
/// do it.
#[derive(Debug)]
pub(crate) struct Copied;

/// As [`Copied`], with messages that are written and read where they lie.
#[derive(Debug)]
pub(crate) struct InPlace;

/// The sending end.
pub(crate) struct In<const N: usize> {
    publisher: Publisher<ipc::Service, [u64; N], ()>,
    _node: Node<ipc::Service>,
}

/// The receiving end.
pub(crate) struct Out<const N: usize> {
    subscriber: Subscriber<ipc::Service, [u64; N], ()>,
    _node: Node<ipc::Service>,
}

/// The sending end that copies.
#[derive(Debug)]
pub(crate) struct CopyIn<const N: usize>(In<N>);

/// The receiving end that copies.
#[derive(Debug)]
pub(crate) struct CopyOut<const N: usize>(Out<N>);

/// The last number in a service's name.
static NAMES: AtomicU32 = AtomicU32::new(0);

impl Way for Copied {
    const NAME: &'static str = "iceoryx2";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Spins;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = CopyIn<N>;
    type Receiver<const N: usize> = CopyOut<N>;

    fn open<const N: usize>(
        slots: usize,
        _: usize,
    ) -> Result<Ends<CopyIn<N>, CopyOut<N>>, Failure> {
        let (name, theirs) = names();
        Ok(Ends {
            senders: vec![Box::new(move || CopyIn(In::open(&name, slots).expect("a publisher")))],
            receivers: vec![Box::new(move || {
                CopyOut(Out::open(&theirs, slots).expect("a subscriber"))
            })],
        })
    }
}

impl Way for InPlace {
    const NAME: &'static str = "iceoryx2, in place";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Spins;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = In<N>;
    type Receiver<const N: usize> = Out<N>;

    fn open<const N: usize>(slots: usize, _: usize) -> Result<Ends<In<N>, Out<N>>, Failure> {
        let (name, theirs) = names();
        Ok(Ends {
            senders: vec![Box::new(move || In::open(&name, slots).expect("a publisher"))],
            receivers: vec![Box::new(move || Out::open(&theirs, slots).expect("a subscriber"))],
        })
    }
}

/// The name of a new service, once for each end: each process opens the service itself, as its
/// handles do not survive a fork.
fn names() -> (String, String) {
    // The others have no use for its warnings that no configuration file is there.
    set_log_level(LogLevel::Fatal);
    let name = format!(
        "offspring-compare-{}-{}",
        std::process::id(),
        NAMES.fetch_add(1, Ordering::Relaxed)
    );
    (name.clone(), name)
}

/// The service, for the first of both ends made and for the other opened.
macro_rules! service {
    ($node:ident, $name:ident, $slots:ident) => {
        $node
            .service_builder(&$name.try_into()?)
            .publish_subscribe::<[u64; N]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size($slots)
            .open_or_create()?
    };
}

impl<const N: usize> In<N> {
    fn open(name: &str, slots: usize) -> Result<In<N>, Failure> {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let service = service!(node, name, slots);
        let strategy = BackpressureStrategy::RetryUntilDelivered;
        let publisher = service.publisher_builder().backpressure_strategy(strategy).create()?;
        // As long as the subscriber has not connected, what does not fit into its buffer is lost in
        // spite of the strategy, and nobody is told but by the number of recipients. One message
        // more than the buffer holds gets through to one that has connected only.
        let greeting = buffer();
        for _ in 0..=slots {
            spin_until(|| {
                (publisher.send_copy(*greeting).expect("a subscriber or none") > 0).then_some(())
            });
        }
        Ok(In { publisher, _node: node })
    }
}

impl<const N: usize> Out<N> {
    fn open(name: &str, slots: usize) -> Result<Out<N>, Failure> {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let service = service!(node, name, slots);
        let subscriber = service.subscriber_builder().create()?;
        for _ in 0..=slots {
            spin_until(|| subscriber.receive().expect("the connection is whole"));
        }
        Ok(Out { subscriber, _node: node })
    }
}

impl<const N: usize> Sender<N> for In<N> {
    #[inline]
    fn send(&mut self, _: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        let mut sample =
            self.publisher.loan_uninit().expect("fewer samples are loaned than there are");
        // SAFETY: the sample lies in shared memory, which comes zeroed from the kernel, and any
        // bytes are valid words.
        fill(unsafe { sample.payload_mut().assume_init_mut() });
        // SAFETY: initialised, as above.
        unsafe { sample.assume_init() }.send().expect("the subscriber is there");
    }
}

impl<const N: usize> Receiver<N> for Out<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let sample = spin_until(|| self.subscriber.receive().expect("the connection is whole"));
        read(&sample)
    }
}

impl<const N: usize> Sender<N> for CopyIn<N> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        self.0.publisher.send_copy(*buffer).expect("the subscriber is there");
    }
}

impl<const N: usize> Receiver<N> for CopyOut<N> {
    #[inline]
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let sample = spin_until(|| self.0.subscriber.receive().expect("the connection is whole"));
        *buffer = *sample;
        drop(sample);
        read(buffer)
    }
}

impl<const N: usize> fmt::Debug for In<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("In").finish_non_exhaustive()
    }
}

impl<const N: usize> fmt::Debug for Out<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").finish_non_exhaustive()
    }
}
