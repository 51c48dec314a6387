//! How the memory of a segment is kept: allocated in advance, in large pages, locked. The creator
//! chooses, and every process that maps the segment does what was chosen.
//!
//! # Peer death
//! The choice is part of the header, and does not change. What a process has locked is not locked
//! any more when it is dead; its memory stays as it is.

use crate::sys::error::OsError;
use crate::sys::memory;

/// What was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residence {
    /// All memory that the budget allows is allocated by the creator, and mapped by each process
    /// before it uses it.
    pub(crate) is_prefaulted: bool,
    /// Large pages where the kernel gives them.
    pub(crate) has_huge_pages: bool,
    /// What a process has touched stays in memory.
    pub(crate) is_locked: bool,
}

const PREFAULTED: u32 = 1;
const HUGE_PAGES: u32 = 2;
const LOCKED: u32 = 4;

impl Residence {
    /// As it stands in the header.
    pub(crate) fn to_bits(self) -> u32 {
        let bit = |chosen, bit| if chosen { bit } else { 0 };
        bit(self.is_prefaulted, PREFAULTED)
            | bit(self.has_huge_pages, HUGE_PAGES)
            | bit(self.is_locked, LOCKED)
    }

    /// `None` for bits that this crate never writes.
    pub(crate) fn from_bits(bits: u32) -> Option<Residence> {
        (bits & !(PREFAULTED | HUGE_PAGES | LOCKED) == 0).then_some(Residence {
            is_prefaulted: bits & PREFAULTED != 0,
            has_huge_pages: bits & HUGE_PAGES != 0,
            is_locked: bits & LOCKED != 0,
        })
    }

    /// Does to a new mapping of this process what was chosen, where the first `filled` bytes have
    /// memory behind them.
    pub(crate) fn settle(
        self,
        map: &memmap2::MmapRaw,
        filled: usize,
        can_write: bool,
    ) -> Result<(), OsError> {
        if self.has_huge_pages {
            memory::ask_for_huge_pages(map);
        }
        if self.is_locked {
            memory::lock_what_is_touched(map)?;
        }
        if self.is_prefaulted { memory::populate(map, filled, can_write) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_bits_of_its_own_and_other_bits_are_none() {
        for bits in 0..8 {
            assert_eq!(Residence::from_bits(bits).map(Residence::to_bits), Some(bits));
        }
        assert_eq!(Residence::from_bits(0), Some(Residence::default()));
        for bits in [8, 1 << 31, u32::MAX] {
            assert_eq!(Residence::from_bits(bits), None);
        }
    }
}
