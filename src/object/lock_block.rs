//! A lock's block: the word and the value.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0     8  word   see `sync::lock`
//!      8     4  freed  the event of those who wait
//!    128     -  value  the owner's
//! ```
//! The value sits two cache lines away from the word, so that waiters looking at the word do not
//! slow the owner down. The event lies beside the word, as whoever unlocks looks at it.
#![expect(unsafe_code, reason = "a struct of atomics, and what lies behind it")]

use std::marker::PhantomData;
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

/// A lock as it lies in its block: one address, so that a guard is small.
///
/// # Invariants
/// `header` is the address of a `Header` that lies in the segment for `'a`, with the value behind
/// it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockBlock<'a> {
    header: NonNull<Header>,
    segment: PhantomData<&'a Header>,
}

impl<'a> LockBlock<'a> {
    /// For a value of that size and alignment; `None` if it does not lie within the segment.
    #[inline]
    pub(crate) fn view(
        region: Region<'a>,
        offset: u64,
        size: u64,
        align: usize,
    ) -> Option<LockBlock<'a>> {
        let start = region.bytes(offset, len(size)?, align.max(align_of::<Header>()))?;
        // INVARIANT: header and value lie in the region, which is mapped for `'a`.
        Some(LockBlock { header: start.cast(), segment: PhantomData })
    }

    #[inline]
    fn header(self) -> &'a Header {
        // SAFETY: by the invariant, and a `Header` may be viewed while others write it.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    pub(crate) fn lock(self) -> &'a RawLock {
        &self.header().word
    }

    /// Notified when the lock was given up.
    #[inline]
    pub(crate) fn freed(self) -> &'a Event {
        &self.header().freed
    }

    /// Address of the value.
    #[inline]
    pub(crate) fn value(self) -> NonNull<u8> {
        // SAFETY: by the invariant the value lies `VALUE_OFFSET` behind the start, which is the
        // size of a `Header`.
        unsafe { self.header.add(1) }.cast()
    }
}
