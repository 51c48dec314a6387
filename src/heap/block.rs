//! A block's header. It lies apart from the block's bytes, so that a stray write to the bytes does
//! not hit it.
//!
//! # Layout
//! ```text
//! offset  size  field    written by
//!      0     8  word     the process that moves the block, by CAS
//!      8     8  kind     the owner, before SHARED: fingerprint of what lies in the block
//!     16     8  len      the owner: bytes in use, from the start of the block
//!     24     8  pages    the owner: how many pages are backed, and the same number inverted
//!     32    24  carrier  the owner, before CARRIED: block, generation and inverted position of the
//!                        slot; no position (0) in a free block and while the rest is written.
//!                        A parent, before it passes the block to its child: no position, and
//!                        the inverted age of the handle in place of the block
//!     56     8  marks    the owner, or a holder: see `flight` and `charge`
//!     64   128  holders  one bit per peer, set and cleared by read-modify-write
//!
//! word = generation:30 | state:3 | owner:31      while it is OWNED
//!        generation:30 | state:3 | version:31    while it is SHARED
//!        generation:30 | state:3 | 0:31          while it is CARRIED
//!        generation:30 | state:3 | keeper:31     while it is CACHED
//! ```
//! # States
//! ```text
//! FREE(g) --allocate: CAS--> OWNED(g, p) --built: CAS---> SHARED(g) --the last holder: CAS----> OWNED(g, p) --> FREE(g+1)
//!                               |  |  ^                                                            |    |
//!                               |  +--|--sent: CAS--> CARRIED(g+1) --done, stranded, taken: CAS----+    |
//!                               |     |                   |  ^                                          |
//!                               |     +--send failed: CAS-+  +--taker dead, message is not: CAS---------+
//!                               +--------- p dead: the reaper gives it back ----------------------------+
//!
//! OWNED(g, p) --kept: store-> CACHED(g+1, p) --taken by p: CAS-------------------------> OWNED(g+1, p)
//!                                 +-----------room is needed, p dead or leaves: CAS---> OWNED(g+1, r) --> FREE(g+2)
//! ```
//! A block that is `OWNED` belongs to one process, which builds it up or tears it down. A block
//! that is `SHARED` belongs to its holders. `version` counts attachments. A process that wants to
//! free a shared block reads the word, sees that nobody holds the block, and swaps exactly that
//! word; an attachment in between has changed it. A version comes round after 2^31 attachments, and
//! a process makes fewer than 20 million in a second.
//!
//! A block that is `CARRIED` is part of a message, and belongs to the slot that its `carrier`
//! names, for as long as that slot is in that lap. After that it is *stranded*: nobody can reach it
//! through the slot any more, and anybody may give it back. A judge reads the word, then the
//! carrier, then the slot, and swaps exactly the word that it read. Each way into `CARRIED` has a
//! generation of its own, so the swap fails if the block was sent again meanwhile. A generation
//! comes round after 2^29 messages, and a process sends fewer than 5 million of that kind in a
//! second.
//!
//! A receiver may *take* a block out of its message ([`carry`](crate::object::carry)): the block is
//! `OWNED` by it while the slot is still its own. If it dies then, and the message is to be
//! delivered again, the block goes back to `CARRIED`, or straight to the next receiver. The carrier
//! says which block that is: for each other block that is `OWNED` it names a slot that is in a
//! later lap, or none. Therefore the position is written first as `NOWHERE`, so that no mixture of
//! an old carrier and a new one names a slot.
//!
//! A block that is `CACHED` is free, and its keeper takes it first ([`magazine`]). It belongs to
//! nobody: whoever needs room may swap the word and make it his own.
//!
//! [`magazine`]: super::magazine
//!
//! A block that is part of what a child returns is `CARRIED` by its parent's entry in the peer
//! table, in that generation, and names the child, too. It is stranded once the parent is gone.

use crate::claim::{OWNER_BITS, OWNER_MASK};
use crate::heap::holders::Holders;
use crate::peer::PeerId;
use crate::peer::id::GENERATION_BITS as GENERATION_BITS_OF_PEER;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::{BLOCK_HEADER_SIZE, PEERS};
use crate::segment::region::Shared;

const STATE_BITS: u32 = 3;
const GENERATION_BITS: u32 = 30;
const GENERATION_SHIFT: u32 = OWNER_BITS + STATE_BITS;
/// A version takes the place of the owner: a shared block has none.
const VERSION_MASK: u64 = OWNER_MASK;

