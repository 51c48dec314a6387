//! An event between processes: who waits goes on when it is set, one or all of them; what was set
//! stays set, whoever is killed; and several are waited for at once, also where the kernel cannot.

use std::time::Duration;

use offspring::{Child, Event, Fault, Handle, Queue, Segment, Wait, WaitTimeoutError};

use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apply, fresh, test};

const PAUSE: Duration = Duration::from_millis(150);

fn manual() -> Event {
    Event::new().expect("an event").with_wait(Wait::Sleep)
}

fn auto() -> Event {
    Event::auto_reset().expect("an event").with_wait(Wait::Sleep)
}

/// Children that wait for the event; they sleep when this returns.
fn waiters(event: &Event, count: usize) -> Vec<Child<Result<(), Fault>>> {
    let waiter = |_| {
        let theirs = event.clone();
        fork(move || theirs.wait()).expect("fork")
    };
    let waiters: Vec<_> = (0..count).map(waiter).collect();
    waiters.iter().for_each(|child| common::wait_until_asleep(child.id()));
    waiters
}

fn running<T: serde::Serialize + serde::de::DeserializeOwned>(children: &[Child<T>]) -> usize {
    let runs = |child: &&Child<T>| {
        common::state(child.id()).is_some_and(|state| !matches!(state, 'Z' | 'X'))
    };
    children.iter().filter(runs).count()
}

#[apply(test)]
fn a_manual_event_lets_all_who_wait_go_on_and_all_who_come_later() {
    let event = manual();
    let waiters = waiters(&event, 4);
    event.set().expect("ours");
    waiters.into_iter().for_each(|child| assert_eq!(child.join().expect("no panic"), Ok(())));
    let theirs = event.clone();
    let late = fork(move || theirs.wait()).expect("fork");
    assert_eq!(late.join().expect("no panic"), Ok(()));
    assert_eq!(event.is_set(), Ok(true));
}

#[apply(test)]
fn an_automatic_event_lets_one_go_on_for_each_set() {
    let event = auto();
    let waiters = waiters(&event, 3);
    for left in (0..3).rev() {
        event.set().expect("ours");
        common::wait_until("one goes on", || running(&waiters) == left);
        std::thread::sleep(PAUSE);
        assert_eq!(running(&waiters), left, "and no other");
        assert_eq!(event.is_set(), Ok(false));
    }
    waiters.into_iter().for_each(|child| assert_eq!(child.join().expect("no panic"), Ok(())));
}

/// Four processes pass a turn round; each adds one to a count that nothing else protects.
#[apply(test)]
fn what_was_written_before_a_set_is_seen_after_the_wait() {
    const ROUNDS: u64 = 2000;
    let turn = Event::auto_reset().expect("an event");
    let count = offspring::Value::new(0_u64).expect("a value");
    let children: Vec<Child<()>> = (0..4)
        .map(|_| {
            let (turn, count) = (turn.clone(), count.clone());
            fork(move || {
                for _ in 0..ROUNDS {
                    turn.wait().expect("attached");
                    count.set(count.get().expect("attached") + 1).expect("free");
                    turn.set().expect("attached");
                }
            })
            .expect("fork")
        })
        .collect();
    turn.set().expect("ours");
    children.into_iter().for_each(|child| child.join().expect("no panic"));
    assert_eq!(count.get(), Ok(4 * ROUNDS));
    assert_eq!(turn.try_wait(), Ok(()), "the turn is left");
}

#[apply(test)]
fn killed_waiters_take_nothing_with_them_that_they_have_not_passed_by() {
    let event = auto();
    for child in waiters(&event, 3) {
        child.kill().expect("kill");
        assert!(child.join().is_err());
    }
    event.set().expect("ours");
    assert_eq!(event.try_wait(), Ok(()));
    let dead = waiters(&event, 3);
    let living = waiters(&event, 1);
    dead.iter().for_each(|child| child.kill().expect("kill"));
    event.set().expect("ours");
    living.into_iter().for_each(|child| assert_eq!(child.join().expect("no panic"), Ok(())));
    dead.into_iter().for_each(|child| assert!(child.join().is_err()));
    assert_eq!(event.is_set(), Ok(false));
}

#[apply(test)]
fn what_a_killed_process_has_set_stays_set() {
    for event in [manual(), auto()] {
        let theirs = event.clone();
        let child: Child<()> = fork(move || {
            theirs.set().expect("attached");
            common::sleep_for_ever()
        })
        .expect("fork");
        common::wait_until("it is set", || event.is_set() == Ok(true));
        child.kill().expect("kill");
        assert!(child.join().is_err());
        assert_eq!(event.try_wait(), Ok(()));
        assert_eq!(event.is_set(), Ok(!event.is_auto_reset()));
    }
}

