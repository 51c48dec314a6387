//! The lock: free, wanted by several, and with a holder that is away.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Failure;
use crate::acts::locking::{Mutex, contend};
use crate::acts::single::repeat;
use crate::external::Task;
use crate::figures::{Case, Metric, Role};
use crate::groups::{Kit, limits, processes};
use crate::peers::ours::{ByDefault, Locked};
use crate::peers::{Door, DoorVisitor, visit_doors};

const FREE: [Metric; 1] = [Metric::cost("lock and unlock", "ns")];
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

    let mut two = Case::new("two contenders", &SPEED);
    kit.add_shared_swaps(&mut two);
    add_all(kit, &mut two, Act::Contend { contenders: 2, away: false });

    let mut four = Case::new("four contenders on two cores", &SPEED);
    kit.add_shared_swaps(&mut four);
    add_all(kit, &mut four, Act::Contend { contenders: 4, away: false });

    let mut away =
        Case::new("two contenders, and a holder that is away for 2 ms of every 4", &AWAY);
    add_all(kit, &mut away, Act::Contend { contenders: 2, away: true });
    Ok(vec![free, two, four, away])
}

fn add_pair(
    kit: &Kit,
    case: &mut Case,
    name: &str,
    unlock: impl Fn(&AtomicU64) + Copy + Send + 'static,
) {
    case.limit(
        name,
        processes(kit, move |stage, place, limit| {
            limits::lone(stage, place, limit, move |word| {
                let _ = word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
                unlock(word);
            })
        }),
    );
}

fn add_all(kit: &Kit, case: &mut Case, act: Act) {
    add::<Locked<ByDefault>>(kit, case, Role::Ours, act);
    visit_doors(&mut Each { kit, case, act });
    let (contenders, away) = match act {
        Act::Free => (1, false),
        Act::Contend { contenders, away } => (contenders, away),
    };
    if !away {
        kit.add_programs(case, Task::Lock { contenders });
    }
}

/// Adds the lock of a door, wanted by so many.
pub(crate) fn add_contended<D: Door>(kit: &Kit, case: &mut Case, role: Role, contenders: usize) {
    add::<D>(kit, case, role, Act::Contend { contenders, away: false });
}

fn add<D: Door>(kit: &Kit, case: &mut Case, role: Role, act: Act) {
    let stage = kit.stage;
    case.add(role, D::NAME, move |limit| {
        // Kept until the end, as one may be the owner of memory that the actors open.
        let original = D::create()?;
        let mut mutex = original.clone();
        match act {
            Act::Free => repeat(stage, D::PLACE, limit, move || {
                move || mutex.with(|protected| protected[0] += 1)
            }),
            Act::Contend { contenders, away } => {
                contend(stage, D::PLACE, limit, contenders, away, mutex)
            }
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
