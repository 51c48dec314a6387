//! How long the survivors of a kill stay blocked: measured and printed. What is judged is that they
//! go on, and that this does not take the longer, the longer they have slept before. And a process
//! that is stopped, for however long, is never taken for dead.
//!
//! Each time is from the `kill` to the end of the operation of a process that slept behind the
//! dead, so it includes the kernel's own work of ending a process. Nobody joins the dead before, so
//! the survivor finds out alone.

use std::time::{Duration, Instant};

use offspring::{
    Child, Lock, LockTimeoutError, OnReceiverDeath, Queue, QueueOptions, RecvError,
    RecvTimeoutError, SendError, SendTimeoutError, spsc,
};
use rustix::event::{PollFd, PollFlags};

use crate::common::{self, fork};
use crate::harness::{apply, test};
use crate::victims::{child_that, reader_of};

/// So many scenes at a time, so many times.
const AT_A_TIME: usize = 4;
const BATCHES: usize = 15;
/// The survivors sleep for so long before anybody is killed that their slices of sleep have become
/// as long as they get.
const SETTLE: Duration = Duration::from_millis(120);
/// In the last batch they sleep much longer. Slices that grew without a limit, each twice as long
/// as the one before, would end a second after the kill.
const SETTLE_LONG: Duration = Duration::from_millis(1400);
/// A survivor that is blocked for longer than this is stuck: no promise on time, a watchdog.
const STUCK: Duration = Duration::from_secs(20);
const STOPPED_FOR: Duration = Duration::from_secs(1);

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn queue(capacity: usize, policy: OnReceiverDeath) -> Queue<u64> {
    QueueOptions::new().capacity(capacity).on_receiver_death(policy).create().expect("a queue")
}

/// A child that tells when its operation came to an end.
fn survivor(operation: impl FnOnce() + Send + 'static) -> Child<u64> {
    let work = move || {
        operation();
        now()
    };
    let child = fork(work).expect("fork");
    common::wait_until_asleep(child.id());
    child
}

/// Somebody who is to be killed, and those who sleep behind it.
type Scene = (Child<()>, Vec<Child<u64>>);

/// Makes scenes, kills in each, and prints how long it took until the survivors had gone on: from
/// the kill, and from the moment at which the kernel had ended the process, which on a busy machine
/// can be much later.
fn measure(what: &str, scene: impl Fn() -> Scene) {
    let (mut after_kill, mut after_death) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let (last, earlier) = (batch == BATCHES - 1, after_death.len());
        let scenes: Vec<Scene> = (0..AT_A_TIME).map(|_| scene()).collect();
        let settled = Instant::now();
        std::thread::sleep(if last { SETTLE_LONG } else { SETTLE });
        let slept = settled.elapsed();
        for (index, (holder, survivors)) in scenes.into_iter().enumerate() {
            // Not always at the same point of a slice of sleep.
            std::thread::sleep(Duration::from_micros((batch * 977 + index * 3541) as u64 % 20_000));
            let killed = now();
            holder.kill().expect("kill");
            let patience =
                rustix::event::Timespec { tv_sec: STUCK.as_secs().cast_signed(), tv_nsec: 0 };
            let ready =
                rustix::event::poll(&mut [PollFd::new(&holder, PollFlags::IN)], Some(&patience))
                    .expect("a pidfd");
            assert_eq!(ready, 1, "a killed process does not end");
            let dead = now();
            for mut survivor in survivors {
                let went_on =
                    survivor.join_timeout(STUCK).expect("a survivor is stuck").expect("no panic");
                after_kill.push(Duration::from_nanos(went_on.saturating_sub(killed)));
                after_death.push(Duration::from_nanos(went_on.saturating_sub(dead)));
            }
            assert!(holder.join().is_err());
        }
        if last {
            let median = median(&after_death[earlier..]);
            assert!(
                2 * median < slept,
                "having slept for {slept:?}, half of the survivors go on only after another {median:?}"
            );
        }
    }
    println!("{what}, {} times", after_kill.len());
    print("from the kill", after_kill);
    print("from the death", after_death);
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn print(from: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |per_cent: usize| times[(times.len() - 1) * per_cent / 100];
    println!("    {from:<15} median {:>9.2?}, p90 {:>9.2?}, max {:>9.2?}", at(50), at(90), at(100));
}

