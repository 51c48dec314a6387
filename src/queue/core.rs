//! How an operation goes: claim a slot, or wait for one; afterwards tell the other side.
//!
//! The common case is inlined into the caller and makes nothing that must lie in memory. What is
//! rare is called with the [`Core`] alone and looks everything up again. Handing over what was
//! looked up made the compiler build it in memory for every message: in one thread, sending and
//! receiving took 10 times as long as `ArrayQueue` does, and takes 1.4 times as long now (medians
//! of 45 alternating runs on a loaded Xeon, family 6 model 207).

use crate::object::holding::{Holding, Seat};
use crate::object::queue_block::{QueueBlock, Shape};
use crate::peer::Fault;
use crate::queue::error::Stop;
use crate::ring::mpmc::{Claim, Held, OnReaderDeath, Refused};
use crate::sync::Wait;
use crate::sync::looks::Looks;
use crate::sync::spin::Patience;
use crate::sync::wait::{self, Obstacle};
use crate::sys::clock::Deadline;

/// What all handles of a queue in a process share.
pub(crate) struct Core {
    pub(crate) holding: Holding,
    pub(crate) shape: Shape,
    /// Of those who wait for space, and of those who wait for a message.
    patience: [Patience; 2],
    /// When an attempt that does not wait last asked the kernel about an owner in its way.
    looks: Looks,
}

/// One end of the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Write,
    Read,
}

/// How long an operation tries.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Once,
    Deadline(Deadline),
}

/// The queue as this process has it, for one operation.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) seat: Seat<'a>,
    pub(crate) block: QueueBlock<'a>,
}

impl Core {
    pub(crate) fn new(holding: Holding, shape: Shape) -> Core {
        let patience = [Patience::for_space(shape.capacity), Patience::new()];
        Core { holding, shape, patience, looks: Looks::new() }
    }

