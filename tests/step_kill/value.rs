//! Cases of the value: whatever becomes of who changes it, survivors find the old one or the new
//! one, and can change it at once.

use std::fmt::Debug;
use std::sync::mpsc;
use std::time::Duration;

use offspring::{Segment, Shm, TryUpdateError, UpdateTimeoutError, Value};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::stage::{BOTH, Helper, How, Scene, Tally, found};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(2);

/// What is kept: all its words are the same.
trait Kept: Shm + PartialEq + Debug {
    const NAME: &'static str;

    fn of(number: u64) -> Self;

    fn number(self) -> u64;
}

/// In a word.
impl Kept for u64 {
    const NAME: &'static str = "a word";

    fn of(number: u64) -> u64 {
        number
    }

    fn number(self) -> u64 {
        self
    }
}

/// In two copies.
impl Kept for [u64; 3] {
    const NAME: &'static str = "two copies";

    fn of(number: u64) -> [u64; 3] {
        [number; 3]
    }

    fn number(self) -> u64 {
        assert_eq!(self, [self[0]; 3], "half of a change");
        self[0]
    }
}

/// The value as the victim finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Free,
    /// A writer was killed in its turn.
    WriterDead,
    /// The same, and somebody has cleared up after it since.
    WriterReaped,
    /// A writer is in the middle of its turn.
    WriterAlive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Set,
    Update,
    TryUpdate,
    CompareExchange,
    Get,
    CloneDrop,
}

impl Op {
    const ALL: [Op; 6] =
        [Op::Set, Op::Update, Op::TryUpdate, Op::CompareExchange, Op::Get, Op::CloneDrop];

    fn name(self) -> &'static str {
        match self {
            Op::Set => "set",
            Op::Update => "update",
            Op::TryUpdate => "try_update",
            Op::CompareExchange => "compare_exchange",
            Op::Get => "get",
            Op::CloneDrop => "clone, drop",
        }
    }

    fn changes(self) -> bool {
        !matches!(self, Op::Get | Op::CloneDrop)
    }

    /// Whether it waits for as long as it takes.
    fn waits(self) -> bool {
        matches!(self, Op::Set | Op::CompareExchange)
    }

    fn perform<T: Kept>(self, value: &Value<T>) {
        let (old, new) = (T::of(OLD), T::of(OLD + 1));
        mark();
        match self {
            Op::Set => value.set(new).expect("its turn comes"),
            // Beside the living these are refused.
            Op::Update => _ = value.update_timeout(|value| *value = new, SHORT),
            Op::TryUpdate => _ = value.try_update(|value| *value = new),
            Op::CompareExchange => {
                assert!(value.compare_exchange(old, new).expect("its turn comes").is_ok());
            }
            Op::Get => assert_eq!(value.get(), Ok(old)),
            Op::CloneDrop => drop(value.clone()),
        }
        mark();
    }
}

const OLD: u64 = 5;

/// A process that is in the middle of an update.
fn writer<T: Kept>(value: &Value<T>) -> Helper {
    Helper::start(|| {
        let (begun, has_begun) = mpsc::channel();
        let theirs = value.clone();
        std::thread::spawn(move || {
            let update = theirs.update(|value| {
                *value = T::of(99);
                begun.send(()).expect("somebody listens");
                loop {
                    std::thread::park();
                }
            });
            update.expect("clean");
        });
        has_begun.recv().expect("it is in the middle");
    })
}

fn set_up<T: Kept>(segment: &Segment, start: Start) -> (Value<T>, Vec<Helper>) {
    let value = Value::new_in(segment, T::of(OLD)).expect("a value");
    let mut helpers = Vec::new();
    if start != Start::Free {
        helpers.push(writer(&value));
    }
    if start != Start::WriterAlive {
        helpers.drain(..).for_each(Helper::kill);
    }
    if start == Start::WriterReaped {
        assert_eq!(segment.reap(), Ok(1));
    }
    (value, helpers)
}

fn add_one<T: Kept>(value: &Value<T>) -> u64 {
    let add = |value: &mut T| {
        *value = T::of(value.number() + 1);
        value.number()
    };
    value.update_timeout(add, LONG).expect("nobody keeps the turn")
}

/// Reads, and changes it together with another survivor.
fn check<T: Kept>(segment: &Segment, value: &Value<T>, how: How) -> String {
    if how == How::Reaped {
        segment.reap().expect("attached");
        value.try_update(|_| ()).expect("nobody is in the way");
    }
    let first = value.get().expect("attached").number();
    let other = Errand::send(30, || add_one(value).to_string());
    let mine = add_one(value);
    let theirs: u64 = other.answer().expect("the other survivor").parse().expect("a number");
    assert_eq!([mine.min(theirs), mine.max(theirs)], [first + 1, first + 2]);
    assert_eq!(value.get().expect("attached").number(), first + 2);
    value.try_update(|_| ()).expect("nobody is in the way");
    first.to_string()
}

