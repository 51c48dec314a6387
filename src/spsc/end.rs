//! One end of a ring, and the role that a process has with it.
//!
//! # States
//! Two things are said of each role, sender and receiver, by two words:
//! ```text
//! who has ends (object::block::ends)      who uses the role (its word)
//!   OPEN(0)  nobody has had one yet         0  nobody
//!   OPEN(v)  a bit for each process         p  the process p, which has an end
//!   GONE     nobody, and nobody ever will
//!
//! make, open, standby, receive an end:    set my bit; OPEN(v) -> OPEN(v+1). GONE: it is too late
//! first use of an end:                    I have a bit; 0 -> me, or dead -> me; resume at the index
//! drop, if this end uses the role:        me -> 0; wake who stands by
//! drop of the last end of the process:    clear my bit; all bits 0, none in a message: GONE, wake all
//! ```
//! An end that does not use its role stands by: for a use that comes when the role's word is free,
//! or names a dead process. Its operations wait until then. It keeps the role from being gone, as
//! every end of a channel does, and so it is what a successor must have *before* the user of the
//! role dies.
//!
//! A side asks whether the other role is GONE, or the ring closed, when it has run out of slots
//! that it knows to be its own. A receiver asks first and looks for messages then, so it finds all
//! that was sent before. A sender asks when it has used up the slots that it knew to be free, so it
//! may send up to `capacity` messages that nobody receives.
//!
//! `close` makes the ring CLOSED for both. A sender in another process may not have asked yet. So
//! the first receiver that finds the closed ring empty makes it DRAINED, and what comes after that
//! is not received, by it or by a successor: `Closed` is final.
//!
//! # Peer death
//! A role whose user is dead, or has given it up, is free for another end. What the last user
//! published or released stands in the ring's words, and its successor goes on from there.
//!
//! | killed | left | outcome |
//! |---|---|---|
//! | between bit and version | a bit | cleared by whoever clears up after it |
//! | with the role | the word names it, and a bit | the other side waits in slices, asks the kernel, clears the bit; no other bit: GONE. An end that stands by takes the word |
//! | between word and bit, in a drop | a bit | as the first |
//! | between bit and GONE, in a drop | no bit | whoever waits concludes at the end of its slice |
//! | after GONE or CLOSED, before the wake-up | sleepers | they look at the end of their slice |
//!
//! A process that asks and is killed has changed nothing but these words.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserializer, Serializer};

use crate::object::attempt::{self, Attempt, Blocked, Limit, Never, Until, Waiting};
use crate::object::block::ends::{self, Ends};
use crate::object::block::spsc::{Shape, SideWords, SpscBlock};
use crate::object::ends::{Channel, ChannelKey, End as Counted};
use crate::object::kind::Kind;
use crate::object::place::{HasObject, Near, Object, Place, Seat};
use crate::object::transfer::Stop;
use crate::object::witness::{self, Witness};
use crate::object::{CreateError, Handle, serial};
use crate::peer::{Fault, PeerId};
use crate::primitive::Ordering;
use crate::ring::spsc::{self, Corrupt, Side, Turn};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::event::Event;
use crate::sync::spin::Patience;

/// What the two roles do differently.
pub(super) trait Role {
    const ROLE: ends::Role;

    /// The words of a process in this role.
    fn words<T: Shm>(block: &SpscBlock<T>) -> &SideWords;

    /// Goes on where the last process in this role left off.
    fn resume<T: Shm>(block: &SpscBlock<T>) -> Result<Side, Corrupt>;

    /// How many slots this side may use; looks at the other side's word if fewer than `wanted` are
    /// known.
    fn ready<T: Shm>(side: &mut Side, block: &SpscBlock<T>, wanted: u64) -> Result<u64, Corrupt>;

    /// Whether nothing can be done any more with slots that are ready, now that the ring is closed
    /// or the other role gone.
    fn ends_at_once<T: Shm>(block: &SpscBlock<T>) -> bool;

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
    const ROLE: ends::Role = ends::Role::Sender;

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

    fn ends_at_once<T: Shm>(_block: &SpscBlock<T>) -> bool {
        true
    }

    fn event<T: Shm>(block: &SpscBlock<T>) -> &Event {
        block.space()
    }

    fn waiting<T: Shm>(shared: &Shared<T>) -> &Waiting {
        &shared.sender
    }
}

impl Role for Receiving {
    const ROLE: ends::Role = ends::Role::Receiver;

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

    fn ends_at_once<T: Shm>(block: &SpscBlock<T>) -> bool {
        block.is_drained()
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
    witness: Witness,
}

/// Why an end of role `R` will have no more slots, or none but those that are ready; `None` if it
/// may. Whoever asks first and then looks for slots sees all that there will ever be.
#[inline]
fn over<T: Shm, R: Role>(block: &SpscBlock<T>) -> Option<Stop<Never>> {
    if block.is_closed() {
        Some(Stop::Closed)
    } else if block.ends().is_gone(R::ROLE.other()) {
        Some(Stop::Disconnected)
    } else {
        None
    }
}

impl<T: Shm> Channel for Shared<T> {
    fn key(&self) -> ChannelKey {
        self.object.key()
    }

