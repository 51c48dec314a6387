//! Who is attached to a segment, and are they alive.
//!
//! - [`id`]: the name of a peer, as it stands in claim words.
//! - [`table`]: the entries in the segment and their states.
//! - [`liveness`]: the verdict, from the kernel and nobody else.
//! - [`attach`]: how a process comes by its entry, also after a fork.
//! - [`reaper`]: who clears up after the dead, and how a reaper may die in the middle.
//! - [`fault`]: why an operation could not even begin.

pub(crate) mod attach;
pub(crate) mod fault;
pub(crate) mod id;
pub(crate) mod liveness;
pub(crate) mod reaper;
pub(crate) mod table;

pub use fault::Fault;
pub(crate) use id::PeerId;
