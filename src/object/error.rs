//! The error of making an object.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::heap::AllocError;
use crate::peer::Fault;
use crate::segment::SegmentError;
use crate::sys::error::{self, Word};

/// Error of making an object in a segment. Nothing was changed.
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CreateError {
    /// A queue or ring has at least one slot and at most 2^24.
    #[error("a queue of {capacity} slots cannot be made: ask for 1 to {most}")]
    Capacity {
        /// Slots that were asked for.
        capacity: usize,
        /// The most that can be asked for.
        most: usize,
    },
    /// The object does not fit into what is left of the segment; or, if it is smaller than that,
    /// all [places](crate::Segment::len) are taken, by small objects.
    #[error("{}", no_room(*requested, *available))]
    OutOfMemory {
        /// Bytes that the object takes.
        requested: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// The kernel has no memory or disk space for it: a limit, or a full file system.
    #[error("no pages for {requested} bytes: {call} failed")]
    NoPages {
        /// Bytes that were asked for.
        requested: u64,
        /// Name of the call that was refused.
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
    /// The type needs a stricter alignment than values in shared memory can have.
    #[error("values aligned to {align} bytes cannot be shared: at most {most}")]
    Alignment {
        /// Alignment of the type in bytes.
        align: usize,
        /// The strictest alignment in bytes.
        most: usize,
    },
    /// The commons could not be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// This process could not attach to the segment.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// One line: the text and its causes. A `main` that returns the error prints this.
impl fmt::Debug for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

fn no_room(requested: u64, available: u64) -> String {
    if requested <= available {
        format!(
            "the segment has no place for one more object, as its objects are small, although \
             {available} bytes are left: make the segment larger"
        )
    } else {
        format!(
            "the object takes {requested} bytes, the segment has {available} left: make it smaller \
             or the segment larger"
        )
    }
}

impl From<AllocError> for CreateError {
    fn from(error: AllocError) -> CreateError {
        match error {
            AllocError::OutOfMemory { requested, available } => {
                CreateError::OutOfMemory { requested, available }
            }
            AllocError::NoPages { requested, refused } => {
                CreateError::NoPages { requested, call: refused.call, source: refused.into() }
            }
            AllocError::Corrupt => CreateError::Fault(Fault::Corrupt),
        }
    }
}
