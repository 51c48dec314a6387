//! The object of a model, which its processes hold as long as they use it: process `n` is the peer
//! with index `n`. A handle lives as long as one operation. The object lies beside the heap, or in a
//! block of it, where models say so.

use std::cell::Cell;
use std::fmt;

use crate::object::holding::Holder;
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCKS, OBJECT};
use crate::segment::region::{Mapping, Region};
use crate::sync::event::{Event, EventRef};
use crate::sys::barrier::Fences;
use crate::world;

/// The handle of the one object. If it lies in the heap, it is the first in the first block.
pub(crate) const HANDLE: Handle = Handle { segment: 0, block: 0, generation: 0 };

thread_local! {
    /// Offset of the object, and its bytes.
    static PLACE: Cell<(u64, u64)> = const { Cell::new((OBJECT, 0)) };
    /// The handle that it has.
    static NAME: Cell<Handle> = const { Cell::new(HANDLE) };
}

/// Says where the object lies, from now on in this thread, and as what it is known.
pub(crate) fn lie_at(offset: u64, len: u64, handle: Handle) {
    PLACE.set((offset, len));
    NAME.set(handle);
}

/// Bytes of the object.
pub(crate) fn len() -> u64 {
    PLACE.get().1
}

/// As in the crate.
pub(crate) trait Block: Copy + fmt::Debug {
    type Shape: Copy + fmt::Debug;

    fn len(shape: &Self::Shape) -> u64;

    fn view(region: Region<'_>, offset: u64, shape: &Self::Shape) -> Option<Self>;
}

pub(crate) struct Object<B: Block> {
    shape: B::Shape,
    mapping: Mapping,
    place: Place<B>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<B> {
    peer: PeerId,
    seat: Seat<B>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<B> {
    pub(crate) me: u32,
    pub(crate) block: B,
}

impl<B: Block> Object<B> {
    pub(crate) fn create(
        _segment: &Segment,
        _kind: u64,
        shape: B::Shape,
        build: impl FnOnce(&B),
    ) -> Result<Object<B>, CreateError> {
        let len = B::len(&shape);
        let (offset, _) = PLACE.get();
        let room = if offset == OBJECT { BLOCKS - OBJECT } else { BLOCK };
        assert!(len <= room, "the object fits into its place");
        PLACE.set((offset, len));
        let object = Object::at(Mapping::new(0), shape)?;
        build(&object.place.seat.block);
        Ok(object)
    }

    pub(crate) fn open(
        _segment: &Segment,
        _handle: Handle,
        _kind: u64,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        let mapping = Mapping::new(0);
        let (offset, len) = PLACE.get();
        let shape = shape(mapping.region().ok_or(Fault::Corrupt)?, offset, len)?;
        Object::at(mapping, shape)
    }

    fn at(mapping: Mapping, shape: B::Shape) -> Result<Object<B>, Fault> {
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let block = B::view(region, PLACE.get().0, &shape).ok_or(Fault::Corrupt)?;
        let peer = PeerId::new(world::me() as u32, 0);
        mapping.set_peer(peer.to_bits(), |_| {});
        let place = Place { peer, seat: Seat { me: peer.owner(), block } };
        Ok(Object { shape, mapping, place })
    }

    pub(crate) fn handle(&self) -> Handle {
        NAME.get()
    }

    pub(crate) fn shape(&self) -> &B::Shape {
        &self.shape
    }

    pub(crate) fn known(&self) -> Option<&Place<B>> {
        self.enter().ok()
    }

    /// Slow paths enter anew, and keep nothing of the fast ones.
    pub(crate) fn enter(&self) -> Result<&Place<B>, Fault> {
        world::begin_again();
        Ok(&self.place)
    }

    pub(crate) fn holder(&self) -> Result<Holder<'_>, Fault> {
        let region = self.mapping.region().ok_or(Fault::Corrupt)?;
        Ok(Holder::new(self.place.peer, region, &self.mapping))
    }

    pub(crate) fn is_dead(&self, owner: u32) -> bool {
        owner != self.place.seat.me && world::is_dead(owner as usize)
    }
}

impl<B> Place<B> {
    pub(crate) fn is_ours(&self) -> bool {
        true
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }
}

impl<B: Copy> Place<B> {
    pub(crate) fn seat(&self) -> Seat<B> {
        self.seat
    }
}

impl<B> Seat<B> {
    pub(crate) fn event<'a>(&self, event: &'a Event) -> EventRef<'a> {
        event.with(Fences::Asymmetric)
    }
}
