//! Words of a live segment are written over while operations run: every call returns, with a value
//! or an error. No panic, no signal, no hang.
//!
//! Two processes with two threads each use every kind of object, and the parent writes over random
//! words. It goes by a seed, which is printed; with `OFFSPRING_SEED=n` in the environment the
//! parent writes the same again, though not in the same interleaving.
//!
//! What a scribble may do: make a call say `Broken`, change or lose messages, take a lock from its
//! owner or lock it for ever. So whatever waits has a timeout here, and values are not compared;
//! but objects in another segment, and those whose own words were spared, are.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant, SystemTime};

use memmap2::MmapOptions;
use offspring::{
    ByteQueue, Child, CreateError, Event, Fault, Lock, ObjectQueue, OnReceiverDeath, Queue,
    QueueOptions, RecvError, RecvTimeoutError, Segment, SendTimeoutError, Sender, ShmArc, ShmBox,
    ShmVec, TryRecvError, Value, Wait, spsc,
};
use rustix::fs::SeekFrom;

use crate::common::blocks::{self, CARRIED};
use crate::common::fd::SegmentFd;
use crate::common::{self, fork, raw};
use crate::harness::{apply, test};

const LEN: u64 = 1 << 16;
const PAGE: u64 = 4096;
const WORD: u64 = 8;

/// Where the parts of a segment lie.
const HEADER: std::ops::Range<u64> = 0..4096;
const PEERS: std::ops::Range<u64> = 4096..69_632;
const HEAP: std::ops::Range<u64> = 69_632..73_728;
const BLOCKS: std::ops::Range<u64> = 73_728..u64::MAX;

/// How long the two processes are disturbed, and how long they may take to end after that.
const TIME: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(60);

/// Marsaglia's xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// From the environment, or a new one; printed, as it is what a failure is repeated with.
fn seed() -> u64 {
    let given = std::env::var("OFFSPRING_SEED")
        .ok()
        .map(|seed| seed.parse().expect("OFFSPRING_SEED is a number"));
    let now = || {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos()
            as u64
    };
    let seed = given.unwrap_or_else(now).max(1);
    println!("OFFSPRING_SEED={seed}");
    seed
}

/// The bytes of a segment, by its descriptor: what a process that scribbles has.
struct Bytes(File);

impl Bytes {
    fn of(segment: &Segment) -> Bytes {
        Bytes(File::from(segment.as_fd().try_clone_to_owned().expect("a descriptor")))
    }

    fn read(&self, offset: u64) -> u64 {
        let mut bytes = [0; WORD as usize];
        self.0.read_exact_at(&mut bytes, offset).expect("within the segment");
        u64::from_ne_bytes(bytes)
    }

    fn write(&self, offset: u64, word: u64) {
        self.0.write_all_at(&word.to_ne_bytes(), offset).expect("within the segment");
    }

    /// The words in use in the range: those that are not zero, and the one behind each.
    fn words(&self, range: &std::ops::Range<u64>) -> Vec<u64> {
        let mut found = Vec::new();
        let mut from = range.start;
        while let Ok(data) = rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            let data = data.max(range.start);
            for offset in (data..(data / PAGE + 1) * PAGE).step_by(WORD as usize) {
                if range.contains(&offset) && self.read(offset) != 0 {
                    found.extend([offset, offset + WORD]);
                }
            }
            from = (data / PAGE + 1) * PAGE;
        }
        found.dedup();
        found
    }

    /// The only word in the range with this value.
    fn find(&self, range: &std::ops::Range<u64>, value: u64) -> u64 {
        let mut found = self.words(range);
        found.retain(|&offset| self.read(offset) == value);
        assert_eq!(found.len(), 1, "{value} stands at {found:?}");
        found[0]
    }

    fn in_memory(&self) -> u64 {
        self.0.metadata().expect("metadata").blocks() * 512
    }
}

/// A value that somebody who errs might write.
fn wrong(random: &mut Random, bytes: &Bytes, words: &[u64], before: u64) -> u64 {
    match random.below(6) {
        0 => random.next(),
        1 => before ^ 1 << random.below(64),
        2 => before.wrapping_add(random.below(5)).wrapping_sub(2),
        3 => random.below(1025),
        4 => u64::MAX - random.below(2),
        _ => bytes.read(words[random.below(words.len() as u64) as usize]),
    }
}

