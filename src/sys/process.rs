//! Making, ending and waiting for processes. Used by the room [`process`](crate::process) alone.
//!
//! # Parent death
//! A child has to end when its parent *process* ends, and not when the thread that forked it does. Two arrangements together do it,
//! both made by [`die_with_parent`]; either suffices where the other cannot work.
//!
//! **The lifeline** is a pipe that nobody writes to. The parent alone holds the writing end; the child holds the reading end, in
//! signal-driven mode (`O_ASYNC`) with `SIGKILL` as the signal and itself as the owner. When the last thread of the parent is gone
//! the kernel closes the writing end, and that sends the signal. It is about the process, not about a thread; it reaches a child that
//! is stopped, and one that blocks every signal; no code of the child has to run. It fails while some other process holds the writing
//! end too: a child made by a raw `fork` of other code, which knows nothing of it, or a child that closed its reading end.
//!
//! **The parent-death signal** (`PR_SET_PDEATHSIG`) covers that. The kernel sends it when the forking *thread* ends, after it has made
//! another living thread of the same process the parent, or, if there is none, a process further up; and it sends it again when that
//! thread ends. So the signal is [`SIGSTKFLT`](Signal::STKFLT), which no kernel sends for anything else, with a handler that asks
//! `getppid`: the same pid means that only a thread ended; any other means that the process did, and the child kills itself.
//! The new parent cannot have the old one's pid: it is an ancestor and lived beside it. What this one cannot do: a child that is stopped
//! ends only when it is continued, and one that blocks the signal ends when it unblocks it.
//!
//! Both are made after the fork, so the parent may be dead by then; the child looks once more when they are in place. The handler alone is
//! put in place before it, by the parent, and taken back after it: see below.
//!
//! After an `exec` in the child the lifeline is closed (it is close-on-exec) and the handler is gone, so the parent-death signal has its
//! default action: the new program ends with the thread that forked it. A parent that replaces itself by `exec` closes the lifeline:
//! its children end.
//!
//! # What the child touches
//! After a fork the first touch of a page costs a page fault: of data, as it is copied when it is written, and of program text, as the tables for it
//! are not inherited. One takes as long as ten cheap system calls, so for a child with little to do they are what a fork costs. Hence the parent
//! does beforehand what it can, in pages that it touches anyway; and the calls of the child go to the kernel from here, where they would
//! each be in another part of libc.
//!
//! # Source
//! fork(2), prctl(2), fcntl(2), waitid(2), pidfd_open(2), unshare(2), proc_pid_stat(5). The order in which the kernel reparents and then
//! signals is that of `forget_original_parent` in its `kernel/exit.c`.

#![expect(unsafe_code, reason = "fork, signal handlers and a few calls that have no safe wrapper")]

