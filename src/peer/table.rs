//! The peer table: one entry per attached process, and the states that an entry goes through.
//!
//! # Layout
//! ```text
//! offset  size  field   written by                                    read by
//!      0     8  word    whoever moves the entry, by CAS               everybody
//!      8    16  start   the process while JOINING or LIVE             who judges it
//!     24     8  home    the process while JOINING                     who judges it
//!     32     8  life    the process while JOINING or LIVE             who judges it
//!     40    24  -
//!
//! word = generation:28 | phase:4 | payload:32
//! ```
//! `home` is the home of the segment (`segment::home`) under which the entry was made, `life` the
//! byte that the process keeps locked, 0 if it has none. A parent that reserves an entry writes
//! them all, as if it knew nothing of the child.
//!
//! # States
//! ```text
//! FREE(g) --a process claims it--> JOINING(g, who) --identity written--> LIVE(g, who) --leaves--> FREE(g+1)
//!    |                                ^                                   ^   |
//!    +--a parent reserves it for      |                                   |   +--dead--> REAPING(g, reaper) --> FREE(g+1)
//!       its coming child--> RESERVED(g, parent) --the child's first use   |                 |        ^
//!                              +--the parent introduces the child---------+                 +--dead--+ or DEAD(g)
//! ```
//! After the fork the parent knows who the child is and writes that into the entry's word, so that
//! everybody can judge a child that has never used the segment. It writes nothing else: were it
//! held up before that, the entry might be another's by then. A process that the child forks by
//! other means finds that the entry is not its own.
//!
//! A process that finds the table full takes a dead entry over: `LIVE(g, dead) -> TAKEN(g, who)`,
//! clears up after the dead, and goes on to `JOINING(g+1, who)`.
//!
//! `who` is the pid and some bits of when the process was started, so the claiming CAS itself says
//! who claims: a process killed before it wrote its identity is recognised all the same. `RESERVED`
//! and `REAPING` name a peer as claims do; when that peer is reaped, its reservations and
//! unfinished reapings become `DEAD`, which any reaper takes up, and only then its index is given
//! away again.

use crate::claim::OWNER_BITS;
use crate::peer::id::{GENERATION_BITS, PeerId};
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::{PEER_SIZE, PEERS};
use crate::segment::region::{Region, Shared};
use crate::sys::pidfd::{Identity, Start};

const PAYLOAD_BITS: u32 = 32;
const PHASE_BITS: u32 = 4;
const PID_BITS: u32 = 22;
const TAG_BITS: u32 = PAYLOAD_BITS - PID_BITS;
/// Of these, bits that say of which kind the start is; the others are its lowest.
const TAG_KIND_BITS: u32 = 2;

const _: () = assert!(OWNER_BITS <= PAYLOAD_BITS);

const _: () = assert!(GENERATION_BITS + PHASE_BITS + PAYLOAD_BITS == 64);

const FREE: u64 = 0;
const JOINING: u64 = 1;
const RESERVED: u64 = 2;
const LIVE: u64 = 3;
const REAPING: u64 = 4;
const DEAD: u64 = 5;
const TAKEN: u64 = 6;

/// What an entry's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody's.
    Free,
    /// Claimed by this process, which has not written its identity yet.
    Joining(Who),
    /// Set aside by this peer for a child that it is about to fork.
    Reserved(u32),
    /// An attached process.
    Live(Who),
    /// Being cleared by this peer.
    Reaping(u32),
    /// Its process is dead, and so is who was clearing up after it.
    Dead,
    /// Its process is dead; this one, which has no entry yet, clears up after it and will have the
    /// entry.
    Taken(Who),
    /// A value that nobody writes.
    Unknown,
}

/// A process as far as it fits into an entry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) pid: u32,
    /// Kind and low bits of when it was started.
    tag: u32,
}

