//! Objects come and go, and leave nothing behind.

use std::os::unix::fs::MetadataExt;

use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::BLOCK_HEADER_SIZE;
use crate::{
    CreateError, Handle, Lock, Queue, RecvError, Segment, TryUpdateError, UpdateTimeoutError,
    Value, spsc,
};

fn pages_in_use(segment: &Segment) -> u64 {
    let file = std::fs::File::from(
        segment.mapping().fd().expect("ours").try_clone_to_owned().expect("dup"),
    );
    file.metadata().expect("metadata").blocks() * 512
}

#[test]
fn dropped_objects_leave_no_block() {
    let segment = Segment::create(1 << 24).expect("a segment");
    let queue = Queue::<u64>::with_capacity_in(&segment, 10).expect("a queue");
    let clone = queue.clone();
    let opened = Queue::<u64>::open(&segment, queue.handle()).expect("the queue");
    let lock = Lock::new_in(&segment, 1_u8).expect("a lock");
    let ring = spsc::ring_in::<u8>(&segment, 9).expect("a ring");
    assert_eq!(segment.blocks_in_use(), 3);
    drop((queue, clone));
    assert_eq!(segment.blocks_in_use(), 3, "one handle is left");
    drop((opened, lock, ring));
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn many_objects_live_side_by_side() {
    let segment = Segment::create(1 << 26).expect("a segment");
    let queues: Vec<Queue<u64>> =
        (0..2000).map(|_| Queue::with_capacity_in(&segment, 4).expect("a queue")).collect();
    for (n, queue) in queues.iter().enumerate() {
        queue.send(n as u64).expect("room");
    }
    for (n, queue) in queues.iter().enumerate() {
        assert_eq!(queue.recv(), Ok(n as u64));
    }
    drop(queues);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn memory_follows_use_and_falls_again() {
    let segment = Segment::create(1 << 28).expect("a segment");
    let before = pages_in_use(&segment);
    let queue = Queue::<[u8; 4096]>::with_capacity_in(&segment, 4096).expect("16 MiB of slots");
    let during = pages_in_use(&segment);
    assert!(during >= before + (16 << 20), "backed when it is made");
    assert!(during <= before + (18 << 20), "and not much more: {}", during - before);
    drop(queue);
    assert!(pages_in_use(&segment) < before + (1 << 20));
}

/// As a process leaves them that is killed when the kernel has given it pages and before it has
/// noted how many.
#[test]
fn pages_that_no_header_knows_of_go_back_with_their_block() {
    let segment = Segment::create(1 << 28).expect("a segment");
    let before = pages_in_use(&segment);
    let queue = Queue::<[u8; 4096]>::with_capacity_in(&segment, 4096).expect("16 MiB of slots");
    let (class, index) = (queue.handle().block >> 32, queue.handle().block & 0xffff_ffff);
    let headers = segment.mapping().layout().classes()[class as usize].headers;
    let region = segment.mapping().region().expect("mapped");
    let pages: &AtomicU64 =
        region.at(headers + index * BLOCK_HEADER_SIZE + 24).expect("within the segment");
    assert!(pages.swap(0, Ordering::Relaxed) & 0xffff_ffff > 4096, "pages of this block");
    drop(queue);
    assert!(pages_in_use(&segment) < before + (1 << 20));
}

#[test]
fn a_refused_object_takes_nothing() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let most = Queue::<u8>::with_capacity_in(&segment, 40_000).expect("most of the segment");
    assert!(Queue::<u8>::with_capacity_in(&segment, 40_000).is_err());
    assert_eq!(segment.blocks_in_use(), 1);
    drop(most);
    for _ in 0..10 {
        drop(Queue::<u8>::with_capacity_in(&segment, 40_000).expect("room"));
    }
}

#[test]
fn objects_a_little_larger_than_a_block_size_fill_the_whole_budget() {
    let segment = Segment::create(1 << 20).expect("a segment");
    // There are 128 blocks of the 8 KiB that such a ring takes, and the budget is enough for 195
    // rings.
    let bytes = 640 + 512 + 4200;
    let rings: Vec<_> = (0..).map_while(|_| spsc::ring_in::<u8>(&segment, 4200).ok()).collect();
    assert_eq!(rings.len(), (1 << 20) / bytes);
}

#[test]
fn handles_that_nobody_made_are_stale() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue = Queue::<u8>::with_capacity_in(&segment, 4).expect("a queue");
    let good = queue.handle();
    for block in [good.block + 1, good.block + (1 << 32), 1 << 40, u64::MAX] {
        assert_eq!(
            Queue::<u8>::open(&segment, Handle { block, ..good }).unwrap_err(),
            crate::Fault::Stale
        );
    }
    for generation in [good.generation + 1, 1 << 40, u64::MAX] {
        assert_eq!(
            Queue::<u8>::open(&segment, Handle { generation, ..good }).unwrap_err(),
            crate::Fault::Stale
        );
    }
    queue.send(1).expect("not disturbed");
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn the_copy_of_a_segment_file_holds_objects_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = ["original", "copy"].map(|name| folder.path().join(name));
    let original = Segment::create_file(&paths[0], 1 << 16).expect("a segment");
    let lock = Lock::new_in(&original, 7_u64).expect("a lock");
    std::fs::copy(&paths[0], &paths[1]).expect("a copy");
    let copy = Segment::open_file(&paths[1]).expect("the same segment id, in another file");
    let copied = Lock::<u64>::open(&copy, lock.handle()).expect("copied with the file");
    drop(lock);
    assert_eq!(original.blocks_in_use(), 0, "nobody holds the original");
    assert_eq!(*copied.lock().expect("free"), 7);
}

