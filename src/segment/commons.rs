//! The commons: one anonymous segment per process tree.

use std::sync::{Arc, Mutex, PoisonError};

use crate::segment::backing;
use crate::segment::error::SegmentError;
use crate::segment::options::DEFAULT_LEN;
use crate::segment::region::Mapping;

/// Never dropped: the commons live as long as the process. A forked child finds its parent's here.
static COMMONS: Mutex<Option<Arc<Mapping>>> = Mutex::new(None);

/// With less than this a program had better hear of it.
const SMALLEST_LEN: u64 = 1 << 20;

/// The commons, made unless they exist; a chosen length is an error if they do.
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

/// Reserves `len`, or as much of it as the address space allows.
fn reserve(len: u64) -> Result<Arc<Mapping>, SegmentError> {
    let mut len = len;
    loop {
        match backing::create_anonymous(len) {
            Err(SegmentError::NoRoom { .. }) if len / 2 >= SMALLEST_LEN => len /= 2,
            other => return other,
        }
    }
}