fn check_beside<T: Kept>(segment: &Segment, value: &Value<T>) {
    assert!(segment.reap().expect("attached") <= 1, "a living writer was taken for dead");
    assert_eq!(value.get(), Ok(T::of(OLD)), "nobody waits to read");
    assert_eq!(value.try_update(|_| ()), Err(TryUpdateError::WouldBlock));
    assert_eq!(value.update_timeout(|_| (), SHORT), Err(UpdateTimeoutError::Timeout));
}

fn plan<T: Kept>(op: Op, start: Start) -> Plan {
    let name = format!("{}, {start:?}", T::NAME);
    Plan::new("value", op.name(), name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = Value::new_in(&segment, T::of(0)).expect("a value");
        let (value, helpers) = set_up::<T>(&segment, start);
        let changes = op.changes() && start != Start::WriterAlive;
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                Tracee::start(|| {
                    // The first use in a process attaches it; that is another case.
                    other.try_update(|_| ()).expect("nobody else uses it");
                    op.perform(&value);
                })
            },
            expected: found((OLD..=OLD + u64::from(changes)).map(|number| number.to_string())),
            check: &|how| check(&segment, &value, how),
            beside: if start == Start::WriterAlive {
                Some(&|| check_beside(&segment, &value))
            } else {
                None
            },
            helpers,
            hows: BOTH,
        };
        let real = start == Start::Free;
        scene.visit(tally, real.then_some(crate::at_every_instruction));
    })
}

/// Lines of victims: one adds one, and those who come after it do too, or clear up.
fn line<T: Kept>(
    object: &'static str,
    start: Start,
    reaps: bool,
    samples: &'static [usize],
) -> Plan {
    let operation = if reaps { "value: reap" } else { "value: update" };
    let name = format!("{}, {start:?}", T::NAME);
    Plan::new(object, operation, name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = Value::new_in(&segment, T::of(0)).expect("a value");
        let (value, _) = set_up::<T>(&segment, start);
        let victim = |operation: &dyn Fn() -> bool| {
            Tracee::start(|| {
                other.try_update(|_| ()).expect("nobody else uses it");
                mark();
                mark_telling(operation().into());
            })
        };
        let adds = || {
            victim(&|| {
                let add = |value: &mut T| *value = T::of(value.number() + 1);
                value.update_timeout(add, SHORT).is_ok()
            })
        };
        let steps = |done: u64, before: &str, more: u64| {
            if done == 0 {
                return Err("it did nothing".to_owned());
            }
            let before: u64 = before.parse().expect("a number");
            Ok((before..=before + more).map(|number| vec![number.to_string()]).collect())
        };
        let updates = Heir {
            name: "update",
            start: &|_| adds(),
            expected: &|_, before, done| steps(done, before, 1),
        };
        let clears_up = Heir {
            name: "reap",
            start: &|_| victim(&|| segment.reap().is_ok_and(|dead| dead > 0)),
            expected: &|_, before, done| steps(done, before, 0),
        };
        let line = Line {
            segment: segment.as_fd(),
            first: &adds,
            heirs: if reaps { &[clears_up] } else { &[updates] },
            check: &|how| check(&segment, &value, how),
            samples,
        };
        line.visit(tally);
    })
}

/// All lines of victims, begun in fewer states unless `full`. To clear up is long, so that begins
/// in few.
pub fn lines(full: bool) -> Vec<Plan> {
    type Large = [u64; 3];
    if !full {
        return vec![line::<Large>("two victims", Start::Free, false, &[4])];
    }
    vec![
        line::<Large>("two victims", Start::Free, false, &[8]),
        line::<Large>("two victims", Start::WriterDead, false, &[8]),
        line::<Large>("three victims", Start::WriterDead, false, &[4, 3]),
        line::<u64>("two victims", Start::Free, false, &[2]),
        line::<Large>("two victims", Start::Free, true, &[2]),
    ]
}

/// All cases.
pub fn plans() -> Vec<Plan> {
    let mut plans: Vec<Plan> = Op::ALL.map(|op| plan::<u64>(op, Start::Free)).into();
    for start in [Start::Free, Start::WriterDead, Start::WriterReaped, Start::WriterAlive] {
        let ops = Op::ALL.into_iter().filter(|op| start != Start::WriterAlive || !op.waits());
        plans.extend(ops.map(|op| plan::<[u64; 3]>(op, start)));
    }
    plans
}
