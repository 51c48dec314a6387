//! The child's side of a fork, from its first instruction to its last.
//!
//! Called by `fork.rs`, in the child only. It never returns: whatever the closure does, the process
//! ends with `_exit`.
//!
//! # Panics in the child
//! Before the closure runs, the child sets a panic hook. It records place and stack of each panic
//! and then calls the previous hook, so that the message still goes to standard error. The record
//! is sent only if the panic ends the closure. The stack is recorded if the environment asks for
//! it, as for every panic, and its names are looked up only when it is sent, because that is slow.
//! If the closure catches a panic and then resumes another one (`resume_unwind`), their messages
//! tell the two apart.
//!
//! With `panic = "abort"` no panic can be caught. There the hook itself sends the record, so the
//! parent reports the abort that follows as a panic.
//!
//! # Peer death
//! A child killed before the outcome is completely written has sent nothing; after that,
//! everything. The parent releases what the child held in the segments.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{PoisonError, RwLock};

use crate::object::ends::Roll;
use crate::object::lineage::Lineage;
use crate::process::children;
use crate::process::outcome::{OutcomeFile, Record};
use crate::process::panic_info::{Location, PanicInfo};
use crate::process::returned::{Return, Way};
use crate::sys::at_fork;
use crate::sys::clock;
use crate::sys::error::OsError;
use crate::sys::process::{self as sys, Lifeline, Wrapped};

/// Exit code of a child whose closure returned.
const RETURNED: i32 = 0;
/// Exit code of a child whose closure panicked, the same as that of a program whose `main` panics.
pub(super) const PANICKED: i32 = 101;

/// What the parent prepared for the child. It stays in the parent's frame; the child has a copy of
/// that frame, which is never dropped.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) parent: u32,
    pub(super) lineage: Lineage,
    pub(super) outcome: OutcomeFile,
    /// `None` if the child goes on when the parent has ended.
    pub(super) lifeline: Option<Lifeline>,
    /// `None` if the parent has no ends of channels.
    pub(super) roll: Option<Roll>,
    /// Whether the child inherited descriptors that belong to the parent's other children or to the
    /// parent as a child.
    pub(super) has_inherited_children: bool,
}

/// Runs `work` as [`run`] does, and ends the process.
pub(super) fn run_child<W, T>(work: W, start: &Start, wrapped: &Wrapped) -> !
where
    W: FnOnce() -> Result<T, String>,
    T: Return,
{
    let code = panic::catch_unwind(AssertUnwindSafe(|| {
        let process = sys::pid();
        match begin(start, wrapped, process) {
            Ok(()) => run(work, &start.outcome, &start.lineage, process),
            Err(refused) => {
                start.outcome.write(&Record::not_started(refused));
                PANICKED
            }
        }
    }));
    // A panic outside the closure is a bug of this crate or of a panic hook. Its payload is not
    // dropped, because its `Drop` might panic again.
    let code = code.unwrap_or_else(|payload| {
        mem::forget(payload);
        PANICKED
    });
    sys::exit_now(code)
}

/// Runs `work` and sends what it returns, or why it could not begin. Gives the exit code.
pub(super) fn run<W, T>(work: W, outcome: &OutcomeFile, lineage: &Lineage, process: u32) -> i32
where
    W: FnOnce() -> Result<T, String>,
    T: Return,
{
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        // The value moves to the parent, so this process does not drop it.
        let mut value = match work() {
            Ok(value) => ManuallyDrop::new(value),
            Err(why) => return sys::pid() == process && outcome.send_not_started(&why),
        };
        let way = Way { outcome, lineage };
        sys::pid() == process && T::send(&mut value, way)
    }));
    if sys::pid() != process {
        // The closure forked by other means, and this is the copy. It must not send an outcome.
        return RETURNED;
    }
    let (sent, code) = match result {
        Ok(sent) => (sent, RETURNED),
        Err(payload) => {
            let panic = panic_info(&*payload);
            mem::forget(payload);
            (outcome.write(&Record::panic(&panic)), PANICKED)
        }
    };
    sys::flush_stdio();
    // The parent releases what this process holds in the segments, as if it had been killed. Other
    // threads of this process may use the segments up to the last instruction, and only the kernel
    // can say that all of them have ended.
    if sent { code } else { PANICKED }
}

