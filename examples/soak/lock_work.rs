//! A lock over words that must agree, and its repair after the death of an owner.

use std::sync::atomic::Ordering;

use offspring::{Lock, LockGuard, LockState, LockTimeoutError, Shm, TryLockError};

use crate::message::body;
use crate::post::Post;

const WORDS: usize = 6;

/// A version, and words that follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Shm)]
#[repr(C)]
pub struct Account {
    version: u64,
    words: [u64; WORDS],
}

impl Account {
    pub fn of(version: u64) -> Account {
        Account { version, words: body(version, 0) }
    }

    pub fn is_whole(&self) -> bool {
        *self == Account::of(self.version)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Goes on to the next version, one word after the other, and calls `meanwhile` in the middle.
    pub fn change(&mut self, meanwhile: impl FnOnce()) {
        let next = Account::of(self.version.wrapping_add(1));
        self.version = next.version;
        let (first, second) = self.words.split_at_mut(WORDS / 2);
        first.copy_from_slice(&next.words[..WORDS / 2]);
        meanwhile();
        second.copy_from_slice(&next.words[WORDS / 2..]);
    }
}

/// Changes the value until the end of the round.
pub fn work(post: &mut Post) {
    let arena = std::sync::Arc::clone(&post.arena);
    let lock = arena.lock.with_wait(post.some_wait());
    while !post.is_stopping() {
        post.rest();
        let time = post.some_time();
        let taken = match post.random.below(8) {
            0 => post.run("try_lock", || lock.try_lock()),
            1 => post.run("lock_timeout", || lock.lock_timeout(time)).map_err(in_one_way),
            _ => post.run("lock", || lock.lock()).map_err(TryLockError::from),
        };
        match taken {
            // Whoever unlocks in good order has taken its name away before.
            Ok(guard) => {
                let consistent = take_over(post) == 0 && guard.is_whole();
                own(post, guard, consistent);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::OwnerDied) => repair(post, &lock),
            Err(error) => panic!("{error}"),
        }
    }
}

fn in_one_way(error: LockTimeoutError) -> TryLockError {
    match error {
        LockTimeoutError::Timeout => TryLockError::WouldBlock,
        LockTimeoutError::OwnerDied => TryLockError::OwnerDied,
        LockTimeoutError::Poisoned => TryLockError::Poisoned,
        LockTimeoutError::WouldDeadlock => TryLockError::WouldDeadlock,
        LockTimeoutError::Broken(fault) => TryLockError::Broken(fault),
    }
}

/// Puts the name of this process in place of whose it was.
fn take_over(post: &Post) -> u64 {
    post.ledger().lock_owner.swap(post.id(), Ordering::SeqCst)
}

/// Takes the lock over from a dead owner, unless somebody else was first.
fn repair(post: &mut Post, lock: &Lock<Account>) {
    let guard = post.run("recover", || lock.recover()).unwrap_or_else(|error| panic!("{error}"));
    let before = take_over(post);
    let consistent = match guard.state() {
        LockState::Clean => before == 0 && guard.is_whole(),
        _ => {
            post.tally().owner_died.fetch_add(1, Ordering::Relaxed);
            if post.random.once_in(16) {
                // Leaves the repair to the next one.
                release(post);
                return drop(guard);
            }
            true
        }
    };
    own(post, guard.mark_repaired(), consistent);
}

/// What an owner does: checks, changes one word after the other, and says outside of the lock that
/// it has it.
fn own(post: &mut Post, mut guard: LockGuard<'_, Account>, consistent: bool) {
    if !consistent {
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
    let next = Account::of(guard.version.wrapping_add(1));
    guard.version = next.version;
    for index in 0..WORDS {
        if index == WORDS / 2 {
            post.linger();
        }
        guard.words[index] = next.words[index];
    }
    if *guard != next {
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
    release(post);
    drop(guard);
}

/// Takes the name away; if it was not ours any more, the lock was taken from the living.
fn release(post: &Post) {
    if post.ledger().lock_owner.swap(0, Ordering::SeqCst) != post.id() {
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
}
