//! Making, ending and waiting for processes. Used only by the module [`process`](crate::process).
//!
//! # Parent death
//! A child has to end when its parent *process* ends, and not when the thread that forked it does.
//! Two mechanisms together do that; either is enough where the other cannot work.
//!
//! **The [lifeline](Lifeline)** is a pipe that nobody writes to. The parent alone holds the writing
//! end; the child holds the reading end, in signal-driven mode (`O_ASYNC`) with `SIGKILL` as the
//! signal and itself as the owner. When the last thread of the parent is gone, the kernel closes
//! the writing end, and that sends the signal. So the lifeline follows the process and not a
//! thread. It reaches a child that is stopped, and one that blocks every signal; no code of the
//! child has to run. The parent sets it up right after the fork and opens the writing end only
//! then, so that the child never has it: a child that is stopped before its first instruction ends
//! with its parent, too. The writing ends of the lifelines of older siblings are closed in the
//! child before any code of the program runs, as in every child that libc's `fork` makes
//! ([`at_fork`]). The lifeline fails while another process holds the writing end, which only a
//! child made by a bare system call can, or if the child closes its reading end.
//!
//! **The parent-death signal** (`PR_SET_PDEATHSIG`) covers that. The kernel sends it when the
//! forking *thread* ends, after it has made another living thread of the same process the parent,
//! or, if there is none, a process further up; and it sends it again when that thread ends. So the
//! signal is [`SIGSTKFLT`](Signal::STKFLT), which no kernel sends for anything else, with a handler
//! that calls `getppid`. The same pid means that only a thread ended. Any other pid means that the
//! process ended, and the child kills itself. The new parent cannot have the old one's pid, as it
//! is an ancestor that was alive at the same time. This mechanism has limits: a child that is
//! stopped ends only when it is continued, and one that blocks the signal ends when it unblocks it.
//!
//! Until its parent has set up the lifeline, a child does nothing but check whether it still has
//! its parent. So no code of the program runs in a child that would not end. A child that is
//! *stopped* in this short time, and whose parent is killed in the same time, finds out when it is
//! continued.
//!
//! A child that changes its user loses both, unless its parent is root: the kernel forgets the
//! parent-death signal, and refuses the lifeline's signal, as its sender is another user.
//! [`end_with_parent`] sets them up again.
//!
//! Without `/proc` the writing end cannot be opened after the fork. Then the child inherits it, and
//! closes it as it closes a sibling's.
//!
//! After an `exec` in the child the lifeline is closed (it is close-on-exec) and the handler is
//! gone, so the parent-death signal has its default action: the new program ends with the thread
//! that forked it. A parent that replaces itself by `exec` closes the lifeline: its children end.
//!
//! # What the child touches
//! After a fork the first touch of a page costs a page fault: for data, because it is copied when
//! it is written; for program text, because its page tables are not inherited. A page fault takes
//! as long as ten cheap system calls, so for a child with little to do the faults are the cost of a
//! fork. Hence the parent does beforehand what it can, in pages that it touches anyway. And the
//! child makes its system calls from this file, as the functions of libc lie in many different
//! pages.
//!
//! # Source
//! fork(2), prctl(2), fcntl(2), pipe(7), waitid(2), pidfd_open(2), unshare(2), proc_pid_stat(5).
//! The order in which the kernel reparents and then signals is that of `forget_original_parent` in
//! its `kernel/exit.c`.

#![expect(unsafe_code, reason = "fork, signal handlers and a few calls that have no safe wrapper")]
#![expect(clippy::disallowed_types, reason = "a signal handler reads them, in no model")]

