//! A queue's block: header and slots.
//!
//! # Layout
//! Offsets in bytes from the start of the block, which is aligned to 128. Words with different
//! writers lie two cache lines apart, as the prefetcher fetches lines in pairs.
//! ```text
//! offset  size  field     written by              read by
//!      0     8  capacity  creator, before sharing all, once, at attach
//!      8     8  stride    creator, before sharing all, once, at attach
//!     16     8  payload   creator, before sharing all, once, at attach
//!     24     8  policy    creator, before sharing all, once, at attach
//!    128     8  tail      senders                 senders
//!    256     8  head      receivers               receivers
//!    264     8  done      receivers               receivers, to find what comes back
//!    384     4  items     sleeping receivers      senders, to see whether to wake
//!    388     4  closed    a process that closes   all
//!    392     4  orphans   a process that recovers receivers
//!    400     8  lost      a process that recovers all
//!    512     4  space     sleeping senders        receivers, to see whether to wake
//!    640     -  slot[0] .. slot[capacity - 1], each of `stride` bytes: word, and at `payload` the value
//!      -   512  ends      of a channel: see `ends`; aligned to 128
//! ```
#![expect(unsafe_code, reason = "the slots lie behind the header, and values in slots")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::heap::Pool;
use crate::heap::block::Carrier;
use crate::heap::pool::Attached;
use crate::object::kind::Cargo;
use crate::object::parcel::Envelope;
use crate::object::payload::Payload;
use crate::object::place::Block;
use crate::peer::{self, Fault};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::mpmc::{Claim, OnReaderDeath, Ring, Slots};
use crate::ring::position::{Phase, Position, SlotWord, is_capacity};
use crate::segment::Shm;
use crate::segment::region::{Region, Shared};
use crate::sync::event::Event;

use super::ends::{ENDS_LEN, Ends, Role};
use super::line::{Line, MOST_ALIGN};

const SLOTS_OFFSET: u64 = 640;

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
struct HeadWords {
    head: AtomicU64,
    done: AtomicU64,
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
    assert!(offset_of!(HeadWords, head) == 0);
    assert!(offset_of!(HeadWords, done) == 8);
    assert!(offset_of!(Header, signals) == 384);
    assert!(offset_of!(Signals, items) == 0);
    assert!(offset_of!(Signals, closed) == 4);
    assert!(offset_of!(Signals, orphans) == 8);
    assert!(offset_of!(Signals, lost) == 16);
    assert!(offset_of!(Header, space) == 512);
    assert!(size_of::<Header>() as u64 == SLOTS_OFFSET);
    assert!(SLOTS_OFFSET.is_multiple_of(MOST_ALIGN as u64));
};

// SAFETY: a struct of atomics and padding that nobody reads.
unsafe impl Shared for Header {}

impl Header {
    /// The ring over slots that follow this header.
    #[inline]
    fn ring<'a>(&'a self, slots: SlotArray<'a>, policy: OnReaderDeath) -> Ring<'a, SlotArray<'a>> {
        Ring {
            tail: &self.tail,
            head: &self.head.head,
            done: &self.head.done,
            orphans: &self.signals.orphans,
            closed: &self.signals.closed,
            lost: &self.signals.lost,
            slots,
            policy,
        }
    }
}

const POLICY_DROP: u64 = 0;
const POLICY_REDELIVER: u64 = 1;
/// Beside the policy: the queue has ends.
const CHANNEL_BIT: u64 = 1 << 8;

fn policy_bits(policy: OnReaderDeath, is_channel: bool) -> u64 {
    let policy = match policy {
        OnReaderDeath::Drop => POLICY_DROP,
        OnReaderDeath::Redeliver => POLICY_REDELIVER,
    };
    if is_channel { policy | CHANNEL_BIT } else { policy }
}

/// Where the parts of a slot lie: the word, and at `payload` the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SlotLayout {
    payload: u64,
    stride: u64,
}

impl SlotLayout {
    /// For values of this size and alignment. Sizes of values fit into an `isize`, so nothing
    /// overflows.
    const fn of(size: usize, align: usize) -> SlotLayout {
        let word = size_of::<AtomicU64>() as u64;
        let payload = if align as u64 > word { align as u64 } else { word };
        SlotLayout { payload, stride: (payload + size as u64).next_multiple_of(payload) }
    }

    fn is_sound(self) -> bool {
        self.payload.is_power_of_two()
            && (size_of::<AtomicU64>() as u64..=MOST_ALIGN as u64).contains(&self.payload)
            && self.stride >= self.payload
            && self.stride.is_multiple_of(self.payload)
    }
}

