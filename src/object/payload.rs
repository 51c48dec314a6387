//! A typed value in a block. It is read, written and borrowed here and nowhere else.
//!
//! Blocks say where a value lies, and by which word or token the protocol has given it to the
//! caller. The public types never see a pointer.
#![expect(unsafe_code, reason = "values in shared memory are reached by pointers")]

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

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

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// How many words hold a `T`.
pub(crate) const fn words<T>() -> usize {
    size_of::<T>().div_ceil(WORD)
}

/// Some value, to be written over.
#[inline]
pub(crate) fn zeroed<T: Shm>() -> T {
    // SAFETY: any bits are a valid `T: Shm`.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Where the bytes of a word lie in a `T`, and how many there are; none behind its end.
#[inline]
const fn part<T>(index: usize) -> (usize, usize) {
    let size = size_of::<T>();
    let start = index.saturating_mul(WORD);
    if start >= size {
        (size, 0)
    } else if size - start >= WORD {
        (start, WORD)
    } else {
        (start, size - start)
    }
}

/// The word with this number among those that hold the value; what the value does not fill is zero.
#[inline]
pub(crate) fn word_of<T: Shm>(value: &T, index: usize) -> u64 {
    let (start, len) = part::<T>(index);
    let mut bytes = [0_u8; WORD];
    // SAFETY: `start` is at most the size of the value.
    let from = unsafe { ptr::from_ref(value).cast::<u8>().add(start) };
    // SAFETY: `len` bytes lie there and are initialised, as a `T: Shm` has no padding; it is at
    // most the size of a word, and `bytes` is a variable of ours.
    unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
    u64::from_ne_bytes(bytes)
}

/// Puts a word back where [`word_of`] has it from.
#[inline]
pub(crate) fn set_word<T: Shm>(value: &mut T, index: usize, word: u64) {
    let (start, len) = part::<T>(index);
    let bytes = word.to_ne_bytes();
    // SAFETY: `start` is at most the size of the value.
    let to = unsafe { ptr::from_mut(value).cast::<u8>().add(start) };
    // SAFETY: there is room for `len` bytes, at most a word; any bits are a valid `T: Shm`, and
    // `bytes` is a variable of ours.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_a_value_of_any_length() {
        fn there_and_back<const N: usize>() {
            let value: [u8; N] = std::array::from_fn(|index| index as u8 + 1);
            let mut copy = zeroed::<[u8; N]>();
            assert_eq!(copy, [0; N]);
            for index in 0..words::<[u8; N]>() {
                set_word(&mut copy, index, word_of(&value, index));
            }
            assert_eq!(copy, value);
            assert_eq!(word_of(&value, words::<[u8; N]>()), 0, "behind the end");
        }
        there_and_back::<0>();
        there_and_back::<1>();
        there_and_back::<7>();
        there_and_back::<8>();
        there_and_back::<9>();
        there_and_back::<24>();
        there_and_back::<29>();
        assert_eq!((words::<()>(), words::<u8>(), words::<[u8; 9]>()), (0, 1, 2));
        assert_eq!(word_of(&0xab_u8, 0).to_ne_bytes(), [0xab, 0, 0, 0, 0, 0, 0, 0]);
    }
}
