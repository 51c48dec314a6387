//! Ends of channels that messages hold: sent by one process, received or left in their message by
//! others, given up by all, while somebody waits for the last one to go; or captured by a child's
//! closure. With the crate's channel, `ByteQueue`, heap, peer table and reaper. Senders, receivers,
//! parents, children and whoever waits die.
//!
//! The queue with the messages lies in the first block, the channel in the second one. Its senders'
//! role may not be gone while a living process has an end, or a message that can still be received.
//! Whoever waits for it must learn of it, also without slices if nobody was killed.

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::BlockId;
use crate::heap::flight::Name;
use crate::heap::pool::Pool;
use crate::models::carried::{self, header, leave, left};
use crate::models::heap::{self, FREE, OWNED, SHARED, decode, with};
use crate::models::peers::forget_cards;
use crate::object::attempt::Once;
use crate::object::block::ends::Role;
use crate::object::flight::settle;
use crate::object::kind::Kind;
use crate::object::place::{self, HANDLE};
use crate::object::transfer::TryRecvError;
use crate::object::{Handle, block, reap};
use crate::peer::attach::{self, Arrival};
use crate::peer::{PeerId, reaper};
use crate::queue::{OnReceiverDeath, Queue, QueueOptions};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCKS, FREE_WORDS};
use crate::segment::region::Mapping;
use crate::sync::Wait;
use crate::sys::pidfd::Identity;
use crate::world::{self, Access, Fate, Local, Note, at, read, write};

const CHANNEL: Handle = Handle { segment: 0, block: 1, generation: 0 };
/// Both roles' words, behind the header and the one slot of the channel; `src/object/block/ends.rs`
/// and `src/object/block/queue.rs` say so.
const ENDS: usize = (BLOCKS + CHANNEL.block * BLOCK) as usize + 640 + 128;

/// One bit for each process that has ends of this role.
fn bits(role: Role) -> usize {
    ENDS + 128 * role as usize
}

/// The role's version, and whether it is gone.
fn state(role: Role) -> usize {
    bits(role) + 8
}

const GONE: u64 = 1;

/// What a child finds in its memory when it is let go: who it is.
const PROMISE: usize = FREE_WORDS as usize;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A process that waits looks at the messages and then at the bits.
    FlightsFirst,
    /// A sender gives its end up and then notes it in the message.
    ReleasesFirst,
    /// A receiver takes its end without a change of the role's version.
    KeepsVersion,
    /// A receiver frees the message and then takes its end.
    FreesFirst,
    /// A receiver does not look at the channel after it has freed the message.
    LooksNoMore,
    /// A receiver looks at the channel after the message has let go of it.
    LooksLate,
    /// A parent gives up its end and then takes it in its child's name.
    HandsOverLate,
}

/// Who does what, beside the reapers. All but those that wait have the queue, and let go of it
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Has a sender, sends it and gives it up.
    Sends,
    /// Receives a message if it is there, takes the sender in it and gives it up.
    Takes,
    /// Receives a message if it is there and leaves the sender in it.
    Ignores,
    /// Has a sender and gives it up.
    GivesUp,
    /// Has a sender, which the closure of its child captures. The child is the next process.
    Forks,
    /// Is forked, has what was captured for it, gives it up and exits.
    IsForked,
    /// Has the receiver, and asks until there are no senders.
    Asks,
    /// Has the receiver, and sleeps until there are no senders.
    Sleeps,
}

impl Part {
    fn role(self) -> Option<Role> {
        match self {
            Part::Sends | Part::GivesUp | Part::Forks => Some(Role::Sender),
            Part::Asks | Part::Sleeps => Some(Role::Receiver),
            Part::Takes | Part::Ignores | Part::IsForked => None,
        }
    }

    fn has_queue(self) -> bool {
        self.role() != Some(Role::Receiver) && self != Part::IsForked
    }
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub policy: OnReceiverDeath,
    pub parts: Vec<Part>,
    /// Whether a message with a sender is there from the beginning.
    pub there: bool,
    pub reapers: usize,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

impl Setting {
    fn of(policy: OnReceiverDeath, parts: &[Part]) -> Setting {
        Setting {
            policy,
            parts: parts.to_vec(),
            there: false,
            reapers: 0,
            deaths: 1,
            preemptions: None,
            mistake: Mistake::None,
        }
    }

