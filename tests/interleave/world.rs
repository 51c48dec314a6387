//! A few processes of which one runs at a time, for as many instructions as a random number says.
//!
//! What the kernel would say depends on the time, and a run must come out the same whenever it is
//! repeated. So three of its answers are given by the test: when a sleep on a word of the segment
//! ends (when it is woken, or when the dice say that its time is over), whether a process lives (it
//! does until the test has killed it), and what time it is (a microsecond later with every
//! instruction). Every other system call is made. What else would differ is random numbers: those
//! that hash maps begin with, and the name of the segment.

#![expect(unsafe_code, reason = "stands in for a function of libc's")]

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::sys::ptrace;
use offspring::Segment;

use crate::common::trace::{Call, Next, Tracee, kill_and_wait, raw_fork};
use crate::common::watch::Watch;

/// A generator of which the seed says everything (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Where an actor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// In a wait on its [words](Actor::queues).
    Sleeps,
    /// It has come to the end of its life, and idles.
    Done,
}

struct Actor {
    tracee: Tracee,
    /// Address of the segment in it.
    base: u64,
    /// What its author calls it.
    life: usize,
    state: State,
    /// Offsets in the segment of the words on whose queues it stands. One that was woken leaves the
    /// others only when it runs, as in the kernel, and may be woken there once more.
    queues: Vec<u64>,
    /// Whether it was told that somebody is dead, and so may be clearing up.
    knows_of_a_death: bool,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    pub steps: u64,
    pub kills: u64,
    /// Kills of those that knew of a death, and so may have been clearing up.
    pub knowing_kills: u64,
    /// How often somebody fell asleep.
    pub sleeps: u64,
    /// How often everybody slept, until the time of one was over.
    pub all_slept: u64,
    /// A hash of every step: equal for equal runs.
    pub fingerprint: u64,
}

/// Steps after which a run is taken for stuck.
const MOST_STEPS: u64 = 3_000_000;

pub struct World<'a> {
    watch: &'a Watch,
    actors: Vec<Actor>,
    asleep: VecDeque<usize>,
    dead: BTreeSet<u64>,
    pub dice: Dice,
    pub chronicle: Chronicle,
    /// How many may yet be killed. Without any, nobody may sleep through anything, and no sleep
    /// ends by itself.
    kills_left: u64,
    peaceful: bool,
    /// What the author wants to know right before and right after a kill.
    probe: Option<Probe<'a>>,
}

pub type Probe<'a> = &'a dyn Fn() -> Result<String, String>;

/// What the world asks its author.
pub enum Happening {
    /// The actor of this life was killed, and what the probe said before and after.
    Killed(usize, [String; 2]),
    /// The actor of this life has ended it.
    Done(usize),
}

