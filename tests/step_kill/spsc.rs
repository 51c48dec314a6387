//! Cases of the ring with one sender and one receiver: its operations, the roles that are taken,
//! given up and taken over, and the other side that learns that a role is gone.

use std::time::Duration;

use offspring::spsc::{Consumer, Producer, ring_in};
use offspring::{Fault, Handle, RecvTimeoutError, Segment, TryRecvError, TrySendError, Wait};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::queue::{Message, number_of, sealed};
use crate::stage::{BOTH, Helper, How, Scene, Tally, found};

/// A survivor that waits for longer does so in vain.
const LONG: Duration = Duration::from_secs(20);

/// The ring as the victim finds it.
#[derive(Clone, Copy, Debug)]
struct Start {
    capacity: usize,
    /// Messages sent and received before.
    offset: u64,
    fill: u64,
    /// Whether the role that the victim opens is that of a dead process.
    role_of_the_dead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    TrySend,
    Send,
    TryRecv,
    Recv,
    OpenProducer,
    OpenConsumer,
    DropProducer,
    DropConsumer,
}

impl Op {
    const ALL: [Op; 8] = [
        Op::TrySend,
        Op::Send,
        Op::TryRecv,
        Op::Recv,
        Op::OpenProducer,
        Op::OpenConsumer,
        Op::DropProducer,
        Op::DropConsumer,
    ];

    fn name(self) -> &'static str {
        match self {
            Op::TrySend => "try_send",
            Op::Send => "send",
            Op::TryRecv => "try_recv",
            Op::Recv => "recv",
            Op::OpenProducer => "Producer::open",
            Op::OpenConsumer => "Consumer::open",
            Op::DropProducer => "drop of a Producer",
            Op::DropConsumer => "drop of a Consumer",
        }
    }

    fn perform(self, segment: &Segment, handle: Handle) {
        let time = Duration::from_millis(2);
        let producer =
            || Producer::<Message>::open(segment, handle).expect("nobody living has the role");
        let consumer =
            || Consumer::<Message>::open(segment, handle).expect("nobody living has the role");
        match self {
            Op::TrySend | Op::Send => {
                let mut end = producer();
                end.set_wait(Wait::Sleep);
                mark();
                let sent = if self == Op::Send {
                    end.send_timeout(sealed(51), time).is_ok()
                } else {
                    end.try_send(sealed(51)).is_ok()
                };
                mark();
                std::mem::forget((end, sent));
            }
            Op::TryRecv | Op::Recv => {
                let mut end = consumer();
                end.set_wait(Wait::Sleep);
                mark();
                let received = if self == Op::Recv {
                    end.recv_timeout(time).is_ok()
                } else {
                    end.try_recv().is_ok()
                };
                mark();
                std::mem::forget((end, received));
            }
            Op::OpenProducer | Op::OpenConsumer => {
                // Attached before, and no holder of the ring.
                drop(offspring::Lock::new_in(segment, 0_u64));
                mark();
                if self == Op::OpenProducer {
                    std::mem::forget(producer())
                } else {
                    std::mem::forget(consumer())
                }
                mark();
            }
            Op::DropProducer => {
                let end = producer();
                mark();
                drop(end);
                mark();
            }
            Op::DropConsumer => {
                let end = consumer();
                mark();
                drop(end);
                mark();
            }
        }
    }

    /// Whether it is one of the sender.
    fn sends(self) -> bool {
        matches!(self, Op::TrySend | Op::Send | Op::OpenProducer | Op::DropProducer)
    }

    fn expected(self, start: &Start) -> Vec<String> {
        let mut messages: Vec<u64> = (1..=start.fill).collect();
        let mut list = vec![format!("{messages:?}")];
        match self {
            Op::TrySend | Op::Send if start.fill < start.capacity as u64 => messages.push(51),
            Op::TryRecv | Op::Recv if start.fill > 0 => drop(messages.remove(0)),
            _ => return list,
        }
        list.push(format!("{messages:?}"));
        list
    }
}

