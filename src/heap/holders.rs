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
    /// No holder yet, in memory of this process.
    #[cfg(test)]
    pub(crate) fn new() -> Holders {
        Holders { words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Takes all away, in memory that belongs to this process alone.
    pub(crate) fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    }

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

    /// The holders, each as it was found on a walk over the words.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let bits = word.load(Ordering::SeqCst);
            (0..64).filter(move |bit| bits & 1 << bit != 0).map(move |bit| index as u32 * 64 + bit)
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
        let holders = Holders::new();
        assert!(holders.is_empty());
        for peer in [0, 63, 64, 1023] {
            holders.insert(peer);
            assert!(holders.contains(peer));
        }
        assert!(!holders.contains(1));
        assert!(!holders.contains(1024), "beyond the table");
        assert_eq!(holders.iter().collect::<Vec<_>>(), [0, 63, 64, 1023]);
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
