//! What the closure of a child may return: values that serde encodes, with handles of shared
//! objects in them, and boxes, which move.

use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boxed::{Boxable, ShmBox, ShmStr, ShmVec};
use crate::object::carry::Transfer;
use crate::object::lineage::Lineage;
use crate::object::result;
use crate::process::outcome::{Kept, Outcome, OutcomeFile};
use crate::segment::Shm;
use crate::sys::error::OsError;
use crate::sys::process as sys;

/// A value that the closure of a child can return: see [`fork`](crate::fork()).
///
/// Every owned [`serde`] value is one; it is encoded. Handles in it hold their objects until the
/// parent has them. A [`ShmBox`], [`ShmVec`] or [`ShmStr`] is one,
/// too; it moves to the parent, and its bytes stay where they are. For another value that owns
/// memory of a segment there is [`Moved`].
///
/// Only this crate implements it.
#[diagnostic::on_unimplemented(
    message = "a child cannot return `{Self}`",
    label = "implements neither `serde::Serialize` and `DeserializeOwned` nor `offspring::Transfer`",
    note = "a struct or an enum of your own: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "an error: return `Result<_, offspring::Failure>`, into which `?` converts every error",
    note = "a struct that owns boxes: wrap it in `offspring::Moved`"
)]
pub trait Return: Sized + 'static {
    /// Writes the value, or why it cannot be sent; false if that failed too.
    #[doc(hidden)]
    fn send(value: &mut ManuallyDrop<Self>, way: Way<'_>) -> bool;

    /// Takes back what `send` has handed over, as the value does not arrive.
    #[doc(hidden)]
    fn take_back(value: &mut ManuallyDrop<Self>);

    /// Reads the value that the dead child has sent.
    #[doc(hidden)]
    fn receive(way: Source<'_>) -> Answer<Self>;

    /// Whether values may own memory that is freed if nobody receives them.
    #[doc(hidden)]
    const OWNS: bool;
}

/// A value that can be given to a child: see [`spawn`](crate::spawn()). The same values as can be
/// [returned](Return).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given to a child",
    label = "implements neither `serde::Serialize` and `DeserializeOwned` nor `offspring::Transfer`",
    note = "a struct or an enum of your own: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "a struct that owns boxes: wrap it in `offspring::Moved`"
)]
pub trait Argument: Return {}

#[diagnostic::do_not_recommend]
impl<T: Return> Argument for T {}

/// Sends a value to a child, for the parent. An error says why that is not possible; what the value
/// owned is freed then.
pub(super) fn depart<A: Argument>(value: A, way: Way<'_>) -> Result<(), String> {
    let mut value = ManuallyDrop::new(value);
    let send = || panic::catch_unwind(AssertUnwindSafe(|| A::send(&mut value, way)));
    let sent = match sys::with_mask_kept(send) {
        Ok(Ok(sent)) => Ok(sent),
        Ok(Err(payload)) => {
            A::take_back(&mut value);
            drop(ManuallyDrop::into_inner(value));
            panic::resume_unwind(payload)
        }
        Err(refused) => Err(format!("{} failed", refused.call)),
    };
    let why = match sent {
        Ok(true) => way.outcome.why_no_value(),
        Ok(false) => Some("its record could not be written".to_owned()),
        Err(why) => Some(why),
    };
    if why.is_some() {
        A::take_back(&mut value);
    }
    // What was sent is the message's by now, and not freed here.
    drop(ManuallyDrop::into_inner(value));
    why.map_or(Ok(()), Err)
}

/// The way of a value from a child to its parent, or from a parent to its child: for the sender.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub(super) outcome: &'a OutcomeFile,
    pub(super) lineage: &'a Lineage,
}

/// The same for the receiver.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub(super) kept: &'a Kept,
    pub(super) lineage: &'a Lineage,
}

