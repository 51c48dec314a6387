//! One play of a scene, and what came of it.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::sys::wait::WaitStatus;
use offspring::Segment;

use crate::common::descriptors;
use crate::common::trace::{alarm, let_trace, mark, raw_fork};
use crate::scenes::{KILLED, Ready, SCENES, Scene};
use crate::tracer::{Place, Seen, Who, follow};

/// Seconds after which a play is taken for hanging. No promise on time, a watchdog.
const HANGING: u32 = 60;

/// One play.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub scene: usize,
    pub place: Option<Place>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Played {
    pub stops: [usize; 3],
    pub loading: [usize; 3],
    pub killed: bool,
    pub in_place: bool,
    /// What the parent said; empty if it was killed.
    pub said: String,
    /// What is wrong; empty if nothing is.
    pub failure: String,
}

/// A process that plays scenes one after the other, and has the segment open all the while.
pub struct Stage<'a> {
    folder: &'a Path,
    segment: Segment,
    descriptors: usize,
}

impl Stage<'_> {
    /// `folder` is this stage's own, and the working folder.
    pub fn new(folder: &Path) -> Stage<'_> {
        extern "C" fn interrupt(_: i32) {}
        crate::common::processes::adopt_orphans();
        std::env::set_current_dir(folder).expect("it is there");
        let action =
            SigAction::new(SigHandler::Handler(interrupt), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing; it has waitpid return.
        unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
        let segment = Segment::create_file(folder.join("segment"), 1 << 20).expect("a segment");
        segment.reap().expect("attached");
        Stage { folder, segment, descriptors: descriptors().len() }
    }

    pub fn play(&self, job: Job) -> Played {
        let scene = &SCENES[job.scene];
        let (mut answer, mut tell) = std::io::pipe().expect("a pipe");
        let parent = raw_fork(|| {
            std::panic::set_hook(Box::new(|_| ()));
            let_trace();
            raise(Signal::SIGSTOP).expect("raise");
            let said = catch_unwind(AssertUnwindSafe(|| live(scene, &self.segment)));
            let said = said.unwrap_or_else(|panic| format!("panicked: {}", reason(&*panic)));
            tell.write_all(said.as_bytes()).expect("somebody listens");
            mark();
            std::process::exit(0);
        });
        drop(tell);
        alarm(HANGING);
        let seen = follow(parent, job.place, scene.has_zygote());
        alarm(0);
        let mut said = String::new();
        answer.read_to_string(&mut said).expect("text");
        drop(answer);
        // Also clears up, for the next play.
        let left = self.has_nothing_left();
        let failure = judge(scene, job.place, &seen, &said).and(left).err().unwrap_or_default();
        let Seen { stops, loading, killed, in_place, .. } = seen;
        Played { stops, loading, killed, in_place, said, failure }
    }

    /// Whether everything is as before the play, by the word of one who was there all the while.
    fn has_nothing_left(&self) -> Result<(), String> {
        self.segment.reap().expect("attached");
        let stats = self.segment.stats().expect("attached");
        if (stats.in_use.blocks, stats.cached.blocks, stats.peers.len()) != (0, 0, 1) {
            return Err(format!("left in the segment: {stats}"));
        }
        let files = std::fs::read_dir(self.folder).expect("it is there");
        let files: Vec<_> = files.map(|entry| entry.expect("readable").file_name()).collect();
        if files != ["segment"] {
            return Err(format!("left in the folder: {files:?}"));
        }
        let now = descriptors();
        if now.len() != self.descriptors {
            return Err(format!("left open: {now:?}"));
        }
        Ok(())
    }
}

/// The life of a parent.
fn live(scene: &'static Scene, segment: &Segment) -> String {
    let ready = Ready::new(scene, segment);
    mark();
    let played = catch_unwind(AssertUnwindSafe(|| ready.play()));
    mark();
    match played {
        Ok((said, afterwards)) => match catch_unwind(AssertUnwindSafe(|| afterwards.check())) {
            Ok(()) => said,
            Err(panic) => format!("{said}, but then: {}", reason(&*panic)),
        },
        Err(panic) => format!("panicked: {}", reason(&*panic)),
    }
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "something".to_owned(),
    }
}

fn judge(scene: &Scene, place: Option<Place>, seen: &Seen, said: &str) -> Result<(), String> {
    if !seen.hanging.is_empty() {
        return Err(format!("HUNG after {said:?}: {:?}", seen.hanging));
    }
    let who = place.map(|place| place.who).filter(|_| seen.killed);
    let wrong = || Err(format!("said {said:?}, ended by {:?}", seen.ended));
    match (who, seen.ended) {
        // It may have said something before.
        (Some(Who::Parent), Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))) => {
            if said.is_empty() || said == scene.found { Ok(()) } else { wrong() }
        }
        (None | Some(Who::Zygote | Who::Child), Some(WaitStatus::Exited(_, 0))) => {
            let may_be_killed = who == Some(Who::Child) && said == KILLED;
            if said == scene.found || may_be_killed { Ok(()) } else { wrong() }
        }
        _ => wrong(),
    }
}
