//! Where everything lies in a segment. It is computed from the budget alone, so none of it is read
//! from shared memory.
//!
//! # Layout
//! ```text
//!          0  header                     one page, see `header`
//!       4096  peer table                 PEERS entries of 64 bytes
//!             heap words                 64 bytes
//!             class words                64 bytes per size class
//!             class 0: block headers     192 bytes per block, rounded up to pages
//!             class 0: blocks            size of the class per block
//!             class 1: ...
//! ```
//! Each size class has address space for the whole budget, so a block is never split or merged; the
//! file is sparse, and only blocks that are in use take memory. The size of the file is therefore
//! many times the budget and says nothing about memory in use.

use crate::segment::pod::Fnv;

/// Bytes that the header takes in the segment.
pub(crate) const HEADER_SIZE: u64 = 4096;
/// Processes that can be attached to a segment at a time.
pub(crate) const PEERS: usize = 1024;
/// Bytes of an entry of the peer table.
pub(crate) const PEER_SIZE: u64 = 64;
/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER_SIZE: u64 = 192;
/// Blocks of a class, one after the other, that have the same card in the footprints of peers: as
/// many headers as get pages at a time.
pub(crate) const BLOCKS_PER_CARD: u64 = 64;
/// Cards in the footprint of a peer. A prime number, so that no regular pattern of blocks has only
/// a few of them.
pub(crate) const CARDS: u32 = 191;
/// Bytes of the words that describe the heap as a whole.
pub(crate) const HEAP_WORDS_SIZE: u64 = 64;
/// Bytes of the words that describe one size class.
pub(crate) const CLASS_WORDS_SIZE: u64 = 64;
/// Size of the smallest block in bytes.
pub(crate) const SMALLEST_BLOCK: u64 = 256;
/// There are two classes per doubling up to this size, and one beyond it, because only the used
/// part of a large block takes memory.
const FINE_UP_TO: u64 = 4096;
/// Ranges begin on multiples of this, the largest page size of the supported machines (64 KiB on
/// some aarch64).
const PAGE: u64 = 1 << 16;
/// The largest budget: its layout still fits a 47-bit address space.
pub(crate) const LARGEST_BUDGET: u64 = 1 << 40;
/// Largest number of blocks in a class: an index has 32 bits.
const MOST_BLOCKS: u64 = u32::MAX as u64;

/// One size class: where its block headers and its blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Bytes of a block; a multiple of 128.
    pub(crate) block_size: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Offset of the first block header.
    pub(crate) headers: u64,
    /// Offset of the first block.
    pub(crate) base: u64,
}

/// Where everything lies in a segment of some budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    budget: u64,
    size: u64,
    heap_words: u64,
    class_words: u64,
    classes: Vec<Class>,
}

impl Layout {
    /// The layout for `budget` bytes of objects; `None` if that is zero or beyond
    /// [`LARGEST_BUDGET`].
    pub(crate) fn for_budget(budget: u64) -> Option<Layout> {
        if budget == 0 || budget > LARGEST_BUDGET {
            return None;
        }
        let heap_words = HEADER_SIZE + PEERS as u64 * PEER_SIZE;
        let class_words = heap_words + HEAP_WORDS_SIZE;
        let sizes = class_sizes(budget);
        let mut end = (class_words + sizes.len() as u64 * CLASS_WORDS_SIZE).next_multiple_of(PAGE);
        let mut classes = Vec::with_capacity(sizes.len());
        for block_size in sizes {
            let blocks = (budget / block_size).clamp(1, MOST_BLOCKS);
            let headers = end;
            let base = (headers + blocks * BLOCK_HEADER_SIZE).next_multiple_of(PAGE);
            end = (base + blocks * block_size).next_multiple_of(PAGE);
            classes.push(Class { block_size, blocks, headers, base });
        }
        Some(Layout { budget, size: end, heap_words, class_words, classes })
    }

    /// Bytes of objects that the segment may hold.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes of the whole segment.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Offset of the peer table.
    pub(crate) fn peers(&self) -> u64 {
        HEADER_SIZE
    }

    /// Offset of the words that describe the heap.
    pub(crate) fn heap_words(&self) -> u64 {
        self.heap_words
    }

