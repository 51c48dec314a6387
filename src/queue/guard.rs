//! A claimed slot in the hands of the caller: to write into, or to read from, in place.
//!
//! # Invariants
//! While a guard exists in the process that made it, the slot's word is `WRITING` or `READING` with
//! this process as owner, so by the ring's protocol the payload is the guard's alone.
#![expect(unsafe_code, reason = "the payload of a claimed slot is the claimant's")]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::peer::PeerId;
use crate::queue::core::{Core, End, Place};
use crate::ring::mpmc::Claim;
use crate::segment::Shm;

/// The value of a claimed slot: what a guard holds, and what the queue's own operations go through.
pub(crate) struct Slot<'a, T> {
    core: &'a Core,
    me: PeerId,
    value: NonNull<T>,
}

impl<'a, T: Shm> Slot<'a, T> {
    /// The slot of a fresh `claim` in a queue of `T`.
    #[inline]
    pub(crate) fn new(core: &'a Core, place: Place<'a>, claim: &Claim) -> Self {
        Slot { core, me: place.seat.me, value: place.block.payload(claim.index).cast() }
    }

    #[inline]
    pub(crate) fn write(&self, value: &T) {
        // SAFETY: the slot was made for values of `T`, aligned and within the mapping, and by the
        // invariant it is ours, so no value of the caller's lies there.
        unsafe { self.value.copy_from_nonoverlapping(NonNull::from(value), 1) };
    }

    #[inline]
    pub(crate) fn read(&self) -> T {
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`, which is `Copy`; by the
        // invariant it is ours to read.
        unsafe { self.value.read() }
    }

    /// The queue as this process has it; `None` in a forked child of the process that claimed the
    /// slot.
    #[inline]
    fn place(&self) -> Option<Place<'a>> {
        self.core.enter().ok().filter(|place| place.seat.me == self.me)
    }

    /// As [`Slot::place`], for what a forked child must not do.
    #[inline]
    fn check(&self) -> Place<'a> {
        self.place().expect(
            "a guard of the parent's was used in a forked child: claim a slot of the child's own",
        )
    }
}

/// A free slot, claimed for one message that is written in place. From
/// [`Queue::reserve`](crate::Queue::reserve).
///
/// Dereferences to the value, which begins as whatever bytes lie there (some earlier message, or
/// zero): fill it in, then [`commit`](Reservation::commit). Dropped without that, nothing is sent.
///
/// Messages behind it in order wait until it is committed or dropped: keep it short.
///
/// # Peer death
/// Killed with a reservation, the process has sent nothing; the slot is recovered by whoever waits
/// behind it.
///
/// # Fork
/// Belongs to the process that made it: in a forked child it is inert, and using it panics.
#[must_use = "a reservation that is dropped sends nothing"]
pub struct Reservation<'a, T: Shm> {
    slot: Slot<'a, T>,
    /// `None` once the message was sent.
    claim: Option<Claim>,
}

impl<'a, T: Shm> Reservation<'a, T> {
    #[inline]
    pub(crate) fn new(core: &'a Core, place: Place<'a>, claim: Claim) -> Self {
        Reservation { slot: Slot::new(core, place, &claim), claim: Some(claim) }
    }

    /// Puts `value` into the slot.
    #[inline]
    pub fn write(&mut self, value: T) {
        self.slot.check();
        self.slot.write(&value);
    }

    /// Sends the message.
    ///
    /// # Memory ordering
    /// Everything written before is visible to whoever receives the message (release to acquire).
    ///
    /// # Panics
    /// In a forked child of the process that made the reservation.
    #[inline]
    pub fn commit(mut self) {
        let place = self.slot.check();
        if let Some(claim) = self.claim.take() {
            place.block.ring.publish(claim);
            self.slot.core.notify(place, End::Write);
        }
    }
}

impl<T: Shm> Deref for Reservation<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.slot.check();
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`; by the invariant nobody else
        // touches the payload.
        unsafe { self.slot.value.as_ref() }
    }
}

impl<T: Shm> DerefMut for Reservation<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.slot.check();
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive within the process.
        unsafe { self.slot.value.as_mut() }
    }
}

impl<T: Shm> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take()
            && let Some(place) = self.slot.place()
        {
            place.block.ring.release(claim);
            place.notify_both();
        }
    }
}

impl<T: Shm> fmt::Debug for Reservation<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("slot", &self.claim.as_ref().map(|claim| claim.index))
            .finish_non_exhaustive()
    }
}

/// A received message, read in place. From [`Queue::recv_ref`](crate::Queue::recv_ref).
///
/// The message counts as taken from the moment it was received, and as done when this is dropped:
/// until then the queue's [`OnReceiverDeath`](crate::OnReceiverDeath) says what becomes of it if
/// this process is killed.
///
/// The slot is free for senders again only when this is dropped: keep it short. As long as a sender
/// might come to use the slot, the queue is not known to be drained: who has every slot in hand in
/// this way, and has closed the queue, is not told `Closed` but waits. Drop the message first.
///
/// # Fork
/// Belongs to the process that received it: in a forked child it is inert, and using it panics.
#[must_use = "dropping the message gives its slot back"]
pub struct Received<'a, T: Shm> {
    slot: Slot<'a, T>,
    /// `None` only while it is dropped.
    claim: Option<Claim>,
}

impl<'a, T: Shm> Received<'a, T> {
    #[inline]
    pub(crate) fn new(core: &'a Core, place: Place<'a>, claim: Claim) -> Self {
        Received { slot: Slot::new(core, place, &claim), claim: Some(claim) }
    }

    /// Whether another receiver was killed with this message before. It may have acted on it, in
    /// part or wholly.
    pub fn redelivered(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.redelivered)
    }
}

impl<T: Shm> Deref for Received<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.slot.check();
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`; by the invariant nobody writes
        // the payload.
        unsafe { self.slot.value.as_ref() }
    }
}

impl<T: Shm> Drop for Received<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take()
            && let Some(place) = self.slot.place()
        {
            place.block.ring.release(claim);
            self.slot.core.notify(place, End::Read);
        }
    }
}

impl<T: Shm + fmt::Debug> fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
