//! The record in which a child sends the outcome of its closure. The child writes it once
//! (`exit.rs`); the parent reads it after the child's death (`child.rs`). The arguments of a child
//! that is no copy of its parent are such a record, too: the parent writes it before there is a
//! child (`start.rs`), and the child reads it (`entry.rs`).
//!
//! # Layout
//! A file in memory, so that the writer never waits for a reader, however long the value is.
//! Native-endian: both sides are the same program.
//! ```text
//! offset  size  field
//!      0     8  kind     0 nothing yet, 1 a value, 2 a panic, 3 a value that could not be sent,
//!                        4 the child could not begin, 5 a value that is its own bytes
//!                        (`plain.rs`), 6 a value with handles of shared objects
//!      8     8  len      bytes that follow, up to the end of the file
//!     16   len  payload  postcard of `T`, of `PanicInfo`, UTF-8, or the bytes of `T`
//! ```
//! Behind a value with handles are the words that name their flights
//! ([`result`]), and last the number of these words.
//!
//!
//! A value of at most six bytes (most have none) leaves the file empty. It is stored in the file's
//! *position*, which parent and child share since the fork and which takes no memory: allocating a
//! page for the file would cost more than everything else about it.
//! ```text
//! bits   field
//!  0-47  payload  postcard of `T`, the first byte lowest
//! 48-50  len      bytes of it; or 7: the record could not be written, bits 0-31 are the error,
//!                 32-43 the kind, 44-47 the call
//!    62  1        which no position has that was only moved by writing
//! ```
//!
//! Of a child that is no copy of it, a parent does not keep a descriptor of the file, as it may
//! have a thousand such children. It keeps a mapping of the file's beginning, which also keeps the
//! file, and makes it longer to read a longer record. The position has no part of the record then,
//! and is the note of `zygote.rs`.
//!
//! A value whose record is longer than [`CHUNK`] is written while it is being encoded, so that a
//! child needs no second copy of it. A long `Vec` of numbers or a long `String` is not encoded at
//! all: one call writes its bytes, and the parent reads them into the vector that it returns.
//!
//! # Peer death
//! A kind of 0 is no record. The payload is written first, and then the header, by one call of 16
//! bytes, which the kernel copies whole. So a child that was killed before that left nothing.
//!
//! A record in one piece, of which the parent keeps the file, is written from front to back. The
//! kernel moves the end of a file only after the bytes before it, so a child that was killed in the
//! middle left a file shorter than `16+len`, which is no record, either. Not so for a window, which
//! does not show where in a page the file ends.
//!
//! The position is set by one system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use postcard::ser_flavors::Flavor;
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::lineage::Lineage;
use crate::object::result;
use crate::object::serial::{self, Listed};
use crate::peer::Fault;
use crate::process::panic_info::PanicInfo;
use crate::process::plain;
use crate::sys::descriptor::{self, FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::memory::{self, Window};
use crate::sys::process as sys;

const HEADER_LEN: usize = 16;
const KIND_VALUE: u64 = 1;
const KIND_PANIC: u64 = 2;
const KIND_UNSENDABLE: u64 = 3;
const KIND_NOT_STARTED: u64 = 4;
const KIND_BYTES: u64 = 5;
const KIND_HANDLES: u64 = 6;

/// Longest payload in a position.
const MAX_IN_POSITION: usize = 6;
const LEN_SHIFT: u32 = 48;
const LEN_MASK: u64 = 7;
/// Stands in place of the length if the position says that the kernel refused the write.
const NOT_WRITTEN: u64 = 7;
const KIND_SHIFT: u32 = 32;
const KIND_MASK: u64 = 0xfff;
const CALL_SHIFT: u32 = 44;
const CALL_MASK: u64 = 0xf;
/// Calls that the kernel can refuse when a record is written, indexed by their number in a
/// position.
const CALLS: [&str; 3] = ["write", "pwrite", "ftruncate"];
const IN_POSITION_BIT: u64 = 1 << 62;

/// How the closure ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It returned this.
    Value(T),
    /// It panicked.
    Panicked(PanicInfo),
    /// The closure returned, but its value could not be encoded or written.
    Unsendable(String),
    /// There is a record, but it does not hold a `T`.
    Undecodable(String),
    /// The closure was never called, because the kernel refused a call that the child must make
    /// first.
    NotStarted(String),
}

/// A record that is being built.
///
/// A short one is stored inline: allocating in a new child takes several page faults, which are
/// most of what a short-lived child costs.
#[derive(Debug)]
pub(super) struct Record<'a> {
    short: [u8; SHORT],
    /// Bytes of `short` that are used.
    short_len: usize,
    /// A record longer than `SHORT`, from its beginning or from where `spill` ends; otherwise
    /// empty.
    long: Vec<u8>,
    /// Where each chunk of the payload is written; if `None` all of it stays in memory.
    spill: Option<Spill<'a>>,
    /// 0 until it is finished.
    kind: u64,
}

/// The part of a payload that is already in the file.
#[derive(Debug)]
struct Spill<'a> {
    file: &'a OutcomeFile,
    /// The process that writes. A copy of it that code in the encoder has forked must not write.
    process: u32,
    /// Bytes of the payload in the file.
    len: u64,
    /// Why no more can be written.
    refused: Option<OsError>,
}

/// Longest record that is built and read without allocating.
const SHORT: usize = 80;

/// Bytes of a long record that are collected before they are written.
const CHUNK: usize = 1 << 16;

