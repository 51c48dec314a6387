//! The ring over words on the heap: step by step, against a naive twin, and with threads.

use super::*;

const CAPACITIES: [u64; 5] = [1, 2, 3, 5, 8];
const LAST_LAP: u64 = (1 << 30) - 1;
const POLICIES: [OnReaderDeath; 2] = [OnReaderDeath::Drop, OnReaderDeath::Redeliver];
const ME: u32 = 1;
const OTHER: u32 = 2;

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
    payloads: Vec<AtomicU64>,
    policy: OnReaderDeath,
}

impl Memory {
    fn new(capacity: u64, policy: OnReaderDeath) -> Memory {
        Memory::starting_at(Position::new(0, 0), capacity, policy)
    }

    /// A ring through which everything before `start` has passed.
    fn starting_at(start: Position, capacity: u64, policy: OnReaderDeath) -> Memory {
        let word = |index| {
            let lap = if index < start.index() { start.lap().wrapping_add(1) } else { start.lap() };
            AtomicU64::new(SlotWord::new(lap, Phase::Empty, 0).to_bits())
        };
        Memory {
            tail: AtomicU64::new(start.to_bits()),
            head: AtomicU64::new(start.to_bits()),
            done: AtomicU64::new(start.to_bits()),
            orphans: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            words: (0..capacity).map(word).collect(),
            payloads: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            policy,
        }
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
        self.payloads[claim.index() as usize].store(value, Ordering::Relaxed);
    }

    fn read(&self, claim: &Claim) -> u64 {
        self.payloads[claim.index() as usize].load(Ordering::Relaxed)
    }

    fn send_as(&self, me: u32, value: u64) -> Result<(), Refused> {
        let claim =
            self.ring().claim_write_at_hint(me).map_or_else(|| self.ring().claim_write(me), Ok)?;
        self.write(&claim, value);
        self.ring().publish(claim);
        Ok(())
    }

    fn send(&self, value: u64) -> Result<(), Refused> {
        self.send_as(ME, value)
    }

    /// The message, and whether it was flagged as delivered before.
    fn recv_as(&self, me: u32) -> Result<(u64, bool), Refused> {
        let claim =
            self.ring().claim_read_at_hint(me).map_or_else(|| self.ring().claim_read(me), Ok)?;
        let message = (self.read(&claim), claim.redelivered);
        self.ring().release(claim);
        Ok(message)
    }

    fn recv(&self) -> Result<u64, Refused> {
        self.recv_as(ME).map(|(value, _)| value)
    }

    fn word(&self, index: u64) -> SlotWord {
        SlotWord::from_bits(self.words[index as usize].load(Ordering::Relaxed))
    }

    /// The slot as a process sees it that is blocked by it.
    fn held(&self, index: u64) -> ClaimedSlot {
        ClaimedSlot { index, word: self.word(index) }
    }
}

fn owner_in_the_way<T: std::fmt::Debug>(result: Result<T, Refused>) -> u32 {
    match result {
        Err(Refused::NotNow(Some(held))) => held.owner(),
        other => panic!("not held up by an owner: {other:?}"),
    }
}

#[test]
fn exactly_as_many_messages_as_slots_fit_and_come_out_in_order() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Drop);
        let ring = memory.ring();
        for round in 0..5 {
            assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
            assert!(!ring.has_message());
            for value in 0..capacity {
                assert!(ring.has_space());
                assert_eq!(ring.len(), value);
                assert_eq!(memory.send(round * 100 + value), Ok(()));
                assert!(ring.has_message());
            }
            assert_eq!((ring.len(), ring.has_space()), (capacity, false));
            assert_eq!(memory.send(77), Err(Refused::NotNow(None)));
            for value in 0..capacity {
                assert_eq!(memory.recv(), Ok(round * 100 + value));
                assert_eq!(ring.len(), capacity - value - 1);
            }
        }
    }
}

#[test]
fn laps_wrap_without_anybody_noticing() {
    for capacity in CAPACITIES {
        for index in 0..capacity {
            let memory = Memory::starting_at(
                Position::new(LAST_LAP - 1, index),
                capacity,
                OnReaderDeath::Drop,
            );
            for value in 0..6 * capacity {
                assert_eq!(memory.send(value), Ok(()));
                assert_eq!(memory.ring().len(), 1);
                assert_eq!(memory.recv(), Ok(value));
                assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
            }
            assert!(memory.word(0).lap() < 8, "the laps have not wrapped");
        }
    }
}

#[test]
fn nobody_overtakes_a_message_that_is_being_written() {
    let memory = Memory::new(3, OnReaderDeath::Drop);
    let slow = memory.ring().claim_write(OTHER).unwrap();
    memory.write(&slow, 1);
    memory.send(2).unwrap();
    assert_eq!(owner_in_the_way(memory.recv()), OTHER);
    assert!(!memory.ring().has_message());
    memory.ring().publish(slow);
    assert_eq!((memory.recv(), memory.recv()), (Ok(1), Ok(2)));
}