    /// Begins an operation.
    // Always inlined, here and in `claim`: the hint alone leaves a call that returns 150 bytes
    // through memory.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Result<Place<'_>, Fault> {
        let seat = self.holding.enter()?;
        let block = QueueBlock::view(seat.region, self.holding.offset(), &self.shape)
            .ok_or(Fault::Corrupt)?;
        Ok(Place { seat, block })
    }

    /// Claims a slot; waits for one as `until` and `wait` say.
    #[inline(always)]
    pub(crate) fn claim(
        &self,
        end: End,
        until: Until,
        wait: Wait,
    ) -> Result<(Place<'_>, Claim), Stop> {
        let place = self.enter().map_err(Stop::Fault)?;
        let claim = match place.claim_at_hint(end) {
            Some(claim) => claim,
            None => self.claim_slowly(end, until, wait)?,
        };
        Ok((place, claim))
    }

    #[cold]
    #[inline(never)]
    fn claim_slowly(&self, end: End, until: Until, wait: Wait) -> Result<Claim, Stop> {
        let place = self.enter().map_err(Stop::Fault)?;
        let refused = match place.claim(end) {
            Ok(claim) => return Ok(claim),
            Err(Refused::Closed) => return Err(Stop::Closed),
            Err(Refused::Corrupt) => return Err(Stop::Fault(Fault::Corrupt)),
            Err(refused) => refused,
        };
        match until {
            Until::Once => {
                let redelivers =
                    place.block.ring.policy == OnReaderDeath::Redeliver && end == End::Read;
                let look = (redelivers || matches!(refused, Refused::NotNow(Some(_))))
                    && self.looks.is_time();
                settle(place.claim_past_the_dead(end, look)).unwrap_or(Err(Stop::NotNow))
            }
            Until::Deadline(deadline) => {
                let (event, patience) = match end {
                    End::Write => (place.block.space, &self.patience[0]),
                    End::Read => (place.block.items, &self.patience[1]),
                };
                let event = event.with(place.seat.fences);
                let attempt = |look| settle(place.claim_past_the_dead(end, look));
                let claimed = wait::wait(event, wait, patience, deadline, attempt)
                    .unwrap_or(Err(Stop::NotNow));
                // In a stream alone: the look takes the line of the next slot from a sender.
                if end == End::Read && patience.is_in_stream() {
                    patience.found(1 + u64::from(place.block.ring.has_message()));
                }
                claimed
            }
        }
    }

    /// After a message was published (`Write`) or a slot released (`Read`): wakes one who waits for
    /// that, and passes on what a killed process may have slept through on the same side.
    #[inline]
    pub(crate) fn notify(&self, Place { seat, block }: Place<'_>, end: End) {
        let (theirs, ours) = match end {
            End::Write => (block.items, block.space),
            End::Read => (block.space, block.items),
        };
        if theirs.with(seat.fences).has_sleepers()
            || ours.with(seat.fences).seems_to_have_sleepers()
        {
            self.notify_slowly(end);
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_slowly(&self, end: End) {
        // Only a process that has just used the queue comes here.
        let Ok(Place { seat, block }) = self.enter() else { return };
        let (items, space) = (block.items.with(seat.fences), block.space.with(seat.fences));
        match end {
            End::Write => {
                items.notify_one();
                if space.seems_to_have_sleepers() && block.ring.has_space() {
                    space.notify_one();
                }
            }
            End::Read => {
                space.notify_one();
                if !items.seems_to_have_sleepers() {
                    return;
                }
                // In a closed ring the others may wait for this very release, to know that nothing
                // more comes.
                if block.ring.is_closed() {
                    items.notify_all();
                } else if block.ring.has_message() {
                    items.notify_one();
                }
            }
        }
    }
}

impl Place<'_> {
    #[inline]
    pub(crate) fn claim_at_hint(&self, end: End) -> Option<Claim> {
        match end {
            End::Write => self.block.ring.claim_write_at_hint(self.seat.me.owner()),
            End::Read => self.block.ring.claim_read_at_hint(self.seat.me.owner()),
        }
    }

    fn claim(&self, end: End) -> Result<Claim, Refused> {
        match end {
            End::Write => self.block.ring.claim_write(self.seat.me.owner()),
            End::Read => self.block.ring.claim_read(self.seat.me.owner()),
        }
    }

    /// Tries; if a dead process is in the way, clears it away and tries again.
    fn claim_past_the_dead(&self, end: End, look: bool) -> Result<Claim, Refused> {
        loop {
            match self.claim(end) {
                Err(Refused::NotNow(Some(held))) if look && self.seat.is_dead(held.owner()) => {
                    if self.block.ring.recover(held) {
                        self.notify_both();
                    }
                }
                Err(Refused::NotNow(None)) if look && end == End::Read => {
                    match self.look_for_orphans() {
                        Orphan::Made => {}
                        // It bars nobody's way, but the death of its reader brings it back: whoever
                        // waits looks as often as behind an owner.
                        Orphan::MayCome(held) => return Err(Refused::NotNow(Some(held))),
                        Orphan::None => return Err(Refused::NotNow(None)),
                    }
                }
                other => return other,
            }
        }
    }

    /// What comes back from receivers that are killed, in a queue that delivers again.
    fn look_for_orphans(&self) -> Orphan {
        let Place { seat, block } = self;
        if block.ring.policy == OnReaderDeath::Drop {
            return Orphan::None;
        }
        // Whoever made an orphan may have been killed before it said so.
        if block.ring.find_orphan() {
            return Orphan::Made;
        }
        let mut last_judged = None;
        let mut found = Orphan::None;
        for held in block.ring.read_by_others(seat.me.owner()) {
            // Many slots in a row have the same reader; one question to the kernel answers for all.
            let (owner, dead) = last_judged
                .filter(|&(owner, _)| owner == held.owner())
                .unwrap_or_else(|| (held.owner(), seat.is_dead(held.owner())));
            if dead && block.ring.recover(held) {
                return Orphan::Made;
            }
            if !dead {
                found = Orphan::MayCome(held);
            }
            last_judged = Some((owner, dead));
        }
        found
    }

    /// A slot without a message came free (aborted, or taken from the dead): a receiver may have
    /// waited for just this position, and a sender may use the slot.
    pub(crate) fn notify_both(&self) {
        self.block.items.with(self.seat.fences).notify_one();
        self.block.space.with(self.seat.fences).notify_one();
    }
}

/// What becomes of messages that others are reading, in a queue that delivers again.
enum Orphan {
    /// A message of a dead receiver can be had now.
    Made,
    /// A living receiver reads this one.
    MayCome(Held),
    /// Nobody reads anything that would come back.
    None,
}

/// Tells the end of an attempt from an obstacle that may pass.
fn settle(result: Result<Claim, Refused>) -> Result<Result<Claim, Stop>, Obstacle> {
    match result {
        Ok(claim) => Ok(Ok(claim)),
        Err(Refused::Closed) => Ok(Err(Stop::Closed)),
        Err(Refused::Corrupt) => Ok(Err(Stop::Fault(Fault::Corrupt))),
        Err(Refused::NotNow(Some(_))) => Err(Obstacle::Owner),
        Err(Refused::NotNow(None)) => Err(Obstacle::Nobody),
    }
}
