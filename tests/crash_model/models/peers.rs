//! The peer table and the reaper: joining, reserving, adopting, leaving, reaping, taking over.
//!
//! Each process that has an entry puts its mark on a word that belongs to the entry's index, and
//! takes it off before it leaves; this stands for all that it owns in the segment. The reaper takes
//! the mark of the dead off, step by step.

use super::heap::attached;
use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::peer::attach::{self, Arrival};
use crate::peer::id::index_of;
use crate::peer::table::Table;
use crate::peer::{PeerId, reaper};
use crate::segment::layout::{BLOCK_HEADER_SIZE, FREE_WORDS, HEADERS, Layout, PEER_SIZE};
use crate::segment::region::{self, Mapping};
use crate::sys::pidfd::{FIRST, Identity};
use crate::world::{self, Access, Fate, Local, Note, at, read, write};

/// What the child finds in its memory when it is forked.
const PROMISE: usize = FREE_WORDS as usize;
/// Instead of a promise: there will be no child.
const NONE: u64 = 1;
/// The mark on an index: the process, plus one.
fn mark(index: u32) -> usize {
    FREE_WORDS as usize + 8 + 8 * index as usize
}

/// Takes the mark of the dead off, as clearing takes its claims: each by a swap from what was seen.
fn clear(dead: PeerId) {
    let index = dead.index();
    world::note("clears", index.into(), dead.generation().into());
    let seen = read(mark(index));
    if seen != 0 {
        world::access(at(mark(index)), Access::CompareExchange(seen, 0));
    }
    world::note("has cleared", index.into(), dead.generation().into());
}

fn table(mapping: &Mapping) -> Table<'_> {
    attach::view(mapping).expect("a table").1
}

fn reap_all(me: PeerId) {
    let mapping = Mapping::new(me.to_bits());
    let table = table(&mapping);
    for index in table.indices().take(mapping.layout().entries) {
        reaper::reap(&mapping, table, me, index, clear);
    }
}

/// Attaches, works and leaves, so often. `local` is how often it has, and its identity. In its
/// memory stands a promise, and the process that it is for.
fn live(times: u64, (promised, heir): (u64, usize), [done, bits, ..]: Local) -> Option<Local> {
    let mapping = Mapping::new(bits);
    let Some(me) = PeerId::from_bits(bits) else {
        if done == times {
            return None;
        }
        mapping.keep_reserved_peer(promised, Identity::of_process(heir).pid);
        return match attach::attach(&mapping, clear) {
            Ok(Arrival::Present(me) | Arrival::Adopted(me) | Arrival::New(me)) => {
                world::note("is", me.index().into(), me.generation().into());
                write(mark(me.index()), world::me() as u64 + 1);
                Some([done, me.to_bits(), 0, 0])
            }
            // Full of the living.
            Err(_) => Some([done + 1, 0, 0, 0]),
        };
    };
    if read(mark(me.index())) != world::me() as u64 + 1 {
        world::note("has lost its mark", me.index().into(), 0);
    }
    write(mark(me.index()), 0);
    world::note("leaves", me.index().into(), 0);
    attach::detach(&mapping);
    Some([done + 1, 0, 0, 0])
}

/// Reserves an entry for its child, forks it, and clears up after it once it is dead, if the entry
/// is that of `heir`. Attached from the beginning.
fn parent(me: usize, child: usize, heir: usize, [step, promised, ..]: Local) -> Option<Local> {
    let me = PeerId::new(me as u32, 0);
    let mapping = Mapping::new(me.to_bits());
    match step {
        0 => {
            let promised = table(&mapping).reserve(me, 1).or_else(|| {
                reap_all(me);
                table(&mapping).reserve(me, 1)
            });
            let Some(promised) = promised else {
                // No child then.
                write(PROMISE, NONE);
                return Some([3, 0, 0, 0]);
            };
            write(PROMISE, promised.to_bits());
            Some([1, promised.to_bits(), 0, 0])
        }
        1 => {
            // The child may have been here before, or be dead, or both.
            let promise = PeerId::from_bits(promised).expect("a peer");
            table(&mapping).introduce(promise, me, &Identity::of_process(child));
            Some([2, promised, 0, 0])
        }
        2 if world::is_dead(child) => {
            let promise = PeerId::from_bits(promised).expect("a peer");
            reaper::reap_child(
                &mapping,
                table(&mapping),
                me,
                promise,
                Identity::of_process(heir).pid,
                clear,
            );
            Some([3, 0, 0, 0])
        }
        2 => Some([2, promised, 0, 0]),
        _ => {
            world::note("leaves", me.index().into(), 0);
            attach::detach(&mapping);
            None
        }
    }
}

