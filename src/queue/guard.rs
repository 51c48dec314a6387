//! A claimed slot in the hands of the caller: to write into, or to read from, in place.
//!
//! # Invariants
//! While a guard exists in the process that made it, the slot's word is `WRITING` or `READING` with this process as owner, so by
//! the ring's protocol the payload is the guard's alone.
#![expect(unsafe_code, reason = "the payload of a claimed slot is the claimant's")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::object::holding::Seat;
use crate::object::queue_block::QueueBlock;
use crate::ring::mpmc::Claim;
use crate::segment::Shm;

/// What a guard and the queue's own operations share: a claimed slot.
#[derive(Clone, Copy, Debug)]
struct Slot<'a, T> {
    seat: Seat<'a>,
    block: QueueBlock<'a>,
    claim: Claim,
    value: PhantomData<T>,
}

impl<T: Shm> Slot<'_, T> {
    #[inline]
    fn pointer(&self) -> NonNull<T> {
        self.block.payload(self.claim.index).cast()
    }

    fn check(&self) {
        assert!(self.seat.is_mine(), "a guard of the parent's was used in a forked child: claim a slot of the child's own");
    }
}

/// A free slot, claimed for one message that is written in place. From [`Queue::reserve`](crate::Queue::reserve).
///
/// Dereferences to the value, which begins as whatever bytes lie there (some earlier message, or zero): fill it in, then
/// [`commit`](Reservation::commit). Dropped without that, nothing is sent.
///
/// Messages behind it in order wait until it is committed or dropped: keep it short.
///
/// # Peer death
/// Killed with a reservation, the process has sent nothing; the slot is recovered by whoever waits behind it.
///
/// # Fork
/// Belongs to the process that made it: in a forked child it is inert, and using it panics.
#[must_use = "a reservation that is dropped sends nothing"]
pub struct Reservation<'a, T: Shm> {
    slot: Slot<'a, T>,
}

impl<'a, T: Shm> Reservation<'a, T> {
    #[inline]
    pub(crate) fn new(seat: Seat<'a>, block: QueueBlock<'a>, claim: Claim) -> Self {
        Reservation { slot: Slot { seat, block, claim, value: PhantomData } }
    }

    /// Puts `value` into the slot.
    #[inline]
    pub fn write(&mut self, value: T) {
        self.slot.check();
        self.put(value);
    }

    #[inline]
    pub(crate) fn put(&mut self, value: T) {
        // SAFETY: the slot was made for values of `T`, aligned and within the mapping, and by the invariant it is ours.
        unsafe { self.slot.pointer().write(value) };
    }

    /// Sends the message.
    ///
    /// # Memory ordering
    /// Everything written before is visible to whoever receives the message (release to acquire).
    ///
    /// # Panics
    /// In a forked child of the process that made the reservation.
    #[inline]
    pub fn commit(self) {
        self.slot.check();
        self.publish();
        self.slot.block.notify_after_publish(&self.slot.seat);
        std::mem::forget(self);
    }

    /// Makes the message visible and wakes nobody.
    #[inline]
    pub(crate) fn commit_quietly(self) {
        self.publish();
        std::mem::forget(self);
    }

    #[inline]
    fn publish(&self) {
        self.slot.block.ring.publish(self.slot.claim);
    }
}

