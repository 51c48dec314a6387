//! A queue's block: header and slots.
//!
//! # Layout
//! Offsets in bytes from the start of the block, which is aligned to 128. Words with different
//! writers sit two cache lines apart, as the prefetcher fetches lines in pairs.
//! ```text
//! offset  size  field     written by              read by
//!      0     8  capacity  creator, before sharing everybody, once, at attach
//!      8     8  stride    creator, before sharing everybody, once, at attach
//!     16     8  payload   creator, before sharing everybody, once, at attach
//!     24     8  policy    creator, before sharing everybody, once, at attach
//!    128     8  tail      senders                 senders
//!    256     8  head      receivers               receivers
//!    264     8  done      receivers               receivers, to find what comes back
//!    384     4  items     sleeping receivers      senders, to see whether to wake
//!    388     4  closed    whoever closes          everybody
//!    392     4  orphans   whoever recovers        receivers
//!    400     8  lost      whoever recovers        whoever asks
//!    512     4  space     sleeping senders        receivers, to see whether to wake
//!    640     -  slot[0] .. slot[capacity - 1], each of `stride` bytes: word, and at `payload` the value
//! ```
#![expect(unsafe_code, reason = "the payload of a claimed slot is reached by a pointer")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::peer::Fault;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::mpmc::{OnReaderDeath, Ring, Slots, is_capacity};
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;

/// The strictest alignment that a value in a slot can have.
pub(crate) const MOST_ALIGN: usize = 128;

const SLOTS_OFFSET: u64 = 640;
const BLOCK_ALIGN: usize = 128;

#[derive(Debug)]
#[repr(C, align(128))]
struct Line<T>(T);

#[derive(Debug)]
#[repr(C)]
struct Geometry {
    capacity: AtomicU64,
    stride: AtomicU64,
    payload: AtomicU64,
    policy: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Signals {
    items: Event,
    closed: AtomicU32,
    orphans: AtomicU32,
    reserved: AtomicU32,
    lost: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct HeadWords {
    head: AtomicU64,
    done: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Header {
    geometry: Line<Geometry>,
    tail: Line<AtomicU64>,
    head: Line<HeadWords>,
    signals: Line<Signals>,
    space: Line<Event>,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Header, geometry) == 0);
    assert!(offset_of!(Geometry, capacity) == 0);
    assert!(offset_of!(Geometry, stride) == 8);
    assert!(offset_of!(Geometry, payload) == 16);
    assert!(offset_of!(Geometry, policy) == 24);
    assert!(offset_of!(Header, tail) == 128);
    assert!(offset_of!(Header, head) == 256);
    assert!(offset_of!(HeadWords, done) == 8);
    assert!(offset_of!(Header, signals) == 384);
    assert!(offset_of!(Signals, items) == 0);
    assert!(offset_of!(Signals, closed) == 4);
    assert!(offset_of!(Signals, orphans) == 8);
    assert!(offset_of!(Signals, lost) == 16);
    assert!(offset_of!(Header, space) == 512);
    assert!(size_of::<Header>() as u64 == SLOTS_OFFSET);
    assert!(align_of::<Header>() == BLOCK_ALIGN);
    assert!(
        BLOCK_ALIGN.is_multiple_of(MOST_ALIGN) && SLOTS_OFFSET.is_multiple_of(MOST_ALIGN as u64)
    );
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Header {}

const POLICY_DROP: u64 = 0;
const POLICY_REDELIVER: u64 = 1;

/// The numbers that say where everything lies: private to the process once they were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    stride: u64,
    payload: u64,
    pub(crate) policy: OnReaderDeath,
    len: u64,
}

impl Shape {
    /// The shape for `capacity` values of this size and alignment; `None` if the bytes cannot be
    /// counted.
    pub(crate) fn new(
        capacity: u64,
        size: u64,
        align: u64,
        policy: OnReaderDeath,
    ) -> Option<Shape> {
        let word = size_of::<AtomicU64>() as u64;
        let payload = word.max(align);
        let stride = payload.checked_add(size)?.checked_next_multiple_of(payload)?;
        Shape::of(capacity, stride, payload, policy)
    }

    fn of(capacity: u64, stride: u64, payload: u64, policy: OnReaderDeath) -> Option<Shape> {
        let len = capacity.checked_mul(stride)?.checked_add(SLOTS_OFFSET)?;
        Some(Shape { capacity, stride, payload, policy, len })
    }

    /// Bytes of a block with this shape.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads the shape of an existing queue and checks it against the block and against what values
    /// need.
    pub(crate) fn read(region: Region<'_>, offset: u64, block_len: u64) -> Result<Shape, Fault> {
        let header: &Header = region.at(offset).ok_or(Fault::Corrupt)?;
        // Relaxed: written before the block was shared, ordered by its word. Each is read once.
        let geometry = &header.geometry.0;
        let capacity = geometry.capacity.load(Ordering::Relaxed);
        let stride = geometry.stride.load(Ordering::Relaxed);
        let payload = geometry.payload.load(Ordering::Relaxed);
        let policy = match geometry.policy.load(Ordering::Relaxed) {
            POLICY_DROP => OnReaderDeath::Drop,
            POLICY_REDELIVER => OnReaderDeath::Redeliver,
            _ => return Err(Fault::Corrupt),
        };
        let shape = Shape::of(capacity, stride, payload, policy).ok_or(Fault::Corrupt)?;
        let sound = is_capacity(capacity)
            && payload.is_power_of_two()
            && (8..=MOST_ALIGN as u64).contains(&payload)
            && stride >= payload
            && stride.is_multiple_of(payload)
            && shape.len <= block_len;
        if sound { Ok(shape) } else { Err(Fault::Corrupt) }
    }

