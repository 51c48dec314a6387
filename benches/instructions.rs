//! The cost of the hot operations in instructions, counted by callgrind. The figures do not depend
//! on how busy the machine is.
//!
//! `cargo bench --bench instructions` prints the table and needs valgrind; without it nothing is
//! counted. `cargo test --benches` runs every operation natively, to keep it alive.
//!
//! # How it counts
//! Each operation stands alone in a function of [`counted`], and callgrind collects from the
//! function's first instruction to its return. For each operation this program runs twice under
//! callgrind: once with only the calls of the [`WARM_UP`], which find everything new, and once with
//! [`CALLS`] more. The difference is the cost of those.
//!
//! The second column is callgrind's count of bus events: locked instructions and full fences. Each
//! of them costs as much as dozens of other instructions.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::process::{Command, Stdio};

use offspring::{ByteQueue, Event, Lock, Queue, ShmBox, Value, plain, spsc};

/// Calls that are not counted: once round the ring.
const WARM_UP: u32 = 64;

/// Counted calls of each operation: sixteen times round the ring.
const CALLS: u32 = 1024;

/// Slots of every queue.
const CAPACITY: usize = 64;

/// Messages that wait in the ring of two when it is used as a stream. Divides [`WARM_UP`] and
/// [`CALLS`].
const AHEAD: usize = 32;

/// Messages of a batch.
const BATCH: usize = 64;

/// The argument with which this program runs under callgrind. The operation's place in
/// [`OPERATIONS`] and the number of calls follow.
const RUN: &str = "--run";

type Failure = Box<dyn Error>;

/// A line of the table.
struct Operation {
    name: &'static str,
    /// Does the operation this many times, and each time what undoes it.
    run: fn(u32),
    /// Number of messages of one call.
    messages: usize,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "`Queue::try_send`", run: queue_try_send, messages: 1 },
    Operation { name: "`Queue::try_recv`", run: queue_try_recv, messages: 1 },
    Operation { name: "`Queue::send`", run: queue_send, messages: 1 },
    Operation { name: "`Queue::recv`", run: queue_recv, messages: 1 },
    Operation { name: "`Queue::send`, 4 KiB", run: large_send, messages: 1 },
    Operation { name: "`Queue::recv`, 4 KiB", run: large_recv, messages: 1 },
    Operation { name: "`Queue::reserve`, `commit`", run: queue_reserve, messages: 1 },
    Operation { name: "`Queue::recv_ref`, drop", run: queue_recv_ref, messages: 1 },
    Operation {
        name: "`Queue::send_many` of 64, a message",
        run: queue_send_many,
        messages: BATCH,
    },
    Operation {
        name: "`Queue::recv_many` of 64, a message",
        run: queue_recv_many,
        messages: BATCH,
    },
    Operation { name: "`Queue` clone, drop", run: queue_clone, messages: 1 },
    Operation { name: "`ShmBox::new`, drop", run: box_new, messages: 1 },
    Operation { name: "`ByteQueue::loan` of 4 KiB, drop", run: loan, messages: 1 },
    Operation { name: "`Queue::try_send`, a `ShmBox`", run: box_try_send, messages: 1 },
    Operation { name: "`Queue::try_recv`, a `ShmBox`", run: box_try_recv, messages: 1 },
    Operation { name: "`plain::Sender::try_send`", run: channel_try_send, messages: 1 },
    Operation { name: "`plain::Receiver::try_recv`", run: channel_try_recv, messages: 1 },
    Operation { name: "`plain::Sender` clone, drop", run: channel_clone, messages: 1 },
    Operation { name: "`spsc::Producer::try_send`, one by one", run: ring_try_send, messages: 1 },
    Operation { name: "`spsc::Consumer::try_recv`, one by one", run: ring_try_recv, messages: 1 },
    Operation { name: "`spsc::Producer::send`, a stream", run: stream_send, messages: 1 },
    Operation { name: "`spsc::Consumer::recv`, a stream", run: stream_recv, messages: 1 },
    Operation { name: "`Lock::lock`, unlock", run: lock_unlock, messages: 1 },
    Operation { name: "`Lock::lock`, add one, unlock", run: lock_add, messages: 1 },
    Operation { name: "`Value::get`", run: value_get, messages: 1 },
    Operation { name: "`Value::set`", run: value_set, messages: 1 },
    Operation { name: "`Value::fetch_add`", run: value_fetch_add, messages: 1 },
    Operation { name: "`Value::update`", run: value_update, messages: 1 },
    Operation { name: "`Value::get`, 32 bytes", run: large_get, messages: 1 },
    Operation { name: "`Value::update`, 32 bytes", run: large_update, messages: 1 },
    Operation { name: "`Event::set`, automatic reset", run: event_set, messages: 1 },
    Operation { name: "`Event::set`, manual reset", run: event_set_manual, messages: 1 },
    Operation { name: "`Event::is_set`", run: event_is_set, messages: 1 },
    Operation { name: "`Event::try_wait`, not set", run: event_try_wait_in_vain, messages: 1 },
    Operation { name: "`Event::try_wait`, automatic reset", run: event_try_wait, messages: 1 },
    Operation { name: "`Event::wait`, manual reset", run: event_wait_manual, messages: 1 },
    Operation { name: "`Event::wait_any` of two", run: event_wait_any, messages: 1 },
];

