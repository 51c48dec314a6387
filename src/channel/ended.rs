//! A queue and one of its ends, and what all ends have.

use std::fmt;
use std::sync::Arc;

use serde::{Deserializer, Serializer};

use crate::object::block::ends::Role;
use crate::object::carry::Transfer;
use crate::object::ends::{Channel, End};
use crate::object::{Handle, serial};
use crate::peer::Fault;
use crate::queue::{ByteQueue, ObjectQueue, Queue};
use crate::segment::Segment;

/// A queue that may be that of a channel.
pub(super) trait Base: fmt::Debug {
    /// The identity of this process, as its queue knows it.
    fn identity(&self) -> u64;
    fn as_channel(&self) -> Arc<dyn Channel>;
    /// Encodes an end, which `keep` holds.
    fn serialize<K: Send + Sync + 'static, S: Serializer>(
        &self,
        keep: &Arc<K>,
        role: u32,
        serializer: S,
    ) -> Result<S::Ok, S::Error>;

    /// Whether nobody has an end of the other role any more, for one that has an end of this role.
    fn is_disconnected(&self, role: Role) -> bool;
}

impl<T: Transfer> Base for Queue<T> {
    #[inline]
    fn identity(&self) -> u64 {
        Queue::identity(self)
    }

    fn as_channel(&self) -> Arc<dyn Channel> {
        Queue::as_channel(self)
    }

    fn serialize<K: Send + Sync + 'static, S: Serializer>(
        &self,
        keep: &Arc<K>,
        role: u32,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serial::serialize(self.object(), keep, role, serializer)
    }

    fn is_disconnected(&self, role: Role) -> bool {
        Queue::is_disconnected(self, role)
    }
}

impl Base for ByteQueue {
    #[inline]
    fn identity(&self) -> u64 {
        self.envelopes().identity()
    }

    fn as_channel(&self) -> Arc<dyn Channel> {
        self.envelopes().as_channel()
    }

    fn serialize<K: Send + Sync + 'static, S: Serializer>(
        &self,
        keep: &Arc<K>,
        role: u32,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serial::serialize(self.object(), keep, role, serializer)
    }

    fn is_disconnected(&self, role: Role) -> bool {
        self.envelopes().is_disconnected(role)
    }
}

impl<T> Base for ObjectQueue<T> {
    #[inline]
    fn identity(&self) -> u64 {
        self.bytes().identity()
    }

    fn as_channel(&self) -> Arc<dyn Channel> {
        self.bytes().as_channel()
    }

    fn serialize<K: Send + Sync + 'static, S: Serializer>(
        &self,
        keep: &Arc<K>,
        role: u32,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serial::serialize(self.bytes().object(), keep, role, serializer)
    }

    fn is_disconnected(&self, role: Role) -> bool {
        self.bytes().envelopes().is_disconnected(role)
    }
}

/// A queue as seen from one of its ends.
pub(super) struct Ended<Q> {
    // The end first: it is dropped while the queue is still there.
    end: End,
    queue: Q,
}

impl<Q: Base> Ended<Q> {
    /// The first end of this role.
    pub(super) fn first(queue: Q, role: Role) -> Result<Ended<Q>, Fault> {
        Ok(Ended { end: End::first(queue.as_channel(), role)?, queue })
    }

    /// Encodes the end: for a message of this crate, which then holds it, or as the channel's name.
    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let role = self.end.role().in_flight();
        // The channel lasts as long as one of its ends.
        self.queue().serialize(&Arc::new(self.end.another()), role, serializer)
    }

    /// Decodes an end of this role. `open` opens its queue.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        role: Role,
        deserializer: D,
        open: impl FnOnce(&Segment, Handle) -> Result<Q, Fault>,
    ) -> Result<Ended<Q>, D::Error> {
        serial::deserialize(deserializer, |segment, handle, is_in_flight| {
            if ![0, role.in_flight()].contains(&is_in_flight) {
                return Err(Fault::WrongType);
            }
            let queue = open(segment, handle)?;
            Ok(Ended { end: End::opened(queue.as_channel(), role)?, queue })
        })
    }

    /// Another end of the same role.
    pub(super) fn another(&self, clone: impl FnOnce(&Q) -> Q) -> Ended<Q> {
        Ended { end: self.end.another(), queue: clone(&self.queue) }
    }

    /// The queue, for an operation of this end, which counts in this process from now on.
    #[inline]
    pub(super) fn queue(&self) -> &Q {
        if !self.end.counts_for(self.queue.identity()) {
            // If the role is gone or the segment cannot be entered, the operation says so.
            let _ = self.end.count();
        }
        &self.queue
    }

    /// Whether all ends of the other role are gone.
    pub(super) fn is_disconnected(&self) -> bool {
        self.queue().is_disconnected(self.end.role())
    }

    pub(super) fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// What every end of a channel has, whatever its queue and its role are.
