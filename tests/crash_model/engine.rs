//! The explorer: every interleaving of the steps of a few processes, with a kill at every one of
//! them.
//!
//! # States
//! A state is the words that somebody writes, the place of each process, and what the model's
//! monitor remembers. States are visited breadth first, each once, so a schedule that leads to a
//! violation is a shortest one.
//!
//! # Places
//! A process's place is a node in a tree of results: its operation from the start, and the results
//! of its steps since. At the end of an operation the place is told by what the process remembers
//! ([`Local`]), so histories that no longer matter are one. The same goes for a process that wakes:
//! what it does next depends on what it finds, and on what it has said by [`world::phase`].
//!
//! The code under test runs once for each new node, and not once for each state.
//!
//! # What is checked
//! - The monitor, at every step and every note.
//! - From every state all that live can reach their end without another kill (AG EF); else somebody
//!   is stuck.
//! - When all have ended, the model's last check.
//! - A process that sleeps while nobody else can move, and could go on, has missed a wake-up.
//!   Nobody may, unless somebody was killed.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_128;

use crate::world::{self, Access, End, Fate, Local, Memory, Note, Op, Script};

/// When the slice of a sleeper may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slices {
    /// At any time, so often; then as with `LastResort`.
    Anytime(u64),
    /// When nobody else can move. A sleeper that needs this has missed a wake-up, which is a
    /// violation unless somebody was killed.
    LastResort,
    /// Never: what the crate would be without slices.
    Never,
}

/// A process of a model.
pub struct Process {
    pub name: &'static str,
    pub script: Script,
    pub start: Local,
    /// Whether it may be killed.
    pub mortal: bool,
    /// At its end it is dead for the oracle, and not merely idle.
    pub exits: bool,
    /// It does each operation in one step, and stands for the rest of the world: others do not wait
    /// for it.
    pub atomic: bool,
    /// Whether it may run, given the fates of all.
    pub may_run: Box<MayRun>,
}

/// Whether a process may run, given the fates of all.
pub type MayRun = dyn Fn(&[Fate]) -> bool;

impl Process {
    pub fn new(name: &'static str, script: impl Fn(Local) -> Option<Local> + 'static) -> Process {
        Process {
            name,
            script: Box::new(script),
            start: [0; 4],
            mortal: true,
            exits: false,
            atomic: false,
            may_run: Box::new(|_| true),
        }
    }

    /// One that stands for the rest of the world.
    pub fn immortal(
        name: &'static str,
        may_run: impl Fn(&[Fate]) -> bool + 'static,
        script: impl Fn(Local) -> Option<Local> + 'static,
    ) -> Process {
        Process {
            mortal: false,
            atomic: true,
            may_run: Box::new(may_run),
            ..Process::new(name, script)
        }
    }
}

/// What a model's monitor remembers beyond the memory.
pub type Ghost = [u64; 8];

/// What a monitor sees.
pub struct View<'a> {
    memory: &'a Memory,
    words: &'a [u64],
    pub fates: &'a [Fate],
}

impl View<'_> {
    /// The word at an offset of the arena.
    pub fn read(&self, offset: usize) -> u64 {
        self.memory.read(self.words, offset)
    }

    pub fn is_dead(&self, process: usize) -> bool {
        self.fates[process] == Fate::Dead
    }
}

/// A change of a word, or a look at it.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    pub process: usize,
    pub offset: usize,
    pub access: Access,
    pub before: u64,
    pub after: u64,
}

/// What a model checks at each step.
pub trait Monitor {
    /// After a word was accessed.
    fn touched(&self, _touch: Touch, _view: &View<'_>, _ghost: &mut Ghost) -> Result<(), String> {
        Ok(())
    }

    /// After a process made something known.
    fn noted(
        &self,
        _process: usize,
        note: Note,
        _view: &View<'_>,
        _ghost: &mut Ghost,
    ) -> Result<(), String> {
        Err(format!("an unexpected note: {note:?}"))
    }

    /// After a process was killed.
    fn killed(&self, _process: usize, _view: &View<'_>, _ghost: &mut Ghost) -> Result<(), String> {
        Ok(())
    }

