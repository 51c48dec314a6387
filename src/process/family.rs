//! The parent and the children of this process, as other handles than [`Child`](crate::Child).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::process::children::living;
use crate::sys::clock::Deadline;
use crate::sys::{pidfd, process as sys};

/// A process of the family of this one: its parent or one of its children.
///
/// It means this process for good, and never a later one with the same id.
///
/// # Fork
/// Means the same process in a forked child.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// // A child that asks for its parent, and waits a moment for its end.
/// let child = offspring::spawn(
///     |()| {
///         let parent = offspring::parent().ok()??;
///         Some((parent.id(), parent.wait_timeout(Duration::from_millis(1)).ok()?))
///     },
///     (),
/// )?;
/// assert_eq!(child.join()?, Some((std::process::id(), false)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Process {
    pid: u32,
    /// `None` if it had ended before.
    pidfd: Option<OwnedFd>,
}

impl Process {
    pub(super) fn new(pid: u32, pidfd: Option<OwnedFd>) -> Process {
        Process { pid, pidfd }
    }

    /// Returns the process id. After the process has ended, the kernel may give the id to another
    /// one.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Returns whether the process has not ended yet. `false` is final; `true` may be out of date
    /// by the time the caller reads it.
    pub fn is_alive(&self) -> bool {
        self.pidfd.as_ref().is_some_and(|pidfd| !pidfd::has_exited(pidfd))
    }

    /// Waits until the process has ended.
    ///
    /// # Blocking
    /// Without limit. Signals do not end the wait.
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub fn wait(&self) -> io::Result<()> {
        self.wait_by(Deadline::NEVER).map(drop)
    }

    /// Waits at most `timeout` for the process to end; returns whether it has.
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<bool> {
        self.wait_by(Deadline::after(timeout))
    }

    fn wait_by(&self, deadline: Deadline) -> io::Result<bool> {
        match &self.pidfd {
            Some(pidfd) => Ok(sys::wait_until_readable(pidfd, deadline)?),
            None => Ok(true),
        }
    }

    /// The pidfd, which is readable once the process has ended; `None` if that was before this
    /// handle was made.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Sends a signal to the process, and never to another one that later got the same id.
    ///
    /// # Errors
    /// `ESRCH` if the process has ended and was waited for; `EINVAL` if there is no such signal;
    /// `EPERM` if the process is another user's.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => Ok(sys::send_signal(pidfd.as_fd(), signal)?),
            None => Err(rustix::io::Errno::SRCH.into()),
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.pid).finish_non_exhaustive()
    }
}

/// The process that started this one by [`spawn`](crate::spawn()) or [`fork`](crate::fork); `None`
/// in a process that was started by other means.
///
/// Usually a child cannot see its parent's end, as it ends with it. One that is
/// [detached](crate::Builder::detached) can.
///
/// # Errors
/// If the kernel has no descriptor for it: the table of descriptors is full, for example.
pub fn parent() -> io::Result<Option<Process>> {
    let Some(parent) = sys::family_parent() else {
        return Ok(None);
    };
    let pidfd = pidfd::open_if_there(parent)?;
    // While it lives it is this process's parent, and its pid is its own.
    let is_parent = sys::parent_pid() == Some(parent.cast_signed());
    Ok(Some(Process::new(parent, pidfd.filter(|_| is_parent))))
}

/// The name that this process was given when it was started
/// ([`Builder::name`](crate::Builder::name)), in full; `None` if it was given none. A child of
/// [`fork`](crate::fork) has its parent's.
///
/// # Examples
/// ```
/// let child = offspring::Builder::new()
///     .name("a rather long name")
///     .spawn(|()| offspring::current_name().map(str::to_owned), ())?;
/// assert_eq!(child.join()?.as_deref(), Some("a rather long name"));
/// assert_eq!(offspring::current_name(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "current_process")]
pub fn current_name() -> Option<&'static str> {
    *name()
}

/// The name of this process, if it was given one.
static NAME: Mutex<Option<&str>> = Mutex::new(None);

fn name() -> MutexGuard<'static, Option<&'static str>> {
    NAME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the name that this new process was given. Once in each process, as it stays for ever.
pub(super) fn set_name(new: Option<&str>) {
    *name() = new.map(|new| &*new.to_owned().leak());
}

/// The children of this process that have not been joined yet and have not ended, oldest first.
/// Those of the children are not among them.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// let child = offspring::spawn(|()| std::thread::sleep(Duration::from_secs(3600)), ())?;
/// let children = offspring::children();
/// assert!(children.iter().any(|other| other.id() == child.id()));
/// child.kill()?;
/// # let _ = child.join();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "active_children")]
pub fn children() -> Vec<Process> {
    living()
}
