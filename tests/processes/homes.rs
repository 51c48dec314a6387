//! A segment in a file outlives its processes, the boot and the pid namespace in which they lived,
//! and is of use wherever it is opened next.
//!
//! The header says where a segment is at home. It used to say the pid namespace alone, whose number
//! is the same on every boot of every machine, so a process of today was judged by the pid of one
//! that died before the last reboot; and two processes that did not know their namespaces were of
//! the same. Now a file of another home moves to a new one if nobody has it open there, and
//! everybody whom its peer table knows is dead.
//!
//! Another boot is played by writing another home wherever the file says its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use offspring::{
    Handle, Lock, LockError, LockTimeoutError, OnReceiverDeath, Queue, QueueOptions, Segment,
    SegmentError, TryLockError, TryRecvError,
};

use crate::common::raw::{Board, Errand, Raw};
use crate::common::{self, fork, raw, sandbox};
use crate::harness::{apart, apply};

const LONG: Duration = Duration::from_secs(30);

/// Where the header has the home.
const HOME: u64 = 48;

/// A segment in a file, in a folder of its own.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    /// In memory, where the kernel keeps locks, if there is such a place.
    fn new() -> Place {
        let folder =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let path = folder.path().join("segment");
        Place { _folder: folder, path }
    }

    fn create(&self) -> Segment {
        Segment::create_file(&self.path, 1 << 16).expect("a segment")
    }

    fn open(&self) -> Result<Segment, SegmentError> {
        Segment::open_file(&self.path).map_err(SegmentError::into_reason)
    }

    fn home(&self) -> u64 {
        home_of(&self.path)
    }
}

fn home_of(path: &Path) -> u64 {
    let mut home = [0; 8];
    File::open(path).expect("open").read_exact_at(&mut home, HOME).expect("readable");
    u64::from_ne_bytes(home)
}

/// Another boot, the same number of a namespace.
fn another_boot(home: u64) -> u64 {
    home ^ 0x5bd1_e995_0000_0000
}

/// Has everything in the file, which nobody has open, be of another home: the header, and whoever
/// is in the peer table.
fn rehome(path: &Path, home: u64) -> usize {
    let before = home_of(path).to_ne_bytes();
    let bytes = std::fs::read(path).expect("readable");
    let file = OpenOptions::new().write(true).open(path).expect("open");
    let words = bytes.chunks_exact(8).zip((0..).step_by(8)).filter(|(word, _)| *word == before);
    let places: Vec<u64> = words.map(|(_, offset)| offset).collect();
    assert!(places.contains(&HOME));
    places
        .iter()
        .for_each(|&offset| file.write_all_at(&home.to_ne_bytes(), offset).expect("writable"));
    places.len() - 1
}

/// Opens a file while others may do so, too.
fn works(segment: &Segment) {
    let queue = Queue::<u64>::with_capacity_in(segment, 4).expect("a queue");
    let lock = Lock::new_in(segment, 0_u64).expect("a lock");
    let (theirs, their_lock) = (queue.clone(), lock.clone());
    let child = fork(move || {
        *their_lock.lock().expect("free") += 1;
        theirs.send(7).expect("room");
    });
    assert_eq!(queue.recv_timeout(LONG), Ok(7));
    child.expect("fork").join().expect("a value");
    assert_eq!(*lock.lock().expect("free"), 1);
}

#[apply(apart)]
fn a_file_of_another_boot_opens_and_works() {
    let place = Place::new();
    drop(place.create());
    let own = place.home();
    assert_ne!(own >> 32, 0, "a file says of which boot it is");
    for other in [
        another_boot(own),
        own ^ 1 << 32,
        own ^ 1,
        own & 0xffff_ffff,
        another_boot(own) ^ 7,
        0,
        1,
        u64::MAX,
    ] {
        rehome(&place.path, other);
        for _ in 0..2 {
            let segment = place.open().unwrap_or_else(|error| panic!("{other:#x}: {error}"));
            assert_eq!(place.home(), own, "it has moved");
            works(&segment);
            assert_eq!(segment.reap(), Ok(0));
        }
    }
}

/// The name of an object, for a process that opens its segment.
fn note(board: Board, first: usize, handle: Handle) {
    let words: [u64; 3] = bytemuck::cast(handle);
    (first..).zip(words).for_each(|(word, value)| board.set(word, value));
}

