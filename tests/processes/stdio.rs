//! Whatever a program prints without having standard streams is lost, and lands nowhere else.
//!
//! A daemon closes its standard streams, and the next files that it opens get their numbers. The
//! crate's descriptors once got them, too: what the program printed then was written over the
//! header of a segment, or into the value that a child was sending. So none of ours has such a
//! number, whichever of the streams are closed, in the process that closed them and in its
//! children.
//!
//! Each test starts this program again, as everything here has to happen before the first use of
//! the crate.

#![expect(unsafe_code, reason = "closes standard streams")]

use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use offspring::{ByteQueue, JoinError, Lock, Queue, Segment, SegmentOptions, spsc};

use crate::common::{self, fork};
use crate::harness::{apply, test};
use crate::role::{self, role};

/// Each combination of standard streams, as digits.
fn combinations() -> impl Iterator<Item = String> {
    (0..8).map(|set: u8| {
        ['0', '1', '2']
            .into_iter()
            .zip(0..)
            .filter(|&(_, bit)| set >> bit & 1 == 1)
            .map(|(digit, _)| digit)
            .collect()
    })
}

fn play_without_streams(what: &str) {
    for streams in combinations() {
        let mut command = role::command(&format!("stdio::{what} {streams}"));
        let output =
            command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output().expect("start");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "without \"{streams}\": {}\n{text}", output.status);
        // What was printed where there was a stream is there.
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            printed.contains("a line"),
            !streams.contains('1'),
            "without \"{streams}\": {printed}"
        );
    }
}

/// The streams that a role is to do without. Its panics are reported although it closes them.
fn without(streams: &str) -> Vec<RawFd> {
    report_elsewhere();
    streams.bytes().map(|digit| RawFd::from(digit - b'0')).collect()
}

/// Has panics reported to what was standard error at the beginning, which the role is about to
/// close.
fn report_elsewhere() {
    // SAFETY: takes integers; nobody closes the copy.
    let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 100) };
    assert!(copy >= 100);
    std::panic::set_hook(Box::new(move |info| {
        let text = format!("{info}\n");
        // SAFETY: the text and its length are what they say.
        unsafe { libc::write(copy, text.as_ptr().cast(), text.len()) };
    }));
}

fn close(streams: &[RawFd]) {
    for &stream in streams {
        // SAFETY: the standard library can do without its streams.
        assert_eq!(unsafe { libc::close(stream) }, 0);
    }
}

/// Prints a line on both streams, wherever that goes.
fn chat() {
    let _ = writeln!(
        std::io::stdout(),
        "a line that is long enough to do harm wherever it lands: {}",
        "x".repeat(200)
    );
    let _ = std::io::stdout().flush();
    let _ = writeln!(
        std::io::stderr(),
        "a line that is long enough to do harm wherever it lands: {}",
        "x".repeat(200)
    );
}

/// Checks that the streams are as closed as they were, and nothing of ours has their numbers.
#[track_caller]
fn stays_clear(streams: &[RawFd], after: &str) {
    chat();
    let open = common::descriptors();
    for stream in streams {
        // The folder itself is read by a descriptor that gets the first number that is free.
        assert_eq!(open.get(stream), None, "after {after}: {open:?}");
    }
}

#[apply(test)]
fn nothing_is_lost_and_nothing_overwritten_without_any_of_the_streams() {
    play_without_streams("everything");
}

