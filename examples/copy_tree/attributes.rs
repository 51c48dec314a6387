//! Owner, permissions, times and extended attributes, as `cp -a` keeps them.

use crate::extended::{Bearer, Extended, Lost};
use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::{Errno, Result};
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// The bits that let a program run as its owner or group.
const SET_ID: Mode = Mode::SUID.union(Mode::SGID);

/// Gives an open file or folder the owner, permissions and times of `from`, and extended
/// attributes, and returns which of these it did not get. A system call that would change nothing
/// is not made: on ext4 each costs as much as writing a small file.
pub(crate) fn give(to: BorrowedFd<'_>, from: &Stat, extended: &Extended) -> Result<Lost> {
    let now = rustix::fs::fstat(to)?;
    let mut mode = Mode::from_raw_mode(from.st_mode);
    let mut same = Mode::from_raw_mode(now.st_mode) == mode;
    if (now.st_uid, now.st_gid) != (from.st_uid, from.st_gid) {
        // A change of owner clears the set-id bits.
        same = false;
        if !give_owner(from, |owner, group| rustix::fs::fchown(to, owner, group))? {
            mode -= SET_ID;
        }
    }
    let bearer = Bearer::Open(to);
    let now_extended = Extended::of(bearer)?;
    if !extended.is_same_as(&now_extended) {
        // Who may not write may not give attributes either, though he holds the file open; and an
        // access control list changes the permissions.
        let permissions = Mode::from_raw_mode(now.st_mode);
        if !permissions.contains(Mode::WUSR) {
            rustix::fs::fchmod(to, (permissions - SET_ID) | Mode::WUSR)?;
        }
        same = false;
    }
    // After the owner, a change of which takes the capabilities away.
    let lost = extended.give(bearer, &now_extended)?;
    if !same {
        rustix::fs::fchmod(to, mode)?;
    }
    rustix::fs::futimens(to, &times(from))?;
    Ok(lost)
}

/// The same for what cannot be opened: links and special files.
pub(crate) fn give_by_name(
    folder: BorrowedFd<'_>,
    name: &CStr,
    from: &Stat,
    extended: &Extended,
    is_link: bool,
) -> Result<Lost> {
    let mut mode = Mode::from_raw_mode(from.st_mode);
    if !give_owner(from, |owner, group| {
        rustix::fs::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
    })? {
        mode -= SET_ID;
    }
    let bearer = Bearer::Named(folder, name);
    let lost = extended.give(bearer, &Extended::of(bearer)?)?;
    if !is_link {
        rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(folder, name, &times(from), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(lost)
}

/// Changes owner and group, or the group alone if only that is permitted, or nothing. Returns
/// whether both are right.
fn give_owner(
    from: &Stat,
    change: impl Fn(Option<Uid>, Option<Gid>) -> Result<()>,
) -> Result<bool> {
    let (owner, group) = (Uid::from_raw(from.st_uid), Gid::from_raw(from.st_gid));
    match change(Some(owner), Some(group)) {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => match change(None, Some(group)) {
            Ok(()) | Err(Errno::PERM) => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn times(from: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: from.st_atime as _, tv_nsec: from.st_atime_nsec as _ },
        last_modification: Timespec {
            tv_sec: from.st_mtime as _,
            tv_nsec: from.st_mtime_nsec as _,
        },
    }
}
