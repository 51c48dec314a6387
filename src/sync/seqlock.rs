//! A value in two copies, of which a sequence word says which one is current.
//!
//! ```text
//! current copy = sequence modulo 2
//!
//! writer, one at a time                  reader
//!   fence (Release)                        load the sequence (Acquire)
//!   store the words of the other copy      load the words of the current copy
//!   store sequence + 1 (Release)           fence (Acquire)
//!                                          load the sequence: the same as before? else again
//! ```
//! A writer never touches the copy that readers are sent to, so it stops nobody, wherever it is
//! stopped itself. A reader begins again only if an update was completed meanwhile: somebody always
//! gets on. It is not kept from beginning again: one that takes longer to copy than writers take to
//! write twice may do so for long.
//!
//! Who may write is decided elsewhere, by a [lock word](super::lock).
//!
//! # Orderings
//! - A reader that sees a sequence sees the words of that copy: the Release store of the sequence
//!   pairs with its Acquire load.
//! - A reader that has loaded a word of a later update finds the sequence changed. The writer of
//!   that update had seen, by the lock, that the sequence left the reader's copy; its Release fence
//!   before the words pairs with the reader's Acquire fence behind them.
//!
//! # Peer death
//! A writer killed before its store to the sequence has changed nothing that anybody reads: the
//! next writer overwrites the half-written copy. Killed after it, it has done everything.
//!
//! # Source
//! The two copies and the order of stores are the Linux kernel's `seqcount_latch_t`
//! (`include/linux/seqlock.h`); the fences of the reader are from Boehm, "Can Seqlocks Get Along
//! with Programming Language Memory Models?" (2012).

use crate::primitive::{AtomicU64, Ordering, fence};
use crate::sync::lock::Locked;

#[cfg(all(test, loom))]
mod loom_tests;

/// The words of a value that is kept twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoCopies<'a> {
    /// Updates so far; the low bit says which copy is current.
    pub(crate) sequence: &'a AtomicU64,
    /// As long as each other.
    pub(crate) copies: [&'a [AtomicU64]; 2],
}

impl<'a> TwoCopies<'a> {
    fn copy(&self, sequence: u64) -> &'a [AtomicU64] {
        self.copies[(sequence & 1) as usize]
    }

    /// Gives each word of the value, with its number. All of them, and in order, as often as it
    /// takes; those of the last time belong to one update.
    #[inline]
    pub(crate) fn read(&self, mut give: impl FnMut(usize, u64)) {
        loop {
            // Acquire pairs with the Release store in `write`: the words of this update are there.
            let sequence = self.sequence.load(Ordering::Acquire);
            give_all(self.copy(sequence), &mut give);
            // Pairs with the Release fence in `write`: if one of the words was of a later update,
            // the sequence is seen to have changed.
            fence(Ordering::Acquire);
            // Relaxed: ordered by the fence.
            if self.sequence.load(Ordering::Relaxed) == sequence {
                return;
            }
        }
    }

    /// As [`TwoCopies::read`], for the one who may write, so once is enough.
    pub(crate) fn read_as_writer(&self, _locked: &Locked, give: impl FnMut(usize, u64)) {
        // Relaxed: its writer had the lock, and taking the lock has ordered it.
        give_all(self.copy(self.sequence.load(Ordering::Relaxed)), give);
    }

    /// Makes a value current, given each of its words by its number.
    pub(crate) fn write(&self, _locked: &mut Locked, word: impl Fn(usize) -> u64) {
        // Relaxed: as above.
        let next = self.sequence.load(Ordering::Relaxed).wrapping_add(1);
        // Pairs with the Acquire fence in `read`: a reader that sees one of the stores below sees
        // that the sequence has left the copy that they go to.
        fence(Ordering::Release);
        for (index, place) in self.copy(next).iter().enumerate() {
            // Relaxed: published by the sequence.
            place.store(word(index), Ordering::Relaxed);
        }
        // Release pairs with the Acquire load in `read`.
        self.sequence.store(next, Ordering::Release);
    }
}

fn give_all(words: &[AtomicU64], mut give: impl FnMut(usize, u64)) {
    for (index, word) in words.iter().enumerate() {
        // Relaxed: ordered by the caller.
        give(index, word.load(Ordering::Relaxed));
    }
}
