//! Boxes: values that own blocks, through the crate's `Queue`, in a block of the crate's heap, with
//! its reaper. Senders, receivers and reapers die.
//!
//! A message is a number and one or two blocks, in each of which the number stands, written by two
//! stores, the first of which is nonsense. Whoever touches a block must own it. What was sent and
//! not taken or lost can be received in the end, with all of its blocks.

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::block::Carrier;
use crate::heap::owned::Owned;
use crate::heap::pool::Carried;
use crate::heap::{BlockId, Pool};
use crate::models::carried::{
    self, CARRIED, after_the_last, drain, header, is_occupied, is_there, mistaken_reaper, slot,
    slot_at, within_block, within_header,
};
use crate::models::heap::{self, FREE, OWNED, SHARED, decode, with};
use crate::models::peers::forget_cards;
use crate::object::carry::{self, Arrival, Departure, Transfer};
use crate::object::kind::Kind;
use crate::object::parcel::Envelope;
use crate::object::place::{self, HANDLE};
use crate::object::transfer::{TryRecvError, TrySendError};
use crate::object::{Handle, block, flight, reap};
use crate::peer::footprint::Cards;
use crate::peer::id::index_of;
use crate::peer::{Fault, PeerId};
use crate::queue::{OnReceiverDeath, Queue, QueueOptions};
use crate::ring::position::{Phase, SlotWord};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCKS};
use crate::world::{self, Fate, Local, Note, read, write};

/// What a block holds while it is being written.
const TORN: u64 = u64::MAX;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// The reaper frees what a dead receiver had taken, also if its message is to be delivered
    /// again.
    FreesTaken,
    /// A receiver takes nothing that a dead one had taken.
    LeavesTaken,
    /// A receiver gives the slot back, and then takes the blocks.
    ReleasesFirst,
}

/// A value that owns up to two blocks. It does nothing when it is dropped.
pub(super) struct Cargo {
    pub(super) number: u64,
    pub(super) blocks: [Option<Carried>; 2],
}

/// As a slot has it.
const NONE: u64 = 0xffff;

fn to_word(block: Option<Carried>) -> u64 {
    block.map_or(NONE, |block| {
        assert!(block.generation < 0xfff, "there is room for it");
        u64::from(block.generation) << 4 | block.id.to_bits()
    })
}

pub(super) fn from_word(word: u64) -> Option<Carried> {
    let id = BlockId::from_bits(word & 15)?;
    (word != NONE).then_some(Carried { id, generation: (word >> 4) as u32 })
}

impl Cargo {
    pub(super) fn to_envelope(&self) -> Envelope {
        let mut envelope: Envelope = bytemuck::Zeroable::zeroed();
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut envelope));
        let [first, second] = self.blocks.map(to_word);
        words[..3].copy_from_slice(&[first, second, self.number]);
        envelope
    }

    fn of_envelope(envelope: &Envelope) -> Cargo {
        let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(envelope));
        Cargo { number: words[2], blocks: [words[0], words[1]].map(from_word) }
    }

    /// The blocks, which this process owns.
    fn owned<'a>(&self, pool: &Pool<'a>, me: PeerId) -> Vec<Option<Owned<'a>>> {
        let owned = |block: Carried| pool.owned(block.id, block.generation, me.owner());
        self.blocks.iter().flatten().map(|&block| owned(block)).collect()
    }

    pub(super) fn give_back(&self) {
        with(world::me(), |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            self.owned(&pool, me).iter().flatten().for_each(|owned| pool.give_back(owned));
        });
    }

    /// Takes the blocks out of their message; what was taken before a wrong one is given back.
    fn take(&self, carrier: Carrier) -> Result<(), Fault> {
        with(world::me(), |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            let mut taken = Vec::new();
            for &block in self.blocks.iter().flatten() {
                match pool.take(block, carrier, me.owner()) {
                    Some(one) => taken.push(one.owned),
                    None => {
                        taken.iter().for_each(|owned| pool.give_back(owned));
                        return Err(Fault::Corrupt);
                    }
                }
            }
            Ok(())
        })
    }
}

