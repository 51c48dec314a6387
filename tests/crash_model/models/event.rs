//! The event: the crate's `Event` over its words, with processes that set it, clear it, wait for it
//! and wait for one of two, each of which may die.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::event::Event;
use crate::object::block::event::{EventBlock, read_reset};
use crate::object::place::{Object, handle};
use crate::segment::Segment;
use crate::segment::layout::OBJECT;
use crate::segment::region;
use crate::sync::Wait;
use crate::sync::flag::Reset;
use crate::sync::spin::Patience;
use crate::sync::wait::{Obstacle, wait};
use crate::sys::clock::Deadline;
use crate::world::{self, Fate, Local, Note, read};

/// Offset of the flag of an event; `src/object/block/event.rs` asserts where its words lie.
const fn flag(event: usize) -> usize {
    OBJECT as usize + 128 * event
}

/// Offset of the word on which those sleep that wait for it.
const fn raised(event: usize) -> usize {
    flag(event) + 8
}

/// Whose code the waiters run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    /// The crate's `wait` and `wait_any`.
    Crates,
    /// One that looks at the flag and remembers nothing of what it saw before.
    Forgetful,
    /// One that keeps to itself what it was woken for and did not take.
    Selfish,
}

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    One(usize),
    /// The first of both events.
    Any,
}

/// What a process does that sets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sets {
    /// Sets it as often as it is told.
    Times(usize, u64),
    /// Sets and clears it, as often as it is told, and then sets it.
    Pulses(usize, u64),
    /// Waits until somebody is about to sleep, then sets and clears it.
    OnePulse(usize),
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub resets: &'static [Reset],
    /// How often each process waits, and for what.
    pub waits: &'static [(For, u64)],
    pub sets: &'static [Sets],
    pub deaths: usize,
    pub slices: Slices,
    pub preemptions: Option<u64>,
}

impl Setting {
    pub fn model(self) -> Model {
        self.model_with(Waiter::Crates)
    }

    /// A control.
    pub fn with_forgetful_waiters(self) -> Model {
        self.model_with(Waiter::Forgetful)
    }

    /// A control.
    pub fn with_selfish_waiters(self) -> Model {
        self.model_with(Waiter::Selfish)
    }

    fn model_with(self, waiter: Waiter) -> Model {
        let Setting { resets, waits, sets, deaths, slices, preemptions } = self;
        let mut text = format!("{resets:?}, waits {waits:?}, sets {sets:?}");
        if matches!(slices, Slices::Anytime(_)) {
            text += ", slices";
        }
        text += &format!(", {deaths} die");
        if let Some(preemptions) = preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let all_waiters = (1 << waits.len()) - 1;
        let mut processes: Vec<Process> = waits
            .iter()
            .map(|&(what, times)| {
                Process::new("waits", move |local| wait_for(resets, waiter, what, times, local))
            })
            .collect();
        processes
            .extend(sets.iter().map(|&sets| Process::new("sets", move |local| set(sets, local))));
        if !sets.iter().any(|sets| matches!(sets, Sets::OnePulse(_))) {
            let (waiters, others) = (waits.len(), processes.len());
            let over = move |fates: &[Fate]| {
                fates[waiters..others].iter().all(|&fate| fate != Fate::Running)
            };
            processes.push(Process::immortal("sets the rest", over, move |local| {
                set_the_rest(resets.len() as u64, all_waiters, local)
            }));
        }
        let set_up = move || {
            region::lay_out(0, 0);
            for reset in resets {
                drop(match reset {
                    Reset::Manual => Event::new().expect("an event"),
                    Reset::Auto => Event::auto_reset().expect("an event"),
                });
            }
        };
        Model {
            set_up: Box::new(set_up),
            processes,
            deaths,
            slices,
            preemptions,
            ..Model::new("event", text, Watch { resets, waits })
        }
    }
}

