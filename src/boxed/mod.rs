//! Memory of the segment that one process owns, and that moves from process to process.
//!
//! - this file: [`ShmBox`], a value or a slice.
//! - `vec`: [`ShmVec`], which grows. `text`: [`ShmStr`].
//!
//! What they own is an [`OwnedBlock`]; how it travels says [`carry`](crate::object::carry).

#![expect(unsafe_code, reason = "implements the unsafe marker of what travels")]

#[cfg(test)]
mod tests;
mod text;
mod vec;

use std::fmt;
use std::ops::{Deref, DerefMut};

pub use text::ShmStr;
pub use vec::ShmVec;

use crate::object::CreateError;
use crate::object::carry::{Arrival, Departure, Name, Transfer};
use crate::object::kind::Kind;
use crate::object::owned::OwnedBlock;
use crate::peer::Fault;
use crate::segment::{Segment, Shm};

/// What a [`ShmBox`] can own: a value of any [`Shm`] type, or a slice of such values.
pub trait Boxable: sealed::Sealed {}

impl<T: Shm> Boxable for T {}
impl<T: Shm> Boxable for [T] {}

mod sealed {
    use super::{Kind, Shm};

    pub trait Sealed {
        /// What lies in the block, once or several times.
        type Item: Shm;

        fn kind() -> u64;
        fn of(items: &[Self::Item]) -> &Self;
        fn of_mut(items: &mut [Self::Item]) -> &mut Self;
        /// Whether this is the right number of items.
        fn can_be(count: usize) -> bool;
    }

    impl<T: Shm> Sealed for T {
        type Item = T;

        fn kind() -> u64 {
            Kind::Boxed.with::<T>()
        }

        #[inline]
        fn of(items: &[T]) -> &T {
            &items[0]
        }

        #[inline]
        fn of_mut(items: &mut [T]) -> &mut T {
            &mut items[0]
        }

        fn can_be(count: usize) -> bool {
            count == 1
        }
    }

    impl<T: Shm> Sealed for [T] {
        type Item = T;

        fn kind() -> u64 {
            Kind::Slice.with::<T>()
        }

        #[inline]
        fn of(items: &[T]) -> &[T] {
            items
        }

        #[inline]
        fn of_mut(items: &mut [T]) -> &mut [T] {
            items
        }

        fn can_be(_count: usize) -> bool {
            true
        }
    }
}

/// A value or a slice in shared memory that this process owns alone.
///
/// It is a [`Box`] whose memory lies in a segment. Sent through a [`Queue`](crate::Queue) or a
/// [`plain::channel`](crate::plain::channel()), it moves to the receiver: only its name goes
/// through the queue, and a megabyte costs what a byte costs. Exactly one process has it at a time,
/// so it dereferences to `&T` and to `&mut T` without a lock.
///
/// It is no `serde` value, and cannot be part of one: see [`Transfer`](trait@crate::Transfer).
///
/// # Memory
/// The memory comes from the segment, and goes back to it when the box is dropped. A box that is
/// forgotten ([`std::mem::forget`]) keeps its memory until the process ends.
///
/// # Blocking
/// Never waits.
///
/// # Memory ordering
/// What the sender of a box wrote into it is visible to its receiver (release to acquire).
///
/// # Peer death
/// The memory of a dead process's boxes is given back when somebody clears up after it, at the
/// latest when memory runs short. A box that was sent belongs to the message: it is received, also
/// if its sender is dead. If its receiver is killed before it has it, the queue's
/// [`OnReceiverDeath`](crate::OnReceiverDeath) says whether it goes to another one or is freed.
///
/// # Fork
/// A box that the closure of [`fork`](crate::fork()) captured belongs to the child, as the parent
/// drops it with the closure. If a captured value has a `Drop` of its own that takes the box out,
/// the parent keeps the box, and it is inert in the child. In all other cases it stays with the
/// process that made or received it, and the copy of the handle in a forked child is inert: using
/// it panics, and dropping it does nothing. That is also so if the closure captured an `Arc` of the
/// box and the parent has another.
///
/// # Panics
/// Every use in a process that does not own the box panics.
///
/// # Source
/// How a box changes hands is described in `docs/queue.md`.
///
/// # Examples
/// ```
/// use offspring::{Queue, ShmBox};
///
/// fn film(frames: Queue<ShmBox<[u8]>>) {
///     let mut frame = ShmBox::<[u8]>::zeroed(1 << 20).unwrap();
///     frame[77] = 7;
///     frames.send(frame).unwrap();
/// }
///
/// let frames = Queue::with_capacity(4)?;
/// let child = offspring::spawn(film, frames.clone())?;
/// let mut frame = frames.recv()?;
/// assert_eq!((frame.len(), frame[77]), (1 << 20, 7));
/// frame[77] += 1; // Ours, and nobody else's.
/// child.join()?;
/// assert_eq!(frame[77], 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShmBox<T: Boxable + ?Sized> {
    block: OwnedBlock<T::Item>,
}

