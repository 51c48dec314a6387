//! The queue: the crate's `Queue` over its ring and events, with senders and receivers that die.
//!
//! The payload is a word of its own and takes two stores, the first of which is nonsense, and two
//! loads; so a message that is read too early, too late or twice is seen. Every change of a slot's
//! word is held against the state diagram in `src/ring/mpmc.rs`.

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::models::recover;
use crate::object::kind::Kind;
use crate::object::place::HANDLE;
use crate::object::transfer::{RecvError, SendError, TryRecvError, TrySendError};
use crate::queue::{OnReceiverDeath, Queue, QueueOptions};
use crate::ring::position::{Phase, Position, SlotWord};
use crate::segment::Segment;
use crate::segment::layout::OBJECT;
use crate::segment::region;
use crate::sync::Wait;
use crate::world::{self, Access, Fate, Local, Note};

/// What a slot holds while it is being written.
pub const TORN: u64 = u64::MAX;

// Where the queue's words lie; `src/object/block/queue.rs` asserts it.
pub const TAIL: usize = OBJECT as usize + 128;
pub const HEAD: usize = OBJECT as usize + 256;
const DONE: usize = OBJECT as usize + 264;
const ITEMS: usize = OBJECT as usize + 384;
pub const CLOSED: usize = OBJECT as usize + 388;
const ORPHANS: usize = OBJECT as usize + 392;
const LOST: usize = OBJECT as usize + 400;
const SPACE: usize = OBJECT as usize + 512;
pub const SLOTS: usize = OBJECT as usize + 640;
pub const STRIDE: usize = 16;
pub const PAYLOAD: usize = 8;

/// How the processes of a configuration call the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `try_reserve` and `try_recv_ref`, again and again.
    Try,
    /// `reserve` and `recv_ref`, which sleep.
    Block,
    /// `send_many` and `recv_many`, which sleep.
    Batch,
}

/// Who ends the queue, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Nobody: receivers stop when the queue is empty and all senders have ended.
    Never,
    /// Somebody who lives on, after all senders have ended.
    AtTheEnd,
    /// A mortal, at any time.
    InTheMiddle,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub capacity: usize,
    pub policy: OnReceiverDeath,
    pub calls: Calls,
    pub close: Close,
    /// Messages that each sender sends.
    pub senders: Vec<u64>,
    /// Of these, the number of the one that it gives up.
    pub aborts: Option<u64>,
    pub receivers: usize,
    /// Receivers begin when all senders have ended.
    pub late: bool,
    /// One that clears up after the dead by `block::recover`, as the reaper does.
    pub reaper: bool,
    pub deaths: usize,
    pub slices: Slices,
    pub preemptions: Option<u64>,
    /// Payloads are written and read, and tell the messages; else their positions do.
    pub payload: bool,
}

impl Setting {
    pub fn new(
        capacity: usize,
        policy: OnReceiverDeath,
        calls: Calls,
        senders: &[u64],
        receivers: usize,
    ) -> Setting {
        Setting {
            capacity,
            policy,
            calls,
            close: Close::AtTheEnd,
            senders: senders.to_vec(),
            aborts: None,
            receivers,
            late: false,
            reaper: false,
            deaths: senders.len() + receivers,
            slices: Slices::LastResort,
            preemptions: None,
            payload: calls == Calls::Try,
        }
    }

    pub fn model(self) -> Model {
        let mut text =
            format!("{} slots, {:?}, {:?}", self.capacity, self.policy, self.calls).to_lowercase();
        text += &format!(", {:?} to {}", self.senders, self.receivers);
        if let Some(abort) = self.aborts {
            text += &format!(", abort {abort}");
        }
        text += match self.close {
            Close::Never => "",
            Close::AtTheEnd => ", closed",
            Close::InTheMiddle => ", closed in the middle",
        };
        if self.late {
            text += ", late";
        }
        if self.reaper {
            text += ", reaper";
        }
        if matches!(self.slices, Slices::Anytime(_)) {
            text += ", slices";
        }
        text += &format!(", {} die", self.deaths);
        if let Some(preemptions) = self.preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let monitor = Watch::of(&self);
        let processes = self.processes();
        let (deaths, slices, preemptions) = (self.deaths, self.slices, self.preemptions);
        let set_up = Box::new(move || self.set_up());
        Model {
            set_up,
            processes,
            deaths,
            slices,
            preemptions,
            ..Model::new("queue", text, monitor)
        }
    }

