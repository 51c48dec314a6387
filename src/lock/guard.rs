//! Guards: the lock while a thread has it.
//!
//! # Invariants
//! While a guard exists in the process that made it, the lock's word names this process and thread,
//! so the value is the guard's alone.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::object::block::lock::LockBlock;
use crate::object::place::Place;
use crate::segment::Shm;
use crate::sync::lock::{LockState, Locked};

/// A lock that this thread has taken. Dereferences to the value, and unlocks when it is dropped.
///
/// If a panic drops it, the lock is poisoned.
///
/// # Fork
/// In a forked child it is inert: using it panics, and dropping it does nothing.
///
/// # Examples
/// It stays with the thread that locked:
/// ```compile_fail,E0277
/// fn travels<T: Send>() {}
/// travels::<offspring::LockGuard<'static, u64>>();
/// ```
#[must_use = "dropping the guard unlocks at once"]
pub struct LockGuard<'a, T: Shm> {
    place: &'a Place<LockBlock<T>>,
    locked: Locked,
    /// The state in which the value is left at unlock, unless this thread panics.
    leaves: LockState,
    was_panicking: bool,
    /// Only the thread that the word names may unlock.
    this_thread_only: PhantomData<*mut T>,
}

impl<'a, T: Shm> LockGuard<'a, T> {
    #[inline]
    pub(crate) fn new(place: &'a Place<LockBlock<T>>, locked: Locked, leaves: LockState) -> Self {
        let was_panicking = std::thread::panicking();
        LockGuard { place, locked, leaves, was_panicking, this_thread_only: PhantomData }
    }

    #[inline]
    #[track_caller]
    fn check(&self) {
        if !self.place.is_ours() {
            in_a_child();
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn in_a_child() -> ! {
    panic!("a guard of the parent's was used in a forked child: lock again in the child")
}

impl<T: Shm> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        self.check();
        self.place.seat().block.get(&self.locked)
    }
}

impl<T: Shm> DerefMut for LockGuard<'_, T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        self.place.seat().block.get_mut(&mut self.locked)
    }
}

impl<T: Shm> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.leaves != LockState::Clean || std::thread::panicking() || !self.place.is_ours() {
            return unlock_unusually(self.place, self.leaves, self.was_panicking);
        }
        let seat = self.place.seat();
        seat.block.turns().add();
        seat.block.lock().unlock(LockState::Clean);
        seat.event(seat.block.freed()).notify_one();
    }
}

// Does not take the guard by reference, so that the guard needs no place in memory.
#[cold]
#[inline(never)]
fn unlock_unusually<T: Shm>(place: &Place<LockBlock<T>>, leaves: LockState, was_panicking: bool) {
    if !place.is_ours() {
        return;
    }
    let panicked = !was_panicking && std::thread::panicking();
    let left = match leaves {
        LockState::Clean if panicked => LockState::Poisoned,
        state => state,
    };
    let seat = place.seat();
    seat.block.lock().unlock(left);
    let freed = seat.event(seat.block.freed());
    if left == LockState::Clean {
        freed.notify_one();
    } else {
        // Waiters that only want to lock are refused, so none of them would wake the next.
        freed.notify_all();
    }
}

/// As the value. In a forked child, whose parent has the lock, it says so.
impl<T: Shm + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_ours() { (**self).fmt(f) } else { f.write_str("<of the parent>") }
    }
}

/// A lock that this thread has taken in order to repair the value. Made by
/// [`Lock::recover`](crate::Lock::recover).
///
/// Dereferences to the value. Once the value is good, call
/// [`mark_repaired`](RecoveryGuard::mark_repaired). If the guard is dropped instead, the lock keeps
/// its [state](RecoveryGuard::state), and the next [`recover`](crate::Lock::recover) gets it.
/// A panic that drops it leaves a clean lock poisoned.
///
/// # Peer death
/// If this process is killed while it has the guard, the state is [`LockState::OwnerDied`], and the
/// next [`recover`](crate::Lock::recover) gets the lock.
///
/// # Fork
/// As [`LockGuard`].
#[must_use = "dropping the guard leaves the lock as it was"]
pub struct RecoveryGuard<'a, T: Shm> {
    guard: LockGuard<'a, T>,
}

impl<'a, T: Shm> RecoveryGuard<'a, T> {
    #[inline]
    pub(crate) fn new(guard: LockGuard<'a, T>) -> RecoveryGuard<'a, T> {
        RecoveryGuard { guard }
    }

    /// The state of the value: whether there is anything to repair.
    pub fn state(&self) -> LockState {
        self.guard.leaves
    }

    /// Declares the value good, and turns into an ordinary guard.
    pub fn mark_repaired(mut self) -> LockGuard<'a, T> {
        self.guard.leaves = LockState::Clean;
        self.guard
    }
}

impl<T: Shm> Deref for RecoveryGuard<'_, T> {
    type Target = T;

    #[track_caller]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: Shm> DerefMut for RecoveryGuard<'_, T> {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: Shm + fmt::Debug> fmt::Debug for RecoveryGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryGuard")
            .field("state", &self.state())
            .field("value", &self.guard)
            .finish()
    }
}
