//! Messages that lie in blocks of their own: the crate's `ByteQueue`, in a block of the crate's
//! heap, with its reaper. Senders, receivers, holders and reapers die.
//!
//! The first word of a message is its number, and is written by two stores, the first of which is
//! nonsense. Whoever touches it must have the block: its sender, or the receiver whose slot carries
//! it. Whoever takes a block from its slot must find that nobody can receive it there any more.

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::block::Carrier;
use crate::heap::{BlockId, Pool};
use crate::models::carried::{
    self, CARRIED, CARRIER, HOLDERS, after_the_last, drain, header, is_occupied, is_there, leave,
    left, mistaken_reaper, slot, slot_at, within_block, within_header,
};
use crate::models::heap::{self, FREE, OWNED, SHARED, decode, with};
use crate::models::peers::{footprint, forget_cards};
use crate::object::kind::Kind;
use crate::object::parcel::{Contents, Envelope};
use crate::object::place::{self, HANDLE};
use crate::object::transfer::{TryRecvError, TrySendError};
use crate::object::{CreateError, Handle, block, flight, reap};
use crate::peer::PeerId;
use crate::peer::footprint::Cards;
use crate::peer::id::index_of;
use crate::queue::{ByteQueue, OnReceiverDeath, Queue, QueueOptions};
use crate::ring::position::{Phase, Position, SlotWord};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCKS};
use crate::world::{self, Access, Fate, Local, Note, read, write};

/// What a message holds while it is being written.
const TORN: u64 = u64::MAX;
/// Bytes of a message.
const LEN: usize = 248;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A block has the same generation each time that it is sent.
    OneGeneration,
    /// A block keeps its generation when it is sent. It has another when it is freed, and that is
    /// enough.
    KeepsGeneration,
    /// A message is published before its block is carried.
    PublishesFirst,
    /// A receiver gives the block back before the slot.
    DiscardsFirst,
    /// The reaper gives back what is stranded, and then recovers slots.
    SweepsFirst,
    /// The reaper looks at the queue once, before the slot.
    LooksOnce,
    /// A receiver gives the slot back, and then says that it may leave the block.
    MarksLate,
    /// The reaper gives up a message that the dead was reading, and does not look everywhere.
    LooksNowhere,
}

impl Mistake {
    fn is_senders(self) -> bool {
        matches!(self, Mistake::OneGeneration | Mistake::KeepsGeneration | Mistake::PublishesFirst)
    }

    fn is_reapers(self) -> bool {
        matches!(self, Mistake::SweepsFirst | Mistake::LooksOnce | Mistake::LooksNowhere)
    }
}

/// Who does what with the queue, beside the reapers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Sends so many, and gives up the first so many loans.
    Sends(u64, u64),
    /// Receives until there is nothing more and all senders have ended.
    Receives,
    /// Receives one, if it is there.
    ReceivesOnce,
    /// Has the queue and does nothing with it.
    Holds,
    /// Makes another queue, where there is room, and sends a short message there.
    MakesAnother,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub capacity: usize,
    pub policy: OnReceiverDeath,
    pub parts: Vec<Part>,
    /// Messages that are there from the beginning.
    pub there: u64,
    /// Blocks in all; one is the queue's.
    pub blocks: u64,
    /// They let go of the queue at the end.
    pub leave: bool,
    pub reapers: usize,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

impl Setting {
    pub fn of(capacity: usize, policy: OnReceiverDeath, parts: &[Part]) -> Setting {
        Setting {
            capacity,
            policy,
            parts: parts.to_vec(),
            there: 0,
            blocks: 3,
            leave: false,
            reapers: 0,
            deaths: 2,
            preemptions: None,
            mistake: Mistake::None,
        }
    }

