//! Whether anybody has the other end of a channel, or of a ring of two.
//!
//! A process that waits asks this once per slice. It keeps a *witness*: a peer that had the other
//! end when it last asked. As long as the witness has its bit and lives, one question to the kernel
//! is enough, however many peers there are. If not, it looks for another one, and clears up after
//! each dead peer that it meets. If there is none, and no message holds an end, the role is gone:
//! see [`block::ends`](super::block::ends).
//!
//! # Peer death
//! The witness lies in private memory, and is a hint.

use crate::heap::BlockId;
use crate::heap::flight::Name;
use crate::object::Handle;
use crate::object::block::ends::{Ends, Role};
use crate::object::holding::Holder;
use crate::object::place::{Block, Object};
use crate::primitive::{AtomicU32, Ordering};

/// A peer that had the other end when somebody last asked.
#[derive(Debug)]
pub(crate) struct Witness(AtomicU32);

impl Witness {
    pub(crate) fn new() -> Witness {
        Witness(AtomicU32::new(0))
    }

    /// Whether nobody has an end of the role `others` any more. Asks the kernel about one process
    /// that has, however many there are. `ends` are those of `object`.
    pub(crate) fn others_have_gone<B: Block>(
        &self,
        object: &Object<B>,
        ends: &Ends,
        others: Role,
    ) -> bool {
        let Ok(holder) = object.holder() else { return false };
        // Relaxed: a hint.
        let witness = self.0.load(Ordering::Relaxed);
        let is_there = |peer| ends.has(others, peer) && !holder.is_dead_peer(peer);
        if is_there(witness) {
            return false;
        }
        for peer in ends.peers(others) {
            if is_there(peer) {
                self.0.store(peer, Ordering::Relaxed);
                return false;
            }
            // Clears its bits, among all else that it has left.
            holder.reap(peer);
        }
        let is_in_flight = || is_in_flight(object, &holder, others);
        if is_in_flight() {
            // All who could receive it may be dead, or all who hold the queue that it is in.
            holder.reap_messages();
        }
        ends.conclude(others, is_in_flight)
    }
}

/// Whether a message holds an end of this object.
pub(crate) fn is_in_flight<B: Block>(object: &Object<B>, holder: &Holder<'_>, role: Role) -> bool {
    let Handle { block, generation, .. } = object.handle();
    BlockId::from_bits(block).is_some_and(|id| {
        let end = Name { id, generation: generation as u32, role: role.in_flight() };
        holder.pool().has_flight(end)
    })
}
