//! What the checker must find broken: rings and locks as others build them, our own with mistakes
//! that we made, and the crate's code in a world that does not keep its promises. And a ring of our
//! own without a mistake, in which it must find nothing.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, View};
use crate::models::queue::{self, Calls, Close};
use crate::models::{
    arguments, boxes, ends, event, extents, flight, lock, parcel, queue::Watch, result, spsc, value,
};
use crate::primitive::AtomicU64;
use crate::queue::OnReceiverDeath;
use crate::ring::position::{Phase, Position, SlotWord, ahead};
use crate::segment::layout::FREE_WORDS;
use crate::segment::region::{self, Mapping};
use crate::world::{self, Access, Local, Note, at};

use crate::primitive::Ordering::SeqCst;

fn word(offset: usize) -> &'static AtomicU64 {
    let mapping = Mapping::new(0);
    mapping
        .region()
        .and_then(|region| region.forever(offset as u64))
        .unwrap_or_else(|| panic!("no word at {offset}"))
}

fn free_word(index: usize) -> &'static AtomicU64 {
    word(FREE_WORDS as usize + 8 * index)
}

/// Nothing is checked but that everybody comes to an end.
struct Nothing;

impl Monitor for Nothing {
    fn noted(
        &self,
        process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "in" if ghost[0] != 0 => Err(format!("{process} and {} are both in", ghost[0] - 1)),
            "in" => {
                ghost[0] = process as u64 + 1;
                Ok(())
            }
            _ => {
                ghost[0] = 0;
                Ok(())
            }
        }
    }

    fn killed(&self, process: usize, _view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        if ghost[0] == process as u64 + 1 {
            ghost[0] = 0;
        }
        Ok(())
    }

    fn could_go_on(&self, _process: usize) -> bool {
        free_word(1).load(SeqCst) != 0
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        format!("word {}: {value}", (offset - FREE_WORDS as usize) / 8)
    }
}

fn model(what: &str, deaths: usize, processes: Vec<Process>) -> Model {
    Model {
        set_up: Box::new(|| region::lay_out(0, 0)),
        processes,
        deaths,
        ..Model::new("control", what.into(), Nothing)
    }
}

/// A ring that takes a position first and says later, or never, whose it is.
///
/// Source: Vyukov, "Bounded MPMC queue", 1024cores.net.
mod vyukov {
    use super::*;

    const CAPACITY: u64 = 2;

    fn sequence(position: u64) -> &'static AtomicU64 {
        free_word(2 + (position % CAPACITY) as usize)
    }

    fn claim(index: usize, ready: u64) -> Option<u64> {
        let position = free_word(index).load(SeqCst);
        // Sequences begin at 0 here, not at their index.
        let expected = position / CAPACITY * 2 + ready;
        let free = sequence(position).load(SeqCst) == expected;
        (free && free_word(index).compare_exchange(position, position + 1, SeqCst, SeqCst).is_ok())
            .then_some(position)
    }

    fn send(messages: u64, [sent, ..]: Local) -> Option<Local> {
        if sent == messages {
            return None;
        }
        let Some(position) = claim(0, 0) else {
            return Some([sent, 0, 0, 0]);
        };
        sequence(position).store(position / CAPACITY * 2 + 1, SeqCst);
        Some([sent + 1, 0, 0, 0])
    }

    /// Receives until all senders have ended and the ring has nothing more.
    fn receive(senders: u64) -> Option<Local> {
        let ended = world::have_ended(senders);
        let Some(position) = claim(1, 1) else {
            let empty = free_word(0).load(SeqCst) == free_word(1).load(SeqCst);
            return if ended && empty { None } else { Some([0; 4]) };
        };
        sequence(position).store((position / CAPACITY + 1) * 2, SeqCst);
        Some([0; 4])
    }

    pub fn model(deaths: usize) -> Model {
        let processes = vec![
            Process::new("sender", |local| send(3, local)),
            Process::new("sender", |local| send(1, local)),
            Process { mortal: false, ..Process::new("receiver", |_| receive(0b11)) },
        ];
        super::model(&format!("a Vyukov ring, {deaths} die"), deaths, processes)
    }
}

/// A lock that does not say who has it.
fn lock_without_owner(deaths: usize) -> Model {
    let take = |[turn, ..]: Local| {
        if turn == 2 {
            return None;
        }
        if free_word(0).compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            return Some([turn, 0, 0, 0]);
        }
        world::note("in", 0, 0);
        free_word(1).store(world::me() as u64, SeqCst);
        world::note("out", 0, 0);
        free_word(0).store(0, SeqCst);
        Some([turn + 1, 0, 0, 0])
    };
    model(
        &format!("a lock without owner, {deaths} die"),
        deaths,
        vec![Process::new("locks", take), Process::new("locks", take)],
    )
}

