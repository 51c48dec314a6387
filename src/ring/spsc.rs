//! One sender, one receiver: a ring in which a single store publishes.
//!
//! # Layout
//! Two words, each written by one side: `tail` counts messages ever published, `head` messages ever
//! released. Message `n` lies in slot `n % capacity`.
//!
//! # Orderings
//! The Release store of `tail` pairs with the receiver's Acquire load: it sees the messages. The
//! Release store of `head` pairs with the sender's Acquire load: the receiver has read before the
//! slot is written again. Each side keeps the other's last value and loads anew only when that runs
//! out, so in a steady stream a message costs no read-modify-write and few cache misses.
//!
//! # Peer death
//! A sender killed before its store to `tail` published nothing; after it, everything. A receiver
//! killed before its store to `head` leaves the message to its successor. There is no third state
//! and nothing to recover.
//!
//! # Source
//! Lamport, "Proving the Correctness of Multiprocess Programs" (1977); the cached index is from
//! Torquati, "Single-Producer/ Single-Consumer Queues on Shared Cache Multi-Core Systems" (2010).

use crate::primitive::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// The two shared words hold what nobody writes: more messages than slots, or fewer than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// One side's private view.
///
/// # Invariants
/// `own` is the value of the side's own word; `slot` is `own % capacity`; `other` is a value that
/// the other side's word had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    own: u64,
    slot: u64,
    other: u64,
    capacity: u64,
}

impl Side {
    fn resume(own: u64, other: u64, capacity: u64) -> Side {
        Side { own, slot: own % capacity, other, capacity }
    }

    #[inline]
    fn slot(&self) -> u64 {
        self.slot
    }

    /// The slot that this side uses next, if of those from there on at least one is its own.
    #[inline]
    pub(crate) fn turn(&mut self, own: u64) -> Option<Turn<'_>> {
        if own > 0 { Some(Turn { side: self }) } else { None }
    }

    #[inline]
    fn advance(&mut self, count: u64) {
        // INVARIANT: `slot` stays `own % capacity`, since `count <= capacity`.
        self.own = self.own.wrapping_add(count);
        self.slot += count;
        if self.slot >= self.capacity {
            self.slot -= self.capacity;
        }
    }
}

/// A slot that is a side's own until it goes on to the next.
#[derive(Debug)]
#[must_use = "the slot stays with this side"]
pub(crate) struct Turn<'a> {
    side: &'a mut Side,
}

impl Turn<'_> {
    /// Which slot.
    #[inline]
    pub(crate) fn slot(&self) -> u64 {
        self.side.slot()
    }

    /// Publishes the message that the sender has written there.
    #[inline]
    pub(crate) fn publish(self, tail: &AtomicU64) {
        publish(self.side, tail, 1);
    }

    /// Gives the slot back from which the receiver has read.
    #[inline]
    pub(crate) fn release(self, head: &AtomicU64) {
        release(self.side, head, 1);
    }
}

/// Checks both words as a pair and gives the sender's view: for a sender that begins or succeeds
/// another.
pub(crate) fn resume_sender(
    tail: &AtomicU64,
    head: &AtomicU64,
    capacity: u64,
) -> Result<Side, Corrupt> {
    // Acquire pairs with the last sender's and the receiver's Release stores.
    let (own, other) = (tail.load(Ordering::Acquire), head.load(Ordering::Acquire));
    if own.wrapping_sub(other) <= capacity {
        Ok(Side::resume(own, other, capacity))
    } else {
        Err(Corrupt)
    }
}

/// As [`resume_sender`], for the receiver.
pub(crate) fn resume_receiver(
    tail: &AtomicU64,
    head: &AtomicU64,
    capacity: u64,
) -> Result<Side, Corrupt> {
    let (own, other) = (head.load(Ordering::Acquire), tail.load(Ordering::Acquire));
    if other.wrapping_sub(own) <= capacity {
        Ok(Side::resume(own, other, capacity))
    } else {
        Err(Corrupt)
    }
}

/// Free slots from [`Side::slot`] on, as far as known; the receiver's word is loaded if fewer than
/// `wanted` are.
#[inline]
pub(crate) fn free_slots(side: &mut Side, head: &AtomicU64, wanted: u64) -> Result<u64, Corrupt> {
    let used = side.own.wrapping_sub(side.other);
    if side.capacity - used >= wanted {
        return Ok(side.capacity - used);
    }
    // Pairs with the Release store in `release`.
    let other = head.load(Ordering::Acquire);
    let used = side.own.wrapping_sub(other);
    if used > side.capacity {
        return Err(Corrupt);
    }
    side.other = other;
    Ok(side.capacity - used)
}

/// Published messages from [`Side::slot`] on, as far as known; the sender's word is loaded if fewer
/// than `wanted` are.
#[inline]
pub(crate) fn messages(side: &mut Side, tail: &AtomicU64, wanted: u64) -> Result<u64, Corrupt> {
    let ready = side.other.wrapping_sub(side.own);
    if ready >= wanted {
        return Ok(ready);
    }
    // Pairs with the Release store in `publish`.
    let other = tail.load(Ordering::Acquire);
    let ready = other.wrapping_sub(side.own);
    if ready > side.capacity {
        return Err(Corrupt);
    }
    side.other = other;
    Ok(ready)
}

/// Publishes the next `count` slots, which the sender has written.
#[inline]
pub(crate) fn publish(side: &mut Side, tail: &AtomicU64, count: u64) {
    side.advance(count);
    // Pairs with the Acquire load in `messages`.
    tail.store(side.own, Ordering::Release);
}

/// Gives the next `count` slots back, which the receiver has read.
#[inline]
pub(crate) fn release(side: &mut Side, head: &AtomicU64, count: u64) {
    side.advance(count);
    // Pairs with the Acquire load in `free_slots`.
    head.store(side.own, Ordering::Release);
}
