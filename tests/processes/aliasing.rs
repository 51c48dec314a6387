//! Whatever a process inherits from its parent, it never has a second exclusive view of shared
//! bytes.
//!
//! A segment's mapping is not inherited, which leaves a hole in the child where the parent has the
//! segment. Once the hole was closed only at the child's first use of that very segment, and until
//! then anything might come to lie in it: a large vector, or another segment of the same size. Then
//! a `&'static mut` out of a leaked guard of the parent's did not fault in the child but pointed at
//! something else, and safe code wrote through two exclusive references to the same bytes. Now the
//! holes are closed before any code of the program runs.

#![expect(
    unsafe_code,
    reason = "processes that are forked by other means, and what they find at addresses of their parents"
)]

use std::time::Duration;

use offspring::{
    Child, Fault, ForkError, JoinError, Lock, LockError, Queue, Segment, SegmentError, spsc,
};

use crate::common::raw::{Board, Ended};
use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apart, apply};

type Value = [u64; 8];

/// Written to the board before a child looks at its parent's reference, and after.
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// A lock in a segment of its own, and the reference that a leaked guard gives.
struct Leaked {
    segment: Segment,
    lock: &'static Lock<Value>,
    value: &'static mut Value,
}

impl Leaked {
    fn in_segment_of(len: u64) -> Leaked {
        Leaked::in_segment(Segment::create(len).expect("a segment"))
    }

    fn in_segment(segment: Segment) -> Leaked {
        let lock: &Lock<Value> =
            Box::leak(Box::new(Lock::new_in(&segment, [7; 8]).expect("a lock")));
        let guard = Box::leak(Box::new(lock.lock().expect("free")));
        Leaked { segment, lock, value: guard }
    }

    fn address(&self) -> usize {
        self.value.as_ptr().addr()
    }

    /// Looks at what the reference points at, which must end this process, and changes it.
    fn look(self, board: Board) {
        board.set(BEFORE, 1);
        let found = std::hint::black_box(&self.value)[0];
        board.set(AFTER, 1 + found);
        self.value[0] = 99;
    }
}

/// Says whether a child that looked at its parent's reference was ended by that.
#[track_caller]
fn faulted<T: std::fmt::Debug>(board: Board, ending: Result<T, JoinError>, what: &str) {
    assert_eq!(board.get(BEFORE), 1, "{what}: it never looked: {ending:?}");
    assert_eq!(board.get(AFTER), 0, "{what}: there was something to be seen");
    assert!(matches!(ending, Err(JoinError::Killed(libc::SIGSEGV))), "{what}: {ending:?}");
}

/// Maps `len` bytes, at the address if there is room, and leaves them there.
fn map_at(address: usize, len: usize) -> Option<usize> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, where there is none yet.
    let found =
        unsafe { libc::mmap(std::ptr::without_provenance_mut(address), len, access, flags, -1, 0) };
    (found != libc::MAP_FAILED).then(|| found.addr())
}

/// The page in the middle of the mapping in which the address lies. Small mappings come to lie at
/// the ends of what is free.
fn middle_of_mapping(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let hexadecimal = |text: &str| usize::from_str_radix(text, 16).expect("a number");
    let ranges = maps.lines().filter_map(|line| line.split_once(' ')?.0.split_once('-'));
    let (start, end) = ranges
        .map(|(start, end)| (hexadecimal(start), hexadecimal(end)))
        .find(|&(start, end)| (start..end).contains(&address))
        .expect("it is mapped");
    start.midpoint(end) & !4095
}

/// What a child may do before it looks.
type Act = fn(&Leaked, &Leaked);

