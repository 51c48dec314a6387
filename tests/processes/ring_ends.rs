//! The ends of a ring with one sender and one receiver in several processes: who is told that the
//! other side is gone, and who succeeds it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use offspring::spsc::{self, Consumer, Producer};
use offspring::{
    Child, Fault, RecvError, RecvTimeoutError, Segment, SendError, SendTimeoutError, TryRecvError,
    Wait, channel,
};

use crate::common::raw;
use crate::common::{PATIENCE, fork, sleep_for_ever, sleep_for_ever_returning_nothing, wait_until};
use crate::ends::OPEN;
use crate::harness::{apply, test};
use crate::victims::{child_that, end, kill};

fn ring(capacity: usize) -> (Producer<u64>, Consumer<u64>) {
    spsc::ring(capacity).expect("a ring")
}

#[track_caller]
fn stays_open(receiver: &mut Consumer<u64>) {
    assert_eq!(receiver.recv_timeout(OPEN), Err(RecvTimeoutError::Timeout));
    assert!(!receiver.is_disconnected());
}

#[track_caller]
fn is_disconnected(receiver: &mut Consumer<u64>) {
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert!(receiver.is_disconnected());
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
}

/// However one waits, and whatever the other does.
#[apply(test)]
fn every_way_to_wait_ends_with_the_other_side() {
    let ends: [(&str, fn()); 3] = [
        ("drops it", || ()),
        ("exits", || raw::exit(0)),
        ("is killed", || nix::sys::signal::raise(Signal::SIGKILL).expect("a signal")),
    ];
    for wait in [Wait::Spin, Wait::SpinThenSleep, Wait::Sleep] {
        for (how, end) in ends {
            let (mut sender, mut receiver) = ring(4);
            receiver.set_wait(wait);
            let child = fork(move || {
                (1..=3).for_each(|n| sender.send(n).expect("room"));
                std::thread::sleep(Duration::from_millis(30));
                end();
                drop(sender);
            })
            .expect("fork");
            for n in 1..=3 {
                assert_eq!(receiver.recv_timeout(PATIENCE), Ok(n), "{wait:?}, {how}");
            }
            let got = receiver.recv_timeout(PATIENCE);
            assert_eq!(got, Err(RecvTimeoutError::Disconnected), "{wait:?}, {how}");
            drop(child.join());

            let (mut sender, receiver) = ring(1);
            sender.set_wait(wait);
            sender.send(1).expect("room");
            let child = fork(move || {
                std::thread::sleep(Duration::from_millis(30));
                end();
                drop(receiver);
            })
            .expect("fork");
            let sent = sender.send_timeout(2, PATIENCE);
            assert_eq!(sent, Err(SendTimeoutError::Disconnected(2)), "{wait:?}, {how}");
            assert_eq!(sender.send(3), Err(SendError::Disconnected(3)), "{wait:?}, {how}");
            drop(child.join());
        }
    }
}

/// Nobody waits: whoever asks now and then learns it, too.
#[apply(test)]
fn whoever_polls_learns_of_the_death() {
    let (mut sender, mut receiver) = ring(1);
    let child = child_that(move |ready| {
        sender.send(1).expect("room");
        ready.send(0).expect("open");
        sleep_for_ever();
    });
    assert_eq!(receiver.recv(), Ok(1));
    assert!(!receiver.is_disconnected());
    kill(&child);
    wait_until("a receiver that polls learns it", || match receiver.try_recv() {
        Err(TryRecvError::Disconnected) => true,
        Err(TryRecvError::Empty) => false,
        other => panic!("{other:?}"),
    });
    assert!(child.join().is_err());

    let (mut sender, mut receiver) = ring(1);
    sender.send(1).expect("room");
    let child = child_that(move |ready| {
        ready.send(receiver.recv().expect("a message")).expect("open");
        sleep_for_ever();
    });
    assert!(!sender.is_disconnected());
    kill(&child);
    wait_until("a sender that asks learns it", || sender.is_disconnected());
    assert_eq!(sender.send(2), Err(SendError::Disconnected(2)), "there is room");
    assert!(child.join().is_err());
}

/// The one that supervises keeps an end that stands by, and makes a new child of it.
#[apply(test)]
fn senders_that_crash_are_replaced_and_nothing_is_lost_or_twice() {
    let (sender, mut receiver) = ring(4);
    let mut spare = sender.standby().expect("another end");
    let mut next = sender;
    let mut children = Vec::new();
    for turn in 0..5 {
        let mut sender = std::mem::replace(&mut next, spare.standby().expect("another end"));
        children.push(
            fork(move || {
                sender.send(turn).expect("a ring");
                raw::exit(7)
            })
            .expect("fork"),
        );
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(turn));
    }
    drop(next);
    stays_open(&mut receiver);
    spare.send_timeout(9, PATIENCE).expect("the last one is dead");
    drop(spare);
    assert_eq!(receiver.recv(), Ok(9));
    is_disconnected(&mut receiver);
    children.into_iter().for_each(|child: Child<()>| drop(child.join()));
}

/// It is woken by nobody, as the one whose role it wants is dead.
#[apply(test)]
fn an_end_that_stands_by_takes_over_from_the_dead_while_it_waits() {
    let (mut sender, receiver) = ring(4);
    let mut spare = receiver.standby().expect("another end");
    (1..=4).for_each(|n| sender.send(n).expect("room"));
    let reader = child_that(move |ready| {
        let mut receiver = receiver;
        ready.send(receiver.recv().expect("a message")).expect("open");
        sleep_for_ever();
    });
    let successor = fork(move || [(); 3].map(|()| spare.recv().expect("connected")));
    let successor = successor.expect("fork");
    std::thread::sleep(OPEN);
    kill(&reader);
    assert_eq!(successor.join().expect("well"), [2, 3, 4]);
    // Clears up after the last one that had an end.
    assert!(reader.join().is_err());
    assert_eq!(sender.send(5), Err(SendError::Disconnected(5)), "there is room, but nobody left");
}