#[test]
fn a_slow_reader_holds_up_the_sender_of_its_slot_only() {
    let memory = Memory::new(2, OnReaderDeath::Drop);
    memory.send(1).unwrap();
    memory.send(2).unwrap();
    let slow = memory.ring().claim_read(OTHER).unwrap();
    assert_eq!(memory.recv(), Ok(2));
    // The other slot is free, but its turn comes after that of the slow one.
    assert_eq!(owner_in_the_way(memory.send(3)), OTHER);
    assert!(!memory.ring().has_space());
    assert_eq!(memory.read(&slow), 1);
    memory.ring().release(slow);
    assert_eq!((memory.send(3), memory.send(4)), (Ok(()), Ok(())));
    assert_eq!((memory.recv(), memory.recv()), (Ok(3), Ok(4)));
}

#[test]
fn an_aborted_claim_sends_nothing() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Drop);
        for value in 0..3 * capacity {
            let claim = memory.ring().claim_write(ME).unwrap();
            memory.ring().release(claim);
            assert_eq!(memory.ring().len(), 0);
            assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
            memory.send(value).unwrap();
            assert_eq!(memory.recv(), Ok(value));
        }
    }
}

#[test]
fn a_dead_sender_is_named_to_whoever_it_holds_up_and_its_claim_undone() {
    for capacity in CAPACITIES {
        for policy in POLICIES {
            let memory = Memory::new(capacity, policy);
            // Killed between its claim and the store of `tail`, and before it had published.
            let _ = memory.ring().claim_write(OTHER).unwrap();
            memory.tail.store(0, Ordering::Relaxed);
            for value in 1..capacity {
                memory.send(value).unwrap();
            }
            assert_eq!(owner_in_the_way(memory.send(99)), OTHER);
            assert_eq!(owner_in_the_way(memory.recv()), OTHER);
            let held = memory.held(0);
            assert!(memory.ring().recover(held));
            assert!(!memory.ring().recover(held), "recovered twice");
            assert_eq!(memory.send(capacity), Ok(()));
            for value in 1..=capacity {
                assert_eq!(memory.recv(), Ok(value));
            }
            assert_eq!(memory.lost.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_dead_receiver_is_named_even_if_it_was_killed_before_it_moved_the_hint() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Drop);
        for value in 0..capacity {
            memory.send(value).unwrap();
        }
        let _ = memory.ring().claim_read(OTHER).unwrap();
        memory.head.store(0, Ordering::Relaxed);
        memory.tail.store(0, Ordering::Relaxed);
        assert_eq!(owner_in_the_way(memory.send(99)), OTHER);
        assert!(memory.ring().recover(memory.held(0)));
        assert_eq!(memory.send(capacity), Ok(()));
        for value in 1..=capacity {
            assert_eq!(memory.recv(), Ok(value));
        }
    }
}

#[test]
fn what_a_dead_receiver_had_is_dropped_and_counted() {
    let memory = Memory::new(3, OnReaderDeath::Drop);
    for value in 0..3 {
        memory.send(value).unwrap();
    }
    let _ = memory.ring().claim_read(OTHER).unwrap();
    let _ = memory.ring().claim_read(OTHER).unwrap();
    assert!(memory.ring().recover_all(OTHER));
    assert!(!memory.ring().recover_all(OTHER));
    assert_eq!(memory.lost.load(Ordering::Relaxed), 2);
    assert_eq!((memory.recv(), memory.recv()), (Ok(2), Err(Refused::NotNow(None))));
}

#[test]
fn what_a_dead_receiver_had_is_delivered_again_and_flagged() {
    let memory = Memory::new(3, OnReaderDeath::Redeliver);
    for value in 0..3 {
        memory.send(value).unwrap();
    }
    let _ = memory.ring().claim_read(OTHER).unwrap();
    assert!(memory.ring().recover_all(OTHER));
    assert!(memory.ring().has_message());
    // A second death with the same message.
    let again = memory.ring().claim_read(OTHER).unwrap();
    assert!(again.redelivered);
    assert!(memory.ring().recover(memory.held(0)));
    assert_eq!(memory.recv_as(ME), Ok((0, true)));
    assert_eq!(memory.recv_as(ME), Ok((1, false)));
    assert_eq!(memory.recv_as(ME), Ok((2, false)));
    assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
    assert!(!memory.ring().has_message(), "the flag outlives the last orphan");
    assert_eq!(memory.lost.load(Ordering::Relaxed), 0);
}

#[test]
fn an_orphan_without_the_flag_is_found_by_the_sender_that_needs_its_slot() {
    let memory = Memory::new(2, OnReaderDeath::Redeliver);
    memory.send(0).unwrap();
    memory.send(1).unwrap();
    let _ = memory.ring().claim_read(OTHER).unwrap();
    assert!(memory.ring().recover(memory.held(0)));
    memory.orphans.store(0, Ordering::Relaxed);
    assert_eq!(memory.recv_as(ME), Ok((1, false)));
    assert_eq!(memory.recv_as(ME), Err(Refused::NotNow(None)));
    assert_eq!(memory.send(2), Err(Refused::NotNow(None)));
    assert_eq!(memory.recv_as(ME), Ok((0, true)));
    assert_eq!(memory.send(2), Ok(()));
}

#[test]
fn an_orphan_without_the_flag_is_found_before_the_end_is_reported() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Redeliver);
        for value in 0..capacity {
            memory.send(value).unwrap();
        }
        let _ = memory.ring().claim_read(OTHER).unwrap();
        assert!(memory.ring().recover(memory.held(0)));
        memory.orphans.store(0, Ordering::Relaxed);
        memory.ring().close();
        for value in 1..capacity {
            assert_eq!(memory.recv_as(ME), Ok((value, false)));
        }
        // The ring may need one more look, after which it knows that there is an orphan.
        let orphan = memory.recv_as(ME).or_else(|_| memory.recv_as(ME));
        assert_eq!(orphan, Ok((0, true)));
        assert_eq!(memory.recv_as(ME), Err(Refused::Closed));
    }
}