const _: () = assert!(GENERATION_SHIFT + GENERATION_BITS == 64);

/// The block may be held by a flight.
const MAY_FLY: u64 = 1;
/// The block is a flight, and lists the blocks that it holds.
const IS_FLIGHT: u64 = 2;
/// The bytes of the block are charged: see `charge`.
const IS_CHARGED: u64 = 4;

const FREE: u64 = 0;
const OWNED: u64 = 1;
const SHARED: u64 = 2;
const CARRIED: u64 = 3;
const CACHED: u64 = 4;

/// What a block's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Can be claimed.
    Free,
    /// Built up or torn down by this peer.
    Owned(u32),
    /// Belongs to its holders.
    Shared,
    /// Part of a message.
    Carried,
    /// Free, and at hand for this peer's next object. It still counts against the budget.
    Cached(u32),
    /// A value that this crate never writes.
    Unknown,
}

/// One value of a block's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockWord(u64);

impl BlockWord {
    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        match self.0 >> OWNER_BITS & ((1 << STATE_BITS) - 1) {
            FREE => State::Free,
            OWNED => State::Owned((self.0 & OWNER_MASK) as u32),
            SHARED => State::Shared,
            CARRIED => State::Carried,
            CACHED => State::Cached((self.0 & OWNER_MASK) as u32),
            _ => State::Unknown,
        }
    }

    /// The same block in another state. If that is shared, its version is 0.
    #[inline]
    fn with(self, state: State) -> BlockWord {
        let low = match state {
            State::Free | State::Unknown => FREE << OWNER_BITS,
            State::Owned(owner) => OWNED << OWNER_BITS | u64::from(owner) & OWNER_MASK,
            State::Shared => SHARED << OWNER_BITS,
            State::Carried => CARRIED << OWNER_BITS,
            State::Cached(keeper) => CACHED << OWNER_BITS | u64::from(keeper) & OWNER_MASK,
        };
        BlockWord(self.0 >> GENERATION_SHIFT << GENERATION_SHIFT | low)
    }

    /// The word of the block in this generation, as part of a message.
    pub(super) fn carried_in(self, generation: u32) -> BlockWord {
        BlockWord(u64::from(generation) << GENERATION_SHIFT).with(State::Carried)
    }

    /// An owned block in its next generation, kept by its owner.
    #[inline]
    fn kept(self) -> BlockWord {
        BlockWord(self.next_generation().0 | CACHED << OWNER_BITS | self.0 & OWNER_MASK)
    }

    /// A shared block after one more attachment.
    fn next_version(self) -> BlockWord {
        BlockWord(self.0 & !VERSION_MASK | self.0.wrapping_add(1) & VERSION_MASK)
    }

    #[inline]
    fn next_generation(self) -> BlockWord {
        BlockWord((self.0 >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT)
    }
}

/// In place of an inverted position: in no slot. As in fresh memory.
const NOWHERE: u64 = 0;

/// In place of a queue's block: the carrier is what a child returns.
const RESULT: u64 = u64::MAX;
/// Bits of an index of a peer in the position of such a carrier.
const INDEX_BITS: u32 = 16;

const _: () = assert!(PEERS <= 1 << INDEX_BITS && GENERATION_BITS_OF_PEER + 2 * INDEX_BITS < 64);

/// What carries a block: the slot of a queue in one lap, or what a child returns to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    /// The queue's block.
    pub(crate) block: u64,
    pub(crate) generation: u32,
    /// Slot and lap.
    pub(crate) position: u64,
}

impl Carrier {
    /// What `child` returns to `parent`. It carries as long as the parent is attached, which takes
    /// the blocks or frees them.
    pub(crate) fn of_result(parent: PeerId, child: PeerId) -> Carrier {
        let position = u64::from(child.generation()) << (2 * INDEX_BITS)
            | u64::from(child.index()) << INDEX_BITS
            | u64::from(parent.index());
        Carrier { block: RESULT, generation: parent.generation(), position }
    }

    /// The parent that takes the blocks, if this is what a child returns.
    pub(crate) fn receiver(&self) -> Option<PeerId> {
        let index = (self.position & ((1 << INDEX_BITS) - 1)) as u32;
        (self.block == RESULT).then(|| PeerId::new(index, self.generation))
    }
}

/// A number as it stands in the segment: with its inverse above it, except for the zero of fresh
/// memory. For numbers that do harm if they are wrong.
#[inline]
pub(crate) fn twice(number: u64) -> u64 {
    if number == 0 { 0 } else { !number << 32 | number }
}

