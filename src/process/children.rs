//! The list of this process's children.
//!
//! `fork.rs` adds a child, `child.rs` waits for it, and `exit.rs` closes in a child what belongs to
//! the parent.
//!
//! The list has two purposes. When a handle is dropped its child stays here, so that it can be
//! waited for once it is dead and no zombie remains. And a new child, which inherits every
//! descriptor, finds in the list those that belong to its parent: the pidfds and outcomes of its
//! siblings. (Before that, every child closes the writing ends of its siblings' lifelines, which
//! would keep the siblings alive when the parent is killed.)
//!
//! # Fork
//! The new process closes the descriptors and *forgets* the list, without dropping it. So each
//! [`ChildProcess`] in the parent's list keeps a reference there that is never dropped, and
//! dropping an inherited handle does not close anything a second time. A descriptor is closed only
//! if it still refers to the same file as in the parent, because a process may have closed them all
//! and opened its own. A descriptor that was lent to the program stays open, because the child may
//! have inherited a reference to it.
//!
//! Writing to the list would copy its page, so a child that finds it empty leaves it unchanged, as
//! after a raw fork. The child's own descriptors are in the list already: the parent put them
//! there.
//!
//! After a raw fork by other code, list and descriptors stay as they are until the new process
//! first uses the list. The list knows its process, and is emptied in another one. The new process
//! cannot wait for an inherited child, because the handles know their process too.
#![expect(unsafe_code, reason = "closes descriptors that were inherited")]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::object::lineage::Lineage;
use crate::object::result;
use crate::process::family::Process;
use crate::process::outcome::{Kept, OutcomeFile};
use crate::process::returned::Source;
use crate::sys::at_fork;
use crate::sys::clock::{self, Deadline};
use crate::sys::descriptor::{self, FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::pidfd::{self, Identity};
use crate::sys::process::{self as sys, Ending, Lifeline, ParentsEnd};

/// A child of this process: its descriptors, and its entries in the segments.
#[derive(Debug)]
pub(super) struct ChildProcess {
    pid: u32,
    /// The process that forked it. No other process can wait for it.
    parent: u32,
    /// `None` if the child ended, and the kernel forgot it, before its pidfd could be opened. That
    /// happens in a program that ignores `SIGCHLD`.
    pidfd: Option<OwnFile>,
    outcome: Kept,
    /// The child dies when this is closed. `None` if it is detached.
    #[expect(
        dead_code,
        reason = "it is what closes it that counts: the end of this process, or the drop"
    )]
    lifeline: Option<ParentsEnd>,
    lineage: Lineage,
    /// Whether the descriptor to poll was lent to the program.
    lent: AtomicBool,
    /// Whether the child's value may own memory, to be freed if nobody joins the child.
    owns: AtomicBool,
    /// Whether this process waits for the child when it ends by itself.
    is_joined_at_exit: bool,
}

impl ChildProcess {
    /// Adds the child `pid`, which was just made: makes it end with this process, by its `lifeline`
    /// if it has one, and writes its identity into the segments.
    ///
    /// If the kernel refuses any of that, the child is killed and waited for.
    pub(super) fn new(
        pid: u32,
        lifeline: Option<Lifeline>,
        outcome: OutcomeFile,
        lineage: Lineage,
        is_joined_at_exit: bool,
    ) -> Result<Arc<ChildProcess>, OsError> {
        let prepare = || {
            let lifeline = lifeline.map(|lifeline| lifeline.tie(pid)).transpose()?;
            // Where the program ignores `SIGCHLD` the kernel may have forgotten the child already.
            let pidfd = match pidfd::open_if_there(pid)? {
                Some(pidfd) => {
                    let pidfd = OwnFile::new(pidfd)?;
                    lineage.introduce(&Identity::of(&pidfd, pid));
                    Some(pidfd)
                }
                None => None,
            };
            Ok((lifeline, pidfd))
        };
        let (lifeline, pidfd) = match prepare() {
            Ok(prepared) => prepared,
            Err(refused) => {
                sys::kill_unseen(pid);
                lineage.reap(pid);
                result::discard(&lineage);
                return Err(refused);
            }
        };
        let lent = AtomicBool::new(false);
        let process = Arc::new(ChildProcess {
            pid,
            parent: sys::pid(),
            // Where there is no pidfd, the file is what the program polls.
            outcome: if pidfd.is_some() { outcome.keep() } else { Kept::File(outcome) },
            pidfd,
            lifeline,
            lineage,
            lent,
            owns: AtomicBool::new(false),
            is_joined_at_exit,
        });
        if is_joined_at_exit {
            join_children_at_exit();
        }
        Children::lock().list.push(ListedChild { process: Arc::clone(&process), dropped: false });
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the child's value comes from.
    pub(super) fn source(&self) -> Source<'_> {
        Source { kept: &self.outcome, lineage: &self.lineage }
    }

    /// Says whether the child's value may own memory.
    pub(super) fn set_owns(&self, owns: bool) {
        // Relaxed: read by this process only, behind the lock of the list or by the same thread.
        self.owns.store(owns, Ordering::Relaxed);
    }