#[test]
fn a_closed_ring_is_drained_and_then_at_its_end_for_good() {
    for capacity in CAPACITIES {
        for policy in POLICIES {
            let memory = Memory::new(capacity, policy);
            let ring = memory.ring();
            for value in 0..capacity - 1 {
                memory.send(value).unwrap();
            }
            assert!(!ring.is_closed());
            ring.close();
            assert!(ring.is_closed());
            assert_eq!(memory.send(99), Err(Refused::Closed));
            for value in 0..capacity - 1 {
                assert_eq!(memory.recv(), Ok(value));
            }
            for _ in 0..3 {
                assert_eq!(memory.recv(), Err(Refused::Closed));
                assert_eq!(memory.send(99), Err(Refused::Closed));
                assert_eq!((ring.len(), ring.has_message(), ring.has_space()), (0, false, false));
            }
        }
    }
}

#[test]
fn a_sender_that_passed_the_closed_flag_is_turned_back_by_the_seal() {
    let memory = Memory::new(2, OnReaderDeath::Drop);
    memory.ring().close();
    assert_eq!(memory.recv(), Err(Refused::Closed));
    // It loaded the flag before the close and claims only now.
    memory.closed.store(0, Ordering::Relaxed);
    assert_eq!(memory.send(1), Err(Refused::Closed));
}

#[test]
fn a_sender_that_passed_the_closed_flag_and_claimed_before_the_seal_is_heard() {
    let memory = Memory::new(2, OnReaderDeath::Drop);
    let late = memory.ring().claim_write(OTHER).unwrap();
    memory.ring().close();
    assert_eq!(owner_in_the_way(memory.recv()), OTHER);
    memory.write(&late, 5);
    memory.ring().publish(late);
    assert_eq!((memory.recv(), memory.recv()), (Ok(5), Err(Refused::Closed)));
}

#[test]
fn a_closed_ring_does_not_end_while_a_message_may_come_back() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Redeliver);
        memory.send(7).unwrap();
        let reading = memory.ring().claim_read(OTHER).unwrap();
        memory.ring().close();
        assert_eq!(owner_in_the_way(memory.recv()), OTHER);
        let held = memory.held(reading.index());
        assert!(memory.ring().recover(held));
        assert_eq!(memory.recv_as(ME), Ok((7, true)));
        assert_eq!(memory.recv_as(ME), Err(Refused::Closed));
    }
}

#[test]
fn a_closed_ring_that_drops_ends_while_others_still_read() {
    let memory = Memory::new(2, OnReaderDeath::Drop);
    memory.send(7).unwrap();
    let reading = memory.ring().claim_read(OTHER).unwrap();
    memory.ring().close();
    assert_eq!(memory.recv(), Err(Refused::Closed));
    memory.ring().release(reading);
    assert_eq!(memory.recv(), Err(Refused::Closed));
}

#[test]
fn hints_that_lag_by_any_amount_do_no_harm() {
    for capacity in CAPACITIES {
        for passed in 0..4 * capacity {
            for unread in 0..=capacity {
                for lag in 0..=passed {
                    let memory = Memory::new(capacity, OnReaderDeath::Drop);
                    let mut hints = vec![memory.tail.load(Ordering::Relaxed)];
                    for value in 0..passed {
                        memory.send(value).unwrap();
                        assert_eq!(memory.recv(), Ok(value));
                        hints.push(memory.tail.load(Ordering::Relaxed));
                    }
                    for value in 0..unread {
                        memory.send(value).unwrap();
                    }
                    let hint = hints[(passed - lag) as usize];
                    memory.tail.store(hint, Ordering::Relaxed);
                    memory.head.store(hint, Ordering::Relaxed);
                    assert_eq!(memory.ring().len(), unread);
                    assert_eq!(memory.ring().has_message(), unread > 0);
                    assert_eq!(memory.ring().has_space(), unread < capacity);
                    for value in unread..capacity {
                        assert_eq!(memory.send(value), Ok(()));
                        memory.tail.store(hint, Ordering::Relaxed);
                    }
                    assert_eq!(memory.send(99), Err(Refused::NotNow(None)));
                    for value in 0..capacity {
                        assert_eq!(memory.recv(), Ok(value));
                        memory.head.store(hint, Ordering::Relaxed);
                    }
                    assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
                }
            }
        }
    }
}

/// An aborted slot is already in its next lap while messages before it are unread. A receiver whose
/// hint was laps behind took that for a sign that they had been read, and skipped them.
#[test]
fn a_lagging_hint_does_not_jump_over_messages_before_an_aborted_claim() {
    let memory = Memory::new(3, OnReaderDeath::Drop);
    for value in 0..4 {
        memory.send(value).unwrap();
        assert_eq!(memory.recv(), Ok(value));
    }
    memory.send(10).unwrap();
    memory.send(11).unwrap();
    let aborted = memory.ring().claim_write(ME).unwrap();
    assert_eq!(aborted.index(), 0);
    memory.ring().release(aborted);
    // A receiver was frozen between its claim of the very first message and the store of the hint.
    memory.head.store(Position::new(0, 0).to_bits(), Ordering::Relaxed);
    assert!(memory.ring().has_message());
    assert_eq!((memory.recv(), memory.recv()), (Ok(10), Ok(11)));
    assert_eq!(memory.recv(), Err(Refused::NotNow(None)));
}