/// The numbers that say where everything lies. A private copy, checked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    capacity: u64,
    policy: OnReaderDeath,
    slot: SlotLayout,
    /// Where the ends are, from the start of the block; 0 if there are none.
    ends: u64,
    len: u64,
}

impl Shape {
    /// The shape for `capacity` values of type `T`, of a queue or a channel; `None` if the bytes
    /// cannot be counted.
    pub(crate) fn of<T: Shm>(
        capacity: u64,
        policy: OnReaderDeath,
        is_channel: bool,
    ) -> Option<Shape> {
        let slot = SlotLayout::of(size_of::<T>(), align_of::<T>());
        Shape::with(capacity, policy, is_channel, slot)
    }

    fn with(
        capacity: u64,
        policy: OnReaderDeath,
        is_channel: bool,
        slot: SlotLayout,
    ) -> Option<Shape> {
        let len = capacity.checked_mul(slot.stride)?.checked_add(SLOTS_OFFSET)?;
        if !is_channel {
            return Some(Shape { capacity, policy, slot, ends: 0, len });
        }
        let ends = len.checked_next_multiple_of(MOST_ALIGN as u64)?;
        Some(Shape { capacity, policy, slot, ends, len: ends.checked_add(ENDS_LEN)? })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Reads the shape of an existing queue of `T`, in a block of `len` bytes.
    pub(crate) fn read<T: Shm>(region: Region<'_>, offset: u64, len: u64) -> Result<Shape, Fault> {
        let shape = Shape::read_any(region, offset, len)?;
        let fits = Shape::of::<T>(shape.capacity, shape.policy, shape.ends != 0) == Some(shape);
        if fits { Ok(shape) } else { Err(Fault::Corrupt) }
    }

    /// Reads the shape of an existing queue, whatever its values are, and checks it against the
    /// block.
    fn read_any(region: Region<'_>, offset: u64, block_len: u64) -> Result<Shape, Fault> {
        let header: &Header = region.at(offset).ok_or(Fault::Corrupt)?;
        // Relaxed: written before the block was shared, ordered by its word. Each is read once.
        let capacity = header.geometry.capacity.load(Ordering::Relaxed);
        let slot = SlotLayout {
            payload: header.geometry.payload.load(Ordering::Relaxed),
            stride: header.geometry.stride.load(Ordering::Relaxed),
        };
        let policy = header.geometry.policy.load(Ordering::Relaxed);
        let is_channel = policy & CHANNEL_BIT != 0;
        let policy = match policy & !CHANNEL_BIT {
            POLICY_DROP => OnReaderDeath::Drop,
            POLICY_REDELIVER => OnReaderDeath::Redeliver,
            _ => return Err(Fault::Corrupt),
        };
        let shape = Shape::with(capacity, policy, is_channel, slot).ok_or(Fault::Corrupt)?;
        let sound = is_capacity(capacity) && slot.is_sound() && shape.len <= block_len;
        if sound { Ok(shape) } else { Err(Fault::Corrupt) }
    }
}

/// The words of the slots in the segment.
///
/// # Invariants
/// `first` points to `count * stride` bytes, at least one slot, mapped for `'a`, and is aligned to
/// a power of two that is at least 8 and divides `stride`; each slot begins with a word that is
/// only ever used as an atomic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotArray<'a> {
    first: NonNull<u8>,
    count: u64,
    stride: u64,
    mapping: PhantomData<&'a AtomicU64>,
}

