//! The block of a ring with one sender and one receiver: header and slots.
//!
//! # Layout
//! Offsets in bytes from the start of the block, which is aligned to 128.
//! ```text
//! offset  size  field     written by               read by
//!      0     8  capacity  creator, before sharing  both, once, at attach
//!      8     8  stride    creator, before sharing  both, once, at attach
//!    128     8  tail      sender, Release          receiver, Acquire
//!    136     8  sender    a process that takes it  the other side, to see whether it is taken
//!    256     8  head      receiver, Release        sender, Acquire
//!    264     8  receiver  a process that takes it  the other side, to see whether it is taken
//!    384     4  items     sleeping receiver        sender, to see whether to wake
//!    388     4  closed    a process that closes    both, when they have run out of slots
//!    512     4  space     sleeping sender          receiver, to see whether to wake
//!    640   512  ends      see `ends`               both, when they have run out of slots
//!   1152     -  slot[0] .. slot[capacity - 1], each of `stride` bytes
//! ```
//! A role is *used* by one process; its word is 0, or names the process by
//! [`PeerId`](crate::peer::PeerId). Any number of processes may *have ends* of the role, one of
//! which uses it: a bit in `ends` for each. The word is taken only by a process that has its bit.
//!
//! `closed` is 0, `CLOSED`, or `CLOSED | DRAINED` once a receiver has been told that nothing is
//! left.
#![expect(unsafe_code, reason = "the slots lie behind the header, and values in slots")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::heap::Pool;
use crate::heap::pool::Attached;
use crate::object::payload::Payload;
use crate::object::place::Block;
use crate::peer::{self, Fault};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::position::is_capacity;
use crate::ring::spsc::Turn;
use crate::segment::Shm;
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;

use super::ends::{ENDS_LEN, Ends, Role};
use super::line::{Line, MOST_ALIGN};

const SLOTS_OFFSET: u64 = 640 + ENDS_LEN;

const CLOSED_BIT: u32 = 1 << 0;
/// A receiver was told that the ring is closed and nothing is left. Nobody receives anything then.
const DRAINED_BIT: u32 = 1 << 1;

#[derive(Debug)]
#[repr(C)]
struct Geometry {
    capacity: AtomicU64,
    stride: AtomicU64,
}

/// One side's words.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SideWords {
    /// Messages published (sender) or released (receiver) so far.
    pub(crate) index: AtomicU64,
    /// Which process has the role; 0 if none.
    pub(crate) role: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Signals {
    items: Event,
    closed: AtomicU32,
}

#[derive(Debug)]
#[repr(C)]
struct Header {
    geometry: Line<Geometry>,
    sender: Line<SideWords>,
    receiver: Line<SideWords>,
    signals: Line<Signals>,
    space: Line<Event>,
    ends: Ends,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Header, geometry) == 0);
    assert!(offset_of!(Geometry, capacity) == 0);
    assert!(offset_of!(Geometry, stride) == 8);
    assert!(offset_of!(Header, sender) == 128);
    assert!(offset_of!(SideWords, index) == 0);
    assert!(offset_of!(SideWords, role) == 8);
    assert!(offset_of!(Header, receiver) == 256);
    assert!(offset_of!(Header, signals) == 384);
    assert!(offset_of!(Signals, items) == 0);
    assert!(offset_of!(Signals, closed) == 4);
    assert!(offset_of!(Header, space) == 512);
    assert!(offset_of!(Header, ends) == 640);
    assert!(size_of::<Header>() as u64 == SLOTS_OFFSET);
    assert!(SLOTS_OFFSET.is_multiple_of(MOST_ALIGN as u64));
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Header {}

/// The numbers that say where everything lies. A private copy, checked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    capacity: u64,
    len: u64,
}