#[test]
fn a_hint_that_no_slot_has_is_corrupt() {
    let memory = Memory::new(3, OnReaderDeath::Drop);
    memory.tail.store(Position::new(0, 3).to_bits(), Ordering::Relaxed);
    memory.head.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(memory.send(1), Err(Refused::Corrupt));
    assert_eq!(memory.recv(), Err(Refused::Corrupt));
    let ring = memory.ring();
    assert_eq!((ring.len(), ring.has_message(), ring.has_space()), (0, false, false));
}

#[test]
fn hints_a_lap_ahead_are_corrupt() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity, OnReaderDeath::Drop);
        memory.tail.store(Position::new(1, 0).to_bits(), Ordering::Relaxed);
        memory.head.store(Position::new(1, 0).to_bits(), Ordering::Relaxed);
        assert_eq!(memory.send(1), Err(Refused::Corrupt));
        assert_eq!(memory.recv(), Err(Refused::Corrupt));
    }
}

/// A process may be stopped between its claim and the store of the hint, for minutes. Nobody can
/// tell a hint that lags by half of the circle from one that leads by the other half, and none of
/// ours leads.
#[test]
fn hints_that_lag_however_far_are_made_up_for() {
    for capacity in CAPACITIES {
        for lag in [2, 3, 1000, (1 << 29) - 1, 1 << 29, (1 << 29) + 1, LAST_LAP - 1] {
            let now = Position::new(5, 0);
            let memory = Memory::starting_at(now, capacity, OnReaderDeath::Drop);
            let hint = Position::new(now.lap().wrapping_sub(lag), 0).to_bits();
            memory.tail.store(hint, Ordering::Relaxed);
            memory.head.store(hint, Ordering::Relaxed);
            assert_eq!(memory.recv(), Err(Refused::NotNow(None)), "{lag} laps");
            assert_eq!(memory.send(1), Ok(()), "{lag} laps");
            memory.head.store(hint, Ordering::Relaxed);
            assert_eq!(memory.recv(), Ok(1), "{lag} laps");
        }
    }
}

#[test]
fn an_unknown_phase_is_corrupt() {
    let memory = Memory::new(1, OnReaderDeath::Drop);
    for lap in [0, 1, 2, LAST_LAP] {
        memory.words[0].store(SlotWord::new(lap, Phase::Unknown, 0).to_bits(), Ordering::Relaxed);
        assert_eq!(memory.send(1), Err(Refused::Corrupt));
        assert_eq!(memory.recv(), Err(Refused::Corrupt));
        assert!(!memory.ring().recover_all(0));
    }
}

/// In a larger ring a walk could go on behind such a word, by what it says of the lap.
#[test]
fn nobody_goes_on_behind_an_unknown_phase() {
    let unknown = |lap| SlotWord::new(lap, Phase::Unknown, 0).to_bits();
    let start = Position::new(0, 0).to_bits();

    // In this lap, and the slot behind it is free.
    let memory = Memory::new(2, OnReaderDeath::Drop);
    memory.words[0].store(unknown(0), Ordering::Relaxed);
    assert_eq!(memory.send(1), Err(Refused::Corrupt));

    // A lap later than the hint, with a free slot and with a message behind it.
    let memory = Memory::starting_at(Position::new(1, 0), 2, OnReaderDeath::Drop);
    memory.words[0].store(unknown(1), Ordering::Relaxed);
    memory.tail.store(start, Ordering::Relaxed);
    assert_eq!(memory.send(1), Err(Refused::Corrupt));
    let full = SlotWord::new(1, Phase::Full, 0).to_bits();
    memory.words[1].store(full, Ordering::Relaxed);
    memory.words[0].store(unknown(2), Ordering::Relaxed);
    memory.head.store(start, Ordering::Relaxed);
    assert_eq!(memory.recv(), Err(Refused::Corrupt));

    // It does not prove that a message was read, either.
    let memory = Memory::new(2, OnReaderDeath::Redeliver);
    memory.words[0].store(unknown(1), Ordering::Relaxed);
    memory.ring().keep_done();
    assert!(!memory.ring().find_orphan());
    assert_eq!(memory.done.load(Ordering::Relaxed), start);
}

/// A walk goes through a lap, however large, if all that is known is a hint from before it.
#[test]
fn a_hint_that_lags_by_a_large_lap_does_no_harm() {
    const CAPACITY: u64 = 5000;
    let memory = Memory::new(CAPACITY, OnReaderDeath::Drop);
    let start = Position::new(0, 0).to_bits();
    for value in 0..CAPACITY - 1 {
        memory.send(value).unwrap();
    }
    memory.tail.store(start, Ordering::Relaxed);
    assert_eq!(memory.send(CAPACITY - 1), Ok(()));
    let held: Vec<Claim> =
        (0..CAPACITY - 1).map(|_| memory.ring().claim_read(OTHER).unwrap()).collect();
    memory.head.store(start, Ordering::Relaxed);
    assert_eq!(memory.recv(), Ok(CAPACITY - 1));
    held.into_iter().for_each(|claim| memory.ring().release(claim));
}

