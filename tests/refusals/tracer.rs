//! Lets a process run from one system call to the next, and refuses some of them.
//!
//! The traced process is a child of the one that prepares the scene, and so are the children that
//! it makes. Its calls count from the first [mark](mark) to the second; those of children that are
//! born meanwhile from their birth on. A program that is started anew, by a child that shares its
//! parent's memory until then, counts from the moment in which this crate asks who has started it:
//! what the linker and libc do before is not ours.

use std::collections::{HashMap, HashSet};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{Call, Kind, out_of_scope};
use crate::common::trace::trace_family;

/// Which process makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The one that plays the scene.
    Player,
    /// A copy of it, or of a program that was started for it.
    Child,
    /// The same program, started anew: a zygote, or a child.
    Program,
}

/// What is refused.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    Nothing,
    /// The call of this kind with this number, counted from 0.
    Once {
        who: Who,
        kind: Kind,
        nth: usize,
        errno: i32,
    },
    /// All calls of this kind.
    Always {
        who: Who,
        kind: Kind,
        errno: i32,
    },
}

impl Refusal {
    /// The error with which this call is refused, if it is.
    fn errno(self, who: Who, kind: Kind, nth: usize) -> Option<i32> {
        match self {
            Refusal::Once { who: whose, kind: which, nth: when, errno }
                if (whose, which, when) == (who, kind, nth) =>
            {
                Some(errno)
            }
            Refusal::Always { who: whose, kind: which, errno } if (whose, which) == (who, kind) => {
                Some(errno)
            }
            _ => None,
        }
    }
}

/// Does something in an operation that is not the crate's, and is not refused.
pub fn unseen<T>(what: impl FnOnce() -> T) -> T {
    mark();
    let result = what();
    mark();
    result
}

/// Says to the tracer where the operation begins and where it ends.
pub fn mark() {
    // SAFETY: takes an integer, and there is no such process.
    unsafe { libc::syscall(libc::SYS_getpgid, MARK) };
}

const MARK: i64 = -4242;

/// A call in the crate's scope.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub who: Who,
    pub kind: Kind,
    /// Its number among those of its kind.
    pub nth: usize,
    /// Whether its process has made it from the same place before.
    pub is_repeated: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls in the crate's scope.
    pub calls: Vec<Made>,
    /// Calls that are not the crate's, with the reason.
    pub others: Vec<(Kind, &'static str)>,
    /// How many were refused.
    pub refused: usize,
    /// How the player ended.
    pub ended: Option<WaitStatus>,
}

struct Traced {
    who: Who,
    /// Whether the stop in which it is born is yet to come.
    unborn: bool,
    /// Whether its calls count.
    counts: bool,
    /// Whether they count as soon as it asks who has made its standard input.
    is_to_count: bool,
    /// What the call that it is in is to return instead of being made.
    pretend: Option<i32>,
    numbers: HashMap<Kind, usize>,
    /// From where it has made a call: the instruction, and how deep its stack was.
    places: HashSet<(Kind, u64, u64)>,
}

/// Follows `player`, which stops itself once it has asked to be traced, to the end of it and of its
/// children.
pub fn follow(player: Pid, refusal: Refusal) -> Seen {
    let mut seen = Seen::default();
    let mut all: HashMap<Pid, Traced> = HashMap::new();
    let traced = |who, unborn, now| Traced {
        who,
        unborn,
        counts: who == Who::Child && now,
        is_to_count: who == Who::Program && now,
        pretend: None,
        numbers: HashMap::new(),
        places: HashSet::new(),
    };
    let counts_now = |all: &HashMap<Pid, Traced>| all.get(&player).is_some_and(|it| it.counts);
    trace_family(player);
    all.insert(player, traced(Who::Player, false, false));
    go_on(player, None);
    while !all.is_empty() {
        // Of the last one it may have been told that it was born after it has died.
        let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) else { break };
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                if let Some(process) = all.get_mut(&pid) {
                    at_call(pid, process, refusal, &mut seen);
                }
                go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => go_on(pid, None),
            // Its child is waited for, too, though nothing may have been heard of it when its
            // parent has ended.
            WaitStatus::PtraceEvent(pid, ..) => {
                if let Ok(child) = ptrace::getevent(pid) {
                    let now = counts_now(&all);
                    all.entry(Pid::from_raw(child as i32))
                        .or_insert_with(|| traced(Who::Child, true, now));
                }
                go_on(pid, None);
            }
            // Born before its parent has told of it, or after.
            WaitStatus::Stopped(pid, Signal::SIGSTOP)
                if all.get(&pid).is_none_or(|process| process.unborn) =>
            {
                let now = counts_now(&all);
                all.insert(pid, traced(born_as(pid), false, now));
                go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                all.remove(&pid);
                if pid == player {
                    seen.ended = Some(status);
                }
            }
            _ => {}
        }
    }
    seen
}

/// What a new process is. It has the registers of the call that has made it.
fn born_as(pid: Pid) -> Who {
    let Ok(registers) = ptrace::getregs(pid) else { return Who::Child };
    let flags = match registers.orig_rax as i64 {
        libc::SYS_clone => registers.rdi,
        // They are the first word of what it is given.
        libc::SYS_clone3 => {
            ptrace::read(pid, registers.rdi as ptrace::AddressType).unwrap_or(0) as u64
        }
        libc::SYS_vfork => libc::CLONE_VFORK as u64,
        _ => 0,
    };
    if flags & libc::CLONE_VFORK as u64 == 0 { Who::Child } else { Who::Program }
}

/// It may have been killed since it stopped.
fn go_on(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}

fn at_call(pid: Pid, process: &mut Traced, refusal: Refusal, seen: &mut Seen) {
    let Ok(mut registers) = ptrace::getregs(pid) else { return };
    let Ok(info) = ptrace::syscall_info(pid) else { return };
    if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
        if let Some(errno) = process.pretend.take() {
            registers.rax = -i64::from(errno) as u64;
            let _ = ptrace::setregs(pid, registers);
        }
        return;
    }
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return;
    }
    let arguments =
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let call = Call { number: registers.orig_rax as i64, arguments };
    if call.number == libc::SYS_getpgid && call.arguments[0] == MARK as u64 {
        process.counts = !process.counts;
        return;
    }
    if process.is_to_count && call.asks_for_maker() {
        process.is_to_count = false;
        process.counts = true;
    }
    if !process.counts {
        return;
    }
    let kind = call.kind();
    if let Some(reason) = out_of_scope(&call) {
        if !seen.others.contains(&(kind, reason)) {
            seen.others.push((kind, reason));
        }
        return;
    }
    let number = process.numbers.entry(kind).or_default();
    let nth = *number;
    *number += 1;
    let is_repeated = !process.places.insert((kind, registers.rip, registers.rsp));
    seen.calls.push(Made { who: process.who, kind, nth, is_repeated });
    if let Some(errno) = refusal.errno(process.who, kind, nth) {
        seen.refused += 1;
        process.pretend = Some(errno);
        registers.orig_rax = u64::MAX;
        let _ = ptrace::setregs(pid, registers);
    }
}