impl Who {
    pub(crate) fn of(identity: &Identity) -> Who {
        let [start, _] = identity.start.to_words();
        let kind = start >> (u64::BITS - TAG_KIND_BITS);
        Who {
            pid: identity.pid,
            tag: ((start << TAG_KIND_BITS | kind) & ((1 << TAG_BITS) - 1)) as u32,
        }
    }

    /// Whether the two are certainly not one process.
    pub(crate) fn differs_from(self, other: Who) -> bool {
        let kind = |who: Who| who.tag & ((1 << TAG_KIND_BITS) - 1);
        self.pid != other.pid || (kind(self) == kind(other) && self.tag != other.tag)
    }
}

/// One value of an entry's word: the exact thing that a transition is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryWord(u64);

impl EntryWord {
    fn new(generation: u32, state: State) -> EntryWord {
        let who = |who: Who| u64::from(who.pid) << TAG_BITS | u64::from(who.tag);
        let (phase, payload) = match state {
            State::Free => (FREE, 0),
            State::Joining(process) => (JOINING, who(process)),
            State::Reserved(index) => (RESERVED, index.into()),
            State::Live(process) => (LIVE, who(process)),
            State::Reaping(index) => (REAPING, index.into()),
            State::Taken(process) => (TAKEN, who(process)),
            State::Dead | State::Unknown => (DEAD, 0),
        };
        let generation = u64::from(generation) & ((1 << GENERATION_BITS) - 1);
        EntryWord(generation << (PHASE_BITS + PAYLOAD_BITS) | phase << PAYLOAD_BITS | payload)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> (PHASE_BITS + PAYLOAD_BITS)) as u32
    }

    pub(crate) fn state(self) -> State {
        let payload = self.0 & ((1 << PAYLOAD_BITS) - 1);
        let who = Who {
            pid: (payload >> TAG_BITS) as u32,
            tag: (payload & ((1 << TAG_BITS) - 1)) as u32,
        };
        match self.0 >> PAYLOAD_BITS & ((1 << PHASE_BITS) - 1) {
            FREE => State::Free,
            JOINING => State::Joining(who),
            RESERVED => State::Reserved(payload as u32),
            LIVE => State::Live(who),
            REAPING => State::Reaping(payload as u32),
            DEAD => State::Dead,
            TAKEN => State::Taken(who),
            _ => State::Unknown,
        }
    }

    /// The same entry in another state.
    fn with(self, state: State) -> EntryWord {
        EntryWord::new(self.generation(), state)
    }

    /// The entry given back, ready for the next process.
    fn next_free(self) -> EntryWord {
        EntryWord::new(self.generation().wrapping_add(1), State::Free)
    }
}

/// An entry as it stands in the segment.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    word: AtomicU64,
    start: [AtomicU64; 2],
    home: AtomicU64,
    life: AtomicU64,
    reserved: [AtomicU64; 3],
}

const _: () = {
    assert!(core::mem::offset_of!(Entry, word) == 0);
    assert!(core::mem::offset_of!(Entry, start) == 8);
    assert!(core::mem::offset_of!(Entry, home) == 24);
    assert!(core::mem::offset_of!(Entry, life) == 32);
    assert!(core::mem::offset_of!(Entry, reserved) == 40);
    assert!(size_of::<Entry>() as u64 == PEER_SIZE);
};

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for Entry {}

/// What an entry says of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) identity: Identity,
    /// The segment's home when it attached.
    pub(crate) home: u64,
    /// The byte that it keeps locked; 0 if there is none.
    pub(crate) life: u64,
}

/// The table in a mapped segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    entries: &'a [Entry],
}

impl<'a> Table<'a> {
    /// The table of the segment; `None` if the segment is too small for one, which its layout rules
    /// out.
    pub(crate) fn of(region: Region<'a>, offset: u64) -> Option<Table<'a>> {
        Some(Table { entries: region.array(offset, PEERS)? })
    }

    /// All indices.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..PEERS as u32
    }

