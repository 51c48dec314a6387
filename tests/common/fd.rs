//! The descriptor of a segment, by which tests look at it from outside.

use std::os::fd::{AsRawFd, BorrowedFd};

use offspring::Segment;

pub trait SegmentFd {
    /// As `AsFd` would have it, which a segment is not, as safe code could write through it.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl SegmentFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[expect(unsafe_code, reason = "borrows a descriptor by its number")]
        // SAFETY: it is open as long as the segment. Tests that write through it mean to.
        unsafe {
            BorrowedFd::borrow_raw(self.as_raw_fd())
        }
    }
}
