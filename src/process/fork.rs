//! Runs a closure in a copy of this process.
//!
//! Users call it; the zygote and the pool will build on it.
//!
//! # Protocol
//! ```text
//! parent                                            child
//! reap dropped children that are dead
//! ask the kernel: one thread?
//! make the lifeline pipe and the outcome file
//! promise the child its place in every segment
//! ask the kernel: own pid namespace?
//! flush stdio, block signals, lend the child a handler
//! fork ------------------------------------------>  close the ranges where the parent has segments,
//!                                                     and its other children's lifelines
//! open the lifeline's writing end,                  note the promised place
//! name the child as the one to kill                 close what is the parent's
//! open the pidfd, say in every segment              ask for the parent-death signal
//!   who the child is                                wait until it is named as the one to kill
//! take the handler back, unblock signals            unblock signals, run the closure
//! drop the closure                                  write the outcome, flush stdio
//! wait, read the outcome  <-----------------------  _exit
//! ```
//!
//! # How safe it is to call
//! The child is an exact copy of a process with one thread. No lock can be held by a thread that is
//! not there, no structure can be halfway through a change, and libc's own caches are put right by
//! libc's `fork`. What safe code could still do wrong with a copy, and what of it is prevented:
//! - *Come back into the caller's frames*, and so run every destructor twice. The child never
//!   returns, never unwinds out, and runs no destructor that the closure does not run.
//! - *Borrow from the caller.* The closure and its value are `'static`.
//! - *Use exclusive access to memory of this crate twice.* What the closure captured is used by the
//!   child alone, for the parent drops its copy unused. Guards that the parent holds know their
//!   process and are inert in the child. A plain reference that was made from a leaked guard faults
//!   there: the parent's mapping is not inherited, and the range is closed before any code of the
//!   program runs.
//! - *Use a handle for a child in a process that is not its parent.* [`Child`] knows its process. A
//!   descriptor that was lent stays open.
//!
//! Not prevented, because it is not this crate's to prevent:
//! - Shared mappings of other crates are duplicated. Some (iceoryx2, ipc-channel's shared memory,
//!   runtimes on io_uring) wrap them in safe interfaces that a child can reach by statics and
//!   thread-locals, and that were not made for two processes. The standard library calls
//!   `CommandExt::pre_exec` unsafe for this reason.
//! - Descriptors are duplicated, with the position of the file that parent and child share. Whoever
//!   takes an `OwnedFd` for the only way to a socket or a file is wrong in a child.
//! - Buffers are duplicated. A captured [`BufWriter`](std::io::BufWriter) with something in it
//!   writes that twice, once in each process.
//!
//! So this function is going to be `unsafe` when there is another way to start a child.
//!
//! # Peer death
//! A child that dies before its first instruction is a child that was killed: joining says so, and
//! what it was promised is given back.
//!
//! # Source
//! fork(2); POSIX.1-2017, `fork`; nbdd0121's `safe-fork` for the question to the kernel.

use std::fmt;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::object::lineage::{Lineage, LineageError};
use crate::peer::Fault;
use crate::process::child::Child;
use crate::process::exit::{self, Start};
use crate::process::family::{self, Kin};
use crate::process::outcome::OutcomeFile;
use crate::segment::{Segment, SegmentError};
use crate::sys::error::{self, OsError, Word};
use crate::sys::process::{self as sys, Lifeline, NotAlone, OnlyThread, Side, Wrapped};

