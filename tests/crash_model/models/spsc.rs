//! The ring with one sender and one receiver, and their successors.
//!
//! `ends`: the crate's `Producer` and `Consumer`, their roles and their sleep. `ring`: its ring
//! alone, with payloads that are written and read step by step. `gone`: the ends of a ring in the
//! heap, which are given up or die, and the other side, which must learn of that, neither too early
//! nor never; with the crate's reaper.

use std::cell::RefCell;

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::heap::Pool;
use crate::models::heap::{attached, peer, with};
use crate::object::block::ends::{Ends, Role};
use crate::object::kind::Kind;
use crate::object::place::{self, HANDLE};
use crate::object::transfer::{RecvError, SendError};
use crate::peer::PeerId;
use crate::peer::table::Table;
use crate::primitive::AtomicU64;
use crate::ring::spsc::{self, Side};
use crate::segment::Segment;
use crate::segment::layout::{BLOCKS, FREE_WORDS, HEADERS, OBJECT};
use crate::segment::region::{self, Mapping};
use crate::spsc::{Consumer, Producer, ring};
use crate::sync::Wait;
use crate::world::{self, Access, Fate, Local, Note, at, read, write};

// Where the ring's words lie; `src/object/block/spsc.rs` asserts it.
const TAIL: usize = OBJECT as usize + 128;
const SENDER: usize = OBJECT as usize + 136;
const HEAD: usize = OBJECT as usize + 256;
const RECEIVER: usize = OBJECT as usize + 264;
const ITEMS: usize = OBJECT as usize + 384;
const SPACE: usize = OBJECT as usize + 512;
const ENDS: usize = OBJECT as usize + 640;
/// From the bits of one role to those of the next, and to a role's state.
const OF_ROLE: usize = 128;
const STATE: usize = 8;
/// `OPEN`, in the first version in which somebody has ends.
const OPEN: u64 = 2;
const GONE: u64 = 1;
/// A peer that is no process of a model, and has ends that stand by.
const STANDS_BY: u64 = 1 << 40;
/// Payloads of the ring alone.
const PAYLOADS: usize = FREE_WORDS as usize;

const TORN: u64 = u64::MAX;

/// Processes: the ends, and who succeeds them when they are dead or have left.
const SENDERS: [usize; 2] = [0, 2];
const RECEIVERS: [usize; 2] = [1, 3];

/// `messages` are sent and received in all, by the first ends or by their successors.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub capacity: u64,
    pub messages: u64,
    pub deaths: usize,
    pub slices: Slices,
}

impl Setting {
    /// With the crate's handles.
    pub fn ends(self) -> Model {
        self.model("ends", send, receive)
    }

    /// With the ring alone.
    pub fn ring(self) -> Model {
        self.model("ring", send_step, receive_step)
    }

    fn model(
        self,
        what: &str,
        send: fn(Setting, Local) -> Option<Local>,
        receive: fn(Setting, Local) -> Option<Local>,
    ) -> Model {
        let mut text = format!(
            "{what}, {} slots, {} messages, successors, {} die",
            self.capacity, self.messages, self.deaths
        );
        if matches!(self.slices, Slices::Anytime(_)) {
            text += ", slices";
        }
        let successor = |first: usize, process: Process| Process {
            mortal: false,
            may_run: Box::new(move |fates| fates[first] != Fate::Running),
            ..process
        };
        let processes = vec![
            Process::new("sender", move |local| send(self, local)),
            Process::new("receiver", move |local| receive(self, local)),
            successor(0, Process::new("sender 2", move |local| send(self, local))),
            successor(1, Process::new("receiver 2", move |local| receive(self, local))),
        ];
        let set_up = move || {
            region::lay_out(0, 0);
            std::mem::forget(ring::<u64>(self.capacity as usize).expect("a ring"));
            // Both roles are free, and somebody who lives on keeps them from being gone.
            free_roles(OBJECT as usize, [STANDS_BY; 2]);
        };
        let watch = Watch { setting: self, roles: what == "ends" };
        Model {
            set_up: Box::new(set_up),
            processes,
            deaths: self.deaths,
            slices: self.slices,
            ..Model::new("spsc", text, watch)
        }
    }
}

