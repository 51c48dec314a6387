//! A segment of a few words, at addresses of the arena.

#[path = "../../../src/segment/error.rs"]
pub(crate) mod error;
#[path = "../../../src/segment/extents.rs"]
pub(crate) mod extents;
pub(crate) mod layout;
#[path = "../../../src/segment/pod.rs"]
pub(crate) mod pod;
pub(crate) mod region;

use std::sync::Arc;

pub(crate) use error::SegmentError;
pub(crate) use pod::Shm;

use region::Mapping;

/// The one segment, as a process has it.
#[derive(Clone, Debug)]
pub struct Segment {
    mapping: Arc<Mapping>,
}

impl From<Arc<Mapping>> for Segment {
    fn from(mapping: Arc<Mapping>) -> Segment {
        Segment { mapping }
    }
}

impl Segment {
    pub(crate) fn of(mapping: Mapping) -> Segment {
        Segment { mapping: Arc::new(mapping) }
    }

    /// For unit tests in the crate's files, which do not run here.
    pub(crate) fn create(_len: u64) -> Result<Segment, SegmentError> {
        Segment::commons()
    }

    pub(crate) fn commons() -> Result<Segment, SegmentError> {
        Ok(Segment::of(Mapping::new(0)))
    }

    pub(crate) fn len(&self) -> u64 {
        self.mapping.layout().budget()
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}
