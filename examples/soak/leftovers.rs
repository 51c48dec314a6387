//! Checks that nothing is left after a round.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use offspring::{Queue, Segment};

type Page = [u8; 4096];

/// What was there before.
#[derive(Debug)]
pub struct Before {
    descriptors: BTreeSet<String>,
    shared_files: BTreeSet<String>,
    /// Slots of the largest queue that fits into the commons.
    room: usize,
    /// Blocks of the commons in use.
    blocks: u64,
}

impl Before {
    /// Makes this process the parent of orphans, so that it sees those that do not end with their
    /// parents.
    pub fn look() -> Result<Before, Box<dyn Error>> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let room = room()?;
        let (descriptors, shared_files) = (descriptors()?, names("/dev/shm")?);
        Ok(Before { descriptors, shared_files, room, blocks: blocks()? })
    }

    /// What is there now and was not before, in words.
    pub fn compare(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let mut found = living_orphans()?;
        let dead = Segment::commons()?.reap()?;
        let new = |what: &str, now: BTreeSet<String>, before: &BTreeSet<String>| -> Vec<String> {
            now.difference(before).map(|name| format!("{what} left over: {name}")).collect()
        };
        found.extend(new("descriptor", descriptors()?, &self.descriptors));
        found.extend(new("file in /dev/shm", names("/dev/shm")?, &self.shared_files));
        let blocks = blocks()?;
        if blocks != self.blocks {
            found.push(format!(
                "{blocks} blocks of the commons are in use, and {} were; reaped {dead}",
                self.blocks
            ));
        }
        let room = room()?;
        if room < self.room {
            found.push(format!(
                "the commons have room for {room} pages, and had for {}; reaped {dead}",
                self.room
            ));
        }
        Ok(found)
    }
}

/// Waits for the orphans of killed workers, which end with their parents; names those that do not.
fn living_orphans() -> Result<Vec<String>, Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(nix::errno::Errno::ECHILD) => return Ok(Vec::new()),
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => {
                let children =
                    std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
                return Ok(vec![format!("children left over: {children}")]);
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The largest queue of pages that can be made in the commons.
fn room() -> Result<usize, Box<dyn Error>> {
    let (mut fits, mut too_many) = (0, Segment::commons()?.len() as usize / size_of::<Page>() + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match Queue::<Page>::with_capacity(middle) {
            Ok(_) => fits = middle,
            Err(_) => too_many = middle,
        }
    }
    Ok(fits)
}

/// Blocks of the commons in use.
fn blocks() -> Result<u64, Box<dyn Error>> {
    Ok(Segment::commons()?.stats()?.in_use.blocks)
}

fn names(folder: impl AsRef<Path>) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Number and target of each open descriptor.
fn descriptors() -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut found = BTreeSet::new();
    for name in names("/proc/self/fd")? {
        // The one by which the folder was read is closed again.
        if let Ok(target) = std::fs::read_link(Path::new("/proc/self/fd").join(&name)) {
            found.insert(format!("{name} -> {}", target.display()));
        }
    }
    Ok(found)
}