thread_local! {
    /// What receivers do otherwise, in this thread's model.
    static MISTAKE: std::cell::Cell<Mistake> = const { std::cell::Cell::new(Mistake::None) };
}

#[expect(unsafe_code, reason = "as boxes do")]
// SAFETY: only the model uses it.
unsafe impl Transfer for Cargo {
    type Wire = Envelope;

    fn pack(&mut self, departure: &Departure<'_>) -> Result<Envelope, Fault> {
        with(world::me(), |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            let owned = self.owned(&pool, me);
            for (block, owned) in self.blocks.iter_mut().flatten().zip(owned) {
                let owned = owned.ok_or(Fault::Corrupt)?;
                *block = pool.carry(&owned, departure.carrier).ok_or(Fault::Corrupt)?;
            }
            Ok(self.to_envelope())
        })
    }

    fn restore(&mut self) {
        world::note("restored", self.number, 0);
    }

    fn unpack(wire: Envelope, arrival: &Arrival<'_>) -> Result<Cargo, Fault> {
        let cargo = Cargo::of_envelope(&wire);
        if MISTAKE.get() == Mistake::LeavesTaken {
            for block in cargo.blocks.iter().flatten() {
                if decode(read(header(block.id.to_bits()))).1 == OWNED {
                    return Err(Fault::Corrupt);
                }
            }
        }
        cargo.take(arrival.carrier)?;
        Ok(cargo)
    }
}

/// Who does what with the queue, beside the reapers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sends so many, each with so many blocks.
    Sends(u64, usize),
    /// Receives until there is nothing more and all senders have ended.
    Receives,
    /// Receives one, if it is there.
    ReceivesOnce,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub capacity: usize,
    pub policy: OnReceiverDeath,
    pub parts: Vec<Part>,
    /// Blocks of the message that is there from the beginning; 0 if there is none.
    pub there: usize,
    /// Nobody else has the queue: it goes with the last of them.
    pub alone: bool,
    pub reapers: usize,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

/// Blocks in all; one is the queue's.
const ALL: u64 = 3;

impl Setting {
    pub fn of(capacity: usize, policy: OnReceiverDeath, parts: &[Part]) -> Setting {
        Setting {
            capacity,
            policy,
            parts: parts.to_vec(),
            there: 0,
            alone: false,
            reapers: 0,
            deaths: 2,
            preemptions: None,
            mistake: Mistake::None,
        }
    }

