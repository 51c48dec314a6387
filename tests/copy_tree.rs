//! The example `copy_tree`, run as a user runs it: a real folder, real processes, real signals.
//!
//! To hit a worker in the middle of a file and not beside it, a test looks for a temporary file, stops the process that its
//! name gives, and looks again: if the file is still there, the worker is in the middle of it for as long as the test likes.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What has not come to pass by then never will. No promise on time, a watchdog.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the name of each temporary file begins.
const TEMPORARY: &str = ".copy_tree.";

/// The example lies beside the tests: `target/<profile>/examples/copy_tree`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/copy_tree");
    assert!(path.exists(), "{path:?} is missing: `cargo test` builds it, as does `cargo build --examples`");
    path
}

fn copy_tree(place: &Place, options: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg(place.source()).arg(place.target()).args(options).stdin(Stdio::null());
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
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.source()).unwrap();
        place
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

/// Bytes that differ from file to file. They repeat, but not at a distance at which a program might mix up blocks.
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
    Seen { mode: data.mode(), owner: (data.uid(), data.gid()), modified, links: data.nlink(), bytes }
}

/// Everything under a folder, and the folder itself under the empty name.
fn look_at_all(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        if full.symlink_metadata().unwrap().is_dir() {
            open.extend(fs::read_dir(&full).unwrap().map(|found| path.join(found.unwrap().file_name())));
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
        assert!(*seen == target[path], "{path:?} differs: {:?}", Seen { bytes: Vec::new(), ..look(&place.target().join(path)) });
    }
}

fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = found.map(|found| found.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().as_bytes().starts_with(TEMPORARY.as_bytes())).collect()
}

fn children(of: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The letter that the kernel gives for the state of a process; `Z`, a zombie, also stands for none at all.
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
        let mut run = Running::start(copy_tree(place, &["--workers", "3", "--verify"]).process_group(0));
        let start = Instant::now();
        while !run.has_ended() {
            assert!(start.elapsed() < PATIENCE, "the program has not ended after {} s", PATIENCE.as_secs());
            for temporary in temporaries(&place.target()) {
                let name = text(temporary.file_name().unwrap().as_bytes());
                let stopped = name.split('.').nth(3).unwrap().parse().unwrap();
                let workers = children(run.id());
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
    rustix::fs::mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
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
    let open = |path: &Path| rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let below = |folder| rustix::fs::openat(folder, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut folder = open(&place.source());
    for _ in 0..80 {
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = below(folder);
    }
    let create = OFlags::CREATE | OFlags::WRONLY;
    File::from(rustix::fs::openat(&folder, "file", create, Mode::RUSR).unwrap()).write_all(b"far down").unwrap();

    assert_status(&output(&mut copy_tree(&place, &["--verify"])), 0);
    let mut folder = open(&place.target());
    for _ in 0..80 {
        folder = below(folder);
    }
    let file = File::from(rustix::fs::openat(&folder, "file", OFlags::RDONLY, Mode::empty()).unwrap());
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
    // Root may read everything, so in that case somebody else makes the copy, with a binary that he can reach.
    let mut command = if rustix::process::geteuid().is_root() {
        let here = place.0.path();
        fs::set_permissions(here, Permissions::from_mode(0o777)).unwrap();
        fs::copy(binary(), here.join("copy_tree")).unwrap();
        let mut command = Command::new(here.join("copy_tree"));
        command.uid(65534).gid(65534).arg(place.source()).arg(place.target());
        command
    } else {
        copy_tree(&place, &[])
    };
    let output = output(command.arg("--verify"));
    assert_status(&output, 1);
    let said = text(&output.stderr);
    for name in ["secret file", "secret folder"] {
        let line = said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} is not named: {said}"));
        assert!(line.contains("Permission denied"), "{line}");
    }
    for number in 0..200 {
        let name = format!("file {number}");
        let (source, target) = (look(&place.source().join(&name)), look(&place.target().join(&name)));
        assert_eq!((source.mode, source.modified, source.bytes), (target.mode, target.modified, target.bytes));
    }
    assert!(!place.target().join("secret file").exists());
    fs::set_permissions(place.source().join("secret folder"), Permissions::from_mode(0o700)).unwrap();
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
    assert!(said.lines().any(|line| line.contains("worker") && line.contains(&format!("(process {pid}) died"))), "{said}");
    assert_same(&place);
}

#[test]
fn all_workers_killed_at_once_are_replaced() {
    let place = Place::large();
    let caught = catch_a_worker(&place);
    let workers = caught.workers.clone();
    for &worker in &workers {
        signal(worker, Signal::KILL);
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
        rustix::process::kill_process_group(Pid::from_raw(parent.try_into().unwrap()).unwrap(), signal_).unwrap();
    } else {
        signal(parent, signal_);
    }
    let output = caught.output();
    assert_status(&output, status);
    assert_gone(&workers);
    assert_eq!(temporaries(&place.target()), Vec::<PathBuf>::new());
    for found in fs::read_dir(place.target()).unwrap() {
        let name = found.unwrap().file_name();
        let (source, target) = (look(&place.source().join(&name)), look(&place.target().join(&name)));
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
    assert!(!temporaries(&place.target()).is_empty(), "the worker was stopped in the middle of a file");
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
    for (from, to) in [(&source, &source.join("inside")), (&source, &source), (&source, &place.0.path().to_path_buf())] {
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
