//! The record by which a child tells what became of its closure. Written once by the child
//! (`exit.rs`), read by the parent after its death (`child.rs`).
//!
//! # Layout
//! A file in memory, which nobody has to read for the writer to go on, however long the value is.
//! Native-endian: both sides are the same program.
//! ```text
//! offset  size  field
//!      0     8  kind     1 a value, 2 a panic, 3 a value that could not be sent, 4 the child could not begin
//!      8     8  len      bytes that follow
//!     16   len  payload  postcard of `T`, of `PanicInfo`, or UTF-8
//! ```
//!
//! A value of at most six bytes, and most are none at all, leaves the file empty. It is put into
//! the file's *position*, which parent and child share since the fork, and which takes no memory: a
//! page for the file would cost more than everything else about it.
//! ```text
//! bits   field
//!  0-47  payload  postcard of `T`, the first byte lowest
//! 48-50  len      bytes of it; or 7: the record could not be written, bits 0-31 are the error and 32-47 the kind
//!    62  1        which no position has that was only moved by writing
//! ```
//!
//! # Peer death
//! The record is written from the front to the back, and the kernel moves the end of a file only
//! after the bytes before it. So a child that was killed in the middle left a file shorter than
//! `16 + len`, which counts as no record at all. The position is set by one system call.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use postcard::ser_flavors::Flavor;
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::descriptor::{self, FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::{memory, process as sys};

const HEADER_LEN: usize = 16;
const KIND_VALUE: u64 = 1;
const KIND_PANIC: u64 = 2;
const KIND_UNSENDABLE: u64 = 3;
const KIND_NOT_STARTED: u64 = 4;

/// Longest payload in a position.
const MAX_IN_POSITION: usize = 6;
const LEN_SHIFT: u32 = 48;
const LEN_MASK: u64 = 7;
/// Stands for the length where the position tells that the kernel refused the write.
const NOT_WRITTEN: u64 = 7;
const KIND_SHIFT: u32 = 32;
const IN_POSITION_BIT: u64 = 1 << 62;

/// What became of the closure.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    Value(T),
    Panicked(PanicInfo),
    /// It returned, but its value could not be encoded or written.
    Unsendable(String),
    /// There is a record, but it does not hold a `T`.
    Undecodable(String),
    /// It was never called, as the kernel refused what has to be done before.
    NotStarted(String),
}

/// A record that is ready to be written.
///
/// A short one stands in the value itself: to allocate in a fresh child takes several page faults,
/// which are most of what a short life costs.
#[derive(Debug)]
pub(super) struct Record {
    short: [u8; SHORT],
    /// How much of `short` is used.
    short_len: usize,
    /// The whole record if it is longer than `SHORT`, else empty.
    long: Vec<u8>,
}

/// Length of the records that are made and read without allocating.
const SHORT: usize = 80;

impl Record {
    /// The record of a value, or of why it has none.
    pub(super) fn value<T: Serialize>(value: &T) -> Record {
        Record::encode(KIND_VALUE, value)
            .unwrap_or_else(|error| Record::unsendable(&format!("cannot be encoded: {error}")))
    }

    pub(super) fn panic(panic: &PanicInfo) -> Record {
        Record::encode(KIND_PANIC, panic).unwrap_or_else(|error| {
            Record::unsendable(&format!("panic cannot be encoded: {error}"))
        })
    }

    fn unsendable(reason: &str) -> Record {
        Record::text(KIND_UNSENDABLE, reason)
    }

    pub(super) fn not_started(refused: OsError) -> Record {
        Record::text(
            KIND_NOT_STARTED,
            &format!("{} failed: {}", refused.call, io::Error::from(refused)),
        )
    }

    fn text(kind: u64, text: &str) -> Record {
        let mut record = Record::begin();
        record.extend(text.as_bytes());
        record.finish(kind)
    }

    fn encode<T: Serialize>(kind: u64, value: &T) -> Result<Record, postcard::Error> {
        Ok(postcard::serialize_with_flavor(value, Record::begin())?.finish(kind))
    }

