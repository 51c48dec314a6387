//! Zygotes that are killed.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use offspring::{Failure, JoinError, SpawnError, preload, spawn};

use crate::common::{sleep_for_ever_returning_nothing, wait_until, wait_until_dead};
use crate::scene::{others, scene, signal, zygotes};

scene! {
fn a_zygote_that_was_killed_is_replaced_and_its_children_live_on() {
    let child = spawn(|()| sleep_for_ever_returning_nothing(), ()).expect("spawn");
    for _ in 0..5 {
        let [zygote] = zygotes()[..] else { panic!("{:?}", zygotes()) };
        signal(zygote, SIGKILL);
        wait_until_dead(zygote);
        assert!(child.is_alive());
        assert_eq!(spawn(|n: u64| n, 7).expect("spawn").join().expect("a value"), 7);
    }
    child.kill().expect("it lives");
    let ending: Result<(), _> = child.join();
    assert!(matches!(ending, Err(JoinError::Killed(9))), "{ending:?}");
    assert_eq!(others(), []);
}
}

scene! {
fn a_zygote_whose_preloading_fails_does_not_stay_as_a_zombie() {
    fn fail() -> Result<(), Failure> {
        Err(std::io::Error::other("no words today").into())
    }
    let failed = preload(fail);
    assert!(matches!(&failed, Err(SpawnError::Preload(_))), "{failed:?}");
    wait_until("it ends", || zygotes().is_empty());
    assert_eq!(others(), []);
}
}

scene! {
fn children_that_are_killed_before_their_hello_do_not_stay_as_zombies() {
    fn kill_each_copy() -> Result<(), Failure> {
        crate::common::sandbox::no_core();
        // Only a copy makes this call, first of all.
        crate::common::sandbox::kill_at(libc::SYS_set_robust_list, None);
        Ok(())
    }
    preload(kill_each_copy).expect("it can be run");
    for _ in 0..3 {
        // No zygote can make it, so it is started without one.
        assert_eq!(spawn(|n: u64| n, 7).expect("spawn").join().expect("a value"), 7);
        assert_eq!(others(), []);
    }
}
}

/// Set by functions that are preloaded.
static WORDS: OnceLock<u64> = OnceLock::new();

fn words() -> Option<u64> {
    spawn(|()| WORDS.get().copied(), ()).expect("spawn").join().expect("a value")
}

fn read_words() -> Result<(), Failure> {
    WORDS.get_or_init(|| 7);
    Ok(())
}

scene! {
fn a_preloaded_function_that_ends_the_zygote_is_an_error_and_the_others_stay() {
    fn exit() -> Result<(), Failure> {
        std::process::exit(3)
    }
    fn succeed() -> Result<(), Failure> {
        std::process::exit(0)
    }
    fn be_killed() -> Result<(), Failure> {
        signal(std::process::id(), SIGKILL);
        Ok(())
    }
    fn close_all() -> Result<(), Failure> {
        crate::common::sandbox::close_all_from(0);
        Ok(())
    }
    preload(read_words).expect("it returns");
    assert_eq!(words(), Some(7));
    type Function = fn() -> Result<(), Failure>;
    let ends: [(Function, &str); 4] =
        [(exit, "exit code 3"), (succeed, "exit code 0"), (be_killed, "signal 9"), (close_all, "")];
    for (function, what) in ends {
        for _ in 0..2 {
            let ended = preload(function);
            let is_told = matches!(&ended, Err(SpawnError::Preload(why)) if why.contains(what));
            assert!(is_told, "{what}: {ended:?}");
            assert_eq!(words(), Some(7), "{what}");
            assert_eq!((zygotes().len(), others()), (1, vec![]), "{what}");
        }
    }
    preload(read_words).expect("it returns");
    assert_eq!(words(), Some(7));
}
}

scene! {
fn a_function_in_which_the_zygote_is_killed_is_run_in_the_next() {
    fn parents_file(number: u32) -> PathBuf {
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        file_of(parent.cast_unsigned(), number)
    }
    fn file_of(process: u32, number: u32) -> PathBuf {
        std::env::temp_dir().join(format!("offspring-preload-{process}-{number}"))
    }
    /// Returns in the second and the fourth zygote.
    fn wait_to_be_killed() -> Result<(), Failure> {
        let is_first = |number| File::create_new(parents_file(number)).is_ok();
        if is_first(1) || (!is_first(2) && is_first(3)) {
            sleep_for_ever_returning_nothing();
        }
        read_words()
    }
    let file = |number| file_of(std::process::id(), number);
    let kill_one_that_waits = |number| {
        wait_until("it is run", || file(number).exists());
        let [zygote] = zygotes()[..] else { panic!("{:?}", zygotes()) };
        signal(zygote, SIGKILL);
        wait_until_dead(zygote);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| kill_one_that_waits(1));
        preload(wait_to_be_killed).expect("it returns in the second");
    });
    assert_eq!(words(), Some(7));
    // Also when it is run anew.
    kill_one_that_waits(2);
    std::thread::scope(|scope| {
        scope.spawn(|| kill_one_that_waits(3));
        assert_eq!(words(), Some(7));
    });
    assert_eq!((zygotes().len(), others()), (1, vec![]));
    for number in 1..=3 {
        std::fs::remove_file(file(number)).expect("it was made");
    }
}
}

scene! {
fn requests_to_end_do_not_end_a_zygote() {
    spawn(|()| (), ()).expect("spawn").join().expect("a value");
    let before = zygotes();
    for request in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal(before[0], request);
        assert_eq!(spawn(|n: u64| n, 7).expect("spawn").join().expect("a value"), 7);
    }
    assert_eq!(zygotes(), before);
}
}

scene! {
fn an_idle_zygote_takes_no_time() {
    spawn(|()| (), ()).expect("spawn").join().expect("a value");
    let [zygote] = zygotes()[..] else { panic!("{:?}", zygotes()) };
    crate::common::wait_until_asleep(zygote);
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{zygote}/status")).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.map(str::to_owned)
    };
    let before = switches();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches(), before);
}
}

scene! {
fn zygotes_that_are_killed_while_threads_ask_them_hang_nobody() {
    let (done, values, errors) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let killed = AtomicU64::new(0);
    // All threads of the scene must see the end of this time.
    let end = Instant::now() + Duration::from_secs(10);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|thread| {
                let (values, errors) = (&values, &errors);
                scope.spawn(move || {
                    let mut round = thread;
                    while Instant::now() < end {
                        round += 4;
                        match spawn(|n: u64| n + 1, round) {
                            Ok(child) => {
                                match child.join() {
                                    Ok(value) => assert_eq!(value, round + 1),
                                    // It was taken for a zygote, before it had its own name.
                                    Err(JoinError::Killed(9)) => continue,
                                    Err(other) => panic!("{other}"),
                                }
                                values.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(SpawnError::Os { .. }) => {
                                errors.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = 7_u64;
            while !done.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                std::thread::sleep(Duration::from_micros(random >> 52));
                for zygote in zygotes() {
                    // It may have gone since.
                    let pid = nix::unistd::Pid::from_raw(zygote.cast_signed());
                    let _ = nix::sys::signal::kill(pid, SIGKILL);
                    killed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let ends: Vec<_> = askers.into_iter().map(|asker| asker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    let [values, errors, killed] = [values, errors, killed].map(AtomicU64::into_inner);
    println!("{values} values, {errors} errors, {killed} zygotes killed");
    assert!(values > 50 && killed > 50);
    // A child whose zygote was killed with it in hand may have died with it, but only then.
    println!("left: {:?}", others());
}
}
