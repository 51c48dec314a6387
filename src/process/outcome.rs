//! The record by which a child tells what became of its closure. Written once by the child (`exit.rs`), read by the parent after its death
//! (`child.rs`).
//!
//! # Layout
//! A file in memory, which nobody has to read for the writer to go on, however long the value is. Native-endian: both sides are the same program.
//! ```text
//! offset  size  field
//!      0     8  kind     1 a value, 2 a panic, 3 a value that could not be sent
//!      8     8  len      bytes that follow
//!     16   len  payload  postcard of `T`, of `PanicInfo`, or UTF-8
//! ```
//!
//! # Peer death
//! The record is written from the front to the back, and the kernel moves the end of a file only after the bytes before it. So a child that was killed
//! in the middle left a file shorter than `16 + len`, which counts as no record at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::process as sys;

const HEADER_LEN: usize = 16;
const KIND_VALUE: u64 = 1;
const KIND_PANIC: u64 = 2;
const KIND_UNSENDABLE: u64 = 3;

/// What became of the closure.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    Value(T),
    Panicked(PanicInfo),
    /// It returned, but its value could not be encoded or written.
    Unsendable(String),
    /// There is a record, but it does not hold a `T`.
    Undecodable(String),
}

/// A record that is ready to be written.
#[derive(Debug)]
pub(super) struct Record(Vec<u8>);

impl Record {
    /// The record of a value, or of why it has none.
    pub(super) fn value<T: Serialize>(value: &T) -> Record {
        Record::encode(KIND_VALUE, value).unwrap_or_else(|error| Record::unsendable(&format!("cannot be encoded: {error}")))
    }

    pub(super) fn panic(panic: &PanicInfo) -> Record {
        Record::encode(KIND_PANIC, panic).unwrap_or_else(|error| Record::unsendable(&format!("panic cannot be encoded: {error}")))
    }

    fn unsendable(reason: &str) -> Record {
        Record::finish(KIND_UNSENDABLE, [&[0; HEADER_LEN], reason.as_bytes()].concat())
    }

    fn encode<T: Serialize>(kind: u64, value: &T) -> Result<Record, postcard::Error> {
        Ok(Record::finish(kind, postcard::to_extend(value, vec![0; HEADER_LEN])?))
    }

    fn finish(kind: u64, mut bytes: Vec<u8>) -> Record {
        let len = (bytes.len() - HEADER_LEN) as u64;
        bytes[..8].copy_from_slice(&kind.to_ne_bytes());
        bytes[8..HEADER_LEN].copy_from_slice(&len.to_ne_bytes());
        Record(bytes)
    }
}

/// The file that holds at most one [`Record`].
#[derive(Debug)]
pub(super) struct OutcomeFile(File);

impl OutcomeFile {
    pub(super) fn create() -> io::Result<OutcomeFile> {
        sys::memory_file("offspring-outcome").map(OutcomeFile)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Another handle for the same file, for the hook that a program with `panic = "abort"` needs.
    pub(super) fn duplicate(&self) -> io::Result<OutcomeFile> {
        self.0.try_clone().map(OutcomeFile)
    }

    /// Writes the record, or, if there is no memory for it, why not. False if even that failed.
    pub(super) fn write(&self, record: &Record) -> bool {
        let Err(error) = (&self.0).write_all(&record.0) else {
            return true;
        };
        let Record(reason) = Record::unsendable(&format!("cannot be written: {error}"));
        // Shortened to nothing first, so that no moment shows parts of two records.
        self.0.set_len(0).and_then(|()| self.0.write_all_at(&reason, 0)).is_ok()
    }

    /// Reads the record; `None` if it is not wholly there.
    pub(super) fn read<T: DeserializeOwned>(&self) -> io::Result<Option<Outcome<T>>> {
        let len = usize::try_from(self.0.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len < HEADER_LEN {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(parse(&bytes))
    }
}

/// Reads the bytes of a record; `None` if it is not wholly there. The child may have scribbled: nothing is believed.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<Outcome<T>> {
    let (kind, rest) = bytes.split_first_chunk::<8>()?;
    let (len, payload) = rest.split_first_chunk::<8>()?;
    if payload.len() as u64 != u64::from_ne_bytes(*len) {
        return None;
    }
    let undecodable = |error: postcard::Error| Outcome::Undecodable(error.to_string());
    Some(match u64::from_ne_bytes(*kind) {
        KIND_VALUE => postcard::from_bytes(payload).map_or_else(undecodable, Outcome::Value),
        KIND_PANIC => postcard::from_bytes(payload).map_or_else(undecodable, Outcome::Panicked),
        KIND_UNSENDABLE => Outcome::Unsendable(String::from_utf8_lossy(payload).into_owned()),
        kind => Outcome::Undecodable(format!("a record of unknown kind {kind}")),
    })
}

/// A panic that ended a child's closure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PanicInfo {
    /// What `panic!` was given; `Box<dyn Any>` for a payload that is not text.
    pub message: String,
    /// Where the panic began. `None` if it began in another thread of the child and was resumed by the closure's.
    pub location: Option<Location>,
    /// The stack at that place, one frame after the other; empty where `location` is `None`.
    pub backtrace: String,
}

impl fmt::Display for PanicInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{} at {location}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// A place in the source, as [`std::panic::Location`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// Source file, as the compiler was given it.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted from 1.
    pub column: u32,
}

