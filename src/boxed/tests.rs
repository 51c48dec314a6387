//! Boxes within one process. What becomes of them between processes, and after kills, is in
//! `tests/processes/boxes.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::heap::{BlockId, Pool};
use crate::object::transfer::{RecvError, SendError, TryRecvError, TrySendError};
use crate::object::{Handle, carry};
use crate::primitive::{AtomicU64, Ordering};
use crate::queue::{Queue, QueueOptions};
use crate::segment::layout::BLOCK_HEADER_SIZE;

fn segment() -> Segment {
    Segment::create(1 << 20).expect("a segment")
}

fn used(segment: &Segment) -> u64 {
    segment.stats().expect("mapped").charged
}

fn queue<T: Transfer>(segment: &Segment) -> Queue<T> {
    Queue::with_capacity_in(segment, 2).expect("room")
}

/// What lies in the slots of a queue of boxes.
fn names<T: Transfer<Wire = Name>>(segment: &Segment, queue: &Queue<T>) -> Queue<Name> {
    Queue::open_kind(segment, queue.handle(), carry::queue_kind::<T>()).expect("the same queue")
}

#[test]
fn a_box_owns_its_memory_until_it_is_dropped() {
    let segment = segment();
    let mut one = ShmBox::new_in(&segment, 7_u64).expect("room");
    *one += 1;
    let slice = ShmBox::from_fn_in(&segment, 1000, |index| index as u32).expect("room");
    let none = ShmBox::<[u64]>::from_slice_in(&segment, &[]).expect("room");
    let nothing = ShmBox::from_slice_in(&segment, &[(), ()]).expect("room");
    assert_eq!((*one, slice[999], none.len(), nothing.len()), (8, 999, 0, 2));
    assert_eq!((segment.blocks_in_use(), used(&segment)), (4, 8 + 4000));
    drop((one, slice, none, nothing));
    assert_eq!((segment.blocks_in_use(), used(&segment)), (0, 0));
}

/// By its word the block is somebody else's, or nobody's.
#[test]
fn a_block_whose_word_was_written_over_is_not_given_back() {
    let segment = segment();
    let mapping = segment.mapping();
    let words = |block: &ShmBox<u64>| {
        let headers = mapping.layout().classes()[0].headers;
        // The number of a block of the first class.
        let at = headers + block.block.handle().block * BLOCK_HEADER_SIZE;
        let region = mapping.region().expect("mapped");
        [0, 8, 16].map(|field| region.at::<AtomicU64>(at + field).expect("a field of a header"))
    };
    // Another owner, generation or state.
    let changes: [fn(u64) -> u64; 3] =
        [|word| word ^ 1, |word| word + (1 << 34), |word| word ^ 3 << 31];
    for change in changes {
        let mine = ShmBox::new_in(&segment, 7).expect("room");
        let [word, kind, len] = words(&mine);
        let before = [kind, len].map(|field| field.load(Ordering::Relaxed));
        let changed = change(word.load(Ordering::Relaxed));
        word.store(changed, Ordering::Relaxed);
        drop(mine);
        assert_eq!(word.load(Ordering::Relaxed), changed);
        assert_eq!([kind, len].map(|field| field.load(Ordering::Relaxed)), before);
    }
}

#[test]
fn zeros_are_zeros_where_something_was_before() {
    let segment = segment();
    for _ in 0..3 {
        let mut bytes = ShmBox::<[u8]>::zeroed_in(&segment, 5000).expect("room");
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(0xff);
    }
}

#[test]
fn a_panic_in_the_middle_gives_the_memory_back() {
    let segment = segment();
    let make = || ShmBox::from_fn_in(&segment, 10, |index| [1_u8, 2, 3][index]);
    catch_unwind(AssertUnwindSafe(make)).expect_err("an index beyond the end");
    assert_eq!(segment.blocks_in_use(), 0);
}