impl<'a> SlotArray<'a> {
    /// The slots behind `header`.
    ///
    /// # Safety
    /// As the invariant says.
    #[inline]
    unsafe fn behind(header: NonNull<Header>, count: u64, stride: u64) -> SlotArray<'a> {
        // SAFETY: at least one slot lies behind the header.
        let first = unsafe { header.add(1) }.cast();
        // INVARIANT: the caller's promise.
        SlotArray { first, count, stride, mapping: PhantomData }
    }

    #[inline]
    fn slot(&self, index: u64) -> NonNull<u8> {
        // Rings keep the index in range. This makes sure of it, whatever they do.
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

/// A queue of `T` as it lies in its block.
///
/// # Invariants
/// `header` is the address of a `Header` in a mapping of the process that uses this, with
/// `capacity` slots for values of type `T` behind it, at least one. If `ends` is not 0, an `Ends`
/// lies that many bytes behind `header`.
pub(crate) struct QueueBlock<T> {
    header: NonNull<Header>,
    capacity: u64,
    policy: OnReaderDeath,
    ends: u64,
    values: PhantomData<T>,
}

impl<T: Shm> Block for QueueBlock<T> {
    type Shape = Shape;

    fn len(shape: &Shape) -> u64 {
        shape.len
    }

    fn view(region: Region<'_>, offset: u64, shape: &Shape) -> Option<Self> {
        // Slots follow the header, and are aligned like it to at least what values may need.
        let block = region.bytes(offset, shape.len, align_of::<Header>())?;
        let Shape { capacity, policy, slot, ends, .. } = *shape;
        if slot != Self::SLOT || capacity == 0 {
            return None;
        }
        // INVARIANT: `bytes` checked the range and the alignment, for slots of this layout, and the
        // ends begin on a multiple of their alignment.
        Some(QueueBlock { header: block.cast(), capacity, policy, ends, values: PhantomData })
    }
}

impl<T: Shm> QueueBlock<T> {
    /// A constant, so that the compiler can compute addresses of slots by a shift.
    const SLOT: SlotLayout = SlotLayout::of(size_of::<T>(), align_of::<T>());

    /// Writes an empty queue into a block that belongs to this process alone.
    pub(crate) fn build(&self) {
        let Header { geometry, signals, space, .. } = self.header();
        // Relaxed throughout: published with the block's word.
        geometry.capacity.store(self.capacity, Ordering::Relaxed);
        geometry.stride.store(Self::SLOT.stride, Ordering::Relaxed);
        geometry.payload.store(Self::SLOT.payload, Ordering::Relaxed);
        geometry.policy.store(policy_bits(self.policy, self.ends != 0), Ordering::Relaxed);
        if let Some(ends) = self.ends() {
            ends.reset();
        }
        signals.items.reset();
        space.reset();
        let Ring { tail, head, done, orphans, closed, lost, slots, .. } = self.ring();
        for word in [tail, head, done, lost] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [orphans, closed] {
            word.store(0, Ordering::Relaxed);
        }
        for index in 0..self.capacity {
            slots.word(index).store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: by the invariant, and a header may be viewed while others write it.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    pub(crate) fn ring(&self) -> Ring<'_, SlotArray<'_>> {
        // SAFETY: by the invariant; a block is aligned to more than 8, and so is `SLOT.stride`.
        let slots = unsafe { SlotArray::behind(self.header, self.capacity, Self::SLOT.stride) };
        self.header().ring(slots, self.policy)
    }

    /// Who has the ends, if this is a channel.
    #[inline]
    pub(crate) fn ends(&self) -> Option<&Ends> {
        if self.ends == 0 {
            return None;
        }
        // SAFETY: by the invariant within the mapping.
        let ends = unsafe { self.header.byte_add(self.ends as usize) };
        // SAFETY: by the invariant, and `Ends` may be viewed while others write them.
        Some(unsafe { ends.cast().as_ref() })
    }

    /// Whether a message comes back when its reader dies.
    #[inline]
    pub(crate) fn redelivers(&self) -> bool {
        self.policy == OnReaderDeath::Redeliver
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

    #[inline]
    fn payload(&self, claim: &Claim) -> Payload<T> {
        let slot = self.ring().slots.slot(claim.index());
        // SAFETY: within the slot, as `SLOT` was made for a `T`.
        let value = unsafe { slot.add(Self::SLOT.payload as usize) };
        // SAFETY: as above, and aligned.
        unsafe { Payload::new(value) }
    }

    /// Writes the message of a claim for writing.
    #[inline]
    pub(crate) fn write(&self, claim: &mut Claim, value: &T) {
        // SAFETY: between claim and publish only the claimant touches the payload (`ring::mpmc`,
        // 5). There is one `Claim` for each claim, and it is borrowed exclusively.
        unsafe { self.payload(claim).write(value) };
    }

    /// Copies the message of a claim.
    #[inline]
    pub(crate) fn read(&self, claim: &Claim) -> T {
        // SAFETY: as above; a shared borrow of the claim lets nobody write.
        unsafe { self.payload(claim).read() }
    }

    /// Borrows the message of a claim.
    #[inline]
    pub(crate) fn get<'a>(&self, claim: &'a Claim) -> &'a T {
        // SAFETY: as above, for as long as the claim is borrowed.
        unsafe { self.payload(claim).get() }
    }

    /// Borrows the message of a claim for writing.
    #[inline]
    pub(crate) fn get_mut<'a>(&self, claim: &'a mut Claim) -> &'a mut T {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { self.payload(claim).get_mut() }
    }
}

