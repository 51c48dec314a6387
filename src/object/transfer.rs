//! Errors of sending and receiving, shared by all objects that do so. Send errors give the value
//! back.
//!
//! `Full`, `Empty` and `Timeout` are transient: a later attempt may succeed. `Closed`,
//! `Disconnected` and `Broken` are final. `Rejected` is about one message. Where every message can
//! be sent and read, its type is [`Never`], and a `match` needs no arm for it.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::attempt::{Never, NotNow, TimedOut};
use crate::peer::Fault;

const CLOSED: &str = "closed: nothing more can be sent";
const DRAINED: &str = "closed, and nothing is left to receive";
const NO_RECEIVERS: &str = "disconnected: every receiver is gone";
const NO_SENDERS: &str = "disconnected: every sender is gone, and nothing is left to receive";
const FULL: &str = "full";
const EMPTY: &str = "empty";
const TIMEOUT: &str = "timed out";

/// Error of [`Queue::send`](crate::Queue::send) and
/// [`Producer::send`](crate::spsc::Producer::send); gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendError<T, E = Never> {
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// Every receiver of the channel or ring is gone; no later attempt can succeed.
    Disconnected(T),
    /// The object cannot be used.
    Broken(T, Fault),
    /// This message cannot be sent; others can.
    Rejected(T, E),
}

/// Error of [`Queue::try_send`](crate::Queue::try_send) and
/// [`Producer::try_send`](crate::spsc::Producer::try_send); gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrySendError<T, E = Never> {
    /// No slot is free right now; a later attempt may succeed.
    Full(T),
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// Every receiver of the channel or ring is gone; no later attempt can succeed.
    Disconnected(T),
    /// The object cannot be used.
    Broken(T, Fault),
    /// This message cannot be sent; others can.
    Rejected(T, E),
}

/// Error of [`Queue::send_timeout`](crate::Queue::send_timeout) and of other forms of sending with
/// a deadline; gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendTimeoutError<T, E = Never> {
    /// No slot became free in time; a later attempt may succeed.
    Timeout(T),
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// Every receiver of the channel or ring is gone; no later attempt can succeed.
    Disconnected(T),
    /// The object cannot be used.
    Broken(T, Fault),
    /// This message cannot be sent; others can.
    Rejected(T, E),
}

/// Error of sending several values: how many were sent, and what stopped the rest.
///
/// The values that were sent are the first ones of the slice. They stay sent.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendManyError<E> {
    /// Number of values that were sent.
    pub sent: usize,
    /// Why the next one was not sent.
    pub error: E,
}

/// Error of [`Queue::recv`](crate::Queue::recv) and
/// [`Consumer::recv`](crate::spsc::Consumer::recv).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecvError<E = Never> {
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// Every sender of the channel or ring is gone and nothing is left; no later attempt can
    /// succeed.
    Disconnected,
    /// The object cannot be used.
    Broken(Fault),
    /// A message came that cannot be read. It was taken out, and the next one is not affected.
    Rejected(E),
}

/// Error of [`Queue::try_recv`](crate::Queue::try_recv) and
/// [`Consumer::try_recv`](crate::spsc::Consumer::try_recv).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryRecvError<E = Never> {
    /// No message is there right now; a later attempt may succeed.
    Empty,
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// Every sender of the channel or ring is gone and nothing is left; no later attempt can
    /// succeed.
    Disconnected,
    /// The object cannot be used.
    Broken(Fault),
    /// A message came that cannot be read. It was taken out, and the next one is not affected.
    Rejected(E),
}

/// Error of [`Queue::recv_timeout`](crate::Queue::recv_timeout) and of other forms of receiving
/// with a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecvTimeoutError<E = Never> {
    /// No message came in time; a later attempt may succeed.
    Timeout,
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// Every sender of the channel or ring is gone and nothing is left; no later attempt can
    /// succeed.
    Disconnected,
    /// The object cannot be used.
    Broken(Fault),
    /// A message came that cannot be read. It was taken out, and the next one is not affected.
    Rejected(E),
}

impl<T, E> SendError<T, E> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Closed(value)
            | SendError::Disconnected(value)
            | SendError::Broken(value, _)
            | SendError::Rejected(value, _) => value,
        }
    }

    /// Whether the object was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, SendError::Closed(_))
    }

    /// Whether every receiver of the channel or ring is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, SendError::Disconnected(_))
    }
}

impl<T, E> TrySendError<T, E> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(value)
            | TrySendError::Closed(value)
            | TrySendError::Disconnected(value)
            | TrySendError::Broken(value, _)
            | TrySendError::Rejected(value, _) => value,
        }
    }

    /// Whether no slot was free.
    pub fn is_full(&self) -> bool {
        matches!(self, TrySendError::Full(_))
    }

    /// Whether the object was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, TrySendError::Closed(_))
    }

    /// Whether every receiver of the channel or ring is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, TrySendError::Disconnected(_))
    }
}

