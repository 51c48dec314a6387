//! What a forked process may do with what it inherited: handles work, the parent's guards are
//! inert, also after a fork by others.
#![expect(unsafe_code, reason = "forks as foreign code would")]

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use offspring::{Fault, Lock, LockError, Queue, QueueOptions, Segment, TryLockError, Wait, spsc};

use crate::common::raw::{Board, Errand};
use crate::common::{self, fork};
use crate::harness::{apply, test};

/// Forks as foreign code would, runs `child` in the copy and gives its exit code; 99 for a panic.
fn raw_fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = std::panic::catch_unwind(AssertUnwindSafe(child)).unwrap_or(99);
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

#[apply(test)]
fn a_lock_guard_of_the_parent_is_inert_in_a_child() {
    let lock = Lock::new(1_u64).expect("a lock");
    let guard = lock.lock().expect("free");
    let theirs = lock.clone();
    let child =
        fork(move || matches!(theirs.try_lock(), Err(TryLockError::WouldBlock))).expect("fork");
    assert!(child.join().expect("no panic"), "the parent has the lock, the child has not");
    assert_eq!(*guard, 1);
    drop(guard);
    drop(lock.lock().expect("clean"));
}

#[apply(test)]
fn a_lock_guard_of_the_parent_is_inert_after_a_raw_fork() {
    let lock = Lock::new(1_u64).expect("a lock");
    let mut guard = Some(lock.lock().expect("free"));
    let code = raw_fork(|| {
        drop(guard.take());
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) { 7 } else { 1 }
    });
    assert_eq!(code, 7, "dropping the copy did not unlock");
    // Using the copy panics.
    let used = raw_fork(|| **guard.as_ref().expect("a guard") as i32);
    assert_eq!(used, 99);
    // To print it is not to use it.
    assert_eq!(raw_fork(|| format!("{guard:?}").contains("of the parent").into()), 1);
    assert!(guard.is_some());
    drop(guard);
    drop(lock.lock().expect("clean"));
}

#[apply(test)]
fn ring_guards_of_the_parent_are_inert_after_a_raw_fork() {
    let queue = Queue::<u64>::with_capacity(2).expect("a queue");
    queue.send(1).expect("room");
    let mut message = Some(queue.recv_ref().expect("a message"));
    let mut slot = Some(queue.reserve().expect("room"));
    assert_eq!(
        raw_fork(|| {
            drop(message.take());
            drop(slot.take());
            3
        }),
        3
    );
    assert_eq!(raw_fork(|| **message.as_ref().expect("a guard") as i32), 99);
    // To print one is not to use it: the text may be that of a panic.
    assert_eq!(raw_fork(|| format!("{message:?} {slot:?}").len().min(4) as i32), 4);
    assert_eq!(
        raw_fork(|| {
            slot.take().expect("a guard").commit();
            0
        }),
        99
    );
    assert_eq!(**message.as_ref().expect("a guard"), 1);
    let mut slot = slot.expect("a guard");
    slot.write(2);
    slot.commit();
    drop(message);
    assert_eq!(queue.recv(), Ok(2));
}

#[apply(test)]
fn handles_work_after_a_raw_fork() {
    let commons = Segment::commons().expect("the commons");
    commons.reap().expect("attached");
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    let lock = Lock::new(0_u64).expect("a lock");
    let code = raw_fork(|| {
        queue.send(5).expect("open");
        *lock.lock().expect("clean") += 1;
        0
    });
    assert_eq!(code, 0);
    assert_eq!(queue.recv(), Ok(5));
    assert_eq!(*lock.lock().expect("clean"), 1);
    // Nobody joined it, so its entry is still there; it is cleared when somebody asks.
    assert_eq!(commons.reap().expect("attached"), 1);
}

#[apply(test)]
fn an_object_that_was_dropped_meanwhile_is_stale_after_a_raw_fork() {
    let go = Queue::<u64>::with_capacity(1).expect("a queue");
    let queue = Queue::<u64>::with_capacity(1).expect("a queue");
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = std::panic::catch_unwind(AssertUnwindSafe(|| {
            // The queue is gone by the time that this one uses it for the first time; the same
            // block may be another's by now.
            go.recv().expect("open");
            i32::from(queue.send(1).is_err() && queue.try_recv().is_err())
        }));
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(code.unwrap_or(99)) };
    }
    drop(queue);
    let next = Queue::<u64>::with_capacity(1).expect("a queue in the same block");
    go.send(0).expect("room");
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    // The child may have attached, and become a holder of what the parent held then, before the
    // parent dropped the queue: it does so at its first use of anything, which waits in `go`.
    // Either it was in time, and used its own queue, or it was told.
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 1, "{status}");
    assert!(next.is_empty(), "the new queue was not touched");
    Segment::commons().expect("the commons").reap().expect("attached");
}

#[apply(test)]
fn a_raw_child_of_a_child_attaches_too() {
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        theirs.send(1).expect("open");
        assert_eq!(
            raw_fork(|| {
                theirs.send(2).expect("open");
                0
            }),
            0
        );
        theirs.send(3).expect("open");
    });
    child.expect("fork").join().expect("no panic");
    assert_eq!((queue.recv(), queue.recv(), queue.recv()), (Ok(1), Ok(2), Ok(3)));
    Segment::commons().expect("the commons").reap().expect("attached");
}

