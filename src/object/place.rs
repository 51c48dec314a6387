//! Where an object lies in this process. Every operation starts here.
//!
//! Where an object lies is checked once and then remembered, in a [`Place`]. A place is valid in
//! the process that has checked it, and one load shows whether this is that process: the process's
//! identity in the segment stands on a page that the kernel wipes in a forked child. A child fails
//! the comparison, attaches, and remembers a place of its own. The inherited place stays in memory
//! until the object is dropped, as guards of the parent may still point there.
//!
//! # Peer death
//! Nothing here is shared.
#![expect(unsafe_code, reason = "what was checked once is used for as long as the process lives")]

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::object::error::CreateError;
use crate::object::handle::Handle;
use crate::object::holding::{self, Holder, Holding};
use crate::peer::{Fault, PeerId};
use crate::primitive::{AtomicPtr, AtomicU64, Ordering};
use crate::segment::Segment;
use crate::segment::region::Region;
use crate::sync::event::{Event, EventRef};
use crate::sys::barrier::Fences;
use crate::sys::descriptor::FileId;

/// The contents of a block: addresses in this process, and the operations on them.
///
/// A block is kept in a [`Place`], so code that can call it runs in the process that mapped it.
pub(crate) trait Block: Copy + fmt::Debug {
    /// The numbers that say where everything lies. A private copy, checked once.
    type Shape: Copy + fmt::Debug;

    /// Bytes that a block of this shape takes.
    fn len(shape: &Self::Shape) -> u64;

    /// The block at `offset`; `None` if it does not lie within the segment.
    fn view(region: Region<'_>, offset: u64, shape: &Self::Shape) -> Option<Self>;
}

/// An object that this process holds.
///
/// # Invariants
/// - `place` points to a `Place` that a `Box` has given up, and so do the `inherited` of each; all
///   of them live as long as this does.
/// - The identity that a `Place` points to, and the mapping that it has checked, live as long as
///   `holding` does.
pub(crate) struct Object<B: Block> {
    holding: Holding,
    shape: B::Shape,
    place: AtomicPtr<Place<B>>,
}

/// Where the object lies in the process that has checked it.
#[derive(Debug)]
pub(crate) struct Place<B> {
    identity: NonNull<AtomicU64>,
    /// The value of `identity` in the process for which this place is valid.
    me: PeerId,
    /// The same, if that process leaves out the notifiers' fences; otherwise [`NOBODY`].
    unfenced: u64,
    seat: Seat<B>,
    /// The place of the process from which this one was forked.
    inherited: *mut Place<B>,
}

/// What an operation needs to know of this process and the object. Passed by value: behind a
/// reference the compiler would load it again after each access to shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<B> {
    /// The name of this process in claim words.
    pub(crate) me: u32,
    pub(crate) block: B,
    fences: Fences,
}

// SAFETY: a block consists of addresses of shared memory, which every thread may use as its
// protocol says.
unsafe impl<B: Block> Send for Object<B> {}
// SAFETY: as above; `place` is replaced atomically, and what it points to never changes.
unsafe impl<B: Block> Sync for Object<B> {}

impl<B: Block> Object<B> {
    /// Makes an object of this shape. `build` writes it; nobody sees the object before that is
    /// done.
    pub(crate) fn create(
        segment: &Segment,
        kind: u64,
        shape: B::Shape,
        build: impl FnOnce(&B),
    ) -> Result<Object<B>, CreateError> {
        let holding = Holding::create(segment, kind, B::len(&shape), |region, offset| {
            B::view(region, offset, &shape).map(|block| build(&block))
        })?;
        Ok(Object::new(holding, shape)?)
    }

