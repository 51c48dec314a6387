//! Blocks of the heap: allocated, shared, attached to, released, inherited, and cleared up after
//! the dead; with the crate's pool, peer table and reaper.
//!
//! A process writes into a block only while it owns it, and reads only while it holds it, which it
//! makes known to the monitor.

use std::sync::Arc;

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::owned::Owned;
use crate::heap::{BlockId, Pool};
use crate::models::carried::MARKS;
use crate::models::peers::{footprint, forget_cards};
use crate::object::reap;
use crate::peer::attach::{self, Arrival};
use crate::peer::id::index_of;
use crate::peer::table::{Attached, Table};
use crate::peer::{PeerId, reaper};
use crate::segment::layout::{BLOCK, BLOCK_HEADER_SIZE, BLOCKS, FREE_WORDS, HEADERS, Layout};
use crate::segment::region::{self, Mapping, Region};
use crate::sys::pidfd::Identity;
use crate::sys::seat;
use crate::world::{self, Access, Fate, Local, Note, read, write};

/// Where the creator puts the name of the block: its bits and its generation, plus one. Stands for
/// a message.
const MAIL: usize = FREE_WORDS as usize;
/// What the child finds in its memory when it is forked: the `PeerId` that was promised to it.
const PROMISE: usize = FREE_WORDS as usize + 8;

/// What a living holder reads from the block.
const VALUE: u64 = 42;
const KIND: u64 = 7;

/// The peer that a process is from the beginning.
pub fn peer(process: usize) -> PeerId {
    PeerId::new(process as u32, 0)
}

/// A process of a model, as its entry has it.
pub fn attached(process: usize) -> Attached {
    Attached {
        identity: Identity::of_process(process),
        home: 1,
        liveness_byte: region::life_of(process),
    }
}

/// Runs `act` with the segment of a process that is attached from the beginning.
pub fn with<R>(process: usize, act: impl FnOnce(&Arc<Mapping>, Region<'_>, PeerId) -> R) -> R {
    let me = peer(process);
    let mapping = Arc::new(Mapping::new(me.to_bits()));
    let region = mapping.region().expect("a region");
    act(&mapping, region, me)
}

/// Allocates a block as `Holding::create` does, and writes it.
fn build<'a>(mapping: &'a Mapping, region: Region<'a>, me: PeerId) -> Option<Owned<'a>> {
    let pool = Pool::new(mapping, region);
    let owned = match pool.allocate(me, KIND, BLOCK) {
        Err(_) if reap::reap_all(mapping, me) > 0 => pool.allocate(me, KIND, BLOCK).ok()?,
        other => other.ok()?,
    };
    let offset = owned.offset() as usize;
    write(offset, u64::MAX);
    write(offset, VALUE);
    Some(owned)
}

/// Makes two objects, one after the other and the second one longer, and keeps the block at hand in
/// between. Then leaves, or forgets what it has kept.
fn keep(process: usize, leaves: bool) -> Option<Local> {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        for len in [8, 16] {
            // If the other one has it, that was all: each try makes new states.
            let Ok(owned) = pool.allocate(me, KIND, len) else { break };
            write(owned.offset() as usize, VALUE);
            pool.give_back(&owned);
        }
        if leaves {
            pool.empty_magazines(me);
        }
        None
    })
}

/// As the second half of [`keep`], but it takes the block by a store.
fn keep_carelessly(process: usize) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let Ok(owned) = pool.allocate(me, KIND, 8) else { return };
        pool.give_back(&owned);
        let cached = read(HEADERS as usize);
        if decode(cached).1 != CACHED {
            return;
        }
        let owned = cached & !(7 << 31) | OWNED << 31;
        world::access(world::at(HEADERS as usize), Access::Store(owned));
        write(BLOCKS as usize, VALUE);
        let first = BlockId::from_bits(0).expect("a block");
        if let Some(owned) = pool.owned(first, decode(cached).0 as u32, me.owner()) {
            pool.give_back(&owned);
            pool.empty_magazines(me);
        }
    });
}

