//! Every living child of this process.
//!
//! Who uses it: `fork.rs` enters a child, `child.rs` waits for it, `exit.rs` closes in a child what
//! belongs to the parent.
//!
//! The list serves two ends. A handle that was dropped leaves its child here, to be waited for once
//! it is dead, so that no zombie stays. And a new child, which has inherited every descriptor,
//! learns from the list which ones are its parent's: the pidfds and outcomes of its siblings. (The
//! writing ends of their lifelines, which would keep them alive when the parent is killed, are
//! closed in every child before that.)
//!
//! # Fork
//! The new process closes the descriptors and *forgets* the list, without dropping it. So a [`Kin`]
//! that the parent had listed keeps one reference for ever there, and an inherited handle that is
//! dropped closes nothing a second time. A descriptor is closed only if it still stands for what it
//! stood for in the parent: a process may have closed them all and opened its own. And one that was
//! lent to the program stays open, as a reference to it may have come along.
//!
//! To write to the list is to have its page copied, so a child that finds it empty leaves it as it
//! is, like one of a raw fork. What it would note there, its own descriptors, its parent has noted
//! for it.
//!
//! A raw fork by other code leaves list and descriptors as they are until the list is used there
//! for the first time: it knows its process, and starts anew in another. Nothing is waited for
//! there: the handles know their process too.
#![expect(unsafe_code, reason = "closes descriptors that were inherited")]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::object::lineage::Lineage;
use crate::process::outcome::OutcomeFile;
use crate::sys::at_fork;
use crate::sys::clock::{self, Deadline};
use crate::sys::descriptor::{FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::pidfd::{self, Identity};
use crate::sys::process::{self as sys, Ending, Lifeline, ParentsEnd};

/// A child of this process: what the kernel and the segments have for it.
#[derive(Debug)]
pub(super) struct Kin {
    pid: u32,
    /// The process that forked it. Nobody else can wait for it.
    parent: u32,
    /// `None` if the child was dead and forgotten before it could be opened: it ended at once, in a
    /// program that ignores `SIGCHLD`.
    pidfd: Option<OwnFile>,
    outcome: OutcomeFile,
    /// The child dies when this is closed.
    #[expect(
        dead_code,
        reason = "it is what closes it that counts: the end of this process, or the drop"
    )]
    lifeline: ParentsEnd,
    lineage: Lineage,
    /// Whether the program was given the descriptor to poll.
    lent: AtomicBool,
}

impl Kin {
    /// Enters the child `pid`, which was just forked: sees to it that it ends with this process,
    /// and tells the others who it is.
    ///
    /// If something of that is refused the child is killed and waited for.
    pub(super) fn new(
        pid: u32,
        lifeline: Lifeline,
        outcome: OutcomeFile,
        lineage: Lineage,
    ) -> Result<Arc<Kin>, OsError> {
        let prepare = || {
            let lifeline = lifeline.tie(pid)?;
            // Where the program ignores `SIGCHLD` the child may have ended and be forgotten.
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
                return Err(refused);
            }
        };
        let lent = AtomicBool::new(false);
        let kin =
            Arc::new(Kin { pid, parent: sys::pid(), pidfd, outcome, lifeline, lineage, lent });
        Family::lock().children.push(Member { kin: Arc::clone(&kin), dropped: false });
        Ok(kin)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn outcome(&self) -> &OutcomeFile {
        &self.outcome
    }

    /// Whether this process is the parent, and not a copy of it that inherited the handle.
    ///
    /// Pids suffice to tell: children of this crate die with their parents, so every ancestor lives
    /// and has a pid of its own. After raw forks a pid may come back; then the kernel answers for
    /// the descriptors that this is no child of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.parent == sys::pid()
    }

    /// The descriptors that a child of this process has no use for.
    fn inherited(&self) -> [Option<FdName>; 2] {
        let unless_lent = |fd| if self.lent.load(Ordering::Relaxed) { None } else { Some(fd) };
        match &self.pidfd {
            Some(pidfd) => [unless_lent(pidfd.name()), Some(self.outcome.name())],
            None => [None, unless_lent(self.outcome.name())],
        }
    }

    /// The descriptor to poll: readable once the child is dead.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.pidfd {
            Some(pidfd) => pidfd.as_fd(),
            // A file in memory is always readable, which says what is true: the child is dead.
            None => self.outcome.as_fd(),
        }
    }

    /// As [`Kin::as_fd`], for the program, which may keep it as long as the handle: for ever, if
    /// that is leaked.
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

    /// Waits until the child has ended and its status is taken; `None` if the deadline passes
    /// first.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Option<Ending>, OsError> {
        let Some(pidfd) = &self.pidfd else {
            return Ok(Some(self.bury(Ending::Unknown)));
        };
        if deadline == Deadline::NEVER {
            return Ok(Some(self.bury(sys::wait(pidfd.as_fd())?)));
        }
        let mut readable = false;
        loop {
            if let Some(ending) = sys::try_wait(pidfd.as_fd())? {
                return Ok(Some(self.bury(ending)));
            }
            let Some(left) = deadline.clip(SLICE) else {
                return Ok(None);
            };
            if readable {
                // The child is dead, but a debugger that traces it is told first. There is nothing
                // to poll for until it lets go.
                clock::sleep(left.min(Duration::from_millis(1)));
            } else {
                readable = sys::readable(&[pidfd], left)? == [true];
            }
        }
    }

    /// Gives back what the dead child owned in the segments, and takes it off the list.
    fn bury(&self, ending: Ending) -> Ending {
        self.lineage.reap(self.pid);
        Family::lock().children.retain(|member| !core::ptr::eq(&*member.kin, self));
        ending
    }
}

