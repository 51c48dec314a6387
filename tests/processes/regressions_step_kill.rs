//! What killing at every instruction has brought to light, each with the kill that did.
//!
//! - A receiver of a queue that delivers again took a message from a dead one, and was killed
//!   between giving the slot back as an orphan and setting the flag that says so. Receivers looked
//!   for orphans only by that flag, and so waited for ever, though the message was there; only a
//!   sender that happened to need the slot would have told them.
//! - A process that makes an object was killed after it had claimed a block and before it had
//!   described it. Whoever gave the block back took the length of the block's last contents off the
//!   bytes in use, which nobody had added: the segment then handed out more than its length, by as
//!   much each time.
//! - A process that makes an object was killed after it had entered itself as a holder of the block
//!   and before it showed it. The block was given back with that entry, and whoever had it next
//!   could not: it seemed to be held by somebody until a process with the same index died.
//!
//! x86-64 only, as `step_kill`.

use std::time::Duration;

use offspring::{OnReceiverDeath, Queue, QueueOptions, Segment};

use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark};
use crate::common::watch::Watch;
use crate::harness::{apply, test};

/// A queue of which the only message is an orphan that nobody was told of.
fn orphaned_in_silence() -> (Segment, Queue<u64>) {
    let segment = Segment::create(1 << 16).expect("a segment");
    let queue = QueueOptions::new()
        .capacity(2)
        .on_receiver_death(OnReceiverDeath::Redeliver)
        .create_in(&segment);
    let queue: Queue<u64> = queue.expect("a queue");
    queue.try_send(7).expect("room");
    let reader = Tracee::start(|| {
        std::mem::forget(queue.try_recv_ref().expect("a message"));
        mark();
    });
    reader.kill();
    let mut recoverer = Tracee::start(|| {
        assert!(queue.is_empty());
        mark();
        let _ = queue.try_recv();
        mark();
    });
    // The first thing it changes is the slot of the dead reader; the flag comes next.
    let mut watch = Watch::new(segment.as_fd());
    assert!(!watch.follow(&mut recoverer, 1));
    recoverer.kill();
    (segment, queue)
}

#[apply(test)]
fn an_orphan_whose_recoverer_was_killed_before_it_said_so_is_found_by_a_receiver() {
    let (_segment, queue) = orphaned_in_silence();
    let message = queue.recv_ref_timeout(Duration::from_secs(20)).expect("it came back");
    assert_eq!((*message, message.redelivered()), (7, true));
}

#[apply(test)]
fn an_orphan_whose_recoverer_was_killed_before_it_said_so_is_announced_by_a_reaper() {
    let (segment, queue) = orphaned_in_silence();
    assert_eq!(segment.reap(), Ok(2));
    let message = queue.try_recv_ref().expect("it came back");
    assert_eq!((*message, message.redelivered()), (7, true));
}

#[apply(test)]
fn a_creator_killed_before_it_described_its_block_does_not_enlarge_the_segment() {
    let segment = Segment::create(1 << 17).expect("a segment");
    let kept = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
    let measure = || Errand::send(60, || room(&segment)).answer().expect("a number");
    let before = measure();
    for change in 0.. {
        drop(Queue::<[u8; 1000]>::with_capacity_in(&segment, 100).expect("most of it"));
        let mut creator = Tracee::start(|| {
            assert!(kept.is_empty());
            mark();
            let made = Queue::<[u8; 1000]>::with_capacity_in(&segment, 70);
            mark();
            std::mem::forget(made.expect("room"));
        });
        let finished = Watch::new(segment.as_fd()).follow(&mut creator, change);
        creator.kill();
        segment.reap().expect("attached");
        assert_eq!(measure(), before, "killed after change {change}");
        segment.reap().expect("attached");
        if finished {
            break;
        }
    }
}

#[apply(test)]
fn a_creator_killed_before_it_showed_its_block_does_not_hold_what_comes_after() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let kept = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
    for change in 0.. {
        let mut creator = Tracee::start(|| {
            assert!(kept.is_empty());
            mark();
            let made = Queue::<[u8; 1000]>::with_capacity_in(&segment, 60);
            mark();
            std::mem::forget(made.expect("room"));
        });
        let finished = Watch::new(segment.as_fd()).follow(&mut creator, change);
        creator.kill();
        segment.reap().expect("attached");
        // There is one block of that size.
        for _ in 0..3 {
            let again = Queue::<[u8; 1000]>::with_capacity_in(&segment, 60);
            assert!(again.is_ok(), "killed after change {change}: {again:?}");
        }
        if finished {
            break;
        }
    }
}
