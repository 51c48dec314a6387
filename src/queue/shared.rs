//! The steps of an operation: claim a slot, or wait for one; then notify the other side.
//!
//! In the common case the slot at the hint is free and nobody sleeps. This case is inlined into the
//! caller and ends there. Every other case is a call that is given only the [`Shared`], looks the
//! queue up again, and does the whole operation. Where the two paths joined again, the common case
//! had to keep what it had looked up for the other path, and took one and a half times as many
//! instructions.

use crate::object::attempt::{self, Attempt, Blocked, Never, Until, Waiting};
use crate::object::block::ends::{Ends, Role};
use crate::object::block::queue::QueueBlock;
use crate::object::ends::{Channel, ChannelKey};
use crate::object::place::{Object, Place, Seat};
use crate::object::transfer::Stop;
use crate::object::witness::{self, Witness};
use crate::peer::{Fault, PeerId};
use crate::ring::mpmc::{Claim, ClaimedSlot, Refused};
use crate::segment::Shm;
use crate::sync::Wait;
use crate::sync::spin::Patience;

/// What all handles of a queue in a process share.
pub(crate) struct Shared<T: Shm> {
    pub(crate) object: Object<QueueBlock<T>>,
    /// Of senders that wait for space.
    senders: Waiting,
    /// Of receivers that wait for a message.
    receivers: Waiting,
    /// In a channel.
    witness: Witness,
}

/// Where the queue lies.
pub(crate) type QueuePlace<T> = Place<QueueBlock<T>>;

/// The queue, as this process uses it.
pub(crate) type QueueSeat<T> = Seat<QueueBlock<T>>;

/// One end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Write,
    Read,
}

impl<T: Shm> Channel for Shared<T> {
    fn key(&self) -> ChannelKey {
        self.object.key()
    }

    fn ends(&self) -> Result<(PeerId, &Ends), Fault> {
        let place = self.object.enter()?;
        Ok((place.peer(), place.block().ends().ok_or(Fault::Corrupt)?))
    }

    fn is_in_flight(&self, role: Role) -> bool {
        let Ok(holder) = self.object.holder() else { return false };
        witness::is_in_flight(&self.object, &holder, role)
    }

    fn close(&self) {
        if let Ok(place) = self.object.enter() {
            close(place.seat());
        }
    }
}

impl<T: Shm> Shared<T> {
    pub(crate) fn new(object: Object<QueueBlock<T>>) -> Shared<T> {
        let senders = Waiting::new(Patience::for_space(object.shape().capacity()));
        let receivers = Waiting::new(Patience::new());
        Shared { object, senders, receivers, witness: Witness::new() }
    }

    /// Claims a slot; waits for one as `until` and `wait` say.
    #[cold]
    pub(crate) fn claim<U: Until>(
        &self,
        end: End,
        until: U,
        wait: Wait,
    ) -> Result<(&QueuePlace<T>, Claim), Stop<U::Late>> {
        let place = self.object.enter().map_err(Stop::Broken)?;
        let seat = place.seat();
        let mut claiming = self.claiming(seat, end);
        let blocked = match claiming.attempt(false) {
            Ok(done) => return done.map(|claim| (place, claim)).map_err(Stop::widen),
            Err(blocked) => blocked,
        };
        let event = match end {
            End::Write => seat.block.space(),
            End::Read => seat.block.items(),
        };
        let waiting = self.waiting(end);
        let events = [seat.event(event)];
        let claimed =
            attempt::go_on(&self.object, claiming, blocked, until, &events, wait, waiting);
        // Only in a stream, as the look takes the cache line of the next slot from a sender.
        if end == End::Read && waiting.patience.is_in_stream() {
            waiting.patience.found(1 + u64::from(seat.block.ring().has_message()));
        }
        claimed.map_err(Stop::Late)?.map(|claim| (place, claim)).map_err(Stop::widen)
    }

