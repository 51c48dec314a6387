//! A model checker with kills: the crate's own source files, every access to shared memory a step,
//! every process killed at every step.
//!
//! ```text
//! cargo test --release --test crash_model -- --nocapture
//! ```
//! prints for each configuration of each object how many states it has, how many transitions, how
//! many of these are kills, and in how many states a sleeper whose waker was killed is helped only
//! by the end of its slice. A violation comes with a shortest schedule that leads to it. To go
//! through a schedule again step by step:
//! ```text
//! CRASH_MODEL_REPLAY='0 0 1 1! 0' cargo test --release --test crash_model -- \
//!     --exact 'lock: block of 2, [1, 1], 2 die'
//! ```
//! Without optimization the large configurations are left out.
//!
//! The crate's files are compiled a second time here, over atomics, a kernel and a segment that
//! belong to the model ([`world`]). All accesses are in one order: weaker ones are checked with
//! loom, beside the code. How states are explored, and what is checked in each, says [`engine`];
//! what the objects are expected to do say the [`models`].

#![allow(dead_code, reason = "the included files have more in them than the models use")]
#![allow(clippy::unit_arg, reason = "a segment of the model has no file descriptor")]
#![allow(clippy::arc_with_non_send_sync, reason = "an object of the model belongs to one thread")]

mod engine;
mod models;
mod world;

#[allow(
    unused_imports,
    reason = "the files' unit tests are compiled here, but not the functions marked as tests"
)]
mod object;
mod primitive;
#[allow(
    unused_imports,
    reason = "the files' unit tests are compiled here, but not the functions marked as tests"
)]
mod segment;
#[allow(
    unused_imports,
    reason = "the files' unit tests are compiled here, but not the functions marked as tests"
)]
mod sys;

/// The crate's own files.
#[allow(
    unused_imports,
    reason = "the files' unit tests are compiled here, but not the functions marked as tests"
)]
#[path = "../../src"]
mod source {
    pub(crate) mod claim;
    pub(crate) mod event;
    pub(crate) mod heap;
    pub(crate) mod lock;
    pub(crate) mod peer;
    pub(crate) mod queue;
    pub(crate) mod ring;
    pub(crate) mod spsc;
    pub(crate) mod sync;
    pub(crate) mod value;
}

// Under the names by which they know each other.
use source::{claim, event, heap, lock, peer, queue, ring, spsc, sync, value};

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use engine::{Model, Report};

/// Lines of a schedule that are printed; what does not fit is seldom read.
const MOST_LINES: usize = 300;

/// One line of the table.
struct Row {
    number: usize,
    name: String,
    report: Report,
    time: Duration,
    /// Of a control: what was to be found.
    expected: Option<&'static str>,
}

type Rows = Arc<Mutex<Vec<Row>>>;

/// Models are made in the thread that explores them, as they are not `Send`.
type Make = fn() -> Vec<(Model, Option<&'static str>)>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let rows = Rows::default();
    let mut trials = Vec::new();
    for make in MODELS {
        for (index, (model, expected)) in make().into_iter().enumerate() {
            let (name, number, rows) = (name(&model), trials.len(), Arc::clone(&rows));
            trials.push(Trial::test(name.clone(), move || {
                let (model, _) = make().swap_remove(index);
                if let Ok(schedule) = std::env::var("CRASH_MODEL_REPLAY") {
                    println!("{name}\n{}", engine::replay(&model, &schedule));
                    return Ok(());
                }
                let start = Instant::now();
                let report = engine::explore(&model);
                let verdict = judge(&report, expected, &name);
                let row = Row { number, name, report, time: start.elapsed(), expected };
                rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                verdict
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|row| row.number);
    print!("{}", table(&rows));
    conclusion.exit_code()
}

fn name(model: &Model) -> String {
    format!("{}: {}", model.object, model.configuration)
}

/// The large configurations are for builds that are fast.
const ALL: bool = !cfg!(debug_assertions);

/// All models, by object.
const MODELS: &[Make] = &[
    || clean(models::spsc::models(ALL)),
    || clean(models::lock::models(ALL)),
    || clean(models::value::models(ALL)),
    || clean(models::event::models(ALL)),
    || clean(models::queue::models(ALL)),
    || clean(models::extents::models(ALL)),
    || clean(models::heap::models(ALL)),
    || clean(models::parcel::models(ALL)),
    || clean(models::boxes::models(ALL)),
    || clean(models::flight::models(ALL)),
    || clean(models::ends::models(ALL)),
    || clean(models::result::models(ALL)),
    || clean(models::arguments::models(ALL)),
    || clean(models::peers::models(ALL)),
    || clean(models::found::models()),
    models::controls::models,
];

fn clean(models: Vec<Model>) -> Vec<(Model, Option<&'static str>)> {
    models.into_iter().map(|model| (model, None)).collect()
}

fn judge(report: &Report, expected: Option<&'static str>, name: &str) -> Result<(), Failed> {
    match (&report.violation, expected) {
        (None, None) => Ok(()),
        (Some(violation), Some(expected)) if violation.message.contains(expected) => Ok(()),
        (None, Some(expected)) => {
            Err(format!("the checker did not find that it is broken: {expected}").into())
        }
        (Some(violation), _) => {
            let story: Vec<&str> = violation.story.lines().take(MOST_LINES).collect();
            Err(format!(
                "{}\nCRASH_MODEL_REPLAY='{}' cargo test --release --test crash_model -- --exact '{name}'\n{}",
                violation.message,
                violation.schedule,
                story.join("\n")
            )
            .into())
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let widest = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut put = |name: &str, cells: [&str; 5], verdict: &str| {
        let [states, transitions, deaths, rescues, time] = cells;
        let _ = writeln!(
            text,
            "{name:<widest$} {states:>10} {transitions:>11} {deaths:>10} {rescues:>8} {time:>8}  {verdict}"
        );
    };
    put(
        "object: configuration",
        ["states", "transitions", "deaths", "rescues", "seconds"],
        "violations",
    );
    let (mut states, mut transitions, mut deaths, mut rescues, mut violations) = (0, 0, 0, 0, 0);
    let mut time = Duration::ZERO;
    for Row { name, report, time: spent, expected, .. } in rows {
        let verdict = match (&report.violation, expected) {
            (None, None) => "0".into(),
            (Some(violation), Some(_)) => format!("found: {}", violation.message),
            (Some(violation), None) => format!("1: {}", violation.message),
            (None, Some(expected)) => format!("not found: {expected}"),
        };
        let unexpected = report.violation.is_some() != expected.is_some();
        let numbers = [report.states, report.transitions, report.deaths, report.rescues]
            .map(|number| number.to_string());
        let seconds = format!("{:.2}", spent.as_secs_f64());
        let [a, b, c, d] = &numbers;
        put(name, [a, b, c, d, &seconds], &verdict);
        states += report.states;
        transitions += report.transitions;
        deaths += report.deaths;
        rescues += report.rescues;
        violations += usize::from(unexpected);
        time += *spent;
    }
    let numbers = [states, transitions, deaths, rescues].map(|number| number.to_string());
    let [a, b, c, d] = &numbers;
    put("total", [a, b, c, d, &format!("{:.2}", time.as_secs_f64())], &violations.to_string());
    text
}
