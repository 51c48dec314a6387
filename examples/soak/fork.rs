//! [`offspring::fork`] as a safe function, for the parts of the soak.

#![expect(unsafe_code, reason = "forks")]

use offspring::{Child, ForkError, Return};

/// Runs `closure` in a copy of this process, see [`offspring::fork`].
pub(crate) fn fork<F, T>(closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    // SAFETY: the closures use objects of this crate and what they make themselves. The soak has no
    // shared mapping or socket of another crate; the file of its ledger is made to be shared.
    unsafe { offspring::fork(closure) }
}