/// Makes an object, sends its name and lets go of it.
fn create(process: usize, [step, bits, ..]: Local) -> Option<Local> {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        if step == 0 {
            let Some(owned) = build(mapping, region, me) else {
                return Some([0; 4]);
            };
            if !pool.share(&owned, me) {
                world::note("not shared", 0, 0);
                return None;
            }
            world::note("holds", owned.id.to_bits(), 0);
            write(MAIL, u64::from(owned.generation()) << 8 | (owned.id.to_bits() + 1));
            return Some([1, owned.id.to_bits(), 0, 0]);
        }
        let_go(&pool, bits, me);
        None
    })
}

fn let_go(pool: &Pool<'_>, bits: u64, me: PeerId) {
    world::note("lets go", bits, 0);
    pool.leave(BlockId::from_bits(bits).expect("a block"), me, |_| {}, |_| {});
}

fn look_into(bits: u64) {
    for _ in 0..2 {
        let value = read((BLOCKS + bits * BLOCK) as usize);
        if value != VALUE {
            world::note("reads", value, 0);
        }
    }
}

/// Opens the object whose name it was sent, as `Holding::open` does; waits for the name unless the
/// sender is dead.
fn open(process: usize, sender: usize, _: Local) -> Option<Local> {
    let name = read(MAIL);
    if name == 0 {
        return (!world::is_dead(sender)).then_some([0; 4]);
    }
    let (bits, generation) = ((name & 0xff) - 1, (name >> 8) as u32);
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let block = BlockId::from_bits(bits).expect("a block");
        if pool.generation(block) != Some(generation) {
            return;
        }
        let Some(attached) = pool.attach(block, generation, me, |_| {}) else {
            return;
        };
        world::note("holds", bits, 0);
        if attached.kind != KIND || attached.len != BLOCK {
            world::note("opens something else", attached.kind, attached.len);
        }
        look_into(bits);
        let_go(&pool, bits, me);
    });
    None
}

/// Makes an object for itself and gives it back.
fn compete(process: usize, _: Local) -> Option<Local> {
    with(process, |mapping, region, me| {
        let Some(owned) = build(mapping, region, me) else {
            return Some([0; 4]);
        };
        Pool::new(mapping, region).give_back(&owned);
        None
    })
}

/// As [`compete`], but it says where it may leave something after it has claimed the block.
fn compete_unmarked(process: usize) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let free = read(HEADERS as usize);
        if decode(free).1 != FREE {
            return;
        }
        let owned = free | OWNED << 31 | u64::from(me.owner());
        let claim = Access::CompareExchange(free, owned);
        if world::access(world::at(HEADERS as usize), claim) != Some(free) {
            return;
        }
        let [cards, ..] = footprint(process);
        world::access(world::at(cards), Access::Or(1));
        let id = BlockId::from_bits(0).expect("a block");
        let owned = pool.owned(id, decode(owned).0 as u32, me.owner()).expect("just claimed");
        pool.give_back(&owned);
    });
}

/// Asks for more than there is, so that what is charged is counted anew.
fn ask_for_too_much(process: usize) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        if pool.allocate(me, KIND, mapping.layout().budget() + 1).is_ok() {
            world::note("has more than there is", 0, 0);
        }
    });
}

/// Charges what a block takes and then writes its length.
fn charge_first(process: usize) {
    with(process, |mapping, region, me| {
        let word = read(charge());
        let charged = word + CHARGE_TURN + BLOCK;
        let charges = Access::CompareExchange(word, charged);
        if world::access(world::at(charge()), charges) != Some(word) {
            return;
        }
        let Ok(owned) = Pool::new(mapping, region).allocate(me, KIND, 0) else { return };
        let header = (HEADERS + owned.id.to_bits() * BLOCK_HEADER_SIZE) as usize;
        world::access(world::at(header + LEN), Access::Store(BLOCK));
        world::access(world::at(header + MARKS), Access::Or(IS_CHARGED));
        Pool::new(mapping, region).give_back(&owned);
    });
}

/// Clears up after everybody who is dead.
fn reap(process: usize, _: Local) -> Option<Local> {
    with(process, |mapping, _, me| reap::reap_all(mapping, me));
    None
}

