//! What the parent does: a start, an end, and what must be true afterwards.

use std::process::ExitCode;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use offspring::{
    Builder, Child, JoinError, Lock, QueueOptions, Receiver, RecvTimeoutError, Return, Segment,
    Sender, ShmBox, StartMethod, Stream,
};

use crate::common::processes::children_of;
use crate::common::{descriptors, wait_until_asleep};
use crate::tracer::Who;

/// The environment variable by which a program finds that it is a child.
const MARKER: &str = "OFFSPRING_START";
/// The file that `main` makes in the parent's folder where it must not run.
const TRACE_OF_MAIN: &str = "main-ran-in-a-child";
/// Longer than anything here takes that works.
const LONG: Duration = Duration::from_secs(10);

/// What the parent says when its child was killed.
pub const KILLED: &str = "killed";

pub struct Scene {
    pub name: &'static str,
    pub method: StartMethod,
    /// Whether the process has started a child before, and so has a zygote.
    pub is_first: bool,
    /// What the parent says when nobody was killed, or not too early.
    pub found: &'static str,
    /// Makes what is needed. What it returns is the start and the end.
    prepare: fn(&Segment, StartMethod) -> Operation,
}

type Operation = Box<dyn FnOnce() -> String>;

pub const SCENES: &[Scene] = &[
    Scene {
        name: "zygote, a box there and back",
        method: StartMethod::Zygote,
        is_first: false,
        found: "value",
        prepare: sends_a_box,
    },
    Scene {
        name: "first zygote, handles there and back",
        method: StartMethod::Zygote,
        is_first: true,
        found: "value",
        prepare: sends_handles,
    },
    Scene {
        name: "a new program, a box there and back",
        method: StartMethod::Spawn,
        is_first: false,
        found: "value",
        prepare: sends_a_box,
    },
    Scene {
        name: "zygote, the child panics",
        method: StartMethod::Zygote,
        is_first: false,
        found: "panicked",
        prepare: panics,
    },
    Scene {
        name: "zygote, the child exits",
        method: StartMethod::Zygote,
        is_first: false,
        found: "exited",
        prepare: exits,
    },
];

impl Scene {
    /// Whether a program that is started becomes a zygote.
    pub fn has_zygote(&self) -> bool {
        self.method == StartMethod::Zygote
    }

    /// Whether it takes part.
    pub fn has(&self, who: Who) -> bool {
        who != Who::Zygote || self.has_zygote()
    }
}

/// Whether this program was started as a child, so that nobody but this crate should run.
pub fn is_child() -> bool {
    std::env::var_os(MARKER).is_some()
}

/// For a `main` that runs in a process which was started as a child.
pub fn main_ran_in_a_child() -> ExitCode {
    std::fs::write(TRACE_OF_MAIN, "").expect("the parent's folder");
    ExitCode::FAILURE
}

/// Ready to be played, by a process that has just begun.
pub struct Ready {
    scene: &'static Scene,
    segment: Segment,
    operation: Operation,
    descriptors: usize,
}

impl Ready {
    pub fn new(scene: &'static Scene, segment: &Segment) -> Ready {
        let own = std::process::id();
        if !scene.is_first {
            assert_eq!(starts(scene.method), Ok(8));
        } else {
            Segment::commons().expect("memory");
        }
        let operation = (scene.prepare)(segment, scene.method);
        // Until it has nothing more to do.
        children_of(own).into_iter().for_each(|(zygote, _)| wait_until_asleep(zygote));
        let segment = segment.clone();
        Ready { scene, segment, operation, descriptors: descriptors().len() }
    }

    /// Starts and ends the child. Says what came of it, and gives what is to be checked later.
    pub fn play(self) -> (String, Afterwards) {
        let Ready { scene, segment, operation, descriptors } = self;
        (operation(), Afterwards { scene, segment, descriptors })
    }
}

/// Checks what must be true when the child has ended.
pub struct Afterwards {
    scene: &'static Scene,
    segment: Segment,
    descriptors: usize,
}

/// Descriptors that stay once a process has a zygote: socket, pidfd and pipe of that, and the two
/// of the pipe of all children.
const OF_ZYGOTE: usize = 5;

