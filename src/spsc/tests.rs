//! The ring within one process: threads instead of processes.

use super::*;

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
