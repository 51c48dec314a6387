//! Values that may own memory of the segment, on their way through a queue.
//!
//! A value that owns nothing is copied into a slot. Of one that owns blocks, the slot contains
//! their names, and the blocks say which slot carries them, as those of long messages do
//! ([`parcel`](super::parcel)). What is in the slot is a hint; the block's own word decides.
//!
//! ```text
//! sender                                            receiver
//!   claim a slot: WRITING(l, s)                       claim a slot: READING(l, r)
//!   each block: OWNED(s, g) -> CARRIED(g+1),          each name: the block is CARRIED(g) by this slot?
//!     by (slot, l)                                      CARRIED(g) -> OWNED(r, g)
//!   write the names; publish: FULL(l)                 release the slot: EMPTY(l+1)
//!   drop the value, which owns nothing any more       the value is the receiver's
//! ```
//! The generation grows, so whatever the sender still has is the name of nothing, also if the same
//! process receives the block again.
//!
//! If a block cannot be carried (somebody has written over its word, or it lies in another
//! segment), the sender takes back those before it, gives the slot up, and has its value again. If
//! it belongs to another process, that is a panic, and what was taken back is freed with the value.
//! If a name is wrong, the receiver gives back what it has taken so far, and the slot: the message
//! is gone, and the next one is not affected.
//!
//! # Peer death
//! What clears up after a dead process recovers its slots and then sweeps ([`reap`](super::reap)).
//!
//! | killed | left | outcome |
//! |---|---|---|
//! | sender before `CARRIED` | `OWNED(s)`; its carrier names no slot, or one that recovery moves on | freed |
//! | sender before `FULL` | `CARRIED`, slot `WRITING(s)` | recovery moves the slot: stranded, freed |
//! | sender after `FULL` | `CARRIED`, slot `FULL` | sent |
//! | receiver before the release, `Drop` | `OWNED(r)` and `CARRIED`, slot `READING(r)` | back to `CARRIED`; recovery moves the slot: stranded, freed |
//! | receiver before the release, `Redeliver` | the same | back to `CARRIED`, by the reaper, or straight to the next receiver |
//! | receiver after the release | `OWNED(r)`, whose carrier is in a later lap | freed |
//! | the last holder of the queue, while it frees what is in it | `CARRIED` by a queue that is gone | stranded, freed |
//! | whoever clears up, anywhere | one of the above, or `OWNED` by it | its own reaper goes on |
//!
//! Of the next receiver and the reaper one wins, as both swap from the exact word. The next
//! receiver needs no verdict on the one before: the slot is its own in the lap that the block
//! names, so it is the other's no more.
//!
//! # Source
//! As of [`parcel`](super::parcel). That the value is given away, and not lent, is the move of a
//! linear type; Singularity's exchange heap does the same between processes (Fähndrich et al.,
//! "Language Support for Fast and Reliable Message-based Communication", 2006).
#![expect(unsafe_code, reason = "declares an unsafe trait")]

use crate::heap::block::Carrier;
use crate::object::holding::Holder;
use crate::object::kind::Kind;
use crate::peer::Fault;
use crate::segment::Shm;
use crate::segment::region::Mapping;

