//! Messages from senders to receivers: how many in a second.

use std::hint::black_box;

use crate::Failure;
use crate::acts::BlockClock;
use crate::acts::window::Window;
use crate::channel::{Receiver, Sender, buffer};
use crate::figures::Sample;
use crate::peers::Ends;
use crate::slice::Slice;
use crate::stage::{Place, Stage};
use crate::troupe::{Actor, Run, Troupe};

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

/// Sends until the slice is stopped, and gives the number of messages.
fn send_all<const N: usize>(
    channel: &mut impl Sender<N>,
    message: &mut [u64; N],
    me: u64,
    content: Content,
    slice: &mut Slice,
) -> u64 {
    slice.meet();
    let mut number = 0;
    while !slice.stopped() {
        let whole = content == Content::Whole || number < CHECKED;
        channel.send(message, |message| fill(message, me << NUMBER_BITS | number, whole));
        number += 1;
    }
    channel.flush();
    channel.send(message, |message| fill(message, END, true));
    channel.flush();
    number
}

/// Receives from one sender: every message is the next.
fn recv_from_one<const N: usize>(
    channel: &mut impl Receiver<N>,
    message: &mut [u64; N],
    content: Content,
    clock: &mut BlockClock,
    slice: &mut Slice,
) -> (u64, f64) {
    slice.meet();
    clock.begin(slice.length());
    let mut number = 0;
    loop {
        let whole = content == Content::Whole || number < CHECKED;
        let tag = channel.recv(message, |message| check(message, whole));
        if tag != number {
            assert!(tag == END, "message {number} is missing: {tag} came");
            return (number, 1.0 / clock.seconds());
        }
        number += 1;
        if clock.after(number) {
            slice.stop();
        }
    }
}

/// Receives from several senders, beside others: what comes from each sender comes in its order.
fn recv_from_many<const N: usize>(
    channel: &mut impl Receiver<N>,
    message: &mut [u64; N],
    senders: usize,
    content: Content,
    slice: &mut Slice,
) -> (u64, f64) {
    let mut next = vec![0; senders];
    slice.meet();
    let mut window = Window::new(slice.now(), slice.length());
    let mut count = 0;
    loop {
        let tag = channel.recv(message, |message| check(message, content == Content::Whole));
        if tag == END {
            return (count, window.rate(slice.now(), count));
        }
        let (sender, number) = ((tag >> NUMBER_BITS) as usize, tag & ((1 << NUMBER_BITS) - 1));
        assert!(number >= next[sender], "message {number} of sender {sender} came late or twice");
        next[sender] = number + 1;
        count += 1;
        if window.is_due(count) && window.look(slice.now(), count) {
            slice.stop();
        }
    }
}

/// Messages per second over a channel that `open` opens, from `count` senders to as many receivers.
///
/// With many of them slices are longer, so that each gets some turns on its core.
pub(crate) fn stream<const N: usize, S, R>(
    stage: Stage,
    place: Place,
    content: Content,
    count: usize,
    open: impl FnOnce() -> Result<Ends<S, R>, Failure> + Send + 'static,
) -> Result<Run<f64>, Failure>
where
    S: Sender<N> + 'static,
    R: Receiver<N> + 'static,
{
    let troupe = Troupe::set_up(stage, place, 2 * count, move || {
        let ends = open()?;
        assert_eq!(
            (ends.senders.len(), ends.receivers.len()),
            (count, count),
            "every receiver must get the end of one sender"
        );
        let mut actors: Vec<Actor<(u64, f64)>> = Vec::new();
        for (me, make) in ends.senders.into_iter().enumerate() {
            actors.push(Box::new(move || {
                let (mut channel, mut message) = (make(), buffer());
                Box::new(move |slice| {
                    let sent = send_all(&mut channel, &mut message, me as u64, content, slice);
                    (sent, 0.0)
                })
            }));
        }
        for make in ends.receivers {
            actors.push(Box::new(move || {
                let (mut channel, mut message, mut clock) = (make(), buffer(), BlockClock::new());
                Box::new(move |slice| match count {
                    1 if stage.hogs == 0 => {
                        recv_from_one(&mut channel, &mut message, content, &mut clock, slice)
                    }
                    _ => recv_from_many(&mut channel, &mut message, count, content, slice),
                })
            }));
        }
        Ok(actors)
    })?;
    let mut run = troupe.run(move |results| {
        let (sent, received) = results.split_at(count);
        let sum = |results: &[(u64, f64)]| results.iter().map(|(count, _)| count).sum::<u64>();
        if sum(sent) != sum(received) {
            return Err(
                format!("{} messages were sent and {} received", sum(sent), sum(received)).into()
            );
        }
        Ok(received.iter().map(|(_, rate)| rate).sum())
    });
    Ok(Box::new(move |length| run(length * (count as u32).div_ceil(4))))
}

/// As the metrics of a case want it: millions of messages, and gigabytes, in a second.
pub(crate) fn sample<const N: usize>(rate: f64) -> Sample {
    sample_of(rate, size_of::<[u64; N]>())
}

/// As [`sample`], for messages of so many bytes.
pub(crate) fn sample_of(rate: f64, bytes: usize) -> Sample {
    Sample { values: vec![rate / 1e6, rate * bytes as f64 / 1e9], latencies: Vec::new() }
}
