//! Messages of all sizes, one way between two.

use std::hint::black_box;

use offspring::ByteQueue;

use crate::Failure;
use crate::acts::single::repeat;
use crate::acts::stream::{self, Content};
use crate::external::Task;
use crate::figures::{Case, Chart, Metric, Plot, Role, Sample, sampled};
use crate::groups::{Kit, THROUGHPUT, limits, processes};
use crate::peers::ours::{Bytes, Copied, InPlace, Lent, Objects, Ring};
use crate::peers::{Way, WayVisitor, iceoryx, ipc_channel, pipe, rtrb, visit_ways};

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
        of_size::<25>(kit, "200 B"),
        of_size::<64>(kit, "512 B"),
        of_size::<512>(kit, "4 KiB"),
        of_size::<{ 8 << 10 }>(kit, "64 KiB"),
        of_size::<{ 128 << 10 }>(kit, "1 MiB"),
        worked_on::<512>(kit, "4 KiB, every word written and added up"),
        lent(kit),
        taken(kit),
    ])
}

/// By copy, unless the name says otherwise: the sender touches both ends of the message and the
/// receiver looks at them; what is in between is the way's to move.
fn of_size<const N: usize>(kit: &Kit, name: &str) -> Case {
    let bytes = size_of::<[u64; N]>();
    let plot = Plot::Over { chart: &CHART, x: bytes as f64 };
    let mut case = Case::new(name, &THROUGHPUT).plot(plot);
    add_copy::<N>(kit, &mut case);
    kit.add_stream::<Copied, N>(&mut case, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Ring, N>(&mut case, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Bytes, N>(&mut case, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Lent, N>(&mut case, Role::Ours, 1, Content::Ends);
    kit.add_stream::<Objects, N>(&mut case, Role::Ours, 1, Content::Ends);
    visit_ways(&mut All::<N> { kit, case: &mut case });
    kit.add_stream::<ipc_channel::Objects, N>(&mut case, Role::Peer, 1, Content::Ends);
    kit.add_stream::<iceoryx::InPlace, N>(&mut case, Role::Peer, 1, Content::Ends);
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

/// Messages of all sizes over queues that are otherwise alike: what a loan costs must not depend on
/// its length.
fn lent(kit: &Kit) -> Case {
    let mut case = Case::new("lent, of all sizes", &THROUGHPUT);
    add_lent::<1>(kit, &mut case, "8 B");
    add_lent::<25>(kit, &mut case, "200 B");
    add_lent::<512>(kit, &mut case, "4 KiB");
    add_lent::<{ 8 << 10 }>(kit, &mut case, "64 KiB");
    add_lent::<{ 128 << 10 }>(kit, &mut case, "1 MiB");
    case
}

fn add_lent<const N: usize>(kit: &Kit, case: &mut Case, name: &str) {
    /// Slots of each queue.
    const FEW: usize = 16;
    let open = || Lent::open::<N>(FEW, 1);
    kit.add_stream_over::<Lent, N>(case, Role::Ours, name, 1, Content::Ends, open);
}

/// One process that takes memory for a message and gives it back.
fn taken(kit: &Kit) -> Case {
    const BYTES: usize = 4 << 10;
    let mut case = Case::new("4 KiB taken and given back", &[Metric::cost("time", "ns")]);
    case.ours(
        "ByteQueue, loan and drop",
        processes(kit, |stage, place| {
            let run = repeat(stage, place, || {
                let queue = ByteQueue::with_capacity(1).expect("a queue");
                move || drop(black_box(queue.loan(BYTES).expect("there is memory")))
            });
            sampled(run, Sample::from)
        }),
    );
    case.peer(
        "malloc and free",
        processes(kit, |stage, place| {
            let run = repeat(stage, place, || || drop(black_box(Vec::<u8>::with_capacity(BYTES))));
            sampled(run, Sample::from)
        }),
    );
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
