//! The file behind a segment: an anonymous memfd or a file with a path. A new one is complete
//! before another process can see it; an existing one is checked before it is mapped.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Zeroable;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::segment::error::SegmentError;
use crate::segment::header::{HOME_OFFSET, Header};
use crate::segment::home::{self, Home};
use crate::segment::layout::{HEADER_SIZE, LARGEST_BUDGET, Layout};
use crate::segment::region::{Deed, Mapping, Plan};
use crate::segment::registry;
use crate::segment::residence::Residence;
use crate::sys::barrier::Fences;
use crate::sys::descriptor::{self, OwnFile, beyond_stdio};
use crate::sys::error::OsError;
use crate::sys::record_lock::{self, Share};
use crate::sys::{self, barrier, memory};

/// Creates an anonymous segment.
pub(crate) fn create_anonymous(
    len: u64,
    residence: Residence,
) -> Result<Arc<Mapping>, SegmentError> {
    let layout = layout(len)?;
    let file = memory::sealed_memfd("offspring", layout.first_len())
        .map_err(|refused| SegmentError::of_size(layout.first_len(), refused))?;
    // Without `/proc` on an older kernel only this process and its children can use the segment.
    let home = Home::of_memory().unwrap_or(Home::UNKNOWN);
    fill(file, layout, home, true, residence).map(registry::add)
}

/// Creates a segment in a new file, which has no name until it is complete.
pub(crate) fn create_file(
    path: &Path,
    len: u64,
    residence: Residence,
) -> Result<Arc<Mapping>, SegmentError> {
    let layout = layout(len)?;
    check_path(path)?;
    let home = Home::of_file()?;
    let draft = Draft::beside(path)?;
    let grown = draft.file.set_len(layout.first_len()).map_err(OsError::in_call("ftruncate"));
    grown.map_err(|refused| SegmentError::of_size(layout.first_len(), refused))?;
    // No other process has the file, so only a file system without locks refuses. There no process
    // can move the segment to another home either.
    let _ = record_lock::try_lock(&draft.file, home::HOME_BYTE, Share::Shared);
    let file = File::from(descriptor::duplicate(&draft.file)?);
    let is_local = is_local(&file);
    let mapping = fill(file, layout, home, is_local, residence)?;
    draft.publish(path)?;
    Ok(registry::add(mapping))
}

/// Opens an anonymous segment.
pub(crate) fn open_descriptor(fd: BorrowedFd<'_>) -> Result<Arc<Mapping>, SegmentError> {
    let access = rustix::fs::fcntl_getfl(fd).map_err(OsError::in_call("fcntl"))? & OFlags::ACCMODE;
    if access != OFlags::RDWR {
        return Err(SegmentError::ReadOnly);
    }
    let file = File::from(descriptor::duplicate(fd)?);
    check_file(&file)?;
    if !memory::seals(file.as_fd())?.contains(memory::SEALS) {
        return Err(SegmentError::Unsealed);
    }
    attach(file, |header, _| {
        let (own, there) = (Home::of_memory()?, Home::from_bits(header.home));
        if own == there { Ok(own) } else { Err(own.foreign(there)) }
    })
}

/// Opens a segment that the parent of this process has open, from a copy of its descriptor. It is
/// mapped at its first use.
pub(crate) fn open_by_deed(fd: OwnedFd, deed: &Deed) -> Result<Arc<Mapping>, SegmentError> {
    let layout = Layout::for_budget(deed.len)
        .ok_or(SegmentError::Length { len: deed.len, largest: LARGEST_BUDGET })?;
    let file = OwnFile::new(fd)?;
    registry::find_or_add(file.id(), || {
        let fences = if deed.is_asymmetric { Fences::Asymmetric } else { Fences::Symmetric };
        let home = Home::from_bits(deed.home);
        let (is_local, is_read_only) = (deed.is_local, deed.is_read_only);
        let residence = Residence::from_bits(deed.residence).unwrap_or_default();
        let id = deed.id;
        let plan = Plan { file, layout, id, fences, home, is_local, is_read_only, residence };
        Ok(Mapping::unmapped(plan)?)
    })
}