/// Sends what is missing.
fn send(setting: Setting, _: Local) -> Option<Local> {
    let segment = Segment::commons().expect("a segment");
    let mut sender = Producer::<u64>::open(&segment, HANDLE).expect("the role");
    sender.set_wait(Wait::Sleep);
    for sent in read(TAIL)..setting.messages {
        // All that the sender knows: the next position, and where the receiver was when it looked
        // last. When it sleeps, the ring is full.
        world::forget_but(at(HEAD), sent);
        world::phase(sent);
        sender.send(sent).expect("a ring");
    }
    None
}

/// Receives what is missing.
fn receive(setting: Setting, _: Local) -> Option<Local> {
    let segment = Segment::commons().expect("a segment");
    let mut receiver = Consumer::<u64>::open(&segment, HANDLE).expect("the role");
    receiver.set_wait(Wait::Sleep);
    for received in read(HEAD)..setting.messages {
        world::forget_but(at(TAIL), received);
        world::phase(received);
        receiver.recv().expect("a ring");
    }
    None
}

thread_local! {
    /// Views that sides had, so that a process can remember its own by a number.
    static SIDES: RefCell<Vec<Side>> = const { RefCell::new(Vec::new()) };
}

fn remember(side: Side) -> u64 {
    SIDES.with_borrow_mut(|sides| {
        let told = format!("{side:?}");
        let known = sides.iter().position(|side| format!("{side:?}") == told);
        known.unwrap_or_else(|| {
            sides.push(side);
            sides.len() - 1
        }) as u64
    })
}

fn word(offset: usize) -> &'static AtomicU64 {
    let mapping = Mapping::new(0);
    mapping.region().and_then(|region| region.forever(offset as u64)).expect("a word")
}

/// The ring alone: `local` is whether the side has begun, how far it is, and its view.
fn send_step(setting: Setting, [begun, sent, view, _]: Local) -> Option<Local> {
    let (tail, head) = (word(TAIL), word(HEAD));
    if begun == 0 {
        let side = spsc::resume_sender(tail, head, setting.capacity).expect("sound words");
        return Some([1, read(TAIL), remember(side), 0]);
    }
    if sent == setting.messages {
        return None;
    }
    let mut side = SIDES.with_borrow(|sides| sides[view as usize]);
    if spsc::free_slots(&mut side, head, 1).expect("sound words") == 0 {
        return Some([1, sent, remember(side), 0]);
    }
    let turn = side.turn().expect("a free slot");
    let payload = at(PAYLOADS + 8 * turn.slot() as usize);
    world::access(payload, Access::Store(TORN));
    world::access(payload, Access::Store(sent + 1));
    turn.publish(tail);
    Some([1, sent + 1, remember(side), 0])
}

fn receive_step(setting: Setting, [begun, received, view, _]: Local) -> Option<Local> {
    let (tail, head) = (word(TAIL), word(HEAD));
    if begun == 0 {
        let side = spsc::resume_receiver(tail, head, setting.capacity).expect("sound words");
        return Some([1, read(HEAD), remember(side), 0]);
    }
    if received == setting.messages {
        return None;
    }
    let mut side = SIDES.with_borrow(|sides| sides[view as usize]);
    if spsc::messages(&mut side, tail, 1).expect("sound words") == 0 {
        return Some([1, received, remember(side), 0]);
    }
    let turn = side.turn().expect("a message");
    let payload = PAYLOADS + 8 * turn.slot() as usize;
    for _ in 0..2 {
        let value = read(payload);
        if value != received + 1 {
            world::note("torn", received + 1, value);
        }
    }
    turn.release(head);
    Some([1, received + 1, remember(side), 0])
}

struct Watch {
    setting: Setting,
    /// Roles are held by words.
    roles: bool,
}

