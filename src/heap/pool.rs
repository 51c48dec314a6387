//! Allocation of blocks: a claim like any other.
//!
//! A block is taken by one compare-and-swap that writes the claimant into the block's word. There
//! is no free list: a block's own word says whether it is free, and a hint says where to look
//! first. Small blocks may be kept at hand by the process that had them last ([`magazine`]). If a
//! process is killed at any point, its blocks are `OWNED`, `CACHED` or held by it, and the process
//! that clears up after it gives them back.
//!
//! Blocks get pages (`fallocate`) when they are handed out for the first time, so a full file
//! system or a memory limit is an error here and not a SIGBUS later. Small blocks keep their pages
//! when they are given back. Large ones keep them if they were part of a message, as far as
//! [`KEEP_MOST`] allows: a page that is given back and taken again costs more than a copy of it. If
//! the kernel refuses pages, those that were kept go back ([`Pool::give_kept`]).
//!
//! [`magazine`]: super::magazine
//!
//! # Layout
//! ```text
//! heap words    0  8  used      bytes charged, see `charge`
//!               8  8  kept      bytes of large free blocks that have pages; a hint, counted anew at times
//!              16 24  flights   the cards of blocks that were ever a flight, see `cards`
//! class words   0  8  frontier  block headers that have pages, and the same number inverted; those beyond were never used
//!               8  8  hint      where to look first
//!              16  8  free      about how many blocks before the frontier are free
//! ```

use std::cell::Cell;
use std::fmt;

use crate::heap::block::{BlockHeader, BlockWord, Carrier, State, once, twice};
use crate::heap::owned::Owned;
use crate::peer::PeerId;
use crate::peer::footprint::{Cards, Footprint};
use crate::peer::table::Table;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::{BLOCK_HEADER_SIZE, CLASS_WORDS_SIZE, Class, HEAP_WORDS_SIZE};
use crate::segment::region::{Mapping, Region, Shared};
use crate::sys::error::OsError;

/// Block headers that get pages at a time.
const FRONTIER_STEP: u64 = 64;
/// Blocks from this size on may give their pages back when freed.
pub(super) const PUNCH_FROM: u64 = 64 << 10;
/// Bytes of large free blocks that keep their pages: at most this, and an eighth of the budget.
const KEEP_MOST: u64 = 256 << 20;
pub(super) const PAGE: u64 = 4096;
/// Bytes of two cache lines, which the prefetcher fetches together.
const LINES: u64 = 128;

#[derive(Debug)]
#[repr(C)]
pub(super) struct HeapWords {
    pub(super) used: AtomicU64,
    kept: AtomicU64,
    pub(super) flights: Footprint,
    reserved: [AtomicU64; 3],
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
    assert!(core::mem::offset_of!(HeapWords, kept) == 8);
    assert!(core::mem::offset_of!(HeapWords, flights) == 16);
    assert!(core::mem::offset_of!(HeapWords, reserved) == 40);
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
    #[inline]
    fn frontier(&self, blocks: u64) -> Option<u64> {
        // Pairs with the Release in `advance_frontier`. Belief in a wrong frontier costs a page for
        // each of the headers that it claims, so it is not enough that it lies within the class.
        once(self.frontier.load(Ordering::Acquire)).filter(|&frontier| frontier <= blocks)
    }
}

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for HeapWords {}
#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for ClassWords {}

/// What becomes of the pages of a large block that is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// They go back to the system: objects come and go rarely.
    Give,
    /// They stay for the next block, up to [`KEEP_MOST`]: messages come and go all the time.
    Keep,
}

/// Which block: class and index within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    class: u8,
    index: u32,
}

impl BlockId {
    pub(super) fn new(class: u8, index: u32) -> BlockId {
        BlockId { class, index }
    }

    pub(super) fn class(self) -> u64 {
        self.class.into()
    }

    pub(super) fn index(self) -> u64 {
        self.index.into()
    }

    /// Where the block lies, which is one of this class.
    #[inline]
    pub(super) fn offset_in(self, class: &Class) -> u64 {
        class.base + self.index() * class.block_size
    }

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

/// A block that is part of a message, as the message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) id: BlockId,
    pub(crate) generation: u32,
}

/// A block that was taken out of a message, and what it says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) owned: Owned<'a>,
    pub(crate) kind: u64,
    pub(crate) len: u64,
}

