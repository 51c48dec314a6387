//! Boxes and handles are made, sent, received and dropped, against a model of what is in which
//! message. What comes out is what went in; whoever has an end of a channel knows of the other one;
//! and in the end no block is in use.
//!
//! `cargo +nightly fuzz run carried fuzz/seeds/carried -- -max_total_time=60`
#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use offspring::{
    ObjectQueue, Queue, QueueOptions, Receiver, Segment, Sender, ShmArc, ShmBox, Transfer,
    TrySendError,
};
use serde::{Deserialize, Serialize};

const LEN: u64 = 1 << 20;
const SLOTS: usize = 3;
/// Things that this process has at a time.
const MOST: usize = 8;
/// No promise on time, a watchdog.
const LONG: Duration = Duration::from_secs(20);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    MakeBox {
        len: u16,
    },
    SendBox {
        which: u8,
    },
    ReceiveBox,
    DropBox {
        which: u8,
    },
    MakeQueue,
    MakeChannel,
    MakeShared {
        len: u16,
    },
    Clone {
        which: u8,
    },
    Send {
        which: u8,
    },
    Receive,
    Drop {
        which: u8,
    },
    /// Everything that lies in the queues goes with them, and there are new ones.
    DropQueues,
}

#[derive(Serialize, Deserialize)]
enum Object {
    Queue(Queue<u64>),
    Sender(Sender<u64>),
    Receiver(Receiver<u64>),
    Shared(ShmArc<[u64]>),
}

/// An object, and its number. Both ends of a channel have the same.
struct Known {
    number: u64,
    object: Object,
}

impl Known {
    fn another(&self) -> Known {
        let object = match &self.object {
            Object::Queue(queue) => Object::Queue(queue.clone()),
            Object::Sender(sender) => Object::Sender(sender.clone()),
            Object::Receiver(receiver) => Object::Receiver(receiver.clone()),
            Object::Shared(shared) => Object::Shared(shared.clone()),
        };
        Known { number: self.number, object }
    }
}

/// A number, and memory full of it.
#[derive(Transfer)]
struct Package {
    number: u64,
    words: ShmBox<[u64]>,
}

