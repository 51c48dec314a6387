//! Small blocks that a process keeps at hand: what it has just freed is what it allocates next.
//!
//! A block that is kept is `CACHED`: free like any other, but still charged, and with the name of
//! its keeper in its word. Where such blocks are, the keeper has noted in private memory, in a
//! *magazine* for each thread. To free a block and to allocate it again costs one swap of the
//! block's own word, and nothing that other processes write to.
//!
//! The notes are hints. What is true of a block says its word, by which anybody may take it: the
//! keeper, a process that needs room, whoever clears up after the keeper. Of two that try, one
//! wins, and the other looks elsewhere.
//!
//! # Layout
//! ```text
//! the hints of a mapping   SEATS rows of 33 words, one row for each seat of a thread
//! a row                    3 words for each of the smallest classes
//! a word                   0, or 1:1 | generation:31 | index:32
//! ```
//!
//! # Invariants
//! - A block that is `CACHED` has what a free one has: no marks, no carrier. It is of a class whose
//!   blocks are backed whole, and was backed. Its `kind` is 0, so that nobody takes what is in it
//!   for an object. Its `len` is what the budget is charged with.
//! - Its keeper owned it before, so the keeper's footprint has the block's card.
//! - What a hint names the process has owned, so that the block is within the frontier of its
//!   class. No other process writes hints.
//!
//! # Room
//! A block that is kept takes part of the budget, so that it costs no swap of a word that all
//! processes share. If the budget is spent all such blocks of all processes go back, and the
//! allocation is tried again ([`Pool::give_cached`]). Nothing is kept while little of the budget is
//! left, as that would be a walk over all headers for each allocation.
//!
//! # Orderings
//! Hints are Relaxed: what they lead to is ordered by the block's word.
//!
//! # Peer death
//! Before the store of `CACHED` the block is the dead process's, and after it, too, as its word
//! says. Whoever clears up after it gives it back. It is charged all the while.
//!
//! # Fork
//! The page with the hints is wiped in a child. What the words say goes on being the parent's.
//!
//! # Threads and signals
//! A thread that ends leaves its magazine to the next thread on its seat. A signal handler that
//! comes in between two steps, or a second thread on the same seat, may lose a hint. The block goes
//! back when room is needed, or when the keeper dies.
//!
//! # Source
//! Bonwick and Adams, "Magazines and Vmem" (2001). There a magazine owns what is in it.

use crate::heap::block::{BlockHeader, BlockWord, State};
use crate::heap::owned::Owned;
use crate::heap::pool::{BlockId, PAGE, Pages, Pool};
use crate::peer::PeerId;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::Class;
use crate::segment::region::Mapping;
use crate::sys::seat;

/// Words of a row.
const ROW: usize = 33;
/// Blocks of a class in a magazine.
const EACH: usize = 3;
/// Nothing is kept if not even this part of the budget is free.
const RESERVE: u64 = 8;

/// Set in every hint.
const IS_HINT: u64 = 1 << 63;

fn hint(index: u64, generation: u32) -> u64 {
    IS_HINT | u64::from(generation) << 32 | index
}

/// Index and generation.
fn parts(hint: u64) -> (u32, u32) {
    (hint as u32, (hint >> 32) as u32 & (u32::MAX >> 1))
}