    pub fn model(self) -> Model {
        let mut text = format!("{:?}, {:?}", self.policy, self.parts).to_lowercase();
        if self.there {
            text += ", one there";
        }
        text += &carried::limits(self.reapers, self.deaths, self.preemptions);
        let processes = self.processes();
        let monitor = Watch { first: Role::BOTH.map(|role| self.having(Some(role))) };
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("end", text, monitor)
        }
    }

    /// One bit for each process that has an end of this role from the beginning; or of none.
    fn having(&self, role: Option<Role>) -> u64 {
        let has = |part: &Part| part.role() == role;
        self.parts.iter().enumerate().map(|(process, part)| u64::from(has(part)) << process).sum()
    }

    /// The queue, the channel, the flight of each message.
    fn blocks(&self) -> u64 {
        let sends = self.parts.iter().filter(|&&part| part == Part::Sends).count() as u64;
        2 + (sends + u64::from(self.there)).min(2)
    }

    fn set_up(&self) {
        assert!(self.parts[0].has_queue(), "the first process makes the queue");
        carried::set_up(self.processes().len(), self.blocks(), Kind::Parcel.named::<()>());
        let options = |is_channel| {
            let mut options = QueueOptions { is_channel, ..QueueOptions::new() };
            options.capacity(1).on_receiver_death(self.policy);
            options
        };
        let holders = (1..self.parts.len()).filter(|&process| self.parts[process].has_queue());
        carried::share_queue(Kind::Bytes.named::<()>(), carried::len(1), holders, || {
            options(false).create_bytes().expect("a queue")
        });
        let ends =
            || self.parts.iter().enumerate().filter_map(|(at, part)| Some((at, part.role()?)));
        let block = carried::share(kind(), BLOCK, ends().map(|(process, _)| process), |offset| {
            place::lie_at(offset, BLOCK, CHANNEL);
            let segment = Segment::commons().expect("a segment");
            drop(Queue::<u64>::make(&segment, &options(true), kind()).expect("a channel"));
        });
        assert_eq!(block, CHANNEL.block);
        let acquire = |process: usize, role| {
            let channel = channel().as_channel();
            assert!(channel.ends().expect("a channel").1.acquire(role, process as u32), "new");
        };
        acquire(0, Role::Sender);
        ends().for_each(|(process, role)| acquire(process, role));
        // A child has its entry from its parent.
        for child in (0..self.parts.len()).filter(|&at| self.parts[at] == Part::IsForked) {
            with(0, |mapping, _, _| {
                let (_, table) = attach::view(mapping).expect("a table");
                table.free(child as u32, table.load(child as u32).expect("an entry"));
            });
        }
        if self.there {
            carried::send(sender());
        }
        if self.parts[0].role() != Some(Role::Sender) {
            give_up(0, Role::Sender);
        }
        forget_cards(self.processes().len(), self.blocks());
    }

    fn processes(&self) -> Vec<Process> {
        let mistake = self.mistake;
        let mut processes: Vec<Process> = Vec::new();
        for (process, &part) in self.parts.iter().enumerate() {
            let name = match part {
                Part::Sends => "sender",
                Part::Takes | Part::Ignores => "receiver",
                Part::GivesUp => "holder",
                Part::Forks => "parent",
                Part::IsForked => "child",
                Part::Asks | Part::Sleeps => "waiter",
            };
            processes.push(Process {
                exits: part == Part::IsForked,
                ..Process::new(name, move |local: Local| play(process, part, mistake, local))
            });
        }
        let others = self.parts.len();
        for reaper in others..others + self.reapers {
            processes.push(heap::reaper_of(reaper, others));
        }
        processes
    }
}

/// What a process does last.
const LAST: Local = [9, 0, 0, 0];

