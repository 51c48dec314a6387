//! A value between processes: no update is lost, nobody reads half of one, and a process that is
//! killed in the middle of one leaves the old value.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use offspring::{Child, Queue, Shm, TryUpdateError, UpdateError, UpdateTimeoutError, Value};

use crate::common::{self, fork, raw};
use crate::harness::{apply, test};
use crate::victims::kill;

/// More than a word.
type Pair = [u64; 2];

/// A child that has changed the value and not yet returned from the closure.
fn in_the_middle<T: Shm>(value: &Value<T>, change: fn(&mut T)) -> Child<()> {
    let ready = Queue::<u64>::with_capacity(1).expect("a queue");
    let (theirs, their_ready) = (value.clone(), ready.clone());
    let child = fork(move || {
        let update = theirs.update(|value| {
            change(value);
            their_ready.send(0).expect("open");
            common::sleep_for_ever();
        });
        update.expect("nobody is in the way");
    });
    ready.recv().expect("the child is ready");
    child.expect("fork")
}

/// Four processes change the value 20,000 times each, while this one reads it.
fn four_processes_count<T: Shm>(
    value: &Value<T>,
    add: fn(&Value<T>) -> Result<(), UpdateError>,
    check: impl Fn(T),
) {
    let children: Vec<Child<()>> = (0..4)
        .map(|_| {
            let theirs = value.clone();
            let work = move || (0..20_000).for_each(|_| add(&theirs).expect("its turn comes"));
            fork(work).expect("fork")
        })
        .collect();
    let runs =
        |child: &Child<()>| common::processes::state(child.id()).is_some_and(|state| state != 'Z');
    while children.iter().any(runs) {
        check(value.get().expect("ours"));
    }
    children.into_iter().for_each(|child| child.join().expect("no panic"));
}

#[apply(test)]
fn no_update_of_a_word_is_lost() {
    let value = Value::new(0_u64).expect("a value");
    four_processes_count(&value, |value| value.update(|count| *count += 1), |_| ());
    assert_eq!(value.get(), Ok(80_000));
}

#[apply(test)]
fn no_addition_is_lost() {
    let value = Value::new(0_u64).expect("a value");
    four_processes_count(&value, |value| value.fetch_add(1).map(drop), |_| ());
    assert_eq!(value.get(), Ok(80_000));
    let value = Value::new(0.0_f32).expect("a value");
    four_processes_count(&value, |value| value.fetch_add(0.5).map(drop), |_| ());
    assert_eq!(value.get(), Ok(40_000.0));
}

#[apply(test)]
fn no_update_of_two_copies_is_lost_and_none_is_read_by_halves() {
    let value = Value::new([0_u64; 9]).expect("a value");
    four_processes_count(
        &value,
        |value| value.update(|words| words.iter_mut().for_each(|word| *word += 1)),
        |words| assert_eq!(words, [words[0]; 9], "torn"),
    );
    assert_eq!(value.get(), Ok([80_000; 9]));
}

#[apply(test)]
fn a_writer_killed_in_the_middle_leaves_the_old_value() {
    let word = Value::new(7_u64).expect("a value");
    let pair = Value::new([7_u64; 2]).expect("a value");
    let children =
        [in_the_middle(&word, |word| *word = 8), in_the_middle(&pair, |pair| pair[0] = 8)];
    assert_eq!(pair.try_update(|_| ()), Err(TryUpdateError::WouldBlock));
    assert_eq!(
        pair.update_timeout(|_| (), Duration::from_millis(30)),
        Err(UpdateTimeoutError::Timeout)
    );
    assert_eq!((word.get(), pair.get()), (Ok(7), Ok([7; 2])), "nobody waits to read");
    children.iter().for_each(kill);
    assert_eq!((word.get(), pair.get()), (Ok(7), Ok([7; 2])));
    assert_eq!(word.fetch_add(1), Ok(7));
    assert_eq!(pair.update(|pair| std::mem::replace(pair, [9, 10])), Ok([7; 2]));
    assert_eq!((word.get(), pair.get()), (Ok(8), Ok([9, 10])));
    for child in children {
        assert!(child.join().is_err());
    }
}

#[apply(test)]
fn joining_the_dead_writer_lets_the_next_one_write_at_once() {
    let pair = Value::new([7_u64; 2]).expect("a value");
    let child = in_the_middle(&pair, |pair| pair[1] = 8);
    kill(&child);
    assert!(child.join().is_err());
    assert_eq!(pair.try_update(|pair| *pair), Ok([7; 2]), "joining cleared the turn");
}

