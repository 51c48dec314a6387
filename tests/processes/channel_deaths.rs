//! Channels whose processes are killed, stopped, replaced by other programs and forked at every
//! moment: who is told, and what is lost.

use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use offspring::plain::{Receiver, Sender};
use offspring::{
    Child, JoinError, OnReceiverDeath, Queue, QueueOptions, RecvError, RecvTimeoutError, Segment,
    SendTimeoutError, TryRecvError, Wait,
};

use crate::common::raw::{self, Board};
use crate::common::{
    PATIENCE, children, fork, sleep_for_ever, sleep_for_ever_returning_nothing, wait_until,
    wait_until_stopped,
};
use crate::ends::{OPEN, is_disconnected, pair, stays_open};
use crate::harness::{apply, test};
use crate::victims::end;

fn signal(child: &Child<()>, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a child");
}

/// However one waits, and whatever the other does.
#[apply(test)]
fn every_way_to_wait_ends_with_the_other_side() {
    type End = fn();
    let ends: [(&str, End); 3] = [
        ("drops it", || ()),
        ("exits", || raw::exit(0)),
        ("is killed", || nix::sys::signal::raise(Signal::SIGKILL).expect("a signal")),
    ];
    for wait in [Wait::Spin, Wait::SpinThenSleep, Wait::Sleep] {
        for (how, end) in ends {
            let (sender, receiver) = pair(1);
            let receiver = receiver.with_wait(wait);
            let child = fork(move || {
                std::thread::sleep(Duration::from_millis(30));
                end();
                drop(sender);
            })
            .expect("fork");
            let got = receiver.recv_timeout(PATIENCE);
            assert_eq!(got, Err(RecvTimeoutError::Disconnected), "{wait:?}, {how}");
            drop(child.join());

            let (sender, receiver) = pair(1);
            let sender = sender.with_wait(wait);
            sender.send(1).expect("room");
            let child = fork(move || {
                std::thread::sleep(Duration::from_millis(30));
                end();
                drop(receiver);
            })
            .expect("fork");
            let sent = sender.send_timeout(2, PATIENCE);
            assert_eq!(sent, Err(SendTimeoutError::Disconnected(2)), "{wait:?}, {how}");
            drop(child.join());
        }
    }
}

/// It may go on at any time.
#[apply(test)]
fn a_stopped_sender_is_there() {
    let (sender, receiver) = pair(1);
    let (go, wait) = pair(1);
    let child = fork(move || {
        wait.recv().expect("connected");
        sender.send(7).expect("connected");
    })
    .expect("fork");
    signal(&child, Signal::SIGSTOP);
    wait_until_stopped(child.id());
    go.send(0).expect("connected");
    for _ in 0..3 {
        stays_open(&receiver);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    }
    signal(&child, Signal::SIGCONT);
    assert_eq!(receiver.recv(), Ok(7));
    is_disconnected(&receiver);
    child.join().expect("well");
}

/// A process that becomes another program has no ends any more, though its pid lives on.
#[apply(test)]
fn a_sender_that_becomes_another_program_is_gone() {
    let (sender, receiver) = pair(1);
    let child: Child<()> = fork(move || {
        sender.send(7).expect("connected");
        panic!("{}", std::process::Command::new("sleep").arg("infinity").exec())
    })
    .expect("fork");
    assert_eq!(receiver.recv(), Ok(7));
    is_disconnected(&receiver);
    assert!(child.is_alive());
    end(child);
}

/// Nobody has seen a child in the segment that never used it. Then only its pid says whether it is
/// there, and its other program counts.
#[apply(test)]
fn a_child_that_becomes_another_program_unused_counts_until_that_ends() {
    let (sender, receiver) = pair(1);
    let child: Child<()> = fork(move || {
        let _sender = sender;
        panic!("{}", std::process::Command::new("sleep").arg("infinity").exec())
    })
    .expect("fork");
    wait_until("it is another program", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", child.id()));
        name.is_ok_and(|name| name.trim() == "sleep")
    });
    stays_open(&receiver);
    end(child);
    is_disconnected(&receiver);
}

