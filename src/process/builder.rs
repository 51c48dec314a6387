//! How a child is to be started: its name, its streams, its limits.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::child::Child;
use crate::process::failure::Failure;
use crate::process::fork::{self, ForkError};
use crate::process::returned::{Argument, Return};
use crate::process::start::{self, SpawnError};
use crate::segment::Segment;

/// How a child comes into being.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// The *zygote*, a process that was started from this program at the first use, is copied. That
    /// takes about as long as a `fork` of a small process, however large this one is.
    ///
    /// The zygote starts with what this process has at its first use: limits, processors, priority,
    /// umask, process group, namespaces. A child gets these from the zygote, and environment,
    /// working folder and standard streams from this process.
    ///
    /// A process that has given up rights since (users, groups, capabilities, `no_new_privs`, a
    /// seccomp filter) gets another zygote, which has none of them. One more seccomp filter, or a
    /// Landlock ruleset under `no_new_privs`, is not noticed: children do not have it, so set it in
    /// each child ([`Builder::before`]).
    ///
    /// Handlers that libraries registered with `pthread_atfork` do not run in the child. With musl,
    /// and where the kernel does not allow it, this is the same as [`Spawn`](StartMethod::Spawn).
    #[default]
    Zygote,
    /// The program is started once more. That takes some milliseconds; the child has an address
    /// layout of its own, and gets all that a program gets from the one that starts it.
    Spawn,
}

/// One of the standard streams of a child.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stream {
    /// That of this process.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// This file, pipe or socket.
    Descriptor(OwnedFd),
}

impl From<OwnedFd> for Stream {
    fn from(descriptor: OwnedFd) -> Stream {
        Stream::Descriptor(descriptor)
    }
}

impl From<File> for Stream {
    fn from(file: File) -> Stream {
        Stream::Descriptor(file.into())
    }
}

impl From<std::io::PipeReader> for Stream {
    fn from(pipe: std::io::PipeReader) -> Stream {
        Stream::Descriptor(pipe.into())
    }
}

impl From<std::io::PipeWriter> for Stream {
    fn from(pipe: std::io::PipeWriter) -> Stream {
        Stream::Descriptor(pipe.into())
    }
}

/// Settings of a child, like [`std::thread::Builder`] and [`std::process::Command`].
///
/// # Examples
/// A worker that may take 1 GiB and ten seconds, and whose messages are collected:
/// ```
/// use offspring::Builder;
/// use std::io::Read;
/// use std::time::Duration;
///
/// fn measure(text: String) -> usize {
///     println!("measuring {text:?}");
///     text.len()
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut reader, writer) = std::io::pipe()?;
/// let child = Builder::new()
///     .name("measure")
///     .memory_limit(1 << 30)
///     .cpu_limit(Duration::from_secs(10))
///     .stdout(writer)
///     .spawn(measure, "seven".to_owned())?;
/// assert_eq!(child.join()?, 5);
/// let mut printed = String::new();
/// reader.read_to_string(&mut printed)?;
/// assert_eq!(printed, "measuring \"seven\"\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder starts nothing until `spawn` is called"]
pub struct Builder {
    pub(super) method: StartMethod,
    pub(super) name: Option<String>,
    pub(super) is_cleared: bool,
    /// `None` for a variable that is taken away.
    pub(super) variables: BTreeMap<OsString, Option<OsString>>,
    pub(super) folder: Option<PathBuf>,
    pub(super) streams: [Stream; 3],
    pub(super) memory: Option<u64>,
    pub(super) cpu: Option<Duration>,
    pub(super) segments: Option<Vec<Segment>>,
    pub(super) read_only: Vec<Segment>,
    pub(super) before: Option<fn() -> Result<(), Failure>>,
    pub(super) is_daemon: bool,
    pub(super) is_detached: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// A child as [`spawn`](crate::spawn()) starts it.
    pub fn new() -> Builder {
        Builder {
            method: StartMethod::default(),
            name: None,
            is_cleared: false,
            variables: BTreeMap::new(),
            folder: None,
            streams: Default::default(),
            memory: None,
            cpu: None,
            segments: None,
            read_only: Vec::new(),
            before: None,
            is_daemon: true,
            is_detached: false,
        }
    }