    /// Whether a sleeping process would find what it waits for; runs by itself.
    fn could_go_on(&self, _process: usize) -> bool {
        false
    }

    /// When all have ended; runs by itself, as a process that was not there before.
    fn at_the_end(&self, _fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        Ok(())
    }

    /// A word by its name and what it says, for a schedule.
    fn tell(&self, offset: usize, value: u64) -> String {
        format!("[{offset:#x}] {value:#x}")
    }
}

/// A configuration to be explored.
pub struct Model {
    pub object: &'static str,
    pub configuration: String,
    pub set_up: Box<dyn Fn()>,
    pub processes: Vec<Process>,
    pub monitor: Box<dyn Monitor>,
    /// How many may be killed.
    pub deaths: usize,
    pub slices: Slices,
    /// How often a process is put aside for another in the middle of an operation, unless it
    /// sleeps, at the most. For configurations that are too large otherwise.
    pub preemptions: Option<u64>,
    /// The oracle calls this living process dead: what the crate would be with a wrong one.
    pub slandered: Option<usize>,
}

impl Model {
    pub fn new(
        object: &'static str,
        configuration: String,
        monitor: impl Monitor + 'static,
    ) -> Model {
        Model {
            object,
            configuration,
            set_up: Box::new(|| {}),
            processes: Vec::new(),
            monitor: Box::new(monitor),
            deaths: 0,
            slices: Slices::LastResort,
            preemptions: None,
            slandered: None,
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    /// Transitions that are kills.
    pub deaths: usize,
    /// States in which only the end of a slice helped.
    pub rescues: usize,
    pub violation: Option<Violation>,
}

/// What went wrong, and how to get there.
#[derive(Clone, Debug)]
pub struct Violation {
    pub message: String,
    /// For [`explore`] of the same model.
    pub schedule: String,
    /// The schedule in words.
    pub story: String,
}

/// A transition. Small, as one is kept for every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A step of a process; if there is a choice whom it wakes, the number of the sleeper.
    Step(u8, u8),
    /// The end of a slice.
    Wake(u8),
    Kill(u8),
}

impl Action {
    fn encode(self) -> String {
        match self {
            Action::Step(process, 0) => format!("{process}"),
            Action::Step(process, choice) => format!("{process}/{choice}"),
            Action::Wake(process) => format!("{process}~"),
            Action::Kill(process) => format!("{process}!"),
        }
    }

    fn decode(text: &str) -> Option<Action> {
        if let Some(process) = text.strip_suffix('!') {
            return process.parse().ok().map(Action::Kill);
        }
        if let Some(process) = text.strip_suffix('~') {
            return process.parse().ok().map(Action::Wake);
        }
        let (process, choice) = text.split_once('/').unwrap_or((text, "0"));
        Some(Action::Step(process.parse().ok()?, choice.parse().ok()?))
    }
}

/// The place of a process in the tree of results.
type Place = u32;

#[derive(Debug)]
struct Node {
    process: usize,
    root: Place,
    parent: Place,
    /// The result that led here from the parent.
    result: u64,
    /// Steps of the operation so far.
    depth: usize,
    /// What was noted on the way here.
    notes: Vec<Note>,
    next: Next,
    children: Vec<(u64, Place)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The code has not been run up to here.
    Unknown,
    Step(Op),
    Finish(Option<Local>),
}

/// A process in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    place: Place,
    /// The word it sleeps on.
    asleep: Option<usize>,
    /// Another word on which it sleeps, too, or on whose queue it still stands: a process that was
    /// woken leaves the kernel's other queues only when it runs, and may be woken there once more.
    also: Option<usize>,
    fate: Fate,
}

impl Standing {
    fn new(place: Place, fate: Fate) -> Standing {
        Standing { place, asleep: None, also: None, fate }
    }

    /// Whether a wake-up of those that sleep on the word may be meant for it.
    fn is_queued_on(self, word: usize) -> bool {
        self.fate == Fate::Running && (self.asleep == Some(word) || self.also == Some(word))
    }

