//! A value or a slice that many processes read.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::block::arc::{ArcBlock, Shape};
use crate::object::kind::Kind;
use crate::object::owned::OwnedBlock;
use crate::object::place::Object;
use crate::object::{CreateError, Handle, serial};
use crate::peer::Fault;
use crate::segment::region::Region;
use crate::segment::{Segment, Shm};

/// What a [`ShmArc`] can share: a value of any [`Shm`] type, or a slice of such values.
pub trait Shareable: sealed::Sealed {}

impl<T: Shm> Shareable for T {}
impl<T: Shm> Shareable for [T] {}

mod sealed {
    use super::{Kind, Shm};

    pub trait Sealed {
        /// What lies in the block, once or several times.
        type Item: Shm;

        fn kind() -> u64;
        fn of(items: &[Self::Item]) -> Option<&Self>;
        /// How many values a block of so many bytes holds; `None` if that is not how it was made.
        fn count(len: u64) -> Option<usize>;
    }

    impl<T: Shm> Sealed for T {
        type Item = T;

        fn kind() -> u64 {
            Kind::Arc.with::<T>()
        }

        #[inline]
        fn of(items: &[T]) -> Option<&T> {
            items.first()
        }

        fn count(len: u64) -> Option<usize> {
            (len == size_of::<T>() as u64).then_some(1)
        }
    }

    impl<T: Shm> Sealed for [T] {
        type Item = T;

        fn kind() -> u64 {
            Kind::ArcSlice.with::<T>()
        }

        #[inline]
        fn of(items: &[T]) -> Option<&[T]> {
            Some(items)
        }

        fn count(len: u64) -> Option<usize> {
            let size = size_of::<T>().max(1) as u64;
            len.is_multiple_of(size).then(|| usize::try_from(len / size).ok())?
        }
    }
}

/// A value or a slice in shared memory that any number of processes read, and nobody writes.
///
/// It is an [`Arc`] whose memory lies in a segment: a table, a model or an image that is made once
/// and used by all workers without a copy. It is filled before it is shared. To change what
/// processes share, use a [`Value`](crate::Value) or a [`Lock`](crate::Lock).
///
/// Handles are cheap to clone. The memory is given back when the last process that has one drops
/// it. A handle is a serde value, so it can be sent through an [`ObjectQueue`](crate::ObjectQueue)
/// or a [`channel`](crate::channel()): the message holds the memory until it is received.
///
/// # Blocking
/// Never waits. Reading is reading memory.
///
/// # Memory ordering
/// Whoever has a handle sees everything that was filled in.
///
/// # Peer death
/// What a dead process held is given back when somebody clears up after it. A process killed while
/// it makes one has shared nothing.
///
/// # Fork
/// A handle works in a forked child, at another address.
///
/// # Panics
/// In a process made by a fork of other code, dereferencing panics if that process cannot attach to
/// the segment, or if every other holder had dropped the memory before its first use; and in a fork
/// of a process that can only read the segment ([`Builder::read_only`](crate::Builder::read_only)).
///
/// # Examples
/// ```
/// use offspring::{Receiver, ShmArc};
///
/// fn look_up(tables: Receiver<ShmArc<[u64]>>) -> u64 {
///     tables.recv().unwrap()[12]
/// }
///
/// let squares = ShmArc::from_fn(1000, |index| (index * index) as u64)?;
/// let (tables, received) = offspring::channel(4)?;
/// let worker = offspring::spawn(look_up, received)?;
/// // The worker runs already. The message holds the memory, so this handle may go.
/// tables.send(squares)?;
/// assert_eq!(worker.join()?, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShmArc<T: Shareable + ?Sized> {
    object: Arc<Object<ArcBlock<T::Item>>>,
}

impl<T: Shm> ShmArc<T> {
    /// Shares `value`, in the commons.
    ///
    /// # Errors
    /// [`CreateError::OutOfMemory`] or [`CreateError::NoPages`] if there is no memory;
    /// [`CreateError::Alignment`]; [`CreateError::Segment`] or [`CreateError::Fault`] if the
    /// segment cannot be used.
    ///
    /// # Examples
    /// ```
    /// let limits = offspring::ShmArc::new([1.5_f64, 2.5])?;
    /// assert_eq!(limits[1], 2.5);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn new(value: T) -> Result<ShmArc<T>, CreateError> {
        ShmArc::new_in(&Segment::commons()?, value)
    }

    /// Shares `value`, in `segment`.
    ///
    /// # Errors
    /// As [`ShmArc::new`].
    pub fn new_in(segment: &Segment, value: T) -> Result<ShmArc<T>, CreateError> {
        ShmArc::make(segment, 1, |_| value)
    }
}