/// A message that comes back is delivered before anybody hears that no more will come.
#[apply(test)]
fn what_a_killed_receiver_had_comes_before_the_end() {
    for polls in [false, true] {
        let mut options = QueueOptions::new();
        options.capacity(4).on_receiver_death(OnReceiverDeath::Redeliver);
        let (sender, receiver) = options.create_bytes_channel().expect("a channel");
        let (told, tells) = pair(1);
        let theirs = receiver.clone();
        let reader: Child<()> = fork(move || {
            let message = theirs.recv().expect("connected");
            told.send(message[0].into()).expect("connected");
            sleep_for_ever()
        })
        .expect("fork");
        sender.send(&[1]).expect("connected");
        assert_eq!(tells.recv(), Ok(1));
        sender.send(&[2]).expect("connected");
        drop(sender);
        assert_eq!(&receiver.recv().expect("what is left")[..], [2]);
        let early = receiver.recv_timeout(OPEN).map(|message| message.to_vec());
        assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{early:?}");
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
        end(reader);
        if polls {
            wait_until("it comes back", || match receiver.try_recv() {
                Ok(message) => message[..] == [1] && message.redelivered(),
                Err(TryRecvError::Empty) => false,
                Err(error) => panic!("{error}"),
            });
        } else {
            let message = receiver.recv_timeout(PATIENCE).expect("it comes back");
            assert!(message[..] == [1] && message.redelivered());
        }
        assert!(matches!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)));
    }
}

/// The last receiver dies with it, and so does the message: the sender is told.
#[apply(test)]
fn a_message_that_nobody_can_get_again_does_not_keep_a_channel_open() {
    let mut options = QueueOptions::new();
    options.capacity(1).on_receiver_death(OnReceiverDeath::Redeliver);
    let (sender, receiver) = options.create_bytes_channel().expect("a channel");
    let (told, tells) = pair(1);
    let reader: Child<()> = fork(move || {
        let _message = receiver.recv().expect("connected");
        told.send(0).expect("connected");
        sleep_for_ever()
    })
    .expect("fork");
    sender.send(&[7; 3000]).expect("connected");
    assert_eq!(tells.recv(), Ok(0));
    end(reader);
    let sent = sender.send_timeout(&[8], PATIENCE);
    assert!(sent.as_ref().is_err_and(|error| error.is_disconnected()), "{sent:?}");
}

/// Does something when it is dropped by the process that made it.
struct AtDrop<F: FnMut()>(u32, F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        if self.0 == std::process::id() {
            (self.1)();
        }
    }
}

/// Before the first of its ends is handed over, between two, and after the last.
#[apply(test)]
fn a_child_that_is_killed_during_the_hand_over_has_had_no_ends() {
    fn kill_newest() {
        // Its only child: it waits to be told what it has.
        let [(child, _)] = children()[..] else { panic!("one child") };
        kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL).expect("a child");
        wait_until("it dies", || children() == [(child, 'Z')]);
    }
    for place in 0..3 {
        let (first, from_first) = pair(1);
        let (second, from_second) = pair(1);
        let kept = first.clone();
        let mut now = 0;
        let mut killer = || {
            let turn = now;
            now += 1;
            AtDrop(std::process::id(), move || {
                if turn == place {
                    kill_newest();
                }
            })
        };
        let captured = (killer(), first, killer(), second, killer());
        let child = fork(move || {
            let _all = captured;
            sleep_for_ever_returning_nothing();
        })
        .expect("the kernel has made it");
        stays_open(&from_first);
        is_disconnected(&from_second);
        drop(kept);
        is_disconnected(&from_first);
        assert!(matches!(child.join(), Err(JoinError::Killed(9))));
    }
}