use std::io::{self, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
// A plain atomic, not the model checker's: a signal handler reads it.
use core::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

/// Process id of the caller.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// Evidence that this process has one thread. It is not `Send`: it speaks of the thread that asked.
#[derive(Debug)]
pub(crate) struct OnlyThread(PhantomData<*const ()>);

/// Why there is no [`OnlyThread`].
#[derive(Debug)]
pub(crate) enum NotAlone {
    /// So many threads share this memory.
    Threads(usize),
    /// Neither of the two ways to ask the kernel works here.
    Unknown(io::Error),
}

impl OnlyThread {
    /// Asks the kernel whether the calling thread is the only one that will ever again run in this memory.
    ///
    /// `unshare(CLONE_VM)` is the exact question: it changes nothing, and fails with `EINVAL` where memory is shared. It also fails for
    /// threads that are on their way out (joined a moment ago, or a main thread that ended before the others): these are told by
    /// the kernel's flag for it, so that joining a thread and then forking never fails by chance. Where a sandbox forbids `unshare`,
    /// the list of threads in `/proc` alone decides.
    pub(crate) fn ask() -> Result<OnlyThread, NotAlone> {
        let alone = OnlyThread(PhantomData);
        let refused = match unshare_memory() {
            Ok(()) => return Ok(alone),
            Err(refused) => refused,
        };
        let threads = threads().map_err(NotAlone::Unknown)?;
        if threads.running > 1 {
            return Err(NotAlone::Threads(threads.running));
        }
        // With nobody on the way out the list and `EINVAL` disagree, unless the last one left between the two questions. What
        // remains then is another process that shares this memory.
        if refused.raw_os_error() == Some(libc::EINVAL) && threads.ending == 0 && unshare_memory().is_err() {
            return Err(NotAlone::Threads(2));
        }
        Ok(alone)
    }
}

fn unshare_memory() -> io::Result<()> {
    // SAFETY: takes no pointer. With this flag alone the call only checks that memory is not shared, and changes nothing.
    match unsafe { libc::unshare(libc::CLONE_VM) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Threads of this process.
#[derive(Debug)]
struct Threads {
    /// Those that may still run the program's code, the caller included.
    running: usize,
    /// Those that never will again, and only have not been forgotten yet.
    ending: usize,
}

fn threads() -> io::Result<Threads> {
    let mut count = Threads { running: 0, ending: 0 };
    for entry in std::fs::read_dir("/proc/self/task")? {
        let stat = match std::fs::read_to_string(entry?.path().join("stat")) {
            Ok(stat) => stat,
            // The thread ended while the list was read.
            Err(gone) if matches!(gone.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                continue;
            }
            Err(refused) => return Err(refused),
        };
        if is_ending(&stat) { count.ending += 1 } else { count.running += 1 }
    }
    Ok(count)
}

/// Whether a line of `/proc/PID/stat` is that of a thread which has left user space for good.
///
/// The ninth field holds the kernel's flags. The second is a name in parentheses and may hold anything, so counting starts behind it.
fn is_ending(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6))
        .and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Whether children of this process, which lives in the pid namespace with the inode `own`, would be born into another one (after an
/// `unshare(CLONE_NEWPID)`).
pub(crate) fn children_leave_pid_namespace(own: u64) -> bool {
    // Without `/proc` there is no telling; the child still finds out that it cannot see its parent, and ends.
    own != 0 && pid_namespace_of_children() != Some(own)
}

/// `None` also for a namespace that was made and has no process yet.
fn pid_namespace_of_children() -> Option<u64> {
    // Of the calling thread: `/proc/self` is the main thread, which may have ended and then has no namespaces any more. The link's text has
    // the inode, and reading it takes less than half as long as a `stat`, which makes the inode.
    let mut text = [MaybeUninit::<u8>::uninit(); 32];
    let (text, _) = rustix::fs::readlinkat_raw(CWD, "/proc/thread-self/ns/pid_for_children", &mut text).ok()?;
    str::from_utf8(text).ok()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Writes out what Rust's and C's standard streams have buffered. Errors stay with the streams.
pub(crate) fn flush_stdio() {
    // A reader that went away is not the business of whoever forks.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    // SAFETY: a null stream means all of them, and is allowed.
    unsafe { libc::fflush(core::ptr::null_mut()) };
}

/// A set of signals as the kernel has it: bit 0 is signal 1.
type Signals = u64;

/// All but the two that libc keeps for itself, as in libc's own `sigfillset`.
const ALL: Signals = !(0b11 << 31);
const PARENT_DEATH: Signals = 1 << (libc::SIGSTKFLT - 1);

/// What a fork is wrapped in: every signal that can be blocked is, in this thread, and the handler of the parent-death signal is in place.
///
/// In the parent both are put back when the value is dropped. The child drops nothing; it calls [`let_signals_in`](Wrapped::let_signals_in).
#[derive(Debug)]
pub(crate) struct Wrapped {
    blocked_before: Signals,
    handled_before: Option<SigAction>,
}

impl Wrapped {
    pub(crate) fn new() -> io::Result<Wrapped> {
        let blocked_before = swap_mask(ALL)?;
        note_forker();
        let action = SigAction::new(
            SigHandler::Handler(parent_or_its_thread_ended),
            SaFlags::SA_RESTART | SaFlags::SA_ONSTACK,
            SigSet::empty(),
        );
        // SAFETY: the handler calls only async-signal-safe functions and touches only atomics. Nobody else uses this signal: the kernel
        // never sends it by itself. A handler that the program had for it is replaced in a child only, as documented: in this process the
        // signal is blocked until that handler is back.
        let handled_before = unsafe { sigaction(nix::sys::signal::Signal::SIGSTKFLT, &action) }.ok();
        Ok(Wrapped { blocked_before, handled_before })
    }

    /// In the child: gives back the mask that the parent had, except that the parent-death signal is let through.
    pub(crate) fn let_signals_in(&self) {
        // Cannot fail: the mask is one that the kernel gave us.
        let _ = swap_mask(self.blocked_before & !PARENT_DEATH);
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        if let Some(before) = &self.handled_before {
            // SAFETY: what the program had installed is what it gets back.
            let _ = unsafe { sigaction(nix::sys::signal::Signal::SIGSTKFLT, before) };
        }
        // Cannot fail, as above.
        let _ = swap_mask(self.blocked_before);
    }
}

/// Sets the signals that are blocked in this thread, and gives those that were. By the bare call, see the module's text.
#[doc(alias = "sigprocmask")]
fn swap_mask(blocked: Signals) -> io::Result<Signals> {
    let mut before: Signals = 0;
    let (new, old, len) = (&raw const blocked, &raw mut before, size_of::<Signals>());
    // SAFETY: both sets are of the length that is said, and are ours.
    match unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, len) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The process that forked, with the pid of its child.
    Parent(u32),
    /// The new process.
    Child,
}

/// Makes a copy of this process.
///
/// It is libc's `fork` and not a raw `clone`: libc has caches of its own (thread id, robust list, heap locks) to put right in the child.
pub(crate) fn fork(_alone: &OnlyThread) -> io::Result<Side> {
    // SAFETY: the caller has evidence that this is the only thread. So no other thread can have held a lock or been halfway through a
    // change in the memory that the child gets a copy of, and the child may go on as the parent does.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid.unsigned_abs())),
    }
}

/// Ends this process at once: no destructor, no `atexit` function, no buffer is run or written.
#[doc(alias = "_exit")]
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// An unnamed file in memory, close-on-exec.
pub(crate) fn memory_file(name: &str) -> io::Result<OwnedFd> {
    // Kernels before 6.3 do not know the flag, and later ones may insist on it.
    match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(memfd_create(name, MemfdFlags::CLOEXEC)?),
        file => Ok(file?),
    }
}

/// Closes a descriptor that this process got by being forked, and whose owner in the copied memory will never be dropped.
pub(crate) fn close_inherited(fd: RawFd) {
    // SAFETY: the caller says that nothing in this process uses the descriptor any more.
    unsafe { rustix::io::close(fd) };
}

/// The last process in this line, from the root to this process, that has forked: in a new child its parent, and after a fork of its own itself.
static FORKER: AtomicI32 = AtomicI32::new(0);
/// What `FORKER` was before: where that is this process, the parent of it.
static FORKER_BEFORE: AtomicI32 = AtomicI32::new(0);

/// Has the handler of the parent-death signal know its parent in a coming child, which so need not write to a page of its own.
///
/// Only while the signal is blocked, as the handler must not see one word without the other.
fn note_forker() {
    let own = pid().cast_signed();
    // Relaxed, here and in the handler: only this thread exists, and the handler runs in it or in threads that it starts.
    let forker = FORKER.load(Ordering::Relaxed);
    if forker != own {
        FORKER_BEFORE.store(forker, Ordering::Relaxed);
        FORKER.store(own, Ordering::Relaxed);
    }
}

/// Handler of the parent-death signal; see the module's text. Calls nothing that is not async-signal-safe, and leaves `errno` alone.
extern "C" fn parent_or_its_thread_ended(_signal: libc::c_int) {
    // SAFETY: takes no pointer, cannot fail.
    let own = unsafe { libc::getpid() };
    let forker = FORKER.load(Ordering::Relaxed);
    let parent = if forker == own { FORKER_BEFORE.load(Ordering::Relaxed) } else { forker };
    // SAFETY: takes no pointer, cannot fail.
    if unsafe { libc::getppid() } != parent {
        kill_self();
    }
}

fn kill_self() -> ! {
    // SAFETY: takes no pointer, cannot fail.
    let own = unsafe { libc::getpid() };
    // SAFETY: takes no pointer; a process may always kill itself.
    unsafe { libc::kill(own, libc::SIGKILL) };
    // The first process of a pid namespace is immune to its own signals.
    exit_now(128 + libc::SIGKILL)
}

/// Arranges in a new child, this process `own`, that it ends with the process `parent`, and ends it here if that is dead already. See the
/// module's text.
///
/// The reading end of the lifeline has to stay open as long as the arrangement is to hold, and no writing end may be open in the child.
/// The handler of the parent-death signal is in place since before the fork.
pub(crate) fn die_with_parent(parent: u32, own: u32, lifeline: BorrowedFd<'_>) {
    // What fails here leaves the other arrangement; neither call fails for a descriptor and a signal of our own.
    let _ = watch(lifeline, own);
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::STKFLT));

    // The parent may have died before the arrangements were made.
    // SAFETY: takes no pointer, cannot fail.
    let parent_now = unsafe { libc::getppid() };
    // A pid fits: it came from the kernel as a positive `i32`.
    if parent_now != parent.cast_signed() || is_hung_up(lifeline) {
        kill_self();
    }
}

