//! Plays the scenes, in many processes, and prints the table.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::Kind;
use crate::places::{self, WITHOUT_RANDOMIZATION};
use crate::raw::{end_within, raw_fork};
use crate::scenes::{MARKER, Outcome, Ready, SCENES, SILENT, SPAWN, Scene};
use crate::tracer::{Made, Refusal, Who, follow, mark};

/// Seconds after which a scene is taken for hanging. None waits for more than a few, but the tracer
/// stops it at each of its calls, and others may have the processors.
pub const HANGING: u32 = 120;
/// Seconds after which the whole run is.
const ALL_HANGING: u32 = 3000;

/// With what a call is refused.
const ERRORS: [i32; 10] = [
    libc::EPERM,
    libc::ENOSYS,
    libc::EACCES,
    libc::EINVAL,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::EAGAIN,
    libc::EINTR,
    libc::ENOSPC,
];
/// Without optimization the first so many.
const SOME_ERRORS: usize = 2;
/// Calls of one kind that are refused one by one; those that follow are repetitions of a wait.
const MOST_OF_A_KIND: usize = if cfg!(debug_assertions) { 1 } else { 6 };

/// With what a call of a start is refused: one error for which the crate may take another way, and
/// one for which it does not. A start makes some hundred calls in three processes.
const OF_A_START: [i32; 2] = [libc::ENOSYS, libc::EMFILE];

/// How much is refused in a scene.
struct Extent {
    errors: &'static [i32],
    /// Those with which all calls of a kind are refused at once.
    errors_of_all: &'static [i32],
    /// Whether a call that is made again from the same place, as in a loop, is refused there, too.
    repetitions: bool,
}

impl Extent {
    fn of(scene: &Scene) -> Extent {
        if scene.at == SPAWN {
            let errors: &[i32] =
                if cfg!(debug_assertions) { &OF_A_START[1..] } else { &OF_A_START };
            return Extent { errors, errors_of_all: &OF_A_START[..1], repetitions: false };
        }
        let errors: &[i32] = if cfg!(debug_assertions) { &ERRORS[..SOME_ERRORS] } else { &ERRORS };
        Extent { errors, errors_of_all: errors, repetitions: true }
    }
}

