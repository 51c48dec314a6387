//! The groups: one file for each, and here their list.

mod busy;
mod limits;
mod lock;
mod message;
mod queue;
mod scale;
mod spawn;
mod wake;

use crate::Failure;
use crate::acts::echo::echo;
use crate::acts::stream::{self, Content, stream};
use crate::channel::Duplex;
use crate::external::{Programs, Task};
use crate::figures::{Case, Metric, Role, sampled};
use crate::peers::{Ends, Make, Way};
use crate::stage::{Place, Stage};

/// Gives the cases of a group.
type Cases = fn(&Kit) -> Result<Vec<Case>, Failure>;

/// All groups, in the order of the report.
pub(crate) const ALL: &[(&str, Cases)] = &[
    ("limits", limits::cases),
    ("queue", queue::cases),
    ("message", message::cases),
    ("lock", lock::cases),
    ("wake", wake::cases),
    ("spawn", spawn::cases),
    ("scale", scale::cases),
    ("busy", busy::cases),
];

/// Their names.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

/// One end of a channel there and another back.
type End<W, const N: usize> = Duplex<<W as Way>::Sender<N>, <W as Way>::Receiver<N>>;

/// What the groups build their cases with.
pub(crate) struct Kit {
    pub(crate) stage: Stage,
    programs: Programs,
}

/// Millions of messages, and gigabytes, in a second.
const THROUGHPUT: [Metric; 2] = [Metric::speed("messages", "M/s"), Metric::speed("bytes", "GB/s")];
/// Microseconds for a round trip, or whatever is timed alone.
const LATENCY: [Metric; 4] = [
    Metric::cost("time", "us"),
    Metric::cost("p50", "us"),
    Metric::cost("p99", "us"),
    Metric::cost("p99.9", "us"),
];

impl Kit {
    pub(crate) fn new(stage: Stage) -> Kit {
        Kit { stage, programs: Programs::default() }
    }

    /// Slots of a channel for messages of so many words: enough that nobody waits for the other on
    /// account of a few, and no more than a mebibyte unless there would be less than four.
    fn slots<const N: usize>() -> usize {
        ((1 << 20) / size_of::<[u64; N]>()).clamp(4, 1024)
    }

    /// Adds the throughput of a way to `case`, or the reason why it is not there.
    fn add_stream<W: Way, const N: usize>(
        &self,
        case: &mut Case,
        role: Role,
        count: usize,
        content: Content,
    ) {
        if size_of::<[u64; N]>() > W::MOST_BYTES {
            case.skip(W::NAME, format!("messages have at most {} bytes", W::MOST_BYTES));
            return;
        }
        let open = move || W::open::<N>(Kit::slots::<N>(), count);
        self.add_stream_over::<W, N>(case, role, W::NAME, count, content, open);
    }

    /// Adds the throughput of a way that `open` opens to `case`.
    fn add_stream_over<W: Way, const N: usize>(
        &self,
        case: &mut Case,
        role: Role,
        name: &str,
        count: usize,
        content: Content,
        open: impl Fn() -> Result<Ends<W::Sender<N>, W::Receiver<N>>, Failure> + Copy + Send + 'static,
    ) {
        let stage = self.stage;
        case.add(role, name, move || {
            sampled(stream(stage, W::PLACE, content, count, open), stream::sample::<N>)
        });
    }

    /// Adds the round trip over a pair of ways to `case`.
    fn add_echo<W: Way, const N: usize>(&self, case: &mut Case, role: Role) {
        let stage = self.stage;
        case.add(role, W::NAME, move || echo::<N, _>(stage, W::PLACE, Kit::there_and_back::<W, N>));
    }

    /// The two ends of a channel there and another back.
    fn there_and_back<W: Way, const N: usize>() -> Result<[Make<End<W, N>>; 2], Failure> {
        let mut there = W::open::<N>(Kit::slots::<N>(), 1)?;
        let mut back = W::open::<N>(Kit::slots::<N>(), 1)?;
        let (Some(sender), Some(receiver)) = (there.senders.pop(), back.receivers.pop()) else {
            return Err("a channel without ends".into());
        };
        let left: Make<End<W, N>> = Box::new(move || Duplex(sender(), receiver()));
        let (Some(sender), Some(receiver)) = (back.senders.pop(), there.receivers.pop()) else {
            return Err("a channel without ends".into());
        };
        let right: Make<End<W, N>> = Box::new(move || {
            // The receiver first, as the other end has its sender first, and some wait for each
            // other when they are made.
            let receiver = receiver();
            Duplex(sender(), receiver)
        });
        Ok([left, right])
    }

    /// Adds what programs in other languages have for this task.
    fn add_programs(&self, case: &mut Case, task: Task) {
        self.programs.add(self.stage, case, task);
    }

    /// Adds the swaps of one word of 8 bytes by two processes: what any two must do that share a
    /// counter.
    fn add_shared_swaps(&self, case: &mut Case) {
        let (stage, metrics) = (self.stage, case.metrics.len());
        case.limit("swaps of one word by two processes", move || {
            sampled(limits::shared_swaps(stage), move |rate| {
                let mut sample = stream::sample::<1>(rate);
                sample.values.truncate(metrics);
                sample
            })
        });
    }
}

/// How an entry is set up in processes, given `kit`'s stage; shortens the groups.
fn processes<T, F: Fn(Stage, Place) -> T>(kit: &Kit, set_up: F) -> impl Fn() -> T + use<T, F> {
    let stage = kit.stage;
    move || set_up(stage, Place::Processes)
}
