//! Why a lock was not taken.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::attempt::{same_cases, three_forms};
use crate::peer::Fault;
use crate::sys::error::debug_in_one_line;

/// Error of [`Lock::lock`](crate::Lock::lock) and [`Lock::recover`](crate::Lock::recover): the lock
/// was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockError {
    /// An owner ended while it had the lock, killed or not, and nobody has repaired the value
    /// since. See [`Lock::recover`](crate::Lock::recover).
    OwnerDied,
    /// An owner panicked while it had the lock, and nobody has repaired the value since. See
    /// [`Lock::recover`](crate::Lock::recover).
    Poisoned,
    /// This thread has the lock already, so waiting for it would never end.
    WouldDeadlock,
    /// The lock cannot be used.
    Broken(Fault),
}

/// Error of [`Lock::try_lock`](crate::Lock::try_lock) and
/// [`Lock::try_recover`](crate::Lock::try_recover): the lock was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TryLockError {
    /// Somebody else has the lock; a later attempt may succeed.
    WouldBlock,
    /// As [`LockError::OwnerDied`].
    OwnerDied,
    /// As [`LockError::Poisoned`].
    Poisoned,
    /// As [`LockError::WouldDeadlock`].
    WouldDeadlock,
    /// As [`LockError::Broken`].
    Broken(Fault),
}

/// Error of [`Lock::lock_timeout`](crate::Lock::lock_timeout) and of the other forms with a
/// deadline: the lock was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockTimeoutError {
    /// Somebody else had the lock until the time was over; a later attempt may succeed.
    Timeout,
    /// As [`LockError::OwnerDied`].
    OwnerDied,
    /// As [`LockError::Poisoned`].
    Poisoned,
    /// As [`LockError::WouldDeadlock`].
    WouldDeadlock,
    /// As [`LockError::Broken`].
    Broken(Fault),
}

impl LockError {
    /// Whether the value must be repaired first: see [`Lock::recover`](crate::Lock::recover).
    pub fn needs_recovery(&self) -> bool {
        matches!(self, LockError::OwnerDied | LockError::Poisoned)
    }

    /// Whether an owner ended while it had the lock, and nobody has repaired the value since.
    pub fn is_owner_died(&self) -> bool {
        matches!(self, LockError::OwnerDied)
    }

    /// Whether an owner panicked while it had the lock, and nobody has repaired the value since.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, LockError::Poisoned)
    }
}

impl TryLockError {
    /// Whether the value must be repaired first: see [`Lock::recover`](crate::Lock::recover).
    pub fn needs_recovery(&self) -> bool {
        matches!(self, TryLockError::OwnerDied | TryLockError::Poisoned)
    }

    /// Whether an owner ended while it had the lock, and nobody has repaired the value since.
    pub fn is_owner_died(&self) -> bool {
        matches!(self, TryLockError::OwnerDied)
    }

    /// Whether an owner panicked while it had the lock, and nobody has repaired the value since.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, TryLockError::Poisoned)
    }
}

impl LockTimeoutError {
    /// Whether the value must be repaired first: see [`Lock::recover`](crate::Lock::recover).
    pub fn needs_recovery(&self) -> bool {
        matches!(self, LockTimeoutError::OwnerDied | LockTimeoutError::Poisoned)
    }

    /// Whether an owner ended while it had the lock, and nobody has repaired the value since.
    pub fn is_owner_died(&self) -> bool {
        matches!(self, LockTimeoutError::OwnerDied)
    }

    /// Whether an owner panicked while it had the lock, and nobody has repaired the value since.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, LockTimeoutError::Poisoned)
    }
}

same_cases!(LockError => TryLockError: OwnerDied, Poisoned, WouldDeadlock);
same_cases!(LockError => LockTimeoutError: OwnerDied, Poisoned, WouldDeadlock);
three_forms!(LockError, TryLockError::WouldBlock, LockTimeoutError::Timeout);
debug_in_one_line!(LockError, TryLockError, LockTimeoutError);

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockError::OwnerDied => {
                "an owner of the lock died while it had the lock: recover() it first"
            }
            LockError::Poisoned => {
                "an owner of the lock panicked while it had the lock: recover() it first"
            }
            LockError::WouldDeadlock => "this thread has the lock already",
            LockError::Broken(fault) => return fmt::Display::fmt(fault, f),
        })
    }
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::WouldBlock => f.write_str("somebody else has the lock"),
            TryLockError::OwnerDied => fmt::Display::fmt(&LockError::OwnerDied, f),
            TryLockError::Poisoned => fmt::Display::fmt(&LockError::Poisoned, f),
            TryLockError::WouldDeadlock => fmt::Display::fmt(&LockError::WouldDeadlock, f),
            TryLockError::Broken(fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl fmt::Display for LockTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTimeoutError::Timeout => f.write_str("somebody else had the lock all the time"),
            LockTimeoutError::OwnerDied => fmt::Display::fmt(&LockError::OwnerDied, f),
            LockTimeoutError::Poisoned => fmt::Display::fmt(&LockError::Poisoned, f),
            LockTimeoutError::WouldDeadlock => fmt::Display::fmt(&LockError::WouldDeadlock, f),
            LockTimeoutError::Broken(fault) => fmt::Display::fmt(fault, f),
        }
    }
}

impl Error for LockError {}
impl Error for TryLockError {}
impl Error for LockTimeoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_says_the_same_in_the_same_words() {
        let all = [LockError::OwnerDied, LockError::Poisoned, LockError::WouldDeadlock];
        for error in all.into_iter().chain([LockError::Broken(Fault::Stale)]) {
            assert_eq!(format!("{error:?}"), error.to_string());
            assert_eq!(TryLockError::from(error).to_string(), error.to_string());
            assert_eq!(LockTimeoutError::from(error).to_string(), error.to_string());
            assert_eq!(TryLockError::from(error).needs_recovery(), error.needs_recovery());
            assert_eq!(LockTimeoutError::from(error).needs_recovery(), error.needs_recovery());
        }
        for error in [LockError::OwnerDied, LockError::Poisoned] {
            let (died, poisoned) = (error == LockError::OwnerDied, error == LockError::Poisoned);
            assert_eq!((error.is_owner_died(), error.is_poisoned()), (died, poisoned));
            let other = TryLockError::from(error);
            assert_eq!((other.is_owner_died(), other.is_poisoned()), (died, poisoned));
            let other = LockTimeoutError::from(error);
            assert_eq!((other.is_owner_died(), other.is_poisoned()), (died, poisoned));
        }
        assert!(LockError::OwnerDied.needs_recovery() && LockError::Poisoned.needs_recovery());
        assert!(!LockError::WouldDeadlock.needs_recovery());
        assert!(!TryLockError::WouldBlock.needs_recovery());
        assert!(!LockTimeoutError::Timeout.needs_recovery());
    }

    #[test]
    fn errors_go_wherever_a_question_mark_sends_them() {
        fn goes<E: Error + Send + Sync + 'static>() {}
        goes::<LockError>();
        goes::<TryLockError>();
        goes::<LockTimeoutError>();
    }
}
