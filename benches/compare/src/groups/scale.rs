//! Cost that does not grow: with the processes on a queue, those that are only there, the queues,
//! and the slots.

use std::hint::black_box;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use offspring::Queue;

use crate::Failure;
use crate::acts::single::repeat;
use crate::acts::stream::{Content, stream};
use crate::figures::{Case, Chart, Metric, Plot, Role, Sample, sampled};
use crate::groups::Kit;
use crate::peers::ours::Copied;
use crate::peers::{Way, crossbeam, flume, kanal, pipe, vyukov};
use crate::stage::{Place, Stage};
use crate::troupe::Run;

static OVER_PROCESSES: Chart = Chart {
    file: "cost_over_processes",
    title: "Cost of a message over the number of processes on one queue, two cores",
    x: "senders and receivers together",
    y: "ns for a message of 8 bytes",
    metric: 1,
};

static OVER_QUEUES: Chart = Chart {
    file: "cost_over_queues",
    title: "Cost of a message over the number of queues, used in turn",
    x: "queues",
    y: "ns to send and receive 8 bytes",
    metric: 0,
};

static OVER_SLOTS: Chart = Chart {
    file: "cost_over_slots",
    title: "Cost of a message over the number of slots, one sender and one receiver",
    x: "slots",
    y: "ns for a message of 8 bytes",
    metric: 1,
};

const COST: [Metric; 2] = [Metric::speed("messages", "M/s"), Metric::cost("cost", "ns")];
/// Slots where their number is not the matter.
const SLOTS: usize = 1024;

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let mut cases: Vec<Case> =
        [1, 2, 4, 8, 16, 32].into_iter().map(|count| of_processes(kit, count)).collect();
    cases.push(beside_idlers(kit));
    cases.extend([1, 10, 100, 1000, 10_000].into_iter().map(|count| of_queues(kit, count)));
    cases
        .extend([1 << 10, 1 << 14, 1 << 17, 1 << 20].into_iter().map(|slots| of_slots(kit, slots)));
    Ok(cases)
}

fn of_processes(kit: &Kit, count: usize) -> Case {
    let plot = Plot::Over { chart: &OVER_PROCESSES, x: 2.0 * count as f64 };
    let mut case = Case::new(format!("8 B, {count} to {count} on one queue"), &COST).plot(plot);
    add::<Copied>(kit.stage, &mut case, Role::Ours, "Queue", count, SLOTS);
    add_peer::<vyukov::Vyukov>(kit, &mut case, count, SLOTS);
    add_peer::<pipe::Pipe>(kit, &mut case, count, SLOTS);
    add_peer::<crossbeam::Array>(kit, &mut case, count, SLOTS);
    add_peer::<crossbeam::Channel>(kit, &mut case, count, SLOTS);
    add_peer::<kanal::Channel>(kit, &mut case, count, SLOTS);
    add_peer::<flume::Channel>(kit, &mut case, count, SLOTS);
    case
}

fn beside_idlers(kit: &Kit) -> Case {
    // Anew, so that the idlers of one entry are not beside the others.
    let mut case =
        Case::new("8 B, 1 to 1, beside sleeping processes that have the memory", &COST).anew();
    for (idlers, name) in
        [(0, "Queue, beside none"), (62, "Queue, beside 62"), (254, "Queue, beside 254")]
    {
        add::<Copied>(Stage { idlers, ..kit.stage }, &mut case, Role::Ours, name, 1, SLOTS);
    }
    case
}

fn of_slots(kit: &Kit, slots: usize) -> Case {
    let plot = Plot::Over { chart: &OVER_SLOTS, x: slots as f64 };
    let mut case = Case::new(format!("8 B, 1 to 1, slots: {slots}"), &COST).plot(plot);
    add::<Copied>(kit.stage, &mut case, Role::Ours, "Queue", 1, slots);
    add_peer::<vyukov::Vyukov>(kit, &mut case, 1, slots);
    add_peer::<crossbeam::Array>(kit, &mut case, 1, slots);
    case
}

fn add_peer<W: Way>(kit: &Kit, case: &mut Case, count: usize, slots: usize) {
    add::<W>(kit.stage, case, Role::Peer, W::NAME, count, slots);
}

fn add<W: Way>(stage: Stage, case: &mut Case, role: Role, name: &str, count: usize, slots: usize) {
    case.add(role, name, move || {
        let open = move || W::open::<1>(slots, count);
        sampled(stream::<1, _, _>(stage, W::PLACE, Content::Ends, count, open), |rate| Sample {
            values: vec![rate / 1e6, 1e9 / rate],
            latencies: Vec::new(),
        })
    });
}

/// One process that sends and receives a message on each queue in turn.
fn of_queues(kit: &Kit, count: usize) -> Case {
    /// Slots of each.
    const FEW: usize = 16;
    let stage = kit.stage;
    let plot = Plot::Over { chart: &OVER_QUEUES, x: count as f64 };
    let mut case = Case::new(
        format!("8 B sent and received, queues in turn: {count}"),
        &[Metric::cost("cost", "ns")],
    )
    .plot(plot);
    case.ours("Queue", move || {
        let make = || Queue::<u64>::with_capacity(FEW).expect("room for all");
        in_turn(stage, count, make, |queue, number| {
            queue.send(number).expect("the queue is empty");
            queue.recv().expect("the queue has a message")
        })
    });
    case.peer("crossbeam ArrayQueue", move || {
        let make = || Arc::new(ArrayQueue::new(FEW));
        in_turn(stage, count, make, |queue, number| {
            queue.push(number).expect("the queue is empty");
            queue.pop().expect("the queue has a message")
        })
    });
    case
}

fn in_turn<Q: 'static>(
    stage: Stage,
    count: usize,
    make: impl Fn() -> Q + Send + 'static,
    pass: impl Fn(&Q, u64) -> u64 + Send + 'static,
) -> Result<Run<Sample>, Failure> {
    let run = repeat(stage, Place::Processes, move || {
        let queues: Vec<Q> = (0..count).map(|_| make()).collect();
        for (number, queue) in queues.iter().enumerate() {
            assert_eq!(pass(queue, number as u64), number as u64, "each queue is its own");
        }
        let (mut next, mut number) = (0, 0);
        move || {
            number += 1;
            assert_eq!(black_box(pass(&queues[next], number)), number, "a message is damaged");
            next = if next + 1 == queues.len() { 0 } else { next + 1 };
        }
    });
    sampled(run, Sample::from)
}
