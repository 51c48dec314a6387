//! Where everything lies: a table of a few peers, one class of a few blocks.

use crate::world::ARENA;

/// Peers that a holder's bit can name: one word of them.
pub(crate) const PEERS: usize = 64;
pub(crate) const PEER_SIZE: u64 = 64;
pub(crate) const BLOCK_HEADER_SIZE: u64 = 64 + 8;
/// Each block has a card of its own.
pub(crate) const BLOCKS_PER_CARD: u64 = 1;
pub(crate) const CARDS: u32 = 191;
pub(crate) const HEAP_WORDS_SIZE: u64 = 64;
pub(crate) const CLASS_WORDS_SIZE: u64 = 64;
pub(crate) const LARGEST_BUDGET: u64 = 1 << 40;

/// Offset of words that a model lays out as it likes.
pub(crate) const FREE_WORDS: u64 = 0;
/// Offset of an object that a model builds without the heap.
pub(crate) const OBJECT: u64 = 1024;
const TABLE: u64 = 4096;
const HEAP: u64 = TABLE + PEERS as u64 * PEER_SIZE;
const CLASSES: u64 = HEAP + HEAP_WORDS_SIZE;
pub(crate) const HEADERS: u64 = CLASSES + CLASS_WORDS_SIZE;
pub(crate) const BLOCKS: u64 = HEAP + 2048;
/// Bytes of a block.
pub(crate) const BLOCK: u64 = 1280;
/// Blocks that there is room for.
const MOST_BLOCKS: u64 = 4;

const _: () = assert!(BLOCKS + MOST_BLOCKS * BLOCK <= ARENA as u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) block_size: u64,
    pub(crate) blocks: u64,
    pub(crate) headers: u64,
    pub(crate) base: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) piece: u32,
    pub(crate) pieces: u32,
}

/// Groups of several lengths, of which none that has three pieces fits behind two small ones.
pub(crate) const GROUPS: [Group; 4] = [
    Group { piece: 1, pieces: 1 },
    Group { piece: 2, pieces: 3 },
    Group { piece: 5, pieces: 1 },
    Group { piece: 6, pieces: 2 },
];
/// A piece has 16 bytes.
const PIECE_SHIFT: u32 = 4;
/// Pieces of an area.
const AREA: u32 = 4;
/// Entries of the log of groups that get pages at a time.
pub(crate) const LOG_STEP: u64 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    class: Class,
    /// Entries of the peer table that there are.
    pub(crate) entries: usize,
}

impl Layout {
    pub(crate) fn new(blocks: u64, entries: usize) -> Layout {
        assert!(blocks <= MOST_BLOCKS && entries <= PEERS);
        Layout {
            class: Class { block_size: BLOCK, blocks, headers: HEADERS, base: BLOCKS },
            entries,
        }
    }

    pub(crate) fn budget(&self) -> u64 {
        self.class.blocks * BLOCK
    }

    pub(crate) fn peers(&self) -> u64 {
        TABLE
    }

    pub(crate) fn heap_words(&self) -> u64 {
        HEAP
    }

    pub(crate) fn class_words(&self, index: usize) -> u64 {
        CLASSES + index as u64 * CLASS_WORDS_SIZE
    }

    /// For unit tests in the crate's files, which do not run here.
    pub(crate) fn for_budget(_budget: u64) -> Option<Layout> {
        Some(Layout::new(0, 0))
    }

    pub(crate) fn pieces(&self) -> u32 {
        GROUPS.iter().map(|group| group.piece + group.pieces).max().unwrap_or(0)
    }

    pub(crate) fn fixed_pieces(&self) -> u32 {
        1
    }

    pub(crate) fn groups(&self) -> u64 {
        GROUPS.len() as u64
    }

    pub(crate) fn piece_shift(&self) -> u32 {
        PIECE_SHIFT
    }

    pub(crate) fn bytes_of(&self, pieces: u32) -> u64 {
        u64::from(pieces) << PIECE_SHIFT
    }

    pub(crate) fn first_len(&self) -> u64 {
        self.bytes_of(self.fixed_pieces())
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes_of(self.pieces())
    }

    pub(crate) fn area_pieces(&self) -> u32 {
        AREA
    }

    pub(crate) fn area(&self) -> u64 {
        self.bytes_of(AREA)
    }

    pub(crate) fn group(&self, offset: u64) -> Option<Group> {
        let piece = (offset >> PIECE_SHIFT) as u32;
        let has = |group: &&Group| (group.piece..group.piece + group.pieces).contains(&piece);
        GROUPS.iter().find(has).copied()
    }

    /// As in the crate: within an area.
    pub(crate) fn place(&self, end: u32, pieces: u32) -> Option<u32> {
        let fits = end / AREA == (end + pieces - 1) / AREA;
        Some(if fits { end } else { end.next_multiple_of(AREA) })
    }

    pub(crate) fn classes(&self) -> &[Class] {
        std::slice::from_ref(&self.class)
    }
}
