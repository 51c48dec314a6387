//! Senders and receivers of what is more than bytes: boxes, and handles of objects that only their
//! message holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::{
    CreateError, Queue, QueueOptions, Receiver, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, Sender, ShmArc, ShmBox, Transfer, TryRecvError, TrySendError,
};
use serde::{Deserialize, Serialize};

use crate::arena::{Arena, Object};
use crate::message::Message;
use crate::message_work::Letter;
use crate::notes::{Received, Sent};
use crate::post::Post;
use crate::random::Random;

/// Words of the longest box.
const MOST_WORDS: u64 = 10_000;
/// Words of a letter beside its name.
const LETTER: usize = 8;

/// A message, and memory in which every word is its number.
#[derive(Transfer)]
pub struct Package {
    message: Message,
    words: ShmBox<[u64]>,
}

impl Package {
    fn new(message: Message, random: &mut Random) -> Result<Package, CreateError> {
        let len = match random.below(8) {
            0 => random.below(MOST_WORDS),
            _ => random.below(200),
        };
        let words = ShmBox::from_slice(&vec![message.sequence; 1 + len as usize])?;
        Ok(Package { message, words })
    }

    /// The message that it stands for; one that is torn if box and message do not belong together.
    fn message(&self) -> Message {
        let is_whole = self.words.iter().all(|&word| word == self.message.sequence);
        if is_whole { self.message } else { Message::torn() }
    }
}

/// A letter, and objects in which it lies once more. The sender keeps none of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parcel {
    letter: Letter,
    objects: Objects,
}

#[derive(Debug, Serialize, Deserialize)]
enum Objects {
    Queue(Queue<Message>),
    Shared(ShmArc<[u64]>),
    /// A channel that has no sender any more.
    Receiver(Receiver<Letter>),
    /// A channel that is in its message with both ends.
    Channel(Sender<Letter>, Receiver<Letter>),
}

impl Parcel {
    fn new(message: &Message, random: &mut Random) -> Result<Parcel, CreateError> {
        let letter = Letter::new(message, LETTER);
        let objects = match random.below(4) {
            0 => {
                let queue = Queue::with_capacity(2)?;
                queue.send(*message).expect("room");
                Objects::Queue(queue)
            }
            1 => Objects::Shared(ShmArc::from_slice(&[message.stretch, message.sequence])?),
            2 => {
                let (sender, receiver) = QueueOptions::new().capacity(1).create_channel()?;
                sender.send(letter.clone()).expect("room");
                Objects::Receiver(receiver)
            }
            _ => {
                let (sender, receiver) = QueueOptions::new().capacity(1).create_channel()?;
                Objects::Channel(sender, receiver)
            }
        };
        Ok(Parcel { letter, objects })
    }

    /// The message that it stands for; one that is torn if the objects are not those of the letter.
    fn message(self) -> Message {
        let Parcel { letter, objects } = self;
        let message = letter.to_message();
        // Nobody else has them, so nobody else takes anything out.
        let fits = match objects {
            Objects::Queue(queue) => queue.try_recv() == Ok(message),
            Objects::Shared(words) => *words == [message.stretch, message.sequence],
            Objects::Receiver(receiver) => ends_with(&receiver, &letter),
            Objects::Channel(sender, receiver) => {
                let sent = sender.send(letter.clone()).is_ok();
                drop(sender);
                sent && ends_with(&receiver, &letter)
            }
        };
        if fits { message } else { Message::torn() }
    }
}

/// Whether exactly this letter is left in a channel without senders.
fn ends_with(receiver: &Receiver<Letter>, letter: &Letter) -> bool {
    receiver.recv().is_ok_and(|found| found == *letter)
        && receiver.recv().is_err_and(|error| error.is_disconnected())
}

