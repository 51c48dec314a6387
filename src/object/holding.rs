//! An object as this process holds it.
//!
//! A process holds an object as long as it has handles of it. One bit in the block's header tells
//! this to the other processes. A count here, over all handles, says when the bit can be cleared.
//! The last holder frees the block.
//!
//! # Fork
//! A child inherits handles with its parent's memory. Before [`fork`](crate::fork) the parent
//! enters the child as a holder of all that the parent holds, so the child is one at its first use.
//! After a fork by other code the child enters itself at its first use, and gets an error if the
//! object is gone by then.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::owned::Owned;
use crate::heap::pool::Carried;
use crate::heap::{AllocError, BlockId, Pool};
use crate::object::block;
use crate::object::ends;
use crate::object::error::CreateError;
use crate::object::flight;
use crate::object::handle::Handle;
use crate::object::kind::Kind;
use crate::object::reap;
use crate::peer::attach::{self, Arrival};
use crate::peer::footprint::Cards;
use crate::peer::liveness::Judge;
use crate::peer::{Fault, PeerId, identity};
use crate::primitive::AtomicU64;
use crate::segment::Segment;
use crate::segment::region::{Mapping, Region};
use crate::sys::barrier::Fences;
use crate::sys::descriptor::FileId;

/// How many [`Holding`]s this process has of each object. It is locked while a holder bit of this
/// process is changed.
static HELD: Mutex<BTreeMap<Key, usize>> = Mutex::new(BTreeMap::new());

/// File, block and generation. The file, as a copied file has the same segment id; the generation,
/// as an inherited handle may name an object that was in the block before.
type Key = (FileId, u64, u32);

fn held() -> MutexGuard<'static, BTreeMap<Key, usize>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object that this process holds.
pub(crate) struct Holding {
    mapping: Arc<Mapping>,
    block: BlockId,
    generation: u32,
    offset: u64,
    len: u64,
}

/// This process as a holder of an object: who it is, and where the segment lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) me: PeerId,
    pub(crate) region: Region<'a>,
    pub(crate) fences: Fences,
    mapping: &'a Arc<Mapping>,
}

impl<'a> Holder<'a> {
    /// The segment in this process.
    pub(crate) fn mapping(&self) -> &'a Arc<Mapping> {
        self.mapping
    }

    /// The heap of the segment.
    #[inline]
    pub(crate) fn pool(&self) -> Pool<'a> {
        Pool::new(self.mapping, self.region)
    }

    /// Whether the peer at this place of the table is dead. Asks the kernel.
    pub(crate) fn is_dead_peer(&self, index: u32) -> bool {
        attach::view(self.mapping).is_ok_and(|(_, table)| {
            let judge = Judge { table, mapping: self.mapping, me: self.me.owner() };
            index != self.me.index()
                && table.load(index).is_some_and(|word| judge.is_dead(index, word))
        })
    }

    /// Clears up after the peer at this place of the table, if it is dead.
    pub(crate) fn reap(&self, index: u32) {
        reap::reap_one(self.mapping, self.me, index);
    }

    /// Clears up after all dead processes and what they have left in messages.
    pub(crate) fn reap_messages(&self) {
        reap::reap_messages(self.mapping, self.region, self.me);
    }

    /// Gives back what the dead have left, and what else may help; false if that was nothing.
    pub(crate) fn make_room(&self, why: &AllocError) -> bool {
        reap::make_room(self.mapping, self.me, why)
    }

    /// Whether the peer that a claim word names is dead. Asks the kernel, so it costs system calls.
    pub(crate) fn is_dead(&self, owner: u32) -> bool {
        let judge = |table| Judge { table, mapping: self.mapping, me: self.me.owner() };
        attach::view(self.mapping).is_ok_and(|(_, table)| judge(table).owner_is_dead(owner))
    }
}