    pub fn model(self) -> Model {
        let mut text = format!("{} slots, {:?}", self.capacity, self.policy).to_lowercase();
        text += &format!(", {:?}, {} blocks", self.parts, self.blocks);
        if self.there > 0 {
            text += &format!(", {} there", self.there);
        }
        if self.leave {
            text += ", leave";
        }
        text += &carried::limits(self.reapers, self.deaths, self.preemptions);
        let processes = self.processes();
        let monitor = Watch {
            capacity: self.capacity,
            policy: self.policy,
            blocks: self.blocks,
            there: self.there,
        };
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("message", text, monitor)
        }
    }

    fn len(&self) -> u64 {
        carried::len(self.capacity)
    }

    fn set_up(&self) {
        carried::set_up(self.processes().len(), self.blocks, Kind::Parcel.named::<()>());
        let holders = 1..self.parts.len();
        carried::share_queue(Kind::Bytes.named::<()>(), self.len(), holders, || {
            made(self.capacity, self.policy)
        });
        for number in 1..=self.there {
            let queue = queue(HANDLE, self.len());
            let mut loan = queue.loan(LEN).expect("room");
            write(offset_of(&mut loan), number);
            loan.try_send().expect("room");
        }
        forget_cards(self.processes().len(), self.blocks);
    }

    fn processes(&self) -> Vec<Process> {
        let len = self.len();
        let (leaves, mistake, capacity, policy) =
            (self.leave, self.mistake, self.capacity, self.policy);
        let senders: u64 = (self.parts.iter().enumerate())
            .map(|(process, part)| u64::from(matches!(part, Part::Sends(..))) << process)
            .sum();
        let messages: u64 = self.parts.iter().map(|&part| part.messages()).sum();
        let crowded = self.there + messages > capacity as u64;
        let mut first = 1 + self.there;
        let mut processes: Vec<Process> = Vec::new();
        for (process, &part) in self.parts.iter().enumerate() {
            let numbers = first..first + part.messages();
            first = numbers.end;
            let step = move |local: Local| -> Option<Local> {
                let queue = || queue(HANDLE, len);
                match part {
                    Part::Sends(..) if mistake.is_senders() => {
                        send_mistaken(process, numbers.clone(), mistake, local)
                    }
                    Part::Sends(_, aborts) => {
                        send(&queue(), numbers.clone(), aborts, crowded, local)
                    }
                    Part::Receives if mistake == Mistake::DiscardsFirst => {
                        receive_mistaken(senders, local)
                    }
                    Part::ReceivesOnce if mistake == Mistake::MarksLate => {
                        receive_unmarked(process);
                        None
                    }
                    Part::Receives => receive(&queue(), Some(senders), local),
                    Part::ReceivesOnce => receive(&queue(), None, local),
                    Part::Holds => None,
                    Part::MakesAnother => {
                        make_another(process, capacity, policy, len, local);
                        None
                    }
                }
            };
            let script = move |local: Local| {
                // What comes after the end of its part.
                const AFTER: u64 = 1 << 32;
                if local[3] == AFTER {
                    if part == Part::MakesAnother {
                        step(local);
                    }
                    return None;
                }
                match step_before(part, &step, local) {
                    Some(local) => Some(local),
                    None => {
                        if leaves || part == Part::MakesAnother {
                            leave(process, HANDLE);
                        }
                        Some([0, 0, 0, AFTER])
                    }
                }
            };
            processes.push(Process::new(part.name(), script));
        }
        let others = self.parts.len();
        for reaper in others..others + self.reapers {
            processes.push(if !mistake.is_reapers() {
                heap::reaper_of(reaper, others)
            } else {
                mistaken_reaper(reaper, others, move |pool, dead, me| {
                    clear_mistaken(pool, dead, me, mistake);
                })
            });
        }
        if crowded && senders != 0 {
            let is_receiver = |part: &Part| matches!(part, Part::Receives | Part::ReceivesOnce);
            processes.push(drain(self.parts.iter().map(is_receiver).collect(), move |local| {
                receive(&queue(HANDLE, len), Some(senders), local)
            }));
        }
        processes
    }
}

/// What a process does before it lets go of the queue.
fn step_before(part: Part, step: &dyn Fn(Local) -> Option<Local>, local: Local) -> Option<Local> {
    if part == Part::MakesAnother { None } else { step(local) }
}

impl Part {
    fn messages(self) -> u64 {
        if let Part::Sends(messages, _) = self { messages } else { 0 }
    }

    fn name(self) -> &'static str {
        match self {
            Part::Sends(..) => "sender",
            Part::Receives | Part::ReceivesOnce => "receiver",
            Part::Holds => "holder",
            Part::MakesAnother => "maker",
        }
    }
}

