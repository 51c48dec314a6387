//! Senders and receivers of a queue, with every operation.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::{
    Queue, Received as Guard, RecvError, RecvTimeoutError, Segment, SendTimeoutError, TryRecvError,
    TrySendError,
};

use crate::arena::{Arena, Object};
use crate::message::Message;
use crate::notes::{Received, Sent};
use crate::post::Post;

const MOST_AT_ONCE: u64 = 8;

/// The queue in the file: inherited, or opened by its path and name.
pub fn open_file(post: &mut Post) -> Queue<Message> {
    let inherited = &post.arena.in_file;
    if post.random.once_in(2) {
        return inherited.clone();
    }
    let segment = Segment::open_file(&post.arena.path).expect("a segment");
    Queue::open(&segment, inherited.handle()).expect("its creator lives")
}

/// Sends until the end of the round.
pub fn send(post: &mut Post, queue: &Queue<Message>) {
    let queue = queue.with_wait(post.some_wait());
    let mut sent = Sent::new(Arc::clone(&post.arena), post.object);
    while !post.is_stopping() {
        post.rest();
        match post.random.below(16) {
            0..8 => {
                let message = sent.begin_one();
                post.run("send", || queue.send(message)).expect("open");
                sent.end(1);
            }
            8 => {
                let message = sent.begin_one();
                match post.run("try_send", || queue.try_send(message)) {
                    Ok(()) => sent.end(1),
                    Err(TrySendError::Full(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            9 | 10 => {
                let (message, time) = (sent.begin_one(), post.some_time());
                match post.run("send_timeout", || queue.send_timeout(message, time)) {
                    Ok(()) => sent.end(1),
                    Err(SendTimeoutError::Timeout(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            11..14 => reserve(post, &queue, &mut sent),
            _ => {
                let count = 1 + post.random.below(MOST_AT_ONCE) as usize;
                let messages = sent.begin(count);
                post.run("send_many", || queue.send_many(&messages)).expect("open");
                sent.end(count);
            }
        }
    }
}

/// Writes a message in place, in two steps; sometimes gives the place up instead.
fn reserve(post: &mut Post, queue: &Queue<Message>, sent: &mut Sent) {
    let message = sent.begin_one();
    let mut slot = post.run("reserve", || queue.reserve()).expect("open");
    slot.write(Message::new(u64::MAX, u64::MAX));
    slot.begin(&message);
    let half = *slot;
    post.linger();
    if *slot != half {
        // Somebody else writes here: the slot was taken from the living.
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
    if post.random.once_in(8) {
        return;
    }
    slot.write(message);
    slot.commit();
    sent.end(1);
}

/// Receives until the queue is closed and drained.
pub fn receive(post: &mut Post, queue: &Queue<Message>) {
    let queue = queue.with_wait(post.some_wait());
    let mut received = Received::new(Arc::clone(&post.arena), post.object);
    // A message that comes back if we are killed must not leave the queue before it is noted.
    let in_place_only = post.object == Object::Redeliver;
    loop {
        post.rest();
        let open = match post.random.below(16) {
            choice @ 0..8 if !in_place_only => receive_copy(post, &queue, &mut received, choice),
            _ => receive_in_place(post, &queue, &mut received),
        };
        if !open {
            return;
        }
    }
}

/// Receives what is left when the last receiver has run into a limit.
pub fn drain(arena: &Arc<Arena>) {
    let queues = [
        (Object::Drop, &arena.dropping),
        (Object::Redeliver, &arena.redelivering),
        (Object::File, &arena.in_file),
    ];
    for (object, queue) in queues {
        let mut received = Received::new(Arc::clone(arena), object);
        // It is closed, so this ends at once; a queue that is broken so that it does not is a
        // matter for the accounts.
        while let Ok(message) = queue.recv_ref_timeout(Duration::from_secs(1)) {
            received.note(&message, message.redelivered());
        }
    }
}

/// Takes messages out; false once there is nothing more to come.
fn receive_copy(
    post: &mut Post,
    queue: &Queue<Message>,
    received: &mut Received,
    choice: u64,
) -> bool {
    post.take_in_hand(1);
    let message = match choice {
        0..3 => match post.run("recv", || queue.recv()) {
            Err(RecvError::Closed) => return false,
            other => Some(other.expect("a message")),
        },
        3 => match post.run("try_recv", || queue.try_recv()) {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => return false,
            other => Some(other.expect("a message")),
        },
        4 => {
            let time = post.some_time();
            match post.run("recv_timeout", || queue.recv_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Closed) => return false,
                other => Some(other.expect("a message")),
            }
        }
        _ => {
            post.take_in_hand(MOST_AT_ONCE);
            let mut messages = Vec::new();
            match post.run("recv_many", || queue.recv_many(&mut messages, MOST_AT_ONCE as usize)) {
                Err(RecvError::Closed) => return false,
                other => drop(other.expect("messages")),
            }
            messages.iter().for_each(|message| received.note(message, false));
            None
        }
    };
    if let Some(message) = message {
        received.note(&message, false);
    }
    post.take_in_hand(0);
    true
}

/// Reads a message in place; false once there is nothing more to come.
fn receive_in_place(post: &mut Post, queue: &Queue<Message>, received: &mut Received) -> bool {
    post.take_in_hand(1);
    let message: Option<Guard<'_, Message>> = match post.random.below(4) {
        0 => match post.run("try_recv_ref", || queue.try_recv_ref()) {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => return false,
            other => Some(other.expect("a message")),
        },
        1 => {
            let time = post.some_time();
            match post.run("recv_ref_timeout", || queue.recv_ref_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Closed) => return false,
                other => Some(other.expect("a message")),
            }
        }
        _ => match post.run("recv_ref", || queue.recv_ref()) {
            Err(RecvError::Closed) => return false,
            other => Some(other.expect("a message")),
        },
    };
    if let Some(message) = message {
        let first = *message;
        received.note(&first, message.redelivered());
        post.linger();
        if *message != first {
            // Somebody else writes here: the slot was taken from the living.
            post.tally().torn.fetch_add(1, Ordering::Relaxed);
        }
        drop(message);
    }
    post.take_in_hand(0);
    true
}
