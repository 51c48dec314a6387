//! Messages of any length between processes: each arrives whole and once, whatever becomes of who
//! sent or received it, and leaves no memory behind.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use offspring::{
    ByteQueue, Child, CreateError, EncodeError, Handle, Message, ObjectQueue, OnReceiverDeath,
    Queue, QueueOptions, RecvError, Segment, SendError, TryRecvError, TrySendError,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::common::blocks::{self, in_use};
use crate::common::raw::{self, Board, Ended};
use crate::common::{self, fork, sandbox};
use crate::harness::{apply, test};
use crate::role::{self, role};
use crate::victims::{child_that, kill};

const MIB: usize = 1 << 20;
/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the shortest message that says which one it is.
const SHORTEST: usize = 24;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A length for each way in which a message may lie: in its slot, in a block of a part of a
    /// page, of some pages, and of many that are kept or not.
    fn len(&mut self) -> usize {
        let most = match self.below(16) {
            0..5 => 240,
            5..9 => 4096,
            9..13 => 100_000,
            13..15 => 300_000,
            _ => 2 * MIB as u64,
        };
        SHORTEST + self.below(most - SHORTEST as u64 + 1) as usize
    }
}

/// Makes this the message with this number: the number, bytes that only this message has, and a
/// hash of all before it.
fn fill(bytes: &mut [u8], number: u64) {
    let body = bytes.len() - 8;
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for part in bytes[8..body].chunks_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]);
    }
    let hash = xxh3_64(&bytes[..body]);
    bytes[body..].copy_from_slice(&hash.to_le_bytes());
}

fn message(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, number);
    bytes
}

/// The number of a message that is whole.
fn number(bytes: &[u8]) -> Option<u64> {
    let (body, hash) = bytes.split_last_chunk::<8>()?;
    let whole = xxh3_64(body) == u64::from_le_bytes(*hash);
    whole.then(|| body.first_chunk().map(|number| u64::from_le_bytes(*number)))?
}

fn segment(mib: u64) -> Segment {
    Segment::create(mib << 20).expect("a segment")
}

fn queue_in(segment: &Segment, capacity: usize) -> ByteQueue {
    ByteQueue::with_capacity_in(segment, capacity).expect("a queue")
}

/// A child that has the first message and keeps it.
fn reader_of(queue: &ByteQueue) -> Child<()> {
    let theirs = queue.clone();
    child_that(move |ready| {
        let message = theirs.recv_timeout(LIMIT).expect("a message");
        assert!(number(&message).is_some(), "torn");
        ready.send(0).expect("open");
        common::sleep_for_ever();
    })
}

/// Gives back what the dead have left, and says how many blocks are in use.
fn after_reaping(segment: &Segment) -> usize {
    segment.reap().expect("attached");
    in_use(segment)
}

