//! The figures for people.

use crate::Measured;
use crate::figures::{Case, Entry, Role};

/// Width of the column of names.
const NAME: usize = 44;

/// Prints a case as a table: the first metric with its spread and ratios, then the medians of the
/// others.
pub(crate) fn print(group: &str, case: &Case) {
    let metric = case.metrics[0];
    let better = if metric.more_is_better { "more is better" } else { "less is better" };
    println!("\n{group}: {} -- {}, {} ({better})", case.name, metric.name, metric.unit);
    print!(
        "{:NAME$} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "", "median", "min", "max", "to ours", "to limit"
    );
    for metric in &case.metrics[1..] {
        print!(" {:>14}", format!("{} {}", metric.name, metric.unit));
    }
    println!();
    let (ours, limit) = (case.reference(Role::Ours), case.reference(Role::Limit));
    for entry in &case.entries {
        let Some(spread) = entry.spread(0) else {
            println!(
                "{:NAME$} {}",
                name(entry),
                entry.failure.as_deref().unwrap_or("not measured")
            );
            continue;
        };
        print!("{:NAME$}", name(entry));
        spread.iter().for_each(|&value| print!(" {:>9}", number(value)));
        for reference in [ours, limit] {
            match reference.and_then(|reference| entry.ratio(reference)) {
                Some(ratio) => print!(" {:>8}", number(ratio)),
                None => print!(" {:>8}", "-"),
            }
        }
        for metric in 1..case.metrics.len() {
            let median = entry.spread(metric).map_or(f64::NAN, |spread| spread[0]);
            print!(" {:>14}", number(median));
        }
        println!();
    }
}

fn name(entry: &Entry) -> String {
    match entry.role {
        Role::Ours => format!("* {}", entry.name),
        Role::Limit => format!("= {}", entry.name),
        Role::Peer => format!("  {}", entry.name),
    }
}

/// Four significant digits, and no more than nine characters.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

/// Prints what the signs mean, and what was skipped and what failed, each with its reason once.
pub(crate) fn print_end(measured: &[Measured]) {
    println!(
        "\n* ours, = limit of the machine; a ratio is the figure divided by that of the first of these"
    );
    let mut missing: Vec<(&str, &str)> = Vec::new();
    for entry in measured.iter().flat_map(|group| &group.cases).flat_map(|case| &case.entries) {
        if let Some(failure) = entry.failure.as_deref() {
            let line = (entry.name.as_str(), failure);
            if !missing.contains(&line) {
                missing.push(line);
            }
        }
    }
    for (name, failure) in missing {
        println!("{name}: {failure}");
    }
}
