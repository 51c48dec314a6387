//! The peer table: one entry per attached process, and the states that an entry goes through.
//!
//! # Layout
//! ```text
//! offset  size  field          written by                                read by
//!      0     8  word           any process that moves the entry, by CAS  every process
//!      8    16  start          the process while JOINING or LIVE         processes that judge it
//!     24     8  home           the process while JOINING                 processes that judge it
//!     32     8  liveness_byte  the process while JOINING or LIVE         processes that judge it
//!     40    24  footprint      the process; its parent, its children  the process that clears up
//!
//! word = generation:28 | phase:4 | payload:32
//! ```
//! `home` is the home that the segment (`segment::home`) had when the entry was made.
//! `liveness_byte` is the byte that the process keeps locked, 0 if it has none. A parent that
//! reserves an entry writes all of these, with no identity and no byte. The
//! [`footprint`](super::footprint) says where in the heap the process may have left something. It
//! is reset by the process that claims or reserves the entry, and stays when the child adopts it.
//!
//! # States
//! ```text
//! FREE(g) --claim--> JOINING(g, who) --identity written--> LIVE(g, who) --detach--> FREE(g+1)
//!    |                  ^                                    ^
//!    |                  | the child's first use              |
//!    |                  |                                    |
//!    +--reserve--> RESERVED(g, parent) --parent names child--+
//!
//! JOINING, LIVE, TAKEN --process dead--> REAPING(g, reaper) --cleared--> FREE(g+1)
//! RESERVED --parent dead--> REAPING(g, reaper)
//! REAPING --reaper dead--> REAPING(g, another reaper)
//! RESERVED, REAPING --peer in it reaped--> DEAD(g) --> REAPING(g, reaper)
//! ```
//! After the fork the parent knows the child's identity and writes it into the entry's word, so
//! that every process can judge a child that has never used the segment. It writes nothing else: if
//! it were delayed before that, the entry could belong to another process by then. A process that
//! the child forks by other means finds that the entry is not its own.
//!
//! A process that finds the table full takes over the entry of a dead one: `LIVE(g, dead) ->
//! TAKEN(g, who)`. It clears up after the dead process and goes on to `JOINING(g+1, who)`.
//!
//! `who` is the pid and some bits of the start time, so the claiming CAS itself identifies the
//! process, also one that is killed before it wrote its full identity. `RESERVED` and `REAPING`
//! name a peer as claim words do. When that peer is reaped, its reservations and unfinished
//! reapings become `DEAD`, which any reaper finishes. Only then is its index reused.

use crate::claim::OWNER_BITS;
use crate::peer::footprint::{Cards, Footprint};
use crate::peer::id::{GENERATION_BITS, PeerId};
use crate::primitive::{AtomicU64, Ordering, fence};
use crate::segment::layout::{PEER_SIZE, PEERS};
use crate::segment::region::{Region, Shared};
use crate::sys::pidfd::{Identity, Start};

const PAYLOAD_BITS: u32 = 32;
const PHASE_BITS: u32 = 4;
const PID_BITS: u32 = 22;
const TAG_BITS: u32 = PAYLOAD_BITS - PID_BITS;
/// Bits of the tag that hold the kind of the start time; the others are its lowest bits.
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

/// The state of an entry, decoded from its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Belongs to no process.
    Free,
    /// Claimed by this process, which has not yet written its identity.
    Joining(ProcessTag),
    /// Reserved by this peer for a child that it is about to fork.
    Reserved(u32),
    /// An attached process.
    Live(ProcessTag),
    /// This peer is clearing up after the process.
    Reaping(u32),
    /// Its process is dead, and so is the peer that reserved it or was clearing up.
    Dead,
    /// Its process is dead. This process, which has no entry yet, clears up after it and then gets
    /// the entry.
    Taken(ProcessTag),
    /// A value that this crate never writes.
    Unknown,
}

/// The part of a process's identity that fits into an entry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessTag {
    pub(crate) pid: u32,
    /// Kind and low bits of its start time.
    tag: u32,
}

