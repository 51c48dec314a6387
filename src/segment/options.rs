//! Options for creating a segment.

use std::path::Path;

use crate::segment::residence::Residence;
use crate::segment::{Segment, SegmentError, backing, commons};

/// Options for a new segment; finish with one of the `create` methods or with
/// [`commons`](SegmentOptions::commons).
///
/// # Examples
/// ```
/// use offspring::SegmentOptions;
///
/// let segment = SegmentOptions::new().len(1 << 20).create()?;
/// assert_eq!(segment.len(), 1 << 20);
/// # Ok::<(), offspring::SegmentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SegmentOptions {
    len: u64,
    residence: Residence,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions::new()
    }
}

impl SegmentOptions {
    /// Returns the default options: room for 8 GiB of objects. Memory is allocated only when it is
    /// used.
    pub fn new() -> SegmentOptions {
        SegmentOptions { len: commons::DEFAULT_LEN, residence: Residence::default() }
    }

    /// Sets how many bytes of objects the segment may hold, from 1 to 2^40.
    pub fn len(&mut self, bytes: u64) -> &mut Self {
        self.len = bytes;
        self
    }

    /// Allocates the memory of the segment in advance: when it is created, as many bytes as its
    /// length, and what the segment needs for itself. Each process maps all of it when it first
    /// uses the segment.
    ///
    /// So the first use of an object in that memory costs no page fault. Memory of freed objects
    /// stays with the segment. Before Linux 5.14 the first touch of a page is a fault.
    ///
    /// A program may need more memory than was allocated in advance, and gets that later, as if
    /// this had not been chosen. Each object takes 192 bytes beside its own, and lies in a block of
    /// 64, 128 or 256 bytes, of one of two sizes per doubling up to 4,096, or of one size per
    /// doubling beyond. Objects that fill their blocks find memory for more than nine tenths of the
    /// length; objects of 5,000 bytes, in blocks of 8,192, for somewhat more than half; objects of
    /// 64 bytes for a quarter. The first objects of a size take some of the memory for more of that
    /// size. Choose a length that is larger by as much.
    ///
    /// If the machine has less memory to give, creating the segment is an error
    /// ([`SegmentError::Os`]). A control group with a lower limit is not looked at: there the
    /// kernel kills the process. The default is false.
    ///
    /// # Examples
    /// ```
    /// use offspring::{Queue, SegmentOptions};
    ///
    /// let segment = SegmentOptions::new().len(1 << 22).prefault(true).create()?;
    /// let ticks = Queue::<[u64; 4]>::with_capacity_in(&segment, 1024)?;
    /// # ticks.send([1, 2, 3, 4])?;
    /// # assert_eq!(ticks.recv()?, [1, 2, 3, 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefault(&mut self, prefault: bool) -> &mut Self {
        self.residence.is_prefaulted = prefault;
        self
    }

    /// Asks the kernel for large pages, in every process that uses the segment.
    ///
    /// For anonymous segments the kernel gives them only if
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `advise`, `within_size` or `always`;
    /// most distributions set it to `never`. Where it gives none, nothing changes. A large page
    /// takes memory as a whole, so more memory is used. The default is false.
    pub fn huge_pages(&mut self, huge_pages: bool) -> &mut Self {
        self.residence.has_huge_pages = huge_pages;
        self
    }

    /// Locks the pages that a process has touched in memory (`mlock2` with `MLOCK_ONFAULT`), in
    /// every process that uses the segment. With [`prefault`](SegmentOptions::prefault) these are
    /// all pages from the start.
    ///
    /// Without the capability `CAP_IPC_LOCK` the limit `RLIMIT_MEMLOCK` must allow the address
    /// space of the segment, see [`Segment`]. Where the kernel
    /// refuses, creating the segment is an error, and so is the first use in another process. The
    /// default is false.
    pub fn lock_memory(&mut self, lock: bool) -> &mut Self {
        self.residence.is_locked = lock;
        self
    }

    /// Creates an anonymous segment. See [`Segment::create`].
    ///
    /// # Errors
    /// The same as for [`Segment::create`].
    pub fn create(&self) -> Result<Segment, SegmentError> {
        backing::create_anonymous(self.len, self.residence).map(Segment::from)
    }

    /// Creates a segment in a new file. See [`Segment::create_file`].
    ///
    /// # Errors
    /// The same as for [`Segment::create_file`].
    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<Segment, SegmentError> {
        let path = path.as_ref();
        let made = backing::create_file(path, self.len, self.residence);
        made.map(Segment::from).map_err(SegmentError::in_file(path))
    }

    /// Creates the commons with these options. Where address space is limited the length is
    /// smaller; [`Segment::len`] returns it.
    ///
    /// # Errors
    /// [`SegmentError::CommonsExist`] after the first object or the first child; otherwise the same
    /// as for [`Segment::create`].
    ///
    /// # Examples
    /// ```
    /// use offspring::{Segment, SegmentError, SegmentOptions};
    ///
    /// let commons = SegmentOptions::new().len(1 << 26).commons()?;
    /// assert_eq!(Segment::commons()?.id(), commons.id());
    /// assert!(matches!(SegmentOptions::new().commons(), Err(SegmentError::CommonsExist)));
    /// # Ok::<(), SegmentError>(())
    /// ```
    pub fn commons(&self) -> Result<Segment, SegmentError> {
        commons::get(Some((self.len, self.residence))).cloned()
    }
}
