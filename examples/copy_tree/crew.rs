//! The parent's side: which worker holds which job, and what to do when one dies.
//!
//! # Peer death
//! A worker can die before it takes a job, after it took it from the queue and before it says so, in the middle of it, and
//! after it said `Done`. The parent need not know which: what counts is that every job's `Done` comes. A job whose worker
//! is dead is sent again. A job that nobody has spoken of since a worker died may have died with it; when the queue is
//! empty it is sent again too. Copying an entry twice is harmless, as each copy comes under its name by a rename.

use crate::Plan;
use crate::message::{Job, News, Note, Step, Trouble};
use crate::stop::Stop;
use crate::worker::{self, Tally};
use indicatif::{ProgressBar, ProgressStyle};
use offspring::{Child, Queue, RecvTimeoutError, TrySendError};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the parent looks whether all workers live and the user is still willing.
const LOOK: Duration = Duration::from_millis(50);
/// Deaths after which a job is given up, lest a file that kills its reader hold up the rest.
const DEATHS_PER_JOB: u32 = 5;
/// Deaths in a row, with no job done between them, after which the run is given up.
const DEATHS_IN_A_ROW: u32 = 100;

/// How a run ended.
pub(crate) enum End {
    Finished,
    Stopped,
}

/// A worker, living or dead.
struct Member {
    pid: u32,
    /// `None` when it is dead.
    child: Option<Child<Tally>>,
    /// The job it has spoken of last, unless that is done.
    holds: Option<u32>,
}

/// What is known of a job.
#[derive(Clone, Copy, Default)]
struct Account {
    done: bool,
    files: u32,
    bytes: u64,
    deaths: u32,
}

/// The workers and their jobs.
pub(crate) struct Crew {
    plan: Arc<Plan>,
    jobs: Queue<Job>,
    notes: Queue<Note>,
    members: Vec<Member>,
    accounts: Vec<Account>,
    /// How many accounts are not done.
    undone: usize,
    /// How many of the tree's folders have been made, or could not be.
    folders: u32,
    unmade: Vec<(u32, Errno)>,
    /// Jobs not in the queue yet, or to be sent again.
    waiting: VecDeque<u32>,
    failed: BTreeMap<u32, Trouble>,
    /// A worker died, so a job may be lost that nobody has spoken of.
    doubt: bool,
    deaths_in_a_row: u32,
    bar: ProgressBar,
}

