//! The ring over words on the heap: step by step, against a naive twin, and with threads.

use std::collections::VecDeque;

use super::*;

const CAPACITIES: [u64; 5] = [1, 2, 3, 5, 8];

/// What a segment would hold.
struct Memory {
    tail: AtomicU64,
    head: AtomicU64,
    payloads: Vec<AtomicU64>,
}

impl Memory {
    fn new(capacity: u64) -> Memory {
        Memory::starting_at(0, capacity)
    }

    /// A ring through which `start` messages have passed.
    fn starting_at(start: u64, capacity: u64) -> Memory {
        Memory {
            tail: AtomicU64::new(start),
            head: AtomicU64::new(start),
            payloads: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
        }
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

    /// False if there is no room.
    fn send(&self, side: &mut Side, value: u64) -> bool {
        if free_slots(side, &self.head, 1).unwrap() == 0 {
            return false;
        }
        self.payloads[side.slot() as usize].store(value, Ordering::Relaxed);
        side.turn().unwrap().publish(&self.tail);
        true
    }

    fn recv(&self, side: &mut Side) -> Option<u64> {
        if messages(side, &self.tail, 1).unwrap() == 0 {
            return None;
        }
        let value = self.payloads[side.slot() as usize].load(Ordering::Relaxed);
        side.turn().unwrap().release(&self.head);
        Some(value)
    }
}

#[test]
fn exactly_as_many_messages_as_slots_fit_and_come_out_in_order() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity);
        let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
        for round in 0..5 {
            assert_eq!(memory.recv(&mut receiver), None);
            for value in 0..capacity {
                assert!(memory.send(&mut sender, round * 100 + value));
            }
            assert!(!memory.send(&mut sender, 77));
            for value in 0..capacity {
                assert_eq!(memory.recv(&mut receiver), Some(round * 100 + value));
            }
        }
    }
}

#[test]
fn the_slot_is_the_count_modulo_the_capacity() {
    for capacity in CAPACITIES {
        let memory = Memory::starting_at(1_000_003, capacity);
        let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
        for count in 1_000_003..1_000_003 + 4 * capacity {
            assert_eq!((sender.slot(), receiver.slot()), (count % capacity, count % capacity));
            assert!(memory.send(&mut sender, count));
            assert_eq!(memory.recv(&mut receiver), Some(count));
        }
    }
}

#[test]
fn a_side_has_turns_for_what_it_knows_to_be_its_own() {
    let memory = Memory::new(5);
    let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
    for round in 0..7 {
        assert_eq!(free_slots(&mut sender, &memory.head, 5), Ok(5));
        for _ in 0..3 {
            sender.turn().unwrap().publish(&memory.tail);
        }
        assert_eq!(memory.tail.load(Ordering::Relaxed), 3 * (round + 1));
        assert_eq!(free_slots(&mut sender, &memory.head, 5), Ok(2));
        assert!(receiver.turn().is_none());
        assert_eq!(messages(&mut receiver, &memory.tail, 5), Ok(3));
        for _ in 0..3 {
            receiver.turn().unwrap().release(&memory.head);
        }
        assert_eq!(memory.head.load(Ordering::Relaxed), 3 * (round + 1));
        assert!(receiver.turn().is_none());
        assert_eq!(messages(&mut receiver, &memory.tail, 5), Ok(0));
    }
    assert!({ Side::NONE }.turn().is_none());
}

#[test]
fn the_other_word_is_loaded_only_when_the_remembered_one_runs_out() {
    let memory = Memory::new(4);
    let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
    assert!(memory.send(&mut sender, 1));
    assert!(memory.send(&mut sender, 2));
    assert_eq!(messages(&mut receiver, &memory.tail, 1), Ok(2));
    assert!(memory.send(&mut sender, 3));
    assert_eq!(messages(&mut receiver, &memory.tail, 2), Ok(2), "two were known to be there");
    assert_eq!(messages(&mut receiver, &memory.tail, 3), Ok(3));
}

#[test]
fn a_successor_goes_on_where_the_dead_left_off() {
    for capacity in CAPACITIES {
        let memory = Memory::new(capacity);
        let mut sender = memory.sender();
        for value in 0..capacity {
            assert!(memory.send(&mut sender, value));
        }
        // Killed after it had written and before it published: nothing was sent.
        memory.recv(&mut memory.receiver()).unwrap();
        let killed = memory.sender();
        memory.payloads[killed.slot() as usize].store(99, Ordering::Relaxed);
        assert!(memory.send(&mut memory.sender(), capacity));
        // Killed after it had read and before it released: the successor gets the message again.
        let killed = memory.receiver();
        assert_eq!(memory.payloads[killed.slot() as usize].load(Ordering::Relaxed), 1);
        let mut receiver = memory.receiver();
        for value in 1..=capacity {
            assert_eq!(memory.recv(&mut receiver), Some(value));
        }
        assert_eq!(memory.recv(&mut receiver), None);
    }
}