    pub fn set_up(&self) {
        region::lay_out(0, 0);
        let mut options = QueueOptions::new();
        options.capacity(self.capacity).on_receiver_death(self.policy);
        let queue: Queue<u64> = options.create().expect("a queue");
        drop(queue);
    }

    fn processes(&self) -> Vec<Process> {
        let mut processes = Vec::new();
        let (calls, close, aborts, payload) = (self.calls, self.close, self.aborts, self.payload);
        let all_senders = (1 << self.senders.len()) - 1;
        for (sender, &messages) in self.senders.iter().enumerate() {
            let first = 1 + self.senders[..sender].iter().sum::<u64>();
            processes.push(Process::new("sender", move |local| {
                send(calls, payload.then_some(first), messages, aborts, local)
            }));
        }
        for _ in 0..self.receivers {
            let end = (close == Close::Never).then_some(all_senders);
            let (late, senders) = (self.late, self.senders.len());
            processes.push(Process {
                may_run: Box::new(move |fates| {
                    !late || fates[..senders].iter().all(|&fate| fate != Fate::Running)
                }),
                ..Process::new("receiver", move |local| receive(calls, payload, end, local))
            });
        }
        if close == Close::InTheMiddle {
            processes.push(Process::new("closer", |_| {
                queue().close();
                None
            }));
        }
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
        let (senders, mortals) = (self.senders.len(), processes.len());
        let receivers = senders..senders + self.receivers;
        // If the mortal closer was killed, somebody else closes in the end.
        if close != Close::Never {
            processes.push(Process::immortal(
                "closes",
                move |fates| fates[..senders].iter().all(|&fate| fate != Fate::Running),
                |_| {
                    queue().close();
                    None
                },
            ));
        }
        let end = (close == Close::Never).then_some(all_senders);
        processes.push(Process::immortal(
            "drains",
            move |fates| fates[receivers.clone()].iter().all(|&fate| fate != Fate::Running),
            move |local| receive(Calls::Try, payload, end, local),
        ));
        assert!(processes.len() <= 8 && mortals <= 6, "indices are few");
        processes
    }
}

fn queue() -> Queue<u64> {
    let segment = Segment::commons().expect("a segment");
    Queue::open(&segment, HANDLE).expect("a queue").with_wait(Wait::Sleep)
}

fn address_of(value: &u64) -> usize {
    (&raw const *value).addr()
}

/// Sends message after message: `local` counts them. Their payloads begin with `first`.
pub fn send(
    calls: Calls,
    first: Option<u64>,
    messages: u64,
    aborts: Option<u64>,
    [sent, ..]: Local,
) -> Option<Local> {
    if sent == messages {
        return None;
    }
    let queue = queue();
    if calls == Calls::Batch {
        let values = vec![0; messages as usize];
        match queue.send_many(&values) {
            Ok(()) => {}
            Err(error) if matches!(error.error, SendError::Closed(())) => {}
            Err(error) => world::note("broken", error.sent as u64, 0),
        }
        return None;
    }
    let slot = match calls {
        Calls::Try => match queue.try_reserve() {
            Ok(slot) => slot,
            Err(TrySendError::Full(())) => return Some([sent, 0, 0, 0]),
            Err(TrySendError::Closed(())) => return None,
            Err(_) => {
                world::note("broken", 0, 0);
                return None;
            }
        },
        _ => match queue.reserve() {
            Ok(slot) => slot,
            Err(SendError::Closed(())) => return None,
            Err(_) => {
                world::note("broken", 0, 0);
                return None;
            }
        },
    };
    let payload = address_of(&slot);
    if first.is_some() {
        world::access(payload, Access::Store(TORN));
    }
    if aborts == Some(sent) {
        drop(slot);
    } else {
        if let Some(first) = first {
            world::access(payload, Access::Store(first + sent));
        }
        slot.commit();
    }
    Some([sent + 1, 0, 0, 0])
}

