//! The mapping of a segment, and the only file that turns offsets into references.
//!
//! A [`Mapping`] is a segment as one process sees it. It is made once, and every handle holds it.
//! What differs between a process and its forked children is kept in [`PerProcess`], on a page that
//! the kernel wipes in the child. A child does not inherit the mapped bytes either
//! (`MADV_DONTFORK`): it closes their range before any code of the program runs ([`at_fork`]), and
//! maps them again, at another address, on first use. So a plain reference into the segment that
//! was made before a fork, for example by a guard that the parent still holds, faults in the child.
//! It cannot become a second exclusive view of the same bytes.
//!
//! The bytes of a segment are known by their offset. Where an offset lies in the file [`extents`]
//! says, and the file is mapped in areas: the first when a process attaches, any other when
//! something in it is looked up.
//!
//! The mapping also keeps a lock on a byte of the file that belongs to this process alone. The lock
//! shows other processes that this one is alive ([`record_lock`]).
//!
//! [`extents`]: crate::segment::extents
//!
//! # Invariants
//! - Each of `PerProcess::areas` is 0, or the address of a shared mapping of that area of the file
//!   that stays until the `Mapping` is dropped.
//! - A place that `extents` knows lies, with the whole group, within one of `MOST_AREAS` areas, and
//!   the file is at least that long.
//! - References given out borrow the `Mapping`, so they end before it does.
#![expect(unsafe_code, reason = "turns checked offsets into references")]

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use memmap2::MmapRaw;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::segment::error::SegmentError;
use crate::segment::extents::{Extents, PlaceError};
use crate::segment::home::{HOME_BYTE, Home};
use crate::segment::layout::{LOG_ENTRY_SIZE, Layout, MOST_AREAS};
use crate::segment::residence::Residence;
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

/// What belongs to this process and is not inherited. All zero in a forked child until it attaches.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PerProcess {
    /// [`PeerId`](crate::peer::PeerId) of this process, 0 before it has one.
    peer: AtomicU64,
    /// The byte that the mapping keeps locked; 0 if there is none.
    liveness_byte: AtomicU64,
    /// 1 while a thread is attaching. It stands here so that after a fork in the middle it is
    /// unlocked in the child.
    attaching: AtomicU32,
    /// 1 in the process that made the `Mapping`, which has checked that it has the same home as the
    /// segment.
    at_home: AtomicU32,
    /// Addresses of the mapped areas; 0 for one that is not mapped.
    areas: [AtomicU64; MOST_AREAS],
}

/// Words for hints, which fill the rest of the page.
pub(crate) const HINTS: usize = 480;
/// Where they begin.
const HINTS_AT: usize = 256;

const _: () =
    assert!(size_of::<PerProcess>() <= HINTS_AT && HINTS_AT + HINTS * size_of::<u64>() == 4096);

/// A segment as one process sees it.
///
/// # Invariants
/// - `page` begins with a `PerProcess`, behind which are the hints, and is wiped in forked
///   children.
/// - This crate computed `layout` for the size of `file`.
#[derive(Debug)]
pub(crate) struct Mapping {
    file: OwnFile,
    layout: Layout,
    id: u64,
    home: Home,
    is_local: bool,
    is_read_only: bool,
    residence: Residence,
    /// The fences that sleeping processes of the segment rely on.
    agreed: Fences,
    /// 1 if this process, or the one that it was forked from, could not register for barriers.
    unregistered: AtomicU32,
    page: WipedPage,
    extents: Extents,
    peer_words: PeerWords,
    /// Called before `detach`, to give back what the hints name.
    empty: OnceLock<fn(&Mapping)>,
}

/// What a forked child inherits of its parent's identity. Stored here for
/// [`peer::identity`](crate::peer::identity), which alone knows what the bits mean.
#[derive(Debug, Default)]
struct PeerWords {
    /// Bits that the parent reserved for its child, and the child's pid; 0 if none.
    reserved: AtomicU64,
    reserved_for: AtomicU32,
    /// Called before the mapping is dropped, if this process has set its bits.
    detach: OnceLock<fn(&Mapping)>,
}

