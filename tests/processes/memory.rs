//! What objects and processes cost in memory: pages of a segment, as the kernel counts them.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Uid, setresuid};
use offspring::{
    Fault, Lock, LockError, Queue, Segment, SegmentError, SegmentOptions, ShmBox, TryLockError,
    TrySendError,
};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::fd::SegmentFd;
use crate::common::{fork, raw, sleep_for_ever, state, wait_until};
use crate::harness::{apply, fresh, test};

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

/// A size in `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it says so");
    let kibibytes = line.trim_matches([':', ' ', '\t']).strip_suffix(" kB").expect("a size");
    kibibytes.parse::<u64>().expect("a number") * 1024
}

/// What is in use of the file, with holes.
fn file_len(segment: &Segment) -> u64 {
    rustix::fs::fstat(segment.as_fd()).expect("a descriptor").st_size as u64
}

/// Makes and drops an object of each size from 64 bytes to a quarter of the segment.
fn use_all_sizes(segment: &Segment) {
    let mut len = 64;
    while len <= segment.len() / 4 {
        let object = ShmBox::<[u8]>::zeroed_in(segment, len as usize).expect("room");
        assert_eq!(object.last(), Some(&0));
        len = len * 3 / 2;
    }
}

#[apply(fresh)]
fn the_commons_reserve_a_little_more_than_twice_their_length() {
    let before = status("VmSize");
    let commons = Segment::commons().expect("address space");
    let reserved = status("VmSize") - before;
    assert_eq!(commons.len(), 8 << 30);
    assert!((2 * commons.len()..9 * commons.len() / 4).contains(&reserved), "{reserved} bytes");
    use_all_sizes(&commons);
    assert!(status("VmSize") - before < 9 * commons.len() / 4, "in the same area");
}

/// All sizes are in use once, so this is the most that can be wasted.
#[apply(fresh)]
fn locking_all_memory_allocates_what_was_used() {
    for len in [MIB, 4 * MIB, 64 * MIB] {
        let segment = Segment::create(len).expect("a segment");
        assert!(file_len(&segment) < len / 8 + 128 * 1024, "{} bytes", file_len(&segment));
        drop(Queue::<u64>::with_capacity_in(&segment, 16).expect("room"));
        let of_one = file_len(&segment);
        assert!(of_one < len / 4 + 128 * 1024, "{of_one} bytes");
        if let Err(refused) = mlockall(MlockAllFlags::CURRENT) {
            println!("skipped: this user may not lock memory: {refused}");
            return;
        }
        assert_eq!(used(&segment), file_len(&segment).next_multiple_of(PAGE), "all of it");
        use_all_sizes(&segment);
        rustix::mm::munlockall().expect("munlockall");
        mlockall(MlockAllFlags::CURRENT).expect("mlockall");
        assert!(used(&segment) < 2 * len, "{} bytes of {len}", used(&segment));
        rustix::mm::munlockall().expect("munlockall");
    }
}

/// Page faults of this thread so far that needed no disk.
fn faults() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).expect("known").minor_page_faults()
}

/// Linux 5.14 and later map pages in advance.
fn can_populate() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

#[apply(fresh)]
fn memory_that_was_allocated_in_advance_costs_no_fault_and_stays() {
    let segment = SegmentOptions::new().len(16 * MIB).prefault(true).create().expect("memory");
    let at_first = used(&segment);
    assert!(at_first >= 16 * MIB, "{at_first} bytes");
    let touch = |segment: &Segment| {
        let before = faults();
        let mut object = ShmBox::<[u8]>::zeroed_in(segment, 4 << 20).expect("room");
        object.fill(1);
        faults() - before
    };
    let queue = Queue::<u64>::with_capacity_in(&segment, 16).expect("room");
    let most = if can_populate() { 100 } else { i64::MAX };
    for _ in 0..3 {
        let faults = touch(&segment);
        assert!(faults < most, "{faults} faults");
    }
    let theirs = segment.clone();
    let child = fork(move || {
        queue.send(1).expect("room");
        touch(&theirs)
    });
    let faults = child.expect("fork").join().expect("well");
    assert!(faults < most, "{faults} faults in a child");
    assert_eq!(used(&segment), at_first);
    // The same without it: each page is a fault.
    let other = Segment::create(16 * MIB).expect("a segment");
    assert!(touch(&other) > 100);
}

#[apply(fresh)]
fn memory_that_is_not_there_is_not_allocated_in_advance() {
    let before = status("VmSize");
    let error = SegmentOptions::new().len(1 << 40).prefault(true).create().expect_err("a TiB");
    assert!(matches!(error, SegmentError::Os { call: "fallocate", .. }), "{error}");
    let error = SegmentOptions::new().len(1 << 40).prefault(true).commons().expect_err("a TiB");
    assert!(matches!(error, SegmentError::Os { call: "fallocate", .. }), "{error}");
    assert!(status("VmSize") < before + (1 << 30));
}

