//! How much memory of a segment can be had, by the public API alone.

use offspring::{CreateError, Lock, Queue, Segment};

/// How many objects of some sizes can be had. Making them clears up after the dead when the memory
/// is spent.
pub fn room(segment: &Segment) -> String {
    let measure = || {
        let locks = all_of(|| Lock::new_in(segment, 0_u64));
        let small = all_of(|| Queue::<[u64; 3]>::with_capacity_in(segment, 4));
        let middle = all_of(|| Queue::<[u8; 1000]>::with_capacity_in(segment, 4));
        let mut most = segment.len() / 1024;
        while Queue::<[u8; 1016]>::with_capacity_in(segment, most as usize).is_err() {
            most -= 1;
        }
        format!("{locks} locks, {small} small, {middle} middle, one of {most} KiB")
    };
    let found = measure();
    // Every block has now been used and given back by somebody who is alive.
    assert_eq!(measure(), found, "what was given back is not to be had again");
    found
}

/// Makes as many as can be had, counts and drops them.
fn all_of<T>(make: impl Fn() -> Result<T, CreateError>) -> usize {
    let made: Vec<T> = std::iter::from_fn(|| make().ok()).collect();
    made.len()
}
