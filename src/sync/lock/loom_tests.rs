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

struct Shared {
    lock: RawLock,
    freed: Event,
    data: UnsafeCell<u32>,
}

// SAFETY: `data` is touched with the lock held only, which is what the models check.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared { lock: RawLock::new(), freed: Event::new(), data: UnsafeCell::new(0) })
    }

    /// Tries until `attempt` succeeds, and sleeps in between. An owner in the way is taken for dead
    /// if `is_dead` says so.
    fn wait<R>(
        &self,
        is_dead: impl Fn(u32) -> bool,
        attempt: impl Fn() -> Result<R, Refused>,
    ) -> Result<R, LockState> {
        let attempt = |_| loop {
            return match attempt() {
                Ok(done) => Ok(Ok(done)),
                Err(Refused::Unclean(state)) => Ok(Err(state)),
                Err(Refused::Held(held)) if is_dead(held.owner()) => {
                    if self.lock.declare_dead(held) {
                        self.event().notify_all();
                    }
                    continue;
                }
                Err(Refused::Held(_)) => Err(Obstacle::Owner),
                Err(other) => panic!("{other:?}"),
            };
        };
        let patience = Patience::new();
        wait(&[self.event()], Wait::Sleep, &patience, Deadline::NEVER, attempt)
            .expect("there is no deadline")
    }

    fn lock(&self, me: Owner, is_dead: impl Fn(u32) -> bool) -> Result<Locked, LockState> {
        match self.lock.lock_free(me) {
            Some(locked) => Ok(locked),
            None => self.wait(is_dead, || self.lock.try_lock(me)),
        }
    }

    fn recover(&self, me: Owner, is_dead: impl Fn(u32) -> bool) -> LockState {
        match self.wait(is_dead, || self.lock.try_recover(me)) {
            Ok((_locked, state)) => state,
            Err(state) => panic!("refused to repair what is {state:?}"),
        }
    }

    fn event(&self) -> EventRef<'_> {
        self.freed.with(Fences::Symmetric)
    }

    fn unlock(&self, state: LockState) {
        self.lock.unlock(state);
        if state == LockState::Clean {
            self.event().notify_one()
        } else {
            self.event().notify_all()
        }
    }

    /// Adds one to the data, in two steps.
    fn add(&self) -> u32 {
        // SAFETY: the caller has the lock; loom reports any other access.
        let before = self.data.with(|data| unsafe { *data });
        // SAFETY: as above.
        self.data.with_mut(|data| unsafe { *data = before + 1 });
        before + 1
    }

    /// What the reaper does.
    fn release_dead(&self) {
        if self.lock.release_dead(DEAD.peer) {
            self.freed.wake_all_unasked();
        }
    }

    /// Adds one, unless the data must be repaired first.
    fn lock_add_unlock(&self, me: Owner) -> Result<(), LockState> {
        self.lock(me, |_| false)?;
        assert_eq!(self.lock.try_lock(me).err(), Some(Refused::WouldDeadlock));
        self.add();
        self.unlock(LockState::Clean);
        Ok(())
    }

    /// Adds one, whatever the state is, and says that the data are good.
    fn recover_add_unlock(&self, me: Owner, is_dead: impl Fn(u32) -> bool) -> LockState {
        let state = self.recover(me, is_dead);
        self.add();
        self.unlock(LockState::Clean);
        state
    }

    /// The data, when all is over.
    fn data(&self) -> u32 {
        assert!(self.lock.lock_free(MAIN).is_some());
        self.add() - 1
    }

    /// A lock whose owner was killed after it had written.
    fn orphaned() -> Arc<Shared> {
        let shared = Shared::new();
        let dead = {
            let shared = shared.clone();
            thread::spawn(move || {
                assert!(shared.lock.lock_free(DEAD).is_some());
                shared.add();
            })
        };
        // A process that knows another to be dead knows that all its stores have happened.
        dead.join().unwrap();
        shared
    }
}

fn is_dead(owner: u32) -> bool {
    owner == DEAD.peer
}

/// Acceptable: each adds one, in some order, and the sleeper wakes.
#[test]
fn two_threads_exclude_each_other_and_wake_each_other() {
    loom::model(|| {
        let shared = Shared::new();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(A))
        };
        assert_eq!(shared.lock_add_unlock(MAIN), Ok(()));
        assert_eq!(shared.lock_add_unlock(MAIN), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        assert_eq!(shared.data(), 3);
    });
}

/// The word cannot say how many sleep. Acceptable: everybody gets the lock in the end.
#[test]
fn two_sleepers_behind_an_owner_both_wake() {
    loom::model(|| {
        let shared = Shared::new();
        assert!(shared.lock.lock_free(MAIN).is_some());
        let waiters = [A, B].map(|me| {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(me))
        });
        shared.add();
        shared.unlock(LockState::Clean);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
        assert_eq!(shared.data(), 3);
    });
}

