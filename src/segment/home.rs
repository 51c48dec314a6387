//! Where a segment is at home: the boot and the pid namespace in which its processes live and its
//! peer table's pids have a meaning.
//!
//! A file outlives its processes, and the machine's being switched off. Whoever opens it where it
//! is not at home can judge none of the peers in it by its pid; but if nobody has it open there,
//! all of them are dead, and the segment moves to the new home. That is decided by a lock on a
//! [byte](HOME) far beyond the end of the file: all that have the segment open share it, and
//! whoever moves it needs it alone.
//!
//! Each entry of the peer table says under which home it was made. One of another home belongs to a
//! dead process, so moving is the one store of the new home: killed before it, nothing has
//! happened; killed after it, all has.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use crate::segment::error::SegmentError;
use crate::segment::pod::Fnv;
use crate::sys::descriptor;
use crate::sys::error::OsError;
use crate::sys::record_lock::{self, Share};
use crate::sys::{clock, pidfd};

/// The byte that those who have the segment open lock. No file system has files of this size.
pub(crate) const HOME: u64 = 1 << 62;

/// A boot and a pid namespace, as one word: `boot:32 | namespace:32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u64);

impl Home {
    /// That of an anonymous segment whose maker could not find out where it lives. Only its own
    /// children can use it.
    pub(crate) const UNKNOWN: Home = Home(0);

    /// That of anonymous segments of this process, which do not outlive the boot.
    pub(crate) fn of_memory() -> Result<Home, OsError> {
        Ok(Home(pidfd::pid_namespace()?.into()))
    }

    /// That of segments in files.
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

    /// Error of a process that lives here and has opened a segment that is at home there.
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
    // Never 0, which is the boot of segments that do not outlive it.
    Ok(((hash.finish() >> 32 ^ hash.finish()) as u32).max(1))
}

/// How often to ask for the lock, and how long to wait in between, while others are opening the
/// file, too.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// Moves into the segment in `file` with the home `own`: joins those who are there, or takes the
/// segment from the dead. `read` and `write` get at the home in its header.
///
/// The shared lock stays with the open file description.
pub(crate) fn move_in(
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
        match record_lock::try_lock(&file, HOME, Share::Shared) {
            Ok(true) => {}
            // Somebody is moving in at this moment.
            Ok(false) => continue,
            // Without locks nobody can be found dead, but those who are at home here are.
            Err(refused) => return if read()? == own { Ok(()) } else { Err(refused.into()) },
        }
        found = read()?;
        if found == own {
            return Ok(());
        }
        // Two who both shared it would wait for each other.
        record_lock::unlock(&file, HOME)?;
        if record_lock::try_lock(&file, HOME, Share::Exclusive)? {
            write(own)?;
            record_lock::try_lock(&file, HOME, Share::Shared)?;
            return Ok(());
        }
    }
    if found == own || found.is_of_another_boot(own) {
        return Err(OsError { call: "fcntl", errno: Errno::AGAIN }.into());
    }
    Err(own.foreign(found))
}
