//! Models of the ring: small, but with every interleaving and every stale value that the orderings
//! allow.
//!
//! Payloads lie in cells that report two accesses without order between them. Every model fails if
//! a claim is refused as corrupt: that would mean that somebody saw a word older than its hint
//! allows.
#![expect(unsafe_code, reason = "payloads are reached by pointers, as in a segment")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;

const LAST_LAP: u64 = (1 << 30) - 1;
const MAIN: u32 = 1;
const A: u32 = 2;
const B: u32 = 3;

impl Slots for &[AtomicU64] {
    fn count(&self) -> u64 {
        self.len() as u64
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        &self[index as usize]
    }
}

/// What a segment would hold.
struct Memory {
    tail: AtomicU64,
    head: AtomicU64,
    done: AtomicU64,
    orphans: AtomicU32,
    closed: AtomicU32,
    lost: AtomicU64,
    words: Vec<AtomicU64>,
    payloads: Vec<UnsafeCell<u64>>,
    policy: OnReaderDeath,
}

// SAFETY: a payload is touched by the claimant of its slot only, which is what the models check.
unsafe impl Sync for Memory {}
// SAFETY: as for `Sync`.
unsafe impl Send for Memory {}

impl Memory {
    fn new(capacity: u64, policy: OnReaderDeath) -> Arc<Memory> {
        Memory::in_lap(0, capacity, policy)
    }

    /// A ring that has gone round `lap` times.
    fn in_lap(lap: u64, capacity: u64, policy: OnReaderDeath) -> Arc<Memory> {
        let start = Position::new(lap, 0).to_bits();
        Arc::new(Memory {
            tail: AtomicU64::new(start),
            head: AtomicU64::new(start),
            done: AtomicU64::new(start),
            orphans: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            words: (0..capacity)
                .map(|_| AtomicU64::new(SlotWord::new(lap, Phase::Empty, 0).to_bits()))
                .collect(),
            payloads: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
            policy,
        })
    }

    fn ring(&self) -> Ring<'_, &[AtomicU64]> {
        Ring {
            tail: &self.tail,
            head: &self.head,
            done: &self.done,
            orphans: &self.orphans,
            closed: &self.closed,
            lost: &self.lost,
            slots: &self.words,
            policy: self.policy,
        }
    }

    fn write(&self, claim: &Claim, value: u64) {
        // SAFETY: the slot is claimed for writing; loom reports any other access.
        self.payloads[claim.index() as usize].with_mut(|payload| unsafe { *payload = value });
    }

    fn read(&self, claim: &Claim) -> u64 {
        // SAFETY: the slot is claimed for reading; loom reports any write.
        self.payloads[claim.index() as usize].with(|payload| unsafe { *payload })
    }

    /// Whether the message was sent; if not, there was no room or the ring was closed.
    fn send(&self, me: u32, value: u64) -> bool {
        match self.ring().claim_write_at_hint(me).map_or_else(|| self.ring().claim_write(me), Ok) {
            Ok(claim) => {
                self.write(&claim, value);
                self.ring().publish(claim);
                true
            }
            Err(Refused::Corrupt) => panic!("corrupt"),
            Err(_) => false,
        }
    }

    fn recv(&self, me: u32) -> Result<u64, Refused> {
        let refused =
            match self.ring().claim_read_at_hint(me).map_or_else(|| self.ring().claim_read(me), Ok)
            {
                Ok(claim) => {
                    let value = self.read(&claim);
                    self.ring().release(claim);
                    return Ok(value);
                }
                Err(refused) => refused,
            };
        assert_ne!(refused, Refused::Corrupt);
        Err(refused)
    }

    /// Everything that is left once all others are done.
    fn drain(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.recv(MAIN).ok()).collect()
    }
}

