//! A value of any type as what it is, where that is one known type.
//!
//! [`Any`](std::any::Any) does this for types that borrow nothing. Code that is generic over values
//! which may borrow cannot ask it; `typeid` gives the id of such a type.
#![expect(unsafe_code, reason = "what was found to be the same type is used as it")]

use std::any::TypeId;
use std::mem::{self, ManuallyDrop};

/// Whether `T` is `U`. For a `U` that has no lifetimes in it, as an id says nothing of them.
fn is_same<T, U: 'static>() -> bool {
    typeid::of::<T>() == TypeId::of::<U>()
}

/// The value as a `Vec<u8>`, if it is one.
pub(crate) fn as_bytes<T>(value: &T) -> Option<&Vec<u8>> {
    // SAFETY: the same type, without lifetimes.
    is_same::<T, Vec<u8>>().then(|| unsafe { &*std::ptr::from_ref(value).cast() })
}

/// What `make` makes as a `T`, if `T` is `Vec<u8>`.
pub(crate) fn from_bytes<T, E>(make: impl FnOnce() -> Result<Vec<u8>, E>) -> Option<Result<T, E>> {
    is_same::<T, Vec<u8>>().then(|| {
        let bytes = ManuallyDrop::new(make()?);
        // SAFETY: the same type, without lifetimes, and the original is not dropped.
        Ok(unsafe { mem::transmute_copy::<ManuallyDrop<Vec<u8>>, T>(&bytes) })
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn only_the_same_type_is_the_same() {
        assert!(is_same::<Vec<u8>, Vec<u8>>());
        assert!(!is_same::<Vec<i8>, Vec<u8>>());
        assert!(!is_same::<Box<Vec<u8>>, Vec<u8>>());
        assert!(!is_same::<&Vec<u8>, Vec<u8>>());
        assert!(!is_same::<Cow<'_, [u8]>, Vec<u8>>());
    }

    #[test]
    fn a_value_that_borrows_is_no_vector() {
        let text = String::from("borrowed");
        assert!(as_bytes(&Cow::Borrowed(text.as_str())).is_none());
        assert!(from_bytes::<Cow<'_, str>, ()>(|| unreachable!("not asked")).is_none());
    }

    #[test]
    fn a_vector_is_itself() {
        let bytes = vec![1_u8, 2, 3];
        assert_eq!(as_bytes(&bytes), Some(&bytes));
        assert_eq!(from_bytes::<Vec<u8>, ()>(|| Ok(vec![4; 1000])), Some(Ok(vec![4; 1000])));
        assert_eq!(from_bytes::<Vec<u8>, u8>(|| Err(7)), Some(Err(7)));
    }
}
