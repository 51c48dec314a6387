//! The world that the code under test runs in: a memory in which every access is a step, and an
//! exact oracle.
//!
//! The model's atomics live at real addresses of an arena, so that the crate's own layouts and
//! casts work, but hold nothing there: what a word contains is known to the explorer. A process is
//! a plain function. It is run from the start of an operation with the results that its steps have
//! had so far, and is unwound at the first step whose result is not known yet; so a process is the
//! same thing as the list of its results, and can be put aside, resumed or killed at any step
//! without a thread or a stack of its own.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;

/// What a process remembers between two operations.
pub type Local = [u64; 4];

/// One operation of a process: from what it remembers to what it remembers then, or `None` at its
/// end.
pub type Script = Box<dyn Fn(Local) -> Option<Local>>;

/// Bytes of the arena.
pub const ARENA: usize = 16 << 10;
/// The smallest word that has an address of its own.
const GRAIN: usize = 4;

/// An access to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Load,
    Store(u64),
    Swap(u64),
    /// From, to.
    CompareExchange(u64, u64),
    /// By how much, and the bits that the word has.
    Add(u64, u64),
    Or(u64),
    And(u64),
}

impl Access {
    /// What the word holds afterwards, if it is `old` now.
    pub fn apply(self, old: u64) -> u64 {
        match self {
            Access::Load => old,
            Access::Store(value) | Access::Swap(value) => value,
            Access::CompareExchange(from, to) => {
                if old == from {
                    to
                } else {
                    old
                }
            }
            Access::Add(value, bits) => old.wrapping_add(value) & bits,
            Access::Or(value) => old | value,
            Access::And(value) => old & value,
        }
    }
}

/// Index of a word among those that some process writes.
pub type Word = usize;

/// What a process does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Gives the word's value before.
    Access(Word, Access),
    /// Sleeps while the low half of the word is as expected. The last field stands for all that the
    /// process knows when it goes on: what it has said by [`phase`], and how many other words it
    /// has changed since it began again.
    Sleep(Word, u32, u64),
    /// The same on two words at once.
    SleepOnTwo([Word; 2], [u32; 2], u64),
    /// Wakes so many; gives how many were there.
    Wake(Word, u32),
    /// Asks the kernel whether this process is dead; gives 1 or 0.
    IsDead(usize),
    /// No step: an operation that has changed nothing begins anew, for the so many-th time, and
    /// nothing that it saw matters any more.
    Again(u64),
    /// Asks whether all of these processes have ended, one bit for each; gives 1 or 0. No part of
    /// the code under test.
    HaveEnded(u64),
}

/// Something that a process makes known to the checker, between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub what: &'static str,
    pub a: u64,
    pub b: u64,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Running,
    Ended,
    Dead,
}

/// One step as a run of a process has gone through it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was noted before it.
    pub notes: Vec<Note>,
    pub op: Op,
    /// Unknown for the last step of a run that was unwound.
    pub result: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// At a step whose result is not known.
    Paused,
    /// The operation is over; these notes came after its last step.
    Finished(Vec<Note>, Option<Local>),
    Panicked(String),
}

/// Which words the explorer keeps: those that some process writes. All others are constant, and
/// reading them is no step.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Every word as the setup left it, by place.
    initial: Vec<u64>,
    /// Places of the words that are kept.
    kept: Vec<usize>,
    /// Index among the kept words, by place.
    index: Vec<Option<Word>>,
}

impl Memory {
    pub fn initial_words(&self) -> Vec<u64> {
        self.kept.iter().map(|&place| self.initial[place]).collect()
    }

    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Offset of a kept word in the arena.
    pub fn offset(&self, word: Word) -> usize {
        self.kept[word] * GRAIN
    }

    /// The word at an offset of the arena, given the kept words.
    pub fn read(&self, words: &[u64], offset: usize) -> u64 {
        let place = offset / GRAIN;
        match self.index[place] {
            Some(word) => words[word],
            None => self.initial[place],
        }
    }

    fn keep(&mut self, place: usize) -> Word {
        *self.index[place].get_or_insert_with(|| {
            self.kept.push(place);
            self.kept.len() - 1
        })
    }
}

