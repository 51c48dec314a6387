//! Words that a process can sleep on: the kernel's queues are the explorer's.

use std::time::Duration;

use crate::primitive::{AtomicU32, Ordering};
use crate::world;

/// Bits of an event's word that are kept. A sequence that grows with every sleep would make the
/// states endless; it comes round only after more sleeps and wake-ups between a look and a sleep
/// than any configuration has.
const EVENT_BITS: u32 = (1 << 7) - 1;

fn cut(value: u32) -> u32 {
    value & EVENT_BITS
}

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Word32(AtomicU32);

impl Word32 {
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.0.store(cut(value), order);
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u32,
        to: u32,
        set: Ordering,
        fetch: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(cut(from), cut(to), set, fetch)
    }

    pub(crate) fn fetch_add(&self, value: u32, _: Ordering) -> u32 {
        let bits = EVENT_BITS.into();
        world::access(self.0.address(), world::Access::Add(value.into(), bits))
            .expect("a shared word") as u32
    }

    pub(crate) fn wait(&self, expected: u32, _: Duration) {
        world::sleep(self.0.address(), cut(expected));
    }

    pub(crate) fn wait_any(words: &[(&Word32, u32)], _: Duration) {
        match *words {
            [(first, as_first), (second, as_second)] => world::sleep_on_two(
                [first.0.address(), second.0.address()],
                [cut(as_first), cut(as_second)],
            ),
            _ => unreachable!("no model waits for more than two"),
        }
    }

    pub(crate) fn wake(&self, count: u32) -> u32 {
        world::wake(self.0.address(), count)
    }
}
