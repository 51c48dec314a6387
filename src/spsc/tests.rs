//! The ring within one process: threads instead of processes.

use super::*;
use crate::heap::{BlockId, Pool};
use crate::primitive::{AtomicU64, Ordering};

#[test]
fn what_is_sent_is_received_in_order() {
    for capacity in [1, 2, 3, 8] {
        let (mut sender, mut receiver) = ring::<u64>(capacity).expect("a ring");
        for lap in 0..5 {
            for n in 0..capacity as u64 {
                sender.try_send(lap << 8 | n).expect("room");
            }
            assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)));
            assert_eq!(receiver.len(), capacity);
            for n in 0..capacity as u64 {
                assert_eq!(receiver.try_recv(), Ok(lap << 8 | n));
            }
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert!(sender.is_empty());
        }
    }
}

#[test]
fn threads_pass_a_stream() {
    let (mut sender, mut receiver) = ring::<[u64; 3]>(7).expect("a ring");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..100_000).for_each(|n| sender.send([n, n + 1, n + 2]).expect("a ring"))
        });
        for n in 0..100_000 {
            assert_eq!(receiver.recv(), Ok([n, n + 1, n + 2]));
        }
    });
}

#[test]
fn timeouts_wait_at_least_that_long_and_give_the_value_back() {
    let (mut sender, mut receiver) = ring::<u8>(1).expect("a ring");
    let time = Duration::from_millis(20);
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(time), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= time);
    sender.send(1).expect("room");
    let start = Instant::now();
    assert_eq!(sender.send_timeout(2, time), Err(SendTimeoutError::Timeout(2)));
    assert!(start.elapsed() >= time);
    assert_eq!(sender.send_deadline(2, Instant::now()), Err(SendTimeoutError::Timeout(2)));
    assert_eq!(receiver.recv_deadline(Instant::now()), Ok(1));
}

#[test]
fn a_role_has_one_holder_and_a_successor_goes_on_where_it_left_off() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let (mut sender, mut receiver) = ring_in::<u8>(&segment, 4).expect("a ring");
    let handle = sender.handle();
    assert_eq!(Producer::<u8>::open(&segment, handle).unwrap_err(), Fault::RoleTaken);
    sender.send(1).expect("room");
    // Keeps the role from being gone.
    let _spare = sender.standby().expect("another end");
    drop(sender);
    let mut successor = Producer::<u8>::open(&segment, handle).expect("the role is free");
    successor.send(2).expect("room");
    assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Ok(2)));
    assert_eq!(Consumer::<u8>::open(&segment, handle).unwrap_err(), Fault::RoleTaken);
    assert_eq!(Producer::<i8>::open(&segment, handle).unwrap_err(), Fault::WrongType);
}

#[test]
fn impossible_capacities_are_refused() {
    assert!(matches!(ring::<u8>(0), Err(CreateError::Capacity { capacity: 0, .. })));
    assert!(matches!(ring::<u8>(usize::MAX), Err(CreateError::Capacity { .. })));
    let (mut sender, mut receiver) = ring::<()>(1).expect("a ring of nothing");
    sender.send(()).expect("room");
    assert!(sender.try_send(()).is_err());
    assert_eq!(receiver.recv(), Ok(()));
}

#[test]
fn both_ends_say_what_the_ring_is() {
    let (mut sender, mut receiver) = ring::<u8>(3).expect("a ring");
    let says = |sender: &Producer<u8>, receiver: &Consumer<u8>, len: usize| {
        assert_eq!((sender.capacity(), receiver.capacity()), (3, 3));
        assert_eq!((sender.len(), receiver.len()), (len, len));
        assert_eq!((sender.is_empty(), receiver.is_empty()), (len == 0, len == 0));
        let text = format!("{{ len: {len}, capacity: 3, .. }}");
        assert_eq!(format!("{sender:?}"), format!("Producer {text}"));
        assert_eq!(format!("{receiver:?}"), format!("Consumer {text}"));
    };
    says(&sender, &receiver, 0);
    sender.send(1).expect("room");
    says(&sender, &receiver, 1);
    sender.send(2).expect("room");
    says(&sender, &receiver, 2);
    assert_eq!(receiver.recv(), Ok(1));
    says(&sender, &receiver, 1);
    assert_eq!(sender.handle(), receiver.handle());
}

/// Whether an operation is over, whatever its form says.
fn is_over(receiver: &mut Consumer<u8>) -> bool {
    let time = Duration::from_secs(100);
    receiver.try_recv() == Err(TryRecvError::Disconnected)
        && receiver.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
        && receiver.recv() == Err(RecvError::Disconnected)
}

#[test]
fn a_receiver_gets_what_is_left_and_then_learns_that_the_sender_is_gone() {
    let (mut sender, mut receiver) = ring::<u8>(4).expect("a ring");
    (1..=3).for_each(|n| sender.send(n).expect("room"));
    assert!(!receiver.is_disconnected());
    drop(sender);
    assert!(receiver.is_disconnected() && !receiver.is_closed());
    assert_eq!([(); 3].map(|()| receiver.recv()), [Ok(1), Ok(2), Ok(3)]);
    assert!(is_over(&mut receiver) && is_over(&mut receiver));
}