/// What is known about a segment before it is mapped.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) file: OwnFile,
    pub(crate) layout: Layout,
    pub(crate) id: u64,
    pub(crate) fences: Fences,
    /// Home of the segment and of this process.
    pub(crate) home: Home,
    /// Whether this kernel alone manages locks on the file, so that no server can lose them.
    pub(crate) is_local: bool,
    /// Whether this process can only read it.
    pub(crate) is_read_only: bool,
    pub(crate) residence: Residence,
}

/// What a parent tells its child of a segment, so that the child need not look.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Deed {
    pub(crate) id: u64,
    /// The budget, by which the layout is known.
    pub(crate) len: u64,
    pub(crate) home: u64,
    pub(crate) is_asymmetric: bool,
    pub(crate) is_local: bool,
    pub(crate) is_read_only: bool,
    /// Bits of a [`Residence`].
    pub(crate) residence: u32,
}

/// First of the bytes beyond the end of every file of which each process locks one.
const FIRST_LIVENESS_BYTE: u64 = 1 << 61;
const LIVENESS_BYTES: core::ops::Range<u64> = FIRST_LIVENESS_BYTE..HOME_BYTE;

impl Mapping {
    /// A segment whose header was written or validated, as a process has it that has not used it
    /// yet.
    pub(crate) fn unmapped(plan: Plan) -> Result<Mapping, OsError> {
        // Before anything is mapped: a child that was forked by a bare system call, as those of the
        // zygote are, has holes where its parent has segments. A refusal is told by `map`.
        let _ = at_fork::adopt();
        Ok(Mapping {
            extents: Extents::new(&plan.layout)?,
            file: plan.file,
            layout: plan.layout,
            id: plan.id,
            home: plan.home,
            is_local: plan.is_local,
            is_read_only: plan.is_read_only,
            residence: plan.residence,
            agreed: plan.fences,
            unregistered: AtomicU32::new(0),
            page: WipedPage::new()?,
            peer_words: PeerWords::default(),
            empty: OnceLock::new(),
        })
    }

    /// Maps a segment whose header was written or validated.
    pub(crate) fn new(plan: Plan) -> Result<Mapping, SegmentError> {
        let mapping = Mapping::unmapped(plan)?;
        mapping.map().map_err(|refused| SegmentError::of_size(mapping.layout.area(), refused))?;
        // Relaxed: only this process reads it.
        mapping.per_process().at_home.store(1, Ordering::Relaxed);
        Ok(mapping)
    }

    /// Maps the bytes into this process, unless they are mapped.
    ///
    /// Callers that may race with other threads hold [`Mapping::attaching`].
    pub(crate) fn map(&self) -> Result<(), OsError> {
        if self.base().is_some() {
            return Ok(());
        }
        at_fork::adopt()?;
        // A program that closes all descriptors may have given our number to another file.
        let file = self.file.checked()?;
        // A process that can only read cannot lock bytes either. Others judge it by its pid.
        if self.is_read_only {
            let map = memory::map_to_read(file, 0, self.area_size())?;
            self.settle(0, &map)?;
            self.keep(0, map);
            return Ok(());
        }
        // Without `/proc`, or after a change of the user, the file cannot be opened again. Then
        // other processes judge this one by its pid.
        let private =
            if self.is_local { descriptor::reopen(&self.file, OFlags::RDWR).ok() } else { None };
        let liveness_byte = private.as_ref().and_then(lock_liveness_byte);
        let mapped = private.as_ref().map_or(file, AsFd::as_fd);
        let map = memory::map_shared(mapped, 0, self.area_size())?;
        drop(private);
        self.settle(0, &map)?;
        // Some file systems map another file than the one that was opened, and then the mapping
        // keeps no lock.
        let liveness_byte = liveness_byte.filter(|&liveness_byte| {
            record_lock::is_locked_by_another(file, liveness_byte) == Ok(true)
        });
        // Relaxed: published with the address of the area.
        self.per_process().liveness_byte.store(liveness_byte.unwrap_or(0), Ordering::Relaxed);
        self.keep(0, map);
        Ok(())
    }