#[test]
fn threads_that_open_a_file_at_once_get_the_same_mapping() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..100 {
        let path = folder.path().join(round.to_string());
        drop(Segment::create_file(&path, 1 << 16).expect("a segment"));
        let gate = std::sync::Barrier::new(2);
        let open = || {
            gate.wait();
            Segment::open_file(&path).expect("the segment")
        };
        let (first, second) = std::thread::scope(|scope| {
            let (first, second) = (scope.spawn(open), scope.spawn(open));
            (first.join().expect("no panic"), second.join().expect("no panic"))
        });
        assert!(std::sync::Arc::ptr_eq(first.mapping(), second.mapping()), "round {round}");
    }
}

#[test]
fn a_handle_travels_as_a_serde_value() {
    let lock = Lock::new_in(&Segment::create(1 << 16).expect("a segment"), 7_u8).expect("a lock");
    let bytes = postcard::to_stdvec(&lock.handle()).expect("encodable");
    assert_eq!(postcard::from_bytes(&bytes), Ok(lock.handle()));
    for len in 0..bytes.len() {
        assert!(
            postcard::from_bytes::<Handle>(&bytes[..len]).is_err(),
            "{len} of {} bytes",
            bytes.len()
        );
    }
}

/// What a user sees who prints one of the types, which `dbg!` and `{:?}` in an assertion do.
#[test]
fn everything_that_users_hold_prints_what_it_is() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let again = Segment::open(segment.mapping().fd().expect("ours"));
    assert_eq!(segment.id(), again.expect("the same segment").id());
    assert_ne!(segment.id(), Segment::create(1 << 16).expect("another").id());

    let lock = Lock::new_in(&segment, 7_u8).expect("a lock");
    let value = Value::new_in(&segment, 7_u8).expect("a value");
    for (printed, name, handle) in [
        (format!("{lock:?}"), "Lock", lock.handle()),
        (format!("{value:?}"), "Value", value.handle()),
    ] {
        assert_eq!(printed, format!("{name} {{ handle: {handle:?}, .. }}"));
    }
    assert_eq!(format!("{:?}", lock.lock().expect("free")), "7");
    assert_eq!(
        format!("{:?}", lock.recover().expect("free")),
        "RecoveryGuard { state: Clean, value: 7 }"
    );

    let queue = Queue::<u8>::with_capacity_in(&segment, 1).expect("a queue");
    let mut slot = queue.reserve().expect("open");
    assert_eq!(format!("{slot:?}"), "Reservation { slot: Some(0), .. }");
    slot.write(8);
    slot.commit();
    assert_eq!(format!("{:?}", queue.recv_ref().expect("a message")), "8");
    queue.send(9).expect("open");
    let error = queue.try_send_many(&[1]).expect_err("full");
    assert_eq!((error.sent, format!("{error:?}")), (0, error.to_string()));
    assert!(!error.to_string().is_empty());
    queue.close();
    let mut messages = queue.iter();
    assert_eq!((messages.next(), messages.end()), (Some(9), None));
    assert_eq!((messages.next(), messages.end()), (None, Some(RecvError::Closed)));

    for (printed, text) in [
        (format!("{:?}", TryUpdateError::WouldBlock), TryUpdateError::WouldBlock.to_string()),
        (format!("{:?}", UpdateTimeoutError::Timeout), UpdateTimeoutError::Timeout.to_string()),
    ] {
        assert_eq!(printed, text);
        assert!(!text.is_empty());
    }
}

