//! Handles of shared objects in messages: the object lives while the message carries it, whatever
//! becomes of who sent or received it, and nothing of it is left in the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use offspring::{
    Child, Handle, Lock, ObjectQueue, OnReceiverDeath, Queue, QueueOptions, RecvError, Segment,
    Sender, ShmArc,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::blocks::{self, in_use};
use crate::common::raw;
use crate::common::{self, fork};
use crate::harness::{apply, test};
use crate::role::{self, role};

/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

fn segment() -> Segment {
    Segment::create(8 << 20).expect("a segment")
}

fn objects<T>(segment: &Segment, policy: OnReceiverDeath) -> ObjectQueue<T> {
    let mut options = QueueOptions::new();
    options.capacity(4).on_receiver_death(policy);
    options.create_objects_in(segment).expect("a queue")
}

fn numbers(segment: &Segment, number: u64) -> Queue<u64> {
    let queue = Queue::with_capacity_in(segment, 2).expect("a queue");
    queue.send(number).expect("room");
    queue
}

/// Kills a child and waits until it is dead, without telling the segments.
fn kill<T: Serialize + serde::de::DeserializeOwned>(child: &Child<T>) {
    child.kill().expect("kill");
    common::wait_until_dead(child.id());
}

/// Gives back what the dead have left, and says how many blocks are in use.
fn after_reaping(segment: &Segment) -> usize {
    segment.reap().expect("attached");
    in_use(segment)
}

/// Where this process is to be killed.
static DEADLY: AtomicU64 = AtomicU64::new(0);

/// A place in a message at which the process that encodes or decodes it is killed.
#[derive(Clone, Copy, Debug)]
struct Spot(u64);

const ENCODING: u64 = 100;

impl Spot {
    fn pass(self, deadly: u64) {
        if DEADLY.load(Ordering::Relaxed) == deadly {
            raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
            common::sleep_for_ever();
        }
    }
}

impl Serialize for Spot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.pass(ENCODING + self.0);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Spot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Spot, D::Error> {
        let spot = Spot(u64::deserialize(deserializer)?);
        spot.pass(spot.0);
        Ok(spot)
    }
}

/// A message with two handles and places before, between and behind them.
type Spotted = (Spot, Queue<u64>, Spot, Lock<u64>, Spot);

fn spotted(segment: &Segment, number: u64) -> Spotted {
    let lock = Lock::new_in(segment, number).expect("a lock");
    (Spot(1), numbers(segment, number), Spot(2), lock, Spot(3))
}

fn number_of((_, queue, _, lock, _): &Spotted) -> u64 {
    let number = queue.recv_timeout(LIMIT).expect("it is in there");
    assert_eq!(*lock.lock().expect("free"), number);
    number
}

#[apply(test)]
fn a_worker_answers_into_the_queue_of_the_request() {
    #[derive(Serialize, Deserialize)]
    struct Request {
        number: u64,
        answer: Queue<u64>,
    }
    let requests = ObjectQueue::<Request>::with_capacity(4).expect("a queue");
    let theirs = requests.clone();
    // It runs before the queue for the answer is made.
    let worker = fork(move || {
        for request in &theirs {
            let Request { number, answer } = request.expect("decoded");
            answer.send(number * number).expect("open");
        }
    });
    for number in 1..=20 {
        let answer = Queue::with_capacity(1).expect("a queue");
        requests.send(Request { number, answer: answer.clone() }).expect("open");
        assert_eq!(answer.recv_timeout(LIMIT), Ok(number * number));
    }
    requests.close();
    worker.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn what_a_sender_has_sent_works_after_its_exit_and_after_its_death() {
    let segment = segment();
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Drop);
    for dies in [false, true] {
        let (theirs, there) = (queue.clone(), segment.clone());
        let sender = fork(move || {
            theirs.send(spotted(&there, 7)).map_err(|error| error.to_string()).expect("room");
            if dies {
                raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
            }
        });
        assert_eq!(sender.expect("fork").join().is_err(), dies);
        assert_eq!(after_reaping(&segment), 4, "the queue, two objects and their flight");
        let received = queue.recv_timeout(LIMIT).expect("sent");
        assert_eq!(number_of(&received), 7);
        assert_eq!(after_reaping(&segment), 3);
        drop(received);
        assert_eq!(in_use(&segment), 1);
    }
}