#[test]
fn what_cannot_lie_there_is_refused() {
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(256))]
    struct Aligned([u8; 256]);

    let segment = segment();
    let aligned = ShmBox::new_in(&segment, Aligned([0; 256]));
    assert!(matches!(aligned, Err(CreateError::Alignment { align: 256, most: 128 })));
    for len in [1 << 20, usize::MAX / 8, usize::MAX] {
        let long = ShmBox::<[u64]>::zeroed_in(&segment, len);
        assert!(matches!(long, Err(CreateError::OutOfMemory { .. })), "{len}");
    }
    let mut vec = ShmVec::<u8>::with_capacity_in(&segment, 3).expect("room");
    vec.extend_from_slice(&[1, 2, 3]).expect("room");
    assert!(matches!(vec.reserve(1 << 20), Err(CreateError::OutOfMemory { .. })));
    assert!(matches!(vec.reserve(usize::MAX), Err(CreateError::OutOfMemory { .. })));
    assert_eq!(*vec, [1, 2, 3]);
    drop(vec);
    assert_eq!((segment.blocks_in_use(), used(&segment)), (0, 0));
}

/// Blocks of 64 bytes begin on every cache line, and larger ones on every second.
#[test]
fn small_boxes_lie_close_together_and_are_aligned_however_few_there_are() {
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(128))]
    struct Most([u8; 128]);

    let segment = segment();
    let boxes: Vec<ShmBox<u64>> =
        (0..10).map(|number| ShmBox::new_in(&segment, number).expect("room")).collect();
    let mut addresses: Vec<usize> =
        boxes.iter().map(|it| std::ptr::from_ref::<u64>(it).addr()).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] == 64), "{addresses:?}");
    for count in [0, 1, 2] {
        // The second of two has another place than the first, so one of them begins on a line only.
        for values in [0, 1].map(|_| ShmBox::<[Most]>::zeroed_in(&segment, count)) {
            let values = values.expect("room");
            assert_eq!(values.as_ptr().addr() % 128, 0);
            assert!(values.iter().all(|value| value.0 == [0; 128]));
            let shared = crate::ShmArc::from_slice_in(&segment, &values).expect("room");
            assert_eq!((shared.len(), shared.as_ptr().addr() % 128), (count, 0));
            let again = crate::ShmArc::<[Most]>::open(&segment, shared.handle()).expect("there");
            assert_eq!(again.len(), count);
        }
    }
}

#[test]
fn a_vector_grows_and_shrinks() {
    let segment = segment();
    let mut vec = ShmVec::with_capacity_in(&segment, 0).expect("room");
    let mut twin = Vec::new();
    for number in 0..1000_u32 {
        vec.push(number).expect("room");
        twin.push(number);
        assert!(vec.capacity() >= vec.len() && *vec == *twin);
    }
    assert_eq!(segment.blocks_in_use(), 1, "the smaller ones went back");
    assert_eq!(vec.pop(), Some(999));
    vec.truncate(3);
    vec[1] = 77;
    assert_eq!(*vec, [0, 77, 2]);
    assert_eq!(vec.pop(), Some(2));
    assert_eq!(*vec, [0, 77]);
    vec.clear();
    assert_eq!((vec.pop(), vec.is_empty(), vec.capacity() >= 1000), (None, true, true));
}

