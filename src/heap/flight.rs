//! Blocks that hold other blocks. A message with handles of shared objects carries one: a *flight*,
//! which lists these objects. So does what a child returns.
//!
//! # Layout
//! ```text
//! offset  size  field
//! n * 16     8  block       of the object with number n
//!        +8  8  generation:32 | role:32
//! ```
//! The list is as long as the header's `len` says. The header's `marks` say that the block is a
//! flight, and of each block in its list, that flights may hold it. A flight is `OWNED` or
//! `CARRIED` like any block of a message, and ends like one.
//!
//! # Who holds a block
//! A shared block is held by the peers with a bit in `holders` and by the flights that list it. To
//! free it:
//! ```text
//! 1. load its word: SHARED(v)
//! 2. all bits are 0
//! 3. no flight lists this block and generation; only looked at if it is marked
//! 4. CAS exactly that word
//! ```
//! A hold moves only in these ways:
//! ```text
//! sender:    it has a bit; mark the block; make the flight; only then may it clear the bit
//! receiver:  it reads the slot that carries the flight; set the bit; CAS SHARED(v) -> SHARED(v+1);
//!            only then release the slot and free the flight
//! ```
//! So a block moves from a bit to a flight before the bit is cleared, and 3 comes after 2. It moves
//! from a flight to a bit with a change of the word, so if 2 and 3 saw neither, 4 fails.
//!
//! Nobody looks into a block without a hold of it: it may be free by then, and be another object
//! that looks the same. So a flight that is freed gives up the *roles* that it holds first, has the
//! room above conclude what follows for each of its blocks, and only then lets go of them.
//!
//! The mark is never taken away while the block lives. A block that was never in a message costs
//! one load more to free, and one that was, a walk over the headers on the
//! [cards](super::cards) of all flights.
//!
//! # Peer death
//! A flight of a dead sender is given back with all that it owned, and one whose slot does not
//! carry it is swept. Whoever frees a flight looks afterwards at the blocks that it held. Killed in
//! between: the block is shared and has no holder, and whoever clears up after the dead process
//! frees it ([`Pool::free_unheld`]). A flight loses its mark before it is free, and gets it after
//! its list is written, so no list of an earlier one is read.

use std::collections::BTreeSet;

use crate::heap::block::{BlockHeader, BlockWord, Carrier, State};
use crate::heap::owned::Owned;
use crate::heap::pool::{AllocError, Attached, BlockId, Carried, Pool};
use crate::peer::PeerId;
use crate::primitive::{AtomicU64, Ordering, fence};

/// Bytes of a name in a list.
const NAME: u64 = 16;

/// A block in a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) id: BlockId,
    pub(crate) generation: u32,
    /// What the flight holds of it; only the room above knows what this means.
    pub(crate) role: u32,
}

