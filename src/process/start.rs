//! Starts a child that is no copy of this process: the parent's side.
//!
//! # Protocol
//! ```text
//! parent                                            child
//! reap dropped children that are dead
//! find the functions in the program
//! make lifeline, outcome and arguments
//! reserve an entry for the child in each segment
//! write the arguments; what is in them is carried
//!   to the child's entry
//! copy the zygote, or start the program anew --->  hello
//! send the request                           --->  watch its parent
//! open the lifeline's writing end, name the child
//!   as the one to kill
//! open the pidfd, write the child's identity
//!   into every segment
//! go                                         --->  streams, folder, limits, segments
//!                                                  decode the arguments; run the function
//! wait, read the outcome                     <---  write the outcome, flush stdio, exit
//! ```
//!
//! # Peer death
//! | killed | left | outcome |
//! |---|---|---|
//! | the parent, before `go` | entries `RESERVED` or the child's, arguments carried | the child ends; both are cleared up |
//! | the parent, later | the same | the lifeline ends the child, unless it is detached |
//! | the child, before it has its arguments | arguments carried to its entry | stranded, and freed by the process that clears up after it |
//! | the zygote, or the child before its hello | see `zygote.rs` | another is asked for |

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::object::lineage::{Lineage, LineageError};
use crate::peer::Fault;
use crate::process::builder::{Builder, StartMethod, Stream};
use crate::process::child::Child;
use crate::process::children::{self, ChildProcess};
use crate::process::entry::{self, Enter};
use crate::process::failure::Failure;
use crate::process::outcome::OutcomeFile;
use crate::process::request::{self, Request};
use crate::process::returned::{Argument, Return, Way, depart};
use crate::process::setting::{self, Setting, Unfit};
use crate::process::zygote::{self, Common, NoChild};
use crate::segment::region::Mapping;
use crate::segment::{Segment, SegmentError, registry};
use crate::sys::descriptor;
use crate::sys::error::{self, OsError, Word};
use crate::sys::process::{self as sys, Lifeline};
use crate::sys::program::{self, Build};
use crate::sys::{pidfd, socket};

/// Runs `function` with `arguments` in a process of its own, and returns a handle to wait for its
/// value.
///
/// It works in any program: with threads, in a `#[test]`, in an async runtime. The child is no copy
/// of this process. It has the same program, and gets only what `arguments` contain: any [`serde`]
/// value, with handles of shared objects in it, or a [`ShmBox`](crate::ShmBox), which moves. The
/// function's value comes back in the same way, and [`Child::join`] returns it.
///
/// `function` is a function or a closure that captures nothing. What it needs is passed as
/// `arguments`; several as a tuple.
///
/// # How the child comes into being
/// At the first call this process starts the *zygote*, a small process of the same program, which
/// then is copied for each child ([`StartMethod`]). It is a child of this process, named `zygote`,
/// takes no processor time, and ends with this process. A program that waits for all its children
/// (`waitpid(-1)`) waits for it, too.
///
/// In zygote and children, `main` does not run: this crate takes over before it, in a function that
/// the linker puts among those that run before `main`. So do static initializers of other crates,
/// which run there as usual. Programs that cannot rely on this call [`init`](crate::init()) at the
/// top of `main`.
///
/// # What the child has
/// Environment, working folder and standard streams are this process's; no other descriptor is
/// inherited. Statics have their initial values. Segments that this process has open are open in
/// the child. [`Builder`] changes any of that, and sets limits.
///
/// When the function has returned or panicked, its outcome is sent, and the child ends by `exit`,
/// as a program does at the end of `main`: `atexit` handlers run, so coverage tools and profilers
/// write their data. Destructors of thread-locals and statics do not run.
///
/// # Signals
/// `Ctrl-C` and other signals from a terminal reach this process and the child alike; the zygote
/// does not react. `SIGTERM` reaches the process that it is sent to. If that is this process and it
/// ends, its children end with it.
///
/// # Parent death
/// The child ends when this process ends, however that happens; see [`fork`](crate::fork), and
/// [`Builder::detached`].
///
/// # Peer death
/// When the child is killed, [`Child::join`] returns the signal, and everything that it owned and
/// held in shared memory is released; also arguments that it had not received.
///
/// # Fork
/// May be called in any child. Each process has a zygote of its own.
///
/// # Blocking
/// Until the zygote has made the child, some 0.1 ms. If the zygote is stopped, until it goes on.
///
/// # Errors
/// See [`SpawnError`]. `arguments` are dropped then, and the function is not run.
///
/// # Panics
/// If the [`Serialize`] implementation of `A` panics.
///
/// # Examples
/// ```
/// fn greet((name, times): (String, usize)) -> String {
///     format!("hello, {name}! ").repeat(times).trim_end().to_owned()
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let child = offspring::spawn(greet, ("Ada".to_owned(), 2))?;
/// assert_eq!(child.join()?, "hello, Ada! hello, Ada!");
/// # Ok(())
/// # }
/// ```
///
/// A worker that gets its work through a channel, from a program with threads:
/// ```
/// use offspring::{Receiver, Sender};
///
/// fn worker((tasks, results): (Receiver<String>, Sender<usize>)) {
///     for task in &tasks {
///         results.send(task.len()).unwrap();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (tasks, receiver) = offspring::channel::<String>(16)?;
/// let (sender, results) = offspring::channel::<usize>(16)?;
/// let child = offspring::spawn(worker, (receiver, sender))?;
/// std::thread::spawn(move || {
///     for word in ["one", "three"] {
///         tasks.send(word.to_owned()).unwrap();
///     }
/// });
/// // Ends when the worker has, as nobody else has a sender.
/// assert_eq!(results.iter().sum::<usize>(), 8);
/// child.join()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Process")]
pub fn spawn<A, T>(function: fn(A) -> T, arguments: A) -> Result<Child<T>, SpawnError>
where
    A: Argument,
    T: Return,
{
    Builder::new().spawn(function, arguments)
}

