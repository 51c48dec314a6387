//! A parent and its child in the one segment: as in the crate, but that both have their entries
//! already.

use std::sync::Arc;

use crate::heap::block::Carrier;
use crate::peer::PeerId;
use crate::segment::region::Mapping;

#[derive(Debug)]
pub(crate) struct Lineage {
    /// Of the process that has this value.
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) parent: PeerId,
    pub(crate) child: PeerId,
}

impl Lineage {
    pub(crate) fn downward(&self) -> Lineage {
        let Lineage { ref mapping, parent, child } = *self;
        Lineage { mapping: Arc::clone(mapping), parent: child, child: parent }
    }

    pub(crate) fn results(&self) -> impl Iterator<Item = (&Arc<Mapping>, Carrier)> {
        std::iter::once((&self.mapping, Carrier::of_result(self.parent, self.child)))
    }

    pub(crate) fn remains(&self) -> impl Iterator<Item = (&Arc<Mapping>, Carrier, PeerId)> {
        self.results().map(|(mapping, carrier)| (mapping, carrier, self.child))
    }
}
