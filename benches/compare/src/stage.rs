//! Where everything is measured: actors on two cores, in processes or in threads, that start
//! together and stop together.
//!
//! The program itself stays a process with one thread, so that it can fork. Whatever is measured
//! happens in children: each actor is a child of its own, or, for what works between threads only,
//! all actors are threads of one child.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use offspring::Child;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::shared::{APART, Words};

/// Whether actors share an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Processes,
    Threads,
}

/// The two cores, by the number of a processor on each, and who else is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) processors: [usize; 2],
    /// Processes that use as much of the two cores as they get.
    pub(crate) hogs: usize,
    /// Processes that have the shared memory and sleep.
    pub(crate) idlers: usize,
}

/// What an actor does. It gets its stage's signals and is pinned already.
pub(crate) type Actor<R> = Box<dyn FnOnce(&Signals) -> R + Send>;

/// Nothing takes longer than its limit but for start and warm-up; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages of a mebibyte are passed by value, some copies deep.
const STACK: usize = 64 << 20;

impl Stage {
    /// The first processor that this process may use, and the first of another core; `None` if
    /// there is but one core.
    pub(crate) fn choose() -> Result<Option<Stage>, Failure> {
        let allowed = sched_getaffinity(None)?;
        let mut all = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let Some(first) = all.next() else { return Ok(None) };
        let second = all.find(|&other| core_of(other) != core_of(first));
        Ok(second.map(|second| Stage { processors: [first, second], hogs: 0, idlers: 0 }))
    }

    /// Runs the actors that `make` makes, the i-th on core i modulo 2, and gives what they return,
    /// in order.
    ///
    /// Actors in threads are made in their process, so that their memory is its own from the
    /// beginning.
    ///
    /// If one fails, the others are killed: they might wait for it for ever.
    pub(crate) fn run<R, M>(self, place: Place, limit: Duration, make: M) -> Result<Vec<R>, Failure>
    where
        R: Serialize + DeserializeOwned + Send + 'static,
        M: FnOnce() -> Result<Vec<Actor<R>>, Failure> + Send + 'static,
    {
        let company = self.gather()?;
        let result = self.run_actors(place, limit, make);
        kill(&company);
        result
    }

    fn run_actors<R, M>(self, place: Place, limit: Duration, make: M) -> Result<Vec<R>, Failure>
    where
        R: Serialize + DeserializeOwned + Send + 'static,
        M: FnOnce() -> Result<Vec<Actor<R>>, Failure> + Send + 'static,
    {
        let deadline = Instant::now() + limit * 4 + PATIENCE;
        if place == Place::Threads {
            let child = offspring::fork(move || {
                let actors = make().map_err(|error| error.to_string())?;
                self.run_threads(actors)
            })?;
            return Ok(join_all(vec![child], deadline)?.pop().ok_or("no child")??);
        }
        let actors = make()?;
        let signals = Signals::new(actors.len())?;
        let children = start_all(actors.into_iter().enumerate().map(|(index, actor)| {
            let signals = signals.clone();
            move || {
                self.pin(index);
                actor(&signals)
            }
        }))?;
        join_all(children, deadline)
    }

    /// Starts hogs and idlers, to be killed in the end.
    fn gather(self) -> Result<Vec<Child<()>>, Failure> {
        start_all((0..self.hogs + self.idlers).map(|index| {
            move || {
                self.pin(index);
                let is_hog = index < self.hogs;
                loop {
                    if is_hog { std::hint::spin_loop() } else { std::thread::park() }
                }
            }
        }))
    }

