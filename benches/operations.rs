//! Single operations in one thread, without contention: criterion shows whether a change made one
//! slower.
//!
//! `cargo bench --bench operations` measures in about half a minute and compares with the run
//! before; `cargo test --benches` does everything once. `benches/compare` measures the operations
//! between processes, and beside those of other crates.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use offspring::{ByteQueue, Lock, Queue, Shm, spsc};

/// Slots of every queue.
const CAPACITY: usize = 64;

/// Messages of a batch.
const BATCH: usize = 64;

/// Messages of a stream that wait in the ring of two.
const AHEAD: usize = 32;

/// Words of a page.
const PAGE: usize = 512;

fn main() {
    // Short enough that the whole bench takes half a minute. Twice the usual threshold, as other
    // work on the machine comes in bursts.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(50)
        .nresamples(10_000)
        .noise_threshold(0.02)
        .without_plots()
        .configure_from_args();
    queue(&mut criterion);
    ring(&mut criterion);
    lock(&mut criterion);
    objects(&mut criterion);
    // Last, as a process is never again quite what it was before its first fork.
    processes(&mut criterion);
    criterion.final_summary();
}

fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");

    fn copied<M: Shm>(message: M) -> impl FnMut() -> M {
        let queue = Queue::with_capacity(CAPACITY).expect("a queue");
        move || {
            assert!(queue.try_send(black_box(message)).is_ok());
            queue.try_recv().expect("what was just sent")
        }
    }
    fn in_place<const WORDS: usize>() -> impl FnMut() -> u64 {
        let queue = Queue::<[u64; WORDS]>::with_capacity(CAPACITY).expect("a queue");
        move || {
            // Only one word is touched: the rest is what in-place messages save.
            let mut message = queue.reserve().expect("a free slot");
            message[0] = black_box(7);
            message.commit();
            queue.recv_ref().expect("what was just sent")[0]
        }
    }
    let sizes =
        ["8 bytes", "64 bytes", "4 KiB"].map(|size| BenchmarkId::new("try_send, try_recv", size));
    let [word, line, page] = sizes;
    group.bench_function(word, |bencher| bencher.iter(copied(7_u64)));
    group.bench_function(line, |bencher| bencher.iter(copied([7_u64; 8])));
    group.bench_function(page, |bencher| bencher.iter(copied([7_u64; PAGE])));
    let sizes =
        ["8 bytes", "4 KiB"].map(|size| BenchmarkId::new("reserve, commit, recv_ref", size));
    let [word, page] = sizes;
    group.bench_function(word, |bencher| bencher.iter(in_place::<1>()));
    group.bench_function(page, |bencher| bencher.iter(in_place::<PAGE>()));

    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("send_many, recv_many of 64", |bencher| {
        let queue = Queue::<u64>::with_capacity(BATCH).expect("a queue");
        let sent = [7; BATCH];
        let mut received = Vec::with_capacity(BATCH);
        bencher.iter(|| {
            queue.send_many(black_box(&sent)).expect("as many free slots");
            received.clear();
            assert_eq!(queue.recv_many(&mut received, BATCH), Ok(BATCH));
            black_box(received.as_slice());
        });
    });
    group.finish();
}

fn ring(criterion: &mut Criterion) {
    /// One message at a time: each end looks for the other every time.
    fn single<M: Shm>(message: M) -> impl FnMut() -> M {
        let (mut producer, mut consumer) = spsc::ring(CAPACITY).expect("a ring");
        move || {
            assert!(producer.try_send(black_box(message)).is_ok());
            consumer.try_recv().expect("what was just sent")
        }
    }
    /// A stream in which neither end has to wait. A receiver that waits for each message would
    /// pause to let the sender get ahead, and that is no part of the cost of an operation.
    fn stream<M: Shm>(message: M) -> impl FnMut() {
        let (mut producer, mut consumer) = spsc::ring(CAPACITY).expect("a ring");
        move || {
            (0..AHEAD).for_each(|_| assert!(producer.send(black_box(message)).is_ok()));
            (0..AHEAD).for_each(|_| {
                black_box(consumer.recv().expect("what was sent"));
            });
        }
    }
    let mut group = criterion.benchmark_group("spsc");
    group.bench_function(BenchmarkId::new("try_send, try_recv", "8 bytes"), |bencher| {
        bencher.iter(single(7_u64))
    });
    group.bench_function(BenchmarkId::new("try_send, try_recv", "4 KiB"), |bencher| {
        bencher.iter(single([7_u64; PAGE]))
    });
    group.throughput(Throughput::Elements(AHEAD as u64));
    group.bench_function(BenchmarkId::new("send 32, recv 32", "8 bytes"), |bencher| {
        bencher.iter(stream(7_u64))
    });
    group.bench_function(BenchmarkId::new("send 32, recv 32", "4 KiB"), |bencher| {
        bencher.iter(stream([7_u64; PAGE]))
    });
    group.finish();
}

fn lock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lock");
    let lock = Lock::new(0_u64).expect("a lock");
    group.bench_function("lock, unlock", |bencher| {
        bencher.iter(|| drop(black_box(lock.lock().expect("a free lock"))))
    });
    group.bench_function("add one", |bencher| {
        bencher.iter(|| *lock.lock().expect("a free lock") += black_box(1))
    });
    group.finish();
}

fn objects(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("objects");
    group.bench_function("create and drop a queue", |bencher| {
        bencher.iter(|| Queue::<u64>::with_capacity(black_box(CAPACITY)).expect("a queue"));
    });
    let queue = Queue::<u64>::with_capacity(CAPACITY).expect("a queue");
    group.bench_function("clone and drop a handle", |bencher| {
        bencher.iter(|| black_box(&queue).clone())
    });
    let queue = ByteQueue::with_capacity(CAPACITY).expect("a queue");
    group.bench_function("loan and drop 4 KiB", |bencher| {
        bencher.iter(|| drop(black_box(queue.loan(8 * PAGE).expect("memory"))));
    });
    group.finish();
}

#[expect(unsafe_code, reason = "forks")]
fn processes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("processes");
    group.bench_function("fork, join", |bencher| {
        bencher.iter(|| {
            // SAFETY: the child does nothing.
            let child = unsafe { offspring::fork(|| ()) };
            child.expect("a child").join().expect("its end");
        });
    });
    group.bench_function("spawn, join", |bencher| {
        bencher.iter(|| offspring::spawn(|()| (), ()).expect("a child").join().expect("its end"));
    });
    group.finish();
}