use core::sync::atomic::{AtomicI32, Ordering};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::sys::clock::Deadline;
use crate::sys::descriptor::{self, FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::{at_fork, clock, pidfd};

/// Process id of the caller.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// Process id of the caller, where a wrong one would do harm: in a signal, or in memory that others
/// read. A sandbox that refuses the call answers with a negative number, which stands for a process
/// group, and -1 for every process that this one may signal.
pub(crate) fn own_pid() -> Result<u32, OsError> {
    // SAFETY: takes no pointer. The call always succeeds, so libc does not look for an error.
    let pid = unsafe { libc::getpid() };
    if pid <= 0 {
        let errno = Errno::from_raw_os_error(pid.wrapping_neg());
        return Err(OsError { call: "getpid", errno });
    }
    Ok(pid.cast_unsigned())
}

/// Errors that the kernel can give.
const LARGEST_ERROR: u32 = 4095;

/// The effective user of this process.
pub(crate) fn user() -> Result<u32, OsError> {
    // SAFETY: takes no pointer.
    told("geteuid", unsafe { libc::geteuid() })
}

/// Whether effective and real user or group of this process differ.
pub(crate) fn has_borrowed_rights() -> Result<bool, OsError> {
    // SAFETY: takes no pointer.
    let user_really = told("getuid", unsafe { libc::getuid() })?;
    // SAFETY: takes no pointer.
    let group = told("getegid", unsafe { libc::getegid() })?;
    // SAFETY: takes no pointer.
    let group_really = told("getgid", unsafe { libc::getgid() })?;
    Ok(user()? != user_really || group != group_really)
}

/// What a call has told that always succeeds, so that libc does not look for an error, and rustix
/// panics in a debug build. But a sandbox may return an error, as a number that nobody has.
fn told(call: &'static str, number: u32) -> Result<u32, OsError> {
    if number > u32::MAX - LARGEST_ERROR {
        let errno = Errno::from_raw_os_error(number.wrapping_neg().cast_signed());
        return Err(OsError { call, errno });
    }
    Ok(number)
}

/// Proof that this process has only one thread. It is not `Send`, as it is about the thread that
/// asked.
#[derive(Debug)]
pub(crate) struct OnlyThread(PhantomData<*const ()>);

/// Why there is no [`OnlyThread`].
#[derive(Debug)]
pub(crate) enum NotAlone {
    /// This many threads share this memory.
    Threads(usize),
    /// Neither of the two ways to ask the kernel works here.
    Unknown(OsError),
}

/// Number of looks after which threads that are ending, and never gone, count as running. That is
/// after somewhat more than half a second.
const MOST_LOOKS: u32 = 1000;
/// The same, where the running threads cannot be listed. Each look yields to others.
const LOOKS_WITHOUT_PROC: u32 = 1000;
/// Number of looks in close succession, which yield to others. A thread that was joined a moment
/// ago is gone by then, unless many others want the processors.
const LOOKS_THAT_YIELD: u32 = 300;
/// How long this thread sleeps between two later looks.
const BETWEEN_LATER_LOOKS: Duration = Duration::from_millis(1);

impl OnlyThread {
    /// Asks the kernel whether the calling thread is the only one that will ever again run in this
    /// memory.
    ///
    /// `unshare(CLONE_VM)` is the exact question: it changes nothing, and fails with `EINVAL` where
    /// memory is shared. Where a sandbox forbids it, the kernel's count of this process's threads
    /// decides: 1 is alone. A list of threads cannot say that: while it is read, a thread that is
    /// already off the list may start one that is not on it yet.
    ///
    /// Both also count threads that are ending: one that was joined a moment ago, or a main thread
    /// that ended before the others. A list can show that another thread *runs*, which means
    /// refusal. If none runs, the question is asked again until the last one is gone. A main thread
    /// that has ended is never removed; then the count is 2: this thread, and one that can start no
    /// more.
    pub(crate) fn ask() -> Result<OnlyThread, NotAlone> {
        let alone = OnlyThread(PhantomData);
        for look in 0..MOST_LOOKS {
            let refused = match unshare_memory() {
                Ok(()) => return Ok(alone),
                Err(refused) => refused,
            };
            // In this order: a main thread that has ended before the count was taken started none
            // after it.
            let (main_has_ended, count) =
                match main_thread_has_ended().and_then(|ended| Ok((ended, count_threads()?))) {
                    Ok(counted) => counted,
                    // A thread that was joined a moment ago is soon gone; one that runs is not.
                    Err(_) if refused == Errno::INVAL && look < LOOKS_WITHOUT_PROC => {
                        std::thread::yield_now();
                        continue;
                    }
                    Err(unknown) => return Err(NotAlone::Unknown(unknown)),
                };
            if count == 1 + usize::from(main_has_ended) {
                // With one thread and `EINVAL`, the last of the others is gone but has not released
                // all that it shared, or another process shares this memory.
                if refused != Errno::INVAL || main_has_ended {
                    return Ok(alone);
                }
            } else {
                let running = running_threads().map_err(NotAlone::Unknown)?;
                if running > 1 {
                    return Err(NotAlone::Threads(running));
                }
            }
            if look < LOOKS_THAT_YIELD {
                std::thread::yield_now();
            } else {
                clock::sleep(BETWEEN_LATER_LOOKS);
            }
        }
        Err(NotAlone::Threads(2))
    }
}

fn unshare_memory() -> Result<(), Errno> {
    // SAFETY: takes no pointer. With this flag alone the call only checks that memory is not
    // shared, and changes nothing.
    match unsafe { libc::unshare(libc::CLONE_VM) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::PERM)),
    }
}

