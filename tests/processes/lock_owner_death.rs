//! A lock between processes: they take turns, and after the death of an owner nobody sees the value
//! before somebody has repaired it.

use std::time::{Duration, Instant};

use offspring::{Child, Lock, LockError, LockState, LockTimeoutError, Queue, TryLockError};

use crate::common::{self, fork};
use crate::harness::{apply, test};
use crate::victims::kill;

/// A child that has the lock and has half written its value.
fn owner_of(lock: &Lock<[u64; 2]>) -> Child<()> {
    let ready = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_ready) = (lock.clone(), ready.clone());
    let child = fork(move || {
        let mut guard = theirs.lock().expect("clean");
        guard[0] += 1;
        their_ready.send(0).expect("open");
        common::sleep_for_ever();
    });
    ready.recv().expect("the child is ready");
    child.expect("fork")
}

#[apply(test)]
fn processes_take_turns() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let children: Vec<Child<()>> = (0..4)
        .map(|_| {
            let theirs = lock.clone();
            let work = move || {
                for _ in 0..20_000 {
                    let mut guard = theirs.lock().expect("clean");
                    guard[0] += 1;
                    assert_eq!(guard[0], guard[1] + 1, "two owners at a time");
                    guard[1] += 1;
                }
            };
            fork(work).expect("fork")
        })
        .collect();
    children.into_iter().for_each(|child| child.join().expect("no panic"));
    assert_eq!(*lock.lock().expect("clean"), [80_000; 2]);
}

#[apply(test)]
fn a_successor_is_told_that_the_owner_died_and_repairs() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    kill(&owner);
    assert_eq!(lock.lock().expect_err("the owner died"), LockError::OwnerDied);
    let mut guard = lock.recover().expect("nobody has it");
    assert_eq!((*guard, guard.state()), ([1, 0], LockState::OwnerDied));
    guard[1] = guard[0];
    drop(guard.mark_repaired());
    assert_eq!(*lock.lock().expect("clean again"), [1, 1]);
    assert!(owner.join().is_err());
}

/// Those who come to repair do so one after the other, and one of them finds something to repair.
#[apply(test)]
fn exactly_one_of_several_successors_repairs() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    let waiters: Vec<Child<bool>> = (0..4)
        .map(|number| {
            let theirs = lock.clone();
            let work = move || {
                // Half of them learn of the death first.
                if number % 2 == 0
                    && let Err(error) = theirs.lock()
                {
                    assert_eq!(error, LockError::OwnerDied);
                }
                let mut guard = theirs.recover().expect("not ours");
                let repairs = guard.state() == LockState::OwnerDied;
                assert_eq!(guard[0] != guard[1], repairs, "two at a time");
                guard[1] = guard[0];
                drop(guard.mark_repaired());
                repairs
            };
            fork(work).expect("fork")
        })
        .collect();
    waiters.iter().for_each(|child| common::wait_until_asleep(child.id()));
    kill(&owner);
    let told: Vec<bool> =
        waiters.into_iter().map(|child| child.join().expect("no panic")).collect();
    assert_eq!(told.iter().filter(|&&told| told).count(), 1, "{told:?}");
    assert!(owner.join().is_err());
}

/// None of those who wait behind a dead owner gets the lock, so all of them must be woken.
#[apply(test)]
fn every_waiter_is_told_that_the_owner_died() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    let waiters: Vec<Child<bool>> = (0..4)
        .map(|_| {
            let theirs = lock.clone();
            fork(move || theirs.lock().is_err_and(|error| error.is_owner_died())).expect("fork")
        })
        .collect();
    waiters.iter().for_each(|child| common::wait_until_asleep(child.id()));
    kill(&owner);
    for waiter in waiters {
        assert!(waiter.join().expect("no panic"));
    }
    assert!(owner.join().is_err());
}

#[apply(test)]
fn one_that_is_killed_while_it_repairs_leaves_the_repair_to_the_next() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    for _ in 0..2 {
        let ready = Queue::<u64>::with_capacity(1).expect("a queue");
        let (theirs, their_ready) = (lock.clone(), ready.clone());
        let child: Child<()> = fork(move || {
            let mut guard = theirs.recover().expect("nobody has it");
            guard[0] += 1;
            their_ready.send(0).expect("open");
            common::sleep_for_ever();
        })
        .expect("fork");
        ready.recv().expect("the child is ready");
        kill(&child);
        assert!(child.join().is_err());
    }
    assert!(lock.lock().expect_err("nobody has repaired it").is_owner_died());
    let guard = lock.recover().expect("nobody has it");
    assert_eq!((*guard, guard.state()), ([2, 0], LockState::OwnerDied));
}

