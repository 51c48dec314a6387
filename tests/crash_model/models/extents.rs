//! The places of groups in a file: processes that give groups their places, and die anywhere, and
//! processes that read the log. The file, and the pages of its log, are words of which the kernel
//! sets bits.

use core::cell::Cell;
use core::ops::Range;

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::extents::{Extents, PlaceError, entry_of};
use crate::segment::layout::{FREE_WORDS, GROUPS, LOG_STEP, Layout};
use crate::segment::region::{self, Mapping};
use crate::world::{self, Fate, Local, Note};

/// Bits: pieces that the file has.
const FILE: usize = FREE_WORDS as usize;
/// Bits: entries of the log that have pages.
const BACKED: usize = FILE + 8;
const LOG: usize = FILE + 16;

/// Who gives groups their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// The crate's.
    Crates,
    /// One that writes the entry before the file is long enough.
    Hasty,
    /// One that gives no pages to the entries that follow.
    Sparing,
    /// One that goes on behind the entry that was faster, and does not look which it is.
    Blind,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The groups for which each process needs a place, by their number.
    pub wanted: &'static [&'static [usize]],
    /// A process that reads the log, so often.
    pub readings: u64,
    pub deaths: usize,
    pub preemptions: Option<u64>,
}

impl Setting {
    pub fn model(self) -> Model {
        self.model_with(Writer::Crates)
    }

    /// A control.
    pub fn with_hasty_writers(self) -> Model {
        self.model_with(Writer::Hasty)
    }

    /// A control.
    pub fn with_sparing_writers(self) -> Model {
        self.model_with(Writer::Sparing)
    }

    /// A control.
    pub fn with_blind_writers(self) -> Model {
        self.model_with(Writer::Blind)
    }

    fn model_with(self, writer: Writer) -> Model {
        let Setting { wanted, readings, deaths, preemptions } = self;
        let mut text = format!("groups {wanted:?}, {readings} readings, {deaths} die");
        if let Some(preemptions) = preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let mut processes: Vec<Process> = wanted
            .iter()
            .map(|&wanted| Process::new("assigns", move |local| assign(writer, wanted, local)))
            .collect();
        if readings > 0 {
            processes.push(Process::new("reads", move |local| read(readings, local)));
        }
        let set_up = || {
            region::lay_out(0, 0);
            let layout = Layout::for_budget(0).expect("one");
            world::write(FILE, (1 << layout.fixed_pieces()) - 1);
            world::write(BACKED, (1 << LOG_STEP) - 1);
        };
        Model {
            set_up: Box::new(set_up),
            processes,
            deaths,
            slices: Slices::LastResort,
            preemptions,
            ..Model::new("extents", text, Watch)
        }
    }
}

fn log(mapping: &Mapping) -> &[AtomicU64] {
    mapping.region().and_then(|region| region.array(LOG as u64, GROUPS.len())).expect("there")
}

/// The kernel sets all these bits at once.
fn set_bits(mapping: &Mapping, offset: usize, bits: u64) {
    let word: &AtomicU64 =
        mapping.region().and_then(|region| region.at(offset as u64)).expect("there");
    word.fetch_or(bits, Ordering::Relaxed);
}

/// Gives a place to the next group that it needs one for.
fn assign(writer: Writer, wanted: &[usize], [done, ..]: Local) -> Option<Local> {
    let group = GROUPS[*wanted.get(done as usize)?];
    let (layout, mapping) = (Layout::for_budget(0).expect("one"), Mapping::new(0));
    let extents = Extents::new(&layout).expect("memory");
    let log = log(&mapping);
    let length = Cell::new(0);
    let lengthen = |pieces: u32| {
        length.set(pieces);
        if writer != Writer::Hasty {
            set_bits(&mapping, FILE, (1 << pieces) - 1);
        }
        Ok::<(), ()>(())
    };
    let back = |entries: Range<u64>| {
        if writer != Writer::Sparing {
            set_bits(&mapping, BACKED, (1 << entries.end) - (1 << entries.start));
        }
        Ok(())
    };
    // The last byte, so that the first is not the only one that has a place.
    let end = layout.bytes_of(group.piece + group.pieces);
    let place = if writer == Writer::Blind {
        let place = assign_blindly(&extents, &layout, log, group.piece, lengthen);
        layout.bytes_of(place + group.pieces) - 1
    } else {
        let assigned = extents.assign(&layout, log, end - 1, lengthen, back);
        assigned.unwrap_or_else(|error: PlaceError<()>| panic!("a place: {error:?}"))
    };
    if writer == Writer::Hasty && length.get() > 0 {
        set_bits(&mapping, FILE, (1 << length.get()) - 1);
    }
    world::note("placed", end - 1, place);
    Some([done + 1, 0, 0, 0])
}

