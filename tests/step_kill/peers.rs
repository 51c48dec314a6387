//! Cases of the peer table: processes that arrive, leave, clear up after others, take the place of
//! the dead, and fork.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use offspring::spsc::{Consumer, Producer, ring_in};
use offspring::{
    Handle, JoinError, Lock, OnReceiverDeath, Queue, QueueOptions, Segment, SegmentOptions,
};
use rustix::event::{PollFd, PollFlags};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::holders::{holders_of, segments_of};
use crate::common::room::room;
use crate::common::trace::{Errand, Next, Tracee, let_trace, mark, mark_telling};
use crate::common::watch::{Album, Watch};
use crate::common::{fork, processes};
use crate::line::{Heir, Line};
use crate::queue::{Message, number_of, sealed};
use crate::stage::{BOTH, Found, Helper, How, Scene, Tally, found, rehearse};

const LONG: Duration = Duration::from_secs(20);

/// Where the peer table lies, how many entries it has and of which size: drawn in
/// `src/segment/layout.rs` and `src/peer/table.rs`.
const TABLE: usize = 4096;
const ENTRIES: usize = 1024;
const ENTRY: usize = 64;

/// Entries of the peer table that are not free.
fn peers(segment: BorrowedFd<'_>) -> usize {
    let mut table = vec![0; ENTRIES * ENTRY];
    let file = File::from(segment.try_clone_to_owned().expect("a descriptor"));
    file.read_exact_at(&mut table, TABLE as u64).expect("readable");
    // The phase is the second hexadecimal digit of the fifth byte of an entry's word; 0 is FREE.
    table.chunks_exact(ENTRY).filter(|entry| entry[4] & 0xf != 0).count()
}

/// Objects that a dead process has in its hands.
struct Estate {
    queue: Queue<Message>,
    again: Queue<Message>,
    lock: Lock<[u64; 2]>,
    ring: Handle,
}

impl Estate {
    /// Makes them, and a helper that claims something of each.
    fn new(segment: &Segment) -> (Estate, Helper) {
        let queue = Queue::with_capacity_in(segment, 3).expect("a queue");
        let again = QueueOptions::new()
            .capacity(2)
            .on_receiver_death(OnReceiverDeath::Redeliver)
            .create_in(segment);
        let again: Queue<Message> = again.expect("a queue");
        let lock = Lock::new_in(segment, [5, 5]).expect("a lock");
        let (sender, receiver) = ring_in::<Message>(segment, 2).expect("a ring");
        let estate = Estate { queue, again, lock, ring: sender.handle() };
        (1..=2).for_each(|number| estate.queue.try_send(sealed(number)).expect("room"));
        estate.again.try_send(sealed(3)).expect("room");
        let helper = Helper::start(|| {
            std::mem::forget(estate.queue.try_recv_ref().expect("a message"));
            std::mem::forget(estate.queue.try_reserve().expect("room"));
            std::mem::forget(estate.again.try_recv_ref().expect("a message"));
            let mut guard = estate.lock.lock().expect("free");
            guard[0] = 7;
            std::mem::forget(guard);
            std::mem::forget((sender.standby(), receiver.standby()));
            let own = Queue::<Message>::with_capacity_in(segment, 100).expect("a queue");
            (own, Lock::new_in(segment, 0_u64).expect("a lock"))
        });
        drop((sender, receiver));
        (estate, helper)
    }

    /// What is left when everything was cleared up: which objects still need work, and how much
    /// memory there is.
    fn check(&self, segment: &Segment, how: How) -> String {
        let ring = (
            Producer::<Message>::open(segment, self.ring),
            Consumer::<Message>::open(segment, self.ring),
        );
        // A ring of which only the dead had ends is gone once somebody has cleared up after them:
        // the sender first.
        assert!(ring.0.is_err() || ring.1.is_ok());
        drop(ring);
        let reaped = if how == How::Reaped { segment.reap().expect("attached") } else { 0 };
        assert!(how == How::Alone || reaped >= 1, "the victim is dead");
        let message = self.queue.recv_timeout(LONG).expect("the second is there");
        assert_eq!(number_of(&message), 2);
        for lap in 0..2 {
            (0..3).for_each(|number| {
                self.queue
                    .send_timeout(sealed(lap * 3 + number), LONG)
                    .expect("the whole capacity");
            });
            (0..3).for_each(|number| {
                assert_eq!(self.queue.try_recv().map(|message| message[0]), Ok(lap * 3 + number))
            });
        }
        let lost = self.queue.lost();
        let again = self.again.recv_ref_timeout(LONG).expect("it came back");
        assert!(again.redelivered() && number_of(&again) == 3);
        drop(again);
        assert!(self.lock.lock().expect_err("its owner died").is_owner_died());
        drop(self.lock.recover().expect("nobody has it").mark_repaired());
        drop(self.lock.try_lock().expect("repaired"));
        format!("lost {lost}, {}", room(segment))
    }
}