/// Sends a value in one of three ways; false if there was no room. The queues have the same methods
/// and no trait in common.
macro_rules! send {
    ($post:ident, $queue:ident, $value:ident) => {{
        let time = $post.some_time();
        match $post.random.below(4) {
            0 => $post.run("try_send", || match $queue.try_send($value) {
                Err(TrySendError::Full(_) | TrySendError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            }),
            1 => $post.run("send_timeout", || match $queue.send_timeout($value, time) {
                Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            }),
            _ => $post.run("send", || match $queue.send($value) {
                Err(SendError::Rejected(..)) => false,
                other => other.map(|()| true).expect("open"),
            }),
        }
    }};
}

/// Receives a value in one of three ways, if there is one; returns once there is nothing more to
/// come.
macro_rules! receive {
    ($post:ident, $queue:ident) => {{
        let time = $post.some_time();
        match $post.random.below(4) {
            0 => match $post.run("try_recv", || $queue.try_recv()) {
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => return,
                other => Some(other.expect("a value")),
            },
            1 => match $post.run("recv_timeout", || $queue.recv_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Closed) => return,
                other => Some(other.expect("a value")),
            },
            _ => match $post.run("recv", || $queue.recv()) {
                Err(RecvError::Closed) => return,
                other => Some(other.expect("a value")),
            },
        }
    }};
}

/// Sends boxes until the end of the round.
pub fn send_packages(post: &mut Post) {
    let wait = post.some_wait();
    let queue = post.arena.packages.with_wait(wait);
    let mut sent = Sent::new(Arc::clone(&post.arena), post.object);
    while !post.is_stopping() {
        post.rest();
        if let Ok(package) = Package::new(sent.begin_one(), &mut post.random) {
            post.linger();
            if send!(post, queue, package) {
                sent.end(1);
            }
        }
    }
}

/// Receives boxes until the queue is closed and drained.
pub fn receive_packages(post: &mut Post) {
    let wait = post.some_wait();
    let queue = post.arena.packages.with_wait(wait);
    let mut received = Received::new(Arc::clone(&post.arena), post.object);
    loop {
        post.rest();
        post.take_in_hand(1);
        if let Some(package) = receive!(post, queue) {
            received.note(&package.message(), false);
            post.linger();
            if !package.message().is_whole() {
                // Somebody else writes here: the memory was taken from the living.
                post.tally().torn.fetch_add(1, Ordering::Relaxed);
            }
        }
        post.take_in_hand(0);
    }
}

/// Sends objects until the end of the round.
pub fn send_parcels(post: &mut Post) {
    let wait = post.some_wait();
    let queue = post.arena.parcels.with_wait(wait);
    let mut sent = Sent::new(Arc::clone(&post.arena), post.object);
    while !post.is_stopping() {
        post.rest();
        if let Ok(parcel) = Parcel::new(&sent.begin_one(), &mut post.random) {
            post.linger();
            if send!(post, queue, parcel) {
                sent.end(1);
            }
        }
    }
}

/// Receives objects until the queue is closed and drained.
pub fn receive_parcels(post: &mut Post) {
    let wait = post.some_wait();
    let queue = post.arena.parcels.with_wait(wait);
    let mut received = Received::new(Arc::clone(&post.arena), post.object);
    loop {
        post.rest();
        post.take_in_hand(1);
        if let Some(parcel) = receive!(post, queue) {
            post.linger();
            received.note(&parcel.message(), false);
        }
        post.take_in_hand(0);
    }
}

/// Receives what is left when the last receiver has run into a limit.
pub fn drain(arena: &Arc<Arena>) {
    let time = Duration::from_secs(1);
    let mut received = Received::new(Arc::clone(arena), Object::Packages);
    while let Ok(package) = arena.packages.recv_timeout(time) {
        received.note(&package.message(), false);
    }
    let mut received = Received::new(Arc::clone(arena), Object::Parcels);
    while let Ok(parcel) = arena.parcels.recv_timeout(time) {
        received.note(&parcel.message(), false);
    }
}
