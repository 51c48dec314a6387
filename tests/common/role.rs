//! Test binaries that play a role of their own: started again by one of their own tests, with
//! nothing behind them.
#![expect(unsafe_code, reason = "what runs between fork and exec")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set to say what to do instead of testing.
const ROLE: &str = "OFFSPRING_TEST_ROLE";

/// The role that this process was started for.
pub fn own() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// This binary in a role. It is killed if this process ends before.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(ROLE, role);
    let own = nix::unistd::getpid();
    // SAFETY: makes one system call.
    unsafe {
        command.pre_exec(move || {
            crate::parent::end_with(own);
            Ok(())
        })
    };
    command
}

/// Plays the role, which must end well.
#[track_caller]
pub fn play(role: &str) {
    let status = command(role).status().expect("start");
    assert!(status.success(), "{role}: {status}");
}
