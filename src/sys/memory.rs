//! Memory files, mappings of them, and their pages.
#![expect(unsafe_code, reason = "mmap and madvise on addresses of our own")]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, SealFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice as Madvice, MapFlags, MlockFlags, ProtFlags};

use crate::primitive::AtomicU64;
use crate::sys::descriptor::{self, beyond_stdio};
use crate::sys::error::OsError;

/// Seals that a shared memfd must carry: nobody can make it shorter, nobody can change the seals.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::SEAL);

/// An unnamed file in memory, close-on-exec, not executable where the kernel knows that.
pub(crate) fn memory_file(name: &str, flags: MemfdFlags) -> Result<OwnedFd, OsError> {
    let flags = flags | MemfdFlags::CLOEXEC;
    let make = || match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // The flag is unknown before Linux 6.3, and later kernels may require it.
        Err(Errno::INVAL) => memfd_create(name, flags),
        other => other,
    };
    beyond_stdio(make).map_err(OsError::in_call("memfd_create"))
}

/// Makes a memory file of `size` bytes, sparse and sealed, for this user alone. It can grow.
pub(crate) fn sealed_memfd(name: &str, size: u64) -> Result<File, OsError> {
    let fd = memory_file(name, MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(OsError::in_call("fchmod"))?;
    rustix::fs::ftruncate(&fd, size).map_err(OsError::in_call("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(OsError::in_call("fcntl"))?;
    Ok(File::from(fd))
}

/// The seals of a memfd; none for a file that cannot have any.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Result<SealFlags, OsError> {
    match rustix::fs::fcntl_get_seals(fd) {
        Err(Errno::INVAL) => Ok(SealFlags::empty()),
        seals => seals.map_err(OsError::in_call("fcntl")),
    }
}

/// Makes sure that the bytes have pages behind them, so that touching them cannot fail later.
pub(crate) fn back(fd: impl AsFd, offset: u64, len: u64) -> Result<(), OsError> {
    allocate(fd, FallocateFlags::KEEP_SIZE, offset, len)
}

/// Makes the file at least `len` bytes long. It never gets shorter, whoever else does the same.
pub(crate) fn lengthen(fd: impl AsFd, len: u64) -> Result<(), OsError> {
    if len > file_limit() {
        // The call would not only fail but also raise a signal.
        return Err(OsError { call: "getrlimit", errno: Errno::FBIG });
    }
    // Only this call does so without a look at the length before, so the last byte gets a page.
    allocate(fd, FallocateFlags::empty(), len - 1, 1)
}

/// Gives whole pages back to the system; they read as zero afterwards.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> Result<(), OsError> {
    allocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
}

fn allocate(fd: impl AsFd, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), OsError> {
    if len == 0 {
        return Ok(());
    }
    // A signal interrupts the call before it has done anything, or after it has done everything.
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(&fd, mode, offset, len))
        .map_err(OsError::in_call("fallocate"))
}

/// The most bytes that one mapping should ask for, by the limit of the address space; `u64::MAX`
/// where there is none.
///
/// One mapping may take a quarter of the address space, as a forked child keeps the old range
/// closed and maps the file again.
pub(crate) fn mapping_limit() -> u64 {
    limit(Resource::RLIMIT_AS) / 4
}

/// The most bytes that a file may have to which this process writes.
pub(crate) fn file_limit() -> u64 {
    limit(Resource::RLIMIT_FSIZE)
}

/// `u64::MAX` where there is no limit, or where the kernel does not say: then the next call reports
/// it.
fn limit(resource: Resource) -> u64 {
    match getrlimit(resource) {
        Ok((current, _)) if current != RLIM_INFINITY => current,
        _ => u64::MAX,
    }
}

