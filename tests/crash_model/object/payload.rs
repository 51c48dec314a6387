//! A typed value in a block, as in the crate. Of most values the models say themselves when they
//! are read and written. An envelope is read by the code under test, so the model knows what is in
//! it: it is one word, and reading it or writing it is one step.
#![expect(unsafe_code, reason = "as in the crate")]

#[path = "../../../src/object/payload.rs"]
mod source;

use std::ptr::NonNull;

pub(crate) use source::{set_word, word_of, words, zeroed};

use crate::segment::Shm;
use crate::world;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<T> {
    address: NonNull<u8>,
    value: source::Payload<T>,
}

impl<T: Shm> Payload<T> {
    /// # Safety
    /// As in the crate.
    pub(crate) unsafe fn new(address: NonNull<u8>) -> Payload<T> {
        // SAFETY: the caller's promise.
        Payload { address, value: unsafe { source::Payload::new(address) } }
    }

    /// # Safety
    /// As in the crate.
    pub(crate) unsafe fn write(self, value: &T) {
        if is_envelope::<T>() {
            world::open_envelope(self.address);
        }
        // SAFETY: the caller's promise.
        unsafe { self.value.write(value) };
    }

    /// # Safety
    /// As in the crate.
    pub(crate) unsafe fn read(self) -> T {
        self.look();
        // SAFETY: the caller's promise.
        unsafe { self.value.read() }
    }

    /// # Safety
    /// As in the crate.
    pub(crate) unsafe fn get<'a>(self) -> &'a T {
        self.look();
        // SAFETY: the caller's promise.
        unsafe { self.value.get() }
    }

    /// # Safety
    /// As in the crate.
    pub(crate) unsafe fn get_mut<'a>(self) -> &'a mut T {
        if is_envelope::<T>() {
            world::open_envelope(self.address);
        }
        // SAFETY: the caller's promise.
        unsafe { self.value.get_mut() }
    }

    fn look(self) {
        if is_envelope::<T>() {
            world::read_envelope(self.address);
        }
    }
}

/// Whether values of the type say where something lies.
fn is_envelope<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<crate::object::parcel::Envelope>()
}