/// Opens a segment in a file.
pub(crate) fn open_file(path: &Path) -> Result<Arc<Mapping>, SegmentError> {
    check_path(path)?;
    let open = |access| descriptor::open(path, access);
    let file = match open(OFlags::RDWR) {
        Ok(file) => File::from(file),
        Err(_) if open(OFlags::RDONLY).is_ok() && !path.is_dir() => {
            // The file can be read but not written; say that, whatever reason the kernel gives.
            return Err(SegmentError::ReadOnly);
        }
        Err(refused) => return Err(OsError { call: "open", errno: refused }.into()),
    };
    let mode = check_file(&file)?;
    if mode & 0o022 != 0 {
        return Err(SegmentError::Exposed { mode: mode & 0o7777 });
    }
    attach(file, |_, file| {
        let own = Home::of_file()?;
        let read = || {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, HOME_OFFSET).map_err(OsError::in_call("pread"))?;
            Ok(Home::from_bits(u64::from_ne_bytes(bytes)))
        };
        let write = |home: Home| {
            if memory::file_limit() < HEADER_SIZE {
                // The write would not only fail but also raise a signal.
                return Err(OsError { call: "getrlimit", errno: Errno::FBIG }.into());
            }
            let bytes = home.to_bits().to_ne_bytes();
            Ok(file.write_all_at(&bytes, HOME_OFFSET).map_err(OsError::in_call("pwrite"))?)
        };
        home::join_or_take_over(file, own, read, write)?;
        Ok(own)
    })
}

fn layout(len: u64) -> Result<Layout, SegmentError> {
    let layout =
        Layout::for_budget(len).ok_or(SegmentError::Length { len, largest: LARGEST_BUDGET })?;
    let refuse =
        |size, errno| Err(SegmentError::of_size(size, OsError { call: "getrlimit", errno }));
    if layout.area() > memory::mapping_limit() {
        return refuse(layout.area(), Errno::NOMEM);
    }
    if layout.filled_len() > memory::file_limit() {
        // The call would not only fail but also raise a signal.
        return refuse(layout.filled_len(), Errno::FBIG);
    }
    Ok(layout)
}

fn check_path(path: &Path) -> Result<(), SegmentError> {
    if path.as_os_str().as_bytes().contains(&0) { Err(SegmentError::PathWithNul) } else { Ok(()) }
}

/// Checks what the kernel knows about the file, and returns its mode.
fn check_file(file: &File) -> Result<u32, SegmentError> {
    let metadata = file.metadata().map_err(OsError::in_call("fstat"))?;
    if !metadata.is_file() {
        return Err(SegmentError::NotAFile);
    }
    let user = sys::process::user()?;
    if metadata.uid() != user {
        return Err(SegmentError::NotOurs { owner: metadata.uid(), user });
    }
    if metadata.len() < HEADER_SIZE {
        return Err(SegmentError::Truncated { found: metadata.len() });
    }
    Ok(metadata.mode())
}

/// Allocates the part that is always used, writes the header and maps the file.
fn fill(
    file: File,
    layout: Layout,
    home: Home,
    is_local: bool,
    residence: Residence,
) -> Result<Mapping, SegmentError> {
    if residence.is_prefaulted {
        // Groups lie one behind the other, so the first of them find their memory here.
        let len = layout.filled_len();
        if memory::available().is_some_and(|available| available < len) {
            // The kernel would kill processes.
            return Err(OsError { call: "fallocate", errno: Errno::NOMEM }.into());
        }
        memory::lengthen(&file, len)?;
        memory::back(&file, 0, len)?;
    }
    memory::back(&file, 0, layout.fixed_part())?;
    // A creator chooses the asymmetric fence only if it can register. A process that attaches later
    // and cannot register uses full fences itself.
    let fences = if barrier::register().is_ok() { Fences::Asymmetric } else { Fences::Symmetric };
    let id = random_id()?;
    let header = Header::new(&layout, id, home, fences, residence);
    file.write_all_at(bytemuck::bytes_of(&header), 0).map_err(OsError::in_call("pwrite"))?;
    Mapping::new(Plan {
        file: OwnFile::new(file)?,
        layout,
        id,
        fences,
        home,
        is_local,
        is_read_only: false,
        residence,
    })
}

/// Validates the header of an existing segment and maps it, unless this process has it mapped.
/// `find_home` returns the home of this process, or an error if the segment has another one.
fn attach(
    file: File,
    find_home: impl FnOnce(&Header, &File) -> Result<Home, SegmentError>,
) -> Result<Arc<Mapping>, SegmentError> {
    let mut header = Header::zeroed();
    file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0)
        .map_err(OsError::in_call("pread"))?;
    let size = file.metadata().map_err(OsError::in_call("fstat"))?.len();
    let (layout, fences, residence) = header.validate(size)?;
    let home = find_home(&header, &file)?;
    let is_local = is_local(&file);
    let file = OwnFile::new(file)?;
    registry::find_or_add(file.id(), || {
        let mapping = Mapping::new(Plan {
            file,
            layout,
            id: header.id,
            fences,
            home,
            is_local,
            is_read_only: false,
            residence,
        })?;
        // The log before the file, which may grow meanwhile.
        let least = mapping.least_len().ok_or(SegmentError::Corrupt { field: "log" })?;
        let found = rustix::fs::fstat(mapping.fd()?).map_err(OsError::in_call("fstat"))?.st_size;
        let found = u64::try_from(found).unwrap_or(0);
        if found < least {
            return Err(SegmentError::WrongSize { header: least, file: found });
        }
        Ok(mapping)
    })
}