    /// Why operations at this end never succeed again, as far as that can be told now; `None` if
    /// they may. What was sent before can still be received. Asks the kernel no more often than an
    /// operation that does not wait.
    #[cold]
    pub(crate) fn over(&self, end: End) -> Option<Stop<Never>> {
        let seat = match self.object.enter() {
            Ok(place) => place.seat(),
            Err(fault) => return Some(Stop::Broken(fault)),
        };
        let is_channel = seat.block.ends().is_some();
        let others_have_gone = || {
            let may_ask = is_channel && self.waiting(end).may_ask();
            may_ask && self.claiming(seat, end).others_have_gone()
        };
        let is_over = seat.block.ring().is_closed() || others_have_gone();
        is_over.then_some(if is_channel { Stop::Disconnected } else { Stop::Closed })
    }

    fn claiming(&self, seat: QueueSeat<T>, end: End) -> Claiming<'_, T> {
        Claiming { object: &self.object, witness: &self.witness, seat, end }
    }

    /// What those know who wait at this end.
    fn waiting(&self, end: End) -> &Waiting {
        match end {
            End::Write => &self.senders,
            End::Read => &self.receivers,
        }
    }

    /// For use after a message was published (`Write`) or a slot released (`Read`). Wakes one
    /// process that waits for that. On the same side, passes on a wake-up that a killed process may
    /// have taken.
    #[inline]
    pub(crate) fn notify(&self, seat: QueueSeat<T>, end: End) {
        let (items, space) = (seat.block.items(), seat.block.space());
        let (theirs, ours) = match end {
            End::Write => (items, space),
            End::Read => (space, items),
        };
        let reads_again = end == End::Read && seat.block.redelivers();
        if seat.event(theirs).has_sleepers()
            || seat.event(ours).seems_to_have_sleepers()
            || reads_again
        {
            self.notify_slowly(end);
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_slowly(&self, end: End) {
        // Only a process that has just used the queue comes here.
        let Ok(seat) = self.object.enter().map(Place::seat) else { return };
        let (items, space) = (seat.event(seat.block.items()), seat.event(seat.block.space()));
        let ring = seat.block.ring();
        match end {
            End::Write => {
                items.notify_one();
                if space.seems_to_have_sleepers() && ring.has_space() {
                    space.notify_one();
                }
            }
            End::Read => {
                if seat.block.redelivers() {
                    ring.keep_done();
                }
                space.notify_one();
                if !items.seems_to_have_sleepers() {
                    return;
                }
                // In a closed ring other receivers may wait for this release, after which they know
                // that nothing more comes.
                if ring.is_closed() {
                    items.notify_all();
                } else if ring.has_message() {
                    items.notify_one();
                }
            }
        }
    }
}

/// Claims the slot that is most likely the next one, if it is free.
#[inline(always)]
pub(crate) fn claim_at_hint<T: Shm>(seat: QueueSeat<T>, end: End) -> Option<Claim> {
    match end {
        End::Write => seat.block.ring().claim_write_at_hint(seat.me),
        End::Read => seat.block.ring().claim_read_at_hint(seat.me),
    }
}

/// Closes the queue, and wakes all who wait.
pub(crate) fn close<T: Shm>(seat: QueueSeat<T>) {
    seat.block.ring().close();
    seat.event(seat.block.items()).notify_all();
    seat.event(seat.block.space()).notify_all();
}

/// For use after a slot without a message came free (given up, or taken from a dead process): a
/// receiver may have waited for this position, and a sender may use the slot.
pub(crate) fn notify_both<T: Shm>(seat: QueueSeat<T>) {
    seat.event(seat.block.items()).notify_one();
    seat.event(seat.block.space()).notify_one();
}

/// Claims a slot after the claim at the hint has failed.
struct Claiming<'a, T: Shm> {
    object: &'a Object<QueueBlock<T>>,
    witness: &'a Witness,
    seat: QueueSeat<T>,
    end: End,
}