fn made(capacity: usize, policy: OnReceiverDeath) -> ByteQueue {
    let mut options = QueueOptions::new();
    options.capacity(capacity).on_receiver_death(policy);
    options.create_bytes().expect("a queue")
}

fn queue(handle: Handle, len: u64) -> ByteQueue {
    place::lie_at(BLOCKS + handle.block * BLOCK, len, handle);
    let segment = Segment::commons().expect("a segment");
    ByteQueue::open(&segment, handle).expect("a queue")
}

fn envelopes() -> Queue<Envelope> {
    let segment = Segment::commons().expect("a segment");
    Queue::open(&segment, HANDLE).expect("a queue")
}

fn offset_of(loan: &mut [u8]) -> usize {
    world::offset_of(loan.as_ptr().addr()).expect("in the arena")
}

/// Sends messages with these numbers, of which `local` counts them, after it gave up some loans.
fn send(
    queue: &ByteQueue,
    numbers: std::ops::Range<u64>,
    aborts: u64,
    crowded: bool,
    [sent, aborted, ..]: Local,
) -> Option<Local> {
    let number = numbers.start + sent;
    if number == numbers.end {
        return None;
    }
    let again = Some([sent, aborted, 0, 0]);
    if crowded && queue.is_full() {
        // A receiver may have died with a message. A loan that is not sent would do as well, but
        // each has a generation of its own, and so there would be no end of states.
        with(world::me(), |mapping, _, me| reap::reap_all(mapping, me));
        return again;
    }
    let mut loan = match queue.loan(LEN) {
        Ok(loan) => loan,
        Err(CreateError::OutOfMemory { .. }) => return again,
        Err(_) => {
            world::note("no loan", 0, 0);
            return None;
        }
    };
    let message = offset_of(&mut loan);
    write(message, TORN);
    if aborted < aborts {
        return Some([sent, aborted + 1, 0, 0]);
    }
    write(message, number);
    match loan.try_send() {
        Ok(()) => Some([sent + 1, aborted, 0, 0]),
        Err(TrySendError::Full(_)) => again,
        Err(_) => {
            world::note("not sent", number, 0);
            None
        }
    }
}

/// Receives what is there; until `senders` have ended, or once.
fn receive(queue: &ByteQueue, senders: Option<u64>, [ended, ..]: Local) -> Option<Local> {
    let message = match queue.try_recv() {
        Ok(message) => message,
        Err(TryRecvError::Empty) => return after_the_last(senders, ended),
        Err(_) => {
            world::note("broken", 0, 0);
            return None;
        }
    };
    look_into(&message, message.redelivered());
    drop(message);
    senders.map(|_| [ended, 0, 0, 0])
}

fn look_into(message: &[u8], redelivered: bool) {
    let offset = world::offset_of(message.as_ptr().addr()).unwrap_or(0);
    let (first, second) = (read(offset), read(offset));
    if message.len() != LEN || first != second {
        world::note("torn", first, second);
    }
    world::note("received", first, redelivered.into());
}

/// Makes another queue where the first one lay, or elsewhere, and sends a short message.
fn make_another(process: usize, capacity: usize, policy: OnReceiverDeath, len: u64, _: Local) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let Ok(owned) = pool.allocate(me, Kind::Bytes.named::<()>(), len) else {
            return;
        };
        let handle =
            Handle { segment: 0, block: owned.id.to_bits(), generation: owned.generation().into() };
        place::lie_at(owned.offset(), len, handle);
        let queue = made(capacity, policy);
        if !pool.share(&owned, me) {
            world::note("not shared", 0, 0);
        }
        if queue.try_send(b"x").is_err() {
            world::note("not sent", 0, 0);
        }
    });
}

