//! A ring with one sender and one receiver: the fastest way from one process to another.
//!
//! No read-modify-write and no claim: a single store publishes a message. Use it where one process
//! produces and one consumes; where there may be more, [`Queue`](crate::Queue) is the answer.
//!
//! # Examples
//! ```standalone_crate
//! let (mut sender, mut receiver) = offspring::spsc::ring::<u64>(64)?;
//! let child = offspring::fork(move || (0..1000).for_each(|n| sender.send(n).unwrap()))?;
//! for n in 0..1000 {
//!     assert_eq!(receiver.recv()?, n);
//! }
//! child.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![expect(
    unsafe_code,
    reason = "the values of slots that belong to one side are reached by pointer"
)]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::object::clear::Kind;
use crate::object::holding::{Holding, Seat, kind_of};
use crate::object::spsc_block::{MOST_ALIGN, Shape, SideWords, SpscBlock};
use crate::object::{CreateError, Handle};
use crate::peer::{Fault, PeerId};
use crate::primitive::Ordering;
use crate::queue::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, Stop, TryRecvError, TrySendError,
};
use crate::ring::mpmc::is_capacity;
use crate::ring::position::MOST_SLOTS;
use crate::ring::spsc::{self, Corrupt, Side};
use crate::segment::{Segment, Shm};
use crate::sync::Wait;
use crate::sync::spin::Patience;
use crate::sync::wait::{self, Obstacle};
use crate::sys::clock::Deadline;

#[cfg(test)]
mod tests;

/// Makes a ring of `capacity` slots in the commons and gives its two ends.
///
/// # Errors
/// As [`Queue::with_capacity`](crate::Queue::with_capacity).
pub fn ring<T: Shm>(capacity: usize) -> Result<(Producer<T>, Consumer<T>), CreateError> {
    ring_in(&Segment::commons()?, capacity)
}

/// Makes a ring of `capacity` slots in `segment` and gives its two ends.
///
/// # Errors
/// As [`Queue::with_capacity`](crate::Queue::with_capacity).
pub fn ring_in<T: Shm>(
    segment: &Segment,
    capacity: usize,
) -> Result<(Producer<T>, Consumer<T>), CreateError> {
    if !is_capacity(capacity as u64) {
        return Err(CreateError::Capacity { capacity, most: MOST_SLOTS as usize });
    }
    if align_of::<T>() > MOST_ALIGN {
        return Err(CreateError::Alignment { align: align_of::<T>(), most: MOST_ALIGN });
    }
    let too_large = CreateError::OutOfMemory { requested: u64::MAX, available: segment.len() };
    let shape = Shape::new(capacity as u64, size_of::<T>() as u64).ok_or(too_large)?;
    let holding =
        Holding::create(segment, kind_of::<T>(Kind::Spsc), shape.len(), |region, offset| {
            SpscBlock::build(region, offset, &shape, align_of::<T>())
        })?;
    let core = Core::new(holding, shape);
    // Both roles are this process's until an end is moved into a child.
    let sender = End::take(Arc::clone(&core), Role::Sender)?;
    let receiver = End::take(core, Role::Receiver)?;
    Ok((Producer { end: sender }, Consumer { end: receiver }))
}

/// What both ends of a ring share in a process.
struct Core {
    holding: Holding,
    shape: Shape,
    /// Of the sender and of the receiver.
    patience: [Patience; 2],
}

impl Core {
    fn new(holding: Holding, shape: Shape) -> Arc<Core> {
        let patience = [Patience::for_space(shape.capacity), Patience::new()];
        Arc::new(Core { holding, shape, patience })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
}

/// One end of a ring.
struct End<T> {
    core: Arc<Core>,
    tenure: Tenure,
    values: PhantomData<fn(T) -> T>,
}

/// How this process has its role.
///
/// # Invariants
/// If `held_as` is the identity of this process, the ring's role word names this process, this is
/// its only `Tenure` of that role, and `side` is its view.
struct Tenure {
    role: Role,
    held_as: u64,
    side: Option<Side>,
    wait: Wait,
}

impl Tenure {
    /// Whether this process has the role now, taking it if it is free or, having looked, if its
    /// holder is dead.
    #[cold]
    fn take(
        &mut self,
        capacity: u64,
        seat: &Seat<'_>,
        block: &SpscBlock<'_>,
        look: bool,
    ) -> Result<bool, Fault> {
        let me = seat.me.to_bits();
        let role = &words(block, self.role).role;
        // Acquire pairs with the Release of the last holder's drop.
        let holder = role.load(Ordering::Acquire);
        let free = match PeerId::from_bits(holder) {
            None => holder == 0,
            // Another end of this process, or one that was forgotten.
            Some(peer) if peer == seat.me => false,
            Some(peer) => look && seat.is_gone(peer),
        };
        if !free || role.compare_exchange(holder, me, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return Ok(false);
        }
        let (tail, head) = (&block.sender.index, &block.receiver.index);
        let resumed = match self.role {
            Role::Sender => spsc::resume_sender(tail, head, capacity),
            Role::Receiver => spsc::resume_receiver(tail, head, capacity),
        };
        let Ok(side) = resumed else {
            // Whoever asks again is to be told the same, and not that the role is taken.
            let _ = role.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
            return Err(Fault::Corrupt);
        };
        self.side = Some(side);
        // INVARIANT: the compare-and-swap made the role ours.
        self.held_as = me;
        Ok(true)
    }

