//! The child's side of a start, where the child is no copy of its parent: from before `main` to its
//! last instruction.
//!
//! # How a program becomes a child
//! The parent starts the same program once more, with a variable in its environment
//! ([`request::MARKER`]) and the [cord](super::request) as its standard input. In every program
//! that can start children there is a function among those that run before `main`. It finds neither
//! in a usual start, and returns: it costs one look at the environment. Otherwise it takes over,
//! and the program's `main` never runs.
//!
//! The variable alone does nothing. The standard input must be a socket that the process with the
//! named pid has made, for the same user. And a program that has more rights than its caller
//! (`AT_SECURE`) does not look at all; it cannot start children like this, either.
//!
//! Functions that would run before `main` and after ours run first, so that other crates find what
//! they have registered.
//!
//! # What is not as in `main`
//! The standard library has not set itself up. So a stack overflow is a plain `SIGSEGV`, and panic
//! messages do not name the thread.
//!
//! # Peer death
//! A child that is killed before it has sent its outcome has sent nothing. It ends with its parent
//! from the moment in which it is let go, and before that runs no code of the program.
#![expect(unsafe_code, reason = "a function that runs before main, and functions by their address")]

use core::ffi::{c_char, c_int};
use std::any::type_name;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};

use crate::object::lineage::Lineage;
use crate::process::children;
use crate::process::exit;
use crate::process::failure::Failure;
use crate::process::outcome::{Kept, Outcome, OutcomeFile, Record};
use crate::process::request::{self, Answer, Request};
use crate::process::returned::{Return, Source};
use crate::process::setting::{self, Unapplied};
use crate::process::zygote;
use crate::segment::Segment;
use crate::segment::pod::Fnv;
use crate::sys::descriptor::{FdName, OwnFile};
use crate::sys::error::OsError;
use crate::sys::process::{self as sys, BlockedBefore, OnlyThread};
use crate::sys::program::{self, Build, Initializer};
use crate::sys::{environment, socket};

/// Runs before `main`: its section is a list of functions of this type. It is also the fixed point
/// from which the addresses of functions are told.
#[used]
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: Initializer = take_over;

/// Makes this program one that can be started as a child: the linker leaves out what nobody names.
/// Gives the fixed point of addresses.
pub(super) fn fixed_point() -> usize {
    std::hint::black_box(&raw const TAKE_OVER).addr()
}

/// Runs the function at this address, whose types it knows. Gives the exit code.
pub(super) type Enter = fn(usize, &Begun) -> i32;

/// A hash of the types of a function.
pub(super) fn hash_of<A, T>() -> u64 {
    let mut hash = Fnv::new();
    hash.write(type_name::<fn(A) -> T>().as_bytes());
    for number in [size_of::<A>(), align_of::<A>(), size_of::<T>(), align_of::<T>()] {
        hash.write(&(number as u64).to_le_bytes());
    }
    hash.finish()
}

/// A child that is about to run its function.
pub(super) struct Begun {
    process: u32,
    /// The hash of the types of the function that is to be run.
    types: u64,
    outcome: OutcomeFile,
    arguments: Kept,
    lineage: Lineage,
}

/// Reads arguments of type `A`, runs the function at `address`, and sends what it returns.
pub(super) fn enter<A: Return, T: Return>(address: usize, begun: &Begun) -> i32 {
    let Begun { process, types, outcome, arguments, lineage } = begun;
    let work = || {
        if *types != hash_of::<A, T>() {
            return Err("the function has other types than its parent has told".to_owned());
        }
        // SAFETY: the parent has made the address from a function of this type, whose hash it has
        // told, and both processes run the same file. It lies in the program's code.
        let function = unsafe { core::mem::transmute::<usize, fn(A) -> T>(address) };
        let downward = lineage.downward();
        let read = A::receive(Source { kept: arguments, lineage: &downward }).0;
        let why = match read {
            Ok(Some(Outcome::Value(value))) => return Ok(function(value)),
            Ok(Some(Outcome::Undecodable(why))) => why,
            Ok(_) => "they are not there".to_owned(),
            Err(refused) => format!("{} failed: {}", refused.call, std::io::Error::from(refused)),
        };
        Err(format!("its arguments cannot be decoded: {why}"))
    };
    exit::run(work, outcome, lineage, *process)
}

