//! Many senders, many receivers: a ring whose slots say who has claimed them.
//!
//! # Protocol
//! Every slot has a word `{lap | phase | owner}`, and only these words count. `tail` and `head` are
//! hints where to look. They may lag and are moved by a plain store, so a message costs one
//! read-modify-write on each side.
//! ```text
//! EMPTY(l) --claim: CAS--> WRITING(l,p) --publish: store--> FULL(l) --claim: CAS--> READING(l,c) --release: store--> EMPTY(l+1)
//!    |                        |  abort: store EMPTY(l+1)                                |
//!    |                        +--p dead: CAS--> EMPTY(l+1)                              +--c dead, Drop: CAS--> EMPTY(l+1), lost + 1
//!    |                                                                                  +--c dead, Redeliver: CAS--> ORPHAN(l)
//!    +--ring closed, a receiver got here: CAS--> SEALED(l), for good                              ORPHAN(l) --claim: CAS--> READING(l,c')
//! ```
//! A sender starts at `tail` and walks over claimed slots to the first that is `EMPTY` in the lap
//! it should be in; a receiver starts at `head` and walks to the first `FULL` one. A walker that
//! meets a slot laps ahead jumps there. So a hint that a frozen process stores late costs one step,
//! and not a walk over everything sent meanwhile. Both claim by a compare-and-swap from the exact
//! word that they saw.
//!
//! # Why it is right
//! 1. A slot never has the same `(lap, EMPTY)` or `(lap, FULL)` twice (but for laps modulo 2^30,
//!    see `position`): lap and phase only grow, and `ORPHAN -> READING` leads back only by another
//!    death.
//! 2. Hints lag: a hint is stored as one past a claimed position, and positions stay claimed.
//! 3. So a process that claims position `p` walked over claimed positions up to it: claims are made
//!    in the order of positions, first in, first out.
//! 4. A slot is written again only after the reader of its last lap has released it, or after it
//!    was recovered from a dead reader.
//! 5. Between claim and publish or release only the owner touches the payload. A dead owner touches
//!    nothing.
//! 6. Recovery is a compare-and-swap from the exact word that was judged. Of two recoveries one
//!    wins, and after a late publish it fails.
//! 7. Closing: after the `closed` flag is set senders turn back before they claim. A sender that
//!    passed the flag before may still claim. A receiver therefore concludes that nothing more
//!    comes only by sealing the first empty position: after that no position from there on can be
//!    claimed (3).
//!
//! # Orderings
//! A claim acquires the word that the slot's last owner stored with Release: `EMPTY` hands the
//! bytes to the writer, `FULL` to the reader. Recovery is AcqRel and continues the chain.
//!
//! A hint, or a slot that a walker jumped from, tells of claims. The walker must not see a slot as
//! it was before those claims, or it would take the ring for corrupt. Therefore hints are stored
//! with Release and loaded with Acquire, and claims release too: a process that claimed a position
//! had seen all claims before it, and a process that learns of that claim, by word or by hint, sees
//! them as well. On x86-64 this costs nothing.
//!
//! # Peer death
//! A sender killed before its store of `FULL` has sent nothing; after it, everything. A receiver
//! killed after its claim and before its release has taken the message: by the ring's policy the
//! message is counted as lost, or delivered again and flagged.
//!
//! # Source
//! The slot sequence numbers are Vyukov's ("Bounded MPMC queue", 1024cores.net). A Vyukov ring
//! itself cannot be repaired, as nothing says who has claimed a position.

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::position::{Phase, Position, SlotWord, ahead};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// The words of the slots, wherever they lie.
pub(crate) trait Slots {
    /// Number of slots.
    fn count(&self) -> u64;
    /// Word of slot `index`; callers keep it below [`Slots::count`].
    fn word(&self, index: u64) -> &AtomicU64;
}

/// What happens to a message whose receiver died with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnReaderDeath {
    /// It is dropped and counted.
    Drop,
    /// It is delivered to another receiver, flagged.
    Redeliver,
}

