//! Several messages at a time: one wake-up for all of them.

use std::time::{Duration, Instant};

use crate::object::attempt::{Forever, Once, Until};
use crate::object::transfer::{
    RecvError, RecvTimeoutError, SendError, SendManyError, SendStop, SendTimeoutError, Stop,
    TryRecvError, TrySendError,
};
use crate::queue::shared::{End, QueueSeat};
use crate::queue::{Queue, SendErrorOf};
use crate::ring::mpmc::Claim;
use crate::segment::Shm;
use crate::sys::clock::Deadline;

impl<T: Shm> Queue<T> {
    /// Sends all of `values` in order, waiting for free slots as long as it takes.
    ///
    /// Messages of other senders may come in between. Receivers are woken once, and not for each
    /// message.
    ///
    /// # Peer death
    /// A sender killed inside this call has sent a prefix of `values`, possibly empty.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Broken`], with the number of values that were sent.
    pub fn send_many(&self, values: &[T]) -> Result<(), SendManyError<SendError<()>>> {
        self.put_many(values, Forever)
    }

    /// Sends as many of `values` as there are free slots right now, in order.
    ///
    /// # Errors
    /// If not all were sent: how many were, and why the next one was not.
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
        self.put_many(values, Once)
    }

    /// Sends all of `values` in order, waiting at most `timeout` for free slots.
    ///
    /// # Errors
    /// If not all were sent: how many were, and why the next one was not.
    pub fn send_many_timeout(
        &self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many(values, Deadline::after(timeout))
    }

    /// Sends all of `values` in order, waiting until `deadline` for free slots.
    ///
    /// # Errors
    /// If not all were sent: how many were, and why the next one was not.
    pub fn send_many_deadline(
        &self,
        values: &[T],
        deadline: Instant,
    ) -> Result<(), SendManyError<SendTimeoutError<()>>> {
        self.put_many(values, Deadline::at(deadline))
    }

    /// Receives up to `max` messages and appends them to `values`. Waits for the first as long as
    /// it takes.
    ///
    /// Then takes what else is there, at most as many messages as the queue has slots. Returns
    /// their number, which is 0 only if `max` is.
    ///
    /// # Peer death
    /// If the receiver is killed inside this call, the messages that it has taken so far are lost.
    /// For the one that it was just taking see [`OnReceiverDeath`](crate::OnReceiverDeath).
    ///
    /// # Errors
    /// As [`Queue::recv`]; `values` is unchanged.
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
        Ok(self.get_many(values, max, Forever)?)
    }

    /// Receives up to `max` messages that are there right now and appends them to `values`.
    ///
    /// # Errors
    /// As [`Queue::try_recv`]; `values` is unchanged.
    pub fn try_recv_many(&self, values: &mut Vec<T>, max: usize) -> Result<usize, TryRecvError> {
        Ok(self.get_many(values, max, Once)?)
    }

    /// As [`Queue::recv_many`], waiting at most `timeout` for the first message.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`]; `values` is unchanged.
    pub fn recv_many_timeout(
        &self,
        values: &mut Vec<T>,
        max: usize,
        timeout: Duration,
    ) -> Result<usize, RecvTimeoutError> {
        Ok(self.get_many(values, max, Deadline::after(timeout))?)
    }

    /// As [`Queue::recv_many`], waiting until `deadline` for the first message.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`]; `values` is unchanged.
    pub fn recv_many_deadline(
        &self,
        values: &mut Vec<T>,
        max: usize,
        deadline: Instant,
    ) -> Result<usize, RecvTimeoutError> {
        Ok(self.get_many(values, max, Deadline::at(deadline))?)
    }

    fn put_many<U: Until>(
        &self,
        values: &[T],
        until: U,
    ) -> Result<(), SendManyError<SendErrorOf<U, ()>>>
    where
        Stop<U::Late>: SendStop,
    {
        let mut rest = values;
        while let [first, others @ ..] = rest {
            let claimed = self.shared.claim(End::Write, until, self.wait);
            let (place, claim) = claimed.map_err(|stop| SendManyError {
                sent: values.len() - rest.len(),
                error: stop.with(()),
            })?;
            let seat = place.seat();
            let ring = seat.block.ring();
            let mut at = ring.behind(&claim);
            publish(seat, claim, first);
            rest = others;
            // As many as can be claimed without a search.
            while let [next, others @ ..] = rest
                && let Some(claim) = ring.claim_write_at(&mut at, seat.me)
            {
                publish(seat, claim, next);
                rest = others;
            }
            // Wakes one receiver; each that takes a message and sees another wakes the next. Done
            // before waiting for a slot, too: the receivers that can free one must know that there
            // are messages.
            self.shared.notify(seat, End::Write);
        }
        Ok(())
    }

    fn get_many<U: Until>(
        &self,
        values: &mut Vec<T>,
        max: usize,
        until: U,
    ) -> Result<usize, Stop<U::Late>> {
        let max = max.min(self.capacity());
        if max == 0 {
            return Ok(0);
        }
        // Room for all of them before any is taken: running out of memory must not lose a message.
        values.reserve(max);
        let before = values.len();
        let (place, mut claim) = self.shared.claim(End::Read, until, self.wait)?;
        let seat = place.seat();
        let ring = seat.block.ring();
        let mut more = max - 1;
        loop {
            let mut at = ring.behind(&claim);
            values.push(release(seat, claim));
            while more > 0
                && let Some(claim) = ring.claim_read_at(&mut at, seat.me)
            {
                values.push(release(seat, claim));
                more -= 1;
            }
            if more == 0 {
                break;
            }
            // Even if there is no message at the hint, there may be one further on.
            match self.shared.claim(End::Read, Once, self.wait) {
                Ok((_, next)) => claim = next,
                Err(_) => break,
            }
            more -= 1;
        }
        // Wakes one sender; each that finds a slot and sees another wakes the next.
        self.shared.notify(seat, End::Read);
        Ok(values.len() - before)
    }
}

#[inline(always)]
fn publish<T: Shm>(seat: QueueSeat<T>, mut claim: Claim, value: &T) {
    seat.block.write(&mut claim, value);
    seat.block.ring().publish(claim);
}

#[inline(always)]
fn release<T: Shm>(seat: QueueSeat<T>, claim: Claim) -> T {
    let value = seat.block.read(&claim);
    seat.block.ring().release(claim);
    value
}