fn noted(board: Board, first: usize) -> Handle {
    bytemuck::cast([first, first + 1, first + 2].map(|word| board.get(word)))
}

const READY: usize = 0;
const GO_ON: usize = 1;
const LOCK: usize = 10;
const QUEUE: usize = 20;
const OTHER: usize = 30;

/// A process that has the lock, and stays.
fn holder(place: &Place, board: Board) -> Raw {
    let holder = raw::fork(|| {
        let segment =
            if place.path.exists() { place.open().expect("the segment") } else { place.create() };
        let lock = Lock::new_in(&segment, 5_u64).expect("a lock");
        note(board, LOCK, lock.handle());
        std::mem::forget(lock.lock().expect("free"));
        board.set(READY, 1);
        common::sleep_for_ever();
    });
    board.wait(READY, 1);
    holder
}

#[apply(apart)]
fn everybody_of_another_boot_is_dead_though_their_numbers_live() {
    let (place, board) = (Place::new(), Board::new());
    let living = holder(&place, board);
    // A copy of what such a process leaves behind, while the process itself goes on: its number,
    // its start, everything is as it was.
    let copy = Place {
        path: place.path.with_extension("copy"),
        _folder: tempfile::tempdir().expect("a folder"),
    };
    std::fs::copy(&place.path, &copy.path).expect("a copy");
    let known = rehome(&copy.path, another_boot(place.home()));
    assert!(known >= 1, "the table says under which home its entries were made");
    let segment = copy.open().expect("of another boot");
    let lock =
        Lock::<u64>::open(&segment, noted(board, LOCK)).expect("it is held by a dead process");
    match lock.lock_timeout(LONG) {
        Err(LockTimeoutError::OwnerDied) => {
            let guard = lock.recover().expect("nobody has it");
            assert_eq!(*guard.mark_repaired(), 5);
        }
        other => panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string())),
    }
    assert_eq!(segment.reap(), Ok(1));
    // The original is still its owner's.
    let segment = place.open().expect("of this boot");
    let lock = Lock::<u64>::open(&segment, noted(board, LOCK)).expect("it is held");
    assert!(matches!(lock.lock_timeout(Duration::from_millis(30)), Err(LockTimeoutError::Timeout)));
    assert_eq!(segment.reap(), Ok(0));
    living.kill();
}

#[apply(apart)]
fn what_the_dead_of_another_boot_were_doing_is_put_right() {
    for reaped in [false, true] {
        let (place, board) = (Place::new(), Board::new());
        let process = raw::fork(|| {
            let segment = place.create();
            let lock = Lock::new_in(&segment, [1_u64; 2]).expect("a lock");
            let queue = Queue::<[u64; 2]>::with_capacity_in(&segment, 2).expect("a queue");
            let mut options = QueueOptions::new();
            let other: Queue<u64> = options
                .capacity(1)
                .on_receiver_death(OnReceiverDeath::Redeliver)
                .create_in(&segment)
                .expect("a queue");
            note(board, LOCK, lock.handle());
            note(board, QUEUE, queue.handle());
            note(board, OTHER, other.handle());
            queue.send([3; 2]).expect("room");
            other.send(4).expect("room");
            let mut guard = lock.lock().expect("free");
            guard[0] = 2;
            let mut reservation = queue.reserve().expect("room");
            reservation[0] = 9;
            std::mem::forget((guard, reservation, other.recv_ref().expect("a message")));
            board.set(READY, 1);
            common::sleep_for_ever();
        });
        board.wait(READY, 1);
        process.kill();
        assert!(rehome(&place.path, another_boot(place.home())) >= 1);
        let segment = place.open().expect("of another boot");
        let lock = Lock::<[u64; 2]>::open(&segment, noted(board, LOCK)).expect("there");
        let queue = Queue::<[u64; 2]>::open(&segment, noted(board, QUEUE)).expect("there");
        let other = Queue::<u64>::open(&segment, noted(board, OTHER)).expect("there");
        if reaped {
            assert_eq!(segment.reap(), Ok(1));
        }
        match lock.lock_timeout(LONG) {
            Err(LockTimeoutError::OwnerDied) => {
                let guard = lock.recover().expect("nobody has it");
                assert_eq!(*guard.mark_repaired(), [2, 1]);
            }
            other => panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string())),
        }
        assert_eq!(queue.recv_timeout(LONG), Ok([3; 2]));
        assert!(matches!(queue.try_recv(), Err(TryRecvError::Empty)), "half a message");
        for number in 0..4 {
            queue.send_timeout([number; 2], LONG).expect("the slot of the dead is free");
            assert_eq!(queue.recv_timeout(LONG), Ok([number; 2]));
        }
        assert_eq!(other.recv_timeout(LONG), Ok(4), "it is delivered again");
        works(&segment);
    }
}