/// Takes over if this process was started as a child or a zygote; otherwise returns.
extern "C" fn take_over(
    count: c_int,
    arguments: *const *const c_char,
    variables: *const *const c_char,
) {
    let Some(marker) = std::env::var_os(request::MARKER) else {
        return;
    };
    let Some((role, parent, cord)) = marker.to_str().and_then(take_cord) else {
        return;
    };
    // A panic must not leave a function that C calls.
    let code = panic::catch_unwind(AssertUnwindSafe(|| {
        if let Ok(alone) = OnlyThread::ask() {
            environment::remove(&alone, request::MARKER.as_ref());
        }
        environment::close_inherited();
        environment::ignore_broken_pipes();
        program::run_later_initializers(take_over, count, arguments, variables);
        let served = match role {
            Role::Child => {
                sys::handle_parent_death(parent).and_then(|()| Ok((cord, BlockedBefore::now()?)))
            }
            // Its parent learns from the copy which process that is.
            Role::Zygote => zygote::serve(cord, parent, prepare).and_then(|(cord, blocked)| {
                request::answer(&cord, Answer::Hello(sys::own_pid()?))?;
                Ok((cord, blocked))
            }),
        };
        match served {
            Ok((cord, blocked)) => run_child(cord, blocked),
            Err(_) => exit::PANICKED,
        }
    }));
    // As at the end of `main`: what was registered with `atexit` runs, coverage and profilers write
    // their data. The outcome is sent already.
    std::process::exit(code.unwrap_or(exit::PANICKED));
}

enum Role {
    Child,
    Zygote,
}

/// The parent and the cord of the child or zygote that the marker speaks of; `None` if this is
/// neither.
fn take_cord(marker: &str) -> Option<(Role, u32, OwnedFd)> {
    let (role, maker) = marker.split_once(':')?;
    let role = match role {
        request::CHILD => Role::Child,
        request::ZYGOTE => Role::Zygote,
        _ => return None,
    };
    if program::has_more_rights() {
        return None;
    }
    // Where the kernel does not tell, this is more likely a child than a usual start, and `main`
    // must not run in a child.
    let Ok((maker_really, own)) =
        socket::maker(environment::input()).and_then(|maker| Ok((maker, sys::user()?)))
    else {
        sys::exit_now(exit::PANICKED)
    };
    let (pid, user) = maker_really?;
    if own == user && pid == 0 {
        // It was started in another pid namespace than its parent's, and could not watch it.
        sys::exit_now(exit::PANICKED)
    }
    if maker.parse() != Ok(pid) || own != user {
        return None;
    }
    // From here on this is no usual start of the program.
    match environment::take_input() {
        Ok(cord) => Some((role, pid, cord)),
        Err(_) => sys::exit_now(exit::PANICKED),
    }
}

/// Runs the function that comes over the cord. Gives the exit code.
fn run_child(cord: OwnedFd, blocked: BlockedBefore) -> i32 {
    let process = sys::pid();
    let Ok(Some((request, descriptors))) = request::receive(&cord) else {
        return exit::PANICKED;
    };
    let mut descriptors = descriptors.into_iter();
    let received = |fd| OutcomeFile::received(fd, false).ok();
    let Some(outcome) = descriptors.next().and_then(received) else {
        return exit::PANICKED;
    };
    match begin(&cord, &request, outcome.name(), descriptors, blocked, process) {
        Ok((arguments, lineage)) => {
            drop(cord);
            let (enter, function) = match addresses(&request) {
                Ok(addresses) => addresses,
                Err(stop) => return stop.told(&outcome),
            };
            exit::set_panic_hook(&outcome, process);
            let begun = Begun { process, types: request.types, outcome, arguments, lineage };
            if let Some(before) = request.setting.before
                && let Err(how) = prepare(before)
            {
                return refuse(&begun.outcome, &setting::before_failed(&how));
            }
            enter(function, &begun)
        }
        Err(stop) => stop.told(&outcome),
    }
}

fn refuse(outcome: &OutcomeFile, why: &str) -> i32 {
    outcome.send_not_started(why);
    exit::PANICKED
}

/// Why the function is not called.
enum Stop {
    /// The parent has gone.
    Gone,
    /// The kernel has refused a call.
    Os(OsError),
    Other(String),
}

