//! Channels within one process: threads instead of processes.

use std::time::{Duration, Instant};

use crate::{
    Receiver, RecvError, RecvTimeoutError, Segment, SendError, SendTimeoutError, Sender,
    TryRecvError, TrySendError, bytes, channel, plain,
};

#[test]
fn receivers_get_what_is_left_and_then_disconnected() {
    let (sender, receiver) = channel::<String>(4).expect("a channel");
    let another = sender.clone();
    sender.send("one".into()).expect("room");
    drop(sender);
    assert_eq!(receiver.recv().expect("one"), "one");
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)), "another is there");
    another.send("two".into()).expect("room");
    drop(another);
    assert_eq!(receiver.iter().collect::<Vec<_>>(), ["two"]);
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));
    let late = receiver.recv_timeout(Duration::from_secs(10));
    assert!(matches!(late, Err(RecvTimeoutError::Disconnected)));
}

#[test]
fn senders_get_their_value_back() {
    let (sender, receiver) = plain::channel::<u64>(1).expect("a channel");
    sender.send(1).expect("room");
    let another = receiver.clone();
    drop(receiver);
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    drop(another);
    assert_eq!(sender.try_send(2), Err(TrySendError::Disconnected(2)));
    assert_eq!(sender.send(3), Err(SendError::Disconnected(3)));
}

const SHORT: Duration = Duration::from_millis(20);

/// Of each kind of channel: every way to send, to a full channel, too, and what comes out.
#[test]
fn every_way_to_send_sends() {
    let (sender, receiver) = plain::channel::<u64>(4).expect("a channel");
    sender.send(1).expect("room");
    sender.try_send(2).expect("room");
    sender.send_timeout(3, SHORT).expect("room");
    sender.send_deadline(4, Instant::now() + SHORT).expect("room");
    assert_eq!(sender.send_timeout(5, SHORT), Err(SendTimeoutError::Timeout(5)));
    let start = Instant::now();
    assert_eq!(sender.send_deadline(5, start + SHORT), Err(SendTimeoutError::Timeout(5)));
    assert!(start.elapsed() >= SHORT);
    assert!(format!("{sender:?} {receiver:?}").contains("queue"));
    drop(sender);
    let mut iter = receiver.iter();
    assert_eq!(iter.end(), None);
    assert_eq!(iter.by_ref().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(iter.end(), Some(RecvError::Disconnected));

    let (sender, receiver) = channel::<String>(4).expect("a channel");
    sender.send("a".into()).expect("room");
    sender.try_send("b".into()).expect("room");
    sender.send_timeout("c".into(), SHORT).expect("room");
    sender.send_deadline("d".into(), Instant::now() + SHORT).expect("room");
    let full = sender.try_send("e".into());
    assert!(matches!(full, Err(TrySendError::Full(back)) if back == "e"));
    let late = sender.send_timeout("e".into(), SHORT);
    assert!(matches!(late, Err(SendTimeoutError::Timeout(back)) if back == "e"));
    let late = sender.send_deadline("e".into(), Instant::now());
    assert!(matches!(late, Err(SendTimeoutError::Timeout(back)) if back == "e"));
    assert!(format!("{sender:?} {receiver:?}").contains("queue"));
    drop(sender);
    let mut iter = receiver.iter();
    assert!(iter.end().is_none());
    assert_eq!(iter.by_ref().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert!(matches!(iter.end(), Some(RecvError::Disconnected)));

    let (sender, receiver) = bytes::channel(5).expect("a channel");
    sender.send(&[1; 100]).expect("room");
    sender.try_send(&[2]).expect("room");
    sender.send_timeout(&[3], SHORT).expect("room");
    sender.send_deadline(&[4], Instant::now() + SHORT).expect("room");
    sender.send_from(&[5; 300][..], 300).expect("room");
    assert!(matches!(sender.try_send(&[6]), Err(TrySendError::Full(()))));
    assert!(matches!(sender.send_timeout(&[6], SHORT), Err(SendTimeoutError::Timeout(()))));
    let late = sender.send_deadline(&[6], Instant::now());
    assert!(matches!(late, Err(SendTimeoutError::Timeout(()))));
    assert!(format!("{sender:?} {receiver:?}").contains("queue"));
    drop(sender);
    let mut buffer = Vec::new();
    assert_eq!((receiver.recv_into(&mut buffer), &*buffer), (Ok(100), &[1; 100][..]));
    let mut iter = receiver.iter();
    assert_eq!(iter.end(), None);
    let rest: Vec<Vec<u8>> = iter.by_ref().map(|message| message.to_vec()).collect();
    assert_eq!(rest, [vec![2], vec![3], vec![4], vec![5; 300]]);
    assert_eq!(iter.end(), Some(RecvError::Disconnected));
}

/// A block's bytes are what its last owner left there.
#[test]
fn a_new_channel_has_no_ends_but_its_own() {
    let segment = Segment::create(1 << 16).expect("a segment");
    for len in (64..=8192).step_by(64) {
        drop(crate::ShmBox::from_fn_in(&segment, len, |_| 0xff_u8).expect("room"));
    }
    let mut options = crate::QueueOptions::new();
    options.capacity(1);
    let (sender, receiver) = options.create_plain_channel_in::<u64>(&segment).expect("a channel");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    drop(sender);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    let (sender, receiver) = options.create_plain_channel_in::<u64>(&segment).expect("a channel");
    drop(receiver);
    assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));
}

