//! One configuration: a victim, every state that it leaves the segment in, and the survivors that
//! each state is handed to.
//!
//! The victim is stepped through its operation once. After every instruction that changed the
//! segment a snapshot is taken, with everybody else idle. Then the victim is killed, so that the
//! identity that the snapshots name is really dead, and each distinct snapshot is put back and
//! given to a new process, which recovers and says what it found. An instruction that left the
//! segment as it was is a kill point with the state before it; memory that only the victim could
//! see is gone with it.
//!
//! That this equals killing at each instruction is checked for the short operations by doing just
//! that, and comparing what is found.
//!
//! A victim is killed before its end. What its author expects there is checked by one more, the
//! rehearsal, which runs to its end.

use std::fmt::Write as _;
use std::os::fd::BorrowedFd;

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::common::trace::{Errand, Next, Tracee, kill_and_wait, raw_fork};
use crate::common::watch::{Album, Snapshot, Watch};

/// Seconds after which a survivor is taken for hanging. None waits for more than fractions of one.
const HANGING: u32 = 30;
/// Steps after which a victim is taken for hanging.
const MOST_STEPS: u64 = 4_000_000;

/// How survivors learn of the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They go on with their work and find out when something is in their way.
    Alone,
    /// They call [`Segment::reap`] first; afterwards nothing may be in their way at all.
    Reaped,
}

/// What survivors may find, in the order in which the victim's progress makes it so.
#[derive(Clone, Debug)]
pub struct Found {
    pub text: String,
    /// Whether the victim may pass from the one before to the one after without this being seen.
    pub optional: bool,
}

/// The findings, each of which must be made.
pub fn found<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<Found> {
    texts.into_iter().map(|text| Found { text: text.into(), optional: false }).collect()
}

/// What came of a configuration, or of many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Kill points: instructions before which the victim may be killed, and the end.
    pub points: u64,
    /// Distinct states of the segment that survivors were given.
    pub states: u64,
    /// Victims that were really killed in the middle.
    pub kills: u64,
    /// States from which a later victim was stepped, and how many there were to choose from.
    pub sampled: [u64; 2],
    pub failures: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.points += other.points;
        self.states += other.states;
        self.kills += other.kills;
        self.sampled[0] += other.sampled[0];
        self.sampled[1] += other.sampled[1];
        self.failures.extend(other.failures);
    }

    pub fn fail(&mut self, text: String) {
        // The first tell what is wrong; the rest would only hide them.
        if self.failures.len() < 5 {
            self.failures.push(text);
        }
    }
}

/// A process that has something, and stays until it is killed.
pub struct Helper {
    pid: Pid,
}

impl Helper {
    /// Starts one; returns when `work` is done. What `work` returns is kept, not dropped, by the
    /// helper.
    pub fn start<T>(work: impl FnOnce() -> T) -> Helper {
        let (mut ready, mut theirs) = std::io::pipe().expect("a pipe");
        let pid = raw_fork(|| {
            let _kept = work();
            std::io::Write::write_all(&mut theirs, b"x").expect("somebody listens");
            loop {
                std::thread::park();
            }
        });
        std::io::Read::read_exact(&mut ready, &mut [0]).expect("the helper did its work");
        Helper { pid }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn kill(self) {
        kill_and_wait(self.pid);
    }
}

/// A configuration that is set up and waits for its victim.
pub struct Scene<'a> {
    pub segment: BorrowedFd<'a>,
    /// Starts a victim, which waits at the mark before the operation; behind it is a second mark,
    /// or its end.
    pub victim: &'a dyn Fn() -> Tracee,
    pub expected: Vec<Found>,
    /// What a survivor does and finds.
    pub check: &'a dyn Fn(How) -> String,
    /// What a survivor does while the helpers live.
    pub beside: Option<&'a dyn Fn()>,
    /// Processes that are in somebody's way, killed before the survivors are to clear everything.
    pub helpers: Vec<Helper>,
    pub hows: &'static [How],
}

