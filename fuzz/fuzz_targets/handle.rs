//! Bytes that are taken for what travels between processes: the name of an object, and the account
//! of a child's panic.
//!
//! `cargo +nightly fuzz run handle fuzz/seeds/handle -- -max_total_time=60`
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use offspring::{Fault, Handle, Lock, PanicInfo, Queue, Segment, spsc};

struct World {
    segment: Segment,
    queue: Queue<u64>,
    lock: Lock<u64>,
    /// Kept, so that its roles are taken.
    ring: (spsc::Producer<u64>, spsc::Consumer<u64>),
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let segment = Segment::create(1 << 20).expect("a segment");
    World {
        queue: Queue::with_capacity_in(&segment, 4).expect("a queue"),
        lock: Lock::new_in(&segment, 7).expect("a lock"),
        ring: spsc::ring_in(&segment, 4).expect("a ring"),
        segment,
    }
});

/// Opens what the handle names as every type; only the objects that there are can be had, and only
/// as what they are.
fn open(World { segment, queue, lock, ring }: &World, handle: Handle) {
    let ours = [queue.handle(), lock.handle(), ring.0.handle()];
    let refused = if ours.contains(&handle) { Fault::WrongType } else { Fault::Stale };
    let expected = |is_it: bool| if is_it { None } else { Some(refused) };
    assert_eq!(Queue::<u64>::open(segment, handle).err(), expected(handle == ours[0]));
    assert_eq!(Queue::<u32>::open(segment, handle).err(), Some(refused));
    assert_eq!(Lock::<u64>::open(segment, handle).err(), expected(handle == ours[1]));
    let taken = if handle == ours[2] { Fault::RoleTaken } else { refused };
    assert_eq!(spsc::Producer::<u64>::open(segment, handle).err(), Some(taken));
    assert_eq!(spsc::Consumer::<u64>::open(segment, handle).err(), Some(taken));
}

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    // Through a queue a handle travels as its bytes. Most input gets the segment's id, which nobody
    // guesses.
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        bytes.iter().rev().for_each(|&byte| *word = *word << 8 | u64::from(byte));
    }
    open(world, bytemuck::cast(words));
    words[0] = world.segment.id();
    open(world, bytemuck::cast(words));
    // Within an argument or a result it travels as a serde value.
    if let Ok(handle) = postcard::from_bytes::<Handle>(bytes) {
        open(world, handle);
        let again = postcard::to_stdvec(&handle).expect("encodable");
        assert_eq!(postcard::from_bytes(&again), Ok(handle));
    }
    // With a child's value travels the account of its panic.
    if let Ok(panic) = postcard::from_bytes::<PanicInfo>(bytes) {
        let again = postcard::to_stdvec(&panic).expect("encodable");
        assert_eq!(postcard::from_bytes(&again), Ok(panic));
    }
});