/// Processes that set the event are killed anywhere, and one that waits passes after each.
#[apply(test)]
fn waiters_go_on_wherever_those_that_set_the_event_are_killed() {
    let (event, answer) = (auto(), auto());
    let (theirs, their_answer) = (event.clone(), answer.clone());
    let waiter = fork(move || {
        (0..40).for_each(|_| {
            theirs.wait().expect("attached");
            their_answer.set().expect("attached");
        });
    })
    .expect("fork");
    for round in 0..40 {
        let theirs = event.clone();
        let setter: Child<()> = fork(move || {
            std::thread::sleep(Duration::from_micros(50 * (round % 8)));
            theirs.set().expect("attached");
            common::sleep_for_ever()
        })
        .expect("fork");
        std::thread::sleep(Duration::from_micros(37 * round));
        setter.kill().expect("kill");
        assert!(setter.join().is_err());
        // It was killed before it had set the event, or after.
        if answer.wait_timeout(PAUSE).is_err() {
            event.set().expect("ours");
            answer.wait().expect("ours");
        }
    }
    waiter.join().expect("no panic");
}

#[apply(test)]
fn the_first_of_several_events_ends_the_wait_in_a_child() {
    let events = [auto(), manual(), auto()];
    for which in [2, 0, 1] {
        let theirs = events.clone();
        let child = fork(move || {
            let [a, b, c] = &theirs;
            Event::wait_any(&[a, b, c])
        })
        .expect("fork");
        common::wait_until_asleep(child.id());
        events[which].set().expect("ours");
        assert_eq!(child.join().expect("no panic"), Ok(which));
    }
    assert_eq!(events[0].is_set().and(events[2].is_set()), Ok(false));
}

/// One process sleeps on two events and another one on the second of them. Both are set at once:
/// the first may have been woken by both, and keeps only one to itself.
#[apply(test)]
fn who_waits_for_several_keeps_nothing_from_others() {
    let (first, second) = (auto(), auto());
    for _ in 0..200 {
        let (theirs, both) = (second.clone(), [first.clone(), second.clone()]);
        let one = fork(move || theirs.wait()).expect("fork");
        let any = fork(move || Event::wait_any(&[&both[0], &both[1]])).expect("fork");
        common::wait_until_asleep(one.id());
        common::wait_until_asleep(any.id());
        first.set().expect("ours");
        second.set().expect("ours");
        let passed = any.join().expect("no panic").expect("attached");
        if passed == 1 {
            second.set().expect("ours");
        }
        assert_eq!(one.join().expect("no panic"), Ok(()));
        first.clear().expect("ours");
        assert_eq!(second.is_set(), Ok(false));
    }
}

/// As on Linux before 5.16, and in a sandbox that does not know the call.
#[apply(fresh)]
fn several_events_are_waited_for_without_the_kernels_help() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let (event, other) = (auto(), manual());
        let (theirs, their_other) = (event.clone(), other.clone());
        let child = fork(move || {
            sandbox::refuse(&[libc::SYS_futex_waitv], errno);
            let both = [&their_other, &theirs];
            let late = Event::wait_any_timeout(&both, Duration::from_millis(20));
            assert_eq!(late, Err(WaitTimeoutError::Timeout));
            Event::wait_any(&both)
        })
        .expect("fork");
        common::wait_until_asleep(child.id());
        std::thread::sleep(PAUSE);
        event.set().expect("ours");
        assert_eq!(child.join().expect("no panic"), Ok(1));
        assert_eq!(event.is_set(), Ok(false));
    }
}

#[apply(test)]
fn an_event_travels_by_its_name() {
    let names = Queue::<Handle>::with_capacity(1).expect("a queue");
    let theirs = names.clone();
    let child = fork(move || {
        let commons = Segment::commons().expect("the commons");
        let event = Event::open(&commons, theirs.recv().expect("open")).expect("it is there");
        assert!(event.is_auto_reset());
        event.wait()
    })
    .expect("fork");
    // Made after the child was.
    let event = auto();
    names.send(event.handle()).expect("open");
    event.set().expect("ours");
    assert_eq!(child.join().expect("no panic"), Ok(()));
    assert_eq!(event.is_set(), Ok(false));
}

/// A child that no library knows of attaches at its first use, whatever that is.
#[apply(test)]
fn a_child_forked_by_other_code_uses_the_event() {
    type Use = fn(&Event);
    let uses: [(bool, Use); 7] = [
        (true, |event| event.set().expect("attaches")),
        (true, |event| event.clear().expect("attaches")),
        (true, |event| assert_eq!(event.is_set(), Ok(true))),
        (false, |event| assert_eq!(event.is_set(), Ok(false))),
        (true, |event| assert_eq!(event.try_wait(), Ok(()))),
        (true, |event| assert_eq!(event.wait(), Ok(()))),
        (true, |event| assert_eq!(Event::wait_any(&[event]), Ok(0))),
    ];
    for (is_set, act) in uses {
        let event = manual();
        if is_set {
            event.set().expect("ours");
        }
        #[expect(unsafe_code, reason = "no library may learn of this fork")]
        // SAFETY: this process has one thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let ended = std::panic::catch_unwind(|| act(&event));
            raw::exit(if ended.is_ok() { 0 } else { 101 });
        }
        let child = nix::unistd::Pid::from_raw(pid);
        let exited = nix::sys::wait::WaitStatus::Exited(child, 0);
        assert_eq!(nix::sys::wait::waitpid(child, None), Ok(exited));
    }
}
