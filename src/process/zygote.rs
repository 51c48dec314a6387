//! The zygote: a process with one thread that was started from this program, and is copied to make
//! children. Its copies are not its children, but those of the process that started it.
//!
//! ```text
//! process                        zygote                        child
//!   start it: exec of this
//!     program, marked  -------->  take over before `main`
//!   a cord for a child, and
//!     a note           -------->  copy itself ---------------->  hello, and so on (`request.rs`)
//!                                 the child's pid into the note  the same
//!                                 close the cord
//! ```
//! The process and the zygote have one end each of a pair of sockets. A message over it is a byte
//! and the child's end of a cord. So any number of threads may ask at a time, and none waits for
//! another's child.
//!
//! The *note* is a file whose position nobody else uses. Zygote and child move it to the child's
//! pid, which wakes nobody and takes no memory. The process looks there only if the cord ends
//! without a hello: so the child has died that early, and must be waited for.
//!
//! # Peer death
//! - The process: its end of the socket is closed, and the zygote ends. No other process has that
//!   end: it is close-on-exec, and closed in every child that libc's `fork` makes
//!   ([`at_fork`]). If the zygote is stopped, its [lifeline](Lifeline) ends it.
//! - The zygote: what it had in hand is closed with it, so whoever waits at the other end of a cord
//!   without a child is told, and asks the next zygote. If it was killed between the copy and the
//!   child's hello, the child is there, and says hello itself. Children do not depend on the zygote
//!   afterwards.
//! - The child, before its hello: the note tells which process that was. The process waits for it,
//!   and asks for another.
//! - Zygote and new child, both before either has moved the note: the child has run nothing, and
//!   stays a zombie of which nobody knows, until the process ends.
//! - The zygote, in a function that it runs for [`preload`](super::preload()): the next one runs
//!   it.
//!
//! # Source
//! The zygote of Android and of Chromium; the fork server of AFL and of CPython. That children are
//! the caller's own is the `CLONE_PARENT` of clone(2).

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Signal, getegid, geteuid, getgid, getgroups, getuid};

use crate::process::request::{self, Answer};
use crate::sys::at_fork;
use crate::sys::descriptor::{self, FileId, OwnFile};
use crate::sys::error::OsError;
use crate::sys::process::{
    self as sys, BlockedBefore, Ending, Lifeline, NotAlone, OnlyThread, ParentsEnd, Side,
};
use crate::sys::program::{self, Build};
use crate::sys::sibling::Copier;
use crate::sys::{pidfd, socket};

/// The zygote of this process.
struct Zygote {
    /// The process that started it.
    owner: u32,
    rights: Rights,
    pidfd: Own,
    socket: Own,
    /// Ends it with this process also while it is stopped, and does not see the end of the socket.
    lifeline: ParentsEnd,
    /// The environment of its children, and the folder in which they work.
    environment: Vec<(OsString, OsString)>,
    folder: Option<FileId>,
}

/// Why a function has not returned in a zygote, or not with success.
enum NotRun {
    /// The zygote was dead before it called the function.
    Dead,
    /// The zygote has ended in the function, or closed its end of the cord there.
    Ended,
    Failed(NoChild),
}

impl From<OsError> for NotRun {
    fn from(refused: OsError) -> NotRun {
        NotRun::Failed(refused.into())
    }
}

/// What the children of a zygote have of this process without being told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    pub(super) environment: bool,
    pub(super) folder: bool,
}

/// A descriptor that no child of a `fork` keeps; see [`at_fork`].
struct Own(OwnFile);

impl Own {
    fn new(fd: OwnedFd) -> Result<Own, OsError> {
        let file = OwnFile::new(fd)?;
        at_fork::add_file(file.name());
        Ok(Own(file))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // The file is closed after that: its number may become another's then.
        at_fork::remove_file(self.0.name());
    }
}

static ZYGOTE: Mutex<Option<Zygote>> = Mutex::new(None);

/// What a message over the socket asks for; the cord that comes with it has the rest.
const A_CHILD: u8 = 1;
const TO_RUN: u8 = 2;

