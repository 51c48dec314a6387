//! A thousand processes make, use and drop objects, send boxes and handles, and are killed at
//! random. Afterwards nothing is
//! left of them: no block of the segments, no page, no descriptor, no file, no entry in the peer
//! table.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use offspring::{
    Child, JoinError, Lock, LockError, ObjectQueue, OnReceiverDeath, Queue, QueueOptions, Receiver,
    Segment, SegmentOptions, Sender, ShmArc, ShmBox,
};

use crate::common::fd::SegmentFd;
use crate::common::{self, fork};
use crate::harness::{apply, fresh};

const PROCESSES: usize = 1000;
const AT_A_TIME: usize = 20;
const COMMONS_LEN: u64 = 64 << 20;
const SEGMENT_LEN: u64 = 8 << 20;
/// Blocks below 64 KiB keep their pages for the next one who asks: at most 64 blocks of each size
/// here, and the headers of all blocks.
const KEPT_PAGES: u64 = 9 << 20;

type Page = [u8; 4096];

/// The objects that everybody has.
#[derive(Clone)]
struct Shared {
    segment: Segment,
    jobs: Queue<u64>,
    answers: Queue<u64>,
    sum: Lock<[u64; 2]>,
    boxes: Queue<ShmBox<[u64]>>,
    handles: ObjectQueue<Handles>,
    ends: (Sender<u64>, Receiver<u64>),
}

/// Objects that only their message holds: a queue with a number in it, both ends of a channel, and
/// the number once more.
type Handles = (Queue<u64>, Sender<u64>, Receiver<u64>, ShmArc<u64>);

impl Shared {
    fn new(segment: Segment) -> Shared {
        let mut redelivers = QueueOptions::new();
        redelivers.capacity(8).on_receiver_death(OnReceiverDeath::Redeliver);
        Shared {
            jobs: Queue::with_capacity(8).expect("a queue"),
            answers: redelivers.create_in(&segment).expect("a queue"),
            sum: Lock::new_in(&segment, [0; 2]).expect("a lock"),
            boxes: redelivers.create_in(&segment).expect("a queue"),
            handles: redelivers.create_objects_in(&segment).expect("a queue"),
            ends: redelivers.create_channel_in(&segment).expect("a channel"),
            segment,
        }
    }
}

/// Sends what is more than bytes, and takes what is there.
fn carry(shared: &Shared, round: u64) {
    let segment = &shared.segment;
    let numbers = vec![round; 1 + (round % 500) as usize];
    let _ = shared.boxes.try_send(ShmBox::from_slice_in(segment, &numbers).expect("room"));
    if let Ok(numbers) = shared.boxes.try_recv() {
        assert!(numbers.iter().all(|&number| number == numbers[0]), "somebody else's");
    }
    let queue = Queue::with_capacity_in(segment, 1).expect("room");
    queue.send(round).expect("room");
    let (sender, receiver) =
        QueueOptions::new().capacity(1).create_channel_in(segment).expect("room");
    let again = ShmArc::new_in(segment, round).expect("room");
    let _ = shared.handles.try_send((queue, sender, receiver, again));
    if let Ok((queue, sender, receiver, again)) = shared.handles.try_recv() {
        assert_eq!(queue.try_recv(), Ok(*again));
        sender.send(*again).expect("there is a receiver");
        drop(sender);
        assert!(receiver.iter().all(|number| number == *again), "somebody else's");
    }
    let _ = shared.ends.0.try_send(round);
    let _ = shared.ends.1.try_recv();
}