    /// A wake-up by somebody who has changed this word.
    fn wake_on(&mut self, word: usize) {
        if self.also == Some(word) {
            self.also = self.asleep;
        }
        self.asleep = None;
    }

    fn to_bits(self) -> u64 {
        let number = |word: Option<usize>| word.map_or(0, |word| word as u64 + 1);
        assert!(number(self.asleep).max(number(self.also)) < 1 << 12, "it fits");
        u64::from(self.place)
            | number(self.asleep) << 32
            | number(self.also) << 44
            | (self.fate as u64) << 56
    }
}

#[derive(Clone, Debug)]
struct State {
    words: Vec<u64>,
    ghost: Ghost,
    /// Slices that may still end at any time.
    slices: u64,
    /// Who went last, and how often another may still go instead; constant if that is not bounded.
    last: usize,
    preemptions: u64,
    standings: Vec<Standing>,
}

impl State {
    fn fingerprint(&self, scratch: &mut Vec<u64>) -> u128 {
        scratch.clear();
        scratch.extend_from_slice(&self.words);
        scratch.extend_from_slice(&self.ghost);
        scratch.extend([self.slices, self.last as u64, self.preemptions]);
        scratch.extend(self.standings.iter().map(|standing| standing.to_bits()));
        xxh3_128(bytemuck::cast_slice(scratch))
    }

    fn fates(&self) -> Vec<Fate> {
        self.standings.iter().map(|standing| standing.fate).collect()
    }