const ACTS: [(&str, Act); 9] = [
    ("nothing", |_, _| ()),
    ("a large vector", |_, _| std::mem::forget(vec![0_u8; 256 << 20])),
    ("vectors of all sizes", |_, _| {
        (12..31).for_each(|bits| std::mem::forget(Vec::<u8>::with_capacity(1 << bits)))
    }),
    ("memory where the segment was", |mine, _| {
        map_at(mine.address() & !4095, 4096).expect("memory");
    }),
    ("much memory about where the segment was", |mine, _| {
        (0..64).for_each(|page| {
            _ = map_at((mine.address() & !4095) - (page << 12), 1 << 20).expect("memory")
        });
    }),
    ("the other segment", |_, other| {
        assert!(other.lock.try_lock().is_err(), "the parent has it");
    }),
    ("the same segment", |mine, _| {
        assert!(mine.lock.try_lock().is_err(), "the parent has it");
    }),
    ("new segments", |mine, _| {
        (0..3).for_each(|_| {
            std::mem::forget(Segment::create(mine.segment.len()).expect("a segment"))
        });
    }),
    ("a thread", |_, _| std::thread::spawn(|| ()).join().expect("no panic")),
];

#[apply(apart)]
fn a_reference_of_the_parents_faults_in_a_child_whatever_it_does_first() {
    for (what, act) in ACTS {
        let board = Board::new();
        let (mine, other) = (Leaked::in_segment_of(1 << 20), Leaked::in_segment_of(1 << 20));
        let child = fork(move || {
            act(&mine, &other);
            mine.look(board);
        });
        faulted(board, child.expect("fork").join(), what);
    }
    // And of two segments of the same size, whichever was made first.
    for (what, act) in ACTS {
        let board = Board::new();
        let (other, mine) = (Leaked::in_segment_of(1 << 20), Leaked::in_segment_of(1 << 20));
        let child = fork(move || {
            act(&mine, &other);
            mine.look(board);
        });
        faulted(board, child.expect("fork").join(), what);
    }
}

#[apply(apart)]
fn a_reference_of_the_parents_faults_in_a_child_of_libcs_fork() {
    for (what, act) in ACTS {
        let board = Board::new();
        let (mine, other) = (Leaked::in_segment_of(1 << 20), Leaked::in_segment_of(1 << 20));
        let mut child = raw::fork(|| {
            act(&mine, &other);
            mine.look(board);
        });
        assert_eq!(child.wait(), Ended::Killed(libc::SIGSEGV), "{what}");
        assert_eq!((board.get(BEFORE), board.get(AFTER)), (1, 0), "{what}");
    }
}

#[apply(apart)]
fn a_reference_of_the_parents_faults_in_every_generation() {
    for used_before in [false, true] {
        let board = Board::new();
        let mine = Leaked::in_segment_of(1 << 20);
        let child = fork(move || {
            if used_before {
                assert!(mine.lock.try_lock().is_err(), "the parent has it");
            }
            let grandchild = fork(move || {
                if used_before {
                    assert!(mine.lock.try_lock().is_err(), "its parent's parent has it");
                }
                let last = fork(move || {
                    map_at(mine.address() & !4095, 4096).expect("memory");
                    mine.look(board);
                });
                matches!(last.expect("fork").join(), Err(JoinError::Killed(libc::SIGSEGV)))
            });
            grandchild.expect("fork").join().expect("a value")
        });
        assert!(child.expect("fork").join().expect("a value"), "used before: {used_before}");
        assert_eq!((board.get(BEFORE), board.get(AFTER)), (1, 0));

        // The same, of raw forks.
        let board = Board::new();
        let mine = Leaked::in_segment_of(1 << 20);
        raw::fork(|| {
            if used_before {
                assert!(mine.lock.try_lock().is_err(), "the parent has it");
            }
            let mut last = raw::fork(|| {
                map_at(mine.address() & !4095, 4096).expect("memory");
                mine.look(board);
            });
            assert_eq!(last.wait(), Ended::Killed(libc::SIGSEGV));
        })
        .join();
        assert_eq!((board.get(BEFORE), board.get(AFTER)), (1, 0));
    }
}