#[apply(fresh)]
fn a_locked_segment_is_locked_in_every_process_or_refused() {
    let mut options = SegmentOptions::new();
    let made = options.len(MIB).prefault(true).lock_memory(true).create();
    let Ok(segment) = made else {
        println!("skipped: this user may not lock memory: {made:?}");
        return;
    };
    assert!(status("VmLck") >= MIB);
    let queue = Queue::<u64>::with_capacity_in(&segment, 16).expect("room");
    let theirs = queue.clone();
    let child = fork(move || {
        theirs.send(status("VmLck")).expect("room");
        theirs.send(status("VmLck")).expect("room");
    });
    child.expect("fork").join().expect("well");
    queue.recv().expect("there");
    assert!(queue.recv().expect("there") >= MIB, "as soon as it uses it");
    // A process that may not: its first use is an error, and nothing is sent.
    let theirs = queue.clone();
    let child = fork(move || {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Memlock, none).expect("lower");
        let nobody = Uid::from_raw(65534);
        if setresuid(nobody, nobody, nobody).is_err() {
            return None;
        }
        let error = theirs.try_send(9).expect_err("refused");
        let TrySendError::Broken(9, fault) = error else { panic!("{error:?}") };
        let made = SegmentOptions::new().len(MIB).lock_memory(true).create();
        Some((fault, made.map(|_| ()).map_err(|error| error.to_string())))
    });
    let refused = child.expect("fork").join().expect("well");
    if let Some((fault, made)) = refused {
        assert!(matches!(fault, Fault::Os { call: "mlock2", .. }), "{fault:?}");
        assert!(made.as_ref().is_err_and(|text| text.contains("mlock2")), "{made:?}");
    }
    assert_eq!(queue.recv_timeout(Duration::ZERO).ok(), None);
}

#[apply(test)]
fn large_pages_are_asked_for() {
    let segment = SegmentOptions::new().len(64 * MIB).huge_pages(true).create().expect("memory");
    let mut object = ShmBox::<[u8]>::zeroed_in(&segment, 8 << 20).expect("room");
    object.fill(7);
    assert!(object.iter().all(|&byte| byte == 7));
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let flags = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("VmFlags:"))?;
        Some(line.split_ascii_whitespace().any(|flag| flag == "hg"))
    };
    let advised = maps.split("memfd:offspring").skip(1).filter_map(flags).any(|is_so| is_so);
    let knows = std::path::Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists();
    assert!(advised || !knows, "no mapping of a segment has the advice");
}

/// Offsets of all sizes in use at some time, so that new objects lie beyond the first area.
fn use_up_the_first_area(segment: &Segment) {
    let area = 4 << 30;
    let mut size = segment.len();
    while file_len(segment) < area && size >= 4096 {
        let held: Result<Vec<_>, _> = (0..segment.len() / size)
            .map(|_| ShmBox::<[u8]>::zeroed_in(segment, size as usize))
            .collect();
        drop(held.expect("room"));
        size /= 2;
    }
    assert!(file_len(segment) + segment.len() / 64 >= area, "{} bytes", file_len(segment));
}

/// A reaper that cannot see what a dead process had would give its entry away, and leave its claims
/// in objects to nobody.
#[apply(fresh)]
fn a_process_that_cannot_map_all_of_a_segment_clears_up_after_nobody() {
    let segment = Segment::create(256 * MIB).expect("a segment");
    use_up_the_first_area(&segment);
    // Held, until their header and their block lie beyond it.
    let before = file_len(&segment);
    let locks: Vec<Lock<[u8; 300]>> =
        (0..10).map(|_| Lock::new_in(&segment, [7; 300]).expect("room")).collect();
    assert!(file_len(&segment) > before, "they have groups of their own");
    assert!(file_len(&segment) > 4 << 30, "{} bytes", file_len(&segment));
    let theirs = locks.clone();
    let victim = raw::fork(move || {
        let _guards: Vec<_> = theirs.iter().map(|lock| lock.lock().expect("free")).collect();
        sleep_for_ever();
    });
    wait_until("it has them all", || {
        locks.iter().all(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    });
    let (limited, pid) = (segment.clone(), victim.id());
    let before = (file_len(&segment), segment.stats().expect("all is seen").in_use.bytes);
    let theirs = ShmBox::<[u8]>::zeroed_in(&segment, 700).expect("room");
    assert!(file_len(&segment) > before.0, "it has a group of its own");
    let child = fork(move || {
        assert_eq!(limited.reap(), Ok(0), "nobody is dead, and the first area fits");
        let limit = status("VmSize") + MIB;
        setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: Some(limit) })
            .expect("lower");
        raw::signal(pid.cast_signed(), libc::SIGKILL);
        wait_until("it is dead", || state(pid) == Some('Z'));
        let reaped = limited.reap();
        let says_mmap = |error: &dyn std::error::Error| {
            format!("{error} {:?}", error.source()).contains("mmap failed")
        };
        // It would count what it sees, and all others would go beyond the budget.
        assert!(limited.stats().is_err_and(|fault| says_mmap(&fault)));
        let mut held = Vec::new();
        let refused = loop {
            match ShmBox::<[u8]>::zeroed_in(&limited, 1 << 20) {
                Ok(room) => held.push(room),
                Err(error) => break error,
            }
        };
        assert!(says_mmap(&refused), "{refused:?} after {}", held.len());
        // It can free the first ones and not the last one, which its parent finds.
        drop((held, theirs));
        reaped
    });
    assert_eq!(child.expect("fork").join().expect("a number"), Ok(0), "it sees too little");
    victim.kill();
    assert_eq!(segment.reap().expect("attached"), 1);
    let stats = segment.stats().expect("all is seen");
    assert_eq!((stats.in_use.bytes, stats.charged), (before.1, before.1));
    for lock in &locks {
        assert!(matches!(lock.lock(), Err(LockError::OwnerDied)));
    }
}