enum Mode {
    /// Nobody runs.
    Idle,
    /// Every access happens at once: for the setup and for the last checks.
    Direct {
        words: Vec<u64>,
        fates: Vec<Fate>,
    },
    Replay(Replay),
}

struct Replay {
    history: Vec<u64>,
    /// Steps taken.
    at: usize,
    /// Memory on which the process runs on by itself when its history ends, as long as this is not
    /// used up.
    words: Vec<u64>,
    fates: Vec<Fate>,
    ahead: usize,
    steps: Vec<Step>,
    notes: Vec<Note>,
    paused: bool,
    /// Places of words that the process has changed in this operation, each as often as it has.
    changed: Vec<usize>,
    /// How many of these came before it last forgot, and how many reads.
    forgotten: usize,
    forgotten_reads: usize,
    /// How often the operation began anew.
    again: u64,
    /// What it has read, by place.
    read: Vec<(usize, u64)>,
}

struct World {
    memory: Memory,
    mode: Mode,
    me: usize,
    /// What the process has said about itself by [`phase`] and [`remember`].
    phase: u64,
    remembered: Vec<usize>,
    /// Place of a constant that the process has read.
    constant: Option<usize>,
    /// Place of an envelope that the process is writing.
    envelope: Option<usize>,
    /// A word was written that was not kept.
    grew: bool,
}

#[repr(C, align(4096))]
struct Arena([u8; ARENA]);

thread_local! {
    static WORLD: RefCell<World> = const {
        RefCell::new(World {
            memory: Memory { initial: Vec::new(), kept: Vec::new(), index: Vec::new() },
            mode: Mode::Idle,
            me: 0,
            phase: 0,
            remembered: Vec::new(),
            constant: None,
            envelope: None,
            grew: false,
        })
    };
    /// Bytes with addresses. Nobody writes them but values that the code under test puts into
    /// slots, which nobody reads, and envelopes, which are written and read between two steps.
    static BASE: *mut u8 = Box::into_raw(Box::new(Arena([0; ARENA]))).cast();
}

/// The first byte of this thread's arena.
pub fn base() -> *mut u8 {
    BASE.with(|&base| base)
}

/// Offset of an address in this thread's arena; `None` for memory of the process's own.
pub fn offset_of(address: usize) -> Option<usize> {
    address.checked_sub(base().addr()).filter(|&offset| offset < ARENA)
}

/// The unwinding of a process that is put aside.
struct Pause;

/// A step on the word at this address; `None` if that is no word of the arena.
pub fn access(address: usize, access: Access) -> Option<u64> {
    let place = offset_of(address)? / GRAIN;
    Some(step(|world| {
        if let Mode::Direct { words, .. } = &mut world.mode {
            let old = words[place];
            words[place] = access.apply(old);
            return Asked::Known(old);
        }
        if access == Access::Load && world.memory.index[place].is_none() {
            world.constant = Some(place);
            return Asked::Known(world.memory.initial[place]);
        }
        world.grew |= world.memory.index[place].is_none();
        Asked::Step(Op::Access(world.memory.keep(place), access))
    }))
}

/// Address of an offset of the arena.
pub fn at(offset: usize) -> usize {
    base().addr() + offset
}

/// Reads a word at an offset of the arena, as a step if some process writes it.
pub fn read(offset: usize) -> u64 {
    access(at(offset), Access::Load).unwrap_or(0)
}

/// Writes one.
pub fn write(offset: usize, value: u64) {
    access(at(offset), Access::Store(value));
}

/// Sleeps on the word at this address, which has 32 bits or is the low half of one.
pub fn sleep(address: usize, expected: u32) {
    let place = offset_of(address).expect("processes sleep on shared words") / GRAIN;
    step(|world| match &world.mode {
        // The last checks are made by one process alone; nobody would wake it.
        Mode::Direct { .. } => Asked::Known(0),
        Mode::Replay(replay) => {
            let knows = replay.knows(&[place], world.phase, &world.remembered);
            Asked::Step(Op::Sleep(world.memory.keep(place), expected, knows))
        }
        Mode::Idle => panic!("a step outside of a process"),
    });
}