/// Slots in which something happens when somebody looks at a slot for the n-th time.
struct Meddled<'a, F: Fn()> {
    words: &'a [AtomicU64],
    looks: std::cell::Cell<u32>,
    at: u32,
    happens: F,
}

impl<F: Fn()> Slots for Meddled<'_, F> {
    fn count(&self) -> u64 {
        self.words.len() as u64
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        if self.looks.replace(self.looks.get() + 1) == self.at {
            (self.happens)();
        }
        &self.words[index as usize]
    }
}

/// A memory's ring with other slots.
fn ring_with<S: Slots>(memory: &Memory, slots: S) -> Ring<'_, S> {
    Ring {
        tail: &memory.tail,
        head: &memory.head,
        done: &memory.done,
        orphans: &memory.orphans,
        closed: &memory.closed,
        lost: &memory.lost,
        slots,
        policy: memory.policy,
    }
}

/// Two receivers die, and a third finds that out, at each moment of a fourth one's look. It gets
/// one message now, or is told to look again, and then has both.
#[test]
fn messages_that_come_back_during_a_look_for_them_are_found() {
    for (at, close, flagged) in (0..40).flat_map(|at| {
        [(true, true), (true, false), (false, true)].map(|(close, flagged)| (at, close, flagged))
    }) {
        let memory = Memory::new(3, OnReaderDeath::Redeliver);
        memory.send(0).unwrap();
        memory.send(1).unwrap();
        let [_, _] = [(); 2].map(|()| memory.ring().claim_read(OTHER).unwrap());
        if close {
            memory.ring().close();
        }
        // Whoever recovered them last time was killed before it was done.
        memory.orphans.store(1, Ordering::Relaxed);
        let dies = || {
            for index in [0, 1] {
                assert!(memory.ring().recover(memory.held(index)));
            }
            if !flagged {
                memory.orphans.store(0, Ordering::Relaxed);
            }
        };
        let slots =
            Meddled { words: &memory.words, looks: std::cell::Cell::new(0), at, happens: dies };
        let ring = ring_with(&memory, slots);
        let mut got = Vec::new();
        match ring.claim_read(ME) {
            Ok(claim) => {
                assert!(claim.redelivered);
                got.push(memory.read(&claim));
                memory.ring().release(claim);
            }
            // Whoever is named as the owner is asked whether it is alive.
            Err(Refused::NotNow(Some(held))) => assert_eq!(held.owner(), OTHER),
            Err(Refused::NotNow(None)) => {}
            refused => panic!("at look {at}: {refused:?}"),
        }
        if ring.slots.looks.get() <= at {
            // It was done before anybody died.
            continue;
        }
        while got.len() < 2 {
            let (value, redelivered) = memory.recv_as(ME).unwrap_or_else(|refused| {
                panic!("at look {at}, close {close}, flag {flagged}: {refused:?} after {got:?}")
            });
            assert!(redelivered);
            got.push(value);
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
    }
}

/// A sender that had passed the flag publishes between a receiver's look at the slot and the seal.
#[test]
fn a_ring_is_not_at_its_end_if_a_message_came_before_the_seal() {
    for policy in POLICIES {
        let memory = Memory::new(2, policy);
        let mut late = Some(memory.ring().claim_write(OTHER).unwrap());
        let at = late.as_ref().unwrap().at;
        let seen = SlotWord::at(at, Phase::Empty, 0);
        memory.ring().close();
        memory.ring().publish(late.take().unwrap());
        assert!(matches!(memory.ring().conclude(ME, at, seen), Conclusion::LookAgain));
        assert_eq!(memory.ring().len(), 1);
    }
}

#[test]
fn what_a_receiver_itself_reads_does_not_keep_a_closed_ring_from_its_end() {
    let memory = Memory::new(2, OnReaderDeath::Redeliver);
    memory.send(7).unwrap();
    let mine = memory.ring().claim_read(ME).unwrap();
    memory.ring().close();
    assert_eq!(memory.recv_as(ME), Err(Refused::Closed));
    assert_eq!(owner_in_the_way(memory.recv_as(OTHER)), ME);
    memory.ring().release(mine);
    assert_eq!(memory.recv_as(OTHER), Err(Refused::Closed));
}

#[test]
fn only_messages_that_living_others_may_be_reading_are_read_by_others() {
    let memory = Memory::new(3, OnReaderDeath::Redeliver);
    for value in 0..3 {
        memory.send(value).unwrap();
    }
    let [dead, mine, theirs] =
        [OTHER, ME, OTHER].map(|reader| memory.ring().claim_read(reader).unwrap());
    assert!(memory.ring().recover(memory.held(dead.index())));
    let read: Vec<u64> = memory.ring().read_by_others(ME).map(|held| held.index).collect();
    assert_eq!(read, [theirs.index()]);
    let read: Vec<u64> = memory.ring().read_by_others(OTHER).map(|held| held.index).collect();
    assert_eq!(read, [mine.index()]);
}

/// A million slots, and how often somebody has looked at one.
struct Counted<'a>(&'a [AtomicU64], &'a std::cell::Cell<u64>);

impl Slots for Counted<'_> {
    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        self.1.set(self.1.get() + 1);
        &self.0[index as usize]
    }
}

