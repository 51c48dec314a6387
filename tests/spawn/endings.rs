//! However a child ends, its parent is told how.
#![expect(unsafe_code, reason = "what kills a process has no safe words")]

use std::time::Duration;

use offspring::{
    Builder, JoinError, Queue, Segment, ShmBox, SpawnError, StartMethod, Stream, spawn,
};

use crate::common::sandbox::refuse;
use crate::common::{sleep_for_ever_returning_nothing, wait_until};
use crate::scene::{METHODS, scene};

fn ending(method: StartMethod, function: fn(())) -> JoinError {
    let builder = Builder::new().method(method).stderr(offspring::Stream::Null);
    let child = builder.before(no_core).spawn(function, ()).expect("spawn");
    child.join().expect_err("no value")
}

fn no_core() -> Result<(), offspring::Failure> {
    crate::common::sandbox::no_core();
    Ok(())
}

#[test]
fn each_end_is_told_from_the_others() {
    fn overflow(depth: u64) -> u64 {
        let page = [depth; 512];
        if depth == u64::MAX { 0 } else { overflow(depth + 1) + std::hint::black_box(page)[7] }
    }
    for method in METHODS {
        let ending = |function| ending(method, function);
        let exited = ending(|()| std::process::exit(3));
        assert!(matches!(exited, JoinError::Exited(3)), "{exited:?}");
        let exited = ending(|()| std::process::exit(0));
        assert!(matches!(exited, JoinError::Exited(0)), "{exited:?}");
        let aborted = ending(|()| std::process::abort());
        assert!(matches!(aborted, JoinError::Killed(libc::SIGABRT)), "{aborted:?}");
        // SAFETY: not safe, and meant so: there is nothing at address 8.
        let fault = ending(|()| unsafe {
            std::ptr::without_provenance_mut::<u8>(8).write_volatile(1);
        });
        assert!(matches!(fault, JoinError::Killed(libc::SIGSEGV)), "{fault:?}");
        let overflown = ending(|()| assert_ne!(overflow(std::hint::black_box(1)), 0));
        assert!(matches!(overflown, JoinError::Killed(libc::SIGSEGV)), "{overflown:?}");
        let Err(JoinError::Panicked(panic)) = Err::<(), _>(ending(|()| panic!("no {}", "luck")))
        else {
            panic!("{method:?}")
        };
        assert_eq!(panic.message, "no luck");
        let location = panic.location.expect("it is known");
        assert!(location.file.ends_with("endings.rs") && location.line > 30, "{location}");
    }
}

/// Has the child killed before it writes the header of its record, which is 16 bytes.
fn never_finish() -> Result<(), offspring::Failure> {
    crate::common::sandbox::no_core();
    crate::common::sandbox::kill_at(libc::SYS_pwrite64, Some((2, u32::MAX, 16)));
    Ok(())
}

#[test]
fn a_child_that_is_killed_while_it_sends_anything_has_sent_nothing() {
    fn check<A: offspring::Argument, T: offspring::Return + std::fmt::Debug>(
        function: fn(A) -> T,
        arguments: impl Fn() -> A,
    ) {
        for method in METHODS {
            let builder =
                || Builder::new().method(method).before(never_finish).stderr(Stream::Null);
            let ended = builder().spawn(function, arguments()).expect("spawn").join();
            assert!(matches!(ended, Err(JoinError::Killed(libc::SIGSYS))), "{ended:?}");
            let mut child = builder().spawn(function, arguments()).expect("spawn");
            child.wait().expect("it ends");
            let ended = child.try_join();
            assert!(matches!(ended, Some(Err(JoinError::Killed(libc::SIGSYS)))), "{ended:?}");
        }
    }
    check(|()| (), || ());
    check(|number: u64| number, || 7);
    check(|text: String| text, || "seven".repeat(20));
    check(|len: usize| vec![7_u8; len], || 20_000);
    check(|len: usize| vec![7_u64; len], || 1_000_000);
    check(|len: usize| "7".repeat(len), || 100_000);
    check(|len: usize| (7_u8, vec![7_u8; len]), || 20_000);
    check(|len: usize| (7_u8, vec![7_u8; len]), || 300_000);
    check(|()| -> u64 { panic!("no {}", "luck".repeat(5000)) }, || ());

    let segment = Segment::create(4 << 20).expect("a segment");
    let queue = || Queue::<u64>::with_capacity_in(&segment, 4).expect("room");
    check(|queue: Queue<u64>| queue, queue);
    check(|queue: Queue<u64>| (vec![7_u8; 300_000], queue), queue);
    check(|boxed: ShmBox<u64>| boxed, || ShmBox::new_in(&segment, 7).expect("room"));
    // Children of other tests may have it open as well.
    assert_eq!(segment.stats().expect("attached").in_use.blocks, 0);
}