/// Clears up after the dead helper, or finds the table full and takes its place.
fn reap_plan(table_is_full: bool) -> Plan {
    let operation = if table_is_full { "first use, table full of dead" } else { "Segment::reap" };
    Plan::new(
        "peer table",
        operation,
        "claims of every kind".to_owned(),
        move |tally: &mut Tally| {
            with_estate(|segment, kept, estate, expected| {
                if table_is_full {
                    // The stage has the first entry and the helper the second.
                    let mut watch = Watch::new(segment.as_fd());
                    (2..ENTRIES).for_each(|index| {
                        watch.copy_within(TABLE + ENTRY, TABLE + index * ENTRY, ENTRY)
                    });
                }
                let victim = || {
                    Tracee::start(|| {
                        if !table_is_full {
                            std::hint::black_box(kept.len());
                        }
                        mark();
                        if table_is_full {
                            kept.try_send(sealed(1)).expect("room");
                        } else {
                            segment.reap().expect("attached");
                        }
                        mark();
                    })
                };
                visit_estate(tally, segment, kept, estate, expected, &victim);
            });
        },
    )
}

/// Lines of victims: each clears up, after the dead helper and after a reaper that was killed while
/// it did.
fn line(object: &'static str, samples: &'static [usize]) -> Plan {
    Plan::new(
        object,
        "peer table: reap",
        "claims of every kind".to_owned(),
        move |tally: &mut Tally| {
            with_estate(|segment, kept, estate, _| {
                let reaper = || {
                    Tracee::start(|| {
                        std::hint::black_box(kept.len());
                        mark();
                        mark_telling(segment.reap().expect("attached") as u64);
                    })
                };
                let heir = Heir {
                    name: "reap",
                    start: &|_| reaper(),
                    expected: &|_, before, reaped| match reaped {
                        0 => Err("it found nobody dead".to_owned()),
                        // Killed between taking the slot from the dead and counting its message, a
                        // reaper leaves the count one short.
                        _ => Ok(vec![vec![
                            before.to_owned(),
                            before.replacen("lost 1", "lost 0", 1),
                        ]]),
                    },
                };
                let check = |how| {
                    while kept.try_recv().is_ok() {}
                    estate.check(segment, how)
                };
                let line = Line {
                    segment: segment.as_fd(),
                    first: &reaper,
                    heirs: &[heir],
                    check: &check,
                    samples,
                };
                line.visit(tally);
            });
        },
    )
}

/// All lines of victims. To clear up is long, so only if `full`.
pub fn lines(full: bool) -> Vec<Plan> {
    if full { vec![line("two victims", &[5]), line("three victims", &[2, 2])] } else { Vec::new() }
}

type Kept = Queue<Message>;

/// Makes a segment with the claims of a dead process in it, and says what survivors are to find
/// there.
fn with_estate(act: impl FnOnce(&Segment, &Kept, &Estate, Vec<Found>)) {
    let segment = Segment::create(1 << 16).expect("a segment");
    let kept = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
    let (estate, helper) = Estate::new(&segment);
    helper.kill();
    let mut watch = Watch::new(segment.as_fd());
    let before = watch.snapshot();
    let room = Errand::send(60, || {
        segment.reap().expect("attached");
        room(&segment)
    });
    let room = room.answer().expect("a number");
    watch.restore(&before);
    // Killed between taking the slot from the dead and counting its message, a reaper leaves the
    // count one short.
    let mut expected = found([1, 0, 1].map(|lost| format!("lost {lost}, {room}")));
    expected.iter_mut().for_each(|finding| finding.optional = true);
    act(&segment, &kept, &estate, expected);
}