/// Both ways.
pub const BOTH: &[How] = &[How::Alone, How::Reaped];

/// What stepping through an operation gave.
pub struct Path {
    pub album: Album,
    /// The states in the order in which they came, and after how many instructions.
    pub course: Vec<(u64, usize)>,
    /// Instructions from the first mark to the second.
    pub length: u64,
    /// What the victim told at its second mark.
    pub told: u64,
}

/// What one more instruction of the victim's came to.
enum Step {
    /// None: it stands at its mark.
    Mark,
    /// Its end.
    End,
    Done {
        /// Whether the segment is not what it was.
        changed: bool,
    },
}

/// Lets the victim execute its next instruction, the one with this number.
fn step(victim: &mut Tracee, watch: &mut Watch, number: u64) -> Step {
    let call = match victim.next() {
        Next::Mark => return Step::Mark,
        Next::Plain | Next::Clock => None,
        Next::Call(call) => Some(call),
    };
    if !victim.step() {
        return Step::End;
    }
    // The next call tells of new pages at once; this is for those that were backed by others and
    // are touched for the first time.
    let pages = match call {
        Some(call) => watch.after_call(victim.pid(), &call),
        None => number.is_multiple_of(256) && watch.look_for_pages(),
    };
    Step::Done { changed: watch.has_changed() || pages }
}

/// Steps the victim from its first mark to the second, or to its end. It stays as it is then.
pub fn step_through(victim: &mut Tracee, watch: &mut Watch) -> Result<Path, String> {
    let mut album = Album::default();
    watch.look_for_pages();
    watch.has_changed();
    let mut course = vec![(0, album.add(watch.snapshot()))];
    let mut length = 0;
    loop {
        match step(victim, watch, length + 1) {
            Step::Mark => return Ok(Path { album, course, length, told: victim.told() }),
            Step::End => {
                return match victim.ended() {
                    // The last it did was to give back what it held; the call that ends it changes
                    // nothing.
                    Some(WaitStatus::Exited(_, 0)) => {
                        Ok(Path { album, course, length: length + 1, told: 0 })
                    }
                    other => Err(format!("the victim ended by itself: {other:?}")),
                };
            }
            Step::Done { changed } => {
                length += 1;
                if changed {
                    course.push((length, album.add(watch.snapshot())));
                }
            }
        }
        if length > MOST_STEPS {
            return Err(format!("the operation does not end: {:?}", victim.next()));
        }
    }
}

/// Runs a victim to its very end, as none is that is killed, so that what its author expects there
/// is checked, too.
pub fn rehearse(victim: Tracee) -> Result<(), String> {
    match victim.run_to_end() {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(format!("a victim that nobody killed did not end well: {other:?}")),
    }
}

/// A survivor's finding, in a state or in what is there.
pub fn survive(
    watch: &mut Watch,
    state: Option<&Snapshot>,
    check: &dyn Fn(How) -> String,
    how: How,
) -> Result<String, String> {
    if let Some(state) = state {
        watch.restore(state);
    }
    Errand::send(HANGING, || check(how)).answer()
}

