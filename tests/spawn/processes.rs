//! Processes and descriptors: what a child has, what is left of it, and many at a time.
#![expect(unsafe_code, reason = "descriptors that are inherited, and raw waits")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};
use offspring::{Builder, JoinError, StartMethod, spawn};

use crate::common::{
    descriptors, fork, sleep_for_ever, sleep_for_ever_returning_nothing, state, wait_until,
    wait_until_dead, wait_until_stopped,
};

use crate::scene::{METHODS, command, others, scene, signal, zygotes};

#[test]
fn many_threads_start_children_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            scope.spawn(move || {
                for round in 0..50 {
                    let method = METHODS[usize::from(round % 10 == 9)];
                    let children = [1, 2].map(|factor| {
                        let multiply = |(a, b): (u64, u64)| a * b;
                        let arguments = (thread * 1000 + round, factor);
                        Builder::new().method(method).spawn(multiply, arguments).expect("spawn")
                    });
                    let found = children.map(|child| child.join().expect("a value"));
                    assert_eq!(found, [1, 2].map(|factor| (thread * 1000 + round) * factor));
                }
            });
        }
    });
}

fn nested((depth, is_zygote): (u32, bool)) -> Vec<u32> {
    let mut pids = vec![std::process::id()];
    if depth > 0 {
        let method = METHODS[usize::from(!is_zygote)];
        let child = Builder::new().method(method).spawn(nested, (depth - 1, is_zygote));
        pids.extend(child.expect("spawn").join().expect("a value"));
    }
    pids
}

#[test]
fn children_have_children() {
    for is_zygote in [true, false] {
        let pids = spawn(nested, (4, is_zygote)).expect("spawn").join().expect("a value");
        assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 5, "{pids:?}");
    }
}

scene! {
fn spawn_and_fork_go_together() {
    let forks = |number: u64| {
        let child = fork(move || {
            let inner = spawn(|n: u64| n + 1, number).expect("spawn");
            inner.join().expect("a value") + 1
        });
        child.expect("one thread").join().expect("a value") + 1
    };
    for method in METHODS {
        let child = Builder::new().method(method).spawn(forks, 7).expect("spawn");
        assert_eq!(child.join().expect("a value"), 10);
    }
}
}

/// The tests of `tests/processes` fork from a program with one thread. So does this one: a child of
/// `spawn` has one.
#[test]
fn a_forked_child_has_a_zygote_of_its_own_and_none_of_its_parents_descriptors() {
    let scene = |()| {
        spawn(|()| (), ()).expect("spawn").join().expect("a value");
        let theirs = fork(|| {
            let before: Vec<String> = descriptors().into_values().collect();
            let parent = spawn(|()| std::os::unix::process::parent_id(), ()).expect("spawn");
            (before, parent.join().expect("a value") == std::process::id())
        });
        let (descriptors, is_own) = theirs.expect("one thread").join().expect("a value");
        let held = descriptors.iter().filter(|it| it.starts_with("socket:")).count();
        let pidfds = descriptors.iter().filter(|it| it.contains("pidfd")).count();
        let own = spawn(|()| std::os::unix::process::parent_id(), ()).expect("spawn");
        let still = own.join().expect("a value") == std::process::id();
        (held, pidfds, is_own, still)
    };
    let found = spawn(scene, ()).expect("spawn").join().expect("a value");
    assert_eq!(found, (0, 0, true, true));
}

scene! {
fn a_value_arrives_where_dead_children_are_forgotten() {
    // SAFETY: sets no handler.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }
        .expect("sigaction");
    for method in METHODS {
        for round in 0..50 {
            let child = Builder::new().method(method).spawn(|n: u64| n + 1, round).expect("spawn");
            assert_eq!(child.join().expect("a value"), round + 1);
            let exit = |code: i32| -> () { std::process::exit(code) };
            let child = Builder::new().method(method).spawn(exit, 3).expect("spawn");
            let ending: Result<(), _> = child.join();
            assert!(matches!(ending, Err(JoinError::Lost)), "{ending:?}");
        }
        zygotes().into_iter().for_each(|zygote| signal(zygote, SIGKILL));
    }
}
}