/// Makes the ring. This process keeps no end of it: both roles are free, and a helper that idles
/// has ends that stand by, so that neither is gone.
fn set_up(segment: &Segment, start: &Start, op: Op) -> (Handle, Vec<Helper>) {
    let (mut sender, mut receiver) = ring_in::<Message>(segment, start.capacity).expect("a ring");
    for number in 0..start.offset {
        sender.try_send(sealed(number)).expect("room");
        receiver.try_recv().expect("a message");
    }
    (1..=start.fill).for_each(|number| sender.try_send(sealed(number)).expect("room"));
    let handle = sender.handle();
    let helpers = vec![Helper::start(|| {
        (sender.standby().expect("another end"), receiver.standby().expect("another end"))
    })];
    drop((sender, receiver));
    if start.role_of_the_dead {
        let dead = if op.sends() {
            Helper::start(|| Producer::<Message>::open(segment, handle).expect("the role is free"))
        } else {
            Helper::start(|| Consumer::<Message>::open(segment, handle).expect("the role is free"))
        };
        dead.kill();
    }
    (handle, helpers)
}

fn check(segment: &Segment, handle: Handle, how: How) -> String {
    let mut sender = Producer::<Message>::open(segment, handle).expect("the role of the dead");
    let mut receiver = Consumer::<Message>::open(segment, handle).expect("the role of the dead");
    assert!(matches!(Producer::<Message>::open(segment, handle), Err(Fault::RoleTaken)));
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    let mut messages = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        messages.push(number_of(&message));
    }
    for lap in 0..2 {
        let numbers = lap * 1000..lap * 1000 + receiver.capacity() as u64;
        numbers
            .clone()
            .for_each(|number| sender.try_send(sealed(number)).expect("the whole capacity"));
        assert!(
            matches!(sender.try_send(sealed(0)), Err(TrySendError::Full(_))),
            "more than its capacity"
        );
        numbers.for_each(|number| {
            assert_eq!(receiver.try_recv().map(|message| number_of(&message)), Ok(number))
        });
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    }
    format!("{messages:?}")
}

/// All who had ends are dead. Whoever comes to the other side finds what is there, and then that
/// nobody is left.
fn check_end(segment: &Segment, handle: Handle, how: How, sends: bool) -> String {
    let reap = || {
        if how == How::Reaped {
            segment.reap().expect("attached");
        }
    };
    let mut messages = Vec::new();
    if sends {
        let mut receiver =
            Consumer::<Message>::open(segment, handle).expect("the role of the dead");
        reap();
        let end = loop {
            match receiver.recv_timeout(LONG) {
                Ok(message) => messages.push(number_of(&message)),
                Err(end) => break end,
            }
        };
        assert_eq!(end, RecvTimeoutError::Disconnected);
        assert!(receiver.is_disconnected());
        assert!(matches!(Producer::<Message>::open(segment, handle), Err(Fault::Stale)));
    } else {
        let mut sender = Producer::<Message>::open(segment, handle).expect("the role of the dead");
        reap();
        // Nobody receives them any more. Which ones they are, is seen from their number.
        messages.extend(3 - sender.len() as u64..3);
        let mut sent = 0;
        let end = loop {
            match sender.send_timeout(sealed(0), LONG) {
                Ok(()) => sent += 1,
                Err(end) => break end,
            }
        };
        assert!(end.is_disconnected() && sender.is_disconnected(), "{end:?}");
        assert!(sent <= sender.capacity(), "more than there is room for");
        assert!(matches!(Consumer::<Message>::open(segment, handle), Err(Fault::Stale)));
    }
    format!("{messages:?}")
}

/// A victim that is the last of its role.
fn plan_of_the_end(op: Op) -> Plan {
    let start = Start { capacity: 2, offset: 1, fill: 2, role_of_the_dead: false };
    let start = Start { fill: if op == Op::TrySend { 1 } else { start.fill }, ..start };
    Plan::new("spsc ring: the end", op.name(), format!("{start:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (handle, helpers) = set_up(&segment, &start, op);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| Tracee::start(|| op.perform(&segment, handle)),
            expected: found(op.expected(&start)),
            check: &|how| check_end(&segment, handle, how, op.sends()),
            beside: None,
            helpers,
            hows: BOTH,
        };
        scene.visit(tally, None);
    })
}

fn plan(op: Op, start: Start, real: bool) -> Plan {
    Plan::new("spsc ring", op.name(), format!("{start:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (handle, helpers) = set_up(&segment, &start, op);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| Tracee::start(|| op.perform(&segment, handle)),
            expected: found(op.expected(&start)),
            check: &|how| check(&segment, handle, how),
            beside: None,
            helpers,
            hows: BOTH,
        };
        scene.visit(tally, real.then_some(crate::at_every_instruction));
    })
}

fn numbers(text: &str) -> Vec<u64> {
    let numbers = text.trim_matches(['[', ']']).split(", ").filter(|number| !number.is_empty());
    numbers.map(|number| number.parse().expect("a number")).collect()
}