    fn begin() -> Record {
        Record { short: [0; SHORT], short_len: HEADER_LEN, long: Vec::new() }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.long.is_empty() {
            if let Some(place) = self.short[self.short_len..].get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
                self.short_len += bytes.len();
                return;
            }
            self.long.extend_from_slice(&self.short[..self.short_len]);
        }
        self.long.extend_from_slice(bytes);
    }

    fn finish(mut self, kind: u64) -> Record {
        let bytes = if self.long.is_empty() {
            &mut self.short[..self.short_len]
        } else {
            &mut self.long[..]
        };
        let len = (bytes.len() - HEADER_LEN) as u64;
        bytes[..8].copy_from_slice(&kind.to_ne_bytes());
        bytes[8..HEADER_LEN].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// The whole record as a file's position, if it is that of a value short enough.
    fn as_position(&self) -> Option<u64> {
        let (kind, rest) = self.bytes().split_first_chunk::<8>()?;
        let payload = &rest[8..];
        if u64::from_ne_bytes(*kind) != KIND_VALUE || payload.len() > MAX_IN_POSITION {
            return None;
        }
        let bits = payload.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        Some(IN_POSITION_BIT | (payload.len() as u64) << LEN_SHIFT | bits)
    }

    /// The position that tells that the kernel refused to write this record.
    fn refused(&self, refused: Errno) -> u64 {
        let kind = self.bytes().first_chunk::<8>().map_or(0, |kind| u64::from_ne_bytes(*kind));
        IN_POSITION_BIT
            | NOT_WRITTEN << LEN_SHIFT
            | kind << KIND_SHIFT
            | u64::from(refused.raw_os_error().cast_unsigned())
    }

    fn bytes(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..self.short_len] } else { &self.long }
    }
}

/// How `postcard` appends to a record.
impl Flavor for Record {
    type Output = Record;

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.extend(bytes);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.extend(&[byte]);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Record> {
        Ok(self)
    }
}

/// The file that holds at most one [`Record`].
#[derive(Debug)]
pub(super) struct OutcomeFile(OwnFile);

impl OutcomeFile {
    pub(super) fn create() -> Result<OutcomeFile, OsError> {
        OwnFile::new(memory::memory_file("offspring-outcome", MemfdFlags::empty())?)
            .map(OutcomeFile)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The descriptor, for a forked child.
    pub(super) fn name(&self) -> FdName {
        self.0.name()
    }

    /// Another handle for the same file, for the hook that a program with `panic = "abort"` needs.
    pub(super) fn duplicate(&self) -> Result<OutcomeFile, OsError> {
        OwnFile::new(descriptor::duplicate(&self.0)?).map(OutcomeFile)
    }

    /// Writes the record, or, if the kernel refuses that, why. False if even that failed. For a
    /// process that is about to end: the signal by which the kernel tells of a file that becomes
    /// too large is blocked from here on.
    pub(super) fn write(&self, record: &Record) -> bool {
        // A program that has closed every descriptor may have opened something else under this
        // number. Where a sandbox forbids to ask, what is sent is not lost for that.
        if self.0.checked().is_err_and(|refused| refused.errno == Errno::BADF) {
            return false;
        }
        if let Some(position) = record.as_position()
            && rustix::fs::seek(&self.0, SeekFrom::Start(position)).is_ok()
        {
            return true;
        }
        sys::block_file_size_signal();
        let Err(refused) = self.write_all(record.bytes()) else {
            return true;
        };
        // To say so takes no memory, and covers what was written so far.
        rustix::fs::seek(&self.0, SeekFrom::Start(record.refused(refused))).is_ok()
    }

    fn write_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.0, bytes) {
                Ok(0) => return Err(Errno::IO),
                Ok(len) => bytes = &bytes[len..],
                Err(Errno::INTR) => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(())
    }

