//! A contender that is set up once and then plays slice after slice: processes, or the threads of
//! one process, that wait for the next slice in recv(2).
//!
//! Whoever waits there uses no processor, so that another contender has both cores for itself. The
//! program tells every actor of the troupe to begin, by a line with the slice's nanoseconds, and
//! each answers with a line when its part is over.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use offspring::Child;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::children::{fork, join_all, kill, start_all};
use crate::slice::Slice;
use crate::stage::{Place, Stage};

/// Plays one slice, in the process or thread that has made it.
pub(crate) type Player<R> = Box<dyn FnMut(&mut Slice) -> R>;

/// Makes a player, in the process or thread that plays; it is pinned already.
pub(crate) type Actor<R> = Box<dyn FnOnce() -> Player<R> + Send>;

/// Measures for about as long as it is told.
pub(crate) type Run<T> = Box<dyn FnMut(Duration) -> Result<T, Failure>>;

/// What takes so much longer than its slice hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the actors of a troupe that has failed have to say why.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Messages of a mebibyte are passed by value, some copies deep.
const STACK: usize = 64 << 20;

/// The actors of one contender.
pub(crate) struct Troupe<R> {
    lines: Vec<Line>,
    children: Vec<Child<Result<(), String>>>,
    /// Hogs and idlers.
    company: Vec<Child<()>>,
    _reports: PhantomData<fn() -> R>,
}

impl<R: Serialize + DeserializeOwned + 'static> Troupe<R> {
    /// Sets up the `count` actors that `make` makes, the i-th on core i modulo 2.
    ///
    /// Actors in threads are made in their process, so that their memory is its own from the
    /// beginning.
    pub(crate) fn set_up<M>(
        stage: Stage,
        place: Place,
        count: usize,
        make: M,
    ) -> Result<Troupe<R>, Failure>
    where
        M: FnOnce() -> Result<Vec<Actor<R>>, Failure> + Send + 'static,
    {
        // From now on whatever fails drops the troupe, which ends those who are there already.
        let mut troupe = Troupe {
            lines: Vec::new(),
            children: Vec::new(),
            company: stage.gather()?,
            _reports: PhantomData,
        };
        let slice = Slice::new(count)?;
        match place {
            Place::Threads => {
                let lines =
                    (0..count).map(|_| troupe.add_line()).collect::<io::Result<Vec<_>>>()?;
                troupe.children.push(fork(move || {
                    let actors = make().map_err(|error| error.to_string())?;
                    act_in_threads(stage, actors.into_iter().zip(lines), &slice)
                })?);
            }
            Place::Processes => {
                for (index, actor) in make()?.into_iter().enumerate() {
                    // Made one by one: the other end must be in no process but its actor's, so that
                    // the line ends with the actor.
                    let (line, slice) = (troupe.add_line()?, slice.clone());
                    troupe.children.push(fork(move || {
                        stage.pin(index);
                        act(actor, line, slice).map_err(|error| error.to_string())
                    })?);
                }
            }
        }
        let limit = Instant::now() + PATIENCE;
        for index in 0..count {
            if let Err(error) = troupe.lines[index].read(limit) {
                return Err(troupe.reason(&error));
            }
        }
        Ok(troupe)
    }

    /// The actor's end of a new line.
    fn add_line(&mut self) -> io::Result<Line> {
        let (ours, theirs) = UnixStream::pair()?;
        self.lines.push(Line(BufReader::new(ours)));
        Ok(Line(BufReader::new(theirs)))
    }

    /// Plays slices, each of which `combine` makes one figure of.
    pub(crate) fn run<T>(
        mut self,
        mut combine: impl FnMut(Vec<R>) -> Result<T, Failure> + 'static,
    ) -> Run<T> {
        Box::new(move |length| combine(self.play(length)?))
    }

    fn play(&mut self, length: Duration) -> Result<Vec<R>, Failure> {
        match self.try_play(length) {
            Ok(reports) => Ok(reports),
            Err(error) => Err(self.reason(&error)),
        }
    }

    /// What each actor reports, in order.
    fn try_play(&mut self, length: Duration) -> io::Result<Vec<R>> {
        for line in &mut self.lines {
            line.write(&length.as_nanos())?;
        }
        let limit = Instant::now() + length * 4 + PATIENCE;
        self.lines.iter_mut().map(|line| Ok(serde_json::from_str(&line.read(limit)?)?)).collect()
    }

    /// Why a slice has failed: what an actor says about its end, or else `error`. Nobody is left.
    fn reason(&mut self, error: &io::Error) -> Failure {
        let children = std::mem::take(&mut self.children);
        let ends = join_all(children, Instant::now() + LAST_WORDS);
        match ends.map(|ends| ends.into_iter().find_map(Result::err)) {
            Ok(Some(reason)) => reason.into(),
            Err(reason) if error.kind() != ErrorKind::InvalidData => reason,
            _ => error.to_string().into(),
        }
    }
}