/// Waits until it is forked; then lives, and exits.
fn child(parent: usize, [state, bits, ..]: Local) -> Option<Local> {
    if state == 0 {
        let promised = read(PROMISE);
        if promised == NONE {
            return None;
        }
        return if promised != 0 {
            Some([1, promised, 0, 0])
        } else {
            (!world::is_dead(parent)).then_some([0; 4])
        };
    }
    if state == 1 {
        let next = live(1, (bits, world::me()), [0; 4])?;
        return Some([2, next[1], 0, 0]);
    }
    // Some exit in good order, and others leave it to their parent.
    None
}

/// A copy of the child, made by other means than ours: it has the child's promise in its memory.
/// With a `mistake` it takes that for its own.
fn grandchild(child: usize, mistake: bool, [state, bits, ..]: Local) -> Option<Local> {
    if state == 0 {
        // Forked by the child at any time after it was forked itself.
        return match read(PROMISE) {
            NONE => None,
            0 => (!world::is_dead(0)).then_some([0; 4]),
            promised => Some([1, promised, 0, 0]),
        };
    }
    if state == 1 {
        let heir = if mistake { world::me() } else { child };
        let [_, me, ..] = live(1, (bits, heir), [0; 4])?;
        return Some([2, me, 0, 0]);
    }
    live(1, (0, 0), [0, bits, 0, 0]).filter(|&[done, ..]| done == 0)
}

// What the monitor remembers.
/// Process with each index: 8 bits for each, plus one.
const INDICES: usize = 0;
/// Who is clearing each index: 8 bits for each, one for each process.
const CLEARING: usize = 1;

struct Watch {
    /// Processes that are attached from the beginning, each at the index of its number.
    first: usize,
}

const NAMES: [&str; 7] = ["free", "joining", "reserved", "live", "reaping", "dead", "taken"];
const JOINING: u64 = 1;
const RESERVED: u64 = 2;
const LIVE: u64 = 3;
const REAPING: u64 = 4;
const TAKEN: u64 = 6;

/// Generation, phase and payload of an entry's word.
fn decode(word: u64) -> (u64, u64, u64) {
    (word >> 36, word >> 32 & 0xf, word & 0xffff_ffff)
}

fn entry(offset: usize) -> Option<(usize, usize)> {
    let within = offset.checked_sub(Layout::new(0, 0).peers() as usize)?;
    let (index, field) = (within / PEER_SIZE as usize, within % PEER_SIZE as usize);
    (index < 8).then_some((index, field))
}

/// Whether a process clears up in the name of this entry.
pub fn clears_up(read: &dyn Fn(usize) -> u64, process: usize, index: usize) -> bool {
    let word = Layout::new(0, 0).peers() as usize + index * PEER_SIZE as usize;
    let (_, phase, payload) = decode(read(word));
    phase == REAPING && index_of(payload as u32) as usize == process
}

/// Makes the entry at this index as if nobody had ever had it.
pub fn vacate(index: usize) {
    let entry = Layout::new(0, 0).peers() as usize + index * PEER_SIZE as usize;
    (entry..entry + PEER_SIZE as usize).step_by(8).for_each(|word| write(word, 0));
}

/// Where the words of a footprint lie.
pub fn footprint(index: usize) -> [usize; 3] {
    let entry = Layout::new(0, 0).peers() as usize + index * PEER_SIZE as usize;
    [40, 48, 56].map(|field| entry + field)
}

/// Takes all cards away that no process needs for what it owns or holds now, of so many blocks. For
/// the beginning of a model, which is made in the name of a few processes, and which messages may
/// be part of whose sender is long gone.
pub fn forget_cards(processes: usize, blocks: u64) {
    for process in 0..processes {
        let needs = |block: &u64| {
            let header = (HEADERS + block * BLOCK_HEADER_SIZE) as usize;
            let (_, state, owner) = super::heap::decode(read(header));
            let owns = state == super::heap::OWNED && index_of(owner) as usize == process;
            owns || read(header + 64) >> process & 1 != 0
        };
        let cards: u64 = (0..blocks).filter(needs).map(|block| 1 << block).sum();
        let [first, second, last] = footprint(process);
        write(first, cards);
        write(second, 0);
        write(last, 0);
    }
}

