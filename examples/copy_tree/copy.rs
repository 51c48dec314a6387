//! Copies one entry under a temporary name, and renames it when it is complete.

use crate::Plan;
use crate::attributes;
use crate::extended::{Bearer, Extended, Lost};
use crate::folder::Cursor;
use crate::holes;
use crate::message::{Item, Step, Trouble};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Bytes read or written by one system call. Large enough that the call does not count, small
/// enough for the second-level cache.
const CHUNK: usize = 256 << 10;
/// Bytes after which the copying of a large file reports how far it is.
const REPORT: u64 = 8 << 20;

/// What the copy of one entry came to.
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    /// Extended attributes that the copy did not get.
    pub(crate) lost: Lost,
}

/// Copies entries of the tree, one after the other.
pub(crate) struct Copier<'plan> {
    plan: &'plan Plan,
    source: Cursor<'plan>,
    target: Cursor<'plan>,
    temporary: CString,
    owner: (u32, u32),
    buffer: Vec<u8>,
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
        }
    }

    /// Copies one entry; for a large file, `so_far` hears from time to time how many bytes there
    /// are yet.
    pub(crate) fn copy(
        &mut self,
        item: &Item,
        so_far: &mut dyn FnMut(u64),
    ) -> Result<Copied, Trouble> {
        let path = Path::new(&item.path);
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().as_bytes();
        let name = &CString::new(name).map_err(|_| Step::Read.refused()(Errno::INVAL))?;
        let from = self.source.go(folder).map_err(Step::Read.refused())?;
        let to = self.target.go(folder).map_err(Step::Write.refused())?;
        let temporary = self.temporary.as_c_str();
        let kind = FileType::from_raw_mode(item.kind);
        let copied = if kind == FileType::RegularFile {
            let buffer = &mut self.buffer;
            File { from, to, name, temporary, owner: self.owner, buffer }
                .copy(self.plan.verify, so_far)
        } else {
            copy_special(from, to, name, kind, temporary)
        };
        let renamed = copied.and_then(|copied| {
            rustix::fs::renameat(to, temporary, to, name).map_err(Step::Rename.refused())?;
            Ok(copied)
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
    name: &'a CStr,
    temporary: &'a CStr,
    owner: (u32, u32),
    buffer: &'a mut [u8],
}

impl File<'_> {
    fn copy(&mut self, verify: bool, so_far: &mut dyn FnMut(u64)) -> Result<Copied, Trouble> {
        // NONBLOCK: the file may have become a FIFO since it was listed.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let read = Step::Read.refused();
        let source =
            rustix::fs::openat(self.from, self.name, flags, Mode::empty()).map_err(&read)?;
        let stat = rustix::fs::fstat(&source).map_err(&read)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(read(Errno::STALE));
        }
        let target = self.create(&stat).map_err(Step::Write.refused())?;

        let mut hash = verify.then(Xxh3::new);
        let bytes = self.copy_bytes(&source, &target, &stat, hash.as_mut(), so_far)?;
        if let Some(hash) = hash
            && self.hash_of(&target, bytes).map_err(Step::Compare.refused())? != hash.digest()
        {
            return Err(Trouble { step: Step::Compare, errno: 0 });
        }
        // Read after the bytes: who writes into the file takes its capabilities away, so that they
        // fit what was read.
        let extended = Extended::of(Bearer::Open(source.as_fd())).map_err(&read)?;
        let lost = attributes::give(target.as_fd(), &stat, &extended)
            .map_err(Step::Attributes.refused())?;
        // On a network filesystem a full disk may show itself only now.
        nix::unistd::close(target)
            .map_err(|errno| Trouble { step: Step::Write, errno: errno as i32 })?;
        Ok(Copied { bytes, lost })
    }

    /// Copies what is in the file, leaves holes where it has some, and returns its length.
    fn copy_bytes(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        stat: &Stat,
        mut hash: Option<&mut Xxh3>,
        so_far: &mut dyn FnMut(u64),
    ) -> Result<u64, Trouble> {
        let (read, write) = (Step::Read.refused(), Step::Write.refused());
        let size = stat.st_size as u64;
        let sparse = (stat.st_blocks as u64) * 512 < size;
        let mut bytes = 0;
        if hash.is_none() && !sparse && size > CHUNK as u64 {
            bytes = copy_in_kernel(source, target, so_far);
        }
        let mut reported = bytes;
        loop {
            // A file without holes is copied to its end, wherever that is by now.
            let data = if sparse {
                holes::next_data(source.as_fd(), bytes, size).map_err(&read)?
            } else {
                bytes..u64::MAX
            };
            if let Some(hash) = &mut hash {
                hash_zeros(hash, self.buffer, data.start - bytes);
            }
            bytes = data.start;
            while bytes < data.end {
                let wanted = (data.end - bytes).min(CHUNK as u64) as usize;
                let count =
                    read_chunk(source, &mut self.buffer[..wanted], bytes, size).map_err(&read)?;
                let chunk = &self.buffer[..count];
                if let Some(hash) = &mut hash {
                    hash.update(chunk);
                }
                // There may be more holes than the filesystem knows of.
                if !(sparse && chunk.iter().all(|byte| *byte == 0)) {
                    write_at(target, chunk, bytes).map_err(&write)?;
                }
                bytes += count as u64;
                if count < wanted {
                    break;
                }
                if bytes - reported >= REPORT {
                    so_far(bytes);
                    reported = bytes;
                }
            }
            if bytes < data.end || bytes == size {
                break;
            }
        }
        if sparse {
            rustix::fs::ftruncate(target, bytes).map_err(&write)?;
        }
        Ok(bytes)
    }

    /// Creates the temporary file: with its last permissions at once if it is ours, closed to all
    /// others if it is to be given away.
    fn create(&self, stat: &Stat) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let ours = (stat.st_uid, stat.st_gid) == self.owner;
        let mode = Mode::from_raw_mode(if ours { stat.st_mode & 0o777 } else { 0o600 });
        rustix::fs::openat(self.to, self.temporary, flags, mode)
    }

    /// Returns the hash of what the copy holds now.
    fn hash_of(&mut self, target: &OwnedFd, size: u64) -> Result<u64, Errno> {
        let (mut bytes, mut hash) = (0, Xxh3::new());
        loop {
            let count = read_chunk(target, self.buffer, bytes, size)?;
            hash.update(&self.buffer[..count]);
            bytes += count as u64;
            if count < CHUNK {
                return Ok(hash.digest());
            }
        }
    }
}