impl<'a> Record<'a> {
    pub(super) fn panic(panic: &PanicInfo) -> Record<'a> {
        let mut record = Record::begin(None);
        match postcard::serialize_with_flavor(panic, &mut record) {
            Ok(()) => record.finish(KIND_PANIC),
            Err(error) => Record::unsendable(&format!("panic cannot be encoded: {error}")),
        }
    }

    fn unsendable(reason: &str) -> Record<'a> {
        Record::text(KIND_UNSENDABLE, reason)
    }

    pub(super) fn not_started(refused: OsError) -> Record<'a> {
        Record::text(
            KIND_NOT_STARTED,
            &format!("{} failed: {}", refused.call, io::Error::from(refused)),
        )
    }

    fn text(kind: u64, text: &str) -> Record<'a> {
        let mut record = Record::begin(None);
        record.long.extend_from_slice(&[0; HEADER_LEN]);
        record.long.extend_from_slice(text.as_bytes());
        record.finish(kind)
    }

    fn begin(file: Option<&'a OutcomeFile>) -> Record<'a> {
        let spill = file.map(|file| Spill { file, process: sys::pid(), len: 0, refused: None });
        Record { short: [0; SHORT], short_len: HEADER_LEN, long: Vec::new(), spill, kind: 0 }
    }

    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), OsError> {
        // The usual case of a long value, which is encoded byte by byte.
        if self.long.len() < self.long.capacity() && !self.long.is_empty() {
            self.long.push(byte);
            return Ok(());
        }
        self.extend(&[byte])
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), OsError> {
        let has_spilled = self.spilled() > 0;
        if self.long.is_empty() && !has_spilled {
            if let Some(place) = self.short[self.short_len..].get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
                self.short_len += bytes.len();
                return Ok(());
            }
            self.long.extend_from_slice(&self.short[..self.short_len]);
        }
        if self.spill.is_some() && self.long.len() + bytes.len() > CHUNK {
            self.write_collected()?;
            if bytes.len() >= CHUNK / 2 {
                return self.spill.as_mut().map_or(Ok(()), |spill| spill.write(bytes));
            }
            self.long.reserve_exact(CHUNK);
        }
        self.long.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends the words that name the flights, and their number.
    fn append_words(&mut self, words: &[u64]) -> Result<(), OsError> {
        words.iter().chain([&(words.len() as u64)]).try_for_each(|word| {
            let word = word.to_ne_bytes();
            self.extend(&word)
        })
    }

    /// Writes the collected part of the payload into the file.
    fn write_collected(&mut self) -> Result<(), OsError> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        // The header is not part of the payload; its place in the file stays empty.
        let start = if spill.len == 0 { HEADER_LEN } else { 0 };
        spill.write(self.long.get(start..).unwrap_or_default())?;
        self.long.clear();
        Ok(())
    }

    /// Bytes of the payload that are in the file.
    fn spilled(&self) -> u64 {
        self.spill.as_ref().map_or(0, |spill| spill.len)
    }

    /// Fills in the header, unless the payload is partly in the file.
    fn finish(mut self, kind: u64) -> Record<'a> {
        self.kind = kind;
        if self.spilled() == 0 {
            let bytes = if self.long.is_empty() {
                &mut self.short[..self.short_len]
            } else {
                &mut self.long[..]
            };
            let header = header(kind, (bytes.len() - HEADER_LEN) as u64);
            bytes[..HEADER_LEN].copy_from_slice(&header);
        }
        self
    }

    /// The whole record as a position of the file, if it is a short enough value.
    fn as_position(&self) -> Option<u64> {
        let payload = self.bytes().get(HEADER_LEN..)?;
        if self.kind != KIND_VALUE || payload.len() > MAX_IN_POSITION {
            return None;
        }
        let bits = payload.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        Some(IN_POSITION_BIT | (payload.len() as u64) << LEN_SHIFT | bits)
    }

    /// The part of the record that is not in the file.
    fn bytes(&self) -> &[u8] {
        if self.long.is_empty() && self.spilled() == 0 {
            &self.short[..self.short_len]
        } else {
            &self.long
        }
    }
}