fn event(number: usize) -> Event {
    let segment = Segment::commons().expect("a segment");
    Event::open(&segment, handle(number)).expect("an event").with_wait(Wait::Sleep)
}

/// Waits, as often as it is told.
fn wait_for(
    resets: &[Reset],
    waiter: Waiter,
    what: For,
    times: u64,
    [done, ..]: Local,
) -> Option<Local> {
    if done == times {
        return None;
    }
    world::note("waits", 0, 0);
    let events: Vec<usize> = match what {
        For::One(event) => vec![event],
        For::Any => vec![0, 1],
    };
    // Of these it remembers whether they were set meanwhile.
    let manual = |&&event: &&usize| resets[event] == Reset::Manual;
    events.iter().filter(manual).for_each(|&event| world::remember(flag(event)));
    let passed = match (waiter, what) {
        (Waiter::Crates, For::One(number)) => {
            event(number).wait().expect("ours");
            number
        }
        (Waiter::Crates, For::Any) => {
            Event::wait_any(&[&event(0), &event(1)]).expect("both are ours")
        }
        _ => by_hand(waiter, &events),
    };
    world::note("passed", passed as u64, 0);
    Some([done + 1, 0, 0, 0])
}

/// The crate's waiting, in short, with room for mistakes.
fn by_hand(waiter: Waiter, events: &[usize]) -> usize {
    let segment = Segment::commons().expect("a segment");
    let objects: Vec<Object<EventBlock>> = events
        .iter()
        .map(|&event| Object::open(&segment, handle(event), 0, read_reset).expect("an event"))
        .collect();
    let seats: Vec<_> = objects.iter().map(|object| object.enter().expect("ours").seat()).collect();
    let mut before = vec![None; events.len()];
    let mut attempt = || {
        for (index, seat) in seats.iter().enumerate() {
            match seat.block.pass(before[index]) {
                Ok(()) => return Ok(events[index]),
                Err(seen) if waiter == Waiter::Selfish => {
                    before[index].get_or_insert(seen);
                }
                Err(_) => {}
            }
        }
        Err(Obstacle::Nobody)
    };
    if let Ok(passed) = attempt() {
        return passed;
    }
    let raised: Vec<_> = seats.iter().map(|seat| seat.event(seat.block.raised())).collect();
    let waited =
        wait(&raised, Wait::Sleep, &Patience::with_pace(1, 1), Deadline::NEVER, |_| attempt());
    waited.expect("there is no deadline")
}

fn set(sets: Sets, [done, ..]: Local) -> Option<Local> {
    match sets {
        Sets::Times(_, times) if done == times => return None,
        Sets::Times(number, _) => event(number).set().expect("ours"),
        Sets::Pulses(_, pulses) if done == 2 * pulses + 1 => return None,
        Sets::Pulses(number, _) if done % 2 == 0 => event(number).set().expect("ours"),
        Sets::Pulses(number, _) => event(number).clear().expect("ours"),
        Sets::OnePulse(number) => match done {
            0 if read(raised(number)) == 0 => return Some([0; 4]),
            0 => {}
            1 => event(number).set().expect("ours"),
            2 => event(number).clear().expect("ours"),
            _ => return None,
        },
    }
    Some([done + 1, 0, 0, 0])
}

/// Sets whatever is clear, one event after the other, until all waiters have ended: for those that
/// set it have ended, too, or are dead, and of several sets only one counts.
fn set_the_rest(events: u64, waiters: u64, [next, ..]: Local) -> Option<Local> {
    if world::have_ended(waiters) {
        return None;
    }
    let event = event(next as usize);
    if !event.is_set().expect("ours") {
        event.set().expect("ours");
    }
    Some([(next + 1) % events, 0, 0, 0])
}

/// By process: the event that it has taken and not told of yet, and 1, in four bits each.
const TAKEN: usize = 0;
/// By process: the words of both events when it began to wait, a byte each.
const BEGAN: usize = 1;