impl<R> Drop for Troupe<R> {
    /// Ends all actors, which leave nothing behind unless they must be killed.
    fn drop(&mut self) {
        for line in &self.lines {
            // Not by closing it: other children have inherited our end. An actor that has ended
            // needs no end.
            let _ = line.0.get_ref().shutdown(Shutdown::Both);
        }
        // How actors end when all is measured is nobody's matter.
        let _ = join_all(std::mem::take(&mut self.children), Instant::now() + PATIENCE);
        kill(&self.company);
    }
}

impl Stage {
    /// Starts hogs and idlers, to be killed in the end.
    fn gather(self) -> Result<Vec<Child<()>>, Failure> {
        start_all((0..self.hogs + self.idlers).map(|index| {
            move || {
                self.pin(index);
                let is_hog = index < self.hogs;
                loop {
                    if is_hog { std::hint::spin_loop() } else { std::thread::park() }
                }
            }
        }))
    }
}

/// In the actor: plays until its line ends.
fn act<R: Serialize>(actor: Actor<R>, mut line: Line, mut slice: Slice) -> io::Result<()> {
    let mut play = actor();
    line.write(&"ready")?;
    loop {
        let mut nanoseconds = String::new();
        if line.0.read_line(&mut nanoseconds)? == 0 {
            return Ok(());
        }
        let nanoseconds = nanoseconds.trim_end().parse().map_err(io::Error::other)?;
        slice.begin(Duration::from_nanos(nanoseconds));
        let report = play(&mut slice);
        line.write(&report)?;
    }
}

/// In the child: it ends, with all its threads, at the first that panics.
fn act_in_threads<R: Serialize + 'static>(
    stage: Stage,
    actors: impl Iterator<Item = (Actor<R>, Line)>,
    slice: &Slice,
) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    for (index, (actor, line)) in actors.enumerate() {
        let (sender, slice) = (sender.clone(), slice.clone());
        let body = move || {
            stage.pin(index);
            let body = std::panic::AssertUnwindSafe(|| act(actor, line, slice));
            let result = match std::panic::catch_unwind(body) {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(panic) => Err(message_of(&*panic)),
            };
            // Nobody listens only after another thread has failed.
            let _ = sender.send(result);
        };
        let started = std::thread::Builder::new().stack_size(STACK).spawn(body);
        started.map_err(|error| format!("no thread: {error}"))?;
    }
    drop(sender);
    receiver.iter().collect()
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a thread has panicked").to_owned()
}

/// One end of a connection on which both sides send lines of JSON.
#[derive(Debug)]
struct Line(BufReader<UnixStream>);

impl Line {
    fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string(value)?;
        text.push('\n');
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// The next line, unless it comes too late.
    fn read(&mut self, limit: Instant) -> io::Result<String> {
        let left = limit.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.0.get_ref().set_read_timeout(Some(left))?;
        let mut text = String::new();
        match self.0.read_line(&mut text) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "an actor has ended")),
            Ok(_) => Ok(text),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, "hangs; killed"))
            }
            Err(error) => Err(error),
        }
    }
}
