//! Positions of a ring and the words of its slots: pure arithmetic.
//!
//! ```text
//! position = lap:40 | index:24                   times round, and slot
//! word     = lap:40 | phase:4 | owner:20         of the slot
//! ```
//! A position holds lap and index side by side, so that any capacity works without a division.

/// Slots that a ring can have at the most.
pub(crate) const MOST_SLOTS: u64 = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 24;
const LAP_BITS: u32 = 40;
const OWNER_BITS: u32 = 20;
const PHASE_BITS: u32 = 4;
const LAP_SHIFT: u32 = OWNER_BITS + PHASE_BITS;

const LAP_MASK: u64 = (1 << LAP_BITS) - 1;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

const _: () = assert!(LAP_BITS + INDEX_BITS == 64);
const _: () = assert!(LAP_BITS + PHASE_BITS + OWNER_BITS == 64);

/// A place in the endless sequence of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u64);

impl Position {
    #[inline]
    pub(crate) fn new(lap: u64, index: u64) -> Position {
        Position((lap & LAP_MASK) << INDEX_BITS | index)
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Position {
        Position(bits)
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Times round, modulo 2^40.
    #[inline]
    pub(crate) fn lap(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// Slot; a word from shared memory may hold one that the ring does not have.
    #[inline]
    pub(crate) fn index(self) -> u64 {
        self.0 & INDEX_MASK
    }

    /// The position after this one in a ring of `capacity` slots.
    #[inline]
    pub(crate) fn next(self, capacity: u64) -> Position {
        if self.index() + 1 < capacity { Position(self.0 + 1) } else { Position::new(self.lap().wrapping_add(1), 0) }
    }

    /// Positions from `earlier` to this one, 0 if it is not later.
    pub(crate) fn since(self, earlier: Position, capacity: u64) -> u64 {
        let laps = order(self.lap(), earlier.lap());
        let distance = i128::from(laps) * i128::from(capacity) + i128::from(self.index()) - i128::from(earlier.index());
        u64::try_from(distance.max(0)).unwrap_or(u64::MAX)
    }
}

/// How many laps `a` is ahead of `b`, in the circle of 2^40 laps.
#[inline]
pub(crate) fn order(a: u64, b: u64) -> i64 {
    const SPARE: u32 = 64 - LAP_BITS;
    (a.wrapping_sub(b) << SPARE) as i64 >> SPARE
}

/// What happens to a slot in one lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be claimed for writing.
    Empty,
    /// The owner is writing.
    Writing,
    /// A message is there.
    Full,
    /// The owner is reading.
    Reading,
    /// A message that its reader died with, to be delivered again.
    Orphan,
    /// Nothing will ever be written here: the ring was closed at this position.
    Sealed,
    /// A value that nobody writes.
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
        SlotWord((lap & LAP_MASK) << LAP_SHIFT | phase << OWNER_BITS | u64::from(owner) & OWNER_MASK)
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
        match self.0 >> OWNER_BITS & PHASE_MASK {
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
        (self.0 & OWNER_MASK) as u32
    }

    /// The slot's next lap, empty.
    #[inline]
    pub(crate) fn next_lap(self) -> SlotWord {
        SlotWord::new(self.lap().wrapping_add(1), Phase::Empty, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [Phase::Empty, Phase::Writing, Phase::Full, Phase::Reading, Phase::Orphan, Phase::Sealed];

    #[test]
    fn zeroed_memory_is_a_fresh_ring() {
        assert_eq!(SlotWord::from_bits(0), SlotWord::new(0, Phase::Empty, 0));
        assert_eq!(Position::from_bits(0), Position::new(0, 0));
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
                assert_eq!((position.lap(), position.index()), (count / capacity, count % capacity));
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
        assert_eq!(Position::new(LAP_MASK, 3).next(4), Position::new(0, 0));
        assert_eq!(SlotWord::new(LAP_MASK, Phase::Reading, 9).next_lap(), SlotWord::new(0, Phase::Empty, 0));
        assert_eq!(Position::new(0, 0).since(Position::new(LAP_MASK, 3), 4), 1);
        assert_eq!(Position::new(0, 0).since(Position::new(0, 1), 4), 0);
    }
}
