//! The commons: one anonymous segment per process tree.

use std::sync::{Arc, Mutex, PoisonError};

use crate::segment::backing;
use crate::segment::error::SegmentError;
use crate::segment::region::Mapping;

/// Bytes of objects that a segment holds by default. Only address space is reserved for it.
pub(crate) const DEFAULT_LEN: u64 = 8 << 30;

/// Never dropped: the commons live as long as the process. A forked child inherits this variable,
/// and so its parent's commons.
static COMMONS: Mutex<Option<Arc<Mapping>>> = Mutex::new(None);

/// If there is not even this much room, an error is better than smaller commons.
const SMALLEST_LEN: u64 = 1 << 20;

/// Returns the commons, and creates them if they do not exist. Choosing a length is an error if
/// they do.
pub(crate) fn get(len: Option<u64>) -> Result<Arc<Mapping>, SegmentError> {
    let mut commons = COMMONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mapping) = &*commons {
        return if len.is_none() {
            Ok(Arc::clone(mapping))
        } else {
            Err(SegmentError::CommonsExist)
        };
    }
    let mapping = reserve(len.unwrap_or(DEFAULT_LEN))?;
    *commons = Some(Arc::clone(&mapping));
    Ok(mapping)
}

/// Reserves `len` bytes, or as much of that as the address space allows.
fn reserve(len: u64) -> Result<Arc<Mapping>, SegmentError> {
    let mut len = len;
    loop {
        match backing::create_anonymous(len) {
            Err(SegmentError::NoRoom { .. }) if len / 2 >= SMALLEST_LEN => len /= 2,
            other => return other,
        }
    }
}