impl Holding {
    /// Makes an object of `len` bytes. `build` writes it into the region at the offset; nobody sees
    /// the object before that is done.
    pub(crate) fn create(
        segment: &Segment,
        kind: u64,
        len: u64,
        build: impl FnOnce(Region<'_>, u64) -> Option<()>,
    ) -> Result<Holding, CreateError> {
        let mapping = Arc::clone(segment.mapping());
        let mut held = held();
        let me = arrive_with(&held, &mapping)?;
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let pool = Pool::new(&mapping, region);
        let owned = match pool.allocate_apart(me, kind, len) {
            // What dead processes still hold may be room enough.
            Err(error) if reap::make_room(&mapping, me, &error) => {
                pool.allocate_apart(me, kind, len)?
            }
            other => other?,
        };
        if build(region, owned.offset()).is_none() {
            pool.give_back(&owned);
            return Err(not_there(&mapping).into());
        }
        Ok(Holding::first(&mut held, &mapping, me, &owned, len)?)
    }

    /// Makes an object of a block that this process owns and has filled with `len` bytes. Nobody
    /// could open the block before.
    pub(crate) fn share(
        mapping: &Arc<Mapping>,
        owned: &Owned<'_>,
        len: u64,
    ) -> Result<Holding, Fault> {
        let mut held = held();
        let me = arrive_with(&held, mapping)?;
        Holding::first(&mut held, mapping, me, owned, len)
    }

    /// Shows the object to other processes, with `me` as its first holder.
    fn first(
        held: &mut BTreeMap<Key, usize>,
        mapping: &Arc<Mapping>,
        me: PeerId,
        owned: &Owned<'_>,
        len: u64,
    ) -> Result<Holding, Fault> {
        let pool = Pool::new(mapping, mapping.region().ok_or(Fault::Corrupt)?);
        if !pool.share(owned, me) {
            return Err(Fault::Corrupt);
        }
        *held.entry((mapping.file_id(), owned.id.to_bits(), owned.generation())).or_default() += 1;
        Ok(Holding {
            mapping: Arc::clone(mapping),
            block: owned.id,
            generation: owned.generation(),
            offset: owned.offset(),
            len,
        })
    }

    /// Opens the object that `handle` names, which must be of `kind`.
    pub(crate) fn open(segment: &Segment, handle: Handle, kind: u64) -> Result<Holding, Fault> {
        let mapping = Arc::clone(segment.mapping());
        if handle.segment != mapping.id() {
            return Err(Fault::Stale);
        }
        let id = BlockId::from_bits(handle.block).ok_or(Fault::Stale)?;
        let generation = u32::try_from(handle.generation).map_err(|_| Fault::Stale)?;
        let mut held = held();
        if mapping.is_read_only() {
            return Holding::open_granted(&mut held, mapping, (id, generation), kind);
        }
        let me = arrive_with(&held, &mapping)?;
        let pool = Pool::new(&mapping, mapping.region().ok_or(Fault::Corrupt)?);
        // The generation first: a stale handle must not touch the holder bits of what came after.
        if pool.generation(id) != Some(generation) {
            return Err(Fault::Stale);
        }
        let attach = |empty: &dyn Fn(_)| pool.attach(id, generation, me, empty);
        let attached = flight::settle(&pool, me, attach).ok_or(Fault::Stale)?;
        let key = (mapping.file_id(), id.to_bits(), generation);
        if attached.kind != kind {
            if !held.contains_key(&key) {
                flight::settle(&pool, me, |empty| pool.release(id, me, empty));
            }
            return Err(Fault::WrongType);
        }
        *held.entry(key).or_default() += 1;
        drop(held);
        Ok(Holding { block: id, generation, offset: attached.offset, len: attached.len, mapping })
    }

    /// As [`Holding::open`], in a segment that this process can only read: what was
    /// [granted](grant) to it and is only read by all.
    fn open_granted(
        held: &mut BTreeMap<Key, usize>,
        mapping: Arc<Mapping>,
        (block, generation): (BlockId, u32),
        kind: u64,
    ) -> Result<Holding, Fault> {
        let key = (mapping.file_id(), block.to_bits(), generation);
        let region = mapping.region().ok_or(Fault::ReadOnly)?;
        let (Some(Kind::Arc | Kind::ArcSlice), Some(count)) = (Kind::of(kind), held.get_mut(&key))
        else {
            return Err(Fault::ReadOnly);
        };
        let attached = Pool::new(&mapping, region).shared(block, generation).ok_or(Fault::Stale)?;
        if attached.kind != kind {
            return Err(Fault::WrongType);
        }
        *count += 1;
        Ok(Holding { block, generation, offset: attached.offset, len: attached.len, mapping })
    }

    /// The object's name.
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            segment: self.mapping.id(),
            block: self.block.to_bits(),
            generation: self.generation.into(),
        }
    }

    /// The segment.
    pub(crate) fn segment(&self) -> Segment {
        Segment::from(Arc::clone(&self.mapping))
    }

    /// The segment's file.
    pub(crate) fn file_id(&self) -> FileId {
        self.mapping.file_id()
    }

    /// Offset of the object in the segment.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the object.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The word that says who this process is in the segment. It lives as long as this value.
    pub(crate) fn identity(&self) -> NonNull<AtomicU64> {
        self.mapping.identity()
    }

    /// This process as a holder. After a fork it must have [entered](Holding::enter_after_fork).
    #[inline]
    pub(crate) fn enter(&self) -> Result<Holder<'_>, Fault> {
        // Of a reader's objects nobody has operations that write.
        let me = identity::own_or_reader(&self.mapping).ok_or(Fault::Corrupt)?;
        let region = self.mapping.region().ok_or(Fault::Corrupt)?;
        Ok(Holder { me, region, fences: self.mapping.fences(), mapping: &self.mapping })
    }

    /// Makes this process, which was forked from a holder, a holder itself; then calls `look`,
    /// while no other thread does the same.
    pub(crate) fn enter_after_fork(
        &self,
        look: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let held = held();
        let me = arrive_with(&held, &self.mapping)?;
        let region = self.mapping.region().ok_or(Fault::Corrupt)?;
        let pool = Pool::new(&self.mapping, region);
        if pool.generation(self.block) != Some(self.generation) {
            return Err(Fault::Stale);
        }
        if !pool.is_holder(self.block, me) {
            let attach = |empty: &dyn Fn(_)| pool.attach(self.block, self.generation, me, empty);
            flight::settle(&pool, me, attach).ok_or(Fault::Stale)?;
        }
        let result = look();
        drop(held);
        result
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = held();
        let key = (self.mapping.file_id(), self.block.to_bits(), self.generation);
        let last = match held.get_mut(&key) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => held.remove(&key).is_some(),
        };
        // A forked child that never used the segment holds nothing under its own name. What its
        // parent reserved for it goes back when the parent reaps it.
        let Some(me) = identity::own(&self.mapping) else {
            return;
        };
        let Some(region) = self.mapping.region() else {
            return;
        };
        let pool = Pool::new(&self.mapping, region);
        if last
            && pool.generation(self.block) == Some(self.generation)
            && pool.is_holder(self.block, me)
        {
            // A forgotten guard must not block the other holders forever.
            let strands = Cell::new(false);
            let recover = |object| strands.set(block::recover(&pool, object, me.owner()));
            flight::settle(&pool, me, |empty| pool.leave(self.block, me, recover, empty));
            // Nobody else learns where the memory of a forgotten message lies.
            if strands.get() && flight::sweep(&pool, me, Cards::ALL).1 {
                flight::settle_all(&pool, me);
            }
        }
    }
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle().fmt(f)
    }
}

