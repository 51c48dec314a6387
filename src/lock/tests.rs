//! The lock within one process: threads instead of processes.

use super::*;

#[test]
fn threads_take_turns() {
    let lock = Lock::new(0_u64).expect("a lock");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let lock = lock.clone();
            scope.spawn(move || {
                for _ in 0..10_000 {
                    *lock.lock().expect("clean") += 1;
                }
            });
        }
    });
    assert_eq!(*lock.lock().expect("clean"), 40_000);
}

#[test]
fn locking_twice_in_a_thread_is_an_error_and_not_a_hang() {
    let lock = Lock::new(()).expect("a lock");
    let guard = lock.lock().expect("free");
    assert!(matches!(lock.lock(), Err(LockError::WouldDeadlock)));
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldDeadlock)));
    assert!(matches!(
        lock.lock_timeout(Duration::from_secs(9)),
        Err(LockTimeoutError::WouldDeadlock)
    ));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock))));
    });
    drop(guard);
    assert!(lock.try_lock().is_ok());
}

#[test]
fn a_timeout_waits_at_least_that_long() {
    let lock = Lock::new(1_u8).expect("a lock");
    let _guard = lock.lock().expect("free");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let time = Duration::from_millis(30);
            let start = Instant::now();
            assert!(matches!(lock.lock_timeout(time), Err(LockTimeoutError::Timeout)));
            assert!(start.elapsed() >= time);
            assert!(matches!(lock.lock_deadline(Instant::now()), Err(LockTimeoutError::Timeout)));
        });
    });
}

#[test]
fn a_sleeper_is_woken_by_the_unlock() {
    for wait in [Wait::Sleep, Wait::SpinThenSleep, Wait::Spin] {
        let lock = Lock::new(0_u8).expect("a lock").with_wait(wait);
        let mut guard = lock.lock().expect("free");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| *lock.lock().expect("clean"));
            std::thread::sleep(Duration::from_millis(20));
            *guard = 7;
            drop(guard);
            assert_eq!(waiter.join().expect("no panic"), 7);
        });
    }
}

#[test]
fn a_panic_poisons_until_somebody_recovers() {
    let lock = Lock::new(0_u8).expect("a lock");
    let panicked = std::panic::catch_unwind(|| {
        let mut guard = lock.lock().expect("free");
        *guard = 1;
        panic!("with the lock");
    });
    assert!(panicked.is_err());
    for _ in 0..2 {
        assert_eq!(lock.lock().expect_err("poisoned"), LockError::Poisoned);
        assert_eq!(lock.try_lock().expect_err("poisoned"), TryLockError::Poisoned);
    }
    let guard = lock.recover().expect("nobody has it");
    assert_eq!((*guard, guard.state()), (1, LockState::Poisoned));
    drop(guard);
    assert_eq!(lock.lock().expect_err("not repaired"), LockError::Poisoned);
    let guard = lock.try_recover().expect("nobody has it").mark_repaired();
    assert_eq!(lock.try_recover().expect_err("it is ours"), TryLockError::WouldDeadlock);
    drop(guard);
    assert_eq!(*lock.lock().expect("clean again"), 1);
    assert_eq!(lock.recover().expect("nobody has it").state(), LockState::Clean);
}

/// A panic after `mark_repaired` poisons the lock as any other panic does. A panic before it leaves
/// the state as it was.
#[test]
fn a_panic_during_the_repair_leaves_something_to_repair() {
    let lock = Lock::new(0_u8).expect("a lock");
    let panicked = |lock: &Lock<u8>, repaired: bool| {
        let lock = std::panic::AssertUnwindSafe(lock);
        let result = std::panic::catch_unwind(|| {
            let guard = lock.recover().expect("nobody has it");
            let _guard = if repaired { Ok(guard.mark_repaired()) } else { Err(guard) };
            panic!("with the lock");
        });
        assert!(result.is_err());
    };
    for repaired in [true, false] {
        panicked(&lock, repaired);
        assert_eq!(lock.lock().expect_err("poisoned"), LockError::Poisoned);
    }
    drop(lock.recover().expect("nobody has it").mark_repaired());
    panicked(&lock, false);
    assert_eq!(lock.recover().expect("nobody has it").state(), LockState::Poisoned);
}

/// An owner that panics must wake all waiters, as none of them gets the lock and wakes the next.
#[test]
fn a_panic_wakes_all_who_wait() {
    let lock = Lock::new(0_u8).expect("a lock").with_wait(Wait::Sleep);
    std::thread::scope(|scope| {
        let (took, taken) = std::sync::mpsc::channel();
        let owner = scope.spawn({
            let lock = &lock;
            move || {
                let _guard = lock.lock().expect("free");
                took.send(()).expect("somebody waits");
                std::thread::sleep(Duration::from_millis(20));
                panic!("with the lock");
            }
        });
        taken.recv().expect("the lock is taken");
        let waiters: Vec<_> =
            (0..4).map(|_| scope.spawn(|| lock.lock().map(|guard| *guard))).collect();
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Err(LockError::Poisoned));
        }
        assert!(owner.join().is_err());
    });
}

#[test]
fn a_lock_is_opened_by_its_handle() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let lock = Lock::new_in(&segment, [1_u32, 2]).expect("a lock");
    let opened = Lock::<[u32; 2]>::open(&segment, lock.handle()).expect("the same lock");
    opened.lock().expect("free")[0] = 9;
    assert_eq!(*lock.lock().expect("free"), [9, 2]);
    assert_eq!(Lock::<[u16; 4]>::open(&segment, lock.handle()).unwrap_err(), Fault::WrongType);
    assert_eq!(Lock::<u64>::open(&segment, lock.handle()).unwrap_err(), Fault::WrongType);
}

#[test]
fn values_from_nothing_to_a_megabyte() {
    drop(Lock::new(()).expect("a lock").lock().expect("free"));
    // Unoptimised code copies the value from frame to frame.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let large = Lock::new([3_u8; 1 << 20]).expect("a lock");
        assert!(large.lock().expect("free").iter().all(|&byte| byte == 3));
    });
    thread.expect("a thread").join().expect("no panic");
}

/// A destructor that runs because of a panic elsewhere may take the lock, and leaves it as it is.
#[test]
fn a_guard_made_during_a_panic_does_not_poison() {
    struct CountsAtItsEnd<'a>(&'a Lock<u8>);
    impl Drop for CountsAtItsEnd<'_> {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            *self.0.lock().expect("clean") += 1;
        }
    }
    let lock = Lock::new(0_u8).expect("a lock");
    let panicked = std::panic::catch_unwind(|| {
        let _counts = CountsAtItsEnd(&lock);
        panic!("without the lock");
    });
    assert!(panicked.is_err());
    assert_eq!(lock.lock().map(|guard| *guard), Ok(1));
}
