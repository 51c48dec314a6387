//! The ends of channels, and of rings of two, that this process has, and what becomes of them at a
//! fork.
//!
//! The segment knows which processes have ends of a role ([`block::ends`](super::block::ends)).
//! Which ends those are, this file knows, in private memory: an end *counts* in one process, the
//! one that made it, or that first used it after a fork, or for which it was captured. The last one
//! that counts takes the process's bit with it.
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
//! The drop of the closure runs code of the program. What it makes anew is no capture, and known by
//! its serial number, or its age if it is a box. If it forks, the inner closure has a list of its
//! own, and the new process ignores the lists that it inherits.
//!
//! A box that the closure captured goes the same way ([`owned`](super::owned)): when the parent
//! drops it then, its memory becomes the child's, and is not freed ([`heir_in`]).
//!
//! # Peer death
//! A parent killed before the child was let go takes the child with it, and whoever clears up after
//! either of them clears the bits. A child killed meanwhile keeps its entry until its parent has
//! said who it is, so the parent's bits never name a stranger.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::object::block::ends::{Ends, Role};
use crate::object::lineage::Lineage;
use crate::peer::{Fault, PeerId};
use crate::primitive::{AtomicU64, Ordering};
use crate::sys;
use crate::sys::descriptor::FileId;
use crate::sys::error::OsError;
use crate::sys::memory::Words;

/// A channel, as its ends see it.
pub(crate) trait Channel: Send + Sync {
    /// File, block and generation: the same for all handles of the channel.
    fn key(&self) -> ChannelKey;

    /// This process and the words of the ends, in their segment. Enters it after a fork.
    fn ends(&self) -> Result<(PeerId, &Ends), Fault>;

    /// Whether a message holds an end of this role.
    fn is_in_flight(&self, role: Role) -> bool;

    /// Closes the channel and wakes all who wait, as a role is gone.
    fn close(&self);
}

pub(crate) type ChannelKey = (FileId, u64, u64);

/// An end of a channel.
pub(crate) struct End {
    named: Named,
    /// The peer for which it counts, as bits, as far as this end knows; [`NOBODY`] for none.
    counts_for: AtomicU64,
}

/// The bits of no id, and no identity.
const NOBODY: u64 = u64::MAX;

/// Which end of which channel.
#[derive(Clone)]
struct Named {
    channel: Arc<dyn Channel>,
    role: Role,
    /// Which one, among all that this process and those it was forked from have made.
    serial: u64,
}

/// Channel, role and serial number of an end.
type Name = (ChannelKey, Role, u64);

/// For whom an end counts.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// The peer, as bits.
    peer: u64,
    /// Its process, so that a copy of this memory knows without a look at the segment that it has
    /// nothing there.
    process: u32,
}

impl Owner {
    /// This process, which is this peer.
    fn this(peer: PeerId) -> Owner {
        Owner { peer: peer.to_bits(), process: sys::process::pid() }
    }
}

/// All ends that this process knows.
static ALL: Mutex<BTreeMap<Name, Owner>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<Name, Owner>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The serial number of the next end.
static NEXT: AtomicU64 = AtomicU64::new(FIRST);

const FIRST: u64 = 1;

