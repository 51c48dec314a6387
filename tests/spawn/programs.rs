//! How a program becomes a child, and when it does not.
#![expect(unsafe_code, reason = "functions before main, users, and raw streams")]

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use offspring::{Builder, Failure, JoinError, SpawnError, preload, spawn};

use crate::common::sandbox;
use crate::scene::{METHODS, command, others, scene, zygotes};

/// The variable that makes the program a child, with its standard input.
const MARKER: &str = "OFFSPRING_START";
/// With this variable a process of the test program that was started as a child, and yet comes to
/// its `main`, ends instead: it would run all tests, and start more such processes.
const NO_MAIN: &str = "OFFSPRING_TEST_NO_MAIN";
/// And with this code.
const CAME_TO_MAIN: i32 = 77;

static EARLY: AtomicU32 = AtomicU32::new(0);
static LATE: AtomicU32 = AtomicU32::new(0);

extern "C" fn early() {
    EARLY.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn late() {
    LATE.fetch_add(1, Ordering::Relaxed);
    if std::env::var_os(NO_MAIN).is_some() && std::env::var_os(MARKER).is_some() {
        // SAFETY: takes no pointer.
        unsafe { libc::_exit(CAME_TO_MAIN) };
    }
}

// As crates do that register something before `main`: the section is a list of functions.
#[used]
#[unsafe(link_section = ".init_array.00200")]
static RUN_EARLY: extern "C" fn() = early;
// Where the linker sorts by number, behind those without one.
#[used]
#[unsafe(link_section = ".init_array.65537")]
static RUN_LATE: extern "C" fn() = late;

fn counts() -> [u32; 2] {
    [&EARLY, &LATE].map(|count| count.load(Ordering::Relaxed))
}

#[test]
fn what_runs_before_main_runs_once_in_a_child() {
    assert_eq!(counts(), [1, 1]);
    for method in METHODS {
        let child = Builder::new().method(method).spawn(|()| counts(), ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), [1, 1], "{method:?}");
    }
}

#[test]
fn a_child_does_not_know_the_marker_and_has_its_program_name() {
    for method in METHODS {
        let look = |()| {
            let name = std::env::args().next();
            (std::env::var_os(MARKER).is_none(), name)
        };
        let child = Builder::new().method(method).spawn(look, ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), (true, std::env::args().next()), "{method:?}");
    }
}

/// Runs the test program with this marker and this standard input; whether it came to its `main`.
fn comes_to_main(marker: &str, input: impl Into<Stdio>) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    let output = command
        .args(["no test has this name"])
        .env(MARKER, marker)
        .stdin(input)
        .output()
        .expect("the test program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && text.contains("0 passed")
}

#[test]
fn a_marker_without_the_right_socket_is_ignored() {
    let own = std::process::id();
    for role in ["child", "zygote"] {
        let marker = format!("{role}:{own}");
        assert!(comes_to_main(&marker, Stdio::null()));
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        assert!(comes_to_main(&marker, reader));
        // A socket that another process has made.
        let [ours, _theirs] = UnixStream::pair().expect("a pair").into();
        assert!(comes_to_main(&format!("{role}:1"), std::os::fd::OwnedFd::from(ours)));
        // One of another kind, which nobody has made.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        for maker in [0, own] {
            let stream = std::net::TcpStream::connect(address).expect("it listens");
            let marker = format!("{role}:{maker}");
            assert!(comes_to_main(&marker, std::os::fd::OwnedFd::from(stream)), "{marker}");
        }
    }
    for marker in ["", ":", "child", "child:", "zygote:x", "other:1"] {
        let [ours, _theirs] = UnixStream::pair().expect("a pair").into();
        assert!(comes_to_main(marker, std::os::fd::OwnedFd::from(ours)), "{marker}");
    }
}

scene! {
fn in_a_new_pid_namespace_there_is_no_zygote_and_no_main_of_a_child() {
    fn nothing_fails() -> Result<(), Failure> {
        Ok(())
    }
    let [ours, _theirs] = UnixStream::pair().expect("a pair").into();
    if let Err(refused) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID) {
        return println!("skipped: a pid namespace is refused: {refused}");
    }
    // The one of this thread; the main thread's children stay.
    let refused = preload(nothing_fails);
    assert!(matches!(refused, Err(SpawnError::PidNamespace)), "{refused:?}");
    let refused = spawn(|()| (), ()).map(drop);
    assert!(matches!(refused, Err(SpawnError::PidNamespace)), "{refused:?}");
    // Its first process, which does not see who has made the socket.
    let marker = format!("zygote:{}", std::process::id());
    assert!(!comes_to_main(&marker, std::os::fd::OwnedFd::from(ours)));
}
}

#[test]
fn a_child_whose_parent_has_gone_before_its_request_ends() {
    for role in ["child", "zygote"] {
        let [ours, theirs] = UnixStream::pair().expect("a pair").into();
        let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
        let mut process = command
            .env(MARKER, format!("{role}:{}", std::process::id()))
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .expect("the test program");
        drop(command);
        drop(ours);
        let status = process.wait().expect("it is ours");
        assert_eq!(status.code(), Some(if role == "child" { 101 } else { 0 }));
    }
}

