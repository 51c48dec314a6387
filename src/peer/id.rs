//! The id of a peer: index in the table and generation of the entry.

use std::num::NonZeroU64;

use crate::claim::OWNER_BITS;
use crate::segment::layout::PEERS;

/// Bits of an index in a `PeerId`. The table is far smaller, but the word has room.
const INDEX_BITS: u32 = 20;
/// Bits of the generation of an entry: as many as fit into the entry's word. It wraps after 2^28
/// processes.
pub(crate) const GENERATION_BITS: u32 = 28;

const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
/// Set in every id, so that 0 means no peer.
const PRESENT_BIT: NonZeroU64 = NonZeroU64::new(1 << 63).unwrap();
/// In its place in the id of a process that can only read the segment.
const READER_BIT: NonZeroU64 = NonZeroU64::new(1 << 62).unwrap();

/// Bits of the index in an owner name; the rest are the low bits of the generation.
const OWNER_INDEX_BITS: u32 = 10;
const OWNER_INDEX_MASK: u32 = (1 << OWNER_INDEX_BITS) - 1;
const OWNER_GENERATION_MASK: u32 = (1 << (OWNER_BITS - OWNER_INDEX_BITS)) - 1;

const _: () = assert!(PEERS <= 1 << OWNER_INDEX_BITS);

/// One attached process.
///
/// Claim words name it by [`owner`](PeerId::owner). An index is reused only after every word with
/// it was cleared, so the index alone identifies the peer. The generation beside it ensures that a
/// word which a process judged long ago does not come back soon; [`claim`](crate::claim) says how
/// long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerId(NonZeroU64);

impl PeerId {
    pub(crate) fn new(index: u32, generation: u32) -> PeerId {
        PeerId(
            PRESENT_BIT
                | (u64::from(generation) & GENERATION_MASK) << INDEX_BITS
                | u64::from(index) & INDEX_MASK,
        )
    }

    /// Index of the entry in the peer table.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        (self.0.get() & INDEX_MASK) as u32
    }

    /// How often the entry was used before.
    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0.get() >> INDEX_BITS & GENERATION_MASK) as u32
    }

    /// The name of this peer in claim words.
    #[inline]
    pub(crate) fn owner(self) -> u32 {
        (self.generation() & OWNER_GENERATION_MASK) << OWNER_INDEX_BITS
            | self.index() & OWNER_INDEX_MASK
    }

    /// The id under which this process, which can only read the segment, looks at it. Its bits are
    /// no peer's, so [`PeerId::from_bits`] gives nothing, and nobody takes it for one that may
    /// write.
    pub(crate) fn as_reader(self) -> PeerId {
        PeerId(READER_BIT | self.0.get() & !PRESENT_BIT.get())
    }

    /// The inverse of [`PeerId::to_bits`] for the id of a reader.
    pub(crate) fn reader_from_bits(bits: u64) -> Option<PeerId> {
        // A peer's bits have the other bit, and become those of neither.
        PeerId::from_bits(bits ^ (READER_BIT.get() | PRESENT_BIT.get())).map(PeerId::as_reader)
    }

    /// As one word that is never 0.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The inverse of [`PeerId::to_bits`]; `None` for 0, and for bits that no peer has. To drop
    /// those would name a peer whose bits are not in the word: no swap from them would ever
    /// succeed.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<PeerId> {
        let all = PRESENT_BIT.get() | GENERATION_MASK << INDEX_BITS | INDEX_MASK;
        NonZeroU64::new(bits)
            .filter(|_| bits & PRESENT_BIT.get() != 0 && bits & !all == 0)
            .map(PeerId)
    }
}

/// Index in the peer table of the owner that a claim word names.
pub(crate) fn index_of(owner: u32) -> u32 {
    owner & OWNER_INDEX_MASK
}

/// Whether a peer with this generation is the one that a claim word names, if the index is the
/// same.
pub(crate) fn is_of_generation(owner: u32, generation: u32) -> bool {
    owner >> OWNER_INDEX_BITS == generation & OWNER_GENERATION_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_on_an_index_has_another_name() {
        let (first, second) = (PeerId::new(1023, 5), PeerId::new(1023, 6));
        assert_ne!(first.owner(), second.owner());
        assert_eq!((index_of(first.owner()), index_of(second.owner())), (1023, 1023));
        assert!(is_of_generation(first.owner(), 5) && !is_of_generation(first.owner(), 6));
        assert!(u64::from(PeerId::new(1023, u32::MAX).owner()) < 1 << OWNER_BITS);
    }

    #[test]
    fn a_reader_is_no_peer() {
        for id in [PeerId::new(0, 0), PeerId::new(1023, (1 << GENERATION_BITS) - 1)] {
            let reader = id.as_reader();
            assert_eq!(PeerId::from_bits(reader.to_bits()), None);
            assert_eq!(PeerId::reader_from_bits(reader.to_bits()), Some(reader));
            assert_eq!((reader.index(), reader.owner()), (id.index(), id.owner()));
            assert_eq!(PeerId::reader_from_bits(id.to_bits()), None);
            assert_eq!(PeerId::reader_from_bits(reader.to_bits() | PRESENT_BIT.get()), None);
        }
        assert_eq!(PeerId::reader_from_bits(0), None);
        assert_eq!(PeerId::reader_from_bits(u64::MAX), None);
    }

    #[test]
    fn bits_and_back() {
        for (index, generation) in [(0, 0), (1, 0), (0, 1), (1023, (1 << GENERATION_BITS) - 1)] {
            let id = PeerId::new(index, generation);
            assert_eq!(PeerId::from_bits(id.to_bits()), Some(id));
            // A waiter once tried for ever to take a role from a word with such a bit.
            assert_eq!(PeerId::from_bits(id.to_bits() | 1 << 60), None);
            assert_ne!(id.to_bits(), 0);
        }
        assert_eq!(PeerId::from_bits(0), None);
    }

    #[test]
    fn a_word_without_the_mark_names_nobody() {
        for bits in [1, 1023, !PRESENT_BIT.get()] {
            assert_eq!(PeerId::from_bits(bits), None, "{bits:x}");
        }
    }
}