impl From<&std::panic::Location<'_>> for Location {
    fn from(location: &std::panic::Location<'_>) -> Location {
        Location { file: location.file().to_owned(), line: location.line(), column: location.column() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_short_anywhere_is_no_record() {
        let Record(bytes) = Record::value(&vec![7_u64, 8, 9]);
        for len in 0..bytes.len() {
            assert!(parse::<Vec<u64>>(&bytes[..len]).is_none(), "{len} of {} bytes", bytes.len());
        }
        assert!(matches!(parse::<Vec<u64>>(&bytes), Some(Outcome::Value(value)) if value == [7, 8, 9]));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = OutcomeFile::create().expect("a file");
        assert!(file.read::<String>().expect("readable").is_none());
        assert!(file.write(&Record::value(&"seven")));
        assert!(matches!(file.read::<String>(), Ok(Some(Outcome::Value(value))) if value == "seven"));
    }

    #[test]
    fn a_panic_keeps_its_parts() {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        assert_eq!(panic.to_string(), "no at a.rs:1:2");
        let Record(bytes) = Record::panic(&panic);
        assert!(matches!(parse::<()>(&bytes), Some(Outcome::Panicked(read)) if read == panic));
    }

    #[test]
    fn a_foreign_or_scribbled_record_is_an_error_and_no_panic() {
        let Record(bytes) = Record::value(&u8::MAX);
        assert!(matches!(parse::<String>(&bytes), Some(Outcome::Undecodable(_))));
        let Record(mut bytes) = Record::value(&1_u8);
        bytes[0] ^= 0x40;
        assert!(matches!(parse::<u8>(&bytes), Some(Outcome::Undecodable(_))));
    }

    #[test]
    fn whatever_is_written_over_a_record_is_read_without_a_panic() {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        let records = [Record::value(&vec![Some(String::from("seven")), None]), Record::panic(&panic), Record::unsendable("why")];
        // Marsaglia's xorshift.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % bound
        };
        for round in 0..100_000 {
            let Record(mut bytes) = Record(records[round % 3].0.clone());
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = below(256) as u8;
            }
            // A length that fits, or the payload would be looked at too seldom.
            if below(4) > 0 {
                bytes.truncate(HEADER_LEN + below(bytes.len() - HEADER_LEN + 1));
                let len = (bytes.len() - HEADER_LEN) as u64;
                bytes[8..HEADER_LEN].copy_from_slice(&len.to_ne_bytes());
            }
            let _ = parse::<Vec<Option<String>>>(&bytes);
        }
    }

    #[test]
    fn a_value_without_an_encoding_is_told() {
        struct Stubborn;
        impl Serialize for Stubborn {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let Record(bytes) = Record::value(&Stubborn);
        assert!(matches!(parse::<()>(&bytes), Some(Outcome::Unsendable(reason)) if reason.starts_with("cannot be encoded")));
    }
}
