//! Handles of shared objects in what a child returns: the objects live until the parent has them,
//! also if the child is long dead, and nothing of them is left if nobody takes them.

use std::time::Duration;

use offspring::{
    ByteQueue, Child, Event, Failure, JoinError, Lock, ObjectQueue, Queue, QueueOptions, Receiver,
    Segment, SendError, Sender, ShmArc, Value,
};
use serde::{Deserialize, Serialize};

use crate::common;
use crate::common::blocks::{blocks, in_use};
use crate::common::{fork, raw, sandbox};
use crate::harness::{apply, test};

/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

fn segment() -> Segment {
    Segment::create(8 << 20).expect("a segment")
}

fn numbers(segment: &Segment, number: u64) -> Queue<u64> {
    let queue = Queue::with_capacity_in(segment, 2).expect("a queue");
    queue.send(number).expect("room");
    queue
}

fn number_of(queue: &Queue<u64>) -> u64 {
    queue.recv_timeout(LIMIT).expect("it is in there")
}

/// Gives back what the dead have left, and says how many blocks are in use.
fn after_reaping(segment: &Segment) -> usize {
    segment.reap().expect("attached");
    in_use(segment)
}

/// Waits until a child has ended, and has everybody forget it but its parent.
fn bury<T>(child: &Child<T>, segment: &Segment) {
    common::wait_until("it has ended", || !child.is_alive());
    segment.reap().expect("attached");
}

/// Waits until the dropped children are waited for and nothing is in use.
fn wait_until_empty(segment: &Segment) {
    common::wait_until("all is freed", || {
        fork(|| ()).expect("fork").join().expect("no panic");
        // A child's block may be freed before the child itself is waited for.
        in_use(segment) == 0 && common::children().iter().all(|&(_, state)| state != 'Z')
    });
}

/// Some objects, in a value of several levels.
#[derive(Serialize, Deserialize)]
struct All {
    number: u64,
    some: Option<Queue<u64>>,
    none: Option<Queue<u64>>,
    several: Vec<(String, Lock<u64>)>,
    value: Value<u64>,
    event: Event,
    bytes: ByteQueue,
    texts: ObjectQueue<String>,
    shared: ShmArc<[u64]>,
}

impl All {
    fn make(segment: &Segment, number: u64) -> Result<All, Failure> {
        let lock = |at: u64| Ok::<_, Failure>((at.to_string(), Lock::new_in(segment, at)?));
        let (event, bytes) = (Event::new_in(segment)?, ByteQueue::with_capacity_in(segment, 2)?);
        let texts = QueueOptions::new().capacity(2).create_objects_in(segment)?;
        event.set()?;
        bytes.send(&[7; 1000])?;
        texts.send("seven".repeat(100))?;
        Ok(All {
            number,
            some: Some(numbers(segment, number)),
            none: None,
            several: (0..20).map(lock).collect::<Result<_, _>>()?,
            value: Value::new_in(segment, number)?,
            event,
            bytes,
            texts,
            shared: ShmArc::from_fn_in(segment, 100, |index| index as u64)?,
        })
    }

    #[track_caller]
    fn check(&self, number: u64) {
        assert_eq!((self.number, self.value.get()), (number, Ok(number)));
        assert_eq!(self.some.as_ref().map(number_of), Some(number));
        assert!(self.none.is_none() && self.event.is_set() == Ok(true));
        for (at, (text, lock)) in self.several.iter().enumerate() {
            assert_eq!((text, *lock.lock().expect("free")), (&at.to_string(), at as u64));
        }
        assert_eq!(*self.bytes.recv_timeout(LIMIT).expect("sent"), [7; 1000]);
        assert_eq!(self.texts.recv_timeout(LIMIT).expect("sent"), "seven".repeat(100));
        assert_eq!(self.shared.iter().sum::<u64>(), 4950);
    }
}

