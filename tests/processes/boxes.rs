//! Boxes between processes: each is one process's at a time, moves whole, and its memory is to be
//! had again whatever becomes of those who had it.

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use offspring::{
    Child, JoinError, Moved, OnReceiverDeath, Queue, QueueOptions, RecvTimeoutError, Segment,
    ShmBox, ShmStr, ShmVec, TrySendError, plain,
};

use crate::common::blocks::{Block, blocks, file, in_use, word};
use crate::common::raw::Board;
use crate::common::{self, fork};
use crate::harness::{apply, test};

const MIB: usize = 1 << 20;
/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

type Frame = ShmBox<[u64]>;

fn segment(mib: u64) -> Segment {
    Segment::create(mib << 20).expect("a segment")
}

fn queue_in(segment: &Segment, capacity: usize, policy: OnReceiverDeath) -> Queue<Frame> {
    let mut options = QueueOptions::new();
    options.capacity(capacity).on_receiver_death(policy).create_in(segment).expect("a queue")
}

fn frame(segment: &Segment, number: u64, len: usize) -> Frame {
    ShmBox::from_fn_in(segment, len, |index| number << 32 | index as u64).expect("room")
}

/// The number of a frame that is whole.
fn number(frame: &Frame) -> u64 {
    let number = frame[0] >> 32;
    let whole = frame.iter().enumerate().all(|(index, &word)| word == number << 32 | index as u64);
    assert!(whole, "torn");
    number
}

/// Kills a child and waits until it is dead, without telling the segments.
fn kill(child: &Child<()>) {
    child.kill().expect("kill");
    common::wait_until_dead(child.id());
}

/// A child that does something, says so and waits for its end.
fn child_that(act: impl FnOnce() + Send + 'static) -> Child<()> {
    let ready = Queue::<u8>::with_capacity(1).expect("a queue");
    let theirs = ready.clone();
    let work = move || {
        act();
        theirs.send(0).expect("open");
        common::sleep_for_ever()
    };
    let child = fork(work).expect("fork");
    ready.recv_timeout(LIMIT).expect("the child is ready");
    child
}

#[apply(test)]
fn boxes_of_every_length_go_there_and_back() {
    let segment = segment(64);
    let there = queue_in(&segment, 2, OnReceiverDeath::Drop);
    let back = queue_in(&segment, 2, OnReceiverDeath::Drop);
    let (theirs, their_back) = (there.clone(), back.clone());
    let child = fork(move || {
        for mut frame in &theirs {
            frame.iter_mut().for_each(|word| *word += 1 << 32);
            their_back.send(frame).expect("open");
        }
    });
    for (round, len) in
        [1, 15, 16, 17, 511, 512, 513, 8192, MIB / 8, MIB / 2].into_iter().enumerate()
    {
        there.send(frame(&segment, round as u64, len)).expect("open");
        let frame = back.recv_timeout(LIMIT).expect("an answer");
        assert_eq!((number(&frame), frame.len()), (round as u64 + 1, len));
    }
    there.close();
    child.expect("fork").join().expect("no panic");
    assert_eq!(in_use(&segment), 2, "the queues");
}

#[apply(test)]
fn vectors_and_text_move_through_a_channel() {
    let (sender, receiver) = plain::channel::<ShmVec<u32>>(2).expect("a channel");
    let (words, text) = plain::channel::<ShmStr>(2).expect("a channel");
    let child = fork(move || {
        for mut numbers in receiver.iter() {
            numbers.push(77).expect("room");
            words.send(ShmStr::new(&format!("{:?}", &*numbers)).expect("room")).expect("open");
        }
    });
    for count in 0..5 {
        let mut numbers = ShmVec::with_capacity(1).expect("room");
        (0..count).for_each(|number| numbers.push(number).expect("room"));
        sender.send(numbers).expect("connected");
        let mut expected: Vec<u32> = (0..count).collect();
        expected.push(77);
        assert_eq!(*text.recv_timeout(LIMIT).expect("an answer"), *format!("{expected:?}"));
    }
    drop(sender);
    child.expect("fork").join().expect("no panic");
    assert!(matches!(text.recv(), Err(offspring::RecvError::Disconnected)));
}

