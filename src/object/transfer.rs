//! Errors of sending and receiving, shared by all objects that do so. Send errors give the value
//! back.
//!
//! `Full`, `Empty` and `Timeout` are transient: a later attempt may succeed. `Closed` and `Broken`
//! are final.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::attempt::{Never, NotNow, TimedOut};
use crate::peer::Fault;

const CLOSED: &str = "closed: nothing more can be sent";
const DRAINED: &str = "closed, and nothing is left to receive";
const FULL: &str = "full";
const EMPTY: &str = "empty";
const TIMEOUT: &str = "timed out";

/// Error of [`Queue::send`](crate::Queue::send) and
/// [`Producer::send`](crate::spsc::Producer::send); gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendError<T> {
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// The object cannot be used.
    Broken(T, Fault),
}

/// Error of [`Queue::try_send`](crate::Queue::try_send) and
/// [`Producer::try_send`](crate::spsc::Producer::try_send); gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrySendError<T> {
    /// No slot is free right now; a later attempt may succeed.
    Full(T),
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// The object cannot be used.
    Broken(T, Fault),
}

/// Error of [`Queue::send_timeout`](crate::Queue::send_timeout) and of other forms of sending with
/// a deadline; gives the value back.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendTimeoutError<T> {
    /// No slot became free in time; a later attempt may succeed.
    Timeout(T),
    /// The object was closed; no later attempt can succeed.
    Closed(T),
    /// The object cannot be used.
    Broken(T, Fault),
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
pub enum RecvError {
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// The object cannot be used.
    Broken(Fault),
}

/// Error of [`Queue::try_recv`](crate::Queue::try_recv) and
/// [`Consumer::try_recv`](crate::spsc::Consumer::try_recv).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryRecvError {
    /// No message is there right now; a later attempt may succeed.
    Empty,
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// The object cannot be used.
    Broken(Fault),
}

/// Error of [`Queue::recv_timeout`](crate::Queue::recv_timeout) and of other forms of receiving
/// with a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecvTimeoutError {
    /// No message came in time; a later attempt may succeed.
    Timeout,
    /// The object was closed and nothing is left in it; no later attempt can succeed.
    Closed,
    /// The object cannot be used.
    Broken(Fault),
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Closed(value) | SendError::Broken(value, _) => value,
        }
    }

    /// Whether the object was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, SendError::Closed(_))
    }
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(value)
            | TrySendError::Closed(value)
            | TrySendError::Broken(value, _) => value,
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
}

impl<T> SendTimeoutError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value)
            | SendTimeoutError::Closed(value)
            | SendTimeoutError::Broken(value, _) => value,
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
}

impl RecvError {
    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, RecvError::Closed)
    }
}

impl TryRecvError {
    /// Whether no message was there.
    pub fn is_empty(&self) -> bool {
        matches!(self, TryRecvError::Empty)
    }

    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, TryRecvError::Closed)
    }
}

impl RecvTimeoutError {
    /// Whether the time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, RecvTimeoutError::Timeout)
    }

    /// Whether the object was closed and nothing is left in it.
    pub fn is_closed(&self) -> bool {
        matches!(self, RecvTimeoutError::Closed)
    }
}

