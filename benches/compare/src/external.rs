//! Peers that are programs of their own, in other languages.
//!
//! A program runs once for each slice. It gets as arguments which of its ways to use, a task and
//! its numbers, the seconds to measure, and the processors of the two cores; see
//! [`Task::arguments`]. It sets the scene itself, as the actors here do: one end on each core, a
//! warm-up of a quarter of the time, messages compared before the clock starts. It prints lines:
//! - `value NUMBER`: messages or operations per second, or seconds for one operation if the task is
//!   a free lock;
//! - `latency NANOSECONDS COUNT`: how often a single operation took so long, if the task is a round
//!   trip or a child.
//!
//! Whatever else it prints on its standard error is told if it fails.

use std::cell::OnceCell;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Failure;
use crate::acts::Latencies;
use crate::acts::stream;
use crate::figures::{Case, Sample};
use crate::stage::Stage;

/// What a program is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Messages from so many senders to as many receivers.
    Stream { bytes: usize, count: usize },
    /// A message of 8 bytes there and back.
    Echo,
    /// A lock, free or wanted by several.
    Lock { contenders: usize },
    /// A child from start to end, with so much memory touched.
    Spawn { mebibytes: usize },
}

impl Task {
    fn arguments(self) -> Vec<String> {
        match self {
            Task::Stream { bytes, count } => {
                vec!["stream".to_owned(), bytes.to_string(), count.to_string()]
            }
            Task::Echo => vec!["echo".to_owned()],
            Task::Lock { contenders } => vec!["lock".to_owned(), contenders.to_string()],
            Task::Spawn { mebibytes } => vec!["spawn".to_owned(), mebibytes.to_string()],
        }
    }

    /// In the metrics of the group that has the task.
    fn sample(self, output: &Output) -> Option<Sample> {
        let mut latencies = Latencies::new();
        latencies.merge(&output.latencies);
        match self {
            Task::Stream { bytes, .. } => output.value.map(|rate| stream::sample_of(rate, bytes)),
            Task::Lock { contenders: 1 } => output.value.map(|seconds| Sample::from(seconds * 1e9)),
            Task::Lock { .. } => output.value.map(|rate| Sample::from(rate / 1e6)),
            Task::Echo | Task::Spawn { .. } if output.latencies.is_empty() => None,
            Task::Echo | Task::Spawn { .. } => Some(latencies.sample(latencies.percentiles()[0])),
        }
    }
}

/// A program.
struct Program {
    name: &'static str,
    /// Which of its ways can do a task, as it calls them.
    ways: fn(Task) -> &'static [&'static str],
    /// Makes it ready to run, or says why it cannot be had on this machine. Gets a directory for
    /// what must be built.
    prepare: fn(&Path) -> Result<Vec<PathBuf>, String>,
}

/// All programs.
const PROGRAMS: [Program; 2] = [
    Program {
        name: "Python",
        ways: |task| match task {
            Task::Stream { count: 1, .. } => &["multiprocessing.Queue", "multiprocessing.Pipe"],
            Task::Stream { .. } => &["multiprocessing.Queue"],
            Task::Echo => &["multiprocessing.Queue", "multiprocessing.Pipe"],
            Task::Lock { .. } => &["multiprocessing.Lock"],
            Task::Spawn { .. } => {
                &["multiprocessing, forkserver", "multiprocessing, spawn", "multiprocessing, fork"]
            }
        },
        prepare: prepare_python,
    },
    Program {
        name: "Boost.Interprocess",
        ways: |task| match task {
            Task::Stream { .. } | Task::Echo => &["message_queue"],
            Task::Lock { .. } => &["interprocess_mutex"],
            Task::Spawn { .. } => &[],
        },
        prepare: prepare_boost,
    },
];

fn prepare_python(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let check = "import sys, multiprocessing, multiprocessing.synchronize; sys.exit(sys.version_info < (3, 8))";
    let found = Command::new("python3").args(["-c", check]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err("python3 of at least 3.8, with multiprocessing, is not here".to_owned());
    }
    let script = directory.join("compare_peer.py");
    fs::write(&script, include_str!("../python/peer.py"))
        .map_err(|error| format!("{}: {error}", script.display()))?;
    Ok(vec!["python3".into(), script])
}