/// Sets up this process as a child. No code of the program runs before that is done.
fn begin(start: &Start, wrapped: &Wrapped, process: u32) -> Result<(), OsError> {
    // Otherwise something else might be mapped where the parent has a segment.
    at_fork::closed()?;
    start.lineage.adopt(process);
    if start.has_inherited_children {
        children::after_fork_in_child();
    }
    if let Some(lifeline) = &start.lifeline {
        sys::die_with_parent(start.parent, process, lifeline)?;
    }
    if let Some(roll) = &start.roll {
        // Only where the kernel refused to say whether the parent is done, it may not be.
        while !roll.take_over(&start.lineage) {
            sys::end_without_parent(start.parent);
            clock::sleep(sys::BETWEEN_LOOKS);
        }
    }
    set_panic_hook(&start.outcome, process);
    wrapped.let_signals_in();
    Ok(())
}

/// What the hook recorded of a panic.
#[derive(Debug)]
struct PanicNote {
    message: String,
    location: Option<Location>,
    backtrace: Backtrace,
}

thread_local! {
    /// The latest panic of this thread.
    static LATEST: RefCell<Option<PanicNote>> = const { RefCell::new(None) };
}

/// A panic hook that records panics and then calls the previous hook.
struct PanicHook {
    /// The process whose panics it records. A child of that process inherits the hook and sets its
    /// own on top.
    process: u32,
    previous: Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>,
    /// Where to send the record of a panic that aborts.
    abort_outcome: Option<OutcomeFile>,
}

/// The hook of the first child between the root of the process tree and this process. A hook that
/// is kept here can be set without allocating: see [`Record`]. Written once, before any read.
static FIRST_HOOK: RwLock<Option<PanicHook>> = RwLock::new(None);

/// Sets the hook that records panics of this process and then calls the previous one.
pub(super) fn set_panic_hook(outcome: &OutcomeFile, process: u32) {
    if std::thread::panicking() {
        // A destructor that runs because of a panic has forked, so the hook cannot be changed now.
        // The message is still sent.
        return;
    }
    let abort_outcome = cfg!(panic = "abort").then(|| outcome.duplicate()).and_then(Result::ok);
    let hook = PanicHook { process, previous: panic::take_hook(), abort_outcome };
    let mut first = FIRST_HOOK.write().unwrap_or_else(PoisonError::into_inner);
    panic::set_hook(match *first {
        None => {
            *first = Some(hook);
            Box::new(|info| {
                FIRST_HOOK
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .for_each(|hook| hook.call(info))
            })
        }
        // A child of a child: the hook that it inherited uses that place.
        Some(_) => Box::new(move |info| hook.call(info)),
    });
}

impl PanicHook {
    fn call(&self, info: &PanicHookInfo<'_>) {
        if sys::pid() == self.process {
            let note = PanicNote::take(info);
            match &self.abort_outcome {
                Some(outcome) => {
                    outcome.write(&Record::panic(&note.into_info()));
                }
                // Skipped while the thread is being torn down, when it could not be read any more.
                None => drop(LATEST.try_with(|latest| latest.replace(Some(note)))),
            }
        }
        (self.previous)(info);
    }
}

impl PanicNote {
    fn take(info: &PanicHookInfo<'_>) -> PanicNote {
        PanicNote {
            message: message(info.payload()),
            location: info.location().map(Location::from),
            backtrace: Backtrace::capture(),
        }
    }

    fn into_info(self) -> PanicInfo {
        let backtrace = match self.backtrace.status() {
            BacktraceStatus::Captured if has_memory_for_names() => self.backtrace.to_string(),
            _ => String::new(),
        };
        PanicInfo { message: self.message, location: self.location, backtrace }
    }
}

/// Whether there is memory enough to look up the names of a stack, which takes some times as much
/// as the program has bytes.
///
/// std looks them up under a lock. If it gets no memory there it wants to print a stack, for which
/// it waits for the same lock.
fn has_memory_for_names() -> bool {
    let program = std::fs::metadata("/proc/self/exe").map_or(0, |file| file.len());
    let most = program.saturating_mul(8).saturating_add(128 << 20);
    usize::try_from(most).is_ok_and(|most| Vec::<u8>::new().try_reserve_exact(most).is_ok())
}

/// The panic with this payload, with place and stack if the latest record belongs to it.
fn panic_info(payload: &(dyn Any + Send)) -> PanicInfo {
    let message = message(payload);
    match LATEST.take().filter(|note| note.message == message) {
        Some(note) => note.into_info(),
        None => PanicInfo { message, location: None, backtrace: String::new() },
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "Box<dyn Any>".to_owned(),
    }
}
