//! Copies one entry: under a temporary name first, and by a rename under its own name when it is whole.

use crate::Plan;
use crate::attributes;
use crate::folder::Cursor;
use crate::message::{Step, Trouble};
use crate::tree::Entry;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xxhash_rust::xxh3::Xxh3Default;

/// Bytes read or written by one system call. Large enough that the call does not count, small enough for the second-level
/// cache.
const CHUNK: usize = 256 << 10;
/// Bytes after which the copying of a large file reports how far it is.
const REPORT: u64 = 8 << 20;

/// Copies entries of the tree, one after the other.
pub(crate) struct Copier<'plan> {
    plan: &'plan Plan,
    source: Cursor<'plan>,
    target: Cursor<'plan>,
    temporary: CString,
    owner: (u32, u32),
    buffer: Vec<u8>,
    hash: Option<Xxh3Default>,
}

impl<'plan> Copier<'plan> {
    pub(crate) fn new(plan: &'plan Plan, temporary: CString) -> Copier<'plan> {
        Copier {
            plan,
            source: Cursor::new(&plan.source),
            target: Cursor::new(plan.target.root()),
            temporary,
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            buffer: vec![0; CHUNK],
            hash: plan.verify.then(Xxh3Default::new),
        }
    }

    /// Copies one entry and returns its bytes; for a large file, `so_far` hears from time to time how many there are yet.
    pub(crate) fn copy(&mut self, entry: &Entry, so_far: &mut dyn FnMut(u64)) -> Result<u64, Trouble> {
        let folders = &self.plan.tree.folders;
        let from = self.source.go(folders, entry.folder).map_err(Step::Read.refused())?;
        let to = self.target.go(folders, entry.folder).map_err(Step::Write.refused())?;
        let temporary = self.temporary.as_c_str();
        let copied = if entry.kind == FileType::RegularFile {
            let (buffer, hash) = (&mut self.buffer, &mut self.hash);
            File { from, to, entry, temporary, owner: self.owner, buffer, hash }.copy(so_far)
        } else {
            copy_special(from, to, entry, temporary)
        };
        let renamed = copied.and_then(|bytes| {
            rustix::fs::renameat(to, temporary, to, &entry.name).map_err(Step::Rename.refused())?;
            Ok(bytes)
        });
        if renamed.is_err() {
            // Fails when there is none yet.
            let _ = rustix::fs::unlinkat(to, temporary, AtFlags::empty());
        }
        renamed
    }
}

/// The copying of one regular file.
struct File<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    entry: &'a Entry,
    temporary: &'a std::ffi::CStr,
    owner: (u32, u32),
    buffer: &'a mut [u8],
    /// `None` if the copy is not to be verified.
    hash: &'a mut Option<Xxh3Default>,
}

