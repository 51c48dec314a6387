//! Ways for messages: the queue, and what it is compared with.
#![expect(unsafe_code, reason = "views a shared page as atomics")]

use std::fs::File;
use std::hint::spin_loop;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use memmap2::MmapOptions;
use offspring::Queue;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::futex;

use crate::measure::{Channel, Message};

impl<M: Message> Channel<M> for Queue<M> {
    fn send(&mut self, message: M) {
        Queue::send(self, message).expect("the queue is open");
    }

    fn recv(&mut self) -> M {
        Queue::recv(self).expect("the queue is open")
    }
}

/// One channel to send to and another to receive from.
pub(crate) struct Both<C>(C, C);

/// The two ends of a channel there and another back.
pub(crate) fn both_ways<C: Clone>(there: C, back: C) -> [Both<C>; 2] {
    [Both(there.clone(), back.clone()), Both(back, there)]
}

impl<M: Message, C: Channel<M>> Channel<M> for Both<C> {
    fn send(&mut self, message: M) {
        self.0.send(message);
    }

    fn recv(&mut self) -> M {
        self.1.recv()
    }
}

/// `crossbeam_queue::ArrayQueue`, whose users spin.
#[derive(Clone)]
pub(crate) struct Array<M>(Arc<ArrayQueue<M>>);

impl<M> Array<M> {
    pub(crate) fn new(capacity: usize) -> Array<M> {
        Array(Arc::new(ArrayQueue::new(capacity)))
    }
}

impl<M: Message> Channel<M> for Array<M> {
    fn send(&mut self, message: M) {
        while self.0.push(message).is_err() {
            spin_loop();
        }
    }

    fn recv(&mut self) -> M {
        loop {
            match self.0.pop() {
                Some(message) => return message,
                None => spin_loop(),
            }
        }
    }
}

/// A word that processes can share, valid when zero.
pub(crate) trait Word: Sync {}
impl Word for AtomicU32 {}
impl Word for AtomicU64 {}

/// Zeroed words in memory that this process shares with its children, for good.
pub(crate) fn shared<W: Word>(count: usize) -> io::Result<&'static [W]> {
    let file = File::from(memfd_create("bench", MemfdFlags::CLOEXEC)?);
    file.set_len((count * size_of::<W>()) as u64)?;
    let map = MmapOptions::new().map_raw(&file)?;
    let first = map.as_mut_ptr().cast();
    std::mem::forget(map);
    // SAFETY: a page-aligned mapping of that many zeroed words, never unmapped; words are atomics, and nothing else uses them.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Words between those with different writers: two cache lines.
const APART: usize = 16;

/// A bare word that one end writes and the other polls: nothing can be faster, and a message lasts until the next.
#[derive(Clone)]
pub(crate) struct Line {
    word: &'static AtomicU64,
    end: u64,
    last: u64,
}

impl Line {
    /// One line for each way.
    pub(crate) fn pair() -> io::Result<[Both<Line>; 2]> {
        let words = shared(2 * APART)?;
        let [there, back] = [0, APART].map(|place| Line { word: &words[place], end: 0, last: 0 });
        Ok(both_ways(there, back))
    }

    /// The two ends of one line for both ways.
    pub(crate) fn single() -> io::Result<[Line; 2]> {
        let words = shared(1)?;
        Ok([0, 1].map(|end| Line { word: &words[0], end, last: 0 }))
    }
}

impl Channel<u64> for Line {
    fn send(&mut self, message: u64) {
        self.last = message << 1 | self.end;
        self.word.store(self.last, Ordering::Release);
    }

    fn recv(&mut self) -> u64 {
        loop {
            let now = self.word.load(Ordering::Acquire);
            if now != self.last {
                self.last = now;
                return now >> 1;
            }
            spin_loop();
        }
    }
}

/// A bare word that one end writes and the other sleeps on.
#[derive(Clone)]
pub(crate) struct Futex {
    word: &'static AtomicU32,
    last: u32,
}

