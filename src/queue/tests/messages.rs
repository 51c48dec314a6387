//! Messages of any length and values of any type, within one process.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::object::CreateError;
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::peer::Fault;
use crate::queue::{
    ByteQueue, DecodeError, EncodeError, Loan, ObjectQueue, OnReceiverDeath, QueueOptions,
};
use crate::segment::Segment;

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

#[test]
fn messages_of_every_length_arrive_whole_and_leave_nothing() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
    for round in 0..3_u8 {
        for len in [0, 1, 239, 240, 241, 256, 4095, 4096, 4097, 65_535, 65_536, 300_000] {
            let bytes: Vec<u8> = (0..len).map(|index| index as u8 ^ round).collect();
            queue.send(&bytes).expect("room");
            assert_eq!(segment.blocks_in_use(), 1 + usize::from(len > 240));
            assert_eq!(*queue.recv().expect("a message"), *bytes);
            assert_eq!(segment.blocks_in_use(), 1, "{len} bytes");
        }
    }
}

#[test]
fn a_loan_that_is_not_sent_gives_its_memory_back() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 1).expect("a queue");
    drop(queue.loan(200_000).expect("room"));
    queue.send(b"fills the only slot").expect("room");
    let mut loan = queue.loan(1000).expect("room");
    loan.fill(9);
    let full = loan.try_send().expect_err("full");
    assert!(full.is_full());
    let loan = full.into_inner();
    assert_eq!(*loan, [9; 1000]);
    drop(queue.recv().expect("a message"));
    loan.send().expect("room");
    assert_eq!(*queue.recv().expect("a message"), [9; 1000]);
    assert_eq!(segment.blocks_in_use(), 1);
}

/// It once borrowed its queue, and an error with it could not be returned.
#[test]
fn a_loan_is_a_value_like_any_other() {
    fn goes<E: std::error::Error + Send + Sync + 'static>() {}
    goes::<SendError<Loan>>();
    goes::<TrySendError<Loan>>();
    goes::<SendTimeoutError<Loan>>();
    fn send() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let queue = ByteQueue::with_capacity(1)?;
        queue.close();
        let mut loan = queue.loan(500)?;
        loan.fill(1);
        loan.send()?;
        Ok(())
    }
    let error = send().expect_err("closed");
    assert_eq!(error.to_string(), SendError::<()>::Closed(()).to_string());
}

#[test]
fn a_loan_is_filled_and_dropped_in_other_threads() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
    for len in [10, 1000, 100_000] {
        let mut loan = queue.loan(len).expect("room");
        let loan = std::thread::scope(|scope| {
            let fill = move || {
                loan.fill(7);
                loan
            };
            scope.spawn(fill).join().expect("no panic")
        });
        assert_eq!(*loan, vec![7; len]);
        let unused = queue.loan(len).expect("room");
        std::thread::spawn(move || drop(unused)).join().expect("no panic");
        std::thread::spawn(move || loan.send().expect("room")).join().expect("no panic");
        assert_eq!(*queue.recv().expect("a message"), vec![7; len]);
        assert_eq!(segment.blocks_in_use(), 1, "{len} bytes");
    }
}

#[test]
fn a_loan_outlives_all_handles_of_its_queue() {
    for len in [10, 1000, 100_000] {
        for is_sent in [false, true] {
            let segment = segment();
            let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
            let mut loan = queue.loan(len).expect("room");
            drop(queue);
            loan.fill(7);
            assert_eq!(*loan, vec![7; len]);
            assert_eq!(segment.blocks_in_use(), 1 + usize::from(len > 240), "it keeps the queue");
            if is_sent {
                loan.send().expect("room, though nobody receives it");
            } else {
                std::thread::spawn(move || drop(loan)).join().expect("no panic");
            }
            assert_eq!(segment.blocks_in_use(), 0, "{len} bytes, sent: {is_sent}");
        }
    }
    let queue = ByteQueue::with_capacity_in(&segment(), 4).expect("a queue");
    let mut loan = queue.loan(1000).expect("room");
    drop(queue);
    loan.fill(8);
    assert_eq!(*loan, [8; 1000], "it keeps the segment");
}

