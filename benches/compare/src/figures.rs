//! What is measured: groups of cases, cases of entries, and the statistics over repetitions.
//!
//! All entries of a case take turns, so that whatever else the machine does meets all of them. A
//! ratio is the median of the ratios within each repetition, and so not always that of the two
//! medians.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// What one run of an entry gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// One value for each metric of the case.
    pub(crate) values: Vec<f64>,
    /// Nanoseconds and how often they were seen, where single operations were timed.
    pub(crate) latencies: Vec<(u64, u64)>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Sample {
        Sample { values: vec![value], latencies: Vec::new() }
    }
}

/// What a value means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
}

impl Metric {
    pub(crate) const fn cost(name: &'static str, unit: &'static str) -> Metric {
        Metric { name, unit, more_is_better: false }
    }

    pub(crate) const fn speed(name: &'static str, unit: &'static str) -> Metric {
        Metric { name, unit, more_is_better: true }
    }
}

/// What an entry is to its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Offspring. The first such entry is what the others are compared with.
    Ours,
    /// What the machine needs for the bare thing. The first such entry is the limit of the case.
    Limit,
    Peer,
}

type Run = Box<dyn Fn(Duration) -> Result<Sample, Failure>>;

/// One line of the table.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) role: Role,
    run: Run,
    pub(crate) samples: Vec<Sample>,
    /// Why there are no samples.
    pub(crate) failure: Option<String>,
}

/// Where a case is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plot {
    None,
    /// How the latencies are distributed, in a chart of the case's own.
    Latencies,
    /// One point of each line in the chart with this title.
    Over {
        chart: &'static Chart,
        x: f64,
    },
}

/// A chart to which several cases contribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chart {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Which value of a sample is drawn.
    pub(crate) metric: usize,
}

/// Entries that are compared with each other.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) plot: Plot,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, metrics: &[Metric]) -> Case {
        Case { name: name.into(), metrics: metrics.to_vec(), entries: Vec::new(), plot: Plot::None }
    }

    pub(crate) fn plot(mut self, plot: Plot) -> Case {
        self.plot = plot;
        self
    }

    pub(crate) fn add(
        &mut self,
        role: Role,
        name: impl Into<String>,
        run: impl Fn(Duration) -> Result<Sample, Failure> + 'static,
    ) {
        self.entries.push(Entry {
            name: name.into(),
            role,
            run: Box::new(run),
            samples: Vec::new(),
            failure: None,
        });
    }

    pub(crate) fn ours(
        &mut self,
        name: impl Into<String>,
        run: impl Fn(Duration) -> Result<Sample, Failure> + 'static,
    ) {
        self.add(Role::Ours, name, run);
    }

    pub(crate) fn limit(
        &mut self,
        name: impl Into<String>,
        run: impl Fn(Duration) -> Result<Sample, Failure> + 'static,
    ) {
        self.add(Role::Limit, name, run);
    }

    pub(crate) fn peer(
        &mut self,
        name: impl Into<String>,
        run: impl Fn(Duration) -> Result<Sample, Failure> + 'static,
    ) {
        self.add(Role::Peer, name, run);
    }

    /// Names a peer that this machine cannot run.
    pub(crate) fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.peer(name, |_| Err("skipped".into()));
        if let Some(entry) = self.entries.last_mut() {
            entry.failure = Some(format!("skipped: {}", reason.into()));
        }
    }

    /// Measures all entries `repetitions` times in turn. An entry that fails is left out from then
    /// on.
    pub(crate) fn measure(
        &mut self,
        limit: Duration,
        repetitions: usize,
        mut progress: impl FnMut(&str, &str),
    ) {
        for repetition in 0..repetitions {
            // The order turns with each repetition, so that nobody always runs after the same
            // other.
            let count = self.entries.len();
            for place in 0..count {
                let entry = &mut self.entries[(place + repetition) % count];
                progress(&self.name, &entry.name);
                if entry.failure.is_some() {
                    continue;
                }
                match entry.run_once(limit, self.metrics.len()) {
                    Ok(sample) => entry.samples.push(sample),
                    Err(error) => entry.failure = Some(format!("failed: {error}")),
                }
            }
        }
    }

    /// The entry that all are compared with.
    pub(crate) fn reference(&self, role: Role) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == role)
    }
}

/// On a machine that is busy with something else, actors may not get a single turn in their time.
const ATTEMPTS: usize = 3;

impl Entry {
    /// One repetition, once more if nothing could be measured.
    fn run_once(&self, limit: Duration, metrics: usize) -> Result<Sample, Failure> {
        for _ in 0..ATTEMPTS {
            let sample = (self.run)(limit)?;
            let is_measured = sample.values.iter().all(|value| value.is_finite() && *value > 0.0);
            if is_measured && sample.values.len() == metrics {
                return Ok(sample);
            }
        }
        Err("nothing could be measured".into())
    }

    /// Median, least and most of a metric over the repetitions.
    pub(crate) fn spread(&self, metric: usize) -> Option<[f64; 3]> {
        if self.failure.is_some() || self.samples.is_empty() {
            return None;
        }
        let values: Vec<f64> = self.samples.iter().map(|sample| sample.values[metric]).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some([median(values), least, most])
    }

    /// The median over the repetitions of the first metric's ratio to that of `other`.
    pub(crate) fn ratio(&self, other: &Entry) -> Option<f64> {
        if self.failure.is_some() || other.failure.is_some() || self.samples.is_empty() {
            return None;
        }
        let pairs = self.samples.iter().zip(&other.samples);
        Some(median(pairs.map(|(mine, others)| mine.values[0] / others.values[0]).collect()))
    }

    /// All latencies of all repetitions, by size.
    pub(crate) fn latencies(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> =
            self.samples.iter().flat_map(|sample| sample.latencies.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// The mean of the middle half. Disturbed blocks do not count, as in a median; but where something
/// is now in one state and now in another, as rings are that run full or empty, a median would be
/// that of either by chance.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let half = &values[quarter..values.len() - quarter];
    half.iter().sum::<f64>() / half.len() as f64
}
