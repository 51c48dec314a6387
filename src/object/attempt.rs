//! How an operation goes on that does not succeed at once: the one slow path.
//!
//! An object says what one try is, and what to do when the owner in its way is dead. Here stands
//! the rest: how long to try, when to ask the kernel about the owner and how often, and for what to
//! sleep.

use crate::object::place::{Block, Object};
use crate::primitive::{AtomicU64, Ordering};
use crate::sync::Wait;
use crate::sync::event::EventRef;
use crate::sync::spin::Patience;
use crate::sync::wait::{self, Obstacle};
use crate::sys::clock::{self, Deadline};

/// How long an operation tries.
pub(crate) trait Until: Copy {
    /// What there is to say when that was not long enough.
    type Late;

    fn limit(self) -> Limit<Self::Late>;
}

/// As [`Until`], with what to say in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit<L> {
    /// It does not wait.
    None(L),
    Deadline(Deadline, L),
    /// It waits as long as it takes.
    Endless,
}

/// As long as it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forever;

/// No longer than it takes to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Once;

/// Nothing was to be had right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow;

/// Nothing was to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut;

/// What nobody ever says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Never {}

impl Until for Forever {
    type Late = Never;

    fn limit(self) -> Limit<Never> {
        Limit::Endless
    }
}

impl Until for Once {
    type Late = NotNow;

    fn limit(self) -> Limit<NotNow> {
        Limit::None(NotNow)
    }
}

impl Until for Deadline {
    type Late = TimedOut;

    fn limit(self) -> Limit<TimedOut> {
        Limit::Deadline(self, TimedOut)
    }
}

/// What keeps a try from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked<H> {
    /// Nobody in particular: nothing is there, or no room.
    Nobody,
    /// Nobody, but a look at who is alive may find something.
    Perhaps,
    /// Somebody who was just found alive.
    Living,
    /// The owner of what was seen in this state.
    Behind(H),
}

/// An operation on an object, as a series of tries.
pub(crate) trait Attempt {
    type Done;
    /// Something that somebody has claimed, as it was seen.
    type Held: Copy;

    /// Tries once. With `look` it may ask the kernel who is alive.
    fn attempt(&mut self, look: bool) -> Result<Self::Done, Blocked<Self::Held>>;

    /// Who has claimed it, as claim words name a peer.
    fn owner(held: Self::Held) -> u32;

    /// Clears away what was held, as its owner is dead, unless somebody else has done so. `Some` if
    /// that was all there was to do.
    fn succeed(&mut self, held: Self::Held) -> Option<Self::Done>;
}

/// What is learned from how the operations of a handle and its clones waited.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) patience: Patience,
    /// When an operation that does not wait last asked about an owner in its way, in milliseconds.
    asked: AtomicU64,
}

/// Between two questions of operations that do not wait. One who comes again and again would ask
/// every time, and a question takes a hundred times as long as a try.
const BETWEEN_QUESTIONS: u64 = 10;

impl Waiting {
    pub(crate) fn new(patience: Patience) -> Waiting {
        Waiting { patience, asked: AtomicU64::new(0) }
    }

    /// Whether it is time to ask again; if so, that counts as done.
    fn may_ask(&self) -> bool {
        let now = clock::coarse_millis();
        // Relaxed: whoever asks too often costs time and nothing else.
        let due = now.wrapping_sub(self.asked.load(Ordering::Relaxed)) >= BETWEEN_QUESTIONS;
        if due {
            self.asked.store(now, Ordering::Relaxed);
        }
        due
    }
}

/// Goes on with an operation whose first try was `blocked`, for as long as `until` says. In between
/// it waits as `wait` says, until one of `events` is notified.
pub(crate) fn go_on<B: Block, A: Attempt, U: Until>(
    object: &Object<B>,
    mut attempt: A,
    blocked: Blocked<A::Held>,
    until: U,
    events: &[EventRef<'_>],
    wait: Wait,
    waiting: &Waiting,
) -> Result<A::Done, U::Late> {
    let mut wait_until = |deadline| {
        let attempt = |look| try_once(object, &mut attempt, look).map_err(Obstacle::from);
        wait::wait(events, wait, &waiting.patience, deadline, attempt)
    };
    match until.limit() {
        Limit::Deadline(deadline, late) => wait_until(deadline).ok_or(late),
        Limit::Endless => loop {
            if let Some(done) = wait_until(Deadline::NEVER) {
                return Ok(done);
            }
        },
        Limit::None(late) => {
            let worth_asking = !matches!(blocked, Blocked::Nobody) && waiting.may_ask();
            if worth_asking {
                try_once(object, &mut attempt, true).map_err(|_| late)
            } else {
                Err(late)
            }
        }
    }
}

/// Tries without waiting, and clears the dead away.
pub(crate) fn once<B: Block, A: Attempt>(
    object: &Object<B>,
    mut attempt: A,
) -> Result<A::Done, NotNow> {
    try_once(object, &mut attempt, true).map_err(|_| NotNow)
}

/// Tries, and with `look` clears the dead away until something else is in the way.
fn try_once<B: Block, A: Attempt>(
    object: &Object<B>,
    attempt: &mut A,
    look: bool,
) -> Result<A::Done, Blocked<A::Held>> {
    loop {
        let held = match attempt.attempt(look) {
            Err(Blocked::Behind(held)) if look => held,
            other => return other,
        };
        if !object.is_dead(A::owner(held)) {
            return Err(Blocked::Living);
        }
        if let Some(done) = attempt.succeed(held) {
            return Ok(done);
        }
    }
}

impl<H> From<Blocked<H>> for Obstacle {
    fn from(blocked: Blocked<H>) -> Obstacle {
        match blocked {
            Blocked::Nobody | Blocked::Perhaps => Obstacle::Nobody,
            Blocked::Living | Blocked::Behind(_) => Obstacle::Owner,
        }
    }
}
