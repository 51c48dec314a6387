//! Ends of channels at a fork: which of them become the child's, in whatever they are wrapped, and
//! whatever runs while the closure is dropped in the parent.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use offspring::plain::{Receiver, Sender};
use offspring::{
    Child, ForkError, JoinError, QueueOptions, RecvError, RecvTimeoutError, Segment, TryRecvError,
};

use crate::common::raw::{self, Board, Raw};
use crate::common::{
    PATIENCE, children, fork, sandbox, sleep_for_ever, sleep_for_ever_returning_nothing, wait_until,
};
use crate::ends::{OPEN, is_disconnected, pair, stays_open};
use crate::harness::{apart, apply, test};
use crate::victims::end;

/// A value that does something when it is dropped by the process that made it, and nothing in
/// another one.
struct AtDrop<F: FnOnce()>(u32, Option<F>);

impl<F: FnOnce()> AtDrop<F> {
    fn new(act: F) -> Self {
        AtDrop(std::process::id(), Some(act))
    }
}

impl<F: FnOnce()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        if self.0 == std::process::id()
            && let Some(act) = self.1.take()
        {
            act();
        }
    }
}

/// While the closure is dropped, its ends are neither the parent's nor yet the child's.
#[apply(test)]
fn an_end_is_there_before_it_is_handed_over() {
    let (sender, receiver) = pair(1);
    let (to_child, from_parent) = pair(1);
    let asks = AtDrop::new(move || {
        let start = Instant::now();
        while start.elapsed() < OPEN {
            assert!(!receiver.is_disconnected() && !to_child.is_disconnected());
        }
        DROPPED.with_borrow_mut(|dropped| dropped.extend([receiver]));
    });
    // Fields are dropped in this order.
    let captured = (sender, from_parent, asks);
    let child: Child<()> = fork(move || {
        let _all = captured;
        sleep_for_ever()
    })
    .expect("fork");
    let receiver = DROPPED.take().pop().expect("it was dropped here");
    assert!(!receiver.is_disconnected());
    end(child);
    wait_until("it is told", || receiver.is_disconnected());
}

thread_local! {
    /// What the drop of a closure leaves to the test.
    static DROPPED: RefCell<Vec<Receiver<u64>>> = const { RefCell::new(Vec::new()) };
}

/// The child of a fork within a fork once got the ends that were for the other child, and what was
/// dropped after that went to nobody.
#[apply(test)]
fn a_fork_in_the_drop_of_a_captured_value_leaves_the_ends_to_whom_they_belong() {
    let (first, from_first) = pair(1);
    let (inner, from_inner) = pair(1);
    let (last, from_last) = pair(1);
    let children = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&children);
    let nest = AtDrop::new(move || {
        let child: Result<Child<()>, ForkError> = fork(move || {
            let _inner = inner;
            sleep_for_ever()
        });
        kept.lock().expect("no panic").push(child.expect("fork"));
    });
    // Fields are dropped in this order.
    let captured = (first, nest, last);
    let outer: Child<()> = fork(move || {
        let _all = captured;
        sleep_for_ever()
    })
    .expect("fork");
    for receiver in [&from_first, &from_inner, &from_last] {
        stays_open(receiver);
    }
    end(outer);
    is_disconnected(&from_first);
    is_disconnected(&from_last);
    stays_open(&from_inner);
    end(children.lock().expect("no panic").pop().expect("the inner child"));
    is_disconnected(&from_inner);
}

/// As its copy of the parent's memory was made in the middle of a drop.
#[apply(test)]
fn a_child_of_such_a_fork_releases_what_it_drops() {
    let (outer, from_outer) = pair(1);
    let (inner, from_inner) = pair(1);
    let children = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&children);
    let nest = AtDrop::new(move || {
        let child: Result<Child<()>, ForkError> = fork(move || {
            inner.send(7).expect("connected");
            drop(inner);
            sleep_for_ever()
        });
        kept.lock().expect("no panic").push(child.expect("fork"));
    });
    let captured = (outer, nest);
    let outer = fork(move || drop(captured)).expect("fork");
    outer.join().expect("well");
    is_disconnected(&from_outer);
    assert_eq!(from_inner.recv(), Ok(7));
    is_disconnected(&from_inner);
    end(children.lock().expect("no panic").pop().expect("the inner child"));
}

