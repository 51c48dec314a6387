//! Placement: the one file that turns offsets into references.
//!
//! A [`Mapping`] is a segment as this process has it. It is made once, and every handle holds it; what differs between a process
//! and its forked children stands in [`Here`], on a page that the kernel wipes in the child. The mapped bytes themselves are not
//! inherited either (`MADV_DONTFORK`): a child maps them anew, elsewhere, at its first use, and closes the old range. So a plain
//! reference into the segment that was made before a fork (by a guard that the parent still holds, say) faults in the child, and
//! cannot become a second exclusive view of the same bytes.
//!
//! # Invariants
//! - `Here::base` is 0, or the address of a shared mapping of the whole segment that stays until the `Mapping` is dropped.
//! - References given out borrow the `Mapping`, so they end before it does.
#![expect(unsafe_code, reason = "turns checked offsets into references")]

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::segment::error::SegmentError;
use crate::segment::layout::Layout;
use crate::sys::barrier::Fences;
use crate::sys::memory;

/// A type that may be viewed in place by `&` while other processes write it.
///
/// # Safety
/// Every byte belongs to an atomic (or is padding that nobody reads), every bit pattern is valid, nothing is dropped.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}

/// What this process, and no child of it, knows about the segment. All zero in a forked child until it attaches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Here {
    /// [`PeerId`](crate::peer::PeerId) of this process, 0 before it has one.
    peer: AtomicU64,
    /// Address of the mapping, 0 before there is one.
    base: AtomicU64,
    /// 1 while a thread is attaching. It stands here so that a fork in the middle leaves the child an open door.
    attaching: AtomicU32,
}

/// A segment as one process has it.
///
/// # Invariants
/// - `here` points to a live `Here` on a page of its own that is wiped in forked children.
/// - `layout` was computed by us for the size of `file`.
#[derive(Debug)]
pub(crate) struct Mapping {
    file: File,
    file_identity: (u64, u64),
    layout: Layout,
    id: u64,
    fences: Fences,
    pid_namespace: u64,
    here: NonNull<Here>,
    here_len: usize,
    /// Where the segment was mapped last in this process or the one that it was forked from.
    inherited_base: AtomicU64,
    /// The `PeerId` that this process, or the one that it was forked from, had last.
    inherited_peer: AtomicU64,
    /// How this process gives its identity back when the mapping goes; known to the room above.
    farewell: OnceLock<fn(&Mapping)>,
    /// The `PeerId` that the parent reserved for this process before it forked it; 0 if none.
    promised_peer: AtomicU64,
}

// SAFETY: `here` points to atomics that live as long as the `Mapping`; everything else is `Send`.
unsafe impl Send for Mapping {}
// SAFETY: as above; all of it is atomic or never changed after construction.
unsafe impl Sync for Mapping {}

/// What is known about a segment before it is mapped.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) file: File,
    pub(crate) layout: Layout,
    pub(crate) id: u64,
    pub(crate) fences: Fences,
    pub(crate) pid_namespace: u64,
}

impl Mapping {
    /// Maps a segment whose header was written or validated.
    pub(crate) fn new(plan: Plan) -> Result<Mapping, SegmentError> {
        let file_identity = memory::file_identity(&plan.file).map_err(SegmentError::os("fstat"))?;
        let (page, here_len) = memory::wiped_page().map_err(SegmentError::os("mmap"))?;
        let mapping = Mapping {
            file: plan.file,
            file_identity,
            layout: plan.layout,
            id: plan.id,
            fences: plan.fences,
            pid_namespace: plan.pid_namespace,
            here: page.cast(),
            here_len,
            inherited_base: AtomicU64::new(0),
            inherited_peer: AtomicU64::new(0),
            promised_peer: AtomicU64::new(0),
            farewell: OnceLock::new(),
        };
        mapping.map().map_err(|source| SegmentError::NoRoom { size: mapping.layout.size(), source })?;
        Ok(mapping)
    }

