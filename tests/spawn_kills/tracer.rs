//! Lets three processes run, and kills one of them at a certain step.
//!
//! Only the one that is to be killed stops at its system calls; the others run freely, but for the
//! moment in which they are born.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::processes::{children, describe, kill_and_wait};
use crate::common::trace::trace_family;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Parent,
    Zygote,
    Child,
}

pub const ALL: [Who; 3] = [Who::Parent, Who::Zygote, Who::Child];

/// Where a process is killed.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub who: Who,
    /// Number of the stop: 0 is where it begins, each later one the beginning or the end of a call.
    pub stop: usize,
    /// Instructions from there.
    pub steps: u32,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Number of stops, by process.
    pub stops: [usize; 3],
    /// How many of them were before this crate took over, in a process that was started anew. Only
    /// known if nobody is to be killed.
    pub loading: [usize; 3],
    /// Whether somebody was killed, and whether that was where it should be.
    pub killed: bool,
    pub in_place: bool,
    /// How the parent ended.
    pub ended: Option<WaitStatus>,
    /// Who was there when nothing happened any more.
    pub hanging: Vec<String>,
}

struct Traced {
    who: Option<Who>,
    /// Stops so far; `None` as long as they do not count.
    stops: Option<usize>,
    /// Instructions until it is killed.
    steps: Option<u32>,
}

struct Follow {
    parent: Pid,
    place: Option<Place>,
    /// Whether a program that is started becomes a zygote, and not a child.
    has_zygote: bool,
    /// Marks that the parent has come to.
    marks: u32,
    all: BTreeMap<Pid, Traced>,
    victim: Option<Pid>,
    /// Whether the parent waits at its second mark until the victim is gone.
    waits: bool,
    seen: Seen,
}

/// Follows the parent, which stops itself once it has asked to be traced, until it and all below it
/// are gone. Its stops count from its first mark to the second, and from the third to its end.
///
/// Whoever is to be killed and has not come to its place at the second mark, is killed then.
pub fn follow(parent: Pid, place: Option<Place>, has_zygote: bool) -> Seen {
    trace_family(parent);
    let mut follow = Follow {
        parent,
        place,
        has_zygote,
        marks: 0,
        all: BTreeMap::new(),
        victim: None,
        waits: false,
        seen: Seen::default(),
    };
    follow.all.insert(parent, Traced { who: Some(Who::Parent), stops: None, steps: None });
    follow.go_on(parent, None);
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => follow.at(status),
            Err(Errno::ECHILD) => return follow.seen,
            // The alarm: who should have ended has not.
            Err(Errno::EINTR) => follow.end_all(),
            Err(other) => panic!("waitpid: {other}"),
        }
    }
}