#[apply(test)]
fn a_box_that_was_sent_outlives_its_sender() {
    let segment = segment(32);
    let queue = queue_in(&segment, 4, OnReceiverDeath::Drop);
    let (theirs, its) = (queue.clone(), segment.clone());
    let child = child_that(move || {
        for number in 0..3 {
            theirs.send(frame(&its, number, MIB / 8)).expect("open");
        }
        // And one that was not.
        std::mem::forget(frame(&its, 7, MIB / 8));
    });
    assert_eq!(in_use(&segment), 5);
    kill(&child);
    assert_eq!(segment.reap(), Ok(1));
    assert_eq!(in_use(&segment), 4);
    drop(child);
    for expected in 0..3 {
        assert_eq!(number(&queue.try_recv().expect("it was sent")), expected);
    }
    assert_eq!((in_use(&segment), queue.lost()), (1, 0));
}

#[apply(test)]
fn the_memory_of_boxes_that_the_dead_had_is_had_again() {
    let segment = segment(8);
    let queue = queue_in(&segment, 4, OnReceiverDeath::Redeliver);
    queue.send(frame(&segment, 1, MIB / 8)).expect("open");
    let (theirs, its) = (queue.clone(), segment.clone());
    let child = child_that(move || {
        // Received and acknowledged: it is the child's, and goes with it.
        std::mem::forget(theirs.recv().expect("sent"));
        while let Ok(frame) = ShmBox::<[u64]>::zeroed_in(&its, MIB / 8) {
            std::mem::forget(frame);
        }
    });
    assert!(in_use(&segment) > 5);
    kill(&child);
    // Nobody has cleared up: a box that finds no room does.
    let all = frame(&segment, 2, 6 * MIB / 8);
    assert_eq!((number(&all), in_use(&segment)), (2, 2));
    assert!(matches!(queue.try_recv(), Err(offspring::TryRecvError::Empty)));
    drop(child);
}

#[apply(test)]
fn a_box_that_finds_no_room_leaves_what_there_is() {
    let segment = segment(1);
    let queue = queue_in(&segment, 1, OnReceiverDeath::Drop);
    queue.send(frame(&segment, 1, MIB / 32)).expect("open");
    let Err(TrySendError::Full(second)) = queue.try_send(frame(&segment, 2, MIB / 32)) else {
        panic!("there is one slot");
    };
    assert!(ShmBox::<[u64]>::zeroed_in(&segment, MIB / 8).is_err());
    assert_eq!(number(&second), 2);
    assert_eq!(number(&queue.recv().expect("sent")), 1);
    queue.try_send(second).expect("room");
    assert_eq!(number(&queue.recv().expect("sent")), 2);
    assert_eq!(in_use(&segment), 1);
}

/// What a child has in its memory of the parent's boxes is the name of nothing.
#[apply(test)]
fn a_copy_of_a_box_in_a_child_is_inert() {
    let segment = segment(8);
    let queue = queue_in(&segment, 4, OnReceiverDeath::Drop);
    let shared = Arc::new(Mutex::new(Some(frame(&segment, 1, 100))));
    let copy = Arc::clone(&shared);
    let theirs = queue.clone();
    let child = fork(move || {
        let mut copy = copy.lock().expect("no panic");
        let mut copy = copy.take().expect("a copy");
        assert_eq!(format!("{copy:?}"), "<owned by another process>");
        catch_unwind(AssertUnwindSafe(|| copy[0])).expect_err("read");
        catch_unwind(AssertUnwindSafe(|| copy[0] = 0)).expect_err("changed");
        let sent = catch_unwind(AssertUnwindSafe(|| theirs.send(copy)));
        sent.expect_err("sent, and then dropped");
        // The slot was given up, and the queue goes on.
        theirs.send(frame(&segment, 2, 10)).expect("open");
    });
    child.expect("fork").join().expect("as it should be");
    let kept = shared.lock().expect("no panic").take().expect("it stayed here");
    assert_eq!(number(&kept), 1);
    assert_eq!(number(&queue.recv_timeout(LIMIT).expect("sent")), 2);
    assert!(matches!(queue.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout)));
}

