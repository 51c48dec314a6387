//! Why an operation on a shared object could not be done at all.

use std::fmt;

/// Reason why an object cannot be used: by this process, or by anybody.
///
/// None of them goes away by trying again, except [`Fault::TooManyPeers`] and [`Fault::RoleTaken`] once another process has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The object's bytes in the segment hold what nobody writes: a process scribbled over them.
    Corrupt,
    /// The object is gone: every process that held it dropped it before this one attached. The handle came by a way that keeps
    /// nothing alive: bytes of a [`Handle`](crate::Handle) whose sender dropped the object, or a `fork` by foreign code.
    Stale,
    /// The object is of another kind, or holds values of another type.
    WrongType,
    /// A living process has this end of the ring.
    RoleTaken,
    /// The segment's peer table is full of living processes.
    TooManyPeers,
    /// This process runs in another pid namespace than the segment's peers and could not tell who is alive.
    ForeignNamespace,
    /// The kernel refused what attaching needs, with this error number: the descriptor was closed, address space is limited, or
    /// a sandbox forbids it.
    Os(i32),
}

impl Fault {
    pub(crate) fn os(error: &std::io::Error) -> Fault {
        Fault::Os(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Corrupt => f.write_str("the object's shared memory is corrupt: make a new one"),
            Fault::Stale => f.write_str("the object is gone: all its holders dropped it before this process attached"),
            Fault::WrongType => f.write_str("the object is of another kind or holds another type"),
            Fault::RoleTaken => f.write_str("a living process has this end of the ring"),
            Fault::TooManyPeers => f.write_str("the segment's peer table is full: too many processes are attached"),
            Fault::ForeignNamespace => f.write_str("the segment belongs to another pid namespace"),
            Fault::Os(number) => {
                write!(f, "this process could not attach to the segment: {}", std::io::Error::from_raw_os_error(*number))
            }
        }
    }
}

impl std::error::Error for Fault {}