/// Killed anywhere from before the first fork to after the last one: its children end with it, and
/// whoever is left is told.
#[apply(test)]
fn a_parent_killed_around_a_fork_takes_its_ends_with_it() {
    let mut forks = 0;
    for round in 0..150_u64 {
        let board = Board::new();
        let (sender, receiver) = pair(4);
        let (back, answers) = pair(4);
        let life = {
            let (sender, answers) = (Arc::new(sender), Arc::new(answers));
            move || {
                let mut children = Vec::new();
                loop {
                    let (own, answers) = (Sender::clone(&sender), Receiver::clone(&answers));
                    board.add(0, 1);
                    let child: Child<()> = fork(move || {
                        let _own = own;
                        let _ = answers.recv();
                        sleep_for_ever()
                    })
                    .expect("fork");
                    children.push(child);
                    board.add(1, 1);
                    if children.len() > 4 {
                        drop(children.remove(0));
                    }
                    if children.len() > 2 {
                        children[0].kill().expect("a signal");
                    }
                }
            }
        };
        // Its copies count from its first use; those of this process go with the closure.
        let parent = raw::fork(life);
        // Some forks first, as a slow machine may not come to any in the time that follows.
        wait_until("it is at work", || board.get(0) > round % 4);
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(round * 70 % 6_000) {
            std::hint::spin_loop();
        }
        parent.kill();
        forks += board.get(1);
        let got = receiver.recv_timeout(PATIENCE);
        assert_eq!(got, Err(RecvTimeoutError::Disconnected), "round {round}");
        for number in 0.. {
            match back.send_timeout(number, PATIENCE) {
                Ok(()) => assert!(number < 4, "round {round}: room for more than there is"),
                Err(SendTimeoutError::Disconnected(_)) => break,
                Err(error) => panic!("round {round}: {error}"),
            }
        }
    }
    assert!(forks > 50, "{forks} forks");
}

/// Slots of the largest queue that fits into the segment.
fn room(segment: &Segment) -> usize {
    let fits = |slots: usize| Queue::<[u8; 4088]>::with_capacity_in(segment, slots).is_ok();
    let (mut least, mut most) = (1, 1 << 20);
    while most - least > 1 {
        let middle = usize::midpoint(least, most);
        if fits(middle) { least = middle } else { most = middle }
    }
    least
}

/// A word for each message, in memory that is not the crate's.
#[derive(Clone, Copy)]
struct Ledger {
    messages: [Board; 96],
    counts: Board,
}

const BEGUN: u64 = 1;
const SENT: u64 = 1 << 8;
const RECEIVED: u64 = 1 << 16;
const WORDS: usize = 64;

/// Words of `counts`.
const NEXT: usize = 0;
const RECEIVERS: usize = 1;
const STOP: usize = 2;

impl Ledger {
    fn new() -> Ledger {
        Ledger { messages: std::array::from_fn(|_| Board::new()), counts: Board::new() }
    }

    /// Number of a new message; `None` if there is no room for more.
    fn next(&self, random: &mut Random) -> Option<u64> {
        // Two may get the same one here, as a board cannot add and tell. Then it is skipped.
        loop {
            let number = self.counts.get(NEXT) + random.below(8);
            if number >= (self.messages.len() * WORDS) as u64 || self.counts.get(STOP) > 0 {
                return None;
            }
            self.counts.add(NEXT, 1);
            let (board, word) = self.at(number);
            board.add(word, BEGUN);
            if board.get(word) == BEGUN {
                return Some(number);
            }
        }
    }

    fn at(&self, number: u64) -> (Board, usize) {
        (self.messages[number as usize / WORDS], number as usize % WORDS)
    }

    fn note(&self, number: u64, what: u64) {
        let (board, word) = self.at(number);
        board.add(word, what);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }

