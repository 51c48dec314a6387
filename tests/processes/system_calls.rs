//! How many system calls an operation makes: none while nobody sleeps, one to wake a sleeper, and a
//! dead sleeper costs one and no more.

use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getppid};
use offspring::{Child, Event, Lock, Queue, Segment, Wait, spsc};

use crate::common::{self, fork};
use crate::harness::{apply, test};

/// The system calls that `operations` make, in a process of their own that has used everything in
/// `warm_up` before.
fn system_calls(warm_up: impl FnOnce(), operations: impl FnOnce()) -> Vec<u64> {
    // SAFETY: this process has one thread, and the child ends by `_exit`.
    #[expect(unsafe_code, reason = "forks a child that is traced from its first instruction")]
    let child = match unsafe { nix::unistd::fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                warm_up();
                ptrace::traceme().expect("traceme");
                raise(Signal::SIGSTOP).expect("raise");
                // Asked for by nobody else, so it marks the beginning and the end.
                getppid();
                operations();
                getppid();
            }));
            #[expect(unsafe_code, reason = "ends without running anything of the parent's")]
            // SAFETY: ends the process.
            unsafe {
                libc::_exit(i32::from(code.is_err()))
            }
        }
    };
    let calls = trace(child);
    Segment::commons().expect("the commons").reap().expect("attached");
    calls
}

/// Follows the child to its end and gives the calls between its two markers.
fn trace(child: Pid) -> Vec<u64> {
    let marker = libc::SYS_getppid as u64;
    let mut calls = Vec::new();
    assert_eq!(waitpid(child, None).expect("wait"), WaitStatus::Stopped(child, Signal::SIGSTOP));
    ptrace::setoptions(child, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("setoptions");
    loop {
        ptrace::syscall(child, None).expect("continue");
        match waitpid(child, None).expect("wait") {
            WaitStatus::PtraceSyscall(_) => {
                let info = ptrace::syscall_info(child).expect("info");
                if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    #[expect(unsafe_code, reason = "reads a union of the kernel's")]
                    // SAFETY: at an entry stop this is the field of the union that the kernel has
                    // filled in.
                    calls.push(unsafe { info.u.entry.nr });
                }
            }
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0, "the child panicked");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let begin = calls.iter().position(|&call| call == marker).expect("the first marker");
    let end = calls.iter().rposition(|&call| call == marker).expect("the second marker");
    assert!(begin < end);
    calls[begin + 1..end].to_vec()
}

const FUTEX: u64 = libc::SYS_futex as u64;

fn queue(capacity: usize) -> Queue<u64> {
    Queue::with_capacity(capacity).expect("a queue")
}

fn asleep<T>(child: &Child<T>) -> bool
where
    T: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    common::state(child.id()) == Some('S')
}

#[apply(test)]
fn messages_make_no_system_call_while_nobody_sleeps() {
    let queue = queue(8);
    let once = || {
        queue.send(1).expect("open");
        assert_eq!(queue.recv(), Ok(1));
    };
    let calls = system_calls(once, || {
        for _ in 0..100 {
            once();
            queue.try_send(2).expect("room");
            assert_eq!(queue.try_recv(), Ok(2));
            let mut slot = queue.reserve().expect("open");
            slot.write(3);
            slot.commit();
            drop(queue.reserve());
            assert_eq!(*queue.recv_ref().expect("a message"), 3);
            queue.send_many(&[4, 5, 6]).expect("open");
            (4..7).for_each(|n| assert_eq!(queue.recv(), Ok(n)));
            assert!(queue.is_empty() && !queue.is_full());
        }
    });
    assert_eq!(calls, [0; 0]);
}

#[apply(test)]
fn a_free_lock_makes_no_system_call() {
    let lock = Lock::new(0_u64).expect("a lock");
    let once = || *lock.lock().expect("clean") += 1;
    assert_eq!(system_calls(once, || (0..100).for_each(|_| once())), [0; 0]);
}