#[apply(test)]
fn a_lock_cleared_by_the_parent_tells_the_next_one() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    kill(&owner);
    assert!(owner.join().is_err());
    let error = lock.lock().expect_err("joining cleared the lock, and the news is kept");
    assert!(error.is_owner_died(), "{error}");
    drop(lock.recover().expect("nobody has it").mark_repaired());
    drop(lock.lock().expect("repaired"));
}

#[apply(test)]
fn a_lock_is_refused_until_it_is_repaired() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    kill(&owner);
    for _ in 0..3 {
        let wait = lock.lock_timeout(Duration::from_secs(60));
        assert!(wait.expect_err("the owner died").is_owner_died());
        assert!(lock.try_lock().expect_err("nobody has repaired it").is_owner_died());
        drop(lock.recover().expect("nobody has it"));
    }
    let repaired = lock.recover_timeout(Duration::from_secs(60)).expect("nobody has it");
    drop(repaired.mark_repaired());
    drop(lock.lock().expect("clean"));
    assert!(owner.join().is_err());
}

#[apply(test)]
fn a_waiter_killed_in_its_sleep_costs_nothing() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let guard = lock.lock().expect("free");
    let spawn = || {
        let theirs = lock.clone();
        fork(move || drop(theirs.lock().expect("clean"))).expect("fork")
    };
    let (killed, living) = (spawn(), spawn());
    [&killed, &living].iter().for_each(|child| common::wait_until_asleep(child.id()));
    kill(&killed);
    drop(guard);
    living.join().expect("no panic");
    drop(lock.lock().expect("clean"));
    assert!(killed.join().is_err());
}

#[apply(test)]
fn a_stopped_owner_keeps_the_lock() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let owner = owner_of(&lock);
    owner.signal(19).expect("SIGSTOP");
    common::wait_until_stopped(owner.id());
    assert!(matches!(
        lock.lock_timeout(Duration::from_millis(1100)),
        Err(LockTimeoutError::Timeout)
    ));
    kill(&owner);
    assert!(lock.lock().expect_err("now it is dead").is_owner_died());
    assert!(owner.join().is_err());
}

#[apply(test)]
fn a_timeout_in_a_child_waits_at_least_that_long() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let guard = lock.lock().expect("free");
    let theirs = lock.clone();
    let child = fork(move || {
        let time = Duration::from_millis(80);
        let start = Instant::now();
        assert!(matches!(theirs.lock_timeout(time), Err(LockTimeoutError::Timeout)));
        assert!(start.elapsed() >= time);
        assert!(matches!(theirs.lock_deadline(start + time), Err(LockTimeoutError::Timeout)));
    });
    child.expect("fork").join().expect("no panic");
    drop(guard);
}

#[apply(test)]
fn a_panic_in_a_child_poisons() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    let theirs = lock.clone();
    let child = fork(move || {
        let _guard = theirs.lock().expect("clean");
        panic!("with the lock");
    });
    let child: Child<()> = child.expect("fork");
    assert!(child.join().is_err());
    assert!(lock.lock().expect_err("poisoned").is_poisoned());
}

#[apply(test)]
fn an_owner_killed_anywhere_leaves_a_lock_that_works() {
    let lock = Lock::new([0_u64; 2]).expect("a lock");
    for round in 0..60_u64 {
        let crew: Vec<Child<()>> = (0..2)
            .map(|_| {
                let theirs = lock.clone();
                let work = move || loop {
                    let mut guard = theirs.recover().expect("not ours").mark_repaired();
                    guard[0] = guard[1] + 1;
                    guard[1] = guard[0];
                };
                fork(work).expect("fork")
            })
            .collect();
        std::thread::sleep(Duration::from_micros(500 + round * 53 % 1500));
        for child in &crew {
            kill(child);
        }
        let guard = lock.recover().expect("not ours").mark_repaired();
        assert!(guard[0] == guard[1] || guard[0] == guard[1] + 1, "{guard:?}");
        drop(guard);
        for child in crew {
            assert!(child.join().is_err());
        }
    }
}
