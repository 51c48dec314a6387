//! The event: something that processes wait for until another one says that it has happened.
//!
//! - this file: [`Event`], how it is set, cleared and waited for.
//! - `error`: why a wait ended without it.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::{TryWaitError, WaitTimeoutError};

use crate::object::attempt::{
    self, Attempt, Blocked, Forever, Limit, Never, Once, Stop, Until, Waiting,
};
use crate::object::block::event::{EventBlock, read_reset};
use crate::object::kind::Kind;
use crate::object::place::{Object, Seat};
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::segment::Segment;
use crate::sync::Wait;
use crate::sync::event::EventRef;
use crate::sync::flag::{Reset, Seen};
use crate::sync::spin::Patience;
use crate::sys::clock::Deadline;

/// A flag between processes that one sets and others wait for.
///
/// An event with *manual reset*, made by [`new`](Event::new), is a gate: [`set`](Event::set) opens
/// it for all who wait and for all who come later, until somebody [clears](Event::clear) it. Python
/// calls this `multiprocessing.Event`.
///
/// An event with *automatic reset*, made by [`auto_reset`](Event::auto_reset), is a turnstile: each
/// `set` lets at most one waiter pass, and whoever passes clears it. It does not count. Several
/// `set`s before anybody waits are one.
///
/// [`wait_any`](Event::wait_any) waits for the first of several events. Handles are cheap to clone;
/// the event lives as long as any process holds one.
///
/// # Blocking
/// Setting, clearing and looking never wait. Setting makes a system call only to wake a process
/// that sleeps, or to find out that the last one that slept is gone. Waiting for an event that is
/// set makes none.
///
/// # Memory ordering
/// Everything written before a `set` is visible to every process that finds the event set, or waits
/// until it is. If several `set`s came to one, this holds for each of them. It also holds for a
/// process that clears the event: so clear it first, and then look at what it stands for.
///
/// # Peer death
/// An event that was set stays set, whoever dies. A process killed in `set` has set the event or
/// has not. If it was killed before it could wake those who sleep, they find out within 100 ms. A
/// killed waiter takes with it at most the one `set` that it had just passed by; if it was only
/// woken, another waiter passes within 100 ms.
///
/// # Fork
/// A handle works in a forked child, which may set, clear and wait as any other process.
///
/// # Examples
/// ```
/// use offspring::Event;
///
/// let ready = Event::new()?;
/// let children: Vec<_> = (0..2)
///     .map(|_| offspring::spawn(|ready: Event| ready.wait(), ready.clone()))
///     .collect::<Result<_, _>>()?;
/// ready.set()?;
/// for child in children {
///     child.join()??;
/// }
/// assert!(ready.is_set()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// With automatic reset, each `set` is for one:
/// ```
/// use offspring::{Event, TryWaitError};
///
/// let work = Event::auto_reset()?;
/// work.set()?;
/// work.set()?;
/// assert_eq!(work.try_wait(), Ok(()));
/// assert_eq!(work.try_wait(), Err(TryWaitError::NotSet), "the two were one");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "CreateEvent")]
pub struct Event {
    shared: Arc<Shared>,
    wait: Wait,
}

/// What all handles of an event in a process share.
struct Shared {
    object: Object<EventBlock>,
    waiting: Waiting,
}

/// The event, as this process uses it.
type EventSeat = Seat<EventBlock>;

impl Event {
    /// Makes an event with manual reset in the commons. It is not set.
    ///
    /// # Errors
    /// [`CreateError`].
    #[doc(alias = "manual_reset")]
    pub fn new() -> Result<Event, CreateError> {
        Event::new_in(&Segment::commons()?)
    }

    /// Makes an event with manual reset in `segment`. It is not set.
    ///
    /// # Errors
    /// [`CreateError`].
    #[doc(alias = "manual_reset_in")]
    pub fn new_in(segment: &Segment) -> Result<Event, CreateError> {
        Event::make(segment, Reset::Manual)
    }

