//! Words that a process can sleep on.
//!
//! - [`wait`]: the one blocking loop.
//! - [`spin`]: how it spins before it sleeps.
//! - [`event`]: an eventcount, to sleep until something may have changed.
//! - [`flag`]: a word that is set, cleared and waited for.
//! - [`lock`]: a word that names its owner.
//! - [`turns`]: how often a lock is taken, counted for a waiter.
//! - [`seqlock`]: a value that is read while it is written.

pub(crate) mod event;
pub(crate) mod flag;
pub(crate) mod lock;
pub(crate) mod seqlock;
pub(crate) mod spin;
pub(crate) mod turns;
pub(crate) mod wait;

#[cfg(not(loom))]
pub use wait::Wait;