/// Longest single sleep of a wait with a deadline, so that every deadline fits into what `poll`
/// takes.
const SLICE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Member {
    kin: Arc<Kin>,
    /// Whether its handle was dropped, so that nobody else will wait for it.
    dropped: bool,
}

#[derive(Debug)]
struct Family {
    /// The process whose children these are; 0 before the first.
    process: u32,
    children: Vec<Member>,
    /// Descriptors by which this process is its own parent's child. Its own children have no use
    /// for them.
    own: Option<[FdName; 2]>,
    /// During a fork, what will be `own` in the child.
    expected: Option<[FdName; 2]>,
}

static FAMILY: Mutex<Family> = Mutex::new(Family::of(0));

impl Family {
    /// That of a process without children.
    const fn of(process: u32) -> Family {
        Family { process, children: Vec::new(), own: None, expected: None }
    }

    /// The family of this process; a new and empty one if the list in memory is that of the process
    /// it was copied from.
    fn lock() -> MutexGuard<'static, Family> {
        // No code that can panic runs under the lock but allocation.
        let mut family = FAMILY.lock().unwrap_or_else(PoisonError::into_inner);
        let process = sys::pid();
        if family.process != process {
            let inherited = std::mem::replace(&mut *family, Family::of(process));
            family.own = inherited.expected;
            inherited.disown();
            // For a process that was made by a bare system call. It is asked again whether it
            // worked before anything is mapped.
            let _ = at_fork::adopt();
        }
        family
    }

    /// Closes every descriptor of the list, which this process only inherited, and forgets the
    /// owners.
    fn disown(self) {
        let close = |fd: FdName| {
            // SAFETY: only this function closes what was inherited, and it runs under the lock.
            if unsafe { fd.is_open() } {
                // SAFETY: it is what the parent had, whose owner is never dropped here: it stays in
                // the copy of the parent's frame, or is forgotten below. Nobody was given it but by
                // `lend`.
                unsafe { fd.close() };
            }
        };
        for member in &self.children {
            member.kin.inherited().into_iter().flatten().for_each(close);
        }
        self.own.into_iter().flatten().for_each(close);
        // Keeps the references counted for ever: an inherited handle that is dropped is never the
        // last one, and closes nothing again.
        std::mem::forget(self.children);
    }
}

/// Before a fork: notes the descriptors that the child will have from this process. True if it will
/// have others, too, to be closed by [`begin`].
pub(super) fn expect(own: [FdName; 2]) -> bool {
    let mut family = Family::lock();
    family.expected = Some(own);
    !family.children.is_empty() || family.own.is_some()
}

/// After the fork, in the parent: no child is expected any more.
pub(super) fn expect_nobody() {
    Family::lock().expected = None;
}

/// In a new child: parts with the family of the parent.
pub(super) fn begin() {
    drop(Family::lock());
}

/// Makes the arrangements again by which this process, a child of [`fork`](crate::fork), ends with
/// its parent.
pub(super) fn end_with_parent() -> Result<(), OsError> {
    let family = Family::lock();
    let none = OsError { call: "end_with_parent", errno: Errno::SRCH };
    let [_outcome, lifeline] = family.own.ok_or(none)?;
    // SAFETY: under the lock nobody of us closes it.
    if !unsafe { lifeline.is_open() } {
        return Err(OsError { call: "fstat", errno: Errno::BADF });
    }
    // SAFETY: it was found open, and this crate closes a child's lifeline only at the child's own
    // forks.
    sys::end_with_parent(unsafe { BorrowedFd::borrow_raw(lifeline.number()) })
}

/// Says that nobody will wait for this child, and waits for it as soon as it is dead: now, or at
/// the next fork or drop.
pub(super) fn drop_child(kin: &Kin) {
    if let Some(member) =
        Family::lock().children.iter_mut().find(|member| core::ptr::eq(&*member.kin, kin))
    {
        member.dropped = true;
    }
    reap_dropped();
}

/// Waits for the dropped children that are dead.
pub(super) fn reap_dropped() {
    let dropped: Vec<Arc<Kin>> = Family::lock()
        .children
        .iter()
        .filter(|member| member.dropped)
        .map(|member| Arc::clone(&member.kin))
        .collect();
    if dropped.is_empty() {
        return;
    }
    let fds: Vec<BorrowedFd<'_>> = dropped.iter().map(|kin| kin.as_fd()).collect();
    // Where polling or waiting fails, another time will do.
    let Ok(dead) = sys::readable(&fds, Duration::ZERO) else {
        return;
    };
    for (kin, _) in dropped.iter().zip(dead).filter(|(_, dead)| *dead) {
        let _ = kin.wait(Deadline::after(Duration::ZERO));
    }
}
