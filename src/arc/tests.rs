//! Shared values within one process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::queue::ObjectQueue;

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

#[test]
fn what_is_filled_in_is_read_by_every_handle() {
    let segment = segment();
    for len in [0, 1, 7, 4096, 100_000] {
        let made = ShmArc::from_fn_in(&segment, len, |index| index as u8).expect("room");
        let another = made.clone();
        let opened = ShmArc::<[u8]>::open(&segment, made.handle()).expect("there");
        drop(made);
        let expected: Vec<u8> = (0..len).map(|index| index as u8).collect();
        assert_eq!((&*another, &*opened), (&*expected, &*expected));
        drop((another, opened));
        assert_eq!(segment.blocks_in_use(), 0, "{len} bytes");
    }
    let value = ShmArc::new_in(&segment, [7_u64; 3]).expect("room");
    assert_eq!(format!("{value:?}"), "[7, 7, 7]");
    let unit = ShmArc::new_in(&segment, [0_u8; 0]);
    assert!(unit.is_ok_and(|unit| unit.is_empty()));
}

#[test]
fn it_is_opened_as_what_it_is_only() {
    let segment = segment();
    let slice = ShmArc::from_slice_in(&segment, &[1_u32, 2]).expect("room");
    let handle = slice.handle();
    assert_eq!(ShmArc::<u32>::open(&segment, handle).err(), Some(Fault::WrongType));
    assert_eq!(ShmArc::<[u64]>::open(&segment, handle).err(), Some(Fault::WrongType));
    assert_eq!(ShmArc::<[u32; 2]>::open(&segment, handle).err(), Some(Fault::WrongType));
    drop(slice);
    assert_eq!(ShmArc::<[u32]>::open(&segment, handle).err(), Some(Fault::Stale));
    let value = ShmArc::new_in(&segment, 7_u64).expect("room");
    let handle = value.handle();
    assert_eq!(ShmArc::<i64>::open(&segment, handle).err(), Some(Fault::WrongType));
    assert_eq!(ShmArc::<[u64]>::open(&segment, handle).err(), Some(Fault::WrongType));
    assert!(ShmArc::<u64>::open(&segment, handle).is_ok_and(|opened| opened == value));
    // Where somebody has written over the length.
    for len in [0, 7, 9, 16] {
        assert_eq!(<u64 as sealed::Sealed>::count(len), None, "{len}");
    }
}

#[test]
fn two_are_equal_if_their_contents_are() {
    let segment = segment();
    let [a, b, c] = [[1, 2], [1, 2], [1, 3]]
        .map(|values| ShmArc::from_slice_in(&segment, &values).expect("room"));
    assert!(a == b && a == a.clone() && a != c);
}

/// A name can be read from text, so a program can guess it. A slice that was opened while it was
/// filled once showed its values change.
#[test]
fn nobody_can_open_what_is_still_being_filled() {
    let segment = segment();
    let Handle { segment: id, block, generation } =
        ShmArc::from_slice_in(&segment, &[7_u64; 4]).expect("room").handle();
    let guesses: Vec<Handle> = (generation..generation + 4)
        .map(|generation| format!("{id:016x}-{block:x}-{generation:x}").parse().expect("a name"))
        .collect();
    let filled = ShmArc::from_fn_in(&segment, 4, |index| {
        for &guess in &guesses {
            let opened = ShmArc::<[u64]>::open(&segment, guess);
            assert_eq!(opened.err(), Some(Fault::Stale), "{guess}");
        }
        index as u64
    });
    let filled = filled.expect("room");
    assert!(guesses.contains(&filled.handle()), "it was guessed");
    assert_eq!(*filled, [0, 1, 2, 3]);
    drop(filled);
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn values_that_are_made_may_make_others_or_panic() {
    let segment = segment();
    let outer = ShmArc::from_fn_in(&segment, 3, |index| {
        ShmArc::new_in(&segment, index as u64).map_or(0, |inner| *inner + 1)
    });
    assert_eq!(*outer.expect("room"), [1, 2, 3]);
    let panics = || ShmArc::from_fn_in(&segment, 3, |index| 7 / (2 - index as u64)).is_ok();
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn a_message_holds_it() {
    let segment = segment();
    let queue = ObjectQueue::<(ShmArc<[u8]>, ShmArc<u64>)>::with_capacity_in(&segment, 2);
    let queue = queue.expect("a queue");
    let bytes = ShmArc::from_slice_in(&segment, &[7; 50_000]).expect("room");
    let number = ShmArc::new_in(&segment, 9).expect("room");
    queue.send((bytes, number)).expect("room");
    let (bytes, number) = queue.recv().expect("sent");
    assert!(bytes.len() == 50_000 && bytes.iter().all(|&byte| byte == 7) && *number == 9);
    drop((bytes, number));
    assert_eq!(segment.blocks_in_use(), 1);
}
