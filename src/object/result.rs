//! Values that own memory, and handles of shared objects, on their way from a child to its parent.
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
//! For handles the blocks are [flights](super::flight), one for each segment, as in a message. The
//! parent does not take a flight: it opens the objects while the flight holds them, and frees it
//! with what else the child has returned.
//! ```text
//!   encode the value; keep each object in it
//!   make the flights: OWNED(c)
//!   each flight: CARRIED
//!   write the names into the outcome; exit            wait for the child, clear up after it: its bits
//!                                                     each name: a flight CARRIED by (me; that child)?
//!                                                     decode the value; open the objects: my bits
//!                                                     free the flights; look at the objects in them
//! ```
//! What a parent gives a child that has no copy of its memory, as arguments, goes the same way with
//! the parts exchanged: the parent sends, and the child, whose entry may still be `RESERVED`,
//! takes. If the child dies before it has taken them, its entry is cleared up, and what it carries
//! is stranded.
//!
//! A child that can only read the segment takes nothing out of a flight, and frees none: its entry
//! carries the flight as long as it lives, and so the flight holds the objects for it. They are all
//! that it can open, and only to read.
//!
//! The carrier names the parent's entry in the peer table, with its generation, in place of a slot.
//! So a process that clears up after the child leaves the blocks alone, for as long as the parent
//! is attached. It names the child, too, with its generation: by that the parent knows what it
//! never took.
//!
//! # Peer death
//! A child killed before the outcome is complete has returned nothing; after that, everything. A
//! sweep never asks for the outcome. It asks only whether the parent is there, so it leaves alone
//! what the parent may still read, and what a killed child had `CARRIED` for nothing is its
//! parent's to free.
//!
//! | killed | left | outcome |
//! |---|---|---|
//! | the child, before `CARRIED` | `OWNED(c)` | freed with what it owned, then the objects |
//! | the child, before the outcome is complete | `CARRIED`, of some or all | not returned: freed by the parent when it joins the child, or has dropped the handle and waits for the child |
//! | the child, after that | `CARRIED`, outcome | returned |
//! | the parent, before it joins the child | `CARRIED` by an entry that is gone | stranded, freed, then the objects |
//! | the parent, while it takes blocks or opens objects | `OWNED(p)` or bits of `p`, `CARRIED` | the same, with what it owned and held |
//! | the parent, after a flight is freed | objects without holders | freed by the process that clears up |

use std::cell::RefCell;
use std::sync::Arc;

use crate::heap::flight::Name;
use crate::heap::pool::{Attached, Carried};
use crate::heap::{BlockId, Pool};
use crate::object::block;
use crate::object::carry::{Arrival, Departure, Transfer};
use crate::object::error::CreateError;
use crate::object::flight::{self, Flight};
use crate::object::holding;
use crate::object::lineage::Lineage;
use crate::object::payload::{set_word, word_of, words, zeroed};
use crate::object::serial::{Listed, Load};
use crate::peer::Fault;
use crate::segment::Segment;

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

/// Hands over the objects in a value to the parent. For the child, which has encoded the value and
/// keeps the objects until this is done. Gives the words that name the flights.
pub(crate) fn send_off(loads: &[Load], lineage: &Lineage) -> Result<Vec<u64>, String> {
    // All are made before the first is carried, so that what fails for want of memory leaves
    // nothing.
    let mut flights = Vec::with_capacity(loads.len());
    for load in loads {
        let mut segments = lineage.results().enumerate();
        let (index, (mapping, carrier)) =
            segments.find(|(_, (mapping, _))| mapping.file_id() == load.file).ok_or_else(|| {
                "an object lies in a segment that only one of the two processes has: make it in \
                 the commons, name its segment in `Builder::segments`, or send its `handle()` and \
                 keep the object elsewhere"
                    .to_owned()
            })?;
        let holder = holding::holder(mapping).map_err(|fault| fault.to_string())?;
        let names: Vec<_> = load.passengers.iter().map(|passenger| passenger.name).collect();
        let flight =
            Flight::new(&holder, &names).map_err(|error| CreateError::from(error).to_string())?;
        flights.push((index, carrier, flight));
    }
    let mut words = Vec::with_capacity(flights.len() * WORDS);
    for (index, carrier, flight) in flights {
        let carried = flight.carry(carrier).ok_or_else(|| Fault::Corrupt.to_string())?;
        words.extend([index as u64, carried.id.to_bits(), carried.generation.into()]);
    }
    Ok(words)
}

/// Words that name a flight: which segment of the lineage, block, generation.
const WORDS: usize = 3;

/// Finds the flights that these words name. For the parent, after it has cleared up after the
/// child.
pub(crate) fn arrive(words: &[u64], lineage: &Lineage) -> Result<Vec<Listed>, Fault> {
    let find = |name: &[u64]| {
        let &[index, block, generation] = name else { return None };
        let (mapping, carrier) = lineage.results().nth(usize::try_from(index).ok()?)?;
        let id = BlockId::from_bits(block)?;
        Some((mapping, carrier, Carried { id, generation: u32::try_from(generation).ok()? }))
    };
    let take = |name: &[u64]| {
        let (mapping, carrier, carried) = find(name).ok_or(Fault::Corrupt)?;
        let names = if mapping.is_read_only() {
            holding::grant(mapping, carried, carrier)
        } else {
            let holder = holding::holder(mapping)?;
            holder.pool().flight(carried, carrier, holder.me.owner())
        };
        let names = names.ok_or_else(|| holding::not_there(mapping))?;
        Ok((Segment::from(Arc::clone(mapping)), names))
    };
    words.chunks(WORDS).map(take).collect()
}

/// Frees what the child has returned and nobody has taken. For the parent, once the child is dead.
pub(crate) fn discard(lineage: &Lineage) {
    for (mapping, carrier, child) in lineage.remains() {
        if let (Ok(me), Some(region)) = (holding::arrive(mapping), mapping.region()) {
            let pool = Pool::new(mapping, region);
            // Whoever hands something over to this process has marked its card for this process,
            // too, which may have more of them.
            let left = pool.peers().and_then(|peers| peers.cards_left_by(child));
            let left = left.unwrap_or_else(|| pool.cards(me));
            let in_flights = RefCell::new(Vec::new());
            let conclude = |object: Attached| {
                in_flights.borrow_mut().push(object);
                block::conclude(&pool, object);
            };
            let is_from = |other| other == carrier;
            pool.discard_all(me.owner(), left, is_from, conclude);
            flight::settle(&pool, me, |empty| {
                for Attached { id, generation, .. } in in_flights.into_inner() {
                    pool.let_go(Name { id, generation, role: 0 }, me, empty);
                }
            });
        }
    }
}