impl<T: Shm> Deref for Reservation<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.slot.check();
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`; by the invariant nobody else touches the payload.
        unsafe { self.slot.pointer().as_ref() }
    }
}

impl<T: Shm> DerefMut for Reservation<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.slot.check();
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive within the process.
        unsafe { self.slot.pointer().as_mut() }
    }
}

impl<T: Shm> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        if self.slot.seat.is_mine() {
            self.slot.block.ring.release(self.slot.claim);
            self.slot.block.notify_after_abort(&self.slot.seat);
        }
    }
}

impl<T: Shm> fmt::Debug for Reservation<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("slot", &self.slot.claim.index).finish_non_exhaustive()
    }
}

/// A received message, read in place. From [`Queue::recv_ref`](crate::Queue::recv_ref).
///
/// The message counts as taken from the moment it was received, and as done when this is dropped: until then the queue's
/// [`OnReceiverDeath`](crate::OnReceiverDeath) says what becomes of it if this process is killed.
///
/// The slot is free for senders again only when this is dropped: keep it short.
///
/// # Fork
/// Belongs to the process that received it: in a forked child it is inert, and using it panics.
#[must_use = "dropping the message gives its slot back"]
pub struct Received<'a, T: Shm> {
    slot: Slot<'a, T>,
}

impl<'a, T: Shm> Received<'a, T> {
    #[inline]
    pub(crate) fn new(seat: Seat<'a>, block: QueueBlock<'a>, claim: Claim) -> Self {
        Received { slot: Slot { seat, block, claim, value: PhantomData } }
    }

    /// Whether another receiver was killed with this message before. It may have acted on it, in part or wholly.
    pub fn redelivered(&self) -> bool {
        self.slot.claim.redelivered
    }

    /// Copies the message out and gives the slot back.
    #[inline]
    pub(crate) fn take(self) -> T {
        let value = self.copy();
        drop(self);
        value
    }

    /// As [`Received::take`], and wakes nobody.
    #[inline]
    pub(crate) fn take_quietly(self) -> T {
        let this = ManuallyDrop::new(self);
        let value = this.copy();
        this.slot.block.ring.release(this.slot.claim);
        value
    }

    #[inline]
    fn copy(&self) -> T {
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`, which is `Copy`; by the invariant it is ours to read.
        unsafe { self.slot.pointer().read() }
    }
}

impl<T: Shm> Deref for Received<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.slot.check();
        // SAFETY: in bounds, aligned, any bits are a valid `T: Shm`; by the invariant nobody writes the payload.
        unsafe { self.slot.pointer().as_ref() }
    }
}

impl<T: Shm> Drop for Received<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.slot.seat.is_mine() {
            self.slot.block.ring.release(self.slot.claim);
            self.slot.block.notify_after_release(&self.slot.seat);
        }
    }
}

impl<T: Shm + fmt::Debug> fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl QueueBlock<'_> {
    /// Wakes a receiver for a message, and passes on what a killed sender may have slept through.
    #[inline]
    pub(crate) fn notify_after_publish(&self, seat: &Seat<'_>) {
        self.items.with(seat.fences).notify_one();
        if self.space.with(seat.fences).seems_to_have_sleepers() {
            self.pass_on_space(seat);
        }
    }

    /// Wakes a sender for a free slot, and passes on what a killed receiver may have slept through.
    #[inline]
    pub(crate) fn notify_after_release(&self, seat: &Seat<'_>) {
        self.space.with(seat.fences).notify_one();
        if self.items.with(seat.fences).seems_to_have_sleepers() {
            self.pass_on_items(seat);
        }
    }

    /// A position without a message: a receiver may have waited for just this one, and a sender may use the slot.
    fn notify_after_abort(&self, seat: &Seat<'_>) {
        self.items.with(seat.fences).notify_one();
        self.space.with(seat.fences).notify_one();
    }

    /// Wakes one of each side after a dead claimant's slot was recovered.
    pub(crate) fn notify_after_recovery(&self, seat: &Seat<'_>) {
        self.notify_after_abort(seat);
    }

    #[cold]
    fn pass_on_space(&self, seat: &Seat<'_>) {
        if self.ring.has_space() {
            self.space.with(seat.fences).notify_one();
        }
    }

    #[cold]
    fn pass_on_items(&self, seat: &Seat<'_>) {
        // In a closed ring the others may wait for this very release, to know that nothing more comes.
        if self.ring.is_closed() {
            self.items.with(seat.fences).notify_all();
        } else if self.ring.has_message() {
            self.items.with(seat.fences).notify_one();
        }
    }
}