/// So many processes open the file at the same moment, and meet in it.
fn open_at_once(count: u64, rounds: u64) {
    let place = Place::new();
    let segment = place.create();
    let lock = Lock::new_in(&segment, 0_u64).expect("a lock");
    // Holds the lock that they look for, as an object goes with its last holder.
    let keeper = raw::fork(|| {
        let segment = place.open().expect("open");
        let _lock = Lock::<u64>::open(&segment, lock.handle()).expect("there");
        std::mem::forget(_lock);
    });
    keeper.join();
    let handle = lock.handle();
    std::mem::forget(lock);
    let own = place.home();
    drop(segment);
    for round in 0..rounds {
        // Nobody has it open: this process, which made it, has ended its life in it by the copy
        // below.
        let there = Place::new();
        std::fs::copy(&place.path, &there.path).expect("a copy");
        rehome(&there.path, another_boot(own) ^ round << 40);
        let board = Board::new();
        let processes: Vec<Errand> = (0..count)
            .map(|_| {
                Errand::send(|| {
                    board.add(READY, 1);
                    while board.get(GO_ON) == 0 {
                        std::hint::spin_loop();
                    }
                    let segment = match there.open() {
                        Ok(segment) => segment,
                        Err(error) => return format!("{error}: {error:?}"),
                    };
                    let lock = Lock::<u64>::open(&segment, handle).expect("it is held by the dead");
                    for _ in 0..100 {
                        *lock.lock().expect("free") += 1;
                    }
                    board.add(2, 1);
                    // All hold it until all have counted.
                    board.wait(2, count);
                    let total = *lock.lock().expect("free");
                    std::mem::forget(lock);
                    total.to_string()
                })
            })
            .collect();
        board.wait(READY, count);
        board.set(GO_ON, 1);
        let answers: Vec<String> = processes.into_iter().map(Errand::answer).collect();
        assert_eq!(answers, vec![(count * 100).to_string(); count as usize], "round {round}");
        assert_eq!(there.home(), own);
    }
}

#[apply(apart)]
fn two_processes_that_open_a_file_of_another_boot_at_once_share_it() {
    open_at_once(2, 60);
}

#[apply(apart)]
fn many_processes_that_open_a_file_of_another_boot_at_once_share_it() {
    open_at_once(12, 6);
}

/// Runs `life` under ptrace up to its first mark, a signal, and gives its pid; `None` if that is
/// not allowed here.
fn traced(life: impl FnOnce()) -> Option<Raw> {
    let traced = raw::fork(|| {
        if ptrace::traceme().is_err() {
            raw::exit(77);
        }
        let _ = nix::sys::signal::raise(Signal::SIGSTOP);
        life();
    });
    match waitpid(pid_of(&traced), None).expect("it is ours") {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => Some(traced),
        _ => {
            std::mem::forget(traced);
            sandbox::skip("this process may not trace another");
            None
        }
    }
}

fn pid_of(process: &Raw) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(process.pid())
}

/// Lets it go on to the beginning or end of its next system call; false if it has ended instead.
fn go_on_to_call(process: &Raw) -> bool {
    ptrace::syscall(pid_of(process), None).expect("stopped");
    matches!(
        waitpid(pid_of(process), None).expect("it is ours"),
        WaitStatus::Stopped(_, Signal::SIGTRAP)
    )
}

