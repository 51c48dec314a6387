//! Text in shared memory.

use std::fmt;
use std::ops::Deref;

use crate::boxed::INERT;
use crate::object::CreateError;
use crate::object::carry::{Arrival, Departure, Name, Transfer};
use crate::object::kind::Kind;
use crate::object::owned::OwnedBlock;
use crate::peer::Fault;
use crate::segment::Segment;

/// Text in shared memory that this process owns alone.
///
/// In everything else it is a [`ShmBox`](crate::ShmBox) of a slice: it moves through a
/// [`Queue`](crate::Queue) without a copy, and its sections *Memory*, *Peer death*, *Fork* and
/// *Panics* hold here, too.
///
/// The bytes are checked when the text is received. Text that is no UTF-8 then, because a process
/// has written over it, is a [`Fault::Corrupt`] of that message.
///
/// # Examples
/// ```
/// use offspring::{Queue, ShmStr};
///
/// let queue = Queue::<ShmStr>::with_capacity(2)?;
/// queue.send(ShmStr::new("häßlich")?)?;
/// let text = queue.recv()?;
/// assert_eq!(*text, *"häßlich");
/// assert_eq!(text.chars().count(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShmStr {
    /// UTF-8: it was when it was made or received, and nobody else writes there.
    block: OwnedBlock<u8>,
}

impl ShmStr {
    /// A copy of `text`, in the commons.
    ///
    /// # Errors
    /// As [`ShmBox::new`](crate::ShmBox::new).
    pub fn new(text: &str) -> Result<ShmStr, CreateError> {
        ShmStr::new_in(Segment::of_commons()?, text)
    }

    /// A copy of `text`, in `segment`.
    ///
    /// # Errors
    /// As [`ShmBox::new`](crate::ShmBox::new).
    pub fn new_in(segment: &Segment, text: &str) -> Result<ShmStr, CreateError> {
        Ok(ShmStr { block: OwnedBlock::of_values(segment.mapping(), kind(), text.as_bytes())? })
    }
}

fn kind() -> u64 {
    Kind::Text.with::<u8>()
}

impl Deref for ShmStr {
    type Target = str;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &str {
        // SAFETY: it was checked, and has been this process's own since.
        unsafe { std::str::from_utf8_unchecked(self.block.values()) }
    }
}

impl AsRef<str> for ShmStr {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq for ShmStr {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ShmStr {}

/// As text. In a forked child of the owner it says that it is inert.
impl fmt::Debug for ShmStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.block.is_ours() { (**self).fmt(f) } else { f.write_str(INERT) }
    }
}

impl fmt::Display for ShmStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: the block is the value, and is handed over as `carry` says.
unsafe impl Transfer for ShmStr {
    type Wire = Name;

    fn pack(&mut self, departure: &Departure<'_>) -> Result<Name, Fault> {
        self.block.pack(self.block.count(), departure)
    }

    fn restore(&mut self) {
        self.block.restore();
    }

    fn unpack(wire: Name, arrival: &Arrival<'_>) -> Result<Self, Fault> {
        let (mut block, len) = OwnedBlock::<u8>::unpack(wire, kind(), arrival)?;
        block.shrink_to(len);
        match std::str::from_utf8(block.values()) {
            Ok(_) => Ok(ShmStr { block }),
            Err(_) => Err(Fault::Corrupt),
        }
    }
}
