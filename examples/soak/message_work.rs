//! Senders and receivers of messages of any length: bytes in place, and values that are encoded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::{
    ByteQueue, Loan, Message as Guard, ObjectQueue, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError, TrySendError,
};
use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::message::Message;
use crate::notes::{Received, Sent};
use crate::post::Post;
use crate::random::{Random, mix};

const WORD: usize = size_of::<u64>();
/// Words that say which message it is.
const NAME: usize = 2;

/// Who sent it, its number, and as many words as there is room for that only this message has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    stretch: u64,
    sequence: u64,
    body: Vec<u64>,
}

impl Letter {
    pub fn new(message: &Message, words: usize) -> Letter {
        let Message { stretch, sequence, .. } = *message;
        let body = (0..words).map(|index| word(stretch, sequence, index)).collect();
        Letter { stretch, sequence, body }
    }

    /// The message that it stands for; one that is torn if this one is.
    pub fn to_message(&self) -> Message {
        let words = self.body.iter().enumerate();
        let whole = words
            .into_iter()
            .all(|(index, &found)| found == word(self.stretch, self.sequence, index));
        if whole { Message::new(self.stretch, self.sequence) } else { Message::torn() }
    }
}

fn word(stretch: u64, sequence: u64, index: usize) -> u64 {
    mix(stretch << 32 ^ sequence ^ (index as u64) << 48)
}

/// Writes the message over all the bytes; stops for `pause` in the middle.
fn fill(bytes: &mut [u8], message: &Message, pause: impl FnOnce()) {
    let Message { stretch, sequence, .. } = *message;
    let mut pause = Some(pause);
    let half = bytes.len() / WORD / 2;
    for (index, part) in bytes.chunks_exact_mut(WORD).enumerate() {
        let value = match index {
            0 => stretch,
            1 => sequence,
            _ => word(stretch, sequence, index),
        };
        part.copy_from_slice(&value.to_le_bytes());
        if index == half
            && let Some(pause) = pause.take()
        {
            pause();
        }
    }
}

/// The message that these bytes stand for; one that is torn if they do not belong together.
fn read(bytes: &[u8]) -> Message {
    let mut words = bytes
        .chunks_exact(WORD)
        .map(|part| u64::from_le_bytes(part.try_into().expect("as long as a word")));
    let (Some(stretch), Some(sequence)) = (words.next(), words.next()) else {
        return Message::torn();
    };
    let whole = words.zip(NAME..).all(|(found, index)| found == word(stretch, sequence, index));
    if whole { Message::new(stretch, sequence) } else { Message::torn() }
}

/// Words of a message: in its slot, in a part of a page, in some pages, in many.
fn some_words(random: &mut Random) -> usize {
    NAME + match random.below(32) {
        0..12 => random.below(12),
        12..24 => random.below(500),
        24..31 => random.below(10_000),
        _ => random.below(40_000),
    } as usize
}

/// Sends bytes until the end of the round.
pub fn send_bytes(post: &mut Post) {
    let arena = Arc::clone(&post.arena);
    let queue = arena.bytes.with_wait(post.some_wait());
    let mut sent = Sent::new(Arc::clone(&arena), post.object);
    while !post.is_stopping() {
        post.rest();
        let len = some_words(&mut post.random) * WORD;
        let done = if post.random.once_in(2) {
            send_copy(post, &queue, &mut sent, len)
        } else {
            send_in_place(post, &queue, &mut sent, len)
        };
        if done {
            sent.end(1);
        }
    }
}

/// Sends a copy; false if there was no room.
fn send_copy(post: &mut Post, queue: &ByteQueue, sent: &mut Sent, len: usize) -> bool {
    let message = sent.begin_one();
    let mut bytes = vec![0; len];
    fill(&mut bytes, &message, || ());
    let time = post.some_time();
    match post.random.below(4) {
        0 => match post.run("try_send", || queue.try_send(&bytes)) {
            Err(TrySendError::Full(()) | TrySendError::Rejected(..)) => false,
            other => other.map(|()| true).expect("open"),
        },
        1 => match post.run("send_timeout", || queue.send_timeout(&bytes, time)) {
            Err(SendTimeoutError::Timeout(()) | SendTimeoutError::Rejected(..)) => false,
            other => other.map(|()| true).expect("open"),
        },
        _ => match post.run("send", || queue.send(&bytes)) {
            Err(SendError::Rejected(..)) => false,
            other => other.map(|()| true).expect("open"),
        },
    }
}

