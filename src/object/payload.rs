//! A typed value in a block. It is read, written and borrowed here and nowhere else.
//!
//! Blocks say where a value lies, and by which word or token the protocol has given it to the
//! caller. The public types never see a pointer.
#![expect(unsafe_code, reason = "values in shared memory are reached by pointers")]

use std::ptr::NonNull;

use crate::segment::Shm;

/// The address of a value.
///
/// # Invariants
/// The address is aligned for a `T`, and the bytes of a `T` lie there in a mapping that outlives
/// this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<T>(NonNull<T>);

impl<T: Shm> Payload<T> {
    /// # Safety
    /// `address` is as the invariant says.
    #[inline]
    pub(crate) unsafe fn new(address: NonNull<u8>) -> Payload<T> {
        Payload(address.cast())
    }

    /// Writes a value.
    ///
    /// # Safety
    /// Nobody else reads or writes the value meanwhile.
    #[inline]
    pub(crate) unsafe fn write(self, value: &T) {
        // SAFETY: by the invariant. The two do not overlap: only the caller may use the value here,
        // and has no reference to it.
        unsafe { self.0.copy_from_nonoverlapping(NonNull::from(value), 1) };
    }

    /// Copies the value.
    ///
    /// # Safety
    /// Nobody writes the value meanwhile.
    #[inline]
    pub(crate) unsafe fn read(self) -> T {
        // SAFETY: by the invariant; any bits are a valid `T: Shm`, which is `Copy`.
        unsafe { self.0.read() }
    }

    /// Borrows the value.
    ///
    /// # Safety
    /// Nobody writes the value during `'a`.
    #[inline]
    pub(crate) unsafe fn get<'a>(self) -> &'a T {
        // SAFETY: by the invariant; any bits are a valid `T: Shm`.
        unsafe { self.0.as_ref() }
    }

    /// Borrows the value to change it.
    ///
    /// # Safety
    /// Nobody else reads or writes the value during `'a`.
    #[inline]
    pub(crate) unsafe fn get_mut<'a>(mut self) -> &'a mut T {
        // SAFETY: as in `get`.
        unsafe { self.0.as_mut() }
    }
}
