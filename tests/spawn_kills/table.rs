//! Plays everything, on several processors, and prints the table.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::wait::waitpid;

use crate::common::trace::raw_fork;
use crate::scenes::SCENES;
use crate::stage::{Job, Played, Stage};
use crate::tracer::{ALL, Place, Who};

pub fn main() -> ExitCode {
    let start = Instant::now();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let scenes: Vec<usize> = (0..SCENES.len())
        .filter(|&scene| wanted.iter().all(|word| SCENES[scene].name.contains(word)))
        .collect();
    let rehearsals: Vec<Job> = scenes.iter().map(|&scene| Job { scene, place: None }).collect();
    let rehearsed = play_all(&rehearsals);
    let mut failures = Vec::new();
    let mut jobs = Vec::new();
    let mut rows: BTreeMap<(usize, Who), Row> = BTreeMap::new();
    for (job, played) in rehearsals.iter().zip(&rehearsed) {
        let scene = &SCENES[job.scene];
        if !played.failure.is_empty() {
            failures.push(format!("{}, nobody killed: {}", scene.name, played.failure));
        }
        for who in ALL {
            let [stops, loading] = [played.stops, played.loading].map(|of| of[who as usize]);
            if (stops == 0) == scene.has(who) {
                failures.push(format!("{}: {stops} places for {who:?}", scene.name));
            }
            if stops > 0 {
                rows.entry((job.scene, who)).or_default().places = stops as u64;
            }
            let places = places(who, stops, loading);
            jobs.extend(places.map(|place| Job { scene: job.scene, place: Some(place) }));
        }
    }
    let played = play_all(&jobs);
    for (job, played) in jobs.iter().zip(played) {
        let place = job.place.expect("somebody is to be killed");
        rows.entry((job.scene, place.who)).or_default().add(&played);
        if !played.failure.is_empty() {
            failures.push(format!("{}, {place:?}: {}", SCENES[job.scene].name, played.failure));
        }
    }
    let mut total = Row::default();
    println!(
        "{:<40} {:<8} {:>7} {:>7} {:>7} {:>9} {:>8} {:>7} {:>8}",
        "scene", "killed", "places", "plays", "kills", "elsewhere", "outcome", "killed", "failures"
    );
    for ((scene, who), row) in &rows {
        row.print(SCENES[*scene].name, &format!("{who:?}"));
        total.add_row(row);
        if row.kills == 0 {
            failures.push(format!("{}: {who:?} was never killed", SCENES[*scene].name));
        }
    }
    total.print("total", "");
    println!(
        "places: beginnings and ends of system calls, of those of the linker and libc not all played; elsewhere: killed at another place than the one that was meant;"
    );
    println!("outcome: the parent got what the child gave; killed: it learnt that the child was.");
    println!("{:.1} s", start.elapsed().as_secs_f64());
    if rows.is_empty() {
        failures.push("nothing was played".to_owned());
    }
    for failure in failures.iter().take(30) {
        println!("FAILURE {failure}");
    }
    println!("{} failures", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Of the stops of the linker and of libc, before this crate has taken over, one in so many.
const ONE_IN: usize = 4;

/// Of all stops, without optimization, one in so many. Odd, so that it meets the beginnings of
/// system calls as well as their ends.
const ONE_IN_UNOPTIMIZED: usize = if cfg!(debug_assertions) { 3 } else { 1 };

/// Where a process is killed that has so many stops, of which so many are before this crate takes
/// over: at each, and some instructions behind it.
fn places(who: Who, stops: usize, loading: usize) -> impl Iterator<Item = Place> {
    (0..stops).step_by(ONE_IN_UNOPTIMIZED).flat_map(move |stop| {
        // Of each length about as many, from 1 to 4096.
        let random = (stop as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let most = 1 << (1 + random % 12);
        let steps = 1 + (random >> 8) as u32 % most;
        let (is_loading, is_one) = (stop < loading, stop.is_multiple_of(ONE_IN));
        let at = Place { who, stop, steps: 0 };
        let later = Place { who, stop, steps };
        let has_later = if cfg!(debug_assertions) { is_one } else { !is_loading };
        [(!is_loading || is_one).then_some(at), has_later.then_some(later)].into_iter().flatten()
    })
}

/// Plays all jobs. What comes is in their order.
fn play_all(jobs: &[Job]) -> Vec<Played> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (results, theirs) = std::io::pipe().expect("a pipe");
    let pids: Vec<_> = (0..workers)
        .map(|worker| {
            let mut theirs = theirs.try_clone().expect("dup");
            raw_fork(move || {
                let folder = tempfile::tempdir().expect("a folder");
                let stage = Stage::new(folder.path());
                for number in (worker..jobs.len()).step_by(workers) {
                    let line = unparse(number, &stage.play(jobs[number]));
                    // Short enough to be written as one.
                    theirs.write_all(line.as_bytes()).expect("somebody listens");
                }
                drop(stage);
                std::env::set_current_dir("/").expect("it is there");
                folder.close().expect("it is ours");
            })
        })
        .collect();
    drop(theirs);
    let lost = Played { failure: "its stage died".to_owned(), ..Played::default() };
    let mut all = vec![lost; jobs.len()];
    for line in BufReader::new(results).lines() {
        let (number, played) = parse(&line.expect("text")).expect("a line of ours");
        all[number] = played;
    }
    for pid in pids {
        waitpid(pid, None).expect("it is ours");
    }
    all
}

fn unparse(number: usize, played: &Played) -> String {
    let Played { stops, loading, killed, in_place, said, failure } = played;
    let numbers = |of: &[usize; 3]| of.map(|number| number.to_string()).join(" ");
    let short = |text: &str| text.replace(['\n', '\t'], " ").chars().take(700).collect::<String>();
    format!(
        "{number}\t{}\t{}\t{}\t{}\t{}\t{}\n",
        numbers(stops),
        numbers(loading),
        u8::from(*killed),
        u8::from(*in_place),
        short(said),
        short(failure)
    )
}

fn parse(line: &str) -> Option<(usize, Played)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [number, stops, loading, killed, in_place, said, failure] = fields[..] else {
        return None;
    };
    let numbers = |text: &str| {
        let numbers: Option<Vec<usize>> =
            text.split(' ').map(|number| number.parse().ok()).collect();
        <[usize; 3]>::try_from(numbers?).ok()
    };
    let (stops, loading) = (numbers(stops)?, numbers(loading)?);
    let (said, failure) = (said.to_owned(), failure.to_owned());
    let played =
        Played { stops, loading, killed: killed == "1", in_place: in_place == "1", said, failure };
    Some((number.parse().ok()?, played))
}

/// Sums of one process in one scene.
#[derive(Default)]
struct Row {
    places: u64,
    plays: u64,
    kills: u64,
    elsewhere: u64,
    outcomes: u64,
    killed: u64,
    failures: u64,
}

impl Row {
    fn add(&mut self, played: &Played) {
        self.plays += 1;
        self.kills += u64::from(played.killed);
        self.elsewhere += u64::from(played.killed && !played.in_place);
        self.outcomes += u64::from(!played.said.is_empty() && played.said != crate::scenes::KILLED);
        self.killed += u64::from(played.said == crate::scenes::KILLED);
        self.failures += u64::from(!played.failure.is_empty());
    }

    fn add_row(&mut self, row: &Row) {
        self.places += row.places;
        self.plays += row.plays;
        self.kills += row.kills;
        self.elsewhere += row.elsewhere;
        self.outcomes += row.outcomes;
        self.killed += row.killed;
        self.failures += row.failures;
    }

    fn print(&self, scene: &str, who: &str) {
        let Row { places, plays, kills, elsewhere, outcomes, killed, failures } = self;
        println!(
            "{scene:<40} {who:<8} {places:>7} {plays:>7} {kills:>7} {elsewhere:>9} {outcomes:>8} {killed:>7} {failures:>8}"
        );
    }
}