fn prepare_boost(directory: &Path) -> Result<Vec<PathBuf>, String> {
    const SOURCE: &str = include_str!("../boost/peer.cpp");
    let (source, program) = (directory.join("compare_peer.cpp"), directory.join("compare_peer"));
    let is_built =
        program.exists() && fs::read_to_string(&source).is_ok_and(|built| built == SOURCE);
    if !is_built {
        // Before the source, which says of what the program was built.
        let _ = fs::remove_file(&program);
        fs::write(&source, SOURCE).map_err(|error| format!("{}: {error}", source.display()))?;
        let compiler = Command::new("g++")
            .args(["-std=c++17", "-O2", "-pthread", "-o"])
            .arg(&program)
            .arg(&source)
            .arg("-lrt")
            .output();
        let compiled = compiler.map_err(|error| format!("g++ does not run: {error}"))?;
        if !compiled.status.success() {
            let errors = String::from_utf8_lossy(&compiled.stderr);
            let first = errors.lines().find(|line| line.contains("error")).unwrap_or("g++ failed");
            return Err(match first.contains("No such file") {
                true => "Boost's headers are not here".to_owned(),
                false => format!("cannot be built: {first}"),
            });
        }
    }
    Ok(vec![program])
}

/// The programs, each made ready when a case first asks for it.
#[derive(Default)]
pub(crate) struct Programs([OnceCell<Result<Vec<PathBuf>, String>>; PROGRAMS.len()]);

impl Programs {
    /// Adds what can do `task` to `case`, or the reason why it cannot.
    pub(crate) fn add(&self, stage: Stage, case: &mut Case, task: Task) {
        for (program, ready) in PROGRAMS.iter().zip(&self.0) {
            let ready = ready.get_or_init(|| {
                let executable = std::env::current_exe().map_err(|error| error.to_string())?;
                (program.prepare)(executable.parent().ok_or("the program is nowhere")?)
            });
            for way in (program.ways)(task) {
                let name = format!("{} {way}", program.name);
                match ready {
                    Err(reason) => case.skip(name, reason.clone()),
                    Ok(command) => {
                        let command = command.clone();
                        case.peer(name, move || {
                            let command = command.clone();
                            Ok(Box::new(move |length| {
                                let output = run(&command, stage, way, task, length)?;
                                task.sample(&output)
                                    .ok_or_else(|| "the program has printed no figure".into())
                            }))
                        });
                    }
                }
            }
        }
    }
}

/// What a program has printed.
#[derive(Default)]
struct Output {
    value: Option<f64>,
    latencies: Vec<(u64, u64)>,
}

/// What takes longer than its slice, start and warm-up hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(
    command: &[PathBuf],
    stage: Stage,
    way: &str,
    task: Task,
    length: Duration,
) -> Result<Output, Failure> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(way)
        .args(task.arguments())
        .arg(length.as_secs_f64().to_string())
        .args(stage.processors.map(|processor| processor.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, to be killed with all its children.
        .process_group(0)
        .spawn()?;
    let text = read_all(&mut child, Instant::now() + length * 4 + PATIENCE);
    let group = Pid::from_raw(child.id().cast_signed());
    // Before the leader is waited for, while its number is still its own. Normally nobody is left.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    let text = text?;
    let mut output = Output::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("value"), Some(value), None) => output.value = Some(value.parse()?),
            (Some("latency"), Some(time), Some(count)) => {
                output.latencies.push((time.parse()?, count.parse()?))
            }
            _ => return Err(format!("the program has printed: {line}").into()),
        }
    }
    if output.value.is_none() && output.latencies.is_empty() {
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        return Err(errors
            .lines()
            .last()
            .unwrap_or("the program has ended without a word")
            .to_owned()
            .into());
    }
    Ok(output)
}

/// What the program prints until it ends. What it prints on its standard error must be less than a
/// pipe holds.
fn read_all(child: &mut Child, deadline: Instant) -> Result<String, Failure> {
    let mut stdout = child.stdout.take().ok_or("no standard output")?;
    let mut bytes = Vec::new();
    let mut part = [0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ends = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN)];
        match poll(&mut ends, Some(&Timespec::try_from(left)?)) {
            Ok(0) => return Err("hangs; killed".into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut part)? {
            0 => return Ok(String::from_utf8(bytes)?),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
}
