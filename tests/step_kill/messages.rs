//! Cases of messages in blocks of their own. Whatever a kill leaves, a message is wholly there or
//! wholly absent, and all of the memory can be had again.

use offspring::{ByteQueue, OnReceiverDeath, Segment};

use crate::Plan;
use crate::common::trace::mark;
use crate::post::{LEN, Post, line};
use crate::stage::{Found, Helper, Tally, found};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Send,
    Receive,
    Loan,
    LoanDrop,
    /// By the only holder of a queue with two messages.
    DropLast,
    /// After one that was killed with a loan, a message in its hands and another in a queue.
    Reap,
}

impl Op {
    const ALL: [Op; 6] = [Op::Send, Op::Receive, Op::Loan, Op::LoanDrop, Op::DropLast, Op::Reap];

    fn name(self) -> &'static str {
        match self {
            Op::Send => "send",
            Op::Receive => "receive, drop",
            Op::Loan => "loan",
            Op::LoanDrop => "loan dropped",
            Op::DropLast => "drop by the last holder",
            Op::Reap => "reap",
        }
    }

    fn perform(self, segment: &Segment, queue: &ByteQueue) {
        match self {
            Op::Send => {
                let bytes = vec![2; LEN];
                mark();
                queue.send(&bytes).expect("room");
            }
            Op::Receive => {
                mark();
                drop(queue.recv().expect("a message"));
            }
            Op::Loan => {
                mark();
                std::mem::forget(queue.loan(LEN).expect("room"));
            }
            Op::LoanDrop => {
                let loan = queue.loan(LEN).expect("room");
                mark();
                drop(loan);
            }
            Op::DropLast => {
                let last = ByteQueue::with_capacity_in(segment, 3).expect("room");
                last.send(&vec![7; LEN]).expect("room");
                last.send(&vec![8; 3000]).expect("room");
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

/// What survivors find as the victim goes on. The victim of `Reap` clears up after one with message
/// 1 in its hands.
fn expected(op: Op, policy: OnReceiverDeath) -> Vec<Found> {
    let drops = policy == OnReceiverDeath::Drop;
    match op {
        Op::Send => found(["1, 0 lost", "1, 2, 0 lost"]),
        Op::Receive if drops => found(["1, 0 lost", "1 lost", "0 lost"]),
        Op::Receive => found(["1, 0 lost", "1 again, 0 lost", "0 lost"]),
        Op::Loan | Op::LoanDrop | Op::DropLast => found(["1, 0 lost"]),
        // Killed between its swap and its count, it leaves the count one short.
        Op::Reap if drops => {
            let mut found = found(["1 lost", "0 lost", "1 lost"]);
            found[1].optional = true;
            found[2].optional = true;
            found
        }
        Op::Reap => found(["1 again, 0 lost"]),
    }
}

fn plan(op: Op, policy: OnReceiverDeath, capacity: usize) -> Plan {
    let name = format!("{policy:?}, {capacity} slots");
    Plan::new("message", op.name(), name, move |tally: &mut Tally| {
        let post = Post::<ByteQueue>::new(policy, capacity);
        if op == Op::Reap {
            Helper::start(|| {
                let other = ByteQueue::with_capacity_in(&post.segment, 2).expect("room");
                other.send(&vec![9; 400]).expect("room");
                std::mem::forget(post.queue.loan(500).expect("room"));
                std::mem::forget(post.queue.recv().expect("a message"));
                other
            })
            .kill();
        }
        post.visit(tally, &|segment, queue| op.perform(segment, queue), expected(op, policy));
    })
}

/// All lines of victims, begun in fewer states unless `full`. To clear up is long, so that begins
/// in few.
pub fn lines(full: bool) -> Vec<Plan> {
    let of = |object, op: Op, reaps, samples| {
        let operation = if reaps { "message: reap" } else { "message: send" };
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
        return vec![of("two victims", Op::Send, false, &[2])];
    }
    vec![
        of("two victims", Op::Send, false, &[4]),
        of("two victims", Op::LoanDrop, false, &[4]),
        of("two victims", Op::LoanDrop, true, &[1]),
        of("three victims", Op::LoanDrop, false, &[2, 2]),
    ]
}

/// All cases; fewer unless `full`.
pub fn plans(full: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        for op in Op::ALL {
            // To clear up is long, so only one ring is.
            for capacity in if full && op != Op::Reap { 2..=3 } else { 2..=2 } {
                plans.push(plan(op, policy, capacity));
            }
        }
    }
    plans
}
