//! The value within one process: threads instead of processes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::heap::pool::BlockId;
use crate::object::block;

/// More than a word, and no multiple of one.
type Large = [u8; 21];

#[test]
fn values_of_any_length_are_read_and_changed() {
    fn there_and_back<const N: usize>() {
        let value = Value::new([1_u8; N]).expect("a value");
        assert_eq!(value.get(), Ok([1; N]));
        value.set([2; N]).expect("free");
        assert_eq!(value.swap([3; N]), Ok([2; N]));
        assert_eq!(value.update(|bytes| std::mem::replace(bytes, [4; N])), Ok([3; N]));
        assert_eq!(value.try_update(|bytes| bytes.len()), Ok(N));
        assert_eq!(value.compare_exchange([4; N], [5; N]), Ok(Ok([4; N])));
        if N > 0 {
            assert_eq!(value.compare_exchange([4; N], [6; N]), Ok(Err([5; N])));
        }
        assert_eq!(value.get(), Ok([5; N]));
    }
    there_and_back::<0>();
    there_and_back::<1>();
    there_and_back::<7>();
    there_and_back::<8>();
    there_and_back::<9>();
    there_and_back::<64>();
    there_and_back::<1000>();
}

#[test]
fn a_value_may_be_aligned_as_it_likes() {
    #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(4096))]
    struct Page([u64; 512]);
    let value = Value::new(Page([1; 512])).expect("a value");
    value.update(|page| page.0[511] = 2).expect("free");
    assert_eq!(value.get().map(|page| (page.0[0], page.0[511])), Ok((1, 2)));
}

#[test]
fn integers_count_as_atomics_do() {
    fn all<T: Integer + PartialEq + fmt::Debug + From<u8>>() {
        let number = |n: u8| T::from(n);
        let value = Value::new(number(6)).expect("a value");
        assert_eq!(value.fetch_add(number(4)), Ok(number(6)));
        assert_eq!(value.fetch_sub(number(1)), Ok(number(10)));
        assert_eq!(value.fetch_and(number(0b1100)), Ok(number(9)));
        assert_eq!(value.fetch_or(number(0b0011)), Ok(number(8)));
        assert_eq!(value.fetch_xor(number(0b0001)), Ok(number(11)));
        assert_eq!(value.fetch_max(number(7)), Ok(number(10)));
        assert_eq!(value.fetch_min(number(7)), Ok(number(10)));
        assert_eq!(value.get(), Ok(number(7)));
    }
    all::<u8>();
    all::<u16>();
    all::<i32>();
    all::<u64>();
    all::<i64>();
    all::<u128>();
    let small = Value::new(250_u8).expect("a value");
    assert_eq!(small.fetch_add(10).and_then(|_| small.fetch_sub(5)), Ok(4));
    assert_eq!(small.get(), Ok(255), "it wraps around in its own length");
    let signed = Value::new(-3_i16).expect("a value");
    assert_eq!(signed.fetch_max(-5).and_then(|_| signed.fetch_min(-4)), Ok(-3));
    assert_eq!(signed.get(), Ok(-4));
}

#[test]
fn floats_count_too() {
    let value = Value::new(1.5_f64).expect("a value");
    assert_eq!(value.fetch_add(1.0).and_then(|_| value.fetch_sub(0.25)), Ok(2.5));
    assert_eq!(value.fetch_max(f64::NAN).and_then(|_| value.fetch_min(-1.0)), Ok(2.25));
    assert_eq!(value.get(), Ok(-1.0));
    let value = Value::new(f32::NAN).expect("a value");
    assert!(value.compare_exchange(f32::NAN, 0.0).expect("free").is_ok(), "the same bytes");
    assert_eq!(value.compare_exchange(-0.0, 1.0), Ok(Err(0.0)));
}

#[test]
fn threads_lose_no_update() {
    fn count<T: Shm>(value: &Value<T>, add: impl Fn(&mut T) + Sync) {
        std::thread::scope(|scope| {
            for wait in [Wait::Sleep, Wait::SpinThenSleep, Wait::Spin] {
                let (value, add) = (value.with_wait(wait), &add);
                scope.spawn(move || {
                    (0..10_000).for_each(|_| value.update(add).expect("its turn comes"));
                });
            }
        });
    }
    let small = Value::new(0_u32).expect("a value");
    count(&small, |value| *value += 1);
    assert_eq!(small.get(), Ok(30_000));
    let large = Value::new([0_u64; 3]).expect("a value");
    count(&large, |value| value.iter_mut().for_each(|word| *word += 1));
    assert_eq!(large.get(), Ok([30_000; 3]));
}

#[test]
fn nobody_reads_half_of_a_change() {
    let value = Value::new([0_u64; 40]).expect("a value");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while last < 20_000 {
                    let words = value.get().expect("ours");
                    assert_eq!(words, [words[0]; 40], "torn");
                    assert!(words[0] >= last, "from {last} back to {}", words[0]);
                    last = words[0];
                }
            });
        }
        for n in 1..=20_000 {
            value.set([n; 40]).expect("nobody else changes it");
        }
    });
}

