//! Models of sleeping and waking through the blocking loop. The mocked kernel knows no timeouts, so
//! a lost wake-up is a deadlock, which loom reports.
#![expect(unsafe_code, reason = "what is published is reached by pointers, as in a segment")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::primitive::AtomicU32;
use crate::sync::spin::Patience;
use crate::sync::wait::{Obstacle, Wait, wait};
use crate::sys::clock::Deadline;

/// Explores the model with each kind of fences. loom does not know the kernel's barrier, so with
/// asymmetric ones events are settled; a process that could not register needs no barrier.
fn explore(model: impl Fn(Fences) + Copy + Send + Sync + 'static) {
    for fences in [Fences::Symmetric, Fences::Asymmetric, Fences::Unregistered] {
        loom::model(move || model(fences));
    }
}

fn new_event(fences: Fences) -> Event {
    match fences {
        Fences::Symmetric | Fences::Unregistered => Event::new(),
        Fences::Asymmetric => Event::new_settled(),
    }
}

/// Sleeps until `attempt` has a result.
fn block<R>(event: EventRef<'_>, mut attempt: impl FnMut() -> Option<R>) -> R {
    if let Some(result) = attempt() {
        return result;
    }
    let patience = Patience::new();
    let result = wait(&[event], Wait::Sleep, &patience, Deadline::NEVER, |_| {
        attempt().ok_or(Obstacle::Nobody)
    });
    result.expect("there is no deadline")
}

/// A counter of things that may be taken, and an event that announces them.
struct Things {
    count: AtomicU32,
    event: Event,
    fences: Fences,
}

impl Things {
    fn new(fences: Fences) -> Arc<Things> {
        Arc::new(Things { count: AtomicU32::new(0), event: new_event(fences), fences })
    }

    fn event(&self) -> EventRef<'_> {
        self.event.with(self.fences)
    }

    fn put(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.event().notify_one();
    }

    fn take(&self) {
        block(self.event(), || {
            let mut count = self.count.load(Ordering::Relaxed);
            while count > 0 {
                match self.count.compare_exchange(
                    count,
                    count - 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return Some(()),
                    Err(now) => count = now,
                }
            }
            None
        });
    }
}

/// Acceptable: the sleeper wakes, or did not sleep, and sees what was written before the
/// notification.
#[test]
fn a_sleeper_never_misses_what_was_published() {
    struct Shared {
        published: AtomicU32,
        payload: UnsafeCell<u32>,
        event: Event,
    }
    // SAFETY: `payload` is written before `published` is set and read after that was seen, which is
    // what the model checks.
    unsafe impl Sync for Shared {}
    // SAFETY: as for `Sync`.
    unsafe impl Send for Shared {}

    explore(|fences| {
        let shared = Arc::new(Shared {
            published: AtomicU32::new(0),
            payload: UnsafeCell::new(0),
            event: new_event(fences),
        });
        let publisher = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: nobody reads before `published` is set.
                shared.payload.with_mut(|payload| unsafe { *payload = 7 });
                shared.published.store(1, Ordering::Release);
                shared.event.with(fences).notify_one();
            })
        };
        let value = block(shared.event.with(fences), || {
            // SAFETY: nobody writes once `published` is set.
            (shared.published.load(Ordering::Acquire) != 0)
                .then(|| shared.payload.with(|payload| unsafe { *payload }))
        });
        assert_eq!(value, 7);
        publisher.join().unwrap();
    });
}

/// Acceptable: each of two sleepers gets one of two things.
#[test]
fn two_notifications_wake_two_sleepers() {
    explore(|fences| {
        let things = Things::new(fences);
        let takers = [(); 2].map(|()| {
            let things = things.clone();
            thread::spawn(move || things.take())
        });
        things.put();
        things.put();
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(things.count.load(Ordering::Relaxed), 0);
    });
}

/// Acceptable: a sleeper that waits for two things gets both, whichever of two notifiers clears the
/// flag.
#[test]
fn two_notifiers_do_not_clear_the_flag_of_one_that_sleeps() {
    explore(|fences| {
        let things = Things::new(fences);
        let putters = [(); 2].map(|()| {
            let things = things.clone();
            thread::spawn(move || things.put())
        });
        things.take();
        things.take();
        for putter in putters {
            putter.join().unwrap();
        }
    });
}