    /// Frees what the dead child has returned, as nobody will join it.
    fn discard(&self) {
        self.source().discard(self.owns.load(Ordering::Relaxed));
    }

    /// Whether this process is the parent, and not a copy of it that inherited the handle.
    ///
    /// Comparing pids is enough: children of this crate die with their parents, so every ancestor
    /// is alive and has its own pid. After raw forks a pid may be used again; then the kernel
    /// refuses to wait, because the descriptor is not that of a child of this process.
    pub(super) fn is_ours(&self) -> bool {
        self.parent == sys::pid()
    }

    /// The descriptors that a child of this process inherits and does not need.
    fn inherited(&self) -> [Option<FdName>; 2] {
        let unless_lent = |fd| if self.lent.load(Ordering::Relaxed) { None } else { Some(fd) };
        let outcome = self.outcome.file().map(OutcomeFile::name);
        match &self.pidfd {
            Some(pidfd) => [unless_lent(pidfd.name()), outcome],
            None => [None, outcome.and_then(unless_lent)],
        }
    }

    /// The descriptor to poll: readable once the child is dead.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.pidfd {
            Some(pidfd) => pidfd.as_fd(),
            // A file in memory is always readable, which is correct: the child is dead.
            None => self.outcome.file().expect("kept as a file if there is no pidfd").as_fd(),
        }
    }

    /// Like [`ChildProcess::as_fd`], but for the program, which may keep the descriptor as long as
    /// the handle, and a leaked handle is never dropped.
    pub(super) fn lend(&self) -> BorrowedFd<'_> {
        // Relaxed: read in a copy of this memory.
        self.lent.store(true, Ordering::Relaxed);
        self.as_fd()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.pidfd.as_ref().is_none_or(pidfd::has_exited)
    }

    pub(super) fn signal(&self, signal: i32) -> Result<(), OsError> {
        match &self.pidfd {
            Some(pidfd) => sys::send_signal(pidfd.as_fd(), signal),
            None => Err(OsError { call: "pidfd_send_signal", errno: Errno::SRCH }),
        }
    }

    /// Waits until the child has ended, and leaves its status; false if the deadline passes first.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> Result<bool, OsError> {
        match &self.pidfd {
            Some(pidfd) => sys::wait_until_readable(pidfd, deadline),
            None => Ok(true),
        }
    }

    /// Waits until the child has ended, and takes its status; `None` if the deadline passes first.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Option<Ending>, OsError> {
        let Some(pidfd) = &self.pidfd else {
            return Ok(Some(self.reap(Ending::Unknown)));
        };
        if deadline == Deadline::NEVER {
            return Ok(Some(self.reap(sys::wait(pidfd.as_fd())?)));
        }
        let mut readable = false;
        loop {
            if let Some(ending) = sys::try_wait(pidfd.as_fd())? {
                return Ok(Some(self.reap(ending)));
            }
            let Some(left) = deadline.clip(SLICE) else {
                return Ok(None);
            };
            if readable {
                // The child is dead, but a debugger that traces it gets its status first. There is
                // nothing to poll for until the debugger detaches.
                clock::sleep(left.min(Duration::from_millis(1)));
            } else {
                readable = sys::readable(&[pidfd], left)? == [true];
            }
        }
    }

    /// Releases what the dead child owned in the segments, and removes it from the list.
    fn reap(&self, ending: Ending) -> Ending {
        self.lineage.reap(self.pid);
        Children::lock().list.retain(|child| !core::ptr::eq(&*child.process, self));
        ending
    }
}

/// Longest single sleep of a wait with a deadline, so that every timeout fits into the argument of
/// `poll`.
const SLICE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct ListedChild {
    process: Arc<ChildProcess>,
    /// Whether its handle was dropped, so that only this list can wait for it.
    dropped: bool,
}

#[derive(Debug)]
struct Children {
    /// The process whose children these are; 0 before the first.
    process: u32,
    list: Vec<ListedChild>,
    /// Descriptors that this process has as a child of its parent. Its own children do not need
    /// them.
    own: Option<[FdName; 2]>,
    /// During a fork, what will be `own` in the child.
    expected: Option<[FdName; 2]>,
}

static CHILDREN: Mutex<Children> = Mutex::new(Children::of(0));

impl Children {
    /// The list of a process without children.
    const fn of(process: u32) -> Children {
        Children { process, list: Vec::new(), own: None, expected: None }
    }

