//! The operations, each with what may come of it.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use offspring::plain;
use offspring::spsc::{Consumer, Producer, ring_in};
use offspring::{
    Builder, ByteQueue, Child, CreateError, EncodeError, Event, Failure, Fault, ForkError, Handle,
    JoinError, Lock, LockTimeoutError, ObjectQueue, OnReceiverDeath, Queue, QueueOptions,
    RecvTimeoutError, Segment, SendError, SendTimeoutError, Sender, ShmVec, StartMethod, Stream,
    TryLockError, TryRecvError, TrySendError, WaitTimeoutError, channel,
};

use crate::common::blocks::in_use;
use crate::common::{children, descriptors, fork, wait_until};
use crate::raw::{raw_fork, sleep_for_ever};
use crate::tracer::unseen;

/// What has come of an operation. Whatever is none of these is a panic.
#[derive(Debug)]
pub enum Outcome {
    Works,
    /// A verdict that could not be given.
    Alive,
    /// An error, with the chain of its causes.
    Refused(String),
}

use Outcome::{Alive, Refused, Works};

fn refused(error: impl Error) -> Outcome {
    Refused(chain(error))
}

/// An error and its causes.
fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// An operation, ready to be made: what is done before it, unseen, and the operation itself.
pub struct Ready {
    pub before: Box<dyn FnOnce() -> Result<(), String>>,
    pub operation: Box<dyn FnOnce() -> Outcome>,
}

fn ready(operation: impl FnOnce() -> Outcome + 'static) -> Ready {
    Ready { before: Box::new(|| Ok(())), operation: Box::new(operation) }
}

/// For a process that is attached to the commons before.
fn attached(operation: impl FnOnce() -> Outcome + 'static) -> Ready {
    let attach = || match Queue::<u8>::with_capacity(1) {
        Ok(_) => Ok(()),
        Err(error) => Err(chain(error)),
    };
    Ready { before: Box::new(attach), operation: Box::new(operation) }
}

pub struct Scene {
    /// When it is: at attach, at fork, and so on.
    pub at: &'static str,
    pub name: &'static str,
    pub prepare: fn() -> Ready,
}

/// When the scenes are that start children which are no copies of their parents.
pub const SPAWN: &str = "spawn";

/// Ends the names of scenes in which somebody has attached without `/proc`.
const WITHOUT_BYTE: &str = "without a locked byte";

impl Scene {
    /// Before Linux 6.11 nobody finds out in which pid namespace it lives without `/proc`, and so
    /// is refused.
    pub fn can_be_played(&self) -> bool {
        static ATTACHES: OnceLock<bool> = OnceLock::new();
        let ends_well =
            |pid| waitid(Id::Pid(pid), WaitPidFlag::WEXITED) == Ok(WaitStatus::Exited(pid, 0));
        // In a process of its own, as whoever plays a scene is to be the first of a family.
        let attaches = || {
            ends_well(raw_fork(|| {
                let lock = Lock::new(()).expect("a lock");
                assert!(ends_well(raw_fork(|| {
                    hide_proc();
                    drop(lock.lock().expect("attached"));
                })));
            }))
        };
        !self.name.ends_with(WITHOUT_BYTE) || *ATTACHES.get_or_init(attaches)
    }
}

/// Longer than anything here takes that works.
const LONG: Duration = Duration::from_secs(5);
/// So long it is waited behind somebody who stays alive.
const SHORT: Duration = Duration::from_millis(80);
/// And so long behind the dead, of whom a sandbox may know nothing.
const DEAD: Duration = Duration::from_millis(250);

/// Unwraps, or has the operation end with the error.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return refused(error),
        }
    };
}

