//! Runs a closure in a copy of this process.
//!
//! Users call it; the zygote and the pool will build on it.
//!
//! # Protocol
//! ```text
//! parent                                            child
//! reap dropped children that are dead
//! ask the kernel: one thread?
//! make the outcome file and the lifeline pipe
//! promise the child its place in every segment
//! ask the kernel: own pid namespace?
//! flush stdio, block signals, lend the child a handler
//! fork ------------------------------------------>  take the promised place
//! close the lifeline's reading end                  close what is the parent's
//! open the pidfd, take the handler back             arrange to die with the parent
//! unblock signals, drop the closure                 unblock signals, run the closure
//!                                                   write the outcome, flush stdio
//! wait, read the outcome  <-----------------------  _exit
//! ```
//!
//! # Why it is safe to call
//! The child is an exact copy of a process with one thread. No lock can be held by a thread that is not there, no structure can be
//! halfway through a change, and libc's own caches are put right by libc's `fork`. What safe code could still do wrong with a copy:
//! - *Come back into the caller's frames*, and so run every destructor twice. The child never returns, never unwinds out, and runs no
//!   destructor that the closure does not run.
//! - *Borrow from the caller.* The closure and its value are `'static`.
//! - *Use exclusive access to shared memory twice.* What the closure captured is used by the child alone, for the parent drops its copy unused.
//!   Guards of this crate that the parent holds know their process and are inert in the child. Shared mappings of other
//!   crates are made by `unsafe` functions whose callers promise that no other process writes.
//! - *Use a handle for a child in a process that is not its parent.* [`Child`] knows its process.
//!
//! # Peer death
//! A child that dies before its first instruction is a child that was killed: joining says so, and what it was promised is given back.
//!
//! # Source
//! fork(2); POSIX.1-2017, `fork`; nbdd0121's `safe-fork` for the question to the kernel.

use std::io;
use std::os::fd::AsRawFd;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::lineage::{Lineage, LineageError};
use crate::peer::Fault;
use crate::process::child::Child;
use crate::process::exit::{self, Start};
use crate::process::family::{self, Kin};
use crate::process::outcome::OutcomeFile;
use crate::segment::{Segment, SegmentError};
use crate::sys::process::{self as sys, NotAlone, OnlyThread, Side, Wrapped};