    fn deaths(&self) -> usize {
        self.standings.iter().filter(|standing| standing.fate == Fate::Dead).count()
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u128 is hashed");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

type Seen = HashMap<u128, u32, BuildHasherDefault<Unhashed>>;

/// Steps of one operation beyond which it is taken for one that never ends.
const LONGEST_OPERATION: usize = 400;
/// Steps that a process runs on by itself to fill the tree.
const AHEAD: usize = 48;

/// States beyond which a configuration is too large to be useful.
const MOST_STATES: usize = 8_000_000;

const CONSTANT_WRITTEN: &str = "a word is written that was taken for a constant";

/// What became of a transition.
type Outcome<T> = Result<T, String>;

struct Explorer<'a> {
    model: &'a Model,
    memory: Memory,
    nodes: Vec<Node>,
    roots: HashMap<(usize, Local), Place>,
    locals: HashMap<Place, Local>,
    /// Places where what was before no longer matters, by operation and what tells them apart.
    awake: HashMap<(Place, (u64, u64)), Place>,
    /// A word turned out to be written: begin again.
    grew: bool,
}

impl<'a> Explorer<'a> {
    fn new(model: &'a Model, memory: Memory) -> Explorer<'a> {
        Explorer {
            model,
            memory,
            nodes: Vec::new(),
            roots: HashMap::new(),
            locals: HashMap::new(),
            awake: HashMap::new(),
            grew: false,
        }
    }

    fn add(&mut self, process: usize, parent: Option<Place>, result: u64) -> Place {
        let place = Place::try_from(self.nodes.len()).expect("fewer than 2^32 places");
        let (root, depth) = parent.map_or((place, 0), |parent| {
            let parent = &self.nodes[parent as usize];
            let steps = if matches!(parent.next, Next::Step(Op::Again(_))) { 0 } else { 1 };
            (parent.root, parent.depth + steps)
        });
        self.nodes.push(Node {
            process,
            root,
            parent: parent.unwrap_or(place),
            result,
            depth,
            notes: Vec::new(),
            next: Next::Unknown,
            children: Vec::new(),
        });
        place
    }

    fn root(&mut self, process: usize, local: Local) -> Place {
        if let Some(&place) = self.roots.get(&(process, local)) {
            return place;
        }
        let place = self.add(process, None, 0);
        self.roots.insert((process, local), place);
        self.locals.insert(place, local);
        place
    }

    /// The place after a step with this result.
    fn after(&mut self, place: Place, result: u64) -> Place {
        let node = &self.nodes[place as usize];
        let afresh = match node.next {
            Next::Step(Op::Sleep(_, _, knows) | Op::SleepOnTwo(_, _, knows)) => Some((knows, 0)),
            Next::Step(Op::Again(number)) => Some((0, number)),
            _ => None,
        };
        if let Some(afresh) = afresh {
            let (key, process) = ((node.root, afresh), node.process);
            if let Some(&awake) = self.awake.get(&key) {
                return awake;
            }
            let awake = self.add(process, Some(place), result);
            self.awake.insert(key, awake);
            return awake;
        }
        if let Some(&(_, child)) = node.children.iter().find(|&&(known, _)| known == result) {
            return child;
        }
        let process = node.process;
        let child = self.add(process, Some(place), result);
        self.nodes[place as usize].children.push((result, child));
        child
    }

    fn history(&self, mut place: Place) -> Vec<u64> {
        let mut results = Vec::new();
        while self.nodes[place as usize].parent != place {
            let node = &self.nodes[place as usize];
            results.push(node.result);
            place = node.parent;
        }
        results.reverse();
        results
    }

    /// What the process does next, running its code if that is not known.
    fn next(&mut self, place: Place, state: &State) -> Outcome<Next> {
        let node = &self.nodes[place as usize];
        if node.next != Next::Unknown {
            return Ok(node.next);
        }
        if self.grew {
            return Err(CONSTANT_WRITTEN.into());
        }
        let (process, root) = (node.process, node.root);
        if node.depth > LONGEST_OPERATION {
            return Err(format!(
                "{} has an operation that does not end",
                self.model.processes[process].name
            ));
        }
        let script = &self.model.processes[process].script;
        let (steps, end) = world::run(
            process,
            script,
            self.locals[&root],
            self.history(place),
            AHEAD,
            &state.words,
            &state.fates(),
        );
        let (_, grew) = world::memory();
        self.grew |= grew;
        if self.grew {
            return Err(CONSTANT_WRITTEN.into());
        }
        let mut at = root;
        for step in steps {
            self.learn(at, step.notes, Next::Step(step.op));
            match step.result {
                Some(result) => at = self.after(at, result),
                None => break,
            }
        }
        match end {
            End::Paused => {}
            End::Finished(notes, local) => self.learn(at, notes, Next::Finish(local)),
            End::Panicked(message) => {
                return Err(format!("{} panicked: {message}", self.model.processes[process].name));
            }
        }
        Ok(self.nodes[place as usize].next)
    }

    fn learn(&mut self, place: Place, notes: Vec<Note>, next: Next) {
        let node = &mut self.nodes[place as usize];
        if node.next == Next::Unknown {
            node.next = next;
            node.notes = notes;
        } else {
            assert!(
                node.next == next,
                "a process depends on something that the model does not know: {:?}, {next:?}",
                node.next
            );
        }
    }

    /// Lets a process that has come to its place go on to its next step: notes what it notes, and
    /// begins its next operation. True if an operation ended.
    fn settle(&mut self, state: &mut State, process: usize) -> Outcome<bool> {
        let mut finished = false;
        loop {
            let place = state.standings[process].place;
            let next = self.next(place, state)?;
            for note in self.nodes[place as usize].notes.clone() {
                let fates = state.fates();
                let view = View { memory: &self.memory, words: &state.words, fates: &fates };
                self.model.monitor.noted(process, note, &view, &mut state.ghost)?;
            }
            match next {
                Next::Unknown => unreachable!("the code was run"),
                Next::Step(Op::Again(_)) => state.standings[process].place = self.after(place, 0),
                Next::Step(_) => return Ok(finished),
                Next::Finish(Some(local)) => {
                    finished = true;
                    state.standings[process].place = self.root(process, local);
                }
                Next::Finish(None) => {
                    let fate =
                        if self.model.processes[process].exits { Fate::Dead } else { Fate::Ended };
                    state.standings[process] = Standing::new(0, fate);
                    return Ok(true);
                }
            }
        }
    }

    fn first(&mut self) -> Outcome<State> {
        let processes = self.model.processes.len();
        let standing = Standing::new(0, Fate::Running);
        let slices = if let Slices::Anytime(slices) = self.model.slices { slices } else { 0 };
        let mut state = State {
            words: self.memory.initial_words(),
            ghost: [0; 8],
            slices,
            last: usize::MAX,
            preemptions: self.model.preemptions.unwrap_or(0),
            standings: vec![standing; processes],
        };
        for process in 0..processes {
            state.standings[process].place =
                self.root(process, self.model.processes[process].start);
        }
        for process in 0..processes {
            self.settle(&mut state, process)?;
        }
        Ok(state)
    }

    /// The step that a process takes next.
    fn op(&self, standing: Standing) -> Op {
        match self.nodes[standing.place as usize].next {
            Next::Step(op) => op,
            next => unreachable!("a running process stands before a step, not {next:?}"),
        }
    }

    fn sleepers(state: &State, word: usize) -> impl Iterator<Item = usize> + '_ {
        let asleep = move |&(_, standing): &(usize, &Standing)| standing.is_queued_on(word);
        state.standings.iter().enumerate().filter(asleep).map(|(process, _)| process)
    }

