//! A process killed at a queue leaves nobody hanging, nothing torn, and loses nothing that was
//! sent.

use std::time::Duration;

use offspring::{
    Child, OnReceiverDeath, Queue, QueueOptions, RecvError, RecvTimeoutError, Segment,
    TryRecvError, spsc,
};

use crate::common::{self, fork};
use crate::harness::{apply, test};
use crate::victims::{child_that, kill, reader_of};

fn queue(capacity: usize, policy: OnReceiverDeath) -> Queue<u64> {
    QueueOptions::new().capacity(capacity).on_receiver_death(policy).create().expect("a queue")
}

#[apply(test)]
fn a_sender_killed_in_mid_send_has_sent_nothing_and_holds_nobody_up() {
    let queue = queue(4, OnReceiverDeath::Drop);
    queue.send(1).expect("open");
    let theirs = queue.clone();
    let child = child_that(move |ready| {
        let mut slot = theirs.reserve().expect("open");
        *slot = 666;
        ready.send(0).expect("open");
        common::sleep_for_ever();
    });
    queue.send(2).expect("open");
    assert_eq!(queue.recv(), Ok(1));
    assert_eq!(
        queue.try_recv(),
        Err(TryRecvError::Empty),
        "the second waits behind the claimed slot"
    );
    kill(&child);
    assert_eq!(queue.recv(), Ok(2));
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
    for lap in 0..3 {
        (0..4).for_each(|n| queue.try_send(lap * 4 + n).expect("every slot is free"));
        assert!(queue.is_full());
        (0..4).for_each(|n| assert_eq!(queue.try_recv(), Ok(lap * 4 + n)));
    }
    assert!(child.join().is_err());
}

#[apply(test)]
fn what_a_killed_sender_has_sent_is_received() {
    let queue = queue(64, OnReceiverDeath::Drop);
    for _ in 0..20 {
        let theirs = queue.clone();
        let sender =
            fork(move || (0..u64::MAX).for_each(|n| theirs.send(n).expect("open"))).expect("fork");
        for n in 0..500 {
            assert_eq!(queue.recv(), Ok(n));
        }
        kill(&sender);
        let mut next = 500;
        while let Ok(n) = queue.recv_timeout(Duration::from_millis(150)) {
            assert_eq!(n, next);
            next += 1;
        }
        assert!(sender.join().is_err());
        assert!(queue.is_empty());
    }
}

#[apply(test)]
fn a_receiver_killed_while_it_sleeps_absorbs_nothing() {
    let queue = queue(4, OnReceiverDeath::Drop);
    let sleepers: Vec<Child<()>> = (0..3)
        .map(|_| {
            let theirs = queue.clone();
            fork(move || theirs.recv().map(|_| ()).expect("open")).expect("fork")
        })
        .collect();
    sleepers.iter().for_each(|child| common::wait_until_asleep(child.id()));
    sleepers.iter().for_each(kill);
    let theirs = queue.clone();
    let living = fork(move || theirs.recv().expect("open")).expect("fork");
    common::wait_until_asleep(living.id());
    queue.send(7).expect("open");
    assert_eq!(living.join().expect("no panic"), 7);
    sleepers.into_iter().for_each(|child| assert!(child.join().is_err()));
}

#[apply(test)]
fn a_sender_killed_while_it_sleeps_holds_nobody_up() {
    let queue = queue(1, OnReceiverDeath::Drop);
    queue.send(1).expect("room");
    let theirs = queue.clone();
    let sleeper = fork(move || theirs.send(2).expect("open")).expect("fork");
    common::wait_until_asleep(sleeper.id());
    kill(&sleeper);
    assert_eq!(queue.recv(), Ok(1));
    queue.send(3).expect("room");
    assert_eq!(queue.recv(), Ok(3));
    assert!(sleeper.join().is_err());
}

#[apply(test)]
fn a_message_taken_by_a_killed_receiver_is_lost_and_counted() {
    let queue = queue(2, OnReceiverDeath::Drop);
    queue.send_many(&[1, 2]).expect("room");
    let reader = reader_of(&queue);
    kill(&reader);
    assert_eq!(queue.recv(), Ok(2));
    // The slot is found when it is needed.
    queue.send_many(&[3, 4]).expect("room");
    assert_eq!(queue.lost(), 1);
    assert_eq!((queue.recv(), queue.recv()), (Ok(3), Ok(4)));
    assert!(reader.join().is_err());
}

#[apply(test)]
fn a_message_taken_by_a_killed_receiver_is_delivered_again_and_flagged() {
    let queue = queue(2, OnReceiverDeath::Redeliver);
    queue.send_many(&[1, 2]).expect("room");
    let reader = reader_of(&queue);
    assert!(reader.is_alive());
    kill(&reader);
    assert!(reader.join().is_err());
    let again = queue.recv_ref().expect("open");
    assert_eq!((*again, again.redelivered()), (1, true));
    drop(again);
    let next = queue.recv_ref().expect("open");
    assert_eq!((*next, next.redelivered()), (2, false));
    drop(next);
    assert_eq!(queue.lost(), 0);
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
}

#[apply(test)]
fn a_receiver_that_waits_alone_finds_the_message_of_a_killed_one() {
    let queue = queue(8, OnReceiverDeath::Redeliver);
    queue.send(1).expect("room");
    let reader = reader_of(&queue);
    let theirs = queue.clone();
    let waiting = fork(move || theirs.recv().expect("open")).expect("fork");
    common::wait_until_asleep(waiting.id());
    kill(&reader);
    // Nobody joins the dead, nobody sends: the one who waits must find out by itself.
    assert_eq!(waiting.join().expect("no panic"), 1);
    assert!(reader.join().is_err());
}

