//! Placement: the one file that turns offsets into references.
//!
//! A [`Mapping`] is a segment as this process has it. It is made once, and every handle holds it;
//! what differs between a process and its forked children stands in [`Here`], on a page that the
//! kernel wipes in the child. The mapped bytes themselves are not inherited either
//! (`MADV_DONTFORK`): a child maps them anew, elsewhere, at its first use, and the old range is
//! closed in it before any code of the program runs ([`at_fork`]). So a plain reference into the
//! segment that was made before a fork (by a guard that the parent still holds, say) faults in the
//! child, and cannot become a second exclusive view of the same bytes.
//!
//! The mapping also keeps a lock on a byte of the file that is this process's alone, by which
//! others see that it is alive ([`record_lock`]).
//!
//! # Invariants
//! - `Here::base` is 0, or the address of a shared mapping of the whole segment that stays until
//!   the `Mapping` is dropped.
//! - References given out borrow the `Mapping`, so they end before it does.
#![expect(unsafe_code, reason = "turns checked offsets into references")]

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use rustix::fs::OFlags;

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::segment::error::SegmentError;
use crate::segment::home::{HOME, Home};
use crate::segment::layout::Layout;
use crate::sys::barrier::{self, Fences};
use crate::sys::descriptor::{self, FileId, OwnFile};
use crate::sys::error::OsError;
use crate::sys::memory::{self, WipedPage};
use crate::sys::record_lock::{self, Share};
use crate::sys::{at_fork, clock};

/// A type that may be viewed in place by `&` while other processes write it.
///
/// # Safety
/// Every byte belongs to an atomic (or is padding that nobody reads), every bit pattern is valid,
/// nothing is dropped.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}

/// What this process, and no child of it, knows about the segment. All zero in a forked child until
/// it attaches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Here {
    /// [`PeerId`](crate::peer::PeerId) of this process, 0 before it has one.
    peer: AtomicU64,
    /// Address of the mapping, 0 before there is one.
    base: AtomicU64,
    /// The byte that the mapping keeps locked; 0 if there is none.
    life: AtomicU64,
    /// 1 while a thread is attaching. It stands here so that a fork in the middle leaves the child
    /// an open door.
    attaching: AtomicU32,
    /// 1 in the process that made the `Mapping`, and so has found that the segment is at home where
    /// it lives.
    at_home: AtomicU32,
}

/// A segment as one process has it.
///
/// # Invariants
/// - `page` begins with a `Here` and is wiped in forked children.
/// - `layout` was computed by us for the size of `file`.
#[derive(Debug)]
pub(crate) struct Mapping {
    file: OwnFile,
    layout: Layout,
    id: u64,
    home: Home,
    is_local: bool,
    /// What the sleepers of the segment rely on.
    agreed: Fences,
    /// 1 if this process, or the one that it was forked from, could not register for barriers.
    unregistered: AtomicU32,
    page: WipedPage,
    /// The `PeerId` that this process, or the one that it was forked from, had last.
    inherited_peer: AtomicU64,
    /// How this process gives its identity back when the mapping goes; known to the room above.
    farewell: OnceLock<fn(&Mapping)>,
    /// The `PeerId` that the parent reserved for its child, and the child's pid; 0 if none.
    promised_peer: AtomicU64,
    promised_pid: AtomicU32,
}

/// What is known about a segment before it is mapped.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) file: OwnFile,
    pub(crate) layout: Layout,
    pub(crate) id: u64,
    pub(crate) fences: Fences,
    /// Where this process lives, and the segment is at home.
    pub(crate) home: Home,
    /// Whether locks on the file are this kernel's own business, and not lost when some server
    /// forgets them.
    pub(crate) is_local: bool,
}

/// Bytes beyond the end of every file, of which each process locks one.
const FIRST_LIFE: u64 = 1 << 61;
const LIVES: core::ops::Range<u64> = FIRST_LIFE..HOME;