    /// Another one, for a child.
    fn fork(&mut self) -> Random {
        Random(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
}

/// The end of a worker, in one of the ways in which processes end.
fn fall(random: &mut Random) {
    match random.below(8) {
        0 => raw::exit(3),
        1 => panic!("{}", std::process::Command::new("true").exec()),
        2 => nix::sys::signal::raise(Signal::SIGKILL).expect("a signal"),
        _ => {}
    }
}

/// What a worker of a storm does with its ends.
trait Work: Clone + Send + 'static {
    fn begin(_: Ledger) {}

    /// One message; `Break` if there are no more.
    fn turn(&self, ledger: Ledger, random: &mut Random) -> ControlFlow<()>;
}

impl Work for Sender<u64> {
    fn turn(&self, ledger: Ledger, random: &mut Random) -> ControlFlow<()> {
        let Some(number) = ledger.next(random) else { return ControlFlow::Break(()) };
        match self.send_timeout(number, PATIENCE) {
            Ok(()) => ledger.note(number, SENT),
            Err(error) => panic!("a receiver lives: {error}"),
        }
        ControlFlow::Continue(())
    }
}

impl Work for Receiver<u64> {
    fn begin(ledger: Ledger) {
        ledger.counts.add(RECEIVERS, 1);
    }

    fn turn(&self, ledger: Ledger, _: &mut Random) -> ControlFlow<()> {
        match self.recv_timeout(Duration::from_millis(200)) {
            Ok(number) => ledger.note(number, RECEIVED),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            Err(error) => panic!("{error}"),
        }
        ControlFlow::Continue(())
    }
}

/// The life of a worker: it works, makes ends, drops them and hands them to children.
fn live<E: Work>(ledger: Ledger, end: E, mut random: Random, depth: u32) {
    E::begin(ledger);
    let mut ends = vec![end];
    let mut children = Vec::new();
    for _ in 0..20 + random.below(200) {
        let index = random.below(ends.len() as u64) as usize;
        match random.below(16) {
            0 => ends.push(ends[index].clone()),
            1 if ends.len() > 1 => drop(ends.swap_remove(index)),
            2 if depth > 0 => {
                let (end, theirs) = (ends[index].clone(), random.fork());
                let child = fork(move || live(ledger, end, theirs, depth - 1));
                children.push(child.expect("fork"));
                random.below(2);
            }
            3 => drop(children.pop()),
            _ => {
                if ends[index].turn(ledger, &mut random).is_break() {
                    break;
                }
            }
        }
    }
    fall(&mut random);
    drop(ends);
    for child in children {
        drop(child.join());
    }
}

/// Senders and receivers that fork, clone, drop, end in all ways, are killed and stopped, until
/// there are no more numbers to send. One receiver sees it out.
#[apply(test)]
fn a_storm_of_ends_loses_nothing_but_what_the_killed_had_taken() {
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ u64::from(std::process::id()) << 32 | 1);
    let segment = Segment::create(8 << 20).expect("a segment");
    drop(Queue::<u8>::with_capacity_in(&segment, 1).expect("room"));
    let before = room(&segment);
    for round in 0..4 {
        let ledger = Ledger::new();
        let mut options = QueueOptions::new();
        options.capacity([1, 2, 7, 64][round]);
        let (sender, receiver) =
            options.create_plain_channel_in::<u64>(&segment).expect("a channel");
        let mut workers: Vec<Child<()>> = Vec::new();
        let (mut started, mut kills, mut stops) = (0, 0, 0);
        let start = Instant::now();
        let over = |start: Instant| start.elapsed() > Duration::from_secs(3);
        while !over(start) {
            while workers.len() < 7 {
                let theirs = random.fork();
                random.below(2);
                let worker = if started % 3 == 0 {
                    let receiver = receiver.clone();
                    fork(move || live(ledger, receiver, theirs, 2))
                } else {
                    let sender = sender.clone();
                    fork(move || live(ledger, sender, theirs, 2))
                };
                workers.push(worker.expect("fork"));
                started += 1;
            }
            let index = random.below(workers.len() as u64) as usize;
            match random.below(4) {
                0 => {
                    workers[index].kill().expect("a signal");
                    drop(workers.swap_remove(index).join());
                    kills += 1;
                }
                1 => {
                    signal(&workers[index], Signal::SIGSTOP);
                    stops += 1;
                }
                2 => workers.iter().for_each(|worker| signal(worker, Signal::SIGCONT)),
                _ => {}
            }
            std::thread::sleep(Duration::from_micros(random.below(8000)));
            workers.retain(Child::is_alive);
        }
        ledger.counts.set(STOP, 1);
        workers.iter().for_each(|worker| signal(worker, Signal::SIGCONT));
        drop(sender);
        let mut left = 0;
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(number) => ledger.note(number, RECEIVED),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("round {round}, seed {}: {error}", random.0),
            }
            left += 1;
        }
        for worker in workers {
            drop(worker.join());
        }
        let (mut sent, mut lost) = (0, 0);
        for number in 0..(ledger.messages.len() * WORDS) as u64 {
            let (board, word) = ledger.at(number);
            let state = board.get(word);
            let received = state / RECEIVED;
            assert!(received <= 1, "round {round}: {number} was received {received} times");
            if state & SENT != 0 {
                sent += 1;
                lost += u64::from(received == 0);
            } else if state == 0 {
                assert_eq!(received, 0, "round {round}: nobody has sent {number}");
            }
        }
        let receivers = ledger.counts.get(RECEIVERS);
        println!(
            "round {round}: {started} workers, {kills} killed, {stops} stopped, {sent} sent, {lost} \
             lost by {receivers} receivers, {left} left for the last one"
        );
        assert!(sent > 0 && lost <= receivers, "{lost} of {sent} lost by {receivers} receivers");
        assert!(receiver.lost() <= receivers);
    }
    wait_until("everybody is gone", || children().is_empty());
    segment.reap().expect("attached");
    assert_eq!(room(&segment), before, "a block is left");
}

