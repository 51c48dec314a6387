//! A value's block: one word if that is enough, else two copies.
//!
//! # Layout
//! Of a value of at most 8 bytes:
//! ```text
//! offset  size  field
//!      0     8  word      the bytes of the value, then zeros
//! ```
//! Of a larger one, in a block that is aligned to 128:
//! ```text
//! offset  size  field     written by                    read by
//!      0     8  writer    processes that want to write  the same; see `sync::lock`
//!      8     4  freed     writers that wait             the writer, to see whether to wake
//!    128     8  sequence  the writer                    everybody; see `sync::seqlock`
//!    256     -  copy[0], copy[1], each in whole words and aligned to 128
//! ```
//! Readers touch no line on which writers wait for each other, and the writer none of those that
//! readers are copying.
#![expect(unsafe_code, reason = "the words of a value lie behind the header")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use crate::heap::Pool;
use crate::heap::pool::Attached;
use crate::object::payload::{self, set_word, word_of};
use crate::object::place::Block;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::Shm;
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;
use crate::sync::lock::{Locked, RawLock};
use crate::sync::seqlock::TwoCopies;

use super::line::{Line, MOST_ALIGN};

const COPIES_OFFSET: u64 = 256;

#[derive(Debug)]
#[repr(C)]
struct WriterWords {
    writer: RawLock,
    freed: Event,
}

#[derive(Debug)]
#[repr(C)]
struct Header {
    writer: Line<WriterWords>,
    sequence: Line<AtomicU64>,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Header, writer) == 0);
    assert!(offset_of!(WriterWords, writer) == 0);
    assert!(offset_of!(WriterWords, freed) == 8);
    assert!(offset_of!(Header, sequence) == 128);
    assert!(size_of::<Header>() as u64 == COPIES_OFFSET);
    assert!(align_of::<Header>() == MOST_ALIGN);
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Header {}

/// A value as it lies in its block.
///
/// # Invariants
/// `start` is the address of a block of `Self::LEN` bytes, aligned to [`MOST_ALIGN`], in a mapping
/// of the process that uses this.
pub(crate) struct ValueBlock<T> {
    start: NonNull<u8>,
    value: PhantomData<T>,
}

/// What holds the value.
pub(crate) enum Parts<'a> {
    /// It fits into a word.
    Word(&'a AtomicU64),
    Copies(Copies<'a>),
}

/// What holds a value that does not fit into a word.
#[derive(Clone, Copy)]
pub(crate) struct Copies<'a> {
    /// The process that has it may write.
    pub(crate) writer: &'a RawLock,
    /// Notified when the writer has given it up.
    pub(crate) freed: &'a Event,
    pub(crate) words: TwoCopies<'a>,
}

impl<T: Shm> Block for ValueBlock<T> {
    type Shape = ();

    fn len((): &()) -> u64 {
        Self::LEN
    }

    fn view(region: Region<'_>, offset: u64, (): &()) -> Option<Self> {
        // INVARIANT: `bytes` checks range and alignment.
        let start = region.bytes(offset, Self::LEN, MOST_ALIGN)?;
        Some(ValueBlock { start, value: PhantomData })
    }
}

impl<T: Shm> ValueBlock<T> {
    const WORDS: usize = payload::words::<T>();
    const IS_A_WORD: bool = Self::WORDS <= 1;
    /// Bytes from one copy to the next.
    const STRIDE: usize = (Self::WORDS * size_of::<u64>()).next_multiple_of(MOST_ALIGN);
    const LEN: u64 = if Self::IS_A_WORD {
        size_of::<AtomicU64>() as u64
    } else {
        COPIES_OFFSET + 2 * Self::STRIDE as u64
    };

    /// Writes the value into a block that belongs to this process alone.
    pub(crate) fn build(&self, value: &T) {
        // Relaxed throughout: published with the block's word.
        match self.parts() {
            Parts::Word(word) => word.store(word_of(value, 0), Ordering::Relaxed),
            Parts::Copies(Copies { writer, freed, words: TwoCopies { sequence, copies } }) => {
                writer.reset();
                freed.reset();
                sequence.store(0, Ordering::Relaxed);
                for copy in copies {
                    for (index, word) in copy.iter().enumerate() {
                        word.store(word_of(value, index), Ordering::Relaxed);
                    }
                }
            }
        }
    }

    #[inline]
    pub(crate) fn parts(&self) -> Parts<'_> {
        if Self::IS_A_WORD {
            // SAFETY: by the invariant, and an atomic may be viewed while others write it.
            return Parts::Word(unsafe { self.start.cast().as_ref() });
        }
        // SAFETY: by the invariant, as the block of a value that fits into no word begins with a
        // header; it may be viewed while others write it.
        let header: &Header = unsafe { self.start.cast().as_ref() };
        let WriterWords { writer, freed } = &*header.writer;
        let words = TwoCopies { sequence: &header.sequence, copies: [self.copy(0), self.copy(1)] };
        Parts::Copies(Copies { writer, freed, words })
    }

    /// The words of a copy, of which there are two. For a value that does not fit into a word.
    #[inline]
    fn copy(&self, number: usize) -> &[AtomicU64] {
        const { assert!(COPIES_OFFSET.is_multiple_of(MOST_ALIGN as u64)) };
        let offset = COPIES_OFFSET as usize + (number & 1) * Self::STRIDE;
        if Self::IS_A_WORD {
            return &[];
        }
        // SAFETY: by the invariant two copies lie behind the header.
        let copy: NonNull<AtomicU64> = unsafe { self.start.add(offset) }.cast();
        // SAFETY: as above; a stride has room for all words and is a multiple of the alignment, and
        // atomics may be viewed while others write them.
        unsafe { slice::from_raw_parts(copy.as_ptr(), Self::WORDS) }
    }

    /// The value, of which other processes may meanwhile make another one. Never a mixture of two.
    #[inline]
    pub(crate) fn get(&self) -> T {
        let mut value = payload::zeroed::<T>();
        match self.parts() {
            // Acquire pairs with the Release of the process that set or changed it.
            Parts::Word(word) => set_word(&mut value, 0, word.load(Ordering::Acquire)),
            Parts::Copies(copies) => copies.words.read(|index, word| {
                set_word(&mut value, index, word);
            }),
        }
        value
    }
}

impl Copies<'_> {
    /// The value, for the one who may write.
    pub(crate) fn get<T: Shm>(&self, locked: &Locked) -> T {
        let mut value = payload::zeroed::<T>();
        self.words.read_as_writer(locked, |index, word| set_word(&mut value, index, word));
        value
    }

    /// Makes another value current.
    pub(crate) fn set<T: Shm>(&self, locked: &mut Locked, value: &T) {
        self.words.write(locked, |index| word_of(value, index));
    }
}

/// Lets others write if the dead `owner` had come to do so. What it has half written nobody reads.
pub(super) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) {
    // A value in a word has no writer.
    if object.len > COPIES_OFFSET
        && let Some(header) = pool.region().at::<Header>(object.offset)
        && header.writer.writer.release_dead(owner)
    {
        // Waking needs the fences of the segment; sleepers are few here, so they are woken without
        // asking whether anybody sleeps.
        header.writer.freed.wake_all_unasked();
    }
}

impl<T> Clone for ValueBlock<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ValueBlock<T> {}

impl<T> fmt::Debug for ValueBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValueBlock").field(&self.start).finish()
    }
}