/// That a call came back is all that is asked of it.
fn returned<T>(_: T) {}

/// One object of each kind.
#[derive(Clone)]
struct Objects {
    segment: Segment,
    queue: Queue<u64>,
    redelivering: Queue<[u64; 3]>,
    lock: Lock<[u64; 4]>,
    count: Value<u64>,
    value: Value<[u64; 5]>,
    gate: Event,
    turn: Event,
    bytes: ByteQueue,
    texts: ObjectQueue<Vec<String>>,
    boxes: Queue<ShmBox<[u64]>>,
    handles: ObjectQueue<Handles>,
}

/// Objects that a message holds.
type Handles = (Queue<u64>, Sender<u64>, ShmArc<u64>);

/// A queue with a number in it, a sender without a receiver, and the number once more.
fn some_handles(segment: &Segment, number: u64) -> Result<Handles, CreateError> {
    let queue = Queue::with_capacity_in(segment, 2)?;
    returned(queue.try_send(number));
    let (sender, _) = QueueOptions::new().capacity(2).create_channel_in(segment)?;
    Ok((queue, sender, ShmArc::new_in(segment, number)?))
}

type Ends = (spsc::Producer<u64>, spsc::Consumer<u64>);

impl Objects {
    fn make() -> (Objects, Ends) {
        let segment = Segment::create(LEN).expect("a segment");
        let mut redelivering = QueueOptions::new();
        redelivering.capacity(5).on_receiver_death(OnReceiverDeath::Redeliver).wait(Wait::Sleep);
        let objects = Objects {
            queue: Queue::with_capacity_in(&segment, 4).expect("a queue"),
            redelivering: redelivering.create_in(&segment).expect("a queue"),
            lock: Lock::new_in(&segment, [7; 4]).expect("a lock"),
            count: Value::new_in(&segment, 7).expect("a value"),
            value: Value::new_in(&segment, [7; 5]).expect("a value"),
            gate: Event::new_in(&segment).expect("an event"),
            turn: Event::auto_reset_in(&segment).expect("an event"),
            bytes: ByteQueue::with_capacity_in(&segment, 3).expect("a queue"),
            texts: redelivering.create_objects_in(&segment).expect("a queue"),
            boxes: redelivering.create_in(&segment).expect("a queue"),
            handles: redelivering.create_objects_in(&segment).expect("a queue"),
            segment,
        };
        objects.queue.send(1).expect("room");
        objects.redelivering.send([1; 3]).expect("room");
        objects.bytes.send(&[1; 300]).expect("room");
        objects.texts.send(vec!["text".repeat(99)]).expect("room");
        let one = ShmBox::from_slice_in(&objects.segment, &[1; 50]).expect("room");
        objects.boxes.send(one).expect("room");
        let handles = some_handles(&objects.segment, 4).expect("room");
        objects.handles.send(handles).expect("room");
        let ends = spsc::ring_in(&objects.segment, 3).expect("a ring");
        (objects, ends)
    }

