//! A lock's block: the word and the value.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0     8  word   see `sync::lock`
//!    128     -  value  the owner's
//! ```
//! The value sits two cache lines away from the word, so that waiters looking at the word do not slow the owner down.
#![expect(unsafe_code, reason = "marks a struct of atomics")]

use std::ptr::NonNull;

use crate::segment::region::{Region, Shared};
use crate::sync::lock::RawLock;

/// The strictest alignment that the value can have.
pub(crate) const MOST_ALIGN: usize = 128;

const VALUE_OFFSET: u64 = 128;

#[derive(Debug)]
#[repr(C, align(128))]
struct Header {
    word: RawLock,
}

const _: () = {
    assert!(core::mem::offset_of!(Header, word) == 0);
    assert!(size_of::<Header>() as u64 == VALUE_OFFSET);
};

// SAFETY: an atomic and padding that nobody reads.
unsafe impl Shared for Header {}

/// Bytes of a block for a value of `size` bytes.
pub(crate) fn len(size: u64) -> Option<u64> {
    VALUE_OFFSET.checked_add(size)
}

/// The lock word and the address of the value; `None` if they do not lie within the segment.
#[inline]
pub(crate) fn view(region: Region<'_>, offset: u64, size: u64, align: usize) -> Option<(&RawLock, NonNull<u8>)> {
    let header: &Header = region.at(offset)?;
    let value = region.bytes(offset + VALUE_OFFSET, size, align)?;
    Some((&header.word, value))
}
