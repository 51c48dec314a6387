//! Runs a closure in a copy of this process.
//!
//! For programs with one thread that want a copy of what they have in memory, or a closure that
//! captures. `start.rs` has the other way, which works in every program and is safe.
//!
//! # Protocol
//! ```text
//! parent                                            child
//! reap dropped children that are dead
//! ask the kernel: one thread?
//! make the lifeline pipe and the outcome file
//! reserve an entry for the child in every segment
//! ask the kernel: own pid namespace?
//! flush stdio, block signals, lend the child a handler
//! fork ------------------------------------------>  close the ranges of the parent's segments,
//!                                                     and its other children's lifelines
//! hand captured ends of channels and boxes over,    note the reserved entries
//!   with handler and signals as they were
//! open the lifeline's writing end,                  close the parent's descriptors
//! name the child as the one to kill
//! open the pidfd, write the child's identity        ask for the parent-death signal
//!   into every segment                              wait until it is named as the one to kill
//! take the handler back, unblock signals            take the ends over, unblock signals
//! drop the closure                                  run the closure, write the outcome, flush stdio
//! wait, read the outcome  <-----------------------  _exit
//! ```
//!
//! # Why it is unsafe to call
//! The child is an exact copy of a process with one thread. So no lock is held by a thread that the
//! child does not have, no structure is halfway through a change, and libc's `fork` corrects libc's
//! own caches. This crate prevents what else could go wrong with a copy:
//! - *The child returns into the caller's frames*, and so runs every destructor twice. It never
//!   returns, never unwinds out, and runs no destructors except those that the closure runs.
//! - *The closure borrows from the caller.* The closure and its value are `'static`.
//! - *Two processes have exclusive access to the same memory of this crate.* Only the child uses
//!   what the closure captured; the parent drops its copy unused. Guards that the parent holds know
//!   their process and are inert in the child. A plain reference from a leaked guard faults there:
//!   the child does not inherit the parent's mapping, and closes the range before any code of the
//!   program runs.
//! - *A process that is not the parent uses the handle of a child.* [`Child`] knows its process. A
//!   descriptor that was lent to the program stays open.
//!
//! It cannot prevent what other crates do with things that exist once and are now in two processes:
//! - Shared mappings are duplicated. Some crates (iceoryx2, ipc-channel's shared memory, runtimes
//!   on io_uring) wrap them in safe interfaces that were not made for two processes, and a child
//!   can reach those through statics and thread-locals.
//! - Descriptors are duplicated, and parent and child share the position in each file. Code that
//!   relies on its `OwnedFd` being the only way to a socket or a file is wrong in a child.
//! - Buffers are duplicated. A captured [`BufWriter`](std::io::BufWriter) writes what it contains
//!   twice, once in each process.
//!
//! So the caller must promise that the child leaves such things alone, as for the standard
//! library's [`CommandExt::pre_exec`](std::os::unix::process::CommandExt::pre_exec).
//!
//! # Peer death
//! A child that dies before its first instruction is joined as one that was killed, and its entries
//! in the segments are released.
//!
//! # Source
//! fork(2); POSIX.1-2017, `fork`; nbdd0121's `safe-fork`, for how the kernel is asked about
//! threads.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::object::ends::Roll;
use crate::object::lineage::{Lineage, LineageError};
use crate::peer::Fault;
use crate::process::builder::Builder;
use crate::process::child::Child;
use crate::process::children::{self, ChildProcess};
use crate::process::exit::{self, Start};
use crate::process::outcome::OutcomeFile;
use crate::process::returned::Return;
use crate::process::setting::{Asked, Unfit};
use crate::segment::{Segment, SegmentError};
use crate::sys::error::{self, OsError, Word};
use crate::sys::process::{self as sys, Lifeline, NotAlone, OnlyThread, Side, Wrapped};