/// Number of threads of this process, as the kernel counts them.
fn count_threads() -> Result<usize, OsError> {
    // The folder of a process's threads has a link for each, and the two that every empty folder
    // has.
    let links =
        descriptor::links("/proc/self/task").map_err(OsError::in_call("stat /proc/self/task"))?;
    Ok(usize::try_from(links.saturating_sub(2)).unwrap_or(usize::MAX))
}

/// Whether the thread that this process began with has ended while others go on.
fn main_thread_has_ended() -> Result<bool, OsError> {
    let main = pid();
    // SAFETY: takes no pointer. Where a sandbox refuses the call, the file says it.
    if unsafe { libc::gettid() }.cast_unsigned() == main {
        return Ok(false);
    }
    let mut text = [0; 1024];
    let stat = descriptor::read_proc(
        "/proc/self/stat",
        ["open /proc/self/stat", "read /proc/self/stat"],
        &mut text,
    )?;
    Ok(is_ending(stat))
}

/// Number of threads that may still run the program's code, the caller included. The list is not
/// read at one moment, so the number may be out of date.
fn running_threads() -> Result<usize, OsError> {
    let refused = OsError::in_call("open /proc/self/task");
    let tasks = match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks,
        Err(error) => return Err(refused(error)),
    };
    let mut running = 0;
    let mut text = [0; 1024];
    for task in tasks {
        let Ok(task) = task else { continue };
        let path = format!("/proc/self/task/{}/stat", task.file_name().to_string_lossy());
        // A thread whose file cannot be read has ended since the list was read, or will be looked
        // at again.
        running += usize::from(
            descriptor::read_proc(&path, ["open", "read"], &mut text)
                .is_ok_and(|stat| !is_ending(stat)),
        );
    }
    Ok(running)
}

/// Whether a line of `/proc/PID/stat` is that of a thread which has left user space for good.
///
/// The ninth field has the kernel's flags. The second is a name in parentheses and may contain
/// anything, so counting starts behind it.
fn is_ending(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6))
        .and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Whether children of this process, which is in the pid namespace `own`, would start in another
/// one (after an `unshare(CLONE_NEWPID)`). If this cannot be found out, the child finds that it
/// cannot see its parent, and ends.
pub(crate) fn children_leave_pid_namespace(own: u32) -> bool {
    match pidfd::pid_namespace_of_children() {
        Ok(theirs) => theirs != own,
        // A namespace that was made and has no process yet, and `/proc` is mounted to show it.
        Err(OsError { errno: Errno::NOENT, .. }) => {
            descriptor::namespace("/proc/thread-self/ns/pid", "pid").is_ok()
        }
        Err(_) => false,
    }
}

