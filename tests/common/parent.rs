//! Processes of the tests that end with the one that made them.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{Pid, getppid};

/// Has this process killed when `parent`, which has just made it, ends; also if it has ended
/// already.
pub fn end_with(parent: Pid) {
    set_pdeathsig(Signal::SIGKILL).expect("prctl");
    // The first process of a pid namespace sees no parent.
    if ![parent, Pid::from_raw(0)].contains(&getppid()) {
        raise(Signal::SIGKILL).expect("raise");
    }
}