    /// Makes an event with automatic reset in the commons. It is not set.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn auto_reset() -> Result<Event, CreateError> {
        Event::auto_reset_in(&Segment::commons()?)
    }

    /// Makes an event with automatic reset in `segment`. It is not set.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn auto_reset_in(segment: &Segment) -> Result<Event, CreateError> {
        Event::make(segment, Reset::Auto)
    }

    fn make(segment: &Segment, reset: Reset) -> Result<Event, CreateError> {
        let build = |block: &EventBlock| block.build();
        Ok(Event::from_object(Object::create(segment, kind(), reset, build)?))
    }

    /// Opens the event that `handle` names, in `segment`. It is reset as it was made to be.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is not an
    /// event; [`Fault::Corrupt`] if its memory was overwritten.
    #[doc(alias = "OpenEvent")]
    pub fn open(segment: &Segment, handle: Handle) -> Result<Event, Fault> {
        Ok(Event::from_object(Object::open(segment, handle, kind(), read_reset)?))
    }

    fn from_object(object: Object<EventBlock>) -> Event {
        // A look in every round: a waiter only reads the word until it is set.
        let waiting = Waiting::new(Patience::with_pace(1, 1));
        Event { shared: Arc::new(Shared { object, waiting }), wait: Wait::default() }
    }

    /// The event's name, which can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.shared.object.handle()
    }

    /// Another handle of the same event, which waits as `wait` says.
    #[must_use = "this gives another handle and leaves this one as it is"]
    pub fn with_wait(&self, wait: Wait) -> Event {
        Event { wait, ..self.clone() }
    }

    /// Whether whoever waits successfully clears the event.
    pub fn is_auto_reset(&self) -> bool {
        *self.shared.object.shape() == Reset::Auto
    }

    /// Sets the event. Lets all who wait go on, or with automatic reset one of them.
    ///
    /// With manual reset, all who wait at this moment go on even if the event is cleared at once.
    ///
    /// # Blocking
    /// Never waits.
    ///
    /// # Errors
    /// [`Fault`] if a forked child cannot attach to the segment. In the process that made or opened
    /// the event, never.
    ///
    /// # Examples
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// let ready = offspring::Event::new()?;
    /// let price = AtomicU32::new(0);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         price.store(7, Ordering::Relaxed);
    ///         ready.set().unwrap();
    ///     });
    ///     ready.wait().unwrap();
    ///     assert_eq!(price.load(Ordering::Relaxed), 7, "written before it was set");
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "SetEvent")]
    #[inline]
    pub fn set(&self) -> Result<(), Fault> {
        match self.shared.object.known() {
            Some(place) => {
                set(place.seat());
                Ok(())
            }
            None => self.set_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn set_slowly(&self) -> Result<(), Fault> {
        set(self.shared.object.enter()?.seat());
        Ok(())
    }

    /// Clears the event: whoever waits from now on waits until it is set again.
    ///
    /// # Blocking
    /// Never waits.
    ///
    /// # Errors
    /// As [`Event::set`].
    #[doc(alias = "ResetEvent")]
    #[doc(alias = "reset")]
    pub fn clear(&self) -> Result<(), Fault> {
        self.shared.object.enter()?.seat().block.flag().clear();
        Ok(())
    }

    /// Whether the event is set right now. Changes nothing, also with automatic reset: then another
    /// process may pass before this one waits.
    ///
    /// # Errors
    /// As [`Event::set`].
    #[inline]
    pub fn is_set(&self) -> Result<bool, Fault> {
        match self.shared.object.known() {
            Some(place) => Ok(place.seat().block.flag().is_set()),
            None => self.is_set_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn is_set_slowly(&self) -> Result<bool, Fault> {
        Ok(self.shared.object.enter()?.seat().block.flag().is_set())
    }

    /// Waits until the event is set, as long as it takes. With automatic reset, clears it.
    ///
    /// # Errors
    /// As [`Event::set`].
    #[doc(alias = "WaitForSingleObject")]
    #[inline]
    pub fn wait(&self) -> Result<(), Fault> {
        self.pass(Forever)
    }

    /// Passes if the event is set right now. With automatic reset, clears it.
    ///
    /// # Errors
    /// [`TryWaitError::NotSet`], or as [`Event::wait`].
    #[inline]
    pub fn try_wait(&self) -> Result<(), TryWaitError> {
        self.pass(Once)
    }

    /// Waits at most `timeout` until the event is set. With automatic reset, clears it.
    ///
    /// # Errors
    /// [`WaitTimeoutError::Timeout`], or as [`Event::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitTimeoutError> {
        self.pass(Deadline::after(timeout))
    }

    /// Waits until `deadline` at the latest until the event is set. With automatic reset, clears
    /// it.
    ///
    /// # Errors
    /// [`WaitTimeoutError::Timeout`], or as [`Event::wait`].
    pub fn wait_deadline(&self, deadline: Instant) -> Result<(), WaitTimeoutError> {
        self.pass(Deadline::at(deadline))
    }

    /// Waits until one of `events` is set, as long as it takes; gives its place in the list. If
    /// that one has automatic reset, clears it, and none of the others.
    ///
    /// If several are set, it is the first of them in the list. The events may lie in different
    /// segments and be reset in different ways. Waits as the first handle does.
    ///
    /// # Blocking
    /// Sleeps on all events at once, if the kernel can do that: from Linux 5.16 on, for at most 128
    /// different events, unless a sandbox forbids `futex_waitv`. Otherwise it looks at all of them
    /// every millisecond.
    ///
    /// # Peer death
    /// As said at [`Event`], of each of the events.
    ///
    /// # Errors
    /// As [`Event::wait`], if any of the events cannot be used.
    ///
    /// # Panics
    /// If `events` is empty: the wait would never end.
    ///
    /// # Examples
    /// ```
    /// use offspring::Event;
    ///
    /// fn count((work, stop): (Event, Event)) -> u64 {
    ///     let mut pieces = 0;
    ///     while Event::wait_any(&[&work, &stop]).unwrap() == 0 {
    ///         pieces += 1;
    ///         stop.set().unwrap();
    ///     }
    ///     pieces
    /// }
    ///
    /// let (work, stop) = (Event::auto_reset()?, Event::new()?);
    /// let child = offspring::spawn(count, (work.clone(), stop))?;
    /// work.set()?;
    /// assert_eq!(child.join()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "WaitForMultipleObjects")]
    #[doc(alias = "select")]
    pub fn wait_any(events: &[&Event]) -> Result<usize, Fault> {
        pass_any(events, Forever)
    }

    /// Passes if one of `events` is set right now, as [`Event::wait_any`].
    ///
    /// # Errors
    /// [`TryWaitError::NotSet`], or as [`Event::wait_any`].
    ///
    /// # Panics
    /// If `events` is empty.
    pub fn try_wait_any(events: &[&Event]) -> Result<usize, TryWaitError> {
        pass_any(events, Once)
    }

    /// Waits at most `timeout` until one of `events` is set, as [`Event::wait_any`].
    ///
    /// # Errors
    /// [`WaitTimeoutError::Timeout`], or as [`Event::wait_any`].
    ///
    /// # Panics
    /// If `events` is empty.
    pub fn wait_any_timeout(
        events: &[&Event],
        timeout: Duration,
    ) -> Result<usize, WaitTimeoutError> {
        pass_any(events, Deadline::after(timeout))
    }

    /// Waits until `deadline` at the latest until one of `events` is set, as [`Event::wait_any`].
    ///
    /// # Errors
    /// [`WaitTimeoutError::Timeout`], or as [`Event::wait_any`].
    ///
    /// # Panics
    /// If `events` is empty.
    pub fn wait_any_deadline(
        events: &[&Event],
        deadline: Instant,
    ) -> Result<usize, WaitTimeoutError> {
        pass_any(events, Deadline::at(deadline))
    }

    /// The common cases end here; see `queue::shared`. That the event is not set is one of them,
    /// for those that do not wait: nobody need be asked who is alive.
    #[inline(always)]
    fn pass<U: Until, E: From<Stop<U::Late, Fault>>>(&self, until: U) -> Result<(), E> {
        if let Some(place) = self.shared.object.known() {
            if place.seat().block.pass(None).is_ok() {
                return Ok(());
            }
            if let Limit::None(late) = until.limit() {
                return Err(Stop::Late(late).into());
            }
        }
        self.pass_slowly(until)
    }

    #[cold]
    #[inline(never)]
    fn pass_slowly<U: Until, E: From<Stop<U::Late, Fault>>>(&self, until: U) -> Result<(), E> {
        let seat = self.shared.object.enter().map_err(Stop::Final)?.seat();
        let raised = [seat.event(seat.block.raised())];
        Ok(self.go_on(&[seat], &mut [None], &raised, until).map(drop)?)
    }

    /// Waits for the first of these events, of which this is one, as this handle does.
    fn go_on<U: Until>(
        &self,
        seats: &[EventSeat],
        before: &mut [Option<Seen>],
        raised: &[EventRef<'_>],
        until: U,
    ) -> Result<usize, Stop<U::Late, Fault>> {
        let Shared { object, waiting } = &*self.shared;
        let mut passing = Passing { seats, before };
        match passing.attempt(false) {
            Ok(index) => Ok(index),
            Err(blocked) => {
                attempt::go_on(object, passing, blocked, until, raised, self.wait, waiting)
                    .map_err(Stop::Late)
            }
        }
    }
}

fn kind() -> u64 {
    // It holds no values.
    Kind::Event.with::<()>()
}

#[inline]
fn set(seat: EventSeat) {
    seat.block.flag().set();
    let raised = seat.event(seat.block.raised());
    match seat.block.reset() {
        Reset::Manual => raised.notify_all(),
        // Also if it was set already: whoever was woken by that may be dead.
        Reset::Auto => raised.notify_one(),
    }
}

fn pass_any<U: Until, E: From<Stop<U::Late, Fault>>>(
    events: &[&Event],
    until: U,
) -> Result<usize, E> {
    let first = events.first().expect("at least one event to wait for");
    let passed = events.iter().position(|event| {
        event.shared.object.known().is_some_and(|place| place.seat().block.pass(None).is_ok())
    });
    match passed {
        Some(passed) => Ok(passed),
        None => pass_any_slowly(first, events, until),
    }
}

#[cold]
#[inline(never)]
fn pass_any_slowly<U: Until, E: From<Stop<U::Late, Fault>>>(
    first: &Event,
    events: &[&Event],
    until: U,
) -> Result<usize, E> {
    // All are entered before the first look, as entering may take long in a forked child.
    let seats = events.iter().map(|event| event.shared.object.enter().map(|place| place.seat()));
    let seats: Vec<EventSeat> = seats.collect::<Result<_, _>>().map_err(Stop::Final)?;
    // Each only once: the second announcement of a sleep to the same event would end that sleep.
    let raised = seats.iter().enumerate().filter_map(|(index, seat)| {
        let is_new = seats[..index].iter().all(|other| !other.block.is_same(&seat.block));
        is_new.then(|| seat.event(seat.block.raised()))
    });
    let raised: Vec<EventRef<'_>> = raised.collect();
    let passed = first.go_on(&seats, &mut vec![None; seats.len()], &raised, until)?;
    pass_on(&seats, passed);
    Ok(passed)
}

/// Passes on what was meant for one waiter of other events. A process that sleeps on several may be
/// woken by several, and has acted on one of them only.
fn pass_on(seats: &[EventSeat], passed: usize) {
    for (index, seat) in seats.iter().enumerate() {
        let raised = seat.event(seat.block.raised());
        if index != passed
            && seat.block.reset() == Reset::Auto
            && raised.seems_to_have_sleepers()
            && seat.block.flag().is_set()
        {
            raised.notify_one();
        }
    }
}

/// The waiting until one of some events is set.
struct Passing<'a> {
    seats: &'a [EventSeat],
    /// What was seen of each when the wait began.
    before: &'a mut [Option<Seen>],
}

impl Attempt for Passing<'_> {
    /// The place of the event in the list.
    type Done = usize;
    /// Nobody owns anything.
    type Held = Never;

    fn attempt(&mut self, _look: bool) -> Result<usize, Blocked<Never>> {
        for (index, (seat, before)) in self.seats.iter().zip(&mut *self.before).enumerate() {
            match seat.block.pass(*before) {
                Ok(()) => return Ok(index),
                Err(seen) => _ = before.get_or_insert(seen),
            }
        }
        Err(Blocked::Nobody)
    }

    fn owner(held: Never) -> u32 {
        match held {}
    }

    fn succeed(&mut self, held: Never) -> Option<usize> {
        match held {}
    }
}

/// Another handle of the same event.
impl Clone for Event {
    fn clone(&self) -> Self {
        Event { shared: Arc::clone(&self.shared), wait: self.wait }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the event.
/// Elsewhere the event's [`Handle`].
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serial::serialize(&self.shared.object, &self.shared, 0, serializer)
    }
}

/// Opens the event. An error says that it is gone, of another type, or in a segment that this
/// process does not have open.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| Event::open(segment, handle))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("handle", &self.handle()).finish_non_exhaustive()
    }
}
