//! The handle of a child, and how a child ends.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::family::{self, Kin};
use crate::process::outcome::{Outcome, OutcomeFile};
use crate::process::panic_info::PanicInfo;
use crate::sys::clock::Deadline;
use crate::sys::error::{self, OsError, Word};
use crate::sys::process::Ending;

/// A child process that runs a closure with a value of type `T`; made by [`fork`](crate::fork).
///
/// Shaped like [`std::thread::JoinHandle`]: [`join`](Child::join) waits for the value, and dropping
/// the handle lets the child run on by itself. A dropped child still ends with this process. Once
/// it is dead it is waited for at the next fork, or when the next handle is dropped, so that at
/// most the children that died since then are zombies.
///
/// The handle may be sent to another thread, and is readable in `poll` and its likes ([`AsFd`])
/// when the child has ended.
///
/// # Fork
/// Only the process that forked a child can wait for it or signal it. In any other process that
/// inherited the handle, in a captured variable, say, it is inert: the methods say
/// [`JoinError::NotOurChild`] or the like, and dropping it does nothing.
///
/// # Examples
/// ```
/// use offspring::JoinError;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sum = offspring::fork(|| (1..=1000).sum::<u64>())?;
/// let failure = offspring::fork(|| -> u64 { panic!("no sum today") })?;
///
/// assert_eq!(sum.join()?, 500_500);
/// match failure.join() {
///     Err(JoinError::Panicked(panic)) => assert_eq!(panic.message, "no sum today"),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a child whose handle is dropped runs on, and its value is lost"]
pub struct Child<T> {
    kin: Arc<Kin>,
    /// How the child has ended, once that is known.
    ending: Option<Ending>,
    /// Whether the value was handed out, or will never be.
    joined: bool,
    /// Reads the child's record. Chosen where `T` is known to be `'static`, so that `join` needs
    /// not ask for it.
    read: fn(&OutcomeFile) -> Result<Option<Outcome<T>>, OsError>,
}

impl<T> Child<T> {
    pub(super) fn new(kin: Arc<Kin>) -> Child<T>
    where
        T: DeserializeOwned + 'static,
    {
        Child { kin, ending: None, joined: false, read: OutcomeFile::read }
    }

    /// Returns the child's process id. It names this child until it was joined; later the kernel
    /// may give it to another process.
    pub fn id(&self) -> u32 {
        self.kin.pid()
    }

    /// Says whether the child runs, is stopped, or otherwise has not ended yet.
    ///
    /// `false` is final; `true` may have changed by the time it is read. Also `false` in a process
    /// that is not its parent. A child that was killed under a debugger is not alive; it can be
    /// joined once the debugger has waited for it.
    pub fn is_alive(&self) -> bool {
        self.kin.is_ours() && !self.kin.has_ended()
    }

    /// Asks the child to end, by `SIGTERM`. Without a handler of its own for it, the child does.
    ///
    /// # Errors
    /// As [`signal`](Child::signal).
    ///
    /// # Examples
    /// ```
    /// use offspring::JoinError;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let child = offspring::fork(|| loop { std::thread::sleep(Duration::from_secs(1)) })?;
    /// # let child: offspring::Child<()> = child;
    /// child.terminate()?;
    /// assert!(matches!(child.join(), Err(JoinError::Killed(15))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Kills the child, by `SIGKILL`.
    ///
    /// # Errors
    /// As [`signal`](Child::signal).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to the child, and never to another process that got its process id later.
    ///
    /// A child that has ended, but was not joined yet, takes every signal without effect.
    ///
    /// # Errors
    /// `ESRCH` if the child was joined, or is not a child of this process; `EINVAL` if there is no
    /// such signal; `EPERM` if the child has become another user.
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if !self.kin.is_ours() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(self.kin.signal(signal)?)
    }
}

impl<T: DeserializeOwned> Child<T> {
    /// Waits for the child to end, and returns the closure's value.
    ///
    /// # Blocking
    /// Until the child has ended; for ever if it never does.
    ///
    /// # Peer death
    /// A child that was killed is told by [`JoinError::Killed`]. What it owned and held in shared
    /// memory has been given back when this returns. A child that was killed after its value was
    /// sent counts as one that returned.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Panics
    /// If the [`Deserialize`] of `T` does. This is so for the other forms, too.
    pub fn join(mut self) -> Result<T, JoinError> {
        // `NEVER` passes never, so there is always an answer.
        self.join_by(Deadline::NEVER).unwrap_or(Err(JoinError::AlreadyJoined))
    }

