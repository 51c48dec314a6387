//! Several messages at a time: one wake-up for all of them.

use std::time::{Duration, Instant};

use crate::queue::TrySendError;
use crate::queue::core::{End, Until};
use crate::queue::error::Stop;
use crate::queue::guard::Slot;
use crate::queue::{Queue, RecvError, RecvTimeoutError, SendError, SendManyError, SendTimeoutError, TryRecvError};
use crate::segment::Shm;
use crate::sys::clock::Deadline;

impl<T: Shm> Queue<T> {
    /// Sends all of `values` in order, waiting for free slots as long as it takes.
    ///
    /// Messages of other senders may come in between. Receivers are woken once, not for each.
    ///
    /// # Peer death
    /// A sender killed inside this call has sent the first so many of them.
    ///
    /// # Errors
    /// How many were sent, and [`SendError::Closed`] or [`SendError::Broken`].
    pub fn send_many(&self, values: &[T]) -> Result<(), SendManyError<SendError<()>>> {
        self.put_many(values, Until::Deadline(Deadline::NEVER)).map_err(|(sent, stop)| {
            let error = stop.send(());
            SendManyError { sent, error }
        })
    }

    /// Sends as many of `values` as there are free slots right now, in order.
    ///
    /// # Errors
    /// How many were sent if not all, and why the next one was not.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::Queue::<u8>::with_capacity(2)?;
    /// let error = queue.try_send_many(&[1, 2, 3]).unwrap_err();
    /// assert_eq!(error.sent, 2);
    /// assert!(error.error.is_full());
    /// # Ok::<(), offspring::CreateError>(())
    /// ```
    pub fn try_send_many(&self, values: &[T]) -> Result<(), SendManyError<TrySendError<()>>> {
        self.put_many(values, Until::Once).map_err(|(sent, stop)| {
            let error = stop.try_send(());
            SendManyError { sent, error }
        })
    }

    /// Sends all of `values` in order, waiting at most `timeout` for free slots.
    ///
    /// # Errors
    /// How many were sent if not all, and why the next one was not.
    pub fn send_many_timeout(&self, values: &[T], timeout: Duration) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many_until(values, Deadline::after(timeout))
    }

    /// Sends all of `values` in order, waiting until `deadline` for free slots.
    ///
    /// # Errors
    /// How many were sent if not all, and why the next one was not.
    pub fn send_many_deadline(&self, values: &[T], deadline: Instant) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many_until(values, Deadline::at(deadline))
    }

    /// Receives up to `max` messages and appends them to `values`: waits for the first as long as it takes, and takes what else is
    /// there. Gives their number, which is 0 only if `max` is.
    ///
    /// # Peer death
    /// A receiver killed inside this call is lost with those that it had taken from the queue; see
    /// [`OnReceiverDeath`](crate::OnReceiverDeath) for the one that it was just taking.
    ///
    /// # Errors
    /// As [`Queue::recv`], and `values` is as it was.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::Queue::<u8>::with_capacity(8)?;
    /// queue.send_many(&[1, 2, 3])?;
    /// let mut values = vec![0];
    /// assert_eq!(queue.recv_many(&mut values, 100)?, 3);
    /// assert_eq!(values, [0, 1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_many(&self, values: &mut Vec<T>, max: usize) -> Result<usize, RecvError> {
        self.get_many(values, max, Until::Deadline(Deadline::NEVER)).map_err(Stop::recv)
    }

    /// Receives up to `max` messages that are there right now and appends them to `values`.
    ///
    /// # Errors
    /// As [`Queue::try_recv`], and `values` is as it was.
    pub fn try_recv_many(&self, values: &mut Vec<T>, max: usize) -> Result<usize, TryRecvError> {
        self.get_many(values, max, Until::Once).map_err(Stop::try_recv)
    }

    /// As [`Queue::recv_many`], waiting at most `timeout` for the first message.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`], and `values` is as it was.
    pub fn recv_many_timeout(&self, values: &mut Vec<T>, max: usize, timeout: Duration) -> Result<usize, RecvTimeoutError> {
        self.get_many(values, max, Until::Deadline(Deadline::after(timeout))).map_err(Stop::recv_timeout)
    }

    /// As [`Queue::recv_many`], waiting until `deadline` for the first message.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`], and `values` is as it was.
    pub fn recv_many_deadline(&self, values: &mut Vec<T>, max: usize, deadline: Instant) -> Result<usize, RecvTimeoutError> {
        self.get_many(values, max, Until::Deadline(Deadline::at(deadline))).map_err(Stop::recv_timeout)
    }

    fn put_many_until(&self, values: &[T], deadline: Deadline) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many(values, Until::Deadline(deadline)).map_err(|(sent, stop)| {
            let error = stop.send_timeout(());
            SendManyError { sent, error }
        })
    }

    fn put_many(&self, values: &[T], until: Until) -> Result<(), (usize, Stop)> {
        let mut unannounced = None;
        for (sent, value) in values.iter().enumerate() {
            let claimed = match self.core.claim(End::Write, Until::Once, self.wait) {
                Err(Stop::NotNow) => {
                    // Before waiting for a slot, those that can free one must know of what is there.
                    if let Some(place) = unannounced.take() {
                        self.core.notify(place, End::Write);
                    }
                    self.core.claim(End::Write, until, self.wait)
                }
                other => other,
            };
            let (place, claim) = match claimed {
                Ok(claimed) => claimed,
                Err(stop) => {
                    if let Some(place) = unannounced {
                        self.core.notify(place, End::Write);
                    }
                    return Err((sent, stop));
                }
            };
            Slot::new(&self.core, place, claim).write(value);
            place.block.ring.publish(claim);
            unannounced = Some(place);
        }
        // Wakes one receiver; each that takes a message and sees another wakes the next.
        if let Some(place) = unannounced {
            self.core.notify(place, End::Write);
        }
        Ok(())
    }

    fn get_many(&self, values: &mut Vec<T>, max: usize, until: Until) -> Result<usize, Stop> {
        if max == 0 {
            return Ok(0);
        }
        // Room for all of them before any is taken: running out of memory must not lose a message.
        values.reserve(max.min(self.capacity()));
        let mut claimed = self.core.claim(End::Read, until, self.wait)?;
        let mut count = 0;
        loop {
            let (place, claim) = claimed;
            values.push(Slot::new(&self.core, place, claim).read());
            place.block.ring.release(claim);
            count += 1;
            let next = if count < max { self.core.claim(End::Read, Until::Once, self.wait).ok() } else { None };
            let Some(next) = next else {
                // Wakes one sender; each that finds a slot and sees another wakes the next.
                self.core.notify(place, End::Read);
                return Ok(count);
            };
            claimed = next;
        }
    }
}
