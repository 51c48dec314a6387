//! Seats: small numbers for threads, which are used again.
//!
//! A thread takes a free seat when it first asks for one, and leaves it when it ends. So a table
//! with a row for each seat has a row for each thread that runs now, and the next thread finds what
//! the last one on its seat has left there. There are [`SEATS`]; any more threads have none.
//!
//! A seat is for *hints*, which must do no harm if two threads have the same seat. That happens in
//! a child that was forked by a bare system call, and to a signal handler and what it interrupts.
//!
//! # Fork
//! The child's only thread has the seat of the thread that forked. The others are free there.

use std::cell::Cell;

use crate::primitive::{AtomicU32, Ordering};

/// How many seats there are.
pub(crate) const SEATS: usize = 14;

/// A bit for each seat that a thread has.
static TAKEN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The seat of this thread. It can be read at any time, also while the thread ends.
    static SEAT: Cell<Option<u8>> = const { Cell::new(None) };
    /// Leaves the seat when the thread ends.
    static LEAVES: Leaves = const { Leaves };
}

struct Leaves;

impl Drop for Leaves {
    fn drop(&mut self) {
        if let Some(seat) = SEAT.take() {
            // Release pairs with the Acquire in `sit_down`: the next thread on this seat sees what
            // this one did.
            TAKEN.fetch_and(!(1 << seat), Ordering::Release);
        }
    }
}

/// The seat of this thread; `None` if all are taken, or if the thread is about to end.
#[inline]
pub(crate) fn number() -> Option<usize> {
    match SEAT.get() {
        Some(seat) => Some(seat.into()),
        None => sit_down(),
    }
}

#[cold]
#[inline(never)]
fn sit_down() -> Option<usize> {
    // Fails in a thread that has left its seat.
    LEAVES.try_with(|_| ()).ok()?;
    let mut taken = TAKEN.load(Ordering::Relaxed);
    loop {
        let seat = taken.trailing_ones();
        if seat as usize >= SEATS {
            return None;
        }
        // Acquire pairs with the Release in `Leaves`.
        match TAKEN.compare_exchange(taken, taken | 1 << seat, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => {
                SEAT.set(Some(seat as u8));
                return Some(seat as usize);
            }
            Err(now) => taken = now,
        }
    }
}

/// Makes all seats free but that of this thread. For a fresh child, before it makes threads.
pub(crate) fn forget_others() {
    // Relaxed: there are no others.
    TAKEN.store(SEAT.get().map_or(0, |seat| 1 << seat), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_seat_and_no_other_has_it() {
        let mine = number();
        assert_eq!(number(), mine);
        let theirs = std::thread::spawn(|| [number(), number()]).join().expect("no panic");
        assert_eq!(theirs[0], theirs[1]);
        assert!(mine.is_none() || theirs[0] != mine);
    }

    /// Tests run in threads, which take seats, too.
    #[test]
    fn seats_are_left_and_never_more_than_there_are() {
        use std::sync::Barrier;

        for _ in 0..3 {
            let barrier = Barrier::new(40);
            let seats: Vec<Option<usize>> = std::thread::scope(|scope| {
                let sit = || {
                    let seat = number();
                    barrier.wait();
                    seat
                };
                let threads: Vec<_> = (0..40).map(|_| scope.spawn(sit)).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let mut seated: Vec<usize> = seats.into_iter().flatten().collect();
            seated.sort_unstable();
            let count = seated.len();
            seated.dedup();
            assert_eq!(seated.len(), count, "nobody shares one");
            assert!(seated.iter().all(|&seat| seat < SEATS));
        }
    }
}
