//! Objects of any size are made, cloned, opened and dropped in a small segment, and messages of any
//! length sent and received, against a model of what must be alive. In the end the whole budget is
//! there again.
//!
//! `cargo +nightly fuzz run heap fuzz/seeds/heap -- -max_total_time=60`
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use offspring::{
    ByteQueue, CreateError, Fault, Handle, Lock, Queue, Segment, TryRecvError, TrySendError, spsc,
};

/// Not a power of two, so that no class fits it exactly.
const BUDGET: u64 = 300_000;
/// Bytes of a queue and of a ring beside their slots, and at least of a lock beside its value.
const QUEUE: u64 = 640;
const RING: u64 = 1152;
const LOCK: u64 = 8;

/// Messages large enough that few of them fill the segment.
type Message = [u64; 32];
const MESSAGE: u64 = size_of::<Message>() as u64;
/// A few more slots than there is room for.
const MOST: u64 = BUDGET / MESSAGE + 8;

#[derive(Arbitrary, Debug)]
enum Operation {
    Queue {
        capacity: u16,
    },
    Lock {
        large: bool,
    },
    Ring {
        capacity: u16,
    },
    Bytes,
    /// To every queue of bytes, in a loan or as a copy.
    Send {
        len: u32,
        in_place: bool,
    },
    Receive {
        which: u8,
    },
    GiveUpLoan {
        which: u8,
        len: u32,
    },
    Clone {
        which: u8,
    },
    Open {
        which: u8,
    },
    Drop {
        which: u8,
    },
    OpenDropped {
        which: u8,
    },
}

enum Object {
    Queue(Queue<Message>),
    Lock(Lock<u64>),
    LargeLock(Lock<[u64; 2000]>),
    Ring(spsc::Producer<Message>, spsc::Consumer<Message>),
    Bytes(ByteQueue),
}

/// Slots of a queue of bytes, and the length up to which a message lies in one.
const SLOTS: u64 = 4;
const SHORT: usize = 240;

/// Every byte of this message.
fn byte(mark: u64, len: usize) -> u8 {
    (mark as u8) ^ (len as u8) | 1
}

impl Object {
    fn handle(&self) -> Handle {
        match self {
            Object::Queue(queue) => queue.handle(),
            Object::Lock(lock) => lock.handle(),
            Object::LargeLock(lock) => lock.handle(),
            Object::Ring(producer, _) => producer.handle(),
            Object::Bytes(queue) => queue.handle(),
        }
    }

    /// Puts the mark where nobody else may write, and fills what is around it.
    fn mark(&mut self, mark: u64) {
        match self {
            Object::Queue(queue) => while queue.try_send([mark; 32]).is_ok() {},
            Object::Lock(lock) => *lock.lock().expect("free") = mark,
            Object::LargeLock(lock) => lock.lock().expect("free").fill(mark),
            Object::Ring(producer, _) => while producer.try_send([mark; 32]).is_ok() {},
            // Whoever has room marks it.
            Object::Bytes(_) => {}
        }
    }

    /// Finds the mark in every place.
    fn check(&mut self, mark: u64, lens: &[usize]) {
        match self {
            Object::Queue(queue) => {
                let mut values = Vec::new();
                assert_eq!(queue.try_recv_many(&mut values, usize::MAX), Ok(queue.capacity()));
                assert!(values.iter().all(|&value| value == [mark; 32]));
                queue.try_send_many(&values).expect("as many as there were");
            }
            Object::Lock(lock) => assert_eq!(*lock.lock().expect("free"), mark),
            Object::LargeLock(lock) => {
                assert!(lock.lock().expect("free").iter().all(|&word| word == mark))
            }
            Object::Ring(producer, consumer) => {
                for _ in 0..consumer.len() {
                    assert_eq!(consumer.try_recv(), Ok([mark; 32]));
                    producer.try_send([mark; 32]).expect("room for what was taken");
                }
            }
            Object::Bytes(queue) => {
                assert_eq!(queue.len(), lens.len());
                for &len in lens {
                    receive(queue, mark, len);
                    queue.try_send(&vec![byte(mark, len); len]).expect("room for what was taken");
                }
            }
        }
    }

