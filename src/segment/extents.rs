//! Where the groups of a segment lie in its file: a log that only grows.
//!
//! # Layout
//! ```text
//! log   8 bytes per entry: the first piece of a group, plus one, and the same number inverted above
//!       it; 0 if there is no such entry yet
//! ```
//! # States
//! A group has no place until its entry is in the log. Its place follows from the entries before:
//! groups lie in the file in the order of the log, each behind the one before it, or at the start
//! of the next area if it would lie across the end of one. Nobody ever changes or removes an entry.
//!
//! To give a group its place, a process reads the log to its end. It makes the file long enough,
//! and writes the entry by one compare-and-swap from 0. If that fails, somebody else was faster,
//! perhaps with the same group, and it reads on. So two entries never name the same group: whoever
//! writes one has read all before it.
//!
//! # What a kill leaves
//! A file that is longer than its log says, or pages for entries that are not there yet. Whoever
//! comes next does the same again. Nobody waits for anybody.
//!
//! # In each process
//! A process keeps in a table what it has read of the log, so that one load tells the place of a
//! piece. The table is a copy of what never changes, so a forked child may use that of its parent,
//! even if a thread of the parent was just writing it. What a process has once read of the log does
//! not change for it either if somebody writes over the log.
//!
//! # Memory ordering
//! Reading an entry is an Acquire load, and writing one is a Release swap: whoever finds a group in
//! the log finds the file long enough for it, and the pages of the entries that follow.
//!
//! # Source
//! A log whose entries are decided one by one by compare-and-swap is the universal construction of
//! Herlihy, "Wait-Free Synchronization" (1991).

use crate::primitive::{AtomicU64, Ordering};
use crate::segment::layout::{LOG_STEP, Layout};
use crate::sys::error::OsError;
use crate::sys::memory::Words;

/// What this process knows of the places.
#[derive(Debug)]
pub(crate) struct Extents {
    /// By piece: where it lies in the file, see [`Shift`]. 0 if this process has not read of it.
    shifts: Words,
    /// Binary logarithm of the bytes of a piece.
    piece_shift: u32,
    /// Entries that were read, and above these 32 bits the pieces of the file that they take.
    read: AtomicU64,
}

/// By how much a piece lies elsewhere in the file than its offset says. So the two make its place
/// by one addition.
///
/// ```text
/// bytes, modulo 2^64: a multiple of the bytes of a piece | far | known
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift(u64);

/// It was read of.
const KNOWN: u64 = 1;
/// It is not in the first area.
const FAR: u64 = 2;

impl Shift {
    fn new(layout: &Layout, piece: u32, place: u32) -> Shift {
        let far = if place < layout.area_pieces() { 0 } else { FAR };
        let bytes = layout.bytes_of(place).wrapping_sub(layout.bytes_of(piece));
        Shift(bytes | far | KNOWN)
    }

    fn bytes(self) -> u64 {
        self.0 & !(FAR | KNOWN)
    }
}

/// How far the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    entries: u32,
    end: u32,
}

impl Progress {
    fn from_bits(bits: u64) -> Progress {
        Progress { entries: bits as u32, end: (bits >> 32) as u32 }
    }

    fn to_bits(self) -> u64 {
        u64::from(self.end) << 32 | u64::from(self.entries)
    }
}

/// The entry of the group that begins with this piece. Whoever believes a wrong one may look beyond
/// the end of the file, so the number stands there twice.
pub(crate) fn entry_of(piece: u32) -> u64 {
    let number = piece + 1;
    u64::from(!number) << 32 | u64::from(number)
}

/// The piece of an entry; `None` if no process of this crate has written it.
fn piece_of(entry: u64) -> Option<u32> {
    let piece = (entry as u32).checked_sub(1)?;
    (entry == entry_of(piece)).then_some(piece)
}

/// Why a group gets no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PlaceError<E> {
    /// The log or the offset is wrong, or no area has room.
    Corrupt,
    /// The kernel does not make the file long enough.
    Refused(E),
}