#[apply(role)]
fn everything(streams: &str) {
    let streams = &without(streams)[..];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    close(streams);
    chat();

    SegmentOptions::new().len(1 << 26).commons().expect("the commons");
    stays_clear(streams, "making the commons");
    let queue = Queue::<[u64; 64]>::with_capacity(8).expect("a queue");
    let lock = Lock::new(0_u64).expect("a lock");
    let (mut producer, mut consumer) = spsc::ring::<u64>(8).expect("a ring");
    stays_clear(streams, "making objects");
    let in_file = Segment::create_file(&path, 1 << 20).expect("a segment");
    stays_clear(streams, "making a segment in a file");
    let filed = Queue::<u64>::with_capacity_in(&in_file, 100).expect("a queue");
    let again = Segment::open_file(&path).expect("the segment");
    stays_clear(streams, "opening the file");
    let anonymous = Segment::create(1 << 20).expect("a segment");
    anonymous.send(&ours).expect("sent");
    let received = Segment::receive(&theirs).expect("received");
    assert_eq!(received.id(), anonymous.id());
    stays_clear(streams, "sending and receiving");
    let elsewhere = fork(move || {
        chat();
        let received = Segment::receive(&theirs).map(|segment| segment.id());
        chat();
        received.expect("received")
    });
    anonymous.send(&ours).expect("sent");
    assert_eq!(elsewhere.expect("fork").join().expect("a value"), anonymous.id());

    // Values and messages of all lengths, while parent and child print; also deeper.
    let messages = ByteQueue::with_capacity(2).expect("a queue");
    for len in (0..20).chain([79, 80, 81, 4095, 4096, 4097, 100_000]) {
        let (theirs, their_lock, their_file) = (queue.clone(), lock.clone(), filed.clone());
        let their_messages = messages.clone();
        let not_open = streams.to_vec();
        let child = fork(move || {
            chat();
            theirs.send([len as u64; 64]).expect("open");
            chat();
            *their_lock.lock().expect("free") += 1;
            their_file.send(len as u64).expect("open");
            their_messages.send(&vec![len as u8; 2 * len]).expect("room");
            stays_clear(&not_open, "a child's first use");
            let deeper = fork(move || {
                chat();
                vec![len as u8; len]
            });
            chat();
            deeper.expect("fork").join().expect("a value")
        });
        let child = child.expect("fork");
        chat();
        assert_eq!(child.join().expect("a value"), vec![len as u8; len]);
        stays_clear(streams, "a child");
        assert_eq!(queue.recv().expect("open"), [len as u64; 64]);
        assert_eq!(filed.recv(), Ok(len as u64));
        assert!(*messages.recv().expect("a message") == vec![len as u8; 2 * len]);
        producer.send(len as u64).expect("open");
        chat();
        assert_eq!(consumer.recv(), Ok(len as u64));
    }
    assert_eq!(*lock.lock().expect("free"), 27);

    // A program that it starts.
    let mut command = role::command("stdio::passed");
    anonymous.pass_to(&mut command, "it").expect("passed");
    assert!(command.stderr(Stdio::null()).status().expect("start").success());
    stays_clear(streams, "starting a program");

    // The file is as it should be, for whoever opens it afterwards.
    drop((in_file, again, filed));
    assert_eq!(Segment::open_file(&path).expect("the segment").len(), 1 << 20);
    assert_eq!((anonymous.reap(), Segment::commons().expect("commons").reap()), (Ok(0), Ok(0)));
    stays_clear(streams, "all");
    drop(folder);
}

/// The program that is started by one without streams. Rust gives it some of its own.
#[apply(role)]
fn passed(_: &str) {
    let segment = Segment::inherited("it").expect("passed");
    let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
    chat();
    assert_eq!((queue.send(7), queue.recv()), (Ok(()), Ok(7)));
}

#[apply(test)]
fn a_panic_comes_back_without_any_of_the_streams() {
    play_without_streams("panics");
}

