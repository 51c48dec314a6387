//! Objects that messages hold: made and sent by one process, received by others, let go of by all;
//! with the crate's `ByteQueue`, heap and reaper. Senders, receivers, holders and reapers die.
//!
//! The queue lies in the first block and all processes hold it. The object lies in the second one.
//! Nobody may free it while a living process holds it, or a message that can still be received.

use crate::engine::{Ghost, Model, Monitor, Process, Touch, View};
use crate::heap::flight::Name;
use crate::heap::{BlockId, Pool};
use crate::models::carried::{self, HOLDERS, MARKS, header, leave};
use crate::models::heap::{self, FREE, OWNED, SHARED, decode, peer, with};
use crate::models::peers::forget_cards;
use crate::object::Handle;
use crate::object::attempt::Once;
use crate::object::flight::settle;
use crate::object::kind::Kind;
use crate::object::place::HANDLE;
use crate::object::reap;
use crate::queue::{OnReceiverDeath, QueueOptions};
use crate::segment::layout::{BLOCK, Layout};
use crate::world::{self, Access, Fate, Local, Note, read};

/// The block of the object.
const OBJECT: u64 = 1;
/// Where the heap's words have the cards of flights.
const FLIGHTS: usize = 16;

/// What is done otherwise than in the crate. Controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A receiver frees the flight and then opens the object.
    FreesFirst,
    /// A receiver sets its bit and does not change the word.
    KeepsWord,
    /// A holder that lets go looks at the flights and then at the bits.
    FlightsFirst,
    /// A receiver does not look at the object after it has freed the flight.
    LooksNoMore,
    /// A flight is made whose card nobody marks.
    MarksNoCard,
}

/// Who does what, beside the reapers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Holds the object, sends it and lets go of it.
    Sends,
    /// Receives a message if it is there, opens the object in it and lets go of it.
    Opens,
    /// Receives a message if it is there and leaves the object in it.
    Ignores,
    /// Holds the object and lets go of it.
    LetsGo,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub policy: OnReceiverDeath,
    pub parts: Vec<Part>,
    /// Whether a message with the object is there from the beginning.
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
        let holders = self.holders();
        let Setting { deaths, preemptions, .. } = self;
        Model {
            set_up: Box::new(move || self.set_up()),
            processes,
            deaths,
            preemptions,
            ..Model::new("flight", text, Watch { holders })
        }
    }

    /// One bit for each process that holds the object from the beginning.
    fn holders(&self) -> u64 {
        let holds = |part: &Part| matches!(part, Part::Sends | Part::LetsGo);
        self.parts.iter().enumerate().map(|(process, part)| u64::from(holds(part)) << process).sum()
    }

    /// The queue, the object, the flight of each message.
    fn blocks(&self) -> u64 {
        let sends = self.parts.iter().filter(|&&part| part == Part::Sends).count() as u64;
        2 + (sends + u64::from(self.there)).min(2)
    }

    fn set_up(&self) {
        carried::set_up(self.processes().len(), self.blocks(), Kind::Parcel.named::<()>());
        let holders = 1..self.parts.len();
        carried::share_queue(Kind::Bytes.named::<()>(), carried::len(1), holders, || {
            let mut options = QueueOptions::new();
            options.capacity(1).on_receiver_death(self.policy);
            options.create_bytes().expect("a queue")
        });
        let holders = (0..self.parts.len()).filter(|process| self.holders() >> process & 1 != 0);
        let object = carried::share(Kind::Event.named::<()>(), BLOCK, holders, |_| {});
        assert_eq!(object, OBJECT);
        if self.there {
            carried::send(name());
        }
        if self.holders() & 1 == 0 {
            let_go(0);
        }
        forget_cards(self.processes().len(), self.blocks());
    }

    fn processes(&self) -> Vec<Process> {
        let mistake = self.mistake;
        let mut processes: Vec<Process> = Vec::new();
        for (process, &part) in self.parts.iter().enumerate() {
            let name = match part {
                Part::Sends => "sender",
                Part::Opens | Part::Ignores => "receiver",
                Part::LetsGo => "holder",
            };
            processes
                .push(Process::new(name, move |local: Local| play(process, part, mistake, local)));
        }
        let others = self.parts.len();
        for reaper in others..others + self.reapers {
            processes.push(heap::reaper_of(reaper, others));
        }
        processes
    }
}

