//! What is sent: every word follows from the first two, so a mixture of two messages shows.

use offspring::Shm;

use crate::random::mix;

const WORDS: usize = 6;

/// Who sent it, its number, and words that only this message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Shm)]
#[repr(C)]
pub struct Message {
    /// The stretch of the ledger in which the sender notes what it has sent.
    pub stretch: u64,
    /// Number of the message in the stretch.
    pub sequence: u64,
    body: [u64; WORDS],
}

impl Message {
    pub fn new(stretch: u64, sequence: u64) -> Message {
        Message { stretch, sequence, body: body(stretch, sequence) }
    }

    /// One whose words do not belong together.
    pub fn torn() -> Message {
        Message { body: [0; WORDS], ..Message::new(u64::MAX, u64::MAX) }
    }

    /// Whether all words belong together.
    pub fn is_whole(&self) -> bool {
        self.body == body(self.stretch, self.sequence)
    }

    /// Writes the first half of `message` only, as a sender killed in the middle would leave it.
    pub fn begin(&mut self, message: &Message) {
        self.sequence = message.sequence;
        self.body[..WORDS / 2].copy_from_slice(&message.body[..WORDS / 2]);
    }
}

/// The words of a message or of a value under a lock.
pub fn body<const N: usize>(first: u64, second: u64) -> [u64; N] {
    std::array::from_fn(|index| mix(mix(first ^ index as u64) ^ second))
}
