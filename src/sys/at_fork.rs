//! What is closed in a forked child: the address ranges of its parent's mappings, and files.
//!
//! **Ranges.** A segment's mapping is not inherited, so a child has a hole where its parent has the
//! segment. The child may find a reference into the segment, in a static or a leaked guard. The
//! reference must fault. If something new were mapped in the hole, safe code would have two
//! exclusive references to the same bytes. So the ranges are closed in the child before anything
//! else can be mapped.
//!
//! **Files.** The writing end of a [lifeline](super::process::Lifeline) says that the parent lives.
//! A copy of it in another process would say so even after the parent's death. So it is closed in
//! every other child.
//!
//! A handler does both. libc's `fork` calls it, for every caller. Handlers that other code has
//! registered before ours run before it. A process that was made by a bare system call runs no
//! handlers. There the ranges are closed at the first use of a segment. If something lies in one of
//! them by then, the process cannot use segments. Its copies of the files stay open.
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
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::io::Errno;

use crate::sys::descriptor::{FdName, FileId};
use crate::sys::error::OsError;
use crate::sys::{memory, seat};

/// A list that only grows: an entry that is not needed any more is used again. A child can read it
/// even if the parent forked in the middle of a change.
#[derive(Debug)]
struct List {
    first: AtomicPtr<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The key of the entry; [`FREE`], or [`CLAIMED`] while it is being filled.
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
        // SAFETY: the pointer is null or points to an entry, and entries are never freed.
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
            // Release: a thread that finds the entry finds what is in it.
            match self.first.compare_exchange(first, entry, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return entry.fill(key, more),
                Err(now) => first = now,
            }
        }
    }

    fn remove(&self, key: usize) {
        for entry in self.iter() {
            // Relaxed: the next user of the entry fills it anew. In a forked child it is off the
            // list already.
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

/// The ranges: base as key, which is no small number, and length.
static RANGES: List = List::new();
/// The descriptors: [`key_of`] the number as key, and which file it stands for.
static FILES: List = List::new();
/// The process whose ranges these are; 0 before the first.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Why this process could not close a range that it inherited, as an error number; 0 if it could.
static UNCLOSED: AtomicI32 = AtomicI32::new(0);

/// Closes everything on lists that this process has inherited, so that the lists are its own. To be
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
    // Acquire, here and below: pairs with the Release in `close_all`. What another thread has put
    // on the lists since is this process's own.
    if PROCESS.load(Ordering::Acquire) != std::process::id() {
        static ADOPTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = ADOPTING.lock().unwrap_or_else(PoisonError::into_inner);
        if PROCESS.load(Ordering::Acquire) != std::process::id() {
            // At the first use nothing is inherited, and the lists are empty.
            close_all();
        }
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

/// Puts a range on the list, to be closed in children. The range is mapped and not inherited.
pub(crate) fn add_range(base: usize, len: usize) {
    RANGES.add(base, [len as u64, 0]);
}

/// Takes a range off the list, before it is unmapped.
pub(crate) fn remove_range(base: usize) {
    RANGES.remove(base);
}

/// Puts a descriptor on the list, to be closed in children.
pub(crate) fn add_file(file: FdName) {
    // What stands on the list so far may be inherited, and is then taken off as a whole. If that is
    // refused, it is tried again before anything is mapped.
    let _ = adopt();
    FILES.add(key_of(file.number()), file.id().to_words());
}

/// Takes a descriptor off the list, before it is closed.
pub(crate) fn remove_file(file: FdName) {
    FILES.remove(key_of(file.number()));
}

/// Our descriptors have numbers beyond those of the standard streams, so that none is [`FREE`] or
/// [`CLAIMED`].
fn key_of(number: RawFd) -> usize {
    number.unsigned_abs() as usize
}

extern "C" fn close_in_child() {
    close_all();
    seat::forget_others();
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
        // SAFETY: the number is open in the parent until it is off the list, and so far only libc's
        // code has run in this child. A child made by a bare system call comes here late; a number
        // that it has closed by then is not taken for ours unless it stands for the same file.
        if unsafe { file.is_open() } {
            // SAFETY: the owner of the descriptor is in the parent. When the owner's copy in this
            // process is dropped, it finds that the number does not stand for its file any more.
            unsafe { file.close() };
        }
    });
    PROCESS.store(std::process::id(), Ordering::Release);
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