    /// Whether slots of this shape hold values of this size and alignment, and no others.
    pub(crate) fn fits(&self, size: u64, align: u64) -> bool {
        Shape::new(self.capacity, size, align, self.policy).as_ref() == Some(self)
    }
}

/// The words of the slots in the segment.
///
/// # Invariants
/// `first` points to `count * stride` bytes, at least one slot, mapped for `'a`, and is aligned to
/// the payload offset, of which `stride` is a multiple; each slot begins with a word that is only
/// ever used as an atomic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotArray<'a> {
    first: NonNull<u8>,
    count: u64,
    stride: u64,
    mapping: PhantomData<&'a AtomicU64>,
}

impl SlotArray<'_> {
    #[inline]
    fn slot(&self, index: u64) -> NonNull<u8> {
        // Rings keep the index in range; this makes it so whatever they do.
        let index = index.min(self.count - 1);
        // SAFETY: `index < count`, so by the invariant the slot lies within the mapped bytes.
        unsafe { self.first.add((index * self.stride) as usize) }
    }
}

impl Slots for SlotArray<'_> {
    #[inline]
    fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    fn word(&self, index: u64) -> &AtomicU64 {
        // SAFETY: by the invariant a slot begins with an aligned word that lives as long as the
        // mapping and is only used atomically.
        unsafe { self.slot(index).cast().as_ref() }
    }
}

/// A queue in the segment, as seen from this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueBlock<'a> {
    pub(crate) ring: Ring<'a, SlotArray<'a>>,
    pub(crate) items: &'a Event,
    pub(crate) space: &'a Event,
    payload: u64,
}

impl<'a> QueueBlock<'a> {
    /// Writes an empty queue into a block that belongs to this process alone.
    pub(crate) fn build(region: Region<'a>, offset: u64, shape: &Shape) -> Option<QueueBlock<'a>> {
        let header: &Header = region.at(offset)?;
        let geometry = &header.geometry.0;
        // Relaxed: published with the block's word.
        geometry.capacity.store(shape.capacity, Ordering::Relaxed);
        geometry.stride.store(shape.stride, Ordering::Relaxed);
        geometry.payload.store(shape.payload, Ordering::Relaxed);
        let policy = match shape.policy {
            OnReaderDeath::Drop => POLICY_DROP,
            OnReaderDeath::Redeliver => POLICY_REDELIVER,
        };
        geometry.policy.store(policy, Ordering::Relaxed);
        let block = QueueBlock::view(region, offset, shape)?;
        block.items.reset();
        block.space.reset();
        let Ring { tail, head, done, orphans, closed, lost, .. } = block.ring;
        for word in [tail, head, done, lost] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [orphans, closed] {
            word.store(0, Ordering::Relaxed);
        }
        for index in 0..shape.capacity {
            block.ring.slots.word(index).store(0, Ordering::Relaxed);
        }
        Some(block)
    }

    /// The queue at `offset`; `None` if it does not lie within the segment.
    #[inline]
    pub(crate) fn view(region: Region<'a>, offset: u64, shape: &Shape) -> Option<QueueBlock<'a>> {
        // One check for all: slots follow the header, and are aligned like it to at least what
        // values may need.
        let block = region.bytes(offset, shape.len, BLOCK_ALIGN)?;
        // SAFETY: in bounds and aligned, mapped for `'a`; a header is `Shared`.
        let header: &Header = unsafe { block.cast().as_ref() };
        // SAFETY: the length of a shape covers the header.
        let first = unsafe { block.add(SLOTS_OFFSET as usize) };
        // INVARIANT: `bytes` checked the range and the alignment; shapes have a capacity of at
        // least 1.
        let slots =
            SlotArray { first, count: shape.capacity, stride: shape.stride, mapping: PhantomData };
        let signals = &header.signals.0;
        let ring = Ring {
            tail: &header.tail.0,
            head: &header.head.0.head,
            done: &header.head.0.done,
            orphans: &signals.orphans,
            closed: &signals.closed,
            lost: &signals.lost,
            slots,
            policy: shape.policy,
        };
        Some(QueueBlock {
            ring,
            items: &signals.items,
            space: &header.space.0,
            payload: shape.payload,
        })
    }

    /// Where the value of slot `index` lies: as many bytes as the shape was made for, aligned as it
    /// was made for.
    #[inline]
    pub(crate) fn payload(&self, index: u64) -> NonNull<u8> {
        // SAFETY: the payload offset lies within the slot, since `stride >= payload`.
        unsafe { self.ring.slots.slot(index).add(self.payload as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fit_the_values_they_were_made_for() {
        for (size, align) in [(0, 1), (1, 1), (8, 8), (24, 8), (64, 64), (128, 128), (1 << 20, 1)] {
            let shape = Shape::new(3, size, align, OnReaderDeath::Drop).expect("a shape");
            assert!(shape.fits(size, align));
            assert!(shape.payload >= 8 && shape.payload.is_multiple_of(align));
            assert!(shape.stride >= shape.payload + size);
        }
        assert_eq!(Shape::new(3, 8, 8, OnReaderDeath::Drop).expect("a shape").stride, 16);
        assert!(!Shape::new(3, 8, 8, OnReaderDeath::Drop).expect("a shape").fits(16, 8));
    }

    #[test]
    fn bytes_that_cannot_be_counted_have_no_shape() {
        assert_eq!(Shape::new(1 << 24, u64::MAX, 1, OnReaderDeath::Drop), None);
        assert_eq!(Shape::new(1 << 24, 1 << 60, 1, OnReaderDeath::Drop), None);
    }
}
