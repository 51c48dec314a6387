//! What the bare machine needs: the floor under everything else.
#![expect(unsafe_code, reason = "forks without the library")]

use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Failure;
use crate::acts::echo::echo;
use crate::acts::single::{each, repeat};
use crate::acts::window::Window;
use crate::figures::{Case, Metric, Sample, sampled};
use crate::groups::{Kit, LATENCY, processes};
use crate::peers::made;
use crate::peers::raw::{Futex, Line};
use crate::shared::Words;
use crate::stage::{Place, Stage};
use crate::troupe::{Actor, Run, Troupe};

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let mut bounce = Case::new("round trip between two processes", &LATENCY);
    add_lines(kit, &mut bounce);
    add_futex(kit, &mut bounce);

    let mut instructions =
        Case::new("a lone instruction, its line in the cache", &[Metric::cost("time", "ns")]);
    add_instruction(kit, &mut instructions, "compare-and-swap", |word| {
        let _ = black_box(word.compare_exchange(0, 0, Ordering::AcqRel, Ordering::Relaxed));
    });
    add_instruction(kit, &mut instructions, "swap", |word| {
        black_box(word.swap(1, Ordering::AcqRel));
    });
    add_instruction(kit, &mut instructions, "plain store", |word| word.store(1, Ordering::Release));

    let mut shared =
        Case::new("swaps of one word by two processes", &[Metric::speed("swaps", "M/s")]);
    kit.add_shared_swaps(&mut shared);

    let mut copy = Case::new("memcpy", &[Metric::speed("bytes", "GB/s")]);
    for (name, bytes) in
        [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)]
    {
        copy.limit(
            name,
            processes(kit, move |stage, _| {
                sampled(lone_copy(stage, bytes), move |nanoseconds| {
                    Sample::from(bytes as f64 / nanoseconds)
                })
            }),
        );
    }

    let mut fork = Case::new("fork, _exit and waitpid", &LATENCY);
    add_fork(kit, &mut fork, "nothing touched", 0);
    add_fork(kit, &mut fork, "256 MiB touched", 256);
    Ok(vec![bounce, instructions, shared, copy, fork])
}

/// The round trip of a cache line, in both ways to do it.
pub(crate) fn add_lines(kit: &Kit, case: &mut Case) {
    case.limit(
        "raw line each way",
        processes(kit, |stage, place| echo::<1, _>(stage, place, || Ok(Line::pair()?.map(made)))),
    );
    case.limit(
        "raw line for both ways",
        processes(kit, |stage, place| echo::<1, _>(stage, place, || Ok(Line::single()?.map(made)))),
    );
}

/// The round trip of a wake-up.
pub(crate) fn add_futex(kit: &Kit, case: &mut Case) {
    case.limit(
        "raw futex",
        processes(kit, |stage, place| echo::<1, _>(stage, place, || Ok(Futex::pair()?.map(made)))),
    );
}

fn add_instruction<A: Fn(&AtomicU64) + Copy + Send + 'static>(
    kit: &Kit,
    case: &mut Case,
    name: &str,
    act: A,
) {
    case.limit(name, processes(kit, move |stage, place| lone(stage, place, act)));
}

/// Nanoseconds for `act` on a word that only one process uses.
pub(crate) fn lone<A: Fn(&AtomicU64) + Send + 'static>(
    stage: Stage,
    place: Place,
    act: A,
) -> Result<Run<Sample>, Failure> {
    /// So many at a time, as counting them costs as much as a store.
    const TOGETHER: usize = 16;
    let words = Words::<AtomicU64>::new(1)?;
    let run = repeat(stage, place, move || {
        move || {
            let word = &words[0];
            for _ in 0..TOGETHER {
                act(word);
            }
        }
    });
    sampled(run, |nanoseconds| Sample::from(nanoseconds / TOGETHER as f64))
}

/// Nanoseconds for a copy of so many bytes.
pub(crate) fn lone_copy(stage: Stage, bytes: usize) -> Result<Run<f64>, Failure> {
    repeat(stage, Place::Processes, move || {
        let (from, mut to) = (vec![1_u8; bytes], vec![0_u8; bytes]);
        move || black_box(&mut to[..]).copy_from_slice(black_box(&from))
    })
}

/// Swaps of one word in a second by two processes together.
pub(crate) fn shared_swaps(stage: Stage) -> Result<Run<f64>, Failure> {
    let words = Words::<AtomicU64>::new(1)?;
    let actor = || -> Actor<f64> {
        let words = words.clone();
        Box::new(move || {
            Box::new(move |slice| {
                slice.meet();
                let mut window = Window::new(slice.now(), slice.length());
                let mut count = 0;
                while !slice.stopped() {
                    black_box(words[0].swap(count, Ordering::AcqRel));
                    count += 1;
                    if window.is_due(count) && window.look(slice.now(), count) {
                        slice.stop();
                    }
                }
                window.rate(slice.now(), count)
            })
        })
    };
    let actors = vec![actor(), actor()];
    let troupe = Troupe::set_up(stage, Place::Processes, 2, || Ok(actors))?;
    Ok(troupe.run(|rates| Ok(rates.iter().sum())))
}

/// Microseconds for a raw child that does nothing, of a process that has touched so much memory.
pub(crate) fn add_fork(kit: &Kit, case: &mut Case, name: &str, mebibytes: usize) {
    case.limit(
        name,
        processes(kit, move |stage, place| {
            each(stage, place, move || {
                let ballast = touched(mebibytes);
                move || {
                    black_box(&ballast);
                    raw_fork().expect("a child");
                }
            })
        }),
    );
}

/// So much memory, every page of it there.
pub(crate) fn touched(mebibytes: usize) -> Vec<u8> {
    vec![1; mebibytes << 20]
}

fn raw_fork() -> io::Result<()> {
    // SAFETY: the caller's process has one thread, and the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running anything of the parent's.
        0 => unsafe { libc::_exit(0) },
        child => {
            let mut status = 0;
            // SAFETY: `status` may be written.
            match unsafe { libc::waitpid(child, &raw mut status, 0) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        }
    }
}
