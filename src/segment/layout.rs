//! Where everything lies in a segment. It is computed from the budget alone, so none of it is read
//! from shared memory.
//!
//! # Layout
//! ```text
//!          0  header                     one page, see `header`
//!       4096  peer table                 PEERS entries of 64 bytes
//!             heap words                 64 bytes
//!             class words                64 bytes per size class
//!             log of groups              8 bytes per group, see `extents`
//!             class 0: block headers     192 bytes per block, in groups
//!             class 0: blocks            size of the class per block, in groups
//!             class 1: ...
//! ```
//! Each size class has offsets for the whole budget, so a block is never split or merged. What
//! comes before the first class lies in the file at its offset. The rest is cut into *pieces* of
//! the same size, and these into *groups* of one or more pieces, so that no block header and no
//! block lies across the end of its group. A group gets its place in the file when it is first
//! used, behind all those that have one ([`extents`]). So the file is as long as what was ever
//! used, and a process has address space for little more than twice the budget, or 4 GiB at most.
//!
//! The file is cut into *areas*. A process maps each of them at a time, so no group lies across the
//! end of an area. One is enough for all groups of a budget of up to 100 MiB. In a larger segment
//! it is enough unless a program fills the budget again and again with objects of other sizes.
//!
//! [`extents`]: crate::segment::extents

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
const SMALLEST_BLOCK: u64 = 64;
/// There are two classes per doubling in this range. Below it blocks would not begin on a cache
/// line; beyond it only the used part of a block takes memory.
const FINE: core::ops::Range<u64> = 256..4096;
/// Areas begin on multiples of this, the largest page size of the supported machines (64 KiB on
/// some aarch64).
const PAGE: u64 = 1 << 16;
/// Sizes of a piece. The first group of block headers of the smallest one is what gets pages at a
/// time. A larger one makes the table of pieces shorter, which each process has, and wastes more
/// where a class has few blocks.
const PIECES: (u64, u64) = (1 << 12, 1 << 20);
/// The most pieces for each byte of the largest budgets, where pieces are larger than that.
const MOST_PIECES_PER_BUDGET: u64 = 1 << 16;
/// The largest budget: all areas of its layout still fit a 47-bit address space.
pub(crate) const LARGEST_BUDGET: u64 = 1 << 40;
/// An area has room for every group of the segment if that is no more than this: then no process
/// needs a second one, which the kernel might refuse.
const ROOMY: u64 = 4 << 30;
/// The most areas of a segment.
pub(crate) const MOST_AREAS: usize = 24;
/// Bytes of an entry of the log of groups.
pub(crate) const LOG_ENTRY_SIZE: u64 = 8;
/// Entries of the log of groups that get pages at a time.
pub(crate) const LOG_STEP: u64 = 512;
/// Largest number of blocks in a class: an index has 32 bits.
const MOST_BLOCKS: u64 = u32::MAX as u64;

/// One size class: where its block headers and its blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Bytes of a block: 64, or a multiple of 128.
    pub(crate) block_size: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Offset of the first block header.
    pub(crate) headers: u64,
    /// Offset of the first block.
    pub(crate) base: u64,
}

/// Pieces that have their place in the file together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first of them.
    pub(crate) piece: u32,
    pub(crate) pieces: u32,
}

