//! Offspring beside what one would use instead, measured in one run.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- [GROUP..] [--markdown DIR]
//! ```
//!
//! # What is compared
//! A *group* has *cases*; a case has *entries* that are compared with each other: offspring, what
//! the bare machine needs (the limit), and peers. All run in the same set-up: two actors on two
//! cores, or more actors than cores, evenly distributed; processes for what works between
//! processes, threads of one process for what does not.
//!
//! With no group named, all are measured; `--case` and `--peer` choose among cases and peers by a
//! part of the name.
//!
//! # How it is measured
//! All entries of a case are set up before the first is measured. Then they take turns: in each of
//! `--rounds` every entry plays one slice of `--slice`, in an order that is shuffled for each
//! round, while all others sleep in a system call. So what the machine does meets all entries
//! alike, and a stall spoils a slice and not an entry.
//!
//! The table has the median of an entry's own figure over the rounds, and how many times as fast
//! the case's reference is: the quartiles of the ratios within each round. A ratio above 1 means
//! that the reference is faster, for speeds and for times alike. A slice that gives no figure is
//! counted and its reason shown; its round is left out of that entry's ratios.
//!
//! Two kinds of entries are set up for each slice anew, but alternate in the same way: programs in
//! other languages, and entries beside processes that would disturb the others.
//!
//! Each slice begins with a warm-up of a quarter of its length. Where there are as many actors as
//! cores, its figure is the mean of the middle half of blocks of operations, so that a block in
//! which something else ran does not count; where more than the cores are wanted, everything from
//! warm-up to end counts, as stalls belong to the matter. With more than four senders slices are
//! longer, so that everybody gets some turns. Every message is checked: the first ones of each
//! slice wholly, before its clock starts, the others by their number, their end and their order.
//!
//! # How to add
//! - *A peer for messages:* a file in `peers` that implements `Way`, and a line in
//!   `peers::visit_ways`. It is then in every group.
//! - *A pair for the README:* a line in `goals::ALL`.
//! - *A lock:* a file in `peers` that implements `Door`, and a line in `peers::visit_doors`.
//! - *A program in another language:* a line in `external::PROGRAMS`; `external` tells what it must
//!   print.
//! - *A group:* a file in `groups` with a function that gives its cases, and a line in
//!   `groups::ALL`. Table, JSON and plots follow.

mod acts;
mod channel;
mod children;
mod external;
mod figures;
mod goals;
mod groups;
mod json;
mod machine;
mod markdown;
mod peers;
mod plots;
mod rounds;
mod shared;
mod slice;
mod stage;
mod statistics;
mod table;
mod troupe;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use figures::{Case, Role};
use groups::Kit;
use rounds::{Plan, Step};
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
    /// Writes the tables of the README and docs/performance.md into this directory.
    #[arg(long, value_name = "DIR")]
    markdown: Option<PathBuf>,
    /// How long an entry is measured in each round.
    #[arg(long, value_name = "TIME", default_value = "30ms", value_parser = milliseconds)]
    slice: Duration,
    /// How many rounds there are.
    #[arg(long, value_name = "N", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// A time as `30ms`.
fn milliseconds(text: &str) -> Result<Duration, String> {
    let count = text.strip_suffix("ms").and_then(|count| count.parse().ok());
    match count {
        Some(count @ 1..=60_000) => Ok(Duration::from_millis(count)),
        _ => Err("from 1ms to 60000ms".to_owned()),
    }
}

/// A group that was measured.
pub(crate) struct Measured {
    name: &'static str,
    cases: Vec<Case>,
}

fn main() -> ExitCode {
    // Its children begin here, and end here.
    procspawn::init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let Some(stage) = Stage::choose()? else {
        return Err("two cores are needed, and this process may use only one".into());
    };
    let plan = Plan { slice: options.slice, rounds: options.rounds.into() };
    let begin = Instant::now();
    machine::allow_large_messages()?;
    keep_children_quiet();
    let heading = machine::heading(stage, plan)?;
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
    let entries: usize =
        measured.iter().flat_map(|group| &group.cases).map(|case| case.entries.len()).sum();
    let progress = progress(entries * plan.rounds)?;
    for group in &mut measured {
        for case in &mut group.cases {
            let name = format!("{}: {}", group.name, case.name);
            rounds::play(case, plan, |step, entry| {
                progress.set_message(format!("{name}: {entry}"));
                if step == Step::Slice {
                    progress.inc(1);
                }
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
    if let Some(directory) = &options.markdown {
        for file in markdown::write(directory, &heading, &measured)? {
            println!("tables: {}", file.display());
        }
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
    println!("{entries} entries in {:.0} s", begin.elapsed().as_secs_f64());
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
