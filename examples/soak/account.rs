//! The results, object by object.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::{Arena, Object};
use crate::ledger::Stretch;

/// The figures of one object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Operations that came to an end.
    pub operations: u64,
    /// Processes killed, stopped for a while, and run into a limit.
    pub kills: u64,
    pub stops: u64,
    pub limits: u64,
    /// Locks whose owner died; messages lost with their receiver, and delivered again.
    pub owner_died: u64,
    pub lost: u64,
    pub redelivered: u64,
    /// Messages that did not come, beyond those that dead receivers may have had in hand.
    pub missing: u64,
    /// Values that nobody wrote, and claims that were taken from the living.
    pub torn: u64,
    pub twice: u64,
    pub disorder: u64,
    /// Processes that did nothing for seconds although nobody was stopped.
    pub hung: u64,
    /// Processes that ended in a way that nobody wanted.
    pub failed: u64,
    /// Messages that dead receivers may have had in hand.
    pub in_hand: u64,
    /// Messages that were noted as received.
    pub received: u64,
}

impl Figures {
    /// Everything that must be 0.
    pub fn faults(&self) -> u64 {
        self.missing + self.torn + self.twice + self.disorder + self.hung + self.failed
    }
}

/// What a run cannot do without.
pub fn idle(account: &Account) -> impl Iterator<Item = String> {
    let sum = |figure: fn(&Figures) -> u64| account.iter().map(figure).sum::<u64>();
    let figures = [
        (sum(|figures| figures.operations), "nothing was done"),
        (sum(|figures| figures.kills), "nobody was killed"),
    ];
    let none = figures.into_iter().filter(|&(sum, _)| sum == 0).map(|(_, what)| what.to_owned());
    // Who was at work at an object with ends must have received something there.
    let unreceived = Object::ALL.into_iter().zip(account).filter(|(object, figures)| {
        object.has_ends() && figures.operations > 0 && figures.received == 0
    });
    none.chain(unreceived.map(|(object, _)| format!("{}: nothing was received", object.name())))
}

/// Whether each of these objects was worked at, and somebody was killed there.
pub fn unvisited(account: &Account, objects: &[Object]) -> impl Iterator<Item = String> {
    let visited = |object: Object| {
        let Figures { operations, kills, .. } = account[object as usize];
        operations > 0 && kills > 0
    };
    let unvisited = objects.iter().filter(move |&&object| !visited(object));
    unvisited.map(|object| format!("{}: nobody worked or was killed there", object.name()))
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        self.operations += other.operations;
        self.kills += other.kills;
        self.stops += other.stops;
        self.limits += other.limits;
        self.owner_died += other.owner_died;
        self.lost += other.lost;
        self.redelivered += other.redelivered;
        self.missing += other.missing;
        self.torn += other.torn;
        self.twice += other.twice;
        self.disorder += other.disorder;
        self.hung += other.hung;
        self.failed += other.failed;
        self.in_hand += other.in_hand;
        self.received += other.received;
    }
}

/// The figures of all objects.
pub type Account = [Figures; Object::ALL.len()];

pub fn add(account: &mut Account, other: &Account) {
    account.iter_mut().zip(other).for_each(|(sum, figures)| *sum += *figures);
}

/// Closes the account of a round: everybody is dead, and the queues are drained.
pub fn close(arena: &Arena, account: &mut Account) {
    let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
    for object in Object::ALL {
        let tally = arena.ledger.tally(object);
        account[object as usize] += Figures {
            owner_died: read(&tally.owner_died),
            redelivered: read(&tally.redelivered),
            missing: read(&tally.missing),
            torn: read(&tally.torn),
            twice: read(&tally.twice),
            disorder: read(&tally.disorder),
            kills: read(&tally.grandchildren_killed),
            ..Figures::default()
        };
    }
    let mut missing = [0; Object::ALL.len()];
    for stretch in arena.ledger.used_stretches() {
        let Some(object) =
            Object::ALL.into_iter().find(|&object| object as u64 + 1 == read(&stretch.object))
        else {
            // Its taker was killed before the first note.
            continue;
        };
        if object.has_ends() {
            let Checked { missing: unreceived, holes, received } = check(stretch);
            missing[object as usize] += unreceived;
            account[object as usize].received += received;
            account[object as usize].torn += if object == Object::Redeliver { holes } else { 0 };
        }
    }
    for object in Object::ALL {
        let figures = &mut account[object as usize];
        let lost = match object {
            Object::Drop => arena.dropping.lost(),
            Object::Redeliver => arena.redelivering.lost(),
            Object::File => arena.in_file.lost(),
            Object::Bytes => arena.bytes.lost(),
            Object::Letters => arena.letters.lost(),
            Object::Packages => arena.packages.lost(),
            Object::Parcels => arena.parcels.lost(),
            _ => 0,
        };
        figures.lost += lost;
        // A queue that delivers again loses nothing, whoever is killed.
        let allowed = if object.redelivers() { 0 } else { figures.in_hand };
        figures.missing +=
            missing[object as usize].saturating_sub(allowed).max(lost.saturating_sub(allowed));
    }
}

/// What came of the messages of a stretch.
struct Checked {
    /// They did not come, and were sent for certain.
    missing: u64,
    /// They came of a batch that was cut short, although an earlier one of it did not.
    holes: u64,
    received: u64,
}

fn check(stretch: &Stretch) -> Checked {
    let (published, started) =
        (stretch.published.load(Ordering::Relaxed), stretch.started.load(Ordering::Relaxed));
    let missing = (0..published).filter(|&sequence| !stretch.was_received(sequence)).count();
    let begun = published..started.max(published);
    let prefix =
        begun.clone().take_while(|&sequence| stretch.was_received(sequence)).count() as u64;
    let holes = begun.filter(|&sequence| stretch.was_received(sequence)).count() as u64 - prefix;
    let came = (0..published).filter(|&sequence| stretch.was_received(sequence)).count() as u64;
    Checked { missing: missing as u64, holes, received: came + prefix + holes }
}
