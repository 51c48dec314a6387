//! Cases of the lock: the two words of its value are written one after the other, and only who is
//! told so may find them different.

use std::time::Duration;

use offspring::{Lock, LockGuard, LockTimeoutError, Segment, TryLockError};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::stage::{BOTH, Helper, How, Scene, Tally, found};

type Value = [u64; 2];

const LONG: Duration = Duration::from_secs(20);

/// The lock as the victim finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Free,
    /// The owner was killed, half through a change.
    OwnerDead,
    /// The same, and somebody has cleared up after it since.
    OwnerReaped,
    /// The same, and a successor has let it go without recovering it.
    Poisoned,
    OwnerAlive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Lock,
    TryLock,
    /// Takes the lock and gives it up, without a word about the value.
    Leave,
    CloneDrop,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Lock => "lock, recover, write, unlock",
            Op::TryLock => "try_lock, recover, write, unlock",
            Op::Leave => "lock, unlock",
            Op::CloneDrop => "clone, drop",
        }
    }

    fn perform(self, lock: &Lock<Value>) {
        mark();
        match self {
            Op::Lock => {
                if let Ok(guard) =
                    lock.lock_timeout(Duration::from_millis(2)).or_else(LockTimeoutError::recover)
                {
                    write(guard, 6);
                }
            }
            Op::TryLock => {
                if let Ok(guard) = lock.try_lock().or_else(TryLockError::recover) {
                    write(guard, 6);
                }
            }
            Op::Leave => drop(lock.lock_timeout(Duration::from_millis(2))),
            Op::CloneDrop => drop(lock.clone()),
        }
        mark();
    }
}

/// Writes the two words in this order.
fn write(mut guard: LockGuard<'_, Value>, word: u64) {
    for index in 0..2 {
        guard[index] = word;
        std::hint::black_box(&mut guard);
    }
}

fn set_up(segment: &Segment, start: Start) -> (Lock<Value>, Vec<Helper>) {
    let lock = Lock::new_in(segment, [5, 5]).expect("a lock");
    let mut helpers = Vec::new();
    if start != Start::Free {
        helpers.push(Helper::start(|| {
            let mut guard = lock.lock().expect("clean");
            guard[0] = 7;
            std::mem::forget(guard);
        }));
    }
    if start != Start::OwnerAlive {
        helpers.drain(..).for_each(Helper::kill);
    }
    match start {
        Start::OwnerReaped => assert_eq!(segment.reap(), Ok(1)),
        Start::Poisoned => assert!(lock.lock().is_err_and(|error| error.is_owner_died())),
        _ => {}
    }
    (lock, helpers)
}

/// The states that survivors find it in, in order.
fn expected(op: Op, start: Start) -> Vec<&'static str> {
    let (first, taken) = match start {
        Start::Free => ("clean [5, 5]", "died [5, 5]"),
        Start::Poisoned => ("poisoned [7, 5]", "died [7, 5]"),
        Start::OwnerDead | Start::OwnerReaped | Start::OwnerAlive => ("died [7, 5]", "died [7, 5]"),
    };
    let mut list = vec![first, taken];
    match op {
        _ if start == Start::OwnerAlive => list.truncate(1),
        Op::Lock | Op::TryLock => list.extend(["died [6, 5]", "died [6, 6]", "clean [6, 6]"]),
        Op::Leave if start == Start::Free => list.push(first),
        Op::Leave => list.push("poisoned [7, 5]"),
        Op::CloneDrop => list.truncate(1),
    }
    list.dedup();
    list
}

/// Takes the lock and puts the value right if it is to be.
fn succeed(lock: &Lock<Value>) -> String {
    let (news, guard) = match lock.lock_timeout(LONG) {
        Ok(guard) => ("clean", guard),
        Err(LockTimeoutError::OwnerDied(guard)) => ("died", guard),
        Err(LockTimeoutError::Poisoned(guard)) => ("poisoned", guard),
        Err(other) => panic!("{other}"),
    };
    let text = format!("{news} {:?}", *guard);
    let mut guard = guard.recover();
    guard[0] = guard[1];
    text
}

/// Two survivors come at once; exactly one may be told.
fn check(segment: &Segment, lock: &Lock<Value>, how: How) -> String {
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    let other = Errand::send(30, || succeed(lock));
    let found = [succeed(lock), other.answer().expect("the other survivor")];
    let told: Vec<&String> = found.iter().filter(|text| !text.starts_with("clean")).collect();
    assert!(told.len() <= 1, "both were told: {found:?}");
    let text = told.first().map_or_else(|| found[0].clone(), |&text| text.clone());
    for _ in 0..2 {
        let guard = lock.try_lock().expect("clean again");
        assert_eq!(guard[0], guard[1]);
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldDeadlock)));
    }
    text
}

