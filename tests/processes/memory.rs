//! What objects and processes cost in memory: pages of a segment, as the kernel counts them.

use offspring::{Queue, Segment};

use crate::common::fd::SegmentFd;
use crate::common::fork;
use crate::harness::{apply, test};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Bytes of a slot for a `u64`: its word and the message.
const SLOT: u64 = 16;

/// Bytes of the segment that have pages.
fn used(segment: &Segment) -> u64 {
    rustix::fs::fstat(segment.as_fd()).expect("a descriptor").st_blocks as u64 * 512
}

#[apply(test)]
fn a_queue_costs_its_slots_and_at_most_a_kilobyte_more() {
    for (capacity, count) in [(1, 2000), (16, 2000), (200, 1000), (256, 500), (4096, 100)] {
        let segment = Segment::create(64 * MIB).expect("a segment");
        // Attaching and the first block bring pages with them.
        let first = Queue::<u64>::with_capacity_in(&segment, capacity).expect("room");
        let before = used(&segment);
        let queues: Vec<Queue<u64>> = (0..count)
            .map(|_| Queue::with_capacity_in(&segment, capacity).expect("room"))
            .collect();
        let each = (used(&segment) - before) / count;
        let slots = capacity as u64 * SLOT;
        println!("{capacity} slots: {slots} bytes of slots, {each} bytes of memory");
        // A block of more than a page has pages of its own, the last of them not full.
        let rest = if slots + 1024 > PAGE { PAGE } else { 0 };
        assert!(each <= slots + 1024 + rest, "{each} bytes for {capacity} slots");
        drop((first, queues));
    }
}

#[apply(test)]
fn memory_follows_use_and_falls_again() {
    let segment = Segment::create(64 * MIB).expect("a segment");
    drop(Queue::<u64>::with_capacity_in(&segment, 4).expect("room"));
    let before = used(&segment);
    assert!(before < MIB, "{before} bytes for nothing");
    for _ in 0..3 {
        let queue = Queue::<u64>::with_capacity_in(&segment, 1 << 20).expect("room");
        assert!(used(&segment) >= before + 16 * MIB);
        drop(queue);
        assert!(used(&segment) <= before + 16 * PAGE, "{} bytes, {before} before", used(&segment));
    }
}

#[apply(test)]
fn an_attached_process_costs_at_most_256_bytes() {
    const CHILDREN: u64 = 200;
    let segment = Segment::create(64 * MIB).expect("a segment");
    let (arrived, leave) = (
        Queue::<u64>::with_capacity_in(&segment, 256),
        Queue::<u64>::with_capacity_in(&segment, 1),
    );
    let (arrived, leave) = (arrived.expect("room"), leave.expect("room"));
    let before = used(&segment);
    let children: Vec<_> = (0..CHILDREN)
        .map(|number| {
            let (arrived, leave) = (arrived.clone(), leave.clone());
            fork(move || {
                arrived.send(number).expect("open");
                assert!(leave.recv().is_err(), "closed");
            })
            .expect("fork")
        })
        .collect();
    for _ in 0..CHILDREN {
        arrived.recv().expect("open");
    }
    let each = (used(&segment) - before) / CHILDREN;
    println!("{each} bytes for a process");
    assert!(each <= 256, "{each} bytes for a process");
    leave.close();
    for child in children {
        child.join().expect("well");
    }
}