impl<'a> Pool<'a> {
    #[inline]
    pub(crate) fn new(mapping: &'a Mapping, region: Region<'a>) -> Pool<'a> {
        Pool { mapping, region }
    }

    pub(crate) fn region(&self) -> Region<'a> {
        self.region
    }

    pub(super) fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    /// The peers of the segment.
    pub(crate) fn peers(&self) -> Option<Table<'a>> {
        Table::of(self.region, self.mapping.layout().peers())
    }

    /// Takes a block of at least `len` bytes for `me`, backs it with pages and records `kind`.
    ///
    /// Its bytes are what the last owner left there.
    pub(crate) fn allocate(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
    ) -> Result<Owned<'a>, AllocError> {
        match self.take_cached(me, kind, len) {
            Some(owned) => Ok(owned),
            None => self.allocate_another(me, kind, len),
        }
    }

    /// As [`Pool::allocate`], of a block that has the cache lines in which it lies, and their
    /// neighbours, alone: for words that several processes write.
    pub(crate) fn allocate_apart(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
    ) -> Result<Owned<'a>, AllocError> {
        let room = len.max(LINES);
        match self.take_cached_of(me, kind, len, room) {
            Some(owned) => Ok(owned),
            None => self.allocate_of(me, kind, len, room),
        }
    }

    /// As [`Pool::allocate`], where [`Pool::take_cached`] has found none.
    #[inline(never)]
    pub(crate) fn allocate_another(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
    ) -> Result<Owned<'a>, AllocError> {
        self.allocate_of(me, kind, len, len)
    }

    fn allocate_of(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
        room: u64,
    ) -> Result<Owned<'a>, AllocError> {
        match self.allocate_new(me, kind, len, room) {
            Err(AllocError::OutOfMemory { .. }) if self.give_cached(me) > 0 => {
                self.allocate_new(me, kind, len, room)
            }
            result => result,
        }
    }

    fn allocate_new(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
        room: u64,
    ) -> Result<Owned<'a>, AllocError> {
        loop {
            self.find_room(len)?;
            let Some(owned) = self.claim_of(room, me)? else {
                let available = self.available();
                return Err(AllocError::OutOfMemory { requested: len, available });
            };
            // Of no kind: its bytes are not there yet. The length before the charge: see `charge`.
            owned.header.describe(0, len);
            if self.charge_block(owned.header, len) {
                return self.back(owned, kind, len);
            }
            // Others have taken the room meanwhile.
            self.tear_down(owned.id, owned.header, owned.word, Pages::Keep);
        }
    }

    /// Shows the block to its holders, of whom `me` is the first.
    pub(crate) fn share(&self, owned: &Owned, me: PeerId) -> bool {
        owned.header.holders.insert(me.index());
        owned.header.share(owned.word)
    }

    /// Gives back a block that was never shared.
    #[inline(always)]
    pub(crate) fn give_back(&self, owned: &Owned) {
        if !self.set_aside(owned) {
            free(self.mapping, owned.id, owned.header, owned.word);
        }
    }

    /// As [`Pool::give_back`], for a block that was just allocated and is of no use.
    pub(crate) fn refuse(&self, owned: Owned<'_>) {
        free(self.mapping, owned.id, owned.header, owned.word);
    }

    /// Makes an owned block that of `heir`, a child which does not run yet, and there that of the
    /// handle of this age.
    pub(crate) fn pass(&self, owned: &Owned, heir: PeerId, age: u64) -> bool {
        self.mark(heir.owner(), owned.id);
        owned.header.pass(owned.word, heir.owner(), age)
    }

    /// Makes an owned block part of the message in a slot that `carrier` names, which the caller
    /// has claimed and not yet published. `None` if somebody has written over the block's word.
    pub(crate) fn carry(&self, owned: &Owned, carrier: Carrier) -> Option<Carried> {
        if let Some(parent) = carrier.receiver() {
            // Whoever clears up after the parent finds what it did not take.
            self.mark(parent.owner(), owned.id);
        }
        let carried = owned.header.carry(owned.word, carrier)?;
        Some(Carried { id: owned.id, generation: carried.generation() })
    }

    /// Where the bytes of a block lie that is part of the message in the slot of `carrier`, which
    /// `me` has claimed for reading, and how many there are; `None` if it is not.
    pub(crate) fn carried(
        &self,
        carried: Carried,
        carrier: Carrier,
        me: u32,
    ) -> Option<(u64, u64)> {
        // Before the slot is released, which strands the block.
        self.mark(me, carried.id);
        let header = self.header(carried.id)?;
        if !header.is_carried(carried.generation, carrier) {
            // A wrong name: what the message carries in truth is stranded when the slot is
            // released.
            self.mark_everywhere(me);
            return None;
        }
        Some((self.offset(carried.id)?, self.len(carried.id, header)))
    }

    /// Gives back a block of a message that is done; nothing if somebody else has done so. If it
    /// was a flight, what it held may be [unheld](Pool::free_unheld) now; before that, `conclude`
    /// is called with each object that it held a role of.
    pub(crate) fn discard(
        &self,
        carried: Carried,
        carrier: Carrier,
        me: u32,
        conclude: impl Fn(Attached),
    ) {
        let id = carried.id;
        if let Some((class, header)) = self.find(id) {
            let word = header.load();
            if word.state() == State::Carried
                && word.generation() == carried.generation
                && header.carrier() == Some(carrier)
                && let Some(word) = self.own(id, header, word, me)
                && !self.set_aside(&Owned { id, class, header, word })
            {
                self.end(id, header, word, Pages::Keep, conclude);
            }
        }
    }

    /// Gives back an owned block that was part of a message. True if it was a flight, of which
    /// `conclude` is as in [`Pool::discard`].
    fn end(
        &self,
        id: BlockId,
        header: &BlockHeader,
        owned: BlockWord,
        pages: Pages,
        conclude: impl Fn(Attached),
    ) -> bool {
        let is_flight = header.is_flight();
        if is_flight && let State::Owned(me) = owned.state() {
            self.give_up_roles(id, header, me, conclude);
        }
        self.tear_down(id, header, owned, pages);
        is_flight
    }

    /// The block `id`, if it belongs to `owner` in this generation.
    #[inline(always)]
    pub(crate) fn owned(&self, id: BlockId, generation: u32, owner: u32) -> Option<Owned<'a>> {
        let (class, header) = self.find(id)?;
        let word = header.load();
        let is_owned = word.state() == State::Owned(owner) && word.generation() == generation;
        is_owned.then_some(Owned { id, class, header, word })
    }

    /// As [`Pool::owned`], if the block was passed to its handle of this age.
    pub(crate) fn passed(
        &self,
        id: BlockId,
        generation: u32,
        owner: u32,
        age: u64,
    ) -> Option<Owned<'a>> {
        let owned = self.owned(id, generation, owner)?;
        owned.header.was_passed_to(age).then_some(owned)
    }

    /// Takes a block out of the message in the slot of `carrier`, which `me` has claimed for
    /// reading. `None` if it is not part of that message.
    pub(crate) fn take(&self, carried: Carried, carrier: Carrier, me: u32) -> Option<Taken<'a>> {
        let (class, header) = self.find(carried.id)?;
        // Twice: its reaper may just put the block back that a dead receiver had taken.
        for _ in 0..2 {
            let word = header.load();
            let is_there = match word.state() {
                State::Carried => true,
                // Another receiver had taken it from this slot in this lap. The slot is ours now,
                // so that one is dead. What we have taken ourselves is not in the message twice.
                State::Owned(before) => before != me,
                _ => false,
            };
            if !is_there
                || word.generation() != carried.generation
                || header.carrier() != Some(carrier)
            {
                return None;
            }
            if let Some(word) = self.own(carried.id, header, word, me) {
                let owned = Owned { id: carried.id, class, header, word };
                let (kind, len) = (header.kind(), self.len(carried.id, header));
                return Some(Taken { owned, kind, len });
            }
        }
        None
    }

    /// Takes a block back that `me` has just [made part](Pool::carry) of a message, which it has
    /// not published.
    pub(crate) fn take_back(&self, carried: Carried, me: u32) -> Option<Owned<'a>> {
        let (class, header) = self.find(carried.id)?;
        let word = header.load();
        if word.state() != State::Carried || word.generation() != carried.generation {
            return None;
        }
        let word = self.own(carried.id, header, word, me)?;
        Some(Owned { id: carried.id, class, header, word })
    }

    /// Gives back every block on these cards of which the carrier belongs to `me` alone, as
    /// `is_mine` says. Gives whether flights are among them: what they held may be
    /// [unheld](Pool::free_unheld) now. `conclude` is as in [`Pool::discard`].
    pub(crate) fn discard_all(
        &self,
        me: u32,
        cards: Cards,
        is_mine: impl Fn(Carrier) -> bool,
        conclude: impl Fn(Attached),
    ) -> bool {
        let mut flights = false;
        self.walk_on(cards, |id, header| {
            let word = header.load();
            if word.state() == State::Carried
                && header.carrier().is_some_and(&is_mine)
                && let Some(owned) = self.own(id, header, word, me)
            {
                flights |= self.end(id, header, owned, Pages::Keep, &conclude);
            }
        });
        flights
    }

    /// Gives back every block on these cards that is part of no message any more. `carries` says
    /// whether a slot still carries. Gives their number, and whether flights are among them: what
    /// they held may be [unheld](Pool::free_unheld) now. `conclude` is as in [`Pool::discard`].
    ///
    /// If it looks everywhere, it counts the kept pages on the way, as the hint may include what
    /// dead processes had subtracted or not.
    pub(crate) fn sweep(
        &self,
        me: PeerId,
        cards: Cards,
        carries: impl Fn(Carrier) -> bool,
        conclude: impl Fn(Attached),
    ) -> (usize, bool) {
        let (mut swept, mut flights) = (0, false);
        let mut kept = 0_u64;
        if self.mapping.see_all().is_err() {
            // What carries may be what is not seen.
            return (swept, flights);
        }
        let cards = if cards.is_everywhere() { Cards::ALL } else { cards };
        self.walk_on(cards, |id, header| {
            // The word before the carrier and the slot: see `block`.
            let word = header.load();
            if word.state() == State::Carried
                && !header.carrier().is_some_and(&carries)
                && let Some(owned) = self.own(id, header, word, me.owner())
            {
                flights |= self.end(id, header, owned, Pages::Keep, &conclude);
                swept += 1;
            } else if word.state() == State::Free && self.may_keep(id) {
                kept = kept.saturating_add(header.pages() * PAGE);
            }
        });
        if cards == Cards::ALL
            && let Some(words) = self.heap_words()
        {
            // Relaxed: a hint.
            words.kept.store(kept, Ordering::Relaxed);
        }
        (swept, flights)
    }

    /// Whether the block is one of those that may give their pages back when freed.
    fn may_keep(&self, id: BlockId) -> bool {
        self.class(id).is_some_and(|class| class.block_size >= PUNCH_FROM)
    }

    /// Gives the pages of free blocks back to the system, for a process to which the system has
    /// just refused some. Gives the number of those blocks.
    pub(crate) fn give_kept(&self, me: PeerId) -> usize {
        let mut given = 0;
        self.walk(|id, header| {
            let word = header.load();
            if word.state() == State::Free
                && self.may_keep(id)
                && header.pages() != 0
                && let Some(owned) = self.own(id, header, word, me.owner())
            {
                if let Some(words) = self.class_words(id.class.into()) {
                    // Relaxed: a hint.
                    words.free.fetch_sub(1, Ordering::Relaxed);
                }
                self.subtract(|words| &words.kept, header.pages() * PAGE);
                self.tear_down(id, header, owned, Pages::Give);
                given += 1;
            }
        });
        given
    }

    /// What is in a shared block of this generation, and where.
    pub(crate) fn shared(&self, id: BlockId, generation: u32) -> Option<Attached> {
        let header = self.header(id)?;
        let word = header.load();
        let there = word.state() == State::Shared && word.generation() == generation;
        if there { self.attached(id, header) } else { None }
    }

    /// Makes `me` a holder and gives the block's kind and bytes; `None` if it is not (or no longer)
    /// a shared block of that generation. `empty` is as in [`Pool::leave`].
    pub(crate) fn attach(
        &self,
        id: BlockId,
        generation: u32,
        me: PeerId,
        empty: impl FnOnce(Attached),
    ) -> Option<Attached> {
        let header = self.header(id)?;
        self.mark(me.owner(), id);
        header.holders.insert(me.index());
        if header.count_attachment(generation) {
            return self.attached(id, header);
        }
        // The bit was set in a block that is another object's by now. Once the bit is cleared, that
        // block may have no holder.
        self.release(id, me, empty);
        None
    }

    /// Ends this process's own hold; frees the block if nobody else has one. `empty` is as in
    /// [`Pool::leave`].
    pub(crate) fn release(&self, id: BlockId, me: PeerId, empty: impl FnOnce(Attached)) {
        if let Some(header) = self.header(id) {
            header.holders.remove(me.index());
            self.free_if_unheld(id, header, me, empty);
        }
    }

    /// Makes `child` a holder of a block that the caller holds. For a parent, before it forks.
    pub(crate) fn bequeath(&self, id: BlockId, generation: u32, child: PeerId) {
        if let Some(header) = self.header(id) {
            self.mark(child.owner(), id);
            header.holders.insert(child.index());
            // The caller's own hold keeps the block in place. The count makes a process that wanted
            // to free the block look again.
            header.count_attachment(generation);
        }
    }

    /// Ends this process's own hold. If others go on holding the block, also ends this process's
    /// claims in the object: `recover` does that. If not, or if they have left meanwhile, the block
    /// is freed, and `empty` is called before with what was in it.
    pub(crate) fn leave(
        &self,
        id: BlockId,
        me: PeerId,
        recover: impl FnOnce(Attached),
        empty: impl FnOnce(Attached),
    ) {
        let Some(header) = self.header(id) else {
            return;
        };
        loop {
            // The word first, as in `free_if_unheld`: a process that becomes a holder after this
            // look has changed it, and finds our claims ended.
            let word = header.load();
            if word.state() != State::Shared
                || !header.holders.is_only(me.index())
                || self.is_in_flight(id, header, word)
            {
                break;
            }
            if let Some(owned) = self.own(id, header, word, me.owner()) {
                header.holders.remove(me.index());
                self.empty_and_free(id, header, owned, empty);
                return;
            }
        }
        if let Some(attached) = self.attached(id, header) {
            recover(attached);
        }
        // The others may be leaving, too.
        self.release(id, me, empty);
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

    /// Gives back what the dead `peer` owned and held, wherever its [cards](super::cards) are.
    /// `recover` is called for each shared block that it held, before its hold ends. `empty` is as
    /// in [`Pool::leave`], and `conclude` as in [`Pool::discard`].
    ///
    /// What it had taken out of a message that it had not released goes back there. If nobody can
    /// receive that message, [`Pool::sweep`] finds it.
    ///
    /// True if a flight was given back, or a block has no holder that was ever in flight. It is
    /// left to [`Pool::free_unheld`], as a flight that held it may be stranded only now.
    pub(crate) fn clear(
        &self,
        peer: PeerId,
        me: PeerId,
        carries: impl Fn(Carrier) -> bool,
        recover: impl Fn(Attached),
        empty: impl Fn(Attached),
        conclude: impl Fn(Attached),
    ) -> bool {
        let later = Cell::new(false);
        // Whether it may have been killed between a block's pages and the count of those.
        let mut miscounted = false;
        let unheld = |id, header: &BlockHeader| {
            if header.holders.is_empty() && header.may_fly() {
                later.set(true);
            } else {
                self.free_if_unheld(id, header, me, &empty);
            }
        };
        self.walk_on(self.cards(peer), |id, header| {
            let word = header.load();
            match word.state() {
                State::Owned(owner) if owner == peer.owner() => {
                    miscounted |= self.may_keep(id);
                    // If it was killed in `share`, its bit is set already.
                    header.holders.remove(peer.index());
                    if header.carrier().is_some_and(&carries) {
                        // If it is gone, the next receiver of the message has it.
                        header.put_back(word);
                    } else if let Some(mine) = self.own(id, header, word, me.owner()) {
                        // It may have been a queue that the dead process was about to free, with
                        // messages in it.
                        if let Some(attached) = self.attached(id, header) {
                            empty(attached);
                        }
                        let is_flight = self.end(id, header, mine, Pages::Give, &conclude);
                        later.set(later.get() | is_flight);
                    }
                }
                State::Shared if header.holders.contains(peer.index()) => {
                    // Its bit may have been set for a moment, in a block that somebody was about to
                    // free. With the count it is a hold.
                    if header.count_attachment(word.generation())
                        && let Some(attached) = self.attached(id, header)
                    {
                        recover(attached);
                    }
                    header.holders.remove(peer.index());
                    unheld(id, header);
                }
                // A holder that was killed between clearing its bit and freeing the block.
                State::Shared if header.holders.is_empty() => unheld(id, header),
                State::Cached(keeper) if keeper == peer.owner() => {
                    self.give_one_back(id, header, word, me);
                }
                // A bit that was set for a moment in a block that had become another object's.
                _ if header.holders.contains(peer.index()) => header.holders.remove(peer.index()),
                _ => {}
            }
        });
        if miscounted {
            self.recount_kept();
        }
        later.get()
    }

    /// Counts the pages that free blocks have kept, as the hint may include what a dead process had
    /// added or subtracted and not given or taken.
    fn recount_kept(&self) {
        let mut kept = 0_u64;
        let classes = self.mapping.layout().classes().iter().enumerate();
        for (class, _) in classes.filter(|(_, class)| class.block_size >= PUNCH_FROM) {
            for index in 0..self.frontier(class).unwrap_or(0) {
                let header = self.header(BlockId::new(class as u8, index as u32));
                if let Some(header) = header.filter(|it| it.load().state() == State::Free) {
                    kept = kept.saturating_add(header.pages() * PAGE);
                }
            }
        }
        if let Some(words) = self.heap_words() {
            // Relaxed: a hint.
            words.kept.store(kept, Ordering::Relaxed);
        }
    }

    /// Bytes of the budget that are not in use, by the hint.
    pub(crate) fn available(&self) -> u64 {
        self.mapping.layout().budget().saturating_sub(self.charged())
    }

    /// Number of blocks that are not free, counted.
    #[cfg(test)]
    pub(crate) fn blocks_in_use(&self) -> usize {
        let mut count = 0;
        let is_free = |state| matches!(state, State::Free | State::Cached(_));
        self.walk(|_, header| count += usize::from(!is_free(header.load().state())));
        count
    }

    /// Frees a shared block that nobody holds; calls `empty` before with what was in it.
    pub(super) fn free_if_unheld(
        &self,
        id: BlockId,
        header: &BlockHeader,
        me: PeerId,
        empty: impl FnOnce(Attached),
    ) {
        loop {
            // The word first: an attachment after this changes it, and the swap fails.
            let word = header.load();
            if word.state() != State::Shared
                || !header.holders.is_empty()
                || self.is_in_flight(id, header, word)
            {
                return;
            }
            if let Some(owned) = self.own(id, header, word, me.owner()) {
                self.empty_and_free(id, header, owned, empty);
                return;
            }
        }
    }

    /// Frees what was shared and is nobody's now.
    pub(super) fn empty_and_free(
        &self,
        id: BlockId,
        header: &BlockHeader,
        owned: BlockWord,
        empty: impl FnOnce(Attached),
    ) {
        if let Some(attached) = self.attached(id, header) {
            empty(attached);
        }
        self.tear_down(id, header, owned, Pages::Give);
    }

    #[inline(never)]
    pub(super) fn tear_down(
        &self,
        id: BlockId,
        header: &BlockHeader,
        owned: BlockWord,
        pages: Pages,
    ) {
        let len = self.len(id, header);
        self.keep_or_punch(id, header, pages);
        self.discharge_block(header, len);
        if header.free(owned)
            && let Some(words) = self.class_words(id.class.into())
        {
            // Relaxed: hints. The lowest: blocks that were used before are used again, as they have
            // pages.
            if u64::from(id.index) < words.hint.load(Ordering::Relaxed) {
                words.hint.store(id.index.into(), Ordering::Relaxed);
            }
            words.free.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives the pages of a large block back, unless they are worth keeping.
    fn keep_or_punch(&self, id: BlockId, header: &BlockHeader, pages: Pages) {
        let len = header.pages() * PAGE;
        let (Some(words), Some(offset), Some(class)) =
            (self.heap_words(), self.offset(id), self.class(id))
        else {
            return;
        };
        if class.block_size < PUNCH_FROM || len > class.block_size {
            return;
        }
        let most = KEEP_MOST.min(self.mapping.layout().budget() / 8);
        // Relaxed: a hint.
        if pages == Pages::Keep && words.kept.load(Ordering::Relaxed).saturating_add(len) <= most {
            words.kept.fetch_add(len, Ordering::Relaxed);
            return;
        }
        // Before the pages go: a process killed in between must not leave a block that claims pages
        // which it does not have.
        header.set_pages(0);
        // All of the block: a process killed in `back` has left pages that the header does not
        // know.
        self.mapping.punch(offset, class.block_size);
    }

    /// Takes a free block of the smallest class that has one of `room` bytes.
    fn claim_of(&self, room: u64, me: PeerId) -> Result<Option<Owned<'a>>, AllocError> {
        // Hints say which classes have free blocks. They may be wrong, but to search a class that
        // seems full takes time with the number of its blocks, so that comes last.
        for trusts_hints in [true, false] {
            for (class, geometry) in self.mapping.layout().classes().iter().enumerate() {
                // A full class is no reason to refuse what the budget allows: larger blocks have
                // pages only for what is used.
                if geometry.block_size >= room
                    && let Some(owned) = self.claim(class, me, trusts_hints)?
                {
                    return Ok(Some(owned));
                }
            }
        }
        Ok(None)
    }

    /// Takes a free block of the class. `None` if there is none; or, if the hints are trusted, none
    /// that they speak of.
    fn claim(
        &self,
        class: usize,
        me: PeerId,
        trusts_hints: bool,
    ) -> Result<Option<Owned<'a>>, AllocError> {
        let words = self.class_words(class).ok_or(AllocError::Corrupt)?;
        let blocks = self.mapping.layout().classes()[class].blocks;
        loop {
            let frontier = words.frontier(blocks).ok_or(AllocError::Corrupt)?;
            let is_full = frontier == blocks;
            if words.free.load(Ordering::Relaxed) != 0 || is_full && !trusts_hints {
                if let Some(owned) = self.claim_before(class, frontier, me) {
                    return Ok(Some(owned));
                }
                // The hint was wrong; a killed process or a race left it so.
                words.free.store(0, Ordering::Relaxed);
            }
            if is_full {
                return Ok(None);
            }
            self.advance_frontier(class, words, frontier, blocks)?;
        }
    }

    fn claim_before(&self, class: usize, frontier: u64, me: PeerId) -> Option<Owned<'a>> {
        let words = self.class_words(class)?;
        let hint = words.hint.load(Ordering::Relaxed).min(frontier);
        for index in (hint..frontier).chain(0..hint) {
            let id = BlockId { class: class as u8, index: index as u32 };
            let (class, header) = self.find(id)?;
            let word = header.load();
            if word.state() == State::Free
                && let Some(word) = self.own(id, header, word, me.owner())
            {
                // Relaxed: hints. A wrap below zero is a large number, that is, "look".
                words.hint.store(index + 1, Ordering::Relaxed);
                words.free.fetch_sub(1, Ordering::Relaxed);
                return Some(Owned { id, class, header, word });
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
        let (from, to) = (twice(frontier), twice(next));
        if words.frontier.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok() {
            words.free.fetch_add(next - frontier, Ordering::Relaxed);
        }
        Ok(())
    }

    fn back(&self, owned: Owned<'a>, kind: u64, len: u64) -> Result<Owned<'a>, AllocError> {
        let Owned { id, class, header, word } = owned;
        let has = header.pages();
        if class.block_size >= PUNCH_FROM {
            self.subtract(|words| &words.kept, has * PAGE);
        }
        // Blocks of a page and more begin on a page. Smaller ones are backed whole, as they may
        // lie across the boundary between two.
        let needed = len.clamp(1, class.block_size).div_ceil(PAGE);
        if has < needed {
            let bytes = if class.block_size < PAGE { class.block_size } else { needed * PAGE };
            if let Err(refused) = self.mapping.back(owned.offset(), bytes) {
                self.tear_down(id, header, word, Pages::Keep);
                return Err(AllocError::NoPages { requested: len, refused });
            }
            header.set_pages(needed);
        }
        header.describe(kind, len);
        Ok(owned)
    }

    /// Makes a hint smaller. A recount may have come in between; below zero it stays at zero.
    fn subtract(&self, hint: impl Fn(&HeapWords) -> &AtomicU64, len: u64) {
        if let Some(words) = self.heap_words() {
            let _ = hint(words).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(len))
            });
        }
    }

    /// Number of size classes.
    pub(super) fn classes(&self) -> usize {
        self.mapping.layout().classes().len()
    }

    /// Number of block headers of a class that have pages; `None` if that is corrupt.
    pub(super) fn frontier(&self, class: usize) -> Option<u64> {
        self.class_words(class)?.frontier(self.mapping.layout().classes().get(class)?.blocks)
    }

    #[inline]
    pub(super) fn class(&self, id: BlockId) -> Option<&'a Class> {
        self.mapping.layout().classes().get(usize::from(id.class))
    }

    #[inline]
    pub(super) fn offset(&self, id: BlockId) -> Option<u64> {
        let class = self.class(id)?;
        (u64::from(id.index) < class.blocks).then(|| id.offset_in(class))
    }

    /// The header of a block within the frontier.
    #[inline]
    pub(super) fn header(&self, id: BlockId) -> Option<&'a BlockHeader> {
        self.find(id).map(|(_, header)| header)
    }

    /// The class, which has it, and the header of a block within the frontier.
    #[inline]
    pub(super) fn find(&self, id: BlockId) -> Option<(&'a Class, &'a BlockHeader)> {
        let class = self.class(id)?;
        let frontier = self.class_words(id.class.into())?.frontier(class.blocks)?;
        if u64::from(id.index) >= frontier {
            return None;
        }
        Some((class, self.header_in(class, id)?))
    }

    /// The header of a block of this class that was within the frontier at some time, and so is
    /// now.
    #[inline]
    pub(super) fn header_in(&self, class: &Class, id: BlockId) -> Option<&'a BlockHeader> {
        self.region.at(class.headers + u64::from(id.index) * BLOCK_HEADER_SIZE)
    }

    /// What is in a shared block, and where.
    fn attached(&self, id: BlockId, header: &BlockHeader) -> Option<Attached> {
        Some(Attached {
            id,
            generation: header.load().generation(),
            kind: header.kind(),
            offset: self.offset(id)?,
            len: self.len(id, header),
        })
    }

    /// Bytes in use of a block, never more than it has: a corrupt length must not reach the blocks
    /// behind it.
    #[inline]
    pub(super) fn len(&self, id: BlockId, header: &BlockHeader) -> u64 {
        header.len().min(self.class(id).map_or(0, |class| class.block_size))
    }

    #[inline]
    pub(super) fn heap_words(&self) -> Option<&'a HeapWords> {
        self.region.fixed(self.mapping.layout().heap_words())
    }

    #[inline]
    fn class_words(&self, class: usize) -> Option<&'a ClassWords> {
        self.region.fixed(self.mapping.layout().class_words(class))
    }
}

