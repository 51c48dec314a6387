//! Errors of system calls: which call failed, and why.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// A system call that failed. Every error of this module says which one it was.
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

/// The number of an error, from whatever type the wrapper of the call uses.
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
        // An error that the standard library made itself is about the arguments.
        OsErrno(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }
}

/// Prints an error and its causes in one line, each after a colon. This is the `Debug` of this
/// crate's errors, as a `main` that returns one prints it.
pub(crate) fn one_line(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}

/// Gives errors the `Debug` of this crate.
macro_rules! debug_in_one_line {
    ($($error:ty),+) => {$(
        /// One line: the text and its causes, as a `main` prints it that returns the error.
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::sys::error::one_line(self, f)
            }
        }
    )+};
}

pub(crate) use debug_in_one_line;

/// A word that is part of the program: the name of a system call or of a field.
///
/// An alias, as serde's derive would borrow a type that is written as a reference.
pub(crate) type Word = &'static str;

/// For `#[serde(with)]`: a [`Word`].
pub(crate) mod word {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Word;

    /// Words that other processes have sent, each kept once and for good.
    static KNOWN: Mutex<BTreeSet<Word>> = Mutex::new(BTreeSet::new());
    /// How many of them are kept, and how long each may be. This crate has fewer and shorter ones;
    /// without a limit, bad input could take all memory.
    const MOST: usize = 256;
    const LONGEST: usize = 64;
    const UNKNOWN: Word = "(unknown)";

    pub(crate) fn serialize<S: Serializer>(word: &Word, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Word, D::Error> {
        let word = String::deserialize(deserializer)?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(word) = known.get(word.as_str()) {
            return Ok(word);
        }
        if known.len() == MOST || word.len() > LONGEST {
            return Ok(UNKNOWN);
        }
        let word: Word = word.leak();
        known.insert(word);
        Ok(word)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn read(word: &str) -> Word {
            deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word))
                .expect("a word")
        }

        #[test]
        fn a_word_is_kept_once_and_only_so_many_are() {
            assert!(std::ptr::eq(read("open"), read("open")));
            assert_eq!(read(&"x".repeat(LONGEST + 1)), UNKNOWN);
            assert_eq!(read(&"y".repeat(LONGEST)).len(), LONGEST);
            for number in 0..2 * MOST {
                read(&number.to_string());
            }
            assert_eq!(read("open"), "open");
            assert_eq!(read("one more"), UNKNOWN);
        }
    }
}

/// For `#[serde(with)]`: an [`io::Error`] that came from the kernel is sent as its number.
pub(crate) mod errno {
    use std::io;

    use rustix::io::Errno;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        error: &io::Error,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<io::Error, D::Error> {
        Ok(io::Error::from_raw_os_error(i32::deserialize(deserializer)?))
    }
}

/// For `#[serde(with)]`: a path is sent as its bytes, which need not be UTF-8.
pub(crate) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}
