//! Models of the flag: by itself, and with an eventcount as the user's event has it. The mocked
//! kernel knows no timeouts, so a lost wake-up is a deadlock, which loom reports.
#![expect(unsafe_code, reason = "what was written before is reached by pointers, as in a segment")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::primitive::AtomicU32;
use crate::sync::event::Event;
use crate::sync::spin::Patience;
use crate::sync::wait::{Obstacle, Wait, wait};
use crate::sys::barrier::Fences;
use crate::sys::clock::Deadline;

/// A flag, those that wait for it, and what two processes write before they set it.
struct Shared {
    flag: Flag,
    raised: Event,
    written: [UnsafeCell<u32>; 2],
}

// SAFETY: what is written is read after the flag was seen set, which is what the models check.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        let written = [UnsafeCell::new(0), UnsafeCell::new(0)];
        Arc::new(Shared { flag: Flag::new(), raised: Event::new(), written })
    }

    fn write(&self, place: usize) {
        // SAFETY: each place has one writer, and is read after the flag was seen set.
        self.written[place].with_mut(|value| unsafe { *value = 7 });
    }

    fn read(&self, place: usize) -> u32 {
        // SAFETY: as above.
        self.written[place].with(|value| unsafe { *value })
    }

    fn set(&self, reset: Reset) {
        self.flag.set();
        let raised = self.raised.with(Fences::Symmetric);
        match reset {
            Reset::Manual => raised.notify_all(),
            Reset::Auto => raised.notify_one(),
        }
    }

    fn wait(&self, reset: Reset) {
        let mut before = None;
        let mut pass =
            || self.flag.pass(reset, before).map_err(|seen| _ = before.get_or_insert(seen));
        if pass().is_ok() {
            return;
        }
        let raised = [self.raised.with(Fences::Symmetric)];
        wait(&raised, Wait::Sleep, &Patience::new(), Deadline::NEVER, |_| {
            pass().map_err(|()| Obstacle::Nobody)
        })
        .expect("there is no deadline");
    }
}

/// Acceptable: the waiter goes on, and sees what was written before.
#[test]
fn a_waiter_sees_what_was_written_before_the_set() {
    for reset in [Reset::Manual, Reset::Auto] {
        loom::model(move || {
            let shared = Shared::new();
            let setter = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.write(0);
                    shared.set(reset);
                })
            };
            shared.wait(reset);
            assert_eq!(shared.read(0), 7);
            setter.join().unwrap();
        });
    }
}

/// Acceptable: who looks and finds the flag set sees what was written before.
#[test]
fn who_finds_the_flag_set_sees_what_was_written_before() {
    loom::model(|| {
        let shared = Shared::new();
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.write(0);
                shared.flag.set();
            })
        };
        if shared.flag.is_set() {
            assert_eq!(shared.read(0), 7);
        }
        setter.join().unwrap();
    });
}

/// Forbidden: a `set` of a flag that was set already is cleared by one who does not see what was
/// written before it. Nobody would look for that again.
#[test]
fn who_clears_a_set_sees_what_was_written_before() {
    loom::model(|| {
        let shared = Shared::new();
        shared.flag.set();
        let work = Arc::new(AtomicU32::new(0));
        let setter = {
            let (shared, work) = (shared.clone(), work.clone());
            thread::spawn(move || {
                // Relaxed: ordered by the flag, which is what the model checks.
                work.store(7, Ordering::Relaxed);
                shared.flag.set();
            })
        };
        shared.flag.clear();
        let seen = work.load(Ordering::Relaxed);
        setter.join().unwrap();
        assert!(shared.flag.is_set() || seen == 7, "cleared and not seen");
    });
}

