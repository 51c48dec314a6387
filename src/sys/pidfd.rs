//! The identity of a process, and whether it still runs. Only the kernel can say that.
//!
//! The kernel gives the pid of a dead process to another one. What distinguishes a process from
//! later ones with its pid is when it was *started*: the inode of its pidfd, where pidfds have a
//! file system of their own (Linux 6.9: unique per boot), otherwise its start time in clock ticks,
//! as seen in one time namespace. Each record of a start says of which kind it is. Two of different
//! kinds, or one that could not be found out, prove nothing.
//!
//! # Source
//! pidfd_open(2); unix(7), SO_PEERPIDFD; proc_pid_stat(5), field 22; proc_pid_fdinfo(5); tgkill(2);
//! time_namespaces(7).

#![expect(
    unsafe_code,
    reason = "SO_PEERPIDFD, tgkill and an ioctl have no wrapper in our dependencies"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::descriptor::{self, FileId, OwnFile, beyond_stdio};
use crate::sys::error::OsError;
use crate::sys::process::own_pid;

/// `f_type` of the pidfd file system.
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// When a process was started, which distinguishes it from all others that have its pid at another
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The kernel would not say, now or earlier.
    Unknown,
    /// Inode of the process's pidfd.
    Inode(u64),
    /// Clock ticks since boot, as seen in this time namespace.
    Ticks { ticks: u64, time_namespace: u32 },
}

const KIND_SHIFT: u32 = 62;
const KIND_INODE: u64 = 1;
const KIND_TICKS: u64 = 2;

impl Start {
    /// As two words. The first says of which kind it is.
    pub(crate) fn to_words(self) -> [u64; 2] {
        let word = |kind: u64, value: u64| kind << KIND_SHIFT | value & ((1 << KIND_SHIFT) - 1);
        match self {
            Start::Unknown => [0, 0],
            Start::Inode(inode) => [word(KIND_INODE, inode), 0],
            Start::Ticks { ticks, time_namespace } => {
                [word(KIND_TICKS, ticks), time_namespace.into()]
            }
        }
    }

    /// The inverse of [`Start::to_words`]. Words that this crate never writes are an unknown start.
    pub(crate) fn from_words([word, clock]: [u64; 2]) -> Start {
        let value = word & ((1 << KIND_SHIFT) - 1);
        match (word >> KIND_SHIFT, u32::try_from(clock)) {
            (KIND_INODE, _) => Start::Inode(value),
            (KIND_TICKS, Ok(time_namespace)) => Start::Ticks { ticks: value, time_namespace },
            _ => Start::Unknown,
        }
    }

    /// Whether the two are certainly the starts of two processes.
    pub(crate) fn differs_from(self, other: Start) -> bool {
        match (self, other) {
            (Start::Inode(a), Start::Inode(b)) => a != b,
            (
                Start::Ticks { ticks: a, time_namespace: here },
                Start::Ticks { ticks: b, time_namespace: there },
            ) => here == there && a != b,
            _ => false,
        }
    }
}

/// The identity of a process, which no earlier or later process with its pid shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Process id, in the pid namespace of the process that looks.
    pub(crate) pid: u32,
    pub(crate) start: Start,
}

impl Identity {
    /// This process.
    pub(crate) fn own() -> Result<Identity, OsError> {
        let pid = own_pid()?;
        let pidfd = match open(pid) {
            Err(OsError { errno: Errno::NOSYS, .. }) => open_own_by_socket().ok(),
            other => other.ok(),
        };
        let start = pidfd
            .and_then(|pidfd| OwnFile::new(pidfd).ok())
            .map_or(Start::Unknown, |pidfd| start_of(&pidfd));
        Ok(Identity { pid, start })
    }

    /// The process behind a pidfd.
    pub(crate) fn of(pidfd: &OwnFile, pid: u32) -> Identity {
        Identity { pid, start: start_of(pidfd) }
    }
}

