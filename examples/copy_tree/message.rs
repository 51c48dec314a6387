//! What travels through the two channels: values of any type that serde knows.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;

/// Entries to copy.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) number: u32,
    pub(crate) items: Vec<Item>,
}

/// An entry to copy.
#[derive(Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its place in the parent's list, by which the parent is told what became of it.
    pub(crate) entry: u32,
    /// From the root of the tree. Not a `PathBuf`, as serde refuses those that are no UTF-8.
    pub(crate) path: OsString,
    /// The type of the file, as `stat` has it.
    pub(crate) kind: u32,
}

/// What a worker tells the parent.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) worker: u32,
    pub(crate) job: u32,
    pub(crate) news: News,
}

/// What has happened to a job.
#[derive(Serialize, Deserialize)]
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

/// Where in the copying of an entry or a folder something went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Why an entry or a folder was not copied.
#[derive(Clone, Copy, Serialize, Deserialize)]
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
