//! One end of a ring, and the role that a process has with it.
//!
//! # Peer death
//! A role whose holder is dead, or has given it up, is free for another process. What the last
//! holder published or released stands in the ring's words, and its successor goes on from there.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::object::attempt::{self, Attempt, Blocked, Limit, Never, Until, Waiting};
use crate::object::block::spsc::{Shape, SideWords, SpscBlock};
use crate::object::kind::Kind;
use crate::object::place::{HasObject, Near, Object, Place, Seat};
use crate::object::transfer::Stop;
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::primitive::Ordering;
use crate::ring::spsc::{self, Corrupt, Side, Turn};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::event::Event;
use crate::sync::spin::Patience;

/// What the two roles do differently.
pub(super) trait Role {
    /// The words of a process in this role.
    fn words<T: Shm>(block: &SpscBlock<T>) -> &SideWords;

    /// Goes on where the last process in this role left off.
    fn resume<T: Shm>(block: &SpscBlock<T>) -> Result<Side, Corrupt>;

    /// How many slots this side may use; looks at the other side's word if fewer than `wanted` are
    /// known.
    fn ready<T: Shm>(side: &mut Side, block: &SpscBlock<T>, wanted: u64) -> Result<u64, Corrupt>;

    /// Notified when there are more slots to use.
    fn event<T: Shm>(block: &SpscBlock<T>) -> &Event;

    /// How a process in this role waits.
    fn waiting<T: Shm>(shared: &Shared<T>) -> &Waiting;
}

/// The role that sends.
pub(super) enum Sending {}

/// The role that receives.
pub(super) enum Receiving {}

impl Role for Sending {
    fn words<T: Shm>(block: &SpscBlock<T>) -> &SideWords {
        block.sender()
    }

    fn resume<T: Shm>(block: &SpscBlock<T>) -> Result<Side, Corrupt> {
        let (tail, head) = (&block.sender().index, &block.receiver().index);
        spsc::resume_sender(tail, head, block.capacity())
    }

    #[inline]
    fn ready<T: Shm>(side: &mut Side, block: &SpscBlock<T>, wanted: u64) -> Result<u64, Corrupt> {
        spsc::free_slots(side, &block.receiver().index, wanted)
    }

    fn event<T: Shm>(block: &SpscBlock<T>) -> &Event {
        block.space()
    }

    fn waiting<T: Shm>(shared: &Shared<T>) -> &Waiting {
        &shared.sender
    }
}

impl Role for Receiving {
    fn words<T: Shm>(block: &SpscBlock<T>) -> &SideWords {
        block.receiver()
    }

    fn resume<T: Shm>(block: &SpscBlock<T>) -> Result<Side, Corrupt> {
        let (tail, head) = (&block.sender().index, &block.receiver().index);
        spsc::resume_receiver(tail, head, block.capacity())
    }

    #[inline]
    fn ready<T: Shm>(side: &mut Side, block: &SpscBlock<T>, wanted: u64) -> Result<u64, Corrupt> {
        spsc::messages(side, &block.sender().index, wanted)
    }

    fn event<T: Shm>(block: &SpscBlock<T>) -> &Event {
        block.items()
    }

    fn waiting<T: Shm>(shared: &Shared<T>) -> &Waiting {
        &shared.receiver
    }
}

/// What both ends of a ring share in a process.
pub(super) struct Shared<T: Shm> {
    object: Object<SpscBlock<T>>,
    sender: Waiting,
    receiver: Waiting,
}

impl<T: Shm> Shared<T> {
    pub(super) fn create(segment: &Segment, shape: Shape) -> Result<Arc<Shared<T>>, CreateError> {
        let kind = Kind::Spsc.with::<T>();
        Ok(Shared::new(Object::create(segment, kind, shape, SpscBlock::build)?))
    }

    pub(super) fn open(segment: &Segment, handle: Handle) -> Result<Arc<Shared<T>>, Fault> {
        let kind = Kind::Spsc.with::<T>();
        Ok(Shared::new(Object::open(segment, handle, kind, Shape::read::<T>)?))
    }

    fn new(object: Object<SpscBlock<T>>) -> Arc<Shared<T>> {
        let sender = Waiting::new(Patience::for_space(object.shape().capacity()));
        Arc::new(Shared { object, sender, receiver: Waiting::new(Patience::new()) })
    }
}