impl Spill<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OsError> {
        if self.refused.is_none() {
            self.refused = self.try_write(bytes).err();
        }
        self.refused.map_or(Ok(()), Err)
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<(), OsError> {
        if sys::pid() != self.process {
            return Err(OsError { call: "pwrite", errno: Errno::CHILD });
        }
        if self.len == 0 {
            sys::block_file_size_signal();
        }
        // The encoder runs code of the program, which may close any descriptor.
        if !self.file.is_open() {
            return Err(OsError { call: "pwrite", errno: Errno::BADF });
        }
        self.file.write_at(bytes, HEADER_LEN as u64 + self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// How `postcard` appends to a record.
impl Flavor for &mut Record<'_> {
    type Output = ();

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.extend(bytes).map_err(|_| postcard::Error::SerializeBufferFull)
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.push(byte).map_err(|_| postcard::Error::SerializeBufferFull)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The first bytes of a record.
fn header(kind: u64, len: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&kind.to_ne_bytes());
    header[8..].copy_from_slice(&len.to_ne_bytes());
    header
}

/// The position which says that the kernel refused to write a record of this kind.
fn refusal(kind: u64, refused: OsError) -> u64 {
    let call = CALLS.iter().position(|&call| call == refused.call).unwrap_or(0) as u64;
    IN_POSITION_BIT
        | NOT_WRITTEN << LEN_SHIFT
        | call << CALL_SHIFT
        | kind << KIND_SHIFT
        | u64::from(refused.errno.raw_os_error().cast_unsigned())
}

/// The file that holds at most one [`Record`], as it is written.
#[derive(Debug)]
pub struct OutcomeFile {
    file: OwnFile,
    /// Whether a short value may be stored in the position. Not if the parent keeps only a
    /// [window](Kept::Window).
    has_position: bool,
}

/// The file as the parent keeps it until it has read the record.
#[derive(Debug)]
pub enum Kept {
    /// By a descriptor.
    File(OutcomeFile),
    /// By a mapping of its beginning.
    Window(Window),
}

impl OutcomeFile {
    pub(super) fn create() -> Result<OutcomeFile, OsError> {
        let file = OwnFile::new(memory::memory_file("offspring-outcome", MemfdFlags::empty())?)?;
        Ok(OutcomeFile { file, has_position: true })
    }

    /// A file of which the parent keeps a window, so that it needs no descriptor.
    pub(super) fn create_for_window() -> Result<OutcomeFile, OsError> {
        let file = OutcomeFile { has_position: false, ..OutcomeFile::create()? };
        // So that at least the reason can be written if there is no memory for a value.
        memory::back(&file.file, 0, HEADER_LEN as u64)?;
        Ok(file)
    }

    /// Keeps the file until the record is read.
    pub(super) fn keep(self) -> Kept {
        if !self.has_position
            && let Ok(window) = Window::new(self.file.as_fd())
        {
            return Kept::Window(window);
        }
        Kept::File(self)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The number and identity of the descriptor, for a forked child.
    pub(super) fn name(&self) -> FdName {
        self.file.name()
    }

    /// Another descriptor of the same file, for the panic hook in a program with `panic = "abort"`.
    pub(super) fn duplicate(&self) -> Result<OutcomeFile, OsError> {
        let file = OwnFile::new(descriptor::duplicate(&self.file)?)?;
        Ok(OutcomeFile { file, has_position: self.has_position })
    }

    /// Writes the record of a value, or of why the value cannot be encoded. Returns false if that
    /// failed too. The objects of which it contains handles are handed over to the parent before.
    pub(super) fn send<T: Serialize + 'static>(&self, value: &T, lineage: &Lineage) -> bool {
        if let Some(bytes) = plain::bytes_of(value) {
            sys::block_file_size_signal();
            return self.is_open()
                && self.write_or_report(KIND_BYTES, || {
                    self.write_at(bytes, HEADER_LEN as u64)?;
                    self.write_at(&header(KIND_BYTES, bytes.len() as u64), 0)
                });
        }
        let process = sys::pid();
        let mut record = Record::begin(Some(self));
        // The objects are kept until their flights hold them.
        let (encoded, loads, why) =
            serial::pack_result(|| postcard::serialize_with_flavor(value, &mut record));
        if sys::pid() != process {
            // The encoder has forked, and this is the copy. It must not write.
            return false;
        }
        if let Some(refused) = record.spill.as_ref().and_then(|spill| spill.refused) {
            return self.is_open() && self.write_or_report(KIND_VALUE, || Err(refused));
        }
        let words = match encoded {
            Ok(()) if loads.is_empty() => return self.write(&record.finish(KIND_VALUE)),
            Ok(()) => result::send_off(&loads, lineage),
            Err(error) => Err(why.unwrap_or_else(|| error.to_string())),
        };
        match words.map(|words| record.append_words(&words)) {
            Ok(Ok(())) => self.write(&record.finish(KIND_HANDLES)),
            Ok(Err(refused)) => {
                self.is_open() && self.write_or_report(KIND_HANDLES, || Err(refused))
            }
            Err(why) => self.write(&Record::unsendable(&format!("cannot be encoded: {why}"))),
        }
    }

    /// Writes the record of why there is no value. Returns false if that failed.
    pub(super) fn send_unsendable(&self, reason: &str) -> bool {
        self.write(&Record::unsendable(reason))
    }

    /// Writes the record of why the closure was not called. Returns false if that failed.
    pub(super) fn send_not_started(&self, reason: &str) -> bool {
        self.write(&Record::text(KIND_NOT_STARTED, reason))
    }

    /// Why what was written is no value; `None` if it is one.
    pub(super) fn why_no_value(&self) -> Option<String> {
        let unwritten = || String::from("it could not be written");
        let because =
            |refused: OsError| format!("{} failed: {}", refused.call, io::Error::from(refused));
        let position = match rustix::fs::tell(&self.file) {
            Ok(position) => position,
            Err(refused) => return Some(because(OsError::in_call("lseek")(refused))),
        };
        if position & IN_POSITION_BIT != 0 {
            if position >> LEN_SHIFT & LEN_MASK != NOT_WRITTEN {
                return None;
            }
            return match parse_position::<()>(position) {
                Some(Outcome::Unsendable(why)) => Some(why),
                _ => Some(unwritten()),
            };
        }
        let mut found = [0; HEADER_LEN];
        if let Err(refused) = self.read_exact(&mut found, 0) {
            return Some(because(refused));
        }
        let is_value = [KIND_VALUE, KIND_BYTES, KIND_HANDLES]
            .iter()
            .any(|kind| found[..8] == kind.to_ne_bytes());
        if is_value {
            return None;
        }
        let len = rustix::fs::fstat(&self.file).map_or(0, |stat| stat.st_size.cast_unsigned());
        let mut text = vec![0; (len as usize).saturating_sub(HEADER_LEN)];
        if let Err(refused) = self.read_exact(&mut text, HEADER_LEN) {
            return Some(because(refused));
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The file that came with a message, for a child that is no copy of its parent.
    pub(super) fn received(fd: OwnedFd, has_position: bool) -> Result<OutcomeFile, OsError> {
        Ok(OutcomeFile { file: OwnFile::new(fd)?, has_position })
    }

    /// Writes the record, or why the kernel refused to write it. Returns false if that failed too.
    /// For a process that is about to end: the signal for a file that becomes too large stays
    /// blocked from here on.
    pub(super) fn write(&self, record: &Record<'_>) -> bool {
        if !self.is_open() {
            return false;
        }
        if record.spilled() > 0 {
            let len = record.spilled() + record.bytes().len() as u64;
            return self.write_or_report(record.kind, || {
                self.write_at(record.bytes(), HEADER_LEN as u64 + record.spilled())?;
                self.write_at(&header(record.kind, len), 0)
            });
        }
        if self.has_position
            && let Some(position) = record.as_position()
            && rustix::fs::seek(&self.file, SeekFrom::Start(position)).is_ok()
        {
            return true;
        }
        sys::block_file_size_signal();
        self.write_or_report(record.kind, || {
            // If the encoder of a value failed in the middle, the beginning of the value is in the
            // file.
            if !matches!(record.kind, KIND_VALUE | KIND_HANDLES)
                && rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_size > 0)
            {
                rustix::fs::ftruncate(&self.file, 0).map_err(OsError::in_call("ftruncate"))?;
            }
            if self.has_position {
                self.write_all(record.bytes())
            } else {
                self.write_header_last(record.bytes())
            }
        })
    }

    /// Whether the descriptor still refers to this file. A program that closed every descriptor may
    /// have opened another file under this number. If a sandbox forbids the check, the answer is
    /// yes, so that the outcome is not lost.
    fn is_open(&self) -> bool {
        !self.file.checked().is_err_and(|refused| refused.errno == Errno::BADF)
    }

    /// Calls `write`; if the kernel refuses the write, says so in the position.
    fn write_or_report(&self, kind: u64, write: impl FnOnce() -> Result<(), OsError>) -> bool {
        let Err(refused) = write() else { return true };
        if self.has_position {
            // This takes no memory, and hides what was written so far.
            let position = refusal(kind, refused);
            return rustix::fs::seek(&self.file, SeekFrom::Start(position)).is_ok();
        }
        // The first page is there already.
        let why = format!("{} failed: {}", refused.call, io::Error::from(refused));
        let record = match kind {
            KIND_NOT_STARTED => Record::text(kind, &why),
            _ => Record::unsendable(&why),
        };
        self.write_header_last(record.bytes()).is_ok()
    }

    /// Writes a whole record.
    fn write_header_last(&self, record: &[u8]) -> Result<(), OsError> {
        let (header, payload) = record.split_at(HEADER_LEN);
        self.write_at(payload, HEADER_LEN as u64)?;
        self.write_at(header, 0)
    }

    fn write_all(&self, bytes: &[u8]) -> Result<(), OsError> {
        each_piece("write", bytes, |rest, _| rustix::io::write(&self.file, rest))
    }

    /// Writes without moving the position.
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), OsError> {
        each_piece("pwrite", bytes, |rest, done| rustix::io::pwrite(&self.file, rest, at + done))
    }

    fn read_exact(&self, bytes: &mut [u8], at: usize) -> Result<(), OsError> {
        read_all(bytes, |rest, done| read_some(&self.file, rest, at + done))
    }
}

impl Kept {
    /// The file's descriptor; `None` if there is a window only.
    pub(super) fn file(&self) -> Option<&OutcomeFile> {
        match self {
            Kept::File(file) => Some(file),
            Kept::Window(_) => None,
        }
    }

    /// The value that is in the position; `None` if the record is in the file.
    fn position(&self) -> Result<Option<u64>, OsError> {
        let Kept::File(OutcomeFile { file, .. }) = self else { return Ok(None) };
        file.checked()?;
        let position = rustix::fs::tell(file).map_err(OsError::in_call("lseek"))?;
        Ok((position & IN_POSITION_BIT != 0).then_some(position))
    }

    /// Bytes of the file; of a window, those that the header says. `None` if these are not there.
    fn len(&self) -> Result<Option<usize>, OsError> {
        match self {
            Kept::File(OutcomeFile { file, .. }) => {
                let size = rustix::fs::fstat(file).map_err(OsError::in_call("fstat"))?.st_size;
                let size = usize::try_from(size);
                size.map(Some).map_err(|_| OsError { call: "fstat", errno: Errno::FBIG })
            }
            Kept::Window(window) => {
                let mut header = [0; HEADER_LEN];
                if window.read(&mut header, 0)? < HEADER_LEN {
                    return Ok(None);
                }
                let (_, len) = header.split_at(8);
                let len = len.try_into().map_or(0, u64::from_ne_bytes);
                let len = usize::try_from(len).ok().and_then(|len| len.checked_add(HEADER_LEN));
                // Before memory is taken for it.
                let is_there = |len: usize| Ok(window.read(&mut [0], len - 1)? == 1);
                match len {
                    Some(len) if is_there(len)? => Ok(Some(len)),
                    _ => Ok(None),
                }
            }
        }
    }

    fn read_some(&self, bytes: &mut [u8], at: usize) -> Result<usize, OsError> {
        match self {
            Kept::File(OutcomeFile { file, .. }) => read_some(file, bytes, at),
            Kept::Window(window) => window.read(bytes, at),
        }
    }

    fn read_exact(&self, bytes: &mut [u8], at: usize) -> Result<(), OsError> {
        read_all(bytes, |rest, done| self.read_some(rest, at + done))
    }

    /// Reads the record; `None` if it is missing or incomplete. Opens the objects of which the
    /// value contains handles. What was handed over with them is left to be freed.
    pub(super) fn read<T: DeserializeOwned + 'static>(
        &self,
        lineage: &Lineage,
    ) -> Result<Option<Outcome<T>>, OsError> {
        if let Some(position) = self.position()? {
            return Ok(parse_position(position));
        }
        let Some(size) = self.len()? else { return Ok(None) };
        // One byte more than a short record, to see whether it ends there.
        let mut short = [0; SHORT + 1];
        let window = size.min(short.len());
        let len = self.read_some(&mut short[..window], 0)?;
        if len < short.len() {
            return Ok(parse(&short[..len], lineage));
        }
        // A process that still has the file may have made it shorter.
        let Some(len) = size.checked_sub(HEADER_LEN) else { return Ok(None) };
        if short[..HEADER_LEN] == header(KIND_BYTES, len as u64) {
            let value = plain::read(len, |bytes| self.read_exact(bytes, HEADER_LEN))?;
            return Ok(Some(value.map_or_else(Outcome::Undecodable, Outcome::Value)));
        }
        let mut bytes = plain::zeroed_vec::<u8>(size)?;
        self.read_exact(&mut bytes, 0)?;
        Ok(parse(&bytes, lineage))
    }

    /// Whether the record is complete and that of a value without handles.
    pub(super) fn has_no_handles(&self) -> bool {
        match self.position() {
            Ok(None) => {}
            Ok(Some(position)) => return position >> LEN_SHIFT & LEN_MASK != NOT_WRITTEN,
            Err(_) => return false,
        }
        let mut found = [0; HEADER_LEN];
        let Ok(Some(len)) = self.len() else { return false };
        self.read_exact(&mut found, 0).is_ok()
            && [KIND_VALUE, KIND_BYTES]
                .iter()
                .any(|&kind| found == header(kind, len.saturating_sub(HEADER_LEN) as u64))
    }
}

fn read_some(file: &OwnFile, bytes: &mut [u8], at: usize) -> Result<usize, OsError> {
    rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *bytes, at as u64))
        .map_err(OsError::in_call("pread"))
}

