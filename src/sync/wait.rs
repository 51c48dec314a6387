//! The one blocking loop: try, spin a little, announce, try again, sleep for a slice, check whether
//! the owner lives.
//!
//! Every sleep ends after at most [`LONGEST_SLICE`]. This one rule covers everything that a kill
//! can do to a wake-up: a peer killed between its store and its wake costs the sleeper the rest of
//! a slice, and nothing else.

use std::time::Duration;

use crate::sync::event::{Announced, EventRef};
use crate::sync::spin::{Patience, spin};
use crate::sys::clock::Deadline;

/// No sleep is longer.
const LONGEST_SLICE: Duration = Duration::from_millis(50);
/// No sleep is longer while a living process is in the way: that process may die at any time, and
/// then nobody wakes us.
const LONGEST_SLICE_BEHIND_OWNER: Duration = Duration::from_millis(10);
/// The first sleep is longer than the scheduler's tick (4 ms at 250 a second). An earlier end needs
/// a timer of its own, with which a sleep and its wake-up took 9 microseconds longer on a virtual
/// machine, which is half as long again.
const FIRST_SLICE: Duration = Duration::from_millis(10);

/// How a blocked operation of a handle waits.
///
/// When messages arrive densely (four times in a row, a receiver that found none found one within
/// two rounds of spinning), a spinning receiver pauses about two microseconds before it looks, so
/// that several messages arrive per cache-line transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Never sleeps: reacts fastest (well under a microsecond) and keeps a processor busy. Yields
    /// to other processes now and then.
    Spin,
    /// Spins a little, then sleeps. How long it spins adapts to whether spinning has helped lately.
    #[default]
    SpinThenSleep,
    /// Sleeps at once: reacts within tens of microseconds and leaves the processor to others.
    Sleep,
}

/// What stands in the way of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nobody in particular: nothing is there, or no room.
    Nobody,
    /// A slot or lock that some process has claimed.
    Owner,
    /// The owner of a lock, which was taken so often since the last attempt.
    Turns(u32),
}

/// Tries until `attempt` succeeds or the deadline has passed (`None`). In between it sleeps until
/// one of `events` is notified.
///
/// The argument of `attempt` says whether to check if the owner in its way is alive. That costs
/// system calls, so it is done only at the end of slices. The caller has tried once before, and
/// `attempt` is called a last time after the deadline.
pub(crate) fn wait<R>(
    events: &[EventRef<'_>],
    wait: Wait,
    patience: &Patience,
    deadline: Deadline,
    mut attempt: impl FnMut(bool) -> Result<R, Obstacle>,
) -> Option<R> {
    if let Some(result) = spin(wait, patience, deadline, &mut attempt) {
        return Some(result);
    }
    let mut slice = FIRST_SLICE;
    let mut check_owner = false;
    loop {
        let announced = Announced::to(events);
        let obstacle = match attempt(check_owner) {
            Ok(result) => return Some(result),
            Err(obstacle) => obstacle,
        };
        let longest = match obstacle {
            Obstacle::Nobody => LONGEST_SLICE,
            Obstacle::Owner | Obstacle::Turns(_) => LONGEST_SLICE_BEHIND_OWNER,
        };
        let Some(time) = deadline.clip(slice.min(longest)) else {
            return attempt(true).ok();
        };
        announced.sleep(time);
        check_owner = true;
        slice = (slice * 2).min(LONGEST_SLICE);
    }
}
