//! Messages from senders to receivers: how many in a second.

use std::hint::black_box;
use std::time::Duration;

use crate::Failure;
use crate::acts::BlockClock;
use crate::channel::{Receiver, Sender, buffer};
use crate::figures::Sample;
use crate::peers::Ends;
use crate::stage::{Actor, Place, Signals, Stage};

/// What is done with the content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The sender writes and the receiver reads the first word and the last; what is measured is
    /// the way.
    Ends,
    /// The sender writes every word and the receiver adds them all up.
    Whole,
}

/// The first word of the last message that a sender sends.
const END: u64 = u64::MAX;
/// Messages of each sender that are written and compared as a whole before the clock starts,
/// whatever [`Content`] says.
const CHECKED: u64 = 32;
/// Sender and number share the first word.
const NUMBER_BITS: u32 = 48;

#[inline]
fn fill<const N: usize>(message: &mut [u64; N], tag: u64, whole: bool) {
    let message = black_box(message);
    if whole {
        for (index, word) in message.iter_mut().enumerate() {
            *word = tag.wrapping_add(index as u64);
        }
    } else {
        message[N - 1] = tag.wrapping_add(N as u64 - 1);
        message[0] = tag;
    }
}

/// The message's tag, once it was found in order as far as `whole` says.
#[inline]
fn check<const N: usize>(message: &[u64; N], whole: bool) -> u64 {
    let message = black_box(message);
    let tag = message[0];
    let last = tag.wrapping_add(N as u64 - 1);
    let intact = if whole {
        let (count, sum) =
            (N as u64, message.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word)));
        sum == tag.wrapping_mul(count).wrapping_add(count * (count - 1) / 2)
    } else {
        message[N - 1] == last
    };
    assert!(intact, "message {tag:#x} is damaged");
    tag
}

fn send_all<const N: usize>(
    mut channel: impl Sender<N>,
    me: u64,
    content: Content,
    signals: &Signals,
) -> u64 {
    let mut message = buffer();
    signals.meet(1);
    let mut number = 0;
    while !signals.stopped() {
        let whole = content == Content::Whole || number < CHECKED;
        channel.send(&mut message, |message| fill(message, me << NUMBER_BITS | number, whole));
        number += 1;
    }
    channel.flush();
    channel.send(&mut message, |message| fill(message, END, true));
    channel.flush();
    number
}

/// Receives from one sender: every message is the next.
fn recv_from_one<const N: usize>(
    mut channel: impl Receiver<N>,
    content: Content,
    limit: Duration,
    signals: &Signals,
) -> (u64, f64) {
    let mut message = buffer();
    signals.meet(1);
    let mut clock = BlockClock::new(limit);
    let mut number = 0;
    loop {
        let whole = content == Content::Whole || number < CHECKED;
        let tag = channel.recv(&mut message, |message| check(message, whole));
        if tag != number {
            assert!(tag == END, "message {number} is missing: {tag} came");
            return (number, 1.0 / clock.seconds());
        }
        number += 1;
        if clock.after(number) {
            signals.stop();
        }
    }
}

/// Receives from several senders, beside others: what comes from each sender comes in its order.
fn recv_from_many<const N: usize>(
    mut channel: impl Receiver<N>,
    senders: usize,
    content: Content,
    limit: Duration,
    signals: &Signals,
) -> (u64, f64) {
    let mut message = buffer();
    let mut next = vec![0; senders];
    signals.meet(1);
    let mut window = Window::new(signals.now(), limit);
    let mut count = 0;
    loop {
        let tag = channel.recv(&mut message, |message| check(message, content == Content::Whole));
        if tag == END {
            return (count, window.rate());
        }
        let (sender, number) = ((tag >> NUMBER_BITS) as usize, tag & ((1 << NUMBER_BITS) - 1));
        assert!(number >= next[sender], "message {number} of sender {sender} came late or twice");
        next[sender] = number + 1;
        count += 1;
        if window.is_due(count) && window.look(signals.now(), count) {
            signals.stop();
        }
    }
}

/// Counts what happens between the end of the warm-up and the limit: where more than the actors'
/// cores are wanted, stalls belong to the matter, and the middle half of blocks would hide them.
#[derive(Debug)]
pub(crate) struct Window {
    begin: Duration,
    end: Duration,
    every: u64,
    next: u64,
    /// The count at the first look in the window.
    first: Option<u64>,
    /// The count at the last look in the window.
    last: u64,
    looked: Duration,
}

impl Window {
    pub(crate) fn new(now: Duration, limit: Duration) -> Window {
        let begin = now + limit / 4;
        Window { begin, end: begin + limit, every: 1, next: 1, first: None, last: 0, looked: now }
    }

    #[inline]
    pub(crate) fn is_due(&self, count: u64) -> bool {
        count >= self.next
    }

    /// Says whether the window has ended.
    #[cold]
    pub(crate) fn look(&mut self, now: Duration, count: u64) -> bool {
        if self.first.is_none() && now - self.looked < Duration::from_micros(10) {
            self.every *= 2;
        }
        self.looked = now;
        self.next = count + self.every;
        if now >= self.end {
            return true;
        }
        if now >= self.begin {
            self.first.get_or_insert(count);
            self.last = count;
        }
        false
    }

    /// Operations in a second of the window, whether the actor was there all the time or not.
    pub(crate) fn rate(&self) -> f64 {
        let count = self.first.map_or(0, |first| self.last - first);
        count as f64 / (self.end - self.begin).as_secs_f64()
    }
}

/// Messages per second over a channel that `open` opens, from `count` senders to as many receivers.
///
/// With many of them the limit is longer, so that each gets some turns on its core.
pub(crate) fn stream<const N: usize, S, R>(
    stage: Stage,
    place: Place,
    limit: Duration,
    content: Content,
    count: usize,
    open: impl FnOnce() -> Result<Ends<S, R>, Failure> + Send + 'static,
) -> Result<f64, Failure>
where
    S: Sender<N> + 'static,
    R: Receiver<N> + 'static,
{
    let limit = limit * (count as u32).div_ceil(4);
    let results = stage.run(place, limit, move || {
        let ends = open()?;
        assert_eq!(
            (ends.senders.len(), ends.receivers.len()),
            (count, count),
            "every receiver must get the end of one sender"
        );
        let mut actors: Vec<Actor<(u64, f64)>> = Vec::new();
        for (me, make) in ends.senders.into_iter().enumerate() {
            actors.push(Box::new(move |signals| {
                (send_all(make(), me as u64, content, signals), 0.0)
            }));
        }
        for make in ends.receivers {
            actors.push(Box::new(move |signals| match count {
                1 if stage.hogs == 0 => recv_from_one(make(), content, limit, signals),
                _ => recv_from_many(make(), count, content, limit, signals),
            }));
        }
        Ok(actors)
    })?;
    let (sent, received) = results.split_at(count);
    let sum = |results: &[(u64, f64)]| results.iter().map(|(count, _)| count).sum::<u64>();
    if sum(sent) != sum(received) {
        return Err(
            format!("{} messages were sent and {} received", sum(sent), sum(received)).into()
        );
    }
    Ok(received.iter().map(|(_, rate)| rate).sum())
}

/// As the metrics of a case want it: millions of messages, and gigabytes, in a second.
pub(crate) fn sample<const N: usize>(rate: f64) -> Sample {
    sample_of(rate, size_of::<[u64; N]>())
}

/// As [`sample`], for messages of so many bytes.
pub(crate) fn sample_of(rate: f64, bytes: usize) -> Sample {
    Sample { values: vec![rate / 1e6, rate * bytes as f64 / 1e9], latencies: Vec::new() }
}