    /// The entry's word; `None` for an index beyond the table.
    pub(crate) fn load(&self, index: u32) -> Option<EntryWord> {
        // Acquire pairs with the Release of every transition: whoever sees LIVE sees the identity.
        self.entries.get(index as usize).map(|entry| EntryWord(entry.word.load(Ordering::Acquire)))
    }

    /// What is known of the process in an entry whose word said `LIVE`.
    pub(crate) fn attached(&self, index: u32, who: Who) -> Option<Attached> {
        let entry = self.entries.get(index as usize)?;
        // Relaxed: ordered by the Acquire load of the word that said LIVE, but for a life that came
        // later, without which the process is judged by its pid.
        let start =
            Start::from_words(entry.start.each_ref().map(|word| word.load(Ordering::Relaxed)));
        let (home, life) = (entry.home.load(Ordering::Relaxed), entry.life.load(Ordering::Relaxed));
        Some(Attached { identity: Identity { pid: who.pid, start }, home, life })
    }

    /// Claims a free entry for this process and makes it `LIVE`; `None` if no entry is free.
    pub(crate) fn join(&self, me: &Attached) -> Option<PeerId> {
        let joining = State::Joining(Who::of(&me.identity));
        let (index, word) = self.claim_free(joining)?;
        self.go_live(index, word, me);
        Some(PeerId::new(index, word.generation()))
    }

    /// Sets a free entry aside for a child that `parent` is about to fork; `None` if no entry is
    /// free.
    pub(crate) fn reserve(&self, parent: PeerId, home: u64) -> Option<PeerId> {
        let (index, word) = self.claim_free(State::Reserved(parent.owner()))?;
        // The entry stays RESERVED as long as the parent lives, unless the child comes, and there
        // is none yet.
        self.write(
            index,
            &Attached { identity: Identity { pid: 0, start: Start::Unknown }, home, life: 0 },
        );
        Some(PeerId::new(index, word.generation()))
    }

    fn claim_free(&self, state: State) -> Option<(u32, EntryWord)> {
        self.indices().find_map(|index| {
            let word = self.load(index)?;
            let claimed = word.with(state);
            (word.state() == State::Free && self.advance(index, word, claimed))
                .then_some((index, claimed))
        })
    }

    /// Says who the child is for whom `parent` has reserved the entry. Does nothing if the child
    /// has been there before.
    pub(crate) fn introduce(&self, promised: PeerId, parent: PeerId, child: &Identity) {
        if let Some(word) = self.load(promised.index())
            && word.generation() == promised.generation()
            && word.state() == State::Reserved(parent.owner())
        {
            self.advance(promised.index(), word, word.with(State::Live(Who::of(child))));
        }
    }

    /// Takes over the entry that the parent reserved for this process; false if it is no longer
    /// ours, because the parent died and was reaped, or never was, because this is not the child
    /// that the parent meant.
    pub(crate) fn adopt(&self, promised: PeerId, me: &Attached) -> bool {
        let Some(word) =
            self.load(promised.index()).filter(|word| word.generation() == promised.generation())
        else {
            return false;
        };
        let who = Who::of(&me.identity);
        let joining = word.with(State::Joining(who));
        match word.state() {
            State::Reserved(_) if self.advance(promised.index(), word, joining) => {
                self.go_live(promised.index(), joining, me);
                true
            }
            // The parent has just introduced us, or was here before.
            State::Reserved(_) => self.adopt(promised, me),
            State::Live(introduced) if !introduced.differs_from(who) => {
                // Nobody else writes the entry of a living process. Whoever does not see all of it
                // yet judges by the rest.
                self.write(promised.index(), me);
                true
            }
            _ => false,
        }
    }

    fn go_live(&self, index: u32, joining: EntryWord, me: &Attached) {
        self.write(index, me);
        // Nobody moves the JOINING entry of a living process, so this cannot fail but by
        // scribbling.
        let State::Joining(who) = joining.state() else {
            return;
        };
        self.advance(index, joining, joining.with(State::Live(who)));
    }

