//! The example `copy_tree`, run as a user runs it: a real folder, real processes, real signals.
//!
//! To hit a worker in the middle of a file and not beside it, a test looks for a temporary file,
//! stops the process that its name gives, and looks again: if the file is still there, the worker
//! is in the middle of it for as long as the test likes.

mod common;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::pty::{Winsize, openpty};
use nix::sched::{CloneFlags, unshare};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use common::sandbox;

/// What has not come to pass by then never will. No promise on time, a watchdog.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the name of each temporary file begins.
const TEMPORARY: &str = ".copy_tree.";

/// The example lies beside the tests: `target/<profile>/examples/copy_tree`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/copy_tree");
    assert!(
        path.exists(),
        "{path:?} is missing: `cargo test` builds it, as does `cargo build --examples`"
    );
    path
}

fn copy_tree(place: &Place, options: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg(place.source()).arg(place.target()).args(options).stdin(Stdio::null());
    command
}

/// A user who may do nothing special.
const NOBODY: u32 = 65534;

/// As [`copy_tree`], run by an ordinary user: by ourselves, or, as root may do everything, by
/// [`NOBODY`], with a binary that he can reach.
fn copy_tree_by_nobody(place: &Place, options: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return copy_tree(place, options);
    }
    let here = place.0.path();
    fs::set_permissions(here, Permissions::from_mode(0o777)).unwrap();
    // Nobody can run a file that is open for writing, as it would be in a child that another test
    // forks while we copy.
    assert!(
        Command::new("cp").arg(binary()).arg(here.join("copy_tree")).status().unwrap().success()
    );
    let mut command = Command::new(here.join("copy_tree"));
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .arg(place.source())
        .arg(place.target())
        .args(options)
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {} s in vain: {what}", PATIENCE.as_secs());
        sleep(Duration::from_micros(100));
    }
}

/// A run of the program. Dropped before its end, it is killed, and its workers with it.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the end. What it says fits into a pipe.
    #[track_caller]
    fn output(mut self) -> Output {
        wait_until("the program ends", || self.has_ended());
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(run) = &mut self.0 {
            for process in children(run.id()).into_iter().chain([run.id()]) {
                signal(process, Signal::KILL);
            }
            run.wait().unwrap();
        }
    }
}

/// Starts the program and waits for its end.
#[track_caller]
fn output(command: &mut Command) -> Output {
    Running::start(command).output()
}

#[track_caller]
fn assert_status(output: &Output, status: i32) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{:?}\n{out}\n{err}", output.status);
}

/// A folder for one test.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place::within(&std::env::temp_dir())
    }

    fn within(folder: &Path) -> Place {
        let place = Place(tempfile::tempdir_in(folder).unwrap());
        fs::create_dir(place.source()).unwrap();
        place
    }

    /// A place on a filesystem that keeps attributes of the user, if there is one.
    fn with_attributes() -> Option<Place> {
        let folders = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
        let mut places =
            folders.iter().filter(|folder| folder.is_dir()).map(|folder| Place::within(folder));
        let found = places.find(|place| set_attribute(place.0.path(), "user.try", b""));
        if found.is_none() {
            sandbox::skip(&format!("none of {folders:?} knows attributes of the user"));
        }
        found
    }

    fn source(&self) -> PathBuf {
        self.0.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.0.path().join("target")
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> PathBuf {
        let path = self.source().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A source large enough that several workers need a while.
    fn large() -> Place {
        let place = Place::new();
        for number in 0..48_u32 {
            place.write(format!("large {number}"), &noise(number, 3 << 20));
        }
        for number in 0..300_u32 {
            place.write(format!("small {number}"), &noise(number, 100));
        }
        place
    }
}

/// Bytes that differ from file to file. They repeat, but not at a distance at which a program might
/// mix up blocks.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes = words.take(1009).collect::<Vec<_>>().concat().repeat(len / (8 * 1009) + 1);
    bytes.truncate(len);
    bytes
}

/// All that a copy has to keep of one thing.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    links: u64,
    attributes: BTreeMap<String, Vec<u8>>,
    bytes: Vec<u8>,
}

fn look(path: &Path) -> Seen {
    let data = path.symlink_metadata().unwrap();
    let bytes = if data.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else if data.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let modified = (data.mtime(), data.mtime_nsec());
    let (owner, attributes) = ((data.uid(), data.gid()), attributes(path));
    Seen { mode: data.mode(), owner, modified, links: data.nlink(), attributes, bytes }
}

