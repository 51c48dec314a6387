//! From a folder's path to an open descriptor, one name at a time.
//!
//! The system never gets a whole path, so its length has no limit. No symbolic link is ever
//! followed, so nobody can lead the copy out of its two trees.

use crate::tree::Folder;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the root of a tree; here, and only here, a symbolic link is followed, as the user gave it.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, FOLDER, Mode::empty())
}

/// The root of a tree, as a worker gets it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Not a `PathBuf`, as serde refuses those that are no UTF-8.
    path: OsString,
    /// Device and number of the folder that the parent has open.
    id: (u64, u64),
}

impl Root {
    pub(crate) fn new(path: PathBuf, open: &OwnedFd) -> Result<Root> {
        Ok(Root { path: path.into_os_string(), id: id_of(open)? })
    }

    /// Opens it, unless another folder has taken its place.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let open = open_root(Path::new(&self.path))?;
        if id_of(&open)? == self.id { Ok(open) } else { Err(Errno::STALE) }
    }
}

fn id_of(folder: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev as _, stat.st_ino as _))
}

/// Returns a folder and all those above it, without the root.
pub(crate) fn above(folders: &[Folder], folder: u32) -> impl Iterator<Item = u32> {
    let parent = |below: &u32| Some(folders[*below as usize].parent);
    std::iter::successors(Some(folder), parent).take_while(|above| *above != 0)
}

/// How many folders a cursor keeps open at the most, whatever the depth of the tree.
const OPEN: usize = 64;

/// Opens the folders of one tree, and keeps the last one and those above it open, as the next is
/// seldom far away.
pub(crate) struct Cursor<'tree> {
    root: &'tree OwnedFd,
    /// Where it went last.
    at: PathBuf,
    /// Folders on this way that are open, each with the number of names that lead to it. Each is
    /// the parent of the next.
    open: Vec<(usize, OwnedFd)>,
}

impl<'tree> Cursor<'tree> {
    pub(crate) fn new(root: &'tree OwnedFd) -> Cursor<'tree> {
        Cursor { root, at: PathBuf::new(), open: Vec::new() }
    }

    /// Goes to a folder, given its path from the root of the tree, and returns its descriptor.
    pub(crate) fn go(&mut self, path: &Path) -> Result<BorrowedFd<'_>> {
        if self.at != path {
            let both = self.at.components().zip(path.components());
            let common = both.take_while(|(one, other)| one == other).count();
            while self.open.pop_if(|(depth, _)| *depth > common).is_some() {}
            self.at = path.to_owned();
        }
        let open = self.open.last().map_or(0, |(depth, _)| *depth);
        for (above, name) in path.iter().enumerate().skip(open) {
            let here = self.open.last().map_or(self.root, |(_, fd)| fd);
            let fd = openat(here, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            if self.open.len() == OPEN {
                self.open.remove(0);
            }
            self.open.push((above + 1, fd));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }
}
