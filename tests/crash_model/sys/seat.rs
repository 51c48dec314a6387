//! Seats for threads: every process of a model has one, or none.

use std::cell::Cell;

pub(crate) const SEATS: usize = 15;

thread_local! {
    /// Whether there are seats in this thread's model.
    static HAS_SEATS: Cell<bool> = const { Cell::new(false) };
}

/// Says whether processes have seats, and so keep blocks at hand.
pub(crate) fn set(has_seats: bool) {
    HAS_SEATS.set(has_seats);
}

pub(crate) fn number() -> Option<usize> {
    HAS_SEATS.get().then_some(0)
}
