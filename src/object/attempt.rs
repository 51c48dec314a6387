//! The slow path, shared by all operations that do not succeed at once.
//!
//! An object says what one try is, and what to do when the owner in its way is dead. This file does
//! the rest: how long to try, when and how often to ask the kernel about the owner, and on what to
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
    /// What the operation reports if that was not long enough.
    type Late;

    fn limit(self) -> Limit<Self::Late>;
}

/// How long an operation tries, as a value, with what it reports in the end.
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

/// One try, without waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Once;

/// It did not succeed right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow;

/// It did not succeed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut;

/// What cannot happen: has no value, and a `match` needs no arm for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl Until for Forever {
    /// It does not give up.
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

/// Why an operation did not succeed, before it becomes the error of one of its forms. `L` is what
/// that form reports if its time was not long enough, `E` what all of them report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop<L, E> {
    Late(L),
    Final(E),
}

/// Makes the errors of an operation's three forms out of a [`Stop`]: of the form that waits as long
/// as it takes, of the one that does not wait, and of those with a deadline. The last two have a
/// case of their own, and every case of the first one, from which they can be made.
macro_rules! three_forms {
    ($endless:ty, $once:ident::$not_now:ident, $deadline:ident::$timed_out:ident) => {
        const _: () = {
            use $crate::object::attempt::{Never, NotNow, Stop, TimedOut};

            impl From<Stop<Never, $endless>> for $endless {
                fn from(stop: Stop<Never, $endless>) -> $endless {
                    match stop {
                        Stop::Late(never) => match never {},
                        Stop::Final(error) => error,
                    }
                }
            }

            impl From<Stop<NotNow, $endless>> for $once {
                fn from(stop: Stop<NotNow, $endless>) -> $once {
                    match stop {
                        Stop::Late(NotNow) => $once::$not_now,
                        Stop::Final(error) => error.into(),
                    }
                }
            }

            impl From<Stop<TimedOut, $endless>> for $deadline {
                fn from(stop: Stop<TimedOut, $endless>) -> $deadline {
                    match stop {
                        Stop::Late(TimedOut) => $deadline::$timed_out,
                        Stop::Final(error) => error.into(),
                    }
                }
            }
        };
    };
}

/// Says that an error has the same cases as another one, and may have more.
macro_rules! same_cases {
    ($from:ident => $to:ident: $($case:ident),+) => {
        impl From<$from> for $to {
            fn from(error: $from) -> $to {
                match error {
                    $($from::$case => $to::$case,)+
                    $from::Broken(fault) => $to::Broken(fault),
                }
            }
        }
    };
}

pub(crate) use {same_cases, three_forms};

/// Why a try did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked<H> {
    /// Nobody in particular: nothing is there, or there is no room.
    Nobody,
    /// Nobody in particular, but a check of who is alive may find something.
    Perhaps,
    /// Somebody who was just found alive.
    Living,
    /// The owner of something, which was seen in this state.
    Behind(H),
    /// As [`Blocked::Behind`], the owner of a lock that was taken so often since the last look.
    InTurn(H, u32),
}

/// An operation on an object, as a series of tries.
pub(crate) trait Attempt {
    type Done;
    /// Something that another process has claimed, as it was seen.
    type Held: Copy;

    /// Tries once. With `look`, it may ask the kernel who is alive.
    fn attempt(&mut self, look: bool) -> Result<Self::Done, Blocked<Self::Held>>;

    /// Who has claimed it, as claim words name a peer.
    fn owner(held: Self::Held) -> u32;

    /// Takes what was held from its dead owner, unless somebody else has done so. `Some` if this
    /// completes the operation.
    fn succeed(&mut self, held: Self::Held) -> Option<Self::Done>;
}

/// What a handle and its clones have learned from earlier waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) patience: Patience,
    /// When an operation that does not wait last asked the kernel about an owner in its way, in
    /// milliseconds.
    asked: AtomicU64,
}

/// Milliseconds between two questions to the kernel by operations that do not wait. A caller that
/// polls would otherwise ask every time, and a question takes a hundred times as long as a try.
const BETWEEN_QUESTIONS: u64 = 10;

impl Waiting {
    pub(crate) fn new(patience: Patience) -> Waiting {
        Waiting { patience, asked: AtomicU64::new(0) }
    }

    /// Whether it is time to ask again; if so, takes note that the caller asks now.
    pub(crate) fn may_ask(&self) -> bool {
        let now = clock::coarse_millis();
        // Relaxed: a question too many costs time and nothing else.
        let due = now.wrapping_sub(self.asked.load(Ordering::Relaxed)) >= BETWEEN_QUESTIONS;
        if due {
            self.asked.store(now, Ordering::Relaxed);
        }
        due
    }
}

/// Continues an operation whose first try was `blocked`, for as long as `until` says. Between tries
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

/// Tries without waiting; takes over from dead owners.
pub(crate) fn once<B: Block, A: Attempt>(
    object: &Object<B>,
    mut attempt: A,
) -> Result<A::Done, NotNow> {
    try_once(object, &mut attempt, true).map_err(|_| NotNow)
}

/// Tries. With `look`, takes over from dead owners until something else is in the way.
fn try_once<B: Block, A: Attempt>(
    object: &Object<B>,
    attempt: &mut A,
    look: bool,
) -> Result<A::Done, Blocked<A::Held>> {
    loop {
        let held = match attempt.attempt(look) {
            Err(Blocked::Behind(held) | Blocked::InTurn(held, _)) if look => held,
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
            Blocked::InTurn(_, turns) => Obstacle::Turns(turns),
        }
    }
}
