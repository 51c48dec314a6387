//! The blocks of a segment's heap as its bytes show them: what is in use, whether or not anybody
//! can still reach it. Nothing is cleared up by looking.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use offspring::Segment;

use super::fd::SegmentFd;

/// The heap's own words, behind the header and the peer table.
pub const HEAP: u64 = 4096 + 1024 * 64;
/// Words of the heap, and of a size class.
const WORDS: u64 = 64;
/// Bytes of a block's header.
pub const HEADER: u64 = 192;
/// What areas begin on.
const ALIGN: u64 = 1 << 16;

/// A block, as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset of its header in the file.
    pub header: u64,
    /// Offset of its bytes in the file; `u64::MAX` if they never had a place there.
    pub bytes: u64,
    pub state: u64,
    /// Bytes that its header says are in use.
    pub len: u64,
}

/// States in a block's word.
pub const FREE: u64 = 0;
pub const SHARED: u64 = 2;
pub const CARRIED: u64 = 3;
pub const CACHED: u64 = 4;

/// The segment as a file.
pub fn file(segment: &Segment) -> File {
    File::from(segment.as_fd().try_clone_to_owned().expect("a descriptor"))
}

pub fn word(file: &File, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset).expect("within the segment");
    u64::from_ne_bytes(bytes)
}

/// Every block that is not free. One that a process keeps at hand is free.
pub fn blocks(segment: &Segment) -> Vec<Block> {
    let mut all = headers(segment);
    all.retain(|block| block.state != FREE && block.state != CACHED);
    all
}

/// Bytes that have pages, as the headers of all blocks say. Those of small blocks say so, too.
pub fn claimed(segment: &Segment) -> u64 {
    let file = file(segment);
    let pages = |block: Block| word(&file, block.header + 24) & u64::from(u32::MAX);
    headers(segment).into_iter().map(|block| pages(block) * 4096).sum()
}

/// Bytes that have pages, as the kernel says.
pub fn in_memory(segment: &Segment) -> u64 {
    file(segment).metadata().expect("metadata").blocks() * 512
}

/// Every block that was ever used.
fn headers(segment: &Segment) -> Vec<Block> {
    let file = file(segment);
    let places = Places::of(segment.len(), &file);
    let mut found = Vec::new();
    for (class, &(size, headers, base)) in places.classes.iter().enumerate() {
        let used = word(&file, HEAP + WORDS * (1 + class as u64)) & u64::from(u32::MAX);
        for index in 0..used.min((segment.len() / size).max(1)) {
            let header = places.in_file(headers + index * HEADER).expect("it was used");
            let (state, len) = (word(&file, header) >> 31 & 7, word(&file, header + 16));
            let bytes = places.in_file(base + index * size).unwrap_or(u64::MAX);
            found.push(Block { header, bytes, state, len });
        }
    }
    found
}

/// Where offsets lie in the file, computed from the budget and the log.
struct Places {
    /// Bytes of a block, and the offsets of headers and blocks, by class.
    classes: Vec<(u64, u64, u64)>,
    /// First and last offset of each group that has a place, and that place.
    groups: Vec<(u64, u64, u64)>,
}

impl Places {
    fn of(budget: u64, file: &File) -> Places {
        let sizes = sizes(budget);
        let piece = 1 << (budget / 64).clamp(1 << 12, 1 << 20).max(budget >> 16).ilog2();
        let group = |unit: u64| unit.max(if unit.is_power_of_two() { piece } else { 3 * piece });
        let ranges = |size: u64| {
            let count = (budget / size).max(1);
            [(count * HEADER, group(HEADER)), (count * size, group(size))]
        };
        let log = HEAP + WORDS * (1 + sizes.len() as u64);
        let entries: u64 = sizes
            .iter()
            .flat_map(|&size| ranges(size))
            .map(|(len, group)| len.div_ceil(group))
            .sum();
        let fixed = (log + 8 * entries).next_multiple_of(piece);
        let largest = group(*sizes.last().expect("a size"));
        let (mut classes, mut all, mut end) = (Vec::new(), Vec::new(), fixed);
        for &size in &sizes {
            let starts = ranges(size).map(|(len, group)| {
                let start = end;
                end = start + len.next_multiple_of(group);
                all.extend((start..end).step_by(group as usize).map(|start| (start, group)));
                start
            });
            classes.push((size, starts[0], starts[1]));
        }
        let area = (fixed + 2 * largest).max(end.min(4 << 30)).next_multiple_of(piece.max(ALIGN));
        let (mut groups, mut place) = (Vec::new(), fixed);
        for entry in 0..entries {
            let Some(first) = (word(file, log + 8 * entry) as u32).checked_sub(1) else {
                break;
            };
            let start = u64::from(first) * piece;
            let &(_, len) = all.iter().find(|group| group.0 == start).expect("a group");
            if place / area != (place + len - 1) / area {
                place = place.next_multiple_of(area);
            }
            groups.push((start, start + len - 1, place));
            place += len;
        }
        Places { classes, groups }
    }

    fn in_file(&self, offset: u64) -> Option<u64> {
        let group = self.groups.iter().find(|group| (group.0..=group.1).contains(&offset));
        group.map(|group| offset - group.0 + group.2)
    }
}

/// Number of blocks that are not free.
pub fn in_use(segment: &Segment) -> usize {
    blocks(segment).len()
}

/// As the crate computes them: two for each doubling up to a page, then one.
fn sizes(budget: u64) -> Vec<u64> {
    let mut sizes = vec![64];
    let mut power = 64;
    while power < budget {
        if (256..4096).contains(&power) {
            sizes.push(power + power / 2);
        }
        power *= 2;
        sizes.push(power);
    }
    sizes
}

/// Number of blocks that processes keep at hand.
pub fn cached(segment: &Segment) -> usize {
    headers(segment).into_iter().filter(|block| block.state == CACHED).count()
}
