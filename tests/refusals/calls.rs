//! System calls: their names, and whose they are.

/// What tells one kind of a call from another: its number, and the command where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub number: i64,
    command: u64,
}

/// A system call as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

impl Call {
    /// Whether it asks who has made a socket, as a program does that may be a child.
    pub fn asks_for_maker(&self) -> bool {
        let [_, level, option, ..] = self.arguments;
        self.number == libc::SYS_getsockopt
            && (level, option) == (libc::SOL_SOCKET as u64, libc::SO_PEERCRED as u64)
    }

    pub fn kind(&self) -> Kind {
        let [first, second, third, ..] = self.arguments;
        let command = match self.number {
            libc::SYS_fcntl | libc::SYS_futex => second,
            libc::SYS_membarrier | libc::SYS_prctl => first,
            libc::SYS_madvise => third,
            // Private memory of no name, or a file.
            libc::SYS_mmap => {
                self.arguments[3] & (libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64
            }
            _ => 0,
        };
        Kind { number: self.number, command }
    }
}

impl Kind {
    /// For another process of this program.
    pub fn to_text(self) -> String {
        format!("{} {}", self.number, self.command)
    }

    /// The inverse of [`Kind::to_text`], and what follows after a space.
    pub fn parse(text: &str) -> Option<(Kind, &str)> {
        let (number, rest) = text.split_once(' ')?;
        let (command, rest) = rest.split_once(' ')?;
        Some((Kind { number: number.parse().ok()?, command: command.parse().ok()? }, rest))
    }

    /// As it is printed.
    pub fn name(self) -> String {
        let call = name(self.number).map_or_else(|| format!("call {}", self.number), str::to_owned);
        let command = self.command as i32;
        let detail = match self.number {
            libc::SYS_fcntl => match command {
                libc::F_DUPFD_CLOEXEC => "F_DUPFD_CLOEXEC",
                libc::F_GETFL => "F_GETFL",
                libc::F_SETFL => "F_SETFL",
                libc::F_GETFD => "F_GETFD",
                libc::F_SETFD => "F_SETFD",
                libc::F_SETOWN => "F_SETOWN",
                libc::F_GETOWN => "F_GETOWN",
                10 => "F_SETSIG",
                libc::F_OFD_GETLK => "F_OFD_GETLK",
                libc::F_OFD_SETLK => "F_OFD_SETLK",
                libc::F_ADD_SEALS => "F_ADD_SEALS",
                libc::F_GET_SEALS => "F_GET_SEALS",
                _ => return format!("{call}({command})"),
            },
            libc::SYS_futex => match command & !libc::FUTEX_PRIVATE_FLAG {
                libc::FUTEX_WAIT => "wait",
                libc::FUTEX_WAKE => "wake",
                _ => return format!("{call}({command})"),
            },
            libc::SYS_membarrier => match command {
                libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED => "barrier",
                libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED => "register",
                _ => return format!("{call}({command})"),
            },
            libc::SYS_madvise => match command {
                libc::MADV_DONTFORK => "DONTFORK",
                libc::MADV_DONTDUMP => "DONTDUMP",
                libc::MADV_WIPEONFORK => "WIPEONFORK",
                _ => return format!("{call}({command})"),
            },
            libc::SYS_mmap if command & libc::MAP_FIXED_NOREPLACE != 0 => "a closed range",
            libc::SYS_mmap if command & libc::MAP_ANONYMOUS != 0 => "a page",
            libc::SYS_mmap => "a segment",
            _ => return call,
        };
        format!("{call}({detail})")
    }

    /// Names of which an error has to have one if this call is refused.
    pub fn names(self) -> &'static [&'static str] {
        match self.number {
            libc::SYS_openat | libc::SYS_open => &["open"],
            libc::SYS_newfstatat | libc::SYS_stat | libc::SYS_fstat | libc::SYS_statx => {
                &["stat", "open", "fork"]
            }
            libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => {
                &["fork", "clone", "posix_spawn"]
            }
            libc::SYS_ppoll | libc::SYS_poll => &["poll"],
            libc::SYS_prlimit64 | libc::SYS_getrlimit => &["getrlimit", "setrlimit"],
            libc::SYS_rt_sigprocmask => &["sigprocmask"],
            libc::SYS_rt_sigaction => &["sigaction"],
            libc::SYS_readlinkat | libc::SYS_readlink => &["readlink"],
            libc::SYS_pread64 => &["pread"],
            libc::SYS_pwrite64 => &["pwrite"],
            libc::SYS_linkat => &["link"],
            // EINVAL is what it says of a file that cannot be sealed.
            libc::SYS_fcntl => &["fcntl", "not sealed"],
            // What it decides can be found out in another way, if that is not refused, too.
            libc::SYS_unshare => &["unshare", "stat", "open", "thread"],
            _ => std::slice::from_ref(
                match NAMES.iter().find(|(number, _)| *number == self.number) {
                    Some((_, name)) => name,
                    None => &"?",
                },
            ),
        }
    }
}