/// A lock that is looked at and then taken.
fn lock_in_two_steps() -> Model {
    let take = |_: Local| {
        if free_word(0).load(SeqCst) != 0 {
            return Some([0; 4]);
        }
        free_word(0).store(1, SeqCst);
        world::note("in", 0, 0);
        free_word(1).store(world::me() as u64, SeqCst);
        world::note("out", 0, 0);
        free_word(0).store(0, SeqCst);
        None
    };
    model(
        "a lock taken in two steps",
        0,
        vec![Process::new("locks", take), Process::new("locks", take)],
    )
}

/// A sleeper that looks before it says that it sleeps, and not after.
fn sleeper_that_does_not_look_again() -> Model {
    let processes = vec![
        Process::new("sleeper", |_| {
            if free_word(1).load(SeqCst) == 0 {
                free_word(0).store(1, SeqCst);
                world::sleep(at(FREE_WORDS as usize), 1);
                return Some([0; 4]);
            }
            None
        }),
        Process::new("waker", |_| {
            free_word(1).store(1, SeqCst);
            if free_word(0).load(SeqCst) != 0 {
                world::wake(at(FREE_WORDS as usize), 1);
            }
            None
        }),
    ];
    model("a sleeper that does not look again", 0, processes)
}

/// A mistake in a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The jump rule of our first version: `EMPTY(L)` is taken to say that everything up to
    /// `(L-1, i)` was read.
    JumpsTooFar,
    /// The hint is compared with the place where the walk is, not with the one where it began.
    ComparesWithHere,
    /// The slot of the dead is taken by a store.
    RecoversByStore,
}

fn slot(index: u64) -> &'static AtomicU64 {
    word(queue::SLOTS + index as usize * queue::STRIDE)
}

/// A receiver of the crate's queue, in short, with room for mistakes. Gives the slot that it has
/// claimed.
fn claim_read(capacity: u64, mistake: Mistake) -> Option<(u64, SlotWord)> {
    let hint = || Position::from_bits(word(queue::HEAD).load(SeqCst));
    let mut head = hint();
    let mut at = head;
    loop {
        let seen = SlotWord::from_bits(slot(at.index()).load(SeqCst));
        let ahead = ahead(seen, at);
        match (ahead, seen.phase()) {
            (0, Phase::Full) => {
                let reading = SlotWord::new(at.lap(), Phase::Reading, world::me() as u32);
                if slot(at.index())
                    .compare_exchange(seen.to_bits(), reading.to_bits(), SeqCst, SeqCst)
                    .is_ok()
                {
                    word(queue::HEAD).store(at.next(capacity).to_bits(), SeqCst);
                    return Some((at.index(), reading));
                }
            }
            (0, Phase::Writing) => {
                if world::is_dead(seen.owner() as usize) {
                    let empty = seen.next_lap().to_bits();
                    if mistake == Mistake::RecoversByStore {
                        slot(at.index()).store(empty, SeqCst);
                    } else {
                        let _ = slot(at.index()).compare_exchange(
                            seen.to_bits(),
                            empty,
                            SeqCst,
                            SeqCst,
                        );
                    }
                }
                return None;
            }
            (0, Phase::Empty) | (-1, Phase::Reading) => {
                let now = hint();
                let before = if mistake == Mistake::ComparesWithHere { at } else { head };
                if now == before {
                    return None;
                }
                (head, at) = (now, now);
            }
            (0, Phase::Reading) => at = at.next(capacity),
            (1.., phase) => {
                let done = match phase {
                    Phase::Reading => seen.lap(),
                    Phase::Empty if ahead > 1 && mistake != Mistake::JumpsTooFar => seen.lap() - 2,
                    _ => seen.lap() - 1,
                };
                at = Position::new(done, at.index()).next(capacity);
            }
            _ => {
                // The crate calls the queue corrupt.
                world::note("broken", at.to_bits(), seen.to_bits());
                return None;
            }
        }
    }
}

fn receive(capacity: u64, mistake: Mistake, senders: u64, [ended, ..]: Local) -> Option<Local> {
    let Some((index, reading)) = claim_read(capacity, mistake) else {
        return if ended != 0 { None } else { Some([world::have_ended(senders).into(), 0, 0, 0]) };
    };
    let payload = at(queue::SLOTS + index as usize * queue::STRIDE + queue::PAYLOAD);
    let value = world::access(payload, Access::Load).unwrap_or(0);
    world::note("received", value, 0);
    slot(index).store(reading.next_lap().to_bits(), SeqCst);
    Some([ended, 0, 0, 0])
}