/// A sender of our own, for controls.
fn send_mistaken(
    process: usize,
    numbers: std::ops::Range<u64>,
    mistake: Mistake,
    [sent, ..]: Local,
) -> Option<Local> {
    let number = numbers.start + sent;
    if number == numbers.end {
        return None;
    }
    place::lie_at(BLOCKS, place::len(), HANDLE);
    with(process, |mapping, region, me| {
        let again = Some([sent, 0, 0, 0]);
        let pool = Pool::new(mapping, region);
        let queue = envelopes();
        if queue.is_full() {
            return again;
        }
        let Ok(owned) = pool.allocate(me, Kind::Parcel.named::<()>(), LEN as u64) else {
            return again;
        };
        write(owned.offset() as usize, number);
        let Ok(mut slot) = queue.try_reserve() else {
            pool.give_back(&owned);
            return again;
        };
        let word = header(owned.id.to_bits());
        let generation = match mistake {
            Mistake::OneGeneration => 1,
            Mistake::KeepsGeneration => u64::from(owned.generation()),
            _ => u64::from(owned.generation()) + 1,
        };
        let position = slot.position().to_bits();
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *slot));
        words[..3].copy_from_slice(&[(LEN as u64) << 1, owned.id.to_bits(), generation]);
        let carry = || {
            for (index, value) in
                [HANDLE.block, HANDLE.generation, !position].into_iter().enumerate()
            {
                write(word + CARRIER + 8 * index, value);
            }
            write(word, generation << 34 | CARRIED << 31);
        };
        if mistake == Mistake::PublishesFirst {
            slot.commit();
            carry();
        } else {
            carry();
            slot.commit();
        }
        Some([sent + 1, 0, 0, 0])
    })
}

/// A receiver of our own, for controls.
fn receive_mistaken(senders: u64, [ended, ..]: Local) -> Option<Local> {
    place::lie_at(BLOCKS, place::len(), HANDLE);
    let queue = envelopes();
    let Ok(received) = queue.try_recv_ref() else {
        return after_the_last(Some(senders), ended);
    };
    with(world::me(), |mapping, region, me| {
        let holder = crate::object::holding::Holder::new(me, region, mapping);
        let carrier = Carrier {
            block: HANDLE.block,
            generation: HANDLE.generation as u32,
            position: received.claim().position().to_bits(),
        };
        let Some(contents) = Contents::find(&holder, &received, carrier) else {
            world::note("broken", 0, 0);
            return;
        };
        look_into(contents.bytes(received.claim()).unwrap_or_default(), received.redelivered());
        contents.discard(&holder);
    });
    drop(received);
    Some([ended, 0, 0, 0])
}

/// As above.
fn receive_unmarked(process: usize) {
    place::lie_at(BLOCKS, place::len(), HANDLE);
    let queue = envelopes();
    let Ok(received) = queue.try_recv_ref() else {
        return;
    };
    let carried = received.block().expect("a block");
    let carrier = Carrier {
        block: HANDLE.block,
        generation: HANDLE.generation as u32,
        position: received.claim().position().to_bits(),
    };
    drop(received);
    with(process, |mapping, region, me| {
        Pool::new(mapping, region).discard(carried, carrier, me.owner(), |_| {});
    });
}

/// What a reaper of our own does, for controls.
fn clear_mistaken(pool: &Pool<'_>, dead: PeerId, me: PeerId, mistake: Mistake) {
    let carries = |carrier: Carrier| {
        if mistake != Mistake::LooksOnce {
            return block::carries(pool, carrier);
        }
        let id = BlockId::from_bits(carrier.block).expect("a block");
        let position = Position::from_bits(carrier.position);
        pool.shared(id, carrier.generation).is_some_and(|_| {
            let word = SlotWord::from_bits(read(slot(position.index() as usize)));
            word.lap() == position.lap() && is_occupied(word)
        })
    };
    if mistake == Mistake::SweepsFirst {
        pool.sweep(me, Cards::ALL, carries, |_| {});
    }
    let taken = |carrier| block::carries(pool, carrier);
    let recover = |object| {
        block::recover(pool, object, dead.owner());
        if mistake == Mistake::LooksNowhere {
            let [.., last] = footprint(dead.index() as usize);
            world::access(world::at(last), Access::And(0));
        }
    };
    flight::settle(pool, me, |empty| pool.clear(dead, me, taken, recover, empty, |_| {}));
    if mistake != Mistake::SweepsFirst {
        let looks_nowhere = mistake == Mistake::LooksNowhere;
        let cards = if looks_nowhere { pool.cards(dead) } else { Cards::ALL };
        pool.sweep(me, cards, carries, |_| {});
    }
}

