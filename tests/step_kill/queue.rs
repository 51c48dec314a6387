//! Cases of the queue: each operation at each fill level on both sides of the wrap, with and
//! without somebody in the way.

use std::time::Duration;

use offspring::{
    OnReceiverDeath, Queue, QueueOptions, Received, RecvTimeoutError, Segment, SendTimeoutError,
    TryRecvError, TrySendError, Wait,
};

use crate::Plan;
use crate::common::fd::SegmentFd;
use crate::common::trace::{Tracee, mark, mark_telling};
use crate::line::{Heir, Line, Steps};
use crate::stage::{BOTH, Found, Helper, How, Scene, Tally};

/// A message of which half would be noticed.
pub type Message = [u64; 3];

pub fn sealed(number: u64) -> Message {
    [number, !number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)]
}

pub fn number_of(message: &Message) -> u64 {
    assert_eq!(*message, sealed(message[0]), "torn");
    message[0]
}

/// Number of the message that a reader before the victim has taken.
const TAKEN: u64 = 100;
const SENTINEL: u64 = 200;
const LONG: Duration = Duration::from_secs(20);
/// How long victims wait, as nobody comes to help.
const SHORT: Duration = Duration::from_millis(2);

/// Who has claimed a slot before the victim comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claimed {
    Nobody,
    /// A sender, behind the messages `before`.
    Writer {
        alive: bool,
    },
    /// A receiver has the first message.
    Reader {
        alive: bool,
    },
    /// The first message came back from a receiver that died.
    Orphan,
}

/// A queue as the victim finds it.
#[derive(Clone, Copy, Debug)]
struct Start {
    capacity: usize,
    /// Messages sent and received before, so that the rest lies anywhere in the ring.
    offset: u64,
    policy: OnReceiverDeath,
    before: u64,
    claimed: Claimed,
    after: u64,
    closed: bool,
}

impl Start {
    fn new(capacity: usize, offset: u64, policy: OnReceiverDeath) -> Start {
        Start {
            capacity,
            offset,
            policy,
            before: 0,
            claimed: Claimed::Nobody,
            after: 0,
            closed: false,
        }
    }

    fn free(&self) -> usize {
        self.capacity
            - (self.before + self.after) as usize
            - usize::from(self.claimed != Claimed::Nobody)
    }

    fn alive(&self) -> bool {
        matches!(self.claimed, Claimed::Writer { alive: true } | Claimed::Reader { alive: true })
    }

    /// What survivors find if the victim does nothing.
    fn view(&self) -> View {
        let reader = matches!(self.claimed, Claimed::Reader { .. });
        let drops = self.policy == OnReceiverDeath::Drop;
        let again = self.claimed == Claimed::Orphan || reader && !drops;
        View {
            messages: (1..=self.before + self.after).collect(),
            again: if again { vec![TAKEN] } else { Vec::new() },
            lost: u64::from(reader && drops),
            closed: self.closed,
        }
    }
}

/// What survivors find in a queue.
#[derive(Clone, Debug)]
struct View {
    messages: Vec<u64>,
    /// Messages that were delivered again, flagged.
    again: Vec<u64>,
    lost: u64,
    closed: bool,
}

impl View {
    /// What [`View::text`] has made of one.
    fn of_text(text: &str) -> View {
        let numbers = |list: &str| -> Vec<u64> {
            let numbers =
                list.trim_matches(['[', ']']).split(", ").filter(|number| !number.is_empty());
            numbers.map(|number| number.parse().expect("a number")).collect()
        };
        let (messages, rest) = text.split_once(" again ").expect("messages");
        let (again, rest) = rest.split_once(" lost ").expect("messages that came again");
        let (lost, closed) =
            rest.strip_suffix(" closed").map_or((rest, false), |lost| (lost, true));
        View {
            messages: numbers(messages),
            again: numbers(again),
            lost: lost.parse().expect("a number"),
            closed,
        }
    }