impl<T: Shm> ShmBox<T> {
    /// Puts `value` into a new box in the commons.
    ///
    /// # Errors
    /// [`CreateError::OutOfMemory`] or [`CreateError::NoPages`] if there is no memory;
    /// [`CreateError::Alignment`]; [`CreateError::Segment`] or [`CreateError::Fault`] if the
    /// segment cannot be used.
    ///
    /// # Examples
    /// ```
    /// use offspring::ShmBox;
    ///
    /// let mut counter = ShmBox::new(41_u64)?;
    /// *counter += 1;
    /// assert_eq!(*counter, 42);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    // Always, as with `Room::new`: a result that is built elsewhere would be copied.
    #[inline(always)]
    pub fn new(value: T) -> Result<ShmBox<T>, CreateError> {
        ShmBox::new_in(Segment::of_commons()?, value)
    }

    /// Puts `value` into a new box in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    #[inline(always)]
    pub fn new_in(segment: &Segment, value: T) -> Result<ShmBox<T>, CreateError> {
        let kind = <T as sealed::Sealed>::kind();
        Ok(ShmBox { block: OwnedBlock::of_value(segment.mapping(), kind, value)? })
    }
}

impl<T: Shm> ShmBox<[T]> {
    /// A slice of `len` values, all bytes of which are 0, in the commons.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    ///
    /// # Examples
    /// ```
    /// let samples = offspring::ShmBox::<[f32]>::zeroed(1000)?;
    /// assert!(samples.len() == 1000 && samples.iter().all(|&sample| sample == 0.0));
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    #[inline(always)]
    pub fn zeroed(len: usize) -> Result<ShmBox<[T]>, CreateError> {
        ShmBox::zeroed_in(Segment::of_commons()?, len)
    }

    /// As [`ShmBox::zeroed`], in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    #[inline(always)]
    pub fn zeroed_in(segment: &Segment, len: usize) -> Result<ShmBox<[T]>, CreateError> {
        let kind = <[T] as sealed::Sealed>::kind();
        Ok(ShmBox { block: OwnedBlock::zeroed(segment.mapping(), kind, len)? })
    }

    /// A copy of `values`, in the commons.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    ///
    /// # Examples
    /// ```
    /// let primes = offspring::ShmBox::from_slice(&[2_u32, 3, 5, 7])?;
    /// assert_eq!(*primes, [2, 3, 5, 7]);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    #[inline(always)]
    pub fn from_slice(values: &[T]) -> Result<ShmBox<[T]>, CreateError> {
        ShmBox::from_slice_in(Segment::of_commons()?, values)
    }

    /// As [`ShmBox::from_slice`], in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    #[inline(always)]
    pub fn from_slice_in(segment: &Segment, values: &[T]) -> Result<ShmBox<[T]>, CreateError> {
        let kind = <[T] as sealed::Sealed>::kind();
        Ok(ShmBox { block: OwnedBlock::of_values(segment.mapping(), kind, values)? })
    }

    /// A slice of `len` values, each made in its place from its index, in the commons.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    ///
    /// # Examples
    /// ```
    /// let squares = offspring::ShmBox::from_fn(5, |index| index * index)?;
    /// assert_eq!(*squares, [0, 1, 4, 9, 16]);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn from_fn(len: usize, value: impl FnMut(usize) -> T) -> Result<ShmBox<[T]>, CreateError> {
        ShmBox::from_fn_in(Segment::of_commons()?, len, value)
    }

    /// As [`ShmBox::from_fn`], in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`].
    pub fn from_fn_in(
        segment: &Segment,
        len: usize,
        mut value: impl FnMut(usize) -> T,
    ) -> Result<ShmBox<[T]>, CreateError> {
        let kind = <[T] as sealed::Sealed>::kind();
        let mut block = OwnedBlock::new(segment.mapping(), kind, len)?;
        // If `value` panics the block is given back.
        for (index, place) in block.values_mut().iter_mut().enumerate() {
            *place = value(index);
        }
        Ok(ShmBox { block })
    }
}

impl<T: Boxable + ?Sized> Deref for ShmBox<T> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        T::of(self.block.values())
    }
}

impl<T: Boxable + ?Sized> DerefMut for ShmBox<T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        T::of_mut(self.block.values_mut())
    }
}

impl<T: Boxable + ?Sized> AsRef<T> for ShmBox<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Boxable + ?Sized> AsMut<T> for ShmBox<T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: Boxable + PartialEq + ?Sized> PartialEq for ShmBox<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Boxable + Eq + ?Sized> Eq for ShmBox<T> {}

/// As what it owns. In a forked child of the owner it says that it is inert.
impl<T: Boxable + fmt::Debug + ?Sized> fmt::Debug for ShmBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.block.is_ours() { (**self).fmt(f) } else { f.write_str(INERT) }
    }
}

/// What `Debug` prints of a handle that is only a copy.
const INERT: &str = "<owned by another process>";

// SAFETY: the block is the value, and is handed over as `carry` says.
unsafe impl<T: Boxable + ?Sized + 'static> Transfer for ShmBox<T> {
    type Wire = Name;

    fn pack(&mut self, departure: &Departure<'_>) -> Result<Name, Fault> {
        self.block.pack(self.block.count(), departure)
    }

    fn restore(&mut self) {
        self.block.restore();
    }

    fn unpack(wire: Name, arrival: &Arrival<'_>) -> Result<Self, Fault> {
        let (mut block, len) = OwnedBlock::unpack(wire, T::kind(), arrival)?;
        block.shrink_to(len);
        if T::can_be(len) { Ok(ShmBox { block }) } else { Err(Fault::Corrupt) }
    }
}
