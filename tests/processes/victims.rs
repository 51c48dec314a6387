//! Children that a test kills, and what they do until then.

use offspring::{Child, JoinError, Queue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{self, PATIENCE, fork};

/// Kills a child and waits until it is dead, without telling the segments: whoever is in its way
/// finds out alone.
#[track_caller]
pub fn kill<T: Serialize + DeserializeOwned>(child: &Child<T>) {
    child.kill().expect("a signal");
    common::wait_until_dead(child.id());
}

/// Kills a child that does nothing but sleep, and waits for its end.
#[track_caller]
pub fn end(child: Child<()>) {
    child.kill().expect("a signal");
    assert!(matches!(child.join(), Err(JoinError::Killed(9))));
}

/// A child that claims something, says so and waits for its end.
#[track_caller]
pub fn child_that(claim: impl FnOnce(&Queue<u64>) + Send + 'static) -> Child<()> {
    let ready = Queue::<u64>::with_capacity(1).expect("a queue");
    let theirs = ready.clone();
    let child = fork(move || claim(&theirs)).expect("fork");
    ready.recv_timeout(PATIENCE).expect("the child is ready");
    child
}

/// A child that has the first message and keeps it.
#[track_caller]
pub fn reader_of(queue: &Queue<u64>) -> Child<()> {
    let theirs = queue.clone();
    child_that(move |ready| {
        let message = theirs.recv_ref().expect("a message");
        ready.send(*message).expect("open");
        common::sleep_for_ever();
    })
}