#[apply(test)]
fn a_panic_comes_back_with_its_backtrace_without_any_of_the_streams() {
    // To put a backtrace into words takes long, so this is done with all of them closed, and with
    // none.
    for streams in ["", "012"] {
        let mut command = role::command(&format!("stdio::panics {streams}"));
        let status = command
            .env("RUST_BACKTRACE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("start");
        assert!(status.success(), "without \"{streams}\": {status}");
    }
}

#[apply(role)]
fn panics(streams: &str) {
    let streams = &without(streams)[..];
    close(streams);
    // The hook that a program has by default, which prints.
    let _ = std::panic::take_hook();
    let wants_backtrace = std::env::var("RUST_BACKTRACE").is_ok_and(|value| value != "0");
    chat();
    let lens: &[usize] = if wants_backtrace { &[100] } else { &[0, 1, 100, 100_000] };
    for &len in lens {
        let child = fork(move || -> u64 {
            chat();
            panic!("{}", "p".repeat(len))
        });
        let ending = child.expect("fork").join();
        // Without streams there is nobody to tell but the exit code.
        let is_told = matches!(&ending, Err(JoinError::Panicked(panic)) if panic.message == "p".repeat(len)
            && panic.location.as_ref().is_some_and(|location| location.file.ends_with("stdio.rs"))
            && panic.backtrace.contains("stdio") == wants_backtrace);
        if !is_told {
            std::process::exit(3);
        }
        // Deeper, and after a panic that was caught.
        let child = fork(|| {
            let caught = std::panic::catch_unwind(|| panic!("caught")).is_err();
            chat();
            let deeper = fork(|| -> u64 { panic!("deeper") }).expect("fork").join();
            (caught, matches!(deeper, Err(JoinError::Panicked(panic)) if panic.message == "deeper"))
        });
        if child.expect("fork").join().ok() != Some((true, true)) {
            std::process::exit(4);
        }
    }
    if common::descriptors().keys().any(|fd| streams.contains(fd)) {
        std::process::exit(5);
    }
    chat();
}

#[apply(test)]
fn files_that_the_program_opens_get_the_numbers_as_ever() {
    for streams in combinations().filter(|streams| !streams.is_empty()) {
        role::play(&format!("stdio::files_of_the_program {streams}"));
    }
}

/// What the program itself opens may well have the numbers of streams, and is not disturbed by what
/// we do.
#[apply(role)]
fn files_of_the_program(streams: &str) {
    let streams = &without(streams)[..];
    use std::io::{Read, Seek};
    use std::os::fd::AsRawFd;
    close(streams);
    let mut own: Vec<std::fs::File> =
        streams.iter().map(|_| tempfile::tempfile().expect("a file")).collect();
    let mut numbers: Vec<RawFd> = own.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, streams);
    own.iter_mut().for_each(|file| file.write_all(b"my own").expect("writable"));
    let queue = Queue::<u64>::with_capacity(8).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || theirs.send(7).is_ok());
    assert!(child.expect("fork").join().expect("a value"));
    assert_eq!(queue.recv(), Ok(7));
    drop(queue);
    for file in &mut own {
        let mut text = String::new();
        file.rewind().expect("open");
        file.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "my own");
    }
}

#[apply(test)]
fn a_child_may_close_its_streams_by_itself() {
    play_without_streams("child_closes");
}

#[apply(role)]
fn child_closes(streams: &str) {
    let streams = &without(streams)[..];
    let segment = Segment::create(1 << 20).expect("a segment");
    for used in [false, true] {
        let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
        for len in [0, 3, 100, 100_000] {
            let (theirs, not_open) = (queue.clone(), streams.to_vec());
            let child = fork(move || {
                if used {
                    theirs.send(0).expect("open");
                }
                close(&not_open);
                chat();
                theirs.send(1).expect("open");
                stays_clear(&not_open, "the first use");
                let made = Segment::create(1 << 16).expect("a segment");
                stays_clear(&not_open, "making a segment");
                let deeper = fork(move || {
                    chat();
                    made.len()
                });
                assert_eq!(deeper.expect("fork").join().expect("a value"), 1 << 16);
                stays_clear(&not_open, "forking");
                chat();
                vec![9_u8; len]
            });
            assert_eq!(child.expect("fork").join().expect("a value"), vec![9; len]);
            let sent: Vec<u64> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
            assert_eq!(sent, if used { vec![0, 1] } else { vec![1] });
        }
    }
    // A closed stream of this process is what makes the lines of `play_without_streams` missing.
    close(streams);
    chat();
}
