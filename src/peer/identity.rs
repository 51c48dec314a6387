//! Which peer this process is in a segment.
//!
//! The [`Mapping`] stores the ids as plain words. The id of this process stands on the page that
//! the kernel wipes in a forked child; the others are inherited.

use crate::peer::id::PeerId;
use crate::segment::region::Mapping;
use crate::sys::error::OsError;

/// The id of this process; `None` if it has not attached, also after a fork.
#[inline]
pub(crate) fn own(mapping: &Mapping) -> Option<PeerId> {
    PeerId::from_bits(mapping.peer_bits())
}

/// As [`own`]; also that of a process that can only read the segment. Nothing may be written in the
/// name of that one.
#[inline]
pub(crate) fn own_or_reader(mapping: &Mapping) -> Option<PeerId> {
    let bits = mapping.peer_bits();
    PeerId::from_bits(bits).or_else(|| PeerId::reader_from_bits(bits))
}

/// The id that the parent reserved for the process `pid`.
pub(crate) fn reserved(mapping: &Mapping, pid: u32) -> Option<PeerId> {
    PeerId::from_bits(mapping.reserved_peer_bits(pid))
}

/// Keeps, in a fresh child, the id that was reserved for it, the process `pid`.
pub(crate) fn keep_reserved(mapping: &Mapping, id: PeerId, pid: u32) {
    mapping.keep_reserved_peer(id.to_bits(), pid);
}

/// Sets the id of this process, which `detach` gives back before the mapping is dropped.
pub(crate) fn set(mapping: &Mapping, id: PeerId, detach: fn(&Mapping)) {
    mapping.set_peer(id.to_bits(), detach);
}

/// Maps a segment that this process can only read, where it is known as `id`. Whatever would write
/// finds that this process is no peer.
pub(crate) fn read_as(mapping: &Mapping, id: PeerId) -> Result<(), OsError> {
    mapping.attaching(|| mapping.map())?;
    mapping.set_peer(id.as_reader().to_bits(), |_| {});
    Ok(())
}
