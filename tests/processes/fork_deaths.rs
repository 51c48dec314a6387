//! However a child ends, its parent is told how; and whenever a parent ends, its children do.

#![expect(
    unsafe_code,
    reason = "raw forks, and threads and processes that end in ways which safe code has no words for"
)]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP, SIGTRAP};
use nix::sys::wait::{WaitStatus, waitpid};
use offspring::{Child, Event, JoinError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::raw::{Board, Errand};
use crate::common::{
    self, PATIENCE, fork, raw, sandbox, sleep_for_ever, wait_until, wait_until_asleep,
    wait_until_dead, wait_until_stopped,
};
use crate::harness::{apply, test};

#[apply(test)]
fn signal_that_killed_the_child_is_told() {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1, libc::SIGRTMIN() + 3] {
        let child = fork(|| -> () { sleep_for_ever() }).expect("fork");
        assert!(child.is_alive());
        child.signal(0).expect("it can be signalled");
        assert_eq!(
            child.signal(4711).expect_err("no such signal").raw_os_error(),
            Some(libc::EINVAL)
        );
        child.signal(signal).expect("it lives");
        let ending = child.join();
        assert!(matches!(ending, Err(JoinError::Killed(told)) if told == signal), "{ending:?}");
    }
}

#[apply(test)]
fn segmentation_fault_abort_and_stack_overflow_are_told() {
    fn ending(closure: fn()) -> JoinError {
        let child = fork(move || {
            quiet();
            closure();
        });
        child.expect("fork").join().expect_err("it dies")
    }
    // SAFETY: not safe, and meant so: there is nothing at address 8, and the process ends there.
    let fault = ending(|| unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) });
    assert!(matches!(fault, JoinError::Killed(libc::SIGSEGV)), "{fault:?}");
    let abort = ending(|| std::process::abort());
    assert!(matches!(abort, JoinError::Killed(libc::SIGABRT)), "{abort:?}");

    fn deeper(depth: u64) -> u64 {
        let page = std::hint::black_box([depth; 512]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + page[7] }
    }
    let overflow = ending(|| assert_eq!(deeper(0), 0));
    assert!(matches!(overflow, JoinError::Killed(libc::SIGABRT)), "{overflow:?}");
}

/// No words on standard error and no core file.
fn quiet() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).expect("setrlimit");
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    nix::unistd::dup2_stderr(nowhere).expect("dup2");
}

#[apply(test)]
fn stopped_child_is_alive() {
    let mut child = fork(|| -> () { sleep_for_ever() }).expect("fork");
    child.signal(libc::SIGSTOP).expect("it lives");
    wait_until_stopped(child.id());
    assert!(child.is_alive());
    assert!(child.try_join().is_none());
    assert!(child.join_timeout(Duration::from_millis(10)).is_none());
    child.signal(libc::SIGCONT).expect("it lives");
    wait_until_asleep(child.id());
    assert!(child.try_join().is_none());
    child.kill().expect("it lives");
    assert!(matches!(child.join(), Err(JoinError::Killed(libc::SIGKILL))));
}

/// Many bytes, encoded and decoded in one piece.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Copied;
        impl Visitor<'_> for Copied {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Copied)
    }
}

#[apply(test)]
fn child_killed_while_it_sends_its_value_sent_all_or_nothing() {
    const LEN: usize = 64 << 20;
    let mut in_the_middle = 0;
    // The kill lands where it lands; the test goes on until it has landed in the middle some times.
    let start = Instant::now();
    for round in 0_u64.. {
        assert!(start.elapsed() < PATIENCE, "{in_the_middle} of {round} kills came in the middle");
        let child = fork(|| Bytes(vec![7; LEN])).expect("fork");
        let outcome = common::descriptors()
            .into_iter()
            .find(|(_, target)| target.contains("outcome"))
            .expect("the outcome's file")
            .0;
        let sent =
            || std::fs::metadata(format!("/proc/self/fd/{outcome}")).expect("it is open").len();
        wait_until("the child sends, or ends", || sent() > round * 100_000 || !child.is_alive());
        child.kill().expect("it is not joined");
        wait_until("the killed child ends", || !child.is_alive());
        let sent = sent();
        match child.join() {
            Ok(Bytes(value)) => assert!(value == [7; LEN], "the bytes differ"),
            Err(JoinError::Killed(libc::SIGKILL)) => {
                assert!(sent < LEN as u64, "the value was whole");
                in_the_middle += u32::from(sent > 0);
            }
            Err(other) => panic!("{other:?}"),
        }
        if in_the_middle == 5 {
            break;
        }
    }
}