impl Follow {
    fn at(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                self.count(pid);
                self.go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, ..) => self.go_on(pid, None),
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if !self.all.contains_key(&pid) => {
                self.born(pid);
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) if pid == self.parent && is_mark(pid) => {
                self.at_mark();
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                self.step(pid);
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                if pid == self.parent {
                    self.seen.ended = Some(status);
                }
                // One that was traced is told of twice, if its parent has ended.
                self.all.remove(&pid);
                if self.waits && !self.victim.is_some_and(|victim| self.all.contains_key(&victim)) {
                    self.waits = false;
                    self.go_on(self.parent, None);
                }
            }
            _ => {}
        }
    }

    fn born(&mut self, pid: Pid) {
        let is_known = |who| self.all.values().any(|it| it.who == Some(who));
        let who = match is_program(pid) {
            true if self.has_zygote => Some(Who::Zygote),
            // What is started before the first mark only prepares.
            _ if self.marks != 1 => None,
            true => Some(Who::Child),
            false => Some(Who::Child),
        };
        let who = who.filter(|&who| self.victim.is_none() && !is_known(who));
        let stops = (self.marks == 1 && who.is_some()).then_some(0);
        self.all.insert(pid, Traced { who, stops, steps: None });
        if stops.is_some() {
            self.count(pid);
        }
    }

    fn at_mark(&mut self) {
        self.marks += 1;
        let parent = self.parent;
        match self.marks {
            1 => {
                let known: Vec<Pid> = self
                    .all
                    .iter()
                    .filter(|(_, it)| it.who.is_some())
                    .map(|(pid, _)| *pid)
                    .collect();
                for pid in known {
                    self.all.get_mut(&pid).expect("known").stops = Some(0);
                    self.count(pid);
                }
            }
            2 => {
                self.all.values_mut().for_each(|it| it.stops = None);
                let who = self.place.map(|place| place.who).filter(|&who| who != Who::Parent);
                let late = self.all.iter().find(|(_, it)| who.is_some() && it.who == who);
                if let (Some((&late, _)), None) = (late, self.victim) {
                    self.kill(late);
                }
                self.waits = self.victim.is_some_and(|victim| self.all.contains_key(&victim));
            }
            _ => {
                if let Some(it) = self.all.get_mut(&parent) {
                    it.stops = Some(self.seen.stops[0]);
                }
            }
        }
        if !self.waits {
            self.go_on(parent, None);
        }
    }

    /// The process has come to a stop.
    fn count(&mut self, pid: Pid) {
        let Some(Traced { who: Some(who), stops: Some(stops), steps }) = self.all.get_mut(&pid)
        else {
            return;
        };
        let stop = *stops;
        *stops += 1;
        self.seen.stops[*who as usize] = *stops;
        if self.place.is_none() && self.seen.loading[*who as usize] == 0 && asks_for_maker(pid) {
            self.seen.loading[*who as usize] = stop;
        }
        let Some(place) = self.place.filter(|place| place.who == *who && place.stop == stop) else {
            return;
        };
        if self.victim.is_none() && steps.is_none() {
            *steps = Some(place.steps);
            self.step(pid);
        }
    }

    /// The process is one instruction further on its way to its place.
    fn step(&mut self, pid: Pid) {
        let Some(Traced { steps: Some(steps), .. }) = self.all.get_mut(&pid) else { return };
        if *steps == 0 {
            self.seen.in_place = true;
            self.kill(pid);
        } else {
            *steps -= 1;
        }
    }

    fn kill(&mut self, pid: Pid) {
        if self.victim.is_none() {
            self.victim = Some(pid);
            self.seen.killed = kill(pid, Signal::SIGKILL).is_ok();
        }
    }

    /// Lets a process go on, unless it has been killed since it stopped.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let is_wanted = |it: &Traced| {
            let who = it.who.filter(|&who| self.place.is_none_or(|place| place.who == who));
            // A zygote that is there is in a call when it begins to count.
            who == Some(Who::Zygote) || who.is_some() && it.stops.is_some()
        };
        let it = self.all.get(&pid);
        let _ = match it {
            _ if self.victim.is_some() => ptrace::cont(pid, signal),
            Some(Traced { steps: Some(_), .. }) => ptrace::step(pid, signal),
            Some(it) if is_wanted(it) => ptrace::syscall(pid, signal),
            _ => ptrace::cont(pid, signal),
        };
    }

    fn end_all(&mut self) {
        for (pid, _) in children() {
            self.seen.hanging.push(describe(pid));
            kill_and_wait(pid);
        }
    }
}

/// Whether a process that has stopped by a trap has come to a mark, and not to the end of a step.
fn is_mark(pid: Pid) -> bool {
    ptrace::getsiginfo(pid).is_ok_and(|info| info.si_code == SI_KERNEL)
}

/// `SI_KERNEL` of sigaction(2).
const SI_KERNEL: i32 = 0x80;

/// Whether a process is about to ask who has made a socket, as a program does that may be a child.
fn asks_for_maker(pid: Pid) -> bool {
    ptrace::getregs(pid).is_ok_and(|registers| {
        registers.orig_rax as i64 == libc::SYS_getsockopt
            && registers.rdx as i32 == libc::SO_PEERCRED
    })
}

/// Whether a process that was just born is about to become another program. It has the registers
/// of the call that has made it.
fn is_program(pid: Pid) -> bool {
    let Ok(registers) = ptrace::getregs(pid) else { return false };
    let flags = match registers.orig_rax as i64 {
        libc::SYS_clone => registers.rdi,
        // They are the first word of what it is given.
        libc::SYS_clone3 => {
            ptrace::read(pid, registers.rdi as ptrace::AddressType).unwrap_or(0).cast_unsigned()
        }
        libc::SYS_vfork => libc::CLONE_VFORK as u64,
        _ => 0,
    };
    flags & libc::CLONE_VFORK as u64 != 0
}
