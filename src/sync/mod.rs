//! Words that a process can sleep on.
//!
//! - [`wait`]: the one blocking loop.
//! - [`spin`]: how it spins before it sleeps.
//! - [`event`]: an eventcount: sleep until something may have changed.
//! - [`looks`]: how often to ask about an owner without waiting.
//! - [`lock`]: a word that names its owner.

pub(crate) mod event;
pub(crate) mod lock;
#[cfg(not(loom))]
pub(crate) mod looks;
pub(crate) mod spin;
pub(crate) mod wait;

#[cfg(not(loom))]
pub use wait::Wait;