/// And so does a process that other code makes at such a time.
#[apply(test)]
fn a_raw_fork_in_the_drop_of_a_captured_value_releases_what_it_drops() {
    let (sender, receiver) = pair(4);
    let raw: Arc<Mutex<Option<Raw>>> = Arc::default();
    let kept = Arc::clone(&raw);
    let theirs = AtDrop::new({
        let sender = sender.clone();
        move || {
            let raw = raw::fork(|| {
                let own = sender.clone();
                drop(sender);
                own.send(7).expect("connected");
                drop(own);
                sleep_for_ever()
            });
            *kept.lock().expect("no panic") = Some(raw);
        }
    });
    // So that there is a channel when the raw one comes to it.
    let open = sender.clone();
    let captured = (sender, theirs);
    fork(move || drop(captured)).expect("fork").join().expect("well");
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(7));
    drop(open);
    is_disconnected(&receiver);
    raw.lock().expect("no panic").take().expect("a process").kill();
}

/// An end that is made only while the closure is dropped is no capture. The child has no such end,
/// and once kept the channel open for it.
#[apply(test)]
fn an_end_that_a_drop_makes_and_drops_is_not_the_childs() {
    let (sender, receiver) = pair(1);
    let sender = Arc::new(sender);
    let theirs = Arc::clone(&sender);
    let cloner = AtDrop::new(move || drop(Sender::clone(&theirs)));
    let child: Child<()> = fork(move || {
        let _cloner = cloner;
        sleep_for_ever()
    })
    .expect("fork");
    stays_open(&receiver);
    drop(sender);
    is_disconnected(&receiver);
    end(child);
}

/// An end that lay elsewhere, and that the drop of a captured value takes and drops, is the
/// child's: there the same value may take it, too.
#[apply(test)]
fn an_end_that_a_drop_takes_from_a_static_is_the_childs() {
    static KEPT: Mutex<Option<Sender<u64>>> = Mutex::new(None);
    struct Taker;
    impl Drop for Taker {
        fn drop(&mut self) {
            drop(KEPT.lock().expect("no panic").take());
        }
    }
    let (sender, receiver) = pair(1);
    *KEPT.lock().expect("no panic") = Some(sender);
    let taker = Taker;
    let (go, wait) = pair(1);
    let child = fork(move || {
        wait.recv().expect("connected");
        drop(taker);
        sleep_for_ever()
    });
    let child: Child<()> = child.expect("fork");
    stays_open(&receiver);
    go.send(0).expect("connected");
    is_disconnected(&receiver);
    end(child);
}

/// Signals come through while the closure is dropped, as they do without any ends. A program that a
/// drop starts would inherit that they do not.
#[apply(test)]
fn the_closure_is_dropped_with_the_signals_that_the_program_had() {
    let board = Board::new();
    let (sender, receiver) = pair(1);
    let look = AtDrop::new(move || {
        let mask = SigSet::thread_get_mask().expect("a mask");
        board.set(0, 1 + u64::from(mask.contains(Signal::SIGTERM)));
        let child = fork(move || {
            let mask = SigSet::thread_get_mask().expect("a mask");
            board.set(1, 1 + u64::from(mask.contains(Signal::SIGTERM)));
        });
        child.expect("fork").join().expect("well");
    });
    let captured = (sender, look);
    fork(move || drop(captured)).expect("fork").join().expect("well");
    is_disconnected(&receiver);
    assert_eq!((board.get(0), board.get(1)), (1, 1), "2 where SIGTERM is blocked");
}

/// Whoever drops the only reference drops the end.
#[apply(test)]
fn ends_are_found_in_whatever_the_closure_captured() {
    type Work = Box<dyn FnOnce() + Send>;
    type Wrap = fn(Sender<u64>) -> Work;
    let wraps: [(&str, Wrap); 7] = [
        ("an Arc", |sender| {
            let sender = Arc::new(sender);
            Box::new(move || sender.send(7).expect("connected"))
        }),
        ("a boxed closure", |sender| {
            let inner: Work = Box::new(move || sender.send(7).expect("connected"));
            Box::new(inner)
        }),
        ("an Option that the closure empties", |sender| {
            let mut sender = Some(sender);
            Box::new(move || sender.take().expect("some").send(7).expect("connected"))
        }),
        ("a Mutex in a Vec", |sender| {
            let senders = Vec::from([Mutex::new(sender)]);
            Box::new(move || senders[0].lock().expect("free").send(7).expect("connected"))
        }),
        ("a clone beside its original", |sender| {
            let senders = [sender.clone(), sender.clone(), sender];
            Box::new(move || {
                let [first, second, third] = senders;
                drop((first, third));
                second.send(7).expect("connected");
            })
        }),
        ("an Rc and a thread-local of the child", |sender| {
            thread_local! {
                static KEPT: RefCell<Option<Rc<Sender<u64>>>> = const { RefCell::new(None) };
            }
            Box::new(move || {
                KEPT.set(Some(Rc::new(sender)));
                KEPT.with_borrow(|kept| kept.as_ref().expect("set").send(7).expect("connected"));
            })
        }),
        ("a thread of the child", |sender| {
            Box::new(move || {
                let thread = std::thread::spawn(move || sender.send(7).expect("connected"));
                thread.join().expect("no panic");
            })
        }),
    ];
    for (what, wrap) in wraps {
        let (sender, receiver) = pair(1);
        let work = wrap(sender);
        let (go, wait) = pair(1);
        let child = fork(move || {
            wait.recv().expect("connected");
            work();
        })
        .expect("fork");
        // Nobody has another one, so it counts for the child before its first use.
        assert_eq!(receiver.recv_timeout(OPEN / 5), Err(RecvTimeoutError::Timeout), "{what}");
        go.send(0).expect("connected");
        assert_eq!(receiver.recv(), Ok(7), "{what}");
        assert_eq!(receiver.recv(), Err(RecvError::Disconnected), "{what}");
        child.join().expect("well");
    }
}