    /// The side, if this process has the role.
    #[inline]
    fn side(&mut self, seat: &Seat<'_>) -> Option<&mut Side> {
        if self.held_as == seat.me.to_bits() { self.side.as_mut() } else { None }
    }

    /// Looks for slots, as none is known, and waits until there is one; without a deadline, looks
    /// once.
    ///
    /// Finds everything anew: what the common path handed over it would have to build in memory
    /// every time.
    #[cold]
    #[inline(never)]
    fn wait<T>(
        &mut self,
        core: &Core,
        deadline: Option<Deadline>,
        ready: impl Fn(&mut Side, &SpscBlock<'_>, u64) -> Result<u64, Corrupt>,
    ) -> Result<(), Stop> {
        let seat = &core.holding.enter().map_err(Stop::Fault)?;
        let block = &view::<T>(core, seat).ok_or(Stop::Fault(Fault::Corrupt))?;
        let (event, patience) = match self.role {
            Role::Sender => (block.space, &core.patience[0]),
            Role::Receiver => (block.items, &core.patience[1]),
        };
        let wait = self.wait;
        let mut attempt = |look: bool| {
            if self.side(seat).is_none() {
                match self.take(core.shape.capacity, seat, block, look) {
                    Ok(true) => {}
                    // After a fork: the parent has not dropped its copy of this end yet.
                    Ok(false) => return Err(Obstacle::Owner),
                    Err(fault) => return Ok(Err(Stop::Fault(fault))),
                }
            }
            match self.side(seat).map(|side| ready(side, block, 1)) {
                Some(Ok(0)) => Err(Obstacle::Nobody),
                Some(Ok(count)) => Ok(Ok(count)),
                Some(Err(Corrupt)) | None => Ok(Err(Stop::Fault(Fault::Corrupt))),
            }
        };
        let Some(deadline) = deadline else {
            return attempt(true).unwrap_or(Err(Stop::NotNow)).map(drop);
        };
        patience.rest();
        if let Ok(found) = attempt(false) {
            return found.map(|count| patience.found(count));
        }
        patience.found(0);
        let found = wait::wait(event.with(seat.fences), wait, patience, deadline, attempt)
            .unwrap_or(Err(Stop::NotNow))?;
        patience.found(found);
        Ok(())
    }
}

impl<T: Shm> End<T> {
    /// Takes `role` without waiting.
    fn take(core: Arc<Core>, role: Role) -> Result<End<T>, Fault> {
        let mut tenure = Tenure { role, held_as: 0, side: None, wait: Wait::default() };
        let seat = core.holding.enter()?;
        let block = view::<T>(&core, &seat).ok_or(Fault::Corrupt)?;
        if !tenure.take(core.shape.capacity, &seat, &block, true)? {
            return Err(Fault::RoleTaken);
        }
        Ok(End { core, tenure, values: PhantomData })
    }

    /// Opens the ring that `handle` names and takes `role`, which must be free or its holder dead.
    fn open(segment: &Segment, handle: Handle, role: Role) -> Result<End<T>, Fault> {
        let holding = Holding::open(segment, handle, kind_of::<T>(Kind::Spsc))?;
        let shape = Shape::read(
            holding.enter()?.region,
            holding.offset(),
            holding.len(),
            size_of::<T>() as u64,
        )?;
        End::take(Core::new(holding, shape), role)
    }

