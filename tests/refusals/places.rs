//! Places in which much is missing or different. What an operation does there must be what it does
//! elsewhere, or an error that says why.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::personality::{self, Persona};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, chroot, setresuid};

use crate::common::parent;
use crate::play::{HANGING, Verdict, on_all_processors, parse, start, unparse};
use crate::raw::{end_within, raw_fork};
use crate::scenes::{SCENES, SPAWN};

/// A place, and how one gets there. The kernel may not let us.
struct Place {
    name: &'static str,
    /// Made by all, before anybody is ready.
    together: fn() -> nix::Result<()>,
    /// Made by the process that plays the scene, when everybody else is ready elsewhere.
    alone: fn() -> nix::Result<()>,
    /// Words of which an error has one that is right here. Without any, everything works.
    errors: &'static [&'static str],
    /// The same for starts of children that are no copies, if they need more than all others.
    errors_of_a_start: &'static [&'static str],
}

const fn alone(
    name: &'static str,
    enter: fn() -> nix::Result<()>,
    errors: &'static [&'static str],
) -> Place {
    Place { name, together: || Ok(()), alone: enter, errors, errors_of_a_start: errors }
}

const fn together(
    name: &'static str,
    enter: fn() -> nix::Result<()>,
    errors: &'static [&'static str],
) -> Place {
    Place { name, together: enter, alone: || Ok(()), errors, errors_of_a_start: errors }
}

const NO_PROC: &[&str] = &["/proc"];
const NO_FILES: &[&str] = &["/proc", "open failed: No such file or directory"];
const NO_FILES_AT_ALL: &[&str] =
    &["/proc", "open failed: No such file or directory", "open /dev/null failed: No such file"];
const NO_DESCRIPTOR: &[&str] = &["Too many open files"];
const NO_RIGHT: &[&str] = &["Permission denied", "belongs to user"];
const NO_ROOM: &[&str] = &["mmap failed", "by getrlimit"];
const TOO_LARGE: &[&str] = &["File too large"];
const NAMESPACE: &[&str] = &["namespace"];

const PLACES: &[Place] = &[
    together("nothing is different", || Ok(()), &[]),
    alone("0 is closed", || close(&[0]), &[]),
    alone("1 is closed", || close(&[1]), &[]),
    alone("2 is closed", || close(&[2]), &[]),
    alone("0 and 1 are closed", || close(&[0, 1]), &[]),
    alone("0 and 2 are closed", || close(&[0, 2]), &[]),
    alone("1 and 2 are closed", || close(&[1, 2]), &[]),
    alone("0, 1 and 2 are closed", || close(&[0, 1, 2]), &[]),
    alone("no /proc", without_proc, NO_PROC),
    alone("a /proc of processes only", proc_of_processes, NO_PROC),
    Place { errors_of_a_start: NO_FILES_AT_ALL, ..alone("an empty root", empty_root, NO_FILES) },
    alone("another user", other_user, NO_RIGHT),
    alone("a user namespace", || unshare(CloneFlags::CLONE_NEWUSER), NO_RIGHT),
    together("a user namespace, for all", || unshare(CloneFlags::CLONE_NEWUSER), &[]),
    alone("a mount namespace", own_mounts, &[]),
    alone("a pid namespace, for children", || unshare(CloneFlags::CLONE_NEWPID), NAMESPACE),
    together("a pid namespace, for all", pid_namespace, &[]),
    together(
        "a pid namespace, for all, with the /proc of another",
        || enter_as_child(libc::CLONE_NEWPID),
        NO_PROC,
    ),
    alone("a time namespace, for children", time_namespace, NAMESPACE),
    together("a time namespace, for all", time_namespace, &[]),
    together("ulimit -v, 256 MiB more, for all", || address_space(256 << 20), &[]),
    alone("ulimit -v, 64 MiB more", || address_space(64 << 20), NO_ROOM),
    alone("ulimit -v, 1 MiB more", || address_space(1 << 20), NO_ROOM),
    alone("ulimit -n, none left", || descriptors(0), NO_DESCRIPTOR),
    alone("ulimit -n, one left", || descriptors(1), NO_DESCRIPTOR),
    alone("ulimit -n, two left", || descriptors(2), NO_DESCRIPTOR),
    alone("ulimit -n, four left", || descriptors(4), NO_DESCRIPTOR),
    Place {
        errors_of_a_start: NO_DESCRIPTOR,
        ..alone("ulimit -n, eight left", || descriptors(8), &[])
    },
    alone("ulimit -n, 24 left", || descriptors(24), &[]),
    alone("ulimit -f 0", || limit(Resource::RLIMIT_FSIZE, 0), TOO_LARGE),
    alone("ulimit -f 16", || limit(Resource::RLIMIT_FSIZE, 16 << 10), TOO_LARGE),
];