impl Crew {
    /// Makes the queues and forks the workers.
    pub(crate) fn new(plan: Arc<Plan>, workers: usize) -> Result<Crew, Box<dyn Error>> {
        let count = plan.tree.jobs.len();
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}")?;
        let mut crew = Crew {
            jobs: Queue::with_capacity(256)?,
            notes: Queue::with_capacity(1024)?,
            members: Vec::new(),
            accounts: vec![Account::default(); count],
            undone: count,
            folders: 0,
            unmade: Vec::new(),
            waiting: (0..count as u32).collect(),
            failed: BTreeMap::new(),
            doubt: false,
            deaths_in_a_row: 0,
            bar: ProgressBar::new(plan.tree.bytes).with_style(style),
            plan,
        };
        for _ in 0..workers.min(count) {
            crew.hire()?;
        }
        Ok(crew)
    }

    /// Has everything copied. However this ends, no worker is left, nor any temporary file.
    pub(crate) fn run(&mut self, stop: &Stop) -> Result<End, Box<dyn Error>> {
        let end = self.work_off(stop);
        if let Ok(End::Finished) = end {
            // The workers find no more jobs and return.
            self.jobs.close();
            self.make_folders(self.plan.tree.folders.len() as u32);
        } else {
            self.kill_all();
        }
        for number in 0..self.members.len() {
            if let Some(child) = self.members[number].child.take()
                && let Err(how) = child.join()
                && let Ok(End::Finished) = end
            {
                self.report_death(number, &how);
            }
        }
        self.hear_all();
        self.settle_the_dead();
        self.bar.finish_and_clear();
        end
    }

    /// Sends jobs and reads notes until every job is done.
    fn work_off(&mut self, stop: &Stop) -> Result<End, Box<dyn Error>> {
        let mut next_look = Instant::now() + LOOK;
        while self.undone > 0 {
            self.send_jobs()?;
            match self.notes.recv_timeout(LOOK) {
                Ok(note) => self.hear(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(error) => return Err(format!("the queue of notes: {error}").into()),
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
        Ok(End::Finished)
    }

    /// Returns files and bytes copied so far.
    pub(crate) fn copied(&self) -> (u64, u64) {
        self.accounts.iter().fold((0, 0), |(files, bytes), account| (files + u64::from(account.files), bytes + account.bytes))
    }

    /// Returns the folders that could not be made, and the entries that could not be copied.
    pub(crate) fn into_failures(self) -> (Vec<(u32, Errno)>, BTreeMap<u32, Trouble>) {
        (self.unmade, self.failed)
    }

    /// Forks one more worker. This process has a single thread, so it may.
    fn hire(&mut self) -> Result<(), Box<dyn Error>> {
        let number = self.members.len() as u32;
        let (plan, jobs, notes) = (Arc::clone(&self.plan), self.jobs.clone(), self.notes.clone());
        let child = offspring::fork(move || worker::work(number, &plan, &jobs, &notes))?;
        self.members.push(Member { pid: child.id(), child: Some(child), holds: None });
        Ok(())
    }

    /// Fills the queue with jobs, without ever waiting for room: the workers may be waiting for the parent to read notes.
    fn send_jobs(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(&index) = self.waiting.front() {
            // While a worker is at one job, the parent makes the folders for the next.
            let entries = self.plan.tree.jobs[index as usize].clone();
            let folders = entries.map(|entry| self.plan.tree.entries[entry as usize].folder + 1);
            self.make_folders(folders.max().unwrap_or(0));
            match self.jobs.try_send(Job { index }) {
                Ok(()) => self.waiting.pop_front(),
                Err(TrySendError::Full(_)) => break,
                Err(error) => return Err(format!("the queue of jobs: {error}").into()),
            };
        }
        Ok(())
    }

    /// Makes the folders up to a place in the list; those above a folder stand before it there.
    fn make_folders(&mut self, end: u32) {
        if self.folders < end {
            self.unmade.extend(self.plan.target.make_folders(&self.plan.tree, self.folders..end));
            self.folders = end;
        }
    }

    /// Reads all notes that are there.
    fn hear_all(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.hear(note);
        }
    }

    fn hear(&mut self, note: Note) {
        let Note { worker, job, .. } = note;
        let (Some(member), Some(account)) = (self.members.get_mut(worker as usize), self.accounts.get_mut(job as usize)) else {
            return;
        };
        match note.news() {
            Some(News::Taken) => member.holds = Some(job),
            Some(News::SoFar { files, bytes }) if !account.done => (account.files, account.bytes) = (files, bytes),
            Some(News::Failed { entry, trouble }) if !account.done => {
                self.failed.insert(entry, trouble);
            }
            Some(News::Done { files, bytes }) => {
                member.holds = None;
                self.deaths_in_a_row = 0;
                if !account.done {
                    *account = Account { done: true, files, bytes, ..*account };
                    self.undone -= 1;
                }
            }
            // The second copy of a job that is done already, or a note that no worker of ours wrote.
            Some(News::SoFar { .. } | News::Failed { .. }) | None => {}
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
            match ended {
                Ok(_) => self.report_death(number, &"it returned before its time"),
                Err(how) => self.report_death(number, &how),
            }
            dead += 1;
        }
        // What the dead said last is in the queue.
        self.hear_all();
        self.settle_the_dead();
        if self.doubt && self.waiting.is_empty() && self.jobs.is_empty() {
            let held: Vec<u32> = self.members.iter().filter_map(|member| member.holds).collect();
            let unheard = (0u32..).zip(&self.accounts).filter(|(job, account)| !account.done && !held.contains(job));
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
        self.bar.suspend(|| eprintln!("copy_tree: worker {number} (process {pid}) died: {how}"));
    }

    /// Removes the temporary files of the dead and sends their jobs again. A dead worker's last note may come long after
    /// its death, when another sender is stopped in the midst of its own; so this looks at all of them each time.
    fn settle_the_dead(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.child.is_none()) {
            // A worker makes no temporary file outside the job that it spoke of.
            let Some(job) = member.holds.take() else {
                continue;
            };
            let entries = self.plan.tree.jobs[job as usize].clone();
            self.plan.target.clear_up_after(member.pid, &self.plan.tree, entries.clone());
            let account = &mut self.accounts[job as usize];
            if account.done {
                continue;
            }
            let deaths = account.deaths + 1;
            *account = Account { deaths, done: deaths == DEATHS_PER_JOB, ..Account::default() };
            if account.done {
                self.undone -= 1;
                let trouble = Trouble { step: Step::Workers, errno: 0 };
                self.failed.extend(entries.map(|entry| (entry, trouble)));
            } else {
                self.failed.retain(|entry, _| !entries.contains(entry));
                self.waiting.push_front(job);
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
        let (files, bytes) = self.copied();
        self.bar.set_message(format!("{files}/{} files", self.plan.tree.entries.len()));
        self.bar.set_position(bytes);
    }
}
