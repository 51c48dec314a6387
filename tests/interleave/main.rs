//! Several processes, one instruction of one of them at a time, in an order and with kills that a
//! seed decides.
//!
//! Two senders and two receivers of a queue, three processes at a lock, three that change a value,
//! three that make, open and drop objects, two that ask a third by events, three that send messages
//! in blocks of their own, three that send boxes, and now and then one more that clears up after
//! the dead. Who is killed gets a successor, and all of them must finish their work; then the books
//! are checked: what was sent against what was received, in which order, what went with its
//! receiver, what was delivered again, who was told of the owner's death, how much memory is left.
//! Runs in which nobody is killed also show that no wake-up is lost: there a sleep ends only when
//! somebody ends it.
//!
//! A failure prints its seed; `OFFSPRING_SEED=n cargo test --test interleave` plays exactly that
//! run again. `OFFSPRING_INTERLEAVE_SECONDS` says how long new seeds are tried: 60 seconds by
//! default, and without optimisation only a few chosen ones. Exactness is a matter of addresses and
//! of what the kernel says: see `interleave/world.rs`.
//!
//! Whatever is played, there must have been kills, sleeps and peaceful runs in it, or it has shown
//! nothing and fails.
//!
//! x86-64 only, as `step_kill`.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "personality has no safe wrapper here")
)]

#[cfg(target_arch = "x86_64")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod notebook;
#[cfg(target_arch = "x86_64")]
mod scenes;
#[cfg(target_arch = "x86_64")]
mod world;

