//! Values that own memory, on their way from a child to its parent.
//!
//! ```text
//! child                                             parent
//!   each block: OWNED(c, g) -> CARRIED(g+1),
//!     by (parent, generation; child)
//!   write the names into the outcome; exit            wait for the child, clear up after it
//!                                                     each name: CARRIED(g) by (me; that child)?
//!                                                       CARRIED(g) -> OWNED(p, g)
//!                                                     free what else that child has returned
//! ```
//! The carrier names the parent's entry in the peer table, with its generation, in place of a slot. So
//! a process that clears up after the child leaves the blocks alone, for as long as the parent is
//! attached. It names the child, too, with its generation: by that the parent knows what it never
//! took.
//!
//! # Peer death
//! - A child killed before the outcome is complete has returned nothing. What it had made `CARRIED` by
//!   then the parent frees when it joins the child or has let go of it.
//! - Killed after it, everything.
//! - If the parent is killed, nobody carries the blocks: stranded, freed. A block that it had taken was
//!   its own.

use crate::heap::Pool;
use crate::object::carry::{Arrival, Departure, Transfer};
use crate::object::holding;
use crate::object::lineage::Lineage;
use crate::object::payload::{set_word, word_of, words, zeroed};
use crate::peer::Fault;

/// Hands over what `value` owns to the parent. For the child. Gives the words that name it: the
/// segment, then what would lie in a slot.
pub(crate) fn pack<T: Transfer>(value: &mut T, lineage: &Lineage) -> Result<Vec<u64>, Fault> {
    let mut why = Fault::OtherSegment;
    for (mapping, carrier) in lineage.results() {
        match value.pack(&Departure { mapping, carrier }) {
            Ok(wire) => {
                let body = (0..words::<T::Wire>()).map(|index| word_of(&wire, index));
                return Ok(std::iter::once(mapping.id()).chain(body).collect());
            }
            Err(fault) => {
                value.restore();
                why = fault;
            }
        }
        if why != Fault::OtherSegment {
            break;
        }
    }
    Err(why)
}

/// Takes the value that these words name. For the parent, after it has cleared up after the child.
pub(crate) fn unpack<T: Transfer>(message: &[u64], lineage: &Lineage) -> Result<T, Fault> {
    let (id, body) = message.split_first().ok_or(Fault::Corrupt)?;
    if body.len() != words::<T::Wire>() {
        return Err(Fault::Corrupt);
    }
    let mut wire = zeroed::<T::Wire>();
    body.iter().enumerate().for_each(|(index, &word)| set_word(&mut wire, index, word));
    let (mapping, carrier) =
        lineage.results().find(|(mapping, _)| mapping.id() == *id).ok_or(Fault::OtherSegment)?;
    T::unpack(wire, &Arrival { holder: holding::holder(mapping)?, carrier })
}

/// Frees what the child has returned and nobody has taken. For the parent, once the child is dead.
pub(crate) fn discard(lineage: &Lineage) {
    for (mapping, carrier) in lineage.results() {
        if let (Ok(me), Some(region)) = (holding::arrive(mapping), mapping.region()) {
            Pool::new(mapping, region).discard_all(me.owner(), |other| other == carrier);
        }
    }
}