/// Runs `closure` in a child process, a copy of this one, and returns a handle to wait for its
/// value.
///
/// Most programs use [`spawn`](crate::spawn()), which is safe and works in a program with threads.
/// `fork` is for a closure that captures what cannot be sent, or more than is worth sending: the
/// child finds all of it in its memory.
///
/// The child starts with a copy of everything that the program has in memory at this moment. Only
/// the objects of this crate stay shared: a `Queue` or a `Lock` that the closure captured is the
/// same one in both processes. The closure's value is sent back with [`serde`], and [`Child::join`]
/// returns it.
///
/// The closure runs once, in the child. What it captured exists in both processes and is dropped in
/// both: in the child when the closure drops it, in the parent before this function returns. That
/// is right for a `Queue` handle, and for a [`ShmBox`](crate::ShmBox), which is the child's from
/// then on. It is wrong for a value whose `Drop` acts on the outside world: a captured temporary
/// folder is removed while the child uses it, and a captured [`BufWriter`](std::io::BufWriter)
/// writes its buffer once in each process. Keep such a value in the parent (and flush it before),
/// or wrap it in [`ManuallyDrop`](std::mem::ManuallyDrop) in the process that must not drop it.
///
/// The rest of the program does not run in the child. When the closure returns or panics, the
/// process flushes its standard streams and exits with code 0 or 101. It does not run the
/// destructors of the callers' variables or of thread-locals, nor `atexit` handlers.
///
/// Random number generators and buffers are copied with their state: two children that use a
/// generator that was seeded before the fork get the same numbers.
///
/// # What it costs
/// The parent needs three descriptors per living child, so a limit of 1,024 (`ulimit -n`) allows
/// about 340 children. Until it ends, the child holds all objects of this crate that its parent
/// held at the fork, used or not; their memory is not freed before that. Each generation of
/// children of children blocks an address range as large as its ancestors' segments: with the
/// commons of the default size there is room for about 500 generations.
///
/// # Values and errors
/// The closure may return any owned [`serde`] value of any length. Sending a long `String` or a
/// long `Vec` of integers or floats, also as the `Ok` of a `Result<_, Failure>`, is about half as
/// fast as copying it. Long byte vectors inside other values are sent at a third of that speed,
/// because `serde` encodes them byte by byte; the crate `serde_bytes` helps there.
///
/// A [`ShmBox`](crate::ShmBox), [`ShmVec`](crate::ShmVec) or [`ShmStr`](crate::ShmStr) moves to the
/// parent, and no byte of it is copied. It must lie in the commons or in another segment that the
/// parent had open at the fork. If nobody joins the child, it is freed.
///
/// Handles of shared objects ([`Queue`](crate::Queue), [`Lock`](crate::Lock), an end of a
/// [`channel`](crate::channel()) and so on) can be part of any serde value, also of an error. The
/// result holds these objects, so they work in the parent although the child has ended, and an end
/// counts for its role until then. They must lie in the commons or in another segment that the
/// parent had open at the fork; otherwise the result is
/// [`JoinError::Unsendable`](crate::JoinError). If nobody joins the child, the result lets go of
/// them.
///
/// To use `?` in the closure, let it return `Result<_,` [`Failure`](crate::Failure)`>`: every error
/// converts into a `Failure`. Most errors of this crate can also be returned as they are.
///
/// # Parent death
/// The child ends when this process ends, however that happens, but not when only the thread that
/// forked it ends. This uses `SIGSTKFLT` and one pipe. A parent that becomes another program with
/// `exec` counts as ended. A child can outlive its parent in three cases:
/// - It changes its user or group, and its parent does not run as the system's root: then the
///   kernel cancels the signal. Call [`end_with_parent`](crate::end_with_parent) in the child right
///   after such a change.
/// - It closes every descriptor *and* blocks `SIGSTKFLT` or changes its user.
/// - After this call its parent made another process by a bare `clone`, without libc's `fork`. That
///   process keeps the pipe open until it ends or becomes another program, and until then only the
///   signal works: a child that is stopped, that blocks or ignores `SIGSTKFLT`, or that changed its
///   user and did not call [`end_with_parent`](crate::end_with_parent), ends later.
///
/// # Peer death
/// When the child is killed, [`Child::join`] returns the signal, and everything that the child
/// owned and held in shared memory is released.
///
/// # Fork
/// This function may also be called in a child. The children of a child belong to it and end with
/// it. A process that the child makes by other means, as `daemon` does, is not one of them. It
/// shares the objects like any other process, and must use them before the child ends in order to
/// hold them. A child of `vfork` shares its parent's memory and would act as its parent: it may
/// only call `exec` or `_exit`.
///
/// # Errors
/// - [`ForkError::Multithreaded`] if this process has more than one thread: a lock that another
///   thread holds at this moment would never be unlocked in the child. Use
///   [`spawn`](crate::spawn()), or fork before the first thread, for example at the top of `main`.
/// - [`ForkError::ThreadsUnknown`] if the number of threads cannot be found out.
/// - [`ForkError::PidNamespace`] if the child would start in another pid namespace.
/// - [`ForkError::Commons`] if the commons cannot be created.
/// - [`ForkError::Segment`] if the shared memory has no room for one more process.
/// - [`ForkError::Os`], with the name of the call, if the kernel refuses a descriptor, a process,
///   or a call that makes the child end with its parent.
///
/// In each case the closure is dropped here. No child has run it, or that child was killed and
/// waited for.
///
/// # Panics
/// If a captured value panics when it is dropped here. By then the child runs, and is detached as
/// if its handle had been dropped.
///
/// # Safety
/// The child has a second copy of everything that this process has. What should exist once now
/// exists in both:
/// - every descriptor, with one position in its file for both processes;
/// - every shared mapping that is not this crate's: shared memory, and the rings of io_uring;
/// - every buffer, with what it contains.
///
/// In the child, neither `closure` nor what it drops may use a value whose soundness relies on its
/// being the only one with such a descriptor, mapping or buffer. Check also the statics and
/// thread-locals of other crates, which library functions use unseen: a logger, an async runtime,
/// a client with a connection. What is always allowed: objects of this crate, ordinary memory, and
/// descriptors that are made to be shared, such as the standard streams.
///
/// This is the part of the contract of
/// [`CommandExt::pre_exec`](std::os::unix::process::CommandExt::pre_exec) that is left where the
/// process has one thread: the closure may allocate memory and take locks.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let greeting = String::from("hello");
/// // SAFETY: the closure uses nothing but a string.
/// let child =
///     unsafe { offspring::fork(move || format!("{greeting} from {}", std::process::id())) }?;
/// let id = child.id();
/// assert_eq!(child.join()?, format!("hello from {id}"));
/// # Ok(())
/// # }
/// ```
///
/// A megabyte that a child has made and its parent goes on with:
/// ```
/// use offspring::ShmBox;
///
/// let make = || ShmBox::from_fn(1 << 20, |index| index as u8).unwrap();
/// // SAFETY: the closure uses nothing but memory of this crate.
/// let child = unsafe { offspring::fork(make) }?;
/// let mut bytes = child.join()?;
/// assert_eq!((bytes.len(), bytes[77]), (1 << 20, 77));
/// bytes.fill(0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A queue that a child has made and filled:
/// ```
/// use offspring::{Failure, Queue};
///
/// let fill = || {
///     let queue = Queue::<u64>::with_capacity(8)?;
///     queue.send(7)?;
///     Ok::<_, Failure>(queue)
/// };
/// // SAFETY: the closure uses nothing but an object of this crate.
/// let queue = unsafe { offspring::fork(fill) }?.join()??;
/// assert_eq!(queue.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[expect(unsafe_code, reason = "it has a contract that only callers can keep")]
pub unsafe fn fork<F, T>(closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    // SAFETY: as the caller promises.
    unsafe { start(closure, None, Bond { is_detached: false, is_joined_at_exit: false }) }
}