/// Runs `closure` in a child process, a copy of this one, and gives a handle by which its value can be waited for.
///
/// The child starts with everything that the program has in memory at this moment, and shares none of it afterwards, but for the objects
/// of this crate: a `Queue` or a `Lock` that the closure captured is the same one on both sides. The value of the closure
/// travels back by [`serde`] and is what [`Child::join`] returns.
///
/// The closure runs once, in the child. Everything it captured is there in both processes, and is dropped in both: in the child when the
/// closure drops it, in the parent before this function returns. That is what one wants of a `Queue` handle, and what one does not want
/// of a value whose `Drop` acts on the outside world: a captured temporary folder is removed under the child's feet. Keep such a value
/// in the parent, or wrap it in [`ManuallyDrop`](std::mem::ManuallyDrop) on the side that is not to drop it.
///
/// In the child, the rest of the program does not happen: when the closure returns or panics, the process ends with code 0 or 101, without
/// running destructors of the callers' variables, of thread-locals or of `atexit`. Its standard streams are flushed.
///
/// The child ends when this process ends, however that happens, but not when only the thread that forked it does. `SIGSTKFLT` and one
/// pipe are used for that. A parent that replaces itself by `exec` has ended in this sense.
///
/// Random number generators, buffers and everything else of that sort is copied with its state: two children that draw "random"
/// numbers from a generator that was seeded before the fork draw the same ones.
///
/// # Peer death
/// When the child is killed, [`Child::join`] says by which signal, and what it owned and held in shared memory is given back.
///
/// # Fork
/// May be called in a child too; the children of a child are its own, and end with it.
///
/// # Errors
/// - [`ForkError::Multithreaded`] if this process has more than one thread: a lock that another thread holds at this moment would stay locked
///   for ever in the child. Start children before the first thread, say at the top of `main`.
/// - [`ForkError::ThreadsUnknown`] if the kernel refuses to tell.
/// - [`ForkError::PidNamespace`] if the child would be born into another pid namespace.
/// - [`ForkError::Segment`] if the shared memory has no room for one more process.
/// - [`ForkError::Os`] if the kernel refuses a descriptor or a process.
///
/// In each case no closure has run, or it was killed before its process was waited for, and the closure is dropped.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let greeting = String::from("hello");
/// let child = offspring::fork(move || format!("{greeting} from {}", std::process::id()))?;
/// let id = child.id();
/// assert_eq!(child.join()?, format!("hello from {id}"));
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Process")]
pub fn fork<F, T>(closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Serialize + DeserializeOwned + 'static,
{
    family::reap_dropped();
    let alone = OnlyThread::ask()?;

    let (lifeline, parents_end) = io::pipe().map_err(os("pipe2"))?;
    let outcome = OutcomeFile::create().map_err(os("memfd_create"))?;
    let lineage = Lineage::expect_child()?;
    let wrapped = match wrap() {
        Ok(wrapped) => wrapped,
        Err(error) => {
            lineage.cancel();
            return Err(error);
        }
    };

    let has_relatives = family::expect([outcome.as_fd().as_raw_fd(), lifeline.as_raw_fd()]);
    let start =
        Start { parent: sys::pid(), lineage, outcome, lifeline: lifeline.into(), parents_end: parents_end.into(), has_relatives };
    let forked = match sys::fork(&alone) {
        Ok(Side::Child) => exit::live(closure, &start, &wrapped),
        Ok(Side::Parent(pid)) => Ok(pid),
        Err(source) => Err(source),
    };
    family::expect_nobody();
    let Start { lineage, outcome, lifeline, parents_end, .. } = start;
    let pid = match forked {
        Ok(pid) => pid,
        Err(source) => {
            lineage.cancel();
            return Err(ForkError::Os { call: "fork", source });
        }
    };
    // Before the pidfd is opened, so that a full descriptor table has room for it.
    drop(lifeline);
    let kin = Kin::new(pid, parents_end, outcome, lineage).map_err(os("pidfd_open"))?;
    let child = Child::new(kin);
    drop(wrapped);
    // The closure is dropped last: if that panics, the child is an ordinary dropped child.
    drop(closure);
    Ok(child)
}

/// The last question before the fork, and the last preparations. For a process that is attached to the commons.
fn wrap() -> Result<Wrapped, ForkError> {
    // Whoever is attached to the commons lives in their namespace, for ever: that need not be asked again.
    let own_namespace = Segment::commons().map_err(ForkError::Commons)?.mapping().pid_namespace();
    if sys::children_leave_pid_namespace(own_namespace) {
        return Err(ForkError::PidNamespace);
    }
    sys::flush_stdio();
    Wrapped::new().map_err(os("fork"))
}

fn os(call: &'static str) -> impl FnOnce(io::Error) -> ForkError {
    move |source| ForkError::Os { call, source }
}

/// Error of [`fork`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForkError {
    /// The process has more than one thread. Final as long as the others run.
    #[error(
        "fork needs a process with one thread, and this one has {threads}: start children before the first thread \
         (at the top of main, say), or from a child that was forked then"
    )]
    Multithreaded {
        /// Threads that share this memory now, the caller included.
        threads: usize,
    },
    /// The kernel would not say how many threads there are: `unshare` is forbidden and `/proc` is missing.
    #[error(
        "fork needs a process with one thread, and cannot find out: unshare is forbidden, and /proc/self/task cannot be read"
    )]
    ThreadsUnknown {
        /// What came of reading `/proc/self/task`.
        source: io::Error,
    },
    /// Children of this process are born into another pid namespace (`unshare(CLONE_NEWPID)` was called), where nobody can tell whether
    /// their parent lives.
    #[error(
        "a child in another pid namespace cannot be watched: fork before unshare(CLONE_NEWPID), or from within the new namespace"
    )]
    PidNamespace,
    /// The commons could not be made.
    #[error("the commons could not be made")]
    Commons(#[source] SegmentError),
    /// The shared memory cannot take another process.
    #[error("the shared memory cannot take another process")]
    Segment(#[source] Fault),
    /// The kernel refused a system call.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<LineageError> for ForkError {
    fn from(error: LineageError) -> ForkError {
        match error {
            LineageError::Commons(error) => ForkError::Commons(error),
            LineageError::Fault(fault) => ForkError::Segment(fault),
        }
    }
}

impl From<NotAlone> for ForkError {
    fn from(reason: NotAlone) -> ForkError {
        match reason {
            NotAlone::Threads(threads) => ForkError::Multithreaded { threads },
            NotAlone::Unknown(source) => ForkError::ThreadsUnknown { source },
        }
    }
}
