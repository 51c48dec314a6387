//! The home of a segment: the boot and the pid namespace of its processes, in which the pids in its
//! peer table have a meaning.
//!
//! A file outlives its processes and the boot. A process of another home cannot judge any peer in
//! the file by its pid. But if no process has the file open, all those peers are dead, and the
//! segment moves to the new home. A lock on a [byte](HOME_BYTE) far beyond the end of the file
//! decides this: all processes that have the segment open share the lock, and the process that
//! moves the segment needs it exclusively.
//!
//! Each entry of the peer table contains the home under which it was made. An entry with another
//! home than the segment's belongs to a dead process, so the move is a single store of the new
//! home. A process killed before that store has moved nothing; after it, the move is complete.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use crate::segment::error::SegmentError;
use crate::segment::pod::Fnv;
use crate::sys::descriptor;
use crate::sys::error::OsError;
use crate::sys::record_lock::{self, Share};
use crate::sys::{clock, pidfd};

/// The byte that every process locks while it has the segment open. No file system has files of
/// this size.
pub(crate) const HOME_BYTE: u64 = 1 << 62;

/// A boot and a pid namespace, as one word: `boot:32 | namespace:32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u64);

impl Home {
    /// Home of an anonymous segment whose creator could not find out its own home. Only the
    /// creator's children can use it.
    pub(crate) const UNKNOWN: Home = Home(0);

    /// Home of anonymous segments of this process. They end with the boot, so that is left out.
    pub(crate) fn of_memory() -> Result<Home, OsError> {
        Ok(Home(pidfd::pid_namespace()?.into()))
    }

    /// Home of segments in files.
    pub(crate) fn of_file() -> Result<Home, OsError> {
        Ok(Home(u64::from(boot()?) << 32 | u64::from(pidfd::pid_namespace()?)))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Home {
        Home(bits)
    }

    /// Number of the pid namespace; `None` if it is not known.
    pub(crate) fn namespace(self) -> Option<u32> {
        Some(self.0 as u32).filter(|&number| number != 0)
    }

    fn is_of_another_boot(self, other: Home) -> bool {
        self.0 >> 32 != other.0 >> 32
    }

    /// The error for a process with this home that opened a segment whose home is `there`.
    pub(crate) fn foreign(self, there: Home) -> SegmentError {
        let number = |home: Home| home.namespace().unwrap_or(0).into();
        SegmentError::ForeignNamespace { segment: number(there), own: number(self) }
    }
}

/// The random number that the kernel gives each boot, shortened.
fn boot() -> Result<u32, OsError> {
    let mut text = [0; 64];
    let calls = ["open /proc/sys/kernel/random/boot_id", "read /proc/sys/kernel/random/boot_id"];
    let id = descriptor::read_proc("/proc/sys/kernel/random/boot_id", calls, &mut text)?;
    let mut hash = Fnv::new();
    hash.write(id.trim_ascii().as_bytes());
    // Never 0, which stands for segments that do not outlive the boot.
    Ok(((hash.finish() >> 32 ^ hash.finish()) as u32).max(1))
}

/// How often to try the lock, and how long to pause between two attempts, while other processes
/// open the file too.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// Joins the processes that have the segment in `file` open if its home is `own`. If not, and all
/// its processes are dead, makes `own` its home. `read` and `write` access the home in the header.
///
/// The shared lock stays with the open file description.
pub(crate) fn join_or_take_over(
    file: impl AsFd,
    own: Home,
    read: impl Fn() -> Result<Home, SegmentError>,
    write: impl Fn(Home) -> Result<(), SegmentError>,
) -> Result<(), SegmentError> {
    let mut found = own;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            clock::sleep(PAUSE);
        }
        match record_lock::try_lock(&file, HOME_BYTE, Share::Shared) {
            Ok(true) => {}
            // Another process is moving the segment at this moment.
            Ok(false) => continue,
            // Without locks the segment cannot be moved, but a process of the same home can still
            // use it.
            Err(refused) => return if read()? == own { Ok(()) } else { Err(refused.into()) },
        }
        found = read()?;
        if found == own {
            return Ok(());
        }
        // Two processes that both kept the shared lock would wait for each other.
        record_lock::unlock(&file, HOME_BYTE)?;
        if record_lock::try_lock(&file, HOME_BYTE, Share::Exclusive)? {
            write(own)?;
            record_lock::try_lock(&file, HOME_BYTE, Share::Shared)?;
            return Ok(());
        }
    }
    if found == own || found.is_of_another_boot(own) {
        return Err(OsError { call: "fcntl", errno: Errno::AGAIN }.into());
    }
    Err(own.foreign(found))
}
