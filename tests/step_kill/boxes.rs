//! Cases of boxes. Whatever a kill leaves, a box is its sender's, its message's or its receiver's, and
//! all of the memory can be had again.

use std::time::Duration;

use offspring::{OnReceiverDeath, Queue, QueueOptions, Segment, ShmBox, ShmVec, TryRecvError};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark};
use crate::stage::{BOTH, Found, Helper, How, Scene, Tally, found};

const LONG: Duration = Duration::from_secs(20);

/// What the last box says, by which survivors know that nothing more comes.
const SENTINEL: u8 = 99;

type Bytes = ShmBox<[u8]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Send,
    Receive,
    Make,
    Drop,
    Grow,
    /// By the only holder of a queue with two boxes.
    DropLast,
    /// After one that was killed with a box, and with another in a queue.
    Reap,
}

impl Op {
    const ALL: [Op; 7] =
        [Op::Send, Op::Receive, Op::Make, Op::Drop, Op::Grow, Op::DropLast, Op::Reap];

    fn name(self) -> &'static str {
        match self {
            Op::Send => "send",
            Op::Receive => "receive, drop",
            Op::Make => "make",
            Op::Drop => "drop",
            Op::Grow => "grow a vector",
            Op::DropLast => "drop by the last holder",
            Op::Reap => "reap",
        }
    }

    fn perform(self, segment: &Segment, queue: &Queue<Bytes>) {
        // Attached from here on.
        std::hint::black_box(queue.len());
        match self {
            Op::Send => {
                let bytes = made(segment, 2);
                mark();
                queue.send(bytes).expect("room");
            }
            Op::Receive => {
                mark();
                drop(queue.recv().expect("a box"));
            }
            Op::Make => {
                mark();
                std::mem::forget(made(segment, 7));
            }
            Op::Drop => {
                let bytes = made(segment, 7);
                mark();
                drop(bytes);
            }
            Op::Grow => {
                let mut vec = ShmVec::with_capacity_in(segment, 2).expect("room");
                vec.extend_from_slice(&[1_u64, 2]).expect("room");
                mark();
                vec.push(3).expect("room");
                std::mem::forget(vec);
            }
            Op::DropLast => {
                let last = Queue::with_capacity_in(segment, 3).expect("room");
                last.send(made(segment, 7)).expect("room");
                last.send(made(segment, 8)).expect("room");
                mark();
                drop(last);
            }
            Op::Reap => {
                mark();
                assert_eq!(segment.reap(), Ok(1));
            }
        }
        mark();
    }
}

fn made(segment: &Segment, number: u8) -> Bytes {
    ShmBox::from_slice_in(segment, &[number; 300]).expect("room")
}

/// The number of a box, in which all bytes must be the same.
fn number_of(bytes: &Bytes) -> u8 {
    let number = bytes[0];
    assert!(bytes.len() == 300 && bytes.iter().all(|&byte| byte == number), "torn: {bytes:?}");
    number
}

/// A segment with a queue, in which box 1 is, and what memory there was without it.
struct Post {
    segment: Segment,
    queue: Queue<Bytes>,
    baseline: String,
}

impl Post {
    fn new(op: Op, policy: OnReceiverDeath) -> Post {
        let segment = Segment::create(1 << 15).expect("a segment");
        let options = QueueOptions::new().capacity(2).on_receiver_death(policy).clone();
        let queue = options.create_in(&segment).expect("a queue");
        let baseline = Errand::send(30, || room(&segment)).answer().expect("a number");
        segment.reap().expect("attached");
        queue.send(made(&segment, 1)).expect("room");
        if op == Op::Reap {
            Helper::start(|| {
                let other = Queue::with_capacity_in(&segment, 2).expect("room");
                other.send(made(&segment, 9)).expect("room");
                std::mem::forget(made(&segment, 8));
                other
            })
            .kill();
        }
        Post { segment, queue, baseline }
    }

    /// Receives everything, fills the queue and drains it twice, and counts the memory.
    fn check(&self, how: How) -> String {
        let queue = &self.queue;
        if how == How::Reaped {
            self.segment.reap().expect("attached");
        }
        let mut text = String::new();
        let mut sentinel_is_in = false;
        loop {
            match queue.try_recv() {
                Ok(bytes) if number_of(&bytes) == SENTINEL => break,
                Ok(bytes) => text += &format!("{}, ", number_of(&bytes)),
                Err(TryRecvError::Empty) if !sentinel_is_in => {
                    let sentinel = made(&self.segment, SENTINEL);
                    let sent = queue.send_timeout(sentinel, Duration::from_millis(3));
                    sentinel_is_in = sent.is_ok();
                }
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(other) => panic!("{other}"),
            }
        }
        // What comes back from the dead keeps no order.
        while let Ok(bytes) = queue.recv_timeout(Duration::from_millis(1)) {
            text += &format!("{}, ", number_of(&bytes));
        }
        for _ in 0..2 {
            for number in 0..queue.capacity() {
                let bytes = made(&self.segment, number as u8);
                match how {
                    How::Alone => queue.send_timeout(bytes, LONG).expect("the whole capacity"),
                    How::Reaped => queue.try_send(bytes).expect("the whole capacity"),
                }
            }
            assert!(queue.try_send(made(&self.segment, 0)).expect_err("no more").is_full());
            for number in 0..queue.capacity() {
                assert_eq!(number_of(&queue.try_recv().expect("in order")), number as u8);
            }
        }
        assert!(queue.is_empty());
        let room = room(&self.segment);
        assert_eq!(room, self.baseline, "after {text}");
        text + &format!("{} lost", queue.lost())
    }
}

/// What survivors find as the victim goes on.
fn expected(op: Op, policy: OnReceiverDeath) -> Vec<Found> {
    match op {
        Op::Send => found(["1, 0 lost", "1, 2, 0 lost"]),
        Op::Receive if policy == OnReceiverDeath::Drop => found(["1, 0 lost", "1 lost", "0 lost"]),
        // Delivered again until it was released, with the box; after that the box is its receiver's.
        Op::Receive => found(["1, 0 lost", "0 lost"]),
        Op::Make | Op::Drop | Op::Grow | Op::DropLast | Op::Reap => found(["1, 0 lost"]),
    }
}

fn plan(op: Op, policy: OnReceiverDeath) -> Plan {
    Plan::new("box", op.name(), format!("{policy:?}"), move |tally: &mut Tally| {
        let post = Post::new(op, policy);
        let scene = Scene {
            segment: post.segment.as_fd(),
            victim: &|| Tracee::start(|| op.perform(&post.segment, &post.queue)),
            expected: expected(op, policy),
            check: &|how| post.check(how),
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
    })
}

/// All cases. What does not touch the queue is the same with either policy.
pub fn plans(full: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        for op in Op::ALL {
            let is_about_queues = matches!(op, Op::Send | Op::Receive);
            if is_about_queues || policy == OnReceiverDeath::Drop && (full || op != Op::Reap) {
                plans.push(plan(op, policy));
            }
        }
    }
    plans
}
