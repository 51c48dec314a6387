//! Who sleeps is woken by whoever brings what it waits for; and if that one is killed before the
//! wake-up, by the end of a slice of sleep.
//!
//! Each of the two hides the other. A slice of sleep ends soon, so nobody misses the wake-up that
//! is never sent; and a wake-up comes nearly always, so nobody misses the slice. Here they are
//! taken apart. The sleeper is traced, and the first sleep of it has no end but by being woken; or
//! it has slept in vain so often that its slices are as long as they get, and its waker is killed
//! at the system call that would wake it.
//!
//! x86-64 only, as `step_kill`.

use std::time::Duration;

use offspring::{
    Event, Lock, OnReceiverDeath, Queue, QueueOptions, RecvError, Segment, SendError, Wait, spsc,
};

use crate::common;
use crate::common::trace::{Tracee, mark};
use crate::harness::{apply, test};

/// Times that a sleeper finds nothing. Slices that doubled each time would have come to a
/// minute.
const IN_VAIN: usize = 13;
/// No slice is longer. Far more than any is, and far less than anybody would wait for.
const LONG: Duration = Duration::from_secs(1);
/// Within this time somebody goes on whom only the end of a slice helps: no promise on time, a
/// watchdog.
const STUCK: Duration = Duration::from_secs(20);

/// A process that waits for something.
struct Sleeper(Tracee);

impl Sleeper {
    /// Starts one whose first sleep ends only when it is woken; it sleeps when this returns.
    fn until_woken(operation: impl FnOnce()) -> Sleeper {
        let mut sleeper = Sleeper::before_its_first_sleep(operation);
        sleeper.0.wait_without_end();
        common::wait_until_asleep(sleeper.0.pid().as_raw().cast_unsigned());
        sleeper
    }

    /// Starts one that has slept in vain many times; it sleeps when this returns, as long as
    /// the crate lets it.
    fn for_a_slice(operation: impl FnOnce()) -> Sleeper {
        let mut sleeper = Sleeper::before_its_first_sleep(operation);
        for _ in 0..IN_VAIN {
            sleeper.0.skip_call(-i64::from(libc::ETIMEDOUT));
            assert!(sleeper.0.run_to_futex(libc::FUTEX_WAIT), "it gave up");
        }
        sleeper.0.go_on(None);
        common::wait_until_asleep(sleeper.0.pid().as_raw().cast_unsigned());
        sleeper
    }

    fn before_its_first_sleep(operation: impl FnOnce()) -> Sleeper {
        let mut tracee = Tracee::start(|| {
            mark();
            operation();
        });
        assert!(tracee.run_to_futex(libc::FUTEX_WAIT), "it does not sleep");
        Sleeper(tracee)
    }

    /// Says whether it was woken. It stands at the end of its sleep then, and has not acted on
    /// it.
    fn is_woken(&mut self) -> bool {
        let returned = self.0.returned();
        assert!(returned.is_none_or(|result| result == 0), "the sleep ended with {returned:?}");
        returned.is_some()
    }

    /// Is woken, and does what it waited for.
    #[track_caller]
    fn goes_on_when_woken(mut self, by: &str) {
        common::wait_until(&format!("the sleeper is woken by {by}"), || self.is_woken());
        self.goes_on_from_its_wake_up();
    }

    #[track_caller]
    fn goes_on_from_its_wake_up(self) {
        self.0.go_on(None);
        self.goes_on();
    }

