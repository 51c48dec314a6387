//! A block that one process owns, filled with values of one type: the memory of a box.
//!
//! # Peer death
//! The block is `OWNED` by the process, and given back with all that a dead process owned. On its
//! way to another process it is part of a message: see [`carry`](super::carry).
//!
//! # Fork
//! A forked child has a copy of the handle. As for guards, one load shows that this is another
//! process: the identity of a process in the segment stands on a page that the kernel wipes in a
//! child. Whether the child may use the block, the block's word says:
//! - If the closure of the child captured the box, the parent drops its own handle while the child
//!   waits ([`ends`]). That drop makes the block the child's, by one swap, and says for which
//!   handle. The child finds this at its first use, and where the block lies in its own mapping.
//! - Every other copy is inert, as the word names the parent. It may lie there for as long as the
//!   child lives, and so even until the block's generations have come round and the child owns the
//!   block in the same one. It stays inert, as the block was not passed to it.
#![expect(unsafe_code, reason = "values in shared memory are reached by pointers")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::heap::owned::{Owned, Remembered};
use crate::heap::pool::Carried;
use crate::heap::{AllocError, BlockId, Pool};
use crate::object::block::MOST_ALIGN;
use crate::object::carry::{Arrival, Departure, Name};
use crate::object::error::CreateError;
#[cfg(test)]
use crate::object::handle::Handle;
use crate::object::holding::{self, Holding};
use crate::object::{ends, reap};
use crate::peer::{Fault, PeerId, identity};
use crate::primitive::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::segment::Shm;
use crate::segment::commons::Kept;
use crate::segment::region::Mapping;
use crate::sys;

/// A block with room for `count` values, which belongs to this handle.
///
/// # Invariants
/// - In the process that is `me` in the segment, `start` is aligned for a `T`, and `count` values
///   lie there, in `mapping`. The block's word is `OWNED` by it in the generation of `block`, and
///   no other handle there has this block and generation; so the values are those of this handle
///   alone. That holds until the handle is dropped, or `is_packed`.
/// - Unless it `is_adopted`, the process that is `me` is the one that remembers `block`.
pub(crate) struct OwnedBlock<T> {
    mapping: Kept,
    /// The word that says who this process is; it lives as long as `mapping`.
    identity: NonNull<AtomicU64>,
    /// This process, as bits; written after `start` and `is_adopted`.
    me: AtomicU64,
    block: Remembered,
    start: AtomicPtr<T>,
    count: usize,
    /// 1 in a process that got the block with its parent's memory.
    is_adopted: AtomicU32,
    /// Whether the block is part of a message. It belongs to the handle no more, also if this
    /// process has received it.
    is_packed: bool,
    /// When it was made: how often a closure had been prepared for a child by then. Not 0.
    age: u64,
    values: PhantomData<T>,
}

// SAFETY: the values belong to the handle, and may be used by each thread that has it.
unsafe impl<T: Send> Send for OwnedBlock<T> {}
// SAFETY: through a shared handle there are shared references to the values only.
unsafe impl<T: Sync> Sync for OwnedBlock<T> {}

/// A block that this process has just come to own, before there is a handle of it.
///
/// # Invariants
/// `owned` belongs to `me`, which is this process in `mapping`. `start` is aligned for a `T`, and
/// `count` values lie there.
struct Room<'a, T> {
    mapping: &'a Arc<Mapping>,
    me: PeerId,
    owned: Owned<'a>,
    start: NonNull<T>,
    count: usize,
}

impl<'a, T: Shm> Room<'a, T> {
    /// A block with room for `count` values; whatever bytes lie there.
    // Inlined, as are those below: a handle is as large as a line of a cache, and each copy of one
    // that was just written waits for the writes.
    #[inline(always)]
    fn new(mapping: &'a Arc<Mapping>, kind: u64, count: usize) -> Result<Room<'a, T>, CreateError> {
        if align_of::<T>() > MOST_ALIGN {
            return Err(too_aligned::<T>());
        }
        let Some(len) = bytes_of::<T>(count) else { return Err(too_long(mapping)) };
        let me = holding::arrive(mapping)?;
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let pool = Pool::new(mapping, region);
        let owned = match pool.take_cached(me, kind, len) {
            Some(owned) => owned,
            None => allocate(mapping, me, kind, len)?,
        };
        match Room::of(mapping, &pool, me, owned, count) {
            Some(room) => Ok(room),
            None => {
                pool.refuse(owned);
                Err(holding::not_there(mapping).into())
            }
        }
    }

    /// A block with room for `count` values, which `me` has just come to own.
    #[inline(always)]
    fn of(
        mapping: &'a Arc<Mapping>,
        pool: &Pool<'a>,
        me: PeerId,
        owned: Owned<'a>,
        count: usize,
    ) -> Option<Room<'a, T>> {
        let len = bytes_of::<T>(count)?;
        // INVARIANT: `bytes` has checked range and alignment, and the caller has the block.
        let start = pool.region().bytes(owned.offset(), len, align_of::<T>())?.cast();
        Some(Room { mapping, me, owned, start, count })
    }