#[test]
fn a_drop_wakes_those_who_wait() {
    let (sender, receiver) = bytes::channel(1).expect("a channel");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| receiver.recv().map(|message| message.len()));
        std::thread::sleep(Duration::from_millis(30));
        drop(sender);
        assert_eq!(waiter.join().expect("no panic"), Err(RecvError::Disconnected));
    });
    let (sender, receiver) = bytes::channel(1).expect("a channel");
    sender.send(&[1; 500]).expect("room");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| sender.send(&[2; 500]).expect_err("nobody").is_disconnected());
        std::thread::sleep(Duration::from_millis(30));
        drop(receiver);
        assert!(waiter.join().expect("no panic"));
    });
}

#[test]
fn the_order_in_which_ends_go_does_not_matter() {
    for seed in 0..64_u32 {
        let (sender, receiver) = plain::channel::<u32>(4).expect("a channel");
        let mut senders = vec![sender];
        let mut receivers = vec![receiver];
        for bit in 0..6 {
            if seed & 1 << bit == 0 {
                senders.push(senders[0].clone());
            } else {
                receivers.push(receivers[0].clone());
            }
        }
        while senders.len() > 1 {
            senders.swap_remove(seed as usize % senders.len());
            senders[0].try_send(0).expect("still connected, and room");
            receivers[0].recv().expect("a message");
        }
        drop(senders);
        assert_eq!(receivers[0].recv(), Err(RecvError::Disconnected));
    }
}

#[test]
fn a_channel_leaves_nothing_behind() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let mut options = crate::QueueOptions::new();
    let options = options.capacity(8);
    let (sender, receiver) = options.create_channel_in::<Vec<u8>>(&segment).expect("a channel");
    sender.send(vec![7; 10_000]).expect("room");
    sender.send(vec![8; 10_000]).expect("room");
    drop(receiver);
    assert!(sender.send(vec![9; 10_000]).expect_err("nobody").is_disconnected());
    drop(sender);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn an_end_in_a_message_keeps_its_channel_connected() {
    let (posts, post) = channel::<Sender<u64>>(4).expect("a channel");
    let (sender, receiver) = channel::<u64>(4).expect("a channel");
    posts.send(sender).map_err(|error| error.to_string()).expect("room");
    assert!(receiver.try_recv().expect_err("nothing yet").is_empty());
    let sender = post.recv().expect("sent");
    sender.send(7).expect("connected");
    drop(sender);
    assert_eq!(receiver.recv().expect("sent"), 7);
    assert!(receiver.recv().expect_err("the last one is gone").is_disconnected());
}

#[test]
fn ends_that_go_with_their_message_disconnect_the_channel() {
    let (posts, post) = channel::<(Receiver<u64>, plain::Sender<u64>)>(4).expect("a channel");
    let (sender, receiver) = channel::<u64>(4).expect("a channel");
    let (plain_sender, plain_receiver) = plain::channel::<u64>(4).expect("a channel");
    posts.send((receiver, plain_sender)).map_err(|error| error.to_string()).expect("room");
    sender.send(1).expect("the message has the other end");
    assert!(plain_receiver.try_recv().expect_err("nothing yet").is_empty());
    drop(post);
    // The message went with the last receiver.
    assert!(matches!(
        posts.send((channel(1).expect("a channel").1, plain::channel(1).expect("a channel").0)),
        Err(SendError::Disconnected(_))
    ));
    drop(posts);
    assert!(matches!(sender.send(2), Err(SendError::Disconnected(2))));
    assert!(plain_receiver.recv().expect_err("gone").is_disconnected());
}