/// Bytes of memory that the machine can give to processes; `None` where it does not say.
pub(crate) fn available() -> Option<u64> {
    let mut buffer = [0; 512];
    let text = descriptor::read_proc("/proc/meminfo", ["open", "read"], &mut buffer).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Maps `size` bytes of `file` shared, readable and writable, reserving nothing, also where the
/// file is shorter. Forked children do not get the mapping.
pub(crate) fn map_shared(
    file: BorrowedFd<'_>,
    offset: u64,
    size: usize,
) -> Result<MmapRaw, OsError> {
    let map = MmapOptions::new()
        .offset(offset)
        .len(size)
        .no_reserve_swap()
        .map_raw(&file)
        .map_err(OsError::in_call("mmap"))?;
    keep_to_this_process(map)
}

/// As [`map_shared`], but only readable.
pub(crate) fn map_to_read(
    file: BorrowedFd<'_>,
    offset: u64,
    size: usize,
) -> Result<MmapRaw, OsError> {
    let map = MmapOptions::new()
        .offset(offset)
        .len(size)
        .map_raw_read_only(&file)
        .map_err(OsError::in_call("mmap"))?;
    keep_to_this_process(map)
}

fn keep_to_this_process(map: MmapRaw) -> Result<MmapRaw, OsError> {
    map.advise(Advice::DontFork).map_err(OsError::in_call("madvise"))?;
    // A core dump should contain what this process did, and not everything that a tree of processes
    // shares. If the call fails, the dump is only larger.
    let _ = map.advise(Advice::DontDump);
    Ok(map)
}

/// Asks for large pages behind a shared mapping. Where the kernel does not give any, nothing
/// changes.
pub(crate) fn ask_for_huge_pages(map: &MmapRaw) {
    let _ = map.advise(Advice::HugePage);
}

/// Locks each page of a mapping in memory from its first touch on.
pub(crate) fn lock_what_is_touched(map: &MmapRaw) -> Result<(), OsError> {
    // SAFETY: this changes no byte and no permission of any memory.
    unsafe { rustix::mm::mlock_with(map.as_mut_ptr().cast(), map.len(), MlockFlags::ONFAULT) }
        .map_err(OsError::in_call("mlock2"))
}

/// Maps the first `len` bytes of a shared mapping, behind which there is memory already, so that
/// their first touch costs no fault.
pub(crate) fn populate(map: &MmapRaw, len: usize, can_write: bool) -> Result<(), OsError> {
    let how = if can_write { Madvice::LinuxPopulateWrite } else { Madvice::LinuxPopulateRead };
    let (start, len) = (map.as_mut_ptr(), len.min(map.len()));
    // SAFETY: this maps pages that are there, and changes no byte of them.
    match unsafe { rustix::mm::madvise(start.cast(), len, how) } {
        // Unknown before Linux 5.14: then the first touch costs what it costs.
        Err(Errno::INVAL) => Ok(()),
        populated => populated.map_err(OsError::in_call("madvise")),
    }
}

/// Asks for large pages behind memory that is about to be filled completely. The first touch of
/// each small page would cost more than filling it.
///
/// Where the kernel does not do that, nothing changes.
pub(crate) fn expect_filling(bytes: &mut [u8]) {
    let range = bytes.as_mut_ptr_range();
    // Only whole pages of ours: the rest belongs to other data.
    let start = range.start.addr().next_multiple_of(LARGE_PAGE);
    let end = range.end.addr() / LARGE_PAGE * LARGE_PAGE;
    if start < end {
        let start = bytes.as_mut_ptr().with_addr(start);
        // SAFETY: the advice changes no byte and no permission of any memory.
        let _ = unsafe {
            rustix::mm::madvise(start.cast(), end - start.addr(), Madvice::LinuxHugepage)
        };
    }
}

/// Length and alignment of a large page. Where large pages have another size, less of the memory
/// gets them.
const LARGE_PAGE: usize = 2 << 20;

/// Ends a mapping.
///
/// # Safety
/// The range is one whole mapping of this process, and nothing points into it any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. The call can only fail for a bad range, which the promise rules
    // out.
    let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) };
}

/// Closes an empty address range for good: a use of a pointer into it faults, as nothing new can be
/// mapped there. Refused with `EEXIST` if something lies in the range by now.
///
/// Makes one system call, allocates nothing and takes no lock.
pub(crate) fn close_range(base: usize, len: usize) -> Result<(), Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE;
    let address = core::ptr::without_provenance_mut(base);
    // SAFETY: an existing mapping is not replaced, and the new memory cannot be accessed.
    let mapped = unsafe { rustix::mm::mmap_anonymous(address, len, ProtFlags::empty(), flags) }?;
    if mapped.addr() == base {
        return Ok(());
    }
    // A kernel that does not know the flag takes the address for a hint.
    // SAFETY: this is the mapping that was just made.
    let _ = unsafe { rustix::mm::munmap(mapped, len) };
    Err(Errno::EXIST)
}

/// A private page that reads as zero in every forked child (`MADV_WIPEONFORK`), by whatever call
/// and code it was forked.
#[derive(Debug)]
pub(crate) struct WipedPage {
    map: memmap2::MmapMut,
}

impl WipedPage {
    pub(crate) fn new() -> Result<WipedPage, OsError> {
        let map = MmapOptions::new()
            .len(rustix::param::page_size())
            .map_anon()
            .map_err(OsError::in_call("mmap"))?;
        // SAFETY: the page is ours, private and anonymous, as the advice demands.
        unsafe {
            rustix::mm::madvise(map.as_ptr().cast_mut().cast(), map.len(), Madvice::LinuxWipeOnFork)
        }
        .map_err(OsError::in_call("madvise"))?;
        Ok(WipedPage { map })
    }

    /// The start of the page, which stays as long as this value.
    pub(crate) fn start(&self) -> *const u8 {
        self.map.as_ptr()
    }
}

/// A mapping of the beginning of a file, by which a process keeps the file without a descriptor.
///
/// Its bytes are never touched directly: others may make the file shorter. The kernel copies them,
/// and says where they end.
#[derive(Debug)]
pub(crate) struct Window {
    /// Address and length.
    place: Mutex<(usize, usize)>,
}

impl Window {
    pub(crate) fn new(file: BorrowedFd<'_>) -> Result<Window, OsError> {
        let len = rustix::param::page_size();
        let map = MmapOptions::new()
            .len(len)
            .map_raw_read_only(&file)
            .map_err(OsError::in_call("mmap"))?;
        map.advise(Advice::DontFork).map_err(OsError::in_call("madvise"))?;
        let base = map.as_ptr().addr();
        std::mem::forget(map);
        Ok(Window { place: Mutex::new((base, len)) })
    }

