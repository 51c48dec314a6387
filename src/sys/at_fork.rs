//! What a forked child must not find as its parent had it: address ranges empty, and pipes open.
//!
//! **Ranges.** A segment's mapping is not inherited, so a child has a hole where its parent has the
//! segment. A reference into the segment that the child finds in a static or a leaked guard must
//! fault there, and it would not if something new came to lie in the hole: then safe code would
//! have two exclusive references to the same bytes. So the ranges are closed in the child before
//! anything else can be mapped.
//!
//! **Files.** The writing end of a [lifeline](super::process::Lifeline) says that the parent lives.
//! A copy of it in another process would say so after the parent's death. So it is closed in every
//! other child.
//!
//! Both is done by a handler that libc's `fork` calls, whoever calls `fork`. Handlers that other
//! code has registered before ours run before it. A process that was made by a bare system call
//! runs no handlers. There the ranges are closed at the first use of a segment; if something lies
//! in one of them by then, the process cannot use segments. Its copies of the files stay open.
//!
//! # Peer death
//! Nothing here is shared.
//!
//! # Source
//! pthread_atfork(3); mmap(2), `MAP_FIXED_NOREPLACE`.
#![expect(unsafe_code, reason = "registers a handler with libc")]
#![expect(clippy::disallowed_types, reason = "a handler of libc's reads them, in no model")]

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::os::fd::RawFd;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::sys::descriptor::{FdName, FileId};
use crate::sys::error::OsError;
use crate::sys::memory;

/// A list that only grows: an entry that is not needed any more is used again. It can be read in a
/// child, wherever in a change of the list the parent was at its fork.
#[derive(Debug)]
struct List {
    first: AtomicPtr<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What the entry is found by; [`FREE`], or [`CLAIMED`] while it is being filled.
    key: AtomicUsize,
    more: [AtomicU64; 2],
    next: Option<&'static Entry>,
}

const FREE: usize = 0;
const CLAIMED: usize = 1;

impl List {
    const fn new() -> List {
        List { first: AtomicPtr::new(core::ptr::null_mut()) }
    }

    fn iter(&self) -> impl Iterator<Item = &'static Entry> {
        // Acquire pairs with the Release of the push.
        // SAFETY: the list holds entries that live for ever, or nothing.
        let first: Option<&'static Entry> = unsafe { self.first.load(Ordering::Acquire).as_ref() };
        std::iter::successors(first, |entry| entry.next)
    }

    fn add(&self, key: usize, more: [u64; 2]) {
        for entry in self.iter() {
            if entry
                .key
                .compare_exchange(FREE, CLAIMED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return entry.fill(key, more);
            }
        }
        let entry = Entry { key: AtomicUsize::new(CLAIMED), more: Default::default(), next: None };
        let entry = Box::leak(Box::new(entry));
        let mut first = self.first.load(Ordering::Acquire);
        loop {
            // SAFETY: as in `iter`.
            entry.next = unsafe { first.as_ref() };
            // Release: whoever finds the entry finds what is in it.
            match self.first.compare_exchange(first, entry, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return entry.fill(key, more),
                Err(now) => first = now,
            }
        }
    }

    fn remove(&self, key: usize) {
        for entry in self.iter() {
            // Relaxed: whoever takes the entry fills it anew. In a forked child it is off the list
            // already.
            if entry.key.compare_exchange(key, FREE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// In a child: takes every entry off the list.
    fn take_all(&self, mut act: impl FnMut(usize, [u64; 2])) {
        for entry in self.iter() {
            // Acquire pairs with the Release of `fill`, in a thread of the parent.
            let key = entry.key.load(Ordering::Acquire);
            if key > CLAIMED {
                act(key, [0, 1].map(|i: usize| entry.more[i].load(Ordering::Relaxed)));
                entry.key.store(FREE, Ordering::Relaxed);
            }
        }
    }
}

impl Entry {
    fn fill(&self, key: usize, more: [u64; 2]) {
        self.more[0].store(more[0], Ordering::Relaxed);
        self.more[1].store(more[1], Ordering::Relaxed);
        self.key.store(key, Ordering::Release);
    }
}

/// By their bases, which are no small numbers, with their lengths.
static RANGES: List = List::new();
/// By [`key_of`] their numbers, with what they stand for.
static FILES: List = List::new();
/// The process whose ranges these are; 0 before the first.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Why this process could not close a range that it inherited, as an error number; 0 if it could.
static UNCLOSED: AtomicI32 = AtomicI32::new(0);

/// Makes this process's own the lists that it may have inherited, by closing what is on them. To be
/// called before anything is mapped.
pub(crate) fn adopt() -> Result<(), OsError> {
    static HANDLER: OnceLock<Result<(), i32>> = OnceLock::new();
    let registered = *HANDLER.get_or_init(|| {
        // SAFETY: the handler may run in any child, as it makes system calls and touches atomics
        // only.
        match unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) } {
            0 => Ok(()),
            number => Err(number),
        }
    });
    registered.map_err(|number| OsError {
        call: "pthread_atfork",
        errno: Errno::from_raw_os_error(number),
    })?;
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

/// Has a range closed in children that is mapped and not inherited.
pub(crate) fn add_range(base: usize, len: usize) {
    RANGES.add(base, [len as u64, 0]);
}

/// Takes a range off the list that is about to be unmapped.
pub(crate) fn remove_range(base: usize) {
    RANGES.remove(base);
}

/// Has a descriptor closed in children.
pub(crate) fn add_file(file: FdName) {
    FILES.add(key_of(file.number()), file.id().to_words());
}

/// Takes a descriptor off the list that is about to be closed.
pub(crate) fn remove_file(file: FdName) {
    FILES.remove(key_of(file.number()));
}

/// Descriptors of ours are beyond those of the standard streams, so that none is [`FREE`] or
/// [`CLAIMED`].
fn key_of(number: RawFd) -> usize {
    number.unsigned_abs() as usize
}

extern "C" fn close_in_child() {
    close_all();
}

/// Closes everything on the lists and takes it off. Calls nothing that is not async-signal-safe.
fn close_all() {
    RANGES.take_all(|base, [len, _]| {
        if let Err(refused) = memory::close_range(base, len as usize) {
            UNCLOSED.store(refused.raw_os_error(), Ordering::Relaxed);
        }
    });
    FILES.take_all(|number, id| {
        let file = FdName::new(number as RawFd, FileId::from_words(id));
        // SAFETY: the number is open in the parent until it is off the list, and the only code that
        // runs in this child so far is libc's. A bare system call's child comes here late; what it
        // has closed by then is not taken for ours unless it is the same file.
        if unsafe { file.is_open() } {
            // SAFETY: its owner is the parent. The copy of the owner here finds when it is dropped
            // that the number stands for nothing of its own.
            unsafe { file.close() };
        }
    });
    PROCESS.store(std::process::id(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_removed_is_used_again() {
        let list = List::new();
        list.add(10, [1, 2]);
        list.add(20, [3, 4]);
        list.remove(10);
        list.remove(10);
        list.add(30, [5, 6]);
        assert_eq!(list.iter().count(), 2);
        let mut taken = Vec::new();
        list.take_all(|key, more| taken.push((key, more)));
        taken.sort_unstable();
        assert_eq!(taken, [(20, [3, 4]), (30, [5, 6])]);
        list.take_all(|key, _| panic!("{key} was taken before"));
    }
}
