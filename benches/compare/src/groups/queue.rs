//! Small messages: throughput of 8 bytes.

use crate::Failure;
use crate::acts::stream::{self, Content, stream};
use crate::external::Task;
use crate::figures::{Case, Role, sampled};
use crate::groups::{Kit, THROUGHPUT, processes};
use crate::peers::ours::{Batches, Channel, Copied, Ring, Spin};
use crate::peers::raw::{Lines, LinesOut};
use crate::peers::{Ends, Waiting, Way, WayVisitor, visit_ways};

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for count in [1, 2, 4] {
        let mut case = Case::new(format!("8 B, {count} to {count}"), &THROUGHPUT);
        if count == 1 {
            add_lines(kit, &mut case);
        } else {
            kit.add_shared_swaps(&mut case);
        }
        kit.add_stream::<Copied, 1>(&mut case, Role::Ours, count, Content::Ends);
        kit.add_stream::<Copied<Spin>, 1>(&mut case, Role::Ours, count, Content::Ends);
        kit.add_stream::<Channel, 1>(&mut case, Role::Ours, count, Content::Ends);
        visit_ways(&mut Many { kit, case: &mut case, count });
        kit.add_programs(&mut case, Task::Stream { bytes: 8, count });
        cases.push(case);
    }

    let mut batches = Case::new("8 B, 1 to 1, in batches of 64", &THROUGHPUT);
    add_lines(kit, &mut batches);
    kit.add_stream::<Batches, 1>(&mut batches, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Batches<Spin>, 1>(&mut batches, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Copied, 1>(&mut batches, Role::Ours, 1, Content::Ends);
    cases.push(batches);

    let mut single = Case::new("8 B, one sender and one receiver for good", &THROUGHPUT);
    add_lines(kit, &mut single);
    kit.add_stream::<Ring, 1>(&mut single, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Ring<Spin>, 1>(&mut single, Role::Ours, 1, Content::Ends);
    visit_ways(&mut Single { kit, case: &mut single });
    cases.push(single);
    Ok(cases)
}

/// Whether a way is made for one sender and one receiver that spin, as `spsc` is.
fn is_single<W: Way>() -> bool {
    W::MOST_ENDS == 1 && W::WAITING == Waiting::Spins
}

fn add_lines(kit: &Kit, case: &mut Case) {
    case.limit(
        "full cache lines handed over",
        processes(kit, |stage, place| {
            let open = || {
                let [sender, receiver] = Lines::ends()?;
                Ok(Ends::pair(sender, LinesOut::from(receiver)))
            };
            sampled(stream::<1, _, _>(stage, place, Content::Ends, 1, open), stream::sample::<1>)
        }),
    );
}

struct Many<'a> {
    kit: &'a Kit,
    case: &'a mut Case,
    count: usize,
}

impl WayVisitor for Many<'_> {
    fn visit<W: Way>(&mut self) {
        if self.count <= W::MOST_ENDS {
            self.kit.add_stream::<W, 1>(self.case, Role::Peer, self.count, Content::Ends);
        }
    }
}

struct Single<'a> {
    kit: &'a Kit,
    case: &'a mut Case,
}

impl WayVisitor for Single<'_> {
    fn visit<W: Way>(&mut self) {
        if is_single::<W>() {
            self.kit.add_stream::<W, 1>(self.case, Role::Peer, 1, Content::Ends);
        }
    }
}