/// A block keeps the bytes of the object that had it before.
#[test]
fn a_new_object_finds_nothing_of_the_one_that_was_there() {
    fn twice<O>(make: impl Fn() -> O, handle: impl Fn(&O) -> Handle, spoil: impl Fn(O)) -> O {
        let first = make();
        let before = handle(&first);
        spoil(first);
        let second = make();
        assert_eq!(handle(&second).block, before.block, "the same memory");
        assert_ne!(handle(&second), before);
        second
    }
    let segment = Segment::create(1 << 16).expect("a segment");

    let lock = || Lock::new_in(&segment, 1_u64).expect("a lock");
    let spoil: [fn(Lock<u64>); 2] = [
        |lock| std::mem::forget(lock.lock().expect("free")),
        |lock| {
            let panicked = std::panic::catch_unwind(|| {
                let _guard = lock.lock().expect("free");
                panic!("with the lock");
            });
            assert!(panicked.is_err() && lock.lock().is_err());
        },
    ];
    for spoil in spoil {
        let lock = twice(lock, Lock::handle, spoil);
        assert_eq!(lock.lock().map(|guard| *guard), Ok(1));
    }

    let queue = || Queue::<u64>::with_capacity_in(&segment, 3).expect("a queue");
    let queue = twice(queue, Queue::handle, |queue| {
        (0..3).for_each(|n| queue.send(n).expect("open"));
        assert_eq!(queue.recv(), Ok(0));
        std::mem::forget(queue.reserve().expect("open"));
        queue.close();
    });
    assert_eq!((queue.is_empty(), queue.len(), queue.is_closed()), (true, 0, false));
    (0..3).for_each(|n| queue.try_send(n).expect("room"));
    assert!((0..3).all(|n| queue.try_recv() == Ok(n)));

    let ring = || spsc::ring_in::<u64>(&segment, 3).expect("a ring");
    let (mut sender, mut receiver) = twice(
        ring,
        |(sender, _)| sender.handle(),
        |(mut sender, mut receiver)| {
            sender.send(6).expect("room");
            assert_eq!(receiver.recv(), Ok(6));
            sender.send(7).expect("room");
        },
    );
    assert!(sender.is_empty() && receiver.is_empty());
    (0..3).for_each(|n| sender.try_send(n).expect("room"));
    assert!((0..3).all(|n| receiver.try_recv() == Ok(n)));

    let value = || Value::new_in(&segment, [1_u64; 3]).expect("a value");
    let value = twice(value, Value::handle, |value| {
        let panicked = std::panic::catch_unwind(|| {
            value.update(|words| {
                *words = [2; 3];
                panic!("while changing it")
            })
        });
        assert!(panicked.is_err());
        value.set([3; 3]).expect("free");
    });
    assert_eq!(value.get(), Ok([1; 3]));
    value.try_update(|words| words[0] = 4).expect("free");
    assert_eq!(value.get(), Ok([4, 1, 1]));
}

/// What one process writes must not slow down those that use the object beside it.
#[test]
fn words_that_several_processes_write_have_two_cache_lines_alone() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let handles = [
        crate::Value::new_in(&segment, 1_u8).expect("a value").handle(),
        Lock::new_in(&segment, 1_u8).expect("a lock").handle(),
        crate::Event::new_in(&segment).expect("an event").handle(),
    ];
    for handle in handles {
        let class = segment.mapping().layout().classes()[(handle.block >> 32) as usize];
        assert!(class.block_size >= 128 && class.base.is_multiple_of(128), "{class:?}");
    }
}

