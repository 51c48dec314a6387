//! [`offspring::fork`] as a safe function, for tests.

#![expect(unsafe_code, reason = "a test says of itself what its child uses")]

use offspring::{Child, ForkError, Return};

/// Runs `closure` in a copy of this process, see [`offspring::fork`].
pub fn fork<F, T>(closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    // SAFETY: a test has one thread, and runs in a process of its own. Its closures use what the
    // test has made: objects of this crate, plain values, and descriptors that the test knows to be
    // shared. No other crate of the tests has shared memory, and none keeps a descriptor that it
    // believes to be its own. What libtest-mimic, linkme and the tools of the tests have in statics
    // is ordinary memory.
    unsafe { offspring::fork(closure) }
}
