//! Segments that a child can only read.
#![expect(unsafe_code, reason = "forks, and sets a variable")]

use std::time::Duration;

use offspring::{
    Builder, CreateError, Failure, Fault, Handle, JoinError, Lock, Queue, Segment, SegmentError,
    ShmArc, ShmBox, SpawnError, StartMethod, channel, preload, spawn,
};

use crate::common::{sleep_for_ever, wait_until};
use crate::scene::{METHODS, scene};

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

fn squares(segment: &Segment) -> ShmArc<[u64]> {
    ShmArc::from_fn_in(segment, 1000, |index| (index * index) as u64).expect("room")
}

/// Blocks that are in use once the dead have been cleared up after.
fn left(segment: &Segment) -> u64 {
    segment.reap().expect("attached");
    segment.stats().expect("attached").in_use.blocks
}

/// What a child may do with what it can only read, and what not.
fn try_all((table, other): (ShmArc<[u64]>, Handle)) -> Vec<String> {
    let segment = table.handle().find_segment().expect("it is open");
    let mut wrong = Vec::new();
    let mut check = |what: &str, refused: bool| {
        if !refused {
            wrong.push(what.to_owned());
        }
    };
    let again = ShmArc::<[u64]>::open(&segment, table.handle());
    check("another handle", again.as_ref().is_ok_and(|again| again == &table));
    drop(again);
    check("the values", table.iter().enumerate().all(|(n, &it)| it == (n * n) as u64));
    let made = Lock::new_in(&segment, 0_u64);
    check("a new lock", matches!(made, Err(CreateError::Fault(Fault::ReadOnly))));
    let made = ShmBox::new_in(&segment, 0_u64);
    check("a new box", matches!(made, Err(CreateError::Fault(Fault::ReadOnly))));
    let opened = ShmArc::<[u64]>::open(&segment, other);
    check("what it was not given", matches!(opened, Err(Fault::ReadOnly)));
    check("another kind", matches!(Lock::<u64>::open(&segment, other), Err(Fault::ReadOnly)));
    let opened = ShmArc::<[u32]>::open(&segment, table.handle());
    check("another type", matches!(opened, Err(Fault::WrongType)));
    check("stats", segment.stats().is_ok_and(|stats| stats.in_use.blocks >= 3));
    check("reap", segment.reap().is_err());
    // Neither the mapping nor the descriptor can be written.
    let file = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let address = table.as_ptr().addr();
    let line = file.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let [start, end] = range.map_or([0; 2], |(start, end)| {
            [start, end].map(|text| usize::from_str_radix(text, 16).expect("an address"))
        });
        (start..end).contains(&address)
    });
    check("the mapping", line.is_some_and(|line| line.contains(" r--s ")));
    let inode = line.and_then(|line| line.split_whitespace().nth(4)).unwrap_or_default();
    let flags = |number: &str| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let is_it = info.lines().any(|line| line == format!("ino:\t{inode}"));
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        is_it.then(|| u32::from_str_radix(&flags, 8).expect("flags"))
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let modes: Vec<u32> = descriptors
        .filter_map(|entry| flags(&entry.ok()?.file_name().to_string_lossy()))
        .map(|flags| flags & 3)
        .collect();
    check("a descriptor", modes == [0]);
    // What it passes on.
    let (sender, receiver) = channel(1).expect("room");
    check("in a message", sender.send(table.clone()).is_err());
    drop((sender, receiver));
    let child = spawn(|_: ShmArc<[u64]>| (), table.clone());
    check("to a child", matches!(child, Err(SpawnError::Arguments(_))));
    let child = Builder::new().segments([&segment]).spawn(|()| (), ());
    let socket = std::os::unix::net::UnixStream::pair().expect("a pair").0;
    check("to another", matches!(segment.send(&socket), Err(SegmentError::ReadOnly)));
    check("the segment", matches!(child, Err(SpawnError::Segment(Fault::ReadOnly))));
    let child = spawn(|()| 7, ()).expect("a child").join();
    check("a child without it", child.is_ok_and(|value| value == 7));
    // A copy of this process must not read what nobody holds for it.
    // SAFETY: this process has one thread, and the closure uses only what it captures.
    let child = unsafe { offspring::fork(move || table[1]) }.expect("a child").join();
    let is_told = |panic: &offspring::PanicInfo| panic.message.contains("only read");
    check("a fork", matches!(&child, Err(JoinError::Panicked(panic)) if is_told(panic)));
    wrong
}

#[test]
fn a_segment_that_was_named_can_only_be_read() {
    let (inputs, in_file) = (segment(), tempfile::tempdir().expect("a folder"));
    let path = in_file.path().join("segment");
    let in_file = Segment::create_file(&path, 1 << 20).expect("a segment");
    for segment in [&inputs, &in_file] {
        for method in METHODS {
            let table = squares(segment);
            let other = squares(segment);
            let lock = Lock::new_in(segment, 7_u64).expect("room");
            for handle in [other.handle(), lock.handle()] {
                let builder = Builder::new().method(method).read_only([segment]);
                // One of the tries is a panic.
                let builder = builder.stderr(offspring::Stream::Null);
                let child = builder.spawn(try_all, (table.clone(), handle)).expect("spawn");
                assert_eq!(child.join().expect("a value"), Vec::<String>::new(), "{method:?}");
            }
            assert_eq!(left(segment), 3, "{method:?}");
        }
        assert_eq!(left(segment), 0);
    }
}