fn play(process: usize, part: Part, mistake: Mistake, local: Local) -> Option<Local> {
    let then = [1, 0, 0, 0];
    match (part, local[0]) {
        (Part::Asks | Part::Sleeps, 9) => return None,
        (_, 9) => {
            leave(process, HANDLE);
            return None;
        }
        (Part::Sends, 0) if mistake == Mistake::ReleasesFirst => {
            let channel = channel().as_channel();
            note_given_up(process, Role::Sender);
            channel.ends().expect("a channel").1.release(Role::Sender, process as u32);
            carried::send(sender());
            leave(process, CHANNEL);
        }
        (Part::Sends, 0) => {
            carried::send(sender());
            return Some(then);
        }
        (Part::Takes, 0) => {
            if take(process, mistake) {
                return Some(then);
            }
        }
        (Part::Forks, _) => return fork(process, mistake, local),
        (Part::IsForked, _) => return live(process),
        (Part::Ignores, _) => {
            if matches!(mistake, Mistake::LooksNoMore | Mistake::LooksLate) {
                ignore(process, mistake);
            } else {
                drop(carried::queue().get(Once));
            }
        }
        (Part::Sends | Part::Takes | Part::GivesUp, _) => give_up(process, Role::Sender),
        (Part::Asks | Part::Sleeps, 0) => {
            if mistake == Mistake::FlightsFirst {
                conclude_mistaken();
            }
            let is_over = match part {
                Part::Sleeps => channel()
                    .with_wait(Wait::Sleep)
                    .recv()
                    .is_err_and(|error| error.is_disconnected()),
                _ => match channel().try_recv() {
                    Err(TryRecvError::Empty) => return Some([0; 4]),
                    other => other.is_err_and(|error| error.is_disconnected()),
                },
            };
            if !is_over {
                world::note("received", 0, 0);
            }
            return Some(then);
        }
        (Part::Asks | Part::Sleeps, _) => give_up(process, Role::Receiver),
    }
    Some(LAST)
}

fn kind() -> u64 {
    Kind::PlainChannel.with::<u64>()
}

fn id() -> BlockId {
    BlockId::from_bits(CHANNEL.block).expect("a block")
}

fn channel() -> Queue<u64> {
    place::lie_at(BLOCKS + CHANNEL.block * BLOCK, BLOCK, CHANNEL);
    let segment = Segment::commons().expect("a segment");
    Queue::open_kind(&segment, CHANNEL, kind()).expect("a channel")
}

/// A sender, as a message has it.
fn sender() -> Name {
    Name { id: id(), generation: 0, role: Role::Sender.in_flight() }
}

/// Receives a message, if it is there, and takes the sender in it; false if it is not.
fn take(process: usize, mistake: Mistake) -> bool {
    let queue = carried::queue();
    let Some(message) = carried::receive(&queue, sender()) else {
        return false;
    };
    let acquire = || {
        let attached = with(process, |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            settle(&pool, me, |empty| pool.attach(id(), 0, me, empty)).is_some()
        });
        if attached && mistake == Mistake::KeepsVersion {
            world::access(at(bits(Role::Sender)), Access::Or(1 << process));
            return true;
        }
        let channel = channel().as_channel();
        let (_, ends) = channel.ends().expect("a channel");
        attached && ends.acquire(Role::Sender, process as u32)
    };
    let acquired = if mistake == Mistake::FreesFirst {
        drop(message);
        acquire()
    } else {
        let acquired = acquire();
        world::note("has", process as u64, 0);
        drop(message);
        acquired
    };
    if !acquired {
        world::note("is gone", 0, 0);
    }
    acquired
}

fn note_given_up(process: usize, role: Role) {
    world::note("gives up", process as u64, role as u64);
}

/// Gives up the process's only end, as its drop does, and then the channel.
fn give_up(process: usize, role: Role) {
    release(process, role);
    leave(process, CHANNEL);
}

/// Gives up the process's only end of this role.
fn release(process: usize, role: Role) {
    note_given_up(process, role);
    let channel = channel().as_channel();
    let (_, ends) = channel.ends().expect("a channel");
    ends.release(role, process as u32);
    if ends.conclude(role, || channel.is_in_flight(role)) {
        channel.close();
    }
}

/// Forks a child whose closure captures the sender, and waits for it: as in `src/object/ends.rs`,
/// where the order is explained.
fn fork(process: usize, mistake: Mistake, [step, promised, ..]: Local) -> Option<Local> {
    let child = process + 1;
    let next = Some([step + 1, promised, 0, 0]);
    with(process, |mapping, region, me| {
        let (_, table) = attach::view(mapping).expect("a table");
        let channel = channel().as_channel();
        match (step, PeerId::from_bits(promised)) {
            (0, _) => {
                let Some(promise) = table.reserve(me, 1) else {
                    world::note("no room", 0, 0);
                    return None;
                };
                Pool::new(mapping, region).bequeath(id(), 0, promise);
                Some([1, promise.to_bits(), 0, 0])
            }
            (1, Some(promise)) => {
                let (_, ends) = channel.ends().expect("a channel");
                if mistake == Mistake::HandsOverLate {
                    release(process, Role::Sender);
                }
                if !ends.acquire(Role::Sender, promise.index()) {
                    world::note("is gone", 0, 0);
                }
                if mistake != Mistake::HandsOverLate {
                    release(process, Role::Sender);
                }
                table.introduce(promise, me, &Identity::of_process(child));
                // Lets it go.
                write(PROMISE, promised);
                next
            }
            (2, _) => {
                leave(process, CHANNEL);
                next
            }
            (_, Some(promise)) if world::is_dead(child) => {
                let pid = Identity::of_process(child).pid;
                reaper::reap_child(mapping, table, me, promise, pid, |dead| {
                    reap::clear(mapping, region, dead, me);
                });
                Some(LAST)
            }
            _ => Some([step, promised, 0, 0]),
        }
    })
}

