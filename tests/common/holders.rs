//! Who still has a file that is in no folder: a segment in memory. It is gone when nobody has it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What the files of anonymous segments are called in `/proc`.
const SEGMENT: &str = "/memfd:offspring (deleted)";

/// Inodes of the anonymous segments that a process has open or mapped. None for one that has ended.
pub fn segments_of(process: u32) -> BTreeSet<u64> {
    unless_it_ended(read_segments(process)).unwrap_or_default()
}

/// The processes that have the file with this inode open or mapped, of those that this one may look
/// into. What it has started is among them.
pub fn holders_of(inode: u64) -> Vec<u32> {
    let has_it = |process: &u32| match read_segments(*process) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
        segments => unless_it_ended(segments).is_some_and(|segments| segments.contains(&inode)),
    };
    let entries = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .map(|entry| entry.expect("an entry").file_name());
    entries.filter_map(|name| name.to_string_lossy().parse().ok()).filter(has_it).collect()
}

fn read_segments(process: u32) -> io::Result<BTreeSet<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    // Address, rights, offset, device, inode, path.
    let mapped = maps.lines().filter(|line| line.contains(SEGMENT)).map(|line| {
        let inode = line.split_ascii_whitespace().nth(4).expect("the inode");
        inode.parse().expect("a number")
    });
    let mut found: BTreeSet<u64> = mapped.collect();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        let link = unless_it_ended(std::fs::read_link(&path));
        if link.is_some_and(|target| target.to_string_lossy() == SEGMENT) {
            found.extend(unless_it_ended(std::fs::metadata(&path)).map(|data| data.ino()));
        }
    }
    Ok(found)
}

/// What was read, or nothing if the process has ended or closed it meanwhile. Any other error is
/// one of the test's.
fn unless_it_ended<T>(read: io::Result<T>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => None,
        Err(error) => panic!("/proc cannot be read: {error}"),
    }
}