    /// Opens the object that `handle` names, which must be of this kind. `shape` reads its shape
    /// and checks it against the length of the block.
    pub(crate) fn open(
        segment: &Segment,
        handle: Handle,
        kind: u64,
        shape: impl FnOnce(Region<'_>, u64, u64) -> Result<B::Shape, Fault>,
    ) -> Result<Object<B>, Fault> {
        let holding = Holding::open(segment, handle, kind)?;
        let shape = shape(holding.enter()?.region, holding.offset(), holding.len())?;
        if B::len(&shape) > holding.len() {
            return Err(Fault::Corrupt);
        }
        Object::new(holding, shape)
    }

    /// An object that this process holds already, of this shape.
    pub(crate) fn new(holding: Holding, shape: B::Shape) -> Result<Object<B>, Fault> {
        let place = Place::look_up(&holding, &shape)?;
        // INVARIANT: given up by its box, in the mapping of `holding`.
        Ok(Object { holding, shape, place: AtomicPtr::new(Box::into_raw(Box::new(place))) })
    }

    /// The object's name.
    pub(crate) fn handle(&self) -> Handle {
        self.holding.handle()
    }

    pub(crate) fn shape(&self) -> &B::Shape {
        &self.shape
    }

    #[inline]
    fn place(&self) -> &Place<B> {
        // Acquire pairs with the Release in `enter_after_fork`.
        let place = self.place.load(Ordering::Acquire);
        // SAFETY: a pointer that a box gave up is not null.
        let place = unsafe { NonNull::new_unchecked(place) };
        // SAFETY: by the invariant.
        unsafe { place.as_ref() }
    }

    /// Where the object lies, if this process has looked that up before. The common way into an
    /// operation.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<&Place<B>> {
        let place = self.place();
        if place.is_ours() { Some(place) } else { None }
    }

    /// The bits of this process's id in the segment; 0 for none, as in a child that was forked and
    /// has not attached.
    #[inline]
    pub(crate) fn identity(&self) -> u64 {
        self.place().identity()
    }

    /// Whether this process is this peer, which has used the object. False in a child that was
    /// forked from it.
    #[inline]
    pub(crate) fn is_me(&self, peer: PeerId) -> bool {
        self.known().is_some_and(|place| place.peer() == peer)
    }

    /// As [`Object::known`], for operations that notify: only in a process that leaves out the
    /// notifiers' fences, so that an operation need not ask for that. Then its seat is
    /// [`unfenced_seat`](Place::unfenced_seat).
    #[inline(always)]
    pub(crate) fn known_unfenced(&self) -> Option<&Place<B>> {
        let place = self.place();
        if place.identity() == place.unfenced { Some(place) } else { None }
    }

    /// Where the object lies, looked up if need be. The way into everything else.
    pub(crate) fn enter(&self) -> Result<&Place<B>, Fault> {
        self.known().map_or_else(|| self.enter_after_fork(), Ok)
    }

    #[cold]
    fn enter_after_fork(&self) -> Result<&Place<B>, Fault> {
        self.holding.enter_after_fork(|| {
            // Another thread may have been here first.
            if !self.place().is_ours() {
                let mut place = Place::look_up(&self.holding, &self.shape)?;
                place.inherited = self.place.load(Ordering::Acquire);
                // INVARIANT: given up by its box, and the one before stays behind it.
                // Release pairs with the Acquire in `place`.
                self.place.store(Box::into_raw(Box::new(place)), Ordering::Release);
            }
            Ok(())
        })?;
        Ok(self.place())
    }

    /// The segment that it lies in.
    pub(crate) fn segment(&self) -> Segment {
        self.holding.segment()
    }

    /// File, block and generation.
    pub(crate) fn key(&self) -> (FileId, u64, u64) {
        let Handle { block, generation, .. } = self.holding.handle();
        (self.holding.file_id(), block, generation)
    }

    /// This process as a holder of the object, in the process that has entered.
    #[inline]
    pub(crate) fn holder(&self) -> Result<Holder<'_>, Fault> {
        self.holding.enter()
    }

    /// Whether the peer that a claim word names is dead. Asks the kernel, so it costs system calls.
    pub(crate) fn is_dead(&self, owner: u32) -> bool {
        self.holding.enter().is_ok_and(|seat| seat.is_dead(owner))
    }
}

/// What uses an object all the time, together with where the object lies: an operation that finds
/// this process unchanged reads nothing else of this process.
///
/// It is for one user with `&mut`, who can look the place up again after a fork.
///
/// # Invariants
/// `identity` and `seat` come from a place of the object that `owner` has.
pub(crate) struct Near<B: Block, O> {
    owner: Arc<O>,
    /// As in [`Place`].
    unfenced: u64,
    identity: NonNull<AtomicU64>,
    seat: Seat<B>,
}

/// What has an object.
pub(crate) trait HasObject<B: Block> {
    fn object(&self) -> &Object<B>;
}

/// The bits of no id.
const NOBODY: u64 = u64::MAX;

// SAFETY: as for `Object`, and sending it sends a reference to `owner`.
unsafe impl<B: Block, O: Send + Sync> Send for Near<B, O> {}
// SAFETY: as for `Object`, and sharing it shares `owner`; the rest changes only behind `&mut`.
unsafe impl<B: Block, O: Send + Sync> Sync for Near<B, O> {}