/// Writes out what Rust's and C's standard streams have buffered. Errors stay with the streams.
pub(crate) fn flush_stdio() {
    // A fork does not fail because the reader of a stream has gone.
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

/// The state around a fork: in this thread every signal that can be blocked is blocked, and the
/// handler of the parent-death signal is in place.
///
/// In the parent both are put back when the value is dropped. The child drops nothing; it calls
/// [`let_signals_in`](Wrapped::let_signals_in).
#[derive(Debug)]
pub(crate) struct Wrapped {
    blocked_before: Signals,
    handled_before: SigAction,
}

impl Wrapped {
    pub(crate) fn new() -> Result<Wrapped, OsError> {
        let blocked_before = swap_mask(ALL)?;
        note_forker();
        let action = parent_death_action();
        // SAFETY: the handler calls only async-signal-safe functions and touches only atomics.
        // Nobody else uses this signal: the kernel never sends it by itself. A handler that the
        // program had for it is replaced in a child only, as documented: in this process the signal
        // is blocked until that handler is back.
        match unsafe { sigaction(nix::sys::signal::Signal::SIGSTKFLT, &action) } {
            Ok(handled_before) => Ok(Wrapped { blocked_before, handled_before }),
            Err(refused) => {
                give_mask_back(blocked_before);
                Err(OsError::in_call("sigaction")(refused))
            }
        }
    }

    /// In the child: gives back the mask that the parent had, except that the parent-death signal
    /// is let through.
    pub(crate) fn let_signals_in(&self) {
        give_mask_back(self.blocked_before & !PARENT_DEATH);
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        // Once more, as below.
        for _ in 0..2 {
            // SAFETY: this is the action that the program had installed.
            if unsafe { sigaction(nix::sys::signal::Signal::SIGSTKFLT, &self.handled_before) }
                .is_ok()
            {
                break;
            }
        }
        give_mask_back(self.blocked_before);
    }
}

/// Blocks what was blocked before. The kernel has let us block all signals, so a refusal now is an
/// accident, and a second try succeeds.
fn give_mask_back(blocked: Signals) {
    let _ = swap_mask(blocked).or_else(|_| swap_mask(blocked));
}

/// Sets the signals that are blocked in this thread, and gives those that were. By the bare system
/// call; see the module's text.
#[doc(alias = "sigprocmask")]
fn swap_mask(blocked: Signals) -> Result<Signals, OsError> {
    change_mask(libc::SIG_SETMASK, blocked)
}

fn change_mask(how: libc::c_int, signals: Signals) -> Result<Signals, OsError> {
    let mut before: Signals = 0;
    let (new, old, len) = (&raw const signals, &raw mut before, size_of::<Signals>());
    // SAFETY: both sets are of the length that is said, and are ours.
    match unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, len) } {
        0 => Ok(before),
        _ => Err(OsError::in_call("sigprocmask")(io::Error::last_os_error())),
    }
}

/// Runs `act`, and then blocks the signals in this thread that were blocked before.
pub(crate) fn with_mask_kept<T>(act: impl FnOnce() -> T) -> Result<T, OsError> {
    let before = change_mask(libc::SIG_BLOCK, 0)?;
    let done = act();
    give_mask_back(before);
    Ok(done)
}

/// Makes writes beyond the limit of file sizes fail in this thread, instead of killing the process.
pub(crate) fn block_file_size_signal() {
    // If this is refused, the signal comes.
    let _ = change_mask(libc::SIG_BLOCK, 1 << (libc::SIGXFSZ - 1));
}

/// Names this process, as `ps` shows it.
pub(crate) fn set_name(name: &str) -> Result<(), OsError> {
    let name =
        std::ffi::CString::new(name).map_err(|_| OsError { call: "prctl", errno: Errno::INVAL })?;
    rustix::thread::set_name(&name).map_err(OsError::in_call("prctl"))
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
/// It is libc's `fork` and not a raw `clone`: libc has caches of its own (thread id, robust list,
/// heap locks) to put right in the child.
pub(crate) fn fork(_alone: &OnlyThread) -> Result<Side, OsError> {
    // SAFETY: the caller has proof that this is the only thread. So no other thread can have held a
    // lock or been halfway through a change in the memory that the child gets a copy of, and the
    // child may go on as the parent does.
    match unsafe { libc::fork() } {
        -1 => Err(OsError::in_call("fork")(io::Error::last_os_error())),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid.unsigned_abs())),
    }
}

/// Has `function` called when this process ends by itself, by `exit` or the end of `main`.
#[doc(alias = "atexit")]
pub(crate) fn at_exit(function: extern "C" fn()) {
    // If there is no memory for that, it is not called. SAFETY: it may be called at any time.
    let _ = unsafe { libc::atexit(function) };
}

/// Ends this process at once: runs no destructor and no `atexit` function, and writes no buffer.
#[doc(alias = "_exit")]
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// The last process that has forked, among this process and its ancestors: in a new child its
/// parent, and after a fork of its own the process itself.
static FORKER: AtomicI32 = AtomicI32::new(0);
/// The previous value of `FORKER`. If `FORKER` is this process, this is its parent.
static FORKER_BEFORE: AtomicI32 = AtomicI32::new(0);

