//! Cases of ends of channels in messages of a queue: the only sender of a channel is in a message.
//! Whatever a kill leaves, its role is there while the message can be received, and gone after
//! that; and all of the memory can be had again.

use std::time::Duration;

use offspring::{
    ObjectQueue, OnReceiverDeath, QueueOptions, Receiver, RecvTimeoutError, Segment, Sender,
};

use crate::Plan;
use crate::common::trace::mark;
use crate::post::Post;
use crate::stage::{Found, How, Tally, found};

/// No promise on time, a watchdog.
const LONG: Duration = Duration::from_secs(20);

type Letter = (u64, Option<Sender<u64>>);
type Letterbox = ObjectQueue<Letter>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// The sender out of a message, which is given up with it.
    Receive,
    /// The sender that was received, in another message.
    SendOn,
    /// The sender that was received.
    GiveUp,
    /// By the only holder of a queue with the sender in a message.
    DropLast,
    /// For a sender, by a receiver; there is none.
    Wait,
}

impl Op {
    const ALL: [Op; 5] = [Op::Receive, Op::SendOn, Op::GiveUp, Op::DropLast, Op::Wait];

    fn name(self) -> &'static str {
        match self {
            Op::Receive => "receive a sender",
            Op::SendOn => "send a sender on",
            Op::GiveUp => "give a sender up",
            Op::DropLast => "drop a queue with a sender in it",
            Op::Wait => "wait without a sender",
        }
    }

    fn perform(self, segment: &Segment, queue: &Letterbox, receiver: &Receiver<u64>) {
        let next = || queue.recv().expect("a message");
        // Has an end of its own from here on.
        assert!(receiver.is_empty());
        assert_eq!(next().0, 1);
        if self == Op::Receive {
            mark();
            assert!(next().1.is_some());
            return;
        }
        let sender = next().1;
        match self {
            Op::Receive => unreachable!("done above"),
            Op::SendOn => {
                mark();
                queue.send((4, sender)).expect("room");
            }
            Op::GiveUp => {
                mark();
                drop(sender);
            }
            Op::DropLast => {
                let last = Letterbox::with_capacity_in(segment, 2).expect("room");
                last.send((7, sender)).expect("room");
                mark();
                drop(last);
            }
            Op::Wait => {
                drop(sender);
                mark();
                assert!(receiver.recv().expect_err("nobody can send").is_disconnected());
            }
        }
    }
}

/// What survivors find as the victim goes on: the letters, and after them what came through the
/// channel.
fn expected(op: Op, policy: OnReceiverDeath) -> Vec<Found> {
    match op {
        Op::Receive if policy == OnReceiverDeath::Drop => {
            found(["3, 0 lost; 3", "1 lost; ", "0 lost; "])
        }
        Op::Receive => found(["3, 0 lost; 3", "0 lost; "]),
        Op::SendOn => found(["0 lost; ", "4, 0 lost; 4"]),
        Op::GiveUp | Op::DropLast | Op::Wait => found(["0 lost; "]),
    }
}

/// As [`Post::check`]. Each sender that is found is used, and when all are dropped, there is none.
fn check(post: &Post<Letterbox>, receiver: &Receiver<u64>, how: How) -> String {
    let mut come = String::new();
    let was_gone = receiver.is_disconnected();
    let letters = post.check(how);
    loop {
        match receiver.recv_timeout(LONG) {
            Ok(number) => come += &number.to_string(),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(other) => panic!("a sender is left: {other}"),
        }
        assert!(!was_gone, "the role was gone while a message held a sender");
    }
    assert!(receiver.is_disconnected(), "for good");
    format!("{letters}; {come}")
}

fn plan(op: Op, policy: OnReceiverDeath) -> Plan {
    Plan::new("end in a message", op.name(), format!("{policy:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 15).expect("a segment");
        let (sender, receiver) =
            QueueOptions::new().capacity(2).create_channel_in::<u64>(&segment).expect("a channel");
        let post = Post::<Letterbox>::in_segment(segment, policy, 2);
        post.queue.send((3, Some(sender))).expect("room");
        post.visit_with(
            tally,
            &|segment, queue| op.perform(segment, queue, &receiver),
            expected(op, policy),
            &|how| check(&post, &receiver, how),
        );
    })
}

/// All cases. What does not touch the queue is the same with either policy.
pub fn plans() -> Vec<Plan> {
    let mut plans: Vec<Plan> =
        Op::ALL.into_iter().map(|op| plan(op, OnReceiverDeath::Drop)).collect();
    plans.push(plan(Op::Receive, OnReceiverDeath::Redeliver));
    plans
}
