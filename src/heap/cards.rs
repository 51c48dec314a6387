//! Which blocks a process may have left something in, so that clearing up after it takes no look at
//! the blocks of others.
//!
//! 64 headers of a class in a row have the same *card*. A peer's entry has a bit for each card, its
//! [footprint](crate::peer::footprint). Whoever is about to do something to a block that would be
//! found at its death sets the bit of the block's card first. Mostly it is set, and that costs a
//! load.
//!
//! # What is left by a dead process, and who has set the bit
//! ```text
//! what a reaper must find                  set by            before
//! OWNED(p): claimed, or taken from a       p                 the swap to OWNED(p)
//!   message, a dead process or a
//!   stranded message, or no holder left
//! OWNED(p): given by its parent            the parent        the swap from OWNED(parent) to OWNED(p)
//! SHARED, bit of p; or the bit of p in     p; for a child    the bit
//!   what is no more SHARED                 its parent
//! SHARED, no holder: p was the last and    p                 p had the bit, or OWNED the block
//!   did not come to free it
//! SHARED, no holder: a flight held it      p, for each       p frees the flight
//!   that p has freed                       block in it
//! CARRIED, stranded: p was its sender      p                 p OWNED it
//! CARRIED, stranded: p was its receiver    p                 p releases the slot; that comes after p
//!   and has released the slot                                has found the block
//! CARRIED, stranded: a slot that p was     nobody: see       -
//!   reading was recovered                  everywhere
//! CARRIED, stranded: p was the last        p                 OWNED(p) of the queue, which the reaper
//!   holder of the queue, and was freeing                     finds and goes on to empty
//!   what was in it
//! CACHED(p): at hand for p               p                 p OWNED it
//! CARRIED by the entry of p, to which      the child         the swap to CARRIED; in the footprint
//!   a child returns it                                       of p
//! ```
//! A child that carries a block to an entry that is not its parent's any more has the block in its
//! own footprint, too; its parent is gone then, so its own reaper finds the block stranded.
//!
//! # Everywhere
//! A process that claims a slot for reading does not know yet what lies there. If it is killed
//! then, whoever recovers the slot strands a block of which only the dead sender had the card. So
//! before somebody takes a slot from a dead reader, in a queue that does not deliver again, it sets
//! the bit *everywhere* in the footprint of the dead ([`Pool::mark_everywhere`]); the reaper reads
//! it after it has recovered all slots, and then walks over all blocks. Killed before the recovery:
//! one walk too many. Killed after it: the bit is still there, and so is the entry. A waiter that
//! recovers a slot before the reaper comes sets the same bit first; if the reaper has been there
//! before, the waiter fails to take the slot.
//!
//! The same is done by a process, for itself, if it lets go of a queue with a message that it
//! forgot, or if it finds a wrong name in a message.
//!
//! # Flights
//! Whether a [flight](super::flight) holds a block is asked for each block that was ever in one and
//! is to be freed. So the segment has a footprint, too: the cards of all blocks that were ever a
//! flight. Flights are small and soon gone, so mostly the same few blocks are taken for them, and
//! a look at the flights does not grow with the number of other blocks. The bit is set before the
//! block gets its mark, and never taken away. Whoever looks for flights has seen that a hold has
//! ended which its owner gave up after it had made the flight, and so sees the bit as well.
//!
//! # The bits are not trusted
//! They only say where to look. What is found is judged by its own word, as ever. If a peer writes
//! over them, blocks stay in use, or a walk is longer; or an object in a message is freed, and its
//! receiver finds it gone.

#[cfg(test)]
use std::cell::Cell;

use crate::heap::block::{BlockHeader, BlockWord};
use crate::heap::pool::{BlockId, Pool};
use crate::peer::PeerId;
use crate::peer::footprint::{Cards, Footprint};
use crate::peer::id::index_of;
use crate::primitive::{Ordering, fence};
use crate::segment::layout::{BLOCKS_PER_CARD, CARDS};

/// Cards from the first one of a class to that of the next class, so that the first blocks of all
/// classes, which are used most, have different ones.
const BETWEEN_CLASSES: u64 = 16;

