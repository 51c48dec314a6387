//! Processes made without the crate, and pages that they share.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{Pid, getpid};

use crate::common::parent;

/// Runs `life` in a copy of this process, which ends with it, and ends when this process does. What
/// it captures is dropped here.
pub fn raw_fork(life: impl FnOnce()) -> Pid {
    let own = getpid();
    // SAFETY: this process has one thread, so the copy may go on as this one does.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", Errno::last()),
        0 => {
            parent::end_with(own);
            let code = if catch_unwind(AssertUnwindSafe(life)).is_ok() { 0 } else { 101 };
            // SAFETY: ends the process at once and runs nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid),
    }
}

/// Sleeps until somebody ends this process.
pub fn sleep_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Has this process killed in so many seconds, and all that run this program named before, with
/// what they are waiting for.
pub fn end_within(seconds: u32) {
    extern "C" fn tell(_: i32) {
        // Whoever hangs is in a system call, so this may do what a signal handler may not.
        let mut lines = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let read =
                |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let stat = read("stat");
            let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
            if stat.contains("(refusals") {
                let fields: Vec<&str> = fields.split(' ').take(2).collect();
                lines.push(format!(
                    "{} {fields:?} {} {}",
                    entry.file_name().display(),
                    read("wchan"),
                    read("syscall").trim()
                ));
            }
        }
        eprintln!("process {} hangs:\n{}", std::process::id(), lines.join("\n"));
        let _ = kill(getpid(), Signal::SIGKILL);
    }
    let action = SigAction::new(SigHandler::Handler(tell), SaFlags::empty(), SigSet::empty());
    // SAFETY: the process is about to end.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
    nix::unistd::alarm::set(seconds);
}