impl ProcessTag {
    pub(crate) fn of(identity: &Identity) -> ProcessTag {
        let [start, _] = identity.start.to_words();
        let kind = start >> (u64::BITS - TAG_KIND_BITS);
        ProcessTag {
            pid: identity.pid,
            tag: ((start << TAG_KIND_BITS | kind) & ((1 << TAG_BITS) - 1)) as u32,
        }
    }

    /// Whether the two are certainly different processes.
    pub(crate) fn differs_from(self, other: ProcessTag) -> bool {
        let kind = |who: ProcessTag| who.tag & ((1 << TAG_KIND_BITS) - 1);
        self.pid != other.pid || (kind(self) == kind(other) && self.tag != other.tag)
    }
}

/// One value of an entry's word, which a transition compares exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryWord(u64);

impl EntryWord {
    fn new(generation: u32, state: State) -> EntryWord {
        let who = |who: ProcessTag| u64::from(who.pid) << TAG_BITS | u64::from(who.tag);
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
        let who = ProcessTag {
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

    /// The word of the freed entry, ready for the next process.
    fn next_free(self) -> EntryWord {
        EntryWord::new(self.generation().wrapping_add(1), State::Free)
    }
}

/// An entry in the segment.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    word: AtomicU64,
    start: [AtomicU64; 2],
    home: AtomicU64,
    liveness_byte: AtomicU64,
    footprint: Footprint,
}

const _: () = {
    assert!(core::mem::offset_of!(Entry, word) == 0);
    assert!(core::mem::offset_of!(Entry, start) == 8);
    assert!(core::mem::offset_of!(Entry, home) == 24);
    assert!(core::mem::offset_of!(Entry, liveness_byte) == 32);
    assert!(core::mem::offset_of!(Entry, footprint) == 40);
    assert!(size_of::<Entry>() as u64 == PEER_SIZE);
};

#[expect(unsafe_code, reason = "marks a struct of atomics")]
// SAFETY: a struct of atomics without padding.
unsafe impl Shared for Entry {}

/// The identity of an attached process in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) identity: Identity,
    /// The segment's home when the process attached.
    pub(crate) home: u64,
    /// The byte that the process keeps locked; 0 if there is none.
    pub(crate) liveness_byte: u64,
}

/// The peer table of a mapped segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    entries: &'a [Entry],
}

impl<'a> Table<'a> {
    /// Returns the table of the segment; `None` if the segment is too small for one, which its
    /// layout rules out.
    pub(crate) fn of(region: Region<'a>, offset: u64) -> Option<Table<'a>> {
        Some(Table { entries: region.array(offset, PEERS)? })
    }

    /// All indices.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..PEERS as u32
    }

    /// The entry's word; `None` for an index beyond the table.
    pub(crate) fn load(&self, index: u32) -> Option<EntryWord> {
        // Acquire pairs with the Release of every transition: a process that sees LIVE sees the
        // identity.
        self.entries.get(index as usize).map(|entry| EntryWord(entry.word.load(Ordering::Acquire)))
    }

    /// The identity in an entry whose word said `LIVE`.
    pub(crate) fn attached(&self, index: u32, who: ProcessTag) -> Option<Attached> {
        let entry = self.entries.get(index as usize)?;
        // Relaxed: ordered by the Acquire load of the word that said LIVE. Only an adopted child
        // writes its liveness byte later; until that is seen the process is judged by its pid.
        let start =
            Start::from_words(entry.start.each_ref().map(|word| word.load(Ordering::Relaxed)));
        let (home, liveness_byte) =
            (entry.home.load(Ordering::Relaxed), entry.liveness_byte.load(Ordering::Relaxed));
        Some(Attached { identity: Identity { pid: who.pid, start }, home, liveness_byte })
    }

