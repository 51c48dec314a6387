//! Which values in a word the code of this thread is changing right now.
//!
//! Such a value has no writer, and changing it is retried until nobody else has changed it
//! meanwhile. A closure that changes the very value that it is called for would be called without
//! end.

use std::cell::{Cell, RefCell};

use crate::primitive::AtomicU64;

thread_local! {
    /// How many there are: nearly always none, and then this is all that is looked at.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Addresses of their words. A forked child has other addresses, so it is not fooled by what
    /// it inherits.
    static WORDS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn address(word: &AtomicU64) -> usize {
    (&raw const *word).addr()
}

/// Whether a closure that changes this value is running in this thread.
#[inline]
pub(super) fn is_changing(word: &AtomicU64) -> bool {
    COUNT.get() != 0 && is_in_list(word)
}

// While a thread ends the list may be gone, and a destructor that still changes values is on its
// own.
#[cold]
fn is_in_list(word: &AtomicU64) -> bool {
    WORDS.try_with(|words| words.borrow().contains(&address(word))).unwrap_or(false)
}

/// That a closure is about to change a value, until it is dropped.
#[derive(Debug)]
pub(super) struct Changing(());

impl Changing {
    pub(super) fn begin(word: &AtomicU64) -> Changing {
        let _ = WORDS.try_with(|words| words.borrow_mut().push(address(word)));
        COUNT.set(COUNT.get() + 1);
        Changing(())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        COUNT.set(COUNT.get() - 1);
        // They end in the reverse of the order in which they began.
        let _ = WORDS.try_with(|words| words.borrow_mut().pop());
    }
}
