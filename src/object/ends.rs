//! The ends of channels that this process has, and what becomes of them at a fork.
//!
//! The segment knows which processes have ends of a role ([`block::ends`](super::block::ends)).
//! Which ends those are, this file knows, in private memory: an end *counts* in one process, the one
//! that made it, or that first used it after a fork, or for which it was captured. The last one that
//! counts takes the process's bit with it.
//!
//! # Fork
//! A forked child has a copy of every end that its parent has in memory. Those that the closure
//! captured are for the child; all others merely lie there, and must not keep a channel open. Only
//! the drop of the closure in the parent tells them apart. So that comes first:
//! ```text
//! parent                                            child
//!   fork                                              waits
//!   drop the closure; note each end that it drops
//!   acquire each in the child's name
//!   write their serial numbers into the roll
//!   release each in its own name                      reads the roll: those ends count here
//!   let the child go                                  runs the closure
//! ```
//! The parent's ends keep their roles until the child's bits are set, so nobody sees a channel
//! without its ends in between. An end that was not captured does not count in the child. If the
//! child uses it all the same, it is acquired then, or finds that its role is gone. This is also
//! what happens after a fork by other code.
//!
//! # Peer death
//! A parent killed before the child was let go takes the child with it, and whoever clears up after
//! either of them clears the bits. A child killed meanwhile keeps its entry until its parent has
//! said who it is, so the parent's bits never name a stranger.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::object::block::ends::{Ends, Role};
use crate::object::lineage::Lineage;
use crate::peer::{Fault, PeerId};
use crate::primitive::{AtomicU64, Ordering};
use crate::sys::descriptor::FileId;
use crate::sys::error::OsError;
use crate::sys::memory::SharedWords;

/// A channel, as its ends see it.
pub(crate) trait Channel: Send + Sync {
    /// File, block and generation: the same for all handles of the channel.
    fn key(&self) -> ChannelKey;

    /// This process and the words of the ends, in their segment. Enters it after a fork.
    fn ends(&self) -> Result<(PeerId, &Ends), Fault>;

    /// Closes the channel and wakes all who wait, as a role is gone.
    fn close(&self);
}

pub(crate) type ChannelKey = (FileId, u64, u64);

/// An end of a channel.
pub(crate) struct End {
    channel: Arc<dyn Channel>,
    role: Role,
    /// Which one, among all that this process and those it was forked from have made.
    serial: u64,
    /// The peer for which it counts, as far as this end knows; 0 for none.
    counts_for: AtomicU64,
}

