//! What a parent gives to a child that is no copy of it: an object that the parent holds, a box, or
//! both; with the crate's code for results, its peer table, its heap and its reaper. The parent,
//! the child and others that clear up die.
//!
//! The parent reserves an entry for the child and hands the arguments over to that entry, before
//! there is a child. Then it names the child in the entry and lets it go. Only then does the child
//! attach, take what it was given, and free the flights.
//!
//! A child may end at any time, as if it had been killed: if it was not let go and its parent is
//! dead, it ends without having looked at anything. A child that was let go goes on when its parent
//! dies, as a detached one does. While the child lives and can still be let go, or has been, and
//! has not said that it is done, nobody else may free what it was given.

use std::sync::Arc;

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::{AllocError, BlockId, Pool};
use crate::models::boxes;
use crate::models::carried::{self, CARRIED, header, leave, left};
use crate::models::heap::{self, FREE, OWNED, SHARED, attached, decode, peer, with};
use crate::models::peers::{forget_cards, vacate};
use crate::models::result::{open, take};
use crate::object::kind::Kind;
use crate::object::lineage::Lineage;
use crate::object::serial::{Load, Passenger};
use crate::object::{Handle, block, flight, reap, result};
use crate::peer::attach::{self, Arrival};
use crate::peer::footprint::Cards;
use crate::peer::id::index_of;
use crate::peer::reaper;
use crate::peer::table::State;
use crate::segment::layout::{BLOCK, FREE_WORDS};
use crate::segment::region::Mapping;
use crate::sys::pidfd::Identity;
use crate::world::{self, Fate, Local, Note, read, write};

const PARENT: usize = 0;
const CHILD: usize = 1;

/// The object, if there is one.
const OBJECT: Handle = Handle { segment: 0, block: 0, generation: 0 };

/// Block and generation of the flight.
const FLIGHT: usize = FREE_WORDS as usize;
/// The same of the box.
const BOX: usize = FREE_WORDS as usize + 8;
/// What the parent has said to the child.
const WORD: usize = FREE_WORDS as usize + 16;
const GO: u64 = 1;
/// There is no child after all.
const CANCELLED: u64 = 2;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A process that finds no room takes what a child has been given for stranded if the child's
    /// entry is not live yet.
    IgnoresReserved,
    /// A child frees what it was given, and then opens the object.
    DiscardsFirst,
    /// A child that has opened the object does not free the flight.
    KeepsFlight,
    /// A parent frees the entry of its dead child, and not what the child had been given.
    ForgetsArguments,
    /// A parent that has no child after all leaves the entry reserved for as long as it lives.
    KeepsEntry,
}

/// What the child is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Object,
    Box,
    Both,
}

impl Given {
    fn has_object(self) -> bool {
        self != Given::Box
    }

    fn has_box(self) -> bool {
        self != Given::Object
    }

    /// The object, the flight, the box.
    fn blocks(self) -> u64 {
        2 * u64::from(self.has_object()) + u64::from(self.has_box())
    }

    /// Where the blocks that are carried begin.
    fn first(self) -> u64 {
        self.has_object().into()
    }
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub given: Given,
    /// The system refuses to make the child.
    pub refused: bool,
    /// A third process holds the object and lets go of it.
    pub holder: bool,
    /// Another process clears up and sweeps at any time, as if it had found no room.
    pub crowded: bool,
    /// Those that clear up once somebody is dead.
    pub reapers: usize,
    /// Once the parent is gone, one of them lets a new process in, which gets the parent's entry if
    /// it is the first one.
    pub newcomer: bool,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

impl Setting {
    pub fn of(given: Given) -> Setting {
        Setting {
            given,
            refused: false,
            holder: false,
            crowded: false,
            reapers: 0,
            newcomer: false,
            deaths: 2,
            preemptions: None,
            mistake: Mistake::None,
        }
    }

    pub fn model(self) -> Model {
        let mut text = format!("{:?}", self.given).to_lowercase();
        for (is_so, what) in [
            (self.refused, ", no child"),
            (self.holder, ", another holder"),
            (self.crowded, ", no room"),
            (self.newcomer, ", a newcomer"),
        ] {
            text += if is_so { what } else { "" };
        }
        text += &carried::limits(self.reapers, self.deaths, self.preemptions);
        let processes = self.processes();
        let monitor = Watch { given: self.given, refused: self.refused, first: self.holders() };
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("arguments", text, monitor)
        }
    }

