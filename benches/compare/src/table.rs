//! The figures for people.

use crate::Measured;
use crate::figures::{Case, Entry, Role};

/// Width of the column of names.
const NAME: usize = 44;

/// Prints a case as a table: the median of the first metric, the quartiles of how many times as
/// fast the reference is, then the medians of the other metrics.
pub(crate) fn print(group: &str, case: &Case) {
    let metric = case.metrics[0];
    let better = if metric.more_is_better { "more is better" } else { "less is better" };
    println!("\n{group}: {} -- {}, {} ({better})", case.name, metric.name, metric.unit);
    let Some(reference) = case.reference() else { return };
    println!("{:NAME$} {:>9}   {} is so many times as fast", "", "", reference.name);
    print!("{:NAME$} {:>9} {:>8} {:>8} {:>8}", "", "median", "25 %", "50 %", "75 %");
    for metric in &case.metrics[1..] {
        print!(" {:>14}", format!("{} {}", metric.name, metric.unit));
    }
    println!();
    for entry in &case.entries {
        print_entry(case, reference, entry);
    }
}

fn print_entry(case: &Case, reference: &Entry, entry: &Entry) {
    let sign = match entry.role {
        Role::Ours => '*',
        Role::Limit => '=',
        Role::Peer => ' ',
    };
    print!("{:NAME$}", format!("{sign} {}", entry.name));
    let Some(own) = entry.quartiles(0) else {
        println!(" {}", entry.reason());
        return;
    };
    print!(" {:>9}", number(own.median));
    match case.times_as_fast(reference, entry) {
        Some(ratio) => {
            <[f64; 3]>::from(ratio).iter().for_each(|&value| print!(" {:>8}", number(value)));
        }
        None => print!(" {:>8} {:>8} {:>8}", "-", "-", "-"),
    }
    for metric in 1..case.metrics.len() {
        let median = entry.quartiles(metric).map_or(f64::NAN, |own| own.median);
        print!(" {:>14}", number(median));
    }
    match entry.missing() {
        0 => println!(),
        missing => println!("  {missing} of {} slices gave nothing", entry.rounds.len()),
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
    println!("\n* ours, = limit of the machine");
    let mut missing: Vec<(&str, String)> = Vec::new();
    for entry in measured.iter().flat_map(|group| &group.cases).flat_map(|case| &case.entries) {
        if !entry.reasons.is_empty() {
            let line = (entry.name.as_str(), entry.reason());
            if !missing.contains(&line) {
                missing.push(line);
            }
        }
    }
    for (name, reason) in missing {
        println!("{name}: {reason}");
    }
}
