//! The supervisor of a round: it replaces workers that die, and kills, stops and watches.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use offspring::{Child, JoinError};

use crate::account::Account;
use crate::arena::{Arena, Object, Part, Station};
use crate::fate::Fate;
use crate::fork::fork;
use crate::ledger::{ROWS, now};
use crate::post::{self, Post};
use crate::random::Random;
use crate::{
    carry_work, channel_work, churn_work, event_work, fork_work, lock_work, message_work,
    queue_work, ring_work, value_work,
};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
/// Without progress for so long, and nobody stopped: hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// At the end everything left must be received within this time.
const LAST_PATIENCE: Duration = Duration::from_secs(20);
/// At a time.
const MOST_STOPPED: usize = 2;

struct Worker {
    child: Child<()>,
    station: Station,
    row: usize,
    fate: Fate,
    /// Until when it is stopped.
    stopped: Option<Instant>,
    progress: u64,
    idle: Duration,
}

/// A round under way.
pub struct Crew<'a> {
    arena: Arc<Arena>,
    random: &'a mut Random,
    workers: Vec<Worker>,
    /// Killed, and not joined yet: until then only the survivors can find out.
    corpses: Vec<(Worker, Instant)>,
    rows: usize,
    last_look: Instant,
    pub account: Account,
    pub complaints: Vec<String>,
}

