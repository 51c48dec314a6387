//! What is measured: cases of entries, and what each gave in every round.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::statistics::{Quartiles, paired};
use crate::troupe::Run;

/// What one slice of an entry gives.
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
    /// How many times as fast one figure is as another.
    pub(crate) fn times_as_fast(self, ratio: f64) -> f64 {
        if self.more_is_better { ratio } else { 1.0 / ratio }
    }

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
    /// What the machine needs for the bare thing.
    Limit,
    Peer,
}

/// Sets an entry up, ready to be measured slice by slice.
pub(crate) type SetUp = Box<dyn Fn() -> Result<Run<Sample>, Failure>>;

/// One line of the table.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// `None` if this machine cannot run it.
    pub(crate) set_up: Option<SetUp>,
    /// What each round gave.
    pub(crate) rounds: Vec<Option<Sample>>,
    /// Why rounds have given nothing, each reason once.
    pub(crate) reasons: Vec<String>,
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

/// When entries are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Once, before the first round. Between its slices an entry is asleep.
    Case,
    /// For each slice anew, as it would disturb the others if it were there.
    Slice,
}

/// Entries that are compared with each other.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) plot: Plot,
    pub(crate) lifetime: Lifetime,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, metrics: &[Metric]) -> Case {
        Case {
            name: name.into(),
            metrics: metrics.to_vec(),
            entries: Vec::new(),
            plot: Plot::None,
            lifetime: Lifetime::Case,
        }
    }

    pub(crate) fn plot(mut self, plot: Plot) -> Case {
        self.plot = plot;
        self
    }

    /// Has its entries set up for each slice anew.
    pub(crate) fn anew(mut self) -> Case {
        self.lifetime = Lifetime::Slice;
        self
    }

    pub(crate) fn add(
        &mut self,
        role: Role,
        name: impl Into<String>,
        set_up: impl Fn() -> Result<Run<Sample>, Failure> + 'static,
    ) {
        self.entries.push(Entry {
            name: name.into(),
            role,
            set_up: Some(Box::new(set_up)),
            rounds: Vec::new(),
            reasons: Vec::new(),
        });
    }

    pub(crate) fn ours(
        &mut self,
        name: impl Into<String>,
        set_up: impl Fn() -> Result<Run<Sample>, Failure> + 'static,
    ) {
        self.add(Role::Ours, name, set_up);
    }

    pub(crate) fn limit(
        &mut self,
        name: impl Into<String>,
        set_up: impl Fn() -> Result<Run<Sample>, Failure> + 'static,
    ) {
        self.add(Role::Limit, name, set_up);
    }

    pub(crate) fn peer(
        &mut self,
        name: impl Into<String>,
        set_up: impl Fn() -> Result<Run<Sample>, Failure> + 'static,
    ) {
        self.add(Role::Peer, name, set_up);
    }

    /// Names a peer that this machine cannot run.
    pub(crate) fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.entries.push(Entry {
            name: name.into(),
            role: Role::Peer,
            set_up: None,
            rounds: Vec::new(),
            reasons: vec![format!("skipped: {}", reason.into())],
        });
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry that all are compared with: the first of ours, or else the first.
    pub(crate) fn reference(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == Role::Ours).or(self.entries.first())
    }

    /// How many times as fast `one` is as `other`, round by round.
    pub(crate) fn times_as_fast(&self, one: &Entry, other: &Entry) -> Option<Quartiles> {
        let ratios = paired(one.figures(0), other.figures(0));
        Quartiles::of(ratios.map(|ratio| self.metrics[0].times_as_fast(ratio)))
    }
}

impl Entry {
    /// What the rounds gave for a metric.
    pub(crate) fn figures(&self, metric: usize) -> impl Iterator<Item = Option<f64>> {
        self.rounds.iter().map(move |sample| Some(sample.as_ref()?.values[metric]))
    }

    pub(crate) fn quartiles(&self, metric: usize) -> Option<Quartiles> {
        Quartiles::of(self.figures(metric).flatten())
    }

    /// Why rounds have given nothing, or all of them.
    pub(crate) fn reason(&self) -> String {
        match self.reasons.is_empty() {
            true => "not measured".to_owned(),
            false => self.reasons.join("; "),
        }
    }

    /// The rounds that gave nothing.
    pub(crate) fn missing(&self) -> usize {
        self.rounds.iter().filter(|sample| sample.is_none()).count()
    }

    /// All latencies of all rounds, by size.
    pub(crate) fn latencies(&self) -> Vec<(u64, u64)> {
        let samples = self.rounds.iter().flatten();
        let mut all: Vec<(u64, u64)> =
            samples.flat_map(|sample| sample.latencies.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

/// As `run`, with its figure made a sample.
pub(crate) fn sampled(
    run: Result<Run<f64>, Failure>,
    sample: impl Fn(f64) -> Sample + 'static,
) -> Result<Run<Sample>, Failure> {
    let mut run = run?;
    Ok(Box::new(move |length: Duration| Ok(sample(run(length)?))))
}
