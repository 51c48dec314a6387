//! Operations of a segment on all its objects.

use crate::object::{holding, reap};
use crate::peer::Fault;
use crate::segment::Segment;

impl Segment {
    /// Clears up after every dead process that was attached to this segment; returns their number.
    ///
    /// Rarely needed: a process that waits behind a dead one finds out by itself, and what the dead
    /// held is given back when memory runs short. Call this to have it given back now.
    ///
    /// # Blocking
    /// Never waits. Asks the kernel about each attached process, which takes about 0.1 ms each.
    ///
    /// # Errors
    /// If this process cannot attach to the segment.
    ///
    /// # Examples
    /// ```
    /// let commons = offspring::Segment::commons()?;
    /// assert_eq!(commons.reap()?, 0, "nobody died");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reap(&self) -> Result<usize, Fault> {
        let me = holding::arrive(self.mapping())?;
        Ok(reap::reap_all(self.mapping(), me))
    }
}
