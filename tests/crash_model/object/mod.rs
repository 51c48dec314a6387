//! Objects: the crate's own blocks and its way of clearing them; only how a process holds one is
//! the model's.

#[path = "../../../src/object/attempt.rs"]
pub(crate) mod attempt;
#[path = "../../../src/object/block/mod.rs"]
pub(crate) mod block;
#[path = "../../../src/object/carry.rs"]
pub(crate) mod carry;
#[path = "../../../src/object/cast.rs"]
pub(crate) mod cast;
pub(crate) mod ends;
#[path = "../../../src/object/error.rs"]
pub(crate) mod error;
#[path = "../../../src/object/flight.rs"]
pub(crate) mod flight;
#[path = "../../../src/object/handle.rs"]
pub(crate) mod handle;
pub(crate) mod holding;
#[path = "../../../src/object/kind.rs"]
pub(crate) mod kind;
pub(crate) mod lineage;
#[path = "../../../src/object/parcel.rs"]
pub(crate) mod parcel;
pub(crate) mod payload;
pub(crate) mod place;
#[path = "../../../src/object/reap.rs"]
pub(crate) mod reap;
#[path = "../../../src/object/result.rs"]
pub(crate) mod result;
pub(crate) mod serial;
#[path = "../../../src/object/transfer.rs"]
pub(crate) mod transfer;
#[path = "../../../src/object/witness.rs"]
pub(crate) mod witness;

pub(crate) use error::CreateError;
pub(crate) use handle::{Handle, ParseHandleError};