fn visit_estate(
    tally: &mut Tally,
    segment: &Segment,
    kept: &Kept,
    estate: &Estate,
    expected: Vec<Found>,
    victim: &dyn Fn() -> Tracee,
) {
    let check = |how| {
        while kept.try_recv().is_ok() {}
        estate.check(segment, how)
    };
    let scene = Scene {
        segment: segment.as_fd(),
        victim,
        expected,
        check: &check,
        beside: None,
        helpers: Vec::new(),
        hows: BOTH,
    };
    scene.visit(tally, None);
}

/// Takes what is in the queue, and tells that, what room there is, and how many entries are taken
/// once all was cleared up.
fn look(segment: &Segment, queue: &Queue<Message>, how: How) -> String {
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    let mut messages = Vec::new();
    while let Ok(message) = queue.try_recv() {
        messages.push(number_of(&message));
    }
    for lap in 0..2 {
        let numbers = lap * 10..lap * 10 + queue.capacity() as u64;
        numbers.clone().for_each(|number| {
            queue.send_timeout(sealed(number), LONG).expect("the whole capacity")
        });
        numbers.for_each(|number| {
            assert_eq!(queue.try_recv().map(|message| number_of(&message)), Ok(number))
        });
    }
    let room = room(segment);
    segment.reap().expect("attached");
    format!("{messages:?}, {room}, {} peers", peers(segment.as_fd()))
}

/// What survivors are to find if the victim has sent one message, or not, and nothing is left of it
/// otherwise.
fn sent_or_not(segment: &Segment, queue: &Queue<Message>) -> Vec<Found> {
    let nothing = Errand::send(60, || look(segment, queue, How::Reaped)).answer().expect("a text");
    segment.reap().expect("attached");
    found([nothing.clone(), nothing.replacen("[]", "[1]", 1)])
}

/// The first use of a segment in a process that was forked by other code.
fn first_use_plan() -> Plan {
    Plan::new(
        "peer table",
        "first use after a raw fork",
        "try_send".to_owned(),
        |tally: &mut Tally| {
            let segment = Segment::create(1 << 16).expect("a segment");
            let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
            let _more = [0, 1, 2].map(|_| Lock::new_in(&segment, 0_u64).expect("a lock"));
            let scene = Scene {
                segment: segment.as_fd(),
                victim: &|| {
                    Tracee::start(|| {
                        mark();
                        queue.try_send(sealed(1)).expect("room");
                        mark();
                    })
                },
                expected: sent_or_not(&segment, &queue),
                check: &|how| look(&segment, &queue, how),
                beside: None,
                helpers: Vec::new(),
                hows: BOTH,
            };
            scene.visit(tally, None);
        },
    )
}

/// The small commons of a family.
fn commons() -> Segment {
    SegmentOptions::new().len(1 << 16).commons().expect("the first use")
}

/// A child of the crate's own that is traced from the first mark in its closure on.
fn traced_child(life: impl FnOnce() + Send + 'static) -> (Tracee, offspring::Child<()>) {
    let child = fork(move || {
        let_trace();
        life();
    });
    let child = child.expect("fork");
    (Tracee::adopt(child.id()), child)
}

/// What a child of [`offspring::fork`] does at its first use, or at its end.
fn child_plan(at_its_end: bool) -> Plan {
    let operation = if at_its_end { "end of a child" } else { "first use in a child" };
    Plan::new("peer table", operation, "try_send".to_owned(), move |tally: &mut Tally| {
        let segment = commons();
        let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
        let start = || {
            let theirs = queue.clone();
            traced_child(move || {
                if at_its_end {
                    theirs.try_send(sealed(1)).expect("room");
                    mark();
                } else {
                    mark();
                    theirs.try_send(sealed(1)).expect("room");
                    mark();
                }
            })
        };
        // Without the parent's word survivors cannot tell that a child is dead which never used its
        // place: it stays reserved.
        let text = |how| {
            let text = look(&segment, &queue, how);
            text.rsplit_once(", ").expect("peers come last").0.to_owned()
        };
        let nothing = Errand::send(60, || text(How::Reaped)).answer().expect("a text");
        segment.reap().expect("attached");
        let sent = nothing.replacen("[]", "[1]", 1);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                let (tracee, child) = start();
                // The tracer waits for it.
                std::mem::forget(child);
                tracee
            },
            expected: if at_its_end { found([sent]) } else { found([nothing, sent]) },
            check: &text,
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        let before = Watch::new(segment.as_fd()).snapshot();
        scene.visit(tally, None);
        Watch::new(segment.as_fd()).restore(&before);
        // The parent's word: killed after each change of the segment, the child is cleared up after
        // when it is joined.
        for change in 0.. {
            let (mut tracee, child) = start();
            let finished = Watch::new(segment.as_fd()).follow(&mut tracee, change);
            tracee.kill_for_its_parent();
            let joined = child.join();
            // At its end it may have sent its value before it was killed, and then it counts as
            // returned.
            let as_expected = match joined {
                Ok(()) => at_its_end,
                Err(JoinError::Killed(9)) => !(at_its_end && finished),
                Err(_) => false,
            };
            if !as_expected {
                tally.fail(format!("killed after change {change}: {joined:?}"));
            }
            while queue.try_recv().is_ok() {}
            tally.kills += 1;
            let taken = peers(segment.as_fd());
            if taken != 1 {
                tally.fail(format!(
                    "killed after change {change} and joined: {taken} entries are taken"
                ));
            }
            if finished {
                break;
            }
        }
    })
}