/// The parent drops it, and makes others where it could have lain.
#[test]
fn what_a_child_reads_is_there_as_long_as_it_lives() {
    let inputs = segment();
    for method in METHODS {
        let (sender, receiver) = channel::<u32>(1).expect("room");
        let look = |(table, rounds): (ShmArc<[u64]>, offspring::Receiver<u32>)| {
            let again = table.clone();
            drop(table);
            rounds.iter().all(|_| again.iter().enumerate().all(|(n, &it)| it == (n * n) as u64))
        };
        let table = squares(&inputs);
        let builder = Builder::new().method(method).read_only([&inputs]);
        let child = builder.spawn(look, (table, receiver)).expect("spawn");
        for round in 0..50 {
            let fill = ShmArc::from_fn_in(&inputs, 1000, |_| u64::MAX).expect("room");
            sender.send(round).expect("it lives");
            assert_eq!(left(&inputs), 3, "this one, the child's, and the flight that holds that");
            drop(fill);
        }
        drop(sender);
        assert!(child.join().expect("a value"), "{method:?}");
        assert_eq!(left(&inputs), 0);
    }
}

#[test]
fn what_a_killed_child_has_read_is_freed() {
    let inputs = segment();
    for method in METHODS {
        let builder = Builder::new().method(method).read_only([&inputs]);
        let wait = |table: ShmArc<[u64]>| -> () {
            assert_eq!(table[3], 9);
            sleep_for_ever()
        };
        let child = builder.spawn(wait, squares(&inputs)).expect("spawn");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(left(&inputs), 2, "the values, and the flight that holds them");
        child.kill().expect("it lives");
        assert!(matches!(child.join(), Err(JoinError::Killed(9))), "{method:?}");
        wait_until("all is free", || left(&inputs) == 0);
    }
}

/// Told when it is decoded, and freed with the child.
#[test]
fn what_a_child_would_have_to_write_does_not_arrive() {
    let inputs = segment();
    let builder = || Builder::new().read_only([&inputs]);
    let queue = Queue::<u64>::with_capacity_in(&inputs, 2).expect("room");
    let told = [
        builder().spawn(|_: Queue<u64>| (), queue.clone()).expect("spawn").join(),
        builder()
            .spawn(|_: Lock<u64>| (), Lock::new_in(&inputs, 7).expect("room"))
            .expect("spawn")
            .join(),
        builder()
            .spawn(|_: ShmBox<u64>| (), ShmBox::new_in(&inputs, 7).expect("room"))
            .expect("spawn")
            .join(),
    ];
    for joined in told {
        let Err(JoinError::NotStarted(why)) = joined else { panic!("{joined:?}") };
        assert!(why.contains("only read the segment"), "{why}");
    }
    queue.send(7).expect("it is as it was");
    drop(queue);
    assert_eq!(left(&inputs), 0);
}

/// Where the file of the segment lies, for the zygote.
const PATH: &str = "READ_ONLY_SEGMENT";

fn open_and_keep() -> Result<(), Failure> {
    std::mem::forget(Segment::open_file(std::env::var(PATH)?)?);
    Ok(())
}

scene! {
/// Its children would have it open for writing.
fn a_segment_that_a_preloaded_function_has_opened_is_not_given_to_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let inputs = Segment::create_file(&path, 1 << 20).expect("a segment");
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var(PATH, &path) };
    preload(open_and_keep).expect("it returns");
    let table = squares(&inputs);
    let child = Builder::new().read_only([&inputs]).spawn(|_: ShmArc<[u64]>| (), table.clone());
    let joined = child.expect("spawn").join();
    let Err(JoinError::NotStarted(why)) = joined else { panic!("{joined:?}") };
    assert!(why.contains("preloaded"), "{why}");
    let look = |table: ShmArc<[u64]>| table[3];
    let builder = Builder::new().method(StartMethod::Spawn).read_only([&inputs]);
    let child = builder.spawn(look, table.clone()).expect("spawn");
    assert_eq!(child.join().expect("a value"), 9);
    assert_eq!(spawn(look, table).expect("spawn").join().expect("a value"), 9);
}
}

#[test]
fn the_commons_can_be_read_only_too() {
    let commons = Segment::commons().expect("the commons");
    let table = ShmArc::from_slice(&[2_u64, 3, 5]).expect("room");
    let look = |table: ShmArc<[u64]>| {
        let refused =
            matches!(Queue::<u64>::with_capacity(1), Err(CreateError::Fault(Fault::ReadOnly)));
        (table.iter().sum::<u64>(), refused)
    };
    for method in METHODS {
        let builder = Builder::new().method(method).read_only([&commons]);
        let child = builder.spawn(look, table.clone()).expect("spawn");
        assert_eq!(child.join().expect("a value"), (10, true));
    }
}