    /// Another handle; a ring has one only.
    fn another(&self) -> Option<Object> {
        match self {
            Object::Queue(queue) => Some(Object::Queue(queue.clone())),
            Object::Lock(lock) => Some(Object::Lock(lock.clone())),
            Object::LargeLock(lock) => Some(Object::LargeLock(lock.clone())),
            Object::Ring(..) => None,
            Object::Bytes(queue) => Some(Object::Bytes(queue.clone())),
        }
    }

    /// The same object by its name.
    fn open(&self, segment: &Segment) -> Option<Object> {
        let handle = self.handle();
        Some(match self {
            Object::Queue(_) => Object::Queue(Queue::open(segment, handle).expect("alive")),
            Object::Lock(_) => Object::Lock(Lock::open(segment, handle).expect("alive")),
            Object::LargeLock(_) => Object::LargeLock(Lock::open(segment, handle).expect("alive")),
            Object::Bytes(_) => Object::Bytes(ByteQueue::open(segment, handle).expect("alive")),
            Object::Ring(..) => {
                assert_eq!(
                    spsc::Producer::<Message>::open(segment, handle).unwrap_err(),
                    Fault::RoleTaken
                );
                assert_eq!(
                    spsc::Consumer::<Message>::open(segment, handle).unwrap_err(),
                    Fault::RoleTaken
                );
                return None;
            }
        })
    }
}

fn receive(queue: &ByteQueue, mark: u64, len: usize) {
    let message = queue.try_recv().expect("a message");
    assert_eq!(message.len(), len);
    assert!(message.iter().all(|&found| found == byte(mark, len)));
}

/// What must be alive: an object under all its handles.
struct Alive {
    bytes: u64,
    mark: u64,
    handles: Vec<Object>,
    /// Lengths of the messages in it, if it is a queue of bytes.
    lens: Vec<usize>,
}

impl Alive {
    fn used(&self) -> u64 {
        let long = self.lens.iter().filter(|&&len| len > SHORT);
        self.bytes + long.map(|&len| len as u64).sum::<u64>()
    }
}

#[derive(Default)]
struct Model {
    alive: Vec<Alive>,
    dropped: Vec<Handle>,
    marks: u64,
}

impl Model {
    fn used(&self) -> u64 {
        self.alive.iter().map(Alive::used).sum()
    }

    fn made(&mut self, bytes: u64, made: Result<Object, CreateError>) {
        match made {
            Ok(mut object) => {
                self.marks += 1;
                object.mark(self.marks);
                self.alive.push(Alive {
                    bytes,
                    mark: self.marks,
                    handles: vec![object],
                    lens: Vec::new(),
                });
                assert!(
                    self.used() <= BUDGET,
                    "{} bytes: more than the segment may hold",
                    self.used()
                );
            }
            // Half of a block may be unused, and of a large object's size there may be one block
            // only.
            Err(error) => self.refused(bytes, error),
        }
    }

    fn refused(&self, bytes: u64, error: CreateError) {
        assert!(matches!(error, CreateError::OutOfMemory { .. }), "{error}");
        assert!(self.used() + bytes > BUDGET / 2, "refused with {} in use", self.used());
    }

    /// The queues of bytes.
    fn queues(&self) -> Vec<(ByteQueue, usize)> {
        let queues = self.alive.iter().enumerate().filter_map(|(index, alive)| {
            let Object::Bytes(queue) = &alive.handles[0] else { return None };
            Some((queue.clone(), index))
        });
        queues.collect()
    }

    fn send(&mut self, len: usize, in_place: bool) {
        for (queue, index) in self.queues() {
            let mark = self.alive[index].mark;
            let sent = if in_place {
                match queue.loan(len) {
                    Ok(mut loan) => {
                        loan.fill(byte(mark, len));
                        loan.try_send().map_err(|error| {
                            assert!(error.is_full());
                            None
                        })
                    }
                    Err(error) => Err(Some(error)),
                }
            } else {
                queue.try_send(&vec![byte(mark, len); len]).map_err(|error| match error {
                    TrySendError::Full(()) => None,
                    TrySendError::Rejected((), error) => Some(error),
                    error => panic!("{error}"),
                })
            };
            match sent {
                Ok(()) => self.alive[index].lens.push(len),
                Err(None) => assert_eq!(self.alive[index].lens.len() as u64, SLOTS),
                Err(Some(error)) => self.refused(len as u64, error),
            }
            assert!(self.used() <= BUDGET, "{} bytes: more than the segment may hold", self.used());
        }
    }

