//! The kind of an object, and the kind word of its block.

use crate::segment::Shm;
use crate::segment::pod::{fingerprint_as, fingerprint_of_name};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $tag:literal),* $(,)?) => {
        /// The kind of an object. Its number is the high byte of the kind word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind {
            $($(#[$doc])* $kind = $tag),*
        }

        impl Kind {
            #[cfg(test)]
            const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// The kind that this word names; `None` if it names none.
            pub(crate) fn of(word: u64) -> Option<Kind> {
                match word >> SHIFT {
                    $($tag => Some(Kind::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

// Files contain these numbers, so a number is never given to another kind.
kinds! {
    Queue = 1,
    Lock = 2,
    Spsc = 3,
    Value = 4,
    Event = 5,
    /// A queue of messages of any length.
    Bytes = 6,
    /// A queue of serialized values.
    Objects = 7,
    /// The contents of a message, on their way.
    Parcel = 8,
    PlainChannel = 9,
    BytesChannel = 10,
    ObjectsChannel = 11,
    /// A value that one process owns.
    Boxed = 16,
    /// Values in a row that one process owns.
    Slice = 17,
    /// Text that one process owns.
    Text = 18,
    /// A queue of values that own memory.
    Owners = 19,
    OwnersChannel = 20,
}

const SHIFT: u32 = 56;

impl Kind {
    /// The kind word of an object with values of type `T`: the kind's number, and below it a hash
    /// of the type.
    pub(crate) fn with<T: Shm>(self) -> u64 {
        self.tagged(fingerprint_as::<T, T>())
    }

    /// The kind word of an object with values of type `T`, which lie there as `W`.
    pub(crate) fn with_wire<T, W: Shm>(self) -> u64 {
        self.tagged(fingerprint_as::<T, W>())
    }

    /// The kind word of an object with values of type `T`, which are serialized: as
    /// [`Kind::with`], by the name of the type alone.
    pub(crate) fn named<T>(self) -> u64 {
        self.tagged(fingerprint_of_name::<T>())
    }

    fn tagged(self, fingerprint: u64) -> u64 {
        (self as u64) << SHIFT | fingerprint & ((1 << SHIFT) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_word_says_the_kind_and_the_type() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::of(kind.with::<u64>()), Some(kind));
            assert_ne!(kind.with::<u64>(), kind.with::<i64>());
        }
        assert_eq!(Kind::of(0), None);
        assert_eq!(Kind::of(u64::MAX), None);
    }
}