    /// Some operation.
    fn operate(&self, random: &mut Random, timeout: Duration) {
        let Objects { segment, queue, redelivering, lock, count, value, gate, turn, .. } = self;
        let timeout = if random.chance(2) { Duration::ZERO } else { timeout };
        match random.below(36) {
            0 => returned(queue.send_timeout(random.next(), timeout)),
            1 => returned(queue.recv_timeout(timeout)),
            2 => returned(redelivering.send_timeout([random.next(); 3], timeout)),
            3 => returned(redelivering.recv_timeout(timeout)),
            4 => returned(queue.send_many_timeout(&[random.next(); 7], timeout)),
            5 => returned(queue.recv_many_timeout(&mut Vec::new(), 9, timeout)),
            6 => {
                if let Ok(mut slot) = redelivering.reserve_timeout(timeout) {
                    slot[1] = random.next();
                    if random.chance(2) {
                        slot.commit();
                    }
                }
            }
            7 => returned(
                redelivering
                    .recv_ref_timeout(timeout)
                    .map(|message| std::hint::black_box(message[2])),
            ),
            8 | 9 => {
                let repaired =
                    || lock.recover_timeout(timeout).map(offspring::RecoveryGuard::mark_repaired);
                if let Ok(mut guard) = lock.lock_timeout(timeout).or_else(|_| repaired()) {
                    guard.fill(random.next());
                }
            }
            10 => returned(lock.try_lock().is_ok()),
            11 => {
                std::hint::black_box((
                    queue.len(),
                    queue.is_empty(),
                    queue.is_full(),
                    queue.is_closed(),
                    redelivering.lost(),
                ));
                std::hint::black_box(format!("{self:?}"));
            }
            12 => {
                returned(Queue::<u64>::open(segment, queue.handle()).map(|queue| queue.try_send(3)))
            }
            13 => returned(
                Lock::<[u64; 4]>::open(segment, lock.handle()).map(|lock| lock.try_lock().is_ok()),
            ),
            14 => returned(
                Queue::<u64>::with_capacity_in(segment, 1 + random.below(900) as usize)
                    .map(|queue| queue.try_send(4)),
            ),
            15 => returned((value.get(), count.get())),
            16 => returned(value.update_timeout(|value| value.fill(random.next()), timeout)),
            17 => {
                returned(count.fetch_add(random.next()));
                returned(count.compare_exchange(random.next(), 7));
            }
            18 => {
                returned(
                    Value::<[u64; 5]>::open(segment, value.handle())
                        .map(|value| value.try_update(|value| value[4] = 8)),
                );
                returned(Value::<u64>::open(segment, count.handle()).map(|count| count.set(9)));
            }
            19 => {
                returned((gate.set(), turn.set()));
                returned((gate.is_set(), gate.try_wait(), turn.clear()));
            }
            20 => returned((gate.wait_timeout(timeout), turn.wait_timeout(timeout), gate.clear())),
            21 => {
                let opened = Event::open(segment, turn.handle());
                let both = [turn, opened.as_ref().unwrap_or(gate)];
                returned((Event::wait_any_timeout(&both, timeout), Event::try_wait_any(&both)));
            }
            22..27 => self.pass_messages(random, timeout),
            27 => returned(segment.reap()),
            28..31 => self.pass_boxes(random, timeout),
            31..35 => self.pass_handles(random, timeout),
            _ => returned(
                spsc::ring_in::<u64>(segment, 2)
                    .map(|(mut producer, _consumer)| producer.try_send(5)),
            ),
        }
    }

    /// Some operation with memory that moves.
    fn pass_boxes(&self, random: &mut Random, timeout: Duration) {
        let Objects { segment, boxes, .. } = self;
        let len = [1, 60, 700, 3000][random.below(4) as usize];
        match random.below(5) {
            0 | 1 => {
                if let Ok(mut made) = ShmBox::zeroed_in(segment, len) {
                    made.fill(random.next());
                    returned(boxes.send_timeout(made, timeout));
                }
            }
            2 | 3 => {
                if let Ok(mut received) = boxes.recv_timeout(timeout) {
                    received.fill(3);
                    std::hint::black_box(received.iter().fold(0, |sum, word| sum ^ word));
                    if random.chance(2) {
                        returned(boxes.try_send(received));
                    }
                }
            }
            _ => {
                let again = Queue::<ShmBox<[u64]>>::open(segment, boxes.handle());
                returned(again.map(|again| again.try_recv()));
                let vec = ShmVec::with_capacity_in(segment, 3);
                returned(vec.map(|mut vec| vec.extend_from_slice(&vec![7_u8; len])));
            }
        }
    }

    /// Some operation with objects that only a message holds.
    fn pass_handles(&self, random: &mut Random, timeout: Duration) {
        let Objects { segment, handles, .. } = self;
        match random.below(4) {
            0 | 1 => {
                if let Ok(made) = some_handles(segment, random.next()) {
                    returned(handles.send_timeout(made, timeout));
                }
            }
            2 => {
                if let Ok((queue, sender, number)) = handles.recv_timeout(timeout) {
                    returned((queue.try_recv(), sender.try_send(*number)));
                    returned(sender.is_disconnected());
                    if random.chance(2) {
                        returned(handles.try_send((queue, sender, number)));
                    }
                }
            }
            _ => {
                let again = ObjectQueue::<Handles>::open(segment, handles.handle());
                returned(again.map(|again| again.try_recv().is_ok()));
            }
        }
    }

