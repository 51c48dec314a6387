//! The child's side of a fork, from its first instruction to its last.
//!
//! Called by `fork.rs`, in the child only. Nothing here returns: whatever the closure does, the
//! process ends by `_exit`.
//!
//! # Panics in the child
//! A hook, set in the child before the closure runs, notes place and stack of each panic and then
//! calls the hook that was there, so that the message still goes to standard error. Only if the
//! panic ends the closure is the note sent. The stack is noted if the environment asks for it, as
//! for every panic, and put into words only then, since looking up names is slow. A caught panic
//! followed by `resume_unwind` of another one is told from it by its message.
//!
//! With `panic = "abort"` nothing can be caught: there the hook sends the note itself, and the
//! abort that follows is told as the panic it is.
//!
//! # Peer death
//! Killed before the outcome is wholly written, the child sent nothing; after that, everything.
//! What it held in the segments is given back by itself as the last thing, or else by the parent.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{PoisonError, RwLock};

use serde::Serialize;

use crate::object::lineage::Lineage;
use crate::process::family;
use crate::process::outcome::{OutcomeFile, Record};
use crate::process::panic_info::{Location, PanicInfo};
use crate::sys::at_fork;
use crate::sys::error::OsError;
use crate::sys::process::{self as sys, Lifeline, Wrapped};

/// Exit code of a child whose closure returned.
const RETURNED: i32 = 0;
/// Exit code of a child whose closure panicked, the same as that of a program whose `main` does.
const PANICKED: i32 = 101;

/// What the parent prepared for the child. It stays in the parent's frame, of which the child has a
/// copy that nothing ever drops.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) parent: u32,
    pub(super) lineage: Lineage,
    pub(super) outcome: OutcomeFile,
    pub(super) lifeline: Lifeline,
    /// Whether descriptors of the parent's other relatives are open.
    pub(super) has_relatives: bool,
}

/// Lives the child's life: runs the closure, sends what became of it, ends the process.
pub(super) fn live<F, T>(closure: F, start: &Start, wrapped: &Wrapped) -> !
where
    F: FnOnce() -> T + Send + 'static,
    T: Serialize + 'static,
{
    let code = panic::catch_unwind(AssertUnwindSafe(|| {
        let process = sys::pid();
        match begin(start, wrapped, process) {
            Ok(()) => run(closure, start, process),
            Err(refused) => {
                start.outcome.write(&Record::not_started(refused));
                PANICKED
            }
        }
    }));
    // A panic outside the closure is a bug of this crate or of a panic hook; its payload is left
    // alone, as its `Drop` might panic once more.
    let code = code.unwrap_or_else(|payload| {
        mem::forget(payload);
        PANICKED
    });
    sys::exit_now(code)
}

fn run<F, T>(closure: F, start: &Start, process: u32) -> i32
where
    F: FnOnce() -> T,
    T: Serialize + 'static,
{
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        // The value moves to the parent, so its `Drop` is not for this process.
        let value = ManuallyDrop::new(closure());
        sys::pid() == process && start.outcome.send(&*value)
    }));
    if sys::pid() != process {
        // The closure forked by other means, and this is the copy that came back from it. It has
        // nothing to say here.
        return RETURNED;
    }
    let (sent, code) = match result {
        Ok(sent) => (sent, RETURNED),
        Err(payload) => {
            let panic = told(&*payload);
            mem::forget(payload);
            (start.outcome.write(&Record::panic(&panic)), PANICKED)
        }
    };
    sys::flush_stdio();
    // What this process holds in the segments is given back by its parent, as if it had been
    // killed: other threads of it may be at work in them up to the last instruction, so only the
    // kernel's word that all have ended will do.
    if sent { code } else { PANICKED }
}

/// Becomes a process of its own. No code of the program runs before that is done.
fn begin(start: &Start, wrapped: &Wrapped, process: u32) -> Result<(), OsError> {
    // Something else might come to lie where the parent has a segment.
    at_fork::closed()?;
    start.lineage.adopt(process);
    if start.has_relatives {
        family::begin();
    }
    sys::die_with_parent(start.parent, process, &start.lifeline)?;
    note_panics(&start.outcome, process);
    wrapped.let_signals_in();
    Ok(())
}

/// What the hook noted of a panic.
#[derive(Debug)]
struct Note {
    message: String,
    location: Option<Location>,
    backtrace: Backtrace,
}

thread_local! {
    /// The latest panic of this thread.
    static LATEST: RefCell<Option<Note>> = const { RefCell::new(None) };
}

/// What the hook knows that notes panics.
struct Noting {
    /// The process whose panics it notes. A child of that process inherits the hook and sets its
    /// own on top.
    process: u32,
    before: Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>,
    /// Where to send the note of a panic that aborts.
    abort_note: Option<OutcomeFile>,
}

/// That of the first child in this line, root to this process. A hook that keeps it here is set
/// without allocating: see [`Record`]. Written once, before anybody reads it.
static NOTING: RwLock<Option<Noting>> = RwLock::new(None);

/// Sets the hook that notes panics of this process and then calls the one that was set before.
fn note_panics(outcome: &OutcomeFile, process: u32) {
    if std::thread::panicking() {
        // Forked by a destructor that runs because of a panic: the hook cannot be changed now. The
        // message still travels.
        return;
    }
    let abort_note = cfg!(panic = "abort").then(|| outcome.duplicate()).and_then(Result::ok);
    let noting = Noting { process, before: panic::take_hook(), abort_note };
    let mut first = NOTING.write().unwrap_or_else(PoisonError::into_inner);
    panic::set_hook(match *first {
        None => {
            *first = Some(noting);
            Box::new(|info| {
                NOTING
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .for_each(|noting| noting.hear(info))
            })
        }
        // A child of a child: the hook that it inherited is at work with what stands there.
        Some(_) => Box::new(move |info| noting.hear(info)),
    });
}

impl Noting {
    fn hear(&self, info: &PanicHookInfo<'_>) {
        if sys::pid() == self.process {
            let note = Note::take(info);
            match &self.abort_note {
                Some(outcome) => {
                    outcome.write(&Record::panic(&note.into_info()));
                }
                // Not while the thread is being torn down, when nobody could read it any more.
                None => drop(LATEST.try_with(|latest| latest.replace(Some(note)))),
            }
        }
        (self.before)(info);
    }
}

impl Note {
    fn take(info: &PanicHookInfo<'_>) -> Note {
        Note {
            message: message(info.payload()),
            location: info.location().map(Location::from),
            backtrace: Backtrace::capture(),
        }
    }

    fn into_info(self) -> PanicInfo {
        let backtrace = match self.backtrace.status() {
            BacktraceStatus::Captured => self.backtrace.to_string(),
            _ => String::new(),
        };
        PanicInfo { message: self.message, location: self.location, backtrace }
    }
}

/// The panic with this payload, with place and stack if the latest note is of it.
fn told(payload: &(dyn Any + Send)) -> PanicInfo {
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
