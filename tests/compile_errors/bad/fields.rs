//! Fields that are not `Shm`, and gaps between fields.

use offspring::Shm;

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Flag {
    number: u8,
    set: bool, //~ `bool` cannot lie in memory that processes share
}

#[derive(Clone, Copy, Shm)]
#[repr(transparent)]
struct Letters<const N: usize>([char; N]); //~ `[char; N]` cannot lie in memory that processes share

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Between {
    venue: u8,
    price: f64, //~ `Between` has padding before its field `price`: put larger fields first
}

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct After {
    price: f64,
    venue: u8, //~ `After` has padding after its last field: put larger fields first
}

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Tuple(u8, u16); //~ `Tuple` has padding before its field `1`

#[derive(Clone, Copy, Shm)]
#[repr(C, align(16))]
struct Aligned(u64); //~ `Aligned` has padding after its last field

#[derive(Clone, Copy, Shm)]
#[repr(C, align(8))]
struct Empty(); // No bytes, and so none that are padding.

fn main() {}