    #[track_caller]
    fn goes_on(mut self) {
        let start = std::time::Instant::now();
        let ended = loop {
            match self.0.look_for_end() {
                Some(ended) => break ended,
                None => assert!(
                    start.elapsed() < STUCK,
                    "the sleeper still sleeps after {} s",
                    STUCK.as_secs()
                ),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(
            ended,
            nix::sys::wait::WaitStatus::Exited(self.0.pid(), 0),
            "the sleeper ended in another way"
        );
    }
}

/// Of several sleepers, takes out one that was woken.
#[track_caller]
fn take_woken(sleepers: &mut Vec<Sleeper>, by: &str) -> Sleeper {
    let mut woken = None;
    common::wait_until(&format!("one of the sleepers is woken by {by}"), || {
        woken = sleepers.iter_mut().position(Sleeper::is_woken);
        woken.is_some()
    });
    sleepers.remove(woken.expect("one was"))
}

fn segment() -> Segment {
    Segment::create(1 << 16).expect("a segment")
}

fn queue_with(segment: &Segment, capacity: usize, policy: OnReceiverDeath) -> Queue<u64> {
    let mut options = QueueOptions::new();
    options.capacity(capacity).on_receiver_death(policy).wait(Wait::Sleep);
    options.create_in(segment).expect("a queue")
}

fn queue(segment: &Segment, capacity: usize) -> Queue<u64> {
    queue_with(segment, capacity, OnReceiverDeath::Drop)
}

fn full(segment: &Segment, capacity: usize) -> Queue<u64> {
    let queue = queue(segment, capacity);
    (0..capacity as u64).for_each(|n| queue.try_send(n).expect("room"));
    queue
}

type Act = (&'static str, fn(&Queue<u64>));

#[apply(test)]
fn a_sleeping_receiver_is_woken_by_whatever_brings_a_message() {
    let acts: [Act; 8] = [
        ("send", |queue| queue.send(7).expect("open")),
        ("try_send", |queue| queue.try_send(7).expect("room")),
        ("send_timeout", |queue| queue.send_timeout(7, LONG).expect("room")),
        ("commit", |queue| {
            let mut slot = queue.reserve().expect("open");
            slot.write(7);
            slot.commit();
        }),
        ("commit after try_reserve", |queue| {
            let mut slot = queue.try_reserve().expect("room");
            slot.write(7);
            slot.commit();
        }),
        ("send_many", |queue| queue.send_many(&[7, 8]).expect("open")),
        ("try_send_many", |queue| queue.try_send_many(&[7, 8]).expect("room")),
        ("send_many_timeout", |queue| queue.send_many_timeout(&[7, 8], LONG).expect("room")),
    ];
    let ways: [fn(&Queue<u64>); 3] = [
        |queue| assert_eq!(queue.recv(), Ok(7)),
        |queue| assert_eq!(*queue.recv_ref().expect("open"), 7),
        |queue| assert!(queue.recv_many(&mut Vec::new(), 1).is_ok()),
    ];
    let segment = segment();
    for (turn, (name, act)) in acts.into_iter().enumerate() {
        let queue = queue(&segment, 4);
        let sleeper = Sleeper::until_woken(|| ways[turn % ways.len()](&queue));
        act(&queue);
        sleeper.goes_on_when_woken(name);
    }
}

#[apply(test)]
fn a_sleeping_receiver_is_woken_by_whatever_ends_the_wait_behind_a_reservation() {
    let segment = segment();
    for commits in [false, true] {
        let queue = queue(&segment, 4);
        let mut slot = queue.try_reserve().expect("room");
        queue.try_send(2).expect("room");
        let sleeper =
            Sleeper::until_woken(|| assert_eq!(queue.recv(), Ok(if commits { 1 } else { 2 })));
        slot.write(1);
        if commits {
            slot.commit()
        } else {
            drop(slot)
        }
        sleeper.goes_on_when_woken(if commits {
            "the commit"
        } else {
            "the end of the reservation"
        });
    }
}

#[apply(test)]
fn a_sleeping_sender_is_woken_by_whatever_frees_a_slot() {
    let acts: [Act; 8] = [
        ("recv", |queue| assert_eq!(queue.recv(), Ok(0))),
        ("try_recv", |queue| assert_eq!(queue.try_recv(), Ok(0))),
        ("recv_timeout", |queue| assert_eq!(queue.recv_timeout(LONG), Ok(0))),
        ("the end of recv_ref", |queue| drop(queue.recv_ref().expect("a message"))),
        ("the end of try_recv_ref", |queue| drop(queue.try_recv_ref().expect("a message"))),
        ("recv_many", |queue| assert_eq!(queue.recv_many(&mut Vec::new(), 2), Ok(2))),
        ("try_recv_many", |queue| assert_eq!(queue.try_recv_many(&mut Vec::new(), 2), Ok(2))),
        ("recv_many_timeout", |queue| {
            assert_eq!(queue.recv_many_timeout(&mut Vec::new(), 2, LONG), Ok(2))
        }),
    ];
    let ways: [fn(&Queue<u64>); 3] = [
        |queue| queue.send(7).expect("open"),
        |queue| drop(queue.reserve().expect("open")),
        |queue| queue.send_many(&[7]).expect("open"),
    ];
    let segment = segment();
    for (turn, (name, act)) in acts.into_iter().enumerate() {
        let queue = full(&segment, 2);
        let sleeper = Sleeper::until_woken(|| ways[turn % ways.len()](&queue));
        act(&queue);
        sleeper.goes_on_when_woken(name);
    }
    let queue = queue(&segment, 1);
    let slot = queue.try_reserve().expect("room");
    let sleeper = Sleeper::until_woken(|| queue.send(7).expect("open"));
    drop(slot);
    sleeper.goes_on_when_woken("the end of a reservation");
}

#[apply(test)]
fn a_sleeping_waiter_is_woken_by_an_unlock() {
    let segment = segment();
    let lock = Lock::new_in(&segment, 5_u64).expect("a lock").with_wait(Wait::Sleep);
    let guard = lock.lock().expect("free");
    let sleepers = [(); 2].map(|()| Sleeper::until_woken(|| *lock.lock().expect("clean") += 1));
    drop(guard);
    // The second is woken by the first.
    sleepers.into_iter().for_each(|sleeper| sleeper.goes_on_when_woken("the unlock"));
    assert_eq!(*lock.try_lock().expect("free"), 7);
}

#[apply(test)]
fn sleeping_ends_of_a_ring_are_woken_by_each_other() {
    let segment = segment();
    let acts: [fn(&mut spsc::Producer<u64>); 2] =
        [|sender| sender.send(7).expect("a ring"), |sender| sender.try_send(7).expect("room")];
    for act in acts {
        let (mut sender, receiver) = spsc::ring_in::<u64>(&segment, 2).expect("a ring");
        let (handle, _spare) = (sender.handle(), receiver.standby().expect("another end"));
        drop(receiver);
        let sleeper = Sleeper::until_woken(|| {
            let mut receiver =
                spsc::Consumer::<u64>::open(&segment, handle).expect("the role is free");
            receiver.set_wait(Wait::Sleep);
            assert_eq!(receiver.recv(), Ok(7));
        });
        act(&mut sender);
        sleeper.goes_on_when_woken("the sender");
    }
    let acts: [fn(&mut spsc::Consumer<u64>); 2] = [
        |receiver| assert_eq!(receiver.recv(), Ok(1)),
        |receiver| assert_eq!(receiver.try_recv(), Ok(1)),
    ];
    for act in acts {
        let (mut sender, mut receiver) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
        let (handle, _spare) = (sender.handle(), sender.standby().expect("another end"));
        sender.try_send(1).expect("room");
        drop(sender);
        let sleeper = Sleeper::until_woken(|| {
            let mut sender =
                spsc::Producer::<u64>::open(&segment, handle).expect("the role is free");
            sender.set_wait(Wait::Sleep);
            sender.send(2).expect("a ring");
        });
        act(&mut receiver);
        sleeper.goes_on_when_woken("the receiver");
    }
}

/// By a drop or a close of the other side, and an end that stands by when it gets its role.
#[apply(test)]
fn the_end_of_one_side_of_a_ring_wakes_the_other() {
    let segment = segment();
    for closes in [false, true] {
        let error = if closes { RecvError::Closed } else { RecvError::Disconnected };
        let (mut sender, receiver) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
        let (handle, _spare) = (sender.handle(), receiver.standby().expect("another end"));
        drop(receiver);
        let sleeper = Sleeper::until_woken(|| {
            let mut receiver =
                spsc::Consumer::<u64>::open(&segment, handle).expect("the role is free");
            receiver.set_wait(Wait::Sleep);
            assert_eq!(receiver.recv(), Err(error));
        });
        if closes {
            sender.close();
        }
        drop(sender);
        sleeper.goes_on_when_woken("the end of the sender");
    }
    for closes in [false, true] {
        let error = if closes { SendError::Closed(2) } else { SendError::Disconnected(2) };
        let (mut sender, mut receiver) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
        let (handle, _spare) = (sender.handle(), sender.standby().expect("another end"));
        sender.try_send(1).expect("room");
        drop(sender);
        let sleeper = Sleeper::until_woken(|| {
            let mut sender =
                spsc::Producer::<u64>::open(&segment, handle).expect("the role is free");
            sender.set_wait(Wait::Sleep);
            assert_eq!(sender.send(2), Err(error));
        });
        if closes {
            receiver.close();
        }
        drop(receiver);
        sleeper.goes_on_when_woken("the end of the receiver");
    }
    let (sender, mut receiver) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
    let sleeper = Sleeper::until_woken(|| {
        let mut spare = sender.standby().expect("another end");
        spare.set_wait(Wait::Sleep);
        spare.send(7).expect("a ring");
    });
    drop(sender);
    sleeper.goes_on_when_woken("the one that had the role");
    assert_eq!(receiver.recv(), Ok(7));
}

#[apply(test)]
fn closing_wakes_everybody() {
    let segment = segment();
    let empty = queue(&segment, 1);
    let full = full(&segment, 1);
    let receivers =
        [(); 2].map(|()| Sleeper::until_woken(|| assert_eq!(empty.recv(), Err(RecvError::Closed))));
    let senders = [(); 2]
        .map(|()| Sleeper::until_woken(|| assert_eq!(full.send(2), Err(SendError::Closed(2)))));
    empty.close();
    full.close();
    receivers
        .into_iter()
        .chain(senders)
        .for_each(|sleeper| sleeper.goes_on_when_woken("the closing"));
}

/// Lets another process claim something, and kills it.
fn claimed_by_the_dead(claim: impl FnOnce()) {
    let tracee = Tracee::start(|| {
        claim();
        mark();
    });
    tracee.kill();
}

#[apply(test)]
fn clearing_up_after_the_dead_wakes_who_sleeps_behind_them() {
    let segment = segment();
    let reserved = queue(&segment, 4);
    let read = full(&segment, 1);
    let again = queue_with(&segment, 4, OnReceiverDeath::Redeliver);
    again.try_send(3).expect("room");
    let lock = Lock::new_in(&segment, 5_u64).expect("a lock").with_wait(Wait::Sleep);
    claimed_by_the_dead(|| {
        std::mem::forget(reserved.try_reserve().expect("room"));
        std::mem::forget(read.try_recv_ref().expect("a message"));
        std::mem::forget(again.try_recv_ref().expect("a message"));
        std::mem::forget(lock.lock().expect("free"));
    });
    reserved.try_send(1).expect("room");
    let sleepers = [
        Sleeper::until_woken(|| assert_eq!(reserved.recv(), Ok(1))),
        Sleeper::until_woken(|| read.send(2).expect("open")),
        Sleeper::until_woken(|| assert!(again.recv_ref().expect("open").redelivered())),
        Sleeper::until_woken(|| assert!(lock.lock().expect_err("the owner died").is_owner_died())),
    ];
    assert_eq!(segment.reap(), Ok(1));
    sleepers.into_iter().for_each(|sleeper| sleeper.goes_on_when_woken("the reaper"));
}

#[apply(test)]
fn a_sender_passes_on_a_wake_up_that_killed_senders_took_with_them() {
    let segment = segment();
    let queue = full(&segment, 3);
    let mut sleepers: Vec<Sleeper> =
        (0..3).map(|_| Sleeper::until_woken(|| queue.send(7).expect("open"))).collect();
    for n in 0..2 {
        assert_eq!(queue.recv(), Ok(n));
        // Woken, and killed before it does anything: the slot stays free, and nobody else is
        // told.
        take_woken(&mut sleepers, "recv").0.kill();
    }
    queue.try_send(8).expect("two slots are free");
    take_woken(&mut sleepers, "a sender that leaves a slot").goes_on_from_its_wake_up();
    assert_eq!((queue.try_recv(), queue.try_recv(), queue.try_recv()), (Ok(2), Ok(8), Ok(7)));
}

#[apply(test)]
fn a_receiver_passes_on_a_wake_up_that_killed_receivers_took_with_them() {
    let segment = segment();
    let queue = queue(&segment, 3);
    let mut sleepers: Vec<Sleeper> =
        (0..3).map(|_| Sleeper::until_woken(|| assert_eq!(queue.recv(), Ok(1)))).collect();
    for n in 0..2 {
        queue.send(n).expect("open");
        take_woken(&mut sleepers, "send").0.kill();
    }
    assert_eq!(queue.try_recv(), Ok(0));
    take_woken(&mut sleepers, "a receiver that leaves a message").goes_on_from_its_wake_up();
}

#[apply(test)]
fn the_last_message_of_a_closed_queue_wakes_all_who_wait_whether_it_comes_back() {
    let segment = segment();
    let queue = queue_with(&segment, 2, OnReceiverDeath::Redeliver);
    queue.try_send(1).expect("room");
    let message = queue.try_recv_ref().expect("a message");
    queue.close();
    let sleepers =
        [(); 2].map(|()| Sleeper::until_woken(|| assert_eq!(queue.recv(), Err(RecvError::Closed))));
    drop(message);
    sleepers
        .into_iter()
        .for_each(|sleeper| sleeper.goes_on_when_woken("the end of the last message"));
}

#[apply(test)]
fn no_sleep_is_longer_than_a_slice() {
    let segment = segment();
    let (empty, behind, full) = (queue(&segment, 1), queue(&segment, 2), full(&segment, 1));
    let _slot = behind.try_reserve().expect("room");
    let lock = Lock::new_in(&segment, 5_u64).expect("a lock").with_wait(Wait::Sleep);
    let _guard = lock.lock().expect("free");
    let (sender, receiver) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
    let (handle, _spare) = (sender.handle(), receiver.standby().expect("another end"));
    drop(receiver);
    let (gate, turn) = (manual(&segment), auto(&segment));
    let sleepers: [(&str, &dyn Fn()); 8] = [
        ("recv", &|| _ = empty.recv()),
        ("recv behind a reservation", &|| _ = behind.recv()),
        ("send", &|| _ = full.send(1)),
        ("lock", &|| drop(lock.lock())),
        ("wait", &|| _ = gate.wait()),
        ("wait_timeout", &|| _ = turn.wait_timeout(1000 * STUCK)),
        ("recv_many_timeout", &|| _ = empty.recv_many_timeout(&mut Vec::new(), 1, 1000 * STUCK)),
        ("recv of a ring", &|| {
            _ = spsc::Consumer::<u64>::open(&segment, handle).map(|mut end| end.recv())
        }),
    ];
    for (name, operation) in sleepers {
        let mut tracee = Sleeper::before_its_first_sleep(operation).0;
        for turn in 0..IN_VAIN {
            let time = tracee.timeout();
            assert!(time < LONG, "sleep {turn} of {name} lasts {time:?} unless somebody ends it");
            tracee.skip_call(-i64::from(libc::ETIMEDOUT));
            assert!(tracee.run_to_futex(libc::FUTEX_WAIT), "{name} gave up");
        }
    }
}

/// Kills the process that does `operation` at the system call by which it wakes others.
fn killed_at_its_wake_up(operation: impl FnOnce()) {
    let mut waker = Tracee::start(|| {
        mark();
        operation();
    });
    assert!(waker.run_to_futex(libc::FUTEX_WAKE), "it wakes nobody");
    waker.kill();
}

#[apply(test)]
fn a_receiver_whose_waker_is_killed_at_the_wake_up_goes_on() {
    let segment = segment();
    let queue = queue(&segment, 1);
    let sleeper = Sleeper::for_a_slice(|| assert_eq!(queue.recv(), Ok(7)));
    killed_at_its_wake_up(|| queue.send(7).expect("open"));
    sleeper.goes_on();
}

#[apply(test)]
fn a_sender_whose_waker_is_killed_at_the_wake_up_goes_on() {
    let segment = segment();
    let queue = full(&segment, 1);
    let sleeper = Sleeper::for_a_slice(|| queue.send(7).expect("open"));
    killed_at_its_wake_up(|| assert_eq!(queue.recv(), Ok(0)));
    sleeper.goes_on();
    assert_eq!(queue.try_recv(), Ok(7));
}

#[apply(test)]
fn a_waiter_whose_waker_is_killed_at_the_wake_up_goes_on() {
    let segment = segment();
    let lock = Lock::new_in(&segment, 5_u64).expect("a lock").with_wait(Wait::Sleep);
    let mut owner = Tracee::start(|| {
        mark();
        let guard = lock.lock().expect("free");
        mark();
        drop(guard);
    });
    owner.run_to_mark();
    let sleeper = Sleeper::for_a_slice(|| assert_eq!(*lock.lock().expect("clean"), 5));
    assert!(owner.run_to_futex(libc::FUTEX_WAKE), "it wakes nobody");
    owner.kill();
    sleeper.goes_on();
}

#[apply(test)]
fn a_receiver_behind_a_killed_one_that_took_its_wake_up_goes_on() {
    let segment = segment();
    let queue = queue(&segment, 1);
    let mut first = vec![Sleeper::until_woken(|| _ = queue.recv())];
    let second = Sleeper::for_a_slice(|| assert_eq!(queue.recv(), Ok(7)));
    queue.send(7).expect("open");
    take_woken(&mut first, "send").0.kill();
    second.goes_on();
}

fn manual(segment: &Segment) -> Event {
    Event::new_in(segment).expect("an event").with_wait(Wait::Sleep)
}

fn auto(segment: &Segment) -> Event {
    Event::auto_reset_in(segment).expect("an event").with_wait(Wait::Sleep)
}

#[apply(test)]
fn those_that_wait_for_an_event_are_woken_by_setting_it() {
    let segment = segment();
    let event = manual(&segment);
    let sleepers = [(); 3].map(|()| Sleeper::until_woken(|| event.wait().expect("attached")));
    event.set().expect("attached");
    // Clear before any of them has run: they stand at the end of their sleep.
    event.clear().expect("attached");
    sleepers.into_iter().for_each(|sleeper| sleeper.goes_on_when_woken("set"));
    let event = auto(&segment);
    let wait = || event.wait().expect("attached");
    let mut sleepers: Vec<Sleeper> = (0..2).map(|_| Sleeper::until_woken(wait)).collect();
    for _ in 0..2 {
        event.set().expect("attached");
        take_woken(&mut sleepers, "set").goes_on_from_its_wake_up();
        assert!(!sleepers.iter_mut().any(Sleeper::is_woken), "one set is for one");
    }
}

#[apply(test)]
fn a_waiter_for_an_event_whose_waker_is_killed_at_the_wake_up_goes_on() {
    let segment = segment();
    for event in [manual(&segment), auto(&segment)] {
        let sleeper = Sleeper::for_a_slice(|| event.wait().expect("attached"));
        killed_at_its_wake_up(|| event.set().expect("attached"));
        sleeper.goes_on();
        assert_eq!(event.is_set(), Ok(!event.is_auto_reset()));
    }
}

#[apply(test)]
fn a_waiter_for_an_event_behind_a_killed_one_that_took_its_wake_up_goes_on() {
    let segment = segment();
    let event = auto(&segment);
    let wait = || event.wait().expect("attached");
    let mut first = vec![Sleeper::until_woken(wait)];
    let second = Sleeper::for_a_slice(wait);
    event.set().expect("attached");
    take_woken(&mut first, "set").0.kill();
    second.goes_on();
    assert_eq!(event.is_set(), Ok(false));
}