#[apply(test)]
fn status_taken_by_other_code_is_lost_but_the_value_is_not() {
    let returns = fork(|| 7).expect("fork");
    let mut exits = fork(|| -> u8 { std::process::exit(3) }).expect("fork");
    for _ in 0..2 {
        // SAFETY: a null status is allowed.
        assert!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0);
    }
    assert!(!returns.is_alive() && !exits.is_alive());
    assert_eq!(returns.join().expect("a value"), 7);
    assert!(matches!(exits.join_timeout(Duration::from_secs(1)), Some(Err(JoinError::Lost))));
}

#[apply(test)]
fn ignored_sigchld_loses_the_status_but_not_the_value() {
    let child = fork(|| {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        for i in 0..300_u32 {
            let mut child = fork(move || i).expect("fork");
            let value = if i % 2 == 0 {
                child.join()
            } else {
                child.join_timeout(Duration::MAX).expect("never")
            };
            assert_eq!(value.expect("a value"), i);
        }
        for killed_late in [false, true] {
            let child = fork(|| -> () { sleep_for_ever() }).expect("fork");
            let pidfd = watch(child.id());
            if killed_late {
                let killer = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(30));
                    rustix::process::pidfd_send_signal(pidfd, Signal::KILL).expect("it lives");
                });
                assert!(matches!(child.join(), Err(JoinError::Lost)));
                killer.join().expect("no panic");
            } else {
                child.kill().expect("it lives");
                assert!(matches!(child.join(), Err(JoinError::Lost)));
            }
        }
        drop(fork(|| ()).expect("fork"));
        common::children().into_iter().filter(|&(_, state)| state == 'Z').count()
    });
    assert_eq!(child.expect("fork").join().expect("a value"), 0);
}

/// Forks as C code would.
fn raw_fork() -> i32 {
    // SAFETY: these tests run in one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    pid
}

/// Waits for a raw child, and gives its exit code.
fn exit_code(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is a valid place to write.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "status {status:#x}");
    libc::WEXITSTATUS(status)
}

/// Ends a raw child, which must not come back into the tests.
fn raw_exit(code: i32) -> ! {
    // SAFETY: takes no pointer.
    unsafe { libc::_exit(code) }
}

#[apply(test)]
fn copy_that_comes_back_from_a_raw_fork_sends_nothing() {
    let child = fork(|| match raw_fork() {
        0 => String::from("the copy"),
        copy => format!("the copy ended with code {}", exit_code(copy)),
    });
    assert_eq!(child.expect("fork").join().expect("a value"), "the copy ended with code 0");
}

#[apply(test)]
fn copy_that_outlives_its_child_does_not_disturb_the_next() {
    // The copy has every descriptor of the child that it is a copy of, and comes back from the
    // closure when a later child has lived and died.
    for long in [false, true] {
        let value = move |text: &str| if long { text.repeat(100) } else { text.to_owned() };
        let (go, done) = (Teller::new(), Teller::new());
        let (copys_go, copys_done) = (go.share(), done.share());
        let child = fork(move || match raw_fork() {
            0 => {
                copys_go.hear();
                copys_done.tell(std::process::id());
                value("copy")
            }
            copy => value(&format!("{}", copy > 0)),
        });
        assert_eq!(child.expect("fork").join().expect("a value"), value("true"));
        let next = fork(move || value("next")).expect("fork");
        wait_until("the next child ends", || !next.is_alive());
        go.tell(0);
        let copy = done.hear();
        wait_until_dead(copy);
        assert_eq!(next.join().expect("a value"), value("next"));
    }
}

#[apply(test)]
fn handler_of_the_program_for_the_parent_death_signal_stays() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    // The signal is raised in a raw child, which nobody ends with its parent.
    let pid = raw_fork();
    if pid == 0 {
        // SAFETY: the handler only adds to an atomic.
        unsafe {
            libc::signal(libc::SIGSTKFLT, count as extern "C" fn(libc::c_int) as libc::sighandler_t)
        };
        for _ in 0..3 {
            let value = fork(|| 7).ok().and_then(|child| child.join().ok());
            // SAFETY: takes no pointer.
            unsafe { libc::raise(libc::SIGSTKFLT) };
            if value != Some(7) {
                raw_exit(100);
            }
        }
        raw_exit(CALLS.load(Ordering::Relaxed) as i32);
    }
    assert_eq!(exit_code(pid), 3);
}