/// Whether a process that had this pid has ended: no instruction of it will ever run again.
/// `is_another` says whether the one that has the pid now is certainly not that one.
///
/// What cannot be found out counts as alive. A process that is stopped, traced or swapped out is
/// alive.
pub(crate) fn has_ended(pid: u32, is_another: impl FnOnce(&Identity) -> bool) -> bool {
    match open(pid) {
        Ok(pidfd) => {
            has_exited(&pidfd)
                || OwnFile::new(pidfd).is_ok_and(|pidfd| is_another(&Identity::of(&pidfd, pid)))
        }
        Err(OsError { errno, .. }) => match is_there(pid) {
            // The number stands for no process, but perhaps for a thread, or for a group whose
            // leader has ended.
            Ok(false) => true,
            // A process exists, and that is all that is known.
            Ok(true) => false,
            Err(_) => errno == Errno::SRCH,
        },
    }
}

/// Opens a pidfd.
pub(crate) fn open(pid: u32) -> Result<OwnedFd, OsError> {
    let refused = OsError::in_call("pidfd_open");
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(refused(Errno::SRCH));
    };
    beyond_stdio(|| pidfd_open(pid, PidfdFlags::empty())).map_err(refused)
}

/// Opens a pidfd of the process that has this pid, if there is one. While the kernel removes a
/// process, it may report its pid as invalid, or that there is no such file. These errors may have
/// other causes, too.
pub(crate) fn open_if_there(pid: u32) -> Result<Option<OwnedFd>, OsError> {
    match open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(_) if is_there(pid) == Ok(false) => Ok(None),
        Err(refused) => Err(refused),
    }
}

/// Whether a process, alive or not yet waited for, has this pid. Needs no descriptor: asks in
/// another way than [`open`] does.
fn is_there(pid: u32) -> Result<bool, Errno> {
    // Signal 0 is no signal: the call only checks whether the thread with this number leads the
    // process with the same number. SAFETY: takes integers, and sends nothing.
    match unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, 0) } {
        0 => Ok(true),
        _ => match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::SRCH) => Ok(false),
            // This cannot be distinguished from a process that may not be signalled.
            refused => Err(refused.unwrap_or(Errno::PERM)),
        },
    }
}

/// A pidfd of this process, from a socket of which it is the peer (Linux 6.5).
///
/// For environments that do not know `pidfd_open` although the kernel has it, as valgrind 3.19. The
/// identity must be the one that other processes see, so it must be read from a pidfd.
fn open_own_by_socket() -> Result<OwnedFd, OsError> {
    let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (socket, _peer) = pair().map_err(OsError::in_call("socketpair"))?;
    beyond_stdio(|| {
        let mut fd: libc::c_int = -1;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERPIDFD);
        // SAFETY: the kernel writes at most `len` bytes to `fd`, which is that large, and the
        // length to `len`.
        let result = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut fd).cast(), &raw mut len)
        };
        if result != 0 {
            return Err(OsError::in_call("getsockopt")(std::io::Error::last_os_error()));
        }
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Whether every thread of the process has ended; true for a zombie too.
pub(crate) fn has_exited(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let answered = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1);
    answered && fds[0].revents().contains(PollFlags::IN)
}

/// When the process of the pidfd was started.
fn start_of(pidfd: &OwnFile) -> Start {
    match pidfds_have_inodes(pidfd) {
        Some(true) => Start::Inode(pidfd.id().inode()),
        Some(false) => ticks_of(pidfd).unwrap_or(Start::Unknown),
        None => Start::Unknown,
    }
}

/// Whether this kernel's pidfds have a file system of their own; `None` if it cannot be found out.
/// Asked of the kernel until it answers.
fn pidfds_have_inodes(pidfd: &OwnFile) -> Option<bool> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if ANSWER.get().is_none() {
        let answer = rustix::fs::fstatfs(pidfd).ok()?.f_type == PID_FS_MAGIC;
        let _ = ANSWER.set(answer);
    }
    ANSWER.get().copied()
}