    /// This one; and, as long as somebody clears up after a dead receiver whose message is lost,
    /// the same with the message not counted.
    fn or_not_counted(&self) -> Vec<String> {
        let mut texts = vec![self.text()];
        if self.lost > 0 {
            texts.push(View { lost: self.lost - 1, ..self.clone() }.text());
        }
        texts
    }

    fn text(&self) -> String {
        let View { messages, again, lost, closed } = self;
        format!("{messages:?} again {again:?} lost {lost}{}", if *closed { " closed" } else { "" })
    }

    fn must(&self) -> Found {
        Found { text: self.text(), optional: false }
    }

    fn may(&self) -> Found {
        Found { text: self.text(), optional: true }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    TrySend,
    Send,
    ReserveCommit,
    ReserveDrop,
    TrySendMany,
    SendMany,
    TryRecv,
    Recv,
    RecvRef,
    TryRecvMany,
    RecvMany,
    Close,
    Look,
    CloneDrop,
}

impl Op {
    const SENDING: [Op; 6] =
        [Op::TrySend, Op::Send, Op::ReserveCommit, Op::ReserveDrop, Op::TrySendMany, Op::SendMany];
    const RECEIVING: [Op; 5] = [Op::TryRecv, Op::Recv, Op::RecvRef, Op::TryRecvMany, Op::RecvMany];
    const OTHER: [Op; 3] = [Op::Close, Op::Look, Op::CloneDrop];

    fn name(self) -> &'static str {
        match self {
            Op::TrySend => "try_send",
            Op::Send => "send",
            Op::ReserveCommit => "reserve, commit",
            Op::ReserveDrop => "reserve, drop",
            Op::TrySendMany => "try_send_many",
            Op::SendMany => "send_many",
            Op::TryRecv => "try_recv",
            Op::Recv => "recv",
            Op::RecvRef => "recv_ref, drop",
            Op::TryRecvMany => "try_recv_many",
            Op::RecvMany => "recv_many",
            Op::Close => "close",
            Op::Look => "len, is_empty, is_full",
            Op::CloneDrop => "clone, drop",
        }
    }

    /// Messages that it sends or receives at the most.
    fn count(self) -> usize {
        match self {
            Op::TrySendMany | Op::SendMany | Op::TryRecvMany | Op::RecvMany => 3,
            _ => 1,
        }
    }

    /// Whether it may wait.
    fn waits(self) -> bool {
        matches!(
            self,
            Op::Send | Op::ReserveCommit | Op::SendMany | Op::Recv | Op::RecvRef | Op::RecvMany
        )
    }

    fn perform(self, queue: &Queue<Message>) {
        let time = SHORT;
        let many = [sealed(51), sealed(52), sealed(53)];
        let mut received = Vec::with_capacity(4);
        mark();
        match self {
            Op::TrySend => drop(queue.try_send(sealed(51))),
            Op::Send => drop(queue.send_timeout(sealed(51), time)),
            Op::ReserveCommit => {
                if let Ok(mut slot) = queue.reserve_timeout(time) {
                    slot.write(sealed(51));
                    slot.commit();
                }
            }
            Op::ReserveDrop => drop(queue.try_reserve()),
            Op::TrySendMany => drop(queue.try_send_many(&many)),
            Op::SendMany => drop(queue.send_many_timeout(&many, time)),
            Op::TryRecv => drop(queue.try_recv()),
            Op::Recv => drop(queue.recv_timeout(time)),
            Op::RecvRef => {
                if let Ok(message) = queue.recv_ref_timeout(time) {
                    assert_eq!(message[1], !message[0], "torn");
                }
            }
            Op::TryRecvMany => drop(queue.try_recv_many(&mut received, 3)),
            Op::RecvMany => drop(queue.recv_many_timeout(&mut received, 3, time)),
            Op::Close => queue.close(),
            Op::Look => {
                std::hint::black_box((
                    queue.len(),
                    queue.is_empty(),
                    queue.is_full(),
                    queue.is_closed(),
                    queue.lost(),
                ));
            }
            Op::CloneDrop => drop(queue.clone()),
        }
        mark();
    }