/// The word that says whose turn it is names only one; those that sleep behind it must all go on.
#[apply(test)]
fn all_that_wait_behind_a_dead_writer_go_on() {
    let pair = Value::new([0_u64; 2]).expect("a value");
    let writer = in_the_middle(&pair, |pair| pair[0] = 99);
    let waiters: Vec<Child<()>> = (0..4)
        .map(|_| {
            let theirs = pair.clone();
            let add = move || theirs.update(|pair| *pair = pair.map(|word| word + 1));
            fork(move || add().expect("its turn comes")).expect("fork")
        })
        .collect();
    waiters.iter().for_each(|child| common::wait_until_asleep(child.id()));
    assert_eq!(pair.get(), Ok([0; 2]), "nobody waits to read");
    kill(&writer);
    waiters.into_iter().for_each(|child| child.join().expect("no panic"));
    assert_eq!(pair.get(), Ok([4; 2]));
    assert!(writer.join().is_err());
}

#[apply(test)]
fn a_stopped_writer_keeps_its_turn() {
    let pair = Value::new([0_u64; 2]).expect("a value");
    let writer = in_the_middle(&pair, |pair| pair[0] = 99);
    writer.signal(19).expect("SIGSTOP");
    common::wait_until_stopped(writer.id());
    let wait = pair.update_timeout(|_| (), Duration::from_millis(1100));
    assert_eq!(wait, Err(UpdateTimeoutError::Timeout));
    assert_eq!(pair.get(), Ok([0; 2]));
    kill(&writer);
    assert_eq!(pair.update(|pair| *pair), Ok([0; 2]));
    assert!(writer.join().is_err());
}

#[apply(test)]
fn writers_killed_anywhere_leave_a_whole_value() {
    let pair = Value::new([0_u64; 2]).expect("a value");
    let word = Value::new(0_u64).expect("a value");
    for round in 0..40 {
        let (theirs, their_word) = (pair.clone(), word.clone());
        let child: Child<()> = fork(move || {
            loop {
                theirs.update(|pair| *pair = pair.map(|word| word + 1)).expect("its turn comes");
                their_word.fetch_add(1).expect("free");
            }
        })
        .expect("fork");
        let before = pair.get().expect("ours")[0];
        common::wait_until("the child has begun", || pair.get().expect("ours")[0] > before);
        std::thread::sleep(Duration::from_micros(37 * round));
        kill(&child);
        let [first, second] = pair.get().expect("ours");
        assert_eq!(first, second, "half an update in round {round}");
        // Of the dead, each may have made one update whose number it did not count.
        let counted = word.get().expect("ours");
        assert!((counted..=counted + round + 1).contains(&first), "{first}, {counted} counted");
        pair.update(|pair| *pair = [counted; 2]).expect("the turn of the dead is over");
        assert!(child.join().is_err());
    }
}

/// Changes of the parent's and of the child's own, through a handle that both have.
#[apply(test)]
fn a_forked_child_sees_every_change_and_makes_its_own() {
    let word = Value::new(1_u64).expect("a value");
    let pair = Value::new([1_u64; 2]).expect("a value");
    let (their_word, their_pair) = (word.clone(), pair.clone());
    let child = fork(move || {
        common::wait_until("the parent has set it", || their_pair.get() == Ok([2; 2]));
        let seen = their_word.get().expect("attached");
        their_word.set(3).expect("free");
        their_pair.set([3; 2]).expect("free");
        seen
    })
    .expect("fork");
    word.set(2).expect("free");
    pair.set([2; 2]).expect("free");
    assert_eq!(child.join().expect("no panic"), 2);
    assert_eq!((word.get(), pair.get()), (Ok(3), Ok([3; 2])));
}

/// The closure returns twice, in the parent and in the child that it has forked. What it changed
/// there comes to nothing, and the child makes an update of its own.
#[apply(test)]
fn a_child_forked_by_other_code_in_an_update_has_no_part_in_it() {
    fn check<T: Shm + PartialEq + std::fmt::Debug>(start: T, add: fn(&mut T), both: T) {
        let value = Value::new(start).expect("a value");
        let mut pid = -1;
        let updated = catch_unwind(AssertUnwindSafe(|| {
            value.update(|number| {
                if pid == -1 {
                    #[expect(unsafe_code, reason = "no library may learn of this fork")]
                    // SAFETY: this process has one thread.
                    let forked = unsafe { libc::fork() };
                    pid = forked;
                }
                add(number);
            })
        }));
        if pid == 0 {
            raw::exit(if matches!(updated, Ok(Ok(()))) { 0 } else { 101 });
        }
        assert!(matches!(updated, Ok(Ok(()))), "{updated:?}");
        let child = Pid::from_raw(pid);
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        assert_eq!(value.get(), Ok(both));
    }
    check(0_u64, |number| *number += 1, 2);
    check([0; 2], |pair: &mut Pair| *pair = pair.map(|word| word + 1), [2; 2]);
}

#[apply(test)]
fn a_panic_in_a_child_leaves_the_old_value() {
    let pair = Value::new([1_u64; 2]).expect("a value");
    let theirs = pair.clone();
    let child: Child<()> = fork(move || {
        let update = theirs.update(|pair| {
            pair[0] = 2;
            panic!("half through");
        });
        update.expect("unreachable: it has panicked");
    })
    .expect("fork");
    assert!(child.join().is_err());
    assert_eq!(pair.try_update(|pair| *pair), Ok([1; 2]));
}