/// Calls `read` with the rest of `bytes`, and how many it has filled, until all are filled.
fn read_all(
    bytes: &mut [u8],
    mut read: impl FnMut(&mut [u8], usize) -> Result<usize, OsError>,
) -> Result<(), OsError> {
    let mut done = 0;
    while done < bytes.len() {
        match read(&mut bytes[done..], done)? {
            0 => return Err(OsError { call: "pread", errno: Errno::IO }),
            more => done += more,
        }
    }
    Ok(())
}

/// Calls `write` with the remaining bytes and the number of written ones, until none remain.
fn each_piece(
    call: &'static str,
    bytes: &[u8],
    mut write: impl FnMut(&[u8], u64) -> Result<usize, Errno>,
) -> Result<(), OsError> {
    let mut done = 0;
    while done < bytes.len() {
        match write(&bytes[done..], done as u64) {
            Ok(0) => return Err(OsError { call, errno: Errno::IO }),
            Ok(len) => done += len,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(OsError { call, errno }),
        }
    }
    Ok(())
}

/// Decodes a record; `None` if it is incomplete. Nothing in it is trusted, because the child may
/// have overwritten it with anything.
fn parse<T: DeserializeOwned>(bytes: &[u8], lineage: &Lineage) -> Option<Outcome<T>> {
    let (kind, rest) = bytes.split_first_chunk::<8>()?;
    let (len, payload) = rest.split_first_chunk::<8>()?;
    if payload.len() as u64 != u64::from_ne_bytes(*len) {
        return None;
    }
    Some(match u64::from_ne_bytes(*kind) {
        KIND_VALUE => decode(payload, Outcome::Value),
        KIND_HANDLES => decode_with_handles(payload, lineage),
        KIND_PANIC => decode(payload, Outcome::Panicked),
        KIND_UNSENDABLE => Outcome::Unsendable(String::from_utf8_lossy(payload).into_owned()),
        KIND_NOT_STARTED => Outcome::NotStarted(String::from_utf8_lossy(payload).into_owned()),
        // The header was not written.
        0 => return None,
        kind => Outcome::Undecodable(format!("a record of unknown kind {kind}")),
    })
}

