//! Who must be how fast: the pairs that the README shows, won or lost.

use crate::Measured;
use crate::figures::{Case, Entry};

/// One of ours, and what it is measured against in the same case.
pub(crate) struct Goal {
    group: &'static str,
    case: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) other: &'static str,
    /// Ours must be this many times as fast.
    pub(crate) at_least: f64,
}

const fn goal(
    group: &'static str,
    case: &'static str,
    ours: &'static str,
    other: &'static str,
    at_least: f64,
) -> Goal {
    Goal { group, case, ours, other, at_least }
}

const RTRB: &str = "rtrb, threads";
const PARKING_LOT: &str = "parking_lot::Mutex, threads";
const RAW_FORK: &str = "raw fork, _exit and waitpid";
const SMALL_FORK: &str = "raw fork in a small process, _exit and waitpid";
const ARRAY_QUEUE: &str = "crossbeam ArrayQueue, threads";
const ROBUST: &str = "pthread mutex, shared and robust";
const STD: &str = "std::sync::Mutex, threads";
const SPINNING: &str = "8 B there and back, spinning";
const SLEEPING: &str = "8 B there and back, sleeping";
const IPC_CHANNEL: &str = "ipc-channel, objects";
const MEMCPY: &str = "one memcpy for each";
const WORKED_ON: &str = "4 KiB, every word written and added up";

/// All goals, in the order of the table.
pub(crate) const ALL: &[Goal] = &[
    goal("queue", "8 B, 1 to 1", "Queue", ARRAY_QUEUE, 1.0),
    goal("queue", "8 B, 1 to 1", "Queue", "Vyukov ring, cannot recover", 1.0),
    goal("queue", "8 B, 1 to 1", "Queue", "pipe", 1.0),
    goal("queue", "8 B, 1 to 1", "Queue", "iceoryx2", 1.0),
    goal("queue", "8 B, 1 to 1", "Queue", "Boost.Interprocess message_queue", 1.0),
    goal("queue", "8 B, 2 to 2", "Queue", "kanal, threads", 1.0),
    goal("queue", "8 B, 4 to 4", "Queue", "kanal, threads", 1.0),
    goal("queue", "8 B, 1 to 1, in batches of 64", "Queue, batches of 64", "Queue", 1.5),
    goal("queue", "8 B, 1 to 1", "plain::channel", "Queue", 1.0),
    goal("queue", "8 B, one sender and one receiver for good", "spsc", RTRB, 1.0),
    goal("message", "4 KiB", "Queue", RTRB, 1.0),
    goal("message", WORKED_ON, "Queue, in place", RTRB, 2.0),
    goal("message", "200 B", "ObjectQueue", IPC_CHANNEL, 3.0),
    goal("message", "200 B", "ObjectQueue", "Python multiprocessing.Queue", 20.0),
    goal("message", "64 KiB", "ByteQueue", MEMCPY, 1.0 / 2.0),
    goal("message", "1 MiB", "ByteQueue", MEMCPY, 1.0 / 2.0),
    goal("message", "lent, of all sizes", "1 MiB", "8 B", 1.0 / 2.0),
    goal("lock", "free", "Lock", STD, 1.0),
    goal("lock", "free", "Lock", ROBUST, 1.0),
    goal("lock", "held by another: try_lock", "Lock", STD, 1.0),
    goal("lock", "held by another: try_lock", "Lock", ROBUST, 1.0),
    goal("lock", "two contenders", "Lock", PARKING_LOT, 1.0),
    goal("lock", "four contenders on two cores", "Lock", PARKING_LOT, 1.0),
    goal("lock", "eight contenders on two cores", "Lock", PARKING_LOT, 1.0),
    goal("wake", SPINNING, "Queue, spin", "raw line each way", 1.0 / 1.2),
    goal("wake", SPINNING, "Queue, spin", ARRAY_QUEUE, 1.0),
    goal("wake", SPINNING, "spsc, spin", RTRB, 1.0),
    goal("wake", SLEEPING, "Queue, sleep", "raw futex", 1.0 / 1.15),
    goal("wake", SLEEPING, "Queue, sleep", "pipe", 1.0),
    goal("spawn", "start to end, nothing touched", "zygote and join", RAW_FORK, 1.0 / 2.0),
    goal("spawn", "start to end, 256 MiB touched", "zygote and join", SMALL_FORK, 1.0 / 2.0),
    goal("spawn", "start to end, nothing touched", "fork and join", RAW_FORK, 1.0 / 1.4),
    goal("spawn", "start to end, 256 MiB touched", "fork and join", RAW_FORK, 1.0 / 1.15),
];

impl Goal {
    /// The case and both entries, if they were chosen to be measured.
    pub(crate) fn find<'a>(
        &self,
        measured: &'a [Measured],
    ) -> Option<(&'a Case, &'a Entry, &'a Entry)> {
        let group = measured.iter().find(|group| group.name == self.group)?;
        let case = group.cases.iter().find(|case| case.name == self.case)?;
        Some((case, case.entry(self.ours)?, case.entry(self.other)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::{self, Kit};
    use crate::stage::Stage;

    #[test]
    fn every_goal_names_entries_that_there_are() {
        let kit = Kit::new(Stage { processors: [0, 1], hogs: 0, idlers: 0 });
        let measured: Vec<Measured> = groups::ALL
            .iter()
            .map(|&(name, cases)| Measured { name, cases: cases(&kit).expect("cases") })
            .collect();
        for goal in ALL {
            let names = (goal.case, goal.ours, goal.other);
            assert!(goal.find(&measured).is_some(), "{names:?}");
        }
    }
}
