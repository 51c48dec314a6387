//! Which processes are attached to a segment, and whether they are alive.
//!
//! - [`id`]: the id of a peer, also as it appears in claim words.
//! - [`identity`]: which peer this process is.
//! - [`table`]: the entries in the segment and their states.
//! - [`liveness`]: whether a peer is dead, as only the kernel can say.
//! - [`footprint`]: where in the heap a peer may have left something.
//! - [`attach`]: how a process gets its entry, also after a fork.
//! - [`reaper`]: which process clears up after a dead one, and what happens if it dies too.
//! - [`fault`]: why an operation could not start.

pub(crate) mod attach;
pub(crate) mod fault;
pub(crate) mod footprint;
pub(crate) mod id;
pub(crate) mod identity;
pub(crate) mod liveness;
pub(crate) mod reaper;
pub(crate) mod table;

pub use fault::Fault;
pub(crate) use id::PeerId;