#[apply(test)]
fn a_sender_killed_before_it_has_sent_leaves_nothing() {
    let segment = segment();
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Drop);
    for deadly in 1..=3 {
        let (theirs, there) = (queue.clone(), segment.clone());
        let sender = fork(move || {
            let value = spotted(&there, 7);
            DEADLY.store(ENCODING + deadly, Ordering::Relaxed);
            drop(theirs.send(value));
        });
        assert!(sender.expect("fork").join().is_err());
        assert_eq!(after_reaping(&segment), 1, "killed at {deadly}");
        assert!(queue.is_empty());
    }
    // While it waits for room, with a flight of its own.
    for number in 0..4 {
        queue.send(spotted(&segment, number)).map_err(|error| error.to_string()).expect("room");
    }
    let before = in_use(&segment);
    let (theirs, there) = (queue.clone(), segment.clone());
    let sender = fork(move || drop(theirs.send(spotted(&there, 9)))).expect("fork");
    common::wait_until("the flight is made", || in_use(&segment) == before + 3);
    common::wait_until_asleep(sender.id());
    kill(&sender);
    assert_eq!(after_reaping(&segment), before);
    assert!(sender.join().is_err());
    for number in 0..4 {
        assert_eq!(number_of(&queue.recv_timeout(LIMIT).expect("sent")), number);
    }
    assert_eq!(in_use(&segment), 1);
}

/// A child that is killed at this place of the message that it receives.
fn die_at(deadly: u64, queue: &ObjectQueue<Spotted>) {
    let theirs = queue.clone();
    let receiver = fork(move || {
        DEADLY.store(deadly, Ordering::Relaxed);
        drop(theirs.recv());
    });
    assert!(receiver.expect("fork").join().is_err());
}

#[apply(test)]
fn a_killed_receivers_message_is_lost_with_what_it_held() {
    let segment = segment();
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Drop);
    for deadly in 1..=3 {
        queue.send(spotted(&segment, 7)).map_err(|error| error.to_string()).expect("room");
        // The first message is also decoded by its sender, which must take nothing from it.
        assert_eq!(in_use(&segment), 4);
        die_at(deadly, &queue);
        assert!(queue.recv_timeout(Duration::ZERO).is_err());
        assert_eq!(after_reaping(&segment), 1, "killed at {deadly}");
        assert_eq!(queue.lost(), deadly);
    }
}

#[apply(test)]
fn a_killed_receivers_message_is_delivered_again_with_what_it_held() {
    let segment = segment();
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Redeliver);
    queue.send(spotted(&segment, 7)).map_err(|error| error.to_string()).expect("room");
    for deadly in [1, 2, 3, 3, 2, 1] {
        die_at(deadly, &queue);
        assert_eq!(after_reaping(&segment), 4, "killed at {deadly}");
    }
    assert_eq!(number_of(&queue.recv_timeout(LIMIT).expect("still there")), 7);
    assert_eq!(after_reaping(&segment), 1);
}

#[apply(test)]
fn sender_and_receiver_are_both_killed_and_nothing_is_left() {
    let segment = segment();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        for deadly in 1..=3 {
            let queue = objects::<Spotted>(&segment, policy);
            let (theirs, there) = (queue.clone(), segment.clone());
            let sender = fork(move || {
                let sent = theirs.send(spotted(&there, 7)).is_ok();
                assert!(sent);
                common::sleep_for_ever();
            });
            let sender: Child<()> = sender.expect("fork");
            common::wait_until("the message is there", || !queue.is_empty());
            let theirs = queue.clone();
            let receiver = fork(move || {
                DEADLY.store(deadly, Ordering::Relaxed);
                drop(theirs.recv());
            });
            let receiver: Child<()> = receiver.expect("fork");
            common::wait_until_dead(receiver.id());
            kill(&sender);
            drop(queue);
            drop((sender.join(), receiver.join()));
            assert_eq!(after_reaping(&segment), 0, "{policy:?}, killed at {deadly}");
        }
    }
}

#[apply(test)]
fn a_child_that_was_forked_meanwhile_opens_what_the_message_holds() {
    let segment = segment();
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Drop);
    queue.send(spotted(&segment, 7)).map_err(|error| error.to_string()).expect("room");
    let theirs = queue.clone();
    let child = fork(move || {
        let received = theirs.recv_timeout(LIMIT).expect("sent");
        let number = number_of(&received);
        // And on to somebody else, under the same name.
        received.1.send(number + 1).expect("room");
        theirs.send(received).map_err(|error| error.to_string()).expect("room");
        number
    });
    assert_eq!(child.expect("fork").join().expect("no panic"), 7);
    let (_, queue_in_it, ..) = queue.recv_timeout(LIMIT).expect("sent");
    assert_eq!(queue_in_it.recv(), Ok(8));
    drop((queue_in_it, queue));
    assert_eq!(after_reaping(&segment), 0);
}