#[apply(test)]
fn messages_of_every_length_go_both_ways() {
    let segment = segment(64);
    let (there, back) = (queue_in(&segment, 4), queue_in(&segment, 4));
    let (theirs, their_back) = (there.clone(), back.clone());
    let child = fork(move || {
        for message in &theirs {
            // As it lies there, straight into a message of the child's own.
            their_back.send_from(&mut &*message, message.len()).expect("room");
        }
    });
    let around = |len: usize| len.saturating_sub(2)..len + 3;
    let lens = (0..200)
        .chain(around(256))
        .chain(around(4096))
        .chain(around(65_536))
        .chain(around(MIB))
        .chain([3 * MIB + 7, 6 * MIB]);
    let mut buffer = Vec::new();
    for len in lens {
        let bytes: Vec<u8> =
            if len < SHORTEST { (0..len as u8).collect() } else { message(len as u64, len) };
        there.send_timeout(&bytes, LIMIT).expect("room");
        let answer = back.recv_timeout(LIMIT).expect("an answer");
        assert!(*answer == *bytes && !answer.redelivered(), "{len} bytes");
        drop(answer);
        there.send_timeout(&bytes, LIMIT).expect("room");
        assert_eq!(back.recv_into(&mut buffer), Ok(len));
        assert!(buffer == bytes, "{len} bytes");
    }
    there.close();
    child.expect("fork").join().expect("no panic");
    assert_eq!(in_use(&segment), 2, "the queues");
    drop((there, back));
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn many_send_to_many_and_each_message_is_received_once() {
    const SENDERS: u64 = 3;
    const EACH: u64 = 200;
    let segment = segment(64);
    let queue = queue_in(&segment, 5);
    let senders: Vec<Child<()>> = (0..SENDERS)
        .map(|sender| {
            let theirs = queue.clone();
            let work = move || {
                let mut random = Random(sender + 77);
                for own in 0..EACH {
                    let (number, len) = (sender * EACH + own, random.len());
                    if random.below(2) == 0 {
                        theirs.send_timeout(&message(number, len), LIMIT).expect("room");
                    } else {
                        let mut loan = theirs.loan(len).expect("room");
                        fill(&mut loan, number);
                        loan.send_timeout(LIMIT).expect("room");
                    }
                }
            };
            fork(work).expect("fork")
        })
        .collect();
    let receivers: Vec<Child<Vec<u64>>> = (0..3)
        .map(|_| {
            let theirs = queue.clone();
            let work = move || {
                let mut last = HashMap::new();
                theirs
                    .iter()
                    .map(|message| {
                        let number = number(&message).expect("whole");
                        let before = last.insert(number / EACH, number);
                        assert!(before.is_none_or(|before| before < number), "out of order");
                        number
                    })
                    .collect()
            };
            fork(work).expect("fork")
        })
        .collect();
    senders.into_iter().for_each(|child| child.join().expect("no panic"));
    queue.close();
    let mut received: Vec<u64> =
        receivers.into_iter().flat_map(|child| child.join().expect("no panic")).collect();
    received.sort_unstable();
    assert_eq!(received, (0..SENDERS * EACH).collect::<Vec<_>>());
    assert_eq!((in_use(&segment), queue.lost()), (1, 0));
}

#[apply(test)]
fn what_a_sender_has_sent_is_there_after_its_exit() {
    let segment = segment(256);
    let queue = queue_in(&segment, 16);
    let theirs = queue.clone();
    let child = fork(move || {
        for number in 0..10 {
            let mut loan = theirs.loan(10 * MIB).expect("room");
            fill(&mut loan, number);
            loan.send().expect("room");
        }
    });
    child.expect("fork").join().expect("no panic");
    assert_eq!((segment.reap(), in_use(&segment)), (Ok(0), 11));
    for expected in 0..10 {
        let message = queue.try_recv().expect("it was sent");
        assert_eq!((message.len(), number(&message)), (10 * MIB, Some(expected)));
    }
    assert_eq!((in_use(&segment), queue.lost()), (1, 0));
}

#[apply(test)]
fn a_message_of_a_killed_receiver_is_lost_and_its_memory_is_not() {
    let segment = segment(8);
    let queue = queue_in(&segment, 2);
    queue.send(&message(1, MIB)).expect("room");
    queue.send(&message(2, MIB)).expect("room");
    let reader = reader_of(&queue);
    kill(&reader);
    assert_eq!(number(&queue.recv_timeout(LIMIT).expect("the next")), Some(2));
    assert!(reader.join().is_err());
    assert_eq!((queue.lost(), in_use(&segment)), (1, 1));
}

#[apply(test)]
fn a_message_of_a_killed_receiver_is_delivered_again_whole() {
    let segment = segment(8);
    let mut options = QueueOptions::new();
    options.capacity(2).on_receiver_death(OnReceiverDeath::Redeliver);
    let queue = options.create_bytes_in(&segment).expect("a queue");
    queue.send(&message(1, MIB)).expect("room");
    // Twice, and the memory of it must stay while reapers come by.
    for _ in 0..2 {
        let reader = reader_of(&queue);
        kill(&reader);
        assert!(reader.join().is_err());
        assert_eq!(after_reaping(&segment), 2);
    }
    let again = queue.recv_timeout(LIMIT).expect("it came back");
    assert_eq!((number(&again), again.redelivered()), (Some(1), true));
    drop(again);
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!((queue.lost(), in_use(&segment)), (0, 1));
}

/// What senders and receivers note of each message, in a file: what was written there stays,
/// whoever is killed. Two bytes for each: how far the sender is, and how often it was received.
struct Ledger(File);

impl Ledger {
    const BEGUN: u8 = 1;
    const SENT: u8 = 2;
    /// Numbers that one sender has.
    const EACH: u64 = 1 << 20;

    fn new() -> Ledger {
        Ledger(tempfile::tempfile().expect("a file"))
    }

    fn get(&self, place: u64) -> u8 {
        let mut byte = [0];
        // Nothing is there yet behind the end.
        if self.0.read_at(&mut byte, place).expect("readable") == 0 { 0 } else { byte[0] }
    }

    fn note(&self, number: u64, how: u8) {
        self.0.write_all_at(&[how], 2 * number).expect("writable");
    }

    /// Notes that it was received; how often it was before.
    fn receive(&self, number: u64) -> u8 {
        let before = self.get(2 * number + 1);
        self.0.write_all_at(&[before.saturating_add(1)], 2 * number + 1).expect("writable");
        before
    }
}

/// Sends whatever can be sent until it is killed or told to stop.
fn send_in_storm(queue: &ByteQueue, ledger: &Ledger, sender: u64, stop: Board) {
    let mut random = Random(sender.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut number = sender * Ledger::EACH;
    while stop.get(0) == 0 {
        let len = random.len();
        let Ok(mut loan) = queue.loan(len) else {
            // Others have the memory: this one was not sent.
            std::thread::yield_now();
            continue;
        };
        if random.below(16) == 0 {
            continue;
        }
        fill(&mut loan, number);
        ledger.note(number, Ledger::BEGUN);
        if random.below(2) == 0 {
            drop(loan);
            match queue.send(&message(number, len)) {
                Ok(()) => ledger.note(number, Ledger::SENT),
                Err(SendError::Rejected(..)) => ledger.note(number, 0),
                Err(error) => panic!("{error}"),
            }
        } else {
            loan.send().expect("open");
            ledger.note(number, Ledger::SENT);
        }
        number += 1;
    }
}

fn note(message: &Message<'_>, ledger: &Ledger) {
    let number = number(message).expect("torn");
    let before = ledger.receive(number);
    assert!(before == 0 || message.redelivered(), "message {number} came twice");
}

fn receive_in_storm(queue: &ByteQueue, ledger: &Ledger) {
    for (turn, message) in queue.iter().enumerate() {
        note(&message, ledger);
        // Received, noted, and not done with: a kill here has it come again, or counts it.
        if turn % 4 == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Senders and receivers are killed at random, and each is replaced.
fn storm(policy: OnReceiverDeath) {
    const TIME: Duration = Duration::from_secs(4);
    let segment = segment(16);
    let mut options = QueueOptions::new();
    let queue = options.capacity(6).on_receiver_death(policy).create_bytes_in(&segment);
    let queue = queue.expect("a queue");
    let ledger = Ledger::new();
    let stop = Board::new();
    let mut senders = 0;
    let mut start = |sends: bool| {
        let theirs = queue.clone();
        let ledger = Ledger(ledger.0.try_clone().expect("a descriptor"));
        let sender = senders;
        senders += u64::from(sends);
        let work = move || match sends {
            true => send_in_storm(&theirs, &ledger, sender, stop),
            false => receive_in_storm(&theirs, &ledger),
        };
        fork(work).expect("fork")
    };
    let mut random = Random(Instant::now().elapsed().as_nanos() as u64 | 0x5eed << 20 | 1);
    let mut crew: Vec<(bool, Child<()>)> =
        [true, true, false, false].map(|sends| (sends, start(sends))).into();
    let mut corpses = Vec::new();
    let (mut kills, mut readers_killed) = (0, 0);
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
        let (sends, victim) = crew.swap_remove(random.below(crew.len() as u64) as usize);
        victim.kill().expect("kill");
        kills += 1;
        readers_killed += u64::from(!sends);
        crew.push((sends, start(sends)));
        // Joining clears up after the dead. Mostly the others are to find out by themselves.
        corpses.push(victim);
        if corpses.len() > 6 {
            assert!(corpses.remove(0).join().is_err());
        }
    }
    stop.set(0, 1);
    // First those that send: they may need somebody who receives.
    crew.sort_by_key(|&(sends, _)| !sends);
    for (sends, mut child) in crew {
        if !sends {
            queue.close();
        }
        let ended = child.join_timeout(LIMIT);
        ended.expect("it comes to its end").expect("nothing torn, nothing twice");
    }
    for corpse in corpses {
        assert!(corpse.join().is_err());
    }
    receive_in_storm(&queue, &ledger);
    let (mut sent, mut missing, mut twice) = (0, 0, 0);
    for sender in 0..senders {
        for number in sender * Ledger::EACH.. {
            match ledger.get(2 * number) {
                Ledger::SENT => {
                    sent += 1;
                    missing += u64::from(ledger.get(2 * number + 1) == 0);
                    twice += u64::from(ledger.get(2 * number + 1) > 1);
                }
                // The last one of one that was killed, or one for which there was no memory.
                Ledger::BEGUN => {}
                _ if ledger.get(2 * number + 2) == 0 => break,
                _ => assert_eq!(ledger.get(2 * number + 1), 0, "received and never sent"),
            }
        }
    }
    let lost = queue.lost();
    println!(
        "{sent} sent, {kills} kills, {readers_killed} of receivers, {lost} lost, {twice} again"
    );
    assert!(sent > 0 && readers_killed > 0);
    match policy {
        // Whoever recovers may be killed just before it counts.
        OnReceiverDeath::Drop => {
            assert!(missing <= lost + 1, "{missing} missing, {lost} lost");
            assert!(lost <= readers_killed, "{lost} lost, {readers_killed} receivers killed");
            assert_eq!(twice, 0);
        }
        OnReceiverDeath::Redeliver => assert_eq!((missing, lost), (0, 0)),
    }
    assert_eq!(after_reaping(&segment), 1, "{:?}", blocks::blocks(&segment));
    drop(queue);
    assert_eq!(in_use(&segment), 0);
}

#[apply(test)]
fn a_storm_that_drops_loses_what_dead_receivers_had() {
    storm(OnReceiverDeath::Drop);
}

#[apply(test)]
fn a_storm_that_delivers_again_loses_nothing() {
    storm(OnReceiverDeath::Redeliver);
}

/// A child that loans, gives up, sends and receives until it is killed.
fn use_all_for_ever(queue: &ByteQueue, seed: u64) {
    let mut random = Random(seed);
    loop {
        let len = random.len();
        match random.below(4) {
            0 => drop(queue.loan(len)),
            1 => {
                if let Ok(mut loan) = queue.loan(len) {
                    loan.last_mut().into_iter().for_each(|byte| *byte = 1);
                    let _ = loan.try_send();
                }
            }
            2 => drop(queue.try_send(&vec![7; len])),
            _ => drop(queue.try_recv()),
        }
    }
}

#[apply(test)]
fn children_killed_anywhere_leave_no_block() {
    const MOST: u64 = 1000;
    const TIME: Duration = Duration::from_secs(20);
    let segment = segment(16);
    let queues = [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver].map(|policy| {
        let mut options = QueueOptions::new();
        let queue = options.capacity(3).on_receiver_death(policy).create_bytes_in(&segment);
        queue.expect("a queue")
    });
    let end = Instant::now() + TIME;
    let mut random = Random(Instant::now().elapsed().as_nanos() as u64 | 0xdead << 24 | 1);
    let mut killed = 0;
    while killed < MOST && Instant::now() < end {
        let theirs = queues[killed as usize % 2].clone();
        let seed = random.next() | 1;
        let child: Child<()> = fork(move || use_all_for_ever(&theirs, seed)).expect("fork");
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        child.kill().expect("kill");
        assert!(child.join().is_err());
        killed += 1;
        if killed % 50 == 0 {
            for queue in &queues {
                while queue.recv_timeout(Duration::from_millis(50)).is_ok() {}
            }
            assert_eq!(after_reaping(&segment), 2, "{:?}", blocks::blocks(&segment));
        }
    }
    drop(queues);
    assert_eq!(after_reaping(&segment), 0, "{:?}", blocks::blocks(&segment));
    // Some is kept for messages to come; but nothing that no block knows of.
    let (pages, claimed) = (blocks::in_memory(&segment), blocks::claimed(&segment));
    println!("{killed} children killed, {pages} bytes have pages, {claimed} of them in blocks");
    assert!(claimed <= 8 * MIB as u64, "{claimed} bytes are kept, and nothing is in use");
    assert!(pages <= claimed + MIB as u64 / 2, "{pages} bytes have pages, {claimed} are known");
}

/// The last process that has a queue is killed, and with it go the messages.
#[apply(test)]
fn messages_in_a_queue_that_nobody_has_any_more_leave_no_block() {
    let segment = segment(16);
    for round in 0..20 {
        let theirs = segment.clone();
        let child = child_that(move |ready| {
            let queue = queue_in(&theirs, 8);
            for len in [10, 500, 70_000, MIB] {
                queue.send(&vec![1; len]).expect("room");
            }
            let _loan = queue.loan(300_000).expect("room");
            let _message = queue.recv().expect("a message");
            ready.send(0).expect("open");
            if round % 2 == 0 {
                common::sleep_for_ever();
            }
        });
        if round % 2 == 0 {
            kill(&child);
        }
        assert_eq!(child.join().is_ok(), round % 2 == 1);
        assert_eq!(after_reaping(&segment), 0, "{:?}", blocks::blocks(&segment));
    }
}

/// Two processes give up the last handles of a queue at the same moment.
#[apply(test)]
fn a_queue_that_all_leave_at_once_leaves_no_block() {
    let segment = segment(16);
    let started = Queue::<Handle>::with_capacity(1).expect("a queue");
    let board = Board::new();
    let (theirs, names) = (segment.clone(), started.clone());
    let child = fork(move || {
        for round in 1.. {
            let Ok(name) = names.recv() else { return };
            let queue = ByteQueue::open(&theirs, name).expect("the parent has it");
            board.add(0, 1);
            while board.get(1) < round {
                std::hint::spin_loop();
            }
            drop(queue);
            board.add(2, 1);
        }
    });
    for round in 1..=3000 {
        let queue = queue_in(&segment, 4);
        (0..3).for_each(|_| queue.send(&[3; 1000]).expect("room"));
        started.send(queue.handle()).expect("open");
        board.wait(0, round);
        board.set(1, round);
        drop(queue);
        while board.get(2) < round {
            std::thread::yield_now();
        }
        assert_eq!(in_use(&segment), 0, "in round {round}: {:?}", blocks::blocks(&segment));
    }
    started.close();
    child.expect("fork").join().expect("no panic");
}

#[apply(test)]
fn guards_of_the_parents_are_inert_in_a_child() {
    let segment = segment(8);
    let queue = queue_in(&segment, 4);
    for len in [SHORTEST, 1000, MIB] {
        queue.send(&message(1, len)).expect("room");
        let mut loan = queue.loan(len).expect("room");
        fill(&mut loan, 2);
        let received = queue.recv_timeout(LIMIT).expect("a message");
        let before = in_use(&segment);
        let (mut loan, mut received) = (Some(loan), Some(received));
        // Copies of the process, as a closure of the crate's own fork cannot borrow the message.
        let mut using = raw::fork(|| {
            std::panic::set_hook(Box::new(|_| ()));
            let panics = |work: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(work)).is_err();
            assert!(panics(&mut || received
                .as_deref()
                .into_iter()
                .for_each(|bytes| drop(bytes.to_vec()))));
            assert!(panics(&mut || loan
                .as_deref()
                .into_iter()
                .for_each(|bytes| drop(bytes.to_vec()))));
            assert!(panics(&mut || loan.as_mut().expect("there")[0] = 9));
            assert!(!panics(&mut || {
                let _ = format!("{received:?} {loan:?}");
            }));
            assert!(panics(&mut || drop(loan.take().expect("there").send())));
        });
        assert_eq!(using.wait(), Ended::Exited(0));
        let dropping = raw::fork(|| {
            let own = queue.loan(len).expect("the child's own");
            drop((loan.take(), received.take()));
            drop(own);
        });
        dropping.join();
        assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
        segment.reap().expect("attached");
        assert_eq!(in_use(&segment), before, "{len} bytes");
        let loan = loan.take().expect("there");
        assert_eq!(number(&loan), Some(2), "{len} bytes");
        assert_eq!(received.as_deref().map(number), Some(Some(1)), "{len} bytes");
        loan.send().expect("room");
        assert_eq!(number(&queue.recv_timeout(LIMIT).expect("sent")), Some(2));
        segment.reap().expect("attached");
        assert_eq!(in_use(&segment), 1 + usize::from(len > 240), "the message that is held");
    }
}

/// A closure can take a loan with it. It is the parent's all the same.
#[apply(test)]
fn a_loan_that_a_closure_captures_goes_back_in_the_parent() {
    let segment = segment(8);
    let queue = queue_in(&segment, 2);
    for len in [SHORTEST, 1000, MIB] {
        let before = in_use(&segment);
        let mut loan = queue.loan(len).expect("room");
        fill(&mut loan, 1);
        let theirs = queue.clone();
        let child = fork(move || {
            std::panic::set_hook(Box::new(|_| ()));
            assert!(catch_unwind(AssertUnwindSafe(|| loan.to_vec())).is_err(), "it is inert");
            // So it is in a process that has used the queue under its own name.
            drop(theirs.loan(len).expect("room"));
            assert!(catch_unwind(AssertUnwindSafe(|| loan.to_vec())).is_err(), "it is inert");
            let sent = catch_unwind(AssertUnwindSafe(|| drop(loan.send())));
            assert!(sent.is_err(), "it is inert");
        })
        .expect("fork");
        assert_eq!(in_use(&segment), before, "{len} bytes");
        child.join().expect("no other panic");
        assert!(queue.is_empty());
        assert_eq!(after_reaping(&segment), before, "{len} bytes");
    }
}

/// A child drops its copies of all handles and the loan last. The parent still has both.
#[apply(test)]
fn a_loan_that_is_the_last_handle_in_a_child_is_dropped_there() {
    for len in [SHORTEST, 1000, MIB] {
        for has_used_it in [false, true] {
            let segment = segment(8);
            let mut queue = Some(queue_in(&segment, 2));
            let mut loan = queue.as_ref().map(|queue| queue.loan(len).expect("room"));
            fill(loan.as_mut().expect("there"), 1);
            let before = in_use(&segment);
            raw::fork(|| {
                let queue = queue.take().expect("there");
                assert!(!has_used_it || queue.is_empty());
                drop(queue);
                drop(loan.take());
            })
            .join();
            assert_eq!(after_reaping(&segment), before, "{len} bytes");
            let loan = loan.expect("there");
            assert_eq!(number(&loan), Some(1));
            loan.send().expect("room");
            let queue = queue.expect("there");
            assert_eq!(number(&queue.recv_timeout(LIMIT).expect("sent")), Some(1));
            assert_eq!(after_reaping(&segment), 1, "{len} bytes");
        }
    }
}

#[apply(test)]
fn a_full_segment_rejects_at_once_and_works_again_when_there_is_room() {
    let segment = segment(4);
    let queue = queue_in(&segment, 64);
    let objects = ObjectQueue::with_capacity_in(&segment, 4).expect("a queue");
    let mut sent = 0;
    let error = loop {
        match queue.send(&message(sent, 500_000)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10, "4 MiB hold fewer than 10 messages of 500,000 bytes");
    };
    assert!(matches!(error, SendError::Rejected((), CreateError::OutOfMemory { .. })), "{error}");
    let text = "text".repeat(125_000);
    let error = objects.try_send(text.clone()).expect_err("no room for this either");
    assert!(matches!(&error, TrySendError::Rejected(_, EncodeError::Memory(_))), "{error}");
    assert!(error.into_inner() == text, "the value comes back");
    let theirs = queue.clone();
    let drained = fork(move || {
        (0..sent).for_each(|expected| {
            let message = theirs.recv_timeout(LIMIT).expect("it was sent");
            assert_eq!(number(&message), Some(expected));
        });
    });
    drained.expect("fork").join().expect("no panic");
    queue.send(&message(7, 500_000)).expect("room again");
    objects.send(text.clone()).expect("room again");
    assert!(objects.recv_timeout(LIMIT).expect("sent") == text);
    assert_eq!(number(&queue.recv_timeout(LIMIT).expect("sent")), Some(7));
}

#[apply(test)]
fn what_the_dead_have_left_is_room_for_the_next_message() {
    let segment = segment(4);
    let queue = queue_in(&segment, 64);
    for round in 0..6 {
        let theirs = queue.clone();
        let child = child_that(move |ready| {
            let _loans: Vec<_> = (0..7).map_while(|_| theirs.loan(500_000).ok()).collect();
            ready.send(0).expect("open");
            common::sleep_for_ever();
        });
        let full = queue.try_send(&message(round, MIB)).expect_err("no room beside the living");
        assert!(matches!(full, TrySendError::Rejected(..)), "{full}");
        kill(&child);
        // Nobody has joined the dead: the sender must find out.
        match round % 3 {
            0 => queue.send(&message(round, MIB)).expect("room"),
            1 => queue.loan(MIB).map(|mut loan| fill(&mut loan, round)).expect("room"),
            _ => {
                let text = ObjectQueue::with_capacity_in(&segment, 1).expect("a queue");
                text.send("x".repeat(MIB)).expect("room");
            }
        }
        assert!(child.join().is_err());
        while queue.try_recv().is_ok() {}
        assert_eq!(after_reaping(&segment), 1);
    }
}

#[apply(test)]
fn a_stopped_receiver_keeps_its_message() {
    let segment = segment(4);
    let queue = queue_in(&segment, 8);
    queue.send(&message(1, MIB)).expect("room");
    let theirs = queue.clone();
    let go_on = Queue::<u64>::with_capacity(1).expect("a queue");
    let their_go_on = go_on.clone();
    let reader = child_that(move |ready| {
        let message = theirs.recv_timeout(LIMIT).expect("a message");
        ready.send(0).expect("open");
        their_go_on.recv_timeout(LIMIT).expect("open");
        assert_eq!(number(&message), Some(1), "somebody else wrote here");
    });
    reader.signal(19).expect("SIGSTOP");
    common::wait_until_stopped(reader.id());
    // Everybody looks for memory, and whatever there is is written over.
    for _ in 0..3 {
        let loans: Vec<_> = std::iter::from_fn(|| {
            let mut loan = queue.loan(300_000).ok()?;
            loan.fill(0xff);
            Some(loan)
        })
        .collect();
        assert!((1..=10).contains(&loans.len()), "{} loans", loans.len());
        assert_eq!(segment.reap(), Ok(0));
    }
    assert_eq!(in_use(&segment), 2);
    reader.signal(18).expect("SIGCONT");
    go_on.send(0).expect("open");
    reader.join().expect("no panic");
    assert_eq!(in_use(&segment), 1);
}

#[apply(test)]
fn files_go_straight_into_messages_and_out_again() {
    let segment = segment(16);
    let queue = queue_in(&segment, 2);
    let content = message(9, 3 * MIB);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, &content).expect("writable");
    let (theirs, path) = (queue.clone(), file.path().to_owned());
    let child = fork(move || {
        let mut file = File::open(path).expect("the file");
        let all = 3 * MIB;
        for len in [100, all - 100] {
            theirs.send_from(&mut file, len).expect("as long as that");
        }
        let short = theirs.send_from(&mut file, 200_000).expect_err("at its end");
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
        let much = theirs.send_from(&mut file, 1 << 30).expect_err("no room");
        assert!(much.to_string().contains("takes 1073741824 bytes"), "{much}");
    });
    child.expect("fork").join().expect("no panic");
    let (mut all, mut part) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        queue.recv_into(&mut part).expect("a message");
        all.extend_from_slice(&part);
    }
    assert!(all == content);
    queue.close();
    part.truncate(5);
    assert_eq!(queue.recv_into(&mut part), Err(RecvError::Closed));
    assert_eq!((part.len(), in_use(&segment)), (5, 1), "unchanged");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Job {
    Stop,
    Fetch { url: String, tries: u8 },
    Store(Vec<u8>),
    All(Vec<Job>),
}

#[apply(test)]
fn values_of_many_types_go_between_processes() {
    fn check<T>(values: Vec<T>)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + Clone,
        T: Send + 'static,
    {
        let segment = segment(16);
        let there = ObjectQueue::<T>::with_capacity_in(&segment, 2).expect("a queue");
        let back = ObjectQueue::<T>::with_capacity_in(&segment, 2).expect("a queue");
        let (theirs, their_back) = (there.clone(), back.clone());
        let child = fork(move || {
            for value in &theirs {
                their_back.send(value.expect("decoded")).expect("room");
            }
        });
        for value in values {
            there.send_timeout(value.clone(), LIMIT).expect("room");
            assert!(back.recv_timeout(LIMIT).expect("an answer") == value);
        }
        there.close();
        child.expect("fork").join().expect("no panic");
        assert_eq!(in_use(&segment), 2);
    }
    check(vec![String::new(), "long text. ".repeat(50_000), "ü".repeat(60)]);
    check(vec![vec![0_u64; 0], (0..200_000).collect()]);
    let fetch = Job::Fetch { url: "x".repeat(500), tries: 3 };
    check(vec![Job::Stop, fetch.clone(), Job::All(vec![Job::Store(vec![7; 100_000]), fetch])]);
    let map: HashMap<String, Option<Vec<u16>>> =
        (0..3000).map(|n| (format!("key {n}"), (n % 3 > 0).then(|| vec![n; 9]))).collect();
    check(vec![HashMap::new(), map]);
    check(vec![(1_i8, 'x', [0.5_f32; 3], Some(Ok::<u8, String>(3)))]);
}

#[apply(test)]
fn what_cannot_be_encoded_or_decoded_is_an_error_and_the_next_one_is_fine() {
    /// Decodes as a `bool` what its sender says is a byte: other programs, other types.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
    }
    let queue = ObjectQueue::with_capacity(2).expect("a queue");
    let theirs = queue.clone();
    let child = fork(move || {
        let error = theirs.send(Untagged::Number(7)).expect_err("nobody could read it");
        let decode =
            matches!(error, SendError::Rejected(Untagged::Number(7), EncodeError::Decode(_)));
        assert!(decode, "{error}");
    });
    child.expect("fork").join().expect("no panic");
    assert!(queue.is_empty());
    // Two types of one name, as in two versions of a program.
    let segment = segment(4);
    let (old, name) = {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Version(Vec<u8>);
        let queue = ObjectQueue::<Version>::with_capacity_in(&segment, 4).expect("a queue");
        let name = queue.handle();
        let send = move |bytes: Vec<u8>| queue.send(Version(bytes)).expect("room");
        (send, name)
    };
    let (new, received) = {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Version(String);
        let queue = ObjectQueue::<Version>::open(&segment, name).expect("the same name");
        let theirs = queue.clone();
        let child = fork(move || {
            (0..4)
                .map(|_| {
                    theirs
                        .recv_timeout(LIMIT)
                        .map(|Version(text)| text)
                        .map_err(|error| error.to_string())
                })
                .collect::<Vec<_>>()
        });
        let send = move |text: &str| queue.send(Version(text.to_owned())).expect("room");
        (send, child)
    };
    old(vec![0xff; 3]);
    new("fine");
    old(vec![0xff; 100_000]);
    new("fine again");
    let received: Vec<Result<String, String>> = received.expect("fork").join().expect("no panic");
    let texts: Vec<Option<&str>> = received.iter().map(|result| result.as_deref().ok()).collect();
    assert_eq!(texts, [None, Some("fine"), None, Some("fine again")]);
    let error = received[2].as_ref().expect_err("no text");
    assert!(error.contains("100003 bytes cannot be decoded"), "{error}");
    drop((old, new));
    assert_eq!(after_reaping(&segment), 0);
}