/// The same the other way round: senders that send on and on learn that all receivers are gone.
#[apply(test)]
fn senders_of_a_storm_learn_that_the_last_receiver_is_gone() {
    for round in 0..20_u64 {
        let (sender, receiver) = pair(2);
        let senders: Vec<Child<u64>> = (0..3)
            .map(|_| {
                let sender = sender.clone();
                fork(move || {
                    let mut sent = 0;
                    loop {
                        match sender.send_timeout(sent, PATIENCE) {
                            Ok(()) => sent += 1,
                            Err(SendTimeoutError::Disconnected(_)) => return sent,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
                .expect("fork")
            })
            .collect();
        let receivers: Vec<Child<()>> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                fork(move || while receiver.recv().is_ok() {}).expect("fork")
            })
            .collect();
        drop((sender, receiver));
        for child in receivers {
            std::thread::sleep(Duration::from_micros(round * 300));
            end(child);
        }
        for child in senders {
            child.join().expect("it was told");
        }
    }
}

/// Two that wait for each other's last end are both told when the one who has both is killed.
#[apply(test)]
fn one_who_had_ends_of_both_roles_is_missed_on_both_sides() {
    let (sender, receiver) = pair(1);
    let (ready, is_ready) = pair(1);
    let both: Child<()> = fork(move || {
        let _receiver = receiver.clone();
        sender.send(1).expect("it has a receiver itself");
        ready.send(0).expect("connected");
        assert_eq!(receiver.recv(), Ok(1));
        // It has a sender itself, so this waits for ever.
        assert_eq!(receiver.recv(), Err(RecvError::Disconnected), "nobody else is there");
    })
    .expect("fork");
    assert_eq!(is_ready.recv(), Ok(0));
    stays_open_while_alive(&is_ready, &both);
    end(both);
    is_disconnected(&is_ready);
}

#[track_caller]
fn stays_open_while_alive(ready: &Receiver<u64>, child: &Child<()>) {
    // `ready` lies in the closure, which still runs.
    assert_eq!(ready.recv_timeout(OPEN), Err(RecvTimeoutError::Timeout));
    assert!(child.is_alive());
}
