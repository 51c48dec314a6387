//! Several messages at a time: one wake-up for all of them.

use std::time::{Duration, Instant};

use crate::queue::TrySendError;
use crate::queue::core::{End, Until};
use crate::queue::error::Stop;
use crate::queue::guard::Slot;
use crate::queue::{
    Queue, RecvError, RecvTimeoutError, SendError, SendManyError, SendTimeoutError, TryRecvError,
};
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
    pub fn send_many_timeout(
        &self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many_until(values, Deadline::after(timeout))
    }

    /// Sends all of `values` in order, waiting until `deadline` for free slots.
    ///
    /// # Errors
    /// How many were sent if not all, and why the next one was not.
    pub fn send_many_deadline(
        &self,
        values: &[T],
        deadline: Instant,
    ) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many_until(values, Deadline::at(deadline))
    }

    /// Receives up to `max` messages and appends them to `values`: waits for the first as long as
    /// it takes, and takes what else is there, at most as many as the queue has slots. Gives their
    /// number, which is 0 only if `max` is.
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
    pub fn recv_many_timeout(
        &self,
        values: &mut Vec<T>,
        max: usize,
        timeout: Duration,
    ) -> Result<usize, RecvTimeoutError> {
        self.get_many(values, max, Until::Deadline(Deadline::after(timeout)))
            .map_err(Stop::recv_timeout)
    }

    /// As [`Queue::recv_many`], waiting until `deadline` for the first message.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`], and `values` is as it was.
    pub fn recv_many_deadline(
        &self,
        values: &mut Vec<T>,
        max: usize,
        deadline: Instant,
    ) -> Result<usize, RecvTimeoutError> {
        self.get_many(values, max, Until::Deadline(Deadline::at(deadline)))
            .map_err(Stop::recv_timeout)
    }

    fn put_many_until(
        &self,
        values: &[T],
        deadline: Deadline,
    ) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many(values, Until::Deadline(deadline)).map_err(|(sent, stop)| {
            let error = stop.send_timeout(());
            SendManyError { sent, error }
        })
    }

    fn put_many(&self, values: &[T], until: Until) -> Result<(), (usize, Stop)> {
        let mut sent = 0;
        while sent < values.len() {
            let (place, mut claim) =
                self.core.claim(End::Write, until, self.wait).map_err(|stop| (sent, stop))?;
            // As many as go without looking around, and without looking up again where the queue
            // lies.
            loop {
                Slot::new(&self.core, place, &claim).write(&values[sent]);
                place.block.ring.publish(claim);
                sent += 1;
                if sent == values.len() {
                    break;
                }
                match place.claim_at_hint(End::Write) {
                    Some(next) => claim = next,
                    None => break,
                }
            }
            // Wakes one receiver; each that takes a message and sees another wakes the next. Before
            // waiting for a slot, too: those that can free one must know of what is there.
            self.core.notify(place, End::Write);
        }
        Ok(())
    }

    fn get_many(&self, values: &mut Vec<T>, max: usize, until: Until) -> Result<usize, Stop> {
        let max = max.min(self.capacity());
        if max == 0 {
            return Ok(0);
        }
        // Room for all of them before any is taken: running out of memory must not lose a message.
        values.reserve(max);
        let (place, mut claim) = self.core.claim(End::Read, until, self.wait)?;
        let mut count = 0;
        loop {
            values.push(Slot::new(&self.core, place, &claim).read());
            place.block.ring.release(claim);
            count += 1;
            if count == max {
                break;
            }
            let next = place.claim_at_hint(End::Read);
            // At the hint there may be none though there is one further on.
            match next.or_else(|| {
                self.core.claim(End::Read, Until::Once, self.wait).ok().map(|(_, claim)| claim)
            }) {
                Some(next) => claim = next,
                None => break,
            }
        }
        // Wakes one sender; each that finds a slot and sees another wakes the next.
        self.core.notify(place, End::Read);
        Ok(count)
    }
}