/// The argument by which this program plays the scenes [where addresses are not
/// random](without_randomization).
pub const WITHOUT_RANDOMIZATION: &str = "--without-randomization";

fn close(fds: &[i32]) -> nix::Result<()> {
    for &fd in fds {
        // SAFETY: nothing here owns the standard streams.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

fn limit(resource: Resource, to: u64) -> nix::Result<()> {
    let (_, most) = getrlimit(resource)?;
    setrlimit(resource, to.min(most), most)
}

/// So many bytes may still be mapped.
fn address_space(left: u64) -> nix::Result<()> {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: u64 =
        statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number of pages");
    limit(Resource::RLIMIT_AS, pages * 4096 + left)
}

/// So many descriptors may still be opened.
fn descriptors(left: u64) -> nix::Result<()> {
    let free = std::io::pipe().expect("a pipe").0.as_raw_fd();
    limit(Resource::RLIMIT_NOFILE, u64::try_from(free).expect("positive") + left)
}

fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

fn without_proc() -> nix::Result<()> {
    own_mounts()?;
    mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>)
}

fn proc_of_processes() -> nix::Result<()> {
    own_mounts()?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("subset=pid"))
}

fn empty_root() -> nix::Result<()> {
    chroot(".")?;
    nix::unistd::chdir("/")
}

fn other_user() -> nix::Result<()> {
    let nobody = Uid::from_raw(65_534);
    setresuid(nobody, nobody, nobody)
}

/// Enters new namespaces of processes or of time, which only children do: goes on as a child.
fn enter_as_child(namespaces: i32) -> nix::Result<()> {
    // SAFETY: takes flags.
    Errno::result(unsafe { libc::unshare(namespaces) })?;
    if namespaces == CLONE_NEWTIME {
        std::fs::write("/proc/self/timens_offsets", "monotonic 86400 0\nboottime 172800 0\n")
            .expect("no process is in it yet");
    }
    let own = nix::unistd::getpid();
    // SAFETY: this process has one thread, so the copy may go on as this one does.
    match Errno::result(unsafe { libc::fork() })? {
        0 => {
            parent::end_with(own);
            Ok(())
        }
        child => {
            let code = matches!(waitpid(Pid::from_raw(child), None), Ok(WaitStatus::Exited(_, 0)));
            // SAFETY: ends the process at once; what it has is its child's.
            unsafe { libc::_exit(i32::from(!code)) }
        }
    }
}

/// Not in all versions of libc.
const CLONE_NEWTIME: i32 = 0x80;

fn time_namespace() -> nix::Result<()> {
    enter_as_child(CLONE_NEWTIME)
}

fn pid_namespace() -> nix::Result<()> {
    enter_as_child(libc::CLONE_NEWPID)?;
    own_mounts()?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
}

/// What came of the scenes in one place.
#[derive(Default)]
struct Counts {
    works: usize,
    errors: usize,
    alive: usize,
    failures: usize,
}

