//! Offspring beside what one would use instead, measured in one run.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- [GROUP..] [--json FILE] [--plots DIR] [--seconds S]
//! ```
//!
//! # What is compared
//! A *group* has *cases*; a case has *entries* that are compared with each other: offspring, what
//! the bare machine needs (the limit), and peers. All entries of a case take turns over the
//! repetitions, in the same set-up: two actors on two cores, or more actors than cores, evenly
//! distributed; processes for what works between processes, threads of one process for what does
//! not.
//!
//! With no group named, all are measured; `--case` and `--peer` choose among cases and peers by a
//! part of the name.
//!
//! `--seconds` is the measuring time of an entry, all repetitions together. Each repetition adds a
//! quarter of its share for warm-up, and the start of processes. Every message is checked: the
//! first ones of each run wholly, before its clock starts, the others by their number, their end
//! and their order.
//!
//! # How it is measured
//! Where there are as many actors as cores, a figure of one repetition is the mean of the middle
//! half of blocks of operations, so that a block in which something else ran does not count; where
//! more than the cores are wanted, everything from warm-up to limit counts, as stalls belong to the
//! matter. With more than four senders, each share of `--seconds` is longer, so that everybody gets
//! some turns.
//!
//! The table has the median over repetitions with the least and the most; a ratio is the median of
//! ratios within each repetition.
//!
//! # How to add
//! - *A peer for messages:* a file in `peers` that implements `Way`, and a line in
//!   `peers::visit_ways`. It is then in every group.
//! - *A lock:* a file in `peers` that implements `Door`, and a line in `peers::visit_doors`.
//! - *A program in another language:* a line in `external::PROGRAMS`; `external` tells what it must
//!   print.
//! - *A group:* a file in `groups` with a function that gives its cases, and a line in
//!   `groups::ALL`. Table, JSON and plots follow.

mod acts;
mod channel;
mod external;
mod figures;
mod groups;
mod json;
mod machine;
mod peers;
mod plots;
mod shared;
mod stage;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use figures::{Case, Role};
use groups::Kit;
use stage::Stage;

/// What went wrong, for people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures offspring beside its peers.
#[derive(Parser)]
struct Options {
    /// The groups to measure; all if none is named.
    #[arg(value_name = "GROUP", value_parser = groups::names())]
    groups: Vec<String>,
    /// Measures only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    case: String,
    /// Measures only those peers whose name contains this, beside offspring and the limits.
    #[arg(long, value_name = "TEXT", default_value = "")]
    peer: String,
    /// Writes the figures into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws charts into this directory.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// How long each entry is measured, all repetitions together.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// How often the entries of a case take turns.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
}

/// A group that was measured.
pub(crate) struct Measured {
    name: &'static str,
    cases: Vec<Case>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    if !(0.001..=3600.0).contains(&options.seconds) {
        return Err("--seconds must be from 0.001 to 3600".into());
    }
    let Some(stage) = Stage::choose()? else {
        return Err("two cores are needed, and this process may use only one".into());
    };
    let begin = Instant::now();
    machine::allow_large_messages()?;
    keep_children_quiet();
    let heading = machine::heading(stage, options.seconds, options.repetitions)?;
    println!("{heading}");

    let kit = Kit::new(stage);
    let mut measured = Vec::new();
    for (name, cases) in groups::ALL {
        if options.groups.is_empty() || options.groups.iter().any(|wanted| wanted == name) {
            let mut cases = cases(&kit)?;
            cases.retain(|case| case.name.contains(&options.case));
            for case in &mut cases {
                case.entries
                    .retain(|entry| entry.role != Role::Peer || entry.name.contains(&options.peer));
            }
            measured.push(Measured { name, cases });
        }
    }
    let repetitions = usize::from(options.repetitions);
    let entries: usize =
        measured.iter().flat_map(|group| &group.cases).map(|case| case.entries.len()).sum();
    let progress = progress(entries * repetitions)?;
    let limit = Duration::from_secs_f64(options.seconds / f64::from(options.repetitions));
    for group in &mut measured {
        for case in &mut group.cases {
            case.measure(limit, repetitions, |case, entry| {
                progress.set_message(format!("{}: {case}: {entry}", group.name));
                progress.inc(1);
            });
            progress.suspend(|| table::print(group.name, case));
        }
    }
    progress.finish_and_clear();
    table::print_end(&measured);
    if let Some(file) = &options.json {
        json::write(file, &measured)?;
        println!("figures: {}", file.display());
    }
    if let Some(directory) = &options.plots {
        for chart in plots::draw(
            directory,
            &measured,
            &format!("{}\n{}", machine::short(stage)?, machine::command()),
        )? {
            println!("chart: {}", chart.display());
        }
    }
    println!("{entries} figures in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// The panic of a child is told in the table, with its peer's name.
fn keep_children_quiet() {
    let (me, usual) = (std::process::id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if std::process::id() == me {
            usual(panic);
        }
    }));
}

/// A bar without a thread of its own: a program with two threads could not fork.
fn progress(steps: usize) -> Result<ProgressBar, Failure> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed} of about {duration}  {msg}")?;
    Ok(ProgressBar::new(steps as u64).with_style(style))
}
