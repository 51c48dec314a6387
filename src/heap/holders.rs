//! Which processes hold a shared block: one bit per peer.
//!
//! This is a reference count that can be repaired, because each unit has a name: when a process
//! dies, its bit is cleared. Within a process an ordinary count does the rest.

use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::PEERS;

const WORDS: usize = PEERS / 64;

/// One bit per peer.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Holders {
    words: [AtomicU64; WORDS],
}

// The operations are SeqCst, and rare: see `BlockHeader::advance`, which they pair with.
impl Holders {
    /// Adds a peer.
    pub(crate) fn insert(&self, peer: u32) {
        if let Some(word) = self.words.get(peer as usize / 64) {
            word.fetch_or(1 << (peer % 64), Ordering::SeqCst);
        }
    }

    /// Takes a peer away.
    pub(crate) fn remove(&self, peer: u32) {
        if let Some(word) = self.words.get(peer as usize / 64) {
            word.fetch_and(!(1 << (peer % 64)), Ordering::SeqCst);
        }
    }

    /// Whether the peer holds the block.
    pub(crate) fn contains(&self, peer: u32) -> bool {
        self.words
            .get(peer as usize / 64)
            .is_some_and(|word| word.load(Ordering::SeqCst) & 1 << (peer % 64) != 0)
    }

    /// Whether the peer is the only holder.
    pub(crate) fn is_only(&self, peer: u32) -> bool {
        self.words.iter().enumerate().all(|(index, word)| {
            let expected = if index == peer as usize / 64 { 1 << (peer % 64) } else { 0 };
            word.load(Ordering::SeqCst) == expected
        })
    }

    /// Whether nobody holds the block.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::SeqCst) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_bit_of_its_own() {
        let holders = Holders { words: std::array::from_fn(|_| AtomicU64::new(0)) };
        assert!(holders.is_empty());
        for peer in [0, 63, 64, 1023] {
            holders.insert(peer);
            assert!(holders.contains(peer));
        }
        assert!(!holders.contains(1));
        assert!(!holders.contains(1024), "beyond the table");
        for peer in [0, 63, 64, 1023] {
            assert!(!holders.is_empty());
            holders.remove(peer);
        }
        assert!(holders.is_empty());
    }

    #[test]
    fn one_holder_is_the_only_one() {
        let holders = Holders { words: std::array::from_fn(|_| AtomicU64::new(0)) };
        for peer in [0, 1, 63, 64, 130, 1023] {
            assert!(!holders.is_only(peer), "nobody holds it");
            holders.insert(peer);
            for other in [0, 1, 63, 64, 130, 1023] {
                assert_eq!(holders.is_only(other), other == peer, "{other} beside {peer}");
            }
            holders.insert(peer ^ 1);
            assert!(!holders.is_only(peer));
            holders.remove(peer ^ 1);
            holders.insert(peer ^ 64);
            assert!(!holders.is_only(peer));
            holders.remove(peer ^ 64);
            holders.remove(peer);
        }
    }
}