/// Runs `function` once in the zygote, now and whenever a zygote is started for this process. Its
/// children find what it has set up: statics, read files, loaded libraries.
///
/// That is worth while for what takes long and is the same for all children. The zygote has no
/// standard streams, and lets no signal in. A function that starts threads makes it useless, as a
/// process with threads is not copied: children are then started as by
/// [`StartMethod::Spawn`], without what was set up. Random number
/// generators that it seeds give all children the same numbers.
///
/// # Blocking
/// Until the function has returned.
///
/// # Peer death
/// If the zygote is killed while it runs the function, the next one runs it. A function in which it
/// is killed twice is an error.
///
/// # Errors
/// [`SpawnError::Preload`] if the function fails or panics or ends the zygote, or if there can be
/// no zygote here; otherwise those of [`spawn`]. After an error the function is not run again, and
/// children find what functions before it have set up.
///
/// # Examples
/// ```
/// use offspring::Failure;
/// use std::sync::OnceLock;
///
/// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
///
/// fn read_words() -> Result<(), Failure> {
///     WORDS.get_or_init(|| vec!["one".to_owned(), "two".to_owned()]);
///     Ok(())
/// }
///
/// offspring::preload(read_words)?;
/// let child = offspring::spawn(|()| WORDS.get().map(Vec::len), ())?;
/// assert_eq!(child.join()?, Some(2));
/// assert_eq!(WORDS.get(), None, "not in this process");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "set_forkserver_preload")]
pub fn preload(function: fn() -> Result<(), Failure>) -> Result<(), SpawnError> {
    let function = offset_of(function as usize)?;
    if pidfd::pid_namespace().is_ok_and(sys::children_leave_pid_namespace) {
        return Err(SpawnError::PidNamespace);
    }
    match zygote::preload(function) {
        Ok(()) => Ok(()),
        Err(NoChild::Os(refused) | NoChild::NotWatched(refused)) => Err(refused.into()),
        Err(NoChild::Preload(why)) => Err(SpawnError::Preload(why)),
        Err(NoChild::NoZygote) => {
            Err(SpawnError::Preload("was not run, as there can be no zygote here".to_owned()))
        }
    }
}

