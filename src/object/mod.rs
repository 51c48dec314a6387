//! Typed objects in blocks of a segment: how each kind is laid out, how a process comes to hold an
//! object and operates on it, and how an object is cleared of the claims of dead processes.
//!
//! - [`handle`]: the name of an object, which can be sent.
//! - [`kind`]: the kind of an object, which its block records.
//! - [`block`]: the bytes of each kind, and its recovery after an owner died.
//! - [`cast`]: a value of any type as a `Vec<u8>`, if it is one.
//! - [`ends`]: the ends of channels and rings that this process has.
//! - [`payload`]: typed values in blocks.
//! - [`parcel`]: messages of any length: in the slot, or in a block of their own.
//! - [`carry`]: values that own memory, on their way through a queue. [`owned`]: that memory.
//! - [`holding`]: an object as this process holds it.
//! - [`flight`]: the objects that a message holds.
//! - [`serial`]: handles as serde values: in messages, in what a child returns, and everywhere
//!   else.
//! - [`place`]: where it lies; every operation starts there.
//! - [`attempt`]: the slow path of an operation that does not succeed at once.
//! - [`transfer`]: the errors of sending and receiving.
//! - [`reap`]: gives back the holds and claims of a dead process.
//! - [`lineage`]: what a forked child gets from its parent.
//! - [`result`]: values that own memory, and handles, on their way from a child to its parent.
//! - [`witness`]: whether anybody has the other end.
//! - `segment`: a segment and its objects.
//! - `stats`: what a segment holds, in numbers.

pub(crate) mod attempt;
pub(crate) mod block;
pub(crate) mod carry;
pub(crate) mod cast;
pub(crate) mod ends;
pub(crate) mod error;
pub(crate) mod flight;
pub(crate) mod handle;
pub(crate) mod holding;
pub(crate) mod kind;
pub(crate) mod lineage;
pub(crate) mod owned;
pub(crate) mod parcel;
pub(crate) mod payload;
pub(crate) mod place;
pub(crate) mod reap;
pub(crate) mod result;
mod segment;
pub(crate) mod serial;
mod stats;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;
pub(crate) mod witness;

pub use error::CreateError;
pub use handle::{Handle, ParseHandleError};
pub use stats::{PeerStats, SegmentStats, Usage};
