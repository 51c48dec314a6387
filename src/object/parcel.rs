//! Messages of any length. A short one lies in its slot. A longer one lies in a block of its own,
//! and the slot says which.
//!
//! ```text
//! sender                                            receiver
//!   allocate the block: OWNED(s)                      claim a slot: READING(l, r)
//!   fill it                                           the block is CARRIED by this slot? read it
//!   claim a slot: WRITING(l, s)                       release the slot: EMPTY(l+1)
//!   the block is carried by (slot, l): CARRIED        the block is stranded: CARRIED -> OWNED(r) -> FREE
//!   write the envelope; publish: FULL(l)
//! ```
//! No process owns a block on its way. The block says which slot carries it, and the slot's own
//! word says whether it still does; what the slot contains is a hint, and is checked against the
//! block. So sending is one store, as for any other message, and what is true of the slot is true
//! of the block: it is received once, or delivered again, or dropped.
//!
//! # Peer death
//! A block that is carried by no slot any more is stranded, and whoever clears up after a dead
//! process gives it back ([`reap`](super::reap)).
//! - A sender killed before `CARRIED` owned the block.
//! - Killed after it and before `FULL`: recovery moves the slot to the next lap, and strands the
//!   block.
//! - A receiver killed while it reads: by the ring's policy the slot goes to the next lap, or
//!   another receiver claims it, and finds the block as it was.
//! - Killed after the release: the block is stranded.
//! - The last holder of a queue, killed while it frees what is left in it: the queue is gone, so
//!   the rest is stranded.
//!
//! # Source
//! The block as the one place that says who owns it, with messages as hints, is the hand-over of
//! Michael's hazard pointers turned round: not readers announce what they use, but what is used
//! says where.
#![expect(unsafe_code, reason = "the contents of a block are reached by a pointer")]

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::heap::block::Carrier;
use crate::heap::owned::{Owned, Remembered};
use crate::heap::pool::Carried;
use crate::heap::{AllocError, BlockId, Pool};
use crate::object::holding::Holder;
use crate::object::kind::Kind;
use crate::ring::mpmc::Claim;

/// Bytes of the longest message that lies in its slot. With them a slot takes four lines of a
/// cache, of which a shorter message touches only its own. Objects are often longer than one line,
/// and a block of their own costs them twice the time.
pub(crate) const SHORT: usize = 240;

/// Words that the name of a block takes in an envelope.
const NAME: usize = 2;

/// Bytes of the longest message that lies in its slot beside the name of a flight.
pub(crate) const SHORT_WITH_FLIGHT: usize = SHORT - 8 * NAME;

/// What is in a slot: the message, or the name of the block that it lies in. Before that, if the
/// message holds objects, the name of its [flight](super::flight).
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Envelope {
    /// `bytes of the message:63 | it has a flight:1`
    head: u64,
    body: [u64; SHORT / 8],
}

impl Envelope {
    /// Makes this the envelope of a message that lies in the slot; `bytes` are at most [`SHORT`],
    /// or [`SHORT_WITH_FLIGHT`] if there is one.
    pub(crate) fn put(&mut self, bytes: &[u8], flight: Option<Carried>) {
        let body = self.begin(bytes.len() as u64, flight);
        bytemuck::cast_slice_mut(body)[..bytes.len()].copy_from_slice(bytes);
    }

    /// Makes this the envelope of a message of `len` bytes that lies in a block.
    fn refer(&mut self, len: u64, carried: Carried, flight: Option<Carried>) {
        put_name(self.begin(len, flight), carried);
    }

    /// Writes what comes before the message, and gives its place.
    fn begin(&mut self, len: u64, flight: Option<Carried>) -> &mut [u64] {
        self.head = len << 1 | u64::from(flight.is_some());
        let Some(flight) = flight else { return &mut self.body };
        let (name, body) = self.body.split_at_mut(NAME);
        put_name(name, flight);
        body
    }

    fn len(&self) -> u64 {
        self.head >> 1
    }

    pub(crate) fn has_flight(&self) -> bool {
        self.head & 1 != 0
    }

    /// What comes behind the name of a flight.
    fn body(&self) -> &[u64] {
        body(&self.body, self.has_flight())
    }

    /// The flight of the message; `None` if it has none, or if there is no such block.
    pub(crate) fn flight(&self) -> Option<Carried> {
        self.has_flight().then(|| name(&self.body))?
    }

