//! What the checker has found in the crate, each in the smallest configuration that shows it.

use crate::engine::{Model, Slices};
use crate::models::{heap, lock, queue, result};
use crate::queue::OnReceiverDeath;

fn named(model: Model, what: &str) -> Model {
    Model { object: "found", configuration: what.into(), ..model }
}

pub fn models() -> Vec<Model> {
    let again = queue::Setting {
        close: queue::Close::Never,
        ..queue::Setting::new(1, OnReceiverDeath::Redeliver, queue::Calls::Try, &[2], 1)
    };
    let drained = queue::Setting {
        late: true,
        payload: false,
        deaths: 1,
        preemptions: Some(2),
        ..queue::Setting::new(2, OnReceiverDeath::Redeliver, queue::Calls::Try, &[1], 3)
    };
    let crowd = lock::Setting {
        turns: [1, 1, 1],
        processes: 3,
        tries: false,
        repair: false,
        reaper: false,
        deaths: 0,
        slices: Slices::LastResort,
        preemptions: Some(4),
    };
    let returned =
        result::Setting { reapers: 1, deaths: 1, ..result::Setting::of(result::Value::Box, true) };
    vec![
        // A sender made a message an orphan and was killed before it said so. Receivers looked for
        // claimed slots of the dead and not for orphans, so in an open queue whose senders had
        // ended nobody ever received it.
        named(again.model(), "an orphan whose recoverer was killed before it said so is received"),
        // A receiver of a closed queue looked for orphans, and then for messages that others still
        // read. One that was read at the first look and an orphan at the second was missed, and the
        // queue called drained.
        named(
            drained.model(),
            "a closed queue with a message that has just come back is not drained",
        ),
        // A waiter that was woken and found the lock free took it as if it had never slept, and so
        // without the mark that others sleep. They were not woken when it unlocked, and slept until
        // their slices ended; no kill was needed for that.
        named(crowd.model(), "a waiter that finds the lock free as it wakes passes the wake-up on"),
        // A creator was killed between entering itself as a holder and sharing the block. The
        // reaper tore the block down and left the bit, which then held every object that came to
        // lie there.
        named(
            heap::create_and_open(),
            "a creator killed as it shares a block leaves no hold on it",
        ),
        // A child was killed between naming its parent as the carrier of a block and handing it
        // over. A third process began to clear up after it. The parent, which left that to it,
        // freed what the child had returned, which was nothing; and then the reaper put the block
        // back among that, as if a receiver had taken it out of a message. It stayed until the
        // parent ended.
        named(
            returned.model(),
            "a child killed as it hands a box over leaves nothing to its parent",
        ),
    ]
}
