//! The one blocking loop: try, spin a little, announce, try again, sleep for a slice, look whether
//! the owner lives.
//!
//! Every sleep ends after at most [`LONGEST_SLICE`]. That is the one cure for all that a kill can
//! do to a wake-up: a peer killed between its store and its wake costs the sleeper the rest of a
//! slice, and nothing else.

use std::time::Duration;

use crate::sync::event::{Announced, EventRef};
use crate::sync::spin::{Patience, spin};
use crate::sys::clock::Deadline;

/// No sleep is longer.
const LONGEST_SLICE: Duration = Duration::from_millis(50);
/// No sleep is longer while a living process is in the way: it may die at any time, and nobody
/// wakes us then.
const LONGEST_SLICE_BEHIND_OWNER: Duration = Duration::from_millis(10);
/// The first is no shorter than the scheduler's tick (4 ms at 250 a second): an earlier end needs a
/// timer of its own, with which a sleep and its wake-up took 9 microseconds longer on a virtual
/// machine, half as long again.
const FIRST_SLICE: Duration = Duration::from_millis(10);

/// How a blocked operation of a handle waits.
///
/// In a dense stream, one in which a receiver that finds nothing finds something within two pauses,
/// four times in a row, whoever spins lets messages come together for about two microseconds before
/// it looks: each look would hold the sender up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Never sleeps: the shortest reaction (well under a microsecond), and a processor kept busy.
    /// It gives way to other processes now and then.
    Spin,
    /// Spins a little, then sleeps. How long it spins adapts to whether spinning has helped lately.
    #[default]
    SpinThenSleep,
    /// Sleeps at once: reacts within tens of microseconds, and leaves the processor to others.
    Sleep,
}

/// What stands in the way of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nobody in particular: nothing is there, or no room.
    Nobody,
    /// A slot or lock that some process has claimed.
    Owner,
}

/// Tries until `attempt` succeeds or the deadline has passed (`None`). Sleeps until one of `events`
/// is notified.
///
/// `attempt` is told whether to look if the owner in its way still lives, which costs system calls,
/// and does so at the end of slices only. It was called at least once before, and is called a last
/// time after the deadline.
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
            Obstacle::Owner => LONGEST_SLICE_BEHIND_OWNER,
        };
        let Some(time) = deadline.clip(slice.min(longest)) else {
            return attempt(true).ok();
        };
        announced.sleep(time);
        check_owner = true;
        slice = (slice * 2).min(LONGEST_SLICE);
    }
}
