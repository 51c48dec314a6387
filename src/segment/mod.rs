//! Bytes that processes agree on.
//!
//! - `options`: how a segment is made: anonymous, in a file, or the commons of the process tree.
//! - `header`: the first page, validated at attach.
//! - `home`: the boot and the pid namespace in which its processes live.
//! - `layout`: where everything lies, computed from the budget.
//! - `region`: the mapping, and the one place where offsets become references.
//! - `pod`: which types may live there.
//! - `registry`: what this process has open.
//! - `pass`: how a segment gets to other processes.

mod backing;
pub(crate) mod commons;
pub(crate) mod error;
mod header;
pub(crate) mod home;
pub(crate) mod layout;
mod options;
mod pass;
pub(crate) mod pod;
pub(crate) mod region;
pub(crate) mod registry;

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

pub use error::SegmentError;
pub use options::SegmentOptions;
pub use pod::Shm;

use region::Mapping;

/// Memory that several processes share, with objects in it.
///
/// Most programs never name one: objects live in [the commons](Segment::commons) by default. A
/// segment of its own is for processes that are not of one family: one makes it in a file, or
/// [sends](Segment::send) or [passes](Segment::pass_to) it, the other opens it.
///
/// Cloning gives another handle of the same segment. Opening a segment twice in a process gives the
/// same mapping.
///
/// # Locked memory
/// A segment reserves address space for many times its length, 21 times at least, and has pages for
/// what is used. `mlockall` makes pages for all of it: 270 GiB for the commons of the default size,
/// which is more than most machines have, so that the kernel kills processes. A program that locks
/// its memory chooses a small length first ([`SegmentOptions::commons`]), or locks what is touched
/// only, by `MCL_ONFAULT`.
///
/// # Peer death
/// Anonymous segments vanish with the last process that has them, also after `kill -9`. A file
/// stays until it is removed. Who is dead is for the kernel to say, in ways that
/// [docs/liveness.md](https://docs.rs/crate/offspring/latest/source/docs/liveness.md) lists: what
/// cannot be found out about a process counts as alive.
///
/// # Fork
/// Usable in the child, which attaches at its first use. The mapped bytes themselves are not
/// inherited: an address of the parent's means nothing in the child. A process that was made by a
/// bare system call instead of libc's `fork` can use no segment if something came to lie where its
/// parent has one.
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
    /// Makes an anonymous segment for `len` bytes of objects, sealed against any change of size,
    /// mode 600, close-on-exec.
    ///
    /// Address space of many times `len` is reserved, and pages only as objects are made.
    ///
    /// # Errors
    /// [`SegmentError::Length`], [`SegmentError::NoRoom`], or what the kernel refused.
    pub fn create(len: u64) -> Result<Segment, SegmentError> {
        SegmentOptions::new().len(len).create()
    }

    /// Opens an anonymous segment by a descriptor of it, which is duplicated and may be closed
    /// afterwards.
    ///
    /// This is for descriptors that came by a way of the program's own. Keep none: whoever writes
    /// through one changes what references into the segment promise does not change.
    /// [`Segment::receive`] and [`Segment::inherited`] do without.
    ///
    /// # Errors
    /// Each kind of bad input is a variant of [`SegmentError`]; the segment is not changed.
    pub fn open(fd: impl AsFd) -> Result<Segment, SegmentError> {
        backing::open_descriptor(fd.as_fd()).map(Segment::from)
    }

    /// Makes a segment for `len` bytes of objects in a new file at `path`, mode 600.
    ///
    /// The file appears under its name complete or not at all. It is sparse: its size says nothing
    /// about the disk space it takes. Disk space for an object is taken when the object is made. On
    /// file systems that write to a new place each time (btrfs, and others when there are snapshots
    /// or reflinks) a write may need more, and when there is none the process gets `SIGBUS`: keep
    /// segments elsewhere.
    ///
    /// It belongs to the boot and the pid namespace in which its processes live. Opened after a
    /// reboot, or elsewhere once nobody has it open any more, all processes that it knows of are
    /// dead.
    ///
    /// # Errors
    /// [`SegmentError::File`] names the path; its [`reason`](SegmentError::reason) is as for
    /// [`Segment::create`]. An existing file is an error and stays as it is.
    pub fn create_file(path: impl AsRef<Path>, len: u64) -> Result<Segment, SegmentError> {
        SegmentOptions::new().len(len).create_file(path)
    }

    /// Opens a segment in a file.
    ///
    /// A file can be truncated by whoever may write it, and whoever touches the lost bytes gets
    /// SIGBUS; and whoever writes to it by other means than this crate's changes what references
    /// say does not change. Keep it private.
    ///
    /// # Errors
    /// [`SegmentError::File`] names the path; each kind of bad input is a variant of its
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

    /// The commons: the anonymous segment of this process tree, in which objects live by default.
    ///
    /// Made at the first use, and always before the first child, so that all of a family share one.
    /// The kernel frees it with the last process of the family.
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn commons() -> Result<Segment, SegmentError> {
        commons::get(None).map(Segment::from)
    }

    /// Bytes of objects that the segment may hold.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of the memory, as in memmap2, not of a collection"
    )]
    pub fn len(&self) -> u64 {
        self.mapping.layout().budget()
    }

    /// Random number that tells this segment from others.
    pub fn id(&self) -> u64 {
        self.mapping.id()
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

/// Shows the id in hexadecimal and the length, on one line also within `{:#?}` of something larger.
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