/// A value that can be sent through a [`Queue`](crate::Queue): moved into it, and out of it in
/// another process.
///
/// Everything that is [`Shm`] is, and [`ShmBox`](crate::ShmBox), [`ShmVec`](crate::ShmVec) and
/// [`ShmStr`](crate::ShmStr) are: the megabyte that a box owns stays where it is, and only its name
/// goes through the queue.
///
/// A value travels *by value*, and so exactly one process has it at a time. That is why a box is no
/// `serde` value: serializing takes a reference, and with an `Arc<ShmBox<_>>` in a message, sender
/// and receiver could both change what the box owns.
///
/// # Safety
/// Only this crate knows what its methods must do, and they may change.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent through a queue of shared memory",
    label = "implements neither `offspring::Shm` nor `offspring::Transfer`",
    note = "plain data: `#[derive(Clone, Copy, offspring::Shm)]` and `#[repr(C)]`",
    note = "`String`, `Vec`, `bool`, an enum: send it through an `offspring::channel` or an \
            `ObjectQueue`",
    note = "memory of its own that moves and is not copied: `ShmBox`, `ShmVec`, `ShmStr`"
)]
pub unsafe trait Transfer: Sized + Send + 'static {
    /// What lies in the slot.
    #[doc(hidden)]
    type Wire: Shm;

    /// Whether a value may own blocks. If not, it is its own `Wire`.
    #[doc(hidden)]
    const OWNS: bool = true;

    /// A value that owns nothing, as it lies in the slot; `None` if `OWNS`.
    #[doc(hidden)]
    fn as_wire(&self) -> Option<&Self::Wire> {
        None
    }

    /// The inverse of `as_wire`.
    #[doc(hidden)]
    fn from_wire(_wire: Self::Wire) -> Option<Self> {
        None
    }

    /// Hands over what the value owns to the message. The value owns nothing then, and is only
    /// dropped or restored. After an error, `restore` takes back what was handed over before it.
    #[doc(hidden)]
    fn pack(&mut self, departure: &Departure<'_>) -> Result<Self::Wire, Fault>;

    /// Takes back what `pack` has handed over, as the message is not sent.
    #[doc(hidden)]
    fn restore(&mut self);

    /// Takes what the message carries. After an error what was taken before it is given back.
    #[doc(hidden)]
    fn unpack(wire: Self::Wire, arrival: &Arrival<'_>) -> Result<Self, Fault>;
}

// Without it the compiler would name `Pod`, which the user did not ask for.
#[diagnostic::do_not_recommend]
// SAFETY: a value that owns nothing is wholly in its bytes.
unsafe impl<T: Shm> Transfer for T {
    type Wire = T;

    const OWNS: bool = false;

    #[inline(always)]
    fn as_wire(&self) -> Option<&T> {
        Some(self)
    }

    #[inline(always)]
    fn from_wire(wire: T) -> Option<T> {
        Some(wire)
    }

    fn pack(&mut self, _departure: &Departure<'_>) -> Result<T, Fault> {
        Ok(*self)
    }

    fn restore(&mut self) {}

    fn unpack(wire: T, _arrival: &Arrival<'_>) -> Result<T, Fault> {
        Ok(wire)
    }
}

/// The kind of a queue of `T`.
pub(crate) fn queue_kind<T: Transfer>() -> u64 {
    let kind = if T::OWNS { Kind::Owners } else { Kind::Queue };
    kind.with_wire::<T, T::Wire>()
}

/// The kind of a channel of `T`.
pub(crate) fn channel_kind<T: Transfer>() -> u64 {
    let kind = if T::OWNS { Kind::OwnersChannel } else { Kind::PlainChannel };
    kind.with_wire::<T, T::Wire>()
}

/// The slot that a value is written into, which this process has claimed.
#[derive(Debug)]
pub struct Departure<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) carrier: Carrier,
}

/// The slot that a value is read from, which this process has claimed.
#[derive(Debug)]
pub struct Arrival<'a> {
    pub(crate) holder: Holder<'a>,
    pub(crate) carrier: Carrier,
}

/// A value that is being sent. Dropped before [`Unsent::sent`], also by a panic of a box that
/// belongs to another process, it takes back what it has handed over.
pub(crate) struct Unsent<'a, T: Transfer>(pub(crate) &'a mut T);

impl<T: Transfer> Unsent<'_, T> {
    /// The message with the value is about to be published.
    pub(crate) fn sent(self) {
        std::mem::forget(self);
    }
}

impl<T: Transfer> Drop for Unsent<'_, T> {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// What lies in a slot of a block that the message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Name {
    pub(crate) block: u64,
    pub(crate) generation: u64,
    /// How many values lie in it.
    pub(crate) len: u64,
}

/// What lies in a slot of a struct: the wire of the first field, and that of the rest. Without
/// gaps, so that no byte of it is uninitialised.
#[derive(Debug)]
#[repr(C, packed)]
pub struct Pair<A: Copy, B: Copy>(pub A, pub B);

impl<A: Copy, B: Copy> Clone for Pair<A, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Copy, B: Copy> Copy for Pair<A, B> {}

// SAFETY: both parts are `Shm`, and a packed struct has no padding.
unsafe impl<A: Shm, B: Shm> Shm for Pair<A, B> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_no_gaps() {
        assert_eq!(size_of::<Pair<u8, Pair<u64, Pair<u16, ()>>>>(), 11);
        let Pair(first, Pair(second, ())) = Pair(7_u8, Pair(u64::MAX, ()));
        assert_eq!((first, second), (7, u64::MAX));
    }
}