    /// The block that the message lies in; `None` if it lies in the slot, or if there is no such
    /// block.
    pub(crate) fn block(&self) -> Option<Carried> {
        if self.short_len().is_some() { None } else { name(self.body()) }
    }

    /// Length of the message, if it lies in the slot.
    pub(crate) fn short_len(&self) -> Option<usize> {
        usize::try_from(self.len()).ok().filter(|&len| len <= 8 * self.body().len())
    }

    /// The first `len` bytes of a message that lies in the slot; at most as many as there are.
    /// Whether it has a flight was read before, as a peer may write over that.
    pub(crate) fn short(&self, has_flight: bool, len: usize) -> &[u8] {
        let bytes = bytemuck::cast_slice::<u64, u8>(body(&self.body, has_flight));
        &bytes[..len.min(bytes.len())]
    }
}

fn body(words: &[u64], has_flight: bool) -> &[u64] {
    if has_flight { &words[NAME..] } else { words }
}

fn put_name(words: &mut [u64], carried: Carried) {
    words[0] = carried.id.to_bits();
    words[1] = carried.generation.into();
}

fn name(words: &[u64]) -> Option<Carried> {
    let generation = u32::try_from(words[1]).ok()?;
    Some(Carried { id: BlockId::from_bits(words[0])?, generation })
}

/// A block that belongs to this process alone, to be filled with a message.
///
/// # Invariants
/// `start` is the address of `len` bytes of the block, in a mapping that stays as long as the
/// parcel is used. The block's word names the process that made the parcel, and that remembers it.
#[derive(Debug)]
pub(crate) struct Parcel {
    block: Remembered,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: nobody else uses the bytes, so they go with the parcel from thread to thread.
unsafe impl Send for Parcel {}
// SAFETY: through a shared parcel the bytes are only read.
unsafe impl Sync for Parcel {}

impl Parcel {
    /// A block of `len` bytes that this process has at hand, with whatever lies there.
    ///
    /// # Safety
    /// The caller keeps the mapping of `holder` for as long as it uses the parcel.
    #[inline(always)]
    pub(crate) unsafe fn at_hand(holder: &Holder<'_>, len: usize) -> Option<Parcel> {
        let pool = holder.pool();
        let owned = pool.take_cached(holder.me, Parcel::kind(), len as u64)?;
        // SAFETY: as the caller says.
        unsafe { Parcel::of(&pool, owned, len) }
    }

    /// A block of `len` bytes, where this process has none [at hand](Parcel::at_hand).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn new(holder: &Holder<'_>, len: usize) -> Result<Parcel, AllocError> {
        let pool = holder.pool();
        let owned = pool.allocate_another(holder.me, Parcel::kind(), len as u64)?;
        // SAFETY: as the caller says.
        unsafe { Parcel::of(&pool, owned, len) }.ok_or(AllocError::Corrupt)
    }

    fn kind() -> u64 {
        Kind::Parcel.named::<()>()
    }

    /// The parcel of a block that was just allocated for `len` bytes.
    ///
    /// # Safety
    /// As for [`Parcel::at_hand`].
    #[inline(always)]
    unsafe fn of(pool: &Pool<'_>, owned: Owned<'_>, len: usize) -> Option<Parcel> {
        match pool.region().bytes(owned.offset(), len as u64, 1) {
            // INVARIANT: `bytes` checked the range, the caller keeps the mapping, and the block has
            // just become ours.
            Some(start) => Some(Parcel { block: owned.remember(), start, len }),
            None => {
                pool.refuse(owned);
                None
            }
        }
    }

    /// The block as the heap knows it, which is that of the parcel. Only for the process that made
    /// it.
    #[inline]
    fn owned<'a>(&self, pool: &Pool<'a>) -> Option<Owned<'a>> {
        // SAFETY: by the invariant, as this is the process; all that use it have the same mapping.
        unsafe { self.block.owned(pool) }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes. Only for the process that made the parcel.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant the bytes are mapped as long as `self` lives, and nobody else
        // writes them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed. Only for the process that made the parcel.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Leaves away what comes behind the first `len` bytes.
    pub(crate) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Hands the block over to the slot of `carrier`, which this process has claimed for writing,
    /// and writes the slot's envelope, also for the `flight` that this slot carries. False if
    /// somebody has written over the block's word; the block is lost then.
    pub(crate) fn carry(
        self,
        holder: &Holder<'_>,
        carrier: Carrier,
        envelope: &mut Envelope,
        flight: Option<Carried>,
    ) -> bool {
        let pool = holder.pool();
        let carried = self.owned(&pool).and_then(|owned| pool.carry(&owned, carrier));
        if let Some(carried) = carried {
            envelope.refer(self.len as u64, carried, flight);
        }
        carried.is_some()
    }

    /// Gives the block back. The parcel must not be used any more: only the process that made it
    /// may call this, and once.
    #[inline]
    pub(crate) fn give_back(&self, holder: &Holder<'_>) {
        let pool = holder.pool();
        if let Some(owned) = self.owned(&pool) {
            pool.give_back(&owned);
        }
    }
}