    /// The handle of the block.
    #[inline(always)]
    fn handle(self) -> OwnedBlock<T> {
        // INVARIANT: that of the room, which there is once.
        OwnedBlock {
            identity: self.mapping.identity(),
            mapping: Kept::new(self.mapping),
            me: AtomicU64::new(self.me.to_bits()),
            // INVARIANT: in this process.
            block: self.owned.remember(),
            is_adopted: AtomicU32::new(0),
            start: AtomicPtr::new(self.start.as_ptr()),
            count: self.count,
            is_packed: false,
            age: ends::age_of_new_box(),
            values: PhantomData,
        }
    }
}

#[inline(never)]
fn allocate(mapping: &Mapping, me: PeerId, kind: u64, len: u64) -> Result<Owned<'_>, AllocError> {
    // A pool of its own: one to point to would have to be written to memory, also where this is not
    // called.
    let pool = Pool::new(mapping, mapping.region().ok_or(AllocError::Corrupt)?);
    match pool.allocate_another(me, kind, len) {
        // What dead processes have left may be room enough.
        Err(error) if reap::make_room(mapping, me, &error) => pool.allocate(me, kind, len),
        result => result,
    }
}

#[cold]
fn too_aligned<T>() -> CreateError {
    CreateError::Alignment { align: align_of::<T>(), most: MOST_ALIGN }
}

#[cold]
fn too_long(mapping: &Mapping) -> CreateError {
    CreateError::OutOfMemory { requested: u64::MAX, available: mapping.layout().budget() }
}

impl<T: Shm> OwnedBlock<T> {
    /// A block with room for `count` values; whatever bytes lie there.
    #[inline]
    pub(crate) fn new(
        mapping: &Arc<Mapping>,
        kind: u64,
        count: usize,
    ) -> Result<OwnedBlock<T>, CreateError> {
        Room::new(mapping, kind, count).map(Room::handle)
    }

    /// A block of zeros.
    #[inline(always)]
    pub(crate) fn zeroed(
        mapping: &Arc<Mapping>,
        kind: u64,
        count: usize,
    ) -> Result<OwnedBlock<T>, CreateError> {
        let room = Room::new(mapping, kind, count)?;
        // SAFETY: by the invariant there is room for so many, and nobody else has the block; zeros
        // are a valid `T: Shm`.
        unsafe { room.start.write_bytes(0, count) };
        Ok(room.handle())
    }

    /// A block with copies of these values.
    #[inline(always)]
    pub(crate) fn of_values(
        mapping: &Arc<Mapping>,
        kind: u64,
        values: &[T],
    ) -> Result<OwnedBlock<T>, CreateError> {
        let room = Room::new(mapping, kind, values.len())?;
        let from = NonNull::from(values).cast();
        // SAFETY: by the invariant there is room for so many, and nobody else has the block, so
        // that `values` are not in it; `T: Shm` can be copied.
        unsafe { room.start.copy_from_nonoverlapping(from, values.len()) };
        Ok(room.handle())
    }

    /// A block with this value.
    #[inline(always)]
    pub(crate) fn of_value(
        mapping: &Arc<Mapping>,
        kind: u64,
        value: T,
    ) -> Result<OwnedBlock<T>, CreateError> {
        let room = Room::new(mapping, kind, 1)?;
        // SAFETY: by the invariant there is room for a value, and nobody else has the block.
        unsafe { room.start.write(value) };
        Ok(room.handle())
    }