/// The process that a role word names.
fn holder(word: u64) -> Option<usize> {
    PeerId::from_bits(word).map(|peer| peer.index() as usize)
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, _ghost: &mut Ghost) -> Result<(), String> {
        if touch.before == touch.after {
            return Ok(());
        }
        let (tail, head) = (view.read(TAIL), view.read(HEAD));
        let (role, whose) = match touch.offset {
            TAIL => (SENDER, SENDERS),
            HEAD => (RECEIVER, RECEIVERS),
            SENDER | RECEIVER => {
                return match holder(touch.before) {
                    Some(before) if before != touch.process && !view.is_dead(before) => {
                        Err("a living end lost its role".into())
                    }
                    _ => Ok(()),
                };
            }
            _ => return Ok(()),
        };
        if !whose.contains(&touch.process)
            || self.roles && holder(view.read(role)) != Some(touch.process)
        {
            return Err("a side moved that does not have the role".into());
        }
        if touch.after != touch.before + 1 || head > tail || tail - head > self.setting.capacity {
            return Err(format!(
                "from {} to {}: head {head}, tail {tail}",
                touch.before, touch.after
            ));
        }
        Ok(())
    }

    fn noted(
        &self,
        _process: usize,
        note: Note,
        _view: &View<'_>,
        _ghost: &mut Ghost,
    ) -> Result<(), String> {
        Err(format!("message {} was received as {:#x}", note.a, note.b))
    }

    fn could_go_on(&self, process: usize) -> bool {
        let ready = read(TAIL) - read(HEAD);
        if SENDERS.contains(&process) { ready < self.setting.capacity } else { ready > 0 }
    }

    fn at_the_end(&self, _fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        let (tail, head) = (read(TAIL), read(HEAD));
        if (tail, head) == (self.setting.messages, tail) {
            Ok(())
        } else {
            Err(format!("head {head}, tail {tail}"))
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        let whose = |role: &str| format!("{role} role {:?}", holder(value));
        match offset {
            TAIL => format!("tail {value}"),
            HEAD => format!("head {value}"),
            SENDER => whose("sender"),
            RECEIVER => whose("receiver"),
            ITEMS => format!("items {}+{}", value >> 3, value & 7),
            SPACE => format!("space {}+{}", value >> 3, value & 7),
            _ => format!("payload {}: {value}", (offset - PAYLOADS) / 8),
        }
    }
}

/// Makes the roles of the ring free. `holders` are those who have ends of each.
fn free_roles(ring: usize, holders: [u64; 2]) {
    let of = |offset: usize| ring + offset - OBJECT as usize;
    write(of(SENDER), 0);
    write(of(RECEIVER), 0);
    for (role, holders) in holders.into_iter().enumerate() {
        write(of(ENDS) + role * OF_ROLE, holders);
        write(of(ENDS) + role * OF_ROLE + STATE, OPEN);
    }
}

/// The ring in the heap, in the first block.
const IN_HEAP: usize = BLOCKS as usize;
const HEAP_TAIL: usize = IN_HEAP + TAIL - OBJECT as usize;
const HEAP_HEAD: usize = IN_HEAP + HEAD - OBJECT as usize;
const HEAP_ENDS: usize = IN_HEAP + ENDS - OBJECT as usize;
/// Bytes of a ring with one slot.
const LEN: u64 = (ENDS - OBJECT as usize + 2 * OF_ROLE) as u64 + 8;

/// What is done otherwise than in the crate. A control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A receiver looks for messages, and asks then whether the senders are gone.
    AsksLast,
}

/// A sender sends so many messages and leaves; a receiver receives until there are no senders.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    pub messages: u64,
    /// Whether another process stands by, and sends what is missing when the sender is dead or has
    /// left.
    pub stands_by: bool,
    /// The receiver leaves after so many messages.
    pub received: u64,
    pub deaths: usize,
    pub preemptions: Option<u64>,
    pub mistake: Mistake,
}

/// The smallest configuration.
pub const GONE_SMALLEST: Gone = Gone {
    messages: 1,
    stands_by: false,
    received: u64::MAX,
    deaths: 1,
    preemptions: Some(2),
    mistake: Mistake::None,
};