/// The parent is the victim. Its child ends with it.
fn fork_plan() -> Plan {
    Plan::new("fork", "offspring::fork", "an idle child".to_owned(), |tally: &mut Tally| {
        let segment = commons();
        let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
        let _more = Lock::new_in(&segment, 0_u64).expect("a lock");
        let mut expected = sent_or_not(&segment, &queue);
        expected.truncate(1);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                let theirs = queue.clone();
                Tracee::start(|| {
                    std::hint::black_box(queue.len());
                    mark();
                    let child = fork(move || {
                        let _kept = theirs;
                        loop {
                            std::thread::park();
                        }
                    });
                    mark();
                    let child: offspring::Child<()> = child.expect("fork");
                    std::mem::forget(child);
                })
            },
            expected,
            check: &|how| look(&segment, &queue, how),
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
    })
}

/// The parent is killed for real between the first instruction in which it has a child and its
/// last, while the child works.
fn fork_kills_plan() -> Plan {
    Plan::new("fork", "offspring::fork", "a child at work".to_owned(), |tally: &mut Tally| {
        let segment = commons();
        let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
        let mut watch = Watch::new(segment.as_fd());
        let before = watch.snapshot();
        let start = |their_pids: PipeWriter| {
            let theirs = queue.clone();
            Tracee::start(|| {
                std::hint::black_box(queue.len());
                mark();
                let child = fork(move || {
                    (&their_pids)
                        .write_all(&std::process::id().to_le_bytes())
                        .expect("somebody listens");
                    loop {
                        std::hint::black_box((
                            theirs.try_send(sealed(1)).is_ok(),
                            theirs.try_recv().is_ok(),
                        ));
                    }
                });
                mark();
                let child: offspring::Child<()> = child.expect("fork");
                std::mem::forget(child);
            })
        };
        let (pids, their_pids) = std::io::pipe().expect("a pipe");
        if let Err(reason) = rehearse(start(their_pids)).and_then(|()| wait_for_end(pids)) {
            return tally.fail(reason);
        }
        let mut states = Album::default();
        let mut length = u64::MAX;
        let mut point = 0;
        while point <= length {
            watch.restore(&before);
            let (pids, their_pids) = std::io::pipe().expect("a pipe");
            let mut victim = start(their_pids);
            if !victim.run_to_call(libc::SYS_clone) {
                return tally.fail("fork makes no child".to_owned());
            }
            let mut steps = 0;
            while steps < point && !matches!(victim.next(), Next::Mark) && victim.step() {
                steps += 1;
            }
            if steps < point {
                length = steps;
            }
            victim.kill();
            tally.points += 1;
            tally.kills += 1;
            if let Err(reason) = wait_for_end(pids) {
                return tally.fail(format!("killed {point} instructions after the call: {reason}"));
            }
            watch.look_for_pages();
            watch.has_changed();
            states.add(watch.snapshot());
            let check = Errand::send(30, || {
                assert_eq!(look_without_messages(&segment, &queue), 2, "entries taken");
                String::new()
            });
            if let Err(reason) = check.answer() {
                return tally.fail(format!("killed {point} instructions after the call: {reason}"));
            }
            // Every instruction right behind the call; then some, at a distance that falls on each
            // kind in time.
            point += if point < 16 {
                1
            } else if cfg!(debug_assertions) {
                311
            } else {
                23
            };
        }
        tally.states += states.states.len() as u64;
    })
}

