//! Each setting of a builder.
#![expect(unsafe_code, reason = "changes the environment of a child")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use offspring::{
    Builder, Failure, JoinError, Lock, Segment, ShmBox, SpawnError, StartMethod, Stream, spawn,
};

use crate::common::{descriptors, wait_until};
use crate::scene::{METHODS, scene};

fn comm(_: ()) -> String {
    std::fs::read_to_string("/proc/self/comm").expect("/proc is mounted").trim().to_owned()
}

#[test]
fn a_child_has_the_name_that_was_given_or_its_programs() {
    let own = std::fs::read_to_string(format!("/proc/{}/comm", std::process::id()));
    let own = own.expect("/proc is mounted").trim().to_owned();
    for method in METHODS {
        let builder = || Builder::new().method(method);
        let named = builder().name("worker").spawn(comm, ()).expect("spawn");
        assert_eq!(named.join().expect("a value"), "worker", "{method:?}");
        let long = builder().name("worker number seventeen").spawn(comm, ()).expect("spawn");
        assert_eq!(long.join().expect("a value"), "worker number s", "{method:?}");
        let empty = builder().name("").spawn(comm, ()).expect("spawn");
        assert_eq!(empty.join().expect("a value"), "", "{method:?}");
        let refused = builder().name("a\0b").spawn(comm, ());
        assert!(matches!(refused, Err(SpawnError::Name { .. })), "{refused:?}");
        let plain = builder().spawn(comm, ()).expect("spawn").join().expect("a value");
        assert!(plain == own || own.starts_with(&plain) || plain == "exe", "{method:?}: {plain}");
    }
}

#[test]
fn the_environment_is_as_it_was_set() {
    let all = |()| {
        let mut all: Vec<_> =
            std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
        all.sort();
        all
    };
    let mut own: Vec<_> =
        std::env::vars_os().map(|it| (it.0.into_vec(), it.1.into_vec())).collect();
    own.sort();
    let strange = OsString::from_vec(vec![0xff, b'=', 0xfe]);
    for method in METHODS {
        let builder = || Builder::new().method(method);
        assert_eq!(builder().spawn(all, ()).expect("spawn").join().expect("a value"), own);
        let child = builder().env("ONE", "1").env_remove("PATH").env("TWO", &strange);
        let found = child.spawn(all, ()).expect("spawn").join().expect("a value");
        let mut expected: Vec<_> = own.iter().filter(|it| it.0 != b"PATH").cloned().collect();
        expected.extend([(b"ONE".to_vec(), b"1".to_vec())]);
        expected.extend([(b"TWO".to_vec(), vec![0xff, b'=', 0xfe])]);
        expected.sort();
        assert_eq!(found, expected, "{method:?}");
        let child = builder().env("ONE", "1").env_clear().env("LAST", "2").env_remove("PATH");
        let found = child.spawn(all, ()).expect("spawn").join().expect("a value");
        assert_eq!(found, [(b"LAST".to_vec(), b"2".to_vec())], "{method:?}");
        let long = "x".repeat(1 << 20);
        let length = |name: String| std::env::var(name).map_or(0, |value| value.len());
        let child = builder().env("LONG", &long).spawn(length, "LONG".to_owned());
        assert_eq!(child.expect("spawn").join().expect("a value"), 1 << 20, "{method:?}");
        for (name, value) in [("", "x"), ("a=b", "x"), ("a\0b", "x"), ("a", "x\0")] {
            let refused = builder().env(name, value).spawn(all, ());
            assert!(matches!(refused, Err(SpawnError::Variable { .. })), "{refused:?}");
        }
    }
}

