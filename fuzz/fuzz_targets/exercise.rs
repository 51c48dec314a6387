//! What the targets `attach` and `objects` have in common: every public operation on every kind of
//! object, with no opinion about what comes back. It must come back.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use arbitrary::Arbitrary;
use offspring::{
    ByteQueue, Event, Handle, Lock, ObjectQueue, OnReceiverDeath, Queue, QueueOptions,
    RecoveryGuard, Segment, Value, spsc,
};

/// Values of three sizes and alignments: a word, more than a word, and a block that gets pages of
/// its own.
type Large = [u64; 512];

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Operation {
    Send { value: u64, wait: bool },
    SendMany { count: u8, wait: bool },
    Reserve { commit: bool },
    Recv { wait: bool },
    RecvMany { most: u8, wait: bool },
    RecvRef,
    Look,
    Close,
    Lock { wait: bool, recover: bool },
    RingSend { value: u64, wait: bool },
    RingRecv { wait: bool },
    Count { value: u64 },
    Update { value: u64, wait: bool },
    Set { clear: bool },
    Wait { any: bool, wait: bool },
    SendBytes { len: u16, in_place: bool, wait: bool },
    RecvBytes { wait: bool },
    SendText { len: u16, wait: bool },
    RecvText { wait: bool },
    OtherHandles,
    Open { handle: [u64; 3] },
    OpenNearby { block: u8, generation: u8 },
    NewEnds,
    Make { capacity: u16 },
    Drop,
    Reap,
}

/// At most this many of each kind; the budget of a small segment is for about as many.
const MOST: usize = 4;

/// Some of each kind.
#[derive(Default)]
pub struct Objects {
    queues: Vec<Queue<u64>>,
    large: Vec<Queue<Large>>,
    locks: Vec<Lock<[u64; 3]>>,
    producers: Vec<spsc::Producer<u64>>,
    consumers: Vec<spsc::Consumer<u64>>,
    counts: Vec<Value<u64>>,
    values: Vec<Value<[u64; 3]>>,
    events: Vec<Event>,
    bytes: Vec<ByteQueue>,
    texts: Vec<ObjectQueue<Vec<String>>>,
}

impl Objects {
    /// One of each kind, with something in it.
    pub fn make(segment: &Segment) -> Objects {
        let mut objects = Objects::default();
        objects.make_more(segment, 3);
        for queue in &objects.queues {
            let _ = queue.try_send(7);
        }
        for producer in &mut objects.producers {
            let _ = producer.try_send(7);
        }
        for queue in &objects.bytes {
            let _ = queue.try_send(&[7; 300]);
        }
        for queue in &objects.texts {
            let _ = queue.try_send(vec!["text".repeat(60)]);
        }
        objects
    }

    fn make_more(&mut self, segment: &Segment, capacity: usize) {
        if self.queues.len() >= MOST {
            return;
        }
        let mut redelivering = QueueOptions::new();
        redelivering.capacity(capacity).on_receiver_death(OnReceiverDeath::Redeliver);
        self.queues.extend(Queue::with_capacity_in(segment, capacity));
        self.queues.extend(redelivering.create_in(segment));
        self.large.extend(Queue::with_capacity_in(segment, 1 + capacity % 4));
        self.bytes.extend(ByteQueue::with_capacity_in(segment, capacity % 64));
        self.texts.extend(redelivering.capacity(1 + capacity % 4).create_objects_in(segment));
        self.locks.extend(Lock::new_in(segment, [1, 2, 3]));
        self.counts.extend(Value::new_in(segment, 1));
        self.values.extend(Value::new_in(segment, [1, 2, 3]));
        self.events.extend(Event::new_in(segment));
        self.events.extend(Event::auto_reset_in(segment));
        if let Ok((producer, consumer)) = spsc::ring_in(segment, capacity) {
            self.producers.push(producer);
            self.consumers.push(consumer);
        }
    }

    fn handles(&self) -> Vec<Handle> {
        let queues =
            self.queues.iter().map(Queue::handle).chain(self.large.iter().map(Queue::handle));
        let others = self
            .locks
            .iter()
            .map(Lock::handle)
            .chain(self.producers.iter().map(spsc::Producer::handle))
            .chain(self.counts.iter().map(Value::handle))
            .chain(self.values.iter().map(Value::handle))
            .chain(self.events.iter().map(Event::handle))
            .chain(self.bytes.iter().map(ByteQueue::handle))
            .chain(self.texts.iter().map(ObjectQueue::handle));
        queues.chain(others).collect()
    }