/// The extended attributes that somebody has set; labels, which the system itself gives to every
/// file, are not among them.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::llistxattr(path, spare_capacity(&mut names)) {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => panic!("{path:?}: {error}"),
    }
    let names = names.split(|byte| *byte == 0).map(text);
    let kept = names.filter(|name| {
        ["user.", "trusted.", "system.posix_acl_", "security.capability"]
            .iter()
            .any(|start| name.starts_with(start))
    });
    kept.map(|name| {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::lgetxattr(path, &name, spare_capacity(&mut value)).unwrap();
        (name, value)
    })
    .collect()
}

/// Sets an extended attribute, of a link itself and not of what it leads to; false if the
/// filesystem does not take it or we may not set it.
fn set_attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP | Errno::PERM) => false,
        Err(error) => panic!("{name} of {path:?}: {error}"),
    }
}

/// Everything under a folder, and the folder itself under the empty name.
fn look_at_all(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        if full.symlink_metadata().unwrap().is_dir() {
            open.extend(
                fs::read_dir(&full).unwrap().map(|found| path.join(found.unwrap().file_name())),
            );
        }
        all.insert(path, look(&full));
    }
    all
}

#[track_caller]
fn assert_same(place: &Place) {
    let (source, target) = (look_at_all(&place.source()), look_at_all(&place.target()));
    assert_eq!(source.keys().collect::<Vec<_>>(), target.keys().collect::<Vec<_>>());
    for (path, seen) in &source {
        assert!(
            *seen == target[path],
            "{path:?} differs: {:?}",
            Seen { bytes: Vec::new(), ..look(&place.target().join(path)) }
        );
    }
}

fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = found.map(|found| found.unwrap().path());
    paths
        .filter(|path| path.file_name().unwrap().as_bytes().starts_with(TEMPORARY.as_bytes()))
        .collect()
}

fn children(of: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The children that copy. There is also the zygote, from which they are made.
fn workers(of: u32) -> Vec<u32> {
    let is_worker = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("worker ")
    };
    children(of).into_iter().filter(is_worker).collect()
}

/// The letter that the kernel gives for the state of a process; `Z`, a zombie, also stands for none
/// at all.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('Z')
}

fn signal(pid: u32, signal: Signal) {
    // Fails when the process is gone, which the callers find out by themselves.
    let _ = rustix::process::kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal);
}

/// A run with one worker stopped in the middle of a file.
struct Caught {
    run: Running,
    workers: Vec<u32>,
    stopped: u32,
}

impl Caught {
    fn output(self) -> Output {
        self.run.output()
    }
}

fn catch_a_worker(place: &Place) -> Caught {
    for _ in 0..50 {
        let mut run =
            Running::start(copy_tree(place, &["--workers", "3", "--verify"]).process_group(0));
        let start = Instant::now();
        while !run.has_ended() {
            assert!(
                start.elapsed() < PATIENCE,
                "the program has not ended after {} s",
                PATIENCE.as_secs()
            );
            for temporary in temporaries(&place.target()) {
                let name = text(temporary.file_name().unwrap().as_bytes());
                let stopped = name.split('.').nth(3).unwrap().parse().unwrap();
                let workers = workers(run.id());
                if !workers.contains(&stopped) {
                    continue;
                }
                signal(stopped, Signal::STOP);
                wait_until("the worker stops", || matches!(state(stopped), 'T' | 'Z'));
                if temporary.exists() && state(stopped) == 'T' {
                    return Caught { run, workers, stopped };
                }
                signal(stopped, Signal::CONT);
            }
        }
        fs::remove_dir_all(place.target()).unwrap();
    }
    panic!("no worker was met in the middle of a file in 50 runs");
}

#[track_caller]
fn assert_gone(workers: &[u32]) {
    for &worker in workers {
        wait_until("the worker ends", || state(worker) == 'Z');
    }
}