/// A sleeper was killed: its flag stands, and nobody is there to be woken. Acceptable: the notifier
/// that clears the flag does not clear that of a living sleeper with it.
#[test]
fn the_flag_of_a_dead_sleeper_hides_nobody() {
    explore(|fences| {
        let things = Things::new(fences);
        things.event().announce();
        let stranger = {
            let things = things.clone();
            thread::spawn(move || things.event().notify_one())
        };
        let putter = {
            let things = things.clone();
            thread::spawn(move || things.put())
        };
        things.take();
        stranger.join().unwrap();
        putter.join().unwrap();
    });
}

/// Acceptable: the flag is gone, so that later notifications cost no system call.
#[test]
fn a_notifier_that_finds_nobody_clears_the_flag() {
    loom::model(|| {
        let event = Event::new();
        let event = event.with(Fences::Symmetric);
        event.announce();
        assert!(event.has_sleepers());
        event.notify_one();
        assert!(!event.has_sleepers());
    });
}

/// Acceptable: both sleepers see the end.
#[test]
fn everybody_wakes_when_all_are_notified() {
    for asked in [true, false] {
        explore(move |fences| {
            let things = Things::new(fences);
            let sleepers = [(); 2].map(|()| {
                let things = things.clone();
                thread::spawn(move || {
                    block(things.event(), || {
                        (things.count.load(Ordering::Acquire) != 0).then_some(())
                    });
                })
            });
            things.count.store(1, Ordering::Release);
            if asked {
                things.event().notify_all();
            } else {
                things.event.wake_all_unasked();
            }
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        });
    }
}

/// A box for one message, with an event on each side, as a queue of capacity 1 has it. Acceptable:
/// two messages pass, in order.
#[test]
fn both_sides_of_a_full_box_wake_each_other() {
    struct Mailbox {
        full: AtomicU32,
        message: UnsafeCell<u32>,
        items: Event,
        space: Event,
    }
    // SAFETY: `full` says whose `message` is, which is what the model checks.
    unsafe impl Sync for Mailbox {}
    // SAFETY: as for `Sync`.
    unsafe impl Send for Mailbox {}

    loom::model(|| {
        let mailbox = Arc::new(Mailbox {
            full: AtomicU32::new(0),
            message: UnsafeCell::new(0),
            items: Event::new(),
            space: Event::new(),
        });
        let sender = {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for value in 1..=2 {
                    block(mailbox.space.with(Fences::Symmetric), || {
                        (mailbox.full.load(Ordering::Acquire) == 0).then_some(())
                    });
                    // SAFETY: the box is empty and we are the only sender.
                    mailbox.message.with_mut(|message| unsafe { *message = value });
                    mailbox.full.store(1, Ordering::Release);
                    mailbox.items.with(Fences::Symmetric).notify_one();
                }
            })
        };
        for expected in 1..=2 {
            block(mailbox.items.with(Fences::Symmetric), || {
                (mailbox.full.load(Ordering::Acquire) == 1).then_some(())
            });
            // SAFETY: the box is full and we are the only receiver.
            let value = mailbox.message.with(|message| unsafe { *message });
            assert_eq!(value, expected);
            mailbox.full.store(0, Ordering::Release);
            mailbox.space.with(Fences::Symmetric).notify_one();
        }
        sender.join().unwrap();
    });
}

/// Without the kernel's barrier a fence is missing. This shows that the models above would find
/// that.
#[test]
#[should_panic(expected = "deadlock")]
fn a_sleeper_that_nobody_fences_for_misses_what_was_published() {
    loom::model(|| {
        let things = Arc::new(Things {
            count: AtomicU32::new(0),
            event: Event::new(),
            fences: Fences::Asymmetric,
        });
        let putter = {
            let things = things.clone();
            thread::spawn(move || things.put())
        };
        things.take();
        putter.join().unwrap();
    });
}