/// A queue whose type of values is not known.
struct Untyped<'a> {
    header: &'a Header,
    slots: SlotArray<'a>,
    ends: Option<&'a Ends>,
    shape: Shape,
}

impl<'a> Untyped<'a> {
    fn view(region: Region<'a>, object: Attached) -> Option<Untyped<'a>> {
        let shape = Shape::read_any(region, object.offset, object.len).ok()?;
        let block = region.bytes(object.offset, shape.len, align_of::<Header>())?;
        let header: NonNull<Header> = block.cast();
        // SAFETY: `bytes` checked range and alignment for the shape, and `read_any` that its stride
        // is a multiple of a power of two from 8 on, and its capacity at least 1.
        let slots = unsafe { SlotArray::behind(header, shape.capacity, shape.slot.stride) };
        // SAFETY: as above; a header is `Shared`.
        let header = unsafe { header.as_ref() };
        let ends = match shape.ends {
            0 => None,
            ends => Some(region.at(object.offset + ends)?),
        };
        Some(Untyped { header, slots, ends, shape })
    }
}

/// Takes every slot and every end from the dead `owner`. True if a message was given up that may
/// have carried blocks.
pub(super) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) -> bool {
    let Some(Untyped { header, slots, ends, shape }) = Untyped::view(pool.region(), object) else {
        return false;
    };
    let ring = header.ring(slots, shape.policy);
    let carries = super::queue_of(object).is_some_and(|queue| queue.cargo != Cargo::Nothing);
    let strands = carries && ring.gives_up_any(owner);
    if strands {
        // Before: whoever goes on if this process is killed must know. See `heap::cards`.
        pool.mark_everywhere(owner);
    }
    let recovered = ring.recover_all(owner);
    // The slots first: what the dead process was about to send is settled before anybody learns
    // that it has gone.
    if let Some(ends) = ends {
        for role in Role::BOTH {
            ends.release(role, peer::id::index_of(owner));
        }
    }
    let gone = conclude(pool, object);
    if recovered && !gone {
        wake_all(header);
    }
    strands
}

/// Closes a channel if nobody has the ends of a role any more; true if it is closed by that. For
/// use after an end was given up that was in a message, or a dead process's.
pub(super) fn conclude(pool: &Pool<'_>, object: Attached) -> bool {
    let Some(Untyped { header, slots, ends: Some(ends), shape }) =
        Untyped::view(pool.region(), object)
    else {
        return false;
    };
    let gone = ends.conclude_both(pool, object);
    if gone {
        header.ring(slots, shape.policy).close();
        wake_all(header);
    }
    gone
}

/// Waiters behind a recovered slot find out at the end of their slice at the latest. To ask whether
/// anybody sleeps takes the fences of the segment. Sleepers are few here, so both sides are woken
/// without asking.
fn wake_all(header: &Header) {
    header.signals.items.wake_all_unasked();
    header.space.wake_all_unasked();
}

/// Whether a word says that the slot's message can still be received: it is being written, there,
/// or being read.
fn is_occupied(word: SlotWord) -> bool {
    matches!(word.phase(), Phase::Writing | Phase::Full | Phase::Reading | Phase::Orphan)
}

/// Whether the slot of this position is still in its lap.
pub(super) fn carries(pool: &Pool<'_>, object: Attached, position: u64) -> bool {
    let position = Position::from_bits(position);
    Untyped::view(pool.region(), object).is_some_and(|queue| {
        // Acquire pairs with the Release of each transition.
        let word = (position.index() < queue.shape.capacity)
            .then(|| queue.slots.word(position.index()).load(Ordering::Acquire))
            .map(SlotWord::from_bits);
        word.is_some_and(|word| word.lap() == position.lap() && is_occupied(word))
    })
}

/// Whether no slot of a queue that belongs to the caller alone carries anything. What a slot of an
/// earlier lap carried is stranded, and found by whoever stranded it.
pub(super) fn is_empty(pool: &Pool<'_>, object: Attached) -> bool {
    Untyped::view(pool.region(), object).is_some_and(|Untyped { slots, shape, .. }| {
        (0..shape.capacity).all(|index| {
            let word = SlotWord::from_bits(slots.word(index).load(Ordering::Acquire));
            !is_occupied(word)
        })
    })
}