/// Sets the times of anything, to the nanosecond.
fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything.
fn make_all_kinds(place: &Place) {
    let source = place.source();
    place.write("empty", b"");
    place.write("one byte", b"x");
    for (number, len) in (0..).zip([(256 << 10) - 1, 256 << 10, (256 << 10) + 1, 5 << 20]) {
        place.write(format!("{len} bytes"), &noise(number, len));
    }
    place.write(OsStr::from_bytes(b"not UTF-8 \xff\xfe, two\nlines"), b"strange name");
    place.write("n".repeat(255), b"long name");
    let holes = File::create(source.join("holes")).unwrap();
    holes.set_len(4 << 20).unwrap();
    holes.write_all_at(b"island", 3 << 20).unwrap();
    for mode in [0o400, 0o444, 0o600, 0o755, 0o4755, 0o2711, 0o1777] {
        let path = place.write(format!("mode {mode:o}"), b"permissions");
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(source.join("one byte"), source.join("the same byte")).unwrap();
    symlink("one byte", source.join("link")).unwrap();
    symlink("/nowhere/at all", source.join("dangling link")).unwrap();
    UnixListener::bind(source.join("socket")).unwrap();
    rustix::fs::mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    fs::create_dir_all(source.join("deep/er/and/deeper")).unwrap();
    place.write("deep/er/and/deeper/file", b"at the bottom");
    fs::create_dir(source.join("empty folder")).unwrap();
    fs::create_dir(source.join("read-only")).unwrap();
    place.write("read-only/file", b"cannot be added to");
    let paths: Vec<PathBuf> = look_at_all(&source).into_keys().collect();
    for (number, path) in (0..).zip(paths.iter().rev()) {
        set_times(&source.join(path), 1_000_000_000 + number, 123_456_789 + number);
    }
    fs::set_permissions(source.join("read-only"), Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(source.join("empty folder"), Permissions::from_mode(0o1770)).unwrap();
}

#[test]
fn copies_every_kind_of_thing_with_its_attributes() {
    for options in [&["--verify"][..], &["--workers", "1"], &["--workers", "3", "--verify"]] {
        let place = Place::new();
        make_all_kinds(&place);
        let output = output(&mut copy_tree(&place, options));
        assert_status(&output, 0);
        assert_same(&place);
        assert_eq!(text(&output.stdout).contains("verified"), options.contains(&"--verify"));
        let target = place.target();
        assert!(target.join("socket").symlink_metadata().unwrap().file_type().is_socket());
        let inode = |name| target.join(name).metadata().unwrap().ino();
        assert_eq!(inode("one byte"), inode("the same byte"));
        let holes = target.join("holes").metadata().unwrap();
        assert!(holes.blocks() * 512 < holes.size() / 2, "the holes were filled");
    }
}

#[test]
fn second_run_replaces_what_changed_and_leaves_what_is_only_in_the_target() {
    let place = Place::new();
    make_all_kinds(&place);
    assert_status(&output(&mut copy_tree(&place, &[])), 0);
    place.write("one byte", b"two");
    fs::write(place.target().join("only here"), b"stays").unwrap();
    assert_status(&output(&mut copy_tree(&place, &["--verify"])), 0);
    assert_eq!(fs::read(place.target().join("only here")).unwrap(), b"stays");
    fs::remove_file(place.target().join("only here")).unwrap();
    set_times(&place.target(), 1_000_000_000, 0);
    set_times(&place.source(), 1_000_000_000, 0);
    assert_same(&place);
}

#[test]
fn paths_may_be_longer_than_a_system_call_takes() {
    let place = Place::new();
    let name = "d".repeat(200);
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let below = |folder| {
        rustix::fs::openat(folder, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .unwrap()
    };
    let mut folder = open(&place.source());
    for _ in 0..80 {
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = below(folder);
    }
    let create = OFlags::CREATE | OFlags::WRONLY;
    File::from(rustix::fs::openat(&folder, "file", create, Mode::RUSR).unwrap())
        .write_all(b"far down")
        .unwrap();

    assert_status(&output(&mut copy_tree(&place, &["--verify"])), 0);
    let mut folder = open(&place.target());
    for _ in 0..80 {
        folder = below(folder);
    }
    let file =
        File::from(rustix::fs::openat(&folder, "file", OFlags::RDONLY, Mode::empty()).unwrap());
    assert_eq!(std::io::read_to_string(file).unwrap(), "far down");
}

#[test]
fn unreadable_file_and_folder_are_reported_and_the_rest_is_copied() {
    let place = Place::new();
    for number in 0..200 {
        place.write(format!("file {number}"), &noise(number, 1000));
    }
    let secret = place.write("secret file", b"hidden");
    fs::create_dir(place.source().join("secret folder")).unwrap();
    place.write("secret folder/file", b"hidden too");
    for path in [secret, place.source().join("secret folder")] {
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
    }
    let output = output(&mut copy_tree_by_nobody(&place, &["--verify"]));
    assert_status(&output, 1);
    let said = text(&output.stderr);
    for name in ["secret file", "secret folder"] {
        let line = said
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{name} is not named: {said}"));
        assert!(line.contains("Permission denied"), "{line}");
    }
    for number in 0..200 {
        let name = format!("file {number}");
        let (source, target) =
            (look(&place.source().join(&name)), look(&place.target().join(&name)));
        assert_eq!(
            (source.mode, source.modified, source.bytes),
            (target.mode, target.modified, target.bytes)
        );
    }
    assert!(!place.target().join("secret file").exists());
    fs::set_permissions(place.source().join("secret folder"), Permissions::from_mode(0o700))
        .unwrap();
}

#[test]
fn worker_killed_in_the_middle_of_a_file_is_named_and_every_file_is_copied() {
    let place = Place::large();
    let caught = catch_a_worker(&place);
    let pid = caught.stopped;
    signal(pid, Signal::KILL);
    let output = caught.output();
    assert_status(&output, 0);
    let said = text(&output.stderr);
    assert!(
        said.lines()
            .any(|line| line.contains("worker") && line.contains(&format!("(process {pid}) died"))),
        "{said}"
    );
    assert_same(&place);
}

#[test]
fn all_workers_killed_at_once_are_replaced_and_so_is_what_makes_them() {
    let place = Place::large();
    let caught = catch_a_worker(&place);
    let workers = caught.workers.clone();
    for child in children(caught.run.id()) {
        signal(child, Signal::KILL);
    }
    let output = caught.output();
    assert_status(&output, 0);
    let said = text(&output.stderr);
    for worker in workers {
        assert!(said.contains(&format!("(process {worker}) died")), "{said}");
    }
    assert_same(&place);
}

/// Ends a run by a signal while one worker is stopped, so that it cannot end by itself.
fn stop_by(signal_: Signal, whole_group: bool, status: i32) {
    let place = Place::large();
    let caught = catch_a_worker(&place);
    let (workers, parent) = (caught.workers.clone(), caught.run.id());
    if whole_group {
        rustix::process::kill_process_group(
            Pid::from_raw(parent.try_into().unwrap()).unwrap(),
            signal_,
        )
        .unwrap();
    } else {
        signal(parent, signal_);
    }
    let output = caught.output();
    assert_status(&output, status);
    assert_gone(&workers);
    assert_eq!(temporaries(&place.target()), Vec::<PathBuf>::new());
    for found in fs::read_dir(place.target()).unwrap() {
        let name = found.unwrap().file_name();
        let (source, target) =
            (look(&place.source().join(&name)), look(&place.target().join(&name)));
        assert!(source == target, "{name:?} is not whole");
    }
}

#[test]
fn ctrl_c_leaves_whole_files_and_nothing_else() {
    stop_by(Signal::INT, true, 130);
}

#[test]
fn interrupt_of_the_parent_alone_does_the_same() {
    stop_by(Signal::INT, false, 130);
}

#[test]
fn termination_does_the_same() {
    stop_by(Signal::TERM, false, 143);
}

#[test]
fn killed_parent_takes_its_workers_along_and_the_next_run_clears_up() {
    let place = Place::large();
    let caught = catch_a_worker(&place);
    let workers = caught.workers.clone();
    signal(caught.run.id(), Signal::KILL);
    assert_eq!(caught.output().status.code(), None);
    assert_gone(&workers);
    assert!(
        !temporaries(&place.target()).is_empty(),
        "the worker was stopped in the middle of a file"
    );
    assert_status(&output(&mut copy_tree(&place, &["--verify"])), 0);
    assert_same(&place);
}

#[test]
fn empty_folder_is_copied() {
    let place = Place::new();
    set_times(&place.source(), 1_000_000_000, 5);
    assert_status(&output(&mut copy_tree(&place, &["--verify"])), 0);
    assert_same(&place);
}

#[test]
fn missing_source_is_an_error_that_names_it() {
    let place = Place::new();
    fs::remove_dir(place.source()).unwrap();
    let output = output(&mut copy_tree(&place, &[]));
    assert_status(&output, 1);
    assert!(text(&output.stderr).contains("source"));
    assert!(!place.target().exists());
}

#[test]
fn target_inside_the_source_and_source_inside_the_target_are_refused() {
    let place = Place::new();
    place.write("file", b"left alone");
    let source = place.source();
    for (from, to) in [
        (&source, &source.join("inside")),
        (&source, &source),
        (&source, &place.0.path().to_path_buf()),
    ] {
        let output = output(Command::new(binary()).arg(from).arg(to));
        assert_status(&output, 1);
        assert!(text(&output.stderr).contains("inside the other"));
    }
    assert_eq!(fs::read_dir(&source).unwrap().count(), 1);
}

#[test]
fn help_names_the_options_and_wrong_ones_are_refused() {
    let help = output(Command::new(binary()).arg("--help"));
    assert_status(&help, 0);
    for word in ["SRC", "DST", "--workers", "--verify"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    assert_status(&output(&mut Command::new(binary())), 2);
    assert_status(&output(Command::new(binary()).args(["a", "b", "--workers", "0"])), 2);
}

/// An access control list that gives user 1 a right that others have not.
fn access_control_list() -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let entries =
        [(0x01, 6, NO_ID), (0x02, 4, 1), (0x04, 4, NO_ID), (0x10, 6, NO_ID), (0x20, 0, NO_ID)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend([u16::to_le_bytes(tag), u16::to_le_bytes(permissions)].concat());
        list.extend(u32::to_le_bytes(id));
    }
    list
}

/// The capability to use ports below 1024, in the form that the kernel keeps.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat()
}

/// Files, folders and more with all attributes that we may set here.
fn make_attributes(place: &Place) {
    let source = place.source();
    for (number, value) in
        [&b""[..], b"value", b"\0\xff\n", &noise(1, 2000)].into_iter().enumerate()
    {
        assert!(set_attribute(
            &place.write(format!("file {number}"), b"with one"),
            "user.one",
            value
        ));
    }
    let many = place.write("many", b"with many");
    for number in 0..50 {
        assert!(set_attribute(
            &many,
            &format!("user.number {number} \u{fc}"),
            format!("{number}").as_bytes()
        ));
    }
    fs::hard_link(&many, source.join("many again")).unwrap();
    place.write("plain", b"with none");
    for folder in ["folder", "folder/deeper", "read-only"] {
        fs::create_dir(source.join(folder)).unwrap();
        assert!(set_attribute(&source.join(folder), "user.of folder", folder.as_bytes()));
    }
    assert!(set_attribute(&source, "user.of root", b"top"));
    // In a folder whose list they would inherit.
    place.write("folder/file", b"plain");
    rustix::fs::mknodat(
        CWD,
        source.join("folder/fifo"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    let secured = place.write("secured", b"with a list");
    set_attribute(&secured, "system.posix_acl_access", &access_control_list());
    set_attribute(&secured, "user.and one more", b"value");
    set_attribute(&source.join("folder"), "system.posix_acl_default", &access_control_list());
    let capable = place.write("capable", b"of somebody else");
    // Fails unless we are root.
    let _ = chown(&capable, Some(1), Some(1));
    set_attribute(&capable, "security.capability", &capability());
    set_attribute(&capable, "trusted.secret", b"of root");
    symlink("plain", source.join("link")).unwrap();
    set_attribute(&source.join("link"), "trusted.link", b"of the link");
    rustix::fs::mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    set_attribute(&source.join("fifo"), "trusted.fifo", b"of the FIFO");
    let protected = place.write("protected", b"whose owner may not write");
    set_attribute(&protected, "user.one", b"value");
    for (path, mode) in [(protected, 0o444), (source.join("read-only"), 0o555)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn extended_attributes_are_kept() {
    for options in [&[][..], &["--verify", "--workers", "3"]] {
        let Some(place) = Place::with_attributes() else {
            return;
        };
        make_attributes(&place);
        // A second copy goes into folders that bequeath a list, and where an attribute is one too
        // many.
        for again in [false, true] {
            if again {
                rustix::fs::removexattr(place.source().join("folder/deeper"), "user.of folder")
                    .unwrap();
            }
            let output = output(&mut copy_tree(&place, options));
            assert_status(&output, 0);
            assert_eq!(text(&output.stderr), "");
            assert_same(&place);
        }
    }
}

#[test]
fn ordinary_user_keeps_the_attributes_of_a_file_that_he_may_not_write() {
    let Some(place) = Place::with_attributes() else {
        return;
    };
    for (name, mode) in [("file", 0o444), ("secret", 0o400)] {
        let path = place.write(name, b"protected");
        assert!(set_attribute(&path, "user.one", b"value"));
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    if rustix::process::geteuid().is_root() {
        chown(place.source(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for _ in 0..2 {
        let output = output(&mut copy_tree_by_nobody(&place, &[]));
        assert_status(&output, 0);
        assert_eq!(text(&output.stderr), "");
        assert_same(&place);
    }
}

#[test]
fn attributes_that_the_user_may_not_set_are_counted() {
    let Some(place) = Place::with_attributes() else {
        return;
    };
    let labelled = place.write("labelled", b"by root");
    if !set_attribute(&labelled, "security.copy_tree", b"label") {
        return sandbox::skip("only root can label a file");
    }
    assert!(set_attribute(&labelled, "user.one", b"kept"));
    place.write("plain", b"without");
    let output = output(&mut copy_tree_by_nobody(&place, &[]));
    assert_status(&output, 0);
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in
        ["1 extended attribute(s) of 1 thing(s)", "source/labelled", "Operation not permitted"]
    {
        assert!(said.contains(words), "{words} is missing: {said}");
    }
    assert_eq!(attributes(&place.target().join("labelled"))["user.one"], b"kept");
}

/// Says to a test that it runs in a process with mounts of its own.
const OWN_MOUNTS: &str = "COPY_TREE_OWN_MOUNTS";

/// Returns whether we are where a test may mount what it likes. If not, the test of that name is
/// run there.
#[track_caller]
#[expect(unsafe_code, reason = "no safe way to a child in other namespaces")]
fn has_own_mounts(test: &str) -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(OWN_MOUNTS, "1").stdin(Stdio::null());
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let enter = move || {
        // Whoever may not have mounts of his own may be root among himself, and then have them.
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
            for (path, text) in &maps {
                fs::write(path, text)?;
            }
        }
        Ok(mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )?)
    };
    // SAFETY: system calls with arguments that are there already; nothing here allocates.
    unsafe { command.pre_exec(enter) };
    match command.output() {
        Err(error) => {
            sandbox::skip(&format!("this process may have no mounts of its own: {error}"))
        }
        Ok(Output { status, stdout, stderr }) => {
            let (out, err) = (text(&stdout), text(&stderr));
            assert!(status.success() && out.contains("1 passed"), "{status}\n{out}\n{err}");
        }
    }
    false
}

/// A filesystem in memory, mounted at the target of a place until this is dropped, which must be
/// before the place.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place, kind: &str, options: &str) -> Disk {
        let path = place.target();
        fs::create_dir(&path).unwrap();
        mount(Some("none"), &path, Some(kind), MsFlags::empty(), Some(options)).unwrap();
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Otherwise it goes with the last process that has these mounts.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn attributes_that_the_filesystem_does_not_take_are_counted() {
    if !has_own_mounts("attributes_that_the_filesystem_does_not_take_are_counted") {
        return;
    }
    let Some(place) = Place::with_attributes() else {
        return;
    };
    fs::create_dir(place.source().join("folder")).unwrap();
    let files = [place.write("file", b"one"), place.write("other", b"two")];
    for path in files.iter().chain([&place.source().join("folder")]) {
        assert!(set_attribute(path, "user.one", b"value"));
        assert!(set_attribute(path, "user.two", b"value"));
    }
    let disk = Disk::mount(&place, "ramfs", "");
    assert!(!set_attribute(&disk.0, "user.try", b""), "ramfs is here because it has no attributes");
    let output = output(&mut copy_tree(&place, &["--verify"]));
    assert_status(&output, 0);
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in ["extended attribute(s) of", "source", "Operation not supported"] {
        assert!(said.contains(words), "{words} is missing: {said}");
    }
    // Where the system labels all files, it is more.
    let lost: u32 = said.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(lost >= 6, "{said}");
    for name in ["file", "other"] {
        assert_eq!(
            fs::read(place.target().join(name)).unwrap(),
            fs::read(place.source().join(name)).unwrap()
        );
    }
}

/// Copies to a full disk, and returns how many files the program says it has copied.
#[track_caller]
fn copy_to_full_disk(place: &Place, options: &[&str]) -> usize {
    let output = output(&mut copy_tree(place, options));
    assert_status(&output, 1);
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in [place.source().to_str().unwrap(), "No space left on device"] {
        assert!(said.contains(words), "{words} is missing: {said}");
    }
    for (path, seen) in look_at_all(&place.target()) {
        let source = place.source().join(&path);
        assert!(source.exists(), "{path:?} was left behind");
        assert!(source.is_dir() || seen.bytes == look(&source).bytes, "{path:?} is not whole");
    }
    let files = said.split(" at least ").nth(1).unwrap().split(' ').next().unwrap();
    files.parse().unwrap()
}

#[test]
fn full_disk_ends_the_copy() {
    if !has_own_mounts("full_disk_ends_the_copy") {
        return;
    }
    for options in [&["--workers", "3"][..], &["--workers", "3", "--verify"], &["--workers", "1"]] {
        let place = Place::large();
        let disk = Disk::mount(&place, "tmpfs", "size=16m");
        let copied = copy_to_full_disk(&place, options);
        let there =
            look_at_all(&disk.0).into_keys().filter(|path| disk.0.join(path).is_file()).count();
        assert!((1..=there).contains(&copied), "{copied} of {there}");
    }
}

#[test]
fn disk_without_room_for_another_folder_ends_the_copy() {
    if !has_own_mounts("disk_without_room_for_another_folder_ends_the_copy") {
        return;
    }
    for with_files in [true, false] {
        let place = Place::new();
        for number in 0..100 {
            fs::create_dir(place.source().join(format!("folder {number}"))).unwrap();
            if with_files {
                place.write(format!("folder {number}/file"), b"small");
            }
        }
        let _disk = Disk::mount(&place, "tmpfs", "nr_inodes=40");
        copy_to_full_disk(&place, &["--workers", "2"]);
    }
}

#[test]
fn disk_without_room_for_another_name_ends_the_copy() {
    if !has_own_mounts("disk_without_room_for_another_name_ends_the_copy") {
        return;
    }
    let place = Place::new();
    let first = place.write("name", b"one of many");
    for number in 0..100 {
        fs::hard_link(&first, place.source().join(format!("name {number}"))).unwrap();
    }
    let _disk = Disk::mount(&place, "tmpfs", "nr_inodes=40");
    assert_eq!(copy_to_full_disk(&place, &[]), 1);
}

/// Writes a file of 4 MiB with data in these places only.
fn write_with_holes(place: &Place, name: &str, data: &[(u64, usize)]) {
    let file = File::create(place.source().join(name)).unwrap();
    file.set_len(4 << 20).unwrap();
    for &(at, len) in data {
        file.write_all_at(&noise(1, len), at).unwrap();
    }
}

/// Files with holes of many sizes, all with whole blocks of data.
fn make_holes(place: &Place) {
    let every = |distance: u64| {
        (0..(4 << 20) / distance).map(|n| (n * distance, 8 << 10)).collect::<Vec<_>>()
    };
    write_with_holes(place, "small holes", &every(16 << 10));
    write_with_holes(place, "larger holes", &every(64 << 10));
    write_with_holes(place, "nothing", &[]);
    write_with_holes(place, "only a beginning", &[(0, 8 << 10)]);
    write_with_holes(place, "only an end", &[((4 << 20) - (8 << 10), 8 << 10)]);
    write_with_holes(place, "large island", &[(1 << 20, (1 << 20) + (8 << 10))]);
    let odd = File::options().append(true).open(place.source().join("larger holes")).unwrap();
    odd.set_len((4 << 20) + 12_345).unwrap();
}

#[test]
fn holes_of_any_size_stay_holes() {
    for options in [&["--workers", "1"][..], &["--verify"]] {
        let place = Place::new();
        make_holes(&place);
        let nothing = place.source().join("nothing").metadata().unwrap();
        if nothing.blocks() * 512 >= nothing.size() {
            return sandbox::skip("the filesystem makes no holes");
        }
        assert_status(&output(&mut copy_tree(&place, options)), 0);
        assert_same(&place);
        for found in fs::read_dir(place.source()).unwrap() {
            let name = found.unwrap().file_name();
            let blocks = |folder: PathBuf| folder.join(&name).metadata().unwrap().blocks();
            let (source, target) = (blocks(place.source()), blocks(place.target()));
            // A map of scattered blocks may itself take a few.
            assert!(target <= source + 32, "{name:?}: {target} blocks for {source}");
        }
    }
}

#[test]
#[expect(unsafe_code, reason = "no safe way to a child whose system calls are refused")]
fn large_holes_stay_holes_where_the_filesystem_does_not_know_of_them() {
    let ask = |what: i32| sandbox::Rule {
        call: libc::SYS_lseek,
        only: Some((2, u32::MAX, what.cast_unsigned())),
        errno: libc::EINVAL,
    };
    let rules = [ask(libc::SEEK_DATA), ask(libc::SEEK_HOLE)];
    for options in [&[][..], &["--verify"]] {
        let place = Place::new();
        make_holes(&place);
        let mut command = copy_tree(&place, options);
        let refuse = move || {
            sandbox::install(&rules);
            Ok(())
        };
        // SAFETY: it makes two system calls; the libc of every target that we have lets the copy of
        // a process allocate.
        unsafe { command.pre_exec(refuse) };
        assert_status(&output(&mut command), 0);
        assert_same(&place);
        let island = place.target().join("large island").metadata().unwrap();
        assert!(island.blocks() * 512 < island.size() / 2, "the holes were filled");
    }
}

/// A terminal, and what has been written to it.
fn terminal() -> (Stdio, Arc<Mutex<Vec<u8>>>) {
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut screen, to) = (File::from(pair.master), Arc::clone(&shown));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        // An error when nobody has the other side open any more.
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            to.lock().unwrap().extend(&bytes[..count]);
        }
    });
    (Stdio::from(pair.slave), shown)
}

/// Takes a line of the bar apart: per cent, bytes, files, and the time left.
fn read_bar(line: &str) -> Option<(u32, String, u32, String)> {
    let mut fields = line.rsplit("  ").map(str::trim);
    let [left, speed, files, bytes, bar] =
        std::array::from_fn(|_| fields.next().unwrap_or_default());
    let per_cent = bar.rsplit(' ').next()?.strip_suffix('%')?.parse().ok()?;
    let files = files.strip_suffix("/348 files")?.parse().ok()?;
    speed.strip_suffix("/s")?;
    Some((
        per_cent,
        bytes.strip_suffix("/144.03 MiB")?.to_owned(),
        files,
        left.strip_suffix(" left")?.to_owned(),
    ))
}

#[test]
fn bar_shows_per_cent_bytes_files_and_the_time_left() {
    let place = Place::large();
    for _ in 0..5 {
        let (screen, shown) = terminal();
        let bar = || {
            text(&shown.lock().unwrap())
                .split(['\r', '\n', '\x1b'])
                .filter_map(read_bar)
                .next_back()
        };
        let mut command = copy_tree(&place, &["--workers", "1", "--verify"]);
        let started = command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(screen).spawn();
        let mut run = Running(Some(started.unwrap()));
        // It keeps the terminal open.
        drop(command);
        let mut met = None;
        while met.is_none() && !run.has_ended() {
            // The worker goes on in small steps, lest it be done before anything is drawn.
            sleep(Duration::from_millis(3));
            for go_on in [Signal::STOP, Signal::CONT] {
                children(run.id()).into_iter().for_each(|worker| signal(worker, go_on));
                sleep(Duration::from_millis(if go_on == Signal::STOP { 60 } else { 0 }));
            }
            met = bar().filter(|(per_cent, ..)| *per_cent > 0);
        }
        assert_status(&run.output(), 0);
        if let Some((per_cent, bytes, files, left)) = met {
            assert!(
                (1..=100).contains(&per_cent) && (1..=348).contains(&files),
                "{per_cent} % and {files} files"
            );
            assert!(bytes.ends_with("iB"), "{bytes}");
            assert!(left.starts_with(|first: char| first.is_ascii_digit()), "{left}");
            return;
        }
        fs::remove_dir_all(place.target()).unwrap();
    }
    panic!("no run in 5 has shown a bar that moves");
}
