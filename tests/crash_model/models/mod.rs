//! What is explored: each object, in configurations small enough to visit every state.

pub mod arguments;
pub mod boxes;
pub mod carried;
pub mod controls;
pub mod ends;
pub mod event;
pub mod extents;
pub mod flight;
pub mod found;
pub mod heap;
pub mod lock;
pub mod parcel;
pub mod peers;
pub mod queue;
pub mod result;
pub mod spsc;
pub mod value;

use crate::heap::pool::Attached;
use crate::heap::{BlockId, Pool};
use crate::object::block;
use crate::object::place::HANDLE;
use crate::peer::PeerId;
use crate::segment::layout::OBJECT;
use crate::segment::region::Mapping;

/// What the reaper does with the object, of this kind and length, that the dead held.
fn recover(kind: u64, len: u64, dead: usize) {
    let mapping = Mapping::new(0);
    let region = mapping.region().expect("a region");
    let id = BlockId::from_bits(HANDLE.block).expect("a block");
    block::recover(
        &Pool::new(&mapping, region),
        Attached { id, generation: 0, kind, offset: OBJECT, len },
        PeerId::new(dead as u32, 0).owner(),
    );
}