/// Whether the file lies in memory or on a local disk, under a file system that leaves locks to the
/// kernel. A file system that talks to a server may lose locks while their owner is alive.
fn is_local(file: &File) -> bool {
    const LOCAL: [u32; 8] = [
        0x0102_1994, // tmpfs, and memory files
        0x8584_58f6, // ramfs
        0x0000_ef53, // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0xf2f5_2010, // f2fs
        0x2fc1_2fc1, // zfs
        0xca45_1a4e, // bcachefs
    ];
    rustix::fs::fstatfs(file).is_ok_and(|statfs| LOCAL.contains(&(statfs.f_type as u32)))
}

fn random_id() -> Result<u64, SegmentError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(OsError::in_call("getrandom"))?;
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// A file without its final name.
struct Draft {
    file: File,
    /// Its temporary name, where files without a name are not supported or cannot be given one
    /// later.
    name: Option<PathBuf>,
}

impl AsRawFd for Draft {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Draft {
    fn beside(path: &Path) -> Result<Draft, SegmentError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        beyond_stdio(|| {
            Draft::nameless(folder).or_else(|refused| match refused.errno {
                Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT => {
                    Draft::named(folder, path)
                }
                _ => Err(refused.into()),
            })
        })
    }

    /// Creates a file without a name, if it can be given one later: that takes `/proc`.
    fn nameless(folder: &Path) -> Result<Draft, OsError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(folder, flags, MODE).map_err(OsError::in_call("open"))?;
        let draft = Draft { file: File::from(fd), name: None };
        rustix::fs::statat(CWD, draft.path(), AtFlags::empty())
            .map_err(OsError::in_call("stat"))?;
        Ok(draft)
    }

    fn named(folder: &Path, path: &Path) -> Result<Draft, SegmentError> {
        let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".draft-{}-{:016x}", std::process::id(), random_id()?));
        let name = folder.join(name);
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&name, flags, MODE).map_err(OsError::in_call("open"))?;
        Ok(Draft { file: File::from(fd), name: Some(name) })
    }

    /// The path under which the kernel shows the file without a name.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// Gives the file its name, which must be free.
    fn publish(&self, path: &Path) -> Result<(), SegmentError> {
        let linked = match &self.name {
            Some(name) => rustix::fs::link(name, path),
            None => rustix::fs::linkat(CWD, self.path(), CWD, path, AtFlags::SYMLINK_FOLLOW),
        };
        Ok(linked.map_err(OsError::in_call("link"))?)
    }
}

/// Mode of new files: only this user may read and write them.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most file systems have files without a name, so no other test sees the ones with a name.
    #[test]
    fn a_draft_gets_its_name_at_the_end_and_leaves_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let mut drafts = vec![(1, Draft::named(folder.path(), &path).expect("a draft"))];
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        if rustix::fs::open(folder.path(), flags, MODE).is_ok() {
            drafts.push((0, Draft::nameless(folder.path()).expect("as this file system has them")));
            drafts.push((0, Draft::beside(&path).expect("a draft")));
        }
        for (own_names, draft) in drafts.into_iter().rev() {
            assert_eq!(draft.name.is_some(), own_names == 1);
            let flags = rustix::io::fcntl_getfd(&draft.file).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            let mode = draft.file.metadata().expect("open").mode();
            assert_eq!(mode & 0o777, 0o600);
            draft.file.write_all_at(b"content", 0).expect("writable");
            draft.publish(&path).expect("the name is free");
            assert!(draft.publish(&path).is_err(), "the name is taken");
            drop(draft);
            assert_eq!(std::fs::read(&path).expect("published"), b"content");
            std::fs::remove_file(&path).expect("there");
        }
        assert_eq!(names(), 0);
        drop(Draft::named(folder.path(), &path).expect("a draft"));
        assert_eq!(names(), 0, "nobody published it");
    }
}
