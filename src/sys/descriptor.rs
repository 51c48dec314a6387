//! This crate's descriptors: close-on-exec, and never 0, 1 or 2.
//!
//! A program that has closed its standard streams, as daemons do, gets their numbers for the next
//! files that it opens. Everything that it prints then lands in those files: in the header of a
//! segment, or in the value that a child returns. So a descriptor with such a number is not used.
//! It is kept open, so that the number stays taken, until another descriptor is made.

#![expect(unsafe_code, reason = "looks at descriptors by their numbers")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::sys::error::OsError;

/// The first number that no standard stream has.
const FIRST: RawFd = 3;

/// Makes a descriptor with a number beyond those of the standard streams. `make` is called again as
/// long as it gives one of their numbers; those descriptors are dropped at the end.
pub(crate) fn beyond_stdio<F: AsRawFd, E>(mut make: impl FnMut() -> Result<F, E>) -> Result<F, E> {
    // At most three, as each of them takes one number.
    let mut placeholders = Vec::new();
    loop {
        let made = make()?;
        if made.as_raw_fd() >= FIRST {
            return Ok(made);
        }
        placeholders.push(made);
    }
}

/// Takes the numbers of closed standard streams, so that no descriptor made meanwhile gets them.
pub(crate) fn take_stdio() -> Result<Vec<OwnedFd>, OsError> {
    let mut taken = Vec::new();
    loop {
        // Whatever is written to it is lost.
        let placeholder = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let placeholder = placeholder.map_err(OsError::in_call("eventfd"))?;
        if placeholder.as_raw_fd() >= FIRST {
            return Ok(taken);
        }
        taken.push(placeholder);
    }
}

/// Makes a pipe: its reading end and its writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), OsError> {
    /// A pipe, whose number is the smaller of its two.
    struct Pipe(OwnedFd, OwnedFd);
    impl AsRawFd for Pipe {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd().min(self.1.as_raw_fd())
        }
    }
    let make =
        || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map(|(reader, writer)| Pipe(reader, writer));
    let Pipe(reader, writer) = beyond_stdio(make).map_err(OsError::in_call("pipe2"))?;
    Ok((reader, writer))
}

/// A second descriptor of the same open file.
pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd, OsError> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST).map_err(OsError::in_call("fcntl"))
}

/// Opens a file that exists. Does not wait, and does not make it the controlling terminal of this
/// process.
pub(crate) fn open(path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    beyond_stdio(|| rustix::fs::open(path, flags, Mode::empty()))
}

/// Opens a file once more. Unlike a duplicate, the new descriptor has locks, a position and flags
/// of its own.
///
/// Needs `/proc`. If another folder was put in its place, what is found there is not taken for the
/// file.
pub(crate) fn reopen(file: &OwnFile, access: OFlags) -> Result<OwnFile, OsError> {
    let reopened =
        open(file.path().as_ref(), access).map_err(OsError::in_call("open /proc/self/fd"))?;
    let reopened = OwnFile::new(reopened)?;
    if reopened.id == file.id {
        Ok(reopened)
    } else {
        Err(OsError { call: "open /proc/self/fd", errno: Errno::STALE })
    }
}

/// Whether [`reopen`] can find the file. Opens nothing.
pub(crate) fn can_be_reopened(file: &OwnFile) -> bool {
    rustix::fs::statat(CWD, file.path(), AtFlags::empty())
        .is_ok_and(|stat| FileId::from(stat) == file.id)
}

/// The contents of a file in `/proc`, as far as they fit into `buffer`. An error's call is
/// `names[0]` if the file could not be opened, and `names[1]` if it could not be read.
pub(crate) fn read_proc<'a>(
    path: &str,
    names: [&'static str; 2],
    buffer: &'a mut [u8],
) -> Result<&'a str, OsError> {
    let [name_of_open, name_of_read] = names;
    let file = open(path.as_ref(), OFlags::RDONLY).map_err(OsError::in_call(name_of_open))?;
    let mut len = 0;
    while len < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer[len..]))
            .map_err(OsError::in_call(name_of_read))?
        {
            0 => break,
            more => len += more,
        }
    }
    str::from_utf8(&buffer[..len]).map_err(|_| OsError { call: name_of_read, errno: Errno::ILSEQ })
}

