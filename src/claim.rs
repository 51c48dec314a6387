//! What all claim words have in common: the bits that name the claimant.
//!
//! A slot, a lock and a block each have a word of their own, and each names whoever has claimed it
//! in the same way: by the index of its entry in the peer table, and above it the low bits of the
//! entry's generation (`peer::id`).
//!
//! # How long until a name comes back
//! A process may be held up between its verdict about a word and the swap that acts on it. The swap
//! must fail if anything has happened meanwhile, so a name must not come back soon. It takes 2^21
//! processes on one index, and a process costs at least 75 us to make: more than two and a half
//! minutes in which a program does nothing else.

/// Bits of a claimant's name.
pub(crate) const OWNER_BITS: u32 = 31;
/// The name in the low bits of a claim word.
pub(crate) const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;
