//! Channels between processes: who is told that all others are gone, and when.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use offspring::{
    Child, JoinError, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError, bytes,
    channel, plain,
};

use crate::common::{children, fork, sleep_for_ever, wait_until};
use crate::harness::{apply, test};
use crate::victims::{end, kill};

/// Whatever ends the only sender, the receiver gets what it has sent and then learns that it is
/// gone.
#[apply(test)]
fn a_receiver_outlives_its_only_sender() {
    type End = fn();
    let ends: [(&str, End); 4] = [
        ("returns", || {}),
        ("exits", || std::process::exit(3)),
        ("panics", || panic!("half-way")),
        ("is killed", || nix::sys::signal::raise(Signal::SIGKILL).expect("a signal")),
    ];
    for (how, end) in ends {
        let (sender, receiver) = channel::<String>(4).expect("a channel");
        let child = fork(move || {
            for n in 0..10 {
                sender.send(format!("{n} {}", "long ".repeat(100))).expect("connected");
            }
            end();
        })
        .expect("fork");
        let mut count = 0;
        let mut values = receiver.iter();
        for value in &mut values {
            assert!(value.starts_with(&format!("{count} ")), "{how}: {value}");
            count += 1;
        }
        assert_eq!(count, 10, "{how}");
        assert!(matches!(values.end(), Some(RecvError::Disconnected)), "{how}");
        drop(child.join());
    }
}

#[apply(test)]
fn a_sender_that_waits_learns_that_the_only_receiver_was_killed() {
    let (sender, receiver) = plain::channel::<u64>(2).expect("a channel");
    let child = fork(move || {
        receiver.recv().expect("a message");
        sleep_for_ever()
    });
    let child: Child<()> = child.expect("fork");
    sender.send(0).expect("room");
    wait_until("the receiver takes the message", || sender.is_empty());
    sender.send(1).expect("room");
    sender.send(2).expect("room");
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    kill(&child);
    assert_eq!(sender.send(3), Err(SendError::Disconnected(3)));
    assert!(matches!(child.join(), Err(JoinError::Killed(9))));
}

/// One that never waits learns it as well.
#[apply(test)]
fn a_receiver_that_polls_learns_that_the_only_sender_was_killed() {
    let (sender, receiver) = bytes::channel(2).expect("a channel");
    let child = fork(move || {
        let _sender = sender;
        sleep_for_ever()
    });
    let child: Child<()> = child.expect("fork");
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    kill(&child);
    wait_until("polling finds out", || {
        matches!(receiver.try_recv(), Err(TryRecvError::Disconnected))
    });
}

/// The closure's end is the child's from the beginning, used or not.
#[apply(test)]
fn a_captured_end_keeps_the_channel_open_before_it_is_used() {
    let (sender, receiver) = channel::<u8>(2).expect("a channel");
    let child = fork(move || {
        std::thread::sleep(Duration::from_millis(300));
        sender.send(7).expect("connected");
    })
    .expect("fork");
    let early = receiver.recv_timeout(Duration::from_millis(120));
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{early:?}");
    assert_eq!(receiver.recv().expect("a value"), 7);
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    child.join().expect("a value");
}

/// What merely lies in a child's memory keeps nothing open.
#[apply(test)]
fn a_copy_in_the_memory_of_a_sibling_keeps_nothing_open() {
    let (sender, receiver) = channel::<u8>(2).expect("a channel");
    let bystander: Child<()> = fork(|| sleep_for_ever()).expect("fork");
    let worker = fork(move || sender.send(7).expect("connected")).expect("fork");
    let late_bystander: Child<()> = fork(|| sleep_for_ever()).expect("fork");
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [7]);
    worker.join().expect("a value");
    for child in [bystander, late_bystander] {
        kill(&child);
        drop(child.join());
    }
}

/// Both ends of a pair of channels, in the usual way: requests one way, replies the other.
#[apply(test)]
fn two_channels_end_each_other() {
    let (ask, asked) = channel::<String>(4).expect("a channel");
    let (answer, answered) = channel::<usize>(4).expect("a channel");
    let child = fork(move || {
        for question in &asked {
            answer.send(question.len()).expect("connected");
        }
    })
    .expect("fork");
    for n in 0..100 {
        ask.send("x".repeat(n)).expect("connected");
        assert_eq!(answered.recv().expect("an answer"), n);
    }
    drop(ask);
    assert!(matches!(answered.recv(), Err(RecvError::Disconnected)));
    child.join().expect("a value");
}

/// A child hands its end on to a child of its own.
#[apply(test)]
fn an_end_goes_on_to_a_child_of_a_child() {
    let (sender, receiver) = channel::<u32>(4).expect("a channel");
    let child = fork(move || {
        let grandchild = fork(move || {
            std::thread::sleep(Duration::from_millis(100));
            sender.send(std::process::id()).expect("connected");
        })
        .expect("fork");
        grandchild.join().expect("a value");
        // The end is gone, and the child goes on for a while.
        std::thread::sleep(Duration::from_millis(500));
    })
    .expect("fork");
    let start = Instant::now();
    let sender = receiver.recv().expect("a value");
    assert_ne!(sender, child.id());
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    assert!(child.is_alive(), "the child was there after {:?}", start.elapsed());
    child.join().expect("a value");
}

