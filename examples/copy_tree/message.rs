//! What travels through the two queues: fixed-size values without pointers, since another process
//! reads them.
//!
//! A job is only an index: the worker was forked after the tree was listed, so it has the same list
//! in its own memory, and no path has to be sent.

use bytemuck::Zeroable;
use offspring::Shm;
use rustix::io::Errno;
use std::fmt;

/// A run of entries to copy: `Tree::jobs[index]`.
#[derive(Clone, Copy, Shm)]
#[repr(C)]
pub(crate) struct Job {
    pub(crate) index: u32,
}

/// What a worker tells the parent, as it lies in the queue. A shared enum could be read with an
/// invalid discriminant; numbers cannot, so [`Note::news`] is where they are checked.
#[derive(Clone, Copy, Shm)]
#[repr(C)]
pub(crate) struct Note {
    pub(crate) worker: u32,
    pub(crate) job: u32,
    kind: u32,
    /// Files copied so far in this job, or the entry that the note is about.
    number: u32,
    step: u32,
    errno: i32,
    /// Bytes of these files, or how many attributes were lost.
    amount: u64,
    /// Bytes of the file that is being copied.
    part: u64,
}

/// The same for programmers.
pub(crate) enum News {
    /// The worker has the job and will make temporary files from now on.
    Taken,
    /// So many files of the job are copied, with so many bytes, and a part of the next.
    SoFar { files: u32, bytes: u64, part: u64 },
    /// An entry of the job could not be copied; the worker goes on with the next one.
    Failed { entry: u32, trouble: Trouble },
    /// An entry was copied, but without so many of its extended attributes.
    Lost { entry: u32, count: u64, errno: i32 },
    /// The job is over.
    Done { files: u32, bytes: u64 },
}

impl Note {
    pub(crate) fn new(worker: u32, job: u32, news: News) -> Note {
        let blank = Note { worker, job, ..Note::zeroed() };
        match news {
            News::Taken => Note { kind: 0, ..blank },
            News::SoFar { files, bytes, part } => {
                Note { kind: 1, number: files, amount: bytes, part, ..blank }
            }
            News::Done { files, bytes } => Note { kind: 2, number: files, amount: bytes, ..blank },
            News::Failed { entry, trouble: Trouble { step, errno } } => {
                Note { kind: 3, number: entry, step: step as u32, errno, ..blank }
            }
            News::Lost { entry, count, errno } => {
                Note { kind: 4, number: entry, amount: count, errno, ..blank }
            }
        }
    }

    /// Returns what the note says, or `None` if no worker of ours can have written it.
    pub(crate) fn news(&self) -> Option<News> {
        let (files, bytes) = (self.number, self.amount);
        Some(match self.kind {
            0 => News::Taken,
            1 => News::SoFar { files, bytes, part: self.part },
            2 => News::Done { files, bytes },
            3 => {
                let step = *Step::ALL.get(self.step as usize)?;
                News::Failed { entry: self.number, trouble: Trouble { step, errno: self.errno } }
            }
            4 => News::Lost { entry: self.number, count: self.amount, errno: self.errno },
            _ => return None,
        })
    }
}

/// Where in the copying of an entry or a folder something went wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    Read,
    Write,
    Attributes,
    Rename,
    Compare,
    FirstLink,
    Workers,
    Folder,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Read,
        Step::Write,
        Step::Attributes,
        Step::Rename,
        Step::Compare,
        Step::FirstLink,
        Step::Workers,
        Step::Folder,
    ];
}

/// Why an entry or a folder was not copied.
#[derive(Clone, Copy)]
pub(crate) struct Trouble {
    pub(crate) step: Step,
    /// The system's error number, 0 if there is none.
    pub(crate) errno: i32,
}

impl Step {
    /// Makes the trouble that the system refused this step.
    pub(crate) fn refused(self) -> impl Fn(Errno) -> Trouble {
        move |errno| Trouble { step: self, errno: errno.raw_os_error() }
    }
}

impl Trouble {
    /// Returns whether the disk of the copy is full, or the user's share of it, so that nothing
    /// else will fare better.
    pub(crate) fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT].map(Errno::raw_os_error);
        self.step != Step::Read && full.contains(&self.errno)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            Step::Read => "cannot be read",
            Step::Write => "its copy cannot be written",
            Step::Attributes => {
                "its copy cannot get its owner, permissions, times or extended attributes"
            }
            Step::Rename => "its copy cannot be given its name",
            Step::Compare => "its copy has other bytes than were read",
            Step::FirstLink => "it is a hard link to a file that was not copied",
            Step::Workers => "several workers died while they copied it or its neighbours",
            Step::Folder => "its copy cannot be made",
        })?;
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}
