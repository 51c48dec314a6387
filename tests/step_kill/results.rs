//! Cases of what a child returns that is more than bytes: a box, a queue. The child is killed after
//! each change that its end makes in the segment, and its parent joins it or drops its handle.
//! Until the outcome is complete the child has returned nothing, also if it has handed over what it
//! returns before, and nothing is left of it.
//!
//! And the parent is killed, at each instruction of its join or drop, after a child that has
//! returned or was killed itself. Survivors have all of the memory.

use std::time::{Duration, Instant};

use offspring::{
    JoinError, ObjectQueue, OnReceiverDeath, Queue, Return, Segment, SegmentOptions, ShmBox,
};

use crate::Plan;
use crate::common::blocks::in_use;
use crate::common::fd::SegmentFd;
use crate::common::fork;
use crate::common::trace::{Tracee, let_trace, mark};
use crate::common::watch::Watch;
use crate::post::{Post, boxed, queued};
use crate::stage::{Tally, found};

/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

/// All cases; without those of a parent, which are long, unless `full`.
pub fn plans(full: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    for joins in [true, false] {
        // The block of a flight alone is claimed, filled and handed over.
        plans.push(child::<Queue<u64>>("a child returns a queue", joins, 8));
        plans.push(child::<ShmBox<[u8]>>("a child returns a box", joins, 4));
        if full {
            plans.push(parent::<Queue<u64>>("a parent takes a queue", joins, None));
            plans.push(parent::<ShmBox<[u8]>>("a parent takes a box", joins, None));
        }
    }
    if full {
        let name = "a parent joins a killed child";
        plans.extend([2, 5, 7].map(|changes| parent::<Queue<u64>>(name, true, Some(changes))));
        plans.extend([1, 3].map(|changes| parent::<ShmBox<[u8]>>(name, true, Some(changes))));
    }
    plans
}

/// What is returned.
trait Returned: Return {
    /// One with the number 7.
    fn make(segment: &Segment) -> Self;

    fn is_whole(&self) -> bool;
}

impl Returned for Queue<u64> {
    fn make(segment: &Segment) -> Self {
        queued(segment, 7)
    }

    fn is_whole(&self) -> bool {
        self.recv() == Ok(7)
    }
}

impl Returned for ShmBox<[u8]> {
    fn make(segment: &Segment) -> Self {
        boxed(segment, 7)
    }

    fn is_whole(&self) -> bool {
        self.iter().all(|&byte| byte == 7)
    }
}

fn name(joins: bool) -> String {
    if joins { "joined" } else { "never joined" }.to_owned()
}

/// The child is killed; at one of at least so many places.
fn child<T: Returned>(operation: &'static str, joins: bool, fewest: u64) -> Plan {
    Plan::new("result", operation, name(joins), move |tally: &mut Tally| {
        let segment = SegmentOptions::new().len(1 << 16).commons().expect("the first use");
        fork(|| ()).expect("fork").join().expect("no panic");
        let before = in_use(&segment);
        let mut killed = false;
        for change in 0.. {
            let child = fork(|| {
                let_trace();
                let value = T::make(&Segment::commons().expect("inherited"));
                mark();
                value
            });
            let child = child.expect("fork");
            let mut tracee = Tracee::adopt(child.id());
            let finished = Watch::new(segment.as_fd()).follow(&mut tracee, change);
            tracee.kill_for_its_parent();
            tally.points += 1;
            tally.kills += u64::from(!finished);
            if joins {
                match child.join() {
                    Ok(value) if finished && value.is_whole() => {}
                    Err(JoinError::Killed(9)) if !finished => killed = true,
                    Ok(_) => tally.fail(format!("killed after change {change}: it returned")),
                    Err(other) => tally.fail(format!("killed after change {change}: {other}")),
                }
            } else {
                let start = Instant::now();
                drop(child);
                while in_use(&segment) != before && start.elapsed() < LIMIT {
                    fork(|| ()).expect("fork").join().expect("no panic");
                }
                killed |= !finished;
            }
            let left = in_use(&segment) - before;
            if left > 0 {
                tally.fail(format!("killed after change {change}: {left} blocks are left"));
            }
            if finished {
                // Killed before its end, and not killed.
                tally.states += 1 + u64::from(killed);
                break;
            }
        }
        if tally.points < fewest {
            tally.fail(format!("only {} places to be killed at", tally.points));
        }
    })
}

/// The parent is killed while it joins a child that has ended, or drops its handle. The child has
/// returned, or was killed after so many changes of the segment.
fn parent<T: Returned>(operation: &'static str, joins: bool, killed_after: Option<u64>) -> Plan {
    let child =
        killed_after.map_or_else(String::new, |changes| format!(", killed after {changes}"));
    Plan::new("result", operation, name(joins) + &child, move |tally: &mut Tally| {
        let post = Post::<ObjectQueue<Queue<u64>>>::new(OnReceiverDeath::Drop, 2);
        let perform = |segment: &Segment, _: &ObjectQueue<Queue<u64>>| {
            let theirs = segment.clone();
            let child = fork(move || {
                if killed_after.is_none() {
                    return T::make(&theirs);
                }
                let_trace();
                let value = T::make(&theirs);
                mark();
                value
            });
            let child = child.expect("fork");
            if let Some(changes) = killed_after {
                let mut tracee = Tracee::adopt(child.id());
                assert!(!Watch::new(segment.as_fd()).follow(&mut tracee, changes), "it has ended");
                tracee.kill_for_its_parent();
            }
            while child.is_alive() {
                std::thread::sleep(Duration::from_millis(1));
            }
            mark();
            if !joins {
                drop(child);
                return;
            }
            match child.join() {
                Ok(value) => {
                    assert!(killed_after.is_none() && value.is_whole());
                    std::mem::forget(value);
                }
                Err(JoinError::Killed(9)) => assert!(killed_after.is_some(), "nobody killed it"),
                Err(other) => panic!("{other}"),
            }
        };
        post.visit(tally, &perform, found(["1, 0 lost"]));
    })
}