/// The process that an entry's word names by its pid.
fn who(payload: u64) -> usize {
    (payload >> 10) as usize - FIRST as usize
}

pub fn tell(offset: usize, value: u64) -> String {
    match entry(offset) {
        Some((index, 0)) => {
            let (generation, phase, payload) = decode(value);
            let whom = match phase {
                JOINING | LIVE | TAKEN => format!(" process {}", who(payload)),
                RESERVED | REAPING => format!(" by {}", index_of(payload as u32)),
                _ => String::new(),
            };
            format!(
                "entry {index}: {}{whom} ({generation})",
                NAMES.get(phase as usize).unwrap_or(&"?")
            )
        }
        Some((index, field)) => format!("entry {index}+{field}: {value}"),
        None => format!("[{offset}]: {value}"),
    }
}

impl Watch {
    fn process(&self, index: u64, ghost: &Ghost) -> Option<usize> {
        match (ghost[INDICES] >> (8 * index) & 0xff) as usize {
            0 => (index < self.first as u64).then_some(index as usize),
            0xff => None,
            process => Some(process - 1),
        }
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        let Some((index, 0)) = entry(touch.offset) else {
            return Ok(());
        };
        if touch.before == touch.after {
            return Ok(());
        }
        let ((was, from, before), (is, to, _)) = (decode(touch.before), decode(touch.after));
        let lives = |owner: u64| {
            let process = self.process(index_of(owner as u32).into(), ghost);
            process.is_some_and(|process| !view.is_dead(process))
        };
        // Whoever the entry belongs to, and everybody else only once that is dead.
        let wrong = match from {
            JOINING | LIVE | TAKEN => who(before) != touch.process && !view.is_dead(who(before)),
            RESERVED => {
                to != JOINING
                    && self.process(index_of(before as u32).into(), ghost) != Some(touch.process)
                    && lives(before)
            }
            REAPING => {
                self.process(index_of(before as u32).into(), ghost) != Some(touch.process)
                    && lives(before)
            }
            _ => false,
        };
        if wrong {
            return Err(format!(
                "{} -> {}: the living lost it",
                tell(touch.offset, touch.before),
                tell(touch.offset, touch.after)
            ));
        }
        if is != was {
            if is != was + 1 {
                return Err("a generation was left out".into());
            }
            if view.read(mark(index as u32)) != 0 {
                return Err(format!("index {index} is given away while something is left of it"));
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
        let shift = 8 * note.a;
        match note.what {
            "is" => {
                if let Some(other) = self.process(note.a, ghost)
                    && other != process
                    && !view.is_dead(other)
                {
                    return Err(format!(
                        "{process} has index {} and so has {other}, which lives",
                        note.a
                    ));
                }
                if view.read(mark(note.a as u32)) != 0 {
                    return Err(format!(
                        "{process} has index {}, and something of another is left",
                        note.a
                    ));
                }
                ghost[INDICES] &= !(0xff << shift);
                ghost[INDICES] |= (process as u64 + 1) << shift;
            }
            "leaves" => ghost[INDICES] |= 0xff << shift,
            "clears" => {
                let holder = self.process(note.a, ghost);
                if let Some(holder) = holder
                    && !view.is_dead(holder)
                {
                    return Err(format!("{process} clears up after {holder}, which lives"));
                }
                let clearing = ghost[CLEARING] >> shift & 0xff;
                if let Some(other) = (0..view.fates.len())
                    .find(|&other| clearing >> other & 1 != 0 && !view.is_dead(other))
                {
                    return Err(format!(
                        "{process} and {other} clear index {} at the same time",
                        note.a
                    ));
                }
                ghost[CLEARING] |= 1 << shift << process;
            }
            "has cleared" => ghost[CLEARING] &= !(1 << shift << process),
            what => return Err(format!("{process} {what} {} {}", note.a, note.b)),
        }
        Ok(())
    }

    fn killed(&self, process: usize, _view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        for index in 0..8 {
            ghost[CLEARING] &= !(1 << (8 * index) << process);
        }
        Ok(())
    }

    fn at_the_end(&self, _fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        let mapping = Mapping::new(0);
        // It may have to take a dead one's place.
        let me = match attach::attach(&mapping, clear) {
            Ok(Arrival::New(me)) => me,
            other => return Err(format!("nobody can join: {other:?}")),
        };
        reap_all(me);
        attach::detach(&mapping);
        let table = table(&mapping);
        for index in table.indices().take(mapping.layout().entries) {
            let word =
                read(mapping.layout().peers() as usize + index as usize * PEER_SIZE as usize);
            if decode(word).1 != 0 || read(mark(index)) != 0 {
                return Err(format!(
                    "{} is left, with mark {}",
                    tell(mapping.layout().peers() as usize + 64 * index as usize, word),
                    read(mark(index))
                ));
            }
        }
        Ok(())
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        if offset == PROMISE {
            format!("promise {value:#x}")
        } else if offset < 128 {
            format!("mark {}: {value}", offset / 8 - 1)
        } else {
            tell(offset, value)
        }
    }
}

fn model(
    text: &str,
    entries: usize,
    first: usize,
    deaths: usize,
    processes: Vec<Process>,
) -> Model {
    let set_up = move || {
        region::lay_out(0, entries);
        let mapping = Mapping::new(0);
        let table = table(&mapping);
        for process in 0..first {
            table.join(&attached(process)).expect("room");
            write(mark(process as u32), 0);
        }
    };
    let configuration = format!("{text}, {entries} entries, {deaths} die");
    Model {
        set_up: Box::new(set_up),
        processes,
        deaths,
        ..Model::new("peers", configuration, Watch { first })
    }
}

fn lives(times: u64) -> Process {
    Process::new("lives", move |local| live(times, (0, 0), local))
}

/// Attached from the beginning; reaps once, when there is something to reap, and leaves.
fn reaps(process: usize) -> Process {
    Process {
        may_run: Box::new(|fates| {
            fates.contains(&Fate::Dead)
                || fates.iter().filter(|&&fate| fate == Fate::Running).count() <= 2
        }),
        ..Process::new("reaps", move |[step, ..]| {
            let me = PeerId::new(process as u32, 0);
            if step == 0 {
                reap_all(me);
                return Some([1, 0, 0, 0]);
            }
            world::note("leaves", me.index().into(), 0);
            attach::detach(&Mapping::new(me.to_bits()));
            None
        })
    }
}

/// A child that forks by other means before it has used its place, as a daemon does, and ends; the
/// parent clears up after it.
pub fn double_fork(mistake: bool) -> Model {
    let processes = vec![
        Process::new("parent", move |local| parent(0, 1, if mistake { 2 } else { 1 }, local)),
        Process { exits: true, ..Process::new("child", |local| child(0, local)) },
        Process::new("grandchild", move |local| grandchild(1, mistake, local)),
    ];
    let text =
        if mistake { "fork, a grandchild taken for the child" } else { "fork, a grandchild" };
    model(text, 3, 1, 2, processes)
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let mut models = vec![
        model("join and leave", 2, 0, 2, vec![lives(2), lives(2)]),
        model("take over", 1, 0, 3, vec![lives(1), lives(1), lives(1)]),
        model("one reaper", 2, 1, 2, vec![reaps(0), lives(2)]),
        model("two reapers", 3, 2, 2, vec![reaps(0), reaps(1), lives(1)]),
    ];
    let family = |others: Vec<Process>| {
        let number = 1 + others.len();
        let mut processes =
            vec![Process::new("parent", move |local| parent(0, number, number, local))];
        processes.extend(others);
        processes.push(Process { exits: true, ..Process::new("child", |local| child(0, local)) });
        processes
    };
    models.push(model("fork", 2, 1, 3, family(Vec::new())));
    models.push(model("fork, one more", 2, 1, 3, family(vec![lives(1)])));
    models.push(double_fork(false));
    if all {
        models.push(model("take over", 2, 0, 3, vec![lives(1), lives(1), lives(1)]));
        models.push(model("take over again", 1, 0, 1, vec![lives(2), lives(2), lives(1)]));
        models.push(model("two reapers", 3, 2, 2, vec![reaps(0), reaps(1), lives(1), lives(1)]));
        models.push(model("fork, reaper", 3, 2, 3, family(vec![reaps(1)])));
        models.push(super::heap::bounded(model(
            "fork, reaper, one more",
            3,
            2,
            1,
            family(vec![reaps(1), lives(1)]),
        )));
    }
    models
}
