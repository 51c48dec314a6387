//! The objects that a message holds while it is on its way.
//!
//! ```text
//! sender, which holds the objects                   receiver
//!   make the flight, a list of them: OWNED(s)         claim the slot: READING(l, r)
//!   claim a slot: WRITING(l, s)                       the flight is CARRIED by this slot? read it
//!   the flight is carried by (slot, l): CARRIED       open the objects: set the bits, change the words
//!   publish: FULL(l)                                  release the slot: EMPTY(l+1)
//!   drop its handles                                  the flight is stranded: OWNED(r) -> FREE
//!                                                     free what is unheld now
//! ```
//! What a child [returns](super::result) carries its flights in place of a slot.
//!
//! A flight is a block of the message like a [parcel](super::parcel), and what is said there of
//! deaths is true of it as well. Why an object lives as long as a flight lists it is said in
//! [`heap::flight`](crate::heap::flight).

use std::cell::Cell;

use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::owned::Owned;
use crate::heap::pool::{Attached, Carried};
use crate::heap::{AllocError, Pool};
use crate::object::block;
use crate::object::holding::Holder;
use crate::object::kind::Kind;
use crate::object::parcel::Envelope;
use crate::peer::PeerId;
use crate::peer::footprint::Cards;

/// A flight that this process has made. Dropped before it is carried, it is given back.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    holder: Holder<'a>,
    /// `None` once it is carried.
    owned: Option<Owned<'a>>,
}

impl<'a> Flight<'a> {
    /// Lists these objects, which this process holds. It must hold them until the flight is sent or
    /// dropped.
    pub(crate) fn new(holder: &Holder<'a>, names: &[Name]) -> Result<Flight<'a>, AllocError> {
        let make = || holder.pool().make_flight(holder.me, Kind::Flight.named::<()>(), names);
        let owned = match make() {
            Err(error) if holder.make_room(&error) => make(),
            other => other,
        };
        Ok(Flight { holder: *holder, owned: Some(owned?) })
    }

    /// Hands the flight over to the slot of `carrier`, which this process has claimed for writing.
    /// `None` if somebody has written over its word; the flight is lost then.
    pub(crate) fn carry(mut self, carrier: Carrier) -> Option<Carried> {
        self.holder.pool().carry(&self.owned.take()?, carrier)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(owned) = self.owned.take() {
            self.holder.pool().give_back(&owned);
        }
    }
}

/// The flight of a received message.
#[derive(Debug)]
pub(crate) struct Arrived {
    carried: Carried,
    carrier: Carrier,
    names: Vec<Name>,
}

impl Arrived {
    /// Finds the flight that `envelope` names, in a slot that this process has claimed for reading.
    /// `None` if the slot does not carry such a block.
    pub(crate) fn find(
        holder: &Holder<'_>,
        envelope: &Envelope,
        carrier: Carrier,
    ) -> Option<Arrived> {
        let carried = envelope.flight()?;
        let names = holder.pool().flight(carried, carrier, holder.me.owner())?;
        Some(Arrived { carried, carrier, names })
    }

    /// What it lists. As long as this process has the slot, it holds that.
    pub(crate) fn names(&self) -> &[Name] {
        &self.names
    }

    /// Gives the flight back, after the slot was released, and frees what was held by it alone.
    pub(crate) fn discard(self, holder: &Holder<'_>) {
        let pool = holder.pool();
        let conclude = |object| block::conclude(&pool, object);
        pool.discard(self.carried, self.carrier, holder.me.owner(), conclude);
        settle(&pool, holder.me, |empty| {
            for name in &self.names {
                pool.let_go(*name, holder.me, empty);
            }
        });
    }
}

/// Does what may free objects, and afterwards frees those that were held by messages in them alone.
/// `act` passes on what it is given: it frees what an object holds that is about to be freed.
pub(crate) fn settle<T>(
    pool: &Pool<'_>,
    me: PeerId,
    act: impl FnOnce(&dyn Fn(Attached)) -> T,
) -> T {
    let flights = Cell::new(false);
    let empty = |object| flights.set(block::empty(pool, object, me.owner()) | flights.get());
    let done = act(&empty);
    // One after the other, so that a chain of queues in each other's messages needs no stack.
    while flights.take() {
        pool.free_unheld(me, empty);
    }
    done
}

/// Frees what only flights held that are gone by now.
pub(crate) fn settle_all(pool: &Pool<'_>, me: PeerId) {
    settle(pool, me, |empty| pool.free_unheld(me, empty));
}

/// Gives back what messages carried, on these cards, that nobody can receive any more. As
/// [`Pool::sweep`].
pub(crate) fn sweep(pool: &Pool<'_>, me: PeerId, cards: Cards) -> (usize, bool) {
    let carries = |carrier| block::carries(pool, carrier);
    pool.sweep(me, cards, carries, |object| block::conclude(pool, object))
}
