//! Blocks that a process keeps at hand, beside other processes: none is lost with its keeper, none
//! is in the way of others, and a child takes none of its parent's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::common::fork;
use offspring::{ByteQueue, CreateError, Queue, Segment, ShmBox};

use crate::common;
use crate::common::blocks::{blocks, cached, in_use};
use crate::harness::{apply, test};

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

/// Makes boxes of several sizes, and drops them.
fn make_and_drop(segment: &Segment) {
    for len in [1, 50, 100, 500] {
        drop(ShmBox::<[u64]>::zeroed_in(segment, len).expect("room"));
    }
}

#[apply(test)]
fn what_a_killed_process_kept_goes_back() {
    let segment = segment();
    let (ready, theirs) = (Queue::<u8>::with_capacity(1).expect("a queue"), segment.clone());
    let say = ready.clone();
    let child = fork(move || -> () {
        make_and_drop(&theirs);
        say.send(0).expect("open");
        common::sleep_for_ever()
    });
    let child = child.expect("fork");
    ready.recv().expect("open");
    assert_eq!((in_use(&segment), cached(&segment)), (0, 4));
    let seen = segment.stats().expect("mapped");
    assert_eq!((seen.in_use.blocks, seen.cached.blocks, seen.charged), (0, 4, 0));
    assert_eq!(seen.cached.bytes, 8 * 651);
    child.kill().expect("kill");
    assert!(child.join().is_err());
    segment.reap().expect("mapped");
    let seen = segment.stats().expect("mapped");
    assert_eq!((cached(&segment), seen.cached.bytes, seen.charged), (0, 0, 0));
}

/// A living process that does nothing has them.
#[apply(test)]
fn what_others_keep_is_no_less_to_be_had() {
    let segment = segment();
    let [ready, done] = [0; 2].map(|_| Queue::<u8>::with_capacity(1).expect("a queue"));
    let (say, wait, theirs) = (ready.clone(), done.clone(), segment.clone());
    let child = fork(move || {
        make_and_drop(&theirs);
        say.send(0).expect("open");
        wait.recv().expect("open");
        // They are gone, and there is nothing else.
        let refused = ShmBox::new_in(&theirs, 1_u64);
        assert!(matches!(refused, Err(CreateError::OutOfMemory { .. })));
        say.send(0).expect("open");
        wait.recv().expect("open");
        drop(ShmBox::new_in(&theirs, 1_u64).expect("room"));
    });
    let child = child.expect("fork");
    ready.recv().expect("open");
    assert_eq!(cached(&segment), 4);
    let all = ShmBox::<[u8]>::zeroed_in(&segment, 1 << 20).expect("all of it");
    assert_eq!((in_use(&segment), cached(&segment)), (1, 0));
    done.send(0).expect("open");
    ready.recv().expect("open");
    drop(all);
    done.send(0).expect("open");
    child.join().expect("no panic");
}

#[apply(test)]
fn a_child_takes_nothing_that_its_parent_keeps() {
    let segment = segment();
    let made = ShmBox::new_in(&segment, 7_u64).expect("room");
    let place = blocks(&segment)[0].bytes;
    drop(made);
    assert_eq!((in_use(&segment), cached(&segment)), (0, 1));
    let theirs = segment.clone();
    let child = fork(move || {
        let made = ShmBox::new_in(&theirs, 8_u64).expect("room");
        let at: Vec<u64> = blocks(&theirs).iter().map(|block| block.bytes).collect();
        drop(made);
        (at, cached(&theirs))
    });
    let (at, kept) = child.expect("fork").join().expect("no panic");
    assert_eq!((at.len(), kept), (1, 2));
    assert_ne!(at[0], place);
    assert_eq!(cached(&segment), 1, "the child's went back with it");
    let _made = ShmBox::new_in(&segment, 9_u64).expect("room");
    assert_eq!((blocks(&segment)[0].bytes, cached(&segment)), (place, 0));
}

/// The parent has freed what the child finds in a copied handle, and has it again.
#[apply(test)]
fn a_copied_handle_of_a_box_that_was_kept_and_made_again_is_inert() {
    let segment = segment();
    let made = ShmBox::new_in(&segment, 7_u64).expect("room");
    let shared = Arc::new(Mutex::new(Some(made)));
    let wait = Queue::<u8>::with_capacity(1).expect("a queue");
    let (copy, theirs) = (Arc::clone(&shared), wait.clone());
    let child = fork(move || {
        theirs.recv().expect("open");
        let copy = copy.lock().expect("no panic").take().expect("a copy");
        catch_unwind(AssertUnwindSafe(|| *copy)).is_err()
    });
    let child = child.expect("fork");
    drop(shared.lock().expect("no panic").take());
    let second = ShmBox::new_in(&segment, 8_u64).expect("room");
    assert_eq!((in_use(&segment), cached(&segment)), (1, 0), "the same block");
    wait.send(0).expect("open");
    assert!(child.join().expect("no panic"));
    assert_eq!(*second, 8);
}

#[apply(test)]
fn a_process_that_drops_its_last_handle_keeps_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let segment = Segment::create_file(&path, 1 << 20).expect("a segment");
    let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
    make_and_drop(&segment);
    drop(queue.loan(1000).expect("room"));
    let boxed = ShmBox::new_in(&segment, 1_u64).expect("room");
    drop((segment, queue));
    // The last one, which is kept in turn.
    drop(boxed);
    let segment = Segment::open_file(&path).expect("it is there");
    let seen = segment.stats().expect("mapped");
    assert_eq!((in_use(&segment), cached(&segment), seen.charged), (0, 0, 0));
}

/// Threads that come and go leave their magazines to each other.
#[apply(test)]
fn threads_that_have_ended_keep_no_more_than_those_that_run() {
    let segment = segment();
    for _ in 0..100 {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| make_and_drop(&segment));
            }
        });
    }
    assert_eq!(in_use(&segment), 0);
    // Of each of four sizes at most three for each of three threads.
    assert!(cached(&segment) <= 4 * 3 * 3, "{}", cached(&segment));
}

/// Boxes that are dropped by other threads than those that have made them.
#[apply(test)]
fn boxes_that_go_from_thread_to_thread_are_each_ones_own() {
    let segment = segment();
    let (send, recv) = std::sync::mpsc::sync_channel::<(u64, ShmBox<[u64]>)>(16);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (send, segment) = (send.clone(), &segment);
            scope.spawn(move || {
                for round in 0..2000 {
                    let mark = thread << 32 | round;
                    let made = ShmBox::from_slice_in(segment, &[mark; 40]).expect("room");
                    assert!(made.iter().all(|&word| word == mark));
                    send.send((mark, made)).expect("open");
                    let own = ShmBox::from_slice_in(segment, &[!mark; 40]).expect("room");
                    assert!(own.iter().all(|&word| word == !mark));
                }
            });
        }
        drop(send);
        for (mark, boxed) in recv {
            assert!(boxed.iter().all(|&word| word == mark), "another box has the same memory");
        }
    });
    assert_eq!((in_use(&segment), segment.stats().expect("mapped").charged), (0, 0));
}