/// `F_SETSIG` of fcntl(2), the same on every architecture; the crate libc has it not for all of them.
const F_SETSIG: libc::c_int = 10;

/// Has `SIGKILL` sent to this process, `own`, when the last writing end of the pipe is closed.
fn watch(lifeline: BorrowedFd<'_>, own: u32) -> io::Result<()> {
    let fd = lifeline.as_raw_fd();
    for (command, argument) in
        [(libc::F_SETOWN, own.cast_signed()), (F_SETSIG, libc::SIGKILL), (libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)]
    {
        // The kernel takes the whole register.
        let argument = libc::c_long::from(argument);
        // SAFETY: these commands take an integer and touch no memory; the descriptor is open, as `lifeline` is borrowed.
        if unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn is_hung_up(lifeline: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&lifeline, PollFlags::empty())];
    // Hanging up is reported whether or not it was asked for.
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// How a process ended, as far as the kernel still knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, with or without a core dump.
    Killed(i32),
    /// It has ended, and its status is gone: somebody else waited for it, or the program ignores `SIGCHLD`.
    Unknown,
}

/// Waits for a child to end, and takes its status. EINTR never escapes.
#[doc(alias = "waitid")]
pub(crate) fn wait(child: BorrowedFd<'_>) -> io::Result<Ending> {
    loop {
        if let Some(ending) = wait_with(child, WaitIdOptions::EXITED)? {
            return Ok(ending);
        }
    }
}