struct Watch {
    resets: &'static [Reset],
    waits: &'static [(For, u64)],
}

impl Watch {
    fn waits_for(&self, process: usize, event: usize) -> bool {
        match self.waits.get(process) {
            Some((For::One(one), _)) => *one == event,
            Some((For::Any, _)) => true,
            None => false,
        }
    }
}

fn taken(ghost: &Ghost, process: usize) -> u64 {
    ghost[TAKEN] >> (4 * process) & 0xf
}

fn set_taken(ghost: &mut Ghost, process: usize, event: u64) {
    ghost[TAKEN] = ghost[TAKEN] & !(0xf << (4 * process)) | event << (4 * process);
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, _: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        let Touch { process, before, after, .. } = touch;
        let Some(event) = (0..self.resets.len()).find(|&event| flag(event) == touch.offset) else {
            return Ok(());
        };
        if before == after {
            return Ok(());
        }
        let is_waiter = process < self.waits.len();
        match (before & 1, self.resets[event]) {
            _ if after != before + 1 => Err(format!("from {before} to {after}")),
            (0, _) if is_waiter => Err("a waiter has set it".into()),
            (0, _) => Ok(()),
            (_, Reset::Auto) if self.waits_for(process, event) => {
                if taken(ghost, process) != 0 {
                    return Err("it took two".into());
                }
                set_taken(ghost, process, event as u64 + 1);
                Ok(())
            }
            (_, Reset::Manual) if !is_waiter => Ok(()),
            _ => Err("somebody has cleared it who should not".into()),
        }
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let words = |event| if event < self.resets.len() { view.read(flag(event)) } else { 0 };
        if note.what == "waits" {
            ghost[BEGAN + process] = words(0) << 8 | words(1);
            return Ok(());
        }
        let event = note.a as usize;
        match self.resets[event] {
            Reset::Auto if taken(ghost, process) != note.a + 1 => {
                Err(format!("it passed by {event} and has not taken it"))
            }
            Reset::Auto => {
                set_taken(ghost, process, 0);
                Ok(())
            }
            Reset::Manual => {
                let (began, now) =
                    (ghost[BEGAN + process] >> (8 * (1 - event)) & 0xff, words(event));
                if began & 1 == 1 || began != now {
                    Ok(())
                } else {
                    Err("nobody has set it".into())
                }
            }
        }
    }

    fn killed(&self, process: usize, _: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        set_taken(ghost, process, 0);
        Ok(())
    }

    fn could_go_on(&self, process: usize) -> bool {
        (0..self.resets.len())
            .any(|event| self.waits_for(process, event) && read(flag(event)) & 1 == 1)
    }

    fn at_the_end(&self, _fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        if ghost[TAKEN] != 0 {
            return Err(format!("taken, and nobody has passed: {:#x}", ghost[TAKEN]));
        }
        for number in 0..self.resets.len() {
            let event = event(number);
            event.clear().map_err(|error| format!("{error:?}"))?;
            if event.try_wait().is_ok() {
                return Err("it was cleared and is set".into());
            }
            event.set().map_err(|error| format!("{error:?}"))?;
            event.try_wait().map_err(|error| format!("{error:?}"))?;
            if event.try_wait().is_ok() != (self.resets[number] == Reset::Manual) {
                return Err("it is not reset as it should be".into());
            }
        }
        Ok(())
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match (0..self.resets.len()).find(|&event| offset < flag(event + 1)) {
            Some(event) if offset == flag(event) => {
                let state = if value & 1 == 1 { "set" } else { "clear" };
                format!("event {event}: {value}, {state}")
            }
            Some(event) => format!("raised {event}: {}+{}", value >> 3, value & 7),
            None => format!("[{offset:#x}] {value}"),
        }
    }
}

