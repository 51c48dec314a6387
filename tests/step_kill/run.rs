//! Runs the configurations, each in a process of its own, several at a time, and prints the table.

use std::collections::BTreeMap;
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::processes::{DYING, adopt_orphans, bury_all};
use crate::common::trace::{alarm, raw_fork};
use crate::stage::Tally;

/// Seconds after which a configuration is taken for hanging.
const HANGING: u32 = 600;

/// One configuration.
pub struct Plan {
    object: &'static str,
    operation: &'static str,
    name: String,
    run: Box<dyn Fn(&mut Tally)>,
}

impl Plan {
    pub fn new(
        object: &'static str,
        operation: &'static str,
        name: String,
        run: impl Fn(&mut Tally) + 'static,
    ) -> Plan {
        Plan { object, operation, name, run: Box::new(run) }
    }
}

/// Where a victim of its own is killed: at each instruction, or, in code that was not optimised, at
/// some and at all that matter.
pub fn at_every_instruction(point: u64, length: u64, changed: bool) -> bool {
    !cfg!(debug_assertions) || changed || point == length || point.is_multiple_of(97)
}

fn stage(plan: &Plan, mut results: impl Write) {
    alarm(HANGING);
    let mut tally = Tally::default();
    (plan.run)(&mut tally);
    // What visits nothing finds nothing.
    if tally.failures.is_empty() && (tally.points <= 1 || tally.states == 0) {
        tally.fail(format!("visited {} kill points and {} states", tally.points, tally.states));
    }
    let Tally { points, states, kills, sampled: [sampled, left], .. } = tally;
    let mut text = format!("{points} {states} {kills} {sampled} {left}");
    for failure in tally.failures {
        text.push('\0');
        text.push_str(&failure);
    }
    results.write_all(text.as_bytes()).expect("somebody listens");
}

fn read_tally(plan: &Plan, mut results: PipeReader, status: WaitStatus) -> Tally {
    let text = read_what_is_there(&mut results);
    let mut parts = text.split('\0');
    let numbers: Vec<u64> = parts
        .next()
        .unwrap_or("")
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let mut tally = match numbers[..] {
        [points, states, kills, sampled, left] => {
            let failures = parts.map(str::to_owned).collect();
            Tally { points, states, kills, sampled: [sampled, left], failures }
        }
        _ => Tally {
            failures: vec![format!("its results cannot be read: {text:?}")],
            ..Tally::default()
        },
    };
    match status {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Signaled(_, Signal::SIGALRM, _) => tally.failures.push("hung".to_owned()),
        other => tally.failures.push(format!("{other:?}")),
    }
    tally.failures.iter_mut().for_each(|failure| {
        *failure = format!("{}, {}, {}: {failure}", plan.object, plan.operation, plan.name)
    });
    tally
}

/// What a process that has ended left in a pipe. Others may have inherited its end and live on, so
/// there need be no end of file.
fn read_what_is_there(pipe: &mut PipeReader) -> String {
    rustix::io::ioctl_fionbio(&*pipe, true).expect("ioctl");
    let mut bytes = Vec::new();
    match pipe.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => {
            panic!("a pipe cannot be read: {error}")
        }
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Runs them all; the table goes to standard output.
pub fn run(plans: Vec<Plan>) -> ExitCode {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |plan: &Plan| {
        wanted
            .iter()
            .all(|word| format!("{} {} {}", plan.object, plan.operation, plan.name).contains(word))
    };
    let plans: Vec<Plan> = plans.into_iter().filter(|plan| wants(plan)).collect();
    if plans.is_empty() {
        println!("FAILURE nothing is called so: {wanted:?}");
        return ExitCode::FAILURE;
    }
    adopt_orphans();
    let start = Instant::now();
    // Half of the time survivors sleep until they may look whether somebody died.
    let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut running: BTreeMap<Pid, (usize, PipeReader)> = BTreeMap::new();
    let mut tallies: Vec<Option<Tally>> = plans.iter().map(|_| None).collect();
    let mut waiting = plans.iter().enumerate();
    loop {
        while running.len() < at_once
            && let Some((index, plan)) = waiting.next()
        {
            let (results, theirs) = std::io::pipe().expect("a pipe");
            running.insert(raw_fork(|| stage(plan, theirs)), (index, results));
        }
        if running.is_empty() {
            break;
        }
        let status = waitpid(None, None).expect("a child");
        if let Some(pid) = status.pid()
            && let Some((index, results)) = running.remove(&pid)
        {
            tallies[index] = Some(read_tally(&plans[index], results, status));
        }
    }
    let mut tallies: Vec<Tally> =
        tallies.into_iter().map(|tally| tally.expect("each has run")).collect();
    let survivors = bury_all(DYING);
    if !survivors.is_empty() {
        tallies[0].failures.push(format!("some plan has left processes: {survivors:?}"));
    }
    table(&plans, tallies, start)
}

fn table(plans: &[Plan], tallies: Vec<Tally>, start: Instant) -> ExitCode {
    let mut rows: Vec<((&str, &str), u64, Tally)> = Vec::new();
    let mut total = Tally::default();
    for (plan, tally) in plans.iter().zip(tallies) {
        total.add(tally.clone());
        let key = (plan.object, plan.operation);
        match rows.iter_mut().find(|(row, ..)| *row == key) {
            Some((_, count, sum)) => {
                *count += 1;
                sum.add(tally);
            }
            None => rows.push((key, 1, tally)),
        }
    }
    rows.sort_by_key(|(key, ..)| plans.iter().position(|plan| plan.object == key.0));
    let line = |object: &str, operation: &str, count: u64, tally: &Tally| {
        let Tally { points, states, kills, failures, .. } = tally;
        println!(
            "{object:<24} {operation:<34} {count:>6} {points:>9} {states:>8} {kills:>6} {:>8}",
            failures.len()
        );
    };
    println!(
        "{:<24} {:<34} {:>6} {:>9} {:>8} {:>6} {:>8}",
        "object", "operation", "starts", "points", "states", "kills", "failures"
    );
    for ((object, operation), count, tally) in &rows {
        line(object, operation, *count, tally);
    }
    line("total", "", plans.len() as u64, &total);
    println!(
        "points: instructions after which a victim may be killed, each visited; states: distinct contents of the segment that"
    );
    println!(
        "survivors recovered from; kills: victims killed by the kernel in the middle. A system call is one step."
    );
    let [sampled, left] = total.sampled;
    if left > 0 {
        println!(
            "two and three victims: the next one began from {sampled} of the {left} states that those before it had left."
        );
    }
    println!("{:.1} s", start.elapsed().as_secs_f64());
    for failure in total.failures.iter().take(50) {
        println!("FAILURE {failure}");
    }
    if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
