//! A segment and its objects.

#[cfg(test)]
use crate::heap::Pool;
use crate::object::{Handle, holding, reap};
use crate::peer::Fault;
use crate::segment::{Segment, registry};

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

    /// Number of blocks that are not free.
    #[cfg(test)]
    pub(crate) fn blocks_in_use(&self) -> usize {
        let mapping = self.mapping();
        Pool::new(mapping, mapping.region().expect("mapped")).blocks_in_use()
    }
}

impl Handle {
    /// The segment in which the object lies, if this process has it open.
    ///
    /// # Examples
    /// ```
    /// let queue = offspring::Queue::<u64>::with_capacity(4)?;
    /// let segment = queue.handle().find_segment().expect("the commons are open");
    /// assert_eq!(segment.id(), offspring::Segment::commons()?.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find_segment(&self) -> Option<Segment> {
        registry::find(self.segment).map(Segment::from)
    }
}