    /// Calls `act` once `ready` says that a slot can be used, waiting until the deadline; without
    /// one, does not wait. `ready` is told how many must be known for it not to look at the other
    /// side's word.
    ///
    /// The caller's result is made here: a message in one result that is turned into another is
    /// copied.
    #[inline(always)]
    fn once_ready<R, E>(
        &mut self,
        deadline: Option<Deadline>,
        ready: impl Fn(&mut Side, &SpscBlock<'_>, u64) -> Result<u64, Corrupt>,
        act: impl FnOnce(&mut Side, &SpscBlock<'_>, &Seat<'_>) -> R,
        error: impl FnOnce(Stop) -> E,
    ) -> Result<R, E> {
        let seat = match self.core.holding.enter() {
            Ok(seat) => seat,
            Err(fault) => return Err(error(Stop::Fault(fault))),
        };
        let Some(block) = view::<T>(&self.core, &seat) else {
            return Err(error(Stop::Fault(Fault::Corrupt)));
        };
        // What is known already: no look at the other side's word.
        let known =
            self.tenure.side(&seat).and_then(|side| ready(side, &block, 0).ok()).unwrap_or(0);
        if known == 0
            && let Err(stop) = self.tenure.wait::<T>(&self.core, deadline, ready)
        {
            return Err(error(stop));
        }
        let Some(side) = self.tenure.side(&seat) else {
            return Err(error(Stop::Fault(Fault::Corrupt)));
        };
        Ok(act(side, &block, &seat))
    }

    fn len(&self) -> usize {
        let look = || {
            let seat = self.core.holding.enter().ok()?;
            let block = view::<T>(&self.core, &seat)?;
            let head = block.receiver.index.load(Ordering::Acquire);
            let tail = block.sender.index.load(Ordering::Acquire);
            Some(tail.wrapping_sub(head).min(self.core.shape.capacity) as usize)
        };
        look().unwrap_or(0)
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        // In a forked child `held_as` is the parent's, and the role stays with the parent.
        if let Ok(seat) = self.core.holding.enter()
            && self.tenure.held_as == seat.me.to_bits()
            && let Some(block) =
                SpscBlock::view(seat.region, self.core.holding.offset(), &self.core.shape, 1)
        {
            // Release pairs with the Acquire in `Tenure::take`: the successor sees our last index.
            let role = &words(&block, self.tenure.role).role;
            let _ =
                role.compare_exchange(self.tenure.held_as, 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}

#[inline]
fn view<'a, T>(core: &Core, seat: &Seat<'a>) -> Option<SpscBlock<'a>> {
    SpscBlock::view(seat.region, core.holding.offset(), &core.shape, align_of::<T>())
}

fn words<'a>(block: &SpscBlock<'a>, role: Role) -> &'a SideWords {
    match role {
        Role::Sender => block.sender,
        Role::Receiver => block.receiver,
    }
}

/// The sending end of a ring.
///
/// # Peer death
/// A sender killed inside a call has sent the value or has not. Another process can take its place:
/// [`Producer::open`].
///
/// # Fork
/// Moved into a forked child, the end is the child's as soon as the parent has dropped its copy,
/// which [`fork`](crate::fork) does. Until then blocking calls of the child wait, and those that do
/// not wait say `Full`.
pub struct Producer<T: Shm> {
    end: End<T>,
}

/// The receiving end of a ring.
///
/// # Peer death
/// A receiver killed inside a call has received the message, or leaves it to its successor:
/// [`Consumer::open`].
///
/// # Fork
/// As [`Producer`]; calls that do not wait say `Empty` until the parent has dropped its copy.
pub struct Consumer<T: Shm> {
    end: End<T>,
}

impl<T: Shm> Producer<T> {
    /// Takes the sending role of the ring that `handle` names: it must be free, or its holder dead.
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process has it; else as
    /// [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Producer<T>, Fault> {
        End::open(segment, handle, Role::Sender).map(|end| Producer { end })
    }

    /// Sends `value`, waiting for a free slot as long as it takes.
    ///
    /// # Memory ordering
    /// Everything written before is visible to the receiver (release to acquire).
    ///
    /// # Errors
    /// [`SendError::Broken`], with the value. The ring cannot be closed.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.put(&value, Some(Deadline::NEVER), |stop| stop.send(value))
    }

