//! The commons: one anonymous segment per process tree.

use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::segment::error::SegmentError;
use crate::segment::region::Mapping;
use crate::segment::residence::Residence;
use crate::segment::{Segment, backing};

/// Bytes of objects that a segment holds by default. Only address space is reserved for it.
pub(crate) const DEFAULT_LEN: u64 = 8 << 30;

/// Never dropped: the commons live as long as the process. A forked child inherits this variable,
/// and so its parent's commons.
static COMMONS: OnceLock<Segment> = OnceLock::new();
/// Locked while the commons are made.
static MAKING: Mutex<()> = Mutex::new(());

/// If there is not even this much room, an error is better than smaller commons.
const SMALLEST_LEN: u64 = 1 << 20;

/// Returns the commons, and creates them if they do not exist. Choosing their length, and how their
/// memory is kept, is an error if they do.
#[inline]
pub(crate) fn get(chosen: Option<(u64, Residence)>) -> Result<&'static Segment, SegmentError> {
    match (COMMONS.get(), chosen) {
        (Some(commons), None) => Ok(commons),
        _ => make(chosen),
    }
}

#[cold]
fn make(chosen: Option<(u64, Residence)>) -> Result<&'static Segment, SegmentError> {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(commons) = COMMONS.get() {
        return if chosen.is_none() { Ok(commons) } else { Err(SegmentError::CommonsExist) };
    }
    let (len, residence) = chosen.unwrap_or((DEFAULT_LEN, Residence::default()));
    let commons = Segment::from(reserve(len, residence)?);
    Ok(COMMONS.get_or_init(|| commons))
}

/// A mapping that a handle keeps. The commons are there anyway, so that nobody need count.
#[derive(Debug)]
pub(crate) enum Kept {
    Commons(&'static Arc<Mapping>),
    Counted(Arc<Mapping>),
}

impl Kept {
    #[inline]
    pub(crate) fn new(mapping: &Arc<Mapping>) -> Kept {
        match COMMONS.get() {
            Some(commons) if Arc::ptr_eq(commons.mapping(), mapping) => {
                Kept::Commons(commons.mapping())
            }
            _ => Kept::Counted(Arc::clone(mapping)),
        }
    }
}

impl Deref for Kept {
    type Target = Arc<Mapping>;

    #[inline]
    fn deref(&self) -> &Arc<Mapping> {
        match self {
            Kept::Commons(mapping) => mapping,
            Kept::Counted(mapping) => mapping,
        }
    }
}

/// Makes a segment the commons of this process: those of its parent. For a child that is no copy of
/// its parent, before it runs code of the program. If it has commons all the same, by what ran
/// before `main`, it keeps them.
pub(crate) fn adopt(commons: Segment) {
    let _ = COMMONS.set(commons);
}

/// Reserves `len` bytes, or as much of that as the address space allows.
fn reserve(len: u64, residence: Residence) -> Result<Arc<Mapping>, SegmentError> {
    let mut len = len;
    loop {
        match backing::create_anonymous(len, residence) {
            Err(SegmentError::NoRoom { .. }) if len / 2 >= SMALLEST_LEN => len /= 2,
            other => return other,
        }
    }
}
