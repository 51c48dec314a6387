//! Limits that a process sets itself.
//!
//! # Source
//! getrlimit(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys::error::OsError;

/// Seconds between the signal that a process has used up its time and its end.
const GRACE: u64 = 1;

/// Sets the bytes of memory of its own that this process may have, and the seconds of processor
/// time that it may take. What several processes share does not count.
pub(crate) fn apply(memory: Option<u64>, seconds: Option<u64>) -> Result<(), OsError> {
    if let Some(bytes) = memory {
        set(Resource::RLIMIT_DATA, bytes, bytes)?;
    }
    if let Some(seconds) = seconds {
        set(Resource::RLIMIT_CPU, seconds, seconds.saturating_add(GRACE))?;
    }
    Ok(())
}

/// Never raises a limit that is set already.
fn set(resource: Resource, soft: u64, hard: u64) -> Result<(), OsError> {
    let (_, most) = getrlimit(resource).map_err(OsError::in_call("getrlimit"))?;
    setrlimit(resource, soft.min(most), hard.min(most)).map_err(OsError::in_call("setrlimit"))
}
