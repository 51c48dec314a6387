//! The parent's side: which worker holds which job, and what to do when one dies.
//!
//! # Peer death
//! A worker can die before it takes a job, after it took the job from the channel and before it
//! says so, in the middle of the job, or after it said `Done`. The parent need not know which: it
//! waits for a `Done` of every job. It sends a job again if the job's worker is dead. If no worker
//! has mentioned a job since one died, the job may be lost, so the parent sends it again once the
//! channel is empty. Copying an entry twice is harmless, because each copy gets its name by a
//! rename.

use crate::bar::Bar;
use crate::extended::Lost;
use crate::message::{Job, News, Note, Step, Trouble};
use crate::stop::Stop;
use crate::tree::{Entry, Tree};
use crate::worker::{self, Start, Tally};
use crate::{Order, Plan};
use offspring::{
    Builder, Child, Event, Failure, JoinError, Receiver, RecvTimeoutError, Sender, TrySendError,
};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the parent looks whether all workers live and the user is still willing.
const LOOK: Duration = Duration::from_millis(50);
/// Deaths after which a job is given up, lest a file that kills its reader hold up the rest.
const DEATHS_PER_JOB: u32 = 5;
/// Deaths in a row, with no job done between them, after which the run is given up.
const DEATHS_IN_A_ROW: u32 = 100;

/// How long the workers may take for the files that they are at when the disk is full.
const PARTING: Duration = Duration::from_millis(500);

/// How a run ended.
pub(crate) enum End {
    Finished,
    Stopped,
    /// The disk of the copy is full, as the copying of this was the first to find out.
    Full(PathBuf, Trouble),
}

/// How much was copied: whole files and their bytes.
#[derive(Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// What was not copied, or not with all that belongs to it.
pub(crate) struct Missing {
    pub(crate) folders: Vec<(u32, Trouble)>,
    pub(crate) entries: BTreeMap<u32, Trouble>,
    pub(crate) extended: BTreeMap<u32, Lost>,
}

/// A worker, living or dead.
struct Member {
    pid: u32,
    /// `None` when it is dead.
    child: Option<Child<Result<Tally, Failure>>>,
    /// The job it has spoken of last, unless that is done.
    holds: Option<u32>,
}

/// What is known of a job.
#[derive(Clone, Copy, Default)]
struct Account {
    done: bool,
    files: u32,
    bytes: u64,
    /// Bytes of the file that is being copied.
    part: u64,
    deaths: u32,
}

/// How a worker has ended.
fn flat(ended: Result<Result<Tally, Failure>, JoinError>) -> Result<Tally, Failure> {
    ended?
}

/// The workers and their jobs.
pub(crate) struct Crew {
    plan: Arc<Plan>,
    order: Order,
    tree: Arc<Tree>,
    /// Where jobs go in; `None` when there will be no more.
    jobs: Option<Sender<Job>>,
    notes: Receiver<Note>,
    /// The ends of the workers, for those that will be hired.
    theirs: (Receiver<Job>, Sender<Note>),
    /// Set when no worker shall begin with another entry.
    enough: Event,
    members: Vec<Member>,
    accounts: Vec<Account>,
    /// How many accounts are not done.
    undone: usize,
    /// How many of the tree's folders have been made, or could not be.
    folders: u32,
    missing: Missing,
    full: Option<(PathBuf, Trouble)>,
    /// Jobs not in the channel yet, or to be sent again.
    waiting: VecDeque<u32>,
    /// A worker died, so a job may be lost that nobody has spoken of.
    doubt: bool,
    deaths_in_a_row: u32,
    bar: Bar,
}

impl Crew {
    /// Makes the channels and starts the workers.
    pub(crate) fn new(
        plan: Arc<Plan>,
        order: Order,
        tree: Arc<Tree>,
        workers: usize,
    ) -> Result<Crew, Box<dyn Error>> {
        let count = tree.jobs.len();
        let (jobs, their_jobs) = offspring::channel(256)?;
        let (their_notes, notes) = offspring::channel(1024)?;
        let mut crew = Crew {
            jobs: Some(jobs),
            notes,
            theirs: (their_jobs, their_notes),
            enough: Event::new()?,
            members: Vec::new(),
            accounts: vec![Account::default(); count],
            undone: count,
            folders: 0,
            missing: Missing {
                folders: Vec::new(),
                entries: BTreeMap::new(),
                extended: BTreeMap::new(),
            },
            full: None,
            waiting: (0..count as u32).collect(),
            doubt: false,
            deaths_in_a_row: 0,
            bar: Bar::new(tree.entries.len() as u64, tree.bytes)?,
            plan,
            order,
            tree,
        };
        for _ in 0..workers.min(count) {
            crew.hire()?;
        }
        Ok(crew)
    }

