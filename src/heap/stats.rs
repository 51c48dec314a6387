//! What the blocks of the heap are used for: a walk over their headers that changes nothing.
//!
//! # Peer death
//! Blocks of the dead are seen as they are, until somebody clears up.

use crate::heap::block::State;
use crate::heap::pool::{PAGE, PUNCH_FROM, Pool};

/// A block that was ever used, as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes of each block of its class.
    pub(crate) block_size: u64,
    pub(crate) state: State,
    pub(crate) kind: u64,
    /// Bytes that it takes of the budget.
    pub(crate) len: u64,
    /// Bytes with pages, in blocks that give them back when memory is short.
    pub(crate) kept: u64,
}

impl Pool<'_> {
    /// Shows every block that was ever used.
    ///
    /// Others change the headers meanwhile, so that the words of one block may not belong together.
    pub(crate) fn survey(&self, mut see: impl FnMut(Seen)) {
        self.walk(|id, header| {
            let state = header.load().state();
            let Some(block_size) = self.class(id).map(|class| class.block_size) else {
                return;
            };
            let keeps = state == State::Free && block_size >= PUNCH_FROM;
            let kept = if keeps { (header.pages() * PAGE).min(block_size) } else { 0 };
            let (kind, len) = (header.kind(), self.len(id, header));
            see(Seen { block_size, state, kind, len, kept });
        });
    }
}
