//! A lock over words that must agree, and its repair after the death of an owner.

use std::sync::atomic::Ordering;

use offspring::{LockError, LockGuard, LockTimeoutError, Shm, TryLockError};

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
}

/// How the lock was taken.
enum Taken<'a> {
    Clean(LockGuard<'a, Account>),
    OwnerDied(LockGuard<'a, Account>),
    Poisoned(LockGuard<'a, Account>),
    NotNow,
}

/// Changes the value until the end of the round.
pub fn work(post: &mut Post) {
    let arena = std::sync::Arc::clone(&post.arena);
    let lock = arena.lock.with_wait(post.some_wait());
    while !post.is_stopping() {
        post.rest();
        let time = post.some_time();
        let taken = match post.random.below(8) {
            0 => post.run("try_lock", || match lock.try_lock() {
                Ok(guard) => Taken::Clean(guard),
                Err(TryLockError::OwnerDied(guard)) => Taken::OwnerDied(guard),
                Err(TryLockError::Poisoned(guard)) => Taken::Poisoned(guard),
                Err(TryLockError::WouldBlock) => Taken::NotNow,
                Err(error) => panic!("{error}"),
            }),
            1 => post.run("lock_timeout", || match lock.lock_timeout(time) {
                Ok(guard) => Taken::Clean(guard),
                Err(LockTimeoutError::OwnerDied(guard)) => Taken::OwnerDied(guard),
                Err(LockTimeoutError::Poisoned(guard)) => Taken::Poisoned(guard),
                Err(LockTimeoutError::Timeout) => Taken::NotNow,
                Err(error) => panic!("{error}"),
            }),
            _ => post.run("lock", || match lock.lock() {
                Ok(guard) => Taken::Clean(guard),
                Err(LockError::OwnerDied(guard)) => Taken::OwnerDied(guard),
                Err(LockError::Poisoned(guard)) => Taken::Poisoned(guard),
                Err(error) => panic!("{error}"),
            }),
        };
        own(post, taken);
    }
}

/// What an owner does: checks, changes one word after the other, and says outside of the lock that
/// it has it.
fn own(post: &mut Post, taken: Taken<'_>) {
    let owner = |post: &Post| post.ledger().lock_owner.swap(post.id(), Ordering::SeqCst);
    let (mut guard, consistent) = match taken {
        Taken::NotNow => return,
        Taken::Clean(guard) => {
            // Whoever unlocks in good order has taken its name away before.
            let consistent = owner(post) == 0 && guard.is_whole();
            (guard, consistent)
        }
        Taken::OwnerDied(guard) => {
            post.tally().owner_died.fetch_add(1, Ordering::Relaxed);
            owner(post);
            if post.random.once_in(16) {
                // Leaves the repair to the next one, who is told that the lock is poisoned.
                release(post);
                return drop(guard);
            }
            (guard.recover(), true)
        }
        Taken::Poisoned(guard) => {
            owner(post);
            (guard.recover(), true)
        }
    };
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