impl Gone {
    pub fn model(self) -> Model {
        let mut text = format!("gone, {} messages", self.messages);
        if self.stands_by {
            text += ", one stands by";
        }
        if self.received < self.messages {
            text += &format!(", {} received", self.received);
        }
        text += &format!(", {} die", self.deaths);
        if let Some(preemptions) = self.preemptions {
            text += &format!(", {preemptions} preemptions");
        }
        let mut processes = vec![
            Process::new("sender", move |_| self.send()),
            Process::new("receiver", move |local| match self.mistake {
                Mistake::None => self.receive(),
                Mistake::AsksLast => receive_mistaken(local),
            }),
        ];
        if self.stands_by {
            processes.push(Process {
                may_run: Box::new(|fates| fates[0] != Fate::Running),
                ..Process::new("sender 2", move |_| self.send())
            });
        }
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths: self.deaths,
            preemptions: self.preemptions,
            ..Model::new("spsc", text, WatchEnd { senders: self.senders() })
        }
    }

    /// One bit for each process that has an end of this role.
    fn senders(self) -> u64 {
        if self.stands_by { 0b101 } else { 0b001 }
    }

    fn set_up(self) {
        let processes = 2 + usize::from(self.stands_by);
        // The processes, and whoever makes the last checks.
        region::lay_out(1, processes + 1);
        let mapping = Mapping::new(0);
        let table = Table::of(mapping.region().expect("a region"), mapping.layout().peers())
            .expect("a table");
        for process in 0..=processes {
            table.join(&attached(process)).expect("room");
        }
        with(0, |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            // The block has its pages.
            pool.give_back(&pool.allocate(me, Kind::Parcel.named::<()>(), 1).expect("a block"));
            write(HEADERS as usize, 0);
            write(mapping.layout().class_words(0) as usize + 8, 0);
            let block = pool.allocate(me, Kind::Spsc.with::<u64>(), LEN).expect("a block");
            assert_eq!(block.id.to_bits(), HANDLE.block);
            place::lie_at(BLOCKS, LEN, HANDLE);
            std::mem::forget(ring::<u64>(1).expect("a ring"));
            assert_eq!(place::len(), LEN);
            pool.share(&block, me);
            for process in 1..processes {
                pool.attach(block.id, block.generation(), peer(process), |_| {});
            }
        });
        free_roles(IN_HEAP, [self.senders(), 0b010]);
    }

    fn send(self) -> Option<Local> {
        place::lie_at(BLOCKS, LEN, HANDLE);
        let segment = Segment::commons().expect("a segment");
        let mut sender = Producer::<u64>::open(&segment, HANDLE).expect("the role");
        sender.set_wait(Wait::Sleep);
        for sent in read(HEAP_TAIL)..self.messages {
            world::phase(sent);
            match sender.send(sent) {
                Ok(()) => {}
                Err(SendError::Disconnected(_)) => {
                    world::note("no receiver", 0, 0);
                    break;
                }
                Err(_) => world::note("broken", 0, 0),
            }
        }
        world::note("leaves", 0, 0);
        drop(sender);
        None
    }

    fn receive(self) -> Option<Local> {
        place::lie_at(BLOCKS, LEN, HANDLE);
        let segment = Segment::commons().expect("a segment");
        let mut receiver = Consumer::<u64>::open(&segment, HANDLE).expect("the role");
        receiver.set_wait(Wait::Sleep);
        for received in 0..self.received {
            world::phase(received);
            match receiver.recv() {
                Ok(_) => {}
                Err(RecvError::Disconnected) => {
                    world::note("no sender", 0, 0);
                    break;
                }
                Err(_) => world::note("broken", 0, 0),
            }
        }
        world::note("leaves", 0, 0);
        drop(receiver);
        None
    }
}

/// As the crate's receiver that does not wait, but that it asks too late.
fn receive_mistaken(local: Local) -> Option<Local> {
    let head = read(HEAP_HEAD);
    if read(HEAP_TAIL) != head {
        write(HEAP_HEAD, head + 1);
        return Some(local);
    }
    let mapping = Mapping::new(0);
    let ends: &Ends = mapping
        .region()
        .and_then(|region| region.forever(HEAP_ENDS as u64))
        .expect("the ends of the ring");
    if !ends.is_gone(Role::Sender) {
        return Some(local);
    }
    world::note("no sender", 0, 0);
    None
}

// What the monitor of the end remembers: one bit for each process that has left, and whether the
// receiver has learned that nothing more comes.
const LEFT: usize = 0;
const ENDED: usize = 1;

struct WatchEnd {
    /// One bit for each process.
    senders: u64,
}

impl Monitor for WatchEnd {
    fn touched(&self, touch: Touch, _view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        match touch.offset {
            HEAP_TAIL if touch.before != touch.after && ghost[ENDED] != 0 => {
                Err("a message comes after the end".into())
            }
            HEAP_TAIL | HEAP_HEAD if touch.after > touch.before + 1 => {
                Err(format!("from {} to {}", touch.before, touch.after))
            }
            _ => Ok(()),
        }
    }