#[apply(test)]
fn a_receiver_behind_a_killed_reservation_goes_on() {
    measure("sender killed with a reservation, receiver behind it", || {
        let queue = queue(4, OnReceiverDeath::Drop);
        let theirs = queue.clone();
        let sender = child_that(move |ready| {
            let _slot = theirs.reserve().expect("open");
            ready.send(0).expect("open");
            common::sleep_for_ever();
        });
        queue.send(7).expect("room");
        (sender, vec![survivor(move || assert_eq!(queue.recv(), Ok(7)))])
    });
}

#[apply(test)]
fn a_sender_behind_a_killed_reader_goes_on() {
    measure("receiver killed with a message, sender behind it", || {
        let queue = queue(1, OnReceiverDeath::Drop);
        queue.send(1).expect("room");
        let reader = reader_of(&queue);
        let work = move || {
            queue.send(2).expect("open");
            assert_eq!(queue.lost(), 1);
        };
        (reader, vec![survivor(work)])
    });
}

/// A child that has the lock.
fn owner_of(lock: &Lock<u64>) -> Child<()> {
    let theirs = lock.clone();
    child_that(move |ready| {
        let _guard = theirs.lock().expect("clean");
        ready.send(0).expect("open");
        common::sleep_for_ever();
    })
}

#[apply(test)]
fn a_waiter_behind_a_killed_owner_goes_on() {
    measure("owner of a lock killed, waiter behind it", || {
        let lock = Lock::new(0_u64).expect("a lock");
        let owner = owner_of(&lock);
        (
            owner,
            vec![survivor(move || {
                assert!(lock.lock().expect_err("the owner died").is_owner_died())
            })],
        )
    });
}

#[apply(test)]
fn a_receiver_that_waits_for_the_message_of_a_killed_one_goes_on() {
    measure("receiver killed with a message, another one gets it again", || {
        let queue = queue(8, OnReceiverDeath::Redeliver);
        queue.send(1).expect("room");
        let reader = reader_of(&queue);
        let work = move || {
            let message = queue.recv_ref().expect("open");
            assert_eq!((*message, message.redelivered()), (1, true));
        };
        (reader, vec![survivor(work)])
    });
}

#[apply(test)]
fn all_waiters_behind_a_killed_owner_go_on() {
    measure("owner of a lock killed, four waiters behind it", || {
        let lock = Lock::new(0_u64).expect("a lock");
        let owner = owner_of(&lock);
        let wait = |_| {
            let theirs = lock.clone();
            survivor(move || match theirs.lock() {
                Ok(_guard) => {}
                Err(error) => {
                    assert!(error.is_owner_died());
                    drop(theirs.recover().expect("not ours").mark_repaired());
                }
            })
        };
        (owner, (0..4).map(wait).collect())
    });
}

#[apply(test)]
fn a_sender_of_a_ring_whose_receiver_was_replaced_goes_on() {
    measure("receiver of a ring killed, sender behind it, with a successor", || {
        let (mut sender, receiver) = spsc::ring::<u64>(1).expect("a ring");
        // The successor has an end before the reader is dead.
        let spare = receiver.standby().expect("another end");
        sender.send(1).expect("room");
        let reader = child_that(move |ready| {
            let mut receiver = receiver;
            ready.send(receiver.recv().expect("a message")).expect("open");
            common::sleep_for_ever();
        });
        sender.send(2).expect("room");
        let successor = survivor(move || {
            let mut receiver = spare;
            assert_eq!((receiver.recv(), receiver.recv()), (Ok(2), Ok(3)));
        });
        let blocked = survivor(move || sender.send(3).expect("a ring"));
        (reader, vec![blocked, successor])
    });
}

#[apply(test)]
fn both_sides_of_a_ring_learn_of_the_death_of_the_other() {
    let of = || spsc::ring::<u64>(1).expect("a ring");
    measure("sender of a ring killed, receiver asleep", || {
        let (mut sender, mut receiver) = of();
        let victim = child_that(move |ready| {
            sender.send(1).expect("room");
            ready.send(0).expect("open");
            common::sleep_for_ever();
        });
        let work = move || {
            assert_eq!(receiver.recv(), Ok(1));
            assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
        };
        (victim, vec![survivor(work)])
    });
    measure("receiver of a ring killed, sender asleep", || {
        let (mut sender, mut receiver) = of();
        sender.send(1).expect("room");
        let victim = child_that(move |ready| {
            ready.send(receiver.recv().expect("a message")).expect("open");
            common::sleep_for_ever();
        });
        let work = move || {
            sender.send(2).expect("room");
            assert_eq!(sender.send(3), Err(SendError::Disconnected(3)));
        };
        (victim, vec![survivor(work)])
    });
}

