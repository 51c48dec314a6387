//! Numbers for threads.

use std::cell::Cell;

use crate::primitive::{AtomicU32, Ordering};

/// The number of this thread, which no other thread of the process ever had. A forked child goes on
/// counting from its parent's number. Process and number together identify a thread.
#[inline]
pub(crate) fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    match NUMBER.get() {
        0 => {
            // Relaxed: only the uniqueness matters.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_number_and_has_it_alone() {
        let mine = number();
        assert_eq!(number(), mine);
        let theirs = std::thread::spawn(|| [number(), number()]).join().expect("no panic");
        assert_eq!(theirs[0], theirs[1]);
        assert_ne!(theirs[0], mine);
    }
}