impl<'a> Crew<'a> {
    pub fn new(
        arena: Arc<Arena>,
        stations: &[Station],
        random: &'a mut Random,
    ) -> Result<Crew<'a>, Box<dyn Error>> {
        let mut crew = Crew {
            arena,
            random,
            workers: Vec::new(),
            corpses: Vec::new(),
            rows: 0,
            last_look: Instant::now(),
            account: Account::default(),
            complaints: Vec::new(),
        };
        for &station in stations {
            let worker = crew.hire(station, Fate::Signal)?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    fn hire(&mut self, station: Station, fate: Fate) -> Result<Worker, Box<dyn Error>> {
        let row = self.rows;
        self.rows += 1;
        let mut post =
            Post::new(Arc::clone(&self.arena), station.object, row, self.random.next(), fate);
        let (mut producer, mut consumer) = (None, None);
        if station.object == Object::Ring {
            // The first ones inherit the ends; those who come later take the places of the dead.
            let mut ends =
                self.arena.ring_ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match station.part {
                Part::Sender => producer = ends.producer.take(),
                _ => consumer = ends.consumer.take(),
            }
        }
        let work = move || {
            let (arena, sends) = (Arc::clone(&post.arena), station.part == Part::Sender);
            match station.object {
                Object::Drop if sends => queue_work::send(&mut post, &arena.dropping),
                Object::Drop => queue_work::receive(&mut post, &arena.dropping),
                Object::Redeliver if sends => queue_work::send(&mut post, &arena.redelivering),
                Object::Redeliver => queue_work::receive(&mut post, &arena.redelivering),
                Object::File => {
                    let queue = queue_work::open_file(&mut post);
                    if sends {
                        queue_work::send(&mut post, &queue)
                    } else {
                        queue_work::receive(&mut post, &queue)
                    }
                }
                Object::Bytes if sends => message_work::send_bytes(&mut post),
                Object::Bytes => message_work::receive_bytes(&mut post),
                Object::Letters if sends => message_work::send_letters(&mut post),
                Object::Letters => message_work::receive_letters(&mut post),
                Object::Packages if sends => carry_work::send_packages(&mut post),
                Object::Packages => carry_work::receive_packages(&mut post),
                Object::Parcels if sends => carry_work::send_parcels(&mut post),
                Object::Parcels => carry_work::receive_parcels(&mut post),
                Object::Ring if sends => ring_work::send(&mut post, producer),
                Object::Ring => ring_work::receive(&mut post, consumer),
                Object::Lock => lock_work::work(&mut post),
                Object::Value => value_work::work(&mut post),
                Object::Event => event_work::work(&mut post),
                Object::Channel => channel_work::work(&mut post),
                Object::Churn => churn_work::work(&mut post),
                Object::Fork => fork_work::work(&mut post),
            }
        };
        let child = fork(work)?;
        Ok(Worker { child, station, row, fate, stopped: None, progress: 0, idle: Duration::ZERO })
    }

    /// Whether another process can be hired in this round.
    pub fn has_rows(&self) -> bool {
        self.rows < ROWS
    }

    /// A random time up to `most`, before the next thing happens.
    pub fn rest(&mut self, most: u64) -> u64 {
        self.random.below(most)
    }

    /// Operations of the object up to now.
    pub fn operations(&self, object: Object) -> u64 {
        let rows = self.workers.iter().chain(self.corpses.iter().map(|(worker, _)| worker));
        let living = rows
            .filter(|worker| worker.station.object == object)
            .map(|worker| self.progress(worker));
        living.sum::<u64>() + self.account[object as usize].operations
    }

    fn progress(&self, worker: &Worker) -> u64 {
        self.arena.ledger.rows[worker.row].progress.load(Ordering::Relaxed)
    }

    /// One thing happens: somebody is killed or stopped, or nobody.
    pub fn disturb(&mut self) -> Result<(), Box<dyn Error>> {
        let victim = self.random.below(self.workers.len() as u64) as usize;
        match self.random.below(32) {
            0..28 if self.may_die(victim) => self.kill(victim)?,
            28 if self.workers[victim].stopped.is_none() => self.stop(victim)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether it does not kill itself.
    fn may_die(&self, victim: usize) -> bool {
        self.workers[victim].fate == Fate::Signal
    }

    fn kill(&mut self, victim: usize) -> Result<(), Box<dyn Error>> {
        let station = self.workers[victim].station;
        self.arena.ledger.tally(station.object).note_kill();
        self.workers[victim].child.kill()?;
        let fate = Fate::draw(station.object, self.random);
        let successor = self.hire(station, fate)?;
        let mut corpse = std::mem::replace(&mut self.workers[victim], successor);
        forget_stop(&self.arena, &mut corpse);
        // Joining clears up after the dead. Mostly the survivors are to find out by themselves
        // before.
        let rest = Duration::from_millis(self.random.below(150));
        self.corpses.push((corpse, Instant::now() + rest));
        self.account[station.object as usize].kills += 1;
        Ok(())
    }

    fn stop(&mut self, victim: usize) -> Result<(), Box<dyn Error>> {
        if self.workers.iter().filter(|worker| worker.stopped.is_some()).count() >= MOST_STOPPED {
            return Ok(());
        }
        let time = Duration::from_millis(1 << self.random.below(11));
        let worker = &mut self.workers[victim];
        self.arena.ledger.stopped.fetch_add(1, Ordering::SeqCst);
        worker.child.signal(SIGSTOP)?;
        worker.stopped = Some(Instant::now() + time.min(Duration::from_secs(1)));
        self.account[worker.station.object as usize].stops += 1;
        Ok(())
    }

    /// Lets the stopped go on, joins the dead, replaces those who ended by themselves, and looks
    /// who makes no progress.
    pub fn look_after(&mut self) -> Result<(), Box<dyn Error>> {
        let now = Instant::now();
        self.let_go_on(|until| until <= now)?;
        let (due, waiting) =
            std::mem::take(&mut self.corpses).into_iter().partition(|&(_, at)| at <= now);
        self.corpses = waiting;
        due.into_iter().for_each(|(corpse, _): (Worker, Instant)| self.end(corpse, false));
        self.replace_dead(|_| true)?;
        self.watch();
        Ok(())
    }

    /// Replaces those who ran into a limit.
    fn replace_dead(&mut self, which: impl Fn(&Worker) -> bool) -> Result<(), Box<dyn Error>> {
        for index in 0..self.workers.len() {
            if which(&self.workers[index]) && !self.workers[index].child.is_alive() {
                let successor = self.hire(self.workers[index].station, Fate::Signal)?;
                let dead = std::mem::replace(&mut self.workers[index], successor);
                self.end(dead, false);
            }
        }
        Ok(())
    }

    fn let_go_on(&mut self, due: impl Fn(Instant) -> bool) -> Result<(), Box<dyn Error>> {
        for worker in self.workers.iter_mut().filter(|worker| worker.stopped.is_some_and(&due)) {
            worker.child.signal(SIGCONT)?;
            forget_stop(&self.arena, worker);
        }
        Ok(())
    }

    /// Counts those who make no progress although nobody is stopped.
    fn watch(&mut self) {
        let passed = self.last_look.elapsed();
        self.last_look = Instant::now();
        let anybody_stopped = self.workers.iter().any(|worker| worker.stopped.is_some());
        for index in 0..self.workers.len() {
            let progress = self.progress(&self.workers[index]);
            let worker = &mut self.workers[index];
            if progress != worker.progress {
                (worker.progress, worker.idle) = (progress, Duration::ZERO);
            } else if !anybody_stopped {
                // Not more than a breath for each look, or a machine that stood still would be
                // taken for hung processes.
                worker.idle += passed.min(Duration::from_millis(100));
            }
            if worker.idle >= PATIENCE {
                worker.idle = Duration::ZERO;
                self.complain_hung(index);
            }
        }
    }

    fn complain_hung(&mut self, index: usize) {
        let (station, row) = (self.workers[index].station, self.workers[index].row);
        let doing = post::name(self.arena.ledger.rows[row].doing.load(Ordering::Relaxed));
        self.account[station.object as usize].hung += 1;
        let id = self.workers[index].child.id();
        self.complaints.push(format!(
            "hung at {}, {:?}, in {doing}: process {id}",
            station.object.name(),
            station.part
        ));
    }

    /// Joins a worker that is dead or about to be, and takes over its notes.
    fn end(&mut self, worker: Worker, at_the_end: bool) {
        let Worker { child, station, row, fate, .. } = worker;
        let result = child.join();
        let row = &self.arena.ledger.rows[row];
        let figures = &mut self.account[station.object as usize];
        figures.operations += row.progress.load(Ordering::Relaxed);
        match (&result, fate) {
            (Ok(()), _) if at_the_end => return,
            (Err(JoinError::Killed(_)), Fate::Memory | Fate::Time) => figures.limits += 1,
            (Err(JoinError::Killed(9)), Fate::Signal) => {}
            _ => {
                figures.failed += 1;
                let how = result.map_or_else(
                    |error| error.to_string(),
                    |()| "it returned too early".to_owned(),
                );
                self.complaints.push(format!(
                    "failed at {}, {:?}: {how}",
                    station.object.name(),
                    station.part
                ));
            }
        }
        // One that returned has noted everything.
        self.account[station.object as usize].in_hand += row.in_hand.load(Ordering::Relaxed);
    }

    /// The end of the round: senders come to an end, receivers get what is left, and everybody is
    /// joined.
    pub fn finish(mut self) -> Result<(Account, Vec<String>), Box<dyn Error>> {
        self.let_go_on(|_| true)?;
        for (corpse, _) in std::mem::take(&mut self.corpses) {
            self.end(corpse, false);
        }
        self.arena.ledger.stop.store(1, Ordering::Release);
        self.await_all(|worker| worker.station.part != Part::Receiver)?;
        self.arena.ledger.stop.store(2, Ordering::Release);
        self.arena.close();
        self.await_all(|_| true)?;
        queue_work::drain(&self.arena);
        message_work::drain(&self.arena);
        carry_work::drain(&self.arena);
        crate::account::close(&self.arena, &mut self.account);
        Ok((self.account, self.complaints))
    }

    fn await_all(&mut self, which: impl Fn(&Worker) -> bool) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + LAST_PATIENCE;
        while let Some(index) = self.workers.iter().position(&which) {
            // Senders need somebody who receives, and a limit may end that one even now.
            self.replace_dead(|worker| !which(worker))?;
            if self.workers[index].child.is_alive() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            if self.workers[index].child.is_alive() {
                self.complain_hung(index);
                self.workers[index].child.kill()?;
                let worker = self.workers.swap_remove(index);
                drop(worker.child.join());
                continue;
            }
            let worker = self.workers.swap_remove(index);
            self.end(worker, true);
        }
        Ok(())
    }
}

fn forget_stop(arena: &Arena, worker: &mut Worker) {
    if worker.stopped.take().is_some() {
        arena.ledger.went_on_at.store(now(), Ordering::SeqCst);
        arena.ledger.stopped.fetch_sub(1, Ordering::SeqCst);
    }
}
