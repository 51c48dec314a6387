//! Models of the ring. Payloads lie in cells that report two accesses without order between them.
//!
//! Sides resume before their threads begin: loom reorders a store only against the last access to
//! its word, and a load by the same thread just before would hide those of the other side.
#![expect(unsafe_code, reason = "payloads are reached by pointers, as in a segment")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;

/// What a segment would hold.
struct Memory {
    tail: AtomicU64,
    head: AtomicU64,
    payloads: Vec<UnsafeCell<u64>>,
}

// SAFETY: a payload is touched by the side whose slot it is only, which is what the models check.
unsafe impl Sync for Memory {}
// SAFETY: as for `Sync`.
unsafe impl Send for Memory {}

impl Memory {
    fn new(capacity: u64) -> Arc<Memory> {
        Arc::new(Memory {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            payloads: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    fn capacity(&self) -> u64 {
        self.payloads.len() as u64
    }

    fn sender(&self) -> Side {
        resume_sender(&self.tail, &self.head, self.capacity()).unwrap()
    }

    fn receiver(&self) -> Side {
        resume_receiver(&self.tail, &self.head, self.capacity()).unwrap()
    }

    fn write(&self, slot: u64, value: u64) {
        // SAFETY: the slot is the sender's; loom reports a receiver that is still there.
        self.payloads[(slot % self.capacity()) as usize]
            .with_mut(|payload| unsafe { *payload = value });
    }

    fn read(&self, slot: u64) -> u64 {
        // SAFETY: the slot is the receiver's; loom reports a sender that is still there.
        self.payloads[(slot % self.capacity()) as usize].with(|payload| unsafe { *payload })
    }

    /// False if there was no room.
    fn send(&self, side: &mut Side, value: u64) -> bool {
        if free_slots(side, &self.head, 1).unwrap() == 0 {
            return false;
        }
        self.write(side.slot(), value);
        side.turn().unwrap().publish(&self.tail);
        true
    }

    fn recv(&self, side: &mut Side) -> Option<u64> {
        if messages(side, &self.tail, 1).unwrap() == 0 {
            return None;
        }
        let value = self.read(side.slot());
        side.turn().unwrap().release(&self.head);
        Some(value)
    }
}

/// Acceptable: what was sent arrives in order; no message is lost or comes twice.
#[test]
fn messages_pass_in_order_round_the_ring() {
    for capacity in [1, 2] {
        loom::model(move || {
            let memory = Memory::new(capacity);
            let sender = {
                let (memory, mut side) = (memory.clone(), memory.sender());
                thread::spawn(move || {
                    (0..4).take_while(|&value| memory.send(&mut side, value)).count() as u64
                })
            };
            let mut side = memory.receiver();
            let mut received: Vec<u64> = (0..3).filter_map(|_| memory.recv(&mut side)).collect();
            let sent = sender.join().unwrap();
            assert!(sent >= capacity.min(4));
            received.extend(std::iter::from_fn(|| memory.recv(&mut side)));
            assert_eq!(received, (0..sent).collect::<Vec<_>>());
        });
    }
}

/// A receiver takes over from one that was killed between its read and its release, while the
/// sender goes on. Acceptable: the message of the dead comes again, then what the sender had room
/// for.
#[test]
fn a_successor_gets_what_the_dead_receiver_had_not_released() {
    loom::model(|| {
        let memory = Memory::new(1);
        let mut side = memory.sender();
        assert!(memory.send(&mut side, 1));
        let dead = {
            let memory = memory.clone();
            thread::spawn(move || {
                let mut side = memory.receiver();
                assert_eq!(messages(&mut side, &memory.tail, 1), Ok(1));
                assert_eq!(memory.read(side.slot()), 1);
            })
        };
        dead.join().unwrap();
        let successor = {
            let (memory, mut side) = (memory.clone(), memory.receiver());
            thread::spawn(move || {
                assert_eq!(memory.recv(&mut side), Some(1));
                memory.recv(&mut side)
            })
        };
        let second = memory.send(&mut side, 2);
        let received = successor.join().unwrap().or_else(|| memory.recv(&mut memory.receiver()));
        assert_eq!(received, second.then_some(2));
    });
}

/// A sender takes over from one that was killed before it published, while the receiver goes on.
/// Acceptable: the receiver sees nothing of what the dead wrote.
#[test]
fn a_successor_writes_over_what_the_dead_sender_had_not_published() {
    loom::model(|| {
        let memory = Memory::new(2);
        let dead = {
            let (memory, mut side) = (memory.clone(), memory.sender());
            thread::spawn(move || {
                assert!(memory.send(&mut side, 1));
                memory.write(side.slot(), 99);
            })
        };
        let mut side = memory.receiver();
        let mut received: Vec<u64> = memory.recv(&mut side).into_iter().collect();
        dead.join().unwrap();
        let successor = {
            let (memory, mut side) = (memory.clone(), memory.sender());
            thread::spawn(move || assert!(memory.send(&mut side, 2)))
        };
        received.extend((0..2).filter_map(|_| memory.recv(&mut side)));
        successor.join().unwrap();
        received.extend(std::iter::from_fn(|| memory.recv(&mut side)));
        assert_eq!(received, [1, 2]);
    });
}
