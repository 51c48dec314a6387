//! The handle of a child process, and the ways in which a child can end.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::process::children::{self, ChildProcess};
use crate::process::outcome::Outcome;
use crate::process::panic_info::PanicInfo;
use crate::process::returned::{Answer, Return, Source};
use crate::sys::clock::Deadline;
use crate::sys::error::{self, OsError, Word};
use crate::sys::process::Ending;
use crate::sys::tree;

/// Handle of a child process that runs a function and returns a value of type `T`; made by
/// [`spawn`](crate::spawn()), [`Builder::spawn`](crate::Builder::spawn) or [`fork`](crate::fork).
///
/// It works like [`std::thread::JoinHandle`]: [`join`](Child::join) waits for the value, and
/// dropping the handle detaches the child, which keeps running. A detached child still ends with
/// this process. After it has ended it stays a zombie until the next fork or the next drop of a
/// handle, which waits for it.
///
/// The handle may be sent to another thread. It can also be polled ([`AsFd`]): it becomes readable
/// when the child has ended.
///
/// # Fork
/// Only the process that forked a child can wait for it or signal it. In any other process that
/// inherited the handle, for example in a captured variable, it is inert: the methods return
/// [`JoinError::NotOurChild`] or a similar error, and dropping it does nothing.
///
/// # Examples
/// ```
/// use offspring::JoinError;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sum = offspring::spawn(|last: u64| (1..=last).sum::<u64>(), 1000)?;
/// let failure = offspring::spawn(|()| -> u64 { panic!("no sum today") }, ())?;
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
    process: Arc<ChildProcess>,
    /// How the child ended, once that is known.
    ending: Option<Ending>,
    /// Whether the value was handed out, or will never be.
    joined: bool,
    /// Reads the child's record. Chosen in `new`, so that `join` needs no bound.
    read: fn(Source<'_>) -> Answer<T>,
}

impl<T> Child<T> {
    pub(super) fn new(process: Arc<ChildProcess>) -> Child<T>
    where
        T: Return,
    {
        process.set_owns(T::OWNS);
        Child { process, ending: None, joined: false, read: T::receive }
    }

    /// Returns the child's process id. After the child was joined the kernel may give the id to
    /// another process.
    pub fn id(&self) -> u32 {
        self.process.pid()
    }

    /// Returns whether the child has not ended yet. A stopped child is alive.
    ///
    /// `false` is final; `true` may be out of date by the time the caller reads it. In a process
    /// that is not the child's parent this returns `false`. A child that was killed under a
    /// debugger is not alive, but it can be joined only after the debugger has waited for it.
    pub fn is_alive(&self) -> bool {
        self.process.is_ours() && !self.process.has_ended()
    }

    /// Asks the child to end, with `SIGTERM`. The child ends unless it handles, blocks or ignores
    /// that signal.
    ///
    /// # Errors
    /// The same as for [`signal`](Child::signal).
    ///
    /// # Examples
    /// ```
    /// use offspring::JoinError;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let child = offspring::spawn(std::thread::sleep, Duration::from_secs(3600))?;
    /// child.terminate()?;
    /// assert!(matches!(child.join(), Err(JoinError::Killed(15))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Kills the child, with `SIGKILL`.
    ///
    /// # Errors
    /// The same as for [`signal`](Child::signal).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Kills the child and all processes below it, whoever has started them.
    ///
    /// Killing a child ends the children that it has started by this crate. This also finds those
    /// that it has started by other means, and theirs. A process whose own parent has ended, as a
    /// daemon's has, is not found.
    ///
    /// # Errors
    /// As for [`signal`](Child::signal), and if `/proc` cannot be read; then the child alone was
    /// killed.
    ///
    /// # Examples
    /// ```
    /// use offspring::JoinError;
    /// use std::process::Command;
    ///
    /// let child = offspring::spawn(
    ///     |()| Command::new("sleep").arg("3600").status().unwrap().success(),
    ///     (),
    /// )?;
    /// child.kill_tree()?;
    /// assert!(matches!(child.join(), Err(JoinError::Killed(9))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill_tree(&self) -> io::Result<()> {
        // Also a check that it is ours, and was not waited for.
        self.signal(0)?;
        let killed = tree::kill_all(self.id());
        self.kill()?;
        Ok(killed?)
    }

    /// Sends a signal to the child, and never to another process that later got the same process
    /// id.
    ///
    /// A signal to a child that has ended but was not joined has no effect.
    ///
    /// # Errors
    /// `ESRCH` if the child was joined or is not a child of this process; `EINVAL` if there is no
    /// such signal; `EPERM` if the child has changed its user.
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if !self.process.is_ours() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(self.process.signal(signal)?)
    }
}

