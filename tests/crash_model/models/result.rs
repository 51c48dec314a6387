//! What a child returns to its parent: an object that it holds, or a box; with the crate's code for
//! results, its heap and its reaper. The child, the parent, other holders and reapers die.
//!
//! The outcome, which is the parent's and the child's alone, is two words: the name of the block
//! that carries or is the value, and whether it is complete. While it is complete, and the parent
//! lives and has not taken it, nobody may free what it names.

use std::sync::Arc;

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::{BlockId, Pool};
use crate::models::boxes::{self, Cargo};
use crate::models::carried::{self, CARRIED, header, leave, left, mistaken_reaper};
use crate::models::heap::{self, FREE, OWNED, SHARED, decode, peer, with};
use crate::models::peers::forget_cards;
use crate::object::flight::settle;
use crate::object::kind::Kind;
use crate::object::lineage::Lineage;
use crate::object::parcel::Envelope;
use crate::object::payload::{word_of, words};
use crate::object::serial::{Load, Passenger};
use crate::object::{Handle, block, flight, reap, result};
use crate::peer::footprint::Cards;
use crate::peer::id::index_of;
use crate::peer::{PeerId, attach, reaper};
use crate::segment::layout::{BLOCK, BLOCKS, FREE_WORDS};
use crate::segment::region::Mapping;
use crate::sys::pidfd::Identity;
use crate::world::{self, Fate, Local, Note, read, write};

const PARENT: usize = 0;
const CHILD: usize = 1;

/// The object, or the box.
const VALUE: u64 = 0;
const OBJECT: Handle = Handle { segment: 0, block: VALUE, generation: 0 };
/// The flight, if it is an object.
const FLIGHT: u64 = 1;

/// Block and generation of what carries the value.
const NAMED: usize = FREE_WORDS as usize;
/// 1 if the outcome is complete.
const COMPLETE: usize = FREE_WORDS as usize + 8;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A reaper takes what a dead child has returned for stranded.
    SweepsResults,
    /// A parent frees what the child has returned, and then opens the object.
    DiscardsFirst,
    /// A parent does not free what it has not taken.
    KeepsRest,
}

/// What the child returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Object,
    Box,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub value: Value,
    /// The parent joins the child; else it drops the handle, and only waits for the child.
    pub joins: bool,
    /// A third process holds the object and lets go of it.
    pub holder: bool,
    pub reapers: usize,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

impl Setting {
    pub fn of(value: Value, joins: bool) -> Setting {
        Setting {
            value,
            joins,
            holder: false,
            reapers: 0,
            deaths: 2,
            preemptions: None,
            mistake: Mistake::None,
        }
    }

    pub fn model(self) -> Model {
        let mut text = format!("{:?}", self.value).to_lowercase();
        text += if self.joins { ", joined" } else { ", never joined" };
        if self.holder {
            text += ", another holder";
        }
        text += &carried::limits(self.reapers, self.deaths, self.preemptions);
        let processes = self.processes();
        let monitor = Watch { value: self.value, first: self.holders() };
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("result", text, monitor)
        }
    }

    /// One bit for each process that holds the object from the beginning.
    fn holders(&self) -> u64 {
        let child = u64::from(self.value == Value::Object) << CHILD;
        child | u64::from(self.holder) << (CHILD + 1)
    }

    fn set_up(&self) {
        let (blocks, kind) = match self.value {
            Value::Object => (2, Kind::Parcel.named::<()>()),
            Value::Box => (1, Kind::Boxed.named::<()>()),
        };
        carried::set_up(self.processes().len(), blocks, kind);
        if self.value == Value::Object {
            let holders = (0..8).filter(|process| self.holders() >> process & 1 != 0);
            let object = carried::share(Kind::Event.named::<()>(), BLOCK, holders, |_| {});
            assert_eq!(object, OBJECT.block);
            leave(PARENT, OBJECT);
        }
        forget_cards(self.processes().len(), blocks);
    }

    fn processes(&self) -> Vec<Process> {
        let Setting { value, joins, mistake, .. } = *self;
        let mut processes = vec![
            Process::new("parent", move |local| parent(value, joins, mistake, local)),
            Process { exits: true, ..Process::new("child", move |local| child(value, local)) },
        ];
        if self.holder {
            processes.push(Process::new("holder", |_| {
                let_go(CHILD + 1);
                None
            }));
        }
        let others = processes.len();
        for reaper in others..others + self.reapers {
            processes.push(match mistake {
                Mistake::SweepsResults => mistaken_reaper(reaper, others, clear_mistaken),
                _ => heap::reaper_of(reaper, others),
            });
        }
        processes
    }
}