/// A full queue once said that there was no memory, which it did not need; a closed one, too.
#[test]
fn a_full_or_closed_queue_asks_for_no_memory() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 2).expect("a queue");
    let objects = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    let (short, long) = (vec![1_u8; 10], vec![1_u8; 1 << 20]);
    objects.send(short.clone()).expect("room");
    for _ in 0..2 {
        queue.send(&short).expect("room");
    }
    assert!(queue.try_send(&long).expect_err("no slot").is_full());
    assert!(objects.try_send(long.clone()).expect_err("no slot").is_full());
    drop(queue.recv().expect("a message"));
    objects.recv().expect("a value");
    assert!(matches!(queue.try_send(&long), Err(TrySendError::Rejected(..))), "a slot, no memory");
    assert!(matches!(objects.try_send(long.clone()), Err(TrySendError::Rejected(..))));
    assert!(matches!(queue.send(&long), Err(SendError::Rejected(..))));
    queue.close();
    objects.close();
    assert!(matches!(queue.try_send(&long), Err(TrySendError::Closed(()))));
    assert!(matches!(queue.send(&long), Err(SendError::Closed(()))));
    assert!(matches!(objects.try_send(long.clone()), Err(TrySendError::Closed(_))));
    assert!(matches!(objects.send(long), Err(SendError::Closed(_))));
    assert_eq!(queue.iter().count(), 1, "what was sent before");
}

/// As its documentation says.
#[test]
fn a_forgotten_message_costs_a_slot_and_memory_until_its_queue_is_gone() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 2).expect("a queue");
    queue.send(&[1; 500_000]).expect("room");
    std::mem::forget(queue.recv().expect("a message"));
    assert!(matches!(queue.send(&[2; 900_000]), Err(SendError::Rejected(..))), "it is still read");
    drop(queue);
    let queue = ByteQueue::with_capacity_in(&segment, 2).expect("a queue");
    queue.send(&[2; 900_000]).expect("the memory of the forgotten one");
    assert_eq!(segment.blocks_in_use(), 2);
}

#[test]
fn a_queue_that_goes_takes_its_messages_with_it() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 8).expect("a queue");
    for len in [10, 1000, 100_000] {
        queue.send(&vec![1; len]).expect("room");
    }
    let message = queue.recv().expect("a message");
    assert_eq!(segment.blocks_in_use(), 3);
    drop(message);
    drop(queue);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn no_memory_is_an_error_at_once_and_the_next_message_fits() {
    let segment = segment();
    let queue = ByteQueue::with_capacity_in(&segment, 64).expect("a queue");
    let error = queue.send(&vec![0; 2 << 20]).expect_err("twice the segment");
    assert!(matches!(error, SendError::Rejected((), CreateError::OutOfMemory { .. })), "{error}");
    let mut sent = 0;
    while queue.try_send(&vec![0; 100_000]).is_ok() {
        sent += 1;
    }
    assert!((8..=10).contains(&sent), "{sent} messages of 100,000 bytes in a mebibyte");
    queue.send(&[1; 500]).expect("room for less");
    drop(queue.recv().expect("a message"));
    queue.send(&vec![0; 100_000]).expect("room again");
    for huge in [1 << 63, usize::MAX] {
        let loan = queue.loan(huge);
        assert!(matches!(loan, Err(CreateError::OutOfMemory { .. })), "{loan:?}");
    }
}

#[test]
fn a_closed_queue_gives_what_is_left() {
    let queue = ByteQueue::with_capacity(4).expect("a queue");
    queue.send(&[1; 300]).expect("room");
    queue.close();
    assert!(matches!(queue.send(&[1; 300]), Err(SendError::Closed(()))));
    assert!(matches!(queue.try_send(b""), Err(TrySendError::Closed(()))));
    assert_eq!(queue.iter().map(|message| message.len()).collect::<Vec<_>>(), [300]);
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Closed)));
}

