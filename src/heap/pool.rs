//! Allocation of blocks: a claim like any other.
//!
//! A block is taken by one compare-and-swap that writes the claimant into the block's word. There
//! is no free list: a block's own word says whether it is free, and a hint says where to look
//! first. If a process is killed at any point, its blocks are `OWNED` or held by it, and the
//! process that clears up after it gives them back.
//!
//! Blocks get pages (`fallocate`) when they are handed out, so a full file system or a memory limit
//! is an error here and not a SIGBUS later; pages of large blocks go back when the block does.
//!
//! # Layout
//! ```text
//! heap words    0  8  used      bytes in use; a hint, recounted when it says that the budget is spent
//! class words   0  8  frontier  block headers that have pages, and the same number inverted; those beyond were never used
//!               8  8  hint      where to look first
//!              16  8  free      about how many blocks before the frontier are free
//! ```

use std::fmt;

use crate::heap::block::{BlockHeader, BlockWord, State};
use crate::peer::PeerId;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::{BLOCK_HEADER_SIZE, CLASS_WORDS_SIZE, Class, HEAP_WORDS_SIZE};
use crate::segment::region::{Mapping, Region, Shared};
use crate::sys::error::OsError;

/// Block headers that get pages at a time.
const FRONTIER_STEP: u64 = 64;
/// Blocks from this size on give their pages back when freed.
const PUNCH_FROM: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// How often to count again if others charge meanwhile.
const RECOUNTS: u32 = 3;

#[derive(Debug)]
#[repr(C)]
struct HeapWords {
    used: AtomicU64,
    reserved: [AtomicU64; 7],
}

#[derive(Debug)]
#[repr(C)]
struct ClassWords {
    frontier: AtomicU64,
    hint: AtomicU64,
    free: AtomicU64,
    reserved: [AtomicU64; 5],
}

const _: () = {
    assert!(core::mem::offset_of!(HeapWords, used) == 0);
    assert!(core::mem::offset_of!(HeapWords, reserved) == 8);
    assert!(size_of::<HeapWords>() as u64 == HEAP_WORDS_SIZE);
    assert!(core::mem::offset_of!(ClassWords, frontier) == 0);
    assert!(core::mem::offset_of!(ClassWords, hint) == 8);
    assert!(core::mem::offset_of!(ClassWords, free) == 16);
    assert!(core::mem::offset_of!(ClassWords, reserved) == 24);
    assert!(size_of::<ClassWords>() as u64 == CLASS_WORDS_SIZE);
};

impl ClassWords {
    /// Number of block headers that have pages; `None` if the word has a value that this crate
    /// never writes.
    fn frontier(&self, blocks: u64) -> Option<u64> {
        // Pairs with the Release in `advance_frontier`.
        let word = self.frontier.load(Ordering::Acquire);
        let frontier = word & u64::from(u32::MAX);
        (word == frontier_word(frontier) && frontier <= blocks).then_some(frontier)
    }
}

/// The frontier as it stands in the segment: with its inverse above it, except for the zero of
/// fresh memory. Belief in a wrong frontier costs a page for each of the headers that it claims, so
/// it is not enough that it lies within the class.
fn frontier_word(frontier: u64) -> u64 {
    if frontier == 0 { 0 } else { !frontier << 32 | frontier }
}

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for HeapWords {}
#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for ClassWords {}

/// Which block: class and index within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId {
    class: u8,
    index: u32,
}

impl BlockId {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.class) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Option<BlockId> {
        Some(BlockId { class: u8::try_from(bits >> 32).ok()?, index: bits as u32 })
    }
}

/// Why there is no block.
#[derive(Debug)]
pub(crate) enum AllocError {
    /// Larger than any block, or than what is left of the budget.
    OutOfMemory { requested: u64, available: u64 },
    /// The kernel has no pages for it.
    NoPages { requested: u64, refused: OsError },
    /// The heap's own words contain values that this crate never writes.
    Corrupt,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocError::OutOfMemory { requested, available } => {
                write!(f, "{requested} bytes were asked for and {available} are left")
            }
            AllocError::NoPages { requested, refused } => {
                write!(f, "no memory for {requested} bytes: {}", std::io::Error::from(*refused))
            }
            AllocError::Corrupt => f.write_str("the segment's heap is corrupt"),
        }
    }
}

/// The heap of a mapped segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<'a> {
    mapping: &'a Mapping,
    region: Region<'a>,
}

/// A block that belongs to this process alone, with the word that it must have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    pub(crate) id: BlockId,
    pub(crate) offset: u64,
    word: BlockWord,
}

impl Owned {
    pub(crate) fn generation(&self) -> u32 {
        self.word.generation()
    }
}