/// A ring over words that the caller provides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<'a, S> {
    /// Hint: no later than the first position that is not claimed for writing. Senders store it.
    pub(crate) tail: &'a AtomicU64,
    /// Hint: no later than the first position that is not claimed for reading. Receivers store it.
    pub(crate) head: &'a AtomicU64,
    /// Hint: no later than the first position that may still be read, now, later or again. Kept
    /// only with [`OnReaderDeath::Redeliver`], for receivers that look for messages that come back.
    pub(crate) done: &'a AtomicU64,
    /// 1 if there may be orphans.
    pub(crate) orphans: &'a AtomicU32,
    /// 1 once the ring was closed.
    pub(crate) closed: &'a AtomicU32,
    /// Messages dropped with their dead receivers. A recoverer killed between its swap and its
    /// count leaves it one short.
    pub(crate) lost: &'a AtomicU64,
    pub(crate) slots: S,
    pub(crate) policy: OnReaderDeath,
}

/// A claimed slot: its payload is the claimant's until it publishes, releases or aborts.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claimed slot holds up everybody behind it"]
pub(crate) struct Claim {
    at: Position,
    /// Whether a receiver before this one died with the message.
    pub(crate) redelivered: bool,
}

impl Claim {
    /// Its place in the sequence of messages.
    #[inline]
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// Which slot.
    #[inline]
    pub(crate) fn index(&self) -> u64 {
        self.at.index()
    }
}

/// A slot that somebody else has claimed, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedSlot {
    index: u64,
    word: SlotWord,
}

impl ClaimedSlot {
    /// The peer that claimed it, as claim words name it.
    pub(crate) fn owner(&self) -> u32 {
        self.word.owner()
    }
}

/// Why nothing was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No slot is empty (for a sender), or no message is there (for a receiver). If one claimed
    /// slot is the reason, this is it.
    NotNow(Option<ClaimedSlot>),
    /// The ring is closed, and for a receiver also drained.
    Closed,
    /// Words contain a value that this crate never writes.
    Corrupt,
}

/// What follows from a closed ring without a message at the front.
enum Conclusion {
    Refused(Refused),
    Orphan(Claim),
    LookAgain,
}

impl Conclusion {
    fn not_now(held: Option<ClaimedSlot>) -> Conclusion {
        Conclusion::Refused(Refused::NotNow(held))
    }
}

/// Steps by which a reader moves `done` after a release: one for itself, one to catch up.
const STEPS_OF_A_READER: u64 = 2;

/// Steps after which a walk gives up for now. In memory that nobody changes, a walk takes fewer
/// than two laps.
fn walk_limit(capacity: u64) -> u64 {
    2 * capacity + 1024
}