/// A copy that lies in a child for long enough sees the generation of its block again, in a block
/// that the child has by another way: from a message, or made anew. Two handles of one block would
/// be two `&mut` to the same bytes.
#[apply(test)]
fn a_copy_of_a_box_stays_inert_when_the_generations_have_come_round() {
    let segment = segment(8);
    let queue = queue_in(&segment, 1, OnReceiverDeath::Drop);
    // Too long to be kept at hand: the first free block is the next.
    let len = 5000;
    for is_sent in [true, false] {
        let others = blocks(&segment);
        let shared = Arc::new(Mutex::new(Some(frame(&segment, 1, len))));
        let mut made = blocks(&segment);
        made.retain(|block| !others.contains(block));
        let &[Block { header, .. }] = &*made else { panic!("one block: {made:?}") };
        let generation = word(&file(&segment), header) >> 34;

        let (copy, theirs, its) = (Arc::clone(&shared), queue.clone(), segment.clone());
        let go = Queue::<u8>::with_capacity(1).expect("a queue");
        let may_go = go.clone();
        let child = fork(move || {
            may_go.recv_timeout(LIMIT).expect("all is set");
            let own = if is_sent {
                theirs.recv_timeout(LIMIT).expect("sent")
            } else {
                frame(&its, 2, len)
            };
            let mut copy = copy.lock().expect("no panic").take().expect("a copy");
            let word = word(&file(&its), header);
            let changed = catch_unwind(AssertUnwindSafe(|| copy[0] = 7));
            (word >> 34, changed.is_err(), number(&own))
        });
        let child = child.expect("fork");
        drop(shared.lock().expect("no panic").take());
        // As it is after almost 2^30 messages. One that is sent makes it one more.
        let before = generation.wrapping_sub(is_sent.into()) & ((1 << 30) - 1);
        let free = (before << 34).to_ne_bytes();
        file(&segment).write_all_at(&free, header).expect("within the segment");
        if is_sent {
            queue.send(frame(&segment, 2, len)).expect("open");
        }
        go.send(0).expect("open");
        let outcome = child.join().expect("no panic");
        assert_eq!(outcome, (generation, true, 2), "is sent: {is_sent}");
    }
}

/// What was handed over before it is found that another box is not ours goes back.
#[apply(test)]
fn a_send_that_panics_in_the_middle_leaves_nothing() {
    #[derive(offspring::Transfer)]
    struct Two(Frame, Frame);

    let segment = segment(8);
    let its = segment.clone();
    let shared = Arc::new(Mutex::new(Some(frame(&segment, 1, 100))));
    let copy = Arc::clone(&shared);
    let child = fork(move || {
        let queue = Queue::<Two>::with_capacity_in(&its, 1).expect("room");
        let before = in_use(&its);
        let copy = copy.lock().expect("no panic").take().expect("a copy");
        let two = Two(frame(&its, 2, 100), copy);
        let sent = catch_unwind(AssertUnwindSafe(|| queue.send(two).is_ok()));
        sent.expect_err("one of them is the parent's");
        assert_eq!(in_use(&its), before);
        let two = Two(frame(&its, 3, 100), frame(&its, 4, 100));
        assert!(queue.try_send(two).is_ok());
        let Two(first, second) = queue.try_recv().expect("sent");
        (number(&first), number(&second))
    });
    assert_eq!(child.expect("fork").join().expect("as it should be"), (3, 4));
    assert!(shared.lock().expect("no panic").is_some());
}

#[apply(test)]
fn what_a_child_returns_is_its_parents() {
    let segment = segment(8);
    let its = segment.clone();
    let child = fork(move || frame(&its, 5, 1000)).expect("fork");
    let mut returned = child.join().expect("a frame");
    assert_eq!((number(&returned), in_use(&segment)), (5, 1));
    returned[0] = 0;
    // On and on: through a queue, into another child, and back.
    let queue = queue_in(&segment, 1, OnReceiverDeath::Drop);
    queue.send(frame(&segment, 6, 10)).expect("open");
    let passed = queue.recv().expect("sent");
    let child = fork(move || (passed[0] == 6 << 32).then_some(passed).map_or(0, |p| p.len()));
    assert_eq!(child.expect("fork").join().expect("a number"), 10);
    drop((returned, queue));
    assert_eq!(in_use(&segment), 0);
    let text = fork(|| ShmStr::new("häßlich").expect("room")).expect("fork");
    assert_eq!(*text.join().expect("text"), *"häßlich");
    let numbers = fork(|| {
        let mut numbers = ShmVec::with_capacity(3).expect("room");
        numbers.extend_from_slice(&[1_u8, 2]).expect("room");
        Moved(numbers)
    });
    let Moved(mut numbers) = numbers.expect("fork").join().expect("numbers");
    numbers.push(3).expect("room");
    assert_eq!((&*numbers, numbers.capacity()), (&[1, 2, 3][..], 3));
    // As it is, without a wrapper.
    let numbers = fork(|| {
        let mut numbers = ShmVec::with_capacity(3).expect("room");
        numbers.push(4_u8).map(|()| numbers).expect("room")
    });
    assert_eq!(*numbers.expect("fork").join().expect("numbers"), [4]);
}

