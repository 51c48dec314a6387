//! Models of the two copies. A value has two words, which are the same in every value that is
//! written; a reader that finds them different has read parts of two.
//!
//! Readers are the threads that are started, as loom remembers one access to a word at a time:
//! where a writer that begins later looks at a word before it stores there, loom forgets that a
//! reader had looked, and does not try the two in another order.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sync::lock::{LockState, Owner, RawLock, Refused};

const A: Owner = Owner { peer: 2, thread: 1 };
const B: Owner = Owner { peer: 3, thread: 1 };
const DEAD: Owner = Owner { peer: 9, thread: 4 };

struct Shared {
    writer: RawLock,
    sequence: AtomicU64,
    copies: [[AtomicU64; 2]; 2],
}

impl Shared {
    fn new() -> Arc<Shared> {
        let copy = || [AtomicU64::new(0), AtomicU64::new(0)];
        let (writer, sequence) = (RawLock::new(), AtomicU64::new(0));
        Arc::new(Shared { writer, sequence, copies: [copy(), copy()] })
    }

    fn value(&self) -> TwoCopies<'_> {
        TwoCopies { sequence: &self.sequence, copies: [&self.copies[0], &self.copies[1]] }
    }

    fn read(&self) -> u64 {
        let mut words = [0; 2];
        self.value().read(|index, word| words[index] = word);
        assert_eq!(words[0], words[1], "torn");
        words[0]
    }

    /// Adds one, as the one who may write.
    fn add(&self, locked: &mut Locked) {
        let mut words = [0; 2];
        self.value().read_as_writer(locked, |index, word| words[index] = word);
        assert_eq!(words[0], words[1], "torn for a writer");
        self.value().write(locked, |_| words[0] + 1);
    }

    /// Adds one, unless somebody else may write; whether it has.
    fn try_add(&self, me: Owner) -> bool {
        let Some(mut locked) = self.writer.lock_free(me) else {
            return false;
        };
        self.add(&mut locked);
        self.writer.unlock(LockState::Clean);
        true
    }
}

/// Two updates bring the writer back to the copy that the reader began with. Acceptable: each value
/// is whole, and none comes before one that was read earlier.
#[test]
fn a_reader_sees_no_half_of_a_change() {
    loom::model(|| {
        let shared = Shared::new();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || [shared.read(), shared.read()])
        };
        assert!(shared.try_add(A) && shared.try_add(A));
        let [first, second] = reader.join().unwrap();
        assert!(first <= second && second <= 2, "{first}, then {second}");
        assert_eq!(shared.read(), 2);
    });
}

/// Acceptable: nobody loses an update, and what is read is whole, though the two updates come from
/// different writers.
#[test]
fn two_writers_and_a_reader() {
    loom::model(|| {
        let shared = Shared::new();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || shared.read())
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || u64::from(shared.try_add(B)))
        };
        let added = u64::from(shared.try_add(A)) + other.join().unwrap();
        let read = reader.join().unwrap();
        assert!(read <= added && added >= 1, "{read} of {added}");
        assert_eq!(shared.read(), added);
    });
}

/// A writer is killed before, between or behind its stores, and another goes on. Acceptable: the
/// value of the dead is wholly there or not at all, and the next one is written beside the one that
/// is read.
#[test]
fn a_dead_writer_leaves_a_whole_value_to_readers_and_to_the_next_writer() {
    for stores in 0..=3 {
        loom::model(move || {
            let shared = Shared::new();
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || shared.read())
            };
            assert!(shared.writer.lock_free(DEAD).is_some());
            // The stores of `write`, up to the last that it came to.
            fence(Ordering::Release);
            for word in shared.copies[1].iter().take(stores) {
                word.store(7, Ordering::Relaxed);
            }
            if stores > 2 {
                shared.sequence.store(1, Ordering::Release);
            }
            // Who knows that a process is dead knows that all its stores have happened, as in one
            // thread.
            let Err(Refused::Held(held)) = shared.writer.try_recover(A) else {
                panic!("the dead writer's");
            };
            assert!(shared.writer.declare_dead(held));
            let Ok((mut locked, LockState::OwnerDied)) = shared.writer.try_recover(A) else {
                panic!("nobody else wants it");
            };
            shared.add(&mut locked);
            shared.writer.unlock(LockState::Clean);
            let (before, after) = if stores > 2 { (7, 8) } else { (0, 1) };
            let read = reader.join().unwrap();
            assert!([0, before, after].contains(&read), "{read} after {stores} stores");
            assert_eq!(shared.read(), after);
        });
    }
}

/// Acceptable: who has read a value sees what its writer had written before.
#[test]
fn what_was_written_before_a_change_is_seen_with_it() {
    loom::model(|| {
        let shared = Shared::new();
        let other = Arc::new(AtomicU64::new(0));
        let reader = {
            let (shared, other) = (shared.clone(), other.clone());
            thread::spawn(move || (shared.read(), other.load(Ordering::Relaxed)))
        };
        other.store(1, Ordering::Relaxed);
        assert!(shared.try_add(A));
        let read = reader.join().unwrap();
        assert_ne!(read, (1, 0), "a change without what came before it");
    });
}

/// The control: without the fence between the words and the second look, the look may be older than
/// the words.
#[test]
#[should_panic(expected = "torn")]
fn a_reader_without_its_fence_is_found_broken() {
    loom::model(|| {
        let shared = Shared::new();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let sequence = shared.sequence.load(Ordering::Acquire);
                let copy = &shared.copies[(sequence & 1) as usize];
                let words = [0, 1].map(|index: usize| copy[index].load(Ordering::Relaxed));
                if shared.sequence.load(Ordering::Relaxed) == sequence {
                    assert_eq!(words[0], words[1], "torn");
                }
            })
        };
        assert!(shared.try_add(A) && shared.try_add(A));
        reader.join().unwrap();
    });
}