/// A static is no capture: such an end counts in a child from its first use.
#[apply(test)]
fn an_end_in_a_static_counts_when_it_is_used() {
    static SENDER: OnceLock<plain::Sender<u64>> = OnceLock::new();
    let (sender, receiver) = plain::channel(4).expect("a channel");
    SENDER.set(sender.clone()).expect("once");
    let child = fork(|| {
        let sender = SENDER.get().expect("set");
        sender.send(1).expect("connected");
        sleep_for_ever()
    });
    let child: Child<()> = child.expect("fork");
    assert_eq!(receiver.recv(), Ok(1));
    drop(sender);
    assert_eq!(receiver.recv_timeout(Duration::from_millis(150)), Err(RecvTimeoutError::Timeout));
    kill(&child);
    drop(child.join());
    // The static of this process is still there.
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

/// An end that is used after all others have gone finds that out.
#[apply(test)]
fn an_end_that_comes_too_late_is_disconnected() {
    let (sender, receiver) = plain::channel::<u64>(4).expect("a channel");
    let (go, wait) = plain::channel::<u64>(1).expect("a channel");
    let kept = std::mem::ManuallyDrop::new(sender);
    // Not captured by a move: only its address is, and the child has a copy of what lies there.
    let address = std::ptr::from_ref(&*kept).expose_provenance();
    let child = fork(move || {
        wait.recv().expect("a message");
        #[expect(unsafe_code, reason = "an end that was not captured")]
        // SAFETY: a copy of the parent's memory, which stays as it was at the fork.
        let late = unsafe { &*std::ptr::with_exposed_provenance::<plain::Sender<u64>>(address) };
        late.send(7)
    })
    .expect("fork");
    drop(std::mem::ManuallyDrop::into_inner(kept));
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
    go.send(1).expect("connected");
    assert_eq!(child.join().expect("a value"), Err(SendError::Disconnected(7)));
}

/// Several senders and receivers, some killed at any moment of their lives: in the end everybody
/// learns that the others are gone.
#[apply(test)]
fn children_killed_at_any_moment_disconnect() {
    let mut kills = 0;
    for round in 0..60_u64 {
        let (sender, receiver) = channel::<Vec<u8>>(2).expect("a channel");
        let senders: Vec<Child<()>> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                fork(move || while sender.send(vec![7; 300]).is_ok() {}).expect("fork")
            })
            .collect();
        drop(sender);
        let start = Instant::now();
        let mut received = 0;
        for (index, child) in senders.iter().enumerate() {
            let until = Duration::from_micros(round * 40 + index as u64 * 100);
            while start.elapsed() < until {
                received += u64::from(receiver.try_recv().is_ok());
            }
            kill(child);
            kills += 1;
        }
        received += receiver.iter().map(|value| assert_eq!(value, [7; 300])).count() as u64;
        assert!(received < u64::MAX);
        for child in senders {
            assert!(matches!(child.join(), Err(JoinError::Killed(9))));
        }
    }
    assert_eq!(kills, 120);
}

/// Somebody who wraps an end in a value that panics when it is dropped.
#[apply(test)]
fn a_captured_value_that_panics_when_dropped_leaves_the_ends_right() {
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if std::process::id() == self.0 {
                panic!("dropped in the parent");
            }
        }
    }
    let (sender, receiver) = channel::<u8>(2).expect("a channel");
    let bomb = Bomb(std::process::id());
    let forked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fork(move || {
            let _bomb = bomb;
            sender.send(7).expect("connected");
        })
    }));
    assert!(forked.is_err(), "the panic comes through");
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [7]);
    // Nobody has the handle. The next fork buries it.
    wait_until("the child ends", || children().iter().all(|&(_, state)| state == 'Z'));
    fork(|| ()).expect("fork").join().expect("a value");
}

/// Each end asks now and then whether the others are there, and never waits.
#[apply(test)]
fn an_end_that_asks_learns_that_the_last_of_the_others_was_killed() {
    macro_rules! learns {
        ($($channel:tt)*) => {
            let (sender, receiver) = $($channel)*(2).expect("a channel");
            let first: Child<()> = {
                let sender = sender.clone();
                fork(move || {
                    let _sender = sender;
                    sleep_for_ever()
                })
                .expect("fork")
            };
            let last: Child<()> = fork(move || {
                let _sender = sender;
                sleep_for_ever()
            })
            .expect("fork");
            end(first);
            stays(|| receiver.is_disconnected());
            kill(&last);
            wait_until("the receiver learns it", || receiver.is_disconnected());
            drop(last.join());

            let (sender, receiver) = $($channel)*(2).expect("a channel");
            let child: Child<()> = fork(move || {
                let _receiver = receiver;
                sleep_for_ever()
            })
            .expect("fork");
            stays(|| sender.is_disconnected());
            kill(&child);
            wait_until("the sender learns it", || sender.is_disconnected());
            drop(child.join());
        };
    }
    learns!(channel::<String>);
    learns!(plain::channel::<u64>);
    learns!(bytes::channel);
}

/// Asks for longer than an answer from the kernel holds.
#[track_caller]
fn stays(is_disconnected: impl Fn() -> bool) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(30) {
        assert!(!is_disconnected(), "somebody is alive");
    }
}