    /// In how many ways the process can take its next step.
    fn choices(&self, state: &State, process: usize) -> usize {
        match self.op(state.standings[process]) {
            Op::Wake(word, 1) => Self::sleepers(state, word).count().max(1),
            _ => 1,
        }
    }

    fn act(&mut self, state: &State, action: Action) -> Outcome<State> {
        let mut state = state.clone();
        match action {
            Action::Step(process, choice) => {
                let (process, choice) = (process.into(), choice.into());
                if self.is_preemption(&state, process) {
                    state.preemptions -= 1;
                }
                if self.model.preemptions.is_some() && !self.model.processes[process].atomic {
                    state.last = process;
                }
                self.step(&mut state, process, choice)?;
            }
            Action::Wake(process) => {
                let standing = &mut state.standings[usize::from(process)];
                (standing.asleep, standing.also) = (None, None);
                state.slices = state.slices.saturating_sub(1);
            }
            Action::Kill(process) => {
                let process = process.into();
                state.standings[process] = Standing::new(0, Fate::Dead);
                let fates = state.fates();
                let view = View { memory: &self.memory, words: &state.words, fates: &fates };
                self.model.monitor.killed(process, &view, &mut state.ghost)?;
            }
        }
        Ok(state)
    }

    fn may_step(&self, state: &State, fates: &[Fate], process: usize) -> bool {
        let standing = state.standings[process];
        standing.fate == Fate::Running
            && standing.asleep.is_none()
            && (self.model.processes[process].may_run)(fates)
    }

    /// Whether a step of the process puts another aside that is in the middle of an operation and
    /// could go on.
    fn is_preemption(&self, state: &State, process: usize) -> bool {
        self.model.preemptions.is_some()
            && !self.model.processes[process].atomic
            && state.last != process
            && state.last != usize::MAX
            && self.may_step(state, &state.fates(), state.last)
            && self.nodes[state.standings[state.last].place as usize].depth > 0
    }

    fn step(&mut self, state: &mut State, process: usize, mut choice: usize) -> Outcome<()> {
        loop {
            state.standings[process].also = None;
            let standing = state.standings[process];
            let result = match self.op(standing) {
                Op::Access(word, access) => {
                    let before = state.words[word];
                    let after = access.apply(before);
                    state.words[word] = after;
                    let touch =
                        Touch { process, offset: self.memory.offset(word), access, before, after };
                    let fates = state.fates();
                    let view = View { memory: &self.memory, words: &state.words, fates: &fates };
                    self.model.monitor.touched(touch, &view, &mut state.ghost)?;
                    before
                }
                Op::Sleep(word, expected, _) => {
                    if state.words[word] as u32 == expected {
                        state.standings[process].asleep = Some(word);
                    }
                    0
                }
                Op::SleepOnTwo(words, expected, _) => {
                    if words.map(|word| state.words[word] as u32) == expected {
                        let standing = &mut state.standings[process];
                        (standing.asleep, standing.also) = (Some(words[0]), Some(words[1]));
                    }
                    0
                }
                Op::Wake(word, count) => {
                    let sleepers: Vec<usize> = Self::sleepers(state, word).collect();
                    let woken = if count == 1 {
                        sleepers.get(choice).into_iter().copied().collect()
                    } else {
                        sleepers
                    };
                    for &sleeper in &woken {
                        state.standings[sleeper].wake_on(word);
                    }
                    choice = 0;
                    woken.len() as u64
                }
                Op::Again(_) => unreachable!("it is gone over at once"),
                Op::IsDead(process) => {
                    if self.model.slandered == Some(process) {
                        1
                    } else {
                        world::dead(&state.fates(), process)
                    }
                }
                Op::HaveEnded(set) => {
                    u64::from(state.standings.iter().enumerate().all(|(other, standing)| {
                        set >> other & 1 == 0 || standing.fate != Fate::Running
                    }))
                }
            };
            state.standings[process].place = self.after(standing.place, result);
            let finished = self.settle(state, process)?;
            if finished
                || !self.model.processes[process].atomic
                || state.standings[process].asleep.is_some()
            {
                return Ok(());
            }
        }
    }

