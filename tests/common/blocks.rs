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
/// What ranges begin on.
const ALIGN: u64 = 1 << 16;

/// A block, as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset of its header.
    pub header: u64,
    /// Offset of its bytes.
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
    let sizes = sizes(segment.len());
    let mut end = (HEAP + WORDS * (1 + sizes.len() as u64)).next_multiple_of(ALIGN);
    let mut found = Vec::new();
    for (class, size) in sizes.into_iter().enumerate() {
        let count = (segment.len() / size).max(1);
        let headers = end;
        let base = (headers + count * HEADER).next_multiple_of(ALIGN);
        end = (base + count * size).next_multiple_of(ALIGN);
        let used = word(&file, HEAP + WORDS * (1 + class as u64)) & u64::from(u32::MAX);
        for index in 0..used.min(count) {
            let header = headers + index * HEADER;
            let (state, len) = (word(&file, header) >> 31 & 7, word(&file, header + 16));
            found.push(Block { header, bytes: base + index * size, state, len });
        }
    }
    found
}

/// Number of blocks that are not free.
pub fn in_use(segment: &Segment) -> usize {
    blocks(segment).len()
}

/// As the crate computes them: two for each doubling up to a page, then one.
fn sizes(budget: u64) -> Vec<u64> {
    let mut sizes = vec![256];
    let mut power = 256;
    while power < budget {
        if power < 4096 {
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
