//! Positions of a ring and the words of its slots: pure arithmetic.
//!
//! ```text
//! position = lap:30 | 0:10 | index:24            times round, and slot
//! word     = lap:30 | owner:31 | phase:3         of the slot
//! ```
//! A position holds lap and index side by side, so that any capacity works without a division. The
//! lap has the same bits in a position and in a word: replace the lower bits of a position, and the
//! result is the word that its slot should hold.
//!
//! # How long until a word comes back
//! Laps are counted modulo 2^30. A process that is held up between its look at a word and its swap
//! sees the same word again after that many laps: in a ring of two slots after more than a minute,
//! at 60 ns a lap, and in a larger ring later. In a ring of one slot it takes half as long, and
//! does not matter: the one slot is where the position says, in any lap. [`ahead`] still tells a
//! position that is that old from all others, as positions in shared memory lag and never lead.

use crate::claim::{OWNER_BITS, OWNER_MASK};

/// The most slots that a ring can have.
pub(crate) const MOST_SLOTS: u64 = 1 << INDEX_BITS;

/// Whether a ring can have this many slots.
pub(crate) fn is_capacity(slots: u64) -> bool {
    (1..=MOST_SLOTS).contains(&slots)
}

const INDEX_BITS: u32 = 24;
const LAP_BITS: u32 = 30;
const PHASE_BITS: u32 = 3;
const LAP_SHIFT: u32 = OWNER_BITS + PHASE_BITS;

const LAP_MASK: u64 = (1 << LAP_BITS) - 1;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;
const OWNER_SHIFT: u32 = PHASE_BITS;
/// One lap, in a position and in a word.
const LAP_ONE: u64 = 1 << LAP_SHIFT;
/// The bits below the lap.
const BELOW_LAP: u64 = LAP_ONE - 1;

const _: () = assert!(LAP_BITS + LAP_SHIFT == 64 && INDEX_BITS <= LAP_SHIFT);

/// A place in the endless sequence of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u64);

impl Position {
    #[inline]
    pub(crate) fn new(lap: u64, index: u64) -> Position {
        Position(lap << LAP_SHIFT | index & INDEX_MASK)
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Position {
        Position(bits)
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// How often the ring was gone round, modulo 2^30.
    #[inline]
    pub(crate) fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    /// Index of the slot. A word from shared memory may name a slot that the ring does not have, or
    /// have bits in between that nobody sets. Those bits count as part of the index, so one
    /// comparison finds both.
    #[inline]
    pub(crate) fn index(self) -> u64 {
        self.0 & BELOW_LAP
    }

    /// The position after this one in a ring of `capacity` slots.
    #[inline]
    pub(crate) fn next(self, capacity: u64) -> Position {
        if self.index() + 1 < capacity {
            Position(self.0 + 1)
        } else {
            // After the last lap comes lap 0: the carry falls off the end.
            Position((self.0 & !BELOW_LAP).wrapping_add(LAP_ONE))
        }
    }

    /// Number of positions from `earlier` to this one; 0 if it is not later.
    pub(crate) fn since(self, earlier: Position, capacity: u64) -> u64 {
        let laps = order(self.lap(), earlier.lap());
        let distance = i128::from(laps) * i128::from(capacity) + i128::from(self.index())
            - i128::from(earlier.index());
        u64::try_from(distance.max(0)).unwrap_or(u64::MAX)
    }
}

/// How many laps `a` is ahead of `b`, in the circle of 2^30 laps.
#[inline]
fn order(a: u64, b: u64) -> i64 {
    const SPARE: u32 = 64 - LAP_BITS;
    (a.wrapping_sub(b) << SPARE) as i64 >> SPARE
}

/// How many laps a slot's word is ahead of a walker's position: -1, or any number from 0 on.
///
/// A walker's positions lag or are right, so a slot is at most one lap behind, and the whole rest
/// of the circle means ahead.
#[inline]
pub(crate) fn ahead(word: SlotWord, position: Position) -> i64 {
    let laps = word.lap().wrapping_sub(position.lap()) & LAP_MASK;
    if laps == LAP_MASK { -1 } else { laps as i64 }
}

/// What happens to a slot in one lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Can be claimed for writing.
    Empty,
    /// The owner is writing.
    Writing,
    /// A message is there.
    Full,
    /// The owner is reading.
    Reading,
    /// A message whose reader died, to be delivered again.
    Orphan,
    /// Nothing will ever be written here: the ring was closed at this position.
    Sealed,
    /// A value that this crate never writes.
    Unknown,
}

/// One value of a slot's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotWord(u64);

impl SlotWord {
    #[inline]
    pub(crate) fn new(lap: u64, phase: Phase, owner: u32) -> SlotWord {
        let phase: u64 = match phase {
            Phase::Empty => 0,
            Phase::Writing => 1,
            Phase::Full => 2,
            Phase::Reading => 3,
            Phase::Orphan => 4,
            Phase::Sealed => 5,
            Phase::Unknown => PHASE_MASK,
        };
        {
            debug_assert!(u64::from(owner) <= OWNER_MASK, "names have 31 bits");
            SlotWord(lap << LAP_SHIFT | u64::from(owner) << OWNER_SHIFT | phase)
        }
    }

