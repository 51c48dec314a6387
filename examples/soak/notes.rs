//! What senders and receivers record of each message.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::arena::{Arena, Object};
use crate::ledger::{MESSAGES, STRETCHES, Stretch};
use crate::message::Message;

/// The notes of a sender.
#[derive(Debug)]
pub struct Sent {
    arena: Arc<Arena>,
    object: Object,
    stretch: usize,
    next: u64,
}

impl Sent {
    pub fn new(arena: Arc<Arena>, object: Object) -> Sent {
        let mut sent = Sent { arena, object, stretch: 0, next: 0 };
        sent.turn_the_page();
        sent
    }

    /// The stretch that the next messages belong to.
    pub fn stretch(&self) -> usize {
        self.stretch
    }

    fn turn_the_page(&mut self) {
        self.stretch = self.arena.ledger.next_stretch.fetch_add(1, Ordering::Relaxed) as usize;
        self.next = 0;
        assert!(self.stretch < STRETCHES, "the round lasts too long for its ledger");
        self.words().object.store(self.object as u64 + 1, Ordering::Relaxed);
    }

    /// The next `count` messages. They count as begun from now on.
    pub fn begin(&mut self, count: usize) -> Vec<Message> {
        if self.next as usize + count > MESSAGES {
            self.turn_the_page();
        }
        let end = self.next + count as u64;
        self.words().started.store(end, Ordering::SeqCst);
        (self.next..end).map(|sequence| Message::new(self.stretch as u64, sequence)).collect()
    }

    /// The next message, which counts as begun from now on.
    pub fn begin_one(&mut self) -> Message {
        self.begin(1)[0]
    }

    /// Notes that the first `count` messages of those that were begun are sent.
    pub fn end(&mut self, count: usize) {
        self.next += count as u64;
        self.words().published.store(self.next, Ordering::SeqCst);
    }

    fn words(&self) -> &Stretch {
        &self.arena.ledger.stretches[self.stretch]
    }
}

/// The notes of a receiver.
#[derive(Debug)]
pub struct Received {
    arena: Arc<Arena>,
    object: Object,
    /// By stretch: the least number that may come next.
    next: HashMap<u64, u64>,
}

impl Received {
    pub fn new(arena: Arc<Arena>, object: Object) -> Received {
        Received { arena, object, next: HashMap::new() }
    }

    /// Checks a message and notes it.
    pub fn note(&mut self, message: &Message, redelivered: bool) {
        let tally = self.arena.ledger.tally(self.object);
        let stretch = self.arena.ledger.stretches.get(message.stretch as usize);
        let whole = message.is_whole() && message.sequence < MESSAGES as u64;
        let Some(stretch) = stretch.filter(|stretch| {
            whole && stretch.object.load(Ordering::Relaxed) == self.object as u64 + 1
        }) else {
            tally.torn.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if redelivered {
            tally.redelivered.fetch_add(1, Ordering::Relaxed);
        } else {
            let next = self.next.entry(message.stretch).or_default();
            if message.sequence < *next {
                tally.disorder.fetch_add(1, Ordering::Relaxed);
            }
            *next = message.sequence + 1;
        }
        if !stretch.receive(message.sequence) && !redelivered {
            tally.twice.fetch_add(1, Ordering::Relaxed);
        }
    }
}
