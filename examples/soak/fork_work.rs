//! Workers that fork children, which send something, return something, and may be killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::{Child, JoinError, Queue, TryRecvError};

use crate::fork::fork;
use crate::message::Message;
use crate::notes::Sent;
use crate::post::Post;

const SLOTS: usize = 16;
const MOST_MESSAGES: u64 = 200;

/// Forks until the end of the round.
pub fn work(post: &mut Post) {
    while !post.is_stopping() {
        let queue =
            post.run("new_queue", || Queue::with_capacity(SLOTS)).expect("room for a queue");
        let count = post.random.below(MOST_MESSAGES);
        let mut sent = Sent::new(Arc::clone(&post.arena), post.object);
        let stretch = sent.stretch();
        let child = {
            let queue = queue.clone();
            let send = move || {
                for _ in 0..count {
                    queue.send(sent.begin_one()).expect("open");
                    sent.end(1);
                }
                count
            };
            post.run("fork", || fork(send)).expect("a process")
        };
        post.linger();
        if post.random.once_in(4) {
            kill(post, &queue, child, stretch);
        } else {
            join(post, &queue, child, count);
        }
    }
}

/// Everything that the child sends comes, and then its value.
fn join(post: &Post, queue: &Queue<Message>, child: Child<u64>, count: u64) {
    for sequence in 0..count {
        let message = post.run("recv", || queue.recv()).expect("open");
        check(post, &message, sequence);
    }
    let value = post.run("join", || child.join());
    assert_eq!(value.expect("nobody kills it"), count);
}

/// Everything that the child has sent until it was killed comes.
fn kill(post: &mut Post, queue: &Queue<Message>, child: Child<u64>, stretch: usize) {
    std::thread::sleep(Duration::from_micros(post.random.below(3000)));
    post.tally().grandchildren_killed.fetch_add(1, Ordering::Relaxed);
    child.kill().expect("kill");
    match post.run("join", || child.join()) {
        Ok(_) | Err(JoinError::Killed(9)) => {}
        Err(error) => panic!("{error}"),
    }
    let mut sequence = 0;
    loop {
        match post.run("drain", || queue.try_recv()) {
            Ok(message) => check(post, &message, sequence),
            Err(TryRecvError::Empty) => break,
            Err(error) => panic!("{error}"),
        }
        sequence += 1;
    }
    let published = post.ledger().stretches[stretch].published.load(Ordering::Relaxed);
    post.tally().missing.fetch_add(published.saturating_sub(sequence), Ordering::Relaxed);
}

/// The child is the only sender and this process the only receiver: each number must come, in
/// order.
fn check(post: &Post, message: &Message, sequence: u64) {
    let tally = post.tally();
    if !message.is_whole() {
        tally.torn.fetch_add(1, Ordering::Relaxed);
    } else if message.sequence != sequence {
        tally.disorder.fetch_add(1, Ordering::Relaxed);
    }
}
