//! The figures for other programs: an array with one object for each entry and metric, one in a
//! line.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::{Failure, Measured};

#[derive(Serialize)]
struct Figure<'a> {
    group: &'a str,
    case: &'a str,
    name: &'a str,
    metric: &'a str,
    unit: &'a str,
    /// What each round gave: figures with the same index are of the same round.
    rounds: Vec<Option<f64>>,
    /// Quartiles of these.
    quartiles: Option<[f64; 3]>,
    /// How many times as fast `reference` is, by the first metric: quartiles of the ratios of each
    /// round.
    reference: &'a str,
    reference_times_as_fast: Option<[f64; 3]>,
    /// Why rounds gave nothing.
    reasons: &'a [String],
}

/// Writes all figures into `file`.
pub(crate) fn write(file: &Path, measured: &[Measured]) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for group in measured {
        for case in &group.cases {
            let Some(reference) = case.reference() else { continue };
            for entry in &case.entries {
                for (index, metric) in case.metrics.iter().enumerate() {
                    let ratio = case.times_as_fast(reference, entry).filter(|_| index == 0);
                    lines.push(serde_json::to_string(&Figure {
                        group: group.name,
                        case: &case.name,
                        name: &entry.name,
                        metric: metric.name,
                        unit: metric.unit,
                        rounds: entry.figures(index).collect(),
                        quartiles: entry.quartiles(index).map(<[f64; 3]>::from),
                        reference: &reference.name,
                        reference_times_as_fast: ratio.map(<[f64; 3]>::from),
                        reasons: &entry.reasons,
                    })?);
                }
            }
        }
    }
    fs::write(file, format!("[\n{}\n]\n", lines.join(",\n")))
        .map_err(|error| format!("{}: {error}", file.display()).into())
}