// What the monitor remembers: sets of messages, with a bit for each.
const SENT: usize = 0;
/// Claimed for reading at least once.
const BEGUN: usize = 1;
/// Claimed for reading again.
const AGAIN: usize = 2;
/// Released by their receiver.
const TAKEN: usize = 3;
/// Dropped with their dead receiver, or with the queue.
const GONE: usize = 4;

struct Watch {
    capacity: usize,
    policy: OnReceiverDeath,
    blocks: u64,
    /// Messages that were there from the beginning.
    there: u64,
}

impl Watch {
    /// The bit of the message in a slot.
    fn message(&self, read: &dyn Fn(usize) -> u64, index: usize) -> Result<u64, String> {
        let envelope = read(slot(index) + 8);
        let (block, generation) = (envelope >> 16 & 0xffff, envelope >> 32);
        if block >= self.blocks {
            return Err(format!("slot {index} names block {block}"));
        }
        let (is, state, _) = decode(read(header(block)));
        let carrier = carried::carrier(read, block).map(|(index, _)| index);
        if state != CARRIED || is != generation || carrier != Some(index) {
            return Err(format!(
                "slot {index} names block {block}, generation {generation}, and does not carry it"
            ));
        }
        let number = read((BLOCKS + block * BLOCK) as usize);
        if number < 64 {
            Ok(1 << number)
        } else {
            Err(format!("slot {index} holds no message: {number:#x}"))
        }
    }