impl<B: Block, O: HasObject<B>> Near<B, O> {
    pub(crate) fn new(owner: Arc<O>) -> Result<Near<B, O>, Fault> {
        let place = owner.object().enter()?;
        let (identity, seat) = (place.identity, place.seat);
        // INVARIANT: from the object's place.
        Ok(Near { owner, unfenced: NOBODY, identity, seat })
    }

    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    /// The owner, to be shared.
    pub(crate) fn shared(&self) -> &Arc<O> {
        &self.owner
    }

    /// Forgets the place, so that [`Near::seat`] has none until the next [`Near::approach`].
    pub(crate) fn leave(&mut self) {
        self.unfenced = NOBODY;
    }

    /// Looks the place up in this process.
    pub(crate) fn approach(&mut self) -> Result<(), Fault> {
        let place = self.owner.object().enter()?;
        // INVARIANT: from the object's place.
        (self.unfenced, self.identity, self.seat) = (place.unfenced, place.identity, place.seat);
        Ok(())
    }

    /// As [`Object::known_unfenced`].
    #[inline(always)]
    pub(crate) fn seat(&self) -> Option<Seat<B>> {
        // SAFETY: by the invariant, and that of `Object`, the identity lives as long as the object.
        let identity = unsafe { self.identity.as_ref() };
        // Acquire pairs with the Release store of the identity, as in `Place::is_ours`.
        if identity.load(Ordering::Acquire) == self.unfenced {
            Some(self.seat.unfenced())
        } else {
            None
        }
    }
}

impl<B: Block> Drop for Object<B> {
    fn drop(&mut self) {
        let mut next = *self.place.get_mut();
        while !next.is_null() {
            // SAFETY: by the invariant a box has given it up, and nobody has a reference any more.
            next = unsafe { Box::from_raw(next) }.inherited;
        }
    }
}

impl<B> Place<B> {
    /// Whether this is the process for which the place is valid. False in a child that was forked
    /// since.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.identity() == self.me.to_bits()
    }

    /// The bits of this process's id; 0 for none.
    #[inline]
    fn identity(&self) -> u64 {
        // SAFETY: by the invariant of `Object` the identity lives as long as the place.
        let identity = unsafe { self.identity.as_ref() };
        // Acquire pairs with the Release store of the identity: a thread that sees it sees the
        // mapping.
        identity.load(Ordering::Acquire)
    }

    /// This process.
    #[inline]
    pub(crate) fn peer(&self) -> PeerId {
        self.me
    }
}

impl<B> Place<B> {
    /// The block, for longer than an operation.
    pub(crate) fn block(&self) -> &B {
        &self.seat.block
    }
}

impl<B: Copy> Place<B> {
    /// What operations need. Only for the process for which the place is valid.
    #[inline]
    pub(crate) fn seat(&self) -> Seat<B> {
        self.seat
    }

    /// The same, in a process that leaves out the notifiers' fences.
    ///
    /// Apart from the question whether this is that process: as an `Option`, it cost each operation
    /// a comparison of its own.
    #[inline(always)]
    pub(crate) fn unfenced_seat(&self) -> Seat<B> {
        self.seat.unfenced()
    }
}

impl<B: Copy> Seat<B> {
    /// The same seat, with fences that the compiler knows.
    #[inline(always)]
    fn unfenced(self) -> Seat<B> {
        Seat { fences: Fences::Asymmetric, ..self }
    }
}

impl<B> Seat<B> {
    /// An event of the object, with the fences that this process uses.
    #[inline]
    pub(crate) fn event<'a>(&self, event: &'a Event) -> EventRef<'a> {
        event.with(self.fences)
    }
}

impl<B: Block> Place<B> {
    fn look_up(holding: &Holding, shape: &B::Shape) -> Result<Place<B>, Fault> {
        let holder = holding.enter()?;
        let block = B::view(holder.region, holding.offset(), shape)
            .ok_or_else(|| holding::not_there(holder.mapping()))?;
        let seat = Seat { me: holder.me.owner(), block, fences: holder.fences };
        let (identity, inherited) = (holding.identity(), ptr::null_mut());
        let leaves_out = holder.fences == Fences::Asymmetric;
        let unfenced = if leaves_out { holder.me.to_bits() } else { NOBODY };
        Ok(Place { identity, me: holder.me, unfenced, seat, inherited })
    }
}
