//! A Lamport ring between processes, each side with a copy of the other's counter: our `spsc`
//! without roles. Nothing says who has which end, so nobody can take the place of the dead.
#![expect(
    unsafe_code,
    reason = "the message of a slot is that side's, to which the counters give it"
)]

use std::sync::atomic::Ordering;

use crate::Failure;
use crate::channel::{Receiver, Sender, Spinner};
use crate::peers::{Ends, Waiting, Way};
use crate::shared::Slots;
use crate::stage::Place;

/// The ring.
///
/// # Source
/// Lamport, "Proving the Correctness of Multiprocess Programs" (1977).
#[derive(Debug)]
pub(crate) struct Lamport;

/// The sending end.
#[derive(Debug)]
pub(crate) struct In<const N: usize> {
    slots: Slots<N>,
    tail: u64,
    /// The receiver's counter when last looked at.
    head: u64,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Out<const N: usize> {
    slots: Slots<N>,
    head: u64,
    /// The sender's counter when last looked at.
    tail: u64,
}

const TAIL: usize = 0;
const HEAD: usize = 1;

impl Way for Lamport {
    const NAME: &'static str = "Lamport ring, cannot recover";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Spins;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = In<N>;
    type Receiver<const N: usize> = Out<N>;

    fn open<const N: usize>(slots: usize, _: usize) -> Result<Ends<In<N>, Out<N>>, Failure> {
        let slots = Slots::new(slots)?;
        Ok(Ends::pair(
            In { slots: slots.clone(), tail: 0, head: 0 },
            Out { slots, head: 0, tail: 0 },
        ))
    }
}

impl<const N: usize> Sender<N> for In<N> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        let mut spinner = Spinner::default();
        while self.tail - self.head == self.slots.count() {
            // Acquire pairs with the Release in `recv`: the slot was read.
            self.head = self.slots.counter(HEAD).load(Ordering::Acquire);
            if self.tail - self.head == self.slots.count() {
                spinner.wait();
            }
        }
        // SAFETY: the receiver is past this slot, and there is one sender.
        unsafe { self.slots.write(self.tail, buffer) };
        self.tail += 1;
        self.slots.counter(TAIL).store(self.tail, Ordering::Release);
    }
}

impl<const N: usize> Receiver<N> for Out<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let mut spinner = Spinner::default();
        while self.head == self.tail {
            // Acquire pairs with the Release in `send`: the message is there.
            self.tail = self.slots.counter(TAIL).load(Ordering::Acquire);
            if self.head == self.tail {
                spinner.wait();
            }
        }
        // SAFETY: the sender is past this slot and will not reuse it before `head` is; there is one
        // receiver.
        let message = unsafe { self.slots.read(self.head) };
        self.head += 1;
        self.slots.counter(HEAD).store(self.head, Ordering::Release);
        read(&message)
    }
}