#[test]
fn a_box_comes_out_as_it_went_in_and_no_byte_is_copied() {
    let segment = segment();
    let (boxes, slices, vecs, texts) =
        (queue(&segment), queue(&segment), queue(&segment), queue(&segment));
    let baseline = segment.blocks_in_use();
    for round in 0..5_u64 {
        let one = ShmBox::new_in(&segment, round).expect("room");
        let slice = ShmBox::from_slice_in(&segment, &[round; 100]).expect("room");
        let mut vec = ShmVec::with_capacity_in(&segment, 10).expect("room");
        vec.extend_from_slice(&[round; 3]).expect("room");
        let text = ShmStr::new_in(&segment, "häßlich").expect("room");
        let places = [
            (&raw const *one).addr(),
            slice.as_ptr().addr(),
            vec.as_ptr().addr(),
            text.as_ptr().addr(),
        ];
        boxes.send(one).expect("room");
        slices.send(slice).expect("room");
        vecs.send(vec).expect("room");
        texts.send(text).expect("room");
        assert_eq!(segment.blocks_in_use(), baseline + 4);
        let (one, mut slice, mut vec, text) = (
            boxes.recv().expect("sent"),
            slices.try_recv().expect("sent"),
            vecs.recv().expect("sent"),
            texts.recv().expect("sent"),
        );
        let received = [
            (&raw const *one).addr(),
            slice.as_ptr().addr(),
            vec.as_ptr().addr(),
            text.as_ptr().addr(),
        ];
        assert_eq!(places, received);
        assert_eq!(
            (*one, &*slice, &*vec, &*text),
            (round, &[round; 100][..], &[round; 3][..], "häßlich")
        );
        assert_eq!(vec.capacity(), 10);
        vec.push(7).expect("room");
        slice.fill(0);
        drop((one, slice, vec, text));
        assert_eq!(segment.blocks_in_use(), baseline);
    }
}