/// Plays all scenes in all places, prints the table and gives the failures.
pub fn play_all() -> Vec<String> {
    println!("\n{:<52} {:>6} {:>6} {:>6} {:>8}", "place", "works", "error", "alive", "failures");
    let mut failures = Vec::new();
    let mut entered = 0;
    for place in PLACES {
        entered += usize::from(play_in(place, &mut failures));
    }
    if entered < 2 {
        failures.push("no place but this one could be entered".to_owned());
    }
    let again = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.arg(WITHOUT_RANDOMIZATION);
        let enter =
            || personality::set(Persona::ADDR_NO_RANDOMIZE).map(drop).map_err(std::io::Error::from);
        // SAFETY: one system call.
        unsafe { command.pre_exec(enter) }.status()
    });
    match again {
        Ok(status) if status.success() => {}
        other => failures.push(format!("without address randomization: {other:?}")),
    }
    failures
}

/// Plays all scenes where `execve` has made nothing random.
pub fn without_randomization() -> Vec<String> {
    let mut failures = Vec::new();
    assert!(
        personality::get().is_ok_and(|persona| persona.contains(Persona::ADDR_NO_RANDOMIZE)),
        "inherited"
    );
    play_in(&together("addresses are not random", || Ok(()), &[]), &mut failures);
    failures
}

/// Plays all scenes in one place, unless we are not allowed to enter it.
fn play_in(place: &Place, failures: &mut Vec<String>) -> bool {
    let mut counts = Counts::default();
    let scenes: Vec<usize> =
        (0..SCENES.len()).filter(|&scene| SCENES[scene].can_be_played()).collect();
    let verdicts = on_all_processors(scenes.len(), |number| play(place, scenes[number]));
    for (scene, verdict) in scenes.iter().map(|&scene| &SCENES[scene]).zip(verdicts) {
        let errors = if scene.at == SPAWN { place.errors_of_a_start } else { place.errors };
        let (count, failure) = match verdict {
            Verdict::Works => (&mut counts.works, None),
            Verdict::Alive => (&mut counts.alive, None),
            Verdict::Error(text) if errors.iter().any(|word| text.contains(word)) => {
                (&mut counts.errors, None)
            }
            Verdict::Error(text) => (
                &mut counts.failures,
                Some(format!("an error that has nothing to do with it: {text}")),
            ),
            Verdict::Failure(text) => (&mut counts.failures, Some(text)),
            Verdict::NotReached => unreachable!("nothing is refused"),
            Verdict::NotAllowed(text) => {
                println!("{:<52} not entered: {text}", place.name);
                return false;
            }
        };
        *count += 1;
        if let Some(text) = failure {
            failures.push(format!("{}, {}, {}: {text}", place.name, scene.at, scene.name));
        }
    }
    let Counts { works, errors, alive, failures } = counts;
    println!("{:<52} {works:>6} {errors:>6} {alive:>6} {failures:>8}", place.name);
    true
}

fn play(place: &Place, scene: usize) -> Verdict {
    let (mut results, mut theirs) = std::io::pipe().expect("a pipe");
    let stage = raw_fork(move || {
        end_within(HANGING);
        let mut verdict = String::new();
        match (place.together)() {
            Err(error) => verdict = unparse(&Verdict::NotAllowed(error.to_string())),
            Ok(()) => {
                let (player, mut answer) =
                    start(scene, || (place.alone)().map_err(|error| error.to_string()));
                answer.read_to_string(&mut verdict).expect("readable");
                // Its counterparts end with this process.
                let ended = waitpid(player, None).expect("it is ours");
                if !matches!(ended, WaitStatus::Exited(_, 0)) {
                    verdict = unparse(&Verdict::Failure(format!("ended by {ended:?}")));
                }
            }
        }
        theirs.write_all(verdict.as_bytes()).expect("somebody listens");
    });
    let mut text = String::new();
    results.read_to_string(&mut text).expect("readable");
    match waitpid(stage, None).expect("it is ours") {
        WaitStatus::Exited(_, 0) if !text.is_empty() => parse(&text),
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => Verdict::Failure("HUNG".to_owned()),
        other => Verdict::Failure(format!("ended by {other:?}, {text}")),
    }
}
