//! A Vyukov ring between processes: our queue without owners. Nothing says who has claimed a slot,
//! so a kill can block it for ever.
//!
//! What lies between it and the queue is the price of crash safety.
#![expect(unsafe_code, reason = "the message of a claimed slot is the claimant's")]

use std::sync::atomic::Ordering;

use crate::Failure;
use crate::channel::{Receiver, Sender, Spinner};
use crate::peers::{Ends, Waiting, Way};
use crate::shared::Slots;
use crate::stage::Place;

/// The ring.
///
/// # Source
/// Vyukov, "Bounded MPMC queue", 1024cores.net.
#[derive(Debug)]
pub(crate) struct Vyukov;

/// An end of it.
#[derive(Clone, Debug)]
pub(crate) struct End<const N: usize>(Slots<N>);

const TAIL: usize = 0;
const HEAD: usize = 1;

impl Way for Vyukov {
    const NAME: &'static str = "Vyukov ring, cannot recover";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Spins;
    type Sender<const N: usize> = End<N>;
    type Receiver<const N: usize> = End<N>;

    fn open<const N: usize>(slots: usize, count: usize) -> Result<Ends<End<N>, End<N>>, Failure> {
        let end = End::<N>(Slots::new(slots)?);
        for position in 0..end.0.count() {
            end.0.sequence(position).store(position, Ordering::Relaxed);
        }
        Ok(Ends::cloned(&end, &end, count))
    }
}

impl<const N: usize> End<N> {
    /// Takes the next position of `counter` once its slot has the sequence number
    /// `position + ahead`.
    #[inline]
    fn claim(&self, counter: usize, ahead: u64) -> u64 {
        let counter = self.0.counter(counter);
        let mut spinner = Spinner::default();
        // Relaxed: a position that was taken meanwhile is found out by the exchange.
        let mut position = counter.load(Ordering::Relaxed);
        loop {
            // Acquire pairs with the Release of whoever had the slot before.
            if self.0.sequence(position).load(Ordering::Acquire) == position + ahead {
                match counter.compare_exchange_weak(
                    position,
                    position + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return position,
                    Err(now) => position = now,
                }
            } else {
                spinner.wait();
                position = counter.load(Ordering::Relaxed);
            }
        }
    }
}

impl<const N: usize> Sender<N> for End<N> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        let position = self.claim(TAIL, 0);
        // SAFETY: the sequence number said that the slot is free, and the exchange gave it to us
        // alone.
        unsafe { self.0.write(position, buffer) };
        self.0.sequence(position).store(position + 1, Ordering::Release);
    }
}

impl<const N: usize> Receiver<N> for End<N> {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let position = self.claim(HEAD, 1);
        // SAFETY: the sequence number said that the message is there, and the exchange gave it to
        // us alone.
        let message = unsafe { self.0.read(position) };
        self.0.sequence(position).store(position + self.0.count(), Ordering::Release);
        read(&message)
    }
}
