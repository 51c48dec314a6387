//! Ctrl-C and `SIGTERM`: the parent asks for them between two steps, and is not interrupted.
//!
//! Both signals are blocked before the first worker starts, and the workers inherit that. So a
//! Ctrl-C in a terminal, which goes to the whole process group, reaches only the parent, and the
//! parent ends the workers in its own order.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::Cell;

/// Whether the user wants the run to end.
pub(crate) struct Stop {
    signals: SignalFd,
    seen: Cell<i32>,
}

impl Stop {
    /// Blocks `SIGINT` and `SIGTERM` and collects them from now on.
    pub(crate) fn on_signals() -> nix::Result<Stop> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Stop { signals, seen: Cell::new(0) })
    }

    /// Returns whether one of the signals has come.
    pub(crate) fn requested(&self) -> bool {
        if self.seen.get() == 0
            && let Ok(Some(info)) = self.signals.read_signal()
        {
            self.seen.set(i32::try_from(info.ssi_signo).unwrap_or(Signal::SIGINT as i32));
        }
        self.seen.get() != 0
    }

    /// Returns the signal that came, or 0.
    pub(crate) fn signal(&self) -> i32 {
        self.seen.get()
    }
}