    fn moved(
        &self,
        touch: Touch,
        index: usize,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        // The words of another queue say nothing of these messages.
        let now = |offset| view.read(offset);
        if !is_there(&now) {
            return Ok(());
        }
        let (before, after) = (SlotWord::from_bits(touch.before), SlotWord::from_bits(touch.after));
        // As it was: a slot that was released carries nothing.
        let was = |offset| if offset == slot(index) { touch.before } else { view.read(offset) };
        let mine = before.owner() == touch.process as u32;
        match (before.phase(), after.phase()) {
            (Phase::Writing, Phase::Full) => {
                let message = self.message(&now, index)?;
                if ghost[SENT] & message != 0 {
                    return Err("a message was sent twice".into());
                }
                ghost[SENT] |= message;
            }
            (Phase::Full, Phase::Reading) => {
                let message = self.message(&now, index)?;
                if ghost[BEGUN] & message != 0 {
                    return Err("a message was received twice".into());
                }
                ghost[BEGUN] |= message;
            }
            (Phase::Orphan, Phase::Reading) => ghost[AGAIN] |= self.message(&now, index)?,
            (Phase::Reading, Phase::Empty) => {
                let message = self.message(&was, index)?;
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

    fn block_moved(
        &self,
        touch: Touch,
        block: u64,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let now = |offset| view.read(offset);
        let was = |offset| if offset == touch.offset { touch.before } else { view.read(offset) };
        let ((g, from, before), (h, to, after)) = (decode(touch.before), decode(touch.after));
        let mine = |owner| index_of(owner) as usize == touch.process;
        let is_dead = |owner| view.is_dead(index_of(owner) as usize);
        match (from, to) {
            (FREE, OWNED) if h == g && mine(after) => Ok(()),
            (OWNED, SHARED) if h == g && mine(before) => Ok(()),
            (SHARED, SHARED) if h == g => Ok(()),
            (SHARED, OWNED) if h == g && mine(after) => {
                let holders = view.read(header(block) + HOLDERS);
                let living = (0..view.fates.len()).find(|&process| {
                    holders >> process & 1 != 0
                        && process != touch.process
                        && !view.is_dead(process)
                });
                if let Some(holder) = living {
                    return Err(format!("the queue is taken from {holder}"));
                }
                if block == HANDLE.block && g == HANDLE.generation {
                    for index in 0..self.capacity {
                        let word = SlotWord::from_bits(view.read(slot(index)));
                        if is_occupied(word) && word.phase() != Phase::Writing {
                            ghost[GONE] |= self.message(&was, index)?;
                        }
                    }
                }
                Ok(())
            }
            // In whose name a block is torn down does not matter while the one before is dead.
            (OWNED, OWNED) if h == g && is_dead(before) => Ok(()),
            (OWNED, CARRIED) if mine(before) => Ok(()),
            (CARRIED, OWNED) if h == g && mine(after) => match carried::carrier(&now, block) {
                Some((index, word)) => {
                    Err(format!("block {block} is taken from slot {index}, which is {word:?}"))
                }
                None => Ok(()),
            },
            (OWNED, FREE) if h == g + 1 && (mine(before) || is_dead(before)) => Ok(()),
            _ => Err(format!(
                "block {block} went from {:?} to {:?}",
                decode(touch.before),
                decode(touch.after)
            )),
        }
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        if let Some(index) = slot_at(self.capacity, touch.offset)
            && touch.before != touch.after
        {
            return self.moved(touch, index, view, ghost);
        }
        if let Some((block, 0)) = within_header(self.blocks, touch.offset)
            && touch.before != touch.after
        {
            return self.block_moved(touch, block, view, ghost);
        }
        if let Some((block, 0)) = within_block(self.blocks, touch.offset)
            && block != HANDLE.block
            && decode(view.read(header(block))).1 != SHARED
        {
            let now = |offset| view.read(offset);
            let (_, state, owner) = decode(now(header(block)));
            let owned = state == OWNED && index_of(owner) as usize == touch.process;
            let read = touch.access == Access::Load
                && state == CARRIED
                && carried::carrier(&now, block).is_some_and(|(_, word)| {
                    word.phase() == Phase::Reading && word.owner() == touch.process as u32
                });
            if !owned && !read {
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
                let message = 1u64.checked_shl(note.a as u32).unwrap_or(0);
                let again = ghost[AGAIN] & message != 0;
                if ghost[BEGUN] & message == 0 || again != (note.b != 0) {
                    return Err(format!("received {note:?} of {:#b}, {:#b}", ghost[0], ghost[2]));
                }
                Ok(())
            }
            what => Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        let there = ((1 << self.there) - 1) << 1;
        let sent = ghost[SENT] | there;
        let mut accounted = ghost[TAKEN] | ghost[GONE];
        if fates.iter().all(|&fate| fate == Fate::Ended) && !is_there(&read) {
            // Nobody has died, so nobody needs to be cleared up after.
            self.all_of_messages_free()?;
        }
        // What the dead were reading is dropped with them; and everything, if nobody has the queue.
        let (mut read_by_the_dead, mut all) = (0, 0);
        for index in (0..self.capacity).filter(|_| is_there(&read)) {
            let word = SlotWord::from_bits(read(slot(index)));
            if is_occupied(word) && word.phase() != Phase::Writing {
                let message = self.message(&read, index)?;
                all |= message;
                if word.phase() == Phase::Reading && self.policy == OnReceiverDeath::Drop {
                    read_by_the_dead |= message;
                }
            }
        }
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        accounted |= if is_there(&read) { read_by_the_dead } else { all };
        // What is left can be received, and memory be had again.
        if is_there(&read) {
            let queue = queue(HANDLE, carried::len(self.capacity));
            while let Ok(message) = queue.try_recv() {
                let offset = world::offset_of(message.as_ptr().addr()).unwrap_or(0);
                let number = read(offset);
                if number >= 64 || accounted >> number & 1 != 0 {
                    return Err(format!("message {number} is left over"));
                }
                accounted |= 1 << number;
            }
            for _ in 1..self.blocks {
                drop(queue.loan(LEN).map_err(|error| format!("memory is lost: {error}"))?);
            }
        }
        if accounted & sent != sent {
            return Err(format!("sent {sent:#b}, and {accounted:#b} is accounted for"));
        }
        for (process, &fate) in fates.iter().enumerate() {
            for block in 0..self.blocks {
                let (generation, state, _) = decode(read(header(block)));
                if fate == Fate::Ended && state == SHARED {
                    leave(process, Handle { segment: 0, block, generation });
                }
            }
        }
        match left(self.blocks) {
            Some(block) => Err(format!("in the end, {block}")),
            None => Ok(()),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        carried::tell(self.blocks, self.capacity, offset, value)
    }
}

impl Watch {
    /// Without a death nobody clears up, and nothing must need it.
    fn all_of_messages_free(&self) -> Result<(), String> {
        for block in 0..self.blocks {
            let (_, state, _) = decode(read(header(block)));
            if state == CARRIED {
                return Err(format!("nobody died, and block {block} is left in no message"));
            }
        }
        Ok(())
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    use Part::*;
    let one = |parts: &[Part]| Setting {
        deaths: 1,
        preemptions: Some(2),
        ..Setting::of(1, OnReceiverDeath::Drop, parts)
    };
    // The block that was read before is sent again. The reaper looks at it, as the dead receiver
    // has read the first message.
    let again = Setting { blocks: 2, reapers: 1, ..one(&[Sends(3, 0), Receives]) };
    let of = |mistake, setting: Setting| Setting { mistake, ..setting }.model();
    vec![
        (
            of(Mistake::OneGeneration, again.clone()),
            "messages, a block with the same generation each time",
            Some("is taken from slot"),
        ),
        (
            of(Mistake::KeepsGeneration, again),
            "messages, a block with another generation when it is freed only",
            None,
        ),
        (
            of(Mistake::PublishesFirst, one(&[Sends(1, 0), Receives])),
            "messages, published before the block is carried",
            Some("does not carry it"),
        ),
        (
            of(Mistake::DiscardsFirst, one(&[Sends(1, 0), Receives])),
            "messages, given back before the slot",
            Some("is taken from slot"),
        ),
        (
            of(Mistake::SweepsFirst, Setting { there: 1, reapers: 1, ..one(&[ReceivesOnce]) }),
            "messages, stranded ones given back before slots are recovered",
            Some("is left in state 3"),
        ),
        (
            of(
                Mistake::LooksOnce,
                Setting { there: 1, reapers: 1, ..one(&[ReceivesOnce, MakesAnother]) },
            ),
            "messages, judged without a second look at the queue",
            Some("is left in state 3"),
        ),
        (
            of(Mistake::MarksLate, Setting { there: 1, ..one(&[ReceivesOnce]) }),
            "messages, given back by a receiver that has not said where it may leave them",
            Some("is left in state 3"),
        ),
        (
            of(Mistake::LooksNowhere, Setting { there: 1, reapers: 1, ..one(&[ReceivesOnce]) }),
            "messages, given up by a reaper that looks only where the dead has been",
            Some("is left in state 3"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    use Part::*;
    let mut settings = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |parts: &[Part]| Setting::of(1, policy, parts);
        settings.push(of(&[Sends(1, 0), Receives]));
        settings.push(Setting { there: 1, deaths: 1, reapers: 1, ..of(&[ReceivesOnce]) });
    }
    let two = |policy, parts: &[Part]| Setting::of(2, policy, parts);
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |parts: &[Part]| Setting::of(1, policy, parts);
        let two = |parts: &[Part]| two(policy, parts);
        settings.push(Setting { there: 1, ..of(&[Receives, Receives]) });
        settings.push(two(&[Sends(1, 1), Receives]));
        settings.push(two(&[Sends(1, 0), Sends(1, 0)]));
        settings.push(Setting { blocks: 2, ..of(&[Sends(2, 0), Receives]) });
        settings.push(of(&[Sends(2, 0), Receives]));
        // Two let go at once, with a message in the queue: the one that freed it left the message,
        // as neither had seen itself alone.
        settings.push(Setting { there: 1, leave: true, ..of(&[Holds, Holds]) });
        settings.push(Setting { there: 1, leave: true, ..of(&[ReceivesOnce, Holds]) });
        settings.push(Setting { leave: true, ..of(&[Sends(1, 0), ReceivesOnce]) });
        settings.push(Setting { reapers: 1, ..of(&[Sends(1, 0), Receives]) });
        settings.push(Setting { there: 1, reapers: 2, ..of(&[ReceivesOnce]) });
        let another = of(&[ReceivesOnce, MakesAnother]);
        let preemptions = Some(2);
        if all {
            let leave = of(&[ReceivesOnce, Holds]);
            settings.push(Setting { there: 1, reapers: 1, leave: true, ..leave });
            settings.push(Setting { there: 1, reapers: 1, deaths: 1, preemptions, ..another });
        }
    }
    settings.into_iter().map(Setting::model).collect()
}