/// The start time of the process in `/proc`, under the number that it has there. A process that has
/// changed its root may see the `/proc` of another pid namespace, in which the process has another
/// number, or none.
fn ticks_of(pidfd: &OwnFile) -> Option<Start> {
    let mut text = [0; 1024];
    let info = descriptor::read_proc(
        &format!("/proc/self/fdinfo/{}", pidfd.name().number()),
        ["open", "read"],
        &mut text,
    )
    .ok()?;
    let pid: u32 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    let ticks = parse_start(
        descriptor::read_proc(&format!("/proc/{pid}/stat"), ["open", "read"], &mut text).ok()?,
    )?;
    // Where there are no time namespaces (before Linux 5.6, or in a kernel built without them) all
    // see the same ticks.
    let time_namespace = match descriptor::namespace("/proc/self/ns/time", "time") {
        Err(Errno::NOENT) => 0,
        other => other.ok()?,
    };
    Some(Start::Ticks { ticks, time_namespace })
}

/// The 22nd field. The second is the program's name in parentheses and may hold anything, so
/// counting starts behind the last parenthesis.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Number of this process's pid namespace. Pids have a meaning only within it.
pub(crate) fn pid_namespace() -> Result<u32, OsError> {
    // That of the calling thread: `/proc/self` is the main thread, which may have ended and then
    // has no namespaces any more.
    namespace(OWN_NAMESPACE, PIDFD_GET_PID_NAMESPACE)
}

/// Number of the pid namespace in which children of this process start. Refused if that was made
/// and has no process yet.
pub(crate) fn pid_namespace_of_children() -> Result<u32, OsError> {
    let link = "/proc/thread-self/ns/pid_for_children";
    match descriptor::namespace(link, "pid") {
        // A descriptor of the process would tell what its main thread has.
        Err(errno @ Errno::NOENT) if descriptor::namespace(OWN_NAMESPACE, "pid").is_ok() => {
            Err(OsError { call: "readlink /proc/thread-self/ns", errno })
        }
        _ => namespace(link, PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE),
    }
}

const OWN_NAMESPACE: &str = "/proc/thread-self/ns/pid";

/// `PIDFS_IOCTL_MAGIC` and the numbers below it, as ioctl(2) puts them together (Linux 6.11).
const PIDFD_GET_PID_NAMESPACE: libc::Ioctl = 0xff05;
const PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE: libc::Ioctl = 0xff06;

