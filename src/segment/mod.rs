//! Memory that several processes share, and its layout.
//!
//! - `options`: how a segment is made: anonymous, in a file, or the commons of the process tree.
//! - `header`: the first page, validated at attach.
//! - `home`: the boot and the pid namespace to which a segment belongs.
//! - `layout`: where everything lies, computed from the budget.
//! - `extents`: where groups of blocks lie in the file, which grows with use.
//! - `region`: the mapping; the only file that turns offsets into references.
//! - `residence`: how memory is kept: allocated in advance, in large pages, locked.
//! - `pod`: which types may live there.
//! - `registry`: the segments that this process has open.
//! - `pass`: sending a segment to a process, or passing it to a program.

mod backing;
pub(crate) mod commons;
pub(crate) mod error;
mod extents;
mod header;
pub(crate) mod home;
pub(crate) mod layout;
mod options;
mod pass;
pub(crate) mod pod;
pub(crate) mod region;
pub(crate) mod registry;
mod residence;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub use error::SegmentError;
pub use options::SegmentOptions;
pub use pod::Shm;

pub(crate) use region::Deed;
use region::Mapping;

/// A piece of shared memory that holds objects.
///
/// Most programs never need to name one: objects live in [the commons](Segment::commons) by
/// default. Make a segment for processes that do not descend from one another: one process creates
/// it in a file, [sends](Segment::send) it or [passes](Segment::pass_to) it, and the other opens
/// it.
///
/// A clone is another handle to the same segment. Opening a segment twice in one process maps it
/// only once.
///
/// # Memory
/// A segment reserves a little more than twice its length of address space, and up to 34 times as
/// much if that is no more than 4 GiB. Only what was ever used of it takes memory, and its file is
/// only as long as that. So `mlockall` allocates what was used, in pieces of at most 1 MiB for each
/// size of objects. [`SegmentOptions`] allocates memory in advance, locks it, or asks for large
/// pages.
///
/// # Peer death
/// The kernel frees an anonymous segment when the last process that has it ends, also after
/// `kill -9`. A file stays until it is removed. Only the kernel decides whether a process is dead;
/// [docs/liveness.md](https://docs.rs/crate/offspring/latest/source/docs/liveness.md) lists how it
/// is asked. A process counts as alive when that cannot be found out.
///
/// # Fork
/// The handle can be used in the child, which attaches on first use. The child does not inherit the
/// mapping: an address in the parent's mapping means nothing in the child. A process made by a bare
/// system call instead of libc's `fork` cannot use any segment if something else was mapped where
/// its parent has one.
///
/// # Examples
/// ```
/// use offspring::{Queue, Segment};
///
/// let segment = Segment::create(1 << 20)?;
/// let queue = Queue::<u64>::with_capacity_in(&segment, 16)?;
/// queue.send(7)?;
/// assert_eq!(queue.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Segment {
    mapping: Arc<Mapping>,
}

impl Segment {
    /// Creates an anonymous segment for `len` bytes of objects. It is sealed against getting
    /// shorter, has mode 600, and its descriptor is close-on-exec.
    ///
    /// This reserves address space of a little more than twice `len`, or up to 4 GiB. Memory is
    /// allocated only as objects are created.
    ///
    /// # Errors
    /// [`SegmentError::Length`]; [`SegmentError::NoRoom`]; [`SegmentError::Os`] if the kernel
    /// refuses a call.
    pub fn create(len: u64) -> Result<Segment, SegmentError> {
        SegmentOptions::new().len(len).create()
    }

    /// Opens an anonymous segment from its descriptor. The descriptor is duplicated, and the caller
    /// may close it afterwards.
    ///
    /// Use this for a descriptor that the program transferred by its own means. Do not keep the
    /// descriptor: writing through it changes bytes that references into the segment assume to be
    /// constant. [`Segment::receive`] and [`Segment::inherited`] do not expose a descriptor.
    ///
    /// # Errors
    /// Each kind of bad input has its own variant of [`SegmentError`]. The segment is not changed.
    pub fn open(fd: impl AsFd) -> Result<Segment, SegmentError> {
        backing::open_descriptor(fd.as_fd()).map(Segment::from)
    }