    pub fn model(self) -> Model {
        let mut text = format!("{} slots, {:?}", self.capacity, self.policy).to_lowercase();
        text += &format!(", {:?}", self.parts);
        if self.there > 0 {
            text += &format!(", one of {} there", self.there);
        }
        if self.alone {
            text += ", alone";
        }
        text += &carried::limits(self.reapers, self.deaths, self.preemptions);
        let processes = self.processes();
        let monitor = Watch { capacity: self.capacity, policy: self.policy, there: self.there > 0 };
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("box", text, monitor)
        }
    }

    fn len(&self) -> u64 {
        carried::len(self.capacity)
    }

    fn set_up(&self) {
        MISTAKE.set(self.mistake);
        let last = self.processes().len();
        carried::set_up(last, ALL, Kind::Boxed.named::<()>());
        // Whoever makes the last checks has it, too.
        let others = (1..self.parts.len()).chain((!self.alone).then_some(last));
        carried::share_queue(carry::queue_kind::<Cargo>(), self.len(), others, || {
            let mut options = QueueOptions::new();
            options.capacity(self.capacity).on_receiver_death(self.policy);
            options.create::<Cargo>().expect("a queue")
        });
        if self.there > 0 {
            let cargo = load(1, self.there).expect("room");
            assert!(queue(self.len()).try_send(cargo).is_ok(), "room");
        }
        forget_cards(last + 1, ALL);
    }

    fn processes(&self) -> Vec<Process> {
        let (len, mistake) = (self.len(), self.mistake);
        let is_sender = |part: &Part| matches!(part, Part::Sends(..));
        let senders: u64 = (self.parts.iter().enumerate())
            .map(|(process, part)| u64::from(is_sender(part)) << process)
            .sum();
        let messages: u64 = self.parts.iter().map(|&part| part.messages()).sum();
        let crowded = u64::from(self.there > 0) + messages > self.capacity as u64;
        let mut first = 1 + u64::from(self.there > 0);
        let mut processes: Vec<Process> = Vec::new();
        for &part in &self.parts {
            let numbers = first..first + part.messages();
            first = numbers.end;
            let script = move |local: Local| match part {
                Part::Sends(_, blocks) => send(len, numbers.clone(), blocks, crowded, local),
                Part::Receives => receive(len, Some(senders), mistake, local),
                Part::ReceivesOnce => receive(len, None, mistake, local),
            };
            processes
                .push(Process::new(if is_sender(&part) { "sender" } else { "receiver" }, script));
        }
        let others = self.parts.len();
        for reaper in others..others + self.reapers {
            processes.push(match mistake {
                Mistake::FreesTaken => mistaken_reaper(reaper, others, clear_mistaken),
                _ => heap::reaper_of(reaper, others),
            });
        }
        if crowded {
            processes.push(drain(
                self.parts.iter().map(|part| !is_sender(part)).collect(),
                move |local| receive(len, Some(senders), Mistake::None, local),
            ));
        }
        processes
    }
}

impl Part {
    fn messages(self) -> u64 {
        if let Part::Sends(messages, _) = self { messages } else { 0 }
    }
}

fn queue(len: u64) -> Queue<Cargo> {
    place::lie_at(BLOCKS, len, HANDLE);
    let segment = Segment::commons().expect("a segment");
    Queue::open(&segment, HANDLE).expect("a queue")
}

/// Makes a value; `None` if there is no memory.
pub(super) fn load(number: u64, blocks: usize) -> Option<Cargo> {
    let mut cargo = Cargo { number, blocks: [None; 2] };
    for place in &mut cargo.blocks[..blocks] {
        let owned = with(world::me(), |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            let owned = pool.allocate(me, Kind::Boxed.named::<()>(), 8).ok()?;
            let offset = owned.offset() as usize;
            Some((offset, Carried { id: owned.id, generation: owned.generation() }))
        });
        let Some((offset, block)) = owned else {
            cargo.give_back();
            return None;
        };
        write(offset, TORN);
        write(offset, number);
        *place = Some(block);
    }
    Some(cargo)
}

/// Sends messages with these numbers, of which `local` counts them.
fn send(
    len: u64,
    numbers: std::ops::Range<u64>,
    blocks: usize,
    crowded: bool,
    [sent, ..]: Local,
) -> Option<Local> {
    let number = numbers.start + sent;
    if number == numbers.end {
        return None;
    }
    let queue = queue(len);
    let again = Some([sent, 0, 0, 0]);
    if crowded && queue.is_full() {
        // A receiver may have died with a message.
        with(world::me(), |mapping, _, me| reap::reap_all(mapping, me));
        return again;
    }
    let Some(cargo) = load(number, blocks) else {
        with(world::me(), |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            reap::reap_all(mapping, me);
            flight::sweep(&pool, me, Cards::ALL);
        });
        return again;
    };
    match queue.try_send(cargo) {
        Ok(()) => Some([sent + 1, 0, 0, 0]),
        Err(TrySendError::Full(cargo)) => {
            cargo.give_back();
            again
        }
        Err(_) => {
            world::note("not sent", number, 0);
            None
        }
    }
}