impl Afterwards {
    pub fn check(self) {
        let Afterwards { scene, segment, descriptors: before } = self;
        assert_eq!(starts(scene.method), Ok(8), "another start");
        let blocks = |segment: &Segment| segment.stats().expect("attached").in_use.blocks;
        let commons = Segment::commons().expect("it is there");
        assert_eq!((blocks(&segment), blocks(&commons)), (0, 0), "blocks are left");
        let peers = |segment: &Segment| segment.stats().expect("attached").peers.len();
        // This process, and the one that had the segment before.
        assert_eq!((peers(&segment), peers(&commons)), (2, 1), "peers are left");
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let zombie = waitid(Id::All, any);
        assert!(
            !matches!(zombie, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))),
            "{zombie:?}"
        );
        let children = children_of(std::process::id());
        let zygotes = usize::from(scene.has_zygote());
        assert_eq!(children.len(), zygotes, "{children:?}");
        let now = descriptors();
        let may_have = before + if scene.is_first { OF_ZYGOTE } else { 0 };
        assert!(now.len() <= may_have, "{before} descriptors before, now {now:?}");
    }
}

fn starts(method: StartMethod) -> Result<u64, String> {
    let child = Builder::new().method(method).spawn(|n: u64| n + 1, 7);
    child.map_err(|error| error.to_string())?.join().map_err(|error| error.to_string())
}

/// Waits for the child, and says how it has ended. `value` says whether its value is right.
fn end<T: Return>(child: Child<T>, value: impl FnOnce(T) -> bool) -> String {
    match child.join() {
        Ok(it) => if value(it) { "value" } else { "another value" }.to_owned(),
        Err(JoinError::Killed(9)) => KILLED.to_owned(),
        Err(JoinError::Panicked(panic)) if panic.message == "no luck today" => {
            "panicked".to_owned()
        }
        Err(JoinError::Exited(3)) => "exited".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

fn sends_a_box(segment: &Segment, method: StartMethod) -> Operation {
    fn back(mut boxed: ShmBox<u64>) -> ShmBox<u64> {
        *boxed += 1;
        boxed
    }
    let boxed = ShmBox::new_in(segment, 7_u64).expect("room");
    Box::new(move || match Builder::new().method(method).spawn(back, boxed) {
        Ok(child) => end(child, |boxed| *boxed == 8),
        Err(error) => format!("not started: {error:?}"),
    })
}

type Given = (Sender<u64>, Lock<u64>, String);

/// What goes to the child, and the other end of its channel.
fn handles(segment: &Segment) -> (Given, Receiver<u64>) {
    let (sender, receiver) =
        QueueOptions::new().capacity(2).create_channel_in::<u64>(segment).expect("room");
    let lock = Lock::new_in(segment, 7_u64).expect("room");
    ((sender, lock, "seven ".repeat(2000)), receiver)
}

/// What is left in the channel when the child has gone.
fn hear_end(receiver: &Receiver<u64>, said: String) -> String {
    let first = receiver.recv_timeout(LONG);
    let last = if first == Ok(7) { receiver.recv_timeout(LONG) } else { first };
    match last {
        Err(RecvTimeoutError::Disconnected) => said,
        other => format!("{said}, and the channel is {other:?}"),
    }
}

fn sends_handles(segment: &Segment, method: StartMethod) -> Operation {
    fn work((sender, lock, text): Given) -> (Lock<u64>, String) {
        sender.send(7).expect("somebody listens");
        *lock.lock().expect("free") += 1;
        (lock, text)
    }
    let (given, receiver) = handles(segment);
    Box::new(move || {
        let is_right = |(lock, text): (Lock<u64>, String)| {
            *lock.lock().expect("free") == 8 && text.len() == 12_000
        };
        let said = match Builder::new().method(method).spawn(work, given) {
            Ok(child) => end(child, is_right),
            Err(error) => format!("not started: {error:?}"),
        };
        hear_end(&receiver, said)
    })
}

fn panics(segment: &Segment, method: StartMethod) -> Operation {
    fn work(_: Given) {
        panic!("no luck today");
    }
    let (given, receiver) = handles(segment);
    Box::new(move || {
        // No names of functions are looked up.
        let builder = Builder::new().method(method).env("RUST_BACKTRACE", "0");
        let said = match builder.stderr(Stream::Null).spawn(work, given) {
            Ok(child) => end(child, |()| false),
            Err(error) => format!("not started: {error:?}"),
        };
        hear_end(&receiver, said)
    })
}

fn exits(segment: &Segment, method: StartMethod) -> Operation {
    fn work(_: ShmBox<u64>) {
        std::process::exit(3);
    }
    let boxed = ShmBox::new_in(segment, 7_u64).expect("room");
    Box::new(move || match Builder::new().method(method).spawn(work, boxed) {
        Ok(child) => end(child, |()| false),
        Err(error) => format!("not started: {error:?}"),
    })
}