impl<'a> World<'a> {
    pub fn new(watch: &'a Watch, mut dice: Dice, probe: Option<Probe<'a>>) -> World<'a> {
        let kills_left = dice.below(6);
        World {
            watch,
            actors: Vec::new(),
            asleep: VecDeque::new(),
            dead: BTreeSet::new(),
            dice,
            chronicle: Chronicle::default(),
            kills_left,
            peaceful: kills_left == 0,
            probe,
        }
    }

    /// Adds a process that stands at its first mark.
    pub fn enter(&mut self, life: usize, mut tracee: Tracee) {
        let base = self.watch.address_in(tracee.pid());
        // Past the mark.
        assert!(tracee.step());
        self.actors.push(Actor {
            tracee,
            base,
            life,
            state: State::Runs,
            queues: Vec::new(),
            knows_of_a_death: false,
        });
    }

    /// Whoever sleeps is woken: for what the author does itself.
    pub fn wake_all(&mut self) {
        while let Some(index) = self.asleep.pop_front() {
            self.end_sleep(index, 0);
        }
    }

    fn end_sleep(&mut self, index: usize, result: i64) {
        self.actors[index].tracee.pretend(result);
        self.actors[index].state = State::Runs;
    }

    /// Goes on until somebody was killed or is done; `None` when nobody is left who could do
    /// anything.
    pub fn go_on(&mut self) -> Result<Option<Happening>, String> {
        loop {
            if self.chronicle.steps > MOST_STEPS {
                return Err(format!(
                    "stuck: {:?}",
                    self.actors.iter().map(|actor| (actor.life, actor.state)).collect::<Vec<_>>()
                ));
            }
            if !self.peaceful && !self.asleep.is_empty() && self.dice.once_in(40) {
                self.time_passes();
            }
            let ready: Vec<usize> = (0..self.actors.len())
                .filter(|&index| self.actors[index].state == State::Runs)
                .collect();
            if ready.is_empty() {
                if self.asleep.is_empty() {
                    return Ok(None);
                }
                if self.peaceful {
                    return Err(
                        "nobody was killed, and everybody sleeps: a wake-up was lost".to_owned()
                    );
                }
                self.chronicle.all_slept += 1;
                self.time_passes();
                continue;
            }
            let index = ready[self.dice.below(ready.len() as u64) as usize];
            let burst = match self.dice.below(4) {
                0 => 1 + self.dice.below(4),
                1 | 2 => 1 + self.dice.below(60),
                _ => 1 + self.dice.below(600),
            };
            for _ in 0..burst {
                if self.actors[index].state != State::Runs {
                    break;
                }
                self.advance(index)?;
            }
            if self.actors[index].state == State::Done {
                return Ok(Some(Happening::Done(self.actors[index].life)));
            }
            if self.kills_left > 0 && self.dice.once_in(30) {
                self.kills_left -= 1;
                let before = self.ask()?;
                let killed = self.kill(index);
                return Ok(Some(Happening::Killed(killed, [before, self.ask()?])));
            }
        }
    }

    fn ask(&self) -> Result<String, String> {
        self.probe.map_or_else(|| Ok(String::new()), |probe| probe())
    }

    /// The sleep of one ends, as its time is over.
    fn time_passes(&mut self) {
        let at = self.dice.below(self.asleep.len() as u64) as usize;
        if let Some(index) = self.asleep.remove(at) {
            self.end_sleep(index, -i64::from(libc::ETIMEDOUT));
        }
    }

    /// Kills an actor, also one that the dice find asleep.
    fn kill(&mut self, index: usize) -> usize {
        let victim = match self.asleep.front() {
            Some(&sleeper) if self.dice.once_in(4) => sleeper,
            _ => index,
        };
        self.asleep.retain(|&sleeper| sleeper != victim);
        self.asleep.iter_mut().for_each(|sleeper| *sleeper -= usize::from(*sleeper > victim));
        let actor = self.actors.remove(victim);
        self.dead.insert(actor.tracee.pid().as_raw() as u64);
        actor.tracee.kill();
        self.chronicle.kills += 1;
        self.chronicle.knowing_kills += u64::from(actor.knows_of_a_death);
        actor.life
    }

    /// Lets an actor execute one instruction.
    fn advance(&mut self, index: usize) -> Result<(), String> {
        self.chronicle.steps += 1;
        let actor = &mut self.actors[index];
        actor.queues.clear();
        let next = actor.tracee.next();
        let mut word = index as u64;
        match next {
            Next::Mark => actor.state = State::Done,
            Next::Call(call) if call.number == libc::SYS_pidfd_open => {
                // EMFILE: nothing could be found out, so it counts as alive.
                let dead = self.dead.contains(&call.arguments[0]);
                actor.knows_of_a_death |= dead;
                let error = if dead { libc::ESRCH } else { libc::EMFILE };
                actor.tracee.pretend(-i64::from(error));
                word |= (error as u64) << 8;
            }
            Next::Clock => actor.tracee.pretend_time(self.chronicle.steps * 1000),
            // What `/proc` says of a process: nothing either.
            Next::Call(call) if call.number == libc::SYS_openat => {
                actor.tracee.pretend(-i64::from(libc::EMFILE))
            }
            Next::Call(call)
                if call.number == libc::SYS_futex
                    && self.watch.contains(actor.base, call.arguments[0]) =>
            {
                self.futex(index, &call);
                word |= 1 << 32;
            }
            Next::Call(call) if call.number == libc::SYS_futex_waitv => {
                self.wait_on_several(index, &call);
                word |= 1 << 33;
            }
            _ => {
                if !actor.tracee.step() {
                    return Err(format!("life {} ended: {:?}", actor.life, actor.tracee.ended()));
                }
            }
        }
        self.chronicle.fingerprint =
            (self.chronicle.fingerprint ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        Ok(())
    }

    fn futex(&mut self, index: usize, call: &Call) {
        let [address, operation, value, ..] = call.arguments;
        let actor = &mut self.actors[index];
        let offset = address - actor.base;
        if operation as i32 == libc::FUTEX_WAIT {
            if self.watch.word(offset) == value as u32 {
                self.fall_asleep(index, vec![offset]);
            } else {
                actor.tracee.pretend(-i64::from(libc::EAGAIN));
            }
            return;
        }
        assert_eq!(operation as i32, libc::FUTEX_WAKE);
        let mut woken = 0;
        while woken < i64::from(value as i32) && self.wake_one(offset) {
            woken += 1;
        }
        self.actors[index].tracee.pretend(woken);
    }

    fn wait_on_several(&mut self, index: usize, call: &Call) {
        let [waiters, count, ..] = call.arguments;
        let actor = &self.actors[index];
        // Each is the expected value, the address, flags and a reserved word.
        let word = |at: u64| {
            let address = (waiters + 8 * at) as ptrace::AddressType;
            ptrace::read(actor.tracee.pid(), address).expect("its own memory").cast_unsigned()
        };
        let waits = (0..count).map(|number| (word(3 * number), word(3 * number + 1) - actor.base));
        let waits: Vec<(u64, u64)> = waits.collect();
        if waits.iter().all(|&(value, offset)| self.watch.word(offset) == value as u32) {
            self.fall_asleep(index, waits.into_iter().map(|(_, offset)| offset).collect());
        } else {
            actor.tracee.pretend(-i64::from(libc::EAGAIN));
        }
    }

    fn fall_asleep(&mut self, index: usize, queues: Vec<u64>) {
        let actor = &mut self.actors[index];
        (actor.state, actor.queues) = (State::Sleeps, queues);
        self.chronicle.sleeps += 1;
        self.asleep.push_back(index);
    }

    /// Wakes one of those that stand on the queue of this word; false if there is none.
    fn wake_one(&mut self, offset: u64) -> bool {
        let stands = |actor: &Actor| actor.queues.contains(&offset);
        let woken_before = |actor: &Actor| actor.state == State::Runs && stands(actor);
        let lingering = self.actors.iter().position(woken_before);
        let asleep = self.asleep.iter().position(|&sleeper| stands(&self.actors[sleeper]));
        let index = match (lingering, asleep) {
            (Some(index), None) => index,
            (Some(index), Some(_)) if self.dice.once_in(2) => index,
            (_, Some(at)) => {
                let Some(sleeper) = self.asleep.remove(at) else { return false };
                self.end_sleep(sleeper, 0);
                sleeper
            }
            (None, None) => return false,
        };
        self.actors[index].queues.retain(|&queue| queue != offset);
        true
    }

    /// Kills everybody that is left.
    pub fn end(self) -> Chronicle {
        drop(self.actors);
        self.chronicle
    }
}