    /// Reads the record; `None` if it is not wholly there.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<Outcome<T>>, OsError> {
        self.0.checked()?;
        let position = rustix::fs::tell(&self.0).map_err(OsError::in_call("lseek"))?;
        if position & IN_POSITION_BIT != 0 {
            return Ok(parse_position(position));
        }
        // One byte more than a short record, to see that it ends.
        let mut short = [0; SHORT + 1];
        let len = self.read_some(&mut short, 0)?;
        if len < short.len() {
            return Ok(parse(&short[..len]));
        }
        let len = rustix::fs::fstat(&self.0).map_err(OsError::in_call("fstat"))?.st_size;
        let no_memory = |_| OsError { call: "malloc", errno: Errno::NOMEM };
        let len =
            usize::try_from(len).map_err(|_| OsError { call: "fstat", errno: Errno::FBIG })?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(no_memory)?;
        bytes.resize(len, 0);
        let mut read = 0;
        while read < len {
            match self.read_some(&mut bytes[read..], read)? {
                0 => return Err(OsError { call: "pread", errno: Errno::IO }),
                more => read += more,
            }
        }
        Ok(parse(&bytes))
    }

    fn read_some(&self, bytes: &mut [u8], at: usize) -> Result<usize, OsError> {
        rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut *bytes, at as u64))
            .map_err(OsError::in_call("pread"))
    }
}

/// Reads the bytes of a record; `None` if it is not wholly there. The child may have scribbled:
/// nothing is believed.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<Outcome<T>> {
    let (kind, rest) = bytes.split_first_chunk::<8>()?;
    let (len, payload) = rest.split_first_chunk::<8>()?;
    if payload.len() as u64 != u64::from_ne_bytes(*len) {
        return None;
    }
    Some(match u64::from_ne_bytes(*kind) {
        KIND_VALUE => decode(payload, Outcome::Value),
        KIND_PANIC => decode(payload, Outcome::Panicked),
        KIND_UNSENDABLE => Outcome::Unsendable(String::from_utf8_lossy(payload).into_owned()),
        KIND_NOT_STARTED => Outcome::NotStarted(String::from_utf8_lossy(payload).into_owned()),
        kind => Outcome::Undecodable(format!("a record of unknown kind {kind}")),
    })
}

/// Reads the value in a position; `None` for one that nobody of us has set.
fn parse_position<T: DeserializeOwned>(position: u64) -> Option<Outcome<T>> {
    let len = position >> LEN_SHIFT & LEN_MASK;
    if len == NOT_WRITTEN {
        let reason = format!(
            "write failed: {}",
            io::Error::from_raw_os_error((position as u32).cast_signed())
        );
        return match position >> KIND_SHIFT & 0xffff {
            KIND_NOT_STARTED => Some(Outcome::NotStarted(reason)),
            KIND_VALUE | KIND_PANIC | KIND_UNSENDABLE => Some(Outcome::Unsendable(reason)),
            _ => None,
        };
    }
    let len = len as usize;
    position.to_le_bytes()[..MAX_IN_POSITION]
        .get(..len)
        .map(|payload| decode(payload, Outcome::Value))
}

fn decode<V: DeserializeOwned, T>(
    payload: &[u8],
    outcome: impl FnOnce(V) -> Outcome<T>,
) -> Outcome<T> {
    postcard::from_bytes(payload)
        .map_or_else(|error| Outcome::Undecodable(error.to_string()), outcome)
}