/// Starts a child with these settings.
pub(super) fn start<A, T>(
    builder: Builder,
    function: fn(A) -> T,
    arguments: A,
) -> Result<Child<T>, SpawnError>
where
    A: Argument,
    T: Return,
{
    children::reap_dropped();
    let enter: Enter = entry::enter::<A, T>;
    let [enter, address] = [offset_of(enter as usize)?, offset_of(function as usize)?];
    let setting = setting_of(&builder)?;
    let parent = sys::own_pid()?;
    let commons = Segment::commons().map_err(SpawnError::Commons)?;
    if commons.mapping().home().namespace().is_some_and(sys::children_leave_pid_namespace) {
        return Err(SpawnError::PidNamespace);
    }
    let segments = segments_of(&commons, &builder)?;
    let lifeline = Lifeline::for_stranger()?;
    let outcome = OutcomeFile::create_for_window()?;
    let sent = OutcomeFile::create()?;
    let build = Build::own()?;
    // From here on nothing returns before the lineage is the child's, or cancelled.
    let lineage = Lineage::expect_stranger(&segments)?;
    let request = Request {
        parent,
        build,
        enter,
        function: address,
        types: entry::hash_of::<A, T>(),
        segments: lineage
            .words()
            .map(|(mapping, peers)| (mapping.deed(is_read_only(&builder, mapping)), peers))
            .collect(),
        setting,
        has_folder: false,
        streams: [false; 3],
    };
    let plan = Plan { builder, request, outcome: &outcome, sent: &sent, lifeline: &lifeline };
    let started = match send_arguments(arguments, &sent, &lineage) {
        Ok(Ok(())) => plan.start(&segments),
        Ok(Err(why)) => Err(SpawnError::Arguments(why)),
        Err(payload) => {
            lineage.cancel();
            panic::resume_unwind(payload)
        }
    };
    let (is_detached, is_joined) = (plan.builder.is_detached, !plan.builder.is_daemon);
    match started {
        Ok((pid, cord)) => {
            let lifeline = (!is_detached).then_some(lifeline);
            let child = ChildProcess::new(pid, lifeline, outcome, lineage, is_joined);
            let child = Child::new(child?);
            request::go(&cord);
            Ok(child)
        }
        Err(error) => {
            lineage.cancel();
            Err(error)
        }
    }
}

/// Writes the arguments; the inner error says why that is not possible, the outer one is a panic.
fn send_arguments<A: Argument>(
    arguments: A,
    sent: &OutcomeFile,
    lineage: &Lineage,
) -> std::thread::Result<Result<(), String>> {
    let downward = lineage.downward();
    let way = Way { outcome: sent, lineage: &downward };
    panic::catch_unwind(AssertUnwindSafe(|| depart(arguments, way)))
}

/// Everything that is needed to make the process.
struct Plan<'a> {
    builder: Builder,
    request: Request,
    outcome: &'a OutcomeFile,
    sent: &'a OutcomeFile,
    lifeline: &'a Lifeline,
}