#[derive(Default)]
struct Model {
    numbers: u64,
    boxes: Vec<Package>,
    objects: Vec<Known>,
    boxes_in_messages: VecDeque<u64>,
    objects_in_messages: VecDeque<(u64, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Queue,
    Sender,
    Receiver,
    Shared,
}

fn kind(object: &Object) -> Kind {
    match object {
        Object::Queue(_) => Kind::Queue,
        Object::Sender(_) => Kind::Sender,
        Object::Receiver(_) => Kind::Receiver,
        Object::Shared(_) => Kind::Shared,
    }
}

impl Model {
    fn next(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn keep(&mut self, number: u64, object: Object) {
        self.objects.push(Known { number, object });
    }

    /// Whether somebody has such an end of this channel: this process, or a message.
    fn is_there(&self, wanted: u64, end: Kind) -> bool {
        let mine = self.objects.iter().map(|known| (known.number, kind(&known.object)));
        mine.chain(self.objects_in_messages.iter().copied()).any(|found| found == (wanted, end))
    }

    /// Everything that this process has is what it was.
    fn check(&self) {
        for Package { number, words } in &self.boxes {
            assert!(words.iter().all(|word| word == number));
        }
        for Known { number, object } in &self.objects {
            match object {
                Object::Queue(queue) => {
                    assert_eq!(queue.try_recv(), Ok(*number));
                    queue.try_send(*number).expect("room for what was taken");
                }
                Object::Shared(shared) => assert!(shared.iter().all(|word| word == number)),
                Object::Sender(sender) => {
                    let is_gone = !self.is_there(*number, Kind::Receiver);
                    match sender.try_send(*number) {
                        Err(TrySendError::Disconnected(_)) => assert!(is_gone),
                        // That nobody is there is found out every now and then.
                        Err(error) => assert!(error.is_full(), "{error}"),
                        Ok(()) => {}
                    }
                }
                Object::Receiver(receiver) if self.is_there(*number, Kind::Sender) => {
                    match receiver.try_recv() {
                        Ok(found) => assert_eq!(found, *number),
                        Err(error) => assert!(error.is_empty(), "{error}"),
                    }
                }
                // What was sent before comes first.
                Object::Receiver(receiver) => match receiver.recv_timeout(LONG) {
                    Ok(found) => assert_eq!(found, *number),
                    Err(error) => assert!(error.is_disconnected(), "{error}"),
                },
            }
        }
    }
}

struct Queues {
    boxes: Queue<Package>,
    objects: ObjectQueue<Object>,
}

impl Queues {
    fn make(segment: &Segment) -> Queues {
        Queues {
            boxes: Queue::with_capacity_in(segment, SLOTS).expect("room"),
            objects: ObjectQueue::with_capacity_in(segment, SLOTS).expect("room"),
        }
    }
}

fuzz_target!(|operations: Vec<Operation>| {
    let segment = Segment::create(LEN).expect("a segment");
    let mut queues = Queues::make(&segment);
    let mut model = Model::default();
    for operation in operations.into_iter().take(200) {
        let crowded = model.objects.len() + 2 > MOST;
        match operation {
            Operation::MakeBox { len } if model.boxes.len() < MOST => {
                let number = model.next();
                let words = vec![number; 1 + usize::from(len % 600)];
                let words = ShmBox::from_slice_in(&segment, &words).expect("room");
                model.boxes.push(Package { number, words });
            }
            Operation::SendBox { which } if !model.boxes.is_empty() => {
                let which = usize::from(which) % model.boxes.len();
                let sent = model.boxes.swap_remove(which);
                let number = sent.number;
                match queues.boxes.try_send(sent) {
                    Ok(()) => model.boxes_in_messages.push_back(number),
                    Err(TrySendError::Full(back)) => {
                        assert_eq!(model.boxes_in_messages.len(), SLOTS);
                        model.boxes.push(back);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::ReceiveBox if model.boxes.len() < MOST => match queues.boxes.try_recv() {
                Ok(package) => {
                    assert_eq!(model.boxes_in_messages.pop_front(), Some(package.number));
                    model.boxes.push(package);
                }
                Err(error) => {
                    assert!(error.is_empty() && model.boxes_in_messages.is_empty(), "{error}");
                }
            },
            Operation::DropBox { which } if !model.boxes.is_empty() => {
                model.boxes.swap_remove(usize::from(which) % model.boxes.len());
            }
            Operation::MakeQueue if !crowded => {
                let number = model.next();
                let queue = Queue::with_capacity_in(&segment, 1).expect("room");
                queue.try_send(number).expect("room");
                model.keep(number, Object::Queue(queue));
            }
            Operation::MakeChannel if !crowded => {
                let number = model.next();
                let (sender, receiver) =
                    QueueOptions::new().capacity(2).create_channel_in(&segment).expect("room");
                model.keep(number, Object::Sender(sender));
                model.keep(number, Object::Receiver(receiver));
            }
            Operation::MakeShared { len } if !crowded => {
                let number = model.next();
                let words = vec![number; 1 + usize::from(len % 600)];
                let shared = ShmArc::from_slice_in(&segment, &words).expect("room");
                model.keep(number, Object::Shared(shared));
            }
            Operation::Clone { which } if !model.objects.is_empty() && !crowded => {
                let which = usize::from(which) % model.objects.len();
                let another = model.objects[which].another();
                model.objects.push(another);
            }
            Operation::Send { which } if !model.objects.is_empty() => {
                let which = usize::from(which) % model.objects.len();
                let Known { number, object } = model.objects.swap_remove(which);
                let what = (number, kind(&object));
                match queues.objects.try_send(object) {
                    Ok(()) => model.objects_in_messages.push_back(what),
                    Err(TrySendError::Full(back)) => {
                        assert_eq!(model.objects_in_messages.len(), SLOTS);
                        model.keep(number, back);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Operation::Receive if !crowded => match queues.objects.try_recv() {
                Ok(object) => {
                    let (number, expected) =
                        model.objects_in_messages.pop_front().expect("it was sent");
                    assert_eq!(kind(&object), expected);
                    model.keep(number, object);
                }
                Err(error) => {
                    assert!(error.is_empty() && model.objects_in_messages.is_empty(), "{error}");
                }
            },
            Operation::Drop { which } if !model.objects.is_empty() => {
                model.objects.swap_remove(usize::from(which) % model.objects.len());
            }
            Operation::DropQueues => {
                queues = Queues::make(&segment);
                model.boxes_in_messages.clear();
                model.objects_in_messages.clear();
            }
            _ => {}
        }
        model.check();
    }
    drop((model, queues));
    assert_eq!(segment.stats().expect("attached").in_use.blocks, 0, "blocks are left");
});