#[apply(apart)]
fn references_into_queues_and_rings_fault_as_well() {
    /// A child that looks at the first byte of a value of its parent's.
    fn child_that_looks(at: &'static Value, board: Board) -> Child<()> {
        let address = at.as_ptr().addr();
        let child = fork(move || {
            map_at(address & !4095, 4096).expect("memory");
            std::mem::forget(vec![0_u8; 256 << 20]);
            board.set(BEFORE, 1);
            board.set(AFTER, 1 + std::hint::black_box(at)[0]);
        });
        child.expect("fork")
    }
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue: &Queue<Value> =
        Box::leak(Box::new(Queue::with_capacity_in(&segment, 4).expect("a queue")));
    let (board, reserved) = (Board::new(), Box::leak(Box::new(queue.reserve().expect("room"))));
    faulted(board, child_that_looks(reserved, board).join(), "a reservation");

    let queue: &Queue<Value> =
        Box::leak(Box::new(Queue::with_capacity_in(&segment, 4).expect("a queue")));
    queue.send([7; 8]).expect("room");
    let (board, received) =
        (Board::new(), Box::leak(Box::new(queue.recv_ref().expect("a message"))));
    faulted(board, child_that_looks(received, board).join(), "a message in place");

    // A ring has copies only; what is asked here is that it works beside closed ranges.
    let (mut producer, mut consumer) = spsc::ring_in::<u64>(&segment, 4).expect("a ring");
    let child =
        fork(move || (0..100).try_for_each(|number| producer.send(number)).is_ok()).expect("fork");
    assert!((0..100).all(|number| consumer.recv() == Ok(number)));
    assert!(child.join().expect("a value"));
}

#[apply(apart)]
fn every_segment_of_the_parents_is_closed_in_a_child() {
    // The child looks at one of twelve; which is closed last must not matter.
    for looked_at in 0..12 {
        let board = Board::new();
        let mut all: Vec<Leaked> =
            (0..12).map(|number| Leaked::in_segment_of(1 << (16 + number % 3))).collect();
        let child = fork(move || {
            all.iter().for_each(|one| _ = map_at(one.address() & !4095, 4096).expect("memory"));
            all.swap_remove(looked_at).look(board);
        });
        faulted(board, child.expect("fork").join(), &format!("segment {looked_at}"));
    }
}

#[apply(apart)]
fn the_place_of_a_dropped_segment_is_free_and_that_of_the_next_is_closed() {
    // This process maps the commons before, as they take any place that is large enough.
    fork(|| ()).expect("fork").join().expect("a value");
    for _ in 0..10 {
        let len = 1 << 20;
        let kept = Leaked::in_segment_of(len);
        let dropped = Segment::create(len).expect("a segment");
        let was_there = Lock::new_in(&dropped, [1; 8]).expect("a lock");
        let place = middle_of_mapping(was_there.lock().expect("free").as_ptr().addr());
        drop((was_there, dropped));
        // A child does not close what is not there any more.
        let child = fork(move || map_at(place, 4096) == Some(place)).expect("fork");
        assert!(child.join().expect("a value"));
        // The next one has another size, and may lie there or elsewhere.
        let next = Leaked::in_segment_of(len * 2);
        for one in [kept, next] {
            let board = Board::new();
            let child = fork(move || {
                map_at(one.address() & !4095, 4096).expect("memory");
                one.look(board);
            });
            faulted(board, child.expect("fork").join(), "kept or next");
        }
    }
}

