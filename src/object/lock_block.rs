//! A lock's block: the word and the value.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0     8  word   see `sync::lock`
//!      8     4  freed  the event of those who wait
//!    128     -  value  the owner's
//! ```
//! The value sits two cache lines away from the word, so that waiters looking at the word do not slow the owner down. The event lies
//! beside the word, as whoever unlocks looks at it.
#![expect(unsafe_code, reason = "marks a struct of atomics")]

use std::ptr::NonNull;

use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;
use crate::sync::lock::RawLock;

/// The strictest alignment that the value can have.
pub(crate) const MOST_ALIGN: usize = 128;

const VALUE_OFFSET: u64 = 128;

#[derive(Debug)]
#[repr(C, align(128))]
struct Header {
    word: RawLock,
    freed: Event,
}

const _: () = {
    assert!(core::mem::offset_of!(Header, word) == 0);
    assert!(core::mem::offset_of!(Header, freed) == 8);
    assert!(size_of::<Header>() as u64 == VALUE_OFFSET);
};

// SAFETY: atomics, and padding that nobody reads.
unsafe impl Shared for Header {}

/// Bytes of a block for a value of `size` bytes.
pub(crate) fn len(size: u64) -> Option<u64> {
    VALUE_OFFSET.checked_add(size)
}

/// A lock as it lies in its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockBlock<'a> {
    pub(crate) lock: &'a RawLock,
    /// Notified when the lock was given up.
    pub(crate) freed: &'a Event,
    pub(crate) value: NonNull<u8>,
}

impl<'a> LockBlock<'a> {
    /// `None` if it does not lie within the segment.
    #[inline]
    pub(crate) fn view(region: Region<'a>, offset: u64, size: u64, align: usize) -> Option<LockBlock<'a>> {
        let header: &Header = region.at(offset)?;
        let value = region.bytes(offset + VALUE_OFFSET, size, align)?;
        Some(LockBlock { lock: &header.word, freed: &header.freed, value })
    }
}
