//! Lock-free rings over slots they are given. They never sleep, and know nothing of mapped memory
//! or of what the slots carry.
//!
//! - [`position`]: where in the ring, and the words of its slots.
//! - [`mpmc`]: many senders, many receivers; claims that name the claimant.
//! - [`spsc`]: one of each; a single store publishes.

pub(crate) mod mpmc;
pub(crate) mod position;
pub(crate) mod spsc;
