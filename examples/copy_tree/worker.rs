//! A worker: takes jobs until there are none, and reports what it does.

use crate::Order;
use crate::copy::{Copied, Copier};
use crate::message::{Item, Job, News, Note};
use offspring::{Event, Failure, Receiver, Sender};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How often the parent hears of a job that takes long.
const SPEAK: Duration = Duration::from_millis(50);

/// What a worker has done in its life; it comes back through `Child::join`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// What a worker gets when it starts.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) number: u32,
    pub(crate) order: Order,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) notes: Sender<Note>,
    /// Set when the worker shall not begin with another entry.
    pub(crate) enough: Event,
}

/// The life of a worker, in its own process.
///
/// It ends when there will be no more jobs, or when it has had `enough` though there are some.
pub(crate) fn work(start: Start) -> Result<Tally, Failure> {
    let Start { number, order, jobs, notes, enough } = start;
    let plan = &order.carry_out()?;
    // The permissions of the source are wanted, not what a mask leaves of them.
    rustix::process::umask(Mode::empty());
    let temporary = plan.target.temporary_name(std::process::id());
    let mut copier = Copier::new(plan, temporary);
    let mut tally = Tally { files: 0, bytes: 0 };
    let mut spoken = Instant::now();
    let is_enough = || enough.is_set().unwrap_or(true);
    for Job { number: job, items } in &jobs {
        // If the parent no longer listens, this note fails as the first, and nothing has been
        // begun.
        let tell = |news| notes.send(Note { worker: number, job, news }).is_ok();
        if !tell(News::Taken) {
            break;
        }
        let (mut files, mut bytes) = (0, 0);
        for item in &items {
            let Item { entry, .. } = *item;
            // The disk is full.
            if is_enough() {
                break;
            }
            if spoken.elapsed() > SPEAK {
                tell(News::SoFar { files, bytes, part: 0 });
                spoken = Instant::now();
            }
            let copied = copier.copy(item, &mut |more| {
                tell(News::SoFar { files, bytes, part: more });
            });
            match copied {
                Ok(Copied { bytes: more, lost }) => {
                    files += 1;
                    bytes += more;
                    for (errno, count) in lost {
                        tell(News::Lost { entry, count, errno });
                    }
                }
                Err(trouble) => {
                    tell(News::Failed { entry, trouble });
                }
            }
        }
        tell(News::Done { files, bytes });
        tally.files += u64::from(files);
        tally.bytes += bytes;
        // There may still be jobs in the channel.
        if is_enough() {
            break;
        }
    }
    Ok(tally)
}