/// Functions that each zygote of this process has to run, by their distance from the fixed point.
static PRELOADED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Option<Zygote>> {
    ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often to start a zygote for a child, if they are killed.
const ATTEMPTS: u32 = 3;

/// Why the zygote has made no child.
#[derive(Debug)]
pub(super) enum NoChild {
    /// There can be no zygote here, or it cannot copy itself. A new process of the program can be
    /// started instead.
    NoZygote,
    /// The kernel has refused a call that only a zygote needs, with the same consequence.
    NotWatched(OsError),
    /// The kernel has refused a call.
    Os(OsError),
    /// A function that the zygote had to run has failed.
    Preload(String),
}

impl From<OsError> for NoChild {
    fn from(refused: OsError) -> NoChild {
        NoChild::Os(refused)
    }
}

/// Makes a child. `ask` sends the request over the given end of a cord; it is told what child and
/// process have in common. `note` is a file whose position is 0 and which nobody else moves. Gives
/// the pid of the child and the cord.
///
/// # Blocking
/// Until the child has begun.
pub(super) fn make_child(
    note: BorrowedFd<'_>,
    ask: impl Fn(&OwnedFd, Common) -> Result<(), OsError>,
) -> Result<(u32, OwnedFd), NoChild> {
    if !Copier::CAN_BE {
        return Err(NoChild::NoZygote);
    }
    for _ in 0..ATTEMPTS {
        let (ours, theirs) = socket::pair()?;
        let common = pass_on(theirs, note)?;
        let asked = ask(&ours, common);
        let answered = request::await_answer(&ours);
        // Whatever has come of that, the child is not to become a zombie of which nobody knows.
        match (&asked, &answered) {
            (Ok(()), &Ok(Some(Answer::Hello(pid)))) => return Ok((pid, ours)),
            (Err(_), &Ok(Some(Answer::Hello(pid)))) => sys::kill_unseen(pid),
            _ => {
                if let Some(pid) = noted(note) {
                    sys::kill_unseen(pid);
                }
            }
        }
        write_down(note, 0);
        match (asked, answered) {
            (_, Ok(Some(Answer::NotAlone))) => return Err(NoChild::NoZygote),
            // A sandbox, or a kernel that does not know it.
            (_, Ok(Some(Answer::Refused(Errno::PERM | Errno::INVAL | Errno::NOSYS)))) => {
                return Err(NoChild::NoZygote);
            }
            (_, Ok(Some(Answer::Refused(errno)))) => {
                return Err(OsError { call: "clone", errno }.into());
            }
            (Err(refused), _) => {
                // It may have been killed.
                if !matches!(refused.errno, Errno::PIPE | Errno::CONNRESET) {
                    return Err(refused.into());
                }
            }
            // It was killed, or the child was.
            (Ok(()), Ok(_)) => {}
            (Ok(()), Err(refused)) => return Err(refused.into()),
        }
    }
    give_up();
    // Somebody kills them all.
    Err(NoChild::NoZygote)
}

/// Writes the child's pid into a note, or 0.
fn write_down(note: impl AsFd, pid: u32) {
    // If the kernel refuses it, the child is missed only if it dies at once.
    let _ = rustix::fs::seek(note, SeekFrom::Start(pid.into()));
}

/// The pid in a note.
fn noted(note: impl AsFd) -> Option<u32> {
    rustix::fs::tell(note).ok()?.try_into().ok().filter(|&pid| pid != 0)
}

/// Gives the end of a cord, and a note, to the zygote of this process, which is started if there is
/// none. Says what the two have in common.
fn pass_on(cord: OwnedFd, note: BorrowedFd<'_>) -> Result<Common, NoChild> {
    let mut place = lock();
    for _ in 0..ATTEMPTS {
        let zygote = match &mut *place {
            Some(zygote) if zygote.is_ours() => zygote,
            other => {
                dismiss(other.take());
                match Zygote::start_preloaded() {
                    Err(NoChild::NoZygote) => continue,
                    started => other.insert(started?),
                }
            }
        };
        match socket::send(&zygote.socket.0, &[A_CHILD], &[cord.as_fd(), note]) {
            Ok(()) => {
                let folder = working_folder();
                return Ok(Common {
                    environment: has_environment(&zygote.environment),
                    folder: folder.is_some() && folder == zygote.folder,
                });
            }
            Err(OsError { errno: Errno::PIPE | Errno::CONNRESET, .. }) => {
                if let Some(dead) = place.take() {
                    dead.end();
                }
            }
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(NoChild::NoZygote)
}

/// Ends a zygote that cannot be used here.
fn dismiss(zygote: Option<Zygote>) {
    match zygote {
        Some(zygote) if zygote.owner == sys::pid() => {
            zygote.end();
        }
        // That of a parent is not ours to end. Its descriptors were closed at the fork, and their
        // numbers may be others' by now.
        theirs => std::mem::forget(theirs),
    }
}

/// Ends the zygote of this process, which has lost every cord. It may be about to die: its sockets
/// are closed before that.
fn give_up() {
    if let Some(zygote) = lock().take_if(|zygote| zygote.owner == sys::pid()) {
        zygote.end();
    }
}

fn preloaded() -> MutexGuard<'static, Vec<u64>> {
    PRELOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the zygote of this process, and each later one, run the function at this distance from the
/// fixed point.
///
/// # Blocking
/// Until it has returned.
pub(super) fn preload(function: u64) -> Result<(), NoChild> {
    if !Copier::CAN_BE {
        return Err(NoChild::NoZygote);
    }
    let mut place = lock();
    let mut was_killed = false;
    for _ in 0..ATTEMPTS {
        let (zygote, is_new) = match place.take() {
            Some(zygote) if zygote.is_ours() => (zygote, false),
            other => {
                dismiss(other);
                match Zygote::start_preloaded() {
                    Err(NoChild::NoZygote) => continue,
                    started => (started?, true),
                }
            }
        };
        match zygote.run(function) {
            Ok(()) => {
                *place = Some(zygote);
                preloaded().push(function);
                return Ok(());
            }
            Err(NotRun::Failed(why)) => {
                if is_new {
                    zygote.end();
                } else {
                    *place = Some(zygote);
                }
                return Err(why);
            }
            Err(NotRun::Dead) => {
                zygote.end();
            }
            Err(NotRun::Ended) => match zygote.end() {
                Ending::Exited(code) => return Err(exited(code)),
                // By the function itself, or by somebody else: the next one tells.
                _ if !was_killed => was_killed = true,
                Ending::Killed(signal) => {
                    let why = format!("was run twice, and each time signal {signal} killed it");
                    return Err(NoChild::Preload(why));
                }
                Ending::Unknown => {
                    return Err(NoChild::Preload("was run twice, and ended it each time".into()));
                }
            },
        }
    }
    Err(NoChild::NoZygote)
}

/// What to say of a function that ended the zygote.
fn exited(code: i32) -> NoChild {
    NoChild::Preload(format!("ended the zygote, with exit code {code}"))
}

/// Whether these are the variables of this process.
fn has_environment(variables: &[(OsString, OsString)]) -> bool {
    let mut own = std::env::vars_os();
    variables.iter().all(|known| own.next().as_ref() == Some(known)) && own.next().is_none()
}

fn working_folder() -> Option<FileId> {
    rustix::fs::stat(".").ok().map(FileId::from)
}

/// What this process may do, as far as the kernel tells. A process that has given up any of it
/// since needs another zygote.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    users: [u32; 4],
    groups: Vec<u32>,
    /// Effective, permitted and inheritable.
    capabilities: [u64; 3],
    no_new_privileges: bool,
    /// Whether system calls are filtered.
    is_confined: bool,
}

impl Rights {
    fn now() -> Rights {
        let capabilities = rustix::thread::capabilities(None);
        let confined = rustix::thread::secure_computing_mode();
        Rights {
            users: [getuid().as_raw(), geteuid().as_raw(), getgid().as_raw(), getegid().as_raw()],
            groups: getgroups().map_or_else(
                |_| Vec::new(),
                |groups| groups.into_iter().map(|group| group.as_raw()).collect(),
            ),
            capabilities: capabilities.map_or([0; 3], |sets| {
                [sets.effective.bits(), sets.permitted.bits(), sets.inheritable.bits()]
            }),
            no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
            is_confined: confined
                .is_ok_and(|mode| mode != rustix::thread::SecureComputingMode::Disabled),
        }
    }
}

impl Zygote {
    fn start() -> Result<Zygote, NoChild> {
        let owner = sys::own_pid()?;
        let (ours, theirs) = socket::pair()?;
        let socket = Own::new(ours)?;
        let lifeline = Lifeline::new()?;
        let childs_end = descriptor::duplicate(lifeline.childs_end())?;
        // Not opened by the standard library, which may give it the number of a closed stream.
        let nowhere = descriptor::open("/dev/null".as_ref(), OFlags::RDWR)
            .map_err(OsError::in_call("open /dev/null"))?;
        let (environment, folder) = (std::env::vars_os().collect(), working_folder());
        let mut command = Command::new(program::EXECUTABLE);
        command
            .arg0(std::env::args_os().next().unwrap_or_else(|| "offspring".into()))
            .env(request::MARKER, format!("{}:{owner}", request::ZYGOTE))
            .stdin(theirs)
            // It stays there until a copy gets a standard output, and cannot be written to.
            .stdout(childs_end)
            .stderr(nowhere);
        let child = command.spawn().map_err(OsError::in_call("posix_spawn /proc/self/exe"))?;
        let watched = pidfd::open(child.id())
            .and_then(Own::new)
            .and_then(|pidfd| Ok((pidfd, lifeline.tie(child.id())?)));
        let (pidfd, lifeline) = match watched {
            Ok(watched) => watched,
            Err(refused) => {
                sys::kill_unseen(child.id());
                return Err(NoChild::NotWatched(refused));
            }
        };
        end_at_exit();
        Ok(Zygote { owner, rights: Rights::now(), pidfd, socket, lifeline, environment, folder })
    }

    /// Whether it makes children of this process, with its rights.
    fn is_ours(&self) -> bool {
        self.owner == sys::pid() && self.rights == Rights::now()
    }

    /// Starts one that has run all functions that each has to run. `NoZygote` if it was killed
    /// meanwhile.
    fn start_preloaded() -> Result<Zygote, NoChild> {
        Zygote::start()?.having_run(&preloaded())
    }

    /// Has it run the functions at these distances from the fixed point, and ends it if one fails.
    fn having_run(self, functions: &[u64]) -> Result<Zygote, NoChild> {
        let Err(failed) = functions.iter().try_for_each(|&function| self.run(function)) else {
            return Ok(self);
        };
        let ending = self.end();
        Err(match (failed, ending) {
            (NotRun::Failed(why), _) => why,
            (NotRun::Ended, Ending::Exited(code)) => exited(code),
            (NotRun::Ended | NotRun::Dead, _) => NoChild::NoZygote,
        })
    }

    /// Has it run the function at this distance from the fixed point.
    fn run(&self, function: u64) -> Result<(), NotRun> {
        let (ours, theirs) = socket::pair()?;
        let gone = |refused: OsError| match refused.errno {
            Errno::PIPE | Errno::CONNRESET => NotRun::Dead,
            _ => refused.into(),
        };
        socket::send(&self.socket.0, &[TO_RUN], &[theirs.as_fd()]).map_err(gone)?;
        drop(theirs);
        socket::send(&ours, &function.to_ne_bytes(), &[]).map_err(gone)?;
        if !socket::receive(&ours, &mut [0], &mut Vec::new())? {
            return Err(NotRun::Dead);
        }
        let mut len = [0; 8];
        if !socket::receive(&ours, &mut len, &mut Vec::new())? {
            return Err(NotRun::Ended);
        }
        let mut why = vec![0; u64::from_ne_bytes(len) as usize];
        if !socket::receive(&ours, &mut why, &mut Vec::new())? {
            return Err(NotRun::Ended);
        }
        if why.is_empty() {
            Ok(())
        } else {
            let why = String::from_utf8_lossy(&why).into_owned();
            Err(NotRun::Failed(NoChild::Preload(why)))
        }
    }

    /// Ends it, and waits for that, so that no zombie is left. Gives how it has ended.
    fn end(self) -> Ending {
        let Zygote { pidfd, socket, lifeline, .. } = self;
        // Each of these is enough. A process that has changed its user may not send the signal.
        drop((socket, lifeline));
        let _ = sys::send_signal(pidfd.0.as_fd(), Signal::KILL.as_raw());
        sys::wait(pidfd.0.as_fd()).unwrap_or(Ending::Unknown)
    }
}

/// Ends the zygote, and waits for that, when this process ends by itself. It would end anyway; but
/// where the first process of a container waits for nobody, it would stay a zombie.
extern "C" fn end_now() {
    // Another thread may be starting a child.
    if let Ok(mut place) = ZYGOTE.try_lock()
        && let Some(zygote) = place.take_if(|zygote| zygote.owner == sys::pid())
    {
        zygote.end();
    }
}

fn end_at_exit() {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| sys::at_exit(end_now));
}

/// Finds out and sets up what every copy would have to.
fn warm_up() {
    program::contains_code(0);
    program::name();
    // A copy tries again what is refused here.
    let _ = (Build::own(), at_fork::adopt());
    sys::flush_stdio();
}

/// What the zygote of the process `owner` does: copies itself as often as it is asked. Returns in
/// each copy, with the child's end of the cord and the signals that the child lets in; ends the
/// process with the process that started it. `run` runs the function at a distance from the fixed
/// point, and gives why it failed.
///
/// The zygote itself lets no signal in: neither a terminal nor `kill` ends it before its owner.
pub(super) fn serve(
    socket: OwnedFd,
    owner: u32,
    run: fn(u64) -> Result<(), String>,
) -> Result<(OwnedFd, BlockedBefore), OsError> {
    let blocked = BlockedBefore::block_all()?;
    sys::handle_parent_death(owner)?;
    let copier = Copier::new();
    let _ = sys::set_name("zygote");
    warm_up();
    loop {
        let mut descriptors = Vec::new();
        let mut asked = [0];
        match socket::receive(&socket, &mut asked, &mut descriptors) {
            Ok(true) => {}
            Ok(false) | Err(_) => sys::exit_now(0),
        }
        let mut descriptors = descriptors.into_iter();
        let Some(cord) = descriptors.next() else { continue };
        if asked == [TO_RUN] {
            let mut function = [0; 8];
            if socket::receive(&cord, &mut function, &mut Vec::new()) == Ok(true) {
                // It begins. If that cannot be said, it does not: the cord ends, and another zygote
                // is asked.
                if socket::send(&cord, &[1], &[]).is_err() {
                    continue;
                }
                let why = run(u64::from_ne_bytes(function)).err().unwrap_or_default();
                let mut answer = (why.len() as u64).to_ne_bytes().to_vec();
                answer.extend(why.into_bytes());
                let _ = socket::send(&cord, &answer, &[]);
            }
            continue;
        }
        let answer = match (&copier, OnlyThread::ask()) {
            (Some(copier), Ok(alone)) => match copier.copy(&alone) {
                Ok(Side::Child) => {
                    // The zygote may have been killed.
                    if let Some(note) = descriptors.next() {
                        write_down(&note, sys::pid());
                    }
                    drop(socket);
                    // Whoever looks for the zygote finds only that.
                    let _ = sys::set_name(program::name());
                    return Ok((cord, blocked));
                }
                Ok(Side::Parent(pid)) => {
                    if let Some(note) = descriptors.next() {
                        write_down(&note, pid);
                    }
                    continue;
                }
                Err(refused) => Answer::Refused(refused.errno),
            },
            (None, _) | (_, Err(NotAlone::Threads(_) | NotAlone::Unknown(_))) => Answer::NotAlone,
        };
        // If nobody waits for it any more, it is not missed.
        let _ = request::answer(&cord, answer);
    }
}