impl<T> Child<T> {
    /// Waits for the child to end, and leaves its value to be [joined](Child::join). Any number of
    /// threads may wait.
    ///
    /// # Blocking
    /// Blocks until the child has ended, without limit.
    ///
    /// # Errors
    /// [`JoinError::NotOurChild`]; [`JoinError::Os`].
    pub fn wait(&self) -> Result<(), JoinError> {
        self.wait_by(Deadline::NEVER).map(drop)
    }

    /// Waits at most `timeout` for the child to end; returns whether it has. Any number of threads
    /// may wait.
    ///
    /// # Blocking
    /// Blocks until the child has ended, but at most for `timeout`.
    ///
    /// # Errors
    /// [`JoinError::NotOurChild`]; [`JoinError::Os`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let child = offspring::spawn(|()| std::thread::sleep(Duration::from_secs(3600)), ())?;
    /// std::thread::scope(|scope| {
    ///     let threads: Vec<_> = (0..8)
    ///         .map(|_| scope.spawn(|| child.wait_timeout(Duration::from_secs(600))))
    ///         .collect();
    ///     child.kill().unwrap();
    ///     assert!(threads.into_iter().all(|thread| thread.join().unwrap().unwrap()));
    /// });
    /// assert!(child.join().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, JoinError> {
        self.wait_by(Deadline::after(timeout))
    }

    fn wait_by(&self, deadline: Deadline) -> Result<bool, JoinError> {
        if !self.process.is_ours() {
            return Err(JoinError::NotOurChild);
        }
        Ok(self.ending.is_some() || self.process.wait_for_end(deadline)?)
    }

    /// Asks the child to end, with `SIGTERM`, waits at most `grace` for that, and kills it if it
    /// has not ended by then. Returns its value if it has one.
    ///
    /// # Blocking
    /// Blocks until the child has ended, somewhat longer than `grace` at most.
    ///
    /// # Errors
    /// See [`JoinError`]: a child that does not handle `SIGTERM` is killed by it.
    ///
    /// # Examples
    /// ```
    /// use offspring::JoinError;
    /// use std::time::Duration;
    ///
    /// let child = offspring::spawn(|()| std::thread::sleep(Duration::from_secs(3600)), ())?;
    /// assert!(matches!(child.stop(Duration::from_secs(60)), Err(JoinError::Killed(15))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop(mut self, grace: Duration) -> Result<T, JoinError> {
        // A child that has ended meanwhile is as good, and `join` tells all else.
        let _ = self.terminate();
        if let Some(joined) = self.join_timeout(grace) {
            return joined;
        }
        let _ = self.kill();
        self.join()
    }

    /// Waits for the child to end, and returns the closure's value.
    ///
    /// # Blocking
    /// Blocks until the child has ended, without limit.
    ///
    /// # Peer death
    /// If the child was killed, this returns [`JoinError::Killed`]. Everything that the child owned
    /// and held in shared memory has been released when this returns. A child that was killed after
    /// it had sent its value counts as one that returned.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Panics
    /// If the [`Deserialize`] implementation of `T` panics. That also holds for the other forms.
    pub fn join(mut self) -> Result<T, JoinError> {
        // `NEVER` is never reached, so the result is always `Some`.
        self.join_by(Deadline::NEVER).unwrap_or(Err(JoinError::AlreadyJoined))
    }

    /// Returns the closure's value if the child has ended, otherwise `None`.
    ///
    /// After it has returned `Some`, it returns [`JoinError::AlreadyJoined`].
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::after(Duration::ZERO))
    }

    /// Waits at most `timeout` for the child to end, and returns the closure's value, or `None` if
    /// the child has not ended by then.
    ///
    /// After it has returned `Some`, it returns [`JoinError::AlreadyJoined`].
    ///
    /// # Blocking
    /// Blocks until the child has ended, but at most for `timeout`. Signals do not end the wait.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut child = offspring::spawn(std::thread::sleep, Duration::from_secs(3600))?;
    /// assert!(child.join_timeout(Duration::from_millis(10)).is_none());
    /// child.kill()?;
    /// assert!(child.join().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::after(timeout))
    }

    /// Like [`join_timeout`](Child::join_timeout), but waits until an instant.
    ///
    /// # Blocking
    /// Blocks until the child has ended, but at most until `deadline`. Signals do not end the wait.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn join_deadline(&mut self, deadline: Instant) -> Option<Result<T, JoinError>> {
        self.join_by(Deadline::at(deadline))
    }

    fn join_by(&mut self, deadline: Deadline) -> Option<Result<T, JoinError>> {
        if !self.process.is_ours() {
            return Some(Err(JoinError::NotOurChild));
        }
        if self.joined {
            return Some(Err(JoinError::AlreadyJoined));
        }
        let ending = match self.ending {
            Some(ending) => ending,
            None => match self.process.wait(deadline) {
                Ok(None) => return None,
                // The kernel has forgotten the child, so from now on only this field knows how it
                // ended.
                Ok(Some(ending)) => *self.ending.insert(ending),
                Err(refused) => return Some(Err(refused.into())),
            },
        };
        let outcome = match (self.read)(self.process.source()).0 {
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

/// Lends the child's pidfd, which is readable once the child has ended, also after it was joined.
///
/// # Fork
/// After this call the descriptor stays open in children that are forked later, so that a reference
/// they inherit stays valid.
///
/// # Panics
/// In a process that is not the child's parent; see the section "Fork" of [`Child`].
impl<T> AsFd for Child<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(self.process.is_ours(), "the descriptor of a child is its parent's only");
        self.process.lend()
    }
}