#[test]
fn a_box_that_is_not_sent_comes_back_whole() {
    let segment = segment();
    let queue = queue::<ShmBox<[u8]>>(&segment);
    let make = |byte| ShmBox::from_slice_in(&segment, &[byte; 300]).expect("room");
    queue.send(make(1)).expect("room");
    queue.send(make(2)).expect("room");
    let Err(TrySendError::Full(mut back)) = queue.try_send(make(3)) else { panic!("it is full") };
    back[0] = 7;
    assert_eq!((back[0], back[299]), (7, 3));
    assert_eq!(*queue.recv().expect("sent"), [1; 300]);
    queue.try_send(back).expect("room");
    queue.close();
    let Err(SendError::Closed(back)) = queue.send(make(4)) else { panic!("it is closed") };
    assert_eq!(*back, [4; 300]);
    drop(back);
    assert_eq!(*queue.recv().expect("sent"), [2; 300]);
    assert_eq!(queue.recv().expect("sent")[0], 7);
    assert!(matches!(queue.recv(), Err(RecvError::Closed)));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn a_box_of_another_segment_comes_back() {
    let (here, there) = (segment(), segment());
    let queue = queue::<ShmStr>(&here);
    let Err(SendError::Broken(back, Fault::OtherSegment)) =
        queue.send(ShmStr::new_in(&there, "stays").expect("room"))
    else {
        panic!("it lies in another segment")
    };
    assert_eq!(&*back, "stays");
    // The queue goes on.
    queue.send(ShmStr::new_in(&here, "goes").expect("room")).expect("room");
    assert_eq!(&*queue.try_recv().expect("sent"), "goes");
    assert!(queue.is_empty());
}

#[test]
fn a_queue_that_goes_frees_what_is_in_it() {
    let segment = segment();
    let queue = queue::<ShmVec<u8>>(&segment);
    let other = Queue::with_capacity_in(&segment, 2).expect("room");
    for _ in 0..2 {
        queue.send(ShmVec::with_capacity_in(&segment, 100).expect("room")).expect("room");
    }
    other.send(ShmBox::new_in(&segment, 5_u8).expect("room")).expect("room");
    drop(queue);
    assert_eq!(segment.blocks_in_use(), 2, "the other queue and its box");
    assert_eq!(*other.recv().expect("sent"), 5);
    let (sender, receiver) =
        QueueOptions::new().capacity(3).create_plain_channel_in(&segment).expect("room");
    sender.send(ShmStr::new_in(&segment, "left").expect("room")).expect("room");
    drop((sender, receiver));
    assert_eq!(segment.blocks_in_use(), 1);
}

#[test]
fn queues_of_different_boxes_are_different_queues() {
    let segment = segment();
    let handle = {
        let queue = queue::<ShmBox<[u8]>>(&segment);
        let open = |fault: Fault| assert_eq!(fault, Fault::WrongType);
        open(Queue::<ShmBox<[i8]>>::open(&segment, queue.handle()).unwrap_err());
        open(Queue::<ShmBox<u8>>::open(&segment, queue.handle()).unwrap_err());
        open(Queue::<ShmVec<u8>>::open(&segment, queue.handle()).unwrap_err());
        open(Queue::<[u64; 3]>::open(&segment, queue.handle()).unwrap_err());
        assert!(Queue::<ShmBox<[u8]>>::open(&segment, queue.handle()).is_ok());
        queue.handle()
    };
    let gone = Queue::<ShmBox<[u8]>>::open(&segment, handle);
    assert_eq!(gone.unwrap_err(), Fault::Stale);
}

/// A peer may write anything into a slot. No name but that of the block which this message carries
/// gives a box, and no box is given twice.
#[test]
fn a_wrong_name_is_an_error_and_the_next_message_is_fine() {
    let segment = segment();
    let queue = queue::<ShmBox<[u32]>>(&segment);
    let names = names(&segment, &queue);
    let mut mine = ShmBox::from_slice_in(&segment, &[7_u32; 100]).expect("room");
    let wrong = |name: Name, what: &str| {
        names.send(name).expect("room");
        let received = queue.recv().expect_err(what);
        assert_eq!(received, RecvError::Broken(Fault::Corrupt), "{what}");
    };
    let of = |block: u64, generation: u64, len: u64| Name { block, generation, len };
    for bits in [0, 1, u64::MAX, 1 << 32, queue.handle().block] {
        for generation in [0, 1, 2, u64::MAX] {
            wrong(of(bits, generation, 1), "no such block");
        }
    }
    // The receiver's own box, which is in no message.
    let Handle { block, generation, .. } = mine.block.handle();
    for generation in [generation, generation + 1] {
        wrong(of(block, generation, 100), "the receiver's own box");
    }
    mine.fill(8);
    // One that another message carries.
    queue.send(ShmBox::from_slice_in(&segment, &[9; 10]).expect("room")).expect("room");
    let carried = names.recv().expect("sent");
    wrong(carried, "of a message that is done");
    queue.send(mine).expect("room");
    let there = names.recv().expect("sent");
    names.send(there).expect("room");
    assert_eq!(queue.try_recv().unwrap_err(), TryRecvError::Broken(Fault::Corrupt), "elsewhere");
    // What is in no slot any more comes back at the latest when memory runs short.
    let all = ShmBox::<[u8]>::zeroed_in(&segment, (1 << 20) - 1000).expect("all but the queue");
    assert_eq!((all.len(), segment.blocks_in_use()), ((1 << 20) - 1000, 2));
}

/// Writes over how many values there are, in the one slot of a queue.
fn overwrite_len(segment: &Segment, queue: Handle, len: u64) {
    let region = segment.mapping().region().expect("mapped");
    let id = BlockId::from_bits(queue.block).expect("a block");
    let queue = Pool::new(segment.mapping(), region).shared(id, queue.generation as u32);
    // Behind the header and the slot's word: block, generation, length.
    let word: &AtomicU64 =
        region.at(queue.expect("a queue").offset + 640 + 8 + 16).expect("within the segment");
    word.store(len, Ordering::Relaxed);
}

#[test]
fn a_box_of_another_length_is_given_back() {
    let segment = segment();
    let bytes = Queue::<ShmBox<[u8]>>::with_capacity_in(&segment, 1).expect("room");
    let texts = Queue::<ShmStr>::with_capacity_in(&segment, 1).expect("room");
    let values = Queue::<ShmBox<u64>>::with_capacity_in(&segment, 1).expect("room");
    let baseline = segment.blocks_in_use();
    let send = |len| bytes.send(ShmBox::from_slice_in(&segment, &vec![1; len]).expect("room"));
    for (len, claimed) in [(100, 101), (100, u64::MAX), (0, 1)] {
        send(len).expect("room");
        overwrite_len(&segment, bytes.handle(), claimed);
        assert!(matches!(bytes.recv(), Err(RecvError::Broken(Fault::Corrupt))), "{claimed}");
        assert_eq!(segment.blocks_in_use(), baseline, "{claimed} of {len}");
    }
    // Shorter than it is: a part of what the sender gave away.
    send(100).expect("room");
    overwrite_len(&segment, bytes.handle(), 10);
    assert_eq!(bytes.recv().expect("a part of it").len(), 10);
    // The first byte of a letter of two.
    texts.send(ShmStr::new_in(&segment, "häßlich").expect("room")).expect("room");
    overwrite_len(&segment, texts.handle(), 2);
    assert!(matches!(texts.recv(), Err(RecvError::Broken(Fault::Corrupt))));
    for len in [0, 2] {
        values.send(ShmBox::new_in(&segment, 5).expect("room")).expect("room");
        overwrite_len(&segment, values.handle(), len);
        assert!(matches!(values.recv(), Err(RecvError::Broken(Fault::Corrupt))));
    }
    assert_eq!(segment.blocks_in_use(), baseline);
}

#[test]
fn a_box_of_another_kind_is_given_back() {
    let segment = segment();
    let bytes = queue::<ShmBox<[u8]>>(&segment);
    let kind = carry::queue_kind::<ShmBox<[u8]>>();
    // As if a peer had another idea of what the queue carries.
    let words = Queue::<ShmBox<[u64]>>::open_kind(&segment, bytes.handle(), kind).expect("it");
    let texts = Queue::<ShmStr>::open_kind(&segment, bytes.handle(), kind).expect("it");
    words.send(ShmBox::from_slice_in(&segment, &[5]).expect("room")).expect("room");
    texts.send(ShmStr::new_in(&segment, "bytes").expect("room")).expect("room");
    for _ in 0..2 {
        assert_eq!(bytes.recv().unwrap_err(), RecvError::Broken(Fault::WrongType));
    }
    bytes.send(ShmBox::from_slice_in(&segment, &[6]).expect("room")).expect("room");
    assert_eq!(*bytes.recv().expect("the next is fine"), [6]);
    assert_eq!(segment.blocks_in_use(), 1);

    let texts = queue::<ShmStr>(&segment);
    let kind = carry::queue_kind::<ShmStr>();
    let bytes = Queue::<ShmBox<[u8]>>::open_kind(&segment, texts.handle(), kind).expect("it");
    bytes.send(ShmBox::from_slice_in(&segment, b"text").expect("room")).expect("room");
    assert_eq!(texts.recv().unwrap_err(), RecvError::Broken(Fault::WrongType));

    let numbers = queue::<ShmBox<u64>>(&segment);
    let kind = carry::queue_kind::<ShmBox<u64>>();
    let signed = Queue::<ShmBox<i64>>::open_kind(&segment, numbers.handle(), kind).expect("it");
    let slices = Queue::<ShmBox<[u64]>>::open_kind(&segment, numbers.handle(), kind).expect("it");
    signed.send(ShmBox::new_in(&segment, -5).expect("room")).expect("room");
    slices.send(ShmBox::from_slice_in(&segment, &[5]).expect("room")).expect("room");
    for _ in 0..2 {
        assert_eq!(numbers.recv().unwrap_err(), RecvError::Broken(Fault::WrongType));
    }
    assert_eq!(segment.blocks_in_use(), 3, "the queues");
}

#[test]
fn boxes_compare_and_print_as_what_they_own() {
    let segment = segment();
    let [a, b, c] = [[1, 2], [1, 2], [1, 3]]
        .map(|values| ShmBox::from_slice_in(&segment, &values).expect("room"));
    assert!(a == b && a != c);
    let [d, e, f] = ["ab", "ab", "ac"].map(|text| ShmStr::new_in(&segment, text).expect("room"));
    assert!(d == e && d != f);
    let [g, h, i] = [[1, 2], [1, 2], [1, 3]].map(|values| {
        let mut vec = ShmVec::with_capacity_in(&segment, 5).expect("room");
        vec.extend_from_slice(&values).expect("room");
        vec
    });
    assert!(g == h && g != i);
    assert_eq!(format!("{a:?} {d:?} {d} {i:?}"), r#"[1, 2] "ab" ab [1, 3]"#);
    assert_eq!((a.as_ref(), d.as_ref()), (&[1, 2][..], "ab"));
}

/// A struct that travels field by field.
#[derive(Debug, PartialEq, offspring_derive::Transfer)]
#[transfer(crate = crate)]
struct Job<T: Shm> {
    number: u32,
    text: ShmStr,
    values: ShmBox<[T]>,
    inner: Inner,
}

#[derive(Debug, PartialEq, offspring_derive::Transfer)]
#[transfer(crate = crate)]
struct Inner(u8, ShmVec<u64>);

impl Job<u16> {
    fn new(segment: &Segment, number: u32) -> Job<u16> {
        let mut vec = ShmVec::with_capacity_in(segment, 3).expect("room");
        vec.push(number.into()).expect("room");
        Job {
            number,
            text: ShmStr::new_in(segment, "a job").expect("room"),
            values: ShmBox::from_slice_in(segment, &[number as u16; 50]).expect("room"),
            inner: Inner(number as u8, vec),
        }
    }
}

#[test]
fn a_struct_travels_with_all_that_it_owns() {
    let segment = segment();
    let queue = queue::<Job<u16>>(&segment);
    for number in 0..5 {
        queue.send(Job::new(&segment, number)).expect("room");
        assert_eq!(segment.blocks_in_use(), 4);
        assert_eq!(queue.recv().expect("sent"), Job::new(&segment, number));
        assert_eq!(segment.blocks_in_use(), 1);
    }
    queue.send(Job::new(&segment, 7)).expect("room");
    drop(queue);
    assert_eq!(segment.blocks_in_use(), 0);
}

/// What was handed over before the part that cannot go is taken back, and can be sent again.
#[test]
fn a_struct_of_which_a_part_cannot_go_comes_back_whole() {
    let (here, there) = (segment(), segment());
    let queue = queue::<Job<u16>>(&here);
    let mut job = Job::new(&here, 7);
    job.inner.1 = ShmVec::with_capacity_in(&there, 5).expect("room");
    let Err(SendError::Broken(mut back, Fault::OtherSegment)) = queue.send(job) else {
        panic!("a part lies elsewhere")
    };
    back.values[0] = 9;
    back.inner = Job::new(&here, 7).inner;
    assert_eq!((&*back.text, here.blocks_in_use(), there.blocks_in_use()), ("a job", 4, 0));
    queue.send(back).expect("room");
    assert_eq!(queue.recv().expect("sent").values[..2], [9, 7]);
    assert_eq!(here.blocks_in_use(), 1);
}

#[derive(Debug, offspring_derive::Transfer)]
#[transfer(crate = crate)]
struct Both(ShmVec<u64>, ShmStr);

#[test]
fn a_vector_that_came_back_can_be_used() {
    let (here, there) = (segment(), segment());
    let queue = queue::<Both>(&here);
    let mut vec = ShmVec::with_capacity_in(&here, 2).expect("room");
    vec.push(7).expect("room");
    let both = Both(vec, ShmStr::new_in(&there, "elsewhere").expect("room"));
    let Err(SendError::Broken(mut back, Fault::OtherSegment)) = queue.send(both) else {
        panic!("a part lies elsewhere")
    };
    back.0.push(8).expect("room");
    assert_eq!(*back.0, [7, 8]);
    drop(back);
    assert_eq!((here.blocks_in_use(), there.blocks_in_use()), (1, 0));
}