/// Two processes write and then set the flag, each by `set`. A third one takes it when both have
/// done so, and reads what both wrote.
fn two_sets(set: fn(&Flag)) {
    loom::model(move || {
        let shared = Shared::new();
        let counted = Arc::new(AtomicU32::new(0));
        let setters = [0, 1].map(|place| {
            let (shared, counted) = (shared.clone(), counted.clone());
            thread::spawn(move || {
                shared.write(place);
                set(&shared.flag);
                // Relaxed, as is the load: it must be the flag that orders.
                counted.fetch_add(1, Ordering::Relaxed);
            })
        });
        while counted.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        // The count orders nothing, so the flag may still seem to be clear. Once it is taken, that
        // was done to the last of its changes.
        while shared.flag.pass(Reset::Auto, None).is_err() {
            thread::yield_now();
        }
        assert_eq!((shared.read(0), shared.read(1)), (7, 7));
        for setter in setters {
            setter.join().unwrap();
        }
    });
}

/// Acceptable: what both wrote is seen.
#[test]
fn of_two_sets_that_came_to_one_both_are_seen() {
    two_sets(Flag::set);
}

/// A plain store hides what the other one wrote. This shows that the model above would find that.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_set_by_a_store_hides_the_one_before() {
    two_sets(|flag| flag.word.store(1, Ordering::Release));
}

/// A process clears the flag and then looks at what it stands for. Acceptable: it sees what was
/// written, or the flag is set afterwards.
#[test]
fn who_clears_the_flag_sees_what_it_stood_for() {
    loom::model(|| {
        let shared = Shared::new();
        let work = Arc::new(AtomicU32::new(0));
        let setter = {
            let (shared, work) = (shared.clone(), work.clone());
            thread::spawn(move || {
                work.store(1, Ordering::Relaxed);
                shared.flag.set();
            })
        };
        shared.flag.clear();
        let seen = work.load(Ordering::Relaxed);
        setter.join().unwrap();
        assert!(seen == 1 || shared.flag.is_set());
    });
}

/// Acceptable: a process that would clear the flag, and finds that another one has done so, sees
/// what it stood for, too.
#[test]
fn who_finds_the_flag_cleared_sees_what_it_stood_for() {
    loom::model(|| {
        let shared = Shared::new();
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.write(0);
                shared.flag.set();
            })
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.flag.clear())
        };
        // Relaxed: orders nothing, but what follows does not see an earlier state of the word.
        if shared.flag.word.load(Ordering::Relaxed) == 2 {
            shared.flag.clear();
            assert_eq!(shared.read(0), 7);
        }
        setter.join().unwrap();
        other.join().unwrap();
    });
}

/// Acceptable: one of the two takes it.
#[test]
fn one_set_lets_one_pass() {
    loom::model(|| {
        let shared = Shared::new();
        shared.flag.set();
        let takers = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || shared.flag.pass(Reset::Auto, None).is_ok())
        });
        let taken = takers.map(|taker| taker.join().unwrap());
        assert_eq!(taken.iter().filter(|&&taken| taken).count(), 1);
        assert!(!shared.flag.is_set());
    });
}

/// Each of two waiters sets the flag again for the other one. Acceptable: both go on.
#[test]
fn two_waiters_pass_one_after_the_other() {
    loom::model(|| {
        let shared = Shared::new();
        let waiters = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.wait(Reset::Auto);
                shared.set(Reset::Auto);
            })
        });
        shared.set(Reset::Auto);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert!(shared.flag.is_set());
    });
}

/// The flag is set and cleared at once. Acceptable: who has begun to wait before goes on.
#[test]
fn who_waits_goes_on_even_if_the_flag_is_cleared_at_once() {
    loom::model(|| {
        let shared = Shared::new();
        let before = shared.flag.pass(Reset::Manual, None).expect_err("it is clear");
        let setter = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.write(0);
                shared.set(Reset::Manual);
                shared.flag.clear();
            })
        };
        let raised = [shared.raised.with(Fences::Symmetric)];
        let passed = wait(&raised, Wait::Sleep, &Patience::new(), Deadline::NEVER, |_| {
            shared.flag.pass(Reset::Manual, Some(before)).map_err(|_| Obstacle::Nobody)
        });
        assert_eq!(passed, Some(()));
        assert_eq!(shared.read(0), 7);
        setter.join().unwrap();
    });
}
