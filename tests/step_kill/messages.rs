//! Cases of messages in blocks of their own. Whatever a kill leaves, a message is wholly there or
//! wholly absent, and all of the memory can be had again.

use std::time::Duration;

use offspring::{ByteQueue, OnReceiverDeath, QueueOptions, Segment, TryRecvError};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::stage::{BOTH, Found, Helper, How, Scene, Tally, found};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(2);

/// What the last message says, by which survivors know that nothing more comes.
const SENTINEL: u8 = 99;

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
        // Attached from here on.
        std::hint::black_box(queue.len());
        match self {
            Op::Send => {
                let bytes = message(2, 300);
                mark();
                queue.send(&bytes).expect("room");
            }
            Op::Receive => {
                mark();
                drop(queue.recv().expect("a message"));
            }
            Op::Loan => {
                mark();
                std::mem::forget(queue.loan(300).expect("room"));
            }
            Op::LoanDrop => {
                let loan = queue.loan(300).expect("room");
                mark();
                drop(loan);
            }
            Op::DropLast => {
                let last = ByteQueue::with_capacity_in(segment, 3).expect("room");
                last.send(&message(7, 300)).expect("room");
                last.send(&message(8, 3000)).expect("room");
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

fn message(number: u8, len: usize) -> Vec<u8> {
    vec![number; len]
}

/// The number of a message, all of which must be the same.
fn number_of(bytes: &[u8]) -> u8 {
    let number = *bytes.first().expect("no message is empty");
    assert!(bytes.len() >= 300 && bytes.iter().all(|&byte| byte == number), "torn: {bytes:?}");
    number
}

/// A segment with a queue, in which message 1 is, and what memory there was without it.
struct Post {
    segment: Segment,
    queue: ByteQueue,
    baseline: String,
}

impl Post {
    fn new(op: Op, policy: OnReceiverDeath, capacity: usize) -> Post {
        let segment = Segment::create(1 << 15).expect("a segment");
        let options = QueueOptions::new().capacity(capacity).on_receiver_death(policy).clone();
        let queue = options.create_bytes_in(&segment).expect("a queue");
        let baseline = Errand::send(30, || room(&segment)).answer().expect("a number");
        segment.reap().expect("attached");
        queue.send(&message(1, 300)).expect("room");
        if op == Op::Reap {
            Helper::start(|| {
                let other = ByteQueue::with_capacity_in(&segment, 2).expect("room");
                other.send(&message(9, 400)).expect("room");
                std::mem::forget(queue.loan(500).expect("room"));
                std::mem::forget(queue.recv().expect("a message"));
                other
            })
            .kill();
        }
        Post { segment, queue, baseline }
    }

    fn victim(&self, op: Op) -> Tracee {
        Tracee::start(|| op.perform(&self.segment, &self.queue))
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
                Ok(bytes) => {
                    let again = if bytes.redelivered() { " again" } else { "" };
                    text += &format!("{}{again}, ", number_of(&bytes));
                }
                Err(TryRecvError::Empty) if !sentinel_is_in => {
                    let sent =
                        queue.send_timeout(&message(SENTINEL, 300), Duration::from_millis(3));
                    sentinel_is_in = sent.is_ok();
                }
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(other) => panic!("{other}"),
            }
        }
        // What comes back from the dead keeps no order.
        while let Ok(bytes) = queue.recv_timeout(Duration::from_millis(1)) {
            text += &format!("{} again, ", number_of(&bytes));
            assert!(bytes.redelivered(), "behind the last one: {text}");
        }
        for _ in 0..2 {
            for number in 0..queue.capacity() {
                let bytes = message(number as u8, 300);
                match how {
                    How::Alone => queue.send_timeout(&bytes, LONG).expect("the whole capacity"),
                    How::Reaped => queue.try_send(&bytes).expect("the whole capacity"),
                }
            }
            assert!(queue.try_send(&message(0, 300)).expect_err("no more").is_full());
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
        let post = Post::new(op, policy, capacity);
        let mut expected = expected(op, policy);
        if op == Op::Receive && policy == OnReceiverDeath::Drop {
            expected[1].optional = false;
        }
        let scene = Scene {
            segment: post.segment.as_fd(),
            victim: &|| post.victim(op),
            expected,
            check: &|how| post.check(how),
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
    })
}

/// Lines of victims: one sends or receives a message or goes with a queue, and those who come after
/// it send a message, or clear up. Survivors have all the memory, and messages that are whole.
fn line(object: &'static str, op: Op, reaps: bool, samples: &'static [usize]) -> Plan {
    let operation = if reaps { "message: reap" } else { "message: send" };
    Plan::new(object, operation, op.name().to_owned(), move |tally: &mut Tally| {
        let post = Post::new(op, OnReceiverDeath::Drop, 5);
        let victim = |operation: &dyn Fn() -> bool| {
            Tracee::start(|| {
                std::hint::black_box(post.queue.len());
                mark();
                mark_telling(operation().into());
            })
        };
        // A message more for each that has sent one; in what survivors say they come first.
        let sent = |number: u64, before: &str, done: u64| match done {
            0 => Err("it did nothing".to_owned()),
            _ => {
                let (messages, lost) =
                    before.rsplit_once(", ").map_or(("", before), |(all, lost)| (all, lost));
                let mut all: Vec<String> = messages
                    .split(", ")
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
                    .collect();
                all.push(format!("{}", 10 + number));
                Ok(vec![vec![before.to_owned()], vec![format!("{}, {lost}", all.join(", "))]])
            }
        };
        let start = |number: u64| {
            victim(&|| post.queue.send_timeout(&message(10 + number as u8, 300), SHORT).is_ok())
        };
        let sends = Heir { name: "send", start: &start, expected: &sent };
        let cleared = |_: u64, before: &str, done: u64| match done {
            0 => Err("it did nothing".to_owned()),
            _ => Ok(vec![vec![before.to_owned()]]),
        };
        let clears_up = Heir {
            name: "reap",
            start: &|_| victim(&|| post.segment.reap().is_ok_and(|dead| dead > 0)),
            expected: &cleared,
        };
        let line = Line {
            segment: post.segment.as_fd(),
            first: &|| post.victim(op),
            heirs: &[if reaps { clears_up } else { sends }],
            check: &|how| post.check(how),
            samples,
        };
        line.visit(tally);
    })
}

/// All lines of victims, begun in fewer states unless `full`. To clear up is long, so that begins
/// in few.
pub fn lines(full: bool) -> Vec<Plan> {
    if !full {
        return vec![line("two victims", Op::Send, false, &[2])];
    }
    vec![
        line("two victims", Op::Send, false, &[4]),
        line("two victims", Op::LoanDrop, false, &[4]),
        line("two victims", Op::LoanDrop, true, &[1]),
        line("three victims", Op::LoanDrop, false, &[2, 2]),
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
