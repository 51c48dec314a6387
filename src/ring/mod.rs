//! Lock-free rings over slots that the caller provides. They never sleep, and know nothing of
//! mapped memory or of what the slots carry.
//!
//! - [`position`]: positions in a ring, and the words of its slots.
//! - [`mpmc`]: many senders, many receivers; claims that name the claimant.
//! - [`spsc`]: one of each; a single store publishes.

pub(crate) mod mpmc;
pub(crate) mod position;
pub(crate) mod spsc;
