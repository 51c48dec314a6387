//! Whatever is offered as a segment is refused with an error of its own, and not changed.

use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use offspring::{Queue, Segment, SegmentError, SegmentOptions};
use tempfile::TempDir;

const LEN: u64 = 1 << 16;

/// A good segment in a file, to be spoilt.
fn good() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    drop(Segment::create_file(&path, LEN).expect("a segment"));
    (folder, path)
}

/// Opens the file, which must fail and change nothing.
fn refused(path: &Path) -> SegmentError {
    let before = std::fs::read(path).ok();
    let error = Segment::open_file(path).expect_err("must be refused");
    assert_eq!(std::fs::read(path).ok(), before, "opening changed the file");
    assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
    error.into_reason()
}

fn reason(made: Result<Segment, SegmentError>) -> Result<Segment, SegmentError> {
    made.map_err(SegmentError::into_reason)
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .expect("open")
        .write_all_at(bytes, offset)
        .expect("write");
}

#[test]
fn what_was_made_can_be_opened_and_used_again_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let handle = {
        let segment = Segment::create_file(&path, LEN).expect("a segment");
        assert_eq!(segment.len(), LEN);
        let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
        queue.send(7).expect("room");
        queue.handle()
    };
    let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let segment = Segment::open_file(&path).expect("the segment");
    assert!(Queue::<u64>::open(&segment, handle).is_err(), "its last holder dropped it");
    assert_eq!(Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue").len(), 0);
}

#[test]
fn an_existing_file_is_never_replaced() {
    let (_folder, path) = good();
    let before = std::fs::read(&path).expect("read");
    assert!(matches!(
        reason(Segment::create_file(&path, LEN)),
        Err(SegmentError::Os { call: "link", .. })
    ));
    assert_eq!(std::fs::read(&path).expect("read"), before);
    let entries = std::fs::read_dir(path.parent().expect("a folder")).expect("read").count();
    assert_eq!(entries, 1, "no draft is left");
}

#[test]
fn missing_files_and_folders_are_errors_of_the_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(
        reason(Segment::open_file(folder.path().join("none"))),
        Err(SegmentError::Os { call: "open", .. })
    ));
    assert!(matches!(
        reason(Segment::create_file(folder.path().join("no/folder"), LEN)),
        Err(SegmentError::Os { .. })
    ));
    assert!(matches!(
        reason(Segment::open_file(folder.path())),
        Err(SegmentError::Os { .. } | SegmentError::NotAFile)
    ));
}

#[test]
fn a_name_with_a_nul_is_refused() {
    assert!(matches!(reason(Segment::open_file("a\0b")), Err(SegmentError::PathWithNul)));
    assert!(matches!(reason(Segment::create_file("a\0b", LEN)), Err(SegmentError::PathWithNul)));
}

#[test]
fn empty_and_truncated_files_are_refused() {
    let (_folder, path) = good();
    let size = std::fs::metadata(&path).expect("metadata").len();
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    for len in [size - 1, size / 2, 4096] {
        file.set_len(len).expect("truncate");
        assert!(
            matches!(refused(&path), SegmentError::WrongSize { header, file } if header == size && file == len)
        );
    }
    for len in [4095, 1, 0] {
        file.set_len(len).expect("truncate");
        assert!(matches!(refused(&path), SegmentError::Truncated { found } if found == len));
    }
}

/// What lies beyond the end of the file would be a bus error for whoever looks at it.
#[test]
fn a_file_that_ends_before_what_is_in_it_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let segment = Segment::create_file(&path, LEN).expect("a segment");
    let at_first = std::fs::metadata(&path).expect("metadata").len();
    // Two groups: one of headers, and one of blocks.
    drop(Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue"));
    drop(segment);
    let size = std::fs::metadata(&path).expect("metadata").len();
    assert!(size > at_first, "it has grown");
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    for len in [size - 1, at_first] {
        file.set_len(len).expect("truncate");
        let error = refused(&path);
        assert!(
            matches!(error, SegmentError::WrongSize { header, file } if header == size && file == len),
            "{error}"
        );
    }
    // Longer does no harm: a process that was killed while the file grew leaves it so.
    file.set_len(size + 4096).expect("extend");
    let segment = Segment::open_file(&path).expect("the segment");
    assert_eq!(Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue").len(), 0);
}

/// The budget says which length is right, so it does not help that header and file agree on
/// another.
#[test]
fn a_length_on_which_header_and_file_agree_and_the_layout_does_not_is_refused() {
    let (_folder, path) = good();
    let size = std::fs::metadata(&path).expect("metadata").len();
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    for wrong in [4096, size / 2, size - 4096, size - 1, size + 1, size + 4096, 2 * size] {
        file.set_len(wrong).expect("a length");
        patch(&path, 24, &wrong.to_ne_bytes());
        let error = refused(&path);
        assert!(
            matches!(error, SegmentError::Corrupt { field: "size" }),
            "{wrong} for {size} bytes: {error}"
        );
    }
    file.set_len(size).expect("a length");
    patch(&path, 24, &size.to_ne_bytes());
    assert_eq!(Segment::open_file(&path).expect("the right length again").len(), LEN);
}

#[test]
fn foreign_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in
        [("zeros", vec![0; 100_000]), ("text", vec![b'x'; 100_000]), ("ones", vec![0xff; 4096])]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        assert!(matches!(refused(&path), SegmentError::Foreign), "{name}");
    }
}

