//! The messages of a queue as an iterator.

use std::iter::FusedIterator;

use crate::object::carry::Transfer;
use crate::object::transfer::RecvError;
use crate::queue::Queue;

/// Receives one message after the other, waiting for each. Made by [`Queue::iter`].
///
/// # Examples
/// ```
/// let queue = offspring::Queue::<u8>::with_capacity(4)?;
/// queue.send_many(&[1, 2, 3])?;
/// queue.close();
/// assert_eq!(queue.iter().collect::<Vec<_>>(), [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is asked"]
pub struct Iter<'a, T: Transfer> {
    queue: &'a Queue<T>,
    end: Option<RecvError>,
}

impl<'a, T: Transfer> Iter<'a, T> {
    pub(crate) fn new(queue: &'a Queue<T>) -> Iter<'a, T> {
        Iter { queue, end: None }
    }

    /// Why the iteration ended: `Closed` or `Broken`; `None` before the end.
    pub fn end(&self) -> Option<RecvError> {
        self.end
    }
}

impl<T: Transfer> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.end.is_some() {
            return None;
        }
        self.queue.recv().map_err(|error| self.end = Some(error)).ok()
    }
}

/// `Closed` and `Broken` are both final.
impl<T: Transfer> FusedIterator for Iter<'_, T> {}