/// The parent's copy of what is in an `Arc` is not dropped; the child's counts from its first use.
#[apply(test)]
fn an_end_in_an_arc_that_the_parent_keeps_counts_from_its_first_use() {
    let (sender, receiver) = pair(1);
    let sender = Arc::new(sender);
    let theirs = Arc::clone(&sender);
    let child: Child<()> = fork(move || {
        theirs.send(7).expect("connected");
        sleep_for_ever()
    })
    .expect("fork");
    assert_eq!(receiver.recv(), Ok(7));
    drop(sender);
    stays_open(&receiver);
    end(child);
    is_disconnected(&receiver);
}

/// Dropped in the child without ever being used, and the child goes on.
#[apply(test)]
fn an_end_that_the_child_never_used_is_gone_when_it_is_dropped() {
    let (sender, receiver) = pair(1);
    let (go, wait) = pair(1);
    let child: Child<()> = fork(move || {
        wait.recv().expect("connected");
        drop(sender);
        sleep_for_ever()
    })
    .expect("fork");
    stays_open(&receiver);
    go.send(0).expect("connected");
    is_disconnected(&receiver);
    end(child);
}

/// Every level keeps an end of its own, and they go from the root on.
#[apply(test)]
fn every_generation_has_ends_of_its_own() {
    let (sender, receiver) = pair(16);
    let (leave, left) = pair(16);
    fn generation(depth: u64, sender: Sender<u64>, left: Receiver<u64>) {
        let deeper = (depth > 0).then(|| {
            let (sender, left) = (sender.clone(), left.clone());
            fork(move || generation(depth - 1, sender, left)).expect("fork")
        });
        sender.send(depth).expect("connected");
        drop(sender);
        drop(left);
        if let Some(child) = deeper {
            child.join().expect("well");
        }
    }
    let child = fork(move || generation(6, sender, left)).expect("fork");
    let mut depths: Vec<u64> = receiver.iter().collect();
    depths.sort_unstable();
    assert_eq!(depths, (0..=6).collect::<Vec<_>>());
    child.join().expect("well");
    assert!(leave.send(0).expect_err("nobody is there").is_disconnected());
}

/// Of two segments that are not the commons, both ways at once.
#[apply(test)]
fn ends_of_several_segments_go_to_the_same_child() {
    let segments = [(); 2].map(|()| Segment::create(1 << 20).expect("a segment"));
    let make = |segment| {
        let options = QueueOptions::new().capacity(2).clone();
        options.create_plain_channel_in::<u64>(segment).expect("a channel")
    };
    let (there, theirs) = make(&segments[0]);
    let (back, ours) = make(&segments[1]);
    let (commons, from_commons) = pair(2);
    let child = fork(move || {
        for number in &theirs {
            back.send(number + 1).expect("connected");
        }
        commons.send(3).expect("connected");
    })
    .expect("fork");
    there.send(1).expect("connected");
    assert_eq!(ours.recv(), Ok(2));
    drop(there);
    is_disconnected(&ours);
    assert_eq!(from_commons.recv(), Ok(3));
    is_disconnected(&from_commons);
    child.join().expect("well");
}

