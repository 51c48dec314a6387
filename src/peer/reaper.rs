//! Clearing up after the dead: exactly one living reaper at a time, and any step may be its last.
//!
//! ```text
//! 1. judge the entry's word               nothing changed yet
//! 2. CAS word -> REAPING(me)              one reaper wins; killed here, another judges REAPING(me) and takes over
//! 3. make its reservations and reapings DEAD, so that the index is named nowhere in the table
//! 4. clear every object of it             each step a CAS from an exact word, so repeating it is harmless
//! 5. CAS word -> FREE(g+1)                only now the index may belong to somebody else
//! ```
//! What an object is and how it is cleared is known to the rooms above; they pass step 4 in.

use crate::peer::id::PeerId;
use crate::peer::liveness;
use crate::peer::table::{EntryWord, State, Table};
use crate::sys::pidfd::Identity;

/// A name that no peer has.
const NOBODY: u32 = u32::MAX;

/// Clears up after the entry if its process is dead; true if this call did.
pub(crate) fn reap(table: Table<'_>, me: PeerId, index: u32, clear: impl FnOnce(PeerId)) -> bool {
    let Some(word) = table.load(index) else {
        return false;
    };
    if index == me.index() || !needs_reaping(table, me.owner(), index, word) {
        return false;
    }
    finish(table, me, index, word, clear)
}

/// Clears up after a child that its parent knows to be dead, whether it had begun to use its entry or not.
pub(crate) fn reap_child(table: Table<'_>, me: PeerId, child: PeerId, clear: impl FnOnce(PeerId)) {
    if let Some(word) = table.load(child.index())
        && word.generation() == child.generation()
        && matches!(word.state(), State::Reserved(_) | State::Joining(_) | State::Live(_) | State::Dead)
    {
        finish(table, me, child.index(), word, clear);
    }
}

/// Clears up after one dead process and moves into its entry: for a process that found the table full. `clear` is called as in
/// [`reap`], but there is no entry to own blocks by; it takes them in the name of the dead, whose claims are still nobody's.
pub(crate) fn take_over(table: Table<'_>, identity: &Identity, mut clear: impl FnMut(PeerId)) -> Option<PeerId> {
    for index in table.indices() {
        let Some(word) = table.load(index) else {
            continue;
        };
        if needs_reaping(table, NOBODY, index, word)
            && let Some(taken) = table.take_over(index, word, identity)
        {
            let dead = PeerId::new(index, word.generation());
            table.disown(dead);
            clear(dead);
            return table.settle(index, taken, identity);
        }
    }
    None
}

fn finish(table: Table<'_>, me: PeerId, index: u32, judged: EntryWord, clear: impl FnOnce(PeerId)) -> bool {
    let Some(reaping) = table.begin_reaping(index, judged, me) else {
        return false;
    };
    let dead = PeerId::new(index, judged.generation());
    table.disown(dead);
    clear(dead);
    table.free(index, reaping)
}

fn needs_reaping(table: Table<'_>, me: u32, index: u32, word: EntryWord) -> bool {
    match word.state() {
        State::Free | State::Unknown => false,
        State::Dead => true,
        // Another reaper is at it. If that one is dead, its work is taken over.
        State::Reaping(reaper) => liveness::owner_is_dead(table, me, reaper),
        State::Taken(who) => liveness::joining_is_dead(who),
        State::Joining(_) | State::Reserved(_) | State::Live(_) => liveness::is_dead(table, me, index, word),
    }
}