impl<'a> Pool<'a> {
    /// Takes a block that lists these ones, all of which `me` holds.
    pub(crate) fn make_flight(
        &self,
        me: PeerId,
        kind: u64,
        names: &[Name],
    ) -> Result<Owned<'a>, AllocError> {
        let owned = self.allocate(me, kind, names.len() as u64 * NAME)?;
        for (index, name) in names.iter().enumerate() {
            let at = owned.offset() + index as u64 * NAME;
            let words = (self.region().at::<AtomicU64>(at), self.region().at::<AtomicU64>(at + 8));
            let (Some(header), (Some(block), Some(rest))) = (self.header(name.id), words) else {
                self.give_back(&owned);
                return Err(AllocError::Corrupt);
            };
            header.let_fly();
            // Relaxed: published by the mark.
            block.store(name.id.to_bits(), Ordering::Relaxed);
            rest.store(u64::from(name.role) << 32 | u64::from(name.generation), Ordering::Relaxed);
        }
        self.mark_flight(owned.id);
        owned.header.make_flight();
        Ok(owned)
    }

    /// What a flight lists that is part of the message in the slot of `carrier`; `None` if it is
    /// not, or no flight. For `me`, which can receive it.
    pub(crate) fn flight(&self, carried: Carried, carrier: Carrier, me: u32) -> Option<Vec<Name>> {
        self.carried(carried, carrier, me)?;
        let header = self.header(carried.id)?;
        header.is_flight().then(|| self.names(carried.id, header).collect())
    }

    /// As [`Pool::flight`], for a process that can only read the segment. It never releases what
    /// carries the flight, so it strands nothing.
    pub(crate) fn flight_to_read(&self, carried: Carried, carrier: Carrier) -> Option<Vec<Name>> {
        let header = self.header(carried.id)?;
        let is_there = header.is_carried(carried.generation, carrier) && header.is_flight();
        is_there.then(|| self.names(carried.id, header).collect())
    }

    /// The names in a flight. A wrong one names no block, or one whose generation is another.
    fn names(&self, id: BlockId, header: &BlockHeader) -> impl Iterator<Item = Name> + use<'a> {
        self.entries(id, header).map(|(_, name)| name)
    }

    /// The names in a flight, each with the word that has its role.
    fn entries(
        &self,
        id: BlockId,
        header: &BlockHeader,
    ) -> impl Iterator<Item = (&'a AtomicU64, Name)> + use<'a> {
        let region = self.region();
        let (start, len) = (self.offset(id).unwrap_or(0), self.len(id, header));
        (0..len / NAME).filter_map(move |index| {
            let at = start + index * NAME;
            // Relaxed: published by the mark.
            let block = region.at::<AtomicU64>(at)?.load(Ordering::Relaxed);
            let word = region.at::<AtomicU64>(at + 8)?;
            let rest = word.load(Ordering::Relaxed);
            let id = BlockId::from_bits(block)?;
            Some((word, Name { id, generation: rest as u32, role: (rest >> 32) as u32 }))
        })
    }

    /// Takes the roles out of a flight that `me` owns and is about to free, and calls `conclude`
    /// with each block in it, which the flight still holds. Killed in between, the flight is the
    /// dead process's, and whoever clears up after it does this again.
    pub(super) fn give_up_roles(
        &self,
        id: BlockId,
        header: &BlockHeader,
        me: u32,
        conclude: impl Fn(Attached),
    ) {
        for (word, name) in self.entries(id, header) {
            // Before the flight is free: then nobody may hold what was in it.
            self.mark(me, name.id);
            // SeqCst pairs with the fence in `all_names`: of two that give up the last holds of a
            // role at once, one sees that the other's is gone.
            word.store(name.generation.into(), Ordering::SeqCst);
            if let Some(object) = self.shared(name.id, name.generation) {
                conclude(object);
            }
        }
    }

    /// Calls `visit` with what each flight lists, stranded ones too.
    fn all_names(&self, mut visit: impl FnMut(Name)) {
        // After the bit that the caller has cleared, or found cleared: pairs with the SeqCst swap
        // with which a flight is freed, and the SeqCst store with which it gives up its roles.
        fence(Ordering::SeqCst);
        self.walk_on(self.cards_of_flights(), |id, header| {
            if header.is_flight()
                && matches!(header.load().state(), State::Owned(_) | State::Carried)
            {
                self.names(id, header).for_each(&mut visit);
            }
        });
    }

    /// Whether a flight holds this shared block. Looked at after its holders.
    pub(super) fn is_in_flight(&self, id: BlockId, header: &BlockHeader, word: BlockWord) -> bool {
        header.may_fly() && {
            // A flight that is not seen may hold it.
            let mut found = self.mapping().see_all().is_err();
            self.all_names(|name| found |= name.id == id && name.generation == word.generation());
            found
        }
    }

    /// Whether a flight holds this much of a shared block.
    pub(crate) fn has_flight(&self, wanted: Name) -> bool {
        self.header(wanted.id).is_some_and(BlockHeader::may_fly) && {
            let mut found = self.mapping().see_all().is_err();
            self.all_names(|name| found |= name == wanted);
            found
        }
    }

    /// Frees a block that was in a flight, if that was its last hold. `empty` is as in
    /// [`Pool::leave`].
    pub(crate) fn let_go(&self, name: Name, me: PeerId, empty: impl FnOnce(Attached)) {
        if let Some(header) = self.header(name.id)
            && header.load().generation() == name.generation
        {
            self.free_if_unheld(name.id, header, me, empty);
        }
    }

    /// Frees every shared block that nobody holds, and gives their number. Looks once at all
    /// flights, whatever the number of blocks. `empty` is as in [`Pool::leave`].
    pub(crate) fn free_unheld(&self, me: PeerId, empty: impl Fn(Attached)) -> usize {
        let mut unheld = Vec::new();
        if self.mapping().see_all().is_err() {
            return 0;
        }
        self.walk(|id, header| {
            // The word first, as for one block.
            let word = header.load();
            if word.state() == State::Shared && header.holders.is_empty() {
                unheld.push((id, header, word));
            }
        });
        let mut held = BTreeSet::new();
        if unheld.iter().any(|(_, header, _)| header.may_fly()) {
            self.all_names(|name| {
                held.insert((name.id, name.generation));
            });
        }
        unheld.retain(|&(id, _, word)| !held.contains(&(id, word.generation())));
        let mut freed = 0;
        for (id, header, word) in unheld {
            if let Some(owned) = self.own(id, header, word, me.owner()) {
                self.empty_and_free(id, header, owned, &empty);
                freed += 1;
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    /// Somebody has written over the first name. The role of the second one is given up all the
    /// same.
    #[test]
    fn a_role_behind_a_wrong_name_is_given_up() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        let me = PeerId::new(1, 1);
        let names = [5, 6].map(|role| {
            let owned = pool.allocate(me, 7, 100).expect("room");
            assert!(pool.share(&owned, me));
            Name { id: owned.id, generation: owned.generation(), role }
        });
        let flight = pool.make_flight(me, 8, &names).expect("room");
        let header = pool.header(flight.id).expect("a block");
        let first = pool.region().at::<AtomicU64>(flight.offset());
        first.expect("mapped").store(u64::MAX, Ordering::Relaxed);
        pool.give_up_roles(flight.id, header, me.owner(), |_| ());
        let left: Vec<Name> = pool.names(flight.id, header).collect();
        assert_eq!(left, [Name { role: 0, ..names[1] }]);
    }
}