/// The message that the victim with this number sends.
fn message_of(victim: u64) -> u64 {
    51 + 10 * victim
}

/// Lines of victims: each takes over a role from the dead and sends or receives.
fn line(object: &'static str, op: Op, start: Start, samples: &'static [usize]) -> Plan {
    let name = format!("{}, {start:?}", op.name());
    Plan::new(object, "spsc ring: roles taken over", name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (handle, helpers) = set_up(&segment, &start, op);
        let victim = |operation: &dyn Fn() -> u64| {
            Tracee::start(|| {
                drop(offspring::Lock::new_in(&segment, 0_u64));
                mark();
                mark_telling(operation());
            })
        };
        let send = |number| {
            let mut end =
                Producer::<Message>::open(&segment, handle).expect("nobody living has the role");
            let sent = end.try_send(sealed(message_of(number))).is_ok();
            std::mem::forget(end);
            sent.into()
        };
        let receive = || {
            let mut end =
                Consumer::<Message>::open(&segment, handle).expect("nobody living has the role");
            let received = end.try_recv().map_or(0, |message| number_of(&message));
            std::mem::forget(end);
            received
        };
        let heirs = [
            Heir {
                name: "Producer::open, try_send",
                start: &|number| victim(&|| send(number)),
                expected: &|number, before, sent| {
                    let mut messages = numbers(before);
                    let mut list = vec![vec![before.to_owned()]];
                    if sent == 0 {
                        return if messages.len() == start.capacity {
                            Ok(list)
                        } else {
                            Err("it was full".to_owned())
                        };
                    }
                    messages.push(message_of(number));
                    list.push(vec![format!("{messages:?}")]);
                    Ok(list)
                },
            },
            Heir {
                name: "Consumer::open, try_recv",
                start: &|_| victim(&receive),
                expected: &|_, before, received| {
                    let messages = numbers(before);
                    if messages.first().copied().unwrap_or(0) != received {
                        return Err(format!("it received {received}"));
                    }
                    let rest = messages
                        .get(1..)
                        .filter(|_| received != 0)
                        .map(|rest| vec![format!("{rest:?}")]);
                    Ok([Some(vec![before.to_owned()]), rest].into_iter().flatten().collect())
                },
            },
        ];
        let line = Line {
            segment: segment.as_fd(),
            first: &|| Tracee::start(|| op.perform(&segment, handle)),
            heirs: &heirs,
            check: &|how| check(&segment, handle, how),
            samples,
        };
        line.visit(tally);
        helpers.into_iter().for_each(Helper::kill);
    })
}

/// All lines of victims, begun in fewer states unless `full`.
pub fn lines(full: bool) -> Vec<Plan> {
    let ops = [
        Op::TrySend,
        Op::TryRecv,
        Op::OpenProducer,
        Op::OpenConsumer,
        Op::DropProducer,
        Op::DropConsumer,
    ];
    let ops = ops.into_iter().filter(|&op| full || op == Op::TrySend);
    let plans = ops.map(|op| {
        let start = Start { capacity: 2, offset: 1, fill: 1, role_of_the_dead: true };
        let two = line("two victims", op, start, if full { &[8] } else { &[2] });
        [two, line("three victims", op, start, if full { &[3, 3] } else { &[1, 1] })]
    });
    plans.flatten().collect()
}

/// All cases; fewer unless `full`.
pub fn plans(full: bool) -> Vec<Plan> {
    let ends = Op::ALL.into_iter().filter(|op| full || (*op as u8) >= 4);
    let mut plans: Vec<Plan> = ends.map(plan_of_the_end).collect();
    for capacity in if full { 1..=4 } else { 2..=2 } {
        for offset in 0..=capacity as u64 {
            for fill in 0..=capacity as u64 {
                for role_of_the_dead in [false, true] {
                    let start = Start { capacity, offset, fill, role_of_the_dead };
                    let roles = offset == 1 && fill == 1;
                    let ops = Op::ALL.into_iter().filter(|op| {
                        if role_of_the_dead { roles } else { roles || (*op as u8) < 4 }
                    });
                    plans.extend(ops.map(|op| {
                        let real = capacity == 2
                            && roles
                            && !role_of_the_dead
                            && matches!(op, Op::TrySend | Op::TryRecv);
                        plan(op, start, real)
                    }));
                }
            }
        }
    }
    plans
}
