//! What can go wrong when a segment is made or opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::error::{self, OsError, Word};

/// Error of making or opening a [`Segment`](crate::Segment). Whatever it is, nothing was changed.
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SegmentError {
    /// The length asked for is zero or cannot be laid out.
    #[error("a segment cannot hold {len} bytes of objects: ask for 1 to {largest}")]
    Length {
        /// Bytes that were asked for.
        len: u64,
        /// The most that can be asked for.
        largest: u64,
    },
    /// The commons were made already, so their size can no longer be chosen.
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
    /// The segment was made on a machine of the other byte order.
    #[error("the segment was made on a machine of the other byte order")]
    ByteOrder,
    /// The segment was made by another version of the crate.
    #[error(
        "the segment has format version {found}, this build understands {expected}: use the same version in all programs"
    )]
    Version {
        /// Version in the segment.
        found: u32,
        /// Version of this build.
        expected: u32,
    },
    /// This build would lay the segment out differently.
    #[error(
        "the segment has layout {found:#018x}, this build expects {expected:#018x}: use the same version in all programs"
    )]
    Layout {
        /// Fingerprint in the segment.
        found: u64,
        /// Fingerprint of this build.
        expected: u64,
    },
    /// The file's size is not what its header says.
    #[error(
        "the segment was made with {header} bytes, but the file has {file}: it was truncated or extended"
    )]
    WrongSize {
        /// Size in the header.
        header: u64,
        /// Size of the file.
        file: u64,
    },
    /// A field of the header has a value that nobody writes.
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
        "the file belongs to user {owner}, not to user {user}: processes that share a segment run as the same user"
    )]
    NotOurs {
        /// User id that owns the file.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// The file can be written by other users.
    #[error(
        "the file has mode {mode:o}: a segment that other users can write is not safe to attach; use 600"
    )]
    Exposed {
        /// Permission bits of the file.
        mode: u32,
    },
    /// The descriptor stands for something that is not a regular file.
    #[error("the descriptor is not a regular file")]
    NotAFile,
    /// The anonymous memory could still change its size, which would kill whoever touches it.
    #[error("the memfd is not sealed against shrinking and growing")]
    Unsealed,
    /// The segment lies in a file. Others open it by its path, which tells them where it is at
    /// home.
    #[error("a segment in a file is opened by its path: it is neither sent nor passed")]
    InFile,
    /// Processes of another pid namespace have the segment, and this process could not tell which
    /// of them are alive.
    #[error(
        "processes of pid namespace {segment} have the segment, and this process runs in {own}: it could not judge them"
    )]
    ForeignNamespace {
        /// Number of the segment's namespace, as `/proc/PID/ns/pid` shows it; 0 if it is not known.
        segment: u64,
        /// Number of this process's namespace.
        own: u64,
    },
    /// This program was not passed a segment of this name.
    #[error("no segment was passed to this program under the name {name:?}")]
    NotPassed {
        /// The name that was asked for.
        name: String,
    },
    /// No segment came through the socket.
    #[error("no segment came through the socket: the other end was closed, or sent something else")]
    NotSent,
    /// A segment cannot be passed under this name, as no environment variable can have it.
    #[error(
        "a segment cannot be passed under the name {name:?}: NUL and `=` are not allowed in it"
    )]
    Name {
        /// The name that was given.
        name: String,
    },
    /// The file's path has a NUL in it.
    #[error("the path contains a NUL byte")]
    PathWithNul,
    /// There is no room for so much memory.
    #[error("no room for a segment of {size} bytes of address space: {call} failed")]
    NoRoom {
        /// Bytes of address space that were asked for.
        size: u64,
        /// Name of the call that was refused; `getrlimit` if a limit says beforehand that it would
        /// be.
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
    /// The segment in this file could not be opened or made: the error of
    /// [`Segment::open_file`](crate::Segment::open_file) and
    /// [`create_file`](crate::Segment::create_file), whatever the reason.
    #[error("no segment in the file {path:?}")]
    File {
        /// The path that was given.
        #[serde(with = "error::path")]
        path: PathBuf,
        /// The reason. Never another `File`.
        source: Box<SegmentError>,
    },
    /// The kernel refused a call.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// One line: the text and its causes. It is what a `main` prints that returns the error.
impl fmt::Debug for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl SegmentError {
    /// Returns what went wrong, without the path of the file where there is one.
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

    /// Like [`reason`](SegmentError::reason), of an error that is not needed any more.
    pub fn into_reason(self) -> SegmentError {
        match self {
            SegmentError::File { source, .. } => source.into_reason(),
            reason => reason,
        }
    }

    /// For `map_err`: says in which file it was.
    pub(crate) fn in_file(path: &Path) -> impl FnOnce(SegmentError) -> SegmentError {
        move |reason| SegmentError::File { path: path.to_owned(), source: Box::new(reason) }
    }

    /// What was refused while a segment was made that takes so many bytes of address space.
    pub(crate) fn of_size(size: u64, refused: OsError) -> SegmentError {
        match refused.call {
            "getrlimit" | "ftruncate" | "mmap" => {
                SegmentError::NoRoom { size, call: refused.call, source: refused.into() }
            }
            _ => refused.into(),
        }
    }
}

impl From<OsError> for SegmentError {
    fn from(error: OsError) -> SegmentError {
        SegmentError::Os { call: error.call, source: error.into() }
    }
}
