//! Surroundings in which a process may less than it is used to: refused system calls, no `/proc`,
//! another pid namespace, another user.
#![expect(unsafe_code, reason = "seccomp, chroot and namespaces have no safe words")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::raw::{self, Board, Ended, Raw};

/// Whether a process without `/proc` can find out in which pid namespace it lives: by its pidfd,
/// since Linux 6.11.
pub fn namespace_is_known_without_proc() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let numbers: Vec<u32> =
        release.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    let known = numbers >= vec![6, 11];
    if !known {
        skip("before Linux 6.11 a process without /proc is refused");
    }
    known
}

/// A system call that is not made but answered with an error.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub call: i64,
    /// Number of an argument, and the bits of it that must have this value for the call to be
    /// refused.
    pub only: Option<(u32, u32, u32)>,
    pub errno: i32,
}

/// Has these system calls refused in this process and in all that it starts, from now on.
pub fn refuse(calls: &[i64], errno: i32) {
    let rules: Vec<Rule> = calls.iter().map(|&call| Rule { call, only: None, errno }).collect();
    install(&rules);
}

/// Has calls refused that these rules describe.
pub fn install(rules: &[Rule]) {
    filter(rules, |rule| libc::SECCOMP_RET_ERRNO | rule.errno.cast_unsigned());
}

/// Has this process, and all that it starts, killed by `SIGSYS` before it makes a call that the
/// rule describes.
pub fn kill_at(call: i64, only: Option<(u32, u32, u32)>) {
    filter(&[Rule { call, only, errno: 0 }], |_| libc::SECCOMP_RET_KILL_PROCESS);
}

/// Has calls answered that these rules describe.
fn filter(rules: &[Rule], answer: impl Fn(&Rule) -> u32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Where `struct seccomp_data` has the number of the call, and the low half of its first
    /// argument.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;

    let word = |code: u16, k: u32| libc::sock_filter { code, jt: 0, jf: 0, k };
    let unless_equal_skip =
        |k: u32, skip: u8| libc::sock_filter { code: IF_EQUAL, jt: 0, jf: skip, k };
    let mut filter = Vec::new();
    for rule in rules {
        let answer = word(ANSWER, answer(rule));
        filter.push(word(LOAD, NUMBER));
        match rule.only {
            None => filter.extend([unless_equal_skip(rule.call as u32, 1), answer]),
            Some((argument, mask, value)) => filter.extend([
                unless_equal_skip(rule.call as u32, 4),
                word(LOAD, ARGUMENTS + 8 * argument),
                word(AND, mask),
                unless_equal_skip(value, 1),
                answer,
            ]),
        }
    }
    filter.push(word(ANSWER, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and its length are what they say, and are copied.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says on standard error that the test that runs is left out, and why.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Makes this folder the root of this process. An ordinary user needs a user namespace of its own
/// for that. False if it is not to be had.
pub fn enter(folder: &Path) -> bool {
    let folder = CString::new(folder.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: the path ends with a NUL.
    let chroot = || unsafe { libc::chroot(folder.as_ptr()) } == 0;
    // SAFETY: takes an integer.
    let done = chroot() || (unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 && chroot());
    done && std::env::set_current_dir("/").is_ok()
}

/// Whether [`enter`] works on this machine.
pub fn can_enter() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let possible = raw::Errand::send(|| enter(folder.path()).to_string()).answer() == "true";
    if !possible {
        skip("this process may not change its root");
    }
    possible
}

/// The first process of a pid namespace, and one outside that waits for it. Both are killed when
/// this is dropped.
pub struct Inside {
    outside: Raw,
    pid: i32,
}

impl Inside {
    /// Waits until it has ended; gives its exit code.
    pub fn wait(&mut self) -> Ended {
        self.outside.wait()
    }

    /// Waits for its end, which must be in good order.
    #[track_caller]
    pub fn join(mut self) {
        assert_eq!(self.wait(), Ended::Exited(0));
    }

    /// Kills it, and with it all processes of the namespace, and waits for their end.
    pub fn kill(mut self) {
        raw::signal(self.pid, libc::SIGKILL);
        self.outside.wait();
    }
}

/// Runs `life` in the first process of a new pid namespace; `None`, with a message, if this machine
/// lets us have none. `/proc` stays as it is.
pub fn fork_into_pid_namespace(life: impl FnOnce()) -> Option<Inside> {
    let board = Board::new();
    let mut outside = raw::fork(|| {
        if !leave_pid_namespace() {
            board.set(0, 1);
            return;
        }
        let mut inside = raw::fork(life);
        board.set(1, inside.id().into());
        board.set(0, 2);
        match inside.wait() {
            Ended::Exited(code) => raw::exit(code),
            Ended::Killed(_) => raw::exit(102),
        }
    });
    board.wait(0, 1);
    if board.get(0) == 2 {
        return Some(Inside { outside, pid: board.get(1) as i32 });
    }
    outside.wait();
    skip("this process may not make a pid namespace");
    None
}

/// Has the next children of this process be born into a new pid namespace; false if that is
/// refused.
pub fn leave_pid_namespace() -> bool {
    // SAFETY: takes an integer.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } == 0 {
        return true;
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: takes an integer.
    let made = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } == 0;
    if made {
        // Refused where that was done before; then the numbers do not matter.
        let _ = std::fs::write("/proc/self/setgroups", "deny");
        let _ = std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"));
        let _ = std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"));
    }
    made
}

/// Closes all descriptors from `first` on, whoever has them.
pub fn close_all_from(first: u32) {
    // SAFETY: takes integers. The owners of what is closed are not used again, or are to find out.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    assert_eq!(result, 0, "close_range: {}", std::io::Error::last_os_error());
}

/// Points standard error away.
pub fn silence() {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    nix::unistd::dup2_stderr(nowhere).expect("dup2");
}

/// Writes no core file when it is killed.
pub fn no_core() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).expect("setrlimit");
}