    /// Has everything copied, and returns how much of it was. However this ends, no worker is left,
    /// nor any temporary file.
    pub(crate) fn run(&mut self, stop: &Stop) -> Result<(End, Copied), Box<dyn Error>> {
        let end = self.work_off(stop);
        match end {
            // The workers find no more jobs and return.
            Ok(End::Finished) => self.dismiss(),
            Ok(End::Full(..)) => {
                self.part();
                self.kill_all();
            }
            Ok(End::Stopped) | Err(_) => self.kill_all(),
        }
        for number in 0..self.members.len() {
            if let Some(child) = self.members[number].child.take()
                && let Err(how) = flat(child.join())
                && let Ok(End::Finished) = end
            {
                self.report_death(number, &how);
            }
        }
        self.hear_all();
        // What was done of the jobs of the dead is done, though nobody counts it any more once they
        // are settled.
        let copied = self.copied();
        self.settle_the_dead();
        self.bar.clear();
        Ok((end?, copied))
    }

    /// Sends jobs and reads notes until every job is done.
    fn work_off(&mut self, stop: &Stop) -> Result<End, Box<dyn Error>> {
        let mut next_look = Instant::now() + LOOK;
        while self.undone > 0 && self.full.is_none() {
            self.send_jobs()?;
            match self.notes.recv_timeout(LOOK) {
                Ok(note) => self.hear(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(error) => return Err(format!("the channel of notes: {error}").into()),
            }
            self.hear_all();
            if Instant::now() >= next_look {
                if stop.requested() {
                    return Ok(End::Stopped);
                }
                self.look_after_workers()?;
                self.show();
                next_look = Instant::now() + LOOK;
            }
        }
        // Those with nothing in them.
        self.make_folders(self.tree.folders.len() as u32);
        Ok(self.full.take().map_or(End::Finished, |(path, trouble)| End::Full(path, trouble)))
    }

    fn copied(&self) -> Copied {
        let sum = |of: fn(&Account) -> u64| self.accounts.iter().map(of).sum();
        Copied { files: sum(|account| account.files.into()), bytes: sum(|account| account.bytes) }
    }

    pub(crate) fn into_missing(self) -> Missing {
        self.missing
    }

    /// Starts one more worker.
    fn hire(&mut self) -> Result<(), Box<dyn Error>> {
        let number = self.members.len() as u32;
        let ((jobs, notes), enough) = (self.theirs.clone(), self.enough.clone());
        let start = Start { number, order: self.order.clone(), jobs, notes, enough };
        let child = Builder::new().name(format!("worker {number}")).spawn(worker::work, start)?;
        self.members.push(Member { pid: child.id(), child: Some(child), holds: None });
        Ok(())
    }

    /// Fills the channel with jobs, without ever waiting for room: the workers may be waiting for
    /// the parent to read notes.
    fn send_jobs(&mut self) -> Result<(), Box<dyn Error>> {
        let has_room = |jobs: &Sender<Job>| !jobs.is_full();
        while let Some(&number) = self.waiting.front()
            && self.jobs.as_ref().is_some_and(has_room)
        {
            // While a worker is at one job, the parent makes the folders for the next.
            let entries = self.tree.jobs[number as usize].clone();
            let folders = entries.map(|entry| self.tree.entries[entry as usize].folder + 1);
            self.make_folders(folders.max().unwrap_or(0));
            let Some(jobs) = self.jobs.as_ref().filter(|_| self.full.is_none()) else {
                break;
            };
            match jobs.try_send(self.tree.job(number)) {
                Ok(()) => self.waiting.pop_front(),
                Err(TrySendError::Full(_)) => break,
                Err(error) => return Err(format!("the channel of jobs: {error}").into()),
            };
        }
        Ok(())
    }

    /// Makes the folders up to a place in the list; those above a folder stand before it there.
    fn make_folders(&mut self, end: u32) {
        if self.folders < end && self.full.is_none() {
            let unmade = self.plan.target.make_folders(&self.tree, self.folders..end);
            self.folders = end;
            if let Some((folder, trouble)) = unmade.last().filter(|(_, trouble)| trouble.is_full())
            {
                self.full = Some((self.tree.path_of_folder(*folder), *trouble));
            }
            self.missing.folders.extend(unmade);
        }
    }

    /// Reads all notes that are there.
    fn hear_all(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.hear(note);
        }
    }

