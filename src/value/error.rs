//! Why a value was not changed.

use serde::{Deserialize, Serialize};

use crate::object::attempt::{same_cases, three_forms};
use crate::peer::Fault;
use crate::sys::error::debug_in_one_line;

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

debug_in_one_line!(UpdateError, TryUpdateError, UpdateTimeoutError);
same_cases!(UpdateError => TryUpdateError: WouldDeadlock);
same_cases!(UpdateError => UpdateTimeoutError: WouldDeadlock);
three_forms!(UpdateError, TryUpdateError::WouldBlock, UpdateTimeoutError::Timeout);