    fn ends(&self) -> Result<(PeerId, &Ends), Fault> {
        let place = self.object.enter()?;
        Ok((place.peer(), place.block().ends()))
    }

    fn is_in_flight(&self, role: ends::Role) -> bool {
        let Ok(holder) = self.object.holder() else { return false };
        witness::is_in_flight(&self.object, &holder, role)
    }

    fn close(&self) {
        if let Ok(place) = self.object.enter() {
            wake_all(place.seat());
        }
    }
}

/// Wakes all who wait.
fn wake_all<T: Shm>(seat: Seat<SpscBlock<T>>) {
    seat.event(seat.block.items()).notify_all();
    seat.event(seat.block.space()).notify_all();
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
        let receiver = Waiting::new(Patience::new());
        Arc::new(Shared { object, sender, receiver, witness: Witness::new() })
    }

    /// Whether nobody has an end of the role any more that `R` waits for. Asks the kernel.
    fn others_have_gone<R: Role>(&self, seat: Seat<SpscBlock<T>>) -> bool {
        let others = R::ROLE.other();
        let gone = self.witness.others_have_gone(&self.object, seat.block.ends(), others);
        if gone {
            wake_all(seat);
        }
        gone
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
///   is its only end that uses the role, `side` is its view, and `counted` counts here.
/// - `near` is looked up only by the `holder`.
pub(super) struct End<T: Shm, R: Role> {
    near: Near<SpscBlock<T>, Shared<T>>,
    role: HeldRole<R>,
    /// Dropped after the role was given back, so a role that somebody uses is never gone.
    counted: Counted,
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
    /// The first end of this role in a new ring.
    pub(super) fn first(shared: Arc<Shared<T>>) -> Result<End<T, R>, Fault> {
        let counted = Counted::first(Arc::<Shared<T>>::clone(&shared), R::ROLE)?;
        End::new(shared, counted, Wait::default())?.taking_the_role()
    }

    /// An end of a ring that was opened, with the role, which must be free, or its user dead.
    pub(super) fn opened(shared: Arc<Shared<T>>) -> Result<End<T, R>, Fault> {
        End::standing_by(shared)?.taking_the_role()
    }

    /// An end of a ring that was opened. It takes the role when it is used.
    fn standing_by(shared: Arc<Shared<T>>) -> Result<End<T, R>, Fault> {
        let counted = Counted::opened(Arc::<Shared<T>>::clone(&shared), R::ROLE)?;
        End::new(shared, counted, Wait::default())
    }

    /// Another end, which takes the role when it is used.
    pub(super) fn another(&self) -> Result<End<T, R>, Fault> {
        End::new(Arc::clone(self.near.shared()), self.counted.another(), self.wait)
    }

    fn new(shared: Arc<Shared<T>>, counted: Counted, wait: Wait) -> Result<End<T, R>, Fault> {
        let role = HeldRole { holder: 0, side: Side::NONE, role: PhantomData };
        Ok(End { near: Near::new(shared)?, role, counted, wait })
    }

    /// Takes the role without waiting.
    fn taking_the_role(mut self) -> Result<End<T, R>, Fault> {
        let shared = self.near.owner();
        let (place, role, counted) = (shared.object.enter()?, &mut self.role, &self.counted);
        let taking = Using { shared, place, role, counted, wanted: 0 };
        match attempt::once(&shared.object, taking) {
            Ok(Ok(_)) => Ok(self),
            Ok(Err(Stop::Broken(fault))) => Err(fault),
            Ok(Err(Stop::Closed | Stop::Disconnected | Stop::Late(_))) | Err(_) => {
                Err(Fault::RoleTaken)
            }
        }
    }

    /// Encodes the end: for a message of this crate, which then holds it, or as the ring's name.
    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.near.owner().object();
        // The ring lasts as long as one of its ends.
        let keep = Arc::new(self.counted.another());
        serial::serialize(object, &keep, R::ROLE.in_flight(), serializer)
    }

    /// Decodes an end of this role. It takes the role when it is used.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<End<T, R>, D::Error> {
        serial::deserialize(deserializer, |segment, handle, in_flight| {
            if ![0, R::ROLE.in_flight()].contains(&in_flight) {
                return Err(Fault::WrongType);
            }
            End::standing_by(Shared::open(segment, handle)?)
        })
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
            self.wait_for_slot(until).inspect_err(|stop| {
                // What is over stays so. From now on each operation comes here, and asks first.
                if !matches!(stop, Stop::Late(_)) {
                    self.near.leave();
                }
            })?;
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
        if R::ROLE == ends::Role::Sender && over::<T, R>(&seat.block).is_some() {
            return false;
        }
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
        let (role, counted) = (&mut self.role, &self.counted);
        let mut using = Using { shared, place, role, counted, wanted: 1 };
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

    /// Closes the ring for both sides.
    pub(super) fn close(&mut self) {
        if let Ok(place) = self.near.owner().object().enter() {
            place.block().close();
            wake_all(place.seat());
        }
        // A sender must not go on with the free slots that it knows.
        self.near.leave();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.near.owner().object().enter().is_ok_and(|place| place.block().is_closed())
    }

    /// Whether all ends of the other role are gone. Asks the kernel no more often than an operation
    /// that does not wait.
    pub(super) fn is_disconnected(&self) -> bool {
        let shared = self.near.owner();
        let place = match shared.object.enter() {
            Ok(place) => place,
            // A ring that is gone has no ends, as for a channel.
            Err(fault) => return fault == Fault::Stale,
        };
        let ends = place.block().ends();
        // Of its own role only a copy can say so that was not captured at a fork.
        ends::Role::BOTH.iter().any(|&role| ends.is_gone(role))
            || R::waiting(shared).may_ask() && shared.others_have_gone::<R>(place.seat())
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
    shared: &'a Shared<T>,
    counted: &'a Counted,
    place: &'a Place<SpscBlock<T>>,
    role: &'a mut HeldRole<R>,
    /// How many slots to find; 0 only takes the role.
    wanted: u64,
}

impl<T: Shm, R: Role> Using<'_, T, R> {
    /// Whether the end counts in this process, so that its role cannot be gone.
    fn counts(&self) -> Result<bool, Fault> {
        let me = self.place.peer().to_bits();
        if !self.counted.counts_for(me) {
            self.counted.count()?;
        }
        Ok(self.counted.counts_for(me))
    }

    /// Looks for slots; takes the role first if need be.
    fn find(&mut self) -> Result<Result<u64, Stop<Never>>, Blocked<PeerId>> {
        let block = self.place.seat().block;
        let corrupt = Ok(Err(Stop::Broken(Fault::Corrupt)));
        while self.role.side(self.place).is_none() {
            match self.counts() {
                Ok(true) => {}
                // A copy that was not captured at a fork, and all others are gone.
                Ok(false) => return Ok(Err(Stop::Disconnected)),
                Err(fault) => return Ok(Err(Stop::Broken(fault))),
            }
            // Relaxed: the swap looks again.
            let holder = R::words(&block).role.load(Ordering::Relaxed);
            match PeerId::from_bits(holder) {
                None if holder == 0 => match self.take_role(0) {
                    Ok(_) => {}
                    Err(fault) => return Ok(Err(Stop::Broken(fault))),
                },
                None => return corrupt,
                // The end stands by. Or after a fork: the parent has not dropped its copy yet.
                Some(peer) => return Err(Blocked::Behind(peer)),
            }
        }
        match self.role.side(self.place).map(|side| R::ready(side, &block, self.wanted)) {
            Some(Ok(0)) if self.wanted > 0 => Err(Blocked::Nobody),
            Some(Ok(count)) => Ok(Ok(count)),
            Some(Err(Corrupt)) | None => corrupt,
        }
    }

    /// The end has come: for a receiver of a closed ring, for good.
    fn end(&self, stop: Stop<Never>) -> Result<u64, Stop<Never>> {
        let block = self.place.seat().block;
        if R::ROLE == ends::Role::Receiver && stop == Stop::Closed && !block.is_drained() {
            block.set_drained();
        }
        Err(stop)
    }

    /// Takes the role from `holder`, as its word names it; 0 if it is free. False if it has
    /// changed.
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

    fn attempt(&mut self, look: bool) -> Result<Self::Done, Blocked<PeerId>> {
        if self.wanted == 0 {
            return self.find();
        }
        let seat = self.place.seat();
        let mut asked = false;
        loop {
            // Before the look at the slots.
            let over = over::<T, R>(&seat.block);
            if let Some(stop) = over
                && R::ends_at_once(&seat.block)
            {
                return Ok(self.end(stop));
            }
            let blocked = match self.find() {
                Ok(found) => return Ok(found),
                Err(blocked) => blocked,
            };
            return match over {
                // Nothing was found that is ours, or for the one behind whom we stand by.
                Some(stop) if blocked == Blocked::Nobody || seat.block.is_empty() => {
                    Ok(self.end(stop))
                }
                // The user of the role takes what is left, or dies and leaves it to us.
                Some(_) => Err(blocked),
                None if !look && blocked == Blocked::Nobody => Err(Blocked::Perhaps),
                None if !look => Err(blocked),
                // Once: words that somebody has written over may never say what was concluded.
                None if !asked && self.shared.others_have_gone::<R>(seat) => {
                    asked = true;
                    continue;
                }
                None => Err(blocked),
            };
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
        if let Some(place) = self.near.owner().object().known()
            && self.role.holder == place.peer().to_bits()
        {
            // Release pairs with the Acquire in `take_role`: the successor sees our last index.
            let seat = place.seat();
            let role = &R::words(&seat.block).role;
            let me = place.peer().to_bits();
            let _ = role.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
            // Those that stand by wait for the same as we did.
            seat.event(R::event(&seat.block)).notify_all();
        }
    }
}