/// Receives what is there; until `senders` have ended, or once.
fn receive(len: u64, senders: Option<u64>, mistake: Mistake, [ended, ..]: Local) -> Option<Local> {
    let received = match mistake {
        Mistake::ReleasesFirst => receive_mistaken(len),
        _ => queue(len).try_recv(),
    };
    let cargo = match received {
        Ok(cargo) => cargo,
        Err(TryRecvError::Empty) => return after_the_last(senders, ended),
        Err(_) => {
            world::note("broken", 0, 0);
            return None;
        }
    };
    for block in cargo.blocks.iter().flatten() {
        let number = read((BLOCKS + block.id.to_bits() * BLOCK) as usize);
        if number != cargo.number {
            world::note("torn", number, cargo.number);
        }
    }
    world::note("received", cargo.number, 0);
    cargo.give_back();
    senders.map(|_| [ended, 0, 0, 0])
}

/// A receiver of our own, for controls.
fn receive_mistaken(len: u64) -> Result<Cargo, TryRecvError> {
    place::lie_at(BLOCKS, len, HANDLE);
    let segment = Segment::commons().expect("a segment");
    let queue: Queue<Envelope> = Queue::open(&segment, HANDLE).expect("a queue");
    let received = queue.try_recv_ref()?;
    let position = received.claim().position().to_bits();
    let cargo = Cargo::of_envelope(&received);
    // It does say where it may leave them: that mistake is another one.
    with(world::me(), |mapping, region, me| {
        Pool::new(mapping, region).mark_everywhere(me.owner());
    });
    drop(received);
    let Handle { block, generation, .. } = HANDLE;
    let taken = cargo.take(Carrier { block, generation: generation as u32, position });
    taken.map(|()| cargo).map_err(TryRecvError::Broken)
}

/// What a reaper of our own does, for controls.
fn clear_mistaken(pool: &Pool<'_>, dead: PeerId, me: PeerId) {
    let recover = |object| {
        block::recover(pool, object, dead.owner());
    };
    flight::settle(pool, me, |empty| pool.clear(dead, me, |_| false, recover, empty, |_| {}));
    flight::sweep(pool, me, Cards::ALL);
}

// What the monitor remembers: sets of messages, with a bit for each.
const SENT: usize = 0;
/// Given to a receiver.
const RECEIVED: usize = 1;
/// Released by their receiver.
const TAKEN: usize = 2;
/// Dropped with their dead receiver.
const GONE: usize = 3;

struct Watch {
    capacity: usize,
    policy: OnReceiverDeath,
    there: bool,
}

impl Watch {
    /// The bit of the message in a slot.
    fn message(&self, read: &dyn Fn(usize) -> u64, index: usize) -> u64 {
        1_u64.checked_shl((read(slot(index) + 8) >> 32) as u32).unwrap_or(0)
    }

    /// The bits of all messages in the queue, and of those that somebody is reading.
    fn messages(&self, read: &dyn Fn(usize) -> u64) -> (u64, u64) {
        let (mut all, mut being_read) = (0, 0);
        for index in 0..self.capacity {
            let word = SlotWord::from_bits(read(slot(index)));
            if is_occupied(word) && word.phase() != Phase::Writing {
                all |= self.message(read, index);
            }
            if word.phase() == Phase::Reading {
                being_read |= self.message(read, index);
            }
        }
        (all, being_read)
    }

    fn moved(
        &self,
        touch: Touch,
        index: usize,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let (before, after) = (SlotWord::from_bits(touch.before), SlotWord::from_bits(touch.after));
        let now = |offset| view.read(offset);
        if !is_there(&now) {
            return Ok(());
        }
        let message = self.message(&now, index);
        let mine = before.owner() == touch.process as u32;
        match (before.phase(), after.phase()) {
            (Phase::Writing, Phase::Full) => {
                let envelope = view.read(slot(index) + 8);
                for word in [envelope & 0xffff, envelope >> 16 & 0xffff] {
                    let Some(block) = from_word(word) else { continue };
                    let (generation, state, _) = decode(view.read(header(block.id.to_bits())));
                    if state != CARRIED || generation != u64::from(block.generation) {
                        return Err("a message names a block that it does not carry".into());
                    }
                }
                if ghost[SENT] & message != 0 {
                    return Err("a message was sent twice".into());
                }
                ghost[SENT] |= message;
            }
            (Phase::Reading, Phase::Empty) => {
                if (ghost[TAKEN] | ghost[GONE]) & message != 0 {
                    return Err("a message was taken twice".into());
                }
                if !mine && !view.is_dead(before.owner() as usize) {
                    return Err("a living receiver lost its message".into());
                }
                if !mine && self.policy == OnReceiverDeath::Redeliver {
                    return Err("a message was dropped with its receiver".into());
                }
                ghost[if mine { TAKEN } else { GONE }] |= message;
            }
            _ => {}
        }
        Ok(())
    }