    /// Whether a sleeper would find what it waits for.
    fn could_go_on(&self, state: &State, process: usize) -> bool {
        world::by_itself(process, &state.words, &state.fates(), || {
            self.model.monitor.could_go_on(process)
        })
    }

    fn at_the_end(&self, state: &State) -> Outcome<()> {
        let fates = state.fates();
        world::by_itself(fates.len(), &state.words, &fates, || {
            self.model.monitor.at_the_end(&fates, &state.ghost)
        })
    }

    fn tell(&self, state: &State, action: Action) -> String {
        let name = |process: u8| {
            format!("{process} {:<10}", self.model.processes[usize::from(process)].name)
        };
        let tell =
            |word: usize, value: u64| self.model.monitor.tell(self.memory.offset(word), value);
        match action {
            Action::Kill(process) => format!("{} is killed", name(process)),
            Action::Wake(process) => format!("{} wakes as its slice ends", name(process)),
            Action::Step(process, choice) if self.model.processes[usize::from(process)].atomic => {
                format!("{} acts ({choice})", name(process))
            }
            Action::Step(process, choice) => match self.op(state.standings[usize::from(process)]) {
                Op::Access(word, access) => {
                    let before = state.words[word];
                    let after = access.apply(before);
                    let what = match access {
                        Access::Load => format!("loads      {}", tell(word, before)),
                        Access::CompareExchange(from, to) if from != before => {
                            format!(
                                "fails CAS  {} (expected {}, to {})",
                                tell(word, before),
                                tell(word, from),
                                tell(word, to)
                            )
                        }
                        Access::CompareExchange(..) => {
                            format!("CAS        {} -> {}", tell(word, before), tell(word, after))
                        }
                        Access::Store(_) => {
                            format!("stores     {} -> {}", tell(word, before), tell(word, after))
                        }
                        _ => format!("changes    {} -> {}", tell(word, before), tell(word, after)),
                    };
                    format!("{} {what}", name(process))
                }
                Op::Sleep(word, expected, _) if state.words[word] as u32 == expected => {
                    format!("{} sleeps on  {}", name(process), tell(word, state.words[word]))
                }
                Op::Sleep(word, ..) => {
                    format!("{} does not sleep on {}", name(process), tell(word, state.words[word]))
                }
                Op::SleepOnTwo([first, second], expected, _) => {
                    let now = [first, second].map(|word| state.words[word]);
                    let sleeps = now.map(|value| value as u32) == expected;
                    let does = if sleeps { "sleeps" } else { "does not sleep" };
                    let (first, second) = (tell(first, now[0]), tell(second, now[1]));
                    format!("{} {does} on {first} and {second}", name(process))
                }
                Op::Wake(word, count) => {
                    let sleepers: Vec<usize> = Self::sleepers(state, word).collect();
                    format!(
                        "{} wakes {count} of {sleepers:?}, choice {choice}, on {}",
                        name(process),
                        tell(word, state.words[word])
                    )
                }
                Op::IsDead(other) => {
                    let dead = world::dead(&state.fates(), other);
                    format!("{} asks whether {other} is dead: {dead}", name(process))
                }
                Op::Again(_) => String::new(),
                Op::HaveEnded(set) => format!("{} asks whether {set:#b} have ended", name(process)),
            },
        }
    }