#[apply(test)]
fn handle_is_inert_after_a_raw_fork_and_forking_works_there() {
    let mut child = fork(|| -> u32 { sleep_for_ever() }).expect("fork");
    let pid = raw_fork();
    if pid == 0 {
        let inert =
            matches!(child.try_join(), Some(Err(JoinError::NotOurChild))) && child.kill().is_err();
        drop(child);
        let value = fork(|| 7).ok().and_then(|child| child.join().ok());
        raw_exit(if inert && value == Some(7) { 5 } else { 6 });
    }
    assert_eq!(exit_code(pid), 5);
    assert!(child.is_alive());
    child.kill().expect("it lives");
    assert!(matches!(child.join(), Err(JoinError::Killed(libc::SIGKILL))));
}

#[apply(test)]
fn fork_while_a_panic_unwinds_works() {
    struct ForksWhenDropped;
    impl Drop for ForksWhenDropped {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            assert_eq!(fork(|| 7).expect("fork").join().expect("a value"), 7);
        }
    }
    let child = fork(|| {
        quiet();
        std::panic::catch_unwind(|| {
            let _forks = ForksWhenDropped;
            panic!("the first");
        })
        .is_err()
    });
    assert!(child.expect("fork").join().expect("a value"));
}

/// A descriptor of a process that is not a child of this one.
fn watch(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(pid as i32).expect("a pid");
    pidfd_open(pid, PidfdFlags::empty()).expect("it lives")
}

/// Waits for the process to end.
#[track_caller]
fn wait_for(process: &OwnedFd) {
    wait_until("the process ends", || !is_alive(process));
}

fn is_alive(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") == 0
}

/// How a process tells another its number, or that it is ready.
struct Teller(PipeReader, PipeWriter);

impl Teller {
    fn new() -> Teller {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Teller(reader, writer)
    }

    fn tell(&self, pid: u32) {
        (&self.1).write_all(&pid.to_ne_bytes()).expect("somebody reads");
    }

    #[track_caller]
    fn hear(&self) -> u32 {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let patience =
            rustix::event::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).expect("poll");
        assert_eq!(
            ready,
            1,
            "waited {} s in vain for word from another process",
            PATIENCE.as_secs()
        );
        let mut pid = [0; 4];
        (&self.0).read_exact(&mut pid).expect("somebody writes");
        u32::from_ne_bytes(pid)
    }

    /// Another handle for the same pipe.
    fn share(&self) -> Teller {
        Teller(self.0.try_clone().expect("dup"), self.1.try_clone().expect("dup"))
    }
}

/// Forks a parent that forks a child that first does `childs_part`; gives the parent, after it has
/// done `parents_part`, and the child.
fn parent_and_child(childs_part: fn(), parents_part: fn(Child<()>)) -> (Child<()>, OwnedFd) {
    let pipe = Teller::new();
    let parents = pipe.share();
    let parent = fork(move || {
        quiet();
        let childs = parents.share();
        let child = fork(move || {
            childs_part();
            childs.tell(std::process::id());
            sleep_for_ever()
        });
        parents_part(child.expect("fork"));
    })
    .expect("fork");
    let child = watch(pipe.hear());
    (parent, child)
}

fn keep(child: Child<()>) {
    let _kept = child;
    sleep_for_ever();
}

fn dies_with_killed_parent(childs_part: fn()) {
    let (parent, child) = parent_and_child(childs_part, keep);
    assert!(is_alive(&child));
    parent.kill().expect("it lives");
    assert!(matches!(parent.join(), Err(JoinError::Killed(libc::SIGKILL))));
    wait_for(&child);
}

#[apply(test)]
fn child_dies_when_its_parent_is_killed() {
    for _ in 0..20 {
        dies_with_killed_parent(|| ());
    }
}

