//! The queue within one process: threads instead of processes.

mod flights;
mod messages;

use std::time::{Duration, Instant};

use super::*;

fn queue(capacity: usize) -> Queue<u64> {
    Queue::with_capacity(capacity).expect("a queue")
}

#[test]
fn what_is_sent_is_received_in_order() {
    let queue = queue(3);
    for lap in 0..10 {
        for n in 0..3 {
            queue.try_send(lap * 3 + n).expect("room");
        }
        assert_eq!(queue.try_send(99), Err(TrySendError::Full(99)));
        assert!(queue.is_full());
        assert_eq!(queue.len(), 3);
        for n in 0..3 {
            assert_eq!(queue.try_recv(), Ok(lap * 3 + n));
        }
        assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
        assert!(queue.is_empty());
    }
}

#[test]
fn threads_share_a_queue() {
    let queue = queue(8);
    let received: Vec<u64> = std::thread::scope(|scope| {
        for sender in 0..2 {
            let queue = queue.clone();
            scope.spawn(move || {
                (0..10_000).for_each(|n| queue.send(sender << 32 | n).expect("open"))
            });
        }
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| (0..10_000).map(|_| queue.recv().expect("open")).collect::<Vec<_>>())
            })
            .collect();
        receivers
            .into_iter()
            .flat_map(|receiver| {
                let values = receiver.join().expect("no panic");
                for sender in 0..2 {
                    let of_one = values.iter().filter(|&&value| value >> 32 == sender);
                    assert!(
                        of_one.is_sorted(),
                        "each receiver sees each sender's messages in order"
                    );
                }
                values
            })
            .collect()
    });
    let mut received = received;
    received.sort_unstable();
    let expected: Vec<u64> =
        (0..2).flat_map(|sender| (0..10_000).map(move |n| sender << 32 | n)).collect();
    assert_eq!(received, expected);
}

#[test]
fn timeouts_wait_at_least_that_long_and_give_the_value_back() {
    let queue = queue(1);
    let time = Duration::from_millis(30);
    let start = Instant::now();
    assert_eq!(queue.recv_timeout(time), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= time);
    queue.send(1).expect("open");
    let start = Instant::now();
    assert_eq!(queue.send_timeout(2, time), Err(SendTimeoutError::Timeout(2)));
    assert!(start.elapsed() >= time);
    let start = Instant::now();
    assert_eq!(queue.send_deadline(3, start + time), Err(SendTimeoutError::Timeout(3)));
    assert!(start.elapsed() >= time);
    assert_eq!(queue.send_timeout(4, Duration::ZERO), Err(SendTimeoutError::Timeout(4)));
    assert_eq!(queue.recv_deadline(Instant::now()), Ok(1));
    assert_eq!(queue.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
}

#[test]
fn sleepers_are_woken_by_what_they_wait_for() {
    for wait in [Wait::Sleep, Wait::SpinThenSleep, Wait::Spin] {
        let queue = queue(1).with_wait(wait);
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| (queue.recv(), queue.recv()));
            std::thread::sleep(Duration::from_millis(20));
            queue.send(1).expect("open");
            queue.send(2).expect("open");
            assert_eq!(receiver.join().expect("no panic"), (Ok(1), Ok(2)));
        });
    }
}

#[test]
fn a_closed_queue_gives_back_and_drains() {
    let queue = queue(4);
    queue.send(1).expect("open");
    queue.send(2).expect("open");
    queue.close();
    queue.close();
    assert!(queue.is_closed());
    assert_eq!(queue.send(3), Err(SendError::Closed(3)));
    assert_eq!(queue.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(queue.send_timeout(3, Duration::from_secs(9)), Err(SendTimeoutError::Closed(3)));
    assert_eq!(queue.iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(queue.recv(), Err(RecvError::Closed));
    assert_eq!(queue.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(queue.recv_timeout(Duration::from_secs(9)), Err(RecvTimeoutError::Closed));
}

#[test]
fn closing_wakes_those_who_wait() {
    let empty = queue(1);
    let full = queue(1);
    full.send(1).expect("open");
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| empty.recv());
        let sender = scope.spawn(|| full.send(2));
        std::thread::sleep(Duration::from_millis(20));
        empty.close();
        full.close();
        assert_eq!(receiver.join().expect("no panic"), Err(RecvError::Closed));
        assert_eq!(sender.join().expect("no panic"), Err(SendError::Closed(2)));
    });
}