    /// Returns the closure's value if the child has ended, `None` if not.
    ///
    /// After it has returned `Some`, it returns [`JoinError::AlreadyJoined`].
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::after(Duration::ZERO))
    }

    /// Waits at most `timeout` for the child to end, and returns the closure's value; `None` if it
    /// still runs then.
    ///
    /// After it has returned `Some`, it returns [`JoinError::AlreadyJoined`].
    ///
    /// # Blocking
    /// Until the child has ended, at most `timeout`. Signals do not end the wait.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut child = offspring::fork(|| std::thread::sleep(Duration::from_secs(3600)))?;
    /// assert!(child.join_timeout(Duration::from_millis(10)).is_none());
    /// child.kill()?;
    /// assert!(child.join().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::after(timeout))
    }

    /// Like [`join_timeout`](Child::join_timeout), until an instant.
    ///
    /// # Blocking
    /// Until the child has ended, at most until `deadline`. Signals do not end the wait.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn join_deadline(&mut self, deadline: Instant) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::at(deadline))
    }

    fn join_by(&mut self, deadline: Deadline) -> Option<Result<T, JoinError>> {
        if !self.kin.is_ours() {
            return Some(Err(JoinError::NotOurChild));
        }
        if self.joined {
            return Some(Err(JoinError::AlreadyJoined));
        }
        let ending = match self.ending {
            Some(ending) => ending,
            None => match self.kin.wait(deadline) {
                Ok(None) => return None,
                // Taken from the kernel, and nowhere else from now on.
                Ok(Some(ending)) => *self.ending.insert(ending),
                Err(refused) => return Some(Err(refused.into())),
            },
        };
        let outcome = match (self.read)(self.kin.outcome()) {
            Ok(outcome) => outcome,
            Err(refused) => return Some(Err(refused.into())),
        };
        self.joined = true;
        Some(match outcome {
            Some(Outcome::Value(value)) => Ok(value),
            Some(Outcome::Panicked(panic)) => Err(JoinError::Panicked(panic)),
            Some(Outcome::Unsendable(reason)) => Err(JoinError::Unsendable(reason)),
            Some(Outcome::Undecodable(reason)) => Err(JoinError::Undecodable(reason)),
            Some(Outcome::NotStarted(reason)) => Err(JoinError::NotStarted(reason)),
            None => Err(match ending {
                Ending::Exited(code) => JoinError::Exited(code),
                Ending::Killed(signal) => JoinError::Killed(signal),
                Ending::Unknown => JoinError::Lost,
            }),
        })
    }
}

/// The child's pidfd: readable when the child has ended, also after it was joined.
///
/// # Fork
/// Once this was called the descriptor stays open in children that are forked later, so that a
/// reference that came along is good there.
///
/// # Panics
/// In a process that is not the child's parent. See the section "Fork" of [`Child`].
impl<T> AsFd for Child<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(self.kin.is_ours(), "the descriptor of a child is its parent's only");
        self.kin.lend()
    }
}

impl<T> Drop for Child<T> {
    fn drop(&mut self) {
        if !self.joined && self.kin.is_ours() {
            family::drop_child(&self.kin);
        }
    }
}

impl<T> fmt::Debug for Child<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("joined", &self.joined)
            .finish_non_exhaustive()
    }
}

/// Error of [`Child::join`] and its other forms: the child has ended without a value, in this way.
///
/// `Debug` prints one line, the text and its causes, as that is what a `main` prints that returns
/// the error.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let child = offspring::fork(|| std::process::exit(3))?;
/// # let child: offspring::Child<()> = child;
/// let error = child.join().unwrap_err();
/// assert_eq!(format!("{error:?}"), "the child exited with code 3 and sent no value");
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JoinError {
    /// The closure panicked.
    #[error("the child panicked: {0}")]
    Panicked(PanicInfo),
    /// The child ended itself with this code, by [`std::process::exit`] or in a program that it
    /// became by `exec`. Also code 0: the closure has not returned, so there is no value. Or its
    /// closure has returned or panicked (code 101), but the child had closed the descriptor by
    /// which to send a value, as a program does that closes all.
    #[error("the child exited with code {0} and sent no value")]
    Exited(i32),
    /// The child was ended by this signal, with or without a core dump: `SIGSEGV`, `SIGABRT`, the
    /// out-of-memory killer's `SIGKILL`.
    #[error("the child was killed by signal {0}{name}", name = signal_name(*.0))]
    Killed(i32),
    /// The closure returned or panicked, but its value could not be encoded, or the kernel refused
    /// to write what there was to tell.
    #[error("the child could not send its value: {0}")]
    Unsendable(String),
    /// The child sent a value, but it could not be decoded as a `T`.
    #[error("the child's value cannot be decoded: {0}")]
    Undecodable(String),
    /// The closure was never called: the kernel refused what has to be done before, and this is
    /// what it said.
    #[error("the child could not begin: {0}")]
    NotStarted(String),
    /// The child has ended without a value, and how is not known: the program ignores `SIGCHLD`, or
    /// other code has waited for the child.
    #[error(
        "the child has ended, and its status was lost: somebody else waited for it, or SIGCHLD is ignored"
    )]
    Lost,
    /// An earlier call has returned how the child ended.
    #[error("the child was joined already")]
    AlreadyJoined,
    /// This process inherited the handle; the child is its parent's or its sibling.
    #[error("not a child of this process")]
    NotOurChild,
    /// The kernel refused a system call. The child can still be joined.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// One line: the text and its causes. It is what a `main` prints that returns the error.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl From<OsError> for JoinError {
    fn from(error: OsError) -> JoinError {
        JoinError::Os { call: error.call, source: error.into() }
    }
}

/// The name of a signal in parentheses, for people.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| String::new(), |signal| format!(" ({signal})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_travels_between_threads_whatever_its_value() {
        fn travels<T: Send + Sync>() {}
        travels::<Child<std::rc::Rc<()>>>();
    }

    #[test]
    fn a_killed_child_is_told_with_the_name_of_the_signal() {
        assert_eq!(JoinError::Killed(9).to_string(), "the child was killed by signal 9 (SIGKILL)");
        assert_eq!(JoinError::Killed(40).to_string(), "the child was killed by signal 40");
    }
}