    /// How the child comes into being.
    ///
    /// # Examples
    /// ```
    /// use offspring::{Builder, StartMethod};
    ///
    /// let child = Builder::new().method(StartMethod::Spawn).spawn(|n: u64| n + 1, 41)?;
    /// assert_eq!(child.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn method(mut self, method: StartMethod) -> Builder {
        self.method = method;
        self
    }

    /// The child's name, as `ps` and `top` show it. The kernel keeps the first 15 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable of the child's environment. The others are those of this process.
    ///
    /// # Examples
    /// ```
    /// use offspring::Builder;
    ///
    /// let child = Builder::new().env("GREETING", "hello").spawn(
    ///     |name: String| std::env::var(name).ok(),
    ///     "GREETING".to_owned(),
    /// )?;
    /// assert_eq!(child.join()?.as_deref(), Some("hello"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Builder {
        self.variables.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Takes a variable out of the child's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Builder {
        self.variables.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Takes all variables out of the child's environment, but those that are set after this.
    pub fn env_clear(mut self) -> Builder {
        self.is_cleared = true;
        self.variables.clear();
        self
    }

    /// The folder in which the child works; that of this process by default.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Builder {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// The child's standard input; that of this process by default.
    pub fn stdin(mut self, stream: impl Into<Stream>) -> Builder {
        self.streams[0] = stream.into();
        self
    }

    /// The child's standard output; that of this process by default.
    pub fn stdout(mut self, stream: impl Into<Stream>) -> Builder {
        self.streams[1] = stream.into();
        self
    }

    /// The child's standard error; that of this process by default.
    pub fn stderr(mut self, stream: impl Into<Stream>) -> Builder {
        self.streams[2] = stream.into();
        self
    }

    /// The most bytes of memory of its own that the child may have (`RLIMIT_DATA`). Segments do not
    /// count. An allocation beyond it fails, and Rust's standard library then aborts: the child is
    /// [`Killed`](crate::JoinError::Killed) by `SIGABRT`.
    pub fn memory_limit(mut self, bytes: u64) -> Builder {
        self.memory = Some(bytes);
        self
    }

    /// The most processor time that the child may take (`RLIMIT_CPU`), in whole seconds, rounded
    /// up. Then it is [`Killed`](crate::JoinError::Killed) by `SIGXCPU`.
    pub fn cpu_limit(mut self, time: Duration) -> Builder {
        self.cpu = Some(time);
        self
    }

    /// The segments that the child has from its beginning, besides the commons. By default these
    /// are all that this process has open. Objects in its arguments and in its value must lie in
    /// one of them.
    pub fn segments<'a>(mut self, segments: impl IntoIterator<Item = &'a Segment>) -> Builder {
        self.segments = Some(segments.into_iter().cloned().collect());
        self
    }

    /// Segments that the child can only read: for an input that many workers share, and that none
    /// of them can spoil, whatever a bug or an attacker makes it do. The child has them besides
    /// those of [`segments`](Builder::segments); one that is named in both can only be read.
    ///
    /// Of their objects the child has each [`ShmArc`](crate::ShmArc) that its arguments contain, as
    /// long as it lives. Whatever would write there is refused with
    /// [`Fault::ReadOnly`](crate::Fault::ReadOnly): other objects, new ones, and to pass a `ShmArc`
    /// on. A process that the child forks cannot read it. If the commons are named here, the child
    /// can make no objects of its own.
    ///
    /// The child's mapping cannot be written, nor made writable. But a process of the same user may
    /// open any of its files anew in `/proc/self/fd`. If the child runs code that could do that,
    /// forbid it in [`before`](Builder::before): with Landlock, seccomp, or another user.
    ///
    /// # Examples
    /// ```
    /// use offspring::{Builder, Fault, Lock, Segment, ShmArc};
    ///
    /// fn look_up((table, index): (ShmArc<[u64]>, usize)) -> (u64, bool) {
    ///     let segment = table.handle().find_segment().unwrap();
    ///     (table[index], Lock::new_in(&segment, 0_u64).is_err())
    /// }
    ///
    /// let inputs = Segment::create(1 << 20)?;
    /// let squares = ShmArc::<[u64]>::from_fn_in(&inputs, 100, |n| (n * n) as u64)?;
    /// let child = Builder::new().read_only([&inputs]).spawn(look_up, (squares, 12))?;
    /// assert_eq!(child.join()?, (144, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only<'a>(mut self, segments: impl IntoIterator<Item = &'a Segment>) -> Builder {
        self.read_only.extend(segments.into_iter().cloned());
        self
    }

    /// A function that the child runs first, before it reads its arguments: to give up rights, say.
    /// If it fails or panics, the child's function is not run, and
    /// [`join`](Child::join) says why.
    ///
    /// # Examples
    /// ```
    /// use offspring::{Builder, Failure, JoinError};
    ///
    /// let refused = Builder::new()
    ///     .before(|| Err(Failure::new("no sandbox here")))
    ///     .spawn(|()| 7, ())?;
    /// let Err(JoinError::NotStarted(why)) = refused.join() else { panic!("it has run") };
    /// assert_eq!(why, "the function to run before failed: no sandbox here");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "pre_exec")]
    pub fn before(mut self, function: fn() -> Result<(), Failure>) -> Builder {
        self.before = Some(function);
        self
    }

    /// Whether the child ends at once when this process ends by itself, by `exit` or the end of
    /// `main`. That is the default. If not, this process waits for the child then. When it is
    /// killed, the child ends with it all the same.
    pub fn daemon(mut self, is_daemon: bool) -> Builder {
        self.is_daemon = is_daemon;
        self
    }

    /// Whether the child goes on when this process has ended. By default it ends with it.
    ///
    /// Its value can be had as long as this process lives.
    pub fn detached(mut self, is_detached: bool) -> Builder {
        self.is_detached = is_detached;
        self
    }

    /// Runs `closure` in a copy of this process, with these settings; see [`fork`](crate::fork).
    ///
    /// The [method](Builder::method) is not asked for. Folder, streams, environment, name and
    /// limits are set in the copy, in this order, before the function to run
    /// [before](Builder::before) and the closure. If one of them is refused, [`join`](Child::join)
    /// says which.
    ///
    /// # Errors
    /// See [`ForkError`].
    ///
    /// # Panics
    /// As [`fork`](crate::fork); and after [`segments`](Builder::segments) or
    /// [`read_only`](Builder::read_only), as a copy has all segments that this process has.
    ///
    /// # Safety
    /// As [`fork`](crate::fork). The function to run before is part of what it says of the closure.
    ///
    /// # Examples
    /// ```
    /// use offspring::Builder;
    ///
    /// let words = vec!["one".to_owned(), "two".to_owned()];
    /// // SAFETY: the closure uses nothing but strings.
    /// let child = unsafe { Builder::new().name("joiner").fork(move || words.join(" ")) }?;
    /// assert_eq!(child.join()?, "one two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(unsafe_code, reason = "as `fork`")]
    pub unsafe fn fork<F, T>(self, closure: F) -> Result<Child<T>, ForkError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Return,
    {
        // SAFETY: as the caller promises.
        unsafe { fork::fork_with(self, closure) }
    }

    /// Starts the child, which runs `function` with `arguments`; see [`spawn`](crate::spawn()).
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn<A, T>(self, function: fn(A) -> T, arguments: A) -> Result<Child<T>, SpawnError>
    where
        A: Argument,
        T: Return,
    {
        start::start(self, function, arguments)
    }
}