#[test]
fn a_reservation_sends_when_committed_and_not_when_dropped() {
    let queue = Queue::<[u64; 4]>::with_capacity(2).expect("a queue");
    let mut slot = queue.reserve().expect("open");
    slot.write([1, 2, 3, 4]);
    slot[1] = 9;
    slot.commit();
    drop(queue.try_reserve().expect("room"));
    let message = queue.recv_ref().expect("a message");
    assert_eq!(*message, [1, 9, 3, 4]);
    assert!(!message.redelivered());
    drop(message);
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
    // The dropped reservation's position is passed over.
    queue.send([5; 4]).expect("open");
    assert_eq!(queue.recv(), Ok([5; 4]));
}

#[test]
fn batches_keep_the_order_and_count_what_was_sent() {
    let queue = queue(4);
    queue.send_many(&[1, 2]).expect("open");
    assert_eq!(
        queue.send_many_timeout(&[3, 4, 5], Duration::from_millis(5)).map_err(|error| error.sent),
        Err(2)
    );
    let mut values = Vec::new();
    assert_eq!(queue.recv_many(&mut values, 3), Ok(3));
    assert_eq!(queue.try_recv_many(&mut values, 0), Ok(0));
    assert_eq!(queue.try_recv_many(&mut values, 9), Ok(1));
    assert_eq!(queue.try_recv_many(&mut values, 9), Err(TryRecvError::Empty));
    assert_eq!(values, [1, 2, 3, 4]);
    std::thread::scope(|scope| {
        scope.spawn(|| queue.send_many(&(0..1000).collect::<Vec<_>>()).expect("open"));
        let mut values = Vec::new();
        while values.len() < 1000 {
            queue
                .recv_many_timeout(&mut values, 64, Duration::from_secs(60))
                .expect("more to come");
        }
        assert!(values.into_iter().eq(0..1000));
    });
}

#[test]
fn sizes_from_nothing_to_a_megabyte() {
    let nothing = Queue::<()>::with_capacity(2).expect("a queue of nothing");
    nothing.send(()).expect("open");
    assert_eq!(nothing.recv(), Ok(()));
    let large = Queue::<[u8; 1 << 20]>::with_capacity(2).expect("a queue of megabytes");
    large.reserve().expect("open").commit();
    let mut slot = large.reserve().expect("open");
    slot.fill(7);
    slot.commit();
    assert_eq!(large.recv_ref().expect("a message")[0], 0);
    assert!(large.recv_ref().expect("a message").iter().all(|&byte| byte == 7));
}

#[test]
fn impossible_capacities_are_refused_with_the_sizes() {
    assert!(matches!(
        Queue::<u8>::with_capacity(0),
        Err(CreateError::Capacity { capacity: 0, .. })
    ));
    assert!(matches!(Queue::<u8>::with_capacity(usize::MAX), Err(CreateError::Capacity { .. })));
    assert!(matches!(Queue::<u8>::with_capacity((1 << 24) + 1), Err(CreateError::Capacity { .. })));
    let segment = Segment::create(1 << 16).expect("a segment");
    let error =
        Queue::<[u8; 1024]>::with_capacity_in(&segment, 1000).expect_err("a megabyte in 64 KiB");
    assert!(
        matches!(error, CreateError::OutOfMemory { requested, available } if requested > 1_000_000 && available <= 65_536),
        "{error}"
    );
    assert!(Queue::<[u8; 1 << 20]>::with_capacity(1 << 24).is_err(), "2^44 bytes");
}

