//! The asymmetric fence: the side that runs a million times a second pays nothing, the side about to sleep pays a system call.
//!
//! A sender publishes and then looks whether somebody sleeps; a receiver says that it sleeps and then looks whether something was
//! published. Between the two steps each needs a full barrier (Dekker), which costs the sender as much as a second
//! read-modify-write. `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` makes every processor that runs a *registered* process pass
//! through a full barrier, so the sleeper can pay for both sides, and the sender needs only to stop the compiler.
//!
//! It is right only if every process that notifies has registered. A segment therefore records at creation whether it relies on
//! this, and a process that cannot register is refused at attach. Where `membarrier` is missing at creation, both sides use
//! `fence(SeqCst)`.
//!
//! # Source
//! membarrier(2); Dice, Huang and Yang, "Asymmetric Dekker Synchronization" (2001).
#![cfg_attr(not(loom), expect(unsafe_code, reason = "membarrier has no wrapper in our dependencies"))]

use crate::primitive::{Ordering, fence};

/// Which pair of fences the processes of a segment agreed on when it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fences {
    /// `fence(SeqCst)` on both sides.
    Symmetric,
    /// A compiler fence when notifying, `membarrier` when going to sleep.
    #[cfg(not(loom))]
    Asymmetric,
}

impl Fences {
    /// Orders an earlier publishing store before a later load of the sleepers' flag. Pairs with [`Fences::heavy`].
    #[inline]
    pub(crate) fn light(self) {
        match self {
            Fences::Symmetric => fence(Ordering::SeqCst),
            #[cfg(not(loom))]
            Fences::Asymmetric => core::sync::atomic::compiler_fence(Ordering::SeqCst),
        }
    }

    /// Orders an earlier store of the sleepers' flag before a later load of what was published. Pairs with [`Fences::light`].
    pub(crate) fn heavy(self) {
        fence(Ordering::SeqCst);
        // A sandbox may forbid the call after attach; the sleep is then only as good as its slice, which bounds the harm.
        #[cfg(not(loom))]
        if self == Fences::Asymmetric {
            let _ = membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
        }
    }
}

/// Registers this process for barriers that other processes ask for. A forked child must register for itself.
#[cfg(not(loom))]
pub(crate) fn register() -> std::io::Result<()> {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)
}

#[cfg(not(loom))]
fn membarrier(command: libc::c_int) -> std::io::Result<()> {
    // SAFETY: membarrier takes two integers (and ignores the third here) and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
