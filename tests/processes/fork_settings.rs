//! Copies of a process that a builder has settings for.
#![expect(unsafe_code, reason = "a test says of itself what its child uses")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use offspring::{Builder, Child, Failure, ForkError, JoinError, Return, Segment, Stream, channel};

use crate::common;
use crate::harness::{apply, test};

fn fork<F, T>(builder: Builder, closure: F) -> Result<Child<T>, ForkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Return,
{
    // SAFETY: as for `common::fork`.
    unsafe { builder.fork(closure) }
}

fn comm() -> String {
    std::fs::read_to_string("/proc/self/comm").expect("a name").trim_end().to_owned()
}

#[apply(test)]
fn a_copy_is_as_its_builder_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("it is there");
    let ((input, mut to_child), (mut from_child, output)) =
        (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    to_child.write_all(b"seven").expect("room");
    drop(to_child);
    let builder = Builder::new()
        .name("a name that is too long")
        .env("GREETING", "hello")
        .env_remove("PATH")
        .current_dir(&path)
        .stdin(input)
        .stdout(output)
        .stderr(Stream::Null)
        .memory_limit(1 << 40)
        .cpu_limit(Duration::from_millis(8_500));
    let captured = vec![7_u8; 3];
    let child = fork(builder, move || {
        let mut read = String::new();
        std::io::stdin().read_to_string(&mut read).expect("text");
        println!("{read} {captured:?}");
        let stderr = std::fs::read_link("/proc/self/fd/2").expect("a link");
        let limits = [Resource::RLIMIT_DATA, Resource::RLIMIT_CPU].map(|it| getrlimit(it).ok());
        (
            (comm(), offspring::current_name().map(str::to_owned)),
            (std::env::var("GREETING").ok(), std::env::var_os("PATH").is_some()),
            std::env::var_os("HOME").is_some(),
            std::env::current_dir().expect("a folder") == path,
            stderr.to_string_lossy().into_owned(),
            limits.map(|limit| limit.map(|(soft, _)| soft)),
        )
    });
    let found = child.expect("fork").join().expect("a value");
    let expected = (
        ("a name that is ".trim_end().to_owned(), Some("a name that is too long".to_owned())),
        (Some("hello".to_owned()), false),
        std::env::var_os("HOME").is_some(),
        true,
        "/dev/null".to_owned(),
        [Some(1 << 40), Some(9)],
    );
    assert_eq!(
        ((found.0.0.trim_end().to_owned(), found.0.1), found.1, found.2, found.3, found.4, found.5),
        expected
    );
    // Nobody else has an end of it.
    let mut printed = String::new();
    from_child.read_to_string(&mut printed).expect("text");
    assert_eq!(printed, "seven [7, 7, 7]\n");
    assert_eq!(offspring::current_name(), None, "it is the child's");
}

#[apply(test)]
fn a_copy_has_no_variable_but_those_that_were_set() {
    let builder = Builder::new().env("BEFORE", "1").env_clear().env("AFTER", "2");
    let child = fork(builder, || std::env::vars().collect::<Vec<_>>());
    let found = child.expect("fork").join().expect("a value");
    assert_eq!(found, [("AFTER".to_owned(), "2".to_owned())]);
}

/// The first as the second, and the other way round.
#[apply(test)]
fn streams_can_change_places() {
    let open = common::fork(|| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // They have the numbers of standard streams.
        let at = |number: RawFd, pipe: &dyn AsRawFd| {
            // SAFETY: nobody uses the streams of this process.
            assert_eq!(unsafe { libc::dup2(pipe.as_raw_fd(), number) }, number);
            // SAFETY: as above.
            unsafe { OwnedFd::from_raw_fd(number) }
        };
        let (output, input) = (at(0, &writer), at(1, &reader));
        let builder = Builder::new().stdin(input).stdout(output);
        let child = fork(builder, || {
            std::io::stdout().write_all(b"through itself\n").expect("room");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).expect("text");
            line
        });
        child.expect("fork").join().expect("a value")
    });
    assert_eq!(open.expect("fork").join().expect("a value"), "through itself\n");
}

#[apply(test)]
fn what_cannot_be_is_told_and_the_closure_does_not_run() {
    let (sender, receiver) = channel::<u64>(4).expect("a channel");
    let not_started = |builder: Builder| {
        let sender = sender.clone();
        let child = fork(builder, move || sender.send(1).expect("room"));
        match child.expect("fork").join() {
            Err(JoinError::NotStarted(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let folder = tempfile::tempdir().expect("a folder").path().join("gone");
    let why = not_started(Builder::new().current_dir(folder));
    assert!(why.starts_with("chdir failed: No such file"), "{why}");
    let why = not_started(Builder::new().before(|| Err(Failure::new("no sandbox here"))));
    assert_eq!(why, "the function to run before failed: no sandbox here");
    // Its panic need not be seen.
    let why = not_started(Builder::new().stderr(Stream::Null).before(|| panic!("no")));
    assert_eq!(why, "the function to run before panicked");
    let refused = fork(Builder::new().name("a\0b"), || ());
    assert!(matches!(refused, Err(ForkError::Name { name }) if name == "a\0b"));
    for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "\0")] {
        let refused = fork(Builder::new().env(name, value), || ());
        assert!(matches!(refused, Err(ForkError::Variable { name: told }) if told == name));
    }
    let segment = Segment::create(1 << 20).expect("a segment");
    for builder in [Builder::new().segments([&segment]), Builder::new().read_only([&segment])] {
        let try_it = std::panic::AssertUnwindSafe(|| drop(fork(builder, || ())));
        assert!(std::panic::catch_unwind(try_it).is_err(), "it would have all segments");
    }
    drop(sender);
    assert!(receiver.recv().is_err(), "nothing was sent");
}

#[apply(test)]
fn a_detached_copy_outlives_its_parent_and_another_does_not() {
    for is_detached in [true, false] {
        let (sender, receiver) = channel::<u64>(4).expect("a channel");
        let (begun, is_there) = channel::<u64>(4).expect("a channel");
        let middle = common::fork(move || {
            let builder = Builder::new().detached(is_detached);
            let child = fork(builder, move || {
                begun.send(7).expect("somebody listens");
                std::thread::sleep(Duration::from_millis(300));
                sender.send(std::process::id().into()).expect("somebody listens");
                offspring::end_with_parent().is_err()
            });
            std::mem::forget(child.expect("fork"));
            assert_eq!(is_there.recv(), Ok(7));
        });
        middle.expect("fork").join().expect("a value");
        assert_eq!(receiver.recv().is_ok(), is_detached);
    }
}

#[apply(test)]
fn a_copy_that_is_no_daemon_is_waited_for() {
    for is_daemon in [true, false] {
        let (sender, receiver) = channel::<u64>(4).expect("a channel");
        let middle = common::fork(move || {
            let child = fork(Builder::new().daemon(is_daemon), move || {
                std::thread::sleep(Duration::from_millis(200));
                sender.send(7).expect("somebody listens");
            });
            std::mem::forget(child.expect("fork"));
            std::process::exit(3);
        });
        let joined: Result<(), _> = middle.expect("fork").join();
        assert!(matches!(joined, Err(JoinError::Exited(3))), "{joined:?}");
        assert_eq!(receiver.try_recv().is_ok(), !is_daemon);
    }
}
