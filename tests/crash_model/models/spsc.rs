//! The ring with one sender and one receiver, and their successors.
//!
//! `ends`: the crate's `Producer` and `Consumer`, their roles and their sleep. `ring`: its ring
//! alone, with payloads that are written and read step by step.

use std::cell::RefCell;

use crate::engine::{Ghost, Model, Monitor, Process, Slices, Touch, View};
use crate::object::place::HANDLE;
use crate::peer::PeerId;
use crate::primitive::AtomicU64;
use crate::ring::spsc::{self, Side};
use crate::segment::Segment;
use crate::segment::layout::{FREE_WORDS, OBJECT};
use crate::segment::region::{self, Mapping};
use crate::spsc::{Consumer, Producer, ring};
use crate::sync::Wait;
use crate::world::{self, Access, Fate, Local, Note, at, read};

// Where the ring's words lie; `src/object/block/spsc.rs` asserts it.
const TAIL: usize = OBJECT as usize + 128;
const SENDER: usize = OBJECT as usize + 136;
const HEAD: usize = OBJECT as usize + 256;
const RECEIVER: usize = OBJECT as usize + 264;
const ITEMS: usize = OBJECT as usize + 384;
const SPACE: usize = OBJECT as usize + 512;
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
            // Both ends give their roles back at once.
            drop(ring::<u64>(self.capacity as usize).expect("a ring"));
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

/// Larger than can be explored without a bound.
fn bounded(model: Model) -> Model {
    Model {
        configuration: format!("{}, 3 preemptions", model.configuration),
        preemptions: Some(3),
        ..model
    }
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    let base = Setting { capacity: 1, messages: 2, deaths: 2, slices: Slices::LastResort };
    let mut models = vec![
        Setting { capacity: 1, messages: 3, ..base }.ring(),
        Setting { capacity: 2, messages: 4, ..base }.ring(),
        base.ends(),
    ];
    if all {
        models.push(Setting { capacity: 3, messages: 7, ..base }.ring());
        models.push(Setting { slices: Slices::Anytime(1), deaths: 1, ..base }.ends());
        models.push(bounded(Setting { messages: 3, deaths: 1, ..base }.ends()));
        models.push(bounded(Setting { capacity: 2, messages: 3, ..base }.ends()));
    }
    models
}
