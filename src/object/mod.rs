//! Typed objects in blocks of a segment: how each kind lies there, how a process comes to hold one,
//! how it operates on it, and how it is cleared of the dead.
//!
//! - [`handle`]: the name of an object, which travels.
//! - [`kind`]: what an object is, as its block says.
//! - [`block`]: the bytes of each kind, and what its dead owners leave there.
//! - [`payload`]: typed values in blocks.
//! - [`holding`]: an object as this process holds it.
//! - [`place`]: where it lies; the door to every operation.
//! - [`attempt`]: how an operation goes on that does not succeed at once.
//! - [`transfer`]: what can go wrong when values are sent and received.
//! - [`reap`]: what becomes of the holds and claims of a dead process.
//! - [`lineage`]: what a forked child is given.
//! - `segment`: what a segment does with all its objects.

pub(crate) mod attempt;
pub(crate) mod block;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod holding;
pub(crate) mod kind;
pub(crate) mod lineage;
pub(crate) mod payload;
pub(crate) mod place;
pub(crate) mod reap;
mod segment;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;

pub use error::CreateError;
pub use handle::Handle;
