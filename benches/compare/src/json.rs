//! The figures for other programs: an array of one object for each.

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
    median: f64,
    min: f64,
    max: f64,
}

/// Writes all figures into `file`.
pub(crate) fn write(file: &Path, measured: &[Measured]) -> Result<(), Failure> {
    let mut figures = Vec::new();
    for group in measured {
        for case in &group.cases {
            for entry in &case.entries {
                for (index, metric) in case.metrics.iter().enumerate() {
                    let Some([median, min, max]) = entry.spread(index) else { continue };
                    let (group, case, name) = (group.name, case.name.as_str(), entry.name.as_str());
                    figures.push(Figure {
                        group,
                        case,
                        name,
                        metric: metric.name,
                        unit: metric.unit,
                        median,
                        min,
                        max,
                    });
                }
            }
        }
    }
    fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")
        .map_err(|error| format!("{}: {error}", file.display()).into())
}