/// Where a received message lies that has a block of its own.
///
/// # Invariants
/// `start` is the address of `len` bytes of a block that `carrier` carries, in a mapping that lives
/// as long as `'a`.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    carried: Carried,
    carrier: Carrier,
    start: NonNull<u8>,
    len: usize,
    mapping: PhantomData<&'a [u8]>,
}

impl<'a> Contents<'a> {
    /// Finds the block that `envelope` names, in a slot that this process has claimed for reading.
    /// It is a copy, so that nobody changes between two looks what was checked. `None` if the slot
    /// does not carry such a block.
    pub(crate) fn find(
        holder: &Holder<'a>,
        envelope: &Envelope,
        carrier: Carrier,
    ) -> Option<Contents<'a>> {
        let carried = envelope.block()?;
        let (offset, most) = holder.pool().carried(carried, carrier, holder.me.owner())?;
        if envelope.len() > most {
            return None;
        }
        let start = holder.region.bytes(offset, envelope.len(), 1)?;
        let len = usize::try_from(envelope.len()).ok()?;
        // INVARIANT: `bytes` checked the range.
        Some(Contents { carried, carrier, start, len, mapping: PhantomData })
    }

    /// The bytes, as long as this process has the slot. `None` if `claim` is that of another slot.
    pub(crate) fn bytes<'c>(&self, claim: &'c Claim) -> Option<&'c [u8]>
    where
        'a: 'c,
    {
        if claim.position().to_bits() != self.carrier.position {
            return None;
        }
        // SAFETY: by the invariant the bytes are mapped. There is one `Claim` for each claim, and
        // while it is borrowed the slot is ours; so it carries the block, and nobody writes it.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) })
    }

    /// Gives the block back, after the slot was released.
    pub(crate) fn discard(self, holder: &Holder<'_>) {
        holder.pool().discard(self.carried, self.carrier, holder.me.owner(), |_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Envelope {
        bytemuck::Zeroable::zeroed()
    }

    fn carried(index: u64, generation: u32) -> Carried {
        Carried { id: BlockId::from_bits(3 << 32 | index).expect("a block"), generation }
    }

    #[test]
    fn a_short_message_lies_in_its_envelope() {
        for (flight, most) in [(None, SHORT), (Some(carried(5, 2)), SHORT_WITH_FLIGHT)] {
            for len in [0, 1, 7, 8, most] {
                let bytes: Vec<u8> = (0..len).map(|index| index as u8 + 1).collect();
                let mut envelope = empty();
                envelope.put(&[0xff; SHORT], None);
                envelope.put(&bytes, flight);
                assert_eq!(envelope.short_len(), Some(len));
                assert_eq!(envelope.short(flight.is_some(), len), bytes);
                assert_eq!((envelope.block(), envelope.flight()), (None, flight));
            }
        }
    }

    #[test]
    fn a_longer_message_is_named() {
        for (flight, most) in [(None, SHORT), (Some(carried(5, 2)), SHORT_WITH_FLIGHT)] {
            let mut envelope = empty();
            envelope.refer(most as u64 + 1, carried(7, 9), flight);
            assert_eq!((envelope.block(), envelope.flight()), (Some(carried(7, 9)), flight));
            assert_eq!(envelope.short_len(), None);
        }
    }

    #[test]
    fn names_of_no_block_are_none() {
        let mut envelope = empty();
        envelope.head = u64::MAX;
        envelope.body = [u64::MAX; SHORT / 8];
        assert_eq!((envelope.short_len(), envelope.block()), (None, None));
        assert!(envelope.has_flight() && envelope.flight().is_none());
        assert_eq!(envelope.short(true, usize::MAX).len(), SHORT_WITH_FLIGHT);
    }
}
