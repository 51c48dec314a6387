//! What is no struct, or one whose layout is not fixed.

use offspring::Shm;

#[derive(Clone, Copy, Shm)]
#[repr(u8)]
enum Side { //~ an enum cannot be `Shm`: a process that is killed in the middle of writing may leave
    Buy = 1,
}

#[derive(Clone, Copy, Shm)]
#[repr(C)]
union Number { //~ a union cannot be `Shm`: nothing says which of its fields is there
    whole: u32,
    real: f32,
}

#[derive(Clone, Copy, Shm)]
struct Free(u32); //~ `Free` needs `#[repr(C)]`: without it the compiler may order the fields

#[derive(Clone, Copy, Shm)]
#[repr(packed)]
struct Packed { //~ `Packed` needs `#[repr(C)]`
    only: u32,
}

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Generic<T>(T); //~ a generic struct can be `Shm` only with `#[repr(transparent)]`

#[derive(Clone, Copy, Shm)]
#[repr(transparent)]
struct Borrowed<'a>(&'a u8); //~ a struct with references cannot be `Shm`

#[derive(Clone, Copy, Shm)]
#[shm(skip)] //~ the one option is `crate = path`
#[repr(C)]
struct Skipped(u8);

fn main() {}