    /// Keeps the mapped bytes of an area until the `Mapping` is dropped, unless another thread has
    /// been faster.
    fn keep(&self, area: usize, map: MmapRaw) {
        let base = map.as_mut_ptr();
        at_fork::add_range(base.addr(), self.area_size());
        // INVARIANT: the mapping covers the whole area; only `drop` ends it.
        // Release pairs with the Acquire load in `area`.
        let word = &self.per_process().areas[area];
        match word.compare_exchange(0, base as u64, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => std::mem::forget(map),
            Err(_) => at_fork::remove_range(base.addr()),
        }
    }

    /// Start of an area, if this process has mapped it.
    #[inline]
    fn area(&self, area: usize) -> Option<NonNull<u8>> {
        // Pairs with the Release in `keep`.
        NonNull::new(self.per_process().areas.get(area)?.load(Ordering::Acquire) as *mut u8)
    }

    /// Start of the first area, if this process has mapped it.
    #[inline]
    fn base(&self) -> Option<NonNull<u8>> {
        self.area(0)
    }

    /// As [`Mapping::area`], for an area that need not be mapped yet.
    fn map_area(&self, area: usize) -> Result<NonNull<u8>, OsError> {
        loop {
            if let Some(start) = self.area(area) {
                return Ok(start);
            }
            if area >= MOST_AREAS {
                return Err(OsError { call: "mmap", errno: Errno::OVERFLOW });
            }
            let (file, offset) = (self.file.checked()?, self.layout.area() * area as u64);
            let map = if self.is_read_only {
                memory::map_to_read(file, offset, self.area_size())?
            } else {
                memory::map_shared(file, offset, self.area_size())?
            };
            self.settle(area, &map)?;
            self.keep(area, map);
        }
    }

    /// Does to the new mapping of an area what the creator has chosen.
    fn settle(&self, area: usize, map: &MmapRaw) -> Result<(), OsError> {
        let filled = if area == 0 { self.layout.filled_len() } else { 0 };
        self.residence.settle(map, filled as usize, !self.is_read_only)
    }

    /// Whether this process can only read the segment.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// A descriptor of the file through which nobody can write.
    pub(crate) fn fd_to_read(&self) -> Result<OwnFile, OsError> {
        descriptor::reopen(&self.file, OFlags::RDONLY)
    }

    #[inline]
    fn per_process(&self) -> &PerProcess {
        // SAFETY: by the invariant the page begins with a `PerProcess`, all of it atomic, and it
        // stays as long as `self`.
        unsafe { &*self.page.start().cast() }
    }

    /// Words of this process alone, which are all 0 at first and in a forked child. What they mean
    /// only the heap knows. They name what `empty` gives back before the process leaves the peer
    /// table.
    #[inline]
    pub(crate) fn hints(&self) -> &[AtomicU64; HINTS] {
        // SAFETY: no page is smaller than 4096 bytes.
        let start = unsafe { self.page.start().add(HINTS_AT) };
        // SAFETY: by the invariant, and all of it is atomic.
        unsafe { &*start.cast() }
    }

    /// Says how the hints are emptied. For a process that has just attached.
    pub(crate) fn empty_before_detach(&self, empty: fn(&Mapping)) {
        self.empty.get_or_init(|| empty);
    }

    /// Bits of the `PeerId` of this process; 0 if it has not attached (or was forked since).
    #[inline]
    pub(crate) fn peer_bits(&self) -> u64 {
        // Pairs with the Release store in `set_peer`: a thread that sees the identity sees the
        // mapping too.
        self.per_process().peer.load(Ordering::Acquire)
    }

    /// The word with [`Mapping::peer_bits`], which is 0 in a forked child. It lives as long as the
    /// mapping.
    pub(crate) fn identity(&self) -> NonNull<AtomicU64> {
        NonNull::from(&self.per_process().peer)
    }

    /// Sets the identity of this process, after the segment was mapped and the process registered
    /// for barriers. `detach` gives it back before the mapping is dropped.
    pub(crate) fn set_peer(&self, bits: u64, detach: fn(&Mapping)) {
        self.peer_words.detach.get_or_init(|| detach);
        // Relaxed: published by the Release store below, or read in a copy of this memory.
        self.peer_words.reserved.store(0, Ordering::Relaxed);
        // Pairs with the Acquire load in `peer_bits`.
        self.per_process().peer.store(bits, Ordering::Release);
    }