    fn block_moved(&self, touch: Touch, block: u64, view: &View<'_>) -> Result<(), String> {
        let ((g, from, before), (h, to, after)) = (decode(touch.before), decode(touch.after));
        let mine = |owner| index_of(owner) as usize == touch.process;
        let is_dead = |owner| view.is_dead(index_of(owner) as usize);
        let fine = match (from, to) {
            (FREE, OWNED) => h == g && mine(after),
            (OWNED, SHARED) => h == g && mine(before),
            (SHARED, SHARED) => h == g,
            (SHARED, OWNED) => h == g && mine(after),
            // Torn down, or taken by the next receiver, while the one before is dead.
            (OWNED, OWNED) => h == g && is_dead(before),
            // Sent, or put back.
            (OWNED, CARRIED) => h == g + 1 && mine(before) || h == g && is_dead(before),
            (CARRIED, OWNED) => {
                // Taken by the receiver of its message, or in no message.
                let carrier = carried::carrier(&|offset| view.read(offset), block);
                let received = carrier.is_none_or(|(_, word)| {
                    word.phase() == Phase::Reading && word.owner() == touch.process as u32
                });
                h == g && mine(after) && received
            }
            (OWNED, FREE) => h == g + 1 && (mine(before) || is_dead(before)),
            _ => false,
        };
        if fine {
            return Ok(());
        }
        Err(format!(
            "block {block} went from {:?} to {:?}",
            decode(touch.before),
            decode(touch.after)
        ))
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        let changed = touch.before != touch.after;
        if let Some(index) = slot_at(self.capacity, touch.offset)
            && changed
        {
            return self.moved(touch, index, view, ghost);
        }
        if let Some((block, 0)) = within_header(ALL, touch.offset)
            && changed
        {
            let now = |offset| view.read(offset);
            if decode(touch.before).1 == SHARED && decode(touch.after).1 == OWNED {
                ghost[GONE] |= self.messages(&now).0;
            }
            return self.block_moved(touch, block, view);
        }
        if let Some((block, 0)) = within_block(ALL, touch.offset)
            && block != HANDLE.block
        {
            let (_, state, owner) = decode(view.read(header(block)));
            if state != OWNED || index_of(owner) as usize != touch.process {
                return Err(format!("block {block} was touched by somebody whose it is not"));
            }
        }
        Ok(())
    }

