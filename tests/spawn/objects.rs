//! Shared objects as arguments and results, and what is left of them.

use std::fs::File;
use std::time::Duration;

use offspring::{
    Builder, JoinError, Lock, Moved, ObjectQueue, Queue, Receiver, RecvError, Segment, SendError,
    Sender, ShmArc, ShmBox, ShmStr, ShmVec, Stream, Transfer, Value, channel, spawn,
};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::fd::SegmentFd;
use crate::common::{sleep_for_ever, wait_until};
use crate::scene::METHODS;

fn segment() -> Segment {
    Segment::create(8 << 20).expect("a segment")
}

/// Blocks that are in use once the dead have been cleared up after.
fn left(segment: &Segment) -> u64 {
    segment.reap().expect("attached");
    segment.stats().expect("attached").in_use.blocks
}

#[test]
fn objects_of_all_kinds_go_to_a_child_and_come_back() {
    type All = (
        Queue<u64>,
        ObjectQueue<String>,
        Lock<u64>,
        Value<u64>,
        ShmArc<[u64]>,
        Option<Queue<u64>>,
        Vec<Lock<u64>>,
    );
    fn work(all: All) -> All {
        let (numbers, texts, lock, value, shared, none, locks) = &all;
        let number = numbers.recv().expect("sent") + shared.iter().sum::<u64>();
        numbers.send(number).expect("room");
        texts.send(texts.recv().expect("sent") + "!").expect("room");
        *lock.lock().expect("free") += 1;
        value.set(8).expect("sound");
        assert!(none.is_none());
        locks.iter().for_each(|lock| *lock.lock().expect("free") += 1);
        all
    }
    let segment = segment();
    for method in METHODS {
        let numbers = Queue::with_capacity_in(&segment, 2).expect("room");
        numbers.send(7).expect("room");
        let texts = ObjectQueue::with_capacity_in(&segment, 2).expect("room");
        texts.send("seven".to_owned()).expect("room");
        let lock = Lock::new_in(&segment, 7).expect("room");
        let value = Value::new_in(&segment, 7).expect("room");
        let shared = ShmArc::from_fn_in(&segment, 3, |index| index as u64).expect("room");
        let locks = (0..20).map(|number| Lock::new_in(&segment, number).expect("room")).collect();
        let all = (numbers, texts, lock, value, shared, None, locks);
        let child = Builder::new().method(method).spawn(work, all).expect("spawn");
        let (numbers, texts, lock, value, _shared, _, locks) = child.join().expect("a value");
        assert_eq!((numbers.recv(), texts.recv()), (Ok(10), Ok("seven!".to_owned())));
        assert_eq!((*lock.lock().expect("free"), value.get()), (8, Ok(8)));
        for (number, lock) in (0..).zip(&locks) {
            assert_eq!(*lock.lock().expect("free"), number + 1);
        }
    }
    assert_eq!(left(&segment), 0);
}

#[test]
fn an_object_that_only_the_arguments_hold_lives_until_the_child_has_it() {
    let segment = segment();
    for method in METHODS {
        let lock = Lock::new_in(&segment, 41_u64).expect("room");
        let add = |lock: Lock<u64>| *lock.lock().expect("free") + 1;
        let child = Builder::new().method(method).spawn(add, lock).expect("spawn");
        segment.reap().expect("attached");
        assert_eq!(child.join().expect("a value"), 42, "{method:?}");
    }
    assert_eq!(left(&segment), 0);
}

#[derive(Transfer)]
struct Pair {
    first: ShmBox<u64>,
    second: ShmBox<u64>,
}

