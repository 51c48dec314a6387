//! Passing a segment to a process that did not inherit it: over a socket, or to a program that is
//! about to start.
//!
//! Safe code never gets the descriptor of a segment. With it, safe code could write bytes that a
//! reference assumes to be constant, and shorten a file that other processes have mapped.
#![expect(
    unsafe_code,
    reason = "descriptors by their numbers, and what runs between fork and exec"
)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::FdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::segment::{Segment, SegmentError, backing};
use crate::sys::descriptor::{self, FileId};
use crate::sys::error::OsError;
use crate::sys::memory;

/// Prefix of the environment variables that say which descriptor is a passed segment.
const VARIABLE: &str = "OFFSPRING_SEGMENT_";
/// Sent together with the descriptor, since a socket cannot carry a descriptor without bytes.
const GREETING: [u8; 8] = *b"offsprng";

impl Segment {
    /// Sends the segment to the process at the other end of the socket, which receives it with
    /// [`Segment::receive`].
    ///
    /// This sends eight bytes and a descriptor. The segment exists as long as the message does,
    /// even if every process that has it ends in the meantime.
    ///
    /// # Blocking
    /// Blocks as a write of eight bytes to the stream does.
    ///
    /// # Errors
    /// [`SegmentError::InFile`] if the segment lies in a file, which other processes open by its
    /// path; [`SegmentError::Os`]. Nothing was sent.
    ///
    /// # Examples
    /// ```
    /// use offspring::Segment;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let segment = Segment::create(1 << 16)?;
    /// segment.send(&ours)?;
    /// assert_eq!(Segment::receive(&theirs)?.id(), segment.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "SCM_RIGHTS")]
    pub fn send(&self, stream: &UnixStream) -> Result<(), SegmentError> {
        let fds = [self.anonymous()?];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let mut sent = 0;
        while sent < GREETING.len() {
            let bytes = [IoSlice::new(&GREETING[sent..])];
            let result = rustix::io::retry_on_intr(|| {
                sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL)
            });
            sent += result.map_err(OsError::in_call("sendmsg"))?;
            // The descriptor went with the first byte.
            ancillary.clear();
        }
        Ok(())
    }

    /// Receives a segment that another process has [sent](Segment::send).
    ///
    /// # Blocking
    /// Until eight bytes have arrived, or until a read from the stream fails.
    ///
    /// # Errors
    /// [`SegmentError::NotSent`] if something else arrives, or the stream ends; otherwise the same
    /// as for [`Segment::open`].
    pub fn receive(stream: &UnixStream) -> Result<Segment, SegmentError> {
        let mut found: Option<OwnedFd> = None;
        let mut greeting = [0; GREETING.len()];
        let mut received = 0;
        // The received descriptor gets the lowest free number, which must not be that of a standard
        // stream.
        let _placeholders = descriptor::take_stdio()?;
        while received < GREETING.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [IoSliceMut::new(&mut greeting[received..])];
            let message = rustix::io::retry_on_intr(|| {
                recvmsg(stream, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            });
            let message = message.map_err(OsError::in_call("recvmsg"))?;
            for item in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = item {
                    found = fds.into_iter().last().or(found);
                }
            }
            if message.bytes == 0 {
                return Err(SegmentError::NotSent);
            }
            received += message.bytes;
        }
        match found {
            Some(fd) if greeting == GREETING => Segment::open(fd),
            _ => Err(SegmentError::NotSent),
        }
    }

    /// Passes the segment to the program that `command` starts, which opens it under `name` with
    /// [`Segment::inherited`].
    ///
    /// The command keeps the segment open until the command is dropped.
    ///
    /// # Errors
    /// [`SegmentError::InFile`] if the segment lies in a file, which other processes open by its
    /// path; [`SegmentError::Name`] if `name` contains a NUL or `=`; [`SegmentError::Os`].
    /// `command` is not changed.
    ///
    /// # Examples
    /// ```no_run
    /// use offspring::Segment;
    /// use std::process::Command;
    ///
    /// let segment = Segment::create(1 << 16)?;
    /// let mut worker = Command::new("worker");
    /// segment.pass_to(&mut worker, "jobs")?;
    /// worker.spawn()?; // There: Segment::inherited("jobs")
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pass_to(&self, command: &mut Command, name: &str) -> Result<(), SegmentError> {
        if name.contains(['\0', '=']) {
            return Err(SegmentError::Name { name: name.to_owned() });
        }
        let fd = descriptor::duplicate(self.anonymous()?)?;
        command.env(
            format!("{VARIABLE}{name}"),
            Passed { fd: fd.as_raw_fd(), file: self.mapping.file_id() }.to_string(),
        );
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&fd, FdFlags::empty())?)) };
        Ok(())
    }

    /// The descriptor of an anonymous segment.
    fn anonymous(&self) -> Result<BorrowedFd<'_>, SegmentError> {
        if self.mapping.is_read_only() {
            return Err(SegmentError::ReadOnly);
        }
        let fd = self.mapping.fd()?;
        if memory::seals(fd)?.contains(memory::SEALS) { Ok(fd) } else { Err(SegmentError::InFile) }
    }

    /// Opens the segment that was [passed](Segment::pass_to) to this program under `name`.
    ///
    /// # Errors
    /// [`SegmentError::NotPassed`] if no segment was passed under this name; otherwise the same as
    /// for [`Segment::open`].
    pub fn inherited(name: &str) -> Result<Segment, SegmentError> {
        let not_passed = || SegmentError::NotPassed { name: name.to_owned() };
        let passed =
            std::env::var(format!("{VARIABLE}{name}")).ok().and_then(|text| Passed::parse(&text));
        let Passed { fd, file } = passed.ok_or_else(not_passed)?;
        if fd < 0 {
            return Err(not_passed());
        }
        // SAFETY: whatever the number stands for is only looked at, and nothing closes a passed
        // descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if FileId::of(fd) != Ok(file) {
            // A program that was started further down inherits the variable but not the descriptor.
            return Err(not_passed());
        }
        // Programs that this one starts get the segment only if it is passed to them.
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(OsError::in_call("fcntl"))?;
        backing::open_descriptor(fd).map(Segment::from)
    }
}