impl<T> Drop for Child<T> {
    fn drop(&mut self) {
        if !self.joined && self.process.is_ours() {
            children::drop_child(&self.process);
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

/// Error of [`Child::join`] and its other forms: how the child ended without a value.
///
/// `Debug` prints one line, the text and its causes, because a `main` that returns the error prints
/// this.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let child = offspring::spawn(|code: i32| -> () { std::process::exit(code) }, 3)?;
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
    /// The child exited with this code, possibly 0, before its closure returned: it called
    /// [`std::process::exit`], or became another program with `exec`. Or its closure returned or
    /// panicked (code 101), but the child had closed the descriptor for sending the value, as a
    /// program does that closes all descriptors.
    #[error("the child exited with code {0} and sent no value")]
    Exited(i32),
    /// This signal killed the child, with or without a core dump: for example `SIGSEGV`, `SIGABRT`,
    /// or the out-of-memory killer's `SIGKILL`.
    #[error("the child was killed by signal {0}{name}", name = signal_name(*.0))]
    Killed(i32),
    /// The closure returned or panicked, but its value could not be encoded, or the kernel refused
    /// to write the value or the panic. Or the value contains a handle of an object in a segment
    /// that the parent did not have open at the fork.
    #[error("the child could not send its value: {0}")]
    Unsendable(String),
    /// The child sent a value, but it could not be decoded as a `T`.
    #[error("the child's value cannot be decoded: {0}")]
    Undecodable(String),
    /// The closure was never called: the kernel refused a call that the child must make first. The
    /// text says which.
    #[error("the child could not begin: {0}")]
    NotStarted(String),
    /// The child has ended without a value, and its exit status is lost: the program ignores
    /// `SIGCHLD`, or other code has waited for the child.
    #[error(
        "the child has ended, and its status was lost: somebody else waited for it, or SIGCHLD is \
         ignored"
    )]
    Lost,
    /// An earlier call has already returned the result.
    #[error("the child was joined already")]
    AlreadyJoined,
    /// The child was forked by another process, from which this one inherited the handle.
    #[error("not a child of this process")]
    NotOurChild,
    /// A system call failed. The child can still be joined.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// The error that the kernel returned.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// Prints one line, the text and its causes, because a `main` that returns the error prints this.
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

/// The name of a signal in parentheses; empty if it has none.
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