#[apply(apart)]
fn a_leaked_guard_is_of_no_use_in_a_child() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let lock: &'static Lock<Value> =
        Box::leak(Box::new(Lock::new_in(&segment, [7; 8]).expect("a lock")));
    // Guards are not `Send`, so it goes by its address; a static would do, too.
    let guard = Box::leak(Box::new(lock.lock().expect("free")));
    let address = std::ptr::from_mut(guard).expose_provenance();
    for attached in [false, true] {
        let child = fork(move || {
            std::panic::set_hook(Box::new(|_| ()));
            if attached {
                assert!(lock.try_lock().is_err(), "the parent has it");
            }
            // SAFETY: the child has a copy of the parent's guard at the same address, and nobody
            // else uses it.
            let copy = unsafe {
                &mut *std::ptr::with_exposed_provenance_mut::<offspring::LockGuard<'static, Value>>(
                    address,
                )
            };
            copy[0] = 99;
        });
        let ending = child.expect("fork").join();
        assert!(
            matches!(&ending, Err(JoinError::Panicked(panic)) if panic.message.contains("guard of the parent's")),
            "{ending:?}"
        );
    }
    assert_eq!(guard[0], 7);
}

/// Has every mapping refused that must not replace another, which is how ranges are closed.
fn refuse_to_close() {
    let only = Some((
        3,
        libc::MAP_FIXED_NOREPLACE.cast_unsigned(),
        libc::MAP_FIXED_NOREPLACE.cast_unsigned(),
    ));
    sandbox::install(&[sandbox::Rule { call: libc::SYS_mmap, only, errno: libc::EPERM }]);
}

#[apply(apart)]
fn a_child_whose_ranges_cannot_be_closed_never_runs() {
    let board = Board::new();
    let mine = Leaked::in_segment_of(1 << 20);
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    raw::fork(|| {
        // This process itself has closed its ranges by now.
        queue.send(1).expect("room");
        let fds = common::descriptors().len();
        refuse_to_close();
        for _ in 0..3 {
            let value = std::ptr::from_ref(&mine.value).expose_provenance();
            let child = fork(move || {
                board.set(BEFORE, 1);
                value as u64
            });
            let error = child.expect("fork").join().expect_err("it cannot begin");
            assert!(
                matches!(&error, JoinError::NotStarted(reason) if reason.contains("mmap")),
                "{error:?}"
            );
            assert!(error.to_string().contains("could not begin"), "{error}");
        }
        assert_eq!(queue.recv(), Ok(1), "nothing is in the way of the parent");
        assert_eq!(common::descriptors().len(), fds);
        assert!(common::children().is_empty());
    })
    .join();
    assert_eq!(board.get(BEFORE), 0, "the closure has run");
}

/// The words of an error of a process that could not close a range.
fn is_closing_refused(fault: Fault, number: i32) -> bool {
    matches!(fault, Fault::Os { call: "mmap", errno } if errno == number)
}

/// In a process that has something in a hole, or may have: whatever it tries is refused.
fn nothing_can_be_used(mine: &Leaked, number: i32) {
    for _ in 0..2 {
        match mine.lock.lock() {
            Err(LockError::Broken(fault)) => {
                assert!(is_closing_refused(fault, number), "{fault:?}")
            }
            other => panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string())),
        }
        match Lock::<Value>::open(&mine.segment, mine.lock.handle()) {
            Err(fault) => assert!(is_closing_refused(fault, number), "{fault:?}"),
            Ok(_) => panic!("a lock"),
        }
        // Not even what has nothing to do with it: that would be mapped somewhere.
        assert!(matches!(
            Segment::create(1 << 16),
            Err(SegmentError::NoRoom { .. } | SegmentError::Os { .. })
        ));
        let commons = Queue::<u64>::with_capacity(1).map(|_| ());
        assert!(commons.is_err(), "{commons:?}");
        match fork(|| ()) {
            Err(ForkError::Segment(fault)) => {
                assert!(is_closing_refused(fault, number), "{fault:?}")
            }
            Err(ForkError::Commons(_)) => {}
            other => panic!("{:?}", other.map(|child| child.id())),
        }
    }
}

#[apply(apart)]
fn a_process_of_libcs_fork_whose_ranges_cannot_be_closed_can_use_nothing() {
    let mine = Leaked::in_segment_of(1 << 20);
    raw::fork(|| {
        // Its own are closed. Those that it makes now it has itself, and its child has not.
        let own = Leaked::in_segment_of(1 << 20);
        refuse_to_close();
        raw::fork(|| nothing_can_be_used(&own, libc::EPERM)).join();
        assert!(own.lock.try_lock().is_err(), "this process has it");
    })
    .join();
    assert_eq!(mine.value[0], 7);
}