    /// Some operation with a message that may lie in a block of its own.
    fn pass_messages(&self, random: &mut Random, timeout: Duration) {
        let Objects { segment, bytes, texts, .. } = self;
        let len = [60, 113, 700, 5000, 20_000][random.below(5) as usize];
        match random.below(8) {
            0 => returned(bytes.send_timeout(&vec![3; len], timeout)),
            1 => {
                if let Ok(mut loan) = bytes.loan(len) {
                    loan.fill(5);
                    std::hint::black_box(format!("{loan:?}"));
                    if random.chance(2) {
                        returned(loan.send_timeout(timeout).is_ok());
                    }
                }
            }
            2..4 => {
                if let Ok(message) = bytes.recv_timeout(timeout) {
                    // Twice: what was checked when it was received must hold from then on.
                    for _ in 0..2 {
                        std::hint::black_box(message.iter().fold(0, |sum: u8, byte| sum ^ byte));
                    }
                    std::hint::black_box((format!("{message:?}"), message.redelivered()));
                }
            }
            4 => returned(texts.send_timeout(vec!["text".repeat(len / 4); 1], timeout)),
            5..7 => returned(texts.recv_timeout(timeout)),
            _ => {
                let again = ByteQueue::open(segment, bytes.handle());
                returned(again.map(|again| again.try_send(&vec![9; len])));
                let again = ObjectQueue::<Vec<String>>::open(segment, texts.handle());
                returned(again.map(|again| again.try_recv()));
                let queue = ByteQueue::with_capacity_in(segment, 2);
                returned(queue.map(|queue| queue.try_send(&vec![9; len])));
            }
        }
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Objects {
            segment: _,
            queue,
            redelivering,
            lock,
            count,
            value,
            gate,
            turn,
            bytes,
            texts,
            boxes,
            handles,
        } = self;
        write!(f, "{queue:?} {redelivering:?} {lock:?} {count:?} {value:?} {gate:?} {turn:?} ")?;
        write!(f, "{bytes:?} {texts:?} {boxes:?} {handles:?}")
    }
}

/// Uses everything in two threads until the time is over; gives the number of calls that returned.
fn use_all(objects: &Objects, (mut producer, mut consumer): Ends, seed: u64) -> u64 {
    let end = Instant::now() + TIME;
    let timeout = Duration::from_millis(2);
    std::thread::scope(|scope| {
        let thread = |number: u64| {
            let mut random = Random(seed ^ number << 32 | 1);
            scope.spawn(move || {
                let mut calls = 0;
                while Instant::now() < end {
                    objects.operate(&mut random, timeout);
                    calls += 1;
                }
                calls
            })
        };
        let threads = [thread(1), thread(2)];
        let mut calls = 0;
        while Instant::now() < end {
            returned(producer.send_timeout(1, timeout));
            returned(consumer.recv_timeout(timeout));
            std::hint::black_box((producer.len(), consumer.is_empty()));
            calls += 2;
        }
        let of_threads = threads
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        calls + of_threads.iter().sum::<u64>()
    })
}

/// The number of calls, or what went wrong: a panic, a signal, a hang.
fn finish(mut child: Child<u64>, seed: u64) -> u64 {
    match child.join_timeout(PATIENCE) {
        Some(Ok(calls)) => calls,
        Some(Err(error)) => panic!("OFFSPRING_SEED={seed}: {error}"),
        None => {
            let _ = child.kill();
            let _ = child.join();
            panic!("OFFSPRING_SEED={seed}: a call did not return");
        }
    }
}

