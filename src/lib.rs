//! Shared-memory queues, locks and child processes, with the ease of Python's `multiprocessing`.
//!
//! Everything shared is a typed object in a segment of memory. A handle is a small name for it, and
//! handles travel: to a child with its arguments, through a queue, to a process that was running
//! before the object was made. By default objects live in [the commons](Segment::commons) of the
//! process tree: there is nothing to name and nothing to clean up, as the kernel frees the commons
//! with the last process.
//!
//! Any process may be killed at any instruction. No survivor hangs, and no message is ever seen
//! half-written. What may be lost is said in the section *Peer death* of each type. A process whose
//! death the kernel refuses to tell, in a sandbox, counts as alive.
//!
//! # Examples
//! ```
//! use offspring::{Lock, Queue};
//!
//! /// Runs in a process of its own.
//! fn add((queue, total): (Queue<u64>, Lock<u64>)) {
//!     for number in &queue {
//!         *total.lock().unwrap() += number;
//!     }
//! }
//!
//! let queue = Queue::with_capacity(16)?;
//! let total = Lock::new(0)?;
//! let mut children = Vec::new();
//! for _ in 0..2 {
//!     children.push(offspring::spawn(add, (queue.clone(), total.clone()))?);
//! }
//! (1..=100).try_for_each(|number| queue.send(number))?;
//! queue.close();
//! for child in children {
//!     child.join()?;
//! }
//! assert_eq!(*total.lock().unwrap(), 5050);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is
//! - [`Queue`]: bounded, with many senders and receivers. [`spsc`]: one of each, and faster.
//! - [`channel()`]: a queue of `String`s, `Vec`s, enums and whatever else serde knows, which ends
//!   when all senders or all receivers are gone. [`plain`]: channels of plain values.
//!   [`mod@bytes`]: channels of messages of any length.
//! - [`ObjectQueue`]: the same kind of queue with equal handles, which ends when one calls `close`.
//!   [`ByteQueue`]: messages of any length, written and read in place.
//! - [`ShmBox`], [`ShmVec`], [`ShmStr`]: memory that one process owns, and that moves through a
//!   [`Queue`] without a copy.
//! - [`Lock`]: a value that one thread of one process has at a time.
//! - [`Value`]: a value that is read without a lock and changed as a whole: counters, prices,
//!   settings.
//! - [`Event`]: a flag that one process sets and others wait for, with manual or automatic reset.
//! - [`ShmArc`]: a value or a slice that is made once and read by all.
//! - [`spawn()`] and [`Child`]: a function in a process of its own, from any program. [`Builder`]:
//!   its name, streams, limits and so on. [`fork()`]: a closure in a copy of this process, for
//!   programs with one thread. [`Failure`]: any error as a value that a child can return.
//! - [`Segment`]: the memory, for programs that want more than one.
//! - [`derive(Shm)`](derive@Shm): makes your own structs values that can be sent and shared.
//!   [`derive(Transfer)`](derive@Transfer): the same for structs with boxes, which can be sent.
//!
//! # What there is not
//! There is no network, no persistence of messages across a reboot, no fairness between those who
//! wait, and no priority inheritance. Peers are processes of one user, and must cooperate. They may
//! crash and scribble, which is an error and never undefined behaviour in our own words. But a
//! hostile peer can change what you send.
//!
//! # The house
//! The rooms, each of which uses only those before it:
//! - `primitive`: atomics, or loom's.
//! - `sys`: system calls.
//! - `claim`: how a claim word names its claimant.
//! - `segment`: bytes that processes agree on.
//! - `peer`: who is attached, and who is alive.
//! - `sync`, `ring`, `heap`: algorithms over words that they are given. They do not use each other.
//! - `object`: typed objects in blocks: what lies there (`block`, `payload`), how a process reaches
//!   it (`place`), how a blocked operation goes on (`attempt`), the errors of sending and receiving
//!   (`transfer`), messages in blocks of their own (`parcel`), values that own blocks (`carry`,
//!   `owned`), who has which end of a channel (`ends`), and what is cleared up after the dead
//!   (`reap`).
//! - `queue`, `boxed`, `lock`, `spsc`, `value`, `event`, `arc`: what users hold, without `unsafe`
//!   but for a few lines of `boxed` and `arc`.
//! - `channel`: queues with two kinds of ends.
//! - `process`: children.

#![cfg_attr(loom, allow(dead_code, reason = "only the algorithms are compiled under loom"))]
// What they disallow stands in `clippy.toml`.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(not(all(
    target_os = "linux",
    any(target_env = "gnu", target_env = "musl"),
    target_pointer_width = "64",
    any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))
)))]
compile_error!("offspring runs on Linux, x86-64 and little-endian aarch64, with glibc or musl");

mod claim;
mod primitive;
mod ring;
mod sync;
mod sys;