#[test]
fn a_sender_gets_its_value_back_when_the_receiver_is_gone() {
    let (mut sender, receiver) = ring::<u8>(2).expect("a ring");
    (1..=2).for_each(|n| sender.send(n).expect("room"));
    assert!(!sender.is_disconnected());
    drop(receiver);
    let time = Duration::from_secs(100);
    assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
    assert_eq!(sender.send_timeout(4, time), Err(SendTimeoutError::Disconnected(4)));
    assert_eq!(sender.send(5), Err(SendError::Disconnected(5)));
    assert!(sender.is_disconnected() && !sender.is_closed());
}

/// It looks only when it has used up the slots that it knows to be free. Then it must ask before it
/// takes the slots that the receiver has freed.
#[test]
fn a_sender_learns_that_the_receiver_is_gone_although_there_is_room() {
    for received in 0..=3 {
        let (mut sender, mut receiver) = ring::<u8>(3).expect("a ring");
        (0..3).for_each(|n| sender.send(n).expect("room"));
        (0..received).for_each(|n| assert_eq!(receiver.recv(), Ok(n)));
        drop(receiver);
        assert_eq!(sender.try_send(9), Err(TrySendError::Disconnected(9)), "{received}");
    }
}

#[test]
fn a_sleeping_side_is_woken_by_the_drop_of_the_other() {
    let (sender, mut receiver) = ring::<u8>(1).expect("a ring");
    receiver.set_wait(Wait::Sleep);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| receiver.recv());
        std::thread::sleep(Duration::from_millis(20));
        drop(sender);
        assert_eq!(waits.join().expect("no panic"), Err(RecvError::Disconnected));
    });
    let (mut sender, receiver) = ring::<u8>(1).expect("a ring");
    sender.set_wait(Wait::Sleep);
    sender.send(1).expect("room");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| sender.send(2));
        std::thread::sleep(Duration::from_millis(20));
        drop(receiver);
        assert_eq!(waits.join().expect("no panic"), Err(SendError::Disconnected(2)));
    });
}

#[test]
fn what_is_gone_is_not_taken_again() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let (sender, mut receiver) = ring_in::<u8>(&segment, 4).expect("a ring");
    let (handle, spare) = (sender.handle(), sender.standby().expect("another end"));
    drop(sender);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "one stands by");
    drop(Producer::<u8>::open(&segment, handle).expect("the role is free"));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "it still stands by");
    drop(spare);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(Producer::<u8>::open(&segment, handle).unwrap_err(), Fault::Stale);
    let mut other = receiver.standby().expect("another end");
    drop(receiver);
    assert_eq!(other.recv(), Err(RecvError::Disconnected), "whoever receives");
}

#[test]
fn an_end_that_stands_by_goes_on_where_the_other_left_off() {
    let (mut sender, mut receiver) = ring::<u8>(4).expect("a ring");
    let mut next_sender = sender.standby().expect("another end");
    let mut next_receiver = receiver.standby().expect("another end");
    (1..=3).for_each(|n| sender.send(n).expect("room"));
    assert_eq!(next_sender.try_send(9), Err(TrySendError::Full(9)), "it stands by");
    assert_eq!(next_receiver.try_recv(), Err(TryRecvError::Empty), "it stands by");
    assert_eq!(receiver.recv(), Ok(1));
    drop((sender, receiver));
    next_sender.send(4).expect("room");
    assert_eq!([(); 3].map(|()| next_receiver.recv()), [Ok(2), Ok(3), Ok(4)]);
    drop(next_sender);
    assert!(is_over(&mut next_receiver));
}

/// It would wait for its turn as long as the one lives that uses the role.
#[test]
fn an_end_that_stands_by_learns_that_nothing_comes_any_more() {
    let (mut sender, mut receiver) = ring::<u8>(4).expect("a ring");
    let mut spare = receiver.standby().expect("another end");
    let spare_sender = sender.standby().expect("another end");
    sender.send(1).expect("room");
    drop((sender, spare_sender));
    assert_eq!(spare.try_recv(), Err(TryRecvError::Empty), "the other one takes the message");
    assert_eq!(receiver.recv(), Ok(1));
    assert!(is_over(&mut spare));
    assert!(is_over(&mut receiver));
}

/// It would try for ever to take the role from nobody.
#[test]
fn a_role_that_somebody_has_written_over_is_corrupt() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let (sender, mut receiver) = ring_in::<u8>(&segment, 1).expect("a ring");
    let mut spare = sender.standby().expect("another end");
    let handle = sender.handle();
    let region = segment.mapping().region().expect("mapped");
    let id = BlockId::from_bits(handle.block).expect("a block");
    let ring = Pool::new(segment.mapping(), region).shared(id, handle.generation as u32);
    // Behind the geometry and the number of messages.
    let role: &AtomicU64 = region.at(ring.expect("a ring").offset + 128 + 8).expect("mapped");
    let before = role.load(Ordering::Relaxed);
    for bits in [7, u64::MAX, 1 << 62] {
        role.store(bits, Ordering::Relaxed);
        let refused = spare.try_send(7);
        assert_eq!(refused, Err(TrySendError::Broken(7, Fault::Corrupt)), "{bits:#x}");
    }
    role.store(before, Ordering::Relaxed);
    assert_eq!(spare.try_send(7), Err(TrySendError::Full(7)), "it stands by");
    drop(sender);
    assert_eq!(spare.try_send(7), Ok(()));
    assert_eq!(receiver.recv(), Ok(7));
}

