//! Tests that need a process of their own: the test program is started again for the one test,
//! which then runs in its main thread.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use offspring::StartMethod;

use crate::common::processes::children_of;

/// Names the test that is to run here, in the process that was started for it.
const SCENE: &str = "OFFSPRING_TEST_SCENE";
/// A scene that takes longer hangs. No promise on time, a watchdog.
const HANGING: Duration = Duration::from_secs(300);

pub const METHODS: [StartMethod; 2] = [StartMethod::Zygote, StartMethod::Spawn];

/// Makes a test function of what runs in a process of its own.
macro_rules! scene {
    ($(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            crate::scene::play(concat!(module_path!(), "::", stringify!($name)), || $body);
        }
    };
}
pub(crate) use scene;

/// The command that runs the test of this name alone.
pub fn command(name: &str) -> Command {
    let (_, name) = name.split_once("::").expect("within the test program");
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(SCENE, name);
    command
}

/// Runs `body` in a process of its own, and checks that no process is left of it.
pub fn play(name: &str, body: impl FnOnce()) {
    let (_, short) = name.split_once("::").expect("within the test program");
    if std::env::var_os(SCENE).is_some_and(|wanted| wanted == short) {
        return body();
    }
    let mut output = tempfile::tempfile().expect("a file");
    let copy = |file: &File| Stdio::from(file.as_fd().try_clone_to_owned().expect("dup"));
    let mut process = command(name)
        .stdin(Stdio::null())
        .stdout(copy(&output))
        .stderr(copy(&output))
        .spawn()
        .expect("the test program");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().expect("it is ours") {
            break Some(status);
        }
        if start.elapsed() > HANGING {
            process.kill().expect("it is ours");
            process.wait().expect("it is ours");
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut text = String::new();
    output.rewind().expect("a file");
    output.read_to_string(&mut text).expect("text");
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{text}");
    assert!(text.contains("1 passed"), "it has not run:\n{text}");
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The zygotes among the children of a process.
pub fn zygotes_of(process: u32) -> Vec<u32> {
    let children = children_of(process).into_iter();
    children
        .filter(|&(pid, state)| state != 'Z' && name_of(pid) == "zygote")
        .map(|it| it.0)
        .collect()
}

pub fn zygotes() -> Vec<u32> {
    zygotes_of(std::process::id())
}

/// The children of this process that are no zygotes, with their states.
pub fn others() -> Vec<(u32, char)> {
    let zygotes = zygotes();
    let mut children = children_of(std::process::id());
    children.retain(|(pid, _)| !zygotes.contains(pid));
    children
}

pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).expect("signal");
}