impl<T: Shm> ShmArc<[T]> {
    /// Shares a copy of `values`, in the commons.
    ///
    /// # Errors
    /// As [`ShmArc::new`].
    ///
    /// # Examples
    /// ```
    /// let primes = offspring::ShmArc::from_slice(&[2_u32, 3, 5, 7])?;
    /// assert_eq!(*primes, [2, 3, 5, 7]);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn from_slice(values: &[T]) -> Result<ShmArc<[T]>, CreateError> {
        ShmArc::from_slice_in(&Segment::commons()?, values)
    }

    /// As [`ShmArc::from_slice`], in `segment`.
    ///
    /// # Errors
    /// As [`ShmArc::new`].
    pub fn from_slice_in(segment: &Segment, values: &[T]) -> Result<ShmArc<[T]>, CreateError> {
        ShmArc::from_fn_in(segment, values.len(), |index| values[index])
    }

    /// Shares a slice of `len` values, each made in its place from its index, in the commons.
    ///
    /// # Errors
    /// As [`ShmArc::new`].
    ///
    /// # Examples
    /// ```
    /// let squares = offspring::ShmArc::from_fn(5, |index| index * index)?;
    /// assert_eq!(*squares, [0, 1, 4, 9, 16]);
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn from_fn(len: usize, value: impl FnMut(usize) -> T) -> Result<ShmArc<[T]>, CreateError> {
        ShmArc::from_fn_in(&Segment::commons()?, len, value)
    }

    /// As [`ShmArc::from_fn`], in `segment`.
    ///
    /// # Errors
    /// As [`ShmArc::new`].
    pub fn from_fn_in(
        segment: &Segment,
        len: usize,
        value: impl FnMut(usize) -> T,
    ) -> Result<ShmArc<[T]>, CreateError> {
        const { assert!(size_of::<T>() != 0, "a slice of nothing has no length in memory") };
        ShmArc::make(segment, len, value)
    }
}

impl<T: Shareable + ?Sized> ShmArc<T> {
    /// Makes a block of `count` values and fills it.
    fn make(
        segment: &Segment,
        count: usize,
        mut value: impl FnMut(usize) -> T::Item,
    ) -> Result<ShmArc<T>, CreateError> {
        // The program makes the values, and may do anything meanwhile. Nobody can open the block
        // before it is shared; if `value` panics, it is given back.
        let mut block = OwnedBlock::new(segment.mapping(), T::kind(), count)?;
        for (index, place) in block.values_mut().iter_mut().enumerate() {
            *place = value(index);
        }
        let shape = Shape::of::<T::Item>(count).ok_or(Fault::Corrupt)?;
        Ok(ShmArc { object: Arc::new(Object::new(block.share()?, shape)?) })
    }

    /// Opens the value or slice that `handle` names, in `segment`.
    ///
    /// # Errors
    /// [`Fault::Stale`] if it is gone or in another segment; [`Fault::WrongType`] if it is no
    /// shared value or slice of this type.
    pub fn open(segment: &Segment, handle: Handle) -> Result<ShmArc<T>, Fault> {
        let shape = |_: Region<'_>, _: u64, len| {
            T::count(len).and_then(Shape::of::<T::Item>).ok_or(Fault::Corrupt)
        };
        let object = Object::open(segment, handle, T::kind(), shape)?;
        let arc: ShmArc<T> = ShmArc { object: Arc::new(object) };
        if arc.get()?.is_some() { Ok(arc) } else { Err(Fault::Corrupt) }
    }

    /// The name, which can be sent to any process that has the segment.
    pub fn handle(&self) -> Handle {
        self.object.handle()
    }

    #[inline]
    fn get(&self) -> Result<Option<&T>, Fault> {
        let place = match self.object.known() {
            Some(place) => place,
            None => self.object.enter()?,
        };
        Ok(T::of(place.block().values()))
    }
}

impl<T: Shareable + ?Sized> Deref for ShmArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self.get() {
            Ok(Some(value)) => value,
            Ok(None) => gone(Fault::Corrupt),
            Err(fault) => gone(fault),
        }
    }
}

#[cold]
#[inline(never)]
fn gone(fault: Fault) -> ! {
    panic!("a shared value cannot be read in this process, which was forked: {fault}")
}

impl<T: Shareable + ?Sized> AsRef<T> for ShmArc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

/// Another handle of the same value or slice.
impl<T: Shareable + ?Sized> Clone for ShmArc<T> {
    fn clone(&self) -> Self {
        ShmArc { object: Arc::clone(&self.object) }
    }
}

impl<T: Shareable + PartialEq + ?Sized> PartialEq for ShmArc<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Shareable + Eq + ?Sized> Eq for ShmArc<T> {}

/// As what it shares.
impl<T: Shareable + fmt::Debug + ?Sized> fmt::Debug for ShmArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(Some(value)) => value.fmt(f),
            Ok(None) => f.write_str("<corrupt>"),
            Err(fault) => write!(f, "<{fault}>"),
        }
    }
}

/// In a message of this crate, and in what a child returns, a handle that holds the memory.
/// Elsewhere its [`Handle`].
impl<T: Shareable + ?Sized + 'static> Serialize for ShmArc<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serial::serialize(&self.object, &self.object, 0, serializer)
    }
}

/// Opens the value or slice. An error says that it is gone, of another type, or in a segment that
/// this process does not have open.
impl<'de, T: Shareable + ?Sized> Deserialize<'de> for ShmArc<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serial::deserialize(deserializer, |segment, handle, _| ShmArc::open(segment, handle))
    }
}