    /// Creates a segment for `len` bytes of objects in a new file at `path`, with mode 600.
    ///
    /// The file appears under its name complete or not at all. It is sparse and grows with use.
    /// Disk space for an object is allocated when the object is
    /// created. Do not keep segments on copy-on-write file systems (btrfs, and others when there
    /// are snapshots or reflinks): there a later write may need more disk space, and if there is
    /// none the process receives `SIGBUS`.
    ///
    /// The segment belongs to the boot and the pid namespace of the processes that use it. It can
    /// be opened after a reboot, and from another namespace once no process has it open any more.
    /// All processes that were attached before then count as dead.
    ///
    /// # Errors
    /// [`SegmentError::File`], with the path. Its [`reason`](SegmentError::reason) is one of the
    /// errors of [`Segment::create`], or says that the file exists already; that file is not
    /// changed.
    pub fn create_file(path: impl AsRef<Path>, len: u64) -> Result<Segment, SegmentError> {
        SegmentOptions::new().len(len).create_file(path)
    }

    /// Opens a segment in a file.
    ///
    /// Keep the file private. Any process that may write to it can also truncate it, and a process
    /// that touches the lost bytes receives `SIGBUS`. Writing to it by other means than this crate
    /// changes bytes that references assume to be constant.
    ///
    /// # Errors
    /// [`SegmentError::File`], with the path. Each kind of bad input has its own variant of
    /// [`reason`](SegmentError::reason). The file is not changed.
    ///
    /// # Examples
    /// ```
    /// use offspring::{Segment, SegmentError};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("jobs");
    /// let made = Segment::create_file(&path, 1 << 16)?;
    /// assert_eq!(Segment::open_file(&path)?.len(), made.len());
    ///
    /// std::fs::write(folder.path().join("text"), vec![b'x'; 100_000])?;
    /// let error = Segment::open_file(folder.path().join("text")).unwrap_err();
    /// assert!(matches!(error.reason(), SegmentError::Foreign));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_file(path: impl AsRef<Path>) -> Result<Segment, SegmentError> {
        let path = path.as_ref();
        backing::open_file(path).map(Segment::from).map_err(SegmentError::in_file(path))
    }

    /// Returns the commons: the anonymous segment of this process tree, where objects live by
    /// default.
    ///
    /// It is created on first use, and always before the first child, so that a whole process tree
    /// shares one. The kernel frees it when the last process of the tree ends.
    ///
    /// # Errors
    /// The same as for [`Segment::create`].
    pub fn commons() -> Result<Segment, SegmentError> {
        Segment::of_commons().cloned()
    }

    /// As [`Segment::commons`], without a count of one more handle.
    #[inline]
    pub(crate) fn of_commons() -> Result<&'static Segment, SegmentError> {
        commons::get(None)
    }

    /// Returns how many bytes of objects the segment may hold.
    ///
    /// That is one object for each 28 bytes, however small they are: each takes a place of at least
    /// 64 bytes, and there are only so many places.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of the memory, as in memmap2, not of a collection"
    )]
    pub fn len(&self) -> u64 {
        self.mapping.layout().budget()
    }

    /// Returns a random number that identifies this segment.
    pub fn id(&self) -> u64 {
        self.mapping.id()
    }

    /// Opens a segment that the parent of this process has open, from a copy of its descriptor.
    pub(crate) fn by_deed(fd: OwnedFd, deed: &Deed) -> Result<Segment, SegmentError> {
        backing::open_by_deed(fd, deed).map(Segment::from)
    }

    /// Makes this the commons of this process, if it has none yet.
    pub(crate) fn become_commons(&self) {
        commons::adopt(self.clone());
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

/// Prints the id in hexadecimal and the length, always on one line, even with `{:#?}`.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({:016x}, {} bytes)", self.id(), self.len())
    }
}

impl From<Arc<Mapping>> for Segment {
    fn from(mapping: Arc<Mapping>) -> Segment {
        Segment { mapping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_prints_its_id_and_length_on_one_line() {
        let segment = Segment::create(1 << 16).expect("a segment can be made");
        let shown = format!("Segment({:016x}, 65536 bytes)", segment.id());
        assert_eq!(format!("{segment:?}"), shown);
        assert_eq!(format!("{segment:#?}"), shown);
    }
}