impl Scene<'_> {
    /// Visits every kill point; with `real`, also kills a victim of its own at those that it says
    /// yes to.
    ///
    /// `real` is told the number of the instruction, how many there are, and whether the last one
    /// changed the segment.
    pub fn visit(mut self, tally: &mut Tally, real: Option<fn(u64, u64, bool) -> bool>) {
        let mut watch = Watch::new(self.segment);
        let before = watch.snapshot();
        if let Err(reason) = rehearse((self.victim)()) {
            tally.fail(reason);
            return;
        }
        watch.restore(&before);
        let mut victim = (self.victim)();
        let path = match step_through(&mut victim, &mut watch) {
            Ok(path) => path,
            Err(reason) => {
                tally.fail(reason);
                return;
            }
        };
        tally.points += path.length + 1;
        tally.states += path.album.states.len() as u64;
        victim.kill();
        if let Some(beside) = self.beside {
            for (number, state) in path.album.states.iter().enumerate() {
                watch.restore(state);
                let survivor = Errand::send(HANGING, || {
                    beside();
                    String::new()
                });
                if let Err(reason) = survivor.answer() {
                    tally.fail(format!("beside the living, state {number}: {reason}"));
                }
            }
        }
        self.helpers.drain(..).for_each(Helper::kill);
        let mut findings = Vec::new();
        for &how in self.hows {
            let found = path
                .album
                .states
                .iter()
                .map(|state| survive(&mut watch, Some(state), self.check, how));
            let found: Vec<_> = found.collect();
            if let Err(reason) = compare(&self.expected, &found, &path.course) {
                tally.fail(format!("{how:?}: {reason}"));
            }
            findings.push(found);
        }
        if let Some(real) = real {
            self.kill_for_real(tally, &mut watch, &before, &path, &findings, real);
        }
    }

    /// Kills victims in the middle, and compares what survivors find with what they found in the
    /// snapshot of the same moment.
    ///
    /// The same moment is that after as many changes of the segment, and not after as many
    /// instructions: these can be some more or fewer in another process, as the digits of its
    /// number are written out and the clock is read again when the kernel was just setting it.
    /// Which changes an operation makes, and in which order, is the same for all.
    fn kill_for_real(
        &self,
        tally: &mut Tally,
        watch: &mut Watch,
        before: &Snapshot,
        path: &Path,
        findings: &[Vec<Result<String, String>>],
        real: fn(u64, u64, bool) -> bool,
    ) {
        let kills = tally.kills;
        for (turn, point) in (0..=path.length)
            .filter(|&point| {
                real(point, path.length, path.course.iter().any(|&(at, _)| at == point))
            })
            .enumerate()
        {
            watch.restore(before);
            let mut victim = (self.victim)();
            watch.look_for_pages();
            watch.has_changed();
            let mut changes = 0;
            for number in 1..=point {
                match step(&mut victim, watch, number) {
                    Step::Done { changed } => changes += usize::from(changed),
                    Step::Mark | Step::End => break,
                }
            }
            victim.kill();
            watch.look_for_pages();
            watch.has_changed();
            tally.kills += 1;
            let which = turn % self.hows.len();
            let found = survive(watch, None, self.check, self.hows[which]);
            match path.course.get(changes).map(|&(_, state)| &findings[which][state]) {
                Some(expected) if *expected == found => {}
                other => tally.fail(format!(
                    "{:?}, killed after instruction {point}, which was change {changes}: {found:?}; in the snapshot: {other:?}",
                    self.hows[which]
                )),
            }
        }
        if tally.kills == kills {
            tally.fail("nobody was killed for real".to_owned());
        }
    }
}

/// Checks that the findings come in the expected order, and that none is left out.
fn compare(
    expected: &[Found],
    findings: &[Result<String, String>],
    course: &[(u64, usize)],
) -> Result<(), String> {
    let mut at = 0;
    for (step, &(instruction, state)) in course.iter().enumerate() {
        let finding = match &findings[state] {
            Ok(finding) => finding,
            Err(reason) => return Err(format!("after instruction {instruction}: {reason}")),
        };
        if expected[at].text == *finding {
            continue;
        }
        let mut later = at + 1;
        while later < expected.len() && expected[later].optional && expected[later].text != *finding
        {
            later += 1;
        }
        let first_optional = step == 0 && expected[at].optional;
        if (step == 0 && !first_optional)
            || later >= expected.len()
            || expected[later].text != *finding
        {
            let mut text = format!(
                "after instruction {instruction}: found \"{finding}\", expected \"{}\"",
                expected[at].text
            );
            expected[at + 1..].iter().for_each(|finding| {
                let _ = write!(text, " then \"{}\"", finding.text);
            });
            return Err(text);
        }
        at = later;
    }
    match expected[at + 1..].iter().find(|finding| !finding.optional) {
        None => Ok(()),
        Some(missing) => Err(format!("\"{}\" was never found", missing.text)),
    }
}
