//! What the scenes of messages, boxes and objects in messages share: a queue in which letter 1
//! lies, and survivors that receive everything, fill the queue and drain it twice, and count the
//! memory.

use std::time::Duration;

use offspring::{
    ByteQueue, ObjectQueue, OnReceiverDeath, Queue, QueueOptions, Segment, Sender, ShmArc, ShmBox,
    TryRecvError,
};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::stage::{BOTH, Found, How, Scene, Tally};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(2);

/// The last letter, by which survivors know that nothing more comes.
const SENTINEL: u64 = 99;

/// Bytes of a letter that has some.
pub const LEN: usize = 300;

/// A received letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// `None` if somebody has used it up, and it came back.
    pub number: Option<u64>,
    /// Whether it came before; `None` if it does not say.
    pub again: Option<bool>,
}

impl Letter {
    fn tell(self) -> String {
        let number = self.number.map_or("used".to_owned(), |number| number.to_string());
        number + if self.again == Some(true) { " again, " } else { ", " }
    }
}

/// A queue of letters. The queues have the same methods and no trait in common.
pub trait Letters: Sized + 'static {
    fn create(options: &QueueOptions, segment: &Segment) -> Self;
    fn capacity(&self) -> usize;
    fn lost(&self) -> u64;
    /// Makes a letter and sends it, waiting at most so long, or not at all; false if there is no
    /// free slot.
    fn send(&self, segment: &Segment, number: u64, timeout: Option<Duration>) -> bool;
    /// Receives a letter and drops it, waiting at most so long, or not at all; `None` if there is
    /// none.
    fn receive(&self, timeout: Option<Duration>) -> Option<Letter>;
}

macro_rules! letters {
    ($queue:ty, $create:ident, $make:expr, $read:expr $(, $by:tt)?) => {
        impl Letters for $queue {
            fn create(options: &QueueOptions, segment: &Segment) -> Self {
                options.$create(segment).expect("a queue")
            }

            fn capacity(&self) -> usize {
                <$queue>::capacity(self)
            }

            fn lost(&self) -> u64 {
                <$queue>::lost(self)
            }

            fn send(&self, segment: &Segment, number: u64, timeout: Option<Duration>) -> bool {
                let letter = $make(segment, number);
                match timeout {
                    None => match self.try_send($($by)? letter) {
                        Err(error) if error.is_full() => false,
                        other => other.map(|()| true).expect("a queue in order"),
                    },
                    Some(timeout) => match self.send_timeout($($by)? letter, timeout) {
                        Err(error) if error.is_timeout() => false,
                        other => other.map(|()| true).expect("a queue in order"),
                    },
                }
            }

            fn receive(&self, timeout: Option<Duration>) -> Option<Letter> {
                match timeout {
                    None => match self.try_recv() {
                        Err(error) if error.is_empty() => None,
                        other => Some($read(other.expect("a queue in order"))),
                    },
                    Some(timeout) => match self.recv_timeout(timeout) {
                        Err(error) if error.is_timeout() => None,
                        other => Some($read(other.expect("a queue in order"))),
                    },
                }
            }
        }
    };
}

letters!(ByteQueue, create_bytes_in, |_, number| vec![number as u8; LEN], read_message, &);
letters!(Queue<ShmBox<[u8]>>, create_in, boxed, |bytes: ShmBox<[u8]>| read(number_in(&bytes)));
letters!(ObjectQueue<Queue<u64>>, create_objects_in, queued, read_queue);
letters!(ObjectQueue<(u64, Option<Sender<u64>>)>, create_objects_in, plain, read_with_sender);
letters!(ObjectQueue<ShmArc<[u8]>>, create_objects_in, shared, |bytes: ShmArc<[u8]>| {
    read(number_in(&bytes))
});

/// The number of a letter whose bytes must all be the same.
pub fn number_in(bytes: &[u8]) -> u64 {
    let number = *bytes.first().expect("no letter is empty");
    assert!(bytes.len() >= LEN && bytes.iter().all(|&byte| byte == number), "torn: {bytes:?}");
    number.into()
}

fn read(number: u64) -> Letter {
    Letter { number: Some(number), again: None }
}

fn read_message(message: offspring::Message<'_>) -> Letter {
    Letter { again: Some(message.redelivered()), ..read(number_in(&message)) }
}

/// A letter without a sender.
fn plain(_: &Segment, number: u64) -> (u64, Option<Sender<u64>>) {
    (number, None)
}

/// Sends the number of a letter to the sender in it.
fn read_with_sender((number, sender): (u64, Option<Sender<u64>>)) -> Letter {
    if let Some(sender) = sender {
        sender.send(number).expect("there is a receiver");
    }
    read(number)
}

pub fn boxed(segment: &Segment, number: u64) -> ShmBox<[u8]> {
    ShmBox::from_slice_in(segment, &[number as u8; LEN]).expect("room")
}

pub fn shared(segment: &Segment, number: u64) -> ShmArc<[u8]> {
    ShmArc::from_slice_in(segment, &[number as u8; LEN]).expect("room")
}

/// A queue with the number in it.
pub fn queued(segment: &Segment, number: u64) -> Queue<u64> {
    let queue = Queue::with_capacity_in(segment, 1).expect("room");
    queue.send(number).expect("room");
    queue
}

fn read_queue(queue: Queue<u64>) -> Letter {
    match queue.try_recv() {
        Ok(number) => read(number),
        // Its receiver was killed after it had taken the number out.
        Err(TryRecvError::Empty) => Letter { number: None, again: None },
        Err(error) => panic!("{error}"),
    }
}

