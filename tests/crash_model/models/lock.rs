//! The lock: the crate's `Lock` over its word, with owners that die, waiters that die, some that
//! die while they repair, and a reaper that dies.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::lock::{Lock, TryLockError};
use crate::models::recover;
use crate::object::kind::Kind;
use crate::object::place::HANDLE;
use crate::segment::Segment;
use crate::segment::layout::OBJECT;
use crate::segment::region;
use crate::sync::Wait;
use crate::sync::lock::LockState;
use crate::world::{self, Access, Fate, Local, Note};

const WORD: usize = OBJECT as usize;
const FREED: usize = OBJECT as usize + 8;
const TURNS: usize = OBJECT as usize + 12;
const VALUE: usize = OBJECT as usize + 128;

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How often each process takes the lock.
    pub turns: [u64; 3],
    pub processes: usize,
    /// `try_lock`, again and again.
    pub tries: bool,
    /// Whoever is refused repairs the value and says so; else it takes the lock as it is, and
    /// leaves it so.
    pub repair: bool,
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
            (self.repair, ", repair"),
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
                let (turns, tries, repair) = (self.turns[process], self.tries, self.repair);
                Process::new("locks", move |local| take_a_turn(turns, tries, repair, local))
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

/// Takes the lock, makes the value odd and even again, and gives the lock up. One that is refused
/// comes to repair in its next step.
fn take_a_turn(turns: u64, tries: bool, repair: bool, [turn, refused, ..]: Local) -> Option<Local> {
    if turn == turns {
        return None;
    }
    let lock = lock();
    if refused == 1 {
        let recovered =
            if tries { lock.try_recover() } else { lock.recover().map_err(TryLockError::from) };
        let guard = match recovered {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => return Some([turn, 1, 0, 0]),
            Err(_) => return broken(),
        };
        match guard.state() {
            LockState::Clean => world::note("to repair: clean", 0, 0),
            LockState::OwnerDied => world::note("to repair: owner died", 0, 0),
            LockState::Poisoned => return broken(),
        }
        make_odd_and_even((&raw const *guard).addr());
        if repair {
            let guard = guard.mark_repaired();
            world::note("repaired", 0, 0);
            drop(guard);
        }
        return Some([turn + 1, 0, 0, 0]);
    }
    let locked = if tries { lock.try_lock() } else { lock.lock().map_err(TryLockError::from) };
    match locked {
        Ok(guard) => {
            world::note("locked", 0, 0);
            make_odd_and_even((&raw const *guard).addr());
            Some([turn + 1, 0, 0, 0])
        }
        Err(TryLockError::OwnerDied) => {
            world::note("refused", 0, 0);
            Some([turn, 1, 0, 0])
        }
        Err(TryLockError::WouldBlock) => Some([turn, 0, 0, 0]),
        Err(_) => broken(),
    }
}

fn make_odd_and_even(value: usize) {
    world::access(value, Access::Store(1));
    if world::access(value, Access::Load) != Some(1) {
        world::note("somebody else was there", 0, 0);
    }
    world::access(value, Access::Store(0));
}

fn broken() -> Option<Local> {
    world::note("broken", 0, 0);
    None
}

fn clear_up(dead: usize) {
    recover(Kind::Lock.with::<u64>(), 136, dead);
}

/// An owner was killed, and nobody has repaired the value since.
const TO_REPAIR: usize = 0;
/// An owner was killed at some time.
const EVER: usize = 1;

struct Watch;

/// Who has the lock, by its word.
fn owner(word: u64) -> Option<usize> {
    (word & 1 << 2 != 0).then_some((word >> 3 & 0x3ff) as usize)
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, _: &mut Ghost) -> Result<(), String> {
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
        match (note.what, ghost[TO_REPAIR]) {
            // These have the lock, so nothing changes under their hands.
            ("locked" | "to repair: clean", 0) | ("to repair: owner died", 1) => Ok(()),
            ("repaired", _) => {
                ghost[TO_REPAIR] = 0;
                Ok(())
            }
            // Somebody may have repaired it since.
            ("refused", _) if ghost[EVER] == 1 => Ok(()),
            (what, to_repair) => Err(format!("{what}, with {to_repair} to repair")),
        }
    }

    fn killed(&self, process: usize, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        if owner(view.read(WORD)) == Some(process) {
            ghost[TO_REPAIR] = 1;
            ghost[EVER] = 1;
        }
        Ok(())
    }

    fn could_go_on(&self, _process: usize) -> bool {
        owner(world::read(WORD)).is_none()
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        for dead in (0..fates.len()).filter(|&process| fates[process] == Fate::Dead) {
            clear_up(dead);
        }
        let lock = lock();
        let refused = lock.try_lock().err();
        if refused.is_some_and(|error| error != TryLockError::OwnerDied) {
            return Err(format!("nobody can take it: {refused:?}"));
        }
        if u64::from(refused.is_some()) != ghost[TO_REPAIR] {
            return Err(format!("{refused:?}, with {} to repair", ghost[TO_REPAIR]));
        }
        match lock.try_recover() {
            Ok(guard) => drop(guard.mark_repaired()),
            Err(error) => return Err(format!("nobody can repair it: {error:?}")),
        }
        if lock.try_lock().is_ok() { Ok(()) } else { Err("it does not become clean".into()) }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            VALUE => format!("value {value}"),
            FREED => format!("freed {}+{}", value >> 3, value & 7),
            TURNS => format!("turns {}", value as u32 as i32),
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
        repair: false,
        reaper: false,
        deaths: 2,
        slices: Slices::LastResort,
        preemptions: None,
    };
    let mut settings = vec![
        Setting { tries: true, slices: Slices::Anytime(2), ..base },
        base,
        Setting { turns: [2, 2, 0], ..base },
        Setting { turns: [2, 2, 0], repair: true, ..base },
        Setting { reaper: true, deaths: 3, ..base },
        Setting { slices: Slices::Anytime(2), reaper: true, deaths: 3, ..base },
    ];
    if all {
        let crowd = Setting { processes: 3, preemptions: Some(3), ..base };
        settings.push(Setting { deaths: 3, ..crowd });
        settings.push(Setting { deaths: 3, repair: true, ..crowd });
        settings.push(Setting { deaths: 3, slices: Slices::Anytime(2), ..crowd });
        settings.push(Setting { reaper: true, deaths: 2, ..crowd });
        settings.push(Setting { turns: [2, 2, 1], deaths: 1, ..crowd });
    }
    settings.into_iter().map(Setting::model).collect()
}
