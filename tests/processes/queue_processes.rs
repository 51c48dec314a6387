//! A queue between processes gives every message to exactly one receiver, in order, whatever the
//! processes do.

use std::time::{Duration, Instant};

use offspring::{
    Child, Handle, Queue, QueueOptions, RecvError, RecvTimeoutError, Segment, SendError,
    SendTimeoutError, TryRecvError, Wait,
};

use crate::common::fd::SegmentFd;
use crate::common::{self, fork};
use crate::harness::{apply, test};

fn queue(capacity: usize) -> Queue<u64> {
    Queue::with_capacity(capacity).expect("a queue")
}

#[apply(test)]
fn a_child_sends_and_the_parent_receives_in_order() {
    let queue = queue(16);
    let sender = queue.clone();
    let child =
        fork(move || (0..10_000).for_each(|n| sender.send(n).expect("open"))).expect("fork");
    for n in 0..10_000 {
        assert_eq!(queue.recv(), Ok(n));
    }
    child.join().expect("no panic");
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
}

const SENDERS: u64 = 4;
const EACH: u64 = 250_000;

#[apply(test)]
fn a_million_messages_of_four_senders_reach_four_receivers_once_each_and_in_order() {
    let queue = queue(256);
    let senders: Vec<Child<()>> = (0..SENDERS)
        .map(|sender| {
            let queue = queue.clone();
            fork(move || (0..EACH).for_each(|n| queue.send(sender << 32 | n).expect("open")))
                .expect("fork")
        })
        .collect();
    let receivers: Vec<Child<Vec<u64>>> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            fork(move || queue.iter().collect()).expect("fork")
        })
        .collect();
    for sender in senders {
        sender.join().expect("no panic");
    }
    queue.close();
    let mut seen = vec![false; (SENDERS * EACH) as usize];
    for receiver in receivers {
        let received = receiver.join().expect("no panic");
        let mut next = [0; SENDERS as usize];
        for value in received {
            let (sender, n) = ((value >> 32) as usize, value & 0xffff_ffff);
            assert!(n >= next[sender], "sender {sender}: {n} after {}", next[sender]);
            next[sender] = n + 1;
            let index = sender * EACH as usize + n as usize;
            assert!(
                !std::mem::replace(&mut seen[index], true),
                "message {n} of sender {sender} came twice"
            );
        }
    }
    assert!(seen.into_iter().all(|seen| seen), "a message was lost");
    assert_eq!(queue.lost(), 0);
}

#[apply(test)]
fn laps_wrap_round_in_queues_of_every_small_capacity() {
    for capacity in 1..=5 {
        let queue = queue(capacity);
        let echo = (queue.clone(), self::queue(capacity));
        let back = echo.1.clone();
        let child = fork(move || echo.0.iter().for_each(|n| echo.1.send(n + 1).expect("open")))
            .expect("fork");
        for n in 0..2000 {
            queue.send(n).expect("open");
            assert_eq!(back.recv(), Ok(n + 1));
        }
        queue.close();
        child.join().expect("no panic");
    }
}

#[apply(test)]
fn every_way_to_wait_wakes_up() {
    for wait in [Wait::Sleep, Wait::SpinThenSleep, Wait::Spin] {
        let there = QueueOptions::new().capacity(1).wait(wait).create::<u64>().expect("a queue");
        let back = QueueOptions::new().capacity(1).wait(wait).create::<u64>().expect("a queue");
        let (their_there, their_back) = (there.clone(), back.clone());
        let child =
            fork(move || their_there.iter().for_each(|n| their_back.send(n).expect("open")))
                .expect("fork");
        for n in 0..200 {
            if n % 50 == 0 {
                // Long enough for the child to fall asleep.
                std::thread::sleep(Duration::from_millis(5));
            }
            there.send(n).expect("open");
            assert_eq!(back.recv(), Ok(n));
        }
        there.close();
        child.join().expect("no panic");
    }
}

