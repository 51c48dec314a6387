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
    finish(table, me, index, word, clear)
}

/// Clears up after a child, the process `pid`, that its parent knows to be dead, whether or not it
/// had used its entry.
pub(crate) fn reap_child(
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
        finish(table, me, child.index(), word, clear);
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
    table: Table<'_>,
    me: PeerId,
    index: u32,
    judged: EntryWord,
    clear: impl FnOnce(PeerId),
) -> bool {
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
