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
    Boxed = 12,
    /// Values in a row that one process owns.
    Slice = 13,
    /// Text that one process owns.
    Text = 14,
    /// A queue of values that own memory.
    Owners = 15,
    OwnersChannel = 16,
    /// The list of the objects that a message holds.
    Flight = 17,
    /// A value that is only read.
    Arc = 18,
    /// A slice of values that are only read.
    ArcSlice = 19,
}

const SHIFT: u32 = 56;

/// What a queue's slots hold beside the bytes in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cargo {
    Nothing,
    /// The blocks that the slots' envelopes name.
    Messages,
    /// Blocks that only the type of the values finds.
    Values,
}

/// What is different from one kind of queue to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) cargo: Cargo,
    /// Whether it is that of a channel.
    pub(crate) has_ends: bool,
}

impl Kind {
    /// What kind of queue this is, if it is one.
    pub(crate) fn queue(self) -> Option<Queue> {
        let (cargo, has_ends) = match self {
            Kind::Queue => (Cargo::Nothing, false),
            Kind::Bytes | Kind::Objects => (Cargo::Messages, false),
            Kind::Owners => (Cargo::Values, false),
            Kind::PlainChannel => (Cargo::Nothing, true),
            Kind::BytesChannel | Kind::ObjectsChannel => (Cargo::Messages, true),
            Kind::OwnersChannel => (Cargo::Values, true),
            Kind::Lock
            | Kind::Spsc
            | Kind::Value
            | Kind::Event
            | Kind::Parcel
            | Kind::Boxed
            | Kind::Slice
            | Kind::Text
            | Kind::Flight
            | Kind::Arc
            | Kind::ArcSlice => return None,
        };
        Some(Queue { cargo, has_ends })
    }

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