/// A segment with a queue, in which letter 1 is, and what memory there was without it.
pub struct Post<Q> {
    pub segment: Segment,
    pub queue: Q,
    baseline: String,
}

impl<Q: Letters> Post<Q> {
    pub fn new(policy: OnReceiverDeath, capacity: usize) -> Post<Q> {
        Post::in_segment(Segment::create(1 << 15).expect("a segment"), policy, capacity)
    }

    /// What lies in the segment already stays there.
    pub fn in_segment(segment: Segment, policy: OnReceiverDeath, capacity: usize) -> Post<Q> {
        let queue =
            Q::create(QueueOptions::new().capacity(capacity).on_receiver_death(policy), &segment);
        let baseline = Errand::send(30, || room(&segment)).answer().expect("a number");
        segment.reap().expect("attached");
        assert!(queue.send(&segment, 1, Some(LONG)), "room");
        Post { segment, queue, baseline }
    }

    /// Visits the victims that do this, which has a mark where they begin.
    pub fn visit(&self, tally: &mut Tally, perform: &dyn Fn(&Segment, &Q), expected: Vec<Found>) {
        self.visit_with(tally, perform, expected, &|how| self.check(how));
    }

    /// As [`Post::visit`], for survivors that look at more.
    pub fn visit_with(
        &self,
        tally: &mut Tally,
        perform: &dyn Fn(&Segment, &Q),
        expected: Vec<Found>,
        check: &dyn Fn(How) -> String,
    ) {
        let scene = Scene {
            segment: self.segment.as_fd(),
            victim: &|| self.victim(perform),
            expected,
            check,
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
    }

    fn victim(&self, perform: &dyn Fn(&Segment, &Q)) -> Tracee {
        Tracee::start(|| {
            // Attached from here on.
            std::hint::black_box(self.queue.lost());
            perform(&self.segment, &self.queue);
            mark();
        })
    }

    /// Receives everything, fills the queue and drains it twice, and counts the memory.
    pub fn check(&self, how: How) -> String {
        let Post { segment, queue, baseline } = self;
        if how == How::Reaped {
            segment.reap().expect("attached");
        }
        let mut text = String::new();
        let mut sentinel_is_in = false;
        loop {
            match queue.receive(None) {
                Some(letter) if letter.number == Some(SENTINEL) => break,
                Some(letter) => text += &letter.tell(),
                None if !sentinel_is_in => {
                    sentinel_is_in = queue.send(segment, SENTINEL, Some(Duration::from_millis(3)));
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        // What comes back from the dead keeps no order.
        while let Some(letter) = queue.receive(Some(Duration::from_millis(1))) {
            text += &letter.tell();
            assert_ne!(letter.again, Some(false), "behind the last one: {text}");
        }
        let timeout = match how {
            How::Alone => Some(LONG),
            How::Reaped => None,
        };
        for _ in 0..2 {
            for number in 0..queue.capacity() {
                assert!(queue.send(segment, number as u64, timeout), "the whole capacity");
            }
            assert!(!queue.send(segment, 0, None), "no more than that");
            for number in 0..queue.capacity() {
                let letter = queue.receive(None).expect("in order");
                assert_eq!(letter.number, Some(number as u64));
            }
        }
        assert_eq!(queue.receive(None), None);
        assert_eq!(room(segment), *baseline, "after {text}");
        text + &format!("{} lost", queue.lost())
    }

    /// Steps and kills those who come after a victim that does this: they clear up, or send a
    /// letter.
    fn visit_line(
        &self,
        tally: &mut Tally,
        perform: &dyn Fn(&Segment, &Q),
        reaps: bool,
        samples: &[usize],
    ) {
        let heir = |operation: &dyn Fn() -> bool| {
            Tracee::start(|| {
                std::hint::black_box(self.queue.lost());
                mark();
                mark_telling(operation().into());
            })
        };
        let clears_up = Heir {
            name: "reap",
            start: &|_| heir(&|| self.segment.reap().is_ok_and(|dead| dead > 0)),
            expected: &|_, before, done| match done {
                0 => Err("it did nothing".to_owned()),
                _ => Ok(vec![vec![before.to_owned()]]),
            },
        };
        let sends = Heir {
            name: "send",
            start: &|number| heir(&|| self.queue.send(&self.segment, 10 + number, Some(SHORT))),
            expected: &|number, before, done| match done {
                0 => Err("it did nothing".to_owned()),
                _ => Ok(vec![vec![before.to_owned()], vec![with_letter(before, 10 + number)]]),
            },
        };
        let line = Line {
            segment: self.segment.as_fd(),
            first: &|| self.victim(perform),
            heirs: &[if reaps { clears_up } else { sends }],
            check: &|how| self.check(how),
            samples,
        };
        line.visit(tally);
    }
}

/// What survivors say with one letter more, which comes last.
fn with_letter(before: &str, number: u64) -> String {
    let (letters, lost) = before.rsplit_once(", ").unwrap_or(("", before));
    let first = if letters.is_empty() { String::new() } else { format!("{letters}, ") };
    format!("{first}{number}, {lost}")
}

/// A line of victims: the first one does this, and those who come after it clear up or send a
/// letter. Survivors have all the memory, and letters that are whole.
pub fn line<Q: Letters>(
    object: &'static str,
    operation: &'static str,
    name: &'static str,
    perform: impl Fn(&Segment, &Q) + 'static,
    reaps: bool,
    samples: &'static [usize],
) -> Plan {
    Plan::new(object, operation, name.to_owned(), move |tally: &mut Tally| {
        Post::new(OnReceiverDeath::Drop, 5).visit_line(tally, &perform, reaps, samples);
    })
}