    fn noted(
        &self,
        _process: usize,
        note: Note,
        _view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "received" => {
                let message = 1_u64.checked_shl(note.a as u32).unwrap_or(0);
                let there = u64::from(self.there) << 1;
                if (ghost[SENT] | there) & message == 0 || ghost[RECEIVED] & message != 0 {
                    return Err(format!("received {note:?} of {:#b}", ghost[SENT]));
                }
                ghost[RECEIVED] |= message;
                Ok(())
            }
            what => Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        let sent = ghost[SENT] | u64::from(self.there) << 1;
        let mut accounted = ghost[TAKEN] | ghost[GONE];
        let (all, being_read) = self.messages(&read);
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        if !is_there(&read) {
            accounted |= all;
        } else if self.policy == OnReceiverDeath::Drop {
            accounted |= being_read;
        }
        let queue = queue(carried::len(self.capacity));
        while is_there(&read) {
            match queue.try_recv() {
                Ok(cargo) => {
                    let message = 1 << cargo.number;
                    let whole = cargo.blocks.iter().flatten().all(|block| {
                        read((BLOCKS + block.id.to_bits() * BLOCK) as usize) == cargo.number
                    });
                    if accounted & message != 0 || !whole {
                        return Err(format!("message {} is left over, {whole}", cargo.number));
                    }
                    accounted |= message;
                    cargo.give_back();
                }
                Err(TryRecvError::Empty) => break,
                Err(error) => return Err(format!("a message cannot be received: {error}")),
            }
        }
        if accounted & sent != sent {
            return Err(format!("sent {sent:#b}, and {accounted:#b} is accounted for"));
        }
        for block in 0..ALL {
            let (_, state, owner) = decode(read(header(block)));
            let as_it_was = if block == HANDLE.block { state == SHARED } else { state == FREE };
            let unheld = block == HANDLE.block && state == FREE;
            if !as_it_was && !unheld {
                return Err(format!("in the end, block {block} is in state {state} with {owner}"));
            }
        }
        Ok(())
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        carried::tell(ALL, self.capacity, offset, value)
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    use Part::*;
    let one = |mistake, parts: &[Part]| Setting {
        there: 1,
        deaths: 1,
        reapers: 1,
        mistake,
        ..Setting::of(1, OnReceiverDeath::Redeliver, parts)
    };
    vec![
        (
            one(Mistake::FreesTaken, &[ReceivesOnce]).model(),
            "boxes, what a dead receiver had taken is freed",
            Some("cannot be received"),
        ),
        (
            Setting { reapers: 0, ..one(Mistake::LeavesTaken, &[ReceivesOnce, ReceivesOnce]) }
                .model(),
            "boxes, what a dead receiver had taken is not taken over",
            Some("broken"),
        ),
        (
            Setting {
                deaths: 1,
                reapers: 1,
                mistake: Mistake::ReleasesFirst,
                ..Setting::of(1, OnReceiverDeath::Drop, &[Sends(1, 1), Receives])
            }
            .model(),
            "boxes, taken after the slot was released",
            Some("went from"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    use Part::*;
    let mut settings = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |parts: &[Part]| Setting::of(1, policy, parts);
        settings.push(of(&[Sends(1, 1), Receives]));
        settings.push(Setting { there: 2, deaths: 1, reapers: 1, ..of(&[ReceivesOnce]) });
        settings.push(Setting { there: 1, ..of(&[ReceivesOnce, ReceivesOnce]) });
    }
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |parts: &[Part]| Setting::of(1, policy, parts);
        settings.push(Setting { there: 1, reapers: 2, ..of(&[ReceivesOnce]) });
        let both = Setting { there: 1, reapers: 1, ..of(&[ReceivesOnce, ReceivesOnce]) };
        if all || policy == OnReceiverDeath::Drop {
            settings.push(Setting { deaths: 1, ..both.clone() });
        }
        settings.push(Setting { reapers: 1, ..of(&[Sends(1, 1), Receives]) });
        settings.push(Setting { deaths: 1, ..of(&[Sends(2, 1), Receives]) });
        settings.push(Setting { there: 2, alone: true, reapers: 1, ..of(&[ReceivesOnce]) });
        let preemptions = Some(2);
        if all {
            settings.push(both);
            settings.push(of(&[Sends(1, 2), Receives]));
            settings.push(Setting { there: 2, ..of(&[ReceivesOnce, ReceivesOnce]) });
            settings.push(Setting {
                there: 2,
                reapers: 1,
                preemptions,
                ..of(&[ReceivesOnce, ReceivesOnce])
            });
            settings.push(Setting { preemptions, reapers: 1, ..of(&[Sends(2, 1), Receives]) });
            settings.push(Setting::of(2, policy, &[Sends(2, 1), Receives]));
        }
    }
    settings.into_iter().map(Setting::model).collect()
}
