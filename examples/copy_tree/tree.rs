//! The list of entries to copy. The parent makes it once, and sends it to the workers piece by
//! piece.

use crate::extended::{Bearer, Extended};
use crate::folder::{self, Cursor};
use crate::message::{Item, Job};
use crate::stop::Stop;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A job ends after so many entries ..
const ENTRIES_PER_JOB: u32 = 256;
/// .. or so many bytes, whichever comes first.
const BYTES_PER_JOB: u64 = 8 << 20;

/// A folder of the tree. Folder 0 is the root, and its own parent.
pub(crate) struct Folder {
    pub(crate) parent: u32,
    pub(crate) name: CString,
    /// Taken before the folder was read, as reading changes its access time.
    pub(crate) stat: Stat,
    /// Taken when it was read, as it is open then.
    pub(crate) extended: Extended,
}

impl Folder {
    fn new(parent: u32, name: CString, stat: Stat) -> Folder {
        Folder { parent, name, stat, extended: Extended::default() }
    }
}

/// Anything that is not a folder.
pub(crate) struct Entry {
    pub(crate) folder: u32,
    pub(crate) name: CString,
    pub(crate) kind: FileType,
    /// In bytes, at the time of listing.
    pub(crate) size: u64,
}

/// A further name of a file that is among the entries already.
pub(crate) struct Link {
    pub(crate) folder: u32,
    pub(crate) name: CString,
    pub(crate) first: u32,
}

/// All of the source tree, parents before children.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) folders: Vec<Folder>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) links: Vec<Link>,
    /// Runs of entries; together they are all entries.
    pub(crate) jobs: Vec<Range<u32>>,
    /// Sum of the sizes of the entries.
    pub(crate) bytes: u64,
    /// Folders that could not be listed, and why.
    pub(crate) unreadable: Vec<(u32, Errno)>,
}

impl Tree {
    /// Lists the tree under `root`, or returns `None` if it was asked to stop.
    pub(crate) fn list(root: &OwnedFd, stop: &Stop) -> Result<Option<Tree>, Box<dyn Error>> {
        let mut tree = Tree::default();
        let mut firsts = HashMap::new();
        tree.folders.push(Folder::new(0, CString::default(), rustix::fs::fstat(root)?));
        let mut open = vec![0];
        let mut cursor = Cursor::new(root);
        while let Some(folder) = open.pop() {
            if stop.requested() {
                return Ok(None);
            }
            let known = tree.folders.len();
            if let Err(error) = tree.list_folder(&mut cursor, folder, &mut firsts) {
                tree.unreadable.push((folder, error));
            }
            open.extend((known..tree.folders.len()).rev().map(|new| new as u32));
        }
        tree.jobs = cut_into_jobs(&tree.entries);
        Ok(Some(tree))
    }

    fn list_folder(
        &mut self,
        cursor: &mut Cursor<'_>,
        folder: u32,
        firsts: &mut HashMap<(u64, u64), u32>,
    ) -> Result<(), Errno> {
        let here = cursor.go(&self.path_of_folder(folder))?;
        self.folders[folder as usize].extended = Extended::of(Bearer::Open(here))?;
        for found in Dir::read_from(here)? {
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let name = name.to_owned();
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                self.folders.push(Folder::new(folder, name, stat));
                continue;
            }
            if stat.st_nlink > 1 {
                let index = self.entries.len() as u32;
                let first = *firsts.entry((stat.st_dev as _, stat.st_ino as _)).or_insert(index);
                if first != index {
                    self.links.push(Link { folder, name, first });
                    continue;
                }
            }
            let size = if kind == FileType::RegularFile { stat.st_size as u64 } else { 0 };
            self.bytes += size;
            self.entries.push(Entry { folder, name, kind, size });
        }
        Ok(())
    }

    /// Returns a job, with everything that a worker must know of its entries.
    pub(crate) fn job(&self, number: u32) -> Job {
        let entries = self.jobs[number as usize].clone();
        let items = entries.map(|entry| {
            let Entry { folder, name, kind, .. } = &self.entries[entry as usize];
            let path = self.path_of(*folder, name).into_os_string();
            Item { entry, path, kind: kind.as_raw_mode() }
        });
        Job { number, items: items.collect() }
    }

    /// Returns a folder's path from the root of the tree.
    pub(crate) fn path_of_folder(&self, folder: u32) -> PathBuf {
        let mut path: Vec<u32> = folder::above(&self.folders, folder).collect();
        path.reverse();
        path.iter()
            .map(|above| OsStr::from_bytes(self.folders[*above as usize].name.to_bytes()))
            .collect()
    }

    /// Returns the path, from the root of the tree, of a name in a folder.
    pub(crate) fn path_of(&self, folder: u32, name: &CStr) -> PathBuf {
        self.path_of_folder(folder).join(OsStr::from_bytes(name.to_bytes()))
    }
}

/// Small files travel in runs, so that the channels cost nothing beside the copying; large files
/// travel alone, so that the workers end at about the same time.
fn cut_into_jobs(entries: &[Entry]) -> Vec<Range<u32>> {
    let mut jobs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, entry) in (0u32..).zip(entries) {
        if index - start == ENTRIES_PER_JOB || (index > start && bytes + entry.size > BYTES_PER_JOB)
        {
            jobs.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += entry.size;
    }
    if (start as usize) < entries.len() {
        jobs.push(start..entries.len() as u32);
    }
    jobs
}