    /// Clears the identity of this process, which is leaving the peer table.
    pub(crate) fn clear_peer(&self) {
        self.per_process().peer.store(0, Ordering::Release);
    }

    /// The identity that the parent reserved for the process `pid`; 0 if none. A child of that
    /// process inherits the words, but the identity is not for it.
    pub(crate) fn reserved_peer_bits(&self, pid: u32) -> u64 {
        if self.peer_words.reserved_for.load(Ordering::Relaxed) == pid {
            self.peer_words.reserved.load(Ordering::Relaxed)
        } else {
            0
        }
    }

    /// Keeps, in a fresh child, the identity that was reserved for it, the process `pid`.
    pub(crate) fn keep_reserved_peer(&self, bits: u64, pid: u32) {
        self.peer_words.reserved.store(bits, Ordering::Relaxed);
        self.peer_words.reserved_for.store(pid, Ordering::Relaxed);
    }

    /// Whether this process itself opened the segment and so checked its home. A process never
    /// changes its own home.
    pub(crate) fn was_opened_here(&self) -> bool {
        self.per_process().at_home.load(Ordering::Relaxed) != 0
    }

    /// The byte that this process keeps locked while it has the segment mapped; 0 if there is none.
    pub(crate) fn liveness_byte(&self) -> u64 {
        self.per_process().liveness_byte.load(Ordering::Relaxed)
    }

    /// Whether the process that locked this byte still has the segment mapped; `None` if that
    /// cannot be found out.
    pub(crate) fn is_mapped_elsewhere(&self, liveness_byte: u64) -> Option<bool> {
        if !LIVENESS_BYTES.contains(&liveness_byte) {
            return None;
        }
        let file = self.file.checked().ok()?;
        let locked = record_lock::is_locked_by_another(file, liveness_byte).ok()?;
        // Another thread may have closed the descriptor in between and opened something else.
        self.file.checked().ok().map(|_| locked)
    }

    /// Registers this process for the barriers of other processes, if they rely on that. If the
    /// kernel refuses, this process uses full fences itself.
    pub(crate) fn register_for_barriers(&self) {
        let refused = self.agreed.are_asymmetric() && barrier::register().is_err();
        // Relaxed: published with the identity, before this process notifies another.
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

    /// Runs `attach` in one thread of this process at a time.
    pub(crate) fn attaching<R>(&self, attach: impl FnOnce() -> R) -> R {
        let lock = &self.per_process().attaching;
        // Acquire pairs with the Release store below: the next thread sees what the previous one
        // attached.
        while lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        let result = attach();
        lock.store(0, Ordering::Release);
        result
    }

    /// The mapped bytes, if this process has mapped them.
    #[inline]
    pub(crate) fn region(&self) -> Option<Region<'_>> {
        Some(Region { base: self.base()?, mapping: self })
    }

    /// What a child is told of the segment, which it may write or only read.
    pub(crate) fn deed(&self, is_read_only: bool) -> Deed {
        Deed {
            id: self.id,
            len: self.layout.budget(),
            home: self.home.to_bits(),
            is_asymmetric: self.agreed.are_asymmetric(),
            is_local: self.is_local,
            is_read_only,
            residence: self.residence.to_bits(),
        }
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

    /// The descriptor of the segment, unless the program has closed it. Costs a system call.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, OsError> {
        self.file.checked()
    }

