//! Several victims in a line: the process that goes on behind the dead is killed in turn, at each
//! of its instructions, and so is a third.
//!
//! The first victim is stepped through its operation as in [`crate::stage`]. From some of the
//! states that it leaves, evenly chosen, each of its heirs is stepped, one at a time: processes
//! whose operation meets what the dead left, and clears it away. In a line of two, every state that
//! an heir leaves is given to survivors. In a line of three, some of these states, again evenly
//! chosen, are where the heirs of the heirs begin, and every state that these leave is given to
//! survivors.
//!
//! What survivors may find follows from what they would have found without the last victim, and
//! from what that one says, at the end of its operation, to have done: before it has done anything,
//! after each of its steps that matter, and when it is done, in this order.

use std::os::fd::BorrowedFd;

use crate::common::trace::Tracee;
use crate::common::watch::{Snapshot, Watch};
use crate::stage::{BOTH, How, Path, Tally, rehearse, step_through, survive};

/// What survivors may find, for each step of a victim's way, or why the victim cannot have done
/// what it told.
pub type Steps = Result<Vec<Vec<String>>, String>;

/// Who comes after the dead.
pub struct Heir<'a> {
    pub name: &'static str,
    /// Starts it, as the victim with this number, 1 being the second. It waits at the mark before
    /// its operation, and tells at the mark behind it what it has done, 0 being nothing.
    pub start: &'a dyn Fn(u64) -> Tracee,
    /// From its number, what survivors would have found without it, and what it told.
    pub expected: &'a dyn Fn(u64, &str, u64) -> Steps,
}

/// A line of victims that is set up.
pub struct Line<'a> {
    pub segment: BorrowedFd<'a>,
    pub first: &'a dyn Fn() -> Tracee,
    pub heirs: &'a [Heir<'a>],
    /// What a survivor does and finds.
    pub check: &'a dyn Fn(How) -> String,
    /// From how many states of each victim but the last the next one begins.
    pub samples: &'a [usize],
}

/// A state that a victim has left, with what survivors find in it.
struct Left<'a> {
    state: &'a Snapshot,
    found: String,
    how: How,
}

impl Line<'_> {
    pub fn visit(&self, tally: &mut Tally) {
        let mut watch = Watch::new(self.segment);
        let mut acted = 0;
        if let Err(reason) = self.visit_all(tally, &mut watch, &mut acted) {
            tally.fail(reason);
        } else if acted == 0 {
            tally.fail("no heir has done anything".to_owned());
        }
    }

    fn visit_all(
        &self,
        tally: &mut Tally,
        watch: &mut Watch,
        acted: &mut u64,
    ) -> Result<(), String> {
        let before = watch.snapshot();
        rehearse((self.first)())?;
        watch.restore(&before);
        let path = step(watch, (self.first)())?;
        for (turn, state) in self.sample(tally, &path, 0).into_iter().enumerate() {
            let how = BOTH[turn % BOTH.len()];
            let found = survive(watch, Some(state), self.check, how)?;
            for heir in self.heirs.iter().filter(|_| turn == 0) {
                watch.restore(state);
                rehearse((heir.start)(1)).map_err(|reason| format!("{}: {reason}", heir.name))?;
            }
            self.go_on(tally, watch, acted, 1, &Left { state, found, how })?;
        }
        Ok(())
    }

    /// Steps the heirs from a state that the victim before this number has left.
    fn go_on(
        &self,
        tally: &mut Tally,
        watch: &mut Watch,
        acted: &mut u64,
        number: u64,
        left: &Left<'_>,
    ) -> Result<(), String> {
        for heir in self.heirs {
            let context = |reason| {
                format!(
                    "{:?}, {}, victim {number}, \"{}\" before: {reason}",
                    left.how, heir.name, left.found
                )
            };
            watch.restore(left.state);
            let path = step(watch, (heir.start)(number)).map_err(context)?;
            let expected = (heir.expected)(number, &left.found, path.told).map_err(context)?;
            *acted += u64::from(path.told != 0);
            if number < self.samples.len() as u64 {
                for state in self.sample(tally, &path, number as usize) {
                    let found =
                        survive(watch, Some(state), self.check, left.how).map_err(context)?;
                    if !expected.iter().flatten().any(|text| *text == found) {
                        return Err(context(format!(
                            "found \"{found}\", expected one of {expected:?}"
                        )));
                    }
                    self.go_on(
                        tally,
                        watch,
                        acted,
                        number + 1,
                        &Left { state, found, how: left.how },
                    )?;
                }
            } else {
                tally.points += path.length + 1;
                tally.states += path.album.states.len() as u64;
                let findings = path
                    .album
                    .states
                    .iter()
                    .map(|state| survive(watch, Some(state), self.check, left.how));
                in_order(&expected, &findings.collect::<Vec<_>>(), &path.course)
                    .map_err(context)?;
            }
        }
        Ok(())
    }

    /// Some of the states of a victim, from the first to the last.
    fn sample<'a>(&self, tally: &mut Tally, path: &'a Path, victim: usize) -> Vec<&'a Snapshot> {
        let states = &path.album.states;
        let count = self.samples[victim].min(states.len());
        tally.sampled[0] += count as u64;
        tally.sampled[1] += states.len() as u64;
        (0..count).map(|index| &states[index * (states.len() - 1) / (count - 1).max(1)]).collect()
    }
}

/// Steps a victim through its operation; it is dead afterwards.
fn step(watch: &mut Watch, mut victim: Tracee) -> Result<Path, String> {
    let path = step_through(&mut victim, watch);
    victim.kill();
    path
}

/// Checks that the findings go through the steps in their order, leave none out, and come to the
/// last.
fn in_order(
    expected: &[Vec<String>],
    findings: &[Result<String, String>],
    course: &[(u64, usize)],
) -> Result<(), String> {
    let mut at = 0;
    for &(instruction, state) in course {
        let found = findings[state]
            .as_ref()
            .map_err(|reason| format!("after instruction {instruction}: {reason}"))?;
        if expected[at].contains(found) {
            continue;
        }
        at += 1;
        if !expected.get(at).is_some_and(|texts| texts.contains(found)) {
            return Err(format!(
                "after instruction {instruction}: found \"{found}\" as step {at} of {expected:?}"
            ));
        }
    }
    if at + 1 == expected.len() {
        Ok(())
    } else {
        Err(format!("ended at step {at} of {expected:?}"))
    }
}
