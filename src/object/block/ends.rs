//! Who has the ends of a channel, or of a ring of two: one bit per process in each of two roles.
//!
//! # Layout
//! ```text
//! offset  size  field
//!      0   128  senders.holders    one bit per peer
//!    128     8  senders.state      version:63 | GONE:1
//!    256   128  receivers.holders
//!    384     8  receivers.state
//! ```
//! # States
//! ```text
//! acquire:   set my bit; CAS state OPEN(v) -> OPEN(v+1); only then may the hold end by which I got here
//! release:   clear my bit
//! conclude:  v = state > 0; all bits are 0; no message holds an end; CAS state OPEN(v) -> GONE, for
//!            good
//! ```
//! `OPEN(0)` is a role that nobody has had yet, in a channel that is still being made.
//!
//! A process that concludes reads the bits one after the other, so a hold may move behind its back:
//! it has then changed the version, and the swap fails. `GONE` is final. A process that sets its
//! bit after that finds `GONE` and clears it again.
//!
//! An end in a message counts: its flight lists the channel and the role. It is made before the
//! sender clears its bit, and freed after the receiver has acquired, so all that
//! [`heap::flight`](crate::heap::flight) says of an object's bits and word is true of these.
//!
//! # Peer death
//! The bits of a dead process are cleared by whoever clears up after it. A process killed between
//! its bit and its swap has a bit, which is cleared likewise. Killed between the last bit and the
//! conclusion: whoever waits looks at the bits once per slice, and concludes.

use crate::heap::Pool;
use crate::heap::flight::Name;
use crate::heap::holders::Holders;
use crate::heap::pool::Attached;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::PEERS;
use crate::segment::region::Shared;

use super::line::Line;

/// Bytes of the words.
pub(crate) const ENDS_LEN: u64 = size_of::<Ends>() as u64;

/// Nobody has had an end yet.
const NEW: u64 = 0;
const GONE: u64 = 1;
const VERSION_ONE: u64 = 2;

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Sender,
    Receiver,
}

impl Role {
    pub(crate) const BOTH: [Role; 2] = [Role::Sender, Role::Receiver];

    /// The role of those at the other end.
    pub(crate) fn other(self) -> Role {
        match self {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        }
    }

    /// How the flight of a message names an end of this role. 0 stands for the object alone.
    pub(crate) fn in_flight(self) -> u32 {
        1 + self as u32
    }
}

#[derive(Debug)]
#[repr(C)]
struct RoleWords {
    holders: Holders,
    state: AtomicU64,
}

/// The words of both roles.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Ends([Line<RoleWords>; 2]);

const _: () = {
    assert!(core::mem::offset_of!(RoleWords, holders) == 0);
    assert!(core::mem::offset_of!(RoleWords, state) == PEERS / 8);
    assert!(PEERS < 1024 || ENDS_LEN == 512);
};

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics, and padding that nobody reads.
unsafe impl Shared for Ends {}