    /// The segment that the block lies in.
    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Forgets that there is room for more than `count` values.
    pub(crate) fn shrink_to(&mut self, count: usize) {
        // INVARIANT: a part of what was there.
        self.count = self.count.min(count);
    }

    /// How many values there is room for.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The values.
    ///
    /// # Panics
    /// If this process is not the owner.
    #[inline]
    #[track_caller]
    pub(crate) fn values(&self) -> &[T] {
        let start = self.start();
        // SAFETY: by the invariant, as this is the process; any bits are a valid `T: Shm`. The
        // borrow of the handle lets nobody write.
        unsafe { std::slice::from_raw_parts(start, self.count) }
    }

    /// The values, to be changed.
    ///
    /// # Panics
    /// If this process is not the owner.
    #[inline]
    #[track_caller]
    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        let start = self.start();
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(start, self.count) }
    }

    /// Makes the block part of a message, of which `len` values count.
    ///
    /// # Panics
    /// If this process is not the owner.
    pub(crate) fn pack(&mut self, len: usize, departure: &Departure<'_>) -> Result<Name, Fault> {
        self.start();
        if departure.mapping.file_id() != self.mapping.file_id() {
            return Err(Fault::OtherSegment);
        }
        let (pool, owned) = self.owned().ok_or(Fault::Corrupt)?;
        let carried = pool.carry(&owned, departure.carrier).ok_or(Fault::Corrupt)?;
        self.is_packed = true;
        self.block.was_carried(carried);
        let generation = carried.generation.into();
        Ok(Name { block: carried.id.to_bits(), generation, len: len as u64 })
    }

    /// Makes the block an object that other processes can open. Nobody writes its values any more.
    pub(crate) fn share(self) -> Result<Holding, Fault> {
        let (_, owned) = self.owned().ok_or(Fault::Corrupt)?;
        let len = bytes_of::<T>(self.count).ok_or(Fault::Corrupt)?;
        // This handle is dropped after that, and finds that the block is its own no more.
        Holding::share(&self.mapping, &owned, len)
    }

    /// Takes the block back if it was made part of a message, which is not sent.
    pub(crate) fn restore(&mut self) {
        if let (Some(me), Some(region)) = (identity::own(&self.mapping), self.mapping.region()) {
            let carried = Carried { id: self.block.id(), generation: self.block.generation() };
            let pool = Pool::new(&self.mapping, region);
            if !self.is_packed {
                return;
            }
            if let Some(owned) = pool.take_back(carried, me.owner()) {
                // INVARIANT: the block is ours again, and the handle has its generation.
                self.block = owned.remember();
                *self.is_adopted.get_mut() = 0;
                self.is_packed = false;
            } else {
                // Somebody has written over its word. The handle is that of no process.
                *self.me.get_mut() = NOBODY;
            }
        }
    }

    /// Takes the block out of a message. It must be of this kind; gives the number of values in it
    /// that count.
    pub(crate) fn unpack(
        name: Name,
        kind: u64,
        arrival: &Arrival<'_>,
    ) -> Result<(OwnedBlock<T>, usize), Fault> {
        let id = BlockId::from_bits(name.block).ok_or(Fault::Corrupt)?;
        let generation = u32::try_from(name.generation).map_err(|_| Fault::Corrupt)?;
        let Arrival { holder, carrier } = arrival;
        let carried = Carried { id, generation };
        let pool = holder.pool();
        let taken = pool.take(carried, *carrier, holder.me.owner());
        let taken = taken.ok_or_else(|| holding::not_there(holder.mapping()))?;
        let count = (taken.len / size_of::<T>().max(1) as u64) as usize;
        let count = if size_of::<T>() == 0 { usize::MAX } else { count };
        let fits = taken.kind == kind && name.len <= count as u64;
        let room = Room::of(holder.mapping(), &pool, holder.me, taken.owned, count);
        match room.filter(|_| fits) {
            Some(room) => Ok((room.handle(), name.len as usize)),
            None => {
                pool.give_back(&taken.owned);
                Err(if taken.kind == kind { Fault::Corrupt } else { Fault::WrongType })
            }
        }
    }
}

