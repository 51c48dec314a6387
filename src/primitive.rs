//! Atomics and the spin hint: the real ones, or loom's under `--cfg loom`. The switch is here and
//! nowhere else.
//!
//! Algorithms use only these, so that the same source runs in a mapped segment and inside a model
//! checker.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{Ordering, fence};

// Type aliases and not re-exports, so that clippy can tell them from the types of `core`, which
// `clippy.toml` keeps out of all other files.
#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "the one switch between these and loom's")]
pub(crate) type AtomicU32 = core::sync::atomic::AtomicU32;
#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "the one switch between these and loom's")]
pub(crate) type AtomicU64 = core::sync::atomic::AtomicU64;
#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "the one switch between these and loom's")]
pub(crate) type AtomicPtr<T> = core::sync::atomic::AtomicPtr<T>;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Tells the processor that this is a spin loop; under loom, lets another thread run.
#[inline]
#[cfg_attr(not(loom), expect(clippy::disallowed_methods, reason = "the one switch"))]
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
