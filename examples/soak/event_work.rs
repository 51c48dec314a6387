//! Events with automatic reset, by which workers let each other pass, and a gate that is opened and
//! shut.

use std::sync::atomic::Ordering;

use offspring::{Event, WaitTimeoutError};

use crate::post::Post;

/// Sets events and waits for them until the end of the round.
pub fn work(post: &mut Post) {
    let arena = std::sync::Arc::clone(&post.arena);
    let wait = post.some_wait();
    let turns = [0, 1].map(|turn| arena.turns[turn].with_wait(wait));
    let gate = arena.gate.with_wait(wait);
    while !post.is_stopping() {
        post.rest();
        let time = post.some_time();
        let turn = post.random.below(2) as usize;
        match post.random.below(8) {
            0..3 => {
                // Before it, so that a worker that is killed in between has counted one too many
                // and never one too few.
                post.ledger().sets[turn].fetch_add(1, Ordering::SeqCst);
                post.run("set", || turns[turn].set()).expect("attached");
            }
            3 => {
                let waited = post.run("wait", || turns[turn].wait_timeout(time));
                passed(post, waited.map(|()| turn));
            }
            4 => {
                let both = [&turns[0], &turns[1]];
                let waited = post.run("wait_any", || Event::wait_any_timeout(&both, time));
                passed(post, waited);
            }
            5 => {
                let waited = post.run("try_wait", || turns[turn].try_wait());
                passed(post, waited.map(|()| turn).map_err(|_| WaitTimeoutError::Timeout));
            }
            6 => {
                post.run("open", || gate.set()).expect("attached");
                post.linger();
                post.run("shut", || gate.clear()).expect("attached");
            }
            _ => match post.run("gate", || gate.wait_timeout(time)) {
                Ok(()) | Err(WaitTimeoutError::Timeout) => {}
                Err(error) => panic!("{error}"),
            },
        }
    }
}

/// Notes that this worker has passed by an event. Nobody passes more often than it was set.
fn passed(post: &Post, waited: Result<usize, WaitTimeoutError>) {
    match waited {
        Ok(turn) => {
            let passes = post.ledger().passes[turn].fetch_add(1, Ordering::SeqCst) + 1;
            if passes > post.ledger().sets[turn].load(Ordering::SeqCst) {
                post.tally().twice.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(WaitTimeoutError::Timeout) => {}
        Err(error) => panic!("{error}"),
    }
}