#[apply(test)]
fn a_raw_child_that_execs_is_not_taken_for_alive() {
    let lock = Lock::new(0_u64).expect("a lock");
    let (mut stdin, stdout) = std::io::pipe().expect("a pipe");
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        use std::os::unix::process::CommandExt;
        std::mem::forget(lock.lock());
        let _ = std::process::Command::new("sh")
            .args(["-c", "echo; exec sleep 1000"])
            .stdout(stdout)
            .exec();
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(1) };
    }
    drop(stdout);
    // The new program runs: the old one, which had the lock, is gone for good, although its pid
    // lives.
    std::io::Read::read_exact(&mut stdin, &mut [0]).expect("the new program runs");
    let error = lock.lock_timeout(Duration::from_secs(60)).expect_err("the owner is gone");
    assert!(error.is_owner_died(), "{error}");

    // SAFETY: kills and waits for our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: as above.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    Segment::commons().expect("the commons").reap().expect("attached");
}

#[apply(test)]
fn a_reference_of_the_parents_does_not_reach_shared_memory_in_a_child() {
    let lock: &'static Lock<u64> = Box::leak(Box::new(Lock::new(5_u64).expect("a lock")));
    let guard = Box::leak(Box::new(lock.lock().expect("free")));
    let value: &'static mut u64 = &mut *guard;
    let address = std::ptr::from_mut(value) as usize;
    // The child maps the segment elsewhere, and the old range is closed.
    let queue = Queue::<u64>::with_capacity(1).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        theirs.send(1).expect("open");
        // SAFETY: not safe: shows that the address is dead.
        unsafe { std::ptr::write_volatile(address as *mut u64, 6) };
    });
    let error = child.expect("fork").join().expect_err("a fault");
    assert!(matches!(error, offspring::JoinError::Killed(libc::SIGSEGV)), "{error}");
    assert_eq!(*value, 5);
}

#[apply(test)]
fn a_child_keeps_what_the_parent_drops() {
    for _ in 0..50 {
        let queue = Queue::<u64>::with_capacity(4).expect("a queue");
        let go = Queue::<u64>::with_capacity(1).expect("a queue");
        let (theirs, their_go) = (queue.clone(), go.clone());
        let child = fork(move || {
            // Its first use of `theirs` comes after the parent dropped the queue.
            their_go.recv().expect("open");
            theirs.send(1).expect("open");
            theirs.recv().expect("open")
        });
        drop(queue);
        let _other = Queue::<u64>::with_capacity(4).expect("a queue");
        go.send(0).expect("open");
        assert_eq!(child.expect("fork").join().expect("no panic"), 1);
    }
}

#[apply(test)]
fn an_end_of_a_ring_moves_into_the_child() {
    for _ in 0..20 {
        let (mut sender, mut receiver) = spsc::ring::<u64>(8).expect("a ring");
        sender.send(0).expect("room");
        let child =
            fork(move || (1..1000).for_each(|n| sender.send(n).expect("a ring"))).expect("fork");
        for n in 0..1000 {
            assert_eq!(receiver.recv(), Ok(n));
        }
        child.join().expect("no panic");
    }
}

#[apply(test)]
fn threads_of_a_child_use_what_it_inherited() {
    let queue = QueueOptions::new().capacity(8).wait(Wait::Sleep).create::<u64>().expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let theirs = &theirs;
                scope.spawn(move || {
                    (0..100).for_each(|n| theirs.send(thread << 32 | n).expect("open"))
                });
            }
        });
    });
    let mut sum = 0;
    for _ in 0..400 {
        sum += queue.recv().expect("open") & 0xffff_ffff;
    }
    assert_eq!(sum, 4 * 4950);
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn children_that_use_nothing_leave_nothing() {
    let queue = Queue::<[u8; 1024]>::with_capacity(16).expect("a queue");
    for _ in 0..100 {
        let theirs = queue.clone();
        let child = fork(move || drop(theirs)).expect("fork");
        child.join().expect("no panic");
    }
    assert_eq!(Segment::commons().expect("the commons").reap().expect("attached"), 0);
}

/// Nobody has to clear up: who finds no free entry takes that of a dead peer, and what the dead
/// had is recovered.
#[apply(test)]
fn peers_beyond_the_table_are_an_error_and_come_back() {
    const LONG: Duration = Duration::from_secs(30);
    let segment = Segment::create(1 << 16).expect("a segment");
    let lock = Lock::new_in(&segment, 1_u64).expect("a lock");
    let board = Board::new();
    let theirs = lock.clone();
    let owner = fork(move || {
        std::mem::forget(theirs.lock().expect("free"));
        board.set(0, 1);
        common::sleep_for_ever_returning_nothing();
    });
    let owner = owner.expect("fork");
    common::wait_until("the child has the lock", || board.get(0) == 1);
    // Every entry is taken by children of this one, of which most never use theirs.
    let mut children = Vec::new();
    let refused = loop {
        match fork(common::sleep_for_ever_returning_nothing) {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        assert!(children.len() <= 1024);
    };
    assert!(children.len() >= 1000, "{refused}");
    let stranger = || Errand::send(|| format!("{:?}", lock.lock_timeout(LONG))).answer();
    assert_eq!(stranger(), format!("Err({})", Fault::TooManyPeers));
    owner.kill().expect("kill");
    common::wait_until_dead(owner.id());
    assert_eq!(stranger(), format!("Err({})", LockError::OwnerDied));
    assert_eq!(segment.reap(), Ok(1), "the stranger, and not the owner whose place it had");
    assert!(owner.join().is_err());
    for child in &children {
        child.kill().expect("kill");
    }
    for child in children {
        assert!(child.join().is_err());
    }
    assert_eq!(segment.reap(), Ok(0));
    drop(lock.recover().expect("nobody has it").mark_repaired());
    fork(|| ()).expect("there is room again").join().expect("no panic");
}