/// Only the reaper knows of the death; the process that repairs knows only that the lock is free.
/// Acceptable: it sees what the dead owner wrote.
#[test]
fn a_reaper_hands_on_what_the_dead_owner_wrote() {
    loom::model(|| {
        let shared = Shared::new();
        let dead = {
            let shared = shared.clone();
            thread::spawn(move || {
                if shared.lock.lock_free(DEAD).is_some() {
                    shared.add();
                }
            })
        };
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                dead.join().unwrap();
                shared.release_dead();
            })
        };
        let written = match shared.recover(MAIN, |_| false) {
            LockState::Clean => 0,
            LockState::OwnerDied => 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(shared.add(), written + 1);
        shared.unlock(LockState::Clean);
        reaper.join().unwrap();
    });
}

/// Acceptable: the owner gets the error, whether others have begun to wait or not; another thread
/// of its process does not.
#[test]
fn an_owner_that_locks_again_is_told_so() {
    loom::model(|| {
        let shared = Shared::new();
        assert!(shared.lock.lock_free(MAIN).is_some());
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(A))
        };
        assert_eq!(shared.lock.try_lock(MAIN).err(), Some(Refused::WouldDeadlock));
        assert!(matches!(shared.lock.try_recover(MAIN), Err(Refused::WouldDeadlock)));
        let sibling = Owner { thread: 2, ..MAIN };
        let theirs = shared.lock.try_lock(sibling);
        assert!(matches!(theirs, Err(Refused::Held(held)) if held.owner() == MAIN.peer));
        shared.unlock(LockState::Clean);
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
}

/// An owner panics while two wait. One of them comes to repair. Acceptable: that one finds the lock
/// poisoned; the other is refused, or comes after the repair.
#[test]
fn a_poisoned_lock_is_given_to_who_repairs_it() {
    loom::model(|| {
        let shared = Shared::new();
        assert!(shared.lock.lock_free(MAIN).is_some());
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(A))
        };
        let repairer = {
            let shared = shared.clone();
            thread::spawn(move || shared.recover_add_unlock(B, |_| false))
        };
        shared.unlock(LockState::Poisoned);
        assert_eq!(repairer.join().unwrap(), LockState::Poisoned);
        let waited = waiter.join().unwrap();
        assert!(matches!(waited, Ok(()) | Err(LockState::Poisoned)));
        assert_eq!(shared.data(), 1 + u32::from(waited.is_ok()));
    });
}

/// Both find the owner dead at the same time, and come to repair. Acceptable: they do so one after
/// the other, and the second finds the lock repaired.
#[test]
fn two_that_repair_never_do_so_at_once() {
    loom::model(|| {
        let shared = Shared::orphaned();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.recover_add_unlock(A, is_dead))
        };
        let mine = shared.recover_add_unlock(MAIN, is_dead);
        let mut states = [mine, other.join().unwrap()];
        states.sort_unstable_by_key(|&state| state == LockState::Clean);
        assert_eq!(states, [LockState::OwnerDied, LockState::Clean]);
        assert_eq!(shared.data(), 3);
    });
}

/// One sleeps behind the dead owner, another finds out, and does not repair. Acceptable: both are
/// refused, so the sleeper wakes.
#[test]
fn whoever_finds_the_owner_dead_wakes_who_slept_behind_it() {
    loom::model(|| {
        let shared = Shared::orphaned();
        let sleeper = {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(A))
        };
        assert_eq!(shared.lock(MAIN, is_dead).err(), Some(LockState::OwnerDied));
        assert_eq!(sleeper.join().unwrap(), Err(LockState::OwnerDied));
        assert_eq!(shared.recover_add_unlock(MAIN, |_| false), LockState::OwnerDied);
        assert_eq!(shared.data(), 2);
    });
}

/// Acceptable: the reaper's wake-up reaches all sleepers: one that repairs, and one that is refused
/// or comes after the repair.
#[test]
fn sleepers_behind_a_dead_owner_wake_when_it_is_reaped() {
    loom::model(|| {
        let shared = Shared::orphaned();
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || shared.lock_add_unlock(A))
        };
        let repairer = {
            let shared = shared.clone();
            thread::spawn(move || shared.recover_add_unlock(B, |_| false))
        };
        shared.release_dead();
        assert_eq!(repairer.join().unwrap(), LockState::OwnerDied);
        let waited = waiter.join().unwrap();
        assert!(matches!(waited, Ok(()) | Err(LockState::OwnerDied)));
        assert_eq!(shared.data(), 2 + u32::from(waited.is_ok()));
    });
}

/// A reaper comes at the same time as a process that repairs. Acceptable: the reaper does not take
/// the lock from that process.
#[test]
fn a_reaper_takes_nothing_from_who_repairs() {
    loom::model(|| {
        let shared = Shared::orphaned();
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || shared.release_dead())
        };
        assert_eq!(shared.recover(MAIN, is_dead), LockState::OwnerDied);
        assert_eq!(shared.add(), 2);
        assert_eq!(shared.lock.try_lock(MAIN).err(), Some(Refused::WouldDeadlock));
        shared.unlock(LockState::Clean);
        reaper.join().unwrap();
        assert_eq!(shared.lock_add_unlock(MAIN), Ok(()));
    });
}
