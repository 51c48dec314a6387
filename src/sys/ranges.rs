//! Address ranges that a forked child must not find empty.
//!
//! A segment's mapping is not inherited, so a child has a hole where its parent has the segment. A reference into the segment that the
//! child finds in a static or a leaked guard must fault there, and it would not if something new came to lie in the hole: then safe code
//! would have two exclusive references to the same bytes. So the ranges are closed in the child before anything else can be mapped: by a
//! handler that libc's `fork` calls, whoever calls `fork`. Handlers that other code has registered before ours run before it.
//!
//! A process that was made by a bare system call runs no handlers. There the ranges are closed at the first use of a segment; if something
//! lies in one of them by then, the process cannot use segments.
//!
//! # Peer death
//! Nothing here is shared.
//!
//! # Source
//! pthread_atfork(3); mmap(2), `MAP_FIXED_NOREPLACE`.
#![expect(unsafe_code, reason = "registers a handler with libc")]

// Plain atomics, not the model checker's: a handler of libc's reads them.
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::sys::error::OsError;
use crate::sys::memory;

/// A node of a list that only grows: one that is not needed any more is used again.
#[derive(Debug)]
struct Node {
    /// Start of the range; 0 if the node is free, [`CLAIMED`] while it is being filled.
    base: AtomicUsize,
    len: AtomicUsize,
    next: Option<&'static Node>,
}

const CLAIMED: usize = 1;

static NODES: AtomicPtr<Node> = AtomicPtr::new(core::ptr::null_mut());
/// The process whose ranges these are; 0 before the first.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Why this process could not close a range that it inherited, as an error number; 0 if it could.
static UNCLOSED: AtomicI32 = AtomicI32::new(0);

/// Makes this process's own the list that it may have inherited, by closing what is on it. To be called before anything is mapped.
pub(crate) fn adopt() -> Result<(), OsError> {
    static HANDLER: OnceLock<Result<(), i32>> = OnceLock::new();
    let registered = *HANDLER.get_or_init(|| {
        // SAFETY: the handler may run in any child, as it makes system calls and touches atomics only.
        match unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) } {
            0 => Ok(()),
            number => Err(number),
        }
    });
    registered.map_err(|number| OsError { call: "pthread_atfork", errno: Errno::from_raw_os_error(number) })?;
    // Relaxed: other threads of a process find what the first has left there.
    if PROCESS.load(Ordering::Relaxed) != std::process::id() {
        close_all();
    }
    closed()
}

/// Whether all ranges that this process inherited are closed.
pub(crate) fn closed() -> Result<(), OsError> {
    match UNCLOSED.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => Err(OsError { call: "mmap", errno: Errno::from_raw_os_error(number) }),
    }
}

/// Puts a range on the list that is mapped and not inherited.
pub(crate) fn register(base: usize, len: usize) {
    // Acquire pairs with the Release of the push.
    // SAFETY: the list holds nodes that live for ever, or nothing.
    let first: Option<&'static Node> = unsafe { NODES.load(Ordering::Acquire).as_ref() };
    let mut next = first;
    while let Some(node) = next {
        if node.base.compare_exchange(0, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return fill(node, base, len);
        }
        next = node.next;
    }
    let node = Box::leak(Box::new(Node { base: AtomicUsize::new(CLAIMED), len: AtomicUsize::new(0), next: None }));
    let mut head = NODES.load(Ordering::Acquire);
    loop {
        // SAFETY: as above.
        node.next = unsafe { head.as_ref() };
        // Release: whoever finds the node finds what is in it.
        match NODES.compare_exchange(head, node, Ordering::Release, Ordering::Acquire) {
            Ok(_) => return fill(node, base, len),
            Err(now) => head = now,
        }
    }
}

fn fill(node: &'static Node, base: usize, len: usize) {
    node.len.store(len, Ordering::Relaxed);
    // Release pairs with the Acquire in `close_all`, in a child of another thread.
    node.base.store(base, Ordering::Release);
}

/// Takes a range off the list that is about to be unmapped.
pub(crate) fn unregister(base: usize) {
    // SAFETY: as in `register`.
    let mut next: Option<&'static Node> = unsafe { NODES.load(Ordering::Acquire).as_ref() };
    while let Some(node) = next {
        // Relaxed: whoever takes the node fills it anew. In a forked child the range is off the list already.
        if node.base.compare_exchange(base, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
        next = node.next;
    }
}

extern "C" fn close_in_child() {
    close_all();
}

/// Closes every range on the list and takes it off. Calls nothing that is not async-signal-safe.
fn close_all() {
    // SAFETY: as in `register`.
    let mut next: Option<&'static Node> = unsafe { NODES.load(Ordering::Acquire).as_ref() };
    while let Some(node) = next {
        let base = node.base.load(Ordering::Acquire);
        if base > CLAIMED {
            if let Err(refused) = memory::close_range(base, node.len.load(Ordering::Relaxed)) {
                UNCLOSED.store(refused.raw_os_error(), Ordering::Relaxed);
            }
            node.base.store(0, Ordering::Relaxed);
        }
        next = node.next;
    }
    PROCESS.store(std::process::id(), Ordering::Relaxed);
}