#[apply(test)]
fn what_nobody_joins_is_freed() {
    let segment = segment(8);
    let make = |number| {
        let its = segment.clone();
        fork(move || frame(&its, number, 1000)).expect("fork")
    };
    // Dropped while it runs, dropped when it has ended, and killed.
    drop(make(1));
    let ended = make(2);
    common::wait_until("it has ended", || !ended.is_alive());
    assert!(in_use(&segment) > 0, "it is its parent's to take");
    assert_eq!(segment.reap().map(|dead| dead < 3), Ok(true));
    assert!(in_use(&segment) > 0, "and nobody else frees it");
    drop(ended);
    let its = segment.clone();
    let killed = fork(move || {
        std::mem::forget(frame(&its, 3, 10));
        common::sleep_for_ever();
        #[expect(unreachable_code, reason = "says what it would return")]
        frame(&its, 3, 10)
    });
    let killed = killed.expect("fork");
    killed.kill().expect("kill");
    assert!(killed.join().is_err());
    // The first one is waited for by some fork after its end, which may be after its box was freed.
    common::wait_until("all is freed", || {
        fork(|| ()).expect("fork").join().expect("no panic");
        in_use(&segment) == 0 && common::children().is_empty()
    });
}

/// A parent that is killed with what its child has returned leaves nothing.
#[apply(test)]
fn what_was_returned_goes_with_the_parent() {
    let segment = segment(8);
    let its = segment.clone();
    let parent = child_that(move || {
        let theirs = its.clone();
        let child = fork(move || frame(&theirs, 1, 1000)).expect("fork");
        common::wait_until("it has ended", || !child.is_alive());
        let theirs = its.clone();
        let joined = fork(move || frame(&theirs, 2, 1000)).expect("fork").join();
        std::mem::forget((child, joined.expect("a frame")));
    });
    assert_eq!(in_use(&segment), 2);
    kill(&parent);
    segment.reap().expect("attached");
    assert_eq!(in_use(&segment), 0);
    drop(parent);
}

