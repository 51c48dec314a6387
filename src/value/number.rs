//! Numbers, as values are counted with.

use crate::segment::Shm;

/// An integer or a float of any length: what [`Value`](crate::Value) can add to and compare.
///
/// Implemented for all of Rust's, and not to be implemented for other types.
pub trait Number: Shm + sealed::Arithmetic {}

/// An integer of any length: what [`Value`](crate::Value) can also change bit by bit.
///
/// Implemented for all of Rust's, and not to be implemented for other types.
pub trait Integer: Number + sealed::Bits {}

/// What stays ours to change.
pub(super) mod sealed {
    pub trait Arithmetic {
        fn plus(self, other: Self) -> Self;
        fn minus(self, other: Self) -> Self;
        fn larger(self, other: Self) -> Self;
        fn smaller(self, other: Self) -> Self;
    }

    pub trait Bits {
        fn and(self, other: Self) -> Self;
        fn or(self, other: Self) -> Self;
        fn xor(self, other: Self) -> Self;
    }
}

macro_rules! numbers {
    ($plus:expr, $minus:expr; $($number:ident)*) => {$(
        impl sealed::Arithmetic for $number {
            fn plus(self, other: $number) -> $number {
                $plus(self, other)
            }

            fn minus(self, other: $number) -> $number {
                $minus(self, other)
            }

            fn larger(self, other: $number) -> $number {
                self.max(other)
            }

            fn smaller(self, other: $number) -> $number {
                self.min(other)
            }
        }

        impl Number for $number {}
    )*};
}

macro_rules! integers {
    ($($number:ident)*) => {$(
        numbers!($number::wrapping_add, $number::wrapping_sub; $number);

        impl sealed::Bits for $number {
            fn and(self, other: $number) -> $number {
                self & other
            }

            fn or(self, other: $number) -> $number {
                self | other
            }

            fn xor(self, other: $number) -> $number {
                self ^ other
            }
        }

        impl Integer for $number {}
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
numbers!(|one, other| one + other, |one, other| one - other; f32 f64);
