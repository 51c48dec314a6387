//! How a process comes by its entry in the peer table.
//!
//! Attaching is lazy: the first operation in a process finds no identity on the page that fork
//! wipes, and comes here. A child of [`fork`](crate::fork) takes the entry that its parent
//! reserved; any other process claims a free one.

use crate::peer::fault::Fault;
use crate::peer::id::PeerId;
use crate::peer::reaper;
use crate::peer::table::{Attached, Table};
use crate::segment::region::{Mapping, Region};
use crate::sys::pidfd::{self, Identity};

/// How a process came by its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It had one already.
    Present(PeerId),
    /// It took the entry that its parent reserved; the parent also made it a holder of all that the
    /// parent held.
    Adopted(PeerId),
    /// It claimed a free entry and holds nothing yet.
    New(PeerId),
}

/// The mapped bytes and the peer table, mapping them first in a fresh child.
pub(crate) fn view(mapping: &Mapping) -> Result<(Region<'_>, Table<'_>), Fault> {
    if mapping.region().is_none() {
        mapping.attaching(|| mapping.map())?;
    }
    let region = mapping.region().ok_or(Fault::Corrupt)?;
    let table = Table::of(region, mapping.layout().peers()).ok_or(Fault::Corrupt)?;
    Ok((region, table))
}

/// Gives this process an entry unless it has one. When the table is full, `clear` is called for a
/// dead peer, whose place it takes.
pub(crate) fn attach(mapping: &Mapping, clear: impl FnMut(PeerId)) -> Result<Arrival, Fault> {
    let (_, table) = view(mapping)?;
    mapping.attaching(|| {
        if let Some(me) = PeerId::from_bits(mapping.peer_bits()) {
            return Ok(Arrival::Present(me));
        }
        let identity = Identity::own();
        let me = Attached { identity, home: mapping.home().to_bits(), life: mapping.life() };
        let promised = PeerId::from_bits(mapping.promised_peer_bits(identity.pid));
        // The parent has seen to it that its child is born where it lives itself. Any other process
        // may have been born elsewhere.
        if promised.is_none() && !mapping.was_opened_here() {
            let own = pidfd::pid_namespace()?;
            if mapping.home().namespace() != Some(own) {
                return Err(Fault::ForeignNamespace);
            }
        }
        // Before this process can notify anybody: others sleep relying on it.
        mapping.register_for_barriers();
        let arrival = match promised {
            Some(promised) if table.adopt(promised, &me) => Arrival::Adopted(promised),
            _ => {
                let joined =
                    table.join(&me).or_else(|| reaper::take_over(mapping, table, &me, clear));
                Arrival::New(joined.ok_or(Fault::TooManyPeers)?)
            }
        };
        let (Arrival::Present(id) | Arrival::Adopted(id) | Arrival::New(id)) = arrival;
        mapping.set_farewell(detach);
        mapping.set_peer(id.to_bits());
        Ok(arrival)
    })
}

/// Gives the entry of this process back. Everything that it owned and held must have been given
/// back before.
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
