//! The lock: free, wanted by several, and with a holder that is away.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Failure;
use crate::acts::locking::{Mutex, contend, refuse};
use crate::acts::single::repeat;
use crate::external::Task;
use crate::figures::{Case, Metric, Role, Sample, sampled};
use crate::groups::{Kit, limits, processes};
use crate::peers::ours::{ByDefault, Locked};
use crate::peers::{Door, DoorVisitor, visit_doors};

const FREE: [Metric; 1] = [Metric::cost("lock and unlock", "ns")];
const TRY: [Metric; 1] = [Metric::cost("refused", "ns")];
pub(crate) const SPEED: [Metric; 1] = [Metric::speed("operations", "M/s")];
const AWAY: [Metric; 4] = [
    Metric::speed("operations", "M/s"),
    Metric::cost("handed on p50", "us"),
    Metric::cost("p99", "us"),
    Metric::cost("p99.9", "us"),
];

/// What is done with each lock.
#[derive(Clone, Copy)]
enum Act {
    Free,
    Contend { contenders: usize, away: bool },
    Try,
}

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let mut free = Case::new("free", &FREE);
    add_pair(kit, &mut free, "compare-and-swap and plain store", |word| {
        word.store(0, Ordering::Release)
    });
    add_pair(kit, &mut free, "compare-and-swap and swap", |word| {
        word.swap(0, Ordering::Release);
    });
    add_all(kit, &mut free, Act::Free);

    let mut held = Case::new("held by another: try_lock", &TRY);
    add_all(kit, &mut held, Act::Try);

    let mut cases = vec![free, held];
    for (contenders, name) in [
        (2, "two contenders"),
        (4, "four contenders on two cores"),
        (8, "eight contenders on two cores"),
    ] {
        let mut case = Case::new(name, &SPEED);
        kit.add_shared_swaps(&mut case);
        add_all(kit, &mut case, Act::Contend { contenders, away: false });
        cases.push(case);
    }

    let mut away =
        Case::new("two contenders, and a holder that is away for 2 ms of every 4", &AWAY);
    add_all(kit, &mut away, Act::Contend { contenders: 2, away: true });
    cases.push(away);
    Ok(cases)
}

fn add_pair(
    kit: &Kit,
    case: &mut Case,
    name: &str,
    unlock: impl Fn(&AtomicU64) + Copy + Send + 'static,
) {
    case.limit(
        name,
        processes(kit, move |stage, place| {
            limits::lone(stage, place, move |word| {
                let _ = word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
                unlock(word);
            })
        }),
    );
}

fn add_all(kit: &Kit, case: &mut Case, act: Act) {
    add::<Locked<ByDefault>>(kit, case, Role::Ours, act);
    visit_doors(&mut Each { kit, case, act });
    match act {
        Act::Free => kit.add_programs(case, Task::Lock { contenders: 1 }),
        Act::Contend { contenders, away: false } => {
            kit.add_programs(case, Task::Lock { contenders });
        }
        Act::Contend { away: true, .. } | Act::Try => {}
    }
}

/// Adds the lock of a door, wanted by so many.
pub(crate) fn add_contended<D: Door>(kit: &Kit, case: &mut Case, role: Role, contenders: usize) {
    add::<D>(kit, case, role, Act::Contend { contenders, away: false });
}

fn add<D: Door>(kit: &Kit, case: &mut Case, role: Role, act: Act) {
    let stage = kit.stage;
    case.add(role, D::NAME, move || {
        let mutex = D::create()?;
        match act {
            Act::Free => {
                let mut clone = mutex.clone();
                let mut run = repeat(stage, D::PLACE, move || {
                    move || clone.with(|protected| protected[0] += 1)
                })?;
                Ok(Box::new(move |length| {
                    // Kept as long as its clone, as it may be the owner of memory that that opens.
                    let _kept = &mutex;
                    Ok(Sample::from(run(length)?))
                }))
            }
            Act::Contend { contenders, away } => contend(stage, D::PLACE, contenders, away, mutex),
            Act::Try => sampled(refuse(stage, D::PLACE, mutex), Sample::from),
        }
    });
}

struct Each<'a> {
    kit: &'a Kit,
    case: &'a mut Case,
    act: Act,
}

impl DoorVisitor for Each<'_> {
    fn visit<D: Door>(&mut self) {
        add::<D>(self.kit, self.case, Role::Peer, self.act);
    }
}