impl Source<'_> {
    /// Frees what the dead child has handed over and nobody has taken. `owns` says whether its
    /// value may own memory.
    pub(super) fn discard(self, owns: bool) {
        // A child that was killed may have handed over the objects of a value that it did not send.
        if owns || !self.kept.has_no_handles() {
            result::discard(self.lineage);
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Answer<T>(pub(super) Result<Option<Outcome<T>>, OsError>);

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Return for T {
    const OWNS: bool = false;

    fn send(value: &mut ManuallyDrop<T>, way: Way<'_>) -> bool {
        way.outcome.send(&**value, way.lineage)
    }

    fn take_back(_value: &mut ManuallyDrop<T>) {}

    fn receive(way: Source<'_>) -> Answer<T> {
        let answer = way.kept.read(way.lineage);
        if answer.is_ok() {
            way.discard(false);
        }
        Answer(answer)
    }
}

/// A value with memory of its own, as a child returns it to its parent.
///
/// It is needed only where a [`ShmBox`] is part of a struct: a box itself can be returned as it is.
///
/// # Examples
/// ```
/// use offspring::{Moved, ShmBox};
///
/// let child = offspring::spawn(|number: u64| Moved(ShmBox::new(number).unwrap()), 7)?;
/// let Moved(value) = child.join()?;
/// assert_eq!(*value, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Moved<T: Transfer>(pub T);

impl<T: Transfer> Return for Moved<T> {
    const OWNS: bool = true;

    fn send(value: &mut ManuallyDrop<Moved<T>>, way: Way<'_>) -> bool {
        send(&mut value.0, way)
    }

    fn take_back(value: &mut ManuallyDrop<Moved<T>>) {
        value.0.restore();
    }

    fn receive(way: Source<'_>) -> Answer<Moved<T>> {
        receive(way, Moved)
    }
}

impl<T: Boxable + ?Sized + 'static> Return for ShmBox<T> {
    const OWNS: bool = true;

    fn send(value: &mut ManuallyDrop<ShmBox<T>>, way: Way<'_>) -> bool {
        send(&mut **value, way)
    }

    fn take_back(value: &mut ManuallyDrop<ShmBox<T>>) {
        value.restore();
    }

    fn receive(way: Source<'_>) -> Answer<ShmBox<T>> {
        receive(way, |value| value)
    }
}

impl<T: Shm> Return for ShmVec<T> {
    const OWNS: bool = true;

    fn send(value: &mut ManuallyDrop<ShmVec<T>>, way: Way<'_>) -> bool {
        send(&mut **value, way)
    }

    fn take_back(value: &mut ManuallyDrop<ShmVec<T>>) {
        value.restore();
    }

    fn receive(way: Source<'_>) -> Answer<ShmVec<T>> {
        receive(way, |value| value)
    }
}

impl Return for ShmStr {
    const OWNS: bool = true;

    fn send(value: &mut ManuallyDrop<ShmStr>, way: Way<'_>) -> bool {
        send(&mut **value, way)
    }

    fn take_back(value: &mut ManuallyDrop<ShmStr>) {
        value.restore();
    }

    fn receive(way: Source<'_>) -> Answer<ShmStr> {
        receive(way, |value| value)
    }
}

fn send<T: Transfer>(value: &mut T, way: Way<'_>) -> bool {
    match result::pack(value, way.lineage) {
        Ok(message) => way.outcome.send(&message, way.lineage),
        Err(fault) => way.outcome.send_unsendable(&fault.to_string()),
    }
}

fn receive<T: Transfer, R>(way: Source<'_>, wrap: impl FnOnce(T) -> R) -> Answer<R> {
    let read = way.kept.read::<Vec<u64>>(way.lineage);
    let answer = read.map(|outcome| {
        Some(match outcome? {
            Outcome::Value(message) => match result::unpack(&message, way.lineage) {
                Ok(value) => Outcome::Value(wrap(value)),
                Err(fault) => Outcome::Undecodable(fault.to_string()),
            },
            Outcome::Panicked(panic) => Outcome::Panicked(panic),
            Outcome::Unsendable(why) => Outcome::Unsendable(why),
            Outcome::Undecodable(why) => Outcome::Undecodable(why),
            Outcome::NotStarted(why) => Outcome::NotStarted(why),
        })
    });
    if answer.is_ok() {
        way.discard(true);
    }
    Answer(answer)
}