/// Waits for the death of the process that holds the other end of the pipe, into which it has
/// written its number if it came so far.
fn wait_for_end(mut pids: PipeReader) -> Result<(), String> {
    let mut bytes = Vec::new();
    loop {
        let patience = rustix::event::Timespec { tv_sec: LONG.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = rustix::event::poll(&mut [PollFd::new(&pids, PollFlags::IN)], Some(&patience))
            .expect("poll");
        if ready == 0 {
            return Err(format!("the child has outlived its parent by {} s", LONG.as_secs()));
        }
        let mut some = [0; 4];
        match pids.read(&mut some).expect("readable") {
            0 => break,
            len => bytes.extend_from_slice(&some[..len]),
        }
    }
    if let Ok(pid) = bytes.try_into().map(u32::from_le_bytes) {
        // Its descriptors are closed; the kernel is about to end it.
        let start = Instant::now();
        while processes::state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X')) {
            if start.elapsed() > LONG {
                return Err("the child has closed its descriptors and does not die".to_owned());
            }
            std::thread::yield_now();
        }
    }
    Ok(())
}

/// Clears up and uses the queue; says how many entries are taken then.
fn look_without_messages(segment: &Segment, queue: &Queue<Message>) -> usize {
    segment.reap().expect("attached");
    while queue.try_recv().is_ok() {}
    for number in 0..8 {
        queue.send_timeout(sealed(number), LONG).expect("room");
        assert_eq!(queue.recv_timeout(LONG).map(|message| number_of(&message)), Ok(number));
    }
    peers(segment.as_fd())
}

/// Opens a segment that this process has never had, and sends into a queue there.
fn open_plan(in_file: bool) -> Plan {
    let operation =
        if in_file { "open_file, Queue::open, send" } else { "open, Queue::open, send" };
    Plan::new(
        "segment",
        operation,
        "a process that never had it".to_owned(),
        move |tally: &mut Tally| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("segment");
            let (mut name, mut theirs) = std::io::pipe().expect("a pipe");
            // The segment is made by a helper: here in the stage nothing is known of it but a file.
            let holder = Helper::start(|| {
                let segment = if in_file {
                    Segment::create_file(&path, 1 << 16)
                } else {
                    Segment::create(1 << 16)
                };
                let segment = segment.expect("a segment");
                let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
                theirs.write_all(bytemuck::bytes_of(&queue.handle())).expect("somebody listens");
                theirs.write_all(&segment.as_raw_fd().to_le_bytes()).expect("somebody listens");
                (segment, queue)
            });
            let mut handle = [0; size_of::<Handle>()];
            name.read_exact(&mut handle).expect("a name");
            let handle: Handle = bytemuck::pod_read_unaligned(&handle);
            let mut fd = [0; 4];
            name.read_exact(&mut fd).expect("a descriptor");
            let path = if in_file {
                path
            } else {
                format!("/proc/{}/fd/{}", holder.pid(), i32::from_le_bytes(fd)).into()
            };
            let file =
                File::options().read(true).write(true).open(&path).expect("the segment's file");
            let open = || {
                let segment =
                    if in_file { Segment::open_file(&path) } else { Segment::open(&file) }
                        .expect("a segment");
                let queue = Queue::<Message>::open(&segment, handle).expect("somebody holds it");
                (segment, queue)
            };
            let check = |how| {
                let (segment, queue) = open();
                look(&segment, &queue, how)
            };
            let nothing = Errand::send(60, || check(How::Reaped)).answer().expect("a text");
            Errand::send(60, || open().0.reap().map(|_| String::new()).expect("attached"))
                .answer()
                .expect("reaped");
            let scene = Scene {
                segment: file.as_fd(),
                victim: &|| {
                    Tracee::start(|| {
                        mark();
                        let (_segment, queue) = open();
                        queue.try_send(sealed(1)).expect("room");
                        mark();
                    })
                },
                expected: found([nothing.clone(), nothing.replacen("[]", "[1]", 1)]),
                check: &check,
                beside: None,
                helpers: Vec::new(),
                hows: BOTH,
            };
            scene.visit(tally, None);
            holder.kill();
        },
    )
}

