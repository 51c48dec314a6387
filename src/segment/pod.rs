//! Bit validity: which types may live in memory that several processes share.
#![expect(unsafe_code, reason = "implements the unsafe marker trait for all plain old data")]

/// A type whose values may live in a segment and be copied between processes.
///
/// Implemented for integers, floats, arrays of them, and every other [`bytemuck::Pod`] type. For
/// your own struct, write `#[derive(Clone, Copy, offspring::Shm)]` and `#[repr(C)]`.
///
/// # Safety
/// - Every bit pattern is a valid value: a process that is killed while it writes may leave a
///   mixture of two values, and [`Lock`](crate::Lock) shows it to the next owner.
/// - No byte is uninitialised (padding): other processes would see whatever lies there.
/// - No pointers, references, descriptors or addresses: they mean nothing in another process.
/// - No `Drop` and no interior mutability: the bytes are copied in and out.
///
/// # Examples
/// ```
/// #[derive(Clone, Copy, offspring::Shm)]
/// #[repr(C)]
/// struct Order {
///     price: f64,
///     quantity: u32,
///     side: u32,
/// }
///
/// fn may_be_shared<T: offspring::Shm>() {}
/// may_be_shared::<Order>();
/// ```
/// A type with invalid bit patterns is refused:
/// ```compile_fail,E0277
/// fn may_be_shared<T: offspring::Shm>() {}
/// may_be_shared::<bool>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot lie in memory that processes share",
    label = "does not implement `offspring::Shm`",
    note = "a struct of your own: `#[derive(Clone, Copy, offspring::Shm)]` and `#[repr(C)]`",
    note = "a tuple: make it such a struct, with a name for each field",
    note = "`bool`, `char` or an enum: send it through an `offspring::channel` or an \
            `ObjectQueue`, or as an integer, such as `value as u8`, that you check when it is \
            received, as not every byte is a valid value",
    note = "`String`, `Vec`, `Box` or a reference: it points to memory that only this process \
            has; send the value through an `offspring::channel` or an `ObjectQueue`, or the bytes \
            themselves, in an array of fixed length"
)]
pub unsafe trait Shm: Copy + Send + 'static {}

// Without the first attribute the compiler's message would name `Pod`, which the user did not ask
// for.
#[diagnostic::do_not_recommend]
// SAFETY: `Pod` promises that any bit pattern is valid, that there is no padding, no pointer, no
// interior mutability, and it is `Copy`, so there is no `Drop`.
unsafe impl<T: bytemuck::Pod + Send> Shm for T {}

/// Fingerprint of a type. Two processes that share an object must agree on it.
///
/// Made from the name, the size and the alignment. The name distinguishes types of the same shape
/// within one program and between builds of it; after a type is renamed, opening an existing object
/// in a file is an error, and never yields a wrong value.
///
/// It is that of `T`, whose values lie in shared memory as `W`, which is `T` itself if it may.
pub(crate) fn fingerprint_as<T, W: Shm>() -> u64 {
    let mut hash = Fnv::new();
    hash.write(std::any::type_name::<T>().as_bytes());
    hash.write(&(size_of::<W>() as u64).to_le_bytes());
    hash.write(&(align_of::<W>() as u64).to_le_bytes());
    hash.finish()
}

/// Fingerprint of a type whose values are serialized: made from its name alone.
pub(crate) fn fingerprint_of_name<T>() -> u64 {
    let mut hash = Fnv::new();
    hash.write(std::any::type_name::<T>().as_bytes());
    hash.finish()
}

/// The FNV-1a hash: short, the same in every build, and not a secret.
///
/// # Source
/// Fowler, Noll, Vo; <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) const fn write(&mut self, bytes: &[u8]) {
        let mut index = 0;
        while index < bytes.len() {
            self.0 = (self.0 ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
            index += 1;
        }
    }

    pub(crate) const fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_same_shape_have_different_fingerprints() {
        assert_eq!(fingerprint_as::<u64, u64>(), fingerprint_as::<u64, u64>());
        assert_ne!(fingerprint_as::<u64, u64>(), fingerprint_as::<i64, i64>());
        assert_ne!(fingerprint_as::<[u32; 2], [u32; 2]>(), fingerprint_as::<[u32; 3], [u32; 3]>());
    }
}