/// Stops the child for a second, during which `see` looks whether anything is taken from it.
fn stopped_for_a_second(child: &Child<()>, mut see: impl FnMut()) {
    child.signal(libc::SIGSTOP).expect("SIGSTOP");
    common::wait_until_stopped(child.id());
    let start = Instant::now();
    while start.elapsed() < STOPPED_FOR {
        see();
    }
    child.signal(libc::SIGCONT).expect("SIGCONT");
}

/// Longer than any slice of sleep.
const A_WHILE: Duration = Duration::from_millis(120);

#[apply(test)]
fn a_stopped_owner_of_a_lock_keeps_it() {
    let lock = Lock::new(0_u64).expect("a lock");
    let go_on = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_go_on) = (lock.clone(), go_on.clone());
    let owner = child_that(move |ready| {
        let mut guard = theirs.lock().expect("clean");
        ready.send(0).expect("open");
        their_go_on.recv().expect("open");
        *guard += 1;
    });
    stopped_for_a_second(&owner, || {
        assert!(
            lock.try_lock()
                .is_err_and(|error| matches!(error, offspring::TryLockError::WouldBlock))
        );
        assert!(
            lock.lock_timeout(A_WHILE)
                .is_err_and(|error| matches!(error, LockTimeoutError::Timeout))
        );
    });
    go_on.send(0).expect("room");
    owner.join().expect("it still had the lock");
    assert_eq!(*lock.lock().expect("clean: nobody died"), 1);
}

#[apply(test)]
fn a_stopped_reader_keeps_its_message() {
    let queue = queue(1, OnReceiverDeath::Drop);
    queue.send(1).expect("room");
    let (reader, go_on) = patient_reader_of(&queue);
    stopped_for_a_second(&reader, || {
        assert!(queue.try_send(2).expect_err("the slot is being read").is_full());
        assert_eq!(queue.send_timeout(2, A_WHILE), Err(SendTimeoutError::Timeout(2)));
    });
    go_on.send(0).expect("room");
    reader.join().expect("it read the same message all the time");
    assert_eq!(queue.lost(), 0);
    queue.try_send(2).expect("room");
}

#[apply(test)]
fn a_stopped_reader_of_a_queue_that_delivers_again_keeps_its_message() {
    let queue = queue(4, OnReceiverDeath::Redeliver);
    queue.send(1).expect("room");
    let (reader, go_on) = patient_reader_of(&queue);
    stopped_for_a_second(&reader, || {
        assert_eq!(queue.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
    });
    go_on.send(0).expect("room");
    reader.join().expect("it read the same message all the time");
    assert_eq!(
        queue.recv_timeout(A_WHILE),
        Err(RecvTimeoutError::Timeout),
        "it was delivered once"
    );
}

/// A child that has taken the first message in place, and looks at it again when it is told to.
fn patient_reader_of(queue: &Queue<u64>) -> (Child<()>, Queue<u64>) {
    let go_on = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_go_on) = (queue.clone(), go_on.clone());
    let reader = child_that(move |ready| {
        let message = theirs.recv_ref().expect("a message");
        ready.send(*message).expect("open");
        their_go_on.recv().expect("open");
        assert_eq!((*message, message.redelivered()), (1, false));
    });
    (reader, go_on)
}

#[apply(test)]
fn a_stopped_sender_keeps_its_slot() {
    let queue = queue(2, OnReceiverDeath::Drop);
    let go_on = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_go_on) = (queue.clone(), go_on.clone());
    let sender = child_that(move |ready| {
        let mut slot = theirs.reserve().expect("open");
        slot.write(1);
        ready.send(0).expect("open");
        their_go_on.recv().expect("open");
        slot.commit();
    });
    queue.send(2).expect("room");
    stopped_for_a_second(&sender, || {
        assert_eq!(queue.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
    });
    go_on.send(0).expect("room");
    sender.join().expect("no panic");
    assert_eq!((queue.recv(), queue.recv()), (Ok(1), Ok(2)));
}