#[apply(test)]
fn a_ring_of_two_makes_no_system_call_while_nobody_sleeps() {
    let (mut sender, mut receiver) = spsc::ring::<u64>(4).expect("a ring");
    let mut once = || {
        sender.send(1).expect("room");
        assert_eq!(receiver.recv(), Ok(1));
    };
    // The ends belong to this process, so the calls are counted from within: strict seccomp kills
    // at the first one.
    once();
    let child = fork(move || {
        let (mut sender, mut receiver) = spsc::ring::<u64>(4).expect("a ring");
        let mut once = || {
            sender.send(1).expect("room");
            assert_eq!(receiver.recv(), Ok(1));
        };
        once();
        #[expect(unsafe_code, reason = "forbids system calls")]
        // SAFETY: from here on any call but read, write and exit kills.
        unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT)
        };
        (0..1000).for_each(|_| once());
        #[expect(unsafe_code, reason = "the only way out")]
        // SAFETY: ends the process.
        unsafe {
            libc::syscall(libc::SYS_exit, 42)
        };
    });
    let error = child.expect("fork").join().expect_err("ended by itself");
    assert!(matches!(error, offspring::JoinError::Exited(42)), "{error}");
}

#[apply(test)]
fn waking_a_sleeping_receiver_is_one_system_call() {
    let queue = queue(8);
    let theirs = queue.clone();
    let sleeper =
        fork(move || (theirs.recv().expect("open"), theirs.recv().expect("open"))).expect("fork");
    queue.send(1).expect("open");
    common::wait_until_asleep(sleeper.id());
    assert_eq!(
        system_calls(|| assert!(queue.len() <= 64), || queue.send(2).expect("open")),
        [FUTEX]
    );
    assert_eq!(sleeper.join().expect("no panic"), (1, 2));
}

#[apply(test)]
fn waking_a_sleeping_sender_is_one_system_call() {
    let queue = queue(1);
    queue.send(1).expect("room");
    let theirs = queue.clone();
    let sleeper = fork(move || theirs.send(2).expect("open")).expect("fork");
    common::wait_until_asleep(sleeper.id());
    assert_eq!(
        system_calls(|| assert!(queue.len() <= 64), || assert_eq!(queue.recv(), Ok(1))),
        [FUTEX]
    );
    sleeper.join().expect("no panic");
}

#[apply(test)]
fn a_batch_wakes_a_sleeper_once() {
    let queue = queue(8);
    let theirs = queue.clone();
    let sleeper = fork(move || theirs.recv().expect("open")).expect("fork");
    common::wait_until_asleep(sleeper.id());
    assert_eq!(
        system_calls(
            || assert!(queue.len() <= 64),
            || queue.send_many(&[1, 2, 3, 4]).expect("open")
        ),
        [FUTEX]
    );
    assert_eq!(sleeper.join().expect("no panic"), 1);
}

#[apply(test)]
fn a_killed_sleeper_costs_one_system_call_and_then_none() {
    let queue = queue(64);
    let theirs = queue.clone();
    let sleeper = fork(move || theirs.recv().expect("open")).expect("fork");
    common::wait_until_asleep(sleeper.id());
    sleeper.kill().expect("kill");
    assert!(sleeper.join().is_err());
    let calls = system_calls(
        || assert!(queue.len() <= 64),
        || (0..50).for_each(|n| queue.send(n).expect("open")),
    );
    assert!(calls.len() <= 1, "{calls:?}");
}

#[apply(test)]
fn a_killed_sleeping_sender_costs_one_system_call_and_then_none() {
    let queue = queue(1);
    queue.send(1).expect("room");
    let theirs = queue.clone();
    let sleeper = fork(move || theirs.send(2).expect("open")).expect("fork");
    common::wait_until_asleep(sleeper.id());
    sleeper.kill().expect("kill");
    assert!(sleeper.join().is_err());
    let calls = system_calls(
        || assert!(queue.len() <= 64),
        || {
            for n in 0..50 {
                queue.recv().expect("open");
                queue.send(n).expect("room");
            }
        },
    );
    assert!(calls.len() <= 1, "{calls:?}");
}

#[apply(test)]
fn a_killed_sleeper_at_a_ring_costs_one_system_call_and_then_none() {
    // The end that is left belongs to the process that is counted, so that one makes the ring and
    // has the sleeper killed.
    let end = std::cell::RefCell::new(None);
    let warm_up = || {
        let (mut sender, receiver) = spsc::ring::<u64>(64).expect("a ring");
        let mut receiver = receiver;
        let sleeper = fork(move || {
            receiver.recv().expect("a ring");
            receiver.recv().expect("a ring")
        });
        let sleeper = sleeper.expect("fork");
        sender.send(0).expect("room");
        common::wait_until("the sleeper takes the message and falls asleep", || {
            sender.is_empty() && asleep(&sleeper)
        });
        sleeper.kill().expect("kill");
        assert!(sleeper.join().is_err());
        *end.borrow_mut() = Some(sender);
    };
    let calls = system_calls(warm_up, || {
        let mut sender = end.borrow_mut().take().expect("the warm-up made it");
        (0..50).for_each(|n| sender.send(n).expect("room"));
        // Dropping it would give the ring back, which is not what is counted.
        std::mem::forget(sender);
    });
    assert!(calls.len() <= 1, "{calls:?}");
}

