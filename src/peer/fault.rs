//! Why an object cannot be used.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::error::{self, OsError, Word};

/// Reason why an object cannot be used, by this process or by any.
///
/// Trying again does not help, except after [`Fault::TooManyPeers`] and [`Fault::RoleTaken`], once
/// another process has left.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// The object's bytes in the segment contain a value that this crate never writes: some process
    /// has overwritten them.
    Corrupt,
    /// The object is gone, or this role of a channel or ring: every process that had it dropped it,
    /// or died, before this one attached. That happens with a handle that keeps nothing alive: the
    /// bytes of a [`Handle`](crate::Handle) whose sender dropped the object, or a handle inherited
    /// through a `fork` by foreign code.
    Stale,
    /// The object is of another kind, or holds values of another type.
    WrongType,
    /// A living process already holds this end of the ring.
    RoleTaken,
    /// The segment's peer table is full of living processes.
    TooManyPeers,
    /// This process runs in another pid namespace than the segment's peers, and could not tell
    /// which of them are alive.
    ForeignNamespace,
    /// A system call that attaching needs failed: for example because the descriptor was closed,
    /// address space is limited, or a sandbox forbids it.
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// The error number that the kernel returned.
        errno: i32,
    },
    /// The value that was to be sent owns memory in another segment than the queue's. The queue can
    /// be used.
    OtherSegment,
    /// This process can only read the segment ([`Builder::read_only`](crate::Builder::read_only)),
    /// and there only the shared values that its arguments contained.
    ReadOnly,
}

/// Prints one line, the text and its causes, because a `main` that returns the error prints this.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl From<OsError> for Fault {
    fn from(error: OsError) -> Fault {
        Fault::Os { call: error.call, errno: error.errno.raw_os_error() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Corrupt => f.write_str("the object's shared memory is corrupt: make a new one"),
            Fault::Stale => f.write_str(
                "the object is gone: all its holders dropped it before this process attached",
            ),
            Fault::WrongType => f.write_str("the object is of another kind or holds another type"),
            Fault::OtherSegment => {
                f.write_str("the value's memory lies in another segment than the queue")
            }
            Fault::ReadOnly => f.write_str(
                "this process can only read the segment: of its objects it has the shared values \
                 that its arguments contained",
            ),
            Fault::RoleTaken => f.write_str("a living process has this end of the ring"),
            Fault::TooManyPeers => {
                f.write_str("the segment's peer table is full: too many processes are attached")
            }
            Fault::ForeignNamespace => f.write_str("the segment belongs to another pid namespace"),
            Fault::Os { call, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "this process could not attach to the segment: {call} failed: {error}")
            }
        }
    }
}

impl std::error::Error for Fault {}