    /// One bit for each process that holds the object from the beginning.
    fn holders(&self) -> u64 {
        u64::from(self.given.has_object()) << PARENT | u64::from(self.holder) << (CHILD + 1)
    }

    fn set_up(&self) {
        let (processes, blocks) = (self.processes().len(), self.given.blocks());
        carried::set_up(processes, blocks, Kind::Boxed.named::<()>());
        if self.given.has_object() {
            let others = self.holder.then_some(CHILD + 1);
            let object = carried::share(Kind::Event.named::<()>(), BLOCK, others, |_| {});
            assert_eq!(object, OBJECT.block);
        }
        forget_cards(processes, blocks);
        vacate(CHILD);
    }

    fn processes(&self) -> Vec<Process> {
        let Setting { given, refused, mistake, .. } = *self;
        let mut processes = vec![
            Process::new("parent", move |local| parent(given, refused, mistake, local)),
            Process {
                exits: true,
                ..Process::new("child", move |local| child(given, mistake, local))
            },
        ];
        if self.holder {
            processes.push(Process::new("holder", |_| {
                let_go(CHILD + 1);
                None
            }));
        }
        if self.crowded {
            let process = processes.len();
            processes.push(Process::new("finds no room", move |_| {
                make_room(process, mistake);
                None
            }));
        }
        let others = processes.len();
        for reaper in others..others + self.reapers {
            processes.push(heap::reaper_of(reaper, others));
        }
        if self.newcomer {
            processes.pop();
            let process = processes.len();
            processes.push(Process {
                may_run: Box::new(|fates| fates[PARENT] != Fate::Running),
                ..Process::new("lets in", move |_| {
                    let_in(process);
                    None
                })
            });
        }
        processes
    }
}

/// As the process knows it: what goes from the parent to the child.
fn downward(process: usize) -> Lineage {
    let mapping = Arc::new(Mapping::new(peer(process).to_bits()));
    Lineage { mapping, parent: peer(PARENT), child: peer(CHILD) }.downward()
}

/// Reserves, sends, drops its handle, names the child and lets it go, and clears up after it.
fn parent(given: Given, refused: bool, mistake: Mistake, [step, ..]: Local) -> Option<Local> {
    let next = Some([step + 1, 0, 0, 0]);
    with(PARENT, |mapping, region, me| {
        let (_, table) = attach::view(mapping).expect("a table");
        let clear_up = |pid| {
            reaper::reap_child(mapping, table, me, peer(CHILD), pid, |dead| {
                if mistake != Mistake::ForgetsArguments {
                    reap::clear(mapping, region, dead, me);
                }
            });
        };
        let identity = Identity::of_process(CHILD);
        match step {
            0 => {
                if table.reserve(me, 1) != Some(peer(CHILD)) {
                    world::note("another entry", 0, 0);
                }
                next
            }
            1 => {
                send(given);
                next
            }
            2 => {
                if given.has_object() {
                    let_go(PARENT);
                }
                next
            }
            3 if refused => {
                world::note("done", 0, 0);
                if mistake != Mistake::KeepsEntry {
                    clear_up(0);
                }
                write(WORD, CANCELLED);
                None
            }
            3 => {
                table.introduce(peer(CHILD), me, &identity);
                next
            }
            4 => {
                write(WORD, GO);
                next
            }
            _ if world::is_dead(CHILD) => {
                clear_up(identity.pid);
                None
            }
            _ => Some([step, 0, 0, 0]),
        }
    })
}

/// Hands the arguments over. Only the parent reads what it writes, until the child is let go.
fn send(given: Given) {
    let downward = downward(PARENT);
    if given.has_object() {
        let name = Name { id: object(), generation: 0, role: 0 };
        let load = Load { file: 0, passengers: vec![Passenger { name }] };
        match result::send_off(&[load], &downward) {
            Ok(words) => write(FLIGHT, words[1] | words[2] << 8),
            Err(_) => world::note("not sent", 0, 0),
        }
    }
    if given.has_box() {
        match boxes::load(1, 1).map(|mut cargo| result::pack(&mut cargo, &downward)) {
            // Behind the segment.
            Some(Ok(words)) => write(BOX, words[1]),
            _ => world::note("not sent", 0, 0),
        }
    }
}