#[test]
fn boxes_move_to_a_child_and_back() {
    let segment = segment();
    for method in METHODS {
        let builder = || Builder::new().method(method);
        let boxed = ShmBox::from_slice_in(&segment, &[7_u64; 10_000]).expect("room");
        let address = boxed.as_ptr().addr();
        let double = |mut boxed: ShmBox<[u64]>| {
            boxed.iter_mut().for_each(|number| *number *= 2);
            boxed
        };
        let boxed = builder().spawn(double, boxed).expect("spawn").join().expect("a value");
        assert!(boxed.iter().all(|&number| number == 14) && boxed.as_ptr().addr() == address);
        drop(boxed);
        let mut vec = ShmVec::with_capacity_in(&segment, 4).expect("room");
        vec.push(7_u8).expect("room");
        let push = |mut vec: ShmVec<u8>| {
            vec.extend_from_slice(&[8; 5000]).expect("room");
            vec
        };
        let vec = builder().spawn(push, vec).expect("spawn").join().expect("a value");
        assert!(vec.len() == 5001 && vec[0] == 7 && vec[5000] == 8);
        drop(vec);
        let pair = [1_u64, 2].map(|number| ShmBox::new_in(&segment, number).expect("room"));
        let [first, second] = pair;
        let swap =
            |Moved(pair): Moved<Pair>| Moved(Pair { first: pair.second, second: pair.first });
        let child = builder().spawn(swap, Moved(Pair { first, second })).expect("spawn");
        let Moved(Pair { first, second }) = child.join().expect("a value");
        assert_eq!((*first, *second), (2, 1));
        drop((first, second));
        // The child keeps it.
        let boxed = ShmBox::new_in(&segment, 7_u64).expect("room");
        let look = |boxed: ShmBox<u64>| *boxed;
        assert_eq!(builder().spawn(look, boxed).expect("spawn").join().expect("a value"), 7);
        // And does not let go of it.
        let boxed = ShmBox::new_in(&segment, 7_u64).expect("room");
        let keep = |boxed: ShmBox<u64>| std::mem::forget(boxed);
        builder().spawn(keep, boxed).expect("spawn").join().expect("a value");
        assert_eq!(left(&segment), 0, "{method:?}");
    }
    let text = |text: ShmStr| text.to_string() + "!";
    let child = spawn(text, ShmStr::new("seven").expect("room"));
    assert_eq!(child.expect("spawn").join().expect("a value"), "seven!");
}

#[test]
fn ends_of_channels_pass_to_a_child_and_end_with_it() {
    for method in METHODS {
        let builder = || Builder::new().method(method);
        let (tasks, receiver) = channel::<String>(4).expect("a channel");
        let (sender, results) = channel::<usize>(4).expect("a channel");
        let work = |(tasks, results): (Receiver<String>, Sender<usize>)| {
            for task in &tasks {
                results.send(task.len()).expect("somebody listens");
            }
        };
        let child = builder().spawn(work, (receiver, sender)).expect("spawn");
        let texts = ["one", "three"];
        texts.iter().for_each(|text| tasks.send((*text).to_owned()).expect("room"));
        drop(tasks);
        assert_eq!(results.iter().sum::<usize>(), 8, "{method:?}");
        child.join().expect("no panic");
        // A child that is killed.
        let (sender, results) = channel::<u64>(4).expect("a channel");
        let (requests, receiver) = channel::<u64>(1).expect("a channel");
        let wait = |(sender, _receiver): (Sender<u64>, Receiver<u64>)| {
            sender.send(1).expect("room");
            sleep_for_ever();
        };
        let child = builder().spawn(wait, (sender, receiver)).expect("spawn");
        assert_eq!(results.recv(), Ok(1));
        child.kill().expect("it lives");
        assert_eq!(results.recv(), Err(RecvError::Disconnected), "{method:?}");
        while requests.send(7).is_ok() {}
        assert!(matches!(requests.send(7), Err(SendError::Disconnected(7))));
        let _: Result<(), _> = child.join();
        // One that cannot begin.
        let (sender, results) = channel::<u64>(4).expect("a channel");
        let refuse = || Err(offspring::Failure::new("not today"));
        let child = builder().before(refuse).spawn(|_: Sender<u64>| (), sender).expect("spawn");
        assert_eq!(results.recv(), Err(RecvError::Disconnected), "{method:?}");
        assert!(matches!(child.join(), Err(JoinError::NotStarted(_))));
        // And one that was never made.
        let (sender, results) = channel::<u64>(4).expect("a channel");
        let refused = builder().current_dir("/no/such/folder").spawn(|_: Sender<u64>| (), sender);
        assert!(refused.is_err());
        assert_eq!(results.recv(), Err(RecvError::Disconnected), "{method:?}");
    }
}