/// Without them, the first touch of a header could be a SIGBUS on a full file system.
#[test]
fn headers_have_pages_before_they_are_used() {
    // 64 at a time, of 192 bytes each.
    const AT_A_TIME: u64 = 64 * 192;
    let segment = Segment::create(1 << 20).expect("a segment");
    let fixed = segment.mapping().layout().fixed_part();
    assert!(pages_in_use(&segment) >= fixed, "header, peer table, words of the heap");
    let mut locks = Vec::new();
    for _ in 0..3 {
        let before = pages_in_use(&segment);
        locks.push(Lock::new_in(&segment, 0_u64).expect("a lock"));
        let grown = pages_in_use(&segment) - before;
        assert!(grown >= AT_A_TIME, "{grown} bytes after {} locks", locks.len());
        let before = pages_in_use(&segment);
        (0..63).for_each(|_| locks.push(Lock::new_in(&segment, 0_u64).expect("a lock")));
        let grown = pages_in_use(&segment) - before;
        assert!(grown <= 64 * 256, "{grown} bytes for 63 locks whose headers have pages");
    }
}

#[test]
fn a_refusal_says_how_much_is_left() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let left = || match Queue::<u8>::with_capacity_in(&segment, 1 << 16) {
        Err(CreateError::OutOfMemory { available, .. }) => available,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(), 1 << 16);
    let lock = Lock::new_in(&segment, [0_u8; 1000]).expect("a lock");
    assert_eq!(left(), (1 << 16) - 16 - 1000, "the words of the lock, and its value");
    drop(lock);
    assert_eq!(left(), 1 << 16);
}

/// There are fewer places than bytes. The refusal once told the size of the largest block.
#[test]
fn a_segment_is_full_of_small_objects_before_its_bytes_are_used() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let mut full = Vec::new();
    for _ in 0..2 {
        let mut held = Vec::new();
        let refused = loop {
            match crate::ShmBox::new_in(&segment, 7_u8) {
                Ok(made) => held.push(made),
                Err(refused) => break refused,
            }
        };
        let available = (1 << 16) - held.len() as u64;
        let text = refused.to_string();
        assert!(text.contains("no place for one more") && text.contains(&available.to_string()));
        assert!(matches!(
            refused,
            CreateError::OutOfMemory { requested: 1, available: told } if told == available
        ));
        assert!(held.len() >= (1 << 16) / 28, "{}", held.len());
        full.push(held.len());
    }
    assert_eq!(full[0], full[1], "each place is found again");
}

/// Who finds no room counts anew what is charged. Charges that were not in the blocks yet were once
/// forgotten by that, so that living processes got more than there is.
#[test]
fn a_count_beside_others_forgets_no_charge() {
    use crate::ShmBox;
    use crate::primitive::{AtomicU32, Ordering};

    for _ in 0..20 {
        let segment = Segment::create(16 << 20).expect("a segment");
        let make = |len| ShmBox::<[u8]>::zeroed_in(&segment, len);
        let held = [(); 16].map(|()| make(1 << 16).expect("room"));
        let done = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 1..4 {
                let done = &done;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for turn in (0..).take_while(|_| done.load(Ordering::Relaxed) == 0) {
                        kept.push(make(1 + (turn * 7919 * thread) % 600_000).expect("room"));
                        kept.drain(..kept.len().saturating_sub(2));
                    }
                });
            }
            for _ in 0..100 {
                assert!(make(16 << 20).is_err(), "there is not so much");
            }
            done.store(1, Ordering::Relaxed);
        });
        let stats = segment.stats().expect("attached");
        assert_eq!(stats.in_use.bytes, 1 << 20);
        assert!(stats.charged >= 1 << 20, "{stats}");
        drop(held);
    }
}

/// What one process may have left somewhere.
mod cards {
    use super::*;
    use crate::heap::cards::visited;
    use crate::heap::pool::Pool;
    use crate::object::{holding, reap};
    use crate::peer::table::Attached;
    use crate::peer::{PeerId, attach, reaper};
    use crate::segment::layout::{BLOCKS_PER_CARD, CARDS};
    use crate::sys::pidfd::{Identity, Start};
    use crate::{ShmArc, ShmBox};

    /// A process that can be given blocks, and then be dead.
    fn child_of(segment: &Segment) -> (PeerId, PeerId) {
        let mapping = segment.mapping();
        let parent = holding::arrive(mapping).expect("attached");
        let (_, table) = attach::view(mapping).expect("a table");
        (parent, table.reserve(parent, mapping.home().to_bits()).expect("room"))
    }

