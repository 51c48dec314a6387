//! The two ends of a ring, and workers that wait to replace a dead one.
//!
//! A role is gone when nobody has an end of it, so the supervisor has one of each that stands by.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::spsc::{Consumer, Producer};
use offspring::{Fault, RecvTimeoutError, Segment, SendTimeoutError, TryRecvError, TrySendError};

use crate::message::Message;
use crate::notes::{Received, Sent};
use crate::post::Post;

/// Tries to take the place until its last holder is dead; `None` at the end of the round.
fn take<E>(post: &Post, open: impl Fn() -> Result<E, Fault>) -> Option<E> {
    loop {
        match post.run("open", &open) {
            Ok(end) => return Some(end),
            Err(Fault::RoleTaken) if post.ledger().stop.load(Ordering::Acquire) == 2 => {
                return None;
            }
            Err(Fault::RoleTaken) => std::thread::sleep(Duration::from_millis(1)),
            Err(fault) => panic!("{fault}"),
        }
    }
}

fn commons() -> Segment {
    Segment::commons().expect("the commons")
}

/// Sends until the end of the round, and keeps the ring until everything is received.
pub fn send(post: &mut Post, first: Option<Producer<Message>>) {
    let (arena, handle) = (Arc::clone(&post.arena), post.arena.ring);
    let Some(mut end) = first.or_else(|| take(post, || Producer::open(&commons(), handle))) else {
        return;
    };
    end.set_wait(post.some_wait());
    let mut sent = Sent::new(arena, post.object);
    while !post.is_stopping() {
        post.rest();
        let message = sent.begin_one();
        let time = post.some_time();
        let result = match post.random.below(4) {
            0 => match post.run("try_send", || end.try_send(message)) {
                Err(TrySendError::Full(_)) => false,
                other => other.map(|()| true).expect("a ring"),
            },
            1 => match post.run("send_timeout", || end.send_timeout(message, time)) {
                Err(SendTimeoutError::Timeout(_)) => false,
                other => other.map(|()| true).expect("a ring"),
            },
            _ => post.run("send", || end.send(message)).map(|()| true).expect("a ring"),
        };
        if result {
            sent.end(1);
        }
    }
    while post.run("drain", || !end.is_empty()) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Receives until there are no senders left and no message.
pub fn receive(post: &mut Post, first: Option<Consumer<Message>>) {
    let (arena, handle) = (Arc::clone(&post.arena), post.arena.ring);
    let Some(mut end) = first.or_else(|| take(post, || Consumer::open(&commons(), handle))) else {
        return;
    };
    end.set_wait(post.some_wait());
    let mut received = Received::new(arena, post.object);
    loop {
        post.rest();
        let last = post.ledger().stop.load(Ordering::Acquire) == 2;
        let time = post.some_time();
        post.take_in_hand(1);
        let message = match post.random.below(4) {
            0 => match post.run("try_recv", || end.try_recv()) {
                Err(TryRecvError::Empty) => None,
                other => Some(other.expect("a ring")),
            },
            _ => match post.run("recv_timeout", || end.recv_timeout(time)) {
                Err(RecvTimeoutError::Timeout) => None,
                other => Some(other.expect("a ring")),
            },
        };
        match message {
            Some(message) => {
                received.note(&message, false);
            }
            None if last => return,
            None => {}
        }
        post.take_in_hand(0);
    }
}
