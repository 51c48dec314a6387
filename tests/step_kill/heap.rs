//! Cases of the heap: making, opening and dropping objects. Whatever a kill leaves, all of the
//! memory can be had again.

use std::io::{Read, Write};

use offspring::{Fault, Handle, Lock, Queue, Segment, spsc};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::queue::{Message, number_of, sealed};
use crate::stage::{BOTH, Helper, How, Scene, Tally, found};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    CreateQueue,
    CreateLock,
    CreateRing,
    /// Of a size whose pages are given back when it is freed.
    CreateLarge,
    /// The only holder.
    DropLast,
    DropLastLarge,
    DropLastRing,
    /// Others hold it too.
    DropOne,
    Open,
    OpenDrop,
    OpenWrongType,
    OpenStale,
    CreateTooLarge,
    /// All that is left belongs to the dead.
    CreateFromTheDead,
}

impl Op {
    const ALL: [Op; 14] = [
        Op::CreateQueue,
        Op::CreateLock,
        Op::CreateRing,
        Op::CreateLarge,
        Op::DropLast,
        Op::DropLastLarge,
        Op::DropLastRing,
        Op::DropOne,
        Op::Open,
        Op::OpenDrop,
        Op::OpenWrongType,
        Op::OpenStale,
        Op::CreateTooLarge,
        Op::CreateFromTheDead,
    ];

    fn name(self) -> &'static str {
        match self {
            Op::CreateQueue => "create a queue",
            Op::CreateLock => "create a lock",
            Op::CreateRing => "create an spsc ring",
            Op::CreateLarge => "create, 64 KiB",
            Op::DropLast => "drop by the last holder",
            Op::DropLastLarge => "drop by the last holder, 64 KiB",
            Op::DropLastRing => "drop of both ends of a ring",
            Op::DropOne => "drop by one of two holders",
            Op::Open => "open",
            Op::OpenDrop => "open, drop",
            Op::OpenWrongType => "open as another type",
            Op::OpenStale => "open by a stale handle",
            Op::CreateTooLarge => "create, not enough memory",
            Op::CreateFromTheDead => "create, memory of the dead",
        }
    }

    fn len(self) -> u64 {
        if matches!(self, Op::CreateLarge | Op::DropLastLarge) { 1 << 17 } else { 1 << 16 }
    }

    /// `shared` names an object that others hold and the victim does not; `stale` one that is gone.
    fn perform(self, segment: &Segment, held: &Queue<Message>, shared: Handle, stale: Handle) {
        // Attached from here on.
        std::hint::black_box(held.len());
        match self {
            Op::CreateQueue | Op::CreateFromTheDead => {
                let capacity = if self == Op::CreateQueue { 4 } else { 300 };
                mark();
                let made = Queue::<Message>::with_capacity_in(segment, capacity);
                mark();
                std::mem::forget(made.expect("a queue"));
            }
            Op::CreateLock => {
                mark();
                let made = Lock::new_in(segment, 0_u64);
                mark();
                std::mem::forget(made.expect("a lock"));
            }
            Op::CreateRing => {
                mark();
                let made = spsc::ring_in::<Message>(segment, 4);
                mark();
                std::mem::forget(made.expect("a ring"));
            }
            Op::CreateLarge => {
                mark();
                let made = Queue::<[u8; 4096]>::with_capacity_in(segment, 16);
                mark();
                std::mem::forget(made.expect("a queue"));
            }
            Op::DropLast => {
                let made = Queue::<Message>::with_capacity_in(segment, 4).expect("a queue");
                mark();
                drop(made);
                mark();
            }
            Op::DropLastLarge => {
                let made = Queue::<[u8; 4096]>::with_capacity_in(segment, 16).expect("a queue");
                mark();
                drop(made);
                mark();
            }
            Op::DropLastRing => {
                let made = spsc::ring_in::<Message>(segment, 4).expect("a ring");
                mark();
                drop(made);
                mark();
            }
            Op::DropOne => {
                let opened = Queue::<Message>::open(segment, shared).expect("it is there");
                mark();
                drop(opened);
                mark();
            }
            Op::Open => {
                mark();
                let opened = Queue::<Message>::open(segment, shared);
                mark();
                std::mem::forget(opened.expect("it is there"));
            }
            Op::OpenDrop => {
                mark();
                drop(Queue::<Message>::open(segment, shared));
                mark();
            }
            Op::OpenWrongType => {
                mark();
                let refused = Lock::<u64>::open(segment, shared);
                mark();
                assert!(matches!(refused, Err(Fault::WrongType)));
            }
            Op::OpenStale => {
                mark();
                let refused = Queue::<Message>::open(segment, stale);
                mark();
                assert!(matches!(refused, Err(Fault::Stale)));
            }
            Op::CreateTooLarge => {
                mark();
                let refused = Queue::<Message>::with_capacity_in(segment, 4000);
                mark();
                assert!(refused.is_err());
            }
        }
    }
}