impl<T: Shm> Attempt for Claiming<'_, T> {
    /// A claim, or why there will never be one.
    type Done = Result<Claim, Stop<Never>>;
    type Held = ClaimedSlot;

    fn attempt(&mut self, look: bool) -> Result<Self::Done, Blocked<ClaimedSlot>> {
        loop {
            let ring = self.seat.block.ring();
            let claimed = match self.end {
                End::Write => ring.claim_write(self.seat.me),
                End::Read => ring.claim_read(self.seat.me),
            };
            return match claimed {
                Ok(claim) => Ok(Ok(claim)),
                Err(Refused::Closed) if self.seat.block.ends().is_some() => {
                    Ok(Err(Stop::Disconnected))
                }
                Err(Refused::Closed) => Ok(Err(Stop::Closed)),
                Err(Refused::Corrupt) => Ok(Err(Stop::Broken(Fault::Corrupt))),
                Err(Refused::NotNow(Some(held))) => Err(Blocked::Behind(held)),
                Err(Refused::NotNow(None)) if !self.may_change() => Err(Blocked::Nobody),
                Err(Refused::NotNow(None)) if !look => Err(Blocked::Perhaps),
                // Closed now.
                Err(Refused::NotNow(None)) if self.others_have_gone() => continue,
                Err(Refused::NotNow(None)) if !self.may_come_back() => Err(Blocked::Nobody),
                Err(Refused::NotNow(None)) => match self.look_for_orphans() {
                    Orphan::Made => continue,
                    // It blocks nobody, but it comes back if its reader dies. So the waiter checks
                    // as often as behind an owner.
                    Orphan::MayCome => Err(Blocked::Living),
                    Orphan::None => Err(Blocked::Nobody),
                },
            };
        }
    }

    fn owner(held: ClaimedSlot) -> u32 {
        held.owner()
    }

    fn succeed(&mut self, held: ClaimedSlot) -> Option<Self::Done> {
        if self.seat.block.ring().gives_up(held)
            && let Ok(holder) = self.object.holder()
        {
            // Before: whoever clears up after the owner must look for what the message carried.
            holder.pool().mark_everywhere(held.owner());
        }
        if self.seat.block.ring().recover(held) {
            notify_both(self.seat);
        }
        None
    }
}

/// Whether a message comes back from those that are reading, in a queue that delivers again.
enum Orphan {
    /// The message of a dead receiver can be claimed now.
    Made,
    /// A living receiver is reading a message, which comes back if that receiver dies.
    MayCome,
    /// Nobody is reading a message that would come back.
    None,
}

impl<T: Shm> Claiming<'_, T> {
    /// Whether a look at who is alive may find that the operation can go on, or never will.
    fn may_change(&self) -> bool {
        self.may_come_back() || self.seat.block.ends().is_some()
    }

    /// Whether nobody has the other end of this channel any more. Asks the kernel about one process
    /// that has, however many there are.
    fn others_have_gone(&self) -> bool {
        let Some(ends) = self.seat.block.ends() else { return false };
        let others = match self.end {
            End::Write => Role::Receiver,
            End::Read => Role::Sender,
        };
        let gone = self.witness.others_have_gone(self.object, ends, others);
        if gone {
            close(self.seat);
        }
        gone
    }

    /// Whether a message may come back from a receiver that is killed.
    fn may_come_back(&self) -> bool {
        self.end == End::Read && self.seat.block.redelivers()
    }

    fn look_for_orphans(&self) -> Orphan {
        let ring = self.seat.block.ring();
        // A process that made an orphan may have been killed before it set the flag.
        if ring.find_orphan() {
            return Orphan::Made;
        }
        let mut last_judged = None;
        let mut found = Orphan::None;
        for held in ring.read_by_others(self.seat.me) {
            // Often many slots in a row have the same reader, and one question to the kernel is
            // enough.
            let (owner, dead) = last_judged
                .filter(|&(owner, _)| owner == held.owner())
                .unwrap_or_else(|| (held.owner(), self.object.is_dead(held.owner())));
            if dead && ring.recover(held) {
                return Orphan::Made;
            }
            if !dead {
                found = Orphan::MayCome;
            }
            last_judged = Some((owner, dead));
        }
        found
    }
}
