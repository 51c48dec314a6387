//! The kernel, as far as the code under test asks it.

#[path = "../../../src/sys/clock.rs"]
pub(crate) mod clock;

pub(crate) mod barrier;
pub(crate) mod futex;
pub(crate) mod memory;
pub(crate) mod pidfd;
