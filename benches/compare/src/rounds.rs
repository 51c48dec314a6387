//! The entries of a case take turns: in every round each plays one slice.
//!
//! Each round has an order of its own, so that nobody always plays after the same other. A slice
//! that gives nothing is noted, with its reason, and the entry goes on with the next round, set up
//! anew if it has failed.

use std::time::Duration;

use crate::Failure;
use crate::figures::{Case, Entry, Lifetime, Sample};
use crate::troupe::Run;

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) slice: Duration,
    pub(crate) rounds: usize,
}

/// What an entry does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    SetUp,
    Slice,
}

/// An entry that fails so often on end is set up no more.
const ATTEMPTS: usize = 3;

/// Measures all entries of `case`, and tells `progress` what each does next.
pub(crate) fn play(case: &mut Case, plan: Plan, mut progress: impl FnMut(Step, &str)) {
    let (lifetime, metrics) = (case.lifetime, case.metrics.len());
    let mut turns: Vec<Turn<'_>> =
        case.entries.iter_mut().map(|entry| Turn { entry, run: None, failures: 0 }).collect();
    if lifetime == Lifetime::Case {
        for turn in &mut turns {
            progress(Step::SetUp, &turn.entry.name);
            turn.set_up();
        }
    }
    // The same orders in each run of the program.
    let mut random = fastrand::Rng::with_seed(0);
    let mut order: Vec<usize> = (0..turns.len()).collect();
    for _ in 0..plan.rounds {
        random.shuffle(&mut order);
        for &index in &order {
            let turn = &mut turns[index];
            progress(Step::Slice, &turn.entry.name);
            let sample = turn.play(plan.slice, metrics);
            turn.entry.rounds.push(sample);
            if lifetime == Lifetime::Slice {
                turn.run = None;
            }
        }
    }
}

/// An entry, and what is there of it.
struct Turn<'a> {
    entry: &'a mut Entry,
    run: Option<Run<Sample>>,
    /// Since the last slice that did not fail.
    failures: usize,
}

impl Turn<'_> {
    fn play(&mut self, slice: Duration, metrics: usize) -> Option<Sample> {
        if self.run.is_none() {
            self.set_up();
        }
        match self.run.as_mut()?(slice) {
            Ok(sample) => {
                self.failures = 0;
                // On a busy machine, actors may not get a single turn in a slice.
                let is_measured =
                    sample.values.iter().all(|value| value.is_finite() && *value > 0.0);
                if !is_measured {
                    self.note("nothing could be measured".to_owned());
                }
                assert_eq!(sample.values.len(), metrics, "one value for each metric");
                is_measured.then_some(sample)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn set_up(&mut self) {
        let Some(set_up) = self.entry.set_up.as_ref().filter(|_| self.failures < ATTEMPTS) else {
            return;
        };
        match set_up() {
            Ok(run) => self.run = Some(run),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &Failure) {
        self.run = None;
        self.failures += 1;
        self.note(format!("failed: {error}"));
    }

    fn note(&mut self, reason: String) {
        if !self.entry.reasons.contains(&reason) {
            self.entry.reasons.push(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::figures::Metric;

    const PLAN: Plan = Plan { slice: Duration::from_millis(1), rounds: 4 };

    fn case() -> Case {
        Case::new("case", &[Metric::speed("speed", "1/s")])
    }

    fn figures(entry: &Entry) -> Vec<Option<f64>> {
        entry.figures(0).collect()
    }

    #[test]
    fn every_round_visits_every_entry_once() {
        let mut case = case();
        for name in ["a", "b", "c"] {
            case.ours(name, || Ok(Box::new(|_| Ok(Sample::from(1.0)))));
        }
        let visited = RefCell::new(Vec::new());
        play(&mut case, PLAN, |step, name| {
            if step == Step::Slice {
                visited.borrow_mut().push(name.to_owned());
            }
        });
        let visited = visited.into_inner();
        assert_eq!(visited.len(), 3 * PLAN.rounds);
        for round in visited.chunks(3) {
            let mut round = round.to_vec();
            round.sort();
            assert_eq!(round, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_slice_that_fails_spoils_that_slice_only() {
        let mut case = case();
        let count = Rc::new(RefCell::new(0));
        case.ours("fails once", move || {
            let count = Rc::clone(&count);
            Ok(Box::new(move |_| {
                *count.borrow_mut() += 1;
                if *count.borrow() == 2 { Err("a stall".into()) } else { Ok(Sample::from(5.0)) }
            }))
        });
        play(&mut case, PLAN, |_, _| ());
        let entry = &case.entries[0];
        assert_eq!(figures(entry), [Some(5.0), None, Some(5.0), Some(5.0)]);
        assert_eq!((entry.missing(), entry.reason().as_str()), (1, "failed: a stall"));
    }

    #[test]
    fn a_figure_of_zero_is_none_and_is_told() {
        let mut case = case();
        case.ours("gets no turn", || Ok(Box::new(|_| Ok(Sample::from(0.0)))));
        play(&mut case, PLAN, |_, _| ());
        let entry = &case.entries[0];
        assert_eq!((entry.missing(), entry.quartiles(0)), (PLAN.rounds, None));
        assert_eq!(entry.reason(), "nothing could be measured");
    }

    #[test]
    fn an_entry_that_never_works_is_tried_three_times_and_has_its_reason() {
        let mut case = case();
        let count = Rc::new(RefCell::new(0));
        let tried = Rc::clone(&count);
        case.ours("never works", move || {
            *tried.borrow_mut() += 1;
            Err("no such thing".into())
        });
        play(&mut case, PLAN, |_, _| ());
        assert_eq!((*count.borrow(), case.entries[0].missing()), (ATTEMPTS, PLAN.rounds));
        assert_eq!(case.entries[0].reason(), "failed: no such thing");
    }

    #[test]
    fn times_as_fast_is_above_one_for_the_faster_whatever_the_metric() {
        for (metric, ours, other) in
            [(Metric::speed("speed", "1/s"), 6.0, 3.0), (Metric::cost("time", "s"), 3.0, 6.0)]
        {
            let mut case = Case::new("case", &[metric]);
            case.ours("ours", move || Ok(Box::new(move |_| Ok(Sample::from(ours)))));
            case.peer("other", move || Ok(Box::new(move |_| Ok(Sample::from(other)))));
            play(&mut case, PLAN, |_, _| ());
            let ratio = case.times_as_fast(&case.entries[0], &case.entries[1]);
            assert_eq!(ratio.map(|ratio| ratio.median), Some(2.0));
        }
    }
}
