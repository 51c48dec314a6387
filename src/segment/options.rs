//! How a segment is made.

use std::path::Path;

use crate::segment::{Segment, SegmentError, backing, commons};

/// Bytes of objects that a segment holds if nobody says otherwise. Only address space is reserved
/// for it.
pub(crate) const DEFAULT_LEN: u64 = 8 << 30;

/// Options of a new segment; finish with one of the `create` methods or with
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
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions::new()
    }
}

impl SegmentOptions {
    /// The defaults: 8 GiB of objects, none of them backed yet.
    pub fn new() -> SegmentOptions {
        SegmentOptions { len: DEFAULT_LEN }
    }

    /// Bytes of objects that the segment may hold, from 1 to 2^40.
    pub fn len(&mut self, bytes: u64) -> &mut Self {
        self.len = bytes;
        self
    }

    /// Makes an anonymous segment. See [`Segment::create`].
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn create(&self) -> Result<Segment, SegmentError> {
        backing::create_anonymous(self.len).map(Segment::from)
    }

    /// Makes a segment in a new file. See [`Segment::create_file`].
    ///
    /// # Errors
    /// As [`Segment::create_file`].
    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<Segment, SegmentError> {
        let path = path.as_ref();
        backing::create_file(path, self.len).map(Segment::from).map_err(SegmentError::in_file(path))
    }

    /// Makes the commons with this length. Where the address space is limited they get less:
    /// [`Segment::len`] tells.
    ///
    /// # Errors
    /// [`SegmentError::CommonsExist`] after the first object or the first child; else as
    /// [`Segment::create`].
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
        commons::get(Some(self.len)).map(Segment::from)
    }
}
