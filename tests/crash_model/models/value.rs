//! The value: the crate's `Value` over its words, with writers that die, waiting writers that die,
//! readers in between, and a reaper that dies. In the copies the two words of a value are the same.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::models::recover;
use crate::object::kind::Kind;
use crate::object::place::HANDLE;
use crate::segment::Segment;
use crate::segment::layout::OBJECT;
use crate::segment::region;
use crate::sync::Wait;
use crate::value::Value;
use crate::world::{self, Fate, Local, Note, read};

/// Of a value in a word.
const WORD: usize = OBJECT as usize;
// Of one in two copies; `src/object/block/value.rs` asserts where they lie.
const WRITER: usize = OBJECT as usize;
const FREED: usize = OBJECT as usize + 8;
const SEQUENCE: usize = OBJECT as usize + 128;
const COPIES: usize = OBJECT as usize + 256;
const STRIDE: usize = 128;

/// Its length is that of a value in two copies: two words, each in lines of its own.
const LEN: u64 = 256 + 2 * STRIDE as u64;

/// A value that counts its changes.
type Pair = [u64; 2];

/// What the readers do between two writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// The crate's `get`.
    Crates,
    /// One that does not look at the sequence again.
    Mistaken,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Two copies, or one word.
    pub copies: bool,
    /// How often each process changes the value.
    pub updates: [u64; 3],
    pub writers: usize,
    /// How often each process reads it.
    pub reads: [u64; 2],
    pub readers: usize,
    /// One that clears up after the dead as the reaper does.
    pub reaper: bool,
    pub deaths: usize,
    pub slices: Slices,
    pub preemptions: Option<u64>,
}

impl Setting {
    pub fn model(self) -> Model {
        self.model_with(Reader::Crates)
    }

    /// A control.
    pub fn with_mistaken_readers(self) -> Model {
        self.model_with(Reader::Mistaken)
    }

    fn model_with(self, reader: Reader) -> Model {
        let mut text = format!(
            "{}, updates {:?}, reads {:?}",
            if self.copies { "two copies" } else { "a word" },
            &self.updates[..self.writers],
            &self.reads[..self.readers]
        );
        if self.reaper {
            text += ", reaper";
        }
        if matches!(self.slices, Slices::Anytime(_)) {
            text += ", slices";
        }
        text += &format!(", {} die", self.deaths);
        if let Some(preemptions) = self.preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let copies = self.copies;
        let mut processes: Vec<Process> = (0..self.writers)
            .map(|writer| {
                let updates = self.updates[writer];
                Process::new("writes", move |local| update(copies, updates, local))
            })
            .collect();
        processes.extend((0..self.readers).map(|number| {
            let reads = self.reads[number];
            Process::new("reads", move |local| get(copies, reader, reads, local))
        }));
        if self.reaper {
            let others = processes.len();
            processes.push(Process {
                may_run: Box::new(move |fates| {
                    fates.contains(&Fate::Dead)
                        || fates[..others].iter().all(|&fate| fate == Fate::Ended)
                }),
                ..Process::new("reaper", move |_| {
                    (0..others).filter(|&other| world::is_dead(other)).for_each(clear_up);
                    None
                })
            });
        }
        let set_up = move || {
            region::lay_out(0, 0);
            if copies {
                drop(Value::<Pair>::new([0; 2]).expect("a value"));
            } else {
                drop(Value::<u64>::new(0).expect("a value"));
            }
        };
        let Setting { deaths, slices, preemptions, .. } = self;
        Model {
            set_up: Box::new(set_up),
            processes,
            deaths,
            slices,
            preemptions,
            ..Model::new("value", text, Watch { copies })
        }
    }
}

fn value<T: crate::segment::Shm>() -> Value<T> {
    let segment = Segment::commons().expect("a segment");
    Value::open(&segment, HANDLE).expect("a value").with_wait(Wait::Sleep)
}

/// Adds one, as often as it is told.
fn update(copies: bool, updates: u64, [done, ..]: Local) -> Option<Local> {
    if done == updates {
        return None;
    }
    if copies {
        value::<Pair>()
            .update(|pair| pair.iter_mut().for_each(|word| *word += 1))
            .expect("its turn");
    } else {
        value::<u64>().update(|word| *word += 1).expect("free");
    }
    world::note("updated", 0, 0);
    Some([done + 1, 0, 0, 0])
}

/// Reads, as often as it is told.
fn get(copies: bool, reader: Reader, reads: u64, [done, last, ..]: Local) -> Option<Local> {
    if done == reads {
        return None;
    }
    let [first, second] = match (copies, reader) {
        (true, Reader::Crates) => value::<Pair>().get().expect("ours"),
        (true, Reader::Mistaken) => {
            let copy = COPIES + (read(SEQUENCE) & 1) as usize * STRIDE;
            [read(copy), read(copy + 8)]
        }
        (false, _) => [value::<u64>().get().expect("ours"); 2],
    };
    world::note("read", first, second);
    if first < last {
        world::note("read an older one", last, first);
    }
    Some([done + 1, first, 0, 0])
}

fn clear_up(dead: usize) {
    recover(Kind::Value.with::<Pair>(), LEN, dead);
}

/// Updates whose writers know that they are done.
const KNOWN: usize = 0;

struct Watch {
    copies: bool,
}