pub const SCENES: &[Scene] = &[
    Scene { at: "attach", name: "create a segment, use it, drop it", prepare: || ready(create) },
    Scene { at: "attach", name: "create a segment in a file", prepare: create_file },
    Scene { at: "attach", name: "open a segment in a file", prepare: open_file },
    Scene { at: "attach", name: "open a file of another boot", prepare: open_old_file },
    Scene { at: "attach", name: "receive a segment", prepare: receive },
    Scene { at: "attach", name: "first use after a raw fork", prepare: first_use_after_raw_fork },
    Scene { at: "attach", name: "first use in a child", prepare: first_use_in_child },
    Scene { at: "fork", name: "fork, first of a program", prepare: || ready(|| fork_and_join(7)) },
    Scene { at: "fork", name: "fork, join a number", prepare: || attached(|| fork_and_join(7)) },
    Scene { at: "fork", name: "fork, join a long text", prepare: || attached(fork_and_join_text) },
    Scene { at: "fork", name: "fork, join a panic", prepare: || attached(fork_and_join_panic) },
    Scene {
        at: "fork",
        name: "fork, hand ends of channels over",
        prepare: || attached(fork_with_ends),
    },
    Scene { at: "fork", name: "fork with siblings", prepare: || attached(fork_siblings) },
    Scene {
        at: "fork",
        name: "fork, kill, join with a time-out",
        prepare: || attached(fork_kill_join),
    },
    Scene { at: "fork", name: "fork, drop the child", prepare: || attached(fork_and_drop) },
    Scene {
        at: "fork",
        name: "fork where SIGCHLD is ignored",
        prepare: || attached(fork_without_status),
    },
    Scene { at: SPAWN, name: "spawn by the zygote, join", prepare: || by_zygote(spawn_and_join) },
    Scene {
        at: SPAWN,
        name: "spawn the first, by a new zygote",
        prepare: || attached(|| spawn_and_join(StartMethod::Zygote)),
    },
    Scene {
        at: SPAWN,
        name: "spawn by starting the program",
        prepare: || attached(|| spawn_and_join(StartMethod::Spawn)),
    },
    Scene {
        at: SPAWN,
        name: "spawn by the zygote, with settings",
        prepare: || by_zygote(spawn_with_settings),
    },
    Scene {
        at: SPAWN,
        name: "spawn by starting the program, with settings",
        prepare: || attached(|| spawn_with_settings(StartMethod::Spawn)),
    },
    Scene { at: SPAWN, name: "preload, spawn", prepare: || attached(preload_and_spawn) },
    Scene {
        at: "verdict",
        name: "lock behind a living owner",
        prepare: || behind_lock(Owner::Lives),
    },
    Scene { at: "verdict", name: "lock behind a zombie", prepare: || behind_lock(Owner::Zombie) },
    Scene { at: "verdict", name: "lock behind the dead", prepare: || behind_lock(Owner::Gone) },
    Scene {
        at: "verdict",
        name: "lock behind one who became another program",
        prepare: || behind_lock(Owner::Other),
    },
    Scene {
        at: "verdict",
        name: "lock behind a zombie without a locked byte",
        prepare: || behind_lock(Owner::ZombieByPid),
    },
    Scene {
        at: "verdict",
        name: "lock behind the dead without a locked byte",
        prepare: || behind_lock(Owner::GoneByPid),
    },
    Scene {
        at: "verdict",
        name: "lock behind the living without a locked byte",
        prepare: || behind_lock(Owner::LivesByPid),
    },
    Scene {
        at: "verdict",
        name: "send behind a living writer",
        prepare: || behind_writer(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "send behind a dead writer",
        prepare: || behind_writer(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "receive again what a dead reader had",
        prepare: || behind_reader(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "receive again what a living reader has",
        prepare: || behind_reader(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "receive from a living sender",
        prepare: || behind_sender(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "receive when the only sender is a zombie",
        prepare: || behind_sender(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "receive when the only sender became another program",
        prepare: || behind_sender(Owner::Other),
    },
    Scene {
        at: "verdict",
        name: "send when the only receiver is dead",
        prepare: || behind_receiver(Owner::Gone),
    },
    Scene {
        at: "verdict",
        name: "take the role of the living",
        prepare: || take_role(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "take the role of the dead",
        prepare: || take_role(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "wait for the living sender of a ring",
        prepare: || behind_sender_of_ring(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "wait for the dead sender of a ring",
        prepare: || behind_sender_of_ring(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "receive again a long message that a dead reader had",
        prepare: || behind_message(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "receive again a long message that a living reader has",
        prepare: || behind_message(Owner::Lives),
    },
    Scene {
        at: "verdict",
        name: "send where the dead have the memory",
        prepare: || behind_loan(Owner::Zombie),
    },
    Scene {
        at: "verdict",
        name: "send where the living have the memory",
        prepare: || behind_loan(Owner::Lives),
    },
    Scene { at: "verdict", name: "reap beside the living", prepare: || reap(Owner::Lives) },
    Scene { at: "verdict", name: "reap after the dead", prepare: || reap(Owner::Zombie) },
    Scene { at: "sleep", name: "receive what comes later", prepare: receive_later },
    Scene { at: "sleep", name: "lock what is given up later", prepare: lock_later },
    Scene { at: "sleep", name: "wait for one of two events", prepare: wait_for_either },
    Scene { at: "wake", name: "send to one who sleeps", prepare: wake_receiver },
    Scene { at: "wake", name: "unlock before one who sleeps", prepare: wake_locker },
    Scene { at: "wake", name: "set an event for one who sleeps", prepare: wake_waiter },
    Scene { at: "memory", name: "make and drop a large queue", prepare: || attached(large_queue) },
    Scene {
        at: "memory",
        name: "spend the budget, drop, spend it again",
        prepare: || ready(spend),
    },
    Scene {
        at: "memory",
        name: "send, receive, loan and drop long messages",
        prepare: || attached(long_messages),
    },
    Scene { at: "memory", name: "make, grow, send and receive boxes", prepare: || attached(boxes) },
    Scene {
        at: "memory",
        name: "spend the budget on messages, receive, spend it again",
        prepare: || ready(spend_on_messages),
    },
];

/// Longer than any message that lies in its slot; with pages of its own.
const MESSAGE: usize = 100_000;

fn long_messages() -> Outcome {
    let queue = attempt!(ByteQueue::with_capacity(4));
    match queue.send(&[7; MESSAGE]) {
        Ok(()) => {}
        Err(SendError::Rejected((), error)) => return refused(error),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(*queue.recv().expect("a message"), [7; MESSAGE]);
    drop(attempt!(queue.loan(3 * MESSAGE)));
    let mut loan = attempt!(queue.loan(20 * MESSAGE));
    loan.fill(8);
    loan.send().expect("room");
    let message = queue.recv().expect("a message");
    assert!(message.iter().all(|&byte| byte == 8));
    drop(message);
    let texts = attempt!(ObjectQueue::with_capacity(2));
    match texts.send("x".repeat(MESSAGE)) {
        Ok(()) => {}
        Err(SendError::Rejected(text, EncodeError::Memory(error))) => {
            assert_eq!(text.len(), MESSAGE, "the value comes back");
            return refused(error);
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(texts.recv().expect("a text").len(), MESSAGE);
    // One that nobody receives goes with its queue.
    drop(texts.try_send("y".repeat(MESSAGE)));
    Works
}

fn boxes() -> Outcome {
    let queue = attempt!(Queue::with_capacity(2));
    let mut bytes = attempt!(ShmVec::with_capacity(MESSAGE));
    bytes.extend_from_slice(&[7_u8; MESSAGE]).expect("there is room");
    queue.send(bytes).expect("room");
    let mut bytes = queue.recv().expect("sent");
    assert_eq!(*bytes, [7; MESSAGE]);
    let grown = bytes.reserve(2 * MESSAGE);
    assert_eq!(*bytes, [7; MESSAGE], "as it was, or moved");
    attempt!(grown);
    // One that nobody receives goes with its queue.
    queue.send(bytes).expect("room");
    Works
}

fn spend_on_messages() -> Outcome {
    let segment = attempt!(Segment::create(1 << 20));
    let queue = attempt!(ByteQueue::with_capacity_in(&segment, 16));
    for _ in 0..2 {
        let mut sent = 0;
        loop {
            match queue.try_send(&[7; MESSAGE]) {
                Ok(()) => sent += 1,
                Err(TrySendError::Rejected((), CreateError::OutOfMemory { .. })) => break,
                Err(TrySendError::Rejected((), error)) => return refused(error),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(sent, 10, "the whole budget");
        (0..sent).for_each(|_| assert_eq!(*queue.try_recv().expect("sent"), [7; MESSAGE]));
    }
    Works
}

fn use_queue(segment: &Segment) -> Outcome {
    let queue = attempt!(Queue::<u64>::with_capacity_in(segment, 4));
    queue.send(7).expect("room");
    assert_eq!(queue.recv(), Ok(7));
    let lock = attempt!(Lock::new_in(segment, 1_u64));
    *lock.lock().expect("free") += 1;
    assert_eq!(*lock.lock().expect("free"), 2);
    Works
}

fn create() -> Outcome {
    use_queue(&attempt!(Segment::create(1 << 16)))
}

/// A new folder. All of them lie in the current one, which goes at the end.
fn folder() -> PathBuf {
    tempfile::tempdir_in(".").expect("a folder").keep()
}

fn create_file() -> Ready {
    let folder = folder();
    ready(move || {
        let path = folder.join("segment");
        let made = Segment::create_file(&path, 1 << 16);
        // There complete, or not at all, and nothing else is.
        let listed = unseen(|| {
            std::fs::read_dir(&folder)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
        });
        if let Ok(names) = listed {
            assert_eq!(names, if made.is_ok() { vec![path] } else { vec![] }, "{made:?}");
        }
        use_queue(&attempt!(made))
    })
}

/// Starts a process that makes a segment by `make`, puts a 7 into a queue in it, and keeps it.
fn maker(make: impl FnOnce() -> Segment) -> Handle {
    let (mut name, mut theirs) = std::io::pipe().expect("a pipe");
    raw_fork(|| {
        let segment = make();
        let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
        queue.send(7).expect("room");
        theirs.write_all(bytemuck::bytes_of(&queue.handle())).expect("somebody listens");
        sleep_for_ever()
    });
    drop(theirs);
    let mut bytes = [0; size_of::<Handle>()];
    name.read_exact(&mut bytes).expect("a name");
    bytemuck::pod_read_unaligned(&bytes)
}

fn find_seven(segment: &Segment, handle: Handle) -> Outcome {
    let queue = attempt!(Queue::<u64>::open(segment, handle));
    assert_eq!(queue.recv_timeout(LONG), Ok(7));
    Works
}

fn open_file() -> Ready {
    let folder = folder();
    let path = folder.join("segment");
    let handle = maker(|| Segment::create_file(&path, 1 << 16).expect("a file"));
    ready(move || find_seven(&attempt!(Segment::open_file(&path)), handle))
}

/// Where a segment's home stands, drawn in `src/segment/header.rs`, and of it the boot.
const BOOT: u64 = 48 + 4;

fn open_old_file() -> Ready {
    use std::os::unix::fs::FileExt;
    let folder = folder();
    let path = folder.join("segment");
    let (mut name, mut theirs) = std::io::pipe().expect("a pipe");
    // Its maker dies with a lock in its hands.
    let maker = raw_fork(|| {
        let segment = Segment::create_file(&path, 1 << 16).expect("a file");
        let lock = Lock::new_in(&segment, 7_u64).expect("a lock");
        std::mem::forget(lock.lock().expect("free"));
        theirs.write_all(bytemuck::bytes_of(&lock.handle())).expect("somebody listens");
        std::mem::forget((segment, lock));
    });
    nix::sys::wait::waitpid(maker, None).expect("it is ours");
    let mut bytes = [0; size_of::<Handle>()];
    name.read_exact(&mut bytes).expect("a name");
    let handle: Handle = bytemuck::pod_read_unaligned(&bytes);
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    file.write_all_at(&[0x5a; 4], BOOT).expect("writable");
    ready(move || {
        let segment = attempt!(Segment::open_file(&path));
        let lock = attempt!(Lock::<u64>::open(&segment, handle));
        match lock.lock_timeout(DEAD) {
            Err(LockTimeoutError::OwnerDied) => {
                assert_eq!(*lock.recover().expect("nobody has it"), 7);
                Works
            }
            Err(LockTimeoutError::Broken(fault)) => refused(fault),
            other => panic!("everybody of the last boot is dead: {other:?}"),
        }
    })
}

fn receive() -> Ready {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let handle = maker(|| {
        let segment = Segment::create(1 << 16).expect("a segment");
        segment.send(&theirs).expect("somebody listens");
        segment
    });
    ready(move || find_seven(&attempt!(Segment::receive(&ours)), handle))
}

fn send_seven(queue: &Queue<u64>) -> Outcome {
    match queue.send_timeout(7, LONG) {
        Ok(()) => {
            assert_eq!(queue.recv_timeout(LONG), Ok(7));
            Works
        }
        Err(SendTimeoutError::Broken(7, fault)) => refused(fault),
        Err(error) => panic!("{error:?}"),
    }
}

fn first_use_after_raw_fork() -> Ready {
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    ready(move || send_seven(&queue))
}

fn first_use_in_child() -> Ready {
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    attached(move || {
        let theirs = queue.clone();
        let child = fork(move || match theirs.send_timeout(7, LONG) {
            Ok(()) => None,
            Err(SendTimeoutError::Broken(7, fault)) => Some(fault.to_string()),
            Err(error) => panic!("{error:?}"),
        });
        match join(attempt!(child)) {
            Ok(None) => assert_eq!(queue.recv_timeout(LONG), Ok(7)),
            Ok(Some(text)) => return Refused(text),
            Err(error) => return ended_badly(error),
        }
        Works
    })
}

/// Joins until the kernel has let us.
fn join<T: serde::de::DeserializeOwned>(mut child: Child<T>) -> Result<T, JoinError> {
    loop {
        match child.join_timeout(LONG) {
            None => panic!("the child does not end"),
            // "The child can still be joined."
            Some(Err(JoinError::Os { call, source })) => {
                if let Some(again) = child.try_join() {
                    return match again {
                        Err(JoinError::Os { .. }) => Err(JoinError::Os { call, source }),
                        other => other,
                    };
                }
            }
            Some(result) => return result,
        }
    }
}

/// A child that did not come to its closure, and says why, or whose status is gone. Every other
/// ending is wrong.
fn ended_badly(error: JoinError) -> Outcome {
    match error {
        JoinError::NotStarted(_) | JoinError::Os { .. } | JoinError::Unsendable(_) => {
            refused(error)
        }
        other => panic!("{other:?}"),
    }
}

/// The child must be gone if `fork` says that there is none.
fn no_child(error: ForkError) -> Outcome {
    let mut status = 0;
    // SAFETY: the status is a valid place to write.
    let left = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    assert_eq!(
        (left, std::io::Error::last_os_error().raw_os_error()),
        (-1, Some(libc::ECHILD)),
        "{error} leaves a child"
    );
    refused(error)
}

fn fork_and_join(value: u64) -> Outcome {
    match fork(move || value) {
        Err(error) => no_child(error),
        Ok(child) => joined_as(child, value),
    }
}

/// One end goes to the child and one stays. If there is no child, the one that it was to have is
/// gone.
fn fork_with_ends() -> Outcome {
    let (sender, receiver) = attempt!(plain::channel::<u64>(2));
    let (kept, from_kept) = attempt!(plain::channel::<u64>(2));
    let theirs = kept.clone();
    let work = move || {
        let sent = sender.send(7);
        drop((sender, theirs));
        sent.map_err(chain)
    };
    let outcome = match fork(work) {
        Err(error) => no_child(error),
        Ok(child) => match join(child) {
            Err(error) => ended_badly(error),
            Ok(Err(text)) => Refused(text),
            Ok(Ok(())) => {
                assert_eq!(receiver.recv_timeout(LONG), Ok(7));
                Works
            }
        },
    };
    // A child that could not be joined has done its work all the same.
    let mut rest = receiver.recv_timeout(LONG);
    if rest == Ok(7) && !matches!(outcome, Works) {
        rest = receiver.recv_timeout(LONG);
    }
    match rest {
        Err(RecvTimeoutError::Disconnected) => {}
        Err(RecvTimeoutError::Timeout) => panic!("NOBODY SAYS THAT THE END IS GONE"),
        other => panic!("{other:?}"),
    }
    assert_eq!(from_kept.try_recv(), Err(offspring::TryRecvError::Empty));
    kept.send(1).expect("connected");
    outcome
}

/// The kernel forgets such a child as it ends, perhaps before its parent has a descriptor of it.
fn fork_without_status() -> Outcome {
    let ignore = || {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) }
    };
    unseen(ignore);
    fork_and_join(7)
}

fn joined_as(child: Child<u64>, value: u64) -> Outcome {
    match join(child) {
        Ok(back) => {
            assert_eq!(back, value, "another value");
            Works
        }
        Err(error) => ended_badly(error),
    }
}

fn fork_and_join_text() -> Outcome {
    let text = || "seven ".repeat(20_000);
    match fork(text) {
        Err(error) => no_child(error),
        Ok(child) => match join(child) {
            Ok(back) => {
                assert_eq!(back, text(), "another text");
                Works
            }
            Err(error) => ended_badly(error),
        },
    }
}

fn fork_and_join_panic() -> Outcome {
    // Looking up the names of a stack takes memory, which a limit may refuse.
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "1") };
    std::panic::set_hook(Box::new(|_| ()));
    let child = fork(|| -> () { panic!("no seven today") });
    let _ = std::panic::take_hook();
    match child {
        Err(error) => no_child(error),
        Ok(child) => match join(child) {
            Err(JoinError::Panicked(panic)) => {
                assert_eq!(panic.message, "no seven today");
                Works
            }
            Ok(()) => panic!("a value"),
            Err(error) => ended_badly(error),
        },
    }
}

fn fork_siblings() -> Outcome {
    let elder = match fork(|| -> () { sleep_for_ever() }) {
        Ok(elder) => elder,
        Err(error) => return no_child(error),
    };
    let outcome = match fork(|| 7) {
        Err(error) => refused(error),
        Ok(younger) => match join(younger) {
            Ok(value) => {
                assert_eq!(value, 7);
                Works
            }
            Err(error) => ended_badly(error),
        },
    };
    end(elder);
    outcome
}

/// Ends a child by all means.
fn end(child: Child<()>) {
    unseen(|| kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)).expect("it is ours");
    match join(child) {
        Err(JoinError::Killed(9) | JoinError::Os { .. } | JoinError::NotStarted(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn fork_kill_join() -> Outcome {
    let mut child = match fork(|| -> () { sleep_for_ever() }) {
        Ok(child) => child,
        Err(error) => return no_child(error),
    };
    match child.join_timeout(Duration::from_millis(5)) {
        None | Some(Err(JoinError::Os { .. })) => {}
        Some(Err(error)) => return ended_badly(error),
        Some(Ok(())) => panic!("it sleeps"),
    }
    // One that could not begin may be slow to say so.
    if !child.is_alive() {
        return join(child).map_or_else(ended_badly, |()| panic!("it sleeps"));
    }
    if let Err(error) = child.kill() {
        end(child);
        return Refused(format!("pidfd_send_signal: {error}"));
    }
    match join(child) {
        Err(JoinError::Killed(9)) => Works,
        Err(error @ (JoinError::Os { .. } | JoinError::NotStarted(_))) => refused(error),
        other => panic!("{other:?}"),
    }
}

fn fork_and_drop() -> Outcome {
    match fork(|| ()) {
        Ok(child) => drop(child),
        Err(error) => return no_child(error),
    }
    // It is waited for at the next fork, at the latest.
    match fork(|| 7) {
        Ok(child) => joined_as(child, 7),
        Err(error) => refused(error),
    }
}

/// For a process that has a zygote before.
fn by_zygote(operation: fn(StartMethod) -> Outcome) -> Ready {
    let first = || match offspring::spawn(|()| 7, ()).map(Child::join) {
        Ok(Ok(7)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    Ready { before: Box::new(first), operation: Box::new(move || operation(StartMethod::Zygote)) }
}

/// How a child ended that could not say why.
pub const SILENT: &str = "exit with code 101 and no word";

/// The environment variable by which a program finds that it is a child.
pub const MARKER: &str = "OFFSPRING_START";

/// What `main` leaves behind where it must not run.
fn trace_of_main(parent: &str) -> String {
    format!("main-ran-in-a-child-of-{parent}")
}

/// For a `main` that runs in a process which was started as a child.
pub fn main_ran_in_a_child() -> ExitCode {
    let marker = std::env::var(MARKER).unwrap_or_default();
    let parent = marker.rsplit(':').next().unwrap_or_default();
    std::fs::write(trace_of_main(parent), "").expect("the parent's folder");
    ExitCode::FAILURE
}

/// What a process has that a start must not leave behind.
struct Belongings {
    descriptors: usize,
    blocks: usize,
}

impl Belongings {
    fn now() -> Option<Belongings> {
        unseen(|| {
            let commons = Segment::commons().ok()?;
            std::fs::read_dir("/proc/self/fd").ok()?;
            Some(Belongings { descriptors: descriptors().len(), blocks: in_use(&commons) })
        })
    }
}

/// Descriptors that stay once a process has a zygote: socket, pidfd and pipe of that, and the pipe
/// of all children.
const OF_ZYGOTE: usize = 5;

/// Plays `start` and checks that nothing is left of it but a zygote.
fn leaving_nothing(start: impl FnOnce() -> Outcome) -> Outcome {
    let before = Belongings::now();
    let outcome = start();
    let has_begun = matches!(outcome, Works);
    unseen(|| {
        let own = std::process::id();
        if !has_begun {
            // What was not ended by its parent ends by itself now.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(
            !std::path::Path::new(&trace_of_main(&own.to_string())).exists(),
            "MAIN RAN IN A CHILD, {outcome:?}"
        );
        // A child for which its parent might not wait stays until the next start after its end.
        if matches!(&outcome, Refused(text) if text.contains("waitid")) {
            wait_until("a start waits for the child of the one before", || {
                let next = offspring::spawn(|()| 7, ()).map(Child::join);
                assert!(matches!(next, Ok(Ok(7))), "{next:?}");
                children().len() <= 1
            });
        }
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if let Ok(status) = waitid(Id::All, any)
            && let Some(pid) = status.pid()
        {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            // A zygote that has died after it has made the child is found dead at the next start.
            let is_zygote = has_begun && name.as_ref().is_ok_and(|name| name == "zygote\n");
            assert!(is_zygote, "A ZOMBIE IS LEFT: {status:?} {name:?}, {outcome:?}");
        }
        let children = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
        let children = children.unwrap_or_default();
        if let Some(child) = children.split_ascii_whitespace().nth(1) {
            panic!("A PROCESS IS LEFT: {child}, {outcome:?}");
        }
    });
    if let (Some(before), Some(after)) = (before, Belongings::now()) {
        assert!(
            after.descriptors <= before.descriptors + OF_ZYGOTE,
            "DESCRIPTORS ARE LEFT: {} after {}, {outcome:?}",
            after.descriptors,
            before.descriptors
        );
        assert_eq!(after.blocks, before.blocks, "BLOCKS ARE LEFT, {outcome:?}");
    }
    outcome
}

fn spawned_badly(error: JoinError) -> Outcome {
    match error {
        JoinError::Exited(101) => Refused(SILENT.to_owned()),
        other => ended_badly(other),
    }
}

/// One end goes to the child, with a long text and a box. If there is no child, they are gone.
fn spawn_with(builder: Builder) -> Outcome {
    type Given = (Sender<u64>, String);
    fn work((sender, text): Given) -> Result<String, String> {
        sender.send(7).map_err(chain)?;
        Ok(text)
    }
    leaving_nothing(|| {
        let (sender, receiver) = attempt!(channel::<u64>(2));
        let text = "seven ".repeat(20_000);
        let outcome = match builder.spawn(work, (sender, text.clone())) {
            Err(error) => {
                let outcome = refused(error);
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected), "{outcome:?}");
                return outcome;
            }
            Ok(child) => match join(child) {
                Err(error) => spawned_badly(error),
                Ok(Err(text)) => Refused(text),
                Ok(Ok(back)) => {
                    assert_eq!(back, text, "another text");
                    assert_eq!(receiver.recv_timeout(LONG), Ok(7));
                    Works
                }
            },
        };
        // A child that could not be joined has done its work all the same.
        let mut rest = receiver.recv_timeout(LONG);
        if rest == Ok(7) && !matches!(outcome, Works) {
            rest = receiver.recv_timeout(LONG);
        }
        assert_eq!(rest, Err(RecvTimeoutError::Disconnected), "{outcome:?}");
        outcome
    })
}

fn spawn_and_join(method: StartMethod) -> Outcome {
    spawn_with(Builder::new().method(method))
}

fn nothing_fails() -> Result<(), Failure> {
    Ok(())
}

fn spawn_with_settings(method: StartMethod) -> Outcome {
    let builder = Builder::new()
        .method(method)
        .name("seven")
        .env("SEVEN", "7")
        .current_dir(".")
        .stdin(Stream::Null)
        .memory_limit(1 << 30)
        .cpu_limit(Duration::from_secs(600))
        .before(nothing_fails);
    spawn_with(builder)
}

fn preload_and_spawn() -> Outcome {
    match offspring::preload(nothing_fails) {
        Ok(()) => spawn_and_join(StartMethod::Zygote),
        Err(error) => leaving_nothing(|| refused(error)),
    }
}

/// What becomes of one who has something in its hands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Lives,
    /// Killed, and not waited for.
    Zombie,
    /// Killed, and waited for.
    Gone,
    /// The same of one that could lock no byte, as it has no `/proc`.
    LivesByPid,
    ZombieByPid,
    GoneByPid,
    /// It has become another program, which lives.
    Other,
}

impl Owner {
    fn lives(self) -> bool {
        matches!(self, Owner::Lives | Owner::LivesByPid)
    }

    fn has_proc(self) -> bool {
        !matches!(self, Owner::LivesByPid | Owner::ZombieByPid | Owner::GoneByPid)
    }
}

/// Starts a process that takes something by `take`, and what becomes of it.
fn owner<T>(owner: Owner, take: impl FnOnce() -> T) {
    let (mut ready, mut theirs) = std::io::pipe().expect("a pipe");
    // Its parent waits for it, or does not, and is not the process that plays the scene.
    raw_fork(move || {
        let (mut took, mut told) = std::io::pipe().expect("a pipe");
        let pid = raw_fork(move || {
            if !owner.has_proc() {
                hide_proc();
            }
            let _kept = take();
            if owner == Owner::Other {
                // What it tells with is closed by that.
                panic!("{}", std::process::Command::new("sleep").arg("infinity").exec());
            }
            told.write_all(b"x").expect("somebody listens");
            sleep_for_ever()
        });
        if owner == Owner::Other {
            assert_eq!(took.read(&mut [0]).expect("readable"), 0);
        } else {
            took.read_exact(&mut [0]).expect("it took it");
        }
        if !owner.lives() && owner != Owner::Other {
            kill(pid, Signal::SIGKILL).expect("it is ours");
            // A zombie stays one.
            let keep = if matches!(owner, Owner::Gone | Owner::GoneByPid) {
                WaitPidFlag::empty()
            } else {
                WaitPidFlag::WNOWAIT
            };
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | keep).expect("it is ours");
        }
        theirs.write_all(b"x").expect("somebody listens");
        sleep_for_ever()
    });
    ready.read_exact(&mut [0]).expect("the owner is ready");
}

/// Has this process see no `/proc`, as in an empty root; as a normal user, in a user namespace of
/// its own.
fn hide_proc() {
    let empty = folder();
    let enter = || nix::unistd::chroot(&empty);
    if enter().is_err() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).expect("a user namespace");
        enter().expect("chroot");
    }
    std::env::set_current_dir("/").expect("the root");
}

/// What may come of waiting behind an owner.
fn judged(owner: Owner, found_dead: bool) -> Outcome {
    assert!(!(owner.lives() && found_dead), "A LIVING OWNER WAS CALLED DEAD");
    if found_dead || owner.lives() { Works } else { Alive }
}

fn behind_lock(whose: Owner) -> Ready {
    let lock = Lock::new(7_u64).expect("a lock");
    owner(whose, || std::mem::forget(lock.lock().expect("free")));
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || match lock.lock_timeout(wait) {
        Err(LockTimeoutError::OwnerDied) => {
            assert_eq!(*lock.recover().expect("nobody has it"), 7);
            judged(whose, true)
        }
        Err(LockTimeoutError::Timeout) => match lock.try_lock() {
            Err(TryLockError::WouldBlock) => judged(whose, false),
            Err(TryLockError::OwnerDied) => judged(whose, true),
            Err(TryLockError::Broken(fault)) => refused(fault),
            other => panic!("{other:?}"),
        },
        Err(LockTimeoutError::Broken(fault)) => refused(fault),
        other => panic!("{other:?}"),
    })
}

fn behind_writer(whose: Owner) -> Ready {
    let queue = Queue::<u64>::with_capacity(1).expect("a queue");
    owner(whose, || std::mem::forget(queue.reserve().expect("room")));
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || match queue.send_timeout(7, wait) {
        Ok(()) => {
            assert_eq!(queue.try_recv(), Ok(7));
            judged(whose, true)
        }
        Err(SendTimeoutError::Timeout(7)) => judged(whose, false),
        Err(SendTimeoutError::Broken(7, fault)) => refused(fault),
        Err(error) => panic!("{error:?}"),
    })
}

fn behind_reader(whose: Owner) -> Ready {
    let queue = QueueOptions::new()
        .capacity(4)
        .on_receiver_death(OnReceiverDeath::Redeliver)
        .create()
        .expect("a queue");
    let queue: Queue<u64> = queue;
    queue.send(7).expect("room");
    owner(whose, || std::mem::forget(queue.recv_ref().expect("a message")));
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || match queue.recv_ref_timeout(wait) {
        Ok(message) => {
            assert!(*message == 7 && message.redelivered());
            judged(whose, true)
        }
        Err(RecvTimeoutError::Timeout) => judged(whose, false),
        Err(RecvTimeoutError::Broken(fault)) => refused(fault),
        Err(error) => panic!("{error:?}"),
    })
}

fn behind_message(whose: Owner) -> Ready {
    let mut options = QueueOptions::new();
    options.capacity(4).on_receiver_death(OnReceiverDeath::Redeliver);
    let queue = options.create_bytes().expect("a queue");
    queue.send(&[7; MESSAGE]).expect("room");
    owner(whose, || std::mem::forget(queue.recv().expect("a message")));
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || match queue.recv_timeout(wait) {
        Ok(message) => {
            assert!(*message == [7; MESSAGE] && message.redelivered());
            judged(whose, true)
        }
        Err(RecvTimeoutError::Timeout) => judged(whose, false),
        Err(RecvTimeoutError::Broken(fault)) => refused(fault),
        Err(error) => panic!("{error:?}"),
    })
}

fn behind_loan(whose: Owner) -> Ready {
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
    owner(whose, || std::mem::forget(queue.loan(9 * MESSAGE).expect("room")));
    attached(move || match queue.try_send(&[8; 3 * MESSAGE]) {
        Ok(()) => {
            assert_eq!(*queue.try_recv().expect("sent"), [8; 3 * MESSAGE]);
            judged(whose, true)
        }
        Err(TrySendError::Rejected((), CreateError::OutOfMemory { .. })) => judged(whose, false),
        Err(TrySendError::Rejected((), error)) => refused(error),
        Err(TrySendError::Broken((), fault)) => refused(fault),
        Err(error) => panic!("{error:?}"),
    })
}

/// Without a verdict there is no word that the other side is gone, and none of it hangs.
fn behind_sender(whose: Owner) -> Ready {
    let (sender, receiver) = plain::channel::<u64>(2).expect("a channel");
    owner(whose, || sender.send(7).expect("connected"));
    // The other one has used its copy, so it counts there.
    drop(sender);
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || {
        assert_eq!(receiver.recv(), Ok(7));
        match receiver.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => judged(whose, true),
            Err(RecvTimeoutError::Timeout) => judged(whose, false),
            Err(RecvTimeoutError::Broken(fault)) => refused(fault),
            other => panic!("{other:?}"),
        }
    })
}

fn behind_receiver(whose: Owner) -> Ready {
    let (sender, receiver) = plain::channel::<u64>(1).expect("a channel");
    sender.send(1).expect("room");
    owner(whose, || assert_eq!(receiver.recv(), Ok(1)));
    drop(receiver);
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || {
        if let Err(error) = sender.send(2)
            && !error.is_disconnected()
        {
            return refused(error);
        }
        match sender.send_timeout(3, wait) {
            Err(SendTimeoutError::Disconnected(3)) => judged(whose, true),
            Err(SendTimeoutError::Timeout(3)) => judged(whose, false),
            Err(SendTimeoutError::Broken(3, fault)) => refused(fault),
            other => panic!("{other:?}"),
        }
    })
}

fn take_role(whose: Owner) -> Ready {
    let segment = Segment::commons().expect("the commons");
    let (sender, receiver) = ring_in_commons();
    let handle = sender.handle();
    // Keeps the role from being gone, whatever becomes of its user.
    let spare = sender.standby().expect("another end");
    drop(sender);
    let name = handle;
    owner(whose, || {
        std::mem::forget(
            Producer::<u64>::open(&Segment::commons().expect("the commons"), name).expect("free"),
        )
    });
    attached(move || {
        let _ends = (receiver, spare);
        match Producer::<u64>::open(&segment, handle) {
            Ok(_) => judged(whose, true),
            Err(Fault::RoleTaken) => judged(whose, false),
            Err(fault) => refused(fault),
        }
    })
}

/// As [`behind_sender`].
fn behind_sender_of_ring(whose: Owner) -> Ready {
    let (sender, receiver) = ring_in_commons();
    let (name, spare) = (sender.handle(), sender.standby().expect("another end"));
    drop(sender);
    // The process that plays the scene is to have the role, and not its parent.
    let mut receiver = {
        let stands_by = receiver.standby().expect("another end");
        drop(receiver);
        stands_by
    };
    owner(whose, || {
        let segment = Segment::commons().expect("the commons");
        let mut sender = Producer::<u64>::open(&segment, name).expect("free");
        sender.send(7).expect("room");
        std::mem::forget(sender);
    });
    drop(spare);
    let wait = if whose.lives() { SHORT } else { DEAD };
    attached(move || {
        assert_eq!(receiver.recv(), Ok(7));
        match receiver.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => judged(whose, true),
            Err(RecvTimeoutError::Timeout) => judged(whose, false),
            Err(RecvTimeoutError::Broken(fault)) => refused(fault),
            other => panic!("{other:?}"),
        }
    })
}

fn ring_in_commons() -> (Producer<u64>, Consumer<u64>) {
    ring_in(&Segment::commons().expect("the commons"), 4).expect("a ring")
}

fn reap(whose: Owner) -> Ready {
    let lock = Lock::new(7_u64).expect("a lock");
    let theirs = lock.clone();
    owner(whose, move || std::mem::forget(theirs.lock().expect("free")));
    attached(move || {
        let reaped = attempt!(Segment::commons().expect("the commons").reap());
        match lock.try_lock() {
            Err(TryLockError::OwnerDied) => judged(whose, true),
            Err(TryLockError::WouldBlock) => {
                assert!(reaped == 0 || !whose.lives(), "A LIVING PROCESS WAS REAPED");
                judged(whose, false)
            }
            Err(TryLockError::Broken(fault)) => refused(fault),
            other => panic!("{other:?}"),
        }
    })
}

/// Two pipes, between the player and its counterpart.
fn talk() -> (PipeReader, PipeWriter) {
    std::io::pipe().expect("a pipe")
}

fn receive_later() -> Ready {
    let queue = Queue::<u64>::with_capacity(4).expect("a queue");
    let (mut go, mut tell) = talk();
    let theirs = queue.clone();
    raw_fork(move || {
        go.read_exact(&mut [0]).expect("somebody tells");
        std::thread::sleep(Duration::from_millis(30));
        theirs.send(7).expect("room");
        sleep_for_ever()
    });
    attached(move || {
        unseen(|| tell.write_all(b"x")).expect("somebody listens");
        match queue.recv_timeout(LONG) {
            Ok(value) => {
                assert_eq!(value, 7);
                Works
            }
            Err(RecvTimeoutError::Broken(fault)) => refused(fault),
            Err(error) => panic!("what was sent did not come: {error}"),
        }
    })
}

fn lock_later() -> Ready {
    let lock = Lock::new(7_u64).expect("a lock");
    let (mut go, mut tell) = talk();
    let (mut has, mut told) = talk();
    let theirs = lock.clone();
    raw_fork(move || {
        let guard = theirs.lock().expect("free");
        told.write_all(b"x").expect("somebody listens");
        go.read_exact(&mut [0]).expect("somebody tells");
        std::thread::sleep(Duration::from_millis(30));
        drop(guard);
        sleep_for_ever()
    });
    has.read_exact(&mut [0]).expect("it has the lock");
    attached(move || {
        unseen(|| tell.write_all(b"x")).expect("somebody listens");
        match lock.lock_timeout(LONG) {
            Ok(guard) => {
                assert_eq!(*guard, 7);
                Works
            }
            Err(LockTimeoutError::Broken(fault)) => refused(fault),
            Err(error) => panic!("{error}"),
        }
    })
}

/// Waits until another process sleeps, as far as a process can know that which may have no `/proc`.
fn wait_until_asleep() {
    unseen(|| std::thread::sleep(Duration::from_millis(20)));
}

fn wake_receiver() -> Ready {
    let queue = QueueOptions::new()
        .capacity(4)
        .wait(offspring::Wait::Sleep)
        .create::<u64>()
        .expect("a queue");
    let (mut answer, mut tell) = talk();
    let theirs = queue.clone();
    raw_fork(move || {
        let value = theirs.recv().expect("open");
        tell.write_all(&[value as u8]).expect("somebody listens");
        sleep_for_ever()
    });
    wait_until_asleep();
    attached(move || {
        if let Err(error) = queue.send_timeout(7, LONG) {
            panic!("{error}");
        }
        let mut got = [0];
        unseen(|| answer.read_exact(&mut got)).expect("the receiver answers");
        assert_eq!(got, [7]);
        Works
    })
}

fn wake_locker() -> Ready {
    let lock = Lock::new(7_u64).expect("a lock").with_wait(offspring::Wait::Sleep);
    let (mut answer, mut tell) = talk();
    let (mut go, mut ready_to_lock) = talk();
    let theirs = lock.clone();
    raw_fork(move || {
        go.read_exact(&mut [0]).expect("somebody tells");
        let value = *theirs.lock().expect("in good order");
        tell.write_all(&[value as u8]).expect("somebody listens");
        sleep_for_ever()
    });
    attached(move || {
        let mut guard = match lock.lock_timeout(LONG) {
            Ok(guard) => guard,
            Err(LockTimeoutError::Broken(fault)) => return refused(fault),
            Err(error) => panic!("{error}"),
        };
        unseen(|| ready_to_lock.write_all(b"x")).expect("somebody listens");
        wait_until_asleep();
        *guard = 8;
        drop(guard);
        let mut got = [0];
        unseen(|| answer.read_exact(&mut got)).expect("the other one answers");
        assert_eq!(got, [8]);
        Works
    })
}

fn wait_for_either() -> Ready {
    let event = || Event::auto_reset().expect("an event").with_wait(offspring::Wait::Sleep);
    let (first, second) = (event(), event());
    let (mut go, mut tell) = talk();
    let theirs = second.clone();
    raw_fork(move || {
        go.read_exact(&mut [0]).expect("somebody tells");
        std::thread::sleep(Duration::from_millis(30));
        theirs.set().expect("attached");
        sleep_for_ever()
    });
    attached(move || {
        unseen(|| tell.write_all(b"x")).expect("somebody listens");
        match Event::wait_any_timeout(&[&first, &second], LONG) {
            Ok(which) => {
                assert_eq!(which, 1);
                Works
            }
            Err(WaitTimeoutError::Broken(fault)) => refused(fault),
            Err(error) => panic!("it was set: {error}"),
        }
    })
}

fn wake_waiter() -> Ready {
    let event = Event::new().expect("an event").with_wait(offspring::Wait::Sleep);
    let (mut answer, mut tell) = talk();
    let theirs = event.clone();
    raw_fork(move || {
        theirs.wait().expect("attached");
        tell.write_all(b"x").expect("somebody listens");
        sleep_for_ever()
    });
    wait_until_asleep();
    attached(move || {
        attempt!(event.set());
        unseen(|| answer.read_exact(&mut [0])).expect("the waiter answers");
        Works
    })
}

fn large_queue() -> Outcome {
    let queue = attempt!(Queue::<[u64; 8]>::with_capacity(1 << 12));
    queue.send([7; 8]).expect("room");
    assert_eq!(queue.recv(), Ok([7; 8]));
    drop(queue);
    // What was given back can be had again.
    let queue = attempt!(Queue::<[u64; 8]>::with_capacity(1 << 12));
    queue.send([8; 8]).expect("room");
    assert_eq!(queue.recv(), Ok([8; 8]));
    Works
}

fn spend() -> Outcome {
    let segment = attempt!(Segment::create(1 << 18));
    for _ in 0..2 {
        let mut queues = Vec::new();
        loop {
            match Queue::<[u8; 1000]>::with_capacity_in(&segment, 16) {
                Ok(queue) => {
                    assert!(queue.try_send([7; 1000]).is_ok());
                    queues.push(queue);
                }
                Err(CreateError::OutOfMemory { .. }) => break,
                Err(error) => return refused(error),
            }
        }
        assert_eq!(queues.len(), 15, "the whole budget");
        assert!(queues.iter().all(|queue| queue.try_recv() == Ok([7; 1000])));
    }
    Works
}