/// Acceptable: each message arrives once; a sender that was refused for lack of room did not send.
#[test]
fn two_senders_and_a_receiver_over_one_slot() {
    loom::model(|| {
        let memory = Memory::in_lap(LAST_LAP, 1, OnReaderDeath::Drop);
        let senders = [A, B].map(|me| {
            let memory = memory.clone();
            thread::spawn(move || memory.send(me, u64::from(me)).then_some(u64::from(me)))
        });
        let mut received: Vec<u64> = memory.recv(MAIN).into_iter().collect();
        let mut sent: Vec<u64> =
            senders.into_iter().filter_map(|sender| sender.join().unwrap()).collect();
        received.extend(memory.drain());
        received.sort_unstable();
        sent.sort_unstable();
        assert!(!sent.is_empty());
        assert_eq!(received, sent);
    });
}

/// Acceptable: both send, as there is room for both; each message arrives once.
#[test]
fn two_senders_and_a_receiver_over_two_slots() {
    loom::model(|| {
        let memory = Memory::in_lap(LAST_LAP, 2, OnReaderDeath::Drop);
        let senders = [A, B].map(|me| {
            let memory = memory.clone();
            thread::spawn(move || assert!(memory.send(me, u64::from(me))))
        });
        let mut received: Vec<u64> = memory.recv(MAIN).into_iter().collect();
        for sender in senders {
            sender.join().unwrap();
        }
        received.extend(memory.drain());
        received.sort_unstable();
        assert_eq!(received, [u64::from(A), u64::from(B)]);
    });
}

/// The second message goes into the slot of the first. Acceptable: each receiver gets one or none,
/// in the order sent.
#[test]
fn a_sender_and_two_receivers_over_one_slot_that_is_used_again() {
    loom::model(|| {
        let memory = Memory::in_lap(LAST_LAP, 1, OnReaderDeath::Drop);
        assert!(memory.send(MAIN, 1));
        let receivers = [A, B].map(|me| {
            let memory = memory.clone();
            thread::spawn(move || memory.recv(me).ok())
        });
        let second = memory.send(MAIN, 2);
        let mut received: Vec<u64> =
            receivers.into_iter().filter_map(|receiver| receiver.join().unwrap()).collect();
        received.extend(memory.drain());
        received.sort_unstable();
        assert_eq!(received, if second { vec![1, 2] } else { vec![1] });
    });
}

/// Acceptable: a prefix of what was sent, in order; the rest afterwards.
#[test]
fn a_receiver_sees_a_sender_in_order_round_the_ring() {
    loom::model(|| {
        let memory = Memory::in_lap(LAST_LAP, 2, OnReaderDeath::Drop);
        assert!(memory.send(MAIN, 0));
        let sender = {
            let memory = memory.clone();
            thread::spawn(move || (1..4).take_while(|&value| memory.send(A, value)).count() as u64)
        };
        let mut received: Vec<u64> = (0..2).filter_map(|_| memory.recv(MAIN).ok()).collect();
        let sent = sender.join().unwrap();
        received.extend(memory.drain());
        assert_eq!(received, (0..=sent).collect::<Vec<_>>());
    });
}

/// A walker that jumps because a slot is a lap ahead must also see the slots in between as they
/// were when that slot was claimed. Acceptable: of three senders two find room, in slots 1 and 0.
#[test]
fn a_sender_with_a_hint_laps_behind_does_not_see_older_words_than_those_that_made_it_jump() {
    loom::model(|| {
        let memory = Memory::new(2, OnReaderDeath::Drop);
        assert!(memory.send(MAIN, 1));
        assert_eq!(memory.recv(MAIN), Ok(1));
        memory.tail.store(0, Ordering::Relaxed);
        let senders = [A, B].map(|me| {
            let memory = memory.clone();
            thread::spawn(move || memory.send(me, u64::from(me)))
        });
        let mine = memory.send(MAIN, u64::from(MAIN));
        let sent = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .chain([mine])
            .filter(|&sent| sent)
            .count();
        assert_eq!(sent, 2);
        assert_eq!(memory.drain().len(), 2);
    });
}