/// One process that waits for one that sets the event.
pub const SMALLEST: Setting = Setting {
    resets: &[Reset::Auto],
    waits: &[(For::One(0), 1)],
    sets: &[Sets::Times(0, 1)],
    deaths: 1,
    slices: Slices::LastResort,
    preemptions: None,
};

/// Two events with automatic reset: one process waits for both, another one for the second.
pub const TWO: Setting = Setting {
    resets: &[Reset::Auto; 2],
    waits: &[(For::Any, 1), (For::One(1), 1)],
    sets: &[Sets::Times(0, 1), Sets::Times(1, 1)],
    deaths: 0,
    preemptions: Some(3),
    ..SMALLEST
};

/// A gate that opens for a moment, as soon as somebody waits.
pub const PULSE: Setting =
    Setting { resets: &[Reset::Manual], sets: &[Sets::OnePulse(0)], deaths: 0, ..SMALLEST };

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    const MANUAL: &[Reset] = &[Reset::Manual];
    const BOTH: &[Reset] = &[Reset::Auto, Reset::Manual];
    const ONE: For = For::One(0);
    let mut settings = vec![
        SMALLEST,
        Setting { waits: &[(ONE, 2)], sets: &[Sets::Times(0, 2)], deaths: 2, ..SMALLEST },
        Setting {
            waits: &[(ONE, 1); 2],
            sets: &[Sets::Times(0, 1); 2],
            preemptions: Some(2),
            ..SMALLEST
        },
        PULSE,
        Setting { resets: MANUAL, sets: &[Sets::Pulses(0, 1)], ..SMALLEST },
        TWO,
        Setting { deaths: 1, preemptions: Some(2), ..TWO },
        Setting {
            resets: BOTH,
            waits: &[(For::Any, 2)],
            sets: &[Sets::Times(0, 1), Sets::Pulses(1, 1)],
            preemptions: Some(2),
            ..SMALLEST
        },
    ];
    if all {
        settings.push(Setting {
            waits: &[(ONE, 1); 2],
            sets: &[Sets::Times(0, 2)],
            deaths: 2,
            ..SMALLEST
        });
        settings.push(Setting {
            resets: MANUAL,
            waits: &[(ONE, 1); 2],
            sets: &[Sets::Pulses(0, 1)],
            deaths: 2,
            ..SMALLEST
        });
        settings.push(Setting {
            resets: BOTH,
            waits: &[(For::Any, 2)],
            sets: &[Sets::Times(0, 1), Sets::Pulses(1, 1)],
            ..SMALLEST
        });
        let crowd = Setting { preemptions: Some(2), ..SMALLEST };
        settings.push(Setting { waits: &[(ONE, 1); 3], sets: &[Sets::Times(0, 3)], ..crowd });
        settings.push(Setting {
            waits: &[(ONE, 2), (ONE, 1)],
            sets: &[Sets::Times(0, 2), Sets::Times(0, 1)],
            ..crowd
        });
        settings.push(Setting {
            waits: &[(ONE, 1); 2],
            sets: &[Sets::Times(0, 2)],
            slices: Slices::Anytime(1),
            ..crowd
        });
        let two = Setting { preemptions: Some(2), ..TWO };
        settings.push(Setting { deaths: 2, preemptions: Some(3), ..two });
        settings.push(Setting { waits: &[(For::Any, 1); 2], deaths: 1, ..two });
        settings.push(Setting {
            waits: &[(For::Any, 1), (ONE, 1), (For::One(1), 1)],
            preemptions: Some(1),
            deaths: 1,
            ..two
        });
        settings.push(Setting { deaths: 1, slices: Slices::Anytime(1), ..two });
        settings.push(Setting {
            resets: BOTH,
            waits: &[(For::Any, 1), (For::One(1), 1)],
            sets: &[Sets::Times(0, 1), Sets::Pulses(1, 1)],
            deaths: 2,
            ..crowd
        });
    }
    settings.into_iter().map(Setting::model).collect()
}