#[test]
fn every_end_travels_and_only_as_what_it_is() {
    let (posts, post) =
        channel::<(bytes::Sender, bytes::Receiver, plain::Receiver<u8>, Receiver<String>)>(1)
            .expect("a channel");
    let (byte_sender, byte_receiver) = bytes::channel(1).expect("a channel");
    let (plain_sender, plain_receiver) = plain::channel::<u8>(1).expect("a channel");
    let (sender, receiver) = channel::<String>(1).expect("a channel");
    sender.send("text".into()).expect("room");
    plain_sender.send(7).expect("room");
    byte_sender.send(b"bytes").expect("room");
    posts
        .send((byte_sender, byte_receiver, plain_receiver, receiver))
        .map_err(|error| error.to_string())
        .expect("room");
    let (byte_sender, byte_receiver, plain_receiver, receiver) = post.recv().expect("sent");
    assert_eq!(receiver.recv().expect("sent"), "text");
    assert_eq!(plain_receiver.recv(), Ok(7));
    assert_eq!(*byte_receiver.recv().expect("sent"), *b"bytes");
    drop(byte_sender);
    assert!(byte_receiver.recv().expect_err("gone").is_disconnected());
}

#[test]
fn an_end_in_a_message_of_its_own_channel_counts_until_it_is_received() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Own(Option<Sender<Own>>);
    let (sender, receiver) = channel::<Own>(2).expect("a channel");
    sender.send(Own(None)).map_err(|error| error.to_string()).expect("room");
    let own = Own(Some(sender.clone()));
    sender.send(own).map_err(|error| error.to_string()).expect("room");
    drop(sender);
    assert!(receiver.recv().expect("sent").0.is_none());
    let last = receiver.recv().expect("sent").0.expect("the last end");
    assert!(receiver.try_recv().expect_err("connected by it").is_empty());
    drop(last);
    assert!(receiver.recv().expect_err("gone").is_disconnected());
}

#[test]
fn outside_of_messages_an_end_is_a_name_that_opens_one_while_the_role_is_there() {
    let (sender, receiver) = channel::<u64>(1).expect("a channel");
    let text = serde_json::to_string(&sender).expect("text");
    let another: Sender<u64> = serde_json::from_str(&text).expect("there");
    drop(sender);
    another.send(7).expect("connected");
    drop(another);
    assert!(serde_json::from_str::<Sender<u64>>(&text).is_err(), "that role is gone");
    assert!(serde_json::from_str::<Sender<u32>>(&text).is_err(), "of another type");
    assert_eq!(receiver.recv().expect("sent"), 7);
    drop(receiver);
    assert!(serde_json::from_str::<Receiver<u64>>(&text).is_err(), "the channel is gone");
}

#[test]
fn each_end_sees_whether_the_others_are_there() {
    macro_rules! sees {
        ($($channel:tt)*) => {
            let (sender, receiver) = $($channel)*(2).expect("a channel");
            assert!(!sender.is_disconnected() && !receiver.is_disconnected());
            let (another, one_more) = (sender.clone(), receiver.clone());
            drop((sender, receiver));
            assert!(!another.is_disconnected() && !one_more.is_disconnected());
            drop(one_more);
            assert!(another.is_disconnected(), "no receiver");
            assert!(another.clone().is_disconnected());

            let (sender, receiver) = $($channel)*(2).expect("a channel");
            drop(sender);
            assert!(receiver.is_disconnected(), "no sender");
        };
    }
    sees!(channel::<String>);
    sees!(plain::channel::<u64>);
    sees!(bytes::channel);
}

#[test]
fn a_receiver_without_senders_may_still_have_messages() {
    let (sender, receiver) = plain::channel::<u64>(2).expect("a channel");
    sender.send(7).expect("room");
    drop(sender);
    assert!(receiver.is_disconnected());
    assert_eq!(receiver.recv(), Ok(7));
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
}

/// No receiver learns that nothing more comes and then gets something.
#[test]
fn a_loan_is_no_end() {
    for len in [10, 1000] {
        let (sender, receiver) = bytes::channel(2).expect("a channel");
        let loan = sender.loan(len).expect("room");
        loan.send().expect("connected");
        let loan = sender.loan(len).expect("room");
        drop(sender);
        assert!(receiver.is_disconnected());
        assert_eq!(receiver.iter().map(|message| message.len()).collect::<Vec<_>>(), [len]);
        assert!(loan.send().expect_err("no sender").is_disconnected());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));
    }
}

/// It once said that there was no memory, for ever.
#[test]
fn what_nobody_receives_is_refused_for_that_reason() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let options = crate::QueueOptions::new();
    let (sender, receiver) = options.create_bytes_channel_in(&segment).expect("a channel");
    assert!(matches!(sender.send(&[0; 2 << 20]), Err(SendError::Rejected(..))));
    drop(receiver);
    assert!(sender.send(&[0; 2 << 20]).expect_err("nobody").is_disconnected());
}
