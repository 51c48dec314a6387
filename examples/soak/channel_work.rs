//! Channels whose ends go to children, some of which are killed, stopped or end without dropping
//! anything. Whoever is left learns that the others are gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::plain::{self, Receiver, Sender};
use offspring::{Child, JoinError, RecvTimeoutError, SendError};

use crate::fork::fork;
use crate::message::Message;
use crate::post::Post;

const MOST_MESSAGES: u64 = 200;
const MOST_SENDERS: u64 = 4;
/// Longer than anybody is stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes channels until the end of the round.
pub fn work(post: &mut Post) {
    while !post.is_stopping() {
        post.rest();
        if post.random.once_in(4) { send_to_child(post) } else { receive_from_children(post) }
    }
}

/// Sends each number up to `count` under this name. Returns how many it sent: all, if there is a
/// receiver to the end.
fn send_all(sender: Sender<Message>, name: u64, count: u64) -> u64 {
    for sequence in 0..count {
        // The end changes hands on the way: at no moment is there none.
        let end = sender.clone();
        match end.send(Message::new(name, sequence)) {
            Ok(()) => {}
            // The worker was killed, and its children are about to end.
            Err(SendError::Disconnected(_)) => return sequence,
            Err(error) => panic!("{error}"),
        }
    }
    count
}

/// Children send, and the channel ends when the last one is gone. What came of each is everything,
/// or, if it was killed, the beginning.
fn receive_from_children(post: &mut Post) {
    let slots = 1 << post.random.below(5);
    let (sender, receiver): (Sender<Message>, Receiver<Message>) =
        post.run("new", || plain::channel(slots)).expect("room for a channel");
    let receiver = receiver.with_wait(post.some_wait());
    let mut children: Vec<(Child<u64>, u64)> = Vec::new();
    for name in 0..1 + post.random.below(MOST_SENDERS) {
        let (end, count) = (sender.clone(), post.random.below(MOST_MESSAGES));
        let passes_on = post.random.once_in(8);
        let life = move || {
            if passes_on {
                let child = fork(move || send_all(end, name, count)).expect("a process");
                child.join().expect("nobody kills it alone")
            } else {
                send_all(end, name, count)
            }
        };
        children.push((post.run("fork", || fork(life)).expect("a process"), count));
    }
    drop(sender);
    let victim = post.random.below(2 * children.len() as u64) as usize;
    let mut kill_at = post.random.below(MOST_MESSAGES);
    let mut received = vec![0; children.len()];
    loop {
        if let (0, Some((child, _))) = (kill_at, children.get(victim)) {
            post.tally().grandchildren_killed.fetch_add(1, Ordering::Relaxed);
            child.kill().expect("kill");
        }
        kill_at = kill_at.wrapping_sub(1);
        match post.run("recv", || receiver.recv_timeout(PATIENCE)) {
            Ok(message) => {
                let tally = post.tally();
                match received.get_mut(message.stretch as usize).filter(|_| message.is_whole()) {
                    None => drop(tally.torn.fetch_add(1, Ordering::Relaxed)),
                    Some(next) if *next != message.sequence => {
                        tally.disorder.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(next) => *next += 1,
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(error) => panic!("{error}"),
        }
    }
    for ((child, count), received) in children.into_iter().zip(received) {
        match post.run("join", || child.join()) {
            Ok(sent) => {
                // It was not told too early that there is no receiver.
                let missing = count - received.min(sent);
                post.tally().missing.fetch_add(missing, Ordering::Relaxed);
            }
            Err(JoinError::Killed(9)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A child receives until it is killed or has enough, and the sender gets its message back.
fn send_to_child(post: &mut Post) {
    let slots = 1 << post.random.below(5);
    let (sender, receiver): (Sender<Message>, Receiver<Message>) =
        post.run("new", || plain::channel(slots)).expect("room for a channel");
    let sender = sender.with_wait(post.some_wait());
    let (enough, is_killed) = (post.random.below(MOST_MESSAGES), post.random.once_in(2));
    let life = move || receiver.iter().take(enough as usize).count() as u64;
    let child = post.run("fork", || fork(life)).expect("a process");
    let mut sequence = 0;
    loop {
        if is_killed && sequence == enough / 2 {
            post.tally().grandchildren_killed.fetch_add(1, Ordering::Relaxed);
            child.kill().expect("kill");
        }
        let message = Message::new(0, sequence);
        match post.run("send", || sender.send(message)) {
            Ok(()) => sequence += 1,
            Err(SendError::Disconnected(back)) => {
                if back != message {
                    post.tally().torn.fetch_add(1, Ordering::Relaxed);
                }
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    match post.run("join", || child.join()) {
        Ok(count) => {
            let missing = enough.saturating_sub(count);
            post.tally().missing.fetch_add(missing, Ordering::Relaxed);
        }
        Err(JoinError::Killed(9)) => {}
        Err(error) => panic!("{error}"),
    }
}