    /// In the child: the child ends, with all its threads, at the first that panics.
    fn run_threads<R: Send + 'static>(self, actors: Vec<Actor<R>>) -> Result<Vec<R>, String> {
        let count = actors.len();
        let signals = Signals::new(count).map_err(|error| error.to_string())?;
        let (sender, receiver) = mpsc::channel();
        for (index, actor) in actors.into_iter().enumerate() {
            let (sender, signals) = (sender.clone(), signals.clone());
            let body = move || {
                self.pin(index);
                let result =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| actor(&signals)));
                // Nobody listens only after another thread has failed.
                let _ = sender.send((index, result.map_err(|panic| message_of(&*panic))));
            };
            let started = std::thread::Builder::new().stack_size(STACK).spawn(body);
            started.map_err(|error| format!("no thread: {error}"))?;
        }
        let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
        for _ in 0..count {
            let (index, result) = receiver.recv().map_err(|_| "a thread is gone".to_owned())?;
            results[index] = Some(result?);
        }
        Ok(results.into_iter().flatten().collect())
    }

    pub(crate) fn pin(self, index: usize) {
        let mut set = CpuSet::new();
        set.set(self.processors[index % 2]);
        sched_setaffinity(None, &set).expect("an allowed processor");
    }

    /// Package and core of both, for people.
    pub(crate) fn describe(self) -> String {
        self.processors.map(core_of).join(" and ")
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a thread has panicked").to_owned()
}

/// Package and core of a processor, as far as the kernel tells; else the processor itself.
fn core_of(processor: usize) -> String {
    let folder = format!("/sys/devices/system/cpu/cpu{processor}/topology");
    let read = |name| fs::read_to_string(format!("{folder}/{name}"));
    match (read("physical_package_id"), read("core_id")) {
        (Ok(package), Ok(core)) => format!("package {} core {}", package.trim(), core.trim()),
        _ => format!("processor {processor}"),
    }
}

/// Starts a child for each, or none.
fn start_all<R, F>(bodies: impl Iterator<Item = F>) -> Result<Vec<Child<R>>, Failure>
where
    R: Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let mut children = Vec::new();
    for body in bodies {
        match offspring::fork(body) {
            Ok(child) => children.push(child),
            Err(error) => {
                kill(&children);
                return Err(error.into());
            }
        }
    }
    Ok(children)
}

fn kill<R>(children: &[Child<R>]) {
    for child in children {
        // One that has ended needs no killing.
        let _ = child.kill();
    }
}

/// Waits for all without looking again and again, which would disturb what is measured.
fn join_all<R: DeserializeOwned>(
    mut children: Vec<Child<R>>,
    deadline: Instant,
) -> Result<Vec<R>, Failure> {
    let mut results: Vec<Option<R>> = children.iter().map(|_| None).collect();
    loop {
        let mut failure = None;
        let mut waiting = Vec::new();
        for (index, child) in children.iter_mut().enumerate() {
            if results[index].is_some() {
                continue;
            }
            match child.try_join() {
                None => waiting.push(index),
                Some(Ok(result)) => results[index] = Some(result),
                Some(Err(error)) => failure = Some(error.to_string()),
            }
        }
        if let Some(failure) = failure {
            kill(&children);
            return Err(failure.into());
        }
        if waiting.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            kill(&children);
            return Err("hangs; killed".into());
        }
        let mut ends: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|&index| PollFd::from_borrowed_fd(children[index].as_fd(), PollFlags::IN))
            .collect();
        match poll(&mut ends, Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How the actors of one run start together, stop together and agree on the time. Shared by threads
/// and processes alike.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    words: Words<AtomicU64>,
    actors: u64,
    epoch: Instant,
}

impl Signals {
    const ARRIVED: usize = 0;
    /// On a line of its own: everybody reads it all the time.
    const STOPPED: usize = APART;

    fn new(actors: usize) -> io::Result<Signals> {
        Ok(Signals { words: Words::new(2 * APART)?, actors: actors as u64, epoch: Instant::now() })
    }

    /// Waits until every actor has called this as often as the caller has (`round`, from 1).
    pub(crate) fn meet(&self, round: u64) {
        let arrived = &self.words[Signals::ARRIVED];
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < round * self.actors {
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(&self) {
        self.words[Signals::STOPPED].store(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn stopped(&self) -> bool {
        self.words[Signals::STOPPED].load(Ordering::Relaxed) != 0
    }

    /// Since the run began, the same in all actors.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
