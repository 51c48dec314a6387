//! A word that somebody judged does not come back while that one is held up, however often the
//! others go round.
//!
//! Whoever acts on a word that it has judged does so by a compare-and-swap from that very word, so
//! a word must not return to a value that it had. Names in claim words once held ten bits of a
//! generation, and came back after 1,023 children, in half a second; a process that was held up
//! between its verdict and its swap then took a lock from its living owner. The version of a shared
//! block came back after 4,096 attachments, and the block was freed under a process that had 4,096
//! handles of it.
//!
//! Here a process is held up by ptrace right before the swap, and let go when the others have gone
//! round 4,096 times, which is a whole turn of every counter of up to twelve bits. x86-64 only, as
//! the swap is found by its instruction.

#![expect(unsafe_code, reason = "reads program text")]

use std::time::Duration;

use offspring::{
    Handle, Lock, OnReceiverDeath, Queue, QueueOptions, Segment, TryLockError, TryRecvError,
};

use crate::common::raw::{self, Board, Raw};
use crate::common::trace::{Next, Tracee, mark};
use crate::common::{self, fork};
use crate::harness::{apart, apply};

/// How often the others go round: as often as a counter of twelve bits can tell apart, and so as
/// any shorter one can.
const TURNS: u64 = 1 << 12;

/// Words of the board.
const READY: usize = 0;
const GO_ON: usize = 1;
const DONE: usize = 2;
const SAID: usize = 3;

/// A process that is stopped at its mark, and can be held up later.
struct HeldUp(Tracee);

impl HeldUp {
    fn at_mark(life: impl FnOnce()) -> HeldUp {
        HeldUp(Tracee::start(life))
    }

    /// Lets it go on up to the first swap of a word that names an owner, above three bits that say
    /// in which state it is. If there is to be a `verdict` before that, up to the first after it
    /// has asked the kernel about somebody.
    fn go_on_to_swap(&mut self, verdict: bool) {
        // About the lock of a mapping, or about a process.
        const ASKS: [i64; 4] =
            [libc::SYS_fcntl, libc::SYS_pidfd_open, libc::SYS_poll, libc::SYS_ppoll];
        let mut asked = !verdict;
        // The mark itself is the next instruction.
        for _ in 0..1_000_000 {
            if let Next::Call(call) = self.0.next() {
                asked |= ASKS.contains(&call.number);
            }
            let registers = self.0.registers();
            if asked && registers.rax >> 3 != 0 && is_swap(registers.rip) {
                return;
            }
            assert!(self.0.step(), "it ended: {:?}", self.0.ended());
        }
        panic!("it comes to no swap");
    }

    /// Lets it go on to its end.
    fn let_go(self) {
        let pid = self.0.pid();
        nix::sys::ptrace::detach(pid, None).expect("stopped");
        std::mem::forget(self.0);
        let ended = nix::sys::wait::waitpid(pid, None).expect("it is ours");
        assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 0)), "{ended:?}");
    }
}

/// Whether the instruction is a compare-and-swap of eight bytes: `lock cmpxchg` with a prefix that
/// says "wide".
fn is_swap(address: u64) -> bool {
    // SAFETY: the process is a fork of this one that has loaded nothing since, so this process has
    // the same program text there.
    let code = unsafe { core::ptr::read_unaligned(address as *const [u8; 4]) };
    code[0] == 0xf0 && code[1] & 0xf8 == 0x48 && code[2..] == [0x0f, 0xb1]
}

/// A process that does something, and ends by being killed. It is waited for.
fn dead_after(board: Board, act: impl FnOnce()) {
    let process = raw::fork(|| {
        act();
        board.set(READY, 1);
        common::sleep_for_ever();
    });
    board.wait(READY, 1);
    board.set(READY, 0);
    process.kill();
}

/// A process that does something, and stays.
fn alive_after(board: Board, act: impl FnOnce()) -> Raw {
    let process = raw::fork(|| {
        act();
        board.set(READY, 1);
        common::sleep_for_ever();
    });
    board.wait(READY, 1);
    process
}

