//! Cases of objects in messages of a queue: queues, and slices that are only read. Whatever a kill
//! leaves, an object that was sent is there and whole, one that was not is gone, and all of the
//! memory can be had again.

use serde::Serialize;
use serde::de::DeserializeOwned;

use offspring::{ObjectQueue, OnReceiverDeath, Queue, Segment, ShmArc};

use crate::Plan;
use crate::common::trace::mark;
use crate::post::{Letters, Post, line, number_in, queued, shared};
use crate::stage::{Found, Tally, found};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// The only handle of an object, which is dropped with it.
    Send,
    /// An object, which is used and dropped.
    Receive,
    /// By the only holder of a queue with an object in a message.
    DropLast,
}

impl Op {
    const ALL: [Op; 3] = [Op::Send, Op::Receive, Op::DropLast];

    fn name(self) -> &'static str {
        match self {
            Op::Send => "send",
            Op::Receive => "receive",
            Op::DropLast => "drop a queue with one in it",
        }
    }

    fn perform<T: Sent>(self, segment: &Segment, queue: &ObjectQueue<T>) {
        match self {
            Op::Send => {
                let value = T::make(segment, 2);
                mark();
                queue.send(value).expect("room");
            }
            Op::Receive => {
                mark();
                assert_eq!(queue.recv().expect("a message").number(), 1);
            }
            Op::DropLast => {
                let last = ObjectQueue::with_capacity_in(segment, 2).expect("room");
                last.send(T::make(segment, 7)).expect("room");
                mark();
                drop(last);
            }
        }
    }
}

/// An object that is sent.
trait Sent: Serialize + DeserializeOwned + 'static {
    const NAME: &str;

    fn make(segment: &Segment, number: u64) -> Self;

    fn number(&self) -> u64;
}

impl Sent for Queue<u64> {
    const NAME: &str = "queue in a message";

    fn make(segment: &Segment, number: u64) -> Self {
        queued(segment, number)
    }

    fn number(&self) -> u64 {
        self.recv().expect("it is in there")
    }
}

impl Sent for ShmArc<[u8]> {
    const NAME: &str = "slice in a message";

    fn make(segment: &Segment, number: u64) -> Self {
        shared(segment, number)
    }

    fn number(&self) -> u64 {
        number_in(self)
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

fn plan<T: Sent>(op: Op, policy: OnReceiverDeath) -> Plan
where
    ObjectQueue<T>: Letters,
{
    Plan::new(T::NAME, op.name(), format!("{policy:?}"), move |tally: &mut Tally| {
        let post = Post::<ObjectQueue<T>>::new(policy, 2);
        post.visit(tally, &|segment, queue| op.perform(segment, queue), expected(op, policy));
    })
}

/// Lines of victims: one sends or receives a queue, and those who come after it send one or clear
/// up.
pub fn lines(full: bool) -> Vec<Plan> {
    let of = |object, op: Op, reaps, samples| {
        let operation =
            if reaps { "object in a message: reap" } else { "object in a message: send" };
        let perform = move |segment: &Segment, queue: &ObjectQueue<Queue<u64>>| {
            op.perform(segment, queue);
        };
        line(object, operation, op.name(), perform, reaps, samples)
    };
    if !full {
        return vec![of("two victims", Op::Receive, false, &[2])];
    }
    vec![
        of("two victims", Op::Send, false, &[4]),
        of("two victims", Op::Receive, false, &[4]),
        of("two victims", Op::Send, true, &[1]),
    ]
}

/// All cases.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        for op in Op::ALL {
            plans.push(plan::<Queue<u64>>(op, policy));
            plans.push(plan::<ShmArc<[u8]>>(op, policy));
        }
    }
    plans
}
