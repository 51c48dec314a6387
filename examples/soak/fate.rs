//! Deaths by a limit: some processes run into one while they hold a guard.
//!
//! Death by the out-of-memory killer would need a memory cgroup that is delegated to us. It is a
//! `SIGKILL` like the others.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::arena::Object;
use crate::random::Random;

/// What a process is to die of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing but a signal from its parent.
    Signal,
    /// `RLIMIT_AS`: it takes memory until it gets no more, and aborts.
    Memory,
    /// `RLIMIT_CPU`: the kernel kills it after a second of work.
    Time,
}

impl Fate {
    /// The fate of a new worker at the object.
    pub fn draw(object: Object, random: &mut Random) -> Fate {
        match (object, random.below(24)) {
            // Who dies there must be well considered, or has children, who would die before.
            (Object::Ring | Object::Channel, _) => Fate::Signal,
            // Children inherit the limit: they would die of it before their parents.
            (Object::Fork, 0) => Fate::Signal,
            (_, 0) => Fate::Memory,
            (_, 1) => Fate::Time,
            _ => Fate::Signal,
        }
    }
}

/// A fate under way.
#[derive(Debug)]
pub struct Burden {
    fate: Fate,
    limited: bool,
    hoard: Vec<Vec<u8>>,
}

const MEBIBYTE: u64 = 1 << 20;

impl Burden {
    pub fn new(fate: Fate) -> Burden {
        Burden { fate, limited: false, hoard: Vec::new() }
    }

    /// A step towards the end.
    pub fn bear(&mut self) {
        if self.fate == Fate::Signal {
            return;
        }
        if !std::mem::replace(&mut self.limited, true) {
            // Not at birth: the memory of the objects was not mapped then.
            limit(self.fate);
        }
        match self.fate {
            Fate::Signal => {}
            Fate::Memory => self.hoard.push(vec![1; MEBIBYTE as usize]),
            Fate::Time => {
                let until = Instant::now() + Duration::from_millis(5);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

fn limit(fate: Fate) {
    let set = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).expect("a limit can be lowered");
    };
    set(Resource::Core, 0);
    match fate {
        Fate::Signal => {}
        Fate::Memory => {
            // What is said about the allocation that fails is not for the table.
            let nowhere = File::options().write(true).open("/dev/null").expect("/dev/null");
            nix::unistd::dup2_stderr(&nowhere).expect("dup2");
            set(Resource::As, mapped() + 8 * MEBIBYTE);
        }
        Fate::Time => set(Resource::Cpu, 1),
    }
}

/// Bytes of address space that this process uses.
fn mapped() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 =
        statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size() as u64
}
