//! A copy of this process that is not its child, but its parent's.
//!
//! `clone` with `CLONE_PARENT` does that. libc has no function for it, so this makes the bare
//! system call, and puts right in the copy what libc's own `fork` would:
//! - *The thread's number*, which libc keeps with the thread. The kernel writes it there
//!   (`CLONE_CHILD_SETTID`), as in libc's `fork`. Where that is, the kernel knows from libc itself
//!   (`set_tid_address`), and tells (`PR_GET_TID_ADDRESS`).
//! - *The list of robust locks*, which the kernel forgets in a copy. Only its address: a process
//!   that copies itself here has no such lock.
//! - Locks of libc need nothing, as there is no other thread that could have them.
//!
//! Handlers that were registered with `pthread_atfork` do not run. So this is only for a process
//! that does nothing else but this.
//!
//! It is possible with glibc alone, as musl keeps the thread's number elsewhere.
//!
//! # Source
//! clone(2), set_tid_address(2), get_robust_list(2); glibc, `sysdeps/nptl/_Fork.c`.
#![expect(unsafe_code, reason = "clone, which has no safe wrapper")]

use core::ffi::c_long;
use std::io;

use crate::sys::error::OsError;
use crate::sys::process::{OnlyThread, Side};

/// What a copy must be given.
#[derive(Debug)]
pub(crate) struct Copier {
    /// Where libc keeps the number of this thread.
    thread_number: usize,
    /// Head and length of the list of robust locks, as libc has told the kernel.
    robust_list: (usize, usize),
}

const PR_GET_TID_ADDRESS: c_long = 40;

impl Copier {
    /// Whether libc allows it at all.
    pub(crate) const CAN_BE: bool = cfg!(target_env = "gnu");

    /// `None` where libc or the kernel does not allow it.
    pub(crate) fn new() -> Option<Copier> {
        if !Copier::CAN_BE {
            return None;
        }
        let mut address = 0_usize;
        // SAFETY: the kernel writes one word, into ours.
        let told = unsafe {
            libc::syscall(libc::SYS_prctl, PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0)
        };
        if told != 0 || address == 0 || !address.is_multiple_of(align_of::<i32>()) {
            return None;
        }
        // SAFETY: libc has given the kernel this address to write the number of a thread to, and
        // that of the only thread is not written meanwhile.
        let number = unsafe { (address as *const i32).read_volatile() };
        // SAFETY: takes no pointer.
        if number != unsafe { libc::gettid() } {
            return None;
        }
        let (mut head, mut len) = (0_usize, 0_usize);
        // SAFETY: the kernel writes two words, into ours.
        let told =
            unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
        (told == 0).then_some(Copier { thread_number: address, robust_list: (head, len) })
    }

    /// Makes the copy.
    pub(crate) fn copy(&self, _alone: &OnlyThread) -> Result<Side, OsError> {
        let flags = libc::CLONE_PARENT | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        let flags = c_long::from(flags | libc::SIGCHLD);
        let thread_number = self.thread_number as c_long;
        // The architectures disagree about the order of the last two.
        #[cfg(target_arch = "x86_64")]
        let (fourth, fifth) = (thread_number, 0);
        #[cfg(not(target_arch = "x86_64"))]
        let (fourth, fifth) = (0, thread_number);
        // SAFETY: as libc's `fork`: the copy has its own memory, and goes on with the same stack.
        // The caller has proof that this is the only thread, so nothing in this memory is halfway
        // through a change. The kernel writes the thread's number where libc has told it to.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, fourth, fifth) } {
            -1 => Err(OsError::in_call("clone")(io::Error::last_os_error())),
            0 => {
                let (head, len) = self.robust_list;
                // SAFETY: libc has told the kernel the same in the process that was copied.
                unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) };
                Ok(Side::Child)
            }
            pid => Ok(Side::Parent(pid as u32)),
        }
    }
}
