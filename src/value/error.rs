//! Why a value was not changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::attempt::{Never, NotNow, TimedOut};
use crate::peer::Fault;
use crate::sys::error;

/// Error of changing a [`Value`](crate::Value), which is as it was.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UpdateError {
    /// The closure of an update, in this thread, is changing this very value.
    #[error("this thread is updating the value already")]
    WouldDeadlock,
    /// The value cannot be used.
    #[error(transparent)]
    Broken(#[from] Fault),
}

/// Error of [`Value::try_update`](crate::Value::try_update): the value was not changed.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TryUpdateError {
    /// Somebody else is changing the value; a later attempt may succeed.
    #[error("somebody else is changing the value")]
    WouldBlock,
    /// As [`UpdateError::WouldDeadlock`].
    #[error("{}", UpdateError::WouldDeadlock)]
    WouldDeadlock,
    /// As [`UpdateError::Broken`].
    #[error(transparent)]
    Broken(#[from] Fault),
}

/// Error of [`Value::update_timeout`](crate::Value::update_timeout) and
/// [`Value::update_deadline`](crate::Value::update_deadline): the value was not changed.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UpdateTimeoutError {
    /// Others were changing the value all the time; a later attempt may succeed.
    #[error("others were changing the value all the time")]
    Timeout,
    /// As [`UpdateError::WouldDeadlock`].
    #[error("{}", UpdateError::WouldDeadlock)]
    WouldDeadlock,
    /// As [`UpdateError::Broken`].
    #[error(transparent)]
    Broken(#[from] Fault),
}

/// One line: the text. It is what a `main` prints that returns the error.
impl fmt::Debug for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

/// As [`UpdateError`].
impl fmt::Debug for TryUpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

/// As [`UpdateError`].
impl fmt::Debug for UpdateTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

/// Why the value was not changed, before that is said in the words of one operation. `L` is what it
/// says when its time was not long enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop<L> {
    Late(L),
    Final(UpdateError),
}

impl From<Stop<Never>> for UpdateError {
    fn from(stop: Stop<Never>) -> UpdateError {
        match stop {
            Stop::Late(never) => match never {},
            Stop::Final(error) => error,
        }
    }
}

impl From<Stop<NotNow>> for TryUpdateError {
    fn from(stop: Stop<NotNow>) -> TryUpdateError {
        match stop {
            Stop::Late(NotNow) => TryUpdateError::WouldBlock,
            Stop::Final(UpdateError::WouldDeadlock) => TryUpdateError::WouldDeadlock,
            Stop::Final(UpdateError::Broken(fault)) => TryUpdateError::Broken(fault),
        }
    }
}

impl From<Stop<TimedOut>> for UpdateTimeoutError {
    fn from(stop: Stop<TimedOut>) -> UpdateTimeoutError {
        match stop {
            Stop::Late(TimedOut) => UpdateTimeoutError::Timeout,
            Stop::Final(UpdateError::WouldDeadlock) => UpdateTimeoutError::WouldDeadlock,
            Stop::Final(UpdateError::Broken(fault)) => UpdateTimeoutError::Broken(fault),
        }
    }
}