#[test]
fn a_message_keeps_its_slot_until_it_is_dropped() {
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let queue = QueueOptions::new().capacity(1).on_receiver_death(policy).create_bytes();
        let queue = queue.expect("a queue");
        queue.send(&[3; 400]).expect("room");
        let message = queue.recv().expect("a message");
        assert!(!message.redelivered());
        assert!(queue.try_send(b"more").expect_err("still read").is_full());
        drop(message);
        queue.try_send(b"more").expect("room");
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: f64 },
    Path(Vec<(i32, i32)>),
}

#[test]
fn values_of_any_type_arrive() {
    let segment = segment();
    let shapes = ObjectQueue::with_capacity_in(&segment, 4).expect("a queue");
    let all = [Shape::Dot, Shape::Circle { radius: 1.5 }, Shape::Path(vec![(1, -2); 5000])];
    for shape in all {
        shapes.send(shape.clone()).expect("room");
        assert_eq!(shapes.recv().expect("a shape"), shape);
    }
    drop(shapes);
    let maps = ObjectQueue::with_capacity_in(&segment, 4).expect("a queue");
    let map: BTreeMap<String, Option<bool>> =
        (0..500).map(|n| (format!("key {n}"), (n % 3 != 0).then_some(n % 2 == 0))).collect();
    maps.send(map.clone()).expect("room");
    assert_eq!(maps.recv().expect("a map"), map);
    drop(maps);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn each_type_has_queues_of_its_own() {
    let commons = Segment::commons().expect("the commons");
    let queue = ObjectQueue::<String>::with_capacity(1).expect("a queue");
    let name = queue.handle();
    assert!(ObjectQueue::<String>::open(&commons, name).is_ok());
    assert_eq!(ObjectQueue::<Vec<u8>>::open(&commons, name).err(), Some(Fault::WrongType));
    assert_eq!(ByteQueue::open(&commons, name).err(), Some(Fault::WrongType));
    let bytes = ByteQueue::with_capacity(1).expect("a queue");
    assert_eq!(ObjectQueue::<String>::open(&commons, bytes.handle()).err(), Some(Fault::WrongType));
}

/// Can be encoded, and not decoded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

/// Cannot be encoded.
#[derive(Debug, Deserialize)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not me"))
    }
}

/// Is shorter each time it is encoded.
#[derive(Debug)]
struct Fickle(Cell<usize>);

impl Serialize for Fickle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let len = self.0.get();
        self.0.set(len - 1);
        serializer.serialize_bytes(&vec![7; len])
    }
}

impl<'de> Deserialize<'de> for Fickle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fickle, D::Error> {
        Ok(Fickle(Cell::new(<&[u8]>::deserialize(deserializer)?.len())))
    }
}

#[test]
fn a_value_whose_length_changes_is_not_sent() {
    let segment = segment();
    let queue = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    let error = queue.send(Fickle(Cell::new(10_000))).expect_err("it changes");
    let SendError::Rejected(_, EncodeError::Encode(why)) = error else { panic!("{error}") };
    assert!(why.contains("its length changes"), "{why}");
    assert!(queue.is_empty());
    assert_eq!(segment.blocks_in_use(), 1);
}

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_queue_of_bytes_says_how_it_is() {
    let queue = ByteQueue::with_capacity(3).expect("a queue");
    let now = || (queue.capacity(), queue.len(), queue.is_full(), queue.is_closed());
    assert_eq!(now(), (3, 0, false, false));
    queue.send_deadline(&[1], Instant::now() + SHORT).expect("room");
    let loan = queue.loan(300).expect("room");
    loan.send_deadline(Instant::now() + SHORT).expect("room");
    assert_eq!(now(), (3, 2, false, false));
    queue.send(&[3; 500]).expect("room");
    assert_eq!(now(), (3, 3, true, false));
    let late = queue.send_deadline(&[4], Instant::now());
    assert!(matches!(late, Err(SendTimeoutError::Timeout(()))));
    let late = queue.loan(300).expect("room").send_deadline(Instant::now());
    assert!(matches!(late, Err(SendTimeoutError::Timeout(_))));
    queue.close();
    assert_eq!(now(), (3, 3, true, true));
    let printed = format!("{queue:?}");
    assert!(printed.starts_with("ByteQueue {") && printed.contains("len: 3"), "{printed}");
    let mut iter = queue.iter();
    assert_eq!(iter.end(), None);
    let messages: Vec<String> = iter.by_ref().map(|message| format!("{message:?}")).collect();
    for (message, len) in messages.iter().zip([1, 300, 500]) {
        assert!(message.contains(&format!("len: {len},")), "{message}");
    }
    assert_eq!((messages.len(), iter.end()), (3, Some(RecvError::Closed)));
}

