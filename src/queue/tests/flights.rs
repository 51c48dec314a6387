//! Handles in messages, within one process: what holds an object, and what is left.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::Event;
use crate::lock::Lock;
use crate::object::Handle;
use crate::object::transfer::{RecvError, SendError};
use crate::peer::Fault;
use crate::queue::{ByteQueue, EncodeError, ObjectQueue, Queue};
use crate::segment::Segment;
use crate::value::Value;

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

fn objects<T>(segment: &Segment) -> ObjectQueue<T> {
    ObjectQueue::with_capacity_in(segment, 8).expect("a queue")
}

fn numbers(segment: &Segment, number: u64) -> Queue<u64> {
    let queue = Queue::with_capacity_in(segment, 2).expect("a queue");
    queue.send(number).expect("room");
    queue
}

/// Sends a value of which nothing else is left, and receives it.
fn there_and_back<T: Serialize + DeserializeOwned>(segment: &Segment, value: T) -> T {
    let queue = objects(segment);
    queue.send(value).map_err(|error| error.to_string()).expect("room");
    queue.recv().expect("sent")
}

#[test]
fn a_message_holds_its_objects_when_the_sender_has_dropped_them() {
    let segment = segment();
    let queue = objects::<Queue<u64>>(&segment);
    queue.send(numbers(&segment, 7)).expect("room");
    assert_eq!(segment.blocks_in_use(), 3, "the queue, its message and that one's flight");
    let received = queue.recv().expect("sent");
    assert_eq!(received.recv(), Ok(7));
    assert_eq!(segment.blocks_in_use(), 2);
    drop(received);
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn every_kind_of_object_travels() {
    let segment = segment();
    let bytes = ByteQueue::with_capacity_in(&segment, 2).expect("a queue");
    bytes.send(b"bytes").expect("room");
    let bytes = there_and_back(&segment, bytes);
    assert_eq!(*bytes.recv().expect("sent"), *b"bytes");
    let texts = objects::<String>(&segment);
    texts.send("text".into()).expect("room");
    assert_eq!(there_and_back(&segment, texts).recv().expect("sent"), "text");
    let lock = there_and_back(&segment, Lock::new_in(&segment, 7_u64).expect("a lock"));
    assert_eq!(*lock.lock().expect("free"), 7);
    let value = there_and_back(&segment, Value::new_in(&segment, [7_u64; 9]).expect("a value"));
    assert_eq!(value.get(), Ok([7; 9]));
    let event = Event::auto_reset_in(&segment).expect("an event");
    event.set().expect("attached");
    let event = there_and_back(&segment, event);
    assert!(event.is_auto_reset() && event.is_set() == Ok(true));
    drop((bytes, lock, value, event));
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn a_message_of_any_length_holds_any_number_of_objects() {
    let segment = segment();
    let queue = objects::<(Vec<Queue<u64>>, Vec<u8>)>(&segment);
    for count in [0, 1, 2, 16, 17, 40, 100] {
        // Around the lengths that fit into a slot with and without a flight, too.
        for len in [0, 190, 209, 220, 221, 222, 223, 224, 236, 237, 238, 239, 240, 5000] {
            let made: Vec<_> = (0..count).map(|number| numbers(&segment, number)).collect();
            queue.send((made, vec![9; len])).expect("room");
            let (received, bytes) = queue.recv().expect("sent");
            assert_eq!(bytes, vec![9; len]);
            for (number, received) in received.iter().enumerate() {
                assert_eq!(received.try_recv(), Ok(number as u64), "{count}, {len}");
            }
            drop(received);
            assert_eq!(segment.blocks_in_use(), 1, "{count} objects and {len} bytes");
        }
    }
}

#[test]
fn a_queue_that_goes_frees_what_its_messages_hold() {
    let segment = segment();
    let queue = objects::<(Queue<u64>, String)>(&segment);
    queue.send((numbers(&segment, 1), String::new())).expect("room");
    queue.send((numbers(&segment, 2), "long".repeat(100))).expect("room");
    assert_eq!(segment.blocks_in_use(), 6);
    drop(queue);
    assert_eq!(segment.blocks_in_use(), 0);
}

/// A queue whose messages hold queues of the same kind.
#[derive(Serialize, Deserialize)]
struct Nest(ObjectQueue<Nest>);

#[test]
fn a_long_chain_of_queues_in_messages_is_freed_without_a_deep_stack() {
    let segment = Segment::create(16 << 20).expect("a segment");
    let mut outer = ObjectQueue::<Nest>::with_capacity_in(&segment, 1).expect("a queue");
    for _ in 0..300 {
        let next = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
        next.send(Nest(outer)).map_err(|error| error.to_string()).expect("room");
        outer = next;
    }
    assert_eq!(segment.blocks_in_use(), 601);
    drop(outer);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn a_queue_in_its_own_message_stays_until_it_is_taken_out() {
    let segment = segment();
    let queue = objects::<Nest>(&segment);
    queue.send(Nest(queue.clone())).map_err(|error| error.to_string()).expect("room");
    let handle = queue.handle();
    drop(queue);
    assert_eq!(segment.blocks_in_use(), 2, "it holds itself");
    let again = ObjectQueue::<Nest>::open(&segment, handle).expect("there");
    drop(again.recv().expect("sent"));
    drop(again);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn the_same_object_may_be_in_a_message_twice_and_in_several() {
    let segment = segment();
    let queue = objects::<[Queue<u64>; 2]>(&segment);
    let made = numbers(&segment, 7);
    for _ in 0..3 {
        queue.send([made.clone(), made.clone()]).expect("room");
    }
    drop(made);
    assert_eq!(segment.blocks_in_use(), 5);
    let first = queue.recv().expect("sent");
    assert_eq!(first[0].handle(), first[1].handle());
    drop(first);
    drop(queue.recv().expect("sent"));
    assert_eq!(segment.blocks_in_use(), 3);
    assert_eq!(queue.recv().expect("sent")[1].recv(), Ok(7));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn what_is_not_sent_comes_back_and_holds_nothing() {
    let segment = segment();
    let queue = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
    queue.send(numbers(&segment, 1)).expect("room");
    let full = queue.try_send(numbers(&segment, 2)).expect_err("full").into_inner();
    queue.close();
    let closed = queue.send(full).expect_err("closed").into_inner();
    assert_eq!(closed.recv(), Ok(2));
    drop(closed);
    assert_eq!(segment.blocks_in_use(), 3);
    assert_eq!(queue.recv().expect("sent").recv(), Ok(1));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn a_full_segment_gives_the_value_back() {
    let segment = Segment::create(1 << 17).expect("a segment");
    let queue = objects::<Vec<Queue<u64>>>(&segment);
    // Their flight is larger than a lock, so there is no room for it if there is none for a lock.
    let made: Vec<_> = (0..50).map(|number| numbers(&segment, number)).collect();
    let mut fill = Vec::new();
    while let Ok(lock) = Lock::new_in(&segment, [0_u64; 10]) {
        fill.push(lock);
    }
    let refused = queue.send(made).expect_err("no room for a flight");
    assert!(matches!(refused, SendError::Rejected(_, EncodeError::Memory(_))), "{refused}");
    let made = refused.into_inner();
    assert_eq!(made.len(), 50);
    fill.truncate(fill.len() - 50);
    queue.send(made).expect("room");
    drop(fill);
    let received = queue.recv().expect("sent");
    assert!(received.iter().enumerate().all(|(n, queue)| queue.recv() == Ok(n as u64)));
    drop(received);
    assert_eq!(segment.blocks_in_use(), 1);
}

/// Fails, or panics, after it has encoded its queue.
struct Breaks(Queue<u64>, bool);

impl Serialize for Breaks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeTuple};
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        assert!(!self.1, "in the encoder");
        Err(S::Error::custom("never"))
    }
}

impl<'de> Deserialize<'de> for Breaks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (queue, breaks) = Deserialize::deserialize(deserializer)?;
        Ok(Breaks(queue, breaks))
    }
}

#[test]
fn an_encoder_that_stops_halfway_holds_nothing() {
    let segment = segment();
    let queue = objects::<Breaks>(&segment);
    let refused = queue.send(Breaks(numbers(&segment, 7), false)).map_err(SendError::into_inner);
    let Err(Breaks(made, _)) = refused else { panic!("it cannot be encoded") };
    assert_eq!(made.recv(), Ok(7));
    drop(made);
    let value = Breaks(numbers(&segment, 7), true);
    let send = std::panic::AssertUnwindSafe(|| queue.send(value).is_ok());
    assert!(std::panic::catch_unwind(send).is_err(), "it panics");
    assert_eq!(segment.blocks_in_use(), 1);
    // And the thread is not in a message any more.
    let made = numbers(&segment, 7);
    let text = serde_json::to_string(&made).expect("text");
    assert_eq!(text, format!("\"{}\"", made.handle()));
    let bytes = postcard::to_stdvec(&made).expect("bytes");
    let opened: Queue<u64> = postcard::from_bytes(&bytes).expect("it is there");
    assert_eq!(opened.handle(), made.handle());
}

/// Sends another message while it is encoded, and receives it while it is decoded.
struct Meanwhile {
    other: ObjectQueue<Queue<u64>>,
    own: Queue<u64>,
}

impl Serialize for Meanwhile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let made = Queue::with_capacity_in(&self.own_segment(), 1).expect("a queue");
        self.other.send(made).expect("room");
        (&self.own, &self.other).serialize(serializer)
    }
}