    /// What survivors may find, in order.
    fn expected(self, start: &Start) -> Vec<Found> {
        let mut view = start.view();
        let mut list = vec![view.must()];
        if Op::SENDING.contains(&self) && !start.closed {
            self.expect_sent(start, &mut view, &mut list);
        } else if Op::RECEIVING.contains(&self) {
            self.expect_received(start, &mut view, &mut list);
        } else if self == Op::Close && !start.closed {
            view.closed = true;
            list.push(view.must());
        }
        list
    }

    fn expect_sent(self, start: &Start, view: &mut View, list: &mut Vec<Found>) {
        // The slot of a dead claimant is had when it is the next one, and no message lies in it.
        let reader = matches!(start.claimed, Claimed::Reader { .. });
        let drops = start.policy == OnReceiverDeath::Drop;
        let claimed_by_dead = matches!(
            start.claimed,
            Claimed::Writer { alive: false } | Claimed::Reader { alive: false }
        );
        let in_the_way = claimed_by_dead && start.before == 0;
        let recovered = in_the_way && (!reader || drops);
        let places = start.free() + usize::from(recovered);
        for index in 0..self.count().min(places + usize::from(in_the_way)) {
            if index == start.free() && in_the_way && reader && drops {
                // Killed between taking the slot from the dead and counting its message, the victim
                // leaves the count one short.
                view.lost -= 1;
                list.push(view.may());
                view.lost += 1;
                list.push(view.may());
            }
            if self != Op::ReserveDrop && index < places {
                view.messages.push(51 + index as u64);
                list.push(view.must());
            }
        }
    }

    fn expect_received(self, start: &Start, view: &mut View, list: &mut Vec<Found>) {
        let drops = start.policy == OnReceiverDeath::Drop;
        let behind_living = start.claimed == Claimed::Writer { alive: true };
        let ready = if behind_living { start.before } else { start.before + start.after };
        let mut takes = Vec::new();
        if start.claimed == Claimed::Orphan {
            takes.push(TAKEN);
        }
        takes.extend(1..=ready);
        if start.claimed == (Claimed::Reader { alive: false }) && !drops {
            takes.push(TAKEN);
        }
        for &number in takes.iter().take(self.count()) {
            if number == TAKEN {
                view.again.clear();
            } else {
                view.messages.remove(0);
                if drops {
                    view.lost += 1;
                    list.push(view.must());
                    view.lost -= 1;
                } else {
                    view.again.push(number);
                    view.again.sort_unstable();
                    list.push(view.must());
                    view.again.retain(|&again| again != number);
                }
            }
            list.push(view.must());
        }
        if start.closed
            && drops
            && start.claimed == (Claimed::Reader { alive: false })
            && takes.len() < self.count()
        {
            // As in `expect_sent`: the end of a closed queue lies behind the slot of the dead.
            view.lost -= 1;
            list.push(view.may());
            view.lost += 1;
            list.push(view.may());
        }
    }
}

/// Makes the queue as `start` says.
fn set_up(segment: &Segment, start: &Start) -> (Queue<Message>, Vec<Helper>) {
    let mut options = QueueOptions::new();
    options.capacity(start.capacity).on_receiver_death(start.policy).wait(Wait::Sleep);
    let queue = options.create_in::<Message>(segment).expect("a queue");
    for number in 0..start.offset {
        queue.try_send(sealed(number)).expect("room");
        queue.try_recv().expect("a message");
    }
    let mut helpers = Vec::new();
    if matches!(start.claimed, Claimed::Reader { .. } | Claimed::Orphan) {
        queue.try_send(sealed(TAKEN)).expect("room");
        helpers.push(Helper::start(|| std::mem::forget(queue.try_recv_ref().expect("a message"))));
    }
    (1..=start.before).for_each(|number| queue.try_send(sealed(number)).expect("room"));
    if matches!(start.claimed, Claimed::Writer { .. }) {
        helpers.push(Helper::start(|| std::mem::forget(queue.try_reserve().expect("room"))));
    }
    (1..=start.after)
        .for_each(|number| queue.try_send(sealed(start.before + number)).expect("room"));
    if start.closed {
        queue.close();
    }
    if !start.alive() {
        helpers.drain(..).for_each(Helper::kill);
    }
    if start.claimed == Claimed::Orphan {
        assert_eq!(segment.reap(), Ok(1));
    }
    (queue, helpers)
}