const NAMES: &[(i64, &str)] = &[
    (libc::SYS_capget, "capget"),
    (libc::SYS_dup2, "dup2"),
    (libc::SYS_dup3, "dup3"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_fchdir, "fchdir"),
    (libc::SYS_get_robust_list, "get_robust_list"),
    (libc::SYS_getegid, "getegid"),
    (libc::SYS_getgid, "getgid"),
    (libc::SYS_getgroups, "getgroups"),
    (libc::SYS_getuid, "getuid"),
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_setrlimit, "setrlimit"),
    (libc::SYS_sched_getaffinity, "sched_getaffinity"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_sigaltstack, "sigaltstack"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_clock_gettime, "clock_gettime"),
    (libc::SYS_close, "close"),
    (libc::SYS_dup, "dup"),
    (libc::SYS_eventfd2, "eventfd"),
    (libc::SYS_exit, "exit"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_fork, "fork"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_fstatfs, "fstatfs"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_futex_waitv, "futex_waitv"),
    (libc::SYS_getcwd, "getcwd"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_geteuid, "geteuid"),
    (libc::SYS_getpid, "getpid"),
    (libc::SYS_getppid, "getppid"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_getrlimit, "getrlimit"),
    (libc::SYS_gettid, "gettid"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_membarrier, "membarrier"),
    (libc::SYS_memfd_create, "memfd_create"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_open, "open"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_pipe2, "pipe2"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_prlimit64, "prlimit64"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_read, "read"),
    (libc::SYS_readlink, "readlink"),
    (libc::SYS_readlinkat, "readlinkat"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_restart_syscall, "restart_syscall"),
    (libc::SYS_rseq, "rseq"),
    (libc::SYS_rt_sigaction, "rt_sigaction"),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
    (libc::SYS_rt_sigreturn, "rt_sigreturn"),
    (libc::SYS_sched_yield, "sched_yield"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_set_robust_list, "set_robust_list"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_stat, "stat"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_tgkill, "tgkill"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_write, "write"),
];

fn name(number: i64) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Why a call is not the crate's, if it is not.
pub fn out_of_scope(call: &Call) -> Option<&'static str> {
    let [first, second, third, fourth, ..] = call.arguments;
    let page = 4096;
    match call.number {
        libc::SYS_brk | libc::SYS_mremap | libc::SYS_mprotect => Some("libc's allocator"),
        libc::SYS_getuid | libc::SYS_geteuid | libc::SYS_getgid | libc::SYS_getegid => {
            Some("cannot fail; rustix checks that only with debug assertions")
        }
        libc::SYS_mmap
            if third != 0 && fourth & libc::MAP_ANONYMOUS as u64 != 0 && second != page =>
        {
            Some("libc's allocator")
        }
        libc::SYS_exit | libc::SYS_exit_group => Some("does not return"),
        libc::SYS_getpid | libc::SYS_gettid => {
            Some("the standard library's way to tell a process and a thread; see `fork_deaths`")
        }
        libc::SYS_sched_yield => Some("the standard library's; its result says nothing"),
        libc::SYS_write if first <= 2 => Some("standard streams, by the standard library"),
        libc::SYS_set_robust_list | libc::SYS_rseq | libc::SYS_rt_sigreturn => {
            Some("libc's, for a thread")
        }
        libc::SYS_futex if second & libc::FUTEX_PRIVATE_FLAG as u64 != 0 => {
            Some("locks of the standard library")
        }
        libc::SYS_getrandom if third != 0 => Some("hash maps of the standard library"),
        libc::SYS_clock_gettime => {
            Some("the clock: no call where there is a vDSO, and taken to be infallible")
        }
        libc::SYS_close => Some("by the standard library, which takes a refusal for done"),
        libc::SYS_restart_syscall => Some("the kernel's own, after a stop"),
        libc::SYS_getcwd => Some("the standard library's, for a backtrace"),
        libc::SYS_munmap => Some("nothing follows from its result"),
        _ => None,
    }
}