/// Waits until it is let go, attaches, takes what it was given, and exits.
fn child(given: Given, mistake: Mistake, [step, ..]: Local) -> Option<Local> {
    let next = Some([step + 1, 0, 0, 0]);
    match step {
        0 => match read(WORD) {
            GO => next,
            CANCELLED => None,
            _ => (!world::is_dead(PARENT)).then_some([0; 4]),
        },
        1 => {
            let mapping = Mapping::new(0);
            mapping.keep_reserved_peer(peer(CHILD).to_bits(), Identity::of_process(CHILD).pid);
            let arrival = attach::attach(&mapping, |_| world::note("took over", 0, 0));
            if arrival == Ok(Arrival::Adopted(peer(CHILD))) {
                return next;
            }
            world::note("has lost its entry", 0, 0);
            None
        }
        2 => {
            let downward = downward(CHILD);
            let discards = || {
                world::note("done", 0, 0);
                if mistake != Mistake::KeepsFlight {
                    result::discard(&downward);
                }
            };
            if mistake == Mistake::DiscardsFirst {
                discards();
            }
            let opened = !given.has_object() || open(CHILD, read(FLIGHT), &downward);
            let took = opened && (!given.has_box() || take(CHILD, read(BOX), &downward));
            if mistake != Mistake::DiscardsFirst {
                discards();
                world::note("has discarded", 0, 0);
            }
            // It may drop the object, or leave that to its reaper.
            if took && given.has_object() { next } else { None }
        }
        _ => {
            let_go(CHILD);
            None
        }
    }
}

fn object() -> BlockId {
    BlockId::from_bits(OBJECT.block).expect("a block")
}

/// Lets go of the object, as the last handle of a process does.
fn let_go(process: usize) {
    world::note("lets go", process as u64, 0);
    leave(process, OBJECT);
}

/// Clears up and sweeps, as a process does that finds no room.
fn make_room(process: usize, mistake: Mistake) {
    with(process, |mapping, region, me| {
        if mistake != Mistake::IgnoresReserved {
            reap::make_room(mapping, me, &AllocError::OutOfMemory { requested: 1, available: 0 });
            return;
        }
        let pool = Pool::new(mapping, region);
        let (_, table) = attach::view(mapping).expect("a table");
        let is_reserved = |carrier: Carrier| {
            let word = carrier.receiver().and_then(|receiver| table.load(receiver.index()));
            word.is_some_and(|word| matches!(word.state(), State::Reserved(_)))
        };
        let carries = |carrier| !is_reserved(carrier) && block::carries(&pool, carrier);
        pool.sweep(me, Cards::ALL, carries, |_| {});
        flight::settle_all(&pool, me);
    });
}

/// Clears up, and enters another process, that does nothing, in the first entry that is free.
fn let_in(process: usize) {
    with(process, |mapping, _, me| {
        reap::reap_all(mapping, me);
        let (_, table) = attach::view(mapping).expect("a table");
        table.join(&attached(process));
    });
}

// What the monitor remembers.
/// One bit for each process that has come to hold the object, and for each that has begun to let
/// go.
const HELD: usize = 0;
const LET_GO: usize = 1;
/// Whether the child frees what is left of what it was given, or will never be let go.
const DONE: usize = 2;
/// How much the child has taken.
const TAKEN: usize = 3;
/// Whether somebody was killed.
const KILLED: usize = 4;

struct Watch {
    given: Given,
    refused: bool,
    /// Who holds the object from the beginning.
    first: u64,
}

impl Watch {
    /// Whether the child can still take what it was given, or may come to that.
    fn is_awaited(view: &View<'_>, ghost: &Ghost) -> bool {
        let comes = view.read(WORD) == GO || !view.is_dead(PARENT);
        comes && !view.is_dead(CHILD) && ghost[DONE] == 0
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        carried::changed_by_a_holder(touch, view)?;
        if touch.before == touch.after {
            return Ok(());
        }
        let ((_, from, before), (_, to, after)) = (decode(touch.before), decode(touch.after));
        let mut carried = self.given.first()..self.given.blocks();
        if let Some(block) = carried.find(|&block| touch.offset == header(block)) {
            let is_of = |owner| index_of(owner) as usize == touch.process;
            let is_dead = |owner| view.is_dead(index_of(owner) as usize);
            let is_right = match (from, to) {
                (FREE, OWNED) => is_of(after),
                (OWNED, CARRIED) => touch.process == PARENT && is_of(before),
                (CARRIED, OWNED) => touch.process == CHILD || !Self::is_awaited(view, ghost),
                (OWNED, OWNED) => is_dead(before),
                (OWNED, FREE) => is_of(before) || is_dead(before),
                _ => false,
            };
            if !is_right {
                return Err(format!("block {block} went from {from} to {to} by {}", touch.process));
            }
        } else if self.given.has_object()
            && touch.offset == header(OBJECT.block)
            && (from, to) == (SHARED, OWNED)
        {
            let held = (self.first | ghost[HELD]) & !ghost[LET_GO];
            if let Some(holder) = carried::living(held, view) {
                return Err(format!("the object is taken from {holder}"));
            }
            if Self::is_awaited(view, ghost) {
                return Err("the object is taken from what the child was given".into());
            }
        }
        Ok(())
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "has discarded" => {
                let mut blocks = self.given.first()..self.given.blocks();
                if let Some(block) =
                    blocks.find(|&block| decode(view.read(header(block))).1 == CARRIED)
                {
                    return Err(format!("block {block} is still carried to a child that is done"));
                }
            }
            "holds" => {
                ghost[HELD] |= 1 << process;
                ghost[TAKEN] += 1;
            }
            "done" => ghost[DONE] = 1,
            "lets go" => ghost[LET_GO] |= 1 << process,
            what => return Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
        Ok(())
    }

