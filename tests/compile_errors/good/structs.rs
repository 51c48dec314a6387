//! Every form of struct that is accepted, in a program that forbids `unsafe`.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use offspring::Shm;

/// Named fields.
#[derive(Clone, Copy, Shm)]
#[repr(C)]
pub struct Tick {
    /// What it costs.
    pub price: f64,
    size: u32,
    side: u32,
}

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Pair(u8, u8);

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Nothing;

#[derive(Clone, Copy, Shm)]
#[repr(C, packed(2))]
struct Packed {
    small: u16,
    large: u64,
}

#[derive(Clone, Copy, Shm)]
#[repr(C, align(64))]
struct Line([u64; 8]);

#[derive(Clone, Copy, Shm)]
#[repr(C)]
struct Nested {
    tick: Tick,
    r#type: [Pair; 2],
    name: Text<4>,
    handle: offspring::Handle,
}

#[derive(Clone, Copy, Shm)]
#[repr(transparent)]
struct Text<const N: usize>([u8; N]);

#[derive(Clone, Copy, Shm)]
#[repr(transparent)]
struct Several<T, const N: usize = 3>
where
    T: PartialEq,
{
    values: [T; N],
    of: core::marker::PhantomData<T>,
}

fn accept<T: Shm>() {}

fn main() {
    accept::<Tick>();
    accept::<Pair>();
    accept::<Nothing>();
    accept::<Packed>();
    accept::<Line>();
    accept::<Nested>();
    accept::<Text<7>>();
    accept::<Several<u64>>();
    let _ = (Tick { price: 1.0, size: 2, side: 3 }, Pair(1, 2), Nothing, Line([0; 8]));
    let _ = Packed { small: 1, large: 2 };
    let _ = |nested: Nested| (nested.tick.size, nested.tick.side, nested.r#type, nested.handle);
    let _ = |nested: Nested| (nested.name.0, nested.r#type[0].0, nested.r#type[0].1);
    let _ = |several: Several<u8>| (several.values, several.of);
    let _ = |packed: Packed, line: Line| (packed.small, packed.large, line.0);
}
