//! The queue beside its rivals: throughput and ping-pong, between two processes on two processors.
//!
//! `cargo bench --bench queue` measures, `cargo test --benches` runs everything once and briefly to keep it alive.
//!
//! - this file: the cases and the table.
//! - `measure`: what is done in the two processes, and the clock.
//! - `channels`: the queue and its rivals, as ways for messages.
//!
//! All cases of a group take turns, so that whatever else the machine does meets all of them. Every message is compared with what was
//! sent, before the clock starts and while it runs. Figures are medians over the repetitions; a ratio is that to the group's first
//! case in the same repetition.

mod channels;
mod measure;

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use offspring::{Queue, QueueOptions, Wait};

use channels::{Array, Futex, Line, Pipe, Vyukov, both_ways};
use measure::{Channel, Figures, Message, Processors, Stage, ping_pong, throughput};

/// Slots of every queue.
const CAPACITY: usize = 1024;

/// Measures the queue beside its rivals.
#[derive(Parser)]
struct Options {
    /// How long each case runs in each repetition.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// How often all cases take turns.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Measures only the groups whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Those of the command line; brief ones if Cargo runs this as a test.
    fn get() -> Options {
        if std::env::args().any(|argument| argument == "--bench") {
            return Options::parse();
        }
        Options { seconds: 0.01, repetitions: 1, filter: String::new(), bench: false }
    }
}

type Failure = Box<dyn Error>;

/// One line of the table.
struct Case {
    name: &'static str,
    run: Box<dyn Fn(Duration) -> Result<Figures, Failure>>,
    figures: Vec<Figures>,
}

/// Cases that are compared with each other, the first being the measure of all.
struct Group {
    name: String,
    unit: &'static str,
    cases: Vec<Case>,
}

impl Group {
    fn new<M>(what: &str, unit: &'static str) -> Group {
        Group { name: format!("{what}, {} bytes", size_of::<M>()), unit, cases: Vec::new() }
    }

    fn add(&mut self, name: &'static str, run: impl Fn(Duration) -> Result<Figures, Failure> + 'static) {
        self.cases.push(Case { name, run: Box::new(run), figures: Vec::new() });
    }

    fn measure(&mut self, options: &Options) -> Result<(), Failure> {
        for _ in 0..options.repetitions {
            for case in &mut self.cases {
                case.figures.push((case.run)(Duration::from_secs_f64(options.seconds))?);
            }
        }
        Ok(())
    }

    fn print(&self) {
        println!("\n{} ({})", self.name, self.unit);
        println!("{:30}   median      min      max  ratio       p50      p99    p99.9", "");
        for case in &self.cases {
            let all = || case.figures.iter().map(|figures| figures.typical);
            let ratios = all().zip(&self.cases[0].figures).map(|(figure, measure)| figure / measure.typical);
            let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
            print!("{:30} {:8.3} {least:8.3} {most:8.3} {:6.2} ", case.name, median(all()), median(ratios));
            for place in 0..3 {
                if case.figures.iter().all(|figures| figures.percentiles.is_some()) {
                    print!(" {:8.3}", median(case.figures.iter().filter_map(|figures| Some(figures.percentiles?[place]))));
                }
            }
            println!();
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn queue<M: Message>(wait: Wait) -> Result<Queue<M>, Failure> {
    Ok(QueueOptions::new().capacity(CAPACITY).wait(wait).create()?)
}

/// One end sends and the other receives.
fn streams<M: Message>(on: Processors) -> Group {
    /// Over fresh channels that `make` makes.
    fn run<M: Message, C: Channel<M> + Clone>(
        stage: Stage,
        make: impl Fn() -> Result<C, Failure>,
    ) -> impl Fn(Duration) -> Result<Figures, Failure> {
        move |limit| {
            let channel = make()?;
            throughput(stage, limit, channel.clone(), channel)
        }
    }
    let (threads, processes) = (Stage::Threads(on), Stage::Processes(on));
    let mut group = Group::new::<M>("Throughput", "million messages per second");
    group.add("ArrayQueue, threads", run(threads, || Ok(Array::<M>::new(CAPACITY))));
    group.add("Queue, spin", run(processes, || queue::<M>(Wait::Spin)));
    group.add("Queue, default", run(processes, || queue::<M>(Wait::default())));
    group.add("Queue, spin, threads", run(threads, || queue::<M>(Wait::Spin)));
    group.add("Vyukov ring, cannot recover", run::<M, _>(processes, || Ok(Vyukov::new::<M>(CAPACITY)?)));
    group.add("OS pipe", run::<M, _>(processes, || Ok(Pipe::new()?)));
    group
}

/// What one end sends comes back from the other.
fn echo<M: Message, C: Channel<M>>(
    stage: Stage,
    make: impl Fn() -> Result<[C; 2], Failure>,
) -> impl Fn(Duration) -> Result<Figures, Failure> {
    move |limit| {
        let [left, right] = make()?;
        ping_pong(stage, limit, left, right)
    }
}

/// Both ends spin.
fn spinning_echoes<M: Message>(on: Processors) -> Group {
    let (threads, processes) = (Stage::Threads(on), Stage::Processes(on));
    let queues = |wait| move || Ok(both_ways(queue::<M>(wait)?, queue::<M>(wait)?));
    let mut group = Group::new::<M>("Ping-pong, spinning", "microseconds per round trip");
    group.add("raw line each way", echo::<u64, _>(processes, || Ok(Line::pair()?)));
    group.add("raw line for both ways", echo::<u64, _>(processes, || Ok(Line::single()?)));
    group.add("Queue, spin", echo(processes, queues(Wait::Spin)));
    group.add("Queue, default", echo(processes, queues(Wait::default())));
    group.add("ArrayQueue, threads", echo(threads, || Ok(both_ways(Array::<M>::new(CAPACITY), Array::new(CAPACITY)))));
    group.add(
        "Vyukov ring, cannot recover",
        echo::<M, _>(processes, || Ok(both_ways(Vyukov::new::<M>(CAPACITY)?, Vyukov::new::<M>(CAPACITY)?))),
    );
    group
}

/// Both ends sleep.
fn sleeping_echoes<M: Message>(on: Processors) -> Group {
    let processes = Stage::Processes(on);
    let mut group = Group::new::<M>("Ping-pong, sleeping", "microseconds per round trip");
    group.add("raw futex", echo::<u64, _>(processes, || Ok(Futex::pair()?)));
    group.add("Queue, sleep", echo(processes, || Ok(both_ways(queue::<M>(Wait::Sleep)?, queue::<M>(Wait::Sleep)?))));
    group.add("OS pipe", echo::<M, _>(processes, || Ok(both_ways(Pipe::new()?, Pipe::new()?))));
    group
}

fn main() -> Result<(), Failure> {
    let options = Options::get();
    let Some(on) = Processors::choose()? else {
        println!("The queue's bench needs two processors; nothing is measured.");
        return Ok(());
    };
    println!("{}", measure::machine(on)?);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    println!("cargo bench --bench queue -- {}", arguments.join(" "));
    println!("{} repetitions of {} s, {CAPACITY} slots", options.repetitions, options.seconds);
    let groups = [
        streams::<u64>(on),
        streams::<[u64; 8]>(on),
        spinning_echoes::<u64>(on),
        spinning_echoes::<[u64; 8]>(on),
        sleeping_echoes::<u64>(on),
        sleeping_echoes::<[u64; 8]>(on),
    ];
    for mut group in groups.into_iter().filter(|group| group.name.contains(&options.filter)) {
        group.measure(&options)?;
        group.print();
    }
    Ok(())
}
