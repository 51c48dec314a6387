//! Objects: the crate's own blocks and its way of clearing them; only how a process holds one is
//! the model's.

#[path = "../../../src/object/clear.rs"]
pub(crate) mod clear;
#[path = "../../../src/object/error.rs"]
pub(crate) mod error;
#[path = "../../../src/object/handle.rs"]
pub(crate) mod handle;
pub(crate) mod holding;
#[path = "../../../src/object/lock_block.rs"]
pub(crate) mod lock_block;
#[path = "../../../src/object/queue_block.rs"]
pub(crate) mod queue_block;
#[path = "../../../src/object/spsc_block.rs"]
pub(crate) mod spsc_block;

pub(crate) use error::CreateError;
pub(crate) use handle::Handle;