    /// Headers that are looked at when the child is cleared up after.
    fn cost_of_reaping(segment: &Segment, (parent, child): (PeerId, PeerId)) -> u64 {
        let mapping = segment.mapping();
        let (region, table) = attach::view(mapping).expect("a table");
        visited(|| {
            reaper::reap_child(mapping, table, parent, child, 7, |dead| {
                reap::clear(mapping, region, dead, parent);
            });
        })
    }

    /// It once looked at each header several times.
    #[test]
    fn a_child_that_used_nothing_is_cleared_up_after_without_a_look_at_any_block() {
        let segment = Segment::create(1 << 26).expect("a segment");
        let mut held = Vec::new();
        for blocks in [0, 1, 1000, 20_000] {
            held.resize_with(blocks, || ShmBox::new_in(&segment, 7_u64).expect("room"));
            assert_eq!(cost_of_reaping(&segment, child_of(&segment)), 0, "beside {blocks}");
        }
    }

    /// With the shares of its cards that others have, and no more.
    #[test]
    fn a_child_is_cleared_up_after_where_it_has_been() {
        let segment = Segment::create(1 << 26).expect("a segment");
        let mapping = segment.mapping();
        let mut held = Vec::new();
        for blocks in [0_u64, 1000, 10_000, 20_000, 40_000] {
            held.resize_with(blocks as usize, || ShmBox::new_in(&segment, 7_u64).expect("room"));
            let (parent, child) = child_of(&segment);
            let pool = Pool::new(mapping, mapping.region().expect("mapped"));
            let owned = pool.allocate(child, 7, 8).expect("room");
            let shared = pool.allocate(child, 7, 5000).expect("room");
            assert!(pool.share(&shared, child));
            assert_eq!(segment.blocks_in_use() as u64, blocks + 2);
            let cost = cost_of_reaping(&segment, (parent, child));
            assert_eq!(segment.blocks_in_use() as u64, blocks, "what it left is free");
            assert_eq!(pool.generation(owned.id), None);
            // Two cards. They are looked at twice: for what it owned and held, and for messages.
            let classes = mapping.layout().classes().len() as u64;
            let groups = 2 * (1 + blocks.div_ceil(BLOCKS_PER_CARD) / u64::from(CARDS)) + classes;
            assert!(
                (2..=2 * groups * BLOCKS_PER_CARD).contains(&cost),
                "{cost} headers for two blocks beside {blocks}"
            );
        }
    }

    /// What a child inherits is entered in its name by its parent.
    #[test]
    fn what_a_child_inherited_is_found() {
        let segment = Segment::create(1 << 24).expect("a segment");
        let arcs: Vec<ShmArc<u64>> =
            (0..1000).map(|n| ShmArc::new_in(&segment, n).expect("room")).collect();
        let (parent, child) = child_of(&segment);
        holding::bequeath(segment.mapping(), segment.mapping().region().expect("mapped"), child);
        drop(arcs);
        assert_eq!(segment.blocks_in_use(), 1000, "the child holds them");
        cost_of_reaping(&segment, (parent, child));
        assert_eq!(segment.blocks_in_use(), 0);
    }

    /// The next process at a place of the table has not been where the one before was.
    #[test]
    fn cards_go_with_their_process() {
        let segment = Segment::create(1 << 24).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        let (parent, first) = child_of(&segment);
        pool.mark_everywhere(first.owner());
        pool.allocate(first, 7, 8).expect("room");
        let cards = pool.cards(first);
        assert!(cards.is_everywhere() && !cards.is_empty());
        let (_, table) = attach::view(mapping).expect("a table");
        assert_eq!(table.cards_left_by(first), Some(cards));
        assert!(cost_of_reaping(&segment, (parent, first)) > 0);
        assert_eq!(table.cards_left_by(first), Some(cards), "nobody has the entry");
        let (_, next) = child_of(&segment);
        assert_eq!((next.index(), next.generation()), (first.index(), first.generation() + 1));
        assert!(pool.cards(next).is_empty() && !pool.cards(next).is_everywhere());
        assert_eq!(table.cards_left_by(first), None, "it is another's by now");
        assert_eq!(cost_of_reaping(&segment, (parent, next)), 0);
        // A process that joins starts with none as well.
        let identity = Identity { pid: 9, start: Start::Inode(9) };
        pool.mark_everywhere(next.owner());
        let joined = table.join(&Attached { identity, home: 5, liveness_byte: 0 }).expect("room");
        assert_eq!(joined.index(), next.index());
        assert!(!pool.cards(joined).is_everywhere());
    }