/// Runs `closure` in a child process, a copy of this one, and gives a handle by which its value can
/// be waited for.
///
/// The child starts with everything that the program has in memory at this moment, and shares none
/// of it afterwards, but for the objects of this crate: a `Queue` or a `Lock` that the closure
/// captured is the same one on both sides. The value of the closure travels back by [`serde`] and
/// is what [`Child::join`] returns.
///
/// The closure runs once, in the child. Everything it captured is there in both processes, and is
/// dropped in both: in the child when the closure drops it, in the parent before this function
/// returns. That is what one wants of a `Queue` handle, and what one does not want of a value whose
/// `Drop` acts on the outside world: a captured temporary folder is removed under the child's feet,
/// and a captured [`BufWriter`](std::io::BufWriter) writes its buffer once in each process. Keep
/// such a value in the parent (and flush it before), or wrap it in
/// [`ManuallyDrop`](std::mem::ManuallyDrop) on the side that is not to drop it.
///
/// In the child, the rest of the program does not happen: when the closure returns or panics, the
/// process ends with code 0 or 101, without running destructors of the callers' variables, of
/// thread-locals or of `atexit`. Its standard streams are flushed.
///
/// Random number generators, buffers and everything else of that sort is copied with its state: two
/// children that draw "random" numbers from a generator that was seeded before the fork draw the
/// same ones. So are the mappings and descriptors of other crates: shared memory, sockets and rings
/// of theirs, which may not be made for two processes. Do not use these in a child.
///
/// # What it costs
/// The parent has three descriptors for a living child, so there is room for about 340 children at
/// a limit of 1,024 (`ulimit -n`). The child holds all objects of this crate that its parent held
/// at the fork, used or not, until it ends: their memory is not free before that. Each generation
/// of children of children keeps a range of addresses closed that is as large as its ancestors'
/// segments: with the commons of the default size there is room for some 500 generations.
///
/// # Values and errors
/// The value of the closure is any [`serde`] value of the program's own, whatever its length. A
/// `String` and a `Vec` of integers or floats that are long, also as the `Ok` of a
/// `Result<_, Failure>`, travel about half as fast as they are copied. Long bytes inside of other
/// values travel a third as fast as that, since `serde` gives them one by one; the crate
/// `serde_bytes` helps there.
///
/// For `?` in the closure, let it return `Result<_,` [`Failure`](crate::Failure)`>`: every error
/// converts into that. Most errors of this crate can be returned as they are, too.
///
/// # Parent death
/// The child ends when this process ends, however that happens, but not when only the thread that
/// forked it does. `SIGSTKFLT` and one pipe are used for that. A parent that replaces itself by
/// `exec` has ended in this sense. Three things can make a child outlive its parent:
/// - It changes its user or group, and its parent is not the system's root: the kernel takes back
///   what was arranged. A child that does so calls [`end_with_parent`](crate::end_with_parent)
///   right afterwards.
/// - It closes every descriptor *and* blocks `SIGSTKFLT` or changes its user.
/// - Its parent has, after this call, made another process by a bare `clone`, without libc's
///   `fork`. That has the pipe, too, as long as it lives and has not become another program. So the
///   signal alone is left, for as long: a child that is stopped, blocks or ignores `SIGSTKFLT`, or
///   has changed its user and not called [`end_with_parent`](crate::end_with_parent), ends later.
///
/// # Peer death
/// When the child is killed, [`Child::join`] says by which signal, and what it owned and held in
/// shared memory is given back.
///
/// # Fork
/// May be called in a child too; the children of a child are its own, and end with it. A process
/// that the child makes by other means, as `daemon` does, is none of them: it shares the objects as
/// any other process does, and must use them before the child ends to hold them. A child of
/// `vfork`, which shares its parent's memory, acts under its parent's name: it may only `exec` or
/// `_exit`.
///
/// # Errors
/// - [`ForkError::Multithreaded`] if this process has more than one thread: a lock that another
///   thread holds at this moment would stay locked for ever in the child. Start children before the
///   first thread, say at the top of `main`.
/// - [`ForkError::ThreadsUnknown`] if the kernel refuses to tell.
/// - [`ForkError::PidNamespace`] if the child would be born into another pid namespace.
/// - [`ForkError::Segment`] if the shared memory has no room for one more process.
/// - [`ForkError::Os`], with the name of the call, if the kernel refuses a descriptor, a process,
///   or what the child needs to end with its parent.
///
/// In each case no closure has run, or it was killed before its process was waited for, and the
/// closure is dropped.
///
/// # Panics
/// If something that the closure captured panics when it is dropped here. The child runs by then,
/// and is as one whose handle was dropped.
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
///
/// An error of this crate is returned as it is:
/// ```
/// use offspring::{CreateError, Queue};
///
/// let child = offspring::fork(|| Queue::<u8>::with_capacity(0).map(drop))?;
/// assert!(matches!(child.join()?, Err(CreateError::Capacity { capacity: 0, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Process")]
pub fn fork<F, T>(closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Serialize + DeserializeOwned + 'static,
{
    family::reap_dropped();
    let alone = OnlyThread::ask()?;

    let lifeline = Lifeline::new()?;
    let outcome = OutcomeFile::create()?;
    let own = [outcome.name(), lifeline.name()];
    let lineage = Lineage::expect_child()?;
    let wrapped = match wrap() {
        Ok(wrapped) => wrapped,
        Err(error) => {
            lineage.cancel();
            return Err(error);
        }
    };

    let has_relatives = family::expect(own);
    let start = Start { parent: sys::pid(), lineage, outcome, lifeline, has_relatives };
    let forked = match sys::fork(&alone) {
        Ok(Side::Child) => exit::live(closure, &start, &wrapped),
        Ok(Side::Parent(pid)) => Ok(pid),
        Err(refused) => Err(refused),
    };
    family::expect_nobody();
    let Start { lineage, outcome, lifeline, .. } = start;
    let pid = match forked {
        Ok(pid) => pid,
        Err(refused) => {
            lineage.cancel();
            return Err(refused.into());
        }
    };
    let child = Child::new(Kin::new(pid, lifeline, outcome, lineage)?);
    drop(wrapped);
    // The closure is dropped last: if that panics, the child is an ordinary dropped child.
    drop(closure);
    Ok(child)
}

/// The last question before the fork, and the last preparations. For a process that is attached to
/// the commons.
fn wrap() -> Result<Wrapped, ForkError> {
    // Whoever is attached to the commons lives in their namespace, for ever: that need not be asked
    // again.
    let home = Segment::commons().map_err(ForkError::Commons)?.mapping().home();
    if home.namespace().is_some_and(sys::children_leave_pid_namespace) {
        return Err(ForkError::PidNamespace);
    }
    sys::flush_stdio();
    Ok(Wrapped::new()?)
}

/// Error of [`fork`].
#[derive(thiserror::Error, Serialize, Deserialize)]
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
    /// The kernel would not say how many threads there are: `unshare` is forbidden, or there were
    /// others a moment ago, and `/proc` is missing.
    #[error("fork needs a process with one thread, and cannot find out: {call} failed")]
    ThreadsUnknown {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
    /// Children of this process are born into another pid namespace (`unshare(CLONE_NEWPID)` was
    /// called), where nobody can tell whether their parent lives.
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
        #[serde(with = "error::word")]
        call: Word,
        /// What the kernel said.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// One line: the text and its causes. It is what a `main` prints that returns the error.
impl fmt::Debug for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
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
            NotAlone::Unknown(refused) => {
                ForkError::ThreadsUnknown { call: refused.call, source: refused.into() }
            }
        }
    }
}

impl From<OsError> for ForkError {
    fn from(error: OsError) -> ForkError {
        ForkError::Os { call: error.call, source: error.into() }
    }
}