/// As [`fork`], with the settings of `builder`.
///
/// # Safety
/// As [`fork`].
#[expect(unsafe_code, reason = "as `fork`")]
pub(super) unsafe fn fork_with<F, T>(builder: Builder, closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    assert!(
        builder.segments.is_none() && builder.read_only.is_empty(),
        "a copy of this process has all its segments: `segments` and `read_only` are for `spawn`"
    );
    let bond = Bond { is_detached: builder.is_detached, is_joined_at_exit: !builder.is_daemon };
    let asked = Asked::of(builder)?;
    // SAFETY: as the caller promises.
    unsafe { start(closure, Some(asked), bond) }
}

/// What becomes of the child when this process ends.
struct Bond {
    is_detached: bool,
    is_joined_at_exit: bool,
}

/// # Safety
/// As [`fork`].
#[expect(unsafe_code, reason = "as `fork`")]
unsafe fn start<F, T>(closure: F, asked: Option<Asked>, bond: Bond) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    children::reap_dropped();
    let alone = OnlyThread::ask()?;
    let parent = sys::own_pid()?;

    let lifeline = if bond.is_detached { None } else { Some(Lifeline::new()?) };
    let outcome = OutcomeFile::create()?;
    let own = lifeline.as_ref().map(|lifeline| [outcome.name(), lifeline.name()]);
    let lineage = Lineage::expect_child()?;
    let wrapped = match wrap() {
        Ok(wrapped) => wrapped,
        Err(error) => {
            lineage.cancel();
            return Err(error);
        }
    };

    let roll = match Roll::prepare() {
        Ok(roll) => roll,
        Err(refused) => {
            lineage.cancel();
            return Err(refused.into());
        }
    };
    let has_inherited_children = children::before_fork(own);
    let start = Start { parent, lineage, outcome, lifeline, roll, has_inherited_children };
    let forked = match sys::fork(&alone) {
        Ok(Side::Child) => {
            let work = || {
                asked.map_or(Ok(()), Asked::fulfil)?;
                Ok(closure())
            };
            exit::run_child(work, &start, &wrapped)
        }
        Ok(Side::Parent(pid)) => Ok(pid),
        Err(refused) => Err(refused),
    };
    children::after_fork_in_parent();
    let Start { lineage, outcome, lifeline, roll, .. } = start;
    let pid = match forked {
        Ok(pid) => pid,
        Err(refused) => {
            lineage.cancel();
            return Err(refused.into());
        }
    };
    // With ends of channels in this process, the closure is dropped while the child waits; else
    // last. If that panics, the child is detached like any other.
    let (wrapped, closure, dropped) = match roll {
        Some(roll) => {
            // What is dropped is the program's, and may start programs that inherit the mask.
            drop(wrapped);
            (None, None, roll.hand_over(closure, &lineage))
        }
        None => (Some(wrapped), Some(closure), Ok(())),
    };
    let joined = bond.is_joined_at_exit;
    let child = Child::new(ChildProcess::new(pid, lifeline, outcome, lineage, joined)?);
    drop(wrapped);
    drop(closure);
    match dropped {
        Ok(()) => Ok(child),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// The last check and the last preparations before the fork. For a process that is attached to the
/// commons.
fn wrap() -> Result<Wrapped, ForkError> {
    // A process that is attached to the commons is in their namespace and never leaves it, so that
    // is not checked again.
    let home = Segment::commons().map_err(ForkError::Commons)?.mapping().home();
    if home.namespace().is_some_and(sys::children_leave_pid_namespace) {
        return Err(ForkError::PidNamespace);
    }
    sys::flush_stdio();
    Ok(Wrapped::new()?)
}

/// Error of [`fork`] and [`Builder::fork`].
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ForkError {
    /// The process has more than one thread. This error persists as long as the others run.
    #[error(
        "fork needs a process with one thread, and this one has {threads}: start children before \
         the first thread (at the top of main, say), or from a child that was forked then"
    )]
    Multithreaded {
        /// Number of threads that share this memory, including the caller.
        threads: usize,
    },
    /// The number of threads could not be found out: `unshare` is forbidden, or there were other
    /// threads a moment ago, and `/proc` is missing.
    #[error("fork needs a process with one thread, and cannot find out: {call} failed")]
    ThreadsUnknown {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// The error that the kernel returned.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
    /// Children of this process would start in another pid namespace, because it called
    /// `unshare(CLONE_NEWPID)`. There they could not tell whether their parent is alive.
    #[error(
        "a child in another pid namespace cannot be watched: fork before unshare(CLONE_NEWPID), \
         or from within the new namespace"
    )]
    PidNamespace,
    /// The child's name contains a NUL.
    #[error("a process cannot have the name {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// The name of a variable is empty or contains `=`, or name or value contain a NUL.
    #[error("the variable {name:?} cannot be set")]
    Variable {
        /// The name of the variable.
        name: String,
    },
    /// The commons could not be created.
    #[error("the commons could not be made")]
    Commons(#[source] SegmentError),
    /// The shared memory has no room for another process.
    #[error("the shared memory cannot take another process")]
    Segment(#[source] Fault),
    /// A system call failed.
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
impl fmt::Debug for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl From<Unfit> for ForkError {
    fn from(unfit: Unfit) -> ForkError {
        match unfit {
            Unfit::Name(name) => ForkError::Name { name },
            Unfit::Variable(name) => ForkError::Variable { name },
        }
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