    /// Where the peer may have left something; `None` for an index beyond the table.
    #[inline]
    pub(crate) fn footprint(&self, index: u32) -> Option<&'a Footprint> {
        self.entries.get(index as usize).map(|entry| &entry.footprint)
    }

    /// Where the peer may have left something; `None` if another process has had its entry since.
    pub(crate) fn cards_left_by(&self, peer: PeerId) -> Option<Cards> {
        let word = self.load(peer.index())?;
        let next = PeerId::new(peer.index(), peer.generation().wrapping_add(1)).generation();
        let is_left = word.generation() == peer.generation()
            || word.generation() == next && word.state() == State::Free;
        let cards = self.footprint(peer.index())?.cards();
        // Whoever claims the entry changes its word and then resets the footprint: pairs with the
        // Release in `reset`.
        fence(Ordering::Acquire);
        (is_left && self.load(peer.index())? == word).then_some(cards)
    }

    /// Claims a free entry for this process and makes it `LIVE`; `None` if no entry is free.
    pub(crate) fn join(&self, me: &Attached) -> Option<PeerId> {
        let joining = State::Joining(ProcessTag::of(&me.identity));
        let (index, word) = self.claim_free(joining)?;
        self.go_live(index, word, me);
        Some(PeerId::new(index, word.generation()))
    }

    /// Reserves a free entry for a child that `parent` is about to fork; `None` if no entry is
    /// free.
    pub(crate) fn reserve(&self, parent: PeerId, home: u64) -> Option<PeerId> {
        let (index, word) = self.claim_free(State::Reserved(parent.owner()))?;
        // The entry stays RESERVED as long as the parent lives, unless the child takes it, and
        // there is no child yet.
        self.write(
            index,
            &Attached {
                identity: Identity { pid: 0, start: Start::Unknown },
                home,
                liveness_byte: 0,
            },
        );
        Some(PeerId::new(index, word.generation()))
    }

    fn claim_free(&self, state: State) -> Option<(u32, EntryWord)> {
        let (index, claimed) = self.indices().find_map(|index| {
            let word = self.load(index)?;
            let claimed = word.with(state);
            (word.state() == State::Free && self.advance(index, word, claimed))
                .then_some((index, claimed))
        })?;
        self.footprint(index)?.reset();
        Some((index, claimed))
    }

    /// Writes the identity of the child for which `parent` reserved the entry. Does nothing if the
    /// child has already adopted it.
    pub(crate) fn introduce(&self, reserved: PeerId, parent: PeerId, child: &Identity) {
        if let Some(word) = self.load(reserved.index())
            && word.generation() == reserved.generation()
            && word.state() == State::Reserved(parent.owner())
        {
            self.advance(reserved.index(), word, word.with(State::Live(ProcessTag::of(child))));
        }
    }

    /// Adopts the entry that the parent reserved for this process. Returns false if the entry no
    /// longer belongs to it, because the parent died and was reaped, or never did, because this is
    /// not the child that the parent forked.
    pub(crate) fn adopt(&self, reserved: PeerId, me: &Attached) -> bool {
        let Some(word) =
            self.load(reserved.index()).filter(|word| word.generation() == reserved.generation())
        else {
            return false;
        };
        let who = ProcessTag::of(&me.identity);
        let joining = word.with(State::Joining(who));
        match word.state() {
            State::Reserved(_) if self.advance(reserved.index(), word, joining) => {
                self.go_live(reserved.index(), joining, me);
                true
            }
            // The word has just changed, for example because the parent wrote this process's
            // identity.
            State::Reserved(_) => self.adopt(reserved, me),
            State::Live(introduced) if !introduced.differs_from(who) => {
                // No other process writes the entry of a living one. A process that does not see
                // all of it yet judges by the rest.
                self.write(reserved.index(), me);
                true
            }
            _ => false,
        }
    }

    fn go_live(&self, index: u32, joining: EntryWord, me: &Attached) {
        self.write(index, me);
        // No other process moves the JOINING entry of a living one, so this fails only if the word
        // is overwritten.
        let State::Joining(who) = joining.state() else {
            return;
        };
        self.advance(index, joining, joining.with(State::Live(who)));
    }

    /// Writes the identity of a process. Only the process that the entry's word names may call
    /// this.
    fn write(&self, index: u32, attached: &Attached) {
        let Some(entry) = self.entries.get(index as usize) else {
            return;
        };
        let [start, clock] = attached.identity.start.to_words();
        // Relaxed: published by the Release in `advance`, or not needed. The first word of the
        // start contains the kind and is written last, so that a half-written start has no kind.
        entry.start[1].store(clock, Ordering::Relaxed);
        entry.start[0].store(start, Ordering::Relaxed);
        entry.home.store(attached.home, Ordering::Relaxed);
        entry.liveness_byte.store(attached.liveness_byte, Ordering::Relaxed);
    }

    /// Claims the entry, as it was judged, for clearing up. Exactly one caller gets `Some`.
    pub(crate) fn begin_reaping(
        &self,
        index: u32,
        judged: EntryWord,
        reaper: PeerId,
    ) -> Option<EntryWord> {
        let reaping = judged.with(State::Reaping(reaper.owner()));
        self.advance(index, judged, reaping).then_some(reaping)
    }

    /// Claims the entry, as it was judged, for a process that clears up and then gets the entry.
    pub(crate) fn take_over(
        &self,
        index: u32,
        judged: EntryWord,
        me: &Identity,
    ) -> Option<EntryWord> {
        let taken = judged.with(State::Taken(ProcessTag::of(me)));
        self.advance(index, judged, taken).then_some(taken)
    }

    /// Joins in an entry that was taken over and cleared.
    pub(crate) fn join_taken(&self, index: u32, taken: EntryWord, me: &Attached) -> Option<PeerId> {
        let joining = taken.next_free().with(State::Joining(ProcessTag::of(&me.identity)));
        if !self.advance(index, taken, joining) {
            return None;
        }
        // Only now: until then, whoever takes over from this process needs it.
        self.footprint(index)?.reset();
        self.go_live(index, joining, me);
        Some(PeerId::new(index, joining.generation()))
    }

    /// Marks every entry that the dead peer had reserved or was clearing up as `DEAD`, for the next
    /// reaper.
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

    /// Frees the entry. After that its index may belong to another process.
    pub(crate) fn free(&self, index: u32, word: EntryWord) -> bool {
        self.advance(index, word, word.next_free())
    }

    fn advance(&self, index: u32, from: EntryWord, to: EntryWord) -> bool {
        // AcqRel: the winner sees what the previous holder of the entry wrote, and publishes its
        // own writes. Pairs with the Acquire load in `load`.
        self.entries.get(index as usize).is_some_and(|entry| {
            entry.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::attach;
    use crate::segment::Segment;

    #[test]
    fn words_keep_every_field() {
        let who = ProcessTag { pid: 4_194_303, tag: (1 << TAG_BITS) - 1 };
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

    #[test]
    fn a_tag_tells_starts_of_one_kind_apart() {
        let tag = |pid, start| ProcessTag::of(&Identity { pid, start });
        let inode = |pid, inode| tag(pid, Start::Inode(inode));
        let ticks = |ticks| tag(7, Start::Ticks { ticks, time_namespace: 1 });
        let unknown = tag(7, Start::Unknown);
        for value in [0, 1, 2, 127, 128, 255] {
            assert!(!inode(7, value).differs_from(inode(7, value)));
            assert!(inode(7, value).differs_from(inode(8, value)), "another pid");
            for bit in 0..TAG_BITS - TAG_KIND_BITS {
                let other = value ^ 1 << bit;
                assert!(inode(7, value).differs_from(inode(7, other)), "{value} and {other}");
                assert!(ticks(value).differs_from(ticks(other)), "{value} and {other}");
            }
            for other in [ticks(value), ticks(value ^ 1), unknown] {
                assert!(!inode(7, value).differs_from(other), "kinds that cannot be compared");
                assert!(!other.differs_from(inode(7, value)), "kinds that cannot be compared");
            }
        }
        assert!(!unknown.differs_from(unknown));
    }

    fn word(table: Table<'_>, peer: PeerId) -> EntryWord {
        table.load(peer.index()).expect("in the table")
    }

    fn state(table: Table<'_>, peer: PeerId) -> State {
        word(table, peer).state()
    }

    fn process(pid: u32) -> Attached {
        let identity = Identity { pid, start: Start::Inode(pid.into()) };
        Attached { identity, home: 5, liveness_byte: 6 }
    }

    fn live(pid: u32) -> State {
        State::Live(ProcessTag::of(&process(pid).identity))
    }

    #[test]
    fn a_reserved_entry_is_its_childs_and_nobody_elses() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (_, table) = attach::view(segment.mapping()).expect("mapped");
        let [parent, other] = [1, 2].map(|pid| table.join(&process(pid)).expect("room"));
        assert_eq!((state(table, parent), state(table, other)), (live(1), live(2)));
        let reserve = || table.reserve(parent, 5).expect("room");
        let later = |peer: PeerId| PeerId::new(peer.index(), peer.generation() + 1);

        // The child is first.
        let child = reserve();
        assert_eq!(state(table, child), State::Reserved(parent.owner()));
        assert!(!table.adopt(later(child), &process(3)), "reserved for another");
        assert_eq!(state(table, child), State::Reserved(parent.owner()));
        assert!(table.adopt(child, &process(3)));
        table.introduce(child, parent, &process(4).identity);
        let State::Live(who) = state(table, child) else { panic!("{:?}", state(table, child)) };
        assert_eq!(
            (state(table, child), table.attached(child.index(), who)),
            (live(3), Some(process(3)))
        );

        // The parent is first.
        let child = reserve();
        table.introduce(child, other, &process(3).identity);
        table.introduce(later(child), parent, &process(3).identity);
        assert_eq!(state(table, child), State::Reserved(parent.owner()), "not introduced by these");
        table.introduce(child, parent, &process(3).identity);
        assert_eq!(state(table, child), live(3));
        assert!(!table.adopt(child, &process(4)), "another process");
        assert!(table.adopt(child, &process(3)));
        assert_eq!(table.attached(child.index(), who), Some(process(3)));

        // The reaper is first.
        let child = reserve();
        assert!(table.free(child.index(), word(table, child)));
        assert!(!table.adopt(child, &process(3)), "the parent was reaped");
        assert_eq!(state(table, child), State::Free);
    }

    #[test]
    fn of_all_who_take_an_entry_of_the_dead_one_wins() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (_, table) = attach::view(segment.mapping()).expect("mapped");
        let [reaper, dead, next] = [1, 2, 3].map(|pid| table.join(&process(pid)).expect("room"));
        let judged = word(table, dead);
        let reaping = table.begin_reaping(dead.index(), judged, reaper).expect("nobody else");
        assert_eq!(state(table, dead), State::Reaping(reaper.owner()));
        assert_eq!(table.begin_reaping(dead.index(), judged, reaper), None);
        assert_eq!(table.take_over(dead.index(), judged, &process(9).identity), None);
        assert!(table.free(dead.index(), reaping));
        assert!(!table.free(dead.index(), reaping), "free already");
        assert_eq!(state(table, dead), State::Free);

        let judged = word(table, next);
        let taken = table.take_over(next.index(), judged, &process(9).identity).expect("alone");
        assert_eq!(state(table, next), State::Taken(ProcessTag::of(&process(9).identity)));
        assert_eq!(table.begin_reaping(next.index(), judged, reaper), None);
        let joined = table.join_taken(next.index(), taken, &process(9)).expect("ours");
        assert_eq!((joined.index(), joined.generation()), (next.index(), next.generation() + 1));
        assert_eq!(state(table, joined), live(9));
        assert_eq!(table.join_taken(next.index(), taken, &process(8)), None, "no longer taken");
        assert_eq!(state(table, joined), live(9));
    }

    #[test]
    fn what_the_dead_reserved_and_cleared_up_is_left_to_the_next_reaper() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (_, table) = attach::view(segment.mapping()).expect("mapped");
        let [living, dead, third, fourth] =
            [1, 2, 3, 4].map(|pid| table.join(&process(pid)).expect("room"));
        let of_living = [living, dead].map(|parent| table.reserve(parent, 5).expect("room"));
        let [of_living, of_dead] = of_living;
        table.begin_reaping(third.index(), word(table, third), dead).expect("alone");
        table.begin_reaping(fourth.index(), word(table, fourth), living).expect("alone");
        table.disown(dead);
        assert_eq!([of_dead, third].map(|peer| state(table, peer)), [State::Dead; 2]);
        assert_eq!(state(table, of_living), State::Reserved(living.owner()));
        assert_eq!(state(table, fourth), State::Reaping(living.owner()));
        assert_eq!((state(table, living), state(table, dead)), (live(1), live(2)));
    }
}
