//! The verdict over a peer. Only the kernel gives it; a peer that cannot be judged is alive.

use crate::peer::table::{EntryWord, State, Table, Who};
use crate::sys::pidfd::{self, Identity};

/// Judges the entry as its word stood when it was loaded; true only if no instruction of its process will ever run again.
///
/// Costs system calls (20 us, and 80 more for `/proc`): for slow paths only.
pub(crate) fn is_dead(table: Table<'_>, me: u32, index: u32, word: EntryWord) -> bool {
    match word.state() {
        // Nobody is there: whoever had the entry has been cleared up after.
        State::Free | State::Dead | State::Reaping(_) | State::Taken(_) => true,
        State::Joining(who) => joining_is_dead(who),
        State::Live(who) => table.identity(index, who).is_some_and(Identity::is_dead),
        // The child has not begun to use its entry. Whether it ever will is for its parent to find out, if that still lives.
        State::Reserved(parent) if parent == me => false,
        State::Reserved(parent) => match table.load(parent) {
            Some(word) => match word.state() {
                State::Live(who) => table.identity(parent, who).is_some_and(Identity::is_dead),
                _ => true,
            },
            None => true,
        },
        // Scribbled over. The process behind it, if any, cannot be found.
        State::Unknown => false,
    }
}

/// Judges a process without an entry. It has not written its identity yet; the word holds the pid and a part of it.
pub(crate) fn joining_is_dead(who: Who) -> bool {
    match pidfd::open(who.pid) {
        Err(error) => error == rustix::io::Errno::SRCH,
        Ok(pidfd) => pidfd::has_exited(&pidfd) || Identity::of(&pidfd, who.pid).is_some_and(|identity| Who::of(&identity) != who),
    }
}

/// Judges whoever owns a claim word with this index.
pub(crate) fn owner_is_dead(table: Table<'_>, me: u32, owner: u32) -> bool {
    if owner == me {
        return false;
    }
    // An index beyond the table was never written by a claimant: nobody stands behind it.
    table.load(owner).is_none_or(|word| is_dead(table, me, owner, word))
}