scene! {
fn environment_and_folder_are_those_of_the_moment() {
    fn look(name: String) -> (Option<String>, String) {
        let folder = std::env::current_dir().expect("a folder");
        (std::env::var(name).ok(), folder.to_string_lossy().into_owned())
    }
    for round in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("it is there");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::env::set_current_dir(&folder).expect("it is there");
        let value = format!("{round}");
        #[expect(unsafe_code, reason = "this process is there for this test alone")]
        // SAFETY: no other thread looks at the environment.
        unsafe {
            std::env::set_var("ROUND", &value);
        }
        for method in METHODS {
            let child = Builder::new().method(method).spawn(look, "ROUND".to_owned());
            let found = child.expect("spawn").join().expect("a value");
            let folder = folder.to_string_lossy().into_owned();
            assert_eq!(found, (Some(value.clone()), folder), "{method:?}");
        }
        std::fs::remove_dir_all(&folder).expect("it is there");
        // One that is gone.
        for method in METHODS {
            let child = Builder::new().method(method).spawn(|n: u64| n, 7).expect("spawn");
            assert_eq!(child.join().expect("a value"), 7);
        }
    }
}
}

/// Each of them once took time for all others.
#[test]
fn a_hundred_thousand_variables_are_set() {
    let look = |()| -> (usize, Option<String>, Option<String>) {
        let number = std::env::vars_os().count();
        // libc can work with the list.
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("VARIABLE_7", "another") };
        // SAFETY: as above.
        unsafe { std::env::remove_var("VARIABLE_8") };
        (number, std::env::var("VARIABLE_7").ok(), std::env::var("VARIABLE_8").ok())
    };
    for method in METHODS {
        let mut builder = Builder::new().method(method).env_clear();
        for number in 0..100_000 {
            builder = builder.env(format!("VARIABLE_{number}"), number.to_string());
        }
        let child = builder.spawn(look, ()).expect("spawn");
        let found = child.join().expect("a value");
        assert_eq!(found, (100_000, Some("another".to_owned()), None), "{method:?}");
    }
}

#[test]
fn the_working_folder_is_as_it_was_set() {
    let look = |()| std::env::current_dir().map(|it| it.to_string_lossy().into_owned()).ok();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("it is there");
    for method in METHODS {
        let child = Builder::new().method(method).current_dir(&path).spawn(look, ());
        let found = child.expect("spawn").join().expect("a value");
        assert_eq!(found.as_deref(), path.to_str(), "{method:?}");
    }
}