#[apply(test)]
fn an_unlock_with_a_killed_waiter_costs_one_system_call_and_then_none() {
    let lock = Lock::new(0_u64).expect("a lock");
    let guard = lock.lock().expect("free");
    let theirs = lock.clone();
    let waiter = fork(move || drop(theirs.lock().expect("clean"))).expect("fork");
    common::wait_until_asleep(waiter.id());
    waiter.kill().expect("kill");
    assert!(waiter.join().is_err());
    drop(guard);
    let calls = system_calls(|| (), || (0..50).for_each(|_| *lock.lock().expect("clean") += 1));
    // The first use after the fork attaches; everything after it is free of calls.
    let futexes = calls.iter().filter(|&&call| call == FUTEX).count();
    assert!(futexes <= 1, "{calls:?}");
}

#[apply(test)]
fn an_event_makes_no_system_call_while_nobody_sleeps() {
    let events = [Event::new().expect("an event"), Event::auto_reset().expect("an event")];
    let once = || {
        for event in &events {
            event.set().expect("attached");
            assert_eq!(event.wait(), Ok(()));
            assert_eq!(event.try_wait().is_ok(), !event.is_auto_reset());
            event.set().expect("attached");
            assert!(Event::wait_any(&[&events[0], &events[1]]).is_ok());
            event.clear().expect("attached");
            assert!(Event::try_wait_any(&[&events[0], &events[1]]).is_err());
            assert_eq!(event.is_set(), Ok(false));
        }
    };
    assert_eq!(system_calls(once, || (0..100).for_each(|_| once())), [0; 0]);
}

#[apply(test)]
fn setting_an_event_wakes_all_who_sleep_by_one_system_call() {
    for (event, sleepers) in [(Event::new(), 3), (Event::auto_reset(), 1)] {
        let event = event.expect("an event");
        let sleeper = || {
            let theirs = event.clone();
            fork(move || theirs.wait()).expect("fork")
        };
        let sleepers: Vec<_> = (0..sleepers).map(|_| sleeper()).collect();
        sleepers.iter().for_each(|sleeper| common::wait_until_asleep(sleeper.id()));
        let calls = system_calls(
            || assert_eq!(event.is_set(), Ok(false)),
            || event.set().expect("attached"),
        );
        assert_eq!(calls, [FUTEX]);
        for sleeper in sleepers {
            assert_eq!(sleeper.join().expect("no panic"), Ok(()));
        }
    }
}

#[apply(test)]
fn a_killed_sleeper_at_an_event_costs_one_system_call_and_then_none() {
    for event in [Event::new(), Event::auto_reset()] {
        let event = event.expect("an event");
        let theirs = event.clone();
        let sleeper = fork(move || theirs.wait()).expect("fork");
        common::wait_until_asleep(sleeper.id());
        sleeper.kill().expect("kill");
        assert!(sleeper.join().is_err());
        let calls = system_calls(
            || assert_eq!(event.is_set(), Ok(false)),
            || (0..50).for_each(|_| event.set().and(event.clear()).expect("attached")),
        );
        assert!(calls.len() <= 1, "{calls:?}");
    }
}

/// Announced to twice, the event would not let its waiter sleep at all.
#[apply(test)]
fn an_event_that_stands_twice_in_a_list_is_slept_on_once() {
    let event = Event::auto_reset().expect("an event").with_wait(Wait::Sleep);
    let time = Duration::from_millis(200);
    let calls = system_calls(
        || assert_eq!(event.is_set(), Ok(false)),
        || assert!(Event::wait_any_timeout(&[&event, &event], time).is_err()),
    );
    // Slices of 10, 20, 40 and 50 ms, or shorter ones if a machine is slow; never thousands.
    assert!(calls.contains(&FUTEX) && calls.len() < 100, "{} calls", calls.len());
}