impl Extents {
    /// What is known of a segment of which nothing was read.
    pub(crate) fn new(layout: &Layout) -> Result<Extents, OsError> {
        let shifts = Words::private(layout.pieces() as usize)?;
        for piece in 0..layout.fixed_pieces() {
            let shift = Shift::new(layout, piece, piece);
            shifts[piece as usize].store(shift.0, Ordering::Relaxed);
        }
        let read = Progress { entries: 0, end: layout.fixed_pieces() };
        let piece_shift = layout.piece_shift();
        Ok(Extents { shifts, piece_shift, read: AtomicU64::new(read.to_bits()) })
    }

    #[inline]
    fn shift(&self, offset: u64) -> Option<Shift> {
        // Relaxed: nothing but an address depends on it. What lies there is ordered by the words
        // by which the caller knows the offset.
        let shift = self.shifts.get((offset >> self.piece_shift) as usize)?;
        Some(Shift(shift.load(Ordering::Relaxed)))
    }

    /// Where in the file these bytes lie, if they lie in one piece, of which this process has read,
    /// and in the first area.
    #[inline]
    pub(crate) fn near(&self, offset: u64, len: u64) -> Option<u64> {
        let last = offset.wrapping_add(len).wrapping_sub(1);
        let shift = self.shift(offset)?;
        let is_near = shift.0 & (FAR | KNOWN) == KNOWN;
        let is_one = (offset ^ last) >> self.piece_shift == 0;
        (is_near && is_one).then(|| offset.wrapping_add(shift.0 - KNOWN))
    }

    /// Where in the file an offset lies, if this process has read of it.
    pub(crate) fn known(&self, offset: u64) -> Option<u64> {
        let shift = self.shift(offset).filter(|shift| shift.0 != 0)?;
        Some(offset.wrapping_add(shift.bytes()))
    }

    /// As [`Extents::known`], after reading what is new in the log if need be.
    pub(crate) fn find(&self, layout: &Layout, log: &[AtomicU64], offset: u64) -> Option<u64> {
        self.known(offset).or_else(|| {
            let _ = self.read_on(layout, log);
            self.known(offset)
        })
    }

    /// Pieces of the file up to the end of the last group; `None` if the log is corrupt.
    pub(crate) fn end(&self, layout: &Layout, log: &[AtomicU64]) -> Option<u32> {
        self.read_on(layout, log).map(|read| read.end)
    }

