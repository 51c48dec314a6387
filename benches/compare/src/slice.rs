//! How the actors of a troupe start a slice together, stop it together and agree on the time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shared::{APART, Words};

/// An actor's view of the slice that is being played. Shared by threads and processes alike.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    words: Words<AtomicU64>,
    actors: u64,
    epoch: Instant,
    number: u64,
    length: Duration,
    /// How often this actor has met the others, in all slices.
    met: u64,
}

impl Slice {
    const ARRIVED: usize = 0;
    /// The last slice that was stopped. On a line of its own: everybody reads it all the time.
    const STOPPED: usize = APART;

    /// Before the first slice of so many actors.
    pub(crate) fn new(actors: usize) -> io::Result<Slice> {
        Ok(Slice {
            words: Words::new(2 * APART)?,
            actors: actors as u64,
            epoch: Instant::now(),
            number: 0,
            length: Duration::ZERO,
            met: 0,
        })
    }

    /// Goes on to the next slice.
    pub(crate) fn begin(&mut self, length: Duration) {
        self.number += 1;
        self.length = length;
    }

    /// How long to measure.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// Waits until every actor has called this as often as the caller has.
    pub(crate) fn meet(&mut self) {
        self.met += 1;
        let arrived = &self.words[Slice::ARRIVED];
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < self.met * self.actors {
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(&self) {
        self.words[Slice::STOPPED].store(self.number, Ordering::Release);
    }

    #[inline]
    pub(crate) fn stopped(&self) -> bool {
        self.words[Slice::STOPPED].load(Ordering::Relaxed) == self.number
    }

    /// Since the actors were set up, the same in all of them.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