/// The parent dies before the child has made any, some or all of the arrangements to die with it.
#[apply(test)]
fn child_dies_whose_parent_is_killed_between_any_two_of_its_first_system_calls() {
    let mut calls = 0;
    while born_as_its_parent_is_killed(calls) {
        calls += 1;
        assert!(calls < 1000, "the child never comes to its closure");
    }
    // A signal mask, a lifeline and a parent-death signal are more than that.
    assert!(calls > 5, "the child made {calls} system calls before its closure");
}

/// Lets a traced process run up to its next system call, and gives the call's number.
fn next_call(process: nix::unistd::Pid) -> libc::c_long {
    loop {
        ptrace::syscall(process, None).expect("stopped");
        assert_eq!(waitpid(process, None), Ok(WaitStatus::PtraceSyscall(process)));
        let info = ptrace::syscall_info(process).expect("info");
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: at an entry stop this is the field of the union that the kernel has filled
            // in.
            return unsafe { info.u.entry.nr } as libc::c_long;
        }
    }
}

/// Forks a parent that forks, holds the child still before this one of its system calls, kills the
/// parent, lets the child go on and sees it die. False if the closure had begun by then.
///
/// The parent stays in its `fork` until the child begins to wait for it. How often the child looks
/// then is a matter of chance, so these calls are not counted.
fn born_as_its_parent_is_killed(calls: u32) -> bool {
    let parent = raw_fork();
    if parent == 0 {
        ptrace::traceme().expect("traceme");
        nix::sys::signal::raise(SIGSTOP).expect("raise");
        let _kept = fork(|| -> () { sleep_for_ever() });
        sleep_for_ever();
    }
    let parent = nix::unistd::Pid::from_raw(parent);
    assert_eq!(waitpid(parent, None), Ok(WaitStatus::Stopped(parent, SIGSTOP)));
    // What is traced when this process ends, ends too.
    let options =
        Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(parent, options).expect("setoptions");
    ptrace::cont(parent, None).expect("stopped");
    assert_eq!(
        waitpid(parent, None),
        Ok(WaitStatus::PtraceEvent(parent, SIGTRAP, libc::PTRACE_EVENT_FORK))
    );
    // The child is stopped before its first instruction.
    let child = nix::unistd::Pid::from_raw(ptrace::getevent(parent).expect("a pid") as i32);
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Stopped(child, SIGSTOP)));
    let process = watch(child.as_raw().cast_unsigned());
    let (mut counted, mut parent_goes_on, mut before_closure) = (0, false, true);
    // Before its first instruction, or before that system call.
    while counted < calls && before_closure {
        match next_call(child) {
            libc::SYS_sched_yield if !parent_goes_on => {
                ptrace::cont(parent, None).expect("stopped");
                parent_goes_on = true;
                counted += 1;
            }
            libc::SYS_sched_yield | libc::SYS_getppid | libc::SYS_fcntl if parent_goes_on => {}
            // Longer than the child sleeps between two looks.
            libc::SYS_clock_nanosleep if !parent_goes_on || sleeps_long(child) => {
                before_closure = false
            }
            libc::SYS_clock_nanosleep => {}
            _ => counted += 1,
        }
    }
    nix::sys::signal::kill(parent, SIGKILL).expect("it is ours");
    assert_eq!(waitpid(parent, None), Ok(WaitStatus::Signaled(parent, SIGKILL, false)));
    // Where the lifeline has killed it already, there is only its end to be seen.
    if ptrace::detach(child, None).is_err() {
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Signaled(child, SIGKILL, false)));
    }
    wait_until(
        &format!("the child dies whose parent was killed before its system call number {calls}"),
        || !is_alive(&process),
    );
    before_closure
}

/// Whether a traced process that is about to sleep asks for a second or more.
fn sleeps_long(process: nix::unistd::Pid) -> bool {
    let info = ptrace::syscall_info(process).expect("info");
    // SAFETY: at an entry stop this is the field of the union that the kernel has filled in.
    let [_, _, time, ..] = unsafe { info.u.entry.args };
    ptrace::read(process, time as ptrace::AddressType).expect("a time") > 0
}

