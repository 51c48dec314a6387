//! Cases of the event: whatever becomes of who sets it or waits for it, survivors find it set or
//! clear, and it works as before.

use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use offspring::{Event, Segment, TryWaitError, Wait};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Errand, Tracee, mark, mark_telling};
use crate::line::{Heir, Line};
use crate::stage::{BOTH, Found, Helper, How, Scene, Tally, found};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(2);

/// How an event is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    Manual,
    Auto,
}

/// The event as the victim finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Clear,
    Set,
    /// Clear, and one who slept was killed.
    SleeperDead,
    /// The same, and somebody has cleared up after it since.
    SleeperReaped,
    /// Clear, and one who slept was stopped: it lives, and has left the kernel's queue. One who
    /// really sleeps would change the event's words while the victim does.
    SleeperStopped,
}

impl Start {
    const ALL: [Start; 5] =
        [Start::Clear, Start::Set, Start::SleeperDead, Start::SleeperReaped, Start::SleeperStopped];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Set,
    Clear,
    IsSet,
    TryWait,
    WaitTimeout,
    WaitAny,
    CloneDrop,
}

impl Op {
    const ALL: [Op; 7] =
        [Op::Set, Op::Clear, Op::IsSet, Op::TryWait, Op::WaitTimeout, Op::WaitAny, Op::CloneDrop];

    fn name(self) -> &'static str {
        match self {
            Op::Set => "set",
            Op::Clear => "clear",
            Op::IsSet => "is_set",
            Op::TryWait => "try_wait",
            Op::WaitTimeout => "wait_timeout",
            Op::WaitAny => "wait_any_timeout",
            Op::CloneDrop => "clone, drop",
        }
    }

    /// What survivors find, in the order of the victim's progress.
    fn expected(self, reset: Reset, start: Start) -> Vec<Found> {
        let takes = matches!(self, Op::TryWait | Op::WaitTimeout | Op::WaitAny);
        let states: &[&str] = match (self, start) {
            (Op::Set, Start::Set) => &[SET],
            (Op::Set, _) => &[CLEAR, SET],
            (Op::Clear, Start::Set) => &[SET, CLEAR],
            (_, Start::Set) if takes && reset == Reset::Auto => &[SET, CLEAR],
            (_, Start::Set) => &[SET],
            _ => &[CLEAR],
        };
        found(states.iter().copied())
    }

    fn perform(self, event: &Event, other: &Event) {
        mark();
        match self {
            Op::Set => event.set().expect("attached"),
            Op::Clear => event.clear().expect("attached"),
            Op::IsSet => _ = std::hint::black_box(event.is_set()),
            // These may find it clear.
            Op::TryWait => _ = event.try_wait(),
            Op::WaitTimeout => _ = event.wait_timeout(SHORT),
            Op::WaitAny => _ = Event::wait_any_timeout(&[other, event], SHORT),
            Op::CloneDrop => drop(event.clone()),
        }
        mark();
    }
}

const SET: &str = "set";
const CLEAR: &str = "clear";

fn make(segment: &Segment, reset: Reset) -> Event {
    let event = match reset {
        Reset::Manual => Event::new_in(segment),
        Reset::Auto => Event::auto_reset_in(segment),
    };
    event.expect("an event").with_wait(Wait::Sleep)
}

/// A process that waits for an event that nobody sets while it is there.
fn sleeper(event: &Event) -> Helper {
    Helper::start(|| {
        let (begun, has_begun) = mpsc::channel();
        let theirs = event.clone();
        std::thread::spawn(move || {
            begun.send(()).expect("somebody listens");
            loop {
                // Once it has passed, it waits for ever.
                let _ = theirs.wait();
                std::thread::park();
            }
        });
        has_begun.recv().expect("it is about to wait");
        // Longer than it takes to fall asleep. If not, the case is one of those without a sleeper.
        std::thread::sleep(Duration::from_millis(30));
    })
}

/// Stops a process, and returns when it has stopped.
fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).expect("it lives");
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is ours");
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
}

fn set_up(segment: &Segment, reset: Reset, start: Start) -> (Event, Vec<Helper>) {
    let event = make(segment, reset);
    let mut helpers = Vec::new();
    match start {
        Start::Clear => {}
        Start::Set => event.set().expect("attached"),
        _ => helpers.push(sleeper(&event)),
    }
    if start == Start::SleeperStopped {
        stop(helpers[0].pid());
    } else {
        helpers.drain(..).for_each(Helper::kill);
    }
    if start == Start::SleeperReaped {
        assert_eq!(segment.reap(), Ok(1));
    }
    (event, helpers)
}