#[test]
fn words_that_do_not_belong_together_are_corrupt() {
    for capacity in CAPACITIES {
        for (tail, head) in
            [(capacity + 1, 0), (0, 1), (u64::MAX, 0), (5, 6), (5, 6 + capacity), (1 << 63, 0)]
        {
            let memory = Memory::new(capacity);
            let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
            memory.tail.store(tail, Ordering::Relaxed);
            memory.head.store(head, Ordering::Relaxed);
            assert_eq!(resume_sender(&memory.tail, &memory.head, capacity).err(), Some(Corrupt));
            assert_eq!(resume_receiver(&memory.tail, &memory.head, capacity).err(), Some(Corrupt));
            // A side sees only the other's word, and cannot find that the other has passed it.
            if head != 0 {
                assert_eq!(free_slots(&mut sender, &memory.head, capacity + 1), Err(Corrupt));
            }
            if tail > capacity {
                assert_eq!(messages(&mut receiver, &memory.tail, 1), Err(Corrupt));
            }
        }
    }
}

#[test]
fn a_side_that_met_corruption_is_as_it_was() {
    let memory = Memory::new(2);
    let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
    assert!(memory.send(&mut sender, 1));
    memory.tail.store(1000, Ordering::Relaxed);
    assert_eq!(messages(&mut receiver, &memory.tail, 1), Err(Corrupt));
    memory.tail.store(1, Ordering::Relaxed);
    assert_eq!(memory.recv(&mut receiver), Some(1));
    assert!(memory.send(&mut sender, 2) && memory.send(&mut sender, 3));
    memory.head.store(1000, Ordering::Relaxed);
    assert_eq!(free_slots(&mut sender, &memory.head, 1), Err(Corrupt));
    memory.head.store(2, Ordering::Relaxed);
    assert_eq!(free_slots(&mut sender, &memory.head, 1), Ok(1));
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
}

#[test]
fn random_operations_do_what_the_naive_twin_does() {
    for seed in 1..=200 {
        let mut random = Random(seed << 32 | 1);
        let capacity = CAPACITIES[random.below(5) as usize];
        let memory = Memory::starting_at(random.below(1 << 50), capacity);
        let (mut sender, mut receiver) = (memory.sender(), memory.receiver());
        let mut twin = VecDeque::new();
        for value in 0..500 {
            match random.below(6) {
                0 => assert_eq!(memory.send(&mut sender, value), {
                    let room = (twin.len() as u64) < capacity;
                    if room {
                        twin.push_back(value);
                    }
                    room
                }),
                1 => assert_eq!(memory.recv(&mut receiver), twin.pop_front()),
                2 => {
                    // A few at once, all that fit of them.
                    let wanted = 1 + random.below(capacity);
                    let free = free_slots(&mut sender, &memory.head, wanted).unwrap();
                    assert!(
                        free <= capacity - twin.len() as u64
                            && free >= wanted.min(capacity - twin.len() as u64)
                    );
                    let count = free.min(wanted);
                    for at in 0..count {
                        let turn = sender.turn().unwrap();
                        let payload = &memory.payloads[turn.slot() as usize];
                        payload.store(value + 1000 * at, Ordering::Relaxed);
                        turn.publish(&memory.tail);
                        twin.push_back(value + 1000 * at);
                    }
                }
                3 => {
                    let wanted = 1 + random.below(capacity);
                    let ready = messages(&mut receiver, &memory.tail, wanted).unwrap();
                    assert!(ready <= twin.len() as u64 && ready >= wanted.min(twin.len() as u64));
                    let count = ready.min(wanted);
                    for _ in 0..count {
                        let turn = receiver.turn().unwrap();
                        let value = memory.payloads[turn.slot() as usize].load(Ordering::Relaxed);
                        turn.release(&memory.head);
                        assert_eq!(Some(value), twin.pop_front());
                    }
                }
                4 => sender = memory.sender(),
                _ => receiver = memory.receiver(),
            }
        }
        while let Some(value) = memory.recv(&mut receiver) {
            assert_eq!(Some(value), twin.pop_front());
        }
        assert!(twin.is_empty());
    }
}

#[test]
fn threads_pass_every_message_in_order() {
    const MESSAGES: u64 = if cfg!(miri) { 100 } else { 100_000 };
    for capacity in [1, 2, 7] {
        let memory = &Memory::new(capacity);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut side = memory.sender();
                for value in 0..MESSAGES {
                    while !memory.send(&mut side, value) {
                        std::thread::yield_now();
                    }
                }
            });
            let mut side = memory.receiver();
            for expected in 0..MESSAGES {
                let value = loop {
                    match memory.recv(&mut side) {
                        Some(value) => break value,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(value, expected);
            }
        });
    }
}
