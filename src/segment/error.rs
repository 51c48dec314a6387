//! Errors of creating or opening a segment.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::error::{self, OsError, Word};

/// Error of creating or opening a [`Segment`](crate::Segment). Nothing was changed.
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SegmentError {
    /// The requested length is zero or too large.
    #[error("a segment cannot hold {len} bytes of objects: ask for 1 to {largest}")]
    Length {
        /// Requested length in bytes.
        len: u64,
        /// Largest length that is allowed, in bytes.
        largest: u64,
    },
    /// The commons exist already, so their length can no longer be chosen.
    #[error(
        "the commons exist already: choose their size before the first object and the first child"
    )]
    CommonsExist,
    /// The file is too short to be a segment.
    #[error(
        "the file has {found} bytes, fewer than a segment's header: it is empty or was truncated"
    )]
    Truncated {
        /// Size of the file in bytes.
        found: u64,
    },
    /// The file is not a segment of this crate.
    #[error("the file is not a segment: it does not begin with the magic number")]
    Foreign,
    /// The segment was created on a machine with the opposite byte order.
    #[error("the segment was made on a machine of the other byte order")]
    ByteOrder,
    /// The segment was created by an incompatible version of the crate.
    #[error(
        "the segment has format version {found}, this build understands {expected}: use the same \
         version in all programs"
    )]
    Version {
        /// Format version of the segment.
        found: u32,
        /// Format version of this build.
        expected: u32,
    },
    /// The segment has another layout than this build would give it.
    #[error(
        "the segment has layout {found:#018x}, this build expects {expected:#018x}: use the same \
         version in all programs"
    )]
    Layout {
        /// Layout fingerprint in the segment.
        found: u64,
        /// Layout fingerprint that this build computes.
        expected: u64,
    },
    /// The file is shorter than what is in it says.
    #[error("the segment takes {header} bytes, but the file has {file}: it was truncated")]
    WrongSize {
        /// Size that the header, or what is in use, needs.
        header: u64,
        /// Size of the file.
        file: u64,
    },
    /// A field of the header has a value that this crate never writes.
    #[error("the segment's header is corrupt: field `{field}`")]
    Corrupt {
        /// Name of the field.
        #[serde(with = "error::word")]
        field: Word,
    },
    /// The descriptor does not allow both reading and writing.
    #[error("the descriptor is not open for reading and writing: a segment needs both")]
    ReadOnly,
    /// The file belongs to another user.
    #[error(
        "the file belongs to user {owner}, not to user {user}: processes that share a segment run \
         as the same user"
    )]
    NotOurs {
        /// User id that owns the file.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Other users may write to the file.
    #[error(
        "the file has mode {mode:o}: a segment that other users can write is not safe to attach; \
         use 600"
    )]
    Exposed {
        /// Permission bits of the file.
        mode: u32,
    },
    /// The descriptor does not refer to a regular file.
    #[error("the descriptor is not a regular file")]
    NotAFile,
    /// The memfd is not sealed: it could still shrink, which would kill any process that touches
    /// the lost bytes.
    #[error("the memfd is not sealed against shrinking")]
    Unsealed,
    /// The segment lies in a file, so it cannot be sent or passed. Other processes open it by its
    /// path.
    #[error("a segment in a file is opened by its path: it is neither sent nor passed")]
    InFile,
    /// Processes of another pid namespace use the segment, and this process could not tell which of
    /// them are alive.
    #[error(
        "processes of pid namespace {segment} have the segment, and this process runs in {own}: \
         it could not judge them"
    )]
    ForeignNamespace {
        /// Number of the segment's namespace, as shown by `/proc/PID/ns/pid`; 0 if unknown.
        segment: u64,
        /// Number of this process's namespace.
        own: u64,
    },
    /// This program was not passed a segment of this name.
    #[error("no segment was passed to this program under the name {name:?}")]
    NotPassed {
        /// The requested name.
        name: String,
    },
    /// No segment came through the socket.
    #[error("no segment came through the socket: the other end was closed, or sent something else")]
    NotSent,
    /// The name cannot be part of the name of an environment variable, so no segment can be passed
    /// under it.
    #[error(
        "a segment cannot be passed under the name {name:?}: NUL and `=` are not allowed in it"
    )]
    Name {
        /// The name that was given.
        name: String,
    },
    /// The path contains a NUL byte.
    #[error("the path contains a NUL byte")]
    PathWithNul,
    /// There is not enough room for a segment of this size.
    #[error("no room for a segment of {size} bytes of address space: {}", no_room(call))]
    NoRoom {
        /// Requested address space in bytes.
        size: u64,
        /// Name of the call that failed; `getrlimit` if a limit showed beforehand that it would.
        #[serde(with = "error::word")]
        call: Word,
        /// The error that the kernel returned.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
    /// The segment in this file could not be opened or created.
    /// [`Segment::open_file`](crate::Segment::open_file) and
    /// [`create_file`](crate::Segment::create_file) return only this variant.
    #[error("no segment in the file {path:?}")]
    File {
        /// The path that was given.
        #[serde(with = "error::path")]
        path: PathBuf,
        /// The reason. Never another `File`.
        source: Box<SegmentError>,
    },
    /// A system call failed.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// The error that the kernel returned.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// Prints one line, the text and its causes, because a `main` that returns the error prints this.
impl fmt::Debug for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl SegmentError {
    /// Returns what went wrong, without the path of a [`File`](SegmentError::File).
    ///
    /// # Examples
    /// ```
    /// use offspring::{Segment, SegmentError};
    ///
    /// let error = Segment::open_file("/no/such/file").unwrap_err();
    /// assert!(matches!(error.reason(), SegmentError::Os { call: "open", .. }));
    /// assert_eq!(
    ///     format!("{error:?}"),
    ///     "no segment in the file \"/no/such/file\": open failed: \
    ///      No such file or directory (os error 2)",
    /// );
    /// ```
    pub fn reason(&self) -> &SegmentError {
        match self {
            SegmentError::File { source, .. } => source.reason(),
            reason => reason,
        }
    }

    /// Like [`reason`](SegmentError::reason), but consumes the error.
    pub fn into_reason(self) -> SegmentError {
        match self {
            SegmentError::File { source, .. } => source.into_reason(),
            reason => reason,
        }
    }

    /// For `map_err`: adds the path of the file.
    pub(crate) fn in_file(path: &Path) -> impl FnOnce(SegmentError) -> SegmentError {
        move |reason| SegmentError::File { path: path.to_owned(), source: Box::new(reason) }
    }

    /// The error for a call that failed while a segment of `size` bytes of address space was
    /// created.
    pub(crate) fn of_size(size: u64, refused: OsError) -> SegmentError {
        match refused.call {
            "getrlimit" | "ftruncate" | "mmap" => {
                SegmentError::NoRoom { size, call: refused.call, source: refused.into() }
            }
            _ => refused.into(),
        }
    }
}

fn no_room(call: &str) -> String {
    match call {
        "getrlimit" => String::from("by getrlimit this process may have less (see `ulimit -a`)"),
        call => format!("{call} failed"),
    }
}

impl From<OsError> for SegmentError {
    fn from(error: OsError) -> SegmentError {
        SegmentError::Os { call: error.call, source: error.into() }
    }
}