/// The number that [`twice`] made this word of; `None` if it never did.
#[inline]
pub(crate) fn once(word: u64) -> Option<u64> {
    let number = word & u64::from(u32::MAX);
    (word == twice(number)).then_some(number)
}

/// A block's header as it stands in the segment.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct BlockHeader {
    word: AtomicU64,
    kind: AtomicU64,
    len: AtomicU64,
    pages: AtomicU64,
    carrier: [AtomicU64; 3],
    marks: AtomicU64,
    pub(crate) holders: Holders,
}

const _: () = {
    assert!(core::mem::offset_of!(BlockHeader, word) == 0);
    assert!(core::mem::offset_of!(BlockHeader, kind) == 8);
    assert!(core::mem::offset_of!(BlockHeader, len) == 16);
    assert!(core::mem::offset_of!(BlockHeader, pages) == 24);
    assert!(core::mem::offset_of!(BlockHeader, carrier) == 32);
    assert!(core::mem::offset_of!(BlockHeader, marks) == 56);
    assert!(core::mem::offset_of!(BlockHeader, holders) == 64);
    assert!(size_of::<BlockHeader>() as u64 == BLOCK_HEADER_SIZE);
};

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for BlockHeader {}

impl BlockHeader {
    /// The word now.
    #[inline]
    pub(crate) fn load(&self) -> BlockWord {
        // Acquire pairs with the Release of every transition: a process that sees SHARED sees what
        // was built.
        BlockWord(self.word.load(Ordering::Acquire))
    }

    /// Makes `owner` the owner of the block, if its word is still `from`.
    #[inline]
    pub(crate) fn own(&self, from: BlockWord, owner: u32) -> Option<BlockWord> {
        let owned = from.with(State::Owned(owner));
        self.advance(from, owned).then_some(owned)
    }

    /// Makes a block another process's that this one owns: that of the copy of its handle, which is
    /// of this age, not 0. No other handle in that process is of this block, generation and age.
    pub(crate) fn pass(&self, owned: BlockWord, heir: u32, age: u64) -> bool {
        // In this order, as in `carry`. It may have been returned to this process by a child.
        self.carrier[2].store(NOWHERE, Ordering::Release);
        self.carrier[0].store(!age, Ordering::Release);
        self.own(owned, heir).is_some()
    }

    /// Whether the block was passed to its handle of this age, and has been in no message and not
    /// free since. Only for the owner.
    pub(crate) fn was_passed_to(&self, age: u64) -> bool {
        // Relaxed: ordered by the word. No block has such a number, and what a child returns
        // neither.
        self.carrier[0].load(Ordering::Relaxed) == !age
    }

    /// Shows a built block to its holders.
    pub(crate) fn share(&self, owned: BlockWord) -> bool {
        self.advance(owned, owned.with(State::Shared))
    }

    /// Makes an owned block part of the message in a slot. Before that message is published; the
    /// claim of the slot keeps it there.
    pub(crate) fn carry(&self, owned: BlockWord, carrier: Carrier) -> Option<BlockWord> {
        let Carrier { block, generation, position } = carrier;
        // Release: in this order, for the process that judges the block if this one is killed here.
        // It does so after the kernel has said that this one is dead, and sees what it has stored.
        self.carrier[2].store(NOWHERE, Ordering::Release);
        self.carrier[0].store(block, Ordering::Release);
        self.carrier[1].store(generation.into(), Ordering::Release);
        self.carrier[2].store(!position, Ordering::Release);
        let carried = owned.next_generation().with(State::Carried);
        self.advance(owned, carried).then_some(carried)
    }

    /// Puts a block back into its message, from which a process took it that is dead.
    pub(crate) fn put_back(&self, owned: BlockWord) -> bool {
        self.advance(owned, owned.with(State::Carried))
    }

    /// The slot that carries a block, or from which it was taken, if the word that was read before
    /// this is still the same after it. `None` if it is in no slot.
    pub(crate) fn carrier(&self) -> Option<Carrier> {
        // Relaxed: ordered by the word.
        let [block, generation, position] =
            [0, 1, 2].map(|index: usize| self.carrier[index].load(Ordering::Relaxed));
        if position == NOWHERE {
            return None;
        }
        Some(Carrier { block, generation: u32::try_from(generation).ok()?, position: !position })
    }