/// Takes the status of a child if it has ended.
pub(crate) fn try_wait(child: BorrowedFd<'_>) -> io::Result<Option<Ending>> {
    wait_with(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(child: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<Ending>> {
    match rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(child), options)) {
        Ok(None) => Ok(None),
        Ok(Some(status)) => Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Ending::Exited(code)),
            (None, Some(signal)) => Some(Ending::Killed(signal)),
            (None, None) => None,
        }),
        Err(Errno::CHILD) => Ok(Some(Ending::Unknown)),
        Err(refused) => Err(refused.into()),
    }
}

/// Waits until one of the descriptors is readable, for at most `timeout`, and says which are. A signal ends the wait early.
pub(crate) fn readable<F: AsFd>(fds: &[F], timeout: std::time::Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(polled.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect()),
        Err(refused) => Err(refused.into()),
    }
}

/// Kills the child `pid` and takes its status. Only for a child that nobody can have waited for, so that the pid is still its own.
pub(crate) fn kill_unseen(pid: u32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) else {
        return;
    };
    // Both fail only if the child is dead and forgotten, which is what is wanted.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
}

/// Sends a signal to the process that the descriptor names, and to no later one with its pid.
#[doc(alias = "pidfd_send_signal")]
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = core::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `info` asks the kernel to fill it in as `kill` does; the descriptor is open, as it is borrowed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_thread_is_not_the_only_one() {
        // The test harness waits in the main thread.
        match OnlyThread::ask() {
            Err(NotAlone::Threads(threads)) => assert!(threads >= 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_thread_counts_until_it_is_on_its_way_out() {
        assert!(is_ending("7 (a) (b) Z 1 2 3 4 5 4194372 8"));
        assert!(!is_ending("7 (a) (b) S 1 2 3 4 5 4194368 8"));
        assert!(!is_ending(""));
    }

    #[test]
    fn children_stay_in_the_pid_namespace() {
        assert!(!children_leave_pid_namespace(crate::sys::pidfd::pid_namespace()));
    }

    #[test]
    fn a_pipe_hangs_up_when_its_writing_end_is_closed() {
        let (reader, writer) = io::pipe().expect("a pipe");
        assert!(!is_hung_up(reader.as_fd()));
        drop(writer);
        // A child that another test starts may have inherited the writing end, and closes it at its `exec`.
        while !is_hung_up(reader.as_fd()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_signal_reaches_the_process_of_the_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let pidfd = crate::sys::pidfd::open(child.id()).expect("a pidfd");
        assert_eq!(try_wait(pidfd.as_fd()).expect("wait"), None);
        send_signal(pidfd.as_fd(), libc::SIGTERM).expect("signal");
        assert_eq!(wait(pidfd.as_fd()).expect("wait"), Ending::Killed(libc::SIGTERM));
        assert_eq!(wait(pidfd.as_fd()).expect("wait"), Ending::Unknown);
        assert_eq!(send_signal(pidfd.as_fd(), libc::SIGTERM).expect_err("nobody there").raw_os_error(), Some(libc::ESRCH));
        // Only to let the standard library know; the status is ours.
        let _ = child.wait();
    }
}