/// Who may write, by the word.
fn writer(word: u64) -> Option<usize> {
    (word & 1 << 2 != 0).then_some((word >> 3 & 0x3ff) as usize)
}

impl Watch {
    /// The value, in whatever state everything else is; counts its changes.
    fn current(&self, read: impl Fn(usize) -> u64) -> Result<u64, String> {
        if !self.copies {
            return Ok(read(WORD));
        }
        let sequence = read(SEQUENCE);
        let copy = COPIES + (sequence & 1) as usize * STRIDE;
        let pair = [read(copy), read(copy + 8)];
        if pair == [sequence; 2] {
            Ok(sequence)
        } else {
            Err(format!("the current copy is {pair:?} after {sequence} changes"))
        }
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, _: &mut Ghost) -> Result<(), String> {
        // Whatever was done, there is a whole value.
        self.current(|offset| view.read(offset))?;
        if touch.before == touch.after {
            return Ok(());
        }
        match touch.offset {
            _ if !self.copies => {
                if touch.after == touch.before + 1 {
                    Ok(())
                } else {
                    Err(format!("from {} to {}", touch.before, touch.after))
                }
            }
            WRITER => {
                let (before, after) = (writer(touch.before), writer(touch.after));
                if let Some(before) = before
                    && before != touch.process
                    && !view.is_dead(before)
                {
                    return Err("a living writer lost its turn".into());
                }
                if after.is_some_and(|after| Some(after) != before && after != touch.process) {
                    return Err("the turn was given to somebody else".into());
                }
                Ok(())
            }
            FREED => Ok(()),
            _ if writer(view.read(WRITER)) != Some(touch.process) => {
                Err("somebody wrote whose turn it was not".into())
            }
            SEQUENCE if touch.after != touch.before + 1 => {
                Err(format!("the sequence went from {} to {}", touch.before, touch.after))
            }
            _ => Ok(()),
        }
    }

    fn noted(
        &self,
        _process: usize,
        note: Note,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let current = self.current(|offset| view.read(offset))?;
        match note.what {
            "updated" => {
                ghost[KNOWN] += 1;
                if ghost[KNOWN] <= current {
                    Ok(())
                } else {
                    Err(format!("{} updates came to {current}", ghost[KNOWN]))
                }
            }
            "read" if note.a != note.b => Err(format!("read half of a change: {note:?}")),
            "read" if note.a <= current => Ok(()),
            _ => Err(format!("{note:?}, where the value is {current}")),
        }
    }

    fn could_go_on(&self, _process: usize) -> bool {
        !self.copies || writer(read(WRITER)).is_none()
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        let current = self.current(read)?;
        let dead: Vec<usize> =
            (0..fates.len()).filter(|&process| fates[process] == Fate::Dead).collect();
        // Each of the dead may have made one change that it did not live to tell of.
        if !(ghost[KNOWN]..=ghost[KNOWN] + dead.len() as u64).contains(&current) {
            return Err(format!("{current} after {} updates, {} dead", ghost[KNOWN], dead.len()));
        }
        if self.copies {
            dead.into_iter().for_each(clear_up);
            let updated = value::<Pair>().try_update(|pair| *pair = pair.map(|word| word + 1));
            updated.map_err(|error| format!("nobody can change it: {error:?}"))?;
        } else {
            value::<u64>().set(current + 1).map_err(|error| format!("{error:?}"))?;
        }
        if self.current(read)? == current + 1 { Ok(()) } else { Err("it was not changed".into()) }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            _ if !self.copies => format!("word {value}"),
            WRITER => writer(value).map_or(format!("nobody's turn, {value}"), |writer| {
                format!("the turn of {writer}")
            }),
            FREED => format!("freed {}+{}", value >> 3, value & 7),
            SEQUENCE => format!("sequence {value}"),
            _ => {
                let (copy, word) = ((offset - COPIES) / STRIDE, (offset - COPIES) % STRIDE / 8);
                format!("copy {copy}, word {word}: {value}")
            }
        }
    }
}

/// One reader beside one writer that changes the value twice.
pub const SMALLEST: Setting = Setting {
    copies: true,
    updates: [2, 0, 0],
    writers: 1,
    reads: [1, 0],
    readers: 1,
    reaper: false,
    deaths: 0,
    slices: Slices::LastResort,
    preemptions: None,
};

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let base = Setting { reads: [2, 0], deaths: 2, ..SMALLEST };
    let two = Setting { updates: [1, 1, 0], writers: 2, ..base };
    let mut settings = vec![
        Setting { copies: false, ..base },
        Setting { copies: false, updates: [2, 2, 0], writers: 2, deaths: 3, ..base },
        base,
        two,
        Setting { readers: 0, updates: [2, 2, 0], ..two },
        Setting { readers: 0, reaper: true, deaths: 3, ..two },
    ];
    if all {
        settings.push(Setting { copies: false, updates: [2; 3], writers: 3, deaths: 4, ..base });
        settings.push(Setting { updates: [2, 2, 0], preemptions: Some(3), ..two });
        settings.push(Setting { reads: [2, 2], readers: 2, deaths: 1, ..base });
        settings.push(Setting { slices: Slices::Anytime(1), reaper: true, ..two });
        let crowd = Setting { updates: [1; 3], writers: 3, preemptions: Some(2), ..two };
        settings.push(crowd);
        settings.push(Setting { reaper: true, readers: 0, ..crowd });
    }
    settings.into_iter().map(Setting::model).collect()
}