impl<T> OwnedBlock<T> {
    /// Whether this process owns the block.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_known() || self.adopt()
    }

    /// Whether this is the process that was found to be the owner.
    #[inline]
    fn is_known(&self) -> bool {
        // SAFETY: it lives as long as the mapping.
        let identity = unsafe { self.identity.as_ref() };
        // Acquire pairs with the Release store of the identity: a thread that sees it sees the
        // mapping. And with that of `me`: it sees `start` and `is_adopted`.
        identity.load(Ordering::Acquire) == self.me.load(Ordering::Acquire)
    }

    /// Where the values lie.
    ///
    /// # Panics
    /// If this process is not the owner.
    #[inline]
    #[track_caller]
    fn start(&self) -> *mut T {
        if !self.is_known() && !self.adopt() {
            not_ours();
        }
        // Relaxed: see `is_known`.
        self.start.load(Ordering::Relaxed)
    }

    /// Finds out, in a forked child, whether the block is its own by now, and where it lies.
    #[cold]
    #[inline(never)]
    fn adopt(&self) -> bool {
        // A process that the parent did not fork by this crate got nothing, and does not attach
        // only to find that out.
        let may_be = identity::own(&self.mapping).is_some()
            || identity::reserved(&self.mapping, sys::process::pid()).is_some();
        if !may_be {
            return false;
        }
        let found = holding::arrive(&self.mapping).ok().and_then(|me| {
            let region = self.mapping.region()?;
            let pool = Pool::new(&self.mapping, region);
            let (block, generation) = (self.block.id(), self.block.generation());
            let owned = pool.passed(block, generation, me.owner(), self.age)?;
            let len = bytes_of::<T>(self.count)?;
            let start = region.bytes(owned.offset(), len, align_of::<T>())?;
            Some((me, start))
        });
        let Some((me, start)) = found else { return false };
        // INVARIANT: the word names this process, and `bytes` has checked range and alignment.
        // Another thread that is here finds the same.
        self.start.store(start.cast().as_ptr(), Ordering::Relaxed);
        self.is_adopted.store(1, Ordering::Relaxed);
        // Release pairs with the Acquire in `is_known`.
        self.me.store(me.to_bits(), Ordering::Release);
        true
    }

    /// The block, as a name.
    #[cfg(test)]
    pub(crate) fn handle(&self) -> Handle {
        let (segment, generation) = (self.mapping.id(), self.block.generation().into());
        Handle { segment, block: self.block.id().to_bits(), generation }
    }

    /// The block as the heap knows it, if this process owns it.
    #[inline]
    fn owned(&self) -> Option<(Pool<'_>, Owned<'_>)> {
        if self.is_packed || !self.is_ours() {
            return None;
        }
        let pool = Pool::new(&self.mapping, self.mapping.region()?);
        // Relaxed: see `is_known`.
        if self.is_adopted.load(Ordering::Relaxed) != 0 {
            return Some((pool, self.find()?));
        }
        // SAFETY: by the invariant this is the process that remembers it, and the mapping lives as
        // long as the handle.
        let owned = unsafe { self.block.owned(&pool) }?;
        owned.is_unchanged().then_some((pool, owned))
    }

    /// As [`OwnedBlock::owned`], for a process that did not make the handle.
    #[cold]
    #[inline(never)]
    fn find(&self) -> Option<Owned<'_>> {
        let me = identity::own(&self.mapping)?;
        let pool = Pool::new(&self.mapping, self.mapping.region()?);
        pool.owned(self.block.id(), self.block.generation(), me.owner())
    }
}

impl<T> Drop for OwnedBlock<T> {
    fn drop(&mut self) {
        let Some((pool, owned)) = self.owned() else {
            return;
        };
        match ends::heir_in(self.mapping.file_id(), self.age) {
            Some(heir) => drop(pool.pass(&owned, heir, self.age)),
            None => pool.give_back(&owned),
        }
    }
}

impl<T> fmt::Debug for OwnedBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedBlock").field("count", &self.count).finish_non_exhaustive()
    }
}

/// The bits of no id.
const NOBODY: u64 = u64::MAX;

/// Bytes of so many values; `None` if that is more than a slice can have.
#[inline]
fn bytes_of<T>(count: usize) -> Option<u64> {
    let len = count.checked_mul(size_of::<T>())?;
    isize::try_from(len).ok().map(|_| len as u64)
}

#[cold]
#[inline(never)]
#[track_caller]
fn not_ours() -> ! {
    panic!("a box was used that another process owns: its handle was copied by a fork")
}
