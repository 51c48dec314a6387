//! What the blocks in use are charged with, so that they are never more than the budget.
//!
//! The charge is one word, so a process may be killed between a block and its charge. Which of the
//! two comes first is chosen so that the word may say too much, and never too little. If it says
//! that there is no room, it is made anew from the lengths of all blocks.
//!
//! # Layout
//! ```text
//! word    bits 0..44   bytes charged
//!         bits 44..64  turn: how often the word has changed
//! ```
//!
//! # Protocol
//! ```text
//! allocate                       free                          recount
//!   own a block                    take its mark away            load the word
//!   write its length               word: less, next turn         add the lengths of all blocks
//!   word: more, next turn          write the length 0              that are not free
//!   mark it as charged             the block is free             CAS the word to the sum
//! ```
//! The word is never less than the lengths of all marked blocks. A recount keeps that: if its CAS
//! succeeds, nobody has changed the word since it was loaded, so each block that was marked all the
//! time had its length, and one that is being freed still has it. What is counted of a block that
//! is charged only afterwards is charged twice, until the next recount. A turn comes again after a
//! million changes; a recount would have to meet exactly that.
//!
//! # Peer death
//! | killed | left | outcome |
//! |---|---|---|
//! | allocating, with a length and no mark | `OWNED(dead)`, perhaps charged | freed, and the word not changed: too much, or right |
//! | freeing, without a mark | the same | the same |
//! | with a mark | `OWNED(dead)`, charged | freed as by a living owner |
//!
//! Whoever finds no room recounts, so too much is corrected before anybody is refused.

use crate::heap::block::{BlockHeader, State};
use crate::heap::pool::{AllocError, Pool};
use crate::primitive::Ordering;
use crate::sys::error::OsError;

const TURN: u64 = 1 << 44;
const BYTES: u64 = TURN - 1;
/// How often to count again if others charge meanwhile.
const RECOUNTS: u32 = 3;

const _: () = assert!(crate::segment::layout::LARGEST_BUDGET < TURN);

/// The word after `word` that says this many bytes.
fn next(word: u64, bytes: u64) -> u64 {
    (word & !BYTES).wrapping_add(TURN) | bytes.min(BYTES)
}

impl Pool<'_> {
    /// Bytes that the budget is charged with. May be more than is in use.
    #[inline]
    pub(crate) fn charged(&self) -> u64 {
        // Relaxed: a hint for all but a recount.
        self.heap_words().map_or(0, |words| words.used.load(Ordering::Relaxed) & BYTES)
    }

    /// Charges an owned block of no marks with `len` bytes, which it has for its length; false if
    /// there is no room any more.
    pub(super) fn charge_block(&self, header: &BlockHeader, len: u64) -> bool {
        let is_charged = self.charge(len);
        if is_charged {
            header.mark_charged();
        }
        is_charged
    }

    /// Takes the marks and the length of an owned block away, and what it is charged with.
    pub(super) fn discharge_block(&self, header: &BlockHeader, len: u64) {
        let is_charged = header.is_charged();
        header.unmark();
        if is_charged {
            self.refund(len);
        }
        header.describe(header.kind(), 0);
    }

    /// Charges an owned block of `had` bytes with `len` in place of that; false if there is no
    /// room, and it is as before.
    pub(super) fn recharge_block(&self, header: &BlockHeader, had: u64, len: u64) -> bool {
        if len > had && self.find_room(len - had).is_err() {
            return false;
        }
        header.unmark();
        header.describe(0, had.max(len));
        let is_charged = if len > had {
            self.charge(len - had)
        } else {
            self.refund(had - len);
            true
        };
        header.describe(0, if is_charged { len } else { had });
        header.mark_charged();
        is_charged
    }

    /// Whether so many bytes can be charged. Recounts if not: before the caller has a block, so
    /// that what is about to be charged is not counted.
    pub(super) fn find_room(&self, len: u64) -> Result<(), AllocError> {
        let has_room = || self.available() >= len;
        if !has_room() {
            self.recount().map_err(|refused| AllocError::NoPages { requested: len, refused })?;
            if !has_room() {
                let available = self.available();
                return Err(AllocError::OutOfMemory { requested: len, available });
            }
        }
        Ok(())
    }

    fn charge(&self, len: u64) -> bool {
        let budget = self.mapping().layout().budget();
        let more = |word: u64| {
            let sum = (word & BYTES).checked_add(len).filter(|&sum| sum <= budget)?;
            Some(next(word, sum))
        };
        // Release pairs with the Acquire in `recount`: who sees the charge sees the length.
        self.heap_words().is_some_and(|words| {
            words.used.fetch_update(Ordering::Release, Ordering::Relaxed, more).is_ok()
        })
    }

    fn refund(&self, len: u64) {
        if let Some(words) = self.heap_words() {
            let less = |word: u64| Some(next(word, (word & BYTES).saturating_sub(len)));
            // Relaxed: whoever sees the length gone sees this; see `BlockHeader::describe`.
            let _ = words.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Counts the bytes in use, as more may be charged. A process that does not see all of them
    /// would count too few.
    fn recount(&self) -> Result<(), OsError> {
        let Some(words) = self.heap_words() else { return Ok(()) };
        self.mapping().see_all()?;
        for _ in 0..RECOUNTS {
            // Acquire pairs with the Release in `charge`.
            let before = words.used.load(Ordering::Acquire);
            let used = self.count_used();
            if used == before & BYTES {
                break;
            }
            let counted = next(before, used);
            // Relaxed: it only has to find the word as it was.
            let set =
                words.used.compare_exchange(before, counted, Ordering::Relaxed, Ordering::Relaxed);
            if set.is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn count_used(&self) -> u64 {
        let mut used = 0_u64;
        self.walk(|id, header| {
            if header.load().state() != State::Free {
                used = used.saturating_add(self.len(id, header));
            }
        });
        used
    }
}