#[test]
fn a_panic_leaves_the_old_value() {
    fn check<T: Shm + PartialEq + fmt::Debug>(old: T, new: T) {
        let value = Value::new(old).expect("a value");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            value.update(|value| {
                *value = new;
                panic!("half through");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(value.get(), Ok(old));
        value.update(|value| *value = new).expect("nobody is in the way");
        assert_eq!(value.get(), Ok(new));
    }
    check(1_u8, 2);
    check::<Large>([1; 21], [2; 21]);
}

#[test]
fn changing_what_is_being_changed_is_an_error_and_not_a_hang() {
    fn check<T: Shm + PartialEq + fmt::Debug>(old: T, new: T) {
        let deadlock = Err(UpdateError::WouldDeadlock);
        let (value, other) =
            (Value::new(old).expect("a value"), Value::new(old).expect("one more"));
        let opened = Value::open(&Segment::commons().expect("mapped"), value.handle());
        for same in [value.clone(), opened.expect("the same value")] {
            let nested = value.update(|_| {
                assert_eq!(same.set(new), deadlock);
                assert_eq!(same.swap(new).map(drop), deadlock);
                assert_eq!(same.update(|value| *value = new), deadlock);
                assert_eq!(same.compare_exchange(old, new).map(drop), deadlock);
                assert_eq!(
                    same.try_update(|value| *value = new),
                    Err(TryUpdateError::WouldDeadlock)
                );
                assert_eq!(
                    same.update_timeout(|value| *value = new, Duration::from_secs(9)),
                    Err(UpdateTimeoutError::WouldDeadlock)
                );
                // The outer one goes on behind an inner one of another value.
                other.update(|_| assert_eq!(same.set(new), deadlock)).expect("another value");
                assert_eq!(same.set(new), deadlock);
                assert_eq!(same.get(), Ok(old));
                other.set(new)
            });
            assert_eq!(nested, Ok(Ok(())));
        }
        assert_eq!((value.get(), other.get()), (Ok(old), Ok(new)));
        value.set(new).expect("nobody changes it now");
    }
    check(1_u64, 2);
    check::<Large>([1; 21], [2; 21]);
}

#[test]
fn only_a_large_value_makes_others_wait() {
    let small = Value::new(1_u64).expect("a value");
    let large = Value::new([1_u64; 2]).expect("a value");
    let elsewhere = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"));
    };
    let mut calls = 0;
    small
        .update(|value| {
            calls += 1;
            if calls == 1 {
                elsewhere(&|| small.set(7).expect("free"));
            }
            *value += 1;
        })
        .expect("free");
    assert_eq!((calls, small.get()), (2, Ok(8)), "called again with what the other has made");
    large
        .update(|_| {
            elsewhere(&|| {
                let time = Duration::from_millis(30);
                let start = Instant::now();
                assert_eq!(large.try_update(|_| ()), Err(TryUpdateError::WouldBlock));
                assert_eq!(large.update_timeout(|_| (), time), Err(UpdateTimeoutError::Timeout));
                assert!(start.elapsed() >= time);
                assert_eq!(
                    large.update_deadline(|_| (), Instant::now()),
                    Err(UpdateTimeoutError::Timeout)
                );
                assert_eq!(large.get(), Ok([1; 2]), "readers wait for nobody");
            });
        })
        .expect("free");
}

#[test]
fn a_value_is_opened_by_its_handle() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let value = Value::new_in(&segment, [1_u32, 2, 3]).expect("a value");
    let opened = Value::<[u32; 3]>::open(&segment, value.handle()).expect("the same value");
    opened.update(|words| words[0] = 9).expect("free");
    assert_eq!(value.get(), Ok([9, 2, 3]));
    assert_eq!(Value::<[u8; 12]>::open(&segment, value.handle()).unwrap_err(), Fault::WrongType);
    assert_eq!(
        crate::Lock::<[u32; 3]>::open(&segment, value.handle()).unwrap_err(),
        Fault::WrongType
    );
    let handle = value.handle();
    drop((value, opened));
    assert_eq!(Value::<[u32; 3]>::open(&segment, handle).unwrap_err(), Fault::Stale);
}

#[test]
fn errors_go_wherever_a_question_mark_sends_them() {
    fn goes<E: std::error::Error + Send + Sync + serde::Serialize + 'static>() {}
    goes::<UpdateError>();
    goes::<TryUpdateError>();
    goes::<UpdateTimeoutError>();
    for fault in [Fault::Stale, Fault::Corrupt] {
        assert_eq!(UpdateError::from(fault).to_string(), fault.to_string());
        assert_eq!(TryUpdateError::from(fault).to_string(), fault.to_string());
        assert_eq!(UpdateTimeoutError::from(fault).to_string(), fault.to_string());
        assert_eq!(format!("{:?}", UpdateError::from(fault)), fault.to_string());
    }
}

#[test]
fn the_reaper_ends_the_turn_of_a_dead_writer() {
    let value = Value::new([1_u64; 2]).expect("a value");
    let place = value.shared.object.enter().expect("it was just made");
    let holder = value.shared.object.holder().expect("as above");
    let pool = holder.pool();
    let Parts::Copies(copies) = place.block().parts() else { panic!("two words, two copies") };
    let writer = |peer| Owner { peer, thread: 1 };
    let dead = place.peer().owner() + 1;
    assert!(copies.writer.lock_free(writer(dead)).is_some(), "nobody writes");
    let handle = value.handle();
    let id = BlockId::from_bits(handle.block).expect("a block");
    let object = pool.shared(id, handle.generation as u32).expect("it is held");

    block::recover(&pool, object, dead + 1);
    let refused = copies.writer.try_lock(writer(place.peer().owner()));
    assert!(matches!(refused, Err(Refused::Held(held)) if held.owner() == dead), "of another");

    block::recover(&pool, object, dead);
    let refused = copies.writer.try_lock(writer(place.peer().owner()));
    assert!(matches!(refused, Err(Refused::Unclean(LockState::OwnerDied))), "{refused:?}");
    value.set([2; 2]).expect("what was half written nobody reads");
    assert_eq!(value.get(), Ok([2; 2]));
}