fn lineage(process: usize) -> Lineage {
    let mapping = Arc::new(Mapping::new(peer(process).to_bits()));
    Lineage { mapping, parent: peer(PARENT), child: peer(CHILD) }
}

fn object() -> BlockId {
    BlockId::from_bits(VALUE).expect("a block")
}

/// Returns the value and exits.
fn child(value: Value, [step, ..]: Local) -> Option<Local> {
    let lineage = lineage(CHILD);
    match (value, step) {
        (Value::Object, 0) => {
            let name = Name { id: object(), generation: 0, role: 0 };
            let load = Load { file: 0, passengers: vec![Passenger { name }] };
            match result::send_off(&[load], &lineage) {
                Ok(words) => complete(words[1] | words[2] << 8),
                Err(_) => world::note("not returned", 0, 0),
            }
            // It may drop it, or leave that to its reaper.
            Some([1, 0, 0, 0])
        }
        (Value::Object, _) => {
            let_go(CHILD);
            None
        }
        (Value::Box, _) => {
            let Some(mut cargo) = boxes::load(1, 1) else {
                world::note("no memory", 0, 0);
                return None;
            };
            match result::pack(&mut cargo, &lineage) {
                // Behind the segment.
                Ok(words) => complete(words[1]),
                Err(_) => world::note("not returned", 0, 0),
            }
            None
        }
    }
}

fn complete(name: u64) {
    write(NAMED, name);
    write(COMPLETE, 1);
}

/// Waits for the child, clears up after it, and takes what it has returned.
fn parent(value: Value, joins: bool, mistake: Mistake, [step, ..]: Local) -> Option<Local> {
    let lineage = lineage(PARENT);
    let next = Some([step + 1, 0, 0, 0]);
    match step {
        0 => {
            if world::is_dead(CHILD) {
                return next;
            }
            Some([0; 4])
        }
        1 => {
            with(PARENT, |mapping, region, me| {
                let (_, table) = attach::view(mapping).expect("a table");
                let pid = Identity::of_process(CHILD).pid;
                reaper::reap_child(mapping, table, me, peer(CHILD), pid, |dead| {
                    reap::clear(mapping, region, dead, me);
                });
            });
            next
        }
        2 => {
            let is_returned = joins && read(COMPLETE) == 1;
            let discards = || {
                world::note("discards", 0, 0);
                result::discard(&lineage);
            };
            if mistake == Mistake::DiscardsFirst {
                discards();
            }
            let taken = is_returned
                && match value {
                    Value::Object => open(PARENT, read(NAMED), &lineage),
                    Value::Box => take(PARENT, read(NAMED), &lineage),
                };
            if mistake == Mistake::None || taken && mistake == Mistake::KeepsRest {
                discards();
            }
            if taken && value == Value::Object { next } else { None }
        }
        _ => {
            let_go(PARENT);
            None
        }
    }
}

/// Opens the object in the flight of this name that `process` was sent, while the flight holds it.
pub(super) fn open(process: usize, named: u64, lineage: &Lineage) -> bool {
    let Ok(listed) = result::arrive(&[0, named & 0xff, named >> 8], lineage) else {
        world::note("is gone", 0, 0);
        return false;
    };
    let names: Vec<Name> = listed.into_iter().flat_map(|(_, names)| names).collect();
    if names != [Name { id: object(), generation: 0, role: 0 }] {
        world::note("another object", names.len() as u64, 0);
        return false;
    }
    let opened = with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        settle(&pool, me, |empty| pool.attach(object(), 0, me, empty)).is_some()
    });
    world::note(if opened { "holds" } else { "is gone" }, process as u64, 0);
    opened
}

/// Takes the box of this name that `process` was sent, looks into it and gives it back.
pub(super) fn take(process: usize, named: u64, lineage: &Lineage) -> bool {
    let mut cargo = Cargo { number: 1, blocks: [None; 2] };
    cargo.blocks[0] = boxes::from_word(named);
    let envelope = cargo.to_envelope();
    let body = (0..words::<Envelope>()).map(|index| word_of(&envelope, index));
    let message: Vec<u64> = std::iter::once(0).chain(body).collect();
    match result::unpack::<Cargo>(&message, lineage) {
        Ok(cargo) => {
            world::note("holds", process as u64, 0);
            let block = cargo.blocks[0].map_or(0, |block| block.id.to_bits());
            let number = read((BLOCKS + block * BLOCK) as usize);
            if number != cargo.number {
                world::note("torn", number, 0);
            }
            cargo.give_back();
            true
        }
        Err(_) => {
            world::note("is gone", 0, 0);
            false
        }
    }
}