/// Acceptable: the sender that lives has sent or was refused; after the recovery exactly what it
/// sent is there.
#[test]
fn a_sender_killed_after_its_claim_leaves_nothing() {
    for capacity in [1, 2] {
        loom::model(move || {
            let memory = Memory::new(capacity, OnReaderDeath::Drop);
            let dead = {
                let memory = memory.clone();
                thread::spawn(move || memory.ring().claim_write(A).map(drop).is_ok())
            };
            let living = {
                let memory = memory.clone();
                thread::spawn(move || memory.send(B, 7))
            };
            let early = memory.recv(MAIN).ok();
            let claimed = dead.join().unwrap();
            let sent = living.join().unwrap();
            assert_eq!(memory.ring().recover_all(A), claimed);
            assert!(sent || claimed);
            let received: Vec<u64> = early.into_iter().chain(memory.drain()).collect();
            assert_eq!(received, if sent { vec![7] } else { vec![] });
            // Every slot can be used again.
            for value in 0..capacity {
                assert!(memory.send(MAIN, value));
            }
            assert!(!memory.send(MAIN, 99));
            assert_eq!(memory.drain().len() as u64, capacity);
        });
    }
}

/// Only the recoverer knows that the dead process is done with its payload. It must pass that on.
/// Acceptable: the sender that lives finds the slot taken, or recovered and free.
#[test]
fn a_recovered_slot_is_written_only_after_the_dead_was_there() {
    for dies_writing in [true, false] {
        loom::model(move || {
            let memory = Memory::new(1, OnReaderDeath::Drop);
            if !dies_writing {
                assert!(memory.send(MAIN, 1));
            }
            let living = {
                let memory = memory.clone();
                thread::spawn(move || memory.send(B, 7))
            };
            let dead = {
                let memory = memory.clone();
                thread::spawn(move || match memory.ring().claim_write(A) {
                    Ok(claim) => memory.write(&claim, 2),
                    Err(_) => drop(memory.ring().claim_read(A).map(|claim| memory.read(&claim))),
                })
            };
            dead.join().unwrap();
            memory.ring().recover_all(A);
            let sent = living.join().unwrap();
            let lost = memory.lost.load(Ordering::Relaxed) as usize;
            let before = if dies_writing { 0 } else { 1 };
            assert_eq!(memory.drain().len() + lost, before + usize::from(sent));
        });
    }
}

/// Acceptable: one of the two recovers; the message goes to one receiver, flagged, or is counted as
/// lost.
#[test]
fn two_recover_from_a_dead_receiver_and_one_succeeds() {
    for policy in [OnReaderDeath::Drop, OnReaderDeath::Redeliver] {
        loom::model(move || {
            let memory = Memory::new(1, policy);
            assert!(memory.send(MAIN, 5));
            let dead = {
                let memory = memory.clone();
                thread::spawn(move || {
                    let claim = memory.ring().claim_read(A).unwrap();
                    assert_eq!(memory.read(&claim), 5);
                })
            };
            dead.join().unwrap();
            let recover_and_receive = |memory: &Memory, me| {
                let recovered = memory.ring().recover_all(A);
                let claim = memory.ring().claim_read(me);
                let received = claim.ok().map(|claim| {
                    assert!(claim.redelivered);
                    let value = memory.read(&claim);
                    memory.ring().release(claim);
                    value
                });
                (recovered, received)
            };
            let other = {
                let memory = memory.clone();
                thread::spawn(move || recover_and_receive(&memory, B))
            };
            let mine = recover_and_receive(&memory, MAIN);
            let other = other.join().unwrap();
            assert!(mine.0 != other.0, "one recovers, the other comes too late");
            let received: Vec<u64> =
                [mine.1, other.1].into_iter().flatten().chain(memory.drain()).collect();
            match policy {
                OnReaderDeath::Drop => {
                    assert_eq!((received, memory.lost.load(Ordering::Relaxed)), (vec![], 1))
                }
                OnReaderDeath::Redeliver => {
                    assert_eq!((received, memory.lost.load(Ordering::Relaxed)), (vec![5], 0))
                }
            }
            assert!(memory.send(MAIN, 6));
            assert_eq!(memory.drain(), [6]);
        });
    }
}