#[apply(apart)]
fn a_process_killed_while_it_moves_in_is_in_nobodys_way() {
    let (place, board) = (Place::new(), Board::new());
    drop(holder(&place, board));
    let own = place.home();
    let mut killed = 0;
    for stops in 1.. {
        rehome(&place.path, another_boot(own) ^ stops << 40);
        let Some(process) = traced(|| {
            place.open().expect("of another boot");
        }) else {
            return;
        };
        let ended = !(0..stops).all(|_| go_on_to_call(&process));
        if ended {
            // It came to its end before.
            std::mem::forget(process);
            assert_eq!(place.home(), own);
            break;
        }
        process.kill();
        killed += 1;
        let segment = place.open().unwrap_or_else(|error| panic!("killed at {stops}: {error}"));
        assert_eq!(place.home(), own, "killed at {stops}");
        let lock =
            Lock::<u64>::open(&segment, noted(board, LOCK)).expect("its holder died with it");
        let next = lock.lock_timeout(LONG).map(|guard| *guard);
        assert_eq!(next, Err(LockTimeoutError::OwnerDied), "killed at {stops}");
        drop(lock.recover().expect("nobody has it").mark_repaired());
        // It dies with the lock once more, for the next round.
        let keeper = raw::fork(|| {
            let segment = place.open().expect("open");
            let lock = Lock::<u64>::open(&segment, noted(board, LOCK)).expect("there");
            std::mem::forget(lock);
        });
        keeper.join();
        drop((lock, segment));
        let again = raw::fork(|| {
            let segment = place.open().expect("open");
            let lock = Lock::<u64>::open(&segment, noted(board, LOCK)).expect("there");
            std::mem::forget(lock.lock().expect("repaired"));
            std::mem::forget(segment);
            board.set(READY, 2);
            common::sleep_for_ever();
        });
        board.wait(READY, 2);
        board.set(READY, 1);
        again.kill();
    }
    assert!(killed > 20, "at {killed} places only");
}

#[apply(apart)]
fn a_process_stopped_while_it_moves_in_is_alive() {
    // Whatever it has done so far, whoever comes after it gets in, or is told that somebody is
    // there; and it goes on as if nothing had been.
    let (place, board) = (Place::new(), Board::new());
    drop(holder(&place, board));
    let own = place.home();
    let (mut shared, mut refused) = (0, 0);
    for stops in (1..).step_by(3) {
        rehome(&place.path, another_boot(own) ^ stops << 40);
        let Some(process) = traced(|| {
            let segment = place.open().expect("of another boot");
            // Of its own: what only the dead had is gone once somebody has cleared up.
            let lock = Lock::new_in(&segment, 5_u64).expect("a lock");
            note(board, LOCK, lock.handle());
            std::mem::forget(lock.lock().expect("free"));
            board.set(READY, 2);
            board.wait(GO_ON, 1);
        }) else {
            return;
        };
        board.set(GO_ON, 0);
        let reached =
            (0..stops).take_while(|_| board.get(READY) < 2).all(|_| go_on_to_call(&process));
        assert!(reached);
        if board.get(READY) == 2 {
            process.kill();
            break;
        }
        match place.open() {
            Ok(segment) => {
                // The dead of the round before.
                segment.reap().expect("attached");
                shared += 1;
            }
            Err(SegmentError::Os { call: "fcntl", .. }) => refused += 1,
            Err(other) => panic!("stopped at {stops}: {other:?}"),
        }
        ptrace::detach(pid_of(&process), None).expect("stopped");
        board.wait(READY, 2);
        board.set(READY, 1);
        assert_eq!(place.home(), own);
        // It has the lock now, and lives.
        let segment = place.open().expect("of this boot");
        let lock = Lock::<u64>::open(&segment, noted(board, LOCK)).expect("there");
        segment.reap().expect("attached");
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "stopped at {stops}");
        assert_eq!(segment.reap(), Ok(0), "stopped at {stops}");
        drop((lock, segment));
        process.kill();
    }
    assert!(shared > 3, "shared {shared}, refused {refused}");
}