/// The number in the text of a link in `/proc/.../ns`, which identifies a namespace among those of
/// its kind.
pub(crate) fn namespace(link: &str, kind: &str) -> Result<u32, Errno> {
    let mut text = [core::mem::MaybeUninit::<u8>::uninit(); 64];
    let (text, _) = rustix::fs::readlinkat_raw(CWD, link, &mut text)?;
    let text = str::from_utf8(text).map_err(|_| Errno::ILSEQ)?;
    let number =
        text.strip_prefix(kind).and_then(|rest| rest.strip_prefix(":[")?.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).ok_or(Errno::INVAL)
}

/// How many links a folder has. Needs no descriptor.
pub(crate) fn links(path: &str) -> Result<u64, Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        Ok(stat.st_nlink as u64)
    } else {
        Err(Errno::NOTDIR)
    }
}

/// Which file a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(fd: impl AsFd) -> Result<FileId, OsError> {
        rustix::fs::fstat(fd).map(FileId::from).map_err(OsError::in_call("fstat"))
    }

    pub(crate) fn inode(self) -> u64 {
        self.inode
    }

    pub(crate) fn to_words(self) -> [u64; 2] {
        [self.device, self.inode]
    }

    /// The inverse of [`to_words`](FileId::to_words).
    pub(crate) fn from_words([device, inode]: [u64; 2]) -> FileId {
        FileId { device, inode }
    }

    /// The inverse of its `Display`.
    pub(crate) fn parse(text: &str) -> Option<FileId> {
        let (device, inode) = text.split_once(':')?;
        Some(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? })
    }
}

