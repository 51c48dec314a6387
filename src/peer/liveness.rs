//! Whether a peer is dead. Only the kernel can say so; a peer that cannot be judged counts as
//! alive.
//!
//! These questions are asked in this order. After an answer that is not in the table, or any
//! refusal, the next question is asked. If none is left, the peer counts as alive.
//!
//! | question | call | dead | alive |
//! |---|---|---|---|
//! | was the entry made under the segment's present home? | - | no: all processes of the earlier home have ended | |
//! | does the peer still have the segment mapped? | `fcntl(F_OFD_GETLK)` on the byte that its mapping keeps locked | the byte is free: it has ended, or become another program by `exec` | |
//! | which process has its pid? | `pidfd_open` | | |
//! | has that process ended? | `poll` on the pidfd | readable: a zombie | |
//! | did it start when the peer did? | `fstat` on the pidfd; before Linux 6.9 `/proc` | no: the pid was reused | not readable, and the same start |
//! | if there is no pidfd: does a process have this pid? | `tgkill` with signal 0 | `ESRCH` | |
//!
//! The first two need no new descriptor, no `/proc` and no permission over the peer. A peer has no
//! locked byte if it could not open the segment again when it attached: without `/proc`, as another
//! user, or on a file system that does not keep such locks (overlay, network). Such a peer counts
//! as alive after it has become another program, and while it is a zombie if no pidfd for it can be
//! opened.

use crate::peer::id;
use crate::peer::table::{Attached, EntryWord, ProcessTag, State, Table};
use crate::primitive::{Ordering, fence};
use crate::segment::region::Mapping;
use crate::sys::pidfd;

/// A process that judges others: what it needs in order to ask about them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) table: Table<'a>,
    pub(crate) mapping: &'a Mapping,
    /// The owner name of this process in claim words, or one that no peer has.
    pub(crate) me: u32,
}

impl Judge<'_> {
    /// Judges the entry by the word that was loaded. Returns true only if its process will never
    /// run another instruction in the segment. Costs system calls.
    pub(crate) fn is_dead(&self, index: u32, word: EntryWord) -> bool {
        let dead = match word.state() {
            // No process is there, or a reaper has the entry of a dead one.
            State::Free | State::Dead | State::Reaping(_) | State::Taken(_) => true,
            State::Joining(who) => joining_is_dead(who),
            State::Live(who) => self.attached_is_dead(index, who),
            // The child has not used its entry, and its parent has not yet written the child's
            // identity. So the entry is alive as long as the parent is.
            State::Reserved(parent) if parent == self.me => false,
            State::Reserved(parent) => match self.load(parent).map(EntryWord::state) {
                Some(State::Live(who)) => self.attached_is_dead(id::index_of(parent), who),
                _ => true,
            },
            // The word was overwritten. Its process, if any, cannot be found.
            State::Unknown => false,
        };
        if dead {
            after_the_verdict();
        }
        dead
    }

    /// Judges the owner that a claim word names.
    pub(crate) fn owner_is_dead(&self, owner: u32) -> bool {
        owner != self.me
            && self.load(owner).is_none_or(|word| self.is_dead(id::index_of(owner), word))
    }

    fn attached_is_dead(&self, index: u32, who: ProcessTag) -> bool {
        let Some(Attached { identity, home, liveness_byte }) = self.table.attached(index, who)
        else {
            return false;
        };
        home != self.mapping.home().to_bits()
            || self.mapping.is_mapped_elsewhere(liveness_byte) == Some(false)
            || pidfd::has_ended(who.pid, |now| {
                now.start.differs_from(identity.start) || ProcessTag::of(now).differs_from(who)
            })
    }

    /// The entry of the peer that a claim word names; `None` if that peer has detached or was
    /// reaped.
    fn load(&self, owner: u32) -> Option<EntryWord> {
        self.table
            .load(id::index_of(owner))
            .filter(|word| id::is_of_generation(owner, word.generation()))
    }
}

/// Judges a process that has claimed an entry but has not written its identity. The word holds its
/// pid and part of its start time.
pub(crate) fn joining_is_dead(who: ProcessTag) -> bool {
    pidfd::has_ended(who.pid, |now| ProcessTag::of(now).differs_from(who))
}

/// Makes every store of the dead process visible: the stores happened before the kernel ended the
/// process, and the kernel reported that before this.
fn after_the_verdict() {
    // Acquire: loads of what the dead process left are not moved before the verdict. Pairs with the
    // kernel's own barriers at the end of a process.
    fence(Ordering::Acquire);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::attach;
    use crate::peer::id::PeerId;
    use crate::segment::Segment;
    use crate::sys::pidfd::{Identity, Start};

    #[test]
    fn an_entry_is_judged_by_who_has_it() {
        /// A process that had the pid of this one before it. The bits say where the two starts
        /// differ.
        fn predecessor(bits: u64) -> Identity {
            let own = Identity::own().expect("getpid");
            let start = match own.start {
                Start::Inode(inode) => Start::Inode(inode ^ bits),
                Start::Ticks { ticks, time_namespace } => {
                    Start::Ticks { ticks: ticks ^ bits, time_namespace }
                }
                Start::Unknown => panic!("no start"),
            };
            Identity { start, ..own }
        }

        let segment = Segment::create(1 << 16).expect("a segment");
        let mapping = segment.mapping();
        let (_, table) = attach::view(mapping).expect("mapped");
        let home = mapping.home().to_bits();
        let join = |identity, home| {
            table.join(&Attached { identity, home, liveness_byte: 0 }).expect("room")
        };
        let reserve = |parent| table.reserve(parent, home).expect("room");
        let introduced = |parent, child| {
            let reserved = reserve(parent);
            table.introduce(reserved, parent, &child);
            reserved
        };
        let alive = Identity::own().expect("getpid");
        // Nobody asks about himself, so that his own home does not matter.
        let me = join(alive, home + 1);
        let living = join(alive, home);
        // The entry's word contains the low bits of the start, and its identity all of them.
        let [dead, long_dead] = [1, 1 << 40].map(|bits| join(predecessor(bits), home));
        let detached = PeerId::new(living.index(), living.generation() + 1);
        let judge = Judge { table, mapping, me: me.owner() };
        for (peer, is_dead, what) in [
            (living, false, "itself"),
            (dead, true, "the next process has its pid"),
            (long_dead, true, "as before, and the words are the same"),
            (join(alive, home + 1), true, "it lived in another pid namespace, or before a boot"),
            (reserve(me), false, "for a child of ours"),
            (reserve(living), false, "the parent is alive"),
            (reserve(dead), true, "the parent is dead"),
            (reserve(detached), true, "the parent has left"),
            (introduced(me, alive), false, "a child that has not used its entry"),
            (introduced(me, predecessor(1)), true, "a child that died before it used its entry"),
        ] {
            let word = table.load(peer.index()).expect("in the table");
            assert_eq!(judge.is_dead(peer.index(), word), is_dead, "{what}: {word:?}");
        }
        for (peer, is_dead) in [(me, false), (living, false), (dead, true), (detached, true)] {
            assert_eq!(judge.owner_is_dead(peer.owner()), is_dead, "{peer:?}");
        }
        assert!(!joining_is_dead(ProcessTag::of(&alive)));
        assert!(joining_is_dead(ProcessTag::of(&predecessor(1))));
    }
}
