//! The contents of the block of each kind of object, and their recovery when an owner dies.
//!
//! A new kind has its file here, a name in [`kind`](super::kind), and an arm in [`recover`].

pub(crate) mod event;
mod line;
pub(crate) mod lock;
pub(crate) mod queue;
pub(crate) mod spsc;
pub(crate) mod value;

use crate::heap::Pool;
use crate::heap::pool::Attached;
use crate::object::kind::Kind;

pub(crate) use line::MOST_ALIGN;

/// Ends every claim that the dead `owner` has in the object. Blocks with invalid contents are left
/// alone.
pub(crate) fn recover(pool: &Pool<'_>, object: Attached, owner: u32) {
    match Kind::of(object.kind) {
        Some(Kind::Queue) => queue::recover(pool, object, owner),
        Some(Kind::Lock) => lock::recover(pool, object, owner),
        // The next process takes over a dead one's role, and a ring that publishes by one store has
        // nothing to recover.
        Some(Kind::Spsc) => {}
        Some(Kind::Value) => value::recover(pool, object, owner),
        // Nobody owns an event.
        Some(Kind::Event) => {}
        None => {}
    }
}