/// Writes a message where its receiver reads it; sometimes gives it up instead.
fn send_in_place(post: &mut Post, queue: &ByteQueue, sent: &mut Sent, len: usize) -> bool {
    let message = sent.begin_one();
    let Ok(mut loan) = post.run("loan", || queue.loan(len)) else {
        return false;
    };
    fill(&mut loan, &message, || post.linger());
    if read(&loan) != message {
        // Somebody else writes here: the memory was taken from the living.
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
    if post.random.once_in(8) {
        return false;
    }
    let time = post.some_time();
    match post.run("send loan", || loan.send_timeout(time)) {
        Ok(()) => true,
        Err(SendTimeoutError::Timeout(loan)) => {
            let _: Loan = loan;
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Receives bytes until the queue is closed and drained.
pub fn receive_bytes(post: &mut Post) {
    let arena = Arc::clone(&post.arena);
    let queue = arena.bytes.with_wait(post.some_wait());
    let mut received = Received::new(Arc::clone(&arena), post.object);
    loop {
        post.rest();
        let time = post.some_time();
        let message: Option<Guard<'_>> = match post.random.below(4) {
            0 => match post.run("try_recv", || queue.try_recv()) {
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => return,
                other => Some(other.expect("a message")),
            },
            1 => match post.run("recv_timeout", || queue.recv_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Closed) => return,
                other => Some(other.expect("a message")),
            },
            _ => match post.run("recv", || queue.recv()) {
                Err(RecvError::Closed) => return,
                other => Some(other.expect("a message")),
            },
        };
        if let Some(message) = message {
            let first = read(&message);
            received.note(&first, message.redelivered());
            post.linger();
            if read(&message) != first {
                // Somebody else writes here: the memory was taken from the living.
                post.tally().torn.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sends values until the end of the round.
pub fn send_letters(post: &mut Post) {
    let arena = Arc::clone(&post.arena);
    let queue = arena.letters.with_wait(post.some_wait());
    let mut sent = Sent::new(Arc::clone(&arena), post.object);
    while !post.is_stopping() {
        post.rest();
        let letter = Letter::new(&sent.begin_one(), some_words(&mut post.random));
        let time = post.some_time();
        let done = match post.random.below(4) {
            0 => match post.run("try_send", || queue.try_send(letter)) {
                Err(TrySendError::Full(_) | TrySendError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            },
            1 => match post.run("send_timeout", || queue.send_timeout(letter, time)) {
                Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            },
            _ => match post.run("send", || queue.send(letter)) {
                Err(SendError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            },
        };
        if done {
            sent.end(1);
        }
    }
}

/// Receives values until the queue is closed and drained.
pub fn receive_letters(post: &mut Post) {
    let arena = Arc::clone(&post.arena);
    let queue: ObjectQueue<Letter> = arena.letters.with_wait(post.some_wait());
    let mut received = Received::new(Arc::clone(&arena), post.object);
    loop {
        post.rest();
        post.take_in_hand(1);
        let time = post.some_time();
        let letter = match post.random.below(4) {
            0 => match post.run("try_recv", || queue.try_recv()) {
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => return,
                other => Some(other.expect("a letter")),
            },
            1 => match post.run("recv_timeout", || queue.recv_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Closed) => return,
                other => Some(other.expect("a letter")),
            },
            _ => match post.run("recv", || queue.recv()) {
                Err(RecvError::Closed) => return,
                other => Some(other.expect("a letter")),
            },
        };
        if let Some(letter) = letter {
            received.note(&letter.to_message(), false);
        }
        post.take_in_hand(0);
    }
}

/// Receives what is left when the last receiver has run into a limit.
pub fn drain(arena: &Arc<Arena>) {
    use crate::arena::Object;

    let time = Duration::from_secs(1);
    let mut received = Received::new(Arc::clone(arena), Object::Bytes);
    while let Ok(message) = arena.bytes.recv_timeout(time) {
        received.note(&read(&message), message.redelivered());
    }
    let mut received = Received::new(Arc::clone(arena), Object::Letters);
    while let Ok(letter) = arena.letters.recv_timeout(time) {
        received.note(&letter.to_message(), false);
    }
}