impl Futex {
    /// One word for each way.
    pub(crate) fn pair() -> io::Result<[Both<Futex>; 2]> {
        let words = shared(4 * APART)?;
        let [there, back] = [0, 2 * APART].map(|place| Futex { word: &words[place], last: 0 });
        Ok(both_ways(there, back))
    }
}

impl Channel<u64> for Futex {
    fn send(&mut self, message: u64) {
        self.word.store(message as u32, Ordering::Release);
        futex::wake(self.word, futex::Flags::empty(), 1).expect("the word is mapped");
    }

    fn recv(&mut self) -> u64 {
        loop {
            let now = self.word.load(Ordering::Acquire);
            if now != self.last {
                self.last = now;
                return now.into();
            }
            // Woken, interrupted or too late: the word says.
            let _ = futex::wait(self.word, futex::Flags::empty(), now, None);
        }
    }
}

/// A Vyukov ring between processes: as our queue, but nothing says who has claimed a slot, so a kill can block it for ever.
#[derive(Clone)]
pub(crate) struct Vyukov {
    words: &'static [AtomicU64],
    capacity: u64,
    stride: usize,
}

impl Vyukov {
    const TAIL: usize = 0;
    const HEAD: usize = APART;
    const SLOTS: usize = 2 * APART;

    pub(crate) fn new<M: Message>(capacity: usize) -> io::Result<Vyukov> {
        let stride = 1 + size_of::<M>() / 8;
        let ring = Vyukov { words: shared(Vyukov::SLOTS + capacity * stride)?, capacity: capacity as u64, stride };
        for position in 0..ring.capacity {
            ring.slot(position)[0].store(position, Ordering::Relaxed);
        }
        Ok(ring)
    }

    /// Sequence number and payload of the slot for `position`.
    fn slot(&self, position: u64) -> &'static [AtomicU64] {
        let first = Vyukov::SLOTS + (position & (self.capacity - 1)) as usize * self.stride;
        &self.words[first..first + self.stride]
    }

    /// Takes the next position of `counter` once its slot has reached the sequence number `position + ahead`.
    fn claim(&self, counter: usize, ahead: u64) -> u64 {
        let counter = &self.words[counter];
        loop {
            let position = counter.load(Ordering::Relaxed);
            let ready = self.slot(position)[0].load(Ordering::Acquire) == position + ahead;
            let (now, next) = (Ordering::Relaxed, position + 1);
            if ready && counter.compare_exchange_weak(position, next, now, now).is_ok() {
                return position;
            }
            spin_loop();
        }
    }
}

impl<M: Message> Channel<M> for Vyukov {
    fn send(&mut self, message: M) {
        let position = self.claim(Vyukov::TAIL, 0);
        let (sequence, payload) = self.slot(position).split_at(1);
        for (word, &value) in payload.iter().zip(bytemuck::cast_slice(bytemuck::bytes_of(&message))) {
            word.store(value, Ordering::Relaxed);
        }
        sequence[0].store(position + 1, Ordering::Release);
    }

    fn recv(&mut self) -> M {
        let position = self.claim(Vyukov::HEAD, 1);
        let (sequence, payload) = self.slot(position).split_at(1);
        let mut message = M::zeroed();
        for (word, value) in payload.iter().zip(bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut message))) {
            *value = word.load(Ordering::Relaxed);
        }
        sequence[0].store(position + self.capacity, Ordering::Release);
        message
    }
}

/// A pipe of the operating system.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<(PipeReader, PipeWriter)>);

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        Ok(Pipe(Arc::new(io::pipe()?)))
    }
}

impl<M: Message> Channel<M> for Pipe {
    fn send(&mut self, message: M) {
        (&self.0.1).write_all(bytemuck::bytes_of(&message)).expect("both ends are open");
    }

    fn recv(&mut self) -> M {
        let mut message = M::zeroed();
        (&self.0.0).read_exact(bytemuck::bytes_of_mut(&mut message)).expect("both ends are open");
        message
    }
}
