//! What the models of messages that carry blocks share: where the words lie, how the processes, the
//! blocks and the queue are set up, how objects are sent and received, and who clears up and
//! drains. The queue lies in the first block.

use crate::engine::{Process, Touch, View};
use crate::heap::block::Carrier;
use crate::heap::flight::Name;
use crate::heap::{BlockId, Pool};
use crate::models::heap::{FREE, OWNED, SHARED, attached, decode, peer, reaper_of, with};
use crate::models::peers::clears_up;
use crate::object::attempt::Once;
use crate::object::flight::Flight;
use crate::object::parcel::Envelope;
use crate::object::place::{self, HANDLE};
use crate::object::transfer::Stop;
use crate::object::{Handle, block, flight};
use crate::peer::id::index_of;
use crate::peer::table::Table;
use crate::peer::{PeerId, attach, reaper};
use crate::queue::{ByteQueue, Message, Queue};
use crate::ring::position::{Phase, Position, SlotWord};
use crate::segment::Segment;
use crate::segment::layout::{BLOCK, BLOCK_HEADER_SIZE, BLOCKS, HEADERS};
use crate::segment::region::{self, Mapping};
use crate::world::{self, Fate, Local, read, write};

pub const CARRIED: u64 = 3;

/// Blocks that a model has at most.
const MOST: u64 = 4;

/// The blocks of flights, where messages hold an object: behind the queue and the object.
pub fn flights() -> std::ops::Range<u64> {
    2..MOST
}

// Where the words lie; `src/object/block/queue.rs` and `src/heap/block.rs` assert it.
const SLOTS: usize = BLOCKS as usize + 640;
const STRIDE: usize = 256;
pub const CARRIER: usize = 32;
pub const MARKS: usize = 56;
pub const HOLDERS: usize = 64;

pub fn header(block: u64) -> usize {
    (HEADERS + block * BLOCK_HEADER_SIZE) as usize
}

/// The word of a slot of the queue. The payload is the next one.
pub fn slot(index: usize) -> usize {
    SLOTS + index * STRIDE
}

/// Bytes of a queue.
pub fn len(capacity: usize) -> u64 {
    640 + (capacity * STRIDE) as u64
}

pub fn is_occupied(word: SlotWord) -> bool {
    matches!(word.phase(), Phase::Writing | Phase::Full | Phase::Reading | Phase::Orphan)
}

/// Which of so many blocks a word belongs to, and where it lies in that: headers or bytes.
fn within(blocks: u64, offset: usize, base: u64, size: u64) -> Option<(u64, usize)> {
    let within = (offset as u64).checked_sub(base)?;
    (within / size < blocks).then_some((within / size, (within % size) as usize))
}

pub fn within_header(blocks: u64, offset: usize) -> Option<(u64, usize)> {
    within(blocks, offset, HEADERS, BLOCK_HEADER_SIZE)
}

pub fn within_block(blocks: u64, offset: usize) -> Option<(u64, usize)> {
    within(blocks, offset, BLOCKS, BLOCK)
}

/// Which slot's word is here.
pub fn slot_at(capacity: usize, offset: usize) -> Option<usize> {
    let within = offset.checked_sub(SLOTS)?;
    (within.is_multiple_of(STRIDE) && within / STRIDE < capacity).then_some(within / STRIDE)
}

/// Whether the first queue is there.
pub fn is_there(read: &dyn Fn(usize) -> u64) -> bool {
    let (generation, state, _) = decode(read(header(HANDLE.block)));
    state == SHARED && generation == HANDLE.generation
}

/// The slot of the first queue that carries a block, by everybody's words.
pub fn carrier(read: &dyn Fn(usize) -> u64, block: u64) -> Option<(usize, SlotWord)> {
    let [queue, generation, position] =
        [0, 8, 16].map(|field| read(header(block) + CARRIER + field));
    if !is_there(read) || queue != HANDLE.block || generation != HANDLE.generation || position == 0
    {
        return None;
    }
    let position = Position::from_bits(!position);
    let index = position.index() as usize;
    let word = SlotWord::from_bits(read(slot(index)));
    (word.lap() == position.lap() && is_occupied(word)).then_some((index, word))
}

/// Whether a message that can be received, in the only slot of the first queue, holds an object.
pub fn is_in_a_message(read: &dyn Fn(usize) -> u64) -> bool {
    let word = SlotWord::from_bits(read(slot(0)));
    let is_sent = matches!(word.phase(), Phase::Full | Phase::Reading | Phase::Orphan);
    let is_carried = flights().any(|block| {
        let position = Position::from_bits(!read(header(block) + CARRIER + 16));
        decode(read(header(block))).1 == CARRIED && position.lap() == word.lap()
    });
    is_there(read) && is_sent && is_carried
}