scene! {
fn after_a_change_of_the_user_there_is_a_new_zygote() {
    if !sandbox::is_root() {
        return;
    }
    // SAFETY: this process has one thread that counts, and is there for this test alone.
    let ids = |()| [unsafe { libc::getuid() }, unsafe { libc::geteuid() }];
    assert_eq!(spawn(ids, ()).expect("spawn").join().expect("a value"), [0, 0]);
    let first = zygotes();
    std::env::set_current_dir("/").expect("a folder");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setuid(12345) }, 0);
    let child = spawn(ids, ()).expect("spawn");
    assert_eq!(child.join().expect("a value"), [12345, 12345]);
    let second = zygotes();
    assert!(second.iter().any(|it| !first.contains(it)), "{first:?}, {second:?}");
    assert_eq!((second.len(), others()), (1, vec![]), "the first has ended, and is no zombie");
    let child = Builder::new().method(offspring::StartMethod::Spawn).spawn(ids, ());
    assert_eq!(child.expect("spawn").join().expect("a value"), [12345, 12345]);
}
}

scene! {
fn a_program_that_has_borrowed_a_user_does_not_run_again() {
    if !sandbox::is_root() {
        return;
    }
    // SAFETY: this process has one thread that counts.
    unsafe { std::env::set_var(NO_MAIN, "1") };
    // SAFETY: as above. The real user stays root, so what this process executes has `AT_SECURE`.
    assert_eq!(unsafe { libc::seteuid(12345) }, 0);
    for method in METHODS {
        let spawned = Builder::new().method(method).spawn(|()| 7, ());
        match spawned {
            Err(SpawnError::MoreRights) => {}
            Ok(child) => panic!("{method:?}: {:?}", child.join()),
            Err(other) => panic!("{method:?}: {other}"),
        }
    }
    assert_eq!(others(), []);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::seteuid(0) }, 0);
    assert_eq!(spawn(|()| 7, ()).expect("spawn").join().expect("a value"), 7);
}
}

scene! {
fn a_working_folder_that_may_not_be_opened_is_kept() {
    if !sandbox::is_root() {
        return;
    }
    // As root's own folder, in which a daemon begins that then becomes another user.
    let folder = tempfile::tempdir().expect("a folder");
    std::env::set_current_dir(folder.path()).expect("it is there");
    // SAFETY: this process has one thread that counts.
    assert_eq!(unsafe { libc::setuid(12345) }, 0);
    for method in METHODS {
        let child = Builder::new().method(method).spawn(|n: u64| n + 1, 41).expect("spawn");
        assert_eq!(child.join().expect("a value"), 42, "{method:?}");
    }
    // The folder is root's.
    std::mem::forget(folder);
}
}

scene! {
fn a_program_whose_file_was_replaced_goes_on() {
    // The scene runs a copy, which then is another file.
    const COPY: &str = "OFFSPRING_TEST_COPY";
    if std::env::var_os(COPY).is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("copy");
        std::fs::copy("/proc/self/exe", &copy).expect("a copy");
        let original = command(concat!(
            module_path!(),
            "::a_program_whose_file_was_replaced_goes_on"
        ));
        let mut command = Command::new(&copy);
        command.args(original.get_args()).env(COPY, &copy);
        assert!(command.status().expect("the copy").success());
        return;
    }
    let copy = std::env::var_os(COPY).expect("set");
    assert_eq!(spawn(|()| 7, ()).expect("spawn").join().expect("a value"), 7);
    std::fs::remove_file(&copy).expect("it is there");
    std::fs::copy("/bin/true", &copy).expect("a copy");
    for zygote in zygotes() {
        crate::scene::signal(zygote, nix::sys::signal::Signal::SIGKILL);
    }
    for method in METHODS {
        let child = Builder::new().method(method).spawn(|()| 7, ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), 7, "{method:?}");
    }
}
}

scene! {
fn a_program_that_the_dynamic_linker_was_told_to_run_says_so() {
    const TOLD: &str = "OFFSPRING_TEST_LINKER";
    let linker = "/lib64/ld-linux-x86-64.so.2";
    if std::env::var_os(TOLD).is_none() {
        if !std::path::Path::new(linker).exists() {
            return;
        }
        let original = command(concat!(
            module_path!(),
            "::a_program_that_the_dynamic_linker_was_told_to_run_says_so"
        ));
        let mut command = Command::new(linker);
        command.arg(std::env::current_exe().expect("/proc")).args(original.get_args());
        assert!(command.env(TOLD, "1").status().expect("the linker").success());
        return;
    }
    for method in METHODS {
        let spawned = Builder::new().method(method).spawn(|()| 7, ());
        assert!(matches!(spawned, Err(SpawnError::NotOurProgram)), "{method:?}: {spawned:?}");
    }
}
}

#[test]
fn a_function_to_run_before_that_ends_the_process_is_told() {
    let child = Builder::new().before(|| std::process::exit(3)).spawn(|()| 7, ()).expect("spawn");
    let ending = child.join();
    assert!(matches!(ending, Err(JoinError::Exited(3))), "{ending:?}");
}

#[test]
fn a_child_can_become_another_program() {
    for method in METHODS {
        let exec = |()| -> () {
            let refused = Command::new("/bin/true").exec();
            panic!("{refused}");
        };
        let ending = Builder::new().method(method).spawn(exec, ()).expect("spawn").join();
        assert!(matches!(ending, Err(JoinError::Exited(0))), "{method:?}: {ending:?}");
    }
}