scene! {
fn a_folder_that_is_not_there_is_refused_and_leaves_nothing() {
    spawn(|()| (), ()).expect("spawn").join().expect("a value");
    let segment = Segment::create(1 << 20).expect("a segment");
    let descriptors_before = descriptors();
    for method in METHODS {
        for _ in 0..5 {
            let value = ShmBox::new_in(&segment, 7_u64).expect("room");
            let lock = Lock::new_in(&segment, 7_u64).expect("room");
            let builder = || Builder::new().method(method).current_dir("/no/such/folder");
            let refused = builder().spawn(|it: ShmBox<u64>| *it, value);
            let Err(SpawnError::Os { source, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
            let refused = builder().spawn(|it: Lock<u64>| it.lock().map_or(0, |it| *it), lock);
            assert!(refused.is_err());
        }
    }
    assert_eq!(segment.stats().expect("attached").in_use.blocks, 0, "arguments are left");
    assert_eq!(segment.stats().expect("attached").peers.len(), 1, "entries are left");
    assert_eq!(descriptors(), descriptors_before);
    // What had begun ends, and is no zombie then.
    wait_until("nothing is left", || crate::scene::others().is_empty());
}
}

#[test]
fn streams_are_as_they_were_set() {
    fn copy(_: ()) -> usize {
        let mut text = String::new();
        let len = std::io::stdin().read_to_string(&mut text).expect("readable");
        print!("out: {text}");
        eprint!("err: {text}");
        len
    }
    for method in METHODS {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let (mut out, out_end) = std::io::pipe().expect("a pipe");
        let (mut err, err_end) = std::io::pipe().expect("a pipe");
        let builder = Builder::new().method(method).stdin(reader).stdout(out_end);
        let child = builder.stderr(OwnedFd::from(err_end)).spawn(copy, ()).expect("spawn");
        writer.write_all(b"hello").expect("somebody reads");
        drop(writer);
        let mut texts = [String::new(), String::new()];
        out.read_to_string(&mut texts[0]).expect("readable");
        err.read_to_string(&mut texts[1]).expect("readable");
        assert_eq!(child.join().expect("a value"), 5);
        assert_eq!(texts, ["out: hello", "err: hello"], "{method:?}");
        let file = tempfile::tempfile().expect("a file");
        let builder = Builder::new().method(method).stdin(Stream::Null).stderr(Stream::Null);
        let child = builder.stdout(file.try_clone().expect("dup")).spawn(copy, ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), 0);
        assert_eq!(file.metadata().expect("a file").len(), 5);
    }
}

/// What its standard streams are; `None` for a closed one.
fn streams(_: ()) -> Vec<Option<String>> {
    let link = |number: i32| std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
    (0..3).map(|number| Some(link(number)?.to_string_lossy().into_owned())).collect()
}

scene! {
fn streams_that_the_parent_has_closed_are_closed_in_a_child() {
    let own = streams(());
    for method in METHODS {
        let child = Builder::new().method(method).spawn(streams, ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), own, "{method:?}");
    }
    for closed in [vec![0], vec![1], vec![2], vec![0, 2], vec![0, 1, 2]] {
        for method in METHODS {
            // In a process of its own, whose standard output is needed.
            let look = |(closed, method): (Vec<i32>, bool)| {
                for &number in &closed {
                    nix::unistd::close(number).expect("it was open");
                }
                let method = if method { StartMethod::Zygote } else { StartMethod::Spawn };
                let own = streams(());
                let builder = || Builder::new().method(method);
                let found = builder().spawn(streams, ())?.join().map_err(|why| Failure::new(format!("first {why}")))?;
                let null = builder().stdin(Stream::Null).stdout(Stream::Null);
                let null = null.stderr(Stream::Null).spawn(streams, ()).map_err(Failure::from)?;
                let made = streams(());
                Ok::<_, Failure>((own == found && made == own, null.join()?, found))
            };
            let inner = (closed.clone(), method == StartMethod::Zygote);
            let told = spawn(look, inner).expect("spawn").join().expect("a value")
                .unwrap_or_else(|why| panic!("{closed:?}, {method:?}: {why}"));
            let (is_right, null, found) = told;
            assert!(is_right, "{closed:?}, {method:?}: {found:?}");
            assert_eq!(null, vec![Some("/dev/null".to_owned()); 3], "{closed:?}, {method:?}");
        }
    }
}
}