#[apply(apart)]
fn a_bare_clone_with_something_in_the_hole_can_use_nothing() {
    for exact in [false, true] {
        let mine = Leaked::in_segment_of(1 << 20);
        raw::clone(|| {
            let page = mine.address() & !4095;
            assert_eq!(map_at(page, 4096), Some(page), "no handler has closed the hole");
            if exact {
                // A second look: what lies there now is this process's own.
                assert_eq!(std::hint::black_box(&*mine.value)[0], 0);
            }
            nothing_can_be_used(&mine, libc::EEXIST);
            // Nor can its children, by whatever means.
            raw::fork(|| nothing_can_be_used(&mine, libc::EEXIST)).join();
            raw::clone(|| nothing_can_be_used(&mine, libc::EEXIST)).join();
        })
        .join();
        assert!(mine.lock.try_lock().is_err(), "this process still has it");
        assert_eq!(*mine.value, [7; 8]);
    }
}

#[apply(apart)]
fn a_bare_clone_that_finds_the_hole_empty_closes_it_at_its_first_use() {
    let (mine, other) =
        (Leaked::in_segment_of(1 << 20), Segment::create(1 << 20).expect("a segment"));
    let free = Lock::new_in(&other, 5_u64).expect("a lock");
    let board = Board::new();
    let mut clone = raw::clone(|| {
        // The first use of any segment closes the places of all.
        *free.lock().expect("free") += 1;
        map_at(mine.address() & !4095, 4096).expect("memory");
        let child = fork(|| 7).expect("fork");
        assert_eq!(child.join().expect("a value"), 7);
        mine.look(board);
    });
    assert_eq!(clone.wait(), Ended::Killed(libc::SIGSEGV));
    assert_eq!((board.get(BEFORE), board.get(AFTER)), (1, 0));
    assert_eq!(*free.lock().expect("free"), 6);
}

#[apply(apart)]
fn a_child_of_a_thread_that_shares_a_segment_with_others_faults_as_well() {
    // A raw fork beside threads, each of which makes and drops segments all the while.
    for _ in 0..10 {
        let board = Board::new();
        let mine = Leaked::in_segment_of(1 << 20);
        raw::fork(|| {
            // Its own, as those of its parent are closed already.
            let mine = Leaked::in_segment_of(mine.segment.len());
            for _ in 0..2 {
                std::thread::spawn(|| {
                    loop {
                        drop(Segment::create(1 << 20));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(3));
            // SAFETY: the copy allocates nothing, as another thread may have been doing just that.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let page = mine.address() & !4095;
                map_at(page, 4096);
                map_at(page, 1 << 20);
                mine.look(board);
                raw::exit(0);
            }
            let mut status = 0;
            // SAFETY: the status is a valid place to write.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert!(
                libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV,
                "{status:#x}"
            );
            raw::exit(0);
        })
        .join();
        assert_eq!((board.get(BEFORE), board.get(AFTER)), (1, 0));
    }
}

/// Safe code that has a segment's descriptor writes under references, or makes a file shorter. So
/// this must not compile if a handle lends one.
#[apply(apart)]
fn a_segment_lends_no_descriptor() {
    trait AmbiguousIfLent<Marker> {
        fn check() {}
    }
    impl<T: ?Sized> AmbiguousIfLent<()> for T {}
    struct Lent;
    impl<T: ?Sized + std::os::fd::AsFd> AmbiguousIfLent<Lent> for T {}
    <Segment as AmbiguousIfLent<_>>::check();
    <Queue<u64> as AmbiguousIfLent<_>>::check();
    <Lock<u64> as AmbiguousIfLent<_>>::check();
}