/// Half of them are the child's, of two channels and both roles.
#[apply(test)]
fn ten_thousand_ends_at_a_fork() {
    let (sender, receiver) = pair(4);
    let (back, answers) = pair(4);
    let senders: Vec<_> = (0..5000).map(|_| sender.clone()).collect();
    let receivers: Vec<_> = (0..2500).map(|_| receiver.clone()).collect();
    let kept: Vec<_> = (0..2500).map(|_| back.clone()).collect();
    drop(receiver);
    let start = Instant::now();
    let child = fork(move || {
        let got = receivers[1234].recv().expect("connected");
        back.send(got).expect("connected");
        drop(receivers);
    })
    .expect("fork");
    println!("a fork with 10,000 ends: {:?}", start.elapsed());
    senders[77].send(7).expect("connected");
    assert_eq!(answers.recv(), Ok(7));
    child.join().expect("well");
    wait_until("the senders learn it", || {
        sender.try_send(8).is_err_and(|error| error.is_disconnected())
    });
    drop(senders);
    stays_open(&answers);
    drop(kept);
    is_disconnected(&answers);
}

/// No child, no ends: they are dropped with the closure, and the other side is told.
#[apply(apart)]
fn a_fork_that_fails_releases_what_the_closure_captured() {
    let (sender, receiver) = pair(1);
    let (kept, from_kept) = pair(1);
    let other = kept.clone();
    sandbox::refuse(&[libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork], libc::EAGAIN);
    let error = fork(move || drop((sender, other))).expect_err("no process");
    assert!(matches!(error, ForkError::Os { .. }), "{error}");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(from_kept.try_recv(), Err(TryRecvError::Empty));
    kept.send(1).expect("connected");
}

/// The table of descriptors is full: nothing can be made, and all that there is goes on.
#[apply(apart)]
fn a_full_table_of_descriptors_changes_nothing_for_those_who_have_ends() {
    let (sender, receiver) = pair(1);
    let (killed, from_killed) = pair(1);
    // It uses its end: else only a descriptor could say what has become of it.
    let child: Child<()> = fork(move || {
        killed.send(7).expect("connected");
        sleep_for_ever()
    })
    .expect("fork");
    assert_eq!(from_killed.recv(), Ok(7));
    let mut files = Vec::new();
    let limit = rustix::process::Rlimit { current: Some(200), maximum: Some(200) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("setrlimit");
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    let error = fork(move || drop(sender)).expect_err("no descriptor");
    assert!(matches!(error, ForkError::Os { .. }), "{error}");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    child.kill().expect("a signal");
    is_disconnected(&from_killed);
    drop(files);
    assert!(matches!(child.join(), Err(JoinError::Killed(9))));
}

/// As daemons are.
#[apply(apart)]
fn ends_need_no_standard_streams() {
    #[expect(unsafe_code, reason = "closes what others own")]
    for fd in 0..3 {
        // SAFETY: takes an integer; nobody writes to the streams from now on.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
    let (sender, receiver) = pair(1);
    let (killed, from_killed) = pair(1);
    let worker = fork(move || sender.send(7).expect("connected")).expect("fork");
    let sleeper: Child<()> = fork(move || {
        let _killed = killed;
        sleep_for_ever()
    })
    .expect("fork");
    assert_eq!(receiver.recv(), Ok(7));
    is_disconnected(&receiver);
    stays_open(&from_killed);
    end(sleeper);
    is_disconnected(&from_killed);
    worker.join().expect("well");
}

/// In an empty root the child is named as the one to kill in another way.
#[apply(apart)]
fn ends_go_to_a_child_without_proc() {
    if !sandbox::can_enter() || !sandbox::namespace_is_known_without_proc() {
        return;
    }
    let (early, from_early) = pair(1);
    let folder = tempfile::tempdir().expect("a folder");
    assert!(sandbox::enter(folder.path()));
    let child = fork(move || early.send(7).expect("connected")).expect("fork");
    assert_eq!(from_early.recv(), Ok(7));
    is_disconnected(&from_early);
    child.join().expect("well");
    let (killed, from_killed) = pair(1);
    let sleeper: Child<()> = fork(move || {
        let _killed = killed;
        sleep_for_ever()
    })
    .expect("fork");
    stays_open(&from_killed);
    end(sleeper);
    is_disconnected(&from_killed);
}

/// Copies of ends in processes that other code makes keep nothing open. One that is used counts,
/// and is gone with its process.
#[apply(test)]
fn copies_in_processes_that_other_code_made_count_when_they_are_used() {
    type Make = fn(Box<dyn FnOnce()>) -> Raw;
    let makes: [(&str, Make); 2] =
        [("fork", |life| raw::fork(life)), ("clone", |life| raw::clone(life))];
    for (how, make) in makes {
        let (sender, receiver) = pair(4);
        let sender = Arc::new(sender);
        let copy = Arc::clone(&sender);
        let idle = make(Box::new(sleep_for_ever_returning_nothing));
        let user = make(Box::new(move || {
            copy.send(7).expect("connected");
            sleep_for_ever()
        }));
        let dropper = make({
            let copy = sender.clone();
            Box::new(move || {
                // The count of this copy says that others have it, so it is taken apart by hand.
                let inner = Sender::clone(&copy);
                drop(inner);
                sleep_for_ever()
            })
        });
        assert_eq!(receiver.recv(), Ok(7), "{how}");
        drop(sender);
        stays_open(&receiver);
        dropper.kill();
        stays_open(&receiver);
        user.kill();
        is_disconnected(&receiver);
        idle.kill();
    }
}

/// A process that other code made has nothing in the segment before it uses something, and does not
/// enter it only to drop what it never had.
#[apply(test)]
fn a_copy_that_is_dropped_in_a_raw_fork_does_not_enter_the_segment() {
    let segment = Segment::create(1 << 20).expect("a segment");
    let (sender, receiver) =
        QueueOptions::new().create_plain_channel_in::<u64>(&segment).expect("a channel");
    let copy = sender.clone();
    raw::fork(move || drop(copy)).join();
    assert_eq!(segment.reap(), Ok(0), "nobody was there");
    let copy = sender.clone();
    raw::fork(move || copy.send(7).expect("connected")).join();
    assert_eq!(segment.reap(), Ok(1));
    assert_eq!(receiver.recv(), Ok(7));
    drop(sender);
    is_disconnected(&receiver);
}

/// The parent tells its child through a mapping which ends are the child's.
#[apply(test)]
fn a_fork_with_ends_leaves_no_mapping() {
    let mappings = || std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count();
    let (sender, receiver) = pair(4);
    let forks = |times| {
        for _ in 0..times {
            let theirs = sender.clone();
            fork(move || drop(theirs)).expect("fork").join().expect("no panic");
        }
    };
    forks(3);
    let before = mappings();
    forks(30);
    assert!(mappings() < before + 15, "{before} before, {} after 30 forks", mappings());
    drop(sender);
    is_disconnected(&receiver);
}

/// A process that other code made, and that comes to use its copies when the channel is gone, hears
/// the same from `is_disconnected` as from the operations.
#[apply(test)]
fn a_raw_fork_learns_that_the_channel_is_gone() {
    let (sender, receiver) = pair(4);
    let (mut told, mut tell) = std::io::pipe().expect("a pipe");
    // This process drops what the closure has.
    let child = raw::fork(move || {
        told.read_exact(&mut [0]).expect("the parent tells");
        assert!(sender.is_disconnected() && receiver.is_disconnected());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Broken(_))));
    });
    tell.write_all(&[0]).expect("the child listens");
    child.join();
}