/// A receiver that finds no orphan clears the flag while two orphans are made. Acceptable: both are
/// received, at the latest by a receiver that looks when all others are done.
#[test]
fn an_orphan_that_comes_up_while_the_flag_is_cleared_is_not_forgotten() {
    loom::model(|| {
        let memory = Memory::new(2, OnReaderDeath::Redeliver);
        let recoverers = [A, B].map(|dead| {
            assert!(memory.send(MAIN, u64::from(dead)));
            let _ = memory.ring().claim_read(dead).unwrap();
            let memory = memory.clone();
            move || assert!(memory.ring().recover_all(dead))
        });
        // A flag without an orphan.
        memory.orphans.store(1, Ordering::Relaxed);
        let recoverers = recoverers.map(thread::spawn);
        let early = memory.recv(MAIN).ok();
        for recoverer in recoverers {
            recoverer.join().unwrap();
        }
        let mut received: Vec<u64> = early.into_iter().chain(memory.drain()).collect();
        received.sort_unstable();
        assert_eq!(received, [u64::from(A), u64::from(B)]);
    });
}

/// Acceptable: the message was sent, and then it is received before the end; or the sender was
/// turned back. Once the end was seen nothing more comes.
#[test]
fn close_against_send() {
    for policy in [OnReaderDeath::Drop, OnReaderDeath::Redeliver] {
        loom::model(move || {
            let memory = Memory::new(2, policy);
            let sender = {
                let memory = memory.clone();
                thread::spawn(move || memory.send(A, 7))
            };
            let closer = {
                let memory = memory.clone();
                thread::spawn(move || memory.ring().close())
            };
            let early = memory.recv(MAIN);
            let sent = sender.join().unwrap();
            closer.join().unwrap();
            let late = memory.recv(MAIN);
            match (sent, early) {
                (true, Ok(value)) => assert_eq!((value, late), (7, Err(Refused::Closed))),
                (true, Err(Refused::NotNow(_))) => assert_eq!(late, Ok(7)),
                (false, Err(_)) => assert_eq!(late, Err(Refused::Closed)),
                impossible => panic!("{impossible:?}"),
            }
            assert_eq!(memory.recv(MAIN), Err(Refused::Closed));
        });
    }
}

/// What was sent before the close is found before the end. Acceptable: the receiver gets it, or is
/// refused for now.
#[test]
fn nobody_sees_the_end_before_what_was_sent_before_it() {
    loom::model(|| {
        let memory = Memory::new(1, OnReaderDeath::Drop);
        let sender = {
            let memory = memory.clone();
            thread::spawn(move || {
                assert!(memory.send(A, 7));
                memory.ring().close();
            })
        };
        let early = memory.recv(MAIN);
        sender.join().unwrap();
        match early {
            Ok(value) => assert_eq!(value, 7),
            Err(Refused::NotNow(_)) => assert_eq!(memory.recv(MAIN), Ok(7)),
            Err(refused) => panic!("{refused:?}"),
        }
        assert_eq!(memory.recv(MAIN), Err(Refused::Closed));
    });
}

/// Two receivers meet the end of a closed ring at once. Acceptable: one gets the message, then both
/// get `Closed`.
#[test]
fn two_receivers_of_a_closed_ring_share_what_is_left() {
    loom::model(|| {
        let memory = Memory::new(1, OnReaderDeath::Drop);
        assert!(memory.send(MAIN, 7));
        memory.ring().close();
        let other = {
            let memory = memory.clone();
            thread::spawn(move || memory.recv(A))
        };
        let mine = memory.recv(MAIN);
        let other = other.join().unwrap();
        assert_eq!([mine, other].iter().filter(|result| **result == Ok(7)).count(), 1);
        assert_eq!(memory.recv(MAIN), Err(Refused::Closed));
        assert!(!memory.send(MAIN, 8));
    });
}