/// So many processes come, use the segment and leave, one after the other, each in the place of the
/// last.
fn others_come_and_go(segment: &Segment, count: u64) {
    let lock = Lock::new_in(segment, 0_u64).expect("a lock");
    for _ in 0..count {
        let lock = lock.clone();
        fork(move || *lock.lock().expect("free") += 1).expect("fork").join().expect("a value");
    }
    assert_eq!(*lock.lock().expect("free"), count);
}

#[apply(apart)]
fn a_lock_is_not_taken_from_a_later_owner() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (board, lock) = (Board::new(), Lock::new_in(&segment, [0_u64; 2]).expect("a lock"));
    let mut judge = HeldUp::at_mark(|| {
        assert!(lock.try_lock().is_ok());
        mark();
        let said = match lock.try_lock() {
            Err(TryLockError::WouldBlock) => 1,
            Err(TryLockError::OwnerDied) => 2,
            _ => 3,
        };
        board.set(SAID, said);
    });
    dead_after(board, || std::mem::forget(lock.lock().expect("free")));
    judge.go_on_to_swap(true);
    assert_eq!(segment.reap(), Ok(1));
    assert!(lock.lock().is_err_and(|error| error.is_owner_died()));
    drop(lock.recover().expect("nobody has it").mark_repaired());
    others_come_and_go(&segment, TURNS - 1);
    // This one has the place of the dead owner, and a name that differs by 4,096.
    let later = raw::fork(|| {
        let mut guard = lock.lock().expect("free");
        guard[0] += 1;
        board.set(READY, 1);
        board.wait(GO_ON, 1);
        std::thread::sleep(Duration::from_millis(20));
        guard[1] += 1;
        assert_eq!(*guard, [1, 1], "two owners at a time");
    });
    board.wait(READY, 1);
    judge.let_go();
    assert_eq!(board.get(SAID), 1, "2: it was given the lock of a living process");
    board.set(GO_ON, 1);
    later.join();
}

#[apply(apart)]
fn a_message_is_not_taken_from_a_later_reader() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let mut options = QueueOptions::new();
    let queue: Queue<u64> = options
        .capacity(2)
        .on_receiver_death(OnReceiverDeath::Redeliver)
        .create_in(&segment)
        .expect("a queue");
    let board = Board::new();
    let mut judge = HeldUp::at_mark(|| {
        assert!(queue.is_empty());
        mark();
        let said = match queue.try_recv() {
            Err(TryRecvError::Empty) => 1,
            Ok(7) => 2,
            _ => 3,
        };
        board.set(SAID, said);
    });
    queue.send(7).expect("room");
    dead_after(board, || std::mem::forget(queue.recv_ref().expect("a message")));
    judge.go_on_to_swap(true);
    assert_eq!(segment.reap(), Ok(1));
    others_come_and_go(&segment, TURNS - 1);
    let later = alive_after(board, || {
        let message = queue.try_recv_ref().expect("it is delivered again");
        assert!(message.redelivered() && *message == 7);
        std::mem::forget(message);
    });
    judge.let_go();
    assert_eq!(board.get(SAID), 1, "2: it was given a message that another has in its hands");
    assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)));
    later.kill();
    assert_eq!(queue.recv_timeout(Duration::from_secs(30)), Ok(7));
}

#[apply(apart)]
fn a_slot_is_not_taken_from_a_later_writer() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let queue = Queue::<[u64; 2]>::with_capacity_in(&segment, 1).expect("a queue");
    let board = Board::new();
    let mut judge = HeldUp::at_mark(|| {
        assert!(queue.is_empty());
        mark();
        board.set(SAID, 1 + u64::from(queue.try_send([9; 2]).is_ok()));
    });
    dead_after(board, || std::mem::forget(queue.reserve().expect("room")));
    judge.go_on_to_swap(true);
    assert_eq!(segment.reap(), Ok(1));
    // As many messages as processes, so that laps and names go round together.
    for number in 0..TURNS / 4 - 1 {
        queue.send([number; 2]).expect("room");
        assert_eq!(queue.recv(), Ok([number; 2]));
    }
    others_come_and_go(&segment, TURNS / 4 - 1);
    let later = raw::fork(|| {
        let mut reservation = queue.reserve().expect("room");
        reservation[0] = 5;
        board.set(READY, 1);
        board.wait(GO_ON, 1);
        reservation[1] = 5;
        reservation.commit();
        board.set(DONE, 1);
    });
    board.wait(READY, 1);
    judge.let_go();
    assert_eq!(board.get(SAID), 1, "2: it wrote into the slot of a living process");
    board.set(GO_ON, 1);
    later.join();
    assert_eq!(queue.try_recv(), Ok([5; 2]));
    assert!(queue.try_recv().is_err());
}