#[test]
fn other_versions_orders_and_layouts_are_told_apart() {
    let spoilt = |offset, bytes: &[u8]| {
        let (_folder, path) = good();
        patch(&path, offset, bytes);
        refused(&path)
    };
    assert!(matches!(spoilt(0, b"gnrpsffo"), SegmentError::ByteOrder));
    assert!(matches!(spoilt(0, b"offsprin"), SegmentError::Foreign));
    for version in [0_u32, 1, 1000] {
        let error = spoilt(8, &version.to_ne_bytes());
        assert!(
            matches!(error, SegmentError::Version { found, .. } if found == version),
            "{error}"
        );
    }
    assert!(matches!(spoilt(12, &[1, 2, 3, 4]), SegmentError::ByteOrder));
    assert!(matches!(spoilt(16, &[0; 8]), SegmentError::Layout { found: 0, .. }));
    assert!(matches!(spoilt(24, &[0xff; 8]), SegmentError::WrongSize { header: u64::MAX, .. }));
    assert!(matches!(spoilt(32, &[0xff; 8]), SegmentError::Corrupt { field: "budget" }));
    assert!(matches!(spoilt(40, &[0; 8]), SegmentError::Corrupt { field: "id" }));
    assert!(matches!(spoilt(56, &[9; 4]), SegmentError::Corrupt { field: "fences" }));
}

#[test]
fn a_descriptor_that_cannot_write_is_refused() {
    let (_folder, path) = good();
    let read_only = File::open(&path).expect("open");
    assert!(matches!(Segment::open(&read_only), Err(SegmentError::ReadOnly)));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let (_folder, path) = good();
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("chmod");
    assert!(matches!(refused(&path), SegmentError::Exposed { mode: 0o666 }));
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a file away; as root this test runs in CI.
        return;
    }
    let (_folder, path) = good();
    std::os::unix::fs::chown(&path, Some(12345), None).expect("chown");
    assert!(matches!(refused(&path), SegmentError::NotOurs { owner: 12345, user: 0 }));
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let device = OpenOptions::new().read(true).write(true).open("/dev/null").expect("open");
    assert!(matches!(Segment::open(&device), Err(SegmentError::NotAFile)));
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    assert!(matches!(Segment::open(&reader), Err(SegmentError::ReadOnly)));
}

#[test]
fn a_file_that_can_only_be_read_is_refused_and_says_so() {
    // Nobody may write to a program that runs, not even root.
    assert!(matches!(reason(Segment::open_file("/proc/self/exe")), Err(SegmentError::ReadOnly)));
    // A folder can be read, too, but that is not what is wrong with it.
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(
        reason(Segment::open_file(folder.path())),
        Err(SegmentError::Os { call: "open", .. })
    ));
}

#[test]
fn an_unsealed_memfd_is_refused_and_a_sealed_one_is_foreign_if_empty() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    assert!(matches!(Segment::open(&fd), Err(SegmentError::Truncated { found: 0 })));
    rustix::fs::ftruncate(&fd, 1 << 20).expect("ftruncate");
    assert!(matches!(Segment::open(&fd), Err(SegmentError::Unsealed)));
    fcntl_add_seals(&fd, SealFlags::SHRINK).expect("seal");
    assert!(matches!(Segment::open(&fd), Err(SegmentError::Unsealed)));
    fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SEAL).expect("seal");
    assert!(matches!(Segment::open(&fd), Err(SegmentError::Foreign)));
}

#[test]
fn absurd_lengths_are_refused_with_what_is_possible() {
    for len in [0, (1 << 40) + 1, 1 << 63, u64::MAX] {
        let error = Segment::create(len).expect_err("must be refused");
        assert!(
            matches!(error, SegmentError::Length { len: found, .. } if found == len),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    assert!(matches!(reason(Segment::create_file(&path, 0)), Err(SegmentError::Length { .. })));
    assert!(!path.exists());
    assert_eq!(Segment::create(1).expect("a segment for one byte").len(), 1);
}

#[test]
fn an_anonymous_segment_is_opened_by_its_descriptor_and_closed_on_exec() {
    let segment = SegmentOptions::new().len(LEN).create().expect("a segment");
    #[expect(unsafe_code, reason = "borrows a descriptor by its number")]
    // SAFETY: it is open as long as the segment.
    let fd = unsafe { BorrowedFd::borrow_raw(segment.as_raw_fd()) };
    let opened = Segment::open(fd).expect("the same");
    assert_eq!((opened.id(), opened.len()), (segment.id(), LEN));
    let flags = rustix::io::fcntl_getfd(fd).expect("fcntl");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let target =
        std::fs::read_link(format!("/proc/self/fd/{}", segment.as_raw_fd())).expect("a link");
    assert!(target.to_string_lossy().contains("memfd:offspring"));
}
