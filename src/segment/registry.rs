//! The segments that this process has open. Each is mapped once, however often it is opened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::segment::error::SegmentError;
use crate::segment::region::Mapping;
use crate::sys::descriptor::FileId;

static OPEN: Mutex<Vec<Weak<Mapping>>> = Mutex::new(Vec::new());

/// Adds a new mapping.
pub(crate) fn add(mapping: Mapping) -> Arc<Mapping> {
    add_to(&mut open(), mapping)
}

fn open() -> MutexGuard<'static, Vec<Weak<Mapping>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_to(open: &mut Vec<Weak<Mapping>>, mapping: Mapping) -> Arc<Mapping> {
    let mapping = Arc::new(mapping);
    open.retain(|entry| entry.strong_count() > 0);
    open.push(Arc::downgrade(&mapping));
    mapping
}

/// Returns the mapping of this file; calls `make` if this process has none.
pub(crate) fn find_or_add(
    file: FileId,
    make: impl FnOnce() -> Result<Mapping, SegmentError>,
) -> Result<Arc<Mapping>, SegmentError> {
    // Locked throughout, so that two threads that open the same file get the same mapping.
    let mut open = open();
    match open.iter().filter_map(Weak::upgrade).find(|mapping| mapping.file_id() == file) {
        Some(mapping) => Ok(mapping),
        None => make().map(|mapping| add_to(&mut open, mapping)),
    }
}

/// The mapping of the segment with this id, if this process has it open.
pub(crate) fn find(id: u64) -> Option<Arc<Mapping>> {
    open().iter().filter_map(Weak::upgrade).find(|mapping| mapping.id() == id)
}

/// All mappings that are still in use.
pub(crate) fn all() -> Vec<Arc<Mapping>> {
    open().iter().filter_map(Weak::upgrade).collect()
}
