//! Typed objects in blocks of a segment: how each kind lies there, how a process comes to hold one,
//! and how it is cleared of the dead.
//!
//! - [`queue_block`], [`spsc_block`], [`lock_block`]: the bytes of each kind.
//! - [`handle`]: the name of an object, which travels.
//! - [`holding`]: an object as this process holds it; the door to every operation.
//! - [`clear`]: what becomes of the claims of a dead process.
//! - [`lineage`]: what a forked child is given.

pub(crate) mod clear;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod holding;
pub(crate) mod lineage;
pub(crate) mod lock_block;
pub(crate) mod queue_block;
pub(crate) mod spsc_block;
#[cfg(test)]
mod tests;

pub use error::CreateError;
pub use handle::Handle;