scene! {
fn a_value_arrives_where_somebody_waits_for_all_children() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let waiter = std::thread::spawn(move || {
        let mut waited = 0_u32;
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            // SAFETY: a null status is not written.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {
                waited += 1;
            } else {
                std::thread::yield_now();
            }
        }
        waited
    });
    for round in 0..200 {
        let method = METHODS[usize::from(round % 4 == 3)];
        let child = Builder::new().method(method).spawn(|n: u64| n + 1, round).expect("spawn");
        assert_eq!(child.join().expect("a value"), round + 1);
        let panics = Builder::new().method(method).stderr(offspring::Stream::Null);
        let panics = panics.spawn::<(), ()>(|()| panic!("no luck"), ()).expect("spawn").join();
        let Err(JoinError::Panicked(panic)) = panics else { panic!() };
        assert_eq!(panic.message, "no luck");
        if round % 20 == 0 {
            zygotes().into_iter().for_each(|zygote| signal(zygote, SIGKILL));
        }
    }
    drop(stop);
    assert!(waiter.join().expect("no panic") > 0);
}
}

/// What a process has open: number and target.
fn open(_: ()) -> Vec<(i32, String)> {
    descriptors().into_iter().collect()
}

scene! {
fn a_child_has_no_descriptor_but_its_own() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    let number = secret.as_file().as_raw_fd();
    // SAFETY: sets a flag.
    assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }, 0);
    // SAFETY: as above; the copy stays open.
    assert_eq!(unsafe { libc::dup2(number, 200) }, 200);
    // Also descriptors that other threads are about to use for other children.
    let _siblings: Vec<_> = METHODS
        .iter()
        .map(|&method| {
            let sleep = |()| sleep_for_ever_returning_nothing();
            Builder::new().method(method).spawn(sleep, ()).expect("spawn")
        })
        .collect();
    let _segment = offspring::Segment::create(1 << 20).expect("a segment");
    for method in METHODS {
        let found = Builder::new().method(method).spawn(open, ()).expect("spawn").join();
        let found = found.expect("a value");
        let strange: Vec<_> = found
            .iter()
            .filter(|(number, target)| {
                *number > 2 && !target.contains("memfd:offspring") && !target.starts_with("pipe:")
            })
            .collect();
        assert!(strange.is_empty(), "{method:?}: {strange:?}");
        let pipes = found.iter().filter(|(number, it)| *number > 2 && it.starts_with("pipe:"));
        assert_eq!(pipes.count(), 1, "its lifeline: {found:?}");
        let files = found.iter().filter(|it| it.1.contains("memfd:offspring")).count();
        // Outcome; two segments, each opened again for its locks.
        assert!(files <= 6, "{method:?}: {found:?}");
    }
    for zygote in zygotes() {
        let found: BTreeSet<String> = std::fs::read_dir(format!("/proc/{zygote}/fd"))
            .expect("it lives")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .collect();
        assert!(found.len() <= 4 && !found.iter().any(|it| it.contains("tmp")), "{found:?}");
    }
}
}

scene! {
fn the_parent_keeps_no_descriptor_and_no_process() {
    for method in METHODS {
        let few = |count: u64| {
            for round in 0..count {
                let child = Builder::new().method(method).spawn(|n: u64| n, round).expect("spawn");
                assert_eq!(child.join().expect("a value"), round);
            }
        };
        few(3);
        let before = descriptors();
        few(if method == StartMethod::Zygote { 500 } else { 100 });
        assert_eq!(descriptors().len(), before.len(), "{before:?}, {:?}", descriptors());
        assert_eq!(others(), []);
        assert_eq!(zygotes().len(), 1);
    }
}
}

scene! {
fn nothing_is_left_when_descriptors_run_out() {
    // Each call that needs a descriptor is refused in turn.
    let spawn_one = |method| Builder::new().method(method).spawn(|n: u64| n, 7);
    for method in METHODS {
        spawn_one(method).expect("spawn").join().expect("a value");
        let before = descriptors();
        let highest = *before.keys().last().expect("some");
        let mut refused = 0;
        for limit in 3..highest as u64 + 40 {
            nix::sys::resource::setrlimit(
                nix::sys::resource::Resource::RLIMIT_NOFILE,
                limit,
                4096,
            )
            .expect("setrlimit");
            let spawned = spawn_one(method).map(|child| child.join());
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 1024, 4096)
                .expect("setrlimit");
            match spawned {
                Err(offspring::SpawnError::Os { .. } | offspring::SpawnError::Commons(_)) => {
                    refused += 1;
                }
                Ok(Ok(7)) => {}
                // The child has the same limit when it is started anew.
                Ok(Err(JoinError::NotStarted(_) | JoinError::Os { .. } | JoinError::Exited(101))) => {}
                other => panic!("{method:?}, {limit}: {other:?}"),
            }
            assert_eq!(descriptors().len(), before.len(), "{method:?}, {limit}");
        }
        assert!(refused > 5, "{refused}");
        spawn_one(method).expect("spawn").join().expect("a value");
        wait_until("nothing is left", || others().is_empty());
    }
}
}