/// Holds an object from the beginning, forks a child and lets go; clears up after the child.
fn parent(process: usize, child: usize, [step, promised, ..]: Local) -> Option<Local> {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let (_, table) = attach::view(mapping).expect("a table");
        match step {
            0 => {
                let Some(child) = table.reserve(me, 1) else {
                    world::note("no room", 0, 0);
                    return None;
                };
                let held = BlockId::from_bits(0).expect("a block");
                let generation = pool.generation(held).expect("shared");
                pool.bequeath(held, generation, child);
                write(PROMISE, child.to_bits());
                Some([1, child.to_bits(), 0, 0])
            }
            1 => {
                let promise = PeerId::from_bits(promised).expect("a peer");
                table.introduce(promise, me, &Identity::of_process(child));
                Some([2, promised, 0, 0])
            }
            2 => {
                let_go(&pool, 0, me);
                Some([3, promised, 0, 0])
            }
            _ if world::is_dead(child) => {
                let pid_of_child = Identity::of_process(child).pid;
                let child = PeerId::from_bits(promised).expect("a peer");
                reaper::reap_child(mapping, table, me, child, pid_of_child, |dead| {
                    reap::clear(mapping, region, dead, me)
                });
                None
            }
            _ => Some([3, promised, 0, 0]),
        }
    })
}

/// Uses the object that its parent held, as `Holding::enter_after_fork` does, and exits.
fn child(parent: usize, _: Local) -> Option<Local> {
    let promised = read(PROMISE);
    if promised == 0 {
        return (!world::is_dead(parent)).then_some([0; 4]);
    }
    let mapping = Mapping::new(0);
    mapping.keep_reserved_peer(promised, Identity::own().expect("getpid").pid);
    let region = mapping.region()?;
    let arrival = attach::attach(&mapping, |dead| reap::clear(&mapping, region, dead, dead));
    let Ok(Arrival::Adopted(me) | Arrival::New(me)) = arrival else {
        world::note("no room", 0, 0);
        return None;
    };
    world::note("is", me.index().into(), 0);
    let pool = Pool::new(&mapping, region);
    let block = BlockId::from_bits(0)?;
    // Its generation, which is part of the handle, is 0.
    if pool.generation(block) == Some(0)
        && (pool.is_holder(block, me) || pool.attach(block, 0, me, |_| {}).is_some())
    {
        world::note("holds", 0, 0);
        look_into(0);
    }
    None
}

// What the monitor remembers.
/// Holders of each block: 8 bits for each, one for each process.
const HELD: usize = 0;
/// Process with each index beyond the first ones: 8 bits for each index, 0 for nobody yet.
const INDICES: usize = 1;

struct Watch {
    blocks: u64,
    /// Whether blocks may be kept in the end.
    forgets: bool,
}

/// Generation, state and owner of a block's word.
pub fn decode(word: u64) -> (u64, u64, u32) {
    (word >> 34, word >> 31 & 7, (word & 0x7fff_ffff) as u32)
}

pub const FREE: u64 = 0;
pub const OWNED: u64 = 1;
pub const SHARED: u64 = 2;
pub const CACHED: u64 = 4;

/// Where the word is that says what is charged.
fn charge() -> usize {
    Layout::new(0, 0).heap_words() as usize
}

const CHARGE_TURN: u64 = 1 << 44;
// Fields of a header, and a mark.
const LEN: usize = 16;
const IS_CHARGED: u64 = 4;

impl Watch {
    /// No less is charged than the blocks say that are marked as charged.
    fn all_is_charged(&self, view: &View<'_>) -> Result<(), String> {
        let len = |block: u64| {
            let header = (HEADERS + block * BLOCK_HEADER_SIZE) as usize;
            let is_charged = view.read(header + MARKS) & IS_CHARGED != 0;
            if is_charged { view.read(header + LEN) } else { 0 }
        };
        let (blocks, word) = ((0..self.blocks).map(len).sum::<u64>(), view.read(charge()));
        if blocks <= word % CHARGE_TURN {
            Ok(())
        } else {
            Err(format!("{blocks} bytes are in use, and {} charged", word % CHARGE_TURN))
        }
    }

