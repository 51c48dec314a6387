//! The layout rule of all blocks: words with different writers lie two cache lines apart, as the
//! prefetcher fetches lines in pairs.

use core::ops::Deref;

/// The strictest alignment that a value in a block can have: that of a block.
pub(crate) const MOST_ALIGN: usize = 128;

/// Words that the same process writes, alone in two cache lines.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

const _: () = assert!(align_of::<Line<u8>>() == MOST_ALIGN);

impl<T> Deref for Line<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