impl<'a> Pool<'a> {
    pub(crate) fn new(mapping: &'a Mapping, region: Region<'a>) -> Pool<'a> {
        Pool { mapping, region }
    }

    pub(crate) fn region(&self) -> Region<'a> {
        self.region
    }

    /// Takes a block of at least `len` bytes for `me`, backs it with pages and records `kind`.
    ///
    /// Its bytes are what the last owner left there.
    pub(crate) fn allocate(&self, me: PeerId, kind: u64, len: u64) -> Result<Owned, AllocError> {
        self.charge(len)?;
        match self.claim_of(len, me).and_then(|owned| self.back(owned, kind, len)) {
            Ok(owned) => Ok(owned),
            Err(error) => {
                self.refund(len);
                Err(error)
            }
        }
    }

    /// Shows the block to its holders, of whom `me` is the first.
    pub(crate) fn share(&self, owned: &Owned, me: PeerId) -> bool {
        let Some(header) = self.header(owned.id) else {
            return false;
        };
        header.holders.insert(me.index());
        header.share(owned.word)
    }

    /// Gives back a block that was never shared.
    pub(crate) fn give_back(&self, owned: &Owned) {
        if let Some(header) = self.header(owned.id) {
            self.tear_down(owned.id, header, owned.word);
        }
    }

    /// Makes `me` a holder and gives the block's kind and bytes; `None` if it is not (or no longer)
    /// a shared block of that generation.
    pub(crate) fn attach(&self, id: BlockId, generation: u32, me: PeerId) -> Option<Attached> {
        let header = self.header(id)?;
        header.holders.insert(me.index());
        if header.count_attachment(generation) {
            return self.attached(id, header);
        }
        // The bit was set in a block that is another object's by now. Once the bit is cleared, that
        // block may have no holder.
        self.release(id, me);
        None
    }

    /// Ends `peer`'s hold; frees the block if nobody else has one. `me` does the freeing.
    fn release_for(&self, id: BlockId, peer: PeerId, me: PeerId) {
        let Some(header) = self.header(id) else {
            return;
        };
        header.holders.remove(peer.index());
        self.free_if_unheld(id, header, me);
    }

    /// Ends this process's own hold.
    pub(crate) fn release(&self, id: BlockId, me: PeerId) {
        self.release_for(id, me, me);
    }

    /// Makes `child` a holder of everything that `parent` holds. For the parent, before it forks.
    pub(crate) fn inherit(&self, parent: PeerId, child: PeerId) {
        self.walk(|_, header| {
            if header.holders.contains(parent.index()) {
                header.holders.insert(child.index());
                // The parent's own hold keeps the block in place. The count makes a process that
                // wanted to free the block look again.
                header.count_attachment(header.load().generation());
            }
        });
    }

    /// Ends this process's own hold. If others go on holding the block, also ends this process's
    /// claims in the object: `recover` does that.
    pub(crate) fn leave(&self, id: BlockId, me: PeerId, recover: impl FnOnce(Attached)) {
        let Some(header) = self.header(id) else {
            return;
        };
        loop {
            // The word first, as in `free_if_unheld`: a process that becomes a holder after this
            // look has changed it, and finds our claims ended.
            let word = header.load();
            if word.state() != State::Shared || !header.holders.is_only(me.index()) {
                break;
            }
            if let Some(owned) = header.own(word, me.owner()) {
                header.holders.remove(me.index());
                self.tear_down(id, header, owned);
                return;
            }
        }
        if let Some(attached) = self.attached(id, header) {
            recover(attached);
        }
        self.release(id, me);
    }

    /// Generation of the block if it is shared.
    pub(crate) fn generation(&self, id: BlockId) -> Option<u32> {
        let word = self.header(id)?.load();
        (word.state() == State::Shared).then(|| word.generation())
    }

    /// Whether `peer` holds the block.
    pub(crate) fn is_holder(&self, id: BlockId, peer: PeerId) -> bool {
        self.header(id).is_some_and(|header| header.holders.contains(peer.index()))
    }

    /// Gives back what the dead `peer` owned and held. `recover` is called for each shared block
    /// that it held, before its hold ends.
    pub(crate) fn clear(&self, peer: PeerId, me: PeerId, mut recover: impl FnMut(Attached)) {
        self.walk(|id, header| {
            let word = header.load();
            match word.state() {
                State::Owned(owner) if owner == peer.owner() => {
                    // If it was killed in `share`, its bit is set already.
                    header.holders.remove(peer.index());
                    if let Some(mine) = header.own(word, me.owner()) {
                        self.tear_down(id, header, mine);
                    }
                }
                State::Shared if header.holders.contains(peer.index()) => {
                    if let Some(attached) = self.attached(id, header) {
                        recover(attached);
                    }
                    self.release_for(id, peer, me);
                }
                // A holder that was killed between clearing its bit and freeing the block.
                State::Shared if header.holders.is_empty() => self.free_if_unheld(id, header, me),
                // A bit that was set for a moment in a block that had become another object's.
                _ if header.holders.contains(peer.index()) => header.holders.remove(peer.index()),
                _ => {}
            }
        });
    }

    /// Bytes of the budget that are not in use, by the hint.
    pub(crate) fn available(&self) -> u64 {
        let used = self.heap_words().map_or(0, |words| words.used.load(Ordering::Relaxed));
        self.mapping.layout().budget().saturating_sub(used)
    }

    /// Number of blocks that are not free, counted.
    #[cfg(test)]
    pub(crate) fn blocks_in_use(&self) -> usize {
        let mut count = 0;
        self.walk(|_, header| count += usize::from(header.load().state() != State::Free));
        count
    }

    fn free_if_unheld(&self, id: BlockId, header: &BlockHeader, me: PeerId) {
        loop {
            // The word first: an attachment after this changes it, and the swap fails.
            let word = header.load();
            if word.state() != State::Shared || !header.holders.is_empty() {
                return;
            }
            if let Some(owned) = header.own(word, me.owner()) {
                self.tear_down(id, header, owned);
                return;
            }
        }
    }

    fn tear_down(&self, id: BlockId, header: &BlockHeader, owned: BlockWord) {
        let len = self.len(id, header);
        if len >= PUNCH_FROM
            && let Some(offset) = self.offset(id)
        {
            // Blocks of this size begin and end on page boundaries.
            self.mapping.punch(offset, len.next_multiple_of(PAGE));
        }
        // The next claimant of this block sets its length later. If that process is killed before,
        // the reaper must not give back the bytes that this block had: a count that is too high is
        // corrected by a recount, one that is too low is not.
        header.describe(header.kind(), 0);
        if header.free(owned) {
            self.refund(len);
            if let Some(words) = self.class_words(id.class.into()) {
                // Relaxed: hints.
                words.hint.store(id.index.into(), Ordering::Relaxed);
                words.free.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes a free block of the smallest class that has one of `len` bytes.
    fn claim_of(&self, len: u64, me: PeerId) -> Result<Owned, AllocError> {
        let mut refused = AllocError::OutOfMemory { requested: len, available: self.available() };
        for (class, geometry) in self.mapping.layout().classes().iter().enumerate() {
            if geometry.block_size >= len {
                // A full class is no reason to refuse what the budget allows: larger blocks have
                // pages only for what is used.
                match self.claim(class, me) {
                    Err(error @ AllocError::OutOfMemory { .. }) => refused = error,
                    other => return other,
                }
            }
        }
        Err(refused)
    }

    /// Takes a free block of the class.
    fn claim(&self, class: usize, me: PeerId) -> Result<Owned, AllocError> {
        let words = self.class_words(class).ok_or(AllocError::Corrupt)?;
        let blocks = self.mapping.layout().classes()[class].blocks;
        loop {
            let frontier = words.frontier(blocks).ok_or(AllocError::Corrupt)?;
            // If the hint says that nothing is free, only a full class is searched all the same:
            // the hint may be wrong.
            if words.free.load(Ordering::Relaxed) != 0 || frontier == blocks {
                if let Some(owned) = self.claim_before(class, frontier, me) {
                    return Ok(owned);
                }
                // The hint was wrong; a killed process or a race left it so.
                words.free.store(0, Ordering::Relaxed);
            }
            if frontier == blocks {
                let block_size = self.mapping.layout().classes()[class].block_size;
                return Err(AllocError::OutOfMemory {
                    requested: block_size,
                    available: self.available(),
                });
            }
            self.advance_frontier(class, words, frontier, blocks)?;
        }
    }

    fn claim_before(&self, class: usize, frontier: u64, me: PeerId) -> Option<Owned> {
        let words = self.class_words(class)?;
        let hint = words.hint.load(Ordering::Relaxed).min(frontier);
        for index in (hint..frontier).chain(0..hint) {
            let id = BlockId { class: class as u8, index: index as u32 };
            let header = self.header(id)?;
            let word = header.load();
            if word.state() == State::Free
                && let Some(word) = header.own(word, me.owner())
            {
                // Relaxed: hints. A wrap below zero is a large number, that is, "look".
                words.hint.store(index + 1, Ordering::Relaxed);
                words.free.fetch_sub(1, Ordering::Relaxed);
                return Some(Owned { id, offset: self.offset(id)?, word });
            }
        }
        None
    }

    /// Gives pages to some more block headers. Killed in between, the pages are there and the next
    /// caller repeats it.
    fn advance_frontier(
        &self,
        class: usize,
        words: &ClassWords,
        frontier: u64,
        blocks: u64,
    ) -> Result<(), AllocError> {
        let next = (frontier + FRONTIER_STEP).min(blocks);
        let headers = self.mapping.layout().classes()[class].headers;
        let len = (next - frontier) * BLOCK_HEADER_SIZE;
        self.mapping
            .back(headers + frontier * BLOCK_HEADER_SIZE, len)
            .map_err(|refused| AllocError::NoPages { requested: len, refused })?;
        // Release pairs with the Acquire load in `claim`. Losing the race means that another
        // process advanced it.
        let (from, to) = (frontier_word(frontier), frontier_word(next));
        if words.frontier.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok() {
            words.free.fetch_add(next - frontier, Ordering::Relaxed);
        }
        Ok(())
    }

    fn back(&self, owned: Owned, kind: u64, len: u64) -> Result<Owned, AllocError> {
        let header = self.header(owned.id).ok_or(AllocError::Corrupt)?;
        header.describe(kind, 0);
        if let Err(refused) = self.mapping.back(owned.offset, len) {
            self.tear_down(owned.id, header, owned.word);
            return Err(AllocError::NoPages { requested: len, refused });
        }
        header.describe(kind, len);
        Ok(owned)
    }

    fn charge(&self, len: u64) -> Result<(), AllocError> {
        let words = self.heap_words().ok_or(AllocError::Corrupt)?;
        let budget = self.mapping.layout().budget();
        for recounted in [false, true] {
            // Relaxed: a count that orders nothing.
            let used = words.used.fetch_add(len, Ordering::Relaxed);
            if used.checked_add(len).is_some_and(|sum| sum <= budget) {
                return Ok(());
            }
            words.used.fetch_sub(len, Ordering::Relaxed);
            if !recounted {
                self.recount(words);
            }
        }
        Err(AllocError::OutOfMemory { requested: len, available: self.available() })
    }

    /// Counts the bytes in use, as the hint may include what dead processes had charged.
    ///
    /// What a process has charged and not yet recorded in its block is missing from this count, and
    /// is part of the next one. Until then the budget can be exceeded by that much.
    fn recount(&self, words: &HeapWords) {
        for _ in 0..RECOUNTS {
            let before = words.used.load(Ordering::Relaxed);
            // A charge that came in between must not be lost.
            if words
                .used
                .compare_exchange(before, self.count_used(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    fn refund(&self, len: u64) {
        if let Some(words) = self.heap_words() {
            // A recount may have come in between; below zero the hint stays at zero.
            let _ = words.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(len))
            });
        }
    }

    fn count_used(&self) -> u64 {
        let mut used = 0u64;
        self.walk(|id, header| {
            if header.load().state() != State::Free {
                used = used.saturating_add(self.len(id, header));
            }
        });
        used
    }

    /// Visits the header of every block that was ever used.
    fn walk(&self, mut visit: impl FnMut(BlockId, &'a BlockHeader)) {
        for (class, geometry) in self.mapping.layout().classes().iter().enumerate() {
            let Some(words) = self.class_words(class) else {
                return;
            };
            // A class with a corrupt frontier is skipped: a walk over all the headers that it could
            // have would take gigabytes.
            for index in 0..words.frontier(geometry.blocks).unwrap_or(0) {
                let id = BlockId { class: class as u8, index: index as u32 };
                if let Some(header) = self.header(id) {
                    visit(id, header);
                }
            }
        }
    }

    fn class(&self, id: BlockId) -> Option<&'a Class> {
        self.mapping.layout().classes().get(usize::from(id.class))
    }

    fn offset(&self, id: BlockId) -> Option<u64> {
        let class = self.class(id)?;
        (u64::from(id.index) < class.blocks)
            .then(|| class.base + u64::from(id.index) * class.block_size)
    }

    /// The header of a block within the frontier.
    fn header(&self, id: BlockId) -> Option<&'a BlockHeader> {
        let class = self.class(id)?;
        let frontier = self.class_words(id.class.into())?.frontier(class.blocks)?;
        if u64::from(id.index) >= frontier {
            return None;
        }
        self.region.at(class.headers + u64::from(id.index) * BLOCK_HEADER_SIZE)
    }

    /// What is in a shared block, and where.
    fn attached(&self, id: BlockId, header: &BlockHeader) -> Option<Attached> {
        Some(Attached { kind: header.kind(), offset: self.offset(id)?, len: self.len(id, header) })
    }

    /// Bytes in use of a block, never more than it has: a corrupt length must not reach the blocks
    /// behind it.
    fn len(&self, id: BlockId, header: &BlockHeader) -> u64 {
        header.len().min(self.class(id).map_or(0, |class| class.block_size))
    }

    fn heap_words(&self) -> Option<&'a HeapWords> {
        self.region.at(self.mapping.layout().heap_words())
    }

    fn class_words(&self, class: usize) -> Option<&'a ClassWords> {
        self.region.at(self.mapping.layout().class_words(class))
    }
}

/// A shared block: what is in it, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) kind: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}
