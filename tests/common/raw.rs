//! Processes that the crate knows nothing of: made by libc's `fork`, or by a bare system call. And
//! memory that they share.
//!
//! The tests that use this run in one thread, so a copy of the process may go on as the process
//! itself does.
#![expect(unsafe_code, reason = "fork, wait and shared pages by hand")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::unistd::{Pid, getpid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed(i32),
}

/// A process of ours; killed and waited for when it is dropped.
#[derive(Debug)]
pub struct Raw {
    pid: i32,
    ended: Option<Ended>,
}

/// Runs `life` in a copy of this process that libc's `fork` makes. It exits with 0, or with 101 if
/// `life` panics, and is killed if this process ends before.
pub fn fork(life: impl FnOnce()) -> Raw {
    let own = getpid();
    // SAFETY: this process has one thread.
    begin(own, unsafe { libc::fork() }, life)
}

/// As [`fork`], by a bare system call, which no library learns of.
pub fn clone(life: impl FnOnce()) -> Raw {
    let own = getpid();
    // SAFETY: as above; no memory and no stack is shared.
    begin(own, unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as i32, life)
}

fn begin(parent: Pid, pid: i32, life: impl FnOnce()) -> Raw {
    match pid {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            super::parent::end_with(parent);
            let code = if catch_unwind(AssertUnwindSafe(life)).is_ok() { 0 } else { 101 };
            exit(code)
        }
        pid => Raw { pid, ended: None },
    }
}

/// Ends this process at once.
pub fn exit(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends the calling thread and no other.
pub fn end_this_thread() -> ! {
    // SAFETY: nothing on the stack of a thread that calls this is used by another.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended");
}

/// Sends a signal to a process.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: takes no pointer.
    let result = unsafe { libc::kill(pid, signal) };
    assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
}

impl Raw {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn id(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits until it has ended, and takes its status.
    pub fn wait(&mut self) -> Ended {
        let mut status = 0;
        loop {
            if let Some(ended) = self.ended {
                return ended;
            }
            // SAFETY: the status is a valid place to write.
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
            if pid == self.pid && libc::WIFEXITED(status) {
                self.ended = Some(Ended::Exited(libc::WEXITSTATUS(status)));
            } else if pid == self.pid && libc::WIFSIGNALED(status) {
                self.ended = Some(Ended::Killed(libc::WTERMSIG(status)));
            } else if pid == -1 {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
            }
        }
    }

    /// Waits for its end, which must be in good order.
    #[track_caller]
    pub fn join(mut self) {
        assert_eq!(self.wait(), Ended::Exited(0));
    }

    /// Kills it and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// Kills it, and leaves it a zombie until this value is dropped.
    pub fn kill_and_leave(&self) {
        signal(self.pid, libc::SIGKILL);
        super::wait_until("the process ends", || {
            matches!(super::state(self.id()), Some('Z') | None)
        });
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            signal(self.pid, libc::SIGKILL);
            self.wait();
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.end();
    }
}

const WORDS: usize = 64;
const TEXT: usize = 32 << 10;

#[repr(C)]
struct Page {
    words: [AtomicU64; WORDS],
    len: AtomicU64,
    text: [std::cell::UnsafeCell<u8>; TEXT],
}

/// Some words and a text that a process shares with all its descendants, and by no means of the
/// crate's. It needs no descriptor, and stays mapped.
#[derive(Clone, Copy)]
pub struct Board(&'static Page);

// SAFETY: words are atomic; the text is written by one process, which then stores its length, and
// read only after that.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    pub fn new() -> Board {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, somewhere.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Page>(), access, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: it is as large as a `Page` and all zero, which is a good one, and it is never
        // unmapped.
        Board(unsafe { &*page.cast::<Page>() })
    }

    pub fn set(&self, word: usize, value: u64) {
        self.0.words[word].store(value, Ordering::SeqCst);
    }

    pub fn add(&self, word: usize, value: u64) {
        self.0.words[word].fetch_add(value, Ordering::SeqCst);
    }

    pub fn get(&self, word: usize) -> u64 {
        self.0.words[word].load(Ordering::SeqCst)
    }

    /// Waits until the word has at least this value.
    pub fn wait(&self, word: usize, value: u64) {
        while self.get(word) < value {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Writes the text, for one reader that comes after the writer's end.
    pub fn say(&self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(TEXT)];
        // SAFETY: there is room for so much, and nobody reads before the length is stored.
        unsafe {
            std::ptr::copy_nonoverlapping(
                text.as_ptr(),
                self.0.text.as_ptr().cast_mut().cast(),
                text.len(),
            )
        };
        self.0.len.store(text.len() as u64, Ordering::SeqCst);
    }

    pub fn text(&self) -> String {
        let len = self.0.len.load(Ordering::SeqCst) as usize;
        // SAFETY: the writer has stored so many bytes, and is done.
        let text = unsafe { std::slice::from_raw_parts(self.0.text.as_ptr().cast::<u8>(), len) };
        String::from_utf8_lossy(text).into_owned()
    }
}

/// A copy of this process that finds something out.
pub struct Errand {
    raw: Raw,
    board: Board,
}

impl Errand {
    pub fn send(work: impl FnOnce() -> String) -> Errand {
        let board = Board::new();
        Errand { raw: fork(|| board.say(&work())), board }
    }

    pub fn id(&self) -> u32 {
        self.raw.id()
    }

    /// What it found out.
    #[track_caller]
    pub fn answer(mut self) -> String {
        assert_eq!(self.raw.wait(), Ended::Exited(0), "{}", self.board.text());
        self.board.text()
    }
}