fn play(process: usize, part: Part, mistake: Mistake, [step, ..]: Local) -> Option<Local> {
    match (part, step) {
        (Part::Sends, 0) => {
            carried::send(name());
            if mistake == Mistake::MarksNoCard {
                world::access(
                    world::at(Layout::new(0, 0).heap_words() as usize + FLIGHTS),
                    Access::And(0),
                );
            }
            Some([1, 0, 0, 0])
        }
        (Part::LetsGo, _) if mistake == Mistake::FlightsFirst => {
            let_go_mistaken(process);
            None
        }
        (Part::Sends | Part::LetsGo, _) => {
            let_go(process);
            None
        }
        (Part::Opens, 0) => receive(process, mistake).then_some([1, 0, 0, 0]),
        (Part::Opens, _) => {
            let_go(process);
            None
        }
        (Part::Ignores, _) => {
            if mistake == Mistake::LooksNoMore {
                carried::ignore(process);
            } else {
                drop(carried::queue().get(Once));
            }
            None
        }
    }
}

fn object() -> BlockId {
    BlockId::from_bits(OBJECT).expect("a block")
}

/// The object, as a message has it.
fn name() -> Name {
    Name { id: object(), generation: 0, role: 0 }
}

/// Receives a message, if it is there, and opens the object in it; false if it is not.
fn receive(process: usize, mistake: Mistake) -> bool {
    let queue = carried::queue();
    let Some(message) = carried::receive(&queue, name()) else {
        return false;
    };
    let open = || match mistake {
        Mistake::KeepsWord => {
            world::access(world::at(header(OBJECT) + HOLDERS), Access::Or(1 << process));
            true
        }
        _ => with(process, |mapping, region, me| {
            let pool = Pool::new(mapping, region);
            pool.generation(object()) == Some(0)
                && settle(&pool, me, |empty| pool.attach(object(), 0, me, empty)).is_some()
        }),
    };
    let opened = if mistake == Mistake::FreesFirst {
        drop(message);
        open()
    } else {
        let opened = open();
        world::note("holds", process as u64, 0);
        drop(message);
        opened
    };
    if !opened {
        world::note("gone", 0, 0);
    }
    opened
}

/// Lets go of the object, as the last handle of a process does.
fn let_go(process: usize) {
    world::note("lets go", process as u64, 0);
    leave(process, Handle { segment: 0, block: OBJECT, generation: 0 });
}

/// As [`let_go`], but the flights are looked at first.
fn let_go_mistaken(process: usize) {
    world::note("lets go", process as u64, 0);
    let holders = header(OBJECT) + HOLDERS;
    world::access(world::at(holders), Access::And(!(1 << process)));
    let word = read(header(OBJECT));
    let (_, state, _) = decode(word);
    let flies = carried::flights().any(|block| read(header(block) + MARKS) & 2 != 0);
    if state == SHARED && !flies && read(holders) == 0 {
        let owned = word & !(u64::MAX >> 30) | OWNED << 31 | u64::from(peer(process).owner());
        world::access(world::at(header(OBJECT)), Access::CompareExchange(word, owned));
    }
}

/// What the monitor remembers: one bit for each process that holds the object, and has not begun to
/// let go of it.
const HELD: usize = 0;

struct Watch {
    holders: u64,
}

