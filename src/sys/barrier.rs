//! The asymmetric fence: the side that runs a million times a second pays nothing, and the side
//! that is about to sleep pays with a system call.
//!
//! A sender publishes and then looks whether somebody sleeps. A receiver announces that it sleeps
//! and then looks whether something was published. Between the two steps each needs a full barrier
//! (Dekker), which costs the sender as much as a second read-modify-write.
//! `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` makes every processor that runs a *registered*
//! process execute a full barrier. So the sleeper can pay for both sides, and the sender only has
//! to keep the compiler from reordering.
//!
//! The system call interrupts other processors, which takes 20 microseconds on some machines. That
//! is too much for processes that sleep often, and does not matter to those that sleep rarely. So
//! the word of an [event](crate::sync::event) records that somebody has slept lately, and while it
//! does, both sides fence for themselves.
//!
//! This is right only if every process that notifies has registered, or fences for itself. A
//! segment therefore records at creation whether its sleepers rely on the barrier. A process that
//! attaches to such a segment and cannot register, as in a sandbox, fences for itself. Where
//! `membarrier` is missing at creation, both sides use `fence(SeqCst)`.
//!
//! # Source
//! membarrier(2); Dice, Huang and Yang, "Asymmetric Dekker Synchronization" (2001).

use crate::primitive::{Ordering, fence};
#[cfg(not(loom))]
use crate::sys::error::OsError;
#[cfg(not(loom))]
use rustix::thread::{MembarrierCommand, membarrier};

/// Which fences this process uses in a segment. All of its processes agree on how to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fences {
    /// `fence(SeqCst)` on both sides.
    Symmetric,
    /// A compiler fence when notifying, `membarrier` when going to sleep.
    Asymmetric,
    /// The segment is asymmetric, but this process could not register: `fence(SeqCst)` when
    /// notifying, `membarrier` when going to sleep.
    Unregistered,
}

impl Fences {
    /// Whether notifiers may leave their fence out, so that a process that goes to sleep has to ask
    /// the kernel for a barrier.
    #[inline]
    pub(crate) fn are_asymmetric(self) -> bool {
        self != Fences::Symmetric
    }

    /// Orders an earlier publishing store before a later load of the sleepers' flag. Pairs with
    /// [`full`] and [`barrier`].
    #[inline]
    pub(crate) fn light(self) {
        match self {
            Fences::Symmetric | Fences::Unregistered => {
                cold_path();
                fence(Ordering::SeqCst);
            }
            #[cfg(not(loom))]
            #[expect(clippy::disallowed_methods, reason = "the arm below is the one for loom")]
            Fences::Asymmetric => core::sync::atomic::compiler_fence(Ordering::SeqCst),
            // loom has no compiler fence to model.
            #[cfg(loom)]
            Fences::Asymmetric => {}
        }
    }
}

/// Tells the compiler that the branch in which it is called is rare.
#[cold]
#[inline(always)]
fn cold_path() {}

/// Orders what this thread has stored before what it loads. Pairs with itself.
pub(crate) fn full() {
    fence(Ordering::SeqCst);
}

/// As [`full`], for every thread of every registered process. A process that knows that this has
/// returned sees every store that came before a load that was executed until then. False if the
/// kernel refuses, as a sandbox may after attach. A wake-up may then be missed; the end of the
/// slice makes up for it.
#[cfg(not(loom))]
pub(crate) fn barrier() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// No model uses this: loom has no such barrier.
#[cfg(loom)]
pub(crate) fn barrier() -> bool {
    false
}

/// Number of fences without a sleeper after which fencing is given up.
#[cfg(not(loom))]
const IDLE_FENCES: u32 = 64;

/// Counts a fence after which nobody was found asleep; true once there have been many.
#[cfg(not(loom))]
pub(crate) fn in_vain() -> bool {
    use crate::primitive::AtomicU32;
    // Relaxed, and by store: a guess, over all events of this process.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.load(Ordering::Relaxed) + 1;
    COUNT.store(count % IDLE_FENCES, Ordering::Relaxed);
    count == IDLE_FENCES
}

#[cfg(loom)]
pub(crate) fn in_vain() -> bool {
    false
}

/// Registers this process for barriers that other processes ask for. A forked child must register
/// for itself.
#[cfg(not(loom))]
pub(crate) fn register() -> Result<(), OsError> {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).map_err(OsError::in_call("membarrier"))
}