#[apply(test)]
fn child_dies_when_its_parent_returns_exits_or_panics() {
    // Each waits until the test has seen the child.
    fn wait_for_signal() {
        let mut usr1 = nix::sys::signal::SigSet::empty();
        usr1.add(nix::sys::signal::Signal::SIGUSR1);
        usr1.wait().expect("sigwait");
    }
    let ends: [fn(Child<()>); 3] = [
        |_child| wait_for_signal(),
        |_child| {
            wait_for_signal();
            std::process::exit(3)
        },
        |_child| {
            wait_for_signal();
            panic!("the parent's end")
        },
    ];
    let mut usr1 = nix::sys::signal::SigSet::empty();
    usr1.add(nix::sys::signal::Signal::SIGUSR1);
    usr1.thread_block().expect("sigprocmask");
    let endings = ends.map(|end| {
        let (parent, child) = parent_and_child(|| (), end);
        assert!(is_alive(&child));
        parent.signal(libc::SIGUSR1).expect("it lives");
        wait_for(&child);
        parent.join()
    });
    usr1.thread_unblock().expect("sigprocmask");
    assert!(
        matches!(endings, [Ok(()), Err(JoinError::Exited(3)), Err(JoinError::Panicked(_))]),
        "{endings:?}"
    );
}

#[apply(test)]
fn stopped_child_dies_when_its_parent_is_killed() {
    let (parent, child) = parent_and_child(|| (), keep);
    rustix::process::pidfd_send_signal(&child, Signal::STOP).expect("it lives");
    let pid = std::fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&child)
    ))
    .expect("a pidfd");
    let pid = pid
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .expect("its pid")
        .trim()
        .parse()
        .expect("a number");
    wait_until_stopped(pid);
    parent.kill().expect("it lives");
    assert!(parent.join().is_err());
    wait_for(&child);
}

fn block_all() {
    nix::sys::signal::SigSet::all().thread_block().expect("sigprocmask");
}

#[apply(test)]
fn child_that_blocks_every_signal_dies_when_its_parent_is_killed() {
    dies_with_killed_parent(block_all);
}

#[apply(test)]
fn child_of_a_parent_that_blocks_every_signal_dies_with_it() {
    let pipe = Teller::new();
    let parents = pipe.share();
    let parent = fork(move || {
        block_all();
        let child = fork(move || -> () {
            cut_lifeline();
            parents.tell(std::process::id());
            sleep_for_ever()
        });
        keep(child.expect("fork"));
    })
    .expect("fork");
    let child = watch(pipe.hear());
    parent.kill().expect("it lives");
    assert!(parent.join().is_err());
    wait_for(&child);
}

#[apply(test)]
fn child_without_parent_death_signal_dies_when_its_parent_is_killed() {
    dies_with_killed_parent(|| {
        rustix::process::set_parent_process_death_signal(None).expect("prctl")
    });
}

/// This child's end of the lifeline: the one descriptor in signal-driven mode.
fn lifeline() -> i32 {
    let mut found = common::descriptors().into_keys().filter(|&fd| {
        // SAFETY: takes no pointer.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        flags != -1 && flags & libc::O_ASYNC != 0
    });
    let lifeline = found.next().expect("a lifeline");
    assert_eq!(found.next(), None);
    lifeline
}

/// Closes this child's end of the lifeline.
fn cut_lifeline() {
    // SAFETY: takes no pointer; the owner of this descriptor never uses it again, nor drops it.
    assert_eq!(unsafe { libc::close(lifeline()) }, 0);
}

#[apply(test)]
fn child_without_lifeline_dies_when_its_parent_is_killed() {
    dies_with_killed_parent(cut_lifeline);
}

/// As a child does that changes its user, unless its parent is root.
fn lose_both() {
    rustix::process::set_parent_process_death_signal(None).expect("prctl");
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::fcntl(lifeline(), libc::F_SETOWN, 0) }, 0);
}