fn disturb(range: std::ops::Range<u64>) {
    let seed = seed();
    let mut random = Random(seed);
    let elsewhere = Segment::create(LEN).expect("a segment");
    let spared = Queue::with_capacity_in(&elsewhere, 1).expect("a queue");
    spared.send(11).expect("room");
    let (objects, ends) = Objects::make();
    let bytes = Bytes::of(&objects.segment);
    let mut children = Vec::new();
    let mut all_ends = vec![ends, spsc::ring_in(&objects.segment, 3).expect("a ring")];
    while let Some(ends) = all_ends.pop() {
        let objects = objects.clone();
        let seed = random.next();
        children.push(fork(move || use_all(&objects, ends, seed)).expect("a child"));
    }
    let end = Instant::now() + TIME;
    let mut written = 0;
    let mut calls = 0;
    let mut words = Vec::new();
    while Instant::now() < end {
        if written % 64 == 0 {
            words = bytes.words(&range);
        }
        let word = words[random.below(words.len() as u64) as usize];
        let before = bytes.read(word);
        bytes.write(word, wrong(&mut random, &bytes, &words, before));
        written += 1;
        std::thread::sleep(Duration::from_micros(random.below(100)));
        if random.chance(4) {
            objects.operate(&mut random, Duration::from_millis(1));
            calls += 1;
        }
        // Put right again as often as not, or soon everything would say at once that it is broken.
        if random.chance(2) {
            bytes.write(word, before);
        }
    }
    calls += children.into_iter().map(|child| finish(child, seed)).sum::<u64>();
    drop(objects);
    assert_eq!(
        spared.recv(),
        Ok(11),
        "OFFSPRING_SEED={seed}: an object in another segment was changed"
    );
    println!("{written} words written over, {calls} calls returned");
}

#[apply(test)]
fn calls_return_while_the_header_is_written_over() {
    disturb(HEADER);
}

#[apply(test)]
fn calls_return_while_the_peer_table_is_written_over() {
    disturb(PEERS);
}

#[apply(test)]
fn calls_return_while_the_heap_is_written_over() {
    disturb(HEAP);
}

#[apply(test)]
fn calls_return_while_objects_are_written_over() {
    disturb(BLOCKS);
}

#[apply(test)]
fn calls_return_while_anything_is_written_over() {
    disturb(0..u64::MAX);
}

/// One wrong word at a time, in otherwise good memory, and every operation: no luck needed.
#[apply(test)]
fn calls_return_whatever_word_is_wrong() {
    let seed = seed();
    let child = fork(move || {
        let mut random = Random(seed);
        let mut cases = 0;
        let (template, ends) = Objects::make();
        let words = Bytes::of(&template.segment).words(&(0..u64::MAX));
        drop((template, ends));
        for &word in &words {
            for wrong_value in 0..6 {
                let (objects, (mut producer, mut consumer)) = Objects::make();
                let bytes = Bytes::of(&objects.segment);
                let before = bytes.read(word);
                let value = [
                    0,
                    u64::MAX,
                    before ^ 1,
                    before ^ 1 << 63,
                    before.wrapping_add(1 << 20),
                    random.next(),
                ][wrong_value];
                bytes.write(word, value);
                for _ in 0..24 {
                    objects.operate(&mut random, Duration::ZERO);
                    returned(producer.send_timeout(1, Duration::ZERO));
                    returned(consumer.recv_timeout(Duration::ZERO));
                }
                let handle = producer.handle();
                drop((producer, consumer));
                returned(
                    spsc::Producer::<u64>::open(&objects.segment, handle)
                        .map(|mut end| end.try_send(1)),
                );
                returned(
                    spsc::Consumer::<u64>::open(&objects.segment, handle)
                        .map(|mut end| end.try_recv()),
                );
                returned(objects.segment.reap());
                cases += 1;
            }
        }
        cases
    });
    println!("{} cases", finish(child.expect("a child"), seed));
}

/// A freed block gives its pages back from a certain length on. The length of a small block,
/// written over, made it give back those of its neighbours too.
#[apply(test)]
fn a_wrong_length_does_not_wipe_the_blocks_behind() {
    let segment = Segment::create(LEN).expect("a segment");
    let spoilt = Lock::new_in(&segment, [0_u8; 200]).expect("a lock");
    let behind: Vec<Lock<u64>> =
        (0..8).map(|n| Lock::new_in(&segment, n).expect("a lock")).collect();
    let bytes = Bytes::of(&segment);
    bytes.write(bytes.find(&BLOCKS, 16 + 200), 1 << 20);
    drop(spoilt);
    for (n, lock) in behind.iter().enumerate() {
        assert_eq!(*lock.lock().expect("not disturbed"), n as u64);
    }
}