/// A flight goes from one state to the next only as its owner may change it.
pub fn flight_moved(touch: Touch, view: &View<'_>) -> Result<(), String> {
    let moved = flights().find(|&block| touch.offset == header(block));
    let Some(block) = moved.filter(|_| touch.before != touch.after) else {
        return Ok(());
    };
    let ((_, from, before), (_, to, _)) = (decode(touch.before), decode(touch.after));
    let owner = index_of(before) as usize;
    let is_right = match (from, to) {
        (FREE, OWNED) => true,
        (OWNED, CARRIED) => owner == touch.process,
        (CARRIED, OWNED) => carrier(&|offset| view.read(offset), block).is_none(),
        (OWNED, OWNED | FREE) => owner == touch.process || view.is_dead(owner),
        _ => false,
    };
    if is_right { Ok(()) } else { Err(format!("flight {block} went from {from} to {to}")) }
}

/// A living process among these, which are a bit each.
pub fn living(among: u64, view: &View<'_>) -> Option<usize> {
    (0..view.fates.len()).find(|&process| among >> process & 1 != 0 && !view.is_dead(process))
}

/// Whoever changes the bytes of a block has it: owns it, or holds it in its own name, in that of a
/// dead process or of a child that was never forked, after which it clears up, or by a flight that
/// it owns. Without a hold it may be another object by now.
pub fn changed_by_a_holder(touch: Touch, view: &View<'_>) -> Result<(), String> {
    let Some((block, field)) = within_block(MOST, touch.offset) else {
        return Ok(());
    };
    let process = touch.process;
    let owned_by = |block, owner| {
        let (_, state, low) = decode(view.read(header(block)));
        state == OWNED && index_of(low) as usize == owner
    };
    let holders = view.read(header(block) + HOLDERS);
    let is_reaped = |peer| clears_up(&|offset| view.read(offset), process, peer);
    let may_use = |peer: usize| peer == process || view.is_dead(peer) || is_reaped(peer);
    let holds = |peer: usize| holders >> peer & 1 != 0 && may_use(peer);
    let is_held = decode(view.read(header(block))).1 == SHARED
        && ((0..view.fates.len()).any(holds) || (0..MOST).any(|flight| owned_by(flight, process)));
    if touch.before == touch.after || owned_by(block, process) || is_held {
        return Ok(());
    }
    Err(format!("block {block}+{field} is changed by {process}, which does not have it"))
}

/// Attaches so many processes and one more, which makes the last checks, and gives pages to all
/// blocks, and nothing else.
pub fn set_up(processes: usize, blocks: u64, kind: u64) {
    region::lay_out(blocks, processes + 1);
    let mapping = Mapping::new(0);
    let table =
        Table::of(mapping.region().expect("a region"), mapping.layout().peers()).expect("a table");
    for process in 0..=processes {
        table.join(&attached(process)).expect("room");
    }
    with(0, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let all: Vec<_> =
            (0..blocks).map(|_| pool.allocate(me, kind, 1).expect("a block")).collect();
        all.iter().for_each(|owned| pool.give_back(owned));
        (0..blocks).for_each(|block| write(header(block), 0));
    });
}

/// Takes the next block and shares it with these processes and the first one. `build` writes it.
pub fn share(
    kind: u64,
    len: u64,
    holders: impl IntoIterator<Item = usize>,
    build: impl FnOnce(u64),
) -> u64 {
    with(0, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let owned = pool.allocate(me, kind, len).expect("a block");
        build(owned.offset());
        pool.share(&owned, me);
        for process in holders {
            pool.attach(owned.id, owned.generation(), peer(process), |_| {});
        }
        owned.id.to_bits()
    })
}

/// As [`share`], for the queue that all models know.
pub fn share_queue<Q>(
    kind: u64,
    len: u64,
    holders: impl IntoIterator<Item = usize>,
    create: impl FnOnce() -> Q,
) {
    let block = share(kind, len, holders, |_| {
        place::lie_at(BLOCKS, len, HANDLE);
        drop(create());
    });
    assert_eq!(block, HANDLE.block, "the lowest is the next");
}

/// The first queue, of one slot.
pub fn queue() -> ByteQueue {
    place::lie_at(BLOCKS, len(1), HANDLE);
    ByteQueue::open(&Segment::commons().expect("a segment"), HANDLE).expect("a queue")
}

/// Sends a message with this object, which the process has.
pub fn send(name: Name) {
    let queue = queue();
    let holder = queue.object().holder().expect("held");
    let Ok(flight) = Flight::new(&holder, &[name]) else {
        world::note("no flight", 0, 0);
        return;
    };
    match queue.put_short(b"", Some(flight), Once) {
        Ok(()) | Err(Stop::Late(_)) => {}
        Err(_) => world::note("not sent", 0, 0),
    }
}