/// Where everything lies in a segment of some budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    budget: u64,
    size: u64,
    heap_words: u64,
    class_words: u64,
    log: u64,
    groups: u64,
    /// Bytes of a piece are 2 to this power.
    piece_shift: u32,
    /// Pieces that lie in the file at their offset.
    fixed_pieces: u32,
    /// Pieces of an area of the file.
    area_pieces: u32,
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
        let log = class_words + sizes.len() as u64 * CLASS_WORDS_SIZE;
        let piece = piece_of(budget);
        let counts = |block_size: u64| (budget / block_size).clamp(1, MOST_BLOCKS);
        let ranges = |block_size| {
            let blocks = counts(block_size);
            [(blocks * BLOCK_HEADER_SIZE, BLOCK_HEADER_SIZE), (blocks * block_size, block_size)]
        };
        let groups = sizes.iter().flat_map(|&block_size| ranges(block_size));
        let groups: u64 =
            groups.map(|(len, unit)| len.div_ceil(group_of(unit, piece))).sum::<u64>();
        let fixed = (log + groups * LOG_ENTRY_SIZE).next_multiple_of(piece);
        let mut end = fixed;
        let mut classes = Vec::with_capacity(sizes.len());
        for &block_size in &sizes {
            let [headers, base] = ranges(block_size).map(|(len, unit)| {
                let start = end;
                end += len.next_multiple_of(group_of(unit, piece));
                start
            });
            classes.push(Class { block_size, blocks: counts(block_size), headers, base });
        }
        let largest = sizes.last().map_or(0, |&largest| group_of(largest, piece));
        let area = (fixed + 2 * largest).max(end.min(ROOMY));
        let area = area.next_multiple_of(piece.max(PAGE));
        Some(Layout {
            budget,
            size: end,
            heap_words,
            class_words,
            log,
            groups,
            piece_shift: piece.ilog2(),
            fixed_pieces: (fixed / piece) as u32,
            area_pieces: (area / piece) as u32,
            classes,
        })
    }

    /// Bytes of objects that the segment may hold.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// One more than the largest offset.
    #[cfg(test)]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a new file, in which no group has a place.
    pub(crate) fn first_len(&self) -> u64 {
        self.bytes_of(self.fixed_pieces)
    }

    /// Bytes of a file in which groups as long as the budget have a place.
    pub(crate) fn filled_len(&self) -> u64 {
        self.first_len() + self.budget
    }

    /// Bytes of an area of the file, which is what a process maps.
    pub(crate) fn area(&self) -> u64 {
        self.bytes_of(self.area_pieces)
    }

    /// Binary logarithm of the bytes of a piece.
    #[inline]
    pub(crate) fn piece_shift(&self) -> u32 {
        self.piece_shift
    }

    /// Number of pieces.
    pub(crate) fn pieces(&self) -> u32 {
        (self.size >> self.piece_shift) as u32
    }

    /// Bytes of so many pieces.
    pub(crate) fn bytes_of(&self, pieces: u32) -> u64 {
        u64::from(pieces) << self.piece_shift
    }

    /// Pieces that lie in the file at their offset. They are no group.
    pub(crate) fn fixed_pieces(&self) -> u32 {
        self.fixed_pieces
    }

    /// Pieces of an area of the file.
    pub(crate) fn area_pieces(&self) -> u32 {
        self.area_pieces
    }

    /// Number of groups.
    pub(crate) fn groups(&self) -> u64 {
        self.groups
    }

    /// Offset of the log of groups.
    pub(crate) fn log(&self) -> u64 {
        self.log
    }

    /// The group of an offset; `None` if it is in none.
    pub(crate) fn group(&self, offset: u64) -> Option<Group> {
        if offset >= self.size {
            return None;
        }
        // The last class that begins at or before it.
        let after = self.classes.partition_point(|class| class.headers <= offset);
        let class = self.classes.get(after.checked_sub(1)?)?;
        let (start, unit) = if offset < class.base {
            (class.headers, BLOCK_HEADER_SIZE)
        } else {
            (class.base, class.block_size)
        };
        let len = group_of(unit, 1 << self.piece_shift);
        let first = start + (offset - start) / len * len;
        let pieces = |bytes: u64| (bytes >> self.piece_shift) as u32;
        Some(Group { piece: pieces(first), pieces: pieces(len) })
    }

    /// The first pieces of the file from `end` on where a group of so many pieces may lie, within
    /// one area; `None` if there are no more areas.
    pub(crate) fn place(&self, end: u32, pieces: u32) -> Option<u32> {
        let last = end.checked_add(pieces)?.checked_sub(1)?;
        let start = if end / self.area_pieces == last / self.area_pieces {
            end
        } else {
            end.checked_next_multiple_of(self.area_pieces)?
        };
        let areas = start / self.area_pieces;
        (pieces <= self.area_pieces && (areas as usize) < MOST_AREAS).then_some(start)
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
        self.log + self.groups.min(LOG_STEP) * LOG_ENTRY_SIZE
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
        put(self.log);
        put(self.groups);
        put(self.piece_shift.into());
        put(self.area_pieces.into());
        put(LOG_STEP);
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

/// Bytes of a piece in a segment of this budget.
fn piece_of(budget: u64) -> u64 {
    let (least, most) = PIECES;
    let piece = (budget / 64).clamp(least, most).max(budget / MOST_PIECES_PER_BUDGET);
    1 << piece.ilog2()
}

/// Bytes of a group of headers or blocks of this size: whole ones, in whole pieces. Each size is a
/// power of two, or three times one.
fn group_of(unit: u64, piece: u64) -> u64 {
    if unit.is_power_of_two() { unit.max(piece) } else { unit.max(3 * piece) }
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
        if FINE.contains(&power) {
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
                assert!(class.block_size == 64 || class.block_size.is_multiple_of(128));
                end = class.base + class.blocks * class.block_size;
            }
            assert!(end <= layout.size());
            assert!(layout.fixed_part() <= layout.first_len());
            let largest = layout.classes().last().expect("a class");
            assert!(largest.block_size >= budget, "one object may take the whole budget");
        }
    }

    /// The budgets of the tests of groups: the last takes the most groups that are tried one by
    /// one.
    const BUDGETS: [u64; 8] = [1, 256, 4096, 65_536, 100_000, 1 << 20, 3_000_000, 1 << 28];

    fn groups(layout: &Layout) -> Vec<Group> {
        let next = |group: &Group| layout.group(layout.bytes_of(group.piece + group.pieces));
        std::iter::successors(layout.group(layout.first_len()), next).collect()
    }

    #[test]
    fn each_piece_is_in_one_group_and_no_header_or_block_in_two() {
        for layout in BUDGETS.map(|budget| Layout::for_budget(budget).expect("a layout")) {
            for offset in [0, layout.first_len() - 1, layout.size(), u64::MAX] {
                assert_eq!(layout.group(offset), None);
            }
            assert_eq!(groups(&layout).len() as u64, layout.groups());
            for group in groups(&layout) {
                let [start, end] =
                    [group.piece, group.piece + group.pieces].map(|piece| layout.bytes_of(piece));
                for offset in [start, end - 1] {
                    assert_eq!(layout.group(offset), Some(group));
                }
            }
            for class in layout.classes() {
                for index in (0..class.blocks).step_by(class.blocks.div_ceil(3000) as usize) {
                    let headers = class.headers + index * BLOCK_HEADER_SIZE;
                    let block = class.base + index * class.block_size;
                    for (start, len) in [(headers, BLOCK_HEADER_SIZE), (block, class.block_size)] {
                        assert!(layout.group(start).is_some());
                        assert_eq!(layout.group(start), layout.group(start + len - 1), "{class:?}");
                    }
                }
            }
        }
    }

    /// Whatever is used first, and even if everything is used once.
    #[test]
    fn all_groups_have_a_place_in_each_order() {
        for layout in BUDGETS.map(|budget| Layout::for_budget(budget).expect("a layout")) {
            let mut order = groups(&layout);
            let largest_first = |group: &Group| std::cmp::Reverse(group.pieces);
            for round in 0..3 {
                match round {
                    0 => {}
                    1 => order.reverse(),
                    _ => order.sort_by_key(largest_first),
                }
                let mut end = layout.fixed_pieces();
                for group in &order {
                    let start = layout.place(end, group.pieces).expect("a place");
                    assert!(start >= end);
                    end = start + group.pieces;
                    assert_eq!(start / layout.area_pieces(), (end - 1) / layout.area_pieces());
                }
            }
            // Small ones, and as soon as a large one does not fit any more, that.
            let mut end = layout.fixed_pieces();
            order.sort_by_key(|group| group.pieces);
            while let Some(largest) = order.last() {
                let room = layout.area_pieces() - end % layout.area_pieces();
                let group = if room < largest.pieces { order.len() - 1 } else { 0 };
                let group = order.remove(group);
                end = layout.place(end, group.pieces).expect("a place") + group.pieces;
            }
            let beyond = layout.area_pieces() * MOST_AREAS as u32;
            assert_eq!(layout.place(beyond - 1, 1), Some(beyond - 1));
            assert_eq!((layout.place(beyond, 1), layout.place(u32::MAX, 1)), (None, None));
        }
    }

    /// The reservation of a segment is near its budget.
    #[test]
    fn an_area_has_room_for_the_budget_twice_and_little_more_or_for_all_groups() {
        for shift in 16..=40 {
            let layout = Layout::for_budget(1 << shift).expect("a layout");
            let (area, budget) = (layout.area(), layout.budget());
            let least = 2 * budget + budget / 16;
            assert!(area >= 2 * budget && area <= least.max(ROOMY) + (1 << 18), "{shift}");
            assert!(area >= layout.size() || area >= ROOMY, "{shift}");
        }
        let layout = Layout::for_budget(100 << 20).expect("a layout");
        assert!(layout.area() >= layout.size());
    }

    #[test]
    fn sizes_grow_and_the_largest_layout_fits_the_address_space() {
        let layout = Layout::for_budget(LARGEST_BUDGET).expect("a layout");
        assert!(layout.classes().windows(2).all(|pair| pair[0].block_size < pair[1].block_size));
        assert!(layout.area() * (MOST_AREAS as u64) < 1 << 47, "{} bytes", layout.area());
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
        assert_eq!((layout.log(), layout.groups()), (words + 19 * 64, 884));
        assert_eq!(layout.fixed_part(), layout.log() + LOG_STEP * 8);
        let pieces = (layout.piece_shift(), layout.fixed_pieces(), layout.area_pieces());
        assert_eq!(pieces, (14, 5, 1700));
        let sizes: Vec<u64> = layout.classes().iter().map(|class| class.block_size).collect();
        assert_eq!(sizes[..12], [64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192]);
        assert_eq!((sizes.len(), layout.size()), (19, 27852800));
        assert_eq!(layout.fingerprint(), 0x83fc_f739_3c86_2038);
    }
}
