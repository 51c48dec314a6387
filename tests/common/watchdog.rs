//! A limit for every test: one that hangs fails, and says which it is.
//!
//! It is no bound on how long a test takes, but far beyond what the slowest machine needs. Nothing here starts a thread, as
//! `fork` wants a process that has one.
#![expect(unsafe_code, reason = "a handler that writes a line and ends the process")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Seconds until a test counts as hanging.
const LIMIT: u32 = 120;

static NAME: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// The named test functions, as [`run`](crate::common::run) takes them, each under a watchdog.
#[macro_export]
macro_rules! watched {
    ($($name:ident),* $(,)?) => {
        [$({
            fn watched() {
                $crate::watchdog::watch(stringify!($name), $name)
            }
            (stringify!($name), watched as fn())
        }),*]
    };
}

/// As [`watched!`], for tests that leak what they must: each runs in a process of its own, a raw fork of this one.
#[macro_export]
macro_rules! watched_apart {
    ($($name:ident),* $(,)?) => {
        [$({
            fn apart() {
                $crate::watchdog::watch(stringify!($name), || $crate::raw::fork($name).join())
            }
            (stringify!($name), apart as fn())
        }),*]
    };
}

/// Runs the test, and ends this process if it does not come back.
pub fn watch(name: &'static str, test: fn()) {
    /// Calls the watchdog off, also when the test panics.
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            nix::unistd::alarm::cancel();
        }
    }
    LEN.store(0, Ordering::Relaxed);
    NAME.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
    LEN.store(name.len(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(bite), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes system calls and reads atomics only.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
    let _guard = Guard;
    nix::unistd::alarm::set(LIMIT);
    test();
}

/// Says which test hangs. Children end with the process.
extern "C" fn bite(_signal: libc::c_int) {
    let say = |text: *const u8, len: usize| {
        // SAFETY: both texts are constants of the program, of this length.
        unsafe { libc::write(libc::STDERR_FILENO, text.cast(), len) };
    };
    let after = b" hangs\n";
    say(NAME.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    say(after.as_ptr(), after.len());
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(101) };
}
