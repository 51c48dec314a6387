//! A value of several words that must agree, read by all and changed by all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use offspring::{TryUpdateError, UpdateTimeoutError};

use crate::lock_work::Account;
use crate::post::Post;

/// Changes the value and reads it until the end of the round.
pub fn work(post: &mut Post) {
    let arena = std::sync::Arc::clone(&post.arena);
    let value = arena.value.with_wait(post.some_wait());
    // The last that this worker has seen.
    let mut last = 0;
    while !post.is_stopping() {
        post.rest();
        let time = post.some_time();
        // In the middle of a change, so that kills come there.
        let pause = post.random.once_in(16).then(|| Duration::from_micros(post.random.below(2000)));
        let mut change = |account: &mut Account| {
            let whole = account.is_whole();
            account.change(|| pause.into_iter().for_each(std::thread::sleep));
            (account.version(), whole)
        };
        let changed = match post.random.below(8) {
            0 => post.run("try_update", || value.try_update(change)),
            1 => post
                .run("update_timeout", || value.update_timeout(change, time))
                .map_err(in_one_way),
            2..5 => post.run("update", || value.update(&mut change)).map_err(TryUpdateError::from),
            _ => {
                let read = post.run("get", || value.get());
                Ok(read.map(|account| (account.version(), account.is_whole())).expect("attached"))
            }
        };
        match changed {
            Ok((version, whole)) => {
                if !whole {
                    post.tally().torn.fetch_add(1, Ordering::Relaxed);
                }
                // A change that was lost is one behind which somebody finds an older value.
                if version < last {
                    post.tally().disorder.fetch_add(1, Ordering::Relaxed);
                }
                last = version;
            }
            Err(TryUpdateError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn in_one_way(error: UpdateTimeoutError) -> TryUpdateError {
    match error {
        UpdateTimeoutError::Timeout => TryUpdateError::WouldBlock,
        UpdateTimeoutError::WouldDeadlock => TryUpdateError::WouldDeadlock,
        UpdateTimeoutError::Broken(fault) => TryUpdateError::Broken(fault),
    }
}