    /// It once looked at every header, several times.
    #[test]
    fn what_was_in_a_message_is_freed_with_a_look_at_the_flights() {
        let segment = Segment::create(1 << 26).expect("a segment");
        let outer = crate::ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
        let mut held = Vec::new();
        let mut costs = Vec::new();
        for blocks in [0_u64, 1000, 20_000] {
            held.resize_with(blocks as usize, || ShmBox::new_in(&segment, 7_u64).expect("room"));
            costs.push(visited(|| {
                let sent = Queue::<u64>::with_capacity_in(&segment, 2).expect("a queue");
                outer.send(sent.clone()).expect("room");
                drop(sent);
                let received: Queue<u64> = outer.recv().expect("sent");
                received.send(7).expect("it is no other's");
                drop(received);
            }));
            assert_eq!(segment.blocks_in_use() as u64, blocks + 1, "it is free");
        }
        let (alone, beside) = (costs[0], costs[2]);
        assert!(alone > 0, "it may be in a flight");
        // Three looks, at the cards of up to three flights, which have a share of the others.
        let share = BLOCKS_PER_CARD * (1 + 20_000_u64.div_ceil(BLOCKS_PER_CARD) / u64::from(CARDS));
        assert!(beside <= 9 * share, "{costs:?} headers");
    }

    /// It once looked at every header.
    #[test]
    fn an_empty_queue_of_boxes_is_freed_without_a_look_at_any_block() {
        let segment = Segment::create(1 << 24).expect("a segment");
        let boxes: Vec<_> =
            (0..1000_u64).map(|n| ShmBox::new_in(&segment, n).expect("room")).collect();
        let make = || Queue::<ShmBox<u64>>::with_capacity_in(&segment, 2).expect("a queue");
        let queue = make();
        for value in boxes {
            queue.send(value).expect("room");
            assert_eq!(visited(|| drop(queue.recv().expect("sent"))), 0);
        }
        assert_eq!(visited(|| drop(queue)), 0);
        let queue = make();
        queue.send(ShmBox::new_in(&segment, 7).expect("room")).expect("room");
        assert!(visited(|| drop(queue)) >= 2);
        assert_eq!(segment.blocks_in_use(), 0);
    }

    /// They are in memory that a peer can write.
    #[test]
    fn wrong_cards_are_looked_at_or_not_and_do_no_other_harm() {
        let segment = Segment::create(1 << 24).expect("a segment");
        let mapping = segment.mapping();
        let pool = Pool::new(mapping, mapping.region().expect("mapped"));
        let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
        let (parent, child) = child_of(&segment);
        let (_, table) = attach::view(mapping).expect("a table");
        let footprint = table.footprint(child.index()).expect("in the table");
        (0..=CARDS).for_each(|card| footprint.mark(card));
        assert!(cost_of_reaping(&segment, (parent, child)) >= 1);
        queue.send(7).expect("room");
        assert_eq!((queue.recv(), segment.blocks_in_use()), (Ok(7), 1));
        assert!(pool.cards(child).is_everywhere());
    }

    /// Its memory once stayed in use until another process died or memory ran short.
    #[test]
    fn a_forgotten_message_is_given_back_with_the_queue() {
        let segment = Segment::create(1 << 24).expect("a segment");
        let queue = crate::ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
        let (parent, child) = child_of(&segment);
        holding::bequeath(segment.mapping(), segment.mapping().region().expect("mapped"), child);
        queue.send(&[7; 5000]).expect("room");
        std::mem::forget(queue.recv().expect("a message"));
        assert_eq!(segment.blocks_in_use(), 2);
        drop(queue);
        assert_eq!(segment.blocks_in_use(), 1, "the child has the queue");
        cost_of_reaping(&segment, (parent, child));
        assert_eq!(segment.blocks_in_use(), 0);
    }
}
