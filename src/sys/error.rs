//! What the kernel refused: which call, and why.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// A system call that failed. Every error of this room says which one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OsError {
    /// Name of the call, as in section 2 of the manual.
    pub(crate) call: &'static str,
    /// What the kernel said.
    pub(crate) errno: Errno,
}

impl OsError {
    /// For `map_err`: says that it was `call` that failed.
    pub(crate) fn in_call<E: Into<OsErrno>>(call: &'static str) -> impl FnOnce(E) -> OsError {
        move |error| OsError { call, errno: error.into().0 }
    }
}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> io::Error {
        error.errno.into()
    }
}

/// The number of an error, however the wrapper of the call tells it.
pub(crate) struct OsErrno(Errno);

impl From<Errno> for OsErrno {
    fn from(errno: Errno) -> OsErrno {
        OsErrno(errno)
    }
}

impl From<nix::errno::Errno> for OsErrno {
    fn from(errno: nix::errno::Errno) -> OsErrno {
        OsErrno(Errno::from_raw_os_error(errno as i32))
    }
}

impl From<io::Error> for OsErrno {
    fn from(error: io::Error) -> OsErrno {
        // An error that the standard library made itself is about what was asked for.
        OsErrno(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }
}

/// Prints an error and its causes in one line, each after a colon: the `Debug` of this crate's
/// errors, as it is what a `main` prints that returns one.
pub(crate) fn one_line(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}
