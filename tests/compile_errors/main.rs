//! What the compiler says to a user whose type cannot lie in shared memory, and that it says
//! nothing where a type can.
//!
//! The programs in `good` and `bad` are built as a user would build them: in a package of their own
//! that depends on this crate and on nothing else. A comment `//~ TEXT` stands on each line of a
//! bad program to which an error must point, and the error must contain the text; there must be no
//! other error. A line `//? TEXT` is a note that must appear as well.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of a folder beside this file.
fn programs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_errors").join(folder);
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut programs: Vec<_> = entries.map(|entry| entry.expect("is read").path()).collect();
    programs.sort();
    assert!(!programs.is_empty());
    programs
}

/// Makes a package of the programs, lets cargo check it, and gives what the compiler wrote.
fn check(name: &str, programs: &[PathBuf]) -> (bool, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&package).expect("a folder can be made");
    let mut manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\noffspring = {{ path = {root:?} }}\n"
    );
    for path in programs {
        let name = path.file_stem().expect("a file has a name");
        write!(manifest, "\n[[bin]]\nname = {name:?}\npath = {path:?}\n").expect("is written");
    }
    fs::write(package.join("Cargo.toml"), manifest).expect("a file can be written");
    fs::copy(Path::new(root).join("Cargo.lock"), package.join("Cargo.lock")).expect("is copied");

    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--bins", "--keep-going", "--color", "never"])
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_errors"))
        .current_dir(&package)
        .output()
        .expect("cargo can be run");
    (output.status.success(), String::from_utf8(output.stderr).expect("is text"))
}

#[test]
fn plain_structs_are_accepted() {
    let (success, messages) = check("good", &programs("good"));
    assert!(success && !messages.contains("warning"), "{messages}");
}

#[test]
fn other_types_are_refused_with_advice() {
    let programs = programs("bad");
    let (success, messages) = check("bad", &programs);
    assert!(!success, "{messages}");
    let messages: Vec<Message> = messages.split("\n\n").filter_map(Message::read).collect();

    let mut unexpected: Vec<&Message> = messages.iter().collect();
    for path in &programs {
        let source = fs::read_to_string(path).expect("is read");
        for (number, line) in (1..).zip(source.lines()) {
            if let Some((_, text)) = line.split_once("//~ ") {
                let place = format!("{}:{number}:", path.display());
                let here: Vec<_> =
                    messages.iter().filter(|message| message.place.starts_with(&place)).collect();
                assert!(
                    here.iter().any(|message| message.text.contains(text)),
                    "{place} is not said to be wrong because {text:?}, but: {here:#?}"
                );
                unexpected.retain(|message| !message.place.starts_with(&place));
            }
            if let Some(text) = line.strip_prefix("//? ") {
                let path = path.to_string_lossy();
                let found = messages.iter().any(|message| {
                    message.place.starts_with(&*path) && message.text.contains(text)
                });
                assert!(found, "{path}: nothing says {text:?}");
            }
        }
    }
    assert!(unexpected.is_empty(), "errors that no comment expects: {unexpected:#?}");
}

/// An error of the compiler.
#[derive(Debug)]
struct Message {
    /// `PATH:LINE:COLUMN`.
    place: String,
    /// What it says, without the lines of the program that it shows: they hold what is expected.
    text: String,
}

impl Message {
    /// Reads one of cargo's messages; those that point to no place are not the compiler's.
    fn read(message: &str) -> Option<Message> {
        let message = &message[message.find("error")?..];
        let (_, place) = message.lines().find_map(|line| line.split_once("--> "))?;
        let said: Vec<&str> = message.lines().filter(|line| !line.contains("//~ ")).collect();
        Some(Message { place: place.to_owned(), text: said.join("\n") })
    }
}