/// Installs the handler of the parent-death signal in this process, whose parent is `parent`, and
/// in the copies that it makes as its siblings. For a process that has not begun to run code of the
/// program, and is no copy of its parent.
pub(crate) fn handle_parent_death(parent: u32) -> Result<(), OsError> {
    // Relaxed: only this thread exists.
    FORKER.store(parent.cast_signed(), Ordering::Relaxed);
    // SAFETY: as in `Wrapped::new`.
    unsafe { sigaction(nix::sys::signal::Signal::SIGSTKFLT, &parent_death_action()) }
        .map(drop)
        .map_err(OsError::in_call("sigaction"))
}

/// Asks the kernel for the parent-death signal. The caller calls [`end_without_parent`] afterwards,
/// as the parent may have died before.
pub(crate) fn ask_for_parent_death_signal() -> Result<(), OsError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::STKFLT))
        .map_err(OsError::in_call("prctl"))
}

/// Signals that were blocked before all were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockedBefore(Signals);

impl BlockedBefore {
    /// Those that are blocked in this thread.
    pub(crate) fn now() -> Result<BlockedBefore, OsError> {
        change_mask(libc::SIG_BLOCK, 0).map(BlockedBefore)
    }

    /// Blocks all signals in this thread.
    pub(crate) fn block_all() -> Result<BlockedBefore, OsError> {
        swap_mask(ALL).map(BlockedBefore)
    }

    /// Blocks these again, except for the parent-death signal.
    pub(crate) fn let_others_in(self) {
        give_mask_back(self.0 & !PARENT_DEATH);
    }
}

fn parent_death_action() -> SigAction {
    SigAction::new(
        SigHandler::Handler(parent_or_its_thread_ended),
        SaFlags::SA_RESTART | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    )
}

/// Tells the handler of the parent-death signal who the parent of a coming child is. So the child
/// need not write to a page of its own.
///
/// Only while the signal is blocked, as the handler must not see one word without the other.
fn note_forker() {
    let own = pid().cast_signed();
    // Relaxed, here and in the handler: only this thread exists, and the handler runs in it or in
    // threads that it starts.
    let forker = FORKER.load(Ordering::Relaxed);
    if forker != own {
        FORKER_BEFORE.store(forker, Ordering::Relaxed);
        FORKER.store(own, Ordering::Relaxed);
    }
}

/// Handler of the parent-death signal; see the module's text. Calls nothing that is not
/// async-signal-safe, and leaves `errno` alone.
extern "C" fn parent_or_its_thread_ended(_signal: libc::c_int) {
    // Who cannot find out whether its parent is alive goes on.
    let Ok(own) = own_pid().map(u32::cast_signed) else {
        return;
    };
    let forker = FORKER.load(Ordering::Relaxed);
    let parent = if forker == own { FORKER_BEFORE.load(Ordering::Relaxed) } else { forker };
    if parent_pid().is_some_and(|now| now != parent) {
        kill_self();
    }
}

/// The pid of the process that made this one as its child, by `fork` or otherwise; `None` in a
/// process that is no child of this crate.
pub(crate) fn family_parent() -> Option<u32> {
    let forker = FORKER.load(Ordering::Relaxed);
    let is_own = forker == pid().cast_signed();
    let parent = if is_own { FORKER_BEFORE.load(Ordering::Relaxed) } else { forker };
    (parent > 0).then_some(parent.cast_unsigned())
}

/// The pid of this process's parent, unless a sandbox refuses the call.
pub(crate) fn parent_pid() -> Option<i32> {
    // SAFETY: takes no pointer.
    let pid = unsafe { libc::getppid() };
    (pid >= 0).then_some(pid)
}

fn kill_self() -> ! {
    if let Ok(own) = own_pid() {
        // SAFETY: takes no pointer; a process may always kill itself.
        unsafe { libc::kill(own.cast_signed(), libc::SIGKILL) };
    }
    // The first process of a pid namespace is immune to its own signals, and a sandbox may refuse
    // the calls.
    exit_now(128 + libc::SIGKILL)
}