/// Recovers, drains, and uses the whole queue twice.
fn check(segment: &Segment, queue: &Queue<Message>, how: How) -> View {
    let closed = queue.is_closed();
    let mut view = View { messages: Vec::new(), again: Vec::new(), lost: 0, closed };
    if how == How::Reaped {
        segment.reap().expect("attached");
    }
    drain(queue, how, &mut view);
    view.again.sort_unstable();
    if closed {
        assert!(
            queue.try_send(sealed(0)).is_err_and(|error| error.is_closed()),
            "sent into a closed queue"
        );
        segment.reap().expect("attached");
    } else {
        (0..2).for_each(|lap| use_all_of_it(queue, how, lap * 1000));
    }
    assert_eq!((queue.len(), queue.is_empty()), (0, true));
    view.lost = queue.lost();
    view
}

fn drain(queue: &Queue<Message>, how: How, view: &mut View) {
    let mut sentinel_is_in = how == How::Reaped || view.closed;
    let mut patience = if how == How::Reaped { Duration::ZERO } else { LONG };
    loop {
        let attempt = match (how, sentinel_is_in) {
            // Reaped, nothing is in the way. Before there is a sentinel nobody can tell how long to
            // wait.
            (How::Reaped, _) | (How::Alone, false) => {
                queue.try_recv_ref().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Closed => RecvTimeoutError::Closed,
                    TryRecvError::Disconnected => panic!("a queue is no channel"),
                    TryRecvError::Broken(fault) => RecvTimeoutError::Broken(fault),
                })
            }
            (How::Alone, true) => queue.recv_ref_timeout(patience),
        };
        match attempt {
            Ok(message) if number_of(&message) == SENTINEL => {
                // Messages that came back from the dead keep no order; a short wait looks for them.
                patience = Duration::from_millis(1);
            }
            Ok(message) if message.redelivered() => view.again.push(number_of(&message)),
            Ok(message) => view.messages.push(number_of(&message)),
            Err(RecvTimeoutError::Closed) => return,
            Err(RecvTimeoutError::Timeout) if sentinel_is_in => {
                assert!(patience < LONG && !view.closed, "the messages do not come: {view:?}");
                return;
            }
            Err(RecvTimeoutError::Timeout) => {
                let sent = queue.send_timeout(sealed(SENTINEL), Duration::from_millis(3));
                assert!(!matches!(sent, Err(SendTimeoutError::Broken(..))), "{sent:?}");
                sentinel_is_in = sent.is_ok();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn use_all_of_it(queue: &Queue<Message>, how: How, first: u64) {
    let numbers = first..first + queue.capacity() as u64;
    for number in numbers.clone() {
        match how {
            How::Alone => queue.send_timeout(sealed(number), LONG).expect("the whole capacity"),
            How::Reaped => queue.try_send(sealed(number)).expect("the whole capacity"),
        }
    }
    assert!(
        matches!(queue.try_send(sealed(0)), Err(TrySendError::Full(_))),
        "more than its capacity"
    );
    assert!(
        queue.is_full() && queue.len() == queue.capacity(),
        "full, and says {} and {}",
        queue.is_full(),
        queue.len()
    );
    for number in numbers {
        assert_eq!(queue.try_recv().map(|message| number_of(&message)), Ok(number));
    }
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
}

/// What a survivor may do while the claimant in the way lives: nothing that takes its slot.
fn check_beside(segment: &Segment, queue: &Queue<Message>, start: &Start) {
    assert!(segment.reap().expect("attached") <= 1, "a living process was taken for dead");
    let mut got = Vec::new();
    while let Ok(message) = queue.recv_timeout(Duration::from_millis(2)) {
        got.push(number_of(&message));
    }
    assert!(got.is_sorted(), "{got:?}");
    match start.claimed {
        Claimed::Writer { .. } => assert!(
            got.iter().all(|&number| number <= start.before),
            "overtook a living sender: {got:?}"
        ),
        _ => assert!(!got.contains(&TAKEN), "took a message from a living receiver"),
    }
    while queue.try_send(sealed(300)).is_ok() {}
    assert!(
        queue.send_timeout(sealed(300), Duration::from_millis(2)).is_err(),
        "took the slot of the living"
    );
}

fn plan(op: Op, start: Start, real: bool) -> Plan {
    let group = match (start.closed, start.claimed) {
        (true, _) => "closed queue",
        (_, Claimed::Nobody) => "queue",
        (_, Claimed::Writer { alive: false } | Claimed::Reader { alive: false }) => {
            "queue behind the dead"
        }
        (_, Claimed::Orphan) => "queue with an orphan",
        _ => "queue behind the living",
    };
    Plan::new(group, op.name(), format!("{start:?}"), move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (queue, helpers) = set_up(&segment, &start);
        let alive = start.alive();
        let scene = Scene {
            segment: segment.as_fd(),
            victim: &|| {
                Tracee::start(|| {
                    std::hint::black_box(queue.len());
                    op.perform(&queue);
                })
            },
            expected: op.expected(&start),
            check: &|how| check(&segment, &queue, how).text(),
            beside: if alive { Some(&|| check_beside(&segment, &queue, &start)) } else { None },
            helpers,
            hows: BOTH,
        };
        scene.visit(tally, real.then_some(crate::at_every_instruction));
    })
}

/// Set in what an heir tells of a message that was flagged as delivered again.
const FLAGGED_BIT: u64 = 1 << 32;

/// The message that the victim with this number sends.
fn message_of(victim: u64) -> u64 {
    51 + 10 * victim
}

/// A victim that sends. It waits a little where the third would only cost time.
fn sender(queue: &Queue<Message>, victim: u64) -> Tracee {
    Tracee::start(|| {
        std::hint::black_box(queue.len());
        mark();
        let message = sealed(message_of(victim));
        let sent = if victim < 2 {
            queue.send_timeout(message, SHORT).is_ok()
        } else {
            queue.try_send(message).is_ok()
        };
        mark_telling(sent.into());
    })
}

fn expected_of_sender(victim: u64, before: &str, sent: u64) -> Vec<Vec<String>> {
    let mut view = View::of_text(before);
    let mut list = vec![view.or_not_counted()];
    if sent != 0 {
        view.messages.push(message_of(victim));
        list.push(vec![view.text()]);
    }
    list
}

/// A victim that receives.
fn receiver(queue: &Queue<Message>, victim: u64) -> Tracee {
    Tracee::start(|| {
        std::hint::black_box(queue.len());
        mark();
        let received =
            if victim < 2 { queue.recv_ref_timeout(SHORT).ok() } else { queue.try_recv_ref().ok() };
        let flag =
            |message: &Received<'_, Message>| if message.redelivered() { FLAGGED_BIT } else { 0 };
        mark_telling(received.map_or(0, |message| number_of(&message) | flag(&message)));
    })
}

fn expected_of_receiver(drops: bool, before: &str, received: u64) -> Steps {
    let mut view = View::of_text(before);
    let mut list = vec![view.or_not_counted()];
    let number = received & !FLAGGED_BIT;
    if received == 0 {
        return if view.messages.is_empty() && view.again.is_empty() {
            Ok(list)
        } else {
            Err("it received nothing".to_owned())
        };
    }
    if received & FLAGGED_BIT != 0 {
        if !view.again.contains(&number) {
            return Err(format!("it received {number} again"));
        }
        view.again.retain(|&again| again != number);
    } else {
        if view.messages.first() != Some(&number) {
            return Err(format!("it received {number}"));
        }
        view.messages.remove(0);
        let mut held = view.clone();
        if drops {
            held.lost += 1;
        } else {
            held.again.push(number);
            held.again.sort_unstable();
        }
        list.push(vec![held.text()]);
    }
    list.push(vec![view.text()]);
    Ok(list)
}

/// Lines of victims: one sends or receives, and those who come after it do too, or clear up.
///
/// To clear up is to look at each entry of the peer table, a hundred times the instructions of the
/// rest, so that begins in few states.
pub fn lines(full: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    let policies = [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver];
    let (writer, reader) = (Claimed::Writer { alive: false }, Claimed::Reader { alive: false });
    for policy in policies {
        let start = |capacity| Start::new(capacity, 1, policy);
        if !full {
            let claimed = if policy == OnReceiverDeath::Drop { writer } else { reader };
            let start = Start { claimed, after: 1, ..start(3) };
            for (sends, heirs) in [(true, Heirs::Receive), (false, Heirs::Send)] {
                plans.push(line("two victims", start, sends, heirs, &[2]));
                plans.push(line("three victims", start, sends, heirs, &[1, 1]));
            }
            continue;
        }
        for capacity in [2, 3] {
            let starts = [
                Start { before: 1, ..start(capacity) },
                Start { claimed: writer, ..start(capacity) },
                Start { claimed: writer, after: 1, ..start(capacity) },
                Start { before: 1, claimed: writer, ..start(capacity) },
                Start { claimed: reader, ..start(capacity) },
                Start { claimed: reader, after: 1, ..start(capacity) },
            ];
            for (start, sends) in starts.iter().flat_map(|&start| [(start, true), (start, false)]) {
                plans.push(line("two victims", start, sends, Heirs::SendAndReceive, &[6]));
                if capacity == 2 {
                    plans.push(line("three victims", start, sends, Heirs::SendAndReceive, &[2, 2]));
                }
            }
        }
        let start = Start { claimed: reader, after: 1, ..start(2) };
        plans.push(line("two victims", start, policy == OnReceiverDeath::Drop, Heirs::Reap, &[2]));
    }
    plans
}

/// What those do who come after the first victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heirs {
    Send,
    Receive,
    SendAndReceive,
    Reap,
}

