//! The block of a shared value or slice: its values, one behind the other, and nothing else. They
//! are written while the block is `OWNED` by the process that makes it, and never after it is
//! `SHARED`. A name is no secret: it can be read from text, and so it can be guessed. So the values
//! must not change while a name opens the block.
#![expect(unsafe_code, reason = "values in shared memory are reached by pointers")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::object::place::Block;
use crate::segment::Shm;
use crate::segment::region::Region;

/// How many values there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    count: usize,
    len: u64,
}

impl Shape {
    /// The shape of `count` values; `None` if that is more than a slice can have.
    pub(crate) fn of<T: Shm>(count: usize) -> Option<Shape> {
        let len = count.checked_mul(size_of::<T>())?;
        isize::try_from(len).ok().map(|_| Shape { count, len: len as u64 })
    }
}

/// Shared values as they lie in their block.
///
/// # Invariants
/// `start` is the address of `count` values, aligned for a `T`, in a mapping of the process that
/// uses this. The block is `SHARED`, and nobody writes them any more.
pub(crate) struct ArcBlock<T> {
    start: NonNull<u8>,
    count: usize,
    values: PhantomData<T>,
}

impl<T: Shm> Block for ArcBlock<T> {
    type Shape = Shape;

    fn len(shape: &Shape) -> u64 {
        shape.len
    }

    fn view(region: Region<'_>, offset: u64, shape: &Shape) -> Option<Self> {
        // INVARIANT: `bytes` checks range and alignment.
        let start = region.bytes(offset, shape.len, align_of::<T>())?;
        Some(ArcBlock { start, count: shape.count, values: PhantomData })
    }
}

impl<T: Shm> ArcBlock<T> {
    /// The values.
    #[inline]
    pub(crate) fn values(&self) -> &[T] {
        let start: NonNull<T> = self.start.cast();
        // SAFETY: by the invariant; any bits are a valid `T: Shm`, and nobody writes them.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.count) }
    }
}

impl<T> Clone for ArcBlock<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ArcBlock<T> {}

impl<T> fmt::Debug for ArcBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArcBlock").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_values_than_a_slice_can_have_are_no_shape() {
        assert_eq!(Shape::of::<u64>(3).map(|shape| shape.len), Some(24));
        for count in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8 + 1] {
            assert_eq!(Shape::of::<u64>(count), None, "{count}");
        }
    }
}