#[apply(test)]
fn a_closed_queue_is_not_drained_while_a_message_may_come_back() {
    let queue = queue(2, OnReceiverDeath::Redeliver);
    queue.send(1).expect("room");
    let reader = reader_of(&queue);
    queue.close();
    assert_eq!(queue.recv_timeout(Duration::from_millis(60)), Err(RecvTimeoutError::Timeout));
    kill(&reader);
    let again = queue.recv_ref().expect("the message came back");
    assert_eq!((*again, again.redelivered()), (1, true));
    drop(again);
    assert_eq!(queue.recv(), Err(RecvError::Closed));
    assert!(reader.join().is_err());
}

#[apply(test)]
fn senders_behind_a_killed_receiver_go_on() {
    let queue = queue(1, OnReceiverDeath::Drop);
    queue.send(1).expect("room");
    let reader = reader_of(&queue);
    let theirs = queue.clone();
    let sender = fork(move || theirs.send(2).expect("open")).expect("fork");
    common::wait_until_asleep(sender.id());
    kill(&reader);
    sender.join().expect("no panic");
    assert_eq!((queue.recv(), queue.lost()), (Ok(2), 1));
    assert!(reader.join().is_err());
}

#[apply(test)]
fn attempts_that_do_not_wait_get_past_the_dead_too() {
    let queue = queue(1, OnReceiverDeath::Drop);
    queue.send(1).expect("room");
    let reader = reader_of(&queue);
    assert!(queue.try_send(2).expect_err("the slot is being read").is_full());
    kill(&reader);
    common::wait_until("an attempt finds out that the reader is dead", || {
        queue.try_send(2).is_ok()
    });
    assert_eq!(queue.try_recv(), Ok(2));
    assert!(reader.join().is_err());
}

#[apply(test)]
fn a_stopped_sender_is_not_taken_for_dead() {
    let queue = queue(4, OnReceiverDeath::Drop);
    let go_on = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_go_on) = (queue.clone(), go_on.clone());
    let sender = child_that(move |ready| {
        let mut slot = theirs.reserve().expect("open");
        slot.write(1);
        ready.send(0).expect("open");
        their_go_on.recv().expect("open");
        slot.commit();
    });
    sender.signal(19).expect("SIGSTOP");
    common::wait_until_stopped(sender.id());
    queue.send(2).expect("room");
    assert_eq!(queue.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    sender.signal(18).expect("SIGCONT");
    go_on.send(0).expect("open");
    assert_eq!((queue.recv(), queue.recv()), (Ok(1), Ok(2)));
    sender.join().expect("no panic");
}

#[apply(test)]
fn everybody_killed_in_turn_leaves_a_queue_that_works() {
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let queue = queue(5, policy);
        let spawn = |round: u64| {
            let theirs = queue.clone();
            let work = move || match round % 2 {
                0 => (0..u64::MAX).for_each(|n| theirs.send(n).expect("open")),
                _ => theirs.iter().for_each(drop),
            };
            fork(work).expect("fork")
        };
        let mut crew: Vec<Child<()>> = (0..4).map(spawn).collect();
        for round in 0..60 {
            std::thread::sleep(Duration::from_micros(round * 37 % 2000));
            let victim = crew.remove(0);
            kill(&victim);
            assert!(victim.join().is_err());
            crew.push(spawn(round));
        }
        for child in crew {
            kill(&child);
            assert!(child.join().is_err());
        }
        while queue.try_recv().is_ok() {}
        for n in 0..15 {
            queue.try_send(n).expect("room");
            assert_eq!(queue.try_recv(), Ok(n));
        }
    }
}

#[apply(test)]
fn a_segment_full_of_what_the_dead_left_has_room_again() {
    let segment = Segment::create(1 << 20).expect("a segment");
    for _ in 0..5 {
        let theirs = segment.clone();
        let child = child_that(move |ready| {
            let _held =
                Queue::<[u8; 1024]>::with_capacity_in(&theirs, 700).expect("most of the segment");
            ready.send(0).expect("open");
            common::sleep_for_ever();
        });
        kill(&child);
        let _fits = Queue::<[u8; 1024]>::with_capacity_in(&segment, 700)
            .expect("what the dead held is given back");
        assert!(child.join().is_err());
    }
    assert_eq!(segment.reap().expect("attached"), 0, "joining cleared everything");
}

#[apply(test)]
fn a_ring_of_two_is_taken_over_from_the_dead() {
    let (mut sender, receiver) = spsc::ring::<u64>(4).expect("a ring");
    let handle = receiver.handle();
    let _spare = receiver.standby().expect("another end");
    let ready = Queue::<u64>::with_capacity(1).expect("a queue");
    let theirs = ready.clone();
    let child = fork(move || {
        let mut receiver = receiver;
        theirs.send(receiver.recv().expect("a message")).expect("open");
        common::sleep_for_ever();
    });
    let child: Child<()> = child.expect("fork");
    (1..=4).for_each(|n| sender.send(n).expect("room"));
    assert_eq!(ready.recv(), Ok(1));
    let segment = Segment::commons().expect("the commons");
    assert!(spsc::Consumer::<u64>::open(&segment, handle).is_err(), "the child lives");
    kill(&child);
    let mut receiver = spsc::Consumer::<u64>::open(&segment, handle).expect("the role of the dead");
    assert_eq!((receiver.recv(), receiver.recv(), receiver.recv()), (Ok(2), Ok(3), Ok(4)));
    assert!(child.join().is_err());
}
