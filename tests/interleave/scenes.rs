//! Who runs against whom, and what must hold afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use offspring::{
    ByteQueue, Event, Fault, Handle, Lock, LockError, LockState, OnReceiverDeath, Queue,
    QueueOptions, RecvError, Segment, ShmBox, TryLockError, TryRecvError, Value, Wait,
    WaitTimeoutError,
};

use crate::common::fd::SegmentFd;
use crate::common::room::room;
use crate::common::trace::{Errand, Tracee, mark};
use crate::common::watch::Watch;
use crate::notebook::{LIVES, Life, Notebook};
use crate::world::{Chronicle, Dice, Happening, Probe, World, small_segment};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub chronicle: Chronicle,
    /// Messages received, increments made, objects made.
    pub done: u64,
    /// Messages that a receiver was killed with.
    pub lost: u64,
    /// Messages delivered again; owners' deaths that successors were told.
    pub again: u64,
}

/// A scene, and what its runs must have in them to show anything.
pub struct Scene {
    pub name: &'static str,
    play: fn(Dice) -> Result<Outcome, String>,
    /// Rounds that are always played, and without optimisation no others: one with kills, which is
    /// repeated, one without, and some in which what `shows` says comes about.
    pub chosen: &'static [u64],
    /// Whether somebody sleeps in it.
    pub sleeps: bool,
    /// Of many runs one at least has this, and what is missing if none has.
    pub shows: Option<Shows>,
}

/// A figure of an outcome that is not 0, and what is missing if it is.
pub type Shows = (fn(&Outcome) -> u64, &'static str);

/// A scene's place in the list is part of its seeds, so new ones go to the end.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "queue, Drop",
        play: |dice| queue(dice, OnReceiverDeath::Drop),
        chosen: &[2, 13],
        sleeps: true,
        shows: Some((|outcome| outcome.lost, "no message went with a receiver")),
    },
    Scene {
        name: "queue, Redeliver",
        play: |dice| queue(dice, OnReceiverDeath::Redeliver),
        chosen: &[8, 11],
        sleeps: true,
        shows: Some((|outcome| outcome.again, "no message was delivered again")),
    },
    Scene {
        name: "lock",
        play: lock,
        chosen: &[1, 7],
        sleeps: true,
        shows: Some((|outcome| outcome.again, "no death of an owner was told")),
    },
    Scene { name: "heap", play: heap, chosen: &[0, 6], sleeps: false, shows: None },
    Scene { name: "value", play: value, chosen: &[0, 9], sleeps: true, shows: None },
    Scene { name: "event", play: event, chosen: &[0, 2], sleeps: true, shows: None },
    Scene { name: "messages", play: messages, chosen: &[4, 3], sleeps: false, shows: None },
    Scene { name: "boxes", play: boxes, chosen: &[3, 4], sleeps: false, shows: None },
];

/// Seeds are numbered by scene in their last two digits, so that a new scene leaves the seeds of
/// the others what they are.
const PLACES: u64 = 100;

/// The seed of a round of the scene at this place.
pub fn seed(place: usize, round: u64) -> u64 {
    round * PLACES + place as u64
}

/// The place of the scene that the seed plays, if there is one.
pub fn place(seed: u64) -> Option<usize> {
    Some((seed % PLACES) as usize).filter(|&place| place < SCENES.len())
}

/// The scene that the seed plays.
pub fn scene(seed: u64) -> &'static Scene {
    &SCENES[place(seed).expect("the last two digits name a scene")]
}

/// Plays what the seed says.
pub fn play(seed: u64) -> Result<Outcome, String> {
    (scene(seed).play)(Dice::new(seed))
}

/// Somebody who clears up after the dead, in every fourth run.
const REAPER: usize = LIVES - 1;

fn reaper(segment: &Segment, attach: impl FnOnce()) -> Tracee {
    Tracee::start(|| {
        attach();
        mark();
        segment.reap().expect("attached");
        mark();
    })
}

type Message = [u64; 3];