/// This process in the segment of `mapping`, as one that holds objects there or may do so.
pub(crate) fn holder(mapping: &Arc<Mapping>) -> Result<Holder<'_>, Fault> {
    let me = arrive(mapping)?;
    let region = mapping.region().ok_or(Fault::Corrupt)?;
    Ok(Holder { me, region, fences: mapping.fences(), mapping })
}

/// Lets this process open the objects in a flight that its entry carries, in a segment that it can
/// only read. The flight holds them as long as this process lives. `None` if there is no such
/// flight.
pub(crate) fn grant(
    mapping: &Arc<Mapping>,
    carried: Carried,
    carrier: Carrier,
) -> Option<Vec<Name>> {
    let names = Pool::new(mapping, mapping.region()?).flight_to_read(carried, carrier)?;
    let mut held = held();
    for name in &names {
        // One for the flight, so that the last handle is never the last hold.
        *held.entry((mapping.file_id(), name.id.to_bits(), name.generation)).or_default() += 1;
    }
    Some(names)
}

/// Why there is nothing where a block says that an object lies: somebody has written over it, or
/// this process cannot map it.
#[cold]
pub(crate) fn not_there(mapping: &Mapping) -> Fault {
    mapping.see_all().err().map_or(Fault::Corrupt, Fault::from)
}