    /// Copies bytes of the file from `at` on. Gives how many there were.
    pub(crate) fn read(&self, bytes: &mut [u8], at: usize) -> Result<usize, OsError> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let too_long = OsError { call: "mremap", errno: Errno::OVERFLOW };
        let end = at.checked_add(bytes.len()).ok_or(too_long)?;
        if end > place.1 {
            let longer =
                end.checked_next_multiple_of(rustix::param::page_size()).ok_or(too_long)?;
            let (start, len) = (core::ptr::with_exposed_provenance_mut(place.0), place.1);
            // SAFETY: the mapping is ours, and nobody has a reference into it.
            let moved =
                unsafe { rustix::mm::mremap(start, len, longer, rustix::mm::MremapFlags::MAYMOVE) };
            let moved = match moved {
                // No memory has so many addresses, so no file has them.
                Err(Errno::NOMEM | Errno::INVAL | Errno::OVERFLOW) => return Ok(0),
                moved => moved.map_err(OsError::in_call("mremap"))?,
            };
            *place = (moved.addr(), longer);
        }
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec {
            iov_base: core::ptr::with_exposed_provenance_mut(place.0 + at),
            iov_len: bytes.len(),
        };
        let own = std::process::id().cast_signed();
        // SAFETY: the kernel writes only to `bytes`, and reads whatever addresses it is given.
        let copied =
            unsafe { libc::process_vm_readv(own, &raw const local, 1, &raw const remote, 1, 0) };
        match usize::try_from(copied) {
            Ok(copied) => Ok(copied),
            Err(_) => match Errno::from_io_error(&std::io::Error::last_os_error()) {
                // Beyond the end of the file.
                Some(Errno::FAULT) => Ok(0),
                _ => copy_by_pipe(place.0 + at, bytes),
            },
        }
    }
}

/// Copies bytes from an address, as far as there are any. For where a sandbox forbids the better
/// way.
fn copy_by_pipe(from: usize, bytes: &mut [u8]) -> Result<usize, OsError> {
    use std::os::fd::AsRawFd;
    let (reader, writer) = descriptor::pipe()?;
    // A pipe takes so many at once without a reader.
    let len = bytes.len().min(rustix::param::page_size());
    let start = core::ptr::with_exposed_provenance::<libc::c_void>(from);
    // SAFETY: the kernel reads whatever addresses it is given, and says if there is nothing.
    let written = unsafe { libc::write(writer.as_raw_fd(), start, len) };
    let Ok(written) = usize::try_from(written) else {
        return match std::io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
            refused => Err(OsError::in_call("write")(refused)),
        };
    };
    rustix::io::read(&reader, &mut bytes[..written]).map_err(OsError::in_call("read"))
}

impl Drop for Window {
    fn drop(&mut self) {
        let (base, len) = *self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the mapping is ours, and nobody has a reference into it.
        let _ = unsafe { rustix::mm::munmap(core::ptr::with_exposed_provenance_mut(base), len) };
    }
}

/// Words that are 0 at first, and take memory only where they were changed.
#[derive(Debug)]
pub(crate) struct Words {
    base: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: atomics, in a mapping that stays as long as this value.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Words that a process shares with the children that it forks while this exists.
    pub(crate) fn shared(count: usize) -> Result<Words, OsError> {
        Words::map(count, MapFlags::SHARED)
    }

    /// Words of which a forked child has a copy.
    pub(crate) fn private(count: usize) -> Result<Words, OsError> {
        Words::map(count, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    fn map(count: usize, flags: MapFlags) -> Result<Words, OsError> {
        let (protection, len) =
            (ProtFlags::READ | ProtFlags::WRITE, count * size_of::<AtomicU64>());
        // SAFETY: the kernel chooses an address where nothing lies.
        let base =
            unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, protection, flags) };
        let base = base.map_err(OsError::in_call("mmap"))?;
        let base =
            NonNull::new(base.cast()).ok_or(OsError { call: "mmap", errno: Errno::NOMEM })?;
        Ok(Words { base, count })
    }
}

impl core::ops::Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has room for so many words, aligned, and stays as long as `self`.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: this is our mapping, and the borrows of it have ended.
        unsafe { unmap(self.base.cast(), self.count * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_memfd_grows_and_does_not_shrink() {
        let file = sealed_memfd("test", 4096).expect("memfd");
        assert_eq!(seals(file.as_fd()).expect("seals") & SEALS, SEALS);
        assert!(file.set_len(0).is_err());
        let len = || file.metadata().expect("metadata").len();
        assert_eq!(len(), 4096);
        for (asked, there) in [(8192, 8192), (4096, 8192), (12_000, 12_000)] {
            lengthen(&file, asked).expect("fallocate");
            assert_eq!(len(), there);
        }
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has_left() {
        let available = available().expect("/proc is mounted");
        assert!(available > 1 << 20 && available < 1 << 50, "{available}");
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