#[apply(test)]
fn an_end_that_a_killed_process_had_in_a_message_disconnects() {
    let segment = segment();
    let mut options = QueueOptions::new();
    let options = options.capacity(4);
    for deadly in [0, 1, 2, 3, ENCODING + 3] {
        let (posts, post) =
            options.create_channel_in::<(Spot, Sender<u64>, Spot, Spot)>(&segment).expect("made");
        let (sender, receiver) = options.create_channel_in::<u64>(&segment).expect("made");
        let value = (Spot(1), sender, Spot(2), Spot(3));
        let child = if deadly >= ENCODING {
            fork(move || {
                DEADLY.store(deadly, Ordering::Relaxed);
                drop(posts.send(value));
            })
        } else {
            posts.send(value).map_err(|error| error.to_string()).expect("room");
            assert!(receiver.try_recv().expect_err("nothing yet").is_empty());
            fork(move || {
                DEADLY.store(deadly, Ordering::Relaxed);
                let received = post.recv().expect("sent");
                received.1.send(7).expect("connected");
                raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
            })
        };
        let child: Child<()> = child.expect("fork");
        // Nobody clears up but who waits.
        let mut received = Vec::new();
        let end = loop {
            match receiver.recv_timeout(LIMIT) {
                Ok(number) => received.push(number),
                Err(error) => break error,
            }
        };
        assert!(end.is_disconnected(), "{end}, killed at {deadly}");
        assert_eq!(received, if deadly == 0 { vec![7] } else { vec![] });
        assert!(child.join().is_err());
        drop(receiver);
        // The channel of the messages, of which this process has the other end.
        assert_eq!(after_reaping(&segment), 1, "killed at {deadly}");
    }
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_worker_answers_through_the_sender_in_the_request_and_its_death_is_noticed() {
    let (requests, jobs) = offspring::channel::<(u64, Sender<u64>)>(4).expect("a channel");
    let worker = fork(move || {
        while let Ok((number, answers)) = jobs.recv() {
            (1..=number).for_each(|n| answers.send(n * n).expect("connected"));
            if number == 3 {
                raw::signal(std::process::id().cast_signed(), libc::SIGKILL);
            }
        }
    });
    let worker: Child<()> = worker.expect("fork");
    for number in 1..=3 {
        let (sender, answers) = offspring::channel(8).expect("a channel");
        requests.send((number, sender)).map_err(|error| error.to_string()).expect("connected");
        let all: Vec<u64> = answers.iter().collect();
        assert_eq!(all, (1..=number).map(|n| n * n).collect::<Vec<_>>());
    }
    let (sender, answers) = offspring::channel(8).expect("a channel");
    // The last receiver of requests is dead, so it comes back, or it is lost with the channel.
    drop(requests.send((4, sender)));
    drop(requests);
    assert!(answers.recv_timeout(LIMIT).expect_err("nobody is left").is_disconnected());
    assert!(worker.join().is_err());
}

#[apply(test)]
fn a_name_goes_through_arguments_of_a_program_and_holds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let segment = Segment::create_file(&path, 1 << 20).expect("a file");
    let made = numbers(&segment, 7);
    let name = made.handle().to_string();
    let path = path.to_str().expect("text");
    role::play(&format!("flights::answer_by_name {path} {name}"));
    assert_eq!(made.recv_timeout(LIMIT), Ok(8));
    drop(made);
    role::play(&format!("flights::find_it_gone {path} {name}"));
}

/// In a program of its own: takes a number and answers with the next one.
#[apply(role)]
fn answer_by_name(arguments: &str) {
    let (path, name) = arguments.split_once(' ').expect("both");
    let _segment = Segment::open_file(path).expect("a segment");
    let handle: Handle = name.parse().expect("a name");
    let found = handle.find_segment().expect("it is open");
    let queue = Queue::<u64>::open(&found, handle).expect("there");
    // As text and as bytes in other formats it is the same name.
    let text = serde_json::to_string(&queue).expect("text");
    let again: Queue<u64> = serde_json::from_str(&text).expect("there");
    queue.send(again.recv().expect("sent") + 1).expect("room");
}

#[apply(role)]
fn find_it_gone(arguments: &str) {
    let (path, name) = arguments.split_once(' ').expect("both");
    let text = format!("{name:?}");
    let error = serde_json::from_str::<Queue<u64>>(&text).expect_err("not open");
    assert!(error.to_string().contains("does not have open"), "{error}");
    let _segment = Segment::open_file(path).expect("a segment");
    let error = serde_json::from_str::<Queue<u64>>(&text).expect_err("gone");
    assert!(error.to_string().contains("is gone"), "{error}");
}

