//! How a process comes by its entry in the peer table.
//!
//! Attaching is lazy: the first operation in a process finds no identity on the page that fork wipes, and comes here. A child of
//! [`fork`](crate::fork) takes the entry that its parent reserved; any other process claims a free one.

use crate::peer::fault::Fault;
use crate::peer::id::PeerId;
use crate::peer::reaper;
use crate::peer::table::Table;
use crate::segment::region::{Mapping, Region};
use crate::sys::barrier::{self, Fences};
use crate::sys::pidfd::{self, Identity};

/// How a process came by its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It had one already.
    Present(PeerId),
    /// It took the entry that its parent reserved; the parent also made it a holder of all that the parent held.
    Adopted(PeerId),
    /// It claimed a free entry and holds nothing yet.
    New(PeerId),
}

/// The mapped bytes and the peer table, mapping them first in a fresh child.
pub(crate) fn view(mapping: &Mapping) -> Result<(Region<'_>, Table<'_>), Fault> {
    if mapping.region().is_none() {
        mapping.attaching(|| mapping.map()).map_err(|error| Fault::os(&error))?;
    }
    let region = mapping.region().ok_or(Fault::Corrupt)?;
    let table = Table::of(region, mapping.layout().peers()).ok_or(Fault::Corrupt)?;
    Ok((region, table))
}

/// Gives this process an entry unless it has one. When the table is full, `clear` is called for a dead peer, whose place it takes.
pub(crate) fn attach(mapping: &Mapping, clear: impl FnMut(PeerId)) -> Result<Arrival, Fault> {
    let (_, table) = view(mapping)?;
    mapping.attaching(|| {
        if let Some(me) = PeerId::from_bits(mapping.peer_bits()) {
            return Ok(Arrival::Present(me));
        }
        if mapping.pid_namespace() != pidfd::pid_namespace() {
            return Err(Fault::ForeignNamespace);
        }
        if mapping.fences() == Fences::Asymmetric {
            // Before this process can notify anybody: others sleep relying on it.
            barrier::register().map_err(|error| Fault::os(&error))?;
        }
        let identity = Identity::own().map_err(|error| Fault::os(&error))?;
        if let Some(promised) = PeerId::from_bits(mapping.promised_peer_bits())
            && table.adopt(promised, &identity)
        {
            mapping.set_farewell(detach);
            mapping.set_peer(promised.to_bits());
            return Ok(Arrival::Adopted(promised));
        }
        let joined = table.join(&identity).or_else(|| reaper::take_over(table, &identity, clear));
        let me = joined.ok_or(Fault::TooManyPeers)?;
        mapping.set_farewell(detach);
        mapping.set_peer(me.to_bits());
        Ok(Arrival::New(me))
    })
}

/// Gives the entry of this process back. Everything that it owned and held must have been given back before.
pub(crate) fn detach(mapping: &Mapping) {
    let Some(me) = PeerId::from_bits(mapping.peer_bits()) else {
        return;
    };
    mapping.clear_peer();
    let Ok((_, table)) = view(mapping) else {
        return;
    };
    if let Some(word) = table.load(me.index())
        && word.generation() == me.generation()
    {
        table.free(me.index(), word);
    }
}
