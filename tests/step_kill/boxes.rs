//! Cases of boxes. Whatever a kill leaves, a box is its sender's, its message's or its receiver's,
//! and all of the memory can be had again.

use offspring::{OnReceiverDeath, Queue, Segment, ShmBox, ShmVec};

use crate::Plan;
use crate::common::trace::mark;
use crate::post::{Post, boxed, line};
use crate::stage::{Found, Helper, Tally, found};

type Bytes = ShmBox<[u8]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Send,
    Receive,
    Make,
    Drop,
    /// Of the block of one that was just dropped.
    MakeAgain,
    Grow,
    /// By the only holder of a queue with two boxes.
    DropLast,
    /// After one that was killed with a box, and with another in a queue.
    Reap,
}

impl Op {
    const ALL: [Op; 8] = [
        Op::Send,
        Op::Receive,
        Op::Make,
        Op::Drop,
        Op::MakeAgain,
        Op::Grow,
        Op::DropLast,
        Op::Reap,
    ];

    fn name(self) -> &'static str {
        match self {
            Op::Send => "send",
            Op::Receive => "receive, drop",
            Op::Make => "make",
            Op::Drop => "drop",
            Op::MakeAgain => "drop and make again",
            Op::Grow => "grow a vector",
            Op::DropLast => "drop by the last holder",
            Op::Reap => "reap",
        }
    }

    fn perform(self, segment: &Segment, queue: &Queue<Bytes>) {
        match self {
            Op::Send => {
                let bytes = boxed(segment, 2);
                mark();
                queue.send(bytes).expect("room");
            }
            Op::Receive => {
                mark();
                drop(queue.recv().expect("a box"));
            }
            Op::Make => {
                mark();
                std::mem::forget(boxed(segment, 7));
            }
            Op::Drop => {
                let bytes = boxed(segment, 7);
                mark();
                drop(bytes);
            }
            Op::MakeAgain => {
                let bytes = boxed(segment, 7);
                mark();
                drop(bytes);
                std::mem::forget(boxed(segment, 8));
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
                last.send(boxed(segment, 7)).expect("room");
                last.send(boxed(segment, 8)).expect("room");
                mark();
                drop(last);
            }
            Op::Reap => {
                mark();
                assert_eq!(segment.reap(), Ok(1));
            }
        }
    }
}

/// What survivors find as the victim goes on.
fn expected(op: Op, policy: OnReceiverDeath) -> Vec<Found> {
    match op {
        Op::Send => found(["1, 0 lost", "1, 2, 0 lost"]),
        Op::Receive if policy == OnReceiverDeath::Drop => found(["1, 0 lost", "1 lost", "0 lost"]),
        // Delivered again until it was released, with the box; after that the box is its
        // receiver's.
        Op::Receive => found(["1, 0 lost", "0 lost"]),
        Op::Make | Op::Drop | Op::MakeAgain | Op::Grow | Op::DropLast | Op::Reap => {
            found(["1, 0 lost"])
        }
    }
}

fn plan(op: Op, policy: OnReceiverDeath) -> Plan {
    Plan::new("box", op.name(), format!("{policy:?}"), move |tally: &mut Tally| {
        let post = Post::<Queue<Bytes>>::new(policy, 2);
        if op == Op::Reap {
            Helper::start(|| {
                let other = Queue::with_capacity_in(&post.segment, 2).expect("room");
                other.send(boxed(&post.segment, 9)).expect("room");
                std::mem::forget(boxed(&post.segment, 8));
                other
            })
            .kill();
        }
        post.visit(tally, &|segment, queue| op.perform(segment, queue), expected(op, policy));
    })
}

/// Lines of victims: one sends or receives a box, and those who come after it send one or clear up,
/// which is long.
pub fn lines(full: bool) -> Vec<Plan> {
    let of = |object, op: Op, reaps, samples| {
        let operation = if reaps { "box: reap" } else { "box: send" };
        line(
            object,
            operation,
            op.name(),
            move |segment, queue| op.perform(segment, queue),
            reaps,
            samples,
        )
    };
    if !full {
        return vec![of("two victims", Op::Receive, false, &[2])];
    }
    vec![
        of("two victims", Op::Send, false, &[4]),
        of("two victims", Op::Receive, false, &[4]),
        of("two victims", Op::Send, true, &[1]),
        of("three victims", Op::Receive, false, &[2, 2]),
    ]
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
