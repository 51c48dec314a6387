//! What the tests of channels share.

use std::time::Duration;

use offspring::RecvTimeoutError;
use offspring::plain::{self, Receiver, Sender};

use crate::common::PATIENCE;

/// So long a channel stays open that nobody may close.
pub const OPEN: Duration = Duration::from_millis(150);

pub fn pair(capacity: usize) -> (Sender<u64>, Receiver<u64>) {
    plain::channel(capacity).expect("a channel")
}

#[track_caller]
pub fn stays_open(receiver: &Receiver<u64>) {
    assert_eq!(receiver.recv_timeout(OPEN), Err(RecvTimeoutError::Timeout));
}

#[track_caller]
pub fn is_disconnected(receiver: &Receiver<u64>) {
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}