impl Shape {
    /// The shape for `capacity` values of type `T`; `None` if the bytes cannot be counted.
    pub(crate) fn of<T: Shm>(capacity: u64) -> Option<Shape> {
        let len = capacity.checked_mul(size_of::<T>() as u64)?.checked_add(SLOTS_OFFSET)?;
        Some(Shape { capacity, len })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Reads the shape of an existing ring of `T`, in a block of `len` bytes.
    pub(crate) fn read<T: Shm>(region: Region<'_>, offset: u64, len: u64) -> Result<Shape, Fault> {
        let header: &Header = region.at(offset).ok_or(Fault::Corrupt)?;
        // Relaxed: written before the block was shared, ordered by its word. Each is read once.
        let capacity = header.geometry.capacity.load(Ordering::Relaxed);
        let stride = header.geometry.stride.load(Ordering::Relaxed);
        match Shape::of::<T>(capacity) {
            Some(shape)
                if is_capacity(capacity) && stride == size_of::<T>() as u64 && shape.len <= len =>
            {
                Ok(shape)
            }
            _ => Err(Fault::Corrupt),
        }
    }
}

/// A ring of `T` as it lies in its block.
///
/// # Invariants
/// `header` is the address of a `Header` in a mapping of the process that uses this, with
/// `capacity` values of type `T` behind it, at least one.
pub(crate) struct SpscBlock<T> {
    header: NonNull<Header>,
    capacity: u64,
    values: PhantomData<T>,
}

impl<T: Shm> Block for SpscBlock<T> {
    type Shape = Shape;

    fn len(shape: &Shape) -> u64 {
        shape.len
    }

    fn view(region: Region<'_>, offset: u64, shape: &Shape) -> Option<Self> {
        // Slots follow the header, and are aligned like it to at least what values may need.
        let block = region.bytes(offset, shape.len, align_of::<Header>())?;
        if shape.capacity == 0 || Shape::of::<T>(shape.capacity) != Some(*shape) {
            return None;
        }
        // INVARIANT: `bytes` checked the range and the alignment, for values of this type.
        Some(SpscBlock { header: block.cast(), capacity: shape.capacity, values: PhantomData })
    }
}

impl<T: Shm> SpscBlock<T> {
    /// Writes an empty ring into a block that belongs to this process alone.
    pub(crate) fn build(&self) {
        let Header { geometry, sender, receiver, signals, space, ends } = self.header();
        // Relaxed throughout: published with the block's word.
        geometry.capacity.store(self.capacity, Ordering::Relaxed);
        geometry.stride.store(size_of::<T>() as u64, Ordering::Relaxed);
        for side in [sender, receiver] {
            side.index.store(0, Ordering::Relaxed);
            side.role.store(0, Ordering::Relaxed);
        }
        signals.items.reset();
        signals.closed.store(0, Ordering::Relaxed);
        space.reset();
        ends.reset();
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: by the invariant, and a header may be viewed while others write it.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline]
    pub(crate) fn sender(&self) -> &SideWords {
        &self.header().sender
    }

    #[inline]
    pub(crate) fn receiver(&self) -> &SideWords {
        &self.header().receiver
    }

    /// Notified when a message was sent.
    #[inline]
    pub(crate) fn items(&self) -> &Event {
        &self.header().signals.items
    }

    /// Notified when a slot came free.
    #[inline]
    pub(crate) fn space(&self) -> &Event {
        &self.header().space
    }

    /// Who has ends of the roles.
    #[inline]
    pub(crate) fn ends(&self) -> &Ends {
        &self.header().ends
    }

    /// Closes the ring. What was sent before is still received.
    pub(crate) fn close(&self) {
        // Release pairs with the Acquire in `closed`: who sees it sees what the closer has
        // published.
        self.header().signals.closed.fetch_or(CLOSED_BIT, Ordering::AcqRel);
    }

    /// Takes note that a receiver has been told that nothing is left in the closed ring.
    pub(crate) fn set_drained(&self) {
        self.header().signals.closed.fetch_or(DRAINED_BIT, Ordering::AcqRel);
    }

    /// Acquire: as [`SpscBlock::close`] says.
    #[inline]
    fn closed(&self) -> u32 {
        self.header().signals.closed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed() & CLOSED_BIT != 0
    }

    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.closed() & DRAINED_BIT != 0
    }

