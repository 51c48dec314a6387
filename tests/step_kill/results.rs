//! Cases of handles in what a child returns. The child is killed after each change that its end makes
//! in the segment, and its parent joins it or drops its handle. Until the outcome is complete the
//! child has returned nothing, also if it has handed its queue over before, and nothing is left of it.

use std::time::{Duration, Instant};

use offspring::{JoinError, Queue, SegmentOptions, fork};

use crate::Plan;
use crate::common::blocks::in_use;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Tracee, let_trace, mark};
use crate::common::watch::Watch;
use crate::stage::Tally;

/// No promise on time, a watchdog.
const LIMIT: Duration = Duration::from_secs(60);

pub fn plans() -> Vec<Plan> {
    vec![plan(true), plan(false)]
}

fn plan(joins: bool) -> Plan {
    let name = if joins { "joined" } else { "never joined" };
    Plan::new("result", "a child returns a queue", name.to_owned(), move |tally: &mut Tally| {
        let segment = SegmentOptions::new().len(1 << 16).commons().expect("the first use");
        fork(|| ()).expect("fork").join().expect("no panic");
        let before = in_use(&segment);
        let mut killed = false;
        for change in 0.. {
            let child = fork(|| {
                let_trace();
                let queue = Queue::<u64>::with_capacity(2).expect("a queue");
                queue.send(7).expect("room");
                mark();
                queue
            });
            let child = child.expect("fork");
            let mut tracee = Tracee::adopt(child.id());
            let finished = Watch::new(segment.as_fd()).follow(&mut tracee, change);
            tracee.kill_for_its_parent();
            tally.points += 1;
            tally.kills += u64::from(!finished);
            if joins {
                match child.join() {
                    Ok(queue) if finished && queue.recv() == Ok(7) => {}
                    Err(JoinError::Killed(9)) if !finished => killed = true,
                    other => tally.fail(format!("killed after change {change}: {other:?}")),
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
        // The block of the flight alone is claimed, filled and handed over.
        if tally.points < 8 {
            tally.fail(format!("only {} places to be killed at", tally.points));
        }
    })
}
