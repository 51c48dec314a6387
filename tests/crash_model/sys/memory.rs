//! Words of one process.

use core::ops::Deref;

use crate::primitive::AtomicU64;
use crate::sys::error::OsError;

#[derive(Debug)]
pub(crate) struct Words {
    words: Box<[AtomicU64]>,
}

impl Words {
    pub(crate) fn private(count: usize) -> Result<Words, OsError> {
        Ok(Words { words: (0..count).map(|_| AtomicU64::new(0)).collect() })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.words
    }
}
