//! Placement: offsets become references into the arena, as in the crate.
#![expect(
    unsafe_code,
    reason = "turns checked offsets into references, and implements an unsafe marker trait"
)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::primitive::{AtomicU32, AtomicU64};
use crate::segment::layout::{Layout, PEERS};
use crate::sys::barrier::Fences;
use crate::sys::error::OsError;
use crate::world;

/// # Safety
/// As in the crate: every byte belongs to an atomic or is padding.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}

thread_local! {
    /// The layout of this thread's model.
    static LAYOUT: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// Says how many blocks and peers the model has.
pub(crate) fn lay_out(blocks: u64, entries: usize) {
    LAYOUT.set((blocks, entries));
    crate::sys::seat::set(false);
    crate::object::place::clear();
}

/// The segment as one process has it, during one operation.
#[derive(Debug)]
pub(crate) struct Mapping {
    layout: Layout,
    peer: core::sync::atomic::AtomicU64,
    reserved: core::sync::atomic::AtomicU64,
    reserved_pid: core::sync::atomic::AtomicU32,
    hints: Box<[AtomicU64; HINTS]>,
}

/// Words for hints: one row is enough.
pub(crate) const HINTS: usize = 33;

/// The boot and the namespace in which all processes of a model live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home;

impl Home {
    pub(crate) fn to_bits(self) -> u64 {
        1
    }

    pub(crate) fn namespace(self) -> Option<u32> {
        Some(1)
    }
}

impl Mapping {
    /// For a process that remembers these bits of its `PeerId`; 0 if it has none.
    pub(crate) fn new(peer: u64) -> Mapping {
        let (blocks, entries) = LAYOUT.get();
        Mapping {
            layout: Layout::new(blocks, entries),
            peer: peer.into(),
            reserved: 0.into(),
            reserved_pid: 0.into(),
            hints: Box::new([const { AtomicU64::new(0) }; HINTS]),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        0
    }

    pub(crate) fn file_id(&self) -> u64 {
        0
    }

    pub(crate) fn region(&self) -> Option<Region<'_>> {
        Some(Region { entries: self.layout.entries, mapping: PhantomData })
    }

    pub(crate) fn map(&self) -> Result<(), OsError> {
        Ok(())
    }

    pub(crate) fn attaching<R>(&self, attach: impl FnOnce() -> R) -> R {
        attach()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn fences(&self) -> Fences {
        Fences::Asymmetric
    }

    pub(crate) fn register_for_barriers(&self) {}

    pub(crate) fn is_read_only(&self) -> bool {
        false
    }

    pub(crate) fn home(&self) -> Home {
        Home
    }

    pub(crate) fn was_opened_here(&self) -> bool {
        true
    }

    /// Every other process keeps a byte locked, so that both kinds of evidence are asked for.
    pub(crate) fn liveness_byte(&self) -> u64 {
        life_of(world::me())
    }

    pub(crate) fn is_mapped_elsewhere(&self, life: u64) -> Option<bool> {
        life.checked_sub(1).map(|process| !world::is_dead(process as usize))
    }

    /// All of the arena is.
    pub(crate) fn see_all(&self) -> Result<(), OsError> {
        Ok(())
    }

    /// Pages are always there.
    pub(crate) fn back(&self, _offset: u64, _len: u64) -> Result<(), OsError> {
        Ok(())
    }

    /// Those of one operation. Hints may be lost.
    pub(crate) fn hints(&self) -> &[AtomicU64; HINTS] {
        &self.hints
    }

    pub(crate) fn punch(&self, _offset: u64, _len: u64) {}

    pub(crate) fn peer_bits(&self) -> u64 {
        self.peer.load(core::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn set_peer(&self, bits: u64, _detach: fn(&Mapping)) {
        self.peer.store(bits, core::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn clear_peer(&self) {
        self.peer.store(0, core::sync::atomic::Ordering::Relaxed);
    }

    /// Processes of a model are forked by the crate's `fork` only.
    pub(crate) fn latest_peer_bits(&self) -> u64 {
        0
    }

    pub(crate) fn reserved_peer_bits(&self, pid: u32) -> u64 {
        let meant = self.reserved_pid.load(core::sync::atomic::Ordering::Relaxed) == pid;
        if meant { self.reserved.load(core::sync::atomic::Ordering::Relaxed) } else { 0 }
    }

    pub(crate) fn keep_reserved_peer(&self, bits: u64, pid: u32) {
        self.reserved.store(bits, core::sync::atomic::Ordering::Relaxed);
        self.reserved_pid.store(pid, core::sync::atomic::Ordering::Relaxed);
    }
}

/// The byte that a process keeps locked; 0 for one that has none.
pub(crate) fn life_of(process: usize) -> u64 {
    if process.is_multiple_of(2) { 0 } else { process as u64 + 1 }
}

/// The bytes of the arena.
///
/// # Invariants
/// The arena of a thread is never freed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    entries: usize,
    mapping: PhantomData<&'a Mapping>,
}

impl<'a> Region<'a> {
    pub(crate) fn bytes(&self, offset: u64, len: u64, align: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > world::ARENA as u64 {
            return None;
        }
        // SAFETY: `offset` lies within the arena.
        let address = unsafe { world::base().add(offset as usize) };
        NonNull::new(address).filter(|address| address.addr().get().is_multiple_of(align))
    }

    /// All of the arena is there from the beginning.
    pub(crate) fn fixed<T: Shared>(&self, offset: u64) -> Option<&'a T> {
        self.at(offset)
    }

    pub(crate) fn at<T: Shared>(&self, offset: u64) -> Option<&'a T> {
        let address = self.bytes(offset, size_of::<T>() as u64, align_of::<T>())?;
        // SAFETY: in bounds, aligned, never freed; any bytes are a valid `T: Shared`, and the
        // model's atomics do not touch them.
        Some(unsafe { address.cast().as_ref() })
    }

    /// As [`Region::at`], for models: the arena outlives the mapping.
    pub(crate) fn forever<T: Shared + 'static>(&self, offset: u64) -> Option<&'static T> {
        Region { entries: self.entries, mapping: PhantomData }.at(offset)
    }

    /// The peer table is cut to as many entries as the model has.
    pub(crate) fn array<T: Shared>(&self, offset: u64, count: usize) -> Option<&'a [T]> {
        let count = if count == PEERS { self.entries } else { count };
        let address = self.bytes(offset, (count * size_of::<T>()) as u64, align_of::<T>())?;
        // SAFETY: in bounds, aligned, never freed; any bytes are valid for `T: Shared`, and the
        // model's atomics do not touch them.
        Some(unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), count) })
    }
}