#[test]
fn an_end_that_stands_by_is_woken_when_it_gets_its_role() {
    let (sender, mut receiver) = ring::<u8>(1).expect("a ring");
    let mut spare = sender.standby().expect("another end");
    spare.set_wait(Wait::Sleep);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| spare.send(7));
        std::thread::sleep(Duration::from_millis(20));
        drop(sender);
        assert_eq!(receiver.recv(), Ok(7));
        assert_eq!(waits.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn a_sender_that_closes_sends_nothing_more() {
    let (mut sender, mut receiver) = ring::<u8>(4).expect("a ring");
    sender.send(1).expect("room");
    sender.close();
    sender.close();
    assert!(sender.is_closed() && receiver.is_closed());
    assert_eq!(sender.try_send(2), Err(TrySendError::Closed(2)), "there is room");
    assert_eq!(sender.send(2), Err(SendError::Closed(2)));
    assert_eq!(receiver.recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(receiver.recv(), Err(RecvError::Closed));
    drop(sender);
    assert_eq!(receiver.recv(), Err(RecvError::Closed), "it stays so");
}

/// A sender that knows free slots may send that many messages before it asks. What comes after the
/// receiver was told the end is not received any more.
#[test]
fn a_receiver_that_closes_is_told_the_end_once_and_for_good() {
    let (mut sender, mut receiver) = ring::<u8>(2).expect("a ring");
    sender.send(1).expect("room");
    receiver.close();
    assert_eq!(receiver.recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    sender.try_send(2).expect("it knows that there is room");
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)), "now it asks");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    let mut other = receiver.standby().expect("another end");
    drop(receiver);
    assert_eq!(other.recv(), Err(RecvError::Closed), "whoever receives");
    assert!(sender.is_closed() && other.is_closed());
}

#[test]
fn closing_wakes_both_sides() {
    let (mut sender, mut receiver) = ring::<u8>(1).expect("a ring");
    let mut spare = sender.standby().expect("another end");
    receiver.set_wait(Wait::Sleep);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| receiver.recv());
        std::thread::sleep(Duration::from_millis(20));
        spare.close();
        assert_eq!(waits.join().expect("no panic"), Err(RecvError::Closed));
    });
    assert_eq!(sender.send(1), Err(SendError::Closed(1)), "it knows of no room yet");
}

#[test]
fn a_receiver_is_an_iterator_that_ends() {
    let (mut sender, mut receiver) = ring::<u8>(4).expect("a ring");
    (1..=4).for_each(|n| sender.send(n).expect("room"));
    drop(sender);
    let mut messages = receiver.iter();
    assert_eq!(messages.end(), None);
    assert_eq!(messages.by_ref().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((messages.next(), messages.end()), (None, Some(RecvError::Disconnected)));
    assert_eq!((&mut receiver).into_iter().count(), 0);
}

#[test]
fn an_end_travels_in_a_message_and_counts_there() {
    let (sender, mut receiver) = ring::<u8>(4).expect("a ring");
    let (to, from) = crate::channel::<Producer<u8>>(1).expect("a channel");
    to.send(sender).expect("room");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "the message has an end");
    let mut sender = from.recv().expect("a message");
    sender.send(7).expect("room");
    assert_eq!(receiver.recv(), Ok(7));
    to.send(sender).expect("room");
    drop((to, from));
    assert!(is_over(&mut receiver), "the message is lost, and the end with it");

    let (mut sender, receiver) = ring::<u8>(4).expect("a ring");
    sender.send(8).expect("room");
    let (to, from) = crate::channel::<Consumer<u8>>(1).expect("a channel");
    to.send(receiver).expect("room");
    assert!(!sender.is_disconnected());
    let mut receiver = from.recv().expect("a message");
    assert_eq!(receiver.recv(), Ok(8));
    drop(receiver);
    assert!(sender.is_disconnected());
}

#[test]
fn an_end_as_text_is_the_name_of_the_ring() {
    let (sender, mut receiver) = ring::<u8>(4).expect("a ring");
    let text = serde_json::to_string(&sender).expect("text");
    assert_eq!(text, format!("\"{}\"", sender.handle()));
    let mut read: Producer<u8> = serde_json::from_str(&text).expect("an end");
    assert_eq!(read.try_send(1), Err(TrySendError::Full(1)), "it stands by");
    drop(sender);
    read.send(1).expect("room");
    assert_eq!(receiver.recv(), Ok(1));
    assert!(serde_json::from_str::<Consumer<u16>>(&text).is_err(), "another type");
    drop(read);
    let error = serde_json::from_str::<Producer<u8>>(&text).expect_err("the role is gone");
    assert!(error.to_string().contains("gone"), "{error}");
}