    fn hear(&mut self, note: Note) {
        let Note { worker, job, news } = note;
        let (Some(member), Some(account)) =
            (self.members.get_mut(worker as usize), self.accounts.get_mut(job as usize))
        else {
            return;
        };
        match news {
            News::Taken => member.holds = Some(job),
            News::SoFar { files, bytes, part } if !account.done => {
                *account = Account { files, bytes, part, ..*account }
            }
            News::Failed { entry, trouble } if !account.done => {
                let tree = &self.tree;
                if let Some(Entry { folder, name, .. }) = tree.entries.get(entry as usize)
                    && trouble.is_full()
                {
                    self.full.get_or_insert_with(|| (tree.path_of(*folder, name), trouble));
                }
                self.missing.entries.insert(entry, trouble);
            }
            News::Lost { entry, count, errno } if !account.done => {
                self.missing.extended.entry(entry).or_default().insert(errno, count);
            }
            News::Done { files, bytes } => {
                member.holds = None;
                self.deaths_in_a_row = 0;
                if !account.done {
                    *account = Account { done: true, files, bytes, part: 0, ..*account };
                    self.undone -= 1;
                }
            }
            // The second copy of a job that is done already.
            News::SoFar { .. } | News::Failed { .. } | News::Lost { .. } => {}
        }
    }

    /// Replaces the workers that died, and sends again what they had.
    fn look_after_workers(&mut self) -> Result<(), Box<dyn Error>> {
        let mut dead = 0;
        for number in 0..self.members.len() {
            let Some(ended) = self.members[number].child.as_mut().and_then(Child::try_join) else {
                continue;
            };
            self.members[number].child = None;
            match flat(ended) {
                Ok(_) => self.report_death(number, &"it returned before its time"),
                Err(how) => self.report_death(number, &how),
            }
            dead += 1;
        }
        // What the dead said last is in the channel.
        self.hear_all();
        self.settle_the_dead();
        if self.doubt && self.waiting.is_empty() && self.theirs.0.is_empty() {
            let held: Vec<u32> = self.members.iter().filter_map(|member| member.holds).collect();
            let unheard = (0u32..)
                .zip(&self.accounts)
                .filter(|(job, account)| !account.done && !held.contains(job));
            self.waiting = unheard.map(|(job, _)| job).collect();
            self.doubt = false;
        }
        self.doubt |= dead > 0;
        self.deaths_in_a_row += dead;
        if self.deaths_in_a_row > DEATHS_IN_A_ROW {
            return Err("worker after worker dies".into());
        }
        for _ in 0..dead {
            self.hire()?;
        }
        Ok(())
    }

    fn report_death(&self, number: usize, how: &dyn fmt::Display) {
        let pid = self.members[number].pid;
        self.bar.print(format_args!("copy_tree: worker {number} (process {pid}) died: {how}"));
    }

    /// Removes the temporary files of the dead and sends their jobs again. A dead worker's last
    /// note may come long after its death, when another sender is stopped in the midst of its own;
    /// so this looks at all of them each time.
    fn settle_the_dead(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.child.is_none()) {
            // A worker makes no temporary file outside the job that it spoke of.
            let Some(job) = member.holds.take() else {
                continue;
            };
            let entries = self.tree.jobs[job as usize].clone();
            self.plan.target.clear_up_after(member.pid, &self.tree, entries.clone());
            let account = &mut self.accounts[job as usize];
            if account.done {
                continue;
            }
            self.missing.extended.retain(|entry, _| !entries.contains(entry));
            let deaths = account.deaths + 1;
            *account = Account { deaths, done: deaths == DEATHS_PER_JOB, ..Account::default() };
            if account.done {
                self.undone -= 1;
                let trouble = Trouble { step: Step::Workers, errno: 0 };
                self.missing.entries.extend(entries.map(|entry| (entry, trouble)));
            } else {
                self.missing.entries.retain(|entry, _| !entries.contains(entry));
                self.waiting.push_front(job);
            }
        }
    }

    /// Tells the workers to return.
    fn dismiss(&mut self) {
        self.jobs = None;
        // Fails only if the event cannot be used, and then the workers end by themselves.
        let _ = self.enough.set();
    }

    /// Lets the workers bring the files that they are at to an end, so that they can still say how
    /// far they have come.
    fn part(&mut self) {
        self.dismiss();
        let until = Instant::now() + PARTING;
        while self.members.iter().any(|member| member.child.is_some()) && Instant::now() < until {
            if let Ok(note) = self.notes.recv_timeout(Duration::from_millis(1)) {
                self.hear(note);
            }
            for member in &mut self.members {
                if member.child.as_mut().is_some_and(|child| child.try_join().is_some()) {
                    member.child = None;
                }
            }
        }
    }

    fn kill_all(&self) {
        for child in self.members.iter().filter_map(|member| member.child.as_ref()) {
            // Fails only when it is dead already.
            let _ = child.kill();
        }
    }

    fn show(&self) {
        let Copied { files, bytes } = self.copied();
        let parts: u64 = self.accounts.iter().map(|account| account.part).sum();
        self.bar.show(files, bytes + parts);
    }
}