/// A child that has a sender from its parent.
fn live(process: usize) -> Option<Local> {
    let promised = read(PROMISE);
    if promised == 0 {
        return (!world::is_dead(process - 1)).then_some([0; 4]);
    }
    let mapping = Mapping::new(0);
    mapping.keep_reserved_peer(promised, Identity::own().expect("getpid").pid);
    let region = mapping.region()?;
    let arrival = attach::attach(&mapping, |dead| reap::clear(&mapping, region, dead, dead));
    let Ok(Arrival::Adopted(me) | Arrival::New(me)) = arrival else {
        world::note("no room", 0, 0);
        return None;
    };
    world::note("has", process as u64, 0);
    if read(state(Role::Sender)) & GONE != 0 {
        world::note("is gone", 0, 0);
    }
    release(process, Role::Sender);
    let pool = Pool::new(&mapping, region);
    let recover = |object| {
        block::recover(&pool, object, me.owner());
    };
    settle(&pool, me, |empty| pool.leave(id(), me, recover, empty));
    None
}

/// What a process does that waits, with a look at the messages before one at the bits.
fn conclude_mistaken() {
    let word = state(Role::Sender);
    let seen = read(word);
    let channel = channel().as_channel();
    if seen & GONE == 0 && !channel.is_in_flight(Role::Sender) && read(bits(Role::Sender)) == 0 {
        world::access(at(word), Access::CompareExchange(seen, seen | GONE));
    }
}

/// Receives a message and gives it back, and looks at what it held too late or not at all.
fn ignore(process: usize, mistake: Mistake) {
    carried::ignore(process);
    if mistake == Mistake::LooksLate {
        with(process, |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            settle(&pool, me, |empty| {
                if let Some(object) = pool.shared(id(), 0) {
                    block::conclude(&pool, object);
                }
                pool.let_go(Name { id: id(), generation: 0, role: 0 }, me, empty);
            });
        });
    }
}

// What the monitor remembers, one bit for each process.
/// Took an end out of a message.
const TAKEN: usize = 0;
/// Began to give up its end of each role.
const GIVEN_UP: usize = 1;

struct Watch {
    /// Who has ends of each role from the beginning.
    first: [u64; 2],
}

impl Watch {
    /// Who has ends of this role, and has not begun to give them up.
    fn having(&self, role: Role, ghost: &Ghost) -> u64 {
        let taken = if role == Role::Sender { ghost[TAKEN] } else { 0 };
        (self.first[role as usize] | taken) & !ghost[GIVEN_UP + role as usize]
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        if touch.before == touch.after {
            return Ok(());
        }
        carried::changed_by_a_holder(touch, view)?;
        let now = |offset| view.read(offset);
        let living = |role| carried::living(self.having(role, ghost), view);
        let lies_there = decode(now(header(CHANNEL.block))).0 == CHANNEL.generation;
        for role in Role::BOTH {
            if touch.offset == state(role) && touch.after & GONE != 0 && lies_there {
                if let Some(process) = living(role) {
                    return Err(format!("{role:?} is gone, and {process} has one"));
                }
                if role == Role::Sender && carried::is_in_a_message(&now) {
                    return Err("Sender is gone, and a message holds one".into());
                }
                if touch.before & GONE == 0 && touch.after != touch.before | GONE {
                    return Err("a role has gone with a change of its version".into());
                }
            }
            if touch.offset == state(role) && touch.before & GONE != 0 && lies_there {
                return Err("a role that was gone has come back".into());
            }
        }
        if touch.offset == header(CHANNEL.block) {
            let ((_, from, _), (_, to, _)) = (decode(touch.before), decode(touch.after));
            if (from, to) == (SHARED, OWNED) {
                if let Some(process) = Role::BOTH.into_iter().find_map(living) {
                    return Err(format!("the channel is taken from {process}"));
                }
                if carried::is_in_a_message(&now) {
                    return Err("the channel is taken from a message".into());
                }
            }
        }
        carried::flight_moved(touch, view)
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "has" => ghost[TAKEN] |= 1 << process,
            "gives up" => ghost[GIVEN_UP + note.b as usize] |= 1 << process,
            what => return Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
        Ok(())
    }