/// One play of a scene.
#[derive(Clone, Copy)]
struct Job {
    scene: usize,
    refusal: Refusal,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Verdict {
    Works,
    Error(String),
    Alive,
    /// The call was not made this time.
    NotReached,
    /// The place may not be entered.
    NotAllowed(String),
    Failure(String),
}

/// A play, with what the tracer saw.
struct Played {
    verdict: Verdict,
    calls: Vec<Made>,
    others: Vec<(Kind, String)>,
}

pub fn main() -> ExitCode {
    if std::env::var_os(MARKER).is_some() {
        return crate::scenes::main_ran_in_a_child();
    }
    let start = Instant::now();
    // A hang that no stage has seen.
    end_within(ALL_HANGING);
    // In all that are made from this one, too.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let home = tempfile::tempdir().expect("a folder");
    std::env::set_current_dir(home.path()).expect("it is there");
    if std::env::args().any(|argument| argument == WITHOUT_RANDOMIZATION) {
        return end(&places::without_randomization());
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |text: &str| wanted.iter().all(|word| text.contains(word.as_str()));
    let name = |scene: &Scene| format!("{}: {}", scene.at, scene.name);
    // A word may be that of a scene or of a call, so scenes are chosen when their calls are known.
    let mut failures = Vec::new();
    let mut rehearsals = Vec::new();
    let mut table = Table::default();
    head("operation");
    for (number, scene) in SCENES.iter().enumerate() {
        if !scene.can_be_played() {
            println!("{:<58} cannot be played on this kernel", name(scene));
            continue;
        }
        let rehearsal = play(Job { scene: number, refusal: Refusal::Nothing });
        if !matches!(rehearsal.verdict, Verdict::Works) {
            failures.push(format!(
                "{}, with nothing refused: {:?}",
                name(scene),
                rehearsal.verdict
            ));
        }
        let jobs = jobs(number, &rehearsal.calls, |kind| {
            wants(&format!("{} {}", name(scene), kind.name()))
        });
        if !jobs.is_empty() {
            let verdicts = on_all_processors(jobs.len(), |number| play(jobs[number]).verdict);
            let mut row = Row::default();
            for (job, verdict) in jobs.iter().zip(&verdicts) {
                row.add(verdict);
                table.add(job, verdict, &mut failures);
            }
            row.print(&name(scene), Some(rehearsal.calls.len()));
        }
        rehearsals.push(rehearsal);
    }
    table.print(rehearsals.iter().map(|played| played.calls.len()).sum());
    let kinds: BTreeSet<String> =
        rehearsals.iter().flat_map(|played| &played.calls).map(|made| made.kind.name()).collect();
    let others: BTreeSet<String> = rehearsals
        .iter()
        .flat_map(|played| &played.others)
        .map(|(kind, reason)| format!("{} ({reason})", kind.name()))
        .collect();
    println!(
        "\n{} kinds of calls: {}",
        kinds.len(),
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    );
    println!("\nout of scope: {}", others.into_iter().collect::<Vec<_>>().join(", "));
    if table.total.plays == table.total.not_reached {
        failures.push("nothing was refused".to_owned());
    }
    if wanted.is_empty() {
        failures.extend(table.missing());
        failures.extend(places::play_all());
    }
    println!(
        "\n{} plays, {} failures, {:.1} s",
        table.total.plays,
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    end(&failures)
}

/// All that is to be refused in a scene which makes these calls.
fn jobs(scene: usize, calls: &[Made], wants: impl Fn(Kind) -> bool) -> Vec<Job> {
    let Extent { errors, errors_of_all, repetitions } = Extent::of(&SCENES[scene]);
    let kinds: BTreeSet<(Who, Kind)> =
        calls.iter().map(|made| (made.who, made.kind)).filter(|&(_, kind)| wants(kind)).collect();
    let mut jobs = Vec::new();
    for (who, kind) in kinds {
        let numbers: Vec<usize> = calls
            .iter()
            .filter(|made| (made.who, made.kind) == (who, kind))
            .filter(|made| repetitions || !made.is_repeated)
            .map(|made| made.nth)
            .take(MOST_OF_A_KIND)
            .collect();
        for &errno in errors {
            jobs.extend(
                numbers
                    .iter()
                    .map(|&nth| Job { scene, refusal: Refusal::Once { who, kind, nth, errno } }),
            );
        }
        // A call that is interrupted is made again; whoever interrupts it for ever wants that.
        let errors = errors_of_all.iter().filter(|&&errno| errno != libc::EINTR);
        jobs.extend(
            errors.map(|&errno| Job { scene, refusal: Refusal::Always { who, kind, errno } }),
        );
    }
    jobs
}

fn end(failures: &[String]) -> ExitCode {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in failures {
        *kinds.entry(failure).or_default() += 1;
    }
    for (failure, times) in kinds {
        println!("FAILURE {failure} ({times} times)");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The verdicts on so many plays, in order.
pub fn on_all_processors(plays: usize, play: impl Fn(usize) -> Verdict) -> Vec<Verdict> {
    // Much of the time somebody waits for one who is dead.
    let workers = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let (results, theirs) = std::io::pipe().expect("a pipe");
    let pids: Vec<_> = (0..workers)
        .map(|worker| {
            let mut theirs = theirs.try_clone().expect("dup");
            let play = &play;
            raw_fork(move || {
                for number in (worker..plays).step_by(workers) {
                    let line = format!("{number} {}\n", unparse(&play(number)));
                    // Short enough to be written as one.
                    theirs.write_all(line.as_bytes()).expect("somebody listens");
                }
            })
        })
        .collect();
    drop(theirs);
    let mut verdicts = vec![Verdict::Failure("its worker died".to_owned()); plays];
    for line in BufReader::new(results).lines() {
        let line = line.expect("readable");
        let (number, verdict) = line.split_once(' ').expect("a number");
        verdicts[number.parse::<usize>().expect("a number")] = parse(verdict);
    }
    for pid in pids {
        waitpid(pid, None).expect("it is ours");
    }
    verdicts
}

pub fn unparse(verdict: &Verdict) -> String {
    let (sign, text) = match verdict {
        Verdict::Works => ('w', ""),
        Verdict::Alive => ('a', ""),
        Verdict::NotReached => ('n', ""),
        Verdict::NotAllowed(text) => ('x', text.as_str()),
        Verdict::Error(text) => ('e', text.as_str()),
        Verdict::Failure(text) => ('f', text.as_str()),
    };
    format!("{sign}{}", text.replace('\n', " ").chars().take(1000).collect::<String>())
}

pub fn parse(text: &str) -> Verdict {
    let (sign, text) = text.split_at(1);
    match sign {
        "w" => Verdict::Works,
        "a" => Verdict::Alive,
        "n" => Verdict::NotReached,
        "x" => Verdict::NotAllowed(text.to_owned()),
        "e" => Verdict::Error(text.to_owned()),
        _ => Verdict::Failure(text.to_owned()),
    }
}

/// Plays one scene, in a process of its own, with some calls refused.
fn play(job: Job) -> Played {
    let (mut results, mut theirs) = std::io::pipe().expect("a pipe");
    let stage = raw_fork(move || {
        end_within(HANGING);
        let (player, mut answer) = start(job.scene, || {
            ptrace::traceme().expect("nobody traces it yet");
            raise(Signal::SIGSTOP).expect("raise");
            Ok(())
        });
        let seen = follow(player, job.refusal);
        let mut verdict = String::new();
        answer.read_to_string(&mut verdict).expect("readable");
        if !matches!(seen.ended, Some(WaitStatus::Exited(_, 0))) {
            verdict = format!("fended by {:?}", seen.ended);
        } else if seen.refused == 0 && !matches!(job.refusal, Refusal::Nothing) {
            verdict = "n".to_owned();
        }
        let mut lines = vec![verdict];
        lines.extend(seen.calls.iter().map(|made| {
            let sign = match made.who {
                Who::Player => 'p',
                Who::Child => 'c',
                Who::Program => 'g',
            };
            let again = if made.is_repeated { " again" } else { "" };
            format!("{sign}{} {}{again}", made.kind.to_text(), made.nth)
        }));
        lines.extend(
            seen.others.iter().map(|(kind, reason)| format!("o{} {reason}", kind.to_text())),
        );
        theirs.write_all(lines.join("\n").as_bytes()).expect("somebody listens");
    });
    let mut text = String::new();
    results.read_to_string(&mut text).expect("readable");
    let mut played = Played {
        verdict: Verdict::Failure("no answer".to_owned()),
        calls: Vec::new(),
        others: Vec::new(),
    };
    for (number, line) in text.lines().enumerate() {
        match (number, line.split_at_checked(1)) {
            (0, Some(_)) => played.verdict = judge(parse(line), job.refusal),
            (_, Some(("o", rest))) => played.others.push(
                Kind::parse(rest).map(|(kind, reason)| (kind, reason.to_owned())).expect("a kind"),
            ),
            (_, Some((who, rest))) => {
                let (kind, rest) = Kind::parse(rest).expect("a kind");
                let (nth, is_repeated) = match rest.split_once(' ') {
                    Some((nth, _again)) => (nth, true),
                    None => (rest, false),
                };
                let who = match who {
                    "p" => Who::Player,
                    "c" => Who::Child,
                    _ => Who::Program,
                };
                let nth = nth.parse().expect("a number");
                played.calls.push(Made { who, kind, nth, is_repeated });
            }
            _ => {}
        }
    }
    match waitpid(stage, None).expect("it is ours") {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => {
            played.verdict = Verdict::Failure("HUNG".to_owned())
        }
        other => played.verdict = Verdict::Failure(format!("the stage ended by {other:?}")),
    }
    played
}

/// Starts a process that plays the scene and tells what came of it; if it can do `first`.
pub fn start(scene: usize, first: impl FnOnce() -> Result<(), String>) -> (Pid, PipeReader) {
    // What it has is the player's: dropped here, objects would be gone before the player came to
    // use them.
    let ready = ManuallyDrop::new((SCENES[scene].prepare)());
    // Not before, as whoever was prepared would have it, too.
    let (answer, mut tell) = std::io::pipe().expect("a pipe");
    let player = raw_fork(move || {
        std::panic::set_hook(Box::new(|_| ()));
        let verdict = match first() {
            Err(text) => Verdict::NotAllowed(text),
            Ok(()) => perform(ManuallyDrop::into_inner(ready)),
        };
        tell.write_all(unparse(&verdict).as_bytes()).expect("somebody listens");
    });
    (player, answer)
}

fn perform(ready: Ready) -> Verdict {
    if let Err(text) = (ready.before)() {
        return Verdict::Error(text);
    }
    mark();
    let outcome = catch_unwind(AssertUnwindSafe(ready.operation));
    mark();
    match outcome {
        Ok(Outcome::Works) => Verdict::Works,
        Ok(Outcome::Alive) => Verdict::Alive,
        Ok(Outcome::Refused(text)) => Verdict::Error(text),
        Err(panic) => Verdict::Failure(format!("panicked: {}", reason(&*panic))),
    }
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "something".to_owned(),
    }
}

/// An error must name the call that was refused; and where nothing was, there must be none.
fn judge(verdict: Verdict, refusal: Refusal) -> Verdict {
    let (kind, who) = match refusal {
        Refusal::Once { kind, who, .. } | Refusal::Always { kind, who, .. } => {
            (Some(kind), Some(who))
        }
        Refusal::Nothing => (None, None),
    };
    match (verdict, kind) {
        // Without a call that it cannot do without, a child may be unable to tell of it.
        (Verdict::Error(text), Some(_))
            if who != Some(Who::Player)
                && (text == SILENT || text.contains("there can be no zygote here")) =>
        {
            Verdict::Error(text)
        }
        (Verdict::Error(text), Some(kind))
            if kind.names().iter().any(|name| text.contains(name)) =>
        {
            Verdict::Error(text)
        }
        (Verdict::Error(text), _) => {
            Verdict::Failure(format!("an error that does not name the call: {text}"))
        }
        (verdict, _) => verdict,
    }
}

/// Sums of one scene.
#[derive(Clone, Copy, Default)]
struct Row {
    plays: u64,
    works: u64,
    errors: u64,
    alive: u64,
    not_reached: u64,
    failures: u64,
}

impl Row {
    fn add(&mut self, verdict: &Verdict) {
        self.plays += 1;
        *match verdict {
            Verdict::Works => &mut self.works,
            Verdict::Error(_) => &mut self.errors,
            Verdict::Alive => &mut self.alive,
            Verdict::NotReached => &mut self.not_reached,
            Verdict::NotAllowed(_) | Verdict::Failure(_) => &mut self.failures,
        } += 1;
    }

    fn print(&self, name: &str, calls: Option<usize>) {
        let calls = calls.map_or(String::new(), |calls| calls.to_string());
        let Row { plays, works, errors, alive, not_reached, failures } = self;
        println!(
            "{name:<58} {calls:>6} {plays:>6} {works:>6} {errors:>6} {alive:>6} {not_reached:>6} {failures:>8}"
        );
    }
}

fn head(what: &str) {
    println!(
        "\n{what:<58} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8}",
        "calls", "plays", "works", "error", "alive", "missed", "failures"
    );
}

#[derive(Default)]
struct Table {
    /// By when they are made, and by the call.
    moments: BTreeMap<&'static str, Row>,
    kinds: BTreeMap<String, Row>,
    total: Row,
}

impl Table {
    fn add(&mut self, job: &Job, verdict: &Verdict, failures: &mut Vec<String>) {
        let (Refusal::Once { kind, errno, .. } | Refusal::Always { kind, errno, .. }) = job.refusal
        else {
            return;
        };
        self.moments.entry(SCENES[job.scene].at).or_default().add(verdict);
        self.kinds.entry(kind.name()).or_default().add(verdict);
        self.total.add(verdict);
        if let Verdict::Failure(text) = verdict {
            let Scene { at, name, .. } = &SCENES[job.scene];
            let how = match job.refusal {
                Refusal::Once { who, nth, .. } => format!("{who:?}'s call {nth} refused"),
                Refusal::Always { who, .. } => format!("all of {who:?} refused"),
                Refusal::Nothing => String::new(),
            };
            // Ten errors are one failure.
            let text =
                text.replace(&std::io::Error::from_raw_os_error(errno).to_string(), "(the error)");
            failures.push(format!("{at}, {name}, {}, {how}: {text}", kind.name()));
        }
    }

    /// What should have been refused, and never was.
    fn missing(&self) -> Vec<String> {
        let never = |row: Option<&Row>| row.is_none_or(|row| row.plays == row.not_reached);
        let moments = SCENES.iter().map(|scene| scene.at).collect::<BTreeSet<_>>();
        let moments =
            moments.into_iter().filter(|&at| never(self.moments.get(at))).map(str::to_owned);
        // Without these a sleep, a wake-up, a verdict, a fork, a reservation and a start were
        // something else. Others are made by chance only.
        let expected = [
            "futex(wait)",
            "futex(wake)",
            "fcntl(F_OFD_GETLK)",
            "pidfd_open",
            "ppoll",
            "clone",
            "prctl",
            "fallocate",
            "getsockopt",
            "sendmsg",
            "recvmsg",
        ];
        let expected =
            expected.into_iter().filter(|&kind| never(self.kinds.get(kind))).map(str::to_owned);
        moments.chain(expected).map(|what| format!("{what} was never refused")).collect()
    }

    fn print(&self, calls: usize) {
        self.total.print("total", Some(calls));
        head("call");
        for (kind, row) in &self.kinds {
            row.print(kind, None);
        }
        println!(
            "works: the operation did without the call; error: an Err that names it; alive: a verdict that could not be given;"
        );
        println!("missed: the call was not made that time.");
    }
}
