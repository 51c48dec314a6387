//! Where in the heap a peer may have left something: one bit per *card*, as in the card tables of
//! garbage collectors.
//!
//! A card stands for some blocks; which ones, the [heap](crate::heap::cards) knows. A bit is set
//! before the peer can leave anything in one of these blocks, and is never taken away as long as
//! the peer has its entry. So a bit too many costs a look at some blocks. One that is missing,
//! because somebody has written over the words, leaves blocks in use, and does no other harm.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0    24  bits 0..191: the cards; bit 191: everywhere
//! ```
//! *Everywhere* says that the blocks of a message may be stranded of which no card is known.
//!
//! # Orderings
//! The bits are Relaxed. A bit is set before the swap of the block's word that it is for, and that
//! swap is a release. A process that clears up after the peer reads the bits after the kernel has
//! said that the peer is dead, and sees what the peer has stored.
//!
//! # Peer death
//! The bits say where to look. They are reset by the next process that gets the entry, so whoever
//! is killed while it clears up leaves them to the next one. Killed before the reset: some bits are
//! set that need not be.
//!
//! # Source
//! Card marking: Wilson and Moher, "Design of the Opportunistic Garbage Collector" (1989). Here the
//! writer is not a mutator, but a process, and the collector is whoever clears up after it.

use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::CARDS;

const WORDS: usize = 3;
/// The last bit.
const EVERYWHERE: u32 = CARDS;

const _: () = assert!(CARDS + 1 == WORDS as u32 * u64::BITS);

/// The bits, in the peer's entry; and, for flights, in the heap's words.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Footprint {
    words: [AtomicU64; WORDS],
}

impl Footprint {
    /// Says that the peer may leave something in a block of this card.
    #[inline]
    pub(crate) fn mark(&self, card: u32) {
        if let Some(word) = self.words.get((card / u64::BITS) as usize) {
            let bit = 1 << (card % u64::BITS);
            // Relaxed: see the module. The load spares the others the cache line.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Says that messages may be stranded of which no card is known.
    pub(crate) fn mark_everywhere(&self) {
        self.mark(EVERYWHERE);
    }

    /// Takes all bits away. Only for the process that has just got the entry.
    pub(super) fn reset(&self) {
        // Release pairs with the fence in `Table::cards_left_by`: a process that sees this sees
        // that the entry was claimed.
        for word in self.words.iter().filter(|word| word.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Release);
        }
    }

    /// The bits as they are.
    pub(crate) fn cards(&self) -> Cards {
        Cards(self.words.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

/// A set of cards, in private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cards([u64; WORDS]);

impl Cards {
    /// All of them, and everywhere.
    pub(crate) const ALL: Cards = Cards([u64::MAX; WORDS]);

    /// Whether the card is one of them.
    pub(crate) fn contains(&self, card: u32) -> bool {
        let word = self.0.get((card / u64::BITS) as usize);
        word.is_some_and(|word| word & 1 << (card % u64::BITS) != 0)
    }

    /// Whether messages may be stranded of which no card is known.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.contains(EVERYWHERE)
    }

    /// Whether no card is among them.
    pub(crate) fn is_empty(&self) -> bool {
        (0..CARDS).all(|card| !self.contains(card))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_card_has_a_bit_of_its_own() {
        let footprint = Footprint { words: std::array::from_fn(|_| AtomicU64::new(0)) };
        let marked = || (0..CARDS).filter(|&card| footprint.cards().contains(card));
        assert!(footprint.cards().is_empty());
        for card in [0, 63, 64, 127, 128, CARDS - 1] {
            footprint.mark(card);
            footprint.mark(card);
        }
        assert_eq!(marked().collect::<Vec<_>>(), [0, 63, 64, 127, 128, CARDS - 1]);
        assert!(!footprint.cards().is_everywhere());
        footprint.reset();
        footprint.mark_everywhere();
        assert!(footprint.cards().is_everywhere() && footprint.cards().is_empty());
        footprint.mark(CARDS + 1);
        assert!(footprint.cards().is_empty(), "there is no such card");
        assert!(Cards::ALL.is_everywhere() && Cards::ALL.contains(CARDS - 1));
    }
}