impl<'a> Pool<'a> {
    /// Takes a block of at least `len` bytes that `me` has kept, if this thread knows of one, and
    /// records `kind`. The short way of [`Pool::allocate`].
    #[inline(always)]
    pub(crate) fn take_cached(&self, me: PeerId, kind: u64, len: u64) -> Option<Owned<'a>> {
        self.take_cached_of(me, kind, len, len)
    }

    /// As [`Pool::take_cached`], of a block of at least `room` bytes, of which `len` are used.
    #[inline(always)]
    pub(super) fn take_cached_of(
        &self,
        me: PeerId,
        kind: u64,
        len: u64,
        room: u64,
    ) -> Option<Owned<'a>> {
        let (number, class) = self.kept_class(room)?;
        let hints = self.magazine(number, class)?;
        let place = hints.iter().rev().find(|place| place.load(Ordering::Relaxed) != 0)?;
        let (index, generation) = parts(place.load(Ordering::Relaxed));
        place.store(0, Ordering::Relaxed);
        let id = BlockId::new(number as u8, index);
        // This process had it before.
        let header = self.header_in(class, id)?;
        // Its card is in the footprint, by the invariant.
        let word = header.take_again(generation, me.owner())?;
        let had = header.len().min(class.block_size);
        if had != len && !recharge(self.mapping(), id, header, word, [had, len]) {
            return None;
        }
        header.describe(kind, len);
        Some(Owned { id, class, header, word })
    }

    /// Keeps an owned block at hand for its owner; false if it must be freed.
    #[inline(always)]
    pub(super) fn set_aside(&self, owned: &Owned<'_>) -> bool {
        let &Owned { id, class, header, word } = owned;
        let Some(hints) = self.magazine(id.class() as usize, class) else { return false };
        let Some(place) = hints.iter().find(|place| place.load(Ordering::Relaxed) == 0) else {
            return false;
        };
        if !self.has_reserve() || header.pages() == 0 || header.is_flight() {
            return false;
        }
        // INVARIANT: as free blocks are, of no kind, and charged as before.
        header.describe(0, header.len().min(class.block_size));
        header.mark_charged();
        if let Some(generation) = header.set_aside(word) {
            place.store(hint(id.index(), generation), Ordering::Relaxed);
        }
        // Else somebody has written over the word, and the block is lost, as in `tear_down`.
        true
    }

    /// Gives back every block that some process keeps. For `me`, which needs room. Gives their
    /// number.
    pub(super) fn give_cached(&self, me: PeerId) -> usize {
        let mut given = 0;
        self.walk(|id, header| {
            let word = header.load();
            if matches!(word.state(), State::Cached(_)) {
                given += usize::from(self.give_one_back(id, header, word, me));
            }
        });
        given
    }

    /// Gives back what this process, `me`, keeps. For a process that leaves the segment.
    pub(crate) fn empty_magazines(&self, me: PeerId) {
        for (place, hint) in self.mapping().hints().iter().enumerate() {
            let hint = hint.load(Ordering::Relaxed);
            if hint == 0 {
                continue;
            }
            let (index, generation) = parts(hint);
            let id = BlockId::new((place % ROW / EACH) as u8, index);
            if let Some(header) = self.header(id)
                && let Some(word) = header.take_again(generation, me.owner())
            {
                self.tear_down(id, header, word, Pages::Give);
            }
        }
    }

    /// Gives back a block that is `CACHED`, as its `word` says; false if somebody else has taken
    /// it.
    pub(super) fn give_one_back(
        &self,
        id: BlockId,
        header: &BlockHeader,
        word: BlockWord,
        me: PeerId,
    ) -> bool {
        let owned = self.own(id, header, word, me.owner());
        owned.inspect(|&owned| self.tear_down(id, header, owned, Pages::Give)).is_some()
    }

    /// The class of a block of `len` bytes, if a process may keep such blocks.
    #[inline]
    fn kept_class(&self, len: u64) -> Option<(usize, &'a Class)> {
        let mut classes = self.mapping().layout().classes().iter().enumerate();
        classes.find(|(_, class)| class.block_size >= len)
    }

    /// The hints of this thread for a class; `None` if no blocks of that class are kept.
    #[inline]
    fn magazine(&self, number: usize, class: &Class) -> Option<&'a [AtomicU64; EACH]> {
        if class.block_size > PAGE {
            return None;
        }
        let (rows, _) = self.mapping().hints().as_chunks::<ROW>();
        let (classes, _) = rows.get(seat::number()?)?.as_chunks();
        classes.get(number)
    }

    /// Whether there is enough left of the budget that a block may be kept.
    #[inline]
    fn has_reserve(&self) -> bool {
        let budget = self.mapping().layout().budget();
        self.charged() <= budget - budget / RESERVE
    }
}