/// What this process holds in the segment of `mapping`: a copy of what its parent held, if it was
/// forked and has not used it since.
fn held_in<'a>(
    held: &'a BTreeMap<Key, usize>,
    mapping: &Mapping,
) -> impl Iterator<Item = (BlockId, u32)> + 'a {
    let file = mapping.file_id();
    held.range((file, 0, 0)..=(file, u64::MAX, u32::MAX))
        .filter_map(|(&(_, block, generation), _)| Some((BlockId::from_bits(block)?, generation)))
}

/// Makes the coming `child` a holder of everything that this process holds in the segment.
pub(crate) fn bequeath(mapping: &Mapping, region: Region<'_>, child: PeerId) {
    let pool = Pool::new(mapping, region);
    for (block, generation) in held_in(&held(), mapping) {
        pool.bequeath(block, generation, child);
    }
}

/// Makes sure that this process is attached. After a fork by other code, also makes it a holder of
/// everything that the parent held and that is still there.
#[inline]
pub(crate) fn arrive(mapping: &Arc<Mapping>) -> Result<PeerId, Fault> {
    if let Some(me) = identity::own(mapping) { Ok(me) } else { arrive_first(mapping) }
}

#[cold]
#[inline(never)]
fn arrive_first(mapping: &Arc<Mapping>) -> Result<PeerId, Fault> {
    arrive_with(&held(), mapping)
}

fn arrive_with(held: &BTreeMap<Key, usize>, mapping: &Arc<Mapping>) -> Result<PeerId, Fault> {
    if let Some(me) = identity::own(mapping) {
        return Ok(me);
    }
    // The place of a dead peer is cleared before this process has an index of its own, so blocks
    // are freed under the index of the dead peer.
    let clear = |dead| {
        if let Some(region) = mapping.region() {
            reap::clear(mapping, region, dead, dead);
        }
    };
    let arrival = attach::attach(mapping, clear)?;
    if !matches!(arrival, Arrival::Present(_)) {
        // What this process makes is none of what it has a copy of.
        ends::next_age();
    }
    mapping.empty_before_detach(|mapping| {
        if let (Some(me), Some(region)) = (identity::own(mapping), mapping.region()) {
            Pool::new(mapping, region).empty_magazines(me);
        }
    });
    match arrival {
        Arrival::Present(me) | Arrival::Adopted(me) => Ok(me),
        Arrival::New(me) => {
            if let Ok((region, _)) = attach::view(mapping) {
                let pool = Pool::new(mapping, region);
                for (id, generation) in held_in(held, mapping) {
                    // `None` if it is gone by now; a use of it says so.
                    let attach = |empty: &dyn Fn(_)| pool.attach(id, generation, me, empty);
                    let _ = flight::settle(&pool, me, attach);
                }
            }
            Ok(me)
        }
    }
}