    /// Locks the list of this process. It is replaced by an empty one if it still belongs to the
    /// process from which this one was copied.
    fn lock() -> MutexGuard<'static, Children> {
        // Under the lock only allocation can panic.
        let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let process = sys::pid();
        if children.process != process {
            let inherited = std::mem::replace(&mut *children, Children::of(process));
            children.own = inherited.expected;
            inherited.close_inherited();
            // For a process that was made by a bare system call. Whether this worked is checked
            // again before anything is mapped.
            let _ = at_fork::adopt();
        }
        children
    }

    /// Closes every descriptor in the list, all of them inherited, and forgets their owners.
    fn close_inherited(self) {
        let close = |fd: FdName| {
            // SAFETY: only this function closes what was inherited, and it runs under the lock.
            if unsafe { fd.is_open() } {
                // SAFETY: it refers to the parent's file, and its owner is never dropped here: that
                // stays in the copy of the parent's frame, or is forgotten below. Only `lend` gives
                // it to other code, and lent ones are skipped.
                unsafe { fd.close() };
            }
        };
        for child in &self.list {
            child.process.inherited().into_iter().flatten().for_each(close);
        }
        self.own.into_iter().flatten().for_each(close);
        // The references stay counted: an inherited handle that is dropped is never the last one,
        // so it closes nothing again.
        std::mem::forget(self.list);
    }
}

/// Stores the descriptors that the child will need. Returns true if it will inherit others, which
/// [`after_fork_in_child`] closes.
pub(super) fn before_fork(own: Option<[FdName; 2]>) -> bool {
    let mut children = Children::lock();
    children.expected = own;
    !children.list.is_empty() || children.own.is_some()
}

/// Clears in the parent what [`before_fork`] stored.
pub(super) fn after_fork_in_parent() {
    Children::lock().expected = None;
}

/// Closes in a new child what it inherited of the parent's list, and empties the list.
pub(super) fn after_fork_in_child() {
    drop(Children::lock());
}

/// Takes note of the descriptors that this new process has as a child, which is no copy of its
/// parent.
pub(super) fn become_child(outcome: FdName, lifeline: OwnFile) {
    Children::lock().own = Some([outcome, lifeline.name()]);
    // It stays open until the process ends.
    std::mem::forget(lifeline);
}

/// Makes this process, a child of [`fork`](crate::fork), end with its parent again.
pub(super) fn end_with_parent() -> Result<(), OsError> {
    let children = Children::lock();
    let none = OsError { call: "end_with_parent", errno: Errno::SRCH };
    let [_outcome, lifeline] = children.own.ok_or(none)?;
    // SAFETY: this crate does not close it while the lock is held.
    if !unsafe { lifeline.is_open() } {
        return Err(OsError { call: "fstat", errno: Errno::BADF });
    }
    // SAFETY: it was found open, and this crate closes a child's lifeline only at the child's own
    // forks.
    sys::end_with_parent(unsafe { BorrowedFd::borrow_raw(lifeline.number()) })
}

/// The children of this process that have not ended.
pub(super) fn living() -> Vec<Process> {
    let processes: Vec<Arc<ChildProcess>> =
        Children::lock().list.iter().map(|child| Arc::clone(&child.process)).collect();
    let process = |child: Arc<ChildProcess>| {
        let pidfd = child.pidfd.as_ref().filter(|_| !child.has_ended())?;
        Some(Process::new(child.pid, Some(descriptor::duplicate(pidfd).ok()?)))
    };
    processes.into_iter().filter_map(process).collect()
}

/// Waits for the children that are not to be left behind when the program ends.
extern "C" fn join_at_exit() {
    let waited: Vec<Arc<ChildProcess>> = Children::lock()
        .list
        .iter()
        .filter(|child| child.process.is_joined_at_exit)
        .map(|child| Arc::clone(&child.process))
        .collect();
    for child in waited {
        // If the kernel refuses, nothing is left to be done.
        let _ = child.wait_for_end(Deadline::NEVER);
    }
}

/// Has the function called when the program ends by itself, once.
fn join_children_at_exit() {
    static ASKED: std::sync::Once = std::sync::Once::new();
    ASKED.call_once(|| {
        sys::at_exit(join_at_exit);
    });
}

/// Marks this child as dropped, and waits for it once it is dead: now, or at the next fork or drop.
pub(super) fn drop_child(process: &ChildProcess) {
    let mut children = Children::lock();
    let listed = children.list.iter_mut().find(|child| core::ptr::eq(&*child.process, process));
    let is_dead = listed.is_none();
    if let Some(child) = listed {
        child.dropped = true;
    }
    drop(children);
    if is_dead {
        process.discard();
    }
    reap_dropped();
}

/// Waits for the dropped children that are dead.
pub(super) fn reap_dropped() {
    let dropped: Vec<Arc<ChildProcess>> = Children::lock()
        .list
        .iter()
        .filter(|child| child.dropped)
        .map(|child| Arc::clone(&child.process))
        .collect();
    if dropped.is_empty() {
        return;
    }
    let fds: Vec<BorrowedFd<'_>> = dropped.iter().map(|process| process.as_fd()).collect();
    // If polling or waiting fails, the next call tries again.
    let Ok(dead) = sys::readable(&fds, Duration::ZERO) else {
        return;
    };
    for (process, _) in dropped.iter().zip(dead).filter(|(_, dead)| *dead) {
        if let Ok(Some(_)) = process.wait(Deadline::after(Duration::ZERO)) {
            process.discard();
        }
    }
}