/// A search for messages of dead receivers looks at what is being read, and not at every slot.
#[test]
fn a_look_for_orphans_takes_no_longer_in_a_large_ring() {
    const CAPACITY: u64 = 1 << 20;
    let looks = std::cell::Cell::new(0);
    let memory = Memory::new(CAPACITY, OnReaderDeath::Redeliver);
    let Ring { tail, head, done, orphans, closed, lost, policy, .. } = memory.ring();
    let slots = Counted(&memory.words, &looks);
    let counted = Ring { tail, head, done, orphans, closed, lost, slots, policy };
    let taken = |counted: &Ring<'_, Counted<'_>>| {
        let claim = counted.claim_write(ME).expect("room");
        counted.publish(claim);
        counted.claim_read(OTHER).expect("a message")
    };
    for _ in 0..CAPACITY + 1000 {
        let claim = taken(&counted);
        counted.release(claim);
        counted.keep_done();
    }
    let first = taken(&counted);
    let second = taken(&counted);
    looks.set(0);
    let held: Vec<ClaimedSlot> = counted.read_by_others(ME).collect();
    assert_eq!(
        held.iter().map(|held| held.index).collect::<Vec<_>>(),
        [first.index(), second.index()]
    );
    assert!(!counted.find_orphan());
    assert!(looks.get() < 16, "{} looks", looks.get());
    // One that is held for long, while a thousand others come and go.
    for _ in 0..1000 {
        let claim = taken(&counted);
        counted.release(claim);
        counted.keep_done();
    }
    assert!(counted.recover(held[0]));
    assert_eq!(counted.claim_read(ME).map(|claim| claim.redelivered), Ok(true));
    counted.release(second);
    looks.set(0);
    assert_eq!(counted.read_by_others(OTHER).count(), 1);
    assert!(looks.get() < 4 * 1000, "{} looks", looks.get());
}

/// Whatever values the words have, every operation ends, and claims only slots that exist.
#[test]
fn scribbled_words_never_lead_to_a_panic_or_an_endless_loop() {
    const PHASES: [Phase; 7] = [
        Phase::Empty,
        Phase::Writing,
        Phase::Full,
        Phase::Reading,
        Phase::Orphan,
        Phase::Sealed,
        Phase::Unknown,
    ];
    const LAPS: [u64; 9] = [0, 1, 2, 3, 4, 5, 1 << 29, LAST_LAP - 1, LAST_LAP];
    let mut random = Random(1);
    for policy in POLICIES {
        for case in 0..20_000 {
            let capacity = 1 + random.below(3);
            let memory =
                Memory::starting_at(Position::new(LAPS[random.index(9)], 0), capacity, policy);
            for word in &memory.words {
                let scribble = SlotWord::new(
                    LAPS[random.index(9)],
                    PHASES[random.index(7)],
                    random.below(3) as u32,
                );
                word.store(scribble.to_bits(), Ordering::Relaxed);
            }
            if case % 2 == 0 {
                let hint = |random: &mut Random| {
                    Position::new(LAPS[random.index(9)], random.below(5)).to_bits()
                };
                memory.tail.store(hint(&mut random), Ordering::Relaxed);
                memory.head.store(hint(&mut random), Ordering::Relaxed);
                memory.done.store(hint(&mut random), Ordering::Relaxed);
            }
            memory.orphans.store(random.below(2) as u32, Ordering::Relaxed);
            let ring = memory.ring();
            for _ in 0..3 {
                assert!(ring.len() <= capacity);
                let _ = (ring.has_message(), ring.has_space());
                if let Ok(claim) = ring.claim_write(ME) {
                    assert!(claim.index() < capacity);
                    ring.publish(claim);
                }
                if let Ok(claim) = ring.claim_read(ME) {
                    assert!(claim.index() < capacity);
                    ring.release(claim);
                }
                ring.recover_all(random.below(3) as u32);
            }
            ring.close();
            for _ in 0..3 {
                if let Ok(claim) = ring.claim_read(ME) {
                    assert!(claim.index() < capacity);
                }
            }
        }
    }
}

/// Xorshift: enough to shuffle operations.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}

/// The state of one position in the naive twin.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Writing(Claim, u32),
    Full(u64),
    Reading(Claim, u32, u64),
    Orphan(u64),
    /// Released, aborted or dropped: the slot is free for the position one lap on.
    Done,
}

/// The naive twin: every position there ever was, in a vector.
struct Twin {
    memory: Memory,
    first_lap: u64,
    capacity: u64,
    fates: Vec<Fate>,
    lost: u64,
}

impl Twin {
    /// The first position whose message nobody has taken yet.
    fn front(&self) -> usize {
        let passed = |fate: &Fate| matches!(fate, Fate::Reading(..) | Fate::Orphan(_) | Fate::Done);
        self.fates.iter().position(|fate| !passed(fate)).unwrap_or(self.fates.len())
    }

    /// What stands in the way of the next sender.
    fn predecessor(&self) -> &Fate {
        self.fates
            .len()
            .checked_sub(self.capacity as usize)
            .map_or(&Fate::Done, |last| &self.fates[last])
    }

