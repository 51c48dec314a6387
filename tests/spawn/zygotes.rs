//! Zygotes that are killed.

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
