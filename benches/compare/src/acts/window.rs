//! The clock for actors that share their cores with others.

use std::time::Duration;

use crate::slice::Slice;

/// Counts what happens between the end of the warm-up and the end of the slice: where more than the actors'
/// cores are wanted, stalls belong to the matter, and the middle half of blocks would hide them.
#[derive(Debug)]
pub(crate) struct Window {
    begin: Duration,
    end: Duration,
    every: u64,
    next: u64,
    /// The count at the first look in the window.
    first: Option<u64>,
    /// The count at the last look in the window.
    last: u64,
    looked: Duration,
}

impl Window {
    /// Opens after a warm-up of a quarter of the slice.
    pub(crate) fn new(slice: &Slice) -> Window {
        let (now, length) = (slice.now(), slice.length());
        let begin = now + length / 4;
        Window { begin, end: begin + length, every: 1, next: 1, first: None, last: 0, looked: now }
    }

    #[inline]
    pub(crate) fn is_due(&self, count: u64) -> bool {
        count >= self.next
    }

    /// Says whether the window has ended.
    #[cold]
    pub(crate) fn look(&mut self, now: Duration, count: u64) -> bool {
        if self.first.is_none() && now - self.looked < Duration::from_micros(10) {
            self.every *= 2;
        }
        self.looked = now;
        self.next = count + self.every;
        if now >= self.end {
            return true;
        }
        if now >= self.begin {
            self.first.get_or_insert(count);
            self.last = count;
        }
        false
    }

    /// Operations in a second of the window, whether the actor was there all the time or not.
    pub(crate) fn rate(&self) -> f64 {
        let count = self.first.map_or(0, |first| self.last - first);
        count as f64 / (self.end - self.begin).as_secs_f64()
    }
}