/// The pipe that ends a child with its parent; see the module's text.
#[derive(Debug)]
pub(crate) struct Lifeline {
    /// What the child inherits and keeps. Parent and child share its flags, its signal and its
    /// owner.
    childs_end: OwnFile,
    parents_end: ParentsEnd,
}

/// Where the writing end of a [`Lifeline`] is.
#[derive(Debug)]
pub(crate) enum ParentsEnd {
    /// It is opened after the fork.
    Later,
    /// Here.
    Own(#[expect(dead_code, reason = "it is closed when this is dropped")] WritingEnd),
    /// In the [`Trunk`].
    Shared,
}

/// The writing end of a lifeline. No child inherits it; see [`at_fork`].
#[derive(Debug)]
pub(crate) struct WritingEnd(OwnFile);

impl WritingEnd {
    fn new(file: OwnFile) -> WritingEnd {
        at_fork::add_file(file.name());
        WritingEnd(file)
    }
}

impl Drop for WritingEnd {
    fn drop(&mut self) {
        // The file is closed after that: its number may become another's then.
        at_fork::remove_file(self.0.name());
    }
}

/// The pipe that all children of this process share that are no copies of it. Each has a reading
/// end of its own, which is a second opening of the same pipe: so it has a signal and an owner of
/// its own.
#[derive(Debug)]
struct Trunk {
    /// The process that made it. A copy of that process makes its own.
    process: u32,
    reading_end: OwnFile,
    _writing_end: WritingEnd,
}

static TRUNK: Mutex<Option<Trunk>> = Mutex::new(None);

impl Trunk {
    /// A new reading end; `None` if the kernel refuses any of it, or without `/proc`.
    fn branch() -> Option<OwnFile> {
        let mut place = TRUNK.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(foreign) = place.take_if(|trunk| trunk.process != pid()) {
            // Its descriptors were closed at the fork.
            std::mem::forget(foreign);
        }
        let trunk = match &mut *place {
            Some(trunk) => trunk,
            none => none.insert(Trunk::new().ok()?),
        };
        trunk.reading_end.checked().ok()?;
        descriptor::reopen(&trunk.reading_end, OFlags::RDONLY).ok()
    }

    fn new() -> Result<Trunk, OsError> {
        let (reading_end, writing_end) = descriptor::pipe()?;
        let reading_end = OwnFile::new(reading_end)?;
        let writing_end = WritingEnd::new(OwnFile::new(writing_end)?);
        at_fork::add_file(reading_end.name());
        Ok(Trunk { process: pid(), reading_end, _writing_end: writing_end })
    }
}

/// Makes the kernel send `SIGKILL` to the owner of this reading end when the last writing end is
/// closed. Without an owner nothing is sent yet.
fn prepare(childs_end: &OwnFile) -> Result<(), OsError> {
    let [signal, mode] = [libc::SIGKILL, libc::O_ASYNC | libc::O_NONBLOCK].map(libc::c_long::from);
    control(childs_end, F_SETSIG, signal)?;
    control(childs_end, libc::F_SETFL, mode)?;
    Ok(())
}

impl Lifeline {
    /// Prepares a lifeline for a coming child. Everything that can be refused is done now, before
    /// there is a child.
    pub(crate) fn new() -> Result<Lifeline, OsError> {
        Lifeline::with(descriptor::can_be_reopened)
    }

    /// As [`Lifeline::new`], for a child that inherits no descriptors. The writing end is shared by
    /// all such children, so the parent needs no descriptor for each.
    pub(crate) fn for_stranger() -> Result<Lifeline, OsError> {
        if let Some(childs_end) = Trunk::branch() {
            prepare(&childs_end)?;
            return Ok(Lifeline { childs_end, parents_end: ParentsEnd::Shared });
        }
        Lifeline::with(|_| false)
    }

    fn with(opens_later: impl FnOnce(&OwnFile) -> bool) -> Result<Lifeline, OsError> {
        let (childs_end, parents_end) = descriptor::pipe()?;
        let childs_end = OwnFile::new(childs_end)?;
        prepare(&childs_end)?;
        let parents_end = if opens_later(&childs_end) {
            ParentsEnd::Later
        } else {
            ParentsEnd::Own(WritingEnd::new(OwnFile::new(parents_end)?))
        };
        Ok(Lifeline { childs_end, parents_end })
    }

