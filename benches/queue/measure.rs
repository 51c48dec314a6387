//! What happens at the two ends, and the clock.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// A numbered message of one or more words.
pub(crate) trait Message: Pod + Send + PartialEq {
    /// The message with this number in every word.
    fn numbered(number: u64) -> Self;
}

impl Message for u64 {
    fn numbered(number: u64) -> u64 {
        number
    }
}

impl Message for [u64; 8] {
    fn numbered(number: u64) -> [u64; 8] {
        [number; 8]
    }
}

/// One end of a way for messages.
pub(crate) trait Channel<M>: Send + 'static {
    fn send(&mut self, message: M);
    fn recv(&mut self) -> M;
}

/// The number of the last message of a run. The bare futex has 32 bits, the bare line 63.
const LAST: u64 = u32::MAX as u64;
/// Messages before the clock starts: caches and page tables are warm, and spinning handles have found their patience.
const STREAM_WARM_UP: u64 = 8_192;
const ECHO_WARM_UP: usize = 200;
/// Messages that are timed together: several rounds of the ring.
const STREAM_BLOCK: u64 = 4096;
/// Round trips that are timed together, as the clock costs as much as a good part of one; after each block one is timed alone.
const ECHO_BLOCK: usize = 16;

/// What one run measured: medians over blocks of messages, so that a block in which something else ran does not count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) typical: f64,
    /// p50, p99 and p99.9 of single round trips.
    pub(crate) percentiles: Option<[f64; 3]>,
}

/// The processors of the two ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors(usize, usize);

impl Processors {
    /// The first that this process may use, and the first of another core, if it may use any.
    pub(crate) fn choose() -> Result<Option<Processors>, Box<dyn Error>> {
        let allowed = sched_getaffinity(None)?;
        let mut all = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let Some(first) = all.next() else { return Ok(None) };
        Ok(all.find(|&other| topology(other) != topology(first)).map(|second| Processors(first, second)))
    }
}

/// Package and core of a processor, as far as the kernel tells; else the processor itself.
fn topology(processor: usize) -> String {
    let folder = format!("/sys/devices/system/cpu/cpu{processor}/topology");
    let read = |name| fs::read_to_string(format!("{folder}/{name}"));
    match (read("physical_package_id"), read("core_id")) {
        (Ok(package), Ok(core)) => format!("package {} core {}", package.trim(), core.trim()),
        _ => format!("processor {processor}"),
    }
}

/// Processor, kernel and places, in one line.
pub(crate) fn machine(Processors(left, right): Processors) -> Result<String, Box<dyn Error>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (model, kernel) = (model.unwrap_or(std::env::consts::ARCH), kernel.trim());
    Ok(format!("{model}, Linux {kernel}; on {} and {}", topology(left), topology(right)))
}

/// Where the two ends run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// In two processes.
    Processes(Processors),
    /// In two threads of one process, which is a child too: the parent must stay free to fork.
    Threads(Processors),
}

fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).expect("an allowed processor");
}

/// Runs the two ends, each on its processor; the right one has the clock.
fn on_stage(
    stage: Stage,
    limit: Duration,
    left: impl FnOnce() + Send + 'static,
    right: impl FnOnce() -> Figures + Send + 'static,
) -> Result<Figures, Box<dyn Error>> {
    // If one end fails, the other would wait for ever.
    let watchdog = limit * 2 + Duration::from_secs(60);
    match stage {
        Stage::Processes(Processors(first, second)) => {
            let left = offspring::fork(move || {
                pin(first);
                left();
            })?;
            let mut right = offspring::fork(move || {
                pin(second);
                right()
            })?;
            let figures = right.join_timeout(watchdog).ok_or("the clock's end hangs")??;
            left.join()?;
            Ok(figures)
        }
        Stage::Threads(Processors(first, second)) => {
            let mut child = offspring::fork(move || {
                let left = std::thread::spawn(move || {
                    pin(first);
                    left();
                });
                pin(second);
                let figures = right();
                left.join().expect("the other end has checked its messages");
                figures
            })?;
            Ok(child.join_timeout(watchdog).ok_or("the threads hang")??)
        }
    }
}

/// Sends numbered messages from one end to the other: millions per second.
pub(crate) fn throughput<M: Message>(
    stage: Stage,
    limit: Duration,
    mut sender: impl Channel<M>,
    mut receiver: impl Channel<M>,
) -> Result<Figures, Box<dyn Error>> {
    let send = move || {
        let mut start = Instant::now();
        for number in 0..LAST {
            if number % STREAM_BLOCK == 0 {
                if number <= STREAM_WARM_UP {
                    start = Instant::now();
                } else if start.elapsed() > limit {
                    break;
                }
            }
            sender.send(M::numbered(number));
        }
        sender.send(M::numbered(LAST));
    };
    let receive = move || {
        let mut blocks = Vec::with_capacity(1 << 16);
        let mut start = Instant::now();
        for number in 0..LAST {
            let message = black_box(receiver.recv());
            if message == M::numbered(LAST) {
                break;
            }
            assert!(message == M::numbered(number), "message {number} is out of order or damaged");
            if (number + 1) % STREAM_BLOCK == 0 {
                let now = Instant::now();
                if number >= STREAM_WARM_UP {
                    blocks.push(now - start);
                }
                start = now;
            }
        }
        Figures { typical: STREAM_BLOCK as f64 / percentile(&mut blocks, 0.5), percentiles: None }
    };
    on_stage(stage, limit, send, receive)
}

/// Sends a message there and back, again and again: microseconds per round trip.
pub(crate) fn ping_pong<M: Message>(
    stage: Stage,
    limit: Duration,
    mut left: impl Channel<M>,
    mut right: impl Channel<M>,
) -> Result<Figures, Box<dyn Error>> {
    let reflect = move || {
        loop {
            let message = left.recv();
            left.send(message);
            if message == M::numbered(LAST) {
                return;
            }
        }
    };
    let mut round_trip = move |number| {
        right.send(M::numbered(number));
        assert!(black_box(right.recv()) == M::numbered(number), "message {number} came back changed");
    };
    on_stage(stage, limit, reflect, move || {
        let mut numbers = 1..LAST;
        let mut round_trips = |count| numbers.by_ref().take(count).for_each(&mut round_trip);
        round_trips(ECHO_WARM_UP);
        let (mut blocks, mut singles) = (Vec::with_capacity(1 << 18), Vec::with_capacity(1 << 18));
        let start = Instant::now();
        let mut now = Duration::ZERO;
        while now < limit {
            round_trips(ECHO_BLOCK);
            let after_block = start.elapsed();
            round_trips(1);
            blocks.push((after_block - now) / ECHO_BLOCK as u32);
            now = start.elapsed();
            singles.push(now - after_block);
        }
        round_trip(LAST);
        let typical = percentile(&mut blocks, 0.5);
        let percentiles = [0.5, 0.99, 0.999].map(|share| percentile(&mut singles, share));
        Figures { typical, percentiles: Some(percentiles) }
    })
}

/// In microseconds.
fn percentile(times: &mut [Duration], share: f64) -> f64 {
    let place = (times.len() - 1) as f64 * share;
    times.select_nth_unstable(place as usize).1.as_secs_f64() * 1e6
}