/// Frees the blocks of all messages in a queue of envelopes, which belongs to `owner` alone. True
/// if flights were among them.
pub(super) fn empty(pool: &Pool<'_>, object: Attached, owner: u32) -> bool {
    let Some(queue) = Untyped::view(pool.region(), object) else {
        return false;
    };
    if queue.shape.slot != QueueBlock::<Envelope>::SLOT {
        return false;
    }
    let mut flights = false;
    for index in 0..queue.shape.capacity {
        let word = SlotWord::from_bits(queue.slots.word(index).load(Ordering::Acquire));
        if is_occupied(word) {
            // SAFETY: within the slot, as it was made for an envelope.
            let value = unsafe { queue.slots.slot(index).add(queue.shape.slot.payload as usize) };
            // SAFETY: as above, and aligned.
            let payload = unsafe { Payload::<Envelope>::new(value) };
            // SAFETY: the block belongs to the caller alone.
            let envelope = unsafe { payload.read() };
            let position = Position::new(word.lap(), index).to_bits();
            let Attached { id, generation, .. } = object;
            let carrier = Carrier { block: id.to_bits(), generation, position };
            for carried in [envelope.block(), envelope.flight()].into_iter().flatten() {
                pool.discard(carried, carrier, owner, |held| super::conclude(pool, held));
            }
            flights |= envelope.has_flight();
        }
    }
    flights
}

impl<T> Clone for QueueBlock<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for QueueBlock<T> {}

impl<T> fmt::Debug for QueueBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBlock").field("header", &self.header).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_the_values_they_were_made_for() {
        for (size, align) in [(0, 1), (1, 1), (8, 8), (24, 8), (64, 64), (128, 128), (1 << 20, 1)] {
            let SlotLayout { payload, stride } = SlotLayout::of(size, align);
            assert!(payload >= 8 && payload.is_multiple_of(align as u64));
            assert!(stride >= payload + size as u64);
            assert!(SlotLayout::of(size, align).is_sound());
        }
        assert_eq!(SlotLayout::of(8, 8).stride, 16);
    }

    #[test]
    fn layouts_that_nobody_writes_are_not_sound() {
        for (payload, stride) in [(0, 16), (4, 16), (12, 24), (256, 512), (8, 0), (8, 20), (16, 8)]
        {
            assert!(!SlotLayout { payload, stride }.is_sound(), "{payload}, {stride}");
        }
    }

    #[test]
    fn bytes_that_cannot_be_counted_have_no_shape() {
        let slot = SlotLayout { payload: 8, stride: 1 << 60 };
        assert_eq!(Shape::with(1 << 24, OnReaderDeath::Drop, false, slot), None);
        let slot = SlotLayout { payload: 8, stride: u64::MAX };
        assert_eq!(Shape::with(1, OnReaderDeath::Drop, false, slot), None);
    }

    /// Its slots would lie in the blocks of others, or overlap.
    #[test]
    fn a_queue_that_does_not_fit_into_its_block_is_not_opened() {
        let segment = crate::Segment::create(1 << 16).expect("a segment");
        let region = segment.mapping().region().expect("mapped");
        // A block that nobody has.
        let offset = segment.mapping().layout().classes().last().expect("a class").base;
        segment.mapping().back(offset, 4096).expect("memory");
        let header: &Header = region.at(offset).expect("within the segment");
        let read = |capacity, payload, stride, len| {
            header.geometry.capacity.store(capacity, Ordering::Relaxed);
            header.geometry.payload.store(payload, Ordering::Relaxed);
            header.geometry.stride.store(stride, Ordering::Relaxed);
            header.geometry.policy.store(POLICY_REDELIVER, Ordering::Relaxed);
            Shape::read_any(region, offset, len)
        };
        let shape = Shape::of::<u64>(8, OnReaderDeath::Redeliver, false).expect("a shape");
        assert_eq!(read(8, 8, 16, shape.len), Ok(shape));
        for (capacity, payload, stride, len) in [
            (8, 8, 16, shape.len - 1),
            (9, 8, 16, shape.len),
            (8, 8, 20, u64::MAX),
            (8, 12, 24, u64::MAX),
            (0, 8, 16, u64::MAX),
            ((1 << 24) + 1, 8, 16, u64::MAX),
        ] {
            let refused = read(capacity, payload, stride, len);
            assert_eq!(refused, Err(Fault::Corrupt), "{capacity} of {payload}, {stride} in {len}");
        }
    }
}
