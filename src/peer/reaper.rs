//! Clearing up after dead peers: one living reaper at a time, which may be killed at any step.
//!
//! ```text
//! 1. judge the entry's word         nothing has changed yet
//! 2. CAS word -> REAPING(me)        one reaper wins; if it dies, another takes over
//! 3. mark its reservations and reapings DEAD, so that the table no longer contains its index
//! 4. clear every object of it       each step is a CAS from an exact word, so it can be repeated
//! 5. CAS word -> FREE(g+1)          only now may the index belong to another process
//! ```
//! The rooms above know what an object is and how it is cleared; they pass step 4 in.

use crate::peer::id::PeerId;
use crate::peer::liveness::{self, Judge};
use crate::peer::table::{Attached, EntryWord, State, Table};
use crate::segment::region::Mapping;

/// A name that no peer has.
const NOBODY: u32 = u32::MAX;

/// Clears up after the entry if its process is dead. Returns true if this call did so.
pub(crate) fn reap(
    mapping: &Mapping,
    table: Table<'_>,
    me: PeerId,
    index: u32,
    clear: impl FnOnce(PeerId),
) -> bool {
    let Some(word) = table.load(index) else {
        return false;
    };
    if index == me.index() || !needs_reaping(Judge { table, mapping, me: me.owner() }, index, word)
    {
        return false;
    }
    finish(mapping, table, me, index, word, clear)
}

/// Clears up after a child, the process `pid`, that its parent knows to be dead, whether or not it
/// had used its entry.
pub(crate) fn reap_child(
    mapping: &Mapping,
    table: Table<'_>,
    me: PeerId,
    child: PeerId,
    pid: u32,
    clear: impl FnOnce(PeerId),
) {
    if let Some(word) = table.load(child.index())
        && word.generation() == child.generation()
        && match word.state() {
            State::Reserved(parent) => parent == me.owner(),
            // If another process has the entry by now, it is not the child's.
            State::Joining(who) | State::Live(who) => who.pid == pid,
            State::Dead => true,
            State::Free | State::Reaping(_) | State::Taken(_) | State::Unknown => false,
        }
    {
        finish(mapping, table, me, child.index(), word, clear);
    }
}

/// Clears up after one dead process and takes over its entry: for a process that found the table
/// full. `clear` is called as in [`reap`], but this process has no entry to own blocks with. It
/// claims them under the name of the dead peer, which no other process uses.
pub(crate) fn take_over(
    mapping: &Mapping,
    table: Table<'_>,
    me: &Attached,
    mut clear: impl FnMut(PeerId),
) -> Option<PeerId> {
    if mapping.see_all().is_err() {
        return None;
    }
    let judge = Judge { table, mapping, me: NOBODY };
    for index in table.indices() {
        let Some(word) = table.load(index) else {
            continue;
        };
        if needs_reaping(judge, index, word)
            && let Some(taken) = table.take_over(index, word, &me.identity)
        {
            let dead = PeerId::new(index, word.generation());
            table.disown(dead);
            clear(dead);
            return table.join_taken(index, taken, me);
        }
    }
    None
}

fn finish(
    mapping: &Mapping,
    table: Table<'_>,
    me: PeerId,
    index: u32,
    judged: EntryWord,
    clear: impl FnOnce(PeerId),
) -> bool {
    // Whoever cannot see an object cannot clear it, and after step 5 nobody would. What the dead
    // process had has its place since before its death.
    if mapping.see_all().is_err() {
        return false;
    }
    let Some(reaping) = table.begin_reaping(index, judged, me) else {
        return false;
    };
    let dead = PeerId::new(index, judged.generation());
    table.disown(dead);
    clear(dead);
    table.free(index, reaping)
}

fn needs_reaping(judge: Judge<'_>, index: u32, word: EntryWord) -> bool {
    match word.state() {
        State::Free | State::Unknown => false,
        State::Dead => true,
        // Another reaper is clearing up. If it is dead, its work is taken over.
        State::Reaping(reaper) => judge.owner_is_dead(reaper),
        State::Taken(who) => liveness::joining_is_dead(who),
        State::Joining(_) | State::Reserved(_) | State::Live(_) => judge.is_dead(index, word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::attach;
    use crate::segment::Segment;
    use crate::sys::pidfd::{Identity, Start};

    /// A parent may come late, when the entry is another's.
    #[test]
    fn a_parent_clears_up_after_its_child_only() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (_, table) = attach::view(segment.mapping()).expect("mapped");
        let identity = |pid| Identity { pid, start: Start::Inode(1) };
        let process = |pid| Attached { identity: identity(pid), home: 5, liveness_byte: 0 };
        let [me, other] = [1, 2].map(|pid| table.join(&process(pid)).expect("room"));
        let reserved = |parent| table.reserve(parent, 5).expect("room");
        let introduced = |pid| {
            let child = reserved(me);
            table.introduce(child, me, &identity(pid));
            child
        };
        let later = |peer: PeerId| PeerId::new(peer.index(), peer.generation() + 1);
        let disowned = reserved(other);
        table.disown(other);
        for (child, is_ours, what) in [
            (reserved(me), true, "never used"),
            (reserved(other), false, "reserved by another by now"),
            (introduced(7), true, "used"),
            (introduced(8), false, "another process has it by now"),
            (later(reserved(me)), false, "of another generation"),
            (disowned, true, "taken for an orphan by another reaper"),
        ] {
            let before = table.load(child.index());
            let mut cleared = None;
            reap_child(segment.mapping(), table, me, child, 7, |dead| {
                assert_eq!(
                    table.load(dead.index()).map(EntryWord::state),
                    Some(State::Reaping(me.owner())),
                    "nobody else clears up meanwhile"
                );
                cleared = Some(dead);
            });
            assert_eq!(cleared, is_ours.then_some(child), "{what}");
            let after = table.load(child.index());
            if is_ours {
                assert_eq!(after.map(EntryWord::state), Some(State::Free), "{what}");
                assert_eq!(after.map(EntryWord::generation), Some(child.generation() + 1));
            } else {
                assert_eq!(after, before, "{what}");
            }
        }
    }
}