/// Receives a message, if it is there, in which this object must be.
pub fn receive(queue: &ByteQueue, wanted: Name) -> Option<Message<'_>> {
    let message = match queue.get(Once) {
        Ok(message) => message,
        Err(Stop::Late(_)) => return None,
        Err(_) => {
            world::note("broken", 0, 0);
            return None;
        }
    };
    if message.names() != [wanted] {
        world::note("another object", message.names().len() as u64, 0);
        return None;
    }
    Some(message)
}

/// Receives a message and gives it back, and does not look at what it held. For controls.
pub fn ignore(process: usize) {
    place::lie_at(BLOCKS, len(1), HANDLE);
    let segment = Segment::commons().expect("a segment");
    let envelopes: Queue<Envelope> = Queue::open(&segment, HANDLE).expect("a queue");
    let Ok(received) = envelopes.try_recv_ref() else {
        return;
    };
    let flight = received.flight().expect("a flight");
    let carrier = Carrier {
        block: HANDLE.block,
        generation: HANDLE.generation as u32,
        position: received.claim().position().to_bits(),
    };
    drop(received);
    with(process, |mapping, region, me| {
        Pool::new(mapping, region).discard(flight, carrier, me.owner(), |_| {});
    });
}

/// What the name of each configuration ends with.
pub fn limits(reapers: usize, deaths: usize, preemptions: Option<u64>) -> String {
    let reapers = if reapers > 0 { format!(", {reapers} reapers") } else { String::new() };
    let preemptions =
        preemptions.map_or_else(String::new, |bound| format!(", {bound} preemptions"));
    format!("{reapers}, {deaths} die{preemptions}")
}

/// Lets go of an object, as the last handle of a process does.
pub fn leave(process: usize, handle: Handle) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let id = BlockId::from_bits(handle.block).expect("a block");
        if pool.generation(id) == Some(handle.generation as u32) && pool.is_holder(id, me) {
            let recover = |object| {
                block::recover(&pool, object, me.owner());
            };
            flight::settle(&pool, me, |empty| pool.leave(id, me, recover, empty));
        }
    });
}

/// A reaper of our own, for controls. `clear` is given the dead process and the reaper.
pub fn mistaken_reaper(
    process: usize,
    others: usize,
    clear: impl Fn(&Pool<'_>, PeerId, PeerId) + 'static,
) -> Process {
    Process {
        may_run: reaper_of(process, others).may_run,
        ..Process::new("reaper", move |_| {
            with(process, |mapping, region, me| {
                let (_, table) = attach::view(mapping).expect("a table");
                let pool = Pool::new(mapping, region);
                for index in table.indices() {
                    reaper::reap(mapping, table, me, index, |dead| clear(&pool, dead, me));
                }
            });
            None
        })
    }
}

/// Makes room for the senders once all receivers are gone.
pub fn drain(receives: Vec<bool>, receive: impl Fn(Local) -> Option<Local> + 'static) -> Process {
    let may_run = move |fates: &[Fate]| {
        receives.iter().zip(fates).all(|(receives, &fate)| !receives || fate != Fate::Running)
    };
    Process::immortal("drains", may_run, receive)
}

/// What a receiver does that finds nothing: it goes on until all of `senders` have ended, if there
/// are any.
pub fn after_the_last(senders: Option<u64>, ended: u64) -> Option<Local> {
    match senders {
        Some(senders) if ended == 0 => Some([world::have_ended(senders).into(), 0, 0, 0]),
        _ => None,
    }
}

/// A block that is left, and in what state.
pub fn left(blocks: u64) -> Option<String> {
    (0..blocks).find_map(|block| {
        let (_, state, owner) = decode(read(header(block)));
        let holders = read(header(block) + HOLDERS);
        (state != FREE || holders != 0).then(|| {
            format!("block {block} is left in state {state} with {owner}, held by {holders:#b}")
        })
    })
}

/// A word by its name and what it says.
pub fn tell(blocks: u64, capacity: usize, offset: usize, value: u64) -> String {
    if let Some(index) = slot_at(capacity, offset) {
        let word = SlotWord::from_bits(value);
        return format!("slot {index}: {:?}({}, {})", word.phase(), word.lap(), word.owner());
    }
    match (within_header(blocks, offset), within_block(blocks, offset)) {
        (Some((block, 0)), _) => {
            let (generation, state, owner) = decode(value);
            let state =
                ["free", "owned by", "shared", "carried"].get(state as usize).unwrap_or(&"?");
            format!("block {block}: {state} {owner} ({generation})")
        }
        (Some((block, HOLDERS)), _) => format!("holders {block}: {value:#b}"),
        (Some((block, MARKS)), _) => format!("marks {block}: {value:#b}"),
        (Some((block, field)), _) => format!("header {block}+{field}: {value:#x}"),
        (_, Some((block, field))) => format!("block {block}+{field}: {value:#x}"),
        _ => super::peers::tell(offset, value),
    }
}
