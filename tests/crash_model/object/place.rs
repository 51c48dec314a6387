//! The objects of a model, which all its processes hold all the time: process `n` is the peer with
//! index `n`. A handle lives as long as one operation.

use std::cell::RefCell;
use std::fmt;

use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::segment::Segment;
use crate::segment::layout::{BLOCKS, OBJECT};
use crate::segment::region::{Mapping, Region};
use crate::sync::event::{Event, EventRef};
use crate::sys::barrier::Fences;
use crate::world;

/// The handle of the first object.
pub(crate) const HANDLE: Handle = handle(0);

/// The handle of an object, by its number.
pub(crate) const fn handle(number: usize) -> Handle {
    Handle { segment: 0, block: number as u64, generation: 0 }
}

/// Bytes from an object to the next one, if it is no longer.
const STRIDE: u64 = 128;

thread_local! {
    /// Offset and bytes of each object.
    static OBJECTS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Forgets the objects of the model before.
pub(crate) fn clear() {
    OBJECTS.with_borrow_mut(Vec::clear);
}

/// As in the crate.
pub(crate) trait Block: Copy + fmt::Debug {
    type Shape: Copy + fmt::Debug;

    fn len(shape: &Self::Shape) -> u64;

    fn view(region: Region<'_>, offset: u64, shape: &Self::Shape) -> Option<Self>;
}

pub(crate) struct Object<B: Block> {
    handle: Handle,
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
        let number = OBJECTS.with_borrow_mut(|objects| {
            let end = objects.last().map_or(OBJECT, |(offset, len)| offset + len);
            let offset = end.next_multiple_of(STRIDE);
            assert!(offset + len <= BLOCKS, "the object fits into its place");
            objects.push((offset, len));
            objects.len() - 1
        });
        let object = Object::at(&Mapping::new(0), handle(number), |_, _, _| Ok(shape))?;
        build(&object.place.seat.block);
        Ok(object)
    }

    pub(crate) fn open(
        _segment: &Segment,
        handle: Handle,
        _kind: u64,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        Object::at(&Mapping::new(0), handle, shape)
    }

    fn at(
        mapping: &Mapping,
        handle: Handle,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        let object = OBJECTS.with_borrow(|objects| objects.get(handle.block as usize).copied());
        let (offset, len) = object.ok_or(Fault::Stale)?;
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let shape = shape(region, offset, len)?;
        let block = B::view(region, offset, &shape).ok_or(Fault::Corrupt)?;
        let peer = PeerId::new(world::me() as u32, 0);
        Ok(Object { handle, shape, place: Place { peer, seat: Seat { me: peer.owner(), block } } })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
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