#[test]
fn a_child_has_the_segments_that_were_named() {
    let [first, second] = [(); 2].map(|()| Segment::create(1 << 20).expect("a segment"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let file = Segment::create_file(&path, 1 << 20).expect("a segment");
    let add = |lock: Lock<u64>| -> Result<u64, Failure> {
        let mut guard = lock.lock()?;
        *guard += 1;
        Ok(*guard)
    };
    for method in METHODS {
        let builder = || Builder::new().method(method);
        for segment in [&first, &file] {
            let lock = Lock::new_in(segment, 6).expect("room");
            let child = builder().segments([segment]).spawn(add, lock.clone()).expect("spawn");
            assert_eq!(child.join().expect("a value").expect("a lock"), 7, "{method:?}");
            assert_eq!(*lock.lock().expect("free"), 7);
            let other: &Segment = &second;
            let refused = builder().segments([other]).spawn(add, lock.clone());
            let Err(SpawnError::Arguments(why)) = refused else { panic!("{refused:?}") };
            assert!(why.contains("segment"), "{why}");
            let by_default = builder().spawn(add, lock).expect("spawn").join();
            assert_eq!(by_default.expect("a value").expect("a lock"), 8);
        }
        // None but the commons; twice the same.
        let lock = Lock::new(1).expect("room");
        for segments in [vec![], vec![&first, &first]] {
            let child = builder().segments(segments).spawn(add, lock.clone()).expect("spawn");
            child.join().expect("a value").expect("a lock");
        }
        let boxed = ShmBox::new_in(&first, 7_u64).expect("room");
        let refused = builder().segments([&second]).spawn(|it: ShmBox<u64>| *it, boxed);
        assert!(matches!(refused, Err(SpawnError::Arguments(_))), "{refused:?}");
    }
    let left = [&first, &second, &file].map(|segment| {
        segment.reap().expect("attached");
        segment.stats().expect("attached").in_use.blocks
    });
    assert_eq!(left, [0; 3]);
}

#[test]
fn a_value_from_a_segment_that_the_parent_has_not_is_told() {
    let make = |()| {
        let segment = Segment::create(1 << 20).expect("a segment");
        let lock = Lock::new_in(&segment, 7_u64).expect("room");
        std::mem::forget(segment);
        lock
    };
    let ending = spawn(make, ()).expect("spawn").join();
    assert!(matches!(ending, Err(JoinError::Unsendable(_))), "{:?}", ending.map(|_| ()));
}

#[test]
fn what_runs_before_runs_first_or_is_told() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static STEPS: AtomicU64 = AtomicU64::new(0);
    fn step() -> Result<(), Failure> {
        STEPS.store(7, Ordering::Relaxed);
        Ok(())
    }
    for method in METHODS {
        let builder = || Builder::new().method(method);
        let look = |()| STEPS.load(Ordering::Relaxed);
        let child = builder().before(step).spawn(look, ()).expect("spawn");
        assert_eq!(child.join().expect("a value"), 7, "{method:?}");
        assert_eq!(STEPS.load(Ordering::Relaxed), 0);
        let failed = builder().before(|| Err(Failure::new("no sandbox"))).spawn(look, ());
        let Err(JoinError::NotStarted(why)) = failed.expect("spawn").join() else { panic!() };
        assert!(why.contains("no sandbox"), "{why}");
        let panics = builder().stderr(Stream::Null).before(|| panic!("in the middle"));
        let Err(JoinError::NotStarted(why)) = panics.spawn(look, ()).expect("spawn").join() else {
            panic!("{method:?}")
        };
        assert!(why.contains("panicked"), "{why}");
    }
}

#[test]
fn a_detached_child_outlives_its_parent() {
    for method in METHODS {
        let (sender, receiver) = offspring::channel::<u64>(4).expect("a channel");
        let simple = |(is_zygote, sender): (bool, offspring::Sender<u64>)| -> u32 {
            let method = if is_zygote { StartMethod::Zygote } else { StartMethod::Spawn };
            let late = |sender: offspring::Sender<u64>| {
                std::thread::sleep(Duration::from_millis(200));
                sender.send(9).expect("somebody listens");
            };
            let builder = Builder::new().method(method).detached(true);
            builder.spawn(late, sender).expect("spawn").id()
        };
        let is_zygote = method == StartMethod::Zygote;
        let child = spawn(simple, (is_zygote, sender)).expect("spawn");
        child.join().expect("a value");
        assert_eq!(receiver.recv(), Ok(9), "{method:?}");
        assert!(receiver.recv().is_err(), "it has ended");
    }
}

#[test]
fn a_child_that_is_not_detached_ends_with_its_parent() {
    for method in METHODS {
        let (sender, receiver) = offspring::channel::<u64>(4).expect("a channel");
        let middle = |(is_zygote, sender): (bool, offspring::Sender<u64>)| {
            let method = if is_zygote { StartMethod::Zygote } else { StartMethod::Spawn };
            let late = |sender: offspring::Sender<u64>| {
                sender.send(1).expect("somebody listens");
                crate::common::sleep_for_ever_returning_nothing();
            };
            let child = Builder::new().method(method).spawn(late, sender).expect("spawn");
            let id = child.id();
            std::mem::forget(child);
            id
        };
        let is_zygote = method == StartMethod::Zygote;
        let child = spawn(middle, (is_zygote, sender)).expect("spawn");
        child.join().expect("a value");
        // It may or may not have come to send.
        while receiver.recv().is_ok() {}
    }
}

#[test]
fn a_stream_of_the_builder_is_not_left_open() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let number = reader.as_raw_fd();
    let child = Builder::new().stdout(writer).spawn(|()| println!("x"), ()).expect("spawn");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("readable");
    child.join().expect("a value");
    assert_eq!((text.as_str(), number > 2), ("x\n", true));
}
