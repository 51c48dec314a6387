//! Memory in which processes note what they did, and which outlives them. It is not part of what is
//! tested.
#![expect(unsafe_code, reason = "an anonymous shared mapping")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Processes that a run may have, one after the other.
pub const LIVES: usize = 32;
const NOTES: usize = 128;

/// What one process notes.
#[repr(C)]
pub struct Life {
    words: [AtomicU64; 8],
    notes: [AtomicU64; NOTES],
}

impl Life {
    pub fn get(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::SeqCst)
    }

    pub fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::SeqCst);
    }

    pub fn count(&self, word: usize) {
        self.words[word].fetch_add(1, Ordering::SeqCst);
    }

    /// Notes something; killed before the last instruction of this, the process has not.
    pub fn note(&self, value: u64) {
        let at = self.get(7);
        self.notes[at as usize].store(value, Ordering::SeqCst);
        self.set(7, at + 1);
    }

    /// Changes the last note.
    pub fn correct(&self, value: u64) {
        self.notes[self.get(7) as usize - 1].store(value, Ordering::SeqCst);
    }

    pub fn notes(&self) -> Vec<u64> {
        self.notes[..self.get(7) as usize].iter().map(|note| note.load(Ordering::SeqCst)).collect()
    }
}

/// A page that all have.
#[repr(C)]
pub struct Notebook {
    pub common: Life,
    pub lives: [Life; LIVES],
}

impl Notebook {
    /// An empty one, for this process and those that it forks.
    pub fn new() -> &'static Notebook {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(core::ptr::null_mut(), size_of::<Notebook>(), protection, flags, -1, 0)
        };
        assert_ne!(address, libc::MAP_FAILED, "mmap");
        // SAFETY: mapped to the end of the process, aligned to pages, zeroed, and all atomics.
        unsafe { &*address.cast::<Notebook>() }
    }
}