// The operations are SeqCst, and rare. A process that releases clears its bit and then looks at all
// bits: if two do so at once, they must not both see the other's bit.
impl Ends {
    /// No ends yet, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        for Line(role) in &self.0 {
            role.holders.clear();
            // Relaxed: published with the block's word.
            role.state.store(NEW, Ordering::Relaxed);
        }
    }

    fn role(&self, role: Role) -> &RoleWords {
        &self.0[role as usize]
    }

    /// Makes `peer` one that has ends of this role; false if the role is gone.
    pub(crate) fn acquire(&self, role: Role, peer: u32) -> bool {
        let words = self.role(role);
        words.holders.insert(peer);
        let opened = words.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
            (state & GONE == 0).then(|| state.wrapping_add(VERSION_ONE))
        });
        if opened.is_err() {
            words.holders.remove(peer);
        }
        opened.is_ok()
    }

    /// `peer` has no end of this role any more.
    pub(crate) fn release(&self, role: Role, peer: u32) {
        self.role(role).holders.remove(peer);
    }

    /// Whether nobody has ends of this role any more. If nobody has, nobody ever will again. A role
    /// that nobody has had yet is not gone: the process that made the channel takes it next.
    /// `in_flight` says whether a message holds an end.
    pub(crate) fn conclude(&self, role: Role, in_flight: impl Fn() -> bool) -> bool {
        let words = self.role(role);
        loop {
            let state = words.state.load(Ordering::SeqCst);
            if state & GONE != 0 {
                return true;
            }
            if state == NEW || !words.holders.is_empty() || in_flight() {
                return false;
            }
            let gone = words.state.compare_exchange(
                state,
                state | GONE,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if gone.is_ok() {
                return true;
            }
        }
    }

    /// Whether that was concluded before: nobody has ends of this role, and nobody ever will. What
    /// the last of them published is visible.
    #[inline]
    pub(crate) fn is_gone(&self, role: Role) -> bool {
        // Acquire pairs with the SeqCst swap of `conclude`, which comes after the last release.
        self.role(role).state.load(Ordering::Acquire) & GONE != 0
    }

    /// As [`Ends::conclude`], for both roles of the object that these words belong to; true if one
    /// of them is gone. For use after an end was given up that was in a message, or a dead
    /// process's.
    pub(super) fn conclude_both(&self, pool: &Pool<'_>, object: Attached) -> bool {
        let Attached { id, generation, .. } = object;
        let in_flight =
            |role: Role| pool.has_flight(Name { id, generation, role: role.in_flight() });
        let mut gone = false;
        for role in Role::BOTH {
            gone |= self.conclude(role, || in_flight(role));
        }
        gone
    }

    /// Whether the peer has ends of this role.
    pub(crate) fn has(&self, role: Role, peer: u32) -> bool {
        self.role(role).holders.contains(peer)
    }

    /// The peers that have ends of this role. A snapshot.
    pub(crate) fn peers(&self, role: Role) -> impl Iterator<Item = u32> + '_ {
        self.role(role).holders.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        let words = || RoleWords { holders: Holders::new(), state: AtomicU64::new(NEW) };
        Ends([Line(words()), Line(words())])
    }

    #[test]
    fn a_role_is_gone_with_its_last_holder_and_the_other_is_not() {
        let ends = ends();
        for peer in [0, 700, 1023] {
            assert!(ends.acquire(Role::Sender, peer));
        }
        assert!(ends.acquire(Role::Receiver, 5));
        for peer in [700, 0] {
            ends.release(Role::Sender, peer);
            assert!(!ends.conclude(Role::Sender, || false));
        }
        assert_eq!(ends.peers(Role::Sender).collect::<Vec<_>>(), [1023]);
        ends.release(Role::Sender, 1023);
        assert!(ends.conclude(Role::Sender, || false));
        assert!(ends.conclude(Role::Sender, || false), "still");
        assert!(!ends.conclude(Role::Receiver, || false));
    }

    #[test]
    fn an_end_in_a_message_counts() {
        let ends = ends();
        assert!(ends.acquire(Role::Sender, 1));
        ends.release(Role::Sender, 1);
        assert!(!ends.conclude(Role::Sender, || true));
        assert!(ends.acquire(Role::Sender, 3), "it can be received");
        ends.release(Role::Sender, 3);
        assert!(ends.conclude(Role::Sender, || false));
    }

    /// A process that other code forks while a channel is being made has a copy of the first end,
    /// and may look for the other ones before they are there. It once ended the channel.
    #[test]
    fn a_role_that_nobody_has_had_yet_is_not_gone() {
        let ends = ends();
        assert!(ends.acquire(Role::Sender, 1));
        assert!(!ends.conclude(Role::Receiver, || false));
        assert!(ends.acquire(Role::Receiver, 1), "it is still to be had");
    }

    #[test]
    fn what_is_gone_does_not_come_back() {
        let ends = ends();
        assert!(ends.acquire(Role::Sender, 1));
        ends.release(Role::Sender, 1);
        assert!(ends.conclude(Role::Sender, || false));
        assert!(!ends.acquire(Role::Sender, 3));
        assert!(!ends.has(Role::Sender, 3), "the bit is cleared again");
        ends.reset();
        assert!(ends.acquire(Role::Sender, 3));
    }
}
