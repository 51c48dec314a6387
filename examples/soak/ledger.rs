//! What the processes of a round record: plain words in shared memory, apart from everything that
//! is tested.
//!
//! # Peer death
//! Each record is one store before an operation and one after it, so the supervisor knows between
//! which two stores a process was killed.
#![expect(unsafe_code, reason = "looks at mapped memory as words")]

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::MemfdFlags;

use crate::arena::Object;

/// Processes that a round can have one after the other.
pub const ROWS: usize = 1 << 13;
/// Messages of a stretch.
pub const MESSAGES: usize = 1 << 17;
/// Stretches of a round.
pub const STRETCHES: usize = 1 << 15;
const KILLS: usize = 1 << 13;
const SAMPLES: usize = 1 << 16;

/// The notes of one process, from its birth to its death.
#[derive(Debug)]
#[repr(C)]
pub struct Row {
    /// Operations that came to an end.
    pub progress: AtomicU64,
    /// What it is at: up to eight letters.
    pub doing: AtomicU64,
    /// Messages that it may have taken from a queue and not noted yet.
    pub in_hand: AtomicU64,
}

/// Messages of one sender: how many it began and ended to send, and one bit for each that was
/// received.
#[derive(Debug)]
#[repr(C)]
pub struct Stretch {
    /// The object it belongs to, and 1.
    pub object: AtomicU64,
    pub started: AtomicU64,
    pub published: AtomicU64,
    received: [AtomicU64; MESSAGES / 64],
}

impl Stretch {
    /// Notes that the message was received; false if it was noted before.
    pub fn receive(&self, sequence: u64) -> bool {
        let bit = 1 << (sequence % 64);
        self.received[sequence as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub fn was_received(&self, sequence: u64) -> bool {
        self.received[sequence as usize / 64].load(Ordering::Relaxed) & 1 << (sequence % 64) != 0
    }
}

/// What went wrong or was put right at an object.
#[derive(Debug)]
#[repr(C)]
pub struct Tally {
    pub owner_died: AtomicU64,
    pub redelivered: AtomicU64,
    pub torn: AtomicU64,
    pub twice: AtomicU64,
    pub disorder: AtomicU64,
    /// Messages that were sent and did not come, where a worker finds that out itself.
    pub missing: AtomicU64,
    /// Children that workers killed.
    pub grandchildren_killed: AtomicU64,
    /// When processes at this object were killed, in nanoseconds, and how many were.
    kills: AtomicU64,
    killed_at: [AtomicU64; KILLS],
}

impl Tally {
    /// Notes that somebody at this object is about to be killed.
    pub fn note_kill(&self) {
        let count = self.kills.load(Ordering::Relaxed);
        self.killed_at[count as usize % KILLS].store(now(), Ordering::Relaxed);
        self.kills.store(count + 1, Ordering::Release);
    }

    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Acquire)
    }

    /// When the first one after `count` was killed.
    pub fn killed_at(&self, count: u64) -> u64 {
        self.killed_at[count as usize % KILLS].load(Ordering::Relaxed)
    }
}

/// An operation that was blocked when somebody was killed.
#[derive(Debug)]
#[repr(C)]
struct SampleWords {
    nanoseconds: AtomicU64,
    object: AtomicU64,
    operation: AtomicU64,
}

/// As [`SampleWords`], read.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From the kill until the operation came to its end.
    pub nanoseconds: u64,
    pub object: Object,
    /// Its name, as in a [`Row`].
    pub operation: u64,
}

/// All words of a ledger.
#[derive(Debug)]
#[repr(C)]
pub struct Words {
    /// 1: senders and others come to an end. 2: there is nothing more to receive from the ring.
    pub stop: AtomicU64,
    /// Processes that are stopped now, and when the last one went on.
    pub stopped: AtomicU64,
    pub went_on_at: AtomicU64,
    /// The row of whoever thinks to have the lock, and 1.
    pub lock_owner: AtomicU64,
    /// How often each event was set, and how often somebody passed by it.
    pub sets: [AtomicU64; 2],
    pub passes: [AtomicU64; 2],
    pub next_stretch: AtomicU64,
    next_sample: AtomicU64,
    pub tallies: [Tally; Object::ALL.len()],
    pub rows: [Row; ROWS],
    samples: [SampleWords; SAMPLES],
    pub stretches: [Stretch; STRETCHES],
}

/// The words, in memory that children share. Pages that nobody writes take no memory.
#[derive(Debug)]
pub struct Ledger {
    memory: MmapRaw,
}

impl Ledger {
    pub fn new() -> io::Result<Ledger> {
        let file = rustix::fs::memfd_create("soak-ledger", MemfdFlags::CLOEXEC)?;
        let len = size_of::<Words>();
        rustix::fs::ftruncate(&file, len as u64)?;
        Ok(Ledger { memory: MmapOptions::new().len(len).map_raw(&file)? })
    }

    /// Notes how long somebody who was blocked needed to go on after a kill.
    pub fn note_sample(&self, sample: Sample) {
        let index = self.next_sample.fetch_add(1, Ordering::Relaxed) as usize;
        if let Some(words) = self.samples.get(index) {
            words.object.store(sample.object as u64, Ordering::Relaxed);
            words.operation.store(sample.operation, Ordering::Relaxed);
            words.nanoseconds.store(sample.nanoseconds, Ordering::Release);
        }
    }

    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        let count = (self.next_sample.load(Ordering::Relaxed) as usize).min(SAMPLES);
        self.samples[..count].iter().filter_map(|words| {
            let nanoseconds = words.nanoseconds.load(Ordering::Acquire);
            let object = Object::ALL[words.object.load(Ordering::Relaxed) as usize];
            // 0: killed between taking the place and filling it.
            (nanoseconds != 0).then(|| Sample {
                nanoseconds,
                object,
                operation: words.operation.load(Ordering::Relaxed),
            })
        })
    }

    /// Stretches that somebody has taken.
    pub fn used_stretches(&self) -> &[Stretch] {
        let count = self.next_stretch.load(Ordering::Relaxed) as usize;
        &self.stretches[..count.min(STRETCHES)]
    }

    pub fn tally(&self, object: Object) -> &Tally {
        &self.tallies[object as usize]
    }
}

impl Deref for Ledger {
    type Target = Words;

    fn deref(&self) -> &Words {
        let words = self.memory.as_mut_ptr().cast::<Words>();
        // SAFETY: the mapping has this size and begins on a page; the file was zeros, zeros are
        // valid atomics, and everything in it is an atomic, so that writers in other processes are
        // no matter; it is unmapped when `self` is dropped.
        unsafe { &*words }
    }
}

/// Nanoseconds of a clock that all processes share.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
