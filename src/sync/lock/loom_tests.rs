//! Models of the lock word, sleeping through the blocking loop. The mocked kernel knows no
//! timeouts, so a lost wake-up is a deadlock, which loom reports. The locked data lie in a cell
//! that reports two accesses without order between them.
#![expect(unsafe_code, reason = "the locked data are reached by pointers, as in a segment")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sync::event::{Event, EventRef};
use crate::sync::spin::Patience;
use crate::sync::wait::{Obstacle, Wait, wait};
use crate::sys::barrier::Fences;
use crate::sys::clock::Deadline;

const MAIN: Owner = Owner { peer: 1, thread: 1 };
const A: Owner = Owner { peer: 2, thread: 1 };
const B: Owner = Owner { peer: 3, thread: 1 };
const DEAD: Owner = Owner { peer: 9, thread: 4 };

struct Locked {
    lock: RawLock,
    freed: Event,
    data: UnsafeCell<u32>,
}

// SAFETY: `data` is touched with the lock held only, which is what the models check.
unsafe impl Sync for Locked {}
// SAFETY: as for `Sync`.
unsafe impl Send for Locked {}

impl Locked {
    fn new() -> Arc<Locked> {
        Arc::new(Locked { lock: RawLock::new(), freed: Event::new(), data: UnsafeCell::new(0) })
    }

    /// Locks, sleeping as long as need be. An owner in the way is taken for dead if `is_dead` says
    /// so.
    fn lock(&self, me: Owner, is_dead: impl Fn(u32) -> bool) -> Acquired {
        if self.lock.lock_free(me) {
            return Acquired::Clean;
        }
        let attempt = |_| match self.lock.try_lock(me) {
            Ok(acquired) => Ok(acquired),
            Err(Refused::Held(held)) if is_dead(held.owner()) && self.lock.succeed(me, held) => {
                Ok(Acquired::OwnerDied)
            }
            Err(Refused::Held(_)) => Err(Obstacle::Owner),
            Err(other) => panic!("{other:?}"),
        };
        let patience = Patience::new();
        wait(self.event(), Wait::Sleep, &patience, Deadline::NEVER, attempt)
            .expect("there is no deadline")
    }

    fn event(&self) -> EventRef<'_> {
        self.freed.with(Fences::Symmetric)
    }

    fn unlock(&self, poisoned: bool) {
        self.lock.unlock(poisoned);
        self.event().notify_one();
    }

    /// Adds one to the data, in two steps.
    fn add(&self) -> u32 {
        // SAFETY: the caller has the lock; loom reports whoever else is there.
        let before = self.data.with(|data| unsafe { *data });
        // SAFETY: as above.
        self.data.with_mut(|data| unsafe { *data = before + 1 });
        before + 1
    }

    /// As the reaper does it.
    fn release_dead(&self) {
        if self.lock.release_dead(DEAD.peer) {
            self.freed.wake_all_unasked();
        }
    }

    fn lock_add_unlock(&self, me: Owner) -> Acquired {
        let acquired = self.lock(me, |_| false);
        assert_eq!(self.lock.try_lock(me), Err(Refused::WouldDeadlock));
        self.add();
        self.unlock(false);
        acquired
    }

    /// A lock whose owner was killed after it had written.
    fn orphaned() -> Arc<Locked> {
        let locked = Locked::new();
        let dead = {
            let locked = locked.clone();
            thread::spawn(move || {
                assert!(locked.lock.lock_free(DEAD));
                locked.add();
            })
        };
        // Whoever knows that a process is dead knows that all its stores have happened.
        dead.join().unwrap();
        locked
    }
}

/// Acceptable: each adds one, in some order, and the sleeper wakes.
#[test]
fn two_threads_exclude_each_other_and_wake_each_other() {
    loom::model(|| {
        let locked = Locked::new();
        let other = {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(A))
        };
        assert_eq!(locked.lock_add_unlock(MAIN), Acquired::Clean);
        assert_eq!(locked.lock_add_unlock(MAIN), Acquired::Clean);
        assert_eq!(other.join().unwrap(), Acquired::Clean);
        assert!(locked.lock.lock_free(MAIN));
        assert_eq!(locked.add(), 4);
    });
}

/// The word cannot say how many sleep. Acceptable: everybody gets the lock in the end.
#[test]
fn two_sleepers_behind_an_owner_both_wake() {
    loom::model(|| {
        let locked = Locked::new();
        assert!(locked.lock.lock_free(MAIN));
        let waiters = [A, B].map(|me| {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(me))
        });
        locked.add();
        locked.unlock(false);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Acquired::Clean);
        }
        assert!(locked.lock.lock_free(MAIN));
        assert_eq!(locked.add(), 4);
    });
}