    /// In the parent: makes the kernel kill `child` when the returned descriptor is closed.
    pub(crate) fn tie(self, child: u32) -> Result<ParentsEnd, OsError> {
        let Lifeline { childs_end, parents_end } = self;
        let parents_end = match parents_end {
            ParentsEnd::Later => {
                ParentsEnd::Own(WritingEnd::new(descriptor::reopen(&childs_end, OFlags::WRONLY)?))
            }
            other => other,
        };
        // A pid fits: it came from the kernel as a positive `i32`.
        match control(&childs_end, libc::F_SETOWN, child.into()) {
            Ok(_) => Ok(parents_end),
            // The child could not begin, and the kernel has removed it if `SIGCHLD` is ignored.
            Err(_) if matches!(pidfd::open_if_there(child), Ok(None)) => Ok(parents_end),
            Err(refused) => Err(refused),
        }
    }

    /// The end that the child keeps, to be sent to it.
    pub(crate) fn childs_end(&self) -> BorrowedFd<'_> {
        self.childs_end.as_fd()
    }

    /// The end that the child keeps. For the child.
    pub(crate) fn name(&self) -> FdName {
        self.childs_end.name()
    }
}

/// Number of looks in close succession: they take as long as a running parent needs. Later looks
/// are further apart.
const QUICK_LOOKS: u32 = 1000;
/// How long a new child sleeps between two looks at what its parent does.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_micros(100);

/// Makes sure that this new child, the process `own`, ends with the process `parent`. If the parent
/// is dead already, ends the child here. See the module's text. The handler of the parent-death
/// signal was installed before the fork.
///
/// An error if it cannot be found out whether the parent has set up the lifeline, and the
/// parent-death signal does not work, either.
pub(crate) fn die_with_parent(parent: u32, own: u32, lifeline: &Lifeline) -> Result<(), OsError> {
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::STKFLT)).is_ok();
    let mut look = 0_u32;
    loop {
        // The parent may have died before either was set up.
        let parent_now = end_without_parent(parent);
        match control(&lifeline.childs_end, libc::F_GETOWN, 0) {
            Ok(owner) if owner == libc::c_long::from(own) => return Ok(()),
            Ok(_) => {}
            Err(_) if asked && parent_now.is_some() => return Ok(()),
            Err(refused) => return Err(refused),
        }
        look = look.saturating_add(1);
        if look < QUICK_LOOKS { std::thread::yield_now() } else { clock::sleep(BETWEEN_LOOKS) }
    }
}

/// Ends this process if its parent is dead. Gives the parent now, if the kernel tells.
pub(crate) fn end_without_parent(parent: u32) -> Option<i32> {
    let parent_now = parent_pid();
    if parent_now.is_some_and(|now| now != parent.cast_signed()) {
        kill_self();
    }
    parent_now
}

/// Sets up both again in a child that has changed its user; see the module's text.
pub(crate) fn end_with_parent(childs_end: BorrowedFd<'_>) -> Result<(), OsError> {
    control(childs_end, libc::F_SETOWN, own_pid()?.into())?;
    rustix::process::set_parent_process_death_signal(Some(Signal::STKFLT))
        .map_err(OsError::in_call("prctl"))?;
    // The parent may have died before.
    parent_or_its_thread_ended(libc::SIGSTKFLT);
    Ok(())
}

/// `F_SETSIG` of fcntl(2), the same on every architecture. The crate libc does not have it for all
/// of them.
const F_SETSIG: libc::c_int = 10;

/// A command of fcntl(2) that takes an integer.
fn control(
    fd: impl AsFd,
    command: libc::c_int,
    argument: libc::c_long,
) -> Result<libc::c_long, OsError> {
    // SAFETY: these commands take an integer and touch no memory; the descriptor is open, as it is
    // borrowed.
    match unsafe { libc::syscall(libc::SYS_fcntl, fd.as_fd().as_raw_fd(), command, argument) } {
        -1 => Err(OsError::in_call("fcntl")(io::Error::last_os_error())),
        result => Ok(result),
    }
}

/// How a process ended, as far as the kernel still knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, with or without a core dump.
    Killed(i32),
    /// It has ended and its status is lost: somebody else waited for it, or the program ignores
    /// `SIGCHLD`.
    Unknown,
}