/// A sandbox that refuses `getpid` makes it answer -1, and a signal to -1 is for every process that
/// this one may signal. A child that compared its parent with that ended itself so, and with it all
/// that its user had running. Here `kill` is refused as well, and later the change of an owner, so
/// that nobody is hit.
#[apply(test)]
fn a_process_that_cannot_find_out_its_pid_signals_nobody() {
    let sandboxed = || sandbox::refuse(&[libc::SYS_getpid, libc::SYS_kill], libc::EPERM);
    let forks = Errand::send(|| {
        sandboxed();
        match fork(|| ()) {
            Err(error) => error.to_string(),
            Ok(child) => format!("a child that ended with {:?}", child.join()),
        }
    });
    assert_eq!(forks.answer(), "getpid failed");
    let attaches = Errand::send(|| {
        sandboxed();
        match Event::new() {
            Err(error) => error.to_string(),
            Ok(_) => "attached".to_string(),
        }
    });
    let refused = attaches.answer();
    assert!(refused.contains("getpid"), "{refused}");
    let board = Board::new();
    let child = fork(move || {
        sandboxed();
        let owner = Some((1, u32::MAX, libc::F_SETOWN.cast_unsigned()));
        sandbox::install(&[sandbox::Rule {
            call: libc::SYS_fcntl,
            only: owner,
            errno: libc::EXDEV,
        }]);
        let refused = offspring::end_with_parent().expect_err("no owner could be named");
        board.say(&format!("{:?}", refused.raw_os_error()));
    });
    // It cannot send a value, as it cannot tell whether it is the child or a copy of it.
    let _ = child.expect("fork").join();
    assert_eq!(board.text(), "Some(1)", "what `getpid` says, and not what naming an owner does");
}

#[apply(test)]
fn child_that_lost_both_dies_with_its_parent_once_it_has_asked_for_that() {
    dies_with_killed_parent(|| {
        lose_both();
        offspring::end_with_parent().expect("a child");
        rustix::process::set_parent_process_death_signal(None).expect("prctl");
    });
    dies_with_killed_parent(|| {
        lose_both();
        offspring::end_with_parent().expect("a child");
        cut_lifeline();
    });
    // It has indeed lost both.
    let (parent, child) = parent_and_child(lose_both, keep);
    parent.kill().expect("it lives");
    assert!(matches!(parent.join(), Err(JoinError::Killed(libc::SIGKILL))));
    assert!(is_alive(&child));
    rustix::process::pidfd_send_signal(&child, Signal::KILL).expect("it lives");
    wait_for(&child);
}

/// A process that libc's `fork` makes of the parent, after its child, must not keep the lifeline:
/// each of these children has nothing else.
#[apply(test)]
fn child_dies_beside_a_raw_fork_of_its_parent() {
    let without_the_signal: [fn(); 4] = [
        || rustix::process::set_parent_process_death_signal(None).expect("prctl"),
        block_all,
        // SAFETY: takes no pointer.
        || assert_ne!(unsafe { libc::signal(libc::SIGSTKFLT, libc::SIG_IGN) }, libc::SIG_ERR),
        // SAFETY: takes no pointer.
        || assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0),
    ];
    for childs_part in without_the_signal {
        let (pipe, end) = (Teller::new(), Teller::new());
        let (parents, bystanders) = (pipe.share(), end.share());
        let parent = fork(move || {
            let child = fork(move || -> () {
                childs_part();
                sleep_for_ever()
            });
            let child = child.expect("fork");
            if raw_fork() == 0 {
                // Has whatever its parent had open, and outlives it.
                bystanders.hear();
                raw_exit(0);
            }
            wait_until("the child has done its part", || is_asleep_or_stopped(child.id()));
            parents.tell(child.id());
            keep(child);
        })
        .expect("fork");
        let child = watch(pipe.hear());
        assert!(is_alive(&child));
        parent.kill().expect("it lives");
        assert!(parent.join().is_err());
        wait_for(&child);
        end.tell(0);
    }
}

fn is_asleep_or_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc is mounted");
    let state = stat.rsplit_once(')').expect("a name").1.trim_start();
    // `sleep_for_ever` is the only thing that a child sleeps in; while it is being born it yields.
    state.starts_with(['S', 'T'])
}

#[apply(test)]
fn grandchildren_die_when_their_grandparent_is_killed() {
    let pipe = Teller::new();
    let (parents, childs, grandchilds) = (pipe.share(), pipe.share(), pipe.share());
    let parent = fork(move || {
        let child = fork(move || {
            let grandchild = fork(move || -> () {
                grandchilds.tell(std::process::id());
                sleep_for_ever()
            });
            childs.tell(std::process::id());
            keep(grandchild.expect("fork"));
        });
        parents.tell(std::process::id());
        keep(child.expect("fork"));
    })
    .expect("fork");
    let all = [pipe.hear(), pipe.hear(), pipe.hear()].map(watch);
    parent.kill().expect("it lives");
    all.iter().for_each(wait_for);
    assert!(parent.join().is_err());
}