    /// Goes through a schedule and tells each step.
    fn replay(&mut self, schedule: &str) -> Result<String, String> {
        let mut story = String::new();
        let mut state = self.first()?;
        for (number, text) in schedule.split_whitespace().enumerate() {
            let action = Action::decode(text).ok_or_else(|| format!("no action: {text}"))?;
            let told = self.tell(&state, action);
            let _ = writeln!(story, "{number:>4}  {told}");
            match self.act(&state, action) {
                Ok(next) => state = next,
                Err(message) => {
                    let _ = writeln!(story, "      => {message}");
                    return Ok(story);
                }
            }
        }
        Ok(story)
    }
}

/// How each state was reached.
struct Trail {
    parents: Vec<(u32, Action)>,
}

impl Trail {
    fn schedule(&self, state: u32, last: Option<Action>) -> String {
        let mut actions: Vec<Action> = last.into_iter().collect();
        let mut at = state;
        while at != 0 {
            let (parent, action) = self.parents[at as usize];
            actions.push(action);
            at = parent;
        }
        actions.iter().rev().map(|action| action.encode()).collect::<Vec<_>>().join(" ")
    }
}

fn set_up(model: &Model) {
    world::set_up(&model.set_up);
}

/// Explores the model, in this thread.
pub fn explore(model: &Model) -> Report {
    set_up(model);
    loop {
        let (memory, _) = world::memory();
        let mut explorer = Explorer::new(model, memory);
        if let Some(mut report) = explore_with(&mut explorer) {
            if let Some(violation) = &mut report.violation {
                violation.story =
                    explorer.replay(&violation.schedule).unwrap_or_else(|message| message);
            }
            return report;
        }
    }
}

/// Tells a schedule of the model step by step.
pub fn replay(model: &Model, schedule: &str) -> String {
    set_up(model);
    loop {
        // Which words are kept, and so what is a step, is found out by exploring.
        let (memory, _) = world::memory();
        let mut explorer = Explorer::new(model, memory);
        if explore_with(&mut explorer).is_some() {
            return explorer.replay(schedule).unwrap_or_else(|message| message);
        }
    }
}

/// `None` if a word turned out to be written that was taken for a constant: then all is to be done
/// again.
fn explore_with(explorer: &mut Explorer<'_>) -> Option<Report> {
    let mut report = Report::default();
    let mut trail = Trail { parents: vec![(0, Action::Kill(u8::MAX))] };
    let fail = |trail: &Trail, state: u32, last: Option<Action>, message: String| {
        Some(Violation { message, schedule: trail.schedule(state, last), story: String::new() })
    };
    let mut scratch = Vec::new();
    let mut seen = Seen::default();
    let mut queue = VecDeque::new();
    // Transitions that are no kills, backwards: to, from.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut ends: Vec<u32> = Vec::new();

    let first = match explorer.first() {
        Ok(first) => first,
        Err(_) if explorer.grew => return None,
        Err(message) => {
            report.violation = fail(&trail, 0, None, message);
            return Some(report);
        }
    };
    seen.insert(first.fingerprint(&mut scratch), 0);
    queue.push_back(first);
    let mut current: u32 = 0;
    while let Some(state) = queue.pop_front() {
        let mut successors: Vec<(Action, Outcome<State>)> = Vec::new();
        let fates = state.fates();
        // First those who are waited for; whether they can move decides what the others are for.
        let mut moved = false;
        for atomic in [false, true] {
            for process in 0..fates.len() {
                if explorer.model.processes[process].atomic != atomic
                    || !explorer.may_step(&state, &fates, process)
                {
                    continue;
                }
                if state.preemptions == 0 && explorer.is_preemption(&state, process) {
                    continue;
                }
                for choice in 0..explorer.choices(&state, process) {
                    let action = Action::Step(process as u8, choice as u8);
                    let outcome = explorer.act(&state, action);
                    moved |= !matches!(&outcome, Ok(next) if same(next, &state));
                    successors.push((action, outcome));
                }
            }
            if !atomic && !moved && explorer.model.slices != Slices::Never {
                let stranded = (0..fates.len()).find(|&process| {
                    state.standings[process].asleep.is_some()
                        && explorer.could_go_on(&state, process)
                });
                if let Some(process) = stranded {
                    if state.deaths() == 0 && explorer.model.slices == Slices::LastResort {
                        let name = explorer.model.processes[process].name;
                        report.violation = fail(
                            &trail,
                            current,
                            None,
                            format!("lost wake-up: {process} {name} sleeps and could go on"),
                        );
                        report.states = trail.parents.len();
                        return Some(report);
                    }
                    report.rescues += 1;
                    break;
                }
            }
        }
        let slices_end = match explorer.model.slices {
            Slices::Anytime(_) if state.slices > 0 => true,
            Slices::Anytime(_) | Slices::LastResort => !moved,
            Slices::Never => false,
        };
        for process in 0..fates.len() {
            let standing = state.standings[process];
            if standing.fate != Fate::Running {
                continue;
            }
            if slices_end && standing.asleep.is_some() {
                if explorer.model.slices == Slices::LastResort && state.deaths() == 0 {
                    let name = explorer.model.processes[process].name;
                    report.violation = fail(
                        &trail,
                        current,
                        None,
                        format!("lost wake-up: {process} {name} sleeps for ever"),
                    );
                    report.states = trail.parents.len();
                    return Some(report);
                }
                let action = Action::Wake(process as u8);
                successors.push((action, explorer.act(&state, action)));
            }
            if explorer.model.processes[process].mortal
                && state.deaths() < explorer.model.deaths
                && (explorer.model.processes[process].may_run)(&fates)
            {
                let action = Action::Kill(process as u8);
                successors.push((action, explorer.act(&state, action)));
                report.deaths += 1;
            }
        }
        if explorer.grew {
            return None;
        }
        if fates.iter().all(|&fate| fate != Fate::Running) {
            ends.push(current);
            if let Err(message) = explorer.at_the_end(&state) {
                report.violation = fail(&trail, current, None, format!("at the end: {message}"));
                report.states = trail.parents.len();
                return Some(report);
            }
        }
        for (action, outcome) in successors {
            report.transitions += 1;
            let next = match outcome {
                Ok(next) => next,
                Err(message) => {
                    report.violation = fail(&trail, current, Some(action), message);
                    report.states = trail.parents.len();
                    return Some(report);
                }
            };
            let fresh = trail.parents.len() as u32;
            let id = *seen.entry(next.fingerprint(&mut scratch)).or_insert(fresh);
            if id as usize == MOST_STATES {
                report.violation = fail(&trail, current, Some(action), "too many states".into());
                report.states = trail.parents.len();
                return Some(report);
            }
            if id == fresh {
                trail.parents.push((current, action));
                queue.push_back(next);
            }
            if !matches!(action, Action::Kill(_)) && id != current {
                edges.push((id, current));
            }
        }
        current += 1;
    }
    report.states = trail.parents.len();
    if let Some(stuck) = first_stuck(report.states, edges, &ends) {
        report.violation = fail(
            &trail,
            stuck,
            None,
            "stuck: from here not all that live can reach their end".into(),
        );
    }
    Some(report)
}

fn same(a: &State, b: &State) -> bool {
    a.standings == b.standings && a.words == b.words && a.ghost == b.ghost
}

/// The first state from which no end can be reached. `edges` are transitions, backwards.
fn first_stuck(states: usize, mut edges: Vec<(u32, u32)>, ends: &[u32]) -> Option<u32> {
    edges.sort_unstable();
    let mut reaches = vec![false; states];
    let mut open: Vec<u32> = ends.to_vec();
    for &end in ends {
        reaches[end as usize] = true;
    }
    while let Some(state) = open.pop() {
        let first = edges.partition_point(|&(to, _)| to < state);
        for &(_, from) in edges[first..].iter().take_while(|&&(to, _)| to == state) {
            if !std::mem::replace(&mut reaches[from as usize], true) {
                open.push(from);
            }
        }
    }
    reaches.iter().position(|&reaches| !reaches).map(|state| state as u32)
}