/// As [`sleep`], on the words at both of these addresses.
pub fn sleep_on_two(addresses: [usize; 2], expected: [u32; 2]) {
    let places = addresses
        .map(|address| offset_of(address).expect("processes sleep on shared words") / GRAIN);
    step(|world| match &world.mode {
        Mode::Direct { .. } => Asked::Known(0),
        Mode::Replay(replay) => {
            let knows = replay.knows(&places, world.phase, &world.remembered);
            let words = places.map(|place| world.memory.keep(place));
            Asked::Step(Op::SleepOnTwo(words, expected, knows))
        }
        Mode::Idle => panic!("a step outside of a process"),
    });
}

/// Wakes sleepers of the word at this address.
pub fn wake(address: usize, count: u32) -> u32 {
    let place = offset_of(address).expect("processes sleep on shared words") / GRAIN;
    let woken = step(|world| match world.mode {
        Mode::Direct { .. } => Asked::Known(0),
        _ => Asked::Step(Op::Wake(world.memory.keep(place), count)),
    });
    woken as u32
}

/// The oracle: whether the process is dead.
pub fn is_dead(process: usize) -> bool {
    step(|world| match &world.mode {
        Mode::Direct { fates, .. } => Asked::Known(dead(fates, process)),
        _ => Asked::Step(Op::IsDead(process)),
    }) != 0
}

/// Whether all processes of the set have ended or are dead.
pub fn have_ended(set: u64) -> bool {
    step(|world| match &world.mode {
        Mode::Direct { .. } => Asked::Known(1),
        _ => Asked::Step(Op::HaveEnded(set)),
    }) != 0
}

/// Says that the operation looks everything up from here on. Taken at its word only as long as the
/// operation has changed nothing.
pub fn begin_again() {
    let idle = WORLD.with_borrow_mut(|world| match &mut world.mode {
        Mode::Replay(replay) if replay.changed.is_empty() => {
            replay.again += 1;
            false
        }
        _ => true,
    });
    if !idle {
        step(|world| match &world.mode {
            Mode::Replay(replay) => Asked::Step(Op::Again(replay.again)),
            _ => Asked::Known(0),
        });
    }
}

/// Says that of all that the process knows only `extra` matters from here on, and what it has read
/// last from the word at this address.
pub fn forget_but(address: usize, extra: u64) {
    let place = offset_of(address).expect("a shared word") / GRAIN;
    let number = WORLD.with_borrow(|world| match &world.mode {
        Mode::Replay(replay) if !replay.paused => {
            let last = replay
                .read
                .iter()
                .rev()
                .find(|&&(read, _)| read == place)
                .map_or(0, |&(_, value)| value + 1);
            Some(1 << 63 | extra << 32 | last)
        }
        _ => None,
    });
    if let Some(number) = number {
        step(|_| Asked::Step(Op::Again(number)));
    }
}

/// Makes something known to the checker.
pub fn note(what: &'static str, a: u64, b: u64) {
    WORLD.with_borrow_mut(|world| {
        if let Mode::Replay(replay) = &mut world.mode
            && !replay.paused
        {
            replay.notes.push(Note { what, a, b });
        }
    });
}

/// Says what the process knows, so that two sleeps after which it would go on differently are told
/// apart.
pub fn phase(phase: u64) {
    WORLD.with_borrow_mut(|world| world.phase = phase);
}

/// Says that the process remembers what it has read first from the word at this offset, since it
/// last began again. As with [`phase`], two sleeps are told apart by that.
pub fn remember(offset: usize) {
    WORLD.with_borrow_mut(|world| world.remembered.push(offset / GRAIN));
}

/// Which process runs.
pub fn me() -> usize {
    WORLD.with_borrow(|world| world.me)
}

/// The oracle's answer. Whoever is not there yet is alive.
pub fn dead(fates: &[Fate], process: usize) -> u64 {
    fates.get(process).is_some_and(|&fate| fate == Fate::Dead).into()
}

enum Asked {
    Known(u64),
    Step(Op),
}

/// Words of an envelope that are kept, and for how many bits of each there is room.
const ENVELOPE: [u32; 3] = [16, 16, 32];
/// What stands in an envelope that nobody has written.
const UNWRITTEN: [u64; ENVELOPE.len()] = [u64::MAX, 0, 0];

