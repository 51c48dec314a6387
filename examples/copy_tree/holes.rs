//! Where a file has data, and where it has a hole, which reads as zeros and takes no space.

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, Result};
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Returns the next run of data, from `at` or later, in a file of `size` bytes; an empty one at its
/// end when there is no more.
///
/// A filesystem that does not know where its holes are calls all of it data, or refuses the
/// question, which we take for the same answer.
pub(crate) fn next_data(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<Range<u64>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => return Ok(size..size),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
        Err(error) => return Err(error),
    };
    let end = match seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end.min(size),
        // The file has become shorter, which its reader will find out.
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
        Err(error) => return Err(error),
    };
    Ok(start..end)
}
