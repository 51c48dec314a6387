//! Gives back the claims and holds of a dead process.

use crate::heap::block::Carrier;
use crate::heap::{AllocError, Pool};
use crate::object::{block, flight};
use crate::peer::footprint::Cards;
use crate::peer::{PeerId, attach, reaper};
use crate::segment::region::{Mapping, Region};

/// Clears up after every dead process in the table; returns their number.
pub(crate) fn reap_all(mapping: &Mapping, me: PeerId) -> usize {
    let Ok((region, table)) = attach::view(mapping) else {
        return 0;
    };
    let reap =
        |index| reaper::reap(mapping, table, me, index, |dead| clear(mapping, region, dead, me));
    table.indices().map(|index| usize::from(reap(index))).sum()
}

/// Clears up after the peer at this place of the table, if it is dead.
pub(crate) fn reap_one(mapping: &Mapping, me: PeerId, index: u32) {
    if let Ok((region, table)) = attach::view(mapping) {
        reaper::reap(mapping, table, me, index, |dead| clear(mapping, region, dead, me));
    }
}

/// Gives back what `dead` owned and held, and the blocks of messages that nobody can receive any
/// more. Blocks are freed in the name of `me`.
pub(crate) fn clear(mapping: &Mapping, region: Region<'_>, dead: PeerId, me: PeerId) {
    let pool = Pool::new(mapping, region);
    // Nobody takes again what a child was about to return. Its parent may even have freed already
    // what the child has returned, and would not come back for this.
    let comes_again =
        |carrier: Carrier| carrier.receiver().is_none() && block::carries(&pool, carrier);
    let recover = |object| {
        block::recover(&pool, object, dead.owner());
    };
    let conclude = |object| block::conclude(&pool, object);
    let unheld = flight::settle(&pool, me, |empty| {
        pool.clear(dead, me, comes_again, recover, empty, conclude)
    });
    // Only now: a slot that the dead process had claimed carries until it is recovered. A block is
    // stranded by a living process, which frees it next, or by a death, after which somebody comes
    // here. So it is enough to look where the dead process has been, or everywhere if a message was
    // given up that it was reading.
    let (_, flights) = flight::sweep(&pool, me, pool.cards(dead));
    // And last what was held by those.
    if unheld || flights {
        flight::settle_all(&pool, me);
    }
}

/// Gives back what can be given back: for a process that found no room, and `why`. False if there
/// was nothing.
pub(crate) fn make_room(mapping: &Mapping, me: PeerId, why: &AllocError) -> bool {
    let reaped = reap_all(mapping, me);
    let swept = mapping.region().map_or(0, |region| {
        let pool = Pool::new(mapping, region);
        let (swept, flights) = flight::sweep(&pool, me, Cards::ALL);
        if flights {
            flight::settle_all(&pool, me);
        }
        // What was swept has kept its pages, too.
        let no_pages = matches!(why, AllocError::NoPages { .. });
        swept + if no_pages { pool.give_kept(me) } else { 0 }
    });
    reaped + swept > 0
}

/// Clears up after every dead process, and gives back what they have left in messages: for a
/// process that waits for somebody, of whom there is nothing left but in messages.
pub(crate) fn reap_messages(mapping: &Mapping, region: Region<'_>, me: PeerId) {
    reap_all(mapping, me);
    let pool = Pool::new(mapping, region);
    if let (_, true) = flight::sweep(&pool, me, Cards::ALL) {
        flight::settle_all(&pool, me);
    }
}