/// Reads the text of a link in `/proc`, which is faster than asking what it points to; without
/// `/proc`, uses a descriptor of the namespace.
fn namespace(link: &'static str, request: libc::Ioctl) -> Result<u32, OsError> {
    descriptor::namespace(link, "pid").or_else(|refused| {
        let by_pidfd = || {
            let pidfd = open(std::process::id()).ok()?;
            let make = || {
                // SAFETY: these requests take no pointer, and give a new descriptor or an error.
                match unsafe { libc::ioctl(pidfd.as_raw_fd(), request, 0) } {
                    -1 => Err(std::io::Error::last_os_error()),
                    // SAFETY: nobody else knows of this descriptor.
                    fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
                }
            };
            u32::try_from(FileId::of(beyond_stdio(make).ok()?).ok()?.inode()).ok()
        };
        by_pidfd().ok_or(OsError { call: "readlink /proc/thread-self/ns", errno: refused })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Identity {
        fn has_ended(self) -> bool {
            has_ended(self.pid, |now| now.start.differs_from(self.start))
        }
    }

    fn identity_of(pidfd: OwnedFd, pid: u32) -> Identity {
        Identity::of(&OwnFile::new(pidfd).expect("fstat"), pid)
    }

    #[test]
    fn this_process_is_alive_and_has_a_start() {
        let own = Identity::own().expect("getpid");
        assert!(!own.has_ended());
        assert_ne!(own.start, Start::Unknown);
        assert!(!own.start.differs_from(own.start));
    }

    #[test]
    fn a_pidfd_from_a_socket_tells_the_same_identity() {
        // Linux before 6.5 has no such option, so there is nothing to compare.
        if let Ok(pidfd) = open_own_by_socket() {
            let pid = std::process::id();
            assert_eq!(identity_of(pidfd, pid), identity_of(open(pid).expect("a pidfd"), pid));
        }
    }

    #[test]
    fn another_start_under_the_same_pid_has_ended() {
        let own = Identity::own().expect("getpid");
        let other = match own.start {
            Start::Inode(inode) => Start::Inode(inode ^ 1),
            Start::Ticks { ticks, time_namespace } => {
                Start::Ticks { ticks: ticks ^ 1, time_namespace }
            }
            Start::Unknown => panic!("no start"),
        };
        assert!(Identity { start: other, ..own }.has_ended());
    }

    #[test]
    fn what_cannot_be_compared_is_no_evidence() {
        let own = Identity::own().expect("getpid");
        let foreign = match own.start {
            Start::Inode(_) => Start::Ticks { ticks: 1, time_namespace: 0 },
            _ => Start::Inode(1),
        };
        for start in [Start::Unknown, foreign] {
            assert!(!Identity { start, ..own }.has_ended(), "{start:?}");
        }
        let ticks = |ticks, time_namespace| Start::Ticks { ticks, time_namespace };
        assert!(!ticks(1, 7).differs_from(ticks(2, 8)), "another time namespace sees other ticks");
        assert!(ticks(1, 7).differs_from(ticks(2, 7)));
    }

    #[test]
    fn a_start_keeps_its_kind_as_words() {
        for start in [
            Start::Unknown,
            Start::Inode(1),
            Start::Inode((1 << KIND_SHIFT) - 1),
            Start::Ticks { ticks: 1, time_namespace: 0 },
            Start::Ticks { ticks: 12_345, time_namespace: u32::MAX },
        ] {
            assert_eq!(Start::from_words(start.to_words()), start);
        }
        for words in [[u64::MAX, 0], [1, 1], [KIND_TICKS << KIND_SHIFT | 1, u64::MAX]] {
            assert_eq!(Start::from_words(words), Start::Unknown, "{words:x?}");
        }
    }

    #[test]
    fn a_zombie_has_ended_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let pidfd = open(child.id()).expect("not yet reaped");
        let identity = identity_of(pidfd.try_clone().expect("dup"), child.id());
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut fds, None).expect("poll");
        assert_eq!(is_there(child.id()), Ok(true), "not waited for");
        assert!(identity.has_ended());
        child.wait().expect("wait");
        assert!(identity.has_ended());
    }

    #[test]
    fn a_thread_is_no_process() {
        let (number, tell) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            number
                .send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned())
                .expect("somebody listens");
            let _ = stopped.recv();
        });
        let tid = tell.recv().expect("a number");
        assert_eq!(is_there(tid), Ok(false));
        // The process that had this number has ended, although the kernel does not say that nobody
        // has it.
        assert!(Identity { pid: tid, start: Identity::own().expect("getpid").start }.has_ended());
        drop(stop);
        thread.join().expect("it ends");
    }

    #[test]
    fn both_ways_to_ask_for_a_namespace_agree() {
        let own = pid_namespace().expect("a namespace");
        assert_eq!(pid_namespace_of_children(), Ok(own));
        let release =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
        let numbers: Vec<u32> =
            release.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
        // A program that emulates another processor may not know the request.
        let may_be_emulated = cfg!(not(target_arch = "x86_64"));
        for request in [PIDFD_GET_PID_NAMESPACE, PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE] {
            match namespace("/no such file", request) {
                Ok(number) => assert_eq!(number, own),
                Err(refused) => {
                    assert_eq!(refused.errno, Errno::NOENT);
                    assert!(
                        numbers < vec![6, 11] || may_be_emulated,
                        "Linux {release} has this request"
                    );
                }
            }
        }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat =
            "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21 22 23 24 888 26";
        assert_eq!(parse_start(stat), Some(777));
        assert_eq!(parse_start(""), None);
    }
}
