//! A command and a child of this program, connected by a pipe: `cargo run --example subprocess`.
//!
//! ```text
//! child: a function --- its standard output ---> sort: a command --- a pipe ---> this process
//! ```
//! Commands are the standard library's business, and go together with children.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use offspring::Builder;

/// Runs in a process of its own, whose standard output is the command's input.
fn print(words: Vec<String>) -> usize {
    words.iter().for_each(|word| println!("{word}"));
    words.len()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sort = Command::new("sort")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = sort.stdin.take().ok_or("no pipe to the command")?;
    let words = ["pear", "apple", "quince", "fig"].map(str::to_owned).to_vec();
    let child = Builder::new().stdout(OwnedFd::from(input)).spawn(print, words)?;
    println!("process {} prints into process {}", child.id(), sort.id());
    let printed = child.join()?;

    // Reads both pipes at once, so that neither of them blocks the command, and waits for it.
    let sorted = sort.wait_with_output()?;
    print!("{}", String::from_utf8(sorted.stdout)?);
    if !sorted.status.success() {
        return Err(String::from_utf8_lossy(&sorted.stderr).into());
    }
    println!("{printed} words, {}", sorted.status);

    // What a command says about a failure, and the code with which it exits.
    let failed = Command::new("sh").args(["-c", "echo no such fruit >&2; exit 3"]).output()?;
    print!("a command failed: {}", String::from_utf8(failed.stderr)?);
    println!("its exit code is {:?}", failed.status.code());
    if failed.status.code() == Some(3) { Ok(()) } else { Err("another code".into()) }
}