    /// Whether the block is part of the message in this slot, in this generation.
    pub(crate) fn is_carried(&self, generation: u32, carrier: Carrier) -> bool {
        let word = self.load();
        word.state() == State::Carried
            && word.generation() == generation
            && self.carrier() == Some(carrier)
    }

    /// Gives an owned block back. Nothing in it may be used after this.
    pub(crate) fn free(&self, owned: BlockWord) -> bool {
        self.forget_carrier();
        self.advance(owned, owned.next_generation())
    }

    /// Gives an owned block back, and keeps it at hand for its owner. Gives the new generation.
    #[inline]
    pub(crate) fn set_aside(&self, owned: BlockWord) -> Option<u32> {
        self.forget_carrier();
        let cached = owned.kept();
        // No swap: nobody else changes the word of a block that a living process owns. If somebody
        // has written over it, the block is lost, as elsewhere.
        let is_owned = self.load() == owned;
        if is_owned {
            // Release pairs with the Acquire in `load` and in `advance`: whoever takes the block
            // sees it as it was left.
            self.word.store(cached.0, Ordering::Release);
        }
        is_owned.then_some(cached.generation())
    }

    /// Takes a block again that `keeper` has set aside, if it is still there in this generation.
    #[inline]
    pub(crate) fn take_again(&self, generation: u32, keeper: u32) -> Option<BlockWord> {
        let cached = BlockWord(u64::from(generation) << GENERATION_SHIFT);
        self.own(cached.with(State::Cached(keeper)), keeper)
    }

    /// For the owner, before the block is anybody's: its next owner has taken it from no message,
    /// and got it from no parent.
    #[inline]
    fn forget_carrier(&self) {
        // Published by the word. In this order, as in `carry`.
        self.carrier[2].store(NOWHERE, Ordering::Release);
        self.carrier[0].store(0, Ordering::Release);
    }

    /// Counts an attachment, so that nobody frees the block after an earlier look; false if it is
    /// not this block any more.
    ///
    /// The bit of the process that attaches must be set before.
    pub(crate) fn count_attachment(&self, generation: u32) -> bool {
        loop {
            let word = self.load();
            if word.state() != State::Shared || word.generation() != generation {
                return false;
            }
            if self.advance(word, word.next_version()) {
                return true;
            }
        }
    }

