//! What a segment does with all its objects at once.

use crate::object::{holding, reap};
use crate::peer::Fault;
use crate::segment::Segment;

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
        Ok(reap::reap_all(self.mapping(), me))
    }
}
