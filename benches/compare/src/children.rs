//! Starting, killing and joining children by the dozen.

use std::os::fd::AsFd;
use std::time::Instant;

use offspring::{Child, ForkError, Return};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// Runs `closure` in a copy of this process, see [`offspring::fork`].
#[expect(unsafe_code, reason = "forks")]
pub(crate) fn fork<F, R>(closure: F) -> Result<Child<R>, ForkError>
where
    F: FnOnce() -> R + Send + 'static,
    R: Return,
{
    // SAFETY: what a child uses of other crates was made for it before and is not used by its
    // parent meanwhile, or is made to be shared by processes.
    unsafe { offspring::fork(closure) }
}

/// Starts a child for each, or none.
pub(crate) fn start_all<R, F>(bodies: impl Iterator<Item = F>) -> Result<Vec<Child<R>>, Failure>
where
    R: Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let mut children = Vec::new();
    for body in bodies {
        match fork(body) {
            Ok(child) => children.push(child),
            Err(error) => {
                kill(&children);
                return Err(error.into());
            }
        }
    }
    Ok(children)
}

/// Kills those that have not ended.
pub(crate) fn kill<R>(children: &[Child<R>]) {
    for child in children {
        // One that has ended needs no killing.
        let _ = child.kill();
    }
}

/// Waits for all without looking again and again, which would disturb what is measured.
pub(crate) fn join_all<R: DeserializeOwned>(
    mut children: Vec<Child<R>>,
    deadline: Instant,
) -> Result<Vec<R>, Failure> {
    let mut results: Vec<Option<R>> = children.iter().map(|_| None).collect();
    loop {
        let mut failure = None;
        let mut waiting = Vec::new();
        for (index, child) in children.iter_mut().enumerate() {
            if results[index].is_some() {
                continue;
            }
            match child.try_join() {
                None => waiting.push(index),
                Some(Ok(result)) => results[index] = Some(result),
                Some(Err(error)) => failure = Some(error.to_string()),
            }
        }
        if let Some(failure) = failure {
            kill(&children);
            return Err(failure.into());
        }
        if waiting.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            kill(&children);
            return Err("hangs; killed".into());
        }
        let mut ends: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|&index| PollFd::from_borrowed_fd(children[index].as_fd(), PollFlags::IN))
            .collect();
        match poll(&mut ends, Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
