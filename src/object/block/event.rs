//! An event's block: a flag, and the eventcount of those who wait for it.
//!
//! # Layout
//! ```text
//! offset  size  field   written by              read by
//!      0     8  flag    everybody               everybody; see `sync::flag`
//!      8     4  raised  those that wait         those that set it, to see whether to wake
//!     16     8  reset   creator, before sharing all, once, at attach
//! ```
//! The eventcount lies beside the flag, as setting looks at it.
//!
//! # Peer death
//! Who may be where, and what a kill leaves there:
//! ```text
//! set:   [fetch_or] 1 [look whether somebody sleeps] 2 [change the eventcount] 3 [wake]
//! wait:  [take or look] 4 [announce] 5 [take or look] 6 [sleep] 7 [take or look] 8
//! clear: [compare-and-swap]
//! ```
//! - Before the `fetch_or` nothing has happened. At 1, 2 and 3 the flag is set, and those who sleep
//!   find out at the end of their slice; whoever comes later finds it set.
//! - At 4, 5, 6 and 7 a waiter has taken nothing. It leaves an announcement, for which the next
//!   process that sets the event wakes nobody and clears it. If it was woken and has not looked,
//!   the flag is still set, and another sleeper takes it at the end of its slice.
//! - At 8 it has taken one notification, which is gone with it.
//!
//! Nobody owns anything, so there is nothing to recover.
#![expect(unsafe_code, reason = "the words of an event are reached by a pointer")]

use std::ptr::NonNull;

use crate::object::place::Block;
use crate::peer::Fault;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;
use crate::sync::flag::{Flag, Reset, Seen};

#[derive(Debug)]
#[repr(C)]
struct Words {
    flag: Flag,
    raised: Event,
    reset: AtomicU64,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Words, flag) == 0);
    assert!(offset_of!(Words, raised) == 8);
    assert!(offset_of!(Words, reset) == 16);
    assert!(size_of::<Words>() == 24);
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Words {}

const RESET_MANUAL: u64 = 0;
const RESET_AUTO: u64 = 1;

/// How the event in this block is reset.
pub(crate) fn read_reset(region: Region<'_>, offset: u64, _len: u64) -> Result<Reset, Fault> {
    let words: &Words = region.at(offset).ok_or(Fault::Corrupt)?;
    // Relaxed: written before the block was shared, ordered by its word.
    match words.reset.load(Ordering::Relaxed) {
        RESET_MANUAL => Ok(Reset::Manual),
        RESET_AUTO => Ok(Reset::Auto),
        _ => Err(Fault::Corrupt),
    }
}

/// An event as it lies in its block.
///
/// # Invariants
/// `words` is the address of a `Words` in a mapping of the process that uses this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventBlock {
    words: NonNull<Words>,
    /// A private copy, checked once.
    reset: Reset,
}

impl Block for EventBlock {
    type Shape = Reset;

    fn len(_: &Reset) -> u64 {
        size_of::<Words>() as u64
    }

    fn view(region: Region<'_>, offset: u64, &reset: &Reset) -> Option<EventBlock> {
        let len = size_of::<Words>() as u64;
        // INVARIANT: `bytes` checks range and alignment.
        let words = region.bytes(offset, len, align_of::<Words>())?.cast();
        Some(EventBlock { words, reset })
    }
}

impl EventBlock {
    /// Writes an event that is not set into a block that belongs to this process alone.
    pub(crate) fn build(&self) {
        self.words().flag.reset();
        self.words().raised.reset();
        let reset = match self.reset {
            Reset::Manual => RESET_MANUAL,
            Reset::Auto => RESET_AUTO,
        };
        // Relaxed: published with the block's word.
        self.words().reset.store(reset, Ordering::Relaxed);
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: by the invariant, and atomics may be viewed while others write them.
        unsafe { self.words.as_ref() }
    }

    #[inline]
    pub(crate) fn flag(&self) -> &Flag {
        &self.words().flag
    }

    /// Notified when the flag was set.
    #[inline]
    pub(crate) fn raised(&self) -> &Event {
        &self.words().raised
    }

    /// Whether this is the same event.
    pub(crate) fn is_same(&self, other: &EventBlock) -> bool {
        self.words == other.words
    }

    #[inline]
    pub(crate) fn reset(&self) -> Reset {
        self.reset
    }

    /// As [`Flag::pass`].
    #[inline]
    pub(crate) fn pass(&self, before: Option<Seen>) -> Result<(), Seen> {
        self.flag().pass(self.reset, before)
    }
}
