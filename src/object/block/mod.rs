//! The contents of the block of each kind of object, and their recovery when an owner dies.
//!
//! A new kind has its file here, a name in [`kind`], and an arm in [`recover`].

pub(crate) mod arc;
pub(crate) mod ends;
pub(crate) mod event;
mod line;
pub(crate) mod lock;
pub(crate) mod queue;
pub(crate) mod spsc;
pub(crate) mod value;

use crate::heap::block::Carrier;
use crate::heap::pool::Attached;
use crate::heap::{BlockId, Pool};
use crate::object::kind::{self, Cargo, Kind};
use crate::peer::footprint::Cards;
use crate::peer::table::State;

pub(crate) use line::MOST_ALIGN;

/// Ends every claim that the dead `owner` has in the object. Blocks with invalid contents are left
/// alone. True if a message was given up that may have carried blocks, which are stranded now.
pub(crate) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) -> bool {
    match Kind::of(object.kind) {
        Some(
            Kind::Queue
            | Kind::Bytes
            | Kind::Objects
            | Kind::PlainChannel
            | Kind::BytesChannel
            | Kind::ObjectsChannel
            | Kind::Owners
            | Kind::OwnersChannel,
        ) => return queue::recover(pool, object, owner),
        Some(Kind::Lock) => lock::recover(pool, object, owner),
        Some(Kind::Spsc) => spsc::recover(pool, object, owner),
        // Never shared.
        Some(Kind::Parcel | Kind::Flight | Kind::Boxed | Kind::Slice | Kind::Text) => {}
        Some(Kind::Value) => value::recover(pool, object, owner),
        // Nobody owns an event, or what is only read.
        Some(Kind::Event | Kind::Arc | Kind::ArcSlice) => {}
        None => {}
    }
    false
}

/// What kind of queue an object is, if it is one.
fn queue_of(object: Attached) -> Option<kind::Queue> {
    Kind::of(object.kind)?.queue()
}

/// Frees what an object holds that is about to be freed itself, in the name of `owner`. True if
/// flights were among it, so that what they held may be unheld now.
pub(crate) fn empty(pool: &Pool<'_>, object: Attached, owner: u32) -> bool {
    match queue_of(object).map(|queue| queue.cargo) {
        Some(Cargo::Messages) => queue::empty(pool, object, owner),
        Some(Cargo::Values) if queue::is_empty(pool, object) => false,
        Some(Cargo::Values) => {
            let is_mine = |carrier: Carrier| {
                carrier.block == object.id.to_bits() && carrier.generation == object.generation
            };
            pool.discard_all(owner, Cards::ALL, is_mine, |held| conclude(pool, held))
        }
        Some(Cargo::Nothing) | None => false,
    }
}

/// Ends a channel or a ring of two if nobody has the ends of a role any more. For use after an end
/// in a message was given up, which still holds the object.
pub(crate) fn conclude(pool: &Pool<'_>, object: Attached) {
    if queue_of(object).is_some_and(|queue| queue.has_ends) {
        queue::conclude(pool, object);
    } else if Kind::of(object.kind) == Some(Kind::Spsc) {
        spsc::conclude(pool, object);
    }
}

/// Whether the slot that `carrier` names is still in that lap, or the process is still there, or is
/// still to come, to which its child returns or its parent gives something, so that what is carried
/// can be received.
pub(crate) fn carries(pool: &Pool<'_>, carrier: Carrier) -> bool {
    if let Some(parent) = carrier.receiver() {
        let entry = pool.peers().and_then(|peers| peers.load(parent.index()));
        return entry.is_some_and(|entry| {
            entry.generation() == parent.generation()
                && matches!(entry.state(), State::Reserved(_) | State::Joining(_) | State::Live(_))
        });
    }
    let container = || pool.shared(BlockId::from_bits(carrier.block)?, carrier.generation);
    let carries = container().is_some_and(|object| {
        queue_of(object).is_some_and(|queue| queue.cargo != Cargo::Nothing)
            && queue::carries(pool, object, carrier.position)
    });
    // The container last: if it is gone by now, then what was read as its slot was none.
    carries && container().is_some()
}