    /// A process that waits must not sleep on when there are no senders.
    fn could_go_on(&self, _process: usize) -> bool {
        let flies = carried::flights().any(|block| decode(read(header(block))).1 != FREE);
        read(state(Role::Sender)) & GONE != 0 || read(bits(Role::Sender)) == 0 && !flies
    }

    fn at_the_end(&self, fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        if fates.iter().all(|&fate| fate == Fate::Ended)
            && let Some(block) = left(4)
        {
            return Err(format!("nobody died, and {block}"));
        }
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        match left(4) {
            Some(block) => Err(format!("in the end, {block}")),
            None => Ok(()),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        for role in Role::BOTH {
            if offset == bits(role) {
                return format!("who has a {role:?}: {value:#b}");
            }
            if offset == state(role) {
                let gone = if value & GONE != 0 { ", gone" } else { "" };
                return format!("{role:?}: version {}{gone}", value >> 1);
            }
        }
        carried::tell(4, 1, offset, value)
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    use Part::*;
    let of = |mistake, there, parts: &[Part]| {
        let setting = Setting::of(OnReceiverDeath::Drop, parts);
        Setting { mistake, there, deaths: 0, preemptions: Some(3), ..setting }.model()
    };
    vec![
        (
            of(Mistake::FlightsFirst, false, &[Sends, Asks]),
            "ends, looked for in messages before the bits",
            Some("a message holds one"),
        ),
        (
            of(Mistake::ReleasesFirst, false, &[Sends, Takes, Asks]),
            "ends, given up before the message notes them",
            Some("is gone"),
        ),
        (
            of(Mistake::KeepsVersion, true, &[Takes, Asks]),
            "ends, taken without a change of the version",
            Some("has one"),
        ),
        (
            of(Mistake::FreesFirst, true, &[Takes, Asks]),
            "ends, taken after the message was freed",
            Some("is gone"),
        ),
        (
            of(Mistake::LooksNoMore, true, &[Ignores, Sleeps]),
            "ends, left in a message that is freed without a look at the channel",
            Some("lost wake-up"),
        ),
        (
            of(Mistake::LooksLate, true, &[Ignores, Asks]),
            "ends, concluded of a channel that the message has let go of",
            Some("does not have it"),
        ),
        (
            of(Mistake::HandsOverLate, false, &[Forks, IsForked, Asks]),
            "ends, given up before they are taken in the child's name",
            Some("is gone"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    use Part::*;
    let mut settings = Vec::new();
    let preemptions = Some(if all { 3 } else { 2 });
    let of = |parts: &[Part]| Setting::of(OnReceiverDeath::Drop, parts);
    settings.push(Setting { there: true, deaths: 0, ..of(&[Ignores, Sleeps]) });
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        settings.push(Setting { there: true, preemptions, policy, ..of(&[Takes, Asks]) });
    }
    settings.push(Setting { preemptions, ..of(&[Sends, Asks]) });
    let of_three = |parts: &[Part]| Setting { preemptions: Some(1), ..of(parts) };
    settings.push(of_three(&[Forks, IsForked, Asks]));
    if all {
        let two = |parts: &[Part]| Setting { preemptions: Some(2), ..of(parts) };
        settings.push(Setting { there: true, preemptions, ..of(&[Ignores, Sleeps]) });
        for part in [Takes, Ignores] {
            settings.push(Setting { there: true, reapers: 1, ..two(&[part, Asks]) });
        }
        settings.push(two(&[Forks, IsForked, Asks]));
        settings.push(Setting { reapers: 1, ..of_three(&[Forks, IsForked, Asks]) });
        settings.push(of_three(&[Sends, Forks, IsForked]));
        settings.push(of_three(&[Sends, Takes, Asks]));
        settings.push(Setting { there: true, ..of_three(&[Takes, GivesUp, Asks]) });
        settings.push(Setting { there: true, ..two(&[Takes, Ignores, Sleeps]) });
    }
    settings.into_iter().map(Setting::model).collect()
}
