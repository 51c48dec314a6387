//! Handles as serde values: not in a model, whose messages are made by hand.

use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserializer, Serializer};

use crate::heap::flight::Name;
use crate::object::Handle;
use crate::object::place::{Block, Object};
use crate::peer::Fault;
use crate::segment::Segment;

pub(crate) struct Passenger {
    pub(crate) name: Name,
}

pub(crate) struct Load {
    pub(crate) file: u64,
    pub(crate) passengers: Vec<Passenger>,
}

pub(crate) type Listed = (Segment, Vec<Name>);

pub(crate) fn pack<B: Block, T>(
    _queue: &Object<B>,
    encode: impl FnOnce() -> T,
) -> (T, Vec<Passenger>, Option<String>) {
    (encode(), Vec::new(), None)
}

pub(crate) fn unpack<B: Block, T>(
    _queue: &Object<B>,
    _names: &[Name],
    decode: impl FnOnce() -> T,
) -> (T, Option<String>) {
    (decode(), None)
}

pub(crate) fn serialize<B: Block, K: 'static, S: Serializer>(
    _object: &Object<B>,
    _keep: &Arc<K>,
    _role: u32,
    _serializer: S,
) -> Result<S::Ok, S::Error> {
    Err(S::Error::custom("not in a model"))
}

pub(crate) fn deserialize<'de, T, D: Deserializer<'de>>(
    _deserializer: D,
    _open: impl FnOnce(&Segment, Handle, u32) -> Result<T, Fault>,
) -> Result<T, D::Error> {
    Err(D::Error::custom("not in a model"))
}

impl Handle {
    pub(crate) fn find_segment(&self) -> Option<Segment> {
        Segment::commons().ok()
    }
}