/// The crate's senders, with receivers of our own.
fn mistaken(mistake: Mistake, deaths: usize) -> Model {
    let (messages, aborts) = match mistake {
        Mistake::None | Mistake::JumpsTooFar => ([4, 0], Some(3)),
        Mistake::ComparesWithHere => ([1, 0], None),
        Mistake::RecoversByStore => ([2, 2], None),
    };
    let senders = if messages[1] == 0 { 1 } else { 2 };
    let setting = queue::Setting {
        close: Close::Never,
        aborts,
        ..queue::Setting::new(2, OnReceiverDeath::Drop, Calls::Try, &messages[..senders], 2)
    };
    let mut processes = Vec::new();
    for (sender, count) in messages.into_iter().take(senders).enumerate() {
        let first = 1 + messages[..sender].iter().sum::<u64>();
        processes.push(Process::new("sender", move |local| {
            queue::send(Calls::Try, Some(first), count, aborts, local)
        }));
    }
    for _ in 0..if mistake == Mistake::ComparesWithHere { 1 } else { 2 } {
        let all = (1 << senders) - 1;
        // A receiver that dies takes more than ours know how to recover.
        processes.push(Process {
            mortal: false,
            ..Process::new("receiver", move |local| receive(2, mistake, all, local))
        });
    }
    let watch = Watch::of(&setting);
    let what = format!("our ring, mistake {mistake:?}, {deaths} die, 3 preemptions");
    Model {
        set_up: Box::new(move || setting.set_up()),
        processes,
        deaths,
        preemptions: Some(3),
        ..Model::new("control", what, watch)
    }
}

fn renamed(model: Model, what: &str) -> Model {
    Model { object: "control", configuration: what.into(), ..model }
}

/// Models, each with what its violation must say; those in which nothing must be found, with
/// nothing.
pub fn models() -> Vec<(Model, Option<&'static str>)> {
    let queue = |calls, messages| queue::Setting {
        deaths: 1,
        ..queue::Setting::new(1, OnReceiverDeath::Drop, calls, &[messages], 1)
    };
    let lock = lock::Setting {
        turns: [1, 1, 0],
        processes: 2,
        tries: false,
        repair: false,
        reaper: false,
        deaths: 1,
        slices: Slices::Never,
        preemptions: None,
    };
    let mut models = vec![
        (vyukov::model(0), None),
        (vyukov::model(1), Some("stuck")),
        (super::peers::double_fork(true), Some("the living lost it")),
        (lock_without_owner(0), None),
        (lock_without_owner(1), Some("stuck")),
        (lock_in_two_steps(), Some("are both in")),
        (sleeper_that_does_not_look_again(), Some("lost wake-up")),
        (mistaken(Mistake::None, 0), None),
        (mistaken(Mistake::JumpsTooFar, 0), Some("broken")),
        (mistaken(Mistake::ComparesWithHere, 1), Some("does not end")),
        (mistaken(Mistake::RecoversByStore, 1), Some("slot")),
        (
            renamed(
                Model { slandered: Some(0), ..queue(Calls::Try, 1).model() },
                "the queue, a living sender called dead",
            ),
            Some("a living sender lost its slot"),
        ),
        (
            renamed(
                Model { slandered: Some(1), ..queue(Calls::Try, 2).model() },
                "the queue, a living receiver called dead",
            ),
            Some("a living receiver lost its message"),
        ),
        (
            renamed(
                Model { slices: Slices::Never, ..queue(Calls::Block, 1).model() },
                "the queue, sleeping without slices",
            ),
            Some("stuck"),
        ),
        (renamed(lock.model(), "the lock, sleeping without slices"), Some("stuck")),
        (
            renamed(
                Model { slandered: Some(0), slices: Slices::Anytime(2), ..lock.model() },
                "the lock, a living owner called dead",
            ),
            Some("a living owner lost the lock"),
        ),
        (
            renamed(
                value::SMALLEST.with_mistaken_readers(),
                "the value, read without a second look at the sequence",
            ),
            Some("half of a change"),
        ),
        (
            renamed(
                Model {
                    slandered: Some(0),
                    slices: Slices::Anytime(2),
                    ..value::Setting {
                        updates: [1, 1, 0],
                        writers: 2,
                        readers: 0,
                        ..value::SMALLEST
                    }
                    .model()
                },
                "the value, a living writer called dead",
            ),
            Some("a living writer lost its turn"),
        ),
        (
            renamed(
                extents::SMALLEST.with_hasty_writers(),
                "extents, named before the file is long enough",
            ),
            Some("the file ends before a group"),
        ),
        (
            renamed(extents::FULL.with_sparing_writers(), "extents, with a log without pages"),
            Some("has no page"),
        ),
        (
            renamed(
                extents::SMALLEST.with_blind_writers(),
                "extents, given without a look at what came in between",
            ),
            Some("two entries for the group"),
        ),
        (
            renamed(
                Model { slices: Slices::Never, ..event::SMALLEST.model() },
                "the event, sleeping without slices",
            ),
            Some("stuck"),
        ),
        (
            renamed(
                event::PULSE.with_forgetful_waiters(),
                "the event, waited for without a memory of how it was",
            ),
            Some("lost wake-up"),
        ),
        (
            renamed(
                event::TWO.with_selfish_waiters(),
                "two events, waited for without passing on a wake-up",
            ),
            Some("lost wake-up"),
        ),
    ];
    models.extend(
        super::heap::controls()
            .into_iter()
            .chain(parcel::controls())
            .chain(boxes::controls())
            .chain(flight::controls())
            .chain(spsc::controls())
            .chain(ends::controls())
            .chain(result::controls())
            .chain(arguments::controls())
            .map(|(model, what, expected)| (renamed(model, what), expected)),
    );
    models
}
