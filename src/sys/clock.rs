//! Deadlines on the monotonic clock.

use std::time::{Duration, Instant};

/// When to give up: never, or at an instant of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Never give up.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// Give up at `instant`.
    pub(crate) fn at(instant: Instant) -> Deadline {
        Deadline(Some(instant))
    }

    /// Give up `timeout` from now; a timeout that the clock cannot express means never.
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// The time left, at most `slice`; `None` once the deadline has passed.
    pub(crate) fn clip(self, slice: Duration) -> Option<Duration> {
        match self.0 {
            None => Some(slice),
            Some(instant) => {
                let left = instant.saturating_duration_since(Instant::now());
                if left.is_zero() { None } else { Some(left.min(slice)) }
            }
        }
    }

    /// Whether the deadline has passed.
    pub(crate) fn passed(self) -> bool {
        self.0.is_some_and(|instant| instant <= Instant::now())
    }
}

/// Milliseconds on the monotonic clock. May be a few behind; cheap to read.
#[cfg(not(loom))]
pub(crate) fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Nanoseconds on the monotonic clock.
#[cfg(not(loom))]
pub(crate) fn nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sleeps for about this long; less if a signal comes, or if the kernel refuses.
#[cfg(not(loom))]
pub(crate) fn sleep(time: Duration) {
    use rustix::thread::{Timespec, nanosleep};
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = nanosleep(&time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clip_gives_the_smaller_of_slice_and_time_left() {
        let slice = Duration::from_millis(50);
        assert_eq!(Deadline::NEVER.clip(slice), Some(slice));
        assert_eq!(Deadline::after(Duration::from_secs(3600)).clip(slice), Some(slice));
        let short = Deadline::after(Duration::from_millis(10))
            .clip(slice)
            .expect("ten milliseconds are left");
        assert!(short <= Duration::from_millis(10));
        assert_eq!(Deadline::at(Instant::now()).clip(slice), None);
    }

    #[test]
    fn a_timeout_beyond_the_clock_means_never() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert!(!Deadline::NEVER.passed());
        assert!(Deadline::after(Duration::ZERO).passed());
    }
}