    fn pick(&mut self, which: u8) -> Option<&mut Alive> {
        let count = self.alive.len().max(1);
        self.alive.get_mut(usize::from(which) % count)
    }
}

fuzz_target!(|operations: Vec<Operation>| {
    let segment = Segment::create(BUDGET).expect("a segment");
    let mut model = Model::default();
    for operation in operations {
        match operation {
            Operation::Queue { capacity } => {
                let capacity = 1 + u64::from(capacity) % MOST;
                let made = Queue::with_capacity_in(&segment, capacity as usize).map(Object::Queue);
                model.made(QUEUE + capacity * (8 + MESSAGE), made);
            }
            Operation::Lock { large: false } => {
                model.made(LOCK + 8, Lock::new_in(&segment, 0).map(Object::Lock))
            }
            Operation::Lock { large: true } => {
                model.made(LOCK + 16_000, Lock::new_in(&segment, [0; 2000]).map(Object::LargeLock));
            }
            Operation::Ring { capacity } => {
                let capacity = 1 + u64::from(capacity) % MOST;
                let made = spsc::ring_in(&segment, capacity as usize)
                    .map(|(producer, consumer)| Object::Ring(producer, consumer));
                model.made(RING + capacity * MESSAGE, made);
            }
            Operation::Bytes => {
                let made = ByteQueue::with_capacity_in(&segment, SLOTS as usize);
                model.made(QUEUE + SLOTS * 256, made.map(Object::Bytes));
            }
            Operation::Send { len, in_place } => {
                model.send((u64::from(len) % (BUDGET / 2)) as usize, in_place);
            }
            Operation::Receive { which } => {
                if let Some(Alive { handles, lens, mark, .. }) = model.pick(which)
                    && let Object::Bytes(queue) = &handles[0]
                {
                    if lens.is_empty() {
                        assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
                    } else {
                        receive(queue, *mark, lens.remove(0));
                    }
                }
            }
            Operation::GiveUpLoan { which, len } => {
                if let Some(Alive { handles, .. }) = model.pick(which)
                    && let Object::Bytes(queue) = &handles[0]
                {
                    drop(queue.loan(len as usize));
                }
            }
            Operation::Clone { which } => {
                if let Some(alive) = model.pick(which) {
                    alive.handles.extend(alive.handles[0].another());
                }
            }
            Operation::Open { which } => {
                if let Some(alive) = model.pick(which) {
                    alive.handles.extend(alive.handles[0].open(&segment));
                }
            }
            Operation::Drop { which } => {
                if let Some(alive) = model.pick(which) {
                    let mut last = alive.handles.pop().expect("at least one");
                    last.check(alive.mark, &alive.lens);
                    if alive.handles.is_empty() {
                        model.dropped.push(last.handle());
                        model.alive.retain(|alive| !alive.handles.is_empty());
                    }
                }
            }
            Operation::OpenDropped { which } => {
                if let Some(&handle) = model.dropped.get(usize::from(which)) {
                    assert_eq!(Queue::<Message>::open(&segment, handle).unwrap_err(), Fault::Stale);
                    assert_eq!(Lock::<u64>::open(&segment, handle).unwrap_err(), Fault::Stale);
                    assert_eq!(ByteQueue::open(&segment, handle).unwrap_err(), Fault::Stale);
                }
            }
        }
    }
    for alive in &mut model.alive {
        let mark = alive.mark;
        alive.handles[0].check(mark, &alive.lens);
    }
    drop(model);
    let all = ((BUDGET - RING) / MESSAGE) as usize;
    spsc::ring_in::<Message>(&segment, all).expect("the whole budget is there again");
});
