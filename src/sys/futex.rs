//! Words that a process can sleep on.
//!
//! The PRIVATE flag is never used, as waiter and waker are different processes. A wait ends when it
//! is woken, when the word no longer has the expected value, when the time is over, or for no
//! reason. Callers look again in every case, so the reason is not reported. Where a sandbox refuses
//! the call, a wait is a short sleep.
//!
//! Under loom a mutex and a condition variable beside the word replace the kernel, so that a lost
//! wake-up is a deadlock, which loom reports.
//!
//! # Source
//! futex(2).

use std::time::Duration;

#[cfg(not(loom))]
mod imp {
    use super::*;
    use crate::primitive::AtomicU32;
    use crate::sys::clock;
    use rustix::io::Errno;
    use rustix::thread::ClockId;
    use rustix::thread::futex::{self, Flags, Timespec};

    /// How long a sleep lasts where the kernel, in a sandbox, refuses to put anybody to sleep on a
    /// word.
    const WITHOUT_FUTEX: Duration = Duration::from_millis(1);

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
            let limit = Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            match futex::wait(&self.0, Flags::empty(), expected, Some(&limit)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(_) => clock::sleep(timeout.min(WITHOUT_FUTEX)),
            }
        }

        /// As [`Word32::wait`], while each of these words has its expected value; at most 128
        /// words.
        ///
        /// Linux before 5.16 cannot do that; there it is a short sleep.
        pub(crate) fn wait_any(words: &[(&Word32, u32)], timeout: Duration) {
            let waiters: Vec<futex::Wait> = words
                .iter()
                .map(|&(word, expected)| {
                    let mut waiter = futex::Wait::new();
                    waiter.val = expected.into();
                    waiter.uaddr = word.0.as_ptr().cast::<core::ffi::c_void>().into();
                    waiter.flags = futex::WaitFlags::SIZE_U32;
                    waiter
                })
                .collect();
            let end = clock::nanos().saturating_add(timeout.as_nanos() as u64);
            let end = Timespec {
                tv_sec: (end / 1_000_000_000).cast_signed(),
                tv_nsec: (end % 1_000_000_000).cast_signed(),
            };
            let flags = futex::WaitvFlags::empty();
            match futex::waitv(&waiters, flags, Some(&end), ClockId::Monotonic) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(_) => clock::sleep(timeout.min(WITHOUT_FUTEX)),
            }
        }

        /// Returns how many were woken. Where the kernel refuses, sleepers find out at the end of
        /// their slice.
        pub(crate) fn wake(&self, count: u32) -> u32 {
            futex::wake(&self.0, Flags::empty(), count).map_or(0, |woken| woken as u32)
        }
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

        /// No model waits for several words.
        pub(crate) fn wait_any(_words: &[(&Word32, u32)], _timeout: Duration) {
            loom::thread::yield_now();
        }

        pub(crate) fn wake(&self, count: u32) -> u32 {
            self.1.wake(count)
        }
    }
}

pub(crate) use imp::Word32;