fn next_serial() -> u64 {
    // Relaxed: only the number matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The age that boxes are made in now. The next one begins when a closure is prepared for a child,
/// and in each process before it makes a box. So of two boxes of different processes, one of which
/// has a copy of the other's memory, each has an age of its own; and a box is captured by a closure
/// only if it was made in an earlier age.
static AGE: AtomicU64 = AtomicU64::new(1);
/// Whether this process, or one that it was forked from, has made a box.
static HAS_BOXES: AtomicU64 = AtomicU64::new(0);

/// The age of a box that is made now.
#[inline]
pub(crate) fn age_of_new_box() -> u64 {
    // Relaxed, as all of these: what a closure has captured was made before.
    if HAS_BOXES.load(Ordering::Relaxed) == 0 {
        HAS_BOXES.store(1, Ordering::Relaxed);
    }
    AGE.load(Ordering::Relaxed)
}

/// Begins the next age, and gives it.
pub(crate) fn next_age() -> u64 {
    AGE.fetch_add(1, Ordering::Relaxed) + 1
}

impl End {
    fn new(channel: Arc<dyn Channel>, role: Role) -> End {
        let named = Named { channel, role, serial: next_serial() };
        End { named, counts_for: AtomicU64::new(NOBODY) }
    }

    /// The first end of this role in a new channel.
    pub(crate) fn first(channel: Arc<dyn Channel>, role: Role) -> Result<End, Fault> {
        let end = End::new(channel, role);
        end.count()?;
        Ok(end)
    }

    /// An end of a channel that was opened. If its role is gone, so is the end.
    pub(crate) fn opened(channel: Arc<dyn Channel>, role: Role) -> Result<End, Fault> {
        let end = End::first(channel, role)?;
        // Relaxed: only this thread knows it.
        if end.counts_for.load(Ordering::Relaxed) == NOBODY { Err(Fault::Stale) } else { Ok(end) }
    }

    /// Another end of the same role. If the role is gone, so is the new end.
    pub(crate) fn another(&self) -> End {
        let end = End::new(Arc::clone(&self.named.channel), self.named.role);
        // An end that does not count now tries again when it is used.
        let _ = self.count().and_then(|()| end.count());
        end
    }

    /// Which end of the channel it is.
    pub(crate) fn role(&self) -> Role {
        self.named.role
    }

    /// Whether the end counts for this process, whose
    /// [identity](crate::object::place::Object::identity) this is. The common way into an
    /// operation.
    #[inline]
    pub(crate) fn counts_for(&self, identity: u64) -> bool {
        // Relaxed: the bit was set by this process before.
        self.counts_for.load(Ordering::Relaxed) == identity
    }

    /// Makes the end count in this process. If its role is gone, it never will, and operations find
    /// the channel closed.
    #[cold]
    pub(crate) fn count(&self) -> Result<(), Fault> {
        let named = &self.named;
        let (me, ends) = named.channel.ends()?;
        let mut all = all();
        let is_mine = all.get(&named.name()).is_some_and(|owner| owner.peer == me.to_bits());
        if !is_mine {
            if !named.others_count(&all, me) && !ends.acquire(named.role, me.index()) {
                return Ok(());
            }
            all.insert(named.name(), Owner::this(me));
        }
        self.counts_for.store(me.to_bits(), Ordering::Relaxed);
        Ok(())
    }
}

impl Named {
    fn name(&self) -> Name {
        (self.channel.key(), self.role, self.serial)
    }

    /// Whether another end of the role counts for this peer.
    fn others_count(&self, all: &BTreeMap<Name, Owner>, me: PeerId) -> bool {
        let key = self.channel.key();
        all.range((key, self.role, 0)..=(key, self.role, u64::MAX))
            .any(|(&(_, _, serial), owner)| serial != self.serial && owner.peer == me.to_bits())
    }

    /// The end is no more.
    fn release(&self) {
        let mut all = all();
        let Some(owner) = all.remove(&self.name()) else {
            return;
        };
        // A copy that was never used since a fork has nothing in the segment, and the process must
        // not attach only to find that out.
        if owner.process != sys::process::pid() {
            return;
        }
        let Ok((me, ends)) = self.channel.ends() else {
            return;
        };
        if owner.peer != me.to_bits() || self.others_count(&all, me) {
            return;
        }
        ends.release(self.role, me.index());
        drop(all);
        if ends.conclude(self.role, || self.channel.is_in_flight(self.role)) {
            self.channel.close();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // An end in a thread-local may be dropped after this one is gone.
        if !matches!(DROPPING.try_with(|dropping| note(dropping, &self.named)), Ok(Some(()))) {
            self.named.release();
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("role", &self.named.role).finish_non_exhaustive()
    }
}

/// The closure of a child, which is being dropped.
struct Dropping {
    /// The process that does so. A fork from a captured value's `Drop` copies this, too.
    process: u32,
    /// The serial number that was next at the fork. An end that was made since is not the child's.
    next_at_fork: u64,
    /// The age that began at the fork. A box that was made in it is not the child's.
    age_at_fork: u64,
    captured: Vec<Named>,
    /// Who the child is, in each segment.
    child: Vec<(FileId, PeerId)>,
}

thread_local! {
    /// The closure that this thread drops; `None` at all other times.
    static DROPPING: RefCell<Option<Dropping>> = const { RefCell::new(None) };
    /// Whether there is one. It can be read at any time, and costs less.
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// Takes note of an end that is dropped with a closure; `None` if it is not.
fn note(dropping: &RefCell<Option<Dropping>>, end: &Named) -> Option<()> {
    let mut dropping = dropping.try_borrow_mut().ok()?;
    let Dropping { process, next_at_fork, captured, .. } = dropping.as_mut()?;
    let is_captured = end.serial < *next_at_fork && *process == sys::process::pid();
    is_captured.then(|| captured.push(end.clone()))
}

/// The child to which a box of this age goes that is being dropped, in the segment with this file;
/// `None` if it is not dropped with the closure of a child.
#[inline]
pub(crate) fn heir_in(file: FileId, age: u64) -> Option<PeerId> {
    if IS_DROPPING.get() { find_heir(file, age) } else { None }
}

#[cold]
fn find_heir(file: FileId, age: u64) -> Option<PeerId> {
    // A box in a thread-local may be dropped after this one is gone.
    let heir = DROPPING.try_with(|dropping| {
        let dropping = dropping.try_borrow().ok()?;
        let Dropping { process, age_at_fork, child, .. } = dropping.as_ref()?;
        let is_captured = age < *age_at_fork && *process == sys::process::pid();
        let &(_, child) = child.iter().find(|&&(its, _)| is_captured && its == file)?;
        Some(child)
    });
    heir.ok()?
}

/// How a parent tells its child which ends are the child's. Made before the fork.
#[derive(Debug)]
pub(crate) struct Roll {
    /// How many serial numbers follow and 1; 0 until they are there.
    words: Words,
    next_at_fork: u64,
    age_at_fork: u64,
}

impl Roll {
    /// A roll for a child; `None` if this process never had ends or boxes.
    pub(crate) fn prepare() -> Result<Option<Roll>, OsError> {
        let count = all().len();
        // Relaxed: only the number matters.
        let next_at_fork = NEXT.load(Ordering::Relaxed);
        let has_boxes = HAS_BOXES.load(Ordering::Relaxed) != 0;
        if next_at_fork == FIRST && !has_boxes {
            return Ok(None);
        }
        let words = Words::shared(1 + count)?;
        Ok(Some(Roll { words, next_at_fork, age_at_fork: next_age() }))
    }

    /// Drops what the child has captured, and hands the ends and boxes among it to the child. For
    /// the parent, before it says who the child is. If a drop panics, gives the payload back.
    pub(crate) fn hand_over<C>(&self, captured: C, lineage: &Lineage) -> std::thread::Result<()> {
        let process = sys::process::pid();
        let dropping = Dropping {
            process,
            next_at_fork: self.next_at_fork,
            age_at_fork: self.age_at_fork,
            captured: Vec::new(),
            child: lineage.children().collect(),
        };
        // What is dropped may fork in turn, and drop another closure while this one is dropped.
        let outer = DROPPING.replace(Some(dropping));
        let was_dropping = IS_DROPPING.replace(true);
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(captured)));
        IS_DROPPING.set(was_dropping);
        let captured = DROPPING.replace(outer).map_or_else(Vec::new, |closure| closure.captured);
        let mut count = 0;
        for end in &captured {
            // One that does not count anywhere cannot be taken over.
            let Some(word) = self.words.get(1 + count).filter(|_| all().contains_key(&end.name()))
            else {
                continue;
            };
            let (file, _, _) = end.channel.key();
            let acquired = lineage.child_in(file).is_some_and(|child| {
                let ends = end.channel.ends();
                ends.is_ok_and(|(_, ends)| ends.acquire(end.role, child.index()))
            });
            if acquired {
                // Relaxed: published by the count.
                word.store(end.serial, Ordering::Relaxed);
                count += 1;
            }
        }
        // Release pairs with the Acquire in `take_over`.
        self.words[0].store(1 + count as u64, Ordering::Release);
        // Now they are released in this process's own name.
        captured.iter().for_each(Named::release);
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
            for (&((file, _, _), _, serial), owner) in all().iter_mut() {
                if serials.contains(&serial)
                    && let Some(me) = lineage.child_in(file)
                {
                    *owner = Owner::this(me);
                }
            }
        }
        true
    }
}