/// Receives until the queue is closed or, if `senders` says so, empty after they have ended: that
/// is known if `local` is not zero.
fn receive(calls: Calls, payload: bool, senders: Option<u64>, [ended, ..]: Local) -> Option<Local> {
    let queue = queue();
    if calls == Calls::Batch {
        return match queue.recv_many(&mut Vec::new(), 2) {
            Ok(_) => Some([0; 4]),
            Err(RecvError::Closed) => {
                world::note("closed", 0, 0);
                None
            }
            Err(_) => {
                world::note("broken", 0, 0);
                None
            }
        };
    }
    let received = match calls {
        Calls::Try => match queue.try_recv_ref() {
            Ok(received) => received,
            Err(TryRecvError::Empty) => {
                return match senders {
                    Some(_) if ended != 0 => None,
                    Some(senders) => Some([world::have_ended(senders).into(), 0, 0, 0]),
                    None => Some([0; 4]),
                };
            }
            Err(TryRecvError::Closed) => {
                world::note("closed", 0, 0);
                return None;
            }
            Err(_) => {
                world::note("broken", 0, 0);
                return None;
            }
        },
        _ => match queue.recv_ref() {
            Ok(received) => received,
            Err(RecvError::Closed) => {
                world::note("closed", 0, 0);
                return None;
            }
            Err(_) => {
                world::note("broken", 0, 0);
                return None;
            }
        },
    };
    if payload {
        let address = address_of(&received);
        let first = world::access(address, Access::Load).unwrap_or(0);
        let second = world::access(address, Access::Load).unwrap_or(0);
        if first != second || first == TORN {
            world::note("torn", first, second);
        }
        world::note("received", first, received.redelivered().into());
    }
    drop(received);
    Some([ended, 0, 0, 0])
}

fn clear_up(dead: usize) {
    recover(Kind::Queue.with::<u64>(), 1024, dead);
}

// What the monitor remembers. Messages are numbered from 1; sets have a bit for each.
/// Positions claimed for writing.
const WRITES: usize = 0;
const PUBLISHED: usize = 1;
/// Claimed for reading at least once.
const BEGUN: usize = 2;
/// Claimed for reading again.
const AGAIN: usize = 3;
/// Released by their reader.
const TAKEN: usize = 4;
/// Dropped with their dead reader.
const GONE: usize = 5;

/// The monitor.
pub struct Watch {
    capacity: usize,
    policy: OnReceiverDeath,
    /// Messages are told by their payload; else by their position.
    payload: bool,
    closed: bool,
    receivers: std::ops::Range<usize>,
}

impl Watch {
    pub fn of(setting: &Setting) -> Watch {
        Watch {
            capacity: setting.capacity,
            policy: setting.policy,
            payload: setting.payload,
            closed: setting.close != Close::Never,
            receivers: setting.senders.len()..setting.senders.len() + setting.receivers,
        }
    }

    /// Which slot a word belongs to, and whether it is its payload.
    fn slot(&self, offset: usize) -> Option<(usize, bool)> {
        let index = offset.checked_sub(SLOTS)? / STRIDE;
        (index < self.capacity).then_some((index, (offset - SLOTS) % STRIDE == PAYLOAD))
    }

    fn word(&self, view: &View<'_>, index: usize) -> SlotWord {
        SlotWord::from_bits(view.read(SLOTS + index * STRIDE))
    }

    /// The number of a position, from 0.
    fn number(&self, lap: u64, index: usize) -> u64 {
        lap * self.capacity as u64 + index as u64
    }