    /// Opens whatever is there by that name, as every type.
    fn open(&mut self, segment: &Segment, handle: Handle) {
        self.queues.extend(Queue::open(segment, handle));
        self.large.extend(Queue::open(segment, handle));
        self.locks.extend(Lock::open(segment, handle));
        self.producers.extend(spsc::Producer::open(segment, handle));
        self.consumers.extend(spsc::Consumer::open(segment, handle));
        self.counts.extend(Value::open(segment, handle));
        self.values.extend(Value::open(segment, handle));
        self.events.extend(Event::open(segment, handle));
        self.events.truncate(2 * MOST);
        self.bytes.extend(ByteQueue::open(segment, handle));
        self.texts.extend(ObjectQueue::open(segment, handle));
        self.bytes.truncate(MOST);
        self.texts.truncate(MOST);
        self.counts.truncate(MOST);
        self.values.truncate(MOST);
        self.queues.truncate(2 * MOST);
        self.large.truncate(MOST);
        self.locks.truncate(MOST);
        self.producers.truncate(MOST);
        self.consumers.truncate(MOST);
    }

    /// Does it, and calls `meanwhile` while guards are held.
    pub fn run(&mut self, segment: &Segment, operation: Operation, mut meanwhile: impl FnMut()) {
        let patience = |wait| if wait { Duration::from_micros(200) } else { Duration::ZERO };
        match operation {
            Operation::Send { value, wait } => {
                for queue in &self.queues {
                    let _ = if wait {
                        queue.send_timeout(value, patience(wait)).is_ok()
                    } else {
                        queue.try_send(value).is_ok()
                    };
                }
                for queue in &self.large {
                    let _ = queue.try_send([value; 512]);
                }
            }
            Operation::SendMany { count, wait } => {
                for queue in &self.queues {
                    let _ = queue.send_many_timeout(&[9; 256][..count.into()], patience(wait));
                }
            }
            Operation::Reserve { commit } => {
                for queue in &self.large {
                    let Ok(mut slot) = queue.try_reserve() else {
                        continue;
                    };
                    meanwhile();
                    slot.fill(5);
                    if commit {
                        slot.commit();
                    }
                }
            }
            Operation::Recv { wait } => {
                for queue in &self.queues {
                    let _ = if wait {
                        queue.recv_timeout(patience(wait)).is_ok()
                    } else {
                        queue.try_recv().is_ok()
                    };
                }
            }
            Operation::RecvMany { most, wait } => {
                for queue in &self.queues {
                    let _ = queue.recv_many_timeout(&mut Vec::new(), most.into(), patience(wait));
                }
            }
            Operation::RecvRef => {
                for queue in &self.large {
                    if let Ok(message) = queue.try_recv_ref() {
                        meanwhile();
                        std::hint::black_box((
                            message.iter().fold(0_u64, |sum, word| sum ^ word),
                            message.redelivered(),
                        ));
                    }
                }
            }
            Operation::Look => {
                for queue in &self.queues {
                    std::hint::black_box((
                        queue.len(),
                        queue.is_empty(),
                        queue.is_full(),
                        queue.is_closed(),
                        queue.lost(),
                    ));
                    std::hint::black_box(format!("{queue:?}"));
                }
                std::hint::black_box(format!(
                    "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                    self.producers,
                    self.consumers,
                    self.locks,
                    self.counts,
                    self.values,
                    self.events,
                    self.bytes,
                    self.texts
                ));
            }
            Operation::Close => self.queues.iter().for_each(Queue::close),
            Operation::Lock { wait, recover } => {
                for lock in &self.locks {
                    let guard = if recover {
                        lock.recover_timeout(patience(wait)).map(RecoveryGuard::mark_repaired)
                    } else {
                        lock.lock_timeout(patience(wait))
                    };
                    meanwhile();
                    if let Ok(mut guard) = guard {
                        guard[1] += u64::from(guard[1] < 9);
                        let _ = lock.try_lock().is_ok();
                    }
                }
            }
            Operation::RingSend { value, wait } => {
                for producer in &mut self.producers {
                    let _ = producer.send_timeout(value, patience(wait));
                }
            }
            Operation::RingRecv { wait } => {
                for consumer in &mut self.consumers {
                    let _ = consumer.recv_timeout(patience(wait));
                }
            }
            Operation::Count { value } => {
                for count in &self.counts {
                    let _ = count.fetch_add(value);
                    let _ = count.compare_exchange(value, 7);
                    let _ = count.update(|count| *count ^= value);
                    let _ = count.set(value);
                    std::hint::black_box(count.get().ok());
                }
            }
            Operation::Update { value, wait } => {
                for words in &self.values {
                    let change = |words: &mut [u64; 3]| {
                        meanwhile();
                        words[1] = value;
                    };
                    let _ = if wait {
                        words.update_timeout(change, patience(wait)).is_ok()
                    } else {
                        words.try_update(change).is_ok()
                    };
                    std::hint::black_box(words.get().ok());
                }
            }
            Operation::Set { clear } => {
                for event in &self.events {
                    let _ = event.set();
                    meanwhile();
                    if clear {
                        let _ = event.clear();
                    }
                    std::hint::black_box((event.is_set().ok(), event.is_auto_reset()));
                }
            }
            Operation::Wait { any, wait } => {
                let all: Vec<&Event> = self.events.iter().collect();
                if any && !all.is_empty() {
                    let _ = Event::try_wait_any(&all);
                    let _ = Event::wait_any_timeout(&all, patience(wait));
                }
                for event in all {
                    let _ = event.try_wait();
                    let _ = event.wait_timeout(patience(wait));
                }
            }
            Operation::SendBytes { len, in_place, wait } => {
                for queue in &self.bytes {
                    if !in_place {
                        let _ = queue.send_timeout(&vec![8; len.into()], patience(wait));
                    } else if let Ok(mut loan) = queue.loan(len.into()) {
                        meanwhile();
                        loan.fill(9);
                        let _ = loan.send_timeout(patience(wait)).is_ok();
                    }
                }
            }
            Operation::RecvBytes { wait } => {
                for queue in &self.bytes {
                    if let Ok(message) = queue.recv_timeout(patience(wait)) {
                        meanwhile();
                        let sum = message.iter().fold(0_u8, |sum, byte| sum ^ byte);
                        std::hint::black_box((sum, message.redelivered()));
                    }
                }
            }
            Operation::SendText { len, wait } => {
                for queue in &self.texts {
                    let _ = queue.send_timeout(vec!["x".repeat(len.into()); 2], patience(wait));
                }
            }
            Operation::RecvText { wait } => {
                for queue in &self.texts {
                    std::hint::black_box(queue.recv_timeout(patience(wait)).ok());
                }
            }
            Operation::OtherHandles => {
                self.events = self.events.to_vec();
                self.bytes = self.bytes.to_vec();
                self.texts = self.texts.to_vec();
                self.counts = self.counts.to_vec();
                self.values = self.values.to_vec();
                self.queues = self.queues.to_vec();
                self.locks = self.locks.to_vec();
            }
            Operation::Open { handle } => {
                self.open(segment, bytemuck::cast([segment.id(), handle[1], handle[2]]))
            }
            Operation::OpenNearby { block, generation } => {
                for handle in self.handles() {
                    let [id, first, there] = bytemuck::cast::<Handle, [u64; 3]>(handle);
                    let near = [
                        id,
                        first.wrapping_add(block.into()),
                        there.wrapping_add(generation.into()),
                    ];
                    self.open(segment, bytemuck::cast(near));
                }
            }
            Operation::NewEnds => {
                let handles: Vec<_> = self.producers.drain(..).map(|end| end.handle()).collect();
                self.consumers.clear();
                self.producers.extend(
                    handles.iter().filter_map(|&handle| spsc::Producer::open(segment, handle).ok()),
                );
                self.consumers.extend(
                    handles.iter().filter_map(|&handle| spsc::Consumer::open(segment, handle).ok()),
                );
            }
            Operation::Make { capacity } => self.make_more(segment, capacity.into()),
            Operation::Drop => *self = Objects::default(),
            Operation::Reap => drop(segment.reap()),
        }
    }
}

/// The bytes of a segment as a file, to write over them.
pub fn file_of(segment: &Segment) -> File {
    // SAFETY: the descriptor is open as long as the segment.
    let fd = unsafe { BorrowedFd::borrow_raw(segment.as_raw_fd()) };
    File::from(fd.try_clone_to_owned().expect("a descriptor"))
}
