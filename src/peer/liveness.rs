//! The verdict over a peer. Only the kernel gives it; a peer that cannot be judged is alive.
//!
//! What is asked, in this order, and what each answer means. An answer that is not in the table,
//! and a refusal of any kind, says nothing, and the next question follows; if none is left, the
//! peer is alive.
//!
//! | question | call | dead | alive |
//! |---|---|---|---|
//! | was the entry made under the segment's home of today? | - | no: everybody who lived there is gone | |
//! | does the peer still have the segment mapped? | `fcntl(F_OFD_GETLK)` on the byte that its mapping keeps locked | the byte is free: it has ended, or become another program by `exec` | |
//! | who has its pid? | `pidfd_open` | | |
//! | has that one ended? | `poll` on the pidfd | readable: a zombie | |
//! | was it started when the peer was? | `fstat` on the pidfd; before Linux 6.9 `/proc` | no: the pid was given away again | not readable, and the same start |
//! | where no pidfd is to be had: does the pid stand for a process? | `tgkill` with signal 0 | `ESRCH` | |
//!
//! The first two need neither a descriptor, nor `/proc`, nor a right over the peer. A peer has no
//! locked byte if it attached where it could not open the segment once more: without `/proc`, as
//! another user, or on a file system that does not keep such locks (overlay, network). Such a peer
//! counts as alive when it has become another program, and when it is a zombie and no pidfd of it
//! is to be had.

use crate::peer::id;
use crate::peer::table::{Attached, EntryWord, State, Table, Who};
use crate::primitive::{Ordering, fence};
use crate::segment::region::Mapping;
use crate::sys::pidfd;

/// One who judges: a process, by what it can ask about others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) table: Table<'a>,
    pub(crate) mapping: &'a Mapping,
    /// The name of this process in claim words, or one that no peer has.
    pub(crate) me: u32,
}

impl Judge<'_> {
    /// Judges the entry as its word stood when it was loaded; true only if no instruction of its
    /// process will ever run again in the segment. Costs system calls.
    pub(crate) fn is_dead(&self, index: u32, word: EntryWord) -> bool {
        let dead = match word.state() {
            // Nobody is there: whoever had the entry has been cleared up after.
            State::Free | State::Dead | State::Reaping(_) | State::Taken(_) => true,
            State::Joining(who) => joining_is_dead(who),
            State::Live(who) => self.attached_is_dead(index, who),
            // The child has not begun to use its entry, and its parent has not said who it is. That
            // is for the parent to do, if it lives.
            State::Reserved(parent) if parent == self.me => false,
            State::Reserved(parent) => match self.load(parent).map(EntryWord::state) {
                Some(State::Live(who)) => self.attached_is_dead(id::index_of(parent), who),
                _ => true,
            },
            // Scribbled over. The process behind it, if any, cannot be found.
            State::Unknown => false,
        };
        if dead {
            after_the_verdict();
        }
        dead
    }

    /// Judges whoever a claim word names.
    pub(crate) fn owner_is_dead(&self, owner: u32) -> bool {
        owner != self.me
            && self.load(owner).is_none_or(|word| self.is_dead(id::index_of(owner), word))
    }

    fn attached_is_dead(&self, index: u32, who: Who) -> bool {
        let Some(Attached { identity, home, life }) = self.table.attached(index, who) else {
            return false;
        };
        home != self.mapping.home().to_bits()
            || self.mapping.is_mapped_elsewhere(life) == Some(false)
            || pidfd::has_ended(who.pid, |now| {
                now.start.differs_from(identity.start) || Who::of(now).differs_from(who)
            })
    }

    /// The entry of the peer that a claim word names; `None` if that peer has left, or was cleared
    /// up after.
    fn load(&self, owner: u32) -> Option<EntryWord> {
        self.table
            .load(id::index_of(owner))
            .filter(|word| id::is_of_generation(owner, word.generation()))
    }
}

/// Judges a process without an entry. It has not written its identity yet; the word holds the pid
/// and a part of it.
pub(crate) fn joining_is_dead(who: Who) -> bool {
    pidfd::has_ended(who.pid, |now| Who::of(now).differs_from(who))
}

/// What the dead process stored is seen by whoever knows that it is dead: it happened before the
/// kernel ended the process, and the kernel said so before this.
fn after_the_verdict() {
    // Acquire: the loads of what the dead left are not made before the verdict. It pairs with the
    // kernel's own barriers at a process's end.
    fence(Ordering::Acquire);
}