/// Charges an owned block of `had` bytes with `len` in place of that. If there is no room, gives
/// the block back. By way of the mapping, as in `free`.
#[inline(never)]
fn recharge(
    mapping: &Mapping,
    id: BlockId,
    header: &BlockHeader,
    owned: BlockWord,
    [had, len]: [u64; 2],
) -> bool {
    let Some(region) = mapping.region() else { return false };
    let pool = Pool::new(mapping, region);
    let recharged = pool.recharge_block(header, had, len);
    if !recharged {
        pool.tear_down(id, header, owned, Pages::Keep);
    }
    recharged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::block::Carrier;
    use crate::heap::pool::Carried;
    use crate::segment::Segment;

    /// Runs `test` with the heap of a segment of 1 MiB, and two peers, in a thread that has a seat.
    fn with_pool(test: impl FnOnce(Pool<'_>, PeerId, PeerId)) {
        // Other tests run in threads, and may have all seats for a moment.
        while seat::number().is_none() {
            std::thread::yield_now();
        }
        let segment = Segment::create(1 << 20).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        test(pool, PeerId::new(1, 1), PeerId::new(2, 1));
    }

    fn cached(pool: Pool<'_>) -> (usize, u64) {
        let (mut blocks, mut bytes) = (0, 0);
        pool.survey(|seen| {
            if matches!(seen.state, State::Cached(_)) {
                blocks += 1;
                bytes += seen.len;
            }
        });
        (blocks, bytes)
    }

    #[test]
    fn hints_keep_every_field() {
        for (index, generation) in [(0, 0), (u32::MAX, (1 << 30) - 1), (7, 5)] {
            assert_ne!(hint(index.into(), generation), 0);
            assert_eq!(parts(hint(index.into(), generation)), (index, generation));
        }
    }

    /// Every seat has a row, and every class of small blocks a place in it.
    #[test]
    fn there_is_room_for_all_hints() {
        let hints = crate::segment::region::HINTS;
        assert!((hints - ROW..=hints).contains(&(seat::SEATS * ROW)));
        let segment = Segment::create(1 << 20).expect("a segment");
        let layout = segment.mapping().layout();
        let small = layout.classes().iter().filter(|class| class.block_size <= PAGE).count();
        assert!(small > 0 && small <= ROW / EACH, "{small}");
    }

    #[test]
    fn what_was_freed_last_is_allocated_next_in_another_life() {
        with_pool(|pool, me, _| {
            let first = pool.allocate(me, 7, 100).expect("room");
            pool.give_back(&first);
            assert_eq!((cached(pool), pool.charged()), ((1, 100), 100));
            assert_eq!(pool.blocks_in_use(), 0);
            assert!(pool.owned(first.id, first.generation(), me.owner()).is_none());
            let header = pool.header(first.id).expect("a block");
            assert_eq!((header.kind(), header.carrier()), (0, None));
            let second = pool.allocate(me, 8, 100).expect("room");
            assert_eq!(second.id, first.id);
            assert_eq!(second.generation(), first.generation() + 1);
            assert_eq!((header.kind(), header.len(), pool.charged()), (8, 100, 100));
            assert!(pool.owned(first.id, first.generation(), me.owner()).is_none());
            assert!(pool.owned(second.id, second.generation(), me.owner()).is_some());
        });
    }

    #[test]
    fn a_block_that_is_kept_is_charged_with_what_it_is_next() {
        with_pool(|pool, me, _| {
            for (before, after) in [(70, 128), (128, 65), (1, 0), (0, 64), (200, 256), (256, 256)] {
                pool.give_back(&pool.allocate(me, 7, before).expect("room"));
                let owned = pool.allocate(me, 7, after).expect("room");
                assert_eq!(pool.header(owned.id).expect("a block").len(), after);
                assert_eq!((pool.charged(), cached(pool)), (after, (0, 0)));
                pool.give_back(&owned);
                assert_eq!((pool.charged(), cached(pool)), (after, (1, after)));
                assert_eq!(pool.give_cached(me), 1);
            }
        });
    }

    #[test]
    fn a_few_blocks_of_each_small_class_are_kept() {
        with_pool(|pool, me, _| {
            for (len, kept) in [(100, EACH), (300, EACH), (PAGE, EACH), (PAGE + 1, 0), (1 << 16, 0)]
            {
                let made = [0; EACH + 1].map(|_| pool.allocate(me, 7, len).expect("room"));
                made.iter().for_each(|owned| pool.give_back(owned));
                assert_eq!(cached(pool).0, kept, "{len}");
                assert_eq!(pool.give_cached(me), kept);
                assert_eq!((pool.charged(), cached(pool)), (0, (0, 0)));
                // The hints are wrong now, and are lost one by one.
                let made = [0; EACH + 1].map(|_| pool.allocate(me, 7, len).expect("room"));
                made.iter().for_each(|owned| pool.give_back(owned));
                assert_eq!(cached(pool).0, kept, "{len}");
                pool.empty_magazines(me);
                assert_eq!((pool.charged(), cached(pool), pool.blocks_in_use()), (0, (0, 0), 0));
            }
        });
    }

    #[test]
    fn what_others_keep_is_given_back_when_there_is_no_room() {
        with_pool(|pool, me, other| {
            for len in [300, 4000] {
                pool.give_back(&pool.allocate(other, 7, len).expect("room"));
            }
            assert_eq!(cached(pool), (2, 4300));
            let all = pool.allocate(me, 8, 1 << 20).expect("all of it");
            assert_eq!((pool.charged(), cached(pool)), (1 << 20, (0, 0)));
            assert!(matches!(
                pool.allocate(other, 7, 300),
                Err(crate::heap::AllocError::OutOfMemory { requested: 300, available: 0 })
            ));
            pool.give_back(&all);
            assert_eq!((pool.charged(), pool.blocks_in_use()), (0, 0));
        });
    }

    /// A block that takes more than it did, where there is not even that much.
    #[test]
    fn a_block_that_is_kept_is_of_no_use_if_it_costs_too_much() {
        with_pool(|pool, me, _| {
            pool.give_back(&pool.allocate(me, 7, 100).expect("room"));
            pool.allocate(me, 7, (1 << 20) - 120).expect("room");
            assert!(pool.take_cached(me, 8, 121).is_none());
            assert_eq!((pool.charged(), cached(pool)), ((1 << 20) - 120, (0, 0)));
            assert!(pool.allocate(me, 8, 121).is_err());
            pool.allocate(me, 8, 120).expect("all that is left");
        });
    }

    #[test]
    fn nothing_is_kept_when_little_of_the_budget_is_left() {
        with_pool(|pool, me, _| {
            let limit = (1 << 20) - (1 << 17);
            for (others, kept) in [(limit - 99, 0), (limit - 100, 1)] {
                let large = pool.allocate(me, 7, others).expect("room");
                pool.give_back(&pool.allocate(me, 7, 100).expect("room"));
                assert_eq!(cached(pool).0, kept);
                pool.give_back(&large);
            }
        });
    }

    #[test]
    fn what_a_dead_process_kept_is_given_back() {
        with_pool(|pool, me, dead| {
            for owner in [me, dead] {
                pool.give_back(&pool.allocate(owner, 7, 100).expect("room"));
            }
            assert_eq!(cached(pool), (2, 200));
            let empty = |_| panic!("there is nothing in it");
            assert!(!pool.clear(dead, me, |_| true, empty, empty, empty));
            assert_eq!((cached(pool), pool.charged()), ((1, 100), 100));
        });
    }

    /// Of an entry's next process: its word names another one.
    #[test]
    fn what_another_process_kept_is_not_taken_by_a_hint() {
        with_pool(|pool, me, other| {
            let kept = pool.allocate(me, 7, 100).expect("room");
            pool.give_back(&kept);
            assert!(pool.take_cached(other, 7, 100).is_none());
            assert_ne!(pool.allocate(other, 7, 100).expect("room").id, kept.id);
            assert_eq!(cached(pool), (1, 100));
        });
    }

    #[test]
    fn the_block_of_a_received_message_is_kept_and_a_flight_is_not() {
        with_pool(|pool, me, _| {
            let slot = Carrier { block: 7, generation: 1, position: 3 };
            let owned = pool.allocate(me, 7, 300).expect("room");
            let carried = pool.carry(&owned, slot).expect("ours");
            pool.discard(carried, slot, me.owner(), |_| {});
            assert_eq!((cached(pool), pool.blocks_in_use()), ((1, 300), 0));
            let again = pool.allocate(me, 7, 300).expect("room");
            assert_eq!((again.id, again.generation()), (owned.id, carried.generation + 1));
            let carried_again = pool.carry(&again, slot).expect("ours");
            assert!(pool.take(Carried { ..carried }, slot, me.owner()).is_none(), "another life");
            pool.discard(carried_again, slot, me.owner(), |_| {});

            let flight = pool.make_flight(me, 8, &[]).expect("room");
            let carried = pool.carry(&flight, slot).expect("ours");
            pool.discard(carried, slot, me.owner(), |_| {});
            let flight = pool.make_flight(me, 8, &[]).expect("room");
            pool.give_back(&flight);
            assert_eq!((cached(pool), pool.blocks_in_use()), ((1, 300), 0));
        });
    }

    /// Somebody has written over the word of a block, or over the frontier.
    #[test]
    fn a_wrong_word_costs_a_block_and_no_more() {
        with_pool(|pool, me, other| {
            let owned = pool.allocate(me, 7, 100).expect("room");
            let header = pool.header(owned.id).expect("a block");
            let theirs = header.own(owned.word, other.owner()).expect("it was ours");
            pool.give_back(&owned);
            assert_eq!((header.load(), cached(pool).0), (theirs, 0));
            assert_ne!(pool.allocate(me, 7, 100).expect("room").id, owned.id);
        });
    }

    #[test]
    fn segments_have_magazines_of_their_own() {
        with_pool(|pool, me, _| {
            with_pool(|other, _, _| {
                pool.give_back(&pool.allocate(me, 7, 100).expect("room"));
                assert!(other.take_cached(me, 7, 100).is_none());
                other.give_back(&other.allocate(me, 7, 200).expect("room"));
                assert_eq!((cached(pool), cached(other)), ((1, 100), (1, 200)));
                assert!(pool.take_cached(me, 7, 100).is_some());
                assert_eq!((cached(pool), cached(other)), ((0, 0), (1, 200)));
            });
        });
    }
}