#[apply(test)]
fn a_child_that_was_there_before_opens_a_queue_by_its_name() {
    let names = Queue::<Handle>::with_capacity(2).expect("a queue");
    let theirs = names.clone();
    let child = fork(move || {
        let commons = Segment::commons().expect("the commons");
        let bytes = ByteQueue::open(&commons, theirs.recv().expect("open")).expect("there");
        let name = theirs.recv().expect("open");
        assert!(ByteQueue::open(&commons, name).is_err(), "no queue of bytes");
        let words = ObjectQueue::<String>::open(&commons, name).expect("there");
        let message = bytes.recv_timeout(LIMIT).expect("a message");
        words.send(format!("{:?}", number(&message))).expect("room");
    });
    let bytes = ByteQueue::with_capacity(1).expect("a queue");
    let words = ObjectQueue::<String>::with_capacity(1).expect("a queue");
    names.send(bytes.handle()).expect("open");
    names.send(words.handle()).expect("open");
    bytes.send(&message(77, 200_000)).expect("room");
    assert_eq!(words.recv_timeout(LIMIT).expect("an answer"), "Some(77)");
    child.expect("fork").join().expect("no panic");
}

/// Sends and receives in a segment whose pages the kernel gives out only up to a limit below its
/// length: each error says so, and what is given back can be had again, whatever its length.
fn use_few_pages(segment: &Segment, most: usize) {
    let queue = queue_in(segment, 64);
    for len in [most / 3, most / 10, most / 2, 70_000, most / 5] {
        let mut sent = 0;
        let error = loop {
            match queue.try_send(&message(sent, len)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent as usize * len < most + 2 * MIB, "more than there is");
        };
        let no_pages = matches!(error, TrySendError::Rejected((), CreateError::NoPages { .. }));
        assert!(no_pages || error.is_full(), "{len} bytes: {error}");
        assert!(sent > 0, "nothing is in use, and there is no room for {len} bytes");
        for expected in 0..sent {
            let message = queue.try_recv().expect("it was sent");
            assert_eq!(number(&message), Some(expected));
        }
    }
    // What a killed process has is room, too.
    let theirs = queue.clone();
    let child = child_that(move |ready| {
        let _loans: Vec<_> = std::iter::from_fn(|| theirs.loan(300_000).ok()).take(64).collect();
        ready.send(0).expect("open");
        common::sleep_for_ever();
    });
    kill(&child);
    queue.send(&message(1, most / 2)).expect("what the dead had is room");
    assert!(child.join().is_err());
}

