//! The verdict over a peer. Only the kernel gives it; a peer that cannot be judged is alive.

use crate::peer::id;
use crate::peer::table::{EntryWord, State, Table, Who};
use crate::primitive::{AtomicU64, Ordering};
use crate::sys::clock;
use crate::sys::pidfd::{self, Identity};

/// Judges the entry as its word stood when it was loaded; true only if no instruction of its process will ever run again.
///
/// Costs system calls, some of them to `/proc`: for slow paths only.
pub(crate) fn is_dead(table: Table<'_>, me: u32, index: u32, word: EntryWord) -> bool {
    judge(table, me, index, word, Identity::is_dead)
}

fn judge(table: Table<'_>, me: u32, index: u32, word: EntryWord, process_is_dead: fn(Identity) -> bool) -> bool {
    match word.state() {
        // Nobody is there: whoever had the entry has been cleared up after.
        State::Free | State::Dead | State::Reaping(_) | State::Taken(_) => true,
        State::Joining(who) => joining_is_dead(who),
        State::Live(who) => table.identity(index, who).is_some_and(process_is_dead),
        // The child has not begun to use its entry. Whether it ever will is for its parent to find out, if that still lives.
        State::Reserved(parent) if parent == me => false,
        State::Reserved(parent) => match load(table, parent).map(EntryWord::state) {
            Some(State::Live(who)) => table.identity(id::index_of(parent), who).is_some_and(process_is_dead),
            _ => true,
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

/// Waiters ask `/proc` whether an owner became another program this often at the most, in milliseconds for the whole process.
const THOROUGH_EVERY: u64 = 50;

/// Judges whoever a claim word names: for those who wait behind it, and ask again and again.
///
/// That an owner ended is found out at once; that it became another program by `exec`, a little later.
pub(crate) fn owner_is_dead(table: Table<'_>, me: u32, owner: u32) -> bool {
    if owner == me {
        return false;
    }
    static LAST_THOROUGH: AtomicU64 = AtomicU64::new(0);
    // Relaxed: whoever asks too often costs time and nothing else.
    let now = clock::coarse_millis();
    let thorough = now.wrapping_sub(LAST_THOROUGH.load(Ordering::Relaxed)) >= THOROUGH_EVERY;
    if thorough {
        LAST_THOROUGH.store(now, Ordering::Relaxed);
    }
    let process_is_dead = if thorough { Identity::is_dead } else { Identity::has_exited };
    load(table, owner).is_none_or(|word| judge(table, me, id::index_of(owner), word, process_is_dead))
}

/// The entry of the peer that a claim word names; `None` if that peer has left, or was cleared up after.
fn load(table: Table<'_>, owner: u32) -> Option<EntryWord> {
    table.load(id::index_of(owner)).filter(|word| id::is_of_generation(owner, word.generation()))
}
