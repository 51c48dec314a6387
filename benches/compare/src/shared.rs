//! Words that processes share, for peers that have no memory of their own.
#![expect(unsafe_code, reason = "views a shared mapping as atomics")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};

/// 64-bit words between those with different writers: two cache lines.
pub(crate) const APART: usize = 16;

/// Memory that this process shares with its children, zeroed and all there.
pub(crate) fn memory(bytes: usize) -> io::Result<MmapRaw> {
    let file = File::from(memfd_create("compare", MemfdFlags::CLOEXEC)?);
    file.set_len(bytes as u64)?;
    MmapOptions::new().populate().map_raw(&file)
}

/// An atomic that is valid when zero.
pub(crate) trait Word: Sync {}
impl Word for AtomicU32 {}
impl Word for AtomicU64 {}

/// Words that this process shares with its children, in each of them until it drops its last clone.
///
/// # Invariants
/// `first` points to `count` aligned words within `_memory`, which nobody uses but as such words.
#[derive(Debug)]
pub(crate) struct Words<W> {
    first: NonNull<W>,
    count: usize,
    /// Kept so that the words stay mapped.
    _memory: Arc<MmapRaw>,
}

// SAFETY: atomics, which any thread may use and the last may unmap.
unsafe impl<W: Word> Send for Words<W> {}
// SAFETY: as for `Send`.
unsafe impl<W: Word> Sync for Words<W> {}

impl<W: Word> Words<W> {
    /// Zeroed words.
    pub(crate) fn new(count: usize) -> io::Result<Words<W>> {
        let memory = memory(count * size_of::<W>())?;
        let first =
            NonNull::new(memory.as_mut_ptr().cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // INVARIANT: a mapping begins at a page, and this one is made for so many words.
        Ok(Words { first, count, _memory: Arc::new(memory) })
    }
}

impl<W: Word> Deref for Words<W> {
    type Target = [W];

    #[inline]
    fn deref(&self) -> &[W] {
        // SAFETY: by the invariant in bounds and aligned, and mapped as long as `self`; zeroed
        // memory is valid atomics, and nobody has them exclusively.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<W> Clone for Words<W> {
    fn clone(&self) -> Words<W> {
        Words { first: self.first, count: self.count, _memory: Arc::clone(&self._memory) }
    }
}

/// A ring's memory: two counters, then slots with a sequence number and a message each. What they
/// mean is the ring's matter.
///
/// # Invariants
/// `first` points to the words that `Slots::new` asked for, within `_memory`.
#[derive(Debug)]
pub(crate) struct Slots<const N: usize> {
    first: NonNull<AtomicU64>,
    count: usize,
    _memory: Arc<MmapRaw>,
}

// SAFETY: counters and sequence numbers are atomics; the messages are reached by unsafe functions
// only.
unsafe impl<const N: usize> Send for Slots<N> {}

impl<const N: usize> Slots<N> {
    const HEADER: usize = 2 * APART;

    /// Zeroed slots, `count` of them, which must be a power of two.
    pub(crate) fn new(count: usize) -> io::Result<Slots<N>> {
        assert!(count.is_power_of_two(), "slots are found by mask");
        let memory = memory((Slots::<N>::HEADER + count * (N + 1)) * size_of::<u64>())?;
        let first =
            NonNull::new(memory.as_mut_ptr().cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Slots { first, count, _memory: Arc::new(memory) })
    }

    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count as u64
    }

    /// The first or the second counter, two cache lines apart.
    #[inline]
    pub(crate) fn counter(&self, which: usize) -> &AtomicU64 {
        // SAFETY: the modulo keeps it within the header.
        let counter = unsafe { self.first.add(which % 2 * APART) };
        // SAFETY: within the mapping by the invariant, zeroed at first, and only ever used as an
        // atomic.
        unsafe { counter.as_ref() }
    }

    #[inline]
    fn place(&self, position: u64) -> NonNull<AtomicU64> {
        let slot = position as usize & (self.count - 1);
        // SAFETY: the mask keeps it within the slots.
        unsafe { self.first.add(Slots::<N>::HEADER + slot * (N + 1)) }
    }

    /// The sequence number of the slot for `position`.
    #[inline]
    pub(crate) fn sequence(&self, position: u64) -> &AtomicU64 {
        // SAFETY: within the mapping by `place`, zeroed at first, and only ever used as an atomic.
        unsafe { self.place(position).as_ref() }
    }

    /// Where the message for `position` lies.
    #[inline]
    fn message(&self, position: u64) -> NonNull<[u64; N]> {
        // SAFETY: a slot is a sequence number and the message behind it.
        unsafe { self.place(position).add(1) }.cast()
    }

    /// Writes the message for `position`.
    ///
    /// # Safety
    /// Nobody else may read or write that slot's message.
    #[inline]
    pub(crate) unsafe fn write(&self, position: u64, message: &[u64; N]) {
        // SAFETY: in bounds, aligned for words, and by the contract the caller's alone.
        unsafe { self.message(position).write(*message) };
    }

    /// Reads the message for `position`.
    ///
    /// # Safety
    /// Nobody else may write that slot's message.
    #[inline]
    pub(crate) unsafe fn read(&self, position: u64) -> [u64; N] {
        // SAFETY: in bounds, aligned for words, any bits are valid words, and by the contract
        // nobody writes them.
        unsafe { self.message(position).read() }
    }
}

impl<const N: usize> Clone for Slots<N> {
    fn clone(&self) -> Slots<N> {
        Slots { first: self.first, count: self.count, _memory: Arc::clone(&self._memory) }
    }
}
