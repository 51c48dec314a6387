//! Runs the tests: one after the other, each in a process of its own that has one thread, as
//! `offspring::fork` demands.
//!
//! A test says by its attribute what it is to find and what it may leave: [`test`], [`apart`] or
//! [`fresh`]. The attribute enters it into a list that the linker puts together, so there is no
//! list to keep by hand; a function that lacks the attribute is one that nobody calls, and the
//! compiler says so.
//!
//! [`supervisor`](super::supervisor) watches each test from outside.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use linkme::distributed_slice;

pub use macro_rules_attribute::apply;

use crate::common::raw::Board;
use crate::common::{children, descriptors, fork, processes, sandbox};
use crate::supervisor::supervise;

/// A test, as its attribute enters it.
pub struct Test {
    /// With the path of its module.
    pub name: &'static str,
    pub run: fn(),
    /// Whether it begins before this process has used the crate.
    pub fresh: bool,
}

#[distributed_slice]
pub static TESTS: [Test];

/// Registers a test: `#[apply(test)]`. Its process has already forked once by the crate, so the
/// commons are there. When it is done, no child may be left, alive or dead, and no descriptor.
macro_rules! test {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $crate::harness::enter!($name, run: $name, fresh: false);
        $(#[$attribute])* fn $name() $body
    };
}

/// As [`test`], for one that leaks what it must: it runs in a raw fork of such a process.
macro_rules! apart {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $crate::harness::enter!(
            $name,
            run: || $crate::common::raw::fork($name).join(),
            fresh: false
        );
        $(#[$attribute])* fn $name() $body
    };
}

/// As [`test`], for one to which the first use of the crate is left. The descriptors that come
/// with it may stay.
macro_rules! fresh {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $crate::harness::enter!($name, run: $name, fresh: true);
        $(#[$attribute])* fn $name() $body
    };
}

macro_rules! enter {
    ($name:ident, run: $run:expr, fresh: $fresh:expr) => {
        const _: () = {
            #[expect(unsafe_code, reason = "linkme chooses the section of the program")]
            #[linkme::distributed_slice($crate::harness::TESTS)]
            static ENTRY: $crate::harness::Test = $crate::harness::Test {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: $run,
                fresh: $fresh,
            };
        };
    };
}

pub(crate) use {apart, enter, fresh, test};

/// The name of a function without that of this program.
pub fn within_program(path: &'static str) -> &'static str {
    path.split_once("::").map_or(path, |(_, rest)| rest)
}

/// Runs the tests that the command line selects, whatever it says about threads.
pub fn run() -> ExitCode {
    processes::adopt_orphans();
    let mut arguments = Arguments::from_args();
    // With one thread, libtest-mimic starts none and runs the tests in the one that called it.
    arguments.test_threads = Some(1);
    let mut tests: Vec<&'static Test> = TESTS.iter().collect();
    // The linker promises no order.
    tests.sort_unstable_by_key(|test| test.name);
    let told = Board::new();
    let trial = |test: &'static Test| {
        Trial::test(within_program(test.name), move || {
            supervise(told, || leaves_nothing(test)).map_err(Failed::from)
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// A file that no `mod` names is not compiled, and its tests do not run.
#[apply(test)]
fn every_file_here_is_a_module() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes");
    let Ok(entries) = std::fs::read_dir(here) else {
        return sandbox::skip("the source is not on this machine");
    };
    for entry in entries {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".rs")).expect("a source file");
        let line = format!("\nmod {name};\n");
        assert!(name == "main" || include_str!("main.rs").contains(&line), "no{line}in main.rs");
    }
}

/// Runs a test in this process and says what it has left.
fn leaves_nothing(test: &Test) -> Result<(), String> {
    sandbox::no_core();
    if !test.fresh {
        // A program whose parent ignored SIGCHLD would lose the status of every child.
        fork(|| ()).expect("the first fork").join().expect("the first child");
    }
    let before = descriptors();
    (test.run)();
    let children = children();
    if !children.is_empty() {
        return Err(format!("children left: {children:?}"));
    }
    let after = descriptors();
    if !test.fresh && before != after {
        return Err(format!("descriptors before: {before:?}\nafter: {after:?}"));
    }
    Ok(())
}