#[apply(test)]
fn a_queue_that_a_dead_child_has_made_works() {
    let queue = fork(|| {
        let queue = Queue::<u64>::with_capacity(8)?;
        queue.send(7)?;
        Ok::<_, Failure>(queue)
    });
    let queue = queue.expect("fork").join().expect("no panic").expect("room");
    assert_eq!(number_of(&queue), 7);
    queue.send(8).expect("room");
    assert_eq!(number_of(&queue), 8);
    let segment = segment();
    let its = segment.clone();
    let child = fork(move || numbers(&its, 9)).expect("fork");
    bury(&child, &segment);
    // Other children come and go, and one gets its place in the table.
    for _ in 0..3 {
        let its = segment.clone();
        let other = fork(move || drop(numbers(&its, 1))).expect("fork");
        other.join().expect("no panic");
    }
    assert_eq!(after_reaping(&segment), 2, "the queue and its flight");
    let queue = child.join().expect("no panic");
    assert_eq!(in_use(&segment), 1);
    assert_eq!(number_of(&queue), 9);
    drop(queue);
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn values_with_handles_of_all_kinds_come_back() {
    let segment = segment();
    let its = segment.clone();
    let child = fork(move || All::make(&its, 5)).expect("fork");
    bury(&child, &segment);
    let all = child.join().expect("no panic").expect("room");
    all.check(5);
    drop(all);
    assert_eq!(after_reaping(&segment), 0);
    // The parent's own object among others, twice, and one without any.
    let (its, own) = (segment.clone(), numbers(&segment, 6));
    let theirs = own.clone();
    let child = fork(move || vec![theirs.clone(), numbers(&its, 7), theirs]).expect("fork");
    let back = child.join().expect("no panic");
    assert_eq!(back[0].handle(), own.handle());
    assert_eq!((number_of(&back[2]), number_of(&back[1])), (6, 7));
    let none = fork(Vec::<Queue<u64>>::new).expect("fork").join().expect("no panic");
    assert!(none.is_empty());
    drop((own, back));
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_long_value_with_handles_comes_back() {
    let segment = segment();
    for len in [0, 10, 60, 4000, 65_500, 65_536, 70_000, 1_000_000] {
        let its = segment.clone();
        let value = move || (vec![7_u8; len], numbers(&its, 1), "8".repeat(len), numbers(&its, 2));
        let child = fork(value).expect("fork");
        let (bytes, first, text, second) = child.join().expect("no panic");
        assert!(bytes == vec![7; len] && text == "8".repeat(len), "{len}");
        assert_eq!((number_of(&first), number_of(&second)), (1, 2), "{len}");
    }
    let its = segment.clone();
    let many = fork(move || (0..500).map(|at| numbers(&its, at)).collect::<Vec<_>>());
    let many = many.expect("fork").join().expect("no panic");
    assert!(many.iter().map(number_of).eq(0..500));
    drop(many);
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn handles_in_an_error_come_back() {
    let segment = segment();
    let its = segment.clone();
    let child = fork(move || -> Result<(), SendError<Queue<u64>, String>> {
        Err(SendError::Closed(numbers(&its, 7)))
    });
    let child = child.expect("fork");
    bury(&child, &segment);
    match child.join().expect("no panic") {
        Err(SendError::Closed(queue)) => assert_eq!(number_of(&queue), 7),
        other => panic!("{:?}", other.map_err(|error| error.to_string())),
    }
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn objects_of_several_segments_come_back_and_those_of_others_cannot() {
    let (first, second) = (segment(), segment());
    let (its, too) = (first.clone(), second.clone());
    let child = fork(move || {
        let commons = Queue::with_capacity(1).expect("a queue");
        commons.send(0).expect("room");
        let all = [&its, &too, &its, &too].map(|segment| numbers(segment, segment.id() & 0xff));
        (commons, all)
    });
    let child = child.expect("fork");
    bury(&child, &first);
    bury(&child, &second);
    let (commons, all) = child.join().expect("no panic");
    assert_eq!(number_of(&commons), 0);
    for (queue, segment) in all.iter().zip([&first, &second, &first, &second]) {
        assert_eq!(number_of(queue), segment.id() & 0xff);
    }
    drop(all);
    assert_eq!((in_use(&first), in_use(&second)), (0, 0));
    let its = first.clone();
    let child = fork(move || {
        let own = segment();
        (numbers(&its, 1), numbers(&own, 2))
    });
    match child.expect("fork").join() {
        Err(JoinError::Unsendable(why)) => assert!(why.contains("only one of the two"), "{why}"),
        other => panic!("{:?}", other.map(drop)),
    }
    assert_eq!(in_use(&first), 0);
}

#[apply(test)]
fn an_end_counts_until_the_parent_has_it() {
    let segment = segment();
    let mut options = QueueOptions::new();
    let options = options.capacity(4);
    // A sender that comes back, and one that nobody takes.
    for joins in [true, false] {
        let (sender, receiver) = options.create_channel_in::<String>(&segment).expect("made");
        let child: Child<Sender<String>> = fork(move || sender).expect("fork");
        bury(&child, &segment);
        let error = receiver.recv_timeout(Duration::from_millis(300)).expect_err("nothing");
        assert!(error.is_timeout(), "{error}");
        if joins {
            let sender = child.join().expect("no panic");
            sender.send("seven".to_owned()).expect("connected");
            assert_eq!(receiver.recv_timeout(LIMIT).expect("sent"), "seven");
            drop(sender);
        } else {
            drop(child);
        }
        let error = receiver.recv_timeout(LIMIT).expect_err("nobody is left");
        assert!(error.is_disconnected(), "{error}");
        drop(receiver);
        assert_eq!(after_reaping(&segment), 0);
    }
    // A receiver with what was sent to it by a child that is gone.
    let its = segment.clone();
    let child = fork(move || -> Receiver<u64> {
        let mut options = QueueOptions::new();
        let (sender, receiver) =
            options.capacity(4).create_channel_in::<u64>(&its).expect("a channel");
        (1..=3).for_each(|number| sender.send(number).expect("connected"));
        receiver
    });
    let child = child.expect("fork");
    bury(&child, &segment);
    let receiver = child.join().expect("no panic");
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3]);
    drop(receiver);
    assert_eq!(after_reaping(&segment), 0);
}

#[apply(test)]
fn what_a_grandchild_returns_goes_on_to_the_parent() {
    let segment = segment();
    let its = segment.clone();
    let child = fork(move || {
        let there = its.clone();
        let grandchild = fork(move || (numbers(&there, 1), numbers(&there, 2))).expect("fork");
        bury(&grandchild, &its);
        let (first, second) = grandchild.join().expect("no panic");
        assert_eq!(number_of(&first), 1);
        drop(first);
        (second, numbers(&its, 3))
    });
    let child = child.expect("fork");
    bury(&child, &segment);
    assert_eq!(after_reaping(&segment), 3);
    let (second, third) = child.join().expect("no panic");
    assert_eq!((number_of(&second), number_of(&third)), (2, 3));
    drop((second, third));
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_result_that_could_not_be_written_leaves_nothing() {
    let segment = segment();
    let calls = [libc::SYS_lseek, libc::SYS_write, libc::SYS_pwrite64];
    for len in [0, 200_000] {
        for (seeks, closes) in [(true, false), (false, false), (true, true)] {
            let its = segment.clone();
            let child = fork(move || {
                let value = (numbers(&its, 1), vec![7_u8; len], numbers(&its, 2));
                if closes {
                    sandbox::close_all_from(3);
                } else {
                    sandbox::refuse(&calls[usize::from(seeks)..], libc::EIO);
                }
                value
            });
            let child = child.expect("fork");
            common::wait_until("it has ended", || !child.is_alive());
            let ended = child.join().map(drop).expect_err("no record");
            let is_right = match &ended {
                JoinError::Unsendable(_) => seeks && !closes,
                JoinError::Exited(101) => !seeks || closes,
                _ => false,
            };
            assert!(is_right, "{ended}");
            assert_eq!(after_reaping(&segment), 0, "{ended}, {:?}", blocks(&segment));
        }
    }
}

/// Kills this process where it is encoded or decoded.
struct Deadly<T>(T);

impl<T: Serialize> Serialize for Deadly<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Deadly<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Deadly<T>, D::Error> {
        let _opened = T::deserialize(deserializer)?;
        raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
        common::sleep_for_ever()
    }
}

#[apply(test)]
fn a_parent_killed_with_results_leaves_nothing() {
    let segment = segment();
    let its = segment.clone();
    let parent = fork(move || {
        let make = |number| {
            let theirs = its.clone();
            let child = fork(move || (numbers(&theirs, number), All::make(&theirs, number)));
            child.expect("fork")
        };
        let (joined, dead, running) = (make(1), make(2), make(3));
        bury(&dead, &its);
        let theirs = its.clone();
        let last = fork(move || (numbers(&theirs, 4), Deadly(numbers(&theirs, 5)))).expect("fork");
        std::mem::forget((joined.join().expect("no panic"), dead, running));
        // Killed while it decodes.
        drop(last.join());
    });
    assert!(matches!(parent.expect("fork").join(), Err(JoinError::Killed(9))));
    common::wait_until("all is freed", || after_reaping(&segment) == 0);
}

#[apply(test)]
fn what_200_children_return_is_taken_or_freed() {
    let segment = Segment::create(64 << 20).expect("a segment");
    let sleeps = |micros| std::thread::sleep(Duration::from_micros(micros));
    let mut children = Vec::new();
    let mut returned = 0;
    for number in 0..200_u64 {
        let its = segment.clone();
        let child = fork(move || {
            let (sender, receiver) =
                QueueOptions::new().capacity(2).create_channel_in::<u64>(&its).expect("made");
            sender.send(number).map_err(|error| error.to_string()).expect("connected");
            (numbers(&its, number), sender, receiver)
        });
        let child = child.expect("fork");
        match number % 5 {
            // Dropped while it runs.
            0 => drop(child),
            // Killed somewhere.
            1 => {
                sleeps(number * 10);
                child.kill().expect("kill");
                match child.join() {
                    Ok((queue, ..)) => assert_eq!(number_of(&queue), number),
                    Err(JoinError::Killed(9)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // Killed somewhere, and never joined.
            2 => {
                sleeps(number * 10);
                child.kill().expect("kill");
                drop(child);
            }
            _ => children.push((number, child)),
        }
    }
    for (number, child) in children {
        if number % 5 == 3 {
            let (queue, sender, receiver) = child.join().expect("no panic");
            assert_eq!((number_of(&queue), receiver.recv()), (number, Ok(number)));
            sender.send(7).map_err(|error| error.to_string()).expect("connected");
            assert_eq!(receiver.recv(), Ok(7));
            returned += 1;
        } else {
            // Dropped long after its end, most of them.
            drop(child);
        }
    }
    assert_eq!(returned, 40);
    wait_until_empty(&segment);
}