#[apply(test)]
fn timeouts_wait_at_least_that_long_in_a_child() {
    let empty = queue(1);
    let full = queue(1);
    full.send(1).expect("room");
    let child = fork(move || {
        let time = Duration::from_millis(120);
        let start = Instant::now();
        assert_eq!(empty.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= time);
        let start = Instant::now();
        assert_eq!(full.send_timeout(2, time), Err(SendTimeoutError::Timeout(2)));
        assert!(start.elapsed() >= time);
        let start = Instant::now();
        assert_eq!(empty.recv_deadline(start + time), Err(RecvTimeoutError::Timeout));
        assert_eq!(full.send_deadline(3, start + time), Err(SendTimeoutError::Timeout(3)));
        assert!(start.elapsed() >= time);
    });
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn closing_reaches_those_who_sleep_in_other_processes() {
    let empty = queue(1);
    let full = queue(1);
    full.send(1).expect("room");
    let (theirs_empty, theirs_full) = (empty.clone(), full.clone());
    let receiver = fork(move || theirs_empty.recv() == Err(RecvError::Closed)).expect("fork");
    let sender = fork(move || theirs_full.send(2) == Err(SendError::Closed(2))).expect("fork");
    [receiver.id(), sender.id()].into_iter().for_each(common::wait_until_asleep);
    empty.close();
    full.close();
    assert!(receiver.join().expect("no panic"));
    assert!(sender.join().expect("no panic"));
    assert_eq!(full.recv(), Ok(1));
    assert_eq!(full.recv(), Err(RecvError::Closed));
}

#[apply(test)]
fn receivers_drain_a_closed_queue_and_lose_nothing() {
    for _ in 0..20 {
        let queue = queue(8);
        let theirs = queue.clone();
        // Closed while the child is sending: what it was told is sent is received.
        let sender =
            fork(move || (0..u64::MAX).take_while(|&n| theirs.send(n).is_ok()).count() as u64)
                .expect("fork");
        let mut received = 0;
        for value in &queue {
            assert_eq!(value, received);
            received += 1;
            if received == 1000 {
                queue.close();
            }
        }
        assert_eq!(sender.join().expect("no panic"), received);
    }
}

#[apply(test)]
fn handles_work_in_children_of_children() {
    let queue = queue(4);
    let theirs = queue.clone();
    let child = fork(move || {
        let deeper = theirs.clone();
        let grandchild = fork(move || {
            let deepest = deeper.clone();
            let child = fork(move || deepest.send(3).expect("open")).expect("fork");
            child.join().expect("no panic");
            deeper.send(2).expect("open");
        });
        grandchild.expect("fork").join().expect("no panic");
        theirs.send(1).expect("open");
    });
    child.expect("fork").join().expect("no panic");
    assert_eq!((queue.recv(), queue.recv(), queue.recv()), (Ok(3), Ok(2), Ok(1)));
}

#[apply(test)]
fn a_handle_reaches_a_process_that_was_there_before_the_queue() {
    let names = Queue::<Handle>::with_capacity(1).expect("a queue");
    let theirs = names.clone();
    let child = fork(move || {
        let commons = Segment::commons().expect("the commons");
        let queue = Queue::<u64>::open(&commons, theirs.recv().expect("open")).expect("the queue");
        queue.send(42).expect("open");
    });
    let child = child.expect("fork");
    let queue = queue(1);
    names.send(queue.handle()).expect("open");
    assert_eq!(queue.recv(), Ok(42));
    child.join().expect("no panic");
}

#[apply(test)]
fn a_queue_in_a_file_is_shared_by_those_who_open_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let segment = Segment::create_file(&path, 1 << 16).expect("a segment");
    let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
    let names = Queue::<Handle>::with_capacity(1).expect("a queue");
    names.send(queue.handle()).expect("open");
    // The child drops what it inherited of the segment and opens the file as a stranger would.
    let child = fork(move || {
        let segment = Segment::open_file(&path).expect("the segment");
        let queue = Queue::<u64>::open(&segment, names.recv().expect("open")).expect("the queue");
        queue.send(5).expect("open");
    });
    assert_eq!(queue.recv(), Ok(5));
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn a_queue_in_a_segment_of_its_own_is_inherited() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || theirs.send(9).expect("open")).expect("fork");
    assert_eq!(queue.recv(), Ok(9));
    child.join().expect("no panic");
    // And by its descriptor.
    let again = Segment::open(segment.as_fd()).expect("the same segment");
    assert_eq!(again.id(), segment.id());
}

#[apply(test)]
fn messages_written_and_read_in_place_cross_processes() {
    let queue = Queue::<[u64; 512]>::with_capacity(2).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        for n in 0..500_u64 {
            let mut page = theirs.reserve().expect("open");
            page.fill(n);
            if n % 7 == 3 {
                drop(page);
            } else {
                page.commit();
            }
        }
    });
    for n in (0..500).filter(|n| n % 7 != 3) {
        let page = queue.recv_ref().expect("open");
        assert!(page.iter().all(|&word| word == n), "a torn page");
    }
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn batches_cross_processes() {
    let queue = queue(100);
    let theirs = queue.clone();
    let child = fork(move || {
        let values: Vec<u64> = (0..10_000).collect();
        values.chunks(77).for_each(|chunk| theirs.send_many(chunk).expect("open"));
        theirs.close();
    });
    let mut values = Vec::new();
    while queue.recv_many(&mut values, 64).is_ok() {}
    assert!(values.into_iter().eq(0..10_000));
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn a_thousand_children_use_one_queue_one_after_the_other() {
    let queue = queue(4);
    for n in 0..1000 {
        let theirs = queue.clone();
        let child = fork(move || theirs.send(n).expect("open")).expect("fork");
        assert_eq!(queue.recv(), Ok(n));
        child.join().expect("no panic");
    }
}

#[apply(test)]
fn a_queue_outlives_the_process_that_made_it() {
    let names = Queue::<Handle>::with_capacity(1).expect("a queue");
    let opened = queue(1);
    let (their_names, their_opened) = (names.clone(), opened.clone());
    let maker = fork(move || {
        let made = queue(2);
        made.send(1).expect("room");
        their_names.send(made.handle()).expect("open");
        their_opened.recv().expect("open");
    });
    let segment = Segment::commons().expect("the commons");
    let queue = Queue::<u64>::open(&segment, names.recv().expect("open")).expect("the queue");
    opened.send(0).expect("open");
    maker.expect("fork").join().expect("no panic");
    queue.send(2).expect("room");
    assert_eq!((queue.recv(), queue.recv()), (Ok(1), Ok(2)));
}

#[apply(test)]
fn memory_of_dropped_queues_is_used_again() {
    let segment = Segment::create(1 << 20).expect("a segment");
    for _ in 0..50 {
        let queue =
            Queue::<[u8; 1024]>::with_capacity_in(&segment, 700).expect("most of the segment");
        let child = fork(move || drop(queue)).expect("fork");
        child.join().expect("no panic");
    }
}