impl<T, E> SendTimeoutError<T, E> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value)
            | SendTimeoutError::Closed(value)
            | SendTimeoutError::Disconnected(value)
            | SendTimeoutError::Broken(value, _)
            | SendTimeoutError::Rejected(value, _) => value,
        }
    }

    /// Whether the time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, SendTimeoutError::Timeout(_))
    }

    /// Whether the object was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, SendTimeoutError::Closed(_))
    }

    /// Whether every receiver of the channel or ring is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, SendTimeoutError::Disconnected(_))
    }
}

impl<E> RecvError<E> {
    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, RecvError::Closed)
    }

    /// Whether every sender of the channel or ring is gone and nothing is left.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, RecvError::Disconnected)
    }
}

impl<E> TryRecvError<E> {
    /// Whether no message was there.
    pub fn is_empty(&self) -> bool {
        matches!(self, TryRecvError::Empty)
    }

    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, TryRecvError::Closed)
    }

    /// Whether every sender of the channel or ring is gone and nothing is left.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, TryRecvError::Disconnected)
    }
}

impl<E> RecvTimeoutError<E> {
    /// Whether the time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, RecvTimeoutError::Timeout)
    }

    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, RecvTimeoutError::Closed)
    }

    /// Whether every sender of the channel or ring is gone and nothing is left.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, RecvTimeoutError::Disconnected)
    }
}

/// One line, as printed by a `main` that returns the error. The value need not be printable.
impl<T, E: fmt::Display> fmt::Debug for SendError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<T, E: fmt::Display> fmt::Debug for TrySendError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<T, E: fmt::Display> fmt::Debug for SendTimeoutError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<E: fmt::Display> fmt::Debug for SendManyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<E: fmt::Display> fmt::Debug for RecvError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<E: fmt::Display> fmt::Debug for TryRecvError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<E: fmt::Display> fmt::Debug for RecvTimeoutError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T, E: fmt::Display> fmt::Display for SendError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(_) => f.write_str(CLOSED),
            SendError::Disconnected(_) => f.write_str(NO_RECEIVERS),
            SendError::Broken(_, fault) => fmt::Display::fmt(fault, f),
            SendError::Rejected(_, why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<T, E: fmt::Display> fmt::Display for TrySendError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str(FULL),
            TrySendError::Closed(_) => f.write_str(CLOSED),
            TrySendError::Disconnected(_) => f.write_str(NO_RECEIVERS),
            TrySendError::Broken(_, fault) => fmt::Display::fmt(fault, f),
            TrySendError::Rejected(_, why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<T, E: fmt::Display> fmt::Display for SendTimeoutError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendTimeoutError::Timeout(_) => f.write_str(TIMEOUT),
            SendTimeoutError::Closed(_) => f.write_str(CLOSED),
            SendTimeoutError::Disconnected(_) => f.write_str(NO_RECEIVERS),
            SendTimeoutError::Broken(_, fault) => fmt::Display::fmt(fault, f),
            SendTimeoutError::Rejected(_, why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for SendManyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} values", self.error, self.sent)
    }
}