/// A test program that starts children and tells their pids, and its zygotes', by its output.
fn family(name: &str) -> (std::process::Child, Vec<u32>) {
    let mut parent = command(name)
        .env(FAMILY, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test program");
    let output = BufReader::new(parent.stdout.take().expect("a pipe"));
    let line = output
        .lines()
        .map(|line| line.expect("text"))
        .find_map(|line| Some(line.split_once("pids: ")?.1.to_owned()))
        .expect("it tells");
    let pids = line.split(' ').map(|pid| pid.parse().expect("a pid")).collect();
    (parent, pids)
}

const FAMILY: &str = "OFFSPRING_TEST_FAMILY";

fn live_in_a_family() {
    let children = METHODS.map(|method| {
        let child = Builder::new().method(method).spawn(
            |()| -> () {
                // Its own zygote and child end, too.
                let inner = spawn(|()| sleep_for_ever_returning_nothing(), ()).expect("spawn");
                println!("inner {}", inner.id());
                sleep_for_ever();
            },
            (),
        );
        child.expect("spawn")
    });
    let mut pids: Vec<u32> = zygotes();
    for child in &children {
        pids.push(child.id());
        wait_until("it has children", || {
            crate::common::processes::children_of(child.id()).len() == 2
        });
        pids.extend(crate::common::processes::children_of(child.id()).iter().map(|it| it.0));
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    println!("pids: {}", pids.join(" "));
    sleep_for_ever();
}

scene! {
fn children_and_zygotes_end_with_a_killed_parent() {
    if std::env::var_os(FAMILY).is_some() {
        live_in_a_family();
    }
    let name = concat!(module_path!(), "::children_and_zygotes_end_with_a_killed_parent");
    let (mut parent, pids) = family(name);
    assert_eq!(pids.len(), 7, "{pids:?}");
    assert!(pids.iter().all(|&pid| state(pid).is_some()));
    parent.kill().expect("it lives");
    pids.iter().for_each(|&pid| wait_until_dead(pid));
    parent.wait().expect("it is ours");
}
}

scene! {
fn stopped_children_and_zygotes_end_with_a_killed_parent() {
    if std::env::var_os(FAMILY).is_some() {
        live_in_a_family();
    }
    let name = concat!(module_path!(), "::stopped_children_and_zygotes_end_with_a_killed_parent");
    let (mut parent, pids) = family(name);
    for &pid in &pids {
        signal(pid, SIGSTOP);
        wait_until_stopped(pid);
    }
    parent.kill().expect("it lives");
    parent.wait().expect("it is ours");
    let start = std::time::Instant::now();
    let gone = |pid: u32| matches!(state(pid), Some('Z' | 'X') | None);
    while !pids.iter().all(|&pid| gone(pid)) && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let left: Vec<_> = pids.iter().filter(|&&pid| !gone(pid)).collect();
    let names = left.iter().map(|&&pid| crate::common::processes::describe(pid));
    let names: Vec<String> = names.collect();
    left.iter().for_each(|&&pid| signal(pid, SIGKILL));
    assert!(names.is_empty(), "{names:?}");
}
}

scene! {
fn a_stopped_parent_finds_its_children_as_they_were() {
    let child = spawn(|n: u64| n + 1, 7).expect("spawn");
    let own = std::process::id();
    let mut shell = Command::new("sh")
        .args(["-c", &format!("kill -STOP {own}; sleep 0.1; kill -CONT {own}")])
        .spawn()
        .expect("a shell");
    assert_eq!(child.join().expect("a value"), 8);
    assert_eq!(spawn(|n: u64| n + 1, 7).expect("spawn").join().expect("a value"), 8);
    shell.wait().expect("it is ours");
    let zygote = zygotes()[0];
    signal(zygote, SIGSTOP);
    wait_until_stopped(zygote);
    let late = std::thread::spawn(|| spawn(|n: u64| n + 1, 7).expect("spawn").join());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!late.is_finished());
    signal(zygote, SIGCONT);
    assert_eq!(late.join().expect("no panic").expect("a value"), 8);
}
}
