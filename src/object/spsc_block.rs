//! The block of a ring with one sender and one receiver: header and slots.
//!
//! # Layout
//! Offsets in bytes from the start of the block, which is aligned to 128.
//! ```text
//! offset  size  field     written by               read by
//!      0     8  capacity  creator, before sharing  both, once, at attach
//!      8     8  stride    creator, before sharing  both, once, at attach
//!    128     8  tail      sender, Release          receiver, Acquire
//!    136     8  sender    whoever takes the role   the other side, to see whether it is taken
//!    256     8  head      receiver, Release        sender, Acquire
//!    264     8  receiver  whoever takes the role   the other side, to see whether it is taken
//!    384     4  items     sleeping receiver        sender, to see whether to wake
//!    512     4  space     sleeping sender          receiver, to see whether to wake
//!    640     -  slot[0] .. slot[capacity - 1], each of `stride` bytes
//! ```
//! A role is held by one process; its word is 0, or names the process by
//! [`PeerId`](crate::peer::PeerId).
#![expect(unsafe_code, reason = "the value of a slot is reached by a pointer")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::peer::Fault;
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::mpmc::is_capacity;
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;

/// The strictest alignment that a value in a slot can have.
pub(crate) const MOST_ALIGN: usize = 128;

const SLOTS_OFFSET: u64 = 640;

#[derive(Debug)]
#[repr(C, align(128))]
struct Line<T>(T);

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
struct Header {
    geometry: Line<Geometry>,
    sender: Line<SideWords>,
    receiver: Line<SideWords>,
    items: Line<Event>,
    space: Line<Event>,
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
    assert!(offset_of!(Header, items) == 384);
    assert!(offset_of!(Header, space) == 512);
    assert!(size_of::<Header>() as u64 == SLOTS_OFFSET);
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Header {}

/// The numbers that say where everything lies: private to the process once they were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    stride: u64,
}

impl Shape {
    /// The shape for `capacity` values of this size; `None` if the bytes cannot be counted.
    pub(crate) fn new(capacity: u64, size: u64) -> Option<Shape> {
        let shape = Shape { capacity, stride: size };
        shape.checked_len().map(|_| shape)
    }

    fn checked_len(&self) -> Option<u64> {
        self.capacity.checked_mul(self.stride)?.checked_add(SLOTS_OFFSET)
    }

    /// Bytes of a block with this shape.
    pub(crate) fn len(&self) -> u64 {
        self.checked_len().unwrap_or(u64::MAX)
    }

    /// Reads the shape of an existing ring and checks it against the block and the size of its
    /// values.
    pub(crate) fn read(
        region: Region<'_>,
        offset: u64,
        block_len: u64,
        size: u64,
    ) -> Result<Shape, Fault> {
        let header: &Header = region.at(offset).ok_or(Fault::Corrupt)?;
        // Relaxed: written before the block was shared, ordered by its word. Each is read once.
        let capacity = header.geometry.0.capacity.load(Ordering::Relaxed);
        let stride = header.geometry.0.stride.load(Ordering::Relaxed);
        let shape = Shape { capacity, stride };
        let sound = is_capacity(capacity)
            && stride == size
            && shape.checked_len().is_some_and(|len| len <= block_len);
        if sound { Ok(shape) } else { Err(Fault::Corrupt) }
    }
}

/// A ring in the segment, as seen from this process.
///
/// # Invariants
/// `first` points to `capacity * stride` bytes, mapped for `'a`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpscBlock<'a> {
    pub(crate) sender: &'a SideWords,
    pub(crate) receiver: &'a SideWords,
    pub(crate) items: &'a Event,
    pub(crate) space: &'a Event,
    first: NonNull<u8>,
    shape: Shape,
    mapping: PhantomData<&'a AtomicU64>,
}

impl<'a> SpscBlock<'a> {
    /// Writes an empty ring into a block that belongs to this process alone.
    pub(crate) fn build(
        region: Region<'a>,
        offset: u64,
        shape: &Shape,
        align: usize,
    ) -> Option<()> {
        let header: &Header = region.at(offset)?;
        // Relaxed: published with the block's word.
        header.geometry.0.capacity.store(shape.capacity, Ordering::Relaxed);
        header.geometry.0.stride.store(shape.stride, Ordering::Relaxed);
        for side in [&header.sender.0, &header.receiver.0] {
            side.index.store(0, Ordering::Relaxed);
            side.role.store(0, Ordering::Relaxed);
        }
        header.items.0.reset();
        header.space.0.reset();
        SpscBlock::view(region, offset, shape, align).map(drop)
    }

    /// The ring at `offset`; `None` if it does not lie within the segment.
    #[inline]
    pub(crate) fn view(
        region: Region<'a>,
        offset: u64,
        shape: &Shape,
        align: usize,
    ) -> Option<SpscBlock<'a>> {
        let header: &Header = region.at(offset)?;
        // INVARIANT: `bytes` checked the range.
        let first = region.bytes(offset + SLOTS_OFFSET, shape.capacity * shape.stride, align)?;
        Some(SpscBlock {
            sender: &header.sender.0,
            receiver: &header.receiver.0,
            items: &header.items.0,
            space: &header.space.0,
            first,
            shape: *shape,
            mapping: PhantomData,
        })
    }

    /// Where the value of slot `index` lies.
    #[inline]
    pub(crate) fn payload(&self, index: u64) -> NonNull<u8> {
        // Sides keep the index in range; this makes it so whatever they do.
        let index = index.min(self.shape.capacity - 1);
        // SAFETY: `index < capacity`, so by the invariant the slot lies within the mapped bytes.
        unsafe { self.first.add((index * self.shape.stride) as usize) }
    }
}