/// A process of another pid namespace that has the file open, holds a lock in it, and stays. The
/// board has its name.
fn elsewhere(place: &Place, board: Board, prepare: impl FnOnce()) -> Option<sandbox::Inside> {
    let inside = sandbox::fork_into_pid_namespace(|| {
        let segment =
            if place.path.exists() { place.open().expect("the segment") } else { place.create() };
        let lock = Lock::new_in(&segment, 5_u64).expect("a lock");
        note(board, LOCK, lock.handle());
        std::mem::forget(lock.lock().expect("free"));
        prepare();
        board.set(READY, 1);
        common::sleep_for_ever();
    })?;
    board.wait(READY, 1);
    board.set(READY, 0);
    Some(inside)
}

#[track_caller]
fn is_foreign(opened: Result<Segment, SegmentError>) {
    match opened {
        Err(SegmentError::ForeignNamespace { segment, own }) => {
            assert_ne!(segment, own);
            let link = std::fs::read_link("/proc/self/ns/pid").expect("/proc is mounted");
            assert_eq!(link.to_string_lossy(), format!("pid:[{own}]"));
        }
        other => panic!("{other:?}"),
    }
}

#[apply(apart)]
fn a_file_that_somebody_has_open_in_another_namespace_is_refused() {
    let (place, board) = (Place::new(), Board::new());
    let Some(inside) = elsewhere(&place, board, || ()) else { return };
    let there = place.home();
    for _ in 0..2 {
        is_foreign(place.open());
    }
    // Also by a third one.
    let third = sandbox::fork_into_pid_namespace(|| is_foreign(place.open()))
        .expect("there was one before");
    third.join();
    assert_eq!(place.home(), there, "nobody has moved it");
    inside.kill();
}

#[apply(apart)]
fn a_file_opens_once_the_others_namespace_is_dead() {
    let (place, board) = (Place::new(), Board::new());
    let Some(inside) = elsewhere(&place, board, || ()) else { return };
    is_foreign(place.open());
    inside.kill();
    let segment = place.open().expect("they are dead");
    let lock = Lock::<u64>::open(&segment, noted(board, LOCK)).expect("its holder died with it");
    match lock.lock_timeout(LONG) {
        Err(LockTimeoutError::OwnerDied) => {
            let guard = lock.recover().expect("nobody has it");
            assert_eq!(*guard.mark_repaired(), 5);
        }
        other => panic!("{:?}", other.map(|guard| *guard).map_err(|error| error.to_string())),
    }
    assert_eq!(segment.reap(), Ok(1));
    works(&segment);
    // Now it is at home here, and foreign there.
    let refused = sandbox::fork_into_pid_namespace(|| is_foreign(place.open()))
        .expect("there was one before");
    refused.join();
}

#[apply(apart)]
fn a_file_moves_there_and_back() {
    let place = Place::new();
    drop(place.create());
    let own = place.home();
    for _ in 0..5 {
        let board = Board::new();
        let Some(inside) = elsewhere(&place, board, || ()) else { return };
        assert_ne!(place.home(), own);
        is_foreign(place.open());
        inside.kill();
        let segment = place.open().expect("they are dead");
        assert_eq!(place.home(), own);
        let lock =
            Lock::<u64>::open(&segment, noted(board, LOCK)).expect("its holder died with it");
        assert!(matches!(lock.lock(), Err(LockError::OwnerDied)));
    }
}

#[apply(apart)]
fn a_process_that_closed_its_descriptors_still_keeps_the_file_at_home() {
    let (place, board) = (Place::new(), Board::new());
    if !place.path.starts_with("/dev/shm") {
        return sandbox::skip("there is no folder in memory");
    }
    let Some(inside) = elsewhere(&place, board, || sandbox::close_all_from(3)) else { return };
    is_foreign(place.open());
    inside.kill();
    place.open().expect("they are dead");
}

#[apply(apart)]
fn a_namespace_number_that_is_used_again_is_no_evidence() {
    // The kernel gives the number of a dead namespace to the next that is made. Should somebody
    // else get it, there is another turn.
    for _ in 0..20 {
        let (place, board) = (Place::new(), Board::new());
        let Some(inside) = elsewhere(&place, board, || ()) else { return };
        let there = place.home();
        inside.kill();
        // The number is free a moment later.
        std::thread::sleep(Duration::from_millis(30));
        let found = Board::new();
        let next = sandbox::fork_into_pid_namespace(|| {
            // Its number, the first of its namespace, is that of the dead one.
            let segment = place.open().expect("at home here, or nobody is there");
            found.set(0, (place.home() == there).into());
            let lock =
                Lock::<u64>::open(&segment, noted(board, LOCK)).expect("its holder died with it");
            let next = lock.lock_timeout(LONG);
            assert!(
                matches!(next, Err(LockTimeoutError::OwnerDied)),
                "{:?}",
                next.map(|guard| *guard).map_err(|error| error.to_string())
            );
        });
        next.expect("there was one before").join();
        if found.get(0) == 1 {
            return;
        }
    }
    sandbox::skip("no namespace got the number of a dead one");
}

