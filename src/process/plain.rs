//! Values that are sent as their own bytes: long vectors of numbers, and long text.
//!
//! Encoding and decoding such a value number by number takes ten times as long as copying it.
//! Parent and child are the same program, so the bytes mean the same in both.
//!
//! Called by `outcome.rs`. What is read is not trusted: any bytes are valid numbers, and text is
//! checked.

use std::any::Any;

use bytemuck::{NoUninit, Pod};
use rustix::io::Errno;

use crate::process::failure::Failure;
use crate::sys::error::OsError;
use crate::sys::memory;

/// Length in bytes of the shortest value that is sent like this. A shorter one is encoded about as
/// fast, and may fit into the position of the file.
const SHORTEST: usize = 4096;

/// Calls the macro with all types of numbers.
macro_rules! each_number {
    ($call:ident) => {
        $call!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64)
    };
}

/// The bytes of a long `Vec` of numbers or `String`, by itself or as the `Ok` of a `Result<_,
/// Failure>`; `None` for any other value.
#[inline]
pub(super) fn bytes_of<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    let mut bytes = part::<String>(value).map(|text| text.as_bytes());
    macro_rules! try_each {
        ($($number:ty)*) => {
            $(bytes = bytes.or_else(|| numbers::<$number>(value));)*
        };
    }
    each_number!(try_each);
    bytes.filter(|bytes| bytes.len() >= SHORTEST)
}

#[inline]
fn numbers<N: NoUninit>(value: &dyn Any) -> Option<&[u8]> {
    part::<Vec<N>>(value).map(|numbers| bytemuck::cast_slice(numbers))
}

#[inline]
fn part<P: 'static>(value: &dyn Any) -> Option<&P> {
    match value.downcast_ref::<Result<P, Failure>>() {
        Some(result) => result.as_ref().ok(),
        None => value.downcast_ref(),
    }
}

/// Makes a value of `len` bytes, which `fill` writes. The inner error says why the bytes are not
/// such a value; the outer one, that there is no memory or that `fill` failed.
pub(super) fn read<T: 'static>(
    len: usize,
    fill: impl Fn(&mut [u8]) -> Result<(), OsError>,
) -> Result<Result<T, String>, OsError> {
    if is_made_of::<T, String>() {
        let mut bytes = zeroed_vec::<u8>(len)?;
        fill(&mut bytes)?;
        return Ok(match String::from_utf8(bytes) {
            Ok(text) => from_part(text).ok_or_else(unexpected),
            Err(error) => Err(error.utf8_error().to_string()),
        });
    }
    macro_rules! try_each {
        ($($number:ty)*) => {
            $(if is_made_of::<T, Vec<$number>>() {
                if !len.is_multiple_of(size_of::<$number>()) {
                    return Ok(Err(format!("{len} bytes for {}", stringify!(Vec<$number>))));
                }
                let mut numbers = zeroed_vec::<$number>(len / size_of::<$number>())?;
                fill(bytemuck::cast_slice_mut(&mut numbers))?;
                return Ok(from_part(numbers).ok_or_else(unexpected));
            })*
        };
    }
    each_number!(try_each);
    Ok(Err(unexpected()))
}

fn unexpected() -> String {
    String::from("bytes that are no value of this type")
}

/// Whether `T` is `P` or `Result<P, Failure>`.
fn is_made_of<T: 'static, P: 'static>() -> bool {
    let none: &dyn Any = &None::<T>;
    none.is::<Option<P>>() || none.is::<Option<Result<P, Failure>>>()
}

/// Makes a `T`, which is `P` or `Result<P, Failure>`, from `part`.
fn from_part<T: 'static, P: 'static>(part: P) -> Option<T> {
    fn same<T: 'static, V: 'static>(value: &mut Option<V>) -> Option<T> {
        let value: &mut dyn Any = value;
        value.downcast_mut::<Option<T>>()?.take()
    }
    let mut part = Some(part);
    match same(&mut part) {
        Some(value) => Some(value),
        None => same(&mut part.map(Ok::<P, Failure>)),
    }
}

/// A vector of zeros that is about to be filled. Its memory is not touched here.
pub(super) fn zeroed_vec<N: Pod>(len: usize) -> Result<Vec<N>, OsError> {
    let mut numbers = bytemuck::allocation::try_zeroed_vec::<N>(len)
        .map_err(|()| OsError { call: "malloc", errno: Errno::NOMEM })?;
    memory::expect_filling(bytemuck::cast_slice_mut(&mut numbers));
    Ok(numbers)
}