/// The words of an envelope, in the bytes of the arena.
#[expect(unsafe_code, reason = "an envelope is written by ordinary code")]
fn words_of_envelope(place: usize) -> *mut [u64; ENVELOPE.len()] {
    // SAFETY: the offset lies within the arena.
    unsafe { base().add(place * GRAIN) }.cast()
}

/// The process writes an envelope here, in ordinary memory, before its next step.
pub fn open_envelope(address: NonNull<u8>) {
    let offset = offset_of(address.addr().get()).expect("an envelope lies in the arena");
    assert!(offset + size_of::<[u64; ENVELOPE.len()]>() <= ARENA && offset.is_multiple_of(8));
    WORLD.with_borrow_mut(|world| world.envelope = Some(offset / GRAIN));
    // SAFETY: in the arena, aligned, and no step is made in between.
    #[expect(unsafe_code, reason = "an envelope is written by ordinary code")]
    unsafe {
        words_of_envelope(offset / GRAIN).write(UNWRITTEN);
    }
}

/// Puts what the envelope says, as a step, where the process is about to read it.
pub fn read_envelope(address: NonNull<u8>) {
    let mut packed =
        access(address.addr().get(), Access::Load).expect("an envelope lies in the arena");
    let offset = offset_of(address.addr().get()).expect("an envelope lies in the arena");
    let words = ENVELOPE.map(|bits| {
        let word = packed & ((1 << bits) - 1);
        packed >>= bits;
        word
    });
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "an envelope is read by ordinary code")]
    unsafe {
        words_of_envelope(offset / GRAIN).write(words);
    }
}

/// If the process has written its envelope, that is a step of its own.
fn seal_envelope() {
    let Some(place) = WORLD.with_borrow_mut(|world| world.envelope.take()) else {
        return;
    };
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "an envelope is written by ordinary code")]
    let words = unsafe { words_of_envelope(place).read() };
    if words == UNWRITTEN {
        WORLD.with_borrow_mut(|world| world.envelope = Some(place));
        return;
    }
    let mut packed = 0;
    let mut shift = 0;
    for (word, bits) in words.into_iter().zip(ENVELOPE) {
        assert!(word >> bits == 0, "an envelope has room for what is put into it: {words:x?}");
        packed |= word << shift;
        shift += bits;
    }
    access(at(place * GRAIN), Access::Store(packed));
}

fn step(ask: impl FnOnce(&mut World) -> Asked) -> u64 {
    seal_envelope();
    let result = WORLD.with_borrow_mut(|world| {
        if matches!(&world.mode, Mode::Replay(replay) if replay.paused) {
            // Destructors that run while the process is put aside do nothing.
            return Some(0);
        }
        let op = match ask(world) {
            Asked::Known(result) => return Some(result),
            Asked::Step(op) => op,
        };
        let grown = world.memory.kept();
        let accessed = if let Op::Access(word, access) = op {
            Some((world.memory.kept[word], access))
        } else {
            None
        };
        let Mode::Replay(replay) = &mut world.mode else {
            panic!("a step outside of a process");
        };
        let result = replay.history.get(replay.at).copied().or_else(|| replay.run_ahead(op, grown));
        replay.at += 1;
        if let Op::Again(_) = op {
            replay.forgotten = replay.changed.len();
            replay.forgotten_reads = replay.read.len();
        }
        if let (Some((place, access)), Some(old)) = (accessed, result) {
            match access {
                Access::Load => replay.read.push((place, old)),
                _ if access.apply(old) != old => replay.changed.push(place),
                _ => {}
            }
        }
        replay.steps.push(Step { notes: std::mem::take(&mut replay.notes), op, result });
        replay.paused = result.is_none();
        result
    });
    result.unwrap_or_else(|| panic::resume_unwind(Box::new(Pause)))
}

impl Replay {
    /// All that the process knows when it wakes from a sleep on the words at these places.
    fn knows(&self, places: &[usize], phase: u64, remembered: &[usize]) -> u64 {
        let others = self.changed[self.forgotten..]
            .iter()
            .filter(|&changed| !places.contains(changed))
            .count() as u64;
        let mut reads = 0;
        for place in remembered {
            let first = self.read[self.forgotten_reads..].iter().find(|(read, _)| read == place);
            let value = first.map_or(0, |&(_, value)| value + 1);
            assert!(value < 1 << 12, "a model remembers small numbers");
            reads = reads << 12 | value;
        }
        assert!(phase < 1 << 16 && remembered.len() <= 2, "it fits");
        reads << 32 | phase << 16 | others
    }

