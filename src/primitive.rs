//! Atomics and the spin hint: the real ones, or loom's under `--cfg loom`. The one switch.
//!
//! Algorithms name these and nothing else, so that the same source runs in a mapped segment and
//! inside a model checker.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Tells the processor that this is a spin loop; under loom, lets another thread run.
#[inline]
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
