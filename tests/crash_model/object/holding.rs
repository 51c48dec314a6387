//! A process as a holder of the object: as in the crate, but that it always is one.

use std::sync::Arc;

use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::pool::Carried;
use crate::heap::{AllocError, Pool};
use crate::object::reap;
use crate::peer::Fault;
use crate::peer::PeerId;
use crate::segment::region::{Mapping, Region};
use crate::world;

/// The process as one that the mapping knows.
pub(crate) fn arrive(mapping: &Mapping) -> Result<PeerId, Fault> {
    PeerId::from_bits(mapping.peer_bits()).ok_or(Fault::Stale)
}

/// For a process that can only read; there is none.
pub(crate) fn grant(_: &Arc<Mapping>, _: Carried, _: Carrier) -> Option<Vec<Name>> {
    None
}

/// All of the arena is seen, so somebody has written over it.
pub(crate) fn not_there(_mapping: &Mapping) -> Fault {
    Fault::Corrupt
}

pub(crate) fn holder(mapping: &Arc<Mapping>) -> Result<Holder<'_>, Fault> {
    let region = mapping.region().ok_or(Fault::Corrupt)?;
    Ok(Holder::new(arrive(mapping)?, region, mapping))
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) me: PeerId,
    pub(crate) region: Region<'a>,
    mapping: &'a Arc<Mapping>,
}

impl<'a> Holder<'a> {
    pub(crate) fn new(me: PeerId, region: Region<'a>, mapping: &'a Arc<Mapping>) -> Holder<'a> {
        Holder { me, region, mapping }
    }

    pub(crate) fn mapping(&self) -> &'a Arc<Mapping> {
        self.mapping
    }

    pub(crate) fn pool(&self) -> Pool<'a> {
        Pool::new(self.mapping, self.region)
    }

    /// Clears up after all dead processes and what they have left in messages.
    pub(crate) fn reap_messages(&self) {
        reap::reap_messages(self.mapping, self.region, self.me);
    }

    pub(crate) fn make_room(&self, why: &AllocError) -> bool {
        reap::make_room(self.mapping, self.me, why)
    }

    pub(crate) fn is_dead_peer(&self, index: u32) -> bool {
        index != self.me.index() && world::is_dead(index as usize)
    }

    pub(crate) fn reap(&self, index: u32) {
        reap::reap_one(self.mapping, self.me, index);
    }
}
