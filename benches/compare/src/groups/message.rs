//! Messages of all sizes, one way between two.

use crate::Failure;
use crate::acts::stream::{self, Content};
use crate::external::Task;
use crate::figures::{Case, Chart, Plot, Role, sampled};
use crate::groups::{Kit, THROUGHPUT, limits, processes};
use crate::peers::ours::{Copied, InPlace, Ring};
use crate::peers::{Way, WayVisitor, iceoryx, pipe, rtrb, visit_ways};

static CHART: Chart = Chart {
    file: "throughput_over_size",
    title: "Throughput over message size, one sender and one receiver",
    x: "bytes in a message",
    y: "GB/s",
    metric: 1,
};

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    Ok(vec![
        of_size::<1>(kit, "8 B"),
        of_size::<8>(kit, "64 B"),
        of_size::<64>(kit, "512 B"),
        of_size::<512>(kit, "4 KiB"),
        of_size::<{ 8 << 10 }>(kit, "64 KiB"),
        of_size::<{ 128 << 10 }>(kit, "1 MiB"),
        worked_on::<512>(kit, "4 KiB, every word written and added up"),
    ])
}

/// By copy: the sender touches both ends of the message and the receiver looks at them; what is in
/// between is the way's to move.
fn of_size<const N: usize>(kit: &Kit, name: &str) -> Case {
    let bytes = size_of::<[u64; N]>();
    let plot = Plot::Over { chart: &CHART, x: bytes as f64 };
    let mut case = Case::new(name, &THROUGHPUT).plot(plot);
    add_copy::<N>(kit, &mut case);
    kit.add_stream::<Copied, N>(&mut case, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Ring, N>(&mut case, Role::Ours, 1, Content::Ends);
    visit_ways(&mut All::<N> { kit, case: &mut case });
    kit.add_programs(&mut case, Task::Stream { bytes, count: 1 });
    case
}

/// The content is made by the sender and used by the receiver: who works in place saves both
/// copies.
fn worked_on<const N: usize>(kit: &Kit, name: &str) -> Case {
    let mut case = Case::new(name, &THROUGHPUT);
    add_copy::<N>(kit, &mut case);
    kit.add_stream::<InPlace, N>(&mut case, Role::Ours, 1, Content::Whole);
    kit.add_stream::<Copied, N>(&mut case, Role::Ours, 1, Content::Whole);
    kit.add_stream::<Ring, N>(&mut case, Role::Ours, 1, Content::Whole);
    kit.add_stream::<rtrb::Ring, N>(&mut case, Role::Peer, 1, Content::Whole);
    kit.add_stream::<rtrb::Chunks, N>(&mut case, Role::Peer, 1, Content::Whole);
    kit.add_stream::<iceoryx::InPlace, N>(&mut case, Role::Peer, 1, Content::Whole);
    kit.add_stream::<pipe::Pipe, N>(&mut case, Role::Peer, 1, Content::Whole);
    case
}

fn add_copy<const N: usize>(kit: &Kit, case: &mut Case) {
    case.limit(
        "one memcpy for each",
        processes(kit, |stage, _| {
            let bytes = size_of::<[u64; N]>();
            sampled(limits::lone_copy(stage, bytes), move |nanoseconds| {
                stream::sample_of(1e9 / nanoseconds, bytes)
            })
        }),
    );
}

struct All<'a, const N: usize> {
    kit: &'a Kit,
    case: &'a mut Case,
}

impl<const N: usize> WayVisitor for All<'_, N> {
    fn visit<W: Way>(&mut self) {
        self.kit.add_stream::<W, N>(self.case, Role::Peer, 1, Content::Ends);
    }
}
