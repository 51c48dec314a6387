//! What becomes of the claims and holds of a dead process.

use crate::heap::Pool;
use crate::heap::pool::Attached;
use crate::object::lock_block::LockBlock;
use crate::object::queue_block::{QueueBlock, Shape};
use crate::peer::{PeerId, attach, reaper};
use crate::segment::region::{Mapping, Region};

/// What lies in a block, as far as clearing up needs to know it. Stands in the high byte of the
/// block's kind word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Queue,
    Lock,
    Spsc,
}

const KIND_SHIFT: u32 = 56;

impl Kind {
    fn tag(self) -> u64 {
        match self {
            Kind::Queue => 1,
            Kind::Lock => 2,
            Kind::Spsc => 3,
        }
    }

    /// The kind word: this tag, and below it a hash of the value type.
    pub(crate) fn with_fingerprint(self, fingerprint: u64) -> u64 {
        let word = self.tag() << KIND_SHIFT | fingerprint & ((1 << KIND_SHIFT) - 1);
        // Whoever makes an object comes here, so one that could not be recovered is found with the
        // first of its kind.
        assert_eq!(Kind::of(word), Some(self), "a kind that the reaper does not know");
        word
    }

    fn of(word: u64) -> Option<Kind> {
        [Kind::Queue, Kind::Lock, Kind::Spsc]
            .into_iter()
            .find(|kind| kind.tag() == word >> KIND_SHIFT)
    }
}

/// Ends every claim that the dead `owner` has in the object. Blocks that hold nonsense are left
/// alone.
pub(crate) fn recover(region: Region<'_>, object: Attached, owner: u32) {
    match Kind::of(object.kind) {
        Some(Kind::Queue) => {
            if let Ok(shape) = Shape::read(region, object.offset, object.len)
                && let Some(block) = QueueBlock::view(region, object.offset, &shape)
                && block.ring.recover_all(owner)
            {
                // Whoever sleeps behind a recovered slot finds out at the end of its slice at the
                // latest. Waking needs the fences of the segment; sleepers are few here, so both
                // sides are told without asking whether anybody sleeps.
                block.items.wake_all_unasked();
                block.space.wake_all_unasked();
            }
        }
        Some(Kind::Lock) => {
            if let Some(block) = LockBlock::view(region, object.offset, 0, 1)
                && block.lock().release_dead(owner)
            {
                // As above.
                block.freed().wake_all_unasked();
            }
        }
        // Roles are taken over from the dead, and a ring that publishes by one store has nothing to
        // recover.
        Some(Kind::Spsc) | None => {}
    }
}

/// Clears up after every dead process in the table; gives their number.
pub(crate) fn reap_all(mapping: &Mapping, me: PeerId) -> usize {
    let Ok((region, table)) = attach::view(mapping) else {
        return 0;
    };
    let reap =
        |index| reaper::reap(mapping, table, me, index, |dead| clear(mapping, region, dead, me));
    table.indices().map(|index| usize::from(reap(index))).sum()
}

/// Gives back what `dead` owned and held. Blocks are torn down in the name of `me`.
pub(crate) fn clear(mapping: &Mapping, region: Region<'_>, dead: PeerId, me: PeerId) {
    Pool::new(mapping, region).clear(dead, me, |object| recover(region, object, dead.owner()));
}
