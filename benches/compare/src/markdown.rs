//! The figures for the README and `docs/performance.md`, which take them as they are.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::figures::{Case, Entry, Metric};
use crate::goals::{self, Goal};
use crate::statistics::Quartiles;
use crate::{Failure, Measured};

/// Writes `goals.md`, the pairs of [`goals::ALL`], and `cases.md`, everything that was measured.
/// Both begin with `heading`.
pub(crate) fn write(
    directory: &Path,
    heading: &str,
    measured: &[Measured],
) -> Result<Vec<PathBuf>, Failure> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files = Vec::new();
    for (name, text) in [("goals.md", all_goals(measured)), ("cases.md", all_cases(measured))] {
        let file = directory.join(name);
        fs::write(&file, format!("```text\n{heading}\n```\n\n{text}"))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        files.push(file);
    }
    Ok(files)
}

/// Won or lost, every pair has its row.
fn all_goals(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| | offspring | other | offspring is so many times as fast | goal | met |\n\
         |---|---|---|---|---|---|\n",
    );
    for goal in goals::ALL {
        if let Some((case, ours, other)) = goal.find(measured) {
            text += &goal_row(goal, case, ours, other);
        }
    }
    text
}

fn goal_row(goal: &Goal, case: &Case, ours: &Entry, other: &Entry) -> String {
    let ratio = case.times_as_fast(ours, other);
    let met = ratio.map_or("not measured", |ratio| verdict(ratio, goal.at_least));
    let metric = case.metrics[0];
    format!(
        "| {} | {} {} | {} {} | {} | {:.2} | {met} |\n",
        case.name,
        goal.ours,
        figure(ours, metric),
        goal.other,
        figure(other, metric),
        spread(ratio),
        goal.at_least,
    )
}

/// A goal is met if three quarters of the ratios meet it.
fn verdict(ratio: Quartiles, at_least: f64) -> &'static str {
    if ratio.low >= at_least {
        "yes"
    } else if ratio.median >= at_least {
        "by the median"
    } else {
        "**no**"
    }
}

fn all_cases(measured: &[Measured]) -> String {
    let mut text = String::new();
    for group in measured {
        for case in &group.cases {
            let Some(reference) = case.reference() else { continue };
            let (metric, name) = (case.metrics[0], &reference.name);
            let _ = writeln!(text, "### {}: {}\n", group.name, case.name);
            let _ = writeln!(text, "| | {} | {name} is so many times as fast |", metric.name);
            text += "|---|---|---|\n";
            for entry in &case.entries {
                let ratio = spread(case.times_as_fast(reference, entry));
                let _ = writeln!(text, "| {} | {} | {ratio} |", entry.name, figure(entry, metric));
            }
            text.push('\n');
        }
    }
    text
}

/// The median of an entry's own figure, and what is missing of it.
fn figure(entry: &Entry, metric: Metric) -> String {
    let Some(own) = entry.quartiles(0) else {
        return format!("({})", entry.reason());
    };
    let mut text = format!("{} {}", short(own.median), metric.unit);
    if entry.missing() > 0 {
        let _ = write!(text, " ({} of {} slices missing)", entry.missing(), entry.rounds.len());
    }
    text
}

/// The median and, in brackets, the quartiles beside it.
fn spread(ratio: Option<Quartiles>) -> String {
    ratio.map_or_else(String::new, |Quartiles { low, median, high }| {
        format!("**{}** [{} to {}]", short(median), short(low), short(high))
    })
}

/// Three significant digits.
fn short(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Sample;

    fn measured(ours: &[Option<f64>], other: &[Option<f64>]) -> Vec<Measured> {
        let mut case = Case::new("8 B, 1 to 1", &[Metric::speed("messages", "M/s")]);
        for (name, rounds) in [("Queue", ours), ("pipe", other)] {
            case.ours(name, || Err("never run".into()));
            let entry = case.entries.last_mut().expect("just added");
            entry.rounds = rounds.iter().map(|round| round.map(Sample::from)).collect();
        }
        vec![Measured { name: "queue", cases: vec![case] }]
    }

    #[test]
    fn a_row_has_both_figures_the_spread_and_the_verdict() {
        let measured = measured(&[Some(30.0), Some(60.0), Some(90.0)], &[Some(20.0); 3]);
        let text = all_goals(&measured);
        let row = "| 8 B, 1 to 1 | Queue 60.0 M/s | pipe 20.0 M/s \
                   | **3.00** [2.25 to 3.75] | 1.00 | yes |";
        assert_eq!(text.lines().last(), Some(row));
    }

    #[test]
    fn losing_and_missing_are_shown() {
        let measured = measured(&[Some(10.0), Some(10.0)], &[Some(20.0), None]);
        let text = all_goals(&measured);
        let row = "| 8 B, 1 to 1 | Queue 10.0 M/s | pipe 20.0 M/s (1 of 2 slices missing) \
                   | **0.500** [0.500 to 0.500] | 1.00 | **no** |";
        assert_eq!(text.lines().last(), Some(row));
        assert!(all_cases(&measured).contains("| pipe | 20.0 M/s (1 of 2 slices missing) |"));
    }

    #[test]
    fn a_goal_is_met_by_the_lower_quartile() {
        let ratio = |low, median| Quartiles { low, median, high: 9.0 };
        assert_eq!(verdict(ratio(1.0, 1.2), 1.0), "yes");
        assert_eq!(verdict(ratio(0.9, 1.2), 1.0), "by the median");
        assert_eq!(verdict(ratio(0.8, 0.9), 1.0), "**no**");
    }
}
