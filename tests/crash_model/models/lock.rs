//! The lock: the crate's `Lock` over its word, with owners that die, waiters that die, and a reaper
//! that dies.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::lock::{Lock, LockError, LockGuard, TryLockError};
use crate::models::recover;
use crate::object::clear::Kind;
use crate::object::holding::{HANDLE, kind_of};
use crate::segment::Segment;
use crate::segment::layout::OBJECT;
use crate::segment::region;
use crate::sync::Wait;
use crate::world::{self, Access, Fate, Local, Note};

const WORD: usize = OBJECT as usize;
const FREED: usize = OBJECT as usize + 8;
const VALUE: usize = OBJECT as usize + 128;

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How often each process takes the lock.
    pub turns: [u64; 3],
    pub processes: usize,
    /// `try_lock`, again and again.
    pub tries: bool,
    /// Successors declare the value to be good.
    pub recover: bool,
    /// One that clears up after the dead as the reaper does.
    pub reaper: bool,
    pub deaths: usize,
    pub slices: Slices,
    pub preemptions: Option<u64>,
}

impl Setting {
    pub fn model(self) -> Model {
        let mut text = format!(
            "{} of {}, {:?}",
            if self.tries { "try" } else { "block" },
            self.processes,
            &self.turns[..self.processes]
        );
        for (on, what) in [
            (self.recover, ", recover"),
            (self.reaper, ", reaper"),
            (self.slices == Slices::Never, ", no slices"),
        ] {
            if on {
                text += what;
            }
        }
        if matches!(self.slices, Slices::Anytime(_)) && !self.tries {
            text += ", slices";
        }
        text += &format!(", {} die", self.deaths);
        if let Some(preemptions) = self.preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let mut processes: Vec<Process> = (0..self.processes)
            .map(|process| {
                let (turns, tries, recover) = (self.turns[process], self.tries, self.recover);
                Process::new("locks", move |local| take_a_turn(turns, tries, recover, local))
            })
            .collect();
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
        let set_up = || {
            region::lay_out(0, 0);
            drop(Lock::new(0_u64).expect("a lock"));
        };
        let Setting { deaths, slices, preemptions, .. } = self;
        Model {
            set_up: Box::new(set_up),
            processes,
            deaths,
            slices,
            preemptions,
            ..Model::new("lock", text, Watch)
        }
    }
}

fn lock() -> Lock<u64> {
    let segment = Segment::commons().expect("a segment");
    Lock::open(&segment, HANDLE).expect("a lock").with_wait(Wait::Sleep)
}

/// Takes the lock, makes the value odd and even again, and gives the lock up.
fn take_a_turn(turns: u64, tries: bool, recover: bool, [turn, ..]: Local) -> Option<Local> {
    if turn == turns {
        return None;
    }
    let lock = lock();
    let guard = if tries {
        match lock.try_lock() {
            Ok(guard) => told("clean", guard),
            Err(TryLockError::OwnerDied(guard)) => told("owner died", guard),
            Err(TryLockError::Poisoned(guard)) => told("poisoned", guard),
            Err(TryLockError::WouldBlock) => return Some([turn, 0, 0, 0]),
            Err(TryLockError::WouldDeadlock | TryLockError::Broken(_)) => return broken(),
        }
    } else {
        match lock.lock() {
            Ok(guard) => told("clean", guard),
            Err(LockError::OwnerDied(guard)) => told("owner died", guard),
            Err(LockError::Poisoned(guard)) => told("poisoned", guard),
            Err(LockError::WouldDeadlock | LockError::Broken(_)) => return broken(),
        }
    };
    let value = (&raw const *guard).addr();
    world::access(value, Access::Store(1));
    if world::access(value, Access::Load) != Some(1) {
        world::note("somebody else was there", 0, 0);
    }
    world::access(value, Access::Store(0));
    drop(if recover { guard.recover() } else { guard });
    Some([turn + 1, 0, 0, 0])
}

fn told<'a>(what: &'static str, guard: LockGuard<'a, u64>) -> LockGuard<'a, u64> {
    world::note(what, 0, 0);
    guard
}

fn broken() -> Option<Local> {
    world::note("broken", 0, 0);
    None
}

fn clear_up(dead: usize) {
    recover(kind_of::<u64>(Kind::Lock), 136, dead);
}

