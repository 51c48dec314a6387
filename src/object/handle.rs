//! The name of an object, as plain bytes that can be sent.

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Names an object: which segment, which block, which generation of it.
///
/// It is plain data: send it through a queue to a process that was running before the object was
/// made, return it from a child, write it to a socket, compare it. It does not keep the object
/// alive: the sender must keep the object until the receiver has opened it.
///
/// # Examples
/// ```
/// use offspring::{Handle, Queue, Segment};
///
/// let names = Queue::<Handle>::with_capacity(4)?;
/// let made = Queue::<u64>::with_capacity(4)?;
/// made.send(7)?;
/// names.send(made.handle())?;
///
/// let opened = Queue::<u64>::open(&Segment::commons()?, names.recv()?)?;
/// assert_eq!(opened.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct Handle {
    pub(crate) segment: u64,
    pub(crate) block: u64,
    pub(crate) generation: u64,
}