macro_rules! end {
    ([$($bounds:tt)*] $end:ty, $name:literal) => {
        impl<$($bounds)*> $end {
            /// Another end, whose blocked operations wait as `wait` says.
            #[must_use = "this gives another end and leaves this one as it is"]
            pub fn with_wait(&self, wait: $crate::sync::Wait) -> Self {
                Self { ended: self.ended.another(|queue| queue.with_wait(wait)) }
            }

            /// Number of slots.
            pub fn capacity(&self) -> usize {
                self.ended.queue().capacity()
            }

            /// Number of messages; see [`Queue::len`](crate::Queue::len).
            pub fn len(&self) -> usize {
                self.ended.queue().len()
            }

            /// Whether no message can be received right now. A snapshot.
            pub fn is_empty(&self) -> bool {
                self.ended.queue().is_empty()
            }
        }

        /// Another end of the same role.
        impl<$($bounds)*> Clone for $end {
            fn clone(&self) -> Self {
                Self { ended: self.ended.another(Clone::clone) }
            }
        }

        impl<$($bounds)*> std::fmt::Debug for $end {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.ended.fmt($name, f)
            }
        }
    };
}

/// What every sending end has: `sender!([T: Bound] Sender<T>)`.
macro_rules! sender {
    ([$($bounds:tt)*] $sender:ty) => {
        $crate::channel::ended::end!([$($bounds)*] $sender, "Sender");

        impl<$($bounds)*> $sender {
            /// Whether no slot is free right now. A snapshot.
            pub fn is_full(&self) -> bool {
                self.ended.queue().is_full()
            }

            /// Whether every receiver is gone, so that nothing can be sent any more. `true` is
            /// final.
            ///
            /// # Blocking
            /// Never waits. Asks the kernel at most once in 10 ms whether a receiver is alive, and
            /// `try_send` counts as well.
            ///
            /// # Peer death
            /// A receiver that was killed is gone. For 10 ms after an earlier question the answer
            /// may still be `false`.
            ///
            /// # Fork
            /// A receiver that the closure of a child captured is there from the fork on, whether
            /// or not the child has used it yet.
            pub fn is_disconnected(&self) -> bool {
                self.ended.is_disconnected()
            }
        }
    };
}

/// What every receiving end has: `receiver!([T: Bound] Receiver<T>)`, and as what it is iterated
/// over.
macro_rules! receiver {
    (
        [$($bounds:tt)*] $receiver:ty,
        for<$life:lifetime> [$($item_bounds:tt)*] $item:ty, by $iter:ty
    ) => {
        $crate::channel::ended::end!([$($bounds)*] $receiver, "Receiver");

        impl<$($bounds)*> $receiver {
            /// Number of messages that were lost because their receiver was killed; see
            /// [`Queue::lost`](crate::Queue::lost).
            pub fn lost(&self) -> u64 {
                self.ended.queue().lost()
            }

            /// Whether every sender is gone, so that nothing new will come. `true` is final.
            /// Messages that were sent before may still be there.
            ///
            /// # Blocking
            /// Never waits. Asks the kernel at most once in 10 ms whether a sender is alive, and
            /// `try_recv` counts as well.
            ///
            /// # Peer death
            /// A sender that was killed is gone. For 10 ms after an earlier question the answer may
            /// still be `false`.
            ///
            /// # Fork
            /// A sender that the closure of a child captured is there from the fork on, whether or
            /// not the child has used it yet.
            pub fn is_disconnected(&self) -> bool {
                self.ended.is_disconnected()
            }
        }

        impl<$life, $($item_bounds)*> IntoIterator for &$life $receiver {
            type Item = $item;
            type IntoIter = $iter;

            fn into_iter(self) -> $iter {
                self.iter()
            }
        }
    };
}

pub(super) use {end, receiver, sender};