/// All ends that this process knows, and for which peer each counts.
static ALL: Mutex<BTreeMap<(ChannelKey, Role, u64), u64>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<(ChannelKey, Role, u64), u64>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: only the number matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl End {
    /// The first end of this role in a new channel.
    pub(crate) fn first(channel: Arc<dyn Channel>, role: Role) -> Result<End, Fault> {
        let end = End { channel, role, serial: next_serial(), counts_for: AtomicU64::new(0) };
        end.count()?;
        Ok(end)
    }

    /// Another end of the same role. If the role is gone, so is the new end.
    pub(crate) fn another(&self) -> End {
        let channel = Arc::clone(&self.channel);
        let (role, serial) = (self.role, next_serial());
        let end = End { channel, role, serial, counts_for: AtomicU64::new(0) };
        // An end that does not count now tries again when it is used.
        let _ = self.count().and_then(|()| end.count());
        end
    }

    /// Whether the end counts for this peer. The common way into an operation.
    #[inline]
    pub(crate) fn counts_for(&self, peer: PeerId) -> bool {
        // Relaxed: the bit was set by this process before.
        self.counts_for.load(Ordering::Relaxed) == peer.to_bits()
    }

    /// Makes the end count in this process. If its role is gone, it never will, and operations find
    /// the channel closed.
    #[cold]
    pub(crate) fn count(&self) -> Result<(), Fault> {
        let (me, ends) = self.channel.ends()?;
        let mut all = all();
        let is_mine = all.get(&self.name()) == Some(&me.to_bits());
        if !is_mine {
            if !self.others_count(&all, me) && !ends.acquire(self.role, me.index()) {
                return Ok(());
            }
            all.insert(self.name(), me.to_bits());
        }
        self.counts_for.store(me.to_bits(), Ordering::Relaxed);
        Ok(())
    }

    fn name(&self) -> (ChannelKey, Role, u64) {
        (self.channel.key(), self.role, self.serial)
    }

    /// Whether another end of the role counts for this peer.
    fn others_count(&self, all: &BTreeMap<(ChannelKey, Role, u64), u64>, me: PeerId) -> bool {
        let key = self.channel.key();
        all.range((key, self.role, 0)..=(key, self.role, u64::MAX))
            .any(|(&(_, _, serial), &peer)| serial != self.serial && peer == me.to_bits())
    }

    /// The end is no more.
    fn release(&self) {
        let mut all = all();
        let Some(peer) = all.remove(&self.name()) else {
            return;
        };
        // A process that has not used the segment since a fork has nothing there, and must not
        // attach only to find that out.
        let Ok((me, ends)) = self.channel.ends() else {
            return;
        };
        if peer != me.to_bits() || self.others_count(&all, me) {
            return;
        }
        ends.release(self.role, me.index());
        drop(all);
        if ends.conclude(self.role) {
            self.channel.close();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let note = |captured: &RefCell<Option<Vec<Captured>>>| {
            let mut captured = captured.try_borrow_mut().ok()?;
            captured.as_mut()?.push(Captured(End {
                channel: Arc::clone(&self.channel),
                role: self.role,
                serial: self.serial,
                counts_for: AtomicU64::new(0),
            }));
            Some(())
        };
        // An end in a thread-local may be dropped after this one is gone.
        if !matches!(CAPTURED.try_with(note), Ok(Some(()))) {
            self.release();
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("role", &self.role).finish_non_exhaustive()
    }
}

/// An end that a closure captured.
struct Captured(End);

thread_local! {
    /// The ends that are dropped with the closure of a child; `None` at all other times.
    static CAPTURED: RefCell<Option<Vec<Captured>>> = const { RefCell::new(None) };
}

/// How a parent tells its child which ends are the child's. Made before the fork.
#[derive(Debug)]
pub(crate) struct Roll {
    /// How many serial numbers follow and 1; 0 until they are there.
    words: SharedWords,
}

impl Roll {
    /// A roll for a child; `None` if this process has no ends.
    pub(crate) fn prepare() -> Result<Option<Roll>, OsError> {
        let count = all().len();
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Roll { words: SharedWords::new(1 + count)? }))
    }

    /// Drops what the child has captured, and hands the ends among it to the child. For the parent,
    /// before it says who the child is. If a drop panics, gives the payload back.
    pub(crate) fn hand_over<C>(&self, captured: C, lineage: &Lineage) -> std::thread::Result<()> {
        CAPTURED.set(Some(Vec::new()));
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(captured)));
        let captured = CAPTURED.take().unwrap_or_default();
        let mut count = 0;
        for Captured(end) in &captured {
            let (file, _, _) = end.channel.key();
            let acquired = lineage.child_in(file).is_some_and(|child| {
                let ends = end.channel.ends();
                ends.is_ok_and(|(_, ends)| ends.acquire(end.role, child.index()))
            });
            if acquired && let Some(word) = self.words.get(1 + count) {
                // Relaxed: published by the count.
                word.store(end.serial, Ordering::Relaxed);
                count += 1;
            }
        }
        // Release pairs with the Acquire in `take_over`.
        self.words[0].store(1 + count as u64, Ordering::Release);
        // Now they are released in this process's own name.
        drop(captured);
        dropped
    }

    /// Takes over the ends that were captured; false if the parent has not written them yet. For
    /// the child, before it runs any code of the program.
    pub(crate) fn take_over(&self, lineage: &Lineage) -> bool {
        let count = self.words[0].load(Ordering::Acquire);
        if count == 0 {
            return false;
        }
        let serials: BTreeSet<u64> = (1..count as usize)
            .filter_map(|index| Some(self.words.get(index)?.load(Ordering::Relaxed)))
            .collect();
        if !serials.is_empty() {
            for (&((file, _, _), _, serial), peer) in all().iter_mut() {
                if serials.contains(&serial)
                    && let Some(me) = lineage.child_in(file)
                {
                    *peer = me.to_bits();
                }
            }
        }
        true
    }
}