/// The lengths of all blocks are added up when the budget seems to be spent. A wrong one made the
/// sum so large that nothing could be had any more.
#[apply(test)]
fn a_wrong_length_does_not_use_the_budget_up() {
    let segment = Segment::create(LEN).expect("a segment");
    let _spoilt = Lock::new_in(&segment, [0_u8; 200]).expect("a lock");
    let bytes = Bytes::of(&segment);
    bytes.write(bytes.find(&BLOCKS, 16 + 200), u64::MAX);
    // A little more than is left, which makes it count.
    assert!(matches!(
        Queue::<u64>::with_capacity_in(&segment, 4050),
        Err(CreateError::OutOfMemory { .. })
    ));
    Queue::<u64>::with_capacity_in(&segment, 3000).expect("three quarters of the budget");
}

/// Who looks through all blocks looks at as many headers as were ever used. A wrong number of them
/// made it touch, and so back with memory, every header that there could be: six gigabytes in the
/// commons.
#[apply(test)]
fn a_wrong_frontier_does_not_take_gigabytes() {
    let segment = Segment::create(8 << 30).expect("a segment");
    let small = Lock::new_in(&segment, 7_u64).expect("a lock");
    let _large = Lock::new_in(&segment, [0_u8; 8192]).expect("a lock");
    let bytes = Bytes::of(&segment);
    let before = bytes.in_memory();
    // The first word of the second class, that of 128 bytes, behind the words of the heap.
    let frontier = HEAP.start + 2 * 64;
    assert_ne!(bytes.read(frontier), 0);
    for wrong in [u64::MAX, 1 << 20, 1 << 63] {
        bytes.write(frontier, wrong);
        // A little more than is left, which makes it count.
        assert!(matches!(
            Queue::<[u8; 4088]>::with_capacity_in(&segment, (1 << 21) - 1),
            Err(CreateError::OutOfMemory { .. })
        ));
        let more = bytes.in_memory() - before;
        assert!(more < 1 << 20, "{more} bytes more");
        let made = Lock::new_in(&segment, 8_u64).map(drop);
        assert!(matches!(made, Err(CreateError::Fault(Fault::Corrupt))), "{made:?}");
    }
    drop(small);
}