/// Where the segment's header has its random name, and a name for it that is the same in every run.
const NAME_AT: u64 = 40;
const NAME: u64 = 0x6f66_6673_7072_6e67;

/// A segment that is quickly looked at, with a name that is not random.
pub fn small_segment() -> Segment {
    let (mut number, mut theirs) = std::io::pipe().expect("a pipe");
    // Made by another process, so that this one has never seen its other name.
    let maker = raw_fork(|| {
        let segment = Segment::create(1 << 16).expect("a segment");
        theirs.write_all(&segment.as_raw_fd().to_le_bytes()).expect("somebody listens");
        loop {
            std::thread::park();
        }
    });
    let mut bytes = [0; 4];
    number.read_exact(&mut bytes).expect("a number");
    let path = format!("/proc/{maker}/fd/{}", i32::from_le_bytes(bytes));
    let file = File::options().read(true).write(true).open(path).expect("the segment");
    kill_and_wait(maker);
    file.write_all_at(&NAME.to_ne_bytes(), NAME_AT).expect("writable");
    let segment = Segment::open(&file).expect("a segment");
    assert_eq!(segment.id(), NAME);
    segment
}

/// What takes the place of libc's `getrandom` in this program: the standard library's hash maps
/// begin with its bytes.
///
/// # Safety
/// As that function: `buffer` points to `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: libc::c_uint) -> isize {
    // SAFETY: the caller's promise.
    unsafe { buffer.write_bytes(0x5a, len) };
    len as isize
}