/// Decodes the value in a position; `None` for a position that this crate has not set.
fn parse_position<T: DeserializeOwned>(position: u64) -> Option<Outcome<T>> {
    let len = position >> LEN_SHIFT & LEN_MASK;
    if len == NOT_WRITTEN {
        let call = CALLS.get((position >> CALL_SHIFT & CALL_MASK) as usize)?;
        let error = io::Error::from_raw_os_error((position as u32).cast_signed());
        let reason = format!("{call} failed: {error}");
        return match position >> KIND_SHIFT & KIND_MASK {
            KIND_NOT_STARTED => Some(Outcome::NotStarted(reason)),
            KIND_VALUE | KIND_PANIC | KIND_UNSENDABLE | KIND_BYTES | KIND_HANDLES => {
                Some(Outcome::Unsendable(reason))
            }
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
    decode_in(Vec::new(), payload).map_or_else(Outcome::Undecodable, outcome)
}

/// Decodes a value from a payload that ends with the words that name the flights of its handles.
fn decode_with_handles<T: DeserializeOwned>(payload: &[u8], lineage: &Lineage) -> Outcome<T> {
    let split = || {
        let (rest, count) = payload.split_last_chunk::<8>()?;
        let len = usize::try_from(u64::from_ne_bytes(*count)).ok()?.checked_mul(8)?;
        let (value, words) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
        let (words, _) = words.as_chunks::<8>();
        Some((value, words.iter().map(|&word| u64::from_ne_bytes(word)).collect::<Vec<_>>()))
    };
    split()
        .ok_or(Fault::Corrupt)
        .and_then(|(value, words)| Ok((value, result::arrive(&words, lineage)?)))
        .map_err(|fault| fault.to_string())
        .and_then(|(value, flights)| decode_in(flights, value))
        .map_or_else(Outcome::Undecodable, Outcome::Value)
}

fn decode_in<V: DeserializeOwned>(flights: Vec<Listed>, payload: &[u8]) -> Result<V, String> {
    let (decoded, why) = serial::unpack_result(flights, || postcard::from_bytes(payload));
    decoded.map_err(|error| why.unwrap_or_else(|| error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::process::failure::Failure;
    use crate::process::panic_info::Location;

    impl OutcomeFile {
        fn kept(&self) -> Kept {
            // The position is that of the original.
            Kept::File(self.duplicate().expect("a descriptor"))
        }

        fn read<T: DeserializeOwned + 'static>(
            &self,
            lineage: &Lineage,
        ) -> Result<Option<Outcome<T>>, OsError> {
            self.kept().read(lineage)
        }

        fn has_no_handles(&self) -> bool {
            self.kept().has_no_handles()
        }
    }

    /// The record of a value in one piece, whatever its length.
    fn record_of<T: Serialize>(value: &T) -> Record<'static> {
        let mut record = Record::begin(None);
        postcard::serialize_with_flavor(value, &mut record).expect("it can be encoded");
        record.finish(KIND_VALUE)
    }

    fn file_with<T: Serialize + 'static>(value: &T) -> OutcomeFile {
        let file = OutcomeFile::create().expect("a file");
        assert!(file.send(value, &Lineage::none()));
        file
    }

    /// A file of which the parent keeps a window only.
    fn windowed() -> (OutcomeFile, Kept) {
        let file = OutcomeFile::create_for_window().expect("a file");
        let kept = file.duplicate().expect("a descriptor").keep();
        assert!(matches!(kept, Kept::Window(_)));
        (file, kept)
    }

    #[test]
    fn a_record_of_any_length_is_read_through_a_window() {
        for len in [0, 1, 6, 7, 63, 64, 65, 80, 4064, 4080, 4096, 70_000, 3_000_000] {
            let value: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let (file, kept) = windowed();
            assert!(matches!(kept.read::<Vec<u8>>(&Lineage::none()), Ok(None)), "nothing yet");
            assert!(file.send(&value, &Lineage::none()));
            drop(file);
            assert!(kept.has_no_handles());
            let read = kept.read::<Vec<u8>>(&Lineage::none());
            assert!(matches!(read, Ok(Some(Outcome::Value(read))) if read == value), "{len} bytes");
        }
    }

    #[test]
    fn a_window_on_nonsense_or_less_than_was_said_shows_no_record() {
        for header in [[u64::MAX; 2], [KIND_VALUE, 1 << 40], [KIND_BYTES, u64::MAX - 8], [1, 9000]]
        {
            let (file, kept) = windowed();
            let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
            file.write_at(&bytes, 0).expect("writable");
            assert!(matches!(kept.read::<Vec<u8>>(&Lineage::none()), Ok(None)), "{header:?}");
            assert!(!kept.has_no_handles());
        }
        let (file, kept) = windowed();
        assert!(file.send(&vec![7_u8; 20_000], &Lineage::none()));
        rustix::fs::ftruncate(&file.file, 9000).expect("it can be cut");
        assert!(matches!(kept.read::<Vec<u8>>(&Lineage::none()), Ok(None)), "cut short");
    }

    #[test]
    fn a_refused_write_is_told_through_a_window() {
        let (file, kept) = windowed();
        let refused = OsError { call: "pwrite", errno: Errno::NOSPC };
        assert!(file.write_or_report(KIND_BYTES, || Err(refused)));
        assert!(matches!(
            kept.read::<Vec<u8>>(&Lineage::none()),
            Ok(Some(Outcome::Unsendable(why))) if why.starts_with("pwrite failed")
        ));
    }

    fn size(file: &OutcomeFile) -> u64 {
        rustix::fs::fstat(&file.file).expect("a file").st_size as u64
    }

    /// Marsaglia's xorshift.
    fn random() -> impl FnMut(usize) -> usize {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        move |bound| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % bound
        }
    }

    /// Fails or panics after `after` bytes.
    struct Breaks {
        after: usize,
        panics: bool,
    }

    impl Serialize for Breaks {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error, SerializeSeq};
            let mut seq = serializer.serialize_seq(Some(usize::MAX))?;
            (0..self.after).try_for_each(|_| seq.serialize_element(&7_u8))?;
            assert!(!self.panics, "in the encoder");
            Err(S::Error::custom("never"))
        }
    }

    #[test]
    fn a_record_cut_short_anywhere_is_no_record() {
        let record = record_of(&vec![7_u64, 8, 9]);
        let bytes = record.bytes();
        for len in 0..bytes.len() {
            assert!(
                parse::<Vec<u64>>(&bytes[..len], &Lineage::none()).is_none(),
                "{len} of {} bytes",
                bytes.len()
            );
        }
        assert!(
            matches!(parse::<Vec<u64>>(bytes, &Lineage::none()), Some(Outcome::Value(value)) if value == [7, 8, 9])
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = OutcomeFile::create().expect("a file");
        assert!(file.read::<String>(&Lineage::none()).expect("readable").is_none());
        assert!(file.send(&"seven", &Lineage::none()));
        assert!(
            matches!(file.read::<String>(&Lineage::none()), Ok(Some(Outcome::Value(value))) if value == "seven")
        );
    }

    #[test]
    fn a_record_of_any_length_is_read_back() {
        let lens = [4095, 4096, CHUNK - 20, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1_000_003];
        for len in (0..3 * SHORT).chain(lens) {
            let value: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let is = |value: &Vec<u8>| {
                matches!(file_with(value).read::<Vec<u8>>(&Lineage::none()), Ok(Some(Outcome::Value(read)))
                if read == *value)
            };
            assert!(is(&value), "{len} bytes");
            // Encoded one by one, with something before and after, and in pieces of some length.
            let text: String = value.iter().map(|byte| char::from(byte & 0x7f)).collect();
            let value = (7_u8, value, vec![text; 3], 8_u8);
            let read = file_with(&value).read::<(u8, Vec<u8>, Vec<String>, u8)>(&Lineage::none());
            assert!(matches!(read, Ok(Some(Outcome::Value(read))) if read == value), "{len} bytes");
        }
    }

    #[test]
    fn long_numbers_and_text_travel_as_they_are() {
        fn travels<T: Serialize + DeserializeOwned + Clone + PartialEq + Debug + 'static>(
            value: T,
            len: usize,
        ) {
            let file = file_with(&value);
            assert_eq!(size(&file), (HEADER_LEN + len) as u64, "not as it is");
            assert!(
                matches!(file.read::<T>(&Lineage::none()), Ok(Some(Outcome::Value(read))) if read == value)
            );
        }
        fn both<T: Serialize + DeserializeOwned + Clone + PartialEq + Debug + 'static>(
            value: T,
            len: usize,
        ) {
            travels(value.clone(), len);
            travels(Ok::<T, Failure>(value), len);
        }
        both((0..5_000_000_u32).map(|i| i as u8).collect::<Vec<_>>(), 5_000_000);
        both((0..10_000).map(|i| i as i8).collect::<Vec<_>>(), 10_000);
        both((0..10_000_u16).collect::<Vec<_>>(), 20_000);
        both((0..10_000_i16).collect::<Vec<_>>(), 20_000);
        both((0..10_000_u32).collect::<Vec<_>>(), 40_000);
        both((0..10_000_i32).collect::<Vec<_>>(), 40_000);
        both((0..1_000_000_u64).collect::<Vec<_>>(), 8_000_000);
        both((0..10_000_i64).collect::<Vec<_>>(), 80_000);
        both((0..10_000_u128).collect::<Vec<_>>(), 160_000);
        both((0..10_000_i128).collect::<Vec<_>>(), 160_000);
        both((0..10_000_usize).collect::<Vec<_>>(), 80_000);
        both((0..10_000_isize).collect::<Vec<_>>(), 80_000);
        both((0..10_000_u16).map(f32::from).collect::<Vec<_>>(), 40_000);
        both((0..10_000_u16).map(f64::from).collect::<Vec<_>>(), 80_000);
        both("häßlich".repeat(1000), 9000);
        let failure = Err::<Vec<u8>, _>(Failure::new("no numbers").context("asked"));
        let read = file_with(&failure).read::<Result<Vec<u8>, Failure>>(&Lineage::none());
        assert!(matches!(read, Ok(Some(Outcome::Value(read))) if read == failure));
    }

    #[test]
    fn a_long_record_cut_short_or_without_its_header_is_no_record() {
        fn check<T: Serialize + DeserializeOwned + 'static>(value: T) {
            let file = file_with(&value);
            for cut in [1, 2, 1000, 99_000, size(&file) - 17, size(&file) - 16, size(&file)] {
                let file = file_with(&value);
                rustix::fs::ftruncate(&file.file, size(&file) - cut).expect("it can be cut");
                assert!(matches!(file.read::<T>(&Lineage::none()), Ok(None)), "{cut} bytes short");
            }
            rustix::io::pwrite(&file.file, &[0; HEADER_LEN], 0).expect("it can be written");
            assert!(matches!(file.read::<T>(&Lineage::none()), Ok(None)));
        }
        check(vec![7_u8; 100_000]);
        check((7_u8, vec![7_u8; 100_000]));
        check((7_u8, "7".repeat(100_000)));
    }

    /// Whole records of every kind, as bytes.
    fn records_of_every_kind() -> Vec<Vec<u8>> {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        let mut bytes = header(KIND_BYTES, 5000).to_vec();
        bytes.extend([7; 5000]);
        vec![
            record_of(&()).bytes().to_vec(),
            record_of(&7_u64).bytes().to_vec(),
            record_of(&vec![7_u8; 100]).bytes().to_vec(),
            Record::panic(&panic).bytes().to_vec(),
            Record::unsendable("why").bytes().to_vec(),
            Record::text(KIND_NOT_STARTED, "why").bytes().to_vec(),
            handles_record(&[]).bytes().to_vec(),
            bytes,
        ]
    }

    #[test]
    fn a_record_whose_header_was_not_written_is_no_record_however_much_else_was() {
        let none = |kept: &Kept| {
            matches!(kept.read::<Vec<u8>>(&Lineage::none()), Ok(None)) && !kept.has_no_handles()
        };
        for record in records_of_every_kind() {
            let (windowed, window) = windowed();
            let file = OutcomeFile::create().expect("a file");
            let kept = file.kept();
            for at in HEADER_LEN..record.len() {
                assert!(none(&window) && none(&kept), "{at} of {} bytes", record.len());
                for file in [&windowed, &file] {
                    file.write_at(&record[at..=at], at as u64).expect("writable");
                }
            }
            assert!(none(&window) && none(&kept), "all of {} bytes", record.len());
            for (file, kept) in [(&windowed, &window), (&file, &kept)] {
                file.write_at(&record[..HEADER_LEN], 0).expect("writable");
                let read = kept.read::<Vec<u8>>(&Lineage::none());
                assert!(matches!(read, Ok(Some(_))), "{read:?}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_in_a_record_has_none() {
        for record in records_of_every_kind() {
            let file = OutcomeFile::create().expect("a file");
            for (end, byte) in record.iter().enumerate() {
                let read = file.read::<Vec<u8>>(&Lineage::none());
                assert!(matches!(read, Ok(None)) && !file.has_no_handles(), "{end}: {read:?}");
                file.write_at(&[*byte], end as u64).expect("writable");
            }
            assert!(matches!(file.read::<Vec<u8>>(&Lineage::none()), Ok(Some(_))));
        }
    }

    #[test]
    fn an_encoder_that_stops_halfway_leaves_nothing_of_the_value() {
        for after in [0, 100, CHUNK - 1, CHUNK, 10 * CHUNK] {
            let file = file_with(&Breaks { after, panics: false });
            let read = file.read::<Vec<u8>>(&Lineage::none());
            assert!(
                matches!(&read, Ok(Some(Outcome::Unsendable(reason)))
                    if reason.starts_with("cannot be encoded")),
                "{after}: {read:?}"
            );

            let file = OutcomeFile::create().expect("a file");
            let breaks = Breaks { after, panics: true };
            let send = std::panic::AssertUnwindSafe(|| file.send(&breaks, &Lineage::none()));
            std::panic::catch_unwind(send).expect_err("it panics");
            assert!(matches!(file.read::<Vec<u8>>(&Lineage::none()), Ok(None)));
            let panic = PanicInfo { message: "no".into(), location: None, backtrace: "".into() };
            assert!(file.write(&Record::panic(&panic)));
            let read = file.read::<Vec<u8>>(&Lineage::none());
            assert!(matches!(read, Ok(Some(Outcome::Panicked(read))) if read == panic));
        }
    }

    #[test]
    fn a_value_of_a_few_bytes_takes_no_page() {
        // A byte of length, then the text.
        for len in 0..=MAX_IN_POSITION {
            let file = OutcomeFile::create().expect("a file");
            let text = &"\u{7f}7\0\0\u{7f}\0"[..len];
            assert!(file.send(&text.to_owned(), &Lineage::none()));
            let has_page = rustix::fs::fstat(&file.file).expect("a file").st_size > 0;
            assert_eq!(has_page, len == MAX_IN_POSITION, "{len} bytes and their length");
            assert!(
                matches!(file.read::<String>(&Lineage::none()), Ok(Some(Outcome::Value(read))) if read == text),
                "{len} bytes"
            );
        }
        let file = OutcomeFile::create().expect("a file");
        assert!(file.send(&(), &Lineage::none()));
        assert!(matches!(file.read::<()>(&Lineage::none()), Ok(Some(Outcome::Value(())))));
    }

    #[test]
    fn a_position_that_is_not_ours_is_no_record_and_no_panic() {
        let file = OutcomeFile::create().expect("a file");
        for position in [1, 16, IN_POSITION_BIT | LEN_MASK << LEN_SHIFT, i64::MAX as u64] {
            rustix::fs::seek(&file.file, SeekFrom::Start(position)).expect("a position");
            assert!(matches!(file.read::<u64>(&Lineage::none()), Ok(None)), "{position:#x}");
        }
        rustix::fs::seek(&file.file, SeekFrom::Start(IN_POSITION_BIT)).expect("a position");
        assert!(matches!(file.read::<u64>(&Lineage::none()), Ok(Some(Outcome::Undecodable(_)))));
    }

    #[test]
    fn a_record_that_could_not_be_written_says_why() {
        let file = OutcomeFile::create().expect("a file");
        let refused = |record: &Record| {
            rustix::fs::seek(
                &file.file,
                SeekFrom::Start(refusal(
                    record.kind,
                    OsError { call: "ftruncate", errno: Errno::PERM },
                )),
            )
            .expect("a position");
            file.read::<()>(&Lineage::none()).expect("readable").expect("a record")
        };
        let is_clear = |reason: &str| {
            reason.starts_with("ftruncate failed: ") && reason.contains("os error 1)")
        };
        assert!(
            matches!(refused(&record_of(&())), Outcome::Unsendable(reason) if is_clear(&reason))
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
            matches!(parse::<()>(Record::panic(&panic).bytes(), &Lineage::none()), Some(Outcome::Panicked(read))
                if read == panic)
        );
    }

    #[test]
    fn a_foreign_or_scribbled_record_is_an_error_and_no_panic() {
        assert!(matches!(
            parse::<String>(record_of(&u8::MAX).bytes(), &Lineage::none()),
            Some(Outcome::Undecodable(_))
        ));
        let mut bytes = record_of(&1_u8).bytes().to_vec();
        bytes[0] ^= 0x40;
        assert!(matches!(parse::<u8>(&bytes, &Lineage::none()), Some(Outcome::Undecodable(_))));
    }

    #[test]
    fn whatever_is_written_over_a_record_is_read_without_a_panic() {
        let location = Some(Location { file: "a.rs".into(), line: 1, column: 2 });
        let panic = PanicInfo { message: "no".into(), location, backtrace: "0: main".into() };
        let records = [
            record_of(&vec![Some(String::from("seven")), None]),
            Record::panic(&panic),
            Record::unsendable("why"),
            handles_record(&[0, 1 << 32, 1]),
        ];
        let mut below = random();
        for round in 0..100_000 {
            let mut bytes = records[round % 4].bytes().to_vec();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = below(256) as u8;
            }
            // Make the length match, or the payload would rarely be decoded.
            if below(4) > 0 {
                bytes.truncate(HEADER_LEN + below(bytes.len() - HEADER_LEN + 1));
                let len = (bytes.len() - HEADER_LEN) as u64;
                bytes[8..HEADER_LEN].copy_from_slice(&len.to_ne_bytes());
            }
            let _ = parse::<Vec<Option<String>>>(&bytes, &Lineage::none());
        }
    }

    #[test]
    fn whatever_is_written_over_a_long_value_is_read_without_a_panic() {
        let mut below = random();
        for round in 0..6000 {
            let file = match round % 3 {
                0 => file_with(&vec![u64::MAX; 600]),
                1 => file_with(&"a text of some length. ".repeat(200)),
                _ => file_with(&(7_u8, vec![7_u8; CHUNK])),
            };
            for _ in 0..below(4) {
                let at = if below(2) == 0 { below(HEADER_LEN) } else { below(5000) };
                rustix::io::pwrite(&file.file, &[below(256) as u8], at as u64).expect("writable");
            }
            if below(2) == 0 {
                let kinds = [KIND_VALUE, KIND_PANIC, KIND_UNSENDABLE, KIND_BYTES, KIND_HANDLES];
                let kind = kinds[below(5)];
                let len = below(6000);
                rustix::fs::ftruncate(&file.file, (HEADER_LEN + len) as u64).expect("writable");
                rustix::io::pwrite(&file.file, &header(kind, len as u64), 0).expect("writable");
            }
            let _ = file.read::<Vec<u64>>(&Lineage::none());
            let _ = file.read::<String>(&Lineage::none());
            let _ = file.read::<Result<Vec<u16>, Failure>>(&Lineage::none());
            let _ = file.read::<(u8, Vec<u8>)>(&Lineage::none());
            let _ = file.read::<()>(&Lineage::none());
        }
    }

    /// The record of a value with handles of which these words name the flights.
    fn handles_record(words: &[u64]) -> Record<'static> {
        let mut record = Record::begin(None);
        postcard::serialize_with_flavor(&vec![None, Some("seven")], &mut record).expect("encoded");
        record.append_words(words).expect("there is room");
        record.finish(KIND_HANDLES)
    }

    #[test]
    fn flights_that_nobody_handed_over_are_an_error() {
        let read = |record: &Record<'_>| {
            parse::<Vec<Option<String>>>(record.bytes(), &Lineage::none()).expect("complete")
        };
        assert!(matches!(read(&handles_record(&[])), Outcome::Value(value) if value.len() == 2));
        for words in [vec![0, 1 << 32, 1], vec![u64::MAX; 3], vec![0], vec![0; 4]] {
            let found = read(&handles_record(&words));
            assert!(matches!(found, Outcome::Undecodable(_)), "{words:?}: {found:?}");
        }
        // A number of words that are not there.
        for count in [1, 2, 1 << 61, u64::MAX] {
            let mut record = Record::begin(None);
            record.append_words(&[]).expect("there is room");
            record.short[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&u64::to_ne_bytes(count));
            let found = read(&record.finish(KIND_HANDLES));
            assert!(matches!(found, Outcome::Undecodable(_)), "{count}: {found:?}");
        }
    }

    #[test]
    fn only_a_complete_value_says_that_there_are_no_handles() {
        let none = Lineage::none();
        let file = OutcomeFile::create().expect("a file");
        assert!(!file.has_no_handles(), "not written");
        for len in [0, 3, 60, 5000, 3 * CHUNK] {
            let file = file_with(&vec![7_u8; len]);
            assert!(file.has_no_handles(), "{len}");
            let file = file_with(&(7_u8, vec![7_u8; len]));
            assert!(file.has_no_handles(), "{len}");
            if size(&file) > 0 {
                rustix::fs::ftruncate(&file.file, size(&file) - 1).expect("it can be cut");
                assert!(!file.has_no_handles(), "{len}");
            }
        }
        let file = OutcomeFile::create().expect("a file");
        assert!(file.write(&handles_record(&[])));
        assert!(
            !file.has_no_handles()
                && matches!(file.read::<Vec<Option<String>>>(&none), Ok(Some(Outcome::Value(_))))
        );
        let file = OutcomeFile::create().expect("a file");
        assert!(
            file.write_or_report(KIND_VALUE, || Err(OsError {
                call: "write",
                errno: Errno::NOSPC
            }))
        );
        assert!(!file.has_no_handles(), "refused");
    }

    #[test]
    fn bytes_that_are_no_such_value_are_an_error() {
        let file = file_with(&vec![0xff_u8; 4099]);
        assert!(matches!(file.read::<String>(&Lineage::none()), Ok(Some(Outcome::Undecodable(_)))));
        assert!(matches!(
            file.read::<Vec<u64>>(&Lineage::none()),
            Ok(Some(Outcome::Undecodable(_)))
        ));
        assert!(matches!(
            file.read::<(u8, Vec<u8>)>(&Lineage::none()),
            Ok(Some(Outcome::Undecodable(_)))
        ));
    }

    #[test]
    fn a_value_without_an_encoding_is_told() {
        let read = file_with(&Breaks { after: 0, panics: false }).read::<()>(&Lineage::none());
        assert!(matches!(read, Ok(Some(Outcome::Unsendable(reason)))
                if reason.starts_with("cannot be encoded")));
    }
}