    fn hint(&self, position: usize) -> u64 {
        let position = position as u64;
        Position::new(
            self.first_lap.wrapping_add(position / self.capacity),
            position % self.capacity,
        )
        .to_bits()
    }

    fn check(&self) {
        let ring = self.memory.ring();
        let front = self.front();
        assert_eq!(ring.len(), (self.fates.len() - front) as u64);
        assert_eq!(ring.has_space(), *self.predecessor() == Fate::Done);
        let message = matches!(self.fates.get(front), Some(Fate::Full(_)));
        assert_eq!(ring.has_message(), message || self.memory.orphans.load(Ordering::Relaxed) != 0);
        assert_eq!(self.memory.lost.load(Ordering::Relaxed), self.lost);
        if ring.policy == OnReaderDeath::Redeliver {
            let read = |fate: &Fate| matches!(fate, Fate::Reading(..) | Fate::Orphan(_));
            let expected: Vec<u64> = (0..self.fates.len())
                .filter(|&at| read(&self.fates[at]))
                .map(|at| at as u64 % self.capacity)
                .collect();
            assert_eq!(ring.being_read().map(|(index, _)| index).collect::<Vec<_>>(), expected);
        }
    }

    fn claim_write(&mut self, me: u32) {
        let ring = self.memory.ring();
        let claim = ring.claim_write_at_hint(me).map_or_else(|| ring.claim_write(me), Ok);
        match self.predecessor() {
            Fate::Done => {
                let claim = claim.unwrap();
                assert_eq!(claim.index(), self.fates.len() as u64 % self.capacity);
                self.fates.push(Fate::Writing(claim, me));
            }
            Fate::Writing(_, owner) | Fate::Reading(_, owner, _) => {
                assert_eq!(owner_in_the_way(claim), *owner)
            }
            Fate::Full(_) => assert_eq!(claim, Err(Refused::NotNow(None))),
            Fate::Orphan(_) => {
                assert_eq!(claim, Err(Refused::NotNow(None)));
                assert_eq!(
                    self.memory.orphans.load(Ordering::Relaxed),
                    1,
                    "nobody will look for the orphan"
                );
            }
        }
    }

    fn claim_read(&mut self, me: u32) {
        let flagged = self.memory.orphans.load(Ordering::Relaxed) != 0;
        let orphans = self.fates.iter().any(|fate| matches!(fate, Fate::Orphan(_)));
        let ring = self.memory.ring();
        let claim = ring.claim_read_at_hint(me).map_or_else(|| ring.claim_read(me), Ok);
        if flagged && orphans {
            let claim = claim.unwrap();
            assert!(claim.redelivered);
            let is_it = |(at, fate): (usize, &Fate)| {
                matches!(fate, Fate::Orphan(_)) && at as u64 % self.capacity == claim.index()
            };
            let at = self.fates.iter().enumerate().position(is_it).expect("an orphan in this slot");
            let Fate::Orphan(value) = self.fates[at] else { unreachable!() };
            assert_eq!(self.memory.read(&claim), value);
            self.fates[at] = Fate::Reading(claim, me, value);
            return;
        }
        let front = self.front();
        match self.fates.get(front) {
            Some(&Fate::Full(value)) => {
                let claim = claim.unwrap();
                assert!(!claim.redelivered);
                assert_eq!(self.memory.read(&claim), value);
                self.fates[front] = Fate::Reading(claim, me, value);
            }
            Some(&Fate::Writing(_, owner)) => assert_eq!(owner_in_the_way(claim), owner),
            _ => assert_eq!(claim, Err(Refused::NotNow(None))),
        }
    }

    /// A random claim of those that are open.
    fn open(&self, random: &mut Random, is_it: impl Fn(&Fate) -> bool) -> Option<usize> {
        let open: Vec<usize> = (0..self.fates.len()).filter(|&at| is_it(&self.fates[at])).collect();
        (!open.is_empty()).then(|| open[random.index(open.len())])
    }

    fn is_writing(fate: &Fate) -> bool {
        matches!(fate, Fate::Writing(..))
    }

    fn is_reading(fate: &Fate) -> bool {
        matches!(fate, Fate::Reading(..))
    }

    fn publish(&mut self, at: usize, value: u64) {
        let Fate::Writing(claim, _) = std::mem::replace(&mut self.fates[at], Fate::Done) else {
            unreachable!()
        };
        self.memory.write(&claim, value);
        self.memory.ring().publish(claim);
        self.fates[at] = Fate::Full(value);
    }

    fn release(&mut self, at: usize) {
        let fate = std::mem::replace(&mut self.fates[at], Fate::Done);
        let (Fate::Writing(claim, _) | Fate::Reading(claim, ..)) = fate else { unreachable!() };
        self.memory.ring().release(claim);
    }

    fn kill(&mut self, dead: u32) {
        let mut any = false;
        for fate in &mut self.fates {
            let after = match fate {
                Fate::Writing(_, owner) if *owner == dead => Fate::Done,
                Fate::Reading(_, owner, value) if *owner == dead => match self.memory.policy {
                    OnReaderDeath::Drop => {
                        self.lost += 1;
                        Fate::Done
                    }
                    OnReaderDeath::Redeliver => Fate::Orphan(*value),
                },
                _ => continue,
            };
            *fate = after;
            any = true;
        }
        assert_eq!(self.memory.ring().recover_all(dead), any);
    }