impl Stop {
    /// Tells the parent, if there is one. Gives the exit code.
    fn told(self, outcome: &OutcomeFile) -> i32 {
        match self {
            Stop::Gone => exit::PANICKED,
            Stop::Os(refused) => {
                outcome.write(&Record::not_started(refused));
                exit::PANICKED
            }
            Stop::Other(why) => refuse(outcome, &why),
        }
    }
}

impl From<Unapplied> for Stop {
    fn from(why: Unapplied) -> Stop {
        match why {
            Unapplied::Os(refused) => Stop::Os(refused),
            Unapplied::Threads => Stop::Other(setting::HAS_THREADS.to_owned()),
        }
    }
}

impl From<OsError> for Stop {
    fn from(refused: OsError) -> Stop {
        Stop::Os(refused)
    }
}

/// Sets this process up as a child. Gives its arguments, and its entries in the segments.
fn begin(
    cord: &OwnedFd,
    request: &Request,
    outcome: FdName,
    mut descriptors: impl Iterator<Item = OwnedFd>,
    blocked: BlockedBefore,
    process: u32,
) -> Result<(Kept, Lineage), Stop> {
    let mut next =
        || descriptors.next().ok_or_else(|| Stop::Other("descriptors did not arrive".to_owned()));
    let arguments = Kept::File(OutcomeFile::received(next()?, true)?);
    let lifeline = OwnFile::new(next()?)?;
    let setting = &request.setting;
    if !setting.is_detached {
        sys::ask_for_parent_death_signal()?;
    }
    if request.has_folder {
        rustix::process::fchdir(next()?).map_err(OsError::in_call("fchdir"))?;
    }
    for (number, is_open) in (0..).zip(request.streams) {
        let stream = if is_open { Some(next()?) } else { None };
        environment::set_stream(number, stream)?;
    }
    // The name of the file is another one.
    if setting.name.is_none() {
        sys::set_name(program::name())?;
    }
    setting.apply()?;
    let mut told = Vec::new();
    for (deed, peers) in &request.segments {
        let segment = Segment::by_deed(next()?, deed)
            .map_err(|error| Stop::Other(format!("a segment cannot be opened: {error:?}")))?;
        if deed.is_read_only && !segment.mapping().is_read_only() {
            let why = "a function that was preloaded has a segment open that it may only read";
            return Err(Stop::Other(why.to_owned()));
        }
        told.push((segment, *peers));
    }
    if let Some((commons, _)) = told.first() {
        commons.become_commons();
    }
    let lineage = Lineage::as_told(told)
        .ok_or_else(|| Stop::Other("its parent has told it no place".to_owned()))?;
    lineage.adopt(process);
    lineage.read()?;
    // Last, so that the parent need not be waited for: it does its part meanwhile.
    if !request::await_go(cord)? {
        return Err(Stop::Gone);
    }
    if !setting.is_detached {
        sys::end_without_parent(request.parent);
        children::become_child(outcome, lifeline);
    }
    blocked.let_others_in();
    Ok((arguments, lineage))
}

/// The addresses of the two functions, in this process.
fn addresses(request: &Request) -> Result<(Enter, usize), Stop> {
    if Build::own()? != request.build {
        return Err(Stop::Other("it runs another program than its parent".to_owned()));
    }
    let [enter, function] = [request.enter, request.function].map(address);
    if ![enter, function].into_iter().all(program::contains_code) {
        return Err(Stop::Other("its function is not in the program".to_owned()));
    }
    // SAFETY: the parent has made the address from an `enter`, and both processes run the same
    // file. It lies in the program's code.
    Ok((unsafe { core::mem::transmute::<usize, Enter>(enter) }, function))
}

/// Where a function is that lies at this distance from the fixed point.
fn address(offset: u64) -> usize {
    fixed_point().wrapping_add(offset as usize)
}

/// Runs the function at this distance from the fixed point. Gives why it failed.
fn prepare(offset: u64) -> Result<(), String> {
    let address = address(offset);
    if !program::contains_code(address) {
        return Err("is not in the program".to_owned());
    }
    // SAFETY: as in `addresses`, for a function of this type.
    let function = unsafe { core::mem::transmute::<usize, fn() -> Result<(), Failure>>(address) };
    setting::run(function)
}
