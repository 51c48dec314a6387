//! A channel or a ring, as its ends see it: as in the crate, but that a process has at most one end
//! of each role at a time. So which ends it has is not modelled.

use std::cell::Cell;
use std::sync::Arc;

use crate::object::block::ends::{Ends, Role};
use crate::peer::{Fault, PeerId};

pub(crate) type ChannelKey = (u64, u64, u64);

pub(crate) trait Channel {
    fn key(&self) -> ChannelKey;

    fn ends(&self) -> Result<(PeerId, &Ends), Fault>;

    fn is_in_flight(&self, role: Role) -> bool;

    fn close(&self);
}

pub(crate) struct End {
    channel: Arc<dyn Channel>,
    role: Role,
    counts: Cell<bool>,
}

impl End {
    pub(crate) fn first(channel: Arc<dyn Channel>, role: Role) -> Result<End, Fault> {
        let end = End { channel, role, counts: Cell::new(false) };
        end.count()?;
        Ok(end)
    }

    pub(crate) fn opened(channel: Arc<dyn Channel>, role: Role) -> Result<End, Fault> {
        let end = End::first(channel, role)?;
        if end.counts.get() { Ok(end) } else { Err(Fault::Stale) }
    }

    /// Counts when it is used.
    pub(crate) fn another(&self) -> End {
        End { channel: Arc::clone(&self.channel), role: self.role, counts: Cell::new(false) }
    }

    pub(crate) fn counts_for(&self, _identity: u64) -> bool {
        self.counts.get()
    }

    pub(crate) fn count(&self) -> Result<(), Fault> {
        let (me, ends) = self.channel.ends()?;
        self.counts.set(ends.acquire(self.role, me.index()));
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.counts.get() {
            return;
        }
        if let Ok((me, ends)) = self.channel.ends() {
            ends.release(self.role, me.index());
            if ends.conclude(self.role, || self.channel.is_in_flight(self.role)) {
                self.channel.close();
            }
        }
    }
}
