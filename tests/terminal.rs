//! Who gets the signal of `Ctrl-C`: this process and its children, and not the zygote.
#![expect(unsafe_code, reason = "ignores a signal")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use offspring::JoinError;

/// Set in the program that runs in the terminal.
const VARIABLE: &str = "IN_A_TERMINAL";

/// The program: a child that sleeps, and another one after `Ctrl-C`.
fn program() {
    let child = offspring::spawn(|()| std::thread::sleep(Duration::from_secs(600)), ())
        .expect("a child can be started");
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }.expect("SIGINT can be ignored");
    println!("ready");
    let joined = child.join();
    assert!(matches!(joined, Err(JoinError::Killed(2))), "{joined:?}");
    let next = offspring::spawn(|number: u64| number + 1, 6).expect("the zygote lives");
    println!("then {}", next.join().expect("it returns"));
}

#[test]
fn control_c_reaches_children_and_not_the_zygote() {
    if std::env::var_os(VARIABLE).is_some() {
        return program();
    }
    let test = std::env::current_exe().expect("this program has a path");
    let name = "control_c_reaches_children_and_not_the_zygote";
    // `script` runs a command in a terminal of its own, and types what it reads. It gives the
    // command to the user's shell. A shell that stayed would be ended by `Ctrl-C`, too: `exec`.
    let started = Command::new("script")
        .arg("-qec")
        .arg(format!("exec '{}' --exact {name} --nocapture --test-threads=1", test.display()))
        .arg("/dev/null")
        .env(VARIABLE, "1")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut terminal = match started {
        Ok(terminal) => terminal,
        Err(error) => {
            println!("skipped: there is no program `script` here: {error}");
            return;
        }
    };
    let mut keys = terminal.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(terminal.stdout.take().expect("a pipe")).lines();
    let mut wait_for = |text: &str| {
        let found = lines.any(|line| line.is_ok_and(|line| line.contains(text)));
        assert!(found, "{text:?} was not printed");
    };
    wait_for("ready");
    keys.write_all(b"\x03").expect("the terminal is open");
    wait_for("then 7");
    drop(keys);
    assert!(terminal.wait().expect("a child").success());
}
