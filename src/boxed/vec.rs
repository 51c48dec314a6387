//! A vector in shared memory.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::boxed::INERT;
use crate::object::CreateError;
use crate::object::carry::{Arrival, Departure, Name, Transfer};
use crate::object::kind::Kind;
use crate::object::owned::OwnedBlock;
use crate::peer::Fault;
use crate::segment::{Segment, Shm};

/// A vector in shared memory that this process owns alone.
///
/// In everything but its length it is a [`ShmBox`](crate::ShmBox) of a slice: it moves through a
/// [`Queue`](crate::Queue) without a copy, and its sections *Memory*, *Peer death*, *Fork* and
/// *Panics* hold here, too.
///
/// Growing beyond the capacity takes a larger piece of memory and copies the values there. That may
/// fail, so what grows returns a `Result`.
///
/// # Examples
/// ```
/// use offspring::{Queue, ShmVec};
///
/// let queue = Queue::<ShmVec<u64>>::with_capacity(2)?;
/// let mut batch = ShmVec::with_capacity(2)?;
/// for number in 0..100 {
///     batch.push(number)?;
/// }
/// queue.send(batch)?;
/// let mut batch = queue.recv()?;
/// assert_eq!(batch.iter().sum::<u64>(), 4950);
/// assert_eq!(batch.pop(), Some(99));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShmVec<T: Shm> {
    block: OwnedBlock<T>,
    /// At most what the block has room for.
    len: usize,
}

impl<T: Shm> ShmVec<T> {
    /// An empty vector with room for `capacity` values, in the commons.
    ///
    /// # Errors
    /// As [`ShmBox::new`](crate::ShmBox::new).
    pub fn with_capacity(capacity: usize) -> Result<ShmVec<T>, CreateError> {
        ShmVec::with_capacity_in(Segment::of_commons()?, capacity)
    }

    /// An empty vector with room for `capacity` values, in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`](crate::ShmBox::new).
    pub fn with_capacity_in(segment: &Segment, capacity: usize) -> Result<ShmVec<T>, CreateError> {
        Ok(ShmVec { block: OwnedBlock::new(segment.mapping(), kind::<T>(), capacity)?, len: 0 })
    }

    /// Number of values that there is room for.
    pub fn capacity(&self) -> usize {
        self.block.count()
    }

    /// Makes room for `additional` more values, at least.
    ///
    /// # Errors
    /// As [`ShmBox::new`](crate::ShmBox::new); the vector is as it was.
    pub fn reserve(&mut self, additional: usize) -> Result<(), CreateError> {
        let needed = self.len.saturating_add(additional);
        if needed <= self.block.count() {
            return Ok(());
        }
        let count = needed.max(self.block.count().saturating_mul(2));
        let mut block = OwnedBlock::new(self.block.mapping(), kind::<T>(), count)?;
        block.values_mut()[..self.len].copy_from_slice(self);
        self.block = block;
        Ok(())
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// As [`ShmVec::reserve`].
    pub fn push(&mut self, value: T) -> Result<(), CreateError> {
        self.reserve(1)?;
        self.block.values_mut()[self.len] = value;
        self.len += 1;
        Ok(())
    }

    /// Appends copies of `values`: all of them or none.
    ///
    /// # Errors
    /// As [`ShmVec::reserve`].
    ///
    /// # Examples
    /// ```
    /// let mut numbers = offspring::ShmVec::with_capacity(0)?;
    /// numbers.extend_from_slice(&[1, 2, 3])?;
    /// assert_eq!(*numbers, [1, 2, 3]);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn extend_from_slice(&mut self, values: &[T]) -> Result<(), CreateError> {
        self.reserve(values.len())?;
        let end = self.len + values.len();
        self.block.values_mut()[self.len..end].copy_from_slice(values);
        self.len = end;
        Ok(())
    }

    /// Removes the last value and returns it; `None` if there is none.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.last().copied()?;
        self.len -= 1;
        Some(last)
    }

    /// Keeps the first `len` values. The capacity stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Removes all values. The capacity stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

fn kind<T: Shm>() -> u64 {
    Kind::Slice.with::<T>()
}

impl<T: Shm> Deref for ShmVec<T> {
    type Target = [T];

    #[inline]
    #[track_caller]
    fn deref(&self) -> &[T] {
        &self.block.values()[..self.len]
    }
}

impl<T: Shm> DerefMut for ShmVec<T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.block.values_mut()[..self.len]
    }
}

impl<T: Shm + PartialEq> PartialEq for ShmVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Shm + Eq> Eq for ShmVec<T> {}

/// As a slice. In a forked child of the owner it says that it is inert.
impl<T: Shm + fmt::Debug> fmt::Debug for ShmVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.block.is_ours() { (**self).fmt(f) } else { f.write_str(INERT) }
    }
}

// SAFETY: the block is the value, and is handed over as `carry` says.
unsafe impl<T: Shm> Transfer for ShmVec<T> {
    type Wire = Name;

    fn pack(&mut self, departure: &Departure<'_>) -> Result<Name, Fault> {
        self.block.pack(self.len, departure)
    }

    fn restore(&mut self) {
        self.block.restore();
    }

    fn unpack(wire: Name, arrival: &Arrival<'_>) -> Result<Self, Fault> {
        let (block, len) = OwnedBlock::unpack(wire, kind::<T>(), arrival)?;
        Ok(ShmVec { block, len })
    }
}
