//! The target tree before and after the workers: its folders, its hard links, its temporary names.

use crate::attributes;
use crate::extended::Lost;
use crate::folder::{self, Cursor};
use crate::message::{Step, Trouble};
use crate::tree::{Link, Tree};
use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

/// How the name of every temporary file begins; then come the parent's pid, the worker's pid and
/// the time of the run.
const TEMPORARY: &str = ".copy_tree";

/// While the copy is being made its folders are open to nobody else.
const PRIVATE: Mode = Mode::RWXU;

/// The root of the copy.
pub(crate) struct Target {
    root: OwnedFd,
    run: Run,
}

/// What the temporary names of a run contain.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Pid of the parent.
    parent: u32,
    /// Nanoseconds since 1970: keeps a temporary name of ours apart from one that lies in the
    /// source.
    time: u128,
}

impl Target {
    /// Makes the root folder, if it is not there yet.
    pub(crate) fn create(path: &Path) -> Result<Target, Errno> {
        match rustix::fs::mkdir(path, PRIVATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let root = folder::open_root(path)?;
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let target = Target::of_run(root, Run { parent: std::process::id(), time });
        clear_leftovers(target.root.as_fd())?;
        Ok(target)
    }

    /// The root of a copy that is being made.
    pub(crate) fn of_run(root: OwnedFd, run: Run) -> Target {
        Target { root, run }
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Returns the name that process `pid` of this run gives to a file until it is whole.
    pub(crate) fn temporary_name(&self, pid: u32) -> CString {
        let Run { parent, time } = self.run;
        CString::new(format!("{TEMPORARY}.{parent}.{pid}.{time:x}")).unwrap_or_default()
    }

    /// Makes a run of the tree's folders, parents before children, and returns those that it could
    /// not. It goes no further when the disk is full.
    pub(crate) fn make_folders(&self, tree: &Tree, folders: Range<u32>) -> Vec<(u32, Trouble)> {
        let mut troubles = Vec::new();
        let mut cursor = Cursor::new(&self.root);
        // The root is there already.
        for index in folders.start.max(1)..folders.end {
            let folder = &tree.folders[index as usize];
            let parent = cursor.go(&tree.path_of_folder(folder.parent));
            let made = match parent
                .and_then(|parent| rustix::fs::mkdirat(parent, &folder.name, PRIVATE))
            {
                Err(Errno::EXIST) => {
                    cursor.go(&tree.path_of_folder(index)).and_then(clear_leftovers)
                }
                other => other,
            };
            if let Err(trouble) = made.map_err(Step::Folder.refused()) {
                troubles.push((index, trouble));
                if trouble.is_full() {
                    break;
                }
            }
        }
        troubles
    }

    /// Removes what a dead worker left behind, given the entries it may have been at.
    pub(crate) fn clear_up_after(&self, pid: u32, tree: &Tree, entries: Range<u32>) {
        let name = self.temporary_name(pid);
        let mut cursor = Cursor::new(&self.root);
        let mut folders: Vec<u32> =
            entries.map(|entry| tree.entries[entry as usize].folder).collect();
        folders.dedup();
        for folder in folders {
            if let Ok(folder) = cursor.go(&tree.path_of_folder(folder)) {
                // It fails in all folders but, at most, one.
                let _ = rustix::fs::unlinkat(folder, &name, AtFlags::empty());
            }
        }
    }

    /// Makes the further names of files that have several, and returns those that it could not. It
    /// goes no further when the disk is full.
    pub(crate) fn make_links<'a>(
        &self,
        tree: &'a Tree,
        failed: &BTreeMap<u32, Trouble>,
    ) -> Vec<(&'a Link, Trouble)> {
        let mut troubles = Vec::new();
        let (mut old, mut new) = (Cursor::new(&self.root), Cursor::new(&self.root));
        let temporary = self.temporary_name(self.run.parent);
        for link in &tree.links {
            if failed.contains_key(&link.first) {
                troubles.push((link, Trouble { step: Step::FirstLink, errno: 0 }));
                continue;
            }
            let first = &tree.entries[link.first as usize];
            let linked = old.go(&tree.path_of_folder(first.folder)).and_then(|old| {
                let new = new.go(&tree.path_of_folder(link.folder))?;
                rustix::fs::linkat(old, &first.name, new, &temporary, AtFlags::empty())?;
                let renamed = rustix::fs::renameat(new, &temporary, new, &link.name);
                // A rename onto another name of the same file does nothing and leaves both.
                let _ = rustix::fs::unlinkat(new, &temporary, AtFlags::empty());
                renamed
            });
            if let Err(trouble) = linked.map_err(Step::Rename.refused()) {
                troubles.push((link, trouble));
                if trouble.is_full() {
                    break;
                }
            }
        }
        troubles
    }

    /// Gives the folders their owners, permissions, times and extended attributes, children before
    /// parents, and returns those that did not get them, and what was lost of the attributes.
    pub(crate) fn finish_folders(&self, tree: &Tree) -> (Vec<(u32, Trouble)>, BTreeMap<u32, Lost>) {
        let (mut troubles, mut losses) = (Vec::new(), BTreeMap::new());
        let mut cursor = Cursor::new(&self.root);
        for index in (0..tree.folders.len() as u32).rev() {
            let folder = &tree.folders[index as usize];
            let finished = cursor
                .go(&tree.path_of_folder(index))
                .and_then(|fd| attributes::give(fd, &folder.stat, &folder.extended));
            match finished.map_err(Step::Attributes.refused()) {
                Ok(lost) => _ = losses.insert(index, lost),
                Err(trouble) => troubles.push((index, trouble)),
            }
        }
        (troubles, losses)
    }
}

/// Removes the temporary files of runs that were killed before they could do so.
fn clear_leftovers(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    for found in Dir::read_from(folder)? {
        let found = found?;
        if is_leftover(found.file_name()) {
            rustix::fs::unlinkat(folder, found.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

/// A temporary name is a leftover when the parent that it names is no more.
fn is_leftover(name: &CStr) -> bool {
    let Some(rest) =
        name.to_str().ok().and_then(|name| name.strip_prefix(TEMPORARY)?.strip_prefix('.'))
    else {
        return false;
    };
    let parts: Vec<&str> = rest.split('.').collect();
    let [parent, worker, time] = parts[..] else {
        return false;
    };
    if worker.parse::<u32>().is_err() || u128::from_str_radix(time, 16).is_err() {
        return false;
    }
    let parent = parent.parse().ok().and_then(Pid::from_raw);
    parent.is_some_and(|parent| rustix::process::test_kill_process(parent) == Err(Errno::SRCH))
}
