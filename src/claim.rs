//! The bits of a claim word that name the claimant, the same in all claim words.
//!
//! A slot, a lock and a block each have a word that names the process that has claimed it. The name
//! is the same in all of them: the index of the process's entry in the peer table, and above it the
//! low bits of the entry's generation (`peer::id`).
//!
//! # How long until a name comes back
//! A process may be held up between its judgement of a word and the swap that acts on it. The swap
//! must fail if anything has happened meanwhile, so a name must not come back soon. That takes 2^21
//! processes on one index, and a process takes at least 75 us to make: more than two and a half
//! minutes in which a program does nothing else.

/// Bits of a claimant's name.
pub(crate) const OWNER_BITS: u32 = 31;
/// The name in the low bits of a claim word.
pub(crate) const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;