    #[inline]
    fn advance(&self, from: BlockWord, to: BlockWord) -> bool {
        // AcqRel: the winner sees everything done to the block in its last state and publishes what
        // it did itself. SeqCst on success: a process that frees a block has cleared its bit before
        // and looks at all bits after; if two do so at once, they must not both see the other's
        // bit. Pairs with the SeqCst operations of `Holders`.
        self.word.compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    #[inline]
    pub(crate) fn kind(&self) -> u64 {
        // Relaxed: ordered by the word.
        self.kind.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn len(&self) -> u64 {
        // Acquire pairs with the Release in `describe`. Else ordered by the word.
        self.len.load(Ordering::Acquire)
    }

    /// Number of pages from the start of the block that are backed. A wrong number is taken for 0.
    #[inline]
    pub(crate) fn pages(&self) -> u64 {
        // Relaxed: only the owner asks.
        once(self.pages.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Takes note of that number. Only for the owner: after pages were backed, and before they are
    /// given back.
    pub(crate) fn set_pages(&self, pages: u64) {
        self.pages.store(twice(pages), Ordering::Relaxed);
    }

    /// Whether a flight may hold the block. Asked after its holders: see `flight`.
    pub(crate) fn may_fly(&self) -> bool {
        // Acquire pairs with the Release in `mark`.
        self.marks.load(Ordering::Acquire) & MAY_FLY != 0
    }

    /// Says that a flight may hold this shared block, for as long as it lives. For a holder, before
    /// the flight holds it.
    pub(crate) fn let_fly(&self) {
        self.mark(MAY_FLY);
    }

    /// Whether the block is a flight, in any state.
    #[inline]
    pub(crate) fn is_flight(&self) -> bool {
        // Acquire pairs with the Release in `mark`: a process that sees a flight sees its list.
        self.marks.load(Ordering::Acquire) & IS_FLIGHT != 0
    }

    /// Makes an owned block a flight, after its list was written.
    pub(crate) fn make_flight(&self) {
        self.mark(IS_FLIGHT);
    }

    fn mark(&self, mark: u64) {
        // Several holders may do the same. Release pairs with the Acquire of those who look.
        self.marks.fetch_or(mark, Ordering::Release);
    }

    /// Whether the bytes of the block are charged. Without the mark they may be, too: its owner was
    /// killed in between.
    #[inline]
    pub(crate) fn is_charged(&self) -> bool {
        // Relaxed: only the owner asks.
        self.marks.load(Ordering::Relaxed) & IS_CHARGED != 0
    }

    /// Says that its bytes are charged, and takes the other marks away. Only for the owner.
    #[inline]
    pub(crate) fn mark_charged(&self) {
        // Relaxed: published by the word.
        self.marks.store(IS_CHARGED, Ordering::Relaxed);
    }

    /// Takes the marks away. Only for the owner, before the block is free.
    #[inline]
    pub(crate) fn unmark(&self) {
        // Relaxed: published by the word.
        self.marks.store(0, Ordering::Relaxed);
    }

    /// Describes the contents. Only for the owner.
    #[inline]
    pub(crate) fn describe(&self, kind: u64, len: u64) {
        // Relaxed: published by `share`.
        self.kind.store(kind, Ordering::Relaxed);
        // Release pairs with the Acquire in `len`: whoever counts the bytes of a block that is
        // being freed, and finds none, sees that they are charged no more.
        self.len.store(len, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_every_field() {
        let word = BlockWord(u64::MAX);
        for state in [
            State::Free,
            State::Owned(1023),
            State::Owned(OWNER_MASK as u32),
            State::Shared,
            State::Carried,
            State::Cached(1023),
        ] {
            assert_eq!(word.with(state).state(), state);
            assert_eq!(word.with(state).generation(), (1 << GENERATION_BITS) - 1);
        }
    }

    #[test]
    fn an_owned_block_is_kept_by_its_owner_in_the_next_generation() {
        for owner in [0, 1023, OWNER_MASK as u32] {
            for word in [BlockWord(0), BlockWord(7 << GENERATION_SHIFT), BlockWord(u64::MAX)] {
                let owned = word.with(State::Owned(owner));
                assert_eq!(owned.kept(), word.next_generation().with(State::Cached(owner)));
            }
        }
    }

    #[test]
    fn an_attachment_changes_the_word_and_neither_state_nor_generation() {
        let mut word = BlockWord(0).next_generation().with(State::Shared);
        for _ in 0..5000 {
            let next = word.next_version();
            assert_ne!(next, word);
            assert_eq!((next.state(), next.generation()), (State::Shared, 1));
            word = next;
        }
        let last = BlockWord(word.0 | VERSION_MASK);
        assert_eq!(
            (last.next_version().state(), last.next_version().generation()),
            (State::Shared, 1)
        );
    }

    #[test]
    fn a_result_names_its_parent_and_its_child() {
        let parent = PeerId::new(1023, u32::MAX);
        let carrier = Carrier::of_result(parent, PeerId::new(1023, u32::MAX));
        assert_eq!(carrier.receiver(), Some(parent));
        assert_ne!(!carrier.position, NOWHERE);
        for other in [PeerId::new(1022, u32::MAX), PeerId::new(1023, 5)] {
            assert_ne!(Carrier::of_result(parent, other), carrier);
            assert_ne!(Carrier::of_result(other, parent), carrier);
        }
        // A bit of an index is not taken for one of a generation.
        for bit in 0..10 {
            let [by_index, by_generation] = [PeerId::new(1 << bit, 0), PeerId::new(0, 1)]
                .map(|child| Carrier::of_result(parent, child));
            assert_ne!(by_index, by_generation, "{bit}");
        }
        let slot = Carrier { block: 7, generation: 0, position: 0 };
        assert_eq!(slot.receiver(), None);
    }

    #[test]
    fn a_number_that_was_written_over_is_none() {
        for number in [0, 1, 77, u64::from(u32::MAX)] {
            assert_eq!(once(twice(number)), Some(number));
        }
        for word in [1, u64::MAX, twice(7) ^ 1, twice(7) ^ 1 << 63] {
            assert_eq!(once(word), None, "{word:#x}");
        }
    }

    #[test]
    fn a_fresh_block_is_free_and_a_freed_one_has_another_generation() {
        let word = BlockWord(0);
        assert_eq!((word.state(), word.generation()), (State::Free, 0));
        let freed = word.with(State::Shared).next_version().with(State::Owned(3)).next_generation();
        assert_eq!((freed.state(), freed.generation()), (State::Free, 1));
    }
}