    /// The bit of the message in a slot.
    fn message(&self, view: &View<'_>, lap: u64, index: usize) -> Result<u64, String> {
        let number = if self.payload {
            view.read(SLOTS + index * STRIDE + PAYLOAD)
        } else {
            self.number(lap, index)
        };
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
        let (before, after) = (SlotWord::from_bits(touch.before), SlotWord::from_bits(touch.after));
        let position = self.number(before.lap(), index);
        let me = touch.process as u32;
        let owner_lives = || !view.is_dead(before.owner() as usize);
        let same_lap = after.lap() == before.lap();
        let next_lap = after.lap() == before.lap() + 1;
        let mine = before.owner() == me;
        let wrong =
            || Err(format!("slot {index} went from {before:?} to {after:?}, of process {me}"));
        let store = matches!(touch.access, Access::Store(_));
        match (before.phase(), after.phase()) {
            (Phase::Empty, Phase::Writing) if same_lap && after.owner() == me && !store => {
                if position != ghost[WRITES] {
                    return Err(format!(
                        "position {position} was claimed for writing, not {}",
                        ghost[WRITES]
                    ));
                }
                ghost[WRITES] += 1;
            }
            (Phase::Empty, Phase::Sealed) if same_lap && !store => {
                if view.read(CLOSED) == 0 {
                    return Err("an open queue was sealed".into());
                }
            }
            (Phase::Writing, Phase::Full) if same_lap && mine => {
                let message = self.message(view, before.lap(), index)?;
                if ghost[PUBLISHED] & message != 0 {
                    return Err("a message was published twice, or before it was written".into());
                }
                ghost[PUBLISHED] |= message;
            }
            (Phase::Writing, Phase::Empty) if next_lap && mine => {}
            (Phase::Writing, Phase::Empty) if next_lap && !store => {
                if owner_lives() {
                    return Err("a living sender lost its slot".into());
                }
            }
            (Phase::Full, Phase::Reading) if same_lap && after.owner() == me && !store => {
                for other in 0..self.capacity {
                    let word = self.word(view, other);
                    if matches!(word.phase(), Phase::Writing | Phase::Full)
                        && self.number(word.lap(), other) < position
                    {
                        return Err(format!(
                            "position {position} was received before {}",
                            self.number(word.lap(), other)
                        ));
                    }
                }
                let message = self.message(view, before.lap(), index)?;
                if ghost[BEGUN] & message != 0 {
                    return Err("a message was received twice".into());
                }
                ghost[BEGUN] |= message;
            }
            (Phase::Orphan, Phase::Reading) if same_lap && after.owner() == me && !store => {
                ghost[AGAIN] |= self.message(view, before.lap(), index)?;
            }
            (Phase::Reading, Phase::Empty) if next_lap && mine => {
                let message = self.message(view, before.lap(), index)?;
                if (ghost[TAKEN] | ghost[GONE]) & message != 0 {
                    return Err("a message was taken twice".into());
                }
                ghost[TAKEN] |= message;
            }
            (Phase::Reading, Phase::Empty)
                if next_lap && !store && self.policy == OnReceiverDeath::Drop =>
            {
                if owner_lives() {
                    return Err("a living receiver lost its message".into());
                }
                ghost[GONE] |= self.message(view, before.lap(), index)?;
            }
            (Phase::Reading, Phase::Orphan)
                if same_lap && !store && self.policy == OnReceiverDeath::Redeliver =>
            {
                if owner_lives() {
                    return Err("a living receiver lost its message".into());
                }
            }
            _ => return wrong(),
        }
        Ok(())
    }
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        let Some((index, payload)) = self.slot(touch.offset) else {
            return Ok(());
        };
        if payload {
            let word = self.word(view, index);
            let phase = if touch.access == Access::Load { Phase::Reading } else { Phase::Writing };
            let mine = word.phase() == phase && word.owner() == touch.process as u32;
            return if mine {
                Ok(())
            } else {
                Err(format!("the payload of slot {index} was touched while it was {word:?}"))
            };
        }
        if touch.before == touch.after {
            return Ok(());
        }
        self.moved(touch, index, view, ghost)
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        match note.what {
            "received" => {
                let message = 1u64.checked_shl(note.a as u32).unwrap_or(0);
                if ghost[PUBLISHED] & message == 0 {
                    return Err(format!("message {} was received and never sent", note.a));
                }
                let again = ghost[AGAIN] & message != 0;
                if again != (note.b != 0) {
                    return Err(format!(
                        "message {}: redelivered is {again}, and the receiver was told otherwise",
                        note.a
                    ));
                }
                Ok(())
            }
            "closed" => {
                let unreceived = ghost[PUBLISHED] & !ghost[BEGUN];
                if unreceived != 0 {
                    return Err(format!(
                        "{process} was told that the queue is drained, with messages {unreceived:#b} in it"
                    ));
                }
                let orphans =
                    (0..self.capacity).any(|index| self.word(view, index).phase() == Phase::Orphan);
                if orphans {
                    return Err(format!(
                        "{process} was told that the queue is drained, and a message had come back"
                    ));
                }
                Ok(())
            }
            _ => Err(format!("{} ({:#x}, {:#x})", note.what, note.a, note.b)),
        }
    }

    fn could_go_on(&self, process: usize) -> bool {
        let queue = queue();
        // A sender at a closed queue gets its answer, too.
        queue.is_closed()
            || if self.receivers.contains(&process) { !queue.is_empty() } else { !queue.is_full() }
    }

    fn at_the_end(&self, fates: &[Fate], ghost: &Ghost) -> Result<(), String> {
        let mut ghost = *ghost;
        let queue = queue();
        let mut lost_before = queue.lost();
        for (process, _) in fates.iter().enumerate().filter(|&(_, &fate)| fate == Fate::Dead) {
            for index in 0..self.capacity {
                let word = read_word(index);
                if word.phase() == Phase::Reading
                    && word.owner() == process as u32
                    && self.policy == OnReceiverDeath::Drop
                {
                    let position = self.number(word.lap(), index);
                    let value = world::read(SLOTS + index * STRIDE + PAYLOAD);
                    ghost[GONE] |= 1 << if self.payload { value } else { position };
                }
            }
            clear_up(process);
        }
        let mut drained = 0;
        let mut count = 0;
        loop {
            match queue.try_recv_ref() {
                Ok(received) => {
                    let value = world::access(address_of(&received), Access::Load).unwrap_or(0);
                    drained |= 1u64.checked_shl(value as u32).unwrap_or(0);
                    count += 1;
                }
                Err(TryRecvError::Broken(_)) => return Err("the queue is broken".into()),
                Err(_) => break,
            }
        }
        if self.payload {
            let all = ghost[TAKEN] | ghost[GONE] | drained;
            if all != ghost[PUBLISHED]
                || (ghost[TAKEN] & ghost[GONE]) | (ghost[TAKEN] | ghost[GONE]) & drained != 0
            {
                return Err(format!(
                    "published {:#b}; taken {:#b}, lost {:#b}, left {drained:#b}",
                    ghost[PUBLISHED], ghost[TAKEN], ghost[GONE]
                ));
            }
        } else if ghost[PUBLISHED].count_ones()
            != ghost[TAKEN].count_ones() + ghost[GONE].count_ones() + count
        {
            return Err("not all messages are accounted for".into());
        }
        let deaths = fates.iter().filter(|&&fate| fate == Fate::Dead).count() as u64;
        lost_before = queue.lost().max(lost_before);
        let lost = u64::from(ghost[GONE].count_ones());
        // Whoever was killed between its swap and its count leaves it one short.
        if lost_before > lost || lost_before + deaths < lost {
            return Err(format!("{lost} messages were lost, and {lost_before} counted"));
        }
        for index in 0..self.capacity {
            let word = read_word(index);
            if !matches!(word.phase(), Phase::Empty | Phase::Sealed) {
                return Err(format!("slot {index} is left as {word:?}"));
            }
        }
        if self.closed {
            return if matches!(queue.try_recv(), Err(TryRecvError::Closed)) {
                Ok(())
            } else {
                Err("it does not end".into())
            };
        }
        for lap in 0..2 {
            for value in 0..self.capacity as u64 {
                queue
                    .try_send(lap * 8 + value)
                    .map_err(|error| format!("it cannot be filled again: {error:?}"))?;
            }
            if queue.try_send(0) != Err(TrySendError::Full(0)) {
                return Err("it has more slots than before".into());
            }
            for _ in 0..self.capacity {
                queue
                    .try_recv()
                    .map_err(|error| format!("it cannot be drained again: {error:?}"))?;
            }
            if queue.try_recv() != Err(TryRecvError::Empty) {
                return Err("it has more messages than before".into());
            }
        }
        Ok(())
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        let position = || {
            let position = Position::from_bits(value);
            format!("{}.{}", position.lap(), position.index())
        };
        match offset {
            TAIL => format!("tail {}", position()),
            HEAD => format!("head {}", position()),
            DONE => format!("done {}", position()),
            ITEMS => format!("items {}+{}", value >> 3, value & 7),
            SPACE => format!("space {}+{}", value >> 3, value & 7),
            CLOSED => format!("closed {value}"),
            ORPHANS => format!("orphans {value}"),
            LOST => format!("lost {value}"),
            _ => match self.slot(offset) {
                Some((index, true)) => format!("payload {index}: {value}"),
                Some((index, false)) => {
                    let word = SlotWord::from_bits(value);
                    format!("slot {index}: {:?}({}, {})", word.phase(), word.lap(), word.owner())
                }
                None => format!("[{offset}] {value}"),
            },
        }
    }
}