#[apply(apart)]
fn a_file_is_neither_made_nor_opened_where_the_home_cannot_be_found_out() {
    let place = Place::new();
    drop(place.create());
    let own = place.home();
    rehome(&place.path, another_boot(own));
    #[cfg(target_arch = "x86_64")]
    const OPENS: [i64; 3] = [libc::SYS_open, libc::SYS_readlink, libc::SYS_readlinkat];
    #[cfg(not(target_arch = "x86_64"))]
    const OPENS: [i64; 1] = [libc::SYS_readlinkat];
    for errno in [libc::EPERM, libc::ENOSYS] {
        raw::fork(|| {
            sandbox::refuse(&OPENS, errno);
            sandbox::refuse(&[libc::SYS_pidfd_open], errno);
            assert!(matches!(place.open(), Err(SegmentError::Os { .. })));
            assert!(matches!(
                Segment::create_file(place.path.with_extension("new"), 1 << 16)
                    .map_err(SegmentError::into_reason),
                Err(SegmentError::Os { .. })
            ));
        })
        .join();
    }
    assert_eq!(place.home(), another_boot(own), "an error changes nothing");
    assert!(!place.path.with_extension("new").exists());
    // Nor without `/proc`, which knows the boot.
    if sandbox::can_enter() {
        raw::fork(|| {
            let folder = place.path.parent().expect("a folder");
            assert!(sandbox::enter(folder));
            let opened = Segment::open_file("/segment");
            assert!(matches!(opened, Err(SegmentError::File { .. })), "{opened:?}");
            assert!(matches!(
                Segment::create_file("/new", 1 << 16),
                Err(SegmentError::File { .. })
            ));
            assert_eq!(std::fs::read_dir("/").expect("a folder").count(), 1, "no draft is left");
        })
        .join();
    }
    assert_eq!(place.home(), another_boot(own), "an error changes nothing");
    // Where locks are refused, those who are at home may still open it, and nobody else may.
    raw::fork(|| {
        sandbox::install(&[sandbox::Rule {
            call: libc::SYS_fcntl,
            only: Some((1, u32::MAX, libc::F_OFD_SETLK.cast_unsigned())),
            errno: libc::EINVAL,
        }]);
        assert!(matches!(place.open(), Err(SegmentError::Os { call: "fcntl", .. })));
    })
    .join();
    works(&place.open().expect("of another boot"));
    raw::fork(|| {
        sandbox::install(&[sandbox::Rule {
            call: libc::SYS_fcntl,
            only: Some((1, u32::MAX, libc::F_OFD_SETLK.cast_unsigned())),
            errno: libc::EINVAL,
        }]);
        works(&place.open().expect("of this boot"));
    })
    .join();
}

#[apply(apart)]
fn an_anonymous_segment_of_another_namespace_is_refused() {
    use std::os::unix::net::UnixStream;
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let segment = Segment::create(1 << 16).expect("a segment");
    segment.send(&ours).expect("sent");
    segment.send(&ours).expect("sent");
    let Some(inside) = sandbox::fork_into_pid_namespace(|| {
        is_foreign(Segment::receive(&theirs));
        let own = Segment::create(1 << 16).expect("a segment");
        let queue = Queue::<u64>::with_capacity_in(&own, 4).expect("a queue");
        assert_eq!((queue.send(7), queue.recv()), (Ok(()), Ok(7)));
        own.send(&theirs).expect("sent");
    }) else {
        return;
    };
    inside.join();
    assert_eq!(Segment::receive(&theirs).expect("this process's own").id(), segment.id());
    // The last who lived there is dead, and its memory with it.
    assert!(matches!(Segment::receive(&ours), Err(SegmentError::ForeignNamespace { .. })));
}