    /// Offset of the words that describe class `index`.
    pub(crate) fn class_words(&self, index: usize) -> u64 {
        self.class_words + index as u64 * CLASS_WORDS_SIZE
    }

    /// The size classes, smallest first.
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Length in bytes of the part at the start that every segment uses from the beginning.
    pub(crate) fn fixed_part(&self) -> u64 {
        self.class_words(self.classes.len())
    }

    /// Hash over every number of this layout. Builds that disagree about any of them must not share
    /// a segment.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::new();
        let mut put = |number: u64| hash.write(&number.to_le_bytes());
        put(PEERS as u64);
        put(PEER_SIZE);
        put(BLOCK_HEADER_SIZE);
        put(BLOCKS_PER_CARD);
        put(CARDS.into());
        put(self.heap_words);
        put(self.class_words);
        put(self.size);
        for class in &self.classes {
            put(class.block_size);
            put(class.blocks);
            put(class.headers);
            put(class.base);
        }
        hash.finish()
    }
}

/// Sizes from the smallest block up to the first that holds the whole budget.
fn class_sizes(budget: u64) -> Vec<u64> {
    let mut sizes = Vec::new();
    let mut power = SMALLEST_BLOCK;
    loop {
        sizes.push(power);
        if power >= budget {
            return sizes;
        }
        if power < FINE_UP_TO {
            sizes.push(power + power / 2);
        }
        power *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_lie_within_the_segment() {
        for budget in [
            1,
            255,
            256,
            257,
            4096,
            65_536,
            1 << 20,
            (1 << 20) + 1,
            3_000_000_000,
            1 << 33,
            LARGEST_BUDGET,
        ] {
            let layout = Layout::for_budget(budget).expect("a layout");
            let mut end = layout.fixed_part();
            for class in layout.classes() {
                assert!(class.headers >= end);
                assert!(class.base >= class.headers + class.blocks * BLOCK_HEADER_SIZE);
                assert_eq!(class.base % 4096, 0);
                assert_eq!(class.block_size % 128, 0);
                end = class.base + class.blocks * class.block_size;
            }
            assert!(end <= layout.size());
            let largest = layout.classes().last().expect("a class");
            assert!(largest.block_size >= budget, "one object may take the whole budget");
        }
    }

    #[test]
    fn sizes_grow_and_the_largest_layout_fits_the_address_space() {
        let layout = Layout::for_budget(LARGEST_BUDGET).expect("a layout");
        assert!(layout.classes().windows(2).all(|pair| pair[0].block_size < pair[1].block_size));
        assert!(layout.size() < 1 << 47, "{} bytes", layout.size());
    }

    #[test]
    fn absurd_budgets_have_no_layout() {
        assert_eq!(Layout::for_budget(0), None);
        assert_eq!(Layout::for_budget(LARGEST_BUDGET + 1), None);
        assert_eq!(Layout::for_budget(1 << 63), None);
        assert_eq!(Layout::for_budget(u64::MAX), None);
    }

    #[test]
    fn fingerprints_of_different_budgets_differ() {
        let fingerprint = |budget| Layout::for_budget(budget).expect("a layout").fingerprint();
        assert_eq!(fingerprint(1 << 20), fingerprint(1 << 20));
        assert_ne!(fingerprint(1 << 20), fingerprint(1 << 21));
    }

    /// Whoever changes a number of the layout raises the format version, and changes this, too. A
    /// creator and an opener of one build change together, so no other test would notice.
    #[test]
    fn the_layout_is_that_of_its_format_version() {
        let layout = Layout::for_budget(1 << 20).expect("a layout");
        let words = layout.heap_words() + HEAP_WORDS_SIZE;
        assert_eq!(layout.heap_words(), 4096 + 1024 * 64);
        assert_eq!([0, 2].map(|class| layout.class_words(class)), [words, words + 2 * 64]);
        assert_eq!(layout.fixed_part(), words + 17 * 64);
        let sizes: Vec<u64> = layout.classes().iter().map(|class| class.block_size).collect();
        assert_eq!(sizes[..10], [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192]);
        assert_eq!((sizes.len(), layout.size()), (17, 21037056));
        assert_eq!(layout.fingerprint(), 0xe5cc_5b28_089e_aec3);
    }
}