/// For checks that run by themselves.
fn read_word(index: usize) -> SlotWord {
    SlotWord::from_bits(world::read(SLOTS + index * STRIDE))
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let mut models = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |capacity, calls, senders: &[u64], receivers| {
            Setting::new(capacity, policy, calls, senders, receivers)
        };
        models.push(Setting { close: Close::Never, ..of(1, Calls::Try, &[2], 1) });
        models.push(Setting { close: Close::Never, ..of(2, Calls::Try, &[1, 1], 1) });
        models.push(Setting { close: Close::Never, reaper: true, ..of(1, Calls::Try, &[1], 1) });
        models.push(of(1, Calls::Try, &[1], 2));
        models.push(Setting { aborts: Some(0), close: Close::Never, ..of(2, Calls::Try, &[3], 1) });
        models.push(Setting {
            aborts: Some(0),
            deaths: 1,
            close: Close::Never,
            ..of(2, Calls::Try, &[1, 2], 1)
        });
        models.push(Setting { close: Close::InTheMiddle, ..of(1, Calls::Try, &[1], 1) });
        models.push(Setting {
            close: Close::InTheMiddle,
            deaths: 2,
            ..of(2, Calls::Try, &[1, 1], 1)
        });
        models.push(Setting { reaper: true, deaths: 2, ..of(2, Calls::Try, &[1], 1) });
        models.push(of(1, Calls::Block, &[1], 1));
        models.push(Setting { slices: Slices::Anytime(2), ..of(1, Calls::Block, &[1], 1) });
        models.push(of(2, Calls::Batch, &[2], 1));
        if all {
            models.push(of(1, Calls::Block, &[2], 1));
            models.push(Setting {
                close: Close::Never,
                deaths: 1,
                ..of(2, Calls::Try, &[2, 1], 1)
            });
            models.push(Setting {
                late: true,
                payload: false,
                deaths: 2,
                preemptions: Some(1),
                ..of(2, Calls::Try, &[1], 3)
            });
            let preemptions = Some(2);
            models.push(Setting { late: true, deaths: 1, ..of(2, Calls::Try, &[2], 2) });
            models.push(Setting { deaths: 1, preemptions, ..of(2, Calls::Try, &[2], 2) });
            models.push(Setting { deaths: 1, preemptions, ..of(1, Calls::Block, &[1, 1], 1) });
            let preemptions = Some(1);
            models.push(Setting { deaths: 1, preemptions, ..of(2, Calls::Try, &[1], 3) });
            models.push(Setting { deaths: 1, preemptions, ..of(1, Calls::Block, &[2], 2) });
            models.push(Setting { deaths: 1, preemptions, ..of(2, Calls::Block, &[1, 1], 2) });
            models.push(Setting {
                deaths: 1,
                preemptions,
                close: Close::InTheMiddle,
                ..of(1, Calls::Block, &[1, 1], 1)
            });
            models.push(Setting { deaths: 1, preemptions, ..of(1, Calls::Batch, &[3], 1) });
            models.push(Setting { deaths: 1, preemptions, ..of(2, Calls::Batch, &[2], 2) });
        }
    }
    models.into_iter().map(Setting::model).collect()
}