/// The functions in which callgrind counts. None may call another: each entry and each exit turns
/// counting on or off.
mod counted {
    use offspring::spsc::{Consumer, Producer};
    use offspring::{ByteQueue, Event, Lock, Queue, ShmBox, Value, plain};

    #[inline(never)]
    pub(super) fn queue_try_send(queue: &Queue<u64>, value: u64) -> bool {
        queue.try_send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn queue_try_recv(queue: &Queue<u64>) -> Option<u64> {
        queue.try_recv().ok()
    }

    #[inline(never)]
    pub(super) fn box_new(number: u64) -> bool {
        ShmBox::new(number).map(|made| drop(std::hint::black_box(made))).is_ok()
    }

    #[inline(never)]
    pub(super) fn loan(queue: &ByteQueue) -> bool {
        queue.loan(4096).map(|made| drop(std::hint::black_box(made))).is_ok()
    }

    #[inline(never)]
    pub(super) fn box_try_send(queue: &Queue<ShmBox<[u8]>>, value: ShmBox<[u8]>) -> bool {
        queue.try_send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn box_try_recv(queue: &Queue<ShmBox<[u8]>>) -> Option<ShmBox<[u8]>> {
        queue.try_recv().ok()
    }

    #[inline(never)]
    pub(super) fn channel_try_send(sender: &plain::Sender<u64>, value: u64) -> bool {
        sender.try_send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn channel_try_recv(receiver: &plain::Receiver<u64>) -> Option<u64> {
        receiver.try_recv().ok()
    }

    #[inline(never)]
    pub(super) fn channel_clone(sender: &plain::Sender<u64>) {
        drop(sender.clone());
    }

    #[inline(never)]
    pub(super) fn queue_send(queue: &Queue<u64>, value: u64) -> bool {
        queue.send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn queue_recv(queue: &Queue<u64>) -> Option<u64> {
        queue.recv().ok()
    }

    #[inline(never)]
    pub(super) fn large_send(queue: &Queue<[u64; 512]>, value: &[u64; 512]) -> bool {
        queue.send(*value).is_ok()
    }

    #[inline(never)]
    pub(super) fn large_recv(queue: &Queue<[u64; 512]>, place: &mut [u64; 512]) -> bool {
        queue.recv().map(|value| *place = value).is_ok()
    }

    #[inline(never)]
    pub(super) fn queue_reserve(queue: &Queue<u64>, value: u64) -> bool {
        queue
            .reserve()
            .map(|mut message| {
                *message = value;
                message.commit();
            })
            .is_ok()
    }

    #[inline(never)]
    pub(super) fn queue_recv_ref(queue: &Queue<u64>) -> Option<u64> {
        queue.recv_ref().ok().map(|message| *message)
    }

    #[inline(never)]
    pub(super) fn queue_send_many(queue: &Queue<u64>, values: &[u64]) -> bool {
        queue.send_many(values).is_ok()
    }

    #[inline(never)]
    pub(super) fn queue_recv_many(
        queue: &Queue<u64>,
        values: &mut Vec<u64>,
        max: usize,
    ) -> Option<usize> {
        queue.recv_many(values, max).ok()
    }

    #[inline(never)]
    pub(super) fn queue_clone(queue: &Queue<u64>) {
        drop(queue.clone());
    }

    #[inline(never)]
    pub(super) fn ring_try_send(producer: &mut Producer<u64>, value: u64) -> bool {
        producer.try_send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn ring_try_recv(consumer: &mut Consumer<u64>) -> Option<u64> {
        consumer.try_recv().ok()
    }

    #[inline(never)]
    pub(super) fn ring_send(producer: &mut Producer<u64>, value: u64) -> bool {
        producer.send(value).is_ok()
    }

    #[inline(never)]
    pub(super) fn ring_recv(consumer: &mut Consumer<u64>) -> Option<u64> {
        consumer.recv().ok()
    }

    #[inline(never)]
    pub(super) fn lock_unlock(lock: &Lock<u64>) -> bool {
        lock.lock().is_ok()
    }

    #[inline(never)]
    pub(super) fn lock_add(lock: &Lock<u64>) -> bool {
        lock.lock().map(|mut value| *value += 1).is_ok()
    }

    #[inline(never)]
    pub(super) fn value_get(value: &Value<u64>) -> Option<u64> {
        value.get().ok()
    }

    #[inline(never)]
    pub(super) fn value_set(value: &Value<u64>, number: u64) -> bool {
        value.set(number).is_ok()
    }

    #[inline(never)]
    pub(super) fn value_fetch_add(value: &Value<u64>) -> bool {
        value.fetch_add(1).is_ok()
    }

    #[inline(never)]
    pub(super) fn value_update(value: &Value<u64>) -> bool {
        value.update(|value| *value += 1).is_ok()
    }

    #[inline(never)]
    pub(super) fn large_get(value: &Value<[u64; 4]>) -> Option<u64> {
        value.get().ok().map(|words| words[0] ^ words[3])
    }

    #[inline(never)]
    pub(super) fn event_set(event: &Event) -> bool {
        event.set().is_ok()
    }

    #[inline(never)]
    pub(super) fn event_is_set(event: &Event) -> bool {
        event.is_set() == Ok(true)
    }

    #[inline(never)]
    pub(super) fn event_try_wait(event: &Event) -> bool {
        event.try_wait().is_ok()
    }

    #[inline(never)]
    pub(super) fn event_wait(event: &Event) -> bool {
        event.wait().is_ok()
    }

    #[inline(never)]
    pub(super) fn event_wait_any(events: &[&Event]) -> Option<usize> {
        Event::wait_any(events).ok()
    }

    #[inline(never)]
    pub(super) fn large_update(value: &Value<[u64; 4]>) -> bool {
        value.update(|words| words[3] += 1).is_ok()
    }
}

fn queue() -> Queue<u64> {
    Queue::with_capacity(CAPACITY).expect("a queue")
}

/// Sends by `send` and receives by `recv`; at most one of them is counted.
fn through_queue(
    calls: u32,
    send: impl Fn(&Queue<u64>, u64) -> bool,
    recv: impl Fn(&Queue<u64>) -> Option<u64>,
) {
    let queue = queue();
    for number in 0..u64::from(calls) {
        assert!(send(&queue, black_box(number)));
        assert_eq!(recv(&queue), Some(number));
    }
}

fn plain_send(queue: &Queue<u64>, value: u64) -> bool {
    queue.try_send(value).is_ok()
}

fn plain_recv(queue: &Queue<u64>) -> Option<u64> {
    queue.try_recv().ok()
}

fn queue_try_send(calls: u32) {
    through_queue(calls, counted::queue_try_send, plain_recv);
}

fn queue_try_recv(calls: u32) {
    through_queue(calls, plain_send, counted::queue_try_recv);
}

/// The same box, there and back.
fn through_queue_of_boxes(
    calls: u32,
    send: impl Fn(&Queue<ShmBox<[u8]>>, ShmBox<[u8]>) -> bool,
    recv: impl Fn(&Queue<ShmBox<[u8]>>) -> Option<ShmBox<[u8]>>,
) {
    let queue = Queue::with_capacity(CAPACITY).expect("a queue");
    let mut value = ShmBox::zeroed(1 << 20).expect("room");
    for _ in 0..calls {
        assert!(send(&queue, value));
        value = recv(&queue).expect("sent");
    }
}

/// What is dropped is made again of the same block.
fn box_new(calls: u32) {
    for number in 0..calls {
        assert!(counted::box_new(black_box(u64::from(number))));
    }
}

fn loan(calls: u32) {
    let queue = ByteQueue::with_capacity(CAPACITY).expect("a queue");
    for _ in 0..calls {
        assert!(counted::loan(black_box(&queue)));
    }
}

fn box_try_send(calls: u32) {
    through_queue_of_boxes(calls, counted::box_try_send, |queue| queue.try_recv().ok());
}

fn box_try_recv(calls: u32) {
    let send = |queue: &Queue<ShmBox<[u8]>>, value| queue.try_send(value).is_ok();
    through_queue_of_boxes(calls, send, counted::box_try_recv);
}

fn channel_try_send(calls: u32) {
    let (sender, receiver) = plain::channel(CAPACITY).expect("a channel");
    for number in 0..calls {
        assert!(counted::channel_try_send(&sender, black_box(u64::from(number))));
        assert_eq!(receiver.try_recv(), Ok(u64::from(number)));
    }
}

fn channel_try_recv(calls: u32) {
    let (sender, receiver) = plain::channel(CAPACITY).expect("a channel");
    for number in 0..calls {
        sender.try_send(u64::from(number)).expect("room");
        assert_eq!(counted::channel_try_recv(&receiver), Some(u64::from(number)));
    }
}

fn channel_clone(calls: u32) {
    let (sender, _receiver) = plain::channel(CAPACITY).expect("a channel");
    for _ in 0..calls {
        counted::channel_clone(&sender);
    }
}

fn queue_send(calls: u32) {
    through_queue(calls, counted::queue_send, plain_recv);
}

fn queue_recv(calls: u32) {
    through_queue(calls, plain_send, counted::queue_recv);
}

/// As [`through_queue`], by value, which is mostly copies.
fn through_large_queue(
    calls: u32,
    send: impl Fn(&Queue<[u64; 512]>, &[u64; 512]) -> bool,
    recv: impl Fn(&Queue<[u64; 512]>, &mut [u64; 512]) -> bool,
) {
    let queue = Queue::with_capacity(CAPACITY).expect("a queue");
    let mut received = [0; 512];
    for number in 0..u64::from(calls) {
        assert!(send(&queue, &[number; 512]));
        assert!(recv(&queue, &mut received));
        assert_eq!(received, [number; 512]);
    }
}

fn large_send(calls: u32) {
    through_large_queue(calls, counted::large_send, |queue, place| {
        queue.recv().map(|value| *place = value).is_ok()
    });
}

fn large_recv(calls: u32) {
    through_large_queue(calls, |queue, value| queue.send(*value).is_ok(), counted::large_recv);
}

fn queue_reserve(calls: u32) {
    through_queue(calls, counted::queue_reserve, plain_recv);
}

fn queue_recv_ref(calls: u32) {
    through_queue(calls, plain_send, counted::queue_recv_ref);
}

/// As [`through_queue`], in batches.
fn batches(
    calls: u32,
    send: impl Fn(&Queue<u64>, &[u64]) -> bool,
    recv: impl Fn(&Queue<u64>, &mut Vec<u64>, usize) -> Option<usize>,
) {
    let queue = queue();
    let mut received = Vec::with_capacity(BATCH);
    for number in 0..u64::from(calls) {
        let sent = [number; BATCH];
        assert!(send(&queue, black_box(&sent)));
        received.clear();
        assert_eq!(recv(&queue, &mut received, BATCH), Some(BATCH));
        assert_eq!(received, sent);
    }
}

fn queue_send_many(calls: u32) {
    batches(calls, counted::queue_send_many, |queue, values, max| {
        queue.recv_many(values, max).ok()
    });
}

fn queue_recv_many(calls: u32) {
    batches(calls, |queue, values| queue.send_many(values).is_ok(), counted::queue_recv_many);
}

fn queue_clone(calls: u32) {
    let queue = queue();
    for _ in 0..calls {
        counted::queue_clone(black_box(&queue));
    }
}

/// As [`through_queue`], through the ring of two, several messages at a time.
///
/// Each end looks where the other one is only when it has used up the slots that it knew of, so a
/// stream costs less. An end that then waits also pauses, so single operations are counted by the
/// forms that do not wait.
fn through_ring(
    calls: u32,
    ahead: usize,
    send: impl Fn(&mut spsc::Producer<u64>, u64) -> bool,
    recv: impl Fn(&mut spsc::Consumer<u64>) -> Option<u64>,
) {
    let (mut producer, mut consumer) = spsc::ring(CAPACITY).expect("a ring");
    let numbers: Vec<u64> = (0..calls.into()).collect();
    for numbers in numbers.chunks(ahead) {
        numbers.iter().for_each(|&number| assert!(send(&mut producer, black_box(number))));
        numbers.iter().for_each(|&number| assert_eq!(recv(&mut consumer), Some(number)));
    }
}

fn plain_ring_send(producer: &mut spsc::Producer<u64>, value: u64) -> bool {
    producer.try_send(value).is_ok()
}

fn plain_ring_recv(consumer: &mut spsc::Consumer<u64>) -> Option<u64> {
    consumer.try_recv().ok()
}

fn ring_try_send(calls: u32) {
    through_ring(calls, 1, counted::ring_try_send, plain_ring_recv);
}

fn ring_try_recv(calls: u32) {
    through_ring(calls, 1, plain_ring_send, counted::ring_try_recv);
}

fn stream_send(calls: u32) {
    through_ring(calls, AHEAD, counted::ring_send, plain_ring_recv);
}

fn stream_recv(calls: u32) {
    through_ring(calls, AHEAD, plain_ring_send, counted::ring_recv);
}

fn with_lock(calls: u32, each: impl Fn(&Lock<u64>) -> bool) {
    let lock = Lock::new(0).expect("a lock");
    for _ in 0..calls {
        assert!(each(black_box(&lock)));
    }
}

fn lock_unlock(calls: u32) {
    with_lock(calls, counted::lock_unlock);
}

fn lock_add(calls: u32) {
    with_lock(calls, counted::lock_add);
}

fn with_value(calls: u32, each: impl Fn(&Value<u64>, u64) -> bool) {
    let value = Value::new(0).expect("a value");
    for number in 0..u64::from(calls) {
        assert!(each(black_box(&value), number));
    }
}

fn value_get(calls: u32) {
    with_value(calls, |value, _| counted::value_get(value) == Some(0));
}

fn value_set(calls: u32) {
    with_value(calls, counted::value_set);
}

fn value_fetch_add(calls: u32) {
    with_value(calls, |value, _| counted::value_fetch_add(value));
}

fn value_update(calls: u32) {
    with_value(calls, |value, _| counted::value_update(value));
}

fn with_large_value(calls: u32, each: impl Fn(&Value<[u64; 4]>) -> bool) {
    let value = Value::new([0; 4]).expect("a value");
    for _ in 0..calls {
        assert!(each(black_box(&value)));
    }
}

fn large_get(calls: u32) {
    with_large_value(calls, |value| counted::large_get(value) == Some(0));
}

fn large_update(calls: u32) {
    with_large_value(calls, counted::large_update);
}

fn with_event(calls: u32, event: Event, each: impl Fn(&Event) -> bool) {
    for _ in 0..calls {
        assert!(each(black_box(&event)));
    }
}

fn auto() -> Event {
    Event::auto_reset().expect("an event")
}

fn manual() -> Event {
    Event::new().expect("an event")
}

fn event_set(calls: u32) {
    with_event(calls, auto(), |event| counted::event_set(event) && event.try_wait().is_ok());
}

fn event_set_manual(calls: u32) {
    with_event(calls, manual(), |event| counted::event_set(event) && event.clear().is_ok());
}

fn event_is_set(calls: u32) {
    let event = manual();
    event.set().expect("ours");
    with_event(calls, event, counted::event_is_set);
}

fn event_try_wait_in_vain(calls: u32) {
    with_event(calls, auto(), |event| !counted::event_try_wait(event));
}

fn event_try_wait(calls: u32) {
    with_event(calls, auto(), |event| event.set().is_ok() && counted::event_try_wait(event));
}

fn event_wait_manual(calls: u32) {
    let event = manual();
    event.set().expect("ours");
    with_event(calls, event, counted::event_wait);
}

fn event_wait_any(calls: u32) {
    let other = auto();
    with_event(calls, auto(), |event| {
        event.set().is_ok() && counted::event_wait_any(&[&other, event]) == Some(1)
    });
}

/// Instructions, and bus events.
#[derive(Clone, Copy)]
struct Counts([u64; 2]);

/// Runs this program again, under callgrind.
fn count(place: usize, calls: u32) -> Result<Counts, Failure> {
    let profile = tempfile::NamedTempFile::new()?;
    let output = Command::new("valgrind")
        // Ignores the user's own files and variables, which could turn counting on elsewhere.
        .args([
            "--command-line-only=yes",
            "--tool=callgrind",
            "--collect-bus=yes",
            "--toggle-collect=*::counted::*",
        ])
        .arg(format!("--callgrind-out-file={}", profile.path().display()))
        .arg(env::current_exe()?)
        .args([RUN, &place.to_string(), &calls.to_string()])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(format!(
            "under callgrind: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    read(&std::fs::read_to_string(profile.path())?)
        .ok_or_else(|| "callgrind wrote a profile of another form".into())
}

/// The totals of a profile. Events that did not occur are left out at the end of its line.
fn read(profile: &str) -> Option<Counts> {
    let line = |key| profile.lines().find_map(|line| line.strip_prefix(key));
    if line("events:")?.split_whitespace().ne(["Ir", "Ge"]) {
        return None;
    }
    let mut totals = line("totals:")?.split_whitespace().map(|total| total.parse().ok());
    Some(Counts([totals.next()??, totals.next().unwrap_or(Some(0))?]))
}

/// `total` for each of `messages`, without decimals where there are none.
fn each(total: u64, messages: u64) -> String {
    if total.is_multiple_of(messages) {
        (total / messages).to_string()
    } else {
        format!("{:.2}", total as f64 / messages as f64)
    }
}

/// The version of valgrind, if there is one.
fn valgrind() -> io::Result<Option<String>> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag| arguments.iter().any(|argument| argument == flag);
    if let [flag, place, calls] = arguments.as_slice()
        && flag == RUN
    {
        let operation = OPERATIONS.get(place.parse::<usize>()?).ok_or("no such operation")?;
        (operation.run)(calls.parse()?);
        return Ok(());
    }
    if !has("--bench") || has("--test") {
        OPERATIONS.iter().for_each(|operation| (operation.run)(WARM_UP));
        println!(
            "{} operations work; `cargo bench --bench instructions` counts them.",
            OPERATIONS.len()
        );
        return Ok(());
    }
    let Some(version) = valgrind()? else {
        println!(
            "Instruction counts are skipped: valgrind is not installed, or does not run here."
        );
        return Ok(());
    };
    println!("{version}, {} calls each, {}\n", CALLS, env::consts::ARCH);
    println!(
        "| {:40} | {:>12} | {:>26} |",
        "operation, 8 bytes, nobody in the way", "instructions", "read-modify-writes, fences"
    );
    println!("|{:-<42}|{:->14}|{:->28}|", "", ":", ":");
    for (place, operation) in OPERATIONS.iter().enumerate() {
        let (Counts(first), Counts(all)) = (count(place, WARM_UP)?, count(place, WARM_UP + CALLS)?);
        let messages = u64::from(CALLS) * operation.messages as u64;
        let [instructions, events] = [0, 1].map(|event| each(all[event] - first[event], messages));
        println!("| {:40} | {instructions:>12} | {events:>26} |", operation.name);
    }
    Ok(())
}
