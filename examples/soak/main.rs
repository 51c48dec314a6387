//! Processes use every object, and are killed, stopped and starved at random:
//! `cargo run --release --example soak -- --seconds 60 --processes 8`.
//!
//! A run consists of rounds. For each round the supervisor makes all objects anew and assigns its
//! workers to some of them. Then for some seconds it kills a worker every few milliseconds
//! (`SIGKILL`), stops others for up to a second (`SIGSTOP`), and lets some run into `RLIMIT_AS` and
//! `RLIMIT_CPU`. Each worker that dies is replaced. At the end of the round everything that was
//! sent must be accounted for, and nothing may be left.
//!
//! | file | what it holds |
//! |---|---|
//! | `arena.rs` | the objects of a round, and which worker uses which |
//! | `crew.rs` | the supervisor |
//! | `queue_work.rs`, `message_work.rs`, `carry_work.rs`, `ring_work.rs`, `lock_work.rs`, `value_work.rs`, `event_work.rs`, `channel_work.rs`, `churn_work.rs`, `fork_work.rs` | the workers |
//! | `post.rs`, `fate.rs`, `fork.rs` | what all workers have; deaths by a limit; how they start |
//! | `message.rs`, `notes.rs`, `ledger.rs` | what is sent, and what is recorded of it where no kill can destroy it |
//! | `account.rs`, `leftovers.rs` | what is checked at the end of a round |
//! | `table.rs`, `random.rs` | the table; random numbers |

mod account;
mod arena;
mod carry_work;
mod channel_work;
mod churn_work;
mod crew;
mod event_work;
mod fate;
mod fork;
mod fork_work;
mod ledger;
mod leftovers;
mod lock_work;
mod message;
mod message_work;
mod notes;
mod post;
mod queue_work;
mod random;
mod ring_work;
mod table;
mod value_work;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use offspring::SegmentOptions;

use crate::account::Account;
use crate::arena::{Arena, Object};
use crate::crew::Crew;
use crate::ledger::Sample;
use crate::leftovers::Before;
use crate::random::Random;
use crate::table::Screen;

/// Kills, stops and starves processes that work at every object, and checks that the others go on,
/// that nothing is torn and nothing lost.
///
/// Exit status: 0 if nothing was lost that should not be, nothing torn, nothing received twice or
/// out of order, nobody hung, nobody failed, and nothing was left over; else 1.
#[derive(Parser)]
#[command(name = "soak", version)]
struct Options {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// How many processes work at a time.
    #[arg(long, value_name = "P", default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=500))]
    processes: u16,
    /// What the random numbers begin with [default: the time]. The same seed deals and kills in the
    /// same order, but not at the same instructions.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only the objects that contain this in their name; several times for several. Each of them
    /// must have been worked at in the end, and somebody killed there.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

impl Options {
    /// The objects that are worked at.
    fn objects(&self) -> Vec<Object> {
        let is_wanted = |object: &Object| {
            self.only.is_empty() || self.only.iter().any(|name| object.name().contains(name))
        };
        Object::ALL.into_iter().filter(is_wanted).collect()
    }
}

/// Objects that the commons hold.
const COMMONS_LEN: u64 = 64 << 20;
const LONGEST_ROUND: Duration = Duration::from_secs(5);
/// Nobody is left alone for longer.
const LONGEST_REST_MICROS: u64 = 16_000;

/// What came of all rounds up to now.
#[derive(Default)]
struct Findings {
    account: Account,
    samples: Vec<Sample>,
    /// By how much the supervisor slept longer than it wanted.
    overslept: Vec<Duration>,
    complaints: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let seed = options.seed.unwrap_or_else(ledger::now);
    let mut random = Random::new(seed);
    let objects = options.objects();
    if objects.is_empty() {
        return Err(format!("no object is called {:?}", options.only).into());
    }
    SegmentOptions::new().len(COMMONS_LEN).commons()?;
    // The first fork makes what stays: lazily opened descriptors of the library.
    fork::fork(|| ())?.join()?;
    let folder = tempfile::tempdir()?;
    let before = Before::look()?;

    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let mut screen = Screen::new();
    let mut findings = Findings::default();
    let mut deck = Vec::new();
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let rounds_end = end.min(Instant::now() + LONGEST_ROUND);
        let arena = Arena::new(&folder, round, &mut random)?;
        let stations = arena::deal(&mut random, &objects, &mut deck, options.processes.into());
        let mut crew = Crew::new(Arc::clone(&arena), &stations, &mut random)?;
        while Instant::now() < rounds_end && crew.has_rows() {
            let rest = Duration::from_micros(crew.rest(LONGEST_REST_MICROS));
            let fell_asleep = Instant::now();
            std::thread::sleep(rest);
            findings.overslept.push(fell_asleep.elapsed().saturating_sub(rest));
            crew.disturb()?;
            crew.look_after()?;
            if screen.is_due() {
                let headline = format!(
                    "{} s of {} s, round {round}, seed {seed}",
                    start.elapsed().as_secs(),
                    options.seconds
                );
                screen.show(&headline, &so_far(&findings.account, &crew));
            }
        }
        let (account, complaints) = crew.finish()?;
        account::add(&mut findings.account, &account);
        findings.complaints.extend(complaints);
        findings.samples.extend(arena.ledger.samples());
        std::fs::remove_file(&arena.path)?;
        drop(arena);
        findings.complaints.extend(before.compare()?);
        if account.iter().any(|figures| figures.hung > 0) {
            // Every further round would wait for as long.
            break;
        }
    }
    screen.clear();
    Ok(report(options, seed, round, findings))
}

/// The figures with those of the round under way.
fn so_far(account: &Account, crew: &Crew<'_>) -> Account {
    let mut sum = *account;
    account::add(&mut sum, &crew.account);
    for object in Object::ALL {
        sum[object as usize].operations =
            account[object as usize].operations + crew.operations(object);
    }
    sum
}

/// Prints what came of it; true if nothing is wrong.
fn report(options: &Options, seed: u64, rounds: u64, findings: Findings) -> bool {
    let Findings { account, samples, overslept, mut complaints } = findings;
    complaints
        .extend(account::idle(&account).map(|what| format!("{what}: this run has shown nothing")));
    if !options.only.is_empty() {
        complaints.extend(account::unvisited(&account, &options.objects()));
    }
    println!(
        "{} seconds, {} processes, {rounds} rounds, seed {seed}\n",
        options.seconds, options.processes
    );
    print!("{}", table::table(&account));
    print!("\n{}", table::times(samples, overslept));
    println!(
        "deaths by a limit: RLIMIT_AS and RLIMIT_CPU; a memory cgroup was not delegated to us"
    );
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    let faults: u64 = account.iter().map(account::Figures::faults).sum();
    if faults == 0 && complaints.is_empty() {
        println!("nothing lost, nothing torn, nobody hung, nothing left over");
        return true;
    }
    println!("{faults} faults");
    false
}
