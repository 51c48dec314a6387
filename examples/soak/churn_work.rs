//! Makes queues and locks, sends their names, opens those of others, and drops them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use offspring::{Fault, Handle, Lock, Queue, Segment, Shm, TryRecvError, TrySendError};

use crate::lock_work::Account;
use crate::message::Message;
use crate::post::Post;

/// The name of an object, and the mark that its values bear.
#[derive(Clone, Copy, Debug, Shm)]
#[repr(C)]
pub struct Name {
    handle: Handle,
    mark: u64,
    is_lock: u64,
}

#[derive(Debug)]
enum Made {
    Queue(Queue<Message>),
    Lock(Lock<Account>),
}

const MOST_HELD: usize = 6;
const MOST_SLOTS: u64 = 300;

/// Makes, opens and drops until the end of the round.
pub fn work(post: &mut Post) {
    let arena = Arc::clone(&post.arena);
    let commons = Segment::commons().expect("the commons");
    let mut held = VecDeque::new();
    while !post.is_stopping() {
        post.rest();
        if post.random.once_in(2) {
            let (name, made) = make(post);
            post.linger();
            held.push_back(made);
            // Where nobody listens, the name is lost and the object is not.
            match post.run("name", || arena.names.try_send(name)) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(error) => panic!("{error}"),
            }
        } else {
            match post.run("listen", || arena.names.try_recv()) {
                Ok(name) => held.extend(open(post, &commons, name)),
                Err(TryRecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
        while held.len() > MOST_HELD {
            post.run("drop", || held.pop_front());
        }
    }
}

fn make(post: &mut Post) -> (Name, Made) {
    let mark = post.random.next();
    if post.random.once_in(2) {
        let lock = post.run("new_lock", || Lock::new(Account::of(mark))).expect("room for a lock");
        return (Name { handle: lock.handle(), mark, is_lock: 1 }, Made::Lock(lock));
    }
    let capacity = 1 + post.random.below(MOST_SLOTS);
    let queue = post
        .run("new_queue", || Queue::with_capacity(capacity as usize))
        .expect("room for a queue");
    let count = post.random.below(capacity.min(8) + 1);
    (0..count).for_each(|n| queue.try_send(Message::new(mark, n)).expect("a new queue is empty"));
    (Name { handle: queue.handle(), mark, is_lock: 0 }, Made::Queue(queue))
}

/// Opens what the name says; whatever is found must bear its mark.
fn open(post: &Post, commons: &Segment, name: Name) -> Option<Made> {
    let opened = if name.is_lock == 1 {
        post.run("open_lock", || Lock::open(commons, name.handle)).map(Made::Lock)
    } else {
        post.run("open_queue", || Queue::open(commons, name.handle)).map(Made::Queue)
    };
    let sound = match &opened {
        Ok(Made::Lock(lock)) => match lock.lock() {
            Ok(guard) => *guard == Account::of(name.mark),
            // Whoever looked at it before us was killed; nobody has changed it.
            Err(_) => lock.recover().is_ok_and(|guard| {
                let sound = *guard == Account::of(name.mark);
                drop(guard.mark_repaired());
                sound
            }),
        },
        Ok(Made::Queue(queue)) => match queue.try_recv() {
            Ok(message) => message.stretch == name.mark && message.is_whole(),
            Err(error) => error == TryRecvError::Empty,
        },
        // Its maker has dropped it or is dead.
        Err(fault) => *fault == Fault::Stale,
    };
    if !sound {
        post.tally().torn.fetch_add(1, Ordering::Relaxed);
    }
    opened.ok()
}