/// Makes a segment in a file. The file is there complete, or not at all, and nothing else is left
/// in the folder.
fn create_file_plan() -> Plan {
    Plan::new("segment", "create_file", "an empty folder".to_owned(), |tally: &mut Tally| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        let start = || {
            Tracee::start(|| {
                mark();
                let segment = Segment::create_file(&path, 1 << 16);
                mark();
                std::mem::forget(segment.expect("a segment"));
            })
        };
        if let Err(reason) = rehearse(start()) {
            return tally.fail(reason);
        }
        std::fs::remove_file(&path).expect("it is complete");
        // Only system calls change files; between two of them nothing need be looked at.
        let mut calls = 0;
        let mut victim = start();
        tally.points += 1;
        loop {
            let next = victim.next();
            if matches!(next, Next::Mark) {
                break;
            }
            assert!(victim.step());
            tally.points += 1;
            calls += u64::from(matches!(next, Next::Call(_)));
        }
        victim.kill();
        std::fs::remove_file(&path).expect("it is complete");
        let mut there_before = false;
        for call in 0..=calls {
            let mut victim = start();
            let mut made = 0;
            while made < call {
                made += u64::from(matches!(victim.next(), Next::Call(_)));
                assert!(victim.step());
            }
            victim.kill();
            tally.kills += 1;
            let names: Vec<_> = std::fs::read_dir(folder.path())
                .expect("a folder")
                .flatten()
                .map(|entry| entry.path())
                .collect();
            let there = names == [path.clone()];
            let complete_or_absent = there || (names.is_empty() && !there_before);
            if !complete_or_absent {
                tally.fail(format!("killed after call {call}: {names:?}"));
            }
            tally.states += u64::from(there != there_before || call == 0);
            there_before = there;
            if there {
                let used = Errand::send(30, || {
                    let segment = Segment::open_file(&path).expect("complete");
                    let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
                    look_without_messages(&segment, &queue).to_string()
                });
                if used.answer() != Ok("1".to_owned()) {
                    tally.fail(format!("killed after call {call}: the file is not usable"));
                }
                std::fs::remove_file(&path).expect("it was there");
            }
        }
        if !there_before {
            tally.fail("the file never appeared".to_owned());
        }
    })
}

/// Makes an anonymous segment. Nothing of it is anywhere once its maker is dead.
fn create_plan() -> Plan {
    Plan::new("segment", "create, first object", "anonymous".to_owned(), |tally: &mut Tally| {
        // A segment of the family that the victim has too: nothing may change in it.
        let segment = Segment::create(1 << 16).expect("a segment");
        let queue = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
        let mut expected = sent_or_not(&segment, &queue);
        expected.truncate(1);
        let start = || {
            Tracee::start(|| {
                std::hint::black_box(queue.len());
                mark();
                let own = Segment::create(1 << 16).expect("a segment");
                Queue::<Message>::with_capacity_in(&own, 4)
                    .expect("a queue")
                    .try_send(sealed(1))
                    .expect("room");
                mark();
            })
        };
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &start,
            expected,
            check: &|how| look(&segment, &queue, how),
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
        // Killed before each of its system calls, or at its mark, it takes its segment with it.
        let ours = segments_of(std::process::id());
        let mut made = 0;
        for calls in 1.. {
            let mut victim = start();
            let finished = !(0..calls).all(|_| victim.run_to_next_call());
            let pid = victim.pid().as_raw().cast_unsigned();
            let theirs = segments_of(pid);
            let own: Vec<u64> = theirs.difference(&ours).copied().collect();
            let before: Vec<u32> = own.iter().flat_map(|&inode| holders_of(inode)).collect();
            victim.kill();
            tally.kills += 1;
            let after: Vec<u32> = own.iter().flat_map(|&inode| holders_of(inode)).collect();
            if before != vec![pid; own.len()] || !after.is_empty() {
                tally
                    .fail(format!("killed after call {calls}, process {pid}: {own:?} were had by {before:?}, then by {after:?}"));
            }
            made = made.max(own.len());
            if finished {
                break;
            }
        }
        if made != 1 {
            tally.fail(format!("the victims had {made} segments of their own"));
        }
    })
}

/// All cases; fewer unless `full`.
pub fn plans(full: bool) -> Vec<Plan> {
    let mut plans = vec![
        reap_plan(true),
        first_use_plan(),
        child_plan(false),
        child_plan(true),
        fork_plan(),
        fork_kills_plan(),
        open_plan(true),
        open_plan(false),
        create_file_plan(),
        create_plan(),
    ];
    if full {
        plans.push(reap_plan(false));
    }
    plans
}
