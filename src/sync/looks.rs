//! How often an attempt that does not wait asks the kernel whether the owner in its way still
//! lives.
//!
//! Whoever waits asks at the end of each slice. One who comes again and again without waiting would
//! ask every time, and a question takes a hundred times as long as the attempt.

use crate::primitive::{AtomicU64, Ordering};
use crate::sys::clock;

/// The shortest time between two questions, in milliseconds.
const EVERY: u64 = 10;

/// When the kernel was asked last, by any thread that shares this.
#[derive(Debug)]
pub(crate) struct Looks {
    last: AtomicU64,
}

impl Looks {
    pub(crate) fn new() -> Looks {
        Looks { last: AtomicU64::new(0) }
    }

    /// Whether it is time to ask again; if so, it is taken as done.
    pub(crate) fn is_time(&self) -> bool {
        let now = clock::coarse_millis();
        // Relaxed: whoever asks too often costs time and nothing else.
        let due = now.wrapping_sub(self.last.load(Ordering::Relaxed)) >= EVERY;
        if due {
            self.last.store(now, Ordering::Relaxed);
        }
        due
    }
}