    fn block(&self, offset: usize, base: u64, size: u64) -> Option<(u64, usize)> {
        let within = (offset as u64).checked_sub(base)?;
        let block = within / size;
        (block < self.blocks).then_some((block, (within % size) as usize))
    }

    fn word(&self, view: &View<'_>, block: u64) -> (u64, u64, u32) {
        decode(view.read((HEADERS + block * BLOCK_HEADER_SIZE) as usize))
    }

    fn process(&self, owner: u32, ghost: &Ghost) -> usize {
        let index = index_of(owner);
        match (ghost[INDICES] >> (8 * index) & 0xff) as usize {
            0 => index as usize,
            process => process - 1,
        }
    }

    fn holds(&self, process: usize, block: u64, ghost: &Ghost) -> bool {
        ghost[HELD] >> (8 * block) >> process & 1 != 0
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        self.all_is_charged(view)?;
        if let Some((block, 0)) = self.block(touch.offset, BLOCKS, BLOCK) {
            let (_, state, owner) = self.word(view, block);
            let mine = match touch.access {
                Access::Load => state == SHARED && self.holds(touch.process, block, ghost),
                _ => state == OWNED && self.process(owner, ghost) == touch.process,
            };
            return if mine {
                Ok(())
            } else {
                Err(format!("block {block} was touched by somebody whose it is not"))
            };
        }
        let Some((block, 0)) = self.block(touch.offset, HEADERS, BLOCK_HEADER_SIZE) else {
            return Ok(());
        };
        if touch.before == touch.after {
            return Ok(());
        }
        let ((was, from, before), (is, to, after)) = (decode(touch.before), decode(touch.after));
        let mine = |owner| self.process(owner, ghost) == touch.process;
        let living_holder = (0..view.fates.len())
            .find(|&process| !view.is_dead(process) && self.holds(process, block, ghost));
        match (from, to) {
            (FREE, OWNED) if is == was && mine(after) => Ok(()),
            (OWNED, SHARED) if is == was && mine(before) => Ok(()),
            (OWNED, CACHED) if is == was + 1 && mine(before) && mine(after) => Ok(()),
            // It is anybody's.
            (CACHED, OWNED) if is == was && mine(after) => Ok(()),
            (SHARED, SHARED) if is == was => Ok(()),
            (SHARED, OWNED) if is == was => match living_holder {
                Some(holder) => Err(format!("block {block} is taken from its holder {holder}")),
                None => Ok(()),
            },
            // In whose name a block is torn down does not matter while the one before is dead.
            (OWNED, OWNED) if is == was && view.is_dead(self.process(before, ghost)) => Ok(()),
            (OWNED, FREE)
                if is == was + 1 && (mine(before) || view.is_dead(self.process(before, ghost))) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "block {block} went from {:?} to {:?}",
                decode(touch.before),
                decode(touch.after)
            )),
        }
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let bit = 1 << (8 * note.a) << process;
        match note.what {
            "holds" => ghost[HELD] |= bit,
            "lets go" => ghost[HELD] &= !bit,
            "is" => {
                ghost[INDICES] &= !(0xff << (8 * note.a));
                ghost[INDICES] |= (process as u64 + 1) << (8 * note.a);
            }
            what => return Err(format!("{what} {} {}", note.a, note.b)),
        }
        Ok(())
    }

    fn at_the_end(&self, fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        with(fates.len(), |mapping, region, me| {
            reap::reap_all(mapping, me);
            for block in 0..self.blocks {
                let header = (HEADERS + block * BLOCK_HEADER_SIZE) as usize;
                let (_, state, owner) = decode(read(header));
                let holders = read(header + 64);
                let is_free = state == FREE || self.forgets && state == CACHED;
                if !is_free || holders != 0 {
                    return Err(format!(
                        "block {block} is left in state {state} with {owner}, held by {holders:#b}"
                    ));
                }
            }
            let pool = Pool::new(mapping, region);
            for _ in 0..self.blocks {
                pool.allocate(me, KIND, BLOCK)
                    .map_err(|error| format!("memory is lost: {error}"))?;
            }
            if pool.allocate(me, KIND, BLOCK).is_ok() {
                Err("there is more memory than before".into())
            } else {
                Ok(())
            }
        })
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match (self.block(offset, HEADERS, BLOCK_HEADER_SIZE), self.block(offset, BLOCKS, BLOCK)) {
            (Some((block, 0)), _) => {
                let (generation, state, owner) = decode(value);
                let states = ["free", "owned by", "shared", "carried", "kept by"];
                let state = states.get(state as usize).unwrap_or(&"?");
                format!("block {block}: {state} {owner} ({generation})")
            }
            (Some((block, 64)), _) => format!("holders {block}: {value:#b}"),
            (Some((block, field)), _) => format!("header {block}+{field}: {value}"),
            (_, Some((block, _))) => format!("payload {block}: {value}"),
            _ => super::peers::tell(offset, value),
        }
    }
}

