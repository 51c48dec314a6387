//! Words of a live segment are written over, in the peer table, the heap, the headers of blocks and
//! of objects; then everything is used. Every call must return a value or an error.
//!
//! `cargo +nightly fuzz run objects fuzz/seeds/objects -- -max_total_time=60 -timeout=60`
#![no_main]

mod exercise;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use exercise::{Objects, Operation};
use libfuzzer_sys::fuzz_target;
use offspring::Segment;
use rustix::fs::SeekFrom;

/// A segment for little, and one as large as the commons, where a wrong count costs gigabytes.
const LENGTHS: [u64; 2] = [1 << 16, 8 << 30];
const PAGE: u64 = 4096;
const WORD: u64 = 8;

#[derive(Arbitrary, Debug)]
struct Input {
    large: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Do(Operation),
    Spoil(Spoil),
    /// The second happens while the first holds its guards.
    SpoilDuring(Operation, Spoil),
}

/// A word, by its number among those that are in use, and what becomes of it.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Spoil {
    word: u16,
    how: How,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Set(u64),
    FlipBit(u8),
    Add(i8),
    /// What stands in another word: plausible, and in the wrong place.
    Copy(u16),
}

/// Offsets of the words in use in a segment of this length: those that are not zero, and the one
/// behind each.
fn words(large: bool) -> &'static [u64] {
    static WORDS: [OnceLock<Vec<u64>>; 2] = [OnceLock::new(), OnceLock::new()];
    WORDS[usize::from(large)].get_or_init(|| {
        let segment = Segment::create(LENGTHS[usize::from(large)]).expect("a segment");
        let _objects = Objects::make(&segment);
        let file = descriptor(&segment);
        let mut found = Vec::new();
        let mut from = 0;
        while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(from)) {
            for offset in (data..data + PAGE).step_by(WORD as usize) {
                if read(&file, offset) != 0 {
                    found.extend([offset, offset + WORD]);
                }
            }
            from = data + PAGE;
        }
        found.dedup();
        found
    })
}

fn descriptor(segment: &Segment) -> File {
    exercise::file_of(segment)
}

fn read(file: &File, offset: u64) -> u64 {
    let mut bytes = [0; WORD as usize];
    file.read_exact_at(&mut bytes, offset).expect("within the segment");
    u64::from_ne_bytes(bytes)
}

fn spoil(file: &File, words: &[u64], Spoil { word, how }: Spoil) {
    let at = |word: u16| words[usize::from(word) % words.len()];
    let before = read(file, at(word));
    let after = match how {
        How::Set(value) => value,
        How::FlipBit(bit) => before ^ 1 << (bit % 64),
        How::Add(number) => before.wrapping_add_signed(number.into()),
        How::Copy(from) => read(file, at(from)),
    };
    file.write_all_at(&after.to_ne_bytes(), at(word)).expect("within the segment");
}

fuzz_target!(|input: Input| {
    let words = words(input.large);
    let segment = Segment::create(LENGTHS[usize::from(input.large)]).expect("a segment");
    let mut objects = Objects::make(&segment);
    let file = descriptor(&segment);
    for &step in input.steps.iter().take(32) {
        match step {
            Step::Do(operation) => objects.run(&segment, operation, || ()),
            Step::Spoil(word) => spoil(&file, words, word),
            Step::SpoilDuring(operation, word) => {
                objects.run(&segment, operation, || spoil(&file, words, word))
            }
        }
    }
});