/// Threads of one process share its bit.
#[apply(test)]
fn threads_clone_and_drop_ends_at_once() {
    let child = fork(|| {
        for _ in 0..40 {
            let (sender, receiver) = pair(8);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (mut sender, mut receiver) = (sender.clone(), receiver.clone());
                    scope.spawn(move || {
                        for turn in 0..200_u64 {
                            // The clone first: at no moment has this thread none.
                            sender = sender.clone();
                            receiver = receiver.clone();
                            sender.send(thread * 1000 + turn).expect("connected");
                            receiver.recv().expect("connected");
                        }
                    });
                }
            });
            drop(sender);
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        }
    });
    child.expect("fork").join().expect("well");
}

/// The index of a dead child is soon another's. Each finds a channel of its own in order, and a
/// channel that outlives them all is never taken for disconnected.
#[apply(test)]
fn a_thousand_children_after_each_other_use_each_index_again() {
    let (sender, receiver) = pair(4);
    for number in 0..1100 {
        let (own, from_child) = pair(1);
        let long_lived = sender.clone();
        let child = fork(move || {
            own.send(number).expect("connected");
            long_lived.send(number).expect("connected");
            if number % 3 == 0 {
                raw::exit(0);
            }
        })
        .expect("fork");
        assert_eq!(receiver.recv(), Ok(number));
        assert_eq!(from_child.recv(), Ok(number));
        assert_eq!(from_child.recv(), Err(RecvError::Disconnected), "child {number}");
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "child {number}");
        drop(child.join());
    }
    drop(sender);
    is_disconnected(&receiver);
    assert_eq!(children(), []);
}
