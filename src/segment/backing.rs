//! What holds the bytes: an anonymous memfd or a file. Made complete before anybody can see it; checked before it is mapped.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Zeroable;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::segment::error::SegmentError;
use crate::segment::header::{HEADER_SIZE, Header};
use crate::segment::layout::{LARGEST_BUDGET, Layout};
use crate::segment::region::{Mapping, Plan};
use crate::segment::registry;
use crate::sys::barrier::Fences;
use crate::sys::{barrier, memory, pidfd};

/// Makes an anonymous segment.
pub(crate) fn create_anonymous(len: u64) -> Result<Arc<Mapping>, SegmentError> {
    let layout = layout(len)?;
    let file = memory::sealed_memfd("offspring", layout.size()).map_err(|source| room(&layout, source))?;
    fill(file, layout).map(registry::add)
}

/// Makes a segment in a new file: nameless first, linked under its name when it is complete.
pub(crate) fn create_file(path: &Path, len: u64) -> Result<Arc<Mapping>, SegmentError> {
    let layout = layout(len)?;
    check_path(path)?;
    let draft = Draft::beside(path)?;
    draft.file.set_len(layout.size()).map_err(|source| room(&layout, source))?;
    let file = draft.file.try_clone().map_err(SegmentError::os("dup"))?;
    let mapping = fill(file, layout)?;
    draft.publish(path)?;
    Ok(registry::add(mapping))
}

/// Opens an anonymous segment.
pub(crate) fn open_descriptor(fd: BorrowedFd<'_>) -> Result<Arc<Mapping>, SegmentError> {
    let access = rustix::fs::fcntl_getfl(fd).map_err(SegmentError::os("fcntl"))? & OFlags::ACCMODE;
    if access != OFlags::RDWR {
        return Err(SegmentError::ReadOnly);
    }
    let file = File::from(memory::duplicate(fd).map_err(SegmentError::os("fcntl"))?);
    check_file(&file)?;
    if !memory::seals(file.as_fd()).is_some_and(|seals| seals.contains(memory::SEALS)) {
        return Err(SegmentError::Unsealed);
    }
    attach(file)
}

/// Opens a segment in a file.
pub(crate) fn open_file(path: &Path) -> Result<Arc<Mapping>, SegmentError> {
    check_path(path)?;
    let open = |write| OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match open(true) {
        Ok(file) => file,
        Err(source) if open(false).is_ok() && !path.is_dir() => {
            // It can be read and not written: say that, whatever the kernel calls the reason.
            drop(source);
            return Err(SegmentError::ReadOnly);
        }
        Err(source) => {
            return Err(SegmentError::Os { call: "open", source });
        }
    };
    let mode = check_file(&file)?;
    if mode & 0o022 != 0 {
        return Err(SegmentError::Exposed { mode: mode & 0o7777 });
    }
    attach(file)
}

fn layout(len: u64) -> Result<Layout, SegmentError> {
    let layout = Layout::for_budget(len).ok_or(SegmentError::Length { len, largest: LARGEST_BUDGET })?;
    if layout.size() > memory::mapping_limit() {
        // Asking would not only fail: beyond the limit of file sizes it sends a signal.
        return Err(room(&layout, Errno::FBIG.into()));
    }
    Ok(layout)
}

fn room(layout: &Layout, source: io::Error) -> SegmentError {
    SegmentError::NoRoom { size: layout.size(), source }
}

fn check_path(path: &Path) -> Result<(), SegmentError> {
    if path.as_os_str().as_bytes().contains(&0) { Err(SegmentError::PathWithNul) } else { Ok(()) }
}

/// Checks what the kernel knows about the file and gives its mode.
fn check_file(file: &File) -> Result<u32, SegmentError> {
    let metadata = file.metadata().map_err(SegmentError::os("fstat"))?;
    if !metadata.is_file() {
        return Err(SegmentError::NotAFile);
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(SegmentError::NotOurs { owner: metadata.uid(), user });
    }
    if metadata.len() < HEADER_SIZE {
        return Err(SegmentError::Truncated { found: metadata.len() });
    }
    Ok(metadata.mode())
}

/// Backs the part that is always used, writes the header, maps.
fn fill(file: File, layout: Layout) -> Result<Mapping, SegmentError> {
    memory::back(&file, 0, layout.fixed_part()).map_err(SegmentError::os("fallocate"))?;
    // Only a creator that can register chooses the asymmetric fence; whoever attaches later must be able to, too.
    let fences = if barrier::register().is_ok() { Fences::Asymmetric } else { Fences::Symmetric };
    let id = random_id()?;
    let pid_namespace = pidfd::pid_namespace();
    let header = Header::new(&layout, id, pid_namespace, fences);
    file.write_all_at(bytemuck::bytes_of(&header), 0).map_err(SegmentError::os("pwrite"))?;
    Mapping::new(Plan { file, layout, id, fences, pid_namespace })
}

/// Validates the header of an existing segment and maps it, unless this process has it mapped.
fn attach(file: File) -> Result<Arc<Mapping>, SegmentError> {
    let mut header = Header::zeroed();
    file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).map_err(SegmentError::os("pread"))?;
    let size = file.metadata().map_err(SegmentError::os("fstat"))?.len();
    let (layout, fences) = header.validate(size)?;
    let own = pidfd::pid_namespace();
    if header.pid_namespace != own {
        return Err(SegmentError::ForeignNamespace { segment: header.pid_namespace, own });
    }
    if fences == Fences::Asymmetric {
        barrier::register().map_err(SegmentError::os("membarrier"))?;
    }
    let identity = memory::file_identity(&file).map_err(SegmentError::os("fstat"))?;
    registry::find_or_add(identity, || {
        Mapping::new(Plan { file, layout, id: header.id, fences, pid_namespace: header.pid_namespace })
    })
}

fn random_id() -> Result<u64, SegmentError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(SegmentError::os("getrandom"))?;
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// A file without its final name.
struct Draft {
    file: File,
    /// The name it has until then, on file systems that know no nameless files.
    name: Option<PathBuf>,
}

impl Draft {
    fn beside(path: &Path) -> Result<Draft, SegmentError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(fd) => Ok(Draft { file: File::from(fd), name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
                name.push(format!(".draft-{}-{:016x}", std::process::id(), random_id()?));
                let name = folder.join(name);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let fd = rustix::fs::open(&name, flags, mode).map_err(SegmentError::os("open"))?;
                Ok(Draft { file: File::from(fd), name: Some(name) })
            }
            Err(error) => Err(SegmentError::Os { call: "open", source: error.into() }),
        }
    }

    /// Gives the file its name, which must be free.
    fn publish(&self, path: &Path) -> Result<(), SegmentError> {
        let linked = match &self.name {
            Some(name) => std::fs::hard_link(name, path),
            None => {
                use std::os::fd::AsRawFd;
                let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, nameless, CWD, path, rustix::fs::AtFlags::SYMLINK_FOLLOW).map_err(Into::into)
            }
        };
        linked.map_err(SegmentError::os("link"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = std::fs::remove_file(name);
        }
    }
}