    fn noted(
        &self,
        process: usize,
        note: Note,
        view: &View<'_>,
        ghost: &mut Ghost,
    ) -> Result<(), String> {
        let has_end = |other: usize| ghost[LEFT] >> other & 1 == 0 && !view.is_dead(other);
        let senders = || (0..view.fates.len()).filter(|process| self.senders >> process & 1 != 0);
        match note.what {
            "leaves" => ghost[LEFT] |= 1 << process,
            "no receiver" if has_end(1) => return Err("the receiver is there".into()),
            "no receiver" => {}
            "no sender" if senders().any(has_end) => return Err("a sender is there".into()),
            "no sender" if view.read(HEAP_TAIL) != view.read(HEAP_HEAD) => {
                return Err("a message is left behind".into());
            }
            "no sender" => ghost[ENDED] = 1,
            what => return Err(what.into()),
        }
        Ok(())
    }

    fn could_go_on(&self, process: usize) -> bool {
        let is_gone = |role: usize| read(HEAP_ENDS + role * OF_ROLE + STATE) & GONE != 0;
        let ready = read(HEAP_TAIL) != read(HEAP_HEAD);
        if process == 1 { ready || is_gone(0) } else { !ready || is_gone(1) }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
        match offset {
            HEAP_TAIL => format!("tail {value}"),
            HEAP_HEAD => format!("head {value}"),
            _ if (HEAP_ENDS..HEAP_ENDS + 2 * OF_ROLE).contains(&offset) => {
                let role = ["senders", "receivers"][(offset - HEAP_ENDS) / OF_ROLE];
                let what = ["bits", "state"][(offset - HEAP_ENDS) % OF_ROLE / STATE];
                format!("{what} of {role}: {value:#b}")
            }
            _ => super::peers::tell(offset, value),
        }
    }
}

/// Controls, each with what its violation must say.
pub fn controls() -> Vec<(Model, &'static str, Option<&'static str>)> {
    let asks_last = Gone { mistake: Mistake::AsksLast, deaths: 0, ..GONE_SMALLEST }.model();
    vec![
        (
            asks_last,
            "a ring of two, asked for its end after the look for messages",
            Some("a message is left behind"),
        ),
        (
            Model { slices: Slices::Never, ..GONE_SMALLEST.model() },
            "a ring of two, sleeping without slices",
            Some("stuck"),
        ),
    ]
}

/// Larger than can be explored without a bound.
fn bounded(preemptions: u64, model: Model) -> Model {
    Model {
        configuration: format!("{}, {preemptions} preemptions", model.configuration),
        preemptions: Some(preemptions),
        ..model
    }
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let base = Setting { capacity: 1, messages: 2, deaths: 2, slices: Slices::LastResort };
    let mut models = vec![
        Setting { capacity: 1, messages: 3, ..base }.ring(),
        Setting { capacity: 2, messages: 4, ..base }.ring(),
        Setting { messages: 1, ..base }.ends(),
        GONE_SMALLEST.model(),
        Gone { messages: 2, received: 0, ..GONE_SMALLEST }.model(),
        Gone { stands_by: true, ..GONE_SMALLEST }.model(),
    ];
    if all {
        models.push(Setting { capacity: 3, messages: 7, ..base }.ring());
        models.push(bounded(2, Setting { deaths: 1, ..base }.ends()));
        models.push(bounded(1, base.ends()));
        models.push(bounded(2, Setting { slices: Slices::Anytime(1), deaths: 1, ..base }.ends()));
        models.push(bounded(2, Setting { messages: 3, deaths: 1, ..base }.ends()));
        models.push(bounded(1, Setting { capacity: 2, messages: 3, ..base }.ends()));
        let gone = Gone { preemptions: None, ..GONE_SMALLEST };
        models.push(gone.model());
        models.push(Gone { messages: 2, received: 0, ..gone }.model());
        let gone = Gone { preemptions: Some(3), ..gone };
        models.push(Gone { deaths: 2, ..gone }.model());
        let stands_by = Gone { stands_by: true, ..gone };
        models.push(Gone { messages: 2, ..stands_by }.model());
        models.push(Gone { messages: 2, deaths: 2, preemptions: Some(2), ..stands_by }.model());
        models.push(Gone { messages: 2, received: 1, deaths: 2, ..gone }.model());
    }
    models
}