impl File<'_> {
    fn copy(&mut self, so_far: &mut dyn FnMut(u64)) -> Result<u64, Trouble> {
        // NONBLOCK: the file may have become a FIFO since it was listed.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let read = Step::Read.refused();
        let source = rustix::fs::openat(self.from, &self.entry.name, flags, Mode::empty()).map_err(&read)?;
        let stat = rustix::fs::fstat(&source).map_err(&read)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(read(Errno::STALE));
        }
        let target = self.create(&stat).map_err(Step::Write.refused())?;

        let size = stat.st_size as u64;
        let sparse = (stat.st_blocks as u64) * 512 < size;
        let mut bytes = 0;
        if let Some(hash) = self.hash {
            hash.reset();
        }
        if self.hash.is_none() && !sparse && size > CHUNK as u64 {
            bytes = copy_in_kernel(&source, &target, so_far)?;
        }
        loop {
            let count = read_some(&source, self.buffer, None).map_err(&read)?;
            let chunk = &self.buffer[..count];
            if let Some(hash) = self.hash {
                hash.update(chunk);
            }
            if !(sparse && chunk.iter().all(|byte| *byte == 0)) {
                write_at(&target, chunk, bytes).map_err(Step::Write.refused())?;
            }
            bytes += count as u64;
            if is_end(count, bytes == size) {
                break;
            }
            if bytes % REPORT < CHUNK as u64 {
                so_far(bytes);
            }
        }
        if sparse {
            rustix::fs::ftruncate(&target, bytes).map_err(Step::Write.refused())?;
        }
        self.verify(&target, bytes)?;
        attributes::give(target.as_fd(), &stat).map_err(Step::Attributes.refused())?;
        Ok(bytes)
    }

    /// Creates the temporary file: with its last permissions at once if it is ours, closed to all others if it is to be
    /// given away.
    fn create(&self, stat: &Stat) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let ours = (stat.st_uid, stat.st_gid) == self.owner;
        let mode = Mode::from_raw_mode(if ours { stat.st_mode & 0o777 } else { 0o600 });
        rustix::fs::openat(self.to, self.temporary, flags, mode)
    }

    /// Compares the hash of what was read with the hash of what the copy holds now.
    fn verify(&mut self, target: &OwnedFd, bytes: u64) -> Result<(), Trouble> {
        let Some(hash) = self.hash.as_mut() else {
            return Ok(());
        };
        let wanted = hash.digest();
        hash.reset();
        let mut at = 0;
        loop {
            let count = read_some(target, self.buffer, Some(at)).map_err(Step::Compare.refused())?;
            hash.update(&self.buffer[..count]);
            at += count as u64;
            if is_end(count, at == bytes) {
                break;
            }
        }
        if hash.digest() == wanted { Ok(()) } else { Err(Trouble { step: Step::Compare, errno: 0 }) }
    }
}

/// Returns whether a read of `count` bytes was the last one. Where the size is as expected, a short read is the end;
/// elsewhere, as in `/proc`, only an empty one.
fn is_end(count: usize, as_expected: bool) -> bool {
    count == 0 || (as_expected && count < CHUNK)
}

/// Lets the kernel copy as much as it will, without a way through our memory; filesystems that can share blocks do that.
/// What is left, or all of it where the kernel refuses, is for the ordinary loop.
fn copy_in_kernel(source: &OwnedFd, target: &OwnedFd, so_far: &mut dyn FnMut(u64)) -> Result<u64, Trouble> {
    let (mut read_from, mut write_to) = (0, 0);
    while let Ok(1..) = rustix::fs::copy_file_range(source, Some(&mut read_from), target, Some(&mut write_to), REPORT as usize) {
        so_far(write_to);
    }
    rustix::fs::seek(source, rustix::fs::SeekFrom::Start(write_to)).map_err(Step::Read.refused())
}

/// Reads from a place, or else from where the last read ended.
fn read_some(from: &OwnedFd, buffer: &mut [u8], at: Option<u64>) -> Result<usize, Errno> {
    loop {
        let read = match at {
            Some(at) => rustix::io::pread(from, &mut *buffer, at),
            None => rustix::io::read(from, &mut *buffer),
        };
        if read != Err(Errno::INTR) {
            return read;
        }
    }
}

fn write_at(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(to, bytes, at) {
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies what has no bytes to read: a symbolic link, FIFO, socket or device.
fn copy_special(from: BorrowedFd<'_>, to: BorrowedFd<'_>, entry: &Entry, temporary: &std::ffi::CStr) -> Result<u64, Trouble> {
    let (read, write) = (Step::Read.refused(), Step::Write.refused());
    let stat = rustix::fs::statat(from, &entry.name, AtFlags::SYMLINK_NOFOLLOW).map_err(&read)?;
    let is_link = entry.kind == FileType::Symlink;
    if is_link {
        let goal = rustix::fs::readlinkat(from, &entry.name, Vec::new()).map_err(&read)?;
        rustix::fs::symlinkat(&goal, to, temporary).map_err(&write)?;
    } else {
        rustix::fs::mknodat(to, temporary, entry.kind, Mode::RUSR | Mode::WUSR, stat.st_rdev as _).map_err(&write)?;
    }
    attributes::give_by_name(to, temporary, &stat, is_link).map_err(Step::Attributes.refused())?;
    Ok(0)
}