fn line(
    object: &'static str,
    start: Start,
    sends: bool,
    who: Heirs,
    samples: &'static [usize],
) -> Plan {
    let operation = if who == Heirs::Reap { "queue: reap" } else { "queue: send, recv" };
    let name = format!("{}, then {who:?}, {start:?}", if sends { "send" } else { "recv" });
    Plan::new(object, operation, name, move |tally: &mut Tally| {
        let segment = Segment::create(1 << 16).expect("a segment");
        let (queue, _) = set_up(&segment, &start);
        let reaper = || {
            Tracee::start(|| {
                std::hint::black_box(queue.len());
                mark();
                mark_telling(segment.reap().expect("attached") as u64);
            })
        };
        let heirs = [
            Heir {
                name: "send",
                start: &|victim| sender(&queue, victim),
                expected: &|victim, before, sent| Ok(expected_of_sender(victim, before, sent)),
            },
            Heir {
                name: "recv",
                start: &|victim| receiver(&queue, victim),
                expected: &|_, before, received| {
                    expected_of_receiver(start.policy == OnReceiverDeath::Drop, before, received)
                },
            },
            Heir {
                name: "reap",
                start: &|_| reaper(),
                expected: &|_, before, reaped| match reaped {
                    0 => Err("it found nobody dead".to_owned()),
                    _ => Ok(vec![View::of_text(before).or_not_counted()]),
                },
            },
        ];
        let heirs = match who {
            Heirs::Send => &heirs[..1],
            Heirs::Receive => &heirs[1..2],
            Heirs::SendAndReceive => &heirs[..2],
            Heirs::Reap => &heirs[2..],
        };
        let line = Line {
            segment: segment.as_fd(),
            first: &|| if sends { sender(&queue, 0) } else { receiver(&queue, 0) },
            heirs,
            check: &|how| check(&segment, &queue, how).text(),
            samples,
        };
        line.visit(tally);
    })
}

