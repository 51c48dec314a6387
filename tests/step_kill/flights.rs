//! Cases of queues in messages of another queue. Whatever a kill leaves, a queue that was sent is
//! there and works, one that was not is gone, and all of the memory can be had again.

use offspring::{ObjectQueue, OnReceiverDeath, Queue, Segment};

use crate::Plan;
use crate::common::trace::mark;
use crate::post::{Post, queued};
use crate::stage::{Found, Tally, found};

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
        match self {
            Op::Send => {
                let value = queued(segment, 2);
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
                last.send(queued(segment, 7)).expect("room");
                mark();
                drop(last);
            }
        }
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
        let post = Post::<ObjectQueue<Queue<u64>>>::new(policy, 2);
        post.visit(tally, &|segment, queue| op.perform(segment, queue), expected(op, policy));
    })
}

/// All cases.
pub fn plans() -> Vec<Plan> {
    let policies = [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver];
    let plans = policies.map(|policy| Op::ALL.map(|op| plan(op, policy)));
    plans.into_iter().flatten().collect()
}