#[test]
fn a_child_that_is_killed_while_it_encodes_a_value_has_sent_nothing() {
    /// Kills its process after so many bytes.
    #[derive(Debug, serde::Deserialize)]
    struct Deadly(usize);
    impl serde::Serialize for Deadly {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut bytes = serializer.serialize_tuple(self.0 + 1)?;
            (0..self.0).try_for_each(|_| bytes.serialize_element(&7_u8))?;
            crate::scene::signal(std::process::id(), nix::sys::signal::Signal::SIGKILL);
            bytes.end()
        }
    }
    for method in METHODS {
        for len in [0, 100, 5000, 100_000, 1_000_000] {
            let child = Builder::new().method(method).spawn(Deadly, len).expect("spawn");
            let ended = child.join();
            assert!(matches!(ended, Err(JoinError::Killed(9))), "{len}: {ended:?}");
        }
    }
}

#[test]
fn limits_end_a_child_with_their_signals() {
    for method in METHODS {
        let builder = || {
            let builder = Builder::new().method(method).stderr(offspring::Stream::Null);
            builder.before(no_core)
        };
        let take = |len: usize| {
            let mut bytes = vec![1_u8; len];
            bytes[len / 2] = 2;
            bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
        };
        let within = builder().memory_limit(256 << 20).spawn(take, 1 << 20).expect("spawn");
        assert_eq!(within.join().expect("enough"), (1 << 20) + 1);
        let beyond = builder().memory_limit(256 << 20).spawn(take, 1 << 30).expect("spawn").join();
        assert!(matches!(beyond, Err(JoinError::Killed(libc::SIGABRT))), "{beyond:?}");
        let none = builder().memory_limit(0).spawn(take, 1 << 20).expect("spawn").join();
        assert!(matches!(none, Err(JoinError::Killed(_) | JoinError::NotStarted(_))), "{none:?}");
        let turn = |()| loop {
            std::hint::spin_loop();
        };
        let child = builder().cpu_limit(Duration::from_millis(10)).spawn(turn, ());
        let turned: Result<(), _> = child.expect("spawn").join();
        assert!(matches!(turned, Err(JoinError::Killed(libc::SIGXCPU))), "{turned:?}");
        for most in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::new(u64::MAX, 1)] {
            let child = builder().cpu_limit(most).spawn(take, 1 << 20).expect("spawn");
            assert_eq!(child.join().expect("enough"), (1 << 20) + 1, "{most:?}");
        }
    }
}

#[test]
fn segments_do_not_count_as_memory_of_a_child() {
    let child = Builder::new().memory_limit(64 << 20).spawn(
        |()| {
            let mut bytes = offspring::ShmBox::<[u8]>::zeroed(128 << 20).map_err(|_| 0_u64)?;
            bytes[100 << 20] = 7;
            Ok::<u64, u64>(bytes[100 << 20].into())
        },
        (),
    );
    let told = child.expect("spawn").join();
    assert!(matches!(told, Ok(Ok(7))), "{told:?}");
}

#[test]
fn a_child_can_be_signalled_stopped_and_killed() {
    for method in METHODS {
        let sleep = |()| sleep_for_ever_returning_nothing();
        let start = || Builder::new().method(method).spawn(sleep, ()).expect("spawn");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGKILL] {
            let builder = Builder::new().method(method).before(no_core);
            let child = builder.spawn(sleep, ()).expect("spawn");
            // It lets the requests in from before its function on.
            wait_until("it has begun", || is_asleep_in_its_function(child.id()));
            child.signal(signal).expect("it lives");
            let ending: Result<(), _> = child.join();
            assert!(matches!(ending, Err(JoinError::Killed(told)) if told == signal), "{ending:?}");
        }
        let mut child = start();
        child.signal(libc::SIGSTOP).expect("it lives");
        assert!(child.join_timeout(Duration::from_millis(20)).is_none() && child.is_alive());
        child.kill().expect("it lives");
        assert!(matches!(child.join(), Err(JoinError::Killed(libc::SIGKILL))));
    }
}

fn is_asleep_in_its_function(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
    [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(Some).contains(&number)
}

#[test]
fn a_panic_of_another_thread_is_told() {
    let child = spawn(
        |()| -> () {
            let thread = std::thread::spawn(|| panic!("in a thread"));
            std::panic::resume_unwind(thread.join().expect_err("it panics"));
        },
        (),
    );
    let Err(JoinError::Panicked(panic)) = child.expect("spawn").join() else { panic!() };
    assert_eq!((panic.message.as_str(), panic.location), ("in a thread", None));
}

#[test]
fn a_dropped_child_runs_on() {
    for method in METHODS {
        let (sender, receiver) = offspring::channel::<u64>(1).expect("a channel");
        let late = |sender: offspring::Sender<u64>| {
            std::thread::sleep(Duration::from_millis(50));
            sender.send(7).expect("somebody listens");
        };
        drop(Builder::new().method(method).spawn(late, sender).expect("spawn"));
        assert_eq!(receiver.recv(), Ok(7), "{method:?}");
    }
}

scene! {
fn a_start_that_is_refused_leaves_no_place_taken() {
    let queue = Queue::<u64>::with_capacity(1).expect("room");
    let peers = || Segment::commons().expect("there").stats().expect("attached").peers.len();
    let before = peers();
    refuse(&[libc::SYS_newfstatat], libc::EACCES);
    for _ in 0..1100 {
        match spawn(|_: Queue<u64>| (), queue.clone()) {
            Err(SpawnError::Os { call, .. }) => assert_eq!(call, "stat /proc/self/exe"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(peers(), before);
}
}
