//! A process that another lets run one instruction at a time.
//!
//! The traced process is a raw fork of the tracer, so the two have program and libraries at the
//! same addresses, and the tracer reads the next instruction in its own memory. A system call is
//! one step, whatever happens inside the kernel.
//!
//! A mark is the instruction `int3`: it delimits the operation that is to be stepped through, and
//! adds no instruction of libc's to it.
#![expect(unsafe_code, reason = "fork, a trap instruction and a look at program text")]

use std::io::{PipeReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Where an operation begins and ends. Only for a traced process; any other is killed by it.
pub fn mark() {
    // SAFETY: the trap changes no memory and no register; the tracer lets the process go on.
    unsafe { core::arch::asm!("int3") };
}

/// As [`mark`], and tells the tracer something, which [`Tracee::told`] gives there.
pub fn mark_telling(value: u64) {
    // SAFETY: as in `mark`.
    unsafe { core::arch::asm!("int3", in("rdi") value) };
}

/// Begins to trace a process that has asked for it and stops itself, and all that it makes. They
/// end with the tracer.
pub fn trace_family(first: Pid) {
    assert!(
        matches!(waitpid(first, None), Ok(WaitStatus::Stopped(_, Signal::SIGSTOP))),
        "it stops itself"
    );
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, options).expect("stopped");
}

/// Asks to be traced by the parent.
pub fn let_trace() {
    ptrace::traceme().expect("nobody traces it yet");
}

/// Runs `life` in a copy of this process, which ends with it, and ends when this process does. It
/// does not count as a child of the crate's.
pub fn raw_fork(life: impl FnOnce()) -> Pid {
    let own = nix::unistd::getpid();
    // SAFETY: this process has one thread, so the copy may go on as this one does.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", Errno::last()),
        0 => {
            let life = || {
                super::parent::end_with(own);
                life();
            };
            let code = if catch_unwind(AssertUnwindSafe(life)).is_ok() { 0 } else { 101 };
            // SAFETY: ends the process at once and runs nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid),
    }
}

/// Has this process killed by `SIGALRM` unless it ends before; 0 takes that back.
pub fn alarm(seconds: u32) {
    nix::unistd::alarm::cancel();
    if seconds > 0 {
        nix::unistd::alarm::set(seconds);
    }
}

/// Kills a child and waits until it is dead.
pub fn kill_and_wait(pid: Pid) {
    kill(pid, Signal::SIGKILL).expect("it is ours");
    while !matches!(
        waitpid(pid, None).expect("it is ours"),
        WaitStatus::Signaled(..) | WaitStatus::Exited(..)
    ) {}
}

/// A copy of this process that works something out.
pub struct Errand {
    pid: Pid,
    answer: PipeReader,
}

impl Errand {
    /// Sends a copy of this process, which must be back within `seconds`.
    pub fn send(seconds: u32, work: impl FnOnce() -> String) -> Errand {
        let (answer, mut theirs) = std::io::pipe().expect("a pipe");
        let pid = raw_fork(|| {
            alarm(seconds);
            std::panic::set_hook(Box::new(|_| ()));
            let text = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(text) => format!("+{text}"),
                Err(panic) => format!("-{}", reason(&*panic)),
            };
            theirs.write_all(text.as_bytes()).expect("somebody listens");
        });
        Errand { pid, answer }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What came of it; the error says how it failed.
    pub fn answer(mut self) -> Result<String, String> {
        let mut text = String::new();
        self.answer.read_to_string(&mut text).expect("readable");
        match waitpid(self.pid, None).expect("it is ours") {
            WaitStatus::Exited(_, 0) => {}
            WaitStatus::Signaled(_, Signal::SIGALRM, _) => return Err("hung".to_owned()),
            other => return Err(format!("{other:?}")),
        }
        match text.split_at_checked(1) {
            Some(("+", answer)) => Ok(answer.to_owned()),
            Some((_, panic)) => Err(panic.to_owned()),
            None => Err("no answer".to_owned()),
        }
    }
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic".to_owned(),
    }
}

/// A system call as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

/// What the next instruction of a traced process is.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    Plain,
    Call(Call),
    /// It is about to ask for the time, in the code that the kernel has put into every process for
    /// that.
    Clock,
    /// It has come to a mark, and has not passed it.
    Mark,
}

const TRAP: u8 = 0xcc;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Bytes of the kernel's code in a process; a bound.
const VDSO_LEN: u64 = 2 << 12;

