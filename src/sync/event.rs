//! An eventcount: a word to sleep on until something *may* have changed.
//!
//! What has changed stands elsewhere, for example in a ring's slots. The event only makes sure that
//! nobody sleeps through the change.
//! ```text
//! word = sequence:29 | settled:1 | fenced:1 | sleepers:1
//!
//! sleeper                                       notifier
//!   announce: sequence + 1, sleepers = 1          (publishes)
//!   fence                                         fence
//!   look again                                    sleepers = 0? done
//!   sleep while the word is as announced          sequence + 1, wake one
//!                                                 nobody woken: sleepers = 0, unless the word changed meanwhile
//! ```
//! The fences pair as in Dekker's algorithm: either the sleeper sees what was published, or the
//! notifier sees the sleeper. The sequence closes the gap between looking and sleeping.
//!
//! # Who fences
//! Notifiers are many and fast. In a segment with [asymmetric fences](crate::sys::barrier) they
//! leave their fence out, and the sleeper asks the kernel for a barrier on all processors instead.
//! That is expensive, so the sleeper makes it last. With its announcement it sets `fenced`, and a
//! notifier that sees this flag fences for itself and looks again. After the kernel's barrier every
//! notifier sees the flag, or has published before. That is what `settled` says: a process that
//! announces itself while it is set need not ask the kernel again. A notifier whose fences have
//! found no sleeper for a while clears both flags, and the next sleeper asks the kernel again.
//!
//! Suppose a notifier saw `fenced` unset. Then its look came before `fenced` was set, so before the
//! barrier, and so its publication came before `settled`. A sleeper that relies on `settled`
//! therefore sees the publication.
//!
//! # Peer death
//! The flag is not a count, so a killed sleeper leaves nothing that could not be repaired: the next
//! notifier wakes nobody and clears the flag. A sleeper that was woken and is killed before it acts
//! has absorbed one notification. Other sleepers find out at the end of their slice, or at the next
//! notification.
//!
//! # Source
//! The eventcount is Reed and Kanodia's, "Synchronization with Eventcounts and Sequencers" (1979).

use std::time::Duration;

use crate::primitive::Ordering;
use crate::sys::barrier::{self, Fences};
use crate::sys::futex::Word32;

#[cfg(all(test, loom))]
mod loom_tests;

const SLEEPERS_BIT: u32 = 1 << 0;
const FENCED_BIT: u32 = 1 << 1;
const SETTLED_BIT: u32 = 1 << 2;
const SEQUENCE_ONE: u32 = 1 << 3;
/// The most that a futex can wake at once.
const EVERYBODY: u32 = i32::MAX as u32;

/// The word in the segment.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Event {
    word: Word32,
}

/// An event together with the fences that its segment agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventRef<'a> {
    event: &'a Event,
    fences: Fences,
}

impl Event {
    #[cfg(loom)]
    pub(crate) fn new() -> Event {
        Event { word: Word32::new(0) }
    }

    /// As after a sleep that has settled it.
    #[cfg(loom)]
    pub(crate) fn new_settled() -> Event {
        Event { word: Word32::new(FENCED_BIT | SETTLED_BIT) }
    }

    /// A fresh event, in memory that belongs to this process alone.
    pub(crate) fn reset(&self) {
        // Relaxed: published with whatever the event belongs to.
        self.word.store(0, Ordering::Relaxed);
    }

    /// Changes the word and wakes all, without a look at the flag. For rare occasions.
    pub(crate) fn wake_all_unasked(&self) {
        self.word.fetch_add(SEQUENCE_ONE, Ordering::SeqCst);
        self.word.wake(EVERYBODY);
    }

    #[inline]
    pub(crate) fn with(&self, fences: Fences) -> EventRef<'_> {
        EventRef { event: self, fences }
    }
}

