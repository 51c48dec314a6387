//! Types that somebody new to shared memory would send.
//? `bool` cannot lie in memory that processes share
//? does not implement `offspring::Shm`
//? = note: a struct of your own: `#[derive(Clone, Copy, offspring::Shm)]` and `#[repr(C)]`
//? = note: a tuple: make it such a struct, with a name for each field
//? = note: `bool`, `char` or an enum: send it through an `offspring::channel` or an `ObjectQueue`, or as an integer, such as `value as u8`, that you check when it is received, as not every byte is a valid value
//? = note: `String`, `Vec`, `Box` or a reference: it points to memory that only this process has; send the value through an `offspring::channel` or an `ObjectQueue`, or the bytes themselves, in an array of fixed length

use offspring::{Lock, Shm, spsc};

#[derive(Clone, Copy)]
enum Side {
    Buy,
}

#[derive(Clone, Copy)]
struct Tick {
    price: f64,
}

fn accept<T: Shm>() {}

fn main() {
    accept::<bool>(); //~ `bool` cannot lie in memory that processes share
    accept::<String>(); //~ `String` cannot lie in memory that processes share
    accept::<(u8, u8)>(); //~ `(u8, u8)` cannot lie in memory that processes share
    accept::<Side>(); //~ `Side` cannot lie in memory that processes share
    accept::<Tick>(); //~ `Tick` cannot lie in memory that processes share
    accept::<[char; 2]>(); //~ `[char; 2]` cannot lie in memory that processes share
    let _ = Lock::new(Side::Buy); //~ `Side` cannot lie in memory that processes share
    let _ = spsc::ring::<bool>(4); //~ `bool` cannot lie in memory that processes share
}