#[apply(test)]
fn whatever_is_written_over_a_flight_is_an_error_and_no_crash() {
    let segment = segment();
    let file = blocks::file(&segment);
    let queue = objects::<Queue<u64>>(&segment, OnReceiverDeath::Drop);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut opened = 0;
    for round in 0..2000 {
        let kept = numbers(&segment, round);
        queue.send(kept.clone()).expect("room");
        let flight = blocks::blocks(&segment)
            .into_iter()
            .find(|block| block.state == blocks::CARRIED)
            .expect("a flight");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The list, the number of bytes in it, the marks, or the name in the slot.
        let at = match random % 4 {
            0 => flight.bytes + 8 * (random >> 8 & 1),
            1 => flight.header + 16,
            2 => flight.header + 56,
            _ => flight.bytes,
        };
        let value = match random >> 32 & 3 {
            0 => u64::MAX,
            1 => random,
            2 => random >> 50,
            _ => 0,
        };
        std::os::unix::fs::FileExt::write_at(&file, &value.to_ne_bytes(), at).expect("writable");
        match queue.recv_timeout(LIMIT) {
            // By chance, or as what was written over is not read.
            Ok(received) => opened += u64::from(received.handle() == kept.handle()),
            Err(
                offspring::RecvTimeoutError::Rejected(_) | offspring::RecvTimeoutError::Broken(_),
            ) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(kept.recv_timeout(LIMIT), Ok(round), "it is still held");
        drop(kept);
    }
    assert!(opened < 2000);
    // What a wrong list or mark has kept is found as soon as somebody looks.
    drop(queue);
    let reaper = fork(|| ()).expect("fork");
    reaper.join().expect("no panic");
    segment.reap().expect("attached");
}

#[apply(test)]
fn a_thousand_killed_processes_with_handles_in_messages_leave_nothing() {
    let segment = Segment::create(32 << 20).expect("a segment");
    let queue = objects::<Spotted>(&segment, OnReceiverDeath::Redeliver);
    let work = |number: u64, queue: ObjectQueue<Spotted>, segment: Segment| {
        let deadly = [0, 0, 1, 2, 3, ENCODING + 1, ENCODING + 2, ENCODING + 3];
        for round in number.. {
            DEADLY.store(0, Ordering::Relaxed);
            let value = spotted(&segment, round);
            if round > number + 3 {
                DEADLY.store(deadly[(number % 8) as usize], Ordering::Relaxed);
            }
            let _ = queue.try_send(value);
            if let Ok(received) = queue.try_recv() {
                assert!(received.1.len() <= 1);
                let _ = queue.try_send(received);
            }
            let _ = queue.try_recv();
        }
    };
    let mut children: Vec<Child<()>> = Vec::new();
    for number in 0..1000 {
        let (theirs, there) = (queue.clone(), segment.clone());
        children.push(fork(move || work(number, theirs, there)).expect("fork"));
        if children.len() == 10 {
            std::thread::sleep(Duration::from_millis(2));
            let child = children.swap_remove((number * 7 % 10) as usize);
            child.kill().expect("kill");
            assert!(child.join().is_err());
        }
    }
    for child in children {
        child.kill().expect("kill");
        assert!(child.join().is_err());
    }
    while let Ok(received) = queue.recv_timeout(Duration::from_millis(300)) {
        assert!(received.1.len() <= 1);
    }
    assert!(matches!(queue.try_recv(), Err(offspring::TryRecvError::Empty)));
    assert_eq!(after_reaping(&segment), 1, "{:?}", blocks::blocks(&segment));
    queue.send(spotted(&segment, 7)).map_err(|error| error.to_string()).expect("room");
    let received = queue.recv().map_err(|error: RecvError<_>| error.to_string()).expect("sent");
    assert_eq!(number_of(&received), 7);
    drop((received, queue));
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_shared_slice_is_read_by_all_and_freed_with_its_last_holder() {
    let segment = segment();
    let queue = objects::<ShmArc<[u64]>>(&segment, OnReceiverDeath::Drop);
    let shared = ShmArc::from_fn_in(&segment, 10_000, |index| index as u64).expect("room");
    let sum = |shared: &ShmArc<[u64]>| shared.iter().sum::<u64>();
    let expected = sum(&shared);
    // By a closure, by a message, and by a fork that the crate knows nothing of.
    let captured = shared.clone();
    assert_eq!(fork(move || sum(&captured)).expect("fork").join().expect("no panic"), expected);
    raw::fork(|| assert_eq!(sum(&shared), expected)).join();
    let theirs = queue.clone();
    let ready = Queue::<u64>::with_capacity(1).expect("a queue");
    let is_ready = ready.clone();
    let reader = fork(move || {
        let received = theirs.recv_timeout(LIMIT).expect("sent");
        is_ready.send(sum(&received)).expect("room");
        common::sleep_for_ever();
    });
    let reader: Child<()> = reader.expect("fork");
    queue.send(shared).expect("room");
    assert_eq!(ready.recv_timeout(LIMIT), Ok(expected));
    assert_eq!(in_use(&segment), 2, "the reader has it");
    kill(&reader);
    assert_eq!(after_reaping(&segment), 1);
    assert!(reader.join().is_err());
}
