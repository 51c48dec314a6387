//! A block that belongs to this process alone: as the heap has it, and as a handle remembers it.
//!
//! To look up where a block's header lies takes longer than all that is done to it. So it is done
//! when the process gets the block, and the handle remembers the address.
//!
//! # Peer death
//! Nothing here is shared. What a dead process owned says the block's word.
#![expect(unsafe_code, reason = "the address of a header is remembered beyond a borrow")]

use std::ptr::NonNull;

use crate::heap::block::{BlockHeader, BlockWord};
use crate::heap::pool::{BlockId, Carried, Pool};
use crate::segment::layout::Class;

/// A block that belongs to this process alone, with the word that it must have.
///
/// # Invariants
/// `class` is that of `id`, and has that block. The state of `word` is `OWNED`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned<'a> {
    pub(crate) id: BlockId,
    pub(super) class: &'a Class,
    pub(super) header: &'a BlockHeader,
    pub(super) word: BlockWord,
}

impl Owned<'_> {
    /// Where the block lies in the segment.
    #[inline]
    pub(crate) fn offset(&self) -> u64 {
        self.id.offset_in(self.class)
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.word.generation()
    }

    /// Whether nobody has written over the block's word.
    #[inline]
    pub(crate) fn is_unchanged(&self) -> bool {
        self.header.load() == self.word
    }

    /// The block, for as long as the mapping is there.
    #[inline]
    pub(crate) fn remember(&self) -> Remembered {
        // INVARIANT: a reference into the mapping.
        Remembered { id: self.id, header: self.header.into(), word: self.word }
    }
}

/// An [`Owned`] block without a borrow of its mapping.
///
/// # Invariants
/// `header` is the address of the block's header in the process and the mapping in which this was
/// made of an [`Owned`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    id: BlockId,
    header: NonNull<BlockHeader>,
    word: BlockWord,
}

// SAFETY: an address of shared memory that is all atomic, which every thread may use.
unsafe impl Send for Remembered {}
// SAFETY: as above.
unsafe impl Sync for Remembered {}

impl Remembered {
    pub(crate) fn id(&self) -> BlockId {
        self.id
    }

    pub(crate) fn generation(&self) -> u32 {
        self.word.generation()
    }

    /// Takes note that the block is part of a message by now.
    pub(crate) fn was_carried(&mut self, carried: Carried) {
        self.word = self.word.carried_in(carried.generation);
    }

    /// The block as it was then, in its heap. It may be another's by now, which its word says.
    ///
    /// # Safety
    /// This is the process in which it was remembered, and `pool` is of the same mapping.
    #[inline]
    pub(crate) unsafe fn owned<'a>(&self, pool: &Pool<'a>) -> Option<Owned<'a>> {
        // SAFETY: by the invariant, as the caller says; the pool borrows the mapping, and a header
        // may be viewed while others write it.
        let header = unsafe { self.header.as_ref() };
        let class = pool.class(self.id)?;
        Some(Owned { id: self.id, class, header, word: self.word })
    }
}