#[apply(test)]
fn a_full_file_system_rejects_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("unshare");
    command.arg("-Urm").arg("sh").arg("-c");
    command.arg("mount -t tmpfs -o size=8m none \"$0\" && cd \"$0\" && exec \"$1\"");
    let full = role::command("messages::in_a_full_file_system");
    command.arg(folder.path()).arg(full.get_program());
    command.envs(full.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if !Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
    {
        return sandbox::skip("this machine does not let users have mount namespaces");
    }
    let status = command.status().expect("start");
    assert!(status.success(), "{status}");
}

#[apply(role)]
fn in_a_full_file_system(_: &str) {
    let path = std::path::Path::new("segment");
    let segment = Segment::create_file(path, 256 << 20).expect("a sparse segment");
    use_few_pages(&segment, 7 * MIB);
}

#[apply(test)]
fn a_limited_file_size_is_an_error_at_worst() {
    role::play("messages::with_a_limited_file_size");
}

#[apply(role)]
fn with_a_limited_file_size(_: &str) {
    let segment = segment(64);
    let queue = queue_in(&segment, 4);
    queue.send(&[7; 500]).expect("room");
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(MIB as u64), maximum }).expect("setrlimit");
    assert_eq!(*queue.recv().expect("sent before"), [7; 500]);
    for len in [70_000, 10 * MIB] {
        // Some kernels do not count pages within the file against the limit.
        match queue.send(&message(1, len)) {
            Ok(()) => assert_eq!(number(&queue.recv().expect("sent")), Some(1)),
            Err(SendError::Rejected((), CreateError::NoPages { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let open = Rlimit { current: maximum, maximum };
    setrlimit(Resource::Fsize, open).expect("setrlimit");
    queue.send(&message(2, 10 * MIB)).expect("room");
    assert_eq!(number(&queue.recv().expect("sent")), Some(2));
    assert_eq!(in_use(&segment), 1);
}

#[apply(test)]
fn no_number_is_received_that_nobody_sent() {
    // The hash is what all of this relies on.
    let mut seen = BTreeSet::new();
    for len in [SHORTEST, 100, 5000] {
        let mut bytes = message(5, len);
        assert_eq!(number(&bytes), Some(5));
        bytes[len / 2] ^= 1;
        assert_eq!(number(&bytes), None);
        assert!(seen.insert(bytes));
    }
    assert_eq!((number(&[]), number(&[0; 7])), (None, None));
}
