//! A queue and one of its ends.

use std::fmt;
use std::sync::Arc;

use serde::{Deserializer, Serializer};

use crate::object::block::ends::Role;
use crate::object::ends::{Channel, End};
use crate::object::{Handle, serial};
use crate::peer::{Fault, PeerId};
use crate::queue::{ByteQueue, ObjectQueue, Queue};
use crate::segment::{Segment, Shm};

/// A queue that may be that of a channel.
pub(super) trait Base: fmt::Debug {
    /// Which peer this process is, if it has used the queue before.
    fn known_peer(&self) -> Option<PeerId>;
    fn as_channel(&self) -> Arc<dyn Channel>;

    /// Encodes an end, which `keep` holds.
    fn serialize<K: Send + Sync + 'static, S: Serializer>(
        &self,
        keep: &Arc<K>,
        role: u32,
        serializer: S,
    ) -> Result<S::Ok, S::Error>;
}

impl<T: Shm> Base for Queue<T> {
    #[inline]
    fn known_peer(&self) -> Option<PeerId> {
        Queue::known_peer(self)
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
}

impl Base for ByteQueue {
    #[inline]
    fn known_peer(&self) -> Option<PeerId> {
        self.envelopes().known_peer()
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
}

impl<T> Base for ObjectQueue<T> {
    #[inline]
    fn known_peer(&self) -> Option<PeerId> {
        self.bytes().known_peer()
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
        if !self.queue.known_peer().is_some_and(|me| self.end.counts_for(me)) {
            // If the role is gone or the segment cannot be entered, the operation says so.
            let _ = self.end.count();
        }
        &self.queue
    }

    pub(super) fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("queue", &self.queue).finish_non_exhaustive()
    }
}