    /// Number of the descriptor, whatever file it refers to now.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.name().number()
    }

    /// Allocates memory for these bytes, so that touching them cannot fail later. They lie in one
    /// group.
    pub(crate) fn back(&self, offset: u64, len: u64) -> Result<(), OsError> {
        let file = self.fd()?;
        let corrupt = OsError { call: "mmap", errno: Errno::OVERFLOW };
        let log = self.region().and_then(|region| region.log()).ok_or(corrupt)?;
        let lengthen = |pieces| memory::lengthen(file, self.layout.bytes_of(pieces));
        let back_log = |entries: Range<u64>| {
            let [start, end] = [entries.start, entries.end].map(|entry| entry * LOG_ENTRY_SIZE);
            memory::back(file, self.layout.log() + start, end - start)
        };
        let assigned = self.extents.assign(&self.layout, log, offset, lengthen, back_log);
        let place = assigned.map_err(|failed| match failed {
            PlaceError::Corrupt => corrupt,
            PlaceError::Refused(refused) => refused,
        })?;
        // Mapped before the caller has anything to look up there.
        self.map_area((place / self.layout.area()) as usize)?;
        memory::back(file, place, len)
    }

    /// Gives these pages, which lie in one group, back to the system. A failure costs only memory.
    ///
    /// They stay where memory was allocated in advance.
    pub(crate) fn punch(&self, offset: u64, len: u64) {
        if self.residence.is_prefaulted {
            return;
        }
        // It may be another process's that is dead, of a group that this one has never looked at.
        let log = self.region().and_then(|region| region.log());
        let place = log.and_then(|log| self.extents.find(&self.layout, log, offset));
        if let (Some(place), Ok(file)) = (place, self.fd()) {
            let _ = memory::punch(file, place, len);
        }
    }

    /// Makes sure that this process sees everything that has a place in the file by now, or is so
    /// told by a log that somebody has written over. Maps what it has not mapped; the kernel may
    /// refuse that.
    ///
    /// Whoever does not see a block must not take it for corrupt, or for no block at all.
    pub(crate) fn see_all(&self) -> Result<(), OsError> {
        let Some(len) = self.least_len() else { return Ok(()) };
        let areas = len.div_ceil(self.layout.area()) as usize;
        (0..areas).try_for_each(|area| self.map_area(area).map(drop))
    }

    /// Bytes that the file of a mapped segment has at least; `None` if its log is corrupt.
    pub(crate) fn least_len(&self) -> Option<u64> {
        let end = self.extents.end(&self.layout, self.region()?.log()?)?;
        Some(self.layout.bytes_of(end))
    }

    fn area_size(&self) -> usize {
        usize::try_from(self.layout.area()).expect("64-bit platforms only")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.peer_bits() != 0 {
            let acts = [&self.empty, &self.peer_words.detach];
            acts.into_iter().filter_map(OnceLock::get).for_each(|act| act(self));
        }
        for base in (0..MOST_AREAS).filter_map(|area| self.area(area)) {
            at_fork::remove_range(base.addr().get());
            // SAFETY: by the invariant this is our mapping of the whole area, and references into
            // it have ended with the borrow.
            unsafe { memory::unmap(base, self.area_size()) };
        }
    }
}

/// Locks a byte through the description with which this process is about to map the file, and joins
/// the shared lock of all processes that have it open.
fn lock_liveness_byte(private: &OwnFile) -> Option<u64> {
    // No two living processes have the same pid, and no two mappings of a process are made at the
    // same time.
    let first = u64::from(std::process::id()) << 38 | clock::nanos() & ((1 << 38) - 1);
    let liveness_byte = (0..4)
        .map(|next| FIRST_LIVENESS_BYTE | (first + next) & (FIRST_LIVENESS_BYTE - 1))
        .find(|&liveness_byte| {
            record_lock::try_lock(private, liveness_byte, Share::Exclusive) == Ok(true)
        })?;
    // A process that would move the segment to another home must see this one, also when this one
    // has closed its descriptors.
    let _ = record_lock::try_lock(private, HOME_BYTE, Share::Shared);
    Some(liveness_byte)
}

/// The bytes of a segment in this process, for as long as its mapping is borrowed. They can be
/// written, except in a process that can only read the segment. That one has no
/// [`identity`](crate::peer::identity), without which nothing here is written.
///
/// # Invariants
/// `base` is the start of the first area of `mapping`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    mapping: &'a Mapping,
}

impl<'a> Region<'a> {
    /// The address of `len` bytes at `offset`, if they lie within one group of the segment that has
    /// a place, and the address is a multiple of `align`. No bytes have any such address.
    #[inline]
    pub(crate) fn bytes(&self, offset: u64, len: u64, align: usize) -> Option<NonNull<u8>> {
        let address = match self.mapping.extents.near(offset, len) {
            // SAFETY: the piece lies in the first area, by the invariant of `Mapping`, and `base`
            // is its start. The bytes lie in that piece.
            Some(place) => unsafe { self.base.add(place as usize) },
            None => self.far(offset, len)?,
        };
        if address.addr().get().is_multiple_of(align) {
            Some(address)
        } else {
            // A block of 64 bytes is enough for no values, however they are aligned.
            NonNull::new(ptr::without_provenance_mut(align)).filter(|_| len == 0)
        }
    }