#[test]
fn a_queue_is_opened_by_its_handle_and_only_as_what_it_is() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let made = Queue::<u64>::with_capacity_in(&segment, 5).expect("a queue");
    made.send(7).expect("open");
    let opened = Queue::<u64>::open(&segment, made.handle()).expect("the same queue");
    assert_eq!(opened.capacity(), 5);
    drop(made);
    assert_eq!(opened.recv(), Ok(7), "one handle of the process is enough");
    assert_eq!(Queue::<i64>::open(&segment, opened.handle()).unwrap_err(), Fault::WrongType);
    assert_eq!(crate::Lock::<u64>::open(&segment, opened.handle()).unwrap_err(), Fault::WrongType);
    let commons = Segment::commons().expect("the commons");
    assert_eq!(Queue::<u64>::open(&commons, opened.handle()).unwrap_err(), Fault::Stale);
    let handle = opened.handle();
    drop(opened);
    assert_eq!(Queue::<u64>::open(&segment, handle).unwrap_err(), Fault::Stale);
    let next = Queue::<u64>::with_capacity_in(&segment, 5).expect("a queue");
    assert_ne!(next.handle(), handle, "the block is used again, under another generation");
    assert_eq!(Queue::<u64>::open(&segment, handle).unwrap_err(), Fault::Stale);
    next.send(1).expect("not disturbed by stale handles");
}

#[test]
fn dropped_queues_give_their_memory_back() {
    let segment = Segment::create(1 << 20).expect("a segment");
    for _ in 0..1000 {
        let queue = Queue::<[u8; 1024]>::with_capacity_in(&segment, 500)
            .expect("half the segment each time");
        queue.try_send([1; 1024]).expect("room");
    }
}

#[test]
fn a_forgotten_guard_is_alive_and_keeps_its_slot() {
    let queue = queue(2);
    std::mem::forget(queue.reserve().expect("open"));
    queue.send(1).expect("the second slot");
    assert_eq!(queue.recv_timeout(Duration::from_millis(5)), Err(RecvTimeoutError::Timeout));
}

#[test]
fn a_queue_says_what_it_is() {
    let queue = queue(2);
    let says = |len: usize, closed: bool| {
        assert_eq!((queue.capacity(), queue.len(), queue.lost()), (2, len, 0));
        assert_eq!((queue.is_empty(), queue.is_full()), (len == 0, len == 2));
        assert_eq!(queue.is_closed(), closed);
        let text = format!("Queue {{ len: {len}, capacity: 2, closed: {closed}, .. }}");
        assert_eq!(format!("{queue:?}"), text);
    };
    says(0, false);
    queue.send(1).expect("open");
    says(1, false);
    queue.send(2).expect("open");
    says(2, false);
    queue.close();
    says(2, true);
}

#[test]
fn a_deadline_is_kept_by_batches() {
    let queue = queue(2);
    let time = Duration::from_millis(20);
    let start = Instant::now();
    let error = queue.send_many_deadline(&[1, 2, 3], start + time).expect_err("two slots");
    assert_eq!((error.sent, error.error), (2, SendTimeoutError::Timeout(())));
    assert!(start.elapsed() >= time);
    let mut values = Vec::new();
    assert_eq!(queue.recv_many_deadline(&mut values, 9, Instant::now()), Ok(2));
    let start = Instant::now();
    let nothing = queue.recv_many_deadline(&mut values, 9, start + time);
    assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= time);
    queue.send_many_deadline(&[3, 4], Instant::now()).expect("room");
    assert_eq!(queue.recv_many_deadline(&mut values, 1, Instant::now()), Ok(1));
    assert_eq!((values, queue.len()), (vec![1, 2, 3], 1));
}

/// The most that slots are aligned to, and twice that.
#[test]
fn what_is_aligned_more_than_slots_is_refused() {
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(128))]
    struct Most([u8; 128]);
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(256))]
    struct More([u8; 256]);
    let queue = Queue::<Most>::with_capacity(3).expect("a queue");
    queue.send(Most([7; 128])).expect("open");
    assert_eq!(queue.recv_ref().expect("a message").0, [7; 128]);
    let (mut sender, mut receiver) = crate::spsc::ring::<Most>(3).expect("a ring");
    sender.send(Most([8; 128])).expect("room");
    assert_eq!(receiver.recv().expect("a message").0, [8; 128]);
    let lock = crate::Lock::new(Most([9; 128])).expect("a lock");
    assert_eq!(lock.lock().expect("free").0, [9; 128]);
    for refused in [
        Queue::<More>::with_capacity(3).map(drop),
        crate::spsc::ring::<More>(3).map(drop),
        crate::Lock::new(More([0; 256])).map(drop),
    ] {
        assert!(matches!(refused, Err(CreateError::Alignment { align: 256, most: 128 })));
    }
}
