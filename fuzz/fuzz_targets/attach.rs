//! Files that are, or claim to be, segments: good headers with fields written over, of any size,
//! with anything behind the header. What can be opened can be used.
//!
//! `cargo +nightly fuzz run attach fuzz/seeds/attach -- -max_total_time=60 -timeout=60`
#![no_main]

mod exercise;

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use exercise::{Objects, Operation};
use libfuzzer_sys::fuzz_target;
use offspring::Segment;
use rustix::fs::{MemfdFlags, SealFlags};

/// The byte of the header that says how memory is kept, and a bit of it.
const RESIDENCE: usize = 60;
const PREFAULTED: u8 = 1;
/// Lengths of the segments whose headers are offered.
const LENGTHS: [u64; 5] = [1, 1 << 16, 1 << 20, 8 << 30, 1 << 40];
/// Bytes of the header that mean something, and of the page it stands on.
const HEADER: usize = 64;
const PAGE: usize = 4096;

#[derive(Arbitrary, Debug)]
struct Input {
    header: u8,
    /// Fields written over: which 4 bytes, and by what.
    fields: Vec<(u8, u32)>,
    size: Size,
    /// Words behind the header, 8-aligned.
    body: Vec<(u32, u64)>,
    sealed: bool,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Size {
    AsMade,
    Off(i16),
    Other(u32),
}

/// A good header and the size of the file it stands in.
fn good(which: u8) -> ([u8; HEADER], u64) {
    static GOOD: OnceLock<Vec<([u8; HEADER], u64)>> = OnceLock::new();
    let all = GOOD.get_or_init(|| LENGTHS.iter().filter_map(|&len| made(len)).collect());
    all[usize::from(which) % all.len()]
}

/// Where the header says in which boot its processes live.
const HOME: std::ops::Range<usize> = 48..56;

/// The largest do not fit beside a sanitizer.
fn made(len: u64) -> Option<([u8; HEADER], u64)> {
    let segment = Segment::create(len).ok()?;
    let file = exercise::file_of(&segment);
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).ok()?;
    Some((header, file.metadata().ok()?.len()))
}

fuzz_target!(|input: Input| {
    let (mut header, made) = good(input.header);
    for (field, value) in &input.fields {
        let at = usize::from(*field) * 4 % HEADER;
        header[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    // Memory in advance is as much as the file has bytes, which may be 4 GiB here.
    header[RESIDENCE] &= !PREFAULTED;
    let size = match input.size {
        Size::AsMade => made,
        Size::Off(by) => made.wrapping_add_signed(by.into()),
        Size::Other(size) => size.into(),
    };
    let memfd = rustix::fs::memfd_create("attach", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)
        .expect("a memfd");
    let file = File::from(memfd);
    file.set_permissions(Permissions::from_mode(0o600)).expect("ours");
    file.set_len(size).expect("sparse");
    let fits = (size as usize).min(HEADER);
    file.write_all_at(&header[..fits], 0).expect("within the file");
    for (offset, value) in &input.body {
        let offset = (PAGE as u64 + u64::from(*offset) * 8) % size.max(1);
        // The file must not grow, nor the header change.
        if offset >= PAGE as u64 && offset + 8 <= size {
            file.write_all_at(&value.to_ne_bytes(), offset).expect("within the file");
        }
    }
    let opened = if input.sealed {
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL).expect("seals");
        Segment::open(&file)
    } else {
        Segment::open_file(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    let Ok(segment) = opened else {
        let mut now = [0; HEADER];
        file.read_exact_at(&mut now[..fits], 0).expect("within the file");
        if !input.sealed {
            // A file whose processes are all dead moves to this boot before its log is looked at.
            now[HOME].copy_from_slice(&header[HOME]);
        }
        assert_eq!(
            (&now[..fits], file.metadata().expect("metadata").len()),
            (&header[..fits], size),
            "opening changed the file"
        );
        return;
    };
    assert!(size >= made, "a segment has at least the size that its length demands");
    let mut objects = Objects::make(&segment);
    for &operation in input.operations.iter().take(32) {
        objects.run(&segment, operation, || ());
    }
});