    /// Finishes what is open, closes, and reads to the end.
    fn finish(mut self) {
        while let Some(at) = self.fates.iter().position(Self::is_writing) {
            self.publish(at, 1);
        }
        while let Some(at) = self.fates.iter().position(Self::is_reading) {
            self.release(at);
        }
        self.memory.ring().close();
        for _ in 0..2 * self.capacity + 2 {
            let front = self.front();
            match self.memory.ring().claim_read(ME) {
                Ok(claim) if claim.redelivered => {
                    let orphan = |(at, fate): (usize, &Fate)| {
                        matches!(fate, Fate::Orphan(_))
                            && at as u64 % self.capacity == claim.index()
                    };
                    let at = self
                        .fates
                        .iter()
                        .enumerate()
                        .position(orphan)
                        .expect("an orphan in this slot");
                    self.fates[at] = Fate::Done;
                    self.memory.ring().release(claim);
                }
                Ok(claim) => {
                    assert_eq!(self.fates[front], Fate::Full(self.memory.read(&claim)));
                    self.fates[front] = Fate::Done;
                    self.memory.ring().release(claim);
                }
                Err(Refused::NotNow(None)) => {
                    assert_eq!(
                        self.memory.orphans.load(Ordering::Relaxed),
                        1,
                        "only an orphan is a reason to look again"
                    );
                }
                Err(Refused::Closed) => {
                    assert!(self.fates.iter().all(|fate| *fate == Fate::Done), "ended too early");
                    return;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("a closed ring without an end");
    }
}

#[test]
fn random_operations_do_what_the_naive_twin_does() {
    for seed in 1..=400u64 {
        let mut random = Random(seed << 32 | 1);
        let capacity = CAPACITIES[random.index(5)];
        let first_lap = LAST_LAP - random.below(4);
        let memory =
            Memory::starting_at(Position::new(first_lap, 0), capacity, POLICIES[random.index(2)]);
        let mut twin = Twin { memory, first_lap, capacity, fates: Vec::new(), lost: 0 };
        let tidy = random.below(2) == 0;
        for value in 0..300 {
            let peer = 1 + random.below(3) as u32;
            match random.below(if tidy { 14 } else { 20 }) {
                0..=3 => twin.claim_write(peer),
                4..=6 => {
                    if let Some(at) = twin.open(&mut random, Twin::is_writing) {
                        twin.publish(at, value);
                    }
                }
                7..=10 => twin.claim_read(peer),
                11..=13 => {
                    if let Some(at) = twin.open(&mut random, Twin::is_reading) {
                        twin.release(at);
                    }
                }
                14 => {
                    if let Some(at) = twin.open(&mut random, Twin::is_writing) {
                        twin.release(at);
                    }
                }
                15 => twin.kill(peer),
                16 | 17 => {
                    let lag = random.index(twin.fates.len() + 1);
                    twin.memory.tail.store(twin.hint(lag), Ordering::Relaxed);
                    let done = twin.fates.iter().take_while(|fate| **fate == Fate::Done).count();
                    let done = random.index(done + 1);
                    twin.memory.done.store(twin.hint(done), Ordering::Relaxed);
                }
                18 => {
                    let lag = random.index(twin.front() + 1);
                    twin.memory.head.store(twin.hint(lag), Ordering::Relaxed);
                }
                _ => twin.memory.orphans.store(random.below(2) as u32, Ordering::Relaxed),
            }
            twin.check();
        }
        twin.finish();
    }
}

#[test]
fn threads_get_every_message_once_and_each_senders_in_order() {
    const MESSAGES: u64 = if cfg!(miri) { 50 } else { 20_000 };
    for capacity in [1, 2, 7] {
        let memory =
            &Memory::starting_at(Position::new(LAST_LAP - 100, 0), capacity, OnReaderDeath::Drop);
        let send = |me: u32| {
            for number in 0..MESSAGES {
                while let Err(refused) = memory.send_as(me, u64::from(me) << 32 | number) {
                    assert!(matches!(refused, Refused::NotNow(_)), "{refused:?}");
                    std::thread::yield_now();
                }
            }
        };
        let receive = |me: u32| {
            let mut received = Vec::new();
            loop {
                match memory.recv_as(me) {
                    Ok((message, _)) => received.push(message),
                    Err(Refused::NotNow(_)) => std::thread::yield_now(),
                    Err(Refused::Closed) => return received,
                    Err(Refused::Corrupt) => panic!("corrupt"),
                }
            }
        };
        let received = std::thread::scope(|scope| {
            let receivers = [3, 4].map(|me| scope.spawn(move || receive(me)));
            let senders = [1, 2].map(|me| scope.spawn(move || send(me)));
            for sender in senders {
                sender.join().unwrap();
            }
            memory.ring().close();
            receivers.map(|receiver| receiver.join().unwrap())
        });
        for messages in &received {
            for sender in [1, 2] {
                let numbers: Vec<u64> =
                    messages.iter().copied().filter(|message| message >> 32 == sender).collect();
                assert!(numbers.is_sorted(), "out of order");
            }
        }
        let mut all = received.concat();
        all.sort_unstable();
        let expected: Vec<u64> =
            [1, 2].into_iter().flat_map(|me| (0..MESSAGES).map(move |n| me << 32 | n)).collect();
        assert_eq!(all, expected);
    }
}
