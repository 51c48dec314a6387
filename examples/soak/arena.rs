//! The objects of a round, and which worker uses which.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use offspring::{
    ByteQueue, Event, Handle, Lock, ObjectQueue, OnReceiverDeath, Queue, QueueOptions, Segment,
    Value, spsc,
};
use tempfile::TempDir;

use crate::carry_work::{Package, Parcel};
use crate::churn_work::Name;
use crate::ledger::Ledger;
use crate::lock_work::Account;
use crate::message::Message;
use crate::message_work::Letter;
use crate::random::Random;

macro_rules! objects {
    ($($(#[$doc:meta])* $object:ident = $name:literal),* $(,)?) => {
        /// What is worked at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Object {
            $($(#[$doc])* $object),*
        }

        impl Object {
            pub const ALL: [Object; [$($name),*].len()] = [$(Object::$object),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Object::$object => $name),*
                }
            }
        }
    };
}

objects! {
    /// A queue that drops what its receiver is killed with.
    Drop = "queue, drop",
    /// A queue that delivers that again.
    Redeliver = "queue, redeliver",
    /// A queue in a file.
    File = "queue in a file",
    /// A queue of messages of any length, which delivers again what its receiver is killed with.
    Bytes = "bytes, redeliver",
    /// A queue of values that are encoded, which drops that.
    Letters = "objects, drop",
    /// A queue of boxes, which drops what its receiver is killed with.
    Packages = "boxes, drop",
    /// A queue of handles that only their messages hold, which drops that.
    Parcels = "handles, drop",
    /// A ring of one sender and one receiver, whose places are taken over.
    Ring = "spsc ring",
    /// A lock over several words that must agree.
    Lock = "lock",
    /// A value of several words that must agree, read without a lock.
    Value = "value",
    /// Events with automatic reset, of each of which one worker has the turn, and a gate.
    Event = "event",
    /// Channels whose ends go to children.
    Channel = "channel",
    /// Queues and locks that are made, sent by name, opened and dropped.
    Churn = "make and drop",
    /// Children that have children.
    Fork = "fork",
}

impl Object {
    /// Whether messages of its senders are accounted for, one by one, at the end of the round.
    pub fn has_ends(self) -> bool {
        matches!(
            self,
            Object::Drop
                | Object::Redeliver
                | Object::File
                | Object::Bytes
                | Object::Letters
                | Object::Packages
                | Object::Parcels
                | Object::Ring
        )
    }

    /// Whether a message whose receiver is killed is delivered again.
    pub fn redelivers(self) -> bool {
        matches!(self, Object::Redeliver | Object::Bytes)
    }
}

/// Which part a worker has at its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Sender,
    Receiver,
    Any,
}

/// The place of a worker, and of whoever replaces it.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    pub object: Object,
    pub part: Part,
}

/// What is left of a new ring's two ends. The first workers take those that are used.
#[derive(Debug)]
pub struct RingEnds {
    pub producer: Option<spsc::Producer<Message>>,
    pub consumer: Option<spsc::Consumer<Message>>,
    /// Stand by in the supervisor, so that neither role is gone when its worker is dead.
    _spare: (spsc::Producer<Message>, spsc::Consumer<Message>),
}

/// All objects of a round, in the hands of the supervisor and of every worker.
#[derive(Debug)]
pub struct Arena {
    pub ledger: Ledger,
    pub dropping: Queue<Message>,
    pub redelivering: Queue<Message>,
    pub in_file: Queue<Message>,
    pub path: PathBuf,
    pub bytes: ByteQueue,
    pub letters: ObjectQueue<Letter>,
    pub packages: Queue<Package>,
    pub parcels: ObjectQueue<Parcel>,
    pub ring: Handle,
    /// The ends of the ring, until the first workers take them.
    pub ring_ends: Mutex<RingEnds>,
    pub lock: Lock<Account>,
    pub value: Value<Account>,
    pub turns: [Event; 2],
    pub gate: Event,
    pub names: Queue<Name>,
}

const FILE_LEN: u64 = 1 << 20;

impl Arena {
    pub fn new(
        folder: &TempDir,
        round: u64,
        random: &mut Random,
    ) -> Result<Arc<Arena>, Box<dyn Error>> {
        let [of_ring, of_redelivering, of_dropping, of_file] =
            [(); 4].map(|()| 1 << random.below(9));
        let path = folder.path().join(format!("round-{round}"));
        let file = Segment::create_file(&path, FILE_LEN)?;
        let (producer, consumer) = spsc::ring(of_ring)?;
        let _spare = (producer.standby()?, consumer.standby()?);
        let redelivering = QueueOptions::new()
            .capacity(of_redelivering)
            .on_receiver_death(OnReceiverDeath::Redeliver)
            .create()?;
        // Not so many that they fill the commons.
        let mut long = QueueOptions::new();
        long.capacity(1 << random.below(5)).on_receiver_death(OnReceiverDeath::Redeliver);
        Ok(Arc::new(Arena {
            ledger: Ledger::new()?,
            dropping: Queue::with_capacity(of_dropping)?,
            redelivering,
            in_file: Queue::with_capacity_in(&file, of_file)?,
            path,
            bytes: long.create_bytes()?,
            letters: ObjectQueue::with_capacity(1 << random.below(5))?,
            packages: Queue::with_capacity(1 << random.below(5))?,
            parcels: ObjectQueue::with_capacity(1 << random.below(5))?,
            ring: producer.handle(),
            ring_ends: Mutex::new(RingEnds {
                producer: Some(producer),
                consumer: Some(consumer),
                _spare,
            }),
            lock: Lock::new(Account::of(1))?,
            value: Value::new(Account::of(1))?,
            turns: [Event::auto_reset()?, Event::auto_reset()?],
            gate: Event::new()?,
            names: Queue::with_capacity(16)?,
        }))
    }

    pub fn close(&self) {
        self.dropping.close();
        self.redelivering.close();
        self.in_file.close();
        self.bytes.close();
        self.letters.close();
        self.packages.close();
        self.parcels.close();
    }
}

/// Deals `processes` stations at some of these objects: those that were dealt longest ago.
pub fn deal(
    random: &mut Random,
    all: &[Object],
    deck: &mut Vec<Object>,
    processes: usize,
) -> Vec<Station> {
    let most = (processes / 2).clamp(1, all.len());
    let count = 1 + random.below(most as u64) as usize;
    let mut objects = Vec::new();
    while objects.len() < count {
        if deck.is_empty() {
            deck.extend(all);
            random.shuffle(deck);
        }
        let object = deck.pop().expect("it was filled");
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    let mut dealt = [0; Object::ALL.len()];
    let station = |index: usize| {
        // Two for each, and then as it comes.
        let object = if index < 2 * count {
            objects[index / 2]
        } else {
            objects[random.below(count as u64) as usize]
        };
        let turn = dealt[object as usize];
        dealt[object as usize] += 1;
        let part = match turn % 2 {
            _ if !object.has_ends() => Part::Any,
            0 => Part::Sender,
            _ => Part::Receiver,
        };
        Station { object, part }
    };
    (0..processes).map(station).collect()
}