#[apply(test)]
fn what_the_parent_cannot_reach_cannot_be_returned() {
    let child = fork(|| {
        let own = segment(1);
        frame(&own, 1, 10)
    });
    match child.expect("fork").join() {
        Err(JoinError::Unsendable(why)) => assert!(why.contains("another segment"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Only what was there at the fork goes to the child.
#[apply(test)]
fn a_box_that_a_captured_value_makes_when_dropped_is_freed() {
    struct Maker(Segment);
    impl Drop for Maker {
        fn drop(&mut self) {
            drop(ShmBox::new_in(&self.0, 7_u64).expect("room"));
        }
    }

    let segment = segment(1);
    drop(frame(&segment, 1, 10));
    let maker = Maker(segment.clone());
    let child = child_that(move || std::mem::forget(maker));
    assert_eq!(in_use(&segment), 0);
    kill(&child);
    assert!(child.join().is_err());
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_captured_box_is_the_childs() {
    let segment = segment(8);
    let queue = queue_in(&segment, 4, OnReceiverDeath::Drop);
    let (mut first, second) = (frame(&segment, 1, 1000), frame(&segment, 2, 10));
    first[0] = 1 << 32;
    let theirs = queue.clone();
    let child = fork(move || {
        first.iter_mut().for_each(|word| *word += 1 << 32);
        theirs.send(first).expect("open");
        number(&second)
    });
    let child = child.expect("fork");
    assert_eq!(number(&queue.recv_timeout(LIMIT).expect("sent")), 2);
    assert_eq!(child.join().expect("no panic"), 2);
    assert_eq!(in_use(&segment), 1, "the second one went with the child");

    // A child that never looks at it, one that only drops it, and a grandchild.
    let unused = frame(&segment, 3, 10);
    let child = child_that(move || std::mem::forget(unused));
    assert_eq!(in_use(&segment), 2);
    assert_eq!(segment.reap(), Ok(0));
    kill(&child);
    assert_eq!((segment.reap(), in_use(&segment)), (Ok(1), 1));
    drop(child);
    let dropped = frame(&segment, 4, 10);
    let child = child_that(move || drop(dropped));
    assert_eq!(in_use(&segment), 1);
    kill(&child);
    drop(child);
    let deep = frame(&segment, 5, 10);
    let child = fork(move || fork(move || number(&deep)).expect("fork").join().expect("a number"));
    assert_eq!(child.expect("fork").join().expect("a number"), 5);
    // What comes from a child goes to another: nothing of its way is left.
    let its = segment.clone();
    let made = fork(move || frame(&its, 6, 10)).expect("fork").join().expect("a frame");
    let child = child_that(move || std::mem::forget(made));
    kill(&child);
    assert!(child.join().is_err());
    assert_eq!(in_use(&segment), 1);
}

/// Whoever is killed, and wherever: each frame is whole, nobody gets one twice, and in the end all
/// memory is there again.
fn storm(policy: OnReceiverDeath) {
    const ROUNDS: u64 = 150;
    let segment = segment(8);
    let queue = queue_in(&segment, 3, policy);
    // Word 0: stop. From word 1 on: how often each frame was received.
    let board = Board::new();
    let next = offspring::Value::new(0_u64).expect("a value");
    let seen = Queue::<u64>::with_capacity(1 << 22).expect("a queue");
    let worker = |sends: bool| {
        let (queue, segment, next, seen) =
            (queue.clone(), segment.clone(), next.clone(), seen.clone());
        fork(move || {
            while board.get(0) == 0 {
                if sends {
                    let number = next.fetch_add(1).expect("not corrupt");
                    let len = 1 + (number as usize * 37) % 2000;
                    let made = ShmBox::from_fn_in(&segment, len, |i| number << 32 | i as u64);
                    if let Ok(frame) = made {
                        let _ = queue.send_timeout(frame, Duration::from_millis(5));
                    }
                } else if let Ok(frame) = queue.recv_timeout(Duration::from_millis(5)) {
                    seen.send(number(&frame)).expect("room");
                }
            }
        })
        .expect("fork")
    };
    let mut workers: Vec<(bool, Child<()>)> =
        [true, false, true, false].map(|sends| (sends, worker(sends))).into();
    let mut dead = Vec::new();
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_micros(300 + 97 * (round % 31)));
        let (sends, victim) = workers.remove(round as usize % 4);
        victim.kill().expect("kill");
        if round % 3 == 0 {
            drop(victim.join());
        } else {
            // For others to find out.
            dead.push(victim);
        }
        workers.push((sends, worker(sends)));
    }
    board.set(0, 1);
    for (_, worker) in workers {
        worker.join().expect("no panic: no frame was torn");
    }
    dead.into_iter().for_each(|victim| drop(victim.join()));
    segment.reap().expect("attached");
    while let Ok(frame) = queue.recv_timeout(Duration::from_millis(100)) {
        seen.send(number(&frame)).expect("room");
    }
    seen.close();
    let mut numbers: Vec<u64> = seen.iter().collect();
    let received = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), received, "received twice");
    assert!(received > 0, "nothing happened");
    segment.reap().expect("attached");
    assert_eq!(in_use(&segment), 1, "the queue");
    let all = ShmBox::<[u8]>::zeroed_in(&segment, 7 * MIB).expect("all of it");
    assert_eq!(all.len(), 7 * MIB);
}

#[apply(test)]
fn frames_are_whole_and_nothing_is_left_whoever_is_killed() {
    storm(OnReceiverDeath::Drop);
}

#[apply(test)]
fn frames_that_come_back_are_whole_and_nothing_is_left_whoever_is_killed() {
    storm(OnReceiverDeath::Redeliver);
}