impl Plan<'_> {
    /// Makes the process and sends it the request. Gives its pid, and the cord.
    fn start(&self, segments: &[Arc<Mapping>]) -> Result<(u32, OwnedFd), SpawnError> {
        if self.builder.method == StartMethod::Zygote {
            let ask = |cord: &OwnedFd, common: Common| self.ask(cord, common, segments);
            // The position of this file says nothing else.
            match zygote::make_child(self.outcome.as_fd(), ask) {
                Ok(made) => return Ok(made),
                Err(NoChild::NoZygote | NoChild::NotWatched(_)) => {}
                Err(NoChild::Os(refused)) => return Err(refused.into()),
                Err(NoChild::Preload(why)) => return Err(SpawnError::Preload(why)),
            }
        }
        let (ours, theirs) = socket::pair()?;
        let child = Command::new(program::EXECUTABLE)
            .arg0(std::env::args_os().next().unwrap_or_else(|| "offspring".into()))
            .env(request::MARKER, format!("{}:{}", request::CHILD, self.request.parent))
            .stdin(theirs)
            .spawn()
            .map_err(OsError::in_call("posix_spawn /proc/self/exe"))?;
        match self.ask(&ours, Common { environment: true, folder: true }, segments) {
            // If it is dead already, its handle tells how it has ended.
            Ok(()) | Err(OsError { errno: Errno::PIPE | Errno::CONNRESET, .. }) => {
                Ok((child.id(), ours))
            }
            Err(refused) => {
                sys::kill_unseen(child.id());
                Err(refused.into())
            }
        }
    }

    /// Sends the request to a child that has so much in common with this process.
    fn ask(
        &self,
        cord: &OwnedFd,
        common: Common,
        segments: &[Arc<Mapping>],
    ) -> Result<(), OsError> {
        let builder = &self.builder;
        let folder = match &builder.folder {
            Some(folder) => Some(open_folder(folder, "open the working folder")?),
            None if common.folder => None,
            None => Some(open_folder(".".as_ref(), "open .")?),
        };
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let mut null = None;
        if builder.streams.iter().any(|stream| matches!(stream, Stream::Null)) {
            null = Some(descriptor::open("/dev/null".as_ref(), OFlags::RDWR))
                .transpose()
                .map_err(OsError::in_call("open /dev/null"))?;
        }
        let streams: Vec<Option<BorrowedFd<'_>>> = builder
            .streams
            .iter()
            .zip(own)
            .map(|(stream, own)| match stream {
                Stream::Inherit => rustix::io::fcntl_getfd(own).is_ok().then_some(own),
                Stream::Null => null.as_ref().map(AsFd::as_fd),
                Stream::Descriptor(descriptor) => Some(descriptor.as_fd()),
            })
            .collect();
        let mut descriptors =
            vec![self.outcome.as_fd(), self.sent.as_fd(), self.lifeline.childs_end()];
        descriptors.extend(folder.as_ref().map(AsFd::as_fd));
        descriptors.extend(streams.iter().flatten());
        let readers: Vec<_> = segments
            .iter()
            .map(|mapping| is_read_only(builder, mapping).then(|| mapping.fd_to_read()).transpose())
            .collect::<Result<_, _>>()?;
        for (mapping, reader) in segments.iter().zip(&readers) {
            descriptors.push(match reader {
                Some(reader) => reader.as_fd(),
                None => mapping.fd()?,
            });
        }
        let mut setting = self.request.setting.clone();
        if setting::changes_environment(builder) || !common.environment {
            setting.environment = Some(setting::environment_of(builder));
        }
        let request = Request {
            segments: self.request.segments.clone(),
            setting,
            has_folder: folder.is_some(),
            streams: [0, 1, 2].map(|index: usize| streams[index].is_some()),
            ..self.request
        };
        request::send(cord, &request, &descriptors)
    }
}

fn open_folder(folder: &Path, call: &'static str) -> Result<OwnedFd, OsError> {
    descriptor::open(folder, OFlags::PATH | OFlags::DIRECTORY).map_err(OsError::in_call(call))
}

/// Distance of a function from the fixed point.
fn offset_of(address: usize) -> Result<u64, SpawnError> {
    if program::would_have_more_rights()? {
        return Err(SpawnError::MoreRights);
    }
    let fixed_point = entry::fixed_point();
    if !program::contains(fixed_point) || program::is_run_by_linker() {
        return Err(SpawnError::NotOurProgram);
    }
    if !program::contains_code(address) {
        return Err(SpawnError::ForeignFunction);
    }
    Ok(address.wrapping_sub(fixed_point) as u64)
}

fn setting_of(builder: &Builder) -> Result<Setting, SpawnError> {
    let before = builder.before.map(|function| offset_of(function as usize)).transpose()?;
    Ok(Setting { before, ..Setting::of(builder)? })
}

/// Descriptors of a request beside those of segments.
const OTHERS: usize = 7;

/// Whether the child can only read the segment.
fn is_read_only(builder: &Builder, mapping: &Mapping) -> bool {
    let file = mapping.file_id();
    builder.read_only.iter().any(|segment| segment.mapping().file_id() == file)
}