#[apply(test)]
fn dropped_child_dies_when_its_parent_is_killed() {
    let (parent, child) = parent_and_child(
        || (),
        |child| {
            drop(child);
            sleep_for_ever();
        },
    );
    assert!(is_alive(&child));
    parent.kill().expect("it lives");
    assert!(parent.join().is_err());
    wait_for(&child);
}

#[apply(test)]
fn siblings_do_not_keep_each_other_alive() {
    let pipe = Teller::new();
    let parents = pipe.share();
    let parent = fork(move || {
        let children: Vec<Child<()>> = (0..5)
            .map(|_| {
                let childs = parents.share();
                let child = fork(move || {
                    // The lifeline alone has to do.
                    rustix::process::set_parent_process_death_signal(None).expect("prctl");
                    childs.tell(std::process::id());
                    sleep_for_ever()
                });
                child.expect("fork")
            })
            .collect();
        let _kept = children;
        sleep_for_ever()
    })
    .expect("fork");
    let parent: Child<()> = parent;
    let children: Vec<OwnedFd> = (0..5).map(|_| watch(pipe.hear())).collect();
    parent.kill().expect("it lives");
    children.iter().for_each(wait_for);
    assert!(parent.join().is_err());
}

#[apply(test)]
fn child_dies_when_its_parent_becomes_another_program() {
    let (parent, child) = parent_and_child(
        || (),
        |child| {
            let _kept = child;
            let mut usr1 = nix::sys::signal::SigSet::empty();
            usr1.add(nix::sys::signal::Signal::SIGUSR1);
            usr1.thread_block().expect("sigprocmask");
            usr1.wait().expect("sigwait");
            panic!("{}", Command::new("sleep").arg("3600").exec());
        },
    );
    assert!(is_alive(&child));
    // Should it come before the parent blocks it, the parent dies of it, and so does the child.
    parent.signal(libc::SIGUSR1).expect("it lives");
    wait_for(&child);
    parent.kill().expect("it is not joined");
    assert!(parent.join().is_err());
}

#[apply(test)]
fn last_thread_may_fork_when_the_main_thread_has_ended() {
    let parent = fork(|| -> () {
        std::thread::spawn(|| {
            common::wait_for_main_thread();
            let value = fork(|| fork(|| 7).expect("fork").join().expect("a value"));
            std::process::exit(value.expect("there is one thread").join().expect("a value"));
        });
        raw::end_this_thread()
    });
    let ending = parent.expect("fork").join();
    assert!(matches!(ending, Err(JoinError::Exited(7))), "{ending:?}");
}

fn outlives_thread(childs_part: fn()) {
    let pipe = Teller::new();
    let answers = Teller::new();
    let (parents, parents_answers) = (pipe.share(), answers.share());
    let parent = fork(move || -> () {
        let (mut question, ask) = std::io::pipe().expect("a pipe");
        let child = fork(move || -> () {
            childs_part();
            parents_answers.tell(std::process::id());
            loop {
                question.read_exact(&mut [0]).expect("the parent asks");
                parents_answers.tell(std::process::id());
            }
        });
        std::thread::spawn(move || {
            let _kept = child.expect("fork");
            common::wait_for_main_thread();
            for _ in 0..10 {
                (&ask).write_all(b"?").expect("the child listens");
                std::thread::sleep(Duration::from_millis(2));
            }
            parents.tell(std::process::id());
            sleep_for_ever();
        });
        raw::end_this_thread()
    })
    .expect("fork");
    let id = answers.hear();
    let child = watch(id);
    pipe.hear();
    for _ in 0..10 {
        assert_eq!(answers.hear(), id);
    }
    assert!(is_alive(&child), "only a thread has ended");
    assert!(parent.is_alive());
    parent.kill().expect("it lives");
    wait_for(&child);
    assert!(matches!(parent.join(), Err(JoinError::Killed(libc::SIGKILL))));
}

#[apply(test)]
fn child_outlives_the_thread_that_forked_it_but_not_the_process() {
    for _ in 0..5 {
        outlives_thread(|| ());
    }
}

#[apply(test)]
fn child_without_lifeline_outlives_the_thread_that_forked_it_but_not_the_process() {
    for _ in 0..5 {
        outlives_thread(cut_lifeline);
    }
}