#[apply(apart)]
fn an_entry_is_not_taken_from_a_later_process() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (board, lock) = (Board::new(), Lock::new_in(&segment, 0_u64).expect("a lock"));
    let mut judge = HeldUp::at_mark(|| {
        assert!(lock.try_lock().is_ok());
        mark();
        board.set(SAID, 1 + segment.reap().map_or(100, |count| count as u64));
    });
    dead_after(board, || assert!(lock.try_lock().is_ok()));
    judge.go_on_to_swap(true);
    assert_eq!(segment.reap(), Ok(1));
    others_come_and_go(&segment, TURNS / 4 - 1);
    let later = raw::fork(|| {
        let guard = lock.lock().expect("free");
        board.set(READY, 1);
        board.wait(GO_ON, 1);
        drop(guard);
    });
    board.wait(READY, 1);
    judge.let_go();
    assert_eq!(board.get(SAID), 1, "it cleared up after {} living processes", board.get(SAID) - 1);
    assert!(
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        "the living process has lost its lock"
    );
    board.set(GO_ON, 1);
    later.join();
}

#[apply(apart)]
fn a_block_is_not_freed_under_later_handles() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (board, other) =
        (Board::new(), Queue::<u64>::with_capacity_in(&segment, 1).expect("a queue"));
    // A process that knows nothing of the queue that comes.
    let holder = raw::fork(|| {
        assert!(other.is_empty());
        board.set(READY, 1);
        board.wait(GO_ON, 1);
        let handle: Handle = bytemuck::cast([10, 11, 12].map(|word| board.get(word)));
        // The first of them is the one that counts; none is dropped.
        let handles: Vec<_> =
            (0..TURNS).map(|_| Queue::<[u64; 8]>::open(&segment, handle)).collect();
        assert!(handles.iter().all(Result::is_ok));
        board.set(DONE, 1);
        board.wait(GO_ON, 2);
        let queue = handles[0].as_ref().expect("opened");
        assert!(Queue::<[u64; 8]>::open(&segment, handle).is_ok(), "it is gone, and we hold it");
        queue.try_send([5; 8]).expect("room");
        board.set(DONE, 2);
        board.wait(GO_ON, 3);
        assert_eq!(queue.try_recv(), Ok([5; 8]), "somebody else had it");
    });
    board.wait(READY, 1);
    let queue = Queue::<[u64; 8]>::with_capacity_in(&segment, 2).expect("a queue");
    let words: [u64; 3] = bytemuck::cast(queue.handle());
    [10, 11, 12].into_iter().zip(words).for_each(|(word, value)| board.set(word, value));
    let mut theirs = Some(queue);
    let mut last = HeldUp::at_mark(|| {
        let queue = theirs.take().expect("a queue");
        assert!(queue.is_empty());
        mark();
        drop(queue);
    });
    // Now that one alone holds it, and is about to free it.
    drop(theirs.take());
    last.go_on_to_swap(false);
    board.set(GO_ON, 1);
    board.wait(DONE, 1);
    last.let_go();
    // What is made now must come to lie elsewhere.
    let next = Queue::<[u64; 8]>::with_capacity_in(&segment, 2).expect("a queue");
    next.send([1; 8]).expect("room");
    board.set(GO_ON, 2);
    board.wait(DONE, 2);
    assert_eq!(next.try_recv(), Ok([1; 8]));
    assert!(next.try_recv().is_err(), "another queue's message");
    board.set(GO_ON, 3);
    holder.join();
}