/// One line, as printed by a `main` that returns the error. The value need not be printable.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl<T> fmt::Debug for SendTimeoutError<T> {
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
impl fmt::Debug for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl fmt::Debug for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`SendError`].
impl fmt::Debug for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(_) => f.write_str(CLOSED),
            SendError::Broken(_, fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str(FULL),
            TrySendError::Closed(_) => f.write_str(CLOSED),
            TrySendError::Broken(_, fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendTimeoutError::Timeout(_) => f.write_str(TIMEOUT),
            SendTimeoutError::Closed(_) => f.write_str(CLOSED),
            SendTimeoutError::Broken(_, fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for SendManyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} values", self.error, self.sent)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str(DRAINED),
            RecvError::Broken(fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str(EMPTY),
            TryRecvError::Closed => f.write_str(DRAINED),
            TryRecvError::Broken(fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvTimeoutError::Timeout => f.write_str(TIMEOUT),
            RecvTimeoutError::Closed => f.write_str(DRAINED),
            RecvTimeoutError::Broken(fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl<T> Error for SendError<T> {}
impl<T> Error for TrySendError<T> {}
impl<T> Error for SendTimeoutError<T> {}
impl<E: fmt::Display> Error for SendManyError<E> {}
impl Error for RecvError {}
impl Error for TryRecvError {}
impl Error for RecvTimeoutError {}

/// Why an operation did not succeed, before it becomes the error of that operation. `L` is what the
/// operation reports if its time was not long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop<L> {
    Late(L),
    Closed,
    Broken(Fault),
}

impl Stop<Never> {
    /// The same for an operation that can fail in more ways.
    pub(crate) fn widen<L>(self) -> Stop<L> {
        match self {
            Stop::Late(never) => match never {},
            Stop::Closed => Stop::Closed,
            Stop::Broken(fault) => Stop::Broken(fault),
        }
    }
}

/// The error of sending that belongs to a way of waiting.
///
/// The functions are not inlined: with a message of 64 KiB, the copies in each of their arms would
/// keep LLVM's SROA pass busy for hours, once the error beside the message is larger than a word.
pub(crate) trait SendStop {
    type Error<T>;

    fn with<T>(self, value: T) -> Self::Error<T>;
}

impl SendStop for Stop<Never> {
    type Error<T> = SendError<T>;

    #[cold]
    #[inline(never)]
    fn with<T>(self, value: T) -> SendError<T> {
        match self {
            Stop::Late(never) => match never {},
            Stop::Closed => SendError::Closed(value),
            Stop::Broken(fault) => SendError::Broken(value, fault),
        }
    }
}

impl SendStop for Stop<NotNow> {
    type Error<T> = TrySendError<T>;

    #[cold]
    #[inline(never)]
    fn with<T>(self, value: T) -> TrySendError<T> {
        match self {
            Stop::Late(NotNow) => TrySendError::Full(value),
            Stop::Closed => TrySendError::Closed(value),
            Stop::Broken(fault) => TrySendError::Broken(value, fault),
        }
    }
}

impl SendStop for Stop<TimedOut> {
    type Error<T> = SendTimeoutError<T>;

    #[cold]
    #[inline(never)]
    fn with<T>(self, value: T) -> SendTimeoutError<T> {
        match self {
            Stop::Late(TimedOut) => SendTimeoutError::Timeout(value),
            Stop::Closed => SendTimeoutError::Closed(value),
            Stop::Broken(fault) => SendTimeoutError::Broken(value, fault),
        }
    }
}

impl From<Stop<Never>> for RecvError {
    fn from(stop: Stop<Never>) -> RecvError {
        match stop {
            Stop::Late(never) => match never {},
            Stop::Closed => RecvError::Closed,
            Stop::Broken(fault) => RecvError::Broken(fault),
        }
    }
}

impl From<Stop<NotNow>> for TryRecvError {
    fn from(stop: Stop<NotNow>) -> TryRecvError {
        match stop {
            Stop::Late(NotNow) => TryRecvError::Empty,
            Stop::Closed => TryRecvError::Closed,
            Stop::Broken(fault) => TryRecvError::Broken(fault),
        }
    }
}

impl From<Stop<TimedOut>> for RecvTimeoutError {
    fn from(stop: Stop<TimedOut>) -> RecvTimeoutError {
        match stop {
            Stop::Late(TimedOut) => RecvTimeoutError::Timeout,
            Stop::Closed => RecvTimeoutError::Closed,
            Stop::Broken(fault) => RecvTimeoutError::Broken(fault),
        }
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
        assert!(SendError::Closed(0).is_closed());
        assert!(!SendError::Broken(0, fault).is_closed());
        let all = [TrySendError::Full(0), TrySendError::Closed(0), TrySendError::Broken(0, fault)];
        assert_eq!(all.map(|error| error.is_full()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        let all = [
            SendTimeoutError::Timeout(0),
            SendTimeoutError::Closed(0),
            SendTimeoutError::Broken(0, fault),
        ];
        assert_eq!(all.map(|error| error.is_timeout()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        assert_eq!(
            [RecvError::Closed, RecvError::Broken(fault)].map(|error| error.is_closed()),
            [true, false]
        );
        let all = [TryRecvError::Empty, TryRecvError::Closed, TryRecvError::Broken(fault)];
        assert_eq!(all.map(|error| error.is_empty()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
        let all =
            [RecvTimeoutError::Timeout, RecvTimeoutError::Closed, RecvTimeoutError::Broken(fault)];
        assert_eq!(all.map(|error| error.is_timeout()), [true, false, false]);
        assert_eq!(all.map(|error| error.is_closed()), [false, true, false]);
    }

    #[test]
    fn the_value_comes_back() {
        assert_eq!(Stop::<Never>::Closed.with(Opaque(1)).into_inner().0, 1);
        assert_eq!(Stop::Late(NotNow).with(Opaque(2)).into_inner().0, 2);
        assert_eq!(Stop::<TimedOut>::Broken(Fault::Corrupt).with(Opaque(3)).into_inner().0, 3);
    }

    #[test]
    fn what_is_shown_says_what_happened() {
        assert_eq!(TrySendError::Full(Opaque(0)).to_string(), "full");
        let broken = SendError::Broken(Opaque(0), Fault::Stale);
        assert_eq!(format!("{broken:?}"), Fault::Stale.to_string());
        let many = SendManyError { sent: 3, error: TrySendError::Full(()) };
        assert_eq!(many.to_string(), "full after 3 values");
    }
}