    /// Whether every message that is published has been released. A snapshot.
    pub(crate) fn is_empty(&self) -> bool {
        // Acquire pairs with the stores of both sides.
        let head = self.receiver().index.load(Ordering::Acquire);
        self.sender().index.load(Ordering::Acquire) == head
    }

    #[inline]
    fn payload(&self, turn: &Turn<'_>) -> Payload<T> {
        // SAFETY: at least one value lies behind the header.
        let first: NonNull<T> = unsafe { self.header.add(1) }.cast();
        // SAFETY: a turn's slot is less than the capacity that its side was resumed with, which is
        // that of this block, so the value lies within it.
        let value = unsafe { first.add(turn.slot() as usize) };
        // SAFETY: as above, and aligned like the header.
        unsafe { Payload::new(value.cast()) }
    }

    /// Writes the value of the sender's turn.
    #[inline]
    pub(crate) fn write(&self, turn: &mut Turn<'_>, value: &T) {
        // SAFETY: a free slot is the sender's until it publishes (`ring::spsc`). Each role has one
        // `Side`, which the turn has borrowed.
        unsafe { self.payload(turn).write(value) };
    }

    /// Copies the value of the receiver's turn.
    #[inline]
    pub(crate) fn read(&self, turn: &Turn<'_>) -> T {
        // SAFETY: a published slot is the receiver's until it releases. As above.
        unsafe { self.payload(turn).read() }
    }
}

/// The header of a ring, whatever its values are.
fn view<'a>(pool: &Pool<'a>, object: Attached) -> Option<&'a Header> {
    if object.len < SLOTS_OFFSET {
        return None;
    }
    pool.region().at(object.offset)
}

/// Takes every end from the dead `owner`. The role that it used is left to its successor, who finds
/// in the words all that it had published or released.
pub(super) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) {
    if let Some(header) = view(pool, object) {
        for role in Role::BOTH {
            header.ends.release(role, peer::id::index_of(owner));
        }
        conclude(pool, object);
    }
}

/// Wakes everybody if nobody has the ends of a role any more. For use after an end was given up
/// that was in a message, or a dead process's.
pub(super) fn conclude(pool: &Pool<'_>, object: Attached) {
    if let Some(Header { signals, space, ends, .. }) = view(pool, object)
        && ends.conclude_both(pool, object)
    {
        // Without asking whether anybody sleeps, as for a queue.
        signals.items.wake_all_unasked();
        space.wake_all_unasked();
    }
}

impl<T> Clone for SpscBlock<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SpscBlock<T> {}

impl<T> fmt::Debug for SpscBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpscBlock").field("header", &self.header).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    /// Its slots would lie in the blocks of others.
    #[test]
    fn a_ring_that_is_larger_than_its_block_is_not_opened() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let region = segment.mapping().region().expect("mapped");
        // A block that nobody has.
        let offset = segment.mapping().layout().classes().last().expect("a class").base;
        segment.mapping().back(offset, 4096).expect("memory");
        let header: &Header = region.at(offset).expect("within the segment");
        let read = |capacity, stride, len| {
            header.geometry.capacity.store(capacity, Ordering::Relaxed);
            header.geometry.stride.store(stride, Ordering::Relaxed);
            Shape::read::<u64>(region, offset, len)
        };
        let len = Shape::of::<u64>(8).expect("a shape").len;
        assert_eq!(read(8, 8, len).map(|shape| (shape.capacity, shape.len)), Ok((8, len)));
        for (capacity, stride, len) in [
            (8, 8, len - 1),
            (9, 8, len),
            (8, 4, len),
            (8, 16, len),
            (0, 8, len),
            ((1 << 24) + 1, 8, u64::MAX),
            (1 << 61, 8, u64::MAX),
            (u64::MAX, 8, u64::MAX),
        ] {
            let refused = read(capacity, stride, len).map(|shape| shape.capacity);
            assert_eq!(refused, Err(Fault::Corrupt), "{capacity} of {stride} in {len}");
        }
    }
}
