//! What the machine needs for the bare thing: words that bounce, words to sleep on, and full cache
//! lines that are handed over.

use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex;

use crate::channel::{Duplex, Receiver, Sender, Spinner};
use crate::shared::{APART, Words};

/// A word that one end writes and the other polls: nothing can be faster, and a message lasts until
/// the next.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    words: Words<AtomicU64>,
    place: usize,
    end: u64,
    last: u64,
}

impl Line {
    /// One line for each way.
    pub(crate) fn pair() -> io::Result<[Duplex<Line, Line>; 2]> {
        let words = Words::new(2 * APART)?;
        let [there, back] =
            [0, APART].map(|place| Line { words: words.clone(), place, end: 0, last: 0 });
        Ok([Duplex(there.clone(), back.clone()), Duplex(back, there)])
    }

    /// The two ends of one line for both ways.
    pub(crate) fn single() -> io::Result<[Line; 2]> {
        let words = Words::new(1)?;
        Ok([0, 1].map(|end| Line { words: words.clone(), place: 0, end, last: 0 }))
    }

    #[inline]
    fn put(&mut self, number: u64) {
        self.last = number << 1 | self.end;
        self.words[self.place].store(self.last, Ordering::Release);
    }

    #[inline]
    fn get(&mut self) -> u64 {
        let word = &self.words[self.place];
        loop {
            let now = word.load(Ordering::Acquire);
            if now != self.last {
                self.last = now;
                return now >> 1;
            }
            spin_loop();
        }
    }
}

impl Sender<1> for Line {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; 1], fill: impl FnOnce(&mut [u64; 1])) {
        fill(buffer);
        self.put(buffer[0]);
    }
}

impl Receiver<1> for Line {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; 1], read: impl FnOnce(&[u64; 1]) -> R) -> R {
        read(&[self.get()])
    }
}

/// A word that one end writes and the other sleeps on.
#[derive(Clone, Debug)]
pub(crate) struct Futex {
    words: Words<AtomicU32>,
    place: usize,
    last: u32,
}

impl Futex {
    /// One word for each way.
    pub(crate) fn pair() -> io::Result<[Duplex<Futex, Futex>; 2]> {
        let words = Words::new(4 * APART)?;
        let [there, back] =
            [0, 2 * APART].map(|place| Futex { words: words.clone(), place, last: 0 });
        Ok([Duplex(there.clone(), back.clone()), Duplex(back, there)])
    }
}

impl Sender<1> for Futex {
    fn send(&mut self, buffer: &mut [u64; 1], fill: impl FnOnce(&mut [u64; 1])) {
        fill(buffer);
        let word = &self.words[self.place];
        word.store(buffer[0] as u32, Ordering::Release);
        futex::wake(word, futex::Flags::empty(), 1).expect("the word is mapped");
    }
}

impl Receiver<1> for Futex {
    fn recv<R>(&mut self, _: &mut [u64; 1], read: impl FnOnce(&[u64; 1]) -> R) -> R {
        let word = &self.words[self.place];
        loop {
            let now = word.load(Ordering::Acquire);
            if now != self.last {
                self.last = now;
                return read(&[now.into()]);
            }
            // Woken, interrupted or too late: the word says.
            let _ = futex::wait(word, futex::Flags::empty(), now, None);
        }
    }
}

/// Messages of 8 bytes in a line with its number.
const IN_LINE: usize = 7;
/// 64-bit words in a line.
const LINE: usize = 8;

/// Full cache lines handed over, seven messages of 8 bytes in each: no ring of words can be faster,
/// and none can be used like this, as the seventh message is needed to send the first.
#[derive(Debug)]
pub(crate) struct Lines {
    words: Words<AtomicU64>,
    line: usize,
    held: [u64; IN_LINE],
    filled: usize,
}

impl Lines {
    /// Lines of the ring: as many bytes as the other rings of 8-byte messages have for these.
    const COUNT: usize = 256;

    /// The sending and the receiving end.
    pub(crate) fn ends() -> io::Result<[Lines; 2]> {
        let words = Words::new(Lines::COUNT * LINE)?;
        Ok([(); 2].map(|()| Lines { words: words.clone(), line: 0, held: [0; IN_LINE], filled: 0 }))
    }

    /// Waits until the line's last word says that it is `full` or not, and gives the line.
    #[inline]
    fn wait(&self, full: bool) -> &[AtomicU64] {
        let line = &self.words[self.line * LINE..][..LINE];
        let mut spinner = Spinner::default();
        // Acquire pairs with the Release of the other end.
        while (line[IN_LINE].load(Ordering::Acquire) != 0) != full {
            spinner.wait();
        }
        line
    }
}

impl Sender<1> for Lines {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; 1], fill: impl FnOnce(&mut [u64; 1])) {
        fill(buffer);
        self.held[self.filled] = buffer[0];
        self.filled += 1;
        if self.filled == IN_LINE {
            self.flush();
        }
    }

    #[inline]
    fn flush(&mut self) {
        if self.filled == 0 {
            return;
        }
        let line = self.wait(false);
        for (word, value) in line.iter().zip(self.held) {
            word.store(value, Ordering::Relaxed);
        }
        line[IN_LINE].store(self.filled as u64, Ordering::Release);
        self.line = (self.line + 1) % Lines::COUNT;
        self.filled = 0;
    }
}

/// The receiving end of [`Lines`].
#[derive(Debug)]
pub(crate) struct LinesOut {
    lines: Lines,
    next: usize,
    there: usize,
}

impl From<Lines> for LinesOut {
    fn from(lines: Lines) -> LinesOut {
        LinesOut { lines, next: 0, there: 0 }
    }
}

impl Receiver<1> for LinesOut {
    #[inline]
    fn recv<R>(&mut self, _: &mut [u64; 1], read: impl FnOnce(&[u64; 1]) -> R) -> R {
        if self.next == self.there {
            let line = self.lines.wait(true);
            let there = line[IN_LINE].load(Ordering::Relaxed) as usize;
            let mut held = [0; IN_LINE];
            for (value, word) in held.iter_mut().zip(line) {
                *value = word.load(Ordering::Relaxed);
            }
            line[IN_LINE].store(0, Ordering::Release);
            self.lines.held = held;
            self.lines.line = (self.lines.line + 1) % Lines::COUNT;
            (self.next, self.there) = (0, there);
        }
        self.next += 1;
        read(&[self.lines.held[self.next - 1]])
    }
}
