//! The object of a model, which all its processes hold all the time: process `n` is the peer with
//! index `n`. A handle lives as long as one operation.

use std::cell::Cell;
use std::fmt;

use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::segment::Segment;
use crate::segment::layout::{BLOCKS, OBJECT};
use crate::segment::region::{Mapping, Region};
use crate::sync::event::{Event, EventRef};
use crate::sys::barrier::Fences;
use crate::world;

/// The handle of the one object.
pub(crate) const HANDLE: Handle = Handle { segment: 0, block: 0, generation: 0 };

thread_local! {
    /// Bytes of the object.
    static LEN: Cell<u64> = const { Cell::new(0) };
}

/// As in the crate.
pub(crate) trait Block: Copy + fmt::Debug {
    type Shape: Copy + fmt::Debug;

    fn len(shape: &Self::Shape) -> u64;

    fn view(region: Region<'_>, offset: u64, shape: &Self::Shape) -> Option<Self>;
}

pub(crate) struct Object<B: Block> {
    shape: B::Shape,
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
        assert!(OBJECT + len <= BLOCKS, "the object fits into its place");
        LEN.set(len);
        let object = Object::at(&Mapping::new(0), shape)?;
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
        let shape = shape(mapping.region().ok_or(Fault::Corrupt)?, OBJECT, LEN.get())?;
        Object::at(&mapping, shape)
    }

    fn at(mapping: &Mapping, shape: B::Shape) -> Result<Object<B>, Fault> {
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let block = B::view(region, OBJECT, &shape).ok_or(Fault::Corrupt)?;
        let peer = PeerId::new(world::me() as u32, 0);
        Ok(Object { shape, place: Place { peer, seat: Seat { me: peer.owner(), block } } })
    }

    pub(crate) fn handle(&self) -> Handle {
        HANDLE
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