/// A configuration.
fn model(text: &str, blocks: u64, shared: bool, deaths: usize, processes: Vec<Process>) -> Model {
    let peers = processes.iter().take_while(|process| !process.exits).count();
    let last = processes.len();
    let set_up = move || {
        // The processes, whoever makes the last checks, and a child whose place was lost.
        region::lay_out(blocks, last + 2);
        let mapping = Mapping::new(0);
        let table = Table::of(mapping.region().expect("a region"), mapping.layout().peers())
            .expect("a table");
        for process in 0..=last {
            table.join(&attached(process)).expect("room");
        }
        for process in peers..last {
            let word = table.load(process as u32).expect("an entry");
            table.free(process as u32, word);
        }
        with(0, |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            if shared {
                // Both of the first two hold it.
                let owned = build(mapping, region, me).expect("a block");
                pool.share(&owned, me);
                pool.attach(owned.id, owned.generation(), peer(1), |_| {});
            } else {
                // So that the headers have their pages, and nothing else.
                let owned = pool.allocate(me, KIND, 0).expect("a block");
                pool.give_back(&owned);
                let word = (HEADERS + owned.id.to_bits() * BLOCK_HEADER_SIZE) as usize;
                write(word, 0);
            }
        });
        forget_cards(last + 1, blocks);
    };
    let configuration = format!("{text}, {blocks} blocks, {deaths} die");
    Model {
        set_up: Box::new(set_up),
        processes,
        deaths,
        ..Model::new("heap", configuration, Watch { blocks, forgets: false })
    }
}

pub fn bounded(model: Model) -> Model {
    bounded_by(3, model)
}

fn bounded_by(preemptions: u64, model: Model) -> Model {
    let configuration = format!("{}, {preemptions} preemptions", model.configuration);
    Model { configuration, preemptions: Some(preemptions), ..model }
}

pub fn reaper_of(process: usize, others: usize) -> Process {
    Process {
        may_run: Box::new(move |fates| {
            fates[..others].contains(&Fate::Dead)
                || fates[..others].iter().all(|&fate| fate != Fate::Running)
        }),
        ..Process::new("reaper", move |local| reap(process, local))
    }
}

/// Holds block 0 from the beginning and lets go of it.
fn holder(process: usize) -> Process {
    Process::new("holder", move |[step, ..]| {
        if step == 0 {
            world::note("holds", 0, 0);
            return Some([1, 0, 0, 0]);
        }
        with(process, |mapping, region, me| {
            look_into(0);
            let_go(&Pool::new(mapping, region), 0, me);
        });
        None
    })
}

fn creator(process: usize) -> Process {
    Process::new("creator", move |local| create(process, local))
}

fn opener(process: usize) -> Process {
    Process::new("opener", move |local| open(process, 0, local))
}

/// With blocks that are kept at hand.
fn magazines(text: &str, blocks: u64, deaths: usize, processes: Vec<Process>) -> Model {
    let Model { set_up, configuration, processes, .. } =
        model(text, blocks, false, deaths, processes);
    let set_up = move || {
        set_up();
        seat::set(true);
    };
    let forgets = text.contains("forget");
    Model {
        set_up: Box::new(set_up),
        processes,
        deaths,
        ..Model::new("heap", configuration, Watch { blocks, forgets })
    }
}

fn keeper(process: usize) -> Process {
    Process::new("keeper", move |_| keep(process, true))
}

fn forgetful(process: usize) -> Process {
    Process::new("keeper", move |_| keep(process, false))
}