/// The end of a ring that found the counts wrong when it took its role kept the role: the first
/// call said so, and the next waited for ever.
#[apply(test)]
fn a_corrupt_ring_says_so_every_time() {
    let segment = Segment::create(LEN).expect("a segment");
    let (mut producer, consumer) = spsc::ring_in::<u64>(&segment, 1000).expect("a ring");
    for n in 0..777 {
        producer.send(n).expect("room");
    }
    let (handle, _spare) = (producer.handle(), producer.standby().expect("another end"));
    drop((producer, consumer.len()));
    let bytes = Bytes::of(&segment);
    let tail = bytes
        .words(&BLOCKS)
        .into_iter()
        .find(|&word| bytes.read(word) == 777 && bytes.read(word - 128) == 1000);
    bytes.write(tail.expect("the count of messages, behind the capacity"), u64::MAX);
    for _ in 0..3 {
        assert_eq!(spsc::Producer::<u64>::open(&segment, handle).unwrap_err(), Fault::Corrupt);
    }
    // In a forked child an end takes its role at its first use.
    let mut consumer = consumer;
    assert_eq!(
        consumer.recv_timeout(Duration::ZERO),
        Err(RecvTimeoutError::Broken(Fault::Corrupt))
    );
    assert_eq!(consumer.recv(), Err(RecvError::Broken(Fault::Corrupt)));
    let (mut producer, _consumer) = spsc::ring_in::<u64>(&segment, 1).expect("a ring");
    producer.send(1).expect("room");
    assert_eq!(producer.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
}

/// How an event is reset is read when it is opened, and never again.
#[apply(test)]
fn an_event_whose_way_to_be_reset_is_wrong_is_not_opened() {
    let segment = Segment::create(LEN).expect("a segment");
    let event = Event::auto_reset_in(&segment).expect("an event");
    event.set().expect("ours");
    let bytes = Bytes::of(&segment);
    let found = bytes
        .words(&BLOCKS)
        .into_iter()
        .find(|&word| [word, word + 8, word + 16].map(|word| bytes.read(word)) == [1, 0, 1]);
    let flag = found.expect("it is set, nobody sleeps, and it resets itself");
    let reset = flag + 16;
    bytes.write(reset, 7);
    assert_eq!(Event::open(&segment, event.handle()).err(), Some(Fault::Corrupt));
    assert!(event.is_auto_reset());
    assert_eq!((event.try_wait().is_ok(), event.try_wait().is_ok()), (true, false));
    // Every bit of the flag is valid: it is set if it is odd.
    for (word, is_set) in [(u64::MAX, true), (u64::MAX - 1, false), (1 << 63, false)] {
        bytes.write(flag, word);
        assert_eq!(event.is_set(), Ok(is_set));
        assert_eq!(event.try_wait().is_ok(), is_set);
    }
}

/// Offsets from a block's header.
const WORD_AND_STATE: u64 = 0;
const LENGTH: u64 = 16;
const PAGES: u64 = 24;
const CARRIER: u64 = 32;

/// One wrong word at a time in the envelope of a message, or in the header of the block that it
/// lies in: its receiver gets an error, or some bytes, and the next message.
#[apply(test)]
fn a_message_with_a_wrong_word_is_an_error_and_the_next_one_is_received() {
    let mut random = Random(seed());
    let mut outcomes = [0; 3];
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        for len in [300, 70_000] {
            for place in 0..9 {
                for how in 0..12 {
                    let segment = Segment::create(1 << 20).expect("a segment");
                    let mut options = QueueOptions::new();
                    options.capacity(3).on_receiver_death(policy);
                    let queue = options.create_bytes_in(&segment).expect("a queue");
                    let other = ByteQueue::with_capacity_in(&segment, 3).expect("a queue");
                    other.send(&vec![4; len]).expect("room");
                    let good: Vec<u8> = (0..len).map(|index| index as u8).collect();
                    queue.send(&good).expect("room");
                    queue.send(&vec![9; len]).expect("room");
                    let bytes = Bytes::of(&segment);
                    let all = blocks::blocks(&segment);
                    let carried: Vec<_> =
                        all.iter().filter(|block| block.state == CARRIED).collect();
                    let [others, block, _] = carried[..] else { panic!("{carried:?}") };
                    let owner = all.iter().filter(|block| block.state == blocks::SHARED);
                    let slot =
                        owner.min_by_key(|block| block.bytes).expect("the queue").bytes + 640;
                    assert_eq!(
                        bytes.read(slot + 8),
                        (len as u64) << 1,
                        "the envelope of the first message"
                    );
                    let at = match place {
                        0 => block.header + WORD_AND_STATE,
                        1 => block.header + LENGTH,
                        2 => block.header + PAGES,
                        3..6 => block.header + CARRIER + 8 * (place - 3),
                        _ => slot + 8 + 8 * (place - 6),
                    };
                    let before = bytes.read(at);
                    let wrong = match how {
                        0 => 0,
                        1 => u64::MAX,
                        2 => before ^ 1,
                        3 => before ^ 1 << 63,
                        4 => before.wrapping_add(1),
                        5 => before.wrapping_sub(1),
                        6 => before ^ 1 << 34,
                        7 => 1 << 40,
                        8 => 240,
                        9 => random.below(70_000),
                        // What the other message has there.
                        10 if place < 6 => bytes.read(at - block.header + others.header),
                        _ => random.next(),
                    };
                    bytes.write(at, wrong);
                    match queue.recv_timeout(Duration::from_secs(30)) {
                        Ok(message) if *message == *good => outcomes[0] += 1,
                        Ok(message) => {
                            std::hint::black_box(
                                message.iter().fold(0, |sum: u8, byte| sum ^ byte),
                            );
                            outcomes[1] += 1;
                        }
                        Err(RecvTimeoutError::Broken(Fault::Corrupt)) => outcomes[2] += 1,
                        Err(error) => panic!("{place}, {how}: {error}"),
                    }
                    let next =
                        queue.try_recv().unwrap_or_else(|error| panic!("{place}, {how}: {error}"));
                    assert!(*next == *vec![9; len], "{place}, {how}: another message");
                    drop(next);
                    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
                    returned(segment.reap());
                    returned(queue.try_send(&vec![1; 600_000]));
                    drop(queue);
                    let theirs = other.try_recv().map(|message| message.to_vec());
                    assert!(theirs.is_ok_and(|theirs| theirs == vec![4; len]), "{place}, {how}");
                }
            }
        }
    }
    println!("{outcomes:?} of: as it was sent, some other bytes, corrupt");
    assert!(outcomes.iter().all(|&count| count > 0));
}