    /// Maps the bytes into this process, unless that was done.
    ///
    /// Callers that may race with other threads hold [`Mapping::attaching`].
    pub(crate) fn map(&self) -> std::io::Result<()> {
        let here = self.here();
        if here.base.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let size = self.size();
        let inherited = self.inherited_base.load(Ordering::Relaxed);
        if let Some(old) = NonNull::new(inherited as *mut u8) {
            // SAFETY: this process is a forked child: the parent's mapping was not copied to it, so the range is empty, or something
            // that came since lies there, which the call leaves alone and reports.
            let closed = unsafe { memory::close_range(old, size) };
            // Something else may lie there when foreign code forked; then only the trap for stale references is missing.
            drop(closed);
        }
        // A program that closes all descriptors may have given our number to another file.
        if memory::file_identity(&self.file)? != self.file_identity {
            return Err(rustix::io::Errno::BADF.into());
        }
        let map = memory::map_shared(&self.file, size)?;
        let base = map.as_mut_ptr() as u64;
        std::mem::forget(map);
        self.inherited_base.store(base, Ordering::Relaxed);
        // INVARIANT: the mapping covers the whole segment; only `drop` ends it.
        // Pairs with the Acquire load in `region`.
        here.base.store(base, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn here(&self) -> &Here {
        // SAFETY: by the invariant `here` points to a live `Here`, all of it atomic.
        unsafe { self.here.as_ref() }
    }

    /// Bits of the `PeerId` of this process; 0 if it has not attached (or was forked since).
    #[inline]
    pub(crate) fn peer_bits(&self) -> u64 {
        // Pairs with the Release store in `set_peer`: whoever sees the identity sees the mapping, too.
        self.here().peer.load(Ordering::Acquire)
    }

    /// Notes the identity of this process, after it was mapped and registered.
    pub(crate) fn set_peer(&self, bits: u64) {
        self.inherited_peer.store(bits, Ordering::Relaxed);
        self.promised_peer.store(0, Ordering::Relaxed);
        // Pairs with the Acquire load in `peer_bits`.
        self.here().peer.store(bits, Ordering::Release);
    }

    /// Forgets the identity of this process, which has left the peer table.
    pub(crate) fn clear_peer(&self) {
        self.here().peer.store(0, Ordering::Release);
    }

    /// Sets what is called before the mapping goes, if this process has an identity then.
    pub(crate) fn set_farewell(&self, farewell: fn(&Mapping)) {
        self.farewell.get_or_init(|| farewell);
    }

    /// The identity that this process or the one it was forked from had last; 0 if none.
    pub(crate) fn inherited_peer_bits(&self) -> u64 {
        self.inherited_peer.load(Ordering::Relaxed)
    }

    /// The identity that the parent reserved for this process; 0 if none.
    pub(crate) fn promised_peer_bits(&self) -> u64 {
        self.promised_peer.load(Ordering::Relaxed)
    }

    /// Notes in a fresh child which identity was reserved for it.
    pub(crate) fn promise_peer(&self, bits: u64) {
        self.promised_peer.store(bits, Ordering::Relaxed);
    }

    /// Runs `attach` while no other thread of this process does.
    pub(crate) fn attaching<R>(&self, attach: impl FnOnce() -> R) -> R {
        let door = &self.here().attaching;
        // Acquire pairs with the Release store below: the next thread sees what the last one attached.
        while door.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        let result = attach();
        door.store(0, Ordering::Release);
        result
    }

    /// The mapped bytes, if this process has them.
    #[inline]
    pub(crate) fn region(&self) -> Option<Region<'_>> {
        // Pairs with the Release store in `map`.
        let base = NonNull::new(self.here().base.load(Ordering::Acquire) as *mut u8)?;
        Some(Region { base, size: self.layout.size(), mapping: PhantomData })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn fences(&self) -> Fences {
        self.fences
    }

    pub(crate) fn pid_namespace(&self) -> u64 {
        self.pid_namespace
    }

    pub(crate) fn file_identity(&self) -> (u64, u64) {
        self.file_identity
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn size(&self) -> usize {
        usize::try_from(self.layout.size()).expect("64-bit platforms only")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.peer_bits() != 0
            && let Some(farewell) = self.farewell.get()
        {
            farewell(self);
        }
        if let Some(base) = NonNull::new(self.here().base.load(Ordering::Relaxed) as *mut u8) {
            // SAFETY: by the invariant this is our mapping of the whole segment, and references into it have ended with the borrow.
            unsafe { memory::unmap(base, self.size()) };
        }
        // SAFETY: the page is ours alone, and this is the last use of it.
        unsafe { memory::unmap(self.here.cast(), self.here_len) };
    }
}

/// The bytes of a segment in this process, for as long as its mapping is borrowed.
///
/// # Invariants
/// `base` is the start of a shared, readable and writable mapping of `size` bytes that outlives `'a`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    size: u64,
    mapping: PhantomData<&'a Mapping>,
}

impl<'a> Region<'a> {
    /// The address of `len` bytes at `offset`, if they lie within the segment and the address is a multiple of `align`.
    #[inline]
    pub(crate) fn bytes(&self, offset: u64, len: u64, align: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.size {
            return None;
        }
        // SAFETY: `offset <= size`, and by the invariant the mapping has `size` bytes.
        let address = unsafe { self.base.add(offset as usize) };
        address.cast::<u8>().addr().get().is_multiple_of(align).then_some(address)
    }

    /// A shared structure at `offset`; `None` if it does not lie within the segment, aligned.
    #[inline]
    pub(crate) fn at<T: Shared>(&self, offset: u64) -> Option<&'a T> {
        let address = self.bytes(offset, size_of::<T>() as u64, align_of::<T>())?;
        // SAFETY: in bounds, aligned, mapped for `'a` by the invariant; `T: Shared` may be viewed while others write it.
        Some(unsafe { address.cast().as_ref() })
    }

    /// `count` shared structures from `offset` on; `None` if they do not lie within the segment, aligned.
    #[inline]
    pub(crate) fn array<T: Shared>(&self, offset: u64, count: usize) -> Option<&'a [T]> {
        let len = (count as u64).checked_mul(size_of::<T>() as u64)?;
        let address = self.bytes(offset, len, align_of::<T>())?;
        // SAFETY: in bounds, aligned, mapped for `'a` by the invariant; `T: Shared` may be viewed while others write it.
        Some(unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), count) })
    }
}
