//! Cases of queues in messages of another queue. Whatever a kill leaves, a queue that was sent is
//! there and works, one that was not is gone, and all of the memory can be had again.

use std::time::Duration;

use offspring::{ObjectQueue, OnReceiverDeath, Queue, QueueOptions, Segment, TryRecvError};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark};
use crate::stage::{BOTH, Found, How, Scene, Tally, found};

const LONG: Duration = Duration::from_secs(20);

/// What is in the last queue that is sent, by which survivors know that nothing more comes.
const SENTINEL: u64 = 99;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// The only handle of a queue, which is dropped with it.
    Send,
    /// A queue, which is used and dropped.
    Receive,
    /// By the only holder of a queue with a queue in a message.
    DropLast,
}

impl Op {
    const ALL: [Op; 3] = [Op::Send, Op::Receive, Op::DropLast];

    fn name(self) -> &'static str {
        match self {
            Op::Send => "send a queue",
            Op::Receive => "receive a queue",
            Op::DropLast => "drop a queue with a queue in it",
        }
    }

    fn perform(self, segment: &Segment, queue: &ObjectQueue<Queue<u64>>) {
        // Attached from here on.
        std::hint::black_box(queue.len());
        match self {
            Op::Send => {
                let value = numbers(segment, 2);
                mark();
                queue.send(value).expect("room");
            }
            Op::Receive => {
                mark();
                let received = queue.recv().expect("a message");
                assert_eq!(received.recv(), Ok(1));
            }
            Op::DropLast => {
                let last = ObjectQueue::with_capacity_in(segment, 2).expect("room");
                last.send(numbers(segment, 7)).expect("room");
                mark();
                drop(last);
            }
        }
        mark();
    }
}

fn numbers(segment: &Segment, number: u64) -> Queue<u64> {
    let queue = Queue::with_capacity_in(segment, 1).expect("room");
    queue.send(number).expect("room");
    queue
}

/// A segment with a queue, in which a queue with the number 1 is, and what memory there was before.
struct Post {
    segment: Segment,
    queue: ObjectQueue<Queue<u64>>,
    baseline: String,
}

impl Post {
    fn new(policy: OnReceiverDeath) -> Post {
        let segment = Segment::create(1 << 15).expect("a segment");
        let options = QueueOptions::new().capacity(2).on_receiver_death(policy).clone();
        let queue = options.create_objects_in(&segment).expect("a queue");
        let baseline = Errand::send(30, || room(&segment)).answer().expect("a number");
        segment.reap().expect("attached");
        queue.send(numbers(&segment, 1)).expect("room");
        Post { segment, queue, baseline }
    }

    /// Receives everything, uses it, fills the queue and drains it twice, and counts the memory.
    fn check(&self, how: How) -> String {
        let queue = &self.queue;
        if how == How::Reaped {
            self.segment.reap().expect("attached");
        }
        let number_of = |received: Queue<u64>| received.try_recv();
        let mut text = String::new();
        let mut sentinel_is_in = false;
        loop {
            match queue.try_recv().map(number_of) {
                Ok(Ok(SENTINEL)) => break,
                Ok(Ok(number)) => text += &format!("{number}, "),
                // Its receiver was killed after it had taken the number out, and it came back.
                Ok(Err(TryRecvError::Empty)) => text += "used, ",
                Ok(Err(error)) => panic!("{error}"),
                Err(TryRecvError::Empty) if !sentinel_is_in => {
                    let sentinel = numbers(&self.segment, SENTINEL);
                    let sent = queue.send_timeout(sentinel, Duration::from_millis(3));
                    sentinel_is_in = sent.is_ok();
                }
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(other) => panic!("{other}"),
            }
        }
        // What comes back from the dead keeps no order.
        while let Ok(received) = queue.recv_timeout(Duration::from_millis(1)) {
            text += &format!("{}, ", number_of(received).expect("there"));
        }
        for _ in 0..2 {
            for number in 0..queue.capacity() {
                let value = numbers(&self.segment, number as u64);
                match how {
                    How::Alone => queue.send_timeout(value, LONG).expect("the whole capacity"),
                    How::Reaped => queue.try_send(value).expect("the whole capacity"),
                }
            }
            for number in 0..queue.capacity() {
                let received = queue.try_recv().expect("in order");
                assert_eq!(number_of(received), Ok(number as u64));
            }
        }
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
        Op::Receive => found(["1, 0 lost", "0 lost"]),
        Op::DropLast => found(["1, 0 lost"]),
    }
}

fn plan(op: Op, policy: OnReceiverDeath) -> Plan {
    Plan::new("object in a message", op.name(), format!("{policy:?}"), move |tally: &mut Tally| {
        let post = Post::new(policy);
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

/// All cases.
pub fn plans() -> Vec<Plan> {
    let policies = [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver];
    let plans = policies.map(|policy| Op::ALL.map(|op| plan(op, policy)));
    plans.into_iter().flatten().collect()
}