impl Monitor for Watch {
    fn touched(&self, touch: Touch, view: &View<'_>, ghost: &mut Ghost) -> Result<(), String> {
        carried::changed_by_a_holder(touch, view)?;
        let now = |offset| view.read(offset);
        if touch.offset == header(OBJECT) && touch.before != touch.after {
            let ((g, from, _), (h, to, _)) = (decode(touch.before), decode(touch.after));
            if (from, to) == (SHARED, OWNED) && g == 0 && h == 0 {
                // Who has noted that it lets go is not among them.
                let held = (self.holders & !(ghost[HELD] >> 32)) | ghost[HELD] & 0xffff_ffff;
                if let Some(holder) = carried::living(held, view) {
                    return Err(format!("the object is taken from {holder}"));
                }
                if carried::is_in_a_message(&now) {
                    return Err("the object is taken from a message".into());
                }
            }
            return Ok(());
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
            "holds" => ghost[HELD] |= 1 << process,
            // Above, who of those that held it from the beginning has let go.
            "lets go" => ghost[HELD] = ghost[HELD] & !(1 << process) | 1 << (32 + process),
            what => return Err(format!("{what} ({:#x}, {:#x})", note.a, note.b)),
        }
        Ok(())
    }

    fn at_the_end(&self, fates: &[Fate], _ghost: &Ghost) -> Result<(), String> {
        let is_free = |block| decode(read(header(block))).1 == FREE;
        if fates.iter().all(|&fate| fate == Fate::Ended) && !carried::is_in_a_message(&read) {
            // Nobody has died, so nobody needs to be cleared up after.
            if !is_free(OBJECT) {
                return Err("nobody died or holds it, and the object is left".into());
            }
        }
        with(fates.len(), |mapping, _, me| reap::reap_all(mapping, me));
        for (process, &fate) in fates.iter().enumerate() {
            if fate == Fate::Ended {
                leave(process, HANDLE);
            }
        }
        match (0..4).find(|&block| !is_free(block)) {
            Some(block) => Err(format!("in the end, block {block} is left")),
            None => Ok(()),
        }
    }

    fn tell(&self, offset: usize, value: u64) -> String {
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
            of(Mistake::FreesFirst, true, &[Opens]),
            "flights, freed before the object is opened",
            Some("gone"),
        ),
        (
            of(Mistake::KeepsWord, true, &[Opens, LetsGo]),
            "flights, opened without a change of the object's word",
            Some("is taken from"),
        ),
        (
            of(Mistake::FlightsFirst, false, &[Sends, LetsGo]),
            "flights, looked at before the bits",
            Some("is taken from a message"),
        ),
        (
            of(Mistake::LooksNoMore, true, &[Ignores]),
            "flights, freed without a look at the object",
            Some("the object is left"),
        ),
        (
            of(Mistake::MarksNoCard, false, &[Sends, LetsGo]),
            "flights, on cards that nobody has marked",
            Some("is taken from a message"),
        ),
    ]
}

/// What is explored, the small ones first; `all` for those that take seconds.
pub fn models(all: bool) -> Vec<Model> {
    use Part::*;
    let mut settings = Vec::new();
    for policy in [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver] {
        let of = |parts: &[Part]| Setting::of(policy, parts);
        settings.push(Setting { there: true, ..of(&[Opens]) });
        settings.push(Setting { there: true, reapers: 1, ..of(&[Ignores]) });
        settings.push(Setting { there: true, ..of(&[Opens, LetsGo]) });
        settings.push(of(&[Sends, Opens]));
        let preemptions = Some(if all { 3 } else { 2 });
        settings.push(Setting { reapers: 1, preemptions, ..of(&[Sends, Opens]) });
        settings.push(Setting { there: true, reapers: 1, preemptions, ..of(&[Opens, LetsGo]) });
        if all {
            settings.push(Setting { deaths: 2, preemptions, ..of(&[Sends, Opens, LetsGo]) });
            settings.push(Setting { there: true, deaths: 2, preemptions, ..of(&[Opens, Opens]) });
        }
    }
    settings.into_iter().map(Setting::model).collect()
}
