//! The asymmetric fence: the side that runs a million times a second pays nothing, the side about
//! to sleep pays a system call.
//!
//! A sender publishes and then looks whether somebody sleeps; a receiver says that it sleeps and
//! then looks whether something was published. Between the two steps each needs a full barrier
//! (Dekker), which costs the sender as much as a second read-modify-write.
//! `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` makes every processor that runs a *registered*
//! process pass through a full barrier, so the sleeper can pay for both sides, and the sender needs
//! only to stop the compiler.
//!
//! The system call interrupts other processors, 20 microseconds on some machines: too much for
//! those who sleep often, and nothing to those who sleep seldom. So an [event](crate::sync::event)
//! remembers in its word that somebody has slept lately, and as long as it does both sides fence
//! for themselves.
//!
//! It is right only if every process that notifies has registered, or fences for itself. A segment
//! therefore records at creation whether its sleepers rely on this, and a process that attaches to
//! such a segment and cannot register, as in a sandbox, fences. Where `membarrier` is missing at
//! creation, both sides use `fence(SeqCst)`.
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
    /// The others are asymmetric, and this process could not register: `fence(SeqCst)` when
    /// notifying, and as the others going to sleep.
    Unregistered,
}

impl Fences {
    /// Whether notifiers may leave their fence out, so that whoever goes to sleep has to ask the
    /// kernel for one.
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
                seldom();
                fence(Ordering::SeqCst);
            }
            #[cfg(not(loom))]
            #[expect(clippy::disallowed_methods, reason = "the arm below is the one for loom")]
            Fences::Asymmetric => core::sync::atomic::compiler_fence(Ordering::SeqCst),
            // loom reorders what it can, so the compiler's fence is not there to be modelled.
            #[cfg(loom)]
            Fences::Asymmetric => {}
        }
    }
}

/// Has the compiler put the branch that it is called in out of the way.
#[cold]
#[inline(always)]
fn seldom() {}

/// Orders what this thread has stored before what it loads. Pairs with itself.
pub(crate) fn full() {
    fence(Ordering::SeqCst);
}

/// As [`full`], for every thread of every registered process: stores that came before a load which
/// has been executed by now are seen by whoever knows that this has returned. False if the kernel
/// refuses, as a sandbox may after attach: a sleep is then only as good as its slice, which bounds
/// the harm.
#[cfg(not(loom))]
pub(crate) fn barrier() -> bool {
    membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// No model comes here: loom knows no such barrier.
#[cfg(loom)]
pub(crate) fn barrier() -> bool {
    false
}

/// Fences in vain after which fencing is given up.
#[cfg(not(loom))]
const PATIENCE: u32 = 64;

/// Counts a fence by which nobody was found asleep; true if there were many of late.
#[cfg(not(loom))]
pub(crate) fn in_vain() -> bool {
    use crate::primitive::AtomicU32;
    // Relaxed, and by store: a guess, over all events of this process.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.load(Ordering::Relaxed) + 1;
    COUNT.store(count % PATIENCE, Ordering::Relaxed);
    count == PATIENCE
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
