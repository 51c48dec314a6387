//! A channel, as its ends see it: as in the crate. Which ends a process has is not modelled.

use crate::object::block::ends::Ends;
use crate::peer::{Fault, PeerId};

pub(crate) type ChannelKey = (u64, u64, u64);

pub(crate) trait Channel {
    fn key(&self) -> ChannelKey;

    fn ends(&self) -> Result<(PeerId, &Ends), Fault>;

    fn close(&self);
}
