//! What becomes of children when the program that started them ends by itself, and what a child
//! does when it ends.
#![expect(unsafe_code, reason = "registers a function that runs at the end")]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use offspring::{Builder, Event, StartMethod};

/// Says which program this is to be.
const VARIABLE: &str = "OFFSPRING_TEST_PROGRAM";

/// What a child does after a while.
fn say_late(text: String) {
    std::thread::sleep(Duration::from_millis(200));
    println!("{text}");
}

extern "C" fn say_goodbye() {
    println!("goodbye");
}

fn leave_with_a_handler(_: ()) -> u64 {
    // SAFETY: it may run at the end.
    assert_eq!(unsafe { libc::atexit(say_goodbye) }, 0);
    7
}

/// Starts a child that waits for ever, and ends.
fn leave_a_waiting_child(builder: Builder) {
    let began = Event::new().expect("an event");
    let child = builder
        .spawn(
            |began: Event| {
                began.set().expect("it is there");
                std::thread::sleep(Duration::from_secs(600));
            },
            began.clone(),
        )
        .expect("a child can be started");
    began.wait().expect("the child lives");
    // The harness has begun the line.
    println!("\n{}", child.id());
    std::mem::forget(child);
}

fn program(name: &str) {
    let text = || name.to_owned();
    match name {
        "joined" => drop(Builder::new().daemon(false).spawn(say_late, text())),
        "joined at exit" => {
            let child = Builder::new().daemon(false).spawn(say_late, text());
            std::mem::forget(child);
            std::process::exit(0);
        }
        "daemon" => leave_a_waiting_child(Builder::new()),
        "detached" => drop(Builder::new().detached(true).spawn(say_late, text())),
        "handler" => {
            for method in [StartMethod::Zygote, StartMethod::Spawn] {
                let child = Builder::new().method(method).spawn(leave_with_a_handler, ());
                assert_eq!(child.expect("a child").join().expect("it returns"), 7);
            }
        }
        other => panic!("no program {other:?}"),
    }
}

/// Runs the program in a process of its own, until it and all that write to its output have ended.
/// Gives what was printed.
fn run(name: &str) -> String {
    let test = std::env::current_exe().expect("this program has a path");
    let mut process = Command::new(test)
        .args(["--exact", "programs", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, name)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started");
    let mut printed = String::new();
    let mut output = process.stdout.take().expect("a pipe");
    output.read_to_string(&mut printed).expect("text");
    assert!(process.wait().expect("a child").success(), "{printed}");
    printed
}

/// What the other tests run; by itself it does nothing.
#[test]
fn programs() {
    if let Ok(name) = std::env::var(VARIABLE) {
        program(&name);
    }
}

#[test]
fn a_child_that_is_no_daemon_is_waited_for() {
    for name in ["joined", "joined at exit"] {
        assert!(run(name).contains(name));
    }
}

#[test]
fn a_daemon_ends_with_the_program() {
    // It would keep the output open for ten minutes.
    let printed = run("daemon");
    let pid = printed.lines().find_map(|line| line.parse::<u32>().ok()).expect("its id");
    while std::fs::exists(format!("/proc/{pid}")).expect("/proc is mounted") {
        std::thread::yield_now();
    }
}

#[test]
fn a_detached_child_goes_on() {
    assert!(run("detached").contains("detached"));
}

#[test]
fn what_is_registered_with_atexit_runs_in_a_child() {
    assert_eq!(run("handler").matches("goodbye").count(), 2);
}
