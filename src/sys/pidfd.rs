//! Who a process is, and whether it still runs, as only the kernel can say.
//!
//! A pid alone is a name that is given away again. A process is told from its successors by its *start identity*: the inode of its
//! pidfd where pidfds have a file system of their own (Linux 6.9: unique per boot), else its start time in clock ticks. A program
//! that a process replaces itself with (`exec`) keeps the pid and the pidfd, but the old program's memory and claims are gone: the
//! *image*, the address of the initial stack, tells the two apart.
//!
//! # Source
//! pidfd_open(2); unix(7), SO_PEERPIDFD; proc_pid_stat(5), fields 22 and 28.

#![expect(unsafe_code, reason = "SO_PEERPIDFD has no wrapper in our dependencies")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `f_type` of the pidfd file system.
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// A process, told apart from earlier and later ones with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Process id, in the pid namespace of whoever looks.
    pub(crate) pid: u32,
    /// Pidfd inode or start time; never 0.
    pub(crate) start: u64,
    /// Address of the initial stack; 0 if the kernel would not say.
    pub(crate) image: u64,
}

impl Identity {
    /// This process.
    pub(crate) fn own() -> std::io::Result<Identity> {
        let pid = std::process::id();
        let pidfd = match open(pid) {
            Err(Errno::NOSYS) => open_own_by_socket()?,
            other => other?,
        };
        let identity = Identity::of(&pidfd, pid).ok_or(Errno::NOTSUP)?;
        Ok(Identity { image: own_image(), ..identity })
    }

    /// The process behind a pidfd, without its image; `None` if the kernel would not say.
    pub(crate) fn of(pidfd: &OwnedFd, pid: u32) -> Option<Identity> {
        Some(Identity { pid, start: start_of(pidfd, pid)?, image: 0 })
    }

    /// Whether this very process, running this very program, has ended: no instruction of it will ever run again.
    ///
    /// What cannot be found out counts as alive. A process that is stopped, traced or swapped out is alive.
    pub(crate) fn is_dead(self) -> bool {
        self.has_exited() || self.has_become_another_program()
    }

    /// As [`Identity::is_dead`] but for a process that became another program by `exec`: a few system calls, and none to `/proc` where
    /// pidfds have a file system.
    pub(crate) fn has_exited(self) -> bool {
        match open(self.pid) {
            Ok(pidfd) => {
                // The pidfd names whoever has the pid now. Only an identity that was read and differs is evidence.
                has_exited(&pidfd) || start_of(&pidfd, self.pid).is_some_and(|start| start != self.start)
            }
            Err(error) => error == Errno::SRCH,
        }
    }

    fn has_become_another_program(self) -> bool {
        self.image != 0 && image_of(self.pid).is_some_and(|image| image != self.image)
    }
}

/// Opens a pidfd (close-on-exec, as all are).
pub(crate) fn open(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// A pidfd of this process, from a socket that it is the peer of (Linux 6.5).
///
/// For where `pidfd_open` is unknown though the kernel has it, as under valgrind 3.19. The identity has to be the one that the others
/// see, so what it is read from has to be a pidfd.
fn open_own_by_socket() -> std::io::Result<OwnedFd> {
    let (socket, _peer) = UnixStream::pair()?;
    let mut fd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `fd`, which is as large, and the length to `len`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether every thread of the process has ended; true for a zombie too.
pub(crate) fn has_exited(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

/// Inode of this process's pid namespace, within which pids have a meaning; 0 where `/proc` is missing.
pub(crate) fn pid_namespace() -> u64 {
    rustix::fs::stat("/proc/thread-self/ns/pid").map_or(0, |stat| stat.st_ino)
}

fn start_of(pidfd: &OwnedFd, pid: u32) -> Option<u64> {
    if rustix::fs::fstatfs(pidfd).is_ok_and(|fs| fs.f_type == PID_FS_MAGIC) {
        return rustix::fs::fstat(pidfd).ok().map(|stat| stat.st_ino);
    }
    // Plus one, so that a process started at boot is not taken for one without an identity.
    stat_field(pid, 22).map(|ticks| ticks + 1)
}

fn image_of(pid: u32) -> Option<u64> {
    stat_field(pid, 28).filter(|&image| image != 0)
}

/// The image is the same in every forked copy, so it is read once per program.
fn own_image() -> u64 {
    static IMAGE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *IMAGE.get_or_init(|| image_of(std::process::id()).unwrap_or(0))
}

/// A numeric field of `/proc/PID/stat`, counted from 1 as in the manual page.
fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat_field(&stat, number)
}

/// The second field is the program's name in parentheses and may hold anything, so counting starts behind the last parenthesis.
fn parse_stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_has_an_image() {
        let own = Identity::own().expect("an identity");
        assert!(!own.is_dead());
        assert_ne!(own.start, 0);
        assert_ne!(own.image, 0);
    }

    #[test]
    fn a_pidfd_from_a_socket_tells_the_same_identity() {
        // Linux before 6.5 has no such option, and then there is nothing to compare.
        if let Ok(pidfd) = open_own_by_socket() {
            let pid = std::process::id();
            assert_eq!(Identity::of(&pidfd, pid), Identity::of(&open(pid).expect("a pidfd"), pid));
        }
    }

    #[test]
    fn another_start_or_image_under_the_same_pid_is_dead() {
        let own = Identity::own().expect("an identity");
        assert!(Identity { start: own.start ^ 1, ..own }.is_dead());
        assert!(Identity { image: own.image ^ 0x1000, ..own }.is_dead());
    }

    #[test]
    fn a_zombie_is_dead_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let pidfd = open(child.id()).expect("not yet reaped");
        let identity = Identity { pid: child.id(), start: start_of(&pidfd, child.id()).expect("a start"), image: 0 };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut fds, None).expect("poll");
        assert!(identity.is_dead());
        child.wait().expect("wait");
        assert!(identity.is_dead());
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21 22 23 24 888 26";
        assert_eq!(parse_stat_field(stat, 22), Some(777));
        assert_eq!(parse_stat_field(stat, 28), Some(888));
        assert_eq!(parse_stat_field("", 22), None);
    }
}