    /// The address of bytes of which the place was not read yet, or lies in another area, or which
    /// lie in several pieces.
    #[cold]
    #[inline(never)]
    fn far(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let Mapping { layout, extents, .. } = self.mapping;
        let end = offset.checked_add(len)?;
        if offset < layout.first_len() {
            // SAFETY: the bytes lie in the fixed pieces, which the first area begins with.
            return (end <= layout.first_len()).then(|| unsafe { self.base.add(offset as usize) });
        }
        let group = layout.group(offset)?;
        if end > layout.bytes_of(group.piece + group.pieces) {
            return None;
        }
        let place = extents.find(layout, self.log()?, offset)?;
        let area = place / layout.area();
        let start = self.mapping.map_area(area as usize).ok()?;
        // SAFETY: the place of the piece, and of all its group, lies in this area by the invariant
        // of `Mapping`. The bytes lie in that group.
        Some(unsafe { start.add((place % layout.area()) as usize) })
    }

    /// The log of groups.
    fn log(&self) -> Option<&'a [AtomicU64]> {
        let layout = &self.mapping.layout;
        self.array(layout.log(), layout.groups() as usize)
    }

    /// As [`Region::at`], in the part of the segment before the first class.
    #[inline]
    pub(crate) fn fixed<T: Shared>(&self, offset: u64) -> Option<&'a T> {
        let is_there = offset < self.mapping.layout.first_len()
            && self.mapping.layout.first_len() - offset >= size_of::<T>() as u64
            && offset.is_multiple_of(align_of::<T>() as u64);
        if !is_there {
            return None;
        }
        // SAFETY: the first area begins with that part.
        let address = unsafe { self.base.add(offset as usize) };
        // SAFETY: in bounds, and aligned, as the area begins on a page. `T: Shared` may be viewed
        // while others write it.
        Some(unsafe { address.cast().as_ref() })
    }

    /// A shared structure at `offset`; `None` if it does not lie within the segment, aligned.
    #[inline]
    pub(crate) fn at<T: Shared>(&self, offset: u64) -> Option<&'a T> {
        let address = self.bytes(offset, size_of::<T>() as u64, align_of::<T>())?;
        // SAFETY: in bounds, aligned, mapped for `'a` as `bytes` says; `T: Shared` may be viewed
        // while others write it.
        Some(unsafe { address.cast().as_ref() })
    }

    /// `count` shared structures from `offset` on; `None` if they do not lie within the segment,
    /// aligned.
    #[inline]
    pub(crate) fn array<T: Shared>(&self, offset: u64, count: usize) -> Option<&'a [T]> {
        let len = (count as u64).checked_mul(size_of::<T>() as u64)?;
        let address = self.bytes(offset, len, align_of::<T>())?;
        // SAFETY: in bounds, aligned, mapped for `'a` as `bytes` says; `T: Shared` may be viewed
        // while others write it.
        Some(unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), count) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::Segment;

    /// The first and the last word of each group.
    fn words(layout: &Layout) -> Vec<u64> {
        let mut words = Vec::new();
        let mut start = layout.first_len();
        while let Some(group) = layout.group(start) {
            let end = start + layout.bytes_of(group.pieces);
            words.extend([start, end - 8]);
            start = end;
        }
        words
    }

    fn word<'a>(region: &Region<'a>, offset: u64) -> &'a AtomicU64 {
        region.at(offset).unwrap_or_else(|| panic!("nothing at {offset}"))
    }

    /// The same file, as another process sees it.
    fn another(mapping: &Mapping, is_read_only: bool) -> Mapping {
        let deed = mapping.deed(is_read_only);
        let mapping = Mapping::unmapped(Plan {
            file: OwnFile::new(mapping.fd().expect("open").try_clone_to_owned().expect("a copy"))
                .expect("a file"),
            layout: Layout::for_budget(deed.len).expect("a layout"),
            id: deed.id,
            fences: Fences::Symmetric,
            home: mapping.home,
            is_local: false,
            is_read_only,
            residence: Residence::default(),
        });
        let mapping = mapping.expect("memory");
        mapping.map().expect("address space");
        mapping
    }

    #[test]
    fn every_group_has_bytes_of_its_own_in_as_many_areas_as_it_takes() {
        let segment = Segment::create(1 << 28).expect("a segment");
        let mapping = segment.mapping();
        let (region, words) = (mapping.region().expect("mapped"), words(mapping.layout()));
        let other = another(mapping, true);
        let of_other = other.region().expect("mapped");
        for group in words.chunks(2) {
            assert!(region.at::<AtomicU64>(group[0]).is_none());
            assert!(of_other.at::<AtomicU64>(group[0]).is_none());
            for &offset in group {
                mapping.back(offset, 8).expect("memory");
                word(&region, offset).store(offset, Ordering::Relaxed);
            }
        }
        for region in [&region, &of_other] {
            for &offset in &words {
                assert_eq!(word(region, offset).load(Ordering::Relaxed), offset);
            }
        }
        let areas = |mapping: &Mapping| (0..MOST_AREAS).filter_map(|it| mapping.area(it)).count();
        assert!(areas(mapping) > 1);
        assert_eq!(areas(mapping), areas(&other));
    }

    #[test]
    fn bytes_lie_in_one_group_or_nowhere() {
        let segment = Segment::create(1 << 20).expect("a segment");
        let mapping = segment.mapping();
        let (layout, region) = (mapping.layout(), mapping.region().expect("mapped"));
        let largest = layout.classes().last().expect("a class");
        let (start, len) = (largest.base, largest.block_size);
        assert_eq!(region.bytes(start, 1, 1), None, "it has no place");
        mapping.back(start + len / 2, 1).expect("memory");
        let base = region.bytes(start, len, 1).expect("a group").addr().get();
        for (offset, len) in [(start, 0), (start + 1, len - 1), (start + len - 1, 1)] {
            let address = region.bytes(offset, len, 1).expect("within the group");
            assert_eq!(address.addr().get() - base, (offset - start) as usize);
        }
        for (offset, len) in [(start, len + 1), (start + len, 0), (u64::MAX, 0), (start, u64::MAX)]
        {
            assert_eq!(region.bytes(offset, len, 1), None, "{len} at {offset}");
        }
        let fixed = layout.first_len();
        assert!(region.bytes(0, fixed, 1).is_some());
        mapping.back(fixed, 1).expect("memory");
        assert_eq!(region.bytes(0, fixed + 1, 1), None, "they need not be neighbours");
        assert_eq!(region.bytes(start + 1, 1, 2), None, "not aligned");
        let nothing = region.bytes(start + 1, 0, 128).expect("an address");
        assert_eq!(nothing.addr().get() % 128, 0);
    }

    #[test]
    fn a_process_gives_pages_back_that_it_has_never_looked_at() {
        let segment = Segment::create(1 << 22).expect("a segment");
        let mapping = segment.mapping();
        let other = another(mapping, false);
        let largest = *mapping.layout().classes().last().expect("a class");
        mapping.back(largest.base, 1 << 20).expect("memory");
        let file =
            std::fs::File::from(mapping.fd().expect("open").try_clone_to_owned().expect("one"));
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().expect("open"));
        let before = blocks();
        other.punch(largest.base, 1 << 20);
        assert_eq!(before - blocks(), (1 << 20) / 512);
    }

    /// Two of one class and one of another in between.
    #[test]
    fn a_file_is_as_long_as_what_was_used() {
        let segment = Segment::create(1 << 30).expect("a segment");
        let mapping = segment.mapping();
        let file =
            std::fs::File::from(mapping.fd().expect("open").try_clone_to_owned().expect("one"));
        let len = || file.metadata().expect("open").len();
        assert_eq!(len(), mapping.layout().first_len());
        assert!(len() < 1 << 21);
        let [small, large] = [0, 20].map(|class| mapping.layout().classes()[class]);
        for (offset, grown) in [
            (small.base, 1 << 20),
            (large.base, large.block_size),
            (small.base + 256, 0),
            (small.base + (1 << 20), 1 << 20),
        ] {
            let before = len();
            mapping.back(offset, 256).expect("memory");
            assert_eq!((len(), mapping.least_len()), (before + grown, Some(before + grown)));
        }
    }
}