impl Meanwhile {
    fn own_segment(&self) -> Segment {
        self.own.handle().find_segment().expect("open")
    }
}

impl<'de> Deserialize<'de> for Meanwhile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (own, other): (Queue<u64>, ObjectQueue<Queue<u64>>) =
            Deserialize::deserialize(deserializer)?;
        // The sender has decoded it before, and received it then.
        if let Ok(received) = other.try_recv() {
            assert_eq!(received.len(), 0);
        }
        Ok(Meanwhile { other, own })
    }
}

#[test]
fn a_message_in_the_middle_of_another_does_no_harm() {
    let segment = segment();
    let (other, own) = (objects(&segment), numbers(&segment, 7));
    let received = there_and_back(&segment, Meanwhile { other, own });
    assert_eq!(received.own.recv(), Ok(7));
    drop(received);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn an_object_of_another_segment_is_refused_with_the_way_out() {
    let (segment, another) = (segment(), segment());
    let queue = objects::<Queue<u64>>(&segment);
    let refused = queue.send(numbers(&another, 7)).expect_err("in another segment");
    assert!(refused.to_string().contains("make both in the same segment"), "{refused}");
    assert_eq!(refused.into_inner().recv(), Ok(7));
}

#[test]
fn outside_of_messages_a_handle_is_a_name() {
    let segment = segment();
    let made = numbers(&segment, 7);
    let text = serde_json::to_string(&made).expect("text");
    let bytes = postcard::to_stdvec(&made).expect("bytes");
    let handle: Handle = serde_json::from_str(&text).expect("a name");
    assert_eq!(handle, made.handle());
    let opened: Queue<u64> = serde_json::from_str(&text).expect("it is there");
    assert_eq!(opened.recv(), Ok(7));
    let wrong = serde_json::from_str::<Queue<u32>>(&text).expect_err("of another type");
    assert!(wrong.to_string().contains(&Fault::WrongType.to_string()), "{wrong}");
    drop((opened, made));
    assert_eq!(segment.blocks_in_use(), 0, "a name holds nothing");
    let gone = serde_json::from_str::<Queue<u64>>(&text).expect_err("gone");
    assert!(gone.to_string().contains("the object is gone"), "{gone}");
    assert!(postcard::from_bytes::<Queue<u64>>(&bytes).is_err());
    drop(segment);
    let closed = serde_json::from_str::<Queue<u64>>(&text).expect_err("not open");
    assert!(closed.to_string().contains("does not have open"), "{closed}");
    assert!(serde_json::from_str::<Queue<u64>>("\"0-0-0\"").is_err());
}

/// Text within a message is text.
#[derive(Serialize, Deserialize)]
struct InText(#[serde(with = "as_text")] Queue<u64>);

mod as_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(queue: &Queue<u64>, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(queue).expect("text").serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Queue<u64>, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map_err(serde::de::Error::custom)
    }
}

#[test]
fn text_in_a_message_carries_names() {
    let segment = segment();
    let queue = objects::<(InText, Queue<u64>)>(&segment);
    let (named, held) = (numbers(&segment, 1), numbers(&segment, 2));
    queue.send((InText(named.clone()), held)).expect("room");
    let (InText(first), second) = queue.recv().expect("sent");
    assert_eq!((first.recv(), second.recv()), (Ok(1), Ok(2)));
    drop((named, first, second));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn a_message_of_another_type_is_an_error_and_leaves_nothing() {
    let segment = segment();
    let queue = objects::<Queue<u64>>(&segment);
    queue.send(numbers(&segment, 1)).expect("room");
    queue.send(numbers(&segment, 2)).expect("room");
    // As if the sender had another idea of the type than the receiver.
    let other = ObjectQueue::<Queue<u32>>::from_bytes(queue.bytes().clone());
    let error = other.recv().expect_err("of another type");
    let RecvError::Rejected(error) = error else { panic!("{error}") };
    assert_eq!(error.cause, Fault::WrongType.to_string());
    assert_eq!(queue.recv().expect("not affected").recv(), Ok(2));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn bytes_that_pretend_to_be_a_handle_are_an_error() {
    let segment = segment();
    let queue = objects::<Queue<u64>>(&segment);
    // The variant of an object in flight, and its number.
    queue.send_encoded(&[1, 0]).expect("room");
    assert!(matches!(queue.recv(), Err(RecvError::Rejected(_))));
    queue.send_encoded(&[0, 9, 9, 9]).expect("room");
    assert!(matches!(queue.recv(), Err(RecvError::Rejected(_))));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn a_handle_that_the_type_leaves_out_is_let_go_of() {
    let segment = segment();
    let queue = objects::<(Queue<u64>, u8)>(&segment);
    queue.send((numbers(&segment, 1), 7)).expect("room");
    let other = ObjectQueue::<(u8, u8, u8)>::from_bytes(queue.bytes().clone());
    assert_eq!(other.recv().expect("three bytes"), (1, 0, 7));
    assert_eq!(segment.blocks_in_use(), 1);
}