fn check_beside(segment: &Segment, lock: &Lock<Value>) {
    assert!(segment.reap().expect("attached") <= 1, "a living owner was taken for dead");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    assert!(matches!(lock.lock_timeout(Duration::from_millis(2)), Err(LockTimeoutError::Timeout)));
}

fn plan(op: Op, start: Start, real: bool) -> Plan {
    Plan::new("lock", op.name(), format!("{start:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = Lock::new_in(&segment, 0_u64).expect("a lock");
        let (lock, helpers) = set_up(&segment, start);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                Tracee::start(|| {
                    // The first use in a process attaches it; that is another case.
                    drop(other.try_lock());
                    op.perform(&lock);
                })
            },
            expected: found(expected(op, start)),
            check: &|how| check(&segment, &lock, how),
            beside: if start == Start::OwnerAlive {
                Some(&|| check_beside(&segment, &lock))
            } else {
                None
            },
            helpers,
            hows: BOTH,
        };
        scene.visit(tally, real.then_some(crate::at_every_instruction));
    })
}

/// What survivors may find of a victim that takes the lock, after what they would have found
/// without it.
fn expected_of_heir(before: &str, written: Option<u64>) -> Vec<Vec<String>> {
    let (news, value) = before.split_once(' ').expect("news and a value");
    let (first, second) = value.trim_matches(['[', ']']).split_once(", ").expect("two words");
    let mut list = vec![before.to_owned(), format!("died [{first}, {second}]")];
    match written {
        Some(word) => list.extend([
            format!("died [{word}, {second}]"),
            format!("died [{word}, {word}]"),
            format!("clean [{word}, {word}]"),
        ]),
        None if news == "clean" => list.push(before.to_owned()),
        None => list.push(format!("poisoned [{first}, {second}]")),
    }
    list.dedup();
    list.into_iter().map(|text| vec![text]).collect()
}

/// Lines of victims: one takes the lock and writes, and those who come after it do too or let it go
/// as it is, or clear up.
fn line(object: &'static str, start: Start, reaps: bool, samples: &'static [usize]) -> Plan {
    let operation = if reaps { "lock: reap" } else { "lock: write, leave" };
    Plan::new(object, operation, format!("{start:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = Lock::new_in(&segment, 0_u64).expect("a lock");
        let (lock, _) = set_up(&segment, start);
        let victim = |operation: &dyn Fn() -> bool| {
            Tracee::start(|| {
                drop(other.try_lock());
                mark();
                mark_telling(operation().into());
            })
        };
        let taken = || lock.lock_timeout(Duration::from_millis(2));
        let writer = |word| {
            victim(&|| {
                taken().or_else(LockTimeoutError::recover).map(|guard| write(guard, word)).is_ok()
            })
        };
        let did =
            |what: u64, list| if what == 0 { Err("it did nothing".to_owned()) } else { Ok(list) };
        let writes = Heir {
            name: "lock, recover, write, unlock",
            start: &|number| writer(6 + number),
            expected: &|number, before, done| did(done, expected_of_heir(before, Some(6 + number))),
        };
        let leaves = Heir {
            name: "lock, unlock",
            start: &|_| {
                victim(&|| {
                    !matches!(
                        taken(),
                        Err(LockTimeoutError::Timeout | LockTimeoutError::WouldDeadlock)
                    )
                })
            },
            expected: &|_, before, done| did(done, expected_of_heir(before, None)),
        };
        let clears_up = Heir {
            name: "reap",
            start: &|_| victim(&|| segment.reap().is_ok_and(|dead| dead > 0)),
            expected: &|_, before, done| did(done, vec![vec![before.to_owned()]]),
        };
        let line = Line {
            segment: segment.as_fd(),
            first: &|| writer(6),
            heirs: if reaps { &[clears_up] } else { &[writes, leaves] },
            check: &|how| check(&segment, &lock, how),
            samples,
        };
        line.visit(tally);
    })
}

/// All lines of victims, begun in fewer states unless `full`. To clear up is long, so that begins
/// in few.
pub fn lines(full: bool) -> Vec<Plan> {
    if !full {
        let two = line("two victims", Start::OwnerDead, false, &[2]);
        return vec![two, line("three victims", Start::OwnerDead, false, &[1, 1])];
    }
    let plans = [Start::Free, Start::OwnerDead, Start::Poisoned].map(|start| {
        [line("two victims", start, false, &[8]), line("three victims", start, false, &[4, 3])]
    });
    plans.into_iter().flatten().chain([line("two victims", Start::Free, true, &[2])]).collect()
}

/// All cases.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for start in
        [Start::Free, Start::OwnerDead, Start::OwnerReaped, Start::Poisoned, Start::OwnerAlive]
    {
        for op in [Op::Lock, Op::TryLock, Op::Leave, Op::CloneDrop] {
            plans.push(plan(op, start, start == Start::Free));
        }
    }
    plans
}
