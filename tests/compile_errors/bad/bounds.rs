//! Structs that are not `Copy`, not `'static`, or not of the crate that was named.

use offspring::Shm;

#[derive(Shm)]
#[repr(C)]
struct Moved(u8); //~ `Moved: Copy` is not satisfied

#[derive(Clone, Copy, Shm)]
#[shm(crate = crate::nowhere)] //~ cannot find `nowhere`
#[repr(C)]
struct Lost(u8);

fn main() {}
