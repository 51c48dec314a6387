//! The object of a model, which all its processes hold all the time: process `n` is the peer with
//! index `n`.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::object::clear::Kind;
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::segment::Segment;
use crate::segment::layout::{BLOCKS, OBJECT};
use crate::segment::region::{Mapping, Region};
use crate::sys::barrier::Fences;
use crate::world;

/// The handle of the one object.
pub(crate) const HANDLE: Handle = Handle { segment: 0, block: 0, generation: 0 };

thread_local! {
    /// Bytes of the object.
    static LEN: Cell<u64> = const { Cell::new(0) };
}

pub(crate) struct Holding {
    mapping: Mapping,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) me: PeerId,
    pub(crate) region: Region<'a>,
    pub(crate) fences: Fences,
    mapping: PhantomData<&'a Mapping>,
}

impl Seat<'_> {
    pub(crate) fn is_gone(&self, peer: PeerId) -> bool {
        self.is_dead(peer.index())
    }

    pub(crate) fn is_dead(&self, owner: u32) -> bool {
        owner != self.me.index() && world::is_dead(owner as usize)
    }
}

impl Holding {
    pub(crate) fn create(
        _segment: &Segment,
        _kind: u64,
        len: u64,
        build: impl FnOnce(Region<'_>, u64) -> Option<()>,
    ) -> Result<Holding, CreateError> {
        assert!(OBJECT + len <= BLOCKS, "the object fits into its place");
        LEN.set(len);
        let mapping = Mapping::new(0);
        build(mapping.region().ok_or(Fault::Corrupt)?, OBJECT).ok_or(Fault::Corrupt)?;
        Ok(Holding { mapping })
    }

    pub(crate) fn open(_segment: &Segment, _handle: Handle, _kind: u64) -> Result<Holding, Fault> {
        Ok(Holding { mapping: Mapping::new(0) })
    }

    pub(crate) fn handle(&self) -> Handle {
        HANDLE
    }

    pub(crate) fn offset(&self) -> u64 {
        OBJECT
    }

    pub(crate) fn len(&self) -> u64 {
        LEN.get()
    }

    pub(crate) fn is_still(&self, _me: PeerId) -> bool {
        true
    }

    pub(crate) fn fences(&self) -> Fences {
        Fences::Asymmetric
    }

    /// The queue and the lock enter anew for their slow paths, and keep nothing of the fast ones.
    pub(crate) fn enter(&self) -> Result<Seat<'_>, Fault> {
        world::begin_again();
        let region = self.mapping.region().ok_or(Fault::Corrupt)?;
        Ok(Seat {
            me: PeerId::new(world::me() as u32, 0),
            region,
            fences: Fences::Asymmetric,
            mapping: PhantomData,
        })
    }
}

/// As in the crate.
pub(crate) fn kind_of<T: crate::segment::Shm>(kind: Kind) -> u64 {
    kind.with_fingerprint(crate::segment::pod::fingerprint::<T>())
}