/// Gives back an owned block that is not kept at hand. By way of the mapping: a pool to point to
/// would have to be written to memory, also where this is not called.
#[inline(never)]
fn free(mapping: &Mapping, id: BlockId, header: &BlockHeader, owned: BlockWord) {
    if let Some(region) = mapping.region() {
        Pool::new(mapping, region).tear_down(id, header, owned, Pages::Keep);
    }
}

/// A shared block: what is in it, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) id: BlockId,
    pub(crate) generation: u32,
    pub(crate) kind: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    /// The last holder is killed between the end of its hold and the freeing of the block. Its
    /// reaper is not told by any bit that this block was the dead one's.
    #[test]
    fn a_block_that_its_last_holder_did_not_come_to_free_is_freed_by_a_reaper() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        let [me, dead] = [1, 2].map(|index| PeerId::new(index, 1));
        let owned = pool.allocate(dead, 7, 100).expect("room");
        assert!(pool.share(&owned, dead));
        let header = pool.header(owned.id).expect("a block");
        header.holders.remove(dead.index());
        assert_eq!(pool.blocks_in_use(), 1);
        pool.clear(dead, me, |_| false, |_| panic!("it held nothing"), |_| (), |_| ());
        assert_eq!(pool.blocks_in_use(), 0);
    }

    fn with_pool(test: impl FnOnce(Pool<'_>, PeerId, PeerId)) {
        let segment = Segment::create(1 << 22).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        test(pool, PeerId::new(1, 1), PeerId::new(2, 1));
    }

    fn slot(position: u64) -> Carrier {
        Carrier { block: 7, generation: 1, position }
    }

    fn nothing(_: Attached) {}

    #[test]
    fn a_block_of_a_message_is_found_by_its_generation_and_its_slot_only() {
        with_pool(|pool, me, _| {
            let owned = pool.allocate(me, 7, 100).expect("room");
            let carried = pool.carry(&owned, slot(3)).expect("ours");
            let later = Carried { generation: carried.generation + 1, ..carried };
            for (wrong, at) in [(later, slot(3)), (carried, slot(4))] {
                assert!(pool.carried(wrong, at, me.owner()).is_none());
                assert!(pool.take(wrong, at, me.owner()).is_none());
                pool.discard(wrong, at, me.owner(), nothing);
            }
            assert!(pool.take_back(later, me.owner()).is_none());
            assert_eq!(pool.carried(carried, slot(3), me.owner()), Some((owned.offset(), 100)));
            let back = pool.take_back(carried, me.owner()).expect("it is there");
            assert!(pool.take_back(carried, me.owner()).is_none(), "it is no message's now");
            let carried = pool.carry(&back, slot(5)).expect("ours");
            pool.discard(carried, slot(5), me.owner(), nothing);
            assert_eq!(pool.blocks_in_use(), 0);
        });
    }

    #[test]
    fn what_a_dead_receiver_had_taken_is_taken_over_and_nothing_is_taken_twice() {
        with_pool(|pool, me, dead| {
            let owned = pool.allocate(me, 7, 100).expect("room");
            let carried = pool.carry(&owned, slot(3)).expect("ours");
            assert!(pool.take(carried, slot(3), dead.owner()).is_some());
            assert!(pool.take(carried, slot(3), dead.owner()).is_none());
            let taken = pool.take(carried, slot(3), me.owner()).expect("the dead one's");
            assert_eq!((taken.owned.offset(), taken.kind, taken.len), (owned.offset(), 7, 100));
            pool.give_back(&taken.owned);
            assert!(pool.take(carried, slot(3), me.owner()).is_none());
        });
    }

    #[test]
    fn what_nobody_holds_is_freed_and_nothing_else() {
        with_pool(|pool, me, _| {
            let [owned, message, held, unheld, unheld_too, free] =
                [1, 2, 3, 4, 5, 6].map(|kind| pool.allocate(me, kind, 100).expect("room"));
            pool.carry(&message, slot(3)).expect("ours");
            for block in [&held, &unheld, &unheld_too] {
                assert!(pool.share(block, me));
            }
            for block in [&unheld, &unheld_too] {
                pool.header(block.id).expect("a block").holders.remove(me.index());
            }
            pool.give_back(&free);
            let freed = Cell::new(0);
            let empty = |attached: Attached| freed.set(freed.get() * 10 + attached.kind);
            assert_eq!((pool.free_unheld(me, empty), freed.get()), (2, 45));
            assert_eq!(pool.blocks_in_use(), 3);
            assert!(pool.owned(owned.id, owned.generation(), me.owner()).is_some());
        });
    }

    #[test]
    fn stranded_messages_are_swept_and_flights_among_them_are_told() {
        with_pool(|pool, me, _| {
            let put = |position, is_flight| {
                let owned = if is_flight {
                    pool.make_flight(me, 8, &[])
                } else {
                    pool.allocate(me, 7, 100)
                };
                pool.carry(&owned.expect("room"), slot(position)).expect("ours");
            };
            for flights in [[false, false], [true, false], [false, true]] {
                let told = flights.contains(&true);
                flights.iter().for_each(|&is_flight| put(3, is_flight));
                put(4, false);
                assert_eq!(
                    pool.sweep(me, Cards::ALL, |carrier| carrier == slot(4), nothing),
                    (2, told)
                );
                flights.iter().for_each(|&is_flight| put(3, is_flight));
                assert_eq!(
                    pool.discard_all(me.owner(), Cards::ALL, |at| at == slot(3), nothing),
                    told
                );
                assert_eq!(pool.blocks_in_use(), 1, "that of the other message");
                assert!(!pool.discard_all(me.owner(), Cards::ALL, |_| true, nothing));
                assert_eq!(pool.blocks_in_use(), 0);
            }
        });
    }

    /// The hint may be wrong after a death. A sweep counts anew.
    #[test]
    fn kept_pages_are_counted_by_a_sweep_and_can_be_given_back() {
        with_pool(|pool, me, _| {
            let kept = || pool.heap_words().expect("mapped").kept.load(Ordering::Relaxed);
            let [large, used, medium, small] =
                [100_000, 200_000, 5000, 100].map(|len| pool.allocate(me, 7, len).expect("room"));
            [&large, &medium, &small].into_iter().for_each(|block| pool.give_back(block));
            assert_eq!(kept(), 102_400);
            pool.heap_words().expect("mapped").kept.store(5, Ordering::Relaxed);
            assert_eq!(pool.sweep(me, Cards::ALL, |_| true, nothing), (0, false));
            assert_eq!(kept(), 102_400);
            assert_eq!((pool.give_kept(me), kept()), (1, 0));
            assert_eq!((pool.give_kept(me), pool.blocks_in_use()), (0, 1));
            let pages = |block: &Owned| pool.header(block.id).expect("a block").pages();
            assert_eq!((pages(&large), pages(&used), pages(&medium)), (0, 49, 2));
            assert_ne!(pages(&small), 0);
        });
    }

    #[test]
    fn a_hint_says_how_many_pages_free_blocks_have() {
        with_pool(|pool, me, _| {
            let kept = || pool.heap_words().expect("mapped").kept.load(Ordering::Relaxed);
            let pages = |block: &Owned| pool.header(block.id).expect("a block").pages();
            // The smallest that keeps any, and all of it.
            let whole = pool.allocate(me, 7, PUNCH_FROM).expect("room");
            pool.give_back(&whole);
            assert_eq!((pages(&whole), kept()), (16, PUNCH_FROM));
            let again = pool.allocate(me, 7, PUNCH_FROM).expect("room");
            assert_eq!((again.id, kept()), (whole.id, 0), "it has its pages already");
            // An eighth of the budget at most: 512 KiB.
            let two = [0, 1].map(|_| pool.allocate(me, 7, 300_000).expect("room"));
            two.iter().for_each(|block| pool.give_back(block));
            assert_eq!((kept(), pages(&two[0]), pages(&two[1])), (74 * PAGE, 74, 0));
        });
    }

    #[test]
    fn a_block_that_was_a_flight_is_none_in_its_next_life() {
        with_pool(|pool, me, _| {
            let flight = pool.make_flight(me, 8, &[]).expect("room");
            pool.header(flight.id).expect("a block").let_fly();
            pool.give_back(&flight);
            let next = pool.allocate(me, 7, 0).expect("room");
            let header = pool.header(next.id).expect("a block");
            assert_eq!(next.id, flight.id);
            assert!(!header.is_flight() && !header.may_fly());
        });
    }

    /// Its bytes are the sender's, who may write anything.
    #[test]
    fn a_message_that_looks_like_a_flight_holds_nothing() {
        with_pool(|pool, me, _| {
            let object = pool.allocate(me, 7, 100).expect("room");
            assert!(pool.share(&object, me));
            let header = pool.header(object.id).expect("a block");
            header.let_fly();
            let message = pool.allocate(me, 8, 16).expect("room");
            for (at, word) in [(0, object.id.to_bits()), (8, object.generation().into())] {
                let place = pool.region().at::<AtomicU64>(message.offset() + at).expect("mapped");
                place.store(word, Ordering::Relaxed);
            }
            pool.carry(&message, slot(3)).expect("ours");
            header.holders.remove(me.index());
            assert_eq!((pool.free_unheld(me, nothing), pool.blocks_in_use()), (1, 1));
        });
    }

    #[test]
    fn only_a_shared_block_of_its_generation_is_there() {
        with_pool(|pool, me, _| {
            let owned = pool.allocate(me, 7, 100).expect("room");
            assert!(pool.shared(owned.id, owned.generation()).is_none());
            assert!(pool.share(&owned, me));
            assert!(pool.shared(owned.id, owned.generation()).is_some());
            assert!(pool.shared(owned.id, owned.generation() + 1).is_none());
        });
    }

    /// What its flights held is looked at by the caller, who must be told.
    #[test]
    fn flights_of_the_dead_are_told() {
        with_pool(|pool, me, dead| {
            for flights in [0, 1, 2] {
                for _ in 0..flights {
                    pool.make_flight(dead, 8, &[]).expect("room");
                }
                pool.allocate(dead, 7, 100).expect("room");
                let told = pool.clear(dead, me, |_| false, nothing, nothing, nothing);
                assert_eq!((told, pool.blocks_in_use()), (flights > 0, 0), "{flights}");
            }
        });
    }

    #[test]
    fn what_a_dead_process_owned_and_held_is_given_back_and_nothing_else() {
        with_pool(|pool, me, dead| {
            let [mine, owned, taken, shared, alone, bare] =
                [(me, 1), (dead, 2), (dead, 3), (dead, 4), (dead, 5), (me, 6)]
                    .map(|(owner, kind)| pool.allocate(owner, kind, 100).expect("room"));
            let carried = pool.carry(&taken, slot(3)).expect("a message");
            assert!(pool.take(carried, slot(3), dead.owner()).is_some());
            for block in [&shared, &alone] {
                assert!(pool.share(block, dead));
            }
            assert!(pool.attach(shared.id, shared.generation(), me, nothing).is_some());
            // Set for a moment, in blocks that had become others.
            for block in [&mine, &bare] {
                pool.header(block.id).expect("a block").holders.insert(dead.index());
            }
            let carried_bare = pool.carry(&bare, slot(4)).expect("ours");
            let (recovered, emptied) = (Cell::new(0), Cell::new(0));
            let later = pool.clear(
                dead,
                me,
                |carrier| carrier == slot(3),
                |attached| recovered.set(recovered.get() * 10 + attached.kind),
                |attached| emptied.set(emptied.get() * 10 + attached.kind),
                nothing,
            );
            assert!(!later);
            // What it owned may be a queue that it was about to free.
            assert_eq!((recovered.get(), emptied.get()), (45, 25));
            assert!(pool.owned(owned.id, owned.generation(), dead.owner()).is_none());
            assert!(pool.owned(mine.id, mine.generation(), me.owner()).is_some());
            assert!(pool.carried(carried, slot(3), me.owner()).is_some(), "back in its message");
            assert!(pool.carried(carried_bare, slot(4), me.owner()).is_some());
            for block in [&mine, &bare, &shared] {
                assert!(!pool.is_holder(block.id, dead));
            }
            assert_eq!(pool.blocks_in_use(), 4);
        });
    }
}
