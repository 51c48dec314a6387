//! Changes to the environment and the streams of a process that has just begun.
//!
//! Only for a process in which no other thread runs yet, before any code of the program.
#![expect(unsafe_code, reason = "the environment, descriptors by their numbers, and signals")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::fs::OFlags;
use rustix::io::FdFlags;

use crate::sys::descriptor;
use crate::sys::error::OsError;
use crate::sys::process::OnlyThread;

/// Makes these the variables of the environment, and takes away all others.
pub(crate) fn set_all(_alone: &OnlyThread, variables: Vec<(OsString, OsString)>) {
    let text = |(name, value): (OsString, OsString)| {
        let mut text = name.into_vec();
        text.push(b'=');
        text.extend(value.into_vec());
        // What comes from an environment contains no NUL.
        CString::new(text).ok().map(CString::into_raw)
    };
    let list = variables.into_iter().filter_map(text).chain([ptr::null_mut()]).collect::<Vec<_>>();
    // All at once. libc looks for each variable that it is to set among all others.
    // SAFETY: no other thread reads the environment meanwhile, as there is none. The list ends with
    // null, and list and texts are never freed.
    unsafe { environ = list.leak().as_mut_ptr() };
}

unsafe extern "C" {
    /// libc's list of the variables.
    static mut environ: *mut *mut c_char;
}

/// Takes a variable away.
pub(crate) fn remove(_alone: &OnlyThread, name: &OsStr) {
    // SAFETY: no other thread reads the environment meanwhile, as there is none.
    unsafe { std::env::remove_var(name) };
}

/// The standard input, as a descriptor of its own. Afterwards there is nothing to read, and its
/// number is not that of the next file that is opened.
pub(crate) fn take_input() -> Result<OwnedFd, OsError> {
    let taken = descriptor::duplicate(input())?;
    let nothing = descriptor::open("/dev/null".as_ref(), OFlags::RDONLY);
    set_stream(0, nothing.ok())?;
    Ok(taken)
}

/// The standard input, to look at.
pub(crate) fn input() -> BorrowedFd<'static> {
    // SAFETY: whatever it stands for, it is only looked at.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Makes `stream` the standard stream with this number; without one, closes that.
pub(crate) fn set_stream(number: RawFd, stream: Option<OwnedFd>) -> Result<(), OsError> {
    match stream {
        // SAFETY: nobody uses the standard streams of a process that has just begun.
        Some(stream) => match unsafe { libc::dup2(stream.as_raw_fd(), number) } {
            -1 => Err(OsError::in_call("dup2")(std::io::Error::last_os_error())),
            _ => Ok(()),
        },
        None => {
            close_number(number);
            Ok(())
        }
    }
}

fn close_number(number: RawFd) {
    // It may be closed already, which rustix takes for a mistake. SAFETY: the number of a standard
    // stream, which nobody uses in a process that has just begun.
    unsafe { libc::close(number) };
}

/// Closes what this process has inherited, but for the standard streams: all descriptors that are
/// not close-on-exec. What the program has opened by itself until now is.
pub(crate) fn close_inherited() {
    let close = |number: RawFd| {
        // SAFETY: whatever the number stands for is only looked at.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
        if flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: no code of the program has run that could have made it its own.
            unsafe { rustix::io::close(number) };
        }
    };
    match std::fs::read_dir("/proc/self/fd") {
        Ok(folder) => {
            let numbers: Vec<RawFd> = folder
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .filter(|&number| number > 2)
                .collect();
            numbers.into_iter().for_each(close);
        }
        Err(_) => (3..1024).for_each(close),
    }
}

/// Ignores `SIGPIPE`, as the standard library does before `main`.
pub(crate) fn ignore_broken_pipes() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &ignore) };
}
