//! How a process gets its entry in the peer table.
//!
//! Attaching is lazy: the first operation in a process finds no identity on the page that fork
//! wipes, and calls [`attach`]. A child of [`fork`](crate::fork) adopts the entry that its parent
//! reserved; any other process claims a free one.

use crate::peer::fault::Fault;
use crate::peer::id::PeerId;
use crate::peer::table::{Attached, Table};
use crate::peer::{identity, reaper};
use crate::segment::region::{Mapping, Region};
use crate::sys::pidfd::{self, Identity};

/// How a process got its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It had one already.
    Present(PeerId),
    /// It adopted the entry that its parent reserved. The parent also made it a holder of
    /// everything that the parent held.
    Adopted(PeerId),
    /// It claimed a free entry and holds nothing yet.
    New(PeerId),
}

/// Returns the mapped bytes and the peer table. Maps them first in a new child.
pub(crate) fn view(mapping: &Mapping) -> Result<(Region<'_>, Table<'_>), Fault> {
    if mapping.region().is_none() {
        mapping.attaching(|| mapping.map())?;
    }
    let region = mapping.region().ok_or(Fault::Corrupt)?;
    let table = Table::of(region, mapping.layout().peers()).ok_or(Fault::Corrupt)?;
    Ok((region, table))
}

/// Gives this process an entry unless it has one. If the table is full it takes over the entry of a
/// dead peer, for which `clear` is called.
pub(crate) fn attach(mapping: &Mapping, clear: impl FnMut(PeerId)) -> Result<Arrival, Fault> {
    if mapping.is_read_only() {
        return Err(Fault::ReadOnly);
    }
    let (_, table) = view(mapping)?;
    mapping.attaching(|| {
        if let Some(me) = identity::own(mapping) {
            return Ok(Arrival::Present(me));
        }
        let process = Identity::own()?;
        let me = Attached {
            identity: process,
            home: mapping.home().to_bits(),
            liveness_byte: mapping.liveness_byte(),
        };
        let reserved = identity::reserved(mapping, process.pid);
        // The parent checked that its child starts in the parent's own pid namespace. Any other
        // process may have started in another one.
        if reserved.is_none() && !mapping.was_opened_here() {
            let own = pidfd::pid_namespace()?;
            if mapping.home().namespace() != Some(own) {
                return Err(Fault::ForeignNamespace);
            }
        }
        // Before this process can notify others: their sleep relies on it.
        mapping.register_for_barriers();
        let arrival = match reserved {
            Some(id) if table.adopt(id, &me) => Arrival::Adopted(id),
            _ => {
                let joined =
                    table.join(&me).or_else(|| reaper::take_over(mapping, table, &me, clear));
                Arrival::New(joined.ok_or(Fault::TooManyPeers)?)
            }
        };
        let (Arrival::Present(id) | Arrival::Adopted(id) | Arrival::New(id)) = arrival;
        identity::set(mapping, id, detach);
        Ok(arrival)
    })
}

/// Frees the entry of this process. Everything that it owned and held must have been released
/// before. It could not release what it does not see; then the entry stays, and whoever clears up
/// after its death releases that.
pub(crate) fn detach(mapping: &Mapping) {
    let Some(me) = identity::own(mapping) else {
        return;
    };
    mapping.clear_peer();
    let Ok((_, table)) = view(mapping) else {
        return;
    };
    if mapping.see_all().is_err() {
        return;
    }
    if let Some(word) = table.load(me.index())
        && word.generation() == me.generation()
    {
        table.free(me.index(), word);
    }
}
