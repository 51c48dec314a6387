//! The clock for actors that share their cores with others.

use std::time::Duration;

/// Counts what happens between the end of the warm-up, a quarter of the slice, and its end: where
/// more than the actors' cores are wanted, stalls belong to the matter, and the middle half of
/// blocks would hide them.
///
/// The actor looks at the time now and then. If it is away at an end of the window, the window
/// reaches to its look before or behind: a figure over a little more time, and not none.
#[derive(Debug)]
pub(crate) struct Window {
    begin: Duration,
    end: Duration,
    every: u64,
    next: u64,
    looked: Duration,
    /// Count and time of the last look during the warm-up.
    from: (u64, Duration),
    /// Count and time of the first look after the end.
    until: Option<(u64, Duration)>,
}

impl Window {
    pub(crate) fn new(now: Duration, length: Duration) -> Window {
        let begin = now + length / 4;
        let end = begin + length;
        Window { begin, end, every: 1, next: 1, looked: now, from: (0, now), until: None }
    }

    #[inline]
    pub(crate) fn is_due(&self, count: u64) -> bool {
        count >= self.next
    }

    /// Says whether the window has ended.
    #[cold]
    pub(crate) fn look(&mut self, now: Duration, count: u64) -> bool {
        if now < self.begin {
            self.from = (count, now);
            if now - self.looked < Duration::from_micros(10) {
                self.every *= 2;
            }
        } else if now >= self.end {
            self.until.get_or_insert((count, now));
        }
        self.looked = now;
        self.next = count + self.every;
        self.until.is_some()
    }

    /// Operations in a second of the window, for an actor that leaves now.
    pub(crate) fn rate(&self, now: Duration, count: u64) -> f64 {
        let (last, until) = self.until.unwrap_or((count, now));
        (last - self.from.0) as f64 / (until - self.from.1).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn warm_up_and_what_comes_after_the_end_do_not_count() {
        let mut window = Window::new(Duration::ZERO, 4 * SECOND);
        assert!(!window.look(SECOND / 2, 1000));
        assert!(!window.look(2 * SECOND, 1015));
        assert!(window.look(5 * SECOND, 1045));
        assert!(window.look(6 * SECOND, 9000));
        assert_eq!(window.rate(7 * SECOND, 9999), 10.0);
    }

    #[test]
    fn an_actor_that_is_away_for_the_whole_window_has_a_figure() {
        let mut window = Window::new(Duration::ZERO, 4 * SECOND);
        assert!(window.look(10 * SECOND, 50));
        assert_eq!(window.rate(10 * SECOND, 50), 5.0);
    }

    #[test]
    fn an_actor_that_others_stop_has_a_figure_until_then() {
        let mut window = Window::new(SECOND, 4 * SECOND);
        assert!(!window.look(SECOND + SECOND / 2, 10));
        assert_eq!(window.rate(3 * SECOND + SECOND / 2, 30), 10.0);
    }
}