/// A process that writes first the one and then the other over words of a segment, and pauses after
/// each, until it is killed.
fn write_over(segment: &Segment, writes: Vec<(u64, [u64; 2])>, pause: Duration) -> raw::Raw {
    let file = blocks::file(segment);
    let child = raw::fork(move || {
        let len = file.metadata().expect("metadata").len() as usize;
        let memory = MmapOptions::new().len(len).map_raw(&file).expect("mapped");
        for round in 0.. {
            for &(offset, values) in &writes {
                assert!(offset as usize <= len - size_of::<u64>());
                #[expect(unsafe_code, reason = "writes where others read")]
                // SAFETY: within the mapping, by the line above.
                let word = unsafe { memory.as_mut_ptr().add(offset as usize) };
                #[expect(unsafe_code, reason = "writes where others read")]
                // SAFETY: as above; the offset is a multiple of 8.
                unsafe {
                    word.cast::<u64>().write_volatile(values[round % 2])
                };
            }
            let start = Instant::now();
            while start.elapsed() < pause {
                std::hint::spin_loop();
            }
        }
    });
    common::wait_until("it runs", || common::state(child.id()) == Some('R'));
    child
}

/// The length in an envelope was read several times: once to check it, and again to make a slice of
/// it. A peer that changed it in between had the receiver read behind the segment.
#[apply(test)]
fn a_length_that_changes_while_it_is_read_is_checked_all_the_same() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue = ByteQueue::with_capacity_in(&segment, 2).expect("a queue");
    let slots = blocks::blocks(&segment)[0].bytes + 640;
    for wrong in [u64::MAX >> 1, 1 << 40, 100] {
        let writes = [0, 256].map(|slot| (slots + slot + 8, [1000 << 1, wrong]));
        let scribbler = write_over(&segment, writes.into(), Duration::ZERO);
        let end = Instant::now() + TIME * 2;
        while Instant::now() < end {
            let _ = queue.try_send(&[7; 1000]);
            if let Ok(message) = queue.try_recv() {
                for _ in 0..2 {
                    std::hint::black_box(message.iter().fold(0, |sum: u8, byte| sum ^ byte));
                }
            }
        }
        scribbler.kill();
    }
    while queue.try_recv().is_ok() {}
    queue.send(&[8; 1000]).expect("room");
    assert_eq!(*queue.recv().expect("nobody writes over it any more"), [8; 1000]);
}

/// A text was found to be one where it lay, and copied after that. A peer that changed it in
/// between made a `String` that is none.
#[apply(test)]
fn a_text_that_changes_while_it_is_read_is_a_text_or_an_error() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue = ObjectQueue::<String>::with_capacity_in(&segment, 1).expect("a queue");
    let len = 300_000;
    queue.send("x".repeat(len)).expect("room");
    let all = blocks::blocks(&segment);
    let block = all.iter().find(|block| block.state == CARRIED).expect("a message");
    let letters = u64::from_ne_bytes([b'x'; 8]);
    // What is checked first, and copied a while later.
    let writes = vec![(block.bytes + 16, [letters, u64::MAX])];
    let scribbler = write_over(&segment, writes, Duration::from_micros(20));
    let (mut texts, mut errors) = (0, 0);
    let end = Instant::now() + TIME * 2;
    while Instant::now() < end {
        match queue.try_recv() {
            Ok(text) => {
                let text = text.into_bytes();
                assert!(String::from_utf8(text).is_ok(), "no text, after {texts} texts");
                texts += 1;
            }
            Err(TryRecvError::Rejected(_)) => errors += 1,
            Err(error) => panic!("{error}"),
        }
        queue.send("x".repeat(len)).expect("room");
    }
    scribbler.kill();
    println!("{texts} texts, {errors} errors");
}
