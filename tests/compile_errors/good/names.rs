//! The names that the derived code uses mean something else here.
#![allow(dead_code, unused_macros, non_camel_case_types)]

mod core {}
mod std {}
mod bytemuck {}

type u8 = u64;
trait Pod {}
trait Zeroable {}
trait Send {}
trait Copy {}
trait Shm {}
macro_rules! assert {
    ($($anything:tt)*) => {
        compile_error!("not this one")
    };
}

const fn end() -> usize {
    2
}
const fn size_of() -> usize {
    3
}
const fn size_of_shm() -> usize {
    4
}

#[derive(::core::clone::Clone, ::core::marker::Copy, offspring::Shm)]
#[repr(C)]
struct T {
    end: [u16; end()],
    size_of: [u32; size_of()],
    size_of_shm: [u32; size_of_shm()],
    last: u8,
}

/// Inside a function there is no path to the names of a struct but its own.
fn main() {
    #[derive(::core::clone::Clone, ::core::marker::Copy, offspring::Shm)]
    #[repr(transparent)]
    struct Local<T>(T);

    fn accept<T: offspring::Shm>() {}
    accept::<T>();
    accept::<Local<i8>>();
}