impl From<Stat> for FileId {
    fn from(stat: Stat) -> FileId {
        FileId { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// A descriptor that the program may have closed, for example with all others, so that its number
/// may stand for another file by now.
///
/// It is closed only if it still stands for our file.
#[derive(Debug)]
pub(crate) struct OwnFile {
    fd: ManuallyDrop<OwnedFd>,
    id: FileId,
}

impl OwnFile {
    pub(crate) fn new(fd: impl Into<OwnedFd>) -> Result<OwnFile, OsError> {
        let fd = fd.into();
        let id = FileId::of(&fd)?;
        Ok(OwnFile { fd: ManuallyDrop::new(fd), id })
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Where `/proc` shows the file.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The descriptor, if it still stands for the file. Costs a system call.
    pub(crate) fn checked(&self) -> Result<BorrowedFd<'_>, OsError> {
        if FileId::of(&*self.fd)? == self.id {
            Ok(self.fd.as_fd())
        } else {
            Err(OsError { call: "fstat", errno: Errno::BADF })
        }
    }

    /// The descriptor's number and what it stands for, for a forked child.
    pub(crate) fn name(&self) -> FdName {
        FdName { fd: self.fd.as_raw_fd(), id: self.id }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let is_another = match FileId::of(&*self.fd) {
            Ok(id) => id != self.id,
            // If a sandbox forbids the question, the file is taken for ours.
            Err(refused) => refused.errno == Errno::BADF,
        };
        if !is_another {
            // SAFETY: it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// The descriptor, even if it stands for another file by now.
impl AsFd for OwnFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A descriptor that this process inherited at its fork, if nobody has closed it since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FdName {
    fd: RawFd,
    id: FileId,
}

impl FdName {
    pub(crate) fn new(fd: RawFd, id: FileId) -> FdName {
        FdName { fd, id }
    }

    pub(crate) fn id(self) -> FileId {
        self.id
    }

    pub(crate) fn number(self) -> RawFd {
        self.fd
    }

    /// Whether the number still stands for the same file.
    ///
    /// # Safety
    /// While this runs nobody closes the descriptor, if it is open.
    pub(crate) unsafe fn is_open(self) -> bool {
        // SAFETY: at worst the number stands for nothing or for another file, and only the identity
        // of that file is asked for.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        FileId::of(fd) == Ok(self.id)
    }

    /// Closes the descriptor, in a process that inherited it at its fork.
    ///
    /// # Safety
    /// It is open. Nothing in this process will use it any more, and the copy of its owner in this
    /// process does not take another file for it.
    pub(crate) unsafe fn close(self) {
        // SAFETY: the caller's promise.
        unsafe { rustix::io::close(self.fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs::File;

    /// Stands in for a descriptor with this number.
    struct Numbered<'a>(RawFd, &'a Cell<u32>);
    impl AsRawFd for Numbered<'_> {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }
    impl Drop for Numbered<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
        }
    }

    #[test]
    fn numbers_of_standard_streams_stay_taken_until_another_is_found() {
        let dropped = Cell::new(0);
        let mut numbers = [1, 0, 2, 7].into_iter();
        let made = beyond_stdio(|| {
            assert_eq!(dropped.get(), 0);
            Ok::<_, ()>(Numbered(numbers.next().expect("not asked again"), &dropped))
        });
        assert_eq!(made.expect("made").0, 7);
        assert_eq!(dropped.get(), 4, "the placeholders, and then the one that was found");
    }

    #[test]
    fn a_reopened_file_is_the_same_file_with_a_position_of_its_own() {
        use std::io::{Read, Seek, Write};
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"seven").expect("writable");
        let own = OwnFile::new(file.try_clone().expect("dup")).expect("fstat");
        assert!(can_be_reopened(&own));
        let again = reopen(&own, OFlags::RDWR).expect("/proc is mounted");
        let mut again = File::from(duplicate(&again).expect("fcntl"));
        assert_eq!(FileId::of(&again), FileId::of(&file));
        let mut text = String::new();
        again.read_to_string(&mut text).expect("readable");
        assert_eq!((text.as_str(), file.stream_position().expect("a position")), ("seven", 5));
    }

    #[test]
    fn a_number_that_stands_for_another_file_is_noticed() {
        let own = OwnFile::new(tempfile::tempfile().expect("a file")).expect("fstat");
        own.checked().expect("it is still there");
        let other = tempfile::tempfile().expect("a file");
        rustix::io::dup3(&other, &mut OwnedFdMut::of(&own).0, rustix::io::DupFlags::CLOEXEC)
            .expect("dup3");
        assert_eq!(own.checked().expect_err("another file").errno, Errno::BADF);
        let name = own.name();
        drop(own);
        // SAFETY: this test alone knows of the number.
        let left = unsafe { BorrowedFd::borrow_raw(name.number()) };
        assert_eq!(FileId::of(left), FileId::of(&other), "the other file is not ours to close");
        // SAFETY: as above.
        unsafe { rustix::io::close(name.number()) };
    }

    /// The number of a file's descriptor, to be given to another file.
    struct OwnedFdMut(std::mem::ManuallyDrop<OwnedFd>);
    impl OwnedFdMut {
        fn of(own: &OwnFile) -> OwnedFdMut {
            use std::os::fd::FromRawFd;
            // SAFETY: the descriptor is open, and this owner is never dropped.
            OwnedFdMut(std::mem::ManuallyDrop::new(unsafe {
                OwnedFd::from_raw_fd(own.fd.as_raw_fd())
            }))
        }
    }

    #[test]
    fn namespaces_are_read_from_links_and_links_of_folders_counted() {
        assert!(namespace("/proc/self/ns/pid", "pid").expect("a namespace") > 0);
        assert_eq!(namespace("/proc/self/ns/pid", "net"), Err(Errno::INVAL));
        assert_eq!(namespace("/proc/self/exe", "pid"), Err(Errno::INVAL));
        assert!(links("/proc/self/task").expect("a folder") >= 3);
        assert_eq!(links("/proc/self/stat"), Err(Errno::NOTDIR));
    }
}