impl Mapping {
    /// Maps a segment whose header was written or validated.
    pub(crate) fn new(plan: Plan) -> Result<Mapping, SegmentError> {
        let mapping = Mapping {
            file: plan.file,
            layout: plan.layout,
            id: plan.id,
            home: plan.home,
            is_local: plan.is_local,
            agreed: plan.fences,
            unregistered: AtomicU32::new(0),
            page: WipedPage::new()?,
            inherited_peer: AtomicU64::new(0),
            promised_peer: AtomicU64::new(0),
            promised_pid: AtomicU32::new(0),
            farewell: OnceLock::new(),
        };
        mapping.map().map_err(|refused| SegmentError::of_size(mapping.layout.size(), refused))?;
        // Relaxed: a note of this process to itself.
        mapping.here().at_home.store(1, Ordering::Relaxed);
        Ok(mapping)
    }

    /// Maps the bytes into this process, unless that was done.
    ///
    /// Callers that may race with other threads hold [`Mapping::attaching`].
    pub(crate) fn map(&self) -> Result<(), OsError> {
        let here = self.here();
        if here.base.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        at_fork::adopt()?;
        // A program that closes all descriptors may have given our number to another file.
        let file = self.file.checked()?;
        // Without `/proc`, or after a change of the user, there is no second description; then
        // others judge this process by its pid.
        let private =
            if self.is_local { descriptor::reopen(&self.file, OFlags::RDWR).ok() } else { None };
        let life = private.as_ref().and_then(lock_life);
        let map = memory::map_shared(private.as_ref().map_or(file, AsFd::as_fd), self.size())?;
        drop(private);
        // Some file systems map another file than the one that was opened, and that keeps no lock.
        let life = life.filter(|&life| record_lock::is_locked_by_another(file, life) == Ok(true));
        let base = map.as_mut_ptr();
        std::mem::forget(map);
        at_fork::add_range(base.addr(), self.size());
        here.life.store(life.unwrap_or(0), Ordering::Relaxed);
        // INVARIANT: the mapping covers the whole segment; only `drop` ends it.
        // Pairs with the Acquire load in `region`.
        here.base.store(base as u64, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn here(&self) -> &Here {
        // SAFETY: by the invariant the page begins with a `Here`, all of it atomic, and it stays as
        // long as `self`.
        unsafe { &*self.page.start().cast() }
    }

    /// Bits of the `PeerId` of this process; 0 if it has not attached (or was forked since).
    #[inline]
    pub(crate) fn peer_bits(&self) -> u64 {
        // Pairs with the Release store in `set_peer`: whoever sees the identity sees the mapping,
        // too.
        self.here().peer.load(Ordering::Acquire)
    }

    /// Where [`Mapping::peer_bits`] stand: a word that is 0 in a forked child. It lives as long as
    /// the mapping.
    pub(crate) fn identity(&self) -> NonNull<AtomicU64> {
        NonNull::from(&self.here().peer)
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

    /// The identity that the parent reserved for the process `pid`; 0 if none. A child of that
    /// process inherits the note, and is not meant.
    pub(crate) fn promised_peer_bits(&self, pid: u32) -> u64 {
        if self.promised_pid.load(Ordering::Relaxed) == pid {
            self.promised_peer.load(Ordering::Relaxed)
        } else {
            0
        }
    }

    /// Notes in a fresh child, the process `pid`, which identity was reserved for it.
    pub(crate) fn promise_peer(&self, bits: u64, pid: u32) {
        self.promised_peer.store(bits, Ordering::Relaxed);
        self.promised_pid.store(pid, Ordering::Relaxed);
    }

    /// Whether this process itself has opened the segment where that is at home; no process changes
    /// its home.
    pub(crate) fn was_opened_here(&self) -> bool {
        self.here().at_home.load(Ordering::Relaxed) != 0
    }

    /// The byte that this process keeps locked as long as it has the segment mapped; 0 if there is
    /// none.
    pub(crate) fn life(&self) -> u64 {
        self.here().life.load(Ordering::Relaxed)
    }

    /// Whether the process that has kept this byte locked still has the segment mapped; `None` if
    /// that cannot be found out.
    pub(crate) fn is_mapped_elsewhere(&self, life: u64) -> Option<bool> {
        if !LIVES.contains(&life) {
            return None;
        }
        let file = self.file.checked().ok()?;
        let locked = record_lock::is_locked_by_another(file, life).ok()?;
        // Another thread may have closed the descriptor in between, and opened something else.
        self.file.checked().ok().map(|_| locked)
    }

    /// Registers this process for the barriers of others, if they rely on that; where the kernel
    /// refuses, it fences for itself.
    pub(crate) fn register_for_barriers(&self) {
        let refused = self.agreed.are_asymmetric() && barrier::register().is_err();
        // Relaxed: published with the identity, before this process notifies anybody.
        self.unregistered.store(refused.into(), Ordering::Relaxed);
    }

    /// The fences that this process uses in the segment.
    #[inline]
    pub(crate) fn fences(&self) -> Fences {
        if self.unregistered.load(Ordering::Relaxed) == 0 {
            self.agreed
        } else {
            Fences::Unregistered
        }
    }

    /// Runs `attach` while no other thread of this process does.
    pub(crate) fn attaching<R>(&self, attach: impl FnOnce() -> R) -> R {
        let door = &self.here().attaching;
        // Acquire pairs with the Release store below: the next thread sees what the last one
        // attached.
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

    pub(crate) fn home(&self) -> Home {
        self.home
    }

    pub(crate) fn file_id(&self) -> FileId {
        self.file.id()
    }

    /// The descriptor of the segment, if the program has not taken it from us. Costs a system call.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, OsError> {
        self.file.checked()
    }

    /// Number of the descriptor, whatever it stands for now.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.name().number()
    }

    /// Puts pages behind these bytes, so that touching them cannot fail later.
    pub(crate) fn back(&self, offset: u64, len: u64) -> Result<(), OsError> {
        memory::back(self.fd()?, offset, len)
    }

    /// Gives these pages back to the system. Failing costs memory and nothing else.
    pub(crate) fn punch(&self, offset: u64, len: u64) {
        let _ = self.fd().and_then(|file| memory::punch(file, offset, len));
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
            at_fork::remove_range(base.addr().get());
            // SAFETY: by the invariant this is our mapping of the whole segment, and references
            // into it have ended with the borrow.
            unsafe { memory::unmap(base, self.size()) };
        }
    }
}

/// Locks a byte for the description by which this process is about to map the file, and shares the
/// lock of all that have it open.
fn lock_life(private: &OwnFile) -> Option<u64> {
    // Every process has its pid to itself, and every one of its mappings a moment.
    let first = u64::from(std::process::id()) << 38 | clock::nanos() & ((1 << 38) - 1);
    let life = (0..4)
        .map(|next| FIRST_LIFE | (first + next) & (FIRST_LIFE - 1))
        .find(|&life| record_lock::try_lock(private, life, Share::Exclusive) == Ok(true))?;
    // Whoever would move the segment elsewhere is to see this process, also when it has closed its
    // descriptors.
    let _ = record_lock::try_lock(private, HOME, Share::Shared);
    Some(life)
}

/// The bytes of a segment in this process, for as long as its mapping is borrowed.
///
/// # Invariants
/// `base` is the start of a shared, readable and writable mapping of `size` bytes that outlives
/// `'a`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    size: u64,
    mapping: PhantomData<&'a Mapping>,
}

impl<'a> Region<'a> {
    /// The address of `len` bytes at `offset`, if they lie within the segment and the address is a
    /// multiple of `align`.
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
        // SAFETY: in bounds, aligned, mapped for `'a` by the invariant; `T: Shared` may be viewed
        // while others write it.
        Some(unsafe { address.cast().as_ref() })
    }

    /// `count` shared structures from `offset` on; `None` if they do not lie within the segment,
    /// aligned.
    #[inline]
    pub(crate) fn array<T: Shared>(&self, offset: u64, count: usize) -> Option<&'a [T]> {
        let len = (count as u64).checked_mul(size_of::<T>() as u64)?;
        let address = self.bytes(offset, len, align_of::<T>())?;
        // SAFETY: in bounds, aligned, mapped for `'a` by the invariant; `T: Shared` may be viewed
        // while others write it.
        Some(unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), count) })
    }
}