/// Looks, and then uses the event together with another survivor.
fn check(segment: &Segment, event: &Event, reset: Reset, how: How) -> String {
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    let state = if event.is_set().expect("attached") { SET } else { CLEAR };
    let first = event.try_wait();
    assert_eq!(first.is_ok(), state == SET, "{first:?}");
    assert_eq!(event.is_set(), Ok(state == SET && reset == Reset::Manual));
    event.clear().expect("attached");
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
    // Each lets the other one pass, which sleeps meanwhile.
    let reply = make(segment, Reset::Auto);
    let other = Errand::send(30, || {
        event.wait_timeout(LONG).expect("it is set");
        reply.set().expect("attached");
        String::new()
    });
    event.set().expect("attached");
    reply.wait_timeout(LONG).expect("the other one answers");
    other.answer().expect("the other survivor");
    assert_eq!(event.is_set(), Ok(reset == Reset::Manual));
    event.clear().expect("attached");
    state.to_owned()
}

/// Beside one that was stopped nobody waits, and nobody takes what was not set.
fn check_beside(segment: &Segment, event: &Event) {
    assert!(segment.reap().expect("attached") <= 1, "a living sleeper was taken for dead");
    event.is_set().expect("attached");
    event.set().expect("attached");
    event.clear().expect("attached");
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
}

fn plan(op: Op, reset: Reset, start: Start) -> Plan {
    let name = format!("{reset:?}, {start:?}");
    Plan::new("event", op.name(), name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = make(&segment, Reset::Auto);
        let (event, helpers) = set_up(&segment, reset, start);
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                Tracee::start(|| {
                    // The first use in a process attaches it; that is another case.
                    other.clear().expect("attached");
                    event.is_set().expect("attached");
                    op.perform(&event, &other);
                })
            },
            expected: op.expected(reset, start),
            check: &|how| check(&segment, &event, reset, how),
            beside: if start == Start::SleeperStopped {
                Some(&|| check_beside(&segment, &event))
            } else {
                None
            },
            helpers,
            hows: BOTH,
        };
        let real = matches!(start, Start::Clear | Start::Set);
        scene.visit(tally, real.then_some(crate::at_every_instruction));
    })
}

/// Lines of victims: one sets the event, the next one waits for it.
fn line(object: &'static str, start: Start, samples: &'static [usize]) -> Plan {
    let name = format!("{:?}, {start:?}", Reset::Auto);
    Plan::new(object, "event: set, then wait", name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let other = make(&segment, Reset::Auto);
        let (event, _) = set_up(&segment, Reset::Auto, start);
        let victim = |operation: &dyn Fn()| {
            Tracee::start(|| {
                other.clear().expect("attached");
                event.is_set().expect("attached");
                mark();
                operation();
                mark_telling(1);
            })
        };
        let steps = |before: &str, then: &str| {
            let mut steps = vec![vec![before.to_owned()]];
            if before != then {
                steps.push(vec![then.to_owned()]);
            }
            Ok(steps)
        };
        let waits = Heir {
            name: "wait_timeout",
            start: &|_| victim(&|| _ = event.wait_timeout(SHORT)),
            expected: &|_, before, _| steps(before, CLEAR),
        };
        let sets = Heir {
            name: "set",
            start: &|_| victim(&|| event.set().expect("attached")),
            expected: &|_, before, _| steps(before, SET),
        };
        let line = Line {
            segment: segment.as_fd(),
            first: &|| victim(&|| event.set().expect("attached")),
            heirs: &[waits, sets],
            check: &|how| check(&segment, &event, Reset::Auto, how),
            samples,
        };
        line.visit(tally);
    })
}

/// All lines of victims, begun in fewer states unless `full`.
pub fn lines(full: bool) -> Vec<Plan> {
    if !full {
        return vec![line("two victims", Start::Clear, &[2])];
    }
    vec![
        line("two victims", Start::Clear, &[8]),
        line("two victims", Start::SleeperDead, &[8]),
        line("three victims", Start::SleeperDead, &[4, 3]),
    ]
}

/// All cases.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for reset in [Reset::Manual, Reset::Auto] {
        for start in Start::ALL {
            plans.extend(Op::ALL.map(|op| plan(op, reset, start)));
        }
    }
    plans
}
