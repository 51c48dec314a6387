//! Words that a process can sleep on.
//!
//! Never the PRIVATE flag: waiter and waker are different processes. A wait ends when woken, when the word no longer holds the
//! expected value, when the time is over, or for no reason; callers look again in every case, so none is reported.
//!
//! Under loom a word carries a mutex and a condition variable in the kernel's place, so that a lost wake-up is a deadlock that
//! loom reports.
//!
//! # Source
//! futex(2).
#![cfg_attr(not(loom), expect(unsafe_code, reason = "the kernel is handed addresses of words"))]

use std::time::Duration;

#[cfg(not(loom))]
mod imp {
    use super::*;
    use crate::primitive::AtomicU32;

    #[repr(transparent)]
    #[derive(Debug)]
    pub(crate) struct Word32(AtomicU32);

    impl core::ops::Deref for Word32 {
        type Target = AtomicU32;
        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    impl Word32 {
        pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
            futex_wait(self.0.as_ptr(), expected, timeout);
        }

        pub(crate) fn wake(&self, count: u32) -> u32 {
            futex_wake(self.0.as_ptr(), count)
        }
    }

    fn futex_wait(address: *const u32, expected: u32, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `address` comes from a reference to a live, 4-aligned word; the kernel only reads it. `timeout` outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAIT, expected, &raw const timeout) };
    }

    fn futex_wake(address: *const u32, count: u32) -> u32 {
        // SAFETY: the kernel uses the address only as a key; nothing is read or written there.
        let woken = unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, count) };
        u32::try_from(woken).unwrap_or(0)
    }
}

#[cfg(loom)]
mod imp {
    use super::*;
    use crate::primitive::{AtomicU32, Ordering};
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    struct Kernel {
        sleepers: Mutex<u32>,
        bell: Condvar,
    }

    impl Kernel {
        fn new() -> Kernel {
            Kernel { sleepers: Mutex::new(0), bell: Condvar::new() }
        }

        fn wait(&self, unchanged: impl Fn() -> bool) {
            let mut sleepers = self.sleepers.lock().unwrap();
            if unchanged() {
                *sleepers += 1;
                drop(self.bell.wait(sleepers).unwrap());
            }
        }

        fn wake(&self, count: u32) -> u32 {
            let mut sleepers = self.sleepers.lock().unwrap();
            let woken = count.min(*sleepers);
            *sleepers -= woken;
            for _ in 0..woken {
                self.bell.notify_one();
            }
            woken
        }
    }

    #[derive(Debug)]
    pub(crate) struct Word32(AtomicU32, Kernel);

    impl core::ops::Deref for Word32 {
        type Target = AtomicU32;
        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    impl Word32 {
        pub(crate) fn new(value: u32) -> Word32 {
            Word32(AtomicU32::new(value), Kernel::new())
        }

        pub(crate) fn wait(&self, expected: u32, _timeout: Duration) {
            self.1.wait(|| self.0.load(Ordering::SeqCst) == expected);
        }

        pub(crate) fn wake(&self, count: u32) -> u32 {
            self.1.wake(count)
        }
    }
}

pub(crate) use imp::Word32;