    /// Sends `value` if a slot is free right now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] or [`TrySendError::Broken`], with the value.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.put(&value, None, |stop| stop.try_send(value))
    }

    /// Sends `value`, waiting at most `timeout` for a free slot.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] or [`SendTimeoutError::Broken`], with the value.
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.put(&value, Some(Deadline::after(timeout)), |stop| stop.send_timeout(value))
    }

    /// Sends `value`, waiting until `deadline` for a free slot.
    ///
    /// # Errors
    /// As [`Producer::send_timeout`].
    pub fn send_deadline(
        &mut self,
        value: T,
        deadline: Instant,
    ) -> Result<(), SendTimeoutError<T>> {
        self.put(&value, Some(Deadline::at(deadline)), |stop| stop.send_timeout(value))
    }

    /// By reference, as a value would be copied on its way here.
    #[inline(always)]
    fn put<E>(
        &mut self,
        value: &T,
        deadline: Option<Deadline>,
        error: impl FnOnce(Stop) -> E,
    ) -> Result<(), E> {
        self.end.once_ready(
            deadline,
            |side, block, wanted| spsc::free_slots(side, &block.receiver.index, wanted),
            |side, block, seat| {
                // SAFETY: `free_slots` says that the slot is the sender's, and by the invariant of
                // `Tenure` we are the only sender; the shape was made for values of `T`, and `view`
                // checked range and alignment.
                unsafe {
                    block
                        .payload(side.slot())
                        .cast::<T>()
                        .copy_from_nonoverlapping(NonNull::from(value), 1)
                };
                spsc::publish(side, &block.sender.index, 1);
                block.items.with(seat.fences).notify_one();
            },
            error,
        )
    }
}

impl<T: Shm> Consumer<T> {
    /// Takes the receiving role of the ring that `handle` names: it must be free, or its holder
    /// dead.
    ///
    /// # Errors
    /// [`Fault::RoleTaken`] if a living process has it; else as
    /// [`Queue::open`](crate::Queue::open).
    pub fn open(segment: &Segment, handle: Handle) -> Result<Consumer<T>, Fault> {
        End::open(segment, handle, Role::Receiver).map(|end| Consumer { end })
    }

    /// Receives a message, waiting as long as it takes.
    ///
    /// # Memory ordering
    /// Everything that the sender wrote before it sent the message is visible (release to acquire).
    ///
    /// # Errors
    /// [`RecvError::Broken`]. The ring cannot be closed.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.get(Some(Deadline::NEVER), Stop::recv)
    }

    /// Receives a message if there is one right now.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] or [`TryRecvError::Broken`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.get(None, Stop::try_recv)
    }

    /// Receives a message, waiting at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] or [`RecvTimeoutError::Broken`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.get(Some(Deadline::after(timeout)), Stop::recv_timeout)
    }

    /// Receives a message, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Consumer::recv_timeout`].
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.get(Some(Deadline::at(deadline)), Stop::recv_timeout)
    }

    #[inline(always)]
    fn get<E>(
        &mut self,
        deadline: Option<Deadline>,
        error: impl FnOnce(Stop) -> E,
    ) -> Result<T, E> {
        self.end.once_ready(
            deadline,
            |side, block, wanted| spsc::messages(side, &block.sender.index, wanted),
            |side, block, seat| {
                // SAFETY: `messages` says that the slot holds a published value and is the
                // receiver's until it is released, and by the invariant of `Tenure` we are the only
                // receiver; any bits are a valid `T: Shm`.
                let value = unsafe { block.payload(side.slot()).cast::<T>().read() };
                spsc::release(side, &block.receiver.index, 1);
                block.space.with(seat.fences).notify_one();
                value
            },
            error,
        )
    }
}

/// What both ends offer.
macro_rules! end {
    ($name:ident) => {
        impl<T: Shm> $name<T> {
            /// The ring's name, with which another process can take a role over.
            pub fn handle(&self) -> Handle {
                self.end.core.holding.handle()
            }

            /// Number of slots.
            pub fn capacity(&self) -> usize {
                self.end.core.shape.capacity as usize
            }

            /// Messages in the ring. A snapshot; 0 if the ring is broken.
            pub fn len(&self) -> usize {
                self.end.len()
            }

            /// Whether no message is in the ring. A snapshot.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Blocked operations of this end wait as `wait` says from now on.
            pub fn set_wait(&mut self, wait: Wait) {
                self.end.tenure.wait = wait;
            }
        }

        impl<T: Shm> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("len", &self.len())
                    .field("capacity", &self.capacity())
                    .finish_non_exhaustive()
            }
        }
    };
}

end!(Producer);
end!(Consumer);
