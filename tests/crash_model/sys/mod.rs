//! The kernel, as far as the code under test asks it.

#[path = "../../../src/sys/clock.rs"]
pub(crate) mod clock;

#[path = "../../../src/sys/error.rs"]
pub(crate) mod error;

#[path = "../../../src/sys/thread.rs"]
pub(crate) mod thread;

pub(crate) mod barrier;
pub(crate) mod futex;
pub(crate) mod memory;
pub(crate) mod pidfd;
pub(crate) mod seat;