#[test]
fn a_queue_of_objects_says_how_it_is() {
    let queue = ObjectQueue::<String>::with_capacity(2).expect("a queue");
    let now = || (queue.capacity(), queue.len(), queue.is_full(), queue.is_closed());
    assert_eq!(now(), (2, 0, false, false));
    queue.send_deadline("a".into(), Instant::now() + SHORT).expect("room");
    assert_eq!(now(), (2, 1, false, false));
    queue.send("b".into()).expect("room");
    assert_eq!(now(), (2, 2, true, false));
    let late = queue.send_deadline("c".into(), Instant::now());
    assert!(matches!(late, Err(SendTimeoutError::Timeout(back)) if back == "c"));
    queue.close();
    assert_eq!(now(), (2, 2, true, true));
    let printed = format!("{queue:?}");
    assert!(printed.starts_with("ObjectQueue {") && printed.contains("len: 2"), "{printed}");
    let error = DecodeError { bytes: vec![7; 3], cause: "a reason".to_owned() };
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn what_cannot_be_sent_is_the_senders_error_and_changes_nothing() {
    let segment = segment();
    let queue = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    let error = queue.send(Untagged::Number(7)).expect_err("untagged");
    assert!(
        matches!(error, SendError::Rejected(Untagged::Number(7), EncodeError::Decode(_))),
        "{error}"
    );
    assert!(queue.is_empty());
    let queue = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    let error = queue.send(Stubborn).expect_err("stubborn");
    assert!(matches!(error, SendError::Rejected(Stubborn, EncodeError::Encode(_))), "{error}");
    assert!(queue.is_empty());
    let queue = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    let error = queue.send(vec![7_u8; 2 << 20]).expect_err("too large");
    assert!(matches!(&error, SendError::Rejected(_, EncodeError::Memory(_))), "{error}");
    assert_eq!(error.into_inner(), vec![7_u8; 2 << 20], "the value comes back");
    assert_eq!(segment.blocks_in_use(), 3, "the queues");
}

#[test]
fn what_cannot_be_read_is_the_receivers_error_and_the_next_one_is_fine() {
    let queue = ObjectQueue::<(bool, String)>::with_capacity(4).expect("a queue");
    for bytes in [&[][..], &[7, 1, 65], &[1, 1, 65, 0], &[0xff; 300]] {
        queue.send_encoded(bytes).expect("room");
        let error = match queue.recv_timeout(Duration::from_secs(10)) {
            Err(RecvTimeoutError::Rejected(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error.bytes, bytes);
        assert!(!error.cause.is_empty());
    }
    queue.send((true, "fine".into())).expect("room");
    assert_eq!(queue.recv().expect("the next one"), (true, "fine".to_owned()));
    queue.send_encoded(&[9]).expect("room");
    queue.send((false, "last".into())).expect("room");
    queue.close();
    let all: Vec<_> = queue.iter().map(Result::ok).collect();
    assert_eq!(all, [None, Some((false, "last".to_owned()))]);
    assert!(matches!(queue.recv(), Err(RecvError::Closed)));
}

#[test]
fn errors_can_be_sent_and_returned() {
    fn goes<E: std::error::Error + Send + Sync + 'static>() {}
    goes::<SendError<(), CreateError>>();
    goes::<TrySendError<u8, EncodeError>>();
    goes::<RecvError<DecodeError>>();
    fn travels<E: Serialize + serde::de::DeserializeOwned>() {}
    travels::<SendError<(), CreateError>>();
    travels::<TrySendError<String, EncodeError>>();
    travels::<RecvError<DecodeError>>();
    travels::<RecvError>();
}