impl<E: fmt::Display> fmt::Display for RecvError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str(DRAINED),
            RecvError::Disconnected => f.write_str(NO_SENDERS),
            RecvError::Broken(fault) => fmt::Display::fmt(fault, f),
            RecvError::Rejected(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for TryRecvError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str(EMPTY),
            TryRecvError::Closed => f.write_str(DRAINED),
            TryRecvError::Disconnected => f.write_str(NO_SENDERS),
            TryRecvError::Broken(fault) => fmt::Display::fmt(fault, f),
            TryRecvError::Rejected(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for RecvTimeoutError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvTimeoutError::Timeout => f.write_str(TIMEOUT),
            RecvTimeoutError::Closed => f.write_str(DRAINED),
            RecvTimeoutError::Disconnected => f.write_str(NO_SENDERS),
            RecvTimeoutError::Broken(fault) => fmt::Display::fmt(fault, f),
            RecvTimeoutError::Rejected(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl<T, E: fmt::Display> Error for SendError<T, E> {}
impl<T, E: fmt::Display> Error for TrySendError<T, E> {}
impl<T, E: fmt::Display> Error for SendTimeoutError<T, E> {}
impl<E: fmt::Display> Error for SendManyError<E> {}
impl<E: fmt::Display> Error for RecvError<E> {}
impl<E: fmt::Display> Error for TryRecvError<E> {}
impl<E: fmt::Display> Error for RecvTimeoutError<E> {}

/// Why an operation did not succeed, before it becomes the error of that operation. `L` is what the
/// operation reports if its time was not long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop<L> {
    Late(L),
    Closed,
    Disconnected,
    Broken(Fault),
}

impl Stop<Never> {
    /// The same for an operation that can fail in more ways.
    pub(crate) fn widen<L>(self) -> Stop<L> {
        match self {
            Stop::Late(never) => match never {},
            Stop::Closed => Stop::Closed,
            Stop::Disconnected => Stop::Disconnected,
            Stop::Broken(fault) => Stop::Broken(fault),
        }
    }
}

/// Whether a message is so large that most of the time goes into its copies.
///
/// A function that is not inlined returns a `Result` with such a message in memory, and the caller
/// copies the message out of it, from 8 bytes behind its beginning. With 4 KiB that copy often goes
/// to an address that is 8 bytes higher modulo a page, and then it takes twenty times as long on
/// some processors, where memcpy uses `rep movsb` (glibc bug 30994; docs/tried.md, "4 KiB by
/// value"). So large messages are received inline, where the compiler takes the `Result` apart.
pub(crate) const fn is_large<T>() -> bool {
    size_of::<T>() > 256
}

/// The error of sending that belongs to a way of waiting.
///
/// The functions are not inlined: with a message of 64 KiB, the copies in each of their arms would
/// keep LLVM's SROA pass busy for hours, once the error beside the message is larger than a word.
pub(crate) trait SendStop {
    type Error<T, E>;

    fn with<T, E>(self, value: T) -> Self::Error<T, E>;

    /// The error of a message that cannot be sent.
    fn rejected<T, E>(value: T, why: E) -> Self::Error<T, E>;
}

/// An error of receiving, for a message that cannot be read.
pub(crate) trait RecvReject<E> {
    fn rejected(why: E) -> Self;
}

impl SendStop for Stop<Never> {
    type Error<T, E> = SendError<T, E>;

    #[cold]
    #[inline(never)]
    fn with<T, E>(self, value: T) -> SendError<T, E> {
        match self {
            Stop::Late(never) => match never {},
            Stop::Closed => SendError::Closed(value),
            Stop::Disconnected => SendError::Disconnected(value),
            Stop::Broken(fault) => SendError::Broken(value, fault),
        }
    }

    #[cold]
    fn rejected<T, E>(value: T, why: E) -> SendError<T, E> {
        SendError::Rejected(value, why)
    }
}

impl SendStop for Stop<NotNow> {
    type Error<T, E> = TrySendError<T, E>;

    #[cold]
    #[inline(never)]
    fn with<T, E>(self, value: T) -> TrySendError<T, E> {
        match self {
            Stop::Late(NotNow) => TrySendError::Full(value),
            Stop::Closed => TrySendError::Closed(value),
            Stop::Disconnected => TrySendError::Disconnected(value),
            Stop::Broken(fault) => TrySendError::Broken(value, fault),
        }
    }

    #[cold]
    fn rejected<T, E>(value: T, why: E) -> TrySendError<T, E> {
        TrySendError::Rejected(value, why)
    }
}

impl SendStop for Stop<TimedOut> {
    type Error<T, E> = SendTimeoutError<T, E>;

    #[cold]
    #[inline(never)]
    fn with<T, E>(self, value: T) -> SendTimeoutError<T, E> {
        match self {
            Stop::Late(TimedOut) => SendTimeoutError::Timeout(value),
            Stop::Closed => SendTimeoutError::Closed(value),
            Stop::Disconnected => SendTimeoutError::Disconnected(value),
            Stop::Broken(fault) => SendTimeoutError::Broken(value, fault),
        }
    }

    #[cold]
    fn rejected<T, E>(value: T, why: E) -> SendTimeoutError<T, E> {
        SendTimeoutError::Rejected(value, why)
    }
}

impl<E> From<Stop<Never>> for RecvError<E> {
    fn from(stop: Stop<Never>) -> RecvError<E> {
        match stop {
            Stop::Late(never) => match never {},
            Stop::Closed => RecvError::Closed,
            Stop::Disconnected => RecvError::Disconnected,
            Stop::Broken(fault) => RecvError::Broken(fault),
        }
    }
}

impl<E> From<Stop<NotNow>> for TryRecvError<E> {
    fn from(stop: Stop<NotNow>) -> TryRecvError<E> {
        match stop {
            Stop::Late(NotNow) => TryRecvError::Empty,
            Stop::Closed => TryRecvError::Closed,
            Stop::Disconnected => TryRecvError::Disconnected,
            Stop::Broken(fault) => TryRecvError::Broken(fault),
        }
    }
}

impl<E> From<Stop<TimedOut>> for RecvTimeoutError<E> {
    fn from(stop: Stop<TimedOut>) -> RecvTimeoutError<E> {
        match stop {
            Stop::Late(TimedOut) => RecvTimeoutError::Timeout,
            Stop::Closed => RecvTimeoutError::Closed,
            Stop::Disconnected => RecvTimeoutError::Disconnected,
            Stop::Broken(fault) => RecvTimeoutError::Broken(fault),
        }
    }
}

impl<E> RecvReject<E> for RecvError<E> {
    fn rejected(why: E) -> RecvError<E> {
        RecvError::Rejected(why)
    }
}

impl<E> RecvReject<E> for TryRecvError<E> {
    fn rejected(why: E) -> TryRecvError<E> {
        TryRecvError::Rejected(why)
    }
}

impl<E> RecvReject<E> for RecvTimeoutError<E> {
    fn rejected(why: E) -> RecvTimeoutError<E> {
        RecvTimeoutError::Rejected(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has no `Debug`: errors must not need it.
    struct Opaque(u8);

    #[test]
    fn each_predicate_matches_its_variant_and_no_other() {
        let fault = Fault::Corrupt;
        assert!(SendError::<_>::Closed(0).is_closed());
        assert!(!SendError::<_>::Broken(0, fault).is_closed());
        let all: [TrySendError<_>; _] =
            [TrySendError::Full(0), TrySendError::Closed(0), TrySendError::Broken(0, fault)];
        assert_eq!(all.map(|error| error.is_full()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        let all: [SendTimeoutError<_>; _] = [
            SendTimeoutError::Timeout(0),
            SendTimeoutError::Closed(0),
            SendTimeoutError::Broken(0, fault),
        ];
        assert_eq!(all.map(|error| error.is_timeout()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        assert_eq!(
            [RecvError::<Never>::Closed, RecvError::Broken(fault)].map(|error| error.is_closed()),
            [true, false]
        );
        let all: [TryRecvError; _] =
            [TryRecvError::Empty, TryRecvError::Closed, TryRecvError::Broken(fault)];
        assert_eq!(all.map(|error| error.is_empty()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        let all: [RecvTimeoutError; _] =
            [RecvTimeoutError::Timeout, RecvTimeoutError::Closed, RecvTimeoutError::Broken(fault)];
        assert_eq!(all.map(|error| error.is_timeout()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
    }

    #[test]
    fn only_a_disconnected_end_is_called_so() {
        assert!(SendError::<_>::Disconnected(0).is_disconnected());
        assert!(TrySendError::<_>::Disconnected(0).is_disconnected());
        assert!(SendTimeoutError::<_>::Disconnected(0).is_disconnected());
        assert!(RecvError::<Never>::Disconnected.is_disconnected());
        assert!(TryRecvError::<Never>::Disconnected.is_disconnected());
        assert!(RecvTimeoutError::<Never>::Disconnected.is_disconnected());
        assert!(!SendError::<_>::Closed(0).is_disconnected());
        assert!(!TrySendError::<_>::Full(0).is_disconnected());
        assert!(!SendTimeoutError::<_>::Timeout(0).is_disconnected());
        assert!(!RecvError::<Never>::Closed.is_disconnected());
        assert!(!TryRecvError::<Never>::Empty.is_disconnected());
        assert!(!RecvTimeoutError::<Never>::Timeout.is_disconnected());
    }

    #[test]
    fn the_value_comes_back() {
        let closed: SendError<Opaque> = Stop::<Never>::Closed.with(Opaque(1));
        assert_eq!(closed.into_inner().0, 1);
        let full: TrySendError<Opaque> = Stop::Late(NotNow).with(Opaque(2));
        assert_eq!(full.into_inner().0, 2);
        let broken: SendTimeoutError<Opaque> =
            Stop::<TimedOut>::Broken(Fault::Corrupt).with(Opaque(3));
        assert_eq!(broken.into_inner().0, 3);
        let rejected = <Stop<Never> as SendStop>::rejected(Opaque(4), "too large");
        assert_eq!(rejected.to_string(), "too large");
        assert_eq!(rejected.into_inner().0, 4);
    }

    #[test]
    fn what_is_shown_says_what_happened() {
        assert_eq!(TrySendError::<_>::Full(Opaque(0)).to_string(), "full");
        let broken = SendError::<_>::Broken(Opaque(0), Fault::Stale);
        assert_eq!(format!("{broken:?}"), Fault::Stale.to_string());
        let many = SendManyError { sent: 3, error: TrySendError::<_>::Full(()) };
        assert_eq!(many.to_string(), "full after 3 values");
    }
}