#[test]
fn a_lock_of_a_killed_child_is_free_again() {
    let segment = segment();
    for method in METHODS {
        let lock = Lock::new_in(&segment, 7_u64).expect("room");
        let (sender, receiver) = channel::<()>(1).expect("a channel");
        let hold = |(lock, sender): (Lock<u64>, Sender<()>)| {
            let _guard = lock.lock().expect("free");
            sender.send(()).expect("room");
            sleep_for_ever();
        };
        let child = Builder::new().method(method).spawn(hold, (lock.clone(), sender));
        let child = child.expect("spawn");
        receiver.recv().expect("it has it");
        child.kill().expect("it lives");
        assert!(matches!(lock.lock(), Err(offspring::LockError::OwnerDied)), "{method:?}");
        assert_eq!(*lock.recover().expect("nobody has it"), 7);
        let _: Result<(), _> = child.join();
    }
}

#[test]
fn a_child_that_was_killed_before_it_took_its_arguments_leaves_nothing() {
    for method in METHODS {
        for joins in [true, false] {
            let segment = segment();
            let wait = || -> Result<(), offspring::Failure> { sleep_for_ever() };
            let builder = || Builder::new().method(method).before(wait);
            let boxed = ShmBox::from_slice_in(&segment, &[7_u8; 100_000]).expect("room");
            let first = builder().spawn(|boxed: ShmBox<[u8]>| boxed.len(), boxed).expect("spawn");
            let lock = Lock::new_in(&segment, 7_u64).expect("room");
            let queue = Queue::<u64>::with_capacity_in(&segment, 100).expect("room");
            let arguments = (lock, vec![queue]);
            let count = |(_, queues): (Lock<u64>, Vec<Queue<u64>>)| queues.len();
            let second = builder().spawn(count, arguments).expect("spawn");
            assert!(segment.stats().expect("attached").in_use.blocks >= 3);
            segment.reap().expect("attached");
            assert!(segment.stats().expect("attached").in_use.blocks >= 3);
            for child in [first, second] {
                child.kill().expect("it lives");
                if joins {
                    let ending = child.join();
                    assert!(matches!(ending, Err(JoinError::Killed(9))), "{ending:?}");
                } else {
                    wait_until("it has ended", || !child.is_alive());
                    drop(child);
                }
            }
            // Children of other tests may have the segment, too.
            let stats = segment.stats().expect("attached");
            assert_eq!(stats.in_use.blocks, 0, "{method:?}, {joins}");
        }
    }
}

#[test]
fn what_a_panicking_or_undecodable_argument_held_is_freed() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Held {
        lock: Lock<u64>,
        #[serde(serialize_with = "refuse")]
        number: u64,
    }
    fn refuse<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            0 => Err(serde::ser::Error::custom("no")),
            1 => panic!("no"),
            // Decoded as text it is none.
            _ => serializer.serialize_bytes(&[0xff; 20]),
        }
    }
    let segment = segment();
    for method in METHODS {
        for number in 0..3 {
            let held = Held { lock: Lock::new_in(&segment, 7).expect("room"), number };
            let builder = Builder::new().method(method);
            let spawned = std::panic::catch_unwind(move || {
                builder.spawn(|held: Held| held.number + *held.lock.lock().expect("free"), held)
            });
            match (number, spawned) {
                (0, Ok(Err(_))) | (1, Err(_)) => {}
                (2, Ok(Ok(child))) => drop(child.join()),
                (_, other) => panic!("{number}: {:?}", other.map(|it| it.map(|_| ()))),
            }
            assert_eq!(left(&segment), 0, "{method:?}, {number}");
        }
    }
}

