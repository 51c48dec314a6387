//! Options for creating a segment.

use std::path::Path;

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
        SegmentOptions { len: commons::DEFAULT_LEN }
    }

    /// Sets how many bytes of objects the segment may hold, from 1 to 2^40.
    pub fn len(&mut self, bytes: u64) -> &mut Self {
        self.len = bytes;
        self
    }

    /// Creates an anonymous segment. See [`Segment::create`].
    ///
    /// # Errors
    /// The same as for [`Segment::create`].
    pub fn create(&self) -> Result<Segment, SegmentError> {
        backing::create_anonymous(self.len).map(Segment::from)
    }

    /// Creates a segment in a new file. See [`Segment::create_file`].
    ///
    /// # Errors
    /// The same as for [`Segment::create_file`].
    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<Segment, SegmentError> {
        let path = path.as_ref();
        backing::create_file(path, self.len).map(Segment::from).map_err(SegmentError::in_file(path))
    }

    /// Creates the commons with this length. Where address space is limited the length is smaller;
    /// [`Segment::len`] returns it.
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
        commons::get(Some(self.len)).cloned()
    }
}