/// The segments of the child, the commons first.
fn segments_of(commons: &Segment, builder: &Builder) -> Result<Vec<Arc<Mapping>>, SpawnError> {
    let mappings = |segments: &[Segment]| -> Vec<Arc<Mapping>> {
        segments.iter().map(|segment| Arc::clone(segment.mapping())).collect()
    };
    let open = match &builder.segments {
        Some(segments) => mappings(segments),
        // What this process can only read it cannot share.
        None => registry::all().into_iter().filter(|mapping| !mapping.is_read_only()).collect(),
    };
    let mut segments = vec![Arc::clone(commons.mapping())];
    for mapping in open.into_iter().chain(mappings(&builder.read_only)) {
        if segments.iter().all(|known| known.file_id() != mapping.file_id()) {
            segments.push(mapping);
        }
    }
    let most = socket::MOST_DESCRIPTORS - OTHERS;
    if segments.len() > most {
        return Err(SpawnError::TooManySegments { segments: segments.len(), most });
    }
    Ok(segments)
}

/// Error of [`spawn`] and [`Builder::spawn`]. No child has run the function.
#[derive(thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SpawnError {
    /// The arguments cannot be encoded, or contain a handle of an object in a segment that the
    /// child would not have.
    #[error("the arguments cannot be sent: {0}")]
    Arguments(String),
    /// A function that the zygote has to run, see [`preload`], has failed.
    #[error("the function that was to be preloaded {0}")]
    Preload(String),
    /// The function lies in a library: in a plugin, say. A child has only the program.
    #[error("the function is not part of the program, but of a library: a child could not find it")]
    ForeignFunction,
    /// This crate is part of a library, and the program is another one: an interpreter, say, or the
    /// dynamic linker, if it was told to run the program. It cannot be started as a child.
    /// [`fork`](crate::fork) may do.
    #[error(
        "this crate is part of a library, so the program that runs cannot be started as a child"
    )]
    NotOurProgram,
    /// The program has more rights than its caller, as a set-user-id program has, or this process
    /// has borrowed a user or group (`seteuid`). As a child it could not trust its environment.
    #[error("a program with more rights than its caller does not start children like this")]
    MoreRights,
    /// The child's name contains a NUL.
    #[error("a process cannot have the name {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// The name of a variable is empty or contains `=`, or name or value contain a NUL.
    #[error("the variable {name:?} cannot be set")]
    Variable {
        /// The name of the variable.
        name: String,
    },
    /// Children of this process would start in another pid namespace, because it called
    /// `unshare(CLONE_NEWPID)`. There they could not tell whether their parent is alive.
    #[error(
        "a child in another pid namespace cannot be watched: start it before \
         unshare(CLONE_NEWPID), or from within the new namespace"
    )]
    PidNamespace,
    /// More segments than can be passed to a child.
    #[error(
        "{segments} segments are open, and {most} can be passed: name those that the child needs \
         (Builder::segments)"
    )]
    TooManySegments {
        /// How many there are.
        segments: usize,
        /// How many can be passed.
        most: usize,
    },
    /// The commons could not be created.
    #[error("the commons could not be made")]
    Commons(#[source] SegmentError),
    /// The shared memory has no room for another process.
    #[error("the shared memory cannot take another process")]
    Segment(#[source] Fault),
    /// A system call failed.
    #[error("{call} failed")]
    Os {
        /// Name of the call.
        #[serde(with = "error::word")]
        call: Word,
        /// The error that the kernel returned.
        #[serde(with = "error::errno")]
        source: io::Error,
    },
}

/// Prints one line, the text and its causes, because a `main` that returns the error prints this.
impl fmt::Debug for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::one_line(self, f)
    }
}

impl From<Unfit> for SpawnError {
    fn from(unfit: Unfit) -> SpawnError {
        match unfit {
            Unfit::Name(name) => SpawnError::Name { name },
            Unfit::Variable(name) => SpawnError::Variable { name },
        }
    }
}

impl From<LineageError> for SpawnError {
    fn from(error: LineageError) -> SpawnError {
        match error {
            LineageError::Commons(error) => SpawnError::Commons(error),
            LineageError::Fault(fault) => SpawnError::Segment(fault),
        }
    }
}

impl From<OsError> for SpawnError {
    fn from(error: OsError) -> SpawnError {
        SpawnError::Os { call: error.call, source: error.into() }
    }
}