#[test]
fn a_value_that_nobody_joins_is_freed() {
    let segment = segment();
    for method in METHODS {
        let lock = Lock::new_in(&segment, 7_u64).expect("room");
        let child = Builder::new().method(method).spawn(|lock: Lock<u64>| lock, lock);
        drop(child.expect("spawn"));
        let boxed = ShmBox::new_in(&segment, 7_u64).expect("room");
        let child = Builder::new().method(method).spawn(|boxed: ShmBox<u64>| boxed, boxed);
        drop(child.expect("spawn"));
    }
    wait_until("all is freed", || {
        spawn(|()| (), ()).expect("spawn").join().expect("a value");
        left(&segment) == 0
    });
}

#[test]
fn a_detached_child_has_its_box_when_its_parent_has_gone() {
    use std::io::Read;
    for method in METHODS {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let is_zygote = method == offspring::StartMethod::Zygote;
        let middle = |is_zygote: bool| {
            let method = METHODS[usize::from(!is_zygote)];
            let boxed = ShmBox::new(7_u64).expect("room");
            let wait = || {
                let parent = std::env::var("PARENT").expect("set");
                while std::os::unix::process::parent_id().to_string() == parent {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            };
            let builder = Builder::new().method(method).detached(true).before(wait);
            let builder = builder.env("PARENT", std::process::id().to_string());
            let child = builder.spawn(|boxed: ShmBox<u64>| print!("{boxed:?}"), boxed);
            drop(child.expect("spawn"));
        };
        let builder = Builder::new().stdout(writer).stderr(Stream::Inherit);
        builder.spawn(middle, is_zygote).expect("spawn").join().expect("a value");
        Segment::commons().expect("it is there").reap().expect("attached");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("readable");
        assert!(text.contains('7'), "{method:?}: {text:?}");
    }
}

#[test]
fn a_parent_that_clears_up_meanwhile_takes_nothing_from_a_child() {
    let segment = segment();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                segment.reap().expect("attached");
            }
        });
        for round in 0..200 {
            let lock = Lock::new_in(&segment, round).expect("room");
            let add = |lock: Lock<u64>| {
                *lock.lock().expect("free") += 1;
                lock
            };
            let child = Builder::new().method(METHODS[usize::from(round % 16 == 0)]);
            let lock = child.spawn(add, lock).expect("spawn").join().expect("a value");
            assert_eq!(*lock.lock().expect("free"), round + 1);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(left(&segment), 0);
}

/// Such a child can neither take what it was given nor give it back, and leaves all of it to its
/// parent.
#[test]
fn arguments_that_a_child_cannot_map_are_released() {
    const LEN: u64 = 256 << 20;
    fn one_area() -> Result<(), offspring::Failure> {
        let limit = Some(6 << 30);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit })?;
        Ok(())
    }
    let segment = Segment::create(LEN).expect("a segment");
    let file = File::from(segment.as_fd().try_clone_to_owned().expect("a descriptor"));
    let file_len = || file.metadata().expect("metadata").len();
    // All sizes, so that each is there once, and those that come now lie beyond the first area.
    let mut size = LEN;
    while file_len() < 4 << 30 && size >= 4096 {
        let held: Result<Vec<_>, _> =
            (0..LEN / size).map(|_| ShmBox::<[u8]>::zeroed_in(&segment, size as usize)).collect();
        drop(held.expect("room"));
        size /= 2;
    }
    let before = file_len();
    let theirs = ShmBox::<[u8]>::zeroed_in(&segment, 700).expect("room");
    let shared = ShmArc::<[u8]>::from_slice_in(&segment, &[7; 1400]).expect("room");
    assert!(file_len() > before.max(4 << 30), "they have groups of their own");
    let builder = || Builder::new().before(one_area).stderr(Stream::Null);
    let child = builder().spawn(|theirs: ShmBox<[u8]>| theirs.len(), theirs).expect("spawn");
    let error = child.join().expect_err("it cannot map it").to_string();
    assert!(error.contains("mmap failed"), "{error}");
    let child = builder().spawn(|shared: ShmArc<[u8]>| shared.len(), shared).expect("spawn");
    let error = child.join().expect_err("it cannot map it").to_string();
    assert!(error.contains("mmap failed"), "{error}");
    assert_eq!(left(&segment), 0);
}
