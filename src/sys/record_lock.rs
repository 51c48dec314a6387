//! Locks on bytes of a file that show whether a mapping still exists, and so whether its process is
//! alive.
//!
//! An *open file description* lock belongs to what `open` has made, and not to a descriptor or a
//! process. A mapping keeps alive the description by which it was made. So a process opens the file
//! once more, locks its own byte far beyond the end of the file, maps the file by that description
//! and closes the descriptor. From then on only the mapping keeps the lock. The kernel releases the
//! lock when the mapping is gone. That is when the process has ended, in whatever way, or has
//! become another program by `exec`; not when it is stopped, and not when it closes all its
//! descriptors. A forked child does not inherit the mapping, and so not the lock.
//!
//! A process with another descriptor of the file can ask whether a byte is locked. The question
//! takes no new descriptor, no `/proc` and no rights over the other process, and does not depend on
//! that process's number.
//!
//! # Source
//! fcntl(2), "Open file description locks". Byte locks that tell who is alive: LMDB's reader table
//! (`mdb_reader_pid`), by locks of the process.

use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};

use crate::sys::error::OsError;

/// Whether others may lock the same byte in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Any number of descriptions may lock it.
    Shared,
    /// No other description may lock it in any way.
    Exclusive,
}

fn record(byte: u64, share: Option<Share>) -> libc::flock {
    let kind = match share {
        Some(Share::Shared) => libc::F_RDLCK,
        Some(Share::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    // Both are small constants on every architecture, and the kernel refuses an offset that is too
    // large.
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(byte).unwrap_or(-1),
        l_len: 1,
        l_pid: 0,
    }
}

/// Locks a byte for the open file description, or changes its lock; false if another description's
/// lock is in the way. Never waits.
pub(crate) fn try_lock(file: impl AsFd, byte: u64, share: Share) -> Result<bool, OsError> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&record(byte, Some(share)))) {
        Ok(_) => Ok(true),
        // POSIX allows either.
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(refused) => Err(OsError::in_call("fcntl")(refused)),
    }
}

/// Gives the lock of this open file description up.
pub(crate) fn unlock(file: impl AsFd, byte: u64) -> Result<(), OsError> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&record(byte, None)))
        .map(drop)
        .map_err(OsError::in_call("fcntl"))
}

/// Whether another open file description than this one has locked the byte.
pub(crate) fn is_locked_by_another(file: impl AsFd, byte: u64) -> Result<bool, OsError> {
    let mut answer = record(byte, Some(Share::Exclusive));
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut answer)).map_err(OsError::in_call("fcntl"))?;
    // A sandbox may report success without making the call. Then nothing is changed, which reads as
    // "locked".
    Ok(answer.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::{self, OwnFile};
    use rustix::fs::OFlags;

    const BYTE: u64 = 1 << 62;

    #[test]
    fn a_lock_lasts_as_long_as_the_mapping_and_no_longer() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("writable");
        let own = OwnFile::new(file.try_clone().expect("dup")).expect("fstat");
        let private = descriptor::reopen(&own, OFlags::RDWR).expect("/proc is mounted");
        assert!(try_lock(&private, BYTE, Share::Exclusive).expect("fcntl"));
        let map = memmap2::MmapOptions::new().len(4096).map_raw(&private.as_fd()).expect("mmap");
        drop(private);
        assert!(is_locked_by_another(&file, BYTE).expect("fcntl"));
        assert!(!is_locked_by_another(&file, BYTE + 1).expect("fcntl"));
        drop(map);
        assert!(!is_locked_by_another(&file, BYTE).expect("fcntl"));
    }

    #[test]
    fn shared_locks_keep_only_exclusive_ones_out() {
        let file = tempfile::tempfile().expect("a file");
        let file = OwnFile::new(file).expect("fstat");
        let [a, b] =
            [(); 2].map(|()| descriptor::reopen(&file, OFlags::RDWR).expect("/proc is mounted"));
        assert!(try_lock(&a, BYTE, Share::Shared).expect("fcntl"));
        assert!(try_lock(&b, BYTE, Share::Shared).expect("fcntl"));
        assert!(!try_lock(&b, BYTE, Share::Exclusive).expect("fcntl"), "the other has it, too");
        unlock(&a, BYTE).expect("fcntl");
        assert!(try_lock(&b, BYTE, Share::Exclusive).expect("fcntl"), "changed in one step");
        assert!(!try_lock(&a, BYTE, Share::Shared).expect("fcntl"));
    }
}