/// The reaper alone knows of the death, and the successor only of the free lock. Acceptable: it
/// sees what the dead owner wrote.
#[test]
fn a_reaper_hands_on_what_the_dead_owner_wrote() {
    loom::model(|| {
        let locked = Locked::new();
        let dead = {
            let locked = locked.clone();
            thread::spawn(move || {
                if locked.lock.lock_free(DEAD) {
                    locked.add();
                }
            })
        };
        let reaper = {
            let locked = locked.clone();
            thread::spawn(move || {
                dead.join().unwrap();
                locked.release_dead();
            })
        };
        let written = match locked.lock(MAIN, |_| false) {
            Acquired::Clean => 0,
            Acquired::OwnerDied => 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(locked.add(), written + 1);
        locked.unlock(false);
        reaper.join().unwrap();
    });
}

/// Acceptable: the owner is told, whether others have begun to wait or not; another thread of its
/// process is not.
#[test]
fn an_owner_that_locks_again_is_told_so() {
    loom::model(|| {
        let locked = Locked::new();
        assert!(locked.lock.lock_free(MAIN));
        let waiter = {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(A))
        };
        assert_eq!(locked.lock.try_lock(MAIN), Err(Refused::WouldDeadlock));
        let sibling = Owner { thread: 2, ..MAIN };
        assert!(
            matches!(locked.lock.try_lock(sibling), Err(Refused::Held(held)) if held.owner() == MAIN.peer)
        );
        locked.unlock(false);
        waiter.join().unwrap();
    });
}

/// Acceptable: exactly one of the next two is told that the data are poisoned, as it unlocks in
/// good order.
#[test]
fn a_poisoned_lock_is_poisoned_for_whoever_comes_next() {
    loom::model(|| {
        let locked = Locked::new();
        assert!(locked.lock.lock_free(DEAD));
        let waiter = {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(A))
        };
        locked.unlock(true);
        let mine = locked.lock_add_unlock(MAIN);
        let waiters = waiter.join().unwrap();
        assert!(matches!(
            (mine, waiters),
            (Acquired::Poisoned, Acquired::Clean) | (Acquired::Clean, Acquired::Poisoned)
        ));
    });
}

/// Both find the owner dead at the same time. Acceptable: one succeeds it and is told; the other
/// waits and finds the lock clean.
#[test]
fn one_of_two_successors_is_told_that_the_owner_died() {
    loom::model(|| {
        let locked = Locked::orphaned();
        let lock_add_unlock = |locked: &Locked, me| {
            let acquired = locked.lock(me, |owner| owner == DEAD.peer);
            locked.add();
            locked.unlock(false);
            acquired
        };
        let other = {
            let locked = locked.clone();
            thread::spawn(move || lock_add_unlock(&locked, A))
        };
        let mine = lock_add_unlock(&locked, MAIN);
        let other = other.join().unwrap();
        assert!(matches!(
            (mine, other),
            (Acquired::OwnerDied, Acquired::Clean) | (Acquired::Clean, Acquired::OwnerDied)
        ));
        assert!(locked.lock.lock_free(MAIN));
        assert_eq!(locked.add(), 4);
    });
}

/// One sleeps behind the dead owner, another finds out. Acceptable: the successor is told, and
/// wakes the sleeper when it unlocks.
#[test]
fn a_successor_wakes_who_slept_behind_the_dead_owner() {
    loom::model(|| {
        let locked = Locked::orphaned();
        let sleeper = {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(A))
        };
        assert_eq!(locked.lock(MAIN, |owner| owner == DEAD.peer), Acquired::OwnerDied);
        locked.add();
        locked.unlock(false);
        assert_eq!(sleeper.join().unwrap(), Acquired::Clean);
    });
}

/// Acceptable: the reaper's wake-up reaches a sleeper, the first to lock is told and wakes the
/// other.
#[test]
fn sleepers_behind_a_dead_owner_wake_when_it_is_reaped() {
    loom::model(|| {
        let locked = Locked::orphaned();
        let waiters = [A, B].map(|me| {
            let locked = locked.clone();
            thread::spawn(move || locked.lock_add_unlock(me))
        });
        locked.release_dead();
        let mut told = waiters.map(|waiter| waiter.join().unwrap());
        told.sort_unstable_by_key(|acquired| *acquired == Acquired::OwnerDied);
        assert_eq!(told, [Acquired::Clean, Acquired::OwnerDied]);
        assert!(locked.lock.lock_free(MAIN));
        assert_eq!(locked.add(), 4);
    });
}

/// A reaper and a successor come at the same time, and then a second locks. Acceptable: one of the
/// two is told, whoever wins; the reaper does not take the lock from the successor.
#[test]
fn a_reaper_and_a_successor_do_not_both_take_the_word() {
    loom::model(|| {
        let locked = Locked::orphaned();
        let reaper = {
            let locked = locked.clone();
            thread::spawn(move || locked.release_dead())
        };
        let first = locked.lock(MAIN, |owner| owner == DEAD.peer);
        assert_eq!(first, Acquired::OwnerDied);
        assert_eq!(locked.add(), 2);
        assert_eq!(locked.lock.try_lock(MAIN), Err(Refused::WouldDeadlock));
        locked.unlock(false);
        reaper.join().unwrap();
        assert_eq!(locked.lock_add_unlock(MAIN), Acquired::Clean);
    });
}
