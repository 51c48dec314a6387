//! From a folder's place in the list to an open descriptor, one name at a time.
//!
//! No path is ever joined from its parts, so its length has no limit. No symbolic link is ever
//! followed, so nobody can lead the copy out of its two trees.

use crate::tree::Folder;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the root of a tree; here, and only here, a symbolic link is followed, as the user gave it.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, FOLDER, Mode::empty())
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
    /// Each entry is the parent of the next.
    path: Vec<(u32, OwnedFd)>,
}

impl<'tree> Cursor<'tree> {
    pub(crate) fn new(root: &'tree OwnedFd) -> Cursor<'tree> {
        Cursor { root, path: Vec::new() }
    }

    /// Goes to a folder and returns its descriptor.
    pub(crate) fn go(&mut self, folders: &[Folder], folder: u32) -> Result<BorrowedFd<'_>> {
        if self.path.last().is_none_or(|(at, _)| *at != folder) {
            let mut wanted: Vec<u32> = above(folders, folder).collect();
            while self.path.pop_if(|(at, _)| !wanted.contains(at)).is_some() {}
            if let Some((last, _)) = self.path.last() {
                wanted.truncate(
                    wanted.iter().position(|above| above == last).unwrap_or(wanted.len()),
                );
            }
            for next in wanted.into_iter().rev() {
                let here = self.path.last().map_or(self.root, |(_, fd)| fd);
                let fd = openat(
                    here,
                    &folders[next as usize].name,
                    FOLDER | OFlags::NOFOLLOW,
                    Mode::empty(),
                )?;
                if self.path.len() == OPEN {
                    self.path.remove(0);
                }
                self.path.push((next, fd));
            }
        }
        Ok(self.path.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }
}