/// What each process does until it is killed.
fn live(shared: &Shared, number: u64) -> ! {
    for round in number.. {
        // Large ones get their own pages, small ones share them.
        let _own =
            Queue::<Page>::with_capacity(1 + (round % 64) as usize).expect("room in the commons");
        let _theirs =
            Queue::<[u8; 40]>::with_capacity_in(&shared.segment, 1 + (round % 300) as usize)
                .expect("room");
        let lock = Lock::new(round).expect("room in the commons");
        let opened = Lock::<u64>::open(&Segment::commons().expect("the commons"), lock.handle())
            .expect("it is there");
        assert_eq!(*opened.lock().expect("clean"), round);
        carry(shared, round);
        let _ = shared.jobs.try_send(round);
        let _ = shared.jobs.try_recv();
        let _ = shared.answers.send_timeout(round, Duration::from_millis(1));
        drop(shared.answers.try_recv_ref());
        let mut sum = match shared.sum.lock() {
            Ok(guard) => guard,
            Err(LockError::OwnerDied) => {
                let mut guard = shared.sum.recover().expect("not ours");
                guard[1] = guard[0];
                guard.mark_repaired()
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(sum[0], sum[1], "half a change");
        sum[0] += 1;
        sum[1] += 1;
    }
    common::sleep_for_ever()
}

#[apply(fresh)]
fn nothing_is_left_of_a_thousand_processes() {
    // Before the first child, as all of it is to be allocated in the end.
    let commons = SegmentOptions::new().len(COMMONS_LEN).commons().expect("the first use");
    fork(|| ()).expect("the first fork").join().expect("a value");
    let descriptors = common::descriptors();
    let segment = Segment::create(SEGMENT_LEN).expect("a segment");
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", segment.as_raw_fd()))
        .expect("a descriptor")
        .ino();
    let (room, segments_room) =
        (room(&commons), room_for(&segment, SEGMENT_LEN as usize / size_of::<Page>()));
    let pages = pages(&commons);
    {
        let shared = Shared::new(segment.clone());
        for batch in 0..PROCESSES / AT_A_TIME {
            let mut children: Vec<Child<()>> = Vec::new();
            for number in 0..AT_A_TIME {
                let theirs = shared.clone();
                let live = move || -> () { live(&theirs, (batch * AT_A_TIME + number) as u64) };
                children.push(fork(live).expect("fork"));
                // Each lives for another time, so that the kills come at all points of its life.
                std::thread::sleep(Duration::from_micros((batch * 131 + number * 37) as u64 % 700));
            }
            children.iter().for_each(|child| child.kill().expect("kill"));
            for child in children {
                let error = child.join().expect_err("it never returns");
                assert!(matches!(error, JoinError::Killed(9)), "{error}");
            }
        }
        // What they shared still works.
        while shared.jobs.try_recv().is_ok() {}
        while shared.answers.try_recv().is_ok() {}
        println!(
            "left for others: {} boxes, {} messages with handles, {} in the channel",
            shared.boxes.len(),
            shared.handles.len(),
            shared.ends.1.len()
        );
        for n in 0..20 {
            shared.jobs.try_send(n).expect("room");
            assert_eq!(shared.jobs.try_recv(), Ok(n));
            shared.answers.try_send(n).expect("room");
            assert_eq!(shared.answers.try_recv(), Ok(n));
        }
        let recovered = match shared.sum.lock() {
            Ok(guard) => *guard,
            Err(_) => *shared.sum.recover().expect("nobody has it"),
        };
        println!("{PROCESSES} processes took the lock {} times", recovered[0]);
        assert!(recovered[0] >= PROCESSES as u64, "hardly any of them came as far as the lock");
    }
    assert_eq!(commons.reap().expect("attached"), 0, "joining had cleared up everything");
    assert_eq!(segment.reap().expect("attached"), 0, "joining had cleared up everything");
    for segment in [&commons, &segment] {
        assert_eq!(segment.stats().expect("attached").in_use.blocks, 0, "of the dead");
    }
    let pages_after = self::pages(&commons);
    println!("pages of the commons: {pages} bytes before, {pages_after} after");
    assert!(pages_after <= pages + KEPT_PAGES, "{pages} bytes before, {pages_after} after");
    assert_eq!(self::room(&commons), room, "something in the commons belongs to the dead");
    assert_eq!(
        room_for(&segment, SEGMENT_LEN as usize / size_of::<Page>()),
        segments_room,
        "something in the segment"
    );
    assert_eq!(common::holders::holders_of(inode), [std::process::id()]);
    drop(segment);
    assert_eq!(common::holders::holders_of(inode), [0; 0], "somebody still has the segment");
    assert_eq!(common::descriptors(), descriptors);
}

fn room(segment: &Segment) -> usize {
    room_for(segment, segment.len() as usize / size_of::<Page>())
}

/// Slots of the largest queue of pages that fits into the segment.
fn room_for(segment: &Segment, most: usize) -> usize {
    let (mut fits, mut too_many) = (0, most + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match Queue::<Page>::with_capacity_in(segment, middle) {
            Ok(_) => fits = middle,
            Err(_) => too_many = middle,
        }
    }
    fits
}

/// Bytes that the kernel has given to the segment.
fn pages(segment: &Segment) -> u64 {
    rustix::fs::fstat(segment.as_fd()).expect("a descriptor").st_blocks as u64 * 512
}