    /// Guesses that nobody interferes. Right or wrong, it is one of the results that the step may
    /// have.
    fn run_ahead(&mut self, op: Op, kept: usize) -> Option<u64> {
        self.ahead = self.ahead.checked_sub(1)?;
        if self.words.len() < kept {
            return None;
        }
        match op {
            Op::Access(word, access) => {
                let old = self.words[word];
                self.words[word] = access.apply(old);
                Some(old)
            }
            Op::IsDead(process) => Some(dead(&self.fates, process)),
            Op::Again(_) => Some(0),
            Op::Sleep(..) | Op::SleepOnTwo(..) | Op::Wake(..) | Op::HaveEnded(_) => None,
        }
    }
}

/// Lays out the memory: `build` writes it, without steps.
pub fn set_up(build: impl FnOnce()) {
    let words = vec![0; ARENA / GRAIN];
    WORLD.with_borrow_mut(|world| {
        world.memory = Memory::default();
        world.mode = Mode::Direct { words, fates: Vec::new() };
    });
    build();
    WORLD.with_borrow_mut(|world| {
        if let Mode::Direct { words, .. } = std::mem::replace(&mut world.mode, Mode::Idle) {
            world.memory =
                Memory { index: vec![None; words.len()], initial: words, kept: Vec::new() };
        }
        world.grew = false;
    });
}

/// Runs `check` on a copy of the memory, without steps and by itself, as process `me`.
pub fn by_itself<R>(me: usize, kept: &[u64], fates: &[Fate], check: impl FnOnce() -> R) -> R {
    WORLD.with_borrow_mut(|world| {
        let mut words = world.memory.initial.clone();
        for (word, &value) in kept.iter().enumerate() {
            words[world.memory.kept[word]] = value;
        }
        world.me = me;
        world.mode = Mode::Direct { words, fates: fates.to_vec() };
    });
    let result = check();
    WORLD.with_borrow_mut(|world| world.mode = Mode::Idle);
    result
}

/// Which words are kept now, and whether that has changed since it was last asked.
pub fn memory() -> (Memory, bool) {
    WORLD.with_borrow_mut(|world| (world.memory.clone(), std::mem::take(&mut world.grew)))
}

/// A run of one operation of process `me`: through `history`, and then up to `ahead` steps on
/// `words`.
pub fn run(
    me: usize,
    script: &Script,
    local: Local,
    history: Vec<u64>,
    ahead: usize,
    words: &[u64],
    fates: &[Fate],
) -> (Vec<Step>, End) {
    WORLD.with_borrow_mut(|world| {
        world.me = me;
        world.phase = 0;
        world.remembered.clear();
        world.envelope = None;
        world.mode = Mode::Replay(Replay {
            history,
            at: 0,
            words: words.to_vec(),
            fates: fates.to_vec(),
            ahead,
            steps: Vec::new(),
            notes: Vec::new(),
            paused: false,
            changed: Vec::new(),
            forgotten: 0,
            forgotten_reads: 0,
            again: 0,
            read: Vec::new(),
        });
    });
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| script(local)));
    let mode = WORLD.with_borrow_mut(|world| std::mem::replace(&mut world.mode, Mode::Idle));
    let Mode::Replay(replay) = mode else {
        unreachable!("only this function ends a run");
    };
    // Who waits for a word to change must look at it by a step, even if nobody has been found yet
    // who changes it.
    if replay.steps.is_empty() && matches!(&outcome, Ok(next) if *next == Some(local)) {
        WORLD.with_borrow_mut(|world| {
            let place = world.constant.expect("an operation that does nothing for ever");
            world.memory.keep(place);
            world.grew = true;
        });
    }
    let end = match outcome {
        Ok(next) => End::Finished(replay.notes, next),
        Err(payload) if payload.is::<Pause>() => End::Paused,
        Err(payload) => {
            let message = payload.downcast_ref::<String>().cloned();
            End::Panicked(
                message
                    .or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()))
                    .unwrap_or_default(),
            )
        }
    };
    (replay.steps, end)
}
