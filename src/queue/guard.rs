//! Guards of claimed slots: a message is written or read in place.
//!
//! # Invariants
//! While a guard exists in the process that made it, the slot's word is `WRITING` or `READING` with
//! this process as owner, so by the ring's protocol the payload is the guard's alone.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::queue::shared::{End, QueuePlace, Shared, notify_both};
use crate::ring::mpmc::Claim;
use crate::ring::position::Position;
use crate::segment::Shm;

/// A claimed slot.
struct Slot<'a, T: Shm> {
    shared: &'a Shared<T>,
    place: &'a QueuePlace<T>,
    /// `None` once it was given back.
    claim: Option<Claim>,
}

impl<T: Shm> Slot<'_, T> {
    /// The claim, in the process that made it.
    #[inline]
    #[track_caller]
    fn claim(&self) -> &Claim {
        match &self.claim {
            Some(claim) if self.place.is_ours() => claim,
            _ => in_a_child(),
        }
    }

    /// As [`Slot::claim`], to change what was claimed.
    #[inline]
    #[track_caller]
    fn claim_mut(&mut self) -> &mut Claim {
        match &mut self.claim {
            Some(claim) if self.place.is_ours() => claim,
            _ => in_a_child(),
        }
    }

    /// Ends the claim. `None` in a forked child, where the claim is the parent's.
    #[inline]
    fn end(&mut self) -> Option<Claim> {
        self.claim.take().filter(|_| self.place.is_ours())
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn in_a_child() -> ! {
    panic!("a guard of the parent's was used in a forked child: claim a slot of the child's own")
}

/// A slot claimed for one message, which is written in place. Made by
/// [`Queue::reserve`](crate::Queue::reserve).
///
/// Dereferences to the value. At first the value is whatever bytes lie there (some earlier message,
/// or zero): fill it in, then [`commit`](Reservation::commit). If the reservation is dropped
/// instead, nothing is sent.
///
/// Later messages wait until it is committed or dropped, so do that soon.
///
/// # Peer death
/// A process killed with a reservation has sent nothing. The next process that waits for the slot
/// recovers it.
///
/// # Fork
/// It belongs to the process that made it. In a forked child it is inert, and using it panics.
#[must_use = "a reservation that is dropped sends nothing"]
pub struct Reservation<'a, T: Shm> {
    slot: Slot<'a, T>,
}

impl<'a, T: Shm> Reservation<'a, T> {
    #[inline]
    pub(crate) fn new(shared: &'a Shared<T>, place: &'a QueuePlace<T>, claim: Claim) -> Self {
        Reservation { slot: Slot { shared, place, claim: Some(claim) } }
    }

    /// The place of the message in the queue.
    pub(crate) fn position(&self) -> Position {
        self.slot.claim().position()
    }

    /// Puts `value` into the slot.
    ///
    /// # Panics
    /// In a forked child of the process that made the reservation.
    #[inline]
    pub fn write(&mut self, value: T) {
        let block = self.slot.place.seat().block;
        block.write(self.slot.claim_mut(), &value);
    }

    /// Sends the message.
    ///
    /// # Memory ordering
    /// Everything written before is visible to the receiver of the message (release to acquire).
    ///
    /// # Panics
    /// In a forked child of the process that made the reservation.
    #[inline]
    pub fn commit(mut self) {
        let Some(claim) = self.slot.end() else { in_a_child() };
        let seat = self.slot.place.seat();
        seat.block.ring().publish(claim);
        self.slot.shared.notify(seat, End::Write);
    }
}

impl<T: Shm> Deref for Reservation<'_, T> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        self.slot.place.seat().block.get(self.slot.claim())
    }
}

impl<T: Shm> DerefMut for Reservation<'_, T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        let block = self.slot.place.seat().block;
        block.get_mut(self.slot.claim_mut())
    }
}

impl<T: Shm> Drop for Reservation<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claim) = self.slot.end() {
            let seat = self.slot.place.seat();
            seat.block.ring().release(claim);
            notify_both(seat);
        }
    }
}

impl<T: Shm> fmt::Debug for Reservation<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot.claim.as_ref().map(|claim| claim.index());
        f.debug_struct("Reservation").field("slot", &slot).finish_non_exhaustive()
    }
}

/// A received message, read in place. Made by [`Queue::recv_ref`](crate::Queue::recv_ref).
///
/// The message is done when this is dropped. If the process is killed before that, the queue's
/// [`OnReceiverDeath`](crate::OnReceiverDeath) says what happens to the message.
///
/// Senders can use the slot again only after this is dropped, so drop it soon. A receiver that
/// keeps every slot of a closed queue in this way waits and does not get `Closed`, because a sender
/// that began before the close might still use one of the slots. Drop the messages first.
///
/// # Fork
/// It belongs to the process that received it. In a forked child it is inert, and using it panics.
#[must_use = "dropping the message gives its slot back"]
pub struct Received<'a, T: Shm> {
    slot: Slot<'a, T>,
}

impl<'a, T: Shm> Received<'a, T> {
    #[inline]
    pub(crate) fn new(shared: &'a Shared<T>, place: &'a QueuePlace<T>, claim: Claim) -> Self {
        Received { slot: Slot { shared, place, claim: Some(claim) } }
    }

    /// Whether this is the process that received it.
    pub(crate) fn is_ours(&self) -> bool {
        self.slot.place.is_ours()
    }

    /// The claim of the slot.
    #[track_caller]
    pub(crate) fn claim(&self) -> &Claim {
        self.slot.claim()
    }

    /// Whether an earlier receiver was killed with this message. That receiver may have acted on
    /// it, in part or wholly.
    pub fn redelivered(&self) -> bool {
        self.slot.claim.as_ref().is_some_and(|claim| claim.redelivered)
    }
}

impl<T: Shm> Deref for Received<'_, T> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        self.slot.place.seat().block.get(self.slot.claim())
    }
}

impl<T: Shm> Drop for Received<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claim) = self.slot.end() {
            let seat = self.slot.place.seat();
            seat.block.ring().release(claim);
            self.slot.shared.notify(seat, End::Read);
        }
    }
}

/// Prints the value, or in a forked child that there is none.
impl<T: Shm + fmt::Debug> fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ours() { (**self).fmt(f) } else { f.write_str("<of the parent>") }
    }
}
