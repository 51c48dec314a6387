//! A POSIX message queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_close, mq_open, mq_receive, mq_send, mq_unlink};
use nix::sys::stat::Mode;

use crate::Failure;
use crate::channel::{Receiver, Sender};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// mq_overview(7).
#[derive(Debug)]
pub(crate) struct MessageQueue;

/// An end; the name is gone as soon as the queue is open.
#[derive(Clone, Debug)]
pub(crate) struct End(Arc<Descriptor>);

#[derive(Debug)]
struct Descriptor(Option<MqdT>);

/// What anybody may ask for without privileges (`/proc/sys/fs/mqueue`).
const MOST_MESSAGES: usize = 10;
const MOST_BYTES: usize = 8192;

/// The last number in a name.
static NAMES: AtomicU32 = AtomicU32::new(0);

impl Way for MessageQueue {
    const NAME: &'static str = "POSIX message queue";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Sleeps;
    const MOST_BYTES: usize = MOST_BYTES;
    type Sender<const N: usize> = End;
    type Receiver<const N: usize> = End;

    fn open<const N: usize>(slots: usize, count: usize) -> Result<Ends<End, End>, Failure> {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let name = format!("/offspring-compare-{}-{number}", std::process::id());
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
        let attributes =
            MqAttr::new(0, slots.min(MOST_MESSAGES) as i64, size_of::<[u64; N]>() as i64, 0);
        let queue =
            mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes))?;
        let end = End(Arc::new(Descriptor(Some(queue))));
        mq_unlink(name.as_str())?;
        Ok(Ends::cloned(&end, &end, count))
    }
}

impl End {
    fn queue(&self) -> &MqdT {
        self.0.0.as_ref().expect("open until it is dropped")
    }
}

impl<const N: usize> Sender<N> for End {
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        mq_send(self.queue(), bytemuck::bytes_of(buffer), 0).expect("the queue is open");
    }
}

impl<const N: usize> Receiver<N> for End {
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let mut priority = 0;
        let received = mq_receive(self.queue(), bytemuck::bytes_of_mut(buffer), &mut priority)
            .expect("the queue is open");
        assert_eq!(received, size_of::<[u64; N]>(), "messages come whole");
        read(buffer)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            // Nothing is left to do with one that does not close.
            let _ = mq_close(queue);
        }
    }
}
