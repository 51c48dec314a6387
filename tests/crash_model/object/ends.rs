//! A channel, as its ends see it: as in the crate. Which ends a process has is not modelled.

use crate::object::block::ends::{Ends, Role};
use crate::peer::{Fault, PeerId};

pub(crate) type ChannelKey = (u64, u64, u64);

pub(crate) trait Channel {
    fn key(&self) -> ChannelKey;

    fn ends(&self) -> Result<(PeerId, &Ends), Fault>;

    fn is_in_flight(&self, role: Role) -> bool;

    fn close(&self);
}