    /// Gives the group of this offset a place, unless it has one, and returns where in the file the
    /// offset lies.
    ///
    /// `lengthen` makes the file so many pieces long. `back` makes sure that this range of entries
    /// of the log has pages.
    pub(crate) fn assign<E>(
        &self,
        layout: &Layout,
        log: &[AtomicU64],
        offset: u64,
        lengthen: impl Fn(u32) -> Result<(), E>,
        back: impl Fn(core::ops::Range<u64>) -> Result<(), E>,
    ) -> Result<u64, PlaceError<E>> {
        loop {
            if let Some(place) = self.known(offset) {
                return Ok(place);
            }
            let read = self.read_on(layout, log).ok_or(PlaceError::Corrupt)?;
            if let Some(place) = self.known(offset) {
                return Ok(place);
            }
            let group = layout.group(offset).ok_or(PlaceError::Corrupt)?;
            let place = layout.place(read.end, group.pieces).ok_or(PlaceError::Corrupt)?;
            let entry = log.get(read.entries as usize).ok_or(PlaceError::Corrupt)?;
            lengthen(place + group.pieces).map_err(PlaceError::Refused)?;
            // Whoever reads the last entry that has pages reads the next one.
            let next = u64::from(read.entries) + 1;
            if next.is_multiple_of(LOG_STEP) {
                let end = (next + LOG_STEP).min(layout.groups());
                back(next..end).map_err(PlaceError::Refused)?;
            }
            // Release pairs with the Acquire load in `read_on`. If somebody was faster, or it is
            // written now, the next round reads it.
            let _ = entry.compare_exchange(
                0,
                entry_of(group.piece),
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
    }

    /// Reads the log to its end; `None` if somebody has written over it.
    fn read_on(&self, layout: &Layout, log: &[AtomicU64]) -> Option<Progress> {
        // Acquire, here and below: pairs with the Release swap. A thread that goes on where another
        // has stopped sees the places that that one has stored.
        let mut bits = self.read.load(Ordering::Acquire);
        loop {
            let read = Progress::from_bits(bits);
            // Pairs with the Release in `assign`.
            let entry = log.get(read.entries as usize).map_or(0, |it| it.load(Ordering::Acquire));
            if entry == 0 {
                return Some(read);
            }
            let piece = piece_of(entry)?;
            let group =
                layout.group(layout.bytes_of(piece)).filter(|group| group.piece == piece)?;
            let place = layout.place(read.end, group.pieces)?;
            for nth in 0..group.pieces {
                let shift = Shift::new(layout, piece + nth, place + nth);
                let known = &self.shifts[(piece + nth) as usize];
                // Another thread of this process may be reading the same entry.
                match known.load(Ordering::Relaxed) {
                    0 => known.store(shift.0, Ordering::Relaxed),
                    there if there == shift.0 => {}
                    _ => return None,
                }
            }
            let next = Progress { entries: read.entries + 1, end: place + group.pieces };
            bits = match self.read.compare_exchange(
                bits,
                next.to_bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => next.to_bits(),
                Err(now) => now,
            };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn log(layout: &Layout) -> Vec<AtomicU64> {
        (0..layout.groups()).map(|_| AtomicU64::new(0)).collect()
    }

    fn never(_: u32) -> Result<(), ()> {
        Ok(())
    }

    fn assign(extents: &Extents, layout: &Layout, log: &[AtomicU64], offset: u64) -> u64 {
        extents.assign(layout, log, offset, never, |_| Ok(())).expect("a place")
    }

    /// The first offset behind the group of this one.
    fn behind(layout: &Layout, offset: u64) -> u64 {
        let group = layout.group(offset).expect("a group");
        layout.bytes_of(group.piece + group.pieces)
    }

    #[test]
    fn groups_lie_in_the_order_of_their_first_use_and_all_agree() {
        let layout = Layout::for_budget(1 << 16).expect("a layout");
        let log = log(&layout);
        let [one, other] = [(); 2].map(|()| Extents::new(&layout).expect("memory"));
        let first = layout.first_len();
        assert_eq!((one.known(first - 1), one.known(first)), (Some(first - 1), None));
        // A group of three pieces, by its last byte.
        let end = behind(&layout, first);
        assert_eq!(assign(&one, &layout, &log, end - 1), end - 1);
        let last = layout.size() - 1;
        assert_eq!(other.find(&layout, &log, last), None);
        let place = assign(&other, &layout, &log, last);
        assert!(place > end - 1);
        for extents in [&one, &other] {
            assert_eq!(extents.find(&layout, &log, first), Some(first));
            assert_eq!(extents.find(&layout, &log, last), Some(place));
            assert_eq!(assign(extents, &layout, &log, last), place);
            assert_eq!(extents.known(layout.size()), None);
        }
        let written = log.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count();
        assert_eq!(written, 2);
        assert_eq!(one.end(&layout, &log).map(|end| layout.bytes_of(end)), Some(place + 1));
    }

    #[test]
    fn bytes_are_near_if_they_lie_in_one_piece_of_the_first_area() {
        let layout = Layout::for_budget(1 << 28).expect("a layout");
        let (log, extents) = (log(&layout), Extents::new(&layout).expect("memory"));
        let (start, piece) = (layout.first_len(), layout.bytes_of(1));
        assert_eq!(extents.near(start, 1), None);
        assign(&extents, &layout, &log, start);
        for (offset, len, expected) in [
            (start, 1, Some(start)),
            (start + 7, piece - 7, Some(start + 7)),
            (start + 7, piece - 6, None),
            (start, u64::MAX, None),
            (u64::MAX, 1, None),
            (layout.size(), 1, None),
        ] {
            assert_eq!(extents.near(offset, len), expected, "{len} at {offset}");
        }
        let mut offset = start;
        while extents.known(offset).is_none_or(|place| place < layout.area()) {
            offset = behind(&layout, offset);
            assign(&extents, &layout, &log, offset);
        }
        assert_eq!(extents.near(offset, 1), None, "in the second area");
    }

    #[test]
    fn what_the_kernel_refuses_leaves_no_entry() {
        let layout = Layout::for_budget(1 << 16).expect("a layout");
        let log = log(&layout);
        let extents = Extents::new(&layout).expect("memory");
        let offset = layout.first_len();
        let refused = extents.assign(&layout, &log, offset, |_| Err(7), |_| Ok(()));
        assert_eq!(refused, Err(PlaceError::Refused(7)));
        assert_eq!(log[0].load(Ordering::Relaxed), 0);
        assert_eq!(extents.known(offset), None);
    }

    #[test]
    fn entries_get_pages_before_anybody_reads_them() {
        let layout = Layout::for_budget(1 << 28).expect("a layout");
        let (log, extents) = (log(&layout), Extents::new(&layout).expect("memory"));
        let backed = std::cell::Cell::new(LOG_STEP);
        let mut offset = layout.first_len();
        for entry in 0..2 * LOG_STEP {
            assert!(entry < backed.get());
            let back = |range: core::ops::Range<u64>| {
                assert_eq!(range.start, backed.get());
                backed.set(range.end);
                Ok::<(), ()>(())
            };
            extents.assign(&layout, &log, offset, never, back).expect("a place");
            // Its successor is read at once.
            assert!(entry + 1 < backed.get());
            offset = behind(&layout, offset);
        }
    }

    #[test]
    fn a_log_that_somebody_has_written_over_is_believed_no_further() {
        let layout = Layout::for_budget(1 << 16).expect("a layout");
        let (first, piece) = (layout.first_len(), layout.fixed_pieces());
        // In the middle of a group, in none, the fixed part, and twice the same.
        let wrong = [piece + 1, layout.pieces(), u32::MAX - 1, 0, piece].map(entry_of);
        for wrong in wrong.into_iter().chain([1, u64::from(piece) + 4, u64::MAX]) {
            let (log, extents) = (log(&layout), Extents::new(&layout).expect("memory"));
            assign(&extents, &layout, &log, first);
            log[1].store(wrong, Ordering::Relaxed);
            assert_eq!(extents.end(&layout, &log), None, "{wrong}");
            assert_eq!(extents.find(&layout, &log, first), Some(first));
            let next = behind(&layout, first);
            let failed = extents.assign(&layout, &log, next, never, |_| Ok(()));
            assert_eq!(failed, Err(PlaceError::Corrupt));
        }
    }

    #[test]
    fn threads_that_read_and_write_at_once_agree() {
        let layout = Layout::for_budget(1 << 20).expect("a layout");
        let (log, shared) = (log(&layout), Extents::new(&layout).expect("memory"));
        let own: Vec<Extents> = (0..2).map(|_| Extents::new(&layout).expect("memory")).collect();
        let pieces = || layout.fixed_pieces()..layout.pieces();
        std::thread::scope(|scope| {
            for extents in [&shared, &shared, &own[0], &own[1]] {
                let (layout, log) = (&layout, &log);
                scope.spawn(move || {
                    for piece in pieces().step_by(7) {
                        assign(extents, layout, log, layout.bytes_of(piece));
                    }
                });
            }
        });
        let mut taken = std::collections::HashSet::new();
        for offset in pieces().map(|piece| layout.bytes_of(piece)) {
            let place = shared.find(&layout, &log, offset);
            assert!(own.iter().all(|it| it.find(&layout, &log, offset) == place));
            assert!(place.is_none_or(|place| taken.insert(place)), "two pieces in one place");
        }
        assert!(taken.len() >= pieces().step_by(7).count());
    }
}