    fn killed(&self, _process: usize, _view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        ghost[KILLED] = 1;
        Ok(())
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        let all = u64::from(self.given.has_object()) + u64::from(self.given.has_box());
        let expected = if self.refused { 0 } else { all };
        if ghost[KILLED] == 0 && ghost[TAKEN] != expected {
            return Err(format!("nobody was killed, and the child took {}", ghost[TAKEN]));
        }
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        match left(self.given.blocks()) {
            Some(block) => Err(format!("in the end, {block}")),
            None => Ok(()),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            FLIGHT => format!("named flight: {value:#x}"),
            BOX => format!("named box: {value:#x}"),
            WORD => format!("said to the child: {value}"),
            _ => carried::tell(self.given.blocks(), 0, offset, value),
        }
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    let of = |given, mistake| Setting {
        mistake,
        crowded: mistake == Mistake::IgnoresReserved,
        refused: mistake == Mistake::KeepsEntry,
        deaths: 1,
        preemptions: Some(3),
        ..Setting::of(given)
    };
    vec![
        (
            of(Given::Box, Mistake::IgnoresReserved).model(),
            "arguments, a box taken for stranded while the child's entry is reserved",
            Some("went from 3 to 1 by 2"),
        ),
        (
            of(Given::Object, Mistake::IgnoresReserved).model(),
            "arguments, a flight taken for stranded while the child's entry is reserved",
            Some("went from 3 to 1 by 2"),
        ),
        (
            of(Given::Object, Mistake::DiscardsFirst).model(),
            "arguments, freed before the object is opened",
            Some("is gone"),
        ),
        (
            of(Given::Both, Mistake::DiscardsFirst).model(),
            "arguments, freed before object and box are taken",
            Some("is gone"),
        ),
        (
            of(Given::Object, Mistake::KeepsFlight).model(),
            "arguments, a flight not freed once the object is open",
            Some("is still carried"),
        ),
        (
            of(Given::Object, Mistake::ForgetsArguments).model(),
            "arguments, not freed with the entry of a dead child",
            Some("is left"),
        ),
        (
            of(Given::Box, Mistake::KeepsEntry).model(),
            "arguments, kept for a child that never comes",
            Some("is left"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let mut settings = Vec::new();
    for given in [Given::Box, Given::Object, Given::Both] {
        let of = || Setting::of(given);
        settings.push(of());
        settings.push(Setting { refused: true, ..of() });
        settings.push(Setting { refused: true, reapers: 1, ..of() });
        if all || given == Given::Box {
            settings.push(Setting { reapers: 1, ..of() });
            settings.push(Setting { reapers: 1, newcomer: true, ..of() });
            settings.push(Setting { refused: true, crowded: true, ..of() });
            let preemptions = (given == Given::Both).then_some(2);
            settings.push(Setting { crowded: true, preemptions, ..of() });
        }
        if all && given.has_object() {
            let preemptions = Some(if given == Given::Both { 2 } else { 3 });
            settings.push(Setting { holder: true, preemptions, ..of() });
        }
    }
    if all {
        let of = || Setting { preemptions: Some(2), ..Setting::of(Given::Box) };
        settings.push(Setting { reapers: 2, ..of() });
        settings.push(Setting { crowded: true, reapers: 1, deaths: 1, ..of() });
    }
    settings.into_iter().map(Setting::model).collect()
}