impl<T: Shm> HasObject<SpscBlock<T>> for Shared<T> {
    fn object(&self) -> &Object<SpscBlock<T>> {
        &self.object
    }
}

/// One end of a ring.
///
/// # Invariants
/// - If the `holder` of `role` is this process, then the ring's role word names this process, this
///   is its only end with that role, and `side` is its view.
/// - `near` is looked up only by the `holder`.
pub(super) struct End<T: Shm, R: Role> {
    near: Near<SpscBlock<T>, Shared<T>>,
    role: HeldRole<R>,
    wait: Wait,
}

/// A side's next slot, and where the ring lies.
type TurnAt<'a, T> = (Seat<SpscBlock<T>>, Turn<'a>);

/// A role, as a process holds it.
struct HeldRole<R> {
    /// The process that has taken it, as bits; 0 for none.
    holder: u64,
    side: Side,
    role: PhantomData<fn(R)>,
}

impl<T: Shm, R: Role> End<T, R> {
    /// Takes the role without waiting; it must be free, or its holder dead.
    pub(super) fn take(shared: Arc<Shared<T>>) -> Result<End<T, R>, Fault> {
        let mut role = HeldRole { holder: 0, side: Side::NONE, role: PhantomData };
        let near = Near::new(shared)?;
        let object = near.owner().object();
        let taking = Using { place: object.enter()?, role: &mut role, wanted: 0 };
        match attempt::once(object, taking) {
            Ok(Ok(_)) => Ok(End { near, role, wait: Wait::default() }),
            Ok(Err(Stop::Broken(fault))) => Err(fault),
            Ok(Err(Stop::Closed | Stop::Disconnected | Stop::Late(_))) | Err(_) => {
                Err(Fault::RoleTaken)
            }
        }
    }

    /// This side's next slot, if one is known already: does not look at the other side's word.
    #[inline(always)]
    pub(super) fn known_turn(&mut self) -> Option<TurnAt<'_, T>> {
        // By the invariants, this process has the role.
        let seat = self.near.seat()?;
        Some((seat, self.role.side.turn()?))
    }

    /// This side's next slot. Waits for one as `until` says.
    #[cold]
    pub(super) fn turn<U: Until>(&mut self, until: U) -> Result<TurnAt<'_, T>, Stop<U::Late>> {
        if !matches!(until.limit(), Limit::None(_)) {
            R::waiting(self.near.owner()).patience.pause_in_stream();
        }
        if !self.look() {
            self.wait_for_slot(until)?;
            // INVARIANT: a slot was found, so this process has the role.
            self.near.approach().map_err(Stop::Broken)?;
        }
        let seat = self.near.owner().object().enter().map_err(Stop::Broken)?.seat();
        let turn = self.role.side.turn();
        turn.map(|turn| (seat, turn)).ok_or(Stop::Broken(Fault::Corrupt))
    }

    /// Looks at the other side's word; false if nothing is found this way. One message at a time
    /// comes by here.
    #[inline]
    fn look(&mut self) -> bool {
        let Some(seat) = self.near.seat() else { return false };
        // By the invariants, this process has the role.
        match R::ready(&mut self.role.side, &seat.block, 1) {
            Ok(found) if found > 0 => {
                R::waiting(self.near.owner()).patience.found(found);
                true
            }
            _ => false,
        }
    }

    /// Waits until there are slots.
    fn wait_for_slot<U: Until>(&mut self, until: U) -> Result<(), Stop<U::Late>> {
        let shared = self.near.owner();
        let object = shared.object();
        let place = object.enter().map_err(Stop::Broken)?;
        let waiting = R::waiting(shared);
        let mut using = Using { place, role: &mut self.role, wanted: 1 };
        let found = match using.attempt(false) {
            Ok(found) => found,
            Err(blocked) => {
                waiting.patience.found(0);
                let seat = place.seat();
                let events = [seat.event(R::event(&seat.block))];
                attempt::go_on(object, using, blocked, until, &events, self.wait, waiting)
                    .map_err(Stop::Late)?
            }
        };
        let found = found.map_err(Stop::widen)?;
        waiting.patience.found(found);
        Ok(())
    }

    pub(super) fn handle(&self) -> Handle {
        self.near.owner().object().handle()
    }

    pub(super) fn capacity(&self) -> usize {
        self.near.owner().object().shape().capacity() as usize
    }

    pub(super) fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Messages in the ring; 0 if it cannot be used.
    pub(super) fn len(&self) -> usize {
        let Ok(place) = self.near.owner().object().enter() else { return 0 };
        let block = place.seat().block;
        let head = block.receiver().index.load(Ordering::Acquire);
        let tail = block.sender().index.load(Ordering::Acquire);
        tail.wrapping_sub(head).min(block.capacity()) as usize
    }
}