fn assign_blindly(
    extents: &Extents,
    layout: &Layout,
    log: &[AtomicU64],
    piece: u32,
    lengthen: impl Fn(u32) -> Result<(), ()>,
) -> u32 {
    if let Some(place) = extents.find(layout, log, layout.bytes_of(piece)) {
        return (place >> layout.piece_shift()) as u32;
    }
    let mut end = extents.end(layout, log).expect("sound");
    let first_free = log.iter().position(|entry| entry.load(Ordering::Acquire) == 0);
    for entry in &log[first_free.expect("room")..] {
        let group = layout.group(layout.bytes_of(piece)).expect("a group");
        let place = layout.place(end, group.pieces).expect("room");
        lengthen(place + group.pieces).expect("room");
        let written =
            entry.compare_exchange(0, entry_of(piece), Ordering::Release, Ordering::Acquire);
        let Err(other) = written else {
            return place;
        };
        let other = layout.group(layout.bytes_of(other as u32 - 1)).expect("a group");
        end = layout.place(end, other.pieces).expect("room") + other.pieces;
    }
    panic!("no entry is left");
}

/// Reads the log, as often as it is told.
fn read(readings: u64, [done, ..]: Local) -> Option<Local> {
    if done == readings {
        return None;
    }
    let (layout, mapping) = (Layout::for_budget(0).expect("one"), Mapping::new(0));
    let extents = Extents::new(&layout).expect("memory");
    for group in GROUPS {
        let offset = layout.bytes_of(group.piece);
        if let Some(place) = extents.find(&layout, log(&mapping), offset) {
            world::note("placed", offset, place);
        }
    }
    Some([done + 1, 0, 0, 0])
}

struct Watch;

/// The places of groups, and how many pieces they take, by the log.
fn places(read: impl Fn(usize) -> u64) -> Result<(Vec<(u32, u32)>, u32), String> {
    let layout = Layout::for_budget(0).expect("one");
    let (mut places, mut end) = (Vec::new(), layout.fixed_pieces());
    let entry = |index: usize| read(LOG + 8 * index) as u32;
    for index in 0..GROUPS.len() {
        let Some(piece) = entry(index).checked_sub(1) else {
            if (index..GROUPS.len()).any(|later| entry(later) != 0) {
                return Err("an entry was left out".into());
            }
            break;
        };
        let group = layout.group(layout.bytes_of(piece)).filter(|group| group.piece == piece);
        let group = group.ok_or_else(|| format!("entry {index} names piece {piece}"))?;
        if places.iter().any(|&(there, _)| there == piece) {
            return Err(format!("two entries for the group of piece {piece}"));
        }
        let place = layout.place(end, group.pieces).ok_or("no area is left")?;
        places.push((piece, place));
        end = place + group.pieces;
    }
    Ok((places, end))
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, _: &mut Ghost) -> Result<(), String> {
        let read = |offset: usize| view.read(offset);
        let (_, end) = places(read)?;
        if read(FILE) & ((1 << end) - 1) != (1 << end) - 1 {
            return Err("the file ends before a group that has a place".into());
        }
        if let Some(offset) = touch.offset.checked_sub(LOG)
            && read(BACKED) >> (offset / 8) & 1 == 0
        {
            return Err(format!("entry {} has no page", offset / 8));
        }
        Ok(())
    }

    fn noted(
        &self,
        _process: usize,
        note: Note,
        view: &View<'_>,
        _: &mut Ghost,
    ) -> Result<(), String> {
        let (places, _) = places(|offset| view.read(offset))?;
        let layout = Layout::for_budget(0).ok_or("none")?;
        let group = layout.group(note.a).ok_or("none")?;
        let start = note.b - (note.a - layout.bytes_of(group.piece));
        let place = (start >> layout.piece_shift()) as u32;
        if places.contains(&(group.piece, place)) {
            Ok(())
        } else {
            Err(format!("{note:?}, and by the log {places:?}"))
        }
    }

    fn at_the_end(&self, _fates: &[Fate], _: &Ghost) -> Result<(), String> {
        for number in 0..GROUPS.len() {
            if assign(Writer::Crates, &[number], [0; 4]).is_none() {
                return Err(format!("group {number} gets no place"));
            }
        }
        match places(world::read)? {
            (places, _) if places.len() == GROUPS.len() => Ok(()),
            (places, _) => Err(format!("{places:?}")),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            FILE => format!("{} pieces", value.count_ones()),
            BACKED => format!("{} entries with pages", value.count_ones()),
            _ => format!("entry {}: {value}", (offset - LOG) / 8),
        }
    }
}

/// Two that want the same group.
pub const SMALLEST: Setting =
    Setting { wanted: &[&[1], &[1]], readings: 0, deaths: 1, preemptions: None };

/// Two that fill the log.
pub const FULL: Setting =
    Setting { wanted: &[&[0, 1, 2], &[3, 1]], readings: 0, deaths: 1, preemptions: None };

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let mut settings = vec![
        SMALLEST,
        Setting { wanted: &[&[1], &[2]], readings: 1, ..SMALLEST },
        FULL,
        Setting { wanted: &[&[1], &[1], &[3]], deaths: 2, ..SMALLEST },
    ];
    if all {
        settings.push(Setting { deaths: 2, readings: 1, preemptions: Some(3), ..FULL });
        settings.push(Setting { wanted: &[&[0, 1], &[1, 2], &[3, 1]], deaths: 2, ..SMALLEST });
        settings.push(Setting {
            wanted: &[&[0, 1, 2, 3], &[3, 2, 1, 0]],
            readings: 1,
            preemptions: Some(3),
            ..SMALLEST
        });
    }
    settings.into_iter().map(Setting::model).collect()
}