#[cfg(not(loom))]
mod arc;
#[cfg(not(loom))]
mod boxed;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "`family` marks what it lent, in no model")]
mod process;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
pub mod spsc;
#[cfg(not(loom))]
mod value;

#[cfg(not(loom))]
pub use sync::{Wait, lock::LockState};
#[cfg(not(loom))]
pub use {
    arc::{Shareable, ShmArc},
    boxed::{Boxable, ShmBox, ShmStr, ShmVec},
    channel::{Receiver, ReceiverIter, Sender, bytes, channel, plain},
    event::{Event, TryWaitError, WaitTimeoutError},
    lock::{Lock, LockError, LockGuard, LockTimeoutError, RecoveryGuard, TryLockError},
    object::attempt::Never,
    object::carry::Transfer,
    object::transfer::{
        RecvError, RecvTimeoutError, SendError, SendManyError, SendTimeoutError, TryRecvError,
        TrySendError,
    },
    object::{CreateError, Handle, ParseHandleError, PeerStats, SegmentStats, Usage},
    peer::Fault,
    process::{
        Argument, Builder, Child, Failure, ForkError, JoinError, Location, Moved, PanicInfo,
        Process, Return, Scope, SpawnError, StartMethod, Stream, children, current_name,
        end_with_parent, fork, init, parent, preload, scope, spawn,
    },
    queue::{
        ByteQueue, DecodeError, EncodeError, Iter, Loan, Message, Messages, ObjectQueue, Objects,
        OnReceiverDeath, Queue, QueueOptions, Received, Reservation,
    },
    segment::{Segment, SegmentError, SegmentOptions, Shm},
    value::{Integer, Number, TryUpdateError, UpdateError, UpdateTimeoutError, Value},
};

/// Makes a struct of your own [`Shm`](trait@Shm), so that it can be sent and shared.
///
/// The struct is `Copy`, has `#[repr(C)]`, fields that are all `Shm`, and no padding. Anything else
/// is a compile error that says what to change. A program that uses this crate under another name
/// adds `#[shm(crate = path)]`.
///
/// # Examples
/// ```
/// #[derive(Clone, Copy, offspring::Shm)]
/// #[repr(C)]
/// struct Tick {
///     price: f64,
///     size: u64,
/// }
///
/// let ticks = offspring::Queue::<Tick>::with_capacity(16)?;
/// ticks.send(Tick { price: 1.5, size: 7 })?;
/// assert_eq!(ticks.recv()?.size, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// With `#[repr(transparent)]` and one field, a struct may be generic:
/// ```
/// #[derive(Clone, Copy, offspring::Shm)]
/// #[repr(transparent)]
/// struct Text<const N: usize>([u8; N]);
///
/// let words = offspring::Queue::<Text<5>>::with_capacity(16)?;
/// words.send(Text(*b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// A struct with padding is refused, because its padding bytes are never written:
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, offspring::Shm)]
/// #[repr(C)]
/// struct Tick {
///     venue: u8,
///     price: f64,
/// }
/// ```
#[cfg(not(loom))]
pub use offspring_derive::Shm;

/// Makes a struct of your own [`Transfer`](trait@Transfer), so that it can be sent through a
/// [`Queue`], with the boxes that it contains.
///
/// The type of each field is `Transfer`: plain data that is [`Shm`](trait@Shm), boxes, or other
/// such structs. A program that uses this crate under another name adds `#[transfer(crate =
/// path)]`. A struct of plain data alone is better [`Shm`](derive@Shm). The struct has no `Drop` of
/// its own.
///
/// # Examples
/// ```
/// use offspring::{Queue, ShmBox, ShmStr};
///
/// #[derive(offspring::Transfer)]
/// struct Frame {
///     number: u32,
///     name: ShmStr,
///     pixels: ShmBox<[u8]>,
/// }
///
/// let frames = Queue::<Frame>::with_capacity(4)?;
/// let (name, pixels) = (ShmStr::new("left eye")?, ShmBox::zeroed(1 << 20)?);
/// frames.send(Frame { number: 7, name, pixels })?;
/// let frame = frames.recv()?;
/// assert_eq!((frame.number, &*frame.name, frame.pixels.len()), (7, "left eye", 1 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// What cannot travel is refused:
/// ```compile_fail,E0277
/// #[derive(offspring::Transfer)]
/// struct Frame {
///     pixels: Vec<u8>,
/// }
/// ```
#[cfg(not(loom))]
pub use offspring_derive::Transfer;

/// The crate whose traits the derived ones are: every [`bytemuck::Pod`] type is
/// [`Shm`](trait@Shm), in the version that is exported here.
#[cfg(not(loom))]
pub use bytemuck;

/// What the derived code calls.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod __private {
    pub use crate::object::carry::{Arrival, Departure, Pair};

    /// Gives the size of a type, and does not compile unless the type is `Shm`.
    pub const fn size_of_shm<T: crate::Shm>() -> usize {
        size_of::<T>()
    }
}

/// The examples of the README run with those of the crate.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
