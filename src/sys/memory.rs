//! Descriptors of memory, mappings of it, and its pages.
#![expect(unsafe_code, reason = "mmap and madvise on addresses of our own")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice as Madvice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

/// Seals that a shared memfd must carry: nobody can change its size, nobody can take the seals off.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Makes an anonymous file of `size` bytes (sparse, close-on-exec, not executable where the kernel knows that), sealed.
pub(crate) fn sealed_memfd(name: &str, size: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::ftruncate(&fd, size)?;
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    Ok(File::from(fd))
}

/// The seals of a memfd; `None` for a file that cannot have any.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Option<SealFlags> {
    rustix::fs::fcntl_get_seals(fd).ok()
}

/// Makes sure that the bytes have pages behind them, so that touching them cannot fail later.
pub(crate) fn back(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Gives whole pages back to the system; they read as zero afterwards.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(&fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// The most that one mapping should ask for: limits of the address space and of file sizes, `u64::MAX` where there are none.
///
/// A quarter of the address space is left to one mapping, since a forked child keeps the old range closed and maps anew.
pub(crate) fn mapping_limit() -> u64 {
    let space = getrlimit(Resource::As).current.map_or(u64::MAX, |limit| limit / 4);
    let file = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    space.min(file)
}

/// Maps the whole of `file` shared, readable and writable, reserving nothing. Forked children do not get the mapping.
pub(crate) fn map_shared(file: &File, size: usize) -> io::Result<MmapRaw> {
    let map = MmapOptions::new().len(size).no_reserve_swap().map_raw(file)?;
    map.advise(Advice::DontFork)?;
    // A core dump should hold what this process did, not all that a tree of processes shares.
    map.advise(Advice::DontDump)?;
    Ok(map)
}

/// Ends a mapping.
///
/// # Safety
/// The range is one whole mapping of this process, and nothing points into it any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. The call can only fail for a bad range, which the promise rules out.
    let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) };
}

/// Closes an address range for good: whatever still points there faults instead of meeting something new.
///
/// # Safety
/// Nothing that this process still uses may be mapped in the range.
pub(crate) unsafe fn close_range(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: the caller promises that the range is unused; PROT_NONE memory without reservation holds nothing.
    let mapped = unsafe {
        rustix::mm::mmap_anonymous(
            base.as_ptr().cast(),
            len,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE,
        )
    };
    match mapped {
        Ok(address) if address == base.as_ptr().cast::<c_void>() => Ok(()),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) => Err(error.into()),
    }
}

/// One private page that reads as zero in every forked child (`MADV_WIPEONFORK`), whoever forked it and however.
///
pub(crate) fn wiped_page() -> io::Result<(NonNull<u8>, usize)> {
    let size = rustix::param::page_size();
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let page =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
    // SAFETY: the page is ours, private and anonymous, as the advice demands.
    unsafe { rustix::mm::madvise(page, size, Madvice::LinuxWipeOnFork) }?;
    let page = NonNull::new(page.cast()).ok_or_else(|| io::Error::from(Errno::NOMEM))?;
    Ok((page, size))
}

/// Which file a descriptor stands for: device and inode.
pub(crate) fn file_identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A second descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_memfd_keeps_its_size() {
        let file = sealed_memfd("test", 4096).expect("memfd");
        assert_eq!(seals(file.as_fd()).expect("seals") & SEALS, SEALS);
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8192).is_err());
        assert_eq!(file.metadata().expect("metadata").len(), 4096);
    }

    #[test]
    fn backing_and_punching_change_the_blocks_and_not_the_size() {
        use std::os::unix::fs::MetadataExt;
        let file = sealed_memfd("test", 1 << 20).expect("memfd");
        assert_eq!(file.metadata().expect("metadata").blocks(), 0);
        back(&file, 4096, 8192).expect("fallocate");
        assert_eq!(file.metadata().expect("metadata").blocks() * 512, 8192);
        punch(&file, 4096, 8192).expect("punch");
        assert_eq!(file.metadata().expect("metadata").blocks(), 0);
        assert_eq!(file.metadata().expect("metadata").len(), 1 << 20);
    }
}