/// After that nobody takes the role, however early it was.
#[apply(test)]
fn what_is_gone_is_not_taken_by_name() {
    let (mut sender, mut receiver) = ring(4);
    let (handle, segment) = (sender.handle(), Segment::commons().expect("the commons"));
    let child = child_that(move |ready| {
        // It takes its role at the first use.
        sender.send(1).expect("room");
        ready.send(0).expect("open");
        sleep_for_ever();
    });
    assert_eq!(Producer::<u64>::open(&segment, handle).unwrap_err(), Fault::RoleTaken);
    kill(&child);
    assert_eq!(receiver.recv(), Ok(1));
    is_disconnected(&mut receiver);
    assert_eq!(Producer::<u64>::open(&segment, handle).unwrap_err(), Fault::Stale);
    assert!(child.join().is_err());
}

/// A copy in a static or a frame of the parent is not the child's.
#[apply(test)]
fn an_end_that_was_not_captured_keeps_nothing_open() {
    static END: OnceLock<std::sync::Mutex<Producer<u64>>> = OnceLock::new();
    let (sender, mut receiver) = ring(4);
    let sender = END.get_or_init(|| std::sync::Mutex::new(sender));
    let child = fork(sleep_for_ever_returning_nothing).expect("fork");
    sender.lock().expect("sound").send(1).expect("room");
    let (other, _) = ring(1);
    // The static's end is dropped, with another one in its place.
    drop(std::mem::replace(&mut *sender.lock().expect("sound"), other));
    assert_eq!(receiver.recv(), Ok(1));
    is_disconnected(&mut receiver);
    end(child);
}

/// The child's copy of an end whose role is gone must not bring it back.
#[apply(test)]
fn a_copy_of_an_end_whose_role_is_gone_sends_nothing() {
    let (sender, mut receiver) = ring(4);
    let (go, wait) = channel::<()>(1).expect("a channel");
    let shared = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let theirs = std::sync::Arc::clone(&shared);
    let child = fork(move || {
        wait.recv().expect("connected");
        let mut sender = theirs.lock().expect("sound").take().expect("an end");
        (sender.try_send(1).is_err_and(|error| error.is_disconnected()), sender.is_disconnected())
    })
    .expect("fork");
    drop(shared.lock().expect("sound").take());
    is_disconnected(&mut receiver);
    go.send(()).expect("connected");
    assert_eq!(child.join().expect("well"), (true, true));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

/// A process that becomes another program has no ends any more, though its pid lives on.
#[apply(test)]
fn a_sender_that_becomes_another_program_is_gone() {
    let (mut sender, mut receiver) = ring(1);
    let child: Child<()> = fork(move || {
        sender.send(7).expect("connected");
        panic!("{}", std::process::Command::new("sleep").arg("infinity").exec())
    })
    .expect("fork");
    assert_eq!(receiver.recv(), Ok(7));
    is_disconnected(&mut receiver);
    assert!(child.is_alive());
    end(child);
}

/// To a worker that was there before the ring was made, and back in what it returns.
#[apply(test)]
fn an_end_goes_to_a_worker_in_a_message_and_comes_back_in_its_result() {
    let (jobs, taken) = channel::<Producer<u64>>(1).expect("a channel");
    let worker = fork(move || {
        let mut sender = taken.recv().expect("connected");
        (0..100).for_each(|n| sender.send(n).expect("connected"));
        sender
    })
    .expect("fork");
    let (sender, mut receiver) = ring(8);
    jobs.send(sender).expect("connected");
    (0..100).for_each(|n| assert_eq!(receiver.recv_timeout(PATIENCE), Ok(n)));
    stays_open(&mut receiver);
    let mut sender = worker.join().expect("well");
    sender.send(100).expect("connected");
    drop(sender);
    assert_eq!(receiver.recv(), Ok(100));
    is_disconnected(&mut receiver);
}

/// The message dies with the only process that could have received it.
#[apply(test)]
fn an_end_in_a_message_that_nobody_can_get_is_gone() {
    let (jobs, taken) = channel::<Producer<u64>>(1).expect("a channel");
    let (sender, mut receiver) = ring(8);
    let worker = child_that(move |ready| {
        let _taken = taken;
        ready.send(0).expect("open");
        sleep_for_ever();
    });
    jobs.send(sender).expect("connected");
    stays_open(&mut receiver);
    drop(jobs);
    stays_open(&mut receiver);
    kill(&worker);
    is_disconnected(&mut receiver);
    assert!(worker.join().is_err());
}

#[apply(test)]
fn a_ring_is_closed_for_the_other_process_too() {
    let (mut sender, mut receiver) = ring(2);
    let child = fork(move || receiver.iter().collect::<Vec<_>>()).expect("fork");
    (1..=5).for_each(|n| sender.send(n).expect("room"));
    sender.close();
    assert_eq!(sender.send(6), Err(SendError::Closed(6)));
    assert_eq!(child.join().expect("well"), [1, 2, 3, 4, 5]);
}

/// A process that other code made, and that comes to use its copies when the ring is gone.
#[apply(test)]
fn a_raw_fork_learns_that_the_ring_is_gone() {
    let (sender, receiver) = ring(4);
    let (mut told, mut tell) = std::io::pipe().expect("a pipe");
    // This process drops what the closure has.
    let child = raw::fork(move || {
        told.read_exact(&mut [0]).expect("the parent tells");
        assert!(sender.is_disconnected() && receiver.is_disconnected());
    });
    tell.write_all(&[0]).expect("the child listens");
    child.join();
}