/// Owners that were killed and whose successor was not told yet.
const UNTOLD: usize = 0;
/// The lock is or will be poisoned.
const POISONED: usize = 1;

struct Watch;

/// Who has the lock, by its word.
fn owner(word: u64) -> Option<usize> {
    (word & 1 << 2 != 0).then_some((word >> 3 & 0x3ff) as usize)
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        match touch.offset {
            VALUE => {
                let mine = owner(view.read(WORD)) == Some(touch.process);
                if mine {
                    Ok(())
                } else {
                    Err("the value was touched by somebody who does not have the lock".into())
                }
            }
            WORD if touch.before != touch.after => {
                let (before, after) = (owner(touch.before), owner(touch.after));
                if let Some(before) = before
                    && before != touch.process
                    && after != Some(before)
                    && !view.is_dead(before)
                {
                    return Err("a living owner lost the lock".into());
                }
                if after.is_some_and(|after| Some(after) != before && after != touch.process) {
                    return Err("the lock was given to somebody else".into());
                }
                // What the word says of its past is for the successor: told by the notes.
                if before == Some(touch.process) && after.is_none() {
                    ghost[POISONED] = u64::from(touch.after & 1 != 0);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn noted(
        &self,
        _process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let (untold, poisoned) = (ghost[UNTOLD], ghost[POISONED]);
        match note.what {
            "owner died" if untold == 1 => {
                ghost[UNTOLD] = 0;
                ghost[POISONED] = 1;
                Ok(())
            }
            "poisoned" if untold == 0 && poisoned == 1 => Ok(()),
            "clean" if untold == 0 && poisoned == 0 => Ok(()),
            what => Err(format!(
                "told {what}, with {untold} dead owners that nobody was told of, poisoned {poisoned}"
            )),
        }
    }

    fn killed(&self, process: usize, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        // Killed before it could say that it was told, it counts as told: the next death is another
        // one.
        if owner(view.read(WORD)) == Some(process) {
            ghost[UNTOLD] = 1;
        }
        Ok(())
    }

    fn could_go_on(&self, _process: usize) -> bool {
        owner(world::read(WORD)).is_none()
    }

    fn at_the_end(&self, fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        for dead in (0..fates.len()).filter(|&process| fates[process] == Fate::Dead) {
            clear_up(dead);
        }
        let lock = lock();
        for _ in 0..2 {
            match lock.try_lock() {
                Ok(guard) => drop(guard),
                Err(TryLockError::OwnerDied(guard) | TryLockError::Poisoned(guard)) => {
                    drop(guard.recover())
                }
                Err(error) => return Err(format!("nobody can take it: {error:?}")),
            }
        }
        if lock.try_lock().is_ok() { Ok(()) } else { Err("it does not become clean".into()) }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            VALUE => format!("value {value}"),
            FREED => format!("freed {}+{}", value >> 3, value & 7),
            _ => {
                let held = owner(value).map_or("free".into(), |owner| format!("held by {owner}"));
                let flags = [(1 << 1, " died"), (1, " poisoned")];
                flags
                    .iter()
                    .filter(|(bit, _)| value & bit != 0)
                    .fold(format!("lock {held}"), |text, (_, flag)| text + flag)
            }
        }
    }
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let base = Setting {
        turns: [1, 1, 1],
        processes: 2,
        tries: false,
        recover: false,
        reaper: false,
        deaths: 2,
        slices: Slices::LastResort,
        preemptions: None,
    };
    let mut settings = vec![
        Setting { tries: true, slices: Slices::Anytime(2), ..base },
        base,
        Setting { turns: [2, 2, 0], ..base },
        Setting { turns: [2, 2, 0], recover: true, ..base },
        Setting { reaper: true, deaths: 3, ..base },
        Setting { slices: Slices::Anytime(2), reaper: true, deaths: 3, ..base },
    ];
    if all {
        let crowd = Setting { processes: 3, preemptions: Some(3), ..base };
        settings.push(Setting { deaths: 3, ..crowd });
        settings.push(Setting { deaths: 3, recover: true, ..crowd });
        settings.push(Setting { deaths: 3, slices: Slices::Anytime(2), ..crowd });
        settings.push(Setting { reaper: true, deaths: 2, ..crowd });
        settings.push(Setting { turns: [2, 2, 1], deaths: 1, ..crowd });
    }
    settings.into_iter().map(Setting::model).collect()
}
