//! Who has the ends of a channel: one bit per process in each of two roles.
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
//! conclude:  v = state > 0; all bits are 0; CAS state OPEN(v) -> GONE, for good
//! ```
//! `OPEN(0)` is a role that nobody has had yet, in a channel that is still being made.
//!
//! A process that concludes reads the bits one after the other, so a hold may move behind its back:
//! it has then changed the version, and the swap fails. `GONE` is final. A process that sets its bit
//! after that finds `GONE` and clears it again.
//!
//! # Peer death
//! The bits of a dead process are cleared by whoever clears up after it. A process killed between
//! its bit and its swap has a bit, which is cleared likewise. Killed between the last bit and the
//! conclusion: whoever waits looks at the bits once per slice, and concludes.

use crate::heap::holders::Holders;
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
    pub(crate) fn conclude(&self, role: Role) -> bool {
        let words = self.role(role);
        loop {
            let state = words.state.load(Ordering::SeqCst);
            if state & GONE != 0 {
                return true;
            }
            if state == NEW || !words.holders.is_empty() {
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
            assert!(!ends.conclude(Role::Sender));
        }
        assert_eq!(ends.peers(Role::Sender).collect::<Vec<_>>(), [1023]);
        ends.release(Role::Sender, 1023);
        assert!(ends.conclude(Role::Sender));
        assert!(ends.conclude(Role::Sender), "still");
        assert!(!ends.conclude(Role::Receiver));
    }

    /// A process that other code forks while a channel is being made has a copy of the first end,
    /// and may look for the other ones before they are there. It once ended the channel.
    #[test]
    fn a_role_that_nobody_has_had_yet_is_not_gone() {
        let ends = ends();
        assert!(ends.acquire(Role::Sender, 1));
        assert!(!ends.conclude(Role::Receiver));
        assert!(ends.acquire(Role::Receiver, 1), "it is still to be had");
    }

    #[test]
    fn what_is_gone_does_not_come_back() {
        let ends = ends();
        assert!(ends.acquire(Role::Sender, 1));
        ends.release(Role::Sender, 1);
        assert!(ends.conclude(Role::Sender));
        assert!(!ends.acquire(Role::Sender, 3));
        assert!(!ends.has(Role::Sender, 3), "the bit is cleared again");
        ends.reset();
        assert!(ends.acquire(Role::Sender, 3));
    }
}