    /// Writes what is known of a process. Only for whoever the entry's word names.
    fn write(&self, index: u32, attached: &Attached) {
        let Some(entry) = self.entries.get(index as usize) else {
            return;
        };
        let [start, clock] = attached.identity.start.to_words();
        // Relaxed: published by the Release in `advance`, or not needed. The kind stands in the
        // first word of the start and comes last, so that one that is half written says nothing.
        entry.start[1].store(clock, Ordering::Relaxed);
        entry.start[0].store(start, Ordering::Relaxed);
        entry.home.store(attached.home, Ordering::Relaxed);
        entry.life.store(attached.life, Ordering::Relaxed);
    }

    /// Begins to clear up after the entry as it was judged; true for exactly one caller.
    pub(crate) fn begin_reaping(
        &self,
        index: u32,
        judged: EntryWord,
        reaper: PeerId,
    ) -> Option<EntryWord> {
        let reaping = judged.with(State::Reaping(reaper.owner()));
        self.advance(index, judged, reaping).then_some(reaping)
    }

    /// Begins to clear up after the entry as it was judged, for a process that will have the entry
    /// then.
    pub(crate) fn take_over(
        &self,
        index: u32,
        judged: EntryWord,
        me: &Identity,
    ) -> Option<EntryWord> {
        let taken = judged.with(State::Taken(Who::of(me)));
        self.advance(index, judged, taken).then_some(taken)
    }

    /// Moves into an entry that was taken over and cleared.
    pub(crate) fn settle(&self, index: u32, taken: EntryWord, me: &Attached) -> Option<PeerId> {
        let joining = taken.next_free().with(State::Joining(Who::of(&me.identity)));
        if !self.advance(index, taken, joining) {
            return None;
        }
        self.go_live(index, joining, me);
        Some(PeerId::new(index, joining.generation()))
    }

    /// Makes everything that the dead peer had reserved or was clearing up after `DEAD`, for the
    /// next reaper.
    pub(crate) fn disown(&self, dead: PeerId) {
        for index in self.indices() {
            let Some(word) = self.load(index) else {
                continue;
            };
            let owner = match word.state() {
                State::Reserved(owner) | State::Reaping(owner) => owner,
                _ => continue,
            };
            if owner == dead.owner() && index != dead.index() {
                self.advance(index, word, word.with(State::Dead));
            }
        }
    }

    /// Gives the entry away again: after it, its index may belong to another process.
    pub(crate) fn free(&self, index: u32, word: EntryWord) -> bool {
        self.advance(index, word, word.next_free())
    }

    fn advance(&self, index: u32, from: EntryWord, to: EntryWord) -> bool {
        // AcqRel: the winner sees what the previous holder of the entry did and publishes what it
        // did itself. Pairs with the Acquire load in `load`.
        self.entries.get(index as usize).is_some_and(|entry| {
            entry.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_every_field() {
        let who = Who { pid: 4_194_303, tag: (1 << TAG_BITS) - 1 };
        for state in [
            State::Free,
            State::Joining(who),
            State::Reserved(1023),
            State::Live(who),
            State::Reaping(7),
            State::Dead,
            State::Taken(who),
        ] {
            for generation in [0, 1, (1 << GENERATION_BITS) - 1] {
                let word = EntryWord::new(generation, state);
                assert_eq!(word.state(), state);
                assert_eq!(word.generation(), generation);
            }
        }
    }

    #[test]
    fn a_fresh_table_is_all_free() {
        assert_eq!(EntryWord(0).state(), State::Free);
        assert_eq!(EntryWord(u64::MAX).state(), State::Unknown);
    }

    #[test]
    fn generations_wrap() {
        let last = EntryWord::new((1 << GENERATION_BITS) - 1, State::Dead);
        assert_eq!(last.next_free(), EntryWord(0));
    }
}