fn card_of(id: BlockId) -> u32 {
    card(id.class(), id.index() / BLOCKS_PER_CARD)
}

/// The card of the blocks of a class with these numbers: [`BLOCKS_PER_CARD`] from `group` times
/// that on.
fn card(class: u64, group: u64) -> u32 {
    ((class * BETWEEN_CLASSES + group) % u64::from(CARDS)) as u32
}

#[cfg(test)]
thread_local! {
    /// Headers that walks in this thread have visited.
    static VISITED: Cell<u64> = const { Cell::new(0) };
}

/// Headers that `act` has visited on its walks. Look-ups by name are not counted.
#[cfg(test)]
pub(crate) fn visited<R>(act: impl FnOnce() -> R) -> u64 {
    let before = VISITED.get();
    act();
    VISITED.get() - before
}

impl<'a> Pool<'a> {
    fn footprint(&self, peer: u32) -> Option<&'a Footprint> {
        self.peers()?.footprint(index_of(peer))
    }

    /// Says that `peer`, as claim words name it, may leave something in this block. Before it can.
    #[inline]
    pub(super) fn mark(&self, peer: u32, id: BlockId) {
        if let Some(footprint) = self.footprint(peer) {
            footprint.mark(card_of(id));
        }
    }

    /// Says that this block will be a flight. Before it is one.
    pub(super) fn mark_flight(&self, id: BlockId) {
        if let Some(words) = self.heap_words() {
            words.flights.mark(card_of(id));
        }
    }

    /// Where flights may lie.
    pub(super) fn cards_of_flights(&self) -> Cards {
        self.heap_words().map_or(Cards::ALL, |words| words.flights.cards())
    }

    /// Says that blocks may be stranded by `peer` that it does not know. Before they can.
    pub(crate) fn mark_everywhere(&self, peer: u32) {
        if let Some(footprint) = self.footprint(peer) {
            footprint.mark_everywhere();
        }
    }

    /// Where the peer may have left something.
    pub(crate) fn cards(&self, peer: PeerId) -> Cards {
        // After a slot that was found recovered: pairs with the release of that swap, before which
        // somebody may have marked everywhere.
        fence(Ordering::Acquire);
        self.footprint(peer.owner()).map_or(Cards::ALL, Footprint::cards)
    }

    /// Makes `owner` the owner of the block, if its word is still `from`.
    #[inline]
    pub(super) fn own(
        &self,
        id: BlockId,
        header: &BlockHeader,
        from: BlockWord,
        owner: u32,
    ) -> Option<BlockWord> {
        self.mark(owner, id);
        header.own(from, owner)
    }

    /// Visits the header of every block that was ever used.
    pub(super) fn walk(&self, visit: impl FnMut(BlockId, &'a BlockHeader)) {
        self.walk_on(Cards::ALL, visit);
    }

    /// Visits the header of every block with one of these cards that was ever used.
    pub(super) fn walk_on(&self, cards: Cards, mut visit: impl FnMut(BlockId, &'a BlockHeader)) {
        if cards.is_empty() {
            return;
        }
        for class in 0..self.classes() {
            // A class with a corrupt frontier is skipped: a walk over all the headers that it could
            // have would take gigabytes.
            let frontier = self.frontier(class).unwrap_or(0);
            let groups = frontier.div_ceil(BLOCKS_PER_CARD);
            // The groups of one card are as far apart as there are cards.
            for first in 0..groups.min(CARDS.into()) {
                if !cards.contains(card(class as u64, first)) {
                    continue;
                }
                for group in (first..groups).step_by(CARDS as usize) {
                    let start = group * BLOCKS_PER_CARD;
                    for index in start..(start + BLOCKS_PER_CARD).min(frontier) {
                        let id = BlockId::new(class as u8, index as u32);
                        if let Some(header) = self.header(id) {
                            #[cfg(test)]
                            VISITED.set(VISITED.get() + 1);
                            visit(id, header);
                        }
                    }
                }
            }
        }
    }
}
