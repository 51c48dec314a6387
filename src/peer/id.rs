//! The name of a peer: index in the table and generation of the entry.

use crate::segment::layout::PEERS;

/// Bits of an index in claim words. The table is far smaller; the words have the room.
pub(crate) const INDEX_BITS: u32 = 20;
/// Bits of the generation of an entry.
pub(crate) const GENERATION_BITS: u32 = 20;

const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
/// Set in the bits of every id, so that 0 means nobody.
const SOMEBODY_BIT: u64 = 1 << 63;

const _: () = assert!(PEERS as u64 <= INDEX_MASK);

/// One attached process. The index alone stands in claim words: it is given away again only after every word with it was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerId {
    index: u32,
    generation: u32,
}

impl PeerId {
    pub(crate) fn new(index: u32, generation: u32) -> PeerId {
        PeerId { index: index & INDEX_MASK as u32, generation: generation & GENERATION_MASK as u32 }
    }

    /// Index of the entry in the peer table.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// How often the entry was given away before.
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }

    /// As one word that is never 0.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        SOMEBODY_BIT | u64::from(self.generation) << INDEX_BITS | u64::from(self.index)
    }

    /// The inverse of [`PeerId::to_bits`]; `None` for 0.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<PeerId> {
        (bits & SOMEBODY_BIT != 0)
            .then_some(PeerId { index: (bits & INDEX_MASK) as u32, generation: (bits >> INDEX_BITS & GENERATION_MASK) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_back() {
        for (index, generation) in [(0, 0), (1, 0), (0, 1), (1023, 0xf_ffff)] {
            let id = PeerId::new(index, generation);
            assert_eq!(PeerId::from_bits(id.to_bits()), Some(id));
            assert_ne!(id.to_bits(), 0);
        }
        assert_eq!(PeerId::from_bits(0), None);
    }
}
