//! Owner-tagged blocks over sparse memory: what a killed process leaves can always be found and
//! given back.
//!
//! - [`block`]: a block's header and the states of its word.
//! - [`cards`]: where a process may have left something.
//! - [`charge`]: what the blocks in use are charged with.
//! - [`flight`]: blocks that hold others: what a message carries.
//! - [`holders`]: which processes hold a shared block.
//! - [`magazine`]: free blocks that a process keeps at hand.
//! - [`owned`]: a block that belongs to this process alone.
//! - [`pool`]: allocation, release, and the walk that clears up after the dead.
//! - [`stats`]: what the blocks are used for.

pub(crate) mod block;
pub(crate) mod cards;
mod charge;
pub(crate) mod flight;
pub(crate) mod holders;
mod magazine;
pub(crate) mod owned;
pub(crate) mod pool;
pub(crate) mod stats;

pub(crate) use pool::{AllocError, BlockId, Pool};
