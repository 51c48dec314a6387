//! A lock's block: the word and the value.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0     8  word   see `sync::lock`
//!      8     4  freed  the event of the waiters
//!     12     4  turns  how often the lock was taken, while a waiter wants to know
//!     16     -  value  the owner's; behind padding if its alignment is more than 16
//! ```
//! Word, event and the start of the value share a cache line. Who takes the lock has that line
//! then, so a short value costs no second transfer: two processes that took the lock in turn went
//! 1.5 times as fast as with the value in a line of its own. Waiters that look at the word take the
//! line from the owner, so they look less and less often (see `sync::spin`).
#![expect(unsafe_code, reason = "the value is reached by a pointer")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::heap::Pool;
use crate::heap::pool::Attached;
use crate::object::payload::Payload;
use crate::object::place::Block;
use crate::segment::Shm;
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;
use crate::sync::lock::{Locked, RawLock};
use crate::sync::turns::Turns;

#[derive(Debug)]
#[repr(C)]
struct Words {
    word: RawLock,
    freed: Event,
    turns: Turns,
}

const _: () = {
    assert!(core::mem::offset_of!(Words, word) == 0);
    assert!(core::mem::offset_of!(Words, freed) == 8);
    assert!(core::mem::offset_of!(Words, turns) == 12);
};

// SAFETY: atomics, and padding that nobody reads.
unsafe impl Shared for Words {}

/// A lock as it lies in its block.
///
/// # Invariants
/// `words` is the address of a `Words` in a mapping of the process that uses this, aligned for a
/// `T` as well, with the bytes of a `T` at [`LockBlock::VALUE_OFFSET`].
pub(crate) struct LockBlock<T> {
    words: NonNull<Words>,
    value: PhantomData<T>,
}

impl<T> LockBlock<T> {
    const VALUE_OFFSET: usize = size_of::<Words>().next_multiple_of(align_of::<T>());
}

impl<T: Shm> Block for LockBlock<T> {
    type Shape = ();

    fn len((): &()) -> u64 {
        (Self::VALUE_OFFSET + size_of::<T>()) as u64
    }

    fn view(region: Region<'_>, offset: u64, shape: &()) -> Option<Self> {
        let align = align_of::<T>().max(align_of::<Words>());
        let start = region.bytes(offset, Self::len(shape), align)?;
        // INVARIANT: words and value lie in the region.
        Some(LockBlock { words: start.cast(), value: PhantomData })
    }
}

impl<T: Shm> LockBlock<T> {
    /// Writes a free lock into a block that belongs to this process alone.
    pub(crate) fn build(&self, value: &T) {
        self.lock().reset();
        self.freed().reset();
        self.turns().reset();
        // SAFETY: nobody else has the block yet.
        unsafe { self.payload().write(value) };
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: by the invariant, and `Words` may be viewed while others write them.
        unsafe { self.words.as_ref() }
    }

    #[inline]
    pub(crate) fn lock(&self) -> &RawLock {
        &self.words().word
    }

    /// Notified when the lock was given up.
    #[inline]
    pub(crate) fn freed(&self) -> &Event {
        &self.words().freed
    }

    /// Counts the owners' turns for waiters.
    #[inline]
    pub(crate) fn turns(&self) -> &Turns {
        &self.words().turns
    }

    #[inline]
    fn payload(&self) -> Payload<T> {
        // SAFETY: by the invariant the value lies behind the words.
        let value = unsafe { self.words.byte_add(Self::VALUE_OFFSET) };
        // SAFETY: as above; `view` has aligned the words as the value needs it, and the offset is a
        // multiple of that alignment.
        unsafe { Payload::new(value.cast()) }
    }

    /// The value, for the owner of the lock.
    #[inline]
    pub(crate) fn get<'a>(&self, _locked: &'a Locked) -> &'a T {
        // SAFETY: while the word names its owner nobody else touches the value. There is one
        // `Locked` for each time that the word comes to name an owner, and it is borrowed.
        unsafe { self.payload().get() }
    }

    /// The value, for the owner of the lock, to change it.
    #[inline]
    pub(crate) fn get_mut<'a>(&self, _locked: &'a mut Locked) -> &'a mut T {
        // SAFETY: as in `get`, and the borrow is exclusive.
        unsafe { self.payload().get_mut() }
    }
}

/// Frees the lock if the dead `owner` has it.
pub(super) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) {
    if let Some(words) = pool.region().at::<Words>(object.offset)
        && words.word.release_dead(owner)
    {
        // Waiters find out at the end of their slice at the latest. To ask whether anybody sleeps
        // takes the fences of the segment. Sleepers are few here, so they are woken without asking.
        words.freed.wake_all_unasked();
    }
}

impl<T> Clone for LockBlock<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for LockBlock<T> {}

impl<T> fmt::Debug for LockBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockBlock").field(&self.words).finish()
    }
}