/// Goes on with a hash by the zeros that a hole reads as.
fn hash_zeros(hash: &mut Xxh3, buffer: &mut [u8], mut count: u64) {
    if count > 0 {
        buffer.fill(0);
    }
    while count > 0 {
        let next = count.min(buffer.len() as u64);
        hash.update(&buffer[..next as usize]);
        count -= next;
    }
}

/// Lets the kernel copy as much as it will, without a way through our memory; filesystems that can
/// share blocks do that. What is left, or all of it where the kernel refuses, is for the ordinary
/// loop.
fn copy_in_kernel(source: &OwnedFd, target: &OwnedFd, so_far: &mut dyn FnMut(u64)) -> u64 {
    let (mut from, mut to) = (0, 0);
    while let Ok(1..) =
        rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), REPORT as usize)
    {
        so_far(to);
    }
    to
}

/// Reads a whole chunk, or less only at the end of the file: at the size it is said to have or, as
/// with `/proc`, wherever there is no more.
fn read_chunk(from: &OwnedFd, buffer: &mut [u8], at: u64, size: u64) -> Result<usize, Errno> {
    let mut count = 0;
    while count < buffer.len() {
        match rustix::io::pread(from, &mut buffer[count..], at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if at + count as u64 == size {
            break;
        }
    }
    Ok(count)
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
fn copy_special(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    temporary: &CStr,
) -> Result<Copied, Trouble> {
    let (read, write) = (Step::Read.refused(), Step::Write.refused());
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&read)?;
    let is_link = kind == FileType::Symlink;
    if is_link {
        let goal = rustix::fs::readlinkat(from, name, Vec::new()).map_err(&read)?;
        rustix::fs::symlinkat(&goal, to, temporary).map_err(&write)?;
    } else {
        rustix::fs::mknodat(to, temporary, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev as _)
            .map_err(&write)?;
    }
    let extended = Extended::of(Bearer::Named(from, name)).map_err(&read)?;
    let given = attributes::give_by_name(to, temporary, &stat, &extended, is_link);
    Ok(Copied { bytes: 0, lost: given.map_err(Step::Attributes.refused())? })
}