fn greedy(process: usize) -> Process {
    Process::new("greedy", move |_| {
        ask_for_too_much(process);
        None
    })
}

/// One makes an object and sends its name, another opens it.
pub fn create_and_open() -> Model {
    model("create and open", 1, false, 2, vec![creator(0), opener(1)])
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    let unmarked = Process::new("competitor", |_| {
        compete_unmarked(0);
        None
    });
    let careless = Process::new("keeper", |_| {
        keep_carelessly(0);
        None
    });
    let charges_first = Process::new("competitor", |_| {
        charge_first(0);
        None
    });
    vec![
        (
            model("allocate", 1, false, 1, vec![unmarked]),
            "the heap, a block that is claimed before it is said where",
            Some("is left in state 1"),
        ),
        (
            magazines("keep", 1, 0, vec![careless, keeper(1)]),
            "the heap, a block that is kept and taken without a swap",
            Some("block 0 went from"),
        ),
        (
            model("charge", 1, false, 0, vec![charges_first, greedy(1)]),
            "the heap, a block that is charged before its length is written",
            Some("1280 bytes are in use, and 0 charged"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let competitor = |process| Process::new("competitor", move |local| compete(process, local));
    let latecomer = |process| Process::new("opener", move |local| open_first(process, local));
    let family = |reaps: bool| {
        let mut processes = vec![
            Process::new("parent", move |local| {
                if local[3] == 0 {
                    world::note("holds", 0, 0);
                    return Some([0, 0, 0, 1]);
                }
                let next = parent(0, if reaps { 3 } else { 2 }, local)?;
                Some([next[0], next[1], 0, 1])
            }),
            holder(1),
        ];
        if reaps {
            processes.push(reaper_of(2, 2));
        }
        processes.push(Process { exits: true, ..Process::new("child", |local| child(0, local)) });
        processes
    };
    let mut models = vec![
        create_and_open(),
        model("two last holders", 1, true, 2, vec![holder(0), holder(1)]),
        model("last holder and opener", 1, true, 1, vec![holder(0), holder(1), latecomer(2)]),
        model("allocate", 1, false, 2, vec![competitor(0), competitor(1)]),
        model("two holders, reaper", 1, true, 2, vec![holder(0), holder(1), reaper_of(2, 2)]),
        magazines("keep", 1, 1, vec![keeper(0)]),
        magazines("keep and forget", 1, 1, vec![forgetful(0)]),
        model("allocate beside a recount", 1, false, 1, vec![competitor(0), greedy(1)]),
        magazines("keep beside a recount", 1, 1, vec![keeper(0), greedy(1)]),
    ];
    if all {
        models.push(model(
            "create, open, reaper",
            1,
            false,
            2,
            vec![creator(0), opener(1), reaper_of(2, 2)],
        ));
        models.push(bounded(model(
            "create, open, allocate",
            1,
            false,
            1,
            vec![creator(0), opener(1), competitor(2)],
        )));
        let reapers = vec![holder(0), holder(1), reaper_of(2, 2), reaper_of(3, 2)];
        models.push(bounded(model("two holders, two reapers", 1, true, 2, reapers)));
        models.push(bounded(magazines("keep, two", 1, 2, vec![keeper(0), keeper(1)])));
        let forget = vec![forgetful(0), forgetful(1)];
        models.push(bounded(magazines("keep and forget, two", 1, 1, forget)));
        let keep_and_reap = vec![keeper(0), keeper(1), reaper_of(2, 2)];
        models.push(bounded_by(2, magazines("keep, reaper", 1, 2, keep_and_reap)));
        models.push(model("fork", 1, true, 3, family(false)));
        models.push(bounded_by(2, model("fork, reaper", 1, true, 2, family(true))));
    }
    models
}

/// Opens block 0, which others hold from the beginning.
fn open_first(process: usize, _: Local) -> Option<Local> {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let block = BlockId::from_bits(0)?;
        if pool.generation(block) == Some(0) && pool.attach(block, 0, me, |_| {}).is_some() {
            world::note("holds", 0, 0);
            look_into(0);
            let_go(&pool, 0, me);
        }
        None
    })
}