fn vdso() -> u64 {
    static ADDRESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    // SAFETY: takes an integer.
    *ADDRESS.get_or_init(|| unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) })
}

/// A traced process, stopped. Killed when dropped.
pub struct Tracee {
    pid: Pid,
    /// A signal that came during the last step and goes to the process with the next one.
    pending: Option<Signal>,
    ended: Option<WaitStatus>,
}

impl Tracee {
    /// Starts `life` in a copy of this process and lets it run up to its first mark.
    pub fn start(life: impl FnOnce()) -> Tracee {
        let pid = raw_fork(|| {
            let_trace();
            life();
        });
        Tracee::adopt(pid.as_raw().cast_unsigned())
    }

    /// Takes over a process that has asked to be traced, and waits until it has come to its first
    /// mark.
    pub fn adopt(pid: u32) -> Tracee {
        let pid = Pid::from_raw(pid.cast_signed());
        let mut tracee = Tracee { pid, pending: None, ended: None };
        tracee.expect_mark();
        tracee
    }

    fn expect_mark(&mut self) {
        loop {
            match waitpid(self.pid, None).expect("it is ours") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return,
                WaitStatus::Stopped(_, signal) => ptrace::cont(self.pid, signal).expect("stopped"),
                other => panic!("ended before its mark: {other:?}"),
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How the process ended, if it did.
    pub fn ended(&self) -> Option<WaitStatus> {
        self.ended
    }

    /// Its registers.
    pub fn registers(&self) -> libc::user_regs_struct {
        ptrace::getregs(self.pid).expect("stopped")
    }

    /// What it tells at the mark that it stands before.
    pub fn told(&self) -> u64 {
        self.registers().rdi
    }

    /// Looks at the next instruction.
    pub fn next(&self) -> Next {
        let registers = self.registers();
        if (vdso()..vdso() + VDSO_LEN).contains(&registers.rip) {
            return Next::Clock;
        }
        // SAFETY: the process is a fork of this one that has loaded nothing since, so at the
        // address that it is about to execute this process has the same program text, and no
        // instruction is the last byte of a mapping.
        let code = unsafe { core::ptr::read(registers.rip as *const [u8; 2]) };
        if code[0] == TRAP {
            return Next::Mark;
        }
        if code != SYSCALL {
            return Next::Plain;
        }
        let arguments = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        Next::Call(Call { number: registers.rax as i64, arguments })
    }

    /// Lets it execute one instruction; false if it ended.
    pub fn step(&mut self) -> bool {
        if ptrace::step(self.pid, self.pending.take()).is_err() {
            self.ended = Some(waitpid(self.pid, None).expect("it is ours"));
            return false;
        }
        match waitpid(self.pid, None).expect("it is ours") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => true,
            WaitStatus::Stopped(_, signal) => {
                self.pending = Some(signal);
                true
            }
            other => {
                self.ended = Some(other);
                false
            }
        }
    }

    /// Makes the system call that it stands before return `result` without being made.
    pub fn pretend(&self, result: i64) {
        let mut registers = self.registers();
        registers.rip += SYSCALL.len() as u64;
        registers.rax = result as u64;
        ptrace::setregs(self.pid, registers).expect("stopped");
    }

    /// Has the clock that it is about to ask say so many nanoseconds, without being asked.
    pub fn pretend_time(&self, nanoseconds: u64) {
        let mut registers = self.registers();
        let word = |address: u64| address as ptrace::AddressType;
        let [seconds, rest] =
            [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000].map(u64::cast_signed);
        // clock_gettime(2): the second argument is where the time goes.
        ptrace::write(self.pid, word(registers.rsi), seconds).expect("its own memory");
        ptrace::write(self.pid, word(registers.rsi + 8), rest).expect("its own memory");
        // And back to where it was called from.
        registers.rip =
            ptrace::read(self.pid, word(registers.rsp)).expect("its own stack").cast_unsigned();
        registers.rsp += 8;
        registers.rax = 0;
        ptrace::setregs(self.pid, registers).expect("stopped");
    }

    /// Lets it run freely up to its next system call; false if it comes to a mark or ends before.
    pub fn run_to_next_call(&mut self) -> bool {
        loop {
            ptrace::syscall(self.pid, self.pending.take()).expect("stopped");
            match waitpid(self.pid, None).expect("it is ours") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    let registers = self.registers();
                    if registers.orig_rax as i64 == -1 {
                        return false;
                    }
                    // At the entry of a call the kernel shows ENOSYS as its result so far.
                    if registers.rax as i64 == -i64::from(libc::ENOSYS) {
                        return true;
                    }
                }
                WaitStatus::Stopped(_, signal) => self.pending = Some(signal),
                other => {
                    self.ended = Some(other);
                    return false;
                }
            }
        }
    }

    /// As [`Tracee::run_to_next_call`], up to its next one of this number.
    pub fn run_to_call(&mut self, number: i64) -> bool {
        while self.run_to_next_call() {
            if self.registers().orig_rax as i64 == number {
                return true;
            }
        }
        false
    }

    /// As [`Tracee::run_to_call`], up to its next wait on a word, or waking of those who wait
    /// there, as `operation` of futex(2) says.
    pub fn run_to_futex(&mut self, operation: i32) -> bool {
        while self.run_to_call(libc::SYS_futex) {
            if self.registers().rsi as i32 == operation {
                return true;
            }
        }
        false
    }

    /// How long the wait on a word may last that it is about to begin, as [`Tracee::run_to_futex`]
    /// has left it.
    pub fn timeout(&self) -> Duration {
        let address = self.registers().r10;
        let word = |at: u64| {
            ptrace::read(self.pid, at as ptrace::AddressType)
                .expect("its own memory")
                .cast_unsigned()
        };
        if address == 0 {
            Duration::MAX
        } else {
            Duration::from_secs(word(address)) + Duration::from_nanos(word(address + 8))
        }
    }

    /// Has the system call that it is about to begin not made, and return `result`.
    pub fn skip_call(&mut self, result: i64) {
        let mut registers = self.registers();
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.pid, registers).expect("stopped");
        ptrace::syscall(self.pid, None).expect("stopped");
        assert_eq!(waitpid(self.pid, None), Ok(WaitStatus::Stopped(self.pid, Signal::SIGTRAP)));
        registers.rax = result as u64;
        ptrace::setregs(self.pid, registers).expect("stopped");
    }

    /// Lets it begin the wait on a word that it stands before, with no end but by being woken.
    pub fn wait_without_end(&mut self) {
        let mut registers = self.registers();
        registers.r10 = 0;
        ptrace::setregs(self.pid, registers).expect("stopped");
        ptrace::syscall(self.pid, None).expect("stopped");
    }

    /// What the system call that it was let into has returned, once it has.
    pub fn returned(&mut self) -> Option<i64> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).expect("it is ours") {
            WaitStatus::StillAlive => None,
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Some(self.registers().rax.cast_signed()),
            other => panic!("it is not in a call: {other:?}"),
        }
    }

    /// Once it has ended, says how. Lets it go on past whatever stops it.
    pub fn look_for_end(&mut self) -> Option<WaitStatus> {
        while self.ended.is_none() {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).expect("it is ours") {
                WaitStatus::StillAlive => return None,
                WaitStatus::Stopped(_, Signal::SIGTRAP) => self.go_on(None),
                WaitStatus::Stopped(_, signal) => self.go_on(Some(signal)),
                ended => self.ended = Some(ended),
            }
        }
        self.ended
    }

    /// Lets it run freely, with the signal that it stopped for, if it is to have one.
    pub fn go_on(&self, signal: Option<Signal>) {
        ptrace::cont(self.pid, signal).expect("stopped");
    }

    /// Lets it run freely up to its next mark.
    pub fn run_to_mark(&mut self) {
        self.go_on(None);
        self.expect_mark();
    }

    /// Lets it run freely to its end, past all marks, and says how it ended.
    pub fn run_to_end(mut self) -> WaitStatus {
        self.go_on(None);
        loop {
            match waitpid(self.pid, None).expect("it is ours") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => self.go_on(None),
                WaitStatus::Stopped(_, signal) => self.go_on(Some(signal)),
                ended => {
                    self.ended = Some(ended);
                    return ended;
                }
            }
        }
    }

    /// Kills it. It is dead when this returns, and waited for.
    pub fn kill(mut self) {
        self.end();
    }

    /// Kills it and leaves its status to be waited for by somebody else in this process.
    pub fn kill_for_its_parent(mut self) {
        if self.ended.is_none() {
            kill(self.pid, Signal::SIGKILL).expect("it is ours");
            self.ended = Some(WaitStatus::StillAlive);
        }
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            kill_and_wait(self.pid);
            self.ended = Some(WaitStatus::StillAlive);
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.end();
    }
}