/// Waits for a child to end, and takes its status. EINTR never escapes.
#[doc(alias = "waitid")]
pub(crate) fn wait(child: BorrowedFd<'_>) -> Result<Ending, OsError> {
    loop {
        if let Some(ending) = wait_with(child, WaitIdOptions::EXITED)? {
            return Ok(ending);
        }
    }
}

/// Takes the status of a child if it has ended.
pub(crate) fn try_wait(child: BorrowedFd<'_>) -> Result<Option<Ending>, OsError> {
    wait_with(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(child: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<Ending>, OsError> {
    match rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(child), options)) {
        Ok(None) => Ok(None),
        Ok(Some(status)) => Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Ending::Exited(code)),
            (None, Some(signal)) => Some(Ending::Killed(signal)),
            (None, None) => None,
        }),
        Err(Errno::CHILD) => Ok(Some(Ending::Unknown)),
        Err(refused) => Err(OsError::in_call("waitid")(refused)),
    }
}

/// Waits until one of the descriptors is readable, for at most `timeout`, and says which are. A
/// signal ends the wait early.
pub(crate) fn readable<F: AsFd>(fds: &[F], timeout: Duration) -> Result<Vec<bool>, OsError> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {
            Ok(polled.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect())
        }
        Err(refused) => Err(OsError::in_call("poll")(refused)),
    }
}

/// Longest single sleep of a wait with a deadline, so that every timeout fits into the argument of
/// `poll`.
const SLICE: Duration = Duration::from_secs(3600);

/// Waits until the descriptor is readable; false if the deadline passes first.
pub(crate) fn wait_until_readable(fd: impl AsFd, deadline: Deadline) -> Result<bool, OsError> {
    loop {
        let left = deadline.clip(SLICE);
        if readable(&[fd.as_fd()], left.unwrap_or(Duration::ZERO))? == [true] {
            return Ok(true);
        }
        if left.is_none() {
            return Ok(false);
        }
    }
}

/// Kills the child `pid` and takes its status. Only for a child that nobody can have waited for, so
/// that the pid is still its own.
pub(crate) fn kill_unseen(pid: u32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) else {
        return;
    };
    // In a program that ignores `SIGCHLD` the child may be gone, and its pid another process's.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if matches!(rustix::process::waitid(WaitId::Pid(pid), look), Err(Errno::CHILD)) {
        return;
    }
    // Both fail only if the child is dead and gone, which is the aim.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)
    });
}

/// Sends a signal to the process of the descriptor, and to no later one with its pid. Signal 0 only
/// checks whether a signal could be sent.
#[doc(alias = "pidfd_send_signal")]
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), OsError> {
    let no_info = core::ptr::null::<libc::siginfo_t>();
    // Not by rustix, whose signals are neither 0 nor those of real time. SAFETY: a null `info` asks
    // the kernel to fill it in as `kill` does; the descriptor is open, as it is borrowed.
    match unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0)
    } {
        0 => Ok(()),
        _ => Err(OsError::in_call("pidfd_send_signal")(io::Error::last_os_error())),
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
        assert!(!children_leave_pid_namespace(pidfd::pid_namespace().expect("a namespace")));
    }

    #[test]
    fn threads_are_counted_by_the_kernel() {
        let before = count_threads().expect("/proc is mounted");
        assert!(before >= 2, "the test harness waits in the main thread");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(running_threads().expect("/proc is mounted") >= 3);
        drop(stop);
        let _ = thread.join();
        assert!(!main_thread_has_ended().expect("/proc is mounted"));
    }

    #[test]
    fn a_signal_reaches_the_process_of_the_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let pidfd = crate::sys::pidfd::open(child.id()).expect("a pidfd");
        assert_eq!(try_wait(pidfd.as_fd()).expect("wait"), None);
        send_signal(pidfd.as_fd(), libc::SIGTERM).expect("signal");
        assert_eq!(wait(pidfd.as_fd()).expect("wait"), Ending::Killed(libc::SIGTERM));
        assert_eq!(wait(pidfd.as_fd()).expect("wait"), Ending::Unknown);
        assert_eq!(
            send_signal(pidfd.as_fd(), libc::SIGTERM).expect_err("nobody there").errno,
            Errno::SRCH
        );
        // Only to let the standard library know; the status is ours.
        let _ = child.wait();
    }
}