/// Lets go of the object, as the last handle of a process does.
fn let_go(process: usize) {
    world::note("lets go", process as u64, 0);
    leave(process, OBJECT);
}

/// What a reaper of our own does, for controls.
fn clear_mistaken(pool: &Pool<'_>, dead: PeerId, me: PeerId) {
    let carries = |carrier: Carrier| carrier.receiver().is_none() && block::carries(pool, carrier);
    let recover = |object| {
        block::recover(pool, object, dead.owner());
    };
    flight::settle(pool, me, |empty| pool.clear(dead, me, carries, recover, empty, |_| {}));
    pool.sweep(me, Cards::ALL, carries, |_| {});
    flight::settle_all(pool, me);
}

// What the monitor remembers.
/// One bit for each process that has come to hold the object, and for each that has begun to let
/// go.
const HELD: usize = 0;
const LET_GO: usize = 1;
/// Whether the parent has taken the value or frees it.
const DONE: usize = 2;

struct Watch {
    value: Value,
    /// Who holds the object from the beginning.
    first: u64,
}

impl Watch {
    /// Whether the parent can still take what the child has returned.
    fn is_returned(view: &View<'_>, ghost: &Ghost) -> bool {
        view.read(COMPLETE) == 1 && !view.is_dead(PARENT) && ghost[DONE] == 0
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        let carries = match self.value {
            Value::Object => FLIGHT,
            Value::Box => VALUE,
        };
        carried::changed_by_a_holder(touch, view)?;
        let ((_, from, before), (_, to, after)) = (decode(touch.before), decode(touch.after));
        if touch.before == touch.after {
            return Ok(());
        }
        if touch.offset == header(carries) {
            let is_of = |owner| index_of(owner) as usize == touch.process;
            let is_dead = |owner| view.is_dead(index_of(owner) as usize);
            let is_right = match (from, to) {
                (FREE, OWNED) => is_of(after),
                (OWNED, CARRIED) => is_of(before),
                (CARRIED, OWNED) => touch.process == PARENT || !Self::is_returned(view, ghost),
                (OWNED, OWNED) => is_dead(before),
                (OWNED, FREE) => is_of(before) || is_dead(before),
                _ => false,
            };
            if !is_right {
                return Err(format!(
                    "block {carries} went from {from} to {to} by {}",
                    touch.process
                ));
            }
        } else if touch.offset == header(VALUE) && (from, to) == (SHARED, OWNED) {
            let held = (self.first | ghost[HELD]) & !ghost[LET_GO];
            if let Some(holder) = carried::living(held, view) {
                return Err(format!("the object is taken from {holder}"));
            }
            if Self::is_returned(view, ghost) {
                return Err("the object is taken from what the child has returned".into());
            }
        }
        Ok(())
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "holds" => {
                ghost[HELD] |= 1 << process;
                ghost[DONE] = 1;
            }
            "discards" => ghost[DONE] = 1,
            "lets go" => ghost[LET_GO] |= 1 << process,
            what => return Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
        Ok(())
    }

    fn at_the_end(&self, fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        match left(if self.value == Value::Object { 2 } else { 1 }) {
            Some(block) => Err(format!("in the end, {block}")),
            None => Ok(()),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            NAMED => format!("outcome: {value:#x}"),
            COMPLETE => format!("outcome complete: {value}"),
            _ => carried::tell(2, 0, offset, value),
        }
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    let of = |mistake, reapers| {
        let setting = Setting::of(Value::Object, true);
        Setting { mistake, reapers, deaths: 1, preemptions: Some(3), ..setting }.model()
    };
    vec![
        (
            of(Mistake::SweepsResults, 1),
            "results, taken for stranded once the child is dead",
            Some("went from 3 to 1"),
        ),
        (
            of(Mistake::DiscardsFirst, 0),
            "results, freed before the object is opened",
            Some("is gone"),
        ),
        (
            of(Mistake::KeepsRest, 0),
            "results, not freed by a parent that took none",
            Some("is left"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let mut settings = Vec::new();
    for value in [Value::Box, Value::Object] {
        for joins in [true, false] {
            let of = || Setting::of(value, joins);
            settings.push(of());
            let preemptions = Some(if all { 3 } else { 2 });
            settings.push(Setting { reapers: 1, preemptions, ..of() });
            if all {
                settings.push(match value {
                    Value::Object => Setting { holder: true, ..of() },
                    Value::Box => Setting { reapers: 2, preemptions: Some(2), ..of() },
                });
            }
        }
    }
    settings.into_iter().map(Setting::model).collect()
}
