//! Why a wait ended without the event.

use serde::{Deserialize, Serialize};

use crate::object::attempt::three_forms;
use crate::peer::Fault;
use crate::sys::error::debug_in_one_line;

/// Error of [`Event::try_wait`](crate::Event::try_wait) and
/// [`Event::try_wait_any`](crate::Event::try_wait_any).
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TryWaitError {
    /// The event is not set, or none of them is; a later attempt may succeed.
    #[error("not set")]
    NotSet,
    /// The event cannot be used.
    #[error(transparent)]
    Broken(#[from] Fault),
}

/// Error of [`Event::wait_timeout`](crate::Event::wait_timeout) and of the other forms of waiting
/// with a deadline.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum WaitTimeoutError {
    /// Nobody set the event in time; a later attempt may succeed.
    #[error("timed out")]
    Timeout,
    /// The event cannot be used.
    #[error(transparent)]
    Broken(#[from] Fault),
}

debug_in_one_line!(TryWaitError, WaitTimeoutError);
three_forms!(Fault, TryWaitError::NotSet, WaitTimeoutError::Timeout);