impl<S: Slots> Ring<'_, S> {
    #[inline]
    fn load(&self, index: u64) -> SlotWord {
        // Pairs with the Release stores of `publish`, `release`, `abort` and with the AcqRel of
        // `recover`.
        SlotWord::from_bits(self.slots.word(index).load(Ordering::Acquire))
    }

    /// Acquire takes the payload over from the process that stored `from`, and pairs with its
    /// Release. Release passes on that all claims before this one were seen, and pairs with the
    /// Acquire in `load`.
    #[inline]
    fn claim(&self, index: u64, from: SlotWord, to: SlotWord) -> bool {
        let word = self.slots.word(index);
        word.compare_exchange(from.to_bits(), to.to_bits(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// A hint from shared memory as a position that the ring has.
    #[inline]
    fn hint(&self, hint: &AtomicU64) -> Result<Position, Refused> {
        // Acquire pairs with the Release store of the hint: the claims it tells of are seen.
        let position = Position::from_bits(hint.load(Ordering::Acquire));
        if position.index() < self.slots.count() { Ok(position) } else { Err(Refused::Corrupt) }
    }

    /// Claims the position at the hint for writing if it is the next one, as it nearly always is;
    /// else `claim_write` finds it.
    #[inline(always)]
    pub(crate) fn claim_write_at_hint(&self, me: u32) -> Option<Claim> {
        // Relaxed: as in `claim_write`.
        if self.closed.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.claim_at_hint(self.tail, Phase::Empty, Phase::Writing, me)
    }

    /// Claims the message at the hint for reading if it is the next one, as it nearly always is;
    /// else `claim_read` finds it.
    #[inline(always)]
    pub(crate) fn claim_read_at_hint(&self, me: u32) -> Option<Claim> {
        // Relaxed: `claim_read` looks for the orphan.
        if self.orphans.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.claim_at_hint(self.head, Phase::Full, Phase::Reading, me)
    }

    #[inline(always)]
    fn claim_at_hint(&self, hint: &AtomicU64, from: Phase, to: Phase, me: u32) -> Option<Claim> {
        self.claim_at(&mut self.hint(hint).ok()?, hint, from, to, me)
    }

    /// The position behind one that was claimed.
    #[inline(always)]
    pub(crate) fn behind(&self, claim: &Claim) -> Position {
        claim.at.next(self.slots.count())
    }

    /// Claims `at` for writing, if it is free, and moves `at` on. The caller had claimed the
    /// position before it.
    #[inline(always)]
    pub(crate) fn claim_write_at(&self, at: &mut Position, me: u32) -> Option<Claim> {
        // Relaxed: as in `claim_write`.
        if self.closed.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.claim_at(at, self.tail, Phase::Empty, Phase::Writing, me)
    }

    /// Claims the message at `at`, if it is there, and moves `at` on. The caller had claimed the
    /// position before it.
    #[inline(always)]
    pub(crate) fn claim_read_at(&self, at: &mut Position, me: u32) -> Option<Claim> {
        self.claim_at(at, self.head, Phase::Full, Phase::Reading, me)
    }

    /// Claims position `at`, if it is in phase `from`, and moves the hint and `at` on. All
    /// positions before `at` have been claimed.
    #[inline(always)]
    fn claim_at(
        &self,
        at: &mut Position,
        hint: &AtomicU64,
        from: Phase,
        to: Phase,
        me: u32,
    ) -> Option<Claim> {
        let claim = Claim { at: *at, redelivered: false };
        let (from, to) = (SlotWord::at(*at, from, 0), SlotWord::at(*at, to, me));
        if self.load(claim.index()) != from || !self.claim(claim.index(), from, to) {
            return None;
        }
        *at = self.behind(&claim);
        // It may overwrite a later one; walkers make up for that. Release pairs with the Acquire
        // load in `hint`.
        hint.store(at.to_bits(), Ordering::Release);
        Some(claim)
    }

    /// Claims the next position for writing.
    pub(crate) fn claim_write(&self, me: u32) -> Result<Claim, Refused> {
        // Relaxed: sealing deals with a sender that passes this and claims after the close.
        if self.closed.load(Ordering::Relaxed) != 0 {
            return Err(Refused::Closed);
        }
        let capacity = self.slots.count();
        let mut tail = self.hint(self.tail)?;
        let mut at = tail;
        for _ in 0..walk_limit(capacity) {
            let index = at.index();
            let word = self.load(index);
            let ahead = ahead(word, at);
            if ahead == 0 && word.phase() == Phase::Empty {
                let writing = SlotWord::at(at, Phase::Writing, me);
                if self.claim(index, word, writing) {
                    // It may overwrite a later one; walkers make up for that. Release pairs with
                    // the Acquire load in `hint`.
                    self.tail.store(at.next(capacity).to_bits(), Ordering::Release);
                    return Ok(Claim { at, redelivered: false });
                }
                // Somebody else was here first: the word has changed.
                continue;
            }
            match self.step(at, word, ahead)? {
                Some(next) => at = next,
                None => {
                    // The slot is still in its last lap: full, unless others have moved on since
                    // this walk began.
                    let now = self.hint(self.tail)?;
                    if now != tail {
                        (tail, at) = (now, now);
                        continue;
                    }
                    return Err(self.refuse_write(index, word));
                }
            }
        }
        Err(Refused::NotNow(None))
    }

    /// Where a sender goes next that finds `word` at position `at` and cannot claim it; `None` if
    /// the slot is a lap behind.
    fn step(&self, at: Position, word: SlotWord, ahead: i64) -> Result<Option<Position>, Refused> {
        let capacity = self.slots.count();
        match ahead {
            0 => match word.phase() {
                Phase::Sealed => Err(Refused::Closed),
                Phase::Unknown => Err(Refused::Corrupt),
                // Claimed by somebody: go on behind it.
                _ => Ok(Some(at.next(capacity))),
            },
            -1 => match word.phase() {
                // Position `at` is at or before the first unclaimed one, so the lap before must
                // have been claimed here.
                Phase::Empty | Phase::Sealed | Phase::Unknown => Err(Refused::Corrupt),
                _ => Ok(None),
            },
            1.. if word.phase() != Phase::Unknown => Ok(Some(written_up_to(at, word, capacity))),
            _ => Err(Refused::Corrupt),
        }
    }

    #[cold]
    fn refuse_write(&self, index: u64, word: SlotWord) -> Refused {
        match word.phase() {
            Phase::Writing | Phase::Reading => Refused::NotNow(Some(ClaimedSlot { index, word })),
            Phase::Orphan => {
                // Somebody must take the orphan before this slot can be used; make sure that it is
                // looked for.
                self.flag_orphan();
                Refused::NotNow(None)
            }
            _ => Refused::NotNow(None),
        }
    }

    /// Makes the payload of a claim for writing a message.
    #[inline]
    pub(crate) fn publish(&self, claim: Claim) {
        let full = SlotWord::at(claim.at, Phase::Full, 0);
        // Release pairs with the Acquire of the receiver's claim: it sees the payload.
        self.slots.word(claim.index()).store(full.to_bits(), Ordering::Release);
    }

    /// Gives a slot up. A claim for writing then sends nothing; a claim for reading is done with
    /// its message.
    #[inline]
    pub(crate) fn release(&self, claim: Claim) {
        // Release pairs with the Acquire of the next sender's claim: it writes only after we have
        // read.
        let empty = SlotWord::at(claim.at, Phase::Empty, 0).next_lap();
        self.slots.word(claim.index()).store(empty.to_bits(), Ordering::Release);
    }

    /// After a release, with [`OnReaderDeath::Redeliver`]: keeps `done` near what is being read.
    pub(crate) fn keep_done(&self) {
        self.pass_done(STEPS_OF_A_READER);
    }

    /// Claims the next message for reading.
    pub(crate) fn claim_read(&self, me: u32) -> Result<Claim, Refused> {
        // Acquire pairs with the Release in `flag_orphan`. After a stale 0 the next look finds the
        // orphan.
        if self.orphans.load(Ordering::Acquire) != 0
            && let Some(claim) = self.claim_orphan(me)
        {
            return Ok(claim);
        }
        let capacity = self.slots.count();
        let mut head = self.hint(self.head)?;
        let mut at = head;
        for _ in 0..walk_limit(capacity) {
            let index = at.index();
            let word = self.load(index);
            let ahead = ahead(word, at);
            match (ahead, word.phase()) {
                (0, Phase::Full) => {
                    let reading = SlotWord::at(at, Phase::Reading, me);
                    if self.claim(index, word, reading) {
                        // As in `claim_write`.
                        self.head.store(at.next(capacity).to_bits(), Ordering::Release);
                        return Ok(Claim { at, redelivered: false });
                    }
                }
                (0, Phase::Writing) => {
                    return Err(Refused::NotNow(Some(ClaimedSlot { index, word })));
                }
                // The last lap's reader is slow. Nobody can have written behind it.
                (0, Phase::Empty) | (-1, Phase::Reading | Phase::Orphan) => {
                    let now = self.hint(self.head)?;
                    if now != head {
                        (head, at) = (now, now);
                        continue;
                    }
                    if self.closed.load(Ordering::Acquire) == 0 {
                        return Err(Refused::NotNow(None));
                    }
                    match self.conclude(me, at, word) {
                        Conclusion::Refused(refused) => return Err(refused),
                        Conclusion::Orphan(claim) => return Ok(claim),
                        // A sender that had passed the flag came first.
                        Conclusion::LookAgain => {}
                    }
                }
                (0, Phase::Sealed) => {
                    return match self.conclude(me, at, word) {
                        Conclusion::Refused(refused) => Err(refused),
                        Conclusion::Orphan(claim) => Ok(claim),
                        Conclusion::LookAgain => Err(Refused::Closed),
                    };
                }
                (0, Phase::Reading | Phase::Orphan) => at = at.next(capacity),
                (1.., phase) if phase != Phase::Unknown => at = read_up_to(at, word, capacity),
                _ => return Err(Refused::Corrupt),
            }
        }
        Err(Refused::NotNow(None))
    }

    /// Finds out whether the closed ring has nothing more to give, and seals it if so. `at` is the
    /// first position without a message.
    #[cold]
    fn conclude(&self, me: u32, at: Position, word: SlotWord) -> Conclusion {
        match word.phase() {
            Phase::Empty => {
                let sealed = SlotWord::at(at, Phase::Sealed, 0);
                if !self.claim(at.index(), word, sealed) {
                    return Conclusion::LookAgain;
                }
            }
            Phase::Sealed => {}
            // The slot is still in its last lap. Until its reader is done, a sender that had passed
            // the flag might still come here.
            Phase::Reading => {
                return Conclusion::not_now(Some(ClaimedSlot { index: at.index(), word }));
            }
            _ => {
                self.flag_orphan();
                return Conclusion::not_now(None);
            }
        }
        if self.policy == OnReaderDeath::Drop {
            return Conclusion::Refused(Refused::Closed);
        }
        // A message that somebody else is reading comes back if that reader dies. A process that
        // recovered a slot may have been killed before it set the flag, so the words themselves are
        // looked at.
        if let Some(claim) = self.claim_orphan(me) {
            return Conclusion::Orphan(claim);
        }
        // One look at each slot for both questions: a message that was being read during the search
        // for orphans may be an orphan by now.
        let unfinished = self
            .being_read()
            .map(|(index, word)| ClaimedSlot { index, word })
            .find(|held| held.word.phase() == Phase::Orphan || held.owner() != me);
        match unfinished {
            None => Conclusion::Refused(Refused::Closed),
            Some(held) if held.word.phase() == Phase::Reading => Conclusion::not_now(Some(held)),
            Some(_) => {
                self.flag_orphan();
                Conclusion::not_now(None)
            }
        }
    }

    /// Sets the flag that there may be orphans.
    ///
    /// Release pairs with the Acquire load in `claim_read` and with the swap in `claim_orphan`. A
    /// read-modify-write and not a store, so that after two recoverers have set the flag, the
    /// process that clears it sees the orphans of both.
    #[cold]
    fn flag_orphan(&self) {
        self.orphans.fetch_or(1, Ordering::Release);
    }

    /// Claims a message whose receiver died.
    #[cold]
    fn claim_orphan(&self, me: u32) -> Option<Claim> {
        for first_look in [true, false] {
            for (index, word) in self.being_read() {
                if word.phase() == Phase::Orphan {
                    let reading = word.with(Phase::Reading, me);
                    if self.claim(index, word, reading) {
                        if !first_look {
                            // The flag that we have cleared may have been set for others, too.
                            self.flag_orphan();
                        }
                        let at = Position::new(word.lap(), index);
                        return Some(Claim { at, redelivered: true });
                    }
                }
            }
            if first_look {
                // AcqRel: an orphan made before somebody set the flag that we clear is seen by the
                // second look.
                self.orphans.swap(0, Ordering::AcqRel);
            }
        }
        None
    }

    /// Takes the slot from an owner that was judged dead after `held` was seen; false if it is not
    /// in that state any more.
    #[cold]
    pub(crate) fn recover(&self, held: ClaimedSlot) -> bool {
        let ClaimedSlot { index, word } = held;
        let orphaned = match (word.phase(), self.policy) {
            (Phase::Writing, _) | (Phase::Reading, OnReaderDeath::Drop) => word.next_lap(),
            (Phase::Reading, OnReaderDeath::Redeliver) => word.with(Phase::Orphan, 0),
            _ => return false,
        };
        // AcqRel: takes over what the dead owner had seen and passes it on. Pairs with the Acquire
        // of the next claim.
        let recovered = self
            .slots
            .word(index)
            .compare_exchange(
                word.to_bits(),
                orphaned.to_bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        if recovered && word.phase() == Phase::Reading {
            match self.policy {
                // Relaxed: a statistic.
                OnReaderDeath::Drop => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
                // If we are killed before this, a sender that meets the slot sets the flag.
                OnReaderDeath::Redeliver => self.flag_orphan(),
            }
        }
        recovered
    }

    /// Moves `done` over positions that nobody will read any more, by at most this many steps;
    /// gives the position that it has come to.
    ///
    /// Each reader takes one step more than it must. This makes up for readers that were killed
    /// before their step.
    fn pass_done(&self, steps: u64) -> Option<Position> {
        let first = self.hint(self.done).ok()?;
        let capacity = self.slots.count();
        let mut at = first;
        for _ in 0..steps {
            match done_up_to(at, self.load(at.index()), capacity) {
                Some(next) => at = next,
                None => break,
            }
        }
        if at != first {
            // It may overwrite a later one; walkers make up for that. Release pairs with the
            // Acquire load in `hint`: a walk that starts here sees that those before are done.
            self.done.store(at.to_bits(), Ordering::Release);
        }
        Some(at)
    }

    /// Slots with messages that are being read, or that a dead reader left, as seen on a walk from
    /// `done` to where nobody has read yet. Only with [`OnReaderDeath::Redeliver`].
    fn being_read(&self) -> impl Iterator<Item = (u64, SlotWord)> {
        let capacity = self.slots.count();
        let mut next = self.pass_done(walk_limit(capacity));
        // No position is a lap behind one that is claimed, so one lap is all there can be.
        (0..capacity)
            .map_while(move |_| {
                let at = next?;
                let word = self.load(at.index());
                let read = matches!(word.phase(), Phase::Reading | Phase::Orphan);
                let here = read && ahead(word, at) == 0;
                next = if here { Some(at.next(capacity)) } else { done_up_to(at, word, capacity) };
                Some(here.then_some((at.index(), word)))
            })
            .flatten()
    }

    /// Messages that others than `me` are reading.
    ///
    /// For receivers that find nothing. With [`OnReaderDeath::Redeliver`] such a message comes back
    /// if its reader is dead, and there may be nobody else to find that out.
    pub(crate) fn read_by_others(&self, me: u32) -> impl Iterator<Item = ClaimedSlot> {
        self.being_read()
            .map(|(index, word)| ClaimedSlot { index, word })
            .filter(move |held| held.word.phase() == Phase::Reading && held.owner() != me)
    }

    /// Whether there is an orphan; if so, sets the flag. The process that made the orphan may have
    /// been killed before it set it.
    pub(crate) fn find_orphan(&self) -> bool {
        let found = self.being_read().any(|(_, word)| word.phase() == Phase::Orphan);
        if found {
            self.flag_orphan();
        }
        found
    }

    /// Whether recovering this slot gives up a message that was sent.
    pub(crate) fn gives_up(&self, held: ClaimedSlot) -> bool {
        held.word.phase() == Phase::Reading && self.policy == OnReaderDeath::Drop
    }

    /// Whether recovering from the dead `owner` gives up messages that were sent.
    pub(crate) fn gives_up_any(&self, owner: u32) -> bool {
        let held = |index| ClaimedSlot { index, word: self.load(index) };
        (0..self.slots.count()).map(held).any(|held| held.owner() == owner && self.gives_up(held))
    }

    /// Takes every slot from the dead `owner`; true if there was one.
    pub(crate) fn recover_all(&self, owner: u32) -> bool {
        let mut any = false;
        for index in 0..self.slots.count() {
            let word = self.load(index);
            if matches!(word.phase(), Phase::Writing | Phase::Reading) && word.owner() == owner {
                any |= self.recover(ClaimedSlot { index, word });
            }
        }
        any
    }

    /// Stops senders; receivers go on until nothing is left.
    pub(crate) fn close(&self) {
        // Release pairs with the Acquire load in `claim_read`: what was sent before the close is
        // found before the end.
        self.closed.store(1, Ordering::Release);
    }

    /// Whether the ring was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }

    /// Number of messages that are claimed for writing and not yet for reading. A snapshot, exact
    /// when nothing moves.
    pub(crate) fn len(&self) -> u64 {
        let capacity = self.slots.count();
        match (self.write_frontier(), self.read_frontier()) {
            (Some((tail, _)), Some((head, _))) => tail.since(head, capacity).min(capacity),
            _ => 0,
        }
    }

    /// Whether a message waits at the front, ready to be claimed.
    pub(crate) fn has_message(&self) -> bool {
        let at_front = |(at, word): (Position, SlotWord)| {
            word.lap() == at.lap() && word.phase() == Phase::Full
        };
        self.read_frontier().is_some_and(at_front) || self.orphans.load(Ordering::Relaxed) != 0
    }

    /// Whether a slot is free for the next sender.
    pub(crate) fn has_space(&self) -> bool {
        let free = |(at, word): (Position, SlotWord)| {
            word.lap() == at.lap() && word.phase() == Phase::Empty
        };
        self.write_frontier().is_some_and(free)
    }

    /// The first position that is not claimed for writing, and its slot's word.
    fn write_frontier(&self) -> Option<(Position, SlotWord)> {
        self.frontier(self.tail, |at, word, ahead| match (ahead, word.phase()) {
            (0, Phase::Empty | Phase::Sealed) => None,
            (0.., _) => Some(written_up_to(at, word, self.slots.count())),
            _ => None,
        })
    }

    /// The first position that is neither claimed for reading nor given up, and its slot's word.
    fn read_frontier(&self) -> Option<(Position, SlotWord)> {
        self.frontier(self.head, |at, word, ahead| match (ahead, word.phase()) {
            (0, Phase::Reading | Phase::Orphan) => Some(at.next(self.slots.count())),
            (1.., _) => Some(read_up_to(at, word, self.slots.count())),
            _ => None,
        })
    }

    /// Walks from `hint` as long as `step` gives a next position.
    fn frontier(
        &self,
        hint: &AtomicU64,
        step: impl Fn(Position, SlotWord, i64) -> Option<Position>,
    ) -> Option<(Position, SlotWord)> {
        let mut at = self.hint(hint).ok()?;
        for _ in 0..walk_limit(self.slots.count()) {
            let word = self.load(at.index());
            match step(at, word, ahead(word, at)) {
                Some(next) => at = next,
                None => return Some((at, word)),
            }
        }
        None
    }
}

/// Where a sender goes on that finds `word` in the slot of position `at`, in its lap or later.
///
/// Claims for writing are made in the order of positions, so all positions up to the one that
/// brought the slot into its state are claimed.
fn written_up_to(at: Position, word: SlotWord, capacity: u64) -> Position {
    let claimed = match word.phase() {
        Phase::Empty | Phase::Sealed => word.lap().wrapping_sub(1),
        _ => word.lap(),
    };
    Position::new(claimed, at.index()).next(capacity)
}

/// Where a receiver goes on that finds `word` in the slot of position `at`, laps later.
///
/// Claims for reading are made in the order of positions, but a sender may also have given a
/// position up, out of order. The word proves this. In phase `READING` or `ORPHAN`, its own
/// position was claimed for reading, and so were all before it. In `WRITING` or `FULL`, its
/// position was claimed for writing, so all positions up to the slot's last one are done: their
/// slots were found free. In `EMPTY`, the slot's last position was claimed for writing, and may
/// have been given up while those before it still wait to be read. So the same holds one lap
/// earlier.
fn read_up_to(at: Position, word: SlotWord, capacity: u64) -> Position {
    let (lap, ahead) = (word.lap(), ahead(word, at));
    let done = match word.phase() {
        Phase::Reading | Phase::Orphan => lap,
        Phase::Empty | Phase::Sealed if ahead > 1 => lap.wrapping_sub(2),
        _ => lap.wrapping_sub(1),
    };
    Position::new(done, at.index()).next(capacity)
}

/// Where a walker goes on that finds `word` in the slot of position `at`, if the word proves that
/// `at` and all positions before it were read or given up for good.
///
/// In a phase with an owner or a message, the word's position was claimed for writing, and so was
/// every position before it. Each of those claims found its slot free, so all positions up to this
/// slot's last one are done. `EMPTY` two laps later or more proves the same one lap earlier.
/// `EMPTY` in the next lap says that `at` itself is done; the positions before `at` are done by the
/// meaning of `done`.
fn done_up_to(at: Position, word: SlotWord, capacity: u64) -> Option<Position> {
    let (lap, ahead) = (word.lap(), ahead(word, at));
    if ahead < 1 {
        return None;
    }
    let done = match word.phase() {
        Phase::Unknown => return None,
        Phase::Empty | Phase::Sealed if ahead > 1 => lap.wrapping_sub(2),
        _ => lap.wrapping_sub(1),
    };
    Some(Position::new(done, at.index()).next(capacity))
}
