//! Round trips: how long the answer takes when both spin, when both sleep, and as each does by
//! default.

use crate::Failure;
use crate::external::Task;
use crate::figures::{Case, Plot, Role};
use crate::groups::{Kit, LATENCY, limits};
use crate::peers::ours::{ByDefault, Copied, Ring, Sleep, Spin};
use crate::peers::{Waiting, Way, WayVisitor, visit_ways};

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let new = |name| Case::new(name, &LATENCY).plot(Plot::Latencies);

    let mut spinning = new("8 B there and back, spinning");
    limits::add_lines(kit, &mut spinning);
    kit.add_echo::<Copied<Spin>, 1>(&mut spinning, Role::Ours);
    kit.add_echo::<Ring<Spin>, 1>(&mut spinning, Role::Ours);
    visit_ways(&mut Like::<1> { kit, case: &mut spinning, waiting: Waiting::Spins });

    let mut larger = Case::new("64 B there and back, spinning", &LATENCY);
    limits::add_lines(kit, &mut larger);
    kit.add_echo::<Copied<Spin>, 8>(&mut larger, Role::Ours);
    kit.add_echo::<Ring<Spin>, 8>(&mut larger, Role::Ours);
    visit_ways(&mut Like::<8> { kit, case: &mut larger, waiting: Waiting::Spins });

    let mut default = new("8 B there and back, waiting by default");
    limits::add_lines(kit, &mut default);
    kit.add_echo::<Copied<ByDefault>, 1>(&mut default, Role::Ours);
    kit.add_echo::<Ring<ByDefault>, 1>(&mut default, Role::Ours);
    visit_ways(&mut Like::<1> { kit, case: &mut default, waiting: Waiting::Default });
    kit.add_programs(&mut default, Task::Echo);

    let mut sleeping = new("8 B there and back, sleeping");
    limits::add_futex(kit, &mut sleeping);
    kit.add_echo::<Copied<Sleep>, 1>(&mut sleeping, Role::Ours);
    kit.add_echo::<Ring<Sleep>, 1>(&mut sleeping, Role::Ours);
    visit_ways(&mut Like::<1> { kit, case: &mut sleeping, waiting: Waiting::Sleeps });
    Ok(vec![spinning, larger, default, sleeping])
}

/// Adds the ways that wait alike.
struct Like<'a, const N: usize> {
    kit: &'a Kit,
    case: &'a mut Case,
    waiting: Waiting,
}

impl<const N: usize> WayVisitor for Like<'_, N> {
    fn visit<W: Way>(&mut self) {
        if W::WAITING == self.waiting {
            self.kit.add_echo::<W, N>(self.case, Role::Peer);
        }
    }
}
