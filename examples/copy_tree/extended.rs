//! Extended attributes: the user's own, access control lists, capabilities, security labels.
//!
//! Not every filesystem supports all of them, and not every user may set them. That is no failure:
//! the copy goes without them. But they are counted, by the error that the system gave, and the
//! user is told.

use rustix::buffer::spare_capacity;
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, flistxattr_query, fremovexattr, fsetxattr, fstatvfs,
};
use rustix::fs::{lgetxattr, llistxattr, llistxattr_query, lremovexattr, lsetxattr};
use rustix::io::{Errno, Result};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// The kernel takes no more than that for one value, nor for all names of one file.
const LIMIT: usize = 64 << 10;

/// How many attributes were not kept, by the system's error number.
pub(crate) type Lost = BTreeMap<i32, u64>;

/// What has attributes.
#[derive(Clone, Copy)]
pub(crate) enum Bearer<'a> {
    /// A file or folder.
    Open(BorrowedFd<'a>),
    /// What cannot be opened: a link or special file of that name in a folder.
    Named(BorrowedFd<'a>, &'a CStr),
}

impl Bearer<'_> {
    /// Returns the names, each with a NUL behind it. Most files have none, so the first question is
    /// for their length.
    fn names(self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        match self {
            Bearer::Open(fd) => {
                if flistxattr_query(fd)? > 0 {
                    names.reserve_exact(LIMIT);
                    flistxattr(fd, spare_capacity(&mut names))?;
                }
            }
            Bearer::Named(folder, name) => {
                let path = path_to(folder, name);
                if llistxattr_query(&path)? > 0 {
                    names.reserve_exact(LIMIT);
                    llistxattr(&path, spare_capacity(&mut names))?;
                }
            }
        }
        Ok(names)
    }

    fn value(self, of: &CStr) -> Result<Vec<u8>> {
        let mut value = Vec::with_capacity(LIMIT);
        match self {
            Bearer::Open(fd) => fgetxattr(fd, of, spare_capacity(&mut value))?,
            Bearer::Named(folder, name) => {
                lgetxattr(path_to(folder, name), of, spare_capacity(&mut value))?
            }
        };
        value.shrink_to_fit();
        Ok(value)
    }

    fn set(self, attribute: &CStr, value: &[u8]) -> Result<()> {
        match self {
            Bearer::Open(fd) => fsetxattr(fd, attribute, value, XattrFlags::empty()),
            Bearer::Named(folder, name) => {
                lsetxattr(path_to(folder, name), attribute, value, XattrFlags::empty())
            }
        }
    }

    fn remove(self, attribute: &CStr) -> Result<()> {
        match self {
            Bearer::Open(fd) => fremovexattr(fd, attribute),
            Bearer::Named(folder, name) => lremovexattr(path_to(folder, name), attribute),
        }
    }

    /// Returns whether the filesystem has room. If it does and says that it has none, then it has
    /// none for this attribute: ext4 keeps those of a file in one block.
    fn has_room(self) -> bool {
        let (Bearer::Open(fd) | Bearer::Named(fd, _)) = self;
        // Some filesystems count no files at all.
        fstatvfs(fd)
            .is_ok_and(|state| state.f_bavail > 0 && (state.f_ffree > 0 || state.f_files == 0))
    }
}

/// Only newer kernels than ours have calls for the attributes of a name in a folder; older ones
/// reach it through `/proc`.
fn path_to(folder: BorrowedFd<'_>, name: &CStr) -> CString {
    let path =
        [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    CString::new(path).unwrap_or_default()
}

/// The attributes of one thing.
#[derive(Default)]
pub(crate) struct Extended {
    values: BTreeMap<CString, Vec<u8>>,
    /// Those that could not be read.
    lost: Lost,
}

impl Extended {
    /// Reads all that we may know.
    pub(crate) fn of(bearer: Bearer<'_>) -> Result<Extended> {
        let mut found = Extended::default();
        let names = match bearer.names() {
            Ok(names) => names,
            // A filesystem without attributes.
            Err(Errno::OPNOTSUPP) => Vec::new(),
            Err(error) => {
                lose(&mut found.lost, error)?;
                Vec::new()
            }
        };
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            match bearer.value(name) {
                Ok(value) => {
                    found.values.insert(name.to_owned(), value);
                }
                // Somebody has removed it since.
                Err(Errno::NODATA) => {}
                Err(error) => lose(&mut found.lost, error)?,
            }
        }
        Ok(found)
    }

    pub(crate) fn is_same_as(&self, other: &Extended) -> bool {
        self.values == other.values
    }

    /// Gives a copy these attributes in place of those it has now, and returns which of them it did
    /// not get.
    pub(crate) fn give(&self, to: Bearer<'_>, now: &Extended) -> Result<Lost> {
        let mut lost = self.lost.clone();
        // A folder bequeaths its access control list to what is made in it.
        for name in now
            .values
            .keys()
            .filter(|name| !self.values.contains_key(*name) && is_ours_to_remove(name))
        {
            match to.remove(name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => lose(&mut lost, error)?,
            }
        }
        // Backwards, so that `user.` comes before `system.`: an access control list may take the
        // right to write away.
        for (name, value) in self.values.iter().rev() {
            // A security label, for one, cannot be set by everybody, not even to what it is.
            if now.values.get(name) == Some(value) {
                continue;
            }
            match to.set(name, value) {
                Ok(()) => {}
                Err(Errno::NOSPC) if to.has_room() => count(&mut lost, Errno::NOSPC),
                Err(error) => lose(&mut lost, error)?,
            }
        }
        Ok(lost)
    }
}

/// Labels that the system itself puts on every new file stay.
fn is_ours_to_remove(name: &CStr) -> bool {
    [&b"user."[..], b"system.posix_acl_"].iter().any(|start| name.to_bytes().starts_with(start))
}

/// Counts an attribute as not kept if that lies in its nature, the filesystem's or the user's; any
/// other error is a failure.
fn lose(lost: &mut Lost, error: Errno) -> Result<()> {
    match error {
        Errno::OPNOTSUPP
        | Errno::PERM
        | Errno::ACCESS
        | Errno::INVAL
        | Errno::RANGE
        | Errno::TOOBIG => count(lost, error),
        _ => return Err(error),
    }
    Ok(())
}

fn count(lost: &mut Lost, error: Errno) {
    *lost.entry(error.raw_os_error()).or_default() += 1;
}

/// What the whole copy lacks, a line for each error.
#[derive(Default)]
pub(crate) struct Losses(BTreeMap<i32, Loss>);

struct Loss {
    attributes: u64,
    bearers: u64,
    first: PathBuf,
}

impl Losses {
    /// Adds what the copy of one thing lacks.
    pub(crate) fn add(&mut self, lost: &Lost, path: impl Fn() -> PathBuf) {
        for (&errno, &attributes) in lost {
            let loss = self.0.entry(errno).or_insert_with(|| Loss {
                attributes: 0,
                bearers: 0,
                first: path(),
            });
            loss.attributes += attributes;
            loss.bearers += 1;
        }
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (&errno, Loss { attributes, bearers, first }) in &self.0 {
            let error = std::io::Error::from_raw_os_error(errno);
            let what = format_args!("{attributes} extended attribute(s) of {bearers} thing(s)");
            writeln!(f, "copy_tree: {what} were not kept, the first at {first:?}: {error}")?;
        }
        Ok(())
    }
}
