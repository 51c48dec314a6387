//! Processes made without the crate, and pages that they share.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::unistd::{Pid, getpid};

use crate::parent;

/// Runs `life` in a copy of this process, which ends with it, and ends when this process does. What it captures is dropped here.
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