    /// The word of the slot of `position`, in its lap.
    #[inline]
    pub(crate) fn at(position: Position, phase: Phase, owner: u32) -> SlotWord {
        SlotWord(position.0 & !BELOW_LAP | SlotWord::new(0, phase, owner).0)
    }

    /// The same lap in another phase.
    #[inline]
    pub(crate) fn with(self, phase: Phase, owner: u32) -> SlotWord {
        SlotWord(self.0 & !BELOW_LAP | SlotWord::new(0, phase, owner).0)
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> SlotWord {
        SlotWord(bits)
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    #[inline]
    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE_MASK {
            0 => Phase::Empty,
            1 => Phase::Writing,
            2 => Phase::Full,
            3 => Phase::Reading,
            4 => Phase::Orphan,
            5 => Phase::Sealed,
            _ => Phase::Unknown,
        }
    }

    /// The peer that claimed the slot; 0 in phases without an owner.
    #[inline]
    pub(crate) fn owner(self) -> u32 {
        (self.0 >> OWNER_SHIFT & OWNER_MASK) as u32
    }

    /// The slot's next lap, empty.
    #[inline]
    pub(crate) fn next_lap(self) -> SlotWord {
        SlotWord((self.0 & !BELOW_LAP).wrapping_add(LAP_ONE) | SlotWord::new(0, Phase::Empty, 0).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] =
        [Phase::Empty, Phase::Writing, Phase::Full, Phase::Reading, Phase::Orphan, Phase::Sealed];

    #[test]
    fn zeroed_memory_is_a_fresh_ring() {
        assert_eq!(SlotWord::from_bits(0), SlotWord::new(0, Phase::Empty, 0));
        assert_eq!(Position::from_bits(0), Position::new(0, 0));
    }

    #[test]
    fn a_position_with_bits_that_nobody_writes_has_an_index_that_no_ring_has() {
        for bit in INDEX_BITS..LAP_SHIFT {
            let position = Position::from_bits(Position::new(7, 3).to_bits() | 1 << bit);
            assert_eq!(position.lap(), 7);
            assert!(position.index() >= MOST_SLOTS);
            assert_eq!(position.next(MOST_SLOTS), Position::new(8, 0));
        }
        assert_eq!(Position::from_bits(u64::MAX).next(MOST_SLOTS), Position::new(0, 0));
    }

    #[test]
    fn a_position_becomes_the_word_of_its_slot() {
        for (lap, index) in [(0, 0), (77, 5), (LAP_MASK, INDEX_MASK)] {
            for phase in PHASES {
                let word = SlotWord::new(lap, phase, 9);
                assert_eq!(SlotWord::at(Position::new(lap, index), phase, 9), word);
                assert_eq!(SlotWord::new(lap, Phase::Orphan, 1).with(phase, 9), word);
            }
        }
    }

    #[test]
    fn words_keep_every_field() {
        for phase in PHASES {
            for (lap, owner) in [(0, 0), (LAP_MASK, OWNER_MASK as u32), (77, 5)] {
                let word = SlotWord::new(lap, phase, owner);
                assert_eq!((word.lap(), word.phase(), word.owner()), (lap, phase, owner));
                assert_eq!(SlotWord::from_bits(word.to_bits()), word);
            }
        }
        assert_eq!(SlotWord::from_bits(u64::MAX).phase(), Phase::Unknown);
    }

    #[test]
    fn positions_count_like_division_does() {
        for capacity in [1, 2, 3, 7, 8, 1000] {
            let mut position = Position::new(0, 0);
            for count in 0..3000u64 {
                assert_eq!(
                    (position.lap(), position.index()),
                    (count / capacity, count % capacity)
                );
                assert_eq!(position.since(Position::new(0, 0), capacity), count);
                position = position.next(capacity);
            }
        }
    }

    #[test]
    fn laps_wrap_in_a_circle() {
        assert_eq!(order(0, LAP_MASK), 1);
        assert_eq!(order(LAP_MASK, 0), -1);
        assert_eq!(order(5, 5), 0);
        let ahead =
            |word, position| ahead(SlotWord::new(word, Phase::Full, 0), Position::new(position, 0));
        assert_eq!(
            (ahead(5, 5), ahead(4, 5), ahead(0, LAP_MASK), ahead(LAP_MASK, 0)),
            (0, -1, 1, -1)
        );
        assert_eq!(
            ahead(LAP_MASK / 2 + 7, 5),
            (LAP_MASK / 2 + 2) as i64,
            "half the circle is far ahead, and not behind"
        );
        assert_eq!(Position::new(LAP_MASK, 3).next(4), Position::new(0, 0));
        assert_eq!(
            SlotWord::new(LAP_MASK, Phase::Reading, 9).next_lap(),
            SlotWord::new(0, Phase::Empty, 0)
        );
        assert_eq!(Position::new(0, 0).since(Position::new(LAP_MASK, 3), 4), 1);
        assert_eq!(Position::new(0, 0).since(Position::new(0, 1), 4), 0);
    }
}