/// All cases; fewer unless `full`.
pub fn plans(full: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    let both = [OnReceiverDeath::Drop, OnReceiverDeath::Redeliver];
    let capacities: &[usize] = if full { &[1, 2, 3, 4] } else { &[2] };
    for &capacity in capacities {
        // Up to one lap: after each the messages lie elsewhere, on either side of the wrap or
        // across it.
        for offset in if full { 0..=capacity as u64 } else { 1..=1 } {
            for fill in 0..=capacity as u64 {
                for policy in both {
                    let start = Start { before: fill, ..Start::new(capacity, offset, policy) };
                    // The policy is about receivers.
                    let senders =
                        if policy == OnReceiverDeath::Drop { &Op::SENDING[..] } else { &[] };
                    plans.extend(
                        senders.iter().chain(&Op::RECEIVING).map(|&op| plan(op, start, false)),
                    );
                    if offset <= 1 && policy == OnReceiverDeath::Drop {
                        plans.extend(Op::OTHER.map(|op| plan(op, start, false)));
                    }
                }
            }
        }
    }
    let capacities: &[usize] = if full { &[1, 2, 3] } else { &[2] };
    for &capacity in capacities {
        for offset in if full { vec![0, capacity as u64 - 1] } else { vec![1] } {
            for (claimed, policy) in claims() {
                // Each look whether a living process lives is thousands of instructions in the
                // kernel's files.
                let living = matches!(
                    claimed,
                    Claimed::Writer { alive: true } | Claimed::Reader { alive: true }
                );
                if living && capacity > 2 {
                    continue;
                }
                let room = capacity as u64 - 1;
                for before in 0..=if matches!(claimed, Claimed::Writer { .. }) { room } else { 0 } {
                    for after in 0..=room - before {
                        let start = Start {
                            before,
                            claimed,
                            after,
                            ..Start::new(capacity, offset, policy)
                        };
                        let ops = [&Op::SENDING[..], &Op::RECEIVING[..]].concat();
                        let wanted = |op: &Op| (full || !op.waits()) && !(living && op.count() > 1);
                        plans.extend(
                            ops.into_iter().filter(wanted).map(|op| plan(op, start, false)),
                        );
                    }
                }
            }
        }
    }
    for policy in both {
        for claimed in
            [Claimed::Nobody, Claimed::Writer { alive: false }, Claimed::Reader { alive: false }]
        {
            for after in if full { 0..=2 } else { 1..=1 } {
                let start = Start { claimed, after, closed: true, ..Start::new(3, 2, policy) };
                let ops = [
                    Op::TrySend,
                    Op::Send,
                    Op::TryRecv,
                    Op::Recv,
                    Op::RecvRef,
                    Op::RecvMany,
                    Op::Close,
                ];
                plans.extend(ops.map(|op| plan(op, start, false)));
            }
        }
    }
    plans
}

fn claims() -> Vec<(Claimed, OnReceiverDeath)> {
    let mut claims = vec![(Claimed::Orphan, OnReceiverDeath::Redeliver)];
    for alive in [false, true] {
        claims.push((Claimed::Writer { alive }, OnReceiverDeath::Drop));
        claims.push((Claimed::Reader { alive }, OnReceiverDeath::Drop));
        claims.push((Claimed::Reader { alive }, OnReceiverDeath::Redeliver));
    }
    claims
}

/// The short operations, with a real kill at each instruction.
pub fn plans_with_real_kills() -> Vec<Plan> {
    let start = |policy| Start { before: 1, ..Start::new(2, 1, policy) };
    [
        (Op::TrySend, OnReceiverDeath::Drop),
        (Op::ReserveDrop, OnReceiverDeath::Drop),
        (Op::TryRecv, OnReceiverDeath::Drop),
        (Op::TryRecv, OnReceiverDeath::Redeliver),
        (Op::Close, OnReceiverDeath::Drop),
    ]
    .map(|(op, policy)| plan(op, start(policy), true))
    .into()
}