impl EventRef<'_> {
    /// Wakes one sleeper, if there is any. Costs a load and no system call if there is none.
    ///
    /// What was published before is visible to the process that this wakes, and to every process
    /// that goes to sleep after it.
    #[inline]
    pub(crate) fn notify_one(self) {
        self.fences.light();
        // Relaxed: ordered by the fence.
        let word = self.event.word.load(Ordering::Relaxed);
        if word & (SLEEPERS_BIT | FENCED_BIT) != 0 {
            self.notify_one_slowly();
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_one_slowly(self) {
        if self.has_sleepers_by_fence() {
            self.wake(1);
        }
    }

    /// As [`EventRef::notify_one`], and wakes all.
    pub(crate) fn notify_all(self) {
        if self.has_sleepers() {
            self.wake(EVERYBODY);
        }
    }

    /// Whether somebody may be asleep. What this process published before is ordered before the
    /// look.
    #[inline]
    pub(crate) fn has_sleepers(self) -> bool {
        self.fences.light();
        // Relaxed: ordered by the fence.
        let word = self.event.word.load(Ordering::Relaxed);
        word & (SLEEPERS_BIT | FENCED_BIT) != 0 && self.has_sleepers_by_fence()
    }

    /// Somebody has slept lately, so this side fences, too.
    #[cold]
    fn has_sleepers_by_fence(self) -> bool {
        barrier::full();
        // Relaxed: ordered by the fence.
        let word = self.event.word.load(Ordering::Relaxed);
        if word & SLEEPERS_BIT != 0 {
            return true;
        }
        if word & FENCED_BIT != 0 && barrier::in_vain() {
            // A sleeper that has announced itself meanwhile has changed the word, and still relies
            // on the flags that it found there.
            let calm = word & !(FENCED_BIT | SETTLED_BIT);
            let _ =
                self.event.word.compare_exchange(word, calm, Ordering::Relaxed, Ordering::Relaxed);
        }
        false
    }

    /// As [`EventRef::has_sleepers`], but orders nothing before the look. For passing on a
    /// notification that somebody else missed.
    #[inline]
    pub(crate) fn seems_to_have_sleepers(self) -> bool {
        self.event.word.load(Ordering::Relaxed) & SLEEPERS_BIT != 0
    }

    #[cold]
    fn wake(self, count: u32) {
        let word = &self.event.word;
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            if seen & SLEEPERS_BIT == 0 {
                // Another notifier found that nobody sleeps, and nobody has announced itself since.
                return;
            }
            let next = seen.wrapping_add(SEQUENCE_ONE);
            // Relaxed: the word carries nothing; the sleeper looks at the published state itself.
            match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if word.wake(count) == 0 {
                        // Nobody was there. A sleeper that announced itself meanwhile has changed
                        // the word, and keeps its flag.
                        let _ = word.compare_exchange(
                            next,
                            next & !SLEEPERS_BIT,
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                        );
                    }
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Announces that somebody is about to sleep, so that every publisher must see it. Gives the
    /// value to sleep on.
    pub(crate) fn announce(self) -> u32 {
        let word = &self.event.word;
        let asks = self.fences.are_asymmetric();
        let flags = if asks { SLEEPERS_BIT | FENCED_BIT } else { SLEEPERS_BIT };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            // Always a change, so that a notifier about to clear the flag fails.
            let next = seen.wrapping_add(SEQUENCE_ONE) | flags;
            // Acquire pairs with the Release in `settle`: what was published before that barrier is
            // seen.
            match word.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    barrier::full();
                    return if asks && seen & SETTLED_BIT == 0 { self.settle(next) } else { next };
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Makes sure that from here on every notifier fences, or knows that somebody sleeps.
    fn settle(self, announced: u32) -> u32 {
        if !barrier::barrier() {
            return announced;
        }
        let settled = announced | SETTLED_BIT;
        match self.event.word.compare_exchange(
            announced,
            settled,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => settled,
            // Something has happened, and this sleep will end at once.
            Err(_) => announced,
        }
    }

    /// Sleeps while the word is as announced, for at most `slice`.
    pub(crate) fn sleep(self, announced: u32, slice: Duration) {
        self.event.word.wait(announced, slice);
    }
}

/// The announcement of a sleep until one of some events is notified.
pub(crate) enum Announced<'a> {
    One(EventRef<'a>, u32),
    Several(Vec<(&'a Word32, u32)>),
}

impl<'a> Announced<'a> {
    /// Announces the sleep to each of the events.
    pub(crate) fn to(events: &[EventRef<'a>]) -> Announced<'a> {
        match *events {
            [event] => Announced::One(event, event.announce()),
            ref several => Announced::Several(
                several.iter().map(|event| (&event.event.word, event.announce())).collect(),
            ),
        }
    }

    /// Sleeps while all of the words are as announced, for at most `slice`.
    pub(crate) fn sleep(&self, slice: Duration) {
        match self {
            Announced::One(event, announced) => event.sleep(*announced, slice),
            Announced::Several(words) => Word32::wait_any(words, slice),
        }
    }
}