use std::process::ExitCode;

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("interleave: x86-64 only");
    ExitCode::SUCCESS
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    imp::main()
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{BufRead, BufReader, Write};
    use std::panic::catch_unwind;
    use std::process::{Command, ExitCode};
    use std::time::{Duration, Instant};

    use crate::common::trace::{alarm, raw_fork};
    use crate::scenes::{Outcome, SCENES, Scene, place, play, scene, seed};
    use crate::world::Chronicle;

    /// Seconds after which a run is taken for hanging.
    const HANGING: u32 = 300;
    /// Seeds that are always played: the first of each scene, then the second, and so on.
    fn chosen() -> Vec<u64> {
        let rounds = SCENES.iter().map(|scene| scene.chosen.len()).max().unwrap_or(0);
        let seeds = |turn: usize| {
            let round = move |(place, scene): (usize, &Scene)| {
                scene.chosen.get(turn).map(|&round| seed(place, round))
            };
            SCENES.iter().enumerate().filter_map(round)
        };
        (0..rounds).flat_map(seeds).collect()
    }

    /// All other seeds, round by round.
    fn others() -> impl Iterator<Item = u64> {
        let chosen = chosen();
        let seeds = |round| (0..SCENES.len()).map(move |place| seed(place, round));
        (0..).flat_map(seeds).filter(move |seed| !chosen.contains(seed))
    }

    /// Runs with kills of which one at least will be such that a message is lost, is delivered
    /// again, or a death is told.
    const MANY: u64 = 16;
    /// Set for the process that plays one seed, which [`run`] starts.
    const PLAYER: &str = "OFFSPRING_INTERLEAVE_PLAYER";

    pub fn main() -> ExitCode {
        let number = |name: &str| {
            std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"))
        };
        if let Some(seed) = number(PLAYER) {
            return be_player(seed);
        }
        let exact = fix_addresses();
        if !exact {
            println!(
                "addresses are random here, so a seed may come out otherwise when it is repeated, and that is not judged"
            );
        }
        if let Some(seed) = number("OFFSPRING_SEED") {
            let result = run(seed);
            println!("seed {seed}, {}: {result:#?}", scene(seed).name);
            return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        let seconds = number("OFFSPRING_INTERLEAVE_SECONDS");
        let seconds = seconds.unwrap_or(if cfg!(debug_assertions) { 0 } else { 60 });
        let mut table = Table::default();
        let start = Instant::now();
        for (seed, result) in run_many(Duration::from_secs(seconds)) {
            table.add(seed, result);
        }
        // What comes of a seed must not depend on anything else.
        let repeated = if cfg!(debug_assertions) { 1 } else { SCENES.len() };
        for &seed in &chosen()[..repeated] {
            match run(seed) {
                Ok(again)
                    if exact
                        && table.fingerprints.get(&seed) != Some(&again.chronicle.fingerprint) =>
                {
                    table.failures.push((
                        seed,
                        format!("came out otherwise when it was repeated: {again:?}"),
                    ));
                }
                Ok(_) => {}
                Err(reason) => {
                    table.failures.push((seed, format!("failed when it was repeated: {reason}")))
                }
            }
        }
        table.print();
        println!("{:.1} s", start.elapsed().as_secs_f64());
        // A run that failed has told nothing of these.
        let missing = if table.failures.is_empty() { table.missing() } else { Vec::new() };
        missing.iter().for_each(|what| println!("FAILURE {what}"));
        if table.failures.is_empty() && missing.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Has the programs that this process starts begin without random addresses: how many
    /// instructions it takes to copy depends on them.
    fn fix_addresses() -> bool {
        // SAFETY: takes no pointer; this value asks and changes nothing.
        let now = unsafe { libc::personality(0xffff_ffff) };
        // SAFETY: takes no pointer; what it changes takes effect at the next `exec`.
        now != -1
            && unsafe { libc::personality((now | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong) } != -1
    }

    /// Plays the seed in this process, and says what came of it.
    fn be_player(seed: u64) -> ExitCode {
        alarm(HANGING);
        skip_short_numbers();
        match catch_unwind(|| play(seed)) {
            Ok(Ok(outcome)) => println!("+{}", unparse(&outcome)),
            Ok(Err(reason)) => println!("-{reason}"),
            Err(_) => println!("-the test itself panicked"),
        }
        ExitCode::SUCCESS
    }

    /// Sees to it that processes from here on have numbers of five digits or more: the code that is
    /// stepped through writes them out, and a digit less is some instructions less.
    fn skip_short_numbers() {
        loop {
            let pid = raw_fork(|| ());
            nix::sys::wait::waitpid(pid, None).expect("it is ours");
            if pid.as_raw() >= 10_000 {
                return;
            }
        }
    }

    /// Plays one seed in a new process, in which nothing is left of others.
    fn run(seed: u64) -> Result<Outcome, String> {
        let output = Command::new("/proc/self/exe")
            .env_clear()
            .env(PLAYER, seed.to_string())
            .output()
            .expect("this program");
        let text = String::from_utf8_lossy(&output.stdout);
        match text.trim_end().split_at_checked(1) {
            Some(("+", numbers)) if output.status.success() => Ok(parse(numbers)),
            Some((_, reason)) => {
                Err(format!("{reason} {}", String::from_utf8_lossy(&output.stderr)))
            }
            None => Err(format!(
                "hung or crashed: {} {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn parse(text: &str) -> Outcome {
        let numbers: Vec<u64> =
            text.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [steps, kills, knowing_kills, sleeps, all_slept, fingerprint, done, lost, again] =
            numbers[..]
        else {
            panic!("{text}")
        };
        Outcome {
            chronicle: Chronicle { steps, kills, knowing_kills, sleeps, all_slept, fingerprint },
            done,
            lost,
            again,
        }
    }

    fn unparse(outcome: &Outcome) -> String {
        let Outcome { chronicle, done, lost, again } = outcome;
        let Chronicle { steps, kills, knowing_kills, sleeps, all_slept, fingerprint } = chronicle;
        format!(
            "{steps} {kills} {knowing_kills} {sleeps} {all_slept} {fingerprint} {done} {lost} {again}"
        )
    }

    /// Plays the chosen seeds and then, until the time is over, all others from 0 on; on all
    /// processors.
    fn run_many(time: Duration) -> Vec<(u64, Result<Outcome, String>)> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let start = Instant::now();
        let (results, theirs) = std::io::pipe().expect("a pipe");
        let pids: Vec<_> = (0..workers)
            .map(|worker| {
                raw_fork(|| {
                    let others = others().take_while(|_| start.elapsed() < time);
                    for seed in chosen().into_iter().chain(others).skip(worker).step_by(workers) {
                        let line = match run(seed) {
                            Ok(outcome) => format!("{seed} +{}\n", unparse(&outcome)),
                            Err(reason) => {
                                format!(
                                    "{seed} -{}\n",
                                    reason
                                        .replace('\n', " ")
                                        .chars()
                                        .take(1000)
                                        .collect::<String>()
                                )
                            }
                        };
                        // Short enough to be written as one.
                        (&theirs).write_all(line.as_bytes()).expect("somebody listens");
                    }
                })
            })
            .collect();
        drop(theirs);
        let mut played = Vec::new();
        for line in BufReader::new(results).lines() {
            let line = line.expect("readable");
            let (seed, text) = line.split_once(' ').expect("a seed");
            let (sign, text) = text.split_at(1);
            let result = if sign == "+" { Ok(parse(text)) } else { Err(text.to_owned()) };
            played.push((seed.parse().expect("a number"), result));
        }
        for pid in pids {
            let status = nix::sys::wait::waitpid(pid, None).expect("it is ours");
            assert_eq!(
                status,
                nix::sys::wait::WaitStatus::Exited(pid, 0),
                "one of those who play did not end well"
            );
        }
        let all: BTreeSet<u64> = played.iter().map(|&(seed, _)| seed).collect();
        assert!(
            all.len() == played.len() && chosen().iter().all(|seed| all.contains(seed)),
            "played: {all:?}"
        );
        played
    }

    /// The sums of one scene.
    #[derive(Clone, Default)]
    struct Row {
        seeds: u64,
        peaceful: u64,
        sum: Outcome,
        failures: u64,
    }

    #[derive(Default)]
    struct Table {
        /// By the scene's place.
        rows: BTreeMap<usize, Row>,
        fingerprints: BTreeMap<u64, u64>,
        failures: Vec<(u64, String)>,
    }

    impl Table {
        fn add(&mut self, seed: u64, result: Result<Outcome, String>) {
            let place = place(seed).expect("it was played");
            let row = self.rows.entry(place).or_default();
            row.seeds += 1;
            match result {
                Ok(Outcome { chronicle, done, lost, again }) => {
                    self.fingerprints.insert(seed, chronicle.fingerprint);
                    row.peaceful += u64::from(chronicle.kills == 0);
                    row.sum.chronicle.steps += chronicle.steps;
                    row.sum.chronicle.kills += chronicle.kills;
                    row.sum.chronicle.sleeps += chronicle.sleeps;
                    row.sum.chronicle.all_slept += chronicle.all_slept;
                    row.sum.done += done;
                    row.sum.lost += lost;
                    row.sum.again += again;
                }
                Err(reason) => {
                    row.failures += 1;
                    self.failures.push((seed, reason));
                }
            }
        }

        /// What has to be in the runs of each scene for them to show anything, and was not.
        fn missing(&self) -> Vec<String> {
            let mut missing = Vec::new();
            for (place, scene) in SCENES.iter().enumerate() {
                let row = self.rows.get(&place).cloned().unwrap_or_default();
                let mut demand = |count: u64, what: &str| {
                    if count == 0 {
                        missing.push(format!("{}: {what}", scene.name));
                    }
                };
                demand(row.seeds, "nothing was played");
                demand(
                    row.peaceful,
                    "nobody was killed in none of the runs, so a lost wake-up would not be seen",
                );
                demand(row.sum.chronicle.kills, "nobody was killed");
                demand(row.sum.done, "nothing was done");
                if scene.sleeps {
                    demand(row.sum.chronicle.sleeps, "nobody slept");
                }
                if let Some((figure, what)) = scene.shows
                    && row.seeds - row.peaceful >= MANY
                {
                    demand(figure(&row.sum), what);
                }
            }
            missing
        }

        fn print(&self) {
            println!(
                "{:<18} {:>6} {:>9} {:>10} {:>6} {:>7} {:>9} {:>9} {:>11} {:>8}",
                "scene",
                "seeds",
                "no kills",
                "steps",
                "kills",
                "sleeps",
                "done",
                "lost",
                "again/told",
                "failures"
            );
            for (place, row) in &self.rows {
                let Outcome { chronicle, done, lost, again } = &row.sum;
                let scene = SCENES[*place].name;
                println!(
                    "{scene:<18} {:>6} {:>9} {:>10} {:>6} {:>7} {done:>9} {lost:>9} {again:>11} {:>8}",
                    row.seeds,
                    row.peaceful,
                    chronicle.steps,
                    chronicle.kills,
                    chronicle.sleeps,
                    row.failures
                );
            }
            println!(
                "done: messages received, turns with the lock, objects made, changes of a value, answers; lost: messages that went with a killed receiver;"
            );
            println!(
                "again/told: messages delivered again, deaths of owners that a successor was told of."
            );
            for (seed, reason) in self.failures.iter().take(20) {
                println!("FAILURE OFFSPRING_SEED={seed} ({}): {reason}", scene(*seed).name);
            }
        }
    }
}
