//! Several processes, one instruction of one of them at a time, in an order and with kills that a seed decides.
//!
//! Two senders and two receivers of a queue, three processes at a lock, three that make, open and drop objects, and now and then one more that
//! clears up after the dead. Who is killed gets a successor, and all of them must finish their work; then the books are checked: what was
//! sent against what was received, in which order, what went with its receiver, what was delivered again, who was told of the owner's death, how much
//! memory is left. Runs in which nobody is killed also show that no wake-up is lost: there a sleep ends only when somebody ends it.
//!
//! A failure prints its seed; `OFFSPRING_SEED=n cargo test --test interleave` plays exactly that run again. `OFFSPRING_INTERLEAVE_SECONDS`
//! says how long new seeds are tried: 60 seconds by default, and without optimisation only one seed for each scene. Exactness is a matter
//! of addresses and of what the kernel says: see `interleave/world.rs`.
//!
//! x86-64 only, as `step_kill`.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "personality has no safe wrapper here"))]

#[cfg(target_arch = "x86_64")]
#[path = "common/fd.rs"]
mod fd;
#[cfg(target_arch = "x86_64")]
#[path = "interleave/notebook.rs"]
mod notebook;
#[cfg(target_arch = "x86_64")]
#[path = "step_kill/room.rs"]
mod room;
#[cfg(target_arch = "x86_64")]
#[path = "interleave/scenes.rs"]
mod scenes;
#[cfg(target_arch = "x86_64")]
#[path = "step_kill/trace.rs"]
mod trace;
#[cfg(target_arch = "x86_64")]
#[path = "step_kill/watch.rs"]
mod watch;
#[cfg(target_arch = "x86_64")]
#[path = "interleave/world.rs"]
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
    use std::io::{BufRead, BufReader, Write};
    use std::panic::catch_unwind;
    use std::process::{Command, ExitCode};
    use std::time::{Duration, Instant};

    use crate::scenes::{Outcome, SCENES, play};
    use crate::trace::{alarm, raw_fork};
    use crate::world::Chronicle;

    /// Seconds after which a run is taken for hanging.
    const HANGING: u32 = 300;
    /// Set for the process that plays one seed, which [`run`] starts.
    const PLAYER: &str = "OFFSPRING_INTERLEAVE_PLAYER";

    pub fn main() -> ExitCode {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        if let Some(seed) = number(PLAYER) {
            return be_player(seed);
        }
        if !fix_addresses() {
            println!("addresses are random here, so a seed may come out otherwise when it is repeated");
        }
        if let Some(seed) = number("OFFSPRING_SEED") {
            let result = run(seed);
            println!("seed {seed}, {}: {result:#?}", SCENES[seed as usize % SCENES.len()]);
            return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        let seconds = number("OFFSPRING_INTERLEAVE_SECONDS");
        let limit =
            if cfg!(debug_assertions) && seconds.is_none() { Limit::Seeds(4) } else { Limit::Seconds(seconds.unwrap_or(60)) };
        let mut table = Table::default();
        let start = Instant::now();
        for (seed, result) in run_many(limit) {
            table.add(seed, result);
        }
        // What comes of a seed must not depend on anything else.
        let repeated = if cfg!(debug_assertions) { 1 } else { SCENES.len() as u64 };
        for seed in 0..repeated {
            let again = run(seed);
            if fix_addresses()
                && table.fingerprints[seed as usize] != again.as_ref().ok().map(|outcome| outcome.chronicle.fingerprint)
            {
                table.failures.push((seed, format!("came out otherwise when it was repeated: {again:?}")));
            }
        }
        table.print();
        println!("{:.1} s", start.elapsed().as_secs_f64());
        if table.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Has the programs that this process starts begin without random addresses: how many instructions it takes to copy depends on them.
    fn fix_addresses() -> bool {
        // SAFETY: takes no pointer; this value asks and changes nothing.
        let now = unsafe { libc::personality(0xffff_ffff) };
        // SAFETY: takes no pointer; what it changes takes effect at the next `exec`.
        now != -1 && unsafe { libc::personality((now | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong) } != -1
    }

    #[derive(Clone, Copy)]
    enum Limit {
        Seconds(u64),
        Seeds(u64),
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

    /// Sees to it that processes from here on have numbers of five digits or more: the code that is stepped through writes them out, and a digit less
    /// is some instructions less.
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
        let output = Command::new("/proc/self/exe").env_clear().env(PLAYER, seed.to_string()).output().expect("this program");
        let text = String::from_utf8_lossy(&output.stdout);
        match text.trim_end().split_at_checked(1) {
            Some(("+", numbers)) => Ok(parse(numbers)),
            Some((_, reason)) => Err(format!("{reason} {}", String::from_utf8_lossy(&output.stderr))),
            None => Err(format!("hung or crashed: {} {}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn parse(text: &str) -> Outcome {
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [steps, kills, all_slept, fingerprint, done, lost, again] = numbers[..] else { panic!("{text}") };
        Outcome { chronicle: Chronicle { steps, kills, all_slept, fingerprint }, done, lost, again }
    }

    fn unparse(outcome: &Outcome) -> String {
        let Outcome { chronicle: Chronicle { steps, kills, all_slept, fingerprint }, done, lost, again } = outcome;
        format!("{steps} {kills} {all_slept} {fingerprint} {done} {lost} {again}")
    }

    /// Plays seeds from 0 on, on all processors.
    fn run_many(limit: Limit) -> Vec<(u64, Result<Outcome, String>)> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let start = Instant::now();
        let (results, theirs) = std::io::pipe().expect("a pipe");
        let pids: Vec<_> = (0..workers)
            .map(|worker| {
                raw_fork(|| {
                    for seed in (worker..).step_by(workers as usize) {
                        let go_on = match limit {
                            // Each scene is played at least once.
                            Limit::Seconds(seconds) => {
                                start.elapsed() < Duration::from_secs(seconds) || seed < SCENES.len() as u64
                            }
                            Limit::Seeds(seeds) => seed < seeds,
                        };
                        if !go_on {
                            return;
                        }
                        let line = match run(seed) {
                            Ok(outcome) => format!("{seed} +{}\n", unparse(&outcome)),
                            Err(reason) => {
                                format!("{seed} -{}\n", reason.replace('\n', " ").chars().take(1000).collect::<String>())
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
            nix::sys::wait::waitpid(pid, None).expect("it is ours");
        }
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
        rows: [Row; SCENES.len()],
        fingerprints: [Option<u64>; SCENES.len()],
        failures: Vec<(u64, String)>,
    }

    impl Table {
        fn add(&mut self, seed: u64, result: Result<Outcome, String>) {
            let scene = seed as usize % SCENES.len();
            let row = &mut self.rows[scene];
            row.seeds += 1;
            match result {
                Ok(Outcome { chronicle, done, lost, again }) => {
                    if seed < SCENES.len() as u64 {
                        self.fingerprints[scene] = Some(chronicle.fingerprint);
                    }
                    row.peaceful += u64::from(chronicle.kills == 0);
                    row.sum.chronicle.steps += chronicle.steps;
                    row.sum.chronicle.kills += chronicle.kills;
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

        fn print(&self) {
            println!(
                "{:<18} {:>6} {:>9} {:>10} {:>6} {:>9} {:>9} {:>11} {:>8}",
                "scene", "seeds", "no kills", "steps", "kills", "done", "lost", "again/told", "failures"
            );
            for (scene, row) in SCENES.iter().zip(&self.rows) {
                let Outcome { chronicle, done, lost, again } = &row.sum;
                println!(
                    "{scene:<18} {:>6} {:>9} {:>10} {:>6} {done:>9} {lost:>9} {again:>11} {:>8}",
                    row.seeds, row.peaceful, chronicle.steps, chronicle.kills, row.failures
                );
            }
            println!(
                "done: messages received, turns with the lock, objects made; lost: messages that went with a killed receiver;"
            );
            println!("again/told: messages delivered again, deaths of owners that a successor was told of.");
            for (seed, reason) in self.failures.iter().take(20) {
                println!("FAILURE OFFSPRING_SEED={seed} ({}): {reason}", SCENES[*seed as usize % SCENES.len()]);
            }
        }
    }
}
