//! Shared-memory queues, locks and children that survive `kill -9`, with the ease of Python's `multiprocessing`.

#![cfg_attr(loom, allow(dead_code, reason = "the rooms that use the rest are not built for model checking"))]

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("offspring runs on 64-bit little-endian Linux only (x86-64 and aarch64)");

mod primitive;
mod ring;
mod sync;
mod sys;

#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
mod process;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod segment;

#[cfg(not(loom))]
pub mod spsc;

pub use sync::Wait;
#[cfg(not(loom))]
pub use {
    lock::{Lock, LockError, LockGuard, LockTimeoutError, TryLockError},
    object::{CreateError, Handle},
    peer::Fault,
    process::{Child, ForkError, JoinError, PanicInfo, fork},
    queue::{
        Iter, OnReceiverDeath, Queue, QueueOptions, Received, RecvError, RecvTimeoutError, Reservation, SendError, SendManyError,
        SendTimeoutError, TryRecvError, TrySendError,
    },
    segment::{Segment, SegmentError, SegmentOptions, Shm},
};