/// The value of the environment variable.
struct Passed {
    fd: RawFd,
    file: FileId,
}

impl Passed {
    fn parse(text: &str) -> Option<Passed> {
        let (fd, file) = text.split_once(':')?;
        Some(Passed { fd: fd.parse().ok()?, file: FileId::parse(file)? })
    }
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.fd, self.file)
    }
}

/// Returns the number of the segment's descriptor.
///
/// Turning it into a descriptor, as [`BorrowedFd::borrow_raw`] does, and then writing through it or
/// changing the file's length breaks the guarantees of references into the segment. That is as
/// `unsafe` as writing through a pointer, so a segment does not implement
/// [`AsFd`](std::os::fd::AsFd):
/// ```compile_fail,E0277
/// fn lends_its_descriptor<T: std::os::fd::AsFd>() {}
/// lends_its_descriptor::<offspring::Segment>();
/// ```
impl AsRawFd for Segment {
    fn as_raw_fd(&self) -> RawFd {
        self.mapping.raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_segment_in_a_file_is_neither_sent_nor_passed() {
        let folder = tempfile::tempdir().expect("a folder");
        let segment =
            Segment::create_file(folder.path().join("segment"), 1 << 16).expect("a segment");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(matches!(segment.send(&ours), Err(SegmentError::InFile)));
        assert!(matches!(
            segment.pass_to(&mut Command::new("true"), "jobs"),
            Err(SegmentError::InFile)
        ));
        drop(ours);
        assert!(
            matches!(Segment::receive(&theirs), Err(SegmentError::NotSent)),
            "nothing was sent"
        );
    }

    #[test]
    fn a_name_that_no_variable_can_have_is_refused() {
        let segment = Segment::create(1 << 16).expect("a segment");
        for name in ["a\0b", "a=b"] {
            let mut command = Command::new("true");
            assert!(matches!(
                segment.pass_to(&mut command, name),
                Err(SegmentError::Name { name: refused }) if refused == name
            ));
            assert_eq!(command.get_envs().count(), 0);
            assert!(matches!(Segment::inherited(name), Err(SegmentError::NotPassed { .. })));
        }
    }

    #[test]
    fn a_socket_that_brings_something_else_brings_no_segment() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"offsprng").expect("room");
        assert!(matches!(Segment::receive(&theirs), Err(SegmentError::NotSent)), "no descriptor");
        ours.write_all(b"hello").expect("room");
        drop(ours);
        assert!(
            matches!(Segment::receive(&theirs), Err(SegmentError::NotSent)),
            "and then the end"
        );
    }

    #[test]
    fn a_segment_that_another_program_sends_for_its_own_purposes_is_not_taken() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let fds = [segment.anonymous().expect("anonymous")];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [IoSlice::new(b"GREETING")];
        sendmsg(&ours, &bytes, &mut ancillary, SendFlags::empty()).expect("sent");
        assert!(matches!(Segment::receive(&theirs), Err(SegmentError::NotSent)));
    }

    #[test]
    fn what_is_passed_is_read_back_and_nonsense_is_not() {
        let file = FileId::of(tempfile::tempfile().expect("a file").as_fd()).expect("fstat");
        let Passed { fd, file: found } =
            Passed::parse(&Passed { fd: 7, file }.to_string()).expect("as written");
        assert_eq!((fd, found), (7, file));
        for text in ["", "7", "7:", ":1:1", "7:1", "x:1:1", "7:1:x"] {
            assert!(Passed::parse(text).is_none(), "{text}");
        }
        assert!(matches!(Segment::inherited("no such"), Err(SegmentError::NotPassed { name })
                if name == "no such"));
    }
}
