//! The objects of a model, which its processes hold as long as they use them: process `n` is the
//! peer with index `n`. A handle lives as long as one operation. Objects lie beside the heap, or
//! one of them in a block of it, where models say so.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::object::holding::Holder;
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCKS, OBJECT};
use crate::segment::region::{Mapping, Region};
use crate::sync::event::{Event, EventRef};
use crate::sys::barrier::Fences;
use crate::world;

/// The handle of the first object. If it lies in the heap, it is the first in the first block.
pub(crate) const HANDLE: Handle = handle(0);

/// The handle of an object, by its number.
pub(crate) const fn handle(number: usize) -> Handle {
    Handle { segment: 0, block: number as u64, generation: 0 }
}

/// Bytes from an object to the next one, if it is no longer.
const STRIDE: u64 = 128;

thread_local! {
    /// Offset and bytes of each object beside the heap.
    static OBJECTS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
    /// The object in the heap: its offset, its bytes, and the handle that it has.
    static IN_HEAP: Cell<Option<(u64, u64, Handle)>> = const { Cell::new(None) };
}

/// Forgets the objects of the model before.
pub(crate) fn clear() {
    OBJECTS.with_borrow_mut(Vec::clear);
    IN_HEAP.set(None);
}

/// Says where in the heap the object lies, from now on in this thread, and as what it is known.
pub(crate) fn lie_at(offset: u64, len: u64, handle: Handle) {
    IN_HEAP.set(Some((offset, len, handle)));
}

/// Bytes of the object in the heap.
pub(crate) fn len() -> u64 {
    IN_HEAP.get().map_or(0, |(_, len, _)| len)
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
    mapping: Arc<Mapping>,
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
        if let Some((offset, _, handle)) = IN_HEAP.get() {
            assert!(len <= BLOCK, "the object fits into its place");
            IN_HEAP.set(Some((offset, len, handle)));
            let object = Object::at(handle, |_, _, _| Ok(shape))?;
            build(&object.place.seat.block);
            return Ok(object);
        }
        let number = OBJECTS.with_borrow_mut(|objects| {
            let end = objects.last().map_or(OBJECT, |(offset, len)| offset + len);
            let offset = end.next_multiple_of(STRIDE);
            assert!(offset + len <= BLOCKS, "the object fits into its place");
            objects.push((offset, len));
            objects.len() - 1
        });
        let object = Object::at(handle(number), |_, _, _| Ok(shape))?;
        build(&object.place.seat.block);
        Ok(object)
    }

    pub(crate) fn open(
        _segment: &Segment,
        handle: Handle,
        _kind: u64,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        Object::at(handle, shape)
    }

    fn at(
        handle: Handle,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        let mapping = Mapping::new(0);
        let beside = || OBJECTS.with_borrow(|objects| objects.get(handle.block as usize).copied());
        let in_heap = IN_HEAP.get().map(|(offset, len, _)| (offset, len));
        let (offset, len) = in_heap.or_else(beside).ok_or(Fault::Stale)?;
        let region = mapping.region().ok_or(Fault::Corrupt)?;
        let shape = shape(region, offset, len)?;
        let block = B::view(region, offset, &shape).ok_or(Fault::Corrupt)?;
        let peer = PeerId::new(world::me() as u32, 0);
        mapping.set_peer(peer.to_bits(), |_| {});
        let place = Place { peer, seat: Seat { me: peer.owner(), block } };
        Ok(Object { handle, shape, mapping: Arc::new(mapping), place })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    pub(crate) fn key(&self) -> (u64, u64, u64) {
        (self.handle.segment, self.handle.block, self.handle.generation)
    }

    pub(crate) fn shape(&self) -> &B::Shape {
        &self.shape
    }

    pub(crate) fn known(&self) -> Option<&Place<B>> {
        self.enter().ok()
    }

    pub(crate) fn known_unfenced(&self) -> Option<&Place<B>> {
        self.known()
    }

    /// Slow paths enter anew, and keep nothing of the fast ones.
    pub(crate) fn enter(&self) -> Result<&Place<B>, Fault> {
        world::begin_again();
        Ok(&self.place)
    }

    pub(crate) fn identity(&self) -> u64 {
        self.place.peer.to_bits()
    }

    pub(crate) fn is_me(&self, _peer: PeerId) -> bool {
        true
    }

    pub(crate) fn holder(&self) -> Result<Holder<'_>, Fault> {
        let region = self.mapping.region().ok_or(Fault::Corrupt)?;
        Ok(Holder::new(self.place.peer, region, &self.mapping))
    }

    pub(crate) fn is_dead(&self, owner: u32) -> bool {
        owner != self.place.seat.me && world::is_dead(owner as usize)
    }
}

/// As in the crate, but that it looks the place up each time.
pub(crate) struct Near<B: Block, O> {
    owner: Arc<O>,
    has_left: bool,
    block: PhantomData<B>,
}

pub(crate) trait HasObject<B: Block> {
    fn object(&self) -> &Object<B>;
}

impl<B: Block, O: HasObject<B>> Near<B, O> {
    pub(crate) fn new(owner: Arc<O>) -> Result<Near<B, O>, Fault> {
        owner.object().enter()?;
        Ok(Near { owner, has_left: false, block: PhantomData })
    }

    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    pub(crate) fn shared(&self) -> &Arc<O> {
        &self.owner
    }

    pub(crate) fn leave(&mut self) {
        self.has_left = true;
    }

    pub(crate) fn approach(&mut self) -> Result<(), Fault> {
        self.has_left = false;
        self.owner.object().enter().map(|_| ())
    }

    pub(crate) fn seat(&self) -> Option<Seat<B>> {
        if self.has_left {
            return None;
        }
        self.owner.object().known_unfenced().map(Place::unfenced_seat)
    }
}

impl<B> Place<B> {
    pub(crate) fn is_ours(&self) -> bool {
        true
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn block(&self) -> &B {
        &self.seat.block
    }
}

impl<B: Copy> Place<B> {
    pub(crate) fn seat(&self) -> Seat<B> {
        self.seat
    }

    pub(crate) fn unfenced_seat(&self) -> Seat<B> {
        self.seat
    }
}

impl<B> Seat<B> {
    pub(crate) fn event<'a>(&self, event: &'a Event) -> EventRef<'a> {
        event.with(Fences::Asymmetric)
    }
}