/// A panic that ended a child's closure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PanicInfo {
    /// What `panic!` was given; `Box<dyn Any>` for a payload that is not text.
    pub message: String,
    /// Where the panic began. `None` if it began in another thread of the child and was resumed by
    /// the closure's.
    pub location: Option<Location>,
    /// The stack at that place, one frame after the other, if the environment asks for it
    /// (`RUST_BACKTRACE=1`, see [`std::backtrace`]); else empty, and also where `location` is
    /// `None`. To find the names of the frames takes a tenth of a second.
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
        Location {
            file: location.file().to_owned(),
            line: location.line(),
            column: location.column(),
        }
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
        let record = Record::value(&vec![7_u64, 8, 9]);
        let bytes = record.bytes();
        for len in 0..bytes.len() {
            assert!(parse::<Vec<u64>>(&bytes[..len]).is_none(), "{len} of {} bytes", bytes.len());
        }
        assert!(
            matches!(parse::<Vec<u64>>(bytes), Some(Outcome::Value(value)) if value == [7, 8, 9])
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = OutcomeFile::create().expect("a file");
        assert!(file.read::<String>().expect("readable").is_none());
        assert!(file.write(&Record::value(&"seven")));
        assert!(
            matches!(file.read::<String>(), Ok(Some(Outcome::Value(value))) if value == "seven")
        );
    }

    #[test]
    fn a_record_of_any_length_is_read_back() {
        for len in (0..3 * SHORT).chain([4095, 4096, 100_000]) {
            let value: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let file = OutcomeFile::create().expect("a file");
            assert!(file.write(&Record::value(&value)));
            assert!(
                matches!(file.read::<Vec<u8>>(), Ok(Some(Outcome::Value(read))) if read == value),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_value_of_a_few_bytes_takes_no_page() {
        // A byte of length, then the text.
        for len in 0..=MAX_IN_POSITION {
            let file = OutcomeFile::create().expect("a file");
            let text = &"\u{7f}7\0\0\u{7f}\0"[..len];
            assert!(file.write(&Record::value(&text)));
            let has_page = rustix::fs::fstat(&file.0).expect("a file").st_size > 0;
            assert_eq!(has_page, len == MAX_IN_POSITION, "{len} bytes and their length");
            assert!(
                matches!(file.read::<String>(), Ok(Some(Outcome::Value(read))) if read == text),
                "{len} bytes"
            );
        }
        let file = OutcomeFile::create().expect("a file");
        assert!(file.write(&Record::value(&())));
        assert!(matches!(file.read::<()>(), Ok(Some(Outcome::Value(())))));
    }

    #[test]
    fn a_position_that_is_not_ours_is_no_record_and_no_panic() {
        let file = OutcomeFile::create().expect("a file");
        for position in [1, 16, IN_POSITION_BIT | LEN_MASK << LEN_SHIFT, i64::MAX as u64] {
            rustix::fs::seek(&file.0, SeekFrom::Start(position)).expect("a position");
            assert!(matches!(file.read::<u64>(), Ok(None)), "{position:#x}");
        }
        rustix::fs::seek(&file.0, SeekFrom::Start(IN_POSITION_BIT)).expect("a position");
        assert!(matches!(file.read::<u64>(), Ok(Some(Outcome::Undecodable(_)))));
    }

    #[test]
    fn a_record_that_could_not_be_written_says_why() {
        let file = OutcomeFile::create().expect("a file");
        let refused = |record: &Record| {
            rustix::fs::seek(&file.0, SeekFrom::Start(record.refused(Errno::PERM)))
                .expect("a position");
            file.read::<()>().expect("readable").expect("a record")
        };
        let is_clear =
            |reason: &str| reason.starts_with("write failed: ") && reason.contains("os error 1)");
        assert!(
            matches!(refused(&Record::value(&())), Outcome::Unsendable(reason) if is_clear(&reason))
        );
        let not_started = Record::not_started(OsError { call: "prctl", errno: Errno::PERM });
        assert!(matches!(refused(&not_started), Outcome::NotStarted(reason) if is_clear(&reason)));
    }

    #[test]
    fn a_panic_keeps_its_parts() {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        assert_eq!(panic.to_string(), "no at a.rs:1:2");
        assert!(
            matches!(parse::<()>(Record::panic(&panic).bytes()), Some(Outcome::Panicked(read)) if read == panic)
        );
    }

    #[test]
    fn a_foreign_or_scribbled_record_is_an_error_and_no_panic() {
        assert!(matches!(
            parse::<String>(Record::value(&u8::MAX).bytes()),
            Some(Outcome::Undecodable(_))
        ));
        let mut bytes = Record::value(&1_u8).bytes().to_vec();
        bytes[0] ^= 0x40;
        assert!(matches!(parse::<u8>(&bytes), Some(Outcome::Undecodable(_))));
    }

    #[test]
    fn whatever_is_written_over_a_record_is_read_without_a_panic() {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        let records = [
            Record::value(&vec![Some(String::from("seven")), None]),
            Record::panic(&panic),
            Record::unsendable("why"),
        ];
        // Marsaglia's xorshift.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % bound
        };
        for round in 0..100_000 {
            let mut bytes = records[round % 3].bytes().to_vec();
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
        assert!(
            matches!(parse::<()>(Record::value(&Stubborn).bytes()), Some(Outcome::Unsendable(reason)) if reason.starts_with("cannot be encoded"))
        );
    }
}
