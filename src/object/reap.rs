//! What becomes of the claims and holds of a dead process.

use crate::heap::Pool;
use crate::object::{block, holding};
use crate::peer::{Fault, PeerId, attach, reaper};
use crate::segment::Segment;
use crate::segment::region::{Mapping, Region};

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
    let pool = Pool::new(mapping, region);
    pool.clear(dead, me, |object| block::recover(&pool, object, dead.owner()));
}

impl Segment {
    /// Clears up after every process that was attached to this segment and is dead; gives their
    /// number.
    ///
    /// Rarely needed: whoever waits behind a dead process finds out by itself, and memory is
    /// cleared when it is asked for. It is there for programs that want what the dead held to be
    /// given back now.
    ///
    /// # Blocking
    /// Never waits; asks the kernel about each attached process, about 0.1 ms each.
    ///
    /// # Errors
    /// If this process cannot attach itself.
    ///
    /// # Examples
    /// ```
    /// let commons = offspring::Segment::commons()?;
    /// assert_eq!(commons.reap()?, 0, "nobody died");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reap(&self) -> Result<usize, Fault> {
        let me = holding::arrive(self.mapping())?;
        Ok(reap_all(self.mapping(), me))
    }
}
