//! The table: repainted while it runs, and printed at the end.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::account::{Account, Figures};
use crate::arena::Object;
use crate::ledger::Sample;
use crate::post;

const EVERY: Duration = Duration::from_millis(200);
const EVERY_LINE: Duration = Duration::from_secs(5);

/// Where the figures are shown while it runs.
#[derive(Debug)]
pub struct Screen {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Screen {
    pub fn new() -> Screen {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{msg}").expect("a template without arguments"),
            );
            bar
        });
        Screen { bar, last: Instant::now() }
    }

    /// Whether it is time to show something again.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= if self.bar.is_some() { EVERY } else { EVERY_LINE }
    }

    pub fn show(&mut self, headline: &str, account: &Account) {
        self.last = Instant::now();
        match &self.bar {
            Some(bar) => bar.set_message(format!("{headline}\n{}", table(account))),
            None => eprintln!("{headline}, {}", summary(account)),
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn sum(account: &Account) -> Figures {
    let mut sum = Figures::default();
    account.iter().for_each(|figures| sum += *figures);
    sum
}

fn summary(account: &Account) -> String {
    let sum = sum(account);
    format!(
        "{} operations, {} kills, {} stops, {} limits, {} hung, {} faults",
        sum.operations,
        sum.kills,
        sum.stops,
        sum.limits,
        sum.hung,
        sum.faults()
    )
}

/// One line for each object, and their sum. The columns from "missing" on must be 0.
pub fn table(account: &Account) -> String {
    let mut text = format!(
        "{:<17} {:>11} {:>6} {:>6} {:>6} | {:>10} {:>5} {:>11} | {:>7} {:>4} {:>5} {:>8} {:>4} {:>6}\n",
        "object",
        "operations",
        "kills",
        "stops",
        "limits",
        "owner died",
        "lost",
        "redelivered",
        "missing",
        "torn",
        "twice",
        "disorder",
        "hung",
        "failed"
    );
    let rows = Object::ALL.into_iter().map(|object| (object.name(), account[object as usize]));
    for (name, f) in rows.chain([("sum", sum(account))]) {
        let _ = writeln!(
            text,
            "{name:<17} {:>11} {:>6} {:>6} {:>6} | {:>10} {:>5} {:>11} | {:>7} {:>4} {:>5} {:>8} {:>4} {:>6}",
            f.operations,
            f.kills,
            f.stops,
            f.limits,
            f.owner_died,
            f.lost,
            f.redelivered,
            f.missing,
            f.torn,
            f.twice,
            f.disorder,
            f.hung,
            f.failed
        );
    }
    text
}

/// The times from a kill until somebody who was blocked went on; and, to compare, by how much the
/// supervisor overslept, which is never blocked and waits for nothing but a processor.
///
/// Such a time also has in it what the survivor waited for rightly: the replacement of the dead, or
/// a living process that had its turn.
pub fn times(mut samples: Vec<Sample>, mut overslept: Vec<Duration>) -> String {
    samples.sort_unstable_by_key(|sample| sample.nanoseconds);
    overslept.sort_unstable();
    let mut text = String::new();
    if let Some(worst) = samples.last() {
        let at =
            |per_cent: usize| millis(samples[(samples.len() - 1) * per_cent / 100].nanoseconds);
        let (median, p90, p99, count) = (at(50), at(90), at(99), samples.len());
        let most = millis(worst.nanoseconds);
        let (object, operation) = (worst.object.name(), post::name(worst.operation));
        let _ = writeln!(
            text,
            "from a kill until a blocked survivor went on: median {median:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {most:.2} ms \
             ({operation} at {object}); {count} times"
        );
    }
    if let Some(most) = overslept.last() {
        let at = |per_cent: usize| {
            millis(overslept[(overslept.len() - 1) * per_cent / 100].as_nanos() as u64)
        };
        let (median, p90, p99) = (at(50), at(90), at(99));
        let most = millis(most.as_nanos() as u64);
        let _ = writeln!(
            text,
            "meanwhile the supervisor got a processor late by: median {median:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {most:.2} ms"
        );
    }
    text
}

fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