fn sealed(number: u64) -> Message {
    [number, !number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)]
}

const RECEIVES: u64 = 1;
const SENDS: u64 = 2;
/// Words of a life: what it does, how many it was to send and has sent, whether it was killed, and
/// how many messages it has begun to release.
const ROLE: usize = 0;
const QUOTA: usize = 1;
const SENT: usize = 2;
const KILLED: usize = 3;
const RELEASES: usize = 4;
/// Bits of a note about a message.
const FLAGGED_BIT: u64 = 1 << 40;
const RELEASED_BIT: u64 = 1 << 41;
const NUMBER_MASK: u64 = (1 << 40) - 1;

fn send_all(queue: &Queue<Message>, index: usize, life: &Life) {
    for sequence in 0..life.get(QUOTA) {
        let message = sealed((index as u64) << 16 | sequence);
        match sequence % 4 {
            1 => {
                let mut slot = queue.reserve().expect("open");
                slot.write(message);
                slot.commit();
            }
            2 => {
                drop(queue.reserve().expect("open"));
                queue.send(message).expect("open");
            }
            _ => queue.send(message).expect("open"),
        }
        life.set(SENT, sequence + 1);
    }
}

fn receive_all(queue: &Queue<Message>, life: &Life) {
    loop {
        match queue.recv_ref() {
            Ok(message) => {
                assert_eq!(*message, sealed(message[0]), "torn");
                let note = message[0] | if message.redelivered() { FLAGGED_BIT } else { 0 };
                life.note(note);
                life.count(RELEASES);
                drop(message);
                life.correct(note | RELEASED_BIT);
            }
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Two senders and two receivers; who is killed gets a successor.
fn queue(mut dice: Dice, policy: OnReceiverDeath) -> Result<Outcome, String> {
    let segment = small_segment();
    let capacity = 1 + dice.below(4) as usize;
    let queue = QueueOptions::new()
        .capacity(capacity)
        .on_receiver_death(policy)
        .wait(Wait::Sleep)
        .create_in::<Message>(&segment);
    let queue = queue.expect("a queue");
    for _ in 0..dice.below(4) {
        queue.try_send(sealed(0)).expect("room");
        queue.try_recv().expect("a message");
    }
    let notebook = Notebook::new();
    let mut used = 0;
    let mut start = |role: u64, quota: u64| {
        let index = used;
        used += 1;
        let life = &notebook.lives[index];
        life.set(ROLE, role);
        life.set(QUOTA, quota);
        let tracee = Tracee::start(|| {
            std::hint::black_box(queue.len());
            mark();
            if role == SENDS {
                send_all(&queue, index, life)
            } else {
                receive_all(&queue, life)
            }
            mark();
        });
        (index, tracee)
    };
    let watch = Watch::new(segment.as_fd());
    let with_reaper = dice.once_in(4);
    let mut world = World::new(&watch, dice, None);
    for role in [SENDS, RECEIVES, SENDS, RECEIVES] {
        let (index, tracee) = start(role, 6);
        world.enter(index, tracee);
    }
    if with_reaper {
        world.enter(REAPER, reaper(&segment, || _ = std::hint::black_box(queue.len())));
    }
    let mut senders = 2;
    while let Some(event) = world.go_on()? {
        match event {
            Happening::Killed(REAPER, _) | Happening::Done(REAPER) => {}
            Happening::Killed(index, _) => {
                let life = &notebook.lives[index];
                life.set(KILLED, 1);
                let (index, tracee) = start(life.get(ROLE), life.get(QUOTA) - life.get(SENT));
                world.enter(index, tracee);
            }
            Happening::Done(index) if notebook.lives[index].get(ROLE) == SENDS => {
                senders -= 1;
                if senders == 0 {
                    queue.close();
                    world.wake_all();
                }
            }
            Happening::Done(_) => {}
        }
    }
    let chronicle = world.end();
    segment.reap().map_err(|fault| fault.to_string())?;
    let left = queue.try_recv();
    if left != Err(TryRecvError::Closed) {
        return Err(format!("everybody has received all there was, and then there is {left:?}"));
    }
    account(notebook, used, policy, queue.lost(), chronicle)
}

/// Checks what was received against what was sent.
fn account(
    notebook: &Notebook,
    used: usize,
    policy: OnReceiverDeath,
    lost: u64,
    chronicle: Chronicle,
) -> Result<Outcome, String> {
    let lives = &notebook.lives[..used];
    let mut received: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    // Receivers that were killed: with a message they had noted; as they were releasing one, which
    // may have been released or not; and all others, of whom each may have had a message that it
    // had not noted.
    let (mut holders, mut releasing, mut others) = (0_u64, 0, 0_u64);
    for life in lives.iter().filter(|life| life.get(ROLE) == RECEIVES) {
        let notes = life.notes();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for note in &notes {
            let number = note & NUMBER_MASK;
            received.entry(number).or_default().push(*note);
            if note & FLAGGED_BIT == 0
                && let Some(before) = last.insert(number >> 16, number)
                && before >= number
            {
                return Err(format!("a receiver got {number:#x} after {before:#x}"));
            }
        }
        if life.get(KILLED) != 0 {
            match notes.last() {
                Some(note) if note & RELEASED_BIT != 0 => others += 1,
                Some(_) if life.get(RELEASES) == notes.len() as u64 => releasing += 1,
                Some(_) => holders += 1,
                None => others += 1,
            }
        }
    }
    let (mut missing, mut uncertain) = (0, 0);
    for (index, life) in lives.iter().enumerate().filter(|(_, life)| life.get(ROLE) == SENDS) {
        let number = |sequence: u64| ((index as u64) << 16) + sequence;
        missing += (0..life.get(SENT))
            .filter(|&sequence| !received.contains_key(&number(sequence)))
            .count() as u64;
        if life.get(KILLED) == 0 && life.get(SENT) != life.get(QUOTA) {
            return Err(format!("sender {index} has not done its work"));
        }
        // Killed in the middle of a send, it may have sent that message.
        uncertain += life.get(KILLED);
        let beyond = number(life.get(SENT) + life.get(KILLED))..number(0x1_0000);
        if let Some((number, _)) = received.range(beyond).next() {
            return Err(format!("{number:#x} was received and never sent"));
        }
    }
    let unflagged = |notes: &Vec<u64>| notes.iter().filter(|&note| note & FLAGGED_BIT == 0).count();
    if let Some((number, notes)) = received.iter().find(|(_, notes)| unflagged(notes) > 1) {
        return Err(format!("{number:#x} was received {} times and not flagged", notes.len()));
    }
    let again = received.values().flatten().filter(|&note| note & FLAGGED_BIT != 0).count() as u64;
    let (least, most) = match policy {
        // Every message that is missing went with a receiver that had not noted it, and each such
        // receiver, and each that had noted one, is counted. Only a process that was killed as it
        // cleared up may leave the count one short; nobody counts what nobody had.
        OnReceiverDeath::Drop => (
            (missing + holders).saturating_sub(chronicle.knowing_kills),
            missing + holders + releasing + uncertain.min(others.saturating_sub(missing)),
        ),
        // What a killed receiver had comes again, once for each.
        OnReceiverDeath::Redeliver => (holders, holders + releasing + others),
    };
    let (counted, other) = match policy {
        OnReceiverDeath::Drop => (lost, again),
        OnReceiverDeath::Redeliver => (again, lost + missing),
    };
    if !(least..=most).contains(&counted) || other != 0 || missing > others {
        return Err(format!(
            "{missing} missing, {lost} counted, {again} again; killed: {holders} with a noted message, {releasing} as they released one, \
             {others} other receivers, {uncertain} senders; {} of all knew of a death",
            chronicle.knowing_kills
        ));
    }
    Ok(Outcome { chronicle, done: received.len() as u64, lost: missing, again })
}

/// Words of a life with the lock or the heap: turns made, turns it was to make, deaths of owners
/// that it was told, and where it stands.
const MADE: usize = 1;
const TURNS: usize = 2;
const TOLD: usize = 3;
const PLACE: usize = 4;
/// Where one stands: elsewhere; or at the lock, which it wants and may have, has, gives up and may
/// have.
const OUTSIDE: u64 = 0;
const WANTS: u64 = 1;
const HAS: u64 = 2;
const LEAVES: u64 = 3;
/// What the lock may be found to be, beside free.
const DIED: &str = "left by a dead owner";
const HELD: &str = "held";

fn count_up(lock: &Lock<[u64; 2]>, notebook: &Notebook, index: usize) {
    let life = &notebook.lives[index];
    while life.get(MADE) < life.get(TURNS) {
        life.set(PLACE, WANTS);
        let mut guard = match lock.lock() {
            Ok(guard) => {
                assert_eq!(guard[0], guard[1], "half a change, and nobody said so");
                assert_eq!(notebook.common.get(0), 0, "two owners at a time");
                guard
            }
            Err(LockError::OwnerDied) => {
                let mut guard = lock.recover().expect("not ours");
                if guard.state() == LockState::OwnerDied {
                    life.count(TOLD);
                }
                guard[0] = guard[1];
                guard.mark_repaired()
            }
            Err(other) => panic!("{other}"),
        };
        life.set(PLACE, HAS);
        notebook.common.set(0, index as u64 + 1);
        guard[0] += 1;
        // As long as it takes to lock and unlock, so that kills come here as often.
        (0..100).for_each(|_| _ = std::hint::black_box(&mut guard));
        guard[1] += 1;
        notebook.common.set(0, 0);
        life.set(PLACE, LEAVES);
        drop(guard);
        life.set(PLACE, OUTSIDE);
        life.count(MADE);
    }
}

/// Who was killed, the reaper included, and what the probe said before and after.
type Killed = Vec<(usize, [String; 2])>;

/// Three processes, each with a role of its own and as many turns as it was told; who is killed
/// gets a successor for the rest.
fn three(
    segment: &Segment,
    mut dice: Dice,
    notebook: &Notebook,
    turns: u64,
    attach: &dyn Fn(),
    work: &dyn Fn(usize),
    probe: Option<Probe<'_>>,
) -> Result<(Chronicle, Killed), String> {
    let mut used = 0;
    let mut killed = Vec::new();
    let mut start = |role: u64, turns: u64| {
        let index = used;
        used += 1;
        notebook.lives[index].set(ROLE, role);
        notebook.lives[index].set(TURNS, turns);
        let tracee = Tracee::start(|| {
            attach();
            mark();
            work(index);
            mark();
        });
        (index, tracee)
    };
    let watch = Watch::new(segment.as_fd());
    let with_reaper = dice.once_in(4);
    let mut world = World::new(&watch, dice, probe);
    for role in 0..3 {
        let (index, tracee) = start(role, turns);
        world.enter(index, tracee);
    }
    if with_reaper {
        world.enter(REAPER, reaper(segment, attach));
    }
    while let Some(event) = world.go_on()? {
        if let Happening::Killed(index, answers) = event {
            killed.push((index, answers));
            if index != REAPER {
                let life = &notebook.lives[index];
                let (index, tracee) = start(life.get(ROLE), life.get(TURNS) - life.get(MADE));
                world.enter(index, tracee);
            }
        }
    }
    Ok((world.end(), killed))
}

/// Three processes count in turns.
fn lock(dice: Dice) -> Result<Outcome, String> {
    const TURNS_EACH: u64 = 8;
    let segment = small_segment();
    let lock = Lock::new_in(&segment, [0_u64; 2]).expect("a lock").with_wait(Wait::Sleep);
    let other = Lock::new_in(&segment, 0_u64).expect("a lock");
    let notebook = Notebook::new();
    let attach = || drop(other.try_lock());
    let work = |index| count_up(&lock, notebook, index);
    // Whether the lock is that of a dead owner: asked in a copy of this process, after which all is
    // as it was.
    let is_left_by_the_dead = || {
        let mut watch = Watch::new(segment.as_fd());
        let before = watch.snapshot();
        let answer = Errand::send(30, || match lock.try_lock() {
            Err(TryLockError::OwnerDied) => DIED.to_owned(),
            Ok(_) => "free".to_owned(),
            Err(TryLockError::WouldBlock) => HELD.to_owned(),
            Err(other) => panic!("{other}"),
        });
        let answer = answer.answer();
        watch.restore(&before);
        answer
    };
    let (chronicle, killed) =
        three(&segment, dice, notebook, TURNS_EACH, &attach, &work, Some(&is_left_by_the_dead))?;
    let sum = |word| notebook.lives.iter().map(|life| life.get(word)).sum::<u64>();
    let (guard, last_told) = match lock.lock() {
        Ok(guard) => (guard, 0),
        Err(LockError::OwnerDied) => {
            let mut guard = lock.recover().expect("nobody has it");
            guard[0] = guard[1];
            (guard.mark_repaired(), 1)
        }
        Err(other) => return Err(other.to_string()),
    };
    let (made, told) = (sum(MADE), sum(TOLD) + last_told);
    // Owners that were killed; and those of them that may have been successors who had not noted
    // yet that they were told.
    let (mut owners, mut silent) = (0, 0);
    let mut uncounted = 0;
    for (index, [before, after]) in &killed {
        let owned = before != DIED && after == DIED;
        let place = if *index == REAPER { OUTSIDE } else { notebook.lives[*index].get(PLACE) };
        if (place == HAS && !(before == HELD && owned)) || (place == OUTSIDE && owned) {
            return Err(format!(
                "the lock was {before}, and {after} when life {index} was killed at place {place}"
            ));
        }
        owners += u64::from(owned);
        silent += u64::from(owned && place == WANTS);
        // Killed between its second change and its note, a process has counted and not said so.
        uncounted += u64::from(place != WANTS);
    }
    let told_right = (owners - silent..=owners).contains(&told);
    let counted_right = guard[0] == guard[1] && (made..=made + uncounted).contains(&guard[1]);
    if !told_right || !counted_right || made != 3 * TURNS_EACH {
        return Err(format!(
            "{guard:?} after {made} turns; told {told} times of {owners} dead owners, {silent} of them silent"
        ));
    }
    drop(guard);
    drop(lock.try_lock().map_err(|error| error.to_string())?);
    Ok(Outcome { chronicle, done: made, lost: 0, again: told })
}

fn add_up(value: &Value<[u64; 3]>, life: &Life) {
    let mut last = 0;
    let mut whole = |words: [u64; 3]| {
        assert!(words == [words[0]; 3] && words[0] >= last, "{words:?} after {last}");
        last = words[0];
    };
    while life.get(MADE) < life.get(TURNS) {
        let before = value.update(|words| {
            let before = *words;
            words[0] += 1;
            // As long as the rest takes, so that kills come here as often.
            (0..100).for_each(|_| _ = std::hint::black_box(&mut *words));
            *words = [words[0]; 3];
            before
        });
        life.count(MADE);
        whole(before.expect("its turn comes"));
        whole(value.get().expect("attached"));
    }
}

/// Three processes change a value that they also read.
fn value(dice: Dice) -> Result<Outcome, String> {
    const TURNS_EACH: u64 = 8;
    let segment = small_segment();
    let value = Value::new_in(&segment, [0; 3]).expect("a value").with_wait(Wait::Sleep);
    let notebook = Notebook::new();
    let attach = || _ = std::hint::black_box(value.get());
    let work = |index: usize| add_up(&value, &notebook.lives[index]);
    let (chronicle, killed) = three(&segment, dice, notebook, TURNS_EACH, &attach, &work, None)?;
    let made = notebook.lives.iter().map(|life| life.get(MADE)).sum::<u64>();
    let words = value.update(|words| *words).map_err(|error| error.to_string())?;
    // Killed between the change and its note, a process has counted and not said so.
    let counted_right = (made..=made + killed.len() as u64).contains(&words[0]);
    if made != 3 * TURNS_EACH || words != [words[0]; 3] || !counted_right {
        return Err(format!("{words:?} after {made} turns, {} killed", killed.len()));
    }
    Ok(Outcome { chronicle, done: made, lost: 0, again: 0 })
}

/// Which of the three at the events serves; the other two are its clients.
const SERVES: u64 = 2;
/// Words of a life at the events. Of a client: how often it was about to ask, and how often it had
/// an answer. Of the one that serves, for each client: how often it was asked, and was about to
/// answer.
const ASKED: usize = 3;
const ANSWERED: usize = 4;
const WAS_ASKED: [usize; 2] = [3, 4];
const ANSWERS: [usize; 2] = [5, 6];

/// Events through which two clients and one that serves them talk.
struct Desk {
    asks: [Event; 2],
    answers: [Event; 2],
    /// Reset by hand: both clients have all their answers.
    closed: Event,
}

impl Desk {
    fn new(segment: &Segment) -> Desk {
        let auto = || Event::auto_reset_in(segment).expect("an event").with_wait(Wait::Sleep);
        let closed = Event::new_in(segment).expect("an event");
        Desk { asks: [auto(), auto()], answers: [auto(), auto()], closed }
    }

    fn serve(&self, life: &Life) {
        let [first, second] = &self.asks;
        loop {
            let client = Event::wait_any(&[first, second, &self.closed]).expect("attached");
            if client == 2 {
                return;
            }
            life.count(WAS_ASKED[client]);
            life.count(ANSWERS[client]);
            self.answers[client].set().expect("attached");
        }
    }

    fn ask(&self, client: usize, notebook: &Notebook, life: &Life) {
        while life.get(MADE) < life.get(TURNS) {
            loop {
                life.count(ASKED);
                self.asks[client].set().expect("attached");
                // Whoever has taken the question may have been killed with it.
                match self.answers[client].wait_timeout(Duration::from_millis(50)) {
                    Ok(()) => break,
                    Err(WaitTimeoutError::Timeout) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            life.count(ANSWERED);
            life.count(MADE);
        }
        notebook.common.set(client, 1);
        if notebook.common.get(0) + notebook.common.get(1) == 2 {
            self.closed.set().expect("attached");
        }
    }
}

/// Two clients ask and one answers, each by an event with automatic reset.
fn event(dice: Dice) -> Result<Outcome, String> {
    const TURNS_EACH: u64 = 8;
    let segment = small_segment();
    let desk = Desk::new(&segment);
    let notebook = Notebook::new();
    let attach = || _ = std::hint::black_box(desk.closed.is_set());
    let work = |index: usize| {
        let life = &notebook.lives[index];
        match life.get(ROLE) {
            SERVES => desk.serve(life),
            client => desk.ask(client as usize, notebook, life),
        }
    };
    let (chronicle, killed) = three(&segment, dice, notebook, TURNS_EACH, &attach, &work, None)?;
    let sum = |role: u64, word: usize| {
        let lives = notebook.lives.iter().filter(|life| life.get(TURNS) > 0);
        lives.filter(|life| life.get(ROLE) == role).map(|life| life.get(word)).sum::<u64>()
    };
    let mut made = 0;
    for client in 0..2 {
        let role = client as u64;
        let (asked, answered) = (sum(role, ASKED), sum(role, ANSWERED));
        let (was_asked, answers) = (sum(SERVES, WAS_ASKED[client]), sum(SERVES, ANSWERS[client]));
        made += sum(role, MADE);
        // What is left over: of a client that was killed between its question and the answer.
        let left = desk.answers[client].try_wait().is_ok();
        let in_order = was_asked <= asked && answered + u64::from(left) <= answers;
        // Nobody was killed, so nothing was asked in vain, unless the time was over.
        if !in_order || (killed.is_empty() && left && asked == answered) {
            return Err(format!(
                "client {client}: asked {asked}, {was_asked} arrived; answered {answers}, {answered} arrived, left: {left}"
            ));
        }
    }
    if made != 2 * TURNS_EACH || desk.closed.is_set() != Ok(true) {
        return Err(format!("{made} answers"));
    }
    Ok(Outcome { chronicle, done: made, lost: 0, again: 0 })
}

/// Bytes of the shortest message in a block and of the shortest box.
const LEN: usize = 300;

fn send_and_receive(queue: &ByteQueue, index: usize, life: &Life) {
    while life.get(MADE) < life.get(TURNS) {
        let turn = life.get(MADE) as usize;
        drop(queue.loan(LEN).expect("room"));
        let mut loan = queue.loan(LEN + 500 * index + turn).expect("room");
        loan.fill((1 + index) as u8);
        loan.send().expect("open");
        // There is one for each that sent one.
        let message = queue.recv().expect("open");
        let (sender, turn) = ((message.len() - LEN) / 500, (message.len() - LEN) % 500);
        assert!(
            turn < 100 && message.iter().all(|&byte| usize::from(byte) == 1 + sender),
            "torn: {} bytes, {:?}",
            message.len(),
            &message[..8]
        );
        drop(message);
        life.count(MADE);
    }
}

/// Three processes do `turn`: they send something, and each time receive something that one
/// of them has sent. `count` receives what is left, and says how many that was and how many were
/// lost.
fn pass<Q>(
    dice: Dice,
    make: impl Fn(&Segment) -> Q,
    turn: impl Fn(&Segment, &Q, usize, &Life),
    count: impl Fn(&Q) -> (u64, u64),
) -> Result<Outcome, String> {
    const TURNS_EACH: u64 = 4;
    let segment = small_segment();
    let queue = make(&segment);
    let kept = Queue::<Message>::with_capacity_in(&segment, 1).expect("a queue");
    let notebook = Notebook::new();
    let measure = || {
        Errand::send(60, || {
            segment.reap().expect("attached");
            room(&segment)
        })
        .answer()
    };
    let before = measure()?;
    segment.reap().map_err(|fault| fault.to_string())?;
    let attach = || _ = std::hint::black_box(kept.len());
    let work = |index: usize| turn(&segment, &queue, index, &notebook.lives[index]);
    let (chronicle, killed) = three(&segment, dice, notebook, TURNS_EACH, &attach, &work, None)?;
    segment.reap().map_err(|fault| fault.to_string())?;
    // Whoever was killed may have sent one that it did not receive, or gone with one.
    let (left, lost) = count(&queue);
    let made = notebook.lives.iter().map(|life| life.get(MADE)).sum::<u64>();
    if left + lost > killed.len() as u64 || made != 3 * TURNS_EACH {
        let killed = killed.len();
        return Err(format!("{made} turns, {left} left, {lost} lost, {killed} killed"));
    }
    let after = measure()?;
    if before != after {
        return Err(format!("before: {before}; after: {after}"));
    }
    Ok(Outcome { chronicle, done: made, lost, again: 0 })
}

/// Three processes send messages that lie in blocks of their own, and each time receive one.
fn messages(dice: Dice) -> Result<Outcome, String> {
    // Room for one more from each that is killed.
    let make = |segment: &Segment| {
        let queue = ByteQueue::with_capacity_in(segment, LIVES).expect("a queue");
        queue.with_wait(Wait::Sleep)
    };
    let turn = |_: &Segment, queue: &ByteQueue, index: usize, life: &Life| {
        send_and_receive(queue, index, life);
    };
    pass(dice, make, turn, |queue| {
        let mut left = 0;
        while let Ok(message) = queue.try_recv() {
            assert!(message.len() >= LEN, "{message:?}");
            left += 1;
        }
        (left, queue.lost())
    })
}

type Bytes = ShmBox<[u8]>;

fn send_and_receive_boxes(segment: &Segment, queue: &Queue<Bytes>, index: usize, life: &Life) {
    while life.get(MADE) < life.get(TURNS) {
        let turn = life.get(MADE) as usize;
        let bytes = vec![(1 + index) as u8; LEN + 500 * index + turn];
        drop(Bytes::from_slice_in(segment, &bytes).expect("room"));
        queue.send(Bytes::from_slice_in(segment, &bytes).expect("room")).expect("open");
        // There is one for each that sent one.
        let received = queue.recv().expect("open");
        let (sender, turn) = ((received.len() - LEN) / 500, (received.len() - LEN) % 500);
        assert!(
            turn < 100 && received.iter().all(|&byte| usize::from(byte) == 1 + sender),
            "torn: {} bytes, {:?}",
            received.len(),
            &received[..8]
        );
        drop(received);
        life.count(MADE);
    }
}

/// Three processes send boxes, and each time receive one.
fn boxes(dice: Dice) -> Result<Outcome, String> {
    let make = |segment: &Segment| {
        let queue = Queue::<Bytes>::with_capacity_in(segment, LIVES).expect("a queue");
        queue.with_wait(Wait::Sleep)
    };
    pass(dice, make, send_and_receive_boxes, |queue| {
        let left = std::iter::from_fn(|| queue.try_recv().ok()).count() as u64;
        (left, queue.lost())
    })
}

/// Words of a life with the heap: the handle of its latest object.
const NAME: usize = 4;

fn make_and_drop(segment: &Segment, notebook: &Notebook, index: usize) {
    let life = &notebook.lives[index];
    while life.get(MADE) < life.get(TURNS) {
        let turn = life.get(MADE) as usize;
        let mine =
            Queue::<Message>::with_capacity_in(segment, 1 + (index + turn) % 5).expect("room");
        mine.try_send(sealed(turn as u64)).expect("room");
        let name: [u64; 3] = bytemuck::cast(mine.handle());
        name.into_iter().enumerate().for_each(|(word, value)| life.set(NAME + word, value));
        let theirs = (1..LIVES).map(|distance| &notebook.lives[(index + turn + distance) % LIVES]);
        if let Some(theirs) =
            theirs.into_iter().find(|theirs| theirs.get(NAME) != 0 && !std::ptr::eq(*theirs, life))
        {
            let name: Handle = bytemuck::cast([0, 1, 2].map(|word| theirs.get(NAME + word)));
            match Queue::<Message>::open(segment, name) {
                Ok(opened) => {
                    assert!((1..=5).contains(&opened.capacity()) && opened.len() <= 1, "{opened:?}")
                }
                // Dropped by its maker, or by the reaper of its maker; or the name was read while
                // it changed.
                Err(Fault::Stale) => {}
                Err(other) => panic!("{other}"),
            }
        }
        drop(mine);
        life.count(MADE);
    }
}

/// Three processes make objects, open each other's and drop them.
fn heap(dice: Dice) -> Result<Outcome, String> {
    const TURNS_EACH: u64 = 4;
    let segment = small_segment();
    let kept = Queue::<Message>::with_capacity_in(&segment, 4).expect("a queue");
    let notebook = Notebook::new();
    let measure = || {
        Errand::send(60, || {
            segment.reap().expect("attached");
            room(&segment)
        })
        .answer()
    };
    let before = measure()?;
    segment.reap().map_err(|fault| fault.to_string())?;
    let attach = || _ = std::hint::black_box(kept.len());
    let work = |index| make_and_drop(&segment, notebook, index);
    let (chronicle, _) = three(&segment, dice, notebook, TURNS_EACH, &attach, &work, None)?;
    let after = measure()?;
    if before != after {
        return Err(format!("before: {before}; after: {after}"));
    }
    kept.try_send(sealed(1)).map_err(|error| error.to_string())?;
    let done = notebook.lives.iter().map(|life| life.get(MADE)).sum();
    Ok(Outcome { chronicle, done, lost: 0, again: 0 })
}
