//! One sender, one receiver: a ring in which a single store publishes.
//!
//! # Layout
//! Two words, each written by one side: `tail` counts the messages ever published, `head` those
//! ever released. Message `n` lies in slot `n % capacity`.
//!
//! # Orderings
//! The Release store of `tail` pairs with the receiver's Acquire load: it sees the messages. The
//! Release store of `head` pairs with the sender's Acquire load: the receiver has read before the
//! slot is written again. Each side keeps the last value that it read of the other's word, and
//! loads it again only when that is used up. So in a steady stream a message costs no
//! read-modify-write and few cache misses.
//!
//! # Peer death
//! A sender killed before its store to `tail` has published nothing; after it, everything. A
//! receiver killed before its store to `head` leaves the message to its successor. There is no
//! third state and nothing to recover.
//!
//! # Source
//! Lamport, "Proving the Correctness of Multiprocess Programs" (1977); the cached index is from
//! Torquati, "Single-Producer/ Single-Consumer Queues on Shared Cache Multi-Core Systems" (2010).

use crate::primitive::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// The two shared words contain values that this crate never writes: more messages than slots, or
/// fewer than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// One side's private view.
///
/// # Invariants
/// `own` is the value of the side's own word; `slot` is `own % capacity`; `end` is how far this
/// side may get, by a value that the other side's word had: at least `own`, and at most `capacity`
/// more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    own: u64,
    slot: u64,
    end: u64,
    capacity: u64,
}

impl Side {
    /// The view of nobody: it may use no slot.
    pub(crate) const NONE: Side = Side { own: 0, slot: 0, end: 0, capacity: 1 };

    fn resume(own: u64, end: u64, capacity: u64) -> Side {
        Side { own, slot: own % capacity, end, capacity }
    }

    #[inline]
    fn slot(&self) -> u64 {
        self.slot
    }

    /// How many slots from [`slot`](Side::slot) on are known to be this side's own.
    #[inline]
    fn known(&self) -> u64 {
        self.end.wrapping_sub(self.own)
    }

    /// The slot that this side uses next, if it is known to be its own.
    #[inline]
    pub(crate) fn turn(&mut self) -> Option<Turn<'_>> {
        if self.end == self.own { None } else { Some(Turn { side: self }) }
    }

    /// Takes note of the other side's word: this side may now get as far as `end`.
    fn look(&mut self, end: u64) -> Result<u64, Corrupt> {
        let own = end.wrapping_sub(self.own);
        if own > self.capacity {
            return Err(Corrupt);
        }
        self.end = end;
        Ok(own)
    }

    #[inline]
    fn advance(&mut self) {
        // INVARIANT: `slot` stays `own % capacity`.
        self.own = self.own.wrapping_add(1);
        let next = self.slot + 1;
        self.slot = if next == self.capacity { 0 } else { next };
    }
}

/// A slot that belongs to a side until the side goes on to the next.
#[derive(Debug)]
#[must_use = "the slot stays with this side"]
pub(crate) struct Turn<'a> {
    side: &'a mut Side,
}

impl Turn<'_> {
    /// Which slot: less than the capacity that the side was made for.
    #[inline]
    pub(crate) fn slot(&self) -> u64 {
        self.side.slot()
    }

    /// Publishes the message that the sender has written into the slot.
    #[inline]
    pub(crate) fn publish(self, tail: &AtomicU64) {
        self.side.advance();
        // Pairs with the Acquire load in `messages`.
        tail.store(self.side.own, Ordering::Release);
    }

    /// Gives back the slot that the receiver has read.
    #[inline]
    pub(crate) fn release(self, head: &AtomicU64) {
        self.side.advance();
        // Pairs with the Acquire load in `free_slots`.
        head.store(self.side.own, Ordering::Release);
    }
}

/// Checks both words as a pair and gives the sender's view. For a sender that begins, or that
/// succeeds another.
pub(crate) fn resume_sender(
    tail: &AtomicU64,
    head: &AtomicU64,
    capacity: u64,
) -> Result<Side, Corrupt> {
    // Acquire pairs with the last sender's and the receiver's Release stores.
    let (own, head) = (tail.load(Ordering::Acquire), head.load(Ordering::Acquire));
    if own.wrapping_sub(head) > capacity {
        return Err(Corrupt);
    }
    Ok(Side::resume(own, head.wrapping_add(capacity), capacity))
}

/// As [`resume_sender`], for the receiver.
pub(crate) fn resume_receiver(
    tail: &AtomicU64,
    head: &AtomicU64,
    capacity: u64,
) -> Result<Side, Corrupt> {
    let (own, tail) = (head.load(Ordering::Acquire), tail.load(Ordering::Acquire));
    if tail.wrapping_sub(own) > capacity {
        return Err(Corrupt);
    }
    Ok(Side::resume(own, tail, capacity))
}

/// Number of free slots from [`Turn::slot`] on. Loads the receiver's word if fewer than `wanted`
/// are known.
pub(crate) fn free_slots(side: &mut Side, head: &AtomicU64, wanted: u64) -> Result<u64, Corrupt> {
    if side.known() >= wanted {
        return Ok(side.known());
    }
    // Pairs with the Release store in `release`.
    side.look(head.load(Ordering::Acquire).wrapping_add(side.capacity))
}

/// Number of published messages from [`Turn::slot`] on. Loads the sender's word if fewer than
/// `wanted` are known.
pub(crate) fn messages(side: &mut Side, tail: &AtomicU64, wanted: u64) -> Result<u64, Corrupt> {
    if side.known() >= wanted {
        return Ok(side.known());
    }
    // Pairs with the Release store in `publish`.
    side.look(tail.load(Ordering::Acquire))
}