fn check(segment: &Segment, held: &Queue<Message>, shared: Handle, how: How) -> String {
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    let shared = Queue::<Message>::open(segment, shared).expect("somebody holds it");
    for queue in [held, &shared] {
        queue.try_send(sealed(7)).expect("it is usable");
        assert_eq!(queue.try_recv().map(|message| number_of(&message)), Ok(7));
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    let found = room(segment);
    assert_eq!(
        std::fs::read_dir("/proc/self/fd").expect("/proc").count(),
        descriptors,
        "descriptors left"
    );
    found
}

/// Starts a process that holds a queue which this process, and so the victim, does not hold.
fn shared_by_another(segment: &Segment) -> (Handle, Helper) {
    let (mut name, mut theirs) = std::io::pipe().expect("a pipe");
    let helper = Helper::start(|| {
        let queue = Queue::<Message>::with_capacity_in(segment, 4).expect("a queue");
        theirs.write_all(bytemuck::bytes_of(&queue.handle())).expect("somebody listens");
        queue
    });
    let mut bytes = [0; size_of::<Handle>()];
    name.read_exact(&mut bytes).expect("a name");
    (bytemuck::pod_read_unaligned(&bytes), helper)
}

/// A segment with some objects in it.
struct Estate {
    segment: Segment,
    held: Queue<Message>,
    _filled: Vec<Lock<u64>>,
    shared: Handle,
    stale: Handle,
    /// How much memory can be had.
    baseline: String,
    holder: Helper,
}

impl Estate {
    fn new(op: Op, others: usize) -> Estate {
        let segment = Segment::create(op.len()).expect("a segment");
        let held = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
        let mut filled: Vec<Lock<u64>> =
            (0..others).map(|_| Lock::new_in(&segment, 0).expect("a lock")).collect();
        // A hole in the middle.
        drop(filled.drain(others / 2..).next());
        let stale = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue").handle();
        let (shared, holder) = shared_by_another(&segment);
        let baseline = Errand::send(30, || room(&segment)).answer().expect("a number");
        segment.reap().expect("attached");
        if op == Op::CreateFromTheDead {
            Helper::start(|| Queue::<Message>::with_capacity_in(&segment, 1800).expect("room"))
                .kill();
        }
        Estate { segment, held, _filled: filled, shared, stale, baseline, holder }
    }

    fn victim(&self, op: Op) -> Tracee {
        Tracee::start(|| op.perform(&self.segment, &self.held, self.shared, self.stale))
    }

    fn check(&self, how: How) -> String {
        check(&self.segment, &self.held, self.shared, how)
    }
}

fn plan(op: Op, others: usize) -> Plan {
    Plan::new("heap", op.name(), format!("{others} other objects"), move |tally: &mut Tally| {
        let estate = Estate::new(op, others);
        let scene = Scene {
            segment: estate.segment.as_fd(),
            victim: &|| estate.victim(op),
            expected: found([estate.baseline.clone()]),
            check: &|how| estate.check(how),
            beside: None,
            helpers: Vec::new(),
            hows: BOTH,
        };
        scene.visit(tally, None);
        estate.holder.kill();
    })
}

/// Lines of victims: one makes or drops an object, and those who come after it make one, or clear
/// up.
fn line(object: &'static str, op: Op, reaps: bool, samples: &'static [usize]) -> Plan {
    let operation = if reaps { "heap: reap" } else { "heap: create" };
    Plan::new(object, operation, op.name().to_owned(), move |tally: &mut Tally| {
        let estate = Estate::new(op, 3);
        let victim = |operation: &dyn Fn() -> bool| {
            Tracee::start(|| {
                std::hint::black_box(estate.held.len());
                mark();
                mark_telling(operation().into());
            })
        };
        // Whatever it has done, the whole memory can be had again.
        let expected = |_: u64, _: &str, done: u64| match done {
            0 => Err("it did nothing".to_owned()),
            _ => Ok(vec![vec![estate.baseline.clone()]]),
        };
        let create = || {
            Queue::<Message>::with_capacity_in(&estate.segment, 300).map(std::mem::forget).is_ok()
        };
        let creates = Heir { name: "create", start: &|_| victim(&create), expected: &expected };
        let clears_up = Heir {
            name: "reap",
            start: &|_| victim(&|| estate.segment.reap().is_ok_and(|dead| dead > 0)),
            expected: &expected,
        };
        let line = Line {
            segment: estate.segment.as_fd(),
            first: &|| estate.victim(op),
            heirs: &[if reaps { clears_up } else { creates }],
            check: &|how| estate.check(how),
            samples,
        };
        line.visit(tally);
        estate.holder.kill();
    })
}

/// All lines of victims, begun in fewer states unless `full`. To clear up is long, so that begins
/// in few.
pub fn lines(full: bool) -> Vec<Plan> {
    if !full {
        let two = line("two victims", Op::CreateQueue, false, &[2]);
        return vec![two, line("three victims", Op::CreateQueue, false, &[1, 1])];
    }
    let mut plans = Vec::new();
    for op in [Op::CreateQueue, Op::CreateRing, Op::DropLast, Op::DropOne, Op::OpenDrop] {
        plans.push(line("two victims", op, false, &[8]));
        plans.push(line("three victims", op, false, &[3, 3]));
    }
    plans.push(line("two victims", Op::CreateFromTheDead, false, &[3]));
    plans.push(line("two victims", Op::CreateQueue, true, &[2]));
    plans
}

/// All cases; fewer unless `full`: those in which the dead are cleared up after are long.
pub fn plans(full: bool) -> Vec<Plan> {
    let ops = Op::ALL
        .into_iter()
        .filter(|op| full || !matches!(op, Op::CreateTooLarge | Op::CreateFromTheDead));
    ops.flat_map(|op| [0, 3].map(|others| plan(op, others))).collect()
}