impl<R> HeldRole<R> {
    /// The side, if this process has the role.
    #[inline]
    fn side<B>(&mut self, place: &Place<B>) -> Option<&mut Side> {
        if self.holder == place.peer().to_bits() { Some(&mut self.side) } else { None }
    }
}

/// Looks for a slot; takes the role first if need be.
struct Using<'a, T: Shm, R: Role> {
    place: &'a Place<SpscBlock<T>>,
    role: &'a mut HeldRole<R>,
    /// How many slots to find; 0 only takes the role.
    wanted: u64,
}

impl<T: Shm, R: Role> Using<'_, T, R> {
    /// Takes the role from `holder`, as its word names it; 0 if it is free. False if it has changed.
    fn take_role(&mut self, holder: u64) -> Result<bool, Fault> {
        let me = self.place.peer();
        let block = self.place.seat().block;
        let role = &R::words(&block).role;
        // Acquire pairs with the Release of the last holder's drop. All that a dead holder stored
        // happened before.
        let taken =
            role.compare_exchange(holder, me.to_bits(), Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_err() {
            return Ok(false);
        }
        let Ok(side) = R::resume(&block) else {
            // A later attempt must get the same error, and not that the role is taken.
            let _ = role.compare_exchange(me.to_bits(), 0, Ordering::Release, Ordering::Relaxed);
            return Err(Fault::Corrupt);
        };
        // INVARIANT: the compare-and-swap made the role ours.
        *self.role = HeldRole { holder: me.to_bits(), side, role: PhantomData };
        Ok(true)
    }
}

impl<T: Shm, R: Role> Attempt for Using<'_, T, R> {
    /// How many slots there are, or why there will never be one.
    type Done = Result<u64, Stop<Never>>;
    /// Who has the role.
    type Held = PeerId;

    fn attempt(&mut self, _look: bool) -> Result<Self::Done, Blocked<PeerId>> {
        let block = self.place.seat().block;
        let corrupt = Ok(Err(Stop::Broken(Fault::Corrupt)));
        while self.role.side(self.place).is_none() {
            // Relaxed: the swap looks again.
            let holder = R::words(&block).role.load(Ordering::Relaxed);
            match PeerId::from_bits(holder) {
                None if holder == 0 => match self.take_role(0) {
                    Ok(_) => {}
                    Err(fault) => return Ok(Err(Stop::Broken(fault))),
                },
                None => return corrupt,
                // After a fork: the parent has not dropped its copy of this end yet. Or another end
                // of this process.
                Some(peer) => return Err(Blocked::Behind(peer)),
            }
        }
        match self.role.side(self.place).map(|side| R::ready(side, &block, self.wanted)) {
            Some(Ok(0)) if self.wanted > 0 => Err(Blocked::Nobody),
            Some(Ok(count)) => Ok(Ok(count)),
            Some(Err(Corrupt)) | None => corrupt,
        }
    }

    fn owner(holder: PeerId) -> u32 {
        holder.owner()
    }

    fn succeed(&mut self, holder: PeerId) -> Option<Self::Done> {
        self.take_role(holder.to_bits()).err().map(|fault| Err(Stop::Broken(fault)))
    }
}

impl<T: Shm, R: Role> Drop for End<T, R> {
    fn drop(&mut self) {
        // In a forked child `holder` is the parent, and the role stays with it.
        if let Ok(place) = self.near.owner().object().enter()
            && self.role.holder == place.peer().to_bits()
        {
            // Release pairs with the Acquire in `take_role`: the successor sees our last index.
            let block = place.seat().block;
            let role = &R::words(&block).role;
            let me = place.peer().to_bits();
            let _ = role.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}
